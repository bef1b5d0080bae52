"""The inversion of masks in segmentation-tricks (vectors f).

The stored function looks at the corners of each mask after averaging it to patches. The published evaluation
does not call it: there a whole batch is inverted if its mean exceeds 1/2, which is our ``batch-mean``. On the
stored masks both invert everything, so what is compared is the outcome, not the rule.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sempart_core import foreground


@pytest.fixture(scope="module")
def z(vectors):
    return vectors("f_sempart_losses")


def given(z):
    """``B x h x w`` masks the stored function was given: the fine masks, made paler and lifted."""
    return 0.08 + 0.9 * torch.from_numpy(z["S_fine"])[:, 0]


def test_a_batch_of_more_than_half_is_inverted(z):
    soft = given(z)
    assert soft.mean() > 0.5
    flip = foreground.flips(soft > 0.5, "batch-mean", soft=soft)[:, None, None]
    np.testing.assert_allclose(torch.where(flip, 1 - soft, soft), z["decide_foreground"][:, 0], atol=1e-6)


def test_the_stored_rule_by_corners_inverts_them_too(z):
    """``least-corners`` is that rule for masks that are 0 or 1 on whole patches, ties apart."""
    soft = given(z)
    cells = torch.nn.functional.interpolate(soft[:, None], scale_factor=1 / 8, mode="bilinear")[:, 0]
    assert (cells[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean(1) > 0.5).all()
