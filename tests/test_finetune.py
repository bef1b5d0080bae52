"""Fine-tuning a tiny transformer: it is split where it should be, it moves, it continues, it travels as a file."""

import functools
import importlib.metadata
import inspect
import itertools
import pathlib
import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from colour_backbone import scene
from PIL import Image
from ranks import on_two_processes

from sempart_core import SempartError, finetune_data, finetune_loop
from sempart_core import finetune as module
from sempart_core.backbones import Backbone
from sempart_core.cache import extract_cached
from sempart_core.finetune import DECIDING, finetune, load_siamese
from sempart_core.finetune_data import load_pairs
from sempart_core.finetune_model import Encoder, Siamese, head, parameter_groups
from sempart_core.finetune_recipes import FINETUNES, finetune_recipe
from sempart_core.mask_consistency import MaskConsistency
from sempart_core.methods import METHODS
from sempart_core.registry import Card
from sempart_core.samples import Dataset, Sample
from sempart_core.training_files import STATE, load_state
from sempart_core.training_loop import seed_of
from sempart_core.training_step import TrainingError
from sempart_core.tuned import apply_delta, load_tuned, read_delta

SIZE = 64
QUICK = {
    "blocks": 1,
    "size": SIZE,
    "batch": 2,
    "optimiser": "adamw",
    "lr": 1e-3,
    "device": "cpu",
    "colours": "none",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path / "cache"))


@functools.cache
def tiny(kind="vit", sha="f" * 64):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "resnet":
            model = timm.create_model("resnet10t", pretrained=False, num_classes=0, output_stride=16)
            feature, patch = "tokens@3", 16
        elif kind == "rope":
            model = timm.create_model(
                "vit_small_patch16_dinov3_qkvb", pretrained=False, num_classes=0, depth=2, embed_dim=96, num_heads=3,
                dynamic_img_size=True,
            )  # fmt: skip
            feature, patch = "keys@1", 16
        else:
            model = timm.create_model(
                "vit_tiny_patch16_224",
                pretrained=False,
                num_classes=0,
                depth=2,
                img_size=SIZE,
                dynamic_img_size=True,
            )
            feature, patch = "keys@1", 16
    card = Card(
        f"tiny-{kind}", "random weights", extra={"patch": patch, "feature": feature, "taus": {feature: 0.3}}
    )
    return Backbone(model, card, sha)


def pictures(n=4):
    found = {f"p{i}": scene(90, 120, (20 + 5 * i, 20, 80, 70), seed=i)[0] for i in range(n)}
    return Dataset("toy", found, lambda name: Sample(name, found[name]))


def files(folder, n=4, broken=()):
    """The same pictures as files, some of which are none."""
    folder.mkdir()
    out = [folder / f"p{i}.png" for i in range(n)]
    for i, (path, sample) in enumerate(zip(out, pictures(n), strict=True)):
        if i in broken:
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(sample.image).save(path)
    return out


@pytest.fixture
def trained(monkeypatch):
    """The networks of all trainings, as they were left."""
    made = []

    class Seen(Siamese):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(module, "Siamese", Seen)
    return made


def weights(backbone):
    return {k: v.clone() for k, v in backbone.model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


# --- the network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, feature, blocks",
    [
        ("vit", "keys@1", 1), ("vit", "queries@1", 2), ("vit", "values@0", 2), ("vit", "tokens@1", 1),
        ("vit", "tokens@0", 2), ("rope", "keys@1", 1), ("rope", "tokens@1", 2), ("resnet", "tokens@3", 1),
        ("resnet", "tokens@2", 2),
    ],
)  # fmt: skip
def test_trunk_and_tail_give_the_feature_of_the_whole(kind, feature, blocks):
    b = tiny(kind)
    e = Encoder(b, blocks, feature)
    x = torch.rand(2, 3, SIZE, SIZE)
    out = e(e.trunk(x), (SIZE, SIZE))
    assert out.shape[1] == e.dim
    torch.testing.assert_close(out.flatten(2).mT, b.extract(x, [feature]).x, atol=1e-5, rtol=1e-4)
    fresh = Encoder(b, blocks, feature)  # what lies beside the tokens is found again
    torch.testing.assert_close(fresh(e.trunk(x), (SIZE, SIZE)), out)
    out.square().sum().backward()
    tuned = e.tuned()
    assert tuned and all(p.grad is not None for p in tuned.values()), "what is tuned has a gradient"
    assert all(p.grad is None for n, p in e.model.named_parameters() if n not in tuned)


