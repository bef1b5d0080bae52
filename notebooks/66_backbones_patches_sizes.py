# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-backbones)=
# # Backbones, patches, input sizes
#
# A coarse mask has one number a patch. {cite:t}`ravindran2023sempart` (Table 7) call the area of a patch over the
# area of the image the *degree of pixelation*, DoP,
#
# ```{math}
# :label: eq-dop
# \mathrm{DoP} = \frac{p^2}{H W} = \frac1N ,
# ```
#
# with patch side $p$, input $H \times W$ and thus $N$ tokens, and claim, in our words:
#
# 1. a lower DoP, by smaller patches or a larger input, gives better masks;
# 2. the fine mask is better than its coarse one at every DoP.
#
# Their rows compare three networks: DINO with patches of 16 and of 8, and DINOv2 with patches of 14 at 224 and 560 pixels.
# One backbone at two sizes is the cleanest of these comparisons, because nothing changes but the grid. It is the one
# that can be made here.

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

from sempart_core import checkpoints, plots, spectral
from sempart_core.backbones import BACKBONES, load_backbone
from sempart_core.datasets import load_dataset, of_profile
from sempart_core.evaluate import evaluate, extract_dataset
from sempart_core.extraction import of_photograph
from sempart_core.methods.sempart import SempartMethod
from sempart_core.notebook import glue, save, start
from sempart_core.recipes import recipe
from sempart_core.seeds import differences, measure
from sempart_core.train import train

cfg = start(profile, data_root, device, seed, name="66_backbones_patches_sizes")
demo, paper = cfg.dataset == "demo", cfg.dataset == "paper"
RECIPE = "paper" if paper else "demo"
SEEDS = [cfg.seed + s for s in range({"demo": 3, "photos": 2}.get(cfg.name, 1))]
DEFAULT = "dinov2_vits14_reg_mri"
train_set = of_profile(cfg, "train", limit=None if paper else 96 if demo else 400)[0]
mask_sets = of_profile(cfg, "masks", limit=None if paper else 100 if demo else 200)
mask_sets = mask_sets if paper else mask_sets[:1]

# %% [markdown]
# ## Which backbones are here
#
# Every registered backbone whose weight file is on this machine takes part. Nothing is downloaded: most files are large,
# and their licences are yours to read ({ref}`cards <backbone-cards>`). The others are listed as not run. A file
# that you put into the cache's `weights` folder adds its rows at the next run.


# %%
def here(name):
    """Whether the weight file of a backbone is on this machine."""
    extra = BACKBONES.card(name).extra
    return checkpoints.find(name, extra["file"], extra["hub"]) is not None


present = [name for name in BACKBONES if here(name)]
absent = [name for name in BACKBONES if name not in present]
if paper:  # table 7
    wanted = {"dinov2_vits14": (224, 560), "dino_vits16": (320,), "dino_vits8": (320,)}
    plan = {name: sizes for name, sizes in wanted.items() if name in present}
else:
    plan = {name: (224, 336) for name in present}
print("run here:    ", ", ".join(plan) or "none")
print("not run here:", ", ".join(absent) or "none")

# %% [markdown]
# ## What the grid alone costs
#
# Before any network: enlarge the *true* mask after it was rounded to the grid. The IoU that is left is the ceiling of
# every mask of that grid. If it is near 1, pixelation is not what limits the coarse mask, and a gain by
# a larger input must come from the features.


# %%
def on_grid(mask, grid):
    """A mask rounded to cells by their mean and enlarged as a coarse prediction is."""
    m = torch.from_numpy(mask)[None, None].float()
    cells = (F.interpolate(m, grid, mode="area") > 0.5).float()
    return F.interpolate(cells, mask.shape, mode="bilinear", align_corners=False)[0, 0].numpy() > 0.5


