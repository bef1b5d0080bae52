"""Tune the backbone that ships, and put it into the package: ``python -m data_scripts.ship_backbone OUT --images DIR``.

Without ``--images`` OUT holds a finished fine-tuning. The differences go to their registered place together with the
log, of which the seconds are left out; the sha256 that is printed belongs into ``sempart_core/tuned_backbones.py``. It
is another one each time: safetensors writes its metadata in any order.
"""

from __future__ import annotations

import argparse
import csv
import io
import pathlib
import sys

from safetensors import torch as safetensors

from sempart_core.checkpoints import sha256_of
from sempart_core.errors import SempartError
from sempart_core.finetune import finetune
from sempart_core.finetune_recipes import finetune_recipe
from sempart_core.records import write_bytes
from sempart_core.samples import evenly
from sempart_core.training_data import photographs
from sempart_core.training_files import LOG
from sempart_core.tuned import DELTA, read_delta
from sempart_core.tuned_backbones import TUNED, file_of

#: What may be committed.
LARGEST = 16e6
#: How many photographs are taken, spread over the folder, which is sorted by name and so mostly by class.
PHOTOGRAPHS = 320


def tune(images: pathlib.Path, out: pathlib.Path, name: str) -> None:
    """Fine-tune into ``out`` with the recipe ``photos``, or go on with what is there."""
    found = photographs(images)
    chosen = [found[i] for i in evenly(PHOTOGRAPHS, len(found))]

    def say(row: dict, masks: object) -> None:
        if row["step"] % 10 == 0:
            print(
                f"step {row['step']}: loss {row['total']:.3f}, IoU of the pairs {row['iou']:.3f}", flush=True
            )

    finetune(
        chosen, TUNED[name][0], out=out, resume=True, device="cpu", on_step=say, **finetune_recipe("photos")
    )


def log_of(out: pathlib.Path) -> str:
    """The log as CSV without its seconds, which alone differ when the same training is repeated."""
    path = out / LOG
    if not path.is_file():
        raise SempartError(f"{path}: no such file; give the folder of a finished fine-tuning")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    text = io.StringIO()
    writer = csv.DictWriter(text, [k for k in rows[0] if k != "seconds"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def ship(out: pathlib.Path, name: str) -> tuple[pathlib.Path, str]:
    """File in the package and its sha256.

    Raises
    ------
    SempartError
        Unknown name, no finished fine-tuning, one of another backbone, or too large a file.
    """
    if name not in TUNED:
        raise SempartError(f"no tuned backbone is called {name!r}; choose one of: {', '.join(TUNED)}")
    delta, said = read_delta(out / DELTA)
    if said["backbone"] != TUNED[name][0]:
        raise SempartError(f"{out}: tunes {said['backbone']!r}, but {name} is made of {TUNED[name][0]!r}")
    data = safetensors.save(delta, metadata={**said, "log": log_of(out)})
    if len(data) > LARGEST:
        raise SempartError(
            f"{out}: {len(data) / 1e6:.1f} MB; tune fewer blocks, so that it stays below {LARGEST / 1e6:.0f}"
        )
    write_bytes(file_of(name), data)
    return file_of(name), sha256_of(file_of(name))


def main() -> None:
    """Entry point of ``python -m data_scripts.ship_backbone``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path, help="folder of the fine-tuning")
    parser.add_argument("--images", type=pathlib.Path, help="folder of photographs to tune on first")
    parser.add_argument("--name", default=next(iter(TUNED)), help="registered name; default: %(default)s")
    args = parser.parse_args()
    try:
        if args.images:
            tune(args.images, args.out, args.name)
        print(*ship(args.out, args.name))
    except SempartError as e:
        print(f"ship_backbone: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
