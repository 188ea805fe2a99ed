# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.3: fig-curation-flow
#       X 2.1: fig-curation-cells
#       X 3.1: fig-curation-leakage
#     goals:
#     - say who is in a data set, and what its labels, ages and views hide from an analysis
#     - tell images from patients, and why splits and intervals need patients
#     - check whether a balanced subset is balanced, and say what a planted bias is
#       good for
#     needs: []
# ---

# %% [markdown]
# # Data curation: who is in the picture
#
# *Answers section 2.3 of {cite:t}`sourget2025`, paper S, and section 2.1 of {cite:t}`sun2025`, paper X.*
#
# A hospital wants to know whether a model treats its patients alike. The first thing to ask is not
# about the model at all: who are the patients? A data set that is full of people imaged in bed teaches
# a model what a bed looks like, and one patient with a hundred films counts as a hundred. Later, in a
# table of results, both come back dressed as properties of the model: skill that it does not have, or
# unfairness that was in the data. Somebody pays for it, and mostly it is the patient whose kind was
# hardly there, so that nobody measured how often the model is wrong about them.
#
# Both papers describe their data in one section: S in 2.3, X in 2.1. This chapter puts these sections to
# the test. It reads the real metadata of NIH ChestX-ray14, rebuilds the balanced subset of paper X from
# its numbers, describes the cohort of this run, and presents the phantom cohort on which the other
# chapters run unless a real one is named.

# %% tags=["parameters"]
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "train"}, or the dials of a phantom
seed: int = 1907  # [0, 1000000] seed of the phantom cohort and of the first 6x200 draw
n_draws: int = 50  # [1, 1000] how often the 6x200 subset is drawn anew
n_images: int = 800  # [60, 17000] images in the phantom cohort of this chapter
size: int = 96  # [32, 256] side of a phantom image, in pixels

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
import textwrap
from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts import (
    associations,
    leakage,
    metadata,
    mimic,
    nih6x200,
    phantom,
    summary,
)
from cxrlib.models import model_names, published_models
from cxrlib.models.leaks import leaks
from cxrlib.papers import published
from cxrlib.papers.counts import cohort_counts, counts_beside_papers
from cxrlib.show.notebook import (
    figure,
    glue,
    keep,
    quiz,
    setup,
    show,
    withheld,
)
from cxrlib.show.plots import confounder_panel, flow_diagram
from cxrlib.show.words import (
    COLOURS,
    fmt,
    fmt_interval,
    in_words,
    percent,
    readable,
)

setup()
# The cohort of this run comes first, so that a credentialed one is guarded from the first cell on.
studied = cohorts.study(data, n_images, seed, options, size=size)


def times(a, b):
    """How many times as large as b a is, as text."""
    return fmt(a / b, 0) if b > 0 else "undefined"


# %% [markdown]
# ## The real patients of NIH ChestX-ray14
#
# The images of ChestX-ray14 {cite:p}`wang2017` fill a disk. Their table takes a megabyte, travels inside
# the open-source package TorchXRayVision {cite:p}`cohen2022`, and needs no permission. One row is one
# image. A *finding* is something that can be seen on it, such as fluid or an enlarged heart.

# %%
release = cohorts.load("nih-metadata")
nih = release.table
if guard.active():
    withheld("rows of single images")
else:
    show(nih.iloc[:4, :8], caption="The first rows and columns of the table of NIH ChestX-ray14")

# %% tags=["remove-cell"]
glue("n-images", len(nih))
glue("n-patients", nih["patient_id"].nunique())
glue("n-impossible", len(metadata.impossible_ages(nih)))
glue("age-min", str(nih["age"].min()))
glue("age-max", int(nih["age"].max()))
no_finding = (nih[list(metadata.FINDINGS)].sum(axis=1) == 0).mean()
glue("no-finding", percent(no_finding))
glue("n-findings", str(len(metadata.FINDINGS)))
glue("oldest", str(metadata.OLDEST_POSSIBLE_AGE))

# %% [markdown]
# There are {glue:text}`n-images:,d` images of {glue:text}`n-patients:,d` patients. {glue:text}`no-finding`
# of the images carry none of the {glue:text}`n-findings` findings. The names are those of the release, with one
# exception: its "Effusion" is called *Pleural Effusion* here, the name that paper S uses.
#
# The labels were read out of radiology reports by software. A 1 means "the software read the report as
# saying so", not "the patient has it" {cite:p}`oakdenrayner2020datasets`.
#
# Every analysis by age starts with a count of what it must leave out. Paper S sorts patients into
# five age groups from 18 years on, so children have none.

# %%
FLOW = {
    "images_out": "images left out",
    "patients_out": "patients left out",
    "left_out": "why",
}
counted = ("images", "patients")
show(
    summary.flow(release).rename(columns=FLOW),
    caption="From the release to an age group",
    counts=counted,
)

# %% [markdown]
# Recorded ages run from {glue:text}`age-min` to {glue:text}`age-max` years. Older copies of this
# table held ages of several centuries; this one holds {glue:text}`n-impossible` above
# {glue:text}`oldest` years. The check costs one line, so it stays.

# %% [markdown]
# ### How many images has a patient?

