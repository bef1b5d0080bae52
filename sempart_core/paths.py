"""Where fetched and generated files live; one setting moves them all."""

from __future__ import annotations

import os
import pathlib

import platformdirs

from .errors import SempartError


def cache_dir() -> pathlib.Path:
    """The cache folder: ``SEMPART_CACHE`` if set, else the user's cache folder for ``sempart``."""
    return pathlib.Path(os.environ.get("SEMPART_CACHE") or platformdirs.user_cache_dir("sempart"))


def ensure(
    folder: str | os.PathLike, remedy: str = "set SEMPART_CACHE to a folder that can be written"
) -> pathlib.Path:
    """Make a folder of the cache and return it; quick if it is there.

    Raises
    ------
    SempartError
        It cannot be made or written; the sentence names it and ends with ``remedy``.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SempartError(f"cannot make the folder {folder} ({e.strerror}); {remedy}") from e
    if not os.access(folder, os.W_OK):
        raise SempartError(f"cannot write into the folder {folder}; {remedy}")
    return folder
