"""Normalized cuts of images: features, affinities, spectral solvers, methods and metrics."""

from .errors import SempartError
from .features import Features

__version__ = "0.1.0"
__all__ = ["Features", "SempartError", "__version__"]
