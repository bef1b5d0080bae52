"""The bilateral solver as TokenCut, FOUND, MOVE and segmentation-tricks call it, and what follows it."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sempart_core import binarise, refine
from sempart_core.bilateral import VARIANTS, Grid, bilateral_solver

SIGMAS = {"tc": "tokencut", "default": "default"}
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def arrays(vectors):
    return vectors("c_bilateral_solver")


@pytest.fixture(scope="module")
def tags(arrays):
    found = [k.removesuffix("_image") for k in arrays if k.endswith("_image")]
    assert found
    return found


def _enlarge(a, size):
    """cv2.resize of a float mask is bilinear with half-pixel centres."""
    t = torch.from_numpy(np.ascontiguousarray(a)).float()[None, None]
    return F.interpolate(t, size, mode="bilinear", align_corners=False)[0, 0].numpy()


def test_soft_output_and_diagonals(arrays, tags):
    for tag in tags:
        for name, sigmas in SIGMAS.items():
            grid = Grid(arrays[f"{tag}_image"], VARIANTS[sigmas])
            assert np.abs(grid.Dn - arrays[f"{tag}_{name}_Dn"]).max() < 1e-9
            assert np.abs(grid.Dm - arrays[f"{tag}_{name}_Dm"]).max() < 1e-9
            soft = grid.solve(arrays[f"{tag}_mask"])
            assert np.abs(soft - arrays[f"{tag}_{name}_soft"]).max() < 1e-9
            binary = binarise.second_largest(soft)
            assert np.array_equal(binary, arrays[f"{tag}_{name}_binary_largestcc"] > 0)


def test_the_refiner_gives_the_same_as_the_solver(arrays, tags):
    for tag in tags:
        image = torch.from_numpy(arrays[f"{tag}_image"]).permute(2, 0, 1)[None] / 255
        mask = torch.from_numpy(arrays[f"{tag}_mask"])[None].double()
        for name, sigmas in SIGMAS.items():
            soft = refine.refine("bilateral", mask, image, sigmas=sigmas)[0].numpy()
            assert np.abs(soft - arrays[f"{tag}_{name}_soft"]).max() < 1e-9


def test_move_at_half_resolution(arrays, tags):
    for tag in tags:
        target = _enlarge(arrays[f"{tag}_mask"][::2, ::2], arrays[f"{tag}_mask"].shape)
        soft = bilateral_solver(arrays[f"{tag}_image"], target, "tokencut")
        assert np.abs(soft - arrays[f"{tag}_move_halfres_soft"]).max() < 1e-9


def test_found_all_components_and_safeguard(arrays, tags):
    for tag in tags:
        image = arrays[f"{tag}_image"]
        soft = bilateral_solver(image, arrays[f"{tag}_mask"], "tokencut")
        assert np.array_equal(binarise.all_but_largest(soft), arrays[f"{tag}_found_binary_allcc"] > 0)
        before = _enlarge(arrays[f"{tag}_found_apply_in"], image.shape[:2])
        assert np.abs(before - arrays[f"{tag}_found_apply_resized"]).max() < 1e-6
        before = arrays[f"{tag}_found_apply_resized"]
        binary = binarise.all_but_largest(bilateral_solver(image, before, "tokencut"))
        out, _ = binarise.keep_if_close(before, binary)
        assert np.array_equal(out, arrays[f"{tag}_found_apply_out"])


def test_segmentation_tricks(arrays, tags):
    """It feeds float colours that went through the backbone's normalisation and back, and masks times 255."""
    for tag in tags:
        image = torch.from_numpy(arrays[f"{tag}_image"]).float() / 255
        image = (((image - MEAN) / STD) * STD + MEAN).numpy() * 255
        soft = bilateral_solver(image, arrays[f"{tag}_st_pred"] * np.float32(255), "default") / 255
        assert np.abs(soft - arrays[f"{tag}_st_soft"]).max() < 1e-9
