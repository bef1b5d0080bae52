# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-ablations)=
# # Ablations: foreground and architecture
#
# **Claims.** Table 4 of SEMPART {cite}`ravindran2023sempart` takes the method apart and reports a loss of IoU for
# every part that is missing. This chapter examines the rows about the choice of the
# foreground and about the architecture; the rows about the losses follow in {doc}`65_sempart_losses`.
#
# 1. *Foreground.* Calling the side with fewer corners the object is at least as good as the framing prior, closeness
#    to the centre, and total attention, which comes closest (section 4.1 and 4.4).
# 2. *Fine mask directly.* A network without the coarse branch, whose fine mask is averaged over the
#    patches and given to the normalized cut itself, is worse, "despite being almost equivalent in the number of
#    parameters" (section 4.4, figure 7 c).
# 3. *No joint training.* If the losses of the fine mask may not reach the encoder, the fine mask is worse (figure 7 b).
#
# Table 5 adds p-values of a paired Wilcoxon test over the photographs. It says less than it seems to, as
# the last section shows.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
import copy
import itertools
from dataclasses import replace

import numpy as np
import torch

from sempart_core import plots
from sempart_core.backbones import load_backbone
from sempart_core.datasets import load_dataset, of_profile
from sempart_core.evaluate import extract_dataset
from sempart_core.methods.sempart import SempartMethod
from sempart_core.models import load_head
from sempart_core.notebook import glue, save, start
from sempart_core.objective import Objective
from sempart_core.recipes import recipe
from sempart_core.records import Record
from sempart_core.seeds import compare, measure, spread_records, verdicts
from sempart_core.statistics import paired_wilcoxon
from sempart_core.train import train
from sempart_core.training_data import load_training_set

cfg = start(profile, data_root, device, seed, name="64_sempart_ablations")
paper = cfg.dataset == "paper"
backbone = load_backbone("dino_vits8" if paper else "dinov2_vits14_reg_mri", device=cfg.device)
RECIPE = recipe("paper" if paper else "demo", steps=cfg.train_steps)
TRAINED_ON = {"demo": 96, "photos": 400, "paper": None}[cfg.dataset]
TESTED_ON = 200 if cfg.dataset == "photos" else None
SEEDS = [cfg.seed + s for s in range(2 if cfg.name == "smoke" else 3)]

mask_sets = of_profile(cfg, "masks", limit=TESTED_ON)
mask_sets = mask_sets[:1] if cfg.dataset == "photos" else mask_sets
features = {d.name: extract_dataset(d, backbone, size=RECIPE["size"], batch=4) for d in mask_sets}
photographs = load_training_set(of_profile(cfg, "train", limit=TRAINED_ON)[0], backbone, size=RECIPE["size"])

# %% [markdown]
# ## Three trainings
#
# All settings share photographs, batches, learning rate and number of epochs. The joint and the detached
# training begin with an epoch of the coarse branch alone ({doc}`60_training_sempart`); for the fine mask trained
# directly there is no such epoch, and its first one counts like the others. Each is trained with three seeds.

# %%
SETTINGS = {
    "SEMPART-Fine": {},
    "train fine mask directly": {"branches": "fine", "coarse_epochs": 0},
    "w/o joint training": {"branches": "detached"},
}
trained = {
    name: [train(photographs, backbone, **{**RECIPE, "seed": s, **changes}) for s in SEEDS]
    for name, changes in SETTINGS.items()
}


def measured(data, name, branch="fine", foreground="least-corners"):
    """One setting on one data set, all seeds."""
    methods = [SempartMethod(result.model, branch, foreground) for result in trained[name]]
    return measure(data, methods, backbone, features=features[data.name], seed=cfg.seed)


# %% [markdown]
# ## The table
#
# The foreground rules need no training of their own: they turn the masks of the three joint trainings, or do not.

# %%
RULES = {"fs: framing prior": "framing", "fs: centrality": "centrality", "fs: total attention": "attention"}
ABLATIONS = [*RULES, "train fine mask directly", "w/o joint training"]
found, changes, rows = {}, {}, []
for data in mask_sets:
    of = {name: measured(data, name) for name in SETTINGS}
    of |= {row: measured(data, "SEMPART-Fine", foreground=rule) for row, rule in RULES.items()}
    of["SEMPART-Coarse"] = measured(data, "SEMPART-Fine", branch="coarse")
    of["w/o joint training, coarse"] = measured(data, "w/o joint training", branch="coarse")
    for row in [*ABLATIONS, "SEMPART-Fine", "w/o joint training, coarse", "SEMPART-Coarse"]:
        rows += of[row].records("sempart-4", row)
    found[data.name] = of
