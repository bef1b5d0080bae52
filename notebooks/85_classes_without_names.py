# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-classes)=
# # Classes without names
#
# **Claim.** Features that were tuned with mask consistency also tell *what* an object is: clusters of their patches over a whole data set agree with its classes better than
# before the tuning, with 500 clusters by {reported}`diffncut-3/DINO/miou@voc12_val@group=K = 500` to {reported}`diffncut-3/Ours/miou@voc12_val@group=K = 500` percent of mean IoU and
# with one cluster a class by {reported}`diffncut-3/DINO/miou@voc12_val@group=K = 21` to {reported}`diffncut-3/Ours/miou@voc12_val@group=K = 21`
# {cite}`liu2024diffncut` (Table 3). A cut of one photograph needs no such thing: it asks whether two patches of the *same* photograph belong together.
#
# The backbones are those of {doc}`84_tuned_on_photographs`: the default one, and the one that ships, the mean of three tunings of two epochs on photographs. The paper's DINO was trained on photographs from the start, so that the rows
# "untuned" and "DINO" ask one question of two networks. The paper's other rows add the training of Leopart {cite}`ziegler2022leopart` or are copied from there; they are *not run here*.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
from torch.nn import functional as F

from sempart_core import plots, tuned_backbones
from sempart_core.backbones import load_backbone
from sempart_core.datasets import of_profile
from sempart_core.evaluate import extract_dataset
from sempart_core.images import to_tensor
from sempart_core.matching import match_counts
from sempart_core.notebook import glue, save, start
from sempart_core.records import Record
from sempart_core.seeds import spread_records
from sempart_core.semantic import (
    change,
    cluster_patches,
    count_pixels,
    enlarged,
    resampled_miou,
    semantic_miou,
)

cfg = start(profile, data_root, device, seed, name="85_classes_without_names")
demo = cfg.dataset == "demo"
TUNED = next(iter(tuned_backbones.TUNED))
(data,) = of_profile(cfg, "semantic")
labels = [sample.labels for sample in data]
CLASSES = len(data.class_names)
VOID = 255
SEEDS = [cfg.seed + s for s in range(3)]

# %% [markdown]
# ## The measure
#
# Let $x_{ip} \in \mathbb{R}^d$ be the feature of patch $p$ of photograph $i$, scaled to length 1. K-means looks for $K$ centres $\mu_k$ that make
#
# $$
# \sum_{i, p} \min_k \lVert x_{ip} - \mu_k \rVert^2
# $$
#
# small, over *all* patches of *all* photographs. A cluster is then one set of patches across the data set, and has no name. With $n_{kc}$ the number of pixels of cluster $k$ and class $c$, the
# IoU of the two over the data set is
#
# $$
# J_{kc} = \frac{n_{kc}}{\sum_{c'} n_{kc'} + \sum_{k'} n_{k'c} - n_{kc}} .
# $$
#
# *One cluster a class*: $K$ is the number of classes, the background among them, and the Hungarian method chooses the one-to-one matching with the largest sum of $J_{kc}$. *Over-clustered*: $K$ is
# much larger, and each cluster takes the class with the largest $J_{kc}$, so that several may share a class. All pixels of a class's clusters together are the prediction for that class, and
# **mIoU** is the mean of its IoU over the classes that occur in the labels.
#
# Labels give the clusters their names, and they do so on the photographs that are measured (Deep Spectral's code does the same {cite}`melaskyriazi2022deepspectral`). No network sees a label, but the number is not one of
# a method without labels: with 500 clusters, 500 names are chosen with the answer at hand. The rows are marked *tuned with labels* for this, and for the layer of the backbone, which masks of demo scenes chose.
#
# The paper names k-means, the two numbers of clusters and mIoU. The rest is ours: the default layer at 224 × 224 pixels, patches scaled to length 1 and not centred (one mean subtracted from all would
# change no distance), one start of k-means++ for each of three seeds, Lloyd's algorithm for one cluster a class and mini-batches of 4096 patches over-clustered, and the labels at their full resolution, where a pixel takes
# the cluster of the patch it lies in.

