# ---
# jupyter:
#   chapter:
#     answers:
#       S 3.3: ''
#       S Fig. 4c: fig-calibration-cosine
#     goals:
#     - read a reliability curve, and say why AUC cannot replace it
#     - repair probabilities with a temperature or with Platt scaling, and name what
#       no scale repairs
#     - tell for which groups a calibrated model is calibrated, and what biased labels
#       do to that answer
#     needs:
#     - 02_zero_shot
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # Calibration: does 30 percent mean 30 percent?
#
# *Answers section 3.3 of {cite:t}`sourget2025`, paper S, and its Fig. 4c.*
#
# A model can put the sick above the healthy and still be useless at the bedside. Imagine a clinician
# who reads "pneumothorax: 0.52". Should she walk or run? She needs probabilities that keep their word:
# of a hundred films that are given 30 %, thirty should show the disease. If they promise too much, she
# learns to ignore the alarm. If they promise too little for one kind of patient, say women, it is
# always the same people who are sent home with air around the lung.
#
# Paper S draws calibration curves for pneumothorax and finds all models miscalibrated, three of them
# with every probability near 0.5. This chapter shows where such a squeeze comes from, repairs what can
# be repaired with one line of logistic regression, and then asks for whom the repaired probabilities
# are true. One of the small CLIPs of this book, *phantom-resnet-underreport*, was trained on reports that
# leave out most of the findings of women.

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models` separated by commas, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "all"}, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohorts and of the resamples
n_images: int = 4000  # [60, 1000000] images in the phantom cohort; real cohorts are taken whole
n_bins: int = 10  # [1, 1000] bins of reliability curves
specificity: float = 0.8  # (0, 1) share of healthy films that the operating point leaves alone
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} models, resampling and prompt of S's code

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts import phantom
from cxrlib.cohorts.metadata import S_FINDINGS
from cxrlib.models import load_models, model_names
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import interactive
from cxrlib.show.notebook import (
    asked,
    figure,
    glue,
    keep,
    quiz,
    setup,
    show,
    warn_if_seeded,
    withheld,
)
from cxrlib.show.plots import gap_forest, reliability
from cxrlib.show.words import (
    UNDEFINED,
    fmt,
    fmt_row,
    in_words,
    percent,
    readable,
)
from cxrlib.stats import calibration, fairness

setup()
chosen = protocol_of(protocol)
# Both readings of a similarity are shown, so that the learned scale is wanted whatever the protocol.
with_scale = replace(chosen, temperature="learned")
clips = load_models(models, with_scale)
names = [clip.name for clip in clips]
biased = [m for m in names if m.endswith("-underreport")]
others = [m for m in names if m not in biased]
fair = [m for m in others if m in model_names()]  # of the same making as the biased one
LABEL = "Pneumothorax"
# a group with few cases gets no number, whichever the protocol
fewest = protocol_of("corrected").min_cases
boot = {"n_resamples": n_resamples, "seed": seed, "protocol": replace(chosen, min_cases=fewest)}
WHERE = {"above": "above 0", "below": "below 0", "around": "including 0"}
NO_BIASED, NO_OTHER = "no such model was run", "no other model was run"
warn_if_seeded(names)


def against_zero(row):
    side = schema.side(row)
    return UNDEFINED if side == UNDEFINED else f"{fmt_row(row, 3, signed=True)}, {WHERE[side]}"


def each(models, text, none):
    return "; ".join(f"{m}: {text(m)}" for m in models) or none


def mean_row(table, **where):
    return schema.row(table, label="mean", **where)


def share(which):
    """How many of the models it holds for, of those for which it is defined."""
    known = which.dropna().astype(bool)
    return f"{known.sum()} of {len(known)}" if len(known) else UNDEFINED


# %% [markdown]
# ## Two readings of one similarity
#
# How does a CLIP model come to a probability? It compares the film with two phrases, "Chest {label}" and
# "Chest No Findings", and its answer is the softmax over the two similarities $s_+$ and $s_-$. These are
# cosines of the angle between two embeddings, and only their difference counts:
#
# $$ p = \frac{1}{1 + e^{-\tau (s_+ - s_-)}} $$ (eq-calibration-softmax)
#
# CLIP models learn the factor $\tau$, the *logit scale*, together with everything else; it is usually far
# above 1. According to its public code, S applies it for MedCLIP and MedImageInsight and not for the other four models.
# Leaving it out is the same as $\tau = 1$. Here are both readings, for the same embeddings.

# %%
prepared = chosen.preprocessing
test = cohorts.study(data, n_images, seed, options, preprocessing=prepared)
asked(test.name, test.findings, [LABEL])
findings = asked(test.name, test.findings, S_FINDINGS)
elsewhere = {key: value for key, value in options.items() if key != "split"}
if "n_images" in elsewhere:
    elsewhere["n_images"] //= 2
valid = cohorts.study(data, n_images // 2, seed, elsewhere, split="valid", preprocessing=prepared)
# Where the options take in the validation patients, they are left out of the test.
shared = test.table["patient_id"].isin(valid.table["patient_id"])
if shared.all():
    raise ValueError(
        f"cohort {test.name!r}: all its patients are in the validation split, so that none is left "
        "to be tested; choose another split, or give the table a column 'split'"
    )
READINGS = {"cosine only": "as_published", "learned scale": "corrected"}


def both_readings(cohort):
    parts = []
    for reading, which in READINGS.items():
        temperature = protocol_of(which).temperature
        scores = zeroshot.predict(
            cohort, clips, findings, negative=chosen.negative_prompt, temperature=temperature
        )
        parts.append(scores.assign(method=reading))
    return pd.concat(parts, ignore_index=True)


tested = test.table[~shared]
predictions = both_readings(test)
predictions = predictions[predictions["image_id"].isin(tested["image_id"])]
if shared.any():
    predictions = predictions.assign(cohort=f"{test.name} (part)")
pneumothorax = predictions[predictions["label"] == LABEL]


def curves_of(table):
    """Reliability curves; where patients are protected, without the bins that hold few of them."""
    curves = calibration.reliability_table(table, n_bins, **boot)
    curves["n_negative"] = curves["n"] - curves["n_positive"]
    numbers = ["predicted", "observed", "ci_low", "ci_high"]
    by = ["model", "method", "label"]
    return guard.suppress(curves, guard.COUNTS, numbers, by).dropna(subset="n")


curves = curves_of(pneumothorax)

# %% [markdown]
# A **reliability curve** (S calls it calibration curve) sorts the films into {glue:text}`n-bins` bins by
# their probability and plots, for each bin, how often the disease was there. On the diagonal,
# probabilities keep their word. A point below it promises more disease than there is. The lower panel
# counts the films: a curve without it hides where nobody is. The films are the {glue:text}`n-test:,d` of
# the cohort *{glue:text}`cohort`*. First the cosines alone:


# %% tags=["hide-input"]
def draw(curves, label, caption):
    """One reliability figure, or a note that its bins hold too few films to be shown."""
    if curves.empty:
        withheld("curves through bins of so few films")
        return
    reliability(curves)
    ends = []
    for model, curve in curves.sort_values("predicted").groupby("model", sort=False):
        places = [f"{fmt(at['observed'])} at {fmt(at['predicted'])}" for _, at in curve.iterrows()]
        ends.append(f"{model} from {places[0]} to {places[-1]}")
    figure(
        label,
        caption=f"{caption} Above: observed frequency of pneumothorax by predicted probability, with 95 % intervals. Below: films in each bin.",
        alt="Observed frequency against mean predicted probability, one line per model, beside a dashed "
        f"diagonal, and below the films in each bin. Observed at predicted: {'; '.join(ends)}.",
        table=curves,
    )


draw(
    curves[curves["method"] == "cosine only"],
    "fig-calibration-cosine",
    "Reliability of the cosines alone (S, Fig. 4c).",
)

# %% [markdown]
# All points stand between {glue:text}`strip-cosine` on the horizontal axis, while the disease is observed
# in {glue:text}`seen-cosine` of the films of a bin. Of the points, {glue:text}`below-cosine` lie below the
# diagonal with their whole interval. A whisker that spans the figure stands over a bin with hardly any
# film.
#
# And now the same films with the scale that each model learned:

# %% tags=["hide-input"]
draw(
    curves[curves["method"] == "learned scale"],
    "fig-calibration-learned",
    "Reliability with the learned logit scale.",
)

# %% [markdown]
# The points now stand between {glue:text}`strip-learned`, and {glue:text}`below-learned` lie below the
# diagonal. The other findings, one model at a time if the lines are too many:

# %% tags=["hide-input"]
interactive.reliability(
    curves_of(predictions), "Explore: reliability by finding, model and reading of the similarity"
)

# %% [markdown]
# The smallest and the largest probability, model by model:

# %% tags=["hide-input"]
# A single extreme is one patient's number; where that may not be shown, ten are averaged.
together = guard.MIN_CELL if guard.active() else 1


def lowest(score):
    return np.sort(score)[:together].mean()


def highest(score):
    return np.sort(score)[-together:].mean()


ranges = pneumothorax.groupby(["model", "method"], sort=False)["score"].agg([lowest, highest])
ranges = ranges.unstack("method")
ranges = pd.DataFrame(
    {
        "logit scale": [clip.logit_scale for clip in clips],
        **{
            reading: [
                f"{fmt(ranges.loc[m, ('lowest', reading)])} to "
                f"{fmt(ranges.loc[m, ('highest', reading)])}"
                for m in names
            ]
            for reading in READINGS
        },
    },
    index=pd.Index(names, name="model"),
)
ends = (
    "Smallest and largest probability"
    if together == 1
    else "Means of the ten smallest and ten largest probabilities"
)
show(ranges, caption=f"{ends} of pneumothorax", digits=1, counts=())


# %% tags=["remove-cell"]
def strip(points, column, text=fmt):
    """Between what ends the points of a reliability figure lie."""
    if points.empty:
        return UNDEFINED
    return f"{text(points[column].min())} and {text(points[column].max())}"


def below_diagonal(points):
    return share((points["ci_high"] < points["predicted"]).where(points["ci_high"].notna()))


for key, method in (("cosine", "cosine only"), ("learned", "learned scale")):
    points = curves[curves["method"] == method]
    glue(f"strip-{key}", strip(points, "predicted"))
    glue(f"seen-{key}", strip(points, "observed", percent).replace(" and ", " to "))
    glue(f"below-{key}", below_diagonal(points))
glue("n-bins", str(n_bins))
glue("cohort", test.name)
glue("n-test", len(tested))
floor, ceiling = 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))
glue("floor", fmt(floor))
glue("ceiling", fmt(ceiling))
cosine = pneumothorax[pneumothorax["method"] == "cosine only"]
scaled = pneumothorax[pneumothorax["method"] == "learned scale"]
glue("ends", "" if together == 1 else " (means of ten films each)")
glue("cosine-low", fmt(lowest(cosine["score"])))
glue("cosine-high", fmt(highest(cosine["score"])))
glue("scaled-low", fmt(lowest(scaled["score"])))
glue("scaled-high", fmt(highest(scaled["score"])))
inside = cosine["score"].between(floor, ceiling).all()
long_texts = [clip.name for clip in clips if not clip.members[0].unit_text]
glue(
    "bound-kept",
    "inside the bound"
    if inside
    else f"outside the bound, since the texts of {', '.join(long_texts)} are not of length 1"
    if long_texts
    else "outside the bound, which cannot be",
)

# %% [markdown]
# The squeeze is built in. A cosine lies between $-1$ and $1$, so the difference of two lies between
# $-2$ and $2$, and the sigmoid of that lies between {glue:text}`floor` and {glue:text}`ceiling`. No
# film, however clear, can leave this band. Where embeddings are never opposite, the band is narrower
# still: over all models, probabilities run from {glue:text}`cosine-low` to
# {glue:text}`cosine-high`{glue:text}`ends`, {glue:text}`bound-kept`. With the learned scale they run from
# {glue:text}`scaled-low` to {glue:text}`scaled-high`.
#
# So "all probabilities around 0.5" can be a property of the recipe and not of a model. Of the three
# models of which S says it, this explains CheXzero and CXR-CLIP, whose scale was left out. It does not
# explain MedCLIP, whose scale was applied.
#
# ## The ranking does not notice
#
# Multiplying by a positive number keeps the order of the films, and AUC sees only the order.

# %%
measures = ("auc", "brier", "ece_equal_width", "ece_equal_mass", "calibration_in_the_large")
quality = fairness.performance_table(pneumothorax, measures, **boot)
auc = quality[quality["metric"] == "auc"].pivot(index="model", columns="method", values="value")
difference = (auc["learned scale"] - auc["cosine only"]).abs().max()
show(auc.loc[names].reset_index(), caption="AUC for pneumothorax under both readings", digits=4)

# %% tags=["remove-cell"]
known = not np.isnan(difference)
glue("auc-change", f"{difference:.1g}" if known else UNDEFINED)
glue(
    "auc-same",
    "undefined, for want of films,"
    if not known
    else "unchanged up to rounding"
    if difference < 1e-6
    else "changed by more than rounding",
)

# %% [markdown]
# The largest difference over the models is {glue:text}`auc-change`: AUC is {glue:text}`auc-same`. A model
# can have an acceptable AUC and useless probabilities, as S found.

# %% tags=["remove-input"]
highest_cosine = cosine.groupby("model")["score"].apply(highest)
quiz(
    "Without the scale, a model gives 0.55 to the film of which it is most certain. What follows?",
    {
        "It cannot tell the sick from the healthy": (
            False,
            "The order of the films can be perfect, however narrow the band. Here the largest "
            f"probabilities lie between {fmt(highest_cosine.min())} and {fmt(highest_cosine.max())}, and "
            f"AUC between {fmt(auc['cosine only'].min())} and {fmt(auc['cosine only'].max())}.",
        ),
        "55 of 100 such films show the disease": (
            False,
            "That would be so if the model were calibrated. A cosine says how alike a film and a phrase "
            "are, not how frequent a disease is.",
        ),
        "Neither: look at the curve, and at AUC": (
            True,
            "AUC judges the order, the curve judges the size. The one says nothing about the other.",
        ),
    },
)

# %% [markdown]
# ## How far off?
#
# Three numbers, each with its own idea of "off".
#
# - **ECE**, the expected calibration error: the mean distance between predicted and observed over the
#   bins. With bins of *equal width*, most may be empty; with bins of *equal mass*, each holds as many
#   films.
# - **Brier score**: the mean squared distance between probability and outcome. It rewards being
#   right as well as being honest. Always announcing the prevalence $\pi$ scores $\pi (1 - \pi)$.
# - **Calibration in the large**: mean predicted probability minus observed frequency. Above 0, the
#   model sees too much disease.

# %%
off = quality[quality["metric"] != "auc"]
show(
    schema.wide(off, index=["model", "method"], columns="metric").rename(columns=readable),
    caption="Calibration for pneumothorax with 95 % intervals over patients",
)

# %% tags=["remove-cell"]
ill = cosine.loc[cosine["model"] == names[0], "y_true"]
prevalence = ill.mean() if not guard.active() or ill.sum() >= guard.MIN_CELL else np.nan
constant = prevalence * (1 - prevalence)
glue("prevalence", percent(prevalence))
glue("half-gap", fmt(abs(0.5 - prevalence)))
glue("constant", fmt(constant, 3))


def numbers(method, metric):
    found = quality[(quality["method"] == method) & (quality["metric"] == metric)]
    return found.set_index("model")


def count_above(method, metric, limit=0.0):
    sides = numbers(method, metric).apply(schema.side, of=limit, axis=1)
    return share((sides == "above").where(sides != "undefined"))


def span(method, metric):
    values = numbers(method, metric)["value"].dropna()
    return f"{fmt(values.min())} to {fmt(values.max())}" if len(values) else UNDEFINED


for key, method in (("cosine", "cosine only"), ("learned", "learned scale")):
    glue(f"ece-{key}", span(method, "ece_equal_mass"))
    glue(f"over-{key}", count_above(method, "calibration_in_the_large"))
    glue(f"worse-{key}", count_above(method, "brier", constant))

# %% [markdown]
# {glue:text}`prevalence` of the films show a pneumothorax. Whoever says 0.5 to every film is off by
# {glue:text}`half-gap`, and has a Brier score of 0.25. The equal-mass ECE of the cosines alone runs over the models from
# {glue:text}`ece-cosine`, that of the learned scale from {glue:text}`ece-learned`. The Brier score is
# above {glue:text}`constant`, the score of a constant that knows the prevalence, for
# {glue:text}`worse-cosine` models without the scale and for {glue:text}`worse-learned` with it.
#
# Models that overestimate the risk on average: {glue:text}`over-cosine` without the scale,
# {glue:text}`over-learned` with it. A softmax between two phrases starts from even odds. Nothing in it
# says how rare the disease is.

# %% [markdown]
# ### The two protocols
#
# Side by side: *as published*, which is what S's code does for four of its six models (cosines alone,
# images resampled), and *corrected* (learned scale, patients resampled).

# %%
switched = []
for reading, which in READINGS.items():
    p = protocol_of(which)
    scored = pneumothorax[pneumothorax["method"] == reading].assign(method="zero-shot")
    resampling = boot | {"protocol": replace(p, min_cases=fewest)}
    found = fairness.performance_table(scored, measures, **resampling)
    switched.append(found.assign(protocol=p.name))
switched = pd.concat(switched, ignore_index=True)
keep(switched)
shown = switched[switched["metric"].isin(["ece_equal_mass", "brier"])]
show(
    schema.wide(shown, index=["metric", "model"], columns="protocol").rename(
        index=readable, columns=readable
    ),
    caption="Calibration for pneumothorax under both protocols",
)

# %% tags=["remove-cell"]
by_protocol = shown.pivot(index=["metric", "model"], columns="protocol", values="value")
change = by_protocol["corrected"] - by_protocol["as_published"]
for metric in ("ece_equal_mass", "brier"):
    glue(f"switch-{metric}", share((change[metric] < 0).where(change[metric].notna())))

# %% [markdown]
# The switch from as published to corrected lowers the equal-mass ECE of
# {glue:text}`switch-ece_equal_mass` models and the Brier score of {glue:text}`switch-brier`.

# %% [markdown]
# ## Repair with one line
#
# A logistic regression of the outcome on $s_+ - s_-$, fitted on other patients, gives the probabilities
# a meaning:
#
# $$ p = \frac{1}{1 + e^{-(a (s_+ - s_-) + b)}} $$ (eq-calibration-platt)
#
# There are two forms: *temperature* {cite:p}`guo2017` fits the
# scale $a$ alone, with $b = 0$; *Platt* scaling {cite:p}`platt1999` fits the scale and the shift $b$, and
# the shift can learn the prevalence. The films for fitting come from the validation patients, none of
# whom is in the test cohort.

# %%
fitting = both_readings(valid)


def margin(table):
    """The difference of similarities, from the probability of the cosines alone."""
    return np.log(table["score"] / (1 - table["score"])).to_numpy()[:, None]


def recalibrate(applied, fitted, by=(), intercept=True):
    """Probabilities of a logistic regression for each model and label, and group if asked."""
    keys = ["model", "label", *by]
    known = dict(list(fitted[fitted["method"] == "cosine only"].groupby(keys)))
    parts = []
    for key, block in applied[applied["method"] == "cosine only"].groupby(keys, sort=False):
        if key not in known:  # nobody of this group to fit on
            continue
        y = known[key]["y_true"]
        if y.nunique() < 2:  # the limit of the fit where only one outcome was seen
            parts.append(block.assign(score=float(y.mean()), slope=np.nan, shift=np.nan))
            continue
        fit = LogisticRegression(C=np.inf, fit_intercept=intercept).fit(margin(known[key]), y)
        p = fit.predict_proba(margin(block))[:, 1]
        shift = fit.intercept_[0] if intercept else 0.0
        parts.append(block.assign(score=p, slope=fit.coef_[0, 0], shift=shift))
    return pd.concat(parts, ignore_index=True)


temperature = recalibrate(predictions, fitting, intercept=False).assign(method="temperature")
platt = recalibrate(predictions, fitting).assign(method="Platt")

# %% tags=["hide-input"]
fits = pd.DataFrame({"learned scale": [c.logit_scale for c in clips]}, index=names)
for what, fitted in (("temperature", temperature), ("Platt", platt)):
    once = fitted[fitted["label"] == LABEL].drop_duplicates("model").set_index("model")
    fits[f"{what}: scale"] = once["slope"]
fits["Platt: shift"] = once["shift"]
show(
    fits.rename_axis("model"),
    caption="Scales of the cosine difference, for pneumothorax",
    digits=1,
    counts=(),
)

# %%
repaired = pd.concat([temperature, platt])
repaired = repaired[repaired["label"] == LABEL].drop(columns=["slope", "shift"])
after = fairness.performance_table(repaired, measures, **boot)
quality = pd.concat([quality, after], ignore_index=True)
off = after[after["metric"] != "auc"]
show(
    schema.wide(off, index=["model", "method"], columns="metric").rename(columns=readable),
    caption="Calibration for pneumothorax after fitting on validation patients",
)

# %% tags=["hide-input"]
mended = curves_of(repaired[repaired["method"] == "Platt"])
draw(mended, "fig-calibration-platt", "Reliability after Platt scaling on other patients.")

# %% tags=["remove-cell"]
glue("strip-platt", strip(mended, "predicted"))
glue("below-platt", below_diagonal(mended))
glue("n-valid", len(valid.table))
glue("n-shared", len(set(valid.table["patient_id"]) & set(tested["patient_id"])))
glue("ece-temperature", span("temperature", "ece_equal_mass"))
glue("ece-platt", span("Platt", "ece_equal_mass"))
glue("over-temperature", count_above("temperature", "calibration_in_the_large"))
glue("worse-platt", count_above("Platt", "brier", constant))
shift = fits["Platt: shift"]
glue("n-negative", share((shift < 0).where(shift.notna())))
ece = {m: numbers(m, "ece_equal_mass")["value"] for m in ("Platt", "learned scale")}
change = ece["Platt"] - ece["learned scale"]
turned = list(fits.index[fits["Platt: scale"] < 0])
refitted = after[(after["metric"] == "auc") & (after["method"] == "Platt")]
moved = (refitted.set_index("model")["value"] - auc["cosine only"]).abs().max()
glue(
    "auc-refitted",
    f"The fitted scale is negative for {', '.join(turned)}, which turns the order of the films round"
    if turned
    else "AUC has not moved"
    if moved < 1e-6
    else "AUC has moved, which a positive scale cannot do"
    if moved >= 1e-6
    else f"AUC is {UNDEFINED}, for want of films",
)
glue("platt-lowers", share((change < 0).where(change.notna())))

# %% [markdown]
# Fitted on {glue:text}`n-valid:,d` films of other patients ({glue:text}`n-shared` patients shared), the
# equal-mass ECE runs over the models from {glue:text}`ece-temperature` with a fitted temperature and from
# {glue:text}`ece-platt` with Platt scaling, which brings it below that of the learned scale for
# {glue:text}`platt-lowers` models. In the figure, points stand between {glue:text}`strip-platt`, and
# {glue:text}`below-platt` lie below the diagonal. The Brier score is above that of the constant that knows
# the prevalence for {glue:text}`worse-platt` models.
#
# With a temperature alone, {glue:text}`over-temperature` models overestimate the risk on average: a scale
# can spread probabilities around one half, and cannot move the middle. A negative shift moves it down; it
# is how the fit says that a disease is rarer than even odds, which the two phrases did not know. Models
# with a negative shift: {glue:text}`n-negative`.
#
# {glue:text}`auc-refitted`, and no model has learned anything about chests. What was repaired is a scale.

# %% tags=["remove-input"]
quiz(
    "After Platt scaling, mean prediction and observed frequency agree over all patients. For a woman "
    "who is told 30 %, is the risk 30 %?",
    {
        "Yes, the model is calibrated": (
            False,
            "It was fitted on women and men together. It may promise too little to the ones and too much "
            "to the others, and be right on average.",
        ),
        "Not known before women are looked at by themselves": (
            True,
            "That is the next section. And even within women it may be right on average and wrong at 30 %.",
        ),
    },
)

# %% [markdown]
# ## Calibrated for whom?
#
# An average over all patients can be right while two groups are wrong in opposite directions. So the
# same question is put to each group: mean predicted probability minus observed frequency, after Platt
# scaling on all validation patients together.


# %%
def by_age(table):
    """Age in two groups that are large in most cohorts: "old" from 60; missing where it is."""
    old = pd.Series(np.where(table["age"] >= 60, "old", "young"), table.index)
    return table.assign(age60=old.where(table["age"].notna()))


GROUPED = {"sex": None, "race": None, "site": None}  # None: all groups
if not test.planted:
    GROUPED = {"sex": None, "age60": None}
    if "race" in test.attributes:  # the groups of S
        GROUPED["race"] = [r for r in ("White", "Black", "Asian") if (tested["race"] == r).any()]
attributes = by_age(tested)[["image_id", *GROUPED]]
platt = platt.merge(attributes, on="image_id")
by_group = fairness.performance_table(
    platt, ("calibration_in_the_large",), attributes=GROUPED, **boot
)

# %% tags=["hide-input"]
in_group = platt[platt["label"] == LABEL].groupby(["model", "sex"], sort=False)
table = in_group.agg(
    films=("score", "size"), observed=("y_true", "mean"), predicted=("score", "mean")
)
rows = by_group[(by_group["label"] == LABEL) & (by_group["attribute"] == "sex")]
rows = rows.set_index(["model", "group"]).rename_axis(["model", "sex"])
if guard.active():  # no counts, whose sum would tell how many have no sex recorded
    table = table.drop(columns="films").where(rows["value"].notna())
table["predicted - observed"] = rows.apply(fmt_row, axis=1, digits=3, signed=True)
show(table.loc[names], caption="Risk of pneumothorax by sex, after Platt scaling", digits=3)

# %% tags=["remove-cell"]


def by_sex_of(model):
    gaps = rows["value"].loc[model]
    return f"{fmt(gaps.get('F'), 3, True)} in women, {fmt(gaps.get('M'), 3, True)} in men"


glue("risk-biased", each(biased, by_sex_of, NO_BIASED))
others_here = rows["value"].reindex(others, level="model").dropna()
glue(
    "risk-other",
    f"{fmt(others_here.min(), 3, True)} to {fmt(others_here.max(), 3, True)}"
    if len(others_here)
    else UNDEFINED
    if others
    else NO_OTHER,
)

# %% [markdown]
# Predicted minus observed, for the model with the under-reported women: {glue:text}`risk-biased`. For
# the others, over both sexes: {glue:text}`risk-other`.
#
# One finding alone has fewer cases. Here are all groups, averaged over the findings of S:

# %% tags=["hide-input"]
shown = by_group[(by_group["label"] == "mean") & (by_group["attribute"] != "all")]
gap_forest(shown)
figure(
    "fig-calibration-groups",
    caption="Calibration in the large by group, mean over findings, after Platt scaling on all patients. Right of 0: risk overestimated; left: underestimated.",
    alt="Mean predicted probability minus observed frequency, averaged over findings, one row per group, one dot with an interval per model, around a line at zero. "
    + in_words(shown, 3),
    table=shown,
)

# %% [markdown]
# The plainest test of the planted bias compares two models of one architecture on the same phantom
# patients: the one whose reports left out findings of women, minus the first of the other small
# CLIPs.


# %%
def biased_minus_fair(table, metric):
    """Paired difference of two models, in women and in men; None without both, or on real films."""
    if not (biased and fair and test.planted):
        return None
    pair = (biased[0], fair[0])
    return fairness.model_gap_table(
        table[table["model"].isin(pair)], [pair], metrics=(metric,), attributes=("sex",), **boot
    )


risk = biased_minus_fair(platt, "calibration_in_the_large")
if risk is not None:
    by_sex = risk[(risk["label"] == "mean") & (risk["attribute"] == "sex")]
    show(
        schema.wide(by_sex, index="model", columns="group", digits=3),
        caption="Difference in calibration in the large, by sex, mean over findings",
    )

# %% tags=["remove-cell"]
TOO_FEW = f"{UNDEFINED}, for want of films"


def why_not_judged(table):
    """Why nothing can be said of the two models; None where something can."""
    if not test.planted:
        return "not judged, as these are no phantoms"
    if table is None:
        return "not judged, as the two models were not run"
    return TOO_FEW if schema.side(mean_row(table, group="F")) == UNDEFINED else None


def of_women(table):
    return against_zero(mean_row(table, group="F"))


def of_men(table):
    return against_zero(mean_row(table, group="M"))


def lowered_in_women(table):
    return not why_not_judged(table) and schema.side(mean_row(table, group="F")) == "below"


further = [a for a in GROUPED if a != "sex"]
sides = shown[shown["attribute"].isin(further)].apply(schema.side, axis=1)
sides = sides[sides != "undefined"]
glue("further", " and by ".join(map(readable, further)) or "no other attribute")
glue("n-further", str(len(sides)))
glue("n-off", str(sides.isin(["above", "below"]).sum()) if len(sides) else "0")
glue(
    "by-scanner",
    "Race reaches a phantom image only through the scanner of its site, so what is off in a race should "
    "be off in its site, and more clearly there. "
    if test.planted and test.recipe["dials"]["site_signature"]
    else "",
)
glue(
    "risk",
    "" if risk is None else f"In women the difference is {of_women(risk)}; in men {of_men(risk)}. ",
)
planted = lowered_in_women(risk)
judged_here = "found" if planted else "not found in this run"
glue("planted", why_not_judged(risk) or judged_here)
glue(
    "planted-moral",
    ""
    if why_not_judged(risk)
    else "The fit on all patients together had repaired the average, and the average hid this."
    if planted
    else "A bias of the reports need not arrive in the scores. To take risk away from women, a model "
    "has to tell women from men and to use it for the finding; one that does not will doubt the "
    "findings of everybody, and a fit on all patients together makes up for that.",
)

# %% [markdown]
# {glue:text}`risk`The planted bias, less risk for women than they have, is {glue:text}`planted`.
# {glue:text}`planted-moral`
#
# By {glue:text}`further`, {glue:text}`n-off` of {glue:text}`n-further` intervals exclude 0.
# {glue:text}`by-scanner`A look at many intervals catches one in twenty by chance.

# %% [markdown]
# ## Underdiagnosis
#
# In use, a probability meets a threshold: above it, somebody looks. All patients share the threshold.
# If the scores of women are pressed down, more sick women than sick men fall below it
# {cite:p}`seyyedkalantari2021`. The threshold here is set for each model and finding so that
# {glue:text}`specificity` of the healthy films stay below it. That share is the *specificity*;
# *sensitivity* is the share of sick films above it.

# %%
decided = fairness.decide(platt, specificity)
WOMEN_MEN = [("F", "M")]
gaps = pd.concat(
    [
        fairness.gap_table(platt, "sex", WOMEN_MEN, metrics=("auc",), **boot),
        fairness.gap_table(
            decided, "sex", WOMEN_MEN, metrics=("sensitivity", "specificity"), **boot
        ),
    ],
    ignore_index=True,
)
keep(gaps.assign(protocol=chosen.name))
on_mean = gaps[gaps["label"] == "mean"]
show(
    schema.wide(on_mean, index="model", columns="metric", digits=3).rename(columns=readable),
    caption="Women minus men, mean over findings: AUC, and sensitivity and specificity at the common threshold",
)

# %% tags=["hide-input"]
drawn = on_mean[on_mean["metric"] != "specificity"]
names_of = {"auc": "AUC", "sensitivity": "sensitivity"}
shown = drawn.assign(label=drawn["metric"].map(names_of), metric="women minus men", group="all")
gap_forest(shown)
figure(
    "fig-calibration-underdiagnosis",
    caption="Women minus men, mean over findings: AUC, which compares films within a sex, and sensitivity at a threshold common to both.",
    alt="Two rows, AUC and sensitivity: the difference between women and men averaged over findings, one dot with an interval per model, around a line at zero. "
    + " ".join(in_words(drawn[drawn["metric"] == metric]) for metric in names_of),
    table=drawn,
)


# %% tags=["remove-cell"]
def gap(model, metric):
    return against_zero(mean_row(gaps, model=model, metric=metric))


caught_less = biased_minus_fair(decided, "sensitivity")
ranked_less = biased_minus_fair(platt, "auc")
glue("specificity", percent(specificity))
glue("sens-biased", each(biased, lambda m: gap(m, "sensitivity"), NO_BIASED))
glue("auc-biased", each(biased, lambda m: gap(m, "auc"), NO_BIASED))
sides = pd.Series(
    [schema.side(mean_row(gaps, model=m, metric="sensitivity")) for m in others], dtype=object
)
glue("sens-other", share((sides == "below").where(sides != "undefined")) if others else NO_OTHER)
glue(
    "pair",
    ""
    if caught_less is None
    else " Again the paired difference of the two models does: sensitivity in women "
    f"{of_women(caught_less)}, in men {of_men(caught_less)}; AUC in women {of_women(ranked_less)}.",
)
missed_more, auc_tells = lowered_in_women(caught_less), lowered_in_women(ranked_less)
glue(
    "hidden",
    "more sick women are missed, and AUC does not show it"
    if missed_more and not auc_tells
    else "more sick women are missed, and AUC in women is lower too"
    if missed_more
    else "no more sick women are missed than by the other model, beyond chance"
    if not why_not_judged(caught_less)
    else f"what the planted bias does is {why_not_judged(caught_less)}",
)

# %% [markdown]
# Sensitivity, women minus men, of the model with the under-reported women:
# {glue:text}`sens-biased`. Its AUC: {glue:text}`auc-biased`. Other models whose sensitivity is lower in
# women, with the whole interval: {glue:text}`sens-other`. A finding may be easier to see in one sex, so a gap by itself does not name its
# cause.{glue:text}`pair`
#
# At this threshold: {glue:text}`hidden`. Whatever the outcome of this run, look at both. AUC within
# women compares women with women: if all their scores were lowered alike, their order would stay and
# AUC would be content. The threshold would not move with them.

# %% [markdown]
# ## When the audit shares the bias
#
# {glue:text}`labels-true` but half of the findings of women are missing from the *recorded* labels of
# validation and test. (Half, not as many as in training: an audit needs some positives.)

# %% tags=["remove-cell"]
glue(
    "labels-true",
    "All of this was possible because the test labels are true. In a hospital, the labels of the audit "
    "come from the same reports as the labels of the training. The phantom can play this too: the same "
    "films,"
    if test.planted and not test.recipe["dials"]["underreport"]
    else "All of this took the labels of the cohort at their word. Such labels are mostly read from "
    "reports, in the audit as in the training, and what a report leaves out is missing in both. What that "
    "does can be tried by taking the labels at hand for the true ones: the same films,",
)


# %%
def as_recorded(table, cohort):
    """The same predictions, with the labels that under-reporting would have left."""
    if cohort.planted:
        left = phantom.twin(cohort, underreport={"sex": {"F": 0.5}}).table
    else:
        drawn = np.random.default_rng(seed).random((len(cohort.table), len(findings)))
        omitted = (drawn < 0.5) & (cohort.table[["sex"]] == "F").to_numpy()
        left = cohort.table[["image_id", *findings]].copy()
        left[list(findings)] = left[list(findings)].where(~omitted, 0)
    recorded = left.melt("image_id", list(findings), "label", "recorded")
    table = table.merge(recorded, on=["image_id", "label"])
    return table.assign(y_true=table["recorded"]).drop(columns="recorded")


recorded = recalibrate(as_recorded(predictions, test), as_recorded(fitting, valid))
recorded = recorded.assign(method="Platt").merge(attributes, on="image_id")
audits = {
    label_source: fairness.gap_table(
        scored, "sex", WOMEN_MEN, metrics=("calibration_in_the_large",), **boot
    ).assign(protocol=label_source)
    for label_source, scored in (("true labels", platt), ("recorded labels", recorded))
}
audits = pd.concat(audits.values(), ignore_index=True)
audit = audits[audits["label"] == "mean"]
show(
    schema.wide(audit, index="model", columns="protocol", digits=3),
    caption="Calibration in the large, women minus men, mean over findings, by the labels of the audit",
)

# %% tags=["hide-input"]
gap_forest(audit)
figure(
    "fig-calibration-audit",
    caption="Calibration in the large, women minus men: the same models, audited with true and with under-reported labels.",
    alt="Difference in calibration in the large between women and men, one row for true labels and one for recorded labels, one dot with an interval per model, around a line at zero. "
    + in_words(audit, 3),
    table=audit,
)


# %% tags=["remove-cell"]
def judged(model, source):
    return mean_row(audit, model=model, protocol=source)


def both_audits(model):
    true, rec = (fmt_row(judged(model, f"{s} labels"), 3, True) for s in ("true", "recorded"))
    return f"{true} with true and {rec} with recorded labels"


glue("audit-biased", each(biased, both_audits, NO_BIASED))


def accused(model):
    true, rec = (judged(model, f"{s} labels") for s in ("true", "recorded"))
    if UNDEFINED in (schema.side(true), schema.side(rec)):
        return np.nan
    return schema.side(rec) == "above" and rec["value"] > true["value"]


glue("accused", share(pd.Series([accused(m) for m in others], dtype=object)))
off = {m: [abs(judged(m, f"{s} labels")["value"]) for s in ("true", "recorded")] for m in biased}
acquitted = [m for m, (true, rec) in off.items() if rec < true]
glue(
    "acquitted",
    "nothing can be said of the biased model, for want of films"
    if np.isnan(list(off.values())).any()
    else "by the estimates, the biased model comes off better with the biased labels than with the true "
    "ones"
    if acquitted
    else "by the estimates, the model trained on such reports comes off no better with such labels"
    if biased
    else NO_BIASED,
)

# %% [markdown]
# Women minus men, for the model with the under-reported women: {glue:text}`audit-biased`. Of the other
# models, {glue:text}`accused` seem, by the recorded labels, to overestimate the risk of women, and by more
# than they do by the true ones; and {glue:text}`acquitted`.
#
# No film has changed and no model; only the labels have, and the scale that was fitted to them. Labels of
# this kind make an honest model look as if it saw too much in women, and speak for one that has learned to
# see too little. No statistic on these labels can undo this. Somebody has to look at the films again.

# %% [markdown]
# ## Calibrated within groups, and still unequal
#
# Suppose the labels are true and the scores are recalibrated *within* each group. Is that the end?
# {glue:text}`fainter`Here Platt scaling is fitted for the young and the old (60 and over) apart, and one
# operating point is used for both.

# %%
ages = by_age(pd.concat([test.table, valid.table])).dropna(subset="age60")[["image_id", "age60"]]
within = recalibrate(
    predictions.merge(ages, on="image_id"), fitting.merge(ages, on="image_id"), by=("age60",)
).assign(method="Platt by age")
OLD_YOUNG = [("old", "young")]
large = fairness.performance_table(
    within, ("calibration_in_the_large",), attributes=("age60",), **boot
)
errors = schema.results([])
if within["age60"].nunique() == 2:  # of both there are validation patients to fit on
    errors = fairness.gap_table(
        fairness.decide(within, specificity),
        "age60",
        OLD_YOUNG,
        metrics=("sensitivity", "specificity"),
        **boot,
    )

# %% tags=["hide-input"]
both = pd.concat([large, errors], ignore_index=True)
both = both[(both["label"] == "mean") & (both["attribute"] == "age60")]
columns = {
    ("calibration_in_the_large", "old"): "predicted - observed, old",
    ("calibration_in_the_large", "young"): "predicted - observed, young",
    ("sensitivity", "old - young"): "sensitivity, old - young",
    ("specificity", "old - young"): "specificity, old - young",
}
printed = schema.wide(both, index="model", columns=["metric", "group"], digits=3)
printed = printed.reindex(columns=list(columns), fill_value=UNDEFINED)
printed = printed.set_axis(list(columns.values()), axis=1)
show(printed, caption="Platt scaling within each age group, mean over findings")

# %% tags=["remove-cell"]
fainter = test.planted and "age_group" in test.recipe["dials"]["contrast"]
glue(
    "fainter",
    "In the phantom, findings of older patients are drawn with less contrast. " if fainter else "",
)
honest = both[both["metric"] == "calibration_in_the_large"].apply(schema.side, axis=1)
glue("n-honest", share((honest == "around").where(honest != "undefined")))
unequal = [
    m
    for m in names
    if len(errors)
    and {schema.side(mean_row(errors, model=m, metric=k)) for k in ("sensitivity", "specificity")}
    & {"above", "below"}
]
glue("n-unequal", f"{len(unequal)} of {len(names)}")
glue(
    "still",
    "One of the two groups has no validation patients to be fitted on"
    if errors.empty
    else "Probabilities that hold in each group do not make the errors equal"
    if unequal
    else "In this run the errors of the two groups are not told apart",
)
crowd = within.groupby(["model", "label", "age60"])["score"].std().groupby("age60").mean()
glue("sd-old", fmt(crowd.get("old"), 3))
glue("sd-young", fmt(crowd.get("young"), 3))
narrower = crowd.get("old", np.nan) < crowd.get("young", np.nan)
spread_of_old = "less spread out than those of the young"
spread_of_old = spread_of_old if narrower else f"not {spread_of_old}"
spread_of_old = spread_of_old if len(crowd) == 2 else "not compared with those of the young"
where = "narrower in the old" if narrower else "not narrower in the old"
glue("narrower", where if len(crowd) == 2 else UNDEFINED)

# %% [markdown]
# The interval of predicted minus observed includes 0 in {glue:text}`n-honest` cells of the table. For
# {glue:text}`n-unequal` models, the interval of the difference in sensitivity or in specificity excludes
# 0. {glue:text}`still`.
#
# One reason is information. The fainter a finding, the nearer an honest probability stays to the
# prevalence, for the sick and for the healthy. The spread of the probabilities (standard deviation,
# mean over models and findings) is {glue:text}`sd-old` in the old and {glue:text}`sd-young` in the
# young: {glue:text}`narrower`. One threshold cannot suit two crowds of different width. Depending on
# where it cuts, more of the sick are missed in one of them, or more of the healthy alarmed. Whether
# that is unfair is not a question that calibration can answer. One may move the threshold of a group
# and pay on the other side, or take a better film.
#
# There is a theorem besides: where the prevalence differs between two groups and the model is not
# perfect, it cannot be calibrated in both and give the sick of both the same probability on average, and
# the healthy of both too {cite:p}`kleinberg2017`.
#
# ## What was planted, and was it found

# %% tags=["remove-cell"]
glue(
    "planted-summary",
    "Nothing was planted in these films, so nothing can be checked against the truth. What follows is "
    "what the same analysis says of them."
    if not test.planted
    else "What was planted, in the training of a model, in the films and in labels, and whether this "
    "chapter saw it:",
)
glue(
    "planted-age",
    "not planted in this run"
    if not fainter
    else f"planted; the probabilities of the old are {spread_of_old}",
)

# %% [markdown]
# {glue:text}`planted-summary`
#
# - *Reports that leave out findings of women*, in the training of one model. As a risk that is
#   underestimated in women: {glue:text}`planted`. As missed disease: {glue:text}`hidden`.
# - *Fainter findings in the old*: {glue:text}`planted-age`.
# - *Labels of the audit that leave out findings of women*, planted by this chapter:
#   {glue:text}`accused` of the honest models are accused by them.
#
# ## Limits
#
# - The curves are of one finding, and the group results of a mean over findings, which can hide one that
#   goes the other way.
# - Calibration in the large looks at the mean alone. A group can be right on average and wrong at every
#   probability.
# - An ECE depends on its bins and is above 0 even for a perfect model in a finite sample.
# - The operating point is one of many. At another, other errors differ.
# - A fit on the validation patients of the same cohort is the best case. In another hospital, prevalence
#   and films differ, and the fit has to be made anew.
#
# ## What we learned
#
# - Without the logit scale, probabilities are confined to [{glue:text}`floor`, {glue:text}`ceiling`] by
#   arithmetic (texts of length 1 provided). AUC is {glue:text}`auc-same`, so it is no witness of
#   calibration.
# - What a scale and a shift fitted on other patients can repair is the average: equal-mass ECE
#   {glue:text}`ece-platt` after Platt scaling, {glue:text}`ece-cosine` for the cosines alone.
# - Calibrated on average need not be calibrated for each group. The planted under-reporting of women, as
#   an underestimated risk, is {glue:text}`planted`; at a common threshold: {glue:text}`hidden`.
# - An audit is as fair as its labels: {glue:text}`acquitted`, and {glue:text}`accused` of the other
#   models are accused by them.
# - Calibration within groups does not settle the errors: they differed between old and young for
#   {glue:text}`n-unequal` models.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-calibration-bound
# A model's image embeddings lie within 60 degrees of every text embedding. Which band of probabilities
# can the cosines alone reach? Which scale would be needed to reach 0.95?
# ```
#
# ```{solution} ex-calibration-bound
# :class: dropdown
# Cosines lie between 0.5 and 1, differences between -0.5 and 0.5, so probabilities lie between
# $1 / (1 + e^{0.5}) = 0.38$ and 0.62. To reach 0.95 at the largest difference, $\tau \cdot 0.5 = \log 19
# = 2.94$, so $\tau = 5.9$.
# ```
#
# ```{exercise}
# :label: ex-calibration-bins
# Set `n_bins` to 5, 20 and 50. Does the ECE of the learned scale depend on the number of bins? Would it
# be 0 for a perfectly calibrated model?
# ```
#
# ```{solution} ex-calibration-bins
# :class: dropdown
# `n_bins` changes the curves; for the ECE pass `n_bins` to `calibration.ece_equal_mass`. More bins
# mean fewer films in each, and the absolute distance in a bin is never negative, so noise adds up: the
# ECE of a perfectly calibrated model is above 0 in any finite sample and grows with the number of bins.
# Compare ECEs only with the same bins and the same number of films.
# ```
#
# ```{exercise}
# :label: ex-calibration-sex
# Fit Platt scaling for women and men apart (`recalibrate(..., by=("sex",))`). What becomes of the gap
# in sensitivity of the under-report model? What would you need in a hospital to do this?
# ```
#
# ```{solution} ex-calibration-sex
# :class: dropdown
# Merge the column `sex` into `predictions` and `fitting` as was done for `age60`. Where scores of
# women were pressed down they move up, and the gap shrinks as far as the bias was a shift. In a hospital
# one needs the sex at the time of prediction, a policy that allows its use, and true labels for both
# sexes: with under-reported ones, the fit would restore the bias.
# ```
#
# ```{exercise}
# :label: ex-calibration-prevalence
# A model is calibrated where 12 % of films show a pneumothorax, and then used where 2 % do. Are its
# probabilities too high or too low? What is the smallest repair?
# ```
#
# ```{solution} ex-calibration-prevalence
# :class: dropdown
# Too high, if the films of the sick and of the healthy look as before. Only the shift has to change, by
# the difference of the log odds: $\log(0.02/0.98) - \log(0.12/0.88) = -1.9$. The scale stays.
# ```
#
# ```{exercise}
# :label: ex-calibration-planted
# Run this chapter with `options={"dials": {"prevalence": 0.3}}`: each finding is there in about 30 % of
# the films, which are otherwise drawn alike. Write down beforehand which way these go: AUC, calibration in
# the large of the learned scale, the shift of Platt scaling, and the Brier score of a constant that
# knows the prevalence.
# ```
#
# ```{solution} ex-calibration-planted
# :class: dropdown
# AUC compares a sick film with a healthy one, so it stays where it is, up to chance. The models were not
# told, so their predictions rise only as far as there are more sick films, by less than the observed
# frequency: predicted minus observed falls. The shift becomes less negative: the log odds of the
# prevalence go from $\log(0.12/0.88) = -2.0$ to $\log(0.3/0.7) = -0.8$. The constant gets worse,
# $0.3 \cdot 0.7 = 0.21$ instead of $0.12 \cdot 0.88 = 0.11$: the more even the odds, the less does
# knowing them help.
# ```
#
# ## Further reading
#
# - {cite:t}`guo2017` show that modern networks are overconfident, and that one temperature repairs much.
# - {cite:t}`platt1999` fits the two-parameter regression that bears his name.
# - {cite:t}`vancalster2019` explain to clinicians what calibration is, from the large to the single
#   probability.
# - {cite:t}`mosquera2024` say how to judge calibration when a finding is rare, as here.
# - {cite:t}`kleinberg2017` prove which fairness criteria exclude each other.
# - {cite:t}`seyyedkalantari2021` find more missed disease in under-served groups of patients, in large data sets of chest films.
