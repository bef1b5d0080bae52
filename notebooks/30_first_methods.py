# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Four first methods, side by side
#
# Four published methods turn the same patch features into an object, without a label and without training.
# Three build a graph on the patches; one only reads an attention map. This chapter runs all four on the same
# features of the same scenes, so that what differs is the method alone.
#
# | method | graph | which patches are the object |
# |---|---|---|
# | DINO-seg {cite}`caron2021dino` | none | those that hold 60 % of the CLS attention, largest component |
# | LOST {cite}`simeoni2021lost` | signs of $F F^\top$, not normalised | the component around the patch of lowest degree |
# | TokenCut {cite}`wang2022tokencut` | $\cos > \tau$: 1, else $\varepsilon$ | the component around the extreme of the {term}`Fiedler vector` |
# | Deep Spectral {cite}`melaskyriazi2022deepspectral` | $\max(\cos, 0)$, optionally with colour | the positive side of the {term}`Fiedler vector`, turned so that it covers at most half |
#
# The backbone's layer and threshold were chosen with labels ({doc}`20_features_as_graphs`), which the rows of
# methods that use them say. All numbers of this chapter are those of the default backbone, `dinov2_vits14_reg_mri`, on its last-block
# queries at 224 pixels. It is weaker on photographs than the DINO models of the papers
# ({doc}`20_features_as_graphs`), so the order of the methods here is a statement about these features.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import torch

from sempart_core import affinity, plots, spectral
from sempart_core.backbones import load_backbone
from sempart_core.datasets import load_dataset
from sempart_core.evaluate import evaluate, extract_dataset
from sempart_core.methods import METHODS
from sempart_core.methods.tokencut import bipartition
from sempart_core.notebook import glue, save, start

cfg = start(profile, data_root, device, seed, name="30_first_methods")
NETWORK = "dino_vits16" if cfg.dataset == "paper" else "dinov2_vits14_reg_mri"
backbone = load_backbone(NETWORK, device=cfg.device)
scenes = load_dataset("demo", split="test", limit=cfg.limit)
scene_features = extract_dataset(scenes, backbone, size=cfg.size)

# %% [markdown]
# ## One interface
#
# A method is an object with `predict`. It takes images, or features that were extracted once, and answers with
# a prediction: soft map, mask, seed, box and, where it has them, eigenvectors. Its parameters carry the
# symbols of its paper.

# %% tags=["nbval-check-output"]
part = scene_features[0][:4]
prediction = METHODS["tokencut"](eps=1e-5).predict(part)  # tau travels with the features
print("features ", tuple(part.x.shape), "on a grid of", part.grid)
print("mask     ", tuple(prediction.mask.shape), prediction.mask.dtype)
print("boxes    ", tuple(prediction.boxes.shape), "pixels of the network's input")

# %% [markdown]
# ## One scene, step by step
#
# TokenCut on one scene: threshold the cosines at $\tau$ ({eq}`eq-tokencut-affinity`), take the second smallest
# eigenvector of $(D - W)\,y = \lambda D\,y$, split it at its mean, find the seed $\arg\max_i |y_i|$, keep the
# component that holds it.
#
# ```{math}
# :label: eq-tokencut-affinity
# W_{ij} = \begin{cases} 1 & \cos(F_i, F_j) > \tau, \\ \varepsilon & \text{otherwise.} \end{cases}
# ```

# %%
one = part[1:2]
W = affinity.threshold_affinity(one.x, tau=one.tau, eps=1e-5)
y = spectral.fiedler(W, k=3).vectors
side, seed_patch, oriented = bipartition(y[:, 0])

# %% tags=["remove-cell"]
grid = one.grid
picture = one.images[0].numpy().transpose(1, 2, 0)
up = lambda m: np.kron(np.asarray(m).reshape(grid), np.ones((14, 14)))  # noqa: E731
p1 = METHODS["tokencut"]().predict(one)
cells = [
    picture,
    up(oriented[0].float()),
    (picture, up(side[0].float())),
    (picture, up(p1.mask[0].float())),
    up(y[0, 1]),
    up(y[0, 2]),
]
fig = plots.mask_grid(
    [cells], columns=["scene", "$y_2$", "split at the mean", "seed's component", "$y_3$", "$y_4$"], width=9
)
glue("fig-tokencut-steps", fig)

