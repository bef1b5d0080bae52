"""Normalized cuts of images: features, affinities, spectral solvers, methods and metrics."""

from typing import TYPE_CHECKING

from .errors import SempartError

if TYPE_CHECKING:
    from .features import Features

__version__ = "0.1.0"
__all__ = ["Features", "SempartError", "__version__", "load"]


def load(name: str, device="cpu", weights=None):
    """A registered network by name, in evaluation mode.

    Parameters
    ----------
    name : str
        A backbone (:func:`sempart_core.backbones.load_backbone`) or a head that ships
        (:data:`sempart_core.heads.HEADS`).
    device : str or torch.device
        Where it computes.
    weights : path, optional
        Weight file of a backbone, if not the registered one.

    Returns
    -------
    ~sempart_core.backbones.Backbone or ~sempart_core.models.sempart.Sempart

    Raises
    ------
    SempartError
        Unknown name, ``weights`` for a head, or weights that are absent or damaged.
    """
    from .backbones import load_backbone  # torch is imported only when a network is asked for
    from .heads import HEADS
    from .tuned_backbones import BACKBONES

    if name in HEADS:
        if weights is not None:
            raise SempartError(f"{name!r} is a head, whose weights ship: leave weights out")
        return HEADS[name](device)
    if name not in BACKBONES:
        raise SempartError(
            f"unknown network {name!r}; choose a head ({', '.join(HEADS)}) or a backbone ({', '.join(BACKBONES)})"
        )
    return load_backbone(name, device=device, weights=weights)


def __getattr__(name: str):
    """``Features`` on first use: torch takes seconds to import, and ``sempart --help`` needs none of it."""
    if name == "Features":
        from .features import Features

        return Features
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
