"""Deep Spectral Methods (Melas-Kyriazi et al., CVPR 2022): the Fiedler vector of the clipped cosine graph.

Sections 3.2-3.4. Paper and code differ; both are here as data (protocols 1.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .. import affinity, foreground, regions, spectral
from ..errors import SempartError
from ..features import Features
from ..registry import Card
from .base import METHODS, Method, Prediction, padded_size, pixel_boxes


@dataclass(frozen=True)
class Variant:
    """Parameters in which paper and public code differ.

    Parameters
    ----------
    lambda_knn : float
        Weight of the colour term (eq. 3).
    colour : str
        Colour term "paper" (HSV, weights 1 - distance) or "code" (RGB, weights 1).
    downsample : int, optional
        The graph lives on ``M / downsample``; None: on the patch grid.
    laplacian : str
        "normalized": ``(D - W) y = lambda D y``; "unnormalized": ``(D - W) y = lambda y``.
    object_side : str
        "smaller" (section 3.3) or "code": positive entries after the sign rule, inverted for the box
        if they cover more than half.
    connectivity : int
        Of the component that gets the box.
    source : str
        Where this is written.
    """

    lambda_knn: float
    colour: str
    downsample: int | None
    laplacian: str
    object_side: str
    connectivity: int
    source: str


VARIANTS = {
    "code": Variant(0.0, "code", None, "normalized", "code", 8, "public code, defaults (protocols 1.3)"),
    "code-colour": Variant(
        10.0, "code", None, "normalized", "code", 8, "public code, inner default lambda 10"
    ),
    "paper": Variant(10.0, "paper", 8, "normalized", "smaller", 4, "eqs 1-3, section 3.3, supplement 1"),
}


def signed(y: Tensor) -> Tensor:
    """The public code's sign rule: negate a vector of which more than half, but not all, is positive."""
    share = (y > 0).double().mean(dim=-1, keepdim=True)
    return torch.where((share > 0.5) & (share < 1), -y, y)


def localise(mask: np.ndarray, connectivity: int = 8) -> np.ndarray:
    """Region the public code boxes: invert a mask of more than half, fill an empty one, largest component."""
    share = mask.mean()
    if 0.5 < share < 1:
        mask = ~mask
    if not mask.any():
        mask = np.ones_like(mask)
    return regions.largest_component(mask, connectivity)


class DeepSpectral(Method):
    """Deep Spectral localisation and single-object segmentation.

    Parameters
    ----------
    variant : str or Variant
        "code" (default), "code-colour" or "paper", or your own parameters.
    foreground : str, optional
        None: the variant's rule. A strategy name: the side of ``y > 0`` it chooses.
    k : int
        Eigenvectors to return (the mask uses the first).
    solver : str
        Passed to :func:`sempart_core.spectral.fiedler`.
    """

    def __init__(self, variant="code", foreground=None, k=1, solver="auto", backbone=None, **changes):
        super().__init__(backbone)
        if isinstance(variant, str):
            if variant not in VARIANTS:
                raise SempartError(
                    f"deep-spectral has no variant {variant!r}; choose one of: {', '.join(VARIANTS)}"
                )
            variant = VARIANTS[variant]
        self.variant = replace(variant, **changes)
        self.foreground, self.k, self.solver = foreground, k, solver

    def graph(self, f: Features) -> tuple[Tensor, tuple[int, int]]:
        """Affinity ``B x M x M`` of eq. 3 and the grid it lives on."""
        v = self.variant
        grid = f.grid
        if v.downsample is not None:
            grid = tuple(max(2, round(s / v.downsample)) for s in f.size)
        if not v.lambda_knn and grid == f.grid:
            return affinity.cosine_affinity(f.x, divide_by_max=v.colour == "code"), grid
        if v.lambda_knn and f.images is None:
            raise SempartError(
                "the colour term of deep-spectral needs the images; extract features with their images kept"
            )
        pictures = [None] * len(f) if f.images is None else f.images.permute(0, 2, 3, 1).cpu()
        graphs = [
            affinity.combined_affinity(x, f.grid, image, grid, v.lambda_knn, v.colour)
            for x, image in zip(f.x, pictures, strict=True)
        ]
        W = torch.stack(graphs)
        return W, grid

    def from_features(self, f: Features) -> Prediction:
        W, grid = self.graph(f)
        eig = spectral.fiedler(W, k=self.k, solver=self.solver, laplacian=self.variant.laplacian)
        y = signed(eig.vectors).cpu()
        positive = (y[:, 0] > 0).reshape(-1, *grid)
        if self.foreground is not None:
            att = None if f.attention is None else f.attention.cpu()
            mask = foreground.select(positive, self.foreground, attention=att, grid=f.grid)
            boxed = mask.numpy()
        elif self.variant.object_side == "smaller":
            small = positive.flatten(1).double().mean(dim=1) <= 0.5
            mask = torch.where(small[:, None, None], positive, ~positive)
            boxed = mask.numpy()
        else:
            mask, boxed = positive, positive.numpy()
        cells = [regions.box_of(localise(m, self.variant.connectivity)) for m in boxed]
        # A finer grid than the patches covers exactly what they cover.
        covers = padded_size(f)
        return Prediction(
            soft=mask.float(),
            mask=mask,
            boxes=pixel_boxes(cells, grid, covers, f.size),
            eigenvectors=y,
            size=f.size,
            covers=covers,
        )


METHODS.register(
    Card(
        "deep-spectral",
        "Sign of the Fiedler vector of the clipped cosine graph, optionally with a colour term.",
        source="Melas-Kyriazi et al. 2022, sections 3.2-3.4; public code (protocols 1.3)",
        cost="one Fiedler vector an image; the colour term adds two nearest-neighbour searches",
        extra={"variants": {k: v.source for k, v in VARIANTS.items()}},
    ),
    DeepSpectral,
)
