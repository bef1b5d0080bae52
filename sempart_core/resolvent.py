"""``(theta I - N)^+ g`` for the operator ``N`` whose largest eigenpairs are known, by conjugate gradients.

``N`` is ``D^-1/2 W D^-1/2`` or ``W - D``. Beside the known pairs all eigenvalues lie below ``theta``, so the
system is symmetric positive definite there, and along the known pairs its solution is a division.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from . import eigensolvers, symmetric

#: Most products before a graph goes to the closed form.
STEPS = 400


def solve(
    W: Tensor,
    z: Tensor,
    theta: Tensor,
    d: Tensor,
    g: Tensor,
    *,
    normalised: bool = True,
    tol: float = 1e-10,
    guard: float = 1e-9,
) -> tuple[Tensor, Tensor]:
    """Solve for a batch of graphs.

    Parameters
    ----------
    W : Tensor
        ``B x N x N`` weights.
    z : Tensor
        ``B x k x N`` unit eigenvectors beside the trivial one, largest first; the wanted one is the last.
    theta : Tensor
        ``B x k`` their eigenvalues in float64, of :func:`rayleigh`.
    d : Tensor
        ``B x N`` degrees.
    g : Tensor
        ``B x N`` right-hand sides.
    tol : float
        Residual relative to that of zero.
    guard : float
        Distance of eigenvalues that counts as a tie.

    Returns
    -------
    p, tied : Tensor
        ``B x N`` float64, orthogonal to the wanted vector, and ``B`` bool: another eigenvalue is so close that
        its share was left out.
    """
    trivial = d.sqrt() if normalised else torch.ones_like(d)
    trivial = trivial / trivial.norm(dim=-1, keepdim=True)
    known = torch.cat([trivial[:, None], z], 1)
    top = theta.new_ones(len(theta), 1) if normalised else theta.new_zeros(len(theta), 1)
    far = theta[:, -1:] - torch.cat([top, theta], 1)
    far[:, -1] = 0
    tied = (far[:, :-1].abs() < guard).any(-1)
    inverse = torch.where(far.abs() < guard, 0.0, 1 / torch.where(far == 0, 1.0, far))
    share = (known @ g[..., None])[..., 0]
    p = ((inverse * share)[:, None] @ known)[:, 0]
    b = g - (share[:, None] @ known)[:, 0]
    run = _cpu if W.device.type == "cpu" else _torch
    rest, done = run(W, known, theta[:, -1], d, b, normalised, tol)
    if W.dtype == torch.float32 and not bool(done.all()):  # the noise of float32 products was in the way
        i = (~done).nonzero()[:, 0]
        rest[i], done[i] = run(W[i].double(), known[i], theta[i, -1], d[i], b[i], normalised, tol)
    # x'b / x'x is a mean of the distances to theta: below the guard only if the solution is all tie
    tied |= (rest * b).sum(-1) < guard * (rest * rest).sum(-1)
    for i in (~done | tied).nonzero()[:, 0].tolist():
        p[i], tied[i] = _dense(W[i].double(), d[i], z[i, -1], g[i], normalised, guard)
        rest[i] = 0
    return p + rest, tied


def times(W: Tensor, x: Tensor, d: Tensor, normalised: bool = True) -> Tensor:
    """``N x`` in float64 for vectors ``B x k x N``; graphs become float64 a few at a time."""
    s = d.rsqrt()[:, None]
    y = s * x if normalised else x
    large = 1 if W.device.type == "cpu" else 32  # an accelerator has no cache to stay in
    size = max(1, large * eigensolvers.LOCKSTEP // (8 * W[0].numel()))
    y = torch.cat([a @ b.double() for a, b in zip(y.split(size), W.split(size), strict=True)])
    return s * y if normalised else y - d[:, None] * x


def rayleigh(W: Tensor, z: Tensor, d: Tensor, normalised: bool = True) -> Tensor:
    """``B x k`` eigenvalues of unit eigenvectors ``B x k x N``, at the price of one product.

    The error of a vector enters squared, so that they are exact to the guard where the vectors are in single
    precision; an eigenvalue that was rounded itself is no distance to its neighbours.
    """
    return (z * times(W, z, d, normalised)).sum(-1)


def _cpu(W: Tensor, known: Tensor, theta: Tensor, d: Tensor, b: Tensor, normalised: bool, tol: float):
    """A few graphs at a time, as the forward pass does: their weights stay in the cache."""
    A = np.ascontiguousarray(W.detach().numpy())
    size = max(1, eigensolvers.LOCKSTEP // A[0].nbytes)
    out, done = np.empty(tuple(b.shape)), np.empty(len(b), dtype=bool)
    arrays = [t.numpy() for t in (known, theta, d, b)]
    with eigensolvers._one_blas_thread(True):
        for start in range(0, len(A), size):
            part = slice(start, start + size)
            graphs = A[part].astype(np.float64) if len(A[0]) <= eigensolvers.DOUBLE_BELOW else A[part]
            symv = [symmetric.Symmetric(G) for G in graphs]
            every = list(range(len(symv)))
            known_, theta_, d_, b_ = (t[part] for t in arrays)
            s = 1 / np.sqrt(d_)

            def product(x, symv=symv, every=every, s=s, d_=d_):
                if normalised:
                    return s * symmetric.each(symv, every, s * x)
                return symmetric.each(symv, every, x) - d_ * x

            out[part], done[part] = conjugate_gradients(product, known_, theta_, b_, tol, np)
    return torch.from_numpy(out), torch.from_numpy(done)


def _torch(W: Tensor, known: Tensor, theta: Tensor, d: Tensor, b: Tensor, normalised: bool, tol: float):
    s = d.rsqrt()

    def product(x: Tensor) -> Tensor:
        t = (s * x if normalised else x).to(W.dtype)
        y = (W @ t[..., None])[..., 0].double()
        return s * y if normalised else y - d * x

    return conjugate_gradients(product, known, theta, b, tol, torch)


def conjugate_gradients(product: Callable, known, theta, b, tol: float, xp: ModuleType = np):
    """``(theta I - N) x = b`` in the complement of ``known``, many systems in lockstep.

    Returns ``x`` (``B x N``) and which of them converged.
    """

    def free(x):
        return x - ((known @ x[..., None])[..., 0][:, None] @ known)[:, 0]

    def dot(x, y):
        return (x * y).sum(-1)

    r = free(b)
    x, p = 0 * r, r
    rho = dot(r, r)
    goal = tol * tol * dot(b, b)
    broken = rho < 0
    for _ in range(min(STEPS, b.shape[-1])):
        if bool(((rho <= goal) | broken).all()):
            break
        Ap = free(theta[:, None] * p - product(p))
        curvature = dot(p, Ap)
        active = (rho > goal) & (curvature > 0)
        broken = broken | ((rho > goal) & (curvature <= 0))
        step = xp.where(active, rho / xp.where(active, curvature, 1 + 0 * rho), 0 * rho)
        x = x + step[:, None] * p
        r = r - step[:, None] * Ap
        new = xp.where(active, dot(r, r), rho)
        p = r + xp.where(active, new / xp.where(active, rho, 1 + 0 * rho), 0 * rho)[:, None] * p
        rho = new
    return x, (rho <= goal) & ~broken


def _dense(W: Tensor, d: Tensor, z: Tensor, g: Tensor, normalised: bool, guard: float):
    """Equation 8 for one graph: ``p`` and whether there is a tie."""
    s = d.rsqrt()
    N = s[:, None] * W * s if normalised else W - torch.diag(d)
    values, vectors = torch.linalg.eigh(N)
    # The wanted pair is known by its vector: next to these values any other value of it has its own rounding.
    far = values[(vectors.mT @ z).abs().argmax()] - values
    close = far.abs() < guard
    inverse = torch.where(close, 0.0, 1 / torch.where(close, 1.0, far))
    p = vectors @ (inverse * (vectors.mT @ g))
    return p - z * (z @ p), bool(close.sum() > 1)
