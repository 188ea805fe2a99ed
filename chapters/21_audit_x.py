# ---
# jupyter:
#   chapter:
#     answers:
#       X 2.1: ''
#       X 2.4: ''
#       X 3.1: ''
#       X 3.3: fig-audit-floor
#       X Eq. 2: fig-audit-floor
#       X Eq. 3: fig-audit-floor
#       X Eq. 4: ''
#       X Fig. 3c: fig-audit-floor
#       X Fig. 3d: fig-audit-floor
#     goals:
#     - rebuild a cohort from its recipe, and say what does not fit
#     - simulate the noise floor of a gap before believing one
#     - name the definition behind a metric, and show two that disagree
#     needs:
#     - 03_fine_tuning
#     - 08_audit
# ---

# %% [markdown]
# # The audit of X: how large is a gap of nothing?
#
# *Answers sections 2.1, 2.4, 3.1 and 3.3 of {cite:t}`sun2025`, paper X, whose
# code is not public. Goes on where [Audit](08_audit) ends.*
#
# A committee has to choose between two models for the chest films of its
# hospital. One of them, says paper X, treats women and men less alike after it
# was fine-tuned: a gap of a few points, measured on a few hundred films. If
# the gap is real, the other model is the fairer one. If it is noise, the
# committee throws away the better model for nothing, and the patients whose
# disease it would have seen pay for that.
#
# **Can the cohort of X be rebuilt from its recipe, and how large would its
# gaps be for a classifier that is exactly fair?** X has no public code, but it
# gives recipe and exception precisely enough to be rebuilt, and its authors
# deserve thanks for that. Everything here is computed from open metadata, from
# numbers that the paper prints, and by simulation.

# %% tags=["parameters"]
seed: int = 1907  # [0, 1000000] of draws and simulations
n_draws: int = 20  # [1, 1000] draws of NIH 6x200
n_simulations: int = 1000  # [1, 100000] test sets of a fair classifier

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# The chapter needs the metadata of NIH ChestX-ray14, what X prints, and a
# stream of random numbers.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import nih6x200
from cxrlib.papers import audit, published
from cxrlib.show.notebook import figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import fmt, percent, readable, span
from cxrlib.stats import calibration, inference, metrics, simulate

# %%
nih = cohorts.load("nih-metadata").table
rng = np.random.default_rng(seed)
_ = rng.permutation(nih["patient_id"].unique())  # the stream of Audit goes on

# %% [markdown]
# ## The recipe, on the real metadata
#
# X balances six diseases over age and sex: as many young women as young men,
# old women and old men, each combination a *cell*. [Data
# curation](01_data_curation) rebuilds the recipe from the metadata; here are
# its results, anew.

# %%
recipe = nih6x200.cell_counts(nih)
drawn = nih6x200.draws(range(seed, seed + n_draws))  # split by image
by_patient = nih6x200.leakage(nih6x200.draw(seed, split="patient"))

# %% tags=["hide-input"]
beside = audit.recipe_beside_print(nih, recipe, drawn)
keep(audit.recipe_counts(nih, recipe))
show(beside, f"NIH 6x200: the paper and the metadata ({n_draws} draws)")

# %% tags=["remove-input"]
edema = beside.loc["old patients with edema alone, F / M"]
size = beside.loc["images / patients of the release"]
enough = recipe["satisfies"].sum()
leak, leak_ends = drawn["leakage"].mean(), span(drawn["leakage"], percent)
say(f"""
"Exactly one finding, and old from 60"
{"fits" if edema.nunique() == 1 else "does not fit"} the one exception that the
paper prints, so the rule is known. By it {enough} of {len(recipe)} findings
satisfy the criterion, so that "only six" does not follow from it. The counts
{size["paper X"]} belong to the eight-label predecessor of the release
{{cite:p}}`wang2017`.

A draw has about {drawn["patients"].mean():.0f} patients. If its 7:1:2 split
was made by image, as the text reads, {percent(leak)} of the test images
({leak_ends} from draw to draw) show a patient of the training part; split by
patient it is {percent(by_patient)}. A patient in both parts is recognised, not
diagnosed. And the balance ends with age and sex: AP films, mostly taken at the
bedside of patients who cannot stand, make up
{beside.loc["AP films, by disease", "metadata"]} of the films.
""")

