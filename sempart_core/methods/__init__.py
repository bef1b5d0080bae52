"""Methods, one file a paper, one registry: ``get("tokencut")(features) -> Prediction``."""

from .base import METHODS, Prediction

__all__ = ["METHODS", "Prediction"]
