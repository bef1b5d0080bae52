"""Tune the backbone that ships, and put it into the package: ``python -m data_scripts.ship_backbone OUT --images DIR``.

OUT holds a folder for each of :data:`SEEDS`, without ``--images`` those of finished fine-tunings. The mean of their
differences goes to its registered place together with the logs, of which the seconds are left out; the sha256 that is
printed belongs into ``sempart_core/tuned_backbones.py``. It is another one each time: safetensors writes its metadata in
any order.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import pathlib
import sys

from safetensors import torch as safetensors

from sempart_core.backbones import load_backbone
from sempart_core.checkpoints import sha256_of
from sempart_core.errors import SempartError
from sempart_core.finetune import finetune
from sempart_core.finetune_data import load_pairs
from sempart_core.finetune_recipes import finetune_recipe
from sempart_core.records import write_bytes
from sempart_core.samples import evenly
from sempart_core.training_data import photographs
from sempart_core.training_files import LOG
from sempart_core.tuned import DELTA, mean_delta, read_delta
from sempart_core.tuned_backbones import TUNED, file_of

#: What may be committed.
LARGEST = 16e6
#: How many photographs are taken, spread over the folder, which is sorted by name and so mostly by class.
PHOTOGRAPHS = 320
#: Of the trainings whose mean ships: heads and the order of the pairs; the pairs are the same.
SEEDS = (0, 1, 2)


def folder_of(out: pathlib.Path, seed: int) -> pathlib.Path:
    """Where the training of one seed lies."""
    return out / f"seed-{seed}"


def tune(images: pathlib.Path, out: pathlib.Path, name: str) -> None:
    """Fine-tune into ``out`` with the recipe ``photos``, one training a seed, or go on with what is there."""
    found, recipe, backbone = photographs(images), finetune_recipe("photos"), load_backbone(TUNED[name][0])
    chosen = [found[i] for i in evenly(PHOTOGRAPHS, len(found))]
    views = {k: recipe[k] for k in ("size", "blocks", "colours")}
    pairs = load_pairs(chosen, backbone, each=recipe["crops"], **views)

    def say(row: dict, masks: object) -> None:
        if row["step"] % 10 == 0:
            print(
                f"step {row['step']}: loss {row['total']:.3f}, IoU of the pairs {row['iou']:.3f}", flush=True
            )

    for seed in SEEDS:
        print(f"seed {seed}", flush=True)
        own = {**recipe, "out": folder_of(out, seed), "seed": seed}
        finetune(pairs, backbone, resume=True, device="cpu", on_step=say, **own)


def log_of(out: pathlib.Path) -> str:
    """The logs as one CSV with a column ``seed``, without the seconds, which alone differ when trainings are repeated."""
    rows = []
    for seed in SEEDS:
        path = folder_of(out, seed) / LOG
        if not path.is_file():
            raise SempartError(f"{path}: no such file; give the folder of the finished fine-tunings")
        rows += [
            {"seed": seed, **row} for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
        ]
    if not rows:
        raise SempartError(f"{out}: the logs have no row; give the folder of the finished fine-tunings")
    text = io.StringIO()
    writer = csv.DictWriter(text, [k for k in rows[0] if k != "seconds"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def settings_of(out: pathlib.Path) -> str:
    """What the trainings say of themselves, with the list of their seeds; SempartError if they differ in anything else."""
    all_of = [json.loads(read_delta(folder_of(out, seed) / DELTA)[1]["settings"]) for seed in SEEDS]
    rest = [{k: v for k, v in s.items() if k != "seed"} for s in all_of]
    if any(r != rest[0] for r in rest):
        raise SempartError(f"{out}: the trainings differ in more than their seed; tune them alike")
    if [s.get("seed") for s in all_of] != list(SEEDS):
        raise SempartError(
            f"{out}: the trainings are not those of the seeds {SEEDS} in this order; tune them again"
        )
    return json.dumps({**rest[0], "seeds": list(SEEDS)}, sort_keys=True)


def ship(out: pathlib.Path, name: str) -> tuple[pathlib.Path, str]:
    """File in the package and its sha256.

    Raises
    ------
    SempartError
        Unknown name, a fine-tuning that is not finished or of another backbone, trainings that differ in more than
        their seed, or too large a file.
    """
    if name not in TUNED:
        raise SempartError(f"no tuned backbone is called {name!r}; choose one of: {', '.join(TUNED)}")
    delta, said = mean_delta([folder_of(out, seed) / DELTA for seed in SEEDS])
    said["settings"] = settings_of(out)
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
    parser.add_argument("out", type=pathlib.Path, help="folder of the fine-tunings, one a seed")
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
