"""SEMPART's losses: definitions by loops, known minima, collapse, symmetries, gradients, bad input."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sempart_core import SempartError, affinity
from sempart_core.losses import (
    OFFSETS,
    colour_weights,
    graph_tv,
    ncut_loss,
    refined_target_loss,
    super_resolution_loss,
    token_weights,
)
from sempart_core.objective import OBJECTIVES, Objective


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph(n=7, batch=2, seed=0):
    W = rand(batch, n, n, seed=seed)
    return W + W.mT


def ones(h, w, neighbours=4, batch=1):
    return colour_weights(torch.zeros(batch, 3, h, w, dtype=torch.float64), neighbours)


# Normalized cut


def test_ncut_equals_its_definition_for_hard_and_soft_masks():
    W, S = graph(), rand(2, 7, seed=1)
    for s in (S, (S > 0.5).double()):
        for b in range(2):
            w, v = W[b].numpy(), s[b].numpy()
            want = sum(a @ w @ (1 - a) / (a @ w @ np.ones(7)) for a in (v, 1 - v))
            assert ncut_loss(s, W)[b].item() == pytest.approx(want, abs=1e-12)
    torch.testing.assert_close(ncut_loss(S, W), affinity.ncut_value(W, S))


def test_self_loops_are_left_out_without_touching_the_graph():
    W, S = graph(), rand(2, 7, seed=1)
    before, bare = W.clone(), W - torch.diag_embed(W.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(ncut_loss(S, W, self_loops=False), ncut_loss(S, bare))
    assert torch.equal(W, before)
    assert (ncut_loss(S, W) - ncut_loss(S, bare)).abs().min() > 1e-3


def test_ncut_lies_in_0_2_and_reaches_both_ends():
    for seed in range(20):
        value = ncut_loss(rand(2, 7, seed=seed), graph(seed=seed + 100))
        assert (value >= 0).all() and (value <= 2).all()
    blocks = torch.block_diag(torch.ones(3, 3), torch.ones(4, 4)).double()
    side = torch.tensor([[1.0] * 3 + [0] * 4], dtype=torch.float64)
    assert ncut_loss(side, blocks).item() == 0
    assert ncut_loss(side, 1 - blocks).item() == 2  # bipartite: no edge stays inside


@pytest.mark.parametrize("c", [0.0, 1e-6, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_mask_costs_1_and_has_no_gradient(c, dtype):
    for self_loops in (True, False):
        S = torch.full((2, 7), c, dtype=dtype, requires_grad=True)
        value = ncut_loss(S, graph().to(dtype), self_loops)
        value.sum().backward()
        assert value.tolist() == pytest.approx([1, 1], abs=10 * torch.finfo(dtype).eps)
        assert torch.isfinite(S.grad).all()
        if 0 < c < 1:
            assert S.grad.abs().max() < 20 * torch.finfo(dtype).eps / min(c, 1 - c)


def test_half_is_a_saddle():
    """From S = 1/2 the loss falls towards a cut better than chance and rises towards a worse one."""
    blocks = torch.block_diag(torch.ones(3, 3), torch.ones(3, 3)).double() + 0.1
    good, bad = torch.tensor([[1, 1, 1, -1, -1, -1], [1, -1, 0, 1, -1, 0]], dtype=torch.float64)
    value = ncut_loss(0.5 + 0.1 * torch.stack([good, bad]), blocks)
    assert value[0] < 1 - 1e-3
    assert ncut_loss(0.5 + 0.1 * good[None], 1.2 - blocks) > 1 + 1e-3
    assert value[1] == pytest.approx(1, abs=1e-12)


def test_exchanging_the_sides_changes_nothing():
    S, W = rand(2, 7, seed=1), graph()
    torch.testing.assert_close(ncut_loss(S, W), ncut_loss(1 - S, W))


def test_the_best_of_all_cuts_is_the_known_one():
    """Two cliques and a weak edge: of all 2^8 masks the lowest loss parts them; no soft mask is lower."""
    W = torch.block_diag(torch.ones(3, 3), torch.ones(5, 5)).double()
    W[2, 3] = W[3, 2] = 0.2
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64)
    value = ncut_loss(masks, W)
    best = masks[value == value.min()]
    assert best.sum(1).sort().values.tolist() == [3, 5] and (best[0] + best[1] == 1).all()
    want = 0.2 / (9 + 0.2) + 0.2 / (25 + 0.2)
    assert value.min().item() == pytest.approx(want, abs=1e-12)
    assert value[[0, -1]].tolist() == [1, 1]  # one side is empty
    assert ncut_loss(rand(500, 8), W).min() > want


def test_descent_finds_the_known_cut():
    W = torch.block_diag(torch.ones(3, 3), torch.ones(5, 5)).double() + 0.02
    logits = (rand(1, 8) - 0.5).requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        ncut_loss(logits.sigmoid(), W).sum().backward()
        optimiser.step()
    side = (logits > 0)[0].tolist()
    assert side in ([True] * 3 + [False] * 5, [False] * 3 + [True] * 5)


def test_the_clamp_stops_gradients_beyond_it():
    S = torch.tensor([[0.0, 0.02, 0.5, 0.98, 1.0, 0.4, 0.6]], dtype=torch.float64, requires_grad=True)
    W = graph(batch=1)
    value = ncut_loss(S, W, clamp=0.1)
    torch.testing.assert_close(value, ncut_loss(S.detach().clamp(0.1, 0.9), W))
    value.sum().backward()
    assert (S.grad[0] == 0).tolist() == [True, True, False, True, True, False, False]


def test_half_precision_and_autocast_do_not_reach_the_sums():
    """In bfloat16 the sum of 900 weights would be off by percents."""
    x = torch.randn(1, 900, 16, generator=torch.Generator().manual_seed(0))
    W, S = affinity.threshold_affinity(x, 0.2, 1e-6), rand(1, 900).float()
    want = ncut_loss(S, W)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ncut_loss(S, W), want)
    out = ncut_loss(S.bfloat16(), W)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, ncut_loss(S.bfloat16().float(), W))


class Large(TorchDispatchMode):
    """Counts the distinct storages of at least ``size`` numbers that come into being."""

    def __init__(self, size):
        super().__init__()
        self.size, self.kept = size, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(t, torch.Tensor) and t.untyped_storage().nbytes() >= self.size * t.element_size():
                self.kept[t.untyped_storage().data_ptr()] = (
                    t  # kept alive, or its address would be used again
                )
        return out


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_affinity_is_all_that_is_as_large_as_an_affinity(name):
    """Forward and backward of all terms make one B x N x N array, also without self-loops."""
    h, w = 20, 21
    n = h * w
    coarse, fine = (rand(2, *s).float().requires_grad_() for s in ((h, w), (2 * h, 2 * w)))
    x, images = (
        torch.randn(2, n, 8, generator=torch.Generator().manual_seed(0)),
        rand(2, 3, 2 * h, 2 * w).float(),
    )
    with Large(2 * n * n) as large:
        OBJECTIVES[name](coarse, fine, x, images)["total"].backward()
    assert len(large.kept) == 1


def test_a_shared_graph_serves_a_batch():
    S, W = rand(3, 7), graph(batch=1)
    torch.testing.assert_close(ncut_loss(S, W[0]), ncut_loss(S, W.expand(3, -1, -1)))


# Graph total variation


@pytest.mark.parametrize("neighbours", [4, 8])
def test_gtv_equals_the_laplacian_of_the_whole_graph(neighbours):
    """Coarse: the N x N affinity masked to neighbours, half the double sum, and s'Ls are one number."""
    h, w = 4, 5
    x, S = rand(2, h * w, 6) - 0.5, rand(2, h, w, seed=1)
    A = affinity.threshold_affinity(x, 0.1, 1e-3)
    y, c = np.divmod(np.arange(h * w), w)
    dy, dx = abs(y[:, None] - y), abs(c[:, None] - c)
    near = dy + dx == 1 if neighbours == 4 else np.maximum(dy, dx) == 1
    A = A * torch.from_numpy(near)
    s = S.flatten(1)
    double = (A * (s[:, :, None] - s[:, None]) ** 2).sum((1, 2))
    ours = token_weights(x, (h, w), neighbours, tau=0.1, eps=1e-3)
    form = (s[:, None] @ affinity.laplacian(A) @ s[..., None])[:, 0, 0]
    torch.testing.assert_close(graph_tv(S, ours), form)
    torch.testing.assert_close(graph_tv(S, ours), double / 2)
    torch.testing.assert_close(graph_tv(S, ours, half=False), double)
    torch.testing.assert_close(graph_tv(S, ours, "mean", half=False), double / near.sum())


