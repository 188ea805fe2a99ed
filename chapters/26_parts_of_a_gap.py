# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - split a gap into parts that sum to it, each with an interval
#     - say why the order of the steps matters, and what averages it
#     - tell what real films let you split and what they do not
#     needs:
#     - 12_gap_causes
# ---

# %% [markdown]
# # The parts of a gap
#
# *Goes on where [chapter 12](12_gap_causes) ends, under section 3.1 of
# {cite:t}`sourget2025`, paper S: gaps between groups, their causes left open.*
#
# A model misses more in the old. Five people sit around a table. The
# epidemiologist: they are ill more often. The clinician: they come with other
# stages of a disease, and lying down. The physicist: their films are flat. The
# engineer: they are taken with another scanner. The one who reads reports:
# much of what the old have is never written down. Each may be right, and each
# would mend something else. **How much of the gap does each of them own, and
# do the shares add up?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`: the first one is examined
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
specificity: float = 0.8  # (0, 1) at the operating point, over all patients
silent: float = 0.3  # [0, 1) of findings left out of labels from 65 years
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# The cohort and its twins are those of [chapter 12](12_gap_causes), except
# that one more bias is planted: findings of patients from 65 years on are left
# out of their labels, at random. No pixel changes. Those of 60 and over are
# called old. Real data serve for one section only, *What real films let you
# split*: the others need to know what is true.

# %% tags=["hide-input"]
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import metadata, phantom
from cxrlib.models import choose_models, load_model
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import (
    count,
    estimate,
    fmt,
    how_many,
    listed,
    percent,
    readable,
    span,
)
from cxrlib.stats import gap_parts

# %%
chosen = protocol_of(protocol)
model = load_model(choose_models(models)[0], chosen)
warn_if_seeded([model.name], data)
cohort = cohorts.study(
    data, n_images, seed, options, preprocessing=chosen.preprocessing
)
planted = cohort
if not cohort.planted:
    planted = cohorts.load("phantom", n_images=n_images, seed=seed)
contrast = planted.recipe["dials"]["contrast"]
elsewhere = {a: of for a, of in contrast.items() if a != "site"}
years = {"age_group": {"65-80": silent, "80+": silent}}
noted = phantom.twin(planted, underreport=years).table

# %% [markdown]
# ## A switch for each cause
#
# Each cause gets a *switch*. Throwing it makes the two groups alike in one
# respect and leaves the rest alone.

# %% tags=["hide-input"]
SWITCHES = {
    "prevalence": ("how many are ill", "weights"),
    "severity": ("how severe it is in the ill", "weights"),
    "view": ("lying (AP) or standing (PA)", "weights"),
    "age": ("years, where groups are not made by them", "weights"),
    "appearance": ("how well findings stand out", "twins"),
    "site": ("the scanner's signature", "twins"),
    "annotation": ("what is left out of labels", "complete labels"),
}
table = pd.DataFrame(SWITCHES, index=["what differs", "taken away by"]).T
show(table, "The switches")

# %% [markdown]
# **Weights.** The first group's films are weighted until it has the second
# one's mix. The share of the ill is one switch; the mix *among the ill* and
# *among the healthy* are others, so that none of them moves the rest. The idea
# comes from those who compare death rates and wages
# {cite:p}`kitagawa1955,oaxaca1973,dinardo1996`.
#
# **Twins.** The same patients are drawn with a dial off, as in
# [chapter 12](12_gap_causes). Two dials make four cohorts, since both can be
# off.
#
# **Labels.** The films are judged by what is there, and not by what was noted.

# %% tags=["hide-input"]
OFF = {"contrast": {}}
SAME = {"site_signature": 0.0}
twins = {
    "appearance off": phantom.twin(planted, **OFF),
    "site off": phantom.twin(planted, **SAME, contrast=elsewhere),
    "both off": phantom.twin(planted, **SAME, **OFF),
}
THROWN = {
    "appearance off": ["appearance"],
    "site off": ["site"],
    "both off": ["appearance", "site"],
}
ATTRIBUTES = ["sex", "race", "age", "age_group", "view"]
scores = zeroshot.beside_twins(
    planted, twins, model, ATTRIBUTES, negative=chosen.negative_prompt
)
scores["age60"] = metadata.young_or_old(scores["age"])
scores = gap_parts.with_severity(scores, planted.table)
scores["complete"] = (scores["severity"] > 0).astype(int)
marked = noted.melt("image_id", planted.findings, "label", "noted")
scores = scores.merge(marked, on=["image_id", "label"])
scores["y_true"] = scores["noted"].astype(int)

