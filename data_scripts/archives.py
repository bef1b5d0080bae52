"""Unpacking what was fetched; no member ever lands outside the folder it is meant for."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import pathlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator

from sempart_core.errors import SempartError

#: What the readers of archives raise on damage.
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


def zip_member(archive: str | os.PathLike, member: str, dest: str | os.PathLike) -> pathlib.Path:
    """Copy one member of a zip archive to the file ``dest``; its stored path is never used."""
    name = pathlib.Path(archive).name
    try:
        with _told(name), zipfile.ZipFile(archive) as z, z.open(member) as src, open(dest, "wb") as out:
            shutil.copyfileobj(src, out, 1 << 20)
    except KeyError as e:
        raise SempartError(f"{name} holds no {member}") from e
    return pathlib.Path(dest)


def tar_member(archive: str | os.PathLike, member: str, dest: str | os.PathLike) -> pathlib.Path:
    """Copy one file of a tar archive to the file ``dest``; its stored path is never used."""
    name = pathlib.Path(archive).name
    try:
        with _told(name), tarfile.open(archive, "r:*") as tar:
            found = tar.getmember(member)
            if not found.isfile():
                raise SempartError(f"{name}: {member} is no plain file")
            with tar.extractfile(found) as src, open(dest, "wb") as out:
                shutil.copyfileobj(src, out, 1 << 20)
    except KeyError as e:
        raise SempartError(f"{name} holds no {member}") from e
    return pathlib.Path(dest)


def unpack_deb(
    deb: str | os.PathLike, dest: str | os.PathLike, keep: Callable[[str], bool] | None = None
) -> None:
    """Unpack the files of a ``.deb`` (an ``ar`` archive that holds ``data.tar.xz`` or ``.gz``)."""
    deb = pathlib.Path(deb)
    with deb.open("rb") as f:
        if f.read(8) != b"!<arch>\n":
            raise SempartError(f"{deb.name} is not a Debian package; delete it and fetch again")
        while head := f.read(60):
            member, size = head[:16].decode("ascii", "replace").strip().rstrip("/"), int(head[48:58])
            if member.startswith("data.tar"):
                data = f.read(size)
                break
            f.seek(size + size % 2, io.SEEK_CUR)
        else:
            raise SempartError(f"{deb.name} holds no data archive; delete it and fetch again")
    unpack_tar(io.BytesIO(data), dest, keep, name=f"{deb.name}/{member}")


def unpack_tar(
    source: str | os.PathLike | io.BytesIO,
    dest: str | os.PathLike,
    keep: Callable[[str], bool] | None = None,
    name: str = "",
) -> None:
    """Unpack a tar archive; a member that would land outside ``dest`` is refused, with all the rest."""
    name = name or str(source)
    kw = {"fileobj": source} if isinstance(source, io.BytesIO) else {"name": source}
    try:
        with _told(name), tarfile.open(mode="r:*", **kw) as tar:
            members = [m for m in tar if keep is None or keep(m.name.removeprefix("./"))]
            pathlib.Path(dest).mkdir(parents=True, exist_ok=True)
            tar.extractall(dest, members=members, filter="data")
    except tarfile.FilterError as e:
        raise SempartError(f"{name}: refused, a member would leave the folder ({e})") from e


def unpack_zip(archive: str | os.PathLike, dest: str | os.PathLike) -> None:
    """Unpack a zip archive; one with a member that would land outside ``dest`` is refused whole."""
    archive, dest = pathlib.Path(archive), pathlib.Path(dest)
    with _told(archive.name), zipfile.ZipFile(archive) as z:
        root = dest.resolve()
        for m in z.infolist():
            if m.filename.startswith(("/", "\\")) or not (root / m.filename).resolve().is_relative_to(root):
                raise SempartError(f"{archive.name}: refused, {m.filename} would leave the folder")
        dest.mkdir(parents=True, exist_ok=True)
        z.extractall(dest)


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn a damaged archive, or a disk that refuses, into a sentence."""
    try:
        yield
    except tarfile.FilterError:
        raise
    except DAMAGED as e:
        raise SempartError(f"{name} is damaged ({e}); delete it and fetch again") from e
    except OSError as e:
        if e.errno is None:  # gzip's and bz2's own errors
            raise SempartError(f"{name} is damaged ({e}); delete it and fetch again") from e
        raise SempartError(
            f"{name} cannot be unpacked ({e.strerror}); make room for it, or check who may write there"
        ) from e
