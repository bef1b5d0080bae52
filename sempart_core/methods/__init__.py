"""Methods, one file a paper, one registry: ``METHODS["tokencut"](tau=.6).predict(features)``."""

from . import deep_spectral, diffncut, dino_seg, lost, sempart, tokencut, u2netp  # noqa: F401  (each registers itself)
from .base import METHODS, Method, Prediction

__all__ = ["METHODS", "Method", "Prediction"]
