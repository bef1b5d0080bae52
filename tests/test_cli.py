"""The ``sempart`` command as a user meets it: files in, files and one JSON line out, a sentence when it cannot."""

import io
import json
import os
import re
import subprocess
import sys

import colour_backbone
import numpy as np
import pytest
import torch
from colour_backbone import scene
from PIL import Image
from typer.testing import CliRunner

import sempart_core
from sempart_core import cli, segment
from sempart_core.images import read_image

colour_backbone.register()
NET = ["--method", "tokencut", "--backbone", colour_backbone.NAME, "--size", "112"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path / "cache"))


def run(*args, code=0):
    result = CliRunner().invoke(cli.app, [str(a) for a in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def save(array, path, mode=None, **kw):
    im = Image.fromarray(array)
    (im.convert(mode) if mode else im).save(path, **kw)
    return path


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


# --- segment -------------------------------------------------------------------------------------------


def odd_photos(folder):
    """The same block on green in many disguises; name -> true mask of the upright photograph or None."""
    image, mask = scene(120, 160, (40, 30, 110, 100))
    rgba = np.dstack([image, np.full(mask.shape, 255, np.uint8)])
    grey = np.where(mask, 230, 30).astype(np.uint8)
    save(image, folder / "rgb.jpg")
    save(rgba, folder / "rgba.png")
    save(image, folder / "cmyk.jpg", "CMYK")
    save(image, folder / "palette.png", "P")
    save(grey, folder / "grey.png")
    save(np.dstack([grey, np.full_like(grey, 255)]), folder / "grey_alpha.png")
    save(grey.astype(np.uint16) * 257, folder / "sixteen.png")
    save(image, folder / "web.webp")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    save(np.rot90(image).copy(), folder / "turned.jpg", exif=exif)
    save(image[:3, :5], folder / "tiny.png")
    save(image[60:62], folder / "strip.PNG")
    truth = dict.fromkeys(
        ("rgb", "rgba", "cmyk", "palette", "grey", "grey_alpha", "sixteen", "web", "turned"), mask
    )
    return truth | {"tiny": None, "strip": None}


def test_photographs_of_every_mode_and_size(tmp_path):
    photos, out = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    truth = odd_photos(photos)
    run("segment", photos, "-o", out, *NET)
    boxes = json.loads((out / "boxes.json").read_text())
    assert set(boxes) == set(truth)
    assert len(os.listdir(out)) == 3 * len(truth) + 1
    for name, want in truth.items():
        source = read_image(next(p for p in photos.iterdir() if p.stem == name))
        mask = np.array(Image.open(out / f"{name}_mask.png"))
        cutout = Image.open(out / f"{name}_cutout.png")
        overlay = Image.open(out / f"{name}_overlay.png")
        assert mask.shape == source.shape[:2] and set(np.unique(mask)) <= {0, 255}
        assert cutout.mode == "RGBA" and overlay.mode == "RGB"
        assert cutout.size == overlay.size == mask.shape[::-1]
        alpha = np.array(cutout)[..., 3]
        np.testing.assert_array_equal(np.array(cutout)[..., :3], np.where(alpha[..., None], source, 0))
        np.testing.assert_array_equal(alpha > 127, mask > 0)
        assert (boxes[name]["width"], boxes[name]["height"]) == mask.shape[::-1]
        if want is not None:
            assert iou(mask > 0, want) > 0.85, name
            (x0, y0, x1, y1) = boxes[name]["boxes"][0]
            np.testing.assert_allclose([x0, y0, x1, y1], [40, 30, 110, 100], atol=12)


def test_what_cannot_be_read_is_named_and_the_others_go_on(tmp_path):
    image, _ = scene()
    good = save(image, tmp_path / "good.png")
    whole = io.BytesIO()
    Image.fromarray(image).save(whole, "PNG")
    cut, text, nothing = tmp_path / "cut.png", tmp_path / "letter.jpg", tmp_path / "gone.jpg"
    cut.write_bytes(whole.getvalue()[: whole.tell() // 2])
    text.write_text("dear diary")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    r = run("segment", cut, text, nothing, tmp_path / "empty", good, "-o", out, *NET, code=2)
    for bad in ("cut.png", "letter.jpg", "gone.jpg", "empty"):
        assert sum(bad in line for line in r.stderr.splitlines()) == 1, r.stderr
    assert sorted(os.listdir(out)) == ["boxes.json", "good_cutout.png", "good_mask.png", "good_overlay.png"]


def test_nothing_readable_leaves_no_folder(tmp_path):
    run("segment", tmp_path / "gone.jpg", "-o", tmp_path / "out", *NET, code=2)
    assert not (tmp_path / "out").exists()


def test_same_stems_do_not_overwrite_each_other_now_or_later(tmp_path):
    for i, name in enumerate(("a/x.png", "b/x.png", "b/x.jpg", "c/X.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(scene(112 + 2 * i, 112)[0], tmp_path / name)
    out = tmp_path / "out"
    run("segment", tmp_path / "a", tmp_path / "b", "-o", out, *NET)
    first = json.loads((out / "boxes.json").read_text())
    assert {v["photo"] for v in first.values()} == {"../a/x.png", "../b/x.png", "../b/x.jpg"}
    run("segment", tmp_path / "c", tmp_path / "b" / "x.png", "-o", out, *NET)
    again = json.loads((out / "boxes.json").read_text())
    assert len(again) == 4 and {k: again[k]["photo"] for k in first} == {k: first[k]["photo"] for k in first}
    assert len({k.lower() for k in again}) == 4  # also apart where case is ignored
    for name, entry in again.items():
        assert Image.open(out / f"{name}_mask.png").height == entry["height"]
        assert entry["height"] == Image.open(out / entry["photo"]).height


def test_results_beside_the_photographs_are_not_segmented_the_next_time(tmp_path):
    save(scene()[0], tmp_path / "a.png")
    save(scene(112, 126)[0], tmp_path / "a_mask.png")  # a photograph that happens to be called so
    before = (tmp_path / "a_mask.png").read_bytes()
    for _ in range(2):
        run("segment", tmp_path, "-o", tmp_path, *NET)
        assert len(json.loads((tmp_path / "boxes.json").read_text())) == 2
    assert (tmp_path / "a_mask.png").read_bytes() == before


def test_a_failing_disk_leaves_old_files_whole_and_no_crumbs(tmp_path, monkeypatch):
    photo, out = save(scene()[0], tmp_path / "a.png"), tmp_path / "out"
    run("segment", photo, "-o", out, *NET)
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(self, f, **kw):
        f.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    r = run("segment", photo, "-o", out, *NET, "--refine", "none", code=2)
    assert "No space left" in r.stderr and "--out" in r.stderr
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_ctrl_c_ends_with_130_and_keeps_what_was_finished(tmp_path, monkeypatch):
    for n in "abc":
        save(scene()[0], tmp_path / f"{n}.png")
    real = segment.cut
    calls = []

    def tired(*a, **kw):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*a, **kw)

    monkeypatch.setattr(segment, "cut", tired)
    run("segment", tmp_path, "-o", tmp_path / "out", *NET, code=130)
    assert sorted(json.loads((tmp_path / "out" / "boxes.json").read_text())) == ["a", "b"]
    assert len(os.listdir(tmp_path / "out")) == 7


@pytest.mark.parametrize("left", [0.0, 1.0])
def test_refinement_that_leaves_nothing_or_all_is_given_up_and_told(tmp_path, monkeypatch, left):
    photo = save(scene(600, 560, (140, 210, 420, 490))[0], tmp_path / "a.png")
    run("segment", photo, "-o", tmp_path / "plain", *NET, "--refine", "none")
    monkeypatch.setattr(
        segment.refiners, "refine", lambda name, soft, images, **kw: torch.full_like(soft, left)
    )
    r = run("segment", photo, "-o", tmp_path / "out", *NET)
    assert len([s for s in r.stderr.splitlines() if "a.png" in s and "bilateral" in s]) == 1
    files = [tmp_path / d / "a_mask.png" for d in ("plain", "out")]
    assert files[0].read_bytes() == files[1].read_bytes() and 0 < np.array(Image.open(files[1])).mean() < 255
    entry = json.loads((tmp_path / "out" / "boxes.json").read_text())["a"]
    assert entry["refine"] == "none (fell back)"


def test_boxes_say_what_they_were_made_with(tmp_path):
    photo, out = save(scene()[0], tmp_path / "a.png"), tmp_path / "out"
    r = run("segment", photo, "-o", out, *NET)
    assert f"1 photograph segmented into {out}" in r.stdout
    entry = json.loads((out / "boxes.json").read_text())["a"]
    want = {"feature": "tokens@0", "tau": 0.5, "foreground": "least-corners", "variant": None}
    want |= {"sha256": colour_backbone.ColourBackbone.sha256, "refine": "bilateral", "size": 112}
    assert {k: entry[k] for k in want} == want and 0.1 < entry["foreground_share"] < 0.5
    args = ["--method", "deep-spectral", "--foreground", "none", "--feature", "keys@0", "--tau", ".3"]
    run("segment", photo, "-o", out, *NET, *args)
    entry = json.loads((out / "boxes.json").read_text())["a"]
    want = {"feature": "keys@0", "tau": 0.3, "foreground": "the method's own rule", "variant": "code"}
    assert {k: entry[k] for k in want} == want


def test_a_single_patch_is_explained(tmp_path):
    photo = save(scene()[0], tmp_path / "a.png")
    r = run("segment", photo, "-o", tmp_path / "out", *NET, "--size", "16", code=2)
    assert "single patch" in r.stderr and "larger --size" in r.stderr


def test_a_foreign_boxes_file_is_not_touched(tmp_path):
    photo, out = save(scene()[0], tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "boxes.json").write_text('[{"bbox": [1, 2, 3, 4]}]')
    r = run("segment", photo, "-o", out, *NET, code=2)
    assert "boxes.json" in r.stderr and os.listdir(out) == ["boxes.json"]


@pytest.mark.parametrize(
    "option, sentence",
    [
        (["--method", "magic"], "unknown method 'magic'.*tokencut"),
        (["--backbone", "resnet"], "unknown backbone 'resnet'.*dinov2_vits14_reg_mri"),
        (["--foreground", "biggest"], "'biggest'.*least-corners"),
        (["--refine", "sharpen"], "'sharpen'.*guided"),
        (["--device", "gpu"], "'gpu'.*cpu"),
        (["--feature", "keys@9"], "keys@9"),
        (["--variant", "paper"], "'tokencut'.*'variant'"),
        (["--size", "4"], "size"),
    ],
)
def test_bad_options_are_named_before_anything_is_written(tmp_path, option, sentence):
    photo = save(scene()[0], tmp_path / "a.png")
    r = run("segment", photo, "-o", tmp_path / "out", *NET, *option, code=2)
    assert re.search(sentence, r.stderr), r.stderr
    assert not (tmp_path / "out").exists() or not os.listdir(tmp_path / "out")


# --- evaluate ------------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path):
    """Photographs, binary masks and VOC-like palette label maps with a void rim."""
    for d in ("images", "masks", "labels"):
        (tmp_path / d).mkdir()
    for i, name in enumerate(("p.1", "p.2", "q")):
        image, mask = scene(112, 112 + 14 * i, (28, 42, 84, 98), seed=i)
        save(image, tmp_path / "images" / f"{name}.jpg", quality=95)
        save(mask.astype(np.uint8) * 255, tmp_path / "masks" / f"{name}.png")
        labels = np.where(mask, 12, 0).astype(np.uint8)
        labels[:, -28:] = 255
        im = Image.fromarray(labels, "P")
        im.putpalette([v for k in range(256) for v in (k, 255 - k, 7)])
        im.save(tmp_path / "labels" / f"{name}.png")
    (tmp_path / "list.txt").write_text("q\np.1.jpg\n\n")
    return tmp_path


def evaluated(voc, *args, masks="masks", code=0):
    return run("evaluate", "--images", voc / "images", "--masks", voc / masks, *NET, *args, code=code)


def last(result):
    return json.loads(result.stdout.splitlines()[-1])


def test_json_is_the_last_line(voc):
    out = last(evaluated(voc, "--method", "tokencut", "--metric", "tokencut", "--json"))
    assert out["n"] == 3 and set(out["metrics"]) == {"iou", "acc", "max_f"} == set(out["ci95"])
    assert out["metrics"]["iou"] > 0.85  # on two of the photographs the block's edges lie between patches
    lo, hi = out["ci95"]["iou"]
    assert lo <= out["metrics"]["iou"] <= hi
    p = out["provenance"]
    assert p["backbone"] == colour_backbone.NAME and p["feature"] == "tokens@0" and p["tau"] == 0.5
    assert p["method"] == "tokencut" and p["size"] == 112 and p["metric"] == "tokencut"
    for key in ("sha256", "params", "foreground", "list_hash", "device", "versions", "seed"):
        assert key in p


def test_label_maps_with_void(voc):
    out = last(evaluated(voc, "--void", "255", "--json", masks="labels"))
    assert out["metrics"]["iou"] > 0.85


def test_label_maps_without_void_are_explained_not_scored(voc):
    for p in (voc / "labels").iterdir():
        im = Image.open(p)
        a = np.array(im)
        save(np.where(a == 255, 0, a), p)
    r = evaluated(voc, "--json", masks="labels", code=2)
    assert "--void" in r.stderr and not r.stdout


def test_lists_choose_and_order(voc):
    a = last(evaluated(voc, "--list", voc / "list.txt", "--json"))
    assert a["n"] == 2
    b = last(evaluated(voc, "--list", voc / "list.txt", "--limit", "1", "--json"))
    assert b["n"] == 1 and a["provenance"]["list_hash"] != b["provenance"]["list_hash"]


def test_the_same_command_gives_the_same_line(voc):
    args = ["--foreground", "least-corners", "--refine", "guided", "--tau", ".4", "--json"]
    lines = []
    for _ in range(2):  # the second time the features come from the cache
        out = last(evaluated(voc, *args))
        del out["seconds"]
        lines.append(out)
    assert lines[0] == lines[1] and lines[0]["provenance"]["tau"] == 0.4


def test_without_json_a_person_reads_it(voc):
    r = evaluated(voc)
    assert re.search(r"iou 0\.8\d+ +95% \[", r.stdout) and "3 photographs" in r.stdout


@pytest.mark.parametrize("spoiled", ["masks/q.png", "images/q.jpg"])
def test_unreadable_files_are_named_and_left_out(voc, spoiled):
    whole = (voc / spoiled).read_bytes()
    (voc / spoiled).write_bytes(whole[: len(whole) // 2])
    r = evaluated(voc, "--batch", "1", "--json", code=2)
    out = last(r)
    assert out["n"] == 2 and out["provenance"]["skipped"] == ["q"]
    assert spoiled in r.stderr and "1 photograph could not be read" in r.stderr
    (voc / "list.txt").write_text("p.1\np.2\n")
    good = last(evaluated(voc, "--list", voc / "list.txt", "--json"))
    assert good["metrics"] == out["metrics"] and good["provenance"]["skipped"] == []
    assert good["provenance"]["list_hash"] == out["provenance"]["list_hash"]
    assert "2 photographs, tokencut" in evaluated(voc, code=2).stdout


def test_nothing_readable_is_an_error(voc):
    for p in (voc / "masks").iterdir():
        p.write_text("x")
    r = evaluated(voc, "--json", code=2)
    assert "none of the 3 photographs" in r.stderr and not r.stdout


def test_resample_reaches_the_measurement(voc):
    soft, hard = (last(evaluated(voc, "--resample", r, "--json")) for r in ("bilinear", "nearest"))
    assert (soft["provenance"]["resample"], hard["provenance"]["resample"]) == ("bilinear", "nearest")
    assert soft["metrics"]["max_f"] > hard["metrics"]["max_f"]


def _remove(voc, path):
    (voc / path).unlink()


@pytest.mark.parametrize(
    "spoil, args, sentence",
    [
        (lambda v: _remove(v, "masks/q.png"), [], "lacks masks for q"),
        (
            lambda v: _remove(v, "images/q.jpg"),
            ["--list", "{}/list.txt"],
            "images lacks 1 of 2 listed pictures: q",
        ),
        (lambda v: (v / "masks/q.bmp").write_text("x"), [], r"q\.png and q\.bmp have the same stem"),
        (lambda v: (v / "list.txt").write_text(""), ["--list", "{}/list.txt"], "holds no name"),
        (lambda v: (v / "list.txt").write_text("q\nq"), ["--list", "{}/list.txt"], "q stands there twice"),
        (lambda v: None, ["--list", "{}/none.txt"], r"none\.txt: no such file"),
        (lambda v: None, ["--images", "{}/nowhere"], "nowhere: no such folder"),
        (lambda v: None, ["--metric", "f1"], "unknown metric preset 'f1'.*selfmask"),
        (lambda v: None, ["--method", "magic"], "unknown method 'magic'"),
        (lambda v: None, ["--limit", "0"], "limit"),
        (lambda v: None, ["--void", "0"], "--void.*greater than or equal to 1"),
        (lambda v: None, ["--void", "-1"], "--void.*greater than or equal to 1"),
        (lambda v: None, ["--void", "300"], r"void=300.*1\.\.255"),
        (lambda v: None, ["--tau", "nan"], "tau=nan"),
        (lambda v: None, ["--tau", "5"], r"tau=5\.0"),
        (lambda v: None, ["--masks", "{}/labels"], r"p\.1\.png looks like a label map; give --void 255"),
        (lambda v: None, ["--list", "{}"], "is a folder"),
        (lambda v: None, ["--resample", "cubic"], "cubic"),
        (lambda v: None, ["--size", "16"], "single patch.*--size"),
    ],
)
def test_faults_are_named(voc, spoil, args, sentence):
    spoil(voc)
    r = evaluated(voc, *(a.format(voc) for a in args), "--json", code=2)
    assert re.search(sentence, r.stderr), r.stderr
    assert not r.stdout


def test_a_mask_of_another_size_is_not_stretched_in_silence(voc):
    photo = np.array(Image.open(voc / "masks" / "q.png"))
    save(photo.T.copy(), voc / "masks" / "q.png")
    assert re.search("q: the mask is .* pixels", evaluated(voc, "--json", code=2).stderr)


# --- the rest ------------------------------------------------------------------------------------------


def test_version_and_module_are_the_same_command():
    said = subprocess.run(
        [sys.executable, "-m", "sempart_core", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == f"sempart {sempart_core.__version__}"
    assert run("--version").stdout == said.stdout


def test_every_option_is_explained():
    for command in ("fetch", "list", "segment", "evaluate", "reproduce", "status"):
        text = run(command, "--help").stdout
        assert command in run("--help").stdout
        options = re.findall(r"^  (-.*)$", text, re.M)
        for line in options:  # an option whose line holds nothing but its name is not explained
            assert re.search(r"(\s{2,}\S)|(^-\S+( \S+)?$)", line), line
    text = {c: " ".join(run(c, "--help").stdout.split()) for c in ("segment", "evaluate")}
    assert "tau" in text["evaluate"] and "TokenCut's code uses nearest" in text["evaluate"]
    for said in text.values():
        assert "least-corners" in said and "bilateral" in said and "method as it is" in said


@pytest.mark.parametrize("what", ["weights", "demo", "ecssd"])
def test_a_cache_that_cannot_be_made_is_a_sentence(tmp_path, monkeypatch, what):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path / "file" / "cache"))
    r = run("fetch", what, code=2)
    assert len(r.stderr.splitlines()) == 1 and "SEMPART_CACHE" in r.stderr


def test_a_feature_cache_that_cannot_be_made_is_a_sentence(voc, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(voc / "list.txt" / "cache"))
    r = evaluated(voc, "--json", code=2)
    assert "SEMPART_CACHE" in r.stderr and "--no-cache" in r.stderr
    assert last(evaluated(voc, "--no-cache", "--json"))["n"] == 3


def test_cards():
    text = run("list").stdout
    for name in ("tokencut", "dinov2_vits14_reg_mri", "selfmask", "guided", "sempart-dinov2-reg-mri"):
        assert re.search(rf"^  {name}$", text, re.M)
    cards = json.loads(run("list", "methods", "--json").stdout)
    assert {c["name"] for c in cards["methods"]} >= {"tokencut", "lost", "deep-spectral", "dino-seg"}
    run("list", "recipes", code=2)


def test_status(tmp_path, monkeypatch):
    from sempart_core.records import Record, write_rows
    from sempart_core.reported import INDEX_COLUMNS

    monkeypatch.setenv("SEMPART_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SEMPART_REPORTED", str(tmp_path))
    assert "no measured rows" in run("status").stdout
    for dataset in ("demo", "ecssd", "duts_te"):
        write_rows([Record("saliency", "TokenCut", m, 0.5, dataset=dataset) for m in ("iou", "acc")])
    table = dict.fromkeys(INDEX_COLUMNS, "x") | {"paper": "sempart", "table": "1", "stage": "later"}
    table |= {"measured": "saliency;refine", "datasets": "ecssd; duts_te", "command": "make all"}
    (tmp_path / "index.csv").write_text(f"{','.join(INDEX_COLUMNS)}\n{','.join(table.values())}\n")
    text = run("status").stdout
    assert re.search(r"^saliency +demo +ecssd +2$", text, re.M)
    assert re.search(r"^sempart-1 +4 +2 +later +make all$", text, re.M)


def test_reproduce_hands_over_to_make(tmp_path, monkeypatch):
    (tmp_path / "Makefile").write_text("reproduce:\n\t@echo $(PROFILE) $(FORCE) > said; exit 3\n")
    (tmp_path / "sempart_core").mkdir()
    monkeypatch.chdir(tmp_path)
    run("reproduce", "--profile", "smoke", "--force", code=2)  # make's own exit code for a failed recipe
    assert (tmp_path / "said").read_text().split() == ["smoke", "1"]
    assert "'demos'" in run("reproduce", "--profile", "demos", code=2).stderr


def test_reproduce_outside_a_checkout_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "site" / "sempart_core" / "cli.py"))
    assert "clone the repository" in run("reproduce", code=2).stderr


def test_fetch_asks_the_right_script(monkeypatch):
    from data_scripts import demo_assets, fetch_weights, paper_sets

    calls = []
    monkeypatch.setattr(fetch_weights, "weights", lambda **kw: calls.append("weights") or [])
    monkeypatch.setattr(demo_assets, "ensure", lambda *a, **kw: calls.append("demo"))
    monkeypatch.setattr(paper_sets, "fetch", lambda name, *a, **kw: calls.append(name))
    run("fetch")
    assert calls == ["weights", "demo"]
    run("fetch", "weights", "ecssd")
    assert calls[2:] == ["weights", "ecssd"]
    assert "'imagenette'" in run("fetch", "imagenette", code=2).stderr
