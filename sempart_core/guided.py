"""Guided filter (He, Sun, Tang 2013): a mask that follows the edges of its photograph, differentiably."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import SempartError

#: Rec. 601 luma, the grey of PIL and of most photographs' software.
LUMA = (0.299, 0.587, 0.114)


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over the ``(2 radius + 1)^2`` window, cut off at the image border: ``B x C x H x W``."""
    side = 2 * radius + 1
    for kernel, pad in (((side, 1), (radius, 0)), ((1, side), (0, radius))):
        x = F.avg_pool2d(x, kernel, stride=1, padding=pad, count_include_pad=False)
    return x


def box_sum(x: Tensor, radius: int) -> Tensor:
    """Sum over the same window: ``B x C x H x W``."""
    rows, cols = (
        torch.ones(n, device=x.device, dtype=x.dtype).view(1, 1, -1) for n in (x.shape[-2], x.shape[-1])
    )
    count = lambda t: F.conv1d(t, t.new_ones(1, 1, 2 * radius + 1), padding=radius)[0, 0]  # noqa: E731
    return box_mean(x, radius) * (count(rows)[:, None] * count(cols)[None, :])


def guided_filter(guide: Tensor, p: Tensor, radius: int = 9, eps: float = 1e-3) -> Tensor:
    """Replace ``p``, in each window, by its best linear function of the guide.

    Parameters
    ----------
    guide : Tensor
        ``B x 1 x H x W`` (grey) or ``B x 3 x H x W`` (colour) in [0, 1].
    p : Tensor
        ``B x C x H x W``; what is filtered.
    radius : int
        Windows have ``(2 radius + 1)^2`` pixels, fewer at the border.
    eps : float
        Regularisation in units of squared guide values: edges weaker than ``sqrt(eps)`` are smoothed over.

    Returns
    -------
    Tensor
        ``B x C x H x W``, differentiable with respect to both inputs. Values may leave the range of ``p``.

    Raises
    ------
    SempartError
        Sizes differ, the guide has neither one nor three channels, or radius or eps is not positive.

    Notes
    -----
    Two Tricks: radius 9, eps 1e-3, guide = mean over RGB (segmentation-tricks, guided_filter.py). Its
    standardisation of ``p`` is left out: the filter is linear and keeps constants, so it changes nothing.
    """
    if guide.ndim != 4 or p.ndim != 4 or guide.shape[-2:] != p.shape[-2:] or len(guide) != len(p):
        raise SempartError(
            f"guide {tuple(guide.shape)} and mask {tuple(p.shape)} must be B x C x H x W of one size: resize one"
        )
    if guide.shape[1] not in (1, 3):
        raise SempartError(f"a guide of {guide.shape[1]} channels: give 1 (grey) or 3 (colour)")
    if radius < 1 or eps <= 0:
        raise SempartError(f"radius {radius} and eps {eps} must be positive")
    guide = guide.to(p.dtype)
    mean_i, mean_p = box_mean(guide, radius), box_mean(p, radius)
    # B x C x G x H x W: covariance of every channel of p with every channel of the guide
    both = (p[:, :, None] * guide[:, None]).flatten(1, 2)
    cov = box_mean(both, radius).unflatten(1, (p.shape[1], -1)) - mean_p[:, :, None] * mean_i[:, None]
    if guide.shape[1] == 1:
        var = box_mean(guide * guide, radius) - mean_i * mean_i
        a = cov / (var + eps)[:, None]
    else:
        squares = (guide[:, :, None] * guide[:, None]).flatten(1, 2)
        var = box_mean(squares, radius).unflatten(1, (3, 3)) - mean_i[:, :, None] * mean_i[:, None]
        var = var.permute(0, 3, 4, 1, 2) + eps * torch.eye(3, dtype=p.dtype, device=p.device)
        # one 3 x 3 system per pixel, C right-hand sides
        a = torch.linalg.solve(var, cov.permute(0, 3, 4, 2, 1)).permute(0, 4, 3, 1, 2)
    b = mean_p - (a * mean_i[:, None]).sum(2)
    mean_a = box_mean(a.flatten(1, 2), radius).unflatten(1, a.shape[1:3])
    return (mean_a * guide[:, None]).sum(2) + box_mean(b, radius)


def to_guide(images: Tensor, guide: str = "mean") -> Tensor:
    """Turn RGB ``B x 3 x H x W`` into a guide: ``"mean"`` (Two Tricks), ``"luminance"`` or ``"color"``."""
    if guide == "color":
        return images
    if guide == "mean":
        return images.mean(1, keepdim=True)
    if guide == "luminance":
        return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    raise SempartError(f"guide {guide!r} is unknown; choose one of: mean, luminance, color")
