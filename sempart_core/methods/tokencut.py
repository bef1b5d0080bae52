"""TokenCut (Wang et al., CVPR 2022): one normalized cut of the token graph, the seed's side is the object.

As read in the public code (protocols 1.1): L2-normalised features, edges ``cos > tau`` weigh 1 and all
others ``eps``, self-loops stay; generalised eigenvector of ``(D - W) y = lambda D y``; split at its mean;
the seed is the patch of largest ``|y|``, its side is foreground, its 4-connected component the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import affinity, regions, spectral
from ..features import Features
from ..registry import Card
from .base import METHODS, Method, Prediction, component_or_side, padded_size, pixel_boxes, threshold_of


def bipartition(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split a Fiedler vector the way TokenCut does.

    Parameters
    ----------
    y : Tensor
        ``B x N``, any sign.

    Returns
    -------
    side : Tensor
        ``B x N`` bool, ``y > mean(y)`` with the sign chosen so that the seed is inside.
    seed : Tensor
        ``B`` int64, ``argmax |y|``.
    y : Tensor
        ``B x N`` with that sign.
    """
    seed = y.abs().argmax(dim=1)
    side = y > y.mean(dim=1, keepdim=True)
    flip = ~side.gather(1, seed[:, None])
    return side ^ flip, seed, torch.where(flip, -y, y)


class TokenCut(Method):
    """TokenCut's saliency path.

    Parameters
    ----------
    tau : float, optional
        Threshold on the cosine; the default that travels with the features if None (paper: .2 on DINO keys).
    eps : float
        Weight of the edges below ``tau``.
    self_loops : bool
        Keep ``W_ii = 1`` as the public code does (SEMPART drops them).
    foreground : str, optional
        None: the seed's component, as in the paper. A strategy of :mod:`sempart_core.foreground`
        ("least-corners", ...): the whole side of the cut it chooses.
    solver : str
        Passed to :func:`sempart_core.spectral.fiedler`.
    """

    def __init__(self, tau=None, eps=1e-5, self_loops=True, foreground=None, solver="auto", backbone=None):
        super().__init__(backbone)
        self.tau, self.eps, self.self_loops = tau, eps, self_loops
        self.foreground, self.solver = foreground, solver

    def from_features(self, f: Features) -> Prediction:
        W = affinity.threshold_affinity(f.x, threshold_of(f, self.tau), self.eps, self.self_loops)
        y = spectral.fiedler(W, solver=self.solver).vectors[:, 0]
        side, seed, y = bipartition(y)
        mask = component_or_side(side.reshape(-1, *f.grid).cpu(), seed, self.foreground, f)
        covers = padded_size(f)
        return Prediction(
            soft=mask.float(),
            mask=mask,
            seed=seed.cpu(),
            boxes=pixel_boxes([regions.box_of(m.numpy()) for m in mask], f.grid, covers, f.size),
            eigenvectors=y[:, None].cpu(),
            size=f.size,
            covers=covers,
        )


class TokenCutDiscovery(TokenCut):
    """TokenCut's discovery path: the same cut on a zero-padded image; the pad patches are nodes too."""

    policy = "pad"


METHODS.register(
    Card(
        "tokencut",
        "One normalized cut of the thresholded token graph; the seed's component is the mask.",
        source="Wang et al. 2022; public code, unsupervised saliency path (protocols 1.1)",
        cost="one Fiedler vector an image",
        extra={"policy": "resize", "tau in the paper": 0.2, "eps": 1e-5},
    ),
    TokenCut,
)
METHODS.register(
    Card(
        "tokencut-discovery",
        "TokenCut with the image zero-padded instead of resized; for boxes (CorLoc).",
        source="Wang et al. 2022; public code, object discovery path (protocols 1.1)",
        cost="one Fiedler vector an image",
        extra={"policy": "pad", "tau in the paper": 0.2, "eps": 1e-5},
    ),
    TokenCutDiscovery,
)
