"""From a folder of photographs to masks, cut-outs, overlays and boxes on disk."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from . import refine as refiners
from . import regions
from .backbones import Backbone
from .cutouts import cutout, overlay, png
from .errors import SempartError
from .extraction import extract
from .images import read_image, resize, to_tensor
from .methods import Method
from .photo_files import KINDS, find_photos, output_names, relative
from .records import write_bytes, write_text

#: Longest side, in pixels, at which a mask is refined; the soft result is then interpolated. Refinement
#: costs grow with the area, and its windows in pixels are meant for photographs of this order.
WORKING_SIDE = 512

#: Parameters for a cut-out: the guide sees colour, so that an object as bright as its ground has an edge; the
#: bilateral solver works at half the size, quicker and no worse on photographs (chapter "A head that ships").
REFINE = {"guided": {"guide": "color"}, "bilateral": {"subsample": 2}}

#: Regions smaller than this share of the photograph get no box.
SPECK = 0.002


@dataclass
class Report:
    """What :func:`segment` did: ``done`` names (stems of the files) and ``failed`` sentences."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@torch.no_grad()
def cut(
    image: np.ndarray,
    method: Method,
    backbone: Backbone | None,
    size: int | None = None,
    refine: str | None = None,
    feature: str | None = None,
    tau: float | None = None,
) -> tuple[np.ndarray, bool]:
    """Soft mask of one photograph at its own resolution, and whether refinement was given up.

    Smoothing can wash a small or faint object out, or spread it over everything. Where ``soft > .5`` is
    then empty or full though it was neither before, the mask from before is returned, and True.

    Parameters
    ----------
    image : ndarray
        ``H x W x 3`` uint8.
    backbone : Backbone or None
        None for a method that reads pixels alone.
    size : int, optional
        Side in pixels of the square the network sees; None for the method's.
    refine : str, optional
        A name of :data:`sempart_core.refine.REFINERS`; None for plain interpolation.
    feature, tau
        Feature ``kind@block`` of the graph and its threshold; None for the method's, else the backbone's.

    Returns
    -------
    (ndarray, bool)
        ``H x W`` float32 in [0, 1].

    Raises
    ------
    SempartError
        A backbone, feature or size that the method cannot use.
    """
    _check(method, backbone, size, feature, tau)
    H, W = image.shape[:2]
    x = to_tensor([image], method.default_size if size is None else size)
    layer = feature or method.default_feature
    if not method.reads_pixels:
        x = extract(backbone, x, feature=layer, tau=tau, policy=method.policy)
    prediction = method.predict(x)
    scale = min(1.0, WORKING_SIDE / max(H, W)) if refine else 1.0
    h, w = max(1, round(H * scale)), max(1, round(W * scale))
    soft = prediction.resize((h, w)).soft.float().cpu()
    if refine:
        small = image if (h, w) == (H, W) else resize(image, (h, w))
        soft = refiners.refine(refine, soft, to_tensor([small]), **REFINE.get(refine, {}))
        if (h, w) != (H, W):
            soft = torch.nn.functional.interpolate(
                soft[:, None], (H, W), mode="bilinear", align_corners=False
            )[:, 0]
        if _one_sided(soft > 0.5) and not _one_sided((plain := prediction.resize((H, W)).soft.cpu()) > 0.5):
            return plain[0].float().clamp(0, 1).numpy(), True
    return soft[0].clamp(0, 1).numpy(), False


def _check(
    method: Method, backbone: Backbone | None, size: int | None, feature: str | None, tau: float | None
) -> None:
    if backbone is None and not method.reads_pixels:
        raise SempartError("this method reads features: give a backbone")
    method.check(backbone.name if backbone else None, feature, tau)
    method.check_size(size)


def _one_sided(mask: torch.Tensor) -> bool:
    return bool(mask.all()) or not mask.any()