def ceiling(test, grid):
    """Mean IoU of the true masks of a data set with themselves on a grid."""
    out = []
    for i in range(len(test)):
        s = test[i]
        keep = np.ones(s.mask.shape, bool) if s.void is None else ~s.void
        a, b = s.mask & keep, on_grid(s.mask, grid) & keep
        out.append((a & b).sum() / max(1, (a | b).sum()))
    return np.array(out)


first = load_backbone(next(iter(plan), DEFAULT), device=cfg.device)
BASE = min(next(iter(plan.values()), (224,)))  # the size for which the registry's threshold was chosen
test = mask_sets[0]
features = {}  # (backbone, size) -> features of the test photographs
features[first.name, BASE] = extract_dataset(test, first, size=BASE)
tokencut = evaluate(
    test, "tokencut", first, features=features[first.name, BASE], foreground="least-corners", seed=cfg.seed
)
(like,) = tokencut.records("sempart-7-grid", "x", only=["iou"])
rows = []
SIZES = sorted({BASE, *(s for sizes in plan.values() for s in sizes), *(() if paper else (448, 560))})
for size in SIZES:
    side = size // first.patch
    n = {"dop": first.patch**2 / size**2, "tokens": side**2, "ceiling": ceiling(test, (side, side)).mean()}
    for metric, value in n.items():
        rows.append(
            replace(
                like, row=f"{size} px", metric=metric, value=float(value), ci=None, kind="unsupervised",
                preset="tokencut" if metric == "ceiling" else "", params={"size": size, "patch": first.patch},
            )
        )  # fmt: skip
save(rows)

# %% [markdown]
# ```{paper-table} sempart-7-grid
# :name: tab-sempart-7-grid
# :profiles: demo
# :metrics: dop, tokens, ceiling
# :format: .4g
# :caption: Degree of pixelation {eq}`eq-dop`, tokens, and the IoU that the true mask keeps on the grid; patches of 14 pixels, demo test scenes.
# ```
#
# At 224 pixels the grid lets a perfect coarse mask reach {measured}`sempart-7-grid/224 px/ceiling|.3f`, at 336 pixels
# {measured}`sempart-7-grid/336 px/ceiling|.3f` and at 560, the size of the paper's rows C and D,
# {measured}`sempart-7-grid/560 px/ceiling|.3f`. The measured coarse masks below can be held against these numbers.
#
# ## The threshold has to follow the size
#
# The graph has an edge where the cosine of two patches exceeds $\tau$. The cosines depend on the size of the input: a
# patch of a larger input covers less of the scene. With the same $\tau$ the graph therefore changes with the
# size, and a comparison of sizes at one $\tau$ compares two things at once. A threshold for a new size must be chosen
# without labels. Three quantities offer themselves: the share of pairs that are edges, the second eigenvalue
# $\lambda_2$ of the graph (the least NCut that a relaxed cut can reach), and the held-out NCut of a trained
# network.
#
# The last two cannot be compared across thresholds: removing edges makes every cut cheaper, so that the sparsest
# graph looks best. The share of edges can. The rule of this chapter: at a new size take the $\tau$ at which as many
# pairs are edges as at the size for which $\tau$ is known.

# %%
BINS = 4000


def histogram(backbone, size, some):
    """Histogram of the cosines of all pairs of patches of ``some`` photographs, self-pairs left out."""
    counts = torch.zeros(BINS, dtype=torch.float64)
    for f in extract_dataset(some, backbone, size=size, keep_images=False):
        x = F.normalize(f.x.cpu().float(), dim=-1)
        for one in x:
            c = (one @ one.mT).flatten()
            counts += torch.histc(c.clamp(-1, 1), BINS, -1, 1).double()
            counts -= torch.histc(c.view(len(one), -1).diagonal().clamp(-1, 1), BINS, -1, 1).double()
    return counts


def share_above(counts, tau):
    """Share of pairs with a cosine above ``tau``."""
    return float(counts[round((tau + 1) / 2 * BINS) :].sum() / counts.sum())


