# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-metrics)=
# # Metrics that share a name
#
# The papers of this field report three numbers: {term}`IoU`, accuracy, and "max $F_\beta$". The names agree, so the numbers
# are copied from table to table. The programs behind them do not agree. This chapter takes one set of predictions,
# hands it to the metric of each public implementation, and watches the number change while the predictions stay the
# same. At the end you can read a table of this literature and say which of its rows may be compared.
#
# What the implementations do was read in their code and reproduced to six digits on fixed inputs: `tests/parity`
# runs `sempart_core.metrics` against the stored outputs of eight of them.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn import functional as F

from sempart_core import SempartError, metrics, plots, refine
from sempart_core.backbones import load_backbone
from sempart_core.datasets import load_dataset
from sempart_core.evaluate import extract_dataset
from sempart_core.images import to_tensor
from sempart_core.methods import METHODS
from sempart_core.notebook import glue, save, start
from sempart_core.records import Record

cfg = start(profile, data_root, device, seed, name="40_metrics_that_share_a_name")

# %% [markdown]
# ## The definitions everybody prints
#
# A prediction gives every pixel $i$ a number $p_i \in [0, 1]$; the ground truth is a set $G$ of pixels. At a threshold $t$ the
# predicted set is $P_t = \{ i : p_i > t \}$, with precision $p(t) = |P_t \cap G| / |P_t|$ and recall
# $r(t) = |P_t \cap G| / |G|$. Then
#
# ```{math}
# :label: eq-iou-acc
# \operatorname{IoU} = \frac{|P_{1/2} \cap G|}{|P_{1/2} \cup G|}, \qquad
# \operatorname{Acc} = \frac{\#\{ i : i \in P_{1/2} \Leftrightarrow i \in G \}}{\#\{ i \}},
# ```
#
# ```{math}
# :label: eq-fbeta
# F_\beta(t) = \frac{(1 + \beta^2)\, p(t)\, r(t)}{\beta^2\, p(t) + r(t)} .
# ```
#
# IoU and accuracy are computed per image and averaged over the images, by everyone. For "max $F_\beta$" there are two
# ways to get from a curve per image to one number, and both are in use:
#
# ```{math}
# :label: eq-max-f
# \underbrace{\max_t \; \frac1n \sum_{k=1}^n F^{(k)}_\beta(t)}_{\text{mean, then max}}
# \;\le\;
# \underbrace{\frac1n \sum_{k=1}^n \max_t F^{(k)}_\beta(t)}_{\text{max, then mean}} .
# ```
#
# The left side chooses one threshold for the whole data set, as a user would have to. The right side lets every image choose
# its own threshold after looking at its ground truth. It cannot be smaller.
#
# ### Which beta?
#
# The papers write "$\beta = 0.3$" ({cite:t}`ravindran2023sempart`, section 4.2; {cite:t}`sari2024twotricks`). The code of TokenCut,
# which they follow, sets $\beta^2 = 0.3$. The code of SelfMask and FOUND stores 0.3 under the name "beta squared" and squares it
# once more, so there $\beta^2 = 0.09$, which is what "$\beta = 0.3$" says literally. A mask that is too large and one
# that is too small show the difference:

# %% tags=["nbval-check-output"]
truth = np.zeros((10, 10), bool)
truth[:4, :5] = True  # 20 pixels
too_large, too_small = np.zeros_like(truth), np.zeros_like(truth)
too_large[:4, :10] = True  # precision 1/2, recall 1
too_small[:4, :2] = True  # precision 1, recall 2/5
for name, mask in (("twice too large", too_large), ("less than half", too_small)):
    f = {k: metrics.evaluate_masks([mask], [truth], k, ci=False)["f_half"] for k in ("tokencut", "selfmask")}
    print(f"{name:16s} beta^2 = .3: {f['tokencut']:.3f}   beta^2 = .09: {f['selfmask']:.3f}")