def test_which_tensors_are_tuned():
    e = Encoder(tiny(), 1, "keys@1")
    assert set(e.tuned()) == {
        f"blocks.1.{n}" for n in ("norm1.weight", "norm1.bias", "attn.qkv.weight", "attn.qkv.bias")
    }
    two = Encoder(tiny(), 2, "keys@1").tuned()
    assert "blocks.0.mlp.fc1.weight" in two and "blocks.1.mlp.fc1.weight" not in two
    assert not any("embed" in n for n in two)
    assert "layer4.0.conv1.weight" in Encoder(tiny("resnet"), 1).tuned()


def test_heads_have_the_sizes_of_the_public_code():
    count = [sum(p.numel() for p in head(dim).parameters()) for dim in (384, 256)]
    assert count == [247_168, 198_016]


def test_bias_is_left_out_of_decay_and_norms_are_not():
    model = Siamese(Encoder(tiny(), 1))
    rest, free = parameter_groups(model, 5e-4)
    names = {id(p): n for n, p in model.named_parameters()}
    assert all("bias" in names[id(p)] for p in free["params"]) and free["weight_decay"] == 0
    said = {names[id(p)] for p in rest["params"]}
    assert "encoder.model.blocks.1.norm1.weight" in said and "projector.1.weight" in said
    assert rest["weight_decay"] == 5e-4


def test_views_are_aligned_and_the_statistics_stay_apart():
    model = Siamese(Encoder(tiny(), 1)).train()
    assert not model.encoder.model.training and model.predictor.training
    x = torch.randn(2, 3, 17, 192)
    boxes, flips = torch.tensor([0.0, 0, 1, 1]).expand(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)
    views = model(x, boxes, flips, (SIZE, SIZE))
    assert [tuple(v.shape) for v in views] == [(3, 4, 4, 256)] * 4
    assert torch.allclose(views[0].norm(dim=-1), torch.ones(3, 4, 4), atol=1e-5)
    alone = model(x.flip(0), boxes, flips, (SIZE, SIZE))
    torch.testing.assert_close(alone[0], views[2])  # the first view's features do not depend on the second
    bare = Siamese(Encoder(tiny(), 1), projector=False)
    assert bare(x, boxes, flips, (SIZE, SIZE))[1].shape == (3, 4, 4, 192)


@pytest.mark.parametrize(
    "options, word",
    [
        ({"blocks": 3}, "has 2"),
        ({"blocks": 1, "feature": "keys@0"}, "later feature"),
        ({"blocks": 0}, "1 of"),
    ],
)
def test_a_split_that_cannot_be(options, word):
    with pytest.raises(SempartError, match=word):
        Encoder(tiny(), **options)


