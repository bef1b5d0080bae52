"""Uncertainty of a mean over images."""

from __future__ import annotations

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
