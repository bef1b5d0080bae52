"""What several commands share: what they say, what they look up by name, and the network."""

from __future__ import annotations

import enum
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .backbones import Backbone

#: The offline default backbone (see its card: ``sempart list backbones``).
BACKBONE = "dinov2_vits14_reg_mri"


def say(text: str) -> None:
    """Print to standard error, above a progress bar if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def count(n: int, noun: str) -> str:
    """``1 photograph``, ``2 photographs``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


class Kind(enum.StrEnum):
    """What ``sempart list`` can list."""

    methods = "methods"
    heads = "heads"
    backbones = "backbones"
    datasets = "datasets"
    presets = "presets"
    refiners = "refiners"


def registry(kind: Kind):
    """The registry of a kind."""
    if kind is Kind.methods:
        from .methods import METHODS as found
    elif kind is Kind.heads:
        from .heads import HEADS as found
    elif kind is Kind.backbones:
        from .tuned_backbones import BACKBONES as found
    elif kind is Kind.datasets:
        from .datasets import DATASETS as found
    elif kind is Kind.presets:
        from .metrics import PRESETS as found
    else:
        from .refine import REFINERS as found
    return found


def none(name: str | None) -> str | None:
    """``none`` on the command line is None."""
    return None if name in (None, "", "none") else name


def check_refiner(name: str | None) -> None:
    """Name an unknown refiner before anything is loaded."""
    if name is not None:
        registry(Kind.refiners)[name]


def load(backbone: str, weights: pathlib.Path | None, device: str) -> Backbone:
    """The network on the device asked for."""
    from .backbones import load_backbone
    from .profiles import resolve_device

    return load_backbone(backbone, device=resolve_device(device), weights=weights)


def bar(items: Sequence, unit: str = "photo", **options) -> Iterable:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(items, unit=unit, disable=not sys.stderr.isatty(), file=sys.stderr, **options)
