# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals: []
#     needs: []
#     minutes: 30
# ---

# %% [markdown]
# # Data curation: who is in the picture
#
# *Answers section 2.3 of {cite:t}`sourget2025`, paper S, and section 2.1 of {cite:t}`sun2025`, paper X.*
#
# Before asking whether a model treats patients alike, a clinician asks who these patients are. Who
# was imaged, standing or in bed, how often, and with which findings? A data set answers before any
# model does, and its answers come back later dressed as properties of models.
#
# This chapter reads the real metadata of NIH ChestX-ray14, rebuilds the balanced subset of paper X
# from its numbers, describes the cohort of this run, and presents the phantom cohort on which the
# other chapters run unless a real one is named.

# %% tags=["parameters"]
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "train"}
seed: int = 1907  # seed of the phantom cohort and of the first 6x200 draw
n_draws: int = 50  # how often the 6x200 subset is drawn anew
n_images: int = 800  # images in the phantom cohort of this chapter
size: int = 96  # side of a phantom image, in pixels

# %% tags=["remove-cell"]
from cxrlib.parameters import check

check(globals())

# %% tags=["hide-input"]
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, guard, published
from cxrlib import models as registry
from cxrlib.cohorts import (
    associations,
    leakage,
    metadata,
    mimic,
    nih6x200,
    phantom,
    summary,
)
from cxrlib.notebook import (
    figure,
    fmt,
    fmt_interval,
    glue,
    keep,
    percent,
    setup,
    show,
    withheld,
)
from cxrlib.plots import COLOURS, confounder_panel, flow_diagram
from cxrlib.plots import name as written

setup()
# The cohort of this run comes first, so that a credentialed one is guarded from the first cell on.
studied = cohorts.study(data, n_images, seed, options, size=size)

# %% [markdown]
# ## The real patients of NIH ChestX-ray14
#
# The images of ChestX-ray14 fill a disk. Their table takes one megabyte, travels inside an open-source
# package, and needs no permission. One row is one image.

# %%
release = cohorts.load("nih-metadata")
nih = release.table
withheld("rows of single images") if guard.active() else nih.iloc[:4, :8]

# %% tags=["remove-cell"]
glue("n-images", len(nih))
glue("n-patients", nih["patient_id"].nunique())
glue("n-impossible", len(metadata.impossible_ages(nih)))
glue("age-min", str(nih["age"].min()))
glue("age-max", int(nih["age"].max()))
no_finding = (nih[list(metadata.FINDINGS)].sum(axis=1) == 0).mean()
glue("no-finding", percent(no_finding))

# %% [markdown]
# There are {glue:text}`n-images:,d` images of {glue:text}`n-patients:,d` patients. {glue:text}`no-finding`
# of the images carry none of the fourteen findings. The names are those of the release, with one
# exception: its "Effusion" is called *Pleural Effusion* here, the name that paper S uses.
#
# Labels were mined from radiology reports by software. A 1 means "the report was read as saying so",
# not "the patient has it".
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
# table held ages above 400; this one holds {glue:text}`n-impossible` above 120. The check costs one
# line, so it stays.

# %% [markdown]
# ### How many images has a patient?

