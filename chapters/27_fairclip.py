# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - read what a remedy's code does beside what its equation says
#     - test whether a fairness term knows the groups at all
#     - tell a gap that is gone from a model that says the same to everybody
#     needs:
#     - 21_audit_x
#     - 24_court
# ---

# %% [markdown]
# # FairCLIP: a remedy audited
#
# *Goes further than {cite:t}`sourget2025`, paper S, which names FairCLIP
# {cite:p}`luo2024` as related work. Goes on where [The court](24_court)
# ends.*
#
# An eye clinic wants a model that finds glaucoma as well in women as in men.
# It reads of a remedy for exactly that: published at a large conference, with
# code, and with data of the clinic's own kind. The gap, says the abstract,
# shrinks, and the model does not get worse. All it takes is one more term in
# the loss. Patients whose disease is missed now would gain from it, if it
# works; if it does not, the clinic believes in a safety that is not there.
#
# **What did FairCLIP publish, what do reproductions find, and does its term
# move a gap whose truth is known?** The authors opened both data and code.
# Only that makes an audit possible, and they deserve thanks for it.

# %% tags=["parameters"]
seed: int = 1907  # [0, 1000000] of the phantoms, and of who is fitted on
n_images: int = 4000  # [1000, 17000] of the test; half as many to fit on
n_twins: int = 1500  # [1000, 17000] films with and without a drain
n_trainings: int = 5  # [2, 100] of each kind, each from its own seed
epochs: int = 3  # [1, 1000] over the fitting films
weight_as_published: float = 1e-6  # (0, 1000000) of the term of the code
weight_corrected: float = 100.0  # (0, 1000000) of the term of the equation

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import wasserstein_distance

from cxrlib import cohorts, schema
from cxrlib.cohorts import phantom
from cxrlib.models import model_cards
from cxrlib.predict import court, fairclip
from cxrlib.predict.remedies.remedy import Remedy
from cxrlib.show.notebook import figure, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import fmt, fmt_interval, percent, plural, readable
from cxrlib.stats import court as rule
from cxrlib.stats.influence import interval

# %% [markdown]
# ## What was published
#
# Each line below was read where its last column but one says. The text of the
# paper beyond its abstract was not at hand, so what stands only there is *not
# verified*, and no number is quoted that could not be read.

# %% tags=["hide-input"]
show(fairclip.claims(), "FairCLIP: what is said, and what is shown")

# %% [markdown]
# ## What reproductions report
#
# Two groups trained FairCLIP anew on its own data, {cite:t}`bakker2025` and
# Saleh, Groot, Eicholtz and Vijverberg
# ([repository](https://github.com/juttevijverberg/FairCLIP_Reproduction)).
# Both published the results of single trainings, a few of each kind. So the
# question that a table of means leaves open can be asked: is the difference
# between FairCLIP and CLIP larger than between two trainings of the same? The
# *parity difference* is by how much the share of patients called ill differs
# between groups, at a threshold of 0.5.

# %%
published = fairclip.reproduced()


def change(measure):
    """FairCLIP minus CLIP with its interval, the trainings as the unit."""
    of = published[measure]
    rows = zip(of["difference"], of["low"], of["high"], strict=True)
    return [fmt_interval(*row, digits=3) for row in rows]


# %% tags=["hide-input"]
beside = pd.DataFrame(index=published.index)
heads = {"parity": "parity difference", "accuracy": "accuracy", "auc": "AUC"}
for measure, head in heads.items():
    beside[f"{head}, CLIP"] = published[measure]["CLIP"]
    beside[f"{head}, change"] = change(measure)
what = "Two reproductions: FairCLIP minus CLIP, 95 % interval (Welch)"
show(beside.reset_index(), what, digits=3)

# %% tags=["remove-input"]
runs = fairclip.runs()
n_each = runs.groupby([*published.index.names, "model"]).size().iloc[0]
fair = runs[runs["model"] == "FairCLIP"]
least = fair.loc[fair["parity"].idxmin()]
alike = fair[fair["parity"] < 0.02]
others = fair[fair["parity"] >= 0.02]
lower = published["parity"]["high"] < 0
noise = {
    attribute: np.sqrt(2 / np.pi * 0.25 * (1 / np.array([*n.values()])).sum())
    for attribute, n in fairclip.TESTED.items()
}
say(f"""
Of {len(published)} comparisons, with {n_each} trainings on each side, the
parity difference is surely smaller with FairCLIP in {lower.sum()}, and its
mean is larger in {(published["parity"]["difference"] > 0).sum()}. And look at
the accuracy beside it: it falls in
{(published["accuracy"]["difference"] < 0).sum()} of {len(published)}. In the
training with the smallest parity difference, {fmt(least["parity"], 4)}, the
accuracy is {fmt(least["accuracy"])}, and about half of the patients have the
disease: that model gives everybody the same answer. The
{plural(len(alike), "training")} with a parity difference below 0.02 have an
accuracy of {fmt(alike["accuracy"].mean())} on average, the other
{len(others)} of {fmt(others["accuracy"].mean())}. Their AUCs are
{fmt(alike["auc"].mean())} and {fmt(others["auc"].mean())}: the order of the
patients is still there, the threshold no longer cuts it. **A model that says
yes to all has no gap.** In the words of [The court](24_court), it has levelled
down.

The test set sets a limit of its own. A classifier that calls every second
patient ill and is exactly fair would show a parity difference of
{percent(noise["sex"], 1)} between women and men on average, of
{percent(noise["ethnicity"], 1)} by ethnicity and of
{percent(noise["language"], 1)} between English and Spanish speakers
([Audit of X](21_audit_x) has the reason).
""")

