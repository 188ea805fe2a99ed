# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals: []
#     needs: []
#     minutes: 30
# ---

# %% [markdown]
# # Do the intervals cover?
#
# *Examines the intervals of {cite:t}`sourget2025`, paper S: those of Table 1 and Fig. 1, which come from
# drawing images, and what section 3.1 says about Asian patients and patients of 18 to 25 years.*
#
# A report says that a model finds pneumothorax in young patients with an AUC of 0.91, interval 0.80 to
# 0.99. The clinic reads the lower limit: at worst 0.80, good enough. That reading rests on a promise.
# Intervals of this kind hold the truth in 95 of 100 studies. Do they?
#
# There are two reasons for doubt. Paper S drew *images* to make its intervals, although a patient may
# have several, and images of one patient are no independent witnesses. And it warns, rightly, that thin
# groups such as Asian patients or the youngest have few positive images and wide intervals. A wide
# interval looks honest. It may still be too narrow.
#
# With real patients nobody can check the promise, for nobody knows the truth. This chapter simulates
# studies of which the truth is known, hundreds of them, and counts.

# %% tags=["parameters"]
seed: int = 1907  # seed of the simulated studies and of the resamples
n_simulations: int = 200  # studies a design
n_resamples: int = 500  # bootstrap resamples a study
grid: str = (
    "small"  # designs: "small", or "full" for the grid of benchmarks/coverage.py (some minutes)
)

# %% tags=["remove-cell"]
from cxrlib.parameters import check

check(globals())

# %% tags=["hide-input"]
import inspect

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, estimates, ranking, simulate
from cxrlib.cohorts import metadata
from cxrlib.notebook import figure, fmt, glue, percent, setup, show
from cxrlib.plots import name

setup()
designs = simulate.grid(grid)
LOW, HIGH = simulate.BAND
KINDS = {
    ("image", "percentile"): "images, percentile",
    ("patient", "percentile"): "patients, percentile",
    ("patient", "bca"): "patients, BCa",
    ("patient", "expanded"): "patients, expanded",
}
COLOUR = dict(zip(KINDS, ("#D55E00", "#56B4E9", "#999933", "#0072B2"), strict=True))
METRICS = {"auc": "AUC", "adjusted_auprc": "adjusted AUPRC", "auc_gap": "gap in AUC"}

# %% [markdown]
# ## A study whose truth is known
#
# A simulated group has patients, patients have images, images have a label and a score. Two things tie
# the images of a patient together: a patient who is ill once is likely to be ill again, and a patient whose
# film looks suspicious to the model once will look so again. Both strengths are a correlation that we
# choose. Scores of negative images follow a normal distribution, those of positive images the same
# distribution moved up by $\mu$. Then the truth has a formula: $\mathrm{AUC} = \Phi(\mu / \sqrt 2)$ and
#
# $$ \mathrm{AP} = \int \frac{p\,\Phi(\mu - x)}{p\,\Phi(\mu - x) + (1 - p)\,\Phi(-x)}\; \varphi(x - \mu)\, dx $$ (eq-coverage-ap)
#
# for a prevalence $p$. The correlation does not enter. It changes how much a study can know, not what is
# true. One very large sample, with strong correlation, agrees:

# %%
AUC, PREVALENCE, ICC = 0.8, 0.1, 0.6
truth = simulate.population(AUC, PREVALENCE)
patient = simulate.patients(300_000, 10)
large = simulate.sample(patient, AUC, PREVALENCE, ICC, ICC, np.random.default_rng(seed))
sampled = ranking.ranking(*large[:2], None)
show(
    pd.DataFrame(
        [
            {"metric": name(m), "by the formula": truth[m], "in a large sample": sampled[m]}
            for m in ("auc", "average_precision", "adjusted_auprc")
        ]
    ),
    caption="The truth of a simulated population, and one sample of 300,000 images",
    digits=3,
)

