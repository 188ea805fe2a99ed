# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - say how often a label is right, and for whom, with intervals
#     - tell which of its error rates a way of drawing films leaves alone
#     - correct a gap for wrong labels, and say when that must fail
#     needs:
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # Are the labels equally right for everyone?
#
# *Goes under section 3.3 of {cite:t}`sourget2025`, paper S, and under all of
# {cite:t}`sun2025`, paper X: both take the labels of the NIH at their word.*
#
# A woman lies in intensive care, and her lung has collapsed a little around
# the tip of a drain. The film is taken in bed, the radiologist has forty to
# read, and the report says: "lines unchanged". A program reads the report and
# writes down: no pneumothorax. Years later the film tests a model. A model
# that sees the air loses a point: a false alarm. One that overlooks it is
# praised.
#
# Nobody labelled the films of the NIH; a program labelled their reports. If it
# is wrong more often for some patients than for others, every gap that rests
# on such labels measures the labels too. **How often are they wrong, for whom,
# and what does that do to the numbers of a model?** To begin with, no pixel
# and no model is needed: for some of the films, radiologists looked again.

# %% tags=["parameters"]
finding: str = "pneumothorax"  # {pneumothorax, nodule, opacity} looked at
opacity: str = "infiltration"  # {pneumonia, infiltration, edema, every} as one
seed: int = 1907  # [0, 1000000] of resamples, simulations and phantoms
n_images: int = 4000  # [100, 1000000] of the phantom, in the second half
n_resamples: int = 500  # [2, 100000] bootstrap resamples
n_permutations: int = 500  # [10, 1000000] groups dealt anew, for a fair label

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# The films, their two labels, and what is known of the patients. Those of 60
# and over are called old, as in paper X.

# %% tags=["hide-input"]
from itertools import product

import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import adjudicated, metadata, planted
from cxrlib.papers import published
from cxrlib.predict import zeroshot
from cxrlib.show import plots
from cxrlib.show.notebook import figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, estimate, fmt, listed, readable, span
from cxrlib.stats import fairness, inference, label_audit, label_error, metrics

# %% tags=["hide-input"]
films = adjudicated.load(opacity)
films["age60"] = metadata.young_or_old(films["age"])
FINDING = next(f for f in adjudicated.FINDINGS if finding in f.lower())
THIS = FINDING.lower()
noted, read = films[f"noted {FINDING}"], films[f"adjudicated {FINDING}"]
labels = adjudicated.predictions(films)
ours = schema.rows(labels, label=FINDING)
draws = {"n_resamples": n_resamples, "seed": seed}

# %% [markdown]
# ## Two labels of one film
#
# {cite:t}`majkowska2020` had each of these films read by several radiologists
# and brought to one answer. We take this for the truth here and write *read*
# for it, and *noted* for what the program found in the report.

# %%
crossed = pd.crosstab(
    noted.map({1: "noted", 0: "not noted"}),
    read.map({1: "read", 0: "not read"}),
)
crossed = crossed.rename_axis(index=None, columns=None)
show(crossed, f"{FINDING}: films by note and by reading", counts=())

# %% [markdown]
# Four shares of such a table have names. Two start from the truth. Of the
# films in which the finding is read, *sensitivity* is the share in which it is
# noted; of the others, *specificity* is the share in which it is not. Two
# start from the note. Of the films with a note, the *positive predictive
# value*, PPV, is the share in which the finding is read; of those without, the
# negative one, NPV, is the share in which it is not.

# %%
whole = label_audit.shares(labels, mean_over_labels=False, **draws)
what = "How often the noted labels are right, with intervals over patients"
show(whole, what, rows="label", columns="metric")

# %% tags=["remove-input"]
nih = metadata.nih()
words = nih.set_index("image_id").loc[films["image_id"]]
words = words[list(metadata.FINDINGS)].sum(axis=1).to_numpy()
broken = films["adjudicated Fracture"] == 1
se_all, ppv_all = (
    estimate(whole, label=FINDING, metric=m) for m in ("sensitivity", "ppv")
)
say(f"""
{count(len(films))} films of {count(films["patient_id"].nunique())} patients
were read. Of the {count(read.sum())} with {THIS}, the label finds a share of
{se_all}; of the {count(noted.sum())} that it marks, a share of {ppv_all} holds
it.

Fractures were read too, in {count(broken.sum())} films. NIH has no label for
them; {count((broken & (words == 0)).sum())} of these films are noted with no
finding at all. A label cannot be wrong about what it has no word for, and a
model that learned from it cannot be right.
""")