def matching(counts, share):
    """The threshold with this share of edges above it, to two decimals."""
    above = counts.flip(0).cumsum(0).flip(0) / counts.sum()
    return round(-1 + 2 * int((above >= share).sum()) / BINS, 2)


sample = of_profile(cfg, "train", limit=64)[0]  # photographs of the training list, no masks read
taus, histograms = {}, {}
for name, sizes in plan.items():
    backbone = first if name == first.name else load_backbone(name, device=cfg.device)
    known = backbone.tau(backbone.default_layer)
    at = min(sizes)
    for size in dict.fromkeys((*sizes, *((448,) if name == first.name and not paper else ()))):
        histograms[name, size] = histogram(backbone, size, sample)
        share = share_above(histograms[name, at], known)
        taus[name, size] = known if size == at else matching(histograms[name, size], share)
        print(
            f"{name}, {size} px: share of edges at tau {known:g}: {share_above(histograms[name, size], known):.3f}, "
            f"as many edges as at {at} px from tau {taus[name, size]:g}"
        )

# %% [markdown]
# Is that rule a good one? Coarse networks are cheap, so for both sizes one is trained for each of several thresholds.
# The label-free numbers stand beside the IoU, which was not used for the choice.

# %%
# The prose below quotes rows "τ = 0.6": if the registry's value changes, so must they.
known = first.tau(first.default_layer)
GRID = sorted({*(round(known + d, 2) for d in (-0.2, -0.1, 0.0, 0.1)), *(taus[first.name, s] for s in SIZES if (first.name, s) in taus)})  # fmt: skip
TRIED = [s for s in plan.get(first.name, ())]
rows, by_tau = [], {}
for size in TRIED:
    if (first.name, size) not in features:
        features[first.name, size] = extract_dataset(test, first, size=size)
    few = [f.x[:8].cpu() for f in features[first.name, size][:2]]
    for tau in GRID:
        coarse = [
            train(
                train_set, first, **recipe(RECIPE, seed=s, size=size, tau=tau, branches="coarse"),
                steps=cfg.train_steps,
            )
            for s in SEEDS[:1]
        ]  # fmt: skip
        seeds = measure(
            test, [SempartMethod(r.model) for r in coarse], first, features=features[first.name, size],
            seed=cfg.seed,
        )  # fmt: skip
        cut = evaluate(
            test, "tokencut", first, features=features[first.name, size], tau=tau,
            foreground="least-corners", seed=cfg.seed,
        )  # fmt: skip
        row = f"{size} px, τ = {tau:g}"
        (of_cut,) = cut.records("sempart-7-tau", row, only=["iou"])
        values = {
            "edges": share_above(histograms[first.name, size], tau),
            "lambda_2": float(
                torch.cat([spectral.fiedler(features=x, tau=tau).values.reshape(-1) for x in few]).mean()
            ),
            "held_out_ncut": float(
                np.mean([next(e["held_out_ncut"] for e in r.log if e["epoch"] == r.best) for r in coarse])
            ),
        }
        rows += [*seeds.records("sempart-7-tau", row), replace(of_cut, metric="iou_tokencut")]
        rows += [replace(of_cut, metric=k, value=v, ci=None, preset="") for k, v in values.items()]
        by_tau[size, tau] = {
            **values, "iou": seeds.means().mean(), "cut": cut.metrics["iou"]
        }  # fmt: skip
save(rows)

# %% [markdown]
# ```{paper-table} sempart-7-tau
# :name: tab-sempart-7-tau
# :profiles: demo
# :metrics: edges, lambda_2, held_out_ncut, iou, iou_tokencut
# :no-ci:
# :caption: One threshold a row: share of the pairs that are edges (64 training scenes), mean λ₂ (16 test scenes), held-out NCut of the coarse network, and, with labels, the IoU of that network (one seed) and of TokenCut with least corners. Within a size, the first three cannot say which row is best; the first can say which rows of two sizes correspond.
# ```