@pytest.mark.parametrize("neighbours", [4, 8])
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (4, 6)])
def test_reflection_equals_padding(neighbours, size):
    h, w = size
    image, S = rand(1, 3, h, w), rand(1, h, w, seed=1)
    A = colour_weights(image, neighbours, sigma=0.3)
    pad = lambda t: np.pad(t.numpy(), [(0, 0)] * (t.ndim - 2) + [(1, 1)] * 2, mode="reflect")  # noqa: E731
    X, P, total, count = pad(image[0]), pad(S[0]), 0.0, 0
    for dy, dx in itertools.product((-1, 0, 1), repeat=2):
        if abs(dy) + abs(dx) in ((1,) if neighbours == 4 else (1, 2)):
            for i, j in itertools.product(range(1, h + 1), range(1, w + 1)):
                a = np.exp(-((X[:, i + dy, j + dx] - X[:, i, j]) ** 2).sum() / 0.3)
                total, count = total + a * (P[i + dy, j + dx] - P[i, j]) ** 2, count + 1
    assert count == neighbours * h * w
    assert graph_tv(S, A, "mean", False, "reflect").item() == pytest.approx(total / count, abs=1e-12)
    assert graph_tv(S, A, "sum", True, "reflect").item() == pytest.approx(total / 2, abs=1e-12)


