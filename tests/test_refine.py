"""Filters against slow definitions and on a photograph of two colours, where the right answer is known."""

import json
import sys

import colour_backbone
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from sempart_core import SempartError, bilateral, binarise, cli, guided, refine
from sempart_core.evaluate import build_method, evaluate
from sempart_core.images import to_tensor
from sempart_core.metrics import evaluate_masks
from sempart_core.models import Sempart, SempartConfig
from sempart_core.samples import Sample

G = torch.Generator().manual_seed(0)


def two_colours(size=(40, 48)):
    """A blue disc on orange, the disc's mask, and a version of it that is shifted and noisy."""
    y, x = np.indices(size)
    disc = (y - 20) ** 2 + (x - 22) ** 2 < 11**2
    rng = np.random.default_rng(0)
    rgb = np.where(disc[..., None], [40, 60, 200], [230, 140, 40]) + rng.normal(0, 3, (*size, 3))
    image = np.clip(rgb, 0, 255).astype(np.uint8)
    rough = np.roll(disc, (3, -3), (0, 1)) ^ (rng.random(size) < 0.08)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    return image, tensor, disc, torch.from_numpy(rough)[None].double()


IMAGE, TENSOR, DISC, ROUGH = two_colours()


def iou(a, b):
    a, b = np.asarray(a) > 0.5, np.asarray(b) > 0.5
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("radius", [1, 3, 20])
def test_box_filters_equal_a_loop(radius):
    x = torch.rand(1, 2, 7, 9, generator=G, dtype=torch.float64)
    mean, total = guided.box_mean(x, radius), guided.box_sum(x, radius)
    for i in range(7):
        for j in range(9):
            window = x[0, :, max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
            assert torch.allclose(mean[0, :, i, j], window.mean((1, 2)))
            assert torch.allclose(total[0, :, i, j], window.sum((1, 2)))


@pytest.mark.parametrize("channels", [1, 3])
def test_guided_filter_keeps_constants_and_functions_of_the_guide(channels):
    guide = torch.rand(2, channels, 20, 24, generator=G, dtype=torch.float64)
    flat = torch.full((2, 1, 20, 24), 0.3, dtype=torch.float64)
    assert torch.allclose(guided.guided_filter(guide, flat, 4), flat)
    linear = 0.2 + (guide * torch.tensor([0.5, -0.3, 0.1][:channels])[:, None, None]).sum(1, keepdim=True)
    assert torch.allclose(guided.guided_filter(guide, linear, 4, 1e-12), linear, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3])
def test_guided_filter_equals_a_regression_in_each_window(channels):
    h, w, r, eps = 6, 7, 2, 1e-2
    guide = torch.rand(1, channels, h, w, generator=G, dtype=torch.float64)
    p = torch.rand(1, 2, h, w, generator=G, dtype=torch.float64)
    coefficients = {}
    windows = {
        (i, j): (slice(max(i - r, 0), i + r + 1), slice(max(j - r, 0), j + r + 1))
        for i in range(h)
        for j in range(w)
    }
    for at, s in windows.items():
        x = guide[0][:, *s].flatten(1).numpy()
        y = p[0][:, *s].flatten(1).numpy()
        dx, dy = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
        a = np.linalg.solve(dx @ dx.T / x.shape[1] + eps * np.eye(channels), dx @ dy.T / x.shape[1])
        coefficients[at] = np.vstack([a, y.mean(1) - x.mean(1) @ a])
    want = np.zeros((2, h, w))
    for (i, j), s in windows.items():
        inside = [coefficients[k, m] for k in range(*s[0].indices(h)) for m in range(*s[1].indices(w))]
        want[:, i, j] = np.append(guide[0, :, i, j].numpy(), 1) @ np.mean(inside, 0)
    assert np.abs(guided.guided_filter(guide, p, r, eps)[0].numpy() - want).max() < 1e-10


