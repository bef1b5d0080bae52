"""The papers' printed numbers, read from ``book/reported``: one tidy csv a table, one row a printed cell.

They are facts to stand beside our own rows, never a source of them: nothing here is measured. How the
files were made and checked, and which cells cannot be trusted, is told in ``book/reported/README.md``.
"""

from __future__ import annotations

import csv
import os
import pathlib
import re

from .errors import SempartError

#: Folder of the transcribed tables in a checkout; ``SEMPART_REPORTED`` overrides it.
REPORTED = pathlib.Path(__file__).resolve().parents[1] / "book" / "reported"

#: Columns of a table's file, in order.
COLUMNS = (
    "paper", "table", "row", "group", "dataset", "metric", "value", "unit", "preset", "kind",
    "copied_from", "flag", "note",
)  # fmt: skip
#: Columns of ``index.csv``, in order.
INDEX_COLUMNS = (
    "paper", "table", "file", "title", "measures", "datasets", "preset", "measured", "command", "stage",
    "cost", "needs",
)  # fmt: skip
#: Why a cell must not be used as it stands; empty for all others.
FLAGS = ("", "misprint", "incomparable", "ocr-doubt")
#: Strongest known use of human labels; the words of :class:`sempart_core.records.Record`.
KINDS = ("unsupervised", "pseudo-labels", "label-tuned", "supervised")
#: Metric families; empty where the paper does not say or the cell is no score.
PRESETS = ("", "tokencut", "move", "selfmask", "sempart_star", "corloc", "miou")
#: Units of ``value`` and the factor that turns it into a fraction (None: it is no share of anything).
UNITS = {
    "fraction": 1.0, "percent": 0.01, "points": 0.01, "probability": 1.0, "ratio": None, "ms": None,
    "s": None, "px": None, "text": None,
}  # fmt: skip

_NUMBER = re.compile(r"[(<+]*(-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)[)²]*")


def reported_folder() -> pathlib.Path:
    """The folder of the transcribed tables."""
    return pathlib.Path(os.environ.get("SEMPART_REPORTED") or REPORTED)


def parse_value(value: str) -> float | None:
    """The number in a printed cell, or ``None`` for a dash, an empty or a lost cell.

    Understands what the papers print around a number: brackets, ``<``, ``+`` and a square of pixels.

    >>> parse_value("(.774)"), parse_value("<0.001"), parse_value("224²"), parse_value("—")
    (0.774, 0.001, 224.0, None)

    Raises
    ------
    SempartError
        The cell holds something else.
    """
    if value in ("", "-", "—"):
        return None
    match = _NUMBER.fullmatch(value)
    if match is None:
        raise SempartError(
            f"value {value!r} is not a printed number; correct the cell or give it the unit 'text'"
        )
    return float(match[1])


def load_reported(paper: str, table: str | int) -> list[dict]:
    """Cells of one table in printed order.

    Parameters
    ----------
    paper : str
        ``sempart``, ``two-tricks``, ``diffncut``, ``diffncut-supplement`` or ``deep-spectral``.
    table : str or int
        The paper's number of the table.

    Returns
    -------
    list of dict
        ``COLUMNS`` as strings, and two more: ``number`` (float, or ``None`` for text, dashes and lost
        cells) and ``fraction`` (the number as a fraction of one, or ``None`` where that has no meaning).

    Raises
    ------
    SempartError
        There is no such table; the sentence names those there are.
    """
    path = reported_folder() / f"{paper}-{table}.csv"
    if not path.is_file():
        known = ", ".join(r["file"].removesuffix(".csv") for r in load_index())
        raise SempartError(f"no reported table {path.stem!r}; choose one of: {known}")
    cells = _read(path, COLUMNS)
    for cell in cells:
        if cell["unit"] not in UNITS:
            raise SempartError(
                f"{path.name}: unknown unit {cell['unit']!r}; choose one of: {', '.join(UNITS)}"
            )
        factor = UNITS[cell["unit"]]
        number = None if cell["unit"] == "text" else parse_value(cell["value"])
        cell["number"] = number
        # rounded, so that 66.8 percent equals a printed .668
        cell["fraction"] = None if number is None or factor is None else round(number * factor, 6)
    return cells


def load_index() -> list[dict]:
    """One dict a table, in the order of the papers: ``INDEX_COLUMNS`` as strings."""
    return _read(reported_folder() / "index.csv", INDEX_COLUMNS)


def cell(
    paper: str,
    table: str | int,
    row: str,
    metric: str,
    *,
    dataset: str | None = None,
    group: str | None = None,
) -> dict:
    """The one cell of a table with this row and metric, and data set and group where given.

    Raises
    ------
    SempartError
        No cell or several cells answer.
    """
    want = {"row": row, "metric": metric, "dataset": dataset, "group": group}
    want = {k: v for k, v in want.items() if v is not None}
    found = [c for c in load_reported(paper, table) if all(c[k] == v for k, v in want.items())]
    if len(found) != 1:
        raise SempartError(
            f"{len(found)} cells of {paper}-{table} answer {want}; give row, metric, dataset and group as in its file"
        )
    return found[0]


def _read(path: pathlib.Path, columns: tuple[str, ...]) -> list[dict]:
    if not path.is_file():
        raise SempartError(f"{path} is missing; the reported tables are part of a checkout, run from one")
    with path.open(encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f)
        if tuple(reader.fieldnames or ()) != columns:
            raise SempartError(f"{path.name}: the columns must be {', '.join(columns)}")
        rows = list(reader)
    for i, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise SempartError(
                f"{path.name}, line {i}: expected {len(columns)} fields; quote a comma inside a field"
            )
    return rows