# %% [markdown]
# ```{list-table} What is clustered here.
# :name: tab-classes-data
# :header-rows: 1
#
# * - profile
#   - data
#   - clusters
# * - demo
#   - the 200 demo test scenes, one object each of 15 classes, and background
#   - 16, and 100 over-clustered
# * - photos
#   - the 445 photographs of VOC 2012's validation list that show a cat, cow, dog, horse or sheep, with the label maps of SBD; 12 more classes
#     occur in them, nine in six photographs or fewer, and in the mean each of these weighs as much as the dogs
#   - 21, and 500 over-clustered
# * - paper
#   - the validation list of VOC 2012's segmentation task, 1,449 photographs, where they lie (not run here)
#   - 21, and 500 over-clustered
# ```
#
# The paper has the whole validation list of VOC 2012, so that its numbers and ours stand side by side and not in competition.

# %%
FEW = CLASSES
MANY = min(100 if demo else 500, 64 * len(data))
MINIBATCH = 4096
SETTINGS = {"one-to-one": (FEW, "hungarian", None), "over-clustered": (MANY, "majority", MINIBATCH)}

backbone, tuned = (load_backbone(name, device=cfg.device) for name in ("dinov2_vits14_reg_mri", TUNED))
features = {
    "untuned": extract_dataset(data, backbone, size=cfg.size, keep_images=False),
    "Ours": extract_dataset(data, tuned, size=cfg.size, cache=False, keep_images=False),
}


def of_colour(part):
    """Instead of features the mean colour of each patch, and a 1 beside it, so that scaling keeps lightness."""
    x = F.avg_pool2d(part, backbone.patch)
    x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0)
    return replace(features["untuned"][0], x=x.flatten(2).mT, layers={}, attention=None, name="colour")


features["colour"] = [of_colour(to_tensor([sample.image], cfg.size)) for sample in data]

maps, matches, found = {}, {}, {}
for setting, (k, how, minibatch) in SETTINGS.items():
    for name, f in features.items():
        for s in SEEDS:
            ids = cluster_patches(f, k, s, minibatch=minibatch)
            counts = count_pixels(ids, labels, k, CLASSES, VOID)
            match = match_counts(counts.sum(0), how)
            found.setdefault((name, setting), []).append((counts, semantic_miou(counts, match)))
            if s == cfg.seed:
                maps[name, setting], matches[name, setting] = ids, match
scores = {key: [score for _, score in runs] for key, runs in found.items()}
for (name, setting), runs in scores.items():
    print(f"{name:8} {setting:15}", *(f"{r.miou:.3f}" for r in runs), f"accuracy {runs[0].accuracy:.3f}")

# %% [markdown]
# Two rows say what a number is worth. *All background* calls every pixel background, which most are; *colour* clusters the mean colour of each patch in place of its features.

# %%
nothing = count_pixels([np.zeros((1, 1), int)] * len(data), labels, 1, CLASSES, VOID)
scores["all background", ""] = [semantic_miou(nothing, np.array([[0, 0]]))]


def like(table, row, name, setting, **changes):
    """A record with all that a row of this chapter has in common with the others."""
    k, how, minibatch = SETTINGS.get(setting, (1, "", None))
    net = {"untuned": backbone, "Ours": tuned}.get(name)
    params = {
        "clusters": k, "names": f"{how}, by labels of the measured set" if how else "", "size": cfg.size,
        "feature": net.default_layer if net else name, "minibatch": minibatch, "seeds": len(SEEDS),
        "resample": "nearest", "interval": "bootstrap over images, names of clusters fixed",
    }  # fmt: skip
    own = {
        "dataset": data.name, "list_hash": data.list_hash, "n": len(data), "seed": cfg.seed, "preset": "miou",
        "backbone": net.name if net else "", "backbone_sha256": net.sha256 if net else "",
        "kind": "label-tuned" if how else "unsupervised", "params": params, "device": cfg.device,
    }  # fmt: skip
    return Record(table=table, row=row, metric="miou", **{"value": 0.0, **own, **changes})


