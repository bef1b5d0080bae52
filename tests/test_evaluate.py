"""The evaluation loop: right numbers at the right resolution, whatever way the features come."""

import dataclasses
import math

import colour_backbone
import numpy as np
import pytest
import torch
from colour_backbone import ColourBackbone, scene

from sempart_core import SempartError
from sempart_core.evaluate import build_method, evaluate, extract_dataset
from sempart_core.extraction import of_photograph, predictions_of
from sempart_core.images import to_tensor
from sempart_core.methods import METHODS, Method, Prediction
from sempart_core.metrics import evaluate_masks
from sempart_core.samples import Sample

colour_backbone.register()


def samples(n=5) -> list[Sample]:
    out = []
    for i in range(n):
        # sizes that differ, one of them no multiple of the patch; edges that fall between patches
        box = (20 + 7 * i, 30, 70 + 5 * i, 90)
        image, mask = scene(112 + 14 * (i % 2), 126 + i, box, seed=i)
        out.append(Sample(f"p{i}", image, mask, boxes=np.array([box], float)))
    return out


def test_numbers_are_those_of_the_steps_done_by_hand():
    data, net, method = samples(), ColourBackbone(), METHODS["tokencut"](foreground="least-corners")
    softs = []
    for s in data:
        f = net.extract(to_tensor([s.image], 112))
        softs.append(method.predict(f).resize(s.mask.shape).soft[0].numpy())
    want = evaluate_masks(softs, [s.mask for s in data])
    got = evaluate(data, "tokencut", net, size=112, foreground="least-corners", batch=2, cache=False)
    for k in ("iou", "acc", "max_f"):
        assert got.metrics[k] == pytest.approx(want[k], abs=1e-6)
        assert got.ci95[k] == pytest.approx(want["ci95"][k], abs=1e-6)
        np.testing.assert_allclose(got.per_image[k], want["per_image"][k], atol=1e-6)
    assert 0.6 < got.metrics["iou"] < 1 and got.n == 5
    assert got.names == tuple(s.name for s in data)
    assert got.seconds["predict"] > 0


def test_precomputed_features_give_the_same_and_extract_nothing():
    data, net = samples(), ColourBackbone()
    feats = extract_dataset(data, net, 112, ["tokens@0", "keys@0"], batch=2, cache=False)
    assert [len(f) for f in feats] == [2, 2, 1] and net.seen == 5
    kw = dict(size=112, cache=False)
    for feature in ("tokens@0", "keys@0"):
        a = evaluate(data, "tokencut", net, feature=feature, features=feats, **kw)
        b = evaluate(data, "tokencut", ColourBackbone(), feature=feature, **kw)
        assert a.metrics == b.metrics
        assert a.provenance["tau"] == b.provenance["tau"] == net.tau(feature)
        assert a.provenance["feature"] == b.provenance["feature"] == feature
    assert net.seen == 5


def test_batches_do_not_change_numbers():
    runs = [evaluate(samples(), "tokencut", ColourBackbone(), size=112, batch=b, cache=False) for b in (1, 5)]
    assert runs[0].metrics == pytest.approx(runs[1].metrics)


def test_only_a_batch_of_photographs_is_read_at_a_time():
    class Lazy(list):
        alive = 0

        def __getitem__(self, i):
            Lazy.alive += 1
            return super().__getitem__(i)

    counts = []
    data = Lazy(samples(6))

    def watch(parts):
        for p in parts:
            counts.append(Lazy.alive)
            yield p

    evaluate(data, "tokencut", ColourBackbone(), size=56, batch=2, cache=False, progress=watch)
    assert counts == [0, 2, 4] and Lazy.alive == 6


def test_void_pixels_do_not_count():
    data = []
    for s in samples(2):
        void = np.zeros_like(s.mask)
        void[:, -40:] = True
        data.append(dataclasses.replace(s, void=void, mask=s.mask | void))  # nonsense under void
    ignored = evaluate(data, "tokencut", ColourBackbone(), size=112, cache=False)
    data = [dataclasses.replace(s, void=None) for s in data]
    counted = evaluate(data, "tokencut", ColourBackbone(), size=112, cache=False)
    assert ignored.metrics["iou"] > 0.7 > counted.metrics["iou"]


def test_boxes_are_scored_in_pixels_of_the_photograph():
    r = evaluate(samples(), "tokencut", ColourBackbone(), size=112, cache=False)
    assert r.metrics["corloc"] == 1 and r.per_image["corloc"].dtype == bool

    class Half(Method):  # a box of exactly half the true area: the two rules differ
        def from_features(self, f):
            m = torch.zeros(len(f), *f.grid, dtype=torch.bool)
            return Prediction(
                m.float(), m, boxes=torch.tensor([[0.0, 0, 56, 112]]).repeat(len(f), 1), size=f.size
            )

    image, mask = scene(112, 112)
    one = [Sample("a", image, mask, boxes=np.array([[0.0, 0, 112, 112]]))]
    r = evaluate(one, Half(), ColourBackbone(), size=112, cache=False)
    assert r.metrics["corloc"] == 1 and r.metrics["corloc_gt"] == 0


