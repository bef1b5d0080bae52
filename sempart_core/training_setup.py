"""What a training asks of its arguments, where they come from, and the processes and the precision it runs in."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .augment import AUGMENTATIONS
from .errors import SempartError
from .losses import one_of
from .multiscale import CROPS
from .objective import Objective
from .training_loop import SCHEDULES
from .training_step import BRANCHES

if TYPE_CHECKING:
    from accelerate import Accelerator

    from .backbones import Backbone
    from .training_data import TrainingSet


def processes(device: str, unused: bool) -> tuple[torch.device, Accelerator]:
    """The device of this process, and what it shares with those that ``torchrun`` started beside it.

    ``unused``: some parameters have no gradient in some steps.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    # Alone, every tensor is placed here, and accelerate's notion of a device, one a process, is not used.
    accelerator = Accelerator(
        cpu=not alone and device == "cpu",
        mixed_precision="no",  # the loss decides what runs in bfloat16
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
    )
    return torch.device(device) if alone else accelerator.device, accelerator


def in_half(amp: str, place: torch.device) -> bool:
    """Whether the network runs in bfloat16: asked for, or ``auto`` on CUDA."""
    one_of(amp, "amp", ("auto", "bf16", "no"))
    return amp == "bf16" or (amp == "auto" and place.type == "cuda")


def with_crops(objective: Objective, crop: str | None, branches: str, augment: str | None) -> Objective:
    """The objective; without a crop the weights of its terms have no say, so that they are 0 in the artefact."""
    if crop is None:
        own = ("w_ncut_crop", "w_eq", "w_eq_coarse", "eq_filter", "eq_params")
        default = Objective()
        return replace(objective, **{k: getattr(default, k) for k in own})
    one_of(crop, "crop", CROPS)
    if not objective.consistent:
        raise SempartError(
            "crop needs an objective that weighs its terms: set w_eq, w_eq_coarse or w_ncut_crop, "
            "or take the objective compact or sempart_star (--recipe compact)"
        )
    if branches == "coarse" and not (objective.w_ncut_crop or objective.w_eq_coarse):
        raise SempartError(
            "branches='coarse' has no fine mask for w_eq: set w_ncut_crop or w_eq_coarse, or leave crop out"
        )
    if branches == "fine":
        raise SempartError(
            "branches='fine' has no coarse mask for the windows: leave crop out, or choose joint"
        )
    if augment is not None and CROPS.card(crop).extra["pixels"] == "photograph":
        raise SempartError(
            f"crop={crop!r} reads the photograph itself, which augment={augment!r} replaces: choose crop='half'"
        )
    return objective


def check_set(
    data: TrainingSet, backbone: Backbone, layer: str, size: int, pixels: bool, margin: int | None,
    crop: str | None, each: int,
) -> None:  # fmt: skip
    """SempartError unless photographs that were loaded before are what this training would load."""
    ours = {"feature": layer, "size": size, "sha256": backbone.sha256}
    for name, value in ours.items():
        if getattr(data, name) != value:
            raise SempartError(
                f"the photographs were loaded with {name}={getattr(data, name)!r}, not {value!r}: give train "
                f"what was given to load_training_set"
            )
    if pixels and data.images is None:
        raise SempartError("the photographs were loaded without pixels: load them with pixels=True")
    if margin is not None and data.margin != margin:
        raise SempartError(
            f"the photographs were loaded with margin={data.margin}: load them with margin={margin}"
        )
    if crop is not None and (data.crops is None or (data.crops.name, data.crops.each) != (crop, each)):
        raise SempartError(
            f"the photographs were loaded without these windows: load them with crop={crop!r}, crops_each={each}"
        )


def once(skip: Callable[[str], None]) -> Callable[[str], None]:
    """``skip``, given each sentence once: a photograph is read for the key and again for its features."""
    said: set[str] = set()

    def say(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            skip(sentence)

    return say


def silent(sentence: str) -> None:
    """The ``skip`` of a process beside the first one, which says it."""


def options_of(training: Callable, recipes: Mapping[str, dict], name: str, changes: Mapping) -> dict:
    """The keyword arguments of a recipe, some of them changed.

    Parameters
    ----------
    training : callable
        Whose keyword-only parameters the changes may name.
    recipes : dict
        Keyword arguments by the recipe's name; left as they are.

    Raises
    ------
    SempartError
        Unknown ``name``, or a change that the training does not have.
    """
    one_of(name, "recipe", recipes)
    known = [k for k, p in inspect.signature(training).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for key in changes:
        one_of(key, "key of a recipe", known)
    return {**recipes[name], **changes}


def whole(least: int = 1, **numbers: int) -> None:
    """SempartError unless each is a whole number of at least ``least``."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SempartError(f"{name}={value!r}: give a whole number of at least {least}")


def check(
    epochs, lr, batch, size, seed, held_out, branches, coarse_epochs, schedule, ema, augment, steps
) -> None:
    """SempartError for a number out of its range or an unknown name; arguments of ``train``."""
    whole(epochs=epochs, batch=batch, size=size, **({} if steps is None else {"steps": steps}))
    whole(0, seed=seed, coarse_epochs=coarse_epochs)
    if not 0 < lr < float("inf"):
        raise SempartError(f"lr={lr}: the learning rate is a positive number; SEMPART has 1e-4")
    if not 0 <= held_out < 1:
        raise SempartError(f"held_out={held_out}: the share of photographs held out lies in [0, 1)")
    one_of(branches, "branches", BRANCHES)
    one_of(schedule, "schedule", SCHEDULES)
    one_of(augment, "augment", (None, *AUGMENTATIONS))
    if coarse_epochs and (branches in ("coarse", "fine") or coarse_epochs >= epochs):
        raise SempartError(
            f"coarse_epochs={coarse_epochs}: they come before epochs of both branches, so give fewer than "
            f"epochs={epochs} and branches joint or detached"
        )
    if ema is not None and not 0 < ema < 1:
        raise SempartError(f"ema={ema}: the decay of a moving average lies in (0, 1); .99 is usual")
