"""Naming clusters: one-to-one matching and majority vote between predicted and true labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from .errors import SempartError


def _iou(pred: ArrayLike, gt: ArrayLike, ignore: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dataset IoU of every cluster with every class that occurs, and their names."""
    pred, gt = np.asarray(pred).ravel(), np.asarray(gt).ravel()
    if pred.shape != gt.shape:
        raise SempartError(f"{pred.size} predicted and {gt.size} true labels: give one of each per pixel")
    if ignore is not None:
        pred, gt = pred[gt != ignore], gt[gt != ignore]
    if not gt.size:
        raise SempartError("no labelled pixel is left to match: check the ignored label")
    p_names, p = np.unique(pred, return_inverse=True)
    g_names, g = np.unique(gt, return_inverse=True)
    both = np.bincount(p * len(g_names) + g, minlength=len(p_names) * len(g_names))
    both = both.reshape(len(p_names), len(g_names))
    return both / (both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both), p_names, g_names


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

    Notes
    -----
    Deep Spectral (semantic-segmentation/eval_utils.py) matches on the very set it evaluates.
    """
    iou, p_names, g_names = _iou(pred, gt, ignore)
    rows, cols = linear_sum_assignment(iou, maximize=True)
    return np.stack([p_names[rows], g_names[cols]], 1).astype(np.int64)


def majority_vote(pred: ArrayLike, gt: ArrayLike, ignore: int | None = 255) -> np.ndarray:
    """The class with the largest dataset IoU for each cluster; several clusters may share a class.

    Parameters, errors and form of the result as in :func:`hungarian_match`. The name is Deep Spectral's;
    its code, like this one, takes the best IoU, not the most frequent class, which differ where a small
    class lies inside one cluster together with part of a large one.
    """
    iou, p_names, g_names = _iou(pred, gt, ignore)
    return np.stack([p_names, g_names[iou.argmax(1)]], 1).astype(np.int64)