# %% [markdown]
# ## How large is a gap of nothing?
#
# X prints gaps between women and men, and between old and young, on a test set
# of a few hundred images. Toss a fair coin ten times for each of two people,
# and their counts of heads will hardly be equal. So how large would X's gaps
# be for a classifier that is *exactly* fair? That is the *noise floor*.
#
# Take two such classifiers, both with the accuracy of X's best model and with
# wrong answers spread over the other diseases. One recognises every disease
# equally often ("even"), the other some nearly always and others rarely
# ("uneven"). Both treat the two groups alike: that is planted. Test them again
# and again on a balanced test set.

# %%
# the test set of X: 6 diseases x 2 groups x 20 images
CLASSES, PER_CELL = len(nih6x200.DISEASES), 20
best = published.table("X Fig. 2a").set_index("method")["value"]["full"]
RECALL = {
    "even": np.full(CLASSES, best),
    "uneven": best + np.linspace(-0.38, 0.38, CLASSES),
}
floors = {
    kind: simulate.fair_gaps(recall, PER_CELL, n_simulations, rng)
    for kind, recall in RECALL.items()
}
summary = pd.concat(
    {
        kind: floor.describe(percentiles=[0.05, 0.95]).T
        for kind, floor in floors.items()
    },
    names=["recall", "gap"],
)[["mean", "5%", "95%"]]
show(
    summary,
    f"Gaps of exactly fair classifiers on {n_simulations:,} test sets "
    "(Eq. 2 without its sign)",
    digits=3,
)

# %% tags=["remove-input"]
n_test = 2 * CLASSES * PER_CELL
kind, metric = summary["mean"].idxmin()
say(f"""
The test set has {n_test} images. The truth is zero in every row; the smallest
of the averages is {readable(metric)}, {kind} recall:
{summary["mean"].min():.3f}. The last two columns are percentiles: nine in ten
test sets lie between them.
""")

# %% [markdown]
# Now the printed gaps beside theirs. *p* is the share of test sets with a gap
# at least as large as the printed one, "fair below" the share with a smaller
# gap; each from the classifier with more of them. The last column corrects *p*
# for the number of comparisons (Holm's method, {cite:t}`holm1979`).

# %% tags=["hide-input"]
fig_3 = pd.concat([published.table("X Fig. 3c"), published.table("X Fig. 3d")])
printed = schema.rows(fig_3, metric=list(floors["even"])).reset_index()


def share_of_fair(metric, hits):
    """Share of test sets that hit; of the classifier with the larger one."""
    return max(
        (1 + hits(floor[metric]).sum()) / (1 + len(floor))
        for floor in floors.values()
    )


of_print = list(zip(printed["metric"], printed["value"], strict=True))
p = [share_of_fair(m, lambda gap, v=v: gap >= v) for m, v in of_print]
below = [share_of_fair(m, lambda gap, v=v: gap < v) for m, v in of_print]
printed = printed.assign(p=p, below=below, holm=inference.corrected(p, "holm"))
columns = ["metric", "attribute", "model", "method", "printed", "fair below"]
table = printed.rename(columns={"below": "fair below", "holm": "p, Holm"})
table["printed"] = [percent(v, 1) for v in printed["value"]]
table["fair below"] = printed["below"].map(percent)
what = "Gaps that X prints in its text, against an exactly fair classifier"
show(table[[*columns, "p", "p, Holm"]].reset_index(drop=True), what, digits=3)

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(4, 4))
alt = "Histograms of gaps, with short lines where X prints one. "
for axis, metric in zip(axes, ("f1_gap_signed", "eq_odds_mean"), strict=True):
    even, uneven = (100 * floor[metric] for floor in floors.values())
    lines = 100 * schema.rows(printed, metric=metric)["value"]
    bins = np.linspace(0, max(even.max(), uneven.max()), 31)
    axis.hist(even, bins, color="#B8CFE0", label="fair, even recall")
    style = {"histtype": "step", "color": "#0072B2"}
    axis.hist(uneven, bins, label="fair, uneven recall", **style)
    top, style = 0.35 * axis.get_ylim()[1], {"color": "#D55E00", "lw": 2}
    axis.vlines(lines, 0, top, label="printed in X", **style)
    axis.set(xlabel=f"{readable(metric)} (%)", ylabel="test sets")
    axis.set_xlim(0, None)
    alt += f"{readable(metric)} in per cent: fair {span(even, digits=1)} with "
    alt += f"even recall, printed {span(lines, digits=1)}. "
