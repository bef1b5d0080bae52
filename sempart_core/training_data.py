"""Unlabelled photographs as a training reads them: features and pixels of a whole folder, in memory.

The backbone is frozen, so each photograph passes through it once, before the first epoch, and the disk cache
keeps what came out; only an augmentation needs it again. Masks of a data set are never looked at.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .backbones import Backbone
from .errors import SempartError, UnreadableError
from .extraction import Progress, extract
from .images import read_image, resize, to_tensor
from .photo_files import find_photos
from .samples import Dataset, Sample
from .training_crops import CropBuilder, CropSet

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
    size : int
        Side of the photographs in pixels.
    sha256 : str
        Of the backbone's weights.
    content : str
        :func:`content_of` the photographs.
    large : tuple of Tensor, optional
        Each photograph with its aspect, ``3 x H x W`` uint8, to cut squares from.
    margin : int, optional
        By how much the short sides in ``large`` exceed the square.
    crops : CropSet, optional
        Windows of each photograph, enlarged.
    """

    x: Tensor
    images: Tensor | None
    grid: tuple[int, int]
    names: tuple[str, ...]
    feature: str
    size: int
    sha256: str
    content: str
    large: tuple[Tensor, ...] | None = None
    margin: int | None = None
    crops: CropSet | None = None

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, index: Tensor, device: torch.device, pixels: bool = True) -> tuple[Tensor, Tensor | None]:
        """``b x N x D`` float32 and ``b x 3 x H x W`` in [0, 1] (or None) of the photographs ``index``."""
        x = self.x[index].to(device).float()
        pixels = pixels and self.images is not None
        return x, self.images[index].to(device).float() / 255 if pixels else None


def load_training_set(
    photos: str | os.PathLike | Sequence[Sample | str | os.PathLike],
    backbone: Backbone,
    *,
    size: int,
    feature: str | None = None,
    pixels: bool = True,
    margin: int | None = None,
    crop: str | None = None,
    crops_each: int = 1,
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
        Keep the pixels too (the fine branch and every augmentation need them).
    margin : int, optional
        Keep each photograph with its aspect as well, the short side so many pixels longer than the square;
        ``augment="sempart_star"`` needs :data:`~sempart_core.augment.MARGIN`.
    crop, crops_each : str, int
        Keep so many windows of each photograph as well, drawn once by a rule of
        :data:`~sempart_core.multiscale.CROPS`; every training on them draws from these. A photograph's windows depend
        on its place in the list alone.
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
    found = photographs(photos)
    if len(found) < 2:
        raise SempartError(
            f"{len(found)} photograph to train on: give two at least, one of them is held out; better hundreds"
        )
    starts = range(0, len(found), batch)
    x = images = None
    content = Content(found)
    names: list[str] = []
    large: list[Tensor] = []
    builder = None if crop is None else CropBuilder(crop, crops_each, len(found), backbone, pixels)
    for start in progress(starts) if progress else starts:
        part = list(readable(found, range(start, min(start + batch, len(found))), skip))
        if not part:
            continue
        for name, picture in part:
            content.add(name, picture)
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
        if builder is not None:
            builder.add(f.images, [p for _, p in part], feature, cache)
        if margin is not None:
            large += [_with_margin(picture, f.images.shape[-2:], margin) for _, picture in part]
        names += [name for name, _ in part]
        grid, layer = f.grid, f.name.split("/")[-1]
    n = len(names)
    if n < 2:
        raise SempartError(f"only {n} of {len(found)} photographs could be read; check the files named above")
    images = None if images is None else images[:n]
    return TrainingSet(
        x[:n], images, grid, tuple(names), layer, size, backbone.sha256, content.hexdigest(),
        None if margin is None else tuple(large), margin, None if builder is None else builder.finish(),
    )  # fmt: skip


def _with_margin(picture: np.ndarray, square: Sequence[int], margin: int) -> Tensor:
    """``3 x H x W`` uint8, the short side ``margin`` longer than the square's side."""
    h, w = picture.shape[:2]
    scale = (max(square) + margin) / min(h, w)
    return torch.from_numpy(resize(picture, (round(scale * h), round(scale * w)))).permute(2, 0, 1)


def content_of(
    photos: str | os.PathLike | Sequence[Sample | str | os.PathLike],
    skip: Callable[[str], None] | None = None,
) -> str:
    """64 hexadecimal digits that change when any photograph does.

    Files count with their bytes. A data set with a ``salt`` says what decides its pictures and none is read;
    of any other the pictures are read, which takes the time of decoding them.
    """
    found = photographs(photos)
    content = Content(found)
    if not content.known:
        for name, picture in readable(found, range(len(found)), skip):
            content.add(name, picture)
    return content.hexdigest()


class Content:
    """The digest behind :func:`content_of`, filled while the pictures pass by where it has to see them."""

    def __init__(self, found: Sequence) -> None:
        self._digest = hashlib.sha256()
        salt = getattr(found, "salt", "")
        files = not salt and not isinstance(found, Dataset)
        files = files and all(isinstance(p, str | os.PathLike) for p in found)
        if salt:
            self._digest.update(f"{found.name} {found.list_hash}".encode())
        elif files:
            for path in map(pathlib.Path, found):
                inside = path.read_bytes() if path.is_file() else b""
                self._digest.update(f"{path.name} {len(inside)} ".encode() + inside)
        self.known = bool(salt) or files

    def add(self, name: str, picture: np.ndarray) -> None:
        if not self.known:
            self._digest.update(f"{name} {picture.shape} ".encode() + picture.tobytes())

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def photographs(photos: str | os.PathLike | Sequence) -> Sequence:
    """The photographs of a folder, or what was given."""
    if not isinstance(photos, str | os.PathLike):
        return photos
    found, problems = find_photos([photos])
    if problems:
        raise SempartError(problems[0])
    return found


def readable(
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
