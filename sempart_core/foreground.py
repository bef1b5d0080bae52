"""Which side of a cut is the object? The four strategies of SEMPART, section 4.1, and that of Two Tricks.

A normalized cut has two sides and does not name them. Each strategy gives both sides a score, the
lower score wins, and of equal scores the smaller side wins (the paper says so for framing and corners;
for the others ties are rare, and we use the same rule). Sides that tie in size too stay as they are.
``batch-mean`` is the exception: one decision for all images of a batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import SempartError
from .registry import Card, Registry

STRATEGIES = Registry("foreground strategy")
#: The strategy that decides once a batch, so that its answer depends on the batch.
TOGETHER = "batch-mean"
_SEMPART = "SEMPART, section 4.1, 'Foreground selection'"


@STRATEGIES.register(Card("centrality", "side with the lower mean distance to the centre", f"{_SEMPART} (a)"))
def centrality(side: Tensor, attention: Tensor | None = None) -> Tensor:
    """Mean distance, in cells, of a side's cells to the centre of the grid: ``B x h x w -> B``."""
    h, w = side.shape[-2:]
    y = torch.arange(h, device=side.device, dtype=torch.float64) - (h - 1) / 2
    x = torch.arange(w, device=side.device, dtype=torch.float64) - (w - 1) / 2
    distance = torch.hypot(y[:, None], x[None, :])
    return (side * distance).sum((1, 2)) / side.sum((1, 2)).clamp(min=1)


@STRATEGIES.register(
    Card("framing", "side that does not span the full width or height", f"{_SEMPART} (b), after SelfMask")
)
def framing(side: Tensor, attention: Tensor | None = None) -> Tensor:
    """1 where the side's extent is the full width or the full height, else 0: ``B x h x w -> B``."""
    spans = lambda s: s[:, 0] & s[:, -1]  # noqa: E731
    return (spans(side.any(1)) | spans(side.any(2))).double()


@STRATEGIES.register(
    Card(
        "attention",
        "side with the greater total attention of the CLS token",
        f"{_SEMPART} (c) and 4.4 ('total')",
    )
)
def total_attention(side: Tensor, attention: Tensor | None = None) -> Tensor:
    """Minus the attention summed over the side: ``B x h x w -> B``."""
    return -(side * attention).sum((1, 2))


@STRATEGIES.register(
    Card(
        "attention-mean",
        "side with the greater mean attention of the CLS token",
        f"a variant of {_SEMPART} (c)",
    )
)
def mean_attention(side: Tensor, attention: Tensor | None = None) -> Tensor:
    """Minus the attention averaged over the side: ``B x h x w -> B``."""
    return total_attention(side, attention) / side.sum((1, 2)).clamp(min=1)


@STRATEGIES.register(Card("least-corners", "side that holds fewer of the four corners", f"{_SEMPART} (d)"))
def corners(side: Tensor, attention: Tensor | None = None) -> Tensor:
    """Number of image corners in the side: ``B x h x w -> B``."""
    return side[:, :: max(side.shape[1] - 1, 1), :: max(side.shape[2] - 1, 1)].sum((1, 2)).double()


@STRATEGIES.register(
    Card("smaller", "side with fewer cells", "Deep Spectral's sign rule (more than half positive: negate)")
)
def smaller(side: Tensor, attention: Tensor | None = None) -> Tensor:
    """Every side scores 0, so the tie rule alone decides: ``B x h x w -> B``."""
    return side.new_zeros(len(side), dtype=torch.float64)


@STRATEGIES.register(
    Card(
        TOGETHER,
        "all masks of a batch, or all complements: those that fill less than half of it",
        "Two Tricks, section 5.1, 'Foreground selection'; its code: batches of 8, in the order of the list",
    )
)
def batch_mean(side: Tensor, attention: Tensor | None = None) -> Tensor:
    """Mean of the side over all pixels of the whole batch, the same for each image: ``B x h x w -> B``."""
    return side.double().mean().expand(len(side))


