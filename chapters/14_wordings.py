# ---
# jupyter:
#   chapter:
#     answers:
#       X 2.3: fig-zeroshot-wording
#     goals:
#     - show that the wording of a question moves performance and fairness
#     - tell what the choice of a wording is worth on other patients
#     - say what prevalence does to a precision-recall curve
#     needs:
#     - 02_zero_shot
# ---

# %% [markdown]
# # All the ways of asking
#
# *Goes further than [chapter 2](02_zero_shot): the wording, which
# {cite:t}`sourget2025`, paper S, keeps fixed, and the choice of a prompt in
# section 2.3 of {cite:t}`sun2025`, paper X.*
#
# Suppose two hospitals buy the same model. One asks it for "Chest Pneumonia"
# against "Chest No Findings", as paper S does; the other types "pneumonia" and
# "no pneumonia". Films and weights are the same, and the second hospital sends
# home patients whom the first admits. A supervised classifier has one output
# for pneumonia. A zero-shot classifier has as many as there are ways of
# asking. **How much of a zero-shot result belongs to the model, and how much
# to the words?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort and of the resamples
n_images: int = 4000  # [60, 100000] of a phantom; real ones are whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
n_splits: int = 20  # [1, 1000] random halves, to choose a wording on one
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# Needed are a cohort, the models that read its films, the findings that S asks
# for, and the groups whose gaps are looked at. They are those of chapter 2.

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts.metadata import S_FINDINGS
from cxrlib.models import load_models
from cxrlib.predict import prompts, wordings, zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import notebook, plots
from cxrlib.show.notebook import figure, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import (
    estimate,
    fmt,
    listed,
    percent,
    plural,
    readable,
    sides,
)
from cxrlib.stats import metrics, prevalence

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
names = [clip.name for clip in clips]
first = names[0]
notebook.warn_if_seeded(names, data)

how = {"preprocessing": chosen.preprocessing}
cohort = cohorts.study(data, n_images, seed, options, **how)
findings = notebook.asked(cohort.name, cohort.findings, S_FINDINGS)
GAPS = {"sex": ("F", "M"), "age_group": ("80+", "25-50")}
GAPS = {a: of for a, of in GAPS.items() if set(of) <= set(cohort.table[a])}
drawing = {"n_resamples": n_resamples, "seed": seed}

# %% [markdown]
# ## Phrases that somebody used
#
# Paper S asks all models in one way. The authors of the models ask in others,
# and any phrase that says that a finding is there can be set against any that
# says that it is not. These are the phrases with a slot for the finding that
# can be traced to a paper or to its authors' code.

# %% tags=["hide-input"]
show(prompts.phrase_table(), "Phrases of papers and models")

# %% [markdown]
# Each phrase of the first kind against each of the second makes a pair. One
# more way is to ask with all of them at once: the embeddings of the phrases
# are averaged on either side, which is called a *prompt ensemble*. The films
# need not be encoded again. A new question costs the embedding of a few words
# and one product of matrices.
#
# For each pair we take the mean AUC over the findings, and its difference
# between two groups of patients, which is the fairness gap of the pair.
# Findings without cases enough in one of the two groups are left out.

# %%
pairs = prompts.pairs()
scores = {
    clip.name: zeroshot.pair_scores(
        cohort, clip, findings, list(pairs.values())
    )
    for clip in clips
}
points = wordings.pair_table(cohort, scores, findings, list(pairs), GAPS)
on_mean = schema.rows(points, label="mean")

# %% tags=["hide-input"]
OWN = f"{zeroshot.POSITIVE} / {zeroshot.NEGATIVE}"
ALL = prompts.ALL
plots.strips(
    on_mean, {OWN: "pair of paper S", ALL: "all phrases together"}, seed
)
figure(
    "fig-zeroshot-wording",
    "Every pair of phrases is a dot: mean AUC over the findings, and the "
    "difference in it between groups of patients.",
)

