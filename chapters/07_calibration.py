# ---
# jupyter:
#   chapter:
#     answers:
#       S 3.3: ''
#       S Fig. 4c: fig-calibration-cosine
#     goals:
#     - read a reliability curve, and say why AUC cannot replace it
#     - say why cosines alone give probabilities near one half
#     - tell for which groups a calibrated model is calibrated
#     needs:
#     - 02_zero_shot
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # Calibration: does 30 percent mean 30 percent?
#
# *Answers section 3.3 of {cite:t}`sourget2025`, paper S, and its Fig. 4c.*
#
# A model can put the ill above the healthy and still be useless at the
# bedside. Imagine a clinician who reads "pneumothorax: 0.52". Should she walk
# or run? She needs probabilities that keep their word: of a hundred films that
# are given 30 %, thirty should show the disease. If they promise too much, she
# learns to ignore the alarm. If they promise too little for one kind of
# patient, say women, it is always the same people who are sent home with air
# around the lung.
#
# Paper S draws calibration curves for pneumothorax and finds all models
# miscalibrated, three of them with every probability near 0.5. **Where does
# such a squeeze come from, and for whom are the probabilities true?** One of
# the small CLIPs of this book, *phantom-resnet-underreport*, was trained on
# reports that leave out most of the findings of women.

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohorts and of the resamples
n_images: int = 4000  # [60, 1000000] of a phantom; real ones are whole
n_bins: int = 10  # [1, 1000] bins of reliability curves
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# The chapter needs the models, films to test them on, and those of other
# patients, for *validation*: on these, probabilities are repaired.

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import pandas as pd

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts.metadata import S_FINDINGS, young_or_old
from cxrlib.models import load_models, model_names
from cxrlib.predict import precomputed, zeroshot
from cxrlib.protocol import NAMES, protocol_of
from cxrlib.show import interactive, notebook, plots
from cxrlib.show.notebook import asked, figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, estimate, how_many, lying, percent, span
from cxrlib.stats import calibration, fairness

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
# both readings below want the learned scale, whatever the protocol
clips = load_models(models, replace(chosen, temperature="learned"))
clips = precomputed.calibratable(clips)
names = [clip.name for clip in clips]
notebook.warn_if_seeded(names, data)

how = {"preprocessing": chosen.preprocessing}
test = cohorts.study(data, n_images, seed, options, **how)
test = precomputed.answerable(test, clips)
drawn = (data, n_images, seed, options)
valid, tested = cohorts.validation(test, *drawn, **how)
valid = precomputed.answerable(valid, clips, fitted=True)
(LABEL,) = asked(test.name, test.findings, ["Pneumothorax"])
findings = asked(test.name, test.findings, S_FINDINGS)
question = (clips, findings, chosen.negative_prompt)
# no number of a group with few cases, whichever the protocol
sampling = {
    "protocol": chosen.cautious,
    "n_resamples": n_resamples,
    "seed": seed,
}

# %% [markdown]
# ## Two readings of one similarity
#
# How does a CLIP model come to a probability? It compares the film with two
# phrases, "Chest {label}" and "Chest No Findings", and its answer is the
# softmax over the two similarities $s_+$ and $s_-$. These are cosines of the
# angle between two embeddings, and only their difference counts:
#
# $$ p = \frac{1}{1 + e^{-\tau (s_+ - s_-)}} $$ (eq-calibration-softmax)
#
# CLIP models learn the factor $\tau$, the *logit scale*, together with
# everything else; it is usually far above 1. According to its public code, S
# applies it for MedCLIP and MedImageInsight and not for the other four models.
# Leaving it out is the same as $\tau = 1$. Here are both readings, for the
# same embeddings.

# %%
predictions = zeroshot.both_readings(test, *question, tested)
pneumothorax = schema.rows(predictions, label=LABEL)
plain, learned = zeroshot.READINGS  # cosine only, learned scale
cosine = schema.rows(pneumothorax, method=plain)
scaled = schema.rows(pneumothorax, method=learned)
curves = guard.bins(
    calibration.reliability_table(pneumothorax, n_bins, **sampling)
)

# %% tags=["remove-input"]
say(f"""
A **reliability curve** (S calls it calibration curve) sorts the films into
{n_bins} bins by their probability and plots, for each bin, how often the
disease was there. On the diagonal, probabilities keep their word. A point
below it promises more disease than there is. The lower panel counts the films:
a curve without it hides where nobody is. The films are the
{count(len(tested))} of the cohort *{test.name}*. First the cosines alone:
""")

# %% tags=["hide-input"]
HOW = """ Above: observed frequency of pneumothorax by predicted probability,
with 95 % intervals. Below: films in each bin."""
of_cosine = schema.rows(curves, method=plain)
notebook.reliability(
    of_cosine,
    "fig-calibration-cosine",
    f"Reliability of the cosines alone (S, Fig. 4c).{HOW}",
)

