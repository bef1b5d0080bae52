"""Classes without names: clusters of patches over a data set, named by its labels, and their mean IoU over classes.

The evaluation of Differentiable Normalized Cuts, section 4.3 and Table 3, which names k-means, two numbers of
clusters and mIoU; what else it takes (features, normalisation, resolution, matching) is said at each function.
Labels name the clusters, on the very photographs that are measured, as in Deep Spectral's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch.nn import functional as F

from .errors import SempartError
from .features import Features


def cluster_patches(
    features: Sequence[Features], k: int, seed: int = 0, *, minibatch: int | None = None
) -> list[np.ndarray]:
    """K-means over all patches of a data set, each scaled to length 1.

    Subtracting one mean from all patches would change no cluster, since k-means knows distances alone.

    Parameters
    ----------
    features : sequence of Features
        Of the whole data set, from :func:`~sempart_core.extraction.extract_dataset`.
    k : int
        Clusters, from 1 to the number of patches.
    seed : int
        Of the start (k-means++, one start).
    minibatch : int, optional
        Patches a step of scikit-learn's ``MiniBatchKMeans``; None for all of them (Lloyd's algorithm).

    Returns
    -------
    list of ``h x w`` int32 arrays
        Cluster of each patch, 0 .. k - 1, one array a photograph.

    Raises
    ------
    SempartError
        No features, values that are not finite, or a ``k`` that the patches do not allow.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans  # a second to import

    if not len(features):
        raise SempartError("no features to cluster; extract them from a data set first")
    x = np.concatenate([F.normalize(f.x.float(), dim=-1).flatten(0, 1).cpu().numpy() for f in features])
    for name, value, low, high in (
        ("k", k, 1, len(x)),
        ("seed", seed, 0, 2**32 - 1),
        ("minibatch", minibatch, 1, None),
    ):
        if name == "minibatch" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < low or (high and value > high):
            most = f" to {high}" + (", the number of patches" if name == "k" else "") if high else " on"
            raise SempartError(f"{name}={value!r}: give a whole number from {low}{most}")
    if not np.isfinite(x).all():
        raise SempartError("the features hold NaN or infinite values; nothing can be clustered")
    if minibatch is None:
        means = KMeans(k, n_init=1, random_state=seed)
    else:
        means = MiniBatchKMeans(k, n_init=1, random_state=seed, batch_size=minibatch, reassignment_ratio=0)
    found = means.fit_predict(x).astype(np.int32)
    grids = [f.grid for f in features for _ in range(len(f))]
    ends = np.cumsum([h * w for h, w in grids])
    return [found[end - h * w : end].reshape(h, w) for (h, w), end in zip(grids, ends, strict=True)]


