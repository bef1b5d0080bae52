"""The training of DiffNCuts: eigenvectors, loss terms, gradient, RoIAlign, boxes and LARS (vectors i2)."""

import pytest
import torch
from timm.optim import Lars

from sempart_core.crop_pairs import align, overlap_boxes
from sempart_core.mask_consistency import MaskConsistency, same_side

GRID = (14, 14)


@pytest.fixture(scope="module")
def z(vectors):
    return {k: torch.from_numpy(v) for k, v in vectors("i2_diffncuts_loss").items()}


@pytest.fixture(params=["iterative", "closed"])
def code(request):
    return MaskConsistency.preset("code", solver=request.param)


def up_to_sign(a, b):
    return a * (a * b).sum(-1, keepdim=True).sign()


def test_eigenvectors(z, code):
    for i in "12":
        ours = code.vectors(z[f"feats{i}"].double()).float()
        torch.testing.assert_close(up_to_sign(ours, z[f"z2_{i}"]), z[f"z2_{i}"], atol=1e-4, rtol=0)


def test_terms_of_the_loss(z, code):
    out = code(z["z2_1"], z["z2_2"], GRID)
    for ours, theirs in (
        ("mask", "loss_ovlp"), ("horizontal", "loss_h"), ("vertical", "loss_v"),
        ("uniform", "loss_uniform"), ("total", "loss_total"),
    ):  # fmt: skip
        assert out[ours].item() == pytest.approx(z[theirs].item(), abs=1e-5), ours
    torch.testing.assert_close(out["m1"].flatten(1), z["map1"], atol=1e-6, rtol=0)
    _, chosen = code.select(same_side(z["map1"], torch.sigmoid(z["z2_2"] / 0.05))[1])
    assert torch.equal(chosen.float(), z["batch_mask"])


def test_gradient_with_respect_to_the_features(z, code):
    # In float32, as the public code computes products: one that rounds to the other side of 0 is another edge.
    f1 = z["feats1"].clone().requires_grad_()
    code(code.vectors(f1), code.vectors(z["feats2"]), GRID)["total"].backward()
    scale = z["grad_feats1_b0"].abs().max().item()
    torch.testing.assert_close(f1.grad[0], z["grad_feats1_b0"], atol=1e-5 * scale, rtol=1e-4)


def test_roi_align_and_its_flip(z):
    ours = align(z["roi_x"], z["roi_coords"], z["roi_flags"])
    torch.testing.assert_close(ours, z["roi_out"], atol=1e-6, rtol=1e-5)


def test_boxes_of_the_overlap(z):
    first, second = z["crop_params"]
    ours = torch.stack(overlap_boxes(first[None], second[None]))[:, 0]
    torch.testing.assert_close(ours, z["crop_coords"], atol=1e-6, rtol=0)


def test_three_steps_of_lars(z, sidecar):
    a = sidecar("i2_diffncuts_loss")["args"]["lars"]
    w, b = (torch.nn.Parameter(z[k][0].clone()) for k in ("lars_w", "lars_b"))
    groups = [{"params": [w], "weight_decay": a["wd"]}, {"params": [b], "weight_decay": 0.0}]
    stepper = Lars(groups, lr=a["lr"], momentum=a["momentum"], trust_coeff=a["trust_coef"], eps=a["eps"])
    for i in range(1, 4):
        stepper.zero_grad()
        (z["lars_x"] @ w + b).square().mean().backward()
        stepper.step()
        torch.testing.assert_close(w.detach(), z["lars_w"][i], atol=1e-5, rtol=0)
        torch.testing.assert_close(b.detach(), z["lars_b"][i], atol=1e-5, rtol=0)
