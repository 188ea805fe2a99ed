# ---
# jupyter:
#   chapter:
#     answers:
#       S 3.1: ''
#       S Fig. 1: fig-coverage-patients
#       S Table 1: fig-coverage-patients
#     goals:
#     - say what a 95 % interval promises, and test it where the truth is known
#     - explain why the number of patients counts, and not that of images
#     - decide which interval to report for a small group, and when none
#     needs:
#     - 02_zero_shot
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # Do the intervals cover?
#
# *Examines the intervals of {cite:t}`sourget2025`, paper S: those of Table 1
# and Fig. 1, which come from drawing images, and what section 3.1 says about
# Asian patients and patients of 18 to 25 years.*
#
# Suppose a report says that a model finds pneumothorax in young patients with
# an AUC of 0.91, interval 0.80 to 0.99. The clinic reads the lower limit as
# the worst case, finds it good enough, and lets the model sort the films of
# the night. That reading rests on a promise: 95 of 100 studies with such
# intervals hold the truth. If they do not, some young patient with a collapsed
# lung waits until the morning, and the report that let it happen looked
# careful.
#
# There are two reasons for doubt. Paper S drew *images* to make its intervals,
# although images of one patient are no independent witnesses. And it warns,
# rightly, that thin groups have wide intervals. A wide interval looks honest.
# It may still be too narrow. **Do such intervals keep their promise?** With
# real patients nobody knows the truth. This chapter simulates studies of which
# it is known, and counts.

# %% tags=["parameters"]
seed: int = 1907  # [0, 1000000] of the simulated studies and the resamples
n_simulations: int = 200  # [2, 10000] studies a design
n_resamples: int = 500  # [2, 100000] bootstrap resamples a study
grid: str = "small"  # {small, full} designs: of a page, or of benchmarks/

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# No film and no model is needed, only patients and scores from a formula.

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import metadata
from cxrlib.protocol import protocol_of
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import fmt, fmt_row, listed, percent, readable
from cxrlib.stats import ranking, simulate

# %% [markdown]
# ## A study whose truth is known
#
# A simulated group has patients, patients have images, images have a label and
# a score. Two things tie the images of a patient together: a patient who is
# ill once is likely to be ill again, and a patient whose film looks suspicious
# to the model once will look so again. Both strengths are a *correlation* that
# we choose: 0 where one image says nothing of the next, 1 where it says
# everything. Scores of negative images follow a normal distribution, those of
# positive images the same distribution moved up by $\mu$. Then the truth has a
# formula: $\mathrm{AUC} = \Phi(\mu / \sqrt 2)$, and the average precision, the
# area under the precision-recall curve, is
#
# $$ \mathrm{AP} = \int \frac{p\,\Phi(\mu - x)}
#    {p\,\Phi(\mu - x) + (1 - p)\,\Phi(-x)}\; \varphi(x - \mu)\, dx
# $$ (eq-coverage-ap)
#
# for a prevalence $p$, with $\Phi$ the normal distribution function and
# $\varphi$ its density. The correlation does not enter. It changes how much a
# study can know, not what is true. One very large sample, with strong
# correlation, stands beside the formula:

# %%
AUC, PREVALENCE, ICC = 0.8, 0.1, 0.6
truth = simulate.population(AUC, PREVALENCE)
patient = simulate.patients(n_images=300_000, images_per_patient=10)
rng = np.random.default_rng(seed)
large = simulate.sample(patient, AUC, PREVALENCE, ICC, ICC, rng)
sampled = ranking.ranking(*large)

# %% tags=["hide-input"]
agree = pd.DataFrame({"by the formula": truth})
agree["in a large sample"] = pd.Series(sampled)
show(
    agree.rename_axis("metric"),
    "The truth of a simulated population, and one sample of "
    f"{len(patient):,} images",
    digits=3,
)

# %% tags=["remove-input"]
apart = agree.diff(axis=1).abs().max().max()
say(f"""
They differ by {apart:.3f} at most. From here on the formula is *the truth*.
""")

