# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - repair probabilities, and name what no scale repairs
#     - find missed disease that neither AUC nor an average shows
#     - say what biased labels do to an audit
#     needs:
#     - 07_calibration
# ---

# %% [markdown]
# # Recalibration: repaired for whom?
#
# *Goes further than section 3.3 of {cite:t}`sourget2025`, paper S, and than
# [Calibration](07_calibration).*
#
# Imagine a hospital that repairs the useless probabilities of a model on films
# of its own: an afternoon's work, and 30 % means 30 %. On average. What was
# left out of reports on women, the model has never learned to call disease.
# Suppose a woman with air around the lung is told 30 %: it may mean far more,
# and the threshold in the software, the same for everybody, sends her home.
#
# **What can be repaired with one line of logistic regression, for whom, and
# would an audit notice?** Among the small CLIPs of this book,
# *phantom-resnet-underreport* was trained on reports that leave out most of
# the findings of women.

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohorts and of the resamples
n_images: int = 4000  # [60, 1000000] of a phantom; real ones are whole
n_bins: int = 10  # [1, 1000] bins of reliability curves
specificity: float = 0.8  # (0, 1) share of healthy films left alone
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# As in [Calibration](07_calibration), it takes models, films to test them on,
# and films of other patients to fit on, the *validation* patients. Each film
# has two readings, with the cosines alone and with the learned scale.

# %% tags=["hide-input"]
from dataclasses import replace

import pandas as pd

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts.labels import underreported
from cxrlib.cohorts.metadata import S_FINDINGS, young_or_old
from cxrlib.models import load_models, model_names
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import notebook, plots, words
from cxrlib.show.notebook import asked, figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import (
    estimate,
    fmt_row,
    how_many,
    lying,
    readable,
    span,
)
from cxrlib.stats import calibration, fairness

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
# one of the readings wants the learned scale, whatever the protocol
clips = load_models(models, replace(chosen, temperature="learned"))
names = [clip.name for clip in clips]
notebook.warn_if_seeded(names, data)

prepared = chosen.preprocessing
test = cohorts.study(data, n_images, seed, options, preprocessing=prepared)
valid, tested = cohorts.validation(
    test, data, n_images, seed, options, preprocessing=prepared
)
(LABEL,) = asked(test.name, test.findings, ["Pneumothorax"])
findings = asked(test.name, test.findings, S_FINDINGS)
question = (clips, findings, chosen.negative_prompt)
# no number of a group with few cases, whichever the protocol
sampling = {
    "protocol": chosen.cautious,
    "n_resamples": n_resamples,
    "seed": seed,
}

biased = [name for name in names if name.endswith("-underreport")]
others = [name for name in names if name not in biased]
first = biased[0] if biased else "none"
# two of one making: the biased model, and the first other small CLIP
pair = [first, *(m for m in others if m in model_names())][:2]
pair = pair if biased and len(pair) == 2 and test.planted else []

# %% [markdown]
# ## Repair with one line
#
# A logistic regression of the outcome on $s_+ - s_-$, fitted on other
# patients, gives the probabilities a meaning:
#
# $$ p = \frac{1}{1 + e^{-(a (s_+ - s_-) + b)}} $$ (eq-calibration-platt)
#
# There are two forms: *temperature* {cite:p}`guo2017` fits the scale $a$
# alone, with $b = 0$; *Platt* scaling {cite:p}`platt1999` fits the scale and
# the shift $b$, and the shift can learn the prevalence. The films for fitting
# come from the validation patients, none of whom is in the test cohort: a
# scale that is judged on the films it was fitted on flatters itself.

# %%
predictions = zeroshot.both_readings(test, *question, tested)
fitting = zeroshot.both_readings(valid, *question)
plain, learned = zeroshot.READINGS  # cosine only, learned scale
applied = schema.rows(predictions, method=plain)
fitted = schema.rows(fitting, method=plain)
temperature = calibration.recalibrate(applied, fitted, intercept=False)
temperature = temperature.assign(method="temperature")
platt = calibration.recalibrate(applied, fitted).assign(method="Platt")

# %% tags=["hide-input"]
scale, line = (
    schema.rows(t, label=LABEL).drop_duplicates("model").set_index("model")
    for t in (temperature, platt)
)
fits = pd.DataFrame(
    {
        "learned scale": [clip.logit_scale for clip in clips],
        "temperature: scale": scale["slope"].loc[names],
        "Platt: scale": line["slope"].loc[names],
        "Platt: shift": line["shift"].loc[names],
    },
    index=pd.Index(names, name="model"),
)
what = "Scales of the cosine difference, for pneumothorax"
show(fits, what, digits=1, counts=())