def test_gtv_of_an_edge_that_can_be_counted():
    S = torch.zeros(1, 4, 6, dtype=torch.float64)
    S[..., 3:] = 1
    assert graph_tv(S, ones(4, 6, 4)).item() == 4  # four horizontal edges cross
    assert graph_tv(S, ones(4, 6, 8)).item() == 4 + 6  # and two diagonals in each pair of rows
    image = torch.zeros(1, 3, 4, 6, dtype=torch.float64)
    image[:, :2, :, 3:] = 1  # a colour step of squared length 2 under it
    assert graph_tv(S, colour_weights(image, sigma=4.0)).item() == pytest.approx(4 * np.exp(-0.5))
    assert graph_tv(S, colour_weights(image, std=(0.5, 0.25, 1))).item() == pytest.approx(4 * np.exp(-20.0))


@pytest.mark.parametrize("border", ["open", "reflect"])
def test_gtv_is_zero_for_constants_and_linear_in_the_weights(border):
    A, B = (colour_weights(rand(2, 3, 5, 4, seed=s), 8) for s in (0, 1))
    for c in (0.0, 0.3, 1.0):
        assert graph_tv(torch.full((2, 5, 4), c), A, border=border).tolist() == [0, 0]
    S = rand(2, 5, 4, seed=2)
    mixed = tuple(2 * a + 3 * b for a, b in zip(A, B, strict=True))
    want = 2 * graph_tv(S, A, border=border) + 3 * graph_tv(S, B, border=border)
    torch.testing.assert_close(graph_tv(S, mixed, border=border), want)


def test_offsets_list_each_edge_once():
    for n, offsets in OFFSETS.items():
        assert len({*offsets, *((-a, -b) for a, b in offsets)}) == n == 2 * len(offsets)


def test_single_precision_of_half_features():
    x = torch.randn(1, 12, 8, generator=torch.Generator().manual_seed(0)).half()
    for a, b in zip(
        token_weights(x, (3, 4), tau=0.2), token_weights(x.float(), (3, 4), tau=0.2), strict=True
    ):
        assert a.dtype == torch.float32 and torch.equal(a, b)


# Super-resolution


def test_super_resolution_pools():
    fine, coarse = rand(2, 16, 24), rand(2, 2, 3, seed=1)
    cells = fine.reshape(2, 2, 8, 3, 8).transpose(2, 3)
    mean, centre = cells.mean((3, 4)), cells[..., 3:5, 3:5].mean((3, 4))
    for pool, pooled in (("average", mean), ("bilinear", centre)):
        square = (pooled - coarse) ** 2
        torch.testing.assert_close(super_resolution_loss(fine, coarse, pool), square.sum((1, 2)))
        torch.testing.assert_close(super_resolution_loss(fine, coarse, pool, "mean"), square.mean((1, 2)))
    assert super_resolution_loss(fine, mean).max() < 1e-24
    odd = rand(1, 7, 21)  # a patch of 7
    torch.testing.assert_close(
        super_resolution_loss(odd, odd.reshape(1, 1, 7, 3, 7).mean((2, 4))), torch.zeros(1).double()
    )


# Gradients


