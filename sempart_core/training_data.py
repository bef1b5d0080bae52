"""Unlabelled photographs as a training reads them: features and pixels of a whole folder, in memory.

The backbone is frozen and nothing is augmented, so each photograph passes through it once, before the first
epoch, and the disk cache keeps what came out. Masks of a data set are never looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .backbones import Backbone
from .errors import SempartError, UnreadableError
from .extraction import Progress, extract
from .images import read_image, to_tensor
from .photo_files import find_photos

if TYPE_CHECKING:
    from .samples import Sample

#: Largest finite number of half precision; features beyond it are clipped.
HALF = torch.finfo(torch.half).max


@dataclass(frozen=True)
class TrainingSet:
    """Features and pixels of ``n`` photographs, about 0.35 MB each at 224 pixels and 384 dimensions.

    Parameters
    ----------
    x : Tensor
        ``n x N x D``, half precision, as the disk cache holds them.
    images : Tensor or None
        ``n x 3 x H x W`` uint8; None for the coarse branch alone, which needs no pixels.
    grid : (int, int)
        ``(h, w)`` with ``h * w == N``.
    names : tuple of str
        Of the photographs that could be read.
    feature : str
        ``kind@block`` of ``x``.
    """

    x: Tensor
    images: Tensor | None
    grid: tuple[int, int]
    names: tuple[str, ...]
    feature: str

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """``b x N x D`` float32 and ``b x 3 x H x W`` in [0, 1] (or None) of the photographs ``index``."""
        x = self.x[index].to(device).float()
        return x, None if self.images is None else self.images[index].to(device).float() / 255


def load_training_set(
    photos: str | os.PathLike | Sequence[Sample | str | os.PathLike],
    backbone: Backbone,
    *,
    size: int,
    feature: str | None = None,
    pixels: bool = True,
    batch: int = 16,
    cache: bool = True,
    progress: Progress | None = None,
    skip: Callable[[str], None] | None = None,
) -> TrainingSet:
    """Features of a folder, a data set, or a list of files, every photograph as a square of ``size``.

    Parameters
    ----------
    photos : path, Dataset or sequence of paths
        A folder is read without its sub-folders. Of a data set only the pictures are used.
    size : int
        Side in pixels.
    pixels : bool
        Keep the pixels too (the fine branch needs them).
    batch : int
        Photographs through the backbone at a time.
    cache : bool
        Read and write the disk cache of features.
    progress : callable, optional
        Wraps the list of batches (``tqdm``).
    skip : callable, optional
        Leave unreadable files out; it is given a sentence for each. None: the first one is an error.

    Raises
    ------
    SempartError
        No such folder, fewer than two photographs, a grid below 2 x 2, or as ``extract``.
    """
    if isinstance(photos, str | os.PathLike):
        found, problems = find_photos([photos])
        if problems:
            raise SempartError(problems[0])
    else:
        found = photos
    if len(found) < 2:
        raise SempartError(
            f"{len(found)} photograph to train on: give two at least, one of them is held out; better hundreds"
        )
    starts = range(0, len(found), batch)
    x = images = None
    names: list[str] = []
    for start in progress(starts) if progress else starts:
        part = list(_readable(found, range(start, min(start + batch, len(found))), skip))
        if not part:
            continue
        f = extract(backbone, to_tensor([p for _, p in part], size), feature=feature, cache=cache).to("cpu")
        if min(f.grid) < 2:
            raise SempartError(
                f"size={size}: the grid has {f.grid[0]} x {f.grid[1]} patches; give a larger one"
            )
        if x is None:  # filled in place: joining the parts at the end would hold everything twice
            x = torch.empty(len(found), *f.x.shape[1:], dtype=torch.half)
            images = torch.empty(len(found), 3, *f.size, dtype=torch.uint8) if pixels else None
        place = slice(len(names), len(names) + len(part))
        x[place] = f.x.clamp(-HALF, HALF).half()
        if images is not None:
            images[place] = (f.images * 255).round().byte()
        names += [name for name, _ in part]
        grid, layer = f.grid, f.name.split("/")[-1]
    n = len(names)
    if n < 2:
        raise SempartError(f"only {n} of {len(found)} photographs could be read; check the files named above")
    return TrainingSet(x[:n], None if images is None else images[:n], grid, tuple(names), layer)


def _readable(
    found: Sequence, indices: range, skip: Callable[[str], None] | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and ``H x W x 3`` uint8 picture of what can be read."""
    for i in indices:
        try:
            item = found[i]
            if isinstance(item, str | os.PathLike):
                yield os.path.basename(os.fspath(item)), read_image(item)
            else:
                yield item.name, item.image
        except UnreadableError as e:
            if skip is None:
                raise
            skip(str(e))