# --- the training ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crops", ["fresh", 2])
def test_a_training_that_was_stopped_continues_bit_for_bit(tmp_path, crops):
    class Stop(Exception):
        pass

    def stop(row, masks):
        assert masks[0].shape == masks[1].shape == (2, 4, 4)
        if row["step"] == 4:
            raise Stop

    before = weights(tiny())
    options = QUICK | {"crops": crops, "epochs": 3, "save_every": 3}
    whole = finetune(pictures(), tiny(), out=tmp_path / "a", **options)
    with pytest.raises(Stop):
        finetune(pictures(), tiny(), out=tmp_path / "b", on_step=stop, **options)
    torch.randn(3)
    cut = finetune(pictures(), tiny(), out=tmp_path / "b", resume=True, **options)
    assert same(weights(whole.backbone), weights(cut.backbone))
    assert whole.backbone.sha256 == cut.backbone.sha256 != tiny().sha256
    plain = lambda log: [{k: v for k, v in row.items() if k != "seconds"} for row in log]  # noqa: E731
    assert plain(whole.log) == plain(cut.log) and [r["step"] for r in cut.log] == [1, 2, 3, 4, 5, 6]
    assert same(weights(tiny()), before), "the backbone that was given stays as it was"
    changed = {k for k, v in weights(whole.backbone).items() if not torch.equal(v, before[k])}
    assert changed == set(read_delta(whole.delta)[0])


def test_the_loss_of_a_repeated_batch_goes_down_and_an_artefact_is_trained_once():
    data = load_pairs(pictures(6), tiny(), each=1, size=SIZE, blocks=1, colours="none")
    options = QUICK | {"epochs": 6, "batch": 6, "schedule": "constant", "warmup": 0.0, "lr": 2e-4}
    goal = MaskConsistency.preset("code", alpha=0.0, min_iou=0.0)
    r = finetune(data, tiny(), objective=goal, **options)
    assert r.log[-1]["mask"] < r.log[0]["mask"] and all(row["selected"] == 1 for row in r.log)
    again = finetune(data, tiny(), objective=goal, **options)
    assert again.loaded and again.key == r.key and again.backbone.sha256 == r.backbone.sha256
    assert again.log == r.log
    other = finetune(data.limit(5), tiny(), objective=goal, **options | {"epochs": 1, "batch": 5})
    assert other.key != r.key and not other.loaded


def test_lars_and_the_schedule(tmp_path):
    options = QUICK | {"optimiser": "lars", "lr": 0.5, "epochs": 2, "crops": 1, "warmup": 0.5, "horizon": 2.0}
    r = finetune(pictures(), tiny(), out=tmp_path / "t", keep_every=2, **options)
    assert [row["lr"] for row in r.log] == pytest.approx(
        [0.125, 0.25, 0.375, 0.5]
    )  # half of twice four steps
    two = load_tuned(tiny(), r.after(2))
    assert len({two.sha256, r.backbone.sha256, tiny().sha256}) == 3
    with pytest.raises(SempartError, match="keep_every=3"):
        r.after(3)
    faded = finetune(pictures(), tiny(), out=tmp_path / "u", **options | {"warmup": 0.0, "horizon": 1.0})
    lrs = [row["lr"] for row in faded.log]
    assert lrs[0] == 0.5 and all(a > b for a, b in itertools.pairwise(lrs)) and 0 < lrs[-1] < 0.1


def test_weights_that_blow_up_are_said_so(tmp_path):
    with pytest.raises(TrainingError, match="lower learning rate") as e:
        finetune(pictures(), tiny(), out=tmp_path / "t", **QUICK | {"lr": 1e30, "epochs": 4, "warmup": 0.0})
    assert e.value.log and not (tmp_path / "t" / "delta.safetensors").exists()


def test_a_resnet_is_tuned_too(tmp_path):
    r = finetune(pictures(), tiny("resnet"), out=tmp_path / "t", **QUICK | {"epochs": 1})
    x = torch.rand(1, 3, SIZE, SIZE)
    assert not torch.equal(r.backbone.extract(x).x, tiny("resnet").extract(x).x)


def test_weights_that_half_precision_cannot_hold_are_neither_saved_nor_written(tmp_path):
    """The last step has no next one whose features would show it."""
    options = QUICK | {"lr": 1e30, "steps": 1, "warmup": 0.0}
    with pytest.raises(TrainingError, match=r"blocks\.1.*lower learning rate") as e:
        finetune(pictures(), tiny(), out=tmp_path / "t", **options)
    assert len(e.value.log) == 1 and not list((tmp_path / "t").iterdir())


