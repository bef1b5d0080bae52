"""What an evaluation found: numbers per image, means with intervals, provenance, records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .records import Record


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
