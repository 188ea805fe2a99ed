# ---
# jupyter:
#   chapter:
#     answers:
#       S 3.1: ''
#       S Fig. 1: fig-coverage-patients
#       S Table 1: fig-coverage-patients
#     goals:
#     - say what a 95 % interval promises, and test the promise where the truth is known
#     - explain why the number of patients counts, and not that of images
#     - decide which interval to report for a small group, and when to report none
#     needs:
#     - 02_zero_shot
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # Do the intervals cover?
#
# *Examines the intervals of {cite:t}`sourget2025`, paper S: those of Table 1 and Fig. 1, which come from
# drawing images, and what section 3.1 says about Asian patients and patients of 18 to 25 years.*
#
# Suppose a report says that a model finds pneumothorax in young patients with an AUC of 0.91, interval
# 0.80 to 0.99. The clinic reads the lower limit as the worst case, finds it good enough, and lets the model
# sort the films of the night. That reading rests on a promise: 95 of 100 studies with such intervals hold
# the truth. If they do not, some young patient with a collapsed lung waits until the morning, and the report
# that let it happen looked careful.
#
# There are two reasons for doubt. Paper S drew *images* to make its intervals, although a patient may
# have several, and images of one patient are no independent witnesses. And it warns, rightly, that thin
# groups such as Asian patients or the youngest have few positive images and wide intervals. A wide
# interval looks honest. It may still be too narrow.
#
# With real patients nobody can check the promise, for nobody knows the truth. This chapter simulates
# studies of which the truth is known and counts how many intervals hold it.

# %% tags=["parameters"]
seed: int = 1907  # [0, 1000000] seed of the simulated studies and of the resamples
n_simulations: int = 200  # [2, 10000] studies a design
n_resamples: int = 500  # [2, 100000] bootstrap resamples a study
grid: str = "small"  # {small, full} designs: for a page, or those of benchmarks/coverage.py

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts
from cxrlib.cohorts import metadata
from cxrlib.protocol import protocol_of
from cxrlib.show.notebook import figure, glue, quiz, setup, show
from cxrlib.show.words import fmt, fmt_interval, percent, readable
from cxrlib.stats import ranking, simulate

setup()
designs = simulate.grid(grid)
LOW, HIGH = simulate.BAND
KINDS = {
    ("image", "percentile"): "images, percentile",
    ("patient", "percentile"): "patients, percentile",
    ("patient", "bca"): "patients, BCa",
    ("patient", "expanded"): "patients, expanded",
}
IMAGES, PATIENTS = list(KINDS)[:2]  # the two that differ in nothing but the unit
COLOUR = dict(zip(KINDS, ("#D55E00", "#56B4E9", "#999933", "#0072B2"), strict=True))
METRICS = {"auc": "AUC", "adjusted_auprc": "adjusted AUPRC", "auc_gap": "gap in AUC"}

# %% [markdown]
# ## A study whose truth is known
#
# A simulated group has patients, patients have images, images have a label and a score. Two things tie
# the images of a patient together: a patient who is ill once is likely to be ill again, and a patient whose
# film looks suspicious to the model once will look so again. Both strengths are a *correlation* that we
# choose: 0 where one image says nothing of the next, 1 where it says everything. Scores of negative images
# follow a normal distribution, those of positive images the same distribution moved up by $\mu$. Then the
# truth has a formula: $\mathrm{AUC} = \Phi(\mu / \sqrt 2)$, and the average precision, the area under the
# precision-recall curve, is
#
# $$ \mathrm{AP} = \int \frac{p\,\Phi(\mu - x)}{p\,\Phi(\mu - x) + (1 - p)\,\Phi(-x)}\; \varphi(x - \mu)\, dx $$ (eq-coverage-ap)
#
# for a prevalence $p$, with $\Phi$ the normal distribution function and $\varphi$ its density. The
# correlation does not enter. It changes how much a study can know, not what is true. One very large sample,
# with strong correlation, stands beside the formula:

