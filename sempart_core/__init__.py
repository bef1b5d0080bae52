"""Normalized cuts of images: features, affinities, spectral solvers, methods and metrics."""

from typing import TYPE_CHECKING

from .errors import SempartError

if TYPE_CHECKING:
    from .features import Features

__version__ = "0.1.0"
__all__ = ["Features", "SempartError", "__version__", "load"]


def load(name: str, device="cpu", weights=None):
    """A registered network by name, with its weights: :func:`sempart_core.backbones.load_backbone`."""
    from .backbones import load_backbone  # timm is imported only when a network is asked for

    return load_backbone(name, device=device, weights=weights)


def __getattr__(name: str):
    """``Features`` on first use: torch takes seconds to import, and ``sempart --help`` needs none of it."""
    if name == "Features":
        from .features import Features

        return Features
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
