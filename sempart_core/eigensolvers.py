"""How :func:`sempart_core.spectral.fiedler` solves: on the CPU, on an accelerator, and with W never formed.

All solvers speak of the operator whose *largest* pairs are wanted, ``M = D^-1/2 W D^-1/2`` (or ``W - D``
for the un-normalised Laplacian), with unit eigenvectors and the known trivial one deflated.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from scipy import linalg
from torch import Tensor

from . import lanczos, symmetric
from .errors import SempartError

#: Fewer threads than this are not worth their quarrel over Python's lock and the one way to memory.
THREADS_FROM = 4
#: Bytes of matrices that a worker thread takes through Lanczos in lockstep: small graphs share Python's
#: overhead, large ones stay in the cache one by one.
LOCKSTEP = 8 << 20
#: Bytes of rows that are summed and searched for negative weights at a time.
IN_CACHE = 1 << 19
#: Up to this many nodes a float32 graph is multiplied in float64: the copy costs less than the doubt.
DOUBLE_BELOW = 2048
#: Largest angle at which the noise of float32 products may end the iteration; else float64 takes over.
LOOSE = 1e-3
#: An eigenvalue below this, found in float32, is looked at again in float64.
BLUR = 1e-4
#: Most products before a graph is handed to the dense solver.
MAX_PRODUCTS = 300


@dataclass(frozen=True)
class Problem:
    """What is asked: ``k`` pairs, by which ``solver`` ("dense" or not), to which angle ``tol``."""

    k: int
    solver: str
    tol: float
    normalised: bool = True
    check: bool = True


@dataclass(frozen=True)
class Solution:
    """``theta`` ``B x k`` descending, unit ``vectors`` ``B x k x N``, ``degree`` ``B x N``, and the cost."""

    theta: Tensor
    vectors: Tensor
    degree: Tensor
    products: int
    dense: tuple[int, ...]


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


@cache
def _blas_threads():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


_limited = {"users": 0, "context": None}
_limit_lock = threading.Lock()


@contextlib.contextmanager
def _one_blas_thread(wanted: bool) -> Iterator[None]:
    """The limit holds for the whole process: the first of several users sets it, the last one lifts it."""
    if not wanted:
        yield
        return
    with _limit_lock:
        if not _limited["users"]:
            _limited["context"] = _blas_threads().limit(limits=1, user_api="blas")
        _limited["users"] += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limited["users"] -= 1
            if not _limited["users"]:
                _limited["context"].restore_original_limits()


def solve_cpu(W: Tensor, problem: Problem) -> Solution:
    """``B x N x N`` float32 or float64 on the CPU: a few graphs at a time in every worker thread.

    BLAS itself keeps to one thread: products are bound by memory, and threads that wait for each other
    lose more on a busy machine than they win on a quiet one.
    """
    batch, n, _ = W.shape
    A = W.numpy()
    if not A[0].flags.c_contiguous:
        A = np.ascontiguousarray(A)
    theta, vectors, degree = (
        np.empty((batch, problem.k)),
        np.empty((batch, problem.k, n)),
        np.empty((batch, n)),
    )
    dense: list[int] = []
    threads = torch.get_num_threads()
    workers = min(batch, threads) if threads >= THREADS_FROM else 1
    size = min(max(1, LOCKSTEP // A[0].nbytes), -(-batch // workers))
    chunks = [list(range(i, min(i + size, batch))) for i in range(0, batch, size)]

    def attempt(chunk: list[int], graphs: list[np.ndarray], check: bool) -> tuple[int, list[int]]:
        symv = [symmetric.Symmetric(G) for G in graphs]
        for g, G, product in zip(chunk, graphs, symv, strict=True):
            degree[g] = _degree(G, product, g, check)
        if problem.solver == "dense":
            return 0, chunk
        pairs = _iterate(symv, degree[chunk], problem)
        theta[chunk], vectors[chunk] = pairs.values, pairs.vectors
        done = pairs.converged & _visible(pairs.values, problem, graphs[0].dtype == np.float64)
        return pairs.products, [g for g, d in zip(chunk, done, strict=True) if not d]

    def work(chunk: list[int]) -> int:
        graphs = [A[g] for g in chunk]
        if A.dtype == np.float32 and n <= DOUBLE_BELOW:
            graphs = [G.astype(np.float64) for G in graphs]
        products, todo = attempt(chunk, graphs, problem.check)
        for g in todo:
            G, left = A[g].astype(np.float64, copy=False), [g]
            if graphs[0].dtype == np.float32:
                more, left = attempt([g], [G], False)
                products += more
            if left:
                theta[g], vectors[g] = _dense_cpu(G, degree[g], problem)
                dense.append(g)
        return products

    with _one_blas_thread(workers > 1 or problem.solver != "dense"):
        if workers > 1:
            with ThreadPoolExecutor(workers) as pool:
                products = sum(pool.map(work, chunks))
        else:
            products = sum(map(work, chunks))
    tensors = (torch.from_numpy(x) for x in (theta, vectors, degree))
    return Solution(*tensors, products, tuple(sorted(dense)))


def _degree(A: np.ndarray, symv: Callable, graph: int, check: bool) -> np.ndarray:
    """Row sums in float64 of one graph, and its defects."""
    n, ones, low = len(A), np.ones(len(A), dtype=A.dtype), np.inf
    d = np.empty_like(ones)
    rows = max(1, IN_CACHE // A[0].nbytes)
    for i in range(0, n, rows):  # a second look at rows that are in the cache costs nothing
        np.matmul(A[i : i + rows], ones, out=d[i : i + rows])
        if check:
            low = min(low, A[i : i + rows, i:].min())  # the other triangle is compared below
    if not np.isfinite(d).all():
        raise _refuse("NaN", graph)
    if check:
        # Negative first: with cancelling signs the other two messages would mislead.
        if low < 0:
            raise _refuse("negative", graph)
        # Row sums of A against those of its mirrored upper triangle, beyond the rounding of a Gram matrix.
        if abs(d - symv(ones)).max() > _asymmetry(A.dtype == np.float64) * d.max():
            raise _refuse("asymmetric", graph)
    if d.min() <= 0:
        raise _refuse("empty", graph)
    return d.astype(np.float64, copy=False)


def _iterate(symv: list[symmetric.Symmetric], d: np.ndarray, problem: Problem) -> lanczos.Pairs:
    batch, n = d.shape
    if problem.normalised:
        s = 1 / np.sqrt(d)
        trivial = np.sqrt(d / d.sum(-1, keepdims=True))
        scale = 1.0

        # The least connected node is LOST's seed: what it is joined to looks much like one side of the cut.
        hint = s * np.stack([op.A[i] for op, i in zip(symv, d.argmin(-1), strict=True)])

        def product(x: np.ndarray, which: list[int]) -> np.ndarray:
            t = s if len(which) == batch else s[which]
            return t * symmetric.each(symv, which, t * x)

    else:
        trivial = np.full((batch, n), n**-0.5)
        scale, hint = float(d.max()), None

        def product(x: np.ndarray, which: list[int]) -> np.ndarray:
            return symmetric.each(symv, which, x) - d[which] * x

    return lanczos.largest_with_copies(
        product, trivial, problem.k, hint=hint, **_accuracy(problem, scale, symv[0].dtype == np.float64)
    )


def _visible(theta: np.ndarray | Tensor, problem: Problem, double: bool) -> np.ndarray:
    """``B`` bool, False for nearly separate parts: float32 takes their several tiny eigenvalues for one."""
    if double or not problem.normalised:
        return np.ones(len(theta), dtype=bool)
    return np.array([1 - x >= BLUR for x in theta[:, 0].tolist()])


def _accuracy(problem: Problem, scale: float, double: bool) -> dict:
    """When to stop, for an operator of norm ``scale``."""
    noise = {"floor": 1e-13 * scale} if double else {"floor": 2e-6 * scale, "loose": LOOSE}
    return {"tol": problem.tol, "steps": MAX_PRODUCTS} | noise


def _dense_cpu(A: np.ndarray, d: np.ndarray, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Exact pairs by LAPACK in float64."""
    n, k = len(A), problem.k
    M = _without_trivial(A.astype(np.float64), d, problem.normalised)
    theta, v = linalg.eigh(M, subset_by_index=[n - k, n - 1], check_finite=False)
    if len(theta) < k:  # LAPACK's subset drivers return nothing where very many eigenvalues are equal
        theta, v = (x[..., -k:] for x in np.linalg.eigh(M))
    return theta[::-1], v[:, ::-1].T


