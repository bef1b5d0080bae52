"""The command that trains: ``sempart train``."""

from __future__ import annotations

import os
import pathlib
from typing import Annotated

import typer

from .cli_common import BACKBONE, bar, count, load, say
from .cli_options import BackboneName, Device, Feature, Tau, Weights


def train(
    images: Annotated[pathlib.Path, typer.Option(help="Folder of photographs; no labels, no sub-folders.")],
    out: Annotated[
        pathlib.Path, typer.Option("--out", "-o", help="Folder for the heads, the log and the state.")
    ],
    recipe: Annotated[
        str,
        typer.Option(
            help="Network, losses, optimiser and all defaults below: shipped (that of the head which comes "
            "with the package), compact or demo (the paper's losses, for two cores), paper, sempart_star (the public code's) or "
            "two_tricks (that with multi-scale consistency)."
        ),
    ] = "shipped",
    backbone: BackboneName = BACKBONE,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side in pixels of the square the network sees.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the photographs.")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Photographs a step, of all processes together.")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; too high a one ends in constant masks.")
    ] = None,
    branches: Annotated[
        str | None,
        typer.Option(
            help="joint; coarse (much faster, blocky masks); detached (the fine mask does not teach the "
            "coarse one); or fine (no coarse mask)."
        ),
    ] = None,
    coarse_epochs: Annotated[
        int | None, typer.Option(min=0, help="The first epochs, in which the coarse branch trains alone.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Of the learning rate: constant, or cosine (to 0).")
    ] = None,
    ema: Annotated[
        float | None, typer.Option(help="Decay of a moving average of the weights, such as 0.99.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="flip or sempart_star; the backbone then runs at every step, which needs a GPU."),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            help="Multi-scale consistency on windows: paper, code, half or native; for an objective that "
            "weighs it, as in the recipes compact, demo, sempart_star and two_tricks."
        ),
    ] = None,
    amp: Annotated[str | None, typer.Option(help="Mixed precision: auto (on CUDA only), bf16 or no.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many steps: a trial, not a training.")
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Share of the photographs that only choose the epoch.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and held-out photographs.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue after the last epoch in the folder of --out.")
    ] = False,
    feature: Feature = None,
    tau: Tau = None,
    cache: Annotated[bool, typer.Option(help="Keep features on disk for the next time.")] = True,
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Train SEMPART on a folder of photographs, without any labels.

    Writes head.safetensors (the epoch with the lowest loss on held-out photographs), a head an epoch, log.csv,
    log.png and state.pt, from which --resume continues. A photograph that cannot be read is named and left out.
    An option that is not given is the recipe's. Several GPUs: torchrun --nproc-per-node 2 -m sempart_core train
    """
    from .recipes import recipe as named
    from .train import train as work

    given = {
        "size": size, "epochs": epochs, "batch": batch, "lr": lr, "branches": branches,
        "coarse_epochs": coarse_epochs, "schedule": schedule, "ema": ema, "augment": augment, "crop": crop,
        "amp": amp, "steps": steps, "held_out": held_out, "feature": feature, "tau": tau,
    }  # fmt: skip
    options = named(recipe, **{k: v for k, v in given.items() if v is not None})
    net = load(backbone, weights, own_device(device))
    if tau is None and (backbone != BACKBONE or feature not in (None, net.default_layer)):
        options.pop("tau", None)  # a recipe's threshold was chosen on the default features
    result = work(
        images,
        net,
        out=out,
        **options,
        seed=seed,
        resume=resume,
        device=device,
        cache=cache,
        progress=lambda items, desc: bar(items, unit="batch", desc=desc),
        on_epoch=_line,
        skip=lambda sentence: say(f"sempart: {sentence}"),
    )
    if int(os.environ.get("RANK", 0)) == 0:
        typer.echo(f"{result.head}: epoch {result.best} of {count(len(result.log), 'epoch')}")
    _part()


def own_device(device: str) -> str:
    """The device of this process: ``torchrun`` starts several, and each takes the GPU of its number."""
    from .profiles import resolve_device

    place, rank = resolve_device(device), os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if place == "cuda" and rank is not None else place


def _part() -> None:
    """Leave the processes that ``torchrun`` started together."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _line(row: dict) -> None:
    """One line an epoch."""
    from .objective import TERMS

    terms = "  ".join(f"{k} {row[k]:.4f}" for k in TERMS if k in row)
    say(
        f"epoch {row['epoch']}: loss {row['total']:.4f} ({terms})  held out {row['held_out_total']:.4f}  "
        f"constant masks {100 * row['held_out_constant']:.0f} %  {row['seconds']:.0f} s"
    )
