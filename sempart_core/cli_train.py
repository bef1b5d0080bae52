"""The command that trains: ``sempart train``."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from .cli_common import BACKBONE, bar, count, load, say
from .cli_options import BackboneName, Device, Feature, Size, Tau, Weights


def train(
    images: Annotated[pathlib.Path, typer.Option(help="Folder of photographs; no labels, no sub-folders.")],
    out: Annotated[
        pathlib.Path, typer.Option("--out", "-o", help="Folder for the heads, the log and the state.")
    ],
    preset: Annotated[
        str,
        typer.Option(help="Network, losses and optimiser: paper, or sempart_star (the public code's)."),
    ] = "paper",
    backbone: BackboneName = BACKBONE,
    size: Size = 224,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the photographs.")] = 20,
    batch: Annotated[int, typer.Option(min=1, help="Photographs a step.")] = 8,
    lr: Annotated[
        float, typer.Option(help="Learning rate of Adam; too high a one ends in constant masks.")
    ] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and held-out photographs.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue after the last epoch in the folder of --out.")
    ] = False,
    coarse_only: Annotated[
        bool, typer.Option("--coarse-only", help="Leave the fine branch out: much faster, blocky masks.")
    ] = False,
    feature: Feature = None,
    tau: Tau = None,
    cache: Annotated[bool, typer.Option(help="Keep features on disk for the next time.")] = True,
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Train SEMPART on a folder of photographs, without any labels.

    Writes head.safetensors (the epoch with the lowest loss on held-out photographs), a head an epoch, log.csv
    and state.pt, from which --resume continues. A photograph that cannot be read is named and left out.
    """
    from .losses import one_of
    from .models import CONFIGS
    from .train import train as work

    one_of(preset, "preset", CONFIGS)
    result = work(
        images,
        load(backbone, weights, device),
        out=out,
        config=preset,
        objective=preset,
        epochs=epochs,
        lr=lr,
        batch=batch,
        size=size,
        seed=seed,
        feature=feature,
        tau=tau,
        branches="coarse" if coarse_only else "joint",
        resume=resume,
        device=device,
        cache=cache,
        progress=lambda items, desc: bar(items, unit="batch", desc=desc),
        on_epoch=_line,
        skip=lambda sentence: say(f"sempart: {sentence}"),
    )
    typer.echo(f"{result.head}: epoch {result.best} of {count(len(result.log), 'epoch')}")


def _line(row: dict) -> None:
    """One line an epoch."""
    terms = "  ".join(f"{k} {row[k]:.4f}" for k in ("ncut", "gtv_coarse", "gtv_fine", "sr") if k in row)
    say(
        f"epoch {row['epoch']}: loss {row['total']:.4f} ({terms})  held out {row['held_out_total']:.4f}  "
        f"constant masks {100 * row['held_out_constant']:.0f} %  {row['seconds']:.0f} s"
    )
