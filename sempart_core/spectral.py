"""Fiedler vectors: the smallest non-trivial eigenpairs of ``(D - W) y = lambda D y``.

The eigenvalues are those of the normalised adjacency ``M = D^-1/2 W D^-1/2`` seen from the other end:
``lambda = 1 - theta`` with ``y = D^-1/2 v``. The trivial pair (``theta = 1``, ``v ~ D^1/2 1``) is known
and deflated, so the wanted ones are the *largest* of what remains, where Lanczos is quick.
Protocols 1.1 states the equivalence with TokenCut's dense ``scipy.linalg.eigh(D - W, D)``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import torch
from scipy import linalg
from torch import Tensor
from torch.nn import functional as F

from . import affinity, lanczos
from .errors import SempartError

#: Below this many nodes a dense factorisation is as quick as the iteration (tests/benchmarks).
DENSE_BELOW = 48
#: Below this many nodes a single graph is solved on one core: threads cost more than they bring.
THREADS_FROM = 1024
#: Graphs a worker thread takes through Lanczos in lockstep: their triangles share the last-level cache.
LOCKSTEP = 4
#: Most products before a graph is handed to the dense solver.
MAX_PRODUCTS = 300


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
        Bound on the angle to the exact eigenvector, estimated as residual / gap; default 1e-9, or 1e-6
        for float32. A residual at the noise of one product always counts as converged.
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
    if laplacian not in ("normalized", "unnormalized"):
        raise SempartError(f"unknown laplacian {laplacian!r}; choose one of: normalized, unnormalized")
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
    if not 1 <= k <= n - 1:
        raise SempartError(
            f"k={k}: a graph of {n} nodes has {n - 1} non-trivial eigenvectors; ask for 1 to N-1"
        )
    if tol is None:
        tol = 1e-9 if source.dtype == torch.float64 else 1e-6
    if solver == "auto" and (n <= DENSE_BELOW or not normalised):
        solver = "dense"
    if implicit is not None and (solver == "dense" or not normalised):
        source, implicit = implicit_to_dense(source), None
    args = (k, solver, tol, normalised, check)
    if implicit is not None:
        out = _solve_features(source, *args)
    elif source.device.type == "cpu":
        out = _solve_cpu(source, *args)
    else:
        out = _solve_torch(source, *args)
    if single:
        out = Eigen(out.values[0], out.vectors[0], out.products, out.dense)
    return out


def implicit_to_dense(f: Tensor) -> Tensor:
    """``B x N x D`` unit rows to their ``B x N x N`` cosines, exactly symmetric."""
    return f @ f.mT


def _weights(W: Tensor | np.ndarray) -> Tensor:
    W = W.detach() if isinstance(W, Tensor) else torch.as_tensor(np.asarray(W))
    if W.ndim not in (2, 3) or W.shape[-1] != W.shape[-2]:
        raise SempartError(f"W has shape {tuple(W.shape)}: give B x N x N or N x N")
    if W.is_complex():
        raise SempartError("W is complex: give real weights")
    if W.dtype not in (torch.float32, torch.float64):
        W = W.float() if W.is_floating_point() else W.double()
    return W


def _start(n: int, seed: int = 0) -> np.ndarray:
    return lanczos._noise(n, seed)


def _asymmetry(double: bool) -> float:
    """Share of the largest degree below which a difference between W and W' counts as rounding."""
    return 1e-5 if double else 1e-4


def _refuse(what: str, graph: int) -> SempartError:
    remedy = {
        "NaN": "W holds NaN or infinity{}: check the features and their precision",
        "empty": "a node of W has no edges{}: keep self-loops, raise eps, lower tau or leave the node out",
        "negative": "W holds negative weights{}: clip them, as cosine_affinity does",
        "asymmetric": "W is not symmetric{}: pass (W + W') / 2",
    }[what]
    return SempartError(remedy.format(f" (graph {graph} of the batch)" if graph else ""))


