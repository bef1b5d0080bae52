"""Training on made-up photographs: it learns, it continues where it was killed, it says what went wrong."""

import csv
import dataclasses
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from colour_backbone import NAME, ColourBackbone, register, scene
from PIL import Image
from typer.testing import CliRunner

from sempart_core import SempartError, cli
from sempart_core.models import SempartConfig, load_head
from sempart_core.objective import Objective
from sempart_core.samples import Dataset, Sample
from sempart_core.train import TrainingError, train
from sempart_core.training_data import load_training_set
from sempart_core.training_files import head_of

register()
SMALL = SempartConfig(width=16, heads=2, dim_head=8, mlp=16, blocks=(8,))
QUICK = {"config": SMALL, "size": 112, "lr": 1e-2, "batch": 4, "device": "cpu", "branches": "coarse"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path / "cache"))


def boxes(n, seed=0):
    """Red blocks of different places on green."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        x, y = rng.integers(0, 5, 2) * 14
        yield scene(box=(x, y, x + 56, y + 42), seed=i)


def pictures(n=16, seed=0):
    found = {f"p{i:02d}": image for i, (image, _) in enumerate(boxes(n, seed))}
    return Dataset("toy", found, lambda name: Sample(name, found[name]))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    for i, (image, _) in enumerate(boxes(8)):
        Image.fromarray(image).save(place / f"p{i}.png")
    return place


def weights(model):
    return torch.cat([t.flatten().double() for t in model.state_dict().values()])


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


# --- it learns -----------------------------------------------------------------------------------------


def test_the_loss_goes_down_and_the_mask_is_the_block(tmp_path):
    r = train(pictures(), ColourBackbone(), out=tmp_path / "t", epochs=12, **QUICK)
    ncut = [row["held_out_ncut"] for row in r.log]
    assert ncut[-1] < 0.1 < 0.8 < r.log[0]["ncut"]
    (image, mask), *_ = boxes(1, seed=9)
    f = load_training_set([Sample("a", image)] * 2, ColourBackbone(), size=112)
    S = r.model(*f.batch(torch.tensor([0]), torch.device("cpu")), f.grid).coarse[0].detach().numpy() > 0.5
    truth = mask[7::14, 7::14]
    assert (S == truth).all() or (S != truth).all()
    assert all(0 <= row["held_out_decided"] <= 0.5 for row in r.log)
    assert r.log[-1]["held_out_decided"] > r.log[0]["held_out_decided"]


def test_both_branches_train_and_the_terms_add_up(tmp_path):
    goal = Objective.preset("paper", tau=0.5)
    r = train(
        pictures(8),
        ColourBackbone(),
        out=tmp_path / "t",
        objective=goal,
        epochs=3,
        **QUICK | {"branches": "joint", "lr": 1e-3},
    )
    for row in r.log:
        parts = sum(getattr(goal, f"w_{k}") * row[k] for k in ("ncut", "gtv_coarse", "gtv_fine", "sr"))
        assert row["total"] == pytest.approx(parts, rel=1e-5)
    assert r.log[-1]["total"] < r.log[0]["total"]
    with open(r.out / "log.csv") as f:
        rows = list(csv.DictReader(f))
    assert [float(x["sr"]) for x in rows] == [row["sr"] for row in r.log]


def test_the_shipped_head_is_the_epoch_that_the_held_out_photographs_choose(tmp_path, monkeypatch):
    totals = iter([{"total": t, "constant": 0.0} for t in (3.0, 1.0, 2.0)])
    monkeypatch.setattr("sempart_core.training_loop.held_out_means", lambda *_, **__: next(totals))
    r = train(pictures(8), ColourBackbone(), out=tmp_path / "t", epochs=3, **QUICK)
    assert r.best == 2
    same(load_head(r.head), load_head(head_of(r.out, r.best)))
    about = load_head(r.head).about
    assert about["backbone"] == NAME and about["feature"] == "tokens@0" and about["epoch"] == str(r.best)
    assert not any(os.sep in v for v in about.values())


def test_equal_seeds_equal_weights_and_the_caller_keeps_its_random_numbers(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (
        train(pictures(6), ColourBackbone(), out=tmp_path / f"{i}", epochs=1, seed=seed, **QUICK).model
        for i, seed in enumerate((1, 1, 2))
    )
    assert torch.equal(torch.get_rng_state(), before)
    same(a, b)
    assert not torch.equal(weights(a), weights(c))


# --- it continues --------------------------------------------------------------------------------------


def test_a_training_that_was_stopped_continues_bit_for_bit(tmp_path):
    options = QUICK | {"branches": "joint", "lr": 1e-3}

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    whole = train(pictures(8), ColourBackbone(), out=tmp_path / "whole", epochs=4, **options)
    with pytest.raises(Stop):
        train(pictures(8), ColourBackbone(), out=tmp_path / "cut", epochs=4, on_epoch=stop, **options)
    torch.randn(3)  # what else the process draws does not matter
    seen = []
    cut = train(
        pictures(8),
        ColourBackbone(),
        out=tmp_path / "cut",
        epochs=4,
        resume=True,
        on_epoch=seen.append,
        **options,
    )
    assert [row["epoch"] for row in seen] == [3, 4]
    for epoch in (1, 2, 3, 4):
        same(load_head(head_of(whole.out, epoch)), load_head(head_of(cut.out, epoch)))
    numbers = [[{k: v for k, v in row.items() if k != "seconds"} for row in r.log] for r in (whole, cut)]
    assert numbers[0] == numbers[1]


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[3])
import torch; torch.set_num_threads(1)
from colour_backbone import register; register()
from sempart_core import training_files
from test_train import QUICK
from sempart_core.train import train
write = training_files.write_bytes
def dying(path, data):
    if path.name == training_files.STATE and path.exists():
        os._exit(9)  # the second head is on disk, its state is not
    return write(path, data)
training_files.write_bytes = dying
train(sys.argv[1], "test_colour", out=sys.argv[2], epochs=3, **QUICK)
"""


