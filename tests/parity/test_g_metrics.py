"""IoU, Acc and F of eight public implementations on the same maps (S- and E-measures are not offered)."""

from dataclasses import replace

import numpy as np
import pytest

from sempart_core import metrics

# Array name in the file -> preset and key of our result. The file's maps were not cropped.
NAMES = {
    "tokencut|IoU": ("tokencut", "iou"),
    "tokencut|Acc": ("tokencut", "acc"),
    "tokencut|Fmax": ("tokencut", "max_f"),
    "dss|IoU": ("dss", "iou"),
    "dss|Acc": ("dss", "acc"),
    "dss|Fmax": ("dss", "max_f"),
    "segmentation_tricks|IoU": ("sempart_star", "iou"),
    "segmentation_tricks|Acc": ("sempart_star", "acc"),
    "segmentation_tricks|Fmax_use_fmax": ("sempart_star", "max_f"),
    "segmentation_tricks|F_not_max": ("sempart_star-default", "max_f"),
    "found_multi|ious": ("found", "iou"),
    "found_multi|pixel_accs": ("found", "acc"),
    "found_multi|f_scores": ("found", "f_half"),
    "found_multi|f_maxs": ("found", "max_f"),
    "found_multi|f_maxs_fixed": ("found", "max_f"),
    "found_multi|f_means": ("found", "f_adaptive"),
    "selfmask|IoU": ("selfmask", "iou"),
    "selfmask|Acc": ("selfmask", "acc"),
    "selfmask|f_score": ("selfmask", "f_half"),
    "selfmask|f_max": ("selfmask", "max_f"),
    "selfmask|f_mean": ("selfmask", "f_adaptive"),
    "selfmask|mae": ("selfmask", "mae"),
    "move|Mean IoU": ("move", "iou"),
    "move|Mean Accuracy": ("move", "acc"),
    "move|FBeta (not max)": ("move", "f_half"),
    "move_fbeta|Mean IoU": ("move", "iou"),
    "move_fbeta|Mean Accuracy": ("move", "acc"),
    "move_fbeta|FBetaMax": ("move", "max_f"),
    "move_fbeta|FBetaMaxPerImg": ("move-per-image", "max_f"),
    "diffncuts|IoU": ("diffncuts", "iou"),
    "diffncuts|Acc": ("diffncuts", "acc"),
    "diffncuts|Fmax": ("diffncuts", "max_f"),
    "unioncut|IoU": ("unioncut", "iou"),
    "unioncut|Acc": ("unioncut", "acc"),
    "unioncut|F": ("unioncut", "max_f"),
}
# FOUND's mae is taken on the binary mask, so it is 1 - Acc; S-measures and settings are no metric of ours.
ELSEWHERE = {"maes", "s_measures", "s_measure", "Threshold", "FBetaArgMax", "f_max", "f_measure"}


@pytest.fixture(scope="module")
def arrays(vectors):
    return vectors("g_metrics")


def _inputs(arrays, case):
    soft = arrays["pred_soft"]
    preds = soft if case.startswith("soft") else (soft > 0.5).astype(np.float32)
    return preds, arrays["gt_grey_u8" if case.endswith("greyGT") else "gt_u8"]


def _evaluate(arrays, case, preset, **changes):
    return metrics.evaluate_masks(
        *_inputs(arrays, case), replace(metrics.PRESETS[preset](), crop=None, **changes), ci=False
    )


def _cases(arrays):
    return sorted({k.split("|")[0] for k in arrays if k.count("|") >= 1})


def test_every_number_of_every_implementation(arrays):
    results, missing = {}, []
    for key in (k for k in arrays if k.count("|") == 2):
        case, name = key.split("|", 1)
        if name not in NAMES:
            if name.split("|")[1] not in ELSEWHERE:
                missing.append(key)
            continue
        preset, ours = NAMES[name]
        if (case, preset) not in results:
            results[case, preset] = _evaluate(arrays, case, preset)
        tolerance = 1e-5 if preset.startswith("move") else 1e-6
        assert results[case, preset][ours] == pytest.approx(float(arrays[key]), abs=tolerance), key
    assert results and not missing


def test_curves_of_tokencut(arrays):
    soft, gt = arrays["pred_soft"], arrays["gt_u8"]
    thresholds = np.array(metrics.PRESETS["tokencut"]().thresholds)
    assert np.abs(thresholds - arrays["tokencut_thresholds"]).max() < 1e-15
    p, r = arrays["tokencut_precision"].astype(float), arrays["tokencut_recall"].astype(float)
    with np.errstate(invalid="ignore"):
        f = np.nan_to_num(1.3 * p * r / (0.3 * p + r))
    ours = metrics.evaluate_masks(soft, gt, "tokencut", ci=False)["curve"]
    assert np.abs(ours - f).max() < 1e-6


def test_found_per_image_and_the_order_of_mean_and_max(arrays):
    for case in _cases(arrays):
        found = _evaluate(arrays, case, "found")
        per_image = found["per_image"]
        assert np.abs(per_image["max_f"] - arrays[f"{case}|found_perimage|f_max"]).max() < 1e-6
        assert np.abs(per_image["f_half"] - arrays[f"{case}|found_perimage|f_measure"]).max() < 1e-6
        assert 1 - found["acc"] == pytest.approx(float(arrays[f"{case}|found_multi|maes"]), abs=1e-6)
        swapped = _evaluate(arrays, case, "found", aggregate="mean-then-max")
        assert swapped["max_f"] == pytest.approx(float(arrays[f"{case}|found_dataset_max_of_mean"]), abs=1e-6)


def test_best_threshold_of_move(arrays):
    for case in _cases(arrays):
        best = _evaluate(arrays, case, "move")["threshold"]
        assert best == pytest.approx(float(arrays[f"{case}|move_fbeta|FBetaArgMax"]) / 256)