# %% [markdown]
# ## A word that the NIH does not have
#
# "Pneumothorax" is one word in both sources, and a nodule or mass is noted
# where either is. "Airspace opacity" is none of NIH's words. Which of them
# count is a choice: the narrowest takes consolidation and pneumonia, the next
# infiltration too, then edema, and the last atelectasis. Each finds more and
# is wrong more often. *Infiltration* is a word for the same shadow that some
# radiologists use and others avoid; one number for such a label is a choice.

# %% tags=["hide-input"]
choices = pd.concat(
    adjudicated.predictions(adjudicated.load(name)).assign(cohort=name)
    for name in adjudicated.OPACITY
)
choices = schema.rows(choices, label="Airspace opacity")
choices = label_audit.shares(choices, **draws)
choices["method"] = choices["cohort"]
what = "Airspace opacity: how often it is noted rightly, by what counts as one"
show(choices, what, rows="method", columns="metric")

# %% [markdown]
# ## For whom are they right?
#
# A label is a classifier that says yes or no, so it can be audited like one
# ([chapter 4](04_subgroup_fairness)). The *view* says how a film was taken: PA
# standing, AP mostly in bed, where the sicker patients are.

# %%
GROUPS = ["sex", "age60", "view", ("view", "sex"), ("view", "age60")]
groups = label_audit.shares(ours, GROUPS, **draws)
show(
    groups,
    f"{FINDING}: how often the noted label is right, by group",
    rows=["attribute", "group"],
    columns="metric",
)

# %% [markdown]
# Each gap needs an interval of its own and a *noise floor*: how large a gap
# chance alone makes. To find it, patients with the same reading are dealt to
# the two groups anew, many times.

# %%
pairs = ("F", "M"), ("old", "young"), ("AP", "PA")
PAIRS = {a: [pair] for a, pair in zip(GROUPS, pairs, strict=False)}
fair = {"n_permutations": n_permutations, "mean_over_labels": False}
ask = {"metrics": "sensitivity", **draws}
tests = inference.gap_tests(labels, PAIRS, **fair, **ask)
keep(tests[list(schema.COLUMNS)])

# %% tags=["hide-input"]
lines = tests.assign(attribute="all", model="noted label")
plots.gap_forest(lines.sort_values("label", key=lambda c: c != FINDING))
figure(
    "fig-label-gaps",
    "Whom the noted labels miss: gaps in their sensitivity, with 95 % "
    "intervals. Left of 0, more is missed in the group named first. Grey: the "
    "noise floor, within which 95 of 100 fair labels show a gap.",
)

# %% [markdown]
# Is it the group, or what comes with it? Groups can be weighted so that both
# have the same mix of what is recorded. How ill a patient is, is not recorded.
# A stand-in is another finding on the same film, which may hide this one or
# draw the eye away from it.

# %% tags=["hide-input"]
OTHER = [f for f in adjudicated.FINDINGS[::2] if f != FINDING][-1]
second = films.set_index("image_id")[f"adjudicated {OTHER}"]
ours["second"] = ours["image_id"].map(second)
MIXES = {"the other two": [], "these and part": ["set"]}
MIXES[f"these and {OTHER.lower()}"] = ["second"]
matched = []
for (name, more), attribute in product(MIXES.items(), PAIRS):
    mix = ["prevalence", *(a for a in PAIRS if a != attribute), *more]
    pair = PAIRS[attribute]
    gap = fairness.gap_table(ours, attribute, pair, match=mix, **ask)
    matched.append(gap.assign(method=name))
matched = pd.concat(matched, ignore_index=True)
show(
    matched,
    f"{FINDING}: gaps in sensitivity between groups matched on the other two "
    "of sex, age and view, and on more",
    rows="method",
    columns="group",
)

