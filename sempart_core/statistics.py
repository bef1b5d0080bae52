"""Uncertainty over images: of a mean, also in bins, of a difference on the same images, of a rank correlation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .errors import SempartError


def bootstrap_ci(
    values: ArrayLike, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval over images.

    Parameters
    ----------
    values : ``m`` or ``m x T`` float
        One value per image: interval of the mean. One curve per image: interval of the maximum over T
        of the mean curve (max F-beta with a common threshold, chosen anew in each resample).
    n : int
        Resamples.
    seed : int
        The same seed gives the same interval.
    level : float in (0, 1)

    Returns
    -------
    (low, high)

    Raises
    ------
    SempartError
        No images, values that are not finite, or a level outside (0, 1).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in (1, 2) or not len(values) or not np.isfinite(values).all():
        raise SempartError("bootstrap needs at least one image and finite values, shaped m or m x T")
    if not 0 < level < 1:
        raise SempartError(f"level {level} must lie between 0 and 1, e.g. 0.95")
    m = len(values)
    # How often each image is drawn in each resample: one matrix product replaces n loops.
    draws = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=n)
    means = draws @ values / m
    low, high = np.quantile(means if values.ndim == 1 else means.max(1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class Paired(NamedTuple):
    """Differences ``a - b`` over ``n`` images: mean, median, and p-value of "symmetric about 0"."""

    mean: float
    median: float
    p: float
    n: int


def paired_wilcoxon(a: ArrayLike, b: ArrayLike) -> Paired:
    """Two-sided Wilcoxon signed-rank test of two methods on the same images.

    The p-value speaks of the images alone: with one training a method it says that two *networks* differ,
    not that two recipes do. Images without a difference are dropped (Wilcoxon's own rule); if none is left,
    p is 1.

    Parameters
    ----------
    a, b : ``m`` float
        One value per image, in the same order.

    Raises
    ------
    SempartError
        No images, lengths that differ, or values that are not finite.
    """
    from scipy.stats import wilcoxon  # a second to import, and only tables of differences need it

    a, b = (np.asarray(v, dtype=np.float64) for v in (a, b))
    if a.ndim != 1 or a.shape != b.shape or not len(a) or not np.isfinite([a, b]).all():
        raise SempartError(
            f"values of shapes {a.shape} and {b.shape}: a paired test needs finite values of the same images"
        )
    d = a - b
    p = float(wilcoxon(d).pvalue) if d.any() else 1.0
    return Paired(float(d.mean()), float(np.median(d)), p, len(d))


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's step-down correction of ``m`` p-values for having made ``m`` tests (Holm 1979).

    Returns
    -------
    ndarray
        Corrected p-values in the order given, at most 1: a test is significant if its own is below the level.

    Raises
    ------
    SempartError
        Not a list of numbers in [0, 1].
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise SempartError("p-values are a list of numbers in [0, 1]")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty_like(p)
    out[order] = np.minimum(stepped, 1)
    return out


class Binned(NamedTuple):
    """Means in bins: arrays with one entry a bin, NaN in empty ones.

    ``x``: mean position. ``mean``, ``low``, ``high``: mean and its interval. ``n``: how many images.
    """

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray


def binned_means(
    x: ArrayLike, y: ArrayLike, edges: ArrayLike, *, seed: int = 0, level: float = 0.95
) -> Binned:
    """Means of ``y`` over the images whose ``x`` lies in a bin, with bootstrap intervals within each bin.

    An interval of fewer than ten images is too narrow: it knows no other images than these.

    Parameters
    ----------
    x, y : ``m`` float
        Position and value of each image.
    edges : ``k + 1`` float
        Ascending; a bin holds its lower edge, the last one both.
    seed, level
        As in :func:`bootstrap_ci`. In an empty bin nothing is drawn; a bin with one image has no width.

    Raises
    ------
    SempartError
        No images, lengths that differ, values that are not finite, edges that do not ascend, or an ``x``
        outside of them.

    Notes
    -----
    Two Tricks, figures 6 to 8: IoU by the size of the true mask in 20 bins, there without intervals.
    """
    x, y = _pairs(x, y)
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise SempartError("the edges of bins are two or more ascending numbers")
    if x.min() < edges[0] or x.max() > edges[-1]:
        raise SempartError(
            f"x reaches from {x.min():g} to {x.max():g}, beyond the edges {edges[0]:g} to {edges[-1]:g}"
        )
    place = np.minimum(np.searchsorted(edges, x, side="right") - 1, len(edges) - 2)
    out = np.full((4, len(edges) - 1), np.nan)
    for b in np.unique(place):
        inside = y[place == b]
        out[:, b] = x[place == b].mean(), inside.mean(), *bootstrap_ci(inside, seed=seed, level=level)
    return Binned(*out, np.bincount(place, minlength=len(edges) - 1))


class RankCorrelation(NamedTuple):
    """Spearman's rho over ``n`` images and its percentile bootstrap interval."""

    rho: float
    low: float
    high: float
    n: int


def rank_correlation(
    x: ArrayLike, y: ArrayLike, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> RankCorrelation:
    """Spearman's rank correlation; 0 where one of both does not vary, also in a resample.

    Parameters
    ----------
    x, y : ``m`` float
        Two values of each image.
    n, seed, level
        As in :func:`bootstrap_ci`.

    Raises
    ------
    SempartError
        No images, lengths that differ, or values that are not finite.
    """
    from scipy.stats import rankdata

    x, y = _pairs(x, y)
    m = len(x)
    drawn = np.random.default_rng(seed).integers(m, size=(n, m))
    drawn[0] = np.arange(m)  # the images themselves; one resample fewer
    a, b = (rankdata(v[drawn], axis=1) - (m + 1) / 2 for v in (x, y))
    size = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    rho = np.divide((a * b).sum(1), size, out=np.zeros(n), where=size > 0)
    low, high = np.quantile(rho[1:], [(1 - level) / 2, (1 + level) / 2])
    return RankCorrelation(float(rho[0]), float(low), float(high), m)


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two values of each image as arrays."""
    x, y = (np.asarray(v, dtype=np.float64) for v in (x, y))
    if x.ndim != 1 or x.shape != y.shape or not len(x) or not np.isfinite([x, y]).all():
        raise SempartError(f"x {x.shape} and y {y.shape}: give two finite values of each image")
    return x, y