# %%
AUC, PREVALENCE, ICC = 0.8, 0.1, 0.6
truth = simulate.population(AUC, PREVALENCE)
patient = simulate.patients(n_images=300_000, images_per_patient=10)
large = simulate.sample(patient, AUC, PREVALENCE, ICC, ICC, np.random.default_rng(seed))
sampled = ranking.ranking(*large[:2], None)
agree = pd.DataFrame(
    [
        {"metric": readable(m), "by the formula": truth[m], "in a large sample": sampled[m]}
        for m in ("auc", "average_precision", "adjusted_auprc")
    ]
)
show(
    agree,
    caption=f"The truth of a simulated population, and one sample of {len(patient):,} images",
    digits=3,
)

# %% tags=["remove-cell"]
apart = (agree["by the formula"] - agree["in a large sample"]).abs().max()
glue("apart", fmt(apart, 3))

# %% [markdown]
# They differ by {glue:text}`apart` at most. From here on the formula is *the truth*.
#
# ## How alike are the images of one patient?
#
# The answer decides everything that follows, so it should come from real patients. The metadata of NIH
# ChestX-ray14 {cite:p}`wang2017` tell it for the labels. Think of a continuous severity behind each label,
# which turns into "positive" above a threshold; the correlation of this severity between two images of a
# patient can be worked out from how often both are positive.

# %%
nih = cohorts.load("nih-metadata").table
images = nih.groupby("patient_id").size()
alike = pd.DataFrame(
    {
        "finding": metadata.FINDINGS,
        "positive images": [int(nih[f].sum()) for f in metadata.FINDINGS],
        "positive patients": [
            int(nih.groupby("patient_id")[f].max().sum()) for f in metadata.FINDINGS
        ],
        "correlation": [simulate.label_icc(nih[f], nih["patient_id"]) for f in metadata.FINDINGS],
    }
).sort_values("correlation", ignore_index=True)
show(alike, caption="NIH metadata: correlation of severity between two images of a patient")

# %% tags=["remove-cell"]
glue("nih-mean", fmt(images.mean(), 1))
glue("nih-share", percent(images[images > 1].sum() / len(nih)))
glue("nih-most", int(images.max()))
glue("icc-low", f"{fmt(alike['correlation'].iloc[0])} ({alike['finding'].iloc[0]})")
glue("icc-high", f"{fmt(alike['correlation'].iloc[-1])} ({alike['finding'].iloc[-1]})")
glue("icc-middle", fmt(alike["correlation"].median()))
several = [d for d in designs if d.images_per_patient != 1]
glue("grid-icc", ", ".join(map(str, sorted({d.icc for d in several}))))

# %% [markdown]
# A patient has {glue:text}`nih-mean` images on average and {glue:text}`nih-most` at most;
# {glue:text}`nih-share` of all images have a sibling. The correlation runs from {glue:text}`icc-low` to
# {glue:text}`icc-high`, with the median finding at {glue:text}`icc-middle`: films of one patient are far from
# independent. In the simulations below, patients with several images have the correlation
# {glue:text}`grid-icc`, for labels and scores alike.
#
# ## What a broken promise looks like
#
# Here are {glue:text}`example-studies` studies of one and the same group: {glue:text}`example-images` images
# of {glue:text}`example-patients` patients, {glue:text}`example-prevalence` of the images positive, true AUC
# {glue:text}`example-auc`. Each study reports an interval, once from drawing images and once from drawing
# patients.

# %%
example = simulate.Design(
    n_images=300, images_per_patient=10, icc=ICC, prevalence=PREVALENCE, auc=AUC
)
studies = simulate.studies(example, 60, n_resamples, seed)
studies = studies[(studies["metric"] == "auc") & (studies["method"] == "percentile")]
misses = (studies["ci_low"] > AUC) | (studies["ci_high"] < AUC)

