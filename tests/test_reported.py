"""The transcribed tables: complete, parseable, plausible, and in agreement wherever papers repeat each other."""

import collections
import re

import pytest

from sempart_core import reported
from sempart_core.errors import SempartError
from sempart_core.reported import load_index, load_reported, parse_value

TABLES = {
    "sempart": range(1, 8),
    "two-tricks": range(1, 6),
    "diffncut": range(1, 6),
    "diffncut-supplement": range(1, 5),
    "deep-spectral": [1, 2, 3, 4, *range(6, 13)],
}
ALL = [(paper, str(n)) for paper, numbers in TABLES.items() for n in numbers]
CELLS = {f"{p}-{t}": load_reported(p, t) for p, t in ALL}
EVERY = [(stem, c) for stem, cells in CELLS.items() for c in cells]
#: Number of printed cells a table, counted in the papers: a lost or doubled row shows here.
SIZES = {
    "sempart-1": 17 * 9, "sempart-2": 4 * 5, "sempart-3": 10 * 3, "sempart-4": 9 * 3, "sempart-5": 4 * 6 + 3,
    "sempart-6": 5 * 3, "sempart-7": 8 * 5,
    "two-tricks-1": 15 * 9, "two-tricks-2": 7 * 3 + 3, "two-tricks-3": 12 * 3, "two-tricks-4": 4 * 3,
    "two-tricks-5": 6 * 9,
    "diffncut-1": 16 * 10, "diffncut-2": 10 * 3 + 9, "diffncut-3": 6 * 2, "diffncut-4": 24 * 9 + 12 * 4,
    "diffncut-5": 4 * 3,
    "diffncut-supplement-1": 4 * 3, "diffncut-supplement-2": 6 * 3, "diffncut-supplement-3": 4 * 3,
    "diffncut-supplement-4": 16 * 3 + 8 * 4,
    "deep-spectral-1": 10 * 3, "deep-spectral-2": 7 * 2, "deep-spectral-3": 8 * 4, "deep-spectral-4": 11 + 2,
    "deep-spectral-6": 4, "deep-spectral-7": 4 * 5, "deep-spectral-8": 4, "deep-spectral-9": 6,
    "deep-spectral-10": 4 * 2, "deep-spectral-11": 3, "deep-spectral-12": 2,
}  # fmt: skip


def name(stem, c):
    return f"{stem}: {c['row']} / {c['group']} / {c['dataset']} / {c['metric']}"


def test_every_table_is_there_and_no_other():
    files = {p.stem for p in reported.reported_folder().glob("*.csv")} - {"index"}
    assert files == set(CELLS) == set(SIZES)
    assert {stem: len(cells) for stem, cells in CELLS.items()} == SIZES


def test_index_is_complete_and_in_order():
    index = load_index()
    assert [(r["paper"], r["table"]) for r in index] == ALL
    assert [r["file"] for r in index] == [f"{p}-{t}.csv" for p, t in ALL]
    for r in index:
        stem = r["file"].removesuffix(".csv")
        for column in ("title", "measures", "measured", "command", "stage", "cost", "needs"):
            assert r[column], f"{stem}: no {column}"
        datasets = {c["dataset"] for c in CELLS[stem]} - {"", "mean"}
        assert set(filter(None, r["datasets"].split("; "))) == datasets, stem
        # the index says which families a table mixes
        families = {c["preset"] for c in CELLS[stem]} - {""}
        assert set(filter(None, r["preset"].split("; "))) <= families, stem
        assert re.fullmatch(r"[a-z0-9_.;-]+", r["measured"]), (
            f"{stem}: names of result tables, ';' between them"
        )


@pytest.mark.parametrize("stem", CELLS)
def test_schema(stem):
    paper, _, table = stem.rpartition("-")
    for c in CELLS[stem]:
        assert (c["paper"], c["table"]) == (paper, table)
        assert c["row"] and c["metric"]
        assert c["flag"] in reported.FLAGS and c["kind"] in reported.KINDS and c["preset"] in reported.PRESETS
        assert not c["flag"] or c["note"], f"{name(stem, c)}: a flag needs its reason"
        assert not re.search(r"\|", c["row"] + c["group"] + c["metric"])
        assert re.fullmatch(r"[a-z0-9_]*", c["metric"]) and re.fullmatch(r"[a-z0-9_]*", c["dataset"])
        assert all(v == v.strip() for k, v in c.items() if isinstance(v, str)), name(stem, c)
    keys = collections.Counter((c["row"], c["group"], c["dataset"], c["metric"]) for c in CELLS[stem])
    assert not [k for k, n in keys.items() if n > 1]


def test_presets_are_those_of_the_metrics():
    from sempart_core.metrics import PRESETS

    assert set(reported.PRESETS) - {"", "corloc", "miou"} <= set(PRESETS)


