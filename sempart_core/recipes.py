"""Whole trainings by name: keyword arguments of :func:`~sempart_core.train.train`."""

from __future__ import annotations

from .train import train
from .training_setup import options_of

_PAPER = {"config": "paper", "objective": "paper", "optimiser": "paper", "lr": 1e-4, "batch": 8, "size": 320}
_COMPACT = {
    "config": "compact", "objective": "compact", "optimiser": "paper", "lr": 1e-3, "batch": 8, "size": 224,
}  # fmt: skip

_STAR = {
    **dict.fromkeys(("config", "objective", "optimiser", "augment"), "sempart_star"),
    "lr": 1e-4, "batch": 8, "size": 320, "epochs": 30,
}  # fmt: skip

#: ``paper``: SEMPART section 4.1. ``sempart_star``: the public re-implementation (protocols 1.4).
#: ``two_tricks``: the same with multi-scale consistency; its other trick, the guided filter, comes after the
#: network. ``compact``: ours, the paper's terms for two cores. ``demo``: the same on the few scenes of the demo
#: set. ``shipped``: ours, of the head that comes with the package.
RECIPES: dict[str, dict] = {
    "paper": {**_PAPER, "epochs": 20},
    "sempart_star": _STAR,
    "two_tricks": {**_STAR, "crop": "paper"},
    "compact": {**_COMPACT, "epochs": 6, "coarse_epochs": 2},
    "shipped": {
        **_COMPACT, "objective": "refined",  "tau": 0.75, "epochs": 3, "coarse_epochs": 1, "schedule": "cosine", "ema": 0.99,
    },
    "demo": {**_COMPACT, "epochs": 4, "coarse_epochs": 1},
}  # fmt: skip


def recipe(name: str, **changes) -> dict:
    """Keyword arguments of a training, some of them changed: ``train(images, backbone, **recipe("demo"))``.

    A recipe's ``coarse_epochs``, where they are not among the changes, give way: to ``branches`` that have no
    coarse epochs, and to fewer ``epochs``. ``shipped`` keeps its ``tau`` of .75 on any backbone and feature; it
    was chosen on the default ones, so give ``tau=None`` for the registry's on others.

    Raises
    ------
    SempartError
        Unknown name, or a key that :func:`~sempart_core.train.train` does not have.
    """
    out = options_of(train, RECIPES, name, changes)
    if "coarse_epochs" in out and "coarse_epochs" not in changes:
        alone = out.get("branches") in ("coarse", "fine")
        fewer = out["epochs"] - 1 if isinstance(out["epochs"], int) else 0  # train refuses what is no number
        out["coarse_epochs"] = 0 if alone else min(out["coarse_epochs"], fewer)
    return out
