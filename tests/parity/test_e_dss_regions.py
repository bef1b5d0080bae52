"""Deep Spectral: masks, boxes, border rule, morphology and cluster matching from the stored inputs."""

import numpy as np
import pytest

from sempart_core import metrics, regions


@pytest.fixture(scope="module")
def arrays(vectors):
    return vectors("e_dss_eigs")


def _grid(arrays, n):
    """Rows, columns and patch side of a stored eigenvector, from the image it belongs to."""
    H, W = arrays["image"].shape[:2]
    for patch in range(1, min(H, W)):
        if (H // patch) * (W // patch) == n:
            return H // patch, W // patch, patch
    raise AssertionError(f"no patch side divides {H}x{W} into {n} cells")


def test_boxes_of_all_stored_eigenvectors(arrays):
    tags = [k.removesuffix("_box_xyxy") for k in arrays if k.endswith("_box_xyxy")]
    assert tags
    for tag in tags:
        v = arrays[f"{tag}_eigenvectors"][1]
        h, w, patch = _grid(arrays, v.size)
        mask = v.reshape(h, w) > 0
        mask = ~mask if 0.5 < mask.mean() < 1 else mask
        box = regions.box_of(regions.largest_component(mask, 8), patch)
        assert np.array_equal(box, arrays[f"{tag}_box_xyxy"]), tag


def test_component_erosion_dilation(arrays):
    mask = arrays["lam0_fiedler_mask"]
    h, w, _ = _grid(arrays, arrays["lam0_eigenvectors"].shape[1])
    assert np.array_equal(arrays["lam0_eigenvectors"][1].reshape(h, w) > 0, mask > 0)
    assert np.array_equal(regions.largest_component(mask, 8), arrays["lam0_largest_cc"] > 0)
    for key in arrays:
        for name, change in (("lam0_erode", regions.erode), ("lam0_dilate", regions.dilate)):
            if key.startswith(name):
                ours = change(mask, int(key.removeprefix(name)))
                assert np.array_equal(ours, arrays[key] > 0), key


def test_border_rule(arrays):
    values, shares = regions.border_fraction(arrays["lam0_fiedler_mask"])
    assert np.array_equal(values, arrays["lam0_border_idx"])
    assert np.abs(shares - arrays["lam0_border_frac"]).max() < 1e-12


def test_matching(arrays):
    gt = arrays["hung_gt"]
    assert np.array_equal(metrics.hungarian_match(arrays["hung_pred"], gt), arrays["hung_match"])
    assert np.array_equal(metrics.majority_vote(arrays["hung_pred7"], gt), arrays["hung_majority7"])