def test_boxes_alone_are_enough_and_nothing_is_not():
    data = [dataclasses.replace(s, mask=None) for s in samples(2)]
    assert set(evaluate(data, "tokencut", ColourBackbone(), size=112, cache=False).metrics) == {
        "corloc",
        "corloc_gt",
    }
    data = [dataclasses.replace(s, boxes=None) for s in data]
    with pytest.raises(SempartError, match="neither masks nor boxes"):
        evaluate(data, "tokencut", ColourBackbone(), size=112, cache=False)


def test_refinement_sees_the_photograph_and_sharpens_the_mask():
    plain = evaluate(samples(), "tokencut", ColourBackbone(), size=112, cache=False)
    better = evaluate(samples(), "tokencut", ColourBackbone(), size=112, refine="guided", cache=False)
    assert better.metrics["iou"] > plain.metrics["iou"]
    assert "refine" in better.seconds and "refine" not in plain.seconds


def test_interpolation_is_a_choice_with_a_name():
    data = samples()
    kw = dict(size=112, foreground="least-corners", cache=False)
    smooth = evaluate(data, "tokencut", ColourBackbone(), **kw)
    cells = evaluate(data, "tokencut", ColourBackbone(), resample="nearest", **kw)
    # copied cells are 0 or 1 everywhere, so every threshold gives the same mask
    assert smooth.metrics["max_f"] > cells.metrics["max_f"]
    assert cells.provenance["resample"] == cells.records("t", "r")[0].params["resample"] == "nearest"
    with pytest.raises(SempartError, match="bilinear or nearest"):
        evaluate(data, "tokencut", ColourBackbone(), resample="cubic", **kw)


def test_provenance_and_records():
    r = evaluate(
        samples(), "deep-spectral", ColourBackbone(), size=112, variant="code", preset="selfmask", seed=3,
        cache=False,
    )  # fmt: skip
    p = r.provenance
    assert p["backbone"] == colour_backbone.NAME and p["sha256"] == "0" * 64
    assert p["method"] == "deep-spectral" and p["params"]["variant"]["lambda_knn"] == 0
    assert p["metric"] == "selfmask" and p["size"] == 112 and p["seed"] == 3 and len(p["list_hash"]) == 12
    assert "torch" in p["versions"]
    rows = {x.metric: x for x in r.records("saliency", "DSM", dataset="demo", notebook="a", profile="smoke")}
    assert set(rows) == {"iou", "acc", "max_f", "corloc", "corloc_gt"}
    assert rows["iou"].value == r.metrics["iou"] and rows["iou"].ci == r.ci95["iou"] and rows["iou"].n == 5
    assert rows["max_f"].preset == "selfmask" and rows["corloc"].preset == "corloc_ge"
    assert rows["iou"].params["feature"] == "tokens@0" and rows["iou"].profile == "smoke"
    assert [x.metric for x in r.records("t", "r", only=["acc"], dataset="demo")] == ["acc"]


@pytest.mark.parametrize(
    "kw, sentence",
    [
        ({"method": "tokenhack"}, "unknown method 'tokenhack'"),
        ({"preset": "f1"}, "unknown metric preset 'f1'"),
        ({"foreground": "biggest"}, "'biggest'"),
        ({"variant": "paper"}, "no parameter 'variant'"),
        ({"feature": "keys@9"}, "keys@9"),
        ({"refine": "sharpen"}, "'sharpen'"),
        ({"backbone": None}, "needs a backbone"),
        ({"features": []}, "0 features for 2 photographs"),
    ],
)
def test_bad_input_is_named(kw, sentence):
    given = {"method": "tokencut", "backbone": ColourBackbone(), "size": 56, "cache": False, **kw}
    with pytest.raises(SempartError, match=sentence):
        evaluate(samples(2), given.pop("method"), given.pop("backbone"), **given)


def test_an_empty_data_set_and_a_method_with_two_minds():
    with pytest.raises(SempartError, match="no photograph"):
        evaluate([], "tokencut", ColourBackbone())
    with pytest.raises(SempartError, match="given by name"):
        evaluate(samples(1), build_method("tokencut"), ColourBackbone(), foreground="framing")


def test_metrics_are_finite_when_nothing_is_found():
    class Nothing(Method):
        def from_features(self, f):
            m = torch.zeros(len(f), *f.grid, dtype=torch.bool)
            return Prediction(m.float(), m, size=f.size)

    r = evaluate(samples(2), Nothing(), ColourBackbone(), size=112, cache=False)
    assert r.metrics["iou"] == 0 and r.metrics["corloc"] == 0
    assert all(math.isfinite(v) for v in r.metrics.values())


def test_labels_that_touched_the_defaults_are_told():
    net = ColourBackbone()
    extra = {**net.card.extra, "defaults_from": "label-tuned: by hand", "taus": {net.default_layer: 0.5}}
    net.card = dataclasses.replace(net.card, extra=extra)
    kw = dict(size=112, cache=False)
    tuned = evaluate(samples(), "tokencut", net, **kw)
    assert tuned.records("t", "r")[0].kind == "label-tuned"
    assert evaluate(samples(), "tokencut", ColourBackbone(), **kw).records("t", "r")[0].kind == "unsupervised"
    # the attention of CLS was not chosen by anybody
    assert evaluate(samples(), "dino-seg", net, **kw).records("t", "r")[0].kind == "unsupervised"


