"""Profiles: how much of everything a run does, as typed configuration. An unknown key is an error."""

from __future__ import annotations

import os
import pathlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from .errors import SempartError

Name = Literal["smoke", "demo", "photos", "paper"]


class Profile(BaseModel):
    """One profile.

    Attributes
    ----------
    name : the profile's name, written into every row
    dataset : name of the dataset family: "demo", "photos" or "paper"
    limit : images per list, None for all
    size : side in pixels of the network's input
    repeats : repetitions of a timing
    train_steps : cap on optimisation steps, None for the full schedule
    write : whether rows are written to the book's results
    data_root, device, seed : from the notebook's ``parameters`` cell
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    dataset: Literal["demo", "photos", "paper"]
    limit: PositiveInt | None = None
    size: PositiveInt = 224
    repeats: PositiveInt = 5
    train_steps: PositiveInt | None = None
    write: bool = True
    data_root: pathlib.Path | None = None
    device: str = "cpu"
    seed: int = 0


_PROFILES: dict[str, dict] = {
    "smoke": {"dataset": "demo", "limit": 4, "repeats": 1, "train_steps": 2, "write": False},
    "demo": {"dataset": "demo"},
    "photos": {"dataset": "photos"},
    "paper": {"dataset": "paper"},
}


def names() -> list[str]:
    """The names of the profiles."""
    return list(_PROFILES)


def resolve_device(device: str = "auto") -> str:
    """``auto`` as ``cuda`` or ``cpu``; SempartError for a device that torch does not know or have here."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError as e:
        raise SempartError(f"device {device!r}: unknown; choose auto, cpu, cuda or cuda:0") from e
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise SempartError(f"device {device!r}: there is no such GPU here; choose cpu or auto")
    return device


def load(
    name: str, *, data_root: str | os.PathLike | None = None, device: str = "auto", **changes
) -> Profile:
    """Build a profile by name; keyword arguments change single keys.

    Parameters
    ----------
    name : str
        ``smoke``, ``demo``, ``photos`` or ``paper``.
    data_root : path, optional
        Root folder of real photographs; compulsory for ``photos`` and ``paper``. An empty string is None.
    device : str
        ``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:0``.

    Raises
    ------
    SempartError
        Unknown profile or key, a value of the wrong type, or a missing ``data_root``.
    """
    if name not in _PROFILES:
        raise SempartError(f"unknown profile {name!r}; choose one of: {', '.join(_PROFILES)}")
    device = resolve_device(device)
    values = {"name": name, **_PROFILES[name], "data_root": data_root or None, "device": device, **changes}
    try:
        profile = Profile(**values)
    except ValidationError as e:
        err = e.errors()[0]
        key = ".".join(map(str, err["loc"]))
        raise SempartError(
            f"profile {name!r}, key {key!r}: {err['msg'].lower()}; the keys are {', '.join(Profile.model_fields)}"
        ) from e
    if profile.dataset != "demo":
        if profile.data_root is None:
            raise SempartError(f"profile {name!r} needs data_root: the folder that holds the photographs")
        if not profile.data_root.is_dir():
            raise SempartError(f"data_root {str(profile.data_root)!r} is not a folder; give an existing one")
    return profile
