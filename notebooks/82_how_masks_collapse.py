# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-collapse)=
# # How masks collapse
#
# **Claims.** A loss that asks two masks to agree is content with any mask that does. {cite:t}`liu2024diffncut` saw three ways to be content,
# and put something against each:
#
# 1. *Stripes.* Without regularisation the masks end in a horizontal pattern; with the horizontal template alone, in a vertical one
#    (figure 5 a, b).
# 2. *Uniform masks.* Without the projector a third pattern appears (figure 5 c).
# 3. *Two epochs.* The IoU peaks at the second, and without the regularisation it drops quickly after three (supplement, figure 1).
#
# Small trainings that try to provoke all this follow; {doc}`83_parts_of_the_framework` measures what each part is worth where nothing collapses yet.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
from dataclasses import replace

import pandas as pd
import torch

from sempart_core import plots
from sempart_core.backbones import load_backbone
from sempart_core.crop_pairs import crop_pairs
from sempart_core.datasets import load_dataset, of_profile
from sempart_core.evaluate import evaluate, extract_dataset
from sempart_core.finetune import finetune, load_siamese
from sempart_core.finetune_data import load_pairs
from sempart_core.finetune_recipes import finetune_recipe
from sempart_core.mask_consistency import PATTERNS, MaskConsistency, collapse_shares
from sempart_core.notebook import glue, save, start
from sempart_core.seeds import Seeds, compare
from sempart_core.tuned import load_tuned

cfg = start(profile, data_root, device, seed, name="82_how_masks_collapse")
smoke, paper = cfg.name == "smoke", cfg.dataset == "paper"
backbone = load_backbone("dino_vits16" if paper else "dinov2_vits14_reg_mri", device=cfg.device)
RECIPE = finetune_recipe("paper" if paper else "demo", steps=cfg.train_steps)
N = {"demo": 48, "photos": 256, "paper": None}[cfg.dataset]
KEEP = 1 if smoke else 24