@pytest.mark.parametrize("options", [{"consistency": "mask"}, {"consistency": "pixel"}, {"projector": False}])
def test_the_network_of_a_training_is_had_back(tmp_path, trained, options):
    """Also with the baselines of table 5."""
    options = dict(options)
    goal = MaskConsistency.preset("code", consistency=options.pop("consistency", "mask"))
    r = finetune(
        pictures(), tiny(), out=tmp_path / "t", objective=goal, **QUICK | {"epochs": 1, "blocks": 2} | options
    )
    assert not same(weights(r.backbone), weights(tiny())), "something was tuned"
    before = torch.get_rng_state()
    model = load_siamese(r, tiny())
    assert torch.equal(torch.get_rng_state(), before) and not model.training and len(trained) == 2
    left = trained[0].state_dict()
    assert model.state_dict().keys() == left.keys() and same(model.state_dict(), left)
    assert not same(left, Siamese(Encoder(tiny(), 2), options.get("projector", True)).state_dict())
    tuned = r.backbone.model.state_dict()
    for name, value in model.encoder.model.state_dict().items():
        torch.testing.assert_close(value, tuned[name], atol=1e-5, rtol=1e-3)
    with pytest.raises(SempartError, match="give that backbone"):
        load_siamese(r, tiny(sha="e" * 64))
    (r.out / STATE).unlink()
    with pytest.raises(SempartError, match="cannot be read"):
        load_siamese(r, tiny())


def test_an_artefact_heals(tmp_path):
    options = QUICK | {"epochs": 1, "crops": 1}
    r = finetune(pictures(), tiny(), **options)
    r.delta.write_bytes(r.delta.read_bytes()[:100])
    again = finetune(pictures(), tiny(), **options)
    assert not again.loaded and same(weights(again.backbone), weights(r.backbone))
    assert finetune(pictures(), tiny(), **options).loaded

    class Stop(Exception):
        pass

    def stop(row, masks):
        raise Stop

    (r.out / STATE).write_bytes(b"1")
    with pytest.raises(Stop):
        finetune(pictures(), tiny(), on_step=stop, **options)
    assert not r.delta.exists(), "the old one would make the new training look finished"
    assert same(weights(finetune(pictures(), tiny(), **options).backbone), weights(r.backbone))


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    """Of four one is left out, so that an epoch has one step, where two were planned."""
    said, photos = [], files(tmp_path / "photos", broken=[2])
    options = QUICK | {"epochs": 2, "save_every": 100, "horizon": 1.0, "warmup": 0.0}
    fixed = finetune(photos, tiny(), crops=2, skip=said.append, **options)
    assert len(said) == 1 and "p2.png" in said[0]
    assert [row["step"] for row in fixed.log] == [1, 2] and load_state(fixed.out)["step"] == 2
    assert fixed.log[1]["lr"] == pytest.approx(fixed.log[0]["lr"] / 2), "the schedule is that of two steps"
    assert finetune(photos, tiny(), crops=2, skip=said.append, **options).loaded
    del said[:]
    fresh = finetune(photos, tiny(), skip=said.append, **options)
    assert len(fresh.log) == 4 and len(said) == 1, "each sentence once, whatever the number of epochs"
    for skip in (None, said.append):
        with pytest.raises(SempartError, match=r"p0\.png" if skip is None else "none of 2"):
            finetune(photos[:0] + files(tmp_path / str(skip), 2, [0, 1]), tiny(), crops=1, skip=skip, **QUICK)


def test_the_seed_decides_the_fixed_pairs_too(tmp_path, monkeypatch):
    seen = []

    def spy(*args, **options):
        seen.append(options)
        return load_pairs(*args, **options)

    options = QUICK | {"epochs": 1, "seed": 3, "crops": 2}
    monkeypatch.setattr(module, "load_pairs", spy)
    a = finetune(pictures(), tiny(), out=tmp_path / "a", **options)
    assert seen[0]["seed"] == 3 and seen[0]["device"] == torch.device("cpu"), "not where the backbone lies"
    pairs = load_pairs(pictures(), tiny(), size=SIZE, blocks=1, colours="none", seed=3)
    b = finetune(pairs, tiny(), out=tmp_path / "b", **options)
    assert same(weights(a.backbone), weights(b.backbone))