def test_a_killed_process_continues_bit_for_bit(folder, tmp_path):
    tests = pathlib.Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", KILLED, folder, tmp_path / "cut", tests], cwd=tests.parent)
    assert done.returncode == 9
    assert head_of(tmp_path / "cut", 2).exists()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cut = train(folder, NAME, out=tmp_path / "cut", epochs=3, resume=True, **QUICK)
        whole = train(folder, NAME, out=tmp_path / "whole", epochs=3, **QUICK)
    finally:
        torch.set_num_threads(threads)
    for epoch in (1, 2, 3):
        same(load_head(head_of(whole.out, epoch)), load_head(head_of(cut.out, epoch)))


def test_more_epochs_can_be_asked_for_later_but_nothing_else(tmp_path):
    out = tmp_path / "t"
    train(pictures(6), ColourBackbone(), out=out, epochs=1, **QUICK)
    again = train(pictures(6), ColourBackbone(), out=out, epochs=2, resume=True, **QUICK)
    assert [row["epoch"] for row in again.log] == [1, 2]
    with pytest.raises(SempartError, match=r"lr=0\.01, not 0\.02"):
        train(pictures(6), ColourBackbone(), out=out, epochs=2, resume=True, **QUICK | {"lr": 0.02})
    with pytest.raises(SempartError, match="was trained with n=6, not 7"):
        train(pictures(7), ColourBackbone(), out=out, epochs=2, resume=True, **QUICK)
    with pytest.raises(SempartError, match="holds a training already"):
        train(pictures(6), ColourBackbone(), out=out, epochs=2, **QUICK)
    (out / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(SempartError, match="cannot be read"):
        train(pictures(6), ColourBackbone(), out=out, epochs=2, resume=True, **QUICK)


# --- it says what went wrong -----------------------------------------------------------------------------


def test_a_silly_learning_rate_collapses_and_is_told_so(tmp_path):
    out = tmp_path / "t"
    with pytest.raises(TrainingError, match=r"Ncut = 1 and no gradient.*lower learning rate than 1 "):
        train(pictures(), ColourBackbone(), out=out, epochs=12, **QUICK | {"lr": 1.0})
    with open(out / "log.csv") as f:
        last = list(csv.DictReader(f))[-1]
    assert float(last["held_out_ncut"]) == pytest.approx(1, abs=1e-3)
    assert last["epoch"] == "2" and not head_of(out, 2).exists()
    with pytest.raises(TrainingError, match=r"epoch 1: .* 100 % of the held-out masks"):
        train(pictures(), ColourBackbone(), out=tmp_path / "u", epochs=1, **QUICK | {"lr": 1.0})


def test_weights_that_blow_up_are_told(tmp_path):
    with pytest.raises(TrainingError, match="not finite"):
        train(pictures(), ColourBackbone(), out=tmp_path / "t", epochs=2, **QUICK | {"lr": 1000.0})


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"epochs": 0}, "epochs=0"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"batch": 1.5}, "batch=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"held_out": 1.0}, "held_out=1.0"),
        ({"objective": "best"}, "unknown objective 'best'"),
        ({"config": "big"}, "unknown configuration 'big'"),
        ({"optimiser": "sgd"}, "unknown optimiser 'sgd'"),
        ({"feature": "tokens@7"}, "tokens@7"),
        ({"size": 14}, "1 x 1 patches"),
        ({"objective": Objective(), "tau": 0.3}, "tau belongs"),
    ],
)
def test_bad_arguments(tmp_path, changes, words):
    with pytest.raises(SempartError, match=words):
        train(pictures(4), ColourBackbone(), out=tmp_path / "t", **{"epochs": 1, **QUICK, **changes})


