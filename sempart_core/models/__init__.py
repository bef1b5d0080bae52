"""Trainable networks on top of frozen features: a file for each."""

from .files import load_head, save_head
from .sempart import CONFIGS, Masks, Sempart, SempartConfig

__all__ = ["CONFIGS", "Masks", "Sempart", "SempartConfig", "load_head", "save_head"]
