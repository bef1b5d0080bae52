"""The book's machinery: numbers quoted by roles and tables, notebook freshness, the offline audit, the glue."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest

from sempart_core import SempartError, notebook, records
from sempart_core.records import Record

ROOT = pathlib.Path(__file__).resolve().parents[1]
bs4 = pytest.importorskip("bs4")
pytest.importorskip("sphinx")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupytext")
sys.path[:0] = [str(ROOT / "book" / "tools"), str(ROOT / "book" / "_ext")]

import check_site  # noqa: E402
import companion  # noqa: E402
import companion_rows  # noqa: E402
import inputs  # noqa: E402
import nb as plumbing  # noqa: E402
import readme  # noqa: E402

ROWS = [
    Record("t", "TokenCut", "iou", 0.5126, ci=(0.48, 0.54), n=200, dataset="scenes", preset="tokencut", notebook="30_x"),
    Record("t", "LOST", "iou", 0.41, n=200, dataset="scenes", preset="tokencut", notebook="30_x"),
    Record("t", "a/b", "acc", 0.9, n=200, dataset="scenes", preset="tokencut", notebook="30_x"),
    Record("t", "TokenCut", "iou", 0.61, n=50, dataset="voc", profile="photos", preset="tokencut", notebook="30_x"),
    Record("mixed", "A", "iou", 0.5, dataset="scenes", preset="tokencut", notebook="40_x"),
    Record("mixed", "B", "iou", 0.6, dataset="scenes", preset="selfmask", notebook="40_x"),
]  # fmt: skip
COLUMNS = "paper,table,row,group,dataset,metric,value,unit,preset,kind,copied_from,flag,note".split(",")
REPORTED = [
    "sempart,1,TokenCut,,ecssd,iou,.712,fraction,tokencut,unsupervised,,,".split(","),
    "sempart,1,MOVE,,ecssd,iou,.830,fraction,selfmask,label-tuned,,misprint,see 2".split(","),
    "sempart,1,Other,,ecssd,iou,.1,fraction,tokencut,unsupervised,,,".split(","),
]
INDEX = "paper table file title measures datasets preset measured command stage cost needs".split()
CONF = """
extensions = ["myst_parser", "companion"]
myst_enable_extensions = ["colon_fence"]
numfig = True
companion_macros = {"Ncut": r"\\\\operatorname{Ncut}"}
"""


def build(folder: pathlib.Path, text: str) -> tuple[bs4.BeautifulSoup, str]:
    """A one-page book made by our extension; its soup and its warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    results, reported = folder / "book" / "results", folder / "book" / "reported"
    reported.mkdir(parents=True)
    records.write_rows(ROWS, results)
    for name, head, lines in (
        ("sempart-1", COLUMNS, REPORTED),
        ("index", INDEX, [
            ["sempart", "1", "sempart-1", "saliency", "", "", "", "t;u", "make reproduce", "one", "5 min", ""],
            ["sempart", "2", "sempart-2", "time", "", "", "", "none", "", "two", "", ""],
        ]),
    ):  # fmt: skip
        with (reported / f"{name}.csv").open("w", newline="") as f:
            csv.writer(f).writerows([head, *lines])
    (folder / "conf.py").write_text(CONF)
    (folder / "index.md").write_text(f"# Title\n\n{text}\n")
    warnings = io.StringIO()
    with patch_docutils(str(folder)), docutils_namespace():
        app = Sphinx(folder, folder, folder / "out", folder / "tree", "html", status=None, warning=warnings)
        app.build()
    soup = bs4.BeautifulSoup((folder / "out" / "index.html").read_text(), "html.parser")
    return soup, re.sub(r"\x1b\[[0-9;]*m", "", warnings.getvalue())


