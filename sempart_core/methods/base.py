"""The one interface of all methods: ``predict(images or Features) -> Prediction``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..registry import Registry

METHODS = Registry("method")


@dataclass(frozen=True)
class Prediction:
    """What a method says about a batch, at the resolution of its grid.

    Parameters
    ----------
    soft : Tensor
        ``B x h x w`` float in [0, 1], larger is more foreground.
    mask : Tensor
        ``B x h x w`` bool, the method's own binary decision.
    seed : Tensor, optional
        ``B`` int64, index of the seed patch on the grid, row-major.
    boxes : Tensor, optional
        ``B x 4`` float ``(x_min, y_min, x_max, y_max)`` in pixels of the network's input, right and
        bottom exclusive; NaN where there is no box.
    eigenvectors : Tensor, optional
        ``B x k x N``.
    size : (int, int)
        ``(H, W)`` of the network's input without padding, in pixels.
    patch : int
        Pixels a grid cell covers in each direction (1 for a mask at pixel resolution).
    """

    soft: Tensor
    mask: Tensor
    seed: Tensor | None = None
    boxes: Tensor | None = None
    eigenvectors: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    patch: int = 1

    def resize(self, size: tuple[int, int], mode: str = "bilinear") -> Prediction:
        """Masks and boxes at ``size = (H, W)`` pixels of the original photograph.

        The grid is first brought to the padded input size, the padding is cut, and the rest is
        resized; ``mask`` is ``soft_of_mask > .5`` for ``"bilinear"`` and exact for ``"nearest"``.
        """
        h, w = self.soft.shape[-2:]
        H, W = self.size

        def up(t: Tensor) -> Tensor:
            t = t[:, None].float()
            kw = {} if mode == "nearest" else {"align_corners": False}
            if (h * self.patch, w * self.patch) != (H, W):  # zero-padded input: cut the padding first
                t = F.interpolate(t, (h * self.patch, w * self.patch), mode=mode, **kw)[..., :H, :W]
            return F.interpolate(t, size, mode=mode, **kw)[:, 0] if t.shape[-2:] != size else t[:, 0]

        boxes = self.boxes
        if boxes is not None:
            boxes = boxes * boxes.new_tensor([size[1] / W, size[0] / H, size[1] / W, size[0] / H])
        return replace(self, soft=up(self.soft), mask=up(self.mask) > 0.5, boxes=boxes, size=size, patch=1)

    def __len__(self) -> int:
        return self.soft.shape[0]

    @staticmethod
    def cat(parts: list[Prediction]) -> Prediction:
        """Concatenate predictions of the same grid."""
        join = lambda k: None if getattr(parts[0], k) is None else torch.cat([getattr(p, k) for p in parts])  # noqa: E731
        return replace(parts[0], **{k: join(k) for k in ("soft", "mask", "seed", "boxes", "eigenvectors")})
