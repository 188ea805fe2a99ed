# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - say how wide an interval will be before a group is audited
#     - plan how many patients a gap asks for
#     - tell "no difference" from "too few to see one"
#     needs:
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # How small may a group be?
#
# *Deepens sections 2.1 and 4 of {cite:t}`sourget2025`, paper S: its wide
# intervals where patients are few, and its limit that each attribute is looked
# at alone.*
#
# A clinic for a small community wants to know whether a model serves its old
# women as well as everybody else. The audit comes back: "no significant
# difference". The model is bought. Nobody had asked how many old women with a
# pneumothorax were in the audit, and whether it could have seen a difference
# at all.
#
# Fairness is about small groups, and statistics are bad at them. **How small
# may a group be before its number says nothing, what does dividing it further
# cost, and how many patients would it take?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort and of the resamples
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# Cohort, models and groups are those of [chapter 4](04_subgroup_fairness).

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.models import load_models
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show.notebook import figure, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import colours, listed, readable
from cxrlib.stats import fairness, inference
from cxrlib.stats.as_published import interval_widths, performance_by_protocol

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
first = clips[0].name
warn_if_seeded([clip.name for clip in clips], data)

cohort = cohorts.study(
    data, n_images, seed, options, preprocessing=chosen.preprocessing
)
people = cohort.table
if "race" in people:
    of_s = people["race"].isin(["White", "Black", "Asian"])
    people = people.assign(race=people["race"].where(of_s))
REFERENCES = {"age_group": "25-50", "sex": "M", "race": "White"}
ATTRIBUTES = [a for a in REFERENCES if a in people and people[a].nunique() > 1]
draws = {"n_resamples": n_resamples, "seed": seed}
sampling = draws | {"protocol": chosen.cautious}

predictions = zeroshot.predict(
    cohort, clips, cohort.findings, negative=chosen.negative_prompt
).merge(people[["image_id", *ATTRIBUTES]], on="image_id")
one = predictions[predictions["model"] == first]

# %% [markdown]
# ## Four times the patients, half the interval
#
# How sure a number is depends on how many *ill* images stand behind it, for
# they are fewer than the healthy ones. In {numref}`fig-small-width`, each dot
# is one finding in one group.

# %%
results = performance_by_protocol(predictions, ATTRIBUTES, chosen, **draws)
bars = schema.rows(results, model=first, metric="auc", attribute=ATTRIBUTES)
bars = bars[bars["label"] != "mean"].dropna(subset="ci_low")
width = bars["ci_high"] - bars["ci_low"]
ill = bars["n_positive"].astype(float)
rule = (width * ill**0.5).median()

# %% tags=["hide-input"]
fig, ax = plt.subplots()
for attribute, colour in colours(ATTRIBUTES).items():
    rows = bars["attribute"] == attribute
    style = {"color": colour, "label": readable(attribute)}
    ax.plot(ill[rows], width[rows], "o", **style)
line = ill.sort_values()
ax.plot(line, rule / line**0.5, color="black", lw=1)
ax.set(xlabel="positive images", ylabel="width of the interval")
ax.legend()
figure(
    "fig-small-width",
    f"Width of the 95 % interval of AUC ({first}), by the positive images "
    "behind it. Line: the width falls with their square root.",
    alt="Dots, one per finding and group, around a line that falls ever less "
    "steeply: width of the interval over the number of positive images. "
    f"Widths from {width.min():.2f} to {width.max():.2f}.",
    table=bars,
)

# %% tags=["remove-input"]
at_ten = rule / 10**0.5
needs = listed(f"{(rule / w) ** 2:.0f} for {w}" for w in (0.2, 0.1, 0.05))
say(f"""
The width falls with the square root of the cases: here it is about {rule:.2f}
divided by that root. Ill images that an interval of a given width takes:
{needs}. With ten, the fewest for which this book gives a number, it is about
{at_ten:.2f} wide. Half the width takes four times the patients.

The rule is rough, and holds for one model on one cohort: where the model is
worse, dots lie above the line. But it can be read off before a single film of
another group is collected, and it says what a table of bars does not: whether
that group can be audited at all.
""")

# %% [markdown]
# ## As published, and corrected
#
# The numbers of paper S came from another protocol: images instead of patients
# were resampled, every interval drew resamples of its own, everything was
# rounded to two digits, and no group was too small for a number. What does
# that change in small groups? Here is one model both ways.

