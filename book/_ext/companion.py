"""The book's own Sphinx extension: numbers from rows, tables of papers, cards, TeX macros, no outside request."""

from __future__ import annotations

import html
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tools"))

import companion_cards as cards
import companion_html
import companion_rows as rows
import companion_tables as tables


def macros(app, config) -> None:
    """One list of TeX macros for the browser (MathJax) and for print (LaTeX)."""
    m = config.companion_macros
    mathjax = config.mathjax3_config = dict(config.mathjax3_config or {})
    mathjax.setdefault("options", {})["enableAssistiveMml"] = True
    mathjax.setdefault("tex", {}).setdefault("macros", {}).update(m)
    tex = "".join(
        f"\\providecommand{{\\{k}}}" + (f"[{v[1]}]{{{v[0]}}}\n" if isinstance(v, list) else f"{{{v}}}\n")
        for k, v in m.items()
    )
    config.latex_elements = {
        **config.latex_elements,
        "preamble": config.latex_elements.get("preamble", "") + tex,
    }


def drop_cdn(app, pagename, templatename, context, doctree) -> None:
    """Thebe's loader names unpkg.com and is declared twice (a SyntaxError on every page): leave it out."""
    for key in ("script_files", "css_files"):
        files = context.get(key)
        if files is not None:
            files[:] = [
                f
                for f in files
                if "thebe" not in str(getattr(f, "filename", f))
                and "THEBE_JS_URL" not in str(getattr(f, "attributes", {}))
            ]


def badge(app, pagename, templatename, context, doctree) -> None:
    """Below a notebook's page: from which inputs its outputs were computed, and whether they still hold."""
    if not pagename.startswith("notebooks/"):
        return
    path = pathlib.Path(app.confdir) / f"{pagename}.ipynb"
    if not path.exists() or "body" not in context:
        return
    import inputs
    import jupytext
    import nbformat

    nb, py = nbformat.read(path, 4), path.with_suffix(".py")
    source = jupytext.read(py) if py.exists() else nb  # what an edit changes first
    known = nb.metadata.get("companion", {})
    stamp = known.get("inputs", "")
    code = [c.source for c in source.cells if c.cell_type == "code"]
    now = inputs.digest(code, known.get("parameters", {}))
    profile = known.get("parameters", {}).get("profile", "demo")
    state, words = (
        ("fresh", "they hold for this checkout") if stamp == now else ("stale", "inputs changed since")
    )
    if not stamp:
        words = "not run yet"
    context["body"] += (
        f'<p class="freshness {state}">Outputs of this page: profile {html.escape(profile)}, computed from '
        f"inputs <code>{html.escape(stamp or 'none')}</code>; {words}.</p>"
    )


def setup(app) -> dict:
    app.add_config_value("companion_macros", {}, "env")
    app.add_config_value("companion_results", "book/results", "env")
    app.add_config_value("companion_reported", "book/reported", "env")
    app.add_node(
        rows.number,
        override=True,
        html=(rows.visit_number_html, None),
        latex=(rows.visit_number_other, rows.depart_number_other),
        text=(rows.visit_number_other, rows.depart_number_other),
    )
    app.add_role("measured", rows.Measured())
    app.add_role("reported", rows.Reported())
    app.add_directive("paper-table", tables.PaperTable)
    app.add_directive("status-table", cards.StatusTable)
    app.add_directive("cards", cards.Cards)
    app.connect("config-inited", macros, priority=100)
    app.connect("html-page-context", drop_cdn, priority=900)
    app.connect("html-page-context", badge, priority=800)
    app.connect("build-finished", companion_html.repair_pages)
    app.set_html_assets_policy("always")  # MathJax on every page: hover previews quote equations
    return {"parallel_read_safe": True, "version": "1"}
