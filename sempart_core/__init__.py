"""Normalized cuts of images: features, affinities, spectral solvers, methods and metrics."""

from .errors import SempartError
from .features import Features

__version__ = "0.1.0"
__all__ = ["Features", "SempartError", "__version__", "load"]


def load(name: str, device="cpu", weights=None):
    """A registered network by name, with its weights: :func:`sempart_core.backbones.load_backbone`."""
    from .backbones import load_backbone  # timm is imported only when a network is asked for

    return load_backbone(name, device=device, weights=weights)