# %% tags=["remove-cell"]
n_studies = studies["simulation"].nunique()
by_unit = studies.assign(missed=misses, width=studies["ci_high"] - studies["ci_low"]).groupby(
    "unit"
)
missed, widths = by_unit["missed"].sum(), by_unit["width"].mean()
counts = studies[studies["unit"] == "patient"]
glue("example-studies", n_studies)
glue("example-images", example.n_images)
glue(
    "example-patients", int(simulate.patients(example.n_images, example.images_per_patient)[-1]) + 1
)
glue("example-prevalence", percent(PREVALENCE))
glue("example-auc", fmt(AUC))
glue("may-miss", fmt(0.05 * n_studies, 0))
for unit in ("image", "patient"):
    glue(f"missed-{unit}", int(missed[unit]))
    glue(f"width-{unit}", fmt(widths[unit]))
glue("example-positive", fmt(counts["n_positive"].mean(), 0))
glue("example-ill", fmt(counts["n_positive_patients"].mean(), 0))

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(6, 5.5), sharex=True, sharey=True)
for axis, unit in zip(axes, ("image", "patient"), strict=True):
    part = studies[studies["unit"] == unit]
    colour = np.where(misses[part.index], "#D55E00", "#0072B2")
    axis.axvline(AUC, color="#888888", linewidth=1)
    axis.hlines(part["simulation"], part["ci_low"], part["ci_high"], color=colour, linewidth=2)
    axis.set_title(f"drawing {unit}s", loc="left")
    axis.set_xlabel("AUC")
    axis.set_yticks([])
axes[0].set_ylabel("study")
figure(
    "fig-coverage-studies",
    caption="Simulated studies of one group and their 95 % intervals for AUC, one line per study. Intervals that miss the truth, the vertical line, are orange.",
    alt=f"Two panels of {n_studies} horizontal intervals around a vertical line at the true AUC, {AUC}. From drawing images, {missed['image']} do not touch the line; from drawing patients, {missed['patient']}.",
    table=studies.assign(missed=misses),
)

# %% [markdown]
# A fair 95 % interval misses about {glue:text}`may-miss` times here. In {numref}`fig-coverage-studies`,
# drawing images misses {glue:text}`missed-image` times and drawing patients {glue:text}`missed-patient`. The
# first intervals are {glue:text}`width-image` wide on average, the second {glue:text}`width-patient`. A study
# has about {glue:text}`example-positive` positive images. They come from about {glue:text}`example-ill`
# patients.

# %% tags=["remove-input"]
quiz(
    "What does the 95 % of one reported interval mean?",
    {
        "The true value lies in this interval with a probability of 95 %": (
            False,
            "The interval of a study that is done either holds the truth or not. The number belongs to the recipe: how often intervals made this way hold it.",
        ),
        "95 % of patients lie in it": (
            False,
            "It is about one number, the AUC of a population, and not about patients one by one.",
        ),
        "Made anew in many studies, 95 % of such intervals hold the truth": (
            True,
            f"If the recipe keeps its promise. Of the {n_studies} above, {n_studies - missed['image']} did from drawing images, {n_studies - missed['patient']} from drawing patients.",
        ),
    },
)

# %% [markdown]
# ## Four intervals, many designs
#
# Now the same count for many designs of a study: small and larger groups, rare and common findings, one
# image a patient or several. Each simulated cohort has two groups; the model is a little worse in the
# second, so that the gap between them has a known truth too. Four ways to make an interval compete:
#
# images, percentile
# : as S made them: draw images with replacement, compute the metric of each draw, and cut off 2.5 % of these
#   values on either side.
#
# patients, percentile
# : the same with patients, each with all of their images.
#
# patients, BCa
# : "bias-corrected and accelerated": moves the two cuts for bias and skewness {cite:p}`efron1987`.
#
# patients, expanded
# : moves the cuts outwards {cite:p}`hesterberg2015`. Resamples of few patients vary too little, and the
#   spread of few patients is itself uncertain; how uncertain is learnt by leaving out patients in turn
#   (the degrees of freedom of survey statistics, {cite:p}`valliant2010`). With many patients nothing is
#   left of the difference.
#
# *Coverage* is the share of studies whose interval holds the truth. Since studies are finite, coverage has
# an interval of its own, from counting, called *Monte Carlo* below.

# %%
table = pd.concat(
    [simulate.coverage(d, n_simulations, n_resamples, seed) for d in designs], ignore_index=True
)