save(rows)

rows = []
for data in mask_sets:
    of = found[data.name]
    changes[data.name] = compare({row: of[row] for row in ABLATIONS}, of["SEMPART-Fine"])
    coarse = of["w/o joint training, coarse"].minus(of["SEMPART-Coarse"])
    for row, d in [*changes[data.name].items(), ("w/o joint training, coarse", coarse)]:
        rows += d.rows("sempart-5", row)
save(rows)

# %% [markdown]
# ```{paper-table} sempart-4
# :name: tab-sempart-4
# :profiles: demo
# :metrics: iou, iou_sd
# :reported: sempart-4
# :caption: IoU of the fine masks, mean over three seeds and its deviation over them; the interval is over images. Beside it Table 4 of the paper, one training a row. The two coarse rows are ours.
# ```
#
# ## The differences
#
# Each row minus SEMPART-Fine. Two intervals compete: the images are one source of chance, the seeds another.
# The interval in the table is Student's over the three differences of seeds that were paired (equal
# first weights, equal order of the photographs); with three seeds it is wide, and rightly so. The p-values belong to the paired
# Wilcoxon test over the images, each with its mean over the seeds; beside them Holm's correction for the
# five tests of this table. The three of {doc}`65_sempart_losses` are corrected among themselves: the chance of one wrong
# rejection is held in each of the two tables, not over their eight tests.
#
# ```{paper-table} sempart-5
# :name: tab-sempart-5
# :profiles: demo
# :rows: fs: framing prior; fs: centrality; fs: total attention; train fine mask directly; w/o joint training
# :metrics: iou_change, iou_change_sd, iou_change_median
# :format: +.3f
# :caption: Difference of IoU to SEMPART-Fine: mean with Student's 95 % interval over three seeds, deviation over seeds, median over images.
# ```
#
# ```{paper-table} sempart-5
# :name: tab-sempart-5-p
# :profiles: demo
# :rows: fs: framing prior; fs: centrality; fs: total attention; train fine mask directly; w/o joint training
# :metrics: p_value, p_holm
# :format: .2g
# :reported: sempart-5
# :reported-metrics: p_value
# :caption: p-values of the paired Wilcoxon test over images, raw and corrected, beside Table 5 of the paper, which tests four rows: of these rows the two of the architecture, and two of {doc}`65_sempart_losses`.
# ```
#
# A verdict needs both. "Lower" and "higher" are said where the corrected p-value is below .05 *and* the interval over
# seeds leaves out zero; all else is "undecided". The paper claims "lower" for every row.

# %%
for data in mask_sets:
    print(data.name, verdicts(changes[data.name]), sep="\n")

# %% tags=["remove-cell"]
shown = changes[mask_sets[0].name]
for row, name in {
    "fs: framing prior": "framing", "fs: centrality": "centrality", "fs: total attention": "attention",
    "train fine mask directly": "direct", "w/o joint training": "detached",
}.items():  # fmt: skip
    glue(f"verdict-{name}", shown[row].verdict())

# %% [markdown]
# ## Foreground
#
# Verdicts against least corners: framing prior {glue:text}`verdict-framing`, centrality {glue:text}`verdict-centrality`,
# total attention {glue:text}`verdict-attention`. The means are {measured}`sempart-5/fs: framing prior/iou_change|+.3f`,
# {measured}`sempart-5/fs: centrality/iou_change|+.3f` and {measured}`sempart-5/fs: total attention/iou_change|+.3f`. A rule can
# only change images on which it takes the other side. How many are these, and how often was the other side
# the better one?