# %% tags=["remove-cell"]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
edges = np.linspace(-0.2, 1, 121)
for name, size in histograms:
    if name == first.name:
        line = axes[0].plot(
            edges, [share_above(histograms[name, size], t) for t in edges], label=f"{size} px", marker=""
        )[0]
        axes[0].plot(
            taus[name, size], share_above(histograms[name, size], taus[name, size]), "o",
            color=line.get_color(),
        )  # fmt: skip
axes[0].set(xlabel="threshold $\\tau$", ylabel="share of pairs that are edges", ylim=(0, 1))
for size in TRIED:
    axes[1].plot(
        [by_tau[size, t]["edges"] for t in GRID],
        [by_tau[size, t]["iou"] for t in GRID],
        label=f"{size} px, coarse",
    )
    axes[1].plot(
        [by_tau[size, t]["edges"] for t in GRID],
        [by_tau[size, t]["cut"] for t in GRID],
        label=f"{size} px, TokenCut",
    )
axes[1].set(xlabel="share of pairs that are edges", ylabel="IoU", ylim=(0, 1))
for ax in axes:
    ax.grid(True, color="0.9")
    ax.set_axisbelow(True)
    ax.legend(fontsize=8)
glue("fig-tau-size", fig)

# %% [markdown]
# ```{glue:figure} fig-tau-size
# :name: fig-tau-size
# :alt: Left, the share of pairs of patches whose cosine exceeds a threshold, as falling curves for several input sizes, with a dot where each size has as many edges as the smallest at its known threshold. Right, IoU against the share of edges for two input sizes, for the coarse network and for TokenCut.
#
# Left: the same threshold keeps another share of the edges at another size; dots mark thresholds with equal shares.
# Right: IoU against the share of edges instead of the threshold.
# ```
#
# With the threshold of 224 pixels, .6, the share of edges at 336 pixels is
# {measured}`sempart-7-tau/336 px, τ = 0.6/edges|.3f` instead of
# {measured}`sempart-7-tau/224 px, τ = 0.6/edges|.3f`, and the coarse network reaches an IoU of
# {measured}`sempart-7-tau/336 px, τ = 0.6/iou|.3f` instead of {measured}`sempart-7-tau/224 px, τ = 0.6/iou|.3f`. The columns of
# $\lambda_2$ and of the held-out NCut move with the threshold by themselves, because the graph they speak of is another
# one in each row; the column of the IoU is not their mirror. On the axis of the
# share of edges the curves of two sizes can be laid over each other; where they peak at the same place, the rule is right.
#
# ## Table 7
#
# Both branches, trained at each size with the threshold of equal share, on the same scenes. At
# {eq}`eq-dop` fixed the patch would matter too; with one patch size here it does not enter.

# %%
rows, seven, networks, pairs = [], {}, {}, {d.name: {} for d in mask_sets}
for name, sizes in plan.items():
    backbone = first if name == first.name else load_backbone(name, device=cfg.device)
    for test in mask_sets:
        for size in sizes:
            key = (name, size) if test is mask_sets[0] else None
            feats = features.get(key) or extract_dataset(test, backbone, size=size)
            if key and name == first.name:
                features[key] = feats
            trained = [
                train(
                    train_set, backbone, **recipe(RECIPE, seed=s, size=size, tau=taus[name, size]),
                    steps=cfg.train_steps,
                ).model
                for s in SEEDS
            ]  # fmt: skip
            for branch in ("coarse", "fine"):
                methods = [SempartMethod(n, branch) for n in trained]
                seeds = measure(test, methods, backbone, features=feats, seed=cfg.seed)
                seven[test.name, size, branch] = seeds
                rows += seeds.records("sempart-7", f"{name}, {size} px: {branch}")
            networks[test.name, name, size] = trained
            pairs[test.name][f"{name}, {size} px: fine minus coarse"] = tuple(
                seven[test.name, size, b] for b in ("fine", "coarse")
            )
        low, high = min(sizes), max(sizes)
        for branch in ("coarse", "fine") if low != high else ():
            pairs[test.name][f"{name}, {branch}: {high} px minus {low} px"] = tuple(
                seven[test.name, s, branch] for s in (high, low)
            )
