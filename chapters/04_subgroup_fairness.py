# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.1: ''
#       S 3.1: fig-subgroup-gaps
#       S 4: ''
#       S Fig. 1: fig-subgroup-auc
#     goals:
#     - give a gap between two groups its interval and its noise floor
#     - count the comparisons before reading them
#     - test an audit against a bias that was planted
#     needs:
#     - 01_data_curation
#     - 02_zero_shot
# ---

# %% [markdown]
# # Subgroup fairness: as good for everyone?
#
# *Answers sections 2.1 and 3.1 of {cite:t}`sourget2025`, paper S, and its
# Fig. 1.*
#
# Two patients come in with the same pleural effusion: a man of 40 and a woman
# of 82. A model that is good *on average* has looked at both films and has
# sorted the reading list of the night. If it sees effusions less well in
# people like her, she waits until the morning. Nobody notices: the average is
# as good as ever.
#
# So paper S breaks its results down by age, sex and race. It reports gaps
# between ages, smaller ones by sex and by race, and wide intervals where
# patients are few. **Are such gaps more than chance, and would an audit find a
# bias that is really there?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort and of the resamples
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
n_permutations: int = 1000  # [10, 1000000] groups dealt anew, for a fair model
label_error: dict = {}  # known error rates of the labels, by finding
borrow: str = ""  # attributes to cross, as "sex,age_group": thin groups borrow
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# Every gap is taken against a *reference* group: a choice of arithmetic, not a
# norm. Races are those of S; whoever has another entry, or none, counts
# in the whole cohort and in no comparison.

# %% tags=["hide-input"]
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import phantom, summary
from cxrlib.models import load_models
from cxrlib.predict import precomputed, zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import interactive, plots
from cxrlib.show.corrections import beside_noted, beside_own
from cxrlib.show.notebook import figure, keep, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, estimate, judged, listed, plural, sides
from cxrlib.stats import borrowed, fairness, inference
from cxrlib.stats.as_published import performance_by_protocol
from cxrlib.stats.label_error import as_stated, corrected_table

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
first = clips[0].name
warn_if_seeded([clip.name for clip in clips], data)
how = {"preprocessing": chosen.preprocessing}
cohort = cohorts.study(data, n_images, seed, options, **how)
cohort = precomputed.answerable(cohort, clips)
people = cohort.table
if "race" in people:
    of_s = people["race"].isin(["White", "Black", "Asian"])
    people = people.assign(race=people["race"].where(of_s))
MEAN = "mean" if len(cohort.findings) > 1 else cohort.findings[0]
REFERENCES = {"age_group": "25-50", "sex": "M", "race": "White"}
ATTRIBUTES = [a for a in REFERENCES if a in people and people[a].nunique() > 1]
sampling = dict(protocol=chosen.cautious, n_resamples=n_resamples, seed=seed)

# %% [markdown]
# ## Who is in the groups?
#
# A statement about a group can be no better than the group is large. What
# counts is not its images but its *ill* patients, finding by finding.

# %% tags=["hide-input"]
sizes = summary.group_sizes(people, ATTRIBUTES, cohort.findings)
title = "Groups of the test cohort, and the finding with the fewest positives"
show(sizes, title, missing="hidden", counts=())

# %% tags=["remove-input"]
thin = sizes.loc[sizes["fewest positives"].astype(float).idxmin()]
say(f"""
The smallest count in the cohort {cohort.name} is that of
{listed([thin["group"]])} ({thin["attribute"].replace("_", " ")}):
{count(thin["fewest positives"])} images of {thin["for"]}. The fewer they are,
the more each one moves a number of that group; without any, it is undefined.
{"" if "race" in ATTRIBUTES else "Race is not recorded here."}
""")

# %% [markdown]
# ## One model, three attributes
#
# Every model scores every image once; the scores are evaluated group by group.
# A group with fewer than ten positive or ten negative images gets no number.

