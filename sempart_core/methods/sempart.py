"""SEMPART (Ravindran and Basu, ICCV 2023): a head trained without labels, one pass a photograph.

The soft mask is the network's; it is binarised at 1/2, a rule of section 4.1 says which side is the object,
and where it is the other side the soft mask becomes ``1 - S``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import ClassVar

import torch

from .. import foreground as strategies
from ..errors import SempartError
from ..features import Features
from ..heads import open_head
from ..losses import one_of
from ..models import Sempart
from ..registry import Card
from .base import METHODS, Method, Prediction, padded_size

BRANCHES = ("coarse", "fine")
BATCH_NORM = ("running", "batch")
#: Branches that a training leaves usable, by ``about["branches"]``; a head that does not say has both.
TRAINED = {"coarse": ("coarse",), "fine": ("fine",)}


class SempartMethod(Method):
    """A trained head as a method.

    Parameters
    ----------
    head : str, path or Sempart, optional
        A name in :data:`sempart_core.heads.HEADS`, a head saved by :func:`~sempart_core.train.train`, or the
        network itself. None: the head that ships.
    branch : "coarse" or "fine", optional
        ``h x w`` masks on the patch grid, or masks at the size of the network's input, which need the pixels
        in the features. None: fine, or coarse where the head was trained without its fine branch.
    foreground : str, optional
        A strategy of :mod:`sempart_core.foreground`; None leaves the side to the network, whose choice means
        nothing.
    batch_norm : "running" or "batch"
        Statistics by which the fine branch normalises: the running ones of the training, or those of the very
        batch it is given, so that a mask depends on the photographs beside it. The public code of Two Tricks
        never leaves training mode and so has ``batch`` in its evaluation; its running statistics drift on the test
        photographs meanwhile, here they stay. The coarse branch has no batch normalisation.
    """

    box_rule: ClassVar[str] = "largest-box"  # section 4.3
    own_tau: ClassVar[bool] = True  # of the training

    def __init__(
        self,
        head: str | os.PathLike | Sempart | None = None,
        branch: str | None = None,
        foreground: str | None = "least-corners",
        backbone=None,
        batch_norm: str = "running",
    ) -> None:
        super().__init__(backbone)
        one_of(batch_norm, "batch_norm", BATCH_NORM)
        if branch is not None and branch not in BRANCHES:
            raise SempartError(f"unknown branch {branch!r}; choose one of: {', '.join(BRANCHES)}")
        if foreground is not None:
            strategies.STRATEGIES[foreground]
        self._network, self.head_name = open_head(head)
        trained = TRAINED.get(self._network.about.get("branches"), BRANCHES)
        if branch is not None and branch not in trained:
            raise SempartError(
                f"this head was trained without its {branch} branch: choose branch={trained[0]!r}"
            )
        self.branch, self.foreground, self.batch_norm = branch or trained[-1], foreground, batch_norm
        self.head = _digest(self._network)  # into the provenance, instead of a path

    @property
    def default_backbone(self) -> str | None:
        """The backbone the head was trained on; None where it does not say, and so below."""
        return self._network.about.get("backbone")

    @property
    def default_feature(self) -> str | None:
        """The feature ``kind@block`` the head was trained on."""
        return self._network.about.get("feature")

    @property
    def default_size(self) -> int:
        """Side in pixels of the squares the head was trained on."""
        return int(self._about("size", Method.default_size))

    @property
    def tau(self) -> float | None:
        """Threshold of the graph of the training."""
        return self._about("tau", None)

    def _about(self, key: str, default: float | None) -> float | None:
        """A number the head says of itself."""
        said = self._network.about.get(key, "")
        try:
            return float(said) if said else default
        except ValueError as e:
            raise SempartError(f"this head says {key}={said!r}, which is no number: train it anew") from e

    def check(self, backbone: str | None, feature: str | None = None, tau: float | None = None) -> None:
        super().check(backbone, feature)
        if tau is not None:
            raise SempartError(
                "tau has no say in method 'sempart': it shaped the head's training; leave it out"
            )

    @torch.no_grad()
    def from_features(self, f: Features) -> Prediction:
        f = self._fitting(f)
        fine = self.branch == "fine"
        if fine and (f.images is None or padded_size(f) != tuple(f.images.shape[-2:])):
            raise SempartError(
                "the fine branch needs the pixels behind the features, without padding: keep them "
                "(keep_images=True), or choose branch='coarse'"
            )
        network = self._network.to(f.x.device)
        with _evaluating(network, self.batch_norm):
            masks = network(f.x, f.images if fine else None, f.grid)
        soft = (masks.fine if fine else masks.coarse).cpu()
        mask = soft > 0.5
        if self.foreground is not None:
            attention = None if f.attention is None else f.attention.cpu()
            flip = strategies.flips(mask, self.foreground, attention, grid=f.grid, soft=soft)[:, None, None]
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


@contextlib.contextmanager
def _evaluating(network: Sempart, batch_norm: str) -> Iterator[None]:
    """The network in evaluation mode, with the chosen statistics; left as it was found, buffers included."""
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    training, tracking = network.training, [m.track_running_stats for m in norms]
    network.eval()
    try:
        if batch_norm == "batch":
            for m in norms:
                m.train()
                m.track_running_stats = False  # else the pass would move mean, variance and counter
        yield
    finally:
        for m, tracks in zip(norms, tracking, strict=True):
            m.track_running_stats = tracks
        network.train(training)


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
        source="Ravindran and Basu 2023, section 3 and appendices B and C",
        cost="one pass of a small network an image; a training before",
        extra={"head": "one that ships (sempart list heads), or a file made by 'sempart train'"},
    ),
    SempartMethod,
)
