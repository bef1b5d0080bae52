"""Tuned backbones that ship: their files, their cards, and how they refuse."""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch
from safetensors import torch as safetensors

from data_scripts import ship_backbone
from sempart_core import SempartError, tuned_backbones
from sempart_core.backbones import load_backbone
from sempart_core.checkpoints import sha256_of
from sempart_core.tuned import read_delta
from sempart_core.tuned_backbones import BACKBONES, TUNED, file_of


@pytest.mark.parametrize("name", TUNED)
def test_the_file_is_the_one_that_shipped_and_says_how_it_was_made(name):
    path = file_of(name)
    assert sha256_of(path) == TUNED[name][1]
    assert path.stat().st_size < ship_backbone.LARGEST
    delta, said = read_delta(path)
    assert all(d.dtype == torch.half and torch.isfinite(d).all() for d in delta.values())
    assert any(d.abs().max() > 0 for d in delta.values())
    settings = json.loads(said["settings"])
    rows = list(csv.DictReader(io.StringIO(said["log"])))
    assert int(rows[-1]["step"]) == settings["steps"]
    assert [int(s) for s in dict.fromkeys(r["seed"] for r in rows)] == settings[
        "seeds"
    ] and "seed" not in settings
    card = BACKBONES.card(name)
    assert str(settings["n"]) in card.extra["tuning"] and card.extra["sha256"] == TUNED[name][1]
    assert card.extra["feature"] == said["feature"] == BACKBONES.card(TUNED[name][0]).extra["feature"]
    assert '"/' not in said["settings"]  # no path of a machine


ASKED = """
import sys
import sempart_core.backbones
from sempart_core import SempartError
from {module} import {function} as load

heavy = [m for m in sys.modules if m.startswith("sempart_core.") and ("finetune" in m or "tuned" in m)]
assert not heavy, heavy
for name, words in (("nothing", "{name}"), ("{name}", "no weights for '{base}'")):
    try:
        load(name)
    except SempartError as e:
        assert words in str(e), e
    else:
        raise SystemExit(f"{{name}} was loaded without weights")
assert not [m for m in sys.modules if m.startswith("sempart_core.finetune")]
"""


@pytest.mark.parametrize(
    ("module", "function"), [("sempart_core", "load"), ("sempart_core.backbones", "load_backbone")]
)
@pytest.mark.parametrize("name", TUNED)
def test_a_name_is_enough(module, function, name, tmp_path):
    code = ASKED.format(module=module, function=function, name=name, base=TUNED[name][0])
    own = {k: v for k, v in os.environ.items() if k != "SEMPART_WEIGHTS"}
    own |= {"SEMPART_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    root = pathlib.Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=own)


def test_another_file_or_none_is_refused(tmp_path, monkeypatch):
    name = next(iter(TUNED))
    monkeypatch.setattr(tuned_backbones, "FOLDER", tmp_path)
    with pytest.raises(SempartError, match="is missing; install the package again"):
        load_backbone(name)
    file_of(name).write_bytes(b"something else")
    with pytest.raises(SempartError, match="sha256 is"):
        load_backbone(name)
    assert "missing or damaged" in tuned_backbones.card(name).extra["tuning"]  # and importing does not fail
    file_of(name).unlink()
    assert tuned_backbones.card(name).cost == "file missing"


@pytest.mark.parametrize("name", TUNED)
def test_the_card_speaks_of_this_backbone(name):
    card, base = BACKBONES.card(name), BACKBONES.card(TUNED[name][0])
    assert card.extra["where"] == "this package" and card.extra["file"] == file_of(name).name
    assert card.extra["defaults_from"].startswith("label-tuned: carried over")  # the prefix marks its rows
    assert card.extra["taus"] == base.extra["taus"] and "photographs" in card.extra["training"]


@pytest.mark.parametrize("name", TUNED)
def test_only_the_tail_differs_from_the_original(name):
    try:
        base = load_backbone(TUNED[name][0])
    except SempartError:
        pytest.skip("the weights of the original are not here")
    net = load_backbone(name)
    assert net.name == name and net.sha256 != base.sha256 and net.card is BACKBONES.card(name)
    x = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    layers = ["queries@11", "tokens@5"]
    one, two = (n.extract(x, layers).layers for n in (net, base))
    assert torch.equal(one["tokens@5"], two["tokens@5"]) and not torch.equal(
        one["queries@11"], two["queries@11"]
    )


def training(folder, backbone, **changes):
    for seed in ship_backbone.SEEDS:
        own = ship_backbone.folder_of(folder, seed)
        own.mkdir(parents=True, exist_ok=True)
        settings = json.dumps({"lr": 0.1, "seed": seed, **changes.get(f"seed_{seed}", {})})
        said = {"backbone": backbone, "sha256": "0", "feature": "tokens@1", "settings": settings}
        (own / "log.csv").write_text("step,total,seconds\n1,0.5,9.9\n", encoding="utf-8")
        w = torch.full((2,), float(seed**2)).half()
        safetensors.save_file({"w": w}, own / "delta.safetensors", metadata=said)


def test_shipping_keeps_the_mean_and_the_logs(tmp_path, monkeypatch):
    name = next(iter(TUNED))
    monkeypatch.setattr(tuned_backbones, "FOLDER", tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    training(tmp_path, TUNED[name][0])
    path, digest = ship_backbone.ship(tmp_path, name)
    assert path == file_of(name) and digest == sha256_of(path)
    delta, said = read_delta(path)
    assert delta["w"].tolist() == pytest.approx([5 / 3] * 2, abs=1e-3)
    assert json.loads(said["settings"]) == {"lr": 0.1, "seeds": [0, 1, 2]}
    # without what differs from run to run
    assert said["log"].split() == ["seed,step,total", "0,1,0.5", "1,1,0.5", "2,1,0.5"]
    training(tmp_path, TUNED[name][0], seed_1={"lr": 0.2})
    with pytest.raises(SempartError, match="differ in more than their seed"):
        ship_backbone.ship(tmp_path, name)
    training(tmp_path, TUNED[name][0], seed_1={"seed": 0})
    with pytest.raises(SempartError, match="not those of the seeds"):
        ship_backbone.ship(tmp_path, name)
    training(tmp_path, TUNED[name][0])
    (ship_backbone.folder_of(tmp_path, 1) / "log.csv").unlink()
    with pytest.raises(SempartError, match="give the folder of the finished fine-tunings"):
        ship_backbone.ship(tmp_path, name)


@pytest.mark.parametrize(
    ("backbone", "largest", "name", "words"),
    [
        ("other", 1e6, None, "is made of"),
        (None, 10, None, "tune fewer blocks"),
        (None, 1e6, "nothing", "no tuned backbone is called"),
    ],
)
def test_shipping_refuses(tmp_path, monkeypatch, backbone, largest, name, words):
    own = next(iter(TUNED))
    monkeypatch.setattr(tuned_backbones, "FOLDER", tmp_path)
    monkeypatch.setattr(ship_backbone, "LARGEST", largest)
    training(tmp_path, backbone or TUNED[own][0])
    with pytest.raises(SempartError, match=words):
        ship_backbone.ship(tmp_path, name or own)
    assert not file_of(own).exists()
