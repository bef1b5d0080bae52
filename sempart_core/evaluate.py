"""One loop for every method and data set: photograph, features, prediction, mask, metric, record."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, is_dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from . import foreground as strategies
from . import metrics
from . import refine as refiners
from .backbones import BACKBONES, Backbone, load_backbone
from .errors import SempartError, UnreadableError
from .evaluation import Evaluation
from .extraction import Progress, extract, extract_dataset
from .features import Features
from .images import to_tensor
from .methods import METHODS, Method, Prediction
from .records import list_hash, versions

if TYPE_CHECKING:
    from .samples import Dataset, Sample

__all__ = ["Evaluation", "build_method", "evaluate", "extract", "extract_dataset"]


def build_method(name: str, *, foreground: str | None = None, variant: str | None = None, **params) -> Method:
    """A registered method; parameters that are None are left to its defaults.

    Raises
    ------
    SempartError
        Unknown method, strategy or variant, or a parameter this method does not have.
    """
    factory = METHODS[name]
    given = {"foreground": foreground, "variant": variant, **params}
    given = {k: v for k, v in given.items() if v is not None}
    if foreground is not None:
        strategies.STRATEGIES[foreground]
    has = inspect.signature(factory).parameters
    for key in given:
        if key not in has:
            known = ", ".join(k for k in has if k not in ("backbone", "changes", "self"))
            raise SempartError(f"method {name!r} has no parameter {key!r}; it has: {known}")
    return factory(**given)


@torch.no_grad()
def evaluate(
    dataset: Dataset | Sequence[Sample],
    method: Method | str,
    backbone: Backbone | str | None = None,
    *,
    size: int | None = None,
    preset: str = "tokencut",
    foreground: str | None = None,
    refine: str | None = None,
    refine_params: dict | None = None,
    resample: str = "bilinear",
    box_rule: str | None = None,
    feature: str | None = None,
    tau: float | None = None,
    variant: str | None = None,
    params: dict | None = None,
    features: Sequence[Features] | None = None,
    batch: int = 16,
    cache: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
    skip: Callable[[str], None] | None = None,
) -> Evaluation:
    """Measure a method on a data set.

    The prediction is interpolated to the size of the photograph, refined there if asked, and binarised
    where the metric preset says so. Only one batch is in memory at a time.

    Parameters
    ----------
    dataset : sequence of Sample
        With masks, boxes or both.
    method : Method or str
        A name is built with ``foreground``, ``variant`` and ``params``.
    backbone : Backbone or str, optional
        Not needed with ``features``; then only named in the provenance.
    size : int, optional
        Side of the network's square input in pixels; by default what the method was trained on, else 224.
    preset : str
        Metric preset of :data:`sempart_core.metrics.PRESETS`.
    refine : str, optional
        Name in :data:`sempart_core.refine.REFINERS`, with ``refine_params``. A box that the method does not
        draw itself is then that of the refined mask.
    resample : str
        "bilinear", or "nearest" as TokenCut's code enlarges its masks. Interpolation turns a binary mask
        into a soft one at its rim, which raises max F-beta above the F-beta of that mask.
    box_rule : str, optional
        Which component of the mask is boxed where the method draws no box itself, see
        :func:`~sempart_core.corloc.one_box`; by default the method's own rule.
    feature, tau
        Feature ``kind@block`` of the graph and threshold; None for the method's, else the backbone's.
    features : sequence of Features, optional
        From :func:`extract_dataset` on the same data set; nothing is extracted then.
    seed : int
        Of the bootstrap.
    progress : callable, optional
        Wraps the list of batches (``tqdm``).
    skip : callable, optional
        Leave photographs out whose image or mask file cannot be read; it is given a sentence for each,
        and ``provenance["skipped"]`` lists them. None: the first such file stops the measurement, as it
        always does with ``features``.

    Returns
    -------
    Evaluation

    Raises
    ------
    SempartError
        An empty data set, precomputed features of another length, nothing readable, or whatever the
        parts refuse.
    """
    if resample not in ("bilinear", "nearest"):
        raise SempartError(f"resample={resample!r}: choose bilinear or nearest")
    if not len(dataset):
        raise SempartError("the data set holds no photograph; check its folder and list")
    name = method if isinstance(method, str) else _name_of(method)
    if isinstance(method, str):
        method = build_method(method, foreground=foreground, variant=variant, **(params or {}))
    elif foreground or variant or params:
        raise SempartError(
            "foreground, variant and params belong to a method given by name; build yours with them"
        )
    pixels = method.reads_pixels and features is None
    if pixels:  # no backbone takes part, so none is named in the provenance
        method.check_size(size)
        backbone, size = None, None
    backbone = load_backbone(backbone) if isinstance(backbone, str) else backbone
    if features is None and backbone is None and not pixels:
        raise SempartError("evaluate needs a backbone, or features extracted before; pass one of them")
    method.check(backbone.name if backbone else None, feature, tau)
    size = method.default_size if size is None else size
    if features is not None and sum(map(len, features)) != len(dataset):
        raise SempartError(
            f"{sum(map(len, features))} features for {len(dataset)} photographs; extract them from this data set"
        )
    box_rule, ruled = box_rule or method.box_rule, False
    meter, names, boxes, foreground_seen = metrics.Meter(preset), [], [], False
    clock = dict.fromkeys(("extract", "predict", *(["refine"] if refine else [])), 0.0)
    parts = features if features is not None else [None] * -(-len(dataset) // batch)
    f, start, skipped = None, 0, []
    for part in progress(parts) if progress else parts:
        stop = min(start + (batch if part is None else len(part)), len(dataset))
        samples = list(_readable(dataset, range(start, stop), skip if part is None else None, skipped))
        start = stop
        if not samples:
            continue
        with _timed(clock, "extract"):
            if part is None:
                x = to_tensor([s.image for s in samples], size)
                layer = feature or method.default_feature
                if pixels:
                    f = Features.of_pixels(x)
                else:
                    f = extract(backbone, x, feature=layer, tau=tau, policy=method.policy, cache=cache)
            else:
                own = method.default_feature if method.default_feature in part.layers else None
                f = _choose(part, backbone, feature or own, tau)
        with _timed(clock, "predict"):
            prediction = method.predict(f)
        ruled |= prediction.boxes is None
        for i, sample in enumerate(samples):
            names.append(sample.name)
            with _timed(clock, "refine"):
                soft = _soft(prediction[i], sample.image, refine, refine_params or {}, resample)
            refined = None if refine is None else soft
            box, gt = _box(prediction[i], sample.image.shape[:2], box_rule, refined), sample.boxes
            boxes.append((box, None if gt is None else np.asarray(gt, float)))
            if sample.mask is None:
                continue
            foreground_seen |= bool(sample.mask.any())
            try:
                meter.update(soft, sample.mask, sample.void)
            except SempartError as e:
                raise SempartError(f"{sample.name}: {e}") from e
    if not names:
        raise SempartError(
            f"none of the {len(dataset)} photographs could be read; check the files named above"
        )
    if len(meter) and not foreground_seen:
        raise SempartError(
            "no mask of this data set has any foreground; if the files are label maps, give the label to "
            "ignore (void=255, on the command line --void 255)"
        )
    means, ci95, per_image = _summary(meter, boxes, seed)
    hashed = list_hash(names) if skipped else getattr(dataset, "list_hash", None) or list_hash(names)
    own = {k: _plain(v) for k, v in vars(method).items() if k not in ("backbone", "tau") and k[0] != "_"}
    return Evaluation(
        names=tuple(names),
        per_image=per_image,
        metrics=means,
        ci95=ci95,
        seconds={k: v / len(names) for k, v in clock.items()},
        provenance={
            **_read(method, backbone, f),
            "size": size if features is None else f.size[0] if f.size[0] == f.size[1] else list(f.size),
            "method": name,
            "params": own,
            "metric": preset,
            "foreground": getattr(method, "foreground", None),
            "refine": refine,
            "refine_params": refine_params or {},
            "resample": resample,
            "box_rule": box_rule if ruled else None,
            "kind": _kind(method, backbone, f),
            "dataset": getattr(dataset, "name", ""),
            "list_hash": hashed,
            "skipped": skipped,
            "device": str(f.x.device),
            "versions": versions(),
            "seed": seed,
        },
    )


def _read(method: Method, backbone: Backbone | None, f: Features) -> dict:
    """Backbone, feature and threshold that had a say in the numbers."""
    if method.reads_pixels:  # also where it was given the pixels behind features
        return {"backbone": "", "sha256": "", "feature": "", "tau": None}
    own = getattr(method, "tau", None)
    return {
        "backbone": backbone.name if backbone else f.name.split("/")[0],
        "sha256": backbone.sha256 if backbone else "",
        "feature": f.name.split("/")[-1],
        "tau": f.tau if own is None and not method.own_tau else own,
    }


def _readable(
    dataset: Sequence[Sample], indices: range, skip: Callable[[str], None] | None, skipped: list[str]
) -> Iterator[Sample]:
    """The samples whose files can be read; the names of the others go to ``skipped``."""
    for i in indices:
        try:
            yield dataset[i]
        except UnreadableError as e:
            if skip is None:
                raise
            skip(str(e))
            skipped.append(getattr(dataset, "names", range(len(dataset)))[i])


@contextlib.contextmanager
def _timed(clock: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    if step in clock:
        clock[step] += time.perf_counter() - start


def _kind(method: Method, backbone: Backbone | None, f: Features) -> str:
    """What the method was trained with; "label-tuned" where labels had a say in its layer or threshold."""
    if method.kind:
        return method.kind
    name, _, layer = f.name.partition("/")
    if not method.uses_features or (backbone is None and name not in BACKBONES):
        return "unsupervised"
    extra = (BACKBONES.card(name) if backbone is None else backbone.card).extra
    layer = layer.removesuffix("-centred")
    tuned = str(extra.get("defaults_from", "")).startswith("label-tuned") and layer in extra.get("taus", {})
    return "label-tuned" if tuned else "unsupervised"


def _choose(f: Features, backbone: Backbone | None, feature: str | None, tau: float | None) -> Features:
    """The asked-for layer of precomputed features, with its threshold."""
    if backbone is not None:
        if f.name and f.name.split("/")[0] != backbone.name:
            raise SempartError(
                f"features of {f.name.split('/')[0]!r} were given with the backbone {backbone.name!r}; give the one "
                "that made them"
            )
        f = f.to(backbone.device)
    if feature is not None and f.name.split("/")[-1] != feature:
        f = f.select(feature, backbone.tau(feature) if backbone else None)
    return f if tau is None else replace(f, tau=tau)


def _soft(
    prediction: Prediction, image: np.ndarray, refine: str | None, params: dict, resample: str
) -> np.ndarray:
    """Soft mask ``H x W`` at the size of the photograph."""
    soft = prediction.resize(image.shape[:2], resample).soft.cpu()
    if refine is not None:
        soft = refiners.refine(refine, soft, to_tensor([image]), **params)
    return soft[0].cpu().numpy()


def _box(
    prediction: Prediction, size: tuple[int, int], rule: str, refined: np.ndarray | None
) -> np.ndarray | None:
    """The method's own box, else that of the component which the rule chooses, in pixels of the photograph."""
    full = prediction.resize(size)
    if full.boxes is not None:
        return full.boxes[0].cpu().numpy()
    return metrics.one_box(full.mask[0].cpu().numpy() if refined is None else refined > 0.5, rule)


def _summary(meter: metrics.Meter, boxes: list, seed: int) -> tuple[dict, dict, dict]:
    """Means, intervals and per-image arrays of masks and boxes, whichever there are."""
    means, ci95, per_image = {}, {}, {}
    if len(meter):
        m = meter.compute(seed=seed)
        for k in ("iou", "acc", "max_f"):
            means[k], ci95[k], per_image[k] = m[k], m["ci95"][k], m["per_image"][k]
    found, true = zip(*boxes, strict=True)
    if any(t is not None and len(t) for t in true):
        for k, rule in (("corloc", ">="), ("corloc_gt", ">")):
            c = metrics.corloc(found, true, rule=rule, seed=seed)
            means[k], ci95[k], per_image[k] = c["corloc"], c["ci95"]["corloc"], c["per_image"]["hit"]
    if not means:
        raise SempartError("the data set has neither masks nor boxes; there is nothing to measure against")
    return means, ci95, per_image


def _name_of(method: Method) -> str:
    """The registered name of a method object, else that of its class."""
    return next((k for k in METHODS if METHODS[k] is type(method)), type(method).__name__)


def _plain(value: object) -> object:
    """A parameter as JSON can hold it."""
    if is_dataclass(value):
        return asdict(value)
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
