"""Fiedler vectors: the smallest non-trivial eigenpairs of ``(D - W) y = lambda D y``.

The eigenvalues are those of the normalised adjacency ``M = D^-1/2 W D^-1/2`` seen from the other end:
``lambda = 1 - theta`` with ``y = D^-1/2 v``. The trivial pair (``theta = 1``, ``v ~ D^1/2 1``) is known
and deflated, so the wanted ones are the *largest* of what remains, where Lanczos is quick.
Protocols 1.1 states the equivalence with TokenCut's dense ``scipy.linalg.eigh(D - W, D)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import affinity, eigensolvers
from .errors import SempartError

#: Below this many nodes a dense factorisation is as quick as the iteration (tests/benchmarks).
DENSE_BELOW = 48
LAPLACIANS = ("normalized", "unnormalized")


@dataclass(frozen=True)
class Eigen:
    """Eigenpairs of one graph or a batch, smallest first.

    Parameters
    ----------
    values : Tensor
        ``B x k`` (``k`` for a single graph), in [0, 2] for the normalised Laplacian, ascending.
    vectors : Tensor
        ``B x k x N`` (``k x N``), ``y' D y = 1`` and D-orthogonal to each other and to the constant;
        for the un-normalised Laplacian ``y' y = 1``. Sign: the first entry within 1e-6 of the largest
        magnitude is positive.
    products : int
        Reads of the matrix, summed over the batch; 0 where only the dense solver ran.
    dense : tuple of int
        Graphs of the batch that the dense solver answered.
    """

    values: Tensor
    vectors: Tensor
    products: int = 0
    dense: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Tensor]:
        """``values, vectors = fiedler(W)``."""
        return iter((self.values, self.vectors))


def fiedler(
    W: Tensor | np.ndarray | None = None,
    *,
    features: Tensor | None = None,
    tau: float | None = 0.2,
    eps: float = 1e-5,
    k: int = 1,
    solver: Literal["auto", "lanczos", "dense"] = "auto",
    tol: float | None = None,
    laplacian: Literal["normalized", "unnormalized"] = "normalized",
    check: bool = True,
) -> Eigen:
    """The ``k`` smallest non-trivial eigenpairs of a graph.

    Parameters
    ----------
    W : Tensor or array, optional
        ``B x N x N`` symmetric non-negative weights, float32 or float64 (lower precision is raised to
        float32, integers and booleans to float64); ``N x N`` is a batch of one, returned unbatched.
    features : Tensor, optional
        ``B x N x D`` or ``N x D``, instead of ``W``. With ``tau`` the graph is
        :func:`sempart_core.affinity.threshold_affinity`; with ``tau=None`` it is the plain cosine
        ``F F'``, which is never formed: a product is ``F (F' x)``. Its cosines may be negative as long
        as every degree is positive.
    tau, eps : float
        Threshold and weight of missing edges, for ``features`` only.
    k : int
        Number of pairs, ``1 <= k <= N - 1``.
    solver : "auto", "lanczos" or "dense"
        ``auto``: dense for tiny graphs, Lanczos otherwise. A graph on which Lanczos does not converge
        goes to the dense solver (``Eigen.dense`` names it); no unconverged vector is returned.
    tol : float, optional
        Bound on the angle to the exact eigenvector, estimated as residual / gap; default 1e-8, or 1e-6
        for float32. A residual at the noise of one product counts as converged; in float32 only where
        the angle stays below 1e-3, else the graph is solved again in float64 (on the CPU, graphs of up
        to 2048 nodes are multiplied in float64 from the start).
    laplacian : "normalized" or "unnormalized"
        ``(D - W) y = lambda D y``, or ``(D - W) y = lambda y`` (Differentiable NCut's code, Deep
        Spectral's ``lapnorm=False``), where Lanczos is slow and the dense solver is the default.
    check : bool
        Look for negative and asymmetric entries, about two products' worth of time. Asymmetry shows in
        the row sums; up to 1e-5 of the largest degree (1e-4 in float32) it counts as rounding, and the
        upper triangle is used. NaN, infinity and empty rows are always found.

    Returns
    -------
    Eigen
        In the type and on the device of ``W`` or ``features``.

    Raises
    ------
    SempartError
        Neither or both inputs, wrong shape, ``k`` out of range, NaN, infinity, negative or asymmetric
        weights, or a node without edges.

    Notes
    -----
    Defined answers to degenerate graphs:

    - All weights equal (a constant image): every vector orthogonal to the constant is an eigenvector
      with ``lambda = 1``; a fixed pseudo-random one is returned. ``lambda`` near 1 means: no cut.
    - Disconnected components: ``lambda = 0``, the vector is constant on each component.
    - A multiple eigenvalue: a fixed vector of its eigenspace; with ``k > 1`` all its copies are found.
    - Identical patches: equal entries up to rounding, so an argmax among them is decided by rounding,
      in the reference as here.

    No global random generator is used: the same input gives the same output.
    Source: Shi and Malik's relaxation; TokenCut and Deep Spectral as in protocols 1.1 and 1.3.
    """
    if (W is None) == (features is None):
        raise SempartError("fiedler needs exactly one of W and features")
    if solver not in ("auto", "lanczos", "dense"):
        raise SempartError(f"unknown solver {solver!r}; choose one of: auto, lanczos, dense")
    if laplacian not in LAPLACIANS:
        raise SempartError(f"unknown laplacian {laplacian!r}; choose one of: {', '.join(LAPLACIANS)}")
    normalised = laplacian == "normalized"
    implicit = None
    if features is not None:
        x = affinity._features(features.detach() if isinstance(features, Tensor) else features, "features")
        x = x.float() if x.dtype.itemsize < 4 else x
        if tau is None:
            implicit = F.normalize(x, dim=-1)
        else:
            W = affinity.threshold_affinity(x, tau, eps)
            check = False
    shape = (W if implicit is None else implicit).shape
    if implicit is None:
        W = _weights(W)
        shape = W.shape
    single = len(shape) == 2
    source = implicit if implicit is not None else W
    source = source[None] if single else source
    n = shape[-2]
    if 0 in shape:
        raise SempartError(f"an input of shape {tuple(shape)} holds no graph; give at least one")
    if not 1 <= k <= n - 1:
        raise SempartError(
            f"k={k}: a graph of {n} nodes has {n - 1} non-trivial eigenvectors; ask for 1 to N-1"
        )
    if tol is None:
        tol = 1e-8 if source.dtype == torch.float64 else 1e-6
    if solver == "auto" and (n <= DENSE_BELOW or k >= eigensolvers.MAX_PRODUCTS or not normalised):
        solver = "dense"
    if implicit is not None and (solver == "dense" or not normalised):
        source, implicit, check = source @ source.mT, None, False
    problem = eigensolvers.Problem(k, solver, tol, normalised, check)
    if implicit is not None:
        solve = eigensolvers.solve_implicit
    elif source.device.type == "cpu":
        solve = eigensolvers.solve_cpu
    else:
        solve = eigensolvers.solve_torch
    out = _eigen(solve(source, problem), normalised, source.dtype)
    return Eigen(out.values[0], out.vectors[0], out.products, out.dense) if single else out


def _eigen(s: eigensolvers.Solution, normalised: bool, dtype: torch.dtype) -> Eigen:
    """From the operator's largest pairs to the Laplacian's smallest, with the sign rule."""
    values, y = -s.theta, s.vectors
    if normalised:
        values, y = (1 + values).clamp(0, 2), y / s.degree.sqrt()[:, None]
    size = y.abs()
    first = (size >= (1 - 1e-6) * size.amax(-1, keepdim=True)).int().argmax(-1, keepdim=True)
    y = torch.where(y.gather(-1, first) < 0, -y, y)
    return Eigen(values.to(dtype), y.to(dtype), s.products, s.dense)


def _weights(W: Tensor | np.ndarray) -> Tensor:
    W = W.detach() if isinstance(W, Tensor) else torch.as_tensor(np.asarray(W))
    if W.ndim not in (2, 3) or W.shape[-1] != W.shape[-2]:
        raise SempartError(f"W has shape {tuple(W.shape)}: give B x N x N or N x N")
    if W.is_complex():
        raise SempartError("W is complex: give real weights")
    if W.dtype not in (torch.float32, torch.float64):
        W = W.float() if W.is_floating_point() else W.double()
    return W