# %% [markdown]
# ## How alike are the images of one patient?
#
# The metadata of NIH ChestX-ray14 {cite:p}`wang2017` show it for the labels.
# Think of a continuous severity behind each label, which turns into "positive"
# above a threshold; the correlation of this severity between two images of a
# patient can be worked out from how often both are positive.

# %%
nih = cohorts.load("nih-metadata").table
who = nih["patient_id"]
alike = pd.DataFrame(
    {
        "positive images": nih[finding].sum(),
        "positive patients": nih[finding].groupby(who).max().sum(),
        "correlation": simulate.label_icc(nih[finding], who),
    }
    for finding in metadata.FINDINGS
).set_index(pd.Index(metadata.FINDINGS, name="finding"))
alike = alike.sort_values("correlation")
show(
    alike,
    "NIH metadata: correlation of severity between two images of a patient",
)

# %% tags=["remove-input"]
images = nih.groupby("patient_id").size()
icc, designs = alike["correlation"], simulate.grid(grid)
strengths = {d.icc for d in designs if d.images_per_patient != 1}
say(f"""
A patient has {images.mean():.1f} images on average and {images.max()} at most;
{percent(images[images > 1].sum() / len(nih))} of all images have a sibling.
The correlation runs from {icc.iloc[0]:.2f} ({icc.index[0]}) to
{icc.iloc[-1]:.2f} ({icc.index[-1]}), with the median finding at
{icc.median():.2f}: films of one patient are far from independent. In the
simulations below, patients with several images have the correlation
{listed(sorted(strengths), last="or")}, for labels and scores alike.
""")

# %% [markdown]
# ## What a broken promise looks like
#
# Here are studies of one and the same group. Each reports an interval for AUC,
# once from drawing images and once from drawing patients.

# %%
example = simulate.Design(
    n_images=300,
    images_per_patient=10,
    icc=ICC,
    prevalence=PREVALENCE,
    auc=AUC,
)
studies = simulate.studies(example, 60, n_resamples, seed)
studies = studies[(studies["metric"] == "auc")]
studies = studies[studies["method"] == "percentile"]
studies["missed"] = (studies["ci_low"] > AUC) | (studies["ci_high"] < AUC)

# %% tags=["hide-input"]
plots.studies_and_truth(studies, AUC)
figure(
    "fig-coverage-studies",
    "Simulated studies of one group and their 95 % intervals for AUC, one "
    "line per study. Intervals that miss the truth, the vertical line, are "
    "orange.",
)

# %% tags=["remove-input"]
of_unit = studies.assign(width=studies["ci_high"] - studies["ci_low"])
of_unit = of_unit.groupby("unit")
missed, width = of_unit["missed"].sum(), of_unit["width"].mean()
mean = studies[["n_positive", "n_positive_patients"]].mean()
n_studies = studies["simulation"].nunique()
n_patients = simulate.patients(example.n_images, example.images_per_patient)[
    -1
]
say(f"""
The group has {example.n_images} images of {n_patients + 1} patients,
{percent(PREVALENCE)} of the images positive, and a true AUC of {AUC:.2f}. Of
{n_studies} studies, a fair 95 % interval misses about
{0.05 * n_studies:.0f} times. In {{numref}}`fig-coverage-studies`, drawing
images misses {missed["image"]} times and drawing patients {missed["patient"]}.
The first intervals are {width["image"]:.2f} wide on average, the second
{width["patient"]:.2f}. A study has about {mean["n_positive"]:.0f} positive
images. They come from about {mean["n_positive_patients"]:.0f} patients.
""")

# %% tags=["remove-input"]
quiz(
    "What does the 95 % of one reported interval mean?",
    {
        "The true value lies in this interval with a probability of 95 %": (
            False,
            "The interval of a study that is done either holds the truth or "
            "not. The number belongs to the recipe: how often intervals made "
            "this way hold it.",
        ),
        "95 % of patients lie in it": (
            False,
            "It is about one number, the AUC of a population, and not about "
            "patients one by one.",
        ),
        "Made anew in many studies, 95 % of such intervals hold the truth": (
            True,
            f"If the recipe keeps its promise. Of the {n_studies} above, "
            f"{n_studies - missed['image']} did from drawing images, "
            f"{n_studies - missed['patient']} from drawing patients.",
        ),
    },
)

