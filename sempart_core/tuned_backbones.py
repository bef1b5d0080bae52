"""Tuned backbones that ship with the package: importing this module adds them to :data:`~sempart_core.backbones.BACKBONES`.

Each is the difference of some tensors to those of a registered backbone (:mod:`sempart_core.tuned`), in
``models/shipped``, so that the original's file must be there too. ``python -m data_scripts.ship_backbone`` writes one.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
from dataclasses import replace

import torch

from .backbones import BACKBONES, Backbone, load_backbone
from .checkpoints import sha256_of
from .errors import SempartError
from .registry import Card
from .tuned import load_tuned, read_delta

__all__ = ["BACKBONES", "TUNED", "file_of"]

#: Files of the differences; package data, see pyproject.toml.
FOLDER = pathlib.Path(__file__).resolve().parent / "models" / "shipped"
#: Name -> (backbone that was tuned, sha256 of the file as shipped).
TUNED: dict[str, tuple[str, str]] = {
    "dinov2_vits14_reg_mri_photos": (
        "dinov2_vits14_reg_mri",
        "2408d48b7a92bfda1c49488ad56a97b30a42e2b42def847bed1b689cadffd463",
    ),
}


def file_of(name: str) -> pathlib.Path:
    """Where the differences of a shipped backbone lie."""
    return FOLDER / f"{name}.safetensors"


def card(name: str) -> Card:
    """The card of the backbone that was tuned, with what the file says of the tuning."""
    base = BACKBONES.card(TUNED[name][0])
    path = file_of(name)
    if not path.is_file():
        return replace(
            base, name=name, what=f"{base.name}, fine-tuned; the file is missing", cost="file missing"
        )
    _, said = read_delta(path)
    s = json.loads(said["settings"])
    how = (
        f"mask consistency (Differentiable NCut) on {s['n']} photographs, {s['crops']} fixed pairs of views each, "
        f"{s['epochs']} epochs, {s['steps']} steps of {s['batch']}, {s['optimiser']} at {s['lr']:g}, templates at "
        f"{s['objective']['alpha_horizontal']:g}, the last {s['blocks']} blocks, seed {s['seed']}"
    )
    return replace(
        base,
        name=name,
        what=f"{base.name}, its last {s['blocks']} blocks pulled back towards photographs without labels",
        source=f"tuned here (chapter Tuned on photographs) from {base.name}, whose file is needed: {base.source}",
        labels=f"none in the tuning; its photographs were gathered by class labels, which no training read; the layer: see defaults_from; {base.name}: {base.labels}",
        cost=f"{path.stat().st_size / 1e6:.1f} MB beside the file of {base.name}",
        extra={
            **base.extra,
            "tuning": how,
            "file": path.name,
            "sha256": TUNED[name][1],
            "fetch": False,
            "hub": False,
        },
    )


def _load(
    name: str, device: str | torch.device = "cpu", weights: str | os.PathLike | None = None
) -> Backbone:
    """The tuned backbone; ``weights`` are those of the original. SempartError where a file is absent or another."""
    path, (base, expected) = file_of(name), TUNED[name]
    if not path.is_file():
        raise SempartError(f"{path}: the file of {name} is missing; install the package again")
    if (digest := sha256_of(path)) != expected:
        raise SempartError(
            f"{path}: sha256 is {digest}, but {name} has {expected}; install the package again"
        )
    return load_tuned(load_backbone(base, device, weights), path, name=name, device=device)


for _name in TUNED:
    BACKBONES.register(card(_name), functools.partial(_load, _name))
