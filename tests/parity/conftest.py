"""Parity vectors: inputs and outputs of the public implementations, beside the checkout or in SEMPART_VECTORS."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

DEFAULT = pathlib.Path(__file__).resolve().parents[3] / "shared" / "reference" / "vectors"


def folder() -> pathlib.Path:
    return pathlib.Path(os.environ.get("SEMPART_VECTORS") or DEFAULT)


@pytest.fixture(scope="session")
def vectors():
    """``vectors("a_tokencut_ncut")`` -> the arrays of that file."""
    if not folder().is_dir():
        pytest.skip("parity vectors are absent: set SEMPART_VECTORS to their folder")

    def read(stem: str) -> dict[str, np.ndarray]:
        with np.load(folder() / f"{stem}.npz", allow_pickle=False) as z:
            return {k: z[k] for k in z.files}

    return read


def pytest_terminal_summary(terminalreporter):
    if not folder().is_dir():
        terminalreporter.write_line("")
        terminalreporter.write_line(
            "PARITY NOT TESTED: the folder of reference vectors is absent. "
            "Set SEMPART_VECTORS to it; without it nothing says that we agree with the public code.",
            red=True,
            bold=True,
        )
