# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-parts)=
# # What each part is worth
#
# **Claims.** {cite:t}`liu2024diffncut` take one part of their framework away at a time and report that
#
# 1. *each part counts*: without the structural regularisation, without the projector, or with agreement of pixels instead of masks, the
#    IoU and the boxes are worse (Table 5, supplement Table 1);
# 2. *a middle weight is best*: too weak or too strong a regularisation harms, and $\alpha = .05$ is best (supplement Table 2).
#
# "If a model variant collapses, we evaluate the checkpoint before collapsing" (section 4.5), so that the paper's tables do not show what a collapse costs, and
# someone has to pick the checkpoint. Here every training runs to its end; {doc}`82_how_masks_collapse` has the longer ones.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]


from sempart_core.backbones import load_backbone
from sempart_core.datasets import of_profile
from sempart_core.finetune import finetune
from sempart_core.finetune_data import load_pairs
from sempart_core.finetune_recipes import finetune_recipe
from sempart_core.mask_consistency import MaskConsistency
from sempart_core.notebook import glue, save, start
from sempart_core.seeds import Seeds, compare, measure_backbones, verdicts

cfg = start(profile, data_root, device, seed, name="83_parts_of_the_framework")
smoke, paper = cfg.name == "smoke", cfg.dataset == "paper"
backbone = load_backbone("dino_vits16" if paper else "dinov2_vits14_reg_mri", device=cfg.device)
RECIPE = finetune_recipe("paper" if paper else "demo", steps=cfg.train_steps)
N = {"demo": 48, "photos": 256, "paper": None}[cfg.dataset]
SEEDS = [cfg.seed + s for s in range(2 if smoke else 3)]

whole = of_profile(cfg, "train")[0]
photographs = whole if paper else whole.spread(N)
test = of_profile(cfg, "masks", limit=None if paper else 40)[0]
boxes = of_profile(cfg, "boxes", limit=None if paper else 40)[0]
pairs = photographs
if not paper:
    views = {k: RECIPE[k] for k in ("size", "blocks", "colours")}
    pairs = load_pairs(photographs, backbone, each=RECIPE["crops"], seed=cfg.seed, **views)


def objective(**changes):
    """The recipe's objective with some values changed."""
    return MaskConsistency.preset(RECIPE["objective"], **changes)


# %% [markdown]
# ## One part at a time
#
# The recipe at its own speed, three seeds. *Simple* makes the masks and TokenCut the boxes, as in the paper. "Ours" are the trainings of
# {doc}`81_two_views_one_mask`. The paper names no temperatures for the agreement of pixels; those of DINO are taken.


# %%
measured = {"size": cfg.size, "seed": cfg.seed}
untuned = measure_backbones(test, "diffncut", [backbone], cache=True, **measured)
PARTS = {
    "Ours": ({}, True),
    "w/o structural regularization": ({"alpha": 0.0}, True),
    "w/o projector": ({}, False),
    "pixel consistency": ({"consistency": "pixel"}, True),
}


def trained(changes, projector=True, seeds=SEEDS):
    """Tuned backbones of one setting, one a seed."""
    own = {**RECIPE, "objective": objective(**changes), "projector": projector}
    return [finetune(pairs, backbone, **{**own, "seed": s}, device=cfg.device).backbone for s in seeds]


rows, masks, found = [], {}, {}
for row, (changes, projector) in PARTS.items():
    nets = trained(changes, projector)
    masks[row] = measure_backbones(test, "diffncut", nets, **measured)
    found[row] = measure_backbones(boxes, "tokencut", nets, **measured)
    rows += masks[row].records("diffncut-5", row) + found[row].records(
        "diffncut-supplement-1", row, ["corloc"]
    )
rows += untuned.records("diffncut-5", "untuned")
found_untuned = measure_backbones(boxes, "tokencut", [backbone], cache=True, **measured)
rows += found_untuned.records("diffncut-supplement-1", "untuned", ["corloc"])
PARTLY = list(PARTS)[1:]
worse = compare({row: masks[row] for row in PARTLY}, masks["Ours"])
fewer = compare({row: found[row] for row in PARTLY}, found["Ours"], "corloc")
for row in PARTLY:
    rows += worse[row].rows("diffncut-5-differences", row)
    rows += fewer[row].rows("diffncut-supplement-1-differences", row)
save(rows)
print(verdicts(worse), verdicts(fewer), sep="\n")

# %% tags=["remove-cell"]
for row, name in zip(PARTLY, ("templates", "projector", "pixel"), strict=True):
    glue(f"part-{name}", worse[row].claim("lower"))
    glue(f"box-{name}", fewer[row].claim("lower"))

