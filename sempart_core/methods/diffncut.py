""" "Simple" of Differentiable NCut (Liu and Gould, ECCV 2024): where the Fiedler vector is positive.

The graph holds the positive cosines, no threshold hides the others' shades, and the smaller side is the object
(protocols 1.9). The method shows what the features alone do: the paper uses it to compare backbones before and
after fine-tuning (tables 4 and 5).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .. import affinity, regions, spectral
from ..errors import SempartError
from ..features import Features
from ..losses import one_of
from ..registry import Card
from .base import METHODS, Method, Prediction, padded_size, pixel_boxes


class DiffNCut(Method):
    """The side ``z_2 > 0`` of one cut, inverted where it covers more than half.

    Parameters
    ----------
    laplacian : str
        ``unnormalized`` (public code) or ``normalized`` (equation 6).
    tau, eps : float
        Cosines above ``tau``, in [0, 1), are weights, all others weigh ``eps``. Not the features' threshold: that one is
        chosen for graphs of 0 and 1.
    temperature : float
        The soft mask is ``sigmoid(z / temperature)``, as in the training.
    k : int
        How many eigenvectors to return, from the Fiedler vector on (figure S4).
    foreground : str, optional
        None: invert above one half. A strategy of :mod:`sempart_core.foreground`: the side it chooses.
    solver : str
        Passed to :func:`sempart_core.spectral.fiedler`.
    """

    own_tau = True

    def __init__(
        self, laplacian="unnormalized", tau=0.0, eps=1e-6, temperature=0.05, k=1, foreground=None, solver="auto",
        backbone=None,
    ):  # fmt: skip
        super().__init__(backbone)
        one_of(laplacian, "laplacian", spectral.LAPLACIANS)
        if not temperature > 0 or not eps > 0:
            raise SempartError(f"diffncut: temperature={temperature} and eps={eps} are positive numbers")
        if not 0 <= tau < 1:  # false for NaN
            raise SempartError(
                f"diffncut: tau={tau}: cosines above it are weights, which are not negative; give a number in "
                f"[0, 1), as the code's 0"
            )
        self.laplacian, self.tau, self.eps = laplacian, tau, eps
        self.temperature, self.k, self.foreground, self.solver = temperature, k, foreground, solver

    def from_features(self, f: Features) -> Prediction:
        from .. import foreground

        x = F.normalize(affinity._features(f.x, "features"), dim=-1)
        C = x @ x.mT
        W = torch.where(self.tau < C, C, self.eps)
        found = spectral.fiedler(W, k=self.k, laplacian=self.laplacian, solver=self.solver, check=False)
        z = found.vectors
        if self.laplacian == "normalized":
            z = z * W.sum(-1).sqrt()[:, None]  # D^1/2 y, of which the sign is that of y
        z = (z / z.norm(dim=-1, keepdim=True)).cpu()
        side = (z[:, 0] > 0).reshape(-1, *f.grid)
        if self.foreground is None:
            flip = side.float().mean((1, 2)) > 0.5
        else:
            att = None if f.attention is None else f.attention.cpu()
            flip = foreground.flips(side, self.foreground, attention=att, grid=f.grid)
        sign = torch.where(flip, -1.0, 1.0).to(z)[:, None]
        soft = torch.sigmoid(sign * z[:, 0] / self.temperature).reshape(-1, *f.grid)
        mask = side ^ flip[:, None, None]
        covers = padded_size(f)
        cells = [regions.box_of(regions.largest_component(m.numpy())) for m in mask]
        return Prediction(
            soft=soft.float(),
            mask=mask,
            seed=soft.flatten(1).argmax(dim=1),
            boxes=pixel_boxes(cells, f.grid, covers, f.size),
            eigenvectors=torch.cat([sign[:, None] * z[:, :1], z[:, 1:]], 1),
            size=f.size,
            covers=covers,
        )


METHODS.register(
    Card(
        "diffncut",
        "Where the Fiedler vector of the positive cosines is positive; the smaller side.",
        source="Liu and Gould 2024, 'Simple' in tables 3 to 5; public code, eval_seg.py (protocols 1.9)",
        cost="one Fiedler vector an image",
        extra={"policy": "resize", "tau in the paper": 0.0, "eps": 1e-6},
    ),
    DiffNCut,
)
