"""Clusters of patches, their names by labels, and mean IoU over classes."""

import numpy as np
import pytest
import torch

from sempart_core import SempartError
from sempart_core.features import Features
from sempart_core.matching import MATCHINGS, hungarian_match, majority_vote, match_counts
from sempart_core.semantic import (
    Change,
    change,
    cluster_patches,
    count_pixels,
    enlarged,
    resampled_miou,
    semantic_miou,
)


def scored(maps, labels, k, classes, how="hungarian"):
    counts = count_pixels(maps, labels, k, classes)
    return semantic_miou(counts, match_counts(counts.sum(0), how))


def some(seed, n=5, k=7, classes=4):
    """Cluster maps that know something of random labels, which hold void and lack the last class."""
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, classes - 1, (12, 18)) for _ in range(n)]
    labels = [np.where(rng.random(t.shape) < 0.1, 255, t) for t in labels]
    maps = [np.where(rng.random((6, 6)) < 0.5, t[::2, ::3] % k, rng.integers(0, k, (6, 6))) for t in labels]
    return maps, labels, k, classes


def test_by_hand():
    # nine pixels and one void; cluster 0 lies on two of class 0 and one of class 1, cluster 1 on one of class 1.
    truth = np.array([[0, 0, 1, 1, 255], [2, 2, 2, 1, 2]])
    ids = np.array([[0, 0, 0, 1, 2], [2, 2, 2, 2, 2]])
    s = scored([ids], [truth], 3, 5)
    assert s.iou[:3] == pytest.approx([2 / 3, 1 / 3, 4 / 5]) and np.isnan(s.iou[3:]).all()
    assert s.miou == pytest.approx((2 / 3 + 1 / 3 + 4 / 5) / 3)
    assert s.accuracy == pytest.approx(7 / 9)
    assert s.parts.tolist() == [[[2, 1, 4, 0, 0], [3, 1, 5, 0, 0], [2, 3, 4, 0, 0]]]


def test_a_class_without_a_cluster_counts_with_zero():
    s = scored([np.zeros((2, 2), int)], [np.array([[0, 0], [0, 1]])], 1, 2)
    assert s.iou.tolist() == [0.75, 0] and s.miou == 0.375 and s.accuracy == 0.75


@pytest.mark.parametrize("how", MATCHINGS)
@pytest.mark.parametrize("seed", range(5))
def test_names_of_clusters_do_not_matter(how, seed):
    maps, labels, k, classes = some(seed)
    names = np.random.default_rng(seed).permutation(k)
    one, two = (scored(m, labels, k, classes, how) for m in (maps, [names[m] for m in maps]))
    assert one.miou == pytest.approx(two.miou) and one.accuracy == pytest.approx(two.accuracy)
    assert np.array_equal(one.iou, two.iou, equal_nan=True)


@pytest.mark.parametrize("how", MATCHINGS)
def test_perfect_clusters(how):
    _, labels, _, classes = some(0)
    maps = [np.where(t == 255, 0, (t + 1) % classes) for t in labels]
    s = scored(maps, labels, classes, classes, how)
    assert s.miou == s.accuracy == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_majority_of_many_clusters_is_better_than_one_each(seed):
    maps, labels, k, classes = some(seed, k=20)
    one, many = (scored(maps, labels, k, classes, how) for how in MATCHINGS)
    assert many.miou > one.miou


def test_but_a_majority_can_leave_a_class_without_a_cluster():
    counts = np.array([[10, 0], [7, 3]])  # IoU of the second cluster: 7/20 and 3/10
    one, many = (semantic_miou(counts[None], match_counts(counts, how)).miou for how in MATCHINGS)
    assert one == pytest.approx((10 / 17 + 3 / 10) / 2) and many == pytest.approx(17 / 40) and many < one


def test_what_lies_under_void_does_not_matter():
    maps, labels, k, classes = some(3)
    ids = [enlarged(m, t.shape) for m, t in zip(maps, labels, strict=True)]
    other = [np.where(t == 255, 1, m) for m, t in zip(ids, labels, strict=True)]
    assert np.array_equal(count_pixels(ids, labels, k, classes), count_pixels(other, labels, k, classes))
    assert count_pixels(ids, labels, k, classes).sum() == sum((t != 255).sum() for t in labels)


@pytest.mark.parametrize("how", MATCHINGS)
def test_counts_and_pixels_are_matched_alike(how):
    maps, labels, k, classes = some(1)
    ids = np.concatenate([enlarged(m, t.shape).ravel() for m, t in zip(maps, labels, strict=True)])
    by_pixel = {"hungarian": hungarian_match, "majority": majority_vote}[how]
    found = match_counts(count_pixels(maps, labels, k, classes).sum(0), how)
    assert np.array_equal(found, by_pixel(ids, np.concatenate([t.ravel() for t in labels])))


def test_enlarging_takes_the_cell_of_the_pixels_centre():
    ids = np.arange(6).reshape(2, 3)
    assert np.array_equal(enlarged(ids, (4, 6)), np.kron(ids, np.ones((2, 2), int)))
    assert enlarged(ids, (3, 4)).tolist() == [[0, 1, 1, 2], [3, 4, 4, 5], [3, 4, 4, 5]]
    assert np.array_equal(enlarged(np.kron(ids, np.ones((2, 2), int)), (2, 3)), ids)