# %% tags=["hide-input"]
per_patient = nih.groupby("patient_id").size().sort_values(ascending=False)
share_one = (per_patient == 1).mean()
share_top = per_patient.head(len(per_patient) // 10).sum() / len(nih)
glue("share-one", percent(share_one))
glue("share-top", percent(share_top))
glue("most-images", int(per_patient.max()))

fig, axis = plt.subplots(figsize=(5.6, 3))
edges = np.unique(np.geomspace(1, per_patient.max() + 1, 25).astype(int)) - 0.5
counts, _ = np.histogram(per_patient, edges)
axis.stairs(counts, edges, fill=True, color="#0072B2")
axis.set(xscale="log", yscale="log", xlabel="images of one patient", ylabel="patients")
axis.set_ylim(bottom=0.8)
axis.set_xticks([1, 2, 5, 10, 20, 50, 100], [1, 2, 5, 10, 20, 50, 100])
figure(
    "fig-curation-images-per-patient",
    caption="Images per patient in NIH ChestX-ray14. Both axes are logarithmic: each step is a factor, not a sum.",
    alt="Histogram, both axes logarithmic: images of one patient against the number of patients. "
    f"{percent(share_one)} of the patients have one image, the most imaged one has {per_patient.max()}.",
    table=pd.DataFrame(
        {"from": np.ceil(edges[:-1]).astype(int), "to": edges[1:].astype(int), "patients": counts}
    ),
    counts=("patients",),
)

# %% [markdown]
# {glue:text}`share-one` of the patients were imaged once: the tall block at the left of
# {numref}`fig-curation-images-per-patient`. At its right end stands one patient who was imaged
# {glue:text}`most-images` times. The most imaged tenth of the patients own {glue:text}`share-top` of all
# images.
#
# Two images of one patient share a rib cage, a heart, often a disease. They are not two independent
# observations. That has two consequences for the whole book: a split that separates training from
# test must separate *patients*, and an uncertainty must come from resampling *patients*.

# %% [markdown]
# ### How old are they, and how were they imaged?
#
# A patient who can stand is imaged with the beam entering at the back: *posteroanterior*, PA. A patient
# who cannot is imaged in bed, with the beam entering at the front: *anteroposterior*, AP. There the heart
# looks larger, the lungs shorter, and cables cross the chest. The view position is not a property of the
# patient, yet it says a lot about the patient.

# %% tags=["hide-input"]
bands = pd.cut(nih["age"], edges := np.arange(0, 101, 5), right=False).rename("age, years")
by_age = pd.concat([pd.crosstab(bands, nih[a], dropna=False) for a in ("sex", "view")], axis=1)
fig, axes = plt.subplots(1, 2, figsize=(5.6, 3), sharey=True)
for axis, (attribute, groups) in zip(
    axes, {"sex": "FM", "view": ("PA", "AP")}.items(), strict=True
):
    for group in groups:
        style = {"lw": 2, "color": COLOURS[group], "label": readable(group)}
        axis.stairs(by_age[group], edges, **style)
    axis.set(xlabel="age (years)", title=attribute)
    axis.legend(loc="upper left")
axes[0].set_ylabel("images")
medians = {
    g: nih.loc[nih[a] == g, "age"].median() for a in ("sex", "view") for g in nih[a].unique()
}
figure(
    "fig-curation-age",
    caption="Age at imaging by sex (left) and by view position (right). An image counts as one, so that a patient with many images counts often.",
    alt="Two panels of histograms: age in bands of five years against images, by sex and by view. "
    f"Median ages: {'; '.join(f'{readable(g)} {age:.0f}' for g, age in medians.items())}.",
    table=by_age,
)

# %% tags=["remove-cell"]
apart = max(abs(medians["F"] - medians["M"]), abs(medians["PA"] - medians["AP"]))
glue("age-says", "neither sex nor view says much" if apart < 3 else "sex or view says something")
glue("age-sex", f"{medians['F']:.0f} and {medians['M']:.0f}")
glue("age-view", f"{medians['PA']:.0f} and {medians['AP']:.0f}")

# %% [markdown]
# The median age is {glue:text}`age-sex` years on the images of women and of men, and
# {glue:text}`age-view` on PA and on AP films. So {glue:text}`age-says` about age here. The next table asks
# the other way round: what does age say about the view?

# %%
nih["AP"] = (nih["view"] == "AP").astype(int)
ap = associations.prevalence(nih, ["AP"], "age_group")
ap["share AP"] = [fmt_interval(*row) for row in ap[["value", "ci_low", "ci_high"]].to_numpy()]
names = {"group": "age group", "n": "images", "n_patients": "patients"}
show(
    ap.rename(columns=names)[["age group", "share AP", "images", "patients"]],
    caption="Share of images taken in AP view, with 95 % intervals over patients",
)

# %% tags=["remove-cell"]
ap = ap.set_index("group")
glue("ap-young", percent(ap.loc["18-25", "value"]))
glue("ap-old", percent(ap.loc["80+", "value"]))
ends = nih[nih["age_group"].isin(["18-25", "80+"])]
ends = ends.assign(old=(ends["age"] >= 80).astype(int))
apart = associations.association(ends, "AP", "old").iloc[-1]
glue("ap-apart", fmt_interval(*apart[["value", "ci_low", "ci_high"]], signed=True))
certain = apart["ci_low"] > 0 or apart["ci_high"] < 0
glue("ap-certain", "excludes" if certain else "includes")
glue("n-80", int(ap.loc["80+", "n"]))
glue("share-80", percent(ap.loc["80+", "n"] / len(nih), 1))

# %% [markdown]
# One might expect the oldest to be imaged in bed most often. Here {glue:text}`ap-old` of their images
# are AP films, against {glue:text}`ap-young` for the youngest adults: a difference of
# {glue:text}`ap-apart`, whose interval {glue:text}`ap-certain` 0. Note how few the oldest are:
# {glue:text}`n-80:,d` images, {glue:text}`share-80` of the release. Whatever a later chapter says of
# patients over 80, it says with a wide interval.

# %% [markdown]
# ### Which findings, in whom?
#
# The *prevalence* of a finding is the share of images that show it. Each one gets an interval over
# patients: Wilson's interval for a share, widened by the *design effect*. That is the factor by which
# repeated images of the same patients inflate the variance. Suppose it is 4: then a thousand images
# tell as much as 250 images of different patients would.

# %%
AGES = metadata.AGE_GROUPS
ATTRIBUTES = {"sex": ("F", "M"), "view": ("PA", "AP"), "age_group": AGES}
found = pd.concat(
    [associations.prevalence(nih, metadata.FINDINGS, a) for a in ATTRIBUTES],
    ignore_index=True,
)
first = found.head(4)[["label", "attribute", "group", "value", "n", "design_effect"]]
show(
    first.rename(columns={"value": "prevalence", "n": "images", "design_effect": "design effect"}),
    caption="Prevalence by group: the first rows",
    counts=("images",),
    digits=3,
)

# %% tags=["hide-input"]
order = nih[list(metadata.FINDINGS)].mean().sort_values().index
printed = schema.results(found.drop(columns="design_effect").assign(metric="prevalence"))
fig, axes = plt.subplots(1, 3, figsize=(6, 5.8), sharey=True, sharex=True)
for axis, (attribute, groups) in zip(axes, ATTRIBUTES.items(), strict=True):
    for i, group in enumerate(groups):
        rows = found[(found["attribute"] == attribute) & (found["group"] == group)]
        rows = rows.set_index("label").loc[order]
        place = np.arange(len(order)) + 0.14 * (i - (len(groups) - 1) / 2)
        colour = COLOURS[group]
        axis.hlines(place, 100 * rows["ci_low"], 100 * rows["ci_high"], color=colour, lw=1)
        shown = rows["n_positive"] > 0
        dots = {"ms": 4, "color": colour, "label": readable(group)}
        axis.plot(100 * rows["value"][shown], place[shown], "o", **dots)
    axis.set(xscale="log", xlim=(0.03, 40), title=attribute.replace("_", " "))
    axis.set_xticks([0.1, 1, 10], ["0.1 %", "1 %", "10 %"])
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="upper left", handletextpad=0.1, borderaxespad=0)
axes[0].set_yticks(range(len(order)), order)
axes[1].set_xlabel("prevalence")
figure(
    "fig-curation-prevalence",
    caption="Prevalence of the fourteen findings by sex, view position and age group, with 95 % intervals over patients. The axis is logarithmic: equal distances are equal ratios.",
    alt="Three panels of dots with whiskers, one row per finding: prevalence by sex, by view position and "
    f"by age group, on a logarithmic axis. {in_words(printed, 3)}",
    table=found,
    counts=("n", "n_positive", "n_patients"),
)

# %% tags=["hide-input"]
wide = found.pivot(index="label", columns="group", values="value")
spread = {
    "sex": np.maximum(wide["M"] / wide["F"], wide["F"] / wide["M"]),
    "view": np.maximum(wide["AP"] / wide["PA"], wide["PA"] / wide["AP"]),
}
extremes = pd.DataFrame(
    [
        {
            "attribute": attribute,
            "of all findings, median ratio": ratio.median(),
            "largest ratio": ratio.max(),
            "that of": ratio.idxmax(),
        }
        for attribute, ratio in spread.items()
    ]
)
show(
    extremes,
    caption="Prevalence in the one group of an attribute over that in the other, the larger on top",
    digits=1,
)

# %% tags=["remove-cell"]
top = extremes.set_index("attribute")
glue("view-finding", top.loc["view", "that of"])
glue("view-ratio", fmt(top.loc["view", "largest ratio"], 0))
in_ap = wide.loc[top.loc["view", "that of"], "AP"] > wide.loc[top.loc["view", "that of"], "PA"]
glue("view-side", "AP" if in_ap else "PA")
glue("sex-finding", top.loc["sex", "that of"])
glue("sex-ratio", fmt(top.loc["sex", "largest ratio"], 1))
median = "of all findings, median ratio"
more = top.loc["view", median] > top.loc["sex", median]
glue("view-median", fmt(top.loc["view", median], 1))
glue("sex-median", fmt(top.loc["sex", median], 1))
glue("view-over-sex", "more" if more else "less")
widest = found.loc[found["design_effect"].idxmax()]
glue("deff-label", widest["label"])
glue("deff-group", widest["group"])
glue("deff", fmt(widest["design_effect"], 1))
glue("deff-root", fmt(np.sqrt(widest["design_effect"]), 1))

# %% [markdown]
# Findings follow the view position {glue:text}`view-over-sex` than the sex: the ratio of the typical
# finding is {glue:text}`view-median` between views and {glue:text}`sex-median` between sexes. The extreme is
# {glue:text}`view-finding`: {glue:text}`view-ratio` times as common on {glue:text}`view-side` films
# as on the other view. Between the sexes the largest ratio is {glue:text}`sex-ratio`, for
# {glue:text}`sex-finding`.
#
# A model that recognises a bed can therefore look as if it recognised {glue:text}`view-finding`. Keep
# that in mind when the next section calls a subset "balanced".
#
# The design effect is largest for {glue:text}`deff-label` in group {glue:text}`deff-group`:
# {glue:text}`deff`. A few patients with many images carry most of the count there. An interval that took
# images for independent would be {glue:text}`deff-root` times too narrow, the square root of it.

