"""The papers' own data sets, read in the layout of their official downloads.

``SETS`` says where files lie and how many there must be; ``data_scripts.paper_sets`` fetches and verifies by the
same table.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .annotations import coco_boxes, objects_of, voc_boxes, voc_objects
from .errors import SempartError
from .images import read_image, read_labels
from .photos import VOC_CLASSES, class_ids, paired
from .samples import Dataset, Sample, binarise, by_stem, find_root, pick, read_list

Root = str | os.PathLike | None
#: md5 of the list of COCO20k that LOST, TokenCut and PEEKABOO share (protocols 1.11).
COCO20K_MD5 = "133cea5ffcea93dccbaeb62c38b24e7c"


@dataclass(frozen=True)
class Layout:
    """Where a data set's files lie below its folder.

    Parameters
    ----------
    name : str
        As asked for.
    folders : tuple of str
        Where below the root its own folder may be, the official name first.
    images : str
        Folder of the photographs.
    truth : str
        Folder of masks or annotations, or the annotation file.
    count : int
        Photographs of the published protocol.
    kind : str
        ``masks``, ``voc``, ``coco`` or ``cub``.
    """

    name: str
    folders: tuple[str, ...]
    images: str
    truth: str
    count: int
    kind: str = "masks"


SETS = {
    s.name: s
    for s in (
        Layout("duts_tr", ("DUTS-TR",), "DUTS-TR-Image", "DUTS-TR-Mask", 10_553),
        Layout("duts_te", ("DUTS-TE",), "DUTS-TE-Image", "DUTS-TE-Mask", 5_019),
        Layout("dut_omron", ("DUT-OMRON",), "DUT-OMRON-image", "pixelwiseGT-new-PNG", 5_168),
        Layout("ecssd", ("ECSSD",), "images", "ground_truth_mask", 1_000),
        Layout("voc07", ("VOCdevkit/VOC2007", "VOC2007"), "JPEGImages", "Annotations", 5_011, "voc"),
        Layout("voc12", ("VOCdevkit/VOC2012", "VOC2012"), "JPEGImages", "Annotations", 11_540, "voc"),
        Layout("coco20k", ("COCO",), "train2014", "annotations/instances_train2014.json", 19_817, "coco"),
        Layout("cub200", ("CUB_200_2011",), "images", "segmentations", 11_788, "cub"),
    )
}


def load(
    name: str, root: Root = None, split: str | None = None, limit: int | None = None, list_file: Root = None
) -> Dataset:
    """One of the papers' data sets by name; see :func:`sempart_core.datasets.load_dataset`."""
    layout = SETS[name]
    place = find_root(root, name, layout.folders, (layout.images, layout.truth))
    wanted = read_list(list_file) if list_file else None
    return _READERS[layout.kind](layout, place, split, limit, wanted)


def _no_split(name: str, split: str | None, only: str) -> str:
    if split not in (None, "", only):
        raise SempartError(f"{name} has one split, {only!r}; leave split out")
    return only


def _masks(layout: Layout, place: pathlib.Path, split, limit, wanted) -> Dataset:
    split = _no_split(layout.name, split, "train" if layout.name.endswith("_tr") else "test")
    return paired(
        layout.name, place / layout.images, place / layout.truth, wanted, limit, split=split, prefer=".png"
    )


def voc_names(place: pathlib.Path, split: str) -> list[str]:
    """Names of ``ImageSets/Main/<split>.txt``; ``semseg`` is ``ImageSets/Segmentation/val.txt``."""
    folder, name = ("Segmentation", "val") if split == "semseg" else ("Main", split)
    return read_list(place / "ImageSets" / folder / f"{name}.txt")


def _voc(layout: Layout, place: pathlib.Path, split, limit, wanted) -> Dataset:
    """Boxes of all objects, difficult and truncated ones too: the published CorLoc protocol.

    ``semseg`` is the validation list of the segmentation task; its pictures have label maps.
    """
    split = split or "trainval"
    names = pick(voc_names(place, split), wanted, limit, f"{layout.name}/{split}")
    own = f"{layout.name}_val" if split == "semseg" else layout.name

    def read(name: str) -> Sample:
        path = place / layout.truth / f"{name}.xml"
        annotation = voc_objects(path)
        objects = objects_of(annotation)
        image = read_image(place / layout.images / f"{name}.jpg")
        labels = place / "SegmentationClass" / f"{name}.png"
        ids = read_labels(labels) if labels.is_file() or split == "semseg" else None
        mask, void = (None, None) if ids is None else binarise(ids, 255)
        boxes = voc_boxes(annotation).astype(np.float64)
        return Sample(name, image, mask, void, boxes, class_ids(objects, path), ids)

    return Dataset(own, names, read, split=split, class_names=VOC_CLASSES)


