"""A backbone without weights for fast tests: the mean colour of each patch, centred on mid grey."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from sempart_core import Features, SempartError
from sempart_core.backbones import BACKBONES, fit
from sempart_core.registry import Card

PATCH = 14
NAME = "test_colour"


class ColourBackbone:
    """Same face as :class:`sempart_core.backbones.Backbone`; counts the images it sees."""

    name, sha256, patch, default_layer = NAME, "0" * 64, PATCH, "tokens@0"

    def __init__(self, device="cpu", weights=None) -> None:
        self.device = torch.device(device)
        self.card = Card(NAME, "mean colour of each patch (tests)")
        self.seen = 0

    def tau(self, layer: str) -> float | None:
        return {"tokens@0": 0.5, "keys@0": 0.4}.get(layer)

    def extract(self, images, layers=None, attention=True, policy="resize", **_) -> Features:
        self.seen += len(images)
        layers = list(layers or [self.default_layer])
        if unknown := [k for k in layers if self.tau(k) is None]:
            raise SempartError(f"layer {unknown[0]!r}: there are tokens@0 and keys@0")
        x, images = fit(images, PATCH, policy)
        grid = (x.shape[-2] // PATCH, x.shape[-1] // PATCH)
        cells = F.avg_pool2d(images, PATCH).flatten(2).mT - 0.5
        found = {k: cells if k == "tokens@0" else cells.flip(2) for k in layers}
        att = torch.ones(len(images), 1, grid[0] * grid[1]) / (grid[0] * grid[1])
        return Features(
            x=found[layers[0]],
            grid=grid,
            patch=PATCH,
            size=tuple(images.shape[-2:]),
            attention=att if attention else None,
            images=images,
            layers=found,
            tau=self.tau(layers[0]),
            name=f"{NAME}/{layers[0]}",
        )


def register() -> None:
    """Make it known by name; once a process."""
    if NAME not in BACKBONES:
        BACKBONES.register(Card(NAME, "mean colour of each patch (tests)"), ColourBackbone)


def scene(height=112, width=112, box=(28, 42, 84, 98), noise=12, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """A red block ``(x0, y0, x1, y1)`` on noisy green: photograph ``H x W x 3`` uint8 and mask bool."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    image = np.where(mask[..., None], (200, 40, 40), (40, 170, 60)).astype(float)
    image += rng.uniform(-noise, noise, image.shape)
    return image.clip(0, 255).round().astype(np.uint8), mask
