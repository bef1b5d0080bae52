"""Means and differences over seeds, on evaluations made by hand."""

import numpy as np
import pytest

from sempart_core import SempartError
from sempart_core.evaluation import Evaluation
from sempart_core.seeds import Seeds, student_half_width


def made(values, head="h", names=None) -> Evaluation:
    values = np.asarray(values, float)
    names = names or tuple(f"{i}.png" for i in range(len(values)))
    provenance = {
        "dataset": "d", "list_hash": "l", "backbone": "b", "sha256": "", "method": "sempart", "size": 8,
        "feature": "f", "tau": 0.1, "refine": None, "resample": "bilinear", "refine_params": {}, "kind": "unsupervised",
        "seed": 0, "device": "cpu", "versions": {}, "metric": "tokencut", "params": {"head": head},
    }  # fmt: skip
    means = {"iou": float(values.mean())}
    return Evaluation(names, {"iou": values}, means, {"iou": (0.0, 1.0)}, {}, provenance)


def test_mean_and_deviation_are_over_the_seeds():
    s = Seeds([made([0.2, 0.4], "a"), made([0.4, 0.6], "b"), made([0.6, 0.8], "c")])
    iou, sd = s.records("t", "row")
    assert iou.value == pytest.approx(0.5) and sd.value == pytest.approx(0.2)
    assert (iou.metric, sd.metric, sd.ci) == ("iou", "iou_sd", None)
    assert iou.params["head"] == "a b c" and iou.params["seeds"] == 3
    assert iou.ci == pytest.approx((0.4, 0.6))  # two images, .4 and .6 after the mean over seeds
    assert s.per_image() == pytest.approx([0.4, 0.6])


def test_difference_pairs_seeds_and_images():
    rng = np.random.default_rng(0)
    hard, luck = rng.random(40) * 0.5, (0.0, 0.1, 0.2)
    base = Seeds([made(hard + luck[k]) for k in range(3)])
    better = Seeds([made(hard + luck[k] + d) for k, d in enumerate((0.04, 0.05, 0.06))])
    d = better.minus(base)
    # Luck of a seed and hardness of an image cancel: what is left is .04, .05, .06.
    assert (d.mean, d.sd) == (pytest.approx(0.05), pytest.approx(0.01))
    half = 4.302653 * 0.01 / 3**0.5  # Student's t with two degrees of freedom
    assert (d.low, d.high) == (pytest.approx(0.05 - half), pytest.approx(0.05 + half))
    assert d.images.p < 1e-6 and d.verdict(d.images.p) == "higher" and d.verdict(0.2) == "undecided"
    assert base.minus(better).verdict(0.0) == "lower"


def test_a_small_p_over_images_is_not_enough():
    hard = np.linspace(0.1, 0.5, 60)
    base = Seeds([made(hard)] * 3)
    other = Seeds([made(hard + d) for d in (0.2, -0.05, 0.0)])
    d = other.minus(base)
    assert d.images.p < 1e-6 and d.low < 0 < d.high and d.verdict(d.images.p) == "undecided"


def test_what_does_not_pair_is_refused():
    one = made([0.1, 0.2])
    with pytest.raises(SempartError, match="two at least"):
        Seeds([one])
    with pytest.raises(SempartError, match="different images"):
        Seeds([one, made([0.1, 0.2], names=("x", "y"))])
    with pytest.raises(SempartError, match="as many seeds"):
        Seeds([one] * 2).minus(Seeds([one] * 3))
    with pytest.raises(SempartError, match="two finite"):
        student_half_width([0.3])