# %% [markdown]
# ## Two terms of one name
#
# Let $s_i$ be the similarity of image $i$ to its own report, $B$ a batch and
# $B_a$ a batch of group $a$. The paper adds to the contrastive loss of CLIP
#
# $$ \lambda \sum_a W_\varepsilon\big(\{s_i\}_{i \in B},
# \{s_j\}_{j \in B_a}\big), $$ (eq-fairclip-term)
#
# where $W_\varepsilon$ is the Sinkhorn distance {cite:p}`cuturi2013`: what it
# costs to move one pile of numbers onto another, with a little blur that makes
# it fast. The public code has the same call, with other numbers in it. With
# the matrix of logits $L$, whose diagonal would be the similarities times a
# scale, it takes
#
# $$ c_i = (L L)_{ii} = \sum_j L_{ij} L_{ji}
# \quad\text{in the batch, and}\quad \frac{c_j}{\sum_k c_k}
# \quad\text{in the group, held fixed.} $$ (eq-fairclip-code)
#
# Whatever the group is like, its numbers now sum to 1, each is tiny, and
# beside them those of the batch are huge. How far such piles lie apart says
# nothing of the group. That can be tested: *shuffle the groups*. A term that
# wants to make women and men alike must want something else when "woman" is
# written on films at random.

# %%
torch.set_num_threads(1)
cases = court.planted(n_images, n_twins, seed, ["sex", "drain"])
test = cohorts.load("phantom", n_images=n_images, seed=seed)
valid, _ = cohorts.validation(test, "phantom", n_images, seed)
card = next(c for c in model_cards() if c["name"] == court.SILENT)
silent = phantom.twin(valid, underreport=card["dials"]["underreport"])

# %% [markdown]
# The reports come from the patients that a remedy is fitted on. On the biased
# side of *silent reports* they are as silent on women as those that the model
# was trained with: that is the data a hospital would have.

# %%
case_of = {case.bias: case for case in cases}
texts = {}
for case in cases:
    for side in (case.biased, case.clean):
        wrote = silent if case.kind == "gap" and side is case.biased else valid
        asked = side.question
        texts[id(asked)] = fairclip.reports(asked, side.fitting, wrote)

sex = cases[0].biased
words = texts[id(sex.question)]
rng = np.random.default_rng(seed)
shuffled = replace(sex.fitting, group=rng.permutation(sex.fitting.group))


def agreement(form, batch):
    """Cosine between the term's gradients, groups as they are or shuffled."""
    a, b = (
        fairclip.pull(sex.question, films, words, form, batch).ravel()
        for films in (sex.fitting, shuffled)
    )
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


blind = pd.DataFrame(
    {form: [agreement(form, i) for i in range(6)] for form in fairclip.TERMS}
)

# %% tags=["remove-input"]
says = blind.agg(["min", "max"])
code, equation = says["as_published"], says["corrected"]
say(f"""
On {len(blind)} batches, the gradient of the term in the code with shuffled
groups has a cosine of {code["min"]:.4f} to {code["max"]:.4f} with the gradient
with true groups; that of the term in the equation, {equation["min"]:.2f} to
{equation["max"]:.2f}. 1 means: the same direction. **The term of the public
code {"does not know" if code["min"] > 0.99 else "hardly knows"} who belongs
to which group.** What it does is to push all similarities towards 0.
""")

# %% tags=["remove-input"]
quiz(
    "A fairness term pulls a model in the same direction when groups are "
    "shuffled. May training with it still change a gap between groups?",
    {
        "No: what does not know the groups cannot change a gap.": (
            False,
            "Anything that moves answers can move a gap, more epochs or a "
            "smaller learning rate for instance, in either direction.",
        ),
        "Yes, but no more on purpose than any other change.": (
            True,
            "It then needs a control: the same training with shuffled "
            "groups, or without the term, from several seeds.",
        ),
    },
)