# %% [markdown]
# With $\beta^2 = 0.09$ the score is nearly the precision. A cautious mask gains, a generous one loses, and nothing was predicted
# differently.
#
# ## Presets
#
# A {term}`preset` holds all the choices of one implementation. Those with the same *family* differ by so little on binary ground
# truth that their numbers may stand in one column; numbers of different families may not.
#
# | preset | family | foreground of the ground truth | thresholds | β² | order | other |
# |---|---|---|---|---|---|---|
# | `tokencut` | tokencut | above 0 | 255, $>$ | .3 | mean, max | |
# | `dss` | tokencut | above half | 255, $>$ | .3 | mean, max | |
# | `move` | tokencut | above half | 256, $>$ | .3 | mean, max | 8-bit predictions |
# | `diffncuts` | tokencut | above half; $F$: its grey value | 255, $\ge$ | .3 | mean, max | 8-bit predictions |
# | `move-per-image` | own | above half | 256, $>$ | .3 | max, mean | 8-bit predictions |
# | `selfmask` | selfmask | above 0 | 255, $>$ | .09 | max, mean | |
# | `found` | selfmask | only 255 | 255, $>$ | .09 | max, mean | also PEEKABOO |
# | `unioncut` | own | above 0 | one half | .09 | mean | |
# | `sempart_star` | own | above half; $F$: above 0 | 255, $>$ | .3 | mean, max | 320 px centre crop, ground truth resized bilinearly |
# | `sempart_star-default` | own | above half; $F$: above 0 | zero | .3 | mean | as `sempart_star` |
#
# The last convention is that of nothing: the precision of an empty prediction is 1 in `tokencut`, `dss`, `move` and `sempart_star`,
# and 0 in the others.
#
# ## The same predictions under each preset
#
# Five soft maps from three methods on the same features ({doc}`30_first_methods`):
#
# - *TokenCut mask*: the side of the cut with the fewest corners, enlarged from the grid of patches to the photograph by
#   repeating cells, as TokenCut's code does. A binary mask.
# - *the same, interpolated*: the identical mask on the grid, enlarged bilinearly. Its rim is grey.
# - *Fiedler vector*: the eigenvector itself, scaled to $[0, 1]$ per image.
# - *TokenCut + bilateral*: the soft output of the {term}`bilateral solver`, which is what TokenCut's own "+ BS" rows measure.
# - *CLS attention*: the mean over the heads, scaled by its maximum; no cut at all.

# %% tags=["hide-input"]
LISTS = {
    "demo": lambda: load_dataset("demo", split="test", limit=cfg.limit),
    "photos": lambda: load_dataset("voc2012_animals", root=cfg.data_root, split="saliency", limit=cfg.limit),
    "paper": lambda: load_dataset("ecssd", root=cfg.data_root, limit=cfg.limit),
}
data = LISTS[cfg.dataset]()
NETWORK = "dino_vits16" if cfg.dataset == "paper" else "dinov2_vits14_reg_mri"
backbone = load_backbone(NETWORK, device=cfg.device)
features = extract_dataset(data, backbone, size=cfg.size)


def unit(y):
    """Scale to [0, 1]."""
    return (y - y.min()) / (y.max() - y.min()).clamp(min=1e-12)


def soft_maps(part, samples):
    """Name -> map of each photograph of a batch, at its ground truth's size."""
    cut = METHODS["tokencut"](foreground="least-corners").predict(part)
    attention = part.attention.mean(dim=1).view(-1, 1, *part.grid)
    attention = attention / attention.amax(dim=(2, 3), keepdim=True)
    for k, s in enumerate(samples):
        size, one = s.mask.shape, cut[k]
        y, side = one.eigenvectors[0, 0].view(part.grid).float(), one.mask[0]
        if side.any() and not side.all() and y[side].mean() < y[~side].mean():
            y = -y
        repeated = one.resize(size, "nearest").soft.cpu()
        yield {
            "TokenCut mask": repeated[0],
            "the same, interpolated": one.resize(size).soft[0].cpu(),
            "Fiedler vector": F.interpolate(unit(y)[None, None], size, mode="bilinear")[0, 0].cpu(),
            "TokenCut + bilateral": refine.refine("bilateral", repeated, to_tensor([s.image]))[0],
            "CLS attention": F.interpolate(attention[k][None], size, mode="bilinear")[0, 0].cpu(),
        }


