"""Heads on disk: safetensors with the configuration in the file, and the names of the public code."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import SempartError
from ..records import write_bytes
from .configs import SempartConfig
from .sempart import Sempart

#: The one key of the metadata (safetensors writes several in random order, which would change the file's
#: hash), and the version of the JSON behind it.
FORMAT, VERSION = "sempart_head", 1

#: Name in the public re-implementation -> name here. A refiner block is a Sequential there, with its
#: convolution at 0 and its norm at 1; the last one holds two blocks (0, 1 and 3, 4).
RENAMES = (
    (r"conv_input\.", "project."),
    (r"conv_coarse\.", "coarse."),
    (r"conv_final\.", "refiner.head."),
    (r"inp_transformer\.layers\.(\d+)\.0\.norm\.", r"encoder.\1.attention.norm."),
    (r"inp_transformer\.layers\.(\d+)\.0\.fn\.to_qkv\.", r"encoder.\1.attention.qkv."),
    (r"inp_transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.", r"encoder.\1.attention.out."),
    (r"inp_transformer\.layers\.(\d+)\.1\.norm\.", r"encoder.\1.mlp.0."),
    (r"inp_transformer\.layers\.(\d+)\.1\.fn\.net\.0\.", r"encoder.\1.mlp.1."),
    (r"inp_transformer\.layers\.(\d+)\.1\.fn\.net\.3\.", r"encoder.\1.mlp.3."),
    (r"layers\.(\d+)\.([01])\.", r"refiner.blocks.\1.\2."),
)


def from_public(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dictionary of segmentation-tricks' segmenter under our names.

    1 x 1 convolutions before the refiner become linear layers. SempartError at a name it does not know.
    """
    out = {}
    for name, value in state.items():
        if match := re.fullmatch(r"layers\.(\d+)\.([34])\.(\w+)", name):  # the second block of the last step
            new = f"refiner.blocks.{int(match[1]) + 1}.{int(match[2]) - 3}.{match[3]}"
        else:
            new = next((re.sub("^" + p, r, name) for p, r in RENAMES if re.match(p, name)), None)
        if new is None:
            raise SempartError(
                f"{name!r} is no tensor of segmentation-tricks' segmenter: give its state_dict"
            )
        out[new] = value.flatten(1) if new in ("project.weight", "coarse.weight") else value
    return out


def save_head(model: Sempart, path: str | os.PathLike) -> pathlib.Path:
    """Write weights, configuration and ``model.about`` as safetensors; the file is whole or absent.

    Raises
    ------
    SempartError
        The folder cannot be written, or ``about`` holds something else than texts.
    """
    path = pathlib.Path(path)
    if bad := [k for k, v in model.about.items() if not (isinstance(k, str) and isinstance(v, str))]:
        raise SempartError(f"about[{bad[0]!r}] is no text: a head's file stores texts by name")
    said = {"version": VERSION, "config": dataclasses.asdict(model.config), "about": model.about}
    metadata = {FORMAT: json.dumps(said)}
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    try:
        write_bytes(path, save(state, metadata))
    except OSError as e:
        raise SempartError(f"{path}: the head cannot be written ({e.strerror}); choose another place") from e
    return path


def load_head(path: str | os.PathLike, device: str | torch.device = "cpu") -> Sempart:
    """A head written by :func:`save_head`, in evaluation mode.

    Raises
    ------
    SempartError
        No such file, not safetensors, no head, a newer format, or weights that do not fit the configuration.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise SempartError(f"{path}: there is no such file; give a head saved by this package (.safetensors)")
    try:
        with safe_open(path, "pt") as f:
            metadata = f.metadata() or {}
            state = {k: f.get_tensor(k) for k in f.keys()}
    except (SafetensorError, OSError) as e:
        raise SempartError(
            f"{path}: not a readable safetensors file; give a head saved by this package"
        ) from e
    if FORMAT not in metadata:
        raise SempartError(f"{path}: no configuration of a head inside; give a file saved by this package")
    try:
        said = json.loads(metadata[FORMAT])
        if said["version"] != VERSION:
            raise SempartError(f"version {said['version']}, a newer sempart is needed")
        model = Sempart(SempartConfig().change(**said["config"]), said["about"])
    except (ValueError, TypeError, KeyError, AttributeError) as e:  # SempartError is a ValueError
        raise SempartError(f"{path}: its configuration cannot be read ({e}); fetch the file again") from e
    want = model.state_dict()
    if wrong := sorted(
        k
        for k in want.keys() | state.keys()
        if k not in state or k not in want or state[k].shape != want[k].shape
    ):
        raise SempartError(
            f"{path}: {len(wrong)} tensors do not fit its configuration (such as {wrong[0]}); fetch it again"
        )
    model.load_state_dict(state)
    return model.to(device).eval()
