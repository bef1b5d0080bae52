"""Heads that ship with the package: trained networks by name, ``HEADS["sempart-dinov2-reg-mri"]()``.

A head is one safetensors file in ``models/shipped``; ``heads.json`` beside it holds the sha256 that the file
must have. Both are written by ``python -m data_scripts.ship_head``. What a head was trained on is read from
its file, so a card cannot say anything else.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib

import torch
from safetensors import SafetensorError, safe_open

from .checkpoints import check_shipped
from .errors import SempartError
from .models import Sempart, load_head
from .models.files import FORMAT
from .registry import Card, Registry

#: Heads by name; each factory takes ``device`` and gives the network in evaluation mode.
HEADS = Registry("head")
#: The head of ``METHODS["sempart"]()`` and of ``sempart segment``.
DEFAULT = "sempart-dinov2-reg-mri"
#: Files and their checksums; package data, see pyproject.toml.
FOLDER = pathlib.Path(__file__).resolve().parent / "models" / "shipped"
#: What cannot be read from the file.
WHAT = {
    DEFAULT: "SEMPART's network on features of the backbone that can be had from the Python package index, "
    "trained on the normalized cut of unlabelled photographs",
}


def file_of(name: str) -> pathlib.Path:
    """Where the file of a shipped head lies."""
    return FOLDER / f"{name}.safetensors"


def log_of(name: str) -> pathlib.Path:
    """The log of its training, one row an epoch."""
    return FOLDER / f"{name}-log.csv"


def checksums() -> dict[str, str]:
    """Name -> sha256 as shipped; empty where the package was installed without its data."""
    try:
        said = json.loads((FOLDER / "heads.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def about_of(path: pathlib.Path) -> dict[str, str]:
    """What a head's file says of itself; empty where it cannot be read (loading it says why)."""
    try:
        with safe_open(path, "pt") as f:
            return dict(json.loads((f.metadata() or {})[FORMAT])["about"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return {}


def card(name: str) -> Card:
    """The card of a shipped head, from its file."""
    path, about = file_of(name), about_of(file_of(name))
    backbone, feature = about.get("backbone", "?"), about.get("feature", "?")
    extra = {
        "file": path.name,
        "sha256": checksums().get(name, ""),
        "backbone": backbone,
        "backbone_sha256": about.pop("sha256", ""),
        "trained_on": f"{about.pop('n', '?')} photographs, list {about.pop('photographs', '?')}",
    }
    size = f"{path.stat().st_size / 1e6:.1f} MB file" if path.is_file() else "file missing"
    return Card(
        name,
        WHAT[name],
        source="network and losses: Ravindran and Basu 2023 (SEMPART); weights: trained here",
        licence="MIT, as this package; the backbone has its own",
        labels="none in its training and for its threshold; the number of epochs and the weights of its losses "
        f"were settled with masks of VOC photographs in view; for its layer {feature} see defaults_from on the "
        f"card of the backbone {backbone}",
        cost=f"{size}; one pass of a small network a photograph, after the backbone's",
        extra=extra | {k: v for k, v in about.items() if k not in extra},
    )


def open_head(head: str | os.PathLike | Sempart | None = None) -> tuple[Sempart, str | None]:
    """A network and the name under which it ships, None where it does not.

    Parameters
    ----------
    head : str, path or Sempart, optional
        A name in :data:`HEADS`, a file made by ``sempart train``, or a network, which is handed back. None:
        :data:`DEFAULT`.

    Raises
    ------
    SempartError
        Neither a name nor a file, or a file that cannot be used.
    """
    if isinstance(head, Sempart):
        return head, None
    head = DEFAULT if head is None else head
    if isinstance(head, str) and head in HEADS:
        return HEADS[head](), head
    if not pathlib.Path(head).is_file():
        raise SempartError(
            f"{os.fspath(head)}: there is no such file and no head of this name; give a file made by 'sempart "
            f"train', or one of: {', '.join(HEADS)}"
        )
    return load_head(head), None


def _load(name: str, device: str | torch.device = "cpu") -> Sempart:
    """The shipped head; SempartError where its file is absent or not the one that was shipped."""
    path = file_of(name)
    check_shipped(path, f"the head {name!r}", checksums().get(name))
    return load_head(path, device)


for _name in WHAT:
    HEADS.register(card(_name), functools.partial(_load, _name))