SHOWN = ["tokencut", "move", "selfmask", "unioncut", "sempart_star"]
SOFT = "TokenCut + bilateral"  # the map of the sections below
base = metrics.PRESETS["tokencut"]()
CHOICES = {
    "tokencut": base,
    "best threshold of each image": replace(base, name="own-threshold", aggregate="max-then-mean"),
    "beta squared .09": replace(base, name="beta2-09", beta2=0.09),
    "both (selfmask)": metrics.PRESETS["selfmask"](),
    "predictions in 8 bit": replace(base, name="8-bit", eight_bit=True),
    "the mask at one half only": replace(base, name="half", thresholds=(0.5,)),
    "the mask above zero only": replace(base, name="above-zero", thresholds=(0.0,)),
    "320 px centre crop (sempart_star)": metrics.PRESETS["sempart_star"](),
    "crop and above zero (sempart_star-default)": metrics.PRESETS["sempart_star-default"](),
}
GREY = ["tokencut", "dss", "found", "diffncuts"]
meters, choices = {}, {name: metrics.Meter(p) for name, p in CHOICES.items()}
matte = {name: metrics.Meter(name) for name in GREY}
example, seen = None, 0
for part in features:
    samples = [data[i] for i in range(seen, seen + len(part))]
    seen += len(part)
    for s, maps in zip(samples, soft_maps(part, samples), strict=True):
        example = example or (s, maps)
        for name, p in maps.items():
            for preset in SHOWN:
                meters.setdefault((name, preset), metrics.Meter(preset)).update(p, s.mask, s.void)
        for meter in choices.values():
            meter.update(maps[SOFT], s.mask, s.void)
        if s.alpha is not None:
            for meter in matte.values():
                meter.update(maps[SOFT], s.alpha, s.void)
results = {k: m.compute(seed=cfg.seed) for k, m in meters.items()}
MAPS = list(dict.fromkeys(name for name, _ in results))

about = {
    "dataset": data.name,
    "list_hash": data.list_hash,
    "n": len(data),
    "backbone": backbone.name,
    "backbone_sha256": backbone.sha256,
    "seed": cfg.seed,
    "device": cfg.device,
    "params": {"size": cfg.size, "feature": features[0].name.split("/")[-1], "tau": features[0].tau},
}
rows = []
for (name, preset), r in results.items():
    if preset == "tokencut":
        for m in ("iou", "acc"):
            rows.append(Record("metrics-same-masks", name, m, r[m], ci=r["ci95"][m], preset=preset, **about))
    rows.append(
        Record("metrics-same-masks", name, preset, r["max_f"], ci=r["ci95"]["max_f"], preset=preset, **about)
    )
for name, meter in choices.items():
    r = meter.compute(seed=cfg.seed)
    for m in ("iou", "acc", "max_f"):
        rows.append(Record("metrics-one-choice", name, m, r[m], ci=r["ci95"][m], preset=r["preset"], **about))
for name, meter in matte.items():
    if len(meter):
        r = meter.compute(seed=cfg.seed)
        for m in ("iou", "max_f"):
            rows.append(Record("metrics-grey-truth", name, m, r[m], ci=r["ci95"][m], preset=name, **about))
save(rows)

# %% tags=["remove-cell"]
s, maps = example
fig = plots.mask_grid(
    [[s.image, s.mask, *(p.numpy() for p in maps.values())]],
    columns=["scene", "truth", "mask", "interpolated", "Fiedler", "bilateral", "attention"],
    width=10,
)
glue("fig-five-maps", fig)