def interval(runs):
    return tuple(float(q) for q in np.quantile(resampled_miou(runs, seed=cfg.seed), [0.025, 0.975]))


rows = []
for (name, setting), runs in scores.items():
    row = f"{name}, {setting}" if setting else name
    base = like("diffncut-3", row, name, setting, ci=interval(runs))
    rows += spread_records(base, "miou", [r.miou for r in runs])
    rows.append(
        replace(base, metric="pixel accuracy", value=np.mean([r.accuracy for r in runs]), ci=None, preset="")
    )
changes = {}
for setting in SETTINGS:
    for one, other in (("Ours", "untuned"), ("untuned", "colour")):
        c = changes[one, setting] = change(scores[one, setting], scores[other, setting], seed=cfg.seed)
        row = f"{one} minus {other}, {setting}"
        base = like("diffncut-3-differences", row, one, setting, value=c.mean, ci=(c.low, c.high))
        rows.append(replace(base, metric="miou_change"))
        ends = {"lowest seed": c.by_seed.min(), "highest seed": c.by_seed.max()}
        rows += [replace(base, metric=m, value=float(v), ci=None, preset="") for m, v in ends.items()]
        print(f"{row:38} {c.mean:+.3f} ({c.low:+.3f} to {c.high:+.3f})", np.round(c.by_seed, 3), c.claim())
save(rows)

# %% tags=["remove-cell"]
for setting in SETTINGS:
    glue(f"classes-{setting}", changes["Ours", setting].claim())
    glue(f"colour-{setting}", changes["untuned", setting].claim())

# %% [markdown]
# ```{paper-table} diffncut-3
# :name: tab-diffncut-3-many
# :profiles: demo, photos
# :metrics: miou
# :rows: all background; colour, over-clustered; untuned, over-clustered; Ours, over-clustered; SwAV; MoCo-v2; DINO+Leopart; Ours+Leopart
# :reported: diffncut-3
# :reported-groups: K = 500
# :reported-rows: untuned, over-clustered = DINO; Ours, over-clustered = Ours
# :caption: Table 3, over-clustered: 100 clusters of demo scenes, 500 of VOC animals and of the paper's VOC 2012. Mean over three seeds of k-means, with a bootstrap interval over photographs for which clusters and names stay as they are (a class that a resample misses keeps its IoU). "Untuned" stands beside the paper's DINO, "Ours" is the tuned backbone.
# ```
#
# ```{paper-table} diffncut-3
# :name: tab-diffncut-3-few
# :profiles: demo, photos
# :metrics: miou
# :rows: all background; colour, one-to-one; untuned, one-to-one; Ours, one-to-one; SwAV; MoCo-v2; DINO+Leopart; Ours+Leopart
# :reported: diffncut-3
# :reported-groups: K = 21
# :reported-rows: untuned, one-to-one = DINO; Ours, one-to-one = Ours
# :caption: Table 3, one cluster a class: 16 clusters of demo scenes, 21 of VOC animals and of the paper's VOC 2012.
# ```
#
# ```{paper-table} diffncut-3-differences
# :name: tab-diffncut-3-differences
# :profiles: demo, photos
# :metrics: miou_change; lowest seed; highest seed
# :format: +.3f
# :caption: Differences of mIoU, mean over three seeds of k-means, with a bootstrap interval over photographs (paired; clusters and names fixed), and the smallest and largest difference of a seed.
# ```
#
# We say that a claim *holds* where this interval leaves out 0 and all three seeds agree in sign. The interval knows nothing of other clusterings, and nothing of other tunings: one network was measured, the mean of three.
#
# On this profile, that the tuned features have the higher mIoU {glue:text}`classes-over-clustered` with many clusters and {glue:text}`classes-one-to-one` with one a class. That the untuned ones are above
# mere colour {glue:text}`colour-over-clustered` with many and {glue:text}`colour-one-to-one` with one a class. On the photographs tuning changes the mIoU by
# {measured}`diffncut-3-differences/Ours minus untuned, over-clustered/miou_change@photos|+.3f ci` with many clusters and by
# {measured}`diffncut-3-differences/Ours minus untuned, one-to-one/miou_change@photos|+.3f ci` with one a class.