def _without_trivial(A, d, normalised: bool):
    """The operator of one graph with its trivial pair moved to the far end of the spectrum."""
    if normalised:
        s, u = d**-0.5, (d / d.sum()) ** 0.5
        return A * s[:, None] * s - 3 * u[:, None] * u
    M = A - 3 * d.max() / len(d)
    i = range(len(d))
    M[i, i] -= d
    return M


def solve_torch(W: Tensor, problem: Problem) -> Solution:
    """A batch on an accelerator: one batched product a step for all graphs."""
    d = W.sum(-1)
    tests = {"NaN": ~torch.isfinite(d).all(-1)}
    if problem.check:
        far = (W.sum(-2) - d).abs().amax(-1) > _asymmetry(W.dtype == torch.float64) * d.amax(-1)
        tests |= {"negative": (W < 0).flatten(1).any(1), "asymmetric": far}
    for what, bad in (tests | {"empty": (d <= 0).any(-1)}).items():
        if bool(bad.any()):
            raise _refuse(what, int(bad.int().argmax()))
    if problem.solver == "dense":
        theta, vectors = W.new_empty(len(W), problem.k), W.new_empty(len(W), problem.k, W.shape[-1])
        products, todo = 0, list(range(len(W)))
    else:
        s = d.rsqrt()

        def product(x: Tensor, which: list[int]) -> Tensor:
            if problem.normalised:
                return s * (W @ (s * x)[..., None])[..., 0]
            return (W @ x[..., None])[..., 0] - d * x

        trivial = (d if problem.normalised else torch.ones_like(d)).sqrt()
        scale = 1.0 if problem.normalised else float(d.max())
        pairs = lanczos.largest_with_copies(
            product,
            trivial / trivial.norm(dim=-1, keepdim=True),
            problem.k,
            hint=s * W[range(len(W)), d.argmin(-1)] if problem.normalised else None,
            shrink=False,
            xp=torch,
            **_accuracy(problem, scale, W.dtype == torch.float64),
        )
        theta, vectors, products = pairs.values, pairs.vectors, pairs.products
        done = pairs.converged & _visible(theta, problem, W.dtype == torch.float64)
        todo = np.flatnonzero(~done).tolist()
    if todo and W.dtype == torch.float32:
        again = solve_torch(W[todo].double(), replace(problem, check=False))
        theta[todo], vectors[todo] = again.theta.float(), again.vectors.float()
        return Solution(theta, vectors, d, products + again.products, tuple(todo[i] for i in again.dense))
    for g in todo:
        values, v = torch.linalg.eigh(_without_trivial(W[g].double(), d[g].double(), problem.normalised))
        theta[g] = values[-problem.k :].flip(0).to(theta.dtype)
        vectors[g] = v[:, -problem.k :].flip(1).T.to(vectors.dtype)
    return Solution(theta, vectors, d, products, tuple(todo))


def solve_implicit(f: Tensor, problem: Problem) -> Solution:
    """``W = F F'`` that is never formed (``f``: ``B x N x D``): a product costs ``4 N D`` operations."""
    g = f.double()
    d = (g @ g.sum(1)[..., None])[..., 0]
    if bool((d <= 0).any()):
        raise SempartError(
            "with tau=None the plain cosine graph of features has a node of degree <= 0: "
            "give tau, or W from cosine_affinity, which clips at 0"
        )
    g = g * d.rsqrt()[..., None]

    def product(x: Tensor, which: list[int]) -> Tensor:
        return (g @ (g.mT @ x[..., None]))[..., 0]

    pairs = lanczos.largest_with_copies(
        product,
        d.sqrt() / d.sqrt().norm(dim=-1, keepdim=True),
        problem.k,
        tol=min(problem.tol, 1e-9),
        steps=MAX_PRODUCTS,
        shrink=False,
        xp=torch,
    )
    if pairs.converged.all():
        return Solution(pairs.values, pairs.vectors, d, pairs.products, ())
    dense = replace(problem, solver="dense", check=False)
    return (solve_cpu if f.device.type == "cpu" else solve_torch)(f.double() @ f.double().mT, dense)
