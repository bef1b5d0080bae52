"""What an evaluation found: numbers per image, means with intervals, provenance, records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .errors import SempartError
from .records import Record
from .statistics import bootstrap_ci, paired_wilcoxon


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` measured.

    Parameters
    ----------
    names : tuple of str
        The photographs, in order.
    per_image : dict
        Metric -> array over the photographs that have what it needs: ``iou``, ``acc``, ``max_f`` where
        there are masks; ``corloc`` (bool, IoU >= .5) and ``corloc_gt`` (IoU > .5) where there are boxes.
    metrics, ci95 : dict
        Metric -> mean over images (``max_f``: the preset's aggregation), and its 95 % bootstrap interval.
    seconds : dict
        Step (``extract``, ``predict``, ``refine``) -> mean seconds a photograph.
    provenance : dict
        Everything needed to measure again.
    """

    names: tuple[str, ...]
    per_image: dict[str, np.ndarray]
    metrics: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    seconds: dict[str, float]
    provenance: dict = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Photographs measured."""
        return len(self.names)

    def as_dict(self) -> dict:
        """Plain values for JSON: ``n``, ``metrics``, ``ci95``, ``seconds``, ``provenance``."""
        return {
            "n": self.n,
            "metrics": self.metrics,
            "ci95": {k: list(v) for k, v in self.ci95.items()},
            "seconds": self.seconds,
            "provenance": self.provenance,
        }

    def records(self, table: str, row: str, *, only: Sequence[str] | None = None, **changes) -> list[Record]:
        """One record a metric.

        Parameters
        ----------
        table, row : str
            Address in the book.
        only : sequence of str, optional
            These metrics only.
        **changes
            Fields of :class:`~sempart_core.records.Record` to set (``profile``, ``notebook``, ``kind``, ...).
        """
        p = self.provenance
        base = {
            "dataset": p["dataset"],
            "list_hash": p["list_hash"],
            "backbone": p["backbone"],
            "backbone_sha256": p["sha256"],
            "params": {
                "method": p["method"],
                "size": p["size"],
                "feature": p["feature"],
                "tau": p["tau"],
                "refine": p["refine"],
                "resample": p["resample"],
                **({"refine_params": p["refine_params"]} if p["refine_params"] else {}),
                **{k: v for k, v in p["params"].items() if v is not None},
            },
            "kind": p["kind"],
            "seed": p["seed"],
            "device": p["device"],
            "versions": p["versions"],
        }
        rows = []
        for name in only or self.metrics:
            preset = {"corloc": "corloc_ge", "corloc_gt": "corloc_gt"}.get(name, p["metric"])
            chosen = p.get("box_rule")  # None where the method drew its own boxes
            boxed = name.startswith("corloc") and chosen not in (None, "largest-area")
            own = {
                **base,
                "params": {**base["params"], **({"box_rule": chosen} if boxed else {})},
                "n": len(self.per_image[name]),
                "preset": preset,
                "value": self.metrics[name],
                "ci": self.ci95[name],
                **changes,
            }
            rows.append(Record(table=table, row=row, metric=name, **own))
        return rows


def over_seeds(
    runs: Sequence[Evaluation], table: str, row: str, *, only: Sequence[str], **changes
) -> list[Record]:
    """Records of one setting trained with several seeds and measured on the same photographs.

    Parameters
    ----------
    runs : sequence of Evaluation
        One a seed.
    table, row, **changes
        As in :meth:`Evaluation.records`.
    only : sequence of str
        Metrics.

    Returns
    -------
    list of Record
        For each metric the mean over seeds, with the bootstrap interval over photographs of the mean over seeds
        (none for ``max_f``, which is no mean over photographs); from two seeds on also ``<metric>_sd``, the
        standard deviation over seeds.

    Raises
    ------
    SempartError
        No run, or runs on different photographs.
    """
    _same_photographs(runs)
    rows = []
    for metric in only:
        (like,) = runs[0].records(table, row, only=[metric], **changes)
        params = {k: v for k, v in like.params.items() if k not in ("head", "head_name")}
        if len(runs) == 1:
            rows.append(like)
            continue
        per_image = np.stack([r.per_image[metric] for r in runs]).astype(float)
        ci = bootstrap_ci(per_image.mean(0), seed=like.seed) if per_image.ndim == 2 else None
        values = [r.metrics[metric] for r in runs]
        like = replace(like, params={**params, "seeds": len(runs)}, value=float(np.mean(values)), ci=ci)
        spread = float(np.std(values, ddof=1))
        rows += [like, replace(like, metric=f"{metric}_sd", value=spread, ci=None, preset="")]
    return rows


def paired_difference(
    a: Sequence[Evaluation], b: Sequence[Evaluation], table: str, row: str, *, metric: str = "iou", **changes
) -> list[Record]:
    """Records ``<metric>_difference`` and ``<metric>_p`` of two settings on the same photographs.

    The mean over photographs of ``a - b`` (each the mean over its seeds) with its bootstrap interval, and the
    p-value of :func:`~sempart_core.statistics.paired_wilcoxon`. Both speak of the photographs: trainings with
    other seeds are not in them.

    Parameters
    ----------
    a, b : sequence of Evaluation
        One a seed; their numbers may differ.
    metric : str
        One that is a mean over photographs.

    Raises
    ------
    SempartError
        No run, or runs on different photographs.
    """
    _same_photographs([*a, *b])
    first, second = (np.mean([r.per_image[metric] for r in runs], axis=0).astype(float) for runs in (a, b))
    (like,) = a[0].records(table, row, only=[metric], **changes)
    params = {"size": like.params.get("size"), "seeds": f"{len(a)} and {len(b)}"}
    test = paired_wilcoxon(first, second)
    ci = bootstrap_ci(first - second, seed=like.seed)
    like = replace(like, metric=f"{metric}_difference", value=test.mean, ci=ci, params=params)
    return [like, replace(like, metric=f"{metric}_p", value=test.p, ci=None, preset="")]


def _same_photographs(runs: Sequence[Evaluation]) -> None:
    if not runs or any(r.names != runs[0].names for r in runs):
        raise SempartError("runs that are averaged or compared need the same photographs, and one at least")
