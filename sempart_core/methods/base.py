"""The one interface of all methods: ``predict(images or Features) -> Prediction``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import foreground, regions
from ..affinity import checked_tau
from ..errors import SempartError
from ..features import Features
from ..registry import Registry

if TYPE_CHECKING:
    from ..backbones import Backbone

METHODS = Registry("method")
_PER_IMAGE = ("soft", "mask", "seed", "boxes", "eigenvectors")


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
    covers : (int, int), optional
        Pixels the grid covers, padding included; ``size`` if the input was not padded.
    """

    soft: Tensor
    mask: Tensor
    seed: Tensor | None = None
    boxes: Tensor | None = None
    eigenvectors: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    covers: tuple[int, int] | None = None

    def resize(self, size: tuple[int, int], mode: str = "bilinear") -> Prediction:
        """Masks and boxes at ``size = (H, W)`` pixels of the original photograph.

        A padded grid is first brought to the padded input and the padding cut. The mask is the
        interpolated 0/1 mask above 1/2 for ``"bilinear"`` and a copy of its cells for ``"nearest"``.
        """
        H, W = self.size
        covers = self.covers or self.size

        def up(t: Tensor) -> Tensor:
            t = t[:, None].float()
            kw = {} if mode == "nearest" else {"align_corners": False}
            if covers != self.size:
                t = F.interpolate(t, covers, mode=mode, **kw)[..., :H, :W]
            return F.interpolate(t, size, mode=mode, **kw)[:, 0] if t.shape[-2:] != size else t[:, 0]

        boxes = self.boxes
        if boxes is not None:
            boxes = boxes * boxes.new_tensor([size[1] / W, size[0] / H, size[1] / W, size[0] / H])
        return replace(
            self, soft=up(self.soft), mask=up(self.mask) > 0.5, boxes=boxes, size=size, covers=None
        )

    def __len__(self) -> int:
        return self.soft.shape[0]

    def __getitem__(self, i: int) -> Prediction:
        """One image of the batch, as a batch of one."""
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of a batch of {len(self)}")
        have = {k: getattr(self, k) for k in _PER_IMAGE}
        return replace(self, **{k: v if v is None else v[i : i + 1] for k, v in have.items()})

    @staticmethod
    def cat(parts: list[Prediction]) -> Prediction:
        """Concatenate predictions of the same grid."""
        have = {k: [getattr(p, k) for p in parts] for k in _PER_IMAGE}
        return replace(parts[0], **{k: None if v[0] is None else torch.cat(v) for k, v in have.items()})


class Method(ABC):
    """Base of all methods.

    Parameters
    ----------
    backbone : Backbone, optional
        Needed only where :meth:`predict` is given images.
    """

    #: how an image is brought to a multiple of the patch size: "resize" or "pad" (protocol of the method)
    policy: ClassVar[str] = "resize"
    #: whether the answer depends on ``Features.x`` (DINO-seg looks at the attention alone)
    uses_features: ClassVar[bool] = True
    #: whether it reads pixels alone, as a square of ``default_size``, and no backbone takes part
    reads_pixels: ClassVar[bool] = False
    #: whether ``tau`` is the method's alone, also where it is None: the features' has no say
    own_tau: ClassVar[bool] = False
    #: which component of a mask is boxed where ``Prediction.boxes`` is None: :func:`sempart_core.corloc.one_box`
    box_rule: ClassVar[str] = "largest-area"
    #: ``Record.kind`` if the method itself was trained with labels; None: the features decide
    kind: ClassVar[str | None] = None
    #: what a method that was trained was trained on; None: it takes any backbone, and the backbone's feature
    default_backbone: str | None = None
    default_feature: str | None = None
    #: side in pixels of the square the network sees, where none is asked for
    default_size: int = 224

    def __init__(self, backbone: Backbone | None = None) -> None:
        self.backbone = backbone

    def check(self, backbone: str | None, feature: str | None = None, tau: float | None = None) -> None:
        """Refuse, before anything is computed, what a method cannot use.

        Parameters
        ----------
        backbone : str or None
            Its name, None where it is not known.
        feature, tau
            As asked for; None for the default.

        Raises
        ------
        SempartError
            Another backbone or feature than the method was trained on.
        """
        want, layer = self.default_backbone, self.default_feature
        if None not in (backbone, want) and backbone != want:
            raise SempartError(
                f"this head was trained on the backbone {want!r}, not on {backbone!r}: choose that backbone or "
                f"another head"
            )
        if None not in (feature, layer) and feature != layer:
            raise SempartError(f"this head was trained on {layer}, not on {feature}: leave the feature out")

    def check_size(self, size: int | None) -> None:
        """Refuse another side than the one of a method that reads pixels alone, as :meth:`check` does."""
        if self.reads_pixels and size not in (None, self.default_size):
            raise SempartError(
                f"size={size}: this method always sees squares of {self.default_size} pixels; leave size out"
            )

    def predict(self, x: Tensor | Features) -> Prediction:
        """Predict from ``B x 3 x H x W`` RGB images in [0, 1] or from extracted features.

        Raises
        ------
        SempartError
            Images without a backbone, or a grid of a single patch.
        """
        if not isinstance(x, Features):
            if self.backbone is None:
                raise SempartError(
                    f"{type(self).__name__} was given images but no backbone; pass backbone=load_backbone(NAME)"
                )
            self.check(self.backbone.name)
            layers = None if self.default_feature is None else [self.default_feature]
            x = self.backbone.extract(x, layers, policy=self.policy)
        if x.grid == (1, 1):
            raise SempartError(
                f"the image is a single patch of {x.patch} pixels, which cannot be cut; give a larger --size"
            )
        return self.from_features(x)

    @abstractmethod
    def from_features(self, f: Features) -> Prediction:
        """The method itself, on a batch of features."""


def threshold_of(f: Features, tau: float | None) -> float:
    """``tau`` as given, else the default that travels with the features."""
    if tau is None and f.tau is None:
        raise SempartError(f"no threshold: pass tau=..., the features {f.name or 'given'!r} carry no default")
    return checked_tau(f.tau if tau is None else tau)


def component_or_side(side: Tensor, seed: Tensor, rule: str | None, f: Features) -> Tensor:
    """``B x h x w`` bool mask: the seed's 4-connected component of ``side``, or the side a strategy chooses.

    Parameters
    ----------
    side : Tensor
        ``B x h x w`` bool on the CPU.
    seed : Tensor
        ``B`` patch indices.
    rule : str or None
        A name of :mod:`sempart_core.foreground`, or None for the component.
    """
    if rule is not None:
        return foreground.select(side, rule, attention=None if f.attention is None else f.attention.cpu())
    found = [regions.component_of(m.numpy(), int(s)) for m, s in zip(side, seed, strict=True)]
    return torch.from_numpy(np.stack(found))


def pixel_boxes(cells: list, grid: tuple[int, int], covers: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Boxes of grid cells ``(x0, y0, x1, y1)`` or None, in pixels, clipped to the unpadded ``size``."""
    scale = np.array([covers[1] / grid[1], covers[0] / grid[0]] * 2)
    limit = np.array([size[1], size[0]] * 2)
    rows = [np.full(4, np.nan) if c is None else np.minimum(np.asarray(c) * scale, limit) for c in cells]
    return torch.from_numpy(np.stack(rows)).float()


def padded_size(f: Features) -> tuple[int, int]:
    """Pixels the grid of ``f`` covers: the padded input."""
    return f.grid[0] * f.patch, f.grid[1] * f.patch
