"""Where fetched and generated files live; one setting moves them all."""

from __future__ import annotations

import os
import pathlib

import platformdirs


def cache_dir() -> pathlib.Path:
    """The cache folder: ``SEMPART_CACHE`` if set, else the user's cache folder for ``sempart``."""
    return pathlib.Path(os.environ.get("SEMPART_CACHE") or platformdirs.user_cache_dir("sempart"))