# %% [markdown]
# ## One switch is a step of chapter 12
#
# With a single switch there is nothing to share out. Its part is the gap as
# drawn minus the gap with the switch thrown, and the latter stays.

# %%
PAIR = ("old", "young")
METRICS = ("sensitivity", "auc", "average_precision")
ask = {"metrics": METRICS, "specificity": specificity, "protocol": chosen}
alone = gap_parts.split(
    scores,
    "age60",
    PAIR,
    mix={},
    prevalence=False,
    twins={"appearance off": ["appearance"]},
    **ask,
)
before, after = alone.game("mean", "auc").values()

# %% tags=["remove-input"]
say(f"""
[Chapter 12](12_gap_causes) would say: averaged over findings, the AUC of
{model.name} is {fmt(before.value, 3, True)} in old minus young as drawn, and
{fmt(after.value, 3, True)} with the dial for appearance off. So the dial owns
{fmt(before.value - after.value, 3, True)} of the gap.
""")

# %% [markdown]
# ## All switches, in every order
#
# With several switches the first one thrown may take much and leave little for
# the next, or make the next one worth more. So *every* set of switches is
# tried. Let $g(S)$ be the gap with the switches $S$ thrown, out of $k$. The
# part of switch $i$ is what it takes off the gap, averaged over all orders in
# which the $k$ can be thrown, its *Shapley value*:
#
# $$ \varphi_i = \sum_{S \not\ni i} \frac{|S|!\,(k - |S| - 1)!}{k!}
# \left( g(S) - g(S \cup \{i\}) \right) $$ (eq-parts-shapley)
#
# {cite:p}`shorrocks2013,zhang2023shifts`. What is left with all of them thrown
# is *unexplained*. So the parts and the unexplained sum to the gap, whatever
# the metric.

# %%
whole = {"twins": THROWN, "complete": "complete", **ask}
split = gap_parts.split(scores, "age60", PAIR, **whole)
parts = gap_parts.table(split)
parts = schema.rows(parts, label="mean")

# %% tags=["hide-input"]
plots.gap_parts(parts.dropna(subset="value"))
figure(
    "fig-parts-age",
    f"The gap between old and young in three metrics, {model.name}, mean over "
    "findings, and its parts, with 95 % intervals. Left of 0, the old are "
    "served worse. The parts and the unexplained sum to the gap.",
)

# %% tags=["remove-input"]
known = parts[parts["value"].notna()]
show(known, "The same in numbers", rows="method", columns="metric")
METHODS = ("gap", *split.switches, "unexplained")
part = {
    metric: {
        name: estimate(parts, method=name, metric=metric) for name in METHODS
    }
    for metric in METRICS
}


def owner(of):
    """The switch with the largest part of a gap, and that part."""
    name = max(split.switches, key=lambda s: abs(of[s].value))
    return f"{name} ({of[name]})"


def off_by(of):
    """How far the parts are from summing to the gap."""
    return abs(sum(of[m].value for m in METHODS[1:]) - of["gap"].value)


found, auc, precision = (part[metric] for metric in METRICS)
same = owner(found).split(" ")[0] == owner(precision).split(" ")[0]
agree = "the same colleague" if same else "another colleague"
say(f"""
The gap in sensitivity is {found["gap"]}; its largest part goes to
{owner(found)}, and {found["unexplained"]} stays unexplained (the interval
{found["unexplained"].lies}). The gap in average precision is
{precision["gap"]}, and its largest part belongs to {agree}:
{owner(precision)}. **Who is to blame depends on what is counted.**

Planted were fainter findings (appearance) and silent labels (annotation) in
the old. Silent labels leave out findings by chance, so those that remain are a
fair sample of the ill: their part in the sensitivity is
{found["annotation"]}, in the average precision {precision["annotation"]}. The
share of the ill cannot move sensitivity or AUC, and its part there is exactly
{fmt(found["prevalence"].value, 0)}. Scanners are dealt out without regard to
age: their part in the AUC is {auc["site"]}.

In none of the three does the sum of the parts miss the gap by more than
{max(map(off_by, part.values())):.0e}.
""")