# %%
predictions = zeroshot.predict(
    cohort, clips, cohort.findings, negative=chosen.negative_prompt
).merge(people[["image_id", *ATTRIBUTES]], on="image_id")
results = performance_by_protocol(
    predictions, ATTRIBUTES, chosen, n_resamples=n_resamples, seed=seed
)
keep(results)

# %% tags=["hide-input"]
plots.group_bars(results, "auc", first)
figure(
    "fig-subgroup-auc",
    "AUC by finding in groups of patients, a panel per attribute, with 95 % "
    f"intervals over {chosen.unit}s (S, Fig. 1). The bars start at chance.",
)

# %% tags=["hide-input"]
plots.group_bars(results, "adjusted_auprc", first)
figure(
    "fig-subgroup-auprc",
    "Adjusted AUPRC in the same groups (S, Fig. 1): 0 is chance.",
)

# %% tags=["remove-input"]
auc = schema.rows(results, model=first, metric="auc")
auc = auc[(auc["label"] != "mean") & (auc["attribute"] != "all")]
undefined = auc[auc["value"].isna()]
width = (auc["ci_high"] - auc["ci_low"]).groupby(auc["group"]).mean()
width = width.dropna().sort_values()
means = schema.rows(results, model=first, attribute="age_group", label=MEAN)
means = means.dropna(subset="value").sort_values("value")
worst = means.groupby("metric")["group"].first().unique()
say(f"""
These are the figures of paper S, drawn for {first}.
{{numref}}`fig-subgroup-auc` asks how well ill and healthy are put in order,
{{numref}}`fig-subgroup-auprc` how many of those who come out on top are ill.
By mean AUC or adjusted AUPRC, the lowest age group is
{listed(worst, none="undefined", last="or")}.

Of {plural(len(auc), "AUC value")} of single findings, {len(undefined)} are
undefined for want of cases (groups: {listed(undefined["group"].unique())}).
The average interval is {width.max():.2f} wide for {listed(width.index[-1:])}
and {width.min():.2f} for {listed(width.index[:1])}. A tall or a short bar in a
thin group is first of all a thin group. The bars called "Mean" average the
same findings in every group of an attribute, or a group could look worse only
because its hard findings were counted.
""")

# %% [markdown]
# Each of the other models and findings can be looked at in the same way:

# %% tags=["remove-input"]
interactive.explorer(
    results, "Explore: one model, finding, attribute and metric at a time"
)

# %%
mean_auc = schema.rows(results, metric="auc", label=MEAN)
title = "Mean AUC over findings, by group and model"
show(mean_auc, title, rows=["attribute", "group"], columns="model")

# %% tags=["remove-input"]
if label_error:
    how = {"films": people, "references": REFERENCES, **sampling}
    told = predictions, label_error, ATTRIBUTES
    beside_noted(as_stated(corrected_table, *told, **how), first)

# %% tags=["remove-input"]
if borrow:
    crossed = borrowed.crossed(predictions, borrow.split(","), **sampling)
    beside_own(crossed, first)

# %% [markdown]
# The eye now compares intervals: do they overlap? That is no test of the gap:
# two intervals can overlap while their difference is certain, and groups that
# share patients and a model are not independent. The *gap* gets an interval.
#
# ## Gaps, and those of a fair model
#
# A gap "A − B" is a signed difference: below 0, group A fares worse. Each
# resample of patients gives one gap, with both groups taken from the same
# draw; the interval is the spread of these gaps.
#
# But no gap between two finite groups is exactly 0. To see how large the gaps
# of an *exactly fair* model are, deal the groups anew: ill patients swap their
# age, sex or race with other ill patients, healthy ones with other healthy
# ones, with all their images. The scores stay. Whatever gap remains has no
# cause but the deal. Many deals give the *noise floor* of each gap, and the
# share of deals with a gap at least as large as the observed one is its
# p-value.

# %%
tests = inference.gap_tests(
    predictions,
    {attribute: REFERENCES[attribute] for attribute in ATTRIBUTES},
    metrics="auc",
    n_permutations=n_permutations,
    **sampling,
)
gaps = schema.rows(tests, label=MEAN)

