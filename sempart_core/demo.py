"""The data sets ``demo`` and ``demo-procedural``: composed scenes, made when first asked for and kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib

import numpy as np
from PIL import Image

from . import procedural, scenes
from .errors import SempartError
from .images import read_image, read_labels
from .ingredients import Ingredients, fetched
from .paths import cache_dir, ensure
from .records import write_bytes, write_text
from .samples import Dataset, Sample, pick, read_list

#: Said on the credits page and beside every picture of a scene.
LICENCE = "Cut-outs: Tux Paint stamps, GPL-2. Backgrounds: mate-backgrounds, GPL-2 or later; scikit-image textures, CC0."


def assets_dir() -> pathlib.Path:
    """Where ``sempart fetch demo`` puts cut-outs and backgrounds."""
    return cache_dir() / "demo" / "assets"


def manifest_path() -> pathlib.Path:
    """Written last by ``sempart fetch demo``: which packages lie there, or that procedural drawings stand in."""
    return assets_dir() / "manifest.json"


def ingredients() -> Ingredients:
    """What ``sempart fetch demo`` found: photographs, or the procedural stand-ins where there is no source.

    Raises
    ------
    SempartError
        Nothing was fetched yet.
    """
    if not manifest_path().is_file():
        raise SempartError("the demo set's cut-outs are not here yet; run: sempart fetch demo")
    text = manifest_path().read_text(encoding="utf-8")
    if json.loads(text).get("procedural"):
        return procedural.ingredients()
    return fetched(assets_dir(), hashlib.sha256(text.encode()).hexdigest()[:12])


def load(
    name: str = "demo",
    split: str | None = None,
    limit: int | None = None,
    list_file: str | os.PathLike | None = None,
    seed: int = 0,
) -> Dataset:
    """The demo set; scenes are composed when read first and kept as PNG in the cache.

    Parameters
    ----------
    name : str
        ``demo``, or ``demo-procedural`` to ask for the drawings though photographs were fetched.
    split : str, optional
        ``train`` (800), ``test`` (200, the default) or ``discovery`` (100).
    limit, list_file
        As in :func:`sempart_core.datasets.load_dataset`.
    seed : int
        Of all scenes; published numbers use 0.
    """
    split = split or "test"
    wanted = None if list_file is None else read_list(list_file)
    chosen = pick(scenes.names(split), wanted, limit, f"demo/{split}")
    parts = procedural.ingredients() if name == "demo-procedural" else ingredients()
    key = f"{parts.name}-v{scenes.VERSION}-{parts.version}-seed{seed}"
    folder = cache_dir() / "demo" / "scenes" / key / split

    def read(scene: str) -> Sample:
        return _stored(folder, scene) or _store(folder, scenes.compose(parts, split, _number(scene), seed))

    return Dataset(
        f"{parts.name}-{split}", chosen, read, split=split, class_names=parts.class_names, salt=key
    )


def _number(scene: str) -> int:
    return int(scene.rsplit("-", 1)[1])


def _stored(folder: pathlib.Path, name: str) -> Sample | None:
    note = folder / f"{name}.json"  # written last, so the pictures are whole
    if not note.is_file():
        return None
    said = json.loads(note.read_text(encoding="utf-8"))
    return _sample(
        name,
        read_image(folder / f"{name}.png"),
        read_labels(folder / f"{name}-alpha.png"),
        read_labels(folder / f"{name}-instances.png"),
        np.array(said["boxes"], np.float64).reshape(-1, 4),
        tuple(said["classes"]),
        said["meta"],
    )


def _store(folder: pathlib.Path, s: scenes.Scene) -> Sample:
    ensure(folder)
    for suffix, picture in (("", s.image), ("-alpha", s.alpha), ("-instances", s.instances)):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", compress_level=3)
        write_bytes(folder / f"{s.name}{suffix}.png", buffer.getvalue())
    said = {"boxes": s.boxes.tolist(), "classes": list(s.classes), "meta": s.meta, "licence": LICENCE}
    write_text(folder / f"{s.name}.json", json.dumps(said, sort_keys=True) + "\n")
    return _sample(s.name, s.image, s.alpha, s.instances, s.boxes, s.classes, s.meta)


def _sample(name, image, alpha, instances, boxes, classes, meta) -> Sample:
    by_instance = np.zeros(256, np.uint8)
    seen = [i for i in range(1, 256) if i <= int(instances.max()) and (instances == i).any()]
    by_instance[seen] = classes
    return Sample(
        name=name,
        image=image,
        mask=alpha > 127,
        boxes=boxes,
        classes=tuple(classes),
        labels=by_instance[instances],
        alpha=alpha,
        meta={**meta, "instances": instances},
    )
