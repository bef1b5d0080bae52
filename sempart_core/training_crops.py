"""Windows of the photographs of a training, enlarged: fixed ones with their features, or new ones at each step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .backbones import Backbone
from .errors import SempartError
from .extraction import extract
from .images import to_tensor
from .multiscale import CROPS, Zoomed, crop_windows, crop_zoom


@dataclass(frozen=True)
class CropSet:
    """``k`` windows of each of ``n`` photographs.

    Parameters
    ----------
    name : str
        Rule of :data:`~sempart_core.multiscale.CROPS`.
    x : Tensor
        ``n x k x N x D`` features, half precision.
    images : Tensor or None
        ``n x k x 3 x H x W`` uint8.
    windows : Tensor
        ``n x k x 4``.
    size : (int, int)
        ``(H, W)`` of the input.
    """

    name: str
    x: Tensor
    images: Tensor | None
    windows: Tensor
    size: tuple[int, int]

    @property
    def each(self) -> int:
        """Windows of one photograph."""
        return self.x.shape[1]

    def batch(self, index: Tensor, seed: int, device: torch.device, pixels: bool = True) -> Zoomed:
        """One window of each of the photographs ``index``, chosen by ``seed``."""
        draw = torch.Generator().manual_seed(seed)
        k = torch.randint(self.each, (len(index),), generator=draw)
        images = None
        if pixels and self.images is not None:
            images = self.images[index, k].to(device).float() / 255
        x = self.x[index, k].to(device).float()
        return Zoomed(x, images, self.windows[index, k], self.size)


class CropBuilder:
    """Fills a :class:`CropSet` batch by batch while the photographs pass by."""

    def __init__(self, name: str, each: int, n: int, backbone: Backbone, pixels: bool) -> None:
        if isinstance(each, bool) or not isinstance(each, int) or each < 1:
            raise SempartError(f"crops_each={each!r}: give a whole number of at least 1")
        self.native = CROPS.card(name).extra["pixels"] == "photograph"
        self.name, self.each, self.n, self.backbone, self.pixels = name, each, n, backbone, pixels
        self.done, self.x, self.images, self.windows = 0, None, None, None

    def add(self, images: Tensor, pictures: list[np.ndarray], feature: str | None, cache: bool) -> None:
        """``B x 3 x H x W`` in [0, 1], and the photographs ``H x W x 3`` uint8 behind them."""
        size, B = tuple(images.shape[-2:]), len(images)
        place = slice(self.done, self.done + B)
        # The windows belong to the data, not to a training: a photograph's place in the list decides them.
        places = range(self.done, self.done + B)
        drawn = [crop_windows(self.name, size, self.each, torch.Generator().manual_seed(i)) for i in places]
        for k, windows in enumerate(torch.stack(drawn, 1)):
            if self.native:
                cut = [_cut(p, w, size) for p, w in zip(pictures, windows.tolist(), strict=True)]
                zoomed = to_tensor(cut, size)
            else:
                zoomed = crop_zoom(images, windows)
            f = extract(self.backbone, zoomed, feature=feature, cache=cache).to("cpu")
            if self.x is None:
                self.x = torch.empty(self.n, self.each, *f.x.shape[1:], dtype=torch.half)
                self.windows = torch.empty(self.n, self.each, 4, dtype=torch.long)
                if self.pixels:
                    self.images = torch.empty(self.n, self.each, 3, *size, dtype=torch.uint8)
            top = torch.finfo(torch.half).max
            self.x[place, k], self.windows[place, k] = f.x.clamp(-top, top).half(), windows
            if self.images is not None:
                self.images[place, k] = (zoomed * 255).round().byte()
        self.done, self.size = self.done + B, size

    def finish(self) -> CropSet:
        """Without the rows that unreadable photographs left empty."""
        n = self.done
        return CropSet(
            self.name,
            self.x[:n],
            None if self.images is None else self.images[:n],
            self.windows[:n],
            self.size,
        )


def _cut(picture: np.ndarray, window: list[int], size: tuple[int, int]) -> np.ndarray:
    """The window of the square input, in the photograph it was resized from."""
    (top, left, rows, cols), (h, w) = window, picture.shape[:2]
    y0, y1 = round(top * h / size[0]), round((top + rows) * h / size[0])
    x0, x1 = round(left * w / size[1]), round((left + cols) * w / size[1])
    return picture[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]


@torch.no_grad()
def fresh_crops(
    images: Tensor, backbone: Backbone, feature: str, name: str, seed: int, half: bool = False
) -> Zoomed:
    """New windows of augmented photographs ``B x 3 x H x W``, through the backbone; ``half`` as in augment."""
    size = tuple(images.shape[-2:])
    windows = crop_windows(name, size, len(images), torch.Generator().manual_seed(seed))
    zoomed = crop_zoom(images, windows)
    amp = torch.bfloat16 if half else torch.float32
    x = backbone.extract(zoomed, [feature], attention=False, amp=amp).x
    return Zoomed(x.to(images.device).float(), zoomed, windows, size)
