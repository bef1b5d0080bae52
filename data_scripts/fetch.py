"""Files by HTTP with resume; ``packages`` beside it fetches what comes inside a package.

Whatever is asked for appears under its final name only when it is whole and, where a checksum is
known, checked.
"""

from __future__ import annotations

import os
import pathlib
import sys
import time

import pooch
import requests
from tqdm import tqdm

from sempart_core.errors import SempartError

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
