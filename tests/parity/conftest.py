"""Parity vectors: inputs and outputs of the public implementations, beside the checkout or in SEMPART_VECTORS."""

from __future__ import annotations

import json

import numpy as np
import pytest
from parity_vectors import folder


@pytest.fixture(scope="session")
def vectors():
    """``vectors("a_tokencut_ncut")`` -> the arrays of that file."""
    if not folder().is_dir():
        pytest.skip("parity vectors are absent: set SEMPART_VECTORS to their folder")

    def read(stem: str) -> dict[str, np.ndarray]:
        with np.load(folder() / f"{stem}.npz", allow_pickle=False) as z:
            return {k: z[k] for k in z.files}

    return read


@pytest.fixture(scope="session")
def sidecar(vectors):
    """``sidecar("h_corloc")`` -> the JSON beside the arrays, for inputs that are no arrays; a skip if absent."""

    def read(stem: str) -> dict:
        path = folder() / f"{stem}.json"
        if not path.is_file():
            pytest.skip(f"NOT TESTED: {path.name}, which holds this test's inputs, is not beside {stem}.npz")
        return json.loads(path.read_text(encoding="utf-8"))

    return read
