"""The two numbers that collapse: codes of row and column beside frozen features."""

import math
from dataclasses import replace

import pytest
import torch
from test_finetune import pictures, tiny

from sempart_core import SempartError
from sempart_core.collapse import collapse_shares
from sempart_core.finetune_data import load_pairs
from sempart_core.mask_consistency import MaskConsistency
from sempart_core.position_codes import PositionCodes, position_codes, tune_strengths

FREE = MaskConsistency.preset("code", alpha=0.0, solver="closed", min_iou=0.0)


@pytest.fixture(scope="module")
def pairs():
    return load_pairs(pictures(6), tiny(), each=1, size=96, blocks=1, colours="none", seed=0)


def test_codes_know_the_distance_along_one_side_only():
    c = position_codes((5, 8))
    rows, columns = c[:2].flatten(1), c[2:].flatten(1)
    y, x = (t.flatten() for t in torch.meshgrid(torch.arange(5.0), torch.arange(8.0), indexing="ij"))
    for code, at, n in ((rows, y, 5), (columns, x, 8)):
        want = torch.cos(math.pi * (at[:, None] - at) / n)
        torch.testing.assert_close(code.T @ code, want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("strength, pattern", [((3.0, 0.0), "horizontal"), ((0.0, 3.0), "vertical")])
def test_a_strong_code_is_cut_across_whatever_the_features_are(strength, pattern):
    model = PositionCodes()
    model.strength.data = torch.tensor(strength)
    f = torch.randn(3, 7, 8, 8, generator=torch.Generator().manual_seed(1))
    z = FREE.vectors(model(f).permute(0, 2, 3, 1))
    shares = collapse_shares(torch.sigmoid(z / FREE.temperature).reshape(3, 8, 8))
    assert shares[pattern] == 1
    model.strength.data.neg_()  # the sign of a strength is not seen by a product
    torch.testing.assert_close(FREE.vectors(model(f).permute(0, 2, 3, 1)), z)


def test_where_features_say_nothing_a_strength_grows_until_pairs_agree(pairs):
    noise = torch.randn(pairs.x.shape, generator=torch.Generator().manual_seed(0)).half()
    pairs = replace(pairs, x=noise)  # another one in each view
    found = tune_strengths(pairs, tiny(), FREE, steps=50, lr=0.05, batch=6, start=0.3)
    first, last = found.log[0], found.log[-1]
    assert last["mask"] < first["mask"] and last["iou"] > first["iou"]
    assert max(abs(last["rows"]), abs(last["columns"])) > 0.6
    assert found.masks.shape == (6, 6, 6) and 0 <= found.masks.min() and found.masks.max() <= 1
    again = tune_strengths(pairs, tiny(), FREE, steps=50, lr=0.05, batch=6, start=0.3)
    assert again.log == found.log


def test_a_strength_of_zero_stays(pairs):
    found = tune_strengths(pairs, tiny(), FREE, steps=3, start=0.0)
    assert found.log[-1]["rows"] == found.log[-1]["columns"] == 0


def test_bad_input_is_named(pairs):
    for options, word in (({"steps": 0}, "steps"), ({"lr": 0.0}, "lr"), ({"start": math.nan}, "start"), ({"seed": -1}, "seed")):  # fmt: skip
        with pytest.raises(SempartError, match=word):
            tune_strengths(pairs, tiny(), FREE, **options)
    with pytest.raises(SempartError, match="same backbone"):
        tune_strengths(pairs, tiny(sha="0" * 64), FREE)
    with pytest.raises(SempartError, match="grid"):
        position_codes((0, 3))