# %% tags=["remove-input"]
sex, age, view = (estimate(tests, label=FINDING, attribute=a) for a in PAIRS)
known = tests.dropna(subset=["value", "floor_p95"])
beyond = (known["value"].abs() > known["floor_p95"]).sum()
left = inference.as_family(known)
left = left[left["p_holm"] < 0.05]
which = left["label"].str.lower() + ", " + left["group"].map(readable)
signs = schema.rows(tests, attribute="view")["value"]
turn = "differ in sign" if signs.min() < 0 < signs.max() else "agree in sign"
most = estimate(matched, group="AP - PA", method=f"these and {OTHER.lower()}")
say(f"""
The gap in sensitivity for {THIS} is {sex} between women and men (the interval
{sex.lies}), {age} between old and young (it {age.lies}) and {view} between AP
and PA (it {view.lies}). Matched on most, the last is {most} (it {most.lies}).
Of {len(known)} gaps in {{numref}}`fig-label-gaps`, {beyond} lie beyond their
floor; after Holm's correction remain: {listed(which)}. The gaps of the three
findings by view {turn}.

A gap within its floor may still be there: the {count(read.sum())} films that
hold the finding do not tell it from chance.
""")

# %% [markdown]
# ## How the films were drawn
#
# Nobody reads a hundred thousand films. These were drawn, in two parts with
# different patients, and a draw can make a gap. What it leaves alone depends
# on what it looked at:
#
# - **The note**: say, more films with a note. PPV and NPV start from the note
#   and stay. Sensitivity goes up, specificity down.
# - **The truth**: more ill films. Sensitivity and specificity stay. PPV goes
#   up, NPV down.
# - **Something else**, such as the bed or the ward: among films alike in it
#   all four stay. Overall, each becomes a mix of other proportions.

# %% tags=["hide-input"]
nih["noted"] = nih[adjudicated.noted(opacity)[FINDING]].max(axis=1)
nih["AP"] = nih["view"].eq("AP")
nih["set"] = nih["image_id"].map(films.set_index("image_id")["set"])
parts = pd.concat([nih.assign(set="all of NIH"), nih.dropna(subset="set")])
parts = parts.groupby("set")[["AP", "noted"]].mean().rename_axis(index=None)
show(parts, f"Share of AP films, and of films noted with {THIS}")

pair, mix = [("validation", "test")], ["prevalence", "view"]
apart = label_audit.shares(ours, "set", pair, match=mix, **draws)
what = f"{FINDING}: validation minus test part, at the same mix of views"
show(apart, what, rows="label", columns="metric")

# %% tags=["remove-input"]
METRICS = (*label_audit.RATES, *label_audit.VALUES)
se, sp, ppv, npv = (estimate(apart, metric=m) for m in METRICS)
say(f"""
Drawn by the truth alone, the parts would agree in sensitivity and specificity.
These differ by {se} and {sp} (the interval of the second {sp.lies}). Drawn by
the note alone, they would agree in PPV and NPV, which differ by {ppv} and
{npv} (the interval of the second {npv.lies}). Where an interval leaves out
zero, the films were not drawn in that way alone.
""")

# %% [markdown]
# What are the labels worth in *all* films of the NIH? Suppose the draw looked
# at nothing but note and view. Then PPV and NPV of each view hold for all
# films, and with the share $q$ of these that are noted,
#
# $$ \mathrm{Se} = \frac{q\,\mathrm{PPV}}
# {q\,\mathrm{PPV} + (1 - q)(1 - \mathrm{NPV})} $$ (eq-label-verification)
#
# {cite:p}`begg1983`.

# %%
q = nih.groupby("view")["noted"].mean()
carried = label_audit.carried_over(ours, "view", q, PAIRS["view"], **draws)
what = f"{FINDING}: the noted label carried over to all films of the NIH"
show(carried, what, rows="group", columns="metric")

# %% tags=["remove-input"]
test = schema.rows(ours, set="test")
tested = estimate(fairness.gap_table(test, "view", PAIRS["view"], **ask))
over = estimate(carried, group="AP - PA", metric="sensitivity")
depends = "depends on which films are meant"
if view.side == tested.side == over.side:
    depends = "has the same answer in all three"
say(f"""
**Whether labels miss more in bed {depends}**: as drawn, the gap is {view}, in
the test part {tested}, carried over {over} (the interval {over.lies}). As the
draw was not that simple, the last is no better an answer than the first; it
shows what a draw can do. (The test part is named after the official test list
of the NIH, on which paper S computes. That list is no open table.)
""")

