"""The choices of a training: which branches learn what, averages, augmentation, artefacts, processes."""

import dataclasses
import pathlib

import pytest
import torch
from colour_backbone import ColourBackbone, register
from ranks import on_two_processes
from test_train import QUICK, SMALL, boxes, own_cache, pictures, same, weights  # noqa: F401

from sempart_core import SempartError, artefacts, plots, training_loop
from sempart_core.augment import MARGIN, augment
from sempart_core.datasets import of_profile
from sempart_core.models import Sempart, load_head
from sempart_core.objective import Objective
from sempart_core.profiles import load as profile
from sempart_core.recipes import RECIPES, recipe
from sempart_core.samples import Dataset
from sempart_core.train import train
from sempart_core.training_data import content_of, load_training_set
from sempart_core.training_files import head_of
from sempart_core.training_step import BRANCHES, Meter, Pass, loss

register()
BOTH = QUICK | {"branches": "joint", "lr": 1e-3}
GOAL = Objective.preset("compact", tau=0.5)


# --- branches ------------------------------------------------------------------------------------------


def gradients(branches, **weight):
    """Names of the parts of the network that a loss reaches."""
    torch.manual_seed(0)
    model = Sempart(dataclasses.replace(SMALL, dim=3, patch=14))
    data = load_training_set(pictures(4), ColourBackbone(), size=56)
    x, images = data.batch(torch.arange(4), torch.device("cpu"))
    goal = dataclasses.replace(GOAL, **weight)
    loss(Pass(model), goal, x, images, data.grid, branches=branches, meter=Meter(), epoch=1).backward()
    return {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_which_loss_reaches_which_branch():
    encoder = {"project", "cls", "encoder", "norm"}
    off = {"w_ncut": 0, "w_gtv_coarse": 0, "w_gtv_fine": 0, "w_sr": 0}
    both = encoder | {"coarse", "refiner"}
    assert gradients("joint") == both
    assert gradients("coarse") == both - {"refiner"}
    assert gradients("fine") == both - {"coarse"}
    assert gradients("fine", **off | {"w_ncut": 1}) == both - {"coarse"}
    assert gradients("joint", **off | {"w_sr": 1}) == both
    assert gradients("joint", **off | {"w_gtv_fine": 1}) == both - {"coarse"}
    assert gradients("detached", **off | {"w_sr": 1}) == {"refiner"}
    assert gradients("detached", **off | {"w_gtv_fine": 1}) == {"refiner"}
    assert gradients("detached", **off | {"w_ncut": 1, "w_gtv_coarse": 1}) == encoder | {"coarse"}


def test_detached_training_leaves_the_coarse_branch_as_it_would_be_alone(tmp_path):
    a, b = (
        train(pictures(8), ColourBackbone(), out=tmp_path / x, epochs=2, **BOTH | {"branches": x}).epoch_heads
        for x in ("coarse", "detached")
    )
    a, b = (load_head(heads[-1]).state_dict() for heads in (a, b))
    assert all(torch.equal(a[k], b[k]) for k in a if not k.startswith("refiner"))
    assert any(not torch.equal(a[k], b[k]) for k in a if k.startswith("refiner"))


def test_the_fine_mask_alone_has_no_coarse_terms_and_learns(tmp_path):
    options = BOTH | {"branches": "fine", "lr": 1e-2}
    r = train(pictures(12), ColourBackbone(), out=tmp_path / "t", objective=GOAL, epochs=6, **options)
    assert {"ncut", "gtv_fine"} <= r.log[0].keys() and not {"sr", "gtv_coarse"} & r.log[0].keys()
    assert r.log[-1]["ncut"] < 0.97 < r.log[0]["ncut"]
    assert load_head(r.head).about["branches"] == "fine"


def test_the_first_epochs_are_those_of_the_coarse_branch(tmp_path, monkeypatch):
    alone = train(
        pictures(8), ColourBackbone(), out=tmp_path / "a", epochs=2, **BOTH | {"branches": "coarse"}
    )
    totals = iter([{"total": t, "constant": 0.0} for t in (1.0, 0.5, 3.0, 2.0)])
    monkeypatch.setattr(training_loop, "held_out_means", lambda *_, **__: next(totals))
    r = train(pictures(8), ColourBackbone(), out=tmp_path / "b", epochs=4, coarse_epochs=2, **BOTH)
    same(load_head(alone.epoch_heads[1]), load_head(r.epoch_heads[1]))
    assert ["sr" in row for row in r.log] == [False, False, True, True]
    assert r.best == 4  # the totals of the first two lack terms


def test_a_cap_on_the_steps(tmp_path):
    options = QUICK | {"lr": 1.0}  # collapses, which a few steps do not prove
    r = train(pictures(8), ColourBackbone(), out=tmp_path / "t", epochs=9, steps=3, **options)
    assert len(r.log) == 2 and len(r.epoch_heads) == 2  # two steps an epoch: the second is cut short
    one = train(pictures(8), ColourBackbone(), out=tmp_path / "u", epochs=9, steps=2, **options)
    same(load_head(r.epoch_heads[0]), load_head(one.epoch_heads[0]))
    assert len(one.log) == 1


# --- schedule, average, precision, augmentation -----------------------------------------------------------


@pytest.fixture
def rates(monkeypatch):
    seen = []
    follow = training_loop._follow

    def look(parts):
        seen.append(parts["optimiser"].param_groups[0]["lr"])
        follow(parts)

    monkeypatch.setattr(training_loop, "_follow", look)
    return seen


def test_the_cosine_ends_at_zero(tmp_path, rates):
    train(pictures(9), ColourBackbone(), out=tmp_path / "t", epochs=3, schedule="cosine", **QUICK)
    want = [1e-2 * (1 + torch.cos(torch.tensor(torch.pi * i / 6)).item()) / 2 for i in range(6)]
    assert rates == pytest.approx(want)


def test_the_average_is_measured_and_saved_and_the_weights_go_on_without_it(tmp_path):
    raw = train(pictures(9), ColourBackbone(), out=tmp_path / "a", epochs=2, **BOTH)
    r = train(pictures(9), ColourBackbone(), out=tmp_path / "b", epochs=2, ema=0.5, **BOTH)
    state = torch.load(r.out / "state.pt", weights_only=True)["parts"]
    one, two = load_head(raw.epoch_heads[1]).state_dict(), load_head(r.epoch_heads[1]).state_dict()
    assert all(torch.equal(one[k], v) for k, v in state["model"].items())
    assert all(torch.equal(two[k], state["average"][f"module.{k}"]) for k in two)
    assert any(not torch.equal(one[k], two[k]) for k in one if "running" in k)  # buffers too
    assert [a["ncut"] for a in r.log] == [a["ncut"] for a in raw.log]
    assert r.log[1]["held_out_ncut"] != raw.log[1]["held_out_ncut"]


@pytest.mark.parametrize("kind", [None, "flip", "sempart_star"])
def test_everything_together_continues_bit_for_bit(tmp_path, kind):
    options = BOTH | {"ema": 0.9, "schedule": "cosine", "augment": kind, "coarse_epochs": 1, "epochs": 3}

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    whole = train(pictures(8), ColourBackbone(), out=tmp_path / "whole", **options)
    with pytest.raises(Stop):
        train(pictures(8), ColourBackbone(), out=tmp_path / "cut", on_epoch=stop, **options)
    torch.randn(3)
    cut = train(pictures(8), ColourBackbone(), out=tmp_path / "cut", resume=True, **options)
    for a, b in zip(whole.epoch_heads, cut.epoch_heads, strict=True):
        same(load_head(a), load_head(b))
    with pytest.raises(SempartError, match="was trained with epochs=3, not 4"):  # the cosine would change
        train(pictures(8), ColourBackbone(), out=tmp_path / "cut", resume=True, **options | {"epochs": 4})


def test_augmented_batches():
    big = [torch.rand(3, 60, 60 + 5 * i) for i in range(8)]
    before = torch.get_rng_state()
    a, b, c = (augment(big, "sempart_star", (56, 56), seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert a.shape == (8, 3, 56, 56) and a.min() >= 0 and a.max() <= 1
    assert torch.equal(a, b) and not torch.equal(a, c)
    square = [p[:, :56, :56] for p in big]
    flipped = [
        bool((y != x).any()) for x, y in zip(square, augment(square, "flip", (56, 56), 0), strict=True)
    ]
    assert 0 < sum(flipped) < 8
    for x, y, other in zip(square, augment(square, "flip", (56, 56), 0), flipped, strict=True):
        assert torch.equal(y, x.flip(-1) if other else x)


def test_an_augmentation_reads_the_features_of_what_it_made(tmp_path):
    data = load_training_set(pictures(4), ColourBackbone(), size=112, margin=MARGIN)
    assert all(min(p.shape[1:]) == 112 + MARGIN for p in data.large)
    net = ColourBackbone()
    train(data, net, out=tmp_path / "t", epochs=2, augment="sempart_star", **QUICK)
    assert net.seen == 2 * 3  # every photograph that is not held out, every epoch
    for margin in (None, MARGIN + 5):
        other = load_training_set(pictures(4), ColourBackbone(), size=112, margin=margin)
        with pytest.raises(SempartError, match="margin=15"):
            train(other, net, out=tmp_path / "u", epochs=1, augment="sempart_star", **QUICK)
    train(data, net, out=tmp_path / "v", epochs=1, augment="flip", **QUICK)  # of the squares


def test_brightness_scales_as_torchvisions(monkeypatch):
    import kornia.augmentation as K

    from sempart_core import augment as module

    (jitter,) = [m for m in module._colours("sempart_star").children() if isinstance(m, K.ColorJitter)]
    grey = torch.full((1, 3, 4, 4), 0.2)
    keep = {"contrast_factor": 1.0, "saturation_factor": 1.0, "hue_factor": 0.0, "brightness_factor": 1.4}
    params = {k: torch.full((1,), v) for k, v in keep.items()} | {"order": torch.tensor([0, 1, 2, 3])}
    assert torch.allclose(jitter.apply_transform(grey, params, {}), grey * 1.4, atol=1e-5)


def test_a_short_training_is_not_averaged_with_its_first_weights(tmp_path):
    raw = train(pictures(12), ColourBackbone(), out=tmp_path / "a", epochs=12, **QUICK)
    r = train(pictures(12), ColourBackbone(), out=tmp_path / "b", epochs=12, ema=0.99, **QUICK)
    assert r.log[-1]["held_out_ncut"] < 0.5 * (1 + raw.log[-1]["held_out_ncut"])


def test_one_photograph_at_least_is_trained_on(tmp_path):
    r = train(pictures(3), ColourBackbone(), out=tmp_path / "t", epochs=1, steps=2, held_out=0.9, **QUICK)
    assert len(r.log) == 1


def test_half_precision_runs_the_network_and_not_the_losses(tmp_path, monkeypatch):
    seen = []
    logits = Sempart.logits

    def look(self, *args, **kwargs):
        out = logits(self, *args, **kwargs)
        seen.append(out.coarse.dtype)
        return out

    monkeypatch.setattr(Sempart, "logits", look)
    for amp, want in (("bf16", torch.bfloat16), ("auto", torch.float32), ("no", torch.float32)):
        r = train(pictures(4), ColourBackbone(), out=tmp_path / amp, epochs=1, amp=amp, **QUICK)
        assert set(seen) == {want} and r.log[0]["ncut"] == pytest.approx(1, abs=0.2)
        seen.clear()


# --- artefacts ---------------------------------------------------------------------------------------------


def test_the_same_call_loads_and_another_trains():
    calls = []
    options = QUICK | {"epochs": 2, "on_epoch": calls.append}
    first = train(pictures(6), ColourBackbone(), **options)
    again = train(pictures(6), net := ColourBackbone(), **options)
    assert (first.loaded, again.loaded, len(calls), net.seen) == (False, True, 2, 0)
    assert again.key == first.key == first.out.name and len(first.key) == 16
    assert (again.log, again.best, again.epoch_heads) == (first.log, first.best, first.epoch_heads)
    assert again.model.about == first.model.about
    same(first.model, again.model)
    keys = {first.key}
    for change in (
        {"seed": 1},
        {"lr": 2e-2},
        {"epochs": 3},
        {"tau": 0.4},
        {"feature": "keys@0"},
        {"ema": 0.9},
    ):
        keys.add(train(pictures(6), ColourBackbone(), **QUICK | {"epochs": 2} | change).key)
    keys.add(
        train(pictures(6, seed=3), ColourBackbone(), **QUICK | {"epochs": 2}).key
    )  # only the pixels differ
    assert len(keys) == 8
    data = load_training_set(pictures(6), ColourBackbone(), size=112)
    assert train(data, ColourBackbone(), **options).loaded  # the photographs count, not how they came


def test_an_interrupted_artefact_goes_on_and_a_damaged_one_is_mended():
    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    options = QUICK | {"epochs": 2}
    with pytest.raises(Stop):
        train(pictures(6), ColourBackbone(), on_epoch=stop, **options)
    seen = []
    r = train(pictures(6), ColourBackbone(), on_epoch=seen.append, **options)
    assert [row["epoch"] for row in seen] == [2] and not r.loaded
    r.head.write_bytes(b"nonsense")
    mended = train(pictures(6), ColourBackbone(), on_epoch=seen.append, **options)
    assert len(seen) == 1
    same(mended.model, load_head(r.head))


def test_what_a_source_counts(tmp_path, monkeypatch):
    code = "import a\n\nCONFIGS = {}\n\ndef f(x):\n    return x + 1\n"
    told = 'A docstring."""\nimport a  # why\nCONFIGS = {"more": 1}\n\n\ndef f(x):\n    """Says."""\n    return x + 1\n'
    (tmp_path / "artefacts.py").write_text("")
    monkeypatch.setattr(artefacts, "__file__", str(tmp_path / "artefacts.py"))
    monkeypatch.setattr(artefacts, "DECIDING", ("m.py",))
    found = []
    for text in (code, '"""' + told, code.replace("+ 1", "+ 2")):
        (tmp_path / "m.py").write_text(text)
        found.append(artefacts.source_digest.__wrapped__())
    assert found[0] == found[1] != found[2]


def test_contents(tmp_path):
    a, b = pictures(3), pictures(3, seed=1)
    assert content_of(a) == content_of(pictures(3)) != content_of(b)
    assert load_training_set(a, ColourBackbone(), size=112).content == content_of(a)

    def never(name):
        raise AssertionError(name)

    salted = [content_of(Dataset("made", ["x", "y"], never, salt=s)) for s in ("v1", "v1", "v2")]
    assert salted[0] == salted[1] != salted[2]
    files = [tmp_path / "p.png"]
    files[0].write_bytes(b"1")
    one = content_of(files)
    files[0].write_bytes(b"2")
    assert content_of(files) != one


# --- recipes, data sets, curves, arguments -----------------------------------------------------------------


def test_recipes_are_trainings():
    for name in RECIPES:
        options = recipe(name, config=SMALL, size=112, steps=1, device="cpu", epochs=1)
        r = train(pictures(4), ColourBackbone(), **options)
        assert r.log[0]["epoch"] == 1
    assert recipe("demo", lr=3e-4)["lr"] == 3e-4 and RECIPES["demo"]["lr"] != 3e-4
    assert recipe("compact", branches="coarse")["coarse_epochs"] == 0
    assert recipe("compact", epochs=2)["coarse_epochs"] == 1
    with pytest.raises(SempartError, match="unknown recipe 'best'"):
        recipe("best")
    with pytest.raises(SempartError, match="unknown key of a recipe 'learning_rate'"):
        recipe("demo", learning_rate=1)


def test_the_data_sets_of_a_profile(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("sempart_core.datasets.load_dataset", lambda *a, **k: asked.append((a, k)) or a[0])
    smoke, photos = profile("smoke"), profile("photos", data_root=tmp_path)
    assert of_profile(smoke, "train") == ["demo"]
    assert asked.pop()[1] == {"split": "train", "limit": 4}
    of_profile(smoke, "masks", limit=2)
    assert asked.pop()[1] == {"split": "test", "limit": 2}
    assert of_profile(photos, "masks") == ["voc2012_animals", "weizmann_horses", "davis2016_val"]
    assert asked[-1] == (("davis2016_val", tmp_path), {"split": None, "limit": None})
    assert of_profile(photos, "semantic") == ["voc2012_animals"] and asked[-1][1]["split"] == "semseg"
    with pytest.raises(SempartError, match="unknown role 'labels'"):
        of_profile(photos, "labels")
    for role in ("train", "masks", "boxes", "semantic"):
        assert of_profile(profile("paper", data_root=tmp_path), role)


def test_the_curves_show_every_term(tmp_path):
    r = train(pictures(6), ColourBackbone(), out=tmp_path / "t", epochs=2, coarse_epochs=1, **BOTH)
    assert (r.out / "log.png").read_bytes().startswith(b"\x89PNG")
    fig = plots.training_curves(r.log)
    shown = {ax.get_title(): ax for ax in fig.axes if ax.get_visible()}
    assert "super-resolution" in shown and "expected Ncut" in shown
    train_line, held = shown["expected Ncut"].lines
    assert list(held.get_ydata()) == [row["held_out_ncut"] for row in r.log]
    assert train_line.get_linestyle() != held.get_linestyle()
    with pytest.raises(SempartError, match="no term"):
        plots.training_curves([])


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"branches": "both"}, "unknown branches 'both'; choose one of: " + ", ".join(BRANCHES)),
        ({"coarse_epochs": 1}, "coarse_epochs=1"),
        ({"branches": "joint", "coarse_epochs": 1}, "fewer than epochs=1"),
        ({"schedule": "linear"}, "constant, cosine"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"augment": "crop"}, "flip, sempart_star"),
        ({"amp": "fp16"}, "auto, bf16, no"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_bad_arguments(changes, words):
    with pytest.raises(SempartError, match=words):
        train(pictures(4), ColourBackbone(), **{"epochs": 1, **QUICK, **changes})


def test_photographs_loaded_otherwise_are_refused(tmp_path):
    data = load_training_set(pictures(4), ColourBackbone(), size=56, pixels=False)
    with pytest.raises(SempartError, match="size=56, not 112"):
        train(data, ColourBackbone(), epochs=1, **QUICK)
    with pytest.raises(SempartError, match="pixels=True"):
        train(data, ColourBackbone(), epochs=1, **BOTH | {"size": 56})


# --- several processes ---------------------------------------------------------------------------------------

RANK = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from colour_backbone import register; register()
from ranks import note_each_step; note_each_step(sys.argv.pop(1))
from sempart_core import cli
cli.main()
"""


def photographs(folder, n=9):
    """A folder of them."""
    from PIL import Image

    folder.mkdir()
    for i, (image, _) in enumerate(boxes(n)):
        Image.fromarray(image).save(folder / f"p{i}.png")
    return folder


def test_two_processes_train_one_head(tmp_path):
    tests, folder, seen = pathlib.Path(__file__).parent, photographs(tmp_path / "photos"), tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "rank.py").write_text(RANK)
    options = ["--backbone", "test_colour", "--size", "56", "--batch", "4", "--lr", "0.001", "--epochs", "2"]
    said, errors = on_two_processes(
        tmp_path / "rank.py", tests, seen, "train", "--images", folder, "--out", tmp_path / "t",
        "--branches", "coarse", "--device", "cpu", "--recipe", "compact", *options,
    )  # fmt: skip
    first, second = ((seen / rank).read_text().split() for rank in "01")
    assert len(first) == 4 and first == second and len(set(first)) == 4
    assert len((tmp_path / "t" / "log.csv").read_text().splitlines()) == 3
    assert said.count("head.safetensors: epoch") == 1 and errors.count("epoch 2: loss") == 1
    # The gradients of both halves of a batch, averaged, are that of the batch.
    options = recipe("compact", branches="coarse", epochs=2, size=56, batch=4, lr=1e-3, device="cpu")
    alone = train(folder, "test_colour", out=tmp_path / "one", **options)
    pairs = zip(alone.epoch_heads, (head_of(tmp_path / "t", i) for i in (1, 2)), strict=True)
    for a, b in pairs:
        assert torch.allclose(weights(load_head(a)), weights(load_head(b)), atol=1e-5)
