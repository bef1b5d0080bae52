"""Tuned backbones that ship with the package; :func:`~sempart_core.backbones.load_backbone` knows them by name.

Each is the difference of some tensors to those of a registered backbone (:mod:`sempart_core.tuned`), in
``models/shipped``, so that the original's file must be there too. ``python -m data_scripts.ship_backbone`` writes one.
The registry is that of :mod:`sempart_core.backbones`, to which importing this module adds them.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
from dataclasses import replace

import torch
from safetensors import SafetensorError, safe_open

from .backbones import BACKBONES, Backbone, load_backbone
from .checkpoints import check_shipped
from .registry import Card
from .tuned import load_tuned

__all__ = ["BACKBONES", "TUNED", "file_of"]

#: Files of the differences; package data, see pyproject.toml.
FOLDER = pathlib.Path(__file__).resolve().parent / "models" / "shipped"
#: Name -> (backbone that was tuned, sha256 of the file as shipped).
TUNED: dict[str, tuple[str, str]] = {
    "dinov2_vits14_reg_mri_photos": (
        "dinov2_vits14_reg_mri",
        "c6fae8e99d2eb5ae99b32ee01392aae96108de81901a514db7bb0b22826a2fbf",
    ),
}


def file_of(name: str) -> pathlib.Path:
    """Where the differences of a shipped backbone lie."""
    return FOLDER / f"{name}.safetensors"


def settings_of(name: str) -> dict:
    """What the file says of its tuning; empty where it cannot be read (loading it says why)."""
    try:
        with safe_open(file_of(name), "pt") as f:
            return dict(json.loads((f.metadata() or {})["settings"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}


def card(name: str) -> Card:
    """The card of the backbone that was tuned, with what the file says of the tuning."""
    base, digest = TUNED[name]
    of, s, path = BACKBONES.card(base), settings_of(name), file_of(name)
    tuning = "the file is missing or damaged"
    if s:
        seeds = s.get("seeds") or [s["seed"]]
        tuning = (
            f"mask consistency of Differentiable NCut on {s['n']} photographs (Imagewoof and ImageNet without their labels, "
            f"digest {s['photographs'][:12]}), {s['crops']} fixed pairs of views each, {s['epochs']} epochs, {s['steps']} steps of "
            f"{s['batch']}, {s['optimiser']} at {s['lr']:g}, templates at {s['objective']['alpha_horizontal']:g}; the mean of "
            f"{len(seeds)} such trainings, seeds {', '.join(map(str, seeds))}"
        )
    return replace(
        of,
        name=name,
        what=f"{base}, then the last {s.get('blocks', '?')} blocks, as far as they make the feature, fine-tuned on photographs "
        "without labels",
        source=f"tuned here (chapter Tuned on photographs) from {base}, whose file is needed: {of.source}",
        licence=f"the difference: MIT, as this package; it was made from weights under: {of.licence}",
        labels="none in the tuning's loss; its photographs were gathered by class labels, which no training read; the length of "
        f"the tuning was chosen by IoU on photographs, where the mean of the trainings was looked at as well. {base}: {of.labels}",
        cost=f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "file missing",
        extra={
            **of.extra,
            "training": f"{of.extra['training']}; then photographs, see tuning",
            "tuning": tuning,
            "file": path.name,
            "where": "this package",
            "sha256": digest,
            "fetch": False,
            "hub": "",
            "defaults_from": f"label-tuned: carried over from {base} and not chosen anew; there: {of.extra['defaults_from']}",
        },
    )


def _load(
    name: str, device: str | torch.device = "cpu", weights: str | os.PathLike | None = None
) -> Backbone:
    """The tuned backbone; ``weights`` are those of the original. SempartError where a file is absent or another."""
    path, (base, expected) = file_of(name), TUNED[name]
    check_shipped(path, f"the backbone {name!r}", expected)
    out = load_tuned(load_backbone(base, device, weights), path, name=name, device=device)
    out.card = BACKBONES.card(name)
    return out


for _name in TUNED:
    BACKBONES.register(card(_name), functools.partial(_load, _name))
