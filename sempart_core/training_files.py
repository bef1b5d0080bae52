"""What a training leaves on disk: a head an epoch, one state to continue from, one table of numbers.

``epoch-003.safetensors`` is a head like any other. ``state.pt`` names the last epoch and holds what goes on
from there: weights, optimiser, schedule, moving average, random state, log. It is replaced in one step after the head is written, so a run that is killed
at any moment continues after an epoch that is whole.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import pathlib
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .errors import SempartError
from .records import write_bytes, write_text

STATE, LOG, PICTURE, HEAD = "state.pt", "log.csv", "log.png", "head.safetensors"
#: Raised when the meaning of a state changes.
VERSION = 2


def head_of(out: pathlib.Path, epoch: int) -> pathlib.Path:
    """The head after an epoch, counted from 1."""
    return out / f"epoch-{epoch:03d}.safetensors"


def save_epoch(
    out: pathlib.Path, head: nn.Module, parts: Mapping[str, Any], log: list[dict], settings: dict
) -> None:
    """Head, state and log after the epoch of the last row; SempartError where they cannot be written.

    ``parts`` are the things with a ``state_dict`` by the name under which the state holds it.
    """
    epoch = log[-1]["epoch"]
    head.save(head_of(out, epoch))
    states = {name: part.state_dict() for name, part in parts.items()}
    save_state(out, log, settings, epoch=epoch, parts=states, random=torch.get_rng_state())
    write_log(out, log)


def save_state(out: pathlib.Path, log: list[dict], settings: dict, **more: Any) -> None:
    """What a training continues from, in one step; ``more`` are tensors and plain values."""
    state = {"version": VERSION, **more, "log": log, "settings": json.dumps(settings)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    try:
        write_bytes(out / STATE, buffer.getvalue())
    except OSError as e:
        raise SempartError(f"{out}: the state cannot be written ({e.strerror}); make room there") from e


def write_log(out: pathlib.Path, log: list[dict]) -> None:
    """All rows as CSV, one an epoch."""
    columns = list(dict.fromkeys(k for row in log for k in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(log)
    try:
        write_text(out / LOG, text.getvalue())
    except OSError as e:
        raise SempartError(f"{out}: the log cannot be written ({e.strerror}); make room there") from e


def write_picture(out: pathlib.Path, log: list[dict]) -> None:
    """The log as curves, where matplotlib is installed."""
    if importlib.util.find_spec("matplotlib") is None:
        return
    from .plots import training_curves

    buffer = io.BytesIO()
    training_curves(log).savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    try:
        write_bytes(out / PICTURE, buffer.getvalue())
    except OSError as e:
        raise SempartError(f"{out}: the curves cannot be written ({e.strerror}); make room there") from e


def load_state(
    out: pathlib.Path, settings: dict | None = None, may_differ: Iterable[str] = ()
) -> dict[str, Any]:
    """The state of ``out``; refused where it was trained with other settings than those given.

    Raises
    ------
    SempartError
        Damaged, of another version, or other settings (the sentence names the first).
    """
    path = out / STATE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        said, version = json.loads(state["settings"]), state["version"]
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as e:
        raise _damaged(path) from e
    except (pickle.UnpicklingError, zipfile.BadZipFile) as e:
        raise _damaged(path) from e
    if version != VERSION:
        raise SempartError(f"{path}: of another version of sempart; train into another folder")
    if settings is None:
        return state
    ours = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    for key in sorted(ours.keys() | said.keys()):
        if key not in may_differ and ours.get(key) != said.get(key):
            raise SempartError(
                f"{out} was trained with {key}={said.get(key)!r}, not {ours.get(key)!r}: resume with the "
                f"same settings and photographs, or train into another folder"
            )
    return state


def _damaged(path: pathlib.Path) -> SempartError:
    return SempartError(f"{path}: the state cannot be read; remove this folder and train anew")