# %% [markdown]
# ```{paper-table} diffncut-5
# :name: tab-diffncut-5
# :profiles: demo
# :metrics: iou, iou_sd
# :reported: diffncut-5
# :caption: Table 5: IoU of *Simple* on tuned features without one part, 40 demo test scenes, mean over three seeds and deviation; the paper's rows beside.
# ```
#
# ```{paper-table} diffncut-5-differences
# :name: tab-diffncut-5-differences
# :profiles: demo
# :metrics: iou_change, iou_change_sd, p_holm
# :caption: Differences to "Ours" with Student's 95 % interval over three seeds, and p over scenes with Holm's correction for the three rows.
# ```
#
# ```{paper-table} diffncut-supplement-1
# :name: tab-diffncut-supplement-1
# :profiles: demo
# :metrics: corloc, corloc_sd
# :reported: diffncut-supplement-1
# :caption: Supplement Table 1: the same for boxes of TokenCut (CorLoc), 40 demo discovery scenes, resized.
# ```
#
# ```{paper-table} diffncut-supplement-1-differences
# :name: tab-diffncut-supplement-1-differences
# :profiles: demo
# :metrics: corloc_change, corloc_change_sd, p_holm
# :caption: Differences of CorLoc to "Ours".
# ```
#
# *The regularisation.* Without it the IoU changes by
# {measured}`diffncut-5-differences/w/o structural regularization/iou_change|+.3f ci`: that it is lower {glue:text}`part-templates`, and for
# CorLoc it {glue:text}`box-templates`. *The projector.* {measured}`diffncut-5-differences/w/o projector/iou_change|+.3f ci`: that it is lower
# {glue:text}`part-projector`, for CorLoc it {glue:text}`box-projector`. *Pixels instead of masks.*
# {measured}`diffncut-5-differences/pixel consistency/iou_change|+.3f ci`: that it is lower {glue:text}`part-pixel`, for CorLoc it
# {glue:text}`box-pixel`. Against the untuned features, in the first table, one sees whether the parts matter because they help or because they keep
# from harm.
#
# ## The weight of the templates

# %%
ALPHAS = (0.0, 0.025, 0.05, 0.1, 0.4) if not smoke else (0.0, 0.05, 0.4)
SAME = {0.0: "w/o structural regularization", 0.05: "Ours"}  # trained above
of_alpha = {}
for alpha in ALPHAS:
    if alpha in SAME:
        of_alpha[alpha] = Seeds(masks[SAME[alpha]].runs[:1])
    else:
        nets = trained({"alpha": alpha}, seeds=SEEDS[:1])
        of_alpha[alpha] = measure_backbones(test, "diffncut", nets, **measured)
by_alpha = compare({f"alpha = {a}": of for a, of in of_alpha.items() if a != 0.05}, of_alpha[0.05])
rows = [r for a, of in of_alpha.items() for r in of.records("diffncut-supplement-2", f"alpha = {a}")]
for row, d in by_alpha.items():
    rows += d.rows("diffncut-supplement-2", row)
save(rows)
print(verdicts(by_alpha))

# %% tags=["remove-cell"]
best = max(of_alpha, key=lambda a: of_alpha[a].means()[0])
glue("alpha-best", f"{best:g}")
glue("alpha-weak", by_alpha["alpha = 0.0"].claim("lower"))
glue("alpha-strong", by_alpha["alpha = 0.4"].claim("lower"))

# %% [markdown]
# ```{paper-table} diffncut-supplement-2
# :name: tab-diffncut-supplement-2
# :profiles: demo
# :metrics: iou, iou_change, p_holm
# :reported: diffncut-supplement-2
# :caption: Supplement Table 2: IoU of *Simple* by the weight $\alpha$ of all three templates, one seed, difference to .05 with a bootstrap interval over scenes, beside the paper's.
# ```
#
# Among these weights {glue:text}`alpha-best` has the highest mean on one seed. That none at all is worse than .05
# {glue:text}`alpha-weak`, that .4 is worse {glue:text}`alpha-strong`, as far as one training each can tell.
#
# ```{exercise-start} A gain that is none
# :label: ex-gain-none
# ```
# Suppose that a variant without a part has the same IoU as "Ours", and both lie above the untuned features. Write down two explanations, one in which the part is
# useless and one in which it is not, and the experiment that tells them apart.
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-gain-none
# :class: dropdown
# ```
# Either the part does nothing, or it guards against something that a training of this length does not reach. Train longer, or faster, and watch the monitor: the
# trainings of {doc}`82_how_masks_collapse` do that for the templates and the projector.
# ```{solution-end}
# ```