# %% [markdown]
# ## Why an average over orders?
#
# Here is what each switch takes off the gap in average precision when it is
# thrown first, with all other differences still there, and when it is thrown
# last, with none of them left.

# %% tags=["hide-input"]
game = split.game("mean", "average_precision")
none, every = frozenset(), frozenset(split.switches)
shared = gap_parts.parts(game, split.switches)
orders = pd.DataFrame(
    {
        "thrown first": game[none].value - game[none | {s}].value,
        "thrown last": game[every - {s}].value - game[every].value,
        "Shapley value": shared[s].value,
    }
    for s in split.switches
)
orders.index = pd.Index(split.switches, name="switch")
show(orders, "Taken off the gap in average precision", digits=3)

# %% tags=["remove-input"]
apart = orders["thrown first"] - orders["thrown last"]
most = apart.abs().idxmax()
one, last, value = orders.loc[most]
firsts, lasts = orders["thrown first"].sum(), orders["thrown last"].sum()
explained = game[none].value - game[every].value
say(f"""
For {most} it matters most: {fmt(one, 3, True)} thrown first,
{fmt(last, 3, True)} thrown last, {fmt(value, 3, True)} on average over all
orders. What all switches together take off is {fmt(explained, 3, True)}; the
first column sums to {fmt(firsts, 3, True)} and the second to
{fmt(lasts, 3, True)}. Only an order that is followed to its end, or an average
of such orders, sums to what was taken off.

Switches interact. Silent labels make the old look less often ill than they
are, and while these labels stand, the switch for prevalence mends what the
labels broke. Once the labels are complete, that work is done. What belongs to
two switches together, their average shares out equally: a rule, fair to
everybody at the table, and no finding.
""")

# %% tags=["remove-input"]
quiz(
    "Silent labels leave out the same share of findings in old and young. Can "
    "the switch for the labels still own a part of the gap in AUC?",
    {
        "No: it is the same in both groups.": (
            False,
            "It pulls both AUCs towards chance, and the higher one further. "
            "Where the groups differ in something else, the gap changes.",
        ),
        "Yes, if the groups differ in something else.": (
            True,
            "A bias that both share changes how large a gap another cause "
            "makes. Alone, it makes none.",
        ),
    },
)

# %% [markdown]
# ## Other groups
#
# For women and men, and by race, no dial was set. What sets them apart is who
# belongs to them: their years, their sites, and luck.

# %%
whole["metrics"] = ("sensitivity",)
PAIRS = {"sex": ("F", "M"), "race": ("Black", "White")}
others = pd.concat(
    gap_parts.table(gap_parts.split(scores, attribute, pair, **whole))
    for attribute, pair in PAIRS.items()
)
others = schema.rows(others, label="mean")
show(
    others,
    f"Gaps in mean sensitivity of {model.name}, and their parts",
    rows="method",
    columns="group",
)

# %% tags=["remove-input"]
gap, years, faint = (
    estimate(others, attribute="sex", method=m)
    for m in ("gap", "age", "appearance")
)
by_race, place = (
    estimate(others, attribute="race", method=m) for m in ("gap", "site")
)
pieces = others[others["method"].isin(split.switches) & others["value"].ne(0)]
away = (pieces["ci_low"] > 0) | (pieces["ci_high"] < 0)
say(f"""
Between women and men, the gap in sensitivity is {gap}. As far as the two
differ in years, the dial for age works here in disguise, and age ({years}) and
appearance ({faint}) share it, since each switch alone would take it away. By
race the gap is {by_race}, of which {place} goes with the scanner (the interval
{place.lies}). Of the parts in the table that are not exactly 0, the intervals
of {how_many(away)} exclude it; where nothing is at work, some do so by chance.
""")

