"""Connected regions of a binary mask and the boxes around them.

Labels, components and boxes are taken here for all methods, so that the one difference between them,
4- or 8-connectivity, is an argument one can see (TokenCut, LOST, FOUND: 4; Deep Spectral: 8).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from .errors import SempartError

CONNECTIVITY = {4: ndimage.generate_binary_structure(2, 1), 8: ndimage.generate_binary_structure(2, 2)}


def _mask(mask: ArrayLike) -> np.ndarray:
    """``mask`` as a bool ``h x w`` array; tensors of any device are welcome."""
    if hasattr(mask, "detach"):
        mask = mask.detach().cpu()
    array = np.asarray(mask)
    if array.ndim != 2:
        raise SempartError(
            f"a mask must have two dimensions, got shape {array.shape}; pass one image at a time"
        )
    return array.astype(bool)


def _structure(connectivity: int) -> np.ndarray:
    if connectivity not in CONNECTIVITY:
        raise SempartError(f"connectivity {connectivity!r} is unknown; choose 4 or 8")
    return CONNECTIVITY[connectivity]


def components(mask: ArrayLike, connectivity: int = 4) -> np.ndarray:
    """Number the connected components of a mask.

    Parameters
    ----------
    mask : ``h x w`` bool
    connectivity : 4 or 8

    Returns
    -------
    ``h x w`` int32, 0 outside the mask, 1, 2, ... in raster order of each component's first pixel.

    Raises
    ------
    SempartError
        The mask is not two-dimensional, or the connectivity is neither 4 nor 8.
    """
    return ndimage.label(_mask(mask), structure=_structure(connectivity))[0]


def areas(labels: np.ndarray) -> np.ndarray:
    """Pixels of components 1, 2, ... of a label image (the first entry belongs to label 1)."""
    return np.bincount(labels.ravel(), minlength=1)[1:]


def component_of(mask: ArrayLike, seed: int | tuple[int, int], connectivity: int = 4) -> np.ndarray:
    """The component that holds a seed.

    Parameters
    ----------
    mask : ``h x w`` bool
    seed : int or (row, column)
        An integer counts cells row by row from 0.

    Returns
    -------
    ``h x w`` bool, all false if the seed lies outside the mask.
    """
    labels = components(mask, connectivity)
    row, col = divmod(int(seed), labels.shape[1]) if np.ndim(seed) == 0 else (int(s) for s in seed)
    if not (0 <= row < labels.shape[0] and 0 <= col < labels.shape[1]):
        raise SempartError(f"seed {seed} lies outside the grid {labels.shape}; give a cell inside it")
    label = labels[row, col]
    return (labels == label) & (label > 0)


def largest_component(mask: ArrayLike, connectivity: int = 4) -> np.ndarray:
    """The component with most pixels (of equals the first in raster order), all false for an empty mask."""
    labels = components(mask, connectivity)
    sizes = areas(labels)
    return labels == sizes.argmax() + 1 if sizes.size else np.zeros(labels.shape, bool)


def box_of(mask: ArrayLike, patch: int = 1, size: tuple[int, int] | None = None) -> np.ndarray | None:
    """Tight box around all true cells.

    Parameters
    ----------
    mask : ``h x w`` bool
    patch : int
        Pixels a cell covers in each direction.
    size : (H, W), optional
        Clip the box to an image of this many pixels (the grid may reach into padding).

    Returns
    -------
    float64 ``(x_min, y_min, x_max, y_max)``, right and bottom exclusive, or None for an empty mask.
    """
    mask = _mask(mask)
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    box = np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1], dtype=np.float64) * patch
    if size is not None:
        box = np.minimum(box, [size[1], size[0], size[1], size[0]])
    return box


def boxes_of(
    mask: ArrayLike,
    patch: int = 1,
    size: tuple[int, int] | None = None,
    *,
    connectivity: int = 4,
    min_area: int = 1,
) -> np.ndarray:
    """Boxes of all components, the largest component first.

    Parameters
    ----------
    mask, patch, size
        As in :func:`box_of`.
    connectivity : 4 or 8
    min_area : int
        Leave out components of fewer cells.

    Returns
    -------
    ``n x 4`` float64; ``0 x 4`` for an empty mask.
    """
    labels = components(mask, connectivity)
    sizes = areas(labels)
    order = [i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= min_area]
    return np.array([box_of(labels == i + 1, patch, size) for i in order]).reshape(-1, 4)


def erode(mask: ArrayLike, iterations: int = 1, connectivity: int = 4) -> np.ndarray:
    """Peel cells off the boundary; the border of the image does not count as outside."""
    return ndimage.binary_erosion(_mask(mask), _structure(connectivity), iterations, border_value=1)


def dilate(mask: ArrayLike, iterations: int = 1, connectivity: int = 4) -> np.ndarray:
    """Grow a mask cell by cell (Deep Spectral dilates each segment before drawing its box)."""
    return ndimage.binary_dilation(_mask(mask), _structure(connectivity), iterations)


def border_fraction(labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Share of the image border each label occupies; Deep Spectral calls the largest share background.

    Parameters
    ----------
    labels : ``h x w`` int or bool

    Returns
    -------
    (values, shares)
        Labels seen on the border, ascending, and their shares, which sum to 1. Corners count twice,
        once for each side they belong to.
    """
    labels = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    values, counts = np.unique(border, return_counts=True)
    return values, counts / border.size


def boundary_length(mask: ArrayLike) -> int:
    """Number of pairs of 4-neighbours of which one is inside: the length of the outline in pixel sides.

    The border of the image does not count. On a grid a slanted line is as long as its two legs, so compare
    lengths with those of another mask of the same photograph.
    """
    inside = _mask(mask)
    return int((inside[1:] != inside[:-1]).sum() + (inside[:, 1:] != inside[:, :-1]).sum())


def outline_ratio(mask: ArrayLike, truth: ArrayLike) -> float:
    """:func:`boundary_length` of a mask by that of the truth: above 1 jagged or speckled, below 1 smooth.

    A truth without an outline (it fills the image, or is empty) counts as one pixel side.
    """
    return boundary_length(mask) / max(boundary_length(truth), 1)
