"""Where two crops of a photograph meet: an image whose pixels say where they are is brought back upright."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sempart_core import SempartError
from sempart_core.crop_pairs import align, crop_pairs, flip_boxes, overlap_boxes, random_window, shared_area


def places(h=150, w=200):
    """A photograph whose red and green are the pixel's own row and column."""
    y, x = np.mgrid[:h, :w]
    return np.stack([y * 255 / (h - 1), x * 255 / (w - 1), 0 * y + 128], -1).round().astype(np.uint8)


def test_overlap_of_both_views_shows_the_same_place():
    pairs = crop_pairs([places()] * 8, 112, range(8), colours="none")
    assert pairs.views.shape == (2, 8, 3, 112, 112) and pairs.flips.any() and not pairs.flips.all()
    a, b = (
        align(v, box, flip, (14, 14))
        for v, box, flip in zip(pairs.views, pairs.boxes, pairs.flips, strict=True)
    )
    assert (a - b).abs()[:, :2].mean() < 0.01
    # Wrong boxes would show: with those of the neighbour in the batch the places differ.
    c = align(pairs.views[1], pairs.boxes[1].roll(1, 0), pairs.flips[1], (14, 14))
    assert (a - c).abs()[:, :2].mean() > 0.05


def test_windows_lie_inside_and_cover_their_share():
    draw = torch.Generator().manual_seed(0)
    for _ in range(200):
        first = random_window((90, 160), draw)
        top, left, h, w = second = random_window((90, 160), draw, first)
        assert top >= 0 and left >= 0 and top + h <= 90 and left + w <= 160
        assert 0.19 <= h * w / (90 * 160) <= 1 and 0.7 < w / h < 1.4
        assert shared_area(first, second) >= 0.01 * h * w
    thin = random_window((10, 400), draw)
    assert thin == (0, 193, 10, 13), "too wide for any draw: the middle at 4:3"


@pytest.mark.parametrize(
    "scale", [0.5, (-0.5, 1), (0, 1), (2, 3), (0.8, 0.2), (0.1, 0.2, 0.3), ("a", "b"), (float("nan"), 1)]
)
def test_shares_that_are_none(scale):
    with pytest.raises(SempartError, match="scale="):
        crop_pairs([places()], 56, [0], colours="none", scale=scale)


def test_without_a_draw_that_meets_it_the_second_crop_is_the_first(monkeypatch):
    monkeypatch.setattr("sempart_core.crop_pairs.shared_area", lambda *_: 0)
    first = (1, 2, 30, 40)
    assert random_window((90, 160), torch.Generator().manual_seed(0), first) == first


def test_boxes():
    a, b = overlap_boxes(torch.tensor([[0, 0, 10, 20]]), torch.tensor([[5, 10, 10, 20]]))
    assert a.tolist() == [[0.5, 0.5, 1, 1]] and b.tolist() == [[0, 0, 0.5, 0.5]]
    flipped = flip_boxes(a, torch.tensor([True]))
    assert flipped.tolist() == [[0, 0.5, 0.5, 1]]
    with pytest.raises(SempartError, match="in common"):
        overlap_boxes(torch.tensor([[0, 0, 5, 5]]), torch.tensor([[5, 0, 5, 5]]))
    with pytest.raises(SempartError, match="B x 4"):
        align(torch.zeros(2, 3, 4, 4), torch.zeros(1, 4), torch.zeros(2, dtype=torch.bool))


def test_the_whole_box_is_the_identity_and_gradients_pass():
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    whole = torch.tensor([[0.0, 0, 1, 1]] * 2)
    out = align(x, whole, torch.tensor([False, True]))
    torch.testing.assert_close(out[0], x[0])
    torch.testing.assert_close(out[1], x[1].flip(-1))
    half = torch.tensor([[0.0, 0, 0.5, 1]] * 2)
    assert torch.autograd.gradcheck(lambda t: align(t, half, torch.tensor([False, True])), x, atol=1e-5)


@pytest.mark.parametrize("colours", ["dino", "code"])
def test_a_seed_decides_the_pair_whatever_the_batch(colours):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a = crop_pairs([places(), places(90, 90)], 56, [5, 6], colours=colours)
    b = crop_pairs([places(90, 90)], 56, [6], colours=colours)
    assert torch.equal(torch.get_rng_state(), before)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x[:, 1], y[:, 0])
    assert not torch.equal(crop_pairs([places()], 56, [7], colours=colours).views, a.views[:, :1])
    assert 0 <= a.views.min() and a.views.max() <= 1
    plain = crop_pairs([places()], 56, [5], colours="none")
    assert torch.equal(plain.boxes, a.boxes[:, :1])
    assert F.l1_loss(plain.views, a.views[:, :1]) > 0.01
