"""The epochs of a training, from the first weights or from a state on disk.

Everything random is derived from the seed and the number of the epoch, so that a run that was interrupted
continues with the numbers that the whole one would have had.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .models import Sempart, SempartConfig, load_head
from .objective import Objective
from .records import list_hash
from .training_data import TrainingSet
from .training_files import HEAD, STATE, head_of, load_state, save_epoch, write_log
from .training_step import Meter, TrainingError, held_out_means, loss

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
    amp: bool
    steps: int | None
    held_out: float

    def said(self) -> dict:
        """As JSON. The number of epochs is left out where more of them only go on from the last one."""
        out = asdict(self)
        if self.schedule == "constant":
            del out["epochs"]
        return out


def run(
    plan: Plan,
    data: TrainingSet,
    backbone: str,
    out: pathlib.Path,
    place: torch.device,
    *,
    resume: bool,
    bar: Callable[[Sequence, str], Iterable],
    on_epoch: Callable[[dict], None] | None = None,
) -> tuple[Sempart, list[dict], int]:
    """Train into ``out``; the network of the best epoch, one row an epoch, and that epoch.

    Arguments and errors as :func:`sempart_core.train.train`; ``backbone`` is its name.
    """
    settings = {
        "backbone": backbone, "sha256": data.sha256, "feature": data.feature, "size": data.size,
        "photographs": list_hash(data.names), "n": len(data), "pixels": data.content, **plan.said(),
    }  # fmt: skip
    order = torch.randperm(len(data), generator=generator(plan.seed, 0))
    aside = max(1, round(plan.held_out * len(data)))
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
            for index in bar(batches, f"epoch {epoch}/{plan.epochs}"):
                x, images = data.batch(index, place, pixels=branches != "coarse")
                total = loss(model, plan.objective, x, images, data.grid, meter=meter, **options)
                _step(total, parts)
            batches = (data.batch(i, place, pixels=branches != "coarse") for i in held.split(plan.batch))
            tested = held_out_means(shown, plan.objective, batches, data.grid, **options)
            row = {"epoch": epoch, **meter.means(), **{f"held_out_{k}": v for k, v in tested.items()}}
            row["seconds"] = round(time.perf_counter() - start, 3)
            log.append(row)
            if plan.steps is None:  # a few steps prove nothing
                _stop_if_collapsed(out, log, plan)
            save_epoch(out, shown, parts, log, settings)
            if on_epoch is not None:
                on_epoch(dict(row))
        write_log(out, log)
        # While the coarse branch trains alone the total has fewer terms, which nothing later can compete with.
        rows = [row for row in log if row["epoch"] > plan.coarse_epochs] or log
        best = min(rows, key=lambda row: row["held_out_total"])["epoch"]
        model = load_head(head_of(out, best), place)  # in here, because to build a network draws numbers
        model.about |= {"epoch": str(best)}
        model.save(out / HEAD)
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
        parts["average"] = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(plan.ema), use_buffers=True)
    return parts


def _step(total: Tensor, parts: dict) -> None:
    parts["optimiser"].zero_grad(set_to_none=True)
    total.backward()
    parts["optimiser"].step()
    if "schedule" in parts:
        parts["schedule"].step()
    if "average" in parts:
        parts["average"].update_parameters(parts["model"])


def _stop_if_collapsed(out: pathlib.Path, log: list[dict], plan: Plan) -> None:
    """One grey epoch can be the saddle that training passes on its way; two, or the last, are not."""
    collapsed = [r["held_out_constant"] >= COLLAPSED for r in log[-2:]]
    row = log[-1]
    if not collapsed[-1] or (collapsed != [True, True] and row["epoch"] != plan.epochs):
        return
    write_log(out, log)
    share = f"{100 * row['held_out_constant']:.0f} %"
    error = TrainingError(
        f"epoch {row['epoch']}: training has collapsed, {share} of the held-out masks are constant; any "
        f"constant mask has Ncut = 1 and no gradient, so further epochs hardly leave it; train again, into "
        f"another folder, with a lower learning rate than {plan.lr:g} or another threshold tau"
    )
    error.log = tuple(log)
    raise error


def generator(seed: int, epoch: int) -> torch.Generator:
    """Its own random numbers for each epoch, whatever was drawn before; epoch 0 is the split."""
    state = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


def _about(settings: dict, data: TrainingSet) -> dict[str, str]:
    """What a head says of itself; no paths."""
    keys = (
        "backbone", "sha256", "feature", "size", "seed", "lr", "batch", "optimiser", "photographs", "n",
        "branches", "coarse_epochs", "schedule", "ema", "augment",
    )  # fmt: skip
    return {**{k: str(settings[k]) for k in keys}, "grid": "x".join(map(str, data.grid))}
