"""Multi-scale consistency (Two Tricks, section 4): a mask agrees with that of an enlarged part of its photograph.

A window is four whole numbers ``(top, left, height, width)`` in pixels of the network's input.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import SempartError
from .registry import Card, Registry

CROPS = Registry("crop")
_PAPER = "Two Tricks, section 5.1, 'Multi-scale consistency'"


class Zoomed(NamedTuple):
    """What the network sees of a batch of windows, each enlarged to the size of the input.

    ``x``: ``B x N x D`` features. ``images``: ``B x 3 x H x W`` in [0, 1], or None. ``windows``: ``B x 4``.
    ``size``: ``(H, W)`` of the input in which the windows lie.
    """

    x: Tensor
    images: Tensor | None
    windows: Tensor
    size: tuple[int, int]


def crop_windows(
    name: str, size: tuple[int, int], n: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw windows.

    Parameters
    ----------
    name : str
        A rule of :data:`CROPS`.
    size : (int, int)
        ``(H, W)`` of the input in pixels, 32 at least.
    n : int
        How many.
    generator : Generator, optional
        On the CPU; the global one if None.

    Returns
    -------
    Tensor
        ``n x 4`` int64.

    Raises
    ------
    SempartError
        Unknown rule, or an input too small to cut from.
    """
    rule = CROPS[name]
    if min(size) < 32:
        raise SempartError(f"size {size[0]} x {size[1]}: windows are cut from inputs of 32 pixels or more")
    return rule(size, n, generator)


def _anywhere(share: int, size: tuple[int, int], n: int, generator: torch.Generator | None) -> Tensor:
    """Sides ``1 / share`` of the input's, every position alike."""
    h, w = (s // share for s in size)
    top, left = (
        torch.randint(0, s - side + 1, (n,), generator=generator)
        for s, side in zip(size, (h, w), strict=True)
    )
    return torch.stack([top, left, torch.full_like(top, h), torch.full_like(top, w)], 1)


@CROPS.register(Card("paper", "a quarter of each side, anywhere", _PAPER, extra={"pixels": "input"}))
def paper(size: tuple[int, int], n: int, generator: torch.Generator | None = None) -> Tensor:
    """80 x 80 of 320 x 320 pixels."""
    return _anywhere(4, size, n, generator)


@CROPS.register(
    Card(
        "code",
        "half of each side, at half height, near the left edge",
        "segmentation-tricks utils_data.py, protocols 1.4",
        extra={"pixels": "input"},
    )
)
def code(size: tuple[int, int], n: int, generator: torch.Generator | None = None) -> Tensor:
    """160 x 160 of 320 x 320 pixels at row 80 and column 10 to 29.

    The offsets, drawn in patches, were meant to be scaled to pixels: a Python list times a number repeats
    the list. The row is then raised to a quarter of the height.
    """
    h, w = size
    left = torch.randint(w // 32, 3 * w // 32, (n,), generator=generator)
    top, rows, cols = (torch.full_like(left, v) for v in (h // 4, h // 2, w // 2))
    return torch.stack([top, left, rows, cols], 1)


@CROPS.register(Card("half", "half of each side, anywhere", "ours", extra={"pixels": "input"}))
def half(size: tuple[int, int], n: int, generator: torch.Generator | None = None) -> Tensor:
    """What the public code seems to have meant."""
    return _anywhere(2, size, n, generator)


@CROPS.register(
    Card(
        "native",
        "as half, read from the photograph at its own resolution",
        "ours",
        extra={"pixels": "photograph"},
    )
)
def native(size: tuple[int, int], n: int, generator: torch.Generator | None = None) -> Tensor:
    """The enlarged input repeats what the network saw; the photograph has detail that it did not see."""
    return _anywhere(2, size, n, generator)


def crop_zoom(x: Tensor, windows: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Cut one window from each image or mask and enlarge it bilinearly: ``CU`` of Two Tricks, step 2.

    Parameters
    ----------
    x : Tensor
        ``B x C x H x W`` or ``B x H x W``.
    windows : Tensor
        ``B x 4``, inside ``x``.
    size : (int, int), optional
        Of the result; that of ``x`` if None.

    Returns
    -------
    Tensor
        ``B x C x H' x W'`` or ``B x H' x W'``, differentiable in ``x``; pixels outside of a window have no say.

    Raises
    ------
    SempartError
        Shapes that do not fit, or a window that is empty or leaves the image.
    """
    if x.ndim not in (3, 4) or windows.shape != (len(x), 4) or windows.is_floating_point():
        raise SempartError(
            f"x {tuple(x.shape)} and windows {tuple(windows.shape)}: give B x (C x) H x W and B x 4 whole numbers"
        )
    h, w = x.shape[-2:]
    size = tuple(size or (h, w))
    out = []
    for part, (top, left, rows, cols) in zip(x if x.ndim == 4 else x[:, None], windows.tolist(), strict=True):
        if min(top, left) < 0 or min(rows, cols) < 1 or top + rows > h or left + cols > w:
            raise SempartError(
                f"window ({top}, {left}, {rows}, {cols}) does not lie in {h} x {w} pixels: "
                f"give (top, left, height, width)"
            )
        part = part[None, :, top : top + rows, left : left + cols]
        out.append(F.interpolate(part, size, mode="bilinear", align_corners=False)[0])
    out = torch.stack(out)
    return out if x.ndim == 4 else out[:, 0]


def equivariance_loss(mask: Tensor, target: Tensor, zoomed: Zoomed) -> Tensor:
    """Mean squared distance of a mask, inside a window, to the mask of that window enlarged: L_eq.

    Parameters
    ----------
    mask : Tensor
        ``B x h x w`` in [0, 1], of the whole input at any resolution; the student's.
    target : Tensor
        ``B x h' x w'`` in [0, 1], of the enlarged window; no gradient reaches it.
    zoomed : Zoomed
        Its windows and the size of the input.

    Returns
    -------
    Tensor
        ``B`` values in [0, 1]; 0 where to cut and predict is to predict and cut.

    Raises
    ------
    SempartError
        As :func:`crop_zoom`.

    Notes
    -----
    Two Tricks, steps 2 to 4 of section 4; there both masks have the size of the input. A coarser mask is
    first enlarged bilinearly, a coarser target is compared with means over its cells.
    """
    if mask.ndim != 3 or target.ndim != 3 or len(mask) != len(target):
        raise SempartError(f"mask {tuple(mask.shape)} and target {tuple(target.shape)}: give B x h x w each")
    if mask.shape[1:] != zoomed.size:
        mask = F.interpolate(mask[:, None], zoomed.size, mode="bilinear", align_corners=False)[:, 0]
    inside = crop_zoom(mask, zoomed.windows)
    if inside.shape != target.shape:
        inside = F.adaptive_avg_pool2d(inside[:, None], target.shape[1:])[:, 0]
    return (inside - target.detach()).square().mean((1, 2))