# %%
rows = []
for data in mask_sets:
    of = found[data.name]
    base = np.stack([r.per_image["iou"] for r in of["SEMPART-Fine"].runs])
    for row in RULES:
        iou = np.stack([r.per_image["iou"] for r in of[row].runs])
        other, better = iou != base, iou > base
        (like,) = of[row].runs[0].records("sempart-sides", row, only=["iou"], ci=None)
        like = replace(like, params={"rule": RULES[row], "seeds": len(SEEDS)}, preset="")
        rows.append(replace(like, metric="other_side", value=float(other.mean())))
        rows.append(replace(like, metric="better_there", value=float(better.sum() / max(other.sum(), 1))))
    ends = [0, -1]
    corners = [int(data[i].mask[np.ix_(ends, ends)].sum()) for i in range(len(data))]
    value = float(np.mean(np.greater_equal(corners, 2)))
    rows.append(replace(like, row="truth", metric="two_corners", value=value, params={}))
save(rows)

# %% [markdown]
# ```{paper-table} sempart-sides
# :name: tab-sempart-sides
# :profiles: demo
# :rows: fs: framing prior; fs: centrality; fs: total attention
# :metrics: other_side, better_there
# :caption: Share of images on which a rule takes another side than least corners, and the share of these on which that side has the higher IoU. All three seeds.
# ```
#
# Total attention adds up over area, so an object that is attended to but small can lose to a large
# quiet background. Least corners errs where the object itself holds three corners or more, and at two it falls back to the
# smaller side; two or more occur in {measured}`sempart-sides/truth/two_corners|.3f` of the test scenes. A set of close-ups
# would suit the rule less, so a verdict on foreground rules is one about the photographs too.
#
# ## The fine mask directly
#
# The verdict on the fine mask trained directly: {glue:text}`verdict-direct`, by
# {measured}`sempart-5/train fine mask directly/iou_change|+.3f ci`. Pooled over the patches, its mask enters the same
# normalized cut as the coarse mask of the base training. What differs is the way there: the gradient of each patch
# passes through the whole refiner and its batch normalisation before it reaches the encoder, and neither a
# super-resolution loss nor a coarse mask exists. Does it find worse cuts, or other objects?

# %%
rows = []
like = Record("sempart-cuts", "", "", 0.0, n=len(SEEDS), backbone=backbone.name, seed=cfg.seed,
              backbone_sha256=backbone.sha256, dataset=of_profile(cfg, "train")[0].name)  # fmt: skip
for name, results in trained.items():
    for metric in ("held_out_ncut", "held_out_decided"):
        last = [r.log[-1][metric] for r in results]
        rows += spread_records(replace(like, row=name), metric.removeprefix("held_out_"), last)
save(rows)

# %% [markdown]
# ```{paper-table} sempart-cuts
# :name: tab-sempart-cuts
# :profiles: demo
# :metrics: ncut, ncut_sd, decided, decided_sd
# :caption: Normalized cut of the held-out photographs after the last epoch (the fine mask trained directly is averaged over patches for it) and the mean distance of the soft mask from 1/2, at most .5. Mean and deviation over three seeds, which is what n counts; each seed holds out one training photograph in twenty (5 of the 96 of this profile), and not the same ones.
# ```
#
# The expected cut is {measured}`sempart-cuts/train fine mask directly/ncut|.3f` after direct training and
# {measured}`sempart-cuts/SEMPART-Fine/ncut|.3f` for the base. Both numbers are of the same graph, so they say how far each
# training came in the same number of steps; a value near 1 means that it has not left the grey mask yet
# ({doc}`61_when_the_cut_converges`). Few photographs stand behind each value, so that small differences mean little. The paper takes hundreds of times as many steps. What is
# compared here is therefore also the speed of learning, and a difference in the cut explains a difference in IoU better
# than a difference in principle does.
#
# ## Joint training
#
# Verdict on the fine mask without joint training: {glue:text}`verdict-detached`, by
# {measured}`sempart-5/w/o joint training/iou_change|+.3f ci`. The paper's explanation is that co-optimisation
# serves *both* masks. The coarse mask of the detached training is that of a coarse branch
# alone; it stands at {measured}`sempart-4/w/o joint training, coarse/iou|.3f`, the coarse mask of joint training at
# {measured}`sempart-4/SEMPART-Coarse/iou|.3f`, a change of
# {measured}`sempart-5/w/o joint training, coarse/iou_change|+.3f ci`.
#
# How loud is the fine branch in the encoder, and does it pull the same way? The gradient of the losses of the coarse mask
# and that of $\lambda_f \mathcal{L}_{\mathrm{GTV\,fine}} + \lambda_{\mathrm{SR}} \mathcal{L}_{\mathrm{SR}}$,
# both with respect to the encoder's weights, on the first training photographs of one joint training: when
# the fine branch sets in, and at the end.

