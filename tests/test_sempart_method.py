"""A head as a method: soft masks, the side that is the object, and features that do not fit."""

import pytest
import torch
from colour_backbone import ColourBackbone, scene
from torch import nn

from sempart_core import Features, SempartError
from sempart_core.evaluate import evaluate
from sempart_core.images import to_tensor
from sempart_core.methods import METHODS
from sempart_core.models import Sempart, SempartConfig
from sempart_core.samples import Sample


class Red(Sempart):
    """No training: the first feature (red) is the logit, times ``sign``."""

    def __init__(self, sign=1.0, **about):
        super().__init__(SempartConfig(dim=3, patch=14, width=8, dim_head=4, mlp=8, blocks=(8,)), about)
        self.sign = nn.Parameter(torch.tensor(sign))

    def logits(self, x, images=None, grid=None, detach=False):
        coarse = self.sign * 20 * x[..., 0].unflatten(1, grid)
        fine = None if images is None else self.sign * 20 * (images[:, 0] - 0.5)
        return type(super().logits(x, None, grid))(coarse, fine)


def features(**options):
    image, mask = scene(**options)
    return ColourBackbone().extract(to_tensor([image])), torch.from_numpy(mask)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_object_is_the_side_with_fewer_corners_whatever_the_network_calls_it(sign):
    f, mask = features()
    coarse = METHODS["sempart"](head=Red(sign), branch="coarse").predict(f)
    assert torch.equal(coarse.mask[0], mask[7::14, 7::14])
    fine = METHODS["sempart"](head=Red(sign)).predict(f)
    assert torch.equal(fine.mask[0], mask)
    for p in (coarse, fine):
        assert torch.equal(p.mask, p.soft > 0.5)
        assert 0 <= p.soft.min() and p.soft.max() <= 1
        assert p.resize((60, 80)).mask.shape == (1, 60, 80)


def test_without_a_rule_the_networks_own_side_stays():
    f, mask = features()
    p = METHODS["sempart"](head=Red(-1.0), branch="coarse", foreground=None).predict(f)
    assert torch.equal(p.mask[0], ~mask[7::14, 7::14])


def test_a_saved_head_gives_the_same_and_stays_as_it_was(tmp_path):
    torch.manual_seed(0)
    model = Sempart(SempartConfig(dim=3, patch=14, width=8, dim_head=4, mlp=8, blocks=(8,))).train()
    path = model.save(tmp_path / "h.safetensors")
    f, _ = features()
    for branch in ("coarse", "fine"):
        a = METHODS["sempart"](head=model, branch=branch)
        b = METHODS["sempart"](head=path, branch=branch)
        assert torch.equal(a.predict(f).soft, b.predict(f).soft)
        assert a.head == b.head and len(a.head) == 12
    assert model.training


def fresh():
    """A network whose running statistics are not those of any photograph."""
    torch.manual_seed(0)
    return Sempart(SempartConfig(dim=3, patch=14, width=8, dim_head=4, mlp=8, blocks=(8,)))


def together(*scenes):
    return ColourBackbone().extract(to_tensor([scene(**options)[0] for options in scenes]))


def test_batch_statistics_are_those_of_the_training_mode_and_leave_the_network_as_it_was():
    f, model = together({}, {"box": (0, 0, 100, 108), "noise": 60}), fresh().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    run, own = (
        METHODS["sempart"](head=model, foreground=None, batch_norm=k).predict(f).soft
        for k in ("running", "batch")
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m.training for m in model.modules())
    assert all(m.track_running_stats for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert not torch.allclose(own, run, atol=1e-3)
    with torch.no_grad():
        model.train()
        torch.testing.assert_close(own, model(f.x, f.images, f.grid).fine)


def test_with_batch_statistics_a_mask_depends_on_the_photographs_beside_it():
    f, model = together({}, {"box": (0, 0, 100, 108), "noise": 60}), fresh()
    for kind, alike in (("running", True), ("batch", False)):
        method = METHODS["sempart"](head=model, foreground=None, batch_norm=kind)
        alone, beside = method.predict(f[0]).soft[0], method.predict(f).soft[0]
        assert torch.allclose(alone, beside, atol=1e-5) == alike, kind


class Uneven(Red):
    """Sure of the object, grey elsewhere: less than half of the pixels, but a mean above 1/2."""

    def logits(self, x, images=None, grid=None, detach=False):
        out = super().logits(x, images, grid)
        return out._replace(coarse=torch.where(out.coarse > 0, 5.0, -0.1))


def test_a_whole_batch_is_inverted_by_its_soft_mean():
    f = together({}, {})
    own, chosen = (METHODS["sempart"](head=Uneven(), branch="coarse", foreground=k).predict(f)
                   for k in (None, "batch-mean"))  # fmt: skip
    assert own.mask.float().mean() < 0.5 < own.soft.mean()
    assert torch.equal(chosen.mask, ~own.mask)
    method = METHODS["sempart"](head=Red(), branch="coarse", foreground="batch-mean")
    flipped = METHODS["sempart"](head=Red(-1.0), branch="coarse", foreground="batch-mean")
    assert method.predict(f).soft.mean() < 0.5
    assert torch.equal(method.predict(f).mask, flipped.predict(f).mask)


def test_evaluation_names_the_head_without_its_path(tmp_path):
    image, mask = scene()
    method = METHODS["sempart"](head=Red())
    found = evaluate([Sample("a", image, mask)] * 2, method, ColourBackbone(), size=112, cache=False)
    assert found.metrics["iou"] > 0.9
    assert found.provenance["method"] == "sempart"
    assert found.provenance["params"] == {
        "batch_norm": "running",
        "branch": "fine",
        "foreground": "least-corners",
        "head": method.head,
        "head_name": None,
    }


def test_features_of_another_layer_are_chosen_or_refused():
    net, (image, mask) = ColourBackbone(), scene()
    method = METHODS["sempart"](head=Red(backbone=net.name, feature="tokens@0"), branch="coarse")
    both = net.extract(to_tensor([image]), layers=["keys@0", "tokens@0"])
    assert torch.equal(method.predict(both).mask[0], torch.from_numpy(mask[7::14, 7::14]))
    with pytest.raises(SempartError, match="trained on test_colour/tokens@0, these features are"):
        method.predict(net.extract(to_tensor([image]), layers=["keys@0"]))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: METHODS["sempart"](head=Red(), branch="middle"), "coarse, fine"),
        (lambda: METHODS["sempart"](head=Red(), foreground="x"), "least-corners"),
        (lambda: METHODS["sempart"](head=Red(), batch_norm="train"), "running, batch"),
        (lambda: METHODS["sempart"](head="nowhere.safetensors"), "no such file"),
        (
            lambda: METHODS["sempart"](head=Red(branches="coarse"), branch="fine"),
            "without its fine.*'coarse'",
        ),
        (
            lambda: METHODS["sempart"](head=Red(branches="fine"), branch="coarse"),
            "without its coarse.*'fine'",
        ),
        (lambda: METHODS["sempart"](head=Red(size="large")).default_size, "size='large'.*no number"),
        (
            lambda: METHODS["sempart"](head=Red(), branch="fine").predict(
                Features(torch.ones(1, 4, 3), (2, 2))
            ),
            "pixels",
        ),
        (
            lambda: METHODS["sempart"](
                head=Sempart(SempartConfig(dim=5, width=8, heads=1, dim_head=4, mlp=8)), branch="coarse"
            ).predict(Features(torch.ones(1, 4, 3), (2, 2))),
            "do not fit this network",
        ),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(SempartError, match=words):
        make()
