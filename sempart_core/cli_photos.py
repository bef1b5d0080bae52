"""The commands that cut photographs: ``sempart segment`` and ``sempart evaluate``."""

from __future__ import annotations

import functools
import inspect
import json
import pathlib
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_common import BACKBONE, Kind, bar, check_refiner, count, load, none, registry, say
from .cli_options import (
    Branch,
    Device,
    Feature,
    Foreground,
    Head,
    Images,
    ListFile,
    Masks,
    MethodName,
    Metric,
    NetBackbone,
    NetSize,
    Refine,
    Resample,
    Tau,
    Variant,
    Void,
    Weights,
)

if TYPE_CHECKING:
    from .backbones import Backbone
    from .methods import Method

#: Rule for the object's side of a cut-out, of the methods that have one.
FOREGROUND = "least-corners"


def _branch(head: str | None, branch: str | None, refine: str | None) -> str | None:
    """The branch of a cut-out where none is asked for: the coarse one before a filter, if the head has it.

    The fine mask has an outline already, often next to the edge, and a filter moves it less.
    """
    from .heads import DEFAULT, HEADS, about_of, file_of

    if branch is not None or refine is None:
        return branch
    head = DEFAULT if head is None else head
    path = file_of(head) if head in HEADS else pathlib.Path(head)
    return "fine" if about_of(path).get("branches") == "fine" else "coarse"  # the method says what is amiss