# %% tags=["remove-input"]
thin = points[(points["label"] != "mean") & points["value"].isna()]
thin = [
    f"{readable(group)}: {listed(of['label'].unique())}"
    for group, of in thin.groupby("group", sort=False)
]
say(f"""
In {{numref}}`fig-zeroshot-wording` look at the width of a strip first: it is
what the wording alone does, in {len(pairs)} ways of asking. Nothing about the
model or the films differs between the dots of a strip. (Findings left out for
want of ten films with them, or without them: {"; ".join(thin) or "none"}.)
""")

# %% [markdown]
# Intervals follow for the pairs that matter: that of S, the lowest, the
# highest and the ensemble of each model. All of them come from the same
# resamples of patients, so that the difference of a pair from that of S is
# paired. Lowest and highest are picked on the very patients who then measure
# them, so they lie further out than they would on others.

# %%
auc = schema.rows(on_mean, attribute="all")
auc = auc.pivot(index="method", columns="model", values="value")
auc = auc.loc[list(pairs), names]
picks = auc.fillna(0)  # undefined for all pairs of a model, or for none
roles = pd.DataFrame({"lowest": picks.idxmin(), "highest": picks.idxmax()})
roles = roles.assign(**{"of S": OWN, "all phrases": ALL})
measured = wordings.interval_table(
    cohort,
    scores,
    findings,
    list(pairs),
    {m: [(pair, OWN) for pair in roles.loc[m]] for m in names},
    GAPS,
    protocol=chosen.cautious,
    **drawing,
)
measured = schema.rows(measured, label="mean")

# %% tags=["hide-input"]
show(
    wordings.beside_own(measured, roles, OWN),
    "Mean zero-shot AUC by wording, what it is more or less than that of S, "
    f"and its gaps, with 95 % intervals over {chosen.unit}s",
    rows=["model", "pair", "method"],
    columns="what",
)

# %% tags=["hide-input"]
counts = ["n", "n_positive", "n_patients"]
based_on = schema.rows(on_mean, model=first, method=OWN)
based_on = based_on.set_index("group")[counts]
based_on.columns = ["films", "fewest with a finding", "patients"]
show(based_on, "What all of these numbers rest on", missing="hidden")

# %%
below = {
    f"below {name}": (auc < auc.loc[pair]).sum().where(auc.notna().all())
    for name, pair in {"that of S": OWN, "all phrases": ALL}.items()
}

# %% tags=["hide-input"]
strips = pd.DataFrame(below, dtype="Int64").rename_axis("model")
ends = [f"{fmt(auc[m].min())} to {fmt(auc[m].max())}" for m in names]
strips.insert(0, "lowest to highest", ends)
against = schema.rows(measured, method=f"{ALL} - {OWN}", attribute="all")
less = [str(estimate(against, model=m)) for m in names]
strips.insert(1, "all phrases less that of S", less)
show(
    strips,
    "The strips of mean AUC in numbers; below: how many of the other "
    f"{len(pairs) - 1} ways of asking",
    missing="undefined",
    counts=(),
)

# %% tags=["remove-input"]
swing = points[(points["label"] != "mean") & (points["attribute"] == "all")]
swing = swing.groupby(["model", "label"])["value"].agg(["min", "max"])
swing = swing.dropna()
span = (swing["max"] - swing["min"]).sort_values()
widest = "undefined"
if len(span):
    model, label = span.index[-1]
    low, high = swing.loc[span.index[-1]]
    widest = f"{label} in {model}, from {fmt(low)} to {fmt(high)}"
ahead = (strips.filter(like="below") > (len(pairs) - 1) / 2).sum()
say(f"""
Over {len(pairs)} ways of asking, the mean AUC of a single model moves by up to
{fmt((auc.max() - auc.min()).max())}. The largest swing of a single finding is
that of {widest}. In {(swing["min"] < 0.5).sum()} of {len(swing)} combinations
of model and finding, at least one pair ranks films worse than a coin.

The pair of S does better than most others in {ahead["below that of S"]} of
{plural(len(names), "model")}, all phrases together do better than most single
pairs in {ahead["below all phrases"]}. The interval of the difference, all
phrases together less the pair of S, is {sides(against)}. They need no choice,
and so no other patients to choose on. Which phrases do well depends on the
reports that a model learned from, and the small models of this book learned
from those of phantoms. How far apart the dots lie is what to take along, not
their order.
""")