# %%
both_ways = pd.concat(
    performance_by_protocol(one, ATTRIBUTES, way, **draws)
    for way in ("as_published", "corrected")
)
widths = interval_widths(both_ways)
show(
    widths,
    f"Single findings of {first} in all groups, by protocol",
    digits=3,
    counts=(),
)

# %% tags=["remove-input"]
paper, ours = widths["mean width"]["auc"][["as_published", "corrected"]]
images = len(people) / people["patient_id"].nunique()
say(f"""
Where both give an interval, the one over patients is on average
{ours / paper:.2f} times as wide as the one over images
({ours:.3f} against {paper:.3f}, AUC), with {images:.2f} images a
patient. Whether the one or the other keeps its promise of 95 % is measured in
the chapter on [coverage](09_coverage).
""")

# %% [markdown]
# ## Where the intervals of all findings lie
#
# Chapter 4 looks at gaps in means over findings. Behind them stands one gap a
# finding, model and pair of groups. Where do their intervals lie?

# %%
gaps = pd.concat(
    fairness.gap_table(
        predictions, a, reference=ref, metrics="auc", **sampling
    )
    for a, ref in REFERENCES.items()
    if a in ATTRIBUTES
)
single = gaps[gaps["label"] != "mean"]
side = single.apply(schema.side, axis=1)
counted = pd.crosstab(single["attribute"], side).reindex(
    index=ATTRIBUTES,
    columns=["below", "around", "above", "undefined"],
    fill_value=0,
)
show(
    counted.rename_axis(index=None, columns=None),
    "Gaps in AUC, all findings and models: where the 95 % interval lies",
    counts=(),
)

# %% tags=["remove-input"]
certain = single[side.isin(["above", "below"])]
defined = (side != "undefined").sum()
say(f"""
Of {len(single)} gaps, {len(single) - defined} are undefined for want of cases,
and {len(certain)} have an interval that excludes 0; were all groups treated
alike, about {0.05 * defined:.0f} would. Which of them mean something is asked
in [chapter 4](04_subgroup_fairness), where the family is corrected for its
size.
""")

# %% tags=["remove-input"]
quiz(
    "An audit finds no gap whose interval excludes 0 in a group of 30 "
    "patients. What has it shown?",
    {
        "That the model is fair to this group.": (
            False,
            "A wide interval includes 0 and large gaps alike.",
        ),
        "That gaps beyond the ends of the intervals are unlikely.": (
            True,
            "This is all that it says. Whether that is good enough depends on "
            "which gap would matter.",
        ),
        "Nothing.": (
            False,
            "It has shown how large a gap could still hide, which is worth "
            "knowing before more patients are asked.",
        ),
    },
)

# %% [markdown]
# ## Both at once: sex and age
#
# Paper S names one limit of its analysis: each attribute is looked at alone. A
# group at the crossing of two attributes can fare worse than either shows. It
# is also smaller than either.

# %%
BOTH = ("sex", "age_group")
crossed = fairness.performance_table(one, "auc", (*BOTH, BOTH), **sampling)
crossed = crossed[crossed["label"] != "mean"]
cells = schema.rows(crossed, attribute="sex x age_group")
show(cells, f"AUC of {first} by sex and age", rows="group", columns="label")

# %% tags=["remove-input"]
crossed["width"] = crossed["ci_high"] - crossed["ci_low"]
wide = crossed.groupby("attribute")["width"].mean()
say(f"""
Of {len(cells)} cells, {cells["value"].isna().sum()} have too few cases for a
number. Where there is one, the average interval is {wide["sex"]:.2f} wide by
sex, {wide["age_group"]:.2f} by age and {wide["sex x age_group"]:.2f} by both.
With two attributes this is a table; with four it would be a list of single
patients. Cells can borrow strength from each other
({{doc}}`29_crossed_groups`); that finds no cases which are not there.
""")

# %% [markdown]
# ## How many patients would it take?
#
# A gap that is not seen may be absent, or the cohort too small. The standard
# errors of this very run, from resampled patients, tell the gap that each pair
# could have shown with a chance of 80 %, and the number of ill patients that a
# gap of a given size would ask for. With $v_A$ and $v_B$ the squared standard
# errors of the two groups times their positives, a gap $g$ needs
#
# $$ N = (v_A + v_B) \frac{(z_{0.975} + z_{0.8})^2}{g^2} $$ (eq-small-plan)
#
# positives in each group: half the gap, four times the patients.

# %%
PLANNED = 0.05  # a gap that should not be missed
plan = pd.concat(
    inference.power_plan(one, a, (PLANNED,), reference=ref, **sampling)
    for a, ref in REFERENCES.items()
    if a in ATTRIBUTES
)
ends = inference.easiest_and_hardest(plan)

