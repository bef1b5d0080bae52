"""SEMPART's network: a small transformer on frozen features, a coarse branch and a convolutional refiner.

``B x N x D`` features and the photograph go in; a coarse mask on the patch grid and a fine mask at the
size of the photograph come out. Appendices B and C of the paper (figure 6, equations 9 to 18).

The paper's patches are 8 pixels wide, so three doublings lead from the grid back to the photograph. Here
the number of doublings follows from the patch (smallest power of two that covers it) and the last step goes
to the photograph's own size: a 16 x 16 grid of 14 pixel patches becomes 32, 64, 128, then 224 pixels wide.
"""

from __future__ import annotations

import math
import os
import pathlib
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import MEAN, STD
from ..errors import SempartError
from .configs import CONFIGS, SempartConfig


class Masks(NamedTuple):
    """Soft masks in [0, 1] (or their logits); which side is the object is not decided here.

    ``coarse`` is ``B x h x w`` on the patch grid, ``fine`` ``B x H x W`` at the photograph's size or None.
    """

    coarse: Tensor
    fine: Tensor | None


class Attention(nn.Module):
    """Self-attention behind a LayerNorm, ``B x N x width`` to the same; q, k and v have no bias."""

    def __init__(self, width: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * heads * dim_head, bias=False)
        self.out = nn.Linear(heads * dim_head, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each ``B x heads x N x dim_head``."""
        parts = self.qkv(self.norm(x)).chunk(3, dim=-1)
        q, k, v = (p.unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in parts)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.scaled_dot_product_attention(*self.project(x)).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer, ``B x N x width`` to the same."""

    def __init__(self, width: int, heads: int, dim_head: int, mlp: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dim_head)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, mlp), nn.GELU(), nn.Linear(mlp, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class Refiner(nn.Module):
    """Equation 11: enlarge, join the photograph, convolve; ``B x width x h x w`` to logits ``B x H x W``."""

    def __init__(self, config: SempartConfig) -> None:
        super().__init__()
        steps, widths = config.doublings, config.blocks
        out = [widths[min(i, len(widths) - 1)] for i in range(steps)]
        out.append(out[-1])  # the block without upsampling, which sees no photograph
        into = [c + 3 for c in (config.width, *out[: steps - 1])] + [out[-1]]
        self.blocks = nn.ModuleList(
            # In place: batch normalisation keeps its input for the gradient, not its output.
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.LeakyReLU(0.01, inplace=True))
            for i, o in zip(into, out, strict=True)
        )
        self.head = nn.Conv2d(out[-1] + 3, 1, 1)

    def sizes(self, grid: tuple[int, int], size: tuple[int, int]) -> list[tuple[int, int]]:
        """``(H, W)`` after each step: doubled, never beyond the photograph, and at last its size."""
        steps = len(self.blocks) - 1
        doubled = [tuple(min(g << k, s) for g, s in zip(grid, size, strict=True)) for k in range(1, steps)]
        return [*doubled, tuple(size)]

    def forward(self, x: Tensor, images: Tensor) -> Tensor:
        *steps, last = self.blocks
        sizes = self.sizes(tuple(x.shape[-2:]), tuple(images.shape[-2:]))
        for block, size in zip(steps, sizes, strict=True):
            x = F.interpolate(x, size, mode="bilinear", align_corners=False)
            x = block(_join(x, images))
        return self.head(_join(last(x), images))[:, 0]