# %% tags=["hide-input"]
mass, large = "ece_equal_mass", "calibration_in_the_large"
measures = ["auc", "brier", "ece_equal_width", mass, large]
repaired = pd.concat([temperature, platt])[predictions.columns]
of_one = schema.rows(pd.concat([predictions, repaired]), label=LABEL)
quality = fairness.performance_table(of_one, measures, **sampling)
after = schema.rows(quality, method=["temperature", "Platt"])
show(
    after[after["metric"] != "auc"],
    "Calibration for pneumothorax after fitting on validation patients",
    rows=["model", "method"],
    columns="metric",
)

# %% tags=["hide-input"]
of_platt = schema.rows(of_one, method="Platt")
curves = guard.bins(
    calibration.reliability_table(of_platt, n_bins, **sampling)
)
notebook.reliability(
    curves,
    "fig-calibration-platt",
    "Reliability after Platt scaling on other patients. Above: observed "
    "frequency of pneumothorax by predicted probability, with 95 % intervals. "
    "Below: films in each bin.",
)

# %% tags=["remove-input"]
at = quality.set_index(["method", "metric", "model"]).sort_index()
constant = schema.rows(of_platt, model=names[0])["y_true"].var(ddof=0)
values = quality.pivot(index="model", columns=["metric", "method"])["value"]
lower = values[mass]["Platt"] < values[mass][learned]
moved = (values["auc"]["Platt"] - values["auc"][plain]).abs().max()
turned = list(fits.index[fits["Platt: scale"] < 0])
order = f"AUC has moved by {moved:.1g}, as a positive scale keeps the order"
if turned:
    order = f"A negative scale turns the order of {', '.join(turned)} round"
say(f"""
Fitted on {words.count(len(valid.table))} films of other patients, the
equal-mass ECE runs over the models from
{span(at.loc["temperature", mass]["value"])} with a fitted temperature and from
{span(at.loc["Platt", mass]["value"])} with Platt scaling, which brings it
below that of the learned scale for {how_many(lower)} models (the cosines
alone: {span(at.loc[plain, mass]["value"])}). In the figure, points stand
between {span(curves["predicted"], to="and")}, and
{lying(curves, "below", curves["predicted"])} lie below the diagonal. The Brier
score is above that of a constant that knows the prevalence for
{lying(at.loc["Platt", "brier"], "above", constant)} models.

With a temperature alone, {lying(at.loc["temperature", large], "above")} models
overestimate the risk on average: a scale can spread probabilities around one
half, and cannot move the middle. A negative shift moves it down; it is how the
fit says that a disease is rarer than even odds, which the two phrases did not
know. Models with a negative shift: {how_many(fits["Platt: shift"] < 0)}.

{order}. No model has learned anything about chests. What was repaired is a
scale.
""")

# %% tags=["remove-input"]
quiz(
    "After Platt scaling, mean prediction and observed frequency agree over "
    "all patients. For a woman who is told 30 %, is the risk 30 %?",
    {
        "Yes, the model is calibrated": (
            False,
            "Fitted on all together, it may promise too little to women and "
            "too much to men, and be right on average.",
        ),
        "Not known before women are looked at by themselves": (
            True,
            "That is the next section. And even within women it may be right "
            "on average and wrong at 30 %.",
        ),
    },
)

# %% [markdown]
# ## Repaired for whom?
#
# The fit saw all patients together. An average over all of them can be right
# while two groups are wrong in opposite directions, and the curve above cannot
# tell. Here are women and men separately, the same probabilities:

# %% tags=["hide-input"]
people = tested.assign(age60=young_or_old(tested["age"]))
of_film = people[["image_id", "sex", "age60"]]
platt = platt.merge(of_film, on="image_id")
one = schema.rows(platt, label=LABEL)
by_sex = fairness.performance_table(one, large, ["sex"], **sampling)
by_sex = schema.rows(by_sex, attribute="sex")
table = calibration.risk_by_group(one, by_sex)
off = by_sex.set_index(["model", "group"]).rename_axis(table.index.names)
table["predicted - observed"] = off.apply(fmt_row, 1, digits=3, signed=True)
what = "Risk of pneumothorax by sex, after Platt scaling"
show(table.loc[names], what, digits=3)

# %% tags=["remove-input"]
women, men = (estimate(by_sex, model=first, group=g) for g in "FM")
honest = schema.rows(by_sex, model=others)["value"]
say(f"""
Predicted minus observed, for the model with the under-reported women:
{women:value} in women, {men:value} in men. For the others, over both sexes:
{span(honest, digits=3, signed=True)}. Means over findings are in
[Calibration](07_calibration).
""")

