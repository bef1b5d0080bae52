"""Download the papers' data sets, and verify what lies in their folders.

``python -m data_scripts.paper_sets fetch NAME --root FOLDER`` and ``... verify NAME --root FOLDER [--deep]``.
An interrupted download goes on where it stopped; an interrupted unpacking is done again from the whole archive.
Checksums are those other projects publish beside the same addresses; where none is known this is said, and the
count and the pairing of files are all that tells.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from sempart_core.benchmarks import COCO20K_MD5, SETS, Layout, coco20k_names, voc_names
from sempart_core.errors import SempartError
from sempart_core.images import read_labels
from sempart_core.paths import cache_dir
from sempart_core.samples import by_stem, find_root

from . import fetch as layer
from .archives import unpack_tar, unpack_zip


@dataclass(frozen=True)
class Part:
    """One file to download.

    Parameters
    ----------
    url : str
        Address.
    into : str
        Folder below the root it is unpacked (or put) into.
    md5 : str, optional
        Published checksum, with its source in the comment beside it.
    """

    url: str
    into: str
    md5: str | None = None

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


_DUTS = "http://saliencydetection.net/duts/download/"
_OMRON = "http://saliencydetection.net/dut-omron/download/"
_ECSSD = "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/data/ECSSD/"
_VOC = "http://host.robots.ox.ac.uk/pascal/VOC/"
_COCO = "http://images.cocodataset.org/"
_LOST = "https://raw.githubusercontent.com/valeoai/LOST/fcedbecb644f18358a660ce58c739cc6374feda8/"
_CUB = "https://data.caltech.edu/records/"

PARTS: dict[str, tuple[Part, ...]] = {
    "duts_tr": (Part(_DUTS + "DUTS-TR.zip", ""),),
    "duts_te": (Part(_DUTS + "DUTS-TE.zip", ""),),
    "dut_omron": (
        Part(_OMRON + "DUT-OMRON-image.zip", "DUT-OMRON"),
        Part(_OMRON + "DUT-OMRON-gt-pixelwise.zip.zip", "DUT-OMRON"),
    ),
    "ecssd": (Part(_ECSSD + "images.zip", "ECSSD"), Part(_ECSSD + "ground_truth_mask.zip", "ECSSD")),
    # md5 of both: torchvision/datasets/voc.py
    "voc07": (Part(_VOC + "voc2007/VOCtrainval_06-Nov-2007.tar", "", "c52e279531787c972589f7e41ab4ae64"),),
    "voc12": (Part(_VOC + "voc2012/VOCtrainval_11-May-2012.tar", "", "6cd6e144f989b92b3379bac3b3de84fd"),),
    "coco20k": (
        # md5 of both archives: several projects publish the same, e.g. salesforce/LAVIS (images)
        Part(_COCO + "zips/train2014.zip", "COCO", "0da8c0bd3d6becc4dcb32757491aca88"),
        Part(_COCO + "annotations/annotations_trainval2014.zip", "COCO", "0a379cfc70b0e71301e0f377548639bd"),
        Part(_LOST + "datasets/coco_20k_filenames.txt", "COCO", COCO20K_MD5),
    ),
    "cub200": (
        # md5: several projects publish the same, e.g. TDeVries/cub2011_dataset
        Part(_CUB + "65de6-vp158/files/CUB_200_2011.tgz", "", "97eceeb196236b17998738112f37df78"),
        Part(_CUB + "w9d68-gec53/files/segmentations.tgz", "CUB_200_2011"),
    ),
}

_RESEARCH = "for research; its photographs belong to their makers and may not be passed on"
NOTICES = {
    "duts_tr": f"DUTS (Wang et al., CVPR 2017) is offered {_RESEARCH} (they come from ImageNet and SUN).",
    "duts_te": f"DUTS (Wang et al., CVPR 2017) is offered {_RESEARCH} (they come from ImageNet and SUN).",
    "dut_omron": f"DUT-OMRON (Yang et al., CVPR 2013) is offered {_RESEARCH}.",
    "ecssd": f"ECSSD (Shi et al., TPAMI 2016) is offered {_RESEARCH}.",
    "voc07": f"PASCAL VOC2007 is offered {_RESEARCH}; Flickr's terms of use apply.",
    "voc12": f"PASCAL VOC2012 is offered {_RESEARCH}; Flickr's terms of use apply.",
    "coco20k": "COCO's annotations are under CC BY 4.0; Flickr's terms of use apply to its photographs.",
    "cub200": f"CUB-200-2011 (Wah et al., 2011) is offered {_RESEARCH}; not for commerce.",
}


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


def _known(name: str) -> Layout:
    if name not in SETS:
        raise SempartError(f"unknown data set {name!r}; choose one of: {', '.join(SETS)}")
    return SETS[name]


def default_root() -> pathlib.Path:
    """Where data sets go if no folder is given."""
    return cache_dir() / "datasets"


def fetch(name: str, root: str | os.PathLike | None = None) -> pathlib.Path:
    """Download, unpack and verify one data set; what is whole already is kept.

    Parameters
    ----------
    name : str
        As in :data:`PARTS`.
    root : path, optional
        Folder that shall hold the data set's folder; default: ``datasets`` in the cache.

    Returns
    -------
    Path
        The data set's folder.

    Raises
    ------
    SempartError
        A server does not answer, a checksum is wrong, or files are missing after unpacking.
    """
    layout = _known(name)
    root = pathlib.Path(root).expanduser() if root else default_root()
    root.mkdir(parents=True, exist_ok=True)
    try:
        if (report := verify(name, root)).ok:
            return report.place
    except SempartError:
        pass  # not there yet
    layer.say(f"{name}: {NOTICES[name]}")
    archives = []
    for part in PARTS[name]:
        to_keep = not part.file.endswith((".zip", ".tar", ".tgz"))
        dest = (root / part.into if to_keep else root / ".downloads" / name) / part.file
        layer.http(part.url, dest, md5=part.md5)
        if not to_keep:
            _unpack(dest, root / part.into)
            archives.append(dest)
    report = verify(name, root)
    if not report.ok:
        raise SempartError(f"{report}\nRemove {report.place} and run 'sempart fetch {name}' again")
    for a in archives:
        a.unlink()
    if layout.folders:
        shutil.rmtree(root / ".downloads" / name, ignore_errors=True)
    return report.place


def _unpack(archive: pathlib.Path, dest: pathlib.Path) -> None:
    """Unpack beside the destination, then move into it."""
    fresh = archive.with_name(archive.name + ".unpacked")
    shutil.rmtree(fresh, ignore_errors=True)  # of an interrupted run
    layer.say(f"{archive.name}: unpacking")
    (unpack_zip if archive.suffix == ".zip" else unpack_tar)(archive, fresh)
    shutil.rmtree(fresh / "__MACOSX", ignore_errors=True)
    _merge(fresh, dest)


def _merge(source: pathlib.Path, dest: pathlib.Path) -> None:
    """Move a tree into another; files of the source win."""
    dest.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        target = dest / entry.name
        if entry.is_dir() and target.is_dir():
            _merge(entry, target)
        else:
            os.replace(entry, target)
    source.rmdir()


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
    layout = _known(name)
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


def main(argv: list[str] | None = None) -> int:
    """``python -m data_scripts.paper_sets``; exit code 2 if anything is missing or damaged."""
    parser = argparse.ArgumentParser(
        prog="python -m data_scripts.paper_sets", description=__doc__.split("\n")[0]
    )
    parser.add_argument("action", choices=["fetch", "verify"])
    parser.add_argument("name", choices=list(SETS))
    parser.add_argument("--root", help="folder that holds, or shall hold, the data set's folder")
    parser.add_argument("--deep", action="store_true", help="verify: decode every picture")
    args = parser.parse_args(argv)
    try:
        if args.action == "fetch":
            print(fetch(args.name, args.root))
            return 0
        report = verify(args.name, args.root or default_root(), deep=args.deep)
    except SempartError as e:
        print(e, file=sys.stderr)
        return 2
    print(report)
    return 0 if report.ok else 2


if __name__ == "__main__":
    sys.exit(main())