# %% tags=["remove-input"]
quiz(
    "All films with a note are reread, and as many without one. Which shares "
    "can be read off as they are?",
    {
        "Sensitivity and specificity.": (
            False,
            "Among the ill films reread, those with a note are too many.",
        ),
        "PPV and NPV.": (True, "The draw looked at the note, as they do."),
    },
)

# %% [markdown]
# ## What a perfect model looks like
#
# Take a model that agrees with the radiologists on every film, and test it
# against the notes. Of the films with a note, it says yes to those that hold
# the finding: its sensitivity is the PPV of the *label*. In general, if the
# errors of the label have nothing to do with the score of the model, its
# sensitivity (TPR), false positive rate (FPR) and AUC become
#
# $$ \begin{aligned} \mathrm{TPR}' &= \mathrm{PPV}\cdot\mathrm{TPR} +
# (1 - \mathrm{PPV})\,\mathrm{FPR} \\ \mathrm{AUC}' - \tfrac12 &=
# (\mathrm{PPV} + \mathrm{NPV} - 1)(\mathrm{AUC} - \tfrac12)
# \end{aligned} $$ (eq-label-noted)
#
# against the notes {cite:p}`menon2015`. Where labels or prevalences differ
# between groups, a model that treats everybody alike seems to have favourites:

# %% tags=["hide-input"]
MODELS = {"perfect": {}, "imperfect": {"auc": 0.85}}
MODELS["imperfect"] |= {"sensitivity": 0.8, "specificity": 0.9}
alike = [
    label_audit.as_noted(ours, a, pair, **rates).assign(model=name)
    for name, rates in MODELS.items()
    for a, pair in PAIRS.items()
]
alike = pd.concat(alike)
alike["gap"] = alike["model"] + ": " + alike["group"].map(readable)
wide = alike.pivot(index="gap", columns="metric", values="noted")
kept = ["auc", *label_audit.RATES, "eq_odds_mean", "calibration_in_the_large"]
what = f"{FINDING}: gaps that the notes show of models that have none"
show(wide[kept].rename_axis(columns=None), what, digits=3)

