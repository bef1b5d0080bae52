"""The differentiable normalized cut: right gradients, invariances, ties, and what it refuses."""

import numpy as np
import pytest
import torch

from sempart_core import SempartError, eigensolvers, ncut_layer, resolvent
from sempart_core.ncut_layer import DegenerateWarning, laplacian_of, ncut_eigenvector, symmetric_eigenvector
from sempart_core.spectral import fiedler

LAPLACIANS = ("normalized", "unnormalized")
SOLVERS = ("iterative", "closed")


def graphs(batch=2, n=12, dtype=torch.float64, seed=0):
    A = torch.rand(batch, n, n, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return A + A.mT + 0.1


def cotangent(n, seed=1):
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradient(W, g, **options):
    W = W.clone().requires_grad_()
    (ncut_eigenvector(W, **options) * g).sum().backward()
    return (W.grad + W.grad.mT) / 2  # only the symmetric part has a meaning


def three_groups(split=0.0, dtype=torch.float64):
    """Three equal groups of seven, so that lambda_2 and lambda_3 are one; a ``split`` parts them by about as much."""
    couplings = torch.tensor([[1, 0.1, 0.1], [0.1, 1, 0.1], [0.1, 0.1, 1]], dtype=torch.float64)
    couplings[0, 1] += split
    couplings[1, 0] += split
    return torch.kron(couplings, graphs(1, 7)[0]).to(dtype)


@pytest.mark.parametrize("laplacian", LAPLACIANS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("k", [1, 3])
def test_first_and_second_derivatives(laplacian, solver, k):
    A = graphs(2, 8).requires_grad_()
    g = cotangent(8)

    def fn(A):
        return ncut_eigenvector((A + A.mT) / 2, k=k, laplacian=laplacian, solver=solver, tol=1e-13) @ g

    assert torch.autograd.gradcheck(fn, A, atol=1e-6)
    assert torch.autograd.gradgradcheck(fn, A, atol=1e-5)


@pytest.mark.parametrize("laplacian", LAPLACIANS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_solvers_agree_and_solve(laplacian, dtype):
    W = graphs(3, 60, dtype)
    both = [ncut_eigenvector(W, laplacian=laplacian, solver=s) for s in SOLVERS]
    close = 1e-5 if dtype == torch.float32 else 1e-8
    assert (both[0] - both[1]).abs().max() < close
    z = both[0].double()
    assert torch.allclose(z.norm(dim=-1), torch.ones(3, dtype=torch.float64), atol=1e-6)
    L = laplacian_of(W.double(), laplacian == "normalized")
    value = (z * (L @ z[..., None])[..., 0]).sum(-1, keepdim=True)
    assert ((L @ z[..., None])[..., 0] - value * z).abs().max() < 100 * close
    y = fiedler(W, laplacian=laplacian).vectors[:, 0].double()
    want = y * W.double().sum(-1).sqrt() if laplacian == "normalized" else y
    assert (torch.nn.functional.cosine_similarity(z, want).abs() > 1 - 1e-6).all()
    g = torch.randn(3, 60, generator=torch.Generator().manual_seed(2)).to(dtype)
    a, b = (gradient(W, g, laplacian=laplacian, solver=s) for s in SOLVERS)
    assert (a - b).abs().max() < (1e-3 if dtype == torch.float32 else 1e-7) * b.abs().max()


@pytest.mark.parametrize("solver", SOLVERS)
def test_scale_changes_nothing_and_the_gradient_knows(solver):
    W, g = graphs(1, 20), cotangent(20)
    z = ncut_eigenvector(W, solver=solver)
    assert torch.allclose(z, ncut_eigenvector(7 * W, solver=solver), atol=1e-8)
    one, seven = gradient(W, g, solver=solver), gradient(7 * W, g, solver=solver)
    assert torch.allclose(one, 7 * seven, atol=1e-7 * one.abs().max())
    assert abs((one * W).sum()) < 1e-7 * one.abs().max()  # Euler: homogeneous of degree 0
    assert (gradient(W, z, solver=solver)).abs().max() < 1e-7  # its length is fixed


@pytest.mark.parametrize("solver", SOLVERS)
def test_permuted_nodes_permute_the_gradient(solver):
    W, g = graphs(1, 20), cotangent(20)
    p = torch.randperm(20, generator=torch.Generator().manual_seed(3))
    z, zp = ncut_eigenvector(W, solver=solver)[0], ncut_eigenvector(W[:, p][:, :, p], solver=solver)[0]
    assert torch.allclose(z[p].abs(), zp.abs(), atol=1e-8)
    sign = torch.sign(z[p] @ zp)
    a, b = gradient(W, g, solver=solver), gradient(W[:, p][:, :, p], g[p] * sign, solver=solver)
    assert torch.allclose(a[:, p][:, :, p], b, atol=1e-7 * a.abs().max())


def test_ties_elsewhere_are_harmless_where_autograd_gives_nan():
    x = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 2
    f = torch.nn.functional.normalize(x, dim=-1)
    W = f @ f.mT  # rank 6 of 40: lambda = 1 of multiplicity 34
    g = cotangent(40)
    a, b = (gradient(W, g, solver=s) for s in SOLVERS)
    assert torch.isfinite(a).all() and (a - b).abs().max() < 1e-7 * b.abs().max()
    L = laplacian_of(W.clone().requires_grad_())
    L.retain_grad()
    (torch.linalg.eigh(L)[1][:, 1] @ g).backward()
    assert not torch.isfinite(L.grad).all() or L.grad.abs().max() > 1e3 * b.abs().max()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_tie_of_the_wanted_eigenvalue_is_reported(solver):
    W = torch.full((2, 9, 9), 1.0, dtype=torch.float64)  # every vector orthogonal to the constant will do
    W[1] = graphs(1, 9)[0]
    g = cotangent(9)
    with pytest.warns(DegenerateWarning, match="1 of 2 graphs"):
        a = gradient(W, g, solver=solver)
    assert torch.isfinite(a).all()
    assert torch.allclose(a[1], gradient(W[1:], g, solver=solver)[0], atol=1e-8)
    with pytest.raises(SempartError, match="within 1e-09"):
        gradient(W, g, solver=solver, degenerate="raise")
    two = torch.block_diag(
        torch.ones(4, 4), torch.ones(5, 5)
    ).double()  # lambda_2 = 0 ties with the trivial one
    with pytest.warns(DegenerateWarning):
        gradient(two, g, solver=solver)
    gradient(two, g, solver=solver, degenerate="ignore")


@pytest.mark.parametrize("laplacian", LAPLACIANS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [resolvent.STEPS, 2])
@pytest.mark.parametrize("split", [0.1, 1e-3, 1e-5])
def test_single_precision_has_the_gradient_of_double(monkeypatch, laplacian, solver, steps, split):
    """Every training is in single precision: by conjugate gradients, by the closed form, and beside a near tie."""
    monkeypatch.setattr(resolvent, "STEPS", steps)
    W, g = three_groups(split, torch.float32), cotangent(21)
    want = gradient(W.double(), g, laplacian=laplacian, solver="closed")
    got = gradient(W, g.float(), laplacian=laplacian, solver=solver, degenerate="raise")
    assert got.dtype == torch.float32
    assert (got - want).abs().max() < 1e-5 * want.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("laplacian", LAPLACIANS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [resolvent.STEPS, 2])
def test_the_share_of_a_tie_is_left_out(monkeypatch, dtype, laplacian, solver, steps):
    monkeypatch.setattr(resolvent, "STEPS", steps)
    W, g = torch.stack([three_groups(x, dtype) for x in (0.0, 0.05)]), cotangent(21).to(dtype)
    with pytest.warns(DegenerateWarning, match="1 of 2 graphs"):
        got = gradient(W, g, laplacian=laplacian, solver=solver)
    z = ncut_eigenvector(W, laplacian=laplacian, solver=solver)[0].double()
    values, vectors = torch.linalg.eigh(laplacian_of(W[0].double(), laplacian == "normalized"))
    assert values[2] - values[1] < 1e-12
    inverse = torch.where((values - values[1]).abs() < 1e-9, 0.0, 1 / (values[1] - values))
    half = torch.outer(vectors @ (inverse * (vectors.T @ g.double())), z) / 2
    want = ncut_layer._through(W[:1].double(), (half + half.T)[None], laplacian == "normalized")[0]
    want = (want + want.T) / 2
    assert (got[0] - want).abs().max() < (1e-6 if dtype == torch.float32 else 1e-9) * want.abs().max()
    other = gradient(W[1:].double(), g.double(), laplacian=laplacian, solver="closed")[0]
    assert (got[1] - other).abs().max() < (1e-5 if dtype == torch.float32 else 1e-7) * other.abs().max()


def test_features_and_their_threshold():
    x = torch.randn(2, 15, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) + 1
    f = torch.nn.functional.normalize(x, dim=-1)
    C = f @ f.mT
    W = torch.where(C > 0.3, C, 1e-6)
    assert torch.equal(ncut_eigenvector(features=x, tau=0.3), ncut_eigenvector(W))
    assert torch.allclose(ncut_eigenvector(features=x, tau=0.3)[0], ncut_eigenvector(features=x[0], tau=0.3))
    x.requires_grad_()
    g = cotangent(15)
    fn = lambda x: ncut_eigenvector(features=x, tau=0.3, tol=1e-13) @ g  # noqa: E731
    assert torch.autograd.gradcheck(fn, x, atol=1e-6)


def test_half_precision_becomes_single():
    x = torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(5)) + 1
    with torch.autocast("cpu", torch.bfloat16):
        z = ncut_eigenvector(features=x)
    assert z.dtype == torch.float32
    assert torch.equal(z, ncut_eigenvector(features=x)), "the cosines are in single precision too"
    assert ncut_eigenvector(features=x.bfloat16()).dtype == torch.float32
    assert ncut_eigenvector(graphs(1, 9).bfloat16()).dtype == torch.float32


def test_the_path_of_an_accelerator(monkeypatch):
    """The same products with torch, as on CUDA."""
    W, g = graphs(3, 40), cotangent(40)
    want = [gradient(W, g, laplacian=x) for x in LAPLACIANS]
    monkeypatch.setattr(resolvent, "_cpu", resolvent._torch)
    for laplacian, w in zip(LAPLACIANS, want, strict=True):
        assert (gradient(W, g, laplacian=laplacian) - w).abs().max() < 1e-8 * w.abs().max()


@pytest.mark.parametrize("laplacian", LAPLACIANS)
@pytest.mark.parametrize("steps", [resolvent.STEPS, 2])
def test_the_path_of_an_accelerator_in_single_precision(monkeypatch, laplacian, steps):
    """Its vectors are less exact, its eigenvalues are to tell a tie all the same."""
    monkeypatch.setattr(eigensolvers, "solve_cpu", eigensolvers.solve_torch)
    monkeypatch.setattr(resolvent, "_cpu", resolvent._torch)
    monkeypatch.setattr(resolvent, "STEPS", steps)
    W, g = torch.stack([three_groups(x, torch.float32) for x in (0.0, 0.1)]), cotangent(21)
    with pytest.warns(DegenerateWarning, match="1 of 2 graphs"):
        got = gradient(W, g.float(), laplacian=laplacian)
    want = gradient(W[1].double(), g, laplacian=laplacian, solver="closed")
    assert (got[1] - want).abs().max() < 1e-3 * want.abs().max()
    assert got[0].abs().max() < 10 * want.abs().max()


def test_what_does_not_converge_goes_to_the_closed_form(monkeypatch):
    W, g = graphs(2, 40), cotangent(40)
    want = gradient(W, g)
    monkeypatch.setattr(resolvent, "STEPS", 2)
    assert (gradient(W, g) - want).abs().max() < 1e-7 * want.abs().max()


def test_resolvent_solves():
    """``(theta I - M) p = g`` without the part along ``z``."""
    W, g = graphs(2, 30), cotangent(30).expand(2, 30)
    found = fiedler(W, k=2, tol=1e-12)
    d = W.sum(-1)
    z = found.vectors * d.sqrt()[:, None]
    theta = resolvent.rayleigh(W, z, d)
    torch.testing.assert_close(theta, 1 - found.values)
    p, tied = resolvent.solve(W, z, theta, d, g, tol=1e-12)
    M = torch.eye(30, dtype=W.dtype) - laplacian_of(W)
    v = z[:, -1]
    left = theta[:, -1:] * p - (M @ p[..., None])[..., 0]
    assert (left - (g - v * (v * g).sum(-1, keepdim=True))).abs().max() < 1e-9
    assert (p * v).sum(-1).abs().max() < 1e-9 and not tied.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "exactly one"),
        ({"W": torch.ones(3, 3), "features": torch.ones(3, 2)}, "exactly one"),
        ({"W": torch.ones(3, 4)}, "B x N x N"),
        ({"W": torch.ones(3, 3), "k": 3}, "k=3"),
        ({"W": torch.ones(3, 3), "k": 0}, "k=0"),
        ({"W": torch.ones(3, 3), "solver": "qr"}, "unknown solver"),
        ({"W": torch.ones(3, 3), "laplacian": "random"}, "unknown laplacian"),
        ({"W": torch.ones(3, 3), "degenerate": "hide"}, "unknown degenerate"),
        ({"W": torch.full((3, 3), float("nan"))}, "NaN"),
        ({"W": torch.zeros(3, 3)}, "no edges"),
        ({"W": torch.full((3, 3), float("nan")), "solver": "closed"}, "NaN"),
        ({"W": torch.full((3, 3), float("inf")), "solver": "closed"}, "infinity"),
        ({"W": torch.zeros(3, 3), "solver": "closed"}, "no edges"),
        ({"features": torch.ones(3, 2), "tau": -0.1}, "tau=-0.1"),
        ({"features": torch.ones(3, 2), "tau": float("nan")}, "tau=nan"),
        ({"features": torch.ones(3, 2), "eps": -1.0}, "eps=-1.0"),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(SempartError, match=words):
        ncut_eigenvector(**arguments)


@pytest.mark.parametrize(
    ("X", "k", "words"),
    [
        (torch.ones(3, 4), 1, "B x N x N"),
        (torch.ones(3, 3), 3, "k=3"),
        (torch.full((3, 3), float("nan")), 1, "NaN"),
    ],
)
def test_a_matrix_without_eigenvectors(X, k, words):
    with pytest.raises(SempartError, match=words):
        symmetric_eigenvector(X, k)


def test_closed_form_of_any_symmetric_matrix():
    X = torch.diag(torch.arange(5.0, dtype=torch.float64)) + 0.1
    z = symmetric_eigenvector(X, 4)
    assert z.abs().argmax() == 4 and z[4] > 0
    assert ncut_layer.GUARD == 1e-9 and np.isclose(float(z.norm()), 1)