axes[0].legend(loc="upper right")
figure(
    "fig-audit-floor",
    f"Gaps of exactly fair classifiers on {n_test} test images, with even "
    "(filled) and uneven recall (outlined), and the gaps that X prints (short "
    "lines).",
    alt=alt,
    table=pd.concat(floors, names=["recall", "test set"]).reset_index(),
)

# %% tags=["remove-input"]
even = floors["even"]
f1, odds = even["f1_gap_signed"], even["eq_odds_mean"]
alarms, beyond = (printed["p"] < 0.05).sum(), (printed["holm"] < 0.05).sum()
say(f"""
Read {{numref}}`fig-audit-floor` so: a short line inside the histogram is a gap
that a fair classifier shows too. At an accuracy of {percent(best, 1)}, that of
X's best model, an exactly fair classifier shows an F1 gap of
{percent(f1.mean(), 1)} on average and of {percent(f1.quantile(0.95), 1)} in
one test set out of twenty. Its equalised odds (Eq. 3) average
{percent(odds.mean(), 1)}. Of the {len(printed)} gaps that X prints, {alarms}
{"exceeds" if alarms == 1 else "exceed"} what 95 % of fair classifiers show;
when the number of comparisons is accounted for, {beyond} still
{"does" if beyond == 1 else "do"}. The largest is
{percent(printed["value"].max(), 1)}.
""")

# %% tags=["remove-input"]
quiz(
    f"A model's F1 gap between women and men is {percent(f1.mean(), 1)} on "
    f"{n_test} images. Is the model fair?",
    {
        "Yes: fair classifiers show as much.": (
            False,
            "That the gap could be noise does not make it noise. A model with "
            "a real gap of that size would look just the same.",
        ),
        "No: the gap is not 0.": (
            False,
            "An exactly fair classifier shows such a gap on average, on a "
            "test set of that size.",
        ),
        "The test set is too small to say.": (
            True,
            "On so few images, fair and unfair look alike. More images shrink "
            "the noise floor, not the gap of an unfair model.",
        ),
    },
)

# %% tags=["remove-input"]
of_odds = schema.rows(printed, metric="eq_odds_mean")
least = min(floor["eq_odds_mean"].quantile(0.05) for floor in floors.values())
say(f"""
A puzzle remains. Of the printed equalised odds,
{(of_odds["below"] < 0.05).sum()} of the {len(of_odds)} lie *below* what 95 %
of fair classifiers show ({percent(least, 1)} and more). With {PER_CELL} images
of a disease in a group, a single image moves a true positive rate by
{100 / PER_CELL:.0f} percentage points, so a mean of absolute differences is
hardly ever that small. A classifier that answers few diseases only would come
closer; so would an average over more images, or differences taken with their
sign. The paper does not say.
""")

# %% [markdown]
# ## One name, several meanings
#
# **Equalised odds** has three definitions in use. X (Eq. 3) takes the mean of
# all gaps in true and false positive rate, fairlearn the larger of the two,
# and FairMedFM {cite:p}`jin2024` one minus the gap, so that 1 is fair. One
# pair of groups, one disease, and rates that we make up:

