"""The tensors that travel from a backbone to a method, with their grid."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .errors import SempartError


@dataclass(frozen=True)
class Features:
    """Patch features of a batch of equally sized images.

    Parameters
    ----------
    x : Tensor
        ``B x N x D`` features a method builds its graph on, not normalised, row-major over the grid.
    grid : (int, int)
        ``(h, w)`` with ``h * w == N``.
    patch : int
        Side of a patch in pixels of the network's input.
    size : (int, int)
        ``(H, W)`` in pixels of the network's input before padding: boxes are clipped to it.
    attention : Tensor, optional
        ``B x heads x N`` attention of the CLS token in the last block (rows need not sum to 1:
        CLS and register columns are dropped).
    images : Tensor, optional
        ``B x 3 x H x W`` RGB in [0, 1], the pixels behind the features (colour terms and refinement).
    layers : dict
        Further features by name, ``"tokens@10" -> B x N x D`` (kind, block counted from 0).
    tau : float, optional
        Default affinity threshold for ``x`` (the registry's, for this backbone and feature).
    name : str
        What ``x`` is, for records: ``"dinov2_vits14_reg_mri/queries@11"``.
    """

    x: Tensor
    grid: tuple[int, int]
    patch: int = 1
    size: tuple[int, int] | None = None
    attention: Tensor | None = None
    images: Tensor | None = None
    layers: dict[str, Tensor] = field(default_factory=dict)
    tau: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        h, w = self.grid
        if self.x.ndim != 3 or self.x.shape[1] != h * w:
            raise SempartError(
                f"features of shape {tuple(self.x.shape)} do not fit the grid {h}x{w}: give B x {h * w} x D"
            )
        if self.size is None:
            object.__setattr__(self, "size", (h * self.patch, w * self.patch))

    @staticmethod
    def of_pixels(images: Tensor) -> Features:
        """``B x 3 x H x W`` RGB in [0, 1] for a method that reads pixels alone: one patch, no features."""
        side = tuple(images.shape[-2:])
        return Features(images.new_zeros(len(images), 1, 0), (1, 1), size=side, images=images)

    def __len__(self) -> int:
        return self.x.shape[0]

    def select(self, name: str, tau: float | None = None) -> Features:
        """The same images seen through another stored layer, e.g. ``select("tokens@10", tau=.4)``."""
        if name not in self.layers:
            raise SempartError(
                f"no layer {name!r} was extracted; there are: {', '.join(self.layers) or 'none'}"
            )
        base = self.name.split("/")[0]
        return replace(self, x=self.layers[name], tau=tau, name=f"{base}/{name}")

    def centred(self) -> Features:
        """The same features minus their mean over the patches of each image; no threshold travels along.

        A direction that all patches share makes every inner product positive, and with it every edge of
        a graph that looks at signs (LOST) or clips at zero (Deep Spectral).
        """
        x = self.x - self.x.mean(dim=1, keepdim=True)
        return replace(self, x=x, tau=None, name=f"{self.name}-centred")

    def __getitem__(self, i: int | slice) -> Features:
        """A sub-batch; an integer keeps the batch dimension (IndexError past the end, so loops stop)."""
        if isinstance(i, int) and not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of a batch of {len(self)}")
        s = slice(i, i + 1 or None) if isinstance(i, int) else i
        cut = lambda t: None if t is None else t[s]  # noqa: E731
        return replace(
            self,
            x=self.x[s],
            attention=cut(self.attention),
            images=cut(self.images),
            layers={k: v[s] for k, v in self.layers.items()},
        )

    def to(self, *args, **kwargs) -> Features:
        """Move or cast all floating tensors, as :meth:`torch.Tensor.to`."""
        move = lambda t: None if t is None else t.to(*args, **kwargs)  # noqa: E731
        return replace(
            self,
            x=move(self.x),
            attention=move(self.attention),
            images=move(self.images),
            layers={k: move(v) for k, v in self.layers.items()},
        )

    @staticmethod
    def cat(parts: list[Features]) -> Features:
        """Concatenate batches of the same grid."""
        if len({p.grid for p in parts}) != 1:
            raise SempartError("features of different grids cannot be one batch; keep them apart or resize")
        first = parts[0]
        join = lambda ts: None if ts[0] is None else torch.cat(ts)  # noqa: E731
        return replace(
            first,
            x=torch.cat([p.x for p in parts]),
            attention=join([p.attention for p in parts]),
            images=join([p.images for p in parts]),
            layers={k: torch.cat([p.layers[k] for p in parts]) for k in first.layers},
        )