# %% tags=["hide-input"]
per_patient = nih.groupby("patient_id").size().sort_values(ascending=False)
share_one = (per_patient == 1).mean()
share_top = per_patient.head(len(per_patient) // 10).sum() / len(nih)
glue("share-one", percent(share_one))
glue("share-top", percent(share_top))
glue("most-images", int(per_patient.max()))

# %% tags=["hide-input"]
fig, axis = plt.subplots(figsize=(7, 3))
edges = np.unique(np.geomspace(1, per_patient.max() + 1, 25).astype(int)) - 0.5
axis.hist(per_patient, bins=edges, color="#0072B2")
axis.set(xscale="log", yscale="log", xlabel="images of one patient", ylabel="patients")
axis.set_xticks([1, 2, 5, 10, 20, 50, 100], [1, 2, 5, 10, 20, 50, 100])
figure(
    "fig-curation-images-per-patient",
    caption="Images per patient in NIH ChestX-ray14. Both axes are logarithmic.",
    alt="Histogram of images per patient on two logarithmic axes: most patients have one image, a few have more than a hundred.",
)

# %% [markdown]
# {glue:text}`share-one` of the patients were imaged once. One patient was imaged
# {glue:text}`most-images` times, and the most imaged tenth of the patients own
# {glue:text}`share-top` of all images.
#
# Two images of one patient share a rib cage, a heart, often a disease. They are not two independent
# observations. That has two consequences for the whole book: a split that separates training from
# test must separate *patients*, and an uncertainty must come from resampling *patients*.

# %% [markdown]
# ### How old are they, and how were they imaged?
#
# A patient who can stand is imaged from the back (PA). A patient who cannot is imaged in bed, from
# the front (AP): the heart looks larger, the lungs shorter, cables cross the chest. The view position
# is not a property of the patient, yet it says a lot about the patient.

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(7, 3), sharey=True)
for axis, (attribute, groups) in zip(
    axes, {"sex": "FM", "view": ("PA", "AP")}.items(), strict=True
):
    for group in groups:
        ages = nih.loc[nih[attribute] == group, "age"]
        axis.hist(
            ages, np.arange(0, 101, 5), histtype="step", lw=2, color=COLOURS[group], label=group
        )
    axis.set(xlabel="age (years)", title=attribute)
    axis.legend()
axes[0].set_ylabel("images")
figure(
    "fig-curation-age",
    caption="Age at imaging by sex (left) and by view position (right), one count an image.",
    alt="Two histograms of age. Left: women and men, in bands of five years. Right: PA and AP films.",
)

# %%
nih["AP"] = (nih["view"] == "AP").astype(int)
ap = associations.prevalence(nih, ["AP"], "age_group")
names = {"group": "age group", "value": "share AP", "n": "images", "n_patients": "patients"}
ap_table = ap.rename(columns=names)
show(
    ap_table[["age group", "share AP", "ci_low", "ci_high", "images", "patients"]],
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
# The prevalence of each finding in each group, with an interval over patients: Wilson's interval,
# widened by the *design effect*, the factor by which repeated images inflate the variance.

# %%
AGES = metadata.AGE_GROUPS
ATTRIBUTES = {"sex": ("F", "M"), "view": ("PA", "AP"), "age_group": AGES}
found = pd.concat(
    [associations.prevalence(nih, metadata.FINDINGS, a) for a in ATTRIBUTES],
    ignore_index=True,
)
found.head(4)[["label", "attribute", "group", "value", "n", "design_effect"]]

# %% tags=["hide-input"]
order = nih[list(metadata.FINDINGS)].mean().sort_values().index
fig, axes = plt.subplots(1, 3, figsize=(7, 5.4), sharey=True, sharex=True)
for axis, (attribute, groups) in zip(axes, ATTRIBUTES.items(), strict=True):
    for i, group in enumerate(groups):
        rows = found[(found["attribute"] == attribute) & (found["group"] == group)]
        rows = rows.set_index("label").loc[order]
        place = np.arange(len(order)) + 0.14 * (i - (len(groups) - 1) / 2)
        colour = COLOURS[group]
        axis.hlines(place, 100 * rows["ci_low"], 100 * rows["ci_high"], color=colour, lw=1)
        shown = rows["n_positive"] > 0
        axis.plot(100 * rows["value"][shown], place[shown], "o", ms=4, color=colour, label=group)
    axis.set(xscale="log", xlim=(0.03, 40), title=attribute.replace("_", " "))
    axis.set_xticks([0.1, 1, 10], ["0.1 %", "1 %", "10 %"])
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="upper left", handletextpad=0.1, borderaxespad=0)
axes[0].set_yticks(range(len(order)), order)
axes[1].set_xlabel("prevalence")
figure(
    "fig-curation-prevalence",
    caption="Prevalence of the fourteen findings by sex, view position and age group, with 95 % intervals over patients. The axis is logarithmic: equal distances are equal ratios.",
    alt="Three panels of dots with whiskers, one row a finding: prevalence by sex, by view position and by age group, on a logarithmic axis.",
)

