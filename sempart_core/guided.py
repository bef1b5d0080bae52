"""Guided filter (He, Sun, Tang 2013): a mask that follows the edges of its photograph, differentiably."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import SempartError

#: Rec. 601 luma, the grey of PIL and of most photographs' software.
LUMA = (0.299, 0.587, 0.114)

#: Pixels of a photograph that are filtered at a time, in strips of whole rows: intermediate pictures of twelve
#: megapixels would fill gigabytes and leave the processor waiting for memory.
STRIP = 1 << 19


class _WindowSum(torch.autograd.Function):
    """Sum over the window with zeros beyond the border, by doubling: sums of 2, 4, 8... neighbours.

    The number of additions grows with the logarithm of the radius, and they round like a tree of sums, where a
    running sum would need float64. The map's matrix is symmetric, so its gradient is the map itself.
    """

    @staticmethod
    def forward(ctx, x: Tensor, radius: int) -> Tensor:
        ctx.radius = radius
        reach = [min(radius, n - 1) for n in x.shape[-2:]]
        x = F.pad(x, (reach[1], reach[1], reach[0], reach[0]))
        return _runs(_runs(x, 2 * reach[1] + 1, -1), 2 * reach[0] + 1, -2)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return _WindowSum.apply(grad, ctx.radius), None


def _runs(x: Tensor, n: int, dim: int) -> Tensor:
    """Sums of ``n`` neighbours along one dimension, which gets ``n - 1`` shorter."""
    out, done = x, 1
    for bit in f"{n:b}"[1:]:
        size = out.shape[dim] - done
        out = out.narrow(dim, 0, size) + out.narrow(dim, done, size)
        done *= 2
        if bit == "1":
            out = out.narrow(dim, 0, size - 1) + x.narrow(dim, done, size - 1)
            done += 1
    return out


def box_sum(x: Tensor, radius: int) -> Tensor:
    """Sum over the ``(2 radius + 1)^2`` window, cut off at the image border: ``B x C x H x W``."""
    return _WindowSum.apply(x, radius)


def box_mean(x: Tensor, radius: int) -> Tensor:
    """Mean over the same window: ``B x C x H x W``."""
    return box_sum(x, radius) * _share(x, radius)


def _share(x: Tensor, radius: int) -> Tensor:
    """One over the number of pixels in each window, ``H x W``."""
    counts = []
    for n in x.shape[-2:]:
        i = torch.arange(n, device=x.device)
        counts.append((i + radius).clamp(max=n - 1) - (i - radius).clamp(min=0) + 1)
    return 1 / (counts[0][:, None] * counts[1]).to(x.dtype)


def guided_filter(guide: Tensor, p: Tensor, radius: int = 9, eps: float = 1e-3, subsample: int = 1) -> Tensor:
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
    subsample : int
        Above 1 the linear functions are fitted to pictures that are smaller by this factor, with windows as
        large, and enlarged bilinearly (He and Sun 2015, fast guided filter). An approximation.

    Returns
    -------
    Tensor
        ``B x C x H x W``, differentiable with respect to both inputs. Values may leave the range of ``p``.

    Raises
    ------
    SempartError
        Sizes differ, the guide has neither one nor three channels, ``p`` is not of a floating
        point type, eps is not positive, or radius or subsample is no whole number of at least 1.

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
    if not p.is_floating_point():
        raise SempartError(f"a mask of type {p.dtype} cannot hold the result: give p.float()")
    for name, value in {"radius": radius, "subsample": subsample}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SempartError(f"{name}={value!r}: give a whole number of at least 1")
    if not 0 < eps < float("inf"):
        raise SempartError(f"eps={eps!r}: give a positive number; Two Tricks has 1e-3")
    if p.dtype.itemsize < 4:  # sums over a window do not fit half precision
        return guided_filter(guide.float(), p.float(), radius, eps, subsample).to(p.dtype)
    guide = guide.to(p.dtype)
    if subsample > 1:
        size = [-(-n // subsample) for n in p.shape[-2:]]
        small = (F.interpolate(x, size, mode="area") for x in (guide, p))
        a, b = _coefficients(*small, max(1, round(radius / subsample)), eps)
        a, b = (F.interpolate(x, p.shape[-2:], mode="bilinear", align_corners=False) for x in (a, b))
        return _apply(a, b, guide)
    # a result depends on twice the radius around it, so strips of rows with that margin are independent
    H, W = p.shape[-2:]
    rows = max(STRIP // W, 4 * radius, 1)
    out = []
    for top in range(0, H, rows):
        first, last = max(top - 2 * radius, 0), min(top + rows + 2 * radius, H)
        strip = guide[..., first:last, :]
        done = _apply(*_coefficients(strip, p[..., first:last, :], radius, eps), strip)
        out.append(done[..., top - first : min(top + rows, H) - first, :])
    return out[0] if len(out) == 1 else torch.cat(out, -2)


def _coefficients(guide: Tensor, p: Tensor, radius: int, eps: float) -> tuple[Tensor, Tensor]:
    """Slopes ``B x GC x H x W``, channels of the guide outermost, and offsets ``B x C x H x W``; means over windows."""
    share = _share(p, radius)
    mean = lambda x: box_sum(x, radius) * share  # noqa: E731
    planes = guide.split(1, 1)
    n = len(planes)
    mean_i, mean_p = [mean(x) for x in planes], mean(p)
    cov = [mean(x * p) - m * mean_p for x, m in zip(planes, mean_i, strict=True)]
    var = [[None] * n for _ in planes]
    for i in range(n):
        for j in range(i, n):
            var[i][j] = mean(planes[i] * planes[j]) - mean_i[i] * mean_i[j]
        var[i][i] = var[i][i] + eps
    a = _solve(var, cov)
    b = mean_p - sum(x * m for x, m in zip(a, mean_i, strict=True))
    return torch.cat([mean(x) for x in a], 1), mean(b)


def _solve(var: list[list[Tensor]], cov: list[Tensor]) -> list[Tensor]:
    """Gaussian elimination for a small system in every pixel; needs no pivots, ``var`` being positive definite.

    ``var`` holds planes ``B x 1 x H x W``, of which those above the diagonal are read, and ``cov`` right sides
    ``B x C x H x W``; both lists are overwritten.
    """
    n = len(cov)
    for k in range(n):
        for i in range(k + 1, n):
            factor = var[k][i] / var[k][k]
            for j in range(i, n):
                var[i][j] = var[i][j] - factor * var[k][j]
            cov[i] = cov[i] - factor * cov[k]
    for k in reversed(range(n)):
        for j in range(k + 1, n):
            cov[k] = cov[k] - var[k][j] * cov[j]
        cov[k] = cov[k] / var[k][k]
    return cov


def _apply(a: Tensor, b: Tensor, guide: Tensor) -> Tensor:
    """The linear function of each pixel, at its guide."""
    return (a.unflatten(1, (guide.shape[1], -1)) * guide[:, :, None]).sum(1) + b


def to_guide(images: Tensor, guide: str = "mean") -> Tensor:
    """Turn RGB ``B x 3 x H x W`` into a guide: ``"mean"`` (Two Tricks), ``"luminance"`` or ``"color"``."""
    if guide == "color":
        return images
    if guide == "mean":
        return images.mean(1, keepdim=True)
    if guide == "luminance":
        return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    raise SempartError(f"guide {guide!r} is unknown; choose one of: mean, luminance, color")
