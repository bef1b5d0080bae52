"""Real photographs and benchmarks read from small fake trees in the official layouts."""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from data_scripts import paper_sets
from sempart_core import SempartError, benchmarks, samples
from sempart_core.annotations import coco_boxes, voc_boxes, voc_objects
from sempart_core.datasets import DATASETS, Dataset, Sample, load_dataset
from sempart_core.records import list_hash
from sempart_core.samples import binarise, read_list

PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def put(path: pathlib.Path, array=PHOTO) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def mask(*box, value=255) -> np.ndarray:
    m = np.zeros(PHOTO.shape[:2], np.uint8)
    x1, y1, x2, y2 = box
    m[y1:y2, x1:x2] = value
    return m


def xml(*objects) -> str:
    """A VOC annotation; an object is (class, difficult, truncated, xmin, ymin, xmax, ymax)."""
    rows = "".join(
        f"<object><name>{n}</name><difficult>{d}</difficult><truncated>{t}</truncated><bndbox><xmin>{a}</xmin>"
        f"<ymin>{b}</ymin><xmax>{c}</xmax><ymax>{e}</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin>"
        "<ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for n, d, t, a, b, c, e in objects
    )
    return f"<annotation><size><width>32</width></size>{rows}</annotation>\n"


# --- lists, masks, folders -------------------------------------------------------------------------------


def test_committed_lists():
    sizes = {p.relative_to(samples.LISTS).as_posix(): len(read_list(p)) for p in samples.LISTS.rglob("*.txt")}
    assert sizes == {
        "voc2012_animals/saliency.txt": 616, "voc2012_animals/discovery.txt": 845, "voc2012_animals/semseg.txt": 445,
        "weizmann_horses/all.txt": 328, "davis2016_val/frames.txt": 141,
    }  # fmt: skip


def test_read_list(tmp_path):
    f = tmp_path / "l.txt"
    f.write_text("# a list\nb.jpg\n\n  # more\na.v1 #2\nn02_1.JPEG\n", encoding="utf-8-sig")
    assert read_list(f) == ["b", "a.v1 #2", "n02_1"]
    for bad, said in (("", "no name"), ("a\nb\na\n", "twice")):
        f.write_text(bad)
        with pytest.raises(SempartError, match=said):
            read_list(f)
    with pytest.raises(SempartError, match="no such file"):
        read_list(tmp_path / "none.txt")
    with pytest.raises(SempartError, match="is a folder"):
        read_list(tmp_path)


def test_binarise():
    labels = np.array([[0, 1, 127, 128, 254, 255]], np.uint8)
    m, void = binarise(labels)
    assert m.tolist() == [[False, False, False, True, True, True]] and void is None
    m, void = binarise(labels, 255)
    assert m.tolist() == [[False, True, True, True, True, False]] and void.tolist() == [[False] * 5 + [True]]
    m, _ = binarise(np.array([[255, 40000]], np.uint16))
    assert m.tolist() == [[False, True]]
    for void in (0, -1, 256):
        with pytest.raises(SempartError, match=f"void={void}.*1..255"):
            binarise(labels, void)
    m, void = binarise(np.array([[300, 40000]], np.uint16), 300)
    assert m.tolist() == [[False, True]] and void.tolist() == [[True, False]]


def test_a_spread_takes_every_part_of_the_list():
    names = [f"{i:02}" for i in range(10)]
    data = Dataset("d", names, lambda n: Sample(n, PHOTO), split="train", class_names=("x",), salt="v1")
    some = data.spread(4)
    assert isinstance(some, Dataset) and some.names == ("00", "02", "05", "07") and some[3].name == "07"
    assert (some.name, some.split, some.class_names, some.salt) == ("d", "train", ("x",), "v1")
    assert data.spread(1).names == ("00",) and some.list_hash != data.list_hash
    for n in (10, 11, 1000):
        assert data.spread(n).names == data.names
    assert len(data[:0].spread(3)) == 0
    for n in (0, -1, 2.0, "3", True, None):
        with pytest.raises(SempartError, match=r"n=.*whole number of at least 1"):
            data.spread(n)


