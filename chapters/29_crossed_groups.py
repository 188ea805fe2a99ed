# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - say of a small group what those that are like it allow
#     - tell what a number owes to the group and what to the others
#     - name what borrowed strength can never see
#     needs:
#     - 13_small_groups
# ---

# %% [markdown]
# # Small and crossed groups
#
# *Goes on where [chapter 13](13_small_groups) ends, under sections 2.1 and 4
# of {cite:t}`sourget2025`, paper S: each attribute is looked at alone, and the
# Asian and the youngest patients are too few to judge.*
#
# The clinic of that chapter asks again. It cares for old women, and wants to
# know how well the model finds their collapsed lungs. The audit has so few of
# them that it answers "undefined". That is honest. Yet more is known: the
# audit has old men, and younger women. If all of them are served well, is it
# likely that old women are not?
#
# Statisticians call this *borrowing strength*. It gives a number to groups
# that have none. It also rests on a belief: that the old woman is, more or
# less, the sum of old and woman. **What can be lent to a small group, how much
# of the answer is then its own, and when does it deceive?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`: the first one is examined
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
specificity: float = 0.8  # (0, 1) at the operating point, over all patients
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import phantom
from cxrlib.models import choose_models, load_model
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import plots
from cxrlib.show.notebook import figure, keep, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import (
    estimate,
    fmt,
    how_many,
    percent,
    plural,
    readable,
    span,
)
from cxrlib.stats import borrowed, fairness

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
model = load_model(choose_models(models)[0], chosen)
warn_if_seeded([model.name], data)
cohort = cohorts.study(
    data, n_images, seed, options, preprocessing=chosen.preprocessing
)
people = cohort.table
if "race" in people:
    of_s = people["race"].isin(["White", "Black", "Asian"])
    people = people.assign(race=people["race"].where(of_s))
WANTED = ("sex", "age_group", "race", "site")
ATTRIBUTES = [a for a in WANTED if a in people and people[a].nunique() > 1]
predictions = zeroshot.predict(
    cohort, [model], cohort.findings, negative=chosen.negative_prompt
).merge(people[["image_id", *ATTRIBUTES]], on="image_id")
FINDING = "Pneumothorax"
if FINDING not in cohort.findings:
    FINDING = cohort.findings[0]
one = predictions[predictions["label"] == FINDING]

# %% [markdown]
# ## What crossing costs
#
# Each further attribute splits every group again. A group gets a number in
# this book from ten positive images on; here five are enough, or ten where
# small groups must not be seen.

# %% tags=["hide-input"]
ENOUGH = protocol_of("corrected").min_cases
LEAST = max(borrowed.FEWEST, schema.smallest_cell())
crossings = [ATTRIBUTES[:k] for k in range(1, len(ATTRIBUTES) + 1)]
cells = [one.groupby(a, observed=True)["y_true"].sum() for a in crossings]
sizes = pd.DataFrame(
    {
        "groups": len(ill),
        "with enough for a number": (ill >= ENOUGH).sum(),
        "with enough to be helped": (ill >= LEAST).sum(),
    }
    for ill in cells
).set_index(pd.Index([" x ".join(a).replace("_", " ") for a in crossings]))
show(sizes, f"Groups of {cohort.name} by positives of {FINDING}", counts=())

# %% tags=["remove-input"]
finest = sizes.index[-1]
groups, enough, helped = sizes.loc[finest]
without = 1 - enough / groups
say(f"""
Crossed by {finest}, the cohort {cohort.name} falls into
{plural(groups, "group")}. By the rule of this book, {percent(without)} of them
have no number, and {helped - enough} of these have enough to be helped. Alone,
their films would not do: with five positives, one image moves the sensitivity
by a fifth.
""")

