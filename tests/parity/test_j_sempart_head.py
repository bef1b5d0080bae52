"""SEMPART's network as segmentation-tricks builds it: names, shapes, counts, forward passes (vectors j)."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from sempart_core.models import Sempart, SempartConfig
from sempart_core.models.files import from_public


@pytest.fixture(scope="module")
def z(vectors):
    return vectors("j_sempart_head")


@pytest.fixture(scope="module")
def stored(sidecar):
    return sidecar("j_sempart_head")


def built_from(shapes, depth, heads):
    """The configuration that these shapes of a public state dictionary have."""
    steps = 1 + max(int(m[1]) for k in shapes if (m := re.match(r"layers\.(\d+)\.", k)))
    inner = shapes["inp_transformer.layers.0.0.fn.to_out.0.weight"][1]
    width, dim = shapes["conv_input.weight"][:2]
    return SempartConfig.preset(
        "sempart_star",
        dim=dim,
        width=width,
        patch=2**steps,
        depth=depth,
        heads=heads,
        dim_head=inner // heads,
        mlp=shapes["inp_transformer.layers.0.1.fn.net.0.weight"][0],
        blocks=tuple(shapes[f"layers.{i}.0.weight"][0] for i in range(steps)),
        normalise=False,  # the stored image goes in as it is
    )


def test_shapes_and_counts_of_the_published_sizes(stored):
    cases = {k: v for k, v in stored["results"].items() if re.fullmatch(r"patch\d+", k)}
    assert cases
    for name, case in cases.items():
        patch = int(name.removeprefix("patch"))
        model = Sempart(SempartConfig.preset("sempart_star", patch=patch))
        empty = {k: torch.empty(s) for k, s in case["state_dict"].items()}
        theirs = {k: v.shape for k, v in from_public(empty).items()}
        assert {k: v.shape for k, v in model.state_dict().items()} == theirs, name
        assert sum(p.numel() for p in model.parameters()) == case["params"], name
        assert sum(b.numel() for k, b in model.named_buffers() if k in theirs) == case["buffers"], name
        h, w = case["coarse_logits"][-2:]
        with torch.inference_mode():
            x, image = torch.randn(1, h * w, model.config.dim), torch.rand(1, 3, h * patch, w * patch)
            out = model.eval()(x, image)
        assert out.coarse.shape == (1, h, w) and list(out.fine.shape[-2:]) == case["fine_logits"][-2:]


def test_forward_passes(z, stored):
    """The evaluation pass was stored before the training pass, the weights after it.

    So ``fine_eval`` belongs to fresh running statistics, and our training pass arrives at the stored ones.
    """
    state = {k[2:]: torch.from_numpy(v) for k, v in z.items() if k.startswith("w|")}
    args = stored["args"]["transformer"]
    model = Sempart(built_from({k: v.shape for k, v in state.items()}, args["depth"], args["heads"]))
    ours = from_public(state)
    model.load_state_dict(ours)
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.reset_running_stats()
    features, image = torch.from_numpy(z["x"]), torch.from_numpy(z["img"])
    x, grid = features.flatten(2).mT, tuple(features.shape[-2:])
    with torch.no_grad():
        out = model.eval().logits(x, image, grid)
        np.testing.assert_allclose(out.coarse, z["coarse_eval"][:, 0], atol=1e-5, rtol=0)
        np.testing.assert_allclose(out.fine, z["fine_eval"][:, 0], atol=1e-5, rtol=0)
        np.testing.assert_allclose(
            model.train().logits(x, image).fine, z["fine_train"][:, 0], atol=1e-5, rtol=0
        )
    after = model.state_dict()
    for name, value in ours.items():
        np.testing.assert_allclose(after[name], value, atol=1e-6, rtol=0, err_msg=name)