# %% tags=["hide-input"]
plots.gap_forest(gaps)
figure(
    "fig-subgroup-gaps",
    "Gaps in mean AUC between groups, with paired 95 % intervals. Left of 0, "
    "the group named first fares worse. Grey: the noise floor; 95 of 100 fair "
    "models show a gap within it.",
)

# %% tags=["hide-input"]
floors = schema.rows(gaps, model=first)
columns = ["attribute", "group", "gap", "floor_mean", "floor_p95", "p_value"]
show(
    floors.assign(
        gap=[str(estimate(floors, group=g)) for g in floors["group"]]
    )
    .reset_index(drop=True)[[*columns, "n_positive"]]
    .dropna(axis=1, how="all"),  # positives of pairs, where they must not show
    f"Gaps in mean AUC of {first}, and absolute gaps of a fair model on the "
    "same patients",
    digits=3,
    missing="undefined",
)

# %% tags=["remove-input"]
OLD, WOMEN, ASIAN = "65-80 - 25-50", "F - M", "Asian - White"
old, women, asian = (estimate(floors, group=g) for g in (OLD, WOMEN, ASIAN))
known = gaps.dropna(subset=["value", "floor_p95"])
beyond = (known["value"].abs() > known["floor_p95"]).sum()
reach = floors.set_index("group")["floor_p95"].dropna().sort_values()
say(f"""
In {{numref}}`fig-subgroup-gaps`, the gap of {first} between the ages 65–80 and
25–50 is {old.placed}; between women and men {women.placed}; between Asian and
White patients {asian.placed}. Over all models, the interval of the gap between
these ages is {sides(schema.rows(gaps, group=OLD))}, that of the gap by sex
{sides(schema.rows(gaps, group=WOMEN))}.

One fair model in twenty shows a gap beyond its floor, which reaches furthest
for the pair {listed(reach.index[-1:])}: {reach.max():.3f}. Of the gaps of all
models, {beyond} of {len(known)} lie beyond their floor. A gap should be read
beside its floor, never beside 0.
""")

# %% [markdown]
# ## How many questions did we ask?
#
# The figure shows means. Behind them stands one gap a finding, model and pair
# of groups, and it is tempting to pick out those whose interval excludes 0.
# Which of them mean something? A family of comparisons can be corrected for
# its size. *Holm* {cite:p}`holm1979` bounds the chance of even one false
# alarm; *Benjamini and Hochberg* {cite:p}`benjamini1995` bound the share of
# false alarms among the alarms; the *simultaneous band*
# {cite:p}`westfall1993` widens every interval until all of them hold at once,
# and uses the resamples to know which gaps move together. Two families: the
# means over findings, and every finding on its own.

# %%
single = inference.as_family(tests[tests["label"] != "mean"])
families = {
    "means over findings": inference.as_family(gaps),
    "single findings": single,
}
flags = {name: inference.flagged(rows) for name, rows in families.items()}
show(
    pd.DataFrame(flags).T.astype("Int64"),
    "Comparisons flagged at the level 0.05, before and after correction",
    missing="undefined",
    counts=(),
)

# %% tags=["remove-input"]
of_means, asked = flags.values()
expected = round(0.05 * asked["comparisons"])
left = families["means over findings"].query("p_holm < 0.05")["group"]
say(f"""
Of {asked["comparisons"]} comparisons of single findings
({asked["undefined"]} more are undefined), {asked["uncorrected"]} would be
flagged uncorrected; about {expected} would be expected of fair models.
{asked["bh"]} remain after Benjamini and Hochberg. Of the
{of_means["comparisons"]} means, {of_means["uncorrected"]} would be flagged
uncorrected; after Holm's correction remain: {listed(left.unique())}. Holm is
undefined where {count(n_permutations)} permutations give no p-value small
enough for it; Benjamini and Hochberg can then flag none, or
{inference.fewest_alarms(single)} and more.
""")