# %% [markdown]
# ```{glue:figure} fig-five-maps
# :name: fig-five-maps
# :alt: Seven panels of one composed scene. The scene, its true mask, TokenCut's blocky binary mask, the same mask with a blurred rim, the Fiedler vector as a smooth map, the bilateral solver's map that follows the object's outline, and the CLS attention as a few bright spots.
#
# One scene and the five maps that are measured below. Cut-out: Tux Paint stamps, GPL-2 ({doc}`/book/credits`).
# ```
#
# ```{paper-table} metrics-same-masks
# :name: tab-metrics-same-masks
# :profiles: demo
# :caption: Five maps on the demo test scenes: IoU and Acc (native size), and then five numbers that their papers all call max $F_\beta$, one column a preset. Methods may be compared within a column only.
# ```
#
# Three things are worth a look in {numref}`tab-metrics-same-masks`.
#
# **The enlargement of a mask is part of the metric.** The first two rows are the same decision on the same patches, and their IoU
# differs little ({measured}`metrics-same-masks/TokenCut mask/iou|.3f` and
# {measured}`metrics-same-masks/the same, interpolated/iou|.3f`). Their max $F_\beta$ differs a lot:
# {measured}`metrics-same-masks/TokenCut mask/tokencut|.3f` and
# {measured}`metrics-same-masks/the same, interpolated/tokencut|.3f` under `tokencut`. A binary map has one possible mask, so there is
# nothing to maximise over; interpolation makes a family of nested masks, and the maximum takes the best.
#
# **One map has many scores.** The soft output of the bilateral solver scores
# {measured}`metrics-same-masks/TokenCut + bilateral/tokencut|.3f` with `tokencut` and
# {measured}`metrics-same-masks/TokenCut + bilateral/selfmask|.3f` with `selfmask`, its binary version at one half
# {measured}`metrics-same-masks/TokenCut + bilateral/unioncut|.3f` with `unioncut`.
#
# **The order of methods is not safe either.** With `tokencut` the interpolated mask
# ({measured}`metrics-same-masks/the same, interpolated/tokencut|.3f`) stands beside CLS attention
# ({measured}`metrics-same-masks/CLS attention/tokencut|.3f`) and the Fiedler vector
# ({measured}`metrics-same-masks/Fiedler vector/tokencut|.3f`); with `selfmask` the three read
# {measured}`metrics-same-masks/the same, interpolated/selfmask|.3f`,
# {measured}`metrics-same-masks/CLS attention/selfmask|.3f` and
# {measured}`metrics-same-masks/Fiedler vector/selfmask|.3f`. Which pairs change places is counted here.

# %% tags=["hide-input"]
changed = []
for i, a in enumerate(MAPS):
    for b in MAPS[i + 1 :]:
        gap = {p: results[a, p]["max_f"] - results[b, p]["max_f"] for p in ("tokencut", "selfmask")}
        if gap["tokencut"] * gap["selfmask"] < 0:
            changed.append((a, b))
for a, b in changed:
    better = a if results[a, "tokencut"]["max_f"] > results[b, "tokencut"]["max_f"] else b
    worse = b if better == a else a
    print(f"tokencut puts {better!r} first, selfmask {worse!r}")