# %% tags=["hide-input"]
columns = ["group", "label", "n_positive_a", "detectable"]
needed = ["positives_needed", "patients_needed_a"]
show(
    ends[[*columns, *needed]].astype(dict.fromkeys(needed, "Int64")),
    f"{first}, easiest and hardest finding of each pair: gap in AUC seen with "
    "a chance of 80 %, and what a gap of "
    f"{PLANNED} asks for",
    missing="undefined",
    counts=["n_positive_a"],
)

# %% tags=["remove-input"]
worst = ends.sort_values("detectable", na_position="first").iloc[-1]
hardest = f"{worst['label']} for the pair {readable(worst['group'])}"
say(f"""
The hardest line is {hardest}: only a gap of {worst["detectable"]:.2f} or more
would have been seen, and a gap of {PLANNED} would take
{worst["positives_needed"]:.0f} ill images of each group. "No significant
difference" in such a line says that the study was small. It does not say that
the groups fare alike.
""")

# %% [markdown]
# ## Limits
#
# - A plan takes the errors of this run for those of the next, in patients like
#   these. In a group of ten the error itself is badly known.
# - Images of one patient repeat each other. A plan counts them as they come in
#   this cohort; more films of the same patients are worth less than more
#   patients.
# - Whether a group is large enough for a number says nothing of whether its
#   patients were recorded, imaged and labelled like the others.

# %% tags=["remove-input"]
in_short(
    f"""
How small may a group be? The width of an interval of AUC is here about
{rule:.2f}, divided by the square root of the ill images behind it: with ten of
them {at_ten:.2f}. Over patients it is {ours / paper:.2f} times as wide as over
images, which paper S draws. Crossing sex with age leaves
{cells["value"].isna().sum()} of {len(cells)} cells without a number. In the
hardest comparison ({hardest}), a gap must be {worst["detectable"]:.2f} to be
seen with a chance of 80 %.
""",
    figure="fig-small-width",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-subgroup-overlap
# Find a pair of groups whose intervals overlap while the interval of their gap
# excludes 0. Why does it happen?
# ```

# %% tags=["remove-input", "solution"]
overlap = fairness.overlapping(certain, results)
for_one = "There is none in this run."
if len(overlap):
    label, model, pair = overlap.iloc[0][["label", "model", "group"]]
    for_one = f"One of them is {label} of {model}, {readable(pair)}."
say(f"""
```{{solution}} ex-subgroup-overlap
:class: dropdown
`fairness.overlapping` joins `gaps` and `results` on model, label and group. Of
the {len(certain)} gaps in AUC of single findings whose interval excludes 0,
{len(overlap)} have groups with overlapping intervals. {for_one} If two
independent estimates have the same standard error $s$, their intervals stop
overlapping at a distance of $2 \\times 1.96\\,s$, while the interval of the
gap excludes 0 from $1.96\\sqrt{{2}}\\,s$ on. Between the two distances lies
the region where the eye is too strict.
```
""")

# %% [markdown]
# ```{exercise}
# :label: ex-small-size
# Predict from {numref}`fig-small-width` how the table of sex and age changes
# with a quarter of the images: how many cells lose their number, and how wide
# are the others? Then run `cxrbook run 13 -p n_images=1000`.
# ```
#
# ```{solution} ex-small-size
# :class: dropdown
# The widths should about double. Every cell with fewer than forty positive
# images loses its number, for it falls below ten: those of the youngest and
# the oldest first. A table full of "undefined" is the honest picture of such
# an audit.
# ```
#
# ```{exercise}
# :label: ex-small-report
# The clinic of the opening has films of sixteen old women with a pneumothorax,
# and as many of old men. What should the report of its audit say instead of
# "no significant difference"?
# ```
#
# ```{solution} ex-small-report
# :class: dropdown
# Three things: the gap with its interval; the smallest gap that so many would
# have shown with a chance of 80 % (`inference.power_plan`, column
# `detectable`); and how many would be needed for the gap that matters to the
# clinic. If these are out of reach for one clinic, several can pool their
# films, or the model can be watched after it is bought, with the date of a
# second look agreed on.
# ```
#
# ## Further reading
#
# - {cite:t}`seyyedkalantari2021`: underdiagnosis at the crossing of groups, in
#   cohorts large enough to cross them.
# - {cite:t}`oakdenrayner2020`: groups that nobody recorded, and in which a
#   good average hides failures.