def flips(
    mask: Tensor,
    strategy: str,
    attention: Tensor | None = None,
    *,
    grid: tuple[int, int] | None = None,
    soft: Tensor | None = None,
) -> Tensor:
    """Whether the complement is the foreground: ``B`` bool; parameters as in :func:`select`."""
    score: Callable[..., Tensor] = STRATEGIES[strategy]
    if mask.ndim != 3:
        raise SempartError(f"mask must be B x h x w, got shape {tuple(mask.shape)}; add the batch dimension")
    mask = mask.bool()
    if strategy == TOGETHER:
        if soft is not None and soft.shape != mask.shape:
            raise SempartError(
                f"soft masks of shape {tuple(soft.shape)} do not fit masks of shape {tuple(mask.shape)}: give the "
                f"soft mask of each"
            )
        return score(mask if soft is None else soft) > 0.5
    if strategy.startswith("attention"):
        attention = _attention(attention, mask, grid, strategy)
    ours, theirs = score(mask, attention), score(~mask, attention)
    size = mask.sum((1, 2))
    rest = mask[0].numel() - size
    # Symmetric sides must tie although their sums round differently.
    tie = torch.isclose(ours, theirs, rtol=1e-9, atol=1e-12)
    split = (size > 0) & (rest > 0)
    return split & torch.where(tie, rest < size, theirs < ours)


def select(
    mask: Tensor,
    strategy: str,
    attention: Tensor | None = None,
    *,
    grid: tuple[int, int] | None = None,
    soft: Tensor | None = None,
) -> Tensor:
    """Return each mask or its complement, whichever the strategy takes for the foreground.

    Parameters
    ----------
    mask : Tensor
        ``B x h x w`` bool, one side of a cut per image. A mask that is empty or full has no other side
        to choose and is returned as it is, except by ``batch-mean``.
    strategy : str
        A name in :data:`STRATEGIES`: ``least-corners``, ``centrality``, ``framing``, ``attention`` (total),
        ``attention-mean``, ``smaller``; or ``batch-mean``, which inverts every mask of the batch, empty ones too,
        if their mean over all pixels exceeds 1/2. The batch is the one given here: in
        :func:`~sempart_core.evaluate.evaluate` its ``batch=``, or what one element of precomputed ``features`` holds.
    attention : Tensor, optional
        CLS attention of the last layer, compulsory for the attention strategies: ``B x heads x N`` or
        ``B x N`` on the grid, or a map ``B x h x w``. Heads are summed.
    grid : (int, int), optional
        ``(h', w')`` of an attention given per patch, where the mask is finer than the patches; the
        attention is then brought to the mask's resolution bilinearly.
    soft : Tensor, optional
        ``B x h x w`` in [0, 1], the masks before they were binarised: ``batch-mean`` averages these, as the
        public code does, and the binary masks where a method has no others. Ignored by the other strategies.

    Returns
    -------
    Tensor
        ``B x h x w`` bool.

    Raises
    ------
    SempartError
        Unknown strategy, a mask without batch dimension, attention that is missing or does not fit, or soft
        masks that do not fit.
    """
    return mask.bool() ^ flips(mask, strategy, attention, grid=grid, soft=soft)[:, None, None]


def _attention(attention: Tensor | None, mask: Tensor, grid: tuple[int, int] | None, strategy: str) -> Tensor:
    """Attention as a float64 map of the mask's resolution."""
    if attention is None:
        raise SempartError(f"strategy {strategy!r} needs attention: extract features with attention=True")
    B, h, w = mask.shape
    a = attention.double()
    gh, gw = grid or (h, w)
    if a.shape[0] == B and a.shape[-1] == gh * gw and a.ndim in (2, 3):
        a = (a if a.ndim == 2 else a.sum(1)).view(B, gh, gw)
    elif a.shape != mask.shape:
        raise SempartError(
            f"attention of shape {tuple(a.shape)} does not fit masks of shape {(B, h, w)}: "
            f"give {B} x heads x {gh * gw}, or name the grid of the patches"
        )
    if a.shape[-2:] != (h, w):
        a = F.interpolate(a[:, None], (h, w), mode="bilinear", align_corners=False)[:, 0]
    return a
