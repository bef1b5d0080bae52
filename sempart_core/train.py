"""Training SEMPART on any folder of unlabelled photographs.

No label is read, neither for the gradient nor for the choice of the epoch. The loop is plain torch on one
device; model and optimiser are made in one place, and the loop only calls them and ``backward``, so that
accelerate's ``prepare`` can be put around them for several GPUs.
"""

from __future__ import annotations

import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .backbones import Backbone, load_backbone
from .errors import SempartError
from .extraction import Progress
from .losses import one_of
from .models import Sempart, SempartConfig, load_head
from .objective import Objective
from .paths import ensure
from .profiles import resolve_device
from .records import list_hash
from .training_data import TrainingSet, load_training_set
from .training_files import HEAD, STATE, head_of, load_state, save_epoch, write_log

if TYPE_CHECKING:
    from .samples import Sample

#: A mask whose values span less than this is constant: no threshold that survives an epoch splits it.
CONSTANT = 0.05
#: Share of constant held-out masks from which on an epoch counts as collapsed.
COLLAPSED = 0.9
#: Optimisers by the preset they belong to: class, betas, weight decay.
OPTIMISERS = {
    "paper": (torch.optim.Adam, (0.9, 0.999), 0.0),  # SEMPART section 4.1
    "sempart_star": (torch.optim.AdamW, (0.9, 0.99), 0.0),  # protocols 1.4
}


class TrainingError(SempartError):
    """The numbers went wrong: a loss that is not finite, or masks that became constant."""


@dataclass(frozen=True)
class TrainResult:
    """What :func:`train` hands back.

    Parameters
    ----------
    model : ~sempart_core.models.sempart.Sempart
        The network of the epoch ``best``, in evaluation mode.
    log : tuple of dict
        One row an epoch, as in ``log.csv``: ``epoch``, means over the photographs of ``total`` and its
        unweighted terms, ``constant`` (share of coarse masks that span less than :data:`CONSTANT`),
        ``decided`` (mean of ``|S - 1/2|``, 0 for grey and 1/2 for black and white), the same of the held-out
        photographs after the epoch with ``held_out_`` before the name, and ``seconds``.
    best : int
        Epoch of the lowest ``held_out_total``, a criterion without labels.
    out : Path
        Folder of ``head.safetensors`` (the best epoch), all epochs, ``log.csv`` and ``state.pt``.
    """

    model: Sempart
    log: tuple[dict, ...]
    best: int
    out: pathlib.Path

    @property
    def head(self) -> pathlib.Path:
        """The head of the best epoch."""
        return self.out / HEAD


