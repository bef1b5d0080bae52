"""What demo scenes are made of: cut-outs with transparency and backgrounds, fetched or procedural.

The fetched ones are photographs of Debian's ``tuxpaint-stamps-default`` (GPL-2) and ``mate-backgrounds``
(GPL-2 or later) below ``<assets>/tuxpaint`` and ``<assets>/mate``, and three textures that scikit-image
ships. Both cut-outs and backgrounds are divided: what a training scene shows, no other scene shows.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from .errors import SempartError

#: Folders of the stamps left out: drawings, signs, and what has no outline of its own.
_LEFT_OUT = {"cartoon", "symbols", "houses", "flags", "roadsigns", "seasonal", "space", "naturalforces"}
#: Drawings, silhouettes, fragments and doubles that stand among the photographs.
_DRAWINGS = {
    "animals/insects/bee", "animals/mammals/echidna", "animals/mammals/hedgehog", "clothes/button",
    "clothes/hats/blue_fedora", "clothes/hats/feathered_hat", "clothes/hats/green_fedora",
    "clothes/hats/propeller_hat", "clothes/hats/sombrero", "food/pizza", "household/arttools/highlighter",
    "household/dishes/glass", "household/key", "medical/tooth", "military/fireman240a", "people/body_parts/eye",
    "people/fireman200b", "sports/rugby_goal_posts", "town/monuments/inukshuk-outline",
    "vehicles/emergency/sedan_police",
}  # fmt: skip
#: First matching folder decides the class.
_CLASSES = (
    ("animals/birds", "bird"), ("animals/fish", "fish"), ("animals/shellfish", "fish"),
    ("animals/insects", "critter"), ("animals/amphibians", "critter"), ("animals/lizards", "critter"),
    ("animals/mammals/bovines", "hoofed"), ("animals/mammals/deer", "hoofed"),
    ("animals/mammals/equines", "hoofed"), ("animals/mammals/camel", "hoofed"),
    ("animals/mammals/bears/toys", "figure"), ("animals", "mammal"),
    ("food/fruit", "fruit"), ("food/nuts", "fruit"), ("food", "vegetable"),
    ("plants/flowers", "flower"), ("plants", "plant"),
    ("household/tools", "tool"), ("household/arttools", "tool"), ("medical", "tool"),
    ("military/ammunition", "tool"), ("hobbies/music", "music"), ("sports", "sport"),
    ("military/vehicles", "vehicle"), ("vehicles", "vehicle"),
    ("people", "figure"), ("military", "figure"),
    ("household", "household"), ("clothes", "household"), ("hobbies", "household"), ("town", "household"),
)  # fmt: skip
#: Nature photographs with the part that shows no object of its own (left, top, right, bottom as fractions).
_NATURE = {
    "train": {
        "Aqua": (0, 0, 0.52, 1), "Blinds": (0, 0, 1, 1), "FreshFlower": (0, 0, 1, 0.6), "Garden": (0, 0, 0.5, 0.6),
        "GreenMeadow": (0, 0, 1, 1), "Wood": (0, 0, 1, 1),
    },
    "held-out": {
        "Dune": (0, 0, 1, 1), "LadyBird": (0.1, 0.45, 0.62, 1), "RainDrops": (0, 0, 1, 1), "Storm": (0, 0, 1, 1),
        "TwoWings": (0, 0, 0.5, 1),
    },
}  # fmt: skip
_TEXTURES = {"train": ("brick", "gravel"), "held-out": ("grass",)}


@dataclass(frozen=True)
class Cutout:
    """An object to paste: ``load()`` gives ``h x w x 4`` uint8 RGBA, cropped to what is visible."""

    name: str
    class_name: str
    load: Callable[[], np.ndarray] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Background:
    """A picture without an object: ``load()`` gives ``h x w x 3`` uint8; grey textures may be tinted."""

    name: str
    kind: str
    load: Callable[[], np.ndarray] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Ingredients:
    """Everything a scene may show, in two parts: ``"train"`` and ``"held-out"`` (test and discovery).

    Parameters
    ----------
    name : str
        ``demo`` or ``demo-procedural``, the dataset's name in every row.
    cutouts, backgrounds : dict
        Part to a tuple of :class:`Cutout` or :class:`Background`.
    version : str
        Hash of what the parts are made from.
    """

    name: str
    cutouts: dict[str, tuple[Cutout, ...]]
    backgrounds: dict[str, tuple[Background, ...]]
    version: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by id; 0 is the background."""
        return ("background", *sorted({c.class_name for part in self.cutouts.values() for c in part}))