# %% [markdown]
# ## Underdiagnosis
#
# In use, a probability meets a threshold: above it, somebody looks. Below it,
# nobody may look for hours, and air around a lung does not wait. All
# patients share the threshold. If the scores of women are pressed down, more
# ill women than ill men fall below it {cite:p}`seyyedkalantari2021`. The
# threshold here is set for each model and finding so that a chosen share of
# the healthy films stays below it, the *specificity*; *sensitivity* is the
# share of ill films above it.

# %%
decided = fairness.decide(platt, specificity)
WOMEN_MEN = [("F", "M")]
rates = ["sensitivity", "specificity"]
gaps = [
    fairness.gap_table(t, "sex", WOMEN_MEN, metrics=m, **sampling)
    for t, m in ((platt, ["auc"]), (decided, rates))
]
gaps = pd.concat(gaps, ignore_index=True)
keep(gaps.assign(protocol=chosen.name))
on_mean = schema.rows(gaps, label="mean")
show(
    on_mean,
    "Women minus men, mean over findings: AUC, and sensitivity and "
    "specificity at the common threshold",
    rows="model",
    columns="metric",
)

# %% tags=["hide-input"]
drawn = schema.rows(on_mean, metric=["auc", "sensitivity"])
lines = drawn.assign(
    label=drawn["metric"].map(readable), metric="women minus men", group="all"
)
plots.gap_forest(lines)
figure(
    "fig-calibration-underdiagnosis",
    "Women minus men, mean over findings: AUC, which compares films within a "
    "sex, and sensitivity at a threshold common to both.",
    table=drawn,
)

# %% tags=["remove-input"]
asked_of = ((decided, ["sensitivity"]), (platt, ["auc"])) if pair else ()
paired = [
    fairness.model_gap_table(
        schema.rows(t, model=pair),
        [tuple(pair)],
        metrics=m,
        attributes=["sex"],
        **sampling,
    )
    for t, m in asked_of
]
paired = pd.concat([schema.results([]), *paired])
paired = schema.rows(paired, label="mean", attribute="sex")
caught, caught_men = (
    estimate(paired, metric="sensitivity", group=g) for g in "FM"
)
in_order = estimate(paired, metric="auc", group="F")
sens, auc = (
    estimate(on_mean, model=first, metric=m) for m in ("sensitivity", "auc")
)
rest = schema.rows(on_mean, model=others, metric="sensitivity")
lower = "in women is lower too"
lower = lower if in_order.side == "below" else "does not show it"
hidden = {
    "below": f"more ill women are missed, and AUC {lower}",
    "undefined": "what the planted bias does cannot be judged in this run",
}.get(caught.side, "no more ill women are missed, beyond chance")
paired_says = f"""The paired difference to a model of the same making does:
sensitivity in women {caught} (the interval {caught.lies}), in men {caught_men}
(the interval {caught_men.lies}); AUC in women {in_order} (the interval
{in_order.lies})."""
say(f"""
At a specificity of {100 * specificity:.0f} %, the sensitivity of the model
with the under-reported women, women minus men, is {sens}; its AUC: {auc}.
Other models whose sensitivity is lower in women, with the whole interval:
{lying(rest, "below")}. A finding may be easier to see in one sex, so a gap by
itself does not name its cause. {paired_says if pair else ""}

**At this threshold {hidden}.** Whatever the outcome of this run, look at both.
AUC within women compares women with women: if all their scores were lowered
alike, their order would stay and AUC would be content. The threshold would not
move with them.
""")

# %% [markdown]
# ## When the audit shares the bias
#
# All of this took the labels of the test at their word. Those of phantoms are
# true, unless a dial says otherwise; in a hospital they come from the same
# reports as the labels of the training, and what a report leaves out is
# missing in both. What that does can be tried: the same films, but half of the
# findings of women are missing from the *recorded* labels of validation and
# test. (Half, not as many as in training: an audit needs some positives.)


# %% tags=["hide-input"]
def as_recorded(table, cohort):
    """Predictions with the labels that under-reporting would have left."""
    left = underreported(cohort, findings, share=0.5, seed=seed)
    return table.drop(columns="y_true").merge(left, on=["image_id", "label"])


