# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (chap-how-long)=
# # How long to tune
#
# **Claims.** The supplement of {cite:t}`liu2024diffncut` draws the IoU on ECSSD against the epochs of tuning (its figure 1, which prints no numbers) and
# says that
#
# 1. *with the structural regularisation the training is stable*, and the curve is highest after two epochs of ImageNet;
# 2. *without it the IoU drops quickly* after the third.
#
# Such a curve raises two doubts. If its points are checkpoints along one training, as the public code suggests, they share one schedule, and the network after the second of ten epochs is not the one that two epochs would have
# given; here every length is a training of its own, to the end of its own cosine, with three seeds. And whoever reads the best length off the curve has looked at the masks that the
# network is then measured on; the last section asks who else could have chosen it.

# %% tags=["parameters", "hide-input"]
profile = "demo"  # smoke | demo | photos | paper
data_root = ""  # folder of real photographs, for photos and paper
device = "auto"  # auto | cpu | cuda
seed = 0

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import pandas as pd

from sempart_core import plots
from sempart_core.backbones import load_backbone
from sempart_core.datasets import load_dataset, of_profile
from sempart_core.evaluate import evaluate, extract_dataset
from sempart_core.finetune import finetune
from sempart_core.finetune_data import load_pairs
from sempart_core.finetune_recipes import finetune_recipe
from sempart_core.mask_consistency import PATTERNS, MaskConsistency
from sempart_core.notebook import glue, save, start
from sempart_core.seeds import Seeds, differences, spread_records, verdicts
from sempart_core.tuned import load_tuned

cfg = start(profile, data_root, device, seed, name="86_how_long_to_tune")
smoke, photos, paper = cfg.name == "smoke", cfg.dataset == "photos", cfg.dataset == "paper"
backbone = load_backbone("dino_vits16" if paper else "dinov2_vits14_reg_mri", device=cfg.device)
RECIPE = finetune_recipe(cfg.dataset, steps=cfg.train_steps)
SEEDS = [cfg.seed + s for s in range(2 if smoke else 3)]
LENGTHS = {"demo": (2, 4) if smoke else (2, 4, 8), "photos": (1, 2, 4), "paper": (1, 2, 4)}[cfg.dataset]
BARE = () if photos else LENGTHS[1:]  # lengths without the templates
N = {"demo": 48, "photos": 320, "paper": None}[cfg.dataset]

whole = of_profile(cfg, "train")[0]
tests = of_profile(cfg, "masks", limit={"demo": 40}.get(cfg.dataset))
if photos:
    tests = [data.spread(n) for data, n in zip(tests, (150, 80, 70), strict=True)]
# Composed scenes with exact masks, which may choose a length for photographs.
scenes = [load_dataset("demo", split="train", limit=cfg.limit).spread(48)] if photos or smoke else []


def pairs_of(photographs):
    """Fixed pairs of views behind the frozen trunk; in the paper's recipe new ones at each step."""
    if paper:
        return photographs
    views = {k: RECIPE[k] for k in ("size", "blocks", "colours")}
    return load_pairs(photographs, backbone, each=RECIPE["crops"], seed=cfg.seed, **views)


# %% [markdown]
# ## Trainings of several lengths
#
# On demo scenes an epoch is {glue:text}`length-epoch` steps of {glue:text}`length-batch` pairs, the data of {doc}`81_two_views_one_mask`, whose training is the one of four epochs;
# the one of four epochs without templates is that of {doc}`83_parts_of_the_framework`. The photographs of the profile `photos` are those behind the shipped backbone of
# {doc}`84_tuned_on_photographs`, which is the mean of the three networks of two epochs. Neither epoch comes near one of ImageNet: lengths can be compared within
# a column here, and not with the paper's.
#
# Each setting gives one network a seed, and one more: the network whose weights are the mean of theirs {cite}`wortsman2022soups`.


# %%
def named(epochs, templates=True):
    """The row of a length."""
    return f"{epochs} epoch{'s' * (epochs > 1)}{'' if templates else ', no template'}"


