"""Uncertainty of a mean over images, and of a difference between two methods on the same images."""

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
