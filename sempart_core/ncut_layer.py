"""Normalized cuts as a layer: the Fiedler vector of a graph, with its gradient (Differentiable NCut, section 3.2).

For a simple eigenvalue of a symmetric matrix, ``dz = (lambda I - X)^+ dX z`` (theorem 1), so a loss needs one
vector ``p = (lambda I - X)^+ dloss/dz`` and the gradient with respect to the graph is of rank three. The closed
form takes ``p`` from all eigenpairs (equation 8); the iterative one solves the linear system, which is positive
definite once the trivial vector and ``z`` are taken out, and reads the graph as often as the forward pass did.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import resolvent
from .errors import SempartError
from .spectral import LAPLACIANS, fiedler

#: Distance to another eigenvalue below which the closed form treats both as one (supplement, section 1).
GUARD = 1e-9
#: What to do where lambda_2 is not simple, so that no derivative exists.
DEGENERATE = ("warn", "raise", "ignore")


class DegenerateWarning(RuntimeWarning):
    """A gradient through an eigenvector whose eigenvalue is not simple: the share of the tie is left out."""


def ncut_eigenvector(
    W: Tensor | None = None,
    *,
    features: Tensor | None = None,
    k: int = 1,
    tau: float = 0.0,
    eps: float = 1e-6,
    laplacian: str = "normalized",
    solver: str = "iterative",
    tol: float | None = None,
    guard: float = GUARD,
    degenerate: str = "warn",
) -> Tensor:
    """The ``k``-th non-trivial eigenvector of a graph's Laplacian, differentiably.

    Parameters
    ----------
    W : Tensor, optional
        ``B x N x N`` or ``N x N``, symmetric and ``>= 0``, float32 or float64, every degree positive.
    features : Tensor, optional
        ``B x N x D`` or ``N x D`` instead: ``W`` holds the cosines above ``tau``, ``eps`` elsewhere
        (equation 1 with the floor of the public code, protocols 1.9).
    k : int
        1 is the Fiedler vector ``z_2`` of the paper.
    tau, eps : float
        With ``features`` only; both 0 or more, since a cosine below 0 is no weight.
    laplacian : "normalized" or "unnormalized"
        ``D^-1/2 (D - W) D^-1/2`` (equation 6) or ``D - W`` (public code).
    solver : "iterative" or "closed"
        ``iterative``: deflated Lanczos forward, conjugate gradients backward; the rest of the spectrum is
        never computed. ``closed``: ``torch.linalg.eigh`` without its autograd, equation 8 backward.
    tol : float, optional
        Of the iterative solver, forward (angle) and backward (residual); 1e-10, or 1e-6 in float32.
    guard : float
        See :data:`GUARD`.
    degenerate : "warn", "raise" or "ignore"
        Where another eigenvalue lies within ``guard``: found in the backward pass.

    Returns
    -------
    Tensor
        ``B x N`` or ``N``: unit vectors ``z`` (for the normalized Laplacian ``z = D^1/2 y``), the first entry
        of the largest magnitude positive. The sign is arbitrary and constant to the derivative; scaling ``W``
        changes nothing. Ties among *other* eigenvalues are harmless, where ``torch.linalg.eigh`` gives NaN.
        Twice differentiable.

    Raises
    ------
    SempartError
        Neither or both inputs, a wrong shape or threshold, unknown options; NaN, infinity or a node without edges.
        Negative and asymmetric weights are not looked for.
    """
    if (W is None) == (features is None):
        raise SempartError("ncut_eigenvector needs exactly one of W and features")
    for name, value, known in (
        ("laplacian", laplacian, LAPLACIANS),
        ("solver", solver, ("iterative", "closed")),
        ("degenerate", degenerate, DEGENERATE),
    ):
        if value not in known:
            raise SempartError(f"unknown {name} {value!r}; choose one of: {', '.join(known)}")
    if features is not None:
        W = _floored(features, tau, eps)
    if W.ndim not in (2, 3) or W.shape[-1] != W.shape[-2]:
        raise SempartError(f"W has shape {tuple(W.shape)}: give B x N x N or N x N")
    if not 1 <= k < W.shape[-1]:
        raise SempartError(f"k={k}: a graph of {W.shape[-1]} nodes has {W.shape[-1] - 1} non-trivial eigenvectors")  # fmt: skip
    normalised = laplacian == "normalized"
    with torch.autocast(W.device.type, enabled=False):  # an eigenproblem in half precision is none
        W = W.float() if W.dtype.itemsize < 4 else W
        if solver == "closed":
            d = W.detach().sum(-1)
            if not bool(torch.isfinite(d).all()):
                raise SempartError("W holds NaN or infinity: check the features and their precision")
            if bool((d <= 0).any()):
                raise SempartError(
                    "a node of W has no edges: keep self-loops, raise eps, lower tau or leave it out"
                )
            # In single precision the Laplacian would be another graph's, whose ties are none.
            X = laplacian_of(W.double(), normalised)
            return symmetric_eigenvector(X, k, guard, degenerate).to(W.dtype)
        tol = tol or (1e-10 if W.dtype == torch.float64 else 1e-6)
        batch = W if W.ndim == 3 else W[None]
        z = _Fiedler.apply(batch, k, normalised, tol, guard, degenerate)
    return z if W.ndim == 3 else z[0]


def _floored(features: Tensor, tau: float, eps: float) -> Tensor:
    """Cosines above ``tau``, ``eps`` elsewhere."""
    if not 0 <= tau < 1 or not 0 <= eps < float("inf"):
        raise SempartError(
            f"tau={tau}, eps={eps}: weights are not negative; give tau in [0, 1) and eps of at least 0"
        )
    with torch.autocast(features.device.type, enabled=False):  # a cosine in half precision has three digits
        x = F.normalize(features.float() if features.dtype.itemsize < 4 else features, dim=-1)
        C = x @ x.mT
        return torch.where(C > tau, C, eps)


def laplacian_of(W: Tensor, normalised: bool = True) -> Tensor:
    """``I - D^-1/2 W D^-1/2`` or ``D - W`` of ``... x N x N`` weights, differentiably."""
    d = W.sum(-1)
    if not normalised:
        return torch.diag_embed(d) - W
    s = d.rsqrt()
    return torch.eye(W.shape[-1], dtype=W.dtype, device=W.device) - s[..., None] * W * s[..., None, :]


def symmetric_eigenvector(X: Tensor, k: int = 1, guard: float = GUARD, degenerate: str = "warn") -> Tensor:
    """Unit eigenvector number ``k`` (counted from 0, ascending) of symmetric matrices; equations 7 and 8.

    Parameters
    ----------
    X : Tensor
        ``B x N x N`` or ``N x N``, symmetric; computed in float64.
    k : int
        0 is the smallest.
    guard, degenerate
        As in :func:`ncut_eigenvector`.

    Returns
    -------
    Tensor
        ``B x N`` or ``N``. The gradient with respect to ``X`` is symmetric.

    Raises
    ------
    SempartError
        A wrong shape, no such number, NaN or infinity.
    """
    if X.ndim not in (2, 3) or X.shape[-1] != X.shape[-2]:
        raise SempartError(f"X has shape {tuple(X.shape)}: give B x N x N or N x N")
    if not 0 <= k < X.shape[-1]:
        raise SempartError(
            f"k={k}: a matrix of {X.shape[-1]} rows has the eigenvectors 0 to {X.shape[-1] - 1}"
        )
    if not bool(torch.isfinite(X.detach()).all()):
        raise SempartError("X holds NaN or infinity: check what it was made of")
    batch = X if X.ndim == 3 else X[None]
    z = _Closed.apply(batch, k, guard, degenerate)
    return z if X.ndim == 3 else z[0]


class _Closed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, X: Tensor, k: int, guard: float, degenerate: str) -> Tensor:
        values, vectors = torch.linalg.eigh(X.double())
        sign = _sign(vectors[..., k])
        z = (vectors[..., k] * sign).to(X.dtype)
        ctx.k, ctx.guard, ctx.degenerate = k, guard, degenerate
        ctx.save_for_backward(X, z, values, vectors)
        return z

    @staticmethod
    def backward(ctx, g: Tensor):
        X, z, values, vectors = ctx.saved_tensors
        if torch.is_grad_enabled():  # someone wants the derivative of this derivative
            p = _bordered(X, z, g)
        else:
            far = values[:, ctx.k, None] - values
            close = far.abs() < ctx.guard
            close[:, ctx.k] = False
            _report(close.any(-1), ctx.degenerate, ctx.guard)
            inverse = torch.where(far.abs() < ctx.guard, 0.0, 1 / torch.where(far == 0, 1.0, far))
            p = (vectors @ (inverse * (vectors.mT @ g.double()[..., None])[..., 0])[..., None])[..., 0]
        z = z.to(p.dtype)
        half = p[:, :, None] * z[:, None] / 2
        return (half + half.mT).to(X.dtype), None, None, None


class _Fiedler(torch.autograd.Function):
    @staticmethod
    def forward(ctx, W: Tensor, k: int, normalised: bool, tol: float, guard: float, degenerate: str) -> Tensor:  # fmt: skip
        found = fiedler(
            W, k=k, solver="lanczos", tol=tol, laplacian=LAPLACIANS[not normalised], check=False
        )  # the caller's graph is symmetric by contract; a look at every entry costs as much as two products
        y = found.vectors.double()
        d = W.sum(-1, dtype=torch.float64)
        z = y * d.sqrt()[:, None] if normalised else y
        z = z / z.norm(dim=-1, keepdim=True)
        out = (z[:, -1] * _sign(z[:, -1])).to(W.dtype)
        ctx.options = (normalised, tol, guard, degenerate)
        ctx.save_for_backward(W, out, z, d)
        return out

    @staticmethod
    def backward(ctx, g: Tensor):
        W, out, z, d = ctx.saved_tensors
        normalised, tol, guard, degenerate = ctx.options
        if torch.is_grad_enabled():
            L = laplacian_of(W, normalised)
            p = _bordered(L, out, g)
            half = p[:, :, None] * out[:, None] / 2
            return _through(W, half + half.mT, normalised), *[None] * 5
        sign = (out.double() * z[:, -1]).sum(-1, keepdim=True).sign()
        g = g.double() * sign
        theta = resolvent.rayleigh(W, z, d, normalised)  # those of the forward pass have the precision of W
        p, tied = resolvent.solve(W, z, theta, d, g, normalised=normalised, tol=tol, guard=guard)
        _report(tied, degenerate, guard)
        v = z[:, -1]
        orthogonal = g - v * (v * g).sum(-1, keepdim=True)
        if normalised:
            if bool(tied.any()):  # without the share of the tie too, which the degrees would bring back
                i = tied.nonzero()[:, 0]
                orthogonal[i] = theta[i, -1:] * p[i] - resolvent.times(W[i], p[i, None], d[i])[:, 0]
            s = d.rsqrt()
            a, b = s * p, s * v
            rows = -(theta[:, -1:] * p * v - v * orthogonal / 2) / d
        else:
            a, b, rows = p, v, -p * v
        a, b, rows = (t.to(W.dtype) for t in (a, b, rows))
        # a b' / 2 + b a' / 2 + rows 1', in one product
        left = torch.stack([a, b, rows], -1)
        right = torch.stack([b / 2, a / 2, torch.ones_like(rows)], 1)
        return left @ right, *[None] * 5


def _through(W: Tensor, G: Tensor, normalised: bool) -> Tensor:
    """From the gradient with respect to the Laplacian to that with respect to ``W``, differentiably."""
    d = W.sum(-1)
    if not normalised:
        return G.diagonal(dim1=-2, dim2=-1)[..., None] - G
    s = d.rsqrt()
    M = s[..., None] * W * s[..., None, :]
    return (G * M).sum(-1)[..., None] / d[..., None] - s[..., None] * G * s[..., None, :]


def _bordered(X: Tensor, z: Tensor, g: Tensor) -> Tensor:
    """``(lambda I - X)^+ g`` by a dense system that is regular for simple eigenvalues; differentiable."""
    value = (z * (X @ z[..., None])[..., 0]).sum(-1)
    n = X.shape[-1]
    K = value[:, None, None] * torch.eye(n, dtype=X.dtype, device=X.device) - X
    K = torch.cat([K, z[:, None]], 1)
    K = torch.cat([K, F.pad(z, (0, 1))[..., None]], 2)
    return torch.linalg.solve(K, F.pad(g, (0, 1))[..., None])[:, :n, 0]


def _sign(v: Tensor) -> Tensor:
    """``B x 1``: makes the first entry of the largest magnitude positive."""
    size = v.abs()
    first = (size >= (1 - 1e-6) * size.amax(-1, keepdim=True)).int().argmax(-1, keepdim=True)
    return torch.where(v.gather(-1, first) < 0, -1.0, 1.0).to(v.dtype)


def _report(tied: Tensor | np.ndarray, degenerate: str, guard: float) -> None:
    n = int(tied.sum())
    if not n or degenerate == "ignore":
        return
    sentence = (
        f"{n} of {len(tied)} graphs have another eigenvalue within {guard:g} of the wanted one, which has no "
        f"derivative then: the share of the tie is left out; raise eps or change tau"
    )
    if degenerate == "raise":
        raise SempartError(sentence)
    warnings.warn(sentence, DegenerateWarning, stacklevel=2)
