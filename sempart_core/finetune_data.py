"""Pairs of views as a fine-tuning reads them: new ones at each step, or fixed ones behind the frozen trunk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .backbones import Backbone
from .crop_pairs import SCALE, checked_scale, crop_pairs
from .errors import SempartError
from .finetune_model import Encoder
from .samples import Dataset, Sample
from .training_data import HALF, Content, photographs, readable
from .training_loop import seed_of
from .training_setup import whole

#: Said of an empty folder or list.
NONE = "no photograph to tune on; check the folder or the list"
Photos = str | os.PathLike | Dataset | Sequence[Sample | str | os.PathLike]


class Batch(NamedTuple):
    """What the tail reads: ``x`` ``2 x B x ...``, ``boxes`` ``2 x B x 4``, ``flips`` ``2 x B``."""

    x: Tensor
    boxes: Tensor
    flips: Tensor


@dataclass(frozen=True)
class PairSet:
    """``k`` fixed pairs of each of ``n`` photographs, as the trunk sees them; .4 MB a pair of 224 pixels (ViT-S/14).

    Parameters
    ----------
    x : Tensor
        ``n x k x 2 x ...``, half precision: tokens ``T x C`` of a vision transformer, maps of a ResNet.
    boxes, flips : Tensor
        ``n x k x 2 x 4``, ``n x k x 2``.
    names : tuple of str
        Of the photographs.
    size : int
        Side of a view in pixels.
    blocks : int
        Length of the tail for which they were made.
    colours : str
        See :data:`~sempart_core.crop_pairs.COLOURS`.
    scale : (float, float)
        Share of the photograph that a crop covers.
    sha256 : str
        Of the backbone's weights.
    content : str
        Of the photographs, as :func:`~sempart_core.training_data.content_of`.
    seed : int
        Of the crops.
    amp : str
        Where and in which precision the trunk ran, such as ``cpu float32``.
    """

    x: Tensor
    boxes: Tensor
    flips: Tensor
    names: tuple[str, ...]
    size: int
    blocks: int
    colours: str
    scale: tuple[float, float]
    sha256: str
    content: str
    seed: int
    amp: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def each(self) -> int:
        """Pairs of one photograph."""
        return self.x.shape[1]

    def batch(self, index: Tensor, epoch: int, device: torch.device) -> Batch:
        """The photographs ``index``; the epochs, counted from 1, take their pairs in turn."""
        k = (epoch - 1) % self.each
        x, boxes, flips = (t[index, k].transpose(0, 1).to(device) for t in (self.x, self.boxes, self.flips))
        return Batch(x.float(), boxes, flips)

    def limit(self, n: int) -> PairSet:
        """The first ``n`` photographs; they count as other photographs in the name of an artefact."""
        if not 1 <= n <= len(self):
            raise SempartError(f"n={n}: the set has {len(self)} photographs")
        return replace(
            self,
            x=self.x[:n],
            boxes=self.boxes[:n],
            flips=self.flips[:n],
            names=self.names[:n],
            content=f"{self.content} {n}",
        )


class FreshPairs:
    """New pairs at each epoch, through the trunk at each step.

    Parameters
    ----------
    photos : folder, Dataset or sequence of paths
    encoder : Encoder
        Whose trunk is used.
    size, colours, scale, seed
        As in :func:`load_pairs`.
    """

    def __init__(
        self,
        photos: Photos,
        encoder: Encoder,
        *,
        size: int,
        colours: str,
        scale: tuple[float, float],
        seed: int,
        amp: torch.dtype | None,
        skip: Callable[[str], None] | None = None,
    ) -> None:
        self.found = photographs(photos)
        self.encoder, self.size, self.colours, self.scale = encoder, size, colours, scale
        self.seed, self.amp, self.skip = seed, amp, skip

    def __len__(self) -> int:
        return len(self.found)

    def batch(self, index: Tensor, epoch: int, device: torch.device) -> Batch:
        """As :meth:`PairSet.batch`; an unreadable file is left out with a sentence to ``skip``, or is an error."""
        pictures, seeds = [], []
        for i in index.tolist():
            for _, picture in readable(self.found, range(i, i + 1), self.skip):
                pictures.append(picture)
                seeds.append(seed_of(self.seed, epoch, i + 1))  # 0 is the order of the epoch
        if not pictures:
            raise SempartError("no photograph of a batch could be read; check the files named above")
        pairs = crop_pairs(pictures, self.size, seeds, colours=self.colours, scale=self.scale)
        x = self.encoder.trunk(pairs.views.flatten(0, 1).to(device), self.amp)
        return Batch(x.unflatten(0, (2, len(pictures))), pairs.boxes.to(device), pairs.flips.to(device))


def load_pairs(
    photos: Photos,
    backbone: Backbone,
    *,
    each: int = 2,
    size: int = 224,
    blocks: int = 4,
    colours: str = "dino",
    scale: tuple[float, float] = SCALE,
    seed: int = 0,
    batch: int = 8,
    amp: torch.dtype | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[Sequence], Iterable] | None = None,
    skip: Callable[[str], None] | None = None,
) -> PairSet:
    """Draw ``each`` pairs a photograph and keep what the frozen part of the backbone makes of them.

    Parameters
    ----------
    photos : folder, Dataset or sequence of paths
        Masks are never read.
    backbone : Backbone
    blocks : int
        Length of the tail; any feature in it can then be tuned.
    batch : int
        Photographs through the trunk at a time.
    amp : dtype, optional
        As in :meth:`~sempart_core.backbones.Backbone.extract`.
    device : str, optional
        Where the trunk computes; that of the backbone if None.
    progress : callable, optional
        Wraps the list of batches (``tqdm``).
    skip : callable, optional
        Leave unreadable files out; it is given a sentence for each. None: the first one is an error.

    Raises
    ------
    SempartError
        No photograph, a size that is no multiple of the patch, or bad arguments.
    """
    checked_size(size, backbone)
    whole(each=each, batch=batch)
    whole(0, seed=seed)
    scale = checked_scale(scale)
    found = photographs(photos)
    if not len(found):
        raise SempartError(NONE)
    place = torch.device(backbone.device if device is None else device)
    last = f"tokens@{backbone.depth - 1}"  # any feature of the tail has the same trunk
    encoder = Encoder(backbone, blocks, last).to(place)
    content = Content(found)
    parts: list[Batch] = []
    names: list[str] = []
    starts = range(0, len(found), batch)
    for start in progress(starts) if progress else starts:
        some = range(start, min(start + batch, len(found)))
        read = [(i, *r) for i in some for r in readable(found, range(i, i + 1), skip)]
        if not read:
            continue
        for _, name, picture in read:
            content.add(name, picture)
        made = []
        for k in range(each):
            seeds = [seed_of(seed, k, i + 1) for i, _, _ in read]
            pairs = crop_pairs([p for _, _, p in read], size, seeds, colours=colours, scale=scale)
            x = encoder.trunk(pairs.views.flatten(0, 1).to(place), amp).cpu()
            x = x.clamp(-HALF, HALF).half().unflatten(0, (2, len(read)))
            made.append(Batch(x, pairs.boxes, pairs.flips))
        # k x 2 x B -> B x k x 2
        parts.append(Batch(*(torch.stack(t).movedim(2, 0) for t in zip(*made, strict=True))))
        names += [name for _, name, _ in read]
    if not names:
        raise SempartError(f"none of {len(found)} photographs could be read; check the files named above")
    x, boxes, flips = (torch.cat(t) for t in zip(*parts, strict=True))
    return PairSet(
        x, boxes, flips, tuple(names), size, blocks, colours, scale, backbone.sha256, content.hexdigest(), seed,
        _arithmetic(place, amp),
    )  # fmt: skip


def _arithmetic(place: torch.device, amp: torch.dtype | None) -> str:
    """What :func:`~sempart_core.hooks.autocast` makes of its arguments."""
    kind = torch.float32
    if place.type == "cuda" and amp != torch.float32:
        kind = amp or (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
    return f"{place.type} {kind}".replace("torch.", "")


def checked_size(size: int, backbone: Backbone) -> None:
    """SempartError unless a view of ``size`` pixels is a grid of 2 x 2 patches at least."""
    if (
        isinstance(size, bool)
        or not isinstance(size, int)
        or size % backbone.patch
        or size < 2 * backbone.patch
    ):
        raise SempartError(
            f"size={size!r}: {backbone.name} has patches of {backbone.patch} pixels; give a multiple of that, "
            f"such as {224 // backbone.patch * backbone.patch}"
        )
