"""Self-supervised networks as sources of patch features: a registry, one loader, one ``extract``.

A layer is called ``kind@block``, blocks counted from 0: ``tokens@10`` is what block 10 hands on (before
the final norm); ``queries@11``, ``keys@11`` and ``values@11`` are the three projections inside block 11,
all heads concatenated, before any norm or rotation (protocols 1.0). CLS and register tokens are dropped.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import checkpoints, hooks
from .backbone_cards import CARDS
from .errors import SempartError
from .features import Features
from .paths import cache_dir
from .registry import Card, Registry

#: Backbones by name; each card tells data, labels, licence, file and defaults. :mod:`sempart_core.tuned_backbones`
#: adds those that ship: take it from there to list all.
BACKBONES = Registry("backbone")
#: ImageNet mean and standard deviation of R, G, B in [0, 1]; every registered backbone was trained with them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = ("tokens", "queries", "keys", "values")
POLICIES = ("resize", "pad", "crop")


class Backbone:
    """A frozen network that turns images into :class:`~sempart_core.features.Features`.

    Parameters
    ----------
    model : nn.Module
        A timm vision transformer or ResNet with its weights.
    card : Card
        Its entry in :data:`BACKBONES`.
    sha256 : str
        Of the weight file; part of every record and cache key.
    """

    def __init__(self, model: nn.Module, card: Card, sha256: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.card, self.name, self.sha256 = card, card.name, sha256
        self.patch: int = card.extra["patch"]
        self.default_layer: str = card.extra["feature"]
        self.is_vit = hasattr(model, "blocks")
        self.depth = len(model.blocks) if self.is_vit else 4
        self.dim: int = model.num_features

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> Backbone:
        """Move the network; returns itself."""
        self.model.to(device)
        return self

    def tau(self, layer: str) -> float | None:
        """Default affinity threshold of a layer of this backbone, None where none was chosen."""
        return self.card.extra["taus"].get(layer)

    def extract(
        self,
        images: Tensor,
        layers: Sequence[str] | None = None,
        attention: bool = True,
        policy: str = "resize",
        *,
        batch: int = 16,
        amp: torch.dtype | None = None,
    ) -> Features:
        """Features of a batch of equally sized images.

        Parameters
        ----------
        images : Tensor
            ``B x 3 x H x W`` RGB in [0, 1].
        layers : sequence of str, optional
            ``kind@block``; the first becomes ``Features.x``. Default: the registry's layer.
        attention : bool
            Also return the attention of CLS over the patches in the last block, ``B x heads x N``
            (softmax over all tokens; CLS and register columns dropped, so rows sum to at most 1).
        policy : str
            How a size that is no multiple of the patch is met: ``resize`` to the nearest multiple
            (bicubic, antialiased), ``pad`` the normalised image with zeros at the bottom and right to
            the next multiple (TokenCut's and LOST's discovery; protocols 1.1), or ``crop`` bottom and
            right to the last multiple (Deep Spectral; protocols 1.3).
        batch : int
            Images per forward pass.
        amp : torch.dtype, optional
            Autocast type on CUDA. Default: bfloat16 where the device has it, else float16;
            ``torch.float32`` switches autocast off. The CPU computes in float32.

        Returns
        -------
        Features
            float32, on the backbone's device. ``images`` and ``size`` are those of the network's
            input without padding. Positions are interpolated by timm (bicubic, antialiased), so
            sizes other than the trained one differ slightly from the authors' code, which does not
            antialias.

        Raises
        ------
        SempartError
            Wrong shape, values outside [0, 1] or not finite, an unknown layer or policy.
        """
        layers = [self.default_layer] if layers is None else list(layers)
        wanted = {name: self._parse(name) for name in layers}
        if not layers:
            raise SempartError("layers is empty; name at least one, such as 'tokens@11'")
        images = checked(images).to(self.device)
        x, images = fit(images, self.patch, policy)
        grid = (x.shape[-2] // self.patch, x.shape[-1] // self.patch)
        parts = [self._forward(xi, wanted, attention, amp) for xi in x.split(batch)]
        found = {k: torch.cat([p[0][k] for p in parts]) for k in wanted}
        return Features(
            x=found[layers[0]],
            grid=grid,
            patch=self.patch,
            size=tuple(images.shape[-2:]),
            attention=torch.cat([p[1] for p in parts]) if attention and self.is_vit else None,
            images=images,
            layers=found,
            tau=self.tau(layers[0]),
            name=f"{self.name}/{layers[0]}",
        )

    def _parse(self, layer: str) -> tuple[str, int]:
        kind, _, block = layer.partition("@")
        if kind not in KINDS or not re.fullmatch(r"\d+", block):
            raise SempartError(f"layer {layer!r}: write kind@block with a kind of {', '.join(KINDS)}")
        if not self.is_vit and kind != "tokens":
            raise SempartError(f"layer {layer!r}: {self.name} has no attention, hence tokens only")
        first = 0 if self.is_vit else 2  # earlier stages of a ResNet live on a finer grid
        if not first <= int(block) < self.depth:
            raise SempartError(f"layer {layer!r}: {self.name} offers the blocks {first} to {self.depth - 1}")
        return kind, int(block)

    @torch.no_grad()
    def _forward(self, x: Tensor, wanted: dict, attention: bool, amp: torch.dtype | None):
        """One forward pass; ``x`` normalised. Returns layers ``b x N x D`` and attention, float32."""
        stages = hooks.stages(self.model)
        tokens = {b for kind, b in wanted.values() if kind == "tokens"}
        inner = {b for kind, b in wanted.values() if kind != "tokens"}
        attention = attention and self.is_vit
        if attention:
            inner = inner | {self.depth - 1}
        with hooks.capture(stages, tokens, inner) as seen, hooks.autocast(x.device, amp):
            self.model.forward_features(x)
            qkv = {b: hooks.project(stages[b].attn, seen["attn", b][0]) for b in inner}
        if not self.is_vit:
            return {k: seen["out", b].float().flatten(2).mT for k, (_, b) in wanted.items()}, None
        prefix, out = self.model.num_prefix_tokens, {}
        for name, (kind, b) in wanted.items():
            t = seen["out", b] if kind == "tokens" else qkv[b][:, :, KINDS.index(kind) - 1].flatten(2)
            out[name] = t[:, prefix:].float()
        if not attention:
            return out, None
        b = self.depth - 1
        return out, hooks.cls_attention(stages[b].attn, qkv[b], seen["attn", b][1], prefix)


def fit(images: Tensor, patch: int, policy: str) -> tuple[Tensor, Tensor]:
    """Meet a multiple of ``patch``; returns the normalised network input and the pixels behind it.

    Parameters
    ----------
    images : Tensor
        ``B x 3 x H x W`` in [0, 1].
    policy : str
        ``resize``, ``pad`` or ``crop``, see :meth:`Backbone.extract`.
    """
    if policy not in POLICIES:
        raise SempartError(f"policy {policy!r}: choose one of {', '.join(POLICIES)}")
    H, W = images.shape[-2:]
    if policy == "resize":
        h, w = (max(1, round(s / patch)) * patch for s in (H, W))
        if (h, w) != (H, W):
            images = F.interpolate(images, (h, w), mode="bicubic", antialias=True, align_corners=False)
            images = images.clamp(0, 1)  # bicubic overshoots at edges
    if policy == "crop":
        if min(H, W) < patch:
            raise SempartError(f"images of {H}x{W} pixels are smaller than a patch of {patch}; resize them")
        images = images[..., : H - H % patch, : W - W % patch]
    mean, std = (images.new_tensor(v)[:, None, None] for v in (MEAN, STD))
    x = (images - mean) / std
    if policy == "pad":
        x = F.pad(x, (0, -W % patch, 0, -H % patch))
    return x, images


def checked(images: Tensor) -> Tensor:
    """``images`` as float32 in [0, 1], or a SempartError that says what is wrong with them."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise SempartError(f"images must be a tensor B x 3 x H x W, got {got}; see images.to_tensor")
    if not images.is_floating_point():
        raise SempartError(f"images are {images.dtype}; divide by 255 to have floats in [0, 1]")
    low, high = torch.aminmax(images)
    if not torch.isfinite(low + high):
        raise SempartError("images hold NaN or infinite values; check how they were read")
    if low < -1e-4 or high > 1 + 1e-4:
        raise SempartError(
            f"images lie in [{low:.4g}, {high:.4g}]; give RGB in [0, 1], not 0..255 and not normalised"
        )
    return images.float().clamp(0, 1)


