"""Demo scenes: the same bytes everywhere, exact truth, no object on both sides of the split."""

import hashlib
import inspect
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from sempart_core import SempartError, demo, procedural, scenes
from sempart_core.ingredients import divide, stamp_class, tidy, wanted

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def parts():
    return procedural.ingredients()


@pytest.fixture(scope="module")
def some(parts):
    return {s: [scenes.compose(parts, s, i) for i in range(10)] for s in scenes.SPLITS}


def digest(scene):
    h = hashlib.sha256()
    for a in (scene.image, scene.alpha, scene.instances, scene.boxes):
        h.update(a.tobytes())
    h.update(repr((scene.classes, scene.meta)).encode())
    return h.hexdigest()


def test_another_process_makes_the_same_bytes(some):
    code = (
        "import hashlib; from sempart_core import procedural, scenes; p = procedural.ingredients()\n"
        + inspect.getsource(digest)
        + "print(*[digest(scenes.compose(p, s, i)) for s in ('discovery', 'test') for i in (7, 3)])"
    )
    env = {**os.environ, "PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.split() == [digest(some[s][i]) for s in ("discovery", "test") for i in (7, 3)], (
        done.stderr
    )


def test_scenes_differ_by_index_split_and_seed(parts, some):
    seen = [digest(s) for split in some.values() for s in split]
    assert len(set(seen)) == len(seen)
    assert digest(scenes.compose(parts, "test", 0, seed=1)) != digest(some["test"][0])


def test_matte_is_exact(some):
    for s in some["test"] + some["discovery"]:
        a = s.alpha[..., None].astype(int)
        mixed = (a * s.foreground + (255 - a) * s.background.astype(int) + 127) // 255
        assert np.array_equal(mixed, s.image)
        assert ((s.alpha > 0) & (s.alpha < 255)).any()  # soft at the edge


def test_boxes_and_instances_are_exact(some):
    for s in [*some["train"], *some["test"], *some["discovery"]]:
        assert np.array_equal(s.instances > 0, s.mask)
        assert len(s.boxes) == len(s.classes) == len(s.meta["cutouts"])
        for i, (x1, y1, x2, y2) in enumerate(s.boxes.astype(int)):
            m = s.instances == i + 1
            inside = m[y1:y2, x1:x2]
            assert inside.sum() == m.sum()
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_sizes_and_numbers_of_objects(some):
    for split, made in some.items():
        for s in made:
            shares = [(s.instances == i + 1).mean() for i in range(len(s.boxes))]
            assert min(shares) >= 0.02 and s.mask.mean() <= 0.60
            assert len(s.boxes) == 1 if split != "discovery" else 1 <= len(s.boxes) <= 4
    assert {len(s.boxes) for s in some["discovery"]} >= {2, 3}
    assert max(s.meta["overlap"] for s in some["discovery"]) > 0.05


def test_no_object_in_train_and_test(parts, some):
    train, held_out = parts.cutouts["train"], parts.cutouts["held-out"]
    assert not {c.name for c in train} & {c.name for c in held_out}
    assert {c.class_name for c in train} == {c.class_name for c in held_out} == set(parts.class_names[1:])
    allowed = {"train": train, "test": held_out, "discovery": held_out}
    for split, made in some.items():
        assert {n for s in made for n in s.meta["cutouts"]} <= {c.name for c in allowed[split]}


def test_division_is_stable_when_a_cutout_is_added(parts):
    everything = [c for part in parts.cutouts.values() for c in part]
    less = divide(everything[1:])
    moved = {c.name for c in less["train"]} - {c.name for c in parts.cutouts["train"]}
    assert len(moved) <= 1


def test_objects_are_dealt_evenly(parts):
    pool = len(parts.cutouts["train"])
    dealt = [scenes.compose(parts, "train", i).meta["cutouts"][0] for i in range(24)]
    assert len(set(dealt)) >= 22 and pool > 100