# %% [markdown]
# ## Five intervals, many designs
#
# Now the same count for many designs of a study. Each simulated cohort has two
# groups; the model is a little worse in the second, so that the gap between
# them has a known truth too. Five ways to make an interval compete:
#
# images, percentile
# : as S made them: draw images with replacement, compute the metric of each
#   draw, and cut off 2.5 % of these values on either side.
#
# patients, percentile
# : the same with patients, each with all of their images.
#
# patients, BCa
# : "bias-corrected and accelerated": moves the two cuts for bias and skewness
#   {cite:p}`efron1987`.
#
# patients, expanded
# : moves the cuts outwards {cite:p}`hesterberg2015`. Resamples of few patients
#   vary too little, and the spread of few patients is itself uncertain; how
#   uncertain is learnt by leaving out patients in turn (the degrees of freedom
#   of survey statistics, {cite:p}`valliant2010`).
#
# patients, analytic
# : draws nothing. A formula says how far each patient moves the number; these
#   moves, squared and summed, are its variance {cite:p}`obuchowski1997`. The
#   limits are taken on a scale that has no end {cite:p}`boyd2013`.
#
# *Coverage* is the share of studies whose interval holds the truth. Since
# studies are finite, coverage has an interval of its own, from counting,
# called *Monte Carlo* below.

# %%
table = pd.concat(
    [simulate.coverage(d, n_simulations, n_resamples, seed) for d in designs],
    ignore_index=True,
)
several = table["images_per_patient"].map(str)  # may be a list of numbers
table = simulate.named(table).assign(images_per_patient=several)
of_auc = table[table["metric"] == "auc"]

# %% tags=["hide-cell"]
shown = of_auc.rename(columns={"auc": "true AUC", "icc": "correlation"})
shown = shown.astype({"true AUC": str, "correlation": str})
for column in ("n_positive", "n_positive_patients"):
    shown[column] = shown[column].map("{:.1f}".format)
shares = ["prevalence", "undefined"]
shown[shares] = shown[shares].map(percent)
first = ["images_per_patient", "n_positive_patients"]
rest = ["n_positive", "true AUC", "prevalence", "n_images", "correlation"]
of_design = shown.groupby([*first, *rest], sort=False)["undefined"]
shown["undefined"] = of_design.transform("first")  # of the resampled ones
rest.append("undefined")  # these may need scrolling
wide = schema.wide(
    simulate.in_percent(shown), [*first, *rest], "kind", digits=0
)
kinds = list(wide.columns)
show(
    wide.reset_index()[[*first, *kinds, *rest]],
    "Coverage of nominal 95 % intervals for AUC, in percent [Monte Carlo "
    "interval], by design",
)

