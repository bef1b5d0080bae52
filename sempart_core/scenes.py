"""Composing a demo scene: background, shadow, one to four cut-outs; with exact matte, boxes and controls.

A scene is a function of (ingredients, split, index, seed) alone, so four scenes can be made without the
other thousand, in any order and any process, byte for byte the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

from . import procedural
from .errors import SempartError
from .ingredients import Background, Cutout, Ingredients

#: Changes whenever a scene's bytes change; part of the cache folder's name and of every list hash.
VERSION = 2
#: Number of scenes of each split, and the part of the ingredients it may show.
SPLITS = {"train": (800, "train"), "test": (200, "held-out"), "discovery": (100, "held-out")}
#: Share of the frame an object may take.
SMALLEST, LARGEST = 0.02, 0.60
#: Frames, (height, width).
FRAMES = ((240, 320), (300, 400), (270, 360), (256, 384), (320, 320), (320, 240), (384, 256), (400, 300))
_UPSCALE = 2.0


@dataclass(frozen=True)
class Scene:
    """One composed picture.

    Parameters
    ----------
    name : str
        ``test-0007``.
    image : ndarray
        ``H x W x 3`` uint8: ``(alpha * foreground + (255 - alpha) * background) / 255``, rounded.
    alpha : ndarray
        ``H x W`` uint8, the exact matte of all objects together.
    instances : ndarray
        ``H x W`` uint8: 0, or 1 + the number of the object seen there; not 0 exactly where alpha > 127.
    boxes : ndarray
        ``n x 4`` float64, of the visible part of each object; right and bottom exclusive.
    classes : tuple of int
        Class id of each object, 1 .. number of classes.
    meta : dict
        Names of the ingredients and the controls: ``size`` (share of the frame), ``thin``, ``contrast``,
        ``clutter`` (see :func:`controls`), ``overlap`` (largest share of an object hidden by another), ``cut``
        (largest share beyond the frame).
    background, foreground : ndarray, optional
        The layers; absent in scenes read from the cache.
    """

    name: str
    image: np.ndarray
    alpha: np.ndarray
    instances: np.ndarray
    boxes: np.ndarray
    classes: tuple[int, ...]
    meta: dict = field(default_factory=dict)
    background: np.ndarray | None = field(default=None, repr=False)
    foreground: np.ndarray | None = field(default=None, repr=False)

    @property
    def mask(self) -> np.ndarray:
        """``H x W`` bool: alpha above one half."""
        return self.alpha > 127


@dataclass
class _Layer:
    """An object at its place in the frame."""

    cutout: Cutout
    rgb: np.ndarray
    alpha: np.ndarray
    cut: float  # share of the object beyond the frame


def names(split: str) -> list[str]:
    """Names of a split's scenes; SempartError on an unknown split."""
    if split not in SPLITS:
        raise SempartError(f"demo has no split {split!r}; choose one of: {', '.join(SPLITS)}")
    return [f"{split}-{i:04d}" for i in range(SPLITS[split][0])]