recorded = calibration.recalibrate(
    as_recorded(applied, test), as_recorded(fitted, valid)
).assign(method="Platt")
recorded = recorded.merge(of_film, on="image_id")
audits = {"true labels": platt, "recorded labels": recorded}
audit = [
    fairness.gap_table(
        scored, "sex", WOMEN_MEN, metrics=[large], **sampling
    ).assign(protocol=labels)
    for labels, scored in audits.items()
]
audit = pd.concat(audit, ignore_index=True)
audit = schema.rows(audit, label="mean")
show(
    audit,
    "Calibration in the large, women minus men, mean over findings, by the "
    "labels of the audit",
    rows="model",
    columns="protocol",
)

# %% tags=["hide-input"]
plots.gap_forest(audit)
figure(
    "fig-calibration-audit",
    "Calibration in the large, women minus men: the same models, audited with "
    "true and with under-reported labels.",
)

# %% tags=["remove-input"]
true, rec = (
    schema.rows(audit, protocol=labels).set_index("model") for labels in audits
)
seen = rec["ci_low"].notna() & true["ci_low"].notna()
blamed = (rec["ci_low"] > 0) & (rec["value"] > true["value"])
accused = how_many(blamed.where(seen).loc[others])
then, now = (
    replace(estimate(audit, model=first, protocol=p), why="") for p in audits
)
better = abs(now.value or 0) < abs(then.value or 0)
acquitted = "better" if better else "no better"
if "undefined" in (now.side, then.side):
    acquitted = "neither better nor worse, as far as this run can tell,"
say(f"""
Women minus men, for the model with the under-reported women: {then} with true
and {now} with recorded labels. Other models that seem, by the recorded labels,
to overestimate the risk of women, and by more than by the true ones:
{accused}. By the estimates, the model trained on such reports comes off
{acquitted} with such labels.

No film has changed and no model; only the labels have, and the scale that was
fitted to them. Labels of this kind make an honest model look as if it saw too
much in women, and speak for one that has learned to see too little. No
statistic on these labels can undo this. Somebody has to look at the films
again.
""")

# %% [markdown]
# ## Calibrated within groups, and still unequal
#
# Suppose the labels are true and the scores are recalibrated *within* each
# group, as somebody might propose who has read this far: every group gets a
# scale and a shift of its own, and 30 % means 30 % to the young as to the old.
# Is that the end? In phantoms, findings of older patients are drawn with less
# contrast, unless a dial is turned. Here Platt scaling is fitted for the young
# and the old (60 and over) separately, and one operating point is used for
# both.

# %% tags=["hide-input"]
ages = pd.concat([test.table, valid.table])[["image_id", "age"]]
ages = ages.assign(age60=young_or_old(ages["age"])).dropna()
within = calibration.recalibrate(
    applied.merge(ages, on="image_id"),
    fitted.merge(ages, on="image_id"),
    by=["age60"],
).assign(method="Platt by age")
fair_risk = fairness.performance_table(within, large, ["age60"], **sampling)
fair_risk = schema.rows(fair_risk, label="mean", attribute="age60")
errors = schema.results([])
if within["age60"].nunique() == 2:  # both have validation patients
    errors = fairness.gap_table(
        fairness.decide(within, specificity),
        "age60",
        [("old", "young")],
        metrics=rates,
        **sampling,
    )
errors = schema.rows(errors, label="mean")
both = pd.concat([fair_risk, errors], ignore_index=True)
what = both["metric"].map(readable) + ", " + both["group"].map(readable)
show(
    both.assign(what=what),
    "Platt scaling within each age group, mean over findings",
    digits=3,
    rows="model",
    columns="what",
)

# %% tags=["remove-input"]
apart = (errors["ci_low"] > 0) | (errors["ci_high"] < 0)
unequal = apart.groupby(errors["model"]).any()
crowd = within.groupby(["model", "label", "age60"])["score"].std()
crowd = crowd.groupby("age60").mean().reindex(["old", "young"])
still = "In this run the errors of the two groups are not told apart"
if errors.empty:
    still = "One of the two groups has no validation patients to be fitted on"
elif unequal.any():
    still = "Probabilities that hold in each group do not make errors equal"
wider = "narrower" if crowd["old"] < crowd["young"] else "not narrower"
wider = "not compared" if crowd.isna().any() else f"{wider} in the old"
say(f"""
The interval of predicted minus observed includes 0 in
{lying(fair_risk, "around")} cells of the table. For {how_many(unequal)}
models, the interval of the difference in sensitivity or in specificity
excludes 0. **{still}.**

One reason is information. The fainter a finding, the nearer an honest
probability stays to the prevalence, for the ill and for the healthy. The
spread of the probabilities (standard deviation, mean over models and findings)
is {crowd["old"]:.3f} in the old and {crowd["young"]:.3f} in the young:
{wider}. One threshold cannot suit two crowds of different width. Depending on
where it cuts, more of the ill are missed in one of them, or more of the
healthy alarmed. Whether that is unfair is not a question that calibration can
answer. One may move the threshold of a group and pay on the other side, or
take a better film.

There is a theorem besides: where the prevalence differs between two groups and
the model is not perfect, it cannot be calibrated in both and give the ill of
both the same probability on average, and the healthy of both too
{{cite:p}}`kleinberg2017`.
""")

