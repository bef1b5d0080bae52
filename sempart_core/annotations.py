"""Boxes out of the annotation files of PASCAL VOC and COCO, as the LOST family reads them.

Source: protocols 1.11 (LOST ``datasets.py`` at fcedbecb): VOC subtracts 1 from ``xmin`` and ``ymin`` and keeps
``xmax`` and ``ymax``, which turns 1-based inclusive corners into 0-based ones with the far edge exclusive;
COCO drops crowds and rounds half to even.
"""

from __future__ import annotations

import os
import pathlib
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import numpy as np

from .errors import SempartError


def voc_objects(path: str | os.PathLike) -> dict:
    """Read a VOC annotation file as nested dictionaries: ``{"annotation": {"object": [...]}}``.

    Raises
    ------
    SempartError
        Absent or not XML; the sentence names the file.
    """
    path = pathlib.Path(path)
    try:
        tree = ET.parse(path).getroot()
    except FileNotFoundError as e:
        raise SempartError(f"{path}: no such annotation file") from e
    except ET.ParseError as e:
        raise SempartError(f"{path}: damaged annotation file ({e})") from e
    objects = []
    for o in tree.findall("object"):
        entry: dict = {c.tag: (c.text or "").strip() for c in o if len(c) == 0}
        box = o.find("bndbox")
        if box is None:
            raise SempartError(f"{path}: an object without a box; the file is damaged")
        entry["bndbox"] = {c.tag: (c.text or "").strip() for c in box}
        objects.append(entry)
    return {"annotation": {"object": objects}}


def voc_boxes(annotation: dict, *, hards: bool = True) -> np.ndarray:
    """Boxes of a VOC annotation.

    Parameters
    ----------
    annotation : dict
        ``{"annotation": {"object": [...]}}`` with strings, as torchvision and :func:`voc_objects` give it;
        a single object may stand without its list.
    hards : bool
        Keep objects marked difficult or truncated (the published CorLoc protocol does).

    Returns
    -------
    ndarray
        ``n x 4`` int64 ``(x_min, y_min, x_max, y_max)``, 0-based, right and bottom exclusive.
    """
    rows = []
    for o in objects_of(annotation, hards=hards):
        b = o["bndbox"]
        x1, y1, x2, y2 = (int(float(b[k])) for k in ("xmin", "ymin", "xmax", "ymax"))
        rows.append((x1 - 1, y1 - 1, x2, y2))
    return np.array(rows, np.int64).reshape(-1, 4)


def objects_of(annotation: dict, *, hards: bool = True) -> list[dict]:
    """The objects of a VOC annotation that :func:`voc_boxes` gives the boxes of."""
    objects = annotation["annotation"].get("object", [])
    objects = [objects] if isinstance(objects, dict) else objects
    hard = lambda o: str(o.get("difficult", "0")) == "1" or str(o.get("truncated", "0")) == "1"  # noqa: E731
    return [o for o in objects if hards or not hard(o)]


def coco_boxes(annotations: Sequence[dict]) -> np.ndarray:
    """Boxes of the COCO annotations of one image; crowds are removed.

    The stored ``(x, y, width, height)`` becomes ``(x, y, x + width, y + height)``, each rounded as Python's
    ``round`` does (half to even).

    Returns
    -------
    ndarray
        ``n x 4`` int64.
    """
    rows = []
    for a in annotations:
        if a.get("iscrowd", 0):
            continue
        x, y, w, h = a["bbox"]
        rows.append([round(v) for v in (x, y, x + w, y + h)])
    return np.array(rows, np.int64).reshape(-1, 4)
