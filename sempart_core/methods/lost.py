"""LOST (Simeoni et al., BMVC 2021): the least connected patch is the seed; similar patches join it.

As read in the public code (protocols 1.2): raw, un-normalised features; degree = number of positive
inner products with other patches; seed = lowest degree; of the ``k`` lowest-degree patches those with a
positive product with the seed vote, ``M = sum of their rows of F F'``; mask = the seed's 4-connected
component of ``M > 0``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import affinity, regions
from ..errors import SempartError
from ..features import Features
from ..registry import Card
from .base import METHODS, Method, Prediction, component_or_side, padded_size, pixel_boxes


def degrees(x: Tensor) -> Tensor:
    """Number of other patches with a positive inner product; ``B x N x D`` -> ``B x N`` int64."""
    positive = torch.bmm(x, x.transpose(1, 2)) > 0
    own = positive.diagonal(dim1=1, dim2=2).long()
    return positive.sum(dim=2) - own


def expand(x: Tensor, order: Tensor, k: int = 100) -> tuple[Tensor, Tensor]:
    """Seed expansion of one image.

    Parameters
    ----------
    x : Tensor
        ``N x D`` raw features.
    order : Tensor
        ``N`` patch indices from the lowest degree up; its head is the seed. Ties are the caller's:
        the public code sorts without a stable order.
    k : int
        How many patches are candidates.

    Returns
    -------
    similars : Tensor
        The candidates with a positive inner product with the seed, in ``order``.
    M : Tensor
        ``N`` sum of the inner products with them.
    """
    candidates = order[:k]
    similars = candidates[x[candidates] @ x[order[0]] > 0]
    return similars, (x[similars] @ x.T).sum(dim=0)


class LOST(Method):
    """LOST with ``k`` candidate patches (paper and code: 100 of about 1,200; give ``k`` for small grids).

    Parameters
    ----------
    k : int
        Candidates for the expansion; a float in (0, 1) is a share of the patches.
    foreground : str, optional
        None: the seed's component of ``M > 0``. A strategy name: the side of ``M > 0`` it chooses.
    """

    policy = "pad"

    def __init__(self, k: int | float = 100, foreground=None, backbone=None):
        super().__init__(backbone)
        if k <= 0:
            raise SempartError(f"LOST: k={k!r}; give a number of patches or a share in (0, 1)")
        self.k, self.foreground = k, foreground

    def from_features(self, f: Features) -> Prediction:
        features = affinity._features(f.x, "features")
        n = features.shape[1]
        k = max(1, round(self.k * n)) if isinstance(self.k, float) and self.k < 1 else int(self.k)
        order = degrees(features).argsort(dim=1, stable=True)
        M = torch.stack([expand(x, o, k)[1] for x, o in zip(features, order, strict=True)]).cpu()
        seed = order[:, 0].cpu()
        positive = (M > 0).reshape(-1, *f.grid)
        # The seed votes for itself, |f_s|^2 > 0, but others may outvote it: keep the component anyway.
        mask = component_or_side(positive, seed, self.foreground, f)
        covers = padded_size(f)
        return Prediction(
            soft=mask.float(),
            mask=mask,
            seed=seed,
            boxes=pixel_boxes([regions.box_of(m.numpy()) for m in mask], f.grid, covers, f.size),
            size=f.size,
            covers=covers,
        )


METHODS.register(
    Card(
        "lost",
        "Seed of lowest degree, expanded over similar patches; for boxes.",
        source="Simeoni et al. 2021; public code (protocols 1.2)",
        cost="one Gram matrix an image",
        extra={"policy": "pad", "k": 100},
    ),
    LOST,
)