def test_the_refined_target_is_the_filtered_coarse_mask_and_a_constant():
    from sempart_core.refine import refine

    images, coarse, fine = rand(2, 3, 24, 32), rand(2, 3, 4, seed=1), rand(2, 24, 32, seed=2)
    coarse, fine = coarse.requires_grad_(), fine.requires_grad_()
    for name in ("none", "guided", "bilateral"):
        target = refine(name, coarse.detach(), images).clamp(0, 1)
        got = refined_target_loss(fine, coarse, images, name)
        torch.testing.assert_close(got, (fine - target).square().mean((1, 2)))
        assert (refined_target_loss(target.to(fine.dtype), coarse, images, name) < 1e-12).all()
    got.sum().backward()
    assert coarse.grad is None and fine.grad.abs().sum() > 0
    terms = Objective.preset("refined", tau=0.5)(coarse, fine, rand(2, 12, 5, seed=3), images)
    assert set(terms) == {"ncut", "gtv_coarse", "target", "total"}
    with pytest.raises(SempartError, match="target"):
        Objective.preset("refined", target=None)
    with pytest.raises(SempartError, match="B x H x W"):
        refined_target_loss(fine[:, 1:], coarse, images, "none")


def test_gradients_in_double_precision():
    W, S = graph(), (0.1 + 0.8 * rand(2, 7)).requires_grad_()
    for options in ({}, {"self_loops": False}, {"clamp": 1e-3}):
        assert torch.autograd.gradcheck(lambda s, o=options: ncut_loss(s, W, **o), (S,))
    M = (0.1 + 0.8 * rand(2, 4, 6)).requires_grad_()
    A = colour_weights(rand(2, 3, 4, 6), 8)
    for options in itertools.product(("sum", "mean"), (True, False), ("open", "reflect")):
        assert torch.autograd.gradcheck(lambda s, o=options: graph_tv(s, A, *o), (M,))
    coarse = (0.1 + 0.8 * rand(2, 2, 3)).requires_grad_()
    for pool in ("average", "bilinear"):
        assert torch.autograd.gradcheck(lambda f, c, p=pool: super_resolution_loss(f, c, p), (M, coarse))


# The objective


def batch(grid=(4, 5), patch=4):
    h, w = grid
    return (
        rand(2, h, w),
        rand(2, h * patch, w * patch, seed=1),
        rand(2, h * w, 6, seed=2) - 0.4,
        rand(2, 3, h * patch, w * patch, seed=3),
    )


def test_the_paper_objective_is_written_out():
    coarse, fine, x, images = batch()
    o = OBJECTIVES["paper"]
    terms = o(coarse, fine, x, images)
    W = affinity.threshold_affinity(x, 0.2, 1e-6, self_loops=False)
    cosine = affinity.threshold_affinity(x, 0.0, 1e-6)
    s, f = coarse.flatten(1), fine
    gtv_c = 0.0
    for i, j in itertools.combinations(range(20), 2):
        (yi, xi), (yj, xj) = divmod(i, 5), divmod(j, 5)
        if abs(yi - yj) + abs(xi - xj) == 1:
            gtv_c = gtv_c + (cosine[:, i, j] * (s[:, i] - s[:, j]) ** 2)
    across, down = ((-(images.diff(dim=d) ** 2).sum(1)).exp() * f.diff(dim=d) ** 2 for d in (-1, -2))
    gtv_f = across.sum((1, 2)) + down.sum((1, 2))
    sr = ((fine.reshape(2, 4, 4, 5, 4).mean((2, 4)) - coarse) ** 2).sum((1, 2))
    want = affinity.ncut_value(W, s) + 6e-4 * gtv_c + 2e-4 * gtv_f + 20 * sr
    assert terms["total"].item() == pytest.approx(want.mean().item(), rel=1e-12)
    assert set(terms) == {"ncut", "gtv_coarse", "gtv_fine", "sr", "total"}


def test_terms_can_be_left_out():
    coarse, fine, x, _ = batch()
    assert set(OBJECTIVES["paper"](coarse, None, x, None)) == {"ncut", "gtv_coarse", "total"}
    o = Objective.preset("paper", w_gtv_fine=0.0, w_gtv_coarse=0.0)
    assert set(o(coarse, fine, x, None)) == {"ncut", "sr", "total"}
    with pytest.raises(SempartError, match="weight 0"):
        Objective.preset("paper", w_ncut=0.0, w_gtv_coarse=0.0)(coarse, None, x, None)
    with pytest.raises(SempartError, match="needs images"):
        OBJECTIVES["paper"](coarse, fine, x, None)


