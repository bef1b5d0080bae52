"""Reading photographs of any mode, and bringing them to the tensor a network wants."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import SempartError, UnreadableError

#: File endings counted as images when a folder is listed (lower case).
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read a photograph as 8-bit RGB, upright.

    EXIF rotation is applied. Grey, palette, CMYK and other modes are converted. Sixteen-bit grey is
    divided by 257 (the full range, not stretched to what the picture uses). Transparency is laid over
    white, as a browser page would show it: a cut-out with a hidden black rim would otherwise show it.

    Parameters
    ----------
    path : path
        Image file.

    Returns
    -------
    ndarray
        ``H x W x 3`` uint8.

    Raises
    ------
    SempartError
        The file is absent; the sentence names it. Its subclass ``UnreadableError``: not an image, or
        truncated.
    """
    with _open(path) as im:
        ImageOps.exif_transpose(im, in_place=True)  # no copy of a photograph that is upright
        if im.mode.startswith("I;16") or im.mode in ("I", "F"):
            im = _to_8bit(im)
        if im.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in im.info:
            im = im.convert("RGBA")
            im = Image.alpha_composite(Image.new("RGBA", im.size, (255, 255, 255, 255)), im)
        return np.array(im if im.mode == "RGB" else im.convert("RGB"))


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Read a mask or label map as it is stored.

    Palette files give their indices (VOC stores class ids so), 1-bit files 0 and 255, colour files their
    brightest channel, and transparency is ignored.

    Returns
    -------
    ndarray
        ``H x W`` uint8 (uint16 for sixteen-bit files).

    Raises
    ------
    SempartError
        As :func:`read_image`.
    """
    with _open(path) as im:
        if im.mode.startswith("I;16") or im.mode == "I":
            return np.array(im).astype(np.uint16)
        if im.mode == "1":
            im = im.convert("L")
        if im.mode in ("L", "P"):
            return np.array(im)
        if im.mode in ("LA", "La"):
            return np.array(im)[..., 0]
        return np.array(im.convert("RGB")).max(-1)


def _to_8bit(im: Image.Image) -> Image.Image:
    a = np.array(im)
    if np.issubdtype(a.dtype, np.floating):
        a = a * (255.0 if np.nanmax(a) <= 1 else 1.0)
    elif a.max() > 255:
        a = a / 257.0
    return Image.fromarray(np.nan_to_num(np.round(a)).clip(0, 255).astype(np.uint8))


class _open:
    """``Image.open`` whose every fault is a SempartError that names the file."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = pathlib.Path(path)

    def __enter__(self) -> Image.Image:
        if not self.path.is_file():
            raise SempartError(f"{self.path}: no such file")
        try:
            self.image = Image.open(self.path)
            self.image.load()
        except UnidentifiedImageError as e:
            raise UnreadableError(f"{self.path}: not an image this program can read") from e
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
            raise UnreadableError(f"{self.path}: damaged or truncated image ({e})") from e
        return self.image

    def __exit__(self, *_) -> None:
        self.image.close()


def resize(image: np.ndarray, size: tuple[int, int], resample: int = Image.Resampling.BICUBIC) -> np.ndarray:
    """Resize ``H x W x 3`` or ``H x W`` uint8 to ``size = (H, W)``; PIL filters, so reduction is antialiased."""
    return np.array(Image.fromarray(image).resize((size[1], size[0]), resample))


def to_tensor(images: Sequence[np.ndarray], size: int | tuple[int, int] | None = None) -> Tensor:
    """Stack photographs into a batch.

    Parameters
    ----------
    images : sequence of ndarray
        Each ``H x W x 3`` uint8.
    size : int or (int, int), optional
        Side of the square, or ``(H, W)``, every photograph is resized to (bicubic with antialiasing, the
        aspect is not kept). None keeps the pixels; then all photographs must be of one size.

    Returns
    -------
    Tensor
        ``B x 3 x H x W`` float32 in [0, 1].

    Raises
    ------
    SempartError
        No image, an array of another shape or type, or different sizes without ``size``.
    """
    if isinstance(images, np.ndarray) and images.ndim == 3:
        images = [images]
    if len(images) == 0:
        raise SempartError("to_tensor was given no image; give at least one")
    for i, im in enumerate(images):
        if im.ndim != 3 or im.shape[2] != 3 or im.dtype != np.uint8:
            raise SempartError(f"image {i} is {im.dtype} of shape {im.shape}; give H x W x 3 uint8")
    if size is not None:
        hw = (size, size) if isinstance(size, int) else tuple(size)
        images = [im if im.shape[:2] == hw else resize(im, hw) for im in images]
    if len({im.shape for im in images}) > 1:
        raise SempartError("images of different sizes cannot be one batch; give a size")
    batch = torch.from_numpy(np.stack(images))
    return batch.permute(0, 3, 1, 2).contiguous().float() / 255
