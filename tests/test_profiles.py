"""Profiles: typed, frozen, and clear about what is wrong with them."""

import pytest
import torch
from pydantic import ValidationError

from sempart_core import SempartError, profiles


def test_all_names_load(tmp_path):
    for name in profiles.names():
        p = profiles.load(name, data_root=tmp_path)
        assert p.name == name and p.data_root == tmp_path
    assert profiles.names() == ["smoke", "demo", "photos", "paper"]


def test_smoke_is_small_and_writes_nothing():
    p = profiles.load("smoke")
    assert not p.write and p.limit <= 8 and p.train_steps == 2 and p.dataset == "demo"


def test_keys_can_be_changed_but_not_invented():
    assert profiles.load("demo", limit=7, seed=3).limit == 7
    with pytest.raises(SempartError, match=r"'limits'.*limit"):
        profiles.load("demo", limits=7)


@pytest.mark.parametrize("change", [{"limit": "many"}, {"limit": 0}, {"size": -1}, {"repeats": 0}])
def test_a_wrong_value_is_named(change):
    with pytest.raises(SempartError, match=repr(next(iter(change)))):
        profiles.load("demo", **change)


def test_a_profile_does_not_change_behind_ones_back():
    with pytest.raises(ValidationError):
        profiles.load("demo").limit = 3


def test_an_unknown_profile_is_answered_with_the_known_ones():
    with pytest.raises(SempartError, match=r"'demos'.*smoke, demo, photos, paper"):
        profiles.load("demos")


def test_real_photographs_need_their_folder(tmp_path):
    with pytest.raises(SempartError, match="needs data_root"):
        profiles.load("photos", data_root="")
    with pytest.raises(SempartError, match="not a folder"):
        profiles.load("paper", data_root=tmp_path / "nowhere")


def test_devices():
    assert profiles.load("demo", device="cpu").device == "cpu"
    assert profiles.load("demo").device == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(SempartError, match=r"'gpu'.*cpu"):
        profiles.load("demo", device="gpu")
    with pytest.raises(SempartError, match=r"'cuda:99'.*no such GPU"):
        profiles.load("demo", device="cuda:99")
