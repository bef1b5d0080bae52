"""Properties of the methods on small made-up feature maps."""

import pytest
import torch

from sempart_core import SempartError
from sempart_core.features import Features
from sempart_core.methods import METHODS, Prediction
from sempart_core.methods.deep_spectral import localise, signed
from sempart_core.methods.dino_seg import keep_mass
from sempart_core.methods.lost import degrees, expand

GRID, CELL = (12, 15), 8
OBJECT = (slice(4, 8), slice(5, 11))  # rows, columns


def scene(n=2, noise=0.25, seed=0, double=False) -> Features:
    """Two kinds of patches around two directions; the object is the rectangle OBJECT."""
    g = torch.Generator().manual_seed(seed)
    truth = torch.zeros(GRID, dtype=torch.bool)
    truth[OBJECT] = True
    means = torch.randn(2, 16, generator=g)
    means /= means.norm(dim=1, keepdim=True)
    x = means[truth.flatten().long()][None] + noise * torch.randn(n, truth.numel(), 16, generator=g) / 4
    attention = 0.1 + truth.flatten().float().repeat(n, 3, 1)
    images = torch.rand(n, 3, GRID[0] * CELL, GRID[1] * CELL, generator=g)
    images[
        :, :, OBJECT[0].start * CELL : OBJECT[0].stop * CELL, OBJECT[1].start * CELL : OBJECT[1].stop * CELL
    ] *= 0.2
    f = Features(x, GRID, CELL, attention=attention / attention.sum(-1, keepdim=True), images=images, tau=0.5)
    return f.to(torch.float64) if double else f


#: Methods that work as they are; a trained head has its own tests.
# sempart's head reads the features of one network alone; test_sempart_method.py has its own scenes.
PLAIN = [name for name in METHODS if not METHODS.card(name).extra.get("needs") and name != "sempart"]
BOX = torch.tensor([OBJECT[1].start, OBJECT[0].start, OBJECT[1].stop, OBJECT[0].stop]) * float(CELL)
EASY = [
    ("tokencut", {}),
    ("tokencut", {"foreground": "least-corners"}),
    ("tokencut-discovery", {}),
    ("deep-spectral", {"variant": "code"}),
    ("diffncut", {}),
    ("diffncut", {"laplacian": "normalized"}),
    ("diffncut", {"foreground": "least-corners"}),
    ("deep-spectral", {"variant": "code-colour"}),
]


@pytest.mark.parametrize("name, params", EASY)
def test_finds_the_object(name, params):
    p = METHODS[name](**params).predict(scene())
    truth = torch.zeros(GRID, dtype=torch.bool)
    truth[OBJECT] = True
    assert p.mask.shape == (2, *GRID) and p.mask.dtype == torch.bool
    assert (p.mask == truth).all()
    assert (p.boxes == BOX).all()
    assert 0 <= p.soft.min() and p.soft.max() <= 1
    if p.seed is not None:
        assert truth.flatten()[p.seed].all()


def test_dino_seg_keeps_the_attended_part_of_the_object():
    p = METHODS["dino-seg"]().predict(scene())
    truth = torch.zeros(GRID, dtype=torch.bool)
    truth[OBJECT] = True
    assert p.mask.any() and not (p.mask & ~truth).any()
    assert truth.flatten()[p.seed].all()
    assert p.soft.amax() == 1 and p.soft.min() >= 0
    assert torch.equal(p.soft > 0.5, p.mask), "1/2 parts the mask from the rest"