def test_folder(tmp_path):
    for n in "bac":
        put(tmp_path / "images" / f"{n}.jpg")
        put(tmp_path / "masks" / f"{n}.png", mask(2, 3, 10, 12))
    d = load_dataset("folder", tmp_path)
    assert d.names == ("a", "b", "c") and d.list_hash == list_hash(["a", "b", "c"])
    assert d[1].mask.sum() == 8 * 9 and d[1].void is None and d[1].image.shape == PHOTO.shape
    assert isinstance(d[:2], Dataset) and d[:2].names == ("a", "b") and d[-1].name == "c"
    assert [s.name for s in d] == list(d.names)
    (tmp_path / "l.txt").write_text("c\na\n")
    assert load_dataset("folder", tmp_path, list_file=tmp_path / "l.txt").names == ("c", "a")
    assert load_dataset("folder", tmp_path, list_file=tmp_path / "l.txt", limit=1).names == ("c",)
    assert load_dataset("folder", images=tmp_path / "images", masks=tmp_path / "masks").names == d.names


def test_folder_label_maps(tmp_path):
    put(tmp_path / "images" / "a.jpg")
    put(tmp_path / "masks" / "a.png", mask(0, 0, 4, 4, value=7) + mask(4, 4, 8, 8))
    s = load_dataset("folder", tmp_path, void=255)[0]
    assert s.mask.sum() == 16 == s.void.sum() and not (s.mask & s.void).any()


@pytest.mark.parametrize(
    "values, palette, said",
    [
        ((0, 12, 255), False, "looks like a label map; give --void 255"),
        ((0, 1, 255), False, "looks like a label map"),
        ((0, 40), False, "looks like a label map"),
        ((0, 100, 255), True, "looks like a label map"),
        ((0, 12), True, "looks like a label map"),
        ((0, 1), False, "holds no value but 0 and 1"),
        ((1,), False, "holds no value but 0 and 1"),
        ((0, 1), True, "holds no value but 0 and 1"),
        ((0, 255), False, None),
        ((0, 255), True, None),
        ((0,), False, None),
        ((255,), False, None),
        ((0, 1, 2, 128, 254, 255), False, None),  # the soft rim of a mask
    ],
)
def test_folder_tells_label_maps_from_masks(tmp_path, values, palette, said):
    put(tmp_path / "images" / "a.jpg")
    labels = np.resize(np.array(values, np.uint8), PHOTO.shape[:2])
    im = Image.fromarray(labels, "P" if palette else "L")
    if palette:
        im.putpalette([v for k in range(256) for v in (k, k, k)])
    (tmp_path / "masks").mkdir()
    im.save(tmp_path / "masks" / "a.png")
    d = load_dataset("folder", tmp_path)
    if said is None:
        assert d[0].mask.sum() == (labels > 127).sum()
    else:
        with pytest.raises(SempartError, match=rf"a\.png {said}"):
            d[0]
    assert load_dataset("folder", tmp_path, void=255)[0].void is not None


def test_folder_names_what_is_missing(tmp_path):
    for n in "ab":
        put(tmp_path / "images" / f"{n}.jpg")
    put(tmp_path / "masks" / "b.png", mask(0, 0, 4, 4))
    with pytest.raises(SempartError, match=r"lacks masks for a;"):
        load_dataset("folder", tmp_path)
    put(tmp_path / "masks" / "a.png", mask(0, 0, 4, 4))
    put(tmp_path / "masks" / "z.png", mask(0, 0, 4, 4))
    with pytest.raises(SempartError, match="masks z"):
        load_dataset("folder", tmp_path)
    (tmp_path / "l.txt").write_text("a\nq\n")
    with pytest.raises(SempartError, match="lacks 1 of 2 listed pictures: q"):
        load_dataset("folder", tmp_path, list_file=tmp_path / "l.txt")
    put(tmp_path / "images" / "a.png")
    with pytest.raises(SempartError, match="same stem"):
        load_dataset("folder", tmp_path)


def test_bad_requests(tmp_path):
    with pytest.raises(SempartError, match="needs root"):
        load_dataset("weizmann_horses")
    with pytest.raises(SempartError, match="expected images and masks"):
        load_dataset("weizmann_horses", tmp_path)
    with pytest.raises(SempartError, match="not a folder"):
        load_dataset("folder", tmp_path / "none")
    with pytest.raises(SempartError, match="no option 'void'"):
        load_dataset("ecssd", tmp_path, void=255)
    with pytest.raises(SempartError, match="unknown data set"):
        load_dataset("imagenet")
    with pytest.raises(SempartError, match="limit is 0"):
        load_dataset("demo-procedural", limit=0)
    with pytest.raises(SempartError, match="saliency, discovery, semseg"):
        load_dataset("voc2012_animals", tmp_path, split="train")


def test_a_mask_of_another_size_is_named():
    with pytest.raises(SempartError, match=r"x: the mask is 5 x 4 pixels but the picture 32 x 24"):
        Sample("x", PHOTO, np.zeros((4, 5), bool))


