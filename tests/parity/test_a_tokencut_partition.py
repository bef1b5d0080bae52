"""Vector a: seed, component, box of TokenCut's discovery path and mask of its saliency path, exactly."""

import numpy as np
import pytest
import torch

from sempart_core.features import Features
from sempart_core.methods import METHODS
from sempart_core.methods.base import Prediction
from sempart_core.methods.tokencut import bipartition


def tags(z):
    return sorted(k[: -len("_feats")] for k in z if k.endswith("_feats"))


def features(z, tag, size=None):
    grid = z[f"{tag}_bin_mask"].shape
    return Features(torch.from_numpy(z[f"{tag}_feats"])[None], grid=grid, patch=16, size=size)


def test_discovery(vectors):
    z = vectors("a_tokencut_ncut")
    assert tags(z)
    for tag in tags(z):
        hw = tuple(int(v) for v in z[f"{tag}_image_hw"])
        p = METHODS["tokencut-discovery"](tau=0.2, eps=1e-5).predict(features(z, tag, hw))
        assert int(p.seed) == int(z[f"{tag}_bin_seed"])
        np.testing.assert_array_equal(p.mask[0].numpy(), z[f"{tag}_bin_mask"] > 0)
        np.testing.assert_array_equal(p.boxes[0].numpy(), z[f"{tag}_bin_box_xyxy"])
        ref = torch.from_numpy(z[f"{tag}_bin_eigvec"]).flatten()
        y = p.eigenvectors[0, 0].double()
        # the reference is stored with the sign that makes the seed foreground, as bipartition returns it
        assert 1 - torch.nn.functional.cosine_similarity(y, ref, dim=0) < 1e-9


def test_cosine_graph_partition(vectors):
    """``--no-binary-graph``: the reference solved in float32, its stored vector decides the partition."""
    z = vectors("a_tokencut_ncut")
    for tag in tags(z):
        y = torch.from_numpy(z[f"{tag}_nobin_eigvec"]).flatten()[None]
        side, seed, _ = bipartition(y)
        assert int(seed) == int(z[f"{tag}_nobin_seed"])
        labels = z[f"{tag}_nobin_labels"].ravel()
        np.testing.assert_array_equal(side[0].numpy(), labels > 0)
        mask = z[f"{tag}_nobin_mask"].ravel() > 0
        np.testing.assert_array_equal(labels == labels[int(seed)], mask)


def test_saliency(vectors):
    z = vectors("a_tokencut_ncut")
    for tag in tags(z):
        hw = tuple(int(v) for v in z[f"{tag}_image_hw"])
        p = METHODS["tokencut"](tau=0.2).predict(features(z, tag))
        assert int(p.seed) == int(z[f"{tag}_sal_seed"])
        up = p.resize(hw, mode="nearest")
        np.testing.assert_array_equal(up.mask[0].numpy(), z[f"{tag}_sal_mask_image"] > 0)
        # the eigenvector is drawn at the image's size in the same way
        y = Prediction(p.eigenvectors[:, 0].reshape(1, *p.mask.shape[-2:]), p.mask, size=p.size)
        row = y.resize(hw, mode="nearest").soft[0, 0].numpy()
        ref = z[f"{tag}_sal_eigvec_image_row0"]
        assert min(np.abs(row - ref).max(), np.abs(row + ref).max()) < 1e-5


@pytest.mark.parametrize("sign", [1, -1])
def test_sign_does_not_matter(sign):
    y = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, s, v = bipartition(y)
    b, t, w = bipartition(sign * y)
    assert torch.equal(a, b) and torch.equal(s, t) and torch.equal(v, w)
    assert a.gather(1, s[:, None]).all()
