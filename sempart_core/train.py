"""Training SEMPART on any folder of unlabelled photographs.

No label is read, neither for the gradient nor for the choice of the epoch. The loop is accelerate's: the
same call trains in a notebook, from the command line, and on several processes under ``torchrun``.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from . import artefacts
from .augment import MARGIN
from .backbones import Backbone, load_backbone
from .errors import SempartError
from .extraction import Progress
from .losses import one_of
from .models import Sempart, SempartConfig, load_head
from .objective import Objective
from .paths import ensure
from .profiles import resolve_device
from .training_data import TrainingSet, content_of, load_training_set
from .training_files import HEAD, STATE, head_of
from .training_loop import COLLAPSED, OPTIMISERS, Plan, run
from .training_setup import check, check_set, in_half, once, processes, silent, with_crops
from .training_step import BRANCHES, CONSTANT, TrainingError

if TYPE_CHECKING:
    from .samples import Sample

__all__ = ["BRANCHES", "COLLAPSED", "CONSTANT", "OPTIMISERS", "TrainResult", "TrainingError", "train"]


@dataclass(frozen=True)
class TrainResult:
    """What :func:`train` hands back.

    Parameters
    ----------
    model : ~sempart_core.models.sempart.Sempart
        The network of the epoch ``best``, in evaluation mode.
    log : tuple of dict
        One row an epoch, as in ``log.csv``: ``epoch``, means over the photographs of ``total`` and its
        unweighted terms, ``constant`` (share of coarse masks that span less than
        :data:`~sempart_core.training_step.CONSTANT`), ``decided`` (mean of ``|S - 1/2|``, 0 for grey and 1/2
        for black and white), the same of the held-out photographs after the epoch with ``held_out_`` before
        the name, and ``seconds``.
    best : int
        Epoch of the lowest ``held_out_total``, a criterion without labels; of those after ``coarse_epochs``,
        where the total has all its terms.
    out : Path
        Folder of ``head.safetensors`` (the best epoch), all epochs, ``log.csv``, ``log.png`` and ``state.pt``.
    key : str
        Name of the artefact, 16 hexadecimal digits; "" if ``out`` was given.
    loaded : bool
        Nothing was trained now: the artefact was there.
    """

    model: Sempart
    log: tuple[dict, ...]
    best: int
    out: pathlib.Path
    key: str = ""
    loaded: bool = False

    @property
    def head(self) -> pathlib.Path:
        """The head of the best epoch."""
        return self.out / HEAD

    @property
    def epoch_heads(self) -> tuple[pathlib.Path, ...]:
        """The head after each epoch of the log."""
        return tuple(head_of(self.out, row["epoch"]) for row in self.log)


def train(
    images: str | os.PathLike | Sequence[Sample | str | os.PathLike] | TrainingSet,
    backbone: Backbone | str,
    *,
    out: str | os.PathLike | None = None,
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
    branches: str = "joint",
    coarse_epochs: int = 0,
    schedule: str = "constant",
    ema: float | None = None,
    augment: str | None = None,
    crop: str | None = None,
    crops_each: int = 1,
    amp: str = "auto",
    steps: int | None = None,
    held_out: float = 0.05,
    resume: bool = False,
    device: str = "auto",
    cache: bool = True,
    progress: Progress | None = None,
    on_epoch: Callable[[dict], None] | None = None,
    skip: Callable[[str], None] | None = None,
) -> TrainResult:
    """Train SEMPART on unlabelled photographs.

    Equal arguments give equal weights, bit for bit on the CPU with the same number of threads, also if the
    run was interrupted and resumed. Without ``out`` they train once: the result is kept in the cache under
    the hash of what made it, and the next call loads it.

    Parameters
    ----------
    images : path, Dataset, sequence of paths, or TrainingSet
        A folder of photographs, or a data set, of which only the pictures are read. For several trainings on
        the same photographs load them once, with
        :func:`~sempart_core.training_data.load_training_set`.
    backbone : Backbone or str
        Frozen.
    out : path, optional
        Folder for heads, log and state; made if absent.
    config : SempartConfig or str
        Shape of the network; its ``dim`` and ``patch`` are set to the backbone's.
    objective : Objective or str
        An objective is taken as it is. A preset gets the threshold ``tau``, or where that is None the
        registry's for this backbone and feature.
    optimiser : str, optional
        A name in :data:`~sempart_core.training_loop.OPTIMISERS`. Default: that of the objective's preset,
        else ``paper``.
    epochs, lr, batch, size, seed
        20, 1e-4, 8 and 320 in SEMPART section 4.1. ``size`` is the side of the square in pixels.
    feature : str, optional
        ``kind@block`` that the network reads and the graph is built on; the backbone's default if None.
    branches : str
        ``joint``, ``coarse``, ``detached`` or ``fine``: see :data:`~sempart_core.training_step.BRANCHES`.
        ``coarse`` keeps no pixels, and the refiner stays as it was made.
    coarse_epochs : int
        The first of ``epochs`` train the coarse branch alone: the fine mask of new weights says nothing, and
        with the paper's sums its super-resolution loss outweighs the normalized cut.
    schedule : "constant" or "cosine"
        Of the learning rate; ``cosine`` ends at 0 after the last step.
    ema : float, optional
        Decay in (0, 1) of an exponential moving average of the weights, a step at a time. The averaged
        network is then what is measured on held-out photographs and saved as a head.
    augment : str, optional
        ``flip`` or ``sempart_star``, see :data:`~sempart_core.augment.AUGMENTATIONS`: the backbone then runs
        at each step. None reads each photograph as it is, through the cache of features.
    crop : str, optional
        Multi-scale consistency (Two Tricks) on windows drawn by a rule of
        :data:`~sempart_core.multiscale.CROPS`, with the weights ``w_ncut_crop``, ``w_eq`` and ``w_eq_coarse``
        of the objective. Held-out photographs are measured without it.
    crops_each : int
        Windows of each photograph, drawn once, of which each step takes one. With ``augment`` every step has
        new ones, and the backbone runs for them too.
    amp : "auto", "bf16" or "no"
        Run the network in bfloat16; ``auto`` does so on CUDA only.
    steps : int, optional
        Cap on the optimisation steps of the whole training, for a trial: the epoch in which they run out is
        the last one, and a collapse is not looked for.
    held_out : float
        Share of the photographs (one at least) that give no gradient: they show a collapse and choose the
        epoch.
    resume : bool
        Continue after the last epoch in ``out``; from the start if there is none. Without ``out`` this is
        done anyway.
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
    check(epochs, lr, batch, size, seed, held_out, branches, coarse_epochs, schedule, ema, augment, steps)
    # The refiner has no gradient while the coarse branch trains alone, the coarse layer none without it.
    unused = branches in ("coarse", "fine") or coarse_epochs > 0
    place, accelerator = processes(resolve_device(device), unused)
    main = accelerator.is_main_process
    backbone = load_backbone(backbone, device=place) if isinstance(backbone, str) else backbone
    layer = feature or backbone.default_layer
    skip = skip and (once(skip) if main else silent)
    config = SempartConfig.preset(config) if isinstance(config, str) else config
    if isinstance(objective, str):
        optimiser = optimiser or (objective if objective in OPTIMISERS else "paper")
        tau = backbone.tau(layer) if tau is None else tau
        objective = Objective.preset(objective, **({} if tau is None else {"tau": tau}))
    elif tau is not None:
        raise SempartError("tau belongs to an objective given by name; set it in yours: replace(it, tau=...)")
    if branches == "fine" and objective.w_target and not objective.w_gtv_fine:
        raise SempartError(
            "branches='fine' has no coarse mask for this objective's target, so nothing smooths the fine one: "
            "choose an objective with GTV-fine, such as compact (--recipe compact)"
        )
    objective = with_crops(objective, crop, branches, augment)
    one_of(optimiser := optimiser or "paper", "optimiser", OPTIMISERS)
    plan = Plan(
        config.change(patch=backbone.patch), objective, optimiser, epochs, lr, batch, seed, branches,
        coarse_epochs, schedule, ema, augment, crop, crops_each if crop and not augment else 0, in_half(amp, place), steps, held_out,
        accelerator.num_processes,
    )  # fmt: skip
    pixels = branches != "coarse" or augment is not None
    margin = MARGIN if augment == "sempart_star" else None
    if isinstance(images, TrainingSet):
        check_set(
            images, backbone, layer, size, pixels, margin, None if augment else plan.crop, plan.crops_each
        )
    key = ""
    if out is not None:
        out = ensure(out, "choose another folder for the training")
        if (out / STATE).exists() and not resume:
            raise SempartError(
                f"{out} holds a training already: resume it (--resume), or choose another folder"
            )
    else:
        content = images.content if isinstance(images, TrainingSet) else content_of(images, skip)
        key = artefacts.key_of(
            asdict(plan), content=content, backbone=backbone.name, sha256=backbone.sha256, feature=layer,
            size=size, device=place.type,
        )  # fmt: skip
        out = artefacts.place_of(key)

    def bar(items: Sequence, desc: str) -> Iterable:
        return progress(items, desc=desc) if progress and main else items

    with artefacts.lock(out) if key and main else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        if key and (found := artefacts.finished(out, lambda folder: load_head(folder / HEAD, place))):
            model, log = found
            return TrainResult(model, tuple(log), int(model.about["epoch"]), out, key, loaded=True)
        if key and main:
            # Each epoch of the log needs its head: one of them is handed back as the best.
            artefacts.discard_broken(out, lambda log: [load_head(head_of(out, r["epoch"])) for r in log])
        accelerator.wait_for_everyone()
        data = images
        if not isinstance(images, TrainingSet):
            with accelerator.main_process_first():  # the others then read the features it has kept
                data = load_training_set(
                    images, backbone, size=size, feature=layer, pixels=pixels, margin=margin, cache=cache,
                    crop=None if augment else crop, crops_each=crops_each, skip=skip, progress=lambda items: bar(items, "features"),
                )  # fmt: skip
        model, log, best = run(
            _of_dim(plan, data.x.shape[-1]), data, backbone, out, place, accelerator,
            resume=resume or bool(key), bar=bar, on_epoch=on_epoch,
        )  # fmt: skip
    return TrainResult(model, tuple(log), best, out, key)


def _of_dim(plan: Plan, dim: int) -> Plan:
    return replace(plan, config=plan.config.change(dim=dim))