# %%
# suppose a true positive rate and a false positive rate of each sex
women = np.array([0.80]), np.array([0.10])
men = np.array([0.60]), np.array([0.06])
mean_gap = metrics.eq_odds_mean(women, men)
three = {
    "X, Eq. 3: mean of the two gaps": mean_gap,
    "fairlearn: larger gap": metrics.eq_odds_max(women, men),
    "FairMedFM: 1 - gap": 1 - mean_gap,
}
show(
    pd.Series(three, name="value").rename_axis("definition").reset_index(),
    "One pair of groups, three values of equalised odds",
)

# %% [markdown]
# None of the three is wrong. A table that says "equalised odds" and not which
# has three readings.
#
# **Eq. 4** of X is named a gap of expected calibration error. It compares mean
# $|p - o|$, without bins. Two groups can both be perfectly calibrated and
# differ in it, if one is easier to predict:

# %%
sure, unsure = np.full(10, 0.9), np.full(10, 0.6)
ill_sure, ill_unsure = (np.arange(10) < n for n in (9, 6))
ill_sure, ill_unsure = ill_sure.astype(int), ill_unsure.astype(int)
eq_4 = metrics.calibration_gap_eq4(sure, ill_sure, unsure, ill_unsure)
binned = [
    calibration.ece_equal_width(ill_sure, sure),
    calibration.ece_equal_width(ill_unsure, unsure),
]