# %% [markdown]
# ## How alike are the images of one patient?
#
# The answer decides everything that follows, so it should come from real patients. The metadata of NIH
# ChestX-ray14 tell it for the labels. Imagine behind each label a continuous severity that turns into
# "positive" above a threshold; the correlation of this severity between two images of a patient can be
# worked out from how often both are positive.

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
# {glue:text}`icc-high`, with the median finding at {glue:text}`icc-middle`. In the simulations below,
# patients with several images have the correlation {glue:text}`grid-icc`, for labels and scores alike.
#
# ## What a missing promise looks like
#
# Here are sixty studies of one and the same group: 300 images of 30 patients, one image in ten positive,
# true AUC 0.8. Each study reports an interval, once from drawing images and once from drawing patients.

# %%
example = simulate.Design(
    n_images=300, images_per_patient=10, icc=ICC, prevalence=PREVALENCE, auc=AUC
)
studies = simulate.studies(example, 60, n_resamples, seed)
studies = studies[(studies["metric"] == "auc") & (studies["method"] == "percentile")]
misses = (studies["ci_low"] > AUC) | (studies["ci_high"] < AUC)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(7, 5.5), sharex=True, sharey=True)
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
    caption="Sixty simulated studies and their 95 % intervals for AUC. Intervals that miss the truth, the vertical line, are orange.",
    alt="Two panels of sixty horizontal intervals each around a vertical line at the true AUC, on the left from drawing images, on the right from drawing patients; intervals that do not touch the line are orange, the others blue.",
)

# %% tags=["remove-cell"]
for unit in ("image", "patient"):
    of_unit = studies["unit"] == unit
    glue(f"missed-{unit}", int(misses[of_unit].sum()))
    width = (studies["ci_high"] - studies["ci_low"])[of_unit].mean()
    glue(f"width-{unit}", fmt(width))
counts = studies[studies["unit"] == "patient"]
glue("example-positive", fmt(counts["n_positive"].mean(), 0))
glue("example-ill", fmt(counts["n_positive_patients"].mean(), 0))

# %% [markdown]
# Three of sixty may miss. Drawing images, {glue:text}`missed-image` do; drawing patients,
# {glue:text}`missed-patient`. The first intervals are {glue:text}`width-image` wide on average, the second
# {glue:text}`width-patient`. A study has about {glue:text}`example-positive` positive images, which sounds
# like enough. They come from about {glue:text}`example-ill` patients.
#
# ## Four intervals, many designs
#
# Now the same count for many designs of a study: small and larger groups, rare and common findings, one
# image a patient or several. Each simulated cohort has two groups; the model is a little worse in the
# second, so that the gap between them has a known truth too. Four ways to make an interval compete:
#
# images, percentile
# : as S made them: resample the images, cut off 2.5 % of the resampled values on either side.
#
# patients, percentile
# : the same with patients, each with all of their images.
#
# patients, BCa
# : corrects the two cuts for bias and skewness {cite:p}`efron1987`.
#
# patients, expanded
# : moves the cuts outwards {cite:p}`hesterberg2015`. Resamples of few patients vary too little, and the
#   spread of few patients is itself uncertain; how uncertain is learnt by leaving out patients in turn
#   (the degrees of freedom of survey statistics, {cite:p}`valliant2010`). With many patients nothing is
#   left of the difference.

# %%
table = pd.concat(
    [simulate.coverage(d, n_simulations, n_resamples, seed) for d in designs], ignore_index=True
)


# %% tags=["hide-input"]
def with_error(row):
    """Coverage in percent with its Monte Carlo interval."""
    return f"{fmt(100 * row['coverage'], 0)} [{fmt(100 * row['coverage_low'], 0)}, {fmt(100 * row['coverage_high'], 0)}]"


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
show(
    beside(text, list(HEADS)).rename(columns=HEADS),
    caption="Coverage of nominal 95 % intervals for AUC in percent, with its Monte Carlo interval",
)

# %% tags=["remove-cell"]
glue("n-designs", len(designs))
glue("n-simulations", n_simulations)
glue("mc", fmt(100 * 1.96 * np.sqrt(0.95 * 0.05 / n_simulations), 1))
glue("n-undefined", f"{int(of_auc['n_undefined'].groupby(of_auc['unit']).sum()['image']):,}")
glue("n-studies", f"{n_simulations * len(designs):,}")
worst = of_auc.loc[of_auc[of_auc["unit"] == "image"]["coverage"].idxmin()]
glue("worst", percent(worst["coverage"]))
glue("worst-images", fmt(worst["n_positive"], 0))
glue("worst-patients", fmt(worst["n_positive_patients"], 0))
alone = of_auc[(of_auc["images_per_patient"] == "1") & (of_auc["unit"] == "image")]
glue("alone", f"{percent(alone['coverage'].min())} to {percent(alone['coverage'].max())}")