def test_the_threshold_of_a_preset_is_the_backbones(tmp_path):
    class Seen(Exception):
        pass

    def look(name):
        def stop(row):
            raise Seen

        with pytest.raises(Seen):
            train(
                pictures(4),
                ColourBackbone(),
                out=tmp_path / name,
                objective=name,
                epochs=1,
                on_epoch=stop,
                **QUICK,
            )
        state = torch.load(tmp_path / name / "state.pt", weights_only=True)
        return state["settings"], state["parts"]["optimiser"]["param_groups"][0]["betas"]

    paper, public = look("paper"), look("sempart_star")
    assert '"tau": 0.5' in paper[0] and '"tau": 0.5' in public[0]
    assert (paper[1], public[1]) == ((0.9, 0.999), (0.9, 0.99))


# --- what it reads -----------------------------------------------------------------------------------------


def test_a_folder_with_a_broken_file(folder, tmp_path):
    (folder / "a_broken.jpg").write_bytes(b"no image")
    with pytest.raises(SempartError, match="a_broken"):
        load_training_set(folder, ColourBackbone(), size=112)
    said = []
    data = load_training_set(folder, ColourBackbone(), size=112, skip=said.append)
    assert len(data) == len(data.x) == len(data.images) == 8 and len(said) == 1
    x, images = data.batch(torch.tensor([3]), torch.device("cpu"))
    want = torch.nn.functional.avg_pool2d(images, 14).flatten(2).mT - 0.5
    assert data.names[3] == "p3.png" and torch.allclose(x, want, atol=1e-3)
    with pytest.raises(SempartError, match="two at least"):
        load_training_set([folder / "p0.png"], ColourBackbone(), size=112)


def test_masks_of_a_data_set_are_never_read(tmp_path):
    class Blind:
        def __init__(self, sample):
            self.name, self.image = sample.name, sample.image

    dull = [Blind(s) for s in pictures(4)]
    done = train(dull, ColourBackbone(), out=tmp_path / "t", epochs=1, **QUICK)
    assert done.head.is_file() and len(done.log) == 1


# --- the command -------------------------------------------------------------------------------------------


def run(*args):
    return CliRunner().invoke(cli.app, ["train", *map(str, args)])


def test_the_command_trains_and_resumes(folder, tmp_path):
    args = ["--images", folder, "--out", tmp_path / "t", "--backbone", NAME]
    args += ["--size", 112, "--branches", "coarse", "--recipe", "compact"]
    (folder / "broken.jpg").write_bytes(b"no image")
    one = run(*args, "--epochs", 1)
    assert one.exit_code == 0, one.output
    assert "broken.jpg" in one.output and "epoch 1: loss" in one.output
    two = run(*args, "--epochs", 2, "--resume")
    assert two.exit_code == 0 and "epoch 2: loss" in two.output and "epoch 1: loss" not in two.output
    assert (tmp_path / "t" / "head.safetensors").is_file()


@pytest.mark.parametrize(
    "extra, words",
    [
        (["--images", "nowhere"], "no such file or folder"),
        (["--recipe", "best"], "choose one of: paper, sempart_star, two_tricks, compact, shipped, demo"),
        (["--lr", "0"], "learning rate"),
        (["--backbone", "vgg"], "unknown backbone"),
        (["--tau", "3"], "tau"),
    ],
)
def test_the_command_refuses_in_one_sentence(folder, tmp_path, extra, words):
    done = run(
        "--images", folder, "--out", tmp_path / "t", "--backbone", NAME, "--size", 112, "--epochs", 1, *extra
    )
    assert done.exit_code == 2
    assert words in done.output and "Traceback" not in done.output


def test_a_full_place_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SempartError, match="cannot make the folder"):
        train(pictures(4), ColourBackbone(), out=tmp_path / "file" / "t", epochs=1, **QUICK)


def test_the_network_follows_the_backbone(tmp_path):
    r = train(pictures(4), ColourBackbone(), out=tmp_path / "t", epochs=1, **QUICK)
    assert r.model.config == dataclasses.replace(SMALL, dim=3, patch=14)
