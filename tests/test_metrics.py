"""Metrics against hand-worked cases, slow loops and the properties every metric must have."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sempart_core import SempartError, metrics
from sempart_core.records import Record

SALIENCY = list(metrics.PRESETS)


def scenes(n=4, seed=0, size=(40, 60)):
    """Soft maps of different quality over boxes of different size."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        gt = np.zeros((size[0] + i, size[1]), bool)
        gt[5 : 15 + i, 8 : 30 + 2 * i] = True
        yield np.clip(0.25 + 0.5 * gt + 0.2 * rng.standard_normal(gt.shape), 0, 1).astype(np.float32), gt


def test_a_hand_worked_image():
    gt = np.array([[1, 1, 0, 0]], bool)
    soft = np.array([[0.9, 0.4, 0.6, 0.1]])
    out = metrics.evaluate_masks([soft], [gt])
    assert out["iou"] == pytest.approx(1 / 3)
    assert out["acc"] == pytest.approx(1 / 2)
    # thresholds in [.1, .4) give P 2/3, R 1: F = 1.3 (2/3) / (.2 + 1); above .6, P 1, R 1/2: F = .65 / .8
    assert out["max_f"] == pytest.approx(max(1.3 * 2 / 3 / 1.2, 0.65 / 0.8))
    assert out["f_half"] == pytest.approx(0.5)
    assert out["n"] == 1 and out["preset"] == "tokencut" and out["family"] == "tokencut"


def test_beta_squared_once_more_weighs_precision_eleven_times():
    gt = np.array([[1, 1, 0, 0]], bool)
    mask = np.array([[1, 1, 1, 0]], bool)  # precision 2/3, recall 1
    f = {
        k: metrics.evaluate_masks([mask], [gt], k, ci=False)["f_half"]
        for k in ("tokencut", "selfmask", "unioncut")
    }
    assert f["tokencut"] == pytest.approx(1.3 * (2 / 3) / (0.3 * 2 / 3 + 1))
    assert f["selfmask"] == f["unioncut"] == pytest.approx(1.09 * (2 / 3) / (0.09 * 2 / 3 + 1))


def slow_f(p, g, s):
    """The definition, one threshold at a time."""
    out = []
    for t in np.asarray(s.thresholds, p.dtype):
        b = p > t if s.strict else p >= t
        tp = (b * g).sum()
        precision = tp / b.sum() if b.any() else s.empty
        recall = tp / g.sum() if g.any() else s.empty
        d = s.beta2 * precision + recall
        out.append((1 + s.beta2) * precision * recall / d if d else 0.0)
    return np.array(out)


@pytest.mark.parametrize("name", SALIENCY)
def test_histogram_equals_loop_over_thresholds(name):
    s = replace(metrics.PRESETS[name](), crop=None)
    out = metrics.evaluate_masks(*zip(*scenes(), strict=True), s, ci=False)
    for (p, g), curve in zip(scenes(), out["curve"], strict=True):
        if s.eight_bit:
            p = np.floor(p * np.float32(255)) / np.float32(255)
        assert np.abs(curve - slow_f(p, g, s)).max() < 1e-12


@pytest.mark.parametrize("name", SALIENCY)
def test_perfect_and_range(name):
    gts = [np.pad(np.ones((20, 30), bool), 15)] * 2
    out = metrics.evaluate_masks(gts, gts, name, ci=False)
    # enlarged 6.7 times, whole rows of the rim are exactly half grey: 128 of 255 in 8 bit, not above .5 in float
    close = 0.03 if name.startswith("sempart_star") else 1e-9
    for key in ("iou", "acc", "max_f"):
        assert out[key] == pytest.approx(1, abs=close)
    out = metrics.evaluate_masks(*zip(*scenes(), strict=True), name)
    for key in ("iou", "acc", "max_f", "f_half", "mae"):
        assert 0 <= out[key] <= 1
        assert out[key] == pytest.approx(out["per_image"][key].mean())
    for key, (low, high) in out["ci95"].items():
        assert low <= out[key] + 1e-12 and high >= out[key] - 1e-12


def test_max_over_images_is_never_below_the_common_threshold():
    p, g = zip(*scenes(6), strict=True)
    common = metrics.evaluate_masks(p, g, "move", ci=False)["max_f"]
    assert metrics.evaluate_masks(p, g, "move-per-image", ci=False)["max_f"] > common


def test_grey_ground_truth_separates_the_presets():
    gt = np.zeros((10, 10), np.uint8)
    gt[:2], gt[2:4], gt[4:6] = 255, 200, 60
    iou = {
        k: metrics.evaluate_masks([gt > 127], [gt], k, ci=False)["iou"] for k in ("tokencut", "move", "found")
    }
    assert iou == {"tokencut": pytest.approx(4 / 6), "move": 1.0, "found": 0.5}


