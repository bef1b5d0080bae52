"""Backbones: layers are what they say, files of both naming schemes load strictly, bad input is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from sempart_core import SempartError, backbones, checkpoints
from sempart_core.backbone_cards import CARDS
from sempart_core.backbones import BACKBONES, Backbone, build, load_backbone
from sempart_core.paths import cache_dir

SMALL = {"vit": {"depth": 2}, "resnet": {"layers": (1, 1, 1, 1)}}


def small(name):
    """The card of a backbone, cut to two blocks and without a pinned checksum."""
    card = BACKBONES.card(name)
    cut = SMALL["resnet" if "resnet" in name else "vit"]
    kind = card.extra["feature"].split("@")[0]
    extra = {**card.extra, "build": {**card.extra["build"], **cut}, "sha256": "", "hub": ""}
    if "vit" in name:
        extra |= {"feature": f"{kind}@1", "taus": {f"{kind}@1": 0.25}}
    return dataclasses.replace(card, extra=extra)


def random_model(name, seed=0):
    torch.manual_seed(seed)
    model = build(small(name))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p).mul_(0.02))  # biases and layer scales away from their constants
        for m in model.modules():
            if hasattr(m, "running_var"):
                m.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture(scope="module")
def vit():
    return Backbone(random_model("dino_vits16"), small("dino_vits16"))


def pictures(n=2, h=64, w=96, seed=0):
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed))


# --- files -------------------------------------------------------------------------------------------------


def original(name, state):
    """The state of timm's model as the authors' checkpoint would hold it, with what else lies in there."""
    junk = torch.ones(3, 3)
    if name == "dino_vits8_300ep":  # a full training checkpoint
        names = {f"module.backbone.{k}": v for k, v in state.items()}
        other = {k: v + 1 for k, v in names.items()}
        return {"student": other, "teacher": {**names, "module.head.mlp.0.weight": junk}, "epoch": 3}
    if name == "dinov2_vits14_reg":
        out = {k: v for k, v in state.items() if k != "reg_token"}
        shift = torch.full_like(state["cls_token"], 0.5)
        out["cls_token"] = state["cls_token"] - shift
        out["pos_embed"] = torch.cat([shift, state["pos_embed"]], 1)
        return {**out, "register_tokens": state["reg_token"], "mask_token": junk}
    if name == "dinov2_vits14":
        return {**state, "mask_token": junk}
    if name == "mae_vitb16":
        extra = {"mask_token": junk, "decoder_embed.weight": junk, "decoder_blocks.0.norm1.bias": junk}
        return {"model": {**state, **extra}}
    if name == "mocov3_vits16":
        names = {f"module.base_encoder.{k}": v for k, v in state.items()}
        names |= {f"module.momentum_encoder.{k}": v + 1 for k, v in state.items()}
        names |= {"module.base_encoder.head.0.weight": junk, "module.predictor.0.weight": junk}
        return {"state_dict": names, "epoch": 300, "arch": "vit_small"}
    if name == "ibot_vits16":
        return {"state_dict": {**state, "masked_embed": junk, "head.mlp.0.weight": junk}}
    if name == "dinov3_vits16":
        out = {"storage_tokens": state["reg_token"], "mask_token": junk, "rope_embed.periods": junk}
        for k, v in state.items():
            k = k.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
            if k.endswith("q_bias"):
                block = k.removesuffix("q_bias")
                bias = [v, torch.zeros_like(v), state[block + "v_bias"]]
                out[block + "qkv.bias"] = torch.cat(bias)
                out[block + "qkv.bias_mask"] = torch.ones(3 * len(v))
            elif not k.endswith("v_bias") and k != "reg_token":
                out[k] = v
        return out
    if name == "dino_resnet50":
        return {**state, "fc.weight": junk}
    return dict(state)


@pytest.mark.parametrize("scheme", ["timm", "original"])
@pytest.mark.parametrize("name", [c.name for c in CARDS])
def test_files_of_both_schemes_load_strictly(name, scheme, tmp_path):
    model = random_model(name)
    state = model.state_dict()
    if scheme == "timm":
        save_file(state, path := tmp_path / f"{name}.safetensors")
    else:
        torch.save(original(name, state), path := tmp_path / f"{name}.pth")
    loaded = backbones._load(small(name), weights=path)
    assert loaded.sha256 == checkpoints.sha256_of(path)
    for k, v in loaded.model.state_dict().items():
        assert torch.allclose(v, state[k], atol=1e-6), k
    x = pictures(1, 32, 48)
    first = loaded.extract(x)
    again = Backbone(model, small(name)).extract(x)
    assert torch.allclose(first.x, again.x, atol=1e-4)
    assert first.grid == (round(32 / loaded.patch), round(48 / loaded.patch))


def test_a_wrapped_teacher_with_renamed_registers_is_unwrapped_first(tmp_path):
    model = random_model("dinov2_vits14_reg")
    inner = original("dinov2_vits14_reg", model.state_dict())
    torch.save({"teacher": {f"backbone.{k}": v for k, v in inner.items()}}, tmp_path / "t.pth")
    loaded = backbones._load(small("dinov2_vits14_reg"), weights=tmp_path / "t.pth")
    assert torch.allclose(loaded.model.cls_token, model.cls_token, atol=1e-6)
    assert torch.equal(loaded.model.reg_token, model.reg_token)


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    state = random_model("dino_vits16").state_dict()
    card = small("dino_vits16")
    cases = {
        "missing": {k: v for k, v in state.items() if k != "blocks.1.attn.qkv.weight"},
        "unknown": {**state, "blocks.7.attn.qkv.weight": torch.ones(2)},
        "of another shape": {**state, "patch_embed.proj.weight": torch.ones(384, 3, 8, 8)},
    }
    for what, bad in cases.items():
        torch.save(bad, tmp_path / "bad.pth")
        with pytest.raises(SempartError, match=f"1 {what}"):
            backbones._load(card, weights=tmp_path / "bad.pth")


class Evil:
    def __reduce__(self):
        return (print, ("run from a weight file",))


def test_damaged_and_unsafe_files_are_refused(tmp_path, capsys):
    model = random_model("dino_vits16")
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 half a file")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(b"\x00" * 20)
    torch.save([1, 2], tmp_path / "list.pth")
    for file in ("evil.pth", "cut.pth", "empty.pth", "cut.safetensors", "list.pth"):
        with pytest.raises(SempartError, match=file):
            checkpoints.load(model, tmp_path / file, "dino_vits16")
    assert "run from" not in capsys.readouterr().out


def test_a_wrong_checksum_is_refused(tmp_path):
    torch.save({}, tmp_path / "x.pt")
    with pytest.raises(SempartError, match="sha256"):
        load_backbone("dinov2_vits14_reg_mri", weights=tmp_path / "x.pt")


def test_only_a_fetched_file_is_to_be_deleted(tmp_path, monkeypatch):
    name = "dinov2_vits14_reg_mri"
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEMPART_WEIGHTS", raising=False)
    for folder in ("cache/weights", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        torch.save({}, tmp_path / folder / f"{name}.pt")
    with pytest.raises(SempartError, match="delete it and fetch it again"):
        load_backbone(name)
    own = tmp_path / "mine" / f"{name}.pt"
    for said in (own, own.parent):
        monkeypatch.setenv("SEMPART_WEIGHTS", str(said))
        with pytest.raises(
            SempartError, match=r"not the weight file of.*or point SEMPART_WEIGHTS at a folder"
        ) as e:
            load_backbone(name)
        assert str(own) in str(e.value) and "delete" not in str(e.value)
    with pytest.raises(SempartError, match=r"not the weight file of.*--weights") as e:
        load_backbone(name, weights=own)
    assert "delete" not in str(e.value)


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEMPART_WEIGHTS", str(tmp_path / "mine"))
    for folder in ("cache/weights", "mine", "argument"):
        (tmp_path / folder).mkdir(parents=True)
    assert checkpoints.find("net") is None
    kept = tmp_path / "cache/weights/net.pth"
    kept.touch()
    assert checkpoints.find("net") == kept
    own = tmp_path / "mine/authors.pth"
    own.touch()
    assert checkpoints.find("net", "authors.pth") == own
    with pytest.raises(SempartError, match=r"has no net\.pt.*no authors\.pth"):
        checkpoints.find("net", "authors.pth", weights=tmp_path / "argument")
    (tmp_path / "argument/net.safetensors").touch()
    assert checkpoints.find("net", weights=tmp_path / "argument").suffix == ".safetensors"
    monkeypatch.setenv("SEMPART_WEIGHTS", str(own))
    assert checkpoints.find("anything") == own
    monkeypatch.setenv("SEMPART_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(SempartError, match="SEMPART_WEIGHTS"):
        checkpoints.find("net")


@pytest.mark.parametrize("name", ["dino_vits8", "mocov3_vits16", "dinov2_vits14_reg_mri"])
def test_no_file_and_no_hub_is_one_sentence_naming_file_and_place(name, tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    monkeypatch.delenv("SEMPART_WEIGHTS", raising=False)
    monkeypatch.setattr(checkpoints, "_from_hub_cache", lambda hub: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SempartError) as e:
        load_backbone(name)
    text, card = str(e.value), BACKBONES.card(name)
    assert card.extra["file"] in text and str(tmp_path / "weights") in text and "\n" not in text
    assert ("sempart fetch weights" in text) == card.extra["fetch"]


class ConnectError(Exception):
    """As httpx's: neither an OSError nor one of the hub client's own."""


@pytest.mark.parametrize(
    "error", [ConnectError("no route\nto the host"), OSError("disk full"), KeyError("x")]
)
def test_whatever_stops_a_download_is_one_sentence(error, tmp_path, monkeypatch):
    def fail(*args, **kw):
        raise error

    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    monkeypatch.delenv("SEMPART_WEIGHTS", raising=False)
    monkeypatch.setattr(checkpoints, "_from_hub_cache", lambda hub: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("requests.head", lambda *args, **kw: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(SempartError, match=rf"could not be reached \(.*{type(error).__name__}") as e:
        load_backbone("dino_vits8")
    assert "\n" not in str(e.value) and str(tmp_path / "weights") in str(e.value)


def test_cards_say_what_they_must():
    import timm

    for card in CARDS:
        assert card.source and card.licence != "-" and card.labels and card.cost and card.extra["training"]
        assert bool(card.extra["dino_file"]) == card.name.startswith("dino_")
        cfg = timm.get_pretrained_cfg(card.extra["timm"])
        if card.extra["hub"]:
            assert cfg.hf_hub_id == card.extra["hub"]
            assert tuple(cfg.mean) == backbones.MEAN and tuple(cfg.std) == backbones.STD
    mri = BACKBONES.card("dinov2_vits14_reg_mri")
    for fact in ("MRI", "LPIPS", "human similarity", "Apache-2.0", "MIT", "weaker on photographs"):
        assert fact in " ".join([mri.what, mri.licence, mri.labels, mri.extra["training"]])
    assert "300" in BACKBONES.card("dino_vits8_300ep").extra["dino_file"]


# --- layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dino_vits16", "dinov2_vits14_reg", "dinov3_vits16"])
def test_layers_and_attention_are_those_of_the_network(name):
    """Against the network run by timm itself, with its unfused attention laid open."""
    model = random_model(name)
    b = Backbone(model, small(name))
    x = pictures(2, 4 * b.patch, 6 * b.patch)
    f = b.extract(x, layers=["tokens@0", "tokens@1", "queries@1", "keys@1", "values@1"])
    normed, seen = backbones.fit(x, b.patch, "resize")[0], {}
    attn = model.blocks[1].attn
    attn.fused_attn = False
    hooks = [
        attn.attn_drop.register_forward_pre_hook(lambda m, a: seen.update(attention=a[0])),
        attn.proj.register_forward_pre_hook(lambda m, a: seen.update(mixed=a[0])),
        model.blocks[0].register_forward_hook(lambda m, a, out: seen.update(block0=out)),
    ]
    with torch.no_grad():
        last = model.forward_features(normed)
    for h in hooks:
        h.remove()
    p = model.num_prefix_tokens
    assert f.grid == (4, 6) and f.x is f.layers["tokens@0"] and f.attention.shape == (2, 6, 24)
    assert torch.allclose(f.layers["tokens@0"], seen["block0"][:, p:], atol=1e-5)
    assert torch.allclose(model.norm(f.layers["tokens@1"]), last[:, p:], atol=1e-4)
    assert torch.allclose(f.attention, seen["attention"][:, :, 0, p:], atol=1e-6)
    # what is mixed into a patch is an average of all values, heads side by side
    full = b.extract(x, layers=["values@1"]).x.unflatten(-1, (6, -1))
    prefix_free = seen["attention"][:, :, :, p:] @ full.transpose(1, 2)
    rest = seen["mixed"].unflatten(-1, (6, -1)).transpose(1, 2) - prefix_free
    share = seen["attention"][:, :, :, :p]
    fitted = torch.linalg.lstsq(share, rest).solution  # the values of CLS and registers
    assert torch.allclose(share @ fitted, rest, atol=1e-4)
    if name != "dinov3_vits16":  # without rotation, queries and keys give the attention of patches
        q, k = (f.layers[s].unflatten(-1, (6, -1)).transpose(1, 2) for s in ("queries@1", "keys@1"))
        logits, ref = attn.scale * q @ k.mT, seen["attention"][:, :, p:, p:].log()
        assert torch.allclose(logits - logits.mean(-1, True), ref - ref.mean(-1, True), atol=1e-4)


def test_resnet_gives_its_last_stage_as_tokens():
    model = random_model("dino_resnet50")
    b = Backbone(model, small("dino_resnet50"))
    x = pictures(2, 64, 96)
    f = b.extract(x)
    with torch.no_grad():
        want = model.forward_features(backbones.fit(x, 16, "resize")[0])
    assert f.grid == (4, 6) and f.attention is None
    assert torch.allclose(f.x, want.flatten(2).transpose(1, 2), atol=1e-5)
    with pytest.raises(SempartError, match="no attention"):
        b.extract(x, layers=["keys@3"])
    with pytest.raises(SempartError, match="2 to 3"):
        b.extract(x, layers=["tokens@0"])


def test_defaults_batches_and_names(vit):
    x = pictures(5, 32, 48)
    f, one = vit.extract(x), vit.extract(x, batch=2)
    assert f.name == "dino_vits16/keys@1" and f.tau == 0.25 and f.x.shape == (5, 6, 384)
    assert torch.allclose(f.x, one.x, atol=1e-5) and torch.allclose(f.attention, one.attention, atol=1e-6)
    assert f.x.dtype == torch.float32 and not f.x.requires_grad
    assert vit.extract(x, layers=["tokens@1"], attention=False).attention is None
    assert vit.extract(x, layers=["tokens@1"]).tau is None


def test_size_policies(vit):
    x = pictures(1, 41, 70)
    resized, padded, cropped = (vit.extract(x, policy=p) for p in ("resize", "pad", "crop"))
    assert (resized.grid, padded.grid, cropped.grid) == ((3, 4), (3, 5), (2, 4))
    assert (resized.size, padded.size, cropped.size) == ((48, 64), (41, 70), (32, 64))
    # zeros after normalisation are pixels of the mean colour
    grey = torch.tensor(backbones.MEAN)[:, None, None].expand(1, 3, 48, 80).clone()
    grey[..., :41, :70] = x
    assert torch.allclose(padded.x, vit.extract(grey).x, atol=1e-5)
    assert torch.allclose(cropped.x, vit.extract(x[..., :32, :64]).x, atol=1e-6)
    assert torch.equal(padded.images, x) and resized.images.shape[-2:] == resized.size
    assert 0 <= resized.images.min() and resized.images.max() <= 1
    exact = vit.extract(x[..., :32, :64])
    assert torch.equal(exact.images, x[..., :32, :64])
    with pytest.raises(SempartError, match="policy 'stretch'"):
        vit.extract(x, policy="stretch")
    with pytest.raises(SempartError, match="smaller than a patch"):
        vit.extract(pictures(1, 9, 64), policy="crop")


def test_positions_follow_the_size(vit):
    """The same texture everywhere: only interpolated positions tell patches apart, smoothly."""
    flat = vit.extract(torch.full((1, 3, 160, 320), 0.5), layers=["tokens@0"]).x
    rows = flat.unflatten(1, (10, 20))
    step = (rows[:, :, 1:] - rows[:, :, :-1]).norm(dim=-1).mean()
    assert 0 < step < (rows[:, :, 10:] - rows[:, :, :10]).norm(dim=-1).mean()


def test_hooks_are_gone_even_after_an_error(vit, monkeypatch):
    def hooks():
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in vit.model.modules())

    layers = ["tokens@0", "keys@1"]
    assert hooks() == 0
    vit.extract(pictures(1), layers=layers)
    assert hooks() == 0

    def fail(x):
        assert hooks() > 0
        raise RuntimeError("out of memory")

    monkeypatch.setattr(vit.model.blocks[1].mlp, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        vit.extract(pictures(1), layers=layers)
    assert hooks() == 0


def test_bad_images_and_layers_are_refused(vit):
    x = pictures(1, 32, 32)
    bad = {
        "B x 3 x H x W": [x[0], x[:, :1], x[:0], "picture"],
        "divide by 255": [(x * 255).byte()],
        r"not 0\.\.255": [x * 255, x - 0.5],
        "NaN": [x.clone().index_fill_(3, torch.tensor([3]), float("nan")), x / 0],
    }
    for text, inputs in bad.items():
        for i in inputs:
            with pytest.raises(SempartError, match=text):
                vit.extract(i)
    for layer in ("tokens", "keys@", "heads@1", "tokens@-1", "keys@2"):
        with pytest.raises(SempartError, match="layer"):
            vit.extract(x, layers=[layer])
    with pytest.raises(SempartError, match="empty"):
        vit.extract(x, layers=[])
    with pytest.raises(SempartError, match="unknown backbone 'dino_vits9'"):
        load_backbone("dino_vits9")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_autocast_on_cuda_returns_float32_near_the_cpu():
    b = Backbone(random_model("dinov2_vits14_reg"), small("dinov2_vits14_reg"))
    x = pictures(2, 56, 84)
    cpu, gpu = b.extract(x), b.to("cuda").extract(x.cuda())
    assert gpu.x.dtype == gpu.attention.dtype == torch.float32 and gpu.x.is_cuda
    assert torch.nn.functional.cosine_similarity(cpu.x, gpu.x.cpu(), dim=-1).min() > 0.99


def test_the_default_backbone_loads_when_it_is_there():
    if not (cache_dir() / "weights" / "dinov2_vits14_reg_mri.pt").is_file():
        pytest.skip("weights of the default backbone are absent: run 'sempart fetch weights'")
    b = load_backbone("dinov2_vits14_reg_mri", weights=cache_dir() / "weights")
    assert (b.depth, b.dim, b.patch, b.model.num_prefix_tokens) == (12, 384, 14, 5)
    f = b.extract(pictures(1, 56, 56), layers=["queries@11", "tokens@10"])
    assert f.tau == b.tau("queries@11") == b.card.extra["tau"] and f.attention.shape == (1, 6, 16)


def test_the_package_loads_by_name():
    import sempart_core

    with pytest.raises(SempartError, match="unknown network"):
        sempart_core.load("dino_vits9")
