"""Correct localisation: does the one predicted box meet any object with IoU of one half?"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import regions
from .errors import SempartError
from .statistics import bootstrap_ci

RULES = {">=": (operator.ge, "corloc_ge"), ">": (operator.gt, "corloc_gt")}


def box_iou(box: ArrayLike, boxes: ArrayLike) -> np.ndarray:
    """IoU of one box with several, in float32.

    Areas are exact before the one rounding of the quotient, so that a box that covers exactly half
    has IoU .5 and not .49999997; the public codes' ``eps`` vanishes in float32 (protocols, 1.11).

    Parameters
    ----------
    box : ``4``
    boxes : ``n x 4``
        ``(x_min, y_min, x_max, y_max)`` in pixels, right and bottom exclusive.

    Returns
    -------
    ``n`` float32 in [0, 1]
    """
    a, b = np.asarray(box, np.float64).reshape(4), np.asarray(boxes, np.float64).reshape(-1, 4)
    sides = np.clip(np.minimum(a[2:], b[:, 2:]) - np.maximum(a[:2], b[:, :2]), 0, None)
    both = sides.prod(1)
    either = (a[2:] - a[:2]).prod() + (b[:, 2:] - b[:, :2]).prod(1) - both
    if (either <= 0).any():
        raise SempartError(
            "a box without area: boxes are (x_min, y_min, x_max, y_max), right and bottom exclusive"
        )
    return both.astype(np.float32) / either.astype(np.float32)


def corloc(
    pred_boxes: Sequence[ArrayLike | None],
    gt_boxes: Sequence[ArrayLike],
    rule: str = ">=",
    *,
    threshold: float = 0.5,
    ci: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Share of images whose one predicted box meets some ground truth box.

    Parameters
    ----------
    pred_boxes : n boxes
        One box per image, None or NaN where the method gives none (a miss).
    gt_boxes : n arrays ``m x 4``
        Images without any box are left out of the denominator.
    rule : ``">="`` or ``">"``
        The codes count an IoU of exactly one half, the papers' text does not (protocols, 1.11).
    threshold : float
        Required IoU.

    Returns
    -------
    dict
        ``corloc``, ``n``, ``preset`` (``corloc_ge`` or ``corloc_gt``), ``family``, ``per_image``:
        ``{"hit": n bool, "iou": n float32}`` (best over the ground truth), ``used``: indices of the images
        counted, ``ci95``: ``{"corloc": (low, high)}``.

    Raises
    ------
    SempartError
        Unknown rule, lists of different length, or no image with a ground truth box.
    """
    if rule not in RULES:
        raise SempartError(f"CorLoc rule {rule!r} is unknown; choose '>=' or '>'")
    if len(pred_boxes) != len(gt_boxes):
        raise SempartError(f"{len(pred_boxes)} predicted boxes for {len(gt_boxes)} images: give one each")
    met, preset = RULES[rule]
    ious, used = [], []
    for i, (p, g) in enumerate(zip(pred_boxes, gt_boxes, strict=True)):
        g = np.asarray([] if g is None else g, np.float64).reshape(-1, 4)
        if not len(g):
            continue
        used.append(i)
        missing = p is None or np.isnan(np.asarray(p, np.float64)).any()
        ious.append(np.float32(0) if missing else box_iou(p, g).max())
    if not ious:
        raise SempartError("no image has a ground truth box: CorLoc has nothing to count")
    iou = np.array(ious, np.float32)
    hit = met(iou, np.float32(threshold))
    out = {
        "corloc": float(hit.mean()),
        "n": len(hit),
        "preset": preset,
        "family": preset,
        "per_image": {"hit": hit, "iou": iou},
        "used": np.array(used),
    }
    if ci:
        out["ci95"] = {"corloc": bootstrap_ci(hit, seed=seed)}
    return out


def one_box(
    mask: ArrayLike,
    rule: str = "seed",
    *,
    seed: int | tuple[int, int] | None = None,
    connectivity: int = 4,
    patch: int = 1,
    size: tuple[int, int] | None = None,
) -> np.ndarray | None:
    """One box for an image from its mask, by the rule of a paper.

    Parameters
    ----------
    mask : ``h x w`` bool
    rule : str
        ``"seed"``: the seed's component (TokenCut, LOST); ``"largest-area"``: the component of most
        pixels (Deep Spectral, FOUND); ``"largest-box"``: the component with the largest box (Two Tricks).
    seed : int or (row, column)
        Compulsory for ``"seed"``.
    connectivity, patch, size
        As in :mod:`sempart_core.regions`.

    Returns
    -------
    ``4`` float64 or None (empty mask, or a seed outside it)
    """
    if rule == "seed":
        if seed is None:
            raise SempartError("the rule 'seed' needs the seed: pass seed=(row, column) or its index")
        return regions.box_of(regions.component_of(mask, seed, connectivity), patch, size)
    if rule == "largest-area":
        return regions.box_of(regions.largest_component(mask, connectivity), patch, size)
    if rule == "largest-box":
        # boxes_of starts with the largest component, which thereby wins among equal boxes
        boxes = regions.boxes_of(mask, patch, size, connectivity=connectivity)
        return boxes[(boxes[:, 2:] - boxes[:, :2]).prod(1).argmax()] if len(boxes) else None
    raise SempartError(f"box rule {rule!r} is unknown; choose one of: seed, largest-area, largest-box")
