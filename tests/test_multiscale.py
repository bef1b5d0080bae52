"""Windows, their enlargement, and the consistency that Two Tricks trains with."""

import dataclasses
import pathlib

import pytest
import torch
from colour_backbone import NAME, ColourBackbone, register
from ranks import on_two_processes
from test_train import QUICK, SMALL, own_cache, pictures, run, same, weights  # noqa: F401
from test_train_options import photographs
from torch.nn import functional as F

from sempart_core import SempartError
from sempart_core.models import Masks, Sempart, load_head
from sempart_core.multiscale import CROPS, Zoomed, crop_windows, crop_zoom, equivariance_loss
from sempart_core.objective import Objective
from sempart_core.recipes import recipe
from sempart_core.train import train
from sempart_core.training_crops import fresh_crops
from sempart_core.training_data import load_training_set
from sempart_core.training_files import head_of
from sempart_core.training_step import Meter, Pass, loss

register()
CROPPED = Objective.preset("compact", w_ncut_crop=0.5, w_eq=2.0, eq_params={"radius": 3})
JOINT = {**QUICK, "branches": "joint", "objective": CROPPED, "crop": "half"}
LATER = {**JOINT, "coarse_epochs": 2, "lr": 3e-3, "batch": 2}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CROPS))
@pytest.mark.parametrize("size", [(320, 320), (224, 224), (96, 160)])
def test_windows_lie_in_the_input(name, size):
    w = crop_windows(name, size, 200, generator())
    assert w.shape == (200, 4) and w.dtype == torch.int64
    assert (w >= 0).all() and (w[:, 0] + w[:, 2] <= size[0]).all() and (w[:, 1] + w[:, 3] <= size[1]).all()
    assert torch.equal(w, crop_windows(name, size, 200, generator()))
    assert not torch.equal(w, crop_windows(name, size, 200, generator(1)))


def test_what_the_paper_says_and_what_its_code_does():
    paper = crop_windows("paper", (320, 320), 4000, generator())
    assert (paper[:, 2:] == 80).all() and set(paper[:, 0].tolist()) == set(range(241))
    assert set(paper[:, 1].tolist()) == set(range(241))
    code = crop_windows("code", (320, 320), 4000, generator())
    assert (code[:, 2:] == 160).all() and (code[:, 0] == 80).all()
    assert set(code[:, 1].tolist()) == set(range(10, 30))


@pytest.mark.parametrize(("name", "size"), [("paper", (31, 64)), ("anywhere", (64, 64))])
def test_no_window(name, size):
    with pytest.raises(SempartError, match=r"32 pixels|unknown crop"):
        crop_windows(name, size, 1)


def test_enlarging_is_bilinear_and_sees_nothing_outside():
    x = torch.rand(2, 3, 12, 16, dtype=torch.float64, generator=generator(), requires_grad=True)
    w = torch.tensor([[2, 3, 4, 8], [0, 8, 6, 8]])
    z = crop_zoom(x, w)
    assert z.shape == x.shape
    assert torch.equal(z[0], F.interpolate(x[:1, :, 2:6, 3:11], (12, 16), mode="bilinear")[0])
    z.sum().backward()
    inside = torch.zeros_like(x)
    for i, (t, left, h, b) in enumerate(w.tolist()):
        inside[i, :, t : t + h, left : left + b] = 1
    assert ((x.grad != 0) == (inside != 0)).all()
    assert torch.allclose(crop_zoom(x[:, 0], w), z[:, 0])
    whole = torch.tensor([[0, 0, 12, 16]] * 2)
    assert torch.equal(crop_zoom(x, whole), x)
    constant = torch.full((2, 12, 16), 0.3)
    assert torch.allclose(crop_zoom(constant, w, (5, 7)), torch.full((2, 5, 7), 0.3))
    assert torch.autograd.gradcheck(lambda t: crop_zoom(t, w, (5, 7)), x)


@pytest.mark.parametrize(
    ("x", "w"),
    [
        (torch.rand(2, 8, 8), [[0, 0, 4, 4]]),
        (torch.rand(1, 8, 8), [[0, 0, 4.0, 4]]),
        (torch.rand(1, 8, 8), [[5, 0, 4, 4]]),
        (torch.rand(1, 8, 8), [[0, -1, 4, 4]]),
        (torch.rand(1, 8, 8), [[0, 0, 0, 4]]),
        (torch.rand(8, 8), [[0, 0, 4, 4]]),
    ],
)
def test_bad_windows(x, w):
    with pytest.raises(SempartError, match="window"):
        crop_zoom(x, torch.tensor(w))


# --- consistency ---------------------------------------------------------------------------------------