# %% tags=["remove-input"]
top = whole.pivot(index="label", columns="metric", values="value")
top = 0.5 + (top["ppv"] + top["npv"] - 1) / 2
ceilings = [f"{fmt(top[n])} for {n.lower()}" for n in adjudicated.FINDINGS]
odds = schema.rows(alike, metric="eq_odds_mean")["noted"]
say(f"""
The perfect model reaches an AUC of {listed(ceilings)}: the ceiling, on these
films, of any model that does not share the errors of the label. Nor does a
calibrated model look calibrated: its honest probability is compared with a
wrong frequency. Equalised odds, in truth zero without a gap, go from
{span(odds, digits=3)}, and chance adds to that.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# If error rates are known, the formulas can be turned around: from the numbers
# against the notes to those against the truth {cite:p}`rogan1978`. This holds
# if errors have nothing to do with the score. Phantoms, of which the truth is
# known, show what happens if they have. Notes of a pneumothorax are planted
# that are wrong more often in women than in men: they miss some, and name some
# that are not there. What they miss, they miss *by chance*, as with the dial
# `underreport`, or *the fainter* the sooner, as a hurried reader does. Half of
# the patients are audited: their truth is known too, and with it the error
# rates in each sex.

# %% tags=["hide-input"]
ILL = "Pneumothorax"
phantom = cohorts.load("phantom", n_images=n_images, seed=seed)
about = phantom.table[["image_id", "sex", f"severity_{ILL}"]]
seen = zeroshot.predict(phantom, ["phantom-resnet"], [ILL]).merge(about)
decided = fairness.decide(seen, specificity=0.8)
wrong = {"sex": {"F": 0.5, "M": 0.25}}, {"sex": {"F": 0.03, "M": 0.01}}
notes = {
    way: planted.noted(seen, ILL, *wrong, faint=faint, seed=seed)
    for way, faint in (("by chance", 0), ("the fainter", 1))
}
people = np.random.default_rng(seed).permutation(seen["patient_id"].unique())
audited = seen["patient_id"].isin(people[: len(people) // 2]).to_numpy()
measured = []
for way, note in {"in truth": seen["y_true"], **notes}.items():
    audit = seen.assign(score=note.astype(float), model="label")[audited]
    for table, of in ((seen, "auc"), (decided, label_audit.RATES)):
        shown = table.assign(y_true=note)
        found = label_error.corrected_table(
            shown, audit, "sex", of, rates_by="sex", **draws
        )
        fixed = found["method"].str.endswith(label_error.CORRECTED)
        names = {True: f"{way}, corrected", False: way}
        measured.append(found.assign(model=fixed.map(names), method=""))
measured = pd.concat(measured, ignore_index=True)
measured = measured[measured["model"] != "in truth, corrected"]
show(
    schema.rows(measured, group="F - M"),
    "phantom-resnet, women minus men: in truth, and against notes that miss "
    "by chance, or the fainter",
    rows="metric",
    columns="model",
)

# %% tags=["hide-input"]
areas = schema.rows(measured, metric="auc", group=["all", "F", "M"])
plots.bars(areas, x="group")
figure(
    "fig-label-phantom",
    "AUC of phantom-resnet, by sex: in truth, and against notes that "
    "miss by chance, or the fainter; as they are, and corrected for the error "
    "rates that an audit finds.",
)

# %% tags=["remove-input"]
true, by_note, fixed = (
    estimate(measured, metric="auc", group="F - M", model=m)
    for m in ("in truth", "by chance", "by chance, corrected")
)
whom, overdone = (
    estimate(measured, metric="auc", group="all", model=m)
    for m in ("in truth", "the fainter, corrected")
)
ends = {"ci_low": overdone.low, "ci_high": overdone.high}
where = {"above": "lies above", "below": "lies below", "around": "includes"}
where = where.get(schema.side(ends, whom.value), "cannot be set beside")
astray = f"its interval {where} the truth, {fmt(whom.value)}"
say(f"""
In truth, the gap in AUC is {true}. Against the notes it is {by_note},
corrected {fixed}. Its interval is wider, as error rates are uncertain too.

If the fainter are missed, the corrected AUC of all is {overdone}; {astray}.
About as many are missed; what differs is *which*. The faint are hard for the
model too. Notes without them make it look good, and the correction, which
knows only how many are missed, makes it look better still.

The next table simulates labels that are as often wrong as those of the NIH.
Line by line, what is missed depends more on the score. No AUC is above one:
where the table has one, the assumption behind the correction is refuted.
""")

# %% tags=["hide-input"]
rates = schema.rows(whole, label=FINDING).set_index("metric")["value"]
rates = {"prevalence": read.mean(), **rates[[*label_audit.RATES]]}
rates["auc"] = MODELS["imperfect"]["auc"]
table = label_error.dependent(seed=seed, **rates)
what = "AUC: true, against the notes, and corrected for known error rates"
show(table.rename(columns={"dependence": "correlation"}), what)

# %% [markdown]
# Do corrected intervals hold the truth as often as they say? To know takes
# many studies, *recorded* by `benchmarks/label_error.py`. Each draws patients
# of a large phantom population, plants wrong labels anew and audits some.

# %% tags=["hide-input"]
recorded = label_error.recorded()
cover = schema.rows(recorded, group="all", metric=["auc", "sensitivity"])
cover["what"] = cover["metric"].map(readable) + ", " + cover["labels"]
wide = cover.pivot(index="design", columns="what", values="coverage")
what = "How often the interval of all patients holds the truth, per cent"
show(100 * wide.rename_axis(columns=None), what, digits=1)

# %% tags=["remove-input"]
fit = ["one rate", "rates by sex", "one rate, other patients audited"]
right = schema.rows(cover, design=fit, labels="corrected")["coverage"]
odd = [design for design in wide.index if design not in fit]
least = count(cover["n_studies"].min())
gap = schema.rows(recorded, design="rates by sex", group="F - M", metric="auc")
gap = gap.set_index("labels")["coverage"]
say(f"""
Recorded on {recorded["date"].max()}, at least {least} studies a line. Where
the assumption holds, {span(100 * right, digits=0)} % of the corrected
intervals hold the truth. It does not hold in: {listed(odd)}. Where rates
differ by sex, the true gap in AUC by sex is held by
{fmt(100 * gap["corrected"], 0)} % of the corrected intervals and
{fmt(100 * gap["as noted"], 0)} % of the others.
""")

# %% [markdown]
# ## What it means for the two papers
#
# Paper S asks whether models find pneumothorax with and without chest drains,
# by the labels of the NIH (its Fig. 4). Paper X draws films that are noted
# with exactly one finding, and takes this for their class.

# %% tags=["remove-input"]
air = schema.rows(labels, label="Pneumothorax", set="test")
air = label_audit.shares(air, **draws)
ppv, npv = (estimate(air, metric=m) for m in label_audit.VALUES)
alone = read[(words == 1) & (noted == 1)]
printed = span(published.table("X Fig. 3d")["value"], digits=3)
say(f"""
For S: of the films of the test part that are noted with pneumothorax, a share
of {ppv} holds it by the reading, so a perfect model shows an AUC of
{fmt(0.5 + (ppv.value + npv.value - 1) / 2)}. The ill of Fig. 4, with drains
and without, are films with a *note*. A drain can stay in when the air has gone
and the report still names the disease. What Fig. 4 measures depends on whether
notes are right as often with drains as without. To know, somebody has to read
films with known drains.

For X: of {count(len(alone))} films noted with {THIS} and nothing else, a share
of {fmt(alone.mean())} holds it. X prints equalised odds of {printed}; the
table of models without a gap says what labels alone can add to that.
""")

# %% [markdown]
# ## Limits
#
# - Radiologists who agree are not the truth: a CT sees more. And a report may
#   know what the film does not show, such as the film of last week.
# - The films are of one hospital, without race, and drawn as they were drawn.
# - Whether errors depend on scores is not known for the NIH. It would take
#   scores of these films: with `data=nih`, anybody can make them.

# %% tags=["remove-input"]
in_short(
    f"""
Against radiologists who read {count(len(films))} films of the NIH again, the
text-mined label finds a share of {se_all} of {THIS}, and is right in
{ppv_all} of the films it marks. The share found differs by {sex} between women
and men, and between films taken in bed (AP) and standing (PA) by {view} as
drawn, by {over} carried over to all films. Tested against such labels, a
perfect model would show an AUC of {fmt(top[FINDING])}. On phantoms, labels
planted worse for women turn a gap in AUC of {true} into {by_note}, and into
{fixed} when corrected for their error rates. Where labels miss the fainter
findings, the corrected AUC is {overdone}; {astray}.
""",
    figure="fig-label-gaps",
    found=f"NIH's label finds {se_all} of {THIS} on films read again.",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-label-ppv
# Suppose a label has a sensitivity of 0.6 and a specificity of 0.98 in women
# and in men. Women have the finding in 2 % of films, men in 10 %. What is the
# sensitivity of a perfect model against these labels in each?
# ```
#
# ```{solution} ex-label-ppv
# :class: dropdown
# The PPV. Of 1,000 films of women, 20 hold it and 12 are noted; of the other
# 980, about 20 are noted. So $12 / 32 = 0.38$. Of 1,000 films of men, 60 and
# 18: $60 / 78 = 0.77$. Labels that are equally good make a fair model unfair.
# ```
#
# ```{exercise}
# :label: ex-label-test
# Error rates do not say whether errors depend on the score. Which comparison
# would? Try it on the ill women of the phantoms.
# ```

# %% tags=["remove-input", "solution"]
ill = ((seen["sex"] == "F") & (seen["y_true"] == 1)).to_numpy()
told = [
    f"{fmt(metrics.auc(note[ill], seen['score'][ill]))} ({way})"
    for way, note in notes.items()
]
say(f"""
```{{solution}} ex-label-test
:class: dropdown
Among films that hold the finding, do noted ones score higher than missed ones?
If errors do not depend on the score, the AUC of this comparison is 0.5. In
this run: {listed(told)}. An audit that keeps its films, and not only its
counts, can test what the correction assumes.
```
""")

# %% [markdown]
# ```{exercise}
# :label: ex-label-opacity
# Predict, then run `cxrbook run 22 -p finding=opacity -p opacity=every`: where
# do sensitivity, the gap by view and the ceiling go?
# ```
#
# ```{solution} ex-label-opacity
# :class: dropdown
# The wider choice finds more and is wrong more often. By view, the gap turns
# around: in bed, opacities are large, and reports name them. The ceiling
# hardly moves, for what NPV gains, PPV pays.
# ```
#
# ## Further reading
#
# - {cite:t}`oakdenrayner2020datasets` looked at films of the NIH himself.
# - {cite:t}`natarajan2013` train on labels whose error rates are known.
# - {cite:t}`vacek1985` asks what happens when two tests err together.
