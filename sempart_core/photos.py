"""Real photographs given by a root folder, in the layout of their official distributions."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

from .annotations import voc_boxes, voc_objects
from .errors import SempartError
from .images import read_image, read_labels
from .samples import LISTS, Dataset, Sample, binarise, by_stem, find_root, pick, read_list

#: The 20 classes of PASCAL VOC in the order of their ids; 0 is the background.
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255
_VOC_SPLITS = {"saliency": "saliency", "discovery": "discovery", "semseg": "semseg", "semseg_val": "semseg"}

Root = str | os.PathLike | None


def named_list(dataset: str, split: str, root: pathlib.Path) -> list[str]:
    """A committed list of names, else the one under ``lists`` in the data set's folder.

    Raises
    ------
    SempartError
        In neither place.
    """
    places = [LISTS / dataset / f"{split}.txt", root / "lists" / f"{split}.txt"]
    if split == "semseg":
        places.append(root / "lists" / "semseg_val.txt")
    for p in places:
        if p.is_file():
            return read_list(p)
    raise SempartError(f"no list {split}.txt for {dataset}: place it in {root / 'lists'} or give list_file")


def voc2012_animals(
    root: Root, split: str | None = None, limit: int | None = None, list_file: Root = None
) -> Dataset:
    """VOC2012 photographs with animals; splits ``saliency`` (default), ``discovery`` and ``semseg``.

    The mask is any of the 20 classes, 255 is void, boxes leave difficult objects out (``boxes.json``; where
    it is absent, the XML annotations of the official download).
    """
    split = split or "saliency"
    if split not in _VOC_SPLITS:
        raise SempartError(
            f"voc2012_animals has no split {split!r}; choose one of: saliency, discovery, semseg"
        )
    split = _VOC_SPLITS[split]
    place = find_root(
        root, "voc2012_animals", ("voc2012_animals", "VOC2012", "VOCdevkit/VOC2012"), ("JPEGImages",)
    )
    masks = next(
        (place / n for n in ("SegmentationClassAug", "SegmentationClass") if (place / n).is_dir()), None
    )
    if masks is None:
        raise SempartError(f"{place}: holds no SegmentationClassAug; add that folder of label maps")
    names = read_list(list_file) if list_file else named_list("voc2012_animals", split, place)
    names = pick(names, None, limit, str(place))
    boxes = _json_boxes(place / "boxes.json") if (place / "boxes.json").is_file() else None

    def read(name: str) -> Sample:
        labels = read_labels(masks / f"{name}.png")
        mask, void = binarise(labels, VOID)
        found, classes = (
            boxes.get(name, _NONE) if boxes is not None else _xml_boxes(place / "Annotations" / f"{name}.xml")
        )
        image = read_image(place / "JPEGImages" / f"{name}.jpg")
        return Sample(name, image, mask, void, found, classes, labels)

    return Dataset(f"voc2012_animals-{split}", names, read, split=split, class_names=VOC_CLASSES)


_NONE: tuple[np.ndarray, tuple[int, ...]] = (np.zeros((0, 4)), ())


def _json_boxes(path: pathlib.Path) -> dict[str, tuple[np.ndarray, tuple[int, ...]]]:
    """Boxes by name; 1-based inclusive corners become 0-based with the far edge exclusive."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: (
                np.array([o["bbox_xyxy"] for o in objects], np.float64).reshape(-1, 4) - (1, 1, 0, 0),
                tuple(VOC_CLASSES.index(o["class"]) for o in objects),
            )
            for name, objects in stored.items()
        }
    except (ValueError, KeyError, TypeError) as e:
        raise SempartError(f"{path}: damaged ({e}); fetch or make it again") from e


def _xml_boxes(path: pathlib.Path) -> tuple[np.ndarray, tuple[int, ...]]:
    annotation = voc_objects(path)
    kept = [o for o in annotation["annotation"]["object"] if o.get("difficult") != "1"]
    return voc_boxes({"annotation": {"object": kept}}).astype(np.float64), class_ids(kept, path)


def class_ids(objects: list[dict], path: pathlib.Path) -> tuple[int, ...]:
    """VOC class ids of annotation objects."""
    try:
        return tuple(VOC_CLASSES.index(o["name"]) for o in objects)
    except (ValueError, KeyError) as e:
        raise SempartError(f"{path}: an object without a VOC class ({e})") from e


def _pairs(
    name: str,
    listed: str,
    root: Root,
    split: str | None = None,
    limit: int | None = None,
    list_file: Root = None,
) -> Dataset:
    if split not in (None, "", listed):
        raise SempartError(f"{name} has one split, {listed!r}; leave split out")
    place = find_root(root, name, (name,), ("images", "masks"))
    names = read_list(list_file) if list_file else named_list(name, listed, place)
    return paired(name, place / "images", place / "masks", names, limit, split=listed)