# %% [markdown]
# ## The trial
#
# Two linear layers, one on the vectors of films and one on those of texts,
# start as the identity and are trained with each term, on two cases of [the
# court](24_court): women's silent reports, and the drain. The control is the
# same training with $\lambda = 0$. The weight of `as_published` is that of the
# script in the public repository; that of `corrected` is one at which the term
# is felt.

# %%
KINDS = {
    "control": {"weight": 0.0},
    "as_published": {"form": "as_published", "weight": weight_as_published},
    "corrected": {"form": "corrected", "weight": weight_corrected},
}


def remedy(**how):
    """FairCLIP as a remedy of the court, on the reports of its films."""
    return Remedy(
        lambda question, fitting: fairclip.fit(
            question, fitting, texts[id(question)], epochs=epochs, **how
        ),
        "training",
    )


first = {
    (case.bias, kind): court.try_(case, remedy(**how))
    for case in cases
    for kind, how in KINDS.items()
}

# %% tags=["hide-input"]
effects = [
    court.results(case, kind, first[case.bias, kind])
    for case in cases
    for kind in KINDS
]
heads = {
    "harm": "harm left",
    "share_left": "share left",
    "change_auc": "change of AUC",
    "placebo_harm": "new harm, placebo",
}
effects = schema.rows(pd.concat(effects), metric=list(heads), group="all")
effects["bias"] = effects["attribute"].map(court.BIASES)
effects["what"] = effects["metric"].map(heads)
show(
    effects,
    "One training of each kind: harm in sensitivity or SD, 95 % interval",
    rows=["bias", "method"],
    columns="what",
)

# %% [markdown]
# An interval over patients says how the same layers would do on other
# patients. It does not say what another training would give. So the effect of
# the term, harm with it minus harm of the control with the same seed, as a
# share of the harm without any remedy, is computed for several trainings.


# %%
def left(case, **how):
    """Harm on the biased side after a training."""
    return court.harm(case.biased, court.answers(case.biased, remedy(**how)))


moved = []
for case in cases:
    before = first[case.bias, "control"].before
    for i in range(n_trainings):
        harm = {kind: left(case, seed=i, **how) for kind, how in KINDS.items()}
        for kind in ("as_published", "corrected"):
            by = (harm[kind] - harm["control"]) / before
            ends = interval(by, case.biased.test.patient)
            moved.append((case.bias, kind, by.value, *ends))
moved = pd.DataFrame(moved, columns=["bias", "term", "moved", "low", "high"])

# %% tags=["hide-input"]
moved["surely less"], moved["surely more"] = (
    moved["high"] < 0,
    moved["low"] > 0,
)
grouped = moved.groupby(["bias", "term"], sort=False)
trainings = grouped["moved"].agg(["mean", "min", "max"])
trainings[["surely less", "surely more"]] = grouped[
    ["surely less", "surely more"]
].sum()
said = {key: court.verdict(case_of[key[0]], e) for key, e in first.items()}
trainings["verdict (first training)"] = [said[i] for i in trainings.index]
what = f"Share of the harm that the term moves, in {n_trainings} trainings"
show(trainings.reset_index(), what, counts=())

# %% tags=["remove-input"]
widest = (trainings["max"] - trainings["min"]).max()
most = trainings["mean"].abs().max()
say(f"""
By the rule of the court, {sum("leaves" in v for v in said.values())} of
{len(said)} trainings leave the harm where it was. On average over trainings,
no term moves more than {percent(most)} of it; between trainings of one kind
the effect differs by up to {percent(widest)} of the harm. Whoever trains once
may read the one or the other out of it.
""")

# %% [markdown]
# ## More of the same?
#
# Perhaps the weight was too small. The term is there to make the similarities
# of women's and men's films to their reports alike. So two things can be
# followed as $\lambda$ grows, on women's silent reports: the distance between
# these similarities on films apart, and the gap in sensitivity, which is what
# matters to a patient.

# %%
theirs = fairclip.reports(sex.question, sex.tuning, silent)


def followed(form, weight):
    """Distance between the groups' similarities, their mean, and the gap."""
    layers = fairclip.train(
        sex.question, sex.fitting, words, form, weight, epochs=epochs
    )
    own = fairclip.similarity(layers, sex.tuning.images, theirs)
    f, m = (own[sex.tuning.group == g] for g in sex.question.groups)
    answer = fairclip.answering(sex.question, layers)
    found = court.answers(sex, Remedy(lambda *_: answer, "training"))
    return wasserstein_distance(f, m), own.mean(), court.harm(sex, found)


none = followed("corrected", 0.0)
STEPS = (0.01, 0.1, 1.0, 10.0, 100.0)
grid = []
for form in fairclip.TERMS:
    for step in STEPS:
        weight = step * KINDS[form]["weight"]
        distance, mean, gap = followed(form, weight)
        ends = interval(gap / none[2], sex.test.patient)
        share = distance / none[0], mean, gap.value / none[2].value
        grid.append((form, weight, *share, *ends))
