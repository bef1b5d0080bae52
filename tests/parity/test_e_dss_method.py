"""Vector e: Deep Spectral's mask and boxes through the method, from features and image to pixels."""

import numpy as np
import pytest
import torch

from sempart_core.features import Features
from sempart_core.methods import METHODS
from sempart_core.methods.base import pixel_boxes
from sempart_core.methods.deep_spectral import localise


def case(z):
    h, w = z["lam0_fiedler_mask"].shape
    # The code shrinks the uncropped 8-bit photograph, not the cropped one that the network sees, so the
    # stored small image is what the colour term is given.
    im = torch.from_numpy(z["knn16_image_lr"]).permute(2, 0, 1).float()[None]
    return Features(torch.from_numpy(z["feats"])[None], grid=(h, w), patch=16, images=im)


def test_feature_graph(vectors):
    z = vectors("e_dss_eigs")
    p = METHODS["deep-spectral"](variant="code").predict(case(z))
    np.testing.assert_array_equal(p.mask[0].numpy(), z["lam0_fiedler_mask"] > 0)
    np.testing.assert_array_equal(p.boxes[0].numpy(), z["lam0_box_xyxy"])
    np.testing.assert_array_equal(localise(p.mask[0].numpy()), z["lam0_largest_cc"] > 0)
    ref = torch.from_numpy(z["lam0_eigenvectors"][1])
    y = p.eigenvectors[0, 0].float()
    assert 1 - torch.nn.functional.cosine_similarity(y, ref, dim=0) < 1e-4  # sign rule included


def test_colour_graph(vectors):
    z = vectors("e_dss_eigs")
    p = METHODS["deep-spectral"](variant="code-colour").predict(case(z))
    ref = torch.from_numpy(z["lam10_knn_16_eigenvectors"][1])
    y = p.eigenvectors[0, 0].float()
    assert 1 - torch.nn.functional.cosine_similarity(y, ref, dim=0) < 1e-4
    np.testing.assert_array_equal(p.boxes[0].numpy(), z["lam10_knn_16_box_xyxy"])


@pytest.mark.parametrize("key, cell", [("lam10_knn_16", 16), ("lam10_knn_8", 8)])
def test_boxes_from_stored_vectors(vectors, key, cell):
    z = vectors("e_dss_eigs")
    h, w = (s * 16 // cell for s in z["lam0_fiedler_mask"].shape)
    mask = z[f"{key}_eigenvectors"][1].reshape(h, w) > 0
    from sempart_core import regions

    box = pixel_boxes([regions.box_of(localise(mask))], (h, w), (h * cell, w * cell), (h * cell, w * cell))
    np.testing.assert_array_equal(box[0].numpy(), z[f"{key}_box_xyxy"])