# %% [markdown]
# ## Is a model fair, or a wording?
#
# A gap between two groups is measured with a wording, too. With how many pairs
# does it point the other way than with the pair of S?

# %%
turned = wordings.turned(on_mean, OWN)

# %% tags=["hide-input"]
show(
    turned,
    "Gaps in mean AUC over all pairs, and with how many pairs they have the "
    "other sign than with that of S",
    digits=3,
    missing="undefined",
    counts=(),
)

# %% tags=["remove-input"]
reach = (turned["highest"] - turned["lowest"]).max()
shown_gaps = measured[measured["attribute"] != "all"].iterrows()
where = [schema.side(row) for _, row in shown_gaps]
by_group = turned.groupby("group", sort=False)[["turned", "others"]]
signs = "; ".join(
    f"{readable(group)} in {of['turned'].sum(skipna=False):g} of "
    f"{of['others'].sum()}"
    for group, of in by_group
)
say(f"""
The widest range of the gap of one model is {fmt(reach)}. Combinations of model
and pair in which the gap has the other sign: {signs or "undefined"}. Of the
{len(where)} gaps with an interval, above,
{where.count("above") + where.count("below")} exclude 0. Where an interval
includes 0, a change of sign may be chance; to call a model fair or unfair by
one wording is to say too much in any case.
""")

# %% [markdown]
# ## Choosing a wording
#
# What would somebody report who tries all pairs on the test set and prints the
# best? And does a choice hold on other patients? Patients are split at random
# into halves, many times. The pair with the highest mean AUC on one half is
# reported there, which is what choosing on the test set does, and on the other
# half, which is honest. The difference is the *optimism* of the choice. The
# choice can also be made for each finding separately, which leaves more room
# for luck.

# %%
truth = cohort.table[list(findings)].to_numpy(int)
given = (truth, cohort.table["patient_id"], list(pairs), OWN, n_splits, seed)
choices = {False: "one for all findings", True: "one for each finding"}
halves = pd.concat(
    wordings.chosen_on_half(scores[m], *given, each=each).assign(
        model=m, choice=choice
    )
    for m in names
    for each, choice in choices.items()
)
over_halves = wordings.over_halves(halves)

# %% tags=["hide-input"]
if len(halves):
    show(
        over_halves,
        "AUC of the best pair of one half of the patients, there (seen) and "
        "on the others: mean over halves [5 %, 95 % of them]",
        rows=["model", "what"],
        columns="choice",
        digits=3,
    )


# %% tags=["remove-input"]
def told(choice, what):
    """The average over models, and for how many it is above 0 in print."""
    value = schema.rows(over_halves, choice=choice, what=what)["value"]
    above = (value.round(3) > 0).sum()
    mean = fmt(value.mean(), 3, signed=True)
    return f"{mean} on average, above 0 for {plural(above, 'model')}"


ONE, EACH = choices.values()
best = schema.rows(halves, choice=ONE).groupby("model", sort=False)["chosen"]
picked = "; ".join(
    f"{m} {of.nunique()}, that of S in {percent((of == OWN).mean())}"
    for m, of in best
)
say(f"""
Over {plural(n_splits, "split")}, the means are over
{int(halves["labels"].max()) if len(halves) else 0} of {len(findings)} findings
that have ten cases and ten controls in every half.

- Optimism: one pair for all findings, {told(ONE, "optimism")}; one pair for
  each finding, {told(EACH, "optimism")}.
- Gain on other patients against asking as S did: one for all,
  {told(ONE, "gain over S")}; one for each, {told(EACH, "gain over S")}.
- Pairs that won on some half, and halves that the pair of S won:
  {picked or "undefined"}.

The limits in the table are those of halves of one cohort, which overlap; they
are no intervals for other patients. Optimism grows with the number of pairs
and shrinks with the number of patients. It has a cure, which is to choose on
patients who are not in the test set. The width of the strips has none: a table
of zero-shot results is a table of *models with a wording*.
""")

