"""The strategies of SEMPART, and the one of Two Tricks, on masks where each has an obvious answer."""

import pytest
import torch

from sempart_core import SempartError, foreground


def masks(*texts):
    return torch.stack([torch.tensor([[c == "#" for c in line] for line in t.split()]) for t in texts])


BLOB = "..... .##.. .##.. ....."  # a central object
FRAME = "##### #...# #...# #####"  # its complement is central
CORNER = "##... ##... ..... ....."  # one corner against three


@pytest.mark.parametrize("strategy", ["least-corners", "centrality", "framing", "smaller"])
def test_a_central_blob_is_foreground_from_either_side(strategy):
    mask = masks(BLOB)
    assert torch.equal(foreground.select(mask, strategy), mask)
    assert torch.equal(foreground.select(~mask, strategy), mask)


def test_each_image_of_a_batch_is_decided_alone():
    out = foreground.select(masks(BLOB, FRAME, CORNER), "least-corners")
    assert torch.equal(out, torch.stack([masks(BLOB)[0], ~masks(FRAME)[0], masks(CORNER)[0]]))


def test_strategies_disagree_where_they_should():
    hollow = masks("####. ####. ####. .....")  # large, one corner, reaches neither right nor bottom
    assert torch.equal(foreground.select(hollow, "least-corners"), hollow)
    assert torch.equal(foreground.select(hollow, "smaller"), ~hollow)
    assert torch.equal(foreground.select(hollow, "framing"), hollow)  # the rest spans width and height


def test_equal_corners_go_to_the_smaller_side():
    band = masks("###.. ###.. ###..")  # two corners each
    assert torch.equal(foreground.select(band, "least-corners"), ~band)
    assert torch.equal(foreground.select(~band, "least-corners"), ~band)
    assert torch.equal(foreground.select(band, "framing"), ~band)  # both span the height


def test_a_perfect_tie_keeps_the_mask():
    half = masks("##.. ##..")
    for strategy in ("least-corners", "centrality", "framing", "smaller"):
        assert torch.equal(foreground.select(half, strategy), half), strategy
        assert torch.equal(foreground.select(~half, strategy), ~half), strategy


def test_attention_total_and_mean_may_differ():
    mask = masks("#... ....")
    a = torch.tensor([[[3.0, 1, 1, 1], [1, 1, 1, 1]]])  # 3 against 7 in total, 3 against 1 on average
    assert torch.equal(foreground.select(mask, "attention", a), ~mask)
    assert torch.equal(foreground.select(mask, "attention-mean", a), mask)


def test_heads_are_summed_and_coarse_attention_is_enlarged():
    mask = masks("##.. ##.. .... ....")
    heads = torch.zeros(1, 2, 4)
    heads[0, 0, 0] = 1.0  # the top left patch of a 2 x 2 grid
    assert torch.equal(foreground.select(~mask, "attention", heads, grid=(2, 2)), mask)
    flat = heads.sum(1)
    assert torch.equal(foreground.select(~mask, "attention", flat, grid=(2, 2)), mask)


def test_a_batch_is_inverted_as_one_by_the_mean_of_all_its_pixels():
    batch = masks(BLOB, "##### ##### ##### #####", "##### ##### ##### #####")  # 4 + 20 + 20 of 60 pixels
    assert torch.equal(foreground.select(batch, "batch-mean"), ~batch)  # the blob too, and the full ones
    assert torch.equal(foreground.select(batch[:2], "batch-mean"), ~batch[:2])  # 24 of 40
    assert torch.equal(foreground.select(batch[:1], "batch-mean"), batch[:1])
    empty = torch.zeros(1, 4, 5, dtype=torch.bool)
    out = foreground.select(torch.cat([batch, empty]), "batch-mean")  # 44 of 80
    assert torch.equal(out, torch.cat([~batch, ~empty]))


def test_the_mean_of_a_batch_is_that_of_the_soft_masks():
    mask = masks("###. ###.")
    soft = torch.where(mask, 0.6, 0.0)  # three quarters of the pixels, but a mean of .45
    assert foreground.flips(mask, "batch-mean").all()
    assert not foreground.flips(mask, "batch-mean", soft=soft).any()
    assert not foreground.flips(mask, "batch-mean", soft=torch.full_like(soft, 0.5)).any()  # not above 1/2


@pytest.mark.parametrize("strategy", list(foreground.STRATEGIES))
def test_result_does_not_depend_on_the_side_given(strategy):
    g = torch.Generator().manual_seed(0)
    mask = torch.rand(32, 7, 9, generator=g) > 0.4
    attention = torch.rand(32, 3, 63, generator=g)
    out = foreground.select(mask, strategy, attention)
    assert torch.equal(out, foreground.select(~mask, strategy, attention))
    assert ((out == mask).flatten(1).all(1) | (out == ~mask).flatten(1).all(1)).all()
    # Every strategy but attention is blind to mirroring.
    if not strategy.startswith("attention"):
        assert torch.equal(foreground.select(mask.flip(-1), strategy), out.flip(-1))


@pytest.mark.parametrize("strategy", list(foreground.STRATEGIES))
def test_nothing_to_choose_nothing_done(strategy):
    mask = torch.stack([torch.zeros(3, 4), torch.ones(3, 4)]).bool()
    assert torch.equal(foreground.select(mask, strategy, torch.rand(2, 12)), mask)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: foreground.select(masks(BLOB), "guess"), "choose one of: centrality"),
        (lambda: foreground.select(masks(BLOB)[0], "framing"), "B x h x w"),
        (lambda: foreground.select(masks(BLOB), "attention"), "needs attention"),
        (lambda: foreground.select(masks(BLOB), "attention", torch.rand(1, 6, 99)), "name the grid"),
        (lambda: foreground.select(masks(BLOB), "attention", torch.rand(1, 99)), "does not fit"),
        (lambda: foreground.select(masks(BLOB), "batch-mean", soft=torch.rand(1, 2, 2)), "soft mask of each"),
        (
            lambda: foreground.select(masks(BLOB), "attention", torch.rand(1, 6, 99), grid=(4, 5)),
            "does not fit",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(SempartError, match=words):
        call()
