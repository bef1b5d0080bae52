"""A setting trained with several seeds, and whether it differs from another: chance of images and of seeds.

A paired test over images says whether these *networks* differ. An interval over seeds says whether other
trainings would differ the same way. A verdict needs both; between settings that are not trained, or trained
once, the interval is over images as well, and the verdict is one about what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .backbones import Backbone
from .errors import SempartError
from .evaluate import evaluate
from .evaluation import Evaluation
from .extraction import extract_dataset
from .methods import Method
from .records import Record
from .statistics import Paired, bootstrap_ci, holm, paired_wilcoxon

#: What an interval of a difference is over, as it stands in the parameters of a record.
OVER_SEEDS, OVER_IMAGES = "Student's t over seeds", "bootstrap over images"


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
        """Records of the setting.

        Parameters
        ----------
        table, row, **changes
            As in :meth:`Evaluation.records <sempart_core.evaluation.Evaluation.records>`.
        only : sequence of str
            Metrics.

        Returns
        -------
        list of Record
            For each metric the mean over seeds with the bootstrap interval over images of each image's mean over
            seeds (none for ``max_f``, which is no mean over images); from two seeds on also ``<metric>_sd``, the
            standard deviation over seeds.
        """
        rows = []
        for metric in only:
            (like,) = self.runs[0].records(table, row, only=[metric], **changes)
            if len(self.runs) > 1:
                params = {k: v for k, v in like.params.items() if k not in ("head", "head_name")}
                values = self.per_image(metric)
                ci = bootstrap_ci(values, seed=like.seed) if values.ndim == 1 else None
                like = replace(like, params={**params, "seeds": len(self.runs)}, ci=ci)
            rows += spread_records(like, metric, self.means(metric))
        return rows

    def minus(self, other: Seeds, metric: str = "iou") -> Difference:
        """This setting minus the other, alone; see :func:`differences`."""
        return differences({"this": (self, other)}, metric)["this"]


def measure(dataset, methods: Iterable[Method | str], backbone=None, **options) -> Seeds:
    """One setting on one data set: :func:`~sempart_core.evaluate.evaluate` of a method a seed.

    Parameters
    ----------
    dataset, backbone, **options
        As in :func:`~sempart_core.evaluate.evaluate`.
    methods : iterable of Method or str
        The same method with the networks of several trainings, in the order of their seeds; one of a method
        that is not trained.
    """
    return Seeds(tuple(evaluate(dataset, method, backbone, **options) for method in methods))


def measure_backbones(
    dataset, method: Method | str, backbones: Iterable[Backbone], *, size: int, cache: bool = False, **options
) -> Seeds:
    """One method on the features of several backbones, such as those of several fine-tunings.

    Parameters
    ----------
    dataset, method, **options
        As in :func:`~sempart_core.evaluate.evaluate`. Every method gets the default layer of photographs resized to
        a multiple of the patch, without their pixels: one that reads those is refused.
    backbones : iterable of Backbone
        In the order of their seeds.
    size : int
        Side of the network's square input in pixels.
    cache : bool
        Keep the features on disk; those of a tuned backbone are seldom asked for twice.

    Raises
    ------
    SempartError
        No backbone, or as :func:`~sempart_core.evaluate.evaluate`.
    """
    runs = []
    for backbone in backbones:
        features = extract_dataset(dataset, backbone, size=size, cache=cache, keep_images=False)
        runs.append(evaluate(dataset, method, backbone, features=features, **options))
    return Seeds(tuple(runs))


def spread_records(like: Record, metric: str, values: Sequence[float]) -> list[Record]:
    """Records of a mean over seeds, and, from two seeds on, of the standard deviation over them.

    Parameters
    ----------
    like : Record
        Everything but ``metric`` and ``value`` of the mean; the deviation has no interval and no preset.
    values : sequence of float
        One a seed; the deviation divides by one less than their number.
    """
    values = np.asarray(values, float)
    mean = replace(like, metric=metric, value=float(values.mean()))
    if len(values) < 2:
        return [mean]
    return [mean, replace(mean, metric=f"{metric}_sd", value=float(values.std(ddof=1)), ci=None, preset="")]


@dataclass(frozen=True)
class Difference:
    """One setting minus another, trained with the same seeds and measured on the same images.

    Parameters
    ----------
    mean : float
        Of the differences, one a seed.
    sd : float or None
        Deviation of the differences, divided by one less than their number; None for a single one.
    low, high : float
        95 % interval of the mean: Student's over seeds, or, where neither setting has two, the bootstrap over
        images.
    images : Paired
        Over images, after each image's mean over the seeds was taken.
    corrected : float
        The p-value of ``images`` after Holm's correction for all differences of the same table.
    setting : Seeds
        What the other was subtracted from.
    metric : str
        What was measured.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    images: Paired
    corrected: float
    setting: Seeds = field(repr=False, compare=False)
    metric: str = "iou"

    @property
    def interval(self) -> str:
        """What the interval is over: :data:`OVER_SEEDS` or :data:`OVER_IMAGES`."""
        return OVER_IMAGES if self.sd is None else OVER_SEEDS

    def verdict(self, level: float = 0.05) -> str:
        """ "lower" or "higher" where the interval leaves out 0 and ``corrected`` is below ``level``.

        Else "undecided": the sign could turn with other seeds or other images.
        """
        if self.corrected < level and self.high < 0:
            return "lower"
        return "higher" if self.corrected < level and self.low > 0 else "undecided"

    def claim(self, claimed: str = "higher", level: float = 0.05) -> str:
        """ "holds", "fails" or "is undecided": what :meth:`verdict` says of a claim, "higher" or "lower"."""
        if claimed not in ("higher", "lower"):
            raise SempartError(f"claimed={claimed!r}: a difference is claimed to be higher or lower")
        found = self.verdict(level)
        return "is undecided" if found == "undecided" else "holds" if found == claimed else "fails"

    def records(self, like: Record) -> list[Record]:
        """``<metric>_change`` with its interval, its deviation over seeds, the median over images, both p.

        ``like`` is a record of the setting, whose table and row are used.
        """
        params = {**like.params, "interval": self.interval}
        change = replace(like, metric=f"{like.metric}_change", value=self.mean, ci=(self.low, self.high))
        change = replace(change, params=params)
        others = {
            f"{change.metric}_sd": self.sd,
            f"{change.metric}_median": self.images.median,
            "p_value": self.images.p,
            "p_holm": self.corrected,
        }
        others = {k: v for k, v in others.items() if v is not None}
        return [change, *(replace(change, metric=k, value=v, ci=None, preset="") for k, v in others.items())]

    def rows(self, table: str, row: str, **changes) -> list[Record]:
        """:meth:`records` at an address of the book; ``changes`` as in :meth:`Seeds.records`."""
        return self.records(self.setting.records(table, row, [self.metric], **changes)[0])