# %% [markdown]
# ## A balanced subset: NIH 6x200
#
# Paper X wants equal numbers of young and old, women and men. For each disease it draws
# {published}`X Section 2.1; each cell` images from each of four cells: young or old
# ({published}`X Section 2.1; age_old_from` and over) by female or male. Four cells make
# {published}`X Section 2.1; each disease` images a disease; there are
# {published}`X Section 2.1; nih-6x200; n_labels` diseases, hence the name NIH 6x200. One exception is
# stated: old patients with edema are {published}`X Section 2.1; old F` women and
# {published}`X Section 2.1; old M` men.
#
# How images with *several* findings are handled is not stated. The exception gives it away.

# %%
EDEMA_OLD = ["old F", "old M"]
single = nih6x200.cell_counts(nih, rule="single")
several = nih6x200.cell_counts(nih, rule="any")
edema = pd.DataFrame(index=EDEMA_OLD)
edema["exactly one finding"] = single.loc["Edema"]
edema["edema, whatever else"] = several.loc["Edema"]
edema["paper X"] = [nih6x200.EXCEPTIONS["Edema", "old", sex] for sex in "FM"]
show(edema.astype(int).rename_axis("cell"), caption="Old patients with edema, counted by two rules")

# %% tags=["remove-cell"]
rule_found = (edema["exactly one finding"] == edema["paper X"]).all()
rule_other = (edema["edema, whatever else"] == edema["paper X"]).all()
glue("rule-verdict", "gives exactly" if rule_found else "does not give")
glue("rule-any-verdict", "also fits" if rule_other else "does not fit")
glue("per-cell", str(nih6x200.PER_CELL))

# %% [markdown]
# Counting images with *exactly one finding* {glue:text}`rule-verdict` the numbers of the paper. Counting
# every image with edema {glue:text}`rule-any-verdict`. One exception, printed in passing, tells how the
# cohort was made. And with the rule, the paper's statement that "only six diseases satisfy" its criterion
# can be checked: each of the four cells must offer {glue:text}`per-cell` images.

# %% tags=["hide-input"]
enough = f"{nih6x200.PER_CELL} in each"
printed = single.rename(columns={"in_paper": "in paper X", "satisfies": enough}).rename_axis(
    "disease"
)
for column in (enough, "in paper X"):
    printed[column] = printed[column].map({True: "yes", False: "no"})
show(
    printed, caption="Images with exactly one finding, by cell, and the smallest of the four cells"
)

# %% tags=["hide-input"]
fig, axis = plt.subplots(figsize=(5.6, 3.8))
shown = single[::-1]
axis.barh(shown.index, shown["smallest"], color=np.where(shown["in_paper"], "#0072B2", "#B8CFE0"))
axis.axvline(nih6x200.PER_CELL, color="#D55E00", lw=1.5)
axis.set(xscale="log", xlabel="images in the smallest cell")
axis.set_xticks([10, 50, 100, 500, 1000], [10, 50, 100, 500, 1000])
figure(
    "fig-curation-cells",
    caption="The smallest of the four cells of each disease. Dark bars: the six diseases of paper X. The line marks the number of images that the recipe asks for.",
    alt="Horizontal bars on a logarithmic axis: images in the smallest of the four cells, one bar a disease, "
    f"from {single['smallest'].min()} ({single['smallest'].idxmin()}) to {single['smallest'].max()} "
    f"({single['smallest'].idxmax()}), with a line at {nih6x200.PER_CELL}. Dark bars that end before the "
    f"line: {', '.join(single.index[single['in_paper'] & ~single['satisfies']]) or 'none'}.",
    table=single,
    counts=("young F", "young M", "old F", "old M", "smallest"),
)

# %% tags=["remove-cell"]
satisfying = single.index[single["satisfies"]]
unused = [d for d in satisfying if d not in nih6x200.DISEASES]
short = [d for d in nih6x200.DISEASES if d not in satisfying]
glue("n-satisfying", str(len(satisfying)))
glue("n-unused", str(len(unused)))
glue("only-six", "follows" if len(satisfying) == 6 else "does not follow")
glue("unused", ", ".join(unused))
glue("short", ", ".join(short) if short else "none")
glue("short-cell", int(single.loc[list(nih6x200.DISEASES), "smallest"].min()))

# %% [markdown]
# By this count {glue:text}`n-satisfying` of the {glue:text}`n-findings` diseases satisfy the criterion: all
# bars of {numref}`fig-curation-cells` that cross the line. The paper says six. Of its six, those that fall
# short: {glue:text}`short`; the smallest cell of the six has {glue:text}`short-cell` images. More diseases
# would have been possible, {glue:text}`n-unused` of them: {glue:text}`unused`.
#
# So "only six" {glue:text}`only-six` from the rule. The six may have been chosen for other good reasons,
# such as being the labels of other data sets. A reader should know that more could be studied.

# %% [markdown]
# ### Drawing the subset, and splitting it
#
# The list of images is not published, so the paper's draw is one of very many. Here the images are drawn
# {glue:text}`n-draws` times by the recipe, and each draw is split 7:1:2 into training, validation and test
# *images*, as the recipe reads. *Leakage* is the share of test images whose patient has another image in
# training: the model has met this patient.

# %%
cohort = nih6x200.draw(seed, split="image")
draws = nih6x200.draws(range(seed, seed + n_draws))
show(
    draws[["seed", "patients", "leakage"]].head(3),
    caption="The first draws: patients among the images, and leakage",
    counts=("patients",),
)

# %% tags=["remove-cell"]
by_patient = nih6x200.draw(seed, split="patient")
test_size = int((cohort["split"] == "test").sum())
glue("n-draws", str(n_draws))
glue("draw-seed", str(seed))
glue("draw-fingerprint", nih6x200.fingerprint(by_patient))
glue("draw-images", len(cohort))
glue("draw-patients", fmt(draws["patients"].mean(), 0))
glue("leak-mean", percent(draws["leakage"].mean()))
glue("leak-range", f"{percent(draws['leakage'].min())} to {percent(draws['leakage'].max())}")
glue("leak-one-in", fmt(1 / draws["leakage"].mean(), 0))
glue("leak-patient", percent(nih6x200.leakage(by_patient)))
glue("test-size", test_size)
glue("leak-images", fmt(draws["leakage"].mean() * test_size, 0))
glue("children", int((cohort["age"] < 18).sum()))
glue("youngest", str(cohort["age"].min()))

# %% tags=["hide-input"]
fig, axis = plt.subplots(figsize=(5.6, 2.8))
axis.hist(100 * draws["leakage"], bins=np.arange(0, 41, 2), color="#0072B2")
axis.axvline(0, color="#D55E00", lw=3)
axis.annotate("split by patient", (0.5, axis.get_ylim()[1] * 0.85), color="#B34700")
axis.yaxis.get_major_locator().set_params(integer=True)
axis.set(xlabel="leaking test images (%)", ylabel="draws", xlim=(-0.5, 40))
figure(
    "fig-curation-leakage",
    caption="Share of test images whose patient also has an image in training, over repeated draws with an image-level split. A patient-level split gives 0.",
    alt="Histogram: leaking test images in per cent against draws. Over the draws the share runs from "
    f"{percent(draws['leakage'].min())} to {percent(draws['leakage'].max())}, mean "
    f"{percent(draws['leakage'].mean())}; a line at 0 marks a split by patient.",
    table=draws,
    counts=(),
)