# %% tags=["remove-input"]
absolute = even["f1_gap_absolute"].mean()
say(f"""
Of the patients to whom the model says {sure[0]:.1f}, nine in ten are ill; of
those to whom it says {unsure[0]:.1f}, six in ten are. Nobody could ask for
more. The binned errors are {fmt(binned[0])} and {fmt(binned[1])}, and Eq. 4
gives {eq_4:.2f}. **Eq. 2** takes no absolute values, so gaps of opposite sign
cancel: without its sign it averages {percent(f1.mean(), 1)} in the simulation
above, and with an absolute value in each disease {percent(absolute, 1)}. In
this book a metric always carries the name of its definition.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# Three times a truth of exactly zero was planted: two groups that a classifier
# treats alike, two groups with perfect calibration, and in
# [Audit](08_audit) one and the same test at two prevalences. What the metrics
# made of it:

# %% tags=["hide-input"]
of_test = [
    [
        simulate.population(auc, share)["adjusted_auprc"]
        for share in (0.04, 0.07)
    ]
    for auc in (0.6, 0.7, 0.8, 0.9, 0.95)
]
by_prevalence = np.diff(of_test).max()
ece_gap = abs(binned[0] - binned[1])
none = [
    ("groups treated alike", readable("f1_gap_signed"), f1.mean()),
    ("groups treated alike", readable("eq_odds_mean"), odds.mean()),
    (
        "one test, two prevalences",
        "difference in adjusted AUPRC",
        by_prevalence,
    ),
    ("two calibrated groups", readable("calibration_gap_eq4"), eq_4),
    ("two calibrated groups", "difference in binned ECE", ece_gap),
]
none = pd.DataFrame(none, columns=["planted", "metric", "what it says"])
show(none, "Where the truth is zero: what each metric says", digits=3)

# %% tags=["remove-input"]
told = none.loc[none["what it says"].abs() < 0.0005, "metric"]
say(f"""
Metrics that find the planted zero: {len(told)} of {len(none)}
({", ".join(told) or "none"}). The others are not wrong, they measure something
besides the thing in their name: the size of the test set, the prevalence, how
hard a group is to predict.

## The register

The entries of X in the register of [Audit](08_audit), with what was computed
here:
""")

# %% tags=["hide-input"]
view = drawn.filter(like="AP ").mean()
register = audit.register(
    "X",
    satisfying=enough,
    findings=len(recipe),
    size_said=size["paper X"],
    size=size["metadata"],
    leak=percent(leak),
    least_ap=percent(view.min()),
    most_ap=percent(view.max()),
    beyond=beyond,
    gaps=len(printed),
)
show(register.drop(columns="paper"), "The register of the audit: X")

# %% [markdown]
# ## Limits
#
# - The noise floor stands on two made-up classifiers. X's models may spread
#   their errors otherwise, and with them the floor moves.
# - X could be audited less deeply than S because it published less. What is
#   not stated may have been done well.
# - A draw of NIH 6x200 is one of many that the recipe allows; the paper's own
#   is not public.
# - That a gap lies within its floor does not show that a model is fair.

# %% tags=["remove-input"]
in_short(
    f"""
Does the recipe of X fit the open metadata, and are its gaps more than chance?
By the rule of X, {enough} findings have enough films and not six; a split by
image would put patients of {percent(leak)} of the test images into training.
Planted: classifiers that are exactly fair. On {n_test} test images they show
an F1 gap of {percent(f1.mean(), 1)} on average. X prints {len(printed)} gaps
of up to {percent(printed["value"].max(), 1)}; beyond what fair classifiers
show, after correction: {beyond}.
""",
    figure="fig-audit-floor",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-audit-accuracy
# The noise floor assumes the accuracy of X's best model. How large is the F1
# gap of a fair classifier with a zero-shot accuracy of 30 %? How large with
# ten times as many test images? Predict which of the two matters more, then
# compute both.
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-audit-accuracy
# :class: dropdown
# ````

# %% tags=["solution"]
answer = pd.DataFrame(index=[percent(0.3), percent(best, 1)])
for n in (PER_CELL, 10 * PER_CELL):
    floor = [
        simulate.fair_gaps([accuracy] * CLASSES, n, 100, rng)
        for accuracy in (0.3, best)
    ]
    of_size = [gaps["f1_gap_signed"].mean() for gaps in floor]
    answer[f"{2 * CLASSES * n:,} images"] = of_size
answer = answer.rename_axis("accuracy")
show(answer, "Mean F1 gap of a fair classifier", digits=3)

# %% tags=["remove-input", "solution"]
few, many = answer.to_numpy().T
by_accuracy, by_size = few.max() / few.min(), (few / many).mean()
more = "the number of images" if by_size > by_accuracy else "the accuracy"
say(f"""
The accuracy changes the floor by a factor of {by_accuracy:.1f}, ten times the
images by a factor of {by_size:.1f}: what matters more is {more}. Theory says
that the floor falls with the square root of the number of images, whose factor
would be $\\sqrt{{10}} \\approx 3.2$.
""")

# %% [markdown] tags=["solution"]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-audit-eq4
# Eq. 4 can differ between two calibrated groups. Can it be 0 although one of
# two groups is badly calibrated? Suppose that the first group is told 0.9 and
# nine in ten of it are ill, and find a second one.
# ```
#
# ```{solution} ex-audit-eq4
# :class: dropdown
# In the first group $|p - o|$ is 0.1 for nine and 0.9 for one, on average
# 0.18. Tell everybody in the second group 0.18 and let nobody be ill: the mean
# is 0.18 too, and Eq. 4 gives 0. Yet the second group is told of a risk that
# does not exist. A metric that is 0 has to be asked what its 0 means.
# ```
#
# ```{exercise}
# :label: ex-audit-simulations
# Run the chapter with `n_simulations=100`. Which is the smallest *p* that a
# gap can have? Could one of ten gaps still pass Holm's correction?
# ```
#
# ```{solution} ex-audit-simulations
# :class: dropdown
# The smallest is $1 / 101$, when no fair test set shows as much. Holm
# multiplies it by ten, which makes 0.099, more than 0.05: no gap can pass,
# however large. Whoever corrects for many needs more simulations.
# ```
#
# ## Further reading
#
# - {cite:t}`bouthillier2021`: where the variance of a benchmark comes from,
#   and how to account for it.
# - {cite:t}`hardt2016`: equalised odds as first defined, for one decision and
#   two groups.
# - {cite:t}`jin2024`: a benchmark of fairness in medical imaging, with
#   definitions of its own.