# %% [markdown]
# ```{glue:figure} fig-tokencut-steps
# :name: fig-tokencut-steps
# :alt: Six panels of one composed scene. The photograph, its Fiedler vector as a signed map, the side of the cut that holds the seed laid over the scene, the component of the seed, and the next two eigenvectors.
#
# TokenCut step by step on a demo scene, with the next two eigenvectors. Cut-out: Tux Paint stamps, GPL-2
# ({doc}`/book/credits`).
# ```
#
# ## Masks
#
# Every method on all scenes of the demo test set. A mask lives on a grid of $16 \times 16$ patches, is
# interpolated bilinearly to the photograph and compared there: IoU and accuracy per image, then their mean;
# max $F_\beta$ with $\beta^2 = 0.3$ as TokenCut's code computes it ({doc}`40_metrics_that_share_a_name`).
# "Least corners" replaces a method's own choice by the whole side of the cut that holds fewer corners, the
# rule of SEMPART, section 4.1. "Cells copied" enlarges the mask as TokenCut's code does, by nearest neighbour: the
# IoU hardly notices, while max $F_\beta$ falls, because interpolation had handed it a choice of thresholds.

# %%
ROWS = {
    "DINO-seg": ("dino-seg", {}),
    "LOST": ("lost", {}),
    "TokenCut": ("tokencut", {}),
    "TokenCut, least corners": ("tokencut", {"foreground": "least-corners"}),
    "TokenCut, least corners, cells copied": (
        "tokencut",
        {"foreground": "least-corners", "resample": "nearest"},
    ),
    "Deep Spectral (code)": ("deep-spectral", {"variant": "code"}),
    "Deep Spectral (code, colour)": ("deep-spectral", {"variant": "code-colour"}),
    "Deep Spectral (paper)": ("deep-spectral", {"variant": "paper"}),
    "Deep Spectral (code), least corners": ("deep-spectral", {"foreground": "least-corners"}),
}
CENTRED = {
    "LOST, centred": ("lost", {}),
    "Deep Spectral (code), centred": ("deep-spectral", {"variant": "code"}),
}
if cfg.dataset == "photos":
    root = cfg.data_root
    mask_sets = [
        load_dataset("voc2012_animals", root=root, split="saliency", limit=cfg.limit),
        load_dataset("weizmann_horses", root=root, limit=cfg.limit),
        load_dataset("davis2016_val", root=root, limit=cfg.limit),
    ]
elif cfg.dataset == "paper":
    mask_sets = [load_dataset(n, root=cfg.data_root) for n in ("dut_omron", "duts_te", "ecssd")]
else:
    mask_sets = [scenes]

rows, runs = [], {}
for data in mask_sets:
    features = scene_features if data is scenes else extract_dataset(data, backbone, size=cfg.size)
    for row, (name, params) in ROWS.items():
        run = evaluate(data, name, backbone, features=features, size=cfg.size, seed=cfg.seed, **params)
        runs[data.name, row] = run
        rows += run.records("saliency", row, only=["iou", "acc", "max_f"])
    for row, (name, params) in CENTRED.items():
        centred = [f.centred() for f in features]
        run = evaluate(data, name, backbone, features=centred, size=cfg.size, seed=cfg.seed, **params)
        runs[data.name, row] = run
        rows += run.records("saliency", row, only=["iou", "acc", "max_f"])
save(rows)

# %% [markdown]
# ```{paper-table} saliency
# :name: tab-saliency
# :profiles: demo
# :metrics: iou, acc, max_f
# :caption: Masks of the first methods, demo test scenes. 95 % bootstrap intervals over images under the pointer.
# ```
#
# TokenCut's own rule, the seed's component, reaches an IoU of
# {measured}`saliency/TokenCut/iou|.3f`; the whole side chosen by least corners reaches
# {measured}`saliency/TokenCut, least corners/iou|.3f`. The clipped cosine graph of Deep Spectral, which has no
# threshold, stands at {measured}`saliency/Deep Spectral (code)/iou|.3f`, and LOST, which looks at signs only, at
# {measured}`saliency/LOST/iou|.3f`.
#
# The reason is one direction that all patches of an image share: it makes almost every inner product positive.

# %%
from sempart_core.records import Record

