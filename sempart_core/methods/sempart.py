"""SEMPART (Ravindran and Basavaraj, ICCV 2023): a head trained without labels, one pass a photograph.

The soft mask is the network's; it is binarised at 1/2, a rule of section 4.1 says which side is the object,
and where it is the other side the soft mask becomes ``1 - S``.
"""

from __future__ import annotations

import hashlib
import os

import torch

from .. import foreground as strategies
from ..errors import SempartError
from ..features import Features
from ..models import Sempart, load_head
from ..registry import Card
from .base import METHODS, Method, Prediction, padded_size

BRANCHES = ("coarse", "fine")


class SempartMethod(Method):
    """A trained head as a method.

    Parameters
    ----------
    head : path or Sempart
        A head saved by :func:`~sempart_core.train.train`, or the network itself.
    branch : "coarse" or "fine"
        ``h x w`` masks on the patch grid, or masks at the size of the network's input, which need the pixels
        in the features.
    foreground : str, optional
        A strategy of :mod:`sempart_core.foreground`; None leaves the side to the network, whose choice means
        nothing.
    """

    def __init__(
        self,
        head: str | os.PathLike | Sempart | None = None,
        branch: str = "coarse",
        foreground: str | None = "least-corners",
        backbone=None,
    ) -> None:
        super().__init__(backbone)
        if head is None:
            raise SempartError("method 'sempart' needs head=: a file made by 'sempart train', or a network")
        if branch not in BRANCHES:
            raise SempartError(f"unknown branch {branch!r}; choose one of: {', '.join(BRANCHES)}")
        if foreground is not None:
            strategies.STRATEGIES[foreground]
        self._network = head if isinstance(head, Sempart) else load_head(head)
        if branch == "fine" and self._network.about.get("fine") == "False":
            raise SempartError("this head was trained without its fine branch: choose branch='coarse'")
        self.branch, self.foreground = branch, foreground
        self.head = _digest(self._network)  # into the provenance, instead of a path

    @torch.no_grad()
    def from_features(self, f: Features) -> Prediction:
        f = self._fitting(f)
        fine = self.branch == "fine"
        if fine and (f.images is None or padded_size(f) != tuple(f.images.shape[-2:])):
            raise SempartError("the fine branch needs the pixels behind the features, without padding")
        network = self._network.to(f.x.device)
        training = network.training
        network.eval()
        try:
            masks = network(f.x, f.images if fine else None, f.grid)
        finally:
            network.train(training)
        soft = (masks.fine if fine else masks.coarse).cpu()
        mask = soft > 0.5
        if self.foreground is not None:
            attention = None if f.attention is None else f.attention.cpu()
            flip = strategies.flips(mask, self.foreground, attention, grid=f.grid)[:, None, None]
            mask, soft = mask ^ flip, torch.where(flip, 1 - soft, soft)
        return Prediction(soft=soft, mask=mask, size=f.size, covers=padded_size(f))

    def _fitting(self, f: Features) -> Features:
        """The features this head was trained on, where both say what they are."""
        about = self._network.about
        want = f"{about.get('backbone')}/{about.get('feature')}"
        if "backbone" not in about or "feature" not in about or f.name in ("", want):
            return f
        if f.name.split("/")[0] == about["backbone"] and about["feature"] in f.layers:
            return f.select(about["feature"])
        raise SempartError(
            f"this head was trained on {want}, these features are {f.name}: choose that backbone and feature"
        )


def _digest(network: Sempart) -> str:
    """First 12 digits of the sha256 of all weights."""
    digest = hashlib.sha256()
    for name, t in network.state_dict().items():
        digest.update(name.encode())
        digest.update(t.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


METHODS.register(
    Card(
        "sempart",
        "A small network trained on the normalized cut of unlabelled photographs; one pass, no eigenvectors.",
        source="Ravindran and Basavaraj 2023, section 3 and appendices B and C",
        cost="one pass of a small network an image; a training before",
        extra={"needs": "head: a file made by 'sempart train'"},
    ),
    SempartMethod,
)
