"""Fine-tuning a backbone on unlabelled photographs with mask consistency (Differentiable NCut, section 3.3).

No label is read. The trainings share everything with :func:`sempart_core.train.train` that they can: states,
artefacts, the loop of accelerate.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import artefacts
from .backbones import Backbone, load_backbone
from .crop_pairs import SCALE, checked_scale
from .errors import SempartError
from .extraction import Progress
from .finetune_data import NONE, FreshPairs, PairSet, Photos, checked_size, load_pairs
from .finetune_loop import FinetunePlan, check, restore, run, settings_of, steps_of
from .finetune_model import Encoder, Siamese
from .mask_consistency import MaskConsistency
from .paths import ensure
from .profiles import resolve_device
from .training_data import content_of, photographs
from .training_files import STATE, load_state
from .training_setup import in_half, once, processes, silent, whole
from .tuned import DELTA, apply_delta, read_delta, step_delta

#: Modules that decide the weights, as files of the package.
DECIDING = (
    "backbones.py", "collapse.py", "crop_pairs.py", "eigensolvers.py", "finetune.py", "finetune_data.py", "finetune_files.py",
    "finetune_loop.py", "finetune_model.py", "hooks.py", "images.py", "lanczos.py", "mask_consistency.py", "ncut_layer.py",
    "resolvent.py", "spectral.py", "symmetric.py", "training_data.py", "training_loop.py", "tuned.py",
)  # fmt: skip
#: Libraries that decide them beside torch and timm: crops, colours, RoIAlign, products of graphs.
LIBRARIES = ("kornia", "pillow", "scipy", "torchvision")


@dataclass(frozen=True)
class FinetuneResult:
    """What :func:`finetune` hands back.

    Parameters
    ----------
    backbone : Backbone
        Tuned; :func:`~sempart_core.tuned.load_tuned` of ``delta`` gives the same.
    log : tuple of dict
        One row a logged step, as in ``log.csv``: ``step``, ``epoch``, ``lr``; ``total`` of both directions and the
        means of their terms ``mask``, ``horizontal``, ``vertical``, ``uniform``; ``selected`` (share of the
        pairs), ``iou`` (mean of a pair's), ``min_iou`` as used; the collapse monitor ``near_horizontal``,
        ``near_vertical``, ``near_uniform`` (shares of masks, see
        :func:`~sempart_core.collapse.collapse_shares`); ``seconds``.
    out : Path
        Folder of ``delta.safetensors``, ``log.csv``, ``state.pt`` and the deltas of ``keep_every``.
    key : str
        Name of the artefact, 16 hexadecimal digits; "" if ``out`` was given.
    loaded : bool
        Nothing was trained now: the artefact was there.
    """

    backbone: Backbone
    log: tuple[dict, ...]
    out: pathlib.Path
    key: str = ""
    loaded: bool = False

    @property
    def delta(self) -> pathlib.Path:
        """The difference of the tuned tensors."""
        return self.out / DELTA

    def after(self, step: int) -> pathlib.Path:
        """The difference after a step that ``keep_every`` kept."""
        path = step_delta(self.out, step)
        if not path.exists():
            raise SempartError(
                f"nothing was kept after step {step}: give finetune keep_every={step} or a divisor"
            )
        return path


def finetune(
    images: Photos | PairSet,
    backbone: Backbone | str,
    *,
    out: str | os.PathLike | None = None,
    feature: str | None = None,
    blocks: int = 4,
    objective: MaskConsistency | str = "code",
    projector: bool = True,
    crops: str | int = "fresh",
    size: int = 224,
    colours: str = "dino",
    scale: tuple[float, float] = SCALE,
    epochs: int = 2,
    steps: int | None = None,
    lr: float = 5e-4,
    batch: int = 16,
    optimiser: str = "lars",
    weight_decay: float = 5e-4,
    schedule: str = "cosine",
    warmup: float = 0.1,
    horizon: float = 1.0,
    seed: int = 0,
    amp: str = "auto",
    resume: bool = False,
    device: str = "auto",
    log_every: int = 1,
    save_every: int = 100,
    keep_every: int | None = None,
    progress: Progress | None = None,
    on_step: Callable[[dict, tuple[Tensor, Tensor]], None] | None = None,
    skip: Callable[[str], None] | None = None,
) -> FinetuneResult:
    """Tune the last blocks of a backbone so that two views of one place are cut alike.

    Equal arguments give equal weights, bit for bit on the CPU with the same number of threads, also if the run
    was interrupted and resumed. Without ``out`` they train once: the result is kept in the cache under the hash
    of what made it, and the next call loads it.

    Parameters
    ----------
    images : folder, Dataset, sequence of paths, or PairSet
        Unlabelled photographs. For several trainings on the same fixed pairs load them once, with
        :func:`~sempart_core.finetune_data.load_pairs`: such a set has its own ``crops``, ``size``, ``colours`` and
        ``scale``, and these arguments are not read.
    backbone : Backbone or str
        Left as it is. One without a hash of its weights needs ``out``.
    out : path, optional
        Folder for delta, log and state; made if absent.
    feature : str, optional
        ``kind@block`` on which the graphs are built; the backbone's default if None (public code: the keys of
        the last block).
    blocks : int
        Length of the tail that is tuned, in blocks (stages of a ResNet). The embedding in front is never tuned.
    objective : MaskConsistency or str
        ``code`` or ``paper``: see :data:`~sempart_core.mask_consistency.CONSISTENCY_PRESETS`.
    projector : bool
        False trains without it (table 5).
    crops : "fresh" or int
        New pairs in each epoch, or so many fixed ones a photograph, which pass through the frozen trunk once.
    size : int
        Side of a view in pixels, a multiple of the patch.
    colours : str
        A name in :data:`~sempart_core.crop_pairs.COLOURS`.
    scale : (float, float)
        Share of the photograph that a crop covers.
    epochs, steps : int
        ``steps`` caps the epochs.
    lr, weight_decay, batch, optimiser
        5e-4, 5e-4, 256 (ViT-S/16) and ``lars`` in the paper and its code. LARS moves a tensor by ``lr / 1000`` of
        its norm at each step, so that a few hundred steps need a larger ``lr``, or ``adamw``.
    schedule : "cosine" or "constant"
        Of the learning rate, after a linear ``warmup``.
    warmup, horizon : float
        ``horizon`` is the length of the schedule in units of this training: the public code plans 10 epochs and
        takes the second's weights (``epochs=2, horizon=5``). ``warmup`` is a share of that.
    amp : "auto", "bf16" or "no"
        Run the encoder in half precision; ``auto`` and ``bf16`` do so on CUDA. Heads and spectra stay in float32.
    resume : bool
        Continue after the last state in ``out``; without ``out`` this is done anyway.
    log_every, save_every : int
        Steps between two rows of the log, and between two states.
    keep_every : int, optional
        Steps between two deltas that are kept (figure S1).
    progress : callable, optional
        Wraps each list of steps, with ``desc=`` (``tqdm``).
    on_step : callable, optional
        Is given each row of the log, and the masks ``B x h x w`` of the first view and its target.
    skip : callable, optional
        Leave unreadable files out; it is given a sentence for each, once. None: the first one is an error, and so is
        a batch of them alone.

    Raises
    ------
    TrainingError
        Features, loss or tuned weights that are not finite; the state on disk is an earlier one.
    SempartError
        Bad arguments, no photograph, a folder that holds a training while ``resume`` is False, or other settings than those of
        the training to resume.
    """
    place, accelerator = processes(resolve_device(device), unused=False)
    main = accelerator.is_main_process
    backbone = load_backbone(backbone, device=place) if isinstance(backbone, str) else backbone
    objective = MaskConsistency.preset(objective) if isinstance(objective, str) else objective
    fixed = isinstance(images, PairSet)
    if fixed:
        crops, size, colours, scale = images.each, images.size, images.colours, images.scale
    scale = checked_scale(scale)
    check(crops, epochs, steps, lr, weight_decay, batch, optimiser, schedule, warmup, horizon, seed, colours)
    whole(log_every=log_every, save_every=save_every, **({"keep_every": keep_every} if keep_every else {}))
    checked_size(size, backbone)
    if fixed and (images.sha256, images.blocks) != (backbone.sha256, blocks):
        raise SempartError(
            f"the pairs were loaded for blocks={images.blocks} of weights {images.sha256[:12] or '?'}: give finetune "
            f"the same backbone and blocks as load_pairs"
        )
    if out is None and not backbone.sha256:
        raise SempartError(
            f"{backbone.name} has no hash of its weights, by which the cache tells trainings apart: give out="
        )
    encoder = Encoder(backbone, blocks, feature)
    found = images if fixed else photographs(images)
    n = len(found)
    if not n:
        raise SempartError(NONE)
    full = epochs * steps_of(n, batch)
    plan = FinetunePlan(
        encoder.feature, blocks, objective, projector, 0 if crops == "fresh" else crops, size, colours,
        scale, optimiser, lr, weight_decay, batch, epochs, min(full, steps or full), schedule, warmup,
        horizon, seed, in_half(amp, place) and place.type == "cuda", keep_every, accelerator.num_processes,
    )  # fmt: skip
    # What all processes read the first one says. New pairs are shared out: each process says what it alone has met.
    each_says = skip and once(skip)
    one_says = each_says if main else skip and silent
    content = f"{found.content} {found.seed} {found.amp}" if fixed else content_of(found, one_says)
    settings = settings_of(plan, backbone, content, n)
    key = ""
    if out is not None:
        out = ensure(out, "choose another folder for the training")
        if (out / STATE).exists() and not resume:
            raise SempartError(f"{out} holds a training already: resume it, or choose another folder")
    else:
        key = artefacts.key_of(
            {**settings, "log_every": log_every},
            deciding=DECIDING,
            device=place.type,
            libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
        )
        out = artefacts.place_of(key)

    def bar(items: Sequence, desc: str) -> Iterable:
        return progress(items, desc=desc) if progress and main else items

    with artefacts.lock(out) if key and main else contextlib.nullcontext():
        accelerator.wait_for_everyone()
        if key and (made := artefacts.finished(out, lambda folder: _tuned(backbone, folder, place))):
            return FinetuneResult(made[0], tuple(made[1]), out, key, True)
        if key and main:
            # Damaged, or without its state: it would pass for the end of the training that is begun now.
            (out / DELTA).unlink(missing_ok=True)
            artefacts.discard_broken(out)
        accelerator.wait_for_everyone()
        half = None if plan.amp else torch.float32
        with torch.random.fork_rng(devices=[place.index or 0] if place.type == "cuda" else []):
            torch.manual_seed(seed)
            model = Siamese(encoder, projector).to(place)
        if accelerator.num_processes > 1 and place.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        data = found
        if not fixed and crops == "fresh":
            data = FreshPairs(
                found, encoder, size=size, colours=colours, scale=scale, seed=seed, amp=half, skip=each_says
            )
        elif not fixed:
            data = load_pairs(
                found, backbone, each=crops, size=size, blocks=blocks, colours=colours, scale=scale, seed=seed, amp=half,
                device=place, skip=one_says, progress=lambda items: bar(items, "trunk"),
            )  # fmt: skip
        log = run(
            plan, data, model, backbone, out, place, accelerator, settings, resume=resume or bool(key),
            log_every=log_every, save_every=save_every, bar=bar, on_step=on_step,
        )  # fmt: skip
    return FinetuneResult(_tuned(backbone, out, place), tuple(log), out, key)


def _tuned(backbone: Backbone, out: pathlib.Path, place: torch.device) -> Backbone:
    """As load_tuned, where it is known which weights were tuned, whether they have a hash or not."""
    delta, said = read_delta(out / DELTA)
    return apply_delta(backbone, delta, said["feature"], device=place)


def load_siamese(result: FinetuneResult, backbone: Backbone) -> Siamese:
    """The whole network of a fine-tuning as it was after the last step: encoder, projector and predictor.

    Parameters
    ----------
    result : FinetuneResult
        Its ``out`` holds the state.
    backbone : Backbone
        The one that was tuned; it is left as it is. Without a hash its name alone is compared.

    Returns
    -------
    Siamese
        On the backbone's device, in evaluation mode: the heads normalise by running statistics, in the training by
        those of the batch (``.train()``). ``result.backbone`` is its encoder up to the rounding of the delta.

    Raises
    ------
    SempartError
        No state there, or one of another backbone.
    """
    state = load_state(result.out)
    said = json.loads(state["settings"])
    if (said["backbone"], said["sha256"]) != (backbone.name, backbone.sha256):
        raise SempartError(
            f"{result.out} tuned {said['backbone']} (sha256 {said['sha256'][:12]}...), not {backbone.name} "
            f"({backbone.sha256[:12]}...): give that backbone"
        )
    with torch.random.fork_rng(devices=[]):  # weights that are replaced at once
        model = Siamese(Encoder(backbone, said["blocks"], said["feature"]), said["projector"])
    restore(model, state)
    return model.to(backbone.device).eval()