# %% [markdown]
# ## Finding the object, and saying what it is
#
# mIoU with the background as a class mixes two questions. Counts of pixels can answer them apart, with the same clusters:
#
# * *object or ground*: all object classes are merged into one. Does a cluster lie on objects?
# * *class of object pixels*: background pixels do not count, as if somebody had drawn the masks. Does a cluster know its class?

# %%
PARTS = {"object or ground": lambda c: np.stack([c[..., 0], c[..., 1:].sum(-1)], -1),
         "class of object pixels": lambda c: c[..., 1:]}  # fmt: skip


def of_part(name, setting, part):
    """The runs of one setting with merged or left-out classes, named anew."""
    runs = [PARTS[part](counts) for counts, _ in found[name, setting]]
    return [semantic_miou(c, match_counts(c.sum(0), "majority")) for c in runs]


rows, part_changes = [], {}
for part in PARTS:
    runs = {name: of_part(name, "over-clustered", part) for name in features}
    for name in ("colour", "untuned", "Ours"):
        base = like("semantic-parts", name, name, "over-clustered", ci=interval(runs[name]), preset="")
        rows.append(replace(base, metric=part, value=float(np.mean([r.miou for r in runs[name]]))))
    c = part_changes[part] = change(runs["Ours"], runs["untuned"], seed=cfg.seed)
    base = like(
        "semantic-parts-change", part, "Ours", "over-clustered", value=c.mean, ci=(c.low, c.high), preset=""
    )
    rows.append(replace(base, metric="miou_change"))
    rows += [
        replace(base, metric=m, value=float(v), ci=None)
        for m, v in (("lowest seed", c.by_seed.min()), ("highest seed", c.by_seed.max()))
    ]
    print(f"{part:24} {c.mean:+.3f} ({c.low:+.3f} to {c.high:+.3f})", np.round(c.by_seed, 3), c.claim())

# How much of the labels a grid of patches can hold: each patch takes the class most of its pixels have.
grid = features["untuned"][0].grid
patches = np.arange(grid[0] * grid[1]).reshape(grid)
votes = count_pixels([patches] * len(data), labels, patches.size, CLASSES, VOID)
cells = [v.argmax(1).reshape(grid) for v in votes]
counts = count_pixels(cells, labels, CLASSES, CLASSES, VOID)
top = semantic_miou(counts, np.stack([np.arange(CLASSES)] * 2, 1))
params = {"grid": list(grid), "size": cfg.size}
ceiling = like(
    "semantic-ceiling", "the labels, on the grid of patches", "", "", kind="supervised", params=params
)
rows.append(replace(ceiling, value=top.miou, ci=interval([top])))
save(rows)

# %% tags=["remove-cell"]
glue("classes-ground", part_changes["object or ground"].claim())
glue("classes-inside", part_changes["class of object pixels"].claim())

# %% [markdown]
# ```{paper-table} semantic-parts
# :name: tab-semantic-parts
# :profiles: demo, photos
# :caption: The over-clustered patches, asked two questions apart: mean IoU of object and ground, and mean IoU over object classes among object pixels alone. Names chosen anew for each question; mean over three seeds, bootstrap interval over photographs.
# ```
#
# ```{paper-table} semantic-parts-change
# :name: tab-semantic-parts-change
# :profiles: demo, photos
# :format: +.3f
# :caption: Tuned minus untuned for both questions.
# ```
#
# That tuning is a gain {glue:text}`classes-ground` for object or ground and {glue:text}`classes-inside` for the class of object pixels (this profile). On the photographs the two changes are
# {measured}`semantic-parts-change/object or ground/miou_change@photos|+.3f ci` and {measured}`semantic-parts-change/class of object pixels/miou_change@photos|+.3f ci`.
#
# The outlines are not what limits these numbers. The labels themselves, given to the patches by majority and enlarged in the same way, have a mIoU of
# {measured}`semantic-ceiling/the labels, on the grid of patches/miou@demo|.2f` on demo scenes and of {measured}`semantic-ceiling/the labels, on the grid of patches/miou@photos|.2f` on the photographs.

