"""CorLoc of LOST, FOUND's box of a segmentation, and the boxes read from VOC and COCO annotations."""

from itertools import pairwise

import numpy as np
import pytest

from sempart_core import annotations, metrics, regions


@pytest.fixture(scope="module")
def arrays(vectors):
    return vectors("h_corloc")


def _gt(arrays):
    ptr = arrays["gt_ptr"]
    return [arrays["gt"][a:b] for a, b in pairwise(ptr)]


def test_every_iou_is_exact(arrays):
    ours = np.concatenate([metrics.box_iou(p, g) for p, g in zip(arrays["pred"], _gt(arrays), strict=True)])
    assert ours.dtype == np.float32
    assert np.array_equal(ours, arrays["iou_all"])


@pytest.mark.parametrize(("rule", "hits"), [(">=", "hit_ge"), (">", "hit_gt")])
def test_hits_under_both_rules(arrays, rule, hits):
    out = metrics.corloc(list(arrays["pred"]), _gt(arrays), rule, ci=False)
    assert np.array_equal(out["per_image"]["iou"], arrays["iou_max"])
    assert np.array_equal(out["per_image"]["hit"], arrays[hits])
    assert out["corloc"] == arrays[hits].mean()
    assert np.abs(out["per_image"]["iou"] - arrays["found_iou_max"]).max() < 1e-6


def test_box_of_the_largest_component_as_in_found(arrays):
    box = metrics.one_box(arrays["found_seg"], "largest-area")
    patch = arrays["found_box_largest_cc"][2] / box[2]  # the side of a patch is not stored
    assert patch == int(patch)
    assert np.array_equal(
        metrics.one_box(arrays["found_seg"], "largest-area", patch=int(patch)), arrays["found_box_largest_cc"]
    )
    assert np.array_equal(
        regions.boxes_of(arrays["found_seg"], int(patch))[0], arrays["found_box_largest_cc"]
    )


@pytest.fixture(scope="module")
def raw(sidecar):
    """The annotations that the stored boxes were read from: dictionaries, so they are in the sidecar."""
    return sidecar("h_corloc")["results"]


def test_boxes_of_voc_annotations(arrays, raw):
    assert np.array_equal(annotations.voc_boxes(raw["voc_gt"]), arrays["voc_all"])
    assert np.array_equal(annotations.voc_boxes(raw["voc_gt"], hards=False), arrays["voc_nohards"])


def test_boxes_of_coco_annotations(arrays, raw):
    assert np.array_equal(annotations.coco_boxes(raw["coco_gt"]), arrays["coco_boxes"])