def test_roles_quote_rows_with_provenance(tmp_path):
    soup, warnings = build(
        tmp_path,
        "A {measured}`t/TokenCut/iou|.2f`, B {measured}`t/TokenCut/iou@voc@photos`, C {measured}`t/a/b/acc`, "
        "D {measured}`t/TokenCut/iou@scenes|.1% ci`, E {reported}`sempart-1/TokenCut/iou@ecssd`.",
    )
    assert not warnings
    numbers = soup.select("article .num, main .num, body .num")
    shown = [n.find("data").get_text() for n in numbers]
    assert shown == ["0.51", "0.610", "0.900", "51.3% (48.0% to 54.0%)", ".712"]
    assert float(numbers[0].find("data")["value"]) == 0.5126
    tip = numbers[0].select_one(".num-tip").get_text()
    assert "30_x" in tip and "profile demo" in tip and "n = 200" in tip and "0.480 to 0.540" in tip
    assert "reported" in numbers[4]["class"] and "SEMPART, table 1" in numbers[4].get_text()


WRONG = (
    "{measured}`t/TokenCut/nothing`",
    "{measured}`t/TokenCut/iou@voc`",  # measured in photos only: the demo profile is meant
    "{measured}`t/TokenCut/iou@scenes|q`",
    "{reported}`sempart-1/TokenCut/iou@voc07`",
    "```{paper-table} nothing\n```",
    "```{paper-table} mixed\n```",
    "```{paper-table} t\n:reported: sempart-1\n:reported-rows: TokenCut = No such row\n```",
    "```{paper-table} t\n:rows: TokenCut; Nobody\n```",
    "```{cards} nothing\n```",
)


def test_each_wrong_quotation_is_a_warning(tmp_path):
    _, warnings = build(tmp_path, "\n\n".join(WRONG))
    lines = [w for w in warnings.splitlines() if "WARNING" in w]
    assert len(lines) == len(WRONG), warnings


def test_two_rows_for_one_quotation_are_a_warning(tmp_path, monkeypatch):
    twice = [*ROWS, dataclasses.replace(ROWS[0], seed=1)]
    monkeypatch.setattr(sys.modules[__name__], "ROWS", twice)
    assert "2 rows for" in build(tmp_path, "{measured}`t/TokenCut/iou`")[1]


def test_paper_table_keeps_measured_and_reported_apart(tmp_path):
    soup, warnings = build(
        tmp_path,
        "```{paper-table} t\n:name: tab-x\n:caption: Our *numbers*.\n:profiles: demo\n:metrics: iou\n"
        ":reported: sempart-1\n:reported-rows: MOVE net = MOVE\n```\n",
    )
    assert not warnings
    table = soup.find("table", id="tab-x")
    assert "Our numbers." in table.find("caption").get_text()
    heads = [h.get_text(" ", strip=True) for h in table.find("thead").find_all("tr")[0].find_all("th")]
    assert heads == ["method", "measured: scenes (demo, n = 200)", "reported: ecssd"]
    body = {}
    for tr in table.find("tbody").find_all("tr"):
        for tip in tr.select(".num-tip"):
            tip.extract()
        name, *cells = (c.get_text(" ", strip=True) for c in tr.find_all(["th", "td"]))
        body[name] = cells
    assert body["TokenCut"] == ["0.513 .480–.540", ".712"]
    assert body["LOST"] == ["0.410", "–"]
    assert "Other" not in body  # named by no row of ours
    # another family and a doubtful print are marked in the cell, the kind behind the name
    (move,) = [v for k, v in body.items() if k.startswith("MOVE net")]
    assert move == ["not run here", ".830 [selfmask] a"]
    assert any("tuned with labels" in k for k in body)
    assert "misprint: see 2" in soup.select_one(".table-notes").get_text()


def test_counts_are_whole_and_signed_intervals_say_to(tmp_path, monkeypatch):
    count = dataclasses.replace(ROWS[0], metric="pictures", value=3.0, unit="count", ci=None, preset="")
    change = dataclasses.replace(ROWS[0], metric="iou_change", value=-0.02, ci=(-0.03, -0.01))
    monkeypatch.setattr(sys.modules[__name__], "ROWS", [count, change])
    soup, warnings = build(tmp_path, "```{paper-table} t\n:profiles: demo\n```\n")
    for tip in soup.select(".num-tip"):
        tip.extract()
    cells = [c.get_text(" ", strip=True) for c in soup.select("table.paper-table tbody td")]
    assert not warnings and cells == ["3", "-0.020 -.030 to -.010"]
    heads = [c.get_text(" ", strip=True) for c in soup.select("table.paper-table thead th")]
    assert heads[2] == "pictures"  # without a unit


