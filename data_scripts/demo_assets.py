"""Fetch what the demo scenes are composed of: two Debian packages, unpacked and not installed."""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass

from sempart_core import demo, paths
from sempart_core.errors import SempartError
from sempart_core.ingredients import wanted
from sempart_core.records import write_text

from . import fetch, packages


@dataclass(frozen=True)
class Package:
    """A pinned Debian package."""

    folder: str
    name: str
    version: str
    sha256: str
    size: int


PACKAGES = (
    Package(
        "tuxpaint", "tuxpaint-stamps-default", "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34", 160_880_444,
    ),
    Package(
        "mate", "mate-backgrounds", "1.26.0-1",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04", 46_638_500,
    ),
)  # fmt: skip


def ensure(*, procedural: bool = False) -> pathlib.Path:
    """Make the demo set usable; quick if it is so already.

    If ``apt-get download`` cannot bring the pinned packages, procedural drawings stand in: the data set is
    then called ``demo-procedural`` in every row.

    Parameters
    ----------
    procedural : bool
        Do not fetch anything.

    Returns
    -------
    Path
        The folder of the assets.
    """
    manifest = demo.manifest_path()
    if manifest.is_file() and not procedural and not json.loads(manifest.read_text()).get("procedural"):
        return manifest.parent
    paths.ensure(manifest.parent)
    said: dict = {"procedural": True}
    if not procedural:
        try:
            for p in PACKAGES:
                packages.apt_package(
                    p.name, p.sha256, manifest.parent / p.folder, version=p.version, keep=wanted
                )
            said = {p.name: {"version": p.version, "sha256": p.sha256} for p in PACKAGES}
        except SempartError as e:
            fetch.say(
                f"{e}\nThe photographs of the demo set are out of reach. Procedural drawings stand in; every row "
                "measured on them names the data set demo-procedural, and none compares with demo."
            )
    write_text(manifest, json.dumps(said, indent=1, sort_keys=True) + "\n")
    return manifest.parent