# %% [markdown]
# Every line stands for {glue:text}`n-simulations` studies, so a true 95 % may show as anything within
# {glue:text}`mc` points of it: read the columns, not single cells. (A grid of ten times the size runs with
# `benchmarks/coverage.py`.) Of {glue:text}`n-studies` studies, {glue:text}`n-undefined` had no AUC or no
# interval, for want of positive images; the column "undefined" counts them, and the shares are about the
# others.
#
# The lowest coverage from drawing images is {glue:text}`worst`, in a group with
# {glue:text}`worst-images` positive images of {glue:text}`worst-patients` patients. With one image a
# patient the two ways of drawing are the same, and what is left, {glue:text}`alone`, is the price of small
# groups alone.
#
# ## What counts is positive patients
#
# Put all designs on one axis, the number of patients with at least one positive image:

# %%
pooled = simulate.by_positive_patients(table)

# %% tags=["hide-input"]
fig, axes = plt.subplots(3, 1, figsize=(7, 8.5), sharex=True, sharey=True)
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
figure(
    "fig-coverage-patients",
    caption="Coverage by the number of positive patients in the group: a dot for each design and interval. Grey: the band that passes for 95 %.",
    alt="Three panels, for AUC, adjusted AUPRC and the gap in AUC: coverage over the number of positive patients on a logarithmic axis, a dot a design, a colour and shape for each of four intervals, with a grey band around the nominal coverage.",
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
several = table[table["images_per_patient"].map(str) != "1"]
widths = several.groupby(kinds)["width"].mean()
wider = widths["patient", "percentile"] / widths["image", "percentile"] - 1
glue("wider", percent(wider))
widths = pooled[least.isin([10, 20])].groupby(kinds)["width"].mean().reindex(list(KINDS))
wider = widths["patient", "expanded"] / widths["patient", "percentile"]
glue("expanded-wider", percent(wider - 1))
default = inspect.signature(estimates.studies).parameters["interval"].default
glue("default", KINDS["patient", default])

# %% [markdown]
# Images are the wrong thing to count. Thirty positive images may come from thirty patients or from seven,
# and the intervals know the difference even where the report does not state it.
#
# **Verdict on AUC.** Take the average coverage of designs with a similar number of positive patients, and
# let 93 % to 97 % pass for 95 %. Coverage is within this band
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
# {glue:text}`wider` wider than those over images. With 10 to 39 positive patients, expanded intervals are
# {glue:text}`expanded-wider` wider than percentile intervals. The tables of this book use
# "{glue:text}`default`" unless they say otherwise.
#
# ```{note}
# BCa has the better theory, and a correction for bias that must itself be estimated. With few patients
# this estimate is noise that moves both limits at once. The percentile interval of a small group needs
# something else first: more width.
# ```
#
# What does this mean for the groups that S singles out? That a group is thin does show in a wide interval.
# It is no proof that the interval is wide enough. If its positive images come from a handful of patients,
# its lower limit is no lower limit, and drawing images hides this.
#
# ## What we learned
#
# - Patients are the witnesses. Drawing images counts each witness several times as soon as images of a
#   patient are alike, and in real labels they are.
# - Whether a group is large enough is a question about its positive *patients*. A report that gives images
#   only cannot be judged; the tables of this book give both.
# - Drawing patients is necessary. In small groups it need not be sufficient: see which interval came
#   closest above.
# - With fewer than five positive patients, {glue:text}`handful`. There, the honest number is the count of
#   patients.
# - The simulation is kind: normal scores, the same number of images for every patient. Real cohorts are
#   less so, and real intervals may do worse.
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
# thousand patients have 60 positive images, on average from a good forty patients. So about 2,600
# images; with one image a patient, 2,000 would do.
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
