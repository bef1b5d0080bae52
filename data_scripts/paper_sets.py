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
from dataclasses import dataclass

from sempart_core.benchmarks import COCO20K_MD5, SETS
from sempart_core.errors import SempartError
from sempart_core.paths import cache_dir, ensure

from . import fetch as layer
from .archives import unpack_tar, unpack_zip
from .verification import known, verify


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
    layout = known(name)
    if root:
        root = ensure(pathlib.Path(root).expanduser(), "give a folder that can be written with --root")
    else:
        root = ensure(default_root())
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