def test_every_entry_has_a_card():
    assert len(DATASETS) == 15
    for c in DATASETS.cards():
        assert c.what and c.source and c.licence and c.extra["family"] in ("demo", "photos", "paper")


# --- photographs -----------------------------------------------------------------------------------------


@pytest.fixture
def voc_animals(tmp_path):
    place = tmp_path / "voc2012_animals"
    labels = mask(3, 4, 20, 22, value=8)
    labels[3, 3:20] = 255
    for n in ("2007_000001", "2007_000002"):
        put(place / "JPEGImages" / f"{n}.jpg")
        put(place / "SegmentationClassAug" / f"{n}.png", labels)
    boxes = {"2007_000001": [{"bbox_xyxy": [4, 5, 20, 22], "class": "cat"}]}
    (place / "boxes.json").write_text(json.dumps(boxes))
    (place / "l.txt").write_text("2007_000002\n2007_000001\n")
    return place


def test_voc2012_animals(voc_animals):
    for root in (voc_animals, voc_animals.parent):  # its own folder, or the one that holds it
        d = load_dataset("voc2012_animals", root, list_file=voc_animals / "l.txt")
        assert d.names == ("2007_000002", "2007_000001") and d.split == "saliency"
    s = d[1]
    assert s.mask.sum() == 17 * 18 and s.void.sum() == 17 and set(np.unique(s.labels)) == {0, 8, 255}
    ys, xs = np.nonzero(s.mask)  # 1-based inclusive corners enclose exactly the mask
    assert s.boxes.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]
    assert d.class_names[s.classes[0]] == "cat" and d[0].boxes.shape == (0, 4)


def test_voc2012_official_download(voc_animals):
    (voc_animals / "boxes.json").unlink()
    (voc_animals / "Annotations").mkdir()
    text = xml(("cat", 0, 1, 4, 5, 20, 22), ("dog", 1, 0, 1, 1, 9, 9))
    (voc_animals / "Annotations" / "2007_000001.xml").write_text(text)
    official = voc_animals.parent / "VOCdevkit" / "VOC2012"
    official.parent.mkdir()
    voc_animals.rename(official)
    (official / "SegmentationClassAug").rename(official / "SegmentationClass")
    d = load_dataset("voc2012_animals", official.parents[1], list_file=official / "l.txt")
    assert d[1].boxes.tolist() == [[3, 4, 20, 22]] and d[1].classes == (8,)  # the difficult one is left out
    with pytest.raises(SempartError, match=r"2007_000002\.xml"):
        d[0]


def test_installed_without_the_book_lists(voc_animals, monkeypatch, tmp_path):
    monkeypatch.setattr("sempart_core.photos.LISTS", tmp_path / "nowhere")
    with pytest.raises(SempartError, match=r"no list saliency\.txt"):
        load_dataset("voc2012_animals", voc_animals)
    (voc_animals / "lists").mkdir()
    (voc_animals / "lists" / "semseg_val.txt").write_text("2007_000001\n")
    assert load_dataset("voc2012_animals", voc_animals, split="semseg").names == ("2007_000001",)


@pytest.mark.parametrize("name, n", [("weizmann_horses", 328), ("davis2016_val", 141)])
def test_missing_photographs_are_named(tmp_path, name, n):
    first = read_list(next((samples.LISTS / name).iterdir()))[0]
    put(tmp_path / name / "images" / f"{first}.jpg")
    put(tmp_path / name / "masks" / f"{first}.png", mask(0, 0, 9, 9))
    with pytest.raises(SempartError, match=f"lacks {n - 1} of {n} listed"):
        load_dataset(name, tmp_path)
    (tmp_path / "l.txt").write_text(first)
    assert load_dataset(name, tmp_path, list_file=tmp_path / "l.txt")[0].mask.sum() == 81


def test_unlabelled_photographs(tmp_path):
    put(tmp_path / "photos_train" / "images" / "a.jpg")
    s = load_dataset("photos_train", tmp_path)[0]
    assert s.mask is None and s.boxes is None and s.image.shape == PHOTO.shape


# --- annotations -----------------------------------------------------------------------------------------


def test_voc_boxes(tmp_path):
    f = tmp_path / "a.xml"
    f.write_text(
        xml(("cat", 0, 0, 1, 1, 500, 375), ("dog", 1, 0, 48, 240, 195, 371), ("cow", 0, 1, 8, 12, 9, 13))
    )
    a = voc_objects(f)
    assert voc_boxes(a).tolist() == [[0, 0, 500, 375], [47, 239, 195, 371], [7, 11, 9, 13]]
    assert voc_boxes(a, hards=False).tolist() == [[0, 0, 500, 375]]
    one = {"annotation": {"object": a["annotation"]["object"][0]}}
    assert voc_boxes(one).shape == (1, 4) and voc_boxes({"annotation": {}}).shape == (0, 4)
    f.write_text("<annotation><object>")
    with pytest.raises(SempartError, match=r"a\.xml: damaged"):
        voc_objects(f)


