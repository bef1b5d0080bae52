"""The smallest network that can collapse: frozen features, and two numbers that say how much the place counts.

A vision transformer knows where in the view a patch lies. Here that knowledge lies beside the features in the open, as
codes of row and column with one strength each, and the strengths are all that is trained. What the loss of mask
consistency makes of them, it would like to make of a whole network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .backbones import Backbone
from .collapse import collapse_shares
from .crop_pairs import align, unit
from .errors import SempartError
from .finetune_data import PairSet
from .finetune_model import Encoder
from .mask_consistency import MaskConsistency, pair_loss
from .training_loop import generator
from .training_setup import whole


def position_codes(grid: tuple[int, int]) -> Tensor:
    """``4 x h x w``: cosine and sine of half a turn along the rows, then along the columns.

    Two patches of rows ``y`` and ``y'`` have the product ``cos(pi (y - y') / h)``: alike where near, opposite at the
    two edges, whatever their columns.
    """
    if min(grid) < 1:
        raise SempartError(f"grid={grid}: give at least one row and one column")
    h, w = grid
    y, x = ((torch.arange(n) + 0.5) / n * math.pi for n in grid)
    rows, columns = (torch.stack([t.cos(), t.sin()]) for t in (y, x))
    return torch.cat([rows[:, :, None].expand(2, h, w), columns[:, None].expand(2, h, w)])


class PositionCodes(nn.Module):
    """Unit features, the code of the row at one strength, and that of the column at another.

    Parameters
    ----------
    start : float
        Of both strengths. Only their squares reach a product, so that a strength of 0 has no gradient.
    """

    def __init__(self, start: float = 0.1) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full((2,), float(start)))

    def forward(self, f: Tensor) -> Tensor:
        """``B x (D + 4) x h x w`` from features ``B x D x h x w``."""
        codes = position_codes(tuple(f.shape[-2:])).to(f) * self.strength.repeat_interleave(2)[:, None, None]
        return torch.cat([unit(f), codes.expand(len(f), -1, -1, -1)], 1)


@dataclass(frozen=True)
class Collapsed:
    """What :func:`tune_strengths` hands back.

    Parameters
    ----------
    log : tuple of dict
        One row a step: ``step``, ``rows`` and ``columns`` (the strengths before it), ``mask`` (the first term of the
        loss), ``iou`` of the pairs, ``selected``, and the shares of the monitor, ``near_horizontal``,
        ``near_vertical``, ``near_uniform``.
    masks : Tensor
        ``n x h x w``: the mask of the overlap in the first view of each photograph, after the last step.
    """

    log: tuple[dict, ...]
    masks: Tensor


def tune_strengths(
    pairs: PairSet,
    backbone: Backbone,
    objective: MaskConsistency,
    *,
    steps: int = 100,
    lr: float = 0.03,
    batch: int = 16,
    start: float = 0.1,
    seed: int = 0,
) -> Collapsed:
    """Train the strengths of :class:`PositionCodes` alone, with Adam, on the first pair of each photograph.

    There is neither projector nor predictor: both views are described alike.

    Parameters
    ----------
    pairs : PairSet
        From :func:`~sempart_core.finetune_data.load_pairs`.
    backbone : Backbone
        The one of the pairs; its default feature is used, and nothing of it is trained.
    objective : MaskConsistency
    steps, lr, batch, start, seed
        ``lr`` in units of a strength; ``seed`` of the order of the photographs.

    Raises
    ------
    SempartError
        Pairs of another backbone, or bad arguments.
    """
    whole(steps=steps, batch=batch)
    whole(0, seed=seed)
    if not 0 < lr < math.inf or not math.isfinite(start):
        raise SempartError(f"lr={lr}, start={start}: give a positive rate, such as .03, and a finite start")
    if pairs.sha256 != backbone.sha256:
        raise SempartError(
            f"the pairs were loaded for weights {pairs.sha256[:12] or '?'}: give tune_strengths the same backbone"
        )
    place, n, size = backbone.device, len(pairs), (pairs.size, pairs.size)
    encoder = Encoder(backbone, pairs.blocks)
    drawn = [pairs.batch(i, 1, place) for i in torch.arange(n).split(batch)]
    with torch.no_grad():
        f = torch.cat([encoder(x.flatten(0, 1), size).unflatten(0, x.shape[:2]) for x, _, _ in drawn], 1)
    boxes, flips = (torch.cat([part[k] for part in drawn], 1) for k in (1, 2))
    model = PositionCodes(start).to(place)
    stepper = torch.optim.Adam(model.parameters(), lr=lr)

    def overlap(i: Sequence[int] | Tensor, view: int) -> Tensor:
        x = align(model(f[view, i]), boxes[view, i], flips[view, i])
        return x.permute(0, 2, 3, 1)

    log, order = [], torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < min(batch, n):
            order = torch.randperm(n, generator=generator(seed, step + 1))
        i, order = order[:batch], order[batch:]
        one, two = overlap(i, 0), overlap(i, 1)
        terms = pair_loss(objective, (one, one, two, two), "ignore")
        rows, columns = model.strength.detach().tolist()
        near = {f"near_{k}": v for k, v in collapse_shares(terms["m1"]).items()}
        said = {k: terms[k].item() for k in ("mask", "iou", "selected")}
        log.append({"step": step + 1, "rows": rows, "columns": columns, **said, **near})
        stepper.zero_grad()
        terms["total"].backward()
        stepper.step()
    with torch.no_grad():
        x = torch.cat([overlap(i, 0) for i in torch.arange(n).split(batch)])
        masks = torch.sigmoid(objective.vectors(x, "ignore") / objective.temperature)
    return Collapsed(tuple(log), masks.reshape(n, *x.shape[1:3]).cpu())