def test_no_crop_has_the_seed_of_an_order(monkeypatch):
    seen = []

    def spy(pictures, size, seeds, **options):
        seen.extend(seeds)
        return crop_pairs(pictures, size, seeds, **options)

    crop_pairs = finetune_data.crop_pairs
    monkeypatch.setattr(finetune_data, "crop_pairs", spy)
    load_pairs(pictures(3), tiny(), size=SIZE, blocks=1, colours="none")
    finetune(pictures(3), tiny(), **QUICK | {"steps": 1, "batch": 3})
    assert len(seen) == 9 and not {seed_of(0, epoch) for epoch in range(3)} & set(seen)


def test_what_decides_the_weights_is_in_the_key(monkeypatch):
    """All code of ours that runs in a training, but for what only asks, says or writes."""
    ran = set()
    home = str(pathlib.Path(module.__file__).parent)

    def note(frame, event, arg):
        ran.add(frame.f_code.co_filename)

    options = QUICK | {"colours": "dino", "steps": 1, "batch": 1}
    sys.setprofile(note)
    try:
        r = finetune(pictures(1), tiny(), **options)
        fixed = finetune(pictures(1), tiny(), **options | {"crops": 1, "feature": "values@1"})
    finally:
        sys.setprofile(None)
    idle = {
        "artefacts.py", "errors.py", "losses.py", "paths.py", "profiles.py", "records.py", "registry.py",
        "samples.py", "train.py", "training_files.py", "training_setup.py",
    }  # fmt: skip
    ours = {f.removeprefix(home).strip("/") for f in ran if f.startswith(home)}
    assert ours - idle <= set(DECIDING)
    assert {"spectral.py", "lanczos.py", "symmetric.py", "training_data.py"} <= ours & set(DECIDING)
    version = importlib.metadata.version
    for name in ("kornia", "pillow", "scipy", "torchvision"):
        with monkeypatch.context() as m:
            m.setattr(importlib.metadata, "version", lambda x, name=name: "0" if x == name else version(x))
            assert finetune(pictures(1), tiny(), **options).key not in (r.key, fixed.key), name
    assert finetune(pictures(1), tiny(), **options).loaded


def test_pairs_say_in_which_arithmetic_they_were_made():
    pairs = load_pairs(pictures(2), tiny(), each=1, size=SIZE, blocks=1, colours="none")
    assert pairs.amp == "cpu float32"
    cuda = torch.device("cuda")
    assert finetune_data._arithmetic(cuda, torch.float32) == "cuda float32"
    assert finetune_data._arithmetic(cuda, torch.float16) == "cuda float16"
    keys = [
        finetune(finetune_data.replace(pairs, amp=amp), tiny(), **QUICK | {"steps": 1}).key
        for amp in ("cpu float32", "cuda bfloat16")
    ]
    assert len(set(keys)) == 2


def test_lars_adapts_the_weights_also_without_decay():
    model = Siamese(Encoder(tiny(), 1))
    stepper = finetune_loop._optimiser(model, SimpleNamespace(weight_decay=0.0, optimiser="lars", lr=0.5))
    weight, bias = model.predictor[0].weight, model.predictor[0].bias
    old = [p.detach().clone() for p in (weight, bias)]
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    stepper.step()
    moved = (weight - old[0]).norm() / old[0].norm()
    assert moved.item() == pytest.approx(0.5e-3, rel=1e-3)
    torch.testing.assert_close(bias - old[1], torch.full_like(bias, -3.5))