whole = of_profile(cfg, "train")[0]
N = min(N or len(whole), len(whole))
photographs = whole if paper else [whole[i * len(whole) // N] for i in range(N)]
test = of_profile(cfg, "masks", limit=None if paper else 60)[0]
pairs = photographs
if not paper:
    views = {k: RECIPE[k] for k in ("size", "blocks", "colours")}
    pairs = load_pairs(photographs, backbone, each=RECIPE["crops"], seed=cfg.seed, **views)


def objective(**changes):
    """The recipe's objective with some values changed."""
    return MaskConsistency.preset(RECIPE["objective"], **changes)


# %% [markdown]
# ## Three templates
#
# What is close to a stripe? The monitor that every training logs takes a mask above one half and asks whether some set of whole rows, or of whole
# columns, has an IoU above .9 with it, and the complements too; *uniform* is a mask whose values span less than .05:

# %% tags=["nbval-check-output"]
y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
SHAPES = {
    "upper half": (y < 8).float(),
    "stripes": (y.long() % 4 < 2).float(),
    "left half": (x < 8).float(),
    "disc": ((y - 7.5) ** 2 + (x - 7.5) ** 2 < 30).float(),
    "grey": torch.full((16, 16), 0.5),
}
for name, shape in SHAPES.items():
    said = ", ".join(f"{k} {v:.0f}" for k, v in collapse_shares(shape[None]).items())
    print(f"{name:10}  {said}")

# %% [markdown]
# ## Provoked
#
# Each pattern has its own weight $\alpha_h, \alpha_v, \alpha_u$, so that one can be taken away. Four trainings of one seed, as in
# {doc}`81_two_views_one_mask` but {glue:text}`collapse-rate:g` times as fast and {glue:text}`collapse-length:g` times as long, so that
# what takes the paper epochs of ImageNet has a chance to happen here. For the third pattern the uniform template goes together with the projector, as
# in the paper, which added it when it had seen the pattern.

# %%
FAST = {**RECIPE, "lr": 5 * RECIPE["lr"], "epochs": 2 * RECIPE["epochs"], "keep_every": KEEP}
CASES = {
    "all templates": {},
    "no template": {"alpha": 0.0},
    "horizontal template alone": {"alpha_vertical": 0.0, "alpha_uniform": 0.0},
    "no projector": {"alpha_uniform": 0.0},
}
fast = {}
for name, changes in CASES.items():
    options = {
        **FAST,
        "objective": objective(**changes),
        "projector": name != "no projector",
        "seed": cfg.seed,
    }
    fast[name] = finetune(pairs, backbone, **options, device=cfg.device)
logs = {name: pd.DataFrame(result.log).set_index("step") for name, result in fast.items()}
glue("collapse-rate", FAST["lr"] / RECIPE["lr"])
glue("collapse-length", FAST["epochs"] / RECIPE["epochs"])

base = evaluate(
    test, "diffncut", backbone, features=extract_dataset(test, backbone, size=cfg.size, keep_images=False),
    seed=cfg.seed,
)  # fmt: skip
like = base.records("diffncut-collapse", "", only=["iou"], ci=None, preset="")[0]
params = {"lr": FAST["lr"], "steps": int(logs["no template"].index[-1]), "seeds": 1}
like = replace(like, dataset=whole.name, n=len(photographs), list_hash=whole.list_hash, params=params)
rows, last = [], {}
for name, log in logs.items():
    end = log[-max(1, len(log) // 5) :].mean()
    for key, metric in {
        **{f"near_{p}": f"near {p}" for p in PATTERNS},
        "iou": "pair iou",
        "selected": "selected",
    }.items():
        last[name, key] = float(end[key])
        rows.append(replace(like, row=name, metric=metric, value=float(end[key])))
save(rows)

# %% tags=["remove-cell"]
for p in PATTERNS:
    smooth = {
        name: log[f"near_{p}"].rolling(9, center=True, min_periods=1).mean() for name, log in logs.items()
    }
    lines = {name: (x.index, x) for name, x in smooth.items()}
    glue(f"fig-near-{p}", plots.curves(lines, "step", f"share near the {p} pattern", size=(5.6, 3.0)))


def seen(name, pattern):
    """What a training ended in, as words."""
    return "appears" if last[name, f"near_{pattern}"] > 0.5 else "does not appear"


glue("seen-horizontal", seen("no template", "horizontal"))
glue("seen-vertical", seen("horizontal template alone", "vertical"))
glue("seen-uniform", seen("no projector", "uniform"))
glue("seen-any", "end" if max(last["all templates", f"near_{p}"] for p in PATTERNS) > 0.5 else "do not end")

# %% [markdown]
# ```{glue:figure} fig-near-horizontal
# :name: fig-near-horizontal
# :alt: Share of masks close to a horizontal stripe against the training step, one line for each of four trainings.
#
# Masks near a set of whole rows, running mean over nine steps.
# ```
#
# ```{glue:figure} fig-near-vertical
# :name: fig-near-vertical
# :alt: Share of masks close to a vertical stripe against the training step, one line for each of four trainings.
#
# Masks near a set of whole columns.
# ```
#
# ```{glue:figure} fig-near-uniform
# :name: fig-near-uniform
# :alt: Share of masks that are nearly uniform against the training step, one line for each of four trainings.
#
# Masks of one grey.
# ```
#
# ```{paper-table} diffncut-collapse
# :name: tab-diffncut-collapse
# :profiles: demo
# :metrics: near horizontal; near vertical; near uniform; pair iou; selected
# :format: .2f
# :caption: Means over the last fifth of each training: shares of the training's masks near each pattern, IoU of the two masks of a pair, and share of pairs that count in the first term; trained on the given number of scenes, one seed.
# ```
#
# The horizontal pattern {glue:text}`seen-horizontal` without templates (a share of
# {measured}`diffncut-collapse/no template/near horizontal|.2f` of the masks), the vertical one {glue:text}`seen-vertical` with the horizontal template
# alone ({measured}`diffncut-collapse/horizontal template alone/near vertical|.2f`), the uniform one {glue:text}`seen-uniform` without the projector
# ({measured}`diffncut-collapse/no projector/near uniform|.2f`); "appears" means in more than half of the masks. With all three templates the masks
# {glue:text}`seen-any` in one of the patterns. What the loss rewards, the agreement of a pair, is an IoU of
# {measured}`diffncut-collapse/no template/pair iou|.2f` without templates and {measured}`diffncut-collapse/all templates/pair iou|.2f` with them.
#
# The masks that the loss sees, behind projector and predictor, on pairs of views of test scenes, at the end of each training:

# %%
scenes = load_dataset("demo", split="test", limit=cfg.limit or 12)
fixed = crop_pairs([s.image for s in scenes], RECIPE["size"], range(len(scenes)), colours=RECIPE["colours"])
shown = (0, 1) if smoke else (1, 4, 7, 10)
cells, labels, notes = [[fixed.views[0, i] for i in shown]], ["first view"], {}
frames = {(0, c): (fixed.boxes[0, i] * RECIPE["size"]).tolist() for c, i in enumerate(shown)}
for r, (name, result) in enumerate(fast.items(), 1):
    net = load_siamese(result, backbone).train()  # batch statistics in the heads, as in the training
    with torch.no_grad():
        x = net.encoder.trunk(fixed.views.flatten(0, 1).to(backbone.device)).unflatten(0, (2, len(scenes)))
        q1 = net(x, fixed.boxes.to(x), fixed.flips.to(x.device), (RECIPE["size"],) * 2)[0]
    m = torch.sigmoid(objective().vectors(q1) / objective().temperature).reshape(-1, *q1.shape[1:3]).cpu()
    cells.append([m[i] for i in shown])
    labels.append(name.replace("horizontal template", "horizontal"))
    notes |= {(r, c): f"{float(m[i].min()):.2f} to {float(m[i].max()):.2f}" for c, i in enumerate(shown)}

# %% tags=["remove-cell"]
glue("fig-collapse", plots.mask_grid(cells, labels=labels, notes=notes, boxes=frames, width=6.4))

# %% [markdown]
# ```{glue:figure} fig-collapse
# :name: fig-collapse
# :alt: Five rows. The first shows views of composed scenes with a box around the overlap with a second view, the others the soft mask of that overlap after each of four trainings, with its smallest and largest value below.
#
# The mask $m_1$ of the overlap (boxes) after each training, stretched to black and white, its range below (figure 5 of the paper). Cut-outs: Tux Paint stamps, GPL-2
# ({doc}`/book/credits`).
# ```
#
# And what becomes of the features? IoU of *Simple* on test scenes along two of these trainings, with all templates and with none (figure 1 of the
# supplement, there at the recipe's own rate):

# %%
rows, by_step = [], {}
ends = [s for s in range(KEEP, params["steps"] + 1, KEEP)]
kept = ends[:1] if smoke else [ends[len(ends) * k // 4 - 1] for k in range(1, 5)]


def of_nets(data, nets, method, cache=False, **options):
    """Evaluations of one method on several backbones."""
    runs = []
    for net in nets:
        f = extract_dataset(data, net, size=cfg.size, cache=cache, keep_images=False)
        runs.append(evaluate(data, method, net, features=f, seed=cfg.seed, **options))
    return Seeds(tuple(runs))


untuned = Seeds((base,))
on_the_way = {}
for name in ("all templates", "no template"):
    values = [untuned.means()[0]]
    for k, s in enumerate(kept, 1):
        of = of_nets(test, [load_tuned(backbone, fast[name].after(s))], "diffncut")
        values.append(of.means()[0])
        rows += of.records("diffncut-epochs", f"{k} of {len(kept)} quarters: {name}")
        on_the_way[f"{name}, end"] = of
    by_step[name] = ([0, *kept], values)
rows += untuned.records("diffncut-epochs", "untuned")
against = compare(on_the_way, untuned)
for row, d in against.items():
    rows += d.rows("diffncut-epochs-differences", row)
save(rows)

# %% tags=["remove-cell"]
glue("fig-epochs", plots.curves(by_step, "step", "IoU of Simple"))
glue("end-with", against["all templates, end"].verdict())
glue("end-without", against["no template, end"].verdict())

# %% [markdown]
# ```{glue:figure} fig-epochs
# :name: fig-epochs
# :alt: IoU against the training step, one line with all templates and one with none, from the untuned features at step 0 to the end of the training.
#
# IoU of *Simple* on 60 demo test scenes along the trainings of {numref}`tab-diffncut-collapse`, one seed.
# ```
#
# ```{paper-table} diffncut-epochs
# :name: tab-diffncut-epochs
# :profiles: demo
# :metrics: iou
# :caption: The points of {numref}`fig-epochs`; the learning rate falls along a cosine over the whole training, so that they are not finished trainings of that length.
# ```
#
# At the end the IoU against the untuned features is {glue:text}`end-with` with all templates
# ({measured}`diffncut-epochs-differences/all templates, end/iou_change|+.3f ci`) and {glue:text}`end-without` with none
# ({measured}`diffncut-epochs-differences/no template, end/iou_change|+.3f ci`; intervals over scenes, one training each). A peak at two epochs of ImageNet
# has no counterpart in so few scenes.
#
# ```{exercise-start} A stripe that pays
# :label: ex-stripe-pays
# ```
# Let the features of a view be the position embedding of the row, $f(y) = (\cos \pi y / h, \sin \pi y / h)$ at row $y$ of $h$. What is the Fiedler vector of $D - W$ with
# $W = \max(f f^\top, 0)$, and which mask follows in every view? What is the loss of a pair of views without flips up or down?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-stripe-pays
# :class: dropdown
# ```
# Rows near each other are alike and rows far apart are not, whatever the column, so the Fiedler vector changes from row to row in one direction and its
# sign once, between upper and lower half. The overlap is brought to one grid by its own upper and lower edge, whose rows still increase downwards in
# both views, so both masks are the upper half, and the loss is that of perfect agreement. The photograph plays no part.

# %% tags=["nbval-check-output"]
h = 8
angle = torch.pi * torch.arange(h, dtype=torch.float64) / h
f = torch.stack([angle.cos(), angle.sin()], -1)[:, None].expand(h, h, 2)
m = MaskConsistency.preset("code").vectors(f[None])[0].reshape(h, h) > 0
print(
    "rows of one sign:",
    bool((m == m[:, :1]).all()),
    "| sign changes down a column:",
    int((m[1:, 0] != m[:-1, 0]).sum()),
)

# %% [markdown]
# ```{solution-end}
# ```