# %% [markdown]
# A draw of {glue:text}`draw-images:,d` images has about {glue:text}`draw-patients` patients. On average
# {glue:text}`leak-mean` of the {glue:text}`test-size` test images ({glue:text}`leak-range` over the
# draws), some {glue:text}`leak-images` images or one in {glue:text}`leak-one-in`, show a patient on whom
# the model was trained. A model that remembers patients is rewarded for it there. Splitting patients
# instead leaves {glue:text}`leak-patient`. The paper does not say which of the two it did.
#
# Whoever wants the films of a draw needs their names first. The command
# `cxrbook nih-6x200-list --seed N --out films.txt` writes them from the metadata alone, before anything
# is fetched, and says the fingerprint of the draw. With the seed of this run,
# {glue:text}`draw-seed`, it is {glue:text}`draw-fingerprint`: two people with the same fingerprint have the
# same films in the same split.
#
# "Young" has no lower end: this draw holds {glue:text}`children` images of patients under 18, the
# youngest aged {glue:text}`youngest`.

# %% [markdown]
# ### Balanced in age and sex, but in what else?

# %% tags=["hide-input"]
ap_share = draws.filter(like="AP ").rename(columns=lambda c: c.removeprefix("AP "))
ap_share = ap_share[ap_share.mean().sort_values().index]
fig, axis = plt.subplots(figsize=(5.6, 2.8))
axis.hlines(ap_share.columns, 100 * ap_share.min(), 100 * ap_share.max(), color="#0072B2", lw=2)
axis.plot(100 * ap_share.mean(), ap_share.columns, "o", color="#0072B2")
axis.set(xlim=(0, 100), xlabel="images taken in AP view (%)")
axis.grid(axis="x", alpha=0.3)
figure(
    "fig-curation-view",
    caption="Share of AP films of each disease in the 6x200 subset: mean and range over repeated draws.",
    alt="Dots with ranges, one row per disease: images taken in AP view, per cent. Means over the draws: "
    + "; ".join(f"{d} {percent(x)}" for d, x in ap_share.mean().items())
    + ".",
    table=ap_share.agg(["mean", "min", "max"]).T.rename_axis("disease"),
)

# %% tags=["remove-cell"]
mean_ap = ap_share.mean()
# The best guess from the view alone: on AP films the disease with most AP films, on PA likewise.
view_only = (mean_ap.max() + (1 - mean_ap).max()) / len(mean_ap)
glue("ap-high", mean_ap.idxmax())
glue("ap-high-share", percent(mean_ap.max()))
glue("ap-low", mean_ap.idxmin())
glue("ap-low-share", percent(mean_ap.min()))
glue("view-only", percent(view_only))
glue("by-chance", percent(1 / len(mean_ap)))

# %% [markdown]
# {glue:text}`ap-high-share` of the {glue:text}`ap-high` images are AP films, but only
# {glue:text}`ap-low-share` of those with {glue:text}`ap-low`. A "classifier" that sees nothing but the
# view position, and always names the commonest disease in that view, is right for
# {glue:text}`view-only` of the images; blind guessing gives {glue:text}`by-chance`. Balancing age and
# sex did not balance how sick the patients were, nor how they were imaged.

# %% tags=["remove-input"]
quiz(
    "In NIH 6x200 each disease has as many women as men and as many young as old. A model "
    "classifies its diseases better than chance. Must it have looked at the disease?",
    {
        "Yes: there is no other clue left in a balanced subset.": (
            False,
            "Only age and sex were balanced, alone and together. What was not looked at can still "
            f"differ, as the view position does: it alone is right for {percent(view_only)} of the "
            f"images, where chance gives {percent(1 / len(mean_ap))}.",
        ),
        "No: a clue that was not balanced may have helped.": (
            True,
            "The view position is such a clue. Scanner, ward, tubes and cables may be others, and "
            "metadata say nothing of them.",
        ),
        "No: the model may use age or sex.": (
            False,
            "Alone they do not help here: within each disease all four cells are of equal size, or "
            "nearly so.",
        ),
    },
)

# %% [markdown]
# ### What the papers say, what this run computes


# %% tags=["hide-input"]
def pair(counts):
    return "{:,.0f} / {:,.0f}".format(*counts)


sizes = (len(nih), nih["patient_id"].nunique())
rows = []
for section in ("X Section 2.1", "S Section 2.3"):
    of_nih = published.table(section).query("cohort == 'nih-cxr14'")
    paper = tuple(schema.row(of_nih, metric=m)["value"] for m in ("n_images", "n_patients"))
    rows.append((section, "images / patients of NIH", pair(paper), pair(sizes), paper == sizes))
paper, own = tuple(edema["paper X"]), tuple(edema["exactly one finding"])
rows.append(
    ("X Section 2.1", "old patients with edema, F / M", pair(paper), pair(own), paper == own)
)
paper, own = len(nih6x200.DISEASES), len(satisfying)
what = f"diseases with {nih6x200.PER_CELL} in each cell"
rows.append(("X Section 2.1", what, paper, own, paper == own))
claims = pd.DataFrame(rows, columns=["section", "quantity", "paper says", "this run", "verdict"])
claims["verdict"] = claims["verdict"].map({True: published.REPRODUCED, False: published.DIFFERS})
claims[["paper says", "this run"]] = claims[["paper says", "this run"]].astype(str)
show(
    claims,
    caption="What the papers say of NIH ChestX-ray14 and NIH 6x200, and what was counted here",
)

# %% [markdown]
# The first line has a simple explanation. ChestX-ray8, the eight-label data set of the article that
# paper X cites {cite:p}`wang2017`, has {published}`X Section 2.1; nih-cxr14; n_images` images of
# {published}`X Section 2.1; nih-cxr14; n_patients` patients; the release with fourteen labels has the
# counts of paper S. Paper X describes the fourteen labels and quotes the counts of the eight-label
# predecessor. No result hangs on it. But whoever wants to rebuild a cohort starts from its size.

# %% [markdown]
# ## Who is in it? The cohort of this run
#
# The chapters that follow study one cohort, which the parameter `data` names; here it is
# **{glue:text}`data`**. By default that is the phantom cohort, presented further down. The command
# `cxrbook cohorts` lists the others, and {doc}`../data` says which files they want. Whichever it is,
# the same questions are put to it: how it came about, who is in it, what goes together, what could
# leak, and whether its counts are those in print.

# %% tags=["remove-cell"]
glue("data", data)
glue("cohort-name", studied.name)
glue("cohort-patients", studied.table["patient_id"].nunique())
glue("fingerprint", studied.fingerprint)
hidden = ("name", "dials", "renderer")  # dials have a table below; the other two say nothing here
chosen = {k: v for k, v in studied.recipe.items() if k not in hidden}

# %% tags=["hide-input"]
about = {
    "called": studied.name,
    "access": studied.access,
    "images": f"{len(studied.table):,}",
    "patients": f"{studied.table['patient_id'].nunique():,}",
    "findings": len(studied.findings),
    "attributes": ", ".join(readable(a) for a in studied.attributes) or "none with two groups",
    "options": ", ".join(f"{option} {value}" for option, value in chosen.items()) or "none",
    "fingerprint": studied.fingerprint,
}
about = pd.DataFrame({"what": list(about), "cohort": list(about.values())})
show(about, caption=f"The cohort of this run: {data}", counts=())

# %% [markdown]
# The fingerprint is computed from the rows, the films and the options, whatever their order and the
# folder they lie in. Two runs with the same one studied the same cohort; one label or film that
# differs gives another.
#
# ### How it came about

# %% tags=["hide-input"]
steps = summary.flow(studied)
flow_diagram(steps)
figure(
    "fig-curation-flow",
    caption="From the release to the cohort of this run.",
    alt="Boxes from top to bottom, one a step, with what is left after it; beside the arrows what the step left out. "
    + "; ".join(
        f"{x.step}: {x.images:,} images, {x.patients:,} patients" for x in steps.itertuples()
    )
    + ".",
    table=steps,
    counts=("images", "patients", "images_out", "patients_out"),
)

# %% tags=["remove-cell"]
out = steps.iloc[1:].reset_index(drop=True)
largest = out.loc[out["images_out"].idxmax()] if out["images_out"].any() else None
glue("kept", percent(len(studied.table) / steps["images"].iloc[0], 1))
glue(
    "largest-step",
    "no step left out an image"
    if largest is None
    else f'the step that left out most is "{largest["step"]}", {largest["images_out"]:,} images',
)