# ---------------------------------------------------------------------------------------------- CPU


@cache
def _blas_threads():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _one_blas_thread(wanted: bool) -> contextlib.AbstractContextManager:
    return _blas_threads().limit(limits=1, user_api="blas") if wanted else contextlib.nullcontext()


def _solve_cpu(W: Tensor, k: int, solver: str, tol: float, normalised: bool, check: bool) -> Eigen:
    batch, n, _ = W.shape
    A = W.numpy()
    if not A[0].flags.c_contiguous:
        A = np.ascontiguousarray(A)
    values, vectors = np.empty((batch, k)), np.empty((batch, k, n))
    dense: list[int] = []
    # A few graphs at a time in every worker: enough to share Python's overhead, few enough for the cache.
    workers = min(batch, torch.get_num_threads())
    size = min(LOCKSTEP, -(-batch // workers)) if n >= 256 else -(-batch // workers)
    chunks = [list(range(i, min(i + size, batch))) for i in range(0, batch, size)]

    def work(chunk: list[int]) -> int:
        symv = [lanczos.Symmetric(A[g]) for g in chunk]
        d = np.stack([_degree(A[g], m, g, check) for g, m in zip(chunk, symv, strict=True)])
        todo, products = list(range(len(chunk))), 0
        if solver != "dense":
            pairs = _iterate(symv, d, k, tol, normalised, W.dtype)
            products = pairs.products
            values[chunk] = pairs.values
            vectors[chunk] = pairs.vectors
            todo = np.flatnonzero(~pairs.converged).tolist()
        for i in todo:
            dense.append(chunk[i])
            values[chunk[i]], vectors[chunk[i]] = _dense_cpu(A[chunk[i]], d[i], k, normalised)
        if normalised:
            vectors[chunk] /= np.sqrt(d)[:, None]
        return products

    with _one_blas_thread(workers > 1 or (n < THREADS_FROM and solver != "dense")):
        if workers > 1:
            with ThreadPoolExecutor(workers) as pool:
                products = sum(pool.map(work, chunks))
        else:
            products = sum(map(work, chunks))
    values = (1 - values) if normalised else -values
    if normalised:
        values = values.clip(0, 2)
    vectors *= _sign(vectors)[..., None]
    return Eigen(
        torch.from_numpy(values).to(W.dtype),
        torch.from_numpy(vectors).to(W.dtype),
        products,
        tuple(sorted(dense)),
    )


def _degree(A: np.ndarray, symv: Callable, graph: int, check: bool) -> np.ndarray:
    """Row sums in float64 of one graph, and its defects."""
    ones = np.ones(len(A), dtype=A.dtype)
    d = A @ ones
    if not np.isfinite(d).all():
        raise _refuse("NaN", graph)
    if check:
        # Negative first: with cancelling signs the other two messages would mislead.
        if A.min() < 0:
            raise _refuse("negative", graph)
        # Row sums of A against those of its mirrored upper triangle, beyond the rounding of a Gram matrix.
        if abs(d - symv(ones)).max() > _asymmetry(A.dtype == np.float64) * d.max():
            raise _refuse("asymmetric", graph)
    if d.min() <= 0:
        raise _refuse("empty", graph)
    return d.astype(np.float64, copy=False)


def _iterate(
    symv: list[Callable], d: np.ndarray, k: int, tol: float, normalised: bool, dtype: torch.dtype
) -> lanczos.Pairs:
    batch, n = d.shape
    if normalised:
        s = 1 / np.sqrt(d)
        trivial = np.sqrt(d / d.sum(-1, keepdims=True))
        scale = 1.0

        def product(x: np.ndarray, which: list[int]) -> np.ndarray:
            t = s if len(which) == batch else s[which]
            return t * lanczos.each(symv, which, t * x)

    else:
        trivial = np.full((batch, n), n**-0.5)
        scale = float(d.max())

        def product(x: np.ndarray, which: list[int]) -> np.ndarray:
            return lanczos.each(symv, which, x) - d[which] * x

    floor = scale * (1e-13 if dtype == torch.float64 else 1e-6)
    return _top(product, trivial, k, tol=tol, floor=floor, xp=np)


def _top(product: Callable, trivial, k: int, *, tol: float, floor: float, xp) -> lanczos.Pairs:
    """Lanczos, and for ``k > 1`` as many further runs as it takes to meet every copy of a multiple value."""
    batch, n = trivial.shape
    like = trivial

    def start(seed: int):
        return xp.stack([lanczos._like(xp, _start(n, seed), like)] * batch)

    options = {"xp": xp, "tol": tol, "floor": floor, "steps": MAX_PRODUCTS}
    pairs = lanczos.largest(product, trivial[:, None], start(0), k, **options)
    if k == 1 or n - 1 == k:
        return pairs
    products, found, values = pairs.products, pairs.vectors, pairs.values
    converged = pairs.converged
    for seed in range(1, k + 1):
        # One more pair in the complement of all found: a larger value than the k-th was missed before.
        known = xp.concatenate([trivial[:, None], found], 1)
        if known.shape[1] >= n:
            break
        more = lanczos.largest(product, known, start(seed), 1, **options)
        products += more.products
        converged = converged & more.converged
        kth = _kth(xp, values, k)
        missed = more.values[:, 0] > kth + 10 * floor
        values = xp.concatenate([values, more.values], 1)
        found = xp.concatenate([found, more.vectors], 1)
        if not bool(missed.any()):
            break
    order = xp.argsort(-values, 1)[:, :k]
    rows = xp.arange(batch)[:, None] if xp is np else xp.arange(batch, device=like.device)[:, None]
    return lanczos.Pairs(values[rows, order], found[rows, order], converged, products)


def _kth(xp, values, k: int):
    ordered = -xp.sort(-values, 1) if xp is np else -xp.sort(-values, 1).values
    return ordered[:, k - 1]


def _dense_cpu(A: np.ndarray, d: np.ndarray, k: int, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
    """Exact pairs by LAPACK in float64, in the convention of Lanczos: largest first, unit vectors."""
    n = len(A)
    M, far = _dense_operator(np, A.astype(np.float64), d, normalised)
    theta, v = linalg.eigh(M, subset_by_index=[n - k, n - 1], overwrite_a=True, check_finite=False)
    return theta[::-1], v[:, ::-1].T


def _dense_operator(xp, A, d, normalised: bool):
    """Normalised adjacency (or ``W - D``) with the trivial pair moved to the far end of the spectrum."""
    if normalised:
        s = 1 / xp.sqrt(d)
        M = A * s[..., :, None] * s[..., None, :]
        u, far = xp.sqrt(d / d.sum(-1)[..., None]), 3.0
        return M - far * u[..., :, None] * u[..., None, :], far
    n = A.shape[-1]
    i = list(range(n))
    M = A + 0.0
    M[..., i, i] = M[..., i, i] - d
    far = 3 * d.max()
    return M - far / n, far


def _sign(vectors: np.ndarray) -> np.ndarray:
    """+1 or -1 a vector, so that the first entry within 1e-6 of the largest magnitude becomes positive."""
    size = abs(vectors)
    first = (size >= (1 - 1e-6) * size.max(-1, keepdims=True)).argmax(-1)
    entry = np.take_along_axis(vectors, first[..., None], -1)[..., 0]
    return np.where(entry < 0, -1.0, 1.0)


# ------------------------------------------------------------------------------- CUDA and implicit W


def _finish(pairs_values: Tensor, v: Tensor, d: Tensor, normalised: bool) -> tuple[Tensor, Tensor]:
    if normalised:
        v = v / d.sqrt()[:, None]
        values = (1 - pairs_values).clamp(0, 2)
    else:
        values = -pairs_values
    size = v.abs()
    first = (size >= (1 - 1e-6) * size.amax(-1, keepdim=True)).int().argmax(-1, keepdim=True)
    entry = v.gather(-1, first)
    return values, torch.where(entry < 0, -v, v)


def _solve_torch(W: Tensor, k: int, solver: str, tol: float, normalised: bool, check: bool) -> Eigen:
    """A batch on an accelerator: one batched product a step for all graphs that still run."""
    d = W.sum(-1)
    tests = {"NaN": ~torch.isfinite(d).all(-1), "empty": (d <= 0).any(-1)}
    if check:
        far = (W.sum(-2) - d).abs().amax(-1) > _asymmetry(W.dtype == torch.float64) * d.amax(-1)
        tests = {"NaN": tests["NaN"], "negative": (W < 0).flatten(1).any(1), "asymmetric": far, **tests}
    for what, bad in tests.items():
        if bool(bad.any()):
            raise _refuse(what, int(bad.int().argmax()))
    products, values, vectors = 0, None, None
    todo = torch.arange(len(W))
    if solver != "dense":
        s = d.rsqrt()
        scale = 1.0 if normalised else float(d.max())

        def product(x: Tensor, which: list[int]) -> Tensor:
            A = W if len(which) == len(W) else W[which]
            if not normalised:
                return (A @ x[..., None])[..., 0] - d[which] * x
            return s[which] * (A @ (s[which] * x)[..., None])[..., 0]

        trivial = (d if normalised else torch.ones_like(d)).sqrt()
        trivial = trivial / trivial.norm(dim=-1, keepdim=True)
        floor = scale * (1e-13 if W.dtype == torch.float64 else 2e-6)
        pairs = _top(product, trivial, k, tol=tol, floor=floor, xp=torch)
        products, values, vectors = pairs.products, pairs.values, pairs.vectors
        todo = torch.from_numpy(np.flatnonzero(~pairs.converged))
    else:
        values, vectors = W.new_empty(len(W), k), W.new_empty(len(W), k, W.shape[-1])
    if len(todo):
        M, _ = _dense_operator(torch, W[todo].double(), d[todo].double(), normalised)
        theta, v = torch.linalg.eigh(M)
        values[todo] = theta[:, -k:].flip(1).to(values.dtype)
        vectors[todo] = v[:, :, -k:].flip(2).mT.to(vectors.dtype)
    values, vectors = _finish(values, vectors, d, normalised)
    return Eigen(values.to(W.dtype), vectors.to(W.dtype), products, tuple(todo.tolist()))


def _solve_features(f: Tensor, k: int, solver: str, tol: float, normalised: bool, check: bool) -> Eigen:
    """``W = F F'`` that is never formed: a product costs ``2 N D`` instead of ``N^2``."""
    g = f.double()
    d = (g @ g.sum(1)[..., None])[..., 0]
    if bool((d <= 0).any()):
        raise SempartError(
            "with tau=None the plain cosine graph of features has a node of degree <= 0: "
            "give tau, or W from cosine_affinity, which clips at 0"
        )
    s = d.rsqrt()
    trivial = d.sqrt() / d.sqrt().norm(dim=-1, keepdim=True)
    gs = g * s[..., None]

    def product(x: Tensor, which: list[int]) -> Tensor:
        A = gs if len(which) == len(gs) else gs[which]
        return (A @ (A.mT @ x[..., None]))[..., 0]

    pairs = _top(product, trivial, k, tol=min(tol, 1e-9), floor=1e-13, xp=torch)
    if pairs.converged.all():
        values, vectors = _finish(pairs.values, pairs.vectors, d, True)
        return Eigen(values.to(f.dtype), vectors.to(f.dtype), pairs.products)
    return fiedler(implicit_to_dense(f), k=k, solver="dense", tol=tol, check=False)