# %% tags=["remove-input"]
say(f"""
All points stand between {span(of_cosine["predicted"], to="and")} on the
horizontal axis, while the disease is observed in
{span(of_cosine["observed"], percent)} of the films of a bin. Of the points,
{lying(of_cosine, "below", of_cosine["predicted"])} lie below the diagonal with
their whole interval. Where a whisker is long, the bin holds hardly a film.

And now the same films with the scale that each model learned:
""")

# %% tags=["hide-input"]
of_scaled = schema.rows(curves, method=learned)
notebook.reliability(
    of_scaled,
    "fig-calibration-learned",
    f"Reliability with the learned logit scale.{HOW}",
)

# %% tags=["remove-input"]
say(f"""
The points now stand between {span(of_scaled["predicted"], to="and")}, and
{lying(of_scaled, "below", of_scaled["predicted"])} lie below the diagonal. The
other findings, one model at a time if the lines are too many:
""")

# %% tags=["remove-input"]
interactive.reliability(
    calibration.reliability_table(predictions, n_bins, **sampling),
    "Explore: reliability by finding, model and reading of the similarity",
)

# %% tags=["hide-input"]
ends = pneumothorax.pivot_table(
    "score", "model", "method", lambda s: span(guard.extremes(s)), sort=False
).rename_axis(columns=None)
ends.insert(0, "logit scale", [clip.logit_scale for clip in clips])
of_ten = " (means of ten films)" if guard.active() else ""
what = f"Smallest and largest probability of pneumothorax{of_ten}"
show(ends, what, digits=1, counts=())

# %% tags=["remove-input"]
floor, ceiling = 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))
inside = bool(cosine["score"].between(floor, ceiling).all())
say(f"""
The squeeze is built in. A cosine lies between $-1$ and $1$, so the difference
of two lies between $-2$ and $2$, and the sigmoid of that lies between
{floor:.2f} and {ceiling:.2f}. No film, however clear, can leave this band.
Where embeddings are never opposite, the band is narrower still: over all
models, probabilities run from {span(guard.extremes(cosine["score"]))},
{"inside" if inside else "outside"} the bound (which does not hold for texts of
another length, nor for scores read from a file). With the learned scale:
{span(guard.extremes(scaled["score"]))}.

So "all probabilities around 0.5" can be a property of the recipe and not of a
model. Of the three models of which S says it, this explains CheXzero and
CXR-CLIP, whose scale was left out. It does not explain MedCLIP, whose scale
was applied.
""")

# %% [markdown]
# ## The ranking does not notice
#
# Multiplying by a positive number keeps the order of the films, and AUC sees
# only the order.

# %%
mass, large = "ece_equal_mass", "calibration_in_the_large"
measures = ["auc", "brier", "ece_equal_width", mass, large]
quality = fairness.performance_table(pneumothorax, measures, **sampling)
auc = schema.rows(quality, metric="auc").pivot(
    index="model", columns="method", values="value"
)
what = "AUC for pneumothorax under both readings"
show(auc.loc[names], what, digits=4, missing="undefined")

# %% tags=["remove-input"]
moved = (auc["learned scale"] - auc["cosine only"]).abs().max()
say(f"""
The largest difference over the models is {moved:.1g}, from rounding. A model
can have an acceptable AUC and useless probabilities, as S found.
""")

# %% tags=["remove-input"]
tops = cosine.groupby("model")["score"].apply(lambda s: guard.extremes(s)[1])
quiz(
    "Without the scale, a model gives 0.55 to the film of which it is most "
    "certain. What follows?",
    {
        "It cannot tell the ill from the healthy": (
            False,
            "The order can be perfect, however narrow the band. Here the "
            f"largest probabilities run from {span(tops)}, AUC from "
            f"{span(auc['cosine only'])}.",
        ),
        "55 of 100 such films show the disease": (
            False,
            "Only if the model were calibrated. A cosine says how alike a "
            "film and a phrase are, not how frequent a disease is.",
        ),
        "Neither: look at the curve, and at AUC": (
            True,
            "AUC judges the order, the curve the size.",
        ),
    },
)

# %% [markdown]
# ## How far off?
#
# Three numbers, each with its own idea of "off".
#
# - **ECE**, the expected calibration error: the mean distance between
#   predicted and observed over the bins. With bins of *equal width*, most may
#   be empty; with bins of *equal mass*, each holds as many films.
# - **Brier score**: the mean squared distance between probability and outcome.
#   It rewards being right as well as being honest. Always announcing the
#   prevalence $\pi$ scores $\pi (1 - \pi)$.
# - **Calibration in the large**: mean predicted probability minus observed
#   frequency. Above 0, the model sees too much disease.

