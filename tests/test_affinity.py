"""Affinities: the definitions, what they keep under symmetries, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sempart_core import Features, SempartError, affinity, spectral
from sempart_core.methods.base import threshold_of


@pytest.fixture
def x():
    g = torch.Generator().manual_seed(3)
    return torch.randn(2, 30, 8, generator=g, dtype=torch.float64) + 0.3


@pytest.fixture
def photo():
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.random((3, 4, 3)), np.ones((2, 2, 1)))
    return np.clip(smooth + 0.02 * rng.standard_normal(smooth.shape), 0, 1).astype(np.float32)


def test_threshold_follows_its_definition(x):
    W = affinity.threshold_affinity(x, tau=0.2, eps=1e-3)
    unit = x / x.norm(dim=-1, keepdim=True)
    cos = torch.einsum("bid,bjd->bij", unit, unit)
    assert torch.equal(W == 1, cos > 0.2)
    assert torch.equal(W == 1e-3, cos <= 0.2)
    assert (W.diagonal(dim1=1, dim2=2) == 1).all()


def test_threshold_is_strict():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    W = affinity.threshold_affinity(x, tau=0.0, eps=0.0)
    assert W.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert affinity.threshold_affinity(x, tau=-1.0, eps=0.0).sum() == 9


@pytest.mark.parametrize("tau", [float("nan"), float("inf"), 5, 1.0, -1.01])
def test_a_threshold_no_cosine_can_have_is_named(tau):
    x = torch.eye(3)
    with pytest.raises(SempartError, match=f"tau={tau}"):
        affinity.threshold_affinity(x, tau=tau)
    with pytest.raises(SempartError, match=f"tau={tau}"):
        spectral.fiedler(features=x, tau=tau)
    with pytest.raises(SempartError, match=f"tau={tau}"):
        threshold_of(Features(x[None], (1, 3)), tau)


def test_threshold_without_self_loops_and_with_type(x):
    W = affinity.threshold_affinity(x.float(), self_loops=False, dtype=torch.float64)
    assert W.dtype == torch.float64 and W.shape == (2, 30, 30)
    assert (W.diagonal(dim1=1, dim2=2) == 0).all()
    with_loops = affinity.threshold_affinity(x.float())
    assert with_loops.dtype == torch.float32
    off = ~torch.eye(30, dtype=torch.bool)
    assert torch.equal(W[:, off] == 1, with_loops[:, off] == 1)
    assert set(W[:, off].unique().tolist()) == {1e-5, 1.0}


def test_threshold_raises_half_precision(x):
    W = affinity.threshold_affinity(x.half())
    assert W.dtype == torch.float32
    assert torch.equal(W, affinity.threshold_affinity(x.half().float()))


def test_threshold_is_exactly_symmetric_at_the_threshold():
    # Many cosines within rounding of tau: whatever BLAS does, both directions agree.
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 301, 67, generator=g)
    x = x / x.norm(dim=-1, keepdim=True)
    tau = float((x[0, 0] * x[0, 1]).sum())
    W = affinity.threshold_affinity(x, tau=tau)
    assert torch.equal(W, W.mT)


def test_threshold_ignores_scale_and_follows_order(x):
    W = affinity.threshold_affinity(x)
    assert torch.equal(W, affinity.threshold_affinity(7.5 * x))
    p = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(W[:, p][:, :, p], affinity.threshold_affinity(x[:, p]))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.full((4, 3), torch.nan), "NaN"),
        (torch.ones(3), "shape"),
        (torch.ones(4, 3, dtype=torch.int64), "floats"),
    ],
)
def test_threshold_refuses(bad, says):
    with pytest.raises(SempartError, match=says):
        affinity.threshold_affinity(bad)
    with pytest.raises(SempartError, match=says):
        affinity.cosine_affinity(bad)


def test_threshold_refuses_eps():
    with pytest.raises(SempartError, match="eps"):
        affinity.threshold_affinity(torch.ones(4, 3), eps=-1.0)


def test_cosine(x):
    W = affinity.cosine_affinity(x)
    unit = x / x.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(W, (unit @ unit.mT).clamp(min=0))
    raw = affinity.cosine_affinity(x, normalise=False, divide_by_max=True)
    gram = (x @ x.mT).clamp(min=0)
    torch.testing.assert_close(raw, gram / gram.amax((1, 2), keepdim=True))
    with pytest.raises(SempartError, match="zero"):
        affinity.cosine_affinity(torch.zeros(4, 3), divide_by_max=True)


def _brute_force_knn(psi, k):
    d = np.linalg.norm(psi[:, None] - psi[None], axis=-1)
    return np.argsort(d, axis=1, kind="stable")[:, :k], np.sort(d, axis=1)[:, :k]


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_colour_neighbours_by_brute_force(photo, variant):
    h, w = photo.shape[:2]
    n = h * w
    W = affinity.knn_color_affinity(photo, (h, w), variant).numpy()
    xy = np.stack(np.meshgrid(np.linspace(0, 1, w), np.linspace(0, 1, h)), -1).reshape(n, 2)
    rgb = photo.reshape(n, 3).astype(np.float64)
    if variant == "paper":
        import colorsys

        hsv = np.array([colorsys.rgb_to_hsv(*p) for p in rgb])
        turn = 2 * np.pi * hsv[:, 0]
        rgb = np.stack([np.cos(turn), np.sin(turn), hsv[:, 1], hsv[:, 2]], 1)
    want = np.zeros((n, n))
    for k, weight in ((20, 2.0), (10, 0.1)):
        j, d = _brute_force_knn(np.concatenate([rgb, weight * xy], 1), k)
        edge = np.ones_like(d) if variant == "code" else np.maximum(1 - d, 0)
        for i in range(n):
            for jj, e in zip(j[i], edge[i], strict=True):
                want[i, jj] += e
                want[jj, i] += e
    np.testing.assert_allclose(W, want, atol=1e-5)
    assert (W == W.T).all() and (W >= 0).all()


def test_colour_neighbours_agree_with_pymatting(photo):
    module = pytest.importorskip("pymatting")
    import importlib

    knn = importlib.import_module(f"{module.__name__}.util.kdtree").knn
    n = photo.shape[0] * photo.shape[1]
    h, w = photo.shape[:2]
    xy = np.stack([np.tile(np.linspace(0, 1, w), h), np.repeat(np.linspace(0, 1, h), w)], 1)
    want = np.zeros((n, n))
    for k, weight in affinity.KNN["code"]:
        psi = np.concatenate([photo.reshape(n, 3), weight * xy], 1, dtype=np.float32)
        _, j = knn(psi, psi, k=k)
        np.add.at(want, (np.repeat(np.arange(n), k), j.ravel()), 1)
        np.add.at(want, (j.ravel(), np.repeat(np.arange(n), k)), 1)
    np.testing.assert_array_equal(affinity.knn_color_affinity(photo, (h, w)).numpy(), want)


def test_colour_term_averages_a_larger_image_down(photo):
    big = np.kron(photo, np.ones((4, 4, 1), dtype=np.float32))
    small = affinity.knn_color_affinity(photo, photo.shape[:2])
    assert affinity.knn_color_affinity(big, photo.shape[:2]).shape == small.shape
    assert affinity.knn_color_affinity(torch.from_numpy(photo), (2, 2)).shape == (4, 4)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((4, 4)), "H x W x 3"),
        (np.full((4, 4, 3), 255), "255"),
        (np.full((4, 4, 3), np.nan), "finite"),
    ],
)
def test_colour_term_refuses(bad, says):
    with pytest.raises(SempartError, match=says):
        affinity.knn_color_affinity(bad, (4, 4))
    with pytest.raises(SempartError, match="variant"):
        affinity.knn_color_affinity(np.zeros((4, 4, 3)), (4, 4), "lab")


def test_combined_is_the_weighted_sum(photo, x):
    h, w = photo.shape[:2]
    f = torch.randn(h * w, 5, generator=torch.Generator().manual_seed(0))
    W = affinity.combined_affinity(f, (h, w), photo, lambda_knn=3.0)
    feat = affinity.cosine_affinity(f, divide_by_max=True)
    torch.testing.assert_close(W, feat + 3 * affinity.knn_color_affinity(photo, (h, w)))
    torch.testing.assert_close(affinity.combined_affinity(f, (h, w), lambda_knn=0), feat)
    fine = affinity.combined_affinity(f[: h * w // 4], (h // 2, w // 2), photo, (h, w))
    assert fine.shape == (h * w, h * w)
    for bad in (
        {"image": None},
        {"lambda_knn": -1.0, "image": photo},
        {"grid": (h, w + 1), "image": photo},
    ):
        with pytest.raises(SempartError):
            affinity.combined_affinity(f, **({"grid": (h, w)} | bad))


def test_laplacians(x):
    W = affinity.cosine_affinity(x)
    L = affinity.laplacian(W)
    torch.testing.assert_close(L.sum(-1), torch.zeros(2, 30, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(L.diagonal(dim1=1, dim2=2), affinity.degree(W) - W.diagonal(dim1=1, dim2=2))
    N = affinity.normalized_laplacian(W)
    d = affinity.degree(W)
    torch.testing.assert_close(N, L / (d[:, :, None] * d[:, None]).sqrt())
    values = torch.linalg.eigvalsh(N)
    assert values.min() > -1e-12 and values.max() < 2 + 1e-12
    with pytest.raises(SempartError, match="no edges"):
        affinity.normalized_laplacian(torch.zeros(3, 3))


def test_ncut_value_by_hand():
    W = torch.tensor([[0, 3, 1.0], [3, 0, 0], [1, 0, 2]])
    # Sides {0, 1} and {2}: cut 1, volumes 7 and 3.
    want = 1 / 7 + 1 / 3
    for mask in ([True, True, False], [False, False, True]):
        assert affinity.ncut_value(W, torch.tensor(mask)).item() == pytest.approx(want)
    assert affinity.ncut_value(W, torch.ones(3)).item() == 1
    batch = affinity.ncut_value(W.expand(2, 3, 3), torch.tensor([[1.0, 1, 0], [0, 0, 0]]))
    assert batch.tolist() == pytest.approx([want, 1])
    with pytest.raises(SempartError, match="mask"):
        affinity.ncut_value(W, torch.ones(4))


def test_ncut_value_is_a_rayleigh_quotient(x):
    """Shi and Malik: the cut of a set is y'(D-W)y / y'Dy for the two-valued y that is D-orthogonal to 1."""
    W = affinity.cosine_affinity(x)
    mask = torch.rand(2, 30, generator=torch.Generator().manual_seed(5)) > 0.4
    d = affinity.degree(W)
    b = (d * mask).sum(-1) / (d * ~mask).sum(-1)
    y = torch.where(mask, torch.ones_like(d), -b[:, None])
    quotient = torch.einsum("bi,bij,bj->b", y, affinity.laplacian(W), y) / (d * y * y).sum(-1)
    torch.testing.assert_close(affinity.ncut_value(W, mask), quotient)
