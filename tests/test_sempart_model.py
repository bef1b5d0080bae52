"""SEMPART's network: sizes, symmetries of its definition, what it needs and what it refuses, and its file."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from sempart_core import SempartError
from sempart_core.models import CONFIGS, Sempart, SempartConfig, load_head, save_head
from sempart_core.models.files import from_public
from sempart_core.objective import OBJECTIVES

SMALL = {"dim": 6, "width": 8, "blocks": (8, 4), "dim_head": 4, "mlp": 12}


def small(seed=0, preset="paper", **changes):
    torch.manual_seed(seed)
    return Sempart(SempartConfig.preset(preset, **{**SMALL, **changes})).eval()


def inputs(h=4, w=5, patch=8, batch=2, dim=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, h * w, dim, generator=g), torch.rand(
        batch, 3, h * patch, w * patch, generator=g
    )


@pytest.mark.parametrize("patch, steps", [(2, 1), (4, 2), (8, 3), (14, 4), (16, 4)])
def test_the_fine_mask_has_the_size_of_the_photograph(patch, steps):
    model = small(patch=patch)
    x, image = inputs(3, 4, patch)
    coarse, fine = model(x, image)
    assert coarse.shape == (2, 3, 4) and fine.shape == (2, 3 * patch, 4 * patch)
    assert model.config.doublings == steps == len(model.refiner.blocks) - 1
    for m in (coarse, fine):
        assert m.min() >= 0 and m.max() <= 1 and m.std() > 0


def test_steps_between_grid_and_photograph():
    assert small(patch=8).refiner.sizes((40, 40), (320, 320)) == [(80, 80), (160, 160), (320, 320)]
    want = [(32, 32), (64, 64), (128, 128), (224, 224)]
    assert small(patch=14).refiner.sizes((16, 16), (224, 224)) == want
    assert small(patch=14, steps=2).refiner.sizes((16, 16), (224, 224)) == [(32, 32), (224, 224)]
    assert small(patch=14).refiner.sizes((40, 40), (100, 100)) == [(80, 80)] + 3 * [(100, 100)]


def test_a_photograph_of_another_size_gives_its_size():
    x, _ = inputs(4, 5, 14)
    fine = small(patch=14)(x, torch.rand(2, 3, 37, 50), grid=(4, 5)).fine
    assert fine.shape == (2, 37, 50)


def count(preset, **changes):
    return sum(p.numel() for p in Sempart(SempartConfig.preset(preset, **changes)).parameters())


def test_parameter_counts():
    assert count("sempart_star") == 748_165 and count("sempart_star", patch=16) == 899_461
    # Paper: linear 384 -> 64, [CLS], one layer (two norms, attention, perceptron), norm, branches.
    encoder = 384 * 64 + 64 + 384 + (2 * 128 + 64 * 192 + 64 * 64 + 64 + 64 * 256 + 256 + 256 * 64 + 64) + 128
    convolutions = sum(9 * i * o + 3 * o for i, o in ((67, 192), (195, 128), (131, 128), (128, 128)))
    assert count("paper") == encoder + 65 + convolutions + 132


def test_without_positions_a_permutation_of_patches_permutes_the_coarse_mask():
    for preset in CONFIGS:
        model = small(preset=preset)
        x, _ = inputs(batch=1)
        order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
        a, b = (model(v, grid=(4, 5)).coarse.flatten() for v in (x, x[:, order]))
        torch.testing.assert_close(a[order], b)


def test_patches_see_each_other_and_the_class_token():
    model = small()
    x, _ = inputs(batch=1)
    before = model(x, grid=(4, 5)).coarse
    far = x.clone()
    far[:, -1] += 1
    assert (model(far, grid=(4, 5)).coarse - before)[0, 0, 0].abs() > 1e-6
    with torch.no_grad():
        model.cls += 1
    assert (model(x, grid=(4, 5)).coarse - before).abs().max() > 1e-6


def test_images_of_a_batch_do_not_meet_when_evaluated():
    model = small()
    x, image = inputs()
    both = model(x, image)
    for i in range(2):
        alone = model(x[i : i + 1], image[i : i + 1])
        torch.testing.assert_close(alone.coarse[0], both.coarse[i])
        torch.testing.assert_close(alone.fine[0], both.fine[i])


def test_the_coarse_branch_runs_alone_and_ignores_the_photograph():
    model = small()
    x, image = inputs(4, 4)
    alone = model(x)
    assert alone.fine is None
    assert torch.equal(alone.coarse, model(x, image).coarse)
    assert not torch.equal(model(x, image).fine, model(x, 1 - image).fine)


def test_the_photograph_enters_every_step():
    """Each block but the last, and the head, have three channels more than they get from below."""
    model = small()
    x, image = inputs(1, 1)
    base = model.logits(x, image).fine
    convolutions = [b[0] for b in model.refiner.blocks[:-1]] + [model.refiner.head]
    for c in convolutions:
        kept = c.weight.detach().clone()
        with torch.no_grad():
            c.weight[:, -3:] = 0
            assert (model.logits(x, image).fine - base).abs().max() > 1e-6
            c.weight.copy_(kept)


def test_normalise_removes_mean_and_deviation():
    plain, model = small(normalise=False), small()
    plain.load_state_dict(model.state_dict())
    x, image = inputs()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(model(x, image).fine, plain(x, (image - mean) / std).fine)


def test_attention_of_the_class_token():
    model = small(depth=2)
    x, _ = inputs(batch=1)
    a = model.cls_attention(x)
    assert a.shape == (1, 2, 20) and (a > 0).all() and (a.sum(-1) < 1).all()
    # by hand, through the layer's own parts
    t = model.encoder[0](model._tokens(x))
    q, k, _ = model.encoder[1].attention.project(t)
    by_hand = F.scaled_dot_product_attention(q, k, torch.eye(21).expand(1, 2, 21, 21))
    torch.testing.assert_close(a, by_hand[:, :, 0, 1:])
    with pytest.raises(SempartError, match=r"no .CLS."):
        small(cls=False).cls_attention(x)


def test_gradients_reach_every_parameter_and_a_few_steps_lower_the_loss():
    model = small().train()
    x, image = inputs(4, 4)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    history = []
    for _ in range(12):
        masks = model(x, image)
        loss = OBJECTIVES["sempart_star"](*masks, x, image)["total"]
        optimiser.zero_grad()
        loss.backward()
        if not history:
            bare = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
            # a constant before batch normalisation changes nothing: its gradient may vanish
            assert [n for n in bare if not n.startswith("refiner.blocks")] == []
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < history[0] - 1e-3


def test_masks_are_float32_under_autocast():
    model = small()
    x, image = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        masks = model(x.bfloat16(), image)
        assert OBJECTIVES["paper"](*masks, x, image)["total"].dtype == torch.float32
    assert masks.coarse.dtype == masks.fine.dtype == torch.float32
    torch.testing.assert_close(masks.fine, model(x, image).fine, atol=0.05, rtol=0)


# The file


@pytest.mark.parametrize("changes", [{}, {"preset": "sempart_star"}, {"patch": 14, "cls": False}])
def test_saved_and_loaded_is_the_same_network(tmp_path, changes):
    model = small(**changes)
    model.about = {"backbone": "dinov2", "layer": "tokens@10"}
    p = model.config.patch
    x, image = inputs(patch=p)
    model.train()(x, image)  # running statistics travel too
    path = save_head(model, tmp_path / "deep" / "head.safetensors")
    again = load_head(path)
    assert again.config == model.config and again.about == model.about and not again.training
    for a, b in zip(model.eval()(x, image), again(x, image), strict=True):
        assert torch.equal(a, b)
    assert [f.name for f in path.parent.iterdir()] == ["head.safetensors"]
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before and Sempart.load(path).config == model.config


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_head(small(), tmp_path / "head.safetensors")
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SempartError, match="No space left"):
        save_head(small(seed=1), path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def tampered(tmp_path, metadata=None, state=None, raw=None, **config):
    path = save_head(small(), tmp_path / "head.safetensors")
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        old, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    said = json.loads(old["sempart_head"])
    said["config"].update(config)
    said.update(metadata or {})
    tensors.update(state or {})
    save_file(tensors, path, {"sempart_head": raw or json.dumps(said)} if raw != "" else None)
    return path


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda t: t / "none.safetensors", "no such file"),
        (lambda t: t, "no such file"),
        (lambda t: tampered(t, raw=""), "no configuration"),
        (lambda t: tampered(t, raw="{"), "cannot be read"),
        (lambda t: tampered(t, raw="[1]"), "cannot be read"),
        (lambda t: tampered(t, {"version": 7}), "newer sempart"),
        (lambda t: tampered(t, {"config": None}), "cannot be read"),
        (lambda t: tampered(t, {"about": 3}), "cannot be read"),
        (lambda t: tampered(t, colour=1), "no 'colour'"),
        (lambda t: tampered(t, width=0), "width=0"),
        (lambda t: tampered(t, width=16), "do not fit its configuration"),
        (lambda t: tampered(t, depth=2), "do not fit its configuration"),
        (lambda t: tampered(t, state={"more": torch.ones(1)}), "more"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, make, word):
    with pytest.raises(SempartError, match=word) as e:
        load_head(make(tmp_path))
    assert "\n" not in str(e.value) and str(tmp_path) in str(e.value)


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = save_head(small(), tmp_path / "head.safetensors")
    for data in (b"", b"not at all", path.read_bytes()[:-100]):
        path.write_bytes(data)
        with pytest.raises(SempartError, match="not a readable safetensors"):
            load_head(path)


# Bad input


@pytest.mark.parametrize(
    "call, word",
    [
        (lambda m, x, i: m(x[..., :5], i), "B x N x 6"),
        (lambda m, x, i: m(x[0], i), "B x N x 6|2 x 3|do not fill|20 x 3"),
        (lambda m, x, i: m(x, i[:, :1]), "2 x 3 x H x W"),
        (lambda m, x, i: m(x, i[:1]), "2 x 3 x H x W"),
        (lambda m, x, i: m(x, i[..., 1:]), "no multiple of 8"),
        (lambda m, x, i: m(x, i[..., 8:]), "do not fill a 4 x 4"),
        (lambda m, x, i: m(x), "do not fill a 4 x 4"),
        (lambda m, x, i: m(x, i, (3, 5)), "do not fill a 3 x 5"),
        (lambda m, x, i: m(x, i[..., :4], (4, 5)), "smaller than the 4 x 5"),
        (lambda m, x, i: m(x, i * 255), "RGB in"),
        (lambda m, x, i: m(x, i * torch.nan), "RGB in"),
        (lambda m, x, i: SempartConfig.preset("dino"), "paper, sempart_star"),
        (lambda m, x, i: SempartConfig.preset("paper", layers=2), "no 'layers'"),
        (lambda m, x, i: SempartConfig(depth=0), "depth=0"),
        (lambda m, x, i: SempartConfig(heads=2.0), "heads=2.0"),
        (lambda m, x, i: SempartConfig(blocks=()), "blocks is empty"),
        (lambda m, x, i: SempartConfig(blocks=(8, -1)), r"blocks\[1\]=-1"),
        (lambda m, x, i: SempartConfig(steps=0), "steps=0"),
        (lambda m, x, i: from_public({"backbone.weight": x}), "segmentation-tricks"),
        (lambda m, x, i: save_head(Sempart(m.config, {"epochs": 3}), "head.safetensors"), "no text"),
    ],
)
def test_bad_input_is_one_sentence(call, word):
    with pytest.raises(SempartError, match=word):
        call(small(), *inputs())
