"""Whole fine-tunings by name: keyword arguments of :func:`~sempart_core.finetune.finetune`."""

from __future__ import annotations

from .finetune import finetune
from .training_setup import options_of

_DIFFNCUT = {
    "blocks": 12,
    "crops": "fresh",
    "size": 224,
    "optimiser": "lars",
    "lr": 5e-4,
    "batch": 256,
    "epochs": 2,
}

#: Fine-tunings of Differentiable NCut, of all blocks of a ViT-S/16 (a batch of 64 for patches of 8). ``paper``: section
#: 4, "Training details". ``code``: the public code (protocols 1.9), whose schedule is made for ten epochs and whose
#: colours change more than DINO's; it also tunes the embedding in front of the blocks. ``demo``: ours, the last blocks
#: on fixed pairs of a few photographs, for two cores. ``photos``: the same for the backbone that ships (``data_scripts.ship_backbone``).
FINETUNES: dict[str, dict] = {
    "paper": {**_DIFFNCUT, "objective": "paper", "colours": "dino"},
    "code": {
        **_DIFFNCUT,
        "objective": "code",
        "colours": "code",
        "weight_decay": 5e-4,
        "warmup": 0.1,
        "horizon": 5.0,
    },
    "demo": {
        "objective": "code", "blocks": 2, "crops": 2, "size": 168, "colours": "dino", "optimiser": "adamw", "lr": 1e-4,
        "batch": 4, "epochs": 4,
    },
    "photos": {
        "objective": "code", "blocks": 4, "crops": 2, "size": 224, "colours": "dino", "optimiser": "adamw", "lr": 1e-4,
        "batch": 8, "epochs": 2,
    },
}  # fmt: skip


def finetune_recipe(name: str, **changes) -> dict:
    """As :func:`~sempart_core.recipes.recipe`, for :func:`~sempart_core.finetune.finetune`: ``finetune(images, backbone, **...)``."""
    return options_of(finetune, FINETUNES, name, changes)
