"""Naming clusters: one-to-one matching and majority vote between predicted and true labels.

Both start from counts of pixels ``clusters x classes``, so that a data set need not be held as one array of pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from .errors import SempartError

#: How clusters get names.
MATCHINGS = ("hungarian", "majority")


def match_counts(counts: ArrayLike, how: str = "hungarian") -> np.ndarray:
    """Classes of clusters, from how often each cluster and each class share a pixel.

    Parameters
    ----------
    counts : ``p x g`` int
        Pixels of cluster ``i`` and class ``j``, over the whole data set, without the ignored ones.
    how : str
        ``"hungarian"``: one-to-one, with the largest sum of dataset IoU. ``"majority"``: each cluster takes the
        class with which its dataset IoU is largest, and several may share one.

    Returns
    -------
    ``m x 2`` int64 rows ``(cluster, class)``, ascending in the cluster
        Clusters and classes without a pixel are left out. One-to-one, ``m`` is the smaller number of the two.

    Raises
    ------
    SempartError
        Not a table of counts, no pixel in it, or an unknown ``how``.

    Notes
    -----
    Deep Spectral (semantic-segmentation/eval_utils.py) matches on the very set it evaluates. Its "majority"
    takes the best IoU, not the most frequent class, which differ where a small class lies inside one cluster
    together with part of a large one.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise SempartError(
            f"counts of shape {counts.shape}, {counts.dtype}: give whole pixels, clusters x classes"
        )
    if how not in MATCHINGS:
        raise SempartError(f"how={how!r}: choose one of: {', '.join(MATCHINGS)}")
    clusters, classes = np.flatnonzero(counts.any(1)), np.flatnonzero(counts.any(0))
    if not len(classes):
        raise SempartError("no labelled pixel is left to match: check the ignored label")
    both = counts[np.ix_(clusters, classes)].astype(np.int64)
    iou = both / (both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both)
    if how == "majority":
        return np.stack([clusters, classes[iou.argmax(1)]], 1)
    rows, cols = linear_sum_assignment(iou, maximize=True)
    return np.stack([clusters[rows], classes[cols]], 1)


def _match(pred: ArrayLike, gt: ArrayLike, ignore: int | None, how: str) -> np.ndarray:
    """:func:`match_counts` of labels a pixel, in their own names."""
    pred, gt = np.asarray(pred).ravel(), np.asarray(gt).ravel()
    if pred.shape != gt.shape:
        raise SempartError(f"{pred.size} predicted and {gt.size} true labels: give one of each per pixel")
    if ignore is not None:
        pred, gt = pred[gt != ignore], gt[gt != ignore]
    p_names, p = np.unique(pred, return_inverse=True)
    g_names, g = np.unique(gt, return_inverse=True)
    both = np.bincount(p * len(g_names) + g, minlength=len(p_names) * len(g_names))
    rows, cols = match_counts(both.reshape(len(p_names), len(g_names)), how).T
    return np.stack([p_names[rows], g_names[cols]], 1).astype(np.int64)


def hungarian_match(pred: ArrayLike, gt: ArrayLike, ignore: int | None = 255) -> np.ndarray:
    """One-to-one matching of clusters to classes with the largest sum of dataset IoU.

    Parameters
    ----------
    pred, gt : int arrays of equal size
        Cluster and class of every pixel of the dataset.
    ignore : int, optional
        Class that is left out.

    Returns
    -------
    ``m x 2`` int64 rows ``(cluster, class)``, ascending in the cluster; ``m`` is the smaller number.

    Raises
    ------
    SempartError
        Arrays of different sizes, or no pixel that counts.
    """
    return _match(pred, gt, ignore, "hungarian")


def majority_vote(pred: ArrayLike, gt: ArrayLike, ignore: int | None = 255) -> np.ndarray:
    """The class with the largest dataset IoU for each cluster; several clusters may share a class.

    Parameters, errors and form of the result as in :func:`hungarian_match`; see the notes of :func:`match_counts`.
    """
    return _match(pred, gt, ignore, "majority")
