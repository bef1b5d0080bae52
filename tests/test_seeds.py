"""Differences over seeds, on evaluations made by hand."""

from dataclasses import replace

import numpy as np
import pytest
from colour_backbone import ColourBackbone, scene

from sempart_core import SempartError
from sempart_core.evaluate import evaluate, extract_dataset
from sempart_core.evaluation import Evaluation
from sempart_core.methods import METHODS
from sempart_core.samples import Sample
from sempart_core.seeds import (
    Seeds,
    compare,
    differences,
    measure,
    measure_backbones,
    spread_records,
    student_half_width,
    verdicts,
)


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
    base = Seeds([made(hard + luck[k]) for k in range(3)])
    better = Seeds([made(hard + luck[k] + d) for k, d in enumerate((0.04, 0.05, 0.06))])
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
    base = Seeds([made(hard)] * 2)
    settings = {str(k): Seeds([made(hard + rng.normal(0.3, 0.6, 30))] * 2) for k in range(3)}
    alone = {k: compare({k: v}, base)[k].images.p for k, v in settings.items()}
    smallest = min(alone, key=alone.get)
    together = compare(settings, base)
    assert together[smallest].corrected == pytest.approx(3 * alone[smallest])
    assert all(together[k].images.p == alone[k] for k in settings)


def test_a_small_p_over_images_is_not_enough():
    hard = np.linspace(0.1, 0.5, 60)
    other = Seeds([made(hard + d) for d in (0.2, -0.05, 0.0)])
    d = other.minus(Seeds([made(hard)] * 3))
    assert d.images.p < 1e-6 and d.low < 0 < d.high and d.verdict() == "undecided"


def test_mean_and_deviation_are_over_the_seeds():
    s = Seeds([made([0.2, 0.4]), made([0.4, 0.6]), made([0.6, 0.8])])
    iou, sd = s.records("t", "row", kind="label-tuned")
    assert iou.value == pytest.approx(0.5) and sd.value == pytest.approx(0.2)
    assert (iou.metric, iou.preset, sd.metric, sd.ci) == ("iou", "tokencut", "iou_sd", None)
    assert iou.params["seeds"] == 3 and "head" not in iou.params and iou.kind == "label-tuned"
    assert iou.ci == pytest.approx((0.4, 0.6))  # two images, .4 and .6 after the mean over seeds
    (alone,) = Seeds(s.runs[:1]).records("t", "row")
    assert alone.ci == (0.0, 1.0) and alone.params["head"] == "h"


def test_difference_to_a_method_without_training():
    d = Seeds([made([0.2, 0.5]), made([0.4, 0.5])]).minus(Seeds([made([0.1, 0.1])]))
    assert d.mean == pytest.approx(0.3) and d.images.median == pytest.approx(0.3)
    assert d.sd == pytest.approx(0.1 / 2**0.5)


def test_one_run_each_leaves_the_images():
    """The level differs widely from one image to the next; the difference does not."""
    hard = np.linspace(0.1, 0.9, 40)
    wobble = np.tile([0.04, 0.06], 20)
    d = Seeds([made(hard + wobble)]).minus(Seeds([made(hard)]))
    assert d.mean == pytest.approx(0.05) and d.sd is None
    assert 0.04 < d.low < 0.05 < d.high < 0.06  # of the differences, not of the two means
    assert (d.verdict(), d.claim(), d.claim("lower")) == ("higher", "holds", "fails")
    rows = {r.metric: r for r in d.rows("t", "one minus two", kind="supervised")}
    assert list(rows) == ["iou_change", "iou_change_median", "p_value", "p_holm"]
    assert rows["iou_change"].params["interval"] == "bootstrap over images"
    assert (rows["p_holm"].row, rows["p_holm"].kind) == ("one minus two", "supervised")


def test_one_run_each_needs_a_corrected_p_too():
    rng = np.random.default_rng(3)
    hard = rng.random(40)
    pairs = {
        str(k): (Seeds([made(hard + rng.normal(0.025, 0.06, 40))]), Seeds([made(hard)])) for k in range(8)
    }
    found = differences(pairs)
    doubtful = [d for d in found.values() if d.low > 0 and d.images.p < 0.05 <= d.corrected]
    assert doubtful and all(d.claim() == "is undecided" for d in doubtful)
    with pytest.raises(SempartError, match="higher or lower"):
        doubtful[0].claim("larger")