def coco20k_names(place: pathlib.Path) -> list[str]:
    """Names of the published list, whose md5 is checked.

    Raises
    ------
    SempartError
        The list is absent or another one.
    """
    path = place / "coco_20k_filenames.txt"
    if not path.is_file():
        raise SempartError(f"{path} is missing; run: sempart fetch coco20k")
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != COCO20K_MD5:
        raise SempartError(f"{path}: md5 is {found}, the published list has {COCO20K_MD5}; fetch it again")
    return [
        s.strip().rsplit("/", 1)[-1].removesuffix(".jpg") for s in path.read_text().splitlines() if s.strip()
    ]


@lru_cache(maxsize=2)
def _coco_index(path: pathlib.Path) -> tuple[dict[int, list[dict]], tuple[str, ...], dict[int, int]]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        by_image: dict[int, list[dict]] = {}
        for a in stored["annotations"]:
            kept = {k: a[k] for k in ("bbox", "iscrowd", "category_id")}
            by_image.setdefault(a["image_id"], []).append(kept)
        categories = sorted(stored["categories"], key=lambda c: c["id"])
    except (ValueError, KeyError, TypeError) as e:
        raise SempartError(f"{path}: damaged annotation file ({e}); fetch it again") from e
    ids = {c["id"]: i + 1 for i, c in enumerate(categories)}
    return by_image, ("background", *(c["name"] for c in categories)), ids


def _coco(layout: Layout, place: pathlib.Path, split, limit, wanted) -> Dataset:
    split = _no_split(layout.name, split, "train2014")
    names = pick(coco20k_names(place), wanted, limit, layout.name)
    by_image, class_names, ids = _coco_index(place / layout.truth)

    def read(name: str) -> Sample:
        found = by_image.get(int(name.rsplit("_", 1)[-1]), [])
        image = read_image(place / layout.images / f"{name}.jpg")
        classes = tuple(ids[a["category_id"]] for a in found if not a.get("iscrowd", 0))
        return Sample(name, image, boxes=coco_boxes(found).astype(np.float64), classes=classes)

    return Dataset(layout.name, names, read, split=split, class_names=class_names)


def _table(path: pathlib.Path) -> dict[str, list[str]]:
    """``id value...`` lines of CUB's text files."""
    if not path.is_file():
        raise SempartError(f"{path} is missing; run: sempart fetch cub200")
    return {k: v for k, *v in (s.split() for s in path.read_text().splitlines() if s.strip())}


def _cub(layout: Layout, place: pathlib.Path, split, limit, wanted) -> Dataset:
    """Masks (mean of five annotators above one half) and one box a picture, ``(x, y, w, h)`` rounded."""
    split = split or "test"
    if split not in ("train", "test", "all"):
        raise SempartError(f"cub200 has no split {split!r}; choose one of: train, test, all")
    files = {k: v[0].removesuffix(".jpg") for k, v in _table(place / "images.txt").items()}
    train = {files[k] for k, v in _table(place / "train_test_split.txt").items() if v[0] == "1"}
    box = {files[k]: [float(x) for x in v] for k, v in _table(place / "bounding_boxes.txt").items()}
    names = [n for n in files.values() if split == "all" or (n in train) == (split == "train")]
    truth = by_stem(place / layout.truth, recursive=True)

    def read(name: str) -> Sample:
        if name not in truth:
            raise SempartError(f"{place / layout.truth / name}.png is missing; run: sempart fetch cub200")
        mask, _ = binarise(read_labels(truth[name]))
        x, y, w, h = box[name]
        boxes = np.array([[round(v) for v in (x, y, x + w, y + h)]], np.float64)
        return Sample(
            name, read_image(place / layout.images / f"{name}.jpg"), mask, boxes=boxes, classes=(1,)
        )

    return Dataset(
        layout.name,
        pick(names, wanted, limit, layout.name),
        read,
        split=split,
        class_names=("background", "bird"),
    )


_READERS = {"masks": _masks, "voc": _voc, "coco": _coco, "cub": _cub}