shares = torch.cat([(torch.bmm(f.x, f.x.mT) > 0).double().mean(dim=(1, 2)) for f in scene_features])
centred_shares = torch.cat(
    [(torch.bmm(f.x, f.x.mT) > 0).double().mean(dim=(1, 2)) for f in (g.centred() for g in scene_features)]
)
if cfg.dataset == "demo":
    base = runs[scenes.name, "LOST"].records("positive-products", "queries", only=["iou"])[0]
    save(
        [
            replace(base, row=row, metric="share", value=float(v.mean()), ci=None, preset="", params={})
            for row, v in [("raw", shares), ("centred", centred_shares)]
        ]
    )

# %% [markdown]
# Of all pairs of patches, {measured}`positive-products/raw/share|.3f` have a positive inner product; after the mean
# over the patches of each image is taken away, {measured}`positive-products/centred/share|.3f`. LOST's degrees count
# nothing but that sign: where all are positive every patch has the same degree, the seed is arbitrary and the
# mask is the whole image. On centred features it reaches {measured}`saliency/LOST, centred/iou|.3f`. Deep Spectral
# keeps the size of the cosines beside their sign, and centring does not help it:
# {measured}`saliency/Deep Spectral (code), centred/iou|.3f`. Centring is our addition, not part of either method,
# and the rows say so. TokenCut's threshold does the work by other means ({doc}`20_features_as_graphs`).
#
# ## The same on photographs
#
# The rows of the profile `photos` come from real photographs that are not part of this book; the lists are.
# `make run PROFILE=photos DATA_ROOT=folder` measures them again ({doc}`/book/status`).
#
# ```{paper-table} saliency
# :name: tab-saliency-photos
# :metrics: iou, acc, max_f
# :profiles: photos
# :caption: The same methods on VOC 2012 animals, Weizmann horses and DAVIS 2016 frames at 224 pixels. No picture of these sets is shown in the book. The first 60 names of the VOC list took part in the choice of layer and threshold.
# ```
#
# What SEMPART's Table 1 reports for two of these methods, on the papers' sets and with DINO's keys, stands beside ours
# in columns of its own. The distance between the columns is one of images and features, not of implementations:
# those agree with the public code on its own arrays ({doc}`/book/credits`).
#
# ```{paper-table} saliency
# :name: tab-saliency-reported
# :profiles: photos
# :datasets: voc2012_animals-saliency
# :metrics: iou
# :rows: LOST; TokenCut
# :reported: sempart-1
# :reported-metrics: iou
# :reported-groups: baseline
# :caption: Measured here on photographs, and reported on the papers' data sets.
# ```
#
# ## Which side is the object?
#
# A cut has two sides and does not say which one is the object. SEMPART's section 4.1 names four rules; here they
# choose between the two sides of the same TokenCut.

# %%
rows = []
for data in mask_sets:
    features = scene_features if data is scenes else extract_dataset(data, backbone, size=cfg.size)
    for rule in ["least-corners", "centrality", "framing", "attention"]:
        run = evaluate(
            data,
            "tokencut",
            backbone,
            features=features,
            size=cfg.size,
            foreground=rule,
            seed=cfg.seed,
        )
        rows += run.records("foreground", rule, only=["iou", "acc"])
save(rows)

# %% [markdown]
# ```{paper-table} foreground
# :name: tab-foreground
# :profiles: demo
# :metrics: iou, acc
# :caption: Four rules that choose the foreground side of the same cut, demo test scenes.
# ```
#
# Least corners scores {measured}`foreground/least-corners/iou|.3f`, the framing prior
# {measured}`foreground/framing/iou|.3f`, centrality {measured}`foreground/centrality/iou|.3f`, and total CLS
# attention {measured}`foreground/attention/iou|.3f`. SEMPART's Table 4 ranks them on DINO features; its rows are
# in {doc}`/book/status`. Total attention has a bias towards the larger side: attention that is spread evenly adds
# up with area.
#
# ## Boxes
#
# CorLoc is the share of images where the one predicted box overlaps some true box with IoU of at least 1/2. The
# papers write "larger than", every public code counts exactly 1/2 as a hit; both are here. Scenes of the
# discovery split hold one to four objects.

# %%
BOX_ROWS = {
    "DINO-seg": ("dino-seg", {}),
    "LOST": ("lost", {}),
    "TokenCut": ("tokencut-discovery", {}),
    "TokenCut, least corners": ("tokencut-discovery", {"foreground": "least-corners"}),
    "Deep Spectral (code)": ("deep-spectral", {"variant": "code"}),
    "Deep Spectral (paper)": ("deep-spectral", {"variant": "paper"}),
}
if cfg.dataset == "photos":
    box_sets = [load_dataset("voc2012_animals", root=cfg.data_root, split="discovery", limit=cfg.limit)]