# %% [markdown]
# ## What real films let you split
#
# Real films have no twins, and nobody knows what their labels left out. What
# can be weighted away is what somebody wrote down. The same call splits what
# it can and names the rest. Here it sees what an auditor would see: labels as
# noted, and neither twins nor severity.

# %% tags=["hide-input"]
if cohort.planted:
    seen = scores[scores["model"] == "as drawn"]
    seen = seen.drop(columns=["severity", "complete"])
else:
    about = [c for c in ATTRIBUTES if c in cohort.table]
    seen = zeroshot.predict(
        cohort, [model], cohort.findings, negative=chosen.negative_prompt
    ).merge(cohort.table[["image_id", *about]], on="image_id")
    seen["age60"] = metadata.young_or_old(seen["age"])
    seen = gap_parts.with_severity(seen, cohort.table)
pairs = {"age60": PAIR, **PAIRS}
both = [a for a in pairs if a in seen and {*pairs[a]} <= {*seen[a]}]
for attribute in both or ["age60"]:
    audit = gap_parts.split(seen, attribute, pairs[attribute], **ask)
    if audit.gaps:
        break
blind = schema.rows(gap_parts.table(audit), label="mean")
who = " minus ".join(pairs[attribute])
if audit.gaps:
    show(
        blind[blind["value"].notna()],
        f"The gap, {who}, as an audit of {cohort.name} can split it",
        rows="method",
        columns="metric",
    )
lacks = pd.DataFrame(audit.cannot.items(), columns=["part", "why it cannot"])
show(lacks, f"What an audit of {cohort.name} cannot split, and why")

# %% tags=["remove-input"]
told, left, share = (
    {m: estimate(blind, method=name, metric=m) for m in METRICS}
    for name in ("gap", "unexplained", "prevalence")
)
beside, of_which = "", f"of the {told['average_precision']} in {cohort.name}"
if cohort.planted:
    of_which = "of it"
    beside = f"""
With twins and complete labels these were {found["unexplained"]} and
{precision["unexplained"]}. Worse, a cause that cannot be split may hide in one
that can: prevalence is given {share["average_precision"]} of the second gap
here, and {precision["prevalence"]} above. The old *seem* less often ill.
"""
of_gap = f"""
Of the gap in sensitivity ({who}), {told["sensitivity"]}, as much as
{left["sensitivity"]} is unexplained; of that in average precision,
{told["average_precision"]}, {left["average_precision"]}.
"""
if not audit.gaps:
    why = listed(f"{x} ({audit.notes[x]})" for x in audit.notes if x != "mean")
    of_gap = f"Of no finding can the gap be split ({who}): {why}."
say(f"""
{of_gap}
{beside}
*Unexplained* is a word for what was not measured. It is neither proof of an
unfair model nor of the absence of one. An auditor can make it smaller: have
radiologists grade severity and read some films again
([chapter 22](22_label_error)), record the scanner, image a test object.
""")

# %% [markdown]
# ## Do the intervals hold the truth?
#
# Patients are the unit. Weights are estimated from the same films, so each
# film has an influence on them too, and the intervals count it. Whether they
# hold the truth takes many studies of which it is known, *recorded* by
# `benchmarks/gap_parts.py`. Designs are named after what is planted; scores
# are normal, so that every part has a formula (where phantoms are named,
# patients are drawn from a pool of them, whose own parts are the truth).

# %% tags=["hide-input"]
recorded = gap_parts.recorded()
owns = recorded["truth"].abs() > gap_parts.ROUNDING
recorded["what"] = owns.map({True: "owns a part", False: "owns none"})
kinds = recorded.groupby(["design", "what"], sort=False)
kinds = kinds[["n_studies", "n_hold"]].sum()
held = (kinds["n_hold"] / kinds["n_studies"]).unstack()
held["lowest of all"] = recorded.groupby("design")["coverage"].min()
what = "How often 95 % intervals of parts hold the truth, per cent"
show(100 * held.rename_axis(columns=None), what, digits=1, missing="–")

