"""What lies in the folder of a paper's data set: counted, paired with its truth, and looked at for damage."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from sempart_core.benchmarks import SETS, Layout, coco20k_names, voc_names
from sempart_core.errors import SempartError
from sempart_core.images import read_labels
from sempart_core.samples import by_stem, find_root


@dataclass(frozen=True)
class Report:
    """What :func:`verify` found.

    Parameters
    ----------
    name : str
    place : Path
        The data set's folder.
    found, expected : int
        Photographs of the protocol that are there with their truth, and how many there must be.
    problems : tuple of str
        A sentence for each thing missing, lonely or damaged.
    """

    name: str
    place: pathlib.Path
    found: int
    expected: int
    problems: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.name}: {self.found} of {self.expected} photographs with their truth in {self.place}"
        return "\n".join([head, *(f"  {p}" for p in self.problems[:20])]) + (
            f"\n  and {len(self.problems) - 20} more problems" if len(self.problems) > 20 else ""
        )


def known(name: str) -> Layout:
    """Layout of a data set, or a SempartError that lists the names."""
    if name not in SETS:
        raise SempartError(f"unknown data set {name!r}; choose one of: {', '.join(SETS)}")
    return SETS[name]


def verify(name: str, root: str | os.PathLike, *, deep: bool = False) -> Report:
    """Count, pair and check a data set's files.

    Parameters
    ----------
    name : str
    root : path
        The data set's folder or the one that holds it.
    deep : bool
        Decode every picture; otherwise only its beginning and end are looked at, which finds files cut short.

    Returns
    -------
    Report

    Raises
    ------
    SempartError
        The data set's folders are not there at all.
    """
    layout = known(name)
    place = find_root(root, name, layout.folders, (layout.images, layout.truth))
    problems: list[str] = []
    pairs = _CHECKS[layout.kind](layout, place, problems)
    whole = 0
    for photo, truth in pairs:
        fault = next((f for p in (photo, truth) if p is not None and (f := _fault(p, deep))), None)
        if fault:
            problems.append(fault)
        else:
            whole += 1
    if len(pairs) != layout.count:
        problems.insert(
            0, f"{len(pairs)} pictures are listed or paired, the published set has {layout.count}"
        )
    return Report(name, place, whole, layout.count, tuple(problems))


_Pairs = list[tuple[pathlib.Path, pathlib.Path | None]]


def _stems(folder: pathlib.Path, problems: list[str]) -> dict[str, pathlib.Path]:
    try:
        return by_stem(folder, recursive=True, prefer=".png")
    except SempartError as e:
        problems.append(str(e))
        return {}


def _lonely(names: Iterable[str], folder: pathlib.Path, ending: str, problems: list[str]) -> None:
    problems += [f"missing: {folder / n}{ending}" for n in sorted(names)]


def _check_masks(layout: Layout, place: pathlib.Path, problems: list[str]) -> _Pairs:
    photos, masks = _stems(place / layout.images, problems), _stems(place / layout.truth, problems)
    _lonely(photos.keys() - masks.keys(), place / layout.truth, ".png", problems)
    _lonely(masks.keys() - photos.keys(), place / layout.images, ".jpg", problems)
    return [(photos[n], masks[n]) for n in photos if n in masks]


def _check_listed(
    names: list[str], place: pathlib.Path, layout: Layout, ending: str, problems: list[str]
) -> _Pairs:
    pairs: _Pairs = []
    for n in names:
        photo = place / layout.images / f"{n}.jpg"
        truth = place / layout.truth / f"{n}{ending}" if ending else None
        absent = [p for p in (photo, truth) if p is not None and not p.is_file()]
        problems += [f"missing: {p}" for p in absent]
        if not absent:
            pairs.append((photo, truth))
    return pairs


def _check_voc(layout: Layout, place: pathlib.Path, problems: list[str]) -> _Pairs:
    return _check_listed(voc_names(place, "trainval"), place, layout, ".xml", problems)


def _check_coco(layout: Layout, place: pathlib.Path, problems: list[str]) -> _Pairs:
    return _check_listed(coco20k_names(place), place, layout, "", problems)


def _check_cub(layout: Layout, place: pathlib.Path, problems: list[str]) -> _Pairs:
    for n in ("images.txt", "bounding_boxes.txt", "train_test_split.txt"):
        if not (place / n).is_file():
            problems.append(f"missing: {place / n}")
    return _check_masks(layout, place, problems)


_CHECKS = {"masks": _check_masks, "voc": _check_voc, "coco": _check_coco, "cub": _check_cub}
_ENDS = {
    ".jpg": (b"\xff\xd8", b"\xff\xd9"),
    ".jpeg": (b"\xff\xd8", b"\xff\xd9"),
    ".png": (b"\x89PNG", b"IEND"),
}


def _fault(path: pathlib.Path, deep: bool) -> str | None:
    """What is wrong with a file, or None."""
    if path.suffix == ".xml":
        tail = path.read_bytes().rstrip()
        return None if tail.endswith(b"</annotation>") else f"damaged: {path}"
    head, end = _ENDS.get(path.suffix.lower(), (b"", b""))
    with path.open("rb") as f:
        first = f.read(8)
        f.seek(max(0, path.stat().st_size - 64))
        quick = first.startswith(head) and end in f.read() and bool(first)
    if quick and not deep:
        return None
    try:  # some whole files carry bytes behind their end
        read_labels(path)
    except SempartError as e:
        return f"damaged: {e}"
    return None