def test_what_counts_scenes_says_so():
    rows = [r for r in records.load_rows(ROOT / "book" / "results") if r["metric"] == "scenes"]
    assert rows and all(r["unit"] == "count" and r["value"] == int(r["value"]) for r in rows)


def test_names_of_metrics_may_hold_spaces(tmp_path, monkeypatch):
    spaced = [dataclasses.replace(ROWS[0], metric="pair iou"), ROWS[0]]
    monkeypatch.setattr(sys.modules[__name__], "ROWS", spaced)
    table = "```{paper-table} t\n:profiles: demo\n:metrics: pair iou; iou\n```\n"
    soup, warnings = build(tmp_path, table)
    assert not warnings and len(soup.select("table.paper-table tbody td")) == 2


def test_a_row_that_was_run_may_lack_a_number(tmp_path):
    table = "```{paper-table} t\n:profiles: demo\n:metrics: iou, acc\n:rows: LOST; a/b; U2\n:optional-rows: U2\n```\n"
    soup, warnings = build(tmp_path, table)
    rows = [
        [c.get_text(" ", strip=True) for c in tr.find_all("td")[-2:]]
        for tr in soup.select("table.paper-table tbody tr")
    ]
    assert not warnings and rows[0][1] == "–" and rows[1][0] == "–"
    assert rows[2] == ["not run here", "not run here"]


def test_only_optional_rows_may_be_absent(tmp_path):
    table = "```{paper-table} t\n:profiles: demo\n:metrics: iou\n:rows: TokenCut; U2; U3\n:optional-rows: U2\n```\n"
    soup, warnings = build(tmp_path, table)
    cells = [tr.get_text(" ", strip=True) for tr in soup.select("table.paper-table tbody tr")]
    assert len(cells) == 3 and cells[1] == "U2 not run here"
    assert "U3" in warnings and "'U2'" not in warnings


def test_only_an_optional_table_may_be_empty(tmp_path):
    table = (
        "```{paper-table} t\n:name: tab-x\n:caption: On photographs.\n:profiles: paper\n:metrics: iou\n```\n"
    )
    soup, warnings = build(tmp_path / "must", table)
    assert "no rows for 't'" in warnings and not soup.find("table")
    soup, warnings = build(tmp_path / "may", table.replace(":name:", ":optional:\n:name:"))
    assert not warnings
    (row,) = soup.find("table", id="tab-x").find("tbody").find_all("tr")
    assert row.get_text(" ", strip=True) == "all rows not run here"
    # rows that were named say it each, and a table with numbers is not changed by the option
    named = table.replace(":name:", ":optional:\n:rows: TokenCut; U2\n:name:")
    soup, warnings = build(tmp_path / "named", named)
    assert not warnings and len(soup.select("#tab-x tbody tr")) == 2
    # beside reported numbers the empty column stands as well
    beside = table.replace(":name:", ":optional:\n:reported: sempart-1\n:rows: TokenCut\n:name:")
    soup, warnings = build(tmp_path / "beside", beside)
    cells = [c.get_text(" ", strip=True) for c in soup.select("#tab-x tbody tr > *")]
    assert not warnings and cells[1] == "not run here" and ".712" in cells[2]
    run, warnings = build(tmp_path / "run", table.replace("paper\n", "demo\n:optional:\n"))
    assert not warnings and "0.513" in run.find("table").get_text()


def test_families_mix_only_when_asked(tmp_path):
    soup, warnings = build(tmp_path, "```{paper-table} mixed\n:mix-families:\n```")
    assert not warnings
    text = soup.find("table").get_text()
    assert "[selfmask]" in text and "[tokencut]" in text
    assert not soup.find("table").find("tbody").find("strong")  # nothing is best across families