def enlarged(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map of ids on a grid at the size of a photograph: each pixel takes that of the cell its centre lies in."""
    rows, cols = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, ids.shape, strict=True))
    return ids[rows][:, cols]


def count_pixels(
    maps: Sequence[np.ndarray], labels: Iterable[np.ndarray], k: int, classes: int, void: int = 255
) -> np.ndarray:
    """How many pixels each cluster and each class share, photograph by photograph.

    Only one photograph is held at its full size at a time.

    Parameters
    ----------
    maps : sequence of ``h x w`` int arrays
        Clusters 0 .. k - 1 on the grid of patches; see :func:`enlarged`.
    labels : iterable of ``H x W`` int arrays
        Classes 0 .. classes - 1 at the size of the photographs, in the same order; may be a generator.
    void : int
        Label of pixels that do not count.

    Returns
    -------
    ``n x k x classes`` int32

    Raises
    ------
    SempartError
        Another number of label maps, ids beyond ``k`` or ``classes``, or an array that is not 2-d.
    """
    out = np.zeros((len(maps), k, classes), np.int32)
    i = -1
    for i, truth in enumerate(labels):
        if i >= len(maps):
            break
        ids, truth = np.asarray(maps[i]), np.asarray(truth)
        if ids.ndim != 2 or truth.ndim != 2:
            raise SempartError(f"photograph {i}: clusters and labels are maps, height x width")
        inside = truth != void
        p, g = enlarged(ids, truth.shape)[inside].astype(np.int64), truth[inside].astype(np.int64)
        for what, values, most in (("cluster", p, k), ("label", g, classes)):
            if values.size and not 0 <= values.min() <= values.max() < most:
                wrong = values.min() if values.min() < 0 else values.max()
                raise SempartError(f"photograph {i}: {what} {wrong} is not in 0 .. {most - 1}")
        out[i] = np.bincount(p * classes + g, minlength=k * classes).reshape(k, classes)
    if i + 1 != len(maps):
        raise SempartError(f"{len(maps)} maps of clusters and another number of label maps: give one of each")
    return out


@dataclass(frozen=True)
class Semantic:
    """What :func:`semantic_miou` found.

    Parameters
    ----------
    iou : ``classes`` float
        IoU over the data set; NaN for classes that do not occur in its labels.
    miou : float
        Mean over those that occur, background included; a class without a cluster counts with 0.
    accuracy : float
        Share of the labelled pixels whose cluster bears their class.
    parts : ``n x 3 x classes`` int64
        Of each photograph and class: pixels rightly given, all given and all true ones.
    """

    iou: np.ndarray
    miou: float
    accuracy: float
    parts: np.ndarray


def semantic_miou(counts: np.ndarray, match: np.ndarray) -> Semantic:
    """Mean IoU of a data set over its classes, once its clusters have names.

    Parameters
    ----------
    counts : ``n x k x classes`` int
        From :func:`count_pixels`.
    match : ``m x 2`` int
        Rows ``(cluster, class)`` from :func:`~sempart_core.matching.match_counts` of ``counts.sum(0)``. A cluster
        without a class is wrong wherever it lies.

    Raises
    ------
    SempartError
        No labelled pixel, or a match that names a cluster or class beyond the counts, or a cluster twice.
    """
    counts, match = np.asarray(counts), np.asarray(match)
    if counts.ndim != 3 or not counts.any():
        raise SempartError(
            "no labelled pixel was counted: give counts of shape photographs x clusters x classes"
        )
    k, classes = counts.shape[1:]
    if match.ndim != 2 or match.shape[1] != 2 or (match < 0).any() or (match >= (k, classes)).any():
        raise SempartError(f"the match names clusters or classes beyond {k} x {classes}; match these counts")
    if len(set(match[:, 0].tolist())) < len(match):
        raise SempartError("the match names a cluster twice; a cluster bears one class")
    named = np.zeros((k, classes), np.int64)
    named[match[:, 0], match[:, 1]] = 1
    given = counts.sum(2, dtype=np.int64) @ named
    parts = np.stack([(counts * named).sum(1), given, counts.sum(1, dtype=np.int64)], 1)
    iou = _iou(parts.sum(0))
    return Semantic(iou, float(np.nanmean(iou)), float(parts[:, 0].sum() / parts[:, 2].sum()), parts)


def _iou(parts: np.ndarray) -> np.ndarray:
    """``... x 3 x classes`` -> ``... x classes``; NaN where a class does not occur in the labels."""
    right, given, true = np.moveaxis(np.asarray(parts, np.float64), -2, 0)
    return np.where(true > 0, right / np.maximum(given + true - right, 1), np.nan)


def resampled_miou(runs: Sequence[Semantic], n: int = 1000, seed: int = 0) -> np.ndarray:
    """Bootstrap over photographs of the mean over runs of mIoU; equal seeds draw equal photographs.

    Clusters and their names stay those of the whole set, so the spread is that of the photographs measured on and
    not of the photographs clustered. A class that a resample misses keeps its IoU of the whole set: to leave it out
    would raise the mean, since rare classes have a low IoU.

    Parameters
    ----------
    runs : sequence of Semantic
        Clusterings of the same photographs, one a seed of k-means.
    n : int
        Resamples.

    Returns
    -------
    ``n`` float

    Raises
    ------
    SempartError
        No run, or runs of different photographs.
    """
    shapes = {r.parts.shape for r in runs}
    if len(shapes) != 1:
        raise SempartError("give one run or several, all of the same photographs and classes")
    m, _, classes = shapes.pop()
    draws = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=n)
    out = []
    for r in runs:
        iou = _iou((draws @ r.parts.reshape(m, -1)).reshape(n, 3, classes))
        out.append(np.nanmean(np.where(np.isnan(iou), r.iou, iou), -1))
    return np.mean(out, axis=0)


@dataclass(frozen=True)
class Change:
    """One backbone's mIoU minus another's: ``by_seed`` of k-means, and the interval of their mean over photographs."""

    by_seed: np.ndarray
    low: float
    high: float

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(self.by_seed.mean())

    def claim(self) -> str:
        """ "holds" or "fails": the interval leaves out 0 and all seeds agree in sign; else "is undecided"."""
        if self.low > 0 and (self.by_seed > 0).all():
            return "holds"
        return "fails" if self.high < 0 and (self.by_seed < 0).all() else "is undecided"


def change(runs: Sequence[Semantic], base: Sequence[Semantic], n: int = 1000, seed: int = 0) -> Change:
    """Paired over photographs and seeds: mIoU of ``runs`` minus that of ``base``, with a 95 % bootstrap interval.

    Parameters and errors as in :func:`resampled_miou`; both need as many seeds, of the same photographs.
    """
    if len(runs) != len(base) or {r.parts.shape for r in runs} != {r.parts.shape for r in base}:
        raise SempartError("a paired difference needs as many seeds on the same photographs as its base")
    spread = resampled_miou(runs, n, seed) - resampled_miou(base, n, seed)
    by_seed = np.array([a.miou - b.miou for a, b in zip(runs, base, strict=True)])
    low, high = np.quantile(spread, [0.025, 0.975])
    return Change(by_seed, float(low), float(high))
