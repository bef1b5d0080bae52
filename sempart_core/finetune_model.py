"""A backbone cut in two, a frozen trunk and a tail that is tuned, with the heads of a siamese training.

The tail ends where the wanted feature is made: behind the projections of an attention nothing is computed.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from . import hooks
from .backbones import KINDS, MEAN, STD, Backbone
from .crop_pairs import align, unit
from .errors import SempartError

#: Channels inside both heads and behind them (supplement, section 1).
HIDDEN, OUT = 384, 256


class _Reached(Exception):
    """The forward pass has computed all that is wanted of it."""


@contextlib.contextmanager
def _stop_before(module: nn.Module) -> Iterator[dict]:
    """Inputs of a module, at which the forward pass ends: ``args`` and ``kwargs`` in the dictionary."""
    seen: dict = {}

    def stop(_, args, kwargs):
        seen.update(args=args, kwargs=kwargs)
        raise _Reached

    handle = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with contextlib.suppress(_Reached):
            yield seen
    finally:
        handle.remove()


class Encoder(nn.Module):
    """A copy of a backbone whose last blocks can be trained.

    Parameters
    ----------
    backbone : Backbone
        Left as it is.
    blocks : int
        How many of its last blocks (stages of a ResNet) form the tail; what lies after the feature's own block
        counts as one of them but gets no gradient.
    feature : str, optional
        ``kind@block``; the backbone's default if None.

    Raises
    ------
    SempartError
        A feature that the backbone does not offer, or that lies before the tail; a wrong number of blocks.
    """

    def __init__(self, backbone: Backbone, blocks: int = 4, feature: str | None = None) -> None:
        super().__init__()
        self.feature = feature or backbone.default_layer
        self.kind, self.last = backbone._parse(self.feature)
        if isinstance(blocks, bool) or not isinstance(blocks, int) or not 1 <= blocks <= backbone.depth:
            raise SempartError(
                f"blocks={blocks!r}: {backbone.name} has {backbone.depth}; tune 1 of them to all"
            )
        self.first = backbone.depth - blocks
        if self.last < self.first:
            raise SempartError(
                f"feature {self.feature}: the last {blocks} blocks begin after it; take more blocks, or a later "
                f"feature"
            )
        self.model = copy.deepcopy(backbone.model).requires_grad_(False).eval()
        self.patch, self.is_vit = backbone.patch, backbone.is_vit
        for name, p in self.model.named_parameters():
            p.requires_grad_(self._tuned(name))
        self._context: dict = {}

    def _tuned(self, name: str) -> bool:
        """Whether a gradient reaches the parameter."""
        group = "blocks" if self.is_vit else "layer"
        if self.is_vit:
            head, _, rest = name.partition(".")
            number, _, inside = rest.partition(".")
            if head != group or not number.isdigit():
                return False
            b = int(number)
        else:
            head, _, inside = name.partition(".")
            if not head.startswith(group) or not head.removeprefix(group).isdigit():
                return False
            b = int(head.removeprefix(group)) - 1
        if not self.first <= b <= self.last:
            return False
        projected = ("norm1.", "attn.qkv.", "attn.q_bias", "attn.v_bias")
        return b < self.last or self.kind == "tokens" or inside.startswith(projected)

    @property
    def dim(self) -> int:
        """Channels of the feature."""
        return self.model.num_features if self.is_vit else self.model.feature_info[self.last + 1]["num_chs"]

    def train(self, mode: bool = True) -> Encoder:
        """Always in evaluation mode: statistics of batch normalisations stay those of the pretraining."""
        return super().train(False)

    def tuned(self) -> dict[str, nn.Parameter]:
        """Trainable tensors by their name in the backbone."""
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def trunk(self, images: Tensor, amp: torch.dtype | None = None) -> Tensor:
        """What the tail reads, float32, from ``B x 3 x H x W`` images in [0, 1] with sides of whole patches."""
        mean, std = (images.new_tensor(v)[:, None, None] for v in (MEAN, STD))
        with hooks.autocast(images.device, amp), _stop_before(hooks.stages(self.model)[self.first]) as seen:
            self.model.forward_features((images - mean) / std)
        kwargs = {k: v for k, v in seen["kwargs"].items() if v is not None}  # the rotation of a DINOv3
        self._context[tuple(images.shape[-2:]), images.device] = kwargs
        return seen["args"][0].float()

    def forward(self, x: Tensor, size: tuple[int, int], amp: torch.dtype | None = None) -> Tensor:
        """The feature of what :meth:`trunk` gave for images of ``size = (H, W)``.

        Returns
        -------
        Tensor
            ``B x D x h x w`` float32.
        """
        if (tuple(size), x.device) not in self._context:
            self.trunk(x.new_zeros(1, 3, *size), amp)
        kwargs = self._context[tuple(size), x.device]
        stages = hooks.stages(self.model)
        with hooks.autocast(x.device, amp):
            for block in stages[self.first : self.last]:
                x = block(x, **kwargs)
            block = stages[self.last]
            if self.kind == "tokens":
                x = block(x, **kwargs)
            else:
                with _stop_before(block.attn) as seen:
                    block(x, **kwargs)
                x = hooks.project(block.attn, seen["args"][0])[:, :, KINDS.index(self.kind) - 1].flatten(2)
        x = x.float()
        if not self.is_vit:
            return x
        x = x[:, self.model.num_prefix_tokens :]
        return x.mT.unflatten(2, (size[0] // self.patch, size[1] // self.patch))


def head(dim: int) -> nn.Sequential:
    """Projector (``dim`` of the feature) or predictor (:data:`OUT`): two convolutions of 1 x 1."""
    return nn.Sequential(
        nn.Conv2d(dim, HIDDEN, 1), nn.BatchNorm2d(HIDDEN), nn.GELU(), nn.Conv2d(HIDDEN, OUT, 1)
    )


class Siamese(nn.Module):
    """Encoder, projector and predictor; one forward pass gives the features of both views where they overlap.

    Parameters
    ----------
    encoder : Encoder
    projector : bool
        False leaves it out (tables 5 and S1), and the predictor reads the feature itself.
    """

    def __init__(self, encoder: Encoder, projector: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = head(encoder.dim) if projector else nn.Identity()
        self.predictor = head(OUT if projector else encoder.dim)

    def forward(
        self,
        x: Tensor,
        boxes: Tensor,
        flips: Tensor,
        size: tuple[int, int],
        amp: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of the overlap.

        Parameters
        ----------
        x : Tensor
            ``2 x B x ...``, what the trunk gave for the first and the second views.
        boxes, flips : Tensor
            ``2 x B x 4``, ``2 x B``: see :class:`~sempart_core.crop_pairs.Pairs`.
        size : (int, int)
            ``(H, W)`` of a view in pixels.

        Returns
        -------
        q1, p1, q2, p2 : Tensor
            ``B x h x w x D``: the predictor's and the projector's answer to each view. Unit vectors before they
            are aligned, not after, as in the public code.
        """
        found = self.encoder(x.flatten(0, 1), size, amp).unflatten(0, x.shape[:2])
        out = []
        for f, box, flip in zip(found, boxes, flips, strict=True):  # each view with its own batch statistics
            p = self.projector(f)
            q = self.predictor(p)
            out += [align(unit(t), box, flip).permute(0, 2, 3, 1) for t in (q, p)]
        return tuple(out)


def parameter_groups(model: Siamese, weight_decay: float) -> list[dict]:
    """For LARS as in the public code: what is called ``bias`` or ``bn`` has no decay and no trust ratio.

    The weights of layer normalisations and of the heads' batch normalisations have both (protocols 1.9).
    """
    free, rest = [], []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (free if "bias" in name or "bn" in name else rest).append(p)
    return [{"params": rest, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
