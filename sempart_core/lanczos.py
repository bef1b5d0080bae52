"""The largest eigenpairs of many symmetric operators at once, by Lanczos in lockstep.

Cutting a photograph needs one eigenvector of a dense N x N matrix, and the price is the reading of that
matrix. Lanczos reads it once a step and needs ten to twenty steps where the spectrum has a gap, while
a tridiagonalisation costs 4/3 N^3 operations. One loop serves numpy (CPU) and torch (CUDA): the two
share the few operations used here. See :mod:`sempart_core.spectral` for the graph side of the story.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

#: Length of the noise beside the hint of a start vector; TINY stands in where the hint is nothing.
NOISE, TINY = 0.3, 1e-30

Array = Any  # np.ndarray or torch.Tensor


@dataclass
class Pairs:
    """Eigenpairs of a batch, largest first.

    Parameters
    ----------
    values : array
        ``B x k`` Ritz values, descending.
    vectors : array
        ``B x k x N`` unit vectors, orthogonal to each other and to ``fixed``.
    converged : numpy array
        ``B`` bool; False where ``steps`` did not suffice.
    products : int
        Reads of the matrix, summed over the batch.
    """

    values: Array
    vectors: Array
    converged: np.ndarray
    products: int


def _column(q: Array, w: Array) -> Array:
    """``q w``: ``B x m x N`` times ``B x N`` is ``B x m``."""
    return (q @ w[..., None])[..., 0]


def _row(c: Array, q: Array) -> Array:
    """``c q``: ``B x m`` times ``B x m x N`` is ``B x N``."""
    return (c[:, None] @ q)[:, 0]


def largest(
    product: Callable[[Array, list[int]], Array],
    fixed: Array,
    start: Array,
    k: int,
    *,
    xp: ModuleType = np,
    tol: float = 1e-9,
    floor: float = 1e-13,
    loose: float = math.inf,
    steps: int = 300,
    shrink: bool = True,
) -> Pairs:
    """The ``k`` largest eigenpairs in the orthogonal complement of ``fixed``.

    Parameters
    ----------
    product : callable
        ``product(x, which) -> y``: applies the operators number ``which`` (indices into the batch) to the
        rows of ``x`` (``len(which) x N``).
    fixed : array
        ``B x f x N`` orthonormal rows, deflated: known eigenvectors.
    start : array
        ``B x N`` start vectors; made orthogonal to ``fixed`` here.
    k : int
        Wanted pairs, at most ``N - f``.
    xp : module
        ``numpy`` or ``torch``, matching the arrays.
    tol : float
        Bound on the angle between a Ritz vector and its eigenvector, estimated as residual / gap.
    floor : float
        A residual that counts as converged: the noise of one product.
    loose : float
        ... as long as residual / gap stays below this angle; by default whatever the gap.
    steps : int
        Most products a graph may cost.
    shrink : bool
        Leave finished graphs out of further products; False where picking graphs out would copy them.

    Notes
    -----
    Full orthogonalisation, twice (Daniel, Gragg, Kaufman and Stewart 1976): with ten to a hundred steps
    it costs less than a product and leaves no ghost copies. A Krylov space meets each eigenspace in
    one direction only: a multiple eigenvalue shows one copy, which matters for ``k > 1`` and is the
    caller's to check (:func:`sempart_core.spectral.fiedler` does, by a second run).
    """
    batch, f, n = fixed.shape
    steps = min(steps, n - f)
    values, vectors = _new(xp, (batch, k), fixed), _new(xp, (batch, k, n), fixed)
    converged = np.zeros(batch, dtype=bool)
    which, left, products = list(range(batch)), set(range(batch)), 0
    room = min(steps, 24)
    V = _new(xp, (batch, f + room + 1, n), fixed)
    T = _new(xp, (batch, room + 1, room + 1), fixed)
    V[:, :f] = fixed
    w = start - _row(_column(fixed, start), fixed)
    w = w - _row(_column(fixed, w), fixed)
    V[:, f] = w / xp.sqrt((w * w).sum(-1))[:, None]
    look, seen = k + 4, None  # when to look at the Ritz pairs next, and what was seen last
    for j in range(steps):
        if j == room:  # grow by doubling; most graphs never get here
            room = min(2 * room, steps)
            V, T = _grown(xp, V, (f + room + 1, n)), _grown(xp, T, (room + 1, room + 1))
        w = product(V[:, f + j], which)
        products += len(which)
        Q = V[:, : f + j + 1]
        h = _column(Q, w)
        w = w - _row(h, Q)
        T[:, j, j] = h[:, f + j]
        w = w - _row(_column(Q, w), Q)
        beta = xp.sqrt((w * w).sum(-1))
        exhausted = beta <= 0.01 * floor
        stuck = bool(exhausted.any())
        last = j + 1 == steps
        if j + 1 >= k and (last or stuck or j + 1 >= look):
            theta, S = xp.linalg.eigh(T[:, : j + 1, : j + 1])
            excess = _excess(xp, theta, beta[:, None] * abs(S[:, -1, :]), k, (tol, floor, loose)).tolist()
            worst = min(e for e, g in zip(excess, which, strict=True) if g in left)
            look, seen = _next_look(j + 1, worst, seen, n)
            for i, g in enumerate(which):
                if g in left and (last or excess[i] <= 1):
                    converged[g] = 0 <= excess[i] <= 1
                    best = _flip(xp, S[i, :, -k:].T)
                    values[g], vectors[g] = _flip(xp, theta[i, -k:]), best @ V[i, f : f + j + 1]
                    left.discard(g)
            if not left:
                break
            if shrink and len(left) < len(which):
                keep = [i for i, g in enumerate(which) if g in left]
                which = [which[i] for i in keep]
                V, T, w, beta, exhausted = V[keep], T[keep], w[keep], beta[keep], exhausted[keep]
        if last:
            break
        if stuck:  # an invariant subspace smaller than k: go on with a new direction
            for i in np.flatnonzero(np.asarray(exhausted.tolist())):
                Qi = V[i : i + 1, : f + j + 1]
                fresh = start[which[i]][None].copy() if xp is np else start[which[i]][None].clone()
                fresh = fresh * _like(xp, noise(n, 1 + j), fixed)
                for _ in range(3):
                    fresh = fresh - _row(_column(Qi, fresh), Qi)
                w[i] = fresh[0] / xp.sqrt((fresh * fresh).sum())
                V[i, f + j + 1] = w[i]
            coupled = xp.where(exhausted, xp.zeros_like(beta), beta)
            scale = xp.where(exhausted, xp.ones_like(beta), beta)
        else:
            coupled = scale = beta
        T[:, j, j + 1] = T[:, j + 1, j] = coupled
        V[:, f + j + 1] = w / scale[:, None]
    return Pairs(values, vectors, converged, products)


def largest_with_copies(
    product: Callable[[Array, list[int]], Array],
    trivial: Array,
    k: int,
    *,
    hint: Array | None = None,
    xp: ModuleType = np,
    floor: float = 1e-13,
    **options: Any,
) -> Pairs:
    """:func:`largest` beside ``trivial`` (``B x N``, unit), with every copy of a multiple eigenvalue.

    ``hint`` (``B x N``) is a guess at the answer, which saves two or three products if it is any good. Noise
    is added, so that no eigenvector can be orthogonal to it.
    For ``k > 1`` one more pair is sought in the complement of all that was found; while it beats the
    k-th, a copy was missed before. At most ``k`` copies can be missing.
    """
    batch, n = trivial.shape
    options |= {"xp": xp, "floor": floor}

    def start(seed: int) -> Array:
        return xp.stack([_like(xp, noise(n, seed), trivial)] * batch)

    first = start(0)
    if hint is not None:
        hint = hint - trivial * (hint * trivial).sum(-1)[:, None]
        first = first * (NOISE * xp.sqrt((hint * hint).sum(-1) / n) + TINY)[:, None] + hint
    pairs = largest(product, trivial[:, None], first, k, **options)
    for seed in range(1, k + 1 if k > 1 else 1):
        known = xp.concatenate([trivial[:, None], pairs.vectors], 1)
        if known.shape[1] >= n:
            break
        more = largest(product, known, start(seed), 1, **options)
        values = xp.concatenate([pairs.values, more.values], 1)
        vectors = xp.concatenate([pairs.vectors, more.vectors], 1)
        # A copy was missed where fewer than k of the known values reach the new one.
        missed = bool(((pairs.values >= more.values - 10 * floor).sum(1) < k).any())
        pairs = Pairs(values, vectors, pairs.converged & more.converged, pairs.products + more.products)
        if not missed:
            break
    order = xp.argsort(-pairs.values, 1)[:, :k]
    rows = [[i] for i in range(batch)]
    return Pairs(pairs.values[rows, order], pairs.vectors[rows, order], pairs.converged, pairs.products)


def _excess(
    xp: ModuleType, theta: Array, residual: Array, k: int, bounds: tuple[float, float, float]
) -> Array:
    """How often the worst of the top ``k`` residuals exceeds its allowance: ``B``.

    The allowance is ``tol * gap``, or ``floor`` where ``floor / gap`` is no angle above ``loose``. A graph
    whose residuals have sunk into the noise while the angle stays too wide has no hope: -1.
    """
    tol, floor, loose = bounds
    noise = floor / 4 if loose < math.inf else 0.0  # computed residuals of noisy products flatter
    gap = theta[:, 1:] - theta[:, :-1]  # to the neighbour below
    m = theta.shape[1]
    worst = sunk = None
    for i in range(m - k, m):
        near = gap[:, i - 1] if i else gap[:, 0] if m > 1 else 0 * theta[:, 0]
        if i and i + 1 < m:
            near = xp.minimum(near, gap[:, i])
        allowed = (tol * near).clip(floor)
        if noise:
            allowed = xp.minimum(allowed, loose * near + 1e-30)
        ratio = (residual[:, i] + noise) / allowed
        worst = ratio if worst is None else xp.maximum(worst, ratio)
        low = residual[:, i] <= noise
        sunk = low if sunk is None else sunk & low
    return xp.where(sunk & (worst > 1), -xp.ones_like(worst), worst) if noise else worst


def _next_look(
    j: int, excess: float, seen: tuple[int, float] | None, n: int
) -> tuple[int, tuple[int, float]]:
    """When to diagonalise T again. Beside a product of a large graph it costs nothing: at every step.

    For a small graph it costs as much as a product. Residuals fall geometrically, so two looks foretell
    the third; never more than eight steps ahead.
    """
    decades = math.log10(max(excess, 1e-30))
    if n > 1024:
        return j + 1, (j, decades)
    rate = 1.0
    if seen is not None and j > seen[0]:
        rate = max((seen[1] - decades) / (j - seen[0]), 0.1)
    return j + min(max(math.ceil(0.8 * decades / rate), 1), 8), (j, decades)


def _new(xp: ModuleType, shape: tuple[int, ...], like: Array) -> Array:
    return np.zeros(shape) if xp is np else xp.zeros(shape, dtype=like.dtype, device=like.device)


def _grown(xp: ModuleType, old: Array, shape: tuple[int, int]) -> Array:
    out = _new(xp, (len(old), *shape), old)
    out[:, : old.shape[1], : old.shape[2]] = old
    return out


def _like(xp: ModuleType, x: np.ndarray, like: Array) -> Array:
    return x if xp is np else xp.as_tensor(x, dtype=like.dtype, device=like.device)


def _flip(xp: ModuleType, x: Array) -> Array:
    return x[::-1] if xp is np else x.flip(0)


def noise(n: int, seed: int) -> np.ndarray:
    """``N`` fixed pseudo-random numbers; no global generator is touched."""
    return np.random.default_rng(seed).standard_normal(n)
