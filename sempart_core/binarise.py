"""From a smoothed mask to a binary one: the rules after the bilateral solver, faults included, by name.

All but ``threshold`` fill holes in ``soft > .5`` and number its 4-connected regions. The published rules
then sort *all* regions, the background among them, by size (protocols, 1.5).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from . import regions
from .errors import SempartError
from .registry import Card, Registry

BINARISERS = Registry("binarisation")


def _filled(soft: ArrayLike) -> np.ndarray:
    return ndimage.binary_fill_holes(np.asarray(soft) > 0.5)


def _regions(soft: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the filled mask (0 is the background) and all their sizes, background first."""
    labels = regions.components(_filled(soft))
    return labels, np.bincount(labels.ravel())


@BINARISERS.register(Card("threshold", "soft > .5, nothing else", "-"))
def threshold(soft: ArrayLike, before: ArrayLike | None = None) -> np.ndarray:
    """``H x W`` soft -> ``H x W`` bool."""
    return np.asarray(soft) > 0.5


@BINARISERS.register(
    Card(
        "second-largest",
        "the second largest region; can return the background",
        "TokenCut and MOVE, bilateral_solver.py",
    )
)
def second_largest(soft: ArrayLike, before: ArrayLike | None = None) -> np.ndarray:
    """Second largest of all regions: the background itself where the object covers more than half.

    All true if there is but one region (nothing found, or everything).
    """
    labels, sizes = _regions(soft)
    return labels == np.argsort(sizes)[-2] if len(sizes) > 1 else np.ones(labels.shape, bool)


@BINARISERS.register(
    Card(
        "all-but-largest",
        "everything but the largest region; can return the background",
        "FOUND, bilateral_solver.py, get_all_cc",
    )
)
def all_but_largest(soft: ArrayLike, before: ArrayLike | None = None) -> np.ndarray:
    """All regions but the largest; with an object of more than half the image, background and specks."""
    labels, sizes = _regions(soft)
    return labels != sizes.argmax()


@BINARISERS.register(
    Card("overlap", "the region that shares most pixels with the mask before; never the background", "ours")
)
def overlap(soft: ArrayLike, before: ArrayLike | None = None) -> np.ndarray:
    """The foreground region with the largest overlap with ``before > .5``.

    Only regions of the smoothed foreground are candidates, so the background cannot win, however large
    the object. If none overlaps, the mask from before is kept.
    """
    if before is None:
        raise SempartError("binarisation 'overlap' needs the mask before smoothing: pass before=")
    before = np.asarray(before) > 0.5
    labels = regions.components(_filled(soft))
    shared = np.bincount(labels[before], minlength=2)[1:]
    return labels == shared.argmax() + 1 if shared.any() else before


def keep_if_close(before: ArrayLike, binary: ArrayLike, min_iou: float = 0.5) -> tuple[np.ndarray, bool]:
    """FOUND's safeguard: take the solver's mask only if it has IoU above one half with the mask before.

    Parameters
    ----------
    before : ``H x W`` float in [0, 1]
    binary : ``H x W`` bool

    Returns
    -------
    (mask, used)
        ``binary`` as float64 and True, or ``before`` as it was and False (FOUND, misc.py, apply_bilateral_solver).
    """
    before, binary = np.asarray(before), np.asarray(binary).astype(bool)
    if before.shape != binary.shape:
        raise SempartError(
            f"masks of shapes {before.shape} and {binary.shape} cannot be compared: resize one"
        )
    hard = before > 0.5
    either = np.count_nonzero(hard | binary)
    used = bool(either) and np.count_nonzero(hard & binary) / either > min_iou
    return (binary.astype(np.float64), True) if used else (before, False)