def test_guided_filter_is_differentiable():
    guide = torch.rand(1, 3, 5, 6, generator=G, dtype=torch.float64, requires_grad=True)
    p = torch.rand(1, 1, 5, 6, generator=G, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g, q: guided.guided_filter(g, q, 2, 0.1), (guide, p))


@pytest.mark.parametrize("radius", [1, 3, 20])
def test_the_gradient_of_a_box_sum_is_one(radius):
    x = torch.rand(1, 2, 7, 9, generator=G, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: guided.box_sum(t, radius), x)
    assert torch.autograd.gradgradcheck(lambda t: guided.box_mean(t, radius) ** 2, x)


@pytest.mark.parametrize("channels", [1, 3])
def test_strips_leave_no_trace(channels, monkeypatch):
    guide = torch.rand(2, channels, 61, 10, generator=G, dtype=torch.float64)
    p = torch.rand(2, 2, 61, 10, generator=G, dtype=torch.float64, requires_grad=True)
    results = []
    for strip in (1 << 19, 10):  # at once, and in rows of four times the radius
        monkeypatch.setattr(guided, "STRIP", strip)
        out = guided.guided_filter(guide, p, 3)
        results.append((out, *torch.autograd.grad((out**2).sum(), p)))
    for whole, strips in zip(*results, strict=True):
        assert torch.allclose(whole, strips, atol=1e-13)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_fast_filter_is_near_the_exact_one(channels):
    guide = TENSOR.double() if channels == 3 else guided.to_guide(TENSOR.double())
    rough = torch.cat([ROUGH[:, None], 1 - ROUGH[:, None]], 1)
    exact = guided.guided_filter(guide, rough, 6)
    fast = guided.guided_filter(guide, rough, 6, subsample=2)
    assert fast.shape == rough.shape and (fast - exact).abs().mean() < 0.03 < (exact - rough).abs().mean() / 2
    assert torch.allclose(fast.sum(1), torch.ones(1, 40, 48, dtype=torch.float64))  # linear in the mask
    flat = torch.full((1, 1, 13, 11), 0.3, dtype=torch.float64)  # sides that the factor does not divide
    noise = torch.rand(1, channels, 13, 11, generator=G, dtype=torch.float64)
    assert torch.allclose(guided.guided_filter(noise, flat, 2, subsample=4), flat)


def test_single_precision_is_enough():
    guide, rough = TENSOR, ROUGH[:, None]
    one = guided.guided_filter(guide, rough.float(), 9, 1e-4)
    assert one.dtype == torch.float32
    assert (one - guided.guided_filter(guide.double(), rough, 9, 1e-4)).abs().max() < 1e-4


def test_guides():
    red = torch.zeros(1, 3, 2, 2)
    red[:, 0] = 1
    assert guided.to_guide(red, "mean")[0, 0, 0, 0] == pytest.approx(1 / 3)
    assert guided.to_guide(red, "luminance")[0, 0, 0, 0] == pytest.approx(0.299)
    assert guided.to_guide(red, "color") is red


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("guided", {"guide": "color", "radius": 6}),
        ("bilateral", {}),
        ("bilateral", {"sigmas": (8, 16, 8)}),
        ("bilateral", {"binarise": "overlap"}),
        ("crf", {}),
    ],
)
def test_every_filter_improves_a_shifted_noisy_mask(name, params):
    if name == "crf":
        pytest.importorskip("pydensecrf", reason="pip install sempart[crf]")
        params = {"floor": 0.2}  # a mask that is right in only nine pixels of ten
    out = refine.refine(name, ROUGH, TENSOR, **params)
    assert out.shape == ROUGH.shape and out.dtype == ROUGH.dtype
    assert 0 <= out.min() and out.max() <= 1
    assert iou(out[0], DISC) > iou(ROUGH[0], DISC) + 0.1