def test_metric_and_preset_belong_together():
    for stem, c in EVERY:
        metric, preset = c["metric"].removesuffix("_gain"), c["preset"]
        if metric in ("acc", "iou", "max_f"):
            assert preset in ("", "tokencut", "move", "selfmask", "sempart_star"), name(stem, c)
        elif metric in ("corloc", "miou", "miou_std"):
            assert preset == metric.removesuffix("_std"), name(stem, c)
        else:
            assert preset == "", name(stem, c)


def test_values_parse_and_are_plausible():
    for stem, c in EVERY:
        number, fraction, where = c["number"], c["fraction"], name(stem, c)
        if c["unit"] == "text":
            assert c["value"] and number is None, where
            continue
        if c["value"] == "":  # nothing printed would be a dash
            assert c["flag"] == "ocr-doubt", where
        if number is None:
            assert c["value"] in ("", "-", "—"), where
            continue
        low, high = {
            "acc": (0.6, 1), "iou": (0.2, 0.95), "max_f": (0.25, 1), "corloc": (0.15, 0.85), "miou": (0.03, 0.6),
            "miou_std": (0.001, 0.1), "iou_gain": (0, 0.2), "corloc_gain": (0, 0.2), "p_value": (0, 1),
        }.get(c["metric"], (None, None))  # fmt: skip
        if low is None:
            assert fraction is None and number > 0, where
        else:
            assert fraction is not None and low <= fraction <= high, where


@pytest.mark.parametrize("unit, pattern", [("fraction", r"\(?0?\.\d{2,3}\)?"), ("percent", r"\d{1,2}\.\d")])
def test_digits_as_printed(unit, pattern):
    for stem, c in EVERY:
        if c["unit"] == unit and c["number"] is not None:
            assert re.fullmatch(pattern, c["value"]), name(stem, c)


def test_f_is_not_below_iou_by_much():
    """With beta^2 < 1 and a best threshold, max F of a saliency map is above its mean IoU."""
    table = {(s, c["row"], c["group"], c["dataset"], c["metric"]): c["fraction"] for s, c in EVERY}
    checked = 0
    for (stem, row, group, dataset, metric), iou in table.items():
        f = table.get((stem, row, group, dataset, "max_f"))
        if metric == "iou" and f is not None and iou is not None:
            checked += 1
            assert f > iou, f"{stem}: {row} / {group} / {dataset}: max F {f} and IoU {iou}"
    assert checked > 180


def source_of(c):
    """The cells a copied cell was taken from; none for a paper that is not transcribed here."""
    stem, _, row = c["copied_from"].partition(":")
    if stem not in CELLS:
        assert not row, f"copied_from {c['copied_from']!r} names no table here"
        return []
    found = [
        s for s in CELLS[stem] if (s["row"], s["dataset"], s["metric"]) == (row, c["dataset"], c["metric"])
    ]
    assert len(found) <= 1 and any(s["row"] == row for s in CELLS[stem]), c["copied_from"]
    return found


def test_copied_cells_agree_unless_flagged():
    compared = 0
    for stem, c in EVERY:
        for s in source_of(c):
            if c["flag"] or s["flag"] or c["fraction"] is None:
                continue
            compared += 1
            assert c["fraction"] == pytest.approx(s["fraction"], abs=1e-9), (
                f"{name(stem, c)} from {c['copied_from']}"
            )
    assert compared > 190


def test_flagged_misprints_do_differ_from_their_source():
    """A flag that says 'not what the source prints' must be true."""
    for stem, row in [("two-tricks-1", "Sempart + BF"), ("two-tricks-2", "Deep Spectral"), ("diffncut-2", "DSS"),
                      ("diffncut-2", "LOST")]:  # fmt: skip
        flagged = [c for c in CELLS[stem] if c["row"] == row and c["flag"] == "misprint"]
        assert flagged
        for c in flagged:
            assert source_of(c)[0]["fraction"] != c["fraction"], name(stem, c)


def values(stem, row, metric, group=None):
    return {
        c["dataset"]: c["fraction"]
        for c in CELLS[stem]
        if c["row"] == row
        and c["metric"] == metric
        and group in (None, c["group"])
        and c["flag"] != "misprint"
    }


