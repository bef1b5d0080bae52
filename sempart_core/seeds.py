"""A setting trained with several seeds, and whether it differs from another: chance of images and of seeds.

A paired test over images says whether these *networks* differ. An interval over seeds says whether other
trainings would differ the same way. A verdict needs both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .errors import SempartError
from .evaluation import Evaluation, over_seeds
from .records import Record
from .statistics import Paired, holm, paired_wilcoxon


@dataclass(frozen=True)
class Difference:
    """One setting minus another, trained with the same seeds and measured on the same images.

    Parameters
    ----------
    mean, sd : float
        Of the differences, one a seed; ``sd`` divides by one less than their number.
    low, high : float
        95 % interval of the mean over seeds (Student's t).
    images : Paired
        Over images, after each image's mean over the seeds was taken.
    corrected : float
        The p-value of ``images`` after Holm's correction for all settings compared.
    """

    mean: float
    sd: float
    low: float
    high: float
    images: Paired
    corrected: float

    def verdict(self, level: float = 0.05) -> str:
        """ "lower" or "higher" where the interval leaves out 0 and ``corrected`` is below ``level``.

        Else "undecided": the sign could turn with other seeds or other images.
        """
        if self.corrected < level and self.high < 0:
            return "lower"
        return "higher" if self.corrected < level and self.low > 0 else "undecided"

    def records(self, like: Record) -> list[Record]:
        """``<metric>_change`` with the interval over seeds, its deviation, the median over images, both p.

        ``like`` is a record of the setting, whose table and row are used.
        """
        params = {**like.params, "interval": "Student's t over seeds"}
        change = replace(like, metric=f"{like.metric}_change", value=self.mean, ci=(self.low, self.high))
        change = replace(change, params=params)
        others = {
            f"{change.metric}_sd": self.sd,
            f"{change.metric}_median": self.images.median,
            "p_value": self.images.p,
            "p_holm": self.corrected,
        }
        return [change, *(replace(change, metric=k, value=v, ci=None, preset="") for k, v in others.items())]


@dataclass(frozen=True)
class Seeds:
    """Evaluations of one setting, one a seed, in the order of the seeds and on the same images.

    A method that is not trained has one run.

    Raises
    ------
    SempartError
        No run, or other images in one of them.
    """

    runs: tuple[Evaluation, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(self.runs))
        if not self.runs:
            raise SempartError("no evaluation: give one a seed")
        if any(r.names != self.runs[0].names for r in self.runs):
            raise SempartError("the seeds were measured on different images: give each the same data set")

    def per_image(self, metric: str = "iou") -> np.ndarray:
        """``m`` means over the seeds, one an image."""
        return np.mean([r.per_image[metric] for r in self.runs], axis=0).astype(float)

    def means(self, metric: str = "iou") -> np.ndarray:
        """The metric of each seed (``max_f`` is no mean over images)."""
        return np.array([r.metrics[metric] for r in self.runs])

    def records(self, table: str, row: str, only: Sequence[str] = ("iou",), **changes) -> list[Record]:
        """:func:`~sempart_core.evaluation.over_seeds` of the runs."""
        return over_seeds(self.runs, table, row, only=only, **changes)

    def minus(self, other: Seeds, metric: str = "iou") -> Difference:
        """This setting minus the other, alone; see :func:`compare`."""
        return compare({"this": self}, other, metric)["this"]


def compare(settings: Mapping[str, Seeds], base: Seeds, metric: str = "iou") -> dict[str, Difference]:
    """Each setting minus the base, paired by seed and by image.

    Parameters
    ----------
    settings : dict
        Name -> :class:`Seeds` of as many seeds as the base, in the same order. The p-values are corrected for
        the number of settings.
    base : Seeds
        If it has one run (a method without training), each seed is compared with that one.
    metric : str
        One that is a mean over images.

    Raises
    ------
    SempartError
        A setting with another number of seeds or other images, or fewer than two seeds.
    """
    changes, tests = {}, {}
    for name, setting in settings.items():
        n = len(setting.runs)
        if len(base.runs) not in (1, n) or setting.runs[0].names != base.runs[0].names:
            raise SempartError(
                f"{name}: a paired difference needs as many seeds and the same images as the base"
            )
        changes[name] = setting.means(metric) - base.means(metric)
        tests[name] = paired_wilcoxon(setting.per_image(metric), base.per_image(metric))
    corrected = dict(zip(tests, holm([t.p for t in tests.values()]), strict=True))
    out = {}
    for name, d in changes.items():
        half, mean = student_half_width(d), float(d.mean())
        out[name] = Difference(
            mean, float(d.std(ddof=1)), mean - half, mean + half, tests[name], float(corrected[name])
        )
    return out


def student_half_width(values: Sequence[float], level: float = 0.95) -> float:
    """Half the width of Student's interval of the mean of a few numbers; SempartError for fewer than two."""
    from scipy.stats import t

    values = np.asarray(values, float)
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        raise SempartError("an interval over seeds needs two finite numbers at least")
    return float(t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