# %% [markdown]
# {glue:text}`kept` of the release is left; {glue:text}`largest-step`. A patient is left out with the
# last of the patient's images. Where data are credentialed, a step that left out fewer than ten images or
# patients is told together with a neighbour.
#
# ### Table 1
#
# Clinical papers describe their patients in the first table; papers on models seldom do. Images are
# counted, except in the line of patients. Shares are of the images of the column, ages are medians with
# quartiles, and what is not recorded has a line of its own.

# %%
by_sex = summary.characteristics(studied, by="sex")
show(summary.table_one(by_sex), caption=f"Characteristics by sex: {studied.name}", counts=())

# %%
if "race" in studied.attributes:
    of_races = summary.characteristics(studied, by="race")
    show(summary.table_one(of_races), caption=f"Characteristics by race: {studied.name}", counts=())
else:
    print("Race is not recorded in this cohort, so nothing can be said by race.")

# %% tags=["remove-cell"]
people = {
    readable(group): part["patient_id"].nunique()
    for a in studied.attributes
    if a in ("sex", "age_group", "race")
    for group, part in studied.table.groupby(a)
}
thin = min(people, key=people.get, default="undefined")
glue("thin-group", thin)
glue("thin-patients", people.get(thin))

# %% [markdown]
# Read such a table for what will be thin: the fewest patients of any group by sex, age or race are those of
# group {glue:text}`thin-group`, {glue:text}`thin-patients`. Numbers about them will have wide intervals.
#
# "Hidden" are, in credentialed data, numbers that rest on fewer than ten patients, and others from which
# these could be computed.
#
# ### What goes with a group?
#
# If one group is imaged in bed more often, is older, or has a finding more often, a model can treat
# groups differently without seeing the group at all. Three panels show what there is to see: view, age
# and findings of each group, with intervals over patients. A hollow ring stands for a number that is
# undefined or, in credentialed data, hidden.

# %%
panels = [a for a in ("sex", "race", "age_group") if a in studied.attributes][:2]
confounders = {a: summary.confounders(studied, a) for a in panels}


# %% tags=["hide-input"]
def confounding(which, name):
    """One figure for the attribute at this place."""
    rows = confounders[panels[which]]
    confounder_panel(rows)
    said = {"share_ap": "Share of AP films", "mean_age": "Mean age", "prevalence": "Prevalence"}
    told = [in_words(rows[rows["metric"] == m], 3).replace(m, text) for m, text in said.items()]
    figure(
        name,
        caption=f"View, age and findings by {readable(panels[which])}, with 95 % intervals over patients.",
        alt="Three panels of dots with whiskers, one colour per group: share of AP films, mean age, and "
        f"prevalence of each finding. {' '.join(told)}",
        table=rows,
    )


if panels:
    confounding(0, "fig-curation-confounders")

# %% tags=["hide-input"]
if len(panels) > 1:
    confounding(1, "fig-curation-confounders-2")

# %% tags=["remove-cell"]
rows = pd.concat(confounders.values()) if panels else summary.confounders(studied, "sex")
rows = rows[rows["metric"] == "prevalence"]
wide_group = rows.pivot_table(index=["attribute", "label"], columns="group", values="value")
spans = (wide_group.max(axis=1) - wide_group.min(axis=1)).dropna()
if len(spans):
    where, label = spans.idxmax()
    at = wide_group.loc[(where, label)].dropna()
    glue("span-label", label)
    glue("span-high", f"{percent(at.max(), 1)} ({readable(at.idxmax())})")
    glue("span-low", f"{percent(at.min(), 1)} ({readable(at.idxmin())})")
    ends = rows[(rows["attribute"] == where) & (rows["label"] == label)].set_index("group")
    apart = ends.loc[at.idxmax(), "ci_low"] > ends.loc[at.idxmin(), "ci_high"]
    glue("span-apart", "do not overlap" if apart else "overlap")
else:
    for key in ("span-label", "span-high", "span-low", "span-apart"):
        glue(key, "undefined")

# %% [markdown]
# Of the findings drawn here, {glue:text}`span-label` differs most between groups: it is on
# {glue:text}`span-high` of the images of one, and on {glue:text}`span-low` of another. Their intervals
# {glue:text}`span-apart`. This is the widest of many differences, so a little of it is luck in any case.
#
# ### What could leak?
#
# A patient who is in training and test, a film that is there twice under two names, a film that a model
# was pretrained on: each lets a model look better than it is. Copies are found by a hash of the file;
# near-duplicates by a *perceptual* hash of {glue:text}`hash-bits` bits, of which at most
# {glue:text}`hash-distance` may differ. A film that was saved anew, made smaller or a little brighter keeps
# its hash or nearly so. Two films of different people can be as close by chance: a near-duplicate is a
# reason to look, no proof. The official lists of NIH and of MIMIC-CXR are checked when they are read: a
# patient in two of them stops the run.

# %%
examined = [*model_names(), *published_models()]
leaking = leakage.report(studied, leaks(examined, studied))
show(leaking, caption=f"Leakage report: {studied.name}", missing="–", counts=())

# %% tags=["remove-cell"]
glue("hash-bits", str(leakage.HASH_BITS))
glue("hash-distance", str(leakage.MAX_DISTANCE))
pretraining = leaking[leaking["check"].str.startswith("pretraining")]
shared = pretraining["note"].str.startswith("trained on this source").sum()
glue("n-pretrained", str(shared))
others = pretraining["note"].str.contains("on other patients").sum()
glue("n-other-patients", str(others))
glue("n-examined", str(len(examined)))

# %% [markdown]
# Of {glue:text}`n-examined` models, {glue:text}`n-pretrained` were trained on a source of this cohort, of
# them {glue:text}`n-other-patients` on other patients. Without that, their score is that of a student who is
# asked the questions of the textbook. A dash stands for a check that does not apply to this cohort; the
# note says why.
#
# ### Its counts, and those in print

# %%
keep(cohort_counts(studied))
beside = counts_beside_papers(studied)
show(beside, caption="Counts: the data set, the papers, this run", missing="–", counts=())

# %% tags=["remove-cell"]
mimic_known = mimic.KNOWN.set_index("what")["images"]
glue("mimic-test", f"{mimic_known['official test split']:,}")
glue("mimic-s", f"{mimic_known['test split as S prints it']:,}")
glue("mimic-s-text", f"{mimic_known['with a FINDINGS section, as S prints it']:,}")
differing = beside[beside["verdict"] == published.DIFFERS]
glue("n-differs", str(len(differing)))
glue("n-beside", str(len(beside)))

# %% [markdown]
# {glue:text}`n-differs` of these {glue:text}`n-beside` counts differ. A cohort whose name ends in "(part)"
# lacks some of the images that the official release or list has; its numbers are never set against
# published ones.
#
# On MIMIC-CXR the papers' counts cannot be met. Paper S speaks of a test split of {glue:text}`mimic-s`
# images, {glue:text}`mimic-s-text` of them with a FINDINGS section. The official test split has
# {glue:text}`mimic-test` images. The file from which S read its cohort is made by no public script, so
# that cohort cannot be rebuilt by anyone else; which of its images a model may have been trained on cannot
# be checked either. This book takes the official split, and says so with each number.
#
# ### How the table of MIMIC-CXR is made
#
# Nothing in MIMIC-CXR says how old a patient is, or of which race. Both come from MIMIC-IV, the hospital
# record of the same patients, and each takes a decision that a paper should state.
#
# - **Age.** Dates are shifted, by patient. The record gives an age in one *anchor year*; the age at the
#   film is that age plus the years between anchor and film. Patients over 89 are written as 91, so that
#   ages from 91 on are lower limits.
# - **Race.** Each admission has an entry, chosen by patient or clerk. The entries are sorted into five
#   groups by the table below. Entries that say "unknown" count only where there is no other; a patient whose
#   admissions say two groups is "other".
# - **Text.** A report's FINDINGS section is what stands under that heading or a spelling of it; a report
#   without one leaves the cohort, as in S, unless `reports` is set to "any".
# - **Labels.** A program read them from the reports: present, absent, uncertain (−1), or blank. What
#   becomes of the last two is the option `labels`. S takes blanks as absent; what it did with −1 is not
#   known.