def test_without_a_hash_no_two_networks_share_a_training(tmp_path):
    options = QUICK | {"steps": 1}
    with pytest.raises(SempartError, match="give out="):
        finetune(pictures(), tiny(sha=""), **options)
    r = finetune(pictures(), tiny(sha=""), out=tmp_path / "t", **options)
    assert r.backbone.sha256 == "" and not same(weights(r.backbone), weights(tiny()))
    with pytest.raises(SempartError, match="no hash"):
        load_tuned(tiny(sha=""), r.delta)
    delta, said = read_delta(r.delta)
    assert same(weights(apply_delta(tiny(sha=""), delta, said["feature"])), weights(r.backbone))
    assert load_siamese(r, tiny(sha="")).encoder.feature == "keys@1"


@pytest.mark.parametrize(
    "options, word",
    [
        ({"batch": 0}, "batch=0"), ({"seed": -1}, "seed=-1"), ({"each": 1.5}, "each=1.5"), ({"scale": 0.5}, "scale=0.5"),
        ({"size": 60}, "multiple"), ({"colours": "grey"}, "dino"), ({"photos": []}, "no photograph to tune on"),
    ],
)  # fmt: skip
def test_bad_arguments_of_pairs(options, word):
    with pytest.raises(SempartError, match=word):
        load_pairs(**{"photos": pictures(1), "backbone": tiny(), "size": SIZE, "blocks": 1} | options)


@pytest.mark.parametrize(
    "options, word",
    [
        ({"size": 60}, "multiple"), ({"crops": 0}, "fresh"), ({"optimiser": "sgd"}, "lars"), ({"lr": 0.0}, "positive"),
        ({"horizon": 0.5}, "horizon"), ({"seed": -1}, "seed"), ({"colours": "grey"}, "dino"), ({"objective": "x"}, "code"),
        ({"steps": 0}, "steps"), ({"log_every": 0}, "log_every"), ({"images": []}, "no photograph to tune on"),
        ({"scale": (2, 3)}, "scale"), ({"scale": (-0.5, 1)}, "scale"), ({"scale": 0.5}, "scale"),
    ],
)  # fmt: skip
def test_bad_arguments(tmp_path, options, word):
    with pytest.raises(SempartError, match=word):
        finetune(**{"images": pictures(), "backbone": tiny(), "out": tmp_path / "t"} | QUICK | options)
    assert not (tmp_path / "t").exists()


def test_a_folder_with_a_training_is_not_overwritten_nor_mixed(tmp_path):
    finetune(pictures(), tiny(), out=tmp_path / "t", **QUICK | {"epochs": 1})
    with pytest.raises(SempartError, match="resume it"):
        finetune(pictures(), tiny(), out=tmp_path / "t", **QUICK | {"epochs": 1})
    with pytest.raises(SempartError, match=r"lr=0\.001"):
        finetune(pictures(), tiny(), out=tmp_path / "t", resume=True, **QUICK | {"epochs": 1, "lr": 0.1})
    pairs = load_pairs(pictures(), tiny(), each=1, size=SIZE, blocks=2, colours="none")
    with pytest.raises(SempartError, match="blocks=2"):
        finetune(pairs, tiny(), out=tmp_path / "u", **QUICK)


TWO = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[1])
from ranks import digest
from sempart_core import finetune as module
from test_finetune import QUICK, pictures, tiny
made = []
class Seen(module.Siamese):
    def __init__(self, *args):
        super().__init__(*args)
        made.append(self)