# %% tags=["remove-input"]
optimism = schema.rows(over_halves, what="optimism")
optimism = optimism.groupby("choice")["value"].mean().reindex([ONE, EACH])
quiz(
    f"A colleague tries all {len(pairs)} ways of asking on the test set and "
    "reports the best mean AUC with a 95 % interval over patients. What is "
    "wrong with it?",
    {
        "Nothing: the interval allows for chance.": (
            False,
            "It allows for other patients, with the wording given. It does "
            "not know that the wording was picked because it did well on "
            "these very patients.",
        ),
        "The pair was picked for these patients, and nothing says so.": (
            True,
            "What it costs depends on how close the best pairs are, and on "
            "the number of patients. Here it is "
            f"{fmt(optimism[ONE], 3, signed=True)} in mean AUC, and "
            f"{fmt(optimism[EACH], 3, signed=True)} with a pair for each "
            "finding. With fewer patients it is more.",
        ),
        "The interval should be over films.": (
            False,
            "Films of one patient are not independent, and the choice would "
            "remain unsaid.",
        ),
    },
)

# %% [markdown]
# ## What prevalence does to the curves
#
# Words are not the only thing that moves a number while the model stays.
# [Chapter 2](02_zero_shot) found that the adjusted AUPRC depends on
# prevalence. Here are the curves behind it, for the first model and the
# hardest finding: each film without the finding has a weight, which sets the
# prevalence.

# %%
easy = schema.rows(points, method=OWN, attribute="all", label=findings)
easy = easy.groupby("label", sort=False)["value"].mean().dropna()
hardest = easy.idxmin() if len(easy) else findings[0]
one = zeroshot.predict(
    cohort, clips[:1], [hardest], negative=chosen.negative_prompt
)
six = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
weighted, _ = prevalence.prevalence_table(one, six, chosen, **drawing)

y, score = one["y_true"].to_numpy(), one["score"].to_numpy()
y = y if len(easy) else np.zeros_like(y)  # too few films: undefined
if guard.active():  # no step of a curve is a single film
    score = guard.in_blocks(y, score)
areas = pd.DataFrame(
    {"prevalence": p} | metrics.ranking(y, score, prevalence.weights(y, p))
    for p in (0.5, 0.1, 0.01)
)

# %% tags=["hide-input"]
curves = prevalence.curves(y, score, areas["prevalence"])
plots.curves_by_prevalence(curves, areas)
figure(
    "fig-zeroshot-curves",
    f"The same scores of {first} for {hardest} at three prevalences. ROC: "
    "recall against the share of healthy films that raise an alarm; its area "
    "is the AUC. Dotted: random scores.",
)

# %% tags=["hide-input"]
show(
    schema.wide(weighted, index="prevalence", columns="metric"),
    f"{first}, {hardest}: the same scores at six prevalences",
)

