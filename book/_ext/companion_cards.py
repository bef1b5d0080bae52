"""``{cards}``: the entries of a registry; ``{status-table}``: every table of the papers and its state."""

from __future__ import annotations

import csv
import importlib
import pathlib

from companion_rows import LOG, PAPERS, measured_rows
from companion_tables import NOT_RUN, TableDirective
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

REGISTRIES = {
    "methods": ("sempart_core.methods", "METHODS"),
    "heads": ("sempart_core.heads", "HEADS"),
    "backbones": ("sempart_core.tuned_backbones", "BACKBONES"),  # with those that ship
    "datasets": ("sempart_core.datasets", "DATASETS"),
    "presets": ("sempart_core.metrics", "PRESETS"),
    "refiners": ("sempart_core.refine", "REFINERS"),
}
FIELDS = {"source": "Source", "licence": "Licence", "labels": "Labels used", "cost": "Cost"}


class Cards(SphinxDirective):
    """``{cards} backbones`` -> a definition list, one entry a registered name."""

    required_arguments = 1
    option_spec = {"names": directives.unchanged}  # noqa: RUF012

    def run(self):
        kind = self.arguments[0]
        if kind not in REGISTRIES:
            LOG.warning("cards: no registry %r", kind, location=self.get_location())
            return []
        module, name = REGISTRIES[kind]
        registry = getattr(importlib.import_module(module), name)
        want = self.options.get("names", "").split()
        out = nodes.definition_list(classes=["cards"])
        for card in registry.cards():
            if want and card.name not in want:
                continue
            term = nodes.term("", "", nodes.literal(text=card.name))
            term["ids"] = [f"card-{kind}-{card.name}"]
            body = nodes.definition("", nodes.paragraph(text=card.what))
            facts = {FIELDS[k]: getattr(card, k) for k in FIELDS} | {
                k.replace("_", " "): v for k, v in card.extra.items()
            }
            field_list = nodes.field_list()
            for key, value in facts.items():
                if value in ("", None, "-"):
                    continue
                field_list += nodes.field(
                    "", nodes.field_name(text=key), nodes.field_body("", nodes.paragraph(text=_text(value)))
                )
            body += field_list
            out += nodes.definition_list_item("", term, body)
        return [out]


def _text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value)
    return str(value)


class StatusTable(TableDirective):
    """Every table of the papers: what it shows, whether we measured it, by which command, at what cost.

    Read from ``book/reported/index.csv``; the state is looked up in the rows, never typed: a table is
    measured in a profile if rows of one of the tables named in ``measured`` exist there.
    """

    has_content = True
    option_spec = {k: directives.unchanged for k in ("name", "caption", "paper")}  # noqa: RUF012

    def run(self):
        path = pathlib.Path(self.env.app.confdir) / self.env.config.companion_reported / "index.csv"
        if not path.exists():
            LOG.warning("status-table: no file %s", path.name, location=self.get_location())
            return []
        self.env.note_dependency(str(path))
        with path.open(encoding="utf-8", newline="") as f:
            entries = list(csv.DictReader(f))
        rows = measured_rows(self.env)
        body = []
        for e in entries:
            if self.options.get("paper") not in (None, e["paper"]):
                continue
            tables = {t.strip() for t in e["measured"].split(";") if t.strip()}
            hits = [r for r in rows if r["table"] in tables]
            seen = {
                p: sorted({r["notebook"] for r in hits if r["profile"] == p})
                for p in ("demo", "photos", "paper")
            }
            state: list = [f"{p} ({', '.join(n)})" for p, n in seen.items() if n]
            shown = [nodes.Text("measured: " + "; ".join(state))] if state else []
            later = f" (planned: {e['stage']})" if e["stage"] else ""
            shown = shown or [nodes.inline(text=NOT_RUN + later, classes=["not-run"])]
            body.append(
                [
                    f"{PAPERS.get(e['paper'], e['paper'])} {e['table']}",
                    e["title"],
                    shown,
                    nodes.literal(text=e["command"]) if e["command"] else "",
                    e["cost"],
                ]
            )
        heads = [[(t, 1, 1) for t in ("paper, table", "what it shows", "state here", "command", "cost")]]
        return [self.build(heads, body, [3, 5, 4, 4, 2], ["wide", "status"])]