def folder(
    root: Root,
    split: str | None = None,
    limit: int | None = None,
    list_file: Root = None,
    *,
    void: int | None = None,
    images: Root = None,
    masks: Root = None,
) -> Dataset:
    """A user's own folder with ``images/`` and ``masks/``, matched by name without ending.

    Parameters
    ----------
    root, limit, list_file
        As in :func:`sempart_core.datasets.load_dataset`.
    void : int, optional
        The masks are label maps and this value is ignored; see :func:`sempart_core.samples.binarise`.
    images, masks : path, optional
        The two folders where they do not lie side by side; ``root`` is then not needed.
    """
    if split:
        raise SempartError(f"a plain folder has no split {split!r}; leave it out or give list_file")
    if images is None or masks is None:
        place = find_root(root, "folder", (), ("images", "masks"))
        images, masks = images or place / "images", masks or place / "masks"
    names = None if list_file is None else read_list(list_file)
    return paired("folder", pathlib.Path(images), pathlib.Path(masks), names, limit, void=void, guess=True)


def paired(
    name: str,
    images: pathlib.Path,
    masks: pathlib.Path,
    names: list[str] | None,
    limit: int | None,
    *,
    void: int | None = None,
    split: str = "",
    prefer: str | None = None,
    guess: bool = False,
) -> Dataset:
    """A data set of photographs and masks paired by stem.

    With ``guess`` and without ``void`` a mask file that is no plain mask is refused when it is read, see
    :func:`refuse_label_map`.

    Raises
    ------
    SempartError
        A folder is absent, a listed picture is, or a picture and its mask are not both there; the first
        five are named.
    """
    photo, truth = by_stem(images), by_stem(masks, prefer=prefer)
    chosen = pick(photo, names, limit if names is not None else None, str(images))
    if lonely := [n for n in chosen if n not in truth]:
        raise SempartError(
            f"{masks} lacks masks for {_some(lonely)}; every photograph needs one of the same stem"
        )
    if names is None and (lonely := [n for n in truth if n not in photo]):
        raise SempartError(
            f"{images} lacks photographs for the masks {_some(lonely)}; add them or give a list"
        )
    chosen = pick(chosen, None, limit, str(images))

    def read(n: str) -> Sample:
        labels = read_labels(truth[n])
        if guess and void is None:
            refuse_label_map(truth[n], labels)
        mask, ignored = binarise(labels, void)
        return Sample(n, read_image(photo[n]), mask, ignored)

    return Dataset(name, chosen, read, split=split)


#: Ids up to here beside 0 and the largest value make a grey file a label map (VOC has 20, COCO-Stuff more).
FEW_LABELS = 40


def refuse_label_map(path: pathlib.Path, labels: np.ndarray) -> None:
    """Stop at a file that :func:`sempart_core.samples.binarise` would read wrongly without ``void``.

    Parameters
    ----------
    path : Path
    labels : ndarray
        ``H x W`` as :func:`sempart_core.images.read_labels` gives it.

    Raises
    ------
    SempartError
        A palette of more than two values, values that are all small ids (the rim of a soft mask has
        larger ones too), or nothing but 0 and 1.
    """
    values = np.unique(labels)
    ids = values[(values > 0) & (values < np.iinfo(labels.dtype).max)]
    if ids.tolist() == [1] and len(values) <= 2 and values.max() == 1:
        raise SempartError(
            f"{path} holds no value but 0 and 1, which is all below half the range; save masks with 0 and 255, "
            "or give --void 255, with which any other value above 0 is foreground"
        )
    with Image.open(path) as im:
        palette = im.mode == "P"
    if (palette and len(values) > 2) or (len(ids) and ids.max() <= FEW_LABELS):
        raise SempartError(
            f"{path} looks like a label map; give --void 255 (void=255 in Python), with which any other value "
            "above 0 is foreground"
        )


def unlabelled(
    name: str, root: Root, split: str | None = None, limit: int | None = None, list_file: Root = None
) -> Dataset:
    """Photographs without truth, in ``images/``: for training without labels."""
    place = find_root(root, name, (name,), ("images",))
    files = by_stem(place / "images")
    chosen = pick(files, read_list(list_file) if list_file else None, limit, str(place))
    return Dataset(name, chosen, lambda n: Sample(n, read_image(files[n])), split=split or "train")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


weizmann_horses: Callable[..., Dataset] = partial(_pairs, "weizmann_horses", "all")
davis2016_val: Callable[..., Dataset] = partial(_pairs, "davis2016_val", "frames")
photos_train: Callable[..., Dataset] = partial(unlabelled, "photos_train")
