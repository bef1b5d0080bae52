"""Features and predictions: the shapes they insist on, sub-batches, and the way back to pixels."""

import pytest
import torch

from sempart_core import Features, SempartError
from sempart_core.methods import Prediction


def features(b=3, grid=(2, 4), d=5, **kw) -> Features:
    g = torch.Generator().manual_seed(0)
    n = grid[0] * grid[1]
    return Features(
        torch.rand(b, n, d, generator=g),
        grid,
        patch=8,
        attention=torch.rand(b, 2, n, generator=g),
        images=torch.rand(b, 3, grid[0] * 8, grid[1] * 8, generator=g),
        layers={"tokens@1": torch.rand(b, n, 7, generator=g)},
        tau=0.3,
        name="net/keys@2",
        **kw,
    )


def test_the_grid_must_fit():
    with pytest.raises(SempartError, match="grid 3x3"):
        Features(torch.rand(1, 8, 4), (3, 3))
    with pytest.raises(SempartError, match="grid 2x4"):
        Features(torch.rand(8, 4), (2, 4))


def test_size_follows_from_grid_and_patch_unless_the_input_was_padded():
    assert features().size == (16, 32)
    assert features(size=(15, 30)).size == (15, 30)


def test_select_brings_a_layer_to_the_front_with_its_own_tau():
    f = features().select("tokens@1", tau=0.4)
    assert f.x.shape == (3, 8, 7) and f.tau == 0.4 and f.name == "net/tokens@1"
    assert features().select("tokens@1").tau is None  # a tau belongs to a feature: none is inherited
    with pytest.raises(SempartError, match=r"'keys@0'.*tokens@1"):
        features().select("keys@0")


@pytest.mark.parametrize("i, rows", [(1, [1]), (-1, [2]), (slice(0, 2), [0, 1])])
def test_a_sub_batch_cuts_every_tensor(i, rows):
    f = features()
    s = f[i]
    assert len(s) == len(rows)
    for a, b in [
        (s.x, f.x),
        (s.attention, f.attention),
        (s.images, f.images),
        (s.layers["tokens@1"], f.layers["tokens@1"]),
    ]:
        assert torch.equal(a, b[rows])


def test_a_loop_over_features_ends():
    assert [len(one) for one in features()] == [1, 1, 1]
    with pytest.raises(IndexError):
        features()[3]


def test_cat_undoes_slicing_and_refuses_other_grids():
    f = features()
    again = Features.cat([f[:1], f[1:]])
    assert torch.equal(again.x, f.x) and torch.equal(again.layers["tokens@1"], f.layers["tokens@1"])
    assert again.tau == f.tau and again.name == f.name
    with pytest.raises(SempartError, match="different grids"):
        Features.cat([f, features(grid=(4, 2))])


def test_to_casts_all():
    f = features().to(torch.float16)
    assert {t.dtype for t in (f.x, f.attention, f.images, f.layers["tokens@1"])} == {torch.float16}


def prediction(**kw) -> Prediction:
    mask = torch.tensor([[[1, 0], [0, 0]]], dtype=torch.bool)
    base = dict(soft=mask.float(), mask=mask, boxes=torch.tensor([[0.0, 0, 8, 8]]), size=(16, 16))
    return Prediction(**{**base, **kw})


def test_resize_takes_masks_and_boxes_to_the_photograph():
    p = prediction().resize((32, 48), mode="nearest")
    assert p.mask.shape == p.soft.shape == (1, 32, 48)
    assert p.mask[0, :16, :24].all() and p.mask.sum() == 16 * 24
    assert p.boxes.tolist() == [[0, 0, 24, 16]]
    assert p.size == (32, 48) and p.covers is None


def test_resize_bilinear_is_binarised_at_a_half():
    p = prediction().resize((16, 16))
    assert torch.equal(p.mask, p.soft > 0.5)
    assert p.soft.unique().numel() > 2  # a ramp between the cells


def test_resize_cuts_padding_first():
    # 2 x 2 cells of 8 pixels cover 16 x 16, of which 12 x 16 were picture
    mask = torch.tensor([[[0, 0], [1, 1]]], dtype=torch.bool)
    p = prediction(soft=mask.float(), mask=mask, size=(12, 16), covers=(16, 16)).resize(
        (12, 16), mode="nearest"
    )
    assert p.mask[0].sum(0).tolist() == [4] * 16


def test_predictions_join():
    both = Prediction.cat([prediction(), prediction()])
    assert len(both) == 2 and both.boxes.shape == (2, 4) and both.seed is None


def test_centred_features_have_no_mean_and_no_threshold():
    f = Features(torch.randn(2, 6, 4) + 5, (2, 3), tau=0.6, name="b/queries@11")
    c = f.centred()
    assert c.x.mean(dim=1).abs().max() < 1e-5 and c.tau is None and c.name == "b/queries@11-centred"
    torch.testing.assert_close(c.x[:, 0] - c.x[:, 1], f.x[:, 0] - f.x[:, 1])