# %% tags=["remove-input"]
quiz(
    "A colleague tests one more model on these groups, finds one p-value "
    "below 0.05 among the single findings, and writes: the model is unfair to "
    "this group. What is missing?",
    {
        "Nothing: 0.05 was agreed on before.": (
            False,
            "The level holds for one comparison. Here "
            f"{asked['comparisons']} were made, and fair models would give "
            f"about {expected} such p-values.",
        ),
        "How many comparisons were made, and what is left of them.": (
            True,
            "One alarm among many questions is what fair models produce. Here "
            f"{asked['uncorrected']} were flagged before correction and "
            f"{asked['bh']} after Benjamini and Hochberg.",
        ),
    },
)

# %% [markdown]
# ## What was planted, and was it found?
#
# On real data the story ends here: a gap was seen, and its cause can be argued
# about. The phantom goes on. How well its findings stand out is multiplied by
# a known factor, group by group. Turn the factors for age off and draw *the
# same patients* again, alike in all else: as counterfactual *twins*, such as
# you can make in [Phantoms](11_phantoms). (All here is of phantoms.)

# %%
OFF = "dial off"
seer = precomputed.seeing(clips, chosen)[0]
planted = cohort
if not cohort.planted:
    planted = cohorts.load("phantom", n_images=n_images, seed=seed)
contrast = planted.recipe["dials"]["contrast"]
others = {a: of for a, of in contrast.items() if a != "age_group"}
twins = {OFF: phantom.twin(planted, contrast=others)}
both = zeroshot.beside_twins(
    planted, twins, seer, ["age_group"], chosen.negative_prompt
)
age_gaps = fairness.gap_table(
    both,
    "age_group",
    [("65-80", "25-50")],
    groups=["25-50", "65-80"],
    metrics="auc",
    **sampling,
)
show(
    age_gaps,
    f"Gap in AUC of {seer.name}, 65–80 minus 25–50: as drawn, dial off",
    rows="label",
    columns="model",
)

# %% tags=["remove-input"]
factors = contrast.get("age_group", {})
turned = [f"{x:g} at {group}" for group, x in factors.items() if x != 1]
planted_sign = factors.get("65-80", 1) - factors.get("25-50", 1)
on = estimate(age_gaps, label="mean", model="as drawn")
off = estimate(age_gaps, label="mean", model=OFF)
verdict = judged("age", on, off, planted_sign)
say(f"""
In this run the contrast of findings is multiplied by
{listed(turned, none="the same factor at all ages")}. The audit, which knows
nothing of it, sees a gap of {on} between 65–80 and 25–50 (the interval
{on.lies}). With the dial off, the gap between the same people is {off} (the
interval {off.lies}). **{verdict}.**

What remains with the dial off is whatever else differs between old and young
patients, such as how they were imaged and what else they have, and chance. The
observed gap is exactly the sum of both parts. No real cohort shows them.
""")

# %% [markdown]
# [Where a gap comes from](12_gap_causes) does this for each age group, sex,
# race by way of the scanner, and reports that are silent on women.
# [How small may a group be?](13_small_groups) plans a study. With `borrow`,
# [small and crossed groups](29_crossed_groups) take strength from the others.
#
# ## Beside the paper
#
# Paper S prints these results as bars and words, on its own selection of
# patients and of models: no number here can agree or disagree with it. Its
# three statements, and what the same look gives in this run:

# %% tags=["remove-input"]
size = single["value"].abs().groupby(single["attribute"]).mean()
wide = [f"{width[g]:.2f} ({g})" for g in ("Asian", "White") if g in width]
say(f"""
- *Gaps across ages in most models*: the interval of the gap in mean AUC is
  {sides(schema.rows(gaps, attribute="age_group"), "pairs and models")}.
- *Smaller gaps by sex and race*: the mean absolute gap of single findings is
  {listed(f"{size[a]:.3f} by {a.split('_')[0]}" for a in ATTRIBUTES)}. Small
  groups have large gaps by chance alone: compare with the floors above.
- *Asian patients extreme, few positives*: the mean width of intervals is
  {listed(wide, none="not known here")}.
""")

