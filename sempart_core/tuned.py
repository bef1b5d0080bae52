"""Tuned backbones from files, which hold the differences of the tuned tensors in half precision.

A fine-tuning writes them (:mod:`sempart_core.finetune_files`); nothing here needs one.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .backbones import Backbone, load_backbone
from .errors import SempartError

DELTA = "delta.safetensors"
#: What the name of a tuned backbone ends in.
SUFFIX = "-tuned"


def step_delta(out: pathlib.Path, step: int) -> pathlib.Path:
    """The delta kept after a step, counted from 1."""
    return out / f"step-{step:06d}.safetensors"


def read_delta(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The differences, and what the file says of itself.

    Raises
    ------
    SempartError
        No such file, damaged, or not made by a fine-tuning.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise SempartError(f"{path}: no such file; give the {DELTA} of a fine-tuning")
    try:
        with safe_open(path, "pt") as f:
            said = f.metadata() or {}
            delta = {k: f.get_tensor(k) for k in f.keys()}
    except (SafetensorError, OSError) as e:
        raise SempartError(f"{path}: cannot be read ({e}); make it anew") from e
    if not {"backbone", "sha256", "feature", "settings"} <= said.keys():
        raise SempartError(f"{path}: holds no tuned backbone; give the {DELTA} of a fine-tuning")
    return delta, said


def mean_delta(files: Sequence[str | os.PathLike]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The mean of the differences of several fine-tunings of one backbone, float16, and what the first file says.

    Networks tuned from the same weights mostly lie in one basin, and their mean is often better than each of them
    (Wortsman et al., Model soups, ICML 2022).

    Raises
    ------
    SempartError
        No file, as :func:`read_delta`, or files of different backbones, features or tensors.
    """
    if not files:
        raise SempartError("no file to take the mean of; give the deltas of one or more fine-tunings")
    (first, said), *others = (read_delta(f) for f in files)
    for file, (delta, of) in zip(files[1:], others, strict=True):
        same = all(of[k] == said[k] for k in ("backbone", "sha256", "feature"))
        if not same or {k: v.shape for k, v in delta.items()} != {k: v.shape for k, v in first.items()}:
            raise SempartError(
                f"{file}: tunes another backbone, feature or tail than {files[0]}; give tunings alike"
            )
    mean = {k: torch.stack([d[k].float() for d, _ in ((first, said), *others)]).mean(0).half() for k in first}
    return mean, said


def load_tuned(
    backbone: Backbone | str,
    file: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    name: str | None = None,
    device: str | torch.device | None = None,
) -> Backbone:
    """A backbone with the tuned tensors of a file.

    Parameters
    ----------
    backbone : Backbone or str
        The one that was tuned; it is left as it is.
    file : path, or sequence of paths
        :data:`DELTA` of a fine-tuning; of several the mean, see :func:`mean_delta`.
    name : str, optional
        Of the result; by default the backbone's with :data:`SUFFIX`.
    device : str, optional
        Where it computes; that of the backbone if None.

    Returns
    -------
    Backbone
        Its ``sha256`` is that of the original's and of the differences, so that caches of features, records and
        trained heads never mix the two. Its default feature is the one that was tuned.

    Raises
    ------
    SempartError
        As :func:`read_delta`, or the file belongs to other weights, or the backbone has no hash that would say so
        (:func:`apply_delta` takes your word for it).
    """
    files = [file] if isinstance(file, str | os.PathLike) else list(file)
    (delta, said), file = mean_delta(files), ", ".join(map(str, files))
    backbone = load_backbone(backbone, device or "cpu") if isinstance(backbone, str) else backbone
    if said["sha256"] != backbone.sha256 or said["backbone"] != backbone.name:
        raise SempartError(
            f"{file}: tunes {said['backbone']} (sha256 {said['sha256'][:12]}...), not {backbone.name} "
            f"({backbone.sha256[:12]}...): give that backbone"
        )
    if not backbone.sha256:
        raise SempartError(
            f"{file}: {backbone.name} has no hash of its weights, so nothing tells whether this tunes it: give the "
            f"Backbone a sha256, or call apply_delta"
        )
    return apply_delta(backbone, delta, said["feature"], name=name, device=device)


@torch.no_grad()
def apply_delta(
    backbone: Backbone,
    delta: Mapping[str, Tensor],
    feature: str,
    *,
    name: str | None = None,
    device: str | torch.device | None = None,
) -> Backbone:
    """As :func:`load_tuned`, from the differences themselves, whatever the backbone's hash."""
    model = copy.deepcopy(backbone.model)
    target = dict(model.named_parameters())
    digest = hashlib.sha256(backbone.sha256.encode())
    for key in sorted(delta):
        d = delta[key]
        if key not in target or target[key].shape != d.shape:
            raise SempartError(f"the difference of {key} {tuple(d.shape)} does not fit {backbone.name}")
        target[key].add_(d.to(target[key]))
        digest.update(f"{key} {tuple(d.shape)} ".encode() + d.cpu().half().numpy().tobytes())
    extra = {**backbone.card.extra, "feature": feature, "tau": backbone.card.extra["taus"].get(feature)}
    card = replace(
        backbone.card,
        name=name or backbone.name + SUFFIX,
        what=f"{backbone.card.what}; then fine-tuned with mask consistency",
        extra=extra,
    )
    # Without a hash of the original nothing tells two networks apart, and the cache of features stays off.
    out = Backbone(model, card, digest.hexdigest() if backbone.sha256 else "")
    return out.to(device if device is not None else backbone.device)