changes = {test: differences(compared) for test, compared in pairs.items()}
for found in changes.values():
    for row, d in found.items():
        rows += d.rows("sempart-7-differences", row)
save(rows)


def verdict(row):
    """What is said of the claim that a difference is positive, on the first data set."""
    found = changes[mask_sets[0].name]
    return found[row].claim() if row in found else "was not tested here"


low, high = (f(plan.get(first.name, (BASE,))) for f in (min, max))
for branch in ("coarse", "fine"):
    glue(f"claim-dop-{branch}", verdict(f"{first.name}, {branch}: {high} px minus {low} px"))
for key, size in (("small", low), ("large", high)):
    glue(f"claim-fine-{key}", verdict(f"{first.name}, {size} px: fine minus coarse"))

# %% [markdown]
# ```{paper-table} sempart-7
# :name: tab-sempart-7
# :profiles: demo
# :metrics: iou, iou_sd
# :reported: sempart-7
# :reported-metrics: iou
# :reported-all:
# :caption: SEMPART's Table 7. Ours: 96 demo train scenes, three seeds, measured on 100 test scenes. Rows A to H are the paper's: A and B DINOv2 ViT-S/14 at 224 pixels, C and D at 560, E and F DINO ViT-S/16 at 320, G and H DINO ViT-S/8 at 320; those networks were not run here.
# ```
#
# ```{paper-table} sempart-7-differences
# :name: tab-sempart-7-differences
# :profiles: demo
# :metrics: iou_change, p_holm
# :caption: Differences on the same scenes, paired by seed: mean with Student's 95 % interval over three seeds, and p of Wilcoxon's signed-rank test over scenes with Holm's correction for the rows.
# ```

# %% tags=["remove-cell"]
name, sizes = next(iter(plan.items())) if plan else (first.name, (BASE,))
low, high = min(sizes), max(sizes)
scenes = test if demo else load_dataset("demo", split="test", limit=24)
shown_features = {
    s: features[name, s] if demo else extract_dataset(scenes, first, size=s) for s in (low, high)
}
heads = {s: networks[mask_sets[0].name, name, s][0] for s in (low, high)}
shown = {
    (s, b): evaluate(
        scenes, SempartMethod(heads[s], b), first, features=shown_features[s], seed=cfg.seed
    ).per_image["iou"]
    for s in (low, high)
    for b in ("coarse", "fine")
}
order = np.argsort(shown[high, "fine"] - shown[low, "fine"], kind="stable")
chosen = list(dict.fromkeys(int(order[round(q * (len(order) - 1))]) for q in (0.05, 0.5, 0.95)))
lines, notes = [], {}
for r, i in enumerate(chosen):
    s = scenes[i]
    lines.append([(s.image, s.mask)])
    for c, (size, branch) in enumerate(shown, start=1):
        p = SempartMethod(heads[size], branch).predict(of_photograph(shown_features[size], i))
        lines[-1].append((s.image, p.resize(s.mask.shape).mask[0].numpy()))
        notes[r, c] = f"IoU {shown[size, branch][i]:.2f}"
fig = plots.mask_grid(
    lines, columns=["truth", *(f"{s} px, {b}" for s, b in shown)], notes=notes, width=9
)  # fmt: skip
glue("fig-sizes", fig)