def test_status_looks_the_state_up(tmp_path):
    soup, warnings = build(tmp_path, "```{status-table}\n:name: s\n:caption: State\n```")
    assert not warnings
    first, second = (r.get_text(" ", strip=True) for r in soup.find("table").find("tbody").find_all("tr"))
    assert "demo (30_x)" in first and "photos (30_x)" in first and "make reproduce" in first
    assert "not run here" in second and "planned: two" in second


def test_intervals_lose_only_a_leading_zero(tmp_path, monkeypatch):
    row = dataclasses.replace(ROWS[0], table="w", value=10.6, ci=(10.53, 20.04))
    signed = dataclasses.replace(ROWS[0], table="w", row="S", value=0.01, ci=(-0.05, 0.07))
    monkeypatch.setattr(sys.modules[__name__], "ROWS", [row, signed])
    text = build(tmp_path, "```{paper-table} w\n:format: .2f\n```")[0].find("table").get_text()
    assert "10.53–20.04" in text and "-.05 to .07" in text


def test_readme_refuses_two_rows_for_one_cell(monkeypatch):
    names = ("profile", "dataset", "metric")
    row = dict(zip(names, readme.COLUMNS["demo scenes, IoU"], strict=True))
    row |= {"table": readme.ROWS["TokenCut"], "row": "TokenCut", "value": 0.5, "n": 9}
    monkeypatch.setattr(records, "load_rows", lambda: [row, {**row, "table": "x"}, {**row, "table": "x"}])
    assert "| TokenCut | 0.500 (n = 9) |" in readme.table()
    monkeypatch.setattr(records, "load_rows", lambda: [{**row, "seed": 0}, {**row, "seed": 1}])
    with pytest.raises(SystemExit, match="two result rows for demo / demo-test / iou / saliency / TokenCut"):
        readme.table()


def test_address_of_a_row():
    parse = companion_rows.parse_address
    assert parse("t/a/b/iou@voc@photos@seed=1|.2f ci") == (
        ["t", "a/b", "iou"],
        {"dataset": "voc", "profile": "photos", "seed": "1"},
        ".2f ci",
    )


# ---------------------------------------------------------------- freshness


