"""Make a trained head the one that ships: ``python -m data_scripts.ship_head HEAD.safetensors``.

Writes the head into the package under its registered name, its sha256 beside it, and the log of its training,
if that lies beside the head.
The head must say what it was trained on, because its card is read from there; by which recipe and by which
criterion it was chosen is added here.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys

from sempart_core import heads
from sempart_core.checkpoints import sha256_of
from sempart_core.errors import SempartError
from sempart_core.models import load_head
from sempart_core.records import write_bytes, write_text
from sempart_core.training_files import LOG
from sempart_core.tuned_backbones import BACKBONES

#: What a head's ``about`` must hold; a training writes all of it.
NEEDED = ("backbone", "sha256", "feature", "size", "photographs", "n")


def ship(path: str | os.PathLike, name: str = heads.DEFAULT, **about: str) -> pathlib.Path:
    """Put a head into the package; returns its file there. ``about`` is added to what the head says of itself.

    Raises
    ------
    SempartError
        Unknown name, no readable head, or one that does not say what it was trained on.
    """
    if name not in heads.WHAT:
        raise SempartError(f"no head is called {name!r}; choose one of: {', '.join(heads.WHAT)}")
    path = pathlib.Path(path)
    head = load_head(path)
    head.about |= {k: v for k, v in about.items() if v}
    about = head.about
    if missing := [k for k in NEEDED if not about.get(k)]:
        raise SempartError(
            f"{path}: does not say its {', '.join(missing)}; give a head made by sempart train"
        )
    if about["backbone"] not in BACKBONES:
        raise SempartError(
            f"{path}: trained on {about['backbone']!r}, which is not registered; train it anew"
        )
    place = heads.file_of(name)
    head.save(place)
    if (log := path.parent / LOG).is_file():
        write_bytes(heads.log_of(name), log.read_bytes())
    else:
        heads.log_of(name).unlink(missing_ok=True)  # it is that of the head before
    said = heads.checksums() | {name: sha256_of(place)}
    write_text(heads.FOLDER / "heads.json", json.dumps(said, indent=1, sort_keys=True) + "\n")
    return place


def main() -> None:
    """Entry point of ``python -m data_scripts.ship_head``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("head", help="file made by sempart train")
    parser.add_argument("--name", default=heads.DEFAULT, help="registered name; default: %(default)s")
    parser.add_argument("--recipe", default="", help="recipe of its training")
    parser.add_argument("--criterion", default="", help="by what it was chosen, without labels")
    args = parser.parse_args()
    try:
        print(ship(args.head, args.name, recipe=args.recipe, criterion=args.criterion))
    except SempartError as e:
        print(f"ship_head: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
