"""Pairs of random crops of one photograph, and what they share (Differentiable NCut, section 3.3).

A window is four whole numbers ``(top, left, height, width)`` in pixels of the photograph; a box is ``(x0, y0,
x1, y1)`` in shares of a crop's sides.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import SempartError
from .images import resize
from .losses import one_of

#: Share of the photograph a crop covers, its aspect, and the least share of the second crop inside the first.
SCALE, RATIO, OVERLAP = (0.2, 1.0), (3 / 4, 4 / 3), 0.01
#: Strengths of brightness, contrast, saturation and hue: DINO's (paper), and those in the public code.
COLOURS = {"dino": (0.4, 0.4, 0.2, 0.1), "code": (0.8, 0.8, 0.8, 0.2), "none": None}
#: Draws before the second crop repeats the first, and before a photograph is cropped to a fixed aspect.
TRIES = 10


class Pairs(NamedTuple):
    """Two views of each of ``B`` photographs.

    ``views``: ``2 x B x 3 x H x W`` in [0, 1], flipped and coloured. ``boxes``: ``2 x B x 4``, the overlap in each
    view after its flip. ``flips``: ``2 x B`` bool.
    """

    views: Tensor
    boxes: Tensor
    flips: Tensor


def checked_scale(scale: tuple[float, float]) -> tuple[float, float]:
    """The two shares as numbers, if they are shares.

    Raises
    ------
    SempartError
        They are not ``(low, high)`` with ``0 < low <= high <= 1``.
    """
    try:
        low, high = map(float, scale)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 < low <= high <= 1:
        raise SempartError(
            f"scale={scale!r}: give the least and the largest share of the photograph, in (0, 1], such as {SCALE}"
        )
    return low, high


def random_window(
    size: tuple[int, int],
    generator: torch.Generator,
    inside: Sequence[int] | None = None,
    scale: tuple[float, float] = SCALE,
) -> tuple[int, int, int, int]:
    """Draw a window of a photograph of ``size = (H, W)`` pixels.

    Parameters
    ----------
    generator : Generator
        On the CPU.
    inside : window, optional
        :data:`OVERLAP` of the new window's area must lie in this one. Where no draw does, this one is
        returned; the public code then drops the condition, and an empty overlap has no mask.
    scale : (float, float)
        Share of the photograph's area; not checked here, see :func:`checked_scale`.

    Returns
    -------
    (top, left, height, width)
    """
    H, W = size
    for _ in range(TRIES):
        u, v = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        area = (scale[0] + u * (scale[1] - scale[0])) * H * W
        aspect = math.exp(math.log(RATIO[0]) + v * math.log(RATIO[1] / RATIO[0]))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= W and 0 < h <= H:
            top = int(torch.randint(0, H - h + 1, (), generator=generator))
            left = int(torch.randint(0, W - w + 1, (), generator=generator))
            window = (top, left, h, w)
            if inside is None or shared_area(window, inside) >= OVERLAP * h * w:
                return window
    if inside is not None:
        return tuple(int(v) for v in inside)
    # A photograph of an extreme aspect: its middle, at the nearest aspect allowed.
    w, h = min(W, round(H * RATIO[1])), min(H, round(W / RATIO[0]))
    return (H - h) // 2, (W - w) // 2, h, w


def shared_area(a: Sequence[int], b: Sequence[int]) -> int:
    """Pixels in both windows."""
    rows = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    cols = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(0, rows) * max(0, cols)


def overlap_boxes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Where windows ``B x 4`` meet: boxes ``B x 4`` in shares of the first, and of the second.

    Raises
    ------
    SempartError
        They do not meet.
    """
    first, second = first.double(), second.double()
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    if bool((high <= low).any()):
        raise SempartError("two windows have no pixel in common: draw the second with inside=first")
    a, b = (torch.cat([low - w[:, :2], high - w[:, :2]], 1) / w[:, 2:].repeat(1, 2) for w in (first, second))
    order = [1, 0, 3, 2]  # (y, x) of the window to (x, y) of the box
    return a[:, order].float(), b[:, order].float()


def flip_boxes(boxes: Tensor, flips: Tensor) -> Tensor:
    """Boxes ``B x 4`` in the mirrored views, where ``flips`` says so."""
    turned = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
    return torch.where(flips[:, None], turned, boxes)