elif cfg.dataset == "paper":
    box_sets = [load_dataset(n, root=cfg.data_root) for n in ("voc07", "voc12", "coco20k")]
else:
    box_sets = [load_dataset("demo", split="discovery", limit=cfg.limit)]
rows = []
for data in box_sets:
    features = extract_dataset(data, backbone, size=cfg.size)
    for row, (name, params) in BOX_ROWS.items():
        run = evaluate(data, name, backbone, features=features, size=cfg.size, seed=cfg.seed, **params)
        rows += run.records("corloc", row, only=["corloc", "corloc_gt"])
save(rows)

# %% [markdown]
# ```{paper-table} corloc
# :name: tab-corloc
# :profiles: demo
# :metrics: corloc, corloc_gt
# :caption: CorLoc with $\ge 1/2$ and with $> 1/2$, demo discovery scenes.
# ```
#
# ```{paper-table} corloc
# :name: tab-corloc-photos
# :metrics: corloc, corloc_gt
# :profiles: photos
# :caption: CorLoc on the 845 photographs of the VOC 2012 animals discovery list. This is not the official trainval protocol.
# ```
#
# ## Refinement
#
# A mask of $16 \times 16$ cells has a staircase for an outline. TokenCut smooths it with the fast bilateral
# solver, Deep Spectral with a dense CRF, Two Tricks with a guided filter. All three see only the colours of the
# photograph and the soft mask. The bilateral solver's *soft* output is what TokenCut's metric sees.

# %%
rows = []
for data in mask_sets:
    features = scene_features if data is scenes else extract_dataset(data, backbone, size=cfg.size)
    for refiner in ["none", "guided", "bilateral", "crf"]:
        run = evaluate(
            data,
            "tokencut",
            backbone,
            features=features,
            size=cfg.size,
            foreground="least-corners",
            refine=refiner,
            seed=cfg.seed,
        )
        rows += run.records("refine", f"TokenCut, least corners + {refiner}", only=["iou", "acc", "max_f"])
save(rows)

# %% [markdown]
# ```{paper-table} refine
# :name: tab-refine
# :profiles: demo
# :metrics: iou, acc, max_f
# :caption: The same masks, refined by three filters, demo test scenes.
# ```
#
# On these scenes the bilateral solver moves the IoU from
# {measured}`refine/TokenCut, least corners + none/iou|.3f` to
# {measured}`refine/TokenCut, least corners + bilateral/iou|.3f`, the guided filter to
# {measured}`refine/TokenCut, least corners + guided/iou|.3f` and the CRF to
# {measured}`refine/TokenCut, least corners + crf/iou|.3f`.
#
# ## Where they fail
#
# The six demo scenes with the lowest IoU of TokenCut with least corners, worst first, beside the other methods on
# the same scenes. Nothing is chosen by hand.

# %% tags=["remove-cell"]
demo = runs if cfg.dataset == "demo" else None
SHOWN = ["DINO-seg", "LOST", "TokenCut", "TokenCut, least corners", "Deep Spectral (code)"]
shown_runs = {}
for row in SHOWN:
    name, params = ROWS[row]
    shown_runs[row] = (
        demo[scenes.name, row]
        if demo
        else evaluate(scenes, name, backbone, features=scene_features, size=cfg.size, **params)
    )
iou = shown_runs["TokenCut, least corners"].per_image["iou"]
worst = np.argsort(iou, kind="stable")[:6]
batch_of = np.cumsum([0, *map(len, scene_features)])
grid_rows, labels, notes = [], [], {}
for r, i in enumerate(worst):
    b = int(np.searchsorted(batch_of, i, side="right")) - 1
    f = scene_features[b][int(i - batch_of[b])]
    s = scenes[int(i)]
    line = [s.image, (s.image, s.mask)]
    for c, row in enumerate(SHOWN):
        name, params = ROWS[row]
        m = METHODS[name](**params).predict(f).resize(s.mask.shape).mask[0].numpy()
        line.append((s.image, m))
        notes[r, c + 2] = f"IoU {shown_runs[row].per_image['iou'][i]:.2f}"
    grid_rows.append(line)
fig = plots.mask_grid(
    grid_rows,
    columns=["scene", "truth", "DINO-seg", "LOST", "TokenCut", "least corners", "Deep Spectral"],
    notes=notes,
    width=10,
)
glue("fig-worst", fig)

