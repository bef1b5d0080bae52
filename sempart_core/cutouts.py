"""What is drawn of a mask: the cut-out with its transparency, the overlay, and both as PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from .images import resize

#: Slope of alpha at the edge of a cut-out: a refined mask is grey inside the object too, and a cut-out
#: with that alpha would be a ghost. From 1/2 +- 1/(2 EDGE) on it is solid or gone.
EDGE = 8

#: Longest side of an overlay in pixels: it is there to be looked at, and encoding it at the size of a large
#: photograph takes longer than finding the object.
OVERLAY_SIDE = 1600

OVERLAY_COLOUR = (230, 60, 30)


def matte(soft: np.ndarray) -> np.ndarray:
    """Alpha ``H x W`` uint8 of a cut-out, above 127 exactly where ``soft > .5``: grey only at the edge.

    ``ceil(255 a - 1/2)`` of ``a = EDGE (soft - 1/2) + 1/2``, in place: half rounds down.
    """
    alpha = soft * np.float32(255 * EDGE)
    alpha += np.float32(127 - 255 * EDGE / 2)
    np.ceil(alpha, out=alpha)
    return alpha.clip(0, 255, out=alpha).astype(np.uint8)


def cutout(image: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """``H x W x 4`` uint8: the photograph with alpha above 127 exactly where ``soft > .5``.

    Pixels that are wholly transparent are black: what was cut away is not in the file.

    Parameters
    ----------
    image : ndarray
        ``H x W x 3`` uint8.
    soft : ndarray
        ``H x W`` float in [0, 1].
    """
    alpha = matte(soft)
    shown = (alpha > 0).view(np.uint8)
    return np.stack([*(image[..., c] * shown for c in range(3)), alpha], axis=-1)


def overlay(image: np.ndarray, mask: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The photograph with the background dimmed, the mask tinted and outlined, and its boxes drawn.

    Parameters
    ----------
    image : ndarray
        ``H x W x 3`` uint8.
    mask : ndarray
        ``H x W`` bool.
    boxes : ndarray
        ``n x 4`` pixels, right and bottom exclusive.

    Returns
    -------
    ndarray
        ``H x W x 3`` uint8, reduced where the photograph is larger than :data:`OVERLAY_SIDE`.
    """
    scale = min(1.0, OVERLAY_SIDE / max(mask.shape))
    if scale < 1:
        size = tuple(max(1, round(s * scale)) for s in mask.shape)
        image = resize(image, size)
        mask = resize(mask.astype(np.uint8), size, Image.Resampling.NEAREST) > 0
    width = max(1, round(min(mask.shape) / 250))
    levels = np.arange(256, dtype=np.float32)[:, None]
    tinted = (0.75 * levels + 0.25 * np.array(OVERLAY_COLOUR, np.float32)).round().astype(np.uint8)
    dimmed = (0.55 * levels).round().astype(np.uint8).repeat(3, axis=1)
    channels = [np.where(mask, tinted[image[..., c], c], dimmed[image[..., c], c]) for c in range(3)]
    out = np.stack(channels, axis=-1)
    inside = mask.view(np.uint8)
    for axis in (0, 1):
        inside = ndimage.minimum_filter1d(inside, 2 * width + 1, axis, mode="nearest")
    out[mask & (inside == 0)] = OVERLAY_COLOUR
    for x0, y0, x1, y1 in np.round(boxes * scale).astype(int):
        for rows, columns in (
            (slice(y0, y0 + width), slice(x0, x1)),
            (slice(max(y0, y1 - width), y1), slice(x0, x1)),
            (slice(y0, y1), slice(x0, x0 + width)),
            (slice(y0, y1), slice(max(x0, x1 - width), x1)),
        ):
            out[rows, columns] = 255
    return out


def png(array: np.ndarray) -> bytes:
    """An array as PNG, compressed lightly: of a photograph, more effort saves little and takes seconds."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