# %%
tau = backbone.tau(backbone.default_layer)
objective = Objective.preset(RECIPE["objective"], **({} if tau is None else {"tau": tau}))


def encoder_gradients(head, batches=4):
    """``(norm ratio, cosine)`` of the fine branch's and the coarse branch's gradient, a row a batch."""
    model = copy.deepcopy(load_head(head, cfg.device)).train()
    weights = [p for k, p in model.named_parameters() if not k.startswith(("refiner", "coarse"))]
    said = []
    for index in torch.arange(len(photographs)).split(RECIPE["batch"])[:batches]:
        x, images = photographs.batch(index, torch.device(cfg.device))
        masks = model(x, images, photographs.grid)
        terms = objective(masks.coarse, masks.fine, x, images)
        weighted = {k: getattr(objective, f"w_{k}") * v for k, v in terms.items() if k != "total"}
        coarse_terms = {"ncut", "gtv_coarse"}
        sums = [sum(v for k, v in weighted.items() if (k in coarse_terms) == own) for own in (True, False)]
        one, two = (
            torch.cat([g.flatten() for g in torch.autograd.grad(s, weights, retain_graph=True)]) for s in sums
        )
        cosine = torch.nn.functional.cosine_similarity(one, two, dim=0)
        said.append(((two.norm() / one.norm().clamp_min(1e-12)).item(), cosine.item()))
    return np.array(said)


rows = []
moments = {"when the fine branch sets in": RECIPE.get("coarse_epochs", 0), "after the last epoch": -1}
for moment, epoch in moments.items():
    said = []
    for result in trained["SEMPART-Fine"]:
        heads = result.epoch_heads
        said.append(encoder_gradients(heads[-1] if epoch == -1 else heads[max(epoch - 1, 0)]).mean(0))
    for metric, v in zip(("norm_ratio", "cosine"), np.transpose(said), strict=True):
        rows += spread_records(replace(like, table="sempart-joint", row=moment), metric, v)
save(rows)

# %% [markdown]
# ```{paper-table} sempart-joint
# :name: tab-sempart-joint
# :profiles: demo
# :metrics: norm_ratio, norm_ratio_sd, cosine, cosine_sd
# :format: .2f
# :caption: Gradient of the fine mask's losses in the encoder: its norm as a multiple of the coarse mask's, and the cosine between both. Means over four batches, then mean and deviation over three seeds.
# ```
#
# A cosine near 1 would mean that the fine branch repeats what the coarse losses say, near 0 that it says something else, below 0 that it
# works against them. When the fine branch sets in, its gradient in the encoder is
# {measured}`sempart-joint/when the fine branch sets in/norm_ratio|.2f` times as long as the coarse one, with a cosine of
# {measured}`sempart-joint/when the fine branch sets in/cosine|.2f`; at the end the ratio is
# {measured}`sempart-joint/after the last epoch/norm_ratio|.2f` and the cosine
# {measured}`sempart-joint/after the last epoch/cosine|.2f`, with a deviation over seeds of
# {measured}`sempart-joint/after the last epoch/cosine_sd|.2f`. At the beginning the fine mask is that of random weights, and the
# super-resolution loss asks the coarse mask to become what this mask can follow. In a training of thousands of steps
# such a start is forgotten; in one of a few dozen it is a good part of the whole, which is the first place to look for a
# reason where detached training does not come out lower here.
#
# ## What the masks look like
#
# Three scenes of the demo test set, spread over its list and not chosen by eye, with the first seed of each training.

