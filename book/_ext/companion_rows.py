"""Numbers of the book: rows measured here, numbers reported in papers, and the two roles that quote them."""

from __future__ import annotations

import csv
import html
import pathlib
import re

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from sempart_core import profiles, records

LOG = logging.getLogger(__name__)

METRICS = {
    "iou": "IoU", "acc": "Acc", "max_f": "max Fβ", "corloc": "CorLoc", "miou": "mIoU", "ap": "AP",
    "ap50": "AP50", "f": "Fβ", "mae": "MAE", "corloc_gt": "CorLoc (> ½)",
}  # fmt: skip
PAPERS = {
    "sempart": "SEMPART", "two-tricks": "Two Tricks", "diffncut": "Differentiable NCut",
    "diffncut-supplement": "Differentiable NCut, supplement", "deep-spectral": "Deep Spectral",
}  # fmt: skip
KINDS = {
    "pseudo-labels": "trained on pseudo-labels",
    "label-tuned": "tuned with labels",
    "supervised": "supervised",
}


class number(nodes.inline):
    """A quoted number; ``tip`` tells where it comes from, ``kind`` is measured or reported."""


def measured_rows(env) -> list[dict]:
    """All rows of ``book/results``; the page is rebuilt when one of the files changes."""
    folder = pathlib.Path(env.app.confdir) / env.config.companion_results
    for p in sorted(folder.glob("*/*.json")):
        env.note_dependency(str(p))
    return records.load_rows(folder)


def reported_rows(env, stem: str | None = None) -> list[dict]:
    """Rows of ``book/reported/<stem>.csv``, or of all tables; each with its file's stem as ``file``."""
    folder = pathlib.Path(env.app.confdir) / env.config.companion_reported
    out = []
    for p in sorted(folder.glob(f"{stem or '*'}.csv")):
        if p.stem == "index":
            continue
        env.note_dependency(str(p))
        with p.open(encoding="utf-8", newline="") as f:
            out += [{**row, "file": p.stem} for row in csv.DictReader(f)]
    return out


def metric_name(metric: str) -> str:
    return METRICS.get(metric, metric.replace("_", " "))


def family(preset: str) -> str:
    """Numbers of one family may stand in one column; an unknown preset is a family of its own."""
    from sempart_core import metrics

    return metrics.family(preset) if preset in metrics.PRESETS else preset


def as_float(text: str) -> float | None:
    """The number in a transcribed cell, or ``None`` ("-", "No", "<0.001")."""
    try:
        return float(text)
    except ValueError:
        return None


def tip_measured(row: dict) -> str:
    """One line of provenance."""
    parts = [
        f"measured by {row['notebook'] or 'an unnamed run'}",
        f"profile {row['profile']}",
        f"{row['dataset']}" + (f" (list {row['list_hash']})" if row["list_hash"] else ""),
        f"n = {row['n']}" if row["n"] else "",
        f"95 % interval {row['ci'][0]:.3f} to {row['ci'][1]:.3f}" if row["ci"] else "",
        f"backbone {row['backbone']} {row['backbone_sha256'][:8]}" if row["backbone"] else "",
        f"metric preset {row['preset']}" if row["preset"] else "",
        "" if row["kind"] == "unsupervised" else KINDS.get(row["kind"], row["kind"]),
        ", ".join(f"{k} {v}" for k, v in row["params"].items()),
        f"seed {row['seed']}, {row['device']}",
        ", ".join(f"{k} {v}" for k, v in row["versions"].items()),
    ]
    return " · ".join(p for p in parts if p)


def tip_reported(row: dict) -> str:
    """Which cell of which paper, what is known against it."""
    return " · ".join(
        p
        for p in (
            f"reported, not measured here: {PAPERS.get(row['paper'], row['paper'])}, table {row['table']}",
            row["row"] + (f" ({row['group']})" if row["group"] else ""),
            row["dataset"],
            f"{metric_name(row['metric'])} in {row['unit']}",
            f"metric family {row['preset']}" if row["preset"] else "",
            KINDS.get(row["kind"], ""),
            f"copied there from {row['copied_from']}" if row["copied_from"] else "",
            row["flag"],
            row["note"],
        )
        if p
    )


