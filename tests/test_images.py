"""Photographs of every mode arrive as upright 8-bit RGB, and a bad file is named."""

import numpy as np
import pytest
import torch
from PIL import Image

from sempart_core import SempartError
from sempart_core.images import read_image, read_labels, to_tensor


def save(path, array, mode=None, **kw):
    Image.fromarray(array).convert(mode).save(path, **kw) if mode else Image.fromarray(array).save(path, **kw)
    return path


@pytest.fixture
def rgb():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_rgb_is_read_as_stored(tmp_path, rgb):
    assert np.array_equal(read_image(save(tmp_path / "a.png", rgb)), rgb)


def test_grey_and_palette_become_three_channels(tmp_path, rgb):
    grey = rgb[..., 0]
    out = read_image(save(tmp_path / "g.png", grey))
    assert out.shape == (20, 30, 3) and np.array_equal(out[..., 1], grey)
    pal = Image.fromarray(rgb).quantize(8)
    pal.save(tmp_path / "p.png")
    assert np.array_equal(read_image(tmp_path / "p.png"), np.array(pal.convert("RGB")))


def test_transparency_is_laid_over_white(tmp_path, rgb):
    alpha = np.zeros((20, 30), np.uint8)
    alpha[:10] = 255
    alpha[10] = 128
    out = read_image(save(tmp_path / "t.png", np.dstack([rgb, alpha])))
    assert np.array_equal(out[:10], rgb[:10])
    assert (out[11:] == 255).all()
    expected = (rgb[10].astype(float) * 128 + 255 * 127) / 255
    assert np.abs(out[10] - expected).max() <= 1
    pal = Image.fromarray(rgb).quantize(4)
    pal.save(tmp_path / "pt.png", transparency=0)
    hidden = np.array(pal) == 0
    assert hidden.any() and (read_image(tmp_path / "pt.png")[hidden] == 255).all()


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 6), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    out = read_image(tmp_path / "c.jpg")
    assert out.shape == (6, 8, 3) and out[..., 0].min() > 240 and out[..., 1:].max() < 15


@pytest.mark.parametrize("orientation, turn", [(3, 2), (6, 3), (8, 1)])
def test_exif_rotation(tmp_path, rgb, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / "e.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "e.png"), np.rot90(rgb, turn))


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    out = read_image(save(tmp_path / "s.png", ramp))
    assert np.array_equal(out[..., 0], np.round(ramp / 257).astype(np.uint8))
    dim = (ramp // 100).astype(np.uint16)  # not stretched to what the picture uses
    assert read_image(save(tmp_path / "d.tif", dim)).max() <= 3


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_not_an_image_is_named(tmp_path, content):
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(SempartError, match=r"bad\.jpg"):
        read_image(tmp_path / "bad.jpg")


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_truncated_is_named(tmp_path, ending):
    big = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    save(tmp_path / f"whole.{ending}", big)
    data = (tmp_path / f"whole.{ending}").read_bytes()
    (tmp_path / f"half.{ending}").write_bytes(data[: len(data) // 2])
    with pytest.raises(SempartError, match=rf"half\.{ending}"):
        read_image(tmp_path / f"half.{ending}")


def test_absent_is_named(tmp_path):
    with pytest.raises(SempartError, match=r"nothing\.png"):
        read_image(tmp_path / "nothing.png")


def test_labels_keep_their_ids(tmp_path):
    ids = np.array([[0, 1, 20, 255]], np.uint8)
    im = Image.fromarray(ids)
    im.save(tmp_path / "l.png")
    assert np.array_equal(read_labels(tmp_path / "l.png"), ids)
    p = im.copy()
    p.putpalette(list(range(255, -1, -1)) * 3)
    p.save(tmp_path / "p.png")
    assert np.array_equal(read_labels(tmp_path / "p.png"), ids)
    Image.fromarray(ids > 0).save(tmp_path / "one.png")
    assert np.array_equal(read_labels(tmp_path / "one.png"), [[0, 255, 255, 255]])
    Image.fromarray(np.repeat(ids[..., None], 3, 2)).save(tmp_path / "rgb.png")
    assert np.array_equal(read_labels(tmp_path / "rgb.png"), ids)
    wide = np.array([[0, 40000]], np.uint16)
    save(tmp_path / "w.png", wide)
    assert np.array_equal(read_labels(tmp_path / "w.png"), wide)


def test_to_tensor(rgb):
    t = to_tensor([rgb, rgb[::-1]])
    assert t.shape == (2, 3, 20, 30) and t.dtype == torch.float32
    assert torch.equal(t[0], torch.from_numpy(rgb).permute(2, 0, 1) / 255)
    assert to_tensor([rgb, rgb[:9]], 16).shape == (2, 3, 16, 16)


def test_reduction_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = to_tensor([stripes], 8)
    assert (small - 0.5).abs().max() < 0.02  # sampling without a filter would give 0 or 1


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [np.zeros((4, 4), np.uint8)],
        [np.zeros((4, 4, 3))],
        [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)],
    ],
)
def test_to_tensor_refuses(bad):
    with pytest.raises(SempartError):
        to_tensor(bad)