def zoomed(images, w):
    return Zoomed(torch.zeros(len(images), 1, 1), crop_zoom(images, w), w, tuple(images.shape[-2:]))


def test_a_mask_by_colour_is_consistent_and_one_by_place_is_not():
    """Crop then predict against predict then crop."""
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64, generator=generator())
    w = crop_windows("half", (32, 32), 4, generator())
    z = zoomed(images, w)
    by_colour = lambda x: 0.2 * x[:, 0] + 0.8 * x[:, 2]  # noqa: E731
    assert equivariance_loss(by_colour(images), by_colour(z.images), z).abs().max() < 1e-30
    ramp = torch.linspace(0, 1, 32, dtype=torch.float64).expand(4, 32, 32)
    assert (equivariance_loss(ramp, ramp, z) > 1e-3).all()


def test_a_translation_equivariant_network_is_consistent_inside():
    """A convolution shares its weights over positions: away from the border of the window nothing differs.

    Windows are not enlarged here: a convolution knows translations, not scales.
    """
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=generator())
    net = torch.nn.Conv2d(3, 1, 3, padding=1).double()
    w = torch.tensor([[4, 6, 16, 16], [0, 16, 16, 16]])
    with torch.no_grad():
        ours, theirs = crop_zoom(net(images)[:, 0], w, (16, 16)), net(crop_zoom(images, w, (16, 16)))[:, 0]
    assert (ours - theirs)[:, 1:-1, 1:-1].abs().max() < 1e-12
    assert (ours - theirs)[0].abs().max() > 1e-3


def test_bounds_and_resolutions():
    w = crop_windows("half", (64, 64), 3, generator())
    z = Zoomed(torch.zeros(3, 1, 1), None, w, (64, 64))
    zero, one = torch.zeros(3, 4, 4), torch.ones(3, 64, 64)
    assert torch.equal(equivariance_loss(zero, one, z), torch.ones(3))
    coarse = torch.rand(3, 4, 4, dtype=torch.float64, generator=generator(), requires_grad=True)
    target = torch.rand(3, 4, 4, dtype=torch.float64, generator=generator(1), requires_grad=True)
    value = equivariance_loss(coarse, target, z)
    assert value.shape == (3,) and (value > 0).all() and (value < 1).all()
    value.sum().backward()
    assert coarse.grad.abs().sum() > 0 and target.grad is None
    assert torch.autograd.gradcheck(lambda s: equivariance_loss(s, target.detach(), z), coarse)
    with pytest.raises(SempartError, match="B x h x w"):
        equivariance_loss(zero[:2], one, z)


def test_the_target_is_refined_and_detached():
    images = torch.rand(2, 3, 32, 32, generator=generator())
    w = crop_windows("half", (32, 32), 2, generator())
    z = zoomed(images, w)
    student = Masks(torch.rand(2, 4, 4), torch.rand(2, 32, 32).requires_grad_())
    teacher = Masks(torch.rand(2, 4, 4), torch.rand(2, 32, 32).requires_grad_())
    o = Objective(w_eq=1.0, eq_params={"radius": 2})
    term = o.consistency(student, teacher, z)["eq"]
    term.backward()
    assert student.fine.grad.abs().sum() > 0 and teacher.fine.grad is None
    plain = Objective(w_eq=1.0, eq_filter="none").consistency(student, teacher, z)["eq"]
    assert not torch.isclose(term, plain)
    assert torch.isclose(plain, equivariance_loss(student.fine, teacher.fine, z).mean())


def test_terms_and_weights():
    x = torch.randn(2, 16, 5, generator=generator())
    z = Zoomed(x, torch.rand(2, 3, 56, 56), crop_windows("half", (56, 56), 2, generator()), (56, 56))
    masks = Masks(torch.rand(2, 4, 4), torch.rand(2, 56, 56))
    o = Objective(w_ncut_crop=2.0, w_eq=3.0, w_eq_coarse=5.0)
    t = o.consistency(masks, masks, z)
    assert set(t) == {"ncut_crop", "eq", "eq_coarse", "total"}
    assert torch.isclose(t["total"], 2 * t["ncut_crop"] + 3 * t["eq"] + 5 * t["eq_coarse"])
    assert set(o.consistency(Masks(masks.coarse, None), masks, z)) == {"ncut_crop", "eq_coarse", "total"}
    assert Objective(w_eq=1.0).consistency(Masks(masks.coarse, None), masks, z)["total"] == 0
    with pytest.raises(SempartError, match="eq_filter"):
        Objective(eq_filter="blur")
    star = Objective.preset("sempart_star")
    assert (star.w_sr, star.w_gtv_coarse, star.w_gtv_fine) == (1, 1, 1)
    assert (star.w_ncut_crop, star.w_eq) == (0.01, 0.01) and star.eq_filter == "guided"


