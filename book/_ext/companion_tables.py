"""``{paper-table}``: numbers measured here beside those a paper reports, as a native table."""

from __future__ import annotations

import re
import string

from companion_rows import (
    KINDS,
    LOG,
    as_float,
    family,
    measured_rows,
    metric_name,
    number,
    reported_rows,
    tip_measured,
    tip_reported,
)
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

HIGHER_IS_BETTER = {"iou", "acc", "max_f", "corloc", "corloc_gt", "miou", "f", "ap", "ap50"}
#: Unit of rows that count things: shown as whole numbers, and not in the head of a column.
COUNT = "count"
NOT_RUN = "not run here"


def words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def lines(text: str) -> list[str]:
    return [s.strip() for s in text.replace(";", "\n").splitlines() if s.strip()]


class TableDirective(SphinxDirective):
    """What the tables of this extension share: building docutils tables with captions and numbers."""

    def build(
        self, heads: list[list[tuple]], body: list[list], widths: list[int], classes: list[str]
    ) -> nodes.table:
        """``heads``: rows of (text, columns, rows) cells; ``body``: rows of text, nodes or lists of them."""
        table = nodes.table(classes=["paper-table", *classes, *self.options.get("class", [])])
        caption = self.options.get("caption") or " ".join(self.content)
        if caption:
            table += nodes.title(caption, "", *self.parse_inline(caption)[0])
        group = nodes.tgroup(cols=len(widths))
        table += group
        for i, width in enumerate(widths):
            group += nodes.colspec(colwidth=width, **({"stub": 1} if i == 0 else {}))
        head, rows = nodes.thead(), nodes.tbody()
        for row in heads:
            line = nodes.row()
            for text, columns, deep in row:
                entry = nodes.entry("", nodes.paragraph("", "", *_nodes(text)))
                if columns > 1:
                    entry["morecols"] = columns - 1
                if deep > 1:
                    entry["morerows"] = deep - 1
                line += entry
            head += line
        for row in body:
            line = nodes.row()
            for cell in row:
                line += nodes.entry("", nodes.paragraph("", "", *_nodes(cell)))
            rows += line
        group += head
        group += rows
        self.set_source_info(table)
        self.add_name(table)
        return table


def _nodes(cell) -> list[nodes.Node]:
    if isinstance(cell, list):
        return [n for c in cell for n in _nodes(c)]
    return [cell if isinstance(cell, nodes.Node) else nodes.Text(cell)]


