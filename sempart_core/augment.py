"""Augmented photographs and their features, computed while training: the backbone is frozen, not its input.

Colour and flips are kornia's. Every batch has its own random numbers, so an interrupted training continues
with the batches that it would have had.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from .backbones import Backbone
from .training_data import TrainingSet

#: ``flip``: every second photograph mirrored. ``sempart_star``: also a random square of the photograph whose
#: short side is :data:`MARGIN` longer, colours and brightness shaken, every fifth one grey (protocols 1.4).
AUGMENTATIONS = ("flip", "sempart_star")
#: Pixels by which the short side exceeds the square that is cut out: 335 to 320 in the public code.
MARGIN = 15


@functools.cache
def _colours(name: str):
    import kornia.augmentation as K

    steps = [K.RandomHorizontalFlip(p=0.5)]
    if name == "sempart_star":
        # Kornia's ColorJitter computes torchvision's formulas, its ColorJiggle others.
        steps += [K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), K.RandomGrayscale(p=0.2)]
    return K.AugmentationSequential(*steps, data_keys=["input"])


def augment(pictures: Sequence[Tensor], name: str, size: tuple[int, int], seed: int) -> Tensor:
    """A batch of augmented photographs.

    Parameters
    ----------
    pictures : sequence of Tensor
        Each ``3 x H x W`` in [0, 1], no smaller than ``size``.
    name : str
        One of :data:`AUGMENTATIONS`.
    size : (int, int)
        ``(H, W)`` of the result.
    seed : int
        Of all random numbers; the caller's are left alone.

    Returns
    -------
    Tensor
        ``B x 3 x H x W`` in [0, 1].
    """
    import kornia.augmentation as K

    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)  # kornia draws on the CPU; CUDA's are not touched
        if name == "sempart_star":
            cut = K.RandomCrop(size, cropping_mode="slice")
            pictures = [cut(p[None])[0] for p in pictures]
        return _colours(name)(torch.stack(list(pictures))).clamp(0, 1)


@torch.no_grad()
def augmented_batch(
    data: TrainingSet,
    index: Tensor,
    backbone: Backbone,
    name: str,
    seed: int,
    place: torch.device,
    half: bool = False,
) -> tuple[Tensor, Tensor]:
    """As :meth:`~sempart_core.training_data.TrainingSet.batch`, of augmented photographs.

    ``half`` lets the backbone run in bfloat16 (on CUDA).
    """
    kept = data.large if name == "sempart_star" else data.images
    pictures = [kept[i].to(place).float() / 255 for i in index.tolist()]
    images = augment(pictures, name, tuple(data.images.shape[-2:]), seed)
    amp = torch.bfloat16 if half else torch.float32
    x = backbone.extract(images, [data.feature], attention=False, amp=amp).x
    return x.to(place).float(), images