# %% tags=["remove-cell"]
scenes = mask_sets[0] if cfg.dataset == "demo" else load_dataset("demo", split="test", limit=cfg.limit)
first = len(scenes) // 4
chosen = [first, 2 * first, 3 * first]
part = extract_dataset([scenes[i] for i in chosen], backbone, size=RECIPE["size"])[0]
columns = ["scene", "truth", "joint, coarse", "joint, fine", "fine directly", "detached, fine"]
shown_masks = [
    SempartMethod(trained[name][0].model, branch).predict(part)
    for name, branch in [
        ("SEMPART-Fine", "coarse"), ("SEMPART-Fine", "fine"), ("train fine mask directly", "fine"),
        ("w/o joint training", "fine"),
    ]
]  # fmt: skip
cells = []
for k, i in enumerate(chosen):
    s = scenes[i]
    masks = [p[k].resize(s.mask.shape).mask[0].numpy() for p in shown_masks]
    cells.append([s.image, (s.image, s.mask), *((s.image, m) for m in masks)])
glue("fig-ablations", plots.mask_grid(cells, columns=columns, width=10))

# %% [markdown]
# ```{glue:figure} fig-ablations
# :name: fig-ablations
# :alt: Three composed scenes in rows. Columns show the scene, the true mask, the coarse and the fine mask of joint training, the fine mask that was trained directly, and the fine mask of detached training, each tinted over the scene with an outline.
#
# Masks of the three trainings on scenes of the demo test set, first seed. Cut-outs: Tux Paint stamps, GPL-2
# ({doc}`/book/credits`).
# ```
#
# ## What a p-value over images says
#
# Table 5 compares two networks, each trained once. The test asks whether *these two networks* differ, and with hundreds or
# thousands of images it finds even differences that mean nothing. To see how
# easily, compare the base training with itself: same recipe, other seed.

# %%
rows = []
for data in mask_sets:
    base = found[data.name]["SEMPART-Fine"].runs
    for (i, a), (j, b) in itertools.combinations(enumerate(base), 2):
        test = paired_wilcoxon(b.per_image["iou"], a.per_image["iou"])
        (one,) = b.records("sempart-seeds", f"seed {SEEDS[j]} minus seed {SEEDS[i]}", only=["iou"], ci=None)
        rows.append(replace(one, metric="iou_change", value=test.mean))
        rows.append(replace(one, metric="p_value", value=test.p, preset=""))
save(rows)

# %% [markdown]
# ```{paper-table} sempart-seeds
# :name: tab-sempart-seeds
# :profiles: demo
# :metrics: iou_change, p_value
# :format: .2g
# :caption: The same recipe against itself with another seed: difference of the mean IoU, and the p-value of the paired Wilcoxon test over images.
# ```
#
# Here no difference of recipes exists, only of seeds, so every p-value below .05 in this table is one that would
# be read wrongly. The deviation of the mean IoU over seeds is
# {measured}`sempart-4/SEMPART-Fine/iou_sd|.3f` for the base. The paper's rows are one training
# each; differences such as {reported}`sempart-4/w/o joint training/iou@ecssd` against
# {reported}`sempart-4/SEMPART-Fine/iou@ecssd` would have to be compared with the deviation over seeds on its data, which is
# not reported. Our trainings are short, and the deviation of long ones may be smaller.
#
# ## On photographs
#
# The same three trainings on the first 400 photographs of an unlabelled folder, measured on the first 200 of the VOC list,
# are the rows of the profile `photos` (`make run PROFILE=photos DATA_ROOT=folder`; {doc}`/book/status`).
#
# ```{paper-table} sempart-4
# :name: tab-sempart-4-photos
# :profiles: photos
# :optional:
# :rows: fs: framing prior; fs: centrality; fs: total attention; train fine mask directly; w/o joint training; SEMPART-Fine
# :metrics: iou, iou_sd
# :reported: sempart-4
# :caption: The same on photographs, where that profile was run.
# ```
#
# ```{exercise-start} How many seeds?
# :label: ex-seeds
# ```
# Let the question be about the recipes. Pair the trainings by seed and count only the sign of each
# difference. How many seeds does a two-sided sign test need before it can reach $p < .05$ at all, and how many for
# $p < .001$, the value that fills the paper's Table 5?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-seeds
# :class: dropdown
# ```
# If all $n$ signs agree, $p = 2 \cdot 2^{-n}$; fewer cannot be had.

# %% tags=["nbval-check-output"]
for level in (0.05, 0.001):
    n = next(n for n in itertools.count(1) if 2 * 0.5**n < level)
    print(f"p < {level}: {n} seeds")

# %% [markdown]
# Student's interval asks for fewer because it assumes that the differences are normal, which three numbers cannot show.
# ```{solution-end}
# ```