# %% tags=["hide-input", "hide-output"]
mapping = pd.DataFrame(mimic.RACES.items(), columns=["entry in MIMIC-IV", "group"])
show(mapping, caption="Race: entries of MIMIC-IV and their groups", counts=())

# %% tags=["hide-input"]
policies = pd.DataFrame(mimic.POLICIES.values(), index=list(mimic.POLICIES)).rename_axis("labels")
policies = policies.rename(columns={"uncertain": "uncertain (−1)", "missing": "blank"})
show(policies, caption="Label policies, by name", counts=())

# %% [markdown]
# "Hispanic or Latino" is no race in most censuses and one of the entries here, so these patients have no
# race on record and are "other". Another mapping would be another cohort.

# %% [markdown]
# ## The phantom cohort
#
# Metadata cannot be shown to a vision model, and real radiographs need a licence and a download. So
# unless told otherwise the chapters that follow run on a *phantom*: radiograph-like images, drawn by a
# program for real rows of the NIH table. Age, sex, view position and part of the findings are those of an
# NIH patient; the picture, the race and the hospital site are not.
#
# What makes a phantom worth the trouble is not that it looks right. It is that **its biases are
# planted**: they are known, so one can ask whether an audit finds them.

# %%
phantoms = studied
if phantoms.name != "phantom":
    phantoms = cohorts.load("phantom", n_images=n_images, seed=seed, size=size)

# %% tags=["hide-input"]
if guard.active():
    withheld("films, not even those of phantoms")
else:
    sheet = phantom.contact_sheet(phantoms, columns=7)
    figure(
        "fig-curation-contact-sheet",
        caption="Phantom radiographs: a row without findings, then one finding a row with severity rising to the right, then devices. Above each image: sex, age, view, site. Where the cohort has too few, places stay empty.",
        alt="Grid of drawn chest radiographs: a row without findings, one row for each of "
        f"{', '.join(phantoms.findings)}, with severity rising to the right, and a row of drains, pacemakers and leads.",
    )

# %% [markdown]
# These are cartoons. They have a rib cage, a heart whose width is set, lungs whose outlines were
# learnt from lung masks, and findings drawn by formula. No conclusion about patients follows from
# them; conclusions about *methods of audit* do.
#
# Each image comes with a report, from which the small CLIP models of the next chapter learn.

# %%
several_findings = phantoms.table[list(phantoms.findings)].sum(axis=1) > 1
if guard.active():
    withheld("reports, not even those of phantoms")
else:
    for report in phantoms.table.loc[several_findings, "report"].head(3):
        print(textwrap.fill(report, 76), end="\n\n")

# %% [markdown]
# ### Its dials
#
# A *dial* is a number that plants one bias. In this run {glue:text}`dials-changed`. Each can be set by
# hand: `-p options='{"dials": {"drain_if_none": 0.3}}'` gives drains to many patients without a
# pneumothorax.


# %% tags=["hide-input"]
MEANING = {
    "drain_if_pneumothorax": "probability of a drain with a pneumothorax",
    "drain_if_none": "probability of a drain without one",
    "contrast": "factor on how visible findings are; 1: as drawn",
    "prevalence": "share of images to which a rarer finding is topped up",
    "prevalence_factor": "factor on this top-up, by group",
    "share": "share of the patients",
    "underreport": "probability that a finding is left out of label and report",
    "images_per_patient": "at most so many images a patient",
    "site_by_race": "0: site by chance; 1: each race at its own",
    "site_signature": "0: scanners alike; 1: full signatures",
}
settings = phantoms.recipe["dials"]
turned = [dial for dial, default in asdict(phantom.Dials()).items() if settings[dial] != default]
changed = f"all dials stand at their defaults but for {', '.join(turned)}"
glue("dials-changed", changed if turned else "all dials stand at their defaults")
rows = []
for dial, setting in settings.items():
    row = {"dial": dial, "group": "", "set to": "none", "meaning": MEANING.get(dial, "")}
    if not isinstance(setting, dict):
        rows.append(row | {"set to": f"{setting:g}"})
    elif not setting:
        rows.append(row)
    for attribute, values in setting.items() if isinstance(setting, dict) else ():
        for group, value in values.items():
            name = f"{attribute.replace('_', ' ')} {group}"
            rows.append(row | {"group": name, "set to": f"{value:g}"})
show(pd.DataFrame(rows), caption="Dials of the phantom cohort")

# %% [markdown]
# The first two dials plant the bias of the chapter on shortcuts. A *pneumothorax* is air between lung and
# chest wall, and a *chest drain* is the tube that lets it out. How strong is the bond between the two in a
# real hospital? The labels of PadChest {cite:p}`bustos2020`, a Spanish cohort, include chest drains.

# %%
real = associations.padchest_drains()
planted = associations.association(phantoms.table, "drain", "Pneumothorax")

# %% tags=["hide-input"]
drains = pd.concat([real.assign(cohort="PadChest"), planted.assign(cohort="phantom")])
numbers = drains[["value", "ci_low", "ci_high"]].to_numpy()
drains["share with a drain"] = [fmt_interval(*row, digits=3) for row in numbers]
names = {"group": "pneumothorax", "n_positive": "drains", "n": "images", "n_patients": "patients"}
columns = ["cohort", "pneumothorax", "share with a drain", "drains", "images", "patients"]
show(
    drains.rename(columns=names)[columns].reset_index(drop=True),
    caption="Chest drains with and without a pneumothorax, with 95 % intervals over patients",
)

# %% tags=["remove-cell"]
real, planted = real.set_index("group"), planted.set_index("group")
glue("padchest-with", percent(real.loc["with", "value"]))
glue("padchest-without", percent(real.loc["without", "value"], 1))
glue("padchest-pneumothorax", int(real.loc["with", "n"]))
glue("padchest-ratio", times(*real["value"][["with", "without"]]))
glue("phantom-with", percent(planted.loc["with", "value"]))
glue("phantom-without", percent(planted.loc["without", "value"]))
both = (planted["value"] > real["value"])[["with", "without"]].all()
glue("phantom-more", "has more drains on both sides" if both else "has other frequencies")
glue("phantom-ratio", times(*planted["value"][["with", "without"]]))

# %% [markdown]
# Of {glue:text}`padchest-pneumothorax` PadChest images with a pneumothorax (those with fluid as well
# included), {glue:text}`padchest-with` show a drain; of the others {glue:text}`padchest-without`. That
# is a ratio of {glue:text}`padchest-ratio`. The phantom {glue:text}`phantom-more`:
# {glue:text}`phantom-with` and {glue:text}`phantom-without`, a ratio of {glue:text}`phantom-ratio`. The
# default dials are not those of PadChest on purpose: with its frequencies, a cohort of a few thousand
# images would hold hardly a drain without a pneumothorax, and nothing could be compared.

# %% [markdown]
# ### Its patients beside those of NIH

# %% tags=["hide-input"]
adults = nih[nih["age_group"].notna()]
rows = []
for attribute, groups in {
    "sex": ("F", "M"),
    "age_group": metadata.AGE_GROUPS,
    "view": ("PA", "AP"),
    "race": tuple(phantom.RACES),
}.items():
    for group in groups:
        rows.append(
            {
                "attribute": attribute.replace("_", " "),
                "group": group,
                "NIH adults": percent((adults[attribute] == group).mean())
                if attribute in adults
                else "",
                "phantom": percent((phantoms.table[attribute] == group).mean()),
            }
        )
for finding in phantoms.findings:
    rows.append(
        {
            "attribute": "finding",
            "group": finding,
            "NIH adults": percent(adults[finding].mean(), 1),
            "phantom": percent(phantoms.table[finding].mean(), 1),
        }
    )
show(pd.DataFrame(rows), caption="Composition by image", missing="")