def test_gradient_flows_only_through_the_student():
    """The consistency of the fine masks alone: its gradient is that of a fixed target."""
    torch.manual_seed(0)
    net = Sempart(dataclasses.replace(SMALL, dim=3, patch=14))
    x, images = torch.randn(2, 16, 3), torch.rand(2, 3, 56, 56)
    z = Zoomed(
        torch.randn(2, 16, 3),
        torch.rand(2, 3, 56, 56),
        crop_windows("half", (56, 56), 2, generator()),
        (56, 56),
    )
    o = Objective(
        w_ncut=0, w_gtv_coarse=0, w_gtv_fine=0, w_sr=1e-12, w_eq=1.0, eq_params={"radius": 2},
        reduction="mean", reduction_sr="mean",
    )  # fmt: skip
    net.eval()  # batch statistics would tie the target to the weights a second way
    got = loss(Pass(net), o, x, images, (4, 4), branches="joint", meter=Meter(), epoch=1, zoomed=z)
    got.backward()
    ours = {k: p.grad.clone() for k, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    with torch.no_grad():
        teacher = net(z.x, z.images, (4, 4))
    o.consistency(net(x, images, (4, 4)), Masks(teacher.coarse, teacher.fine), z)["total"].backward()
    for k, p in net.named_parameters():
        if k in ours:
            want = torch.zeros_like(p) if p.grad is None else p.grad
            assert torch.allclose(ours[k], want, atol=1e-7), k
    assert sum(g.abs().sum() for g in ours.values()) > 0


# --- training ------------------------------------------------------------------------------------------


def test_a_training_with_windows_learns_logs_and_resumes(tmp_path):
    whole = train(pictures(8), ColourBackbone(), out=tmp_path / "a", epochs=4, crops_each=2, **LATER)
    assert "ncut_crop" in whole.log[0] and "eq" not in whole.log[0]
    assert {"ncut_crop", "eq"} <= set(whole.log[2]) and "held_out_eq" not in whole.log[2]
    assert whole.log[-1]["ncut"] < whole.log[0]["ncut"]
    assert whole.model.about["crop"] == "half"
    train(pictures(8), ColourBackbone(), out=tmp_path / "b", epochs=3, crops_each=2, **LATER)
    rest = train(
        pictures(8), ColourBackbone(), out=tmp_path / "b", epochs=4, crops_each=2, resume=True, **LATER
    )
    same(whole.model, rest.model)
    plain = train(pictures(8), ColourBackbone(), out=tmp_path / "c", epochs=4, **{**LATER, "crop": None})
    assert not torch.equal(weights(plain.model), weights(whole.model))


def test_weights_that_have_no_say_do_not_train_anew():
    first = train(pictures(), ColourBackbone(), epochs=1, steps=2, **{**JOINT, "crop": None})
    plain = {**JOINT, "crop": None, "objective": Objective.preset("compact")}
    assert train(pictures(), ColourBackbone(), epochs=1, steps=2, **plain).key == first.key
    assert train(pictures(), ColourBackbone(), epochs=1, steps=2, **JOINT).key != first.key


@pytest.mark.parametrize("name", ["paper", "native"])
def test_a_set_keeps_windows_and_their_features(name):
    data = load_training_set(pictures(5), ColourBackbone(), size=112, crop=name, crops_each=3, batch=2)
    crops = data.crops
    whole = load_training_set(pictures(5), ColourBackbone(), size=112, crop=name, crops_each=3, batch=5)
    assert torch.equal(whole.crops.windows, crops.windows)
    assert crops.each == 3 and crops.x.shape[:2] == (5, 3) and crops.images.shape == (5, 3, 3, 112, 112)
    assert len({tuple(w) for w in crops.windows.flatten(0, 1).tolist()}) > 5
    index = torch.tensor([3, 0])
    z = crops.batch(index, 7, torch.device("cpu"))
    assert z.images.max() <= 1 and torch.equal(z.windows, crops.batch(index, 7, torch.device("cpu")).windows)
    f = ColourBackbone().extract(z.images)
    assert (f.x - z.x).abs().max() < 5e-3  # pixels in 8 bit, features in half precision
    again = crop_zoom(data.images[index].float() / 255, z.windows)
    near = (again - z.images).abs().mean()
    assert near < 4e-3 if name == "paper" else near < 0.05  # native interpolates other pixels
    assert crops.batch(index, 7, torch.device("cpu"), pixels=False).images is None


def test_new_windows_of_augmented_photographs(tmp_path):
    images = torch.rand(3, 3, 112, 112, generator=generator())
    z = fresh_crops(images, ColourBackbone(), "tokens@0", "half", 5)
    assert torch.equal(z.images, crop_zoom(images, z.windows)) and z.x.shape == (3, 64, 3)
    net = ColourBackbone()
    done = train(pictures(), net, out=tmp_path / "a", epochs=1, steps=4, augment="flip", cache=False, **JOINT)
    assert "eq" in done.log[0] and net.seen == 16 + 2 * 15


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": "quarter"}, "unknown crop"),
        ({"objective": "refined"}, "--recipe compact"),
        ({"branches": "fine"}, "branches='fine'"),
        ({"crop": "native", "augment": "flip"}, "crop='half'"),
        ({"crops_each": 0}, "crops_each"),
        ({"branches": "coarse", "objective": Objective.preset("compact", w_ncut_crop=0.0)}, "no fine mask"),
    ],
)
def test_bad_arguments(tmp_path, changes, words):
    with pytest.raises(SempartError, match=words):
        train(pictures(), ColourBackbone(), out=tmp_path / "a", epochs=1, **{**JOINT, **changes})