def test_paper_variant_lives_on_an_eighth():
    f = scene()
    p = METHODS["deep-spectral"](variant="paper").predict(f)
    assert p.mask.shape[1:] == (GRID[0] * CELL // 8, GRID[1] * CELL // 8)
    assert p.mask.float().mean() <= 0.5
    assert p.resize((50, 70)).mask.shape == (2, 50, 70)


@pytest.mark.parametrize("name", PLAIN)
def test_permuting_the_batch_permutes_the_prediction(name):
    f = Features.cat([scene(1, 0.6, s) for s in range(3)])
    a = METHODS[name]().predict(f)
    singles = Prediction.cat([METHODS[name]().predict(f[i]) for i in range(3)])
    assert torch.equal(a.mask, singles.mask)
    torch.testing.assert_close(a.boxes, singles.boxes, equal_nan=True)


def test_seed_is_inside_its_component_and_box():
    f = scene(4, noise=2.5, seed=3)
    for name in ("tokencut", "lost"):
        p = METHODS[name]().predict(f)
        assert p.mask.flatten(1).gather(1, p.seed[:, None]).all()
        y, x = p.seed // GRID[1], p.seed % GRID[1]
        assert (p.boxes[:, 0] <= x * CELL).all() and (p.boxes[:, 3] >= (y + 1) * CELL).all()


def test_diffncut_inverts_above_one_half_and_returns_further_eigenvectors():
    f = scene(1)
    p = METHODS["diffncut"](k=3).predict(f)
    assert p.eigenvectors.shape == (1, 3, 180) and p.mask.float().mean() <= 0.5
    assert torch.equal(p.mask.flatten(1), p.eigenvectors[:, 0] > 0) and torch.equal(p.mask, p.soft > 0.5)
    torch.testing.assert_close(p.eigenvectors @ p.eigenvectors.mT, torch.eye(3)[None], atol=1e-5, rtol=0)
    assert METHODS["diffncut"].own_tau, "the features' threshold is for graphs of 0 and 1"
    other = METHODS["diffncut"](tau=0.5).predict(f)
    assert not torch.allclose(other.eigenvectors, p.eigenvectors[:, :1])


def test_self_loops_change_the_graph_not_the_scene():
    f = scene(1, 1.0)
    a = METHODS["tokencut"](self_loops=True).predict(f)
    b = METHODS["tokencut"](self_loops=False).predict(f)
    assert not torch.allclose(a.eigenvectors, b.eigenvectors)
    assert torch.equal(a.mask, b.mask)


def test_lost_degrees_do_not_count_the_patch_itself():
    x = torch.eye(4)[None] + 0.1
    assert degrees(x).tolist() == [[3, 3, 3, 3]]
    assert degrees(torch.eye(4)[None]).tolist() == [[0, 0, 0, 0]]
    similars, M = expand(torch.eye(4), torch.arange(4), 2)
    assert similars.tolist() == [0] and M.tolist() == [1, 0, 0, 0]


def test_keep_mass():
    att = torch.tensor([[0.5, 0.3, 0.1, 0.1]])
    assert keep_mass(att, 0.45).tolist() == [[True, False, False, False]]
    assert keep_mass(att, 0.75).tolist() == [[True, True, False, False]]
    assert torch.equal(keep_mass(att * 7, 0.75), keep_mass(att, 0.75)), "scale of the attention is free"


def test_deep_spectral_sign_and_box_rules():
    y = torch.tensor([[1.0, 1, 1, -1], [1, -1, -1, -1], [1, 1, 1, 1]])
    assert signed(y)[:, 0].tolist() == [-1, 1, 1]
    half = torch.zeros(4, 4, dtype=torch.bool).numpy()
    assert localise(half).all(), "an empty mask becomes the whole grid"
    half[:, :3] = True
    assert localise(half).sum() == 4, "a mask of more than half is inverted"


def test_boxes_stop_at_the_unpadded_image():
    f = scene(1)
    f = Features(f.x, GRID, CELL, size=(7 * CELL, 10 * CELL), tau=0.5)
    box = METHODS["tokencut-discovery"]().predict(f).boxes[0]
    assert box.tolist() == [40, 32, 80, 56]
    assert METHODS["tokencut-discovery"]().predict(f).resize((56, 80)).mask.shape == (1, 56, 80)


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda: METHODS["nope"], "tokencut"),
        (lambda: METHODS["deep-spectral"](variant="x"), "code-colour"),
        (lambda: METHODS["lost"](k=0), "k=0"),
        (lambda: METHODS["diffncut"](laplacian="x"), "unnormalized"),
        (lambda: METHODS["diffncut"](temperature=0), "temperature=0"),
        (lambda: METHODS["diffncut"](tau=-0.1), "tau=-0.1"),
        (lambda: METHODS["diffncut"](tau=1.0), "tau=1.0"),
        (lambda: METHODS["diffncut"](tau=float("nan")), "tau=nan"),
        (lambda: METHODS["dino-seg"](mass=1.5), "mass"),
        (lambda: METHODS["dino-seg"](head=9).predict(scene()), "heads 0..2"),
        (lambda: METHODS["tokencut"]().predict(torch.zeros(1, 3, 8, 8)), "backbone"),
        (lambda: METHODS["tokencut"]().predict(Features(torch.ones(1, 4, 2), (2, 2))), "tau"),
        (lambda: METHODS["dino-seg"]().predict(Features(torch.ones(1, 4, 2), (2, 2))), "attention"),
        (
            lambda: METHODS["deep-spectral"]("paper").predict(Features(torch.ones(1, 4, 2), (2, 2), 8)),
            "images",
        ),
    ],
)
def test_bad_input_says_what_to_do(call, word):
    with pytest.raises(SempartError, match=word.replace(".", r"\.")):
        call()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", PLAIN)
def test_numbers_that_are_none_are_refused(name, bad):
    f = scene(1)
    f.x[0, 3, 2] = f.attention[0, 0, 3] = bad
    with pytest.raises(SempartError, match="holds NaN or infinity"):
        METHODS[name]().predict(f)
