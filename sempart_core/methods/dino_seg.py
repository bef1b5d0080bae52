"""DINO-seg: the patches that hold the first 60 % of the CLS attention (Caron et al. 2021; LOST's baseline)."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import affinity, foreground, regions
from ..errors import SempartError
from ..features import Features
from ..registry import Card
from .base import METHODS, Method, Prediction, padded_size, pixel_boxes


def keep_mass(attention: Tensor, mass: float = 0.6) -> Tensor:
    """Smallest set of patches, by falling attention, whose sum exceeds ``mass`` of the total.

    ``... x N`` non-negative attention -> ``... x N`` bool. A patch stays if the mass of all patches not
    above it is more than ``1 - mass``, the rule of the visualisation in the DINO repository.
    """
    value, index = attention.sort(dim=-1)
    cumulated = (value / value.sum(dim=-1, keepdim=True)).cumsum(dim=-1)
    return torch.zeros_like(attention, dtype=torch.bool).scatter(-1, index, cumulated > 1 - mass)


class DinoSeg(Method):
    """Attention threshold of the CLS token.

    Parameters
    ----------
    mass : float
        Share of the attention to keep, in (0, 1).
    head : int or "mean"
        Head whose attention is used (LOST's baseline: 4 on ViT-S), or the mean over heads.
    foreground : str, optional
        None: largest 4-connected component. A strategy name: the side of the thresholded map it chooses.
    """

    uses_features = False

    def __init__(self, mass: float = 0.6, head: int | str = "mean", foreground=None, backbone=None):
        super().__init__(backbone)
        if not 0 < mass < 1:
            raise SempartError(f"DINO-seg: mass={mass!r} must lie between 0 and 1")
        self.mass, self.head, self.foreground = mass, head, foreground

    def from_features(self, f: Features) -> Prediction:
        if f.attention is None:
            raise SempartError(
                "DINO-seg needs the CLS attention; extract with attention=True from a ViT that has a CLS token"
            )
        att = affinity._features(f.attention, "attention").float().cpu()
        if self.head != "mean" and not 0 <= int(self.head) < att.shape[1]:
            raise SempartError(f"DINO-seg: head={self.head!r}, the backbone has heads 0..{att.shape[1] - 1}")
        one = att.mean(dim=1) if self.head == "mean" else att[:, int(self.head)]
        kept = keep_mass(one, self.mass).reshape(-1, *f.grid)
        if self.foreground is None:
            mask = torch.stack([torch.from_numpy(regions.largest_component(m.numpy())) for m in kept])
        else:
            mask = foreground.select(kept, self.foreground, attention=att)
        covers = padded_size(f)
        # Soft map: the attention, moved so that 1/2 parts the mask from the rest.
        relative = (one / one.amax(dim=1, keepdim=True).clamp_min(1e-12)).reshape(-1, *f.grid)
        return Prediction(
            soft=(relative + mask) / 2,
            mask=mask,
            seed=one.argmax(dim=1),
            boxes=pixel_boxes([regions.box_of(m.numpy()) for m in mask], f.grid, covers, f.size),
            size=f.size,
            covers=covers,
        )


METHODS.register(
    Card(
        "dino-seg",
        "Patches holding 60 % of the CLS attention; largest component.",
        source="Caron et al. 2021; baseline of LOST and of Deep Spectral (DINO-[CLS])",
        cost="no graph: the forward pass only",
        extra={"policy": "resize", "mass": 0.6},
    ),
    DinoSeg,
)
