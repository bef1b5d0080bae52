"""Paired tests and the correction for several of them; the bootstrap is tested with the metrics."""

import numpy as np
import pytest

from sempart_core import SempartError
from sempart_core.statistics import holm, paired_wilcoxon


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