class PaperTable(TableDirective):
    """``{paper-table} table``: rows of one table, measured columns first, reported columns marked.

    Options
    -------
    metrics, datasets, profiles : words; default: all that the rows have, in their order. Metrics whose names have
        spaces are separated by ``;``
    rows : rows to show, in this order, one a line (or separated by ``;``)
    optional-rows : those of them that need something not everybody has; they may be absent
    optional : the table may have no row at all (its profile was not run); it then says "not run here"
    reported : stem of ``book/reported/<stem>.csv``
    reported-metrics, reported-datasets, reported-groups : restrict it; groups separated by ``;``
    reported-rows : ``ours = theirs`` lines where names differ; a reported row that is named by no
        measured row and no such line is left out, unless ``reported-all`` is given
    backbone, preset, seed : select among rows of one name
    mix-families : allow measured numbers of several metric families in a column; each cell names its own
    no-ci, format, caption, name, class
    """

    required_arguments = 1
    has_content = True
    option_spec = {  # noqa: RUF012
        **{
            k: directives.unchanged
            for k in (
                "name", "caption", "metrics", "datasets", "profiles", "rows", "optional-rows", "reported",
                "reported-metrics", "reported-datasets", "reported-groups", "reported-rows", "backbone", "preset",
                "seed", "format",
            )
        },
        **{k: directives.flag for k in ("mix-families", "no-ci", "optional", "reported-all")},
        "class": directives.class_option,
    }  # fmt: skip

    def run(self):
        table = self.arguments[0]
        rows = [r for r in measured_rows(self.env) if r["table"] == table and self._selected(r)]
        self.notes: list[str] = []
        theirs = self._reported()
        self.absent = not rows and "optional" in self.options
        if not rows and not theirs and not self.absent:
            LOG.warning("paper-table: no rows for %r", table, location=self.get_location())
            return []
        ours = {}
        for r in rows:
            key = (r["profile"], r["dataset"], r["metric"], r["row"])
            if key in ours:
                LOG.warning("paper-table %s: two rows for %s; add :seed:, :backbone: or :preset:", table,
                            "/".join(key), location=self.get_location())  # fmt: skip
            ours[key] = r
        own_cols = list(dict.fromkeys((r["profile"], r["dataset"]) for r in rows))
        metrics = self._metrics() or list(dict.fromkeys(r["metric"] for r in rows))
        own = [
            (p, d, m) for p, d in own_cols for m in metrics if any((p, d, m, r["row"]) in ours for r in rows)
        ]
        rep = list(dict.fromkeys((r["dataset"], r["metric"]) for r in theirs.values()))
        names = self._names(rows, theirs)
        body = []
        for name in names:
            cells: list = [self._label(name, ours, own, theirs, rep)]
            cells += [self._own(name, c, ours, names) for c in own]
            cells += [nodes.inline(text=NOT_RUN, classes=["not-run"])] if self.absent else []
            cells += [self._their(theirs.get((*c, name)), c, theirs) for c in rep]
            body.append(cells)
        for c in own:
            self._one_family(table, c, ours, names)
        classes = ["wide"] if len(own) + len(rep) > 5 else []
        node = self.build(
            self._heads(own, rep, ours, theirs),
            body,
            [4] + [2] * (len(own) + len(rep) + self.absent),
            classes,
        )
        return [node, *self._notes()]

    def _metrics(self) -> list[str]:
        """Names that were asked for; those with spaces in them are separated by semicolons."""
        asked = self.options.get("metrics", "")
        return lines(asked) if ";" in asked else words(asked)

    def _selected(self, r: dict) -> bool:
        want = {k: words(self.options[k + "s"]) for k in ("dataset", "profile") if k + "s" in self.options}
        want |= {"metric": self._metrics()} if "metrics" in self.options else {}
        want |= {k: words(self.options[k]) for k in ("backbone", "preset", "seed") if k in self.options}
        return all(str(r[k]) in v for k, v in want.items())

    def _reported(self) -> dict[tuple, dict]:
        """(dataset, metric, our row name) -> reported row."""
        stem = self.options.get("reported")
        if not stem:
            return {}
        found = reported_rows(self.env, stem)
        if not found:
            LOG.warning("paper-table: no file book/reported/%s.csv", stem, location=self.get_location())
        alias = {}
        for line in lines(self.options.get("reported-rows", "")):
            ours, _, theirs = (s.strip() for s in line.partition("="))
            alias[theirs] = ours
        keep = {
            k: words(self.options[f"reported-{k}s"])
            for k in ("metric", "dataset")
            if f"reported-{k}s" in self.options
        }
        if "reported-groups" in self.options:
            keep["group"] = lines(self.options["reported-groups"])
        out = {}
        for r in found:
            if r["unit"] == "text" or not all(r[k] in v for k, v in keep.items()):
                continue
            key = (r["dataset"], r["metric"], alias.get(r["row"], r["row"]))
            if key in out:
                LOG.warning("paper-table: %s reports two numbers for %s; add :reported-groups:", stem,
                            "/".join(key), location=self.get_location())  # fmt: skip
            out[key] = r
        if unknown := set(alias) - {r["row"] for r in found}:
            LOG.warning(
                "paper-table: %s has no row %r", stem, sorted(unknown)[0], location=self.get_location()
            )
        self.alias = alias
        return out

    def _names(self, rows: list[dict], theirs: dict) -> list[str]:
        measured = list(dict.fromkeys(r["row"] for r in rows))
        named = [*measured, *(n for n in getattr(self, "alias", {}).values() if n not in measured)]
        reported = list(dict.fromkeys(k[2] for k in theirs))
        everyone = named + [n for n in reported if n not in named and "reported-all" in self.options]
        if "rows" not in self.options:
            return list(dict.fromkeys(everyone)) or (["all rows"] if self.absent else [])
        chosen = lines(self.options["rows"])
        optional = lines(self.options.get("optional-rows", ""))
        for n in chosen:
            if n not in measured and n not in reported and n not in optional and not self.absent:
                LOG.warning("paper-table: no row %r", n, location=self.get_location())
        return chosen

    def _heads(self, own, rep, ours, theirs) -> list[list[tuple]]:
        first: list[tuple] = [("method", 1, 2)]
        second: list[tuple] = []
        for p, d in dict.fromkeys((p, d) for p, d, _ in own):
            ms = [m for q, e, m in own if (q, e) == (p, d)]
            hits = [r for k, r in ours.items() if k[:2] == (p, d)]
            n = sorted({r["n"] for r in hits})
            size = f", n = {n[0]}" if len(n) == 1 and n[0] else ""
            first.append((f"measured: {d or 'no images'} ({p}{size})", len(ms), 1))
            for m in ms:
                sets = sorted({r["preset"] for r in hits if r["metric"] == m and r["preset"]})
                unit = next((r["unit"] for r in hits if r["metric"] == m), "")
                mark = sets[0] if len(sets) == 1 and sets[0] != m else "" if unit == COUNT else unit
                second.append((metric_name(m) + (f" [{mark}]" if mark else ""), 1, 1))
        if self.absent:
            first.append((": ".join(["measured", *words(self.options.get("profiles", ""))]), 1, 2))
            if not rep:
                return [[(text, columns, 1) for text, columns, _ in first]]
        for d in dict.fromkeys(d for d, _ in rep):
            ms = [m for e, m in rep if e == d]
            first.append((nodes.emphasis(text=f"reported: {d or 'no images'}"), len(ms), 1))
            for m in ms:
                hits = [r for k, r in theirs.items() if k[:2] == (d, m)]
                mark = self._main(hits)
                unit = {"percent": "%", "fraction": ""}.get(hits[0]["unit"], hits[0]["unit"])
                text = " ".join(
                    x for x in (metric_name(m), unit, f"[{mark}]" if mark and mark != m else "") if x
                )
                second.append((nodes.emphasis(text=text), 1, 1))
        return [first, second]

    @staticmethod
    def _main(hits: list[dict]) -> str:
        """The metric preset most of a reported column's rows have; others are marked in their cells."""
        sets = [r["preset"] for r in hits]
        return max(sets, key=sets.count) if sets else ""

    def _label(self, name, ours, own, theirs, rep):
        kinds = {ours[*c, name]["kind"] for c in own if (*c, name) in ours}
        kinds |= {theirs[*c, name]["kind"] for c in rep if (*c, name) in theirs}
        marks = [KINDS[k] for k in sorted(kinds) if k in KINDS]
        return [name, *([nodes.emphasis(text=f" ({'; '.join(marks)})")] if marks else [])]

    def _own(self, name, column, ours, names):
        r = ours.get((*column, name))
        if r is None:  # a row that was run there may lack a number, as the base of differences does
            run = any((p, d, n) == (*column[:2], name) for p, d, _, n in ours)
            return "–" if run else nodes.inline(text=NOT_RUN, classes=["not-run"])
        usual = ".0f" if r["unit"] == COUNT else ".3f" if abs(r["value"]) < 10 else ".1f"
        fmt = self.options.get("format", usual)
        text = format(r["value"], fmt)
        cell = number(text, text, kind="measured", tip=tip_measured(r), value=r["value"])
        column_values = [ours[*column, n]["value"] for n in names if (*column, n) in ours]
        ranked = column[2] in HIGHER_IS_BETTER and "mix-families" not in self.options
        if ranked and len(column_values) > 1 and r["value"] == max(column_values):
            cell["classes"].append("best")
            cell = nodes.strong("", "", cell)
        out = [cell]
        if r["ci"] and "no-ci" not in self.options:
            low, high = (re.sub(r"^(-?)0\.", r"\1.", format(v, fmt)) for v in r["ci"])
            to = " to " if {low[0], high[0]} & {"-", "+"} else "–"  # a dash beside a sign reads as two
            out += [nodes.Text(" "), nodes.inline(text=f"{low}{to}{high}", classes=["ci"])]
        if "mix-families" in self.options and r["preset"]:
            out += [nodes.Text(" "), nodes.inline(text=f"[{r['preset']}]", classes=["ci"])]
        return out

    def _their(self, r, column, theirs):
        if r is None or r["value"] in ("", "-", "—"):
            why = "not reported" if r is None or not r["note"] else r["note"]
            return number("–", "–", kind="reported", tip=why, value=None)
        out = [
            number(r["value"], r["value"], kind="reported", tip=tip_reported(r), value=as_float(r["value"]))
        ]
        main = self._main([x for k, x in theirs.items() if k[:2] == column])
        if r["preset"] and main and family(r["preset"]) != family(main):
            out.append(nodes.inline(text=f" [{r['preset']}]", classes=["ci"]))
        if r["flag"]:
            note = f"{r['flag']}: {r['note']}" if r["note"] else r["flag"]
            if note not in self.notes:
                self.notes.append(note)
            i = self.notes.index(note)
            letter = string.ascii_lowercase[i % 26] * (1 + i // 26)
            out.append(nodes.superscript(text=letter))
        return out

    def _one_family(self, table, column, ours, names) -> None:
        sets = {ours[*column, n]["preset"] for n in names if (*column, n) in ours}
        families = {family(s) for s in sets if s}
        if len(families) > 1 and "mix-families" not in self.options:
            LOG.warning(
                "paper-table %s: column %s mixes the metric families %s; choose one with :preset: or say "
                ":mix-families:", table, "/".join(column), ", ".join(sorted(families)),
                location=self.get_location())  # fmt: skip

    def _notes(self) -> list[nodes.Node]:
        if not self.notes:
            return []
        box = nodes.container(classes=["table-notes"])
        for i, note in enumerate(self.notes):
            letter = string.ascii_lowercase[i % 26] * (1 + i // 26)
            box += nodes.paragraph("", "", nodes.superscript(text=letter), nodes.Text(f" {note}"))
        return [box]
