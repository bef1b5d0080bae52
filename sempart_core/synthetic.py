"""Features of invented scenes: graphs like those of photographs where no photograph is at hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .errors import SempartError


def clustered_features(
    grid: tuple[int, int], objects: int = 3, dim: int = 64, noise: float = 0.6, seed: int = 0
) -> Tensor:
    """Patch features of a scene of ellipses before a background.

    A patch's feature is the direction of its object, plus noise, plus a direction common to all patches
    (features of vision transformers have a large mean, which makes most cosines positive).

    Parameters
    ----------
    grid : (int, int)
        ``(h, w)`` in patches.
    objects : int
        Ellipses, later ones in front; at least 1.
    dim : int
        Length of a feature.
    noise : float
        Standard deviation of a patch's own component; directions have deviation 1, the common one .6.
    seed : int
        Of everything random.

    Returns
    -------
    Tensor
        ``N x dim`` float32 with ``N = h * w``, row-major over the grid.

    Raises
    ------
    SempartError
        A grid without patches, or no object.
    """
    h, w = grid
    if h < 1 or w < 1 or objects < 1 or dim < 1:
        raise SempartError(f"grid={grid}, objects={objects}, dim={dim}: all must be at least 1")
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    direction = rng.normal(size=(objects + 1, dim))
    label = np.zeros((h, w), dtype=int)
    for i in range(1, objects + 1):
        cy, cx = rng.uniform(0.2, 0.8, 2) * (h, w)
        ry, rx = rng.uniform(0.1, 0.3, 2) * (h, w)
        label[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1] = i
    f = direction[label].reshape(h * w, dim)
    f = f + noise * rng.normal(size=f.shape) + 0.6 * rng.normal(size=dim)
    return torch.from_numpy(f.astype(np.float32))