def align(x: Tensor, boxes: Tensor, flips: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Bring the overlap of each view to the same upright grid: RoIAlign, then un-flip.

    Parameters
    ----------
    x : Tensor
        ``B x C x h x w`` float32 or float64.
    boxes, flips : Tensor
        ``B x 4`` in shares, as they lie in the (flipped) view, and ``B`` bool.
    size : (int, int), optional
        Of the result; ``(h, w)`` if None.

    Returns
    -------
    Tensor
        ``B x C x h' x w'``, differentiable in ``x``.
    """
    from torchvision.ops import roi_align

    if x.ndim != 4 or boxes.shape != (len(x), 4) or flips.shape != (len(x),):
        raise SempartError(
            f"x {tuple(x.shape)}, boxes {tuple(boxes.shape)}, flips {tuple(flips.shape)}: give B x C x h x w, B x 4, B"
        )
    h, w = x.shape[-2:]
    scaled = boxes.to(x) * x.new_tensor([w, h, w, h])
    rois = torch.cat([torch.arange(len(x), device=x.device, dtype=x.dtype)[:, None], scaled], 1)
    out = roi_align(x, rois, tuple(size or (h, w)), aligned=True)
    return torch.where(flips.to(x.device)[:, None, None, None], out.flip(-1), out)


def unit(x: Tensor) -> Tensor:
    """``B x C x h x w`` with features of length 1."""
    return F.normalize(x, dim=1)


def crop_pairs(
    pictures: Sequence[np.ndarray],
    size: int,
    seeds: Sequence[int],
    *,
    colours: str = "dino",
    scale: tuple[float, float] = SCALE,
) -> Pairs:
    """Two views of each photograph.

    Parameters
    ----------
    pictures : sequence of ndarray
        ``H x W x 3`` uint8 of any sizes.
    size : int
        Side of a view in pixels.
    seeds : sequence of int
        One a photograph: its pair does not depend on the rest of the batch.
    colours : str
        A name in :data:`COLOURS`; ``none`` leaves colours, blur and solarisation out.
    scale : (float, float)
        Share of the photograph that a crop covers.

    Returns
    -------
    Pairs
        On the CPU; the global random numbers are left alone.
    """
    one_of(colours, "colours", COLOURS)
    scale = checked_scale(scale)
    views, windows, flips = ([], []), ([], []), []
    for picture, seed in zip(pictures, seeds, strict=True):
        draw = torch.Generator().manual_seed(seed)
        first = random_window(picture.shape[:2], draw, scale=scale)
        second = random_window(picture.shape[:2], draw, first, scale)
        turned = (torch.rand(2, generator=draw) < 0.5).tolist()
        flips.append(turned)
        for i, (top, left, h, w) in enumerate((first, second)):
            cut = resize(picture[top : top + h, left : left + w], (size, size))
            cut = cut[:, ::-1] if turned[i] else cut
            view = torch.from_numpy(cut.copy()).permute(2, 0, 1).float() / 255
            if COLOURS[colours] is not None:
                view = coloured(view, i, colours, int(torch.randint(2**62, (), generator=draw)))
            views[i].append(view)
            windows[i].append((top, left, h, w))
    flips = torch.tensor(flips).T
    boxes = overlap_boxes(*(torch.tensor(w) for w in windows))
    boxes = torch.stack([flip_boxes(b, f) for b, f in zip(boxes, flips, strict=True)])
    return Pairs(torch.stack([torch.stack(v) for v in views]), boxes, flips)


def coloured(view: Tensor, which: int, colours: str, seed: int) -> Tensor:
    """A view ``3 x H x W`` in other colours; the first is always blurred, the second now and then solarised."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return _colours(which, colours)(view[None])[0].clamp(0, 1)


@functools.cache
def _colours(which: int, colours: str):
    import kornia.augmentation as K

    steps = [
        K.ColorJitter(*COLOURS[colours], p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur((13, 13), (0.1, 2.0), p=(1.0, 0.1)[which]),
    ]
    if which == 1:
        steps.append(K.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=0.2))
    return K.AugmentationSequential(*steps, data_keys=["input"])
