"""Where the parity vectors are: the arrays that the public implementations gave for fixed random inputs."""

from __future__ import annotations

import os
import pathlib

import pytest

DEFAULT = pathlib.Path(__file__).resolve().parents[2] / "shared" / "reference" / "vectors"


def folder() -> pathlib.Path:
    """The folder that ``SEMPART_VECTORS`` names, else the one beside the checkout, which may be absent.

    Raises
    ------
    pytest.UsageError
        ``SEMPART_VECTORS`` is set but is no folder: who asked for parity is not to get skipped tests.
    """
    said = os.environ.get("SEMPART_VECTORS")
    if not said:
        return DEFAULT
    path = pathlib.Path(said).expanduser()
    if not path.is_dir():
        raise pytest.UsageError(f"SEMPART_VECTORS is {said!r}, which is no folder: correct it or unset it")
    return path