# %% tags=["hide-input"]
def with_error(row):
    """Coverage in percent with its Monte Carlo interval."""
    return fmt_interval(*(100 * row[c] for c in ("coverage", "coverage_low", "coverage_high")), 0)


HEADS = {
    "auc": "true AUC",
    "images_per_patient": "images a patient",
    "icc": "correlation",
    "n_images": "images",
    "prevalence": "prevalence",
    "n_positive": "positive images",
    "n_positive_patients": "positive patients",
    "undefined": "undefined",
}


def beside(rows, lines):
    """Coverage with its Monte Carlo interval, the four kinds of interval side by side."""
    cells = [with_error(row) for row in rows.to_dict("records")]
    kinds = pd.Series(zip(rows["unit"], rows["method"], strict=True), index=rows.index)
    columns = rows.assign(cell=cells).groupby(kinds.map(KINDS), sort=False)
    return pd.concat(
        {k: part.set_index(lines)["cell"] for k, part in columns}, axis=1
    ).reset_index()


of_auc = table[table["metric"] == "auc"].assign(
    images_per_patient=lambda t: t["images_per_patient"].map(str)
)
text = of_auc.assign(
    prevalence=of_auc["prevalence"].map(lambda x: percent(x)),
    undefined=of_auc["undefined"].map(lambda x: percent(x)),
    **{c: of_auc[c].map(str) for c in ("auc", "icc")},
    **{c: of_auc[c].map(lambda x: fmt(x, 1)) for c in ("n_positive", "n_positive_patients")},
)
if text["auc"].nunique() == 1:
    HEADS.pop("auc")
rows = beside(text, list(HEADS)).rename(columns=HEADS)
first = ["images a patient", "positive patients", *KINDS.values()]  # the rest may need scrolling
show(
    rows[[*first, *(c for c in rows if c not in first)]],
    caption="Coverage of nominal 95 % intervals for AUC, in percent [Monte Carlo interval], by design",
)

# %% tags=["remove-cell"]
glue("n-simulations", n_simulations)
glue("n-designs", len(designs))
glue("n-full", len(simulate.grid("full")))
glue("mc", fmt(100 * 1.96 * np.sqrt(0.95 * 0.05 / n_simulations), 1))
glue("n-undefined", f"{int(of_auc['n_undefined'].groupby(of_auc['unit']).sum()['image']):,}")
glue("n-studies", f"{n_simulations * len(designs):,}")
worst = of_auc.loc[of_auc[of_auc["unit"] == "image"]["coverage"].idxmin()]
glue("worst", percent(worst["coverage"]))
glue("worst-images", fmt(worst["n_positive"], 0))
glue("worst-patients", fmt(worst["n_positive_patients"], 0))
single = of_auc["images_per_patient"] == "1"
alone = of_auc[single & (of_auc["unit"] == "image")]["coverage"]
glue("alone", f"{percent(alone.min())} to {percent(alone.max())}")

# planted: images of a patient are alike, or each patient has one
found = of_auc[(of_auc["unit"] == "image")].groupby(single)[simulate.COUNTS].sum()
found = simulate.shares(found.reset_index())
alike_, apart_ = (found[found["images_per_patient"] == k].iloc[0] for k in (False, True))


def pooled_text(row):
    limits = (100 * row[c] for c in ("coverage", "coverage_low", "coverage_high"))
    return f"{fmt_interval(*limits, digits=1)} %"


glue("planted-alike", pooled_text(alike_))
glue("planted-apart", pooled_text(apart_))
lower = alike_["coverage"] < apart_["coverage"]
clear = alike_["coverage_high"] < apart_["coverage_low"]
glue(
    "planted-found",
    "The count finds what was planted: coverage is lower where images of a patient are alike, beyond Monte Carlo error."
    if lower and clear
    else f"Coverage is {'lower' if lower else 'not lower'} where images of a patient are alike, and the intervals overlap: this run does not find what was planted. More studies a design would.",
)