def _show(value: float, fmt: str) -> str:
    return format(value, fmt or ".3f")


def parse_address(text: str) -> tuple[list[str], dict[str, str], str]:
    """``table/row/metric@dataset@profile@key=value|format`` -> address, selectors, format.

    The row's name may contain slashes; a selector without ``=`` is a profile if there is one of
    that name, else a dataset.
    """
    address, _, fmt = text.partition("|")
    address, *marks = (p.strip() for p in address.split("@"))
    table, _, rest = address.partition("/")
    row, _, metric = rest.rpartition("/")
    want = {}
    for mark in marks:
        key, eq, value = mark.partition("=")
        want.update({key: value} if eq else {"profile" if key in profiles.names() else "dataset": key})
    return [table.strip(), row.strip(), metric.strip()], want, fmt.strip()


class _Role(SphinxRole):
    def fail(self, message: str):
        LOG.warning("%s", message, location=self.get_location())
        return [nodes.strong(text="??")], []

    def pick(self, found: list[dict], address: list[str], want: dict[str, str]) -> list[dict]:
        hits = [r for r in found if all(str(r.get(k, "")) == v for k, v in want.items())]
        return [r for r in hits if [r["row"], r["metric"]] == address[1:]]


class Measured(_Role):
    """``{measured}`first_methods/TokenCut/iou|.3f``` -> the measured number with its provenance.

    No row, or more than one, is a warning, an error under ``-W``. Without ``@profile`` the demo
    profile is meant. The format may end in ``ci`` (``|.3f ci``) to print the interval too.
    """

    def run(self):
        address, want, fmt = parse_address(self.text)
        want.setdefault("profile", "demo")
        rows = [r for r in measured_rows(self.env) if r["table"] == address[0]]
        hits = self.pick(rows, address, want)
        if len(hits) != 1:
            more = sorted({f"@{r['dataset']}@seed={r['seed']}@preset={r['preset']}" for r in hits})
            return self.fail(f"measured: {len(hits)} rows for {self.text!r} {' '.join(more)}")
        row, with_ci = hits[0], fmt.endswith("ci")
        fmt = fmt.removesuffix("ci").strip()
        try:
            text = _show(row["value"], fmt)
            if with_ci and row["ci"]:
                text += f" ({_show(row['ci'][0], fmt)} to {_show(row['ci'][1], fmt)})"
        except ValueError as e:
            return self.fail(f"measured: {self.text!r}: {e}")
        node = number(text, text, kind="measured", tip=tip_measured(row), value=row["value"], focus=True)
        return [node], []


class Reported(_Role):
    """``{reported}`sempart-1/LOST/iou@dut_omron@group=baseline``` -> a paper's number, marked as such."""

    def run(self):
        address, want, fmt = parse_address(self.text)
        hits = self.pick(reported_rows(self.env, address[0]), address, want)
        if len(hits) != 1:
            more = sorted({f"@{r['dataset']}@group={r['group']}" for r in hits})
            return self.fail(f"reported: {len(hits)} rows for {self.text!r} {' '.join(more)}")
        text, value = hits[0]["value"], as_float(hits[0]["value"])
        if fmt and value is not None:
            text = _show(value, fmt)
        node = number(text, text, kind="reported", tip=tip_reported(hits[0]), value=value, focus=True)
        return [node, nodes.superscript("", "", nodes.inline(text="reported", classes=["reported-mark"]))], []


def visit_number_html(self, node) -> None:
    tip, focus = html.escape(node["tip"], quote=True), ' tabindex="0"' if node.get("focus") else ""
    shown = html.escape(node.astext())
    data = f'<data value="{node["value"]}">{shown}</data>' if node.get("value") is not None else shown
    self.body.append(
        f'<span class="num {node["kind"]}"{focus}>{data}<span class="num-tip" role="note">{tip}</span></span>'
    )
    raise nodes.SkipNode


def visit_number_other(self, node) -> None:
    """LaTeX, text: the number alone."""


def depart_number_other(self, node) -> None:
    """Nothing to close."""


def plain(text: str) -> str:
    """Text as an identifier."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