def segment(
    photos: Annotated[
        list[pathlib.Path],
        typer.Argument(metavar="PHOTO...", help="Photographs, or folders of them (not their sub-folders)."),
    ],
    out: Annotated[pathlib.Path, typer.Option("--out", "-o", help="Folder for the results; made if absent.")],
    method: MethodName = "sempart",
    head: Head = None,
    branch: Branch = None,
    backbone: NetBackbone = None,
    size: NetSize = None,
    foreground: Annotated[
        str | None,
        typer.Option(
            help="Which side of the cut is the object: least-corners, centrality, framing, attention, or "
            "'none' for the method's own rule."
        ),
    ] = FOREGROUND,
    refine: Refine = "bilateral",
    feature: Feature = None,
    tau: Tau = None,
    variant: Variant = None,
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Cut the object out of photographs.

    Writes for each photograph NAME_mask.png (0 and 255), NAME_cutout.png (with transparency) and
    NAME_overlay.png, and boxes.json for all. A photograph that cannot be read is named and skipped; the
    exit code is then 2.

    The defaults are chosen for cut-outs: the head that ships, --foreground least-corners and a refinement, before
    which the coarse mask is taken; --refine none gives the fine one as it is.
    'sempart evaluate' measures the method as it is: its own rule for the foreground, and no refinement.
    """
    from . import segment as work
    from .evaluate import build_method

    refine, foreground = none(refine), none(foreground)
    check_refiner(refine)
    if method == "sempart":
        branch = _branch(head, branch, refine)
    if (
        foreground == FOREGROUND
        and "foreground" not in inspect.signature(registry(Kind.methods)[method]).parameters
    ):
        foreground = None
    made = build_method(method, foreground=foreground, variant=variant, head=head, branch=branch)
    net = None if made.reads_pixels else _net(made, backbone, feature, tau, weights, device)
    of_head = {k: v for k in ("head", "head_name", "branch") if (v := getattr(made, k, None)) is not None}
    about = {
        "method": method,
        **of_head,
        "variant": variant or _default(type(made), "variant"),
        "foreground": getattr(made, "foreground", None) or "the method's own rule",
        **({} if net is None else _read(made, net, feature, tau)),
        "size": made.default_size if size is None else size,
        "refine": refine or "none",
    }
    report = work.segment(
        photos,
        out,
        made,
        net,
        size=size,
        refine=refine,
        feature=feature,
        tau=tau,
        about=about,
        progress=bar,
        say=_named,
    )
    if report.done:
        typer.echo(f"{count(len(report.done), 'photograph')} segmented into {out}")
    if report.failed:
        say(f"sempart: {count(len(report.failed), 'input')} could not be used, see above")
        raise typer.Exit(2)


def evaluate(
    images: Images,
    masks: Masks,
    list_file: ListFile = None,
    void: Void = None,
    method: MethodName = "tokencut",
    head: Head = None,
    branch: Branch = None,
    backbone: NetBackbone = None,
    size: NetSize = None,
    metric: Metric = "tokencut",
    foreground: Foreground = None,
    refine: Refine = None,
    resample: Resample = "bilinear",
    feature: Feature = None,
    tau: Tau = None,
    variant: Variant = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N photographs.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Photographs a batch.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    cache: Annotated[bool, typer.Option(help="Keep features on disk for the next time.")] = True,
    weights: Weights = None,
    device: Device = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")
    ] = False,
) -> None:
    """Measure a method on photographs with true masks, at the resolution of the masks.

    A photograph whose image or mask file cannot be read is named and left out; the exit code is then 2.

    The defaults measure the method as it is: its own rule for the foreground, and no refinement. 'sempart
    segment' has others, made for cut-outs; to measure those, give --method sempart --foreground least-corners
    and the --refine that its help names, such as bilateral.
    """
    from .datasets import load_dataset
    from .evaluate import build_method
    from .evaluate import evaluate as measure

    foreground, refine = none(foreground), none(refine)
    registry(Kind.presets)[metric]
    check_refiner(refine)
    if method == "sempart":
        branch = _branch(head, branch, refine)
    made = build_method(method, foreground=foreground, variant=variant, head=head, branch=branch)
    dataset = load_dataset("folder", images=images, masks=masks, list_file=list_file, void=void, limit=limit)
    result = measure(
        dataset,
        made,
        None if made.reads_pixels else _net(made, backbone, feature, tau, weights, device),
        size=size,
        preset=metric,
        refine=refine,
        resample=resample,
        feature=feature,
        tau=tau,
        batch=batch,
        cache=cache,
        seed=seed,
        progress=functools.partial(bar, unit="batch"),
        skip=_named,
    )
    skipped = len(result.provenance["skipped"])
    if skipped:
        say(
            f"sempart: {count(skipped, 'photograph')} could not be read and {'is' if skipped == 1 else 'are'} left out"
        )
    if as_json:
        typer.echo(json.dumps(result.as_dict()))
        raise typer.Exit(2 if skipped else 0)
    read = result.provenance["feature"] or "pixels"
    typer.echo(f"{count(result.n, 'photograph')}, {method} on {read}, metric {metric}")
    for name, value in result.metrics.items():
        lo, hi = result.ci95[name]
        typer.echo(f"{name:>8} {value:.4f}  95% [{lo:.4f}, {hi:.4f}]")
    raise typer.Exit(2 if skipped else 0)


def _net(
    made: Method,
    backbone: str | None,
    feature: str | None,
    tau: float | None,
    weights: pathlib.Path | None,
    device: str,
) -> Backbone:
    """The backbone asked for, else the method's, once the method agrees to it."""
    name = backbone or made.default_backbone or BACKBONE
    made.check(name, feature, tau)
    return load(name, weights, device)


def _read(made: Method, net: Backbone, feature: str | None, tau: float | None) -> dict:
    """Backbone, feature and threshold of a cut-out, for ``boxes.json``."""
    layer = feature or made.default_feature or net.default_layer
    own = getattr(made, "tau", None)
    of_layer = None if made.own_tau else net.tau(layer)
    return {
        "backbone": net.name,
        "sha256": net.sha256,
        "feature": layer,
        "tau": next((t for t in (tau, own) if t is not None), of_layer),
    }


def _named(sentence: str) -> None:
    say(f"sempart: {sentence}")


def _default(made: type, parameter: str) -> str | None:
    """What a method takes where the parameter is not given; None if it has none of that name."""
    known = inspect.signature(made).parameters
    return known[parameter].default if parameter in known else None
