"""Rows of several seeds, and differences on the same photographs."""

from __future__ import annotations

import numpy as np
import pytest

from sempart_core import SempartError
from sempart_core.evaluation import Evaluation, over_seeds, paired_difference

PROVENANCE = {
    "dataset": "d", "list_hash": "", "backbone": "b", "sha256": "", "method": "m", "size": 224, "feature": "f",
    "tau": 0.5, "refine": None, "resample": "bilinear", "refine_params": {}, "params": {"head": "abc"},
    "kind": "label-tuned", "seed": 0, "device": "cpu", "versions": {}, "metric": "tokencut",
}  # fmt: skip


def run(values, names=("p", "q", "r", "s")) -> Evaluation:
    v = np.array(values, float)
    return Evaluation(names, {"iou": v}, {"iou": v.mean()}, {"iou": (0.0, 1.0)}, {}, PROVENANCE)


def test_mean_and_deviation_over_seeds():
    runs = [run([0.1, 0.2, 0.3, 0.4]), run([0.3, 0.4, 0.5, 0.6])]
    mean, sd = over_seeds(runs, "t", "r", only=["iou"])
    assert mean.value == pytest.approx(0.35) and (mean.metric, mean.preset) == ("iou", "tokencut")
    assert 0.2 <= mean.ci[0] < 0.35 < mean.ci[1] <= 0.5  # of the means over seeds, not of one seed
    assert sd.metric == "iou_sd" and sd.value == pytest.approx(0.2 / 2**0.5) and sd.ci is None
    assert mean.params["seeds"] == 2 and "head" not in mean.params and mean.kind == "label-tuned"
    (alone,) = over_seeds(runs[:1], "t", "r", only=["iou"])
    assert alone.ci == (0.0, 1.0) and alone.params["head"] == "abc"


def test_a_difference_is_taken_photograph_by_photograph():
    """The level differs widely from one photograph to the next; the difference does not."""
    b = np.array([0.1, 0.9, 0.2, 0.8])
    d, p = paired_difference([run(b + 0.05), run(b + 0.07)], [run(b)], "t", "r")
    assert d.value == pytest.approx(0.06) and d.ci == pytest.approx((0.06, 0.06))
    assert d.metric == "iou_difference" and p.metric == "iou_p" and 0 < p.value < 0.2
    with pytest.raises(SempartError, match="same photographs"):
        paired_difference([run(b)], [run(b, names=("a", "q", "r", "s"))], "t", "r")
    with pytest.raises(SempartError, match="one at least"):
        over_seeds([], "t", "r", only=["iou"])