def train(
    images: str | os.PathLike | Sequence[Sample | str | os.PathLike],
    backbone: Backbone | str,
    *,
    out: str | os.PathLike,
    config: SempartConfig | str = "paper",
    objective: Objective | str = "paper",
    optimiser: str | None = None,
    epochs: int = 20,
    lr: float = 1e-4,
    batch: int = 8,
    size: int = 320,
    seed: int = 0,
    feature: str | None = None,
    tau: float | None = None,
    fine: bool = True,
    held_out: float = 0.05,
    resume: bool = False,
    device: str = "auto",
    cache: bool = True,
    progress: Progress | None = None,
    on_epoch: Callable[[dict], None] | None = None,
    skip: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train both branches (or the coarse one) on unlabelled photographs.

    Equal arguments give equal weights, bit for bit on the CPU with the same number of threads, also if the
    run was interrupted and resumed.

    Parameters
    ----------
    images : path, Dataset or sequence of paths
        A folder of photographs, or a data set, of which only the pictures are read.
    backbone : Backbone or str
        Frozen.
    out : path
        Folder for heads, log and state; made if absent.
    config : SempartConfig or str
        Shape of the network; its ``dim`` and ``patch`` are set to the backbone's.
    objective : Objective or str
        An objective is taken as it is. A preset gets the threshold ``tau``, or where that is None the
        registry's for this backbone and feature.
    optimiser : str, optional
        A name in :data:`OPTIMISERS`. Default: that of the objective's preset, else ``paper``.
    epochs, lr, batch, size, seed
        20, 1e-4, 8 and 320 in SEMPART section 4.1. ``size`` is the side of the square in pixels.
    feature : str, optional
        ``kind@block`` that the network reads and the graph is built on; the backbone's default if None.
    fine : bool
        False trains the coarse branch alone: no pixels are kept and the refiner stays as it was made.
    held_out : float
        Share of the photographs (one at least) that give no gradient: they show a collapse and choose the
        epoch.
    resume : bool
        Continue after the last epoch in ``out``; from the start if there is none.
    cache : bool
        Use the disk cache of features.
    progress : callable, optional
        Wraps each list of batches, with ``desc=`` (``tqdm``).
    on_epoch : callable, optional
        Is given the row of each epoch once its head and state are on disk.
    skip : callable, optional
        Leave unreadable files out, see :func:`~sempart_core.training_data.load_training_set`.

    Raises
    ------
    TrainingError
        A loss that is not finite, or a collapse to constant masks, for two epochs or in the last one; the
        state on disk is that of the epoch before.
    SempartError
        Bad arguments, a folder that holds a training while ``resume`` is False, other settings than those
        of the training to resume, or as :func:`~sempart_core.training_data.load_training_set`.
    """
    _check(epochs, lr, batch, size, seed, held_out)
    place, out = torch.device(resolve_device(device)), pathlib.Path(out)
    backbone = load_backbone(backbone, device=place) if isinstance(backbone, str) else backbone
    layer = feature or backbone.default_layer
    config = SempartConfig.preset(config) if isinstance(config, str) else config
    if isinstance(objective, str):
        optimiser = optimiser or objective
        tau = backbone.tau(layer) if tau is None else tau
        objective = Objective.preset(objective, **({} if tau is None else {"tau": tau}))
    elif tau is not None:
        raise SempartError("tau belongs to an objective given by name; set it in yours: replace(it, tau=...)")
    one_of(optimiser := optimiser or "paper", "optimiser", OPTIMISERS)
    ensure(out, "choose another folder for the training")
    if (out / STATE).exists() and not resume:
        raise SempartError(f"{out} holds a training already: resume it (--resume), or choose another folder")

    def bar(items: Sequence, desc: str) -> Iterable:
        return progress(items, desc=desc) if progress else items

    data = load_training_set(
        images, backbone, size=size, feature=layer, pixels=fine, cache=cache, skip=skip,
        progress=lambda items: bar(items, "features"),
    )  # fmt: skip
    config = config.change(dim=data.x.shape[-1], patch=backbone.patch)
    settings = {
        "backbone": backbone.name, "sha256": backbone.sha256, "feature": layer, "size": size,
        "photographs": list_hash(data.names), "n": len(data), "config": asdict(config),
        "objective": asdict(objective), "optimiser": optimiser, "lr": lr, "batch": batch, "seed": seed,
        "fine": fine, "held_out": held_out,
    }  # fmt: skip
    order = torch.randperm(len(data), generator=_generator(seed, 0))
    aside = max(1, round(held_out * len(data)))
    held, used = order[:aside].sort().values, order[aside:].sort().values
    log: list[dict] = []
    with torch.random.fork_rng(devices=[place.index or 0] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        model = Sempart(config, _about(settings, data)).to(place)
        kind, betas, decay = OPTIMISERS[optimiser]
        stepper = kind(model.parameters(), lr=lr, betas=betas, weight_decay=decay)
        if resume and (out / STATE).exists():
            state = load_state(out, settings)
            model.load_state_dict(load_head(head_of(out, state["epoch"])).state_dict())
            stepper.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["random"])
            log = state["log"]
        for epoch in range(len(log) + 1, epochs + 1):
            start = time.perf_counter()
            shuffled = used[torch.randperm(len(used), generator=_generator(seed, epoch))]
            meter = _Meter()
            model.train()
            for index in bar(shuffled.split(batch), f"epoch {epoch}/{epochs}"):
                total = _losses(model, objective, data, index, meter, epoch)
                stepper.zero_grad(set_to_none=True)
                total.backward()
                stepper.step()
            row = {"epoch": epoch, **meter.means()}
            row |= {
                f"held_out_{k}": v for k, v in _held_out(model, objective, data, held, batch, epoch).items()
            }
            row["seconds"] = round(time.perf_counter() - start, 3)
            log.append(row)
            collapsed = [r["held_out_constant"] >= COLLAPSED for r in log[-2:]]
            # One grey epoch can be the saddle that training passes on its way; two, or the last, are not.
            if collapsed[-1] and (collapsed == [True, True] or epoch == epochs):
                write_log(out, log)
                raise TrainingError(_collapse(row, lr))
            save_epoch(out, model, stepper, log, settings)
            if on_epoch is not None:
                on_epoch(dict(row))
        write_log(out, log)
        best = min(log, key=lambda row: row["held_out_total"])["epoch"]
        model = load_head(head_of(out, best), place)  # in here, because to build a network draws numbers
        model.about |= {"epoch": str(best)}
        model.save(out / HEAD)
    return TrainResult(model, tuple(log), best, out)


class _Meter:
    """Means over photographs of what a batch says."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.n = 0

    def add(self, terms: dict[str, Tensor], coarse: Tensor) -> None:
        S = coarse.detach().flatten(1)
        said = {k: v.item() for k, v in terms.items()}
        said["constant"] = ((S.amax(1) - S.amin(1)) < CONSTANT).float().mean().item()
        said["decided"] = (S - 0.5).abs().mean().item()
        for k, v in said.items():
            self.sums[k] = self.sums.get(k, 0.0) + v * len(S)
        self.n += len(S)

    def means(self) -> dict[str, float]:
        return {k: v / self.n for k, v in self.sums.items()}


def _losses(
    model: Sempart, objective: Objective, data: TrainingSet, index: Tensor, meter: _Meter, epoch: int
) -> Tensor:
    """The loss of one batch, entered into the meter; TrainingError where it is not finite."""
    x, images = data.batch(index, model.mean.device)
    masks = model(x, images, data.grid)
    total = None
    if all(m is None or torch.isfinite(m).all() for m in masks):
        terms = objective(masks.coarse, masks.fine, x, images)
        total = terms["total"]
    if total is None or not math.isfinite(total.item()):
        raise TrainingError(
            f"epoch {epoch}: the masks or the loss are not finite (NaN or infinite), so the weights have blown "
            f"up; train again, into another folder, with a lower learning rate"
        )
    meter.add(terms, masks.coarse)
    return total


@torch.no_grad()
def _held_out(
    model: Sempart, objective: Objective, data: TrainingSet, held: Tensor, batch: int, epoch: int
) -> dict[str, float]:
    """The same numbers on photographs that give no gradient, in evaluation mode."""
    model.eval()
    meter = _Meter()
    for index in held.split(batch):
        _losses(model, objective, data, index, meter, epoch)
    return meter.means()


def _collapse(row: dict, lr: float) -> str:
    share = f"{100 * row['held_out_constant']:.0f} %"
    return (
        f"epoch {row['epoch']}: training has collapsed, {share} of the held-out masks are constant; any "
        f"constant mask has Ncut = 1 and no gradient, so further epochs hardly leave it; train again, into "
        f"another folder, with a lower learning rate than {lr:g} or another threshold tau"
    )


def _generator(seed: int, epoch: int) -> torch.Generator:
    """Its own random numbers for each epoch, whatever was drawn before; epoch 0 is the split."""
    state = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


def _about(settings: dict, data: TrainingSet) -> dict[str, str]:
    """What a head says of itself; no paths."""
    keys = (
        "backbone",
        "sha256",
        "feature",
        "size",
        "seed",
        "lr",
        "batch",
        "optimiser",
        "photographs",
        "fine",
    )
    return {**{k: str(settings[k]) for k in keys}, "n": str(len(data)), "grid": "x".join(map(str, data.grid))}


def _check(epochs: int, lr: float, batch: int, size: int, seed: int, held_out: float) -> None:
    whole = {"epochs": (epochs, 1), "batch": (batch, 1), "size": (size, 1), "seed": (seed, 0)}
    for name, (value, low) in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise SempartError(f"{name}={value!r}: give a whole number of at least {low}")
    if not 0 < lr < float("inf"):
        raise SempartError(f"lr={lr}: the learning rate is a positive number; SEMPART has 1e-4")
    if not 0 <= held_out < 1:
        raise SempartError(f"held_out={held_out}: the share of photographs held out lies in [0, 1)")
