"""What goes wrong around a training: broken artefacts, locks, files named twice, options that do not fit."""

import fcntl
import os
import sys
import threading

import pytest
import torch
from colour_backbone import NAME, ColourBackbone, register
from test_train import QUICK, folder, own_cache, pictures  # noqa: F401
from typer.testing import CliRunner

from sempart_core import SempartError, artefacts, cli, cli_train
from sempart_core.images import read_image
from sempart_core.models import load_head
from sempart_core.objective import Objective
from sempart_core.recipes import RECIPES, recipe
from sempart_core.samples import Dataset, Sample
from sempart_core.train import train
from sempart_core.training_files import HEAD, STATE, head_of

register()
OPTIONS = QUICK | {"epochs": 2}


class Stop(Exception):
    pass


def stop(row):
    raise Stop


# --- artefacts -----------------------------------------------------------------------------------------


def old_version(out):
    state = torch.load(out / STATE, weights_only=True)
    torch.save(state | {"version": state["version"] - 1}, out / STATE)


def damaged_state(out):
    (out / STATE).write_bytes(b"nonsense")


def damaged_epoch(out):
    head_of(out, 1).write_bytes(b"nonsense")


@pytest.mark.parametrize("harm", [old_version, damaged_state, damaged_epoch])
def test_an_artefact_that_cannot_be_continued_is_trained_anew(harm):
    with pytest.raises(Stop):
        train(pictures(6), ColourBackbone(), on_epoch=stop, **OPTIONS)
    (state,) = artefacts.cache_dir().glob(f"trained/*/{STATE}")
    harm(state.parent)
    seen = []
    r = train(pictures(6), ColourBackbone(), on_epoch=seen.append, **OPTIONS)
    assert [row["epoch"] for row in seen] == [1, 2] and not r.loaded
    assert train(pictures(6), ColourBackbone(), **OPTIONS).loaded
    for path in r.epoch_heads:
        load_head(path)


def test_what_can_be_continued_is_kept(tmp_path):
    r = train(pictures(6), ColourBackbone(), out=tmp_path / "t", **OPTIONS)
    artefacts.discard_broken(r.out)
    assert (r.out / STATE).exists()
    model, log = artefacts.finished(r.out, lambda out: load_head(out / HEAD))
    assert model.about == r.model.about and len(log) == len(r.log)
    assert artefacts.finished(r.out, lambda out: load_head(out / "none")) is None


def test_waiting_for_another_process_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(artefacts, "PATIENCE", 0.05)
    other = os.open(tmp_path / "abc.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)  # as another process holds it
    timer = threading.Timer(0.5, os.close, args=(other,))
    timer.start()
    with artefacts.lock(tmp_path / "abc"):
        assert capsys.readouterr().err.count("another process trains abc; waiting") == 1
    timer.join()
    with artefacts.lock(tmp_path / "abc"):
        assert capsys.readouterr().err == ""


def test_a_lock_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "abc.lock").mkdir()  # whoever runs this may write everywhere, but not into a folder
    with pytest.raises(SempartError, match=r"abc\.lock: cannot be written .* SEMPART_CACHE"):
        with artefacts.lock(tmp_path / "abc"):
            pass


# --- options -------------------------------------------------------------------------------------------


def test_an_unreadable_file_is_named_once(folder):  # noqa: F811
    files = {p.stem: p for p in sorted(folder.glob("*.png"))[:4]}
    (folder / "p0.png").write_bytes(b"no image")
    data = Dataset("mixed", files, lambda name: Sample(name, read_image(files[name])))
    said = []
    train(data, ColourBackbone(), skip=said.append, **QUICK | {"epochs": 1})
    assert len(said) == 1 and "p0.png" in said[0]


def test_the_fine_branch_alone_needs_a_term_that_smooths_it(tmp_path):
    options = QUICK | {"branches": "fine", "epochs": 1}
    with pytest.raises(SempartError, match="--recipe compact"):
        train(pictures(4), ColourBackbone(), out=tmp_path / "t", objective="refined", **options)
    goal = Objective.preset("refined", w_gtv_fine=0.1)
    train(pictures(4), ColourBackbone(), out=tmp_path / "u", objective=goal, steps=1, **options)


def test_a_recipe_without_epochs_is_refused_by_the_training(tmp_path):
    options = recipe("shipped", epochs=None) | QUICK
    with pytest.raises(SempartError, match="epochs=None"):
        train(pictures(4), ColourBackbone(), out=tmp_path / "t", **options)


@pytest.mark.parametrize(
    "extra, tau",
    [
        ([], RECIPES["shipped"]["tau"]),
        (["--feature", "tokens@0"], RECIPES["shipped"]["tau"]),  # its default
        (["--feature", "keys@0"], None),
        (["--feature", "keys@0", "--tau", "0.3"], 0.3),
    ],
)
def test_the_threshold_of_a_recipe_stays_on_the_default_feature(folder, tmp_path, monkeypatch, extra, tau):  # noqa: F811
    class Seen(Exception):
        pass

    def look(*args, **options):
        raise Seen(options.get("tau"))

    monkeypatch.setattr(cli_train, "BACKBONE", NAME)
    monkeypatch.setattr(sys.modules["sempart_core.train"], "train", look)
    command = ["train", "--images", folder, "--out", tmp_path / "t", "--backbone", NAME, *extra]
    done = CliRunner().invoke(cli.app, [str(a) for a in command])
    assert isinstance(done.exception, Seen) and done.exception.args == (tau,)


def test_each_process_of_torchrun_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cli_train.own_device("auto") == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli_train.own_device("auto") == "cuda:1" and cli_train.own_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli_train.own_device("auto") == "cpu"