def compose(parts: Ingredients, split: str, index: int, seed: int = 0) -> Scene:
    """Compose one scene.

    Parameters
    ----------
    parts : Ingredients
        What may be shown.
    split : str
        ``train``, ``test`` (one object each) or ``discovery`` (one to four, some overlapping).
    index : int
        Number of the scene in its split.
    seed : int
        Of the whole data set.

    Returns
    -------
    Scene
    """
    name = names(split)[index]
    side = list(SPLITS).index(split)
    part = SPLITS[split][1]
    rng = np.random.default_rng([seed, side, index, VERSION])
    size = FRAMES[int(rng.integers(len(FRAMES)))]
    back, back_name = _background(parts.backgrounds[part], rng, size)
    count = 1 if split != "discovery" else int(rng.choice([1, 2, 3, 4], p=[0.15, 0.35, 0.3, 0.2]))
    pool = parts.cutouts[part]
    layers: list[_Layer] = []
    for tries in range(40 * count):
        if len(layers) == count:
            break
        # the pool is dealt like cards, so that every object appears about equally often
        deal = index * 4 + len(layers) + tries if split == "discovery" else index + 7 * tries
        order = np.random.default_rng([seed, side, deal // len(pool), VERSION]).permutation(len(pool))
        layer = _place(pool[int(order[deal % len(pool)])], back, rng, size, crowded=count > 1, others=layers)
        if layer is not None and _all_seen([*layers, layer], size):
            layers.append(layer)
    if not layers:
        raise SempartError(f"scene {name}: no object fits the frame; the cut-outs are too thin")
    shaded = _shadow(back, layers, rng)
    return _assemble(name, shaded, layers, parts.class_names, {"background": back_name})


def _background(choices: tuple[Background, ...], rng, size: tuple[int, int]) -> tuple[np.ndarray, str]:
    """Half photographs, a quarter textures, a quarter procedural (all procedural if there is no choice)."""
    draw = rng.random()
    kind = "nature" if draw < 0.5 else "texture" if draw < 0.75 else ""
    some = [b for b in choices if b.kind == kind]
    if not some:
        family = procedural.BACKGROUND_KINDS[int(rng.integers(len(procedural.BACKGROUND_KINDS)))]
        return procedural.background(rng, size, family), f"procedural/{family}"
    b = some[int(rng.integers(len(some)))]
    picture = b.load()
    (h, w), (H, W) = picture.shape[:2], size
    fit = min(h / H, w / W)  # the largest window of the frame's aspect
    f = fit * (0.5 + 0.5 * rng.random())
    ch, cw = max(1, int(H * f)), max(1, int(W * f))
    y, x = int(rng.integers(h - ch + 1)), int(rng.integers(w - cw + 1))
    crop = Image.fromarray(picture[y : y + ch, x : x + cw]).resize((W, H), Image.Resampling.LANCZOS)
    out = np.array(crop)
    if rng.integers(2):
        out = out[:, ::-1]
    if b.kind == "texture":  # grey: tinted between two colours
        dark, light = procedural.colour(rng, 10, 80), procedural.colour(rng, 140, 230)
        t = out.astype(np.int64)
        out = ((dark * (255 - t) + light * t + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(out), f"{b.kind}/{b.name}"


def _place(
    cutout: Cutout, back: np.ndarray, rng, size: tuple[int, int], crowded: bool, others: list[_Layer]
) -> _Layer | None:
    """Flip, turn, scale, recolour and put a cut-out somewhere; None if its size cannot be had."""
    H, W = size
    im = Image.fromarray(cutout.load())
    if rng.integers(2):
        im = im.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.integers(2):
        im = im.rotate(int(rng.integers(-15, 16)), Image.Resampling.BICUBIC, expand=True)
    im = im.crop(im.getchannel("A").point(lambda v: 255 * (v > 24)).getbbox())
    area = int((np.array(im)[..., 3] > 127).sum())
    if area < 50:
        return None
    largest = 0.25 if crowded else LARGEST
    # uniform in the object's side, not in its area: small ones are as frequent as in photographs
    low, high = SMALLEST**0.5, largest**0.5
    goal = (low + (high - low) * rng.random()) ** 2 * H * W
    cut = not crowded and rng.random() < 0.2  # a fifth of the single objects leave the frame a little
    room = min(W / im.width, H / im.height) * (1.5 if cut else 0.97)
    needed = (1.15 * SMALLEST * H * W / area) ** 0.5
    scale = max(min((goal / area) ** 0.5, room, _UPSCALE), min(needed, room))
    w, h = max(2, round(im.width * scale)), max(2, round(im.height * scale))
    im = im.resize((w, h), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    x, y = _position(rng, w, h, W, H, cut, others)
    full = Image.new("RGBA", (W, H))
    full.paste(im, (x, y))
    rgba = np.array(full)
    seen, whole = int((rgba[..., 3] > 127).sum()), int((np.array(im)[..., 3] > 127).sum())
    if not SMALLEST * H * W <= seen <= LARGEST * H * W:
        return None
    return _Layer(cutout, _recolour(rgba, back, rng), rgba[..., 3], 1 - seen / whole)


def _position(rng, w: int, h: int, W: int, H: int, cut: bool, others: list[_Layer]) -> tuple[int, int]:
    if others and rng.random() < 0.5:  # beside or over the object placed last
        ys, xs = np.nonzero(others[-1].alpha > 127)
        dx, dy = (int(rng.integers(-45, 46)) for _ in range(2))
        x = int(xs.mean()) + dx * (w + int(np.ptp(xs))) // 100 - w // 2
        y = int(ys.mean()) + dy * (h + int(np.ptp(ys))) // 100 - h // 2
        return min(max(x, 0), max(W - w, 0)), min(max(y, 0), max(H - h, 0))
    out = (w // 4, h // 4) if cut else (0, 0)
    x_low, x_high = min(-out[0], W - w), max(W - w + out[0], 0)
    y_low, y_high = min(-out[1], H - h), max(H - h + out[1], 0)
    if not cut:
        x_low, y_low, x_high, y_high = 0, 0, max(W - w, 0), max(H - h, 0)
    return int(rng.integers(x_low, x_high + 1)), int(rng.integers(y_low, y_high + 1))


def _recolour(rgba: np.ndarray, back: np.ndarray, rng) -> np.ndarray:
    """Brightness, and in a third of the scenes a step of the mean colour towards the background's."""
    rgb = rgba[..., :3].astype(np.int64) * int(rng.integers(85, 116)) // 100
    if rng.random() < 1 / 3:
        step = int(rng.integers(20, 61))
        solid = rgba[..., 3] > 127
        gap = (
            back.reshape(-1, 3).astype(np.int64).sum(0) // back[..., 0].size
            - rgb[solid].sum(0) // solid.sum()
        )
        rgb = rgb + gap * step // 100
    return rgb.clip(0, 255).astype(np.uint8)


def _visible(layers: list[_Layer]) -> list[np.ndarray]:
    """Matte of what is seen of each object (later ones lie on top), ``H x W`` int64 in 0 .. 255."""
    left = np.full(layers[0].alpha.shape, 255, np.int64)
    seen = []
    for layer in reversed(layers):
        a = (left * layer.alpha + 127) // 255
        seen.append(a)
        left = left - a
    return seen[::-1]


def _all_seen(layers: list[_Layer], size: tuple[int, int]) -> bool:
    """Whether at least 2 % of the frame and half of every object stay visible, and at most 60 % are covered."""
    seen = _visible(layers)
    total = size[0] * size[1]
    for layer, a in zip(layers, seen, strict=True):
        n = int((a > 127).sum())
        if n < SMALLEST * total * 1.001 or 2 * n < int((layer.alpha > 127).sum()):
            return False
    return int((sum(seen) > 127).sum()) <= LARGEST * total


def _shadow(back: np.ndarray, layers: list[_Layer], rng) -> np.ndarray:
    """A soft shadow on the background, in half of the scenes."""
    strength = int(rng.integers(20, 50)) if rng.integers(2) else 0
    dx, dy, soft = int(rng.integers(-10, 11)), int(rng.integers(2, 12)), int(rng.integers(3, 9))
    if not strength:
        return back
    alpha = Image.fromarray((255 - np.prod([1 - a.alpha / 255 for a in layers], 0) * 255).astype(np.uint8))
    moved = Image.new("L", alpha.size)
    moved.paste(alpha, (dx, dy))
    s = np.array(moved.filter(ImageFilter.GaussianBlur(soft)), np.int64)[..., None]
    return (back.astype(np.int64) * (25500 - strength * s) // 25500).astype(np.uint8)


def _assemble(name: str, back: np.ndarray, layers: list[_Layer], class_names, meta: dict) -> Scene:
    seen = _visible(layers)
    alpha = sum(seen)
    fore = sum(a[..., None] * layer.rgb.astype(np.int64) for a, layer in zip(seen, layers, strict=True))
    fore = (fore + alpha[..., None] // 2) // np.maximum(alpha[..., None], 1)
    image = (alpha[..., None] * fore + (255 - alpha[..., None]) * back + 127) // 255
    instances = np.where(alpha > 127, 1 + np.stack(seen).argmax(0), 0).astype(np.uint8)
    keep = [i for i in range(len(layers)) if (instances == i + 1).any()]
    hidden = [
        1 - float((instances == i + 1).sum()) / float((layers[i].alpha > 127).sum())
        for i in range(len(layers))
    ]
    meta = {
        **meta,
        "cutouts": [layers[i].cutout.name for i in keep],
        "overlap": round(max(0.0, *hidden), 4),
        "cut": round(max(layer.cut for layer in layers), 4),
        **controls(image.astype(np.uint8), alpha > 127),
    }
    return Scene(
        name=name,
        image=image.astype(np.uint8),
        alpha=alpha.astype(np.uint8),
        instances=instances,
        boxes=np.array([tight_box(instances == i + 1) for i in keep], np.float64),
        classes=tuple(class_names.index(layers[i].cutout.class_name) for i in keep),
        meta=meta,
        background=back,
        foreground=fore.astype(np.uint8),
    )


def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """``(x_min, y_min, x_max, y_max)`` of a mask that is not empty, right and bottom exclusive."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def controls(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """What makes a scene hard, each rounded to 4 digits.

    Parameters
    ----------
    image : ndarray
        ``H x W x 3`` uint8.
    mask : ndarray
        ``H x W`` bool, not empty.

    Returns
    -------
    dict
        ``size``: share of the frame in the mask. ``thin``: share of the mask that an opening with a disc of
        1.5 % of the frame's mean side (at least 2 pixels) removes; 0 for a disc, 1 for a grid of wires.
        ``contrast``: distance between the mean colour of the mask and of a ring of 12 pixels around it, in
        units of the whole 8-bit range per channel (0 to sqrt 3). ``clutter``: mean absolute difference of
        neighbouring grey values outside the mask, as a fraction of the 8-bit range.
    """
    H, W = mask.shape
    r = max(2, round(0.015 * (H * W) ** 0.5))
    y, x = np.ogrid[-r : r + 1, -r : r + 1]
    padded = np.pad(mask, r, mode="edge")  # an object cut by the frame is not thin there
    opened = ndimage.binary_opening(padded, x * x + y * y <= r * r)[r:-r, r:-r]
    ring = (ndimage.distance_transform_edt(~mask) <= 12) & ~mask
    outside = ring if ring.any() else mask
    rgb = image.astype(np.float64) / 255
    gap = rgb[mask].mean(0) - rgb[outside].mean(0)
    grey = rgb.mean(-1)
    dy = np.abs(np.diff(grey, axis=0))[:, :-1]
    dx = np.abs(np.diff(grey, axis=1))[:-1]
    free = ~ndimage.binary_dilation(mask, iterations=2)[:-1, :-1]
    clutter = float((dx + dy)[free].mean() / 2) if free.any() else 0.0
    found = {
        "size": mask.mean(),
        "thin": 1 - (opened & mask).sum() / mask.sum(),
        "contrast": float(np.sqrt((gap**2).sum())),
        "clutter": clutter,
    }
    return {k: round(float(v), 4) for k, v in found.items()}