# %% tags=["hide-input"]
wide = found.pivot(index="label", columns="group", values="value")
sizes = found.pivot(index="label", columns="group", values="n_positive")
spread = {
    "sex": np.maximum(wide["M"] / wide["F"], wide["F"] / wide["M"]),
    "view": np.maximum(wide["AP"] / wide["PA"], wide["PA"] / wide["AP"]),
}
extremes = pd.DataFrame(
    [
        {
            "attribute": attribute,
            "finding": ratio.idxmax(),
            "largest ratio": ratio.max(),
            "median ratio": ratio.median(),
        }
        for attribute, ratio in spread.items()
    ]
)
show(extremes, caption="How far apart the two groups of an attribute are", digits=1)

# %% tags=["remove-cell"]
top = extremes.set_index("attribute")
glue("view-finding", top.loc["view", "finding"])
glue("view-ratio", fmt(top.loc["view", "largest ratio"], 0))
in_ap = wide.loc[top.loc["view", "finding"], "AP"] > wide.loc[top.loc["view", "finding"], "PA"]
glue("view-side", "AP" if in_ap else "PA")
glue("sex-finding", top.loc["sex", "finding"])
glue("sex-ratio", fmt(top.loc["sex", "largest ratio"], 1))
more = top.loc["view", "median ratio"] > top.loc["sex", "median ratio"]
glue("view-over-sex", "more" if more else "less")
widest = found.loc[found["design_effect"].idxmax()]
glue("deff-label", widest["label"])
glue("deff-group", widest["group"])
glue("deff", fmt(widest["design_effect"], 1))
glue("deff-root", fmt(np.sqrt(widest["design_effect"]), 1))

# %% [markdown]
# Findings follow the view position {glue:text}`view-over-sex` than the sex. The extreme is
# {glue:text}`view-finding`: {glue:text}`view-ratio` times as common on {glue:text}`view-side` films
# as on the other view. Between the sexes the largest ratio is {glue:text}`sex-ratio`, for
# {glue:text}`sex-finding`.
#
# A model that recognises a bed can therefore look as if it recognised {glue:text}`view-finding`. Keep
# that in mind when the next section calls a subset "balanced".
#
# The design effect is largest for {glue:text}`deff-label` in group {glue:text}`deff-group`:
# {glue:text}`deff`, since a few patients with many images carry most of the count. An interval that took
# images for independent would be {glue:text}`deff-root` times too narrow there.

# %% [markdown]
# ## A balanced subset: NIH 6x200
#
# Paper X wants equal numbers of young and old, women and men. For each disease it draws 50 images from
# each of four cells: young or old (60 and over) by female or male. Four cells of 50 are 200 images; six
# diseases make 1,200. One exception is stated: old patients with edema are 47 women and 53 men.
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
show(edema.astype(int), caption="Old patients with edema, counted by two rules")

# %% tags=["remove-cell"]
rule_found = (edema["exactly one finding"] == edema["paper X"]).all()
rule_other = (edema["edema, whatever else"] == edema["paper X"]).all()
glue("rule-verdict", "gives exactly" if rule_found else "does not give")
glue("rule-any-verdict", "also fits" if rule_other else "does not fit")

# %% [markdown]
# Counting images with *exactly one finding* {glue:text}`rule-verdict` the numbers of the paper. Counting
# every image with edema {glue:text}`rule-any-verdict`. So the rule is known, and with it the paper's
# statement that "only six diseases satisfy" it can be checked: each of the four cells must offer 50
# images.

# %% tags=["hide-input"]
printed = single.rename(columns={"in_paper": "in paper X"}).rename_axis(None)
for column in ("satisfies", "in paper X"):
    printed[column] = printed[column].map({True: "yes", False: "no"})
show(printed, caption="Images with exactly one finding, by cell")

