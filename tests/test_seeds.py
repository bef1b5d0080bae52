"""Differences over seeds, on evaluations made by hand."""

import numpy as np
import pytest

from sempart_core import SempartError
from sempart_core.evaluation import Evaluation, over_seeds
from sempart_core.seeds import compare, student_half_width


def made(values, names=None) -> Evaluation:
    values = np.asarray(values, float)
    names = names or tuple(f"{i}.png" for i in range(len(values)))
    provenance = {
        "dataset": "d", "list_hash": "l", "backbone": "b", "sha256": "", "method": "sempart", "size": 8,
        "feature": "f", "tau": 0.1, "refine": None, "resample": "bilinear", "refine_params": {}, "kind": "unsupervised",
        "seed": 0, "device": "cpu", "versions": {}, "metric": "tokencut", "params": {"head": "h"},
    }  # fmt: skip
    means = {"iou": float(values.mean())}
    return Evaluation(names, {"iou": values}, means, {"iou": (0.0, 1.0)}, {}, provenance)


def test_difference_pairs_seeds_and_images():
    rng = np.random.default_rng(0)
    hard, luck = rng.random(40) * 0.5, (0.0, 0.1, 0.2)
    base = [made(hard + luck[k]) for k in range(3)]
    better = [made(hard + luck[k] + d) for k, d in enumerate((0.04, 0.05, 0.06))]
    d = compare({"better": better}, base)["better"]
    # Luck of a seed and hardness of an image cancel: what is left is .04, .05, .06.
    assert (d.mean, d.sd) == (pytest.approx(0.05), pytest.approx(0.01))
    half = 4.302653 * 0.01 / 3**0.5  # Student's t with two degrees of freedom
    assert (d.low, d.high) == (pytest.approx(0.05 - half), pytest.approx(0.05 + half))
    assert d.images.p < 1e-6 and d.verdict() == "higher"
    assert compare({"worse": base}, better)["worse"].verdict() == "lower"


def test_p_values_are_corrected_for_the_number_of_settings():
    rng = np.random.default_rng(1)
    hard = rng.random(30)
    base = [made(hard)] * 2
    settings = {str(k): [made(hard + rng.normal(0.3, 0.6, 30))] * 2 for k in range(3)}
    alone = {k: compare({k: v}, base)[k].images.p for k, v in settings.items()}
    smallest = min(alone, key=alone.get)
    together = compare(settings, base)
    assert together[smallest].corrected == pytest.approx(3 * alone[smallest])
    assert all(together[k].images.p == alone[k] for k in settings)


def test_a_small_p_over_images_is_not_enough():
    hard = np.linspace(0.1, 0.5, 60)
    other = [made(hard + d) for d in (0.2, -0.05, 0.0)]
    d = compare({"other": other}, [made(hard)] * 3)["other"]
    assert d.images.p < 1e-6 and d.low < 0 < d.high and d.verdict() == "undecided"


def test_records_say_over_what_the_interval_is():
    other = [made([0.2, 0.4]), made([0.4, 0.6])]
    d = compare({"other": other}, [made([0.1, 0.1])] * 2)["other"]
    rows = {r.metric: r for r in d.records(over_seeds(other, "t", "other", only=["iou"])[0])}
    assert list(rows) == ["iou_change", "iou_change_sd", "iou_change_median", "p_value", "p_holm"]
    assert rows["iou_change"].value == pytest.approx(0.3) and rows["iou_change"].ci == (d.low, d.high)
    assert "seeds" in rows["iou_change"].params["interval"] and rows["p_holm"].ci is None
    assert rows["iou_change_median"].value == pytest.approx(0.3)


def test_what_does_not_pair_is_refused():
    one = made([0.1, 0.2])
    for bad in ([one] * 3, [made([0.1, 0.2], names=("x", "y"))] * 2):
        with pytest.raises(SempartError, match="as many seeds"):
            compare({"bad": bad}, [one] * 2)
    with pytest.raises(SempartError, match="two finite"):
        compare({"one": [one]}, [one])
    with pytest.raises(SempartError, match="two finite"):
        student_half_width([0.3, np.nan])