# %% [markdown]
# Every line stands for {glue:text}`n-simulations` studies, so a true 95 % may show as anything within
# {glue:text}`mc` points of it: read the columns, not single cells. (This page has {glue:text}`n-designs`
# designs; the grid of `benchmarks/coverage.py`, `grid="full"`, has {glue:text}`n-full`.) Of
# {glue:text}`n-studies` studies, {glue:text}`n-undefined` had no AUC or no interval, for want of positive
# images; the column "undefined" counts them, and the shares are about the others.
#
# The lowest coverage from drawing images is {glue:text}`worst`, in a group with
# {glue:text}`worst-images` positive images of {glue:text}`worst-patients` patients. With one image a
# patient the two ways of drawing are the same; there, coverage runs from {glue:text}`alone` by design, and
# what is missing is the price of small groups alone.
#
# ### What was planted, and was it found?
#
# Planted was one thing: in some designs the images of a patient are alike, in others each patient has one
# image. Over all designs of the first kind, drawing images covers the true AUC in
# {glue:text}`planted-alike`, over those of the second in {glue:text}`planted-apart`.
# {glue:text}`planted-found`
#
# ## What counts is positive patients
#
# Put all designs on one axis, the number of patients with at least one positive image
# ({numref}`fig-coverage-patients`), and then together by classes of this number:

# %%
pooled = simulate.by_positive_patients(table)

# %% tags=["hide-input"]
fig, axes = plt.subplots(3, 1, figsize=(6, 8.5), sharex=True, sharey=True)
for axis, (metric, label) in zip(axes, METRICS.items(), strict=True):
    axis.axhspan(100 * LOW, 100 * HIGH, color="#DDDDDD", zorder=0)
    for k, text in KINDS.items():
        at = (table["metric"] == metric) & (table["unit"] == k[0]) & (table["method"] == k[1])
        rows = table[at]
        axis.plot(
            rows["n_positive_patients"],
            100 * rows["coverage"],
            marker="os^D"[list(KINDS).index(k)],
            linestyle="",
            markersize=5,
            alpha=0.8,
            color=COLOUR[k],
            label=text,
        )
    axis.set_title(label, loc="left")
    axis.set_ylabel("coverage, %")
    axis.set_xscale("log")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)
axes[-1].set_xlabel("positive patients in the group")
axes[-1].set_xticks([1, 3, 10, 30, 100, 300], [1, 3, 10, 30, 100, 300])
axes[-1].minorticks_off()
axes[-1].set_xlim(
    0.8 * table["n_positive_patients"].min(), 1.2 * table["n_positive_patients"].max()
)
lowest = table.loc[table.groupby(["unit", "method"])["coverage"].idxmin()]
lowest = "; ".join(
    f"{KINDS[row.unit, row.method]} {percent(row.coverage)} ({METRICS[row.metric]}, {fmt(row.n_positive_patients, 0)} positive patients)"
    for row in lowest.itertuples()
)
figure(
    "fig-coverage-patients",
    caption="Coverage by the number of positive patients in the group: a mark for each design and interval. Grey: the band that passes for 95 %.",
    alt=f"Three panels, for AUC, adjusted AUPRC and the gap in AUC: coverage over the number of positive patients on a logarithmic axis, a mark a design, a colour and shape for each of four intervals. Lowest: {lowest}.",
    table=table.assign(images_per_patient=table["images_per_patient"].map(str)),
)

# %% tags=["hide-input"]
text = pooled.assign(
    metric=pooled["metric"].map(METRICS), positive_patients=pooled["positive_patients"].astype(str)
).sort_values("metric", key=lambda m: m.map(list(METRICS.values()).index), kind="stable")
lines = {"metric": "metric", "positive_patients": "positive patients", "n_designs": "designs"}
show(
    beside(text, list(lines)).rename(columns=lines),
    caption="Coverage in percent, designs with a similar number of positive patients together",
)


# %% tags=["remove-cell"]
def reaches(metric, k):
    found = simulate.trusted_from(pooled, metric, *k)
    if found is None:
        return "nowhere, not even in the largest groups"
    return f"from {found} positive patients on" if found else "at any number of positive patients"


for k in KINDS:
    glue(f"from-{k[0]}-{k[1]}", reaches("auc", k))