def test_the_lines_name_the_interval():
    hard = np.linspace(0.1, 0.5, 30)
    base = Seeds([made(hard)])
    shown = verdicts(
        compare({"once": Seeds([made(hard + 0.1)]), "twice": Seeds([made(hard + 0.1)] * 2)}, base)
    )
    assert [line.split()[:3] for line in shown.splitlines()] == [
        ["once", "+0.100", "images"], ["twice", "+0.100", "seeds"],
    ]  # fmt: skip
    assert shown.endswith("higher") and verdicts({}) == ""


def test_a_method_a_seed_is_measured():
    data = [Sample(f"{i}.png", *scene(112 + 14 * i, seed=i)) for i in range(2)]
    backbone = ColourBackbone()
    features = extract_dataset(data, backbone, size=56, cache=False)
    methods = [METHODS["tokencut"](foreground=f) for f in ("least-corners", "centrality")]
    found = measure(data, methods, backbone, features=features)
    assert len(found.runs) == 2 and found.runs[0].provenance["params"]["foreground"] == "least-corners"
    for method, run in zip(methods, found.runs, strict=True):
        assert run.metrics == evaluate(data, method, backbone, features=features).metrics


def test_a_backbone_a_seed_is_measured():
    data = [Sample(f"{i}.png", *scene(112 + 14 * i, seed=i)) for i in range(2)]

    class Other(ColourBackbone):
        """Describes each patch by another one."""

        sha256 = "1" * 64

        def extract(self, *args, **kwargs):
            f = super().extract(*args, **kwargs)
            return replace(f, x=f.x.roll(3, 1), layers={k: x.roll(3, 1) for k, x in f.layers.items()})

    nets = ColourBackbone(), Other()
    found = measure_backbones(data, "diffncut", nets, size=56, seed=3, params={"k": 2}, resample="nearest")
    assert [r.provenance["sha256"] for r in found.runs] == [net.sha256 for net in nets]
    for net, run in zip(nets, found.runs, strict=True):
        features = extract_dataset(data, net, size=56, cache=False)
        alone = evaluate(
            data, "diffncut", net, features=features, seed=3, params={"k": 2}, resample="nearest"
        )
        assert run.provenance == alone.provenance and run.metrics == alone.metrics
    assert found.runs[0].metrics != found.runs[1].metrics
    with pytest.raises(SempartError, match="images kept"):
        measure_backbones(data, "deep-spectral", nets, size=56, variant="paper")
    with pytest.raises(SempartError, match="no evaluation"):
        measure_backbones(data, "diffncut", [], size=56)


def test_a_spread_is_a_mean_and_a_deviation():
    (like,) = Seeds([made([0.2, 0.4])]).records("t", "row")
    mean, sd = spread_records(like, "cut", [0.1, 0.3])
    assert (mean.metric, mean.value, mean.ci, mean.preset) == ("cut", pytest.approx(0.2), like.ci, "tokencut")
    assert (sd.metric, sd.value, sd.ci, sd.preset) == ("cut_sd", pytest.approx(0.2 / 2**0.5), None, "")
    assert [r.metric for r in spread_records(like, "cut", [0.1])] == ["cut"]


def test_records_say_over_what_the_interval_is():
    other = Seeds([made([0.2, 0.4]), made([0.4, 0.6])])
    d = other.minus(Seeds([made([0.1, 0.1])] * 2))
    rows = {r.metric: r for r in d.records(other.records("t", "other")[0])}
    assert list(rows) == ["iou_change", "iou_change_sd", "iou_change_median", "p_value", "p_holm"]
    assert rows["iou_change"].value == pytest.approx(0.3) and rows["iou_change"].ci == (d.low, d.high)
    assert "seeds" in rows["iou_change"].params["interval"] and rows["p_holm"].ci is None
    assert rows["iou_change_median"].value == pytest.approx(0.3)


def test_what_does_not_pair_is_refused():
    one = made([0.1, 0.2])
    for bad in (Seeds([one] * 3), Seeds([made([0.1, 0.2], names=("x", "y"))] * 2)):
        with pytest.raises(SempartError, match="as many seeds"):
            bad.minus(Seeds([one] * 2))
    with pytest.raises(SempartError, match="two finite"):
        student_half_width([0.3, np.nan])
    with pytest.raises(SempartError, match="different images"):
        Seeds([one, made([0.1, 0.2], names=("x", "y"))])
    with pytest.raises(SempartError, match="one a seed"):
        Seeds([])