# %% [markdown]
# ## Three ways to lend
#
# Let $z_k$ be the logit of the AUC, or of the sensitivity, of group $k$. One
# model holds all the answers of this chapter:
#
# $$ z_k = \underbrace{x_k^\top \beta}_{\text{the sum}} +
# \underbrace{u_k}_{\text{the rest}} +
# \underbrace{e_k}_{\text{luck}} $$ (eq-crossed-model)
#
# The *sum* is what sex, age and the others add up to. The *rest* is particular
# to the group: its size is unknown, but all groups together tell how large
# rests usually are. *Luck* is the draw of films; its size is known from the
# films, with patients as the unit. The model comes from those who estimate
# incomes of small towns {cite:p}`fay1979`; a kindred one was proposed for
# models like ours by {cite:t}`herlihy2024`. Leave parts out and you get:
#
# - **raw**: no sum, no limit to the rest. Nobody lends anything.
# - **empirical Bayes**: one mean in place of the sum. All lend to all.
# - **additive**: the sum and no rest. Nothing is particular to a group.
# - **structured**: both. A group gets the sum of its attributes, and keeps as
#   much of its own as it has films to show for it. What is particular to old
#   women of one site is partly that of old women elsewhere.

# %%
PAIR = ATTRIBUTES[:2]
by_method = borrowed.table(one, PAIR, "auc")


def told(table):
    """The table with plain names of the methods."""
    return table.assign(method=table["method"].str.split(", ").str[-1])


pairs = told(by_method)
keep(by_method)

# %% tags=["hide-input"]
plots.crossed_groups(pairs)
figure(
    "fig-crossed-methods",
    f"AUC of {model.name} for {FINDING} in crossed groups, with 95 % "
    "intervals, by how much is lent. The groups with the fewest positives "
    "stand on top.",
)

# %% tags=["remove-input"]
known = pairs.dropna(subset="value").sort_values("n_positive", kind="stable")
lent = schema.rows(known, method=borrowed.STRUCTURED)
group = next(iter(lent["group"]), "none")
mine = {m: estimate(pairs, group=group, method=m) for m in borrowed.METHODS}
shares = borrowed.own_share(lent)
wide = (known["ci_high"] - known["ci_low"]).groupby(known["method"]).mean()
wide = wide.reindex(borrowed.METHODS)
text = f"""
The thinnest group with a number is {readable(group)}. Raw, its AUC is
{mine["raw"]}. Empirical Bayes draws it to the mean of all:
{mine["empirical Bayes"]}. The sum of its attributes is {mine["additive"]}, and
both together give {mine["structured"]}. Look at the lower lines of
{{numref}}`fig-crossed-methods`: where films are many, the methods agree, since
a large group needs no help.

Averaged over the groups, intervals are {fmt(wide["raw"])} wide raw and
{fmt(wide["structured"])} structured. Of a structured number,
{span(shares, percent)} is the group's own; the rest is lent.
"""
if lent.empty:
    text = f"""
Too few groups of {cohort.name} have {LEAST} positive and as many negative
images. Nobody is left to lend, and there is no borrowed number.
"""
say(f"""
{text}

**A borrowed number is not a measurement of the group.** It has to carry that
mark wherever it goes, as it does in the notes of the book's tables.
""")

# %% [markdown]
# ## How can five films do?
#
# Three details make the model work where a group is tiny.
#
# - *Nobody may be perfect.* Where all five are found, the sensitivity is one,
#   and one has no logit. So $z_k$ is computed as every logistic regression
#   does it: by its slope, where the model puts the group.
# - *Luck is measured together.* Five films cannot tell how much five films
#   vary. The variance of the placement values is pooled over groups, and what
#   the films of one patient repeat is taken from all patients.
# - *The usual rest is not known either.* All sizes that it could have are
#   tried, and the answer is their average, weighted by how well each fits.

# %% [markdown]
# ## At the operating point
#
# A clinician meets the sensitivity. The threshold is one for all, set on all
# healthy patients.

# %%
decided = fairness.decide(one, specificity)
found = borrowed.table(decided, PAIR, "sensitivity")
keep(found)
found = told(found)
show(
    found,
    f"Sensitivity of {model.name} for {FINDING} at a specificity of "
    f"{specificity}",
    rows="group",
    columns="method",
)

# %% tags=["remove-input"]
at_point = {
    m: estimate(found, group=group, method=m) for m in borrowed.METHODS
}
if len(lent):
    say(f"""
Of those who are ill in the thinnest group, {readable(group)}, the model finds
a share of {at_point["raw"]} raw and {at_point["structured"]} with what the
others lend. As long as other groups differ from their sums, this one may, too:
that is in the interval.
""")

