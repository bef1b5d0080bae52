"""The folder of parity vectors: found, or missed aloud."""

from __future__ import annotations

import parity_vectors
import pytest


def test_the_folder_that_was_asked_for_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_VECTORS", str(tmp_path))
    assert parity_vectors.folder() == tmp_path
    monkeypatch.setenv("SEMPART_VECTORS", str(tmp_path / "absent"))
    with pytest.raises(pytest.UsageError, match="SEMPART_VECTORS"):
        parity_vectors.folder()
    monkeypatch.setenv("SEMPART_VECTORS", "")
    assert parity_vectors.folder() == parity_vectors.DEFAULT
