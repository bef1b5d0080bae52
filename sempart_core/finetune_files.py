"""What a fine-tuning writes: the differences of the tuned tensors, which :mod:`sempart_core.tuned` reads."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

import torch
from safetensors import torch as safetensors
from torch import Tensor

from .backbones import Backbone
from .errors import SempartError, TrainingError
from .finetune_model import Encoder
from .records import write_bytes


@torch.no_grad()
def delta_of(encoder: Encoder, backbone: Backbone) -> dict[str, Tensor]:
    """Differences of the trained tensors to the backbone's, float16 on the CPU.

    Raises
    ------
    TrainingError
        One is not finite, in half precision.
    """
    base = dict(backbone.model.named_parameters())
    out = {}
    for k, p in encoder.tuned().items():
        # + 0.0 makes zeros positive, as a mean of files leaves them: equal weights then have equal hashes.
        out[k] = ((p.detach().cpu() - base[k].detach().cpu()).half() + 0.0).contiguous()
        if not bool(torch.isfinite(out[k]).all()):
            raise TrainingError(
                f"{k}: the tuned weights are not finite, or further from the backbone's than half precision reaches, so "
                f"they have blown up; train again, into another folder, with a lower learning rate"
            )
    return out


def write_delta(path: pathlib.Path, delta: Mapping[str, Tensor], settings: dict, backbone: Backbone) -> None:
    """Write differences, the backbone they belong to, and how they came about."""
    said = {
        "backbone": backbone.name,
        "sha256": backbone.sha256,
        "feature": settings["feature"],
        "settings": json.dumps(settings, sort_keys=True),
    }
    try:
        write_bytes(path, safetensors.save(dict(delta), metadata=said))
    except OSError as e:
        raise SempartError(f"{path}: cannot be written ({e.strerror}); make room there") from e
