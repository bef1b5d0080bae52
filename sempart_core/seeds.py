"""One setting trained with several seeds: means, deviations, and differences to another setting.

Two sources of chance are kept apart. The images: a paired test over them says whether these *networks*
differ. The seeds: an interval over them says whether another training would differ the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .errors import SempartError
from .evaluation import Evaluation
from .records import Record
from .statistics import Paired, bootstrap_ci, paired_wilcoxon


@dataclass(frozen=True)
class Difference:
    """How one setting differs from another, trained with the same seeds and measured on the same images.

    Parameters
    ----------
    mean, sd : float
        Of the differences, one a seed; ``sd`` has ``n - 1`` below.
    low, high : float
        95 % interval of the mean over seeds (Student's t).
    images : Paired
        Over images, after each image's mean over the seeds was taken.
    """

    mean: float
    sd: float
    low: float
    high: float
    images: Paired

    def verdict(self, p: float, level: float = 0.05) -> str:
        """ "lower" or "higher" where the interval leaves out 0 and ``p`` (corrected) is below ``level``.

        Else "undecided": the sign could turn with other seeds or other images.
        """
        if p < level and self.high < 0:
            return "lower"
        return "higher" if p < level and self.low > 0 else "undecided"


@dataclass(frozen=True)
class Seeds:
    """Evaluations of one setting, one a seed, in the order of the seeds and on the same images.

    Raises
    ------
    SempartError
        Fewer than two, or other images in one of them.
    """

    runs: tuple[Evaluation, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(self.runs))
        if len(self.runs) < 2:
            raise SempartError(f"{len(self.runs)} evaluation: a deviation over seeds needs two at least")
        if any(r.names != self.runs[0].names for r in self.runs):
            raise SempartError("the seeds were measured on different images: give each the same data set")

    def per_image(self, metric: str = "iou") -> np.ndarray:
        """``m`` means over the seeds, one an image."""
        return np.mean([r.per_image[metric] for r in self.runs], axis=0)

    def means(self, metric: str = "iou") -> np.ndarray:
        """Means over the images, one a seed."""
        return np.array([r.per_image[metric].mean() for r in self.runs])

    def minus(self, other: Seeds, metric: str = "iou") -> Difference:
        """This setting minus the other, paired by seed and by image; SempartError if they do not pair."""
        if len(self.runs) != len(other.runs) or self.runs[0].names != other.runs[0].names:
            raise SempartError("a paired difference needs as many seeds and the same images on both sides")
        d = self.means(metric) - other.means(metric)
        half = student_half_width(d)
        images = paired_wilcoxon(self.per_image(metric), other.per_image(metric))
        return Difference(float(d.mean()), float(d.std(ddof=1)), d.mean() - half, d.mean() + half, images)

    def records(self, table: str, row: str, metrics: Sequence[str] = ("iou",), **changes) -> list[Record]:
        """Two records a metric: the mean over images and seeds, and ``<metric>_sd``, its deviation over seeds.

        The interval of the mean is over images.
        """
        heads = [str(r.provenance["params"].get("head", "")) for r in self.runs]
        out = []
        for metric in metrics:
            (first,) = self.runs[0].records(table, row, only=[metric])
            params = {**first.params, "head": " ".join(heads), "seeds": len(heads)}
            values = self.per_image(metric).astype(float)
            first = replace(first, value=float(values.mean()), ci=bootstrap_ci(values, seed=first.seed))
            first = replace(first, params=params, **changes)
            sd = float(self.means(metric).std(ddof=1))
            out += [first, replace(first, metric=f"{metric}_sd", value=sd, ci=None)]
        return out


def student_half_width(values: Sequence[float], level: float = 0.95) -> float:
    """Half the width of Student's interval of the mean of a few numbers."""
    from scipy.stats import t

    values = np.asarray(values, float)
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        raise SempartError("an interval over seeds needs two finite numbers at least")
    return float(t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