def segment(
    paths: Iterable[str | os.PathLike],
    out: str | os.PathLike,
    method: Method,
    backbone: Backbone | None,
    *,
    size: int | None = None,
    refine: str | None = None,
    feature: str | None = None,
    tau: float | None = None,
    about: dict | None = None,
    progress: Callable[[Sequence], Iterable] | None = None,
    say: Callable[[str], None] = print,
) -> Report:
    """Segment photographs into ``out``.

    Each photograph gets ``<name>_mask.png`` (0 and 255), ``<name>_cutout.png`` (RGBA, alpha soft at
    the edge) and ``<name>_overlay.png`` (reduced if large). ``boxes.json`` holds a box for every region, in pixels of the
    upright photograph, 0-based, right and bottom exclusive; entries of earlier runs stay. A photograph
    that cannot be read is reported and skipped.

    Parameters
    ----------
    paths : iterable of path
        Files and folders.
    out : path
        Made if it does not exist.
    method, backbone, size, refine, feature, tau
        As in :func:`cut`.
    about : dict
        What the run was made with, kept beside each entry of ``boxes.json``.
    progress : callable, optional
        Wraps the list of photographs (``tqdm``).
    say : callable
        Is given each sentence about a photograph that failed, as it happens.

    Raises
    ------
    SempartError
        ``out`` is no folder or cannot be written, its ``boxes.json`` is not one of ours, or the method was
        trained on another backbone or feature.
    """
    _check(method, backbone, size, feature, tau)
    out = pathlib.Path(out)
    entries = _read_boxes(out / "boxes.json")
    own = {(out / f"{name}_{kind}.png").resolve() for name in entries for kind in KINDS}
    photos, problems = find_photos(paths)
    photos = [p for p in photos if p.resolve() not in own]  # out may be the folder of the photographs
    report = Report(failed=problems)
    for sentence in problems:
        say(sentence)
    if not photos:
        return report
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SempartError(
            f"{out}: cannot make this folder ({e.strerror}); give another one with --out"
        ) from e
    names = output_names(photos, {k: v["photo"] for k, v in entries.items()}, out)
    todo = list(zip(photos, names, strict=True))
    try:
        for photo, name in progress(todo) if progress else todo:
            try:
                image = read_image(photo)
            except SempartError as e:
                report.failed.append(str(e))
                say(str(e))
                continue
            soft, fell_back = cut(image, method, backbone, size, refine, feature, tau)
            if fell_back:
                say(f"{photo}: {refine} left an empty or full mask; the mask before it is written instead")
            mask = soft > 0.5
            boxes = regions.boxes_of(mask, min_area=max(1, round(SPECK * mask.size)))
            with _disk(out):
                for kind, data in zip(KINDS, _drawn(image, soft, mask, boxes), strict=True):
                    write_bytes(out / f"{name}_{kind}.png", data)
            entries[name] = {
                "photo": relative(photo, out),
                "width": mask.shape[1],
                "height": mask.shape[0],
                "foreground_share": round(float(mask.mean()), 6),
                "boxes": boxes.astype(int).tolist(),
                **(about or {}),
                **({"refine": "none (fell back)"} if fell_back else {}),
            }
            report.done.append(name)
    finally:  # also after Ctrl-C: what is on disk is listed
        if report.done:
            text = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(entries.items()))
            with _disk(out):
                write_text(out / "boxes.json", "{\n" + text + "\n}\n")
    return report


def _drawn(image: np.ndarray, soft: np.ndarray, mask: np.ndarray, boxes: np.ndarray) -> list[bytes]:
    """The pictures of :data:`~sempart_core.photo_files.KINDS` as PNG, drawn and encoded side by side."""
    draw = (
        lambda: png(mask.astype(np.uint8) * 255),
        lambda: png(cutout(image, soft)),
        lambda: png(overlay(image, mask, boxes)),
    )
    with ThreadPoolExecutor(len(draw)) as pool:
        return list(pool.map(lambda make: make(), draw))


@contextlib.contextmanager
def _disk(out: pathlib.Path) -> Iterator[None]:
    """Turn a full or read-only disk into a sentence."""
    try:
        yield
    except OSError as e:
        raise SempartError(
            f"{out}: cannot write there ({e.strerror}); make room or give another folder with --out"
        ) from e


def _read_boxes(path: pathlib.Path) -> dict[str, dict]:
    """Entries of an earlier run; none where there was none."""
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        for v in entries.values():
            v["photo"]
        return entries
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise SempartError(
            f"{path}: was not written by this command; move it away or give another folder with --out"
        ) from e