@pytest.mark.parametrize("name", ["tokencut", "lost", "deep-spectral", "dino-seg", "sempart"])
def test_every_method_can_be_followed_by_the_guided_filter(name):
    torch.manual_seed(0)
    head = Sempart(SempartConfig(dim=3, patch=14, width=8, dim_head=4, mlp=8, blocks=(8,)))
    params = {"head": head, "branch": "fine"} if name == "sempart" else {}
    image, mask = colour_backbone.scene(112, 126, (20, 20, 80, 90))
    net, how = colour_backbone.ColourBackbone(), {"guide": "color", "radius": 4}
    done = evaluate(
        [Sample("a", image, mask)], name, net, size=112, params=params, refine="guided", refine_params=how,
        cache=False,
    )  # fmt: skip
    method = build_method(name, **params)
    soft = method.predict(net.extract(to_tensor([image], 112))).resize(mask.shape).soft.detach()
    by_hand = refine.refine("guided", soft, to_tensor([image]), **how)[0].numpy()
    assert done.metrics["max_f"] == pytest.approx(evaluate_masks([by_hand], [mask])["max_f"])
    assert done.metrics["iou"] == pytest.approx(evaluate_masks([by_hand], [mask])["iou"])
    assert done.provenance["refine"] == "guided" and done.provenance["refine_params"] == how