def test_features_and_backbone_must_belong_together():
    data, net = samples(), ColourBackbone()
    feats = extract_dataset(data, net, 112, cache=False)
    net.name = "another"
    with pytest.raises(SempartError, match="that made them"):
        evaluate(data, "tokencut", net, features=feats, size=112)


def test_records_carry_the_parameters_of_the_refinement():
    run = evaluate(
        samples(2), "tokencut", ColourBackbone(), size=112, cache=False,
        refine="bilateral", refine_params={"sigmas": [2, 2, 2]},
    )  # fmt: skip
    assert run.records("t", "r")[0].params["refine_params"] == {"sigmas": [2, 2, 2]}


class TwoParts(Method):
    """A compact block of most cells, and a thin frame corner with the larger box."""

    uses_features = False

    def from_features(self, f):
        mask = torch.zeros(len(f), 8, 8, dtype=torch.bool)
        mask[:, :4, :4] = True
        mask[:, 7, :] = mask[:, 1:, 7] = True
        return Prediction(soft=mask.float(), mask=mask, size=f.size)


def test_the_box_is_that_of_the_component_the_rule_chooses():
    image = np.zeros((112, 112, 3), np.uint8)
    compact, thin = [[0, 0, 56, 56]], [[0, 14, 112, 112]]
    for box, rule, hit in (
        (compact, None, 1),
        (thin, None, 0),
        (compact, "largest-box", 0),
        (thin, "largest-box", 1),
    ):
        data = [Sample("p", image, boxes=np.array(box, float))]
        e = evaluate(data, TwoParts(), ColourBackbone(), size=112, cache=False, box_rule=rule)
        assert e.metrics["corloc"] == hit
        (row,) = e.records("t", "r", only=["corloc"])
        assert row.params.get("box_rule") == rule
    with pytest.raises(SempartError, match="largest-box"):
        evaluate(data, TwoParts(), ColourBackbone(), size=112, cache=False, box_rule="smallest")


class Loose(Method):
    """A soft mask that is larger than the object to every side."""

    uses_features = False

    def from_features(self, f):
        soft = torch.zeros(len(f), 112, 112)
        soft[:, 14:98, 14:98] = 0.6
        return Prediction(soft=soft, mask=soft > 0.5, size=f.size)


def test_boxes_follow_the_refined_mask_unless_the_method_draws_them():
    image = np.zeros((112, 112, 3), np.uint8)
    image[28:84, 28:84] = 255
    data = [Sample("p", image, boxes=np.array([[28.0, 28, 84, 84]]))]
    found = {
        refine: evaluate(
            data, method, ColourBackbone(), size=112, cache=False, refine=refine, refine_params=params
        ).metrics["corloc"]
        for refine, method, params in (
            (None, Loose(), None),  # IoU of the boxes .44
            ("guided", Loose(), {"radius": 30, "eps": 1e-3}),
        )
    }
    assert found == {None: 0, "guided": 1}
    own = evaluate(data, OwnBox(), ColourBackbone(), size=112, cache=False, refine="guided")
    assert own.metrics["corloc"] == 0


class OwnBox(TwoParts):
    """Draws its box itself."""

    box_rule = "largest-box"

    def from_features(self, f):
        box = torch.tensor([[0.0, 0.0, 56.0, 56.0]]).repeat(len(f), 1)
        return dataclasses.replace(super().from_features(f), boxes=box)


def test_a_box_rule_is_named_only_where_it_chose_a_box():
    data = [Sample("p", np.zeros((112, 112, 3), np.uint8), boxes=np.array([[0, 0, 56, 56]], float))]
    for method, rule in ((OwnBox(), None), (TwoParts(), "largest-area")):
        e = evaluate(data, method, ColourBackbone(), size=112, cache=False)
        assert e.metrics["corloc"] == 1 and e.provenance["box_rule"] == rule
        assert "box_rule" not in e.records("t", "r", only=["corloc"])[0].params


def test_one_photograph_of_the_batches():
    data, net, method = samples(), ColourBackbone(), METHODS["tokencut"](foreground="least-corners")
    feats = extract_dataset(data, net, 112, batch=2, cache=False)
    found = list(predictions_of(method, data, feats))
    assert [s.name for s, _ in found] == [s.name for s in data]
    for i, (s, p) in enumerate(found):
        alone = net.extract(to_tensor([s.image], 112))
        assert torch.equal(of_photograph(feats, np.int64(i)).x, alone.x)
        assert p.mask.shape[1:] == s.mask.shape and torch.equal(
            p.mask, method.predict(alone).resize(s.mask.shape).mask
        )
    assert len(list(predictions_of(method, data, feats[:1]))) == 2
    for i in (-1, len(data)):
        with pytest.raises(SempartError, match="count from 0"):
            of_photograph(feats, i)