# %% [markdown]
# Where the columns differ, a dial stands behind it. `share` decides how often each age is drawn: patients
# of the oldest group have {glue:text}`oldest-phantom` of the phantom images and {glue:text}`oldest-nih`
# of the real ones. `prevalence` tops up rare findings: {glue:text}`rarest`, the rarest of them in NIH, is on
# {glue:text}`rarest-phantom` of the phantom images and on {glue:text}`rarest-nih` of the real ones.
# `images_per_patient` keeps the first {glue:text}`per-patient` images of a patient at most. That alone moves
# the share of AP films in NIH from {glue:text}`ap-all` to {glue:text}`ap-first`: long series of images belong
# to patients in bed. What is left is the luck of {glue:text}`n-phantom` images. Race is not recorded in
# NIH; in the phantom it is drawn at random, a patient at a time.

# %% tags=["remove-cell"]
rarest = adults[list(phantoms.findings)].mean().idxmin()
k = settings["images_per_patient"]
first = adults[adults.groupby("patient_id").cumcount() < k]
glue("oldest-phantom", percent((phantoms.table["age_group"] == "80+").mean()))
glue("oldest-nih", percent((adults["age_group"] == "80+").mean()))
glue("rarest", rarest)
glue("rarest-phantom", percent(phantoms.table[rarest].mean(), 1))
glue("rarest-nih", percent(adults[rarest].mean(), 1))
glue("per-patient", str(k))
glue("ap-all", percent(adults["AP"].mean()))
glue("ap-first", percent(first["AP"].mean()))
glue("n-phantom", f"{len(phantoms.table):,}")

# %% [markdown]
# The chapter on fine-tuning uses a second phantom cohort: the rows of a 6x200 draw, each with its one
# real finding, split by patient.

# %%
six = cohorts.load("phantom-6x200", seed=seed)
cell = six.table["age60"] + " " + six.table["sex"]
cells = pd.crosstab(six.table["disease"], cell)[["young F", "young M", "old F", "old M"]]
show(cells.rename_axis(columns=None), caption="Images of the phantom 6x200 cohort, by cell")

# %% [markdown]
# ### The truth of a dial: counterfactual twins
#
# Every random number of the phantom depends on the cohort's seed, the image and the *name* of what it
# decides, on nothing else. So the cohort can be drawn again with one dial changed and all else equal,
# down to the grain. Such a pair of images is a pair of *counterfactual twins*: the same patient with
# and without the drain. No hospital can supply that.

# %%
table = phantoms.table
ill = (table.filter(like="severity_") > 0).any(axis=1)
visible = pd.Series(1.0, table.index)  # the product of the contrast dials of an image
for attribute, factors in settings["contrast"].items():
    visible *= table[attribute].map(factors).fillna(1)
signed = (table["site"] != "A") & (settings["site_signature"] > 0)  # scanner A is the plain one
switches = {  # what is changed, and which images it is meant to change
    "no drains": (phantom.twin(phantoms, drain=0), table["drain"] == 1),
    "no fading": (phantom.twin(phantoms, contrast={}), ill & (visible != 1)),
    "all scanners alike": (phantom.twin(phantoms, site_signature=0.0), signed),
}

# %% tags=["hide-input"]
everything = np.arange(len(table))
images = phantoms.images(everything).astype(np.int16)
twins, shifts, truth = {}, {}, []
for change, (other, meant) in switches.items():
    twins[change] = other.images(everything).astype(np.int16)
    shifts[change] = np.abs(twins[change] - images).mean(axis=(1, 2))
    truth.append(
        {
            "change": change,
            "meant to change": int(meant.sum()),
            "of these changed": int((shifts[change][meant] > 0).sum()),
            "others changed": int((shifts[change][~meant] > 0).sum()),
            "mean shift": shifts[change][meant].mean() if meant.any() else np.nan,
        }
    )
truth = pd.DataFrame(truth)
show(
    truth,
    caption="Images changed by each twin, and by how many of 256 grey levels a pixel on average",
    missing="undefined",
)

# %% tags=["remove-cell"]
stray = int(truth["others changed"].sum())
glue("stray", "none" if stray == 0 else str(stray))
meant, reached = int(truth["meant to change"].sum()), int(truth["of these changed"].sum())
glue("reached", "all" if reached == meant else percent(reached / meant, 1))

# %% tags=["hide-input"]
if guard.active():
    withheld("films, not even those of phantoms")
else:
    fig, axes = plt.subplots(3, 3, figsize=(5.6, 6))
    for row, change in zip(axes, switches, strict=True):
        clearest = shifts[change].argmax()
        before, after = images[clearest], twins[change][clearest]
        row[0].imshow(before, cmap="gray", vmin=0, vmax=255)
        row[1].imshow(after, cmap="gray", vmin=0, vmax=255)
        row[2].imshow(after - before, cmap="gray", vmin=-80, vmax=80)
        for axis, title in zip(row, ("image", change, "difference"), strict=True):
            axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    told = truth.rename(columns={"mean shift": "shift"})
    figure(
        "fig-curation-twins",
        caption="Counterfactual twins. Left: the image. Middle: its twin with one change. Right: the difference, black where the twin is darker, white where it is brighter.",
        alt="Three rows of three images: a phantom radiograph, its twin with one thing changed, and the difference. Grey levels by which a pixel changes on average where a change is meant: "
        + "; ".join(f"{x.change} {fmt(x.shift)}" for x in told.itertuples())
        + ".",
        table=truth,
        counts=("meant to change", "of these changed", "others changed"),
    )

# %% [markdown]
# Each change reaches {glue:text}`reached` of the images it should. Of all the others,
# {glue:text}`stray` changed by even one grey level in one pixel. Where phantoms may be shown, the figure
# has the clearest pair of each kind. What a twin changes in a model's answer is the true effect of the dial on this
# patient, and later chapters hold their estimates against it.

# %% [markdown]
# ### Race, through the site alone
#
# Race is a social category. There is no formula for how it should change a chest radiograph, and to
# invent one for the phantom would be to plant biology where none is established. What is well
# established is that patients of different race are cared for in different places, with different
# machines. So in the phantom race decides the odds of the *site*, and the site has a scanner with a
# signature. There is no other path.

# %%
by_race = pd.crosstab(table["race"], table["site"], normalize="index")
show(
    by_race.reindex(list(phantom.RACES)).rename_axis(columns=None),
    caption="Share of each race's images taken at each site",
)

# %% [markdown]
# That there is no other path can be tested. Switch the signatures off, then let sites be assigned
# without regard to race, so that images change their site. If race, or the site, had any other way into
# the image, some image would change.

# %%
plain, _ = switches["all scanners alike"]
moved = phantom.twin(phantoms, site_signature=0.0, site_by_race=0.0)
changed_site = plain.table["site"] != moved.table["site"]
before, after = twins["all scanners alike"], moved.images(everything)  # two sets of sites
changed_image = (before != after).any(axis=(1, 2))

# %% tags=["remove-cell"]
glue("changed-site", int(changed_site.sum()))
glue("changed-image", int(changed_image.sum()) or "none")
glue(
    "site-test",
    ""
    if changed_site.any()
    else " As no image changed its site, nothing was put to the test here.",
)

# %% [markdown]
# {glue:text}`changed-site` images changed their site, {glue:text}`changed-image` of the cohort changed in
# any pixel.{glue:text}`site-test` In the phantom, a *probe*, a small classifier on top of a model, that
# reads race reads a scanner. In real radiographs, race can be read too {cite:p}`gichoya2022`; from what is
# not settled, and the phantom has nothing to say on it.
#
# ### What was planted, and was it found?
#
# A bias that is planted should be found by anybody who counts. Here are the dials that can be read off the
# cohort's own table. A race's own site takes its patients with the probability of the dial, and a third of
# the others, who go to a site by chance.

