"""Cut-outs and backgrounds drawn by a rule: where nothing was fetched, and for variety of backgrounds.

Only integer arithmetic and Pillow's fixed-point resizing are used, so that a seed gives the same bytes on
every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .ingredients import Background, Cutout, Ingredients, divide

BACKGROUND_KINDS = ("clouds", "horizon", "mosaic", "stripes")
CUTOUT_KINDS = (
    "blob", "branch", "comb", "creature", "cross", "flower", "leaf", "polygon", "ring", "spiral", "star",
)  # fmt: skip


def noise(rng: np.random.Generator, size: tuple[int, int], coarse: int = 3, octaves: int = 5) -> np.ndarray:
    """Value noise with a spectrum that falls as in photographs.

    Parameters
    ----------
    rng : Generator
    size : (int, int)
        ``(H, W)``.
    coarse : int
        Cells of the coarsest octave along the shorter side.
    octaves : int
        Each has twice the cells and half the weight of the one before.

    Returns
    -------
    ndarray
        ``H x W`` uint8 using about the whole range.
    """
    h, w = size
    total = np.zeros((h, w), np.int64)
    for o in range(octaves):
        cells = coarse << o
        gh, gw = cells * h // min(h, w) + 2, cells * w // min(h, w) + 2
        grid = rng.integers(0, 256, (gh, gw), dtype=np.uint8)
        total += np.array(Image.fromarray(grid).resize((w, h), Image.Resampling.BICUBIC), np.int64) << (
            octaves - o
        )
    low, high = int(total.min()), int(total.max())
    return ((total - low) * 255 // max(high - low, 1)).astype(np.uint8)


def colour(rng: np.random.Generator, low: int = 30, high: int = 226) -> np.ndarray:
    """A colour no louder than those of most photographs: a grey and up to 55 of 255 from it."""
    return (rng.integers(low, high) + rng.integers(-55, 56, 3)).clip(0, 255)


def _ramp(level: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mix two colours by ``level`` (``H x W`` uint8)."""
    t = level[..., None].astype(np.int64)
    return ((a * (255 - t) + b * t + 127) // 255).astype(np.uint8)


def background(rng: np.random.Generator, size: tuple[int, int], kind: str | None = None) -> np.ndarray:
    """A background without an object: ``H x W x 3`` uint8; ``kind`` as in BACKGROUND_KINDS."""
    h, w = size
    kind = kind or BACKGROUND_KINDS[int(rng.integers(len(BACKGROUND_KINDS)))]
    a, b = colour(rng), colour(rng)
    grain = noise(rng, size, 24, 2).astype(np.int64)[..., None] // 12 - 10
    if kind == "clouds":
        out = _ramp(noise(rng, size, int(rng.integers(2, 6))), a, b)
    elif kind == "horizon":
        line = h * int(rng.integers(30, 70)) // 100
        level = noise(rng, (1, w), 2, 4)[0].astype(np.int64) * h // 255 // 8
        sky = _ramp(np.repeat((np.arange(h) * 255 // h).astype(np.uint8)[:, None], w, 1), a, b)
        ground = _ramp(noise(rng, size, 6, 6), colour(rng), colour(rng))
        below = np.arange(h)[:, None] > (line + level)[None]
        out = np.where(below[..., None], ground, sky)
    elif kind == "mosaic":
        n = int(rng.integers(12, 60))
        ys, xs = rng.integers(0, h, n), rng.integers(0, w, n)
        d = (np.arange(h)[:, None, None] - ys) ** 2 + (np.arange(w)[None, :, None] - xs) ** 2
        palette = (rng.integers(0, 90, (n, 3)) - 45 + (a + b) // 2).clip(0, 255).astype(np.uint8)
        out = palette[d.argmin(-1)]
    else:
        warp = noise(rng, size, 2, 3).astype(np.int64)
        period = int(rng.integers(14, 60))
        across = np.arange(w)[None] if rng.integers(2) else np.arange(h)[:, None]
        phase = (across * 8 + warp) // 4 % period
        tri = np.abs(2 * phase - period) * 255 // period
        out = _ramp(tri.astype(np.uint8), a, b)
    return (out.astype(np.int64) + grain).clip(0, 255).astype(np.uint8)


def cutout(rng: np.random.Generator, kind: str, side: int = 200) -> np.ndarray:
    """An object of a kind of CUTOUT_KINDS: ``h x w x 4`` uint8, at most ``side`` long, soft at its edge."""
    big = side * 4
    im = Image.new("L", (big, big))
    draw = ImageDraw.Draw(im)
    c = big // 2
    _DRAW[kind](draw, rng, c)
    im = im.resize((side, side), Image.Resampling.BOX)
    a, b = colour(rng), colour(rng)
    rgb = _ramp(noise(rng, (side, side), int(rng.integers(3, 9)), 4), a, b)
    rgba = np.dstack([rgb, np.array(im)])
    seen = rgba[..., 3] > 24
    rows, cols = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    return rgba[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]


def _at(c: int, r: float, turn: float) -> tuple[float, float]:
    return c + r * math.cos(turn), c + r * math.sin(turn)


def _disc(draw, x: float, y: float, r: float) -> None:
    draw.ellipse((x - r, y - r, x + r, y + r), fill=255)


def _outline(draw, rng, c, n: int, low: int, high: int) -> None:
    turns = [math.tau * i / n for i in range(n)]
    draw.polygon([_at(c, c * int(rng.integers(low, high)) / 100, t) for t in turns], fill=255)


def _blob(draw, rng, c) -> None:
    for _ in range(int(rng.integers(4, 8))):
        x, y = (int(v) for v in rng.integers(c * 7 // 10, c * 13 // 10, 2))
        _disc(draw, x, y, int(rng.integers(c // 4, c // 2)))


def _branch(draw, rng, c) -> None:
    def grow(x: float, y: float, turn: float, length: float, width: float) -> None:
        x2, y2 = x + length * math.cos(turn), y + length * math.sin(turn)
        draw.line((x, y, x2, y2), fill=255, width=max(12, round(width)))
        if length > c * 0.16:
            for side in (-1, 1):
                grow(x2, y2, turn + side * int(rng.integers(20, 50)) / 57, length * 0.68, width * 0.7)

    grow(c, 1.9 * c, -math.pi / 2, c * 0.6, c * 0.14)


def _comb(draw, rng, c) -> None:
    n = int(rng.integers(5, 10))
    draw.rectangle((c * 0.2, c * 0.3, c * 1.8, c * 0.6), fill=255)
    for i in range(n):
        x = c * (0.25 + 1.45 * i / (n - 1))
        draw.rectangle((x, c * 0.5, x + c * 0.09, c * int(rng.integers(120, 180)) / 100), fill=255)


def _creature(draw, rng, c) -> None:
    h = c * int(rng.integers(28, 45)) / 100
    draw.ellipse((c * 0.4, c - h, c * 1.5, c + h * 0.8), fill=255)
    _disc(draw, c * 1.6, c - h, c * int(rng.integers(18, 28)) / 100)
    for x in (0.55, 0.75, 1.15, 1.35):
        draw.line((c * x, c, c * (x + int(rng.integers(-10, 10)) / 100), c * 1.8), fill=255, width=c // 9)
    draw.line((c * 0.45, c, c * 0.12, c * int(rng.integers(50, 120)) / 100), fill=255, width=c // 14)


def _cross(draw, rng, c) -> None:
    w, v = (c * int(rng.integers(12, 30)) / 100 for _ in range(2))
    draw.rectangle((c - w, c * 0.1, c + w, c * 1.9), fill=255)
    draw.rectangle((c * 0.1, c - v, c * 1.9, c + v), fill=255)


def _flower(draw, rng, c) -> None:
    n = int(rng.integers(5, 9))
    for i in range(n):
        _disc(draw, *_at(c, c * 0.55, math.tau * i / n), c * 0.32)
    _disc(draw, c, c, c * 0.35)


def _leaf(draw, rng, c) -> None:
    w = c * int(rng.integers(25, 55)) / 100
    draw.ellipse((c - w, c * 0.1, c + w, c * 1.5), fill=255)
    draw.line((c, c, c, c * 1.95), fill=255, width=c // 12)


def _ring(draw, rng, c) -> None:
    r = c * int(rng.integers(35, 70)) / 100
    _disc(draw, c, c, c * 0.9)
    draw.ellipse((c - r, c - r, c + r, c + r), fill=0)


def _spiral(draw, rng, c) -> None:
    n = 140
    pts = [_at(c, c * (0.1 + 0.8 * i / n), 5 * math.pi * i / n) for i in range(n)]
    draw.line(pts, fill=255, width=c * int(rng.integers(10, 18)) // 100, joint="curve")


def _star(draw, rng, c) -> None:
    n = 2 * int(rng.integers(5, 9))
    inner = int(rng.integers(30, 55)) / 100
    draw.polygon([_at(c, c * (0.95 if i % 2 else inner), math.tau * i / n) for i in range(n)], fill=255)


_DRAW = {
    "blob": _blob, "branch": _branch, "comb": _comb, "creature": _creature, "cross": _cross, "flower": _flower,
    "leaf": _leaf, "polygon": lambda d, r, c: _outline(d, r, c, int(r.integers(5, 9)), 60, 98), "ring": _ring,
    "spiral": _spiral, "star": _star,
}  # fmt: skip


@dataclass(frozen=True)
class _Drawn:
    kind: str
    number: int

    def __call__(self) -> np.ndarray:
        return cutout(np.random.default_rng([77, CUTOUT_KINDS.index(self.kind), self.number]), self.kind)


def ingredients(each: int = 20) -> Ingredients:
    """The ingredients of the data set ``demo-procedural``: ``each`` cut-outs of every kind, no photographs."""
    cutouts = [Cutout(f"{k}-{i:02d}", k, _Drawn(k, i)) for k in CUTOUT_KINDS for i in range(each)]
    none: tuple[Background, ...] = ()
    return Ingredients(
        "demo-procedural", divide(cutouts), {"train": none, "held-out": none}, f"procedural-{each}"
    )