least = pooled["positive_patients"].astype(str).map(simulate.CLASSES)
kinds = ["unit", "method"]
enough = pooled[least >= 10]
distance = (enough["coverage"] - 0.95).abs().groupby([enough[c] for c in kinds]).mean()
distance = distance.reindex(list(KINDS))
best = distance.idxmin() if distance.notna().any() else ("patient", "percentile")
glue("best", KINDS[best])
for k in KINDS:
    glue(f"off-{k[0]}-{k[1]}", fmt(100 * distance[k], 1))
glue("best-from", "; ".join(f"{text} {reaches(m, best)}" for m, text in METRICS.items()))
missed = of_auc[(of_auc["unit"] == best[0]) & (of_auc["method"] == best[1])]
glue("n-above", int(missed["n_above"].sum()))
glue("n-below", int(missed["n_below"].sum()))
handful = pooled[(least == 0) & (pooled["metric"] == "auc")]["coverage"].max()
glue(
    "handful",
    "this run has no design"
    if pd.isna(handful)
    else f"the best of the four held the true AUC in {percent(handful)} of studies",
)
largest = enough[enough["metric"] == "auc"].groupby(kinds).last().loc[[best]].iloc[0]
glue("pooled-error", fmt(50 * (largest["coverage_high"] - largest["coverage_low"]), 1))

