"""From photographs to the features a method builds its graph on, one batch or a whole data set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .backbones import Backbone, load_backbone
from .cache import extract_cached
from .errors import SempartError
from .features import Features
from .images import to_tensor

if TYPE_CHECKING:
    from .methods import Method, Prediction
    from .samples import Sample

Progress = Callable[[Sequence], Iterable]


def extract(
    backbone: Backbone,
    images: torch.Tensor,
    *,
    feature: str | None = None,
    tau: float | None = None,
    layers: Sequence[str] = (),
    policy: str = "resize",
    cache: bool = False,
) -> Features:
    """Features of one batch, the graph's feature first and carrying its threshold.

    Parameters
    ----------
    backbone : Backbone
    images : Tensor
        ``B x 3 x H x W`` RGB in [0, 1].
    feature : str, optional
        ``kind@block``; the backbone's default if None.
    tau : float, optional
        Threshold; the registry's for this feature if None.
    layers : sequence of str
        Further features to keep.
    cache : bool
        Read and write the disk cache.
    """
    names = list(dict.fromkeys([feature or backbone.default_layer, *layers]))
    get = functools.partial(extract_cached, backbone) if cache else backbone.extract
    f = get(images, names, policy=policy)
    return f if tau is None else replace(f, tau=tau)


def extract_dataset(
    dataset: Sequence[Sample],
    backbone: Backbone | str,
    size: int = 224,
    layers: Sequence[str] | None = None,
    *,
    policy: str = "resize",
    batch: int = 16,
    cache: bool = True,
    keep_images: bool = True,
    progress: Progress | None = None,
) -> list[Features]:
    """Features of a whole data set, for several methods to share.

    A photograph of 224 pixels takes about 1 MB with its pixels and one layer of 384 dimensions.

    Parameters
    ----------
    dataset : sequence of Sample
    backbone : Backbone or str
    size : int
        Side of the network's square input in pixels.
    layers : sequence of str, optional
        The first becomes ``Features.x``, the others can be asked for with ``evaluate(feature=...)``.
    keep_images : bool
        False drops the pixels (methods with a colour term need them).

    Returns
    -------
    list of Features
        In order, ``batch`` photographs each, on the CPU; to be given to :func:`evaluate` as ``features``.
    """
    backbone = load_backbone(backbone) if isinstance(backbone, str) else backbone
    first, *rest = layers or [backbone.default_layer]
    starts = range(0, len(dataset), batch)
    parts = []
    for start in progress(starts) if progress else starts:
        samples = [dataset[i] for i in range(start, min(start + batch, len(dataset)))]
        x = to_tensor([s.image for s in samples], size)
        f = extract(backbone, x, feature=first, layers=rest, policy=policy, cache=cache).to("cpu")
        parts.append(f if keep_images else replace(f, images=None))
    return parts


def of_photograph(features: Sequence[Features], i: int) -> Features:
    """Features of photograph ``i`` of a data set, from the batches of :func:`extract_dataset`."""
    for part in features:
        if 0 <= i < len(part):
            return part[int(i)]
        i -= len(part)
    raise SempartError(
        "no photograph has this index among the features; count from 0 below the data set's length"
    )


def predictions_of(
    method: Method, dataset: Sequence[Sample], features: Sequence[Features]
) -> Iterator[tuple[Sample, Prediction]]:
    """Samples of a data set in order, each with the method's prediction at the size of its photograph.

    Parameters
    ----------
    method : Method
    dataset : sequence of Sample
    features : sequence of Features
        From :func:`extract_dataset` on this data set, or its first batches: then the first samples are given.
    """
    i = 0
    for part in features:
        found = method.predict(part)
        for b in range(len(part)):
            sample = dataset[i]
            yield sample, found[b].resize(sample.image.shape[:2])
            i += 1