# %% [markdown]
# ```{glue:figure} fig-sizes
# :name: fig-sizes
# :alt: Three demo scenes in rows with the true mask and the coarse and fine masks of networks at two input sizes, each with its IoU.
#
# Scenes at the 5 %, 50 % and 95 % quantile of what the larger input adds to the fine mask's IoU (seed 0). Cut-outs:
# Tux Paint stamps, GPL-2 ({doc}`/book/credits`).
# ```
#
# **Claim 1, a lower degree of pixelation is better.** From 224 to 336 pixels, with the threshold of equal share, the coarse
# mask changes by {measured}`sempart-7-differences/dinov2_vits14_reg_mri, coarse: 336 px minus 224 px/iou_change|+.3f ci` and the fine one by
# {measured}`sempart-7-differences/dinov2_vits14_reg_mri, fine: 336 px minus 224 px/iou_change|+.3f ci`. The claim
# {glue:text}`claim-dop-coarse` for the coarse mask and {glue:text}`claim-dop-fine` for the fine one (*holds* or *fails*: the corrected p
# is below .05 and the interval lies above or below 0; else *undecided*, and with three seeds the interval reaches 4.3 standard errors to
# either side). The paper's step from 224 to 560 pixels
# gives the coarse mask {reported}`sempart-7/A: Coarse/iou@duts_te` to {reported}`sempart-7/C: Coarse/iou@duts_te` on DUTS-TE.
# The grid alone allows a gain of no more than the difference of the two ceilings of {numref}`tab-sempart-7-grid`, and only to a
# mask that is otherwise perfect. What goes beyond it, or falls short of it, is due to the features: these were tuned
# at one size, and their cosines at another are not those of a larger picture of the same thing.
#
# **Claim 2, the fine mask beats its coarse one.** Fine minus coarse is
# {measured}`sempart-7-differences/dinov2_vits14_reg_mri, 224 px: fine minus coarse/iou_change|+.3f ci` at 224 pixels and
# {measured}`sempart-7-differences/dinov2_vits14_reg_mri, 336 px: fine minus coarse/iou_change|+.3f ci` at 336: the claim
# {glue:text}`claim-fine-small` at the smaller size and {glue:text}`claim-fine-large` at the larger one. In the paper the fine mask
# wins in all four pairs of rows, and by most in the pair of the highest DoP, A and B. Across seeds the
# fine mask at 224 pixels deviates by {measured}`sempart-7/dinov2_vits14_reg_mri, 224 px: fine/iou_sd|.3f`.
#
# ### The same on photographs
#
# ```{paper-table} sempart-7
# :name: tab-sempart-7-photos
# :profiles: photos
# :optional:
# :metrics: iou, iou_sd
# :caption: Trained on 400 photographs without labels, two seeds; the first 200 of the VOC 2012 animals saliency list.
# ```
#
# ```{paper-table} sempart-7-tau
# :name: tab-sempart-7-tau-photos
# :profiles: photos
# :optional:
# :metrics: edges, iou, iou_tokencut
# :no-ci:
# :caption: Thresholds at two sizes on photographs.
# ```
#
# ```{exercise-start} What 1600 tokens cost
# :label: ex-dop
# ```
# The rows of the paper with the lowest DoP have $6.25 \cdot 10^{-4}$. How many tokens are that, for which two pairs
# of patch and input, and how much memory takes $W$ of one photograph in single precision? How does it grow with the side
# of the input? At which side would a batch of eight reach 4 GB with patches of 14?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-dop
# :class: dropdown
# ```
# $N = 1 / \mathrm{DoP} = 1600$, a grid of $40 \times 40$: patches of 8 at 320 pixels and of 14 at 560. $W$ has $N^2$
# entries, and $N$ grows with the square of the side, so that the memory grows with its fourth power.

# %% tags=["nbval-check-output"]
for patch, side in ((8, 320), (14, 560), (14, 224), (14, 336)):
    tokens = (side // patch) ** 2
    print(f"patch {patch:2d}, {side} px: {tokens} tokens, W {4 * tokens**2 / 1e6:.2f} MB")
tokens = (4e9 / 8 / 4) ** 0.5
print(f"eight graphs fill 4 GB at {tokens:.0f} tokens, a side of {14 * int(tokens**0.5)} px")

# %% [markdown]
# ```{solution-end}
# ```