# %% [markdown]
# ## All at once
#
# With every attribute crossed, most groups are small, and the raw numbers are
# mostly luck.

# %% tags=["hide-input"]
everything = borrowed.table(decided, ATTRIBUTES, "sensitivity")
given = told(everything).dropna(subset="value")
width = given["ci_high"] - given["ci_low"]
reach = given.groupby("method")["value"].agg(["size", "min", "max"])
reach = reach.assign(width=width.groupby(given["method"]).mean())
names = ["groups", "lowest", "highest", "mean width of intervals"]
reach = reach.reindex(borrowed.METHODS).set_axis(names, axis=1)
what = f"Sensitivity, groups of {finest}"
show(reach.reset_index(), what, missing="undefined", counts=())

# %% tags=["remove-input"]
low, high = reach["lowest"], reach["highest"]
if low.notna().all():
    say(f"""
Raw, the groups lie between {fmt(low["raw"])} and {fmt(high["raw"])}: there is
a headline in it, whatever the model does. Structured, they lie between
{fmt(low["structured"])} and {fmt(high["structured"])}. To rank groups by raw
numbers is to rank their sizes: the smallest come out on both ends.
""")

# %% [markdown]
# ## What does each method claim when nothing is planted?
#
# Here are phantoms of the same patients whose findings stand out alike in
# everybody. Whatever differs between groups now is luck, or comes from how
# bodies of different ages look.

# %% tags=["hide-input"]
planted = cohort
if not cohort.planted:
    planted = cohorts.load("phantom", n_images=n_images, seed=seed)
SEEN = "as drawn"
twins = {"alike": phantom.twin(planted, contrast={})}
CROSSED = ["sex", "age_group", "race", "site"]
both = zeroshot.beside_twins(
    planted, twins, model, CROSSED, chosen.negative_prompt
)
both = both[both["label"] == "Pneumothorax"]
alike = both[both["model"] == "alike"]
claims = told(borrowed.table(alike, CROSSED, "auc")).dropna(subset="value")

# %% tags=["remove-input"]
ends = claims.groupby("method")["value"].agg(["min", "max"])
ends = (ends["max"] - ends["min"]).reindex(borrowed.METHODS)
if ends.notna().all():
    say(f"""
Between the best and the worst group, the AUC differs by
{fmt(ends["raw"])} raw, by {fmt(ends["additive"])} in the sums, by
{fmt(ends["structured"])} structured and by {fmt(ends["empirical Bayes"])}
with empirical Bayes. A raw table of small groups shows a scandal even here.
""")

# %% [markdown]
# ## What no sum can see
#
# Now the case that matters most. Findings are fainter in old women **and in
# nobody else**: neither in old men nor in young women. To plant it, every
# other patient is taken from the phantoms without the dial.

# %%
old = both["age_group"].isin(["65-80", "80+"])
harmed = (both["sex"] == "F") & old
alone = both[(both["model"] == SEEN) == harmed].assign(model=model.name)
hidden = told(borrowed.table(alone, ["sex", "age_group"], "auc"))

# %% tags=["hide-input"]
shown = schema.rows(hidden, group=["F x 65-80", "F x 80+", "M x 65-80"])
show(
    shown,
    f"AUC of {model.name} for Pneumothorax, fainter in old women alone",
    rows="group",
    columns="method",
)

# %% tags=["remove-input"]
OLD_WOMEN, OLD_MEN = "F x 65-80", "M x 65-80"
seen = {
    m: [estimate(hidden, group=g, method=m) for g in (OLD_WOMEN, OLD_MEN)]
    for m in borrowed.METHODS
}
says = f"""
For women of 65 to 80, who are harmed, the films themselves say
{seen["raw"][0]}. The additive model says {seen["additive"][0]}. It spreads the
harm over all women and all who are old: the harmed look better, and others
worse, than they are (men of that age: {seen["additive"][1]}, raw
{seen["raw"][1]}). The structured model says {seen["structured"][0]}: it keeps
what is particular to them as far as their films insist.
"""
if any(pd.isna(e.value) for pair in seen.values() for e in pair):
    says = "With so few phantoms the groups concerned have no number."
