"""The head that ships: its file, its card, and the method and commands that take it where none is named."""

import fnmatch
import json
import pathlib
import re
import tomllib

import colour_backbone
import numpy as np
import pytest
import torch
from colour_backbone import ColourBackbone, scene
from PIL import Image
from typer.testing import CliRunner

import sempart_core
from data_scripts import ship_head
from sempart_core import SempartError, cli, heads, tuned_backbones
from sempart_core.evaluate import evaluate
from sempart_core.extraction import extract_dataset
from sempart_core.images import to_tensor
from sempart_core.methods import METHODS
from sempart_core.models import Sempart, SempartConfig
from sempart_core.registry import Card
from sempart_core.samples import Sample
from sempart_core.segment import cut

colour_backbone.register()
ABOUT = {
    "backbone": colour_backbone.NAME,
    "sha256": "0" * 64,
    "feature": "tokens@0",
    "size": "112",
    "tau": "0.45",
    "photographs": "0123456789ab",
    "n": "7",
    "branches": "joint",
}


@torch.no_grad()
def red_head(**about):
    """A network of the real kind whose weights say: red is the object."""
    shape = SempartConfig(
        dim=3, patch=14, width=8, dim_head=4, mlp=8, blocks=(8,), cls=False, final_norm=False
    )
    model = Sempart(shape, {k: v for k, v in (ABOUT | about).items() if v})
    for p in model.parameters():
        p.zero_()
    model.project.weight[0, 0] = model.coarse.weight[0, 0] = 10
    model.refiner.head.weight[0, -3] = 10
    return model.eval()


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The red head as the one that ships, from its file; everything else of the package as it is."""
    monkeypatch.setattr(heads, "FOLDER", tmp_path / "shipped")
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path / "cache"))
    return ship_head.ship(red_head().save(tmp_path / "red.safetensors"))


def run(*args, code=0):
    result = CliRunner().invoke(cli.app, [str(a) for a in args])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def photo(folder):
    image, mask = scene(120, 160, (40, 30, 110, 100))
    Image.fromarray(image).save(folder / "a.png")
    return folder / "a.png", mask


# --- the file ------------------------------------------------------------------------------------------


def test_every_head_of_the_package_loads_and_says_what_it_is():
    for name in heads.HEADS:
        network, card = sempart_core.load(name), heads.HEADS.card(name)
        assert isinstance(network, Sempart) and not network.training
        for key in ("backbone", "feature", "size"):
            assert card.extra[key] == network.about[key]
        assert card.extra["sha256"] == heads.checksums()[name]
        assert network.about["n"] in card.extra["trained_on"]
        assert card.labels.startswith("none in its training") and network.about["feature"] in card.labels


def test_it_is_part_of_what_is_installed():
    root = pathlib.Path(sempart_core.__file__).parents[1]
    said = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "sempart_core.models" in said["packages"]
    patterns = said["package-data"]["sempart_core.models"]
    package = root / "sempart_core" / "models"
    legal = (heads.FOLDER / name for name in ("LICENSE-Apache-2.0", "NOTICE.md"))
    shipped = (*map(heads.file_of, heads.HEADS), *map(tuned_backbones.file_of, tuned_backbones.TUNED))
    for path in (heads.FOLDER / "heads.json", *legal, *shipped):
        name = path.relative_to(package).as_posix()
        assert path.is_file() and any(fnmatch.fnmatch(name, p) for p in patterns)


def test_the_notice_speaks_of_every_file_of_weights():
    said = (heads.FOLDER / "NOTICE.md").read_text(encoding="utf-8")
    for path in heads.FOLDER.glob("*.safetensors"):
        assert f"`{path.name}`" in said


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "unlist"])
def test_a_damaged_file_is_one_sentence(shipped, harm):
    data = bytearray(shipped.read_bytes())
    if harm == "flip":
        data[-1] ^= 1
        shipped.write_bytes(data)
    elif harm == "cut":
        shipped.write_bytes(data[:100])
    elif harm == "remove":
        shipped.unlink()
    else:
        (heads.FOLDER / "heads.json").unlink()
    heads.card(heads.DEFAULT)  # the package can still be imported
    for make in (lambda: sempart_core.load(heads.DEFAULT), METHODS["sempart"]):
        with pytest.raises(SempartError, match=r"install the package again$") as e:
            make()
        assert "\n" not in str(e.value)


def test_shipping_writes_file_and_sum_and_refuses_heads_that_do_not_speak(shipped, tmp_path):
    assert sempart_core.load(heads.DEFAULT).about == ABOUT
    before = shipped.read_bytes()
    for key in ship_head.NEEDED:
        dumb = red_head(**{key: ""}).save(tmp_path / "dumb.safetensors")
        with pytest.raises(SempartError, match=f"does not say its {key}"):
            ship_head.ship(dumb)
    with pytest.raises(SempartError, match="'mystery', which is not registered"):
        ship_head.ship(red_head(backbone="mystery").save(tmp_path / "m.safetensors"))
    with pytest.raises(SempartError, match=f"choose one of: {heads.DEFAULT}"):
        ship_head.ship(tmp_path / "red.safetensors", "other")
    assert shipped.read_bytes() == before


def test_a_head_without_a_log_leaves_none_of_the_head_before(shipped, tmp_path):
    (tmp_path / "log.csv").write_text("epoch\n1\n")
    ship_head.ship(tmp_path / "red.safetensors")
    assert heads.log_of(heads.DEFAULT).is_file()
    (tmp_path / "log.csv").unlink()
    ship_head.ship(tmp_path / "red.safetensors")
    assert not heads.log_of(heads.DEFAULT).exists()


def test_shipping_ends_with_2_and_a_sentence_on_standard_error(shipped, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ship_head", str(tmp_path / "red.safetensors"), "--name", "other"])
    with pytest.raises(SystemExit) as e:
        ship_head.main()
    said = capsys.readouterr()
    assert e.value.code == 2 and said.err.startswith("ship_head: no head is called") and not said.out


@pytest.mark.parametrize("text", ["[]", '"x"', "{"])
def test_sums_that_are_no_table_do_not_break_the_import(shipped, text):
    (heads.FOLDER / "heads.json").write_text(text)
    assert heads.checksums() == {} and heads.card(heads.DEFAULT).extra["sha256"] == ""


def test_the_row_of_a_head_that_does_not_say_its_tau_has_none(tmp_path):
    data = [Sample("a", *scene(112, 112))]
    for tau in ("0.45", ""):
        method = METHODS["sempart"](red_head(tau=tau))
        e = evaluate(data, method, ColourBackbone(), cache=False)
        assert e.provenance["tau"] == (float(tau) if tau else None)


def test_load_knows_both_kinds():
    with pytest.raises(SempartError, match=f"head \\({heads.DEFAULT}\\) or a backbone \\(.*dino_vits8"):
        sempart_core.load("nothing")
    with pytest.raises(SempartError, match="leave weights out"):
        sempart_core.load(heads.DEFAULT, weights="x")
    assert sempart_core.load(colour_backbone.NAME).name == colour_backbone.NAME


# --- the method ----------------------------------------------------------------------------------------


def test_without_arguments_it_is_the_shipped_head_at_its_own_size_and_feature(shipped):
    image, mask = scene(120, 160, (40, 30, 110, 100))
    method = METHODS["sempart"]()
    net = ColourBackbone()
    net.default_layer = "keys@0"  # blue first: the head must ask for its own feature
    found = evaluate([Sample("a", image, mask)] * 2, method, net, cache=False)
    said = found.provenance
    assert found.metrics["iou"] > 0.95
    assert (said["size"], said["feature"], said["tau"]) == (112, "tokens@0", 0.45)
    assert said["params"] == {
        "batch_norm": "running",
        "branch": "fine",
        "foreground": "least-corners",
        "head": METHODS["sempart"](red_head()).head,
        "head_name": heads.DEFAULT,
    }
    soft, _ = cut(image, method, net)
    assert ((soft > 0.5) == mask).mean() > 0.98
    assert method.predict(net.extract(to_tensor([image]), ["tokens@0"])).mask.any()


@pytest.mark.parametrize(
    "branches, branch", [("joint", "fine"), ("coarse", "coarse"), ("fine", "fine"), ("", "fine")]
)
def test_the_default_branch_is_the_finest_that_was_trained(branches, branch):
    assert METHODS["sempart"](red_head(branches=branches)).branch == branch


def test_a_head_is_named_by_name_path_or_itself(shipped, tmp_path):
    digests = {METHODS["sempart"](h).head for h in (None, heads.DEFAULT, shipped, str(shipped), red_head())}
    assert len(digests) == 1
    with pytest.raises(SempartError, match=f"no such file and no head of this name.*{heads.DEFAULT}"):
        METHODS["sempart"]("sempart-dino")


def test_what_the_head_was_not_trained_on_is_refused_before_anything_is_computed():
    image, mask = scene()
    data, net = [Sample("a", image, mask)], ColourBackbone()
    other = METHODS["sempart"](red_head(backbone="dino_vits8"))
    own = METHODS["sempart"](red_head())
    for measure in (
        lambda m, **kw: evaluate(data, m, net, cache=False, **kw),
        lambda m, **kw: cut(image, m, net, **kw),
    ):
        with pytest.raises(SempartError, match="trained on the backbone 'dino_vits8', not on 'test_colour'"):
            measure(other)
        with pytest.raises(SempartError, match="trained on tokens@0, not on keys@0"):
            measure(own, feature="keys@0")
        with pytest.raises(SempartError, match="tau has no say"):
            measure(own, tau=0.3)
    assert net.seen == 0


def test_rows_of_a_head_on_a_label_tuned_layer_say_so():
    image, mask = scene()
    data, net = [Sample("a", image, mask)] * 2, ColourBackbone()
    method = METHODS["sempart"](red_head())
    kind = lambda **kw: evaluate(data, method, net, cache=False, **kw).provenance["kind"]  # noqa: E731
    assert kind() == "unsupervised"
    net.card = Card(net.name, "x", extra={"defaults_from": "label-tuned: y", "taus": {"tokens@0": 0.5}})
    assert kind() == "label-tuned"
    # Extracted before with another layer in front: what counts is the layer the head reads.
    features = extract_dataset(data, net, size=112, layers=["keys@0", "tokens@0"], cache=False)
    assert kind(features=features) == "label-tuned"
    net.card.extra["taus"] = {"keys@0": 0.4}
    assert kind(features=features) == "unsupervised"


# --- the commands --------------------------------------------------------------------------------------


def test_segment_without_options_uses_the_shipped_head(shipped, tmp_path):
    path, mask = photo(tmp_path)
    run("segment", path, "-o", tmp_path / "out")
    found = np.array(Image.open(tmp_path / "out" / "a_mask.png")) > 0
    assert (found & mask).sum() / (found | mask).sum() > 0.9
    entry = json.loads((tmp_path / "out" / "boxes.json").read_text())["a"]
    want = {"method": "sempart", "head_name": heads.DEFAULT, "branch": "coarse", "size": 112, "tau": 0.45}
    want |= {"backbone": colour_backbone.NAME, "feature": "tokens@0", "foreground": "least-corners"}
    assert {k: entry[k] for k in want} == want and len(entry["head"]) == 12
    text = run("list", "heads").stdout
    assert re.search(rf"^  {heads.DEFAULT}$", text, re.M) and "labels: none in its training" in text


@pytest.mark.parametrize(
    "branches, options, branch",
    [
        ("joint", [], "coarse"),
        ("joint", ["--refine", "none"], "fine"),
        ("joint", ["--branch", "fine"], "fine"),
        ("fine", [], "fine"),
    ],
)
def test_a_filter_gets_the_mask_that_leaves_it_the_outline(tmp_path, branches, options, branch):
    path, _ = photo(tmp_path)
    head = red_head(branches=branches).save(tmp_path / "head.safetensors")
    run("segment", path, "-o", tmp_path / "out", "--head", head, *options)
    assert json.loads((tmp_path / "out" / "boxes.json").read_text())["a"]["branch"] == branch


def test_a_strangers_head_brings_backbone_and_size(shipped, tmp_path):
    path, mask = photo(tmp_path)
    own = red_head(size="56").save(tmp_path / "own.safetensors")
    run("segment", path, "-o", tmp_path / "out", "--head", own, "--branch", "coarse", "--refine", "none")
    entry = json.loads((tmp_path / "out" / "boxes.json").read_text())["a"]
    assert (entry["size"], entry["branch"], entry["refine"]) == (56, "coarse", "none")
    assert "head_name" not in entry
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    path.rename(tmp_path / "images" / "a.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks" / "a.png")
    args = ["evaluate", "--images", tmp_path / "images", "--masks", tmp_path / "masks", "--json"]
    said = json.loads(run(*args, "--method", "sempart").stdout.splitlines()[-1])
    assert said["provenance"]["params"]["head_name"] == heads.DEFAULT and said["provenance"]["size"] == 112
    said = json.loads(run(*args, "--method", "sempart", "--head", own).stdout.splitlines()[-1])
    assert said["provenance"]["params"]["head_name"] is None and said["provenance"]["size"] == 56


@pytest.mark.parametrize(
    "options, words",
    [
        (["--backbone", "dino_vits8"], "trained on the backbone 'test_colour', not on 'dino_vits8'"),
        (["--feature", "keys@0"], "trained on tokens@0, not on keys@0"),
        (["--tau", ".3"], "tau has no say"),
        (["--branch", "middle"], "unknown branch 'middle'.*coarse, fine"),
        (["--head", "gone.safetensors"], "gone.safetensors: there is no such file"),
        (["--head", "{coarse}", "--branch", "fine"], "without its fine branch"),
        (["--method", "tokencut", "--head", "x"], "'tokencut' has no parameter 'head'"),
    ],
)
def test_faults_end_with_2_and_a_sentence(shipped, tmp_path, options, words):
    path, _ = photo(tmp_path)
    coarse = red_head(branches="coarse").save(tmp_path / "coarse.safetensors")
    options = [o.format(coarse=coarse) for o in options]
    r = run("segment", path, "-o", tmp_path / "out", *options, code=2)
    assert re.search(words, r.stderr) and len(r.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