def _join(x: Tensor, images: Tensor) -> Tensor:
    """Concatenate the photograph, resized bilinearly without antialiasing (the public code's choice)."""
    if images.shape[-2:] != x.shape[-2:]:
        images = F.interpolate(images, x.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([x, images.to(x.dtype)], dim=1)


class Sempart(nn.Module):
    """The network of SEMPART on features of a frozen backbone.

    Parameters
    ----------
    config : ~sempart_core.models.configs.SempartConfig
        Its shape; ``SempartConfig.preset("paper")`` if not given.
    about : dict, optional
        What a saved head must say of itself (backbone, layer, data, ...): texts, stored with the weights.
    """

    def __init__(self, config: SempartConfig | None = None, about: dict[str, str] | None = None) -> None:
        super().__init__()
        c = self.config = config or CONFIGS["paper"]
        self.about = dict(about or {})
        self.project = nn.Linear(c.dim, c.width)
        self.cls = nn.Parameter(0.02 * torch.randn(c.dim)) if c.cls else None
        self.encoder = nn.ModuleList(
            EncoderLayer(c.width, c.heads, c.dim_head, c.mlp) for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width) if c.final_norm else nn.Identity()
        self.coarse = nn.Linear(c.width, 1)
        self.refiner = Refiner(c)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def _tokens(self, x: Tensor) -> Tensor:
        """Encoder input ``B x (N or 1 + N) x width``; figure 6 puts [CLS] before the linear layer."""
        if x.ndim != 3 or x.shape[-1] != self.config.dim:
            raise SempartError(
                f"features of shape {tuple(x.shape)} do not fit this network: give B x N x {self.config.dim} "
                f"from the backbone and layer it was made for"
            )
        x = x.to(self.project.weight.dtype)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)
        return self.project(x)

    def encode(self, x: Tensor) -> Tensor:
        """Equation 9: ``B x N x D`` features to ``B x N x width``; no positions are added."""
        t = self._tokens(x)
        for layer in self.encoder:
            t = layer(t)
        return self.norm(t if self.cls is None else t[:, 1:])

    @torch.no_grad()
    def cls_attention(self, x: Tensor) -> Tensor:
        """``B x heads x N``: attention of [CLS] to the patches in the last layer (figure 12).

        It sums to less than 1: what [CLS] pays to itself is dropped. SempartError without a [CLS] token.
        """
        if self.cls is None:
            raise SempartError("this network has no [CLS] token: build it with cls=True")
        t = self._tokens(x)
        for layer in self.encoder[:-1]:
            t = layer(t)
        q, k, _ = self.encoder[-1].attention.project(t)
        return (q[:, :, :1] @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)[:, :, 0, 1:]

    def logits(
        self,
        x: Tensor,
        images: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        detach: bool = False,
    ) -> Masks:
        """Masks before the sigmoid; arguments and errors as :meth:`forward`."""
        grid = self._grid(x, images, grid)
        t = self.encode(x)
        coarse = self.coarse(t)[..., 0].unflatten(1, grid)
        if images is None:
            return Masks(coarse, None)
        images = images.to(self.mean.dtype)
        if self.config.normalise:
            low, high = torch.aminmax(images)
            if not (low >= -1e-3 and high <= 1 + 1e-3):
                raise SempartError(
                    f"images lie in [{low:.3g}, {high:.3g}]: give RGB in [0, 1], not normalised"
                )
            images = (images - self.mean) / self.std
        tokens = t.detach() if detach else t
        return Masks(coarse, self.refiner(tokens.mT.unflatten(2, grid), images))

    def forward(
        self,
        x: Tensor,
        images: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        detach: bool = False,
    ) -> Masks:
        """Coarse and fine soft masks.

        Parameters
        ----------
        x : Tensor
            ``B x N x D`` features, row-major over the grid.
        images : Tensor, optional
            ``B x 3 x H x W`` RGB in [0, 1]; without it only the coarse branch runs.
        grid : (int, int), optional
            ``(h, w)``. If not given, the size of ``images`` by the patch, or else a square. With it the
            photograph may have any size from the grid's up, and the fine mask has the photograph's.
        detach : bool
            The fine branch reads the tokens as constants: its gradient ends there (figure 7b).

        Returns
        -------
        Masks
            In [0, 1], at least float32 (also under autocast).

        Raises
        ------
        SempartError
            Features, grid and photograph that do not fit each other or the network.
        """
        out = self.logits(x, images, grid, detach)
        return Masks(*(None if m is None else _sigmoid(m) for m in out))

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Write the head as one file: :func:`sempart_core.models.files.save_head`."""
        from .files import save_head

        return save_head(self, path)

    @staticmethod
    def load(path: str | os.PathLike, device: str | torch.device = "cpu") -> Sempart:
        """Read a head written by :meth:`save`: :func:`sempart_core.models.files.load_head`."""
        from .files import load_head

        return load_head(path, device)

    def _grid(self, x: Tensor, images: Tensor | None, grid: tuple[int, int] | None) -> tuple[int, int]:
        n, patch = x.shape[-2] if x.ndim > 1 else 0, self.config.patch
        if images is not None and (images.ndim != 4 or images.shape[1] != 3 or len(images) != len(x)):
            raise SempartError(f"images have shape {tuple(images.shape)}: give {len(x)} x 3 x H x W")
        size = None if images is None else tuple(images.shape[-2:])
        if grid is None:
            side = math.isqrt(n)
            grid = (side, side) if size is None else tuple(s // patch for s in size)
            if size is not None and any(s % patch for s in size):
                raise SempartError(
                    f"images of {size[0]} x {size[1]} are no multiple of {patch}: give grid=(h, w)"
                )
        if grid[0] * grid[1] != n or n < 1:
            raise SempartError(f"{n} features do not fill a {grid[0]} x {grid[1]} grid: give grid=(h, w)")
        if size is not None and (size[0] < grid[0] or size[1] < grid[1]):
            raise SempartError(
                f"images of {size[0]} x {size[1]} are smaller than the {grid[0]} x {grid[1]} grid"
            )
        return tuple(grid)


def _sigmoid(logits: Tensor) -> Tensor:
    """In float32: with the few digits of half precision ``1 - S`` is 0 too early."""
    return (logits.float() if logits.dtype.itemsize < 4 else logits).sigmoid()