def test_empty_prediction_has_precision_one_or_zero():
    gt = np.eye(5, dtype=bool)
    nothing = np.zeros((5, 5))
    for name in SALIENCY:
        out = metrics.evaluate_masks([nothing], [gt], name, ci=False)
        assert out["max_f"] == pytest.approx(0) or name in ("diffncuts",)
    # precision 1 shows in the mean only: recall is 0, so F is 0 either way; >= keeps threshold 0 full
    both = metrics.evaluate_masks([nothing], [~gt & gt], "tokencut", ci=False)
    assert both["iou"] == 1 and both["max_f"] == 1


def test_void_pixels_count_nowhere():
    soft, gt = next(scenes())
    void = np.zeros_like(gt)
    void[:, 40:] = True
    spoiled = np.where(void, 1 - soft, soft)
    for name in SALIENCY:
        s = replace(metrics.PRESETS[name](), crop=None)
        cut = metrics.evaluate_masks([soft[:, :40]], [gt[:, :40]], s, ci=False)
        out = metrics.evaluate_masks([spoiled], [gt | void], s, [void], ci=False)
        for key in ("iou", "acc", "max_f", "f_adaptive", "mae"):
            assert out[key] == pytest.approx(cut[key]), (name, key)


def test_a_photograph_is_cropped_like_its_truth():
    truth = np.zeros((300, 450), np.uint8)
    truth[40:200, 100:330] = 255
    out = metrics.centre_crop(np.repeat(truth[..., None], 3, 2), 335, 320)
    assert out.shape == (320, 320, 3)
    assert (out == metrics.centre_crop(truth, 335, 320)[..., None]).all()
    with pytest.raises(SempartError, match="side=400"):
        metrics.centre_crop(truth, 335, 400)


def test_crop_of_sempart_star_is_pil_resize_and_centre():
    rng = np.random.default_rng(1)
    gt = (rng.random((50, 80)) > 0.5).astype(np.uint8) * 255
    soft = rng.random((50, 80)).astype(np.float32)

    def resize(a):
        big = Image.fromarray(a).resize((536, 335), Image.Resampling.BILINEAR)
        return np.asarray(big)[8:328, 108:428]

    want = metrics.evaluate_masks(
        [resize(soft)], [resize(gt)], replace(metrics.PRESETS["sempart_star"](), crop=None), ci=False
    )
    got = metrics.evaluate_masks([soft], [gt], "sempart_star", ci=False)
    assert got["iou"] == want["iou"] and got["max_f"] == want["max_f"]
    tall = metrics.evaluate_masks([soft.T], [np.ascontiguousarray(gt.T)], "sempart_star", ci=False)
    assert tall["iou"] == pytest.approx(got["iou"], abs=5e-3)


def test_tensors_and_double_precision_are_welcome():
    soft, gt = next(scenes())
    a = metrics.evaluate_masks([soft], [gt], ci=False)
    b = metrics.evaluate_masks([torch.from_numpy(soft)], [torch.from_numpy(gt)], ci=False)
    c = metrics.evaluate_masks([soft.astype(np.float64) + 1e-14], [gt], ci=False)
    assert a["max_f"] == b["max_f"] and c["iou"] == a["iou"]


def rows(*presets):
    return [Record("t", f"row {i}", "max_f", 0.5 + i / 10, preset=p) for i, p in enumerate(presets)]


def test_a_comparison_of_one_family_is_a_table():
    assert metrics.compare(rows("tokencut", "move", "dss")) == {
        "row 0": {"max_f": 0.5},
        "row 1": {"max_f": 0.6},
        "row 2": {"max_f": 0.7},
    }


@pytest.mark.parametrize("pair", [("tokencut", "selfmask"), ("corloc_ge", "corloc_gt"), ("tokencut", "")])
def test_mixed_families_are_refused_unless_asked_for(pair):
    with pytest.raises(SempartError, match="mixes metric families"):
        metrics.compare(rows(*pair))
    assert len(metrics.compare(rows(*pair), mixed=True)) == 2


def test_compare_takes_reported_rows_and_refuses_doubles():
    reported = {"row": "FOUND", "metric": "max_f", "value": 0.955, "family": "selfmask"}
    assert metrics.compare([reported, *rows("selfmask")])["FOUND"] == {"max_f": 0.955}
    with pytest.raises(SempartError, match="twice"):
        metrics.compare([reported, reported])


def test_bootstrap_covers_the_mean_and_is_deterministic():
    rng = np.random.default_rng(0)
    inside = 0
    for i in range(100):
        low, high = metrics.bootstrap_ci(rng.normal(0.3, 0.1, 60), seed=i, n=400)
        inside += low <= 0.3 <= high
    assert 85 <= inside <= 100
    x = rng.random(50)
    assert (
        metrics.bootstrap_ci(x, seed=3) == metrics.bootstrap_ci(x, seed=3) != metrics.bootstrap_ci(x, seed=4)
    )
    assert metrics.bootstrap_ci(np.full(9, 0.7)) == pytest.approx((0.7, 0.7))
    half = np.subtract(*metrics.bootstrap_ci(np.tile(x, 4)))
    assert half / np.subtract(*metrics.bootstrap_ci(x)) == pytest.approx(0.5, abs=0.1)


