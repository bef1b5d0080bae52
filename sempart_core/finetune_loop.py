"""The steps of a fine-tuning with mask consistency, from the first or from a state on disk, on one process or several.

Everything random is derived from the seed, the epoch and the photograph, so that a run that was interrupted goes
on with the numbers that the whole one would have had.
"""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .backbones import Backbone
from .collapse import collapse_shares
from .crop_pairs import COLOURS
from .errors import SempartError, TrainingError
from .finetune_data import FreshPairs, PairSet
from .finetune_files import delta_of, write_delta
from .finetune_model import Siamese, parameter_groups
from .losses import one_of
from .mask_consistency import PATTERNS, MaskConsistency, pair_loss
from .training_files import STATE, load_state, save_state, write_log
from .training_loop import SCHEDULES, generator, of_first
from .training_setup import whole
from .tuned import DELTA, step_delta

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Optimisers by name; LARS is that of the public code, AdamW moves the weights within a few hundred steps.
OPTIMISERS = ("lars", "adamw")


@dataclass(frozen=True)
class FinetunePlan:
    """All that decides the weights besides photographs and backbone; the arguments of ``finetune``, resolved."""

    feature: str
    blocks: int
    objective: MaskConsistency
    projector: bool
    crops: int
    size: int
    colours: str
    scale: tuple[float, float]
    optimiser: str
    lr: float
    weight_decay: float
    batch: int
    epochs: int
    steps: int
    schedule: str
    warmup: float
    horizon: float
    seed: int
    amp: bool
    keep_every: int | None
    processes: int = 1

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step, counted from 0."""
        whole = self.steps * self.horizon
        warm = self.warmup * whole
        if step < warm:
            return min(1.0, (step + 1) / warm)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1.0, whole - warm))))


def run(
    plan: FinetunePlan,
    data: PairSet | FreshPairs,
    model: Siamese,
    backbone: Backbone,
    out: pathlib.Path,
    place: torch.device,
    accelerator: Accelerator,
    settings: dict,
    *,
    resume: bool,
    log_every: int,
    save_every: int,
    bar: Callable[[Sequence, str], Iterable],
    on_step: Callable[[dict, tuple[Tensor, Tensor]], None] | None = None,
) -> list[dict]:
    """Tune into ``out``; the rows of the log. Arguments as in :func:`~sempart_core.finetune.finetune`."""
    each_epoch = steps_of(len(data), plan.batch)
    # Files that cannot be read are missing from pairs that were loaded, and the plan has counted them.
    plan = replace(plan, steps=min(plan.steps, plan.epochs * each_epoch))
    stepper = _optimiser(model, plan)
    log: list[dict] = []
    done = 0
    if resume and (out / STATE).exists():
        state = load_state(out, settings)
        restore(model, state)
        stepper.load_state_dict(state["optimiser"])
        log, done = state["log"], state["step"]
    network, wrapped = accelerator.prepare(model, stepper, device_placement=[False, False])
    model.train()
    main = accelerator.is_main_process
    amp = torch.float32 if not plan.amp else None

    def difference() -> dict[str, Tensor]:
        try:
            return delta_of(model.encoder, backbone)
        except TrainingError as error:
            error.log = tuple(log)
            raise

    for epoch in range(done // each_epoch + 1, plan.epochs + 1):
        order = torch.randperm(len(data), generator=generator(plan.seed, epoch))
        batches = order.split(plan.batch)[:each_epoch]
        numbered = [(i, b) for i, b in enumerate(batches, (epoch - 1) * each_epoch) if done <= i < plan.steps]
        for step, index in bar(numbered, f"epoch {epoch}/{plan.epochs}"):
            start = time.perf_counter()
            with accelerator.split_between_processes(index.tolist(), apply_padding=True) as share:
                batch = data.batch(torch.tensor(share), epoch, place)
            for group in stepper.param_groups:
                group["lr"] = plan.lr * plan.factor(step)
            views = network(*batch, (plan.size, plan.size), amp)
            terms = None
            if all(bool(torch.isfinite(v).all()) for v in views):
                terms = pair_loss(plan.objective, views)
            if terms is None or not math.isfinite(terms["total"].item()):
                error = TrainingError(
                    f"step {step + 1}: the features or the loss are not finite (NaN or infinite), so the weights "
                    f"have blown up; train again, into another folder, with a lower learning rate than {plan.lr:g}"
                )
                error.log = tuple(log)
                raise error
            wrapped.zero_grad(set_to_none=True)
            accelerator.backward(terms["total"])
            wrapped.step()
            done = step + 1
            last = done == plan.steps
            if main and (step % log_every == 0 or last):
                log.append(_row(done, epoch, stepper, terms, time.perf_counter() - start))
                if on_step is not None:
                    on_step(dict(log[-1]), (terms["m1"].cpu(), terms["m2"].cpu()))
            if main and plan.keep_every and done % plan.keep_every == 0:
                write_delta(step_delta(out, done), difference(), settings, backbone)
            if main and (done % save_every == 0 or last):
                difference()  # a state of weights that are not finite would be continued for ever
                _save(out, model, stepper, log, settings, done)
    accelerator.wait_for_everyone()
    if main:
        write_delta(out / DELTA, difference(), settings, backbone)
    accelerator.wait_for_everyone()
    return of_first(accelerator, [log])[0]


def steps_of(n: int, batch: int) -> int:
    """Steps of one epoch; an incomplete batch is left out, as in the public code, unless it is the only one."""
    return max(1, n // batch)


def _row(step: int, epoch: int, stepper, terms: dict[str, Tensor], seconds: float) -> dict:
    """One line of the log: the terms, the pairs selected, and the collapse monitor of the first views.

    Of several processes it says what the first one saw.
    """
    names = ("total", "mask", *PATTERNS, "selected", "iou", "min_iou")
    said = {k: terms[k].item() for k in names}
    near = {f"near_{k}": v for k, v in collapse_shares(terms["m1"]).items()}
    lr = stepper.param_groups[0]["lr"]
    return {"step": step, "epoch": epoch, "lr": lr, **said, **near, "seconds": round(seconds, 4)}


def _optimiser(model: Siamese, plan: FinetunePlan) -> torch.optim.Optimizer:
    rest, free = parameter_groups(model, plan.weight_decay)
    if plan.optimiser == "adamw":
        return torch.optim.AdamW([rest, free], lr=plan.lr)
    from timm.optim import Lars

    # timm's is the public code's (vectors i2), but adapts no group without decay: the weights are, also at a decay of 0.
    rest = {**rest, "always_adapt": True}
    return Lars([rest, free], lr=plan.lr, momentum=0.9, trust_coeff=1e-3, eps=0.0)


def _parts(model: Siamese) -> dict:
    return {"projector": model.projector, "predictor": model.predictor}


def _save(
    out: pathlib.Path,
    model: Siamese,
    stepper: torch.optim.Optimizer,
    log: list[dict],
    settings: dict,
    step: int,
) -> None:
    tuned = {k: p.detach() for k, p in model.encoder.tuned().items()}
    heads = {k: part.state_dict() for k, part in _parts(model).items()}
    save_state(out, log, settings, step=step, tuned=tuned, heads=heads, optimiser=stepper.state_dict())
    write_log(out, log)


def restore(model: Siamese, state: dict) -> None:
    """Give a network the weights of a state."""
    with torch.no_grad():
        for name, p in model.encoder.tuned().items():
            p.copy_(state["tuned"][name])
    for name, part in _parts(model).items():
        part.load_state_dict(state["heads"][name])


def settings_of(plan: FinetunePlan, backbone: Backbone, content: str, n: int) -> dict:
    """What a state and a delta say of their training; no paths."""
    return {
        "backbone": backbone.name,
        "sha256": backbone.sha256,
        "photographs": content,
        "n": n,
        **asdict(plan),
    }


def check(
    crops, epochs, steps, lr, weight_decay, batch, optimiser, schedule, warmup, horizon, seed, colours
) -> None:
    """SempartError for a number out of its range or an unknown name; arguments of ``finetune``."""
    whole(epochs=epochs, batch=batch, **({} if steps is None else {"steps": steps}))
    if crops != "fresh" and (isinstance(crops, bool) or not isinstance(crops, int) or crops < 1):
        raise SempartError(f"crops={crops!r}: give 'fresh', or how many fixed pairs a photograph has")
    whole(0, seed=seed)
    if not 0 < lr < float("inf") or not 0 <= weight_decay < float("inf"):
        raise SempartError(
            f"lr={lr}, weight_decay={weight_decay}: a positive number, and one not below 0; the public code has 5e-4 for both"
        )
    if not 0 <= warmup < 1 or not 1 <= horizon < float("inf"):
        raise SempartError(f"warmup={warmup} is a share in [0, 1), horizon={horizon} a number of at least 1")
    one_of(optimiser, "optimiser", OPTIMISERS)
    one_of(schedule, "schedule", SCHEDULES)
    one_of(colours, "colours", COLOURS)
