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
# the tip of a drain. The film is taken in bed, the radiologist has forty of
# them to read, and the report says: "lines unchanged". A program then reads
# the report and writes down for this film: no pneumothorax. Years later the
# film tests a model. The model sees the air, and its score goes down: a false
# alarm. Another model overlooks the air and is praised.
#
# Of the films of the NIH nobody labelled one; a program labelled their
# reports. If it is wrong more often for some patients than for others, then
# every number of this book that rests on such labels, and every gap, measures
# the labels too. **How often are they wrong, for whom, and what does that do
# to the numbers of a model?** The first two questions need no pixel and no
# model: for some of the films, radiologists have looked again.

# %% tags=["parameters"]
finding: str = "pneumothorax"  # {pneumothorax, nodule, opacity} looked at
opacity: str = "infiltration"  # {pneumonia, infiltration, edema, all} as one
seed: int = 1907  # [0, 1000000] of resamples, simulations and phantoms
n_images: int = 4000  # [100, 1000000] of the phantom, in the second half
n_resamples: int = 500  # [2, 100000] bootstrap resamples
n_permutations: int = 500  # [10, 1000000] groups dealt anew, for a fair label

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# The films, their two labels, and what is known of the patients. "Old" is
# from 60, as in paper X; children count as young.

# %%
import numpy as np
import pandas as pd
from cxrlib import cohorts, schema
from cxrlib.cohorts import adjudicated, metadata
from cxrlib.cohorts.labels import underreported
from cxrlib.papers import published
from cxrlib.predict import zeroshot
from cxrlib.show import plots
from cxrlib.show.notebook import figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import (
    count,
    estimate,
    fmt,
    listed,
    percent,
    readable,
    span,
)
from cxrlib.stats import fairness, inference, label_audit, label_error, metrics

# %%
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
# {cite:t}`majkowska2020` had each of these films read by several radiologists,
# who settled where they disagreed. We take this for the truth here and write
# *read* for it, and *noted* for what the program found in the report.

