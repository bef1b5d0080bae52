"""Paired tests and the correction for several of them; the bootstrap is tested with the metrics."""

import numpy as np
import pytest

from sempart_core import SempartError
from sempart_core.statistics import binned_means, bootstrap_ci, holm, paired_wilcoxon, rank_correlation


def test_wilcoxon_is_exact_where_all_sign_patterns_can_be_counted():
    b = np.zeros(6)
    a = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    r = paired_wilcoxon(a, b)
    # All six differences positive is one of 2^6 patterns, its mirror image the other as extreme one.
    assert r.p == pytest.approx(2 / 64) and (r.n, r.mean, r.median) == (
        6,
        pytest.approx(0.35),
        pytest.approx(0.35),
    )
    assert paired_wilcoxon(b, a).mean == -r.mean and paired_wilcoxon(b, a).p == r.p


def test_wilcoxon_pairs_by_image_not_by_rank():
    rng = np.random.default_rng(0)
    base = rng.random(50)
    better = base + 0.01
    assert paired_wilcoxon(better, base).p < 1e-6
    assert paired_wilcoxon(rng.permutation(better), base).p > 1e-3


def test_wilcoxon_without_a_difference_and_with_bad_values():
    assert paired_wilcoxon([0.5, 0.5], [0.5, 0.5]).p == 1
    for a, b in (([], []), ([0.1], [0.1, 0.2]), ([np.nan], [0.1]), ([[0.1]], [[0.1]])):
        with pytest.raises(SempartError, match="same images"):
            paired_wilcoxon(a, b)


def test_holm_by_hand_in_any_order():
    # Sorted .01 .02 .03 .04 times 4 3 2 1 is .04 .06 .06 .04; a later one is never below an earlier one.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert len(holm([])) == 0
    for bad in ([1.2], [np.nan], 0.5):
        with pytest.raises(SempartError, match="list of numbers"):
            holm(bad)


def test_binned_means_by_hand():
    x = [0.0, 0.1, 0.25, 0.5, 0.9, 1.0]
    y = [1.0, 3.0, 5.0, 7.0, 2.0, 4.0]
    b = binned_means(x, y, [0, 0.25, 0.5, 0.75, 1])
    # A bin holds its lower edge: .25 is in the second, .5 in the third; 1 is in the last.
    assert b.n.tolist() == [2, 1, 1, 2] and b.mean.tolist() == [2, 5, 7, 3]
    assert b.x == pytest.approx([0.05, 0.25, 0.5, 0.95])
    assert b.low[1] == b.high[1] == 5 and b.low[0] == 1 and b.high[0] == 3
    empty = binned_means([0.1, 0.9], [1.0, 2.0], [0, 0.5, 0.6, 1])
    assert empty.n.tolist() == [1, 0, 1] and np.isnan(empty.mean[1]) and np.isnan(empty.low[1])


def test_one_bin_has_the_interval_of_the_mean():
    rng = np.random.default_rng(0)
    x, y = rng.random(80), rng.random(80)
    b = binned_means(x, y, [0, 1], seed=3)
    assert (b.low[0], b.high[0]) == bootstrap_ci(y, seed=3) and b.mean[0] == pytest.approx(y.mean())


@pytest.mark.parametrize(
    ("x", "y", "edges", "says"),
    [
        ([], [], [0, 1], "two finite"), ([0.1], [0.1, 0.2], [0, 1], "two finite"),
        ([np.nan], [0.1], [0, 1], "two finite"), ([0.1], [0.1], [0], "ascending"),
        ([0.1], [0.1], [0, 0.5, 0.5], "ascending"), ([1.1], [0.1], [0, 1], "beyond the edges"),
    ],
)  # fmt: skip
def test_bins_that_cannot_be_made(x, y, edges, says):
    with pytest.raises(SempartError, match=says):
        binned_means(x, y, edges)


def test_rank_correlation_is_spearmans_with_an_interval():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(1)
    x = rng.integers(0, 12, 60)  # with ties
    y = x + rng.normal(0, 4, 60)
    r = rank_correlation(x, y)
    assert r.rho == pytest.approx(spearmanr(x, y).statistic, abs=1e-12) and r.n == 60
    assert -1 < r.low < r.rho < r.high < 1 and r.high - r.low < 0.5
    assert rank_correlation(x, np.exp(y)).rho == pytest.approx(r.rho)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) == (0, 0, 0, 3)
    with pytest.raises(SempartError, match="two finite"):
        rank_correlation([1, 2], [1])