def build(card: Card, **changes) -> nn.Module:
    """The network of a card with random weights; ``changes`` go to timm (``depth=2`` in tests)."""
    with warnings.catch_warnings():  # tqdm.auto, deep inside, asks Jupyter for a widget nobody needs
        warnings.filterwarnings("ignore", message="IProgress not found")
        import timm

    arch = card.extra["timm"].split(".")[0]
    options = {k: v for k, v in {**card.extra["build"], **changes}.items() if v is not None}
    return timm.create_model(arch, pretrained=False, num_classes=0, **options)


def load_backbone(
    name: str, device: str | torch.device = "cpu", weights: str | os.PathLike | None = None
) -> Backbone:
    """A registered backbone with its weights.

    Parameters
    ----------
    name : str
        One of :data:`BACKBONES`, or one that ships with the package
        (:data:`sempart_core.tuned_backbones.TUNED`).
    device : str
        Where it computes.
    weights : path, optional
        Weight file, or folder holding ``<name>.pt``, ``.pth`` or ``.safetensors``; of a backbone that ships, those
        of its original. Default: what ``SEMPART_WEIGHTS`` names, then the cache's ``weights`` folder, then timm's hub.

    Raises
    ------
    SempartError
        Unknown name, no file and no hub, a wrong checksum, or a file that does not fit strictly.
    """
    from . import tuned_backbones  # imports this module, and registers those that ship

    return tuned_backbones.BACKBONES[name](device=device, weights=weights)


def _load(
    card: Card, device: str | torch.device = "cpu", weights: str | os.PathLike | None = None
) -> Backbone:
    e = card.extra
    path = checkpoints.find(card.name, e["file"], e["hub"], weights)
    why = "it is not on timm's hub"
    if path is None and e["hub"]:
        try:
            path = checkpoints.download(e["hub"])
        except OSError as error:
            why = f"timm's hub could not be reached ({error})"
    if path is None:
        remedy = f"put {e['file']} (from {e['where']}) into {cache_dir() / 'weights'}"
        if e["fetch"]:
            remedy = f"run 'sempart fetch weights', or {remedy}"
        raise SempartError(f"no weights for {card.name!r}: {why}; {remedy}, or name it in SEMPART_WEIGHTS")
    digest = checkpoints.checked(path, card.name, e["sha256"], weights)
    model = build(card)
    checkpoints.load(model, path, card.name)
    return Backbone(model.to(device), card, digest)


for _card in CARDS:
    BACKBONES.register(_card, functools.partial(_load, _card))