# %%
crossed = pd.crosstab(
    noted.map({1: "noted", 0: "not noted"}),
    read.map({1: "read", 0: "not read"}),
    margins=True,
    margins_name="together",
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
silent = nih.set_index("image_id").loc[films["image_id"]]
silent = (silent[list(metadata.FINDINGS)] == 0).all(axis=1).to_numpy()
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
them, and {count((broken & silent).sum())} of these films are noted with no
finding at all. A label cannot be wrong about what it has no word for, and a
model that learned from it cannot be right.
""")

# %% [markdown]
# ## A word that the NIH does not have
#
# "Pneumothorax" is one word in both sources, and a nodule or mass is noted
# where either is. "Airspace opacity" is none of NIH's words. Which of them
# count is a choice, and each wider one adds a word:

# %%
choices = []
for name, words in adjudicated.OPACITY.items():
    own = adjudicated.predictions(adjudicated.load(name))
    own = schema.rows(own, label="Airspace opacity")
    of = label_audit.shares(own, **draws)
    choices.append(of.assign(method=f"{words[-1]} ({name})"))
choices = pd.concat(choices)
show(
    choices,
    "Airspace opacity: the last word of NIH that counts as a note of it, and "
    "what the parameter calls the choice",
    rows="method",
    columns="metric",
)

# %% tags=["remove-input"]
found, right = (
    span(schema.rows(choices, metric=m)["value"]) for m in label_audit.RATES
)
say(f"""
Sensitivity goes from {found}, specificity from {right}. *Infiltration* is a
word for the same shadow that some radiologists use and others avoid: no choice
is right. This run takes "{opacity}"; one number for such a label is a choice.
""")

# %% [markdown]
# ## For whom are they right?
#
# A label is a classifier that says 0 or 1, so it can be audited like a model
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
# Each gap needs an interval of its own and a *noise floor*: the gap that a
# label would show that is equally right for both groups, when patients with
# the same reading swap their groups.

# %%
PAIRS = {"sex": [("F", "M")], "age60": [("old", "young")]}
PAIRS |= {"view": [("AP", "PA")]}
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
# Is it the group, or what comes with it? Groups can be given the same mix of
# what is recorded. How ill a patient is is not; a proxy is another finding on
# the same film, which may hide this one or draw the eye away from it.

# %%
OTHER = [f for f in adjudicated.FINDINGS[::2] if f != FINDING][-1]
second = films.set_index("image_id")[f"adjudicated {OTHER}"]
ours["second"] = ours["image_id"].map(second)
matched = []
for attribute, pair in PAIRS.items():
    rest = [a for a in PAIRS if a != attribute]
    mixes = {"nothing": [], "the other two": rest}
    mixes["these and part"] = [*rest, "set"]
    mixes[f"these and {OTHER.lower()}"] = [*rest, "second"]
    for name, mix in mixes.items():
        mix = ["prevalence", *mix] if mix else None
        gap = fairness.gap_table(ours, attribute, pair, match=mix, **ask)
        matched.append(gap.assign(method=name))
matched = pd.concat(matched, ignore_index=True)
show(
    matched,
    f"{FINDING}: gaps in sensitivity, groups matched on nothing, on the other "
    "two of sex, age and view, and on more",
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
signs = schema.rows(tests, attribute="view").set_index("label")["value"]
turn = "differ in sign" if signs.min() < 0 < signs.max() else "agree in sign"
by_view = listed(
    f"{fmt(v, 2, True)} for {n.lower()}" for n, v in signs.items()
)
most = estimate(matched, group="AP - PA", method=f"these and {OTHER.lower()}")
say(f"""
The gap in sensitivity for {THIS} is {sex} between women and men (the interval
{sex.lies}), {age} between old and young (it {age.lies}) and {view} between AP
and PA (it {view.lies}). Matched on most, the last is {most} (it {most.lies}).
Of {len(known)} gaps in {{numref}}`fig-label-gaps`, {beyond} lie beyond their
floor; after Holm's correction remain: {listed(which)}. The gaps by view
{turn}: {listed(by_view)}.

A gap that lies within its floor is not shown to be 0: among
{count(read.sum())} films that hold the finding, only a large one would have
been seen.
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

# %%
nih["noted"] = nih[adjudicated.noted(opacity)[FINDING]].max(axis=1)
nih["AP"] = nih["view"].eq("AP")
nih["films of the patient"] = nih.groupby("patient_id")["view"].transform(
    "size"
)
nih["set"] = nih["image_id"].map(films.set_index("image_id")["set"])
parts = pd.concat([nih.assign(set="all of NIH"), nih.dropna(subset="set")])
parts = parts.groupby("set")[["AP", "noted", "films of the patient"]].mean()
show(
    parts.rename_axis(index=None),
    f"The parts and the whole: share of AP films, of films noted with {THIS}, "
    "and how many films the NIH has of a film's patient, on average",
)
apart = label_audit.shares(
    ours,
    "set",
    [("validation", "test")],
    match=["prevalence", "view"],
    **draws,
)
what = f"{FINDING}: validation minus test part, at the same mix of views"
show(apart, what, rows="label", columns="metric")

# %% tags=["remove-input"]
METRICS = (*label_audit.RATES, *label_audit.VALUES)
se, sp, ppv, npv = (estimate(apart, metric=m) for m in METRICS)
way = {
    (True, True): "Either way alone would fit",
    (True, False): "Only a draw at the truth would fit",
    (False, True): "Only a draw at the note would fit",
    (False, False): "Neither way alone fits",
}[se.side == sp.side == "around", ppv.side == npv.side == "around"]
say(f"""
Drawn at the truth alone, the parts would agree in sensitivity and specificity:
these differ by {se} and {sp}. Drawn at the note alone, they would agree in PPV
and NPV: these differ by {ppv} and {npv}. **{way}.**
""")

# %% [markdown]
# What are the labels worth in *all* films of the NIH? Had the draw looked at
# nothing but note and view, PPV and NPV could be carried over. With the share
# $q$ of films that are noted, which is known of all,
#
# $$ \mathrm{Se} = \frac{q\,\mathrm{PPV}}
# {q\,\mathrm{PPV} + (1 - q)(1 - \mathrm{NPV})} $$ (eq-label-verification)
#
# {cite:p}`begg1983`.

# %%
q = nih.groupby("view")["noted"].mean()
carried = label_audit.carried_over(ours, "view", q, PAIRS["view"], **draws)
asked = {"as drawn": ours, "test part": schema.rows(ours, set="test")}
answers = [
    fairness.gap_table(of, "view", PAIRS["view"], **ask).assign(method=name)
    for name, of in asked.items()
]
answers.append(carried.assign(method="carried over to the NIH"))
answers = schema.rows(pd.concat(answers), metric="sensitivity")
answers = schema.rows(answers, group="AP - PA")
what = f"{FINDING}: gap in sensitivity between AP and PA, asked in three ways"
show(answers, what, rows="method", columns="group")

# %% tags=["remove-input"]
drawn, tested, over = (estimate(answers, method=m) for m in answers["method"])
depends = "depends on which films are meant"
if drawn.side == tested.side == over.side:
    depends = "has the same answer in all three"
say(f"""
**Whether labels miss more in bed {depends}**: as drawn, the gap is {drawn}, in
the test part {tested}, carried over {over} (the interval {over.lies}). As the
draw was not that simple, the last is no better an answer than the first. It
shows what a draw can do. The test part is named after the official test list
of the NIH, on which paper S computes; the list itself is not among the open
tables.
""")

# %% tags=["remove-input"]
quiz(
    "A hospital has all films with a note reread, and as many without one. "
    "Which shares can be read off as they are?",
    {
        "Sensitivity and specificity.": (
            False,
            "Films with a note are overrepresented among the ill ones that "
            "were reread: sensitivity comes out too high.",
        ),
        "PPV and NPV.": (
            True,
            "The draw looked at the note, and both start from the note.",
        ),
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

# %%
MODELS = {"perfect": {}, "imperfect": {"auc": 0.85}}
MODELS["imperfect"] |= {"sensitivity": 0.8, "specificity": 0.9}


def as_noted(attribute, pair, name):
    """What the notes show of a model that is alike in two groups."""
    given = {}
    for group in pair:
        own = schema.rows(groups, attribute=attribute, group=group)
        own = own.set_index("metric")["value"].add_prefix("label_")
        share = read[films[attribute] == group].mean()
        given[group] = {**own[:2], "prevalence": share, **MODELS[name]}
    return label_error.distorted(given).assign(model=name)


alike = [as_noted(a, *pair, m) for a, pair in PAIRS.items() for m in MODELS]
alike = pd.concat(alike)
alike = alike[alike["group"].str.contains(" - ")]
alike["gap"] = alike["model"] + ": " + alike["group"].map(readable)
shown = ["auc", *label_audit.RATES, "eq_odds_mean", "calibration_in_the_large"]
what = f"{FINDING}: gaps that the notes show of models that have none"
wide = alike.pivot(index="gap", columns="metric", values="noted")[shown]
show(wide.rename_axis(columns=None), what, digits=3)

# %% tags=["remove-input"]
rates = {
    n: [films[f"adjudicated {n}"].mean()]
    + [estimate(whole, label=n, metric=m).value for m in label_audit.RATES]
    for n in adjudicated.FINDINGS
}
top = {n: label_error.noted_auc(1, *of) for n, of in rates.items()}
ceilings = listed(f"{fmt(x)} for {n.lower()}" for n, x in top.items())
odds = schema.rows(alike, metric="eq_odds_mean")["noted"]
say(f"""
The perfect model reaches an AUC of {ceilings}: that is the ceiling of any
model on these films. Its calibration suffers too, for an honest probability is
compared with a wrong frequency. Equalised odds of models without a gap range
from {span(odds, digits=3)} here, before any chance has played its part.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# The formulas ask that errors have nothing to do with the score. Phantoms, of
# which the truth is known, show what hangs on this. The notes leave out about
# half of the pneumothoraces of women, in two ways: *by chance*, as the dial
# `underreport` does, and *the faint* ones, as a hurried reader does. Nothing
# is left out in men. A quarter of the patients is audited: of these both
# labels are known, and with them the error rates in each sex.

# %%
ILL = "Pneumothorax"
phantom = cohorts.load("phantom", n_images=n_images, seed=seed)
severity = phantom.table[["image_id", "sex", f"severity_{ILL}"]]
seen = zeroshot.predict(phantom, ["phantom-resnet"], [ILL]).merge(severity)
left = underreported(phantom, [ILL], share=0.5, seed=seed)
by_chance = seen[["image_id"]].merge(left)["y_true"]
hers = (seen["sex"] == "F") & (seen["y_true"] == 1)
faint = seen[f"severity_{ILL}"] < seen.loc[hers, f"severity_{ILL}"].median()
notes = {"by chance": by_chance, "the faint": seen["y_true"].mask(faint, 0)}
notes["the faint"] = seen["y_true"].mask(hers & faint, 0)
people = np.random.default_rng(seed).permutation(seen["patient_id"].unique())
audited = seen["patient_id"].isin(people[: len(people) // 4])
seen["label"] = ILL

# %%
truth = fairness.gap_table(seen, "sex", [("F", "M")], metrics="auc", **draws)
lines = [truth.assign(label=way, model="truth") for way in notes]
for way, note in notes.items():
    audit = seen.assign(score=note.astype(float), model="label")
    of = label_error.corrected_table(
        seen.assign(y_true=note),
        audit[audited],
        "sex",
        rates_by="sex",
        pairs={"sex": [("F", "M")]},
        **draws,
    )
    fixed = of["method"].str.endswith(label_error.CORRECTED)
    of["model"] = fixed.map({True: "corrected", False: "against the notes"})
    lines.append(of[of["group"] == "F - M"].assign(label=way))
lines = pd.concat(lines, ignore_index=True).assign(method="")
lines["label"] = "left out: " + lines["label"]

# %% tags=["hide-input"]
plots.gap_forest(lines)
figure(
    "fig-label-phantom",
    "Gap in AUC of phantom-resnet, women minus men, by the truth, against "
    "notes that leave out findings of women, and corrected for error rates "
    "that an audit of a quarter of the patients finds.",
)

# %% tags=["remove-input"]
true = estimate(truth)
noted_gap, fixed_gap = (
    {w: estimate(lines, label=f"left out: {w}", model=m) for w in notes}
    for m in ("against the notes", "corrected")
)
off = {w: abs(fixed_gap[w].value - true.value) for w in notes}
worse = abs(noted_gap["the faint"].value - true.value) < off["the faint"]
verdict = "the correction made it worse" if worse else "it helped even there"
say(f"""
The true gap is {true}. Left out by chance, the notes show
{noted_gap["by chance"]}, corrected {fixed_gap["by chance"]}. Left out where
they are faint, the notes show {noted_gap["the faint"]}, corrected
{fixed_gap["the faint"]}: **{verdict}.** The error rates are the same in both.
What differs is *which* films are wrong: the faint ones are hard for the model
too, so notes without them make women look easy. A correction that knows only
rates takes what is left for typical.
""")

# %% [markdown]
# ## What it means for the two papers
#
# Paper S asks whether models find pneumothorax with and without chest drains,
# by NIH's labels on its official test list (its Fig. 4). Paper X draws films
# that are noted with exactly one finding, and takes this for their class.

# %%
test = schema.rows(ours, set="test")
for_s = label_audit.shares(test, mean_over_labels=False, **draws)
alone = nih.set_index("image_id").loc[films["image_id"]]
alone = alone[list(metadata.FINDINGS)].sum(axis=1).eq(1).to_numpy() & (
    noted == 1
)
hit = read[alone].mean() if alone.any() else np.nan
printed = span(published.table("X Fig. 3d")["value"], digits=3)

# %% tags=["remove-input"]
ppv, npv = (estimate(for_s, metric=m) for m in label_audit.VALUES)
best = 0.5 + (ppv.value + npv.value - 1) / 2
say(f"""
For S: in the test part, a share of {ppv} of the films noted with {THIS} holds
it by the reading, so the best AUC that a model can show is {fmt(best)}. Both
arms of its drain comparison are films with a *note*. A drain can stay in when
the air has gone and the report still names the disease; whether the share of
right notes differs with drains decides what the comparison measures, and needs
drains and readings of the same films.

For X: of {count(alone.sum())} films here noted with {THIS} and nothing else,
{percent(hit)} hold it. X prints equalised odds of {printed} between women and
men, old and young; the table above says what labels alone can add to that.
""")

# %% [markdown]
# ## Limits
#
# - Radiologists who agree are not the truth either. A CT sees more, and who
#   reads a film with its clinical story sees something else.
# - A report knows what the film does not show, such as last week's film. Not
#   every difference is an error of the program, and some are the reading's.
# - The films are of one hospital. Race is not recorded.
# - The formulas need errors that do not depend on the score. Whether this
#   holds for the NIH is not known here; it would take scores of these films.

# %% tags=["remove-input"]
in_short(
    f"""
Against radiologists who read {count(len(films))} films of the NIH again, its
text-mined label finds a share of {se_all} of {THIS}, and is right in
{ppv_all} of the films it marks. The gap by sex is {sex}; by view (AP minus
PA) it is {view} as drawn, and {over} if carried over to all films, so the
answer {depends}. A perfect model would show an AUC of
{fmt(top[FINDING])}. On phantoms, correcting for known rates brings the gap by
sex from {noted_gap["by chance"]} to {fixed_gap["by chance"]} (truth: {true})
if errors are by chance; if the faint are missed, {verdict}.
""",
    figure="fig-label-gaps",
    found=f"NIH's label finds {se_all} of {THIS} that radiologists see.",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-label-ppv
# Suppose a label has a sensitivity of 0.6 and a specificity of 0.98 in women
# and in men alike. Women have the finding in 2 % of films, men in 10 %. What
# is the sensitivity of a perfect model against these labels in each?
# ```
#
# ```{solution} ex-label-ppv
# :class: dropdown
# The PPV. Of 1,000 films of women, 20 hold it and 12 are noted; of the other
# 980, about 20 are. So $12 / 32 = 0.38$. Of 1,000 films of men, 60 and 18 are:
# $60 / 78 = 0.77$. Labels that are equally good make a perfect model unfair.
# ```
#
# ```{exercise}
# :label: ex-label-test
# An audit gives rates; they cannot say whether errors depend on the score. In
# the phantoms, the score is known too. Which comparison would tell?
# ```

# %% tags=["remove-input", "solution"]
told = []
for way, note in notes.items():
    ill = seen[hers]
    missed = 1 - note[hers]
    auc = metrics.auc(missed, -ill["score"])
    told.append(f"{fmt(auc)} if left out {way}")
say(f"""
```{{solution}} ex-label-test
:class: dropdown
Among films that hold the finding, do the missed ones score lower? The AUC of
this comparison is 0.5 if errors do not depend on the score. Among the ill
women of this run it is {listed(told, last="and")}. An audit that keeps the
films, and not only the counts, can test what the correction assumes.
```
""")

# %% [markdown]
# ```{exercise}
# :label: ex-label-opacity
# Run `cxrbook run 22 -p finding=opacity`, then with `-p opacity=all`. Predict
# before: what becomes of sensitivity, of the gap by view, and of the ceiling?
# ```
#
# ```{solution} ex-label-opacity
# :class: dropdown
# A wider choice finds more and is wrong more often: sensitivity goes up,
# specificity down. The gap by view turns around against pneumothorax: in bed,
# opacities are large, and the report names them. The ceiling depends on PPV
# and NPV together; it hardly moves, as one pays for the other.
# ```
#
# ## Further reading
#
# - {cite:t}`oakdenrayner2020datasets` looked at films of the NIH himself.
# - {cite:t}`rogan1978`: the correction of a prevalence, in two pages.
# - {cite:t}`natarajan2013`: learning from labels with known error rates.
# - {cite:t}`vacek1985`: when two tests err together.