many = of_auc[(of_auc["n_images"] * of_auc["prevalence"]).round(3) >= 30]
within = many["coverage"].between(LOW, HIGH)
certain = (many["coverage_high"] < LOW) | (many["coverage_low"] > HIGH)
by_kind = [many[c] for c in kinds]
glue("n-many", len(many) // len(KINDS))
glue(
    "many",
    "; ".join(
        f"{text}: {int(within.groupby(by_kind).sum()[k])} of {len(many) // len(KINDS)}, "
        f"{int(certain.groupby(by_kind).sum()[k])} outside beyond Monte Carlo error"
        for k, text in KINDS.items()
    ),
)


def beyond(widths, kind, other):
    """How much wider one kind of interval is than another, in words."""
    more = widths[kind] / widths[other] - 1
    return (
        "not comparable (no such design)"
        if pd.isna(more)
        else (f"{percent(abs(more))} {'wider' if more >= 0 else 'narrower'}")
    )


several = table[table["images_per_patient"].map(str) != "1"]
glue("wider", beyond(several.groupby(kinds)["width"].mean(), PATIENTS, IMAGES))
thin = [text for text, at in simulate.CLASSES.items() if at in (10, 20)]
widths = pooled[least.isin([10, 20])].groupby(kinds)["width"].mean().reindex(list(KINDS))
glue("thin", " or ".join(thin))
glue("expanded-wider", beyond(widths, ("patient", "expanded"), PATIENTS))
few = pooled[(least < 10) & pooled["coverage"].notna()]
few = (few["coverage"] - 0.95).abs().groupby([few[c] for c in kinds]).mean().reindex(list(KINDS))
closer = few["patient", "bca"] < few[PATIENTS]
glue("bca-few", "closer to" if closer else "no closer to")
glue("bca-few-off", fmt(100 * few["patient", "bca"], 1))
glue("percentile-few-off", fmt(100 * few[PATIENTS], 1))
glue("thirty-from", fmt(many["n_positive_patients"].min(), 0))
glue("thirty-to", fmt(many["n_positive_patients"].max(), 0))
glue("band", f"{percent(LOW)} to {percent(HIGH)}")
default = protocol_of("corrected")
glue("default", KINDS[default.unit, default.interval])

# %% [markdown]
# Images are the wrong thing to count. The designs that expect thirty positive images or more have, on
# average, between {glue:text}`thirty-from` and {glue:text}`thirty-to` positive patients: the same line in a
# table that counts images.
#
# **Verdict on AUC.** Take the average coverage of designs with a similar number of positive patients, and
# call the promise kept from {glue:text}`band`. Coverage is within this band
#
# - Drawing images, as published: {glue:text}`from-image-percentile`.
# - Drawing patients, percentile: {glue:text}`from-patient-percentile`.
# - Drawing patients, BCa: {glue:text}`from-patient-bca`.
# - Drawing patients, expanded: {glue:text}`from-patient-expanded`.
#
# These averages have a Monte Carlo error of their own, about {glue:text}`pooled-error` points either way
# in the largest groups; a verdict on the edge of the band may turn with another seed. Design by design,
# of the {glue:text}`n-many` that expect thirty positive *images* or more, so many lie within the band:
# {glue:text}`many`.
#
# **Verdict on the method.** With ten positive patients or more, and over all three metrics, coverage is
# off 95 % by this many points on average: drawing images {glue:text}`off-image-percentile`; patients with
# the percentile {glue:text}`off-patient-percentile`, BCa {glue:text}`off-patient-bca`, expanded
# {glue:text}`off-patient-expanded`. The closest is "{glue:text}`best`". It stays within the band as
# follows: {glue:text}`best-from`. Of its intervals that miss the true AUC, {glue:text}`n-above` lie above
# it and {glue:text}`n-below` below. Those above are the dangerous ones: their lower limit promises what the
# model cannot keep.
#
# The prices: where patients have several images, percentile intervals over patients are
# {glue:text}`wider` than those over images. With {glue:text}`thin` positive patients, expanded intervals are
# {glue:text}`expanded-wider` than percentile intervals. The tables of this book use
# "{glue:text}`default`" unless they say otherwise.
#
# ```{note}
# BCa has the better theory, and a correction for bias that must itself be estimated. With few patients
# that estimate is itself uncertain, and it moves both limits at once. With fewer than ten positive patients,
# BCa is {glue:text}`bca-few` its promise than the percentile interval here: off by
# {glue:text}`bca-few-off` points on average, against {glue:text}`percentile-few-off`.
# ```
#
# What does this mean for the groups that S singles out? That a group is thin does show in a wide interval.
# It is no proof that the interval is wide enough. If its positive images come from a handful of patients,
# its lower limit is no lower limit, and drawing images hides this.

# %% tags=["remove-input"]
quiz(
    "A group has forty positive images of eight patients. Which sentence belongs into the report?",
    {
        "Forty positive images are enough for an interval": (
            False,
            "Eight witnesses are heard, some of them several times.",
        ),
        "The interval is wide, so the uncertainty is shown": (
            False,
            "Wide is not wide enough: whether it covers depends on the eight patients.",
        ),
        "Eight positive patients; the interval may hold the truth less often than it says": (
            True,
            f"Here, drawing images keeps its promise {reaches('auc', IMAGES)}, and drawing patients (percentile) {reaches('auc', PATIENTS)}.",
        ),
    },
)

# %% [markdown]
# ## Limits
#
# - The simulation is kind: normal scores, one strength of correlation for labels and scores, and in the small
#   grid the same number of images for every patient. Real cohorts are less so, and real intervals may do
#   worse.
# - The correlation of *labels* was taken from NIH metadata; that of scores is set equal to it and not
#   measured.
# - Coverage is about sampling patients of the same kind. It says nothing about another hospital, wrong labels
#   or a wrong model.
#
# ## What we learned
#
# - Patients are the witnesses. Drawing images counts each witness several times as soon as images of a
#   patient are alike, and in the labels of NIH they are (median correlation {glue:text}`icc-middle`).
# - Whether a group is large enough is a question about its positive *patients*. A report that gives images
#   only cannot be judged; the tables of this book give both.
# - Drawing images, as published, keeps its promise for AUC {glue:text}`from-image-percentile`; drawing
#   patients with the expanded interval {glue:text}`from-patient-expanded`. Closest over all three metrics is
#   "{glue:text}`best`".
# - With fewer than five positive patients, {glue:text}`handful`. There, the honest number is the count of
#   patients.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-coverage-uneven
# In real cohorts a few patients have very many images. Compare
# `simulate.Design(300, 10, 0.6, 0.1)` with `simulate.Design(300, (1, 1, 1, 37), 0.6, 0.1)`, which has about
# as many patients. Which intervals suffer?
# ```
#
# ```{solution} ex-coverage-uneven
# :class: dropdown
# Call `simulate.coverage` for both. The long-stay patients dominate every sum, so there are in effect
# fewer patients than the count says. Intervals over images fall further below their promise, and those
# over patients too: eight patients carry almost all images. The expanded interval notices part of it, since
# leaving out one of the eight changes the result a lot and its degrees of freedom drop.
# ```
#
# ```{exercise}
# :label: ex-coverage-dial
# The strength of the correlation is the planted bias of this chapter. Predict what
# {numref}`fig-coverage-studies` would show with `ICC = 0` in the cell that sets it, and with `ICC = 0.95`.
# Then change it and run the cells up to the figure.
# ```
#
# ```{solution} ex-coverage-dial
# :class: dropdown
# Without correlation every image is a witness of its own: both panels miss about one time in twenty, and
# their intervals are about equally wide. With almost full correlation the images of a patient repeat each
# other: drawing images misses far more often, without its intervals growing. Those from drawing patients
# become much wider, and still miss too often, since so few patients are positive. The truth, the vertical
# line, stays where it is.
# ```
#
# ```{exercise}
# :label: ex-coverage-seed
# Predict from the Monte Carlo intervals which cells of the table below {numref}`fig-coverage-patients` would
# leave the band of a kept promise, or enter it, with another seed. Then run `cxrbook run 09 -p seed=7`.
# ```
#
# ```{solution} ex-coverage-seed
# :class: dropdown
# Cells whose Monte Carlo interval holds a border of the band may change sides; cells whose interval lies
# wholly on one side should not. A verdict of the text that hangs on such a cell changes with it, and the
# sentence with the verdict: it is computed. More studies, `n_simulations`, make the borders sharper.
# ```
#
# ```{exercise}
# :label: ex-coverage-which
# Images of a patient can be alike in their labels, in their scores, or in both. `simulate.sample` takes
# the two correlations apart. Which one makes intervals over images too narrow?
# ```
#
# ```{solution} ex-coverage-which
# :class: dropdown
# Mostly the two together. If only labels are alike, the scores of a patient's images are still
# independent witnesses, given the labels. If only scores are alike, a patient seldom has several positive
# images of a rare finding: the positive side keeps its witnesses, the negative side loses some, and
# coverage suffers a little. Where a patient's images are ill together *and* shifted together, one patient
# is counted many times.
# ```
#
# ```{exercise}
# :label: ex-coverage-plan
# A finding has a prevalence of 2 %. Patients have three images each with a correlation of 0.6. How many
# images does a group need so that it has forty positive patients?
# ```
#
# ```{solution} ex-coverage-plan
# :class: dropdown
# Simulate labels: `y, _ = simulate.sample(patient, 0.8, 0.02, 0, 0.6, rng)` with
# `patient = simulate.patients(3000, 3)` and count the distinct patients with a positive image. A
# thousand patients have 60 positive images, on average from 47 patients. So about 2,500 images; with one
# image a patient, 2,000 would do.
# ```
#
# ```{exercise}
# :label: ex-coverage-chance
# Sixty studies, each with a true 95 % interval. How surprising would seven misses be?
# ```
#
# ```{solution} ex-coverage-chance
# :class: dropdown
# The number of misses is binomial with 60 draws and probability 0.05, three on average. Seven or more
# happen with probability `scipy.stats.binom.sf(6, 60, 0.05)`, about 0.03. Sixty studies can expose a
# badly broken interval, and cannot tell 93 % from 95 %: that takes about 2,000.
# ```
#
# ## Further reading
#
# - {cite:t}`efron1987`: where the bias-corrected interval comes from, and what it corrects.
# - {cite:t}`hesterberg2015`: what everyone who teaches the bootstrap should know; small samples in particular.
# - {cite:t}`valliant2010`: how many witnesses a small or uneven sample really has.
# - {cite:t}`varoquaux2022`: why results on medical images so often do not hold up, test sets that are too small
#   among the reasons.
# - {cite:t}`bouthillier2021`: the variance that remains when the patients stay the same: seeds and splits.