# %% tags=["remove-input"]
steady = schema.rows(weighted, metric="auc")["value"]
say(f"""
The ROC curves of {{numref}}`fig-zeroshot-curves` lie on top of each other, and
AUC does not move (by {steady.max() - steady.min():.0e}, which is rounding);
the precision-recall curves do. An estimate may lie near the edge of its
interval: average precision is not a mean, and its resamples come out a little
high where positives are rare. In this cohort the prevalence of {hardest} is
{percent(y.mean() if y.any() else None)}.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# The phantom fades findings with age, by a dial that no label, report or
# phrase mentions. A gap by age should point the same way whatever the wording,
# if the wording is any good.

# %% tags=["remove-input"]
dials = cohort.recipe.get("dials", {}).get("contrast", {})
faded = [f"{x:g} at {g}" for g, x in dials.get("age_group", {}).items()]
of_age = schema.rows(measured, attribute="age_group", method=OWN)
found = "With the pair of S, the interval of the gap by age is "
found += sides(of_age)
say(f"""
Factors of contrast by age in this run:
{listed(faded, none="none, nothing was planted by age")}. {found}.
[Chapter 4](04_subgroup_fairness) takes it from there.
""")

# %% [markdown]
# ## Limits
#
# - The phrases are those that could be traced to a source, not all that could
#   be asked.
# - One cohort, one language, and models that all learned from reports in it.
# - Point values of many pairs have no interval of their own; only the pairs of
#   the second table do.

# %% tags=["remove-input"]
in_short(
    f"""
How much of a zero-shot result belongs to the words? Over {len(pairs)} ways of
asking, the mean AUC of one model moves by up to
{fmt((auc.max() - auc.min()).max())}, and its gap between two groups by up to
{fmt(reach)}. With all phrases together, the change of mean AUC against the
pair of S has an interval {sides(against)}. Contrast planted by age:
{listed(faded, none="none here")}. {found}. Paper S asks in one way, paper X in
three formats.
""",
    figure="fig-zeroshot-wording",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-zeroshot-seven
# Replace the two-way softmax by one softmax over all seven phrases of paper S.
# Can the AUC of a finding change? Does AUC change if only the logit scale
# changes?
# ```
#
# ```{solution} ex-zeroshot-seven
# :class: dropdown
# Yes: the score of one finding now also depends on the similarities to the
# others, so the order of films can change. A film with two findings loses
# most, since they compete. The logit scale cannot change the two-way score's
# order, because the sigmoid is increasing; in the seven-way softmax even that
# no longer holds. `zeroshot.softmax` and `cxrlib.embed.extract.embed_text` are
# all you need to try it.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-case
# The paper writes "Chest No Findings", its public code "Chest No findings".
# Does it matter for the small CLIPs? For which models would it?
# ```
#
# ```{solution} ex-zeroshot-case
# :class: dropdown
# Call `zeroshot.predict` with `negative="Chest No findings"`
# and compare the scores: they are identical, since the tokenizer of these
# models ignores case. For a model with a cased vocabulary the two are
# different tokens, hence different embeddings, hence another ranking.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-opponent
# How much of the AUC for pneumothorax comes from the *opponent* alone? Rank
# films by minus their similarity to "Chest No Findings".
# ```
#
# ```{solution} ex-zeroshot-opponent
# :class: dropdown
# Compute
# `-(embed(cohort, clip) @ embed_text(["Chest No Findings"], clip)[0])` and
# pass it to `metrics.auc` with the column `Pneumothorax` of `cohort.table`.
# Whatever lies above one half is the model's sense that *something* is wrong.
# A test set whose negatives are all healthy would credit it to pneumothorax.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-side
# Which matters more for the mean AUC, the phrase of the finding or its
# opponent? `points` has all that you need.
# ```
#
# ```{solution} ex-zeroshot-side
# :class: dropdown
# Take the rows with `label` "mean" and `attribute` "all" of a model, without
# the ensemble, split `method` at " / " into two columns, pivot to a table of
# phrase by opponent, and compare the spread of its row means with that of its
# column means. If one is much larger, this side of the question decides. Then
# look at what remains when both are taken away: a phrase that does well
# against one opponent need not do so against another.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-fade
# Plant a stronger bias:
# `-p options='{"dials": {"contrast": {"age_group": {"80+": 0.2}}}}'` makes the
# findings of the oldest patients nearly invisible, and leaves all others as
# drawn. Which numbers of this chapter will notice: the mean AUC, the gap by
# sex, the gap by age?
# ```

# %% tags=["remove-input", "solution"]
gap_now = fmt(estimate(of_age, model=first).value, 3, signed=True)
share_old = (cohort.table["age_group"] == "80+").mean()
say(f"""
```{{solution}} ex-zeroshot-fade
:class: dropdown
The gap by age: for {first} and the pair of S it is {gap_now} in this
run, and will be far below that. The gap by sex should not move beyond chance,
since the dial does not know sex. The mean AUC may hardly move: only
{percent(share_old)} of the films are of patients of 80 years and more, and the
default dials, which fade findings from 50 years on, are gone. A harm to a
small group hides well in a mean.
```
""")

# %% [markdown]
# ## Further reading
#
# - {cite:t}`radford2021` introduce the first lists of prompts, and ensembles.
# - {cite:t}`tiu2022` bring zero-shot to chest radiographs, with pairs of a
#   phrase and its negation.
# - {cite:t}`zhou2022coop` learn the wording from labelled images instead of
#   guessing it.
# - {cite:t}`saito2015` explain what precision-recall curves show that ROC
#   curves hide.
