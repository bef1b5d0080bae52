"""Metric presets: the choices by which eight public implementations of one metric differ, as data.

Sources and measured consequences: protocols, 1.11. :mod:`sempart_core.metrics` computes with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .registry import Card, Registry

#: Which grey values of a ground truth (0..255) are foreground.
GROUND_TRUTH = {
    "nonzero": lambda g: g > 0,
    "half": lambda g: g > 127,
    "full": lambda g: g == 255,
    "grey": lambda g: g / 255.0,  # not binarised: each pixel counts with its grey value
}


@dataclass(frozen=True)
class Preset:
    """One way of computing IoU, Acc and max F-beta.

    Parameters
    ----------
    name, family : str
        Numbers of different families must not be ranked against each other.
    gt, gt_f : str
        How the ground truth becomes foreground for IoU and Acc, and for F: a key of ``GROUND_TRUTH``.
    thresholds : tuple of float
        Ascending thresholds of the F curve.
    strict : bool
        ``p > t`` (else ``p >= t``).
    beta2 : float
        beta squared: .3, or .09 where the code squares .3 once more.
    aggregate : str
        ``"mean-then-max"``: F averaged over images at each threshold, then the best threshold;
        ``"max-then-mean"``: each image's best F, then the average.
    empty : float
        Precision where nothing is predicted, and recall where there is nothing to find.
    empty_iou : float
        IoU where both masks are empty (TokenCut's code gives NaN there; we say 1).
    eight_bit : bool
        Predictions pass through an 8-bit file first: ``floor(255 p) / 255``.
    crop : (int, int), optional
        Prediction and ground truth are resized bilinearly to this short side and cut to a centred
        square of this many pixels.
    """

    name: str
    family: str
    gt: str = "nonzero"
    gt_f: str | None = None
    thresholds: tuple[float, ...] = tuple(np.arange(255) / 255)
    strict: bool = True
    beta2: float = 0.3
    aggregate: str = "mean-then-max"
    empty: float = 1.0
    empty_iou: float = 1.0
    eight_bit: bool = False
    crop: tuple[int, int] | None = None


PRESETS = Registry("metric preset")


def _add(name: str, family: str, what: str, source: str, **choices: Any) -> None:
    extra = {k: len(v) if k == "thresholds" else v for k, v in choices.items()}
    PRESETS.register(
        Card(name, what, source, labels="-", extra={"family": family, **extra}),
        partial(Preset, name, family, **choices),
    )


_SELFMASK = {"beta2": 0.09, "aggregate": "max-then-mean", "empty": 0.0, "empty_iou": 0.0}
_STAR = {"gt": "half", "gt_f": "nonzero", "crop": (335, 320)}
_add("tokencut", "tokencut", "native size, any non-zero is foreground, β² .3, mean then max",
     "TokenCut, metric.py")  # fmt: skip
_add("dss", "tokencut", "as tokencut, foreground above half grey", "Deep Spectral, object-segmentation/metrics.py",
     gt="half")  # fmt: skip
_add("move", "tokencut", "8-bit predictions, 256 thresholds, foreground above half grey",
     "MOVE, segmentation_eval.py", gt="half", thresholds=tuple(np.arange(256) / 256), eight_bit=True,
     empty_iou=0.0)  # fmt: skip
_add("move-per-image", "move-per-image", "as move, the best threshold of each image (its FBetaMaxPerImg)",
     "MOVE, segmentation_eval.py", gt="half", thresholds=tuple(np.arange(256) / 256), eight_bit=True,
     empty_iou=0.0, aggregate="max-then-mean")  # fmt: skip
_add("diffncuts", "tokencut", "8-bit predictions, >= thresholds, F weighs grey pixels by their value",
     "Differentiable NCut, measure.py", gt="half", gt_f="grey", strict=False, eight_bit=True, empty=0.0,
     thresholds=tuple(np.linspace(0, 1 - 1e-10, 255)))  # fmt: skip
_add("selfmask", "selfmask", "β² .09 (.3 squared once more), best threshold of each image",
     "SelfMask, metrics/f_measure.py", **_SELFMASK)  # fmt: skip
_add("found", "selfmask", "as selfmask, foreground is 255 only", "FOUND and PEEKABOO, evaluation/saliency.py",
     gt="full", **_SELFMASK)  # fmt: skip
_add("unioncut", "unioncut", "β² .09 on the mask at one half", "UnionCut, saliency_metrics.py",
     thresholds=(0.5,), beta2=0.09, empty=0.0, empty_iou=0.0)  # fmt: skip
_add("sempart_star", "sempart_star", "320 px centre crop, ground truth resized bilinearly",
     "Two Tricks code (segmentation-tricks), token_metric.py with its option use_fmax", **_STAR)  # fmt: skip
_add("sempart_star-default", "sempart_star-default", "as sempart_star, F at threshold 0 only ('F (not max)')",
     "Two Tricks code (segmentation-tricks), default options", thresholds=(0.0,), **_STAR)  # fmt: skip


def family(preset: str) -> str:
    """The family of a preset's name; a name that is no preset (``corloc_ge``, ``miou``) is a family of its own."""
    return PRESETS[preset]().family if preset in PRESETS else preset
