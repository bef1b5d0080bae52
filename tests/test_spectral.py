"""Fiedler vectors: the eigenproblem itself, its symmetries, degenerate graphs and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from sempart_core import SempartError, affinity, eigensolvers, spectral, symmetric
from sempart_core.spectral import fiedler


def clusters(n=120, k=3, seed=0, noise=0.6, d=24, batch=None, dtype=torch.float32):
    """Features around ``k`` centres: graphs like those of photographs."""
    g = torch.Generator().manual_seed(seed)
    shape = (n,) if batch is None else (batch, n)
    centre = torch.randn(k, d, generator=g)
    label = torch.randint(k, shape, generator=g)
    x = centre[label] + noise * torch.randn(*shape, d, generator=g) + 0.6 * torch.randn(d, generator=g)
    return x.to(dtype)


def binary(**kw):
    return affinity.threshold_affinity(clusters(**kw), dtype=torch.float64)


def reference(W, k=1):
    """What TokenCut runs."""
    W = np.asarray(W, dtype=np.float64)
    D = np.diag(W.sum(1))
    values, vectors = scipy.linalg.eigh(D - W, D, subset_by_index=[1, k])
    return values, vectors.T


def sine(a, b):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return np.linalg.norm(a - b * (a @ b))


GRAPHS = {
    "binary": lambda seed: binary(seed=seed),
    "binary wide": lambda seed: binary(n=257, k=8, seed=seed),
    "binary eps 1e-6": lambda s: affinity.threshold_affinity(
        clusters(seed=s), 0.4, 1e-6, dtype=torch.float64
    ),
    "cosine": lambda seed: affinity.cosine_affinity(clusters(seed=seed, dtype=torch.float64)),
    "no loops": lambda seed: affinity.threshold_affinity(
        clusters(seed=seed), self_loops=False, dtype=torch.float64
    ),
    "path": lambda seed: (
        torch.diag(torch.ones(80 + seed, dtype=torch.float64), 1)
        + torch.diag(torch.ones(80 + seed, dtype=torch.float64), -1)
    ),
    "tiny": lambda seed: binary(n=9, k=2, seed=seed),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_scipy(name, seed):
    W = GRAPHS[name](seed)
    values, vectors = reference(W)
    for solver in ("auto", "lanczos", "dense"):
        e = fiedler(W, solver=solver)
        assert e.values.shape == (1,) and e.vectors.shape == (1, len(W))
        assert e.values[0].item() == pytest.approx(values[0], abs=1e-10)
        assert sine(e.vectors[0], vectors[0]) < 1e-7
        y, v = e.vectors[0].numpy(), vectors[0] * np.sign(vectors[0] @ e.vectors[0].numpy())
        clear = abs(v - v.mean()) > 1e-9  # the middle of a path is the mean
        assert ((y > y.mean()) == (v > v.mean()))[clear].all()


@pytest.mark.parametrize("k", [2, 5])
def test_several_pairs(k):
    W = GRAPHS["cosine"](2)
    values, vectors = reference(W, k)
    e = fiedler(W, k=k)
    np.testing.assert_allclose(e.values, values, atol=1e-10)
    for got, want in zip(e.vectors, vectors, strict=True):
        assert sine(got, want) < 1e-7


@pytest.mark.parametrize("solver", ["lanczos", "dense"])
@pytest.mark.parametrize("kind", ["binary", "cosine"])
def test_properties(solver, kind):
    W = GRAPHS[kind](3)
    d = W.sum(1)
    e = fiedler(W, k=3, solver=solver)
    Y = e.vectors
    torch.testing.assert_close((Y * d) @ Y.T, torch.eye(3, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close((Y * d).sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    quotient = ((Y @ affinity.laplacian(W)) * Y).sum(1)
    torch.testing.assert_close(quotient, e.values, atol=1e-10, rtol=0)
    residual = Y @ affinity.laplacian(W) - e.values[:, None] * Y * d
    assert residual.abs().max() < 1e-7
    assert (e.values >= 0).all() and (e.values <= 2).all() and (e.values.diff() >= 0).all()


def test_scale_does_not_matter():
    W = GRAPHS["binary"](4)
    a, b = fiedler(W), fiedler(1000 * W)
    torch.testing.assert_close(a.values, b.values, atol=1e-12, rtol=0)
    torch.testing.assert_close(a.vectors, b.vectors * 1000**0.5, atol=1e-9, rtol=1e-9)


def test_order_of_nodes_does_not_matter():
    W = GRAPHS["cosine"](4)
    p = torch.randperm(len(W), generator=torch.Generator().manual_seed(0))
    a, b = fiedler(W), fiedler(W[p][:, p].contiguous())
    torch.testing.assert_close(a.values, b.values, atol=1e-12, rtol=0)
    assert sine(a.vectors[0, p], b.vectors[0]) < 1e-8


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("n", [30, 120, 300])
def test_a_batch_is_its_graphs(n, k):
    W = torch.stack([binary(n=n, k=2 + s % 4, seed=s, noise=0.4 + 0.1 * s) for s in range(7)])
    e = fiedler(W, k=k)
    assert e.values.shape == (7, k) and e.vectors.shape == (7, k, n)
    for i in range(7):
        one = fiedler(W[i], k=k)
        torch.testing.assert_close(one.values, e.values[i], atol=1e-11, rtol=0)
        values, vectors = reference(W[i], k)
        np.testing.assert_allclose(e.values[i], values, atol=1e-10)
        # A vector is as certain as its distance to the neighbouring eigenvalues.
        for got, want in zip(e.vectors[i], vectors, strict=True):
            assert sine(got, want) < 1e-5


def test_float32_and_half():
    W = GRAPHS["cosine"](5)
    _, vectors = reference(W)
    e = fiedler(W.float())
    assert e.vectors.dtype == torch.float32
    assert sine(e.vectors[0], vectors[0]) < 1e-4
    assert fiedler(W.half()).vectors.dtype == torch.float32
    assert fiedler((W > 0.2).to(torch.int64)).vectors.dtype == torch.float64
    assert fiedler(W.numpy()).vectors.dtype == torch.float64


@pytest.mark.parametrize("k", [1, 3])
def test_the_accelerator_path_on_the_cpu(k):
    W = torch.stack([binary(seed=s) for s in range(3)])
    for A, bound in ((W, 1e-7), (W.float(), 1e-3)):
        for solver in ("lanczos", "dense"):
            tol = 1e-9 if A.dtype == torch.float64 else 1e-6
            problem = eigensolvers.Problem(k, solver, tol)
            e = spectral._eigen(eigensolvers.solve_torch(A, problem), True, A.dtype)
            want = fiedler(W, k=k)
            torch.testing.assert_close(
                e.values.double(), want.values, atol=1e-5 if bound > 1e-4 else 1e-10, rtol=0
            )
            for i in range(3):
                assert sine(e.vectors[i, 0], want.vectors[i, 0]) < bound
    bad = W.clone()
    bad[2, 0, 0] = torch.nan
    with pytest.raises(SempartError, match="graph 2"):
        eigensolvers.solve_torch(bad, eigensolvers.Problem(1, "lanczos", 1e-9))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cuda(dtype):
    W = torch.stack([binary(n=300, seed=s) for s in range(3)])
    e = fiedler(W.to("cuda", dtype), k=2)
    want = fiedler(W, k=2)
    assert e.vectors.is_cuda and e.vectors.dtype == dtype
    torch.testing.assert_close(e.values.cpu().double(), want.values, atol=1e-5, rtol=0)


def test_features_with_threshold():
    x = clusters(seed=6, batch=2)
    e = fiedler(features=x, tau=0.3, eps=1e-4)
    want = fiedler(affinity.threshold_affinity(x, 0.3, 1e-4).double())
    torch.testing.assert_close(e.values, want.values.float(), atol=1e-5, rtol=0)
    single = fiedler(features=x[0], tau=0.3, eps=1e-4)
    assert single.vectors.shape == (1, 120)
    assert sine(single.vectors[0], want.vectors[0, 0]) < 1e-4


@pytest.mark.parametrize("k", [1, 2])
def test_features_without_forming_the_graph(k):
    x = clusters(seed=6, batch=2, dtype=torch.float64).abs()
    e = fiedler(features=x, tau=None, k=k)
    unit = torch.nn.functional.normalize(x, dim=-1)
    want = fiedler(unit @ unit.mT, k=k, solver="dense")
    torch.testing.assert_close(e.values, want.values, atol=1e-10, rtol=0)
    for i in range(2):
        assert sine(e.vectors[i, 0], want.vectors[i, 0]) < 1e-7
    with pytest.raises(SempartError, match="cosine_affinity"):
        fiedler(features=torch.cat([torch.eye(3)] * 30 + [-torch.eye(3)] * 30), tau=None)


@pytest.mark.parametrize("solver", ["auto", "lanczos", "dense"])
def test_unnormalised(solver):
    W = GRAPHS["cosine"](7)
    values, vectors = scipy.linalg.eigh(affinity.laplacian(W).numpy(), subset_by_index=[1, 2])
    e = fiedler(W, k=2, laplacian="unnormalized", solver=solver)
    np.testing.assert_allclose(e.values, values, atol=1e-9)
    for got, want in zip(e.vectors, vectors.T, strict=True):
        assert sine(got, want) < 1e-6
    torch.testing.assert_close(e.vectors.norm(dim=1), torch.ones(2, dtype=torch.float64))


def test_same_input_same_output_and_no_global_generator():
    W = GRAPHS["binary"](8)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what is watched
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    a, b = fiedler(W), fiedler(W.clone())
    assert torch.equal(a.vectors, b.vectors)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_sign():
    def signed(v):
        v = torch.tensor([[v]], dtype=torch.float64)
        one = torch.ones(1, v.shape[-1])
        return spectral._eigen(eigensolvers.Solution(v[..., 0], v, one, 0, ()), True, v.dtype).vectors[0, 0]

    assert signed([0.1, -0.5, 0.5 - 1e-9, 0.2])[1] == 0.5  # a tie up to rounding: the first decides
    assert signed([0.1, 0.5 - 1e-9, -0.5, 0.2])[2] == -0.5
    assert signed([0.1, -0.5, 0.2])[1] == 0.5
    for seed in range(4):
        y = fiedler(GRAPHS["cosine"](seed)).vectors[0]
        assert y[y.abs().argmax()] > 0


@pytest.mark.parametrize("solver", ["lanczos", "dense"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_constant_image(solver, dtype):
    W = torch.ones(70, 70, dtype=dtype)
    e = fiedler(W, k=2, solver=solver)
    torch.testing.assert_close(e.values, torch.ones(2, dtype=dtype), atol=1e-5, rtol=0)
    assert torch.isfinite(e.vectors).all()
    torch.testing.assert_close(e.vectors @ e.vectors.T * 70, torch.eye(2, dtype=dtype), atol=1e-4, rtol=0)
    assert torch.equal(e.vectors, fiedler(W, k=2, solver=solver).vectors)


@pytest.mark.parametrize("solver", ["lanczos", "dense"])
def test_disconnected(solver):
    W = torch.block_diag(*[binary(n=n, k=1, noise=0.1, seed=n) for n in (40, 30, 50)])
    e = fiedler(W, k=3, solver=solver)
    assert e.values[:2].abs().max() < 1e-12 and e.values[2] > 0.01
    for part in (slice(0, 40), slice(40, 70), slice(70, 120)):
        assert e.vectors[:2, part].std(dim=1).max() < 1e-9
    one = fiedler(W, solver=solver)
    assert one.values[0] < 1e-12 and one.vectors[0, 3] == pytest.approx(one.vectors[0, 30].item(), abs=1e-9)


@pytest.mark.parametrize("n", [60, 200])
def test_multiple_eigenvalues_are_all_found(n):
    """A ring: every non-trivial eigenvalue of even index comes twice."""
    i = torch.arange(n)
    W = torch.zeros(n, n, dtype=torch.float64)
    for step in (1, 2, 3):
        W[i, (i + step) % n] = W[(i + step) % n, i] = 1.0
    e = fiedler(W, k=4, solver="lanczos")
    np.testing.assert_allclose(e.values, reference(W, 4)[0], atol=1e-9)
    four = torch.stack([fiedler(W, k=4).vectors] * 2)
    assert torch.equal(four[0], four[1])
    complete = fiedler(torch.ones(80, 80) - torch.eye(80), k=5, solver="lanczos")
    np.testing.assert_allclose(complete.values, 80 / 79, atol=1e-5)


def test_identical_patches():
    x = clusters(n=100, seed=9)
    x[50:] = x[:50]
    e = fiedler(affinity.threshold_affinity(x, dtype=torch.float64))
    torch.testing.assert_close(e.vectors[0, :50], e.vectors[0, 50:], atol=1e-9, rtol=0)


def test_what_does_not_converge_goes_to_the_dense_solver(monkeypatch):
    W = torch.stack([GRAPHS["path"](0), binary(n=81)])
    monkeypatch.setattr(eigensolvers, "MAX_PRODUCTS", 25)
    e = fiedler(W, solver="lanczos")
    assert e.dense == (0,)
    for i in range(2):
        assert sine(e.vectors[i, 0], reference(W[i])[1][0]) < 1e-7
    t = spectral._eigen(eigensolvers.solve_torch(W, eigensolvers.Problem(1, "lanczos", 1e-9)), True, W.dtype)
    assert t.dense == (0,)
    torch.testing.assert_close(t.values, e.values, atol=1e-10, rtol=0)


@pytest.mark.parametrize("solver", ["lanczos", "dense"])
def test_hardly_any_edge(solver):
    """All non-trivial eigenvalues equal: LAPACK's subset drivers return nothing for some of these."""
    for eps in (1e-2, 1e-3, 1e-5):
        W = torch.full((121, 121), eps, dtype=torch.float64).fill_diagonal_(1)
        e = fiedler(W, k=2, solver=solver)
        want = np.linalg.eigvalsh(affinity.normalized_laplacian(W))[1:3]
        np.testing.assert_allclose(e.values, want, atol=1e-10)
        gram = (e.vectors * W.sum(1)) @ e.vectors.T
        torch.testing.assert_close(gram, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("solver", ["auto", "lanczos"])
def test_smallest_graphs(n, solver):
    W = torch.ones(n, n, dtype=torch.float64) + torch.diag(torch.arange(1.0, n + 1, dtype=torch.float64))
    e = fiedler(W, k=n - 1, solver=solver)
    np.testing.assert_allclose(e.values, reference(W, n - 1)[0], atol=1e-12)


def _spoil(**entries):
    W = binary(n=60)
    for (i, j), v in entries["at"].items():
        W[i, j] = v
    return W


@pytest.mark.parametrize(
    ("W", "says"),
    [
        (_spoil(at={(3, 4): torch.nan}), "NaN"),
        (_spoil(at={(3, 4): torch.inf, (4, 3): torch.inf}), "infinity"),
        (_spoil(at={(3, 4): -0.5, (4, 3): -0.5}), "negative"),
        (_spoil(at={(3, 4): 0.0, (4, 3): 1.0}), "symmetric"),
        (torch.block_diag(binary(n=60), torch.zeros(1, 1, dtype=torch.float64)), "no edges"),
        (torch.ones(4, 5), "B x N x N"),
        (torch.ones(5), "B x N x N"),
        (torch.ones(3, 3, dtype=torch.complex64), "complex"),
    ],
)
@pytest.mark.parametrize("solver", ["lanczos", "dense"])
def test_refuses(W, says, solver):
    with pytest.raises(SempartError, match=says):
        fiedler(W, solver=solver)


def test_refuses_and_names_the_graph():
    W = torch.stack([binary(n=60), _spoil(at={(3, 4): torch.nan})])
    with pytest.raises(SempartError, match="graph 1 of the batch"):
        fiedler(W)


def test_refuses_arguments():
    W = binary(n=60)
    for kw in (
        {},
        {"W": W, "features": clusters()},
        {"W": W, "k": 0},
        {"W": W, "k": 60},
        {"W": W, "solver": "eigh"},
        {"W": W, "laplacian": "random walk"},
        {"W": torch.ones(1, 1)},
        {"features": torch.full((5, 3), torch.nan)},
    ):
        with pytest.raises(SempartError):
            fiedler(**kw)


def test_rounding_of_a_gram_matrix_is_no_asymmetry():
    x = torch.nn.functional.normalize(clusters(n=300).abs(), dim=-1)
    W = (x @ x.mT).double()
    W[3, 5] += 1e-7
    assert sine(fiedler(W).vectors[0], reference((W + W.T) / 2)[1][0]) < 1e-5


def test_input_is_left_alone_and_may_need_gradients():
    W = binary(n=60)
    copy = W.clone()
    fiedler(W)
    fiedler(W, solver="dense")
    assert torch.equal(W, copy)
    assert not fiedler(W.requires_grad_()).vectors.requires_grad
    big = binary(n=120)
    view = big[::2, ::2]  # not contiguous
    assert sine(fiedler(view).vectors[0], reference(view)[1][0]) < 1e-7
    batch = torch.stack([big, big]).transpose(0, 2)[..., :1].transpose(0, 2)
    assert fiedler(torch.stack([big] * 4)[::2]).values.shape == (2, 1)
    assert batch.shape == (1, 120, 120)


def test_symmetric_product():
    rng = np.random.default_rng(0)
    for dtype, tol in ((np.float64, 1e-12), (np.float32, 1e-4)):
        A = rng.standard_normal((37, 37)).astype(dtype)
        A = A + A.T
        x = rng.standard_normal(37)
        np.testing.assert_allclose(symmetric.Symmetric(A)(x), A @ x, atol=tol)
        two = symmetric.each([symmetric.Symmetric(A), symmetric.Symmetric(2 * A)], [1, 0], np.stack([x, x]))
        np.testing.assert_allclose(two, [2 * A @ x, A @ x], atol=2 * tol)
        assert two.dtype == np.float64


@pytest.mark.parametrize("double_below", [0, 2048])
def test_float32_does_not_blur_a_small_gap(monkeypatch, double_below):
    """Three nearly separate parts: both eigenvalues are small, and their gap is below float32's noise."""
    monkeypatch.setattr(eigensolvers, "DOUBLE_BELOW", double_below)
    W = torch.block_diag(*[torch.ones(n, n) for n in (40, 35, 70)]).clamp(min=1e-6)
    values, vectors = reference(W, 2)
    assert values[1] - values[0] < 1e-5
    for e in (
        fiedler(W),
        spectral._eigen(
            eigensolvers.solve_torch(W[None], eigensolvers.Problem(1, "auto", 1e-6)), True, W.dtype
        ),
    ):
        assert sine(e.vectors.reshape(-1), vectors[0]) < 1e-2


def test_no_graph_and_very_many_pairs():
    with pytest.raises(SempartError, match="holds no graph"):
        fiedler(torch.ones(0, 5, 5))
    W = torch.from_numpy(np.asarray(binary(seed=0)))
    e = fiedler(W, k=len(W) - 1)
    assert e.values.shape == (len(W) - 1,)


def test_blas_threads_are_given_back_after_overlapping_calls():
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_info

    def threads():
        return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

    fiedler(binary(seed=0))
    before = threads()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda s: [fiedler(binary(seed=s)) for _ in range(3 + s)], range(4)))
    assert threads() == before