print(len(changed), "of", len(MAPS) * (len(MAPS) - 1) // 2, "pairs change places")

# %% tags=["remove-cell"]
fig, ax = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
order = ["unioncut", "sempart_star", "tokencut", "move", "selfmask"]
for name in MAPS:
    ax.plot(range(len(order)), [results[name, p]["max_f"] for p in order], label=name)
ax.set(xticks=range(len(order)), ylabel=r"'max $F_\beta$'")
ax.set_xticklabels(order)
ax.grid(True, color="0.9")
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
glue("fig-metric-slopes", fig)

# %% [markdown]
# ```{glue:figure} fig-metric-slopes
# :name: fig-metric-slopes
# :alt: Five lines over five metric presets. The line of the binary TokenCut mask stays almost flat and dips at selfmask, while the lines of the soft maps climb from tokencut to selfmask and cross others.
#
# The columns of {numref}`tab-metrics-same-masks` as lines. Where lines cross, the choice of the program decides which
# method is better.
# ```
#
# ### Why the order changes
#
# {eq}`eq-max-f` says it: a soft map whose best threshold differs from image to image pays for it on the left side and does not on the
# right. The attention map is such a map: every image has its own range of values.

# %% tags=["remove-cell"]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.3), sharey=True, layout="constrained")
t = np.array(base.thresholds)
for ax, name in zip(axes, ("CLS attention", SOFT), strict=True):
    curve = results[name, "tokencut"]["curve"]
    for c in curve[:: max(len(curve) // 12, 1)]:
        ax.plot(t, c, color="0.7", lw=0.8, ls="-", marker="")
        ax.plot(t[c.argmax()], c.max(), color="0.35", marker=".", ls="")
    mean = curve.mean(0)
    ax.plot(t, mean, color="black", lw=2.2, ls="-", marker="")
    ax.plot(t[mean.argmax()], mean.max(), color="black", marker="o", ms=8, ls="")
    ax.axhline(curve.max(1).mean(), color=plots.COLORS[0], ls="--", lw=1.5, marker="")
    ax.set(xlabel="threshold $t$", title=name, ylim=(0, 1.02))
    ax.grid(True, color="0.92")
axes[0].set_ylabel(r"$F_\beta$, $\beta^2 = 0.3$")
glue("fig-f-curves", fig)

# %% [markdown]
# ```{glue:figure} fig-f-curves
# :name: fig-f-curves
# :alt: Two panels of curves of F over the threshold. For CLS attention the thin curves of single images peak at very different thresholds, and the thick mean curve peaks well below the dashed line. For the output of the bilateral solver most curves peak at high thresholds, and the gap is smaller.
#
# Thin: single images with their own best threshold (dots). Thick: the mean curve, its maximum is "mean, then max". Dashed: the mean of the dots,
# "max, then mean". The distance between the large dot and the dashed line is what the choice is worth.
# ```
#
# ## One choice at a time
#
# The same map, *TokenCut + bilateral*, with a single choice of the `tokencut` preset changed in each row.
#
# ```{paper-table} metrics-one-choice
# :name: tab-metrics-one-choice
# :profiles: demo
# :mix-families:
# :caption: One soft map, one changed choice a row. The families are mixed on purpose, and each cell names its own.
# ```
#
# - The best threshold of each image moves max $F_\beta$ from {measured}`metrics-one-choice/tokencut/max_f|.3f` to
#   {measured}`metrics-one-choice/best threshold of each image/max_f|.3f`, $\beta^2 = .09$ alone to
#   {measured}`metrics-one-choice/beta squared .09/max_f|.3f`, both together to
#   {measured}`metrics-one-choice/both (selfmask)/max_f|.3f`.
# - Going through an 8-bit file, as MOVE and Differentiable NCut do, costs nothing worth mentioning:
#   {measured}`metrics-one-choice/predictions in 8 bit/max_f|.3f`.
# - Two Tricks' code by default prints an $F$ at the single threshold 0 ("F (not max)"). A soft map is above zero almost everywhere, so
#   the number is {measured}`metrics-one-choice/the mask above zero only/max_f|.3f`, and says nothing about the mask. Only
#   `--use_fmax` gives the number that the paper names.
# - The 320 px centre crop of the same code changes IoU too, from {measured}`metrics-one-choice/tokencut/iou|.3f` to
#   {measured}`metrics-one-choice/320 px centre crop (sempart_star)/iou|.3f`: the crop drops two
#   margins of every photograph, mostly background, and resamples prediction and ground truth.
#
# ## Grey ground truth
#
# A ground truth file need not be binary: outlines can be antialiased, or the file was saved as JPEG. Four rules are in use for the
# grey pixels: foreground is everything above 0 (TokenCut, SelfMask), above half (MOVE, Deep Spectral), only 255 (FOUND), or as much as
# it is grey (Differentiable NCut's $F$). The demo scenes come with exact mattes, so the effect of antialiasing alone can be measured:
#
# ```{paper-table} metrics-grey-truth
# :name: tab-metrics-grey-truth
# :profiles: demo
# :mix-families:
# :caption: The same map against the scenes' alpha mattes in 256 levels of grey instead of binary masks. IoU, too, is now a matter of the preset.
# ```
#
# The IoU is {measured}`metrics-grey-truth/tokencut/iou|.3f` where any grey counts,
# {measured}`metrics-grey-truth/dss/iou|.3f` above half and {measured}`metrics-grey-truth/found/iou|.3f` where only white counts. Two of
# these presets, `tokencut` and `dss`, are of one family: a family is safe on binary ground truth only. Look at the grey values of a
# data set before using it (`np.unique`), and binarise it yourself.
#
# ## Boxes: at least one half, or more
#
# {term}`CorLoc` has its own pair of readings. The papers require an IoU *larger than* 1/2, the code of LOST, TokenCut, FOUND and
# Deep Spectral accepts *at least* 1/2. It matters where
# boxes are multiples of a patch: an overlap of exactly one half is then no rare event. On the stored 203 boxes of the
# parity test three are exact halves, and the small sum below shows why the last bit of the division matters.

# %% tags=["nbval-check-output"]
truth_box = np.array([[0, 0, 48, 32]])
half_box = np.array([0, 0, 24, 32])
print("IoU", float(metrics.box_iou(half_box, truth_box)[0]))
for rule in (">=", ">"):
    print(f"CorLoc {rule:2s}", metrics.corloc([half_box], [truth_box], rule, ci=False)["corloc"])
with_eps = np.float64(24 * 32) / (48 * 32 + 1e-7)  # in double precision the codes' eps would decide
print("with eps = 1e-7 in double precision:", "a hit" if with_eps >= 0.5 else "a miss")
with_eps = np.float32(24 * 32) / np.float32(48 * 32 + 1e-7)  # their tensors are float32: it vanishes
print("with eps = 1e-7 in single precision:", "a hit" if with_eps >= 0.5 else "a miss")

# %% [markdown]
# Which one box stands for an image is a third choice: the seed's component (TokenCut, LOST), the component with most pixels (Deep Spectral,
# FOUND), or the component with the largest box (Two Tricks). `metrics.one_box` knows all three.
#
# ## Reading the papers with this in mind
#
# Which family is behind which table was found by reading the code and comparing copied rows; the numbers below are the papers'
# own, and none of them is ours.
#
# - The `tokencut` family: TokenCut, Deep Spectral, MOVE, Table 1 of SEMPART, and Differentiable NCut's own rows.
# - The `selfmask` family: SelfMask, FOUND, PEEKABOO, and every row copied from them. FOUND's ECSSD value,
#   {reported}`two-tricks-1/FOUND - single/max_f@ecssd`, stands in Two Tricks' Table 1 in one column with SEMPART's
#   {reported}`two-tricks-1/Sempart/max_f@ecssd`: two families. The same holds for
#   the rows "FOUND" and "Ours + FOUND" of Differentiable NCut's Table 1, and "Ours + FOUND" *inherits* the family.
# - SEMPART prints SelfMask's value in brackets, {reported}`sempart-1/SELFMASK on pseudo + BF/max_f@ecssd`: MOVE evaluated it again,
#   because it was "originally calculated incorrectly".
# - Sempart\* and "Ours" of Two Tricks are computed on the 320 px centre crop (public code), with the batch statistics of the test batch, and with
#   the epoch chosen on the test set. They are `sempart_star`, beside rows that are not.
# - Two Tricks' row "Sempart + BF" ({reported}`two-tricks-1/Sempart + BF/max_f@dut_omron` on DUT-OMRON) is a misprint: it repeats SEMPART's row
#   "SELFMASK on SEMPART-Fine" ({reported}`sempart-1/SELFMASK on SEMPART-Fine/max_f@dut_omron`). SEMPART-Fine with the bilateral solver has
#   {reported}`sempart-1/SEMPART-Fine+BF/max_f@dut_omron`.
#
# ```{paper-table} metrics-reported-only
# :name: tab-metrics-reported
# :reported: two-tricks-1
# :reported-datasets: ecssd
# :reported-metrics: max_f
# :reported-all:
# :caption: The max $F_\beta$ column of Two Tricks' Table 1 on ECSSD, as printed. A name in brackets marks another metric family than the column's; letters lead to notes.
# ```
#
# ## A guard
#
# `sempart_core.metrics.compare` puts rows side by side and refuses what this chapter warns of, unless told that it is meant.

# %% tags=["nbval-check-output"]
ours = {"row": "ours", "metric": "max_f", "value": 0.72, "preset": "tokencut"}
theirs = {"row": "theirs", "metric": "max_f", "value": 0.86, "preset": "selfmask"}
try:
    metrics.compare([ours, theirs])
except SempartError as e:
    print(e)
print(metrics.compare([ours, theirs], mixed=True))

# %% [markdown]
# The tables of this book do the same: `{paper-table}` fails the build if a column of measured numbers mixes families without saying so.
#
# ## Exercises
#
# ```{exercise-start} When all presets agree
# :label: ex-binary-agree
# ```
# A method outputs binary masks at the size of the ground truth. Which of the choices of this chapter can still change its max $F_\beta$?
# Check with two images.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-binary-agree
# :class: dropdown
# ```
# The curve of a binary mask is the same at every threshold in $[0, 1)$ with a strict comparison, so mean and max commute, the number of thresholds and the 8-bit file
# do not matter, and "max" is an empty word. What remains: $\beta^2$, the rule for grey ground truth, the resolution, and, with $\ge$, the threshold 0, where the
# prediction is the whole image.

# %% tags=["nbval-check-output"]
pair = [too_large, too_small], [truth, truth]
for preset in ("tokencut", "move", "move-per-image", "diffncuts", "selfmask", "unioncut"):
    print(f"{preset:15s} {metrics.evaluate_masks(*pair, preset, ci=False)['max_f']:.3f}")

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Dimming
# :label: ex-dimming
# ```
# Multiply the soft map of every image by its own factor between 0.2 and 1. Nothing about the shape of any object changes. Predict what happens to both sides of
# {eq}`eq-max-f`, and measure it. What does this say about normalising maps per image before an evaluation?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-dimming
# :class: dropdown
# ```
# The nested masks $P_t$ of an image are the same sets, met at other thresholds. The right side only asks which sets there are, so it stays (up to the 255 steps); the
# left side needs one threshold that suits all images and falls. Normalising each map to $[0, 1]$ undoes the dimming: it is part of the metric as much as of the
# method, and has to be reported. The Fiedler vector above was normalised in this way.

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(seed)
toy_truth, toy_maps = [], []
for _ in range(20):
    g = np.zeros((40, 40), bool)
    y0, x0 = rng.integers(2, 16, 2)
    g[y0 : y0 + 20, x0 : x0 + 16] = True
    noise = F.avg_pool2d(torch.from_numpy(rng.random((1, 1, 44, 44))), 5, 1)[0, 0].numpy()
    toy_truth.append(g)
    toy_maps.append(np.clip(0.5 * g + 4 * (noise - 0.5) + 0.25, 0, 1))
dimmed = [p * rng.uniform(0.2, 1) for p in toy_maps]
one_threshold, own_threshold = base, CHOICES["best threshold of each image"]
for name, toy in (("as they are", toy_maps), ("dimmed", dimmed)):
    a, b = (
        metrics.evaluate_masks(toy, toy_truth, p, ci=False)["max_f"] for p in (one_threshold, own_threshold)
    )
    print(f"{name:12s} mean, then max {a:.2f}   max, then mean {b:.2f}")

# %% [markdown]
# ```{solution-end}
# ```
#
# ```{exercise-start} Small differences
# :label: ex-paired
# ```
# Two methods differ by .01 in IoU on $n$ images, and the 95 % intervals of the two means overlap widely. Is the difference nothing? Use
# `metrics.bootstrap_ci` on something better than the two means.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-paired
# :class: dropdown
# ```
# Both methods saw the same images, so difficulty moves both scores together. The interval of the *differences per image* is the one that answers: it can exclude 0
# while the separate intervals overlap.

# %% tags=["nbval-check-output"]
difficulty = rng.uniform(0.2, 0.9, 200)
first = np.clip(difficulty + rng.normal(0, 0.03, 200), 0, 1)
second = np.clip(difficulty + 0.01 + rng.normal(0, 0.03, 200), 0, 1)
for name, values in (("first", first), ("second", second), ("second - first", second - first)):
    low, high = metrics.bootstrap_ci(values, seed=seed)
    print(f"{name:15s} mean {values.mean():.3f}   95 % interval {low:.3f} to {high:.3f}")

# %% [markdown]
# ```{solution-end}
# ```
