"""Gradients of eigenvectors of DDN and DiffNCuts (vectors i): closed form, and both solvers of the layer."""

import numpy as np
import pytest
import torch

from sempart_core.ncut_layer import DegenerateWarning, ncut_eigenvector, symmetric_eigenvector

CASES = [f"{kind}_{size}" for kind in ("normalised", "diffncuts") for size in ("n36", "n64rankdef", "n64")]


@pytest.fixture(scope="module")
def v(vectors):
    return vectors("i_eigenvector_gradient")


def through(X, cot, **options):
    X = torch.from_numpy(X).requires_grad_()
    z = symmetric_eigenvector(X, **options)
    (z @ torch.from_numpy(cot)).backward()
    return z.detach().numpy(), X.grad.numpy()


@pytest.mark.parametrize("case", CASES)
def test_closed_form(v, case):
    z, dX = through(v[f"{case}_X"], v[f"{case}_cot"])
    assert np.abs(z - v[f"{case}_y2"]).max() < 1e-10
    for peer in ("resolvent", "ddn", "diffncuts", "eigh_sym"):
        want = v[f"{case}_dX_{peer}"]
        if np.isnan(want).all():  # what torch.linalg.eigh says where other eigenvalues tie
            assert peer == "eigh_sym" and "rankdef" in case
        elif not np.isnan(want).any():
            assert np.abs(dX - want).max() < 1e-10, peer


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("solver", ["iterative", "closed"])
def test_layer_from_features(v, case, solver):
    x = torch.from_numpy(v[f"{case}_feats"]).double().requires_grad_()
    options = {"laplacian": "normalized", "eps": 0.0} if case[0] == "n" else {"laplacian": "unnormalized"}
    z = ncut_eigenvector(features=x, solver=solver, tol=1e-12, **options)
    (z @ torch.from_numpy(v[f"{case}_cot"])).backward()
    assert np.abs(z.detach().numpy() - v[f"{case}_y2"]).max() < 1e-9
    want = v[f"{case}_dfeats_eigh"]
    if "rankdef" in case and case[0] == "n":
        assert np.isnan(want).all() and torch.isfinite(x.grad).all()
        X = torch.from_numpy(v[f"{case}_dX_resolvent"])  # the gradient up to the Laplacian, then by autograd
        y = torch.from_numpy(v[f"{case}_feats"]).double().requires_grad_()
        f = torch.nn.functional.normalize(y, dim=-1)
        W = (f @ f.mT).clamp_min(0)
        s = W.sum(-1).rsqrt()
        (-s[:, None] * W * s * X).sum().backward()
        want = y.grad.numpy()
    assert np.abs(x.grad.numpy() - want).max() < 1e-9


@pytest.mark.parametrize("case", ["near1e-07", "near1e-10", "deg"])
def test_ties_of_the_wanted_eigenvalue(v, case):
    """Both implementations leave out pairs closer than 1e-9; ours says so.

    Beside a gap an eigenvector is known up to an angle of ``eps |X| / gap`` and no better (Davis and Kahan): that
    much two processors' LAPACK differ, in the vector and so in its gradient.
    """
    X, cot, want = (v[f"{case}_{k}"] for k in ("X", "cot", "dX_diffncuts"))
    gap = float(case.removeprefix("near")) if case != "deg" else np.inf
    angle = 10 * np.finfo(float).eps * np.linalg.norm(X, 2) / gap
    if case == "near1e-07":
        z, dX = through(X, cot)
    else:
        with pytest.warns(DegenerateWarning, match="1 of 1 graphs"):
            z, dX = through(X, cot)
    theirs = v.get(f"{case}_Y", v.get("deg_Y_diffncuts"))[:, 1]
    sign = np.sign(z @ theirs)
    assert abs(abs(z @ theirs) - 1) < 1e-12 + angle**2 / 2
    loss_sign = np.sign(theirs[np.abs(theirs).argmax()]) if case == "deg" else 1
    assert np.abs(sign * loss_sign * dX - want).max() < (1e-9 + angle) * max(1, np.abs(want).max())