def test_bootstrap_of_curves_chooses_the_threshold_anew():
    curves = np.array([[1.0, 0.0], [0.0, 1.0]] * 10)  # the mean curve is (.5, .5): every resample does better
    low, high = metrics.bootstrap_ci(curves)
    assert low >= 0.5 and high > 0.6


@pytest.mark.parametrize("bad", [[], [np.nan], np.zeros((2, 2, 2))])
def test_bootstrap_refuses(bad):
    with pytest.raises(SempartError, match="bootstrap"):
        metrics.bootstrap_ci(bad)


def test_corloc_rules_missing_boxes_and_denominator():
    gt = [np.array([[0, 0, 10, 10]])] * 3 + [np.zeros((0, 4))]
    pred = [np.array([0, 0, 10, 5]), None, np.full(4, np.nan), np.array([0, 0, 1, 1])]
    ge, gt_rule = (metrics.corloc(pred, gt, rule) for rule in (">=", ">"))
    assert ge["corloc"] == pytest.approx(1 / 3) and ge["n"] == 3 and ge["preset"] == "corloc_ge"
    assert gt_rule["corloc"] == 0 and gt_rule["preset"] == "corloc_gt"
    assert ge["used"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("side", [3, 7, 1001, 2999])
def test_half_a_box_is_exactly_one_half(side):
    assert metrics.box_iou([0, 0, 2 * side, side], [[0, 0, side, side]])[0] == 0.5


def test_three_one_box_rules_give_three_boxes():
    mask = np.zeros((12, 12), bool)
    mask[0, 0] = True  # the seed's component
    mask[3:7, 3:7] = True  # the largest area: 16
    mask[8:12, 0] = mask[11, :12] = True  # an L of 15 cells with the largest box
    assert metrics.one_box(mask, "seed", seed=0).tolist() == [0, 0, 1, 1]
    assert metrics.one_box(mask, "largest-area", patch=2).tolist() == [6, 6, 14, 14]
    assert metrics.one_box(mask, "largest-box").tolist() == [0, 8, 12, 12]
    for rule in ("seed", "largest-area", "largest-box"):
        assert metrics.one_box(np.zeros((3, 3)), rule, seed=0) is None


def test_matching_recovers_a_permutation_and_ignores():
    rng = np.random.default_rng(0)
    gt = rng.integers(0, 6, 3000)
    names = np.array([40, 10, 30, 20, 60, 50])
    pred = names[gt]
    noise = rng.random(3000) < 0.2
    pred[noise] = rng.choice(names, noise.sum())
    want = {int(n): i for i, n in enumerate(names)}
    assert dict(metrics.hungarian_match(pred, gt).tolist()) == want
    assert dict(metrics.majority_vote(pred, gt).tolist()) == want
    spoiled = np.where(gt == 2, 255, gt)
    assert 255 not in metrics.hungarian_match(pred, spoiled)[:, 1]


def test_majority_vote_may_share_a_class_but_matching_may_not():
    gt, pred = np.repeat([0, 1], [6, 2]), np.array([0, 0, 0, 1, 1, 1, 2, 2])
    assert metrics.majority_vote(pred, gt).tolist() == [[0, 0], [1, 0], [2, 1]]
    assert len(set(metrics.hungarian_match(pred, gt)[:, 1])) == len(metrics.hungarian_match(pred, gt)) == 2


soft, gt = np.full((4, 4), 0.5), np.eye(4, dtype=bool)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.evaluate_masks([soft], [gt], "guess"), "choose one of: tokencut"),
        (lambda: metrics.evaluate_masks([soft[:3]], [gt]), "resize the prediction"),
        (lambda: metrics.evaluate_masks([soft * np.nan], [gt]), "NaN"),
        (lambda: metrics.evaluate_masks([soft * 50], [gt]), "not logits"),
        (lambda: metrics.evaluate_masks([(soft * 200).astype(np.uint8)], [gt]), "give float"),
        (lambda: metrics.evaluate_masks([soft], [gt.astype(float)]), "ground truth of type"),
        (lambda: metrics.evaluate_masks([soft], [gt.astype(np.uint8)], "move"), "give bool"),
        (lambda: metrics.evaluate_masks([soft], [gt], void=[gt | True]), "every pixel is void"),
        (lambda: metrics.evaluate_masks([soft], [gt], void=[gt[:2]]), "void"),
        (lambda: metrics.evaluate_masks([soft], []), "give one each"),
        (lambda: metrics.evaluate_masks([], []), "no image"),
        (lambda: metrics.corloc([None], [np.zeros((0, 4))]), "nothing to count"),
        (lambda: metrics.corloc([None], []), "give one each"),
        (lambda: metrics.corloc([None], [[]], "≥"), "choose '>='"),
        (lambda: metrics.box_iou([0, 0, 0, 0], [[1, 1, 1, 1]]), "without area"),
        (lambda: metrics.one_box(gt, "seed"), "needs the seed"),
        (lambda: metrics.one_box(gt, "best"), "choose one of: seed"),
        (lambda: metrics.hungarian_match([1, 2], [1]), "one of each"),
        (lambda: metrics.hungarian_match([1], [255]), "no labelled pixel"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(SempartError, match=words):
        call()