@pytest.fixture
def tree(tmp_path):
    for path, text in {
        "sempart_core/__init__.py": "",
        "sempart_core/a.py": '"""Doc."""\nfrom . import b\nx = 1  # note\n',
        "sempart_core/b.py": "def f():\n    from .c import y\n    return y\n",
        "sempart_core/c.py": "y = '# not a comment'\n",
        "sempart_core/other.py": "z = 1\n",
        "requirements.txt": "numpy==1\n",
        "book/results/demo/main--scenes.json": "[]\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def digest(code, tree, **params):
    inputs.modules.cache_clear()
    return inputs.digest([code], params, tree)


def test_freshness_follows_imports_and_ignores_words(tree):
    code = "from sempart_core import a"
    first = digest(code, tree)
    assert digest(code, tree) == first
    (tree / "sempart_core/other.py").write_text("z = 2\n")
    (tree / "sempart_core/a.py").write_text('"""Other words."""\n\nfrom . import b\n# more\nx = 1\n')
    assert digest(code, tree) == first
    assert digest(code, tree, seed=1) != first
    assert digest(code + "\n1", tree) != first
    for path, text in {
        "sempart_core/c.py": "y = '# changed'\n",  # imported inside a function of an import
        "requirements.txt": "numpy==2\n",
    }.items():
        old = (tree / path).read_text()
        (tree / path).write_text(text)
        inputs._content.cache_clear()
        assert digest(code, tree) != first, path
        (tree / path).write_text(old)
        inputs._content.cache_clear()


def test_declared_rows_count(tree):
    code, silent = "# nb: reads main\nimport sempart_core.c", "import sempart_core.c"
    first, quiet = digest(code, tree), digest(silent, tree)
    (tree / "book/results/demo/main--scenes.json").write_text("[1]\n")
    inputs._content.cache_clear()
    assert digest(code, tree) != first
    assert digest(silent, tree) == quiet
    with pytest.raises(SystemExit, match="unknown line"):
        inputs.directives(["# nb: heavy"])


def test_bare_source_keeps_code():
    source = 'def f(x):\n    """Words\n\n    more."""\n    s = "# kept"  # gone\n    """also kept"""\n    return s\n'
    out = inputs.bare(source)
    assert out == 'def f(x):\n    s = "# kept"\n    """also kept"""\n    return s'
    compile(out, "x", "exec")


def test_strings_of_several_lines_count_whole():
    f = 's = f"""a {x}  \n\n b"""\n'
    for source in ('s = """a  \n\n# b"""\n', f):
        assert inputs.bare("# c\n\n" + source + "\nx = 1  # d\n") == source + "x = 1"
        assert inputs.bare(source.replace("  \n", "\n")) != inputs.bare(source)
        assert inputs.bare(source.replace("\n\n", "\n")) != inputs.bare(source)
        assert inputs.bare(source.replace("\n", "\r\n")) == inputs.bare(source)
    assert inputs.bare('s = (\n    "a"  # c\n\n    # d\n    "b"\n)\n') == 's = (\n    "a"\n    "b"\n)'


def test_a_chapter_that_loads_a_backbone_needs_no_fine_tuning():
    found = inputs.modules("sempart_core.backbones", ROOT)
    assert "sempart_core.tuned" in found and not [m for m in found if "finetune" in m or "training" in m]


def test_lists_count_where_they_are_read(tree):
    (tree / "sempart_core/samples.py").write_text("x = 1\n")
    path = tree / "book/lists/set/all.txt"
    path.parent.mkdir(parents=True)
    path.write_text("a\n")
    reader, other = "from sempart_core import samples", "from sempart_core import a"
    first, quiet = digest(reader, tree), digest(other, tree)
    path.write_text("b\n")
    inputs._content.cache_clear()
    assert digest(reader, tree) != first
    assert digest(other, tree) == quiet


# ---------------------------------------------------------------- notebooks


def pair(folder: pathlib.Path, cells: list[tuple[str, list, list]]) -> pathlib.Path:
    """An executed pair ``(source, tags, outputs)``."""
    import jupytext

    nb = nbformat.v4.new_notebook()
    for i, (source, tags, outputs) in enumerate(cells, 1):
        cell = nbformat.v4.new_code_cell(source, execution_count=i, outputs=outputs)
        if tags:
            cell.metadata["tags"] = tags
        nb.cells.append(cell)
    plumbing.normalise(nb)
    nb.metadata["companion"] = {"inputs": inputs.digest(plumbing.code_of(nb))}
    nbformat.write(nb, folder / "x.ipynb")
    nb.metadata["jupytext"] = {"cell_metadata_filter": "tags,-all"}
    jupytext.write(nb, folder / "x.py", fmt="py:percent")
    return folder / "x.py"


def test_check_accepts_a_good_pair_and_names_each_fault(tmp_path):
    new = nbformat.v4.new_output
    py = pair(tmp_path, [("a = 1", [], []), ("a", [], [new("stream", text="1\n")])])
    assert plumbing.problems(py) == []
    py.write_text(py.read_text().replace("a = 1", "a = 2"))
    assert any("pair differs" in b for b in plumbing.problems(py))
    assert any("stale" in b for b in plumbing.problems(py))
    shown = new("display_data", data={"image/png": "AA=="}, metadata={"scrapbook": {"name": "f"}})
    py = pair(tmp_path, [("f()", [], [shown]), ("g()", [], [new("stream", name="stderr", text="W")])])
    assert [("twice" in b, "stderr" in b) for b in plumbing.problems(py)] == [(True, False), (False, True)]
    nb = nbformat.read(tmp_path / "x.ipynb", 4)
    nb.cells[0].execution_count = 7
    nb.cells[1].source += " " * plumbing.BUDGET
    nbformat.write(nb, tmp_path / "x.ipynb")
    assert any("top to bottom" in b for b in plumbing.problems(py))
    assert any("budget" in b for b in plumbing.problems(py))


def test_outputs_are_stamped_only_if_the_inputs_held_still(tmp_path, monkeypatch):
    py = pair(tmp_path, [("a = 1", [], [])])
    src, dst, edits = py.with_suffix(".ipynb"), tmp_path / "out" / "x.ipynb", []

    def run(source, target, **_):
        pathlib.Path(target).write_bytes(pathlib.Path(source).read_bytes())
        for old, new in edits:
            src.write_text(src.read_text().replace(old, new))

    stub = types.SimpleNamespace(inspect_notebook=lambda _: {}, execute_notebook=run)
    monkeypatch.setitem(sys.modules, "papermill", stub)
    monkeypatch.setattr(plumbing, "ROOT", tmp_path)
    monkeypatch.setattr(plumbing.os, "dup2", lambda *_: None)
    plumbing.execute(src, dst, {}, {}, 1)
    assert plumbing.stamp(dst) == inputs.digest(["a = 1"], {})
    assert [p.name for p in dst.parent.iterdir()] == ["x.ipynb"]  # no temporary file stays
    dst.unlink()
    edits.append(("a = 1", "a = 2"))
    with pytest.raises(RuntimeError, match="inputs changed while it ran; run it again"):
        plumbing.execute(src, dst, {}, {}, 1)
    assert not dst.exists()


def test_badge_tells_of_an_edit_that_is_not_synced_yet(tmp_path):
    (tmp_path / "notebooks").mkdir()
    py = pair(tmp_path / "notebooks", [("a = 1", [], [])])
    app = types.SimpleNamespace(confdir=str(tmp_path))

    def words():
        context = {"body": ""}
        companion.badge(app, "notebooks/x", "", context, None)
        return context["body"]

    assert "they hold for this checkout" in words()
    py.write_text(py.read_text().replace("a = 1", "a = 2"))
    assert "inputs changed since" in words()
    py.unlink()
    assert "they hold for this checkout" in words()


def test_normalised_outputs_do_not_depend_on_chance():
    new = nbformat.v4.new_output
    one = plumbing._normal_outputs([new("stream", text="a"), new("stream", text="b <o at 0x7f>\n")])
    assert [o.text for o in one] == ["ab <o>\n"]


def test_order_of_stages(tmp_path, monkeypatch):
    for name, mark in {"1a": "", "2b": "# nb: reads t", "3c": "# nb: alone", "4d": "# nb: light"}.items():
        (tmp_path / f"{name}.py").write_text(f"# %%\n{mark}\n1\n")
    names = sorted(tmp_path.glob("*.py"))
    order = [(how, [p.stem for p in ps]) for how, ps in plumbing.stages(names)]
    assert order == [("together", ["1a", "4d"]), ("alone", ["3c"]), ("together", ["2b"])]


# ---------------------------------------------------------------- notebook.py


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(notebook, "_session", notebook._Session())


def test_start_validates_and_seeds(session):
    profile = notebook.start("smoke", seed=3, device="cpu", name="x")
    first = np.random.rand(), float(__import__("torch").rand(1))  # noqa: NPY002
    notebook.start("smoke", seed=3, device="cpu", name="x")
    assert (np.random.rand(), float(__import__("torch").rand(1))) == first  # noqa: NPY002
    assert profile.name == "smoke" and profile.seed == 3
    for bad in ({"profile": "big"}, {"seed": -1}, {"seed": "0"}, {"profile": "photos"}, {"colour": 1}):
        with pytest.raises(SempartError):
            notebook.start(**{"profile": "demo", "device": "cpu", **bad})


def test_save_signs_rows_and_smoke_writes_none(session, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_RESULTS", str(tmp_path))
    row = Record("t", "r", "iou", 0.5, dataset="scenes")
    with pytest.raises(SempartError, match="before start"):
        notebook.save([row])
    notebook.start("smoke", device="cpu", name="30_x")
    notebook.save([row])
    assert not list(tmp_path.rglob("*.json"))
    with pytest.raises(SempartError, match="two rows"):
        notebook.save([row, row])
    notebook.start("demo", device="cpu", name="30_x")
    notebook.save([row])
    (path,) = tmp_path.rglob("*.json")
    assert json.loads(path.read_text())[0]["notebook"] == "30_x"
    for bad in ({"notebook": "other"}, {"profile": "paper"}):
        with pytest.raises(SempartError):
            notebook.save([dataclasses.replace(row, **bad)])


def test_figures_have_the_same_bytes_and_shrink(session):
    from sempart_core import plots

    notebook.start("smoke", device="cpu", name="x")
    picture = np.random.default_rng(0).random((300, 300, 3))

    def draw():
        return notebook.figure_png(plots.mask_grid([[picture, (picture, picture[..., 0] > 0.5)]]))

    first = draw()
    assert first == draw()
    assert b"atplotlib" not in first
    raw = io.BytesIO()
    plots.mask_grid([[picture, picture]]).savefig(raw, format="png")
    assert len(first) < len(raw.getvalue())


def test_core_needs_no_book_packages():
    code = (
        "import sys\n"
        "for m in ('sphinx', 'IPython', 'matplotlib', 'pandas', 'jupytext'): sys.modules[m] = None\n"
        "import sempart_core, sempart_core.notebook as nb, sempart_core.plots\n"
        "nb.glue('x', 1.0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# ---------------------------------------------------------------- audit and repository


def test_audit_finds_each_fault(tmp_path):
    (tmp_path / "index.html").write_text(
        '<link rel="canonical" href="https://x.org/"><a href="b.html#here">ok</a><a href="https://x.org">ok</a>'
        '<img src="p.png" alt="A square"><span id="t"></span><a href="#t">ok</a>'
    )
    (tmp_path / "b.html").write_text('<p id="here">')
    (tmp_path / "p.png").write_bytes(b"")
    assert check_site.audit(tmp_path)[0] == []
    faults = {
        '<a href="c.html">': "dead link",
        '<a href="b.html#there">': "no anchor",
        '<script src="https://x.org/a.js"></script>': "loads",
        '<link rel="stylesheet" href="//x.org/a.css">': "loads",
        "<style>a{background:url(https://x.org/a.png)}</style>": "loads",
        "<script type=module>import x from 'https://x.org/a.js'</script>": "imports",
        '<img src="p.png">': "no alt",
        '<img src="q.png" alt="x">': "missing file",
    }
    for text, word in faults.items():
        (tmp_path / "index.html").write_text(text)
        bad = check_site.audit(tmp_path)[0]
        assert len(bad) == 1 and word in bad[0], (text, bad)


def test_every_module_is_in_the_api_pages():
    text = (ROOT / "book" / "api.md").read_text()
    left_out = {"__init__", "__main__", "cli"}
    names = {
        ".".join(p.relative_to(ROOT).with_suffix("").parts)
        for p in (ROOT / "sempart_core").rglob("*.py")
        if p.stem not in left_out and not p.stem.startswith("cli_")
    }
    listed = set(re.findall(r"automodule:: (\S+)", text))
    assert listed == names


def test_the_lock_is_complete_and_names_no_host():
    lock = (ROOT / "requirements.txt").read_text()
    assert "://" not in lock and "--" not in lock
    pins = {re.sub(r"[-_.]+", "-", n).lower() for n in re.findall(r"^([\w.-]+)==", lock, flags=re.M)}
    wanted = re.findall(r'"([\w-]+)(?:\[[\w,]+\])?[><=~!]', (ROOT / "pyproject.toml").read_text())
    assert {re.sub(r"[-_.]+", "-", w).lower() for w in wanted} - pins <= {"setuptools"}
    assert "jupyter-book==1." in lock  # 2.x is another program, which cannot build this book


def test_vendored_files_have_their_licence_beside_them():
    for folder in (ROOT / "book" / "_assets" / "vendor").iterdir():
        assert list(folder.glob("LICENSE*")), folder.name
