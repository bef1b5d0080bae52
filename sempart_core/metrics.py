"""Saliency metrics by preset: the same words, "IoU", "Acc" and "max F-beta", as each code computes them.

Eight public implementations disagree about resolution, what counts as foreground in a grey ground truth,
thresholds, beta, the order of mean and maximum, and an empty prediction (protocols, 1.11). A
:class:`Preset` holds those choices as data; its *family* says which numbers may stand in one column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from .corloc import box_iou, corloc, one_box
from .errors import SempartError
from .matching import hungarian_match, majority_vote
from .presets import GROUND_TRUTH, PRESETS, Preset, family
from .statistics import bootstrap_ci

__all__ = [
    "PRESETS", "Meter", "Preset", "bootstrap_ci", "box_iou", "centre_crop", "compare", "corloc",
    "evaluate_masks", "family", "hungarian_match", "majority_vote", "one_box",
]  # fmt: skip


class Meter:
    """Streaming evaluation: photographs of any size, one at a time; only scalars and F curves are kept.

    Parameters
    ----------
    preset : str or Preset
    """

    def __init__(self, preset: str | Preset = "tokencut") -> None:
        self.preset = preset if isinstance(preset, Preset) else PRESETS[preset]()
        self._rows: list[tuple[float, ...]] = []
        self._curves: list[np.ndarray] = []

    def update(self, soft: ArrayLike, gt: ArrayLike, void: ArrayLike | None = None) -> None:
        """Add one image.

        Parameters
        ----------
        soft : ``H x W`` float in [0, 1], or bool
            Prediction at the resolution of the ground truth; a hair outside [0, 1] is allowed.
        gt : ``H x W`` bool, or uint8 in 0..255
        void : ``H x W`` bool, optional
            Pixels that are ignored everywhere.

        Raises
        ------
        SempartError
            Shapes differ, values are not finite or no probabilities, ground truth is 0/1 in a preset
            that expects 0..255, or every pixel is void.
        """
        s = self.preset
        p, g, keep = _prepared(soft, gt, void, s)
        if s.crop is not None:
            p, g, keep = (centre_crop(a, *s.crop) for a in (p, g, keep))
        p, g = p[keep], g[keep]
        if not p.size:
            raise SempartError("every pixel is void: leave this image out of the list")
        if s.eight_bit:
            p = np.floor(np.clip(p, 0, 1) * p.dtype.type(255)) / np.float32(255)
        fg, hard = GROUND_TRUTH[s.gt](g), p > 0.5
        union = np.count_nonzero(hard | fg)
        self._rows.append((
            np.count_nonzero(hard & fg) / union if union else s.empty_iou,
            np.count_nonzero(hard == fg) / p.size,
            _f_of_mask(hard, fg, s),
            _f_of_mask(p > 2 * p.mean(), fg, s),
            float(np.abs(p - fg).mean()),
        ))  # fmt: skip
        self._curves.append(_f_curve(p, GROUND_TRUTH[s.gt_f or s.gt](g), s.thresholds, s.strict, s))

    def __len__(self) -> int:
        return len(self._rows)

    def compute(self, ci: bool = True, seed: int = 0) -> dict[str, Any]:
        """Means over images.

        Returns
        -------
        dict
            ``iou``, ``acc``, ``max_f``; further ``f_half`` (F of the mask at one half), ``f_adaptive`` (F
            at twice the mean prediction) and ``mae``; ``threshold`` (the best, NaN if each image has its
            own), ``n``, ``preset``, ``family``; ``per_image``: arrays of length n (``max_f`` at the common
            best threshold, or at each image's own, so that its mean is the number); ``curve``: ``n x T``;
            ``ci95``: percentile bootstrap intervals over images for the first three (resampling chooses
            the best threshold anew).
        """
        if not self._rows:
            raise SempartError("no image was evaluated: call update at least once")
        names = ("iou", "acc", "f_half", "f_adaptive", "mae")
        per_image = dict(zip(names, np.array(self._rows).T, strict=True))
        curve = np.stack(self._curves)
        common = self.preset.aggregate == "mean-then-max"
        best = int(curve.mean(0).argmax())
        per_image["max_f"] = curve[:, best] if common else curve.max(1)
        out: dict[str, Any] = {k: float(v.mean()) for k, v in per_image.items()}
        out |= {
            "threshold": float(self.preset.thresholds[best]) if common else float("nan"),
            "n": len(self),
            "preset": self.preset.name,
            "family": self.preset.family,
            "per_image": per_image,
            "curve": curve,
        }
        if ci:
            out["ci95"] = {
                "iou": bootstrap_ci(per_image["iou"], seed=seed),
                "acc": bootstrap_ci(per_image["acc"], seed=seed),
                "max_f": bootstrap_ci(curve if common else per_image["max_f"], seed=seed),
            }
        return out


def evaluate_masks(
    preds: Iterable[ArrayLike],
    gts: Iterable[ArrayLike],
    preset: str | Preset = "tokencut",
    void: Iterable[ArrayLike | None] | None = None,
    *,
    ci: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate lists of predictions; arguments as in :meth:`Meter.update`, result of :meth:`Meter.compute`."""
    meter = Meter(preset)
    preds, gts = list(preds), list(gts)
    voids = [None] * len(gts) if void is None else list(void)
    if not len(preds) == len(gts) == len(voids):
        raise SempartError(
            f"{len(preds)} predictions, {len(gts)} ground truths, {len(voids)} void masks: give one each"
        )
    for p, g, v in zip(preds, gts, voids, strict=True):
        meter.update(p, g, v)
    return meter.compute(ci=ci, seed=seed)


def compare(rows: Sequence[Any], *, mixed: bool = False) -> dict[str, dict[str, float]]:
    """Set rows side by side, refusing to mix numbers that only share a name.

    Parameters
    ----------
    rows : sequence of Record or dict
        Each with ``row``, ``metric``, ``value`` and ``preset`` (or ``family``).
    mixed : bool
        Allow different families in one column, knowingly.

    Returns
    -------
    dict
        ``row -> metric -> value`` in the order given.

    Raises
    ------
    SempartError
        One metric comes from more than one family and ``mixed`` is false; or one cell twice.
    """
    table: dict[str, dict[str, float]] = {}
    seen: dict[str, dict[str, str]] = {}
    for r in rows:
        r = vars(r) if is_dataclass(r) else r
        fam = _family_of(r)
        seen.setdefault(r["metric"], {}).setdefault(fam, r["row"])
        cells = table.setdefault(r["row"], {})
        if r["metric"] in cells:
            raise SempartError(f"row {r['row']!r} has {r['metric']!r} twice; give each its own row name")
        cells[r["metric"]] = r["value"]
    for metric, families in seen.items():
        if len(families) > 1 and not mixed:
            names = "; ".join(f"{fam or 'unknown'} ({row})" for fam, row in families.items())
            raise SempartError(
                f"{metric!r} mixes metric families: {names}; evaluate all with one preset or pass mixed=True"
            )
    return table


def _family_of(row: Mapping[str, Any]) -> str:
    return row.get("family") or (family(row["preset"]) if row.get("preset") else "")


def _array(a: ArrayLike) -> np.ndarray:
    return np.asarray(a.detach().cpu() if hasattr(a, "detach") else a)


def _prepared(soft: ArrayLike, gt: ArrayLike, void: ArrayLike | None, preset: Preset):
    """Checked arrays: float prediction, ground truth as uint8 in 0..255, mask of valid pixels."""
    p, g = _array(soft), _array(gt)
    if p.ndim != 2 or p.shape != g.shape:
        raise SempartError(
            f"prediction {p.shape} and ground truth {g.shape} must be H x W alike: resize the prediction first"
        )
    if g.dtype == bool:
        g = g.astype(np.uint8) * 255
    elif g.dtype != np.uint8:
        raise SempartError(f"ground truth of type {g.dtype}: give bool, or uint8 in 0..255")
    elif g.max(initial=0) == 1 and preset.gt in ("half", "full"):
        raise SempartError(f"ground truth holds 0 and 1, preset {preset.name!r} expects 0..255: give bool")
    if not np.issubdtype(p.dtype, np.floating):
        if p.dtype != bool:
            raise SempartError(f"prediction of type {p.dtype}: give float in [0, 1] or bool")
        p = p.astype(np.float32)
    elif p.dtype == np.float16:
        p = p.astype(np.float32)
    if not np.isfinite(p).all() or p.min(initial=0) < -1 or p.max(initial=1) > 2:
        raise SempartError(
            "prediction holds NaN or values far outside [0, 1]: give probabilities, not logits"
        )
    keep = np.ones(p.shape, bool) if void is None else ~_array(void).astype(bool)
    if keep.shape != p.shape:
        raise SempartError(f"void {keep.shape} and prediction {p.shape} differ in shape: resize void first")
    return p, g, keep


def centre_crop(a: np.ndarray, short: int, side: int) -> np.ndarray:
    """Resize to a short side and cut the centred square, as a preset with ``crop`` does.

    Parameters
    ----------
    a : ``H x W`` bool, uint8 or float, or ``H x W x 3`` uint8
        Resized bilinearly, bool by the nearest pixel.
    short, side : int
        Pixels; ``side`` is at most ``short``.

    Returns
    -------
    ``side x side`` (``x 3``) of the same type.
    """
    if not 0 < side <= short:
        raise SempartError(f"side={side}: the square lies within the short side, so give 1 to {short}")
    h, w = a.shape[:2]
    size = (int(short * w / h), short) if h <= w else (short, int(short * h / w))
    how = Image.Resampling.NEAREST if a.dtype == bool else Image.Resampling.BILINEAR
    source = a.astype(np.uint8) if a.dtype == bool else a if a.dtype == np.uint8 else a.astype(np.float32)
    out = np.asarray(Image.fromarray(source).resize(size, how))
    top, left = round((out.shape[0] - side) / 2), round((out.shape[1] - side) / 2)
    return out[top : top + side, left : left + side].astype(a.dtype)


def _f(tp: np.ndarray, claimed: np.ndarray, sought: float, s: Preset) -> np.ndarray:
    """F-beta from true positives, predicted and true foreground, with the preset's conventions."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(claimed > 0, tp / claimed, s.empty)
        recall = tp / sought if sought else np.full(np.shape(tp), s.empty)
        f = (1 + s.beta2) * precision * recall / (s.beta2 * precision + recall)
    return np.nan_to_num(f, nan=0.0)


def _f_of_mask(b: np.ndarray, fg: np.ndarray, s: Preset) -> float:
    counts = (np.count_nonzero(x) for x in (b & fg, b, fg))
    return float(_f(*(np.float64(c) for c in counts), s))


def _f_curve(
    p: np.ndarray, g: np.ndarray, thresholds: Sequence[float], strict: bool, s: Preset
) -> np.ndarray:
    """F-beta of ``p > t`` (or ``p >= t``) at every threshold, from one histogram of the predictions."""
    t = np.asarray(thresholds).astype(p.dtype)  # compared in the type of the prediction, as torch does
    bins = np.searchsorted(t, p, side="left" if strict else "right")  # how many thresholds a pixel passes
    beyond = lambda h: h[::-1].cumsum()[::-1][1:].astype(np.float64)  # noqa: E731
    count = lambda i, w=None: np.bincount(i, w, len(t) + 1)  # noqa: E731
    tp = beyond(count(bins[g]) if g.dtype == bool else count(bins, g))
    return _f(tp, beyond(count(bins)), float(g.sum()), s)