def tuned(pairs, **changes):
    """Differences and logs of one setting, one a seed; its networks are made again when they are measured."""
    own = ({**RECIPE, **changes, "seed": s} for s in SEEDS)
    results = [finetune(pairs, backbone, **options, device=cfg.device) for options in own]
    return [r.delta for r in results], [pd.DataFrame(r.log).set_index("step") for r in results]


chosen = whole.spread(N or len(whole))
pairs = pairs_of(chosen)
bare = MaskConsistency.preset(RECIPE["objective"], alpha=0.0)
of_setting = {named(e): tuned(pairs, epochs=e) for e in LENGTHS}
of_setting |= {named(e, False): tuned(pairs, epochs=e, objective=bare) for e in BARE}
SETTINGS = list(of_setting)
glue("length-epoch", max(1, len(chosen) // RECIPE["batch"]))
glue("length-batch", RECIPE["batch"])

# %% [markdown]
# ## Masks
#
# *Simple* is the sign of the Fiedler vector, the method of the supplement's figure; TokenCut takes the side with the least corners, at the threshold of the untuned features.

# %%
METHODS = {
    "Simple": ("diffncut", {}, "diffncut-epochs"),
    "TokenCut": ("tokencut", {"foreground": "least-corners"}, "diffncut-epochs-tokencut"),
}
MEAN = "mean of three, "


def measured(data, nets, cache=False):
    """Both methods on the features of some backbones."""
    runs = {name: [] for name in METHODS}
    for net in nets:
        f = extract_dataset(data, net, size=cfg.size, cache=cache, keep_images=False)
        for name, (method, params, _) in METHODS.items():
            runs[name].append(evaluate(data, method, net, features=f, seed=cfg.seed, **params))
    return {name: Seeds(tuple(r)) for name, r in runs.items()}


found = {}  # data set -> row -> method -> evaluations
for data in [*tests, *scenes]:
    of = found[data.name] = {"untuned": measured(data, [backbone], cache=True)}
    for row, (deltas, _) in of_setting.items():
        of[row] = measured(data, (load_tuned(backbone, d) for d in deltas))
        if len(deltas) > 1:
            of[MEAN + row] = measured(data, [load_tuned(backbone, deltas)])

FIRST, LAST = named(LENGTHS[0]), named(LENGTHS[-1])
compared = [(row, "untuned") for row in SETTINGS] + [(LAST, FIRST)]
compared += [(named(e, False), named(e)) for e in BARE]
if len(BARE) > 1:
    compared.append((named(BARE[-1], False), named(BARE[0], False)))
rows, changes, against_mean = [], {}, {}
for data, of in found.items():
    for name, (_, _, table) in METHODS.items():
        for row, seeds in of.items():
            rows += seeds[name].records(table, row)
        couples = {f"{a} minus {b}": (of[a][name], of[b][name]) for a, b in compared}
        changes[data, name] = differences(couples)
        with_mean = [row for row in SETTINGS if MEAN + row in of]
        couples = {f"{row} minus their mean": (of[row][name], of[MEAN + row][name]) for row in with_mean}
        against_mean[data, name] = differences(couples)
        for row, d in changes[data, name].items():
            rows += d.rows(f"{table}-differences", row)
        for row, d in against_mean[data, name].items():
            rows += d.rows(f"{table}-mean", row)
        print(data, name, verdicts(changes[data, name]), verdicts(against_mean[data, name]), sep="\n")
save(rows)

# %% tags=["remove-cell"]
shown = tests[0].name


def curve(name, rows):
    """Means and deviations over the seeds of some rows."""
    values = [found[shown][row][name].means() for row in rows]
    return np.array([v.mean() for v in values]), np.array([v.std(ddof=min(1, len(v) - 1)) for v in values])


for name in METHODS:
    lines, bands = {}, {}
    for label, lengths, templates in (("all templates", LENGTHS, True), ("no template", BARE, False)):
        if lengths:
            mean, sd = curve(name, [named(e, templates) for e in lengths])
            lines[label], bands[label] = (lengths, mean), (mean - sd, mean + sd)
    lines["mean of three, all templates"] = (LENGTHS, curve(name, [MEAN + named(e) for e in LENGTHS])[0])
    level = curve(name, ["untuned"])[0][0]
    lines["untuned"] = (LENGTHS[:: len(LENGTHS) - 1], [level, level])
    figure = plots.curves(lines, "epochs", f"IoU of {name}", bands=bands)
    figure.axes[0].set_xticks(LENGTHS)
    glue(f"fig-length-{name.lower()}", figure)
    own = changes[shown, name]
    key = name.lower()
    glue(f"length-{key}-short", own[f"{FIRST} minus untuned"].verdict())
    glue(f"length-{key}-long", own[f"{LAST} minus untuned"].verdict())
    glue(f"length-{key}-falls", own[f"{LAST} minus {FIRST}"].claim("lower"))
    glue(f"length-{key}-best", max(map(named, LENGTHS), key=lambda r: found[shown][r][name].means().mean()))
    if BARE:
        low, high = named(BARE[0], False), named(BARE[-1], False)
        glue(f"length-{key}-bare", own[f"{high} minus untuned"].verdict())
        glue(f"length-{key}-sooner", own[f"{high} minus {named(BARE[-1])}"].claim("lower"))
        if low != high:
            glue(f"length-{key}-bare-falls", own[f"{high} minus {low}"].claim("lower"))
    said = against_mean[shown, name]
    glue(f"length-{key}-mean", sum(d.verdict() == "lower" for d in said.values()))
    glue(f"length-{key}-each", sum(d.verdict() == "higher" for d in said.values()))
glue("length-means", len(said))

# %% [markdown]
# ```{glue:figure} fig-length-simple
# :name: fig-length-simple
# :alt: IoU of Simple against the number of epochs: a line with all templates and one with none, each with a band of one deviation over seeds, a line for the mean of three networks, and the untuned features as a level line.
#
# IoU of *Simple* on 40 demo test scenes by the length of the tuning, mean and one deviation over three seeds (the supplement's figure 1).
# ```
#
# ```{glue:figure} fig-length-tokencut
# :name: fig-length-tokencut
# :alt: IoU of TokenCut against the number of epochs: the same lines and bands.
#
# The same for TokenCut with the side of least corners.
# ```
#
# ```{paper-table} diffncut-epochs
# :name: tab-length-simple
# :profiles: demo
# :metrics: iou, iou_sd
# :caption: IoU of *Simple* by length, mean over three seeds and deviation; "mean of three" is one network, the mean of their weights.
# ```
#
# ```{paper-table} diffncut-epochs-tokencut
# :name: tab-length-tokencut
# :profiles: demo
# :metrics: iou, iou_sd
# :caption: The same for TokenCut.
# ```
#
# ```{paper-table} diffncut-epochs-differences
# :name: tab-length-simple-differences
# :profiles: demo
# :metrics: iou_change, iou_change_sd, p_holm
# :caption: Differences of *Simple*'s IoU with Student's 95 % interval over three seeds, their deviation, and p over scenes with Holm's correction for the rows of the table.
# ```
#
# ```{paper-table} diffncut-epochs-tokencut-differences
# :name: tab-length-tokencut-differences
# :profiles: demo
# :metrics: iou_change, iou_change_sd, p_holm
# :caption: The same for TokenCut.
# ```
#
# *Length.* With all templates *Simple* is {glue:text}`length-simple-short` than untuned after the shortest tuning
# ({measured}`diffncut-epochs-differences/2 epochs minus untuned/iou_change|+.3f ci`) and {glue:text}`length-simple-long` after the longest
# ({measured}`diffncut-epochs-differences/8 epochs minus untuned/iou_change|+.3f ci`), where "undecided" means that seeds or scenes could turn the sign. That the longest is worse
# than the shortest, which the paper does not claim, {glue:text}`length-simple-falls` ({measured}`diffncut-epochs-differences/8 epochs minus 2 epochs/iou_change|+.3f ci`); the highest mean has the row
# "{glue:text}`length-simple-best`". TokenCut is {glue:text}`length-tokencut-short` after the shortest, {glue:text}`length-tokencut-long` after the longest
# ({measured}`diffncut-epochs-tokencut-differences/8 epochs minus untuned/iou_change|+.3f ci`), the claim between the two {glue:text}`length-tokencut-falls`, and the highest mean is at
# "{glue:text}`length-tokencut-best`".
#
# *Templates.* Without them eight epochs leave *Simple* {glue:text}`length-simple-bare` against the untuned features
# ({measured}`diffncut-epochs-differences/8 epochs, no template minus untuned/iou_change|+.3f ci`). That eight are worse than four there {glue:text}`length-simple-bare-falls`; that
# eight without are worse than eight with templates {glue:text}`length-simple-sooner`
# ({measured}`diffncut-epochs-differences/8 epochs, no template minus 8 epochs/iou_change|+.3f ci`). For TokenCut: {glue:text}`length-tokencut-bare` against untuned, the
# first of the two claims {glue:text}`length-tokencut-bare-falls`, and the second {glue:text}`length-tokencut-sooner`
# ({measured}`diffncut-epochs-tokencut-differences/8 epochs, no template minus 8 epochs/iou_change|+.3f ci`).
#
# Three seeds are few: Student's interval of a mean of three is 2.5 deviations wide to each side, so that only differences of more than that are decided, and a claim that
# is undecided is not refuted. The deviation over seeds, in the tables, is the size of the luck that a single training has; the seeds share the pairs of views, so
# that the luck of the crops is not in it.
#
# ## One network of three
#
# A mean of three IoUs is no network that one could ship. The mean of three networks' weights is; it costs the three trainings, and nothing more when it is used.
#
# ```{paper-table} diffncut-epochs-mean
# :name: tab-length-simple-mean
# :profiles: demo, photos
# :metrics: iou_change, p_holm
# :caption: *Simple* on each of three networks minus *Simple* on the mean of their weights: mean of the three differences, Student's interval; negative where the mean of the weights is better.
# ```
#
# ```{paper-table} diffncut-epochs-tokencut-mean
# :name: tab-length-tokencut-mean
# :profiles: demo, photos
# :metrics: iou_change, p_holm
# :caption: The same for TokenCut.
# ```
#
# On demo scenes, of {glue:text}`length-means` settings, the mean of the weights is better than its three networks in {glue:text}`length-simple-mean` with *Simple* and in
# {glue:text}`length-tokencut-mean` with TokenCut, and worse in {glue:text}`length-simple-each` and {glue:text}`length-tokencut-each`; the others are undecided.
# There is one mean for each setting, made of these very networks: the interval does not say how another three and their mean would compare.
#
# ## Choosing without the masks
#
# On photographs every length has a cost that the curve hides: someone has to pick one. Three ways to do it, for each method. *The masks themselves*: the highest IoU on the very pictures that
# are measured; no other choice can look better, and the number flatters. *Composed scenes*: the highest IoU on 48 demo training scenes, whose masks are exact because
# they were composed; nobody drew them, but scenes of that split have already chosen layer and threshold of this backbone. *The agreement of the pairs*: the IoU
# of the two masks of a pair in the second half of the last epoch, which the log has without any label. The first two may also say "0 epochs", that is, leave the backbone as it is; the
# agreement cannot, since before the first step its projector and predictor are random.

# %%
NEAR = [f"near_{p}" for p in PATTERNS]
rows, agreement = [], {}
for row, (deltas, logs) in of_setting.items():
    ends = [log[log["epoch"] == log["epoch"].max()] for log in logs]
    ends = [log[-((len(log) + 1) // 2) :] for log in ends]
    like = found[shown][row]["Simple"].records("diffncut-epochs-agreement", row, ci=None, preset="")[0]
    params = {"steps": int(logs[0].index[-1]), "batch": RECIPE["batch"], "seeds": len(deltas)}
    like = replace(
        like, ci=None, dataset=whole.name, n=len(chosen), list_hash=chosen.list_hash, params=params
    )
    agreement[row] = float(np.mean([log["iou"].mean() for log in ends]))
    rows += spread_records(like, "pair iou", [log["iou"].mean() for log in ends])
    rows += spread_records(like, "near a pattern", [log[NEAR].sum(axis=1).mean() for log in ends])

LENGTH = {named(e): e for e in LENGTHS}


def best(name, data):
    """The row with the highest IoU on one data set, the untuned one among them."""
    return max(["untuned", *LENGTH], key=lambda row: found[data.name][row][name].means().mean())


picks = {}
for name in METHODS:
    for data in tests:
        picks[data.name, name, "the masks themselves"] = best(name, data)
        if scenes:
            picks[data.name, name, "composed scenes"] = best(name, scenes[0])
        picks[data.name, name, "agreement of the pairs"] = max(LENGTH, key=agreement.get)
for (data, name, judge), pick in picks.items():
    kind = {} if judge.startswith("agreement") else {"kind": "label-tuned"}  # masks chose
    own = found[data][pick][name].records("diffncut-epochs-choice", f"{name}, by {judge}", **kind)
    epochs = replace(own[0], metric="epochs", value=LENGTH.get(pick, 0), ci=None, unit="count", preset="")
    rows += [epochs, *own]
    print(f"{data:26} {name:9} by {judge:24} {pick}")
save(rows)

# %% tags=["remove-cell"]
glue("length-agreement", picks[shown, "Simple", "agreement of the pairs"])

# %% [markdown]
# ```{paper-table} diffncut-epochs-agreement
# :name: tab-length-agreement
# :profiles: demo, photos
# :metrics: pair iou; near a pattern
# :caption: What the log says at the end of each training: IoU of the two masks of a pair, and share of masks near a stripe or uniform ({doc}`82_how_masks_collapse`); on the pairs that were trained on.
# ```
#
# ```{paper-table} diffncut-epochs
# :name: tab-length-simple-photos
# :profiles: photos
# :metrics: iou
# :no-ci:
# :caption: IoU of *Simple* on photographs and on the composed scenes that choose: 150 of VOC 2012 animals, 80 Weizmann horses, 70 DAVIS frames, 48 demo training scenes; tuned on 320 photographs.
# ```
#
# ```{paper-table} diffncut-epochs-tokencut
# :name: tab-length-tokencut-photos
# :profiles: photos
# :metrics: iou
# :no-ci:
# :caption: The same for TokenCut.
# ```
#
# ```{paper-table} diffncut-epochs-differences
# :name: tab-length-simple-photos-differences
# :profiles: photos
# :metrics: iou_change
# :format: +.3f
# :caption: Differences of *Simple*'s IoU, Student's interval over three seeds.
# ```
#
# ```{paper-table} diffncut-epochs-tokencut-differences
# :name: tab-length-tokencut-photos-differences
# :profiles: photos
# :metrics: iou_change
# :format: +.3f
# :caption: The same for TokenCut.
# ```
#
# ```{paper-table} diffncut-epochs-choice
# :name: tab-length-choice
# :profiles: photos
# :metrics: epochs, iou
# :no-ci:
# :caption: The length each judge chooses (0: untuned) and the IoU that follows, mean over three seeds.
# ```
#
# On VOC animals the masks themselves choose {measured}`diffncut-epochs-choice/Simple, by the masks themselves/epochs@voc2012_animals-saliency@photos|.0f` epochs for *Simple* and
# {measured}`diffncut-epochs-choice/TokenCut, by the masks themselves/epochs@voc2012_animals-saliency@photos|.0f` for TokenCut; composed scenes choose
# {measured}`diffncut-epochs-choice/Simple, by composed scenes/epochs@voc2012_animals-saliency@photos|.0f` and
# {measured}`diffncut-epochs-choice/TokenCut, by composed scenes/epochs@voc2012_animals-saliency@photos|.0f`; the agreement, which knows no method,
# {measured}`diffncut-epochs-choice/Simple, by agreement of the pairs/epochs@voc2012_animals-saliency@photos|.0f`. On demo scenes it names "{glue:text}`length-agreement`". What a wrong length costs
# is the difference between two lengths: from one epoch to four, *Simple* changes on VOC animals by
# {measured}`diffncut-epochs-differences/4 epochs minus 1 epoch/iou_change@voc2012_animals-saliency@photos|+.3f ci` and TokenCut by
# {measured}`diffncut-epochs-tokencut-differences/4 epochs minus 1 epoch/iou_change@voc2012_animals-saliency@photos|+.3f ci`, on DAVIS by
# {measured}`diffncut-epochs-differences/4 epochs minus 1 epoch/iou_change@davis2016_val@photos|+.3f ci` and
# {measured}`diffncut-epochs-tokencut-differences/4 epochs minus 1 epoch/iou_change@davis2016_val@photos|+.3f ci`. Where such an interval holds zero, three seeds cannot tell
# the lengths apart, and a judge who names another one has not been shown wrong.
#
# Of the agreement one knows beforehand which way it leans. It is what the loss rewards, on the pairs that are trained on; from the third epoch on these pairs have been seen before, for there
# are {glue:text}`length-pairs` fixed ones a photograph. It also rewards masks that say nothing of the photograph, as the stripes of {doc}`82_how_masks_collapse` do. So a
# rising agreement is no reason to go on, and a short length chosen by it would be the surprise.
#
# The shipped `dinov2_vits14_reg_mri_photos` is the row "mean of three, 2 epochs" of {numref}`tab-length-simple-photos` and {numref}`tab-length-tokencut-photos`, which say how it compares
# with its neighbours.

# %% tags=["remove-cell"]
glue("length-pairs", RECIPE["crops"])

# %% [markdown]
# ```{exercise-start} The mean of three networks
# :label: ex-mean-of-three
# ```
# Let the trainings with seeds $s = 1, \dots, S$ end at weights $w_s$ near enough to each other that the quantity one cares for is quadratic between them, with Hessian $H$: $L(w) = \tfrac12 (w - w^*)^\top H (w - w^*)$.
# By how much does the mean of the $L(w_s)$ exceed $L$ at the mean weights $\bar w$? When is the mean network better than even the best of the three, and when is it worse
# than their average?
# ```{exercise-end}
# ```
#
# ```{solution-start} ex-mean-of-three
# :class: dropdown
# ```
# Write $w_s = \bar w + \delta_s$ with $\sum_s \delta_s = 0$. The linear terms cancel, and
#
# $$\frac1S \sum_s L(w_s) - L(\bar w) = \frac1{2S} \sum_s \delta_s^\top H \delta_s .$$
#
# If the weights lie in one convex basin the mean network is at least as good as the average one, and the more so, the more the seeds differ along directions in which $L$ is curved. It beats the
# best one where what the seeds have in common is small against what they differ in. Nothing makes the IoU convex, though: if $H$ has negative directions, or the seeds ended in two
# basins, the difference can be negative. And an error that all three share, such as too long a training, stays. Five dimensions, three seeds, a common error and one that each has alone:

# %% tags=["nbval-check-output"]
rng = np.random.default_rng(0)
H = np.diag([4.0, 2.0, 1.0, 0.5, 0.1])


def L(w):
    """A quadratic basin around 0."""
    return 0.5 * float(w @ H @ w)


for common in (0.0, 1.0):
    w = common * np.ones(5) + rng.normal(size=(3, 5))
    mean, delta = w.mean(0), w - w.mean(0)
    gain = 0.5 * np.mean([d @ H @ d for d in delta])
    print(f"common error {common:.0f}: each", " ".join(f"{L(v):.2f}" for v in w), end="  ")
    print(
        f"mean network {L(mean):.2f}  identity holds: {abs(np.mean([L(v) for v in w]) - L(mean) - gain) < 1e-12}"
    )

# %% [markdown]
# ```{solution-end}
# ```
