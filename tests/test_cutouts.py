"""Pictures of a mask: alpha, what is hidden, and an overlay that fits a screen."""

import io

import numpy as np
import pytest
from colour_backbone import scene
from PIL import Image

from sempart_core import cutouts


def test_alpha_is_above_127_exactly_where_the_mask_is():
    steps = np.arange(-2000, 2000, dtype=np.float32)
    soft = np.concatenate([0.5 + steps * np.float32(6e-8), [0, 0.4, 0.6, 1]]).astype(np.float32)[None]
    alpha = cutouts.matte(soft)
    np.testing.assert_array_equal(alpha > 127, soft > 0.5)
    assert alpha[0, -4:].tolist() == [0, 0, 255, 255] and alpha.dtype == np.uint8


def test_what_is_cut_away_is_not_in_the_file():
    image, mask = scene()
    out = cutouts.cutout(image, mask.astype(np.float32))
    np.testing.assert_array_equal(out[mask][:, :3], image[mask])
    assert not out[~mask].any()


@pytest.mark.parametrize("side", [112, 56])
def test_an_overlay_is_reduced_with_its_box(monkeypatch, side):
    monkeypatch.setattr(cutouts, "OVERLAY_SIDE", side)
    image, mask = scene(noise=0)
    out = cutouts.overlay(image, mask, np.array([[28.0, 42.0, 84.0, 98.0]]))
    k = 112 // side
    assert out.shape == (side, side, 3)
    frame = (out == 255).all(-1)
    assert frame[42 // k, 28 // k : 84 // k].all() and frame[42 // k : 98 // k, 84 // k - 1].all()
    assert frame.sum() == 4 * (56 // k) - 4
    np.testing.assert_array_equal(out[5 // k, 5 // k], np.round(0.55 * image[5, 5].astype(float)))
    tinted = 0.75 * image[70, 56] + 0.25 * np.array(cutouts.OVERLAY_COLOUR)
    np.testing.assert_allclose(out[70 // k, 56 // k], tinted, atol=1)
    bare = cutouts.overlay(image, mask, np.zeros((0, 4)))
    assert (bare[42 // k, 30 // k] == cutouts.OVERLAY_COLOUR).all()


def test_png_keeps_every_value():
    image, _ = scene()
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(cutouts.png(image)))), image)