def test_a_graph_computed_before_is_used():
    coarse, fine, x, images = batch()
    o = OBJECTIVES["sempart_star"]
    W = o.affinity(x)
    torch.testing.assert_close(o(coarse, fine, x, images, W=W), o(coarse, fine, x, images))
    assert (
        o(coarse, fine, x, images, W=torch.eye(20).double() + 1)["ncut"] != o(coarse, fine, x, images)["ncut"]
    )


def test_the_floor_connects_all_below_it():
    x = batch()[2]
    assert (Objective.preset("sempart_star", tau=0.0).affinity(x) == 1).all()
    assert (Objective.preset("sempart_star", tau=0.0, cosine_floor=None).affinity(x) < 1).any()


def test_gradients_of_the_objective_reach_both_masks():
    coarse, fine, x, images = batch()
    for o in OBJECTIVES.values():
        c, f = coarse.clone().requires_grad_(), fine.clone().requires_grad_()
        o(c, f, x, images)["total"].backward()
        assert c.grad.abs().max() > 0 and f.grad.abs().max() > 0


# Bad input


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda: ncut_loss(torch.rand(7), torch.ones(7, 7)), "B x N"),
        (lambda: ncut_loss(torch.rand(2, 7), torch.ones(2, 6, 6)), "does not fit S"),
        (lambda: ncut_loss(torch.rand(2, 7), torch.ones(3, 7, 7)), "does not fit S"),
        (lambda: ncut_loss(torch.randn(2, 7) * 9, torch.ones(7, 7)), "sigmoid"),
        (lambda: ncut_loss(torch.full((2, 7), torch.nan), torch.ones(7, 7)), "NaN"),
        (lambda: ncut_loss(torch.rand(2, 0), torch.ones(0, 0)), "none of them 0"),
        (lambda: ncut_loss(torch.ones(2, 7, dtype=torch.bool), torch.ones(7, 7)), "soft mask"),
        (lambda: ncut_loss(torch.rand(2, 7), torch.ones(7, 7), clamp=0.5), "clamp"),
        (lambda: token_weights(torch.rand(1, 7, 3), (2, 4)), "N = 2 x 4"),
        (lambda: token_weights(torch.rand(1, 8, 3), (2, 4), neighbours=6), "neighbours 6"),
        (lambda: token_weights(torch.rand(1, 8, 3), (2, 4), eps=-1), "eps"),
        (lambda: token_weights(torch.rand(1, 8, 3), (2, 4), tau=2), "tau=2"),
        (lambda: colour_weights(torch.rand(1, 1, 4, 4)), "B x 3"),
        (lambda: colour_weights(torch.rand(1, 3, 4, 4), sigma=0), "positive"),
        (lambda: graph_tv(torch.rand(1, 4, 5), ones(4, 4)), "do not fit a mask"),
        (lambda: graph_tv(torch.rand(3, 4, 4), ones(4, 4, batch=2)), "do not fit a mask"),
        (lambda: graph_tv(torch.rand(1, 4, 4), ones(4, 4)[:1]), "2 or 4"),
        (lambda: graph_tv(torch.rand(1, 1, 4), ones(2, 4)), "2 x 2 pixels"),
        (lambda: graph_tv(torch.rand(1, 4, 4), ones(4, 4), reduction="none"), "sum, mean"),
        (lambda: graph_tv(torch.rand(1, 4, 4), ones(4, 4), border="zero"), "open, reflect"),
        (lambda: super_resolution_loss(torch.rand(1, 2, 2), torch.rand(1, 4, 4)), "does not refine"),
        (lambda: super_resolution_loss(torch.rand(1, 4, 4), torch.rand(1, 2, 2), "max"), "average, bilinear"),
        (lambda: Objective.preset("star"), "paper, sempart_star"),
        (lambda: Objective.preset("paper", lam=1), "no 'lam'"),
        (lambda: Objective.preset("paper", w_sr=-1.0), "w_sr"),
        (lambda: Objective.preset("paper", w_sr=float("nan")), "w_sr"),
        (lambda: Objective.preset("paper", neighbours=5), "neighbours 5"),
        (lambda: Objective.preset("paper", tau=3.0), "tau=3"),
        (lambda: OBJECTIVES["paper"](torch.rand(1, 4), None, torch.rand(1, 4, 2), None), "B x h x w"),
    ],
)
def test_bad_input_is_one_sentence(call, word):
    with pytest.raises(SempartError, match=word):
        call()