def test_coco_boxes_round_half_to_even():
    given = [
        {"iscrowd": 0, "bbox": [10.5, 21.5, 30.2, 40.7]},
        {"iscrowd": 1, "bbox": [0, 0, 5, 5]},
        {"bbox": [0.4, 0.6, 1, 1]},
    ]
    assert coco_boxes(given).tolist() == [[10, 22, 41, 62], [0, 1, 1, 2]]
    assert coco_boxes([]).shape == (0, 4)


# --- benchmarks and verify -------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """Pretend that the published sets hold so few photographs."""

    def shrink(name, count):
        layout = dataclasses.replace(benchmarks.SETS[name], count=count)
        monkeypatch.setitem(benchmarks.SETS, name, layout)
        return layout

    return shrink


@pytest.mark.parametrize("name", ["duts_tr", "duts_te", "dut_omron", "ecssd"])
def test_saliency_benchmarks(tmp_path, small, name):
    layout = small(name, 2)
    place = tmp_path / layout.folders[0]
    for n in ("p.1", "q"):
        put(place / layout.images / f"{n}.jpg")
        put(place / layout.truth / f"{n}.png", mask(1, 1, 9, 9))
    d = load_dataset(name, tmp_path)
    assert d.names == ("p.1", "q") and d[0].mask.sum() == 64
    report = paper_sets.verify(name, tmp_path, deep=True)
    assert report.ok and report.found == 2 and report.place == place


def test_verify_names_what_is_wrong(tmp_path, small):
    layout = small("ecssd", 4)
    place = tmp_path / "ECSSD"
    for n in "abcd":
        put(place / layout.images / f"{n}.jpg", np.repeat(np.repeat(PHOTO, 8, 0), 8, 1))
        put(place / layout.truth / f"{n}.png", mask(1, 1, 9, 9))
    whole = place / layout.images / "a.jpg"
    whole.write_bytes(whole.read_bytes() + b"\0" * 500)  # bytes behind the end harm nobody
    assert paper_sets.verify("ecssd", tmp_path).ok
    (place / layout.truth / "a.png").unlink()
    cut = place / layout.images / "b.jpg"
    cut.write_bytes(cut.read_bytes()[:-3000])
    (place / layout.truth / "c.png").write_bytes(b"")
    report = paper_sets.verify("ecssd", tmp_path)
    text = str(report)
    assert not report.ok and report.found == 1
    assert "3 pictures are listed or paired, the published set has 4" in text
    assert "missing" in text and "a.png" in text and "b.jpg" in text and "c.png" in text and "d." not in text
    assert paper_sets.main(["verify", "ecssd", "--root", str(tmp_path)]) == 2
    assert paper_sets.main(["verify", "ecssd", "--root", str(tmp_path / "none")]) == 2


def test_doubled_masks_of_duts_tr(tmp_path, small):
    layout = small("duts_tr", 1)
    place = tmp_path / "DUTS-TR"
    put(place / layout.images / "p.jpg")
    put(place / layout.truth / "p.jpg", mask(0, 0, 3, 3))
    put(place / layout.truth / "p.png", mask(0, 0, 4, 4))
    assert load_dataset("duts_tr", tmp_path)[0].mask.sum() == 16 and paper_sets.verify("duts_tr", tmp_path).ok