module.Siamese = Seen
r = module.finetune(pictures(), tiny(), out=sys.argv[2] + "/t", **QUICK | {"epochs": 2, "crops": 1, "batch": 4})
said = digest(made[0].parameters())
pathlib.Path(sys.argv[2], os.environ["RANK"]).write_text(f"{said} {len(r.log)} {r.backbone.sha256}")
"""


def test_two_processes_tune_one_backbone(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    on_two_processes(tmp_path / "two.py", pathlib.Path(__file__).parent, tmp_path)
    first, second = ((tmp_path / rank).read_text().split() for rank in "01")
    assert first == second and first[1] == "2" and first[2] != tiny().sha256


def test_recipes_name_arguments_of_finetune():
    for name in FINETUNES:
        options = finetune_recipe(name, epochs=1)
        assert options["epochs"] == 1 and "horizon" in finetune_recipe("code")
        assert name not in ("paper", "code") or options["optimiser"] == "lars"
        inspect.signature(finetune).bind([], tiny(), **options)
    with pytest.raises(SempartError, match="key of a recipe"):
        finetune_recipe("code", ema=0.9)


# --- the tuned backbone ------------------------------------------------------------------------------------


def test_a_tuned_backbone_travels_as_a_small_file_and_has_its_own_cache(tmp_path):
    r = finetune(pictures(), tiny(), out=tmp_path / "t", **QUICK | {"epochs": 1})
    loaded = load_tuned(tiny(), r.delta)
    assert same(weights(loaded), weights(r.backbone)) and loaded.sha256 == r.backbone.sha256
    assert loaded.name == "tiny-vit-tuned" and load_tuned(tiny(), r.delta, name="n").name == "n"
    delta, said = read_delta(r.delta)
    assert all(d.dtype == torch.half for d in delta.values()) and said["feature"] == "keys@1"
    assert str(tmp_path) not in said["settings"]
    assert r.delta.stat().st_size < 2 * sum(d.numel() for d in delta.values()) + 10_000
    x = torch.rand(1, 3, SIZE, SIZE)
    plain, tuned = (extract_cached(b, x, directory=tmp_path / "features").x for b in (tiny(), loaded))
    assert not torch.equal(plain, tuned)
    torch.testing.assert_close(tuned, loaded.extract(x).x, atol=1e-3, rtol=1e-3)
    assert METHODS["diffncut"](backbone=loaded).predict(x).mask.shape == (1, 4, 4)


def test_a_delta_of_other_weights_is_refused(tmp_path):
    r = finetune(pictures(), tiny(), out=tmp_path / "t", **QUICK | {"epochs": 1})
    with pytest.raises(SempartError, match="tunes tiny-vit"):
        load_tuned(tiny(sha="e" * 64), r.delta)
    with pytest.raises(SempartError, match="no such file"):
        load_tuned(tiny(), tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"1")
    with pytest.raises(SempartError, match="cannot be read"):
        load_tuned(tiny(), tmp_path / "bad")


def test_the_mean_of_tunings_is_the_mean_of_their_weights(tmp_path):
    pairs = load_pairs(pictures(), tiny(), each=1, size=SIZE, blocks=1, colours="none", seed=0)
    options = {k: v for k, v in QUICK.items() if k not in ("size", "blocks", "colours", "crops")}
    one, two = (
        finetune(pairs, tiny(), out=tmp_path / str(s), **{**options, "blocks": 1, "seed": s}) for s in (0, 1)
    )
    both = load_tuned(tiny(), [one.delta, two.delta])
    a, b, m = (dict(x.model.named_parameters()) for x in (one.backbone, two.backbone, both))
    base = dict(tiny().model.named_parameters())
    for k in read_delta(one.delta)[0]:
        moved = (a[k] - base[k]).abs().max()
        torch.testing.assert_close(m[k], (a[k] + b[k]) / 2, atol=1e-3 * float(moved) + 1e-7, rtol=0)
    assert same(weights(load_tuned(tiny(), [one.delta])), weights(load_tuned(tiny(), one.delta)))
    assert both.sha256 not in (one.backbone.sha256, two.backbone.sha256)
    other = finetune(
        load_pairs(pictures(), tiny(), each=1, size=SIZE, blocks=2, colours="none", seed=0),
        tiny(),
        out=tmp_path / "other",
        **{**options, "blocks": 2},
    )
    with pytest.raises(SempartError, match="another backbone, feature or tail"):
        load_tuned(tiny(), [one.delta, other.delta])
    with pytest.raises(SempartError, match="no file"):
        load_tuned(tiny(), [])
