"""Vector b: LOST's degrees, expansion and box, exactly, given the order in which its sort left the ties."""

import numpy as np
import torch

from sempart_core import regions
from sempart_core.methods.base import pixel_boxes
from sempart_core.methods.lost import degrees, expand


def test_lost(vectors):
    z = vectors("b_lost_box")
    tags = sorted(k[: -len("_feats")] for k in z if k.endswith("_feats"))
    assert tags
    for tag in tags:
        x = torch.from_numpy(z[f"{tag}_feats"])
        h, w = (int(v) for v in tag.split("_")[0].split("x"))
        d = degrees(x[None])[0]
        np.testing.assert_array_equal(d.numpy(), -z[f"{tag}_neg_degree"])
        order = torch.from_numpy(z[f"{tag}_order"]).long()
        assert (d[order].diff() >= 0).all(), "the stored order sorts our degrees"
        assert d[order[0]] == d.min() and int(order[0]) == int(z[f"{tag}_seed"])
        similars, M = expand(x, order, 100)
        np.testing.assert_array_equal(similars.numpy(), z[f"{tag}_similars"])
        np.testing.assert_allclose(M.numpy(), z[f"{tag}_M"], rtol=2e-5, atol=1e-3)
        mask = regions.component_of((z[f"{tag}_M"] > 0).reshape(h, w), int(order[0]))
        np.testing.assert_array_equal(M.numpy() > 0, z[f"{tag}_M"] > 0)
        hw = tuple(int(v) for v in z[f"{tag}_image_hw"])
        box = pixel_boxes([regions.box_of(mask)], (h, w), (h * 16, w * 16), hw)
        np.testing.assert_array_equal(box[0].numpy(), z[f"{tag}_box_xyxy"])