def features(n=6, seed=0):
    """Photographs of two halves in two directions, of lengths that say nothing."""
    g = torch.Generator().manual_seed(seed)
    sides = torch.arange(n * 8) // 4 % 2
    x = torch.nn.functional.one_hot(sides, 5).float() + 0.05 * torch.randn(n * 8, 5, generator=g)
    return Features((x * (0.1 + torch.rand(n * 8, 1, generator=g))).reshape(n, 8, 5), (2, 4))


@pytest.mark.parametrize("minibatch", [None, 16])
def test_clusters_of_patches(minibatch):
    f = features()
    maps = cluster_patches([f[:4], f[4:]], 2, seed=1, minibatch=minibatch)
    assert len(maps) == 6 and maps[0].shape == (2, 4)
    assert all((m == m[:, :1]).all() and m[0, 0] != m[1, 0] for m in maps)
    assert len({m[0, 0] for m in maps}) == 1  # one cluster means the same in all photographs
    again = cluster_patches([f], 2, seed=1, minibatch=minibatch)
    assert all(np.array_equal(a, b) for a, b in zip(maps, again, strict=True))


def runs(seeds, noise):
    """Perfect clusters with a share of patches at random, one run a seed."""
    labels = some(9, n=20)[1]
    out = []
    for s in seeds:
        rng = np.random.default_rng(s)
        maps = [np.where((rng.random(t.shape) < noise) | (t == 255), 0, t) for t in labels]
        out.append(scored(maps, labels, 4, 4))
    return out


def test_the_bootstrap_is_that_of_the_whole_set_with_weights():
    some_runs = runs([0, 1], 0.3)
    draws = resampled_miou(some_runs, 400, seed=2)
    assert np.array_equal(draws, resampled_miou(some_runs, 400, seed=2))
    assert draws.mean() == pytest.approx(np.mean([r.miou for r in some_runs]), abs=0.01) and draws.std() > 0
    (whole,) = runs([0], 0.3)
    one = semantic_miou(np.ones((1, 2, 2), int), np.array([[0, 0], [1, 1]]))
    assert (resampled_miou([one], 9) == one.miou).all() and whole.miou == some_runs[0].miou


def test_a_change_and_its_claim():
    good, bad = runs(range(3), 0.1), runs(range(3), 0.6)
    c = change(good, bad)
    assert c.claim() == "holds" and c.low < c.mean < c.high
    assert c.mean == pytest.approx(np.mean([a.miou - b.miou for a, b in zip(good, bad, strict=True)]))
    back = change(bad, good)
    assert back.claim() == "fails" and (back.low, back.high) == pytest.approx((-c.high, -c.low))
    same = change(good, good)
    assert (same.low, same.high) == (0, 0) and same.claim() == "is undecided"
    assert Change(np.array([0.1, -0.01]), 0.02, 0.08).claim() == "is undecided"  # seeds disagree
    assert Change(np.array([0.1, 0.01]), -0.02, 0.08).claim() == "is undecided"


def test_a_resample_without_a_rare_class_is_not_better_for_it():
    counts = np.zeros((30, 2, 3), int)
    counts[:, 0, 0], counts[:, 1, 1] = 8, 4
    counts[0, 1, 2] = 4  # class 2 occurs in one photograph, under the cluster of class 1, and has IoU 0
    r = semantic_miou(counts, match_counts(counts.sum(0)))
    draws = resampled_miou([r], 500)
    assert r.iou[2] == 0 and draws.max() <= 2 / 3 and draws.mean() == pytest.approx(r.miou, abs=0.01)


COUNTS = np.ones((1, 2, 2), int)
ZERO = np.zeros((2, 2), int)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cluster_patches([], 2), "no features"),
        (lambda: cluster_patches([features()], 0), "from 1 to"),
        (lambda: cluster_patches([features(1)], 9), "to 8, the number of patches"),
        (lambda: cluster_patches([features(1)], 2.0), "k=2.0"),
        (lambda: cluster_patches([features(1)], 2, -1), "seed=-1"),
        (lambda: cluster_patches([features(1)], 2, minibatch=0), "minibatch=0"),
        (lambda: cluster_patches([Features(torch.full((1, 2, 3), torch.nan), (1, 2))], 1), "NaN"),
        (lambda: count_pixels([ZERO], [], 1, 1), "one of each"),
        (lambda: count_pixels([], [ZERO], 1, 1), "one of each"),
        (lambda: count_pixels([ZERO], [ZERO, ZERO], 1, 1), "one of each"),
        (lambda: count_pixels([ZERO + 3], [ZERO], 3, 1), "cluster 3 is not in 0 .. 2"),
        (lambda: count_pixels([ZERO - 1], [ZERO], 3, 1), "cluster -1 is not in 0 .. 2"),
        (lambda: count_pixels([ZERO], [ZERO + 4], 1, 4), "label 4 is not in 0 .. 3"),
        (lambda: count_pixels([ZERO[0]], [ZERO], 1, 1), "height x width"),
        (lambda: semantic_miou(COUNTS * 0, [[0, 0]]), "no labelled pixel"),
        (lambda: semantic_miou(COUNTS, [[2, 0]]), "beyond 2 x 2"),
        (lambda: semantic_miou(COUNTS, [[0, 0], [0, 1]]), "a cluster twice"),
        (lambda: match_counts(ZERO), "no labelled pixel"),
        (lambda: match_counts(ZERO + 0.5), "whole pixels"),
        (lambda: match_counts(ZERO + 1, "best"), "hungarian, majority"),
        (lambda: resampled_miou([]), "same photographs"),
        (lambda: change(runs([0], 0.1), []), "as many seeds"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(SempartError, match=words):
        call()
