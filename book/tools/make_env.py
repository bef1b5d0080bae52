"""Create or update the virtual environment from requirements.txt; instant when nothing changed.

Runs under the system's Python with nothing installed. Uses uv if there is one, else venv and pip.
Usage: python3 book/tools/make_env.py .venv
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Compiled while it is installed, from C++; everything but the dense CRF works without it.
OPTIONAL = "pydensecrf2"


def fingerprint() -> str:
    """Of the lock, of what pyproject.toml says about the package, and of the interpreter."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    h = hashlib.sha256((ROOT / "requirements.txt").read_bytes())
    keep = [project["build-system"], project["project"], project["tool"]["setuptools"], str(ROOT)]
    h.update(json.dumps(keep, sort_keys=True).encode())
    return h.hexdigest()


def say(*words) -> None:
    print("env:", *words, flush=True)


def call(*command, **env) -> None:
    subprocess.run([str(c) for c in command], check=True, cwd=ROOT, env={**os.environ, **env})


def split_lock(text: str) -> tuple[str, str]:
    """The lock without the optional package, and that package's own line ("" if it is not locked)."""
    lines = text.splitlines(keepends=True)
    own = [line for line in lines if line.partition("==")[0].strip().lower() == OPTIONAL]
    return "".join(line for line in lines if line not in own), "".join(own).strip()


def install(pip: list, stamp: pathlib.Path, *, once: list) -> None:
    """The lock, the optional package if it compiles, and this package itself; ``once`` goes to the lock only."""
    rest, optional = split_lock((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as tmp:
        lock = pathlib.Path(tmp) / "requirements.txt"
        lock.write_text(rest, encoding="utf-8")
        call(*pip, *once, "-r", lock)
    call(*pip, "--no-deps", "-e", ".")
    if optional:
        try:
            call(*pip, "--no-deps", optional)
        except subprocess.CalledProcessError:
            say(
                f"the dense CRF is left out: {OPTIONAL} did not install (it needs a C++ compiler); "
                f"once there is one, delete {stamp.relative_to(ROOT)} and run again"
            )


def write_stamp(stamp: pathlib.Path, text: str) -> None:
    """Whole or not at all; the package's own atomic writing is not importable here."""
    fresh = stamp.with_name(f"{stamp.name}.{os.getpid()}")
    fresh.write_text(text)
    os.replace(fresh, stamp)


def main(folder: str) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before anything checked the version
        say(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; try make PYTHON=python3.11")
        return 2
    venv = ROOT / folder
    python, stamp, want = venv / "bin" / "python", venv / ".sempart-env", fingerprint()
    if python.exists() and stamp.exists() and stamp.read_text() == want:
        say("up to date")
        return 0
    began, uv = time.time(), shutil.which("uv")
    if uv and subprocess.run([uv, "--version"], capture_output=True).returncode:
        uv = None  # a shim without a program behind it
    say(f"installing into {folder} with {'uv' if uv else 'venv and pip'} (PyTorch alone is some gigabytes)")
    stamp.unlink(missing_ok=True)  # what fails half way must not pass for the state it replaced
    try:
        if not python.exists():
            if uv:
                call(uv, "venv", "--seed", "--python", sys.executable, venv)
            else:
                call(sys.executable, "-m", "venv", venv)
        # installed packages are compiled on first import otherwise, in each kernel anew if run side by side
        pip = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
        install(pip, stamp, once=["--compile-bytecode"] if uv else [])
    except subprocess.CalledProcessError as e:
        say(
            f"failed ({' '.join(map(str, e.cmd[:4]))} ...); the message above says why. Nothing was stamped, run again"
        )
        return 1
    write_stamp(stamp, want)
    say(f"ready after {time.time() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ".venv"))
