"""The epochs of a training, from the first weights or from a state on disk, on one process or several.

Processes (``torchrun``) share each batch and average their gradients; the first one measures and writes.
Everything random is derived from the seed and the number of the epoch, so that a run that was interrupted
continues with the numbers that the whole one would have had.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel

from .augment import augmented_batch
from .backbones import Backbone
from .models import Sempart, SempartConfig, load_head
from .objective import Objective
from .records import list_hash
from .training_crops import fresh_crops
from .training_data import TrainingSet
from .training_files import HEAD, STATE, head_of, load_state, save_epoch, write_log, write_picture
from .training_step import Meter, Pass, TrainingError, held_out_means, loss

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Share of constant held-out masks from which on an epoch counts as collapsed.
COLLAPSED = 0.9
#: Optimisers by the preset they belong to: class, betas, weight decay.
OPTIMISERS = {
    "paper": (torch.optim.Adam, (0.9, 0.999), 0.0),  # SEMPART section 4.1
    "sempart_star": (torch.optim.AdamW, (0.9, 0.99), 0.0),  # protocols 1.4
}
#: How the learning rate goes on: as it is, or along half a cosine to 0 over all steps.
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Plan:
    """All that decides the weights besides photographs and backbone; the arguments of ``train``, resolved."""

    config: SempartConfig
    objective: Objective
    optimiser: str
    epochs: int
    lr: float
    batch: int
    seed: int
    branches: str
    coarse_epochs: int
    schedule: str
    ema: float | None
    augment: str | None
    crop: str | None
    crops_each: int
    amp: bool
    steps: int | None
    held_out: float
    processes: int = 1

    def said(self) -> dict:
        """As JSON. The number of epochs is left out where more of them only go on from the last one."""
        out = asdict(self)
        if self.schedule == "constant":
            del out["epochs"]
        return out


def run(
    plan: Plan,
    data: TrainingSet,
    backbone: Backbone,
    out: pathlib.Path,
    place: torch.device,
    accelerator: Accelerator,
    *,
    resume: bool,
    bar: Callable[[Sequence, str], Iterable],
    on_epoch: Callable[[dict], None] | None = None,
) -> tuple[Sempart, list[dict], int]:
    """Train into ``out``; the network of the best epoch, one row an epoch, and that epoch.

    Arguments and errors as :func:`sempart_core.train.train`. Each process calls this.
    """
    settings = {
        "backbone": backbone.name, "sha256": data.sha256, "feature": data.feature, "size": data.size,
        "photographs": list_hash(data.names), "n": len(data), "pixels": data.content, **plan.said(),
    }  # fmt: skip
    order = torch.randperm(len(data), generator=generator(plan.seed, 0))
    aside = min(max(1, round(plan.held_out * len(data))), len(data) - 1)
    held, used = order[:aside].sort().values, order[aside:].sort().values
    an_epoch = math.ceil(len(used) / plan.batch)
    steps = min(plan.epochs * an_epoch, plan.steps or math.inf)
    log: list[dict] = []
    with torch.random.fork_rng(devices=[place.index or 0] if place.type == "cuda" else []):
        torch.manual_seed(plan.seed)
        model = Sempart(plan.config, _about(settings, data)).to(place)
        parts = _parts(model, plan, steps)
        if resume and (out / STATE).exists():
            state = load_state(out, settings)
            for name, part in parts.items():
                part.load_state_dict(state["parts"][name])
            torch.set_rng_state(state["random"])
            log = state["log"]
        shown = parts["average"].module if "average" in parts else model
        # Placed already. The optimiser must be the prepared one, the state that of what it wraps.
        network, stepper = accelerator.prepare(
            Pass(model), parts["optimiser"], device_placement=[False, False]
        )
        main = accelerator.is_main_process
        for epoch in range(len(log) + 1, plan.epochs + 1):
            left = steps - (epoch - 1) * an_epoch
            if left <= 0:
                break
            start = time.perf_counter()
            branches = "coarse" if epoch <= plan.coarse_epochs else plan.branches
            shuffled = used[torch.randperm(len(used), generator=generator(plan.seed, epoch))]
            batches = shuffled.split(plan.batch)[: min(left, an_epoch)]
            options = {"branches": branches, "epoch": epoch, "amp": plan.amp}
            meter = Meter()
            model.train()
            pixels = branches != "coarse"
            for step, index in enumerate(bar(batches, f"epoch {epoch}/{plan.epochs}")):
                with accelerator.split_between_processes(index.tolist(), apply_padding=True) as share:
                    share = torch.tensor(share)
                number = seed_of(plan.seed, epoch, step, accelerator.process_index)
                zoomed = None
                if plan.augment is None:
                    x, images = data.batch(share, place, pixels)
                    if plan.crop is not None:
                        zoomed = data.crops.batch(share, number, place, pixels)
                else:
                    x, images = augmented_batch(data, share, backbone, plan.augment, number, place, plan.amp)
                    if plan.crop is not None:
                        own = seed_of(number, 1)  # the augmentation has drawn from that number
                        zoomed = fresh_crops(images, backbone, data.feature, plan.crop, own, plan.amp)
                total = loss(
                    network, plan.objective, x, images, data.grid, meter=meter, zoomed=zoomed, **options
                )
                stepper.zero_grad(set_to_none=True)
                accelerator.backward(total)
                stepper.step()
                _follow(parts)
            row = {"epoch": epoch, **meter.means(lambda t: _added(accelerator, t))}
            if main:  # a network without its wrapper, which would wait for the others
                batches = (data.batch(i, place, pixels) for i in held.split(plan.batch))
                tested = held_out_means(shown, plan.objective, batches, data.grid, **options)
                row |= {f"held_out_{k}": v for k, v in tested.items()}
                row["seconds"] = round(time.perf_counter() - start, 3)
            (row,) = of_first(accelerator, [row])
            log.append(row)
            if plan.steps is None:  # a few steps prove nothing
                _stop_if_collapsed(out if main else None, log, plan)
            if main:
                save_epoch(out, shown, parts, log, settings)
                if on_epoch is not None:
                    on_epoch(dict(row))
        if main:
            write_log(out, log)
            write_picture(out, log)
        # While the coarse branch trains alone the total has fewer terms, which nothing later can compete with.
        rows = [row for row in log if row["epoch"] > plan.coarse_epochs] or log
        best = min(rows, key=lambda row: row["held_out_total"])["epoch"]
        accelerator.wait_for_everyone()
        model = load_head(head_of(out, best), place)  # in here, because to build a network draws numbers
        model.about |= {"epoch": str(best)}
        if main:
            model.save(out / HEAD)
        accelerator.wait_for_everyone()
    return model, log, best


def _parts(model: Sempart, plan: Plan, steps: int) -> dict:
    """What a training carries from step to step, by the name it has in the state."""
    kind, betas, decay = OPTIMISERS[plan.optimiser]
    stepper = kind(model.parameters(), lr=plan.lr, betas=betas, weight_decay=decay)
    parts = {"model": model, "optimiser": stepper}
    if plan.schedule == "cosine":
        parts["schedule"] = CosineAnnealingLR(stepper, T_max=steps)
    if plan.ema is not None:
        # Buffers too: the statistics of a batch normalisation belong to the weights that made them.
        parts["average"] = AveragedModel(model, multi_avg_fn=_warmed(plan.ema), use_buffers=True)
    return parts


def _warmed(decay: float) -> Callable:
    """Moving average whose decay grows to ``decay``: the first, random weights leave it within a few steps."""

    @torch.no_grad()
    def update(average: list[Tensor], now: list[Tensor], n: Tensor) -> None:
        d = min(decay, (1 + int(n)) / (10 + int(n)))
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, now, 1 - d)
        else:  # counters of a batch normalisation
            for a, b in zip(average, now, strict=True):
                a.copy_(b)

    return update


def _follow(parts: dict) -> None:
    """What comes after each step of the optimiser."""
    if "schedule" in parts:
        parts["schedule"].step()
    if "average" in parts:
        parts["average"].update_parameters(parts["model"])


def _added(accelerator: Accelerator, numbers: Tensor) -> Tensor:
    """The sum over all processes."""
    if accelerator.num_processes == 1:
        return numbers
    return accelerator.reduce(numbers.to(accelerator.device), "sum").cpu()


def of_first(accelerator: Accelerator, things: list) -> list:
    """What the first process has, for all of them."""
    if accelerator.num_processes == 1:
        return things
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list(things)


def _stop_if_collapsed(out: pathlib.Path | None, log: list[dict], plan: Plan) -> None:
    """One grey epoch can be the saddle that training passes on its way; two, or the last, are not."""
    collapsed = [r["held_out_constant"] >= COLLAPSED for r in log[-2:]]
    row = log[-1]
    if not collapsed[-1] or (collapsed != [True, True] and row["epoch"] != plan.epochs):
        return
    if out is not None:
        write_log(out, log)
        write_picture(out, log)
    share = f"{100 * row['held_out_constant']:.0f} %"
    error = TrainingError(
        f"epoch {row['epoch']}: training has collapsed, {share} of the held-out masks are constant; any "
        f"constant mask has Ncut = 1 and no gradient, so further epochs hardly leave it; train again, into "
        f"another folder, with a lower learning rate than {plan.lr:g} or another threshold tau"
    )
    error.log = tuple(log)
    raise error


def seed_of(*numbers: int) -> int:
    """One seed for several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def generator(seed: int, epoch: int) -> torch.Generator:
    """Its own random numbers for each epoch, whatever was drawn before; epoch 0 is the split."""
    return torch.Generator().manual_seed(seed_of(seed, epoch))


def _about(settings: dict, data: TrainingSet) -> dict[str, str]:
    """What a head says of itself; no paths."""
    keys = (
        "backbone", "sha256", "feature", "size", "seed", "lr", "batch", "optimiser", "photographs", "n",
        "branches", "coarse_epochs", "schedule", "ema", "augment", "crop",
    )  # fmt: skip
    said = {k: str(settings[k]) for k in keys} | {"tau": str(settings["objective"]["tau"])}
    return {**said, "grid": "x".join(map(str, data.grid))}