# %%
show(
    quality[quality["metric"] != "auc"],
    "Calibration for pneumothorax with 95 % intervals over patients",
    rows=["model", "method"],
    columns="metric",
)

# %% tags=["remove-input"]
ill = schema.rows(cosine, model=names[0])["y_true"]
few = guard.active() and ill.sum() < guard.MIN_CELL
prevalence = np.nan if few else ill.mean()
constant = prevalence * (1 - prevalence)

at = quality.set_index(["method", "metric", "model"]).sort_index()
say(f"""
{percent(prevalence)} of the films show a pneumothorax. Whoever says 0.5 to
every film is off by {abs(0.5 - prevalence):.2f}, and has a Brier score of
0.25. The equal-mass ECE of the cosines alone runs over the models from
{span(at.loc[plain, mass]["value"])}, that of the learned scale from
{span(at.loc[learned, mass]["value"])}. The Brier score is above
{constant:.3f}, the score of a constant that knows the prevalence, for
{lying(at.loc[plain, "brier"], "above", constant)} models without the scale
and for {lying(at.loc[learned, "brier"], "above", constant)} with it.

Models that overestimate the risk on average:
{lying(at.loc[plain, large], "above")} without the scale,
{lying(at.loc[learned, large], "above")} with it. A softmax between two phrases
starts from even odds. Nothing in it says how rare the disease is.
""")

# %% [markdown]
# ### The two protocols
#
# Side by side: *as published*, which is what S's code does for four of its six
# models (cosines alone, images resampled), and *corrected* (learned scale,
# patients resampled).

# %%
switched = []
for name, scored in zip(NAMES, (cosine, scaled), strict=True):
    resampling = sampling | {"protocol": protocol_of(name).cautious}
    found = fairness.performance_table(
        scored.assign(method="zero-shot"), measures, **resampling
    )
    switched.append(found.assign(protocol=name))
switched = pd.concat(switched, ignore_index=True)
keep(switched)
both = schema.rows(switched, metric=["ece_equal_mass", "brier"])
show(
    both,
    "Calibration for pneumothorax under both protocols",
    rows=["metric", "model"],
    columns="protocol",
)

# %% tags=["remove-input"]
was = both.pivot(index="model", columns=["metric", "protocol"])["value"]
before, after = (was.xs(p, axis=1, level="protocol") for p in NAMES)
fell = (after - before).apply(lambda by: how_many(by.dropna() < 0))
say(f"""
The switch from as published to corrected lowers the equal-mass ECE of
{fell[mass]} models and the Brier score of {fell["brier"]}.
""")

# %% [markdown]
# ## Calibrated for whom?
#
# The average can be repaired with one line: a logistic regression of the
# outcome on $s_+ - s_-$, fitted on the validation patients, none of whom is in
# the test. This is *Platt scaling* {cite:p}`platt1999`;
# [Recalibration](17_recalibration) shows what it mends and what it cannot.
#
# An average over all patients can be right while two groups are wrong in
# opposite directions. So the same question is put to each group: mean
# predicted probability minus observed frequency, after Platt scaling on all
# validation patients together.

# %%
people = tested.assign(age60=young_or_old(tested["age"]))
if "race" in people:
    of_s = people["race"].isin(["White", "Black", "Asian"])
    people["race"] = people["race"].where(of_s)
GROUPED = ["sex", "race", "site" if test.planted else "age60"]
GROUPED = [a for a in GROUPED if a in people and people[a].nunique() > 1]

fitting = zeroshot.both_readings(valid, *question)
two = (schema.rows(t, method=plain) for t in (predictions, fitting))
platt = calibration.recalibrate(*two).assign(method="Platt")
platt = platt.merge(people[["image_id", *GROUPED]], on="image_id")
by_group = fairness.performance_table(platt, large, GROUPED, **sampling)

# %% tags=["hide-input"]
means = schema.rows(by_group, label="mean", attribute=GROUPED)
plots.gap_forest(means)
figure(
    "fig-calibration-groups",
    "Predicted minus observed by group, mean over findings, after Platt "
    "scaling. Right of 0: risk overestimated; left: underestimated.",
)