# %% tags=["hide-input"]
fig, axis = plt.subplots(figsize=(7, 3.8))
shown = single[::-1]
axis.barh(shown.index, shown["smallest"], color=np.where(shown["in_paper"], "#0072B2", "#B8CFE0"))
axis.axvline(nih6x200.PER_CELL, color="#D55E00", lw=1.5)
axis.set(xscale="log", xlabel="images in the smallest cell")
axis.set_xticks([10, 50, 100, 500, 1000], [10, 50, 100, 500, 1000])
figure(
    "fig-curation-cells",
    caption="The smallest of the four cells of each disease. Dark bars: the six diseases of paper X. The line marks the 50 images that the recipe asks for.",
    alt="Bars of the smallest of the four cells for fourteen diseases with a line at the number of images that the recipe asks for; the six diseases of the paper are dark.",
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
# By this count {glue:text}`n-satisfying` of the fourteen diseases satisfy the criterion; the paper says
# six. Of its six, the one that falls short is {glue:text}`short`, with {glue:text}`short-cell` in its smallest cell.
# {glue:text}`n-unused` more would have been possible: {glue:text}`unused`.
#
# So "only six" {glue:text}`only-six` from the rule. The six may have been chosen for other good reasons,
# such as being the labels of other data sets; a reader should know that more could be studied.

# %% [markdown]
# ### Drawing the subset, and splitting it
#
# The list of images is not published, so the paper's draw is one of very many. The recipe is drawn
# here {glue:text}`n-draws` times, and each draw is split 7:1:2 into training, validation and test
# *images*, as the recipe reads.

# %%
cohort = nih6x200.draw(seed, split="image")
draws = nih6x200.draws(range(seed, seed + n_draws))
draws[["seed", "patients", "leakage"]].head(3)

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
glue("leak-patient", percent(nih6x200.leakage(by_patient)))
glue("test-size", test_size)
glue("leak-images", fmt(draws["leakage"].mean() * test_size, 0))
glue("children", int((cohort["age"] < 18).sum()))
glue("youngest", str(cohort["age"].min()))

# %% tags=["hide-input"]
fig, axis = plt.subplots(figsize=(7, 2.8))
axis.hist(100 * draws["leakage"], bins=np.arange(0, 41, 2), color="#0072B2")
axis.axvline(0, color="#D55E00", lw=3)
axis.annotate("split by patient", (0.5, axis.get_ylim()[1] * 0.85), color="#B34700")
axis.set(xlabel="leaking test images (%)", ylabel="draws", xlim=(-0.5, 40))
figure(
    "fig-curation-leakage",
    caption="Share of test images whose patient also has an image in training, over repeated draws with an image-level split. A patient-level split gives 0.",
    alt="Histogram of the share of test images whose patient is also in the training part, over repeated draws, and a line at zero for a split by patient.",
)

# %% [markdown]
# A draw of {glue:text}`draw-images:,d` images has about {glue:text}`draw-patients` patients. On average
# {glue:text}`leak-mean` of the {glue:text}`test-size` test images ({glue:text}`leak-range` over the
# draws), some {glue:text}`leak-images` images, show a patient on whom the model was trained. Splitting
# patients instead leaves {glue:text}`leak-patient`. The paper does not say which of the two it did.
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
fig, axis = plt.subplots(figsize=(7, 2.8))
axis.hlines(ap_share.columns, 100 * ap_share.min(), 100 * ap_share.max(), color="#0072B2", lw=2)
axis.plot(100 * ap_share.mean(), ap_share.columns, "o", color="#0072B2")
axis.set(xlim=(0, 100), xlabel="images taken in AP view (%)")
axis.grid(axis="x", alpha=0.3)
figure(
    "fig-curation-view",
    caption="Share of AP films of each disease in the 6x200 subset: mean and range over repeated draws.",
    alt="Dots with ranges: the share of AP films for each of the six diseases over repeated draws.",
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

# %% [markdown]
# ### What the papers say, what this run computes


# %% tags=["hide-input"]
def verdict(same):
    return "reproduced" if same else "differs"


sizes = (len(nih), nih["patient_id"].nunique())
own_counts = summary.counts(studied).set_index(["cohort", "metric"])["value"]
of_list = own_counts.get(("nih-cxr14-test", "n_images"))
claims = pd.DataFrame(
    [
        (
            "X 2.1",
            "images, patients of NIH",
            "108,948 / 32,717",
            "{:,} / {:,}".format(*sizes),
            verdict(sizes == (108_948, 32_717)),
        ),
        (
            "S 2.3",
            "images, patients of NIH",
            "112,120 / 30,805",
            "{:,} / {:,}".format(*sizes),
            verdict(sizes == (112_120, 30_805)),
        ),
        (
            "X 2.1",
            "disease categories",
            "14",
            str(len(metadata.FINDINGS)),
            verdict(len(metadata.FINDINGS) == 14),
        ),
        (
            "X 2.1",
            "old edema, F / M",
            "47 / 53",
            " / ".join(map(str, single.loc["Edema", EDEMA_OLD])),
            verdict(rule_found),
        ),
        (
            "X 2.1",
            "diseases with 50 in each cell",
            "6",
            str(len(satisfying)),
            verdict(len(satisfying) == 6),
        ),
        (
            "X 3.1",
            "leaking test images",
            "not stated",
            f"{percent(draws['leakage'].mean())} by image, {percent(nih6x200.leakage(by_patient))} by patient",
            "no claim",
        ),
        (
            "S 2.3",
            "official NIH test images",
            "25,596",
            "list not at hand" if of_list is None else f"{of_list:,.0f}",
            "not run" if of_list is None else verdict(of_list == 25_596),
        ),
    ],
    columns=["paper", "quantity", "paper says", "this run", "verdict"],
)
show(claims, caption="Data curation: paper and run side by side")

# %% [markdown]
# The first row has a simple explanation. ChestX-ray8, the eight-label data set of the article that
# paper X cites {cite:p}`wang2017`, has 108,948 images of 32,717 patients; the release with fourteen labels has the counts of
# paper S. Paper X describes the fourteen labels and quotes the counts of the eight-label predecessor.

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
chosen = {k: v for k, v in studied.recipe.items() if k not in ("name", "dials")}

# %% tags=["hide-input"]
about = {
    "called": studied.name,
    "access": studied.access,
    "images": f"{len(studied.table):,}",
    "patients": f"{studied.table['patient_id'].nunique():,}",
    "findings": len(studied.findings),
    "attributes": ", ".join(written(a) for a in studied.attributes) or "none with two groups",
    "options": ", ".join(f"{option} {value}" for option, value in chosen.items()) or "none",
    "fingerprint": studied.fingerprint,
}
about = pd.DataFrame({"": list(about), "cohort": list(about.values())})
show(about, caption=f"The cohort of this run: {data}", counts=())

# %% [markdown]
# The fingerprint is computed from the rows, the films and the options, whatever their order and the
# folder they lie in. Two runs with the same one studied the same cohort; one label or film that
# differs gives another.
#
# ### How it came about

# %% tags=["hide-input"]
fig = flow_diagram(summary.flow(studied))
figure(
    "fig-curation-flow",
    caption="From the release to the cohort of this run.",
    alt="Boxes from top to bottom, one a step from the release to the cohort, each with its images and patients; beside the arrows boxes with what each step left out and why. The table below holds the same numbers.",
)

# %% tags=["hide-input"]
show(
    summary.flow(studied).rename(columns=FLOW),
    caption=f"From the release to the cohort: {studied.name}",
    counts=counted,
)

# %% [markdown]
# A patient is left out with the last of the patient's images. Where data are credentialed, a step that
# left out fewer than ten images or patients is told together with a neighbour.
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

# %% [markdown]
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
if panels:
    fig = confounder_panel(confounders[panels[0]])
    figure(
        "fig-curation-confounders",
        caption="View, age and findings by sex, with 95 % intervals over patients.",
        alt="Three panels of dots with whiskers: share of AP films, mean age, and prevalence of each finding, one colour a group of the first attribute, which is sex where both sexes are there.",
    )

# %% tags=["hide-input"]
if len(panels) > 1:
    fig = confounder_panel(confounders[panels[1]])
    figure(
        "fig-curation-confounders-2",
        caption="The same by race where it is recorded, otherwise by age.",
        alt="The same three panels for a second attribute: race where it is recorded, otherwise age.",
    )

# %% tags=["remove-cell"]
rows = pd.concat(confounders.values()) if panels else summary.confounders(studied, "sex")
rows = rows[rows["metric"] == "prevalence"]
wide_group = rows.pivot_table(index=["attribute", "label"], columns="group", values="value")
spans = (wide_group.max(axis=1) - wide_group.min(axis=1)).dropna()
if len(spans):
    where, label = spans.idxmax()
    at = wide_group.loc[(where, label)].dropna()
    glue("span-label", label)
    glue("span-high", f"{percent(at.max(), 1)} ({written(at.idxmax())})")
    glue("span-low", f"{percent(at.min(), 1)} ({written(at.idxmin())})")
else:
    for key in ("span-label", "span-high", "span-low"):
        glue(key, "undefined")

# %% [markdown]
# Of the findings drawn here, {glue:text}`span-label` differs most between groups: it is on
# {glue:text}`span-high` of the images of one, and on {glue:text}`span-low` of another.
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
examined = [*registry.names(), *registry.published()]
leaks = leakage.report(studied, examined)
show(leaks, caption=f"Leakage report: {studied.name}", missing="–", counts=())

# %% tags=["remove-cell"]
glue("hash-bits", str(leakage.HASH_BITS))
glue("hash-distance", str(leakage.MAX_DISTANCE))
pretraining = leaks[leaks["check"].str.startswith("pretraining")]
shared = pretraining["note"].str.startswith("trained on this source").sum()
glue("n-pretrained", str(shared))
glue("n-examined", str(len(examined)))

# %% [markdown]
# Of {glue:text}`n-examined` models, {glue:text}`n-pretrained` were trained on a source of this cohort. A score
# of theirs on it is that of a student on questions of the textbook, unless the patients are others.
#
# ### Its counts, and those in print

# %%
keep(summary.counts(studied))
beside = summary.counts_beside_papers(studied)
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
policies = pd.DataFrame(mimic.LABELS.values(), index=list(mimic.LABELS)).rename_axis("labels")
policies = policies.rename(columns={"uncertain": "uncertain (−1)", "missing": "blank"})
show(policies, caption="Label policies, by name", counts=())

# %% [markdown]
# "Hispanic or Latino" is no race in most censuses and one of the entries here, so these patients have no
# race on record and are "other". Another mapping would be another cohort.

# %% [markdown]
# ## The phantom cohort
#
# Metadata cannot be shown to a vision model, and real radiographs need a licence and a download. So
# unless told otherwise the chapters that follow run on a *phantom*: radiograph-like images drawn by a program, for real rows
# of the table above. Age, sex, view position, number of images and part of the findings are those of
# an NIH patient; the picture is not.
#
# What makes a phantom worth the trouble is not that it looks right. It is that **its biases are
# planted**: they are known, so one can ask whether an audit finds them.

# %%
phantoms = studied
if phantoms.name != "phantom":
    phantoms = cohorts.load("phantom", n_images=n_images, seed=seed, size=size)
show(
    summary.flow(phantoms).rename(columns=FLOW),
    caption="From NIH rows to the phantom cohort",
    counts=counted,
)

# %% tags=["hide-input"]
if guard.active():
    withheld("films, not even those of phantoms")
else:
    sheet = phantom.contact_sheet(phantoms, columns=7)
    figure(
        "fig-curation-contact-sheet",
        caption="Phantom radiographs: none, then one finding a row with severity rising to the right, then devices. Captions: sex, age, view, site.",
        alt="Grid of phantom chest radiographs: a row without findings, a row for each of seven findings, a row of devices.",
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
# A *dial* is a number that plants one bias. The defaults, as this run used them:


# %% tags=["hide-input"]
MEANING = {
    "drain_if_pneumothorax": "P(drain) with a pneumothorax",
    "drain_if_none": "P(drain) without one",
    "contrast": "factor on how visible findings are",
    "prevalence": "to which each finding is topped up",
    "prevalence_factor": "factor on the top-up",
    "share": "share of the patients",
    "underreport": "P(a finding is left out of label and report)",
    "images_per_patient": "at most so many",
    "site_by_race": "0: site by chance; 1: each race at its own",
    "site_signature": "0: scanners alike; 1: full signatures",
}
settings = phantoms.recipe["dials"]
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
# How strong is the bond between drain and pneumothorax in a real hospital? The labels of PadChest, a
# Spanish cohort, include chest drains.

# %%
real = associations.padchest_drains()
planted = associations.association(phantoms.table, "drain", "Pneumothorax")

# %% tags=["hide-input"]
drains = pd.concat([real.assign(cohort="PadChest"), planted.assign(cohort="phantom")])
numbers = drains[["value", "ci_low", "ci_high"]].to_numpy()
drains["P(drain)"] = [fmt_interval(*row, digits=3) for row in numbers]
names = {"group": "pneumothorax", "n_positive": "drains", "n": "images", "n_patients": "patients"}
columns = ["cohort", "pneumothorax", "P(drain)", "drains", "images", "patients"]
show(
    drains.rename(columns=names)[columns].reset_index(drop=True),
    caption="Chest drains with and without a pneumothorax, with 95 % intervals over patients",
)

# %% tags=["remove-cell"]
real, planted = real.set_index("group"), planted.set_index("group")
glue("padchest-with", percent(real.loc["with", "value"]))
glue("padchest-without", percent(real.loc["without", "value"], 1))
glue("padchest-pneumothorax", int(real.loc["with", "n"]))
glue("padchest-ratio", fmt(real.loc["with", "value"] / real.loc["without", "value"], 0))
glue("phantom-with", percent(planted.loc["with", "value"]))
glue("phantom-without", percent(planted.loc["without", "value"]))
both = (planted["value"] > real["value"])[["with", "without"]].all()
glue("phantom-more", "has more drains on both sides" if both else "has other frequencies")
glue("phantom-ratio", fmt(planted.loc["with", "value"] / planted.loc["without", "value"], 0))

# %% [markdown]
# Of {glue:text}`padchest-pneumothorax` PadChest images with a pneumothorax (those with fluid as well
# included), {glue:text}`padchest-with` show a drain; of the others {glue:text}`padchest-without`. That
# is a ratio of {glue:text}`padchest-ratio`. The phantom {glue:text}`phantom-more`:
# {glue:text}`phantom-with` and {glue:text}`phantom-without`, a ratio of {glue:text}`phantom-ratio`. A
# cohort of a few thousand images must hold enough of each kind to compare them.

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
# Two departures from NIH are on purpose. The youngest and oldest patients are drawn more often, since
# intervals by age would say nothing otherwise. And findings are topped up to a common prevalence,
# since the rarest would hardly occur in a cohort of this size.

# %%
six = cohorts.load("phantom-6x200", seed=seed)
six.table.groupby(["disease", "age60", "sex"]).size().unstack(["age60", "sex"])

# %% [markdown]
# The chapter on fine-tuning uses a second phantom cohort: the rows of a 6x200 draw, each with its one
# real finding, split by patient.

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
factors = pd.Series(settings["contrast"]["age_group"])
faint = table["age_group"].isin(factors.index[factors != 1])
switches = {  # what is changed, and which images it is meant to change
    "no drains": (phantom.twin(phantoms, drain=0), table["drain"] == 1),
    "no fading with age": (phantom.twin(phantoms, contrast={}), ill & faint),
    "all scanners alike": (
        phantom.twin(phantoms, site_signature=0.0),
        table["site"] != "A",
    ),
}

# %% tags=["hide-input"]
everything = np.arange(len(table))
images = phantoms.images(everything).astype(int)
twins, shifts, truth = {}, {}, []
for change, (other, meant) in switches.items():
    twins[change] = other.images(everything).astype(int)
    shifts[change] = np.abs(twins[change] - images).mean(axis=(1, 2))
    truth.append(
        {
            "change": change,
            "meant to change": int(meant.sum()),
            "of these changed": int((shifts[change][meant] > 0).sum()),
            "others changed": int((shifts[change][~meant] > 0).sum()),
            "mean shift": shifts[change][meant].mean(),
        }
    )
truth = pd.DataFrame(truth)
show(truth, caption="Images changed by each twin, and by how many of 256 grey levels a pixel")

# %% tags=["remove-cell"]
stray = int(truth["others changed"].sum())
glue("stray", "none" if stray == 0 else str(stray))
reached = truth["of these changed"].sum() / truth["meant to change"].sum()
glue("reached", "all" if reached == 1 else percent(reached, 1))

# %% tags=["hide-input"]
if guard.active():
    withheld("films, not even those of phantoms")
else:
    fig, axes = plt.subplots(3, 3, figsize=(7, 7.2))
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
    figure(
        "fig-curation-twins",
        caption="Counterfactual twins. Left: the image. Middle: its twin with one change. Right: the difference, black where the twin is darker, white where it is brighter.",
        alt="Three rows of three images: a phantom radiograph, its twin with one thing changed, and the difference. The rows remove a drain, restore the contrast of a finding, and remove the signature of a scanner.",
    )

# %% [markdown]
# Each change reaches {glue:text}`reached` of the images it should. Of all the others,
# {glue:text}`stray` changed by even one grey level in one pixel. The paired difference between twins is the recorded truth of a dial, and
# later chapters hold their estimates against it.

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
    by_race.loc[list(phantom.RACES)].rename_axis(index=None, columns=None),
    caption="Share of each race's images taken at each site",
)

# %% [markdown]
# That there is no other path can be tested. Switch the signatures off, then let sites be assigned
# without regard to race, so that many images change their site. If race, or the site, had any other
# way into the image, some image would change.

# %%
plain, _ = switches["all scanners alike"]
moved = phantom.twin(phantoms, site_signature=0.0, site_by_race=0.0)
changed_site = plain.table["site"] != moved.table["site"]
before, after = twins["all scanners alike"], moved.images(everything)
changed_image = (before != after).any(axis=(1, 2))

# %% tags=["remove-cell"]
glue("changed-site", int(changed_site.sum()))
glue("changed-image", int(changed_image.sum()) or "none")

# %% [markdown]
# {glue:text}`changed-site` images changed their site, {glue:text}`changed-image` of the cohort changed in any
# pixel. In the phantom, a probe that decodes race decodes a scanner. In real radiographs, race can be
# decoded too {cite:p}`gichoya2022`; from what is not settled, and the phantom has nothing to say on it.

# %% [markdown]
# ## What was learned
#
# - NIH ChestX-ray14 has {glue:text}`n-images:,d` images of {glue:text}`n-patients:,d` patients, unequally
#   shared: patients are the unit of splitting and of resampling.
# - View position separates findings {glue:text}`view-over-sex` than sex does.
# - NIH 6x200 counts images with exactly one finding. {glue:text}`n-satisfying` diseases offer enough of
#   them; of the paper's six, all but {glue:text}`short`.
# - An image-level split leaves {glue:text}`leak-mean` of the test images with their patient in training.
# - Balance in age and sex is not balance in view position: the view alone names the disease in
#   {glue:text}`view-only` of cases.
# - The phantom's biases are planted and measured by twins; race acts through the site alone.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-curation-threshold
#
# How many diseases would be left if the recipe asked for 100 images a cell, how many for 30? Which
# threshold is the largest at which all six diseases of paper X satisfy it?
# ```

# %% [markdown]
# ````{solution-start} ex-curation-threshold
# :class: dropdown
# ````

# %%
for per_cell in (30, 100):
    print(per_cell, "a cell:", int((single["smallest"] >= per_cell).sum()), "diseases")
print("largest threshold for all six:", single.loc[list(nih6x200.DISEASES), "smallest"].min())

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-curation-view
#
# Repair the imbalance in view position: keep PA films only. Which of the six diseases can still offer
# 50 images in each cell? Who is no longer represented?
# ```

# %% [markdown]
# ````{solution-start} ex-curation-view
# :class: dropdown
# ````

# %%
pa_only = nih6x200.cell_counts(nih[nih["view"] == "PA"])
pa_only.loc[list(nih6x200.DISEASES), ["young F", "young M", "old F", "old M", "satisfies"]]

# %% tags=["remove-cell"]
pa_short = [d for d in nih6x200.DISEASES if not pa_only.loc[d, "satisfies"]]
glue("pa-dropped", ", ".join(pa_short) if pa_short else "None")
glue("pa-left", str(len(nih6x200.DISEASES) - len(pa_short)))

# %% [markdown]
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

# %% [markdown]
# ````{solution-start} ex-curation-drain
# :class: dropdown
# ````

# %%
by_hand = associations.padchest_drains(frontal_only=True, read_by_hand_only=True)
by_hand[["group", "value", "ci_low", "ci_high", "n_positive", "n", "n_patients"]]

# %% tags=["remove-cell"]
difference = by_hand.set_index("group").loc["with - without"]
glue("by-hand-difference", fmt_interval(*difference[["value", "ci_low", "ci_high"]]))
glue("by-hand-survives", "survives" if difference["ci_low"] > 0 else "is no longer certain")
glue("by-hand-n", int(by_hand.set_index("group").loc["with", "n"]))

# %% [markdown]
# The association {glue:text}`by-hand-survives`: the difference of the two probabilities is
# {glue:text}`by-hand-difference`. The interval is wide, since {glue:text}`by-hand-n` images with a
# pneumothorax are left.
#
# ````{solution-end}
# ````
