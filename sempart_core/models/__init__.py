"""Trainable networks on top of frozen features: a file for each."""

from .configs import CONFIGS, SempartConfig
from .files import load_head, save_head
from .sempart import Masks, Sempart

__all__ = ["CONFIGS", "Masks", "Sempart", "SempartConfig", "load_head", "save_head"]
