"""The ``sempart`` command. It talks; what it does lives elsewhere.

Results go to standard output, everything said along the way to standard error. Exit codes: 0 done, 2 bad
input (one sentence says what and the remedy), 130 interrupted.
"""

from __future__ import annotations

import enum
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from . import __version__
from .cli_options import (
    BackboneName,
    Device,
    Feature,
    Foreground,
    Images,
    ListFile,
    Masks,
    MethodName,
    Metric,
    Refine,
    Size,
    Tau,
    Variant,
    Void,
    Weights,
)
from .errors import SempartError

if TYPE_CHECKING:
    from .backbones import Backbone

#: The offline default backbone (see its card: ``sempart list backbones``).
BACKBONE = "dinov2_vits14_reg_mri"


class _Group(TyperGroup):
    """Turns what a user can cause into one sentence and an exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except SempartError as e:
            say(f"sempart: {e}")
            raise typer.Exit(2) from e
        except KeyboardInterrupt as e:
            say("sempart: interrupted; what was finished is kept")
            raise typer.Exit(130) from e


app = typer.Typer(
    cls=_Group,
    name="sempart",
    help="Cut photographs into objects without labels, and measure how well that works.",
    epilog="Each command explains its options: sempart COMMAND --help",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def say(text: str) -> None:
    """Print to standard error."""
    typer.echo(text, err=True)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sempart {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    pass


# --- fetch ---------------------------------------------------------------------------------------------


@app.command()
def fetch(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[weights] [demo] [SETNAME]...",
            help="'weights' (the default backbone), 'demo' (cut-outs and backgrounds of the demo scenes), "
            "or a paper's data set by name, see 'sempart list datasets'. Default: weights demo.",
        ),
    ] = None,
    root: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder for the papers' data sets; default: a folder of the cache."),
    ] = None,
) -> None:
    """Download weights and data into the cache; what is there already is only checked."""
    what = what or ["weights", "demo"]
    registry = _registry(Kind.datasets)
    papers = [n for n in registry if registry.card(n).extra.get("family") == "paper"]
    for name in what:
        if name not in ("weights", "demo", *papers):
            raise SempartError(f"fetch: unknown {name!r}; choose among: weights, demo, {', '.join(papers)}")
    for name in what:
        if name == "weights":
            from data_scripts import fetch_weights

            places = fetch_weights.weights()
        elif name == "demo":
            from data_scripts import demo_assets

            places = [demo_assets.ensure()]
        else:
            from data_scripts import paper_sets

            places = [paper_sets.fetch(name, root)]
        for place in places:
            typer.echo(f"{name}: {place}")


# --- list ----------------------------------------------------------------------------------------------


class Kind(enum.StrEnum):
    """What ``sempart list`` can list."""

    methods = "methods"
    backbones = "backbones"
    datasets = "datasets"
    presets = "presets"
    refiners = "refiners"


def _registry(kind: Kind):
    if kind is Kind.methods:
        from .methods import METHODS as registry
    elif kind is Kind.backbones:
        from .backbones import BACKBONES as registry
    elif kind is Kind.datasets:
        from .datasets import DATASETS as registry
    elif kind is Kind.presets:
        from .metrics import PRESETS as registry
    else:
        from .refine import REFINERS as registry
    return registry


@app.command("list")
def list_(
    kind: Annotated[Kind | None, typer.Argument(help="One kind only; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as one JSON object.")] = False,
) -> None:
    """Print the cards: what each method, backbone, data set, metric preset and refiner is."""
    kinds = [kind] if kind else list(Kind)
    cards = {str(k): _registry(k).cards() for k in kinds}
    if as_json:
        import dataclasses

        out = {k: [dataclasses.asdict(c) for c in v] for k, v in cards.items()}
        typer.echo(json.dumps(out, indent=1, ensure_ascii=False, default=str))
        return
    for k, some in cards.items():
        typer.echo(f"{k.upper()}")
        for c in some:
            facts = {"source": c.source, "licence": c.licence, "labels": c.labels, "cost": c.cost, **c.extra}
            typer.echo(f"  {c.name}\n    {c.what}")
            for name, value in facts.items():
                if value not in ("", "-", None):
                    typer.echo(f"    {name}: {value}")
        typer.echo("")


def _none(name: str | None) -> str | None:
    return None if name in (None, "", "none") else name


def _check_refiner(name: str | None) -> None:
    if name is not None:
        _registry(Kind.refiners)[name]


def _load(backbone: str, weights: pathlib.Path | None, device: str) -> Backbone:
    from .backbones import load_backbone
    from .profiles import resolve_device

    return load_backbone(backbone, device=resolve_device(device), weights=weights)


def _bar(items: Sequence, unit: str = "photo", **options) -> Iterable:
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(items, unit=unit, disable=not sys.stderr.isatty(), file=sys.stderr, **options)


# --- segment -------------------------------------------------------------------------------------------


@app.command()
def segment(
    photos: Annotated[
        list[pathlib.Path],
        typer.Argument(metavar="PHOTO...", help="Photographs, or folders of them (not their sub-folders)."),
    ],
    out: Annotated[pathlib.Path, typer.Option("--out", "-o", help="Folder for the results; made if absent.")],
    method: MethodName = "tokencut",
    backbone: BackboneName = BACKBONE,
    size: Size = 224,
    foreground: Annotated[
        str | None,
        typer.Option(
            help="Which side of the cut is the object: least-corners, centrality, framing, attention, or "
            "'none' for the method's own rule."
        ),
    ] = "least-corners",
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
    """
    from . import segment as work
    from .evaluate import build_method

    refine, foreground = _none(refine), _none(foreground)
    _check_refiner(refine)
    made = build_method(method, foreground=foreground, variant=variant)
    net = _load(backbone, weights, device)
    about = {"method": method, "backbone": net.name, "size": size, "refine": refine or "none"}

    def tell(sentence: str) -> None:
        from tqdm import tqdm

        tqdm.write(f"sempart: {sentence}", file=sys.stderr)

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
        progress=_bar,
        say=tell,
    )
    if report.done:
        typer.echo(f"{len(report.done)} photographs segmented into {out}")
    if report.failed:
        say(f"sempart: {len(report.failed)} of the inputs could not be used, see above")
        raise typer.Exit(2)