# %% [markdown]
# ## What was planted, and was it found?

# %% tags=["remove-input"]
fainter = test.planted and "age_group" in test.recipe["dials"]["contrast"]
say(f"""
- *In the training of one model*, reports that leave out findings of women. At
  the common threshold, {hidden}.
- *In the films*, {"" if fainter else "no "}fainter findings in the old. The
  spread of probabilities is {wider}.
- *In the labels of the audit*, findings of women left out. Honest models that
  they accuse: {accused}.
""")

# %% [markdown]
# ## Limits
#
# - Paper S fits nothing, and asks for no group whether probabilities hold. So
#   nothing here can agree or disagree with it.
# - The operating point is one of many. At another, other errors differ.
# - A mean over findings can hide one that goes the other way.
# - The planted bias is mostly a shift in one sex. One of another kind would be
#   repaired less by a shift, or not at all.
# - A fit on patients of the same cohort is the best case. In another hospital,
#   prevalence and films differ, and the fit has to be made anew.

# %% tags=["remove-input"]
in_short(
    f"""
What does a line of logistic regression repair, and for whom? Over the models,
it takes the expected calibration error (equal mass) of pneumothorax from
between {span(at.loc[plain, mass]["value"], to="and")} to between
{span(at.loc["Platt", mass]["value"], to="and")}: the average, not each group.
After training on reports that are silent on women, and at a common threshold,
{hidden}. Honest models that an audit with labels from such reports accuses:
{accused}. Models whose errors still differ when they are calibrated within age
groups: {how_many(unequal)}. Paper S does not ask this.
""",
    figure="fig-calibration-underdiagnosis",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-calibration-sex
# Fit Platt scaling for women and men separately
# (`calibration.recalibrate(..., by=["sex"])`). What becomes of the gap in
# sensitivity of the under-report model? What would you need in a hospital to
# do this?
# ```
#
# ```{solution} ex-calibration-sex
# :class: dropdown
# Merge the column `sex` into `applied` and `fitted` as was done for `age60`.
# Where scores of women were pressed down they move up, and the gap shrinks as
# far as the bias was a shift. In a hospital one needs the sex at the time of
# prediction, a policy that allows its use, and true labels for both sexes:
# with under-reported ones, the fit would restore the bias.
# ```
#
# ```{exercise}
# :label: ex-calibration-prevalence
# A model is calibrated where 12 % of films show a pneumothorax, and then used
# where 2 % do. Are its probabilities too high or too low? What is the smallest
# repair?
# ```
#
# ```{solution} ex-calibration-prevalence
# :class: dropdown
# Too high, if the films of the ill and of the healthy look as before. Only
# the shift has to change, by the difference of the log odds:
# $\log(0.02/0.98) - \log(0.12/0.88) = -1.9$. The scale stays.
# ```
#
# ```{exercise}
# :label: ex-calibration-planted
# Run this chapter and [Calibration](07_calibration) with
# `options={"dials": {"prevalence": 0.3}}`: each finding is there in about 30 %
# of films drawn alike. Write down beforehand which way these go: AUC,
# calibration in the large of the learned scale, the shift of Platt scaling,
# and the Brier score of a constant that knows the prevalence.
# ```
#
# ```{solution} ex-calibration-planted
# :class: dropdown
# AUC compares an ill film with a healthy one, so it stays where it is, up to
# chance. The models were not told, so their predictions rise only as far as
# there are more ill films, by less than the observed frequency: predicted
# minus observed falls. The shift becomes less negative: the log odds of the
# prevalence go from $\log(0.12/0.88) = -2.0$ to $\log(0.3/0.7) = -0.8$. The
# constant gets worse, $0.3 \cdot 0.7 = 0.21$ instead of
# $0.12 \cdot 0.88 = 0.11$.
# ```
#
# ## Further reading
#
# - {cite:t}`guo2017` show how much one temperature repairs.
# - {cite:t}`kleinberg2017` prove which fairness criteria exclude each other.
# - {cite:t}`seyyedkalantari2021` find more missed disease in under-served
#   groups of patients, in large data sets of chest films.