# %% [markdown]
# ## Limits
#
# - Groups are what was recorded: two sexes, five bands of age, three words for
#   race. Who was recorded wrongly, or not at all, is in the wrong one or none.
# - Labels err, and perhaps not alike: the parameter `label_error` corrects.
# - An interval says what other patients of the same source would change, not
#   another hospital or year. A mean can hide a gap that points the other way.
# - A planted bias that is found shows that the analysis can find it, no more.

# %% tags=["remove-input"]
in_short(
    f"""
Do models fare alike by age, sex and race? Here ({plural(len(clips), "model")},
{count(len(people))} films of the cohort {cohort.name}) {beyond} of
{len(known)} gaps in mean AUC lie beyond what an exactly fair model would show;
of {asked["comparisons"]} gaps of single findings, {asked["uncorrected"]} look
significant alone and {asked["bh"]} after correction.
{"On phantoms: " * (not cohort.planted)}{verdict}. Paper S, on its patients,
reports gaps by age and smaller ones by sex and race; here that of {first}
between the ages 65–80 and 25–50 is {old}, between women and men {women}.
""",
    figure="fig-subgroup-gaps",
    found=f"Of {len(known)} gaps, {beyond} lie beyond those of a fair model.",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-subgroup-blind
# Cover the part on what was planted. From {numref}`fig-subgroup-gaps` alone:
# in which age groups are findings drawn fainter, or stronger, than at 25 to
# 50? Are they in one of the sexes? Write down your answer and how sure you
# are, and only then compare.
# ```

# %% tags=["remove-input", "solution"]
dials = [
    f"{x:g} in {'site ' * (attribute == 'site')}{listed([group])}"
    for attribute, of in contrast.items()
    for group, x in of.items()
    if x != 1
]
where = [
    f"{listed([g])} {estimate(floors, group=g).lies}" for g in floors["group"]
]
say(f"""
```{{solution}} ex-subgroup-blind
:class: dropdown
In phantoms of this run the contrast of findings is multiplied by
{listed(dials, none="the same factor in everybody")}; for real films, nobody
knows. The intervals of the gaps of {first} in {cohort.name}:
{listed(where)}. Where these disagree, look at the noise floor, and at how many
ill are in the pair. Without a dial, ages may be mixed in another way.
```
""")

# %% [markdown]
# ```{exercise}
# :label: ex-subgroup-turn
# Turn the planted bias around: findings fainter in the *young*, and in men.
# Before you run it, write down the signs that you expect in
# {numref}`fig-subgroup-gaps`.
#
# `cxrbook run 04 -p 'options={"dials": {"contrast": {"age_group": {"18-25":
# 0.58, "25-50": 0.72}, "sex": {"M": 0.7}}}}'`
# ```
#
# ```{solution} ex-subgroup-turn
# :class: dropdown
# The gap by sex should turn most clearly: women minus men, above 0. Of the
# ages, 18–25 falls behind 25–50, and 50–65 comes out ahead. The oldest may
# gain less: a gap that is left with the dial off was there before it.
# ```
#
# ```{exercise}
# :label: ex-subgroup-seed
# Run the chapter on the phantom with three other seeds. Which of the gaps by
# race keep their sign? Which of the gaps by age do?
# ```
#
# ```{solution} ex-subgroup-seed
# :class: dropdown
# A planted gap keeps its sign, most clearly in the oldest groups. Gaps by
# race, caused by the site at most, wander around 0: not a result.
# ```
#
# ## Further reading
#
# - {cite:t}`seyyedkalantari2021`: underdiagnosis by group and by crossing.
# - {cite:t}`glocker2023`: gaps from a mix of ages and findings, and tests.
# - {cite:t}`oakdenrayner2020`: failures in groups that nobody recorded.