def test_photographs_without_windows_are_refused(tmp_path):
    data = load_training_set(pictures(), ColourBackbone(), size=112)
    with pytest.raises(SempartError, match="crop='half', crops_each=1"):
        train(data, ColourBackbone(), out=tmp_path / "a", epochs=1, **JOINT)


def test_the_recipe_of_the_paper():
    r = recipe("two_tricks")
    assert (r["crop"], r["augment"], r["optimiser"], r["epochs"], r["lr"]) == (
        "paper", "sempart_star", "sempart_star", 30, 1e-4,
    )  # fmt: skip
    base = recipe("sempart_star")
    assert {k: v for k, v in r.items() if k != "crop"} == base
    assert Objective.preset(r["objective"], tau=0.4).tau == 0.4


# --- several processes, and the command ----------------------------------------------------------------

RANK = """
import pathlib, sys
tests, folder, place = map(pathlib.Path, sys.argv[1:])
sys.path.insert(0, str(tests))
from ranks import note_each_step; note_each_step(place)
from test_multiscale import TOGETHER
from sempart_core.train import train
for name, options in TOGETHER.items():
    train(folder, "test_colour", out=place / name, **options)
import torch
torch.distributed.destroy_process_group()
"""
#: Fixed windows, with and without epochs of the coarse branch alone, and new windows at each step.
TOGETHER = {
    "later": {**JOINT, "size": 56, "lr": 1e-3, "epochs": 2, "coarse_epochs": 1},
    "joint": {**JOINT, "size": 56, "lr": 1e-3, "epochs": 1},
    "fresh": {**JOINT, "size": 56, "lr": 1e-3, "epochs": 2, "coarse_epochs": 1, "augment": "flip"},
}


def test_two_processes_share_the_windows(tmp_path):
    folder = photographs(tmp_path / "photos")
    (tmp_path / "rank.py").write_text(RANK)
    on_two_processes(tmp_path / "rank.py", pathlib.Path(__file__).parent, folder, tmp_path)
    first, second = ((tmp_path / rank).read_text().split() for rank in "01")
    assert len(first) == 4 + 2 + 4 and first == second and len(set(first)) == 10
    # The coarse branch has no batch normalisation: its gradients, averaged, are that of the whole batch.
    alone = train(folder, NAME, out=tmp_path / "one", **TOGETHER["later"])
    a, b = weights(load_head(alone.epoch_heads[0])), weights(load_head(head_of(tmp_path / "later", 1)))
    assert torch.allclose(a, b, atol=1e-5)
    plain = train(folder, NAME, out=tmp_path / "two", **{**TOGETHER["later"], "crop": None})
    assert not torch.allclose(weights(load_head(plain.epoch_heads[0])), a, atol=1e-4)


def test_the_command_trains_with_windows(tmp_path):
    folder = photographs(tmp_path / "photos")
    options = ["--backbone", NAME, "--size", 56, "--steps", 2, "--device", "cpu", "--recipe", "two_tricks"]
    done = run("--images", folder, "--out", tmp_path / "t", *options, "--crop", "half")
    assert done.exit_code == 0, done.output
    assert "ncut_crop" in done.output and " eq " in done.output
    assert load_head(tmp_path / "t" / "head.safetensors").about["crop"] == "half"
    done = run("--images", folder, "--out", tmp_path / "u", *options, "--crop", "native")
    assert done.exit_code == 2 and "crop='half'" in done.output