def test_controls_measure_what_they_say():
    image = np.full((200, 200, 3), 100, np.uint8)
    y, x = np.mgrid[:200, :200]
    disc = (y - 100) ** 2 + (x - 100) ** 2 < 60**2
    wires = (x % 12 == 0) & (y > 20)
    assert scenes.controls(image, disc)["thin"] < 0.01 < 0.99 < scenes.controls(image, wires)["thin"]
    assert scenes.controls(image, disc)["contrast"] == 0 == scenes.controls(image, disc)["clutter"]
    lit = np.where(disc[..., None], 100 + 51, image).astype(np.uint8)
    assert scenes.controls(lit, disc)["contrast"] == pytest.approx(0.2 * 3**0.5, abs=1e-3)
    assert scenes.controls(lit, disc)["clutter"] == 0  # the object's own edge is not clutter
    assert scenes.controls(lit, disc)["size"] == pytest.approx(disc.mean(), abs=1e-4)
    rough = np.where(((x // 2 + y // 2) % 2)[..., None] > 0, 60, 140).astype(np.uint8)
    assert scenes.controls(np.repeat(rough, 3, 2), disc)["clutter"] > 0.1


def test_stamps_that_are_no_photographs_are_left_out():
    assert stamp_class("animals/birds/crow.png") == "bird"
    assert stamp_class("animals/mammals/bears/toys/edward_bear.png") == "figure"
    for path in (
        "animals/birds/cartoon/tux.png", "symbols/chess/king.png", "town/houses/cartoon/house.png",
        "space/moon/moon.png", "animals/birds/crow_mirror.png", "animals/birds/crow.txt", "clothes/t_sock.png",
        "seasonal/easter/egg.png", "town/flags/flag.png", "town/roadsigns/stop.png",
    ):  # fmt: skip
        assert stamp_class(path) is None, path
    assert wanted("usr/share/tuxpaint/stamps/plants/trees/birch.png")
    assert wanted("usr/share/doc/tuxpaint-stamps-default/copyright")
    assert not wanted("usr/share/backgrounds/mate/abstract/Gulp.png")


def test_tidy_removes_specks_and_margins():
    rgba = np.zeros((100, 120, 4), np.uint8)
    rgba[30:70, 40:90, 3] = 255
    rgba[5:7, 5:7, 3] = 255
    out = tidy(rgba)
    assert out.shape == (40, 50, 4) and (out[..., 3] == 255).all()
    assert max(tidy(rgba, side=20).shape) == 20


def test_unknown_split_and_missing_assets(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    with pytest.raises(SempartError, match="train, test, discovery"):
        demo.load(split="validation")
    with pytest.raises(SempartError, match="sempart fetch demo"):
        demo.load()


def test_cached_scene_equals_the_composed_one(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    data = demo.load("demo-procedural", "discovery", limit=2)
    fresh = [data[i] for i in range(2)]
    assert len(list(tmp_path.rglob("*.json"))) == 2  # nothing but what was asked for
    again = [demo.load("demo-procedural", "discovery")[i] for i in range(2)]
    for a, b in zip(fresh, again, strict=True):
        for what in ("image", "mask", "alpha", "labels", "boxes"):
            assert np.array_equal(getattr(a, what), getattr(b, what)), what
        assert a.classes == b.classes and np.array_equal(a.meta["instances"], b.meta["instances"])
        assert {k: v for k, v in a.meta.items() if k != "instances"} == {
            k: v for k, v in b.meta.items() if k != "instances"
        }
        ids = {int(v) for v in np.unique(a.labels) if v}
        assert ids == set(a.classes) and data.name.startswith("demo-procedural-")


def test_an_unfinished_scene_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    data = demo.load("demo-procedural", limit=1)
    image = data[0].image
    next(tmp_path.rglob("*.json")).unlink()
    next(p for p in tmp_path.rglob("*.png") if "-alpha" not in p.name).write_bytes(b"half")
    assert np.array_equal(data[0].image, image)


def test_list_hash_knows_the_generator(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    a, b = demo.load("demo-procedural"), demo.load("demo-procedural", seed=1)
    assert a.names == b.names and a.list_hash != b.list_hash