# %% tags=["remove-input"]
drawn = of_auc[of_auc["unit"] == "image"]
worst = drawn.loc[drawn["coverage"].idxmin()]
single = drawn["images_per_patient"] == "1"
alone = drawn.loc[single, "coverage"]
error = 196 * np.sqrt(0.95 * 0.05 / n_simulations)
say(f"""
Every line of the folded table stands for {n_simulations} studies, so a true
95 % may show as anything within {error:.1f} points of it: read the columns.
(This page has {len(designs)} designs; the grid of `benchmarks/coverage.py`,
`grid="full"`, has {len(simulate.grid("full"))}.) Of
{n_simulations * len(designs):,} studies, {drawn["n_undefined"].sum()} had no
AUC or no interval, for want of positive images; the column "undefined" counts
them, and the shares are about the others.

The lowest coverage from drawing images is {percent(worst["coverage"])}, in a
group with {worst["n_positive"]:.0f} positive images of
{worst["n_positive_patients"]:.0f} patients. With one image a patient the two
ways of drawing are the same; there, coverage runs from {percent(alone.min())}
to {percent(alone.max())} by design, and what is missing is the price of small
groups alone.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# Planted was one thing: in some designs the images of a patient are alike, in
# others each patient has one image.

# %% tags=["remove-input"]
planted = drawn.groupby(single)[simulate.COUNTS].sum()
planted = simulate.in_percent(simulate.shares(planted.reset_index()))
one, other = planted.sort_values("images_per_patient").to_dict("records")
clear = one["ci_high"] < other["ci_low"]
verdict = f"""Coverage is {"" if clear else "not "}lower where images of a
patient are alike, beyond Monte Carlo error: what was planted is
{"" if clear else "not "}found"""
say(f"""
Over all designs of the first kind, drawing images covers the true AUC in
{fmt_row(one, 1)} %, over those of the second in {fmt_row(other, 1)} %.
{verdict}.
""")

# %% [markdown]
# ## What counts is positive patients
#
# Put all designs on one axis, the number of patients with at least one
# positive image, and then together by classes of this number:

# %% tags=["hide-input"]
LOW, HIGH = simulate.BAND
plots.coverage_by_patients(table, simulate.BAND)
figure(
    "fig-coverage-patients",
    "Coverage by the number of positive patients in the group: a mark for "
    "each design and interval. Grey: the band that passes for 95 %.",
)

# %%
pooled = simulate.named(simulate.by_positive_patients(table))

# %% tags=["hide-input"]
order = list(dict.fromkeys(table["metric"])).index
shown = pooled.astype({"positive_patients": str})
shown = shown.sort_values("metric", key=lambda m: m.map(order), kind="stable")
show(
    simulate.in_percent(shown),
    "Coverage in percent, designs with a similar number of positive patients "
    "together",
    rows=["metric", "positive_patients", "n_designs"],
    columns="kind",
    digits=0,
)

# %% [markdown]
# Call the promise kept where average coverage is within the grey band. From
# how many positive patients on does each kind of interval keep it, and how far
# is it off with ten positive patients or more?

# %%
verdicts = simulate.verdicts(table)


def kept(metric, kind):
    """From how many positive patients on coverage stays in the band."""
    unit, method = kind.lower().split("s, ")
    least = simulate.trusted_from(pooled, metric, unit, method)
    if least is None:
        return "nowhere"
    return f"from {least} positive patients on" if least else "at any number"


# %% tags=["hide-input"]
told = {
    readable(m): [kept(m, k).split(" positive")[0] for k in verdicts.index]
    for m in table["metric"].unique()
}
told = pd.DataFrame(told, index=verdicts.index)
told["points off"] = verdicts["off"].map(lambda x: fmt(100 * x, 1))
many = verdicts["many"].astype(str)
told["designs within"] = verdicts["within"].astype(str) + " of " + many
told["surely outside"] = verdicts["beyond"].astype(str)
show(
    told,
    "From how many positive patients on coverage is kept; how far it is off "
    "95 % on average with ten or more; of the designs that expect thirty "
    "positive images, those within the band, and outside beyond Monte Carlo "
    "error",
)

# %% tags=["remove-input"]
IMAGES, PATIENTS, BCA, EXPANDED, ANALYTIC = verdicts.index
off = verdicts["off"]
best = off.idxmin() if off.notna().any() else PATIENTS
largest = pooled[(pooled["metric"] == "auc") & (pooled["kind"] == best)]
largest = largest.iloc[-1]
error = 50 * (largest["coverage_high"] - largest["coverage_low"])
thirty = of_auc[(of_auc["n_images"] * of_auc["prevalence"]).round(3) >= 30]
thirty = thirty["n_positive_patients"]
say(f"""
The band is from {percent(LOW)} to {percent(HIGH)}, and the closest interval is
"{best}". Of its intervals that miss the true AUC, {verdicts["above"][best]}
lie above it and {verdicts["below"][best]} below. Those above are the dangerous
ones: their lower limit promises what the model cannot keep. The averages have
a Monte Carlo error of their own, about {error:.1f} points either way in the
largest groups; a verdict on the edge of the band may turn with another seed.

Images are the wrong thing to count. Designs that expect thirty positive
*images* or more have, on average, between {thirty.min():.0f} and
{thirty.max():.0f} positive patients: the same line in a table of images.
""")

# %% tags=["remove-input"]
wide, thin = verdicts["width"], verdicts["width_thin"]
few = 100 * verdicts["off_few"]
classes = [text for text, at in simulate.CLASSES.items() if at in (10, 20)]
handful = pooled[pooled["positive_patients"] == "under 5"]
handful = handful[handful["metric"] == "auc"].set_index("kind")
silent = handful["undefined"].reindex(verdicts.index)
default = protocol_of("corrected")
say(f"""
The prices: where patients have several images, percentile intervals over
patients are {percent(wide[PATIENTS] / wide[IMAGES] - 1)} wider than those over
images. With {listed(classes, last="or")} positive patients, expanded intervals
are {percent(thin[EXPANDED] / thin[PATIENTS] - 1)} wider than percentile
intervals. The tables of this book use "{default.unit}s, {default.interval}"
unless they say otherwise. BCa has the better theory, and a correction for bias
that must itself be estimated. With fewer than ten positive patients it is off
its promise by {few[BCA]:.1f} points on average, the percentile interval by
{few[PATIENTS]:.1f}.

The analytic interval takes milliseconds. It keeps its promise for AUC
{kept("auc", ANALYTIC)}, for adjusted AUPRC {kept("adjusted_auprc", ANALYTIC)},
for the gap {kept("auc_gap", ANALYTIC)}. In groups with fewer than five
positive patients it gives none in {percent(silent[ANALYTIC])} of studies, the
others in {percent(silent[BCA])}: a single positive patient, or an AUC of 1,
tells it nothing of the next patient. Its coverage leaves such studies out.

What does this mean for the groups that S singles out? That a group is thin
does show in a wide interval. It is no proof that the interval is wide enough.
If its positive images come from a handful of patients, its lower limit is no
lower limit, and drawing images hides this.
""")

# %% tags=["remove-input"]
quiz(
    "A group has forty positive images of eight patients. Which sentence "
    "belongs into the report?",
    {
        "Forty positive images are enough for an interval": (
            False,
            "Eight witnesses are heard, some of them several times.",
        ),
        "The interval is wide, so the uncertainty is shown": (
            False,
            "Wide is not wide enough: whether it covers depends on the eight "
            "patients.",
        ),
        "Eight positive patients; the interval may be too narrow": (
            True,
            "Here, drawing images keeps its promise for AUC "
            f"{kept('auc', IMAGES)}, and drawing patients (percentile) "
            f"{kept('auc', PATIENTS)}.",
        ),
    },
)

# %% [markdown]
# ## Limits
#
# - The simulation is kind: normal scores, one strength of correlation, and in
#   the small grid as many images for every patient. Reality may be worse.
# - The correlation of *labels* was taken from NIH metadata; that of scores is
#   set equal to it and not measured.
# - Coverage is about sampling patients of the same kind. It says nothing about
#   another hospital, wrong labels or a wrong model.

# %% tags=["remove-input"]
in_short(
    f"""
Do 95 % intervals hold the truth in 95 of 100 studies? Drawing images, as S
did, keeps this promise for AUC {kept("auc", IMAGES)}; drawing patients, with
the expanded interval, {kept("auc", EXPANDED)}; a formula, which draws nothing,
{kept("auc", ANALYTIC)}. With fewer than five positive patients,
the best of the five held the truth in {percent(handful["coverage"].max())} of
studies: there, the honest number is the count of patients. {verdict}. In the
labels of NIH the median correlation is {icc.median():.2f}.
""",
    figure="fig-coverage-patients",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-coverage-uneven
# In real cohorts a few patients have very many images. Compare
# `simulate.Design(300, 10, 0.6, 0.1)` with
# `simulate.Design(300, (1, 1, 1, 37), 0.6, 0.1)`, which has about as many
# patients. Which intervals suffer?
# ```
#
# ```{solution} ex-coverage-uneven
# :class: dropdown
# Call `simulate.coverage` for both. Eight long-stay patients carry almost all
# images, so there are in effect fewer patients than the count says. Intervals
# over images fall further below their promise, and those over patients too.
# The expanded and the analytic one notice part of it: with one of the eight
# the result moves a lot, and their degrees of freedom drop.
# ```
#
# ```{exercise}
# :label: ex-coverage-dial
# Predict what {numref}`fig-coverage-studies` would show with `ICC = 0` in the
# cell that sets it, and with `ICC = 0.95`. Then change it and run the cells.
# ```
#
# ```{solution} ex-coverage-dial
# :class: dropdown
# Without correlation every image is a witness of its own: both panels miss
# about one time in twenty, with intervals about equally wide. With almost full
# correlation drawing images misses far more often, without its intervals
# growing. Those from drawing patients become much wider, and still miss too
# often, since so few patients are positive. The vertical line stays.
# ```
#
# ```{exercise}
# :label: ex-coverage-seed
# Predict from the Monte Carlo intervals which cells of the table below
# {numref}`fig-coverage-patients` would leave the band of a kept promise, or
# enter it, with another seed. Then run `cxrbook run 09 -p seed=7`.
# ```
#
# ```{solution} ex-coverage-seed
# :class: dropdown
# Cells whose Monte Carlo interval holds a border of the band may change sides;
# cells whose interval lies wholly on one side should not. A verdict that hangs
# on such a cell changes with it, and its sentence too: it is computed. More
# studies, `n_simulations`, make the borders sharper.
# ```
#
# ```{exercise}
# :label: ex-coverage-which
# `simulate.sample` takes the correlations of labels and of scores apart. Which
# one makes intervals over images too narrow?
# ```
#
# ```{solution} ex-coverage-which
# :class: dropdown
# Mostly the two together. If only labels are alike, the scores of a patient's
# images are independent witnesses, given the labels. If only scores are alike,
# a patient seldom has several positive images of a rare finding: coverage
# suffers a little. Where a patient's images are ill together *and* shifted
# together, one patient is counted many times.
# ```
#
# ```{exercise}
# :label: ex-coverage-plan
# A finding has a prevalence of 2 %. Patients have three images each with a
# correlation of 0.6. How many images does a group need so that it has forty
# positive patients?
# ```
#
# ```{solution} ex-coverage-plan
# :class: dropdown
# Simulate labels: `y, _ = simulate.sample(patient, 0.8, 0.02, 0, 0.6, rng)`
# with `patient = simulate.patients(3000, 3)`. A thousand patients have 60
# positive images, on average from 47 patients. So about 2,500 images; with one
# image a patient, 2,000 would do.
# ```
#
# ```{exercise}
# :label: ex-coverage-chance
# Sixty studies, each with a true 95 % interval. How surprising would seven
# misses be?
# ```
#
# ```{solution} ex-coverage-chance
# :class: dropdown
# Three misses are expected; seven or more happen with probability
# `scipy.stats.binom.sf(6, 60, 0.05)`, about 0.03. Sixty studies can expose a
# badly broken interval, and cannot tell 93 % from 95 %: that takes about
# 2,000.
# ```
#
# ## Further reading
#
# - {cite:t}`efron1987`: where the bias-corrected interval comes from.
# - {cite:t}`hesterberg2015`: the bootstrap in small samples.
# - {cite:t}`obuchowski1997`: the AUC of patients with several images.
# - {cite:t}`boyd2013`: intervals for average precision.
# - {cite:t}`valliant2010`: how many witnesses a small or uneven sample has.
# - {cite:t}`varoquaux2022`: why results on medical images may not hold up.
# - {cite:t}`bouthillier2021`: what still varies with the same patients.