#: The same run printed twice: (table, row, group), (table, row, group), metric.
SAME = [
    (("sempart-1", "SEMPART-Fine", None), (stem, "SEMPART-Fine", None), "iou")
    for stem in ("sempart-4", "sempart-5", "sempart-6")
] + [
    (("sempart-1", "SEMPART-Fine", None), ("sempart-7", "H: Fine", None), "iou"),
    (("sempart-1", "SEMPART-Coarse", None), ("sempart-7", "G: Coarse", None), "iou"),
    (("sempart-1", "SELFMASK on SEMPART-Fine", None), ("sempart-6", "SELFMASK on SEMPART-Fine", None), "iou"),
    (("sempart-1", "U2-Net (supervised)", None), ("sempart-6", "U2-Net", None), "iou"),
    *[
        (("sempart-4", r, None), ("sempart-5", r, None), "iou")
        for r in ("w/o GTV coarse", "w/o GTV fine", "train fine mask directly", "w/o joint training")
    ],
    (("two-tricks-1", "Sempart*", None), ("two-tricks-3", "neither", "DINO ViT-S/8"), "iou"),
    (("two-tricks-1", "Ours", None), ("two-tricks-3", "crop + GF", "DINO ViT-S/8"), "iou"),
    (("two-tricks-2", "Sempart*", None), ("two-tricks-4", "neither", None), "corloc"),
    (("two-tricks-2", "Ours", None), ("two-tricks-4", "crop + GF", None), "corloc"),
    *[
        (("diffncut-1", row, "without bilateral solver"), ("diffncut-4", r, group), m)
        for m in ("acc", "iou", "max_f")
        for row, r, group in [
            ("TokenCut", "DINO", "TokenCut, ViT-S/16"),
            ("Ours + TokenCut", "Ours + DINO", "TokenCut, ViT-S/16"),
            ("FOUND", "DINO", "FOUND, ViT-S/8"),
            ("Ours + FOUND", "Ours + DINO", "FOUND, ViT-S/8"),
            ("MOVE", "DINO", "MOVE, ViT-S/8"),
            ("Ours + MOVE", "Ours + DINO", "MOVE, ViT-S/8"),
        ]
    ],
    (("diffncut-4", "Ours + DINO", "Simple, ViT-S/16"), ("diffncut-5", "Ours", None), "iou"),
    (("diffncut-5", "Ours", None), ("diffncut-supplement-2", "alpha = 0.05", None), "iou"),
    (("diffncut-5", "w/o structural regularization", None), ("diffncut-supplement-2", "alpha = 0.0", None), "iou"),
    (("diffncut-2", "Ours + TokenCut", None), ("diffncut-supplement-1", "Ours", None), "corloc"),
    (("diffncut-2", "Ours + TokenCut", None), ("diffncut-supplement-4", "Ours + DINO", "TokenCut, ViT-S/16"), "corloc"),
    (("diffncut-2", "TokenCut", None), ("diffncut-supplement-4", "DINO", "TokenCut, ViT-S/16"), "corloc"),
    *[(("deep-spectral-1", r, None), ("sempart-3", r, None), "corloc") for r in ("DDT+", "rOSD", "LOD", "LOST")],
    (("deep-spectral-1", "LOST", None), ("deep-spectral-2", "ViT-S-16, DINO", "LOST"), "corloc"),
    (("deep-spectral-1", "Ours", None), ("deep-spectral-2", "ViT-B-8, DINO", "Ours"), "corloc"),
    (("deep-spectral-2", "ViT-S-16, DINO", "Ours"), ("deep-spectral-6", "final attention key", None), "corloc"),
    (("deep-spectral-2", "ViT-S-16, DINO", "Ours"), ("deep-spectral-8", "block 12", None), "corloc"),
]  # fmt: skip


@pytest.mark.parametrize(
    "one, two, metric", SAME, ids=lambda x: "-".join(filter(None, x)) if isinstance(x, tuple) else x
)
def test_numbers_printed_twice_agree(one, two, metric):
    a, b = values(one[0], one[1], metric, one[2]), values(two[0], two[1], metric, two[2])
    shared = a.keys() & b.keys()
    assert shared
    assert {d: a[d] for d in shared} == {d: b[d] for d in shared}


@pytest.mark.parametrize(
    "stem, metric, base",
    [
        ("two-tricks-2", "corloc", lambda row: "Sempart*"),
        ("diffncut-2", "corloc", lambda row: row.removeprefix("Ours + ")),
        ("diffncut-4", "iou", lambda row: row.removeprefix("Ours + ")),
        ("diffncut-supplement-4", "corloc", lambda row: row.removeprefix("Ours + ")),
    ],
)
def test_printed_gains_are_differences_and_means(stem, metric, base):
    number = {(c["row"], c["group"], c["dataset"], c["metric"]): c["number"] for c in CELLS[stem]}
    checked = 0
    for (row, group, dataset, m), gain in number.items():
        if m != f"{metric}_gain" or gain is None:
            continue
        if dataset == "mean":
            terms = [
                v for (r, g, d, mm), v in number.items() if (r, g, mm) == (row, group, m) and d != "mean"
            ]
            if None in terms:
                continue
            want = sum(terms) / len(terms)
        else:
            want = number[row, group, dataset, metric] - number[base(row), group, dataset, metric]
        checked += 1
        assert gain == pytest.approx(want, abs=0.0501), f"{stem}: {row} / {group} / {dataset}"
    assert checked >= 3