columns = ["term", "weight", "distance", "similarity", "gap", "low", "high"]
grid = pd.DataFrame(grid, columns=columns)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(6.5, 3), sharey=True)
for axis, (form, rows) in zip(axes, grid.groupby("term"), strict=True):
    axis.fill_between(
        rows["weight"], rows["low"], rows["high"], color="#B8CFE0"
    )
    axis.plot(rows["weight"], rows["gap"], color="#0072B2", label="gap")
    axis.plot(
        rows["weight"],
        rows["distance"],
        "o-",
        color="#D55E00",
        label="distance",
    )
    axis.axhline(1, color="#888888", lw=0.8)
    axis.set(xscale="log", xlabel="weight of the term", title=readable(form))
axes[0].set(ylabel="share of the control", ylim=(0, None))
axes[0].legend()
ends_of = grid.groupby("term").last()
figure(
    "fig-fairclip-weight",
    "Distance between the similarities of women's and men's films (what the "
    "term makes small) and the gap in sensitivity (what it is for), as shares "
    "of the control, by the weight of the term; band: 95 % interval.",
    alt="Two panels of two lines. At the largest weight: "
    + "; ".join(
        f"{readable(form)}: distance {fmt(row['distance'])}, gap {fmt(row['gap'])}"
        for form, row in ends_of.iterrows()
    ),
    table=grid,
)

# %% tags=["remove-input"]
fell = schema.rows(grid, term="corrected")
code = schema.rows(grid, term="as_published")
touched = (grid["high"] < rule.SHARES["reduces"]).sum()
say(f"""
With the term of the equation the distance falls to
{percent(fell["distance"].min())} of the control's, and the gap stays between
{percent(fell["gap"].min())} and {percent(fell["gap"].max())}. With that of the
code, the mean similarity of all films to their reports goes from
{fmt(none[1])} to {fmt(code["similarity"].min())}, the distance stays between
{percent(code["distance"].min())} and {percent(code["distance"].max())}. At
{touched or "none"} of the {len(grid)} weights the gap is surely reduced. That
is what {{cite:t}}`bakker2025` report on real images: distances fall, fairness
does not improve. {{numref}}`fig-fairclip-weight` shows why it may be so: **the
term makes films alike in how well they fit their own reports, and reports that
are silent on women fit their films just as well once everything else moves.**
""")

# %% [markdown]
# ## What it means
#
# - Read the code beside the equation. A term that does not know the groups
#   can be found in minutes, by shuffling them.
# - Ask for the control: the same training without the term, or with shuffled
#   groups, from several seeds.
# - A gap of decisions at a fixed threshold says little without the share of
#   patients who get a yes. Look at the accuracy beside it.
# - A proxy that falls is no harm that falls.
#
# ## Limits
#
# - Two linear layers on stored vectors of drawn chest films are no fine-tuned
#   network on images of the eye. That the term of the code is blind to groups
#   follows from its arithmetic; how little it moves is shown here alone.
# - The text of the paper beyond its abstract was not read. What its authors
#   ran may differ from what is public.
# - The reproductions share the public code, so they are not independent of its
#   faults.

# %% tags=["remove-input"]
in_short(
    f"""
Does FairCLIP's term move a gap whose truth is known? Two reproductions find no
consistent gain: the parity difference is surely smaller in {lower.sum()} of
{len(published)} comparisons, and accuracy falls in all of them. The term of
the public code pulls in the same direction with shuffled groups (cosine
{blind["as_published"].min():.4f}). Planted: reports that are silent on women,
and a drain. Neither term moves more than {percent(most)} of the harm on
average; that of the equation brings its own distance down to
{percent(fell["distance"].min())}, and the gap stays.
""",
    figure="fig-fairclip-weight",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-fairclip-honest
# Suppose the hospital first had its reports completed. Fit the control, with
# no term at all, on honest reports: replace `silent` by `valid`. Predict
# whether the gap falls, then look.
# ```
#
# ```{exercise}
# :label: ex-fairclip-shuffle
# Train with the term of the code on shuffled groups, from the same seeds, and
# compare the harm with that of the true groups. How large is the difference,
# and what had you expected from the cosines?
# ```
#
# ```{solution} ex-fairclip-shuffle
# :class: dropdown
# Pass `replace(fitting, group=...)` on to `fairclip.fit`. The batches of the
# groups are others, but each is divided by its sum, so the two trainings
# hardly part. A shuffled control costs one line, and no paper on fairness
# should be without it.
# ```
#
# ## Further reading
#
# - {cite:t}`bakker2025`: the reproduction with an aligned implementation.
# - {cite:t}`cuturi2013`: the distance, and why its blur makes it fast.
