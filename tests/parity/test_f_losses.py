"""NCut, GTV and super-resolution losses of segmentation-tricks with their gradients (vectors f).

The crop window (``crop_*``) belongs to the multi-scale consistency of Two Tricks, not to these losses;
``decide_foreground`` is compared in ``test_f_decide_foreground``.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from sempart_core.losses import (
    OFFSETS,
    colour_weights,
    graph_tv,
    ncut_loss,
    super_resolution_loss,
    token_weights,
)
from sempart_core.objective import Objective

STAR = Objective.preset("sempart_star")
GTV = {"reduction": STAR.reduction, "half": STAR.half, "border": STAR.border}
LATER = re.compile(r"crop_.*")
INPUTS = {"feat", "S_coarse", "S_fine", "image_normalised"}


@pytest.fixture(scope="module")
def z(vectors):
    return vectors("f_sempart_losses")


def taus(z):
    found = sorted({m[1] for k in z if (m := re.fullmatch(r"ncut_tau([\d.]+)", k))})
    assert found, "no threshold found: the array names changed"
    return found


def leaf(array, dtype):
    return torch.from_numpy(array)[:, 0].to(dtype).requires_grad_()


def tokens(z, dtype):
    return torch.from_numpy(z["feat"]).flatten(2).mT.to(dtype)


def undecided(z, tau):
    """``B x h x w`` bool: patches with a cosine so close to tau that rounding in single precision decides."""
    x = torch.nn.functional.normalize(tokens(z, torch.float64), dim=-1)
    near = ((x @ x.mT - float(tau)).abs() < 3e-7).any(-1)
    return near.numpy().reshape(z["S_coarse"][:, 0].shape)


def ncut(z, tau, dtype):
    S = leaf(z["S_coarse"], dtype)
    objective = Objective.preset("sempart_star", tau=float(tau))
    W = objective.affinity(tokens(z, dtype))
    return S, ncut_loss(S.flatten(1), W, objective.self_loops, objective.clamp).mean()


def gtv_coarse(z, tau, dtype):
    S = leaf(z["S_coarse"], dtype)
    A = token_weights(tokens(z, dtype), tuple(S.shape[1:]), STAR.neighbours, float(tau), STAR.eps_gtv)
    return S, graph_tv(S, A, **GTV).mean()


@pytest.mark.parametrize("loss, stem", [(ncut, "ncut"), (gtv_coarse, "gtv_coarse")])
def test_coarse_losses_and_their_gradients(z, loss, stem):
    for tau in taus(z):
        S, value = loss(z, tau, torch.float32)
        np.testing.assert_allclose(value.item(), z[f"{stem}_tau{tau}"], atol=1e-5, rtol=0, err_msg=tau)
        value.backward()
        # Against the largest entry, not 1: gradients of means are small. Single precision carries theirs to
        # about 1e-5 of it (ours in double is as far away), and to 1e-9 where all edges weigh alike: it is 0.
        want = z[f"{stem}_tau{tau}_dS"][:, 0]
        off, top = np.abs(S.grad.numpy() - want), np.abs(want).max()
        close = undecided(z, tau)
        assert off.max() < 1e-4 * top + 1e-8 or (close.any() and off[~close].max() < 2e-3 * top), tau
        _, exact = loss(z, tau, torch.float64)
        np.testing.assert_allclose(exact.item(), z[f"{stem}64_tau{tau}"], atol=1e-9, rtol=0, err_msg=tau)


def test_gtv_fine_and_its_gradient(z):
    S = leaf(z["S_fine"], torch.float32)
    A = colour_weights(torch.from_numpy(z["image_normalised"]), STAR.neighbours, STAR.sigma)
    value = graph_tv(S, A, **GTV).mean()
    value.backward()
    np.testing.assert_allclose(value.item(), z["gtv_fine"], atol=1e-5, rtol=0)
    want = z["gtv_fine_dS"][:, 0]
    np.testing.assert_allclose(S.grad / np.abs(want).max(), want / np.abs(want).max(), atol=1e-5)


def test_deviations_of_the_preset_are_those_of_a_normalised_image(z):
    """The stored image is normalised already; undone, the preset's ``std`` gives the same weights."""
    normalised = torch.from_numpy(z["image_normalised"])
    std = torch.tensor(STAR.std)[:, None, None]
    for a, b in zip(colour_weights(normalised), colour_weights(normalised * std, std=STAR.std), strict=True):
        torch.testing.assert_close(a, b)


def test_the_differences_are_those_of_the_filter(z):
    """Each row of the filter is a pixel minus one neighbour; ours are half of them, the rest by symmetry."""
    kernel = z["gtv_filter_kernel"]
    theirs = {tuple(int(i) - 1 for i in np.argwhere(k < 0)[0]) for k in kernel}
    ours = OFFSETS[len(kernel)]
    assert {*ours, *((-dy, -dx) for dy, dx in ours)} == theirs


def test_super_resolution(z):
    fine, coarse = (leaf(z[k], torch.float32) for k in ("S_fine", "S_coarse"))
    value = super_resolution_loss(fine, coarse, STAR.pool, STAR.reduction_sr).mean()
    np.testing.assert_allclose(value.item(), z["sr_loss"], atol=1e-5, rtol=0)
    # The stored pooled mask is at distance 0, so the pooling itself agrees too.
    pooled = torch.from_numpy(z["sr_down_bilinear"])[:, 0]
    assert super_resolution_loss(fine, pooled, STAR.pool, "sum").max() < 1e-9


def test_the_objective_adds_the_same_terms(z):
    """All terms at once through the preset, images in RGB as the rest of this package has them."""
    tau = f"{STAR.tau}"
    if tau not in taus(z):
        pytest.skip(f"the vectors have no tau {tau}")
    std = torch.tensor(STAR.std)[:, None, None]
    coarse, fine = (torch.from_numpy(z[k])[:, 0] for k in ("S_coarse", "S_fine"))
    terms = STAR(coarse, fine, tokens(z, torch.float32), torch.from_numpy(z["image_normalised"]) * std)
    want = {
        "ncut": z[f"ncut_tau{tau}"],
        "gtv_coarse": z[f"gtv_coarse_tau{tau}"],
        "gtv_fine": z["gtv_fine"],
        "sr": z["sr_loss"],
    }
    for name, value in {**want, "total": sum(want.values())}.items():
        np.testing.assert_allclose(terms[name].item(), value, atol=1e-5, rtol=0, err_msg=name)


def test_every_array_is_compared(z):
    stems = "|".join(rf"(?:{s})(?:64)?_tau[\d.]+(?:_dS)?" for s in ("ncut", "gtv_coarse"))
    here = re.compile(stems + r"|gtv_fine(_dS)?|gtv_filter_kernel|sr_down_bilinear|sr_loss|decide_foreground")
    left = {k for k in z if k not in INPUTS and not here.fullmatch(k) and not LATER.fullmatch(k)}
    assert not left
