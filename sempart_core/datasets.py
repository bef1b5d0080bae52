"""All data sets by name: composed scenes, real photographs, the papers' benchmarks."""

from __future__ import annotations

import os
from functools import partial

from . import benchmarks, demo, photos
from .errors import SempartError
from .profiles import Profile
from .registry import Card, Registry
from .samples import Dataset, Sample, binarise, read_list

__all__ = ["DATASETS", "Dataset", "Sample", "binarise", "load_dataset", "of_profile", "read_list"]

DATASETS = Registry("data set")


def load_dataset(
    name: str,
    root: str | os.PathLike | None = None,
    split: str | None = None,
    limit: int | None = None,
    list_file: str | os.PathLike | None = None,
    **options,
) -> Dataset:
    """Open a data set; nothing is fetched, and pictures are read when they are asked for.

    Parameters
    ----------
    name : str
        As in ``sempart list datasets``.
    root : path, optional
        Folder of real photographs: the data set's own or the one that holds it. Not used by the demo sets.
    split : str, optional
        The card names them; default: the one that is measured on.
    limit : int, optional
        Only the first pictures.
    list_file : path, optional
        Text file with one name a line, instead of the split's own list.
    **options
        Of one data set only (``void`` of ``folder``, ``seed`` of the demo sets).

    Returns
    -------
    Dataset

    Raises
    ------
    SempartError
        Unknown name, split or option, or files that are not there; the sentence names them and the remedy.
    """
    make = DATASETS[name]
    try:
        if DATASETS.card(name).extra.get("family") == "demo":
            return make(split=split, limit=limit, list_file=list_file, **options)
        return make(root, split=split, limit=limit, list_file=list_file, **options)
    except TypeError as e:
        if "unexpected keyword argument" not in str(e):
            raise
        raise SempartError(f"data set {name} takes no option {str(e).rsplit(' ', 1)[1]}") from e


#: Family of a profile -> what a chapter needs -> data sets and splits.
ROLES: dict[str, dict[str, tuple[tuple[str, str | None], ...]]] = {
    "demo": {
        "train": (("demo", "train"),),
        "masks": (("demo", "test"),),
        "boxes": (("demo", "discovery"),),
        "semantic": (("demo", "test"),),
    },
    "photos": {
        "train": (("photos_train", None),),
        "masks": (("voc2012_animals", "saliency"), ("weizmann_horses", None), ("davis2016_val", None)),
        "boxes": (("voc2012_animals", "discovery"),),
        "semantic": (("voc2012_animals", "semseg"),),
    },
    "paper": {
        "train": (("duts_tr", None),),
        "masks": (("dut_omron", None), ("duts_te", None), ("ecssd", None)),
        "boxes": (("voc07", None), ("voc12", None), ("coco20k", None)),
        "semantic": (("voc12", "semseg"),),
    },
}


def of_profile(cfg: Profile, role: str, limit: int | None = None) -> list[Dataset]:
    """The data sets of a profile, so that a chapter does not name them.

    Parameters
    ----------
    cfg : Profile
        Its ``dataset``, ``data_root`` and ``limit`` are read.
    role : str
        ``train`` (one data set, without labels), ``masks``, ``boxes`` or ``semantic`` (label maps of classes).
    limit : int, optional
        Pictures of each at most; the profile's own limit holds as well.

    Raises
    ------
    SempartError
        Unknown role, or as :func:`load_dataset`.
    """
    roles = ROLES[cfg.dataset]
    if role not in roles:
        raise SempartError(f"unknown role {role!r} of a data set; choose one of: {', '.join(roles)}")
    most = min((n for n in (limit, cfg.limit) if n is not None), default=None)
    return [load_dataset(name, cfg.data_root, split=split, limit=most) for name, split in roles[role]]


def _add(name: str, family: str, what: str, factory, *, splits: str, **card) -> None:
    DATASETS.register(Card(name, what, extra={"family": family, "splits": splits}, **card), factory)


_add(
    "demo", "demo", "Scenes composed of photographed cut-outs on nature, texture and procedural backgrounds.",
    partial(demo.load, "demo"), splits="train 800, test 200, discovery 100",
    source="Debian tuxpaint-stamps-default 2022.06.04-1, mate-backgrounds 1.26.0-1, scikit-image; "
    "composed by sempart_core.scenes",
    licence=demo.LICENCE, labels="exact, from the composition", cost="208 MB to fetch once; scenes are composed when first read",
)  # fmt: skip
_add(
    "demo-procedural", "demo", "The same composition with drawn shapes, where no photographs can be fetched.",
    partial(demo.load, "demo-procedural"), splits="train 800, test 200, discovery 100",
    source="sempart_core.procedural", licence="MIT", labels="exact, from the composition",
    cost="nothing to fetch; scenes are composed when first read",
)  # fmt: skip
_add(
    "voc2012_animals", "photos", "845 VOC2012 photographs with a cat, cow, dog, horse or sheep.",
    photos.voc2012_animals, splits="saliency 616, discovery 845, semseg 445",
    source="PASCAL VOC2012 with the label maps of SBD; lists in book/lists",
    licence="Flickr terms, research use; photographs are not distributed", labels="for measuring only",
)  # fmt: skip
_add(
    "weizmann_horses", "photos", "Side views of horses, photographs and masks.", photos.weizmann_horses,
    splits="all 328", source="Borenstein and Ullman, ECCV 2002", licence="research use", labels="for measuring only",
)  # fmt: skip
_add(
    "davis2016_val", "photos", "Every tenth frame of the 20 validation sequences, 854 x 480.", photos.davis2016_val,
    splits="frames 141", source="Perazzi et al., CVPR 2016", licence="research use", labels="for measuring only",
)  # fmt: skip
_add(
    "photos_train", "photos", "Unlabelled photographs in images/, for training without labels.",
    photos.photos_train, splits="train", source="any folder", licence="as the photographs",
)  # fmt: skip
_add(
    "folder", "photos", "Your own photographs and masks: images/ and masks/, paired by stem.", photos.folder,
    splits="-", source="any folder", licence="as the photographs", labels="for measuring only",
)  # fmt: skip
for _name, _what, _splits, _source in (
    ("duts_tr", "Training part of DUTS; the papers train on its photographs without masks.", "train 10,553",
     "Wang et al., CVPR 2017"),
    ("duts_te", "Test part of DUTS.", "test 5,019", "Wang et al., CVPR 2017"),
    ("dut_omron", "Photographs with one or more salient objects on complex ground.", "test 5,168",
     "Yang et al., CVPR 2013"),
    ("ecssd", "Structurally complex photographs.", "test 1,000", "Shi et al., TPAMI 2016"),
    ("voc07", "Single object discovery on VOC2007.", "trainval 5,011", "Everingham et al., IJCV 2010"),
    ("voc12", "Single object discovery on VOC2012; label maps of its segmentation list.",
     "trainval 11,540, semseg 1,449", "Everingham et al., IJCV 2010"),
    ("coco20k", "19,817 photographs of COCO train2014, the list LOST uses.", "train2014 19,817",
     "Lin et al., ECCV 2014; list: LOST"),
    ("cub200", "200 species of birds, with masks and boxes.", "test 5,794, train 5,994, all 11,788",
     "Wah et al., 2011"),
):  # fmt: skip
    _add(
        _name, "paper", _what, partial(benchmarks.load, _name), splits=_splits, source=_source,
        licence="research use, see sempart fetch", labels="for measuring only",
    )  # fmt: skip