# %% [markdown]
# ```{glue:figure} fig-worst
# :name: fig-worst
# :alt: Six rows of composed scenes on which TokenCut fails, with the true mask and the masks of five methods. Where TokenCut fails it usually takes the background's most distinct region instead of the object.
#
# The six worst demo scenes of TokenCut with least corners. Cut-outs: Tux Paint stamps, GPL-2.
# ```
#
# What do they have in common? Each scene records the size of its object, its contrast to the surroundings, the
# clutter of the background and how thin the object is. The curves show the mean IoU in four equal groups of each.

# %% tags=["remove-cell"]
controls = ["size", "contrast", "clutter", "thin"]
values = {c: np.array([scenes[i].meta[c] for i in range(len(scenes))]) for c in controls}
series, table = {}, []
for row in ["TokenCut, least corners", "Deep Spectral (code)", "DINO-seg"]:
    v = shown_runs[row].per_image["iou"]
    for c in controls:
        groups = np.array_split(np.argsort(values[c], kind="stable"), min(4, len(v)))
        series[row, c] = [float(v[g].mean()) for g in groups]
import matplotlib.pyplot as plt

fig, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True, layout="constrained")
for ax, c in zip(axes, controls, strict=True):
    for row in ["TokenCut, least corners", "Deep Spectral (code)", "DINO-seg"]:
        ax.plot(range(1, len(series[row, c]) + 1), series[row, c], label=row)
    ax.set(xlabel=f"quarter of the scenes by {c}", xticks=[1, 2, 3, 4])
    ax.grid(True, color="0.9")
axes[0].set(ylabel="mean IoU", ylim=(0, 1))
axes[0].legend(fontsize=8, loc="lower right")
glue("fig-controls", fig)

# %% tags=["remove-cell"]
from scipy.stats import spearmanr

base = shown_runs["TokenCut, least corners"]
if cfg.dataset == "demo" and len(scenes) > 4:
    ref = base.records("controls", "x", only=["iou"])[0]
    rows = []
    for c in controls:
        rho = spearmanr(values[c], base.per_image["iou"]).statistic
        rows.append(
            Record(
                table="controls", row=c, metric="spearman with IoU", value=float(rho), n=base.n,
                dataset=ref.dataset, list_hash=ref.list_hash, backbone=ref.backbone,
                backbone_sha256=ref.backbone_sha256, params=ref.params, preset=ref.preset,
                seed=ref.seed, device=ref.device,
            )
        )  # fmt: skip
    save(rows)

# %% [markdown]
# ```{glue:figure} fig-controls
# :name: fig-controls
# :alt: Four small plots of mean IoU against quarters of the scenes sorted by object size, contrast, clutter and thinness, one line each for TokenCut, Deep Spectral and DINO-seg.
#
# Mean IoU by quarter of the demo test scenes, sorted by each recorded control from low to high.
# ```
#
# The rank correlation of TokenCut's IoU with the size of the object is
# {measured}`controls/size/spearman with IoU|.2f`, with contrast
# {measured}`controls/contrast/spearman with IoU|.2f`, with clutter
# {measured}`controls/clutter/spearman with IoU|.2f`, with thinness
# {measured}`controls/thin/spearman with IoU|.2f`.
#
# ```{exercise-start} One threshold for the box
# :label: ex-box-rule
# ```
# TokenCut boxes the seed's component, Deep Spectral the largest one, Two Tricks the one with the largest box.
# Construct a mask on which the three rules give three different boxes.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-box-rule
# :class: dropdown
# ```
# One cell that holds the seed, a compact component with the most cells, and a thin one with the largest box:

# %% tags=["nbval-check-output"]
from sempart_core import regions

m = np.zeros((9, 9), bool)
m[0, 0] = True  # the seed's component: one cell
m[2:5, 2:6] = True  # most cells: 12
m[8, 1:] = True  # 8 cells along the bottom ...
m[6:8, 8] = True  # ... and an arm of 2 make the largest box, 8 x 3
print("seed     ", regions.box_of(regions.component_of(m, 0)).astype(int).tolist())
print("area     ", regions.box_of(regions.largest_component(m)).astype(int).tolist())
boxes = regions.boxes_of(m)
area = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
print("box      ", boxes[int(np.argmax(area))].astype(int).tolist())

# %% [markdown]
# ```{solution-end}
# ```