# %% tags=["remove-input"]
n = recorded["n_studies"].min()
low = recorded.loc[recorded["coverage"].idxmin()]
planted_parts, empty = (
    recorded.loc[rows, "n_hold"].sum() / recorded.loc[rows, "n_studies"].sum()
    for rows in (recorded["planted"], ~owns)
)
say(f"""
Recorded on {recorded["date"].max()}, at least {count(n)} studies a line. Over
all designs, intervals hold {percent(planted_parts, 1)} of the parts that were
planted; of those of switches that own none, {percent(empty, 1)} contain
zero. By design, where a switch owns a part, the share goes from
{span(held["owns a part"], percent, digits=1)}; where it owns none, from
{span(held["owns none"], percent, digits=1)}.

Line by line it is less even: the least is {percent(low["coverage"], 1)}
({low["part"]}, {readable(low["metric"])}; {low["design"]}). Where few are ill
in a group, a precision bends too much with each film for an interval from
influences, and that is too narrow.
""")

# %% [markdown]
# ## Limits
#
# - Weights suppose that the mix could be another one while the group stays the
#   same. If the group itself brings the mix about, its part is no excuse: the
#   old may come late *because* nobody sends them, and lie in bed because they
#   are old {cite:p}`jones2024`.
# - The first group gets the mix of the second. The other way round is as good
#   and gives other sizes.
# - What causes own together is shared equally, by rule. And years are cut into
#   groups, severity into classes: differences within these stay unexplained.
# - A cause that sits in the *model* has no switch here. A model that was
#   trained on silent reports leaves its gap in the unexplained; and whether
#   flat films are the film's fault, or that of a model which cannot read them,
#   no sum can tell.
# - The threshold is fixed, like that of a device in use.

# %% tags=["remove-input"]
in_short(
    f"""
A gap can be split into parts that sum to it, whatever the metric. Between old
and young, the gap of {model.name} in sensitivity is {found["gap"]}, of which
most goes to {owner(found)}; in average precision it is {precision["gap"]},
with most for {owner(precision)}. *Appearance* is how well findings stand out,
*annotation* what labels leave out. Of the gap in average precision, {most} has
{fmt(one, 3, True)} if it is taken away first and {fmt(last, 3, True)} if last;
Shapley values average over all orders. Without twins and complete labels,
{left["average_precision"]} {of_which} stays unexplained. Paper S leaves the
causes of its gaps open; real films let one split what somebody recorded.
""",
    figure="fig-parts-age",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-parts-turned
# Split the gap of young minus old instead. Which numbers must be the same with
# the other sign, and which need not?
# ```
#
# ```{solution} ex-parts-turned
# :class: dropdown
# `PAIR = ("young", "old")`. The gap turns around exactly. The parts need not:
# now the young get the mix of the old, which weights other films. Two such
# splits are two answers to two questions: what if the old were like the young,
# and what if the young were like the old?
# ```
#
# ```{exercise}
# :label: ex-parts-training
# *phantom-resnet-underreport* learned from reports that are silent on women.
# Give that cause a switch. (A twin of a *model* is a column of scores like any
# other.)
# ```
#
# ```{solution} ex-parts-training
# :class: dropdown
# Predict with both models, the silent one first, and merge in sex, age, view
# as above; then `gap_parts.split(both, "sex", ("F", "M"),
# twins={"phantom-resnet": ["training"]}, **ask)`. The threshold stays that of
# the silent model. Most of its gap in sensitivity should go to the training,
# and little of the gap in AUC.
# ```
#
# ## Further reading
#
# - {cite:t}`jones2024` sort biases of data into prevalence, presentation and
#   annotation, and show that they can look alike.
# - {cite:t}`zhang2023shifts` share out the fall of a model's performance in a
#   new hospital by Shapley values; {cite:t}`cai2023` split it in three.
# - {cite:t}`bernhardt2022` and {cite:t}`glocker2023` on what gaps in chest
#   films owe to labels and to the mix of patients.