def test_the_command_segments_with_the_guided_filter(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMPART_CACHE", str(tmp_path / "cache"))
    colour_backbone.register()
    image, mask = colour_backbone.scene(112, 126, (23, 25, 80, 87))
    Image.fromarray(image).save(tmp_path / "a.png")
    scores = {}
    for name in ("none", "guided"):
        command = [
            "segment",
            tmp_path / "a.png",
            "-o",
            tmp_path / name,
            "--method",
            "tokencut",
            "--size",
            "112",
        ]
        command += ["--backbone", colour_backbone.NAME, "--refine", name]
        assert CliRunner().invoke(cli.app, [str(c) for c in command]).exit_code == 0
        scores[name] = iou(np.array(Image.open(tmp_path / name / "a_mask.png")) / 255, mask)
        assert json.loads((tmp_path / name / "boxes.json").read_text())["a"]["refine"] == name
    assert scores["guided"] > scores["none"] + 0.02


def test_none_changes_nothing_and_coarse_masks_are_enlarged():
    assert torch.equal(refine.refine("none", ROUGH, TENSOR), ROUGH)
    coarse = torch.rand(1, 5, 6, generator=G)
    assert refine.refine("none", coarse, TENSOR).shape == (1, 40, 48)


@pytest.mark.parametrize("name", ["guided", "bilateral"])
def test_images_of_a_batch_do_not_mix_and_mirroring_commutes(name):
    both = refine.refine(name, torch.cat([ROUGH, ROUGH.flip(-1)]), torch.cat([TENSOR, TENSOR.flip(-1)]))
    alone = refine.refine(name, ROUGH, TENSOR)
    assert torch.allclose(both[:1], alone, atol=1e-12)
    if name == "guided":  # the bilateral grid starts at the left border, so its cells do not mirror
        assert torch.allclose(both[1:].flip(-1), alone, atol=1e-6)


def test_bilateral_grid_adjoints_and_symmetry():
    grid = bilateral.Grid(IMAGE, bilateral.VARIANTS["tokencut"])
    rng = np.random.default_rng(0)
    pixels, cells = rng.random(IMAGE.shape[:2]), rng.random(grid.n)
    assert grid.splat(pixels.ravel()) @ cells == pytest.approx((pixels * grid.slice(cells)).sum())
    assert (grid.neighbours != grid.neighbours.T).nnz == 0
    assert grid.neighbours.sum(1).max() <= 2 * grid.DIMENSIONS
    # rows of Dn blur Dn sum to Dm, so constants are in the null space of the smoothness term
    assert np.allclose(grid.Dn * grid.blur(grid.Dn), grid.Dm)


def test_bilateral_solver_keeps_constants_and_minimises_its_energy():
    image = IMAGE[:14, :15]
    rng = np.random.default_rng(1)
    target = rng.random(image.shape[:2])
    sigmas = bilateral.Sigmas(4, 16, 16)
    assert np.allclose(bilateral.bilateral_solver(image, np.full(target.shape, 0.4), sigmas), 0.4)
    ours = bilateral.bilateral_solver(image, target, sigmas, lam=2.0, iterations=1000, tol=1e-13)
    # The definition, dense: cells by enumeration, neighbours by comparing all pairs.
    yuv = np.tensordot(image, bilateral.RGB_TO_YUV, ([2], [1])) + bilateral.YUV_OFFSET
    y, x = np.indices(target.shape)
    place = np.stack([x // 4, y // 4, *(yuv // 16).transpose(2, 0, 1)], -1).reshape(-1, 5).astype(int)
    cells, index = np.unique(place, axis=0, return_inverse=True)
    steps = np.abs(cells[:, None] - cells[None]).sum(-1)
    blur = 10 * np.eye(len(cells)) + (steps == 1)
    S = np.eye(len(cells))[index].T
    m, n = S.sum(1), np.ones(len(cells))
    for _ in range(10):
        n = np.sqrt(n * m / (blur @ n))
    A = 2.0 * (np.diag(n * (blur @ n)) - np.diag(n) @ blur @ np.diag(n)) + 0.999 * np.diag(S.sum(1))
    want = S.T @ np.linalg.solve(A, 0.999 * S @ target.ravel())
    assert np.abs(ours.ravel() - want).max() < 1e-9


def square(n, lo, hi):
    out = np.zeros((n, n))
    out[lo:hi, lo:hi] = 1
    return out


def test_published_rules_return_the_background_of_a_large_object_ours_does_not():
    large = square(10, 1, 9)  # 64 of 100 cells
    assert np.array_equal(binarise.second_largest(large), large == 0)
    assert np.array_equal(binarise.all_but_largest(large), large == 0)
    assert np.array_equal(binarise.overlap(large, large), large > 0)
    small = square(10, 3, 6)
    for rule in binarise.BINARISERS.values():
        assert np.array_equal(rule(small, small), small > 0)


def test_holes_are_filled_and_several_parts_told_apart():
    ring = square(12, 1, 6)
    ring[3, 3] = 0
    ring[8:11, 8:11] = 1
    assert binarise.second_largest(ring).sum() == 25  # the larger part, its hole filled
    assert binarise.all_but_largest(ring).sum() == 25 + 9
    before = np.zeros_like(ring)
    before[8:10, 8:10] = 1
    assert binarise.overlap(ring, before).sum() == 9
    assert not binarise.threshold(ring)[3, 3]


def test_nothing_found():
    empty, before = np.zeros((6, 6)), square(6, 2, 4)
    assert binarise.second_largest(empty).all()
    assert not binarise.all_but_largest(empty).any()
    assert np.array_equal(binarise.overlap(empty, before), before > 0)


def test_overlap_never_returns_a_region_of_the_background():
    rng = np.random.default_rng(0)
    for _ in range(50):
        soft, before = rng.random((8, 8)), rng.random((8, 8)) > 0.5
        out = binarise.overlap(soft, before)
        outside = out & ~binarise._filled(soft)
        assert not outside.any() or np.array_equal(out, before)


def test_safeguard_of_found():
    before, close, far = square(10, 2, 8), square(10, 2, 7), square(10, 0, 3)
    assert binarise.keep_if_close(before, close)[1] and not binarise.keep_if_close(before, far)[1]
    assert np.array_equal(binarise.keep_if_close(before, far)[0], before)
    half = square(10, 0, 10)
    half[5:] = 0
    assert not binarise.keep_if_close(square(10, 0, 10), half)[1]  # exactly one half is not enough
    kept = refine.refine("bilateral", ROUGH, 0 * TENSOR, binarise="second-largest", keep_close=True)
    assert torch.equal(kept, ROUGH)


def test_guided_filter_sums_half_precision_in_single():
    images, p = TENSOR.half(), ROUGH[:, None].half()
    fine = guided.guided_filter(images.float(), p.float(), 19)
    coarse = guided.guided_filter(images, p, 19)
    assert coarse.dtype == torch.half and (coarse.float() - fine).abs().max() < 1e-3


def test_missing_crf_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(SempartError, match=r"sempart\[crf\]"):
        refine.refine("crf", ROUGH, TENSOR)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: refine.refine("sharpen", ROUGH, TENSOR), "choose one of: none, guided"),
        (
            lambda: refine.refine("guided", ROUGH, TENSOR, sigma=3),
            "it has: radius, eps, guide, clamp, subsample",
        ),
        (lambda: refine.refine("none", ROUGH[0], TENSOR), "B x h x w"),
        (lambda: refine.refine("none", ROUGH * np.nan, TENSOR), "NaN"),
        (lambda: refine.refine("guided", ROUGH, TENSOR, guide="hsv"), "mean, luminance, color"),
        (lambda: refine.refine("guided", ROUGH, TENSOR, radius=0), "radius=0: give a whole number"),
        (lambda: refine.refine("guided", ROUGH, TENSOR, radius=2.5), "radius=2.5: give a whole number"),
        (lambda: refine.refine("guided", ROUGH, TENSOR, eps=float("nan")), "give a positive number"),
        (lambda: refine.refine("guided", ROUGH, TENSOR, subsample=0), "subsample=0: give a whole number"),
        (lambda: guided.guided_filter(TENSOR, ROUGH[:, None] > 0.5), "give p.float"),
        (lambda: refine.refine("bilateral", ROUGH, TENSOR, sigmas="big"), "tokencut, default"),
        (lambda: refine.refine("bilateral", ROUGH, TENSOR, sigmas=(1, 0, 1)), "positive"),
        (lambda: refine.refine("bilateral", ROUGH, TENSOR, binarise="best"), "choose one of: threshold"),
        (lambda: refine.refine("bilateral", ROUGH, TENSOR, keep_close=True), "name a rule"),
        (lambda: bilateral.bilateral_solver(IMAGE[..., 0], DISC), "H x W x 3"),
        (lambda: bilateral.bilateral_solver(IMAGE, DISC[:5]), "resize it first"),
        (lambda: binarise.overlap(DISC), "before"),
        (lambda: binarise.keep_if_close(DISC, DISC[:3]), "cannot be compared"),
        (lambda: guided.guided_filter(TENSOR[:, :2], ROUGH[:, None]), "2 channels"),
        (lambda: guided.guided_filter(TENSOR[..., :9], ROUGH[:, None]), "resize one"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(SempartError, match=words):
        call()


def test_a_bilateral_solver_at_half_the_size():
    """On a picture of even blocks the solver finds at half the size what it finds at the whole."""
    small = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)).round()
    images = small.repeat_interleave(2, -1).repeat_interleave(2, -2)
    soft = torch.rand(1, 24, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = soft.repeat_interleave(2, -1).repeat_interleave(2, -2)
    half = refine.refine("bilateral", whole, images, sigmas=(8, 16, 8), subsample=2)
    want = refine.refine("bilateral", soft, small, sigmas=(4, 16, 8))
    want = torch.nn.functional.interpolate(want[:, None], (48, 64), mode="bilinear")[:, 0]
    assert half.shape == whole.shape and torch.allclose(half, want, atol=1e-12)
    same = refine.refine("bilateral", whole, images, sigmas=(8, 16, 8), subsample=1)
    assert torch.equal(same, refine.refine("bilateral", whole, images, sigmas=(8, 16, 8)))
    assert not torch.allclose(half, same, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subsample": 0}, "subsample=0"),
        ({"subsample": 1.5}, "subsample=1.5"),
        ({"subsample": 99}, "shorter side"),
        ({"subsample": 2, "binarise": "threshold"}, "leave binarise out"),
        ({"subsample": 2, "sigmas": "wide"}, "sigmas 'wide'"),
    ],
)
def test_a_subsampled_bilateral_solver_refuses(options, words):
    with pytest.raises(SempartError, match=words):
        refine.refine("bilateral", torch.rand(1, 20, 20), torch.rand(1, 3, 20, 20), **options)