def stamp_class(path: str) -> str | None:
    """Class of a stamp by its path below ``stamps/``, or None if it is left out.

    >>> stamp_class("animals/birds/crow.png"), stamp_class("animals/birds/cartoon/crow.png")
    ('bird', None)
    """
    p = pathlib.PurePosixPath(path)
    key = str(p.with_suffix(""))
    drawn = key in _DRAWINGS or (key.startswith("clothes/") and p.stem.startswith("t_"))
    if p.suffix != ".png" or drawn or _LEFT_OUT & set(p.parts[:-1]) or "mirror" in p.stem:
        return None
    return next((c for folder, c in _CLASSES if key.startswith(folder + "/")), None)


def wanted(path: str) -> bool:
    """Whether a member of either Debian package is of use (or is its copyright file)."""
    stamps, nature = "usr/share/tuxpaint/stamps/", "usr/share/backgrounds/mate/nature/"
    if path.startswith(stamps):
        return stamp_class(path.removeprefix(stamps)) is not None
    return (path.startswith(nature) and path.endswith(".jpg")) or path.endswith("/copyright")


def divide(cutouts: Sequence[Cutout], share: float = 0.6) -> dict[str, tuple[Cutout, ...]]:
    """Divide each class by a hash of the names, so that adding a cut-out moves few others."""
    parts: dict[str, list[Cutout]] = {"train": [], "held-out": []}
    for name in sorted({c.class_name for c in cutouts}):
        group = [c for c in cutouts if c.class_name == name]
        group.sort(key=lambda c: hashlib.sha256(c.name.encode()).hexdigest())
        n = round(share * len(group))
        parts["train"] += group[:n]
        parts["held-out"] += group[n:]
    return {k: tuple(v) for k, v in parts.items()}


def fetched(assets: pathlib.Path, version: str) -> Ingredients:
    """The ingredients of the data set ``demo`` below the folder ``assets``.

    Raises
    ------
    SempartError
        A photograph that should be there is missing.
    """
    stamps = assets / "tuxpaint" / "usr" / "share" / "tuxpaint" / "stamps"
    nature = assets / "mate" / "usr" / "share" / "backgrounds" / "mate" / "nature"
    files = {p.relative_to(stamps).as_posix(): p for p in sorted(stamps.rglob("*.png"))}
    cutouts = [
        Cutout(n.removesuffix(".png"), c, _Stamp(p)) for n, p in files.items() if (c := stamp_class(n))
    ]
    backgrounds = {}
    for part, photos in _NATURE.items():
        loaders = [Background(n, "nature", _Photo(nature / f"{n}.jpg", w)) for n, w in photos.items()]
        loaders += [Background(n, "texture", _Texture(n)) for n in _TEXTURES[part]]
        backgrounds[part] = tuple(loaders)
    missing = [b.load.path for part in backgrounds.values() for b in part if b.kind == "nature"]
    missing = [p for p in missing if not p.is_file()]
    if missing or len(cutouts) < 100:
        what = missing[0] if missing else stamps
        raise SempartError(f"{what} is missing: delete {assets} and run 'sempart fetch demo' again")
    return Ingredients("demo", divide(cutouts), backgrounds, version)


@dataclass(frozen=True)
class _Stamp:
    path: pathlib.Path

    def __call__(self) -> np.ndarray:
        with Image.open(self.path) as im:
            return tidy(np.array(im.convert("RGBA")))


def tidy(rgba: np.ndarray, side: int = 480) -> np.ndarray:
    """Remove specks (islands below 1 % of the object), crop to the visible part, limit the longer side."""
    labels, n = ndimage.label(rgba[..., 3] > 24, np.ones((3, 3)))
    if n > 1:
        sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, n + 1))
        small = 1 + np.flatnonzero(sizes < 0.01 * sizes.sum())
        rgba = rgba.copy()
        rgba[np.isin(labels, small)] = 0
    visible = rgba[..., 3] > 24
    rows, cols = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    rgba = rgba[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    im = Image.fromarray(rgba)
    if max(im.size) > side:
        f = side / max(im.size)
        im = im.resize((max(1, round(im.width * f)), max(1, round(im.height * f))), Image.Resampling.LANCZOS)
    return np.array(im)


@lru_cache(maxsize=16)
def _reduced(path: pathlib.Path, window: tuple[float, float, float, float]) -> np.ndarray:
    with Image.open(path) as im:
        im = im.convert("RGB")
        w, h = im.size
        im = im.crop((round(window[0] * w), round(window[1] * h), round(window[2] * w), round(window[3] * h)))
        f = 700 / min(im.size)
        if f < 1:
            im = im.resize((round(im.width * f), round(im.height * f)), Image.Resampling.BOX)
        return np.array(im)


@dataclass(frozen=True)
class _Photo:
    path: pathlib.Path
    window: tuple[float, float, float, float]

    def __call__(self) -> np.ndarray:
        return _reduced(self.path, self.window)


@dataclass(frozen=True)
class _Texture:
    name: str

    def __call__(self) -> np.ndarray:
        import skimage.data

        grey = getattr(skimage.data, self.name)()
        return np.repeat(grey[..., None], 3, axis=2) if grey.ndim == 2 else grey
