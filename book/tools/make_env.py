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
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


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
    try:
        if not python.exists():
            if uv:
                call(uv, "venv", "--seed", "--python", sys.executable, venv)
            else:
                call(sys.executable, "-m", "venv", venv)
        # installed packages are compiled on first import otherwise, in each kernel anew if run side by side
        pip = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
        call(*pip, *(["--compile-bytecode"] if uv else []), "-r", "requirements.txt")
        call(*pip, "--no-deps", "-e", ".")
    except subprocess.CalledProcessError as e:
        say(
            f"failed ({' '.join(map(str, e.cmd[:4]))} ...); the message above says why. Nothing was stamped, run again"
        )
        return 1
    stamp.write_text(want)
    say(f"ready after {time.time() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ".venv"))