say(f"""
{says} In one study luck can hide all of this. The record below has many.
""")

# %% tags=["remove-input"]
quiz(
    "An audit reports a borrowed sensitivity for a group of six patients, "
    "with an interval half as wide as the raw one. What does the narrower "
    "interval rest on?",
    {
        "On more patients of this group.": (
            False,
            "There are six, as before.",
        ),
        "On the belief that this group differs from its sum no more than "
        "other groups do from theirs.": (
            True,
            "If it does differ more, the interval is too narrow for it, and "
            "nobody can tell from its six patients.",
        ),
        "On the other groups being served equally well.": (
            False,
            "They may differ: sex, age and the others each have an effect of "
            "their own in the sum.",
        ),
    },
)

# %% [markdown]
# ## Judged where the truth is known
#
# `benchmarks/borrowed.py` has *recorded* many studies with groups of sex, age,
# race and site. Designs are named after what is planted: *nothing*; *sums*,
# that is, effects of age and sex; a *rest* in every group besides; or *old
# women*, who alone are served worse than their sum. Of phantoms, patients are
# drawn from a large pool, whose own numbers are the truth. First, how far the
# numbers of groups with fewer than thirty positives are off.

# %% tags=["hide-input"]
WORTH = 30  # per cent off the error that lending should bring
recorded = borrowed.recorded()
errors = borrowed.errors(recorded)
less = 100 * (1 - errors["structured"] / errors["raw"])
show(
    errors.assign(
        **{"structured, % less": less.map("{:.0f}".format)}
    ).reset_index(),
    "Root-mean-square error in groups with fewer than thirty positives",
    digits=3,
)

# %% tags=["hide-input"]
coverage = borrowed.coverage(recorded)
plots.crossed_groups(coverage)
figure(
    "fig-crossed-coverage",
    "How often 95 % intervals of groups with fewer than thirty positives hold "
    "the truth, by what is planted; AUC and sensitivity together. Whiskers: "
    "what the number of studies leaves open.",
)


# %% tags=["remove-input"]
def span_of(rows, digits):
    """method -> the lowest and the highest coverage in these rows."""
    found = rows.groupby("method")["value"]
    return {m: f"{span(x, digits=digits)} %" for m, x in found}


rests = less[less.index.get_level_values("design").str.contains("rest")]
gain = rests.groupby("design").mean()
lends = gain.index[gain.argmax()], gain.index[gain.argmin()]
holds = span_of(coverage[coverage["group"].isin(gain.index)], 1)
true = recorded[
    recorded["design"].isin(gain.index)
    & (recorded["method"] == borrowed.STRUCTURED)
    & ~recorded["special"]
]
low = true.loc[true["coverage"].idxmin()]
theirs = span_of(coverage[coverage["group"].str.endswith(borrowed.THEY)], 0)
nothing = recorded[recorded["design"] == "nothing"].groupby("method")
nothing = nothing[["n_claims", "n_studies"]].sum()
false = (nothing["n_claims"] / nothing["n_studies"]).map(percent)
ranges = recorded[
    recorded["design"].eq("nothing") & recorded["metric"].eq("auc")
]
ranges = ranges.groupby("method")["range"].mean()
say(f"""
Recorded on {recorded["date"].max()}. In small groups the structured numbers
are off by {span(less, digits=0)} % less than raw ones; in
{how_many(less >= WORTH)} lines by {WORTH} % or more. The larger the rests, the
less there is to lend: the gain is {fmt(gain.max(), 0)} % for *{lends[0]}* and
{fmt(gain.min(), 0)} % for *{lends[1]}*.

**Do the intervals hold?** Where the structured model is true (sums and a
rest), its intervals hold the truth in {holds["structured"]}; those of
empirical Bayes in {holds["empirical Bayes"]}, and those of the additive model,
which knows of no rest, in {holds["additive"]}. Line by line, the least of the
structured ones is {percent(low["coverage"], 1)} ({readable(low["metric"])},
{low["size"]} positives, *{low["design"]}*). Where there is no rest at all,
they are somewhat too wide.

**What is claimed of nothing?** With nothing planted, raw intervals leave out
the mean of all in {false["raw"]} of groups, additive ones in
{false["additive"]}, structured ones in {false["structured"]}, those of
empirical Bayes in {false["empirical Bayes"]}. From the best to the worst group
of a study, raw AUCs differ by {fmt(ranges["raw"])} on average, structured ones
by {fmt(ranges["structured"])}.

**Where it fails.** Of old women who alone are harmed, raw intervals hold the
truth in {theirs["raw"]}, structured ones in {theirs["structured"]}, additive
ones in {theirs["additive"]} and those of empirical Bayes in
{theirs["empirical Bayes"]}. All that is borrowed errs in one direction here:
it makes the harmed look better served than they are.
""")