# --- evaluate ------------------------------------------------------------------------------------------


@app.command()
def evaluate(
    images: Images,
    masks: Masks,
    list_file: ListFile = None,
    void: Void = None,
    method: MethodName = "tokencut",
    backbone: BackboneName = BACKBONE,
    size: Size = 224,
    metric: Metric = "tokencut",
    foreground: Foreground = None,
    refine: Refine = None,
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
    """Measure a method on photographs with true masks, at the resolution of the masks."""
    from .datasets import load_dataset
    from .evaluate import build_method
    from .evaluate import evaluate as measure

    foreground, refine = _none(foreground), _none(refine)
    _registry(Kind.presets)[metric]
    _check_refiner(refine)
    made = build_method(method, foreground=foreground, variant=variant)
    dataset = load_dataset("folder", images=images, masks=masks, list_file=list_file, void=void, limit=limit)
    result = measure(
        dataset,
        made,
        _load(backbone, weights, device),
        size=size,
        preset=metric,
        refine=refine,
        feature=feature,
        tau=tau,
        batch=batch,
        cache=cache,
        seed=seed,
        progress=functools.partial(_bar, unit="batch"),
    )
    if as_json:
        typer.echo(json.dumps(result.as_dict()))
        return
    typer.echo(f"{result.n} photographs, {method} on {result.provenance['feature']}, metric {metric}")
    for name, value in result.metrics.items():
        lo, hi = result.ci95[name]
        typer.echo(f"{name:>8} {value:.4f}  95% [{lo:.4f}, {hi:.4f}]")


# --- reproduce and status ------------------------------------------------------------------------------


def _checkout() -> pathlib.Path:
    """The checkout the command runs in, else the one it was installed from."""
    here = pathlib.Path.cwd()
    for folder in (here, *here.parents, pathlib.Path(__file__).resolve().parents[1]):
        if (folder / "Makefile").is_file() and (folder / "sempart_core").is_dir():
            return folder
    raise SempartError(
        "reproduce runs the notebooks of a checkout, and there is none here; clone the repository, go "
        "there and type: make reproduce"
    )


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help="smoke, demo, photos or paper.")] = "demo",
    force: Annotated[
        bool, typer.Option("--force", help="Run notebooks whose inputs did not change too.")
    ] = False,
) -> None:
    """Run the notebooks whose inputs changed and build the book: 'make reproduce' of the checkout."""
    from . import profiles

    if profile not in profiles.names():
        raise SempartError(f"unknown profile {profile!r}; choose one of: {', '.join(profiles.names())}")
    root = _checkout()
    if not shutil.which("make"):
        raise SempartError("reproduce needs the program 'make'; install it with your system's packages")
    command = ["make", "-C", os.fspath(root), "reproduce", f"PROFILE={profile}"]
    raise typer.Exit(subprocess.run([*command, "FORCE=1"] if force else command).returncode)


@app.command()
def status() -> None:
    """Print which tables have measured rows, and how far each table of the papers is."""
    from .records import load_rows, results_folder
    from .reported import load_index, reported_folder

    rows = load_rows()
    if rows:
        counts = Counter((r["table"], r["profile"], r["dataset"] or "-") for r in rows)
        _columns([("TABLE", "PROFILE", "DATA", "ROWS"), *((*k, str(n)) for k, n in sorted(counts.items()))])
    else:
        typer.echo(f"no measured rows in {results_folder()}; 'sempart reproduce' makes them")
    if not (reported_folder() / "index.csv").is_file():
        return
    lines = [("PAPER'S TABLE", "SAME DATA", "OTHER DATA", "STATE", "COMMAND")]
    for t in load_index():
        ours = [r for r in rows if r["table"] in t["measured"].split(";")]
        same = sum(r["dataset"] in t["datasets"].replace(" ", "").split(";") for r in ours)
        lines.append(
            (f"{t['paper']}-{t['table']}", str(same), str(len(ours) - same), t["stage"], t["command"])
        )
    typer.echo("")
    _columns(lines)


def _columns(lines: list[tuple[str, ...]]) -> None:
    """Print rows of cells in aligned columns."""
    width = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for cells in lines:
        typer.echo("  ".join(c.ljust(w) for c, w in zip(cells, width, strict=True)).rstrip())


def main() -> None:
    """Entry point of the ``sempart`` command."""
    app()