# %% tags=["remove-cell"]
over = {name: np.nanmean([r.iou for r in scores[name, "over-clustered"]], 0) for name in ("untuned", "Ours")}
occurs = np.isfinite(over["untuned"])
by_class = np.stack([v[occurs] for v in over.values()], 1)
order = np.argsort(-by_class[:, 0], kind="stable")
names = [n for n, there in zip(data.class_names, occurs, strict=True) if there]
glue(
    "fig-iou-by-class",
    plots.heatmap(by_class[order], xticks=list(over), yticks=[names[i] for i in order], size=(4.2, 5.2)),
)

# %% [markdown]
# ```{glue:figure} fig-iou-by-class
# :name: fig-iou-by-class
# :alt: A table of colours with one line for each class of the demo scenes and a column each for untuned and tuned features; the IoU is printed in each cell.
#
# IoU of each class of the demo scenes, over-clustered, mean over three seeds.
# ```
#
# ## What the clusters look like

# %% tags=["remove-output"]
if demo:
    picked = [i for i in (0, 1) if cfg.limit] or [3, 8, 21, 34]
    pictures, notes = [], {}
    for i in picked:
        scene = data[i]
        (own,) = set(scene.classes)
        line = [(scene.image, scene.labels == own)]
        for j, name in enumerate(("untuned", "Ours")):
            named = np.full(MANY, -1)
            match = matches[name, "over-clustered"]
            named[match[:, 0]] = match[:, 1]
            given = named[enlarged(maps[name, "over-clustered"][i], scene.labels.shape)]
            line.append((scene.image, given == own))
            others = sorted({data.class_names[c] for c in np.unique(given) if c not in (-1, 0, own)})
            notes[len(pictures), j + 1] = "elsewhere: " + (", ".join(others[:2]) or "background only")
        notes[len(pictures), 0] = data.class_names[own]
        pictures.append(line)
    figure = plots.mask_grid(
        pictures, columns=["object", "class, untuned", "class, tuned"], notes=notes, width=6.6
    )
    glue("fig-named-patches", figure)