# %% [markdown]
# ## Limits
#
# - The group that differs most from its sum is the one that lending hides, and
#   it may be the one that an audit is for. If there is a reason to fear for a
#   group, collect its films. No model replaces them.
# - Groups are exchangeable *rests* here: before the films are seen, none is
#   more suspect than another. Whoever knows better should say so beforehand.
# - A 95 % interval holds on average over groups, not in each of them.
# - Groups with fewer than five positives, or five negatives, get no number and
#   lend nothing; of credentialed data, those with fewer than ten. Where no
#   more groups are left than the sum has coefficients, nobody can lend.
# - Labels, and groups as they were recorded, err as in
#   [Subgroup fairness](04_subgroup_fairness). Lending carries such errors to
#   others.

# %% tags=["remove-input"]
in_short(
    f"""
Of the groups of {finest} in {cohort.name}, {percent(without)} have too few
cases of {FINDING} for a number of their own. Others can lend: a sum of what
sex, age and the like do, and a rest learned from all groups, give a number
from {LEAST} positives on. Where the truth is planted, its error in small
groups is {span(less, digits=0)} % below that of the raw number, and 95 %
intervals hold the truth in {holds["structured"]} of cases where the model is
true. If old women alone are harmed, they hold it in {theirs["structured"]},
and make these women look better served than they are. Paper S leaves small
groups unjudged.
""",
    figure="fig-crossed-methods",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-crossed-fewer
# Run the chapter with a quarter of the films: `cxrbook run 29 -p
# n_images=1000`. Which numbers of {numref}`fig-crossed-methods` move most, and
# what happens to the shares that are the groups' own?
# ```
#
# ```{solution} ex-crossed-fewer
# :class: dropdown
# The raw numbers move most, above all on the upper lines. Some groups vanish,
# and with them those who lent. Where an age is left with one sex alone, the
# effect of that age is told by this group only: its own share *rises*, and its
# interval is about as wide as the raw one. One can borrow only from those who
# are there.
# ```
#
# ```{exercise}
# :label: ex-crossed-site
# Plant a harm that *is* a sum: `cxrbook run 29 -p 'options={"dials":
# {"contrast": {"sex": {"F": 0.7}, "site": {"C": 0.7}}}}'`. Which method should
# do best for women at site C, and why does it not need to know them?
# ```
#
# ```{solution} ex-crossed-site
# :class: dropdown
# The additive one, and the structured one nearly as well: women elsewhere show
# what it is to be a woman, men at site C what it is to be there, and factors
# on the contrast are roughly sums of logits. That women at site C are few is
# then no harm. It would be one if the two biases met in them alone.
# ```
#
# ```{exercise}
# :label: ex-crossed-report
# The clinic wants to print one number for its old women: the borrowed one.
# Write the sentence that has to stand beside it.
# ```
#
# ```{solution} ex-crossed-report
# :class: dropdown
# For example: "Estimated from six patients of this group and from others,
# supposing that being old and being a woman add up for this model; if they do
# not, this number may be too favourable. Of the six alone, four were found."
# Both numbers, the own share, and the date by which there will be more films.
# ```
#
# ## Further reading
#
# - {cite:t}`herlihy2024`: structured regression for groups at crossings, and
#   tests of whether a sum suffices.
# - {cite:t}`fay1979`: the model, for incomes of small places.
# - {cite:t}`rue2009`: how such models are fitted without simulation.
# - {cite:t}`seyyedkalantari2021`: groups at crossings that were large enough.
