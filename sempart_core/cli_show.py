"""The commands that only show what there is: ``sempart list`` and ``sempart status``."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated

import typer

from .cli_common import Kind, registry


def list_(
    kind: Annotated[Kind | None, typer.Argument(help="One kind only; default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as one JSON object.")] = False,
) -> None:
    """Print the cards: what each method, head, backbone, data set, metric preset and refiner is."""
    kinds = [kind] if kind else list(Kind)
    cards = {str(k): registry(k).cards() for k in kinds}
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
