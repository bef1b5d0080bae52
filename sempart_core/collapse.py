"""The monitor of collapse: masks that agree because they say nothing (Differentiable NCut, section 4.5, figure 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from .mask_consistency import binary_iou

__all__ = ["collapse_shares"]


@torch.no_grad()
def collapse_shares(m: Tensor, close: float = 0.9, span: float = 0.05) -> dict[str, float]:
    """Shares of masks near one of the three patterns that a collapse ends in (figure 5).

    Parameters
    ----------
    m : Tensor
        ``B x h x w`` in [0, 1].
    close : float
        A mask above 1/2 is ``horizontal`` if some set of whole rows, not empty and not all, has an IoU above
        this with it and its complement with the complement: halves and stripes alike. ``vertical``: columns.
    span : float
        ``uniform``: the middle nine tenths of the values differ by less than this. All of them cannot: a unit vector
        orthogonal to 1, as those of ``D - W`` are, spans ``2 / sqrt(N)`` at least. A mask of one grey belongs to a
        vector that lives on a few patches.
    """
    hard = m > 0.5
    low, high = torch.quantile(m.float().flatten(1), m.new_tensor([0.05, 0.95], dtype=torch.float32), dim=1)
    uniform = (high - low) < span
    out = {}
    for name, dim in (("horizontal", 2), ("vertical", 1)):
        lines = (hard.float().mean(dim, keepdim=True) > 0.5).expand_as(hard).flatten(1)
        flat = hard.flatten(1)
        agree = torch.minimum(binary_iou(flat, lines), binary_iou(~flat, ~lines))
        out[name] = ((agree > close) & ~uniform).float().mean().item()
    return {**out, "uniform": uniform.float().mean().item()}