# %% tags=["remove-input"]
biased = [name for name in names if name.endswith("-underreport")]
others = [name for name in names if name not in biased]
of_sex = schema.rows(means, attribute="sex")
first = biased[0] if biased else "none"
in_women, in_men = (estimate(of_sex, model=first, group=g) for g in "FM")
rest = schema.rows(means, attribute=GROUPED[1:]).dropna(subset=["ci_low"])
off = (rest["ci_low"] > 0) | (rest["ci_high"] < 0)
scanner = """Race reaches a phantom image only through the scanner of its
site, so what is off in a race should be off in its site, and more clearly
there. """
scanner *= test.planted and bool(test.recipe["dials"]["site_signature"])
honest = schema.rows(of_sex, model=others)["value"]
say(f"""
For the model trained on under-reported women, predicted minus observed is
{in_women} in women and {in_men} in men; for the others, over both sexes,
{span(honest, digits=3, signed=True)}. Of the other groups and models, the
intervals of {how_many(off)} exclude 0. {scanner}A look at many intervals
catches one in twenty by chance.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# Reports that leave out most findings of women, in the training of one model:
# it should give women less risk than they have. That bias need not arrive in
# the scores: to take risk away from women, a model has to tell women from men
# and to use it. The plainest test compares two models of one architecture on
# the same phantom patients: this one, minus the first other small CLIP.

# %%
pair = [*biased[:1], *(m for m in others if m in model_names())][:2]
risk = schema.results([])
if biased and len(pair) == 2 and test.planted:
    risk = fairness.model_gap_table(
        schema.rows(platt, model=pair),
        [tuple(pair)],
        metrics=large,
        attributes=["sex"],
        **sampling,
    )
    show(
        schema.rows(risk, label="mean", attribute="sex"),
        "Difference in calibration in the large, mean over findings",
        rows="model",
        columns="group",
    )

# %% tags=["remove-input"]
women, men = (estimate(risk, label="mean", group=g) for g in "FM")
here = "in this run" if test.planted else "on real films"
found = {"below": "is found", "undefined": f"cannot be judged {here}"}
found = found.get(women.side, f"is not found {here}")
hid = ", and the repaired average had hidden it" * (women.side == "below")
difference = f"""In women the difference is {women} (the interval
{women.lies}); in men {men} (the interval {men.lies}). """
say(f"""
{difference * bool(len(risk))}**The planted bias {found}**{hid}. What it does
at a threshold, to an audit with labels from such reports, and to a thousand
patients: [Recalibration](17_recalibration), [Net benefit](28_net_benefit).
""")

# %% [markdown]
# ## Limits
#
# - The curves are of one finding, and the group results of a mean over
#   findings, which can hide one that goes the other way.
# - Calibration in the large looks at the mean alone. A group can be right on
#   average and wrong at every probability.
# - An ECE depends on its bins and is above 0 even for a perfect model in a
#   finite sample.

# %% tags=["remove-input"]
in_short(
    f"""
Does 30 percent mean 30 percent? With the cosines alone, as S reads four of its
six models, the probabilities of pneumothorax stand between
{span(guard.extremes(cosine["score"]), to="and")}{", by arithmetic" * inside};
with the learned scale from {span(guard.extremes(scaled["score"]))}.
AUC is no witness: it differs by {moved:.1g} at most. With the scale,
{lying(at.loc[learned, large], "above")} models still promise too much. The
planted bias, too little risk for women, {found}. Paper S finds all its models
miscalibrated, three with every probability near 0.5; the recipe explains two
of them.
""",
    figure="fig-calibration-groups",
    found=f"The planted bias, too little risk for women, {found}.",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-calibration-bound
# A model's image embeddings lie within 60 degrees of every text embedding.
# Which band of probabilities can the cosines alone reach? Which scale would be
# needed to reach 0.95?
# ```
#
# ```{solution} ex-calibration-bound
# :class: dropdown
# Cosines lie between 0.5 and 1, differences between -0.5 and 0.5, so
# probabilities lie between $1 / (1 + e^{0.5}) = 0.38$ and 0.62. To reach 0.95
# at the largest difference, $\tau \cdot 0.5 = \log 19 = 2.94$, so
# $\tau = 5.9$.
# ```
#
# ```{exercise}
# :label: ex-calibration-constant
# A model says 12 % to every film, and 12 % of the films are ill. What are its
# AUC, its ECE and its calibration in the large?
# ```
#
# ```{solution} ex-calibration-constant
# :class: dropdown
# AUC 0.5, and 0 twice: it is calibrated and useless. Read both.
# ```
#
# ```{exercise}
# :label: ex-calibration-bins
# Set `n_bins` to 5, 20 and 50. Does the ECE of the learned scale depend on the
# number of bins? Would it be 0 for a perfectly calibrated model?
# ```
#
# ```{solution} ex-calibration-bins
# :class: dropdown
# `n_bins` changes the curves; for the ECE pass it to
# `calibration.ece_equal_mass`. More bins mean fewer films in each, and the
# absolute distance in a bin is never negative, so noise adds up: the ECE of a
# perfectly calibrated model is above 0 in any finite sample and grows with the
# number of bins. Compare ECEs only with the same bins and as many films.
# ```
#
# ## Further reading
#
# - {cite:t}`vancalster2019` explain to clinicians what calibration is, from
#   the large to the single probability.
# - {cite:t}`mosquera2024` say how to judge calibration of rare findings.