# %% [markdown]
# ```{glue:figure} fig-named-patches
# :name: fig-named-patches
# :alt: Four composed scenes in three columns: the true object tinted and outlined, then the patches whose cluster bears that object's class on untuned and on tuned features. Below stand the other classes that clusters give in the scene.
#
# Tinted on the left: the object and its class. In the middle and on the right: the patches whose cluster bears the name of that class, wherever they lie (over-clustered, first seed). Cut-outs: Tux Paint stamps, GPL-2 ({doc}`/book/credits`).
# ```
#
# ## What to make of it
#
# **One cluster a class measures little here.** A map that is background everywhere knows nothing, and has a mIoU of {measured}`diffncut-3/all background/miou@demo|.3f` on demo scenes and of
# {measured}`diffncut-3/all background/miou@photos|.3f` on the photographs. The untuned clusters have {measured}`diffncut-3/untuned, one-to-one/miou@demo|.3f` and
# {measured}`diffncut-3/untuned, one-to-one/miou@photos|.3f`. Background is most of the pixels and many things, sky and grass and walls; k-means gives it most of its clusters, and a one-to-one matching lets a single one keep
# the name, so that only {measured}`diffncut-3/untuned, one-to-one/pixel accuracy@photos|.2f` of the photographs' pixels bear their class. The paper's two numbers for 21 clusters are of this size as well: where three
# quarters of the labelled pixels are background, a map of nothing else has .75 / 21, or 3.6 percent.
#
# **Many clusters do hold classes.** Over-clustered, the untuned features are above mere colour by {measured}`diffncut-3-differences/untuned minus colour, over-clustered/miou_change@demo|+.3f ci` on demo scenes and by
# {measured}`diffncut-3-differences/untuned minus colour, over-clustered/miou_change@photos|+.3f ci` on photographs. But the number grows with $K$ by itself: with one cluster a patch, the labels would only have to be copied, up to the
# {measured}`semantic-ceiling/the labels, on the grid of patches/miou@photos|.2f` that the grid can hold. Of VOC animals there are fewer photographs than clusters; and most of the demo set's 118 cut-outs for testing appear in two of the 200 scenes, so that
# a cluster there may know the very object and not its class. The row of colours says how much of it mere appearance can get.
#
# **What the tuning does to classes.** In the paper the over-clustered number goes from {reported}`diffncut-3/DINO/miou@voc12_val@group=K = 500` to {reported}`diffncut-3/Ours/miou@voc12_val@group=K = 500` percent. Here it changes by
# {measured}`diffncut-3-differences/Ours minus untuned, over-clustered/miou_change@demo|+.3f ci` on demo scenes and by
# {measured}`diffncut-3-differences/Ours minus untuned, over-clustered/miou_change@photos|+.3f ci` on photographs. {numref}`tab-semantic-parts-change` takes it apart. On the photographs the clusters of tuned
# features separate objects from ground by {measured}`semantic-parts-change/object or ground/miou_change@photos|+.3f ci` of mean IoU, and tell the classes of object pixels
# apart by {measured}`semantic-parts-change/class of object pixels/miou_change@photos|+.3f ci`; on the demo scenes, further from the tuning's photographs, the two changes are {measured}`semantic-parts-change/object or ground/miou_change@demo|+.3f ci` and
# {measured}`semantic-parts-change/class of object pixels/miou_change@demo|+.3f ci`. The loss asks for the first: two views of one photograph should be cut into object and ground alike. Nothing in it asks that a cow
# differ from a sheep, and features in which all objects resemble each other satisfy it too. So the second number may have either sign, and a table of masks ({doc}`84_tuned_on_photographs`) cannot show it.
#
# The paper's table is another experiment. Its tuning for this table saw ImageNet-100 or COCO (section 4.3), from a network that had learned from photographs; ours saw a folder in which two thirds of the photographs show dogs, and began from a
# network that brain scans had changed. Ours is also one network, the mean of three tunings: the intervals are over photographs and clusterings.
#
# ```{exercise-start} A class nobody wants
# :label: ex-class-nobody-wants
# ```
# More freedom need not raise mIoU. Two clusters share pixels with two classes as $n = \begin{pmatrix} 10 & 0 \\ 7 & 3 \end{pmatrix}$, clusters in rows. Name them one-to-one, and by the best IoU of each cluster,
# and compare the mIoU. Why does this hardly happen with 500 clusters?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-class-nobody-wants
# :class: dropdown
# ```
# One-to-one, the first cluster is class 1 and the second class 2: the mIoU is $\tfrac12 (\tfrac{10}{17} + \tfrac{3}{10}) \approx .44$. For itself the second cluster prefers class 1, since $\tfrac{7}{20} > \tfrac{3}{10}$; then
# class 2 has no cluster, its IoU is 0, and the mIoU is $\tfrac12 \cdot \tfrac{17}{20} \approx .43$. Many small clusters hold mostly one class each, and then both rules agree about them; one-to-one can use no more
# of them than there are classes.
# ```{solution-end}
# ```

# %% tags=["remove-cell"]
counts = np.array([[[10, 0], [7, 3]]])
both = [semantic_miou(counts, match_counts(counts[0], how)).miou for how in ("hungarian", "majority")]
assert both[0] > both[1]