def test_times_add_up():
    t = {(c["row"], c["group"], c["metric"]): c["number"] for c in CELLS["diffncut-supplement-3"]}
    for row, group in {k[:2] for k in t}:
        parts = t[row, group, "forward_time"] + t[row, group, "backward_time"]
        assert parts == pytest.approx(t[row, group, "total_time"], abs=1e-4)


def test_degree_of_pixelation_is_patch_area_over_image_area():
    cells = CELLS["sempart-7"]
    for c in cells:
        if c["metric"] == "degree_of_pixelation":
            side = next(d["number"] for d in cells if d["row"] == c["row"] and d["metric"] == "input_px")
            assert c["number"] == pytest.approx((int(c["group"].rsplit("/", 1)[1]) / side) ** 2, rel=0.01)


def test_families_that_do_not_compare_are_flagged():
    """F of the selfmask family never stands unflagged in a table that also holds another family."""
    for stem, cells in CELLS.items():
        if len({c["preset"] for c in cells if c["metric"] == "max_f"}) > 1:
            for c in cells:
                if c["metric"] == "max_f" and c["preset"] in ("selfmask", "sempart_star"):
                    assert c["flag"] == "incomparable", name(stem, c)


def test_readme_tells_of_every_flag():
    text = (reported.reported_folder() / "README.md").read_text(encoding="utf-8")
    assert f"{len(EVERY)} cells" in text
    for stem in {stem for stem, c in EVERY if c["flag"]}:
        assert f"`{stem}`" in text, f"the README does not tell why cells of {stem} are flagged"


def test_headline_numbers():
    """The numbers the papers lead with, typed a third time."""

    def three(stem, row, metric="iou", group=None):
        return list(values(stem, row, metric, group).values())

    assert three("sempart-1", "SEMPART-Fine") == [0.668, 0.749, 0.855]
    assert three("sempart-3", "SEMPART-Fine", "corloc") == [0.751, 0.768, 0.664]
    assert three("two-tricks-3", "crop + GF", group="DINO ViT-S/8") == [0.684, 0.787, 0.862]
    assert three("diffncut-1", "Ours + MOVE", group="without bilateral solver") == [0.635, 0.724, 0.831]
    assert three("diffncut-2", "Ours + MOST", "corloc") == [0.756, 0.787, 0.694]
    assert values("deep-spectral-3", "Ours", "iou") == {
        "cub": 0.769,
        "duts_te": 0.514,
        "dut_omron": 0.567,
        "ecssd": 0.733,
    }
    assert reported.cell("deep-spectral", 4, "Ours", "miou")["fraction"] == 0.372


@pytest.mark.parametrize(
    "text, number",
    [(".797", 0.797), ("(.774)", 0.774), ("<0.001", 0.001), ("+6.4", 6.4), ("3.9e-3", 0.0039), ("224²", 224),
     ("—", None), ("-", None), ("", None)],
)  # fmt: skip
def test_parse_value(text, number):
    assert parse_value(text) == number


@pytest.mark.parametrize("text", ["7.1.5", ".", "Yes", "0,755", "nan"])
def test_parse_value_names_what_it_cannot_read(text):
    with pytest.raises(SempartError, match=re.escape(repr(text))):
        parse_value(text)


def test_unknown_table_and_ambiguous_cell_say_so(tmp_path, monkeypatch):
    with pytest.raises(SempartError, match=r"deep-spectral-5.*sempart-1"):
        load_reported("deep-spectral", 5)
    with pytest.raises(SempartError, match="3 cells of sempart-1"):
        reported.cell("sempart", 1, "LOST", "iou")
    assert reported.cell("sempart", 1, "LOST", "iou", dataset="ecssd")["number"] == 0.654

    monkeypatch.setenv("SEMPART_REPORTED", str(tmp_path))
    with pytest.raises(SempartError, match="missing"):
        load_index()
    (tmp_path / "sempart-1.csv").write_text("paper,table\nsempart,1\n")
    with pytest.raises(SempartError, match="columns must be"):
        load_reported("sempart", 1)
    head = ",".join(reported.COLUMNS)
    (tmp_path / "sempart-1.csv").write_text(
        f"{head}\nsempart,1,one, two,g,d,iou,.5,fraction,,unsupervised,,,\n"
    )
    with pytest.raises(SempartError, match="line 2"):
        load_reported("sempart", 1)
    (tmp_path / "sempart-1.csv").write_text(f"{head}\nsempart,1,one,g,d,iou,.5,furlong,,unsupervised,,,\n")
    with pytest.raises(SempartError, match="furlong"):
        load_reported("sempart", 1)
