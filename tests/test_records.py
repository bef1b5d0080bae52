"""Records: what a row must be, and files that change only when a number does."""

import json
import os

import numpy as np
import pytest

from sempart_core import SempartError
from sempart_core.records import Record, list_hash, load_rows, results_folder, write_rows, write_text


def record(**kw) -> Record:
    base = dict(table="saliency", row="TokenCut", metric="iou", value=0.5, dataset="demo", notebook="a")
    return Record(**{**base, **kw})


def test_a_row_survives_the_way_to_disk_and_back(tmp_path):
    r = record(ci=(0.4, 0.6), n=np.int64(12), params={"tau": np.float32(0.5), "size": 224})
    (path,) = write_rows([r], tmp_path)
    assert path == tmp_path / "demo" / "saliency--demo.json"
    (row,) = load_rows(tmp_path)
    assert row["value"] == 0.5 and row["ci"] == [0.4, 0.6] and row["n"] == 12
    assert row["params"] == {"tau": 0.5, "size": 224}
    assert "torch" in row["versions"]


def test_writing_twice_leaves_the_file_alone(tmp_path):
    (path,) = write_rows([record(value=1 / 3)], tmp_path)
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert write_rows([record(value=1 / 3 + 1e-12)], tmp_path) == []
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_a_notebook_replaces_its_own_rows_and_no_others(tmp_path):
    write_rows([record(row="old name"), record(row="LOST", metric="acc")], tmp_path)
    write_rows([record(row="LOST", notebook="b")], tmp_path)
    write_rows([record(row="new name")], tmp_path)
    assert {(r["row"], r["notebook"]) for r in load_rows(tmp_path)} == {("LOST", "b"), ("new name", "a")}


def test_filters(tmp_path):
    write_rows([record(), record(dataset="voc"), record(table="speed", profile="smoke")], tmp_path)
    assert len(load_rows(tmp_path)) == 3
    assert [r["dataset"] for r in load_rows(tmp_path, table="saliency", dataset="voc")] == ["voc"]
    assert [r["table"] for r in load_rows(tmp_path, profile="smoke")] == ["speed"]


@pytest.mark.parametrize(
    "bad, word",
    [
        ({"value": float("nan")}, "value is nan"),
        ({"ci": (0.1, float("inf"))}, "interval"),
        ({"table": "Table 1"}, "record table"),
        ({"dataset": "../elsewhere"}, "record dataset"),
        ({"metric": "iou/acc"}, "reserved"),
        ({"row": "a|b"}, "reserved"),
    ],
)
def test_a_bad_row_is_not_born(bad, word):
    with pytest.raises(SempartError, match=word):
        record(**bad)


def test_two_rows_with_one_address_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(SempartError, match="two rows"):
        write_rows([record(table="first"), record(), record(value=0.6)], tmp_path)
    assert load_rows(tmp_path) == []


def test_what_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(SempartError, match="no number or text"):
        write_rows([record(table="first"), record(params={"f": object()})], tmp_path)
    assert load_rows(tmp_path) == []


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "saliency--demo.json").write_text("[{")
    with pytest.raises(SempartError, match=r"saliency--demo\.json.*again"):
        load_rows(tmp_path)


def test_list_hash_sees_names_and_order():
    assert list_hash(["a", "b"]) == list_hash(iter(["a", "b"]))
    assert len({list_hash(x) for x in (["a", "b"], ["b", "a"], ["ab"], [])}) == 4


def test_a_failed_write_leaves_the_old_file_and_no_crumbs(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    assert write_text(path, "old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.json"]


def test_the_folder_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_RESULTS", str(tmp_path))
    assert results_folder() == tmp_path
    write_rows([record()])
    assert json.loads((tmp_path / "demo" / "saliency--demo.json").read_text())[0]["row"] == "TokenCut"