# %% tags=["hide-input"]
pneumothorax = table["severity_Pneumothorax"] > 0
people = table.drop_duplicates("patient_id")
at_own = people["site"] == people["race"].map(dict(zip(phantom.RACES, phantom.SITES, strict=True)))
by_race_dial = settings["site_by_race"]
dialled = {
    "drains with a pneumothorax": (settings["drain_if_pneumothorax"], table["drain"][pneumothorax]),
    "drains without one": (settings["drain_if_none"], table["drain"][~pneumothorax]),
    "patients at the site of their race": (by_race_dial + (1 - by_race_dial) / 3, at_own),
}
rows = []
for what, (dial, outcome) in dialled.items():
    share = associations.proportion(outcome, table.loc[outcome.index, "patient_id"])
    inside = "undefined" if np.isnan(share["value"]) else "missed"
    if share["ci_low"] <= dial <= share["ci_high"]:
        inside = "found"
    text = fmt_interval(share["value"], share["ci_low"], share["ci_high"])
    rows.append(
        {"share of": what, "planted": dial, "counted, 95 % interval": text, "verdict": inside}
    )
    glue(f"planted-{len(rows)}", fmt(dial))
recovered = pd.DataFrame(rows)
show(recovered, caption="Planted shares, and what was counted over patients")
glue("n-recovered", str((recovered["verdict"] == "found").sum()))
glue("n-planted", str(len(recovered)))

# %% [markdown]
# The interval holds the planted number for {glue:text}`n-recovered` of {glue:text}`n-planted`. (One 95 %
# interval in twenty is expected to miss, with nothing wrong.) Two further dials, the contrast of the
# findings and the signatures of the scanners, leave no trace in any table. They were found by twins alone,
# in {glue:text}`reached` of the images they should have reached. This is why an audit that only counts
# cannot see everything.

# %% tags=["remove-input"]
quiz(
    "In the phantom, findings fade with age, and an audit finds that a model misses more of them "
    "in old patients. What does that say about real patients?",
    {
        "That real models fail old patients too.": (
            False,
            "The fading was put there by a dial. Turned the other way, the same audit would find the "
            "opposite.",
        ),
        "Nothing about patients; it says that the audit finds such a bias where there is one.": (
            True,
            "This is what a phantom is for: the truth is known, so the method can be graded.",
        ),
        "That findings fade with age in real films.": (
            False,
            "Whether they do is a question to radiologists and real films. No program that draws "
            "pictures can answer it.",
        ),
    },
)

# %% [markdown]
# ## Limits
#
# - The metadata are those of one American research hospital. Race, income and scanner are not in them.
# - All labels were read from reports by software, those of PadChest mostly by a network. The errors are
#   not independent of how the report was written.
# - The rule behind NIH 6x200 was inferred from one printed exception. Another rule that gives the same two
#   numbers cannot be excluded.
# - In the phantom, findings that were topped up fall on patients at random. Real findings come together
#   and come back; the phantom's do so less.
#
# ## What we learned
#
# - NIH ChestX-ray14 has {glue:text}`n-images:,d` images of {glue:text}`n-patients:,d` patients, unequally
#   shared: the most imaged tenth own {glue:text}`share-top`. Patients are the unit of splitting and of
#   resampling.
# - View position separates findings {glue:text}`view-over-sex` than sex does.
# - Counting images with exactly one finding {glue:text}`rule-verdict` the exception of NIH 6x200.
#   {glue:text}`n-satisfying` diseases offer enough of them; of the paper's six, those that do not:
#   {glue:text}`short`.
# - An image-level split leaves {glue:text}`leak-mean` of the test images with their patient in training.
# - Balance in age and sex is not balance in view position: the view alone names the disease in
#   {glue:text}`view-only` of cases, chance in {glue:text}`by-chance`.
# - The phantom's biases are planted. {glue:text}`n-recovered` of {glue:text}`n-planted` can be counted
#   back, twins reach {glue:text}`reached` of the images they should, and with the scanners alike the race
#   changes the pixels of {glue:text}`changed-image` images.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-curation-threshold
#
# How many diseases would be left if the recipe asked for 100 images a cell, how many for 30? Which
# threshold is the largest at which all six diseases of paper X satisfy it?
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-curation-threshold
# :class: dropdown
# ````

# %% tags=["solution"]
for per_cell in (30, 100):
    print(per_cell, "a cell:", int((single["smallest"] >= per_cell).sum()), "diseases")
print("largest threshold for all six:", single.loc[list(nih6x200.DISEASES), "smallest"].min())

# %% [markdown] tags=["solution"]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-curation-view
#
# Repair the imbalance in view position: keep PA films only. Which of the six diseases can still offer
# 50 images in each cell? Who is no longer represented?
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-curation-view
# :class: dropdown
# ````

# %% tags=["solution"]
pa_only = nih6x200.cell_counts(nih[nih["view"] == "PA"])
pa_only = pa_only.loc[list(nih6x200.DISEASES)].drop(columns="in_paper")
show(pa_only.rename_axis("disease"), caption="PA films with exactly one finding, by cell")

# %% tags=["remove-cell", "solution"]
pa_short = [d for d in nih6x200.DISEASES if not pa_only.loc[d, "satisfies"]]
glue("pa-dropped", ", ".join(pa_short) if pa_short else "None")
glue("pa-left", str(len(nih6x200.DISEASES) - len(pa_short)))

# %% [markdown] tags=["solution"]
# {glue:text}`pa-dropped` would drop out: {glue:text}`pa-left` of six diseases are left. A subset without
# confounding by view is a subset without the patients too ill to stand. The repair has a price, and one
# group of patients pays it.
#
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-curation-drain
#
# Most PadChest labels were predicted from the report by a network. Does the association of drain and
# pneumothorax survive when only reports labelled by physicians count, on frontal films?
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-curation-drain
# :class: dropdown
# ````

# %% tags=["solution"]
by_hand = associations.padchest_drains(frontal_only=True, read_by_hand_only=True)
columns = ["group", "value", "ci_low", "ci_high", "n_positive", "n", "n_patients"]
show(by_hand[columns], caption="PadChest, read by physicians", digits=3, counts=columns[4:])

# %% tags=["remove-cell", "solution"]
difference = by_hand.set_index("group").loc["with - without"]
glue("by-hand-difference", fmt_interval(*difference[["value", "ci_low", "ci_high"]]))
glue("by-hand-survives", "survives" if difference["ci_low"] > 0 else "is no longer certain")
glue("by-hand-n", int(by_hand.set_index("group").loc["with", "n"]))

# %% [markdown] tags=["solution"]
# The association {glue:text}`by-hand-survives`: the difference of the two shares is
# {glue:text}`by-hand-difference`. The interval is wide, since {glue:text}`by-hand-n` images with a
# pneumothorax are left.
#
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-curation-site
#
# Turn a dial: `-p options='{"dials": {"site_by_race": 0}}'`. Predict before you run it: what becomes of the
# table of races and sites, and of the test that race has no other path into the image?
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-curation-site
# :class: dropdown
# ````

# %% tags=["solution"]
at_random = phantom.twin(phantoms, site_by_race=0.0).table
shares = pd.crosstab(at_random["race"], at_random["site"], normalize="index")
show(
    shares.reindex(list(phantom.RACES)).rename_axis(columns=None),
    caption="Share of each race's images taken at each site, with site_by_race at 0",
)

# %% tags=["remove-cell", "solution"]
glue("site-ends", f"{percent(shares.min().min())} to {percent(shares.max().max())}")

# %% [markdown] tags=["solution"]
# Each race goes to each site a third of the time, up to the luck of the draw: here the shares run over
# {glue:text}`site-ends`. The test would come out clean, and mean nothing. Switching the dial off changes no
# site any more, as it is off already, so no image *could* change. A test that cannot fail proves nothing:
# always look at how many images it put to the test.
#
# ````{solution-end}
# ````

# %% [markdown]
# ## Further reading
#
# - {cite:t}`wang2017` made the NIH data set, and tell how its labels were read from reports.
# - {cite:t}`oakdenrayner2020datasets` looked at the images behind public labels, and at what the labels
#   miss.
# - {cite:t}`gebru2021` propose the questions that every data set should come with answers to.
# - {cite:t}`larrazabal2020` vary the share of women and men in training, and watch who pays.
# - {cite:t}`gichoya2022` show that models read race from real films, which nobody could explain.
# - {cite:t}`johnson2019` describe MIMIC-CXR, the credentialed data set of paper S.
