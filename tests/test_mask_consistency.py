"""The loss of a pair: what it asks for, which pairs it takes, which masks count as collapsed."""

import math

import pytest
import torch
from torch.nn import functional as F

from sempart_core import SempartError
from sempart_core.collapse import collapse_shares
from sempart_core.mask_consistency import (
    CONSISTENCY_PRESETS,
    MaskConsistency,
    binary_iou,
    cross_entropy,
    half_mask,
    pair_loss,
    same_side,
)

GRID = (6, 6)
CODE = MaskConsistency.preset("code")


def vectors(n=6, seed=0, double=True):
    z = torch.randn(n, 36, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = F.normalize(z - z.mean(1, keepdim=True), dim=1)
    return z if double else z.float()


def test_equation_9_and_its_saturation():
    a, b = torch.rand(2, 3, 10, dtype=torch.float64).unbind()
    by_hand = -(a * b.log() + (1 - a) * (1 - b).log()).mean(1)
    torch.testing.assert_close(cross_entropy(a, b), by_hand)
    sure = torch.tensor([[30.0, -30, 2]], requires_grad=True)
    for order in (
        cross_entropy(torch.tensor([[0.0, 1, 1]]), sure.sigmoid()),
        cross_entropy(sure.sigmoid(), a[:1, :3].float()),
    ):
        (grad,) = torch.autograd.grad(order.sum(), sure)
        assert torch.isfinite(grad).all()


@pytest.mark.parametrize("order", ["code", "printed"])
def test_the_gradient_reaches_the_first_view_only(order):
    z1, z2 = (v.requires_grad_() for v in (vectors(seed=1), vectors(seed=2)))
    CODE.preset("code", order=order)(z1, z2, GRID)["total"].backward()
    assert z1.grad.abs().sum() > 0 and z2.grad is None


def test_orders_differ_in_what_is_the_target():
    z = vectors()
    near = F.normalize(z + 0.02 * vectors(seed=3), dim=1)
    m1, m2 = (torch.sigmoid(v / 0.05) for v in (z, near))
    code, printed = (MaskConsistency.preset("code", order=o)(z, near, GRID) for o in ("code", "printed"))
    assert code["mask"].item() == pytest.approx(F.binary_cross_entropy(m1, m2).item())
    assert printed["mask"].item() == pytest.approx(F.binary_cross_entropy(m2, m1).item())


def test_the_sign_of_neither_vector_matters():
    z1, z2 = vectors(seed=1), F.normalize(vectors(seed=1) + 0.3 * vectors(seed=2), dim=1)
    a = CODE(z1, z2, GRID)
    for s1, s2 in ((1, -1), (-1, 1), (-1, -1)):
        b = CODE(s1 * z1, s2 * z2, GRID)
        for k in ("mask", "horizontal", "vertical", "uniform", "total"):
            assert b[k].item() == pytest.approx(a[k].item(), rel=1e-12), (k, s1, s2)


def test_same_side_takes_the_better_overlap():
    m1 = torch.tensor([[0.9, 0.9, 0.1, 0.1, 0.1]])
    for m2 in (m1, 1 - m1):
        target, iou = same_side(m1, m2)
        torch.testing.assert_close(target, m1)
        assert iou.item() == 1
    empty = torch.zeros(1, 5, dtype=torch.bool)
    assert binary_iou(empty, empty).item() == 0


@pytest.mark.parametrize(
    "iou, threshold, chosen",
    [
        ([0.9, 0.8, 0.2, 0.1], 0.5, [0, 1]),  # half of a small batch is enough
        ([0.9, 0.41, 0.2, 0.1], 0.4, [0, 1]),  # lowered twice
        ([0.9, 0.6, 0.7, 0.1], 0.5, [0, 1, 2]),
        ([0.0, 0.0, 0.0, 0.0], -0.05, [0, 1, 2, 3]),  # and it ends
        ([0.3], 0.25, [0]),
    ],
)
def test_selection_ends_on_small_batches(iou, threshold, chosen):
    used, which = CODE.select(torch.tensor(iou, dtype=torch.float64))
    assert used == pytest.approx(threshold)
    assert which.nonzero().flatten().tolist() == chosen


def test_large_batches_need_twenty_as_in_the_public_code():
    iou = torch.cat([torch.full((19,), 0.9), torch.full((1,), 0.47), torch.full((80,), 0.2)])
    used, which = CODE.select(iou)
    assert used == pytest.approx(0.45) and which.sum() == 20


@pytest.mark.parametrize("templates", ["means", "binary"])
@pytest.mark.parametrize("name", ["horizontal", "vertical"])
def test_regularisation_drives_masks_off_their_halves(templates, name):
    goal = MaskConsistency.preset("code", templates=templates)
    other = {"horizontal": "vertical", "vertical": "horizontal"}[name]
    half, across = (torch.where(half_mask(GRID, n), 0.8, 0.2).flatten()[None] for n in (name, other))
    near, far = goal.pattern(half, GRID, name), goal.pattern(across, GRID, name)
    assert near < far
    torch.testing.assert_close(goal.pattern(1 - half, GRID, name), near)  # either polarity
    z = torch.where(half_mask(GRID, name), 0.03, -0.03).flatten()[None].double().requires_grad_()
    total = MaskConsistency.preset("code", templates=templates, alpha=1.0)
    (g,) = torch.autograd.grad(-total.pattern(torch.sigmoid(z / 0.05), GRID, name).sum(), z)
    noise = torch.randn(36, generator=torch.Generator().manual_seed(0)).double() * 1e-3
    z2 = (z.detach() + noise - 0.2 * g).detach()
    assert total.pattern(torch.sigmoid(z2 / 0.05), GRID, name) > near.double() or templates == "means"


def test_total_is_the_mask_term_less_the_patterns():
    goal = MaskConsistency.preset("code", alpha_horizontal=0.1, alpha_vertical=0.2, alpha_uniform=0.3)
    out = goal(vectors(seed=1), vectors(seed=2), GRID)
    by_hand = out["mask"] - 0.1 * out["horizontal"] - 0.2 * out["vertical"] - 0.3 * out["uniform"]
    assert out["total"].item() == pytest.approx(by_hand.item())
    free = MaskConsistency.preset("code", alpha=0.0)(vectors(seed=1), vectors(seed=2), GRID)
    assert free["total"] == free["mask"]


def test_both_directions_of_a_pair():
    g = torch.Generator().manual_seed(0)
    base = torch.randn(3, 6, 6, 5, generator=g, dtype=torch.float64)
    q1, p1, q2, p2 = (
        F.normalize(
            base + 0.3 * torch.randn(base.shape, generator=g, dtype=torch.float64), dim=-1
        ).requires_grad_()
        for _ in range(4)
    )
    out = pair_loss(CODE, (q1, p1, q2, p2))
    one = CODE(CODE.vectors(q1), CODE.vectors(p2), GRID)["total"]
    two = CODE(CODE.vectors(q2), CODE.vectors(p1), GRID)["total"]
    assert out["total"].item() == pytest.approx((one + two).item(), rel=1e-9)
    out["total"].backward()
    assert q1.grad.abs().sum() > 0 and q2.grad.abs().sum() > 0 and p1.grad is None and p2.grad is None
    pixel = pair_loss(MaskConsistency.preset("code", consistency="pixel"), (q1, p1, q2, p2))
    same = pair_loss(MaskConsistency.preset("code", consistency="pixel"), (p1, p1, p1, p1))
    assert same["total"] < pixel["total"]


def test_a_step_along_the_gradient_brings_two_views_together():
    g = torch.Generator().manual_seed(1)
    f = torch.randn(2, 36, 8, generator=g, dtype=torch.float64)
    f[:, :18, 0] += 2
    other = f + 0.5 * torch.randn(f.shape, generator=g, dtype=torch.float64)
    goal = MaskConsistency.preset("code", alpha=0.0, min_iou=0.0)
    still = goal.vectors(other)
    x, seen = f.clone().requires_grad_(), []
    for _ in range(20):
        out = goal(goal.vectors(x), still, GRID)
        seen.append(out["mask"].item())
        (grad,) = torch.autograd.grad(out["total"], x)
        x = (x - 5 * grad).detach().requires_grad_()
    assert seen[-1] < seen[0] - 0.01


@pytest.mark.parametrize("n", [64, 256, 784])
def test_a_vector_on_one_patch_is_the_uniform_collapse(n):
    """No unit vector orthogonal to 1 gives one grey everywhere; one that lives on a patch gives it everywhere else."""
    spot = torch.full((n,), -1 / (n * (n - 1)) ** 0.5)
    spot[3] = ((n - 1) / n) ** 0.5
    assert abs(float(spot.sum())) < 1e-5 and abs(float(spot.norm()) - 1) < 1e-5
    halves = torch.cat([torch.ones(n // 2), -torch.ones(n // 2)]) / n**0.5
    side = int(n**0.5)
    m = torch.sigmoid(torch.stack([spot, halves]) / 0.05).reshape(2, side, side)
    assert collapse_shares(m)["uniform"] == 0.5
    # ends -a < 0 < b of such a vector have ab >= 1/N, hence the least range of a mask
    least = min(0.5, math.tanh(10 / n**0.5))
    assert float((m.amax((1, 2)) - m.amin((1, 2))).min()) >= least - 1e-6
    few = torch.full((1, side, side), 0.5)
    few[:, : max(1, side // 5)] = 0.9  # a fifth of the patches is not a few
    assert collapse_shares(few)["uniform"] == 0


def test_collapse_is_seen_and_other_masks_are_not():
    stripes = torch.zeros(6, 6)
    stripes[::3] = 1
    obj = torch.zeros(6, 6)
    obj[1:4, 1:4] = 1
    m = torch.stack(
        [
            half_mask(GRID, "horizontal").float(),
            stripes,
            stripes.T,
            1 - stripes,
            obj,
            torch.full((6, 6), 0.51),
        ]
    )
    assert collapse_shares(m) == pytest.approx({"horizontal": 3 / 6, "vertical": 1 / 6, "uniform": 1 / 6})
    band = half_mask(GRID, "horizontal").float()[None].clone()
    band[0, 0, 0] = 0  # one patch of eighteen: an IoU of .94
    assert collapse_shares(band)["horizontal"] == 1
    assert collapse_shares(torch.ones(1, 6, 6) * 0.9 + 0.1 * obj)["horizontal"] == 0, (
        "all one side is no stripe"
    )


def test_presets_and_faults():
    assert CONSISTENCY_PRESETS["paper"].laplacian == "normalized"
    assert MaskConsistency.preset("paper", alpha=0.2).alpha_vertical == 0.2
    assert all(p.source for p in CONSISTENCY_PRESETS.values())
    for call, word in (
        (lambda: MaskConsistency.preset("nope"), "paper"),
        (lambda: MaskConsistency.preset("code", beta=1), "temperature"),
        (lambda: MaskConsistency(order="swapped"), "printed"),
        (lambda: MaskConsistency(temperature=0), "positive"),
        (lambda: MaskConsistency(lower=float("inf")), "positive"),
        (lambda: MaskConsistency(tau=-0.1), "tau=-0.1"),
        (lambda: MaskConsistency(tau=float("nan")), "tau=nan"),
        (lambda: MaskConsistency(min_iou=float("nan")), "min_iou=nan"),
        (lambda: MaskConsistency(min_iou=1.5), "min_iou=1.5"),
        (lambda: MaskConsistency(alpha_uniform=-1), "alpha_uniform"),
        (lambda: CODE(vectors(), vectors(3), GRID), "grid"),
    ):
        with pytest.raises(SempartError, match=word):
            call()