@pytest.mark.parametrize("name", ["voc07", "voc12"])
def test_voc_benchmarks(tmp_path, small, name):
    layout = small(name, 2)
    place = tmp_path / layout.folders[0]
    (place / "Annotations").mkdir(parents=True)
    (place / "ImageSets" / "Main").mkdir(parents=True)
    (place / "ImageSets" / "Main" / "trainval.txt").write_text("000005\n000007\n")
    for n in ("000005", "000007"):
        put(place / "JPEGImages" / f"{n}.jpg")
        (place / "Annotations" / f"{n}.xml").write_text(
            xml(("cat", 1, 0, 1, 2, 9, 9), ("person", 0, 0, 3, 3, 5, 5))
        )
    d = load_dataset(name, tmp_path)
    assert d[1].boxes.tolist() == [[0, 1, 9, 9], [2, 2, 5, 5]]  # difficult ones count in this protocol
    assert [d.class_names[c] for c in d[1].classes] == ["cat", "person"]
    assert paper_sets.verify(name, tmp_path).ok
    (place / "ImageSets" / "Segmentation").mkdir()
    (place / "ImageSets" / "Segmentation" / "val.txt").write_text("000007\n")
    d = load_dataset(name, tmp_path, split="semseg")
    assert d.name == f"{name}_val" and d.names == ("000007",)
    with pytest.raises(SempartError, match=r"000007\.png"):
        d[0]
    labels = np.zeros(PHOTO.shape[:2], np.uint8)
    labels[:2], labels[2] = 8, 255
    put(place / "SegmentationClass" / "000007.png", labels)
    assert np.array_equal(d[0].labels, labels) and d[0].mask.sum() == d[0].void.sum() * 2
    (place / "Annotations" / "000007.xml").write_text(xml(("cat", 1, 0, 1, 2, 9, 9))[:-9])
    (place / "JPEGImages" / "000005.jpg").unlink()
    text = str(paper_sets.verify(name, tmp_path))
    assert "000005.jpg" in text and "damaged" in text and "000007.xml" in text


def test_coco20k(tmp_path, small, monkeypatch):
    small("coco20k", 2)
    place = tmp_path / "COCO"
    (place / "annotations").mkdir(parents=True)
    for i in (9, 25):
        put(place / "train2014" / f"COCO_train2014_{i:012d}.jpg")
    stored = {
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"image_id": 25, "category_id": 18, "bbox": [1.5, 2, 3, 4], "iscrowd": 0},
            {"image_id": 25, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    (place / "annotations" / "instances_train2014.json").write_text(json.dumps(stored))
    with pytest.raises(SempartError, match="coco_20k_filenames"):
        load_dataset("coco20k", tmp_path)
    text = "train2014/COCO_train2014_000000000025.jpg\ntrain2014/COCO_train2014_000000000009.jpg\n"
    (place / "coco_20k_filenames.txt").write_text(text)
    with pytest.raises(SempartError, match="the published list has 133cea5f"):
        load_dataset("coco20k", tmp_path)
    monkeypatch.setattr(benchmarks, "COCO20K_MD5", hashlib.md5(text.encode()).hexdigest())
    d = load_dataset("coco20k", tmp_path)
    assert d.names == ("COCO_train2014_000000000025", "COCO_train2014_000000000009")
    assert d[0].boxes.tolist() == [[2, 2, 4, 6]] and d.class_names[d[0].classes[0]] == "dog"
    assert d[1].boxes.shape == (0, 4) and paper_sets.verify("coco20k", tmp_path).ok


def test_cub200(tmp_path, small):
    small("cub200", 2)
    place = tmp_path / "CUB_200_2011"
    names = ["001.Albatross/A_1", "002.Wren/W_2"]
    for n in names:
        put(place / "images" / f"{n}.jpg")
        put(
            place / "segmentations" / f"{n}.png",
            mask(2, 3, 12, 13, value=153) + mask(20, 20, 22, 22, value=51),
        )
    (place / "images.txt").write_text("".join(f"{i + 1} {n}.jpg\n" for i, n in enumerate(names)))
    (place / "train_test_split.txt").write_text("1 1\n2 0\n")
    (place / "bounding_boxes.txt").write_text("1 0.0 0.0 5.0 5.0\n2 2.0 3.0 10.0 10.0\n")
    d = load_dataset("cub200", tmp_path)
    assert d.names == (names[1],) and d[0].mask.sum() == 100 and d[0].boxes.tolist() == [[2, 3, 12, 13]]
    assert load_dataset("cub200", tmp_path, split="train").names == (names[0],)
    assert len(load_dataset("cub200", tmp_path, split="all")) == 2
    assert paper_sets.verify("cub200", tmp_path).ok
    (place / "segmentations" / f"{names[0]}.png").unlink()
    assert "A_1.png" in str(paper_sets.verify("cub200", tmp_path))


def test_every_set_says_its_terms_and_has_addresses():
    assert set(paper_sets.PARTS) == set(paper_sets.NOTICES) == set(benchmarks.SETS)
    assert {n: s.count for n, s in benchmarks.SETS.items()} == {
        "duts_tr": 10553, "duts_te": 5019, "dut_omron": 5168, "ecssd": 1000, "voc07": 5011, "voc12": 11540,
        "coco20k": 19817, "cub200": 11788,
    }  # fmt: skip
    with pytest.raises(SempartError, match="choose one of"):
        paper_sets.fetch("imagenet")