def compare(settings: Mapping[str, Seeds], base: Seeds, metric: str = "iou") -> dict[str, Difference]:
    """Each setting minus one base: :func:`differences` of the pairs ``(setting, base)``."""
    return differences({name: (setting, base) for name, setting in settings.items()}, metric)


def differences(pairs: Mapping[str, tuple[Seeds, Seeds]], metric: str = "iou") -> dict[str, Difference]:
    """The first of each pair minus the second, paired by seed and by image.

    Parameters
    ----------
    pairs : dict
        Name -> two settings with as many seeds, in the same order. The second may have one run (a method without
        training): then each seed of the first is compared with that one. The p-values are corrected for the
        number of pairs, so all that a table compares belongs in one call.
    metric : str
        One that is a mean over images.

    Returns
    -------
    dict of Difference
        In the order given.

    Raises
    ------
    SempartError
        A pair with another number of seeds or other images.
    """
    tests = {}
    for name, (a, b) in pairs.items():
        if len(b.runs) not in (1, len(a.runs)) or a.runs[0].names != b.runs[0].names:
            raise SempartError(
                f"{name}: a paired difference needs as many seeds and the same images as the base"
            )
        tests[name] = paired_wilcoxon(a.per_image(metric), b.per_image(metric))
    corrected = dict(zip(tests, holm([t.p for t in tests.values()]), strict=True))
    out = {}
    for name, (a, b) in pairs.items():
        d = a.means(metric) - b.means(metric)
        mean, sd = float(d.mean()), None
        if len(d) > 1:
            sd, half = float(d.std(ddof=1)), student_half_width(d)
            low, high = mean - half, mean + half
        else:
            seed = a.runs[0].provenance["seed"]
            low, high = bootstrap_ci(a.per_image(metric) - b.per_image(metric), seed=seed)
        out[name] = Difference(mean, sd, low, high, tests[name], float(corrected[name]), a, metric)
    return out


def verdicts(found: Mapping[str, Difference]) -> str:
    """The differences as lines of text: name, mean, interval and what it is over, corrected p, verdict."""
    width = max(map(len, found), default=0)
    return "\n".join(
        f"{name:{width}}  {d.mean:+.3f}  {d.interval.split()[-1]} {d.low:+.3f} to {d.high:+.3f}"
        f"  p {d.corrected:.1g}  {d.verdict()}"
        for name, d in found.items()
    )


def student_half_width(values: Sequence[float], level: float = 0.95) -> float:
    """Half the width of Student's interval of the mean of a few numbers; SempartError for fewer than two."""
    from scipy.stats import t

    values = np.asarray(values, float)
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        raise SempartError("an interval over seeds needs two finite numbers at least")
    return float(t.ppf(0.5 + level / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
