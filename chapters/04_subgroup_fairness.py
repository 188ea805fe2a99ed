# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.1: ''
#       S 3.1: fig-subgroup-gaps
#       S 4: ''
#       S Fig. 1: fig-subgroup-auc
#     goals:
#     - give a gap between two groups its own interval, its noise floor and its place
#       among many comparisons
#     - say why AUC can miss that a group is underdiagnosed, and which number shows
#       it
#     - test an audit against a bias that was planted, and tell a cause from a coincidence
#     needs:
#     - 01_data_curation
#     - 02_zero_shot
# ---

# %% [markdown]
# # Subgroup fairness: as good for everyone?
#
# *Answers sections 2.1 and 3.1 of {cite:t}`sourget2025`, paper S, and its Fig. 1.*
#
# Two patients come in with the same pleural effusion: a man of 40 and a woman of 82. A model that is good
# *on average* has looked at both films and has sorted the reading list of the night. If it sees effusions
# less well in people like her, she waits until the morning. Nobody notices, for the average is as good as
# ever, and nobody is an average patient.
#
# So paper S breaks its results down by age, sex and race. It reports gaps between ages, smaller ones by
# sex and by race, and wide intervals where patients are few. This chapter asks the same of the models of
# this run, puts an interval on every gap, counts how many comparisons were made, and then does what real
# data do not allow: on phantoms, it checks the answers against the truth that was planted.

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models` separated by commas, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "all"}, or the dials of a phantom
seed: int = 1907  # [0, 1000000] seed of the phantom cohort and of the resamples
n_images: int = 4000  # [100, 1000000] images in the phantom cohort; real cohorts are taken whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
n_permutations: int = 1000  # [10, 1000000] groups dealt anew, for the gaps of an exactly fair model
specificity: float = 0.8  # (0, 1) at the operating point, over all patients
protocol: str = "corrected"  # {corrected, as_published} models, prompt and resampling of S's code

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import pandas as pd

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts import phantom
from cxrlib.models import load_models
from cxrlib.papers import published
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import interactive
from cxrlib.show.notebook import figure, glue, keep, quiz, setup, show, warn_if_seeded
from cxrlib.show.plots import bars, gap_forest, group_bars
from cxrlib.show.words import fmt, fmt_row, in_words, interval_lies, percent, readable
from cxrlib.stats import fairness, inference
from cxrlib.stats.as_published import performance_by_protocol

setup()
chosen = protocol_of(protocol)
TITLES = {"index": readable, "columns": readable}  # "F" reads "female" in tables
clips = load_models(models, chosen)
names = [clip.name for clip in clips]
first = names[0]
resampling = {"n_resamples": n_resamples, "seed": seed}
# a group with few cases gets no gap, whichever the protocol
resampling["protocol"] = replace(chosen, min_cases=protocol_of("corrected").min_cases)
RACES = ("White", "Black", "Asian")  # the groups of S
REFERENCES = {"age_group": "25-50", "sex": "M", "race": "White"}
warn_if_seeded(names)

# %% [markdown]
# ## Who is in the groups?
#
# A statement about a group can be no better than the group is large. What counts is not its images but
# its *ill* patients, finding by finding.

# %%
cohort = cohorts.study(data, n_images, seed, options, preprocessing=chosen.preprocessing)
people = cohort.table
if "race" in people:
    people = people.assign(race=people["race"].where(people["race"].isin(RACES)))
ATTRIBUTES = [a for a in REFERENCES if a in people and people[a].nunique() > 1]

# %% tags=["hide-input"]
NO_GROUP = "other or not recorded"
sizes = []
for attribute in ATTRIBUTES:
    column = people[attribute].astype(object)
    for group, rows in people.groupby(column.where(column.notna(), NO_GROUP)):
        positives = rows[list(cohort.findings)].sum()
        sizes.append(
            {
                "attribute": attribute.replace("_", " "),
                "group": readable(group),
                "images": len(rows),
                "patients": rows["patient_id"].nunique(),
                "fewest positives": int(positives.min()),
                "for": positives.idxmin(),
            }
        )
sizes = pd.DataFrame(sizes)
shown = sizes
for counts in (["images", "patients"], ["fewest positives"]):  # of credentialed data, none is small
    shown = guard.suppress(shown, counts=counts, values=(), by=["attribute"])
show(
    shown,
    caption="Groups of the test cohort, and the finding with the fewest positive images",
    missing="hidden",
    counts=(),
)

# %% tags=["remove-cell"]
nowhere = sizes["group"] == NO_GROUP
scarce = shown.loc[sizes.loc[~nowhere, "fewest positives"].idxmin()]
glue("cohort", cohort.name)
glue(
    "race-note",
    f"By race they are {', '.join(RACES)}, as in paper S"
    if "race" in ATTRIBUTES
    else "Race is not recorded, so that gaps by race are looked at in phantoms alone, further down",
)
glue(
    "nowhere",
    "; ".join(
        f"{row['attribute']}: a number that is not shown"
        if pd.isna(row["images"])
        else f"{row['attribute']}: {row['images']} images of {row['patients']} patients"
        for _, row in shown[nowhere].iterrows()
    )
    or "none",
)
glue("scarce-group", scarce["group"])
glue("scarce-n", "few" if pd.isna(scarce["fewest positives"]) else scarce["fewest positives"])
glue("scarce-finding", scarce["for"])
glue(
    "scarce-step",
    "by an unknown step"
    if pd.isna(scarce["fewest positives"]) or not scarce["fewest positives"]
    else f"by {percent(1 / scarce['fewest positives'])}",
)

# %% [markdown]
# These are the groups of the cohort {glue:text}`cohort`. {glue:text}`race-note`. Images with another
# entry, or without one, count in the whole cohort and in no comparison of groups
# (here: {glue:text}`nowhere`).
#
# The thinnest place is group {glue:text}`scarce-group`: {glue:text}`scarce-n` images with
# {glue:text}`scarce-finding`. One such image, seen or missed, moves the sensitivity of that group
# {glue:text}`scarce-step`.
#
# ## One model, three attributes
#
# Every model scores every image once. The scores are then evaluated group by group. A group with fewer
# than ten positive or ten negative images gets no number, and the table says so.

# %%
predictions = zeroshot.predict(
    cohort, clips, cohort.findings, negative=chosen.negative_prompt
).merge(people[["image_id", "view", *ATTRIBUTES]], on="image_id")
results = performance_by_protocol(
    predictions, ATTRIBUTES, chosen, n_resamples=n_resamples, seed=seed
)
keep(results)

# %% tags=["hide-input"]
fig = group_bars(results, "auc", first)
of_groups = results[(results["model"] == first) & (results["attribute"] != "all")]
drawn = of_groups[of_groups["metric"] == "auc"]
figure(
    "fig-subgroup-auc",
    caption="AUC by finding in groups of patients, a panel per attribute, with 95 % intervals over "
    f"{chosen.unit}s (S, Fig. 1). The bars start at 0.5, which is chance.",
    alt="Panels of bars with interval whiskers, one panel per attribute: findings and their mean on the "
    f"horizontal axis, AUC on the vertical one, one bar a group. {in_words(drawn)} "
    "A hollow ring stands where a group has too few cases.",
    table=drawn,
)

# %% tags=["hide-input"]
fig = group_bars(results, "adjusted_auprc", first)
drawn = of_groups[of_groups["metric"] == "adjusted_auprc"]
figure(
    "fig-subgroup-auprc",
    caption="Adjusted AUPRC in the same groups (S, Fig. 1): 0 is chance, 1 is perfect.",
    alt="Panels of bars like those for AUC, with adjusted AUPRC on the vertical axis. "
    f"{in_words(drawn)}",
    table=drawn,
)

# %% tags=["remove-cell"]
single = results[
    (results["model"] == first) & (results["metric"] == "auc") & (results["label"] != "mean")
]
in_groups = single[single["attribute"] != "all"]
undefined = in_groups[in_groups["value"].isna()]
where = ", ".join(undefined["group"].unique())
glue(
    "defined",
    f"Of {len(in_groups)} AUC values, {len(undefined)} are undefined for want of cases; they lie in {where}"
    if len(undefined)
    else f"All {len(in_groups)} AUC values have cases enough",
)
width = (single["ci_high"] - single["ci_low"]).groupby(single["group"]).mean().drop("all").dropna()
glue("widest", width.idxmax() if len(width) else "undefined")
glue("widest-width", fmt(width.max()))
glue("narrowest", width.idxmin() if len(width) else "undefined")
glue("narrowest-width", fmt(width.min()))
of_age = (results["model"] == first) & (results["attribute"] == "age_group")
notes = results.loc[of_age & (results["label"] == "mean") & (results["metric"] == "auc"), "note"]
glue("first", first)
glue("age-note", notes.iloc[0] if len(notes) else "paper S takes no mean within groups")


def lowest(metric):
    """The age group with the lowest mean over findings."""
    means = of_groups[(of_groups["label"] == "mean") & (of_groups["metric"] == metric)]
    means = means[means["attribute"] == "age_group"].set_index("group")["value"].dropna()
    return means.idxmin() if len(means) > 1 else None


by_auc, by_auprc = lowest("auc"), lowest("adjusted_auprc")
glue(
    "two-metrics",
    "In this run no mean over findings is defined in two age groups, so the two figures cannot be compared there"
    if None in (by_auc, by_auprc)
    else f"Both figures have their lowest mean in the same age group, {by_auc}"
    if by_auc == by_auprc
    else f"The two figures disagree on which age group fares worst: {by_auc} by AUC, {by_auprc} by adjusted AUPRC",
)

# %% [markdown]
# These are the figures of paper S, drawn for {glue:text}`first`: {numref}`fig-subgroup-auc` asks how well
# ill and healthy are put in order, {numref}`fig-subgroup-auprc` how many of those who come out on top are
# ill. {glue:text}`two-metrics`.
#
# {glue:text}`defined`. The average interval is {glue:text}`widest-width` wide for
# {glue:text}`widest` and {glue:text}`narrowest-width` for {glue:text}`narrowest`. A tall or a short bar
# in a thin group is first of all a thin group.
#
# The bars called "Mean" average the same findings in every group of an attribute, or a group could look
# worse only because its hard findings were counted. For age: {glue:text}`age-note`.
#
# Each of the other models and findings can be looked at in the same way, with the counts behind every
# number:

# %% tags=["hide-input"]
interactive.explorer(results, "Explore: one model, finding, attribute and metric at a time")

# %% [markdown]
# ### As published, and corrected
#
# The numbers of paper S came from another protocol: images instead of patients were resampled, every
# interval drew resamples of its own, everything was rounded to two digits, and no group was too small
# for a number. What does that change? Here is one model both ways.

# %%
ways = {
    way: performance_by_protocol(
        predictions[predictions["model"] == first],
        ATTRIBUTES,
        way,
        n_resamples=n_resamples,
        seed=seed,
    )
    for way in ("as_published", "corrected")
}
both_ways = pd.concat(ways.values(), ignore_index=True)
both_ways = both_ways[both_ways["metric"].isin(["auc", "adjusted_auprc"])]
by_finding = both_ways[(both_ways["label"] != "mean") & (both_ways["attribute"] != "all")]
by_finding = by_finding.assign(width=by_finding["ci_high"] - by_finding["ci_low"])
of_bar = by_finding.groupby(["metric", "label", "attribute", "group"])["width"]
by_finding["width"] = by_finding["width"].where(of_bar.transform("count") == len(ways))
summary = by_finding.groupby(["metric", "protocol"]).agg(
    groups=("value", "size"), defined=("value", "count"), width=("width", "mean")
)
show(
    summary.rename(index=readable).rename(columns={"width": "mean width of intervals"}),
    caption=f"Single findings of {first} in all groups, by protocol",
    digits=3,
    counts=(),
)

# %% tags=["remove-cell"]
width_of = summary["width"]["auc"]
glue("width-published", fmt(width_of["as_published"], 3))
glue("width-corrected", fmt(width_of["corrected"], 3))
glue("width-ratio", fmt(width_of["corrected"] / width_of["as_published"]))
glue(
    "images-a-patient",
    fmt(len(cohort.table) / cohort.table["patient_id"].nunique()),
)
glue("protocol", f"“{chosen.name}”: {chosen.unit}s are resampled")

# %% [markdown]
# Where both give an interval, the one over patients is on average {glue:text}`width-ratio` times as wide as
# the one over images ({glue:text}`width-corrected` against {glue:text}`width-published`, AUC), with
# {glue:text}`images-a-patient` images a patient. Whether the one or the other keeps its promise of
# 95 % is measured in the chapter on [coverage](09_coverage). What follows uses the unit of the protocol
# that the chapter was given, here {glue:text}`protocol`.
#
# ## All models

# %%
overview = results[(results["metric"] == "auc") & (results["label"] == "mean")]
show(
    schema.wide(overview, index=["attribute", "group"], columns="model").rename(**TITLES),
    caption="Mean AUC over findings, by group and model",
)

# %% tags=["remove-cell"]
by_age = overview[overview["attribute"] == "age_group"].dropna(subset="value")
worst = by_age.loc[by_age.groupby("model")["value"].idxmin(), "group"].value_counts()
glue(
    "worst-age",
    "By age, no model has a mean in this run"
    if by_age.empty
    else "By age, the lowest mean is that of "
    + ", ".join(
        f"{group} in {n} of {by_age['model'].nunique()} models" for group, n in worst.items()
    ),
)

# %% [markdown]
# {glue:text}`worst-age`. The eye now compares intervals: do they overlap? That is not a test of the gap. Two intervals can
# overlap while their difference is certain, and groups that share patients, findings and a model are
# not independent. So the *gap itself* gets an interval.
#
# ## Gaps
#
# A gap "A − B" is a signed difference: below 0, group A fares worse. Each resample of patients gives one
# gap, with both groups taken from the same draw; the interval is the spread of these gaps. The group
# behind the minus is the *reference*: the ages 25 to 50, men, and White patients. Something has to stand
# there; it is a choice of arithmetic, and not a norm that others depart from.

# %%
gaps = pd.concat(
    [
        fairness.gap_table(predictions, a, reference=REFERENCES[a], metrics="auc", **resampling)
        for a in ATTRIBUTES
    ],
    ignore_index=True,
)
mean_gaps = gaps[gaps["label"] == "mean"]

# %% tags=["hide-input"]
fig = gap_forest(mean_gaps)
figure(
    "fig-subgroup-gaps",
    caption="Gaps in mean AUC between groups, with paired 95 % intervals. Left of 0, the group named first fares worse.",
    alt="Pairs of groups on the vertical axis, the difference in mean AUC on the horizontal one, with "
    f"intervals around a line at 0, one mark a model. Differences in {in_words(mean_gaps, 3)}",
    table=mean_gaps,
)

# %% tags=["remove-cell"]
HEADLINE = {"age": "65-80 - 25-50", "sex": "F - M", "asian": "Asian - White"}
of_first = mean_gaps[mean_gaps["model"] == first].set_index("group")
for key, group in HEADLINE.items():
    if group in of_first.index:
        found = of_first.loc[group]
        glue(f"gap-{key}", fmt_row(found, 3, signed=True))
        glue(f"gap-{key}-where", interval_lies(found))
    else:
        glue(f"gap-{key}", "not known, since these data lack one of the two groups")
        glue(f"gap-{key}-where", "is undefined")


def sides(group):
    """In how many models the interval of a gap lies below, and above, 0."""
    found = list(mean_gaps[mean_gaps["group"] == group].apply(schema.side, axis=1))
    return f"below 0 in {found.count('below')} and above 0 in {found.count('above')} of {len(found)} models"


glue("gap-age-models", sides(HEADLINE["age"]))
glue("gap-sex-models", sides(HEADLINE["sex"]))

# %% [markdown]
# In {numref}`fig-subgroup-gaps`, the gap of {glue:text}`first` between the ages 65–80 and 25–50 is
# {glue:text}`gap-age`; its interval {glue:text}`gap-age-where`. Between women and men it is
# {glue:text}`gap-sex`, and the interval {glue:text}`gap-sex-where`. Between Asian and White patients it
# is {glue:text}`gap-asian`; the interval {glue:text}`gap-asian-where`. Over all models, the interval of the
# gap by age lies {glue:text}`gap-age-models`, that of the gap by sex {glue:text}`gap-sex-models`.

# %% [markdown]
# ### What would a fair model show?
#
# No gap between two finite groups is exactly 0. To see how large the gaps of an *exactly fair* model
# are, deal the groups anew: ill patients swap their age, sex or race with other ill patients, healthy
# ones with other healthy ones, with all their images. The scores stay. Whatever gap remains after that
# has no cause but the deal. Many deals give the *noise floor* of each gap, and the share of deals with a
# gap at least as large as the observed one is its p-value.

# %%
references = {a: REFERENCES[a] for a in ATTRIBUTES}
tests = inference.gap_tests(
    predictions, references, metrics="auc", n_permutations=n_permutations, **resampling
)
of_means = tests[tests["label"] == "mean"]

# %% tags=["hide-input"]
fig = gap_forest(of_means)
known = of_means.dropna(subset=["value", "floor_p95"])
beyond = int((known["value"].abs() > known["floor_p95"]).sum())
figure(
    "fig-subgroup-floor",
    caption="The same gaps before their noise floor: 95 of 100 fair models would show a gap within the grey bar.",
    alt="The differences in mean AUC once more, with their intervals; behind each lies a grey bar around 0 "
    "that reaches as far as the gaps of 95 in 100 fair models. "
    f"{beyond} of {len(known)} gaps lie beyond their bar.",
    table=of_means,
)

# %% tags=["hide-input"]
floors = of_means[of_means["model"] == first]
show(
    floors.assign(
        group=floors["group"].map(readable),
        gap=floors.apply(fmt_row, axis=1, digits=3, signed=True),
        positives=floors["n_positive"],
    )[["attribute", "group", "gap", "floor_mean", "floor_p95", "p_value", "positives"]]
    .rename(columns={"floor_mean": "fair: mean", "floor_p95": "fair: 95th percentile"})
    .rename(columns={"p_value": "p", "group": "pair"})
    .replace({"attribute": {"age_group": "age"}})
    .dropna(axis=1, how="all")  # positives of pairs, which credentialed data do not show
    .reset_index(drop=True),
    caption=f"Gaps in mean AUC of {first}, and the absolute gaps of a fair model on the same patients",
    digits=3,
    missing="undefined",
)

# %% tags=["remove-cell"]
reach = floors.set_index("group")["floor_p95"].sort_values(ascending=False)
glue("floor-age", fmt(reach.get(HEADLINE["age"]), 3))
glue("floor-thin", fmt(reach.iloc[0], 3))
glue("floor-thin-pair", readable(reach.index[0]))
glue("n-beyond", f"{beyond} of {len(known)}")

# %% [markdown]
# One fair model in twenty shows a gap of {glue:text}`floor-age` or more between the ages 65–80 and
# 25–50; for the pair {glue:text}`floor-thin-pair`, whose floor reaches furthest, it takes
# {glue:text}`floor-thin`. In {numref}`fig-subgroup-floor`, {glue:text}`n-beyond` gaps of all models lie
# beyond their floor. A gap should be read beside its floor, never beside 0.
#
# ### How many questions did we ask?
#
# The figure shows means. Behind them stands one gap a finding, model and pair of groups, and it is
# tempting to pick out those whose interval excludes 0.

# %%
asked = tests[tests["label"] != "mean"]
side = asked.apply(schema.side, axis=1)
counted = pd.crosstab(asked["attribute"], side).reindex(
    index=ATTRIBUTES, columns=["below", "around", "above", "undefined"], fill_value=0
)
counted = counted.rename(index={"age_group": "age"}).rename_axis(index=None, columns=None)
show(
    counted, caption="Gaps in AUC, all findings and models: where the 95 % interval lies", counts=()
)

# %% tags=["remove-cell"]
glue("n-exclude", fmt(counted[["below", "above"]].sum().sum(), 0))

# %% [markdown]
# {glue:text}`n-exclude` of these intervals exclude 0. Which of them mean something? A family of comparisons
# can be corrected for its size. *Holm* {cite:p}`holm1979` bounds the chance of even
# one false alarm; *Benjamini and Hochberg* {cite:p}`benjamini1995` bound the share of false alarms among the
# alarms; the *simultaneous band* {cite:p}`westfall1993` widens every interval until all of them hold at once,
# and uses the resamples to know which gaps move together. Two families: the means over findings, and
# every finding on its own.

# %%
families = {}
for name, family in (
    ("means over findings", tests["label"] == "mean"),
    ("single findings", tests["label"] != "mean"),
):
    rows = tests[family]
    corrected = {p: inference.corrected(rows["p_value"], m) for p, m in inference.METHODS.items()}
    families[name] = inference.flagged(rows.assign(**corrected))
show(
    pd.DataFrame(families)
    .T.astype("Int64")
    .rename(columns={"bh": "Benjamini-Hochberg", "holm": "Holm", "band": "band of all"}),
    caption="Comparisons flagged at the level 0.05, before and after correction",
    missing="undefined",
    counts=(),
)

# %% tags=["remove-cell"]
of_findings = families["single findings"]
in_means = families["means over findings"]
glue("n-asked", fmt(of_findings["comparisons"], 0))
glue("n-undefined-gaps", fmt(of_findings["undefined"], 0))
glue("n-out", fmt(of_findings["uncorrected"], 0))
glue("n-expected", fmt(0.05 * of_findings["comparisons"], 0))
glue("n-bh", fmt(of_findings["bh"], 0))
alone = inference.fewest_alarms(tests[tests["label"] != "mean"])
glue(
    "bh-limit",
    f", which with this number of permutations can flag no fewer than {alone} at once"
    if of_findings["bh"] == 0 and alone > 1
    else "",
)
glue(
    "n-holm",
    "Holm's correction cannot flag any with this number of permutations"
    if of_findings["holm"] is None
    else f"{of_findings['holm']} after Holm's",
)
glue("m-asked", fmt(in_means["comparisons"], 0))
glue("m-out", fmt(in_means["uncorrected"], 0))
glue(
    "m-holm",
    "Holm's correction would need more permutations to flag any"
    if in_means["holm"] is None
    else f"{in_means['holm']} after Holm's correction",
)
left = of_means.assign(p_holm=lambda t: inference.corrected(t["p_value"], "holm"))
left = left[left["p_holm"] < 0.05]
glue(
    "m-where",
    "; ".join(
        f"{readable(g)} in {n} of {len(names)} models"
        for g, n in left["group"].value_counts().items()
    )
    or "none",
)

# %% [markdown]
# Of {glue:text}`n-asked` comparisons of single findings ({glue:text}`n-undefined-gaps` more are
# undefined), {glue:text}`n-out` would be flagged uncorrected; {glue:text}`n-expected` would be expected
# of fair models. {glue:text}`n-bh` remain after Benjamini and Hochberg{glue:text}`bh-limit`, and
# {glue:text}`n-holm`. Of the {glue:text}`m-asked` means, {glue:text}`m-out` would be flagged uncorrected; {glue:text}`m-holm`
# ({glue:text}`m-where`).

# %% tags=["remove-input"]
quiz(
    "A colleague tests one more model on these groups, finds one p-value below 0.05 among the single "
    "findings, and writes: the model is unfair to this group. What is missing?",
    {
        "Nothing: 0.05 was agreed on before.": (
            False,
            "The level holds for one comparison. This chapter asked "
            f"{of_findings['comparisons']} questions about single findings, and fair models would give "
            f"about {fmt(0.05 * of_findings['comparisons'], 0)} such p-values.",
        ),
        "How many comparisons were made, and what remains after correction.": (
            True,
            "One alarm among many questions is what fair models produce. Here "
            f"{of_findings['uncorrected']} were flagged before correction and {of_findings['bh']} after "
            "Benjamini and Hochberg.",
        ),
        "A larger model.": (
            False,
            "The number of questions does not depend on the size of the model.",
        ),
    },
)

# %% [markdown]
# ### Is it the group, or what it is made of?
#
# Groups differ in more than their name: how often they are ill, how old they are, whether they are
# filmed standing (PA) or lying (AP). Weighting the images so that every group has the same mix says how
# much of a gap these differences carry. It corrects for what is measured, and for nothing else.

# %%
one = predictions[predictions["model"] == first]
mixes = {
    "raw": None,
    "prevalence": "prevalence",
    "view position": ("prevalence", "view"),
    "age": ("prevalence", "age_group"),
}
matched = {}
for name, match in mixes.items():
    rows = fairness.gap_table(one, "sex", reference="M", match=match, **resampling)
    rows = rows[rows["label"] == "mean"].set_index("metric")
    matched[name] = rows.apply(fmt_row, axis=1, digits=3, signed=True)
show(
    pd.DataFrame(matched)
    .T.rename(columns=readable)
    .rename(index={k: k if k in ("raw", "prevalence") else f"prevalence and {k}" for k in mixes}),
    caption=f"Gap of {first}, women minus men, mean over findings: raw, and matched on",
)

# %% tags=["remove-cell"]
glue("raw-sex", matched["raw"]["auc"])
glue("matched-age", matched["age"]["auc"])

# %% [markdown]
# The raw gap between women and men is {glue:text}`raw-sex`; among women and men of the same mix of ages
# it is {glue:text}`matched-age`. Below, the planted truth shows why age may matter here at all.
#
# ### How many patients would it take?
#
# A gap that is not seen may be absent, or the cohort too small. The standard errors of this very run,
# from resampled patients, tell the gap that each pair could have shown with a chance of 80 %, and the
# number of ill patients that a gap of {glue:text}`planned` would ask for.

# %% tags=["hide-input"]
PLANNED = 0.05  # a gap that should not be missed
plans = []
for attribute, reference in references.items():
    plan = inference.power_plan(one, attribute, (PLANNED,), reference=reference, **resampling)
    for _, of_pair in plan.groupby("group", sort=False):
        defined = of_pair.dropna(subset="detectable").sort_values("detectable")
        plans.append(defined.iloc[[0, -1]] if len(defined) > 1 else of_pair.head(1))
plan = pd.concat(plans)
plan["group"] = plan["group"].map(readable)
of_plan = ["group", "label", "n_positive_a", "detectable", "positives_needed", "patients_needed_a"]
show(
    plan[of_plan]
    .rename(
        columns={
            "group": "pair",
            "label": "finding",
            "n_positive_a": "positives of the first group",
            "detectable": "detectable gap",
            "positives_needed": "positives needed in each",
            "patients_needed_a": "patients needed of the first",
        }
    )
    .reset_index(drop=True)
    .astype({"positives needed in each": "Int64", "patients needed of the first": "Int64"}),
    caption=f"{first}, easiest and hardest finding of each pair: gap in AUC seen with a chance of 80 %",
    missing="undefined",
    counts=["positives of the first group"],
)

# %% tags=["remove-cell"]
glue("planned", fmt(PLANNED))
hardest = plan.dropna(subset="detectable").sort_values("detectable").tail(1)
glue(
    "plan",
    "In this run no pair has enough cases for a plan"
    if hardest.empty
    else "; ".join(
        f"The hardest line is {row['label']} for the pair {row['group']}: only a gap of "
        f"{fmt(row['detectable'])} or more would have been seen, and a gap of {fmt(PLANNED)} would take "
        f"{fmt(row['positives_needed'], 0)} ill images of each group"
        for _, row in hardest.iterrows()
    ),
)

# %% [markdown]
# {glue:text}`plan`. "No significant difference" in such a line says that the study was small. It does not
# say that the groups fare alike.

# %% [markdown]
# ## The planted truth, part 1: age
#
# On real data the story ends here: a gap was seen, and its cause can be argued about. The phantom goes
# on. How well its findings stand out is multiplied by a known factor, group by group. (This part and the
# three that follow are about phantoms, whatever the data of the chapter.)

# %%
planted = cohort if cohort.planted else cohorts.load("phantom", n_images=n_images, seed=seed)
marks = planted.table[["image_id", "age_group", "sex", "race", "site"]]
of_planted = zeroshot.predict(
    planted, clips, planted.findings, negative=chosen.negative_prompt
).merge(marks, on="image_id")
contrast = planted.recipe["dials"]["contrast"]


def factor(attribute, group):
    """The planted factor on the contrast of findings in a group."""
    return contrast.get(attribute, {}).get(group, 1.0)


dial = pd.DataFrame(
    [
        {"attribute": readable(a), "group": g, "contrast of findings": factor(a, g)}
        for a in ("age_group", "sex", "site")
        for g in sorted(planted.table[a].unique())
    ]
)
show(
    dial.replace({"group": {"F": "female", "M": "male"}}),
    caption="The planted dial, as set in this run",
)

# %% tags=["remove-cell"]
turned = dial[dial["contrast of findings"] != 1].itertuples(index=False, name=None)
planted_words = ", ".join(
    f"{x:g} in {'site ' if a == 'site' else ''}{readable(g)}" for a, g, x in turned
)
glue("planted", planted_words or "the same factor in everybody")

# %% [markdown]
# In this run, the contrast of findings is multiplied by {glue:text}`planted`.
#
# Turn the factors for age off and draw *the same patients* again, alike in everything else down to the
# grain. These images are counterfactual *twins*. What the dial did to the AUC of a group is then no
# estimate between different people; it is the difference between each film and its twin.


# %%
def both(twin, called):
    """Predictions of the first model on the phantoms and on their twins, as if by two models."""
    after = zeroshot.predict(
        twin, clips[:1], planted.findings, negative=chosen.negative_prompt
    ).merge(marks, on="image_id")
    before = of_planted[of_planted["model"] == first]
    return pd.concat([before.assign(model="as drawn"), after.assign(model=called)])


# %%
OFF = "age restored"
without_age = {a: factors for a, factors in contrast.items() if a != "age_group"}
age = both(phantom.twin(planted, contrast=without_age), OFF)
truth = fairness.model_gap_table(
    age, [("as drawn", OFF)], metrics="auc", attributes=("age_group",), **resampling
)
truth = truth[(truth["label"] == "mean") & (truth["attribute"] == "age_group")]

# %% tags=["hide-input"]
fig = gap_forest(truth)
fig.suptitle(first)
figure(
    "fig-subgroup-age-truth",
    caption="The recorded truth of the age dial: mean AUC as drawn minus mean AUC of the twins, by age group. Left of 0, the dial does harm.",
    alt="Age groups on the vertical axis; on the horizontal one the difference in mean AUC between the films "
    f"as drawn and their twins, with its interval. Differences in {in_words(truth, 3)}",
    table=truth,
)

# %%
bands = {"groups": ["25-50", "65-80"], "metrics": "auc"}
age_gaps = fairness.gap_table(age, "age_group", [("65-80", "25-50")], **bands, **resampling)
show(
    schema.wide(age_gaps, index="label", columns="model", digits=3)
    .rename(**TITLES)
    .rename_axis("finding"),
    caption=f"Gap in AUC of {first}, ages 65–80 minus 25–50, as drawn and with the dial off",
)


# %% tags=["remove-cell"]
def judged(what, on, off, planted_sign):
    """What an audit made of a planted difference between two groups, as a sentence.

    `on` and `off` are its gaps as drawn and with the dial off; the sign is that of the first group's
    factor minus the second's: negative where the findings of the first are fainter.
    """
    side = schema.side(on)
    if "undefined" in (side, schema.side(off)):
        return f"The effect of {what} cannot be judged in this run, which has too few patients"
    if not planted_sign:
        nothing = f"No effect of {what} was planted between these two groups, and"
        if side == "around":
            return f"{nothing} the audit claims none: its interval includes 0"
        return f"{nothing} yet the interval of the audit excludes 0"
    effect, against = f"The planted effect of {what}", {1: "below", -1: "above"}[int(planted_sign)]
    other = ""
    if schema.side(off) == against:
        other = ". With the dial off the gap points the other way, so that something else hides part of it"
    if np.sign(on["value"]) != planted_sign:
        return f"{effect} is not found in this run: the gap has the wrong sign{other}"
    if planted_sign * off["value"] >= planted_sign * on["value"] / 2:
        return (
            f"{effect} shows in the sign of the gap, but most of that gap stays with the dial off"
        )
    if side == "around":
        return f"{effect} shows in the sign of the gap, but the interval includes 0{other}"
    return f"{effect} is found: right sign, an interval that excludes 0, and a gap that goes with its dial"


on = schema.row(age_gaps, label="mean", model="as drawn")
off = schema.row(age_gaps, label="mean", model=OFF)
moved = {g: fmt_row(row, 3, True) for g, row in truth.set_index("group").iterrows()}
touched = {g: found for g, found in moved.items() if factor("age_group", g) != 1}
untouched = "; ".join(f"{g}: {found}" for g, found in moved.items() if g not in touched) or "none"
glue(
    "age-truth",
    f"In the groups that the dial leaves alone, the twins are the same images and nothing changes "
    f"({untouched}). In the others, the dial moves mean AUC: {'; '.join(f'{g}: {x}' for g, x in touched.items())}"
    if touched
    else "No dial acts on age in this run: the twins are the same images, and nothing changes in any group",
)
age_sign = np.sign(factor("age_group", "65-80") - factor("age_group", "25-50"))
glue("age-on", fmt_row(on, 3, signed=True))
glue("age-on-where", interval_lies(on))
glue("age-off", fmt_row(off, 3, signed=True))
glue("age-off-where", interval_lies(off))
glue("age-sign", {-1: "below 0", 0: "at 0", 1: "above 0"}[int(age_sign)])
age_verdict = judged("age", on, off, age_sign)
glue("age-verdict", age_verdict)

# %% [markdown]
# {glue:text}`age-truth`.
#
# Now the audit, which knows nothing of the dial. Between 65–80 and 25–50 the factors put the gap
# {glue:text}`age-sign`. The audit sees {glue:text}`age-on` (the interval {glue:text}`age-on-where`). With the
# dial off, the gap between the same people is {glue:text}`age-off` (the interval
# {glue:text}`age-off-where`). **{glue:text}`age-verdict`.**
#
# What remains with the dial off is whatever else differs between a group of old and a group of young
# patients: how they were imaged, how their bones are drawn, what else they have, and chance. The observed
# gap is exactly the sum of the two parts. No real cohort shows its parts.

# %% [markdown]
# ## The planted truth, part 2: sex
#
# {glue:text}`sex-dial`. A gap by sex can have other causes. The drawing of the female body may cover
# findings. Women and men among the phantoms differ in age, so that the age dial can work in disguise. They
# differ by chance in which findings they have and how severe these are. Twins tell these apart, one step
# at a time. First all contrast factors are turned off. Then everybody is also drawn with the anatomy that
# the renderer gives to men.

# %%
RESTORED, PLAIN = "contrast restored", "one anatomy too"
as_men = replace(planted, table=planted.table.assign(sex="M"))
plain = both(phantom.twin(as_men, contrast={}), PLAIN)
steps = pd.concat(
    [both(phantom.twin(planted, contrast={}), RESTORED), plain[plain["model"] == PLAIN]]
)
sex_gaps = fairness.gap_table(steps, "sex", [("F", "M")], metrics="auc", **resampling)
show(
    schema.wide(sex_gaps, index="label", columns="model", digits=3)
    .rename(**TITLES)
    .rename_axis("finding"),
    caption=f"Gap in AUC of {first}, women minus men, as drawn and in two twin cohorts",
)

# %%
causes = fairness.model_gap_table(
    steps,
    [("as drawn", RESTORED), (RESTORED, PLAIN)],
    metrics="auc",
    attributes=("sex",),
    **resampling,
)
causes = causes[(causes["label"] == "mean") & (causes["attribute"] == "sex")]
show(
    schema.wide(causes, index="group", columns="model", digits=3).rename(**TITLES),
    caption=f"What each step does to mean AUC of {first}, on the same films",
)

# %% tags=["remove-cell"]
glue(
    "sex-dial",
    "No dial makes findings fainter in one sex"
    if factor("sex", "F") == factor("sex", "M")
    else f"The contrast of findings is multiplied by {factor('sex', 'F'):g} in women and by {factor('sex', 'M'):g} in men",
)
sex_gap = sex_gaps[sex_gaps["label"] == "mean"].set_index("model")
anatomy = schema.row(causes, model=f"{RESTORED} - {PLAIN}", group="F")
by_dial = causes[causes["model"] == f"as drawn - {RESTORED}"].set_index("group")
glue("sex-on", fmt_row(sex_gap.loc["as drawn"], 3, signed=True))
glue("sex-on-where", interval_lies(sex_gap.loc["as drawn"]))
glue("sex-dial-women", fmt_row(by_dial.loc["F"], 3, signed=True))
glue("sex-dial-men", fmt_row(by_dial.loc["M"], 3, signed=True))
glue("sex-anatomy", fmt_row(anatomy, 3, signed=True))
glue("sex-anatomy-where", interval_lies(anatomy))
CAUSE = {
    "above": "the female anatomy, as drawn here, makes findings easier to rank",
    "below": "the female anatomy, as drawn here, hides findings",
    "around": "the drawing of the female body has no measurable effect on the ranking",
    "undefined": "this run is too small to tell",
}
glue("sex-cause", CAUSE[schema.side(anatomy)])
glue("sex-restored", fmt_row(sex_gap.loc[RESTORED], 3, signed=True))
parts = [sex_gap["value"][model] for model in ("as drawn", RESTORED, PLAIN)]
glue("sex-by-dials", fmt(parts[0] - parts[1], 3, signed=True))
glue("sex-by-anatomy", fmt(parts[1] - parts[2], 3, signed=True))
glue("sex-plain", fmt_row(sex_gap.loc[PLAIN], 3, signed=True))
glue("sex-plain-where", interval_lies(sex_gap.loc[PLAIN]))
ages = planted.table.groupby("sex")["age"].mean()
glue("age-women", fmt(ages["F"], 1))
glue("age-men", fmt(ages["M"], 1))
sex_verdict = judged(
    "sex",
    sex_gap.loc["as drawn"],
    sex_gap.loc[RESTORED],
    np.sign(factor("sex", "F") - factor("sex", "M")),
)
glue("sex-verdict", sex_verdict)

# %% [markdown]
# As drawn, the gap by sex is {glue:text}`sex-on` in mean AUC; its interval
# {glue:text}`sex-on-where`. The contrast factors move the mean AUC of women by
# {glue:text}`sex-dial-women` and that of men by {glue:text}`sex-dial-men`; women are
# {glue:text}`age-women` years old on average here and men {glue:text}`age-men`. Without the factors the gap
# is {glue:text}`sex-restored`. **{glue:text}`sex-verdict`.**
#
# The AUC of women minus that of the same women with a man's anatomy is {glue:text}`sex-anatomy`, and the
# interval {glue:text}`sex-anatomy-where`: {glue:text}`sex-cause`.
#
# So the observed gap comes in three parts: {glue:text}`sex-by-dials` goes back to the contrast factors,
# {glue:text}`sex-by-anatomy` to the drawing of the body, and {glue:text}`sex-plain` to neither (the interval
# {glue:text}`sex-plain-where`). That remainder is stated, not explained. What is left in it are the findings that occur together, their
# severity, view positions, and the luck of this draw.

# %% [markdown]
# ## The planted truth, part 3: race and site
#
# Race changes nothing in the body of a phantom. It decides *where* a patient is likely to be imaged: a
# share of {glue:text}`own-site` goes to the site that most patients of the same race go to, the others
# anywhere. Each site's scanner leaves a signature. If a gap by race arises in the images, it comes by way of
# the site. The twins are drawn as if all scanners were alike.

# %%
ALIKE = "scanners alike"
without_site = {a: factors for a, factors in contrast.items() if a != "site"}
alike = phantom.twin(planted, site_signature=0.0, contrast=without_site)
place = both(alike, ALIKE)
place_gaps = pd.concat(
    [
        fairness.gap_table(place, "site", reference="A", metrics="auc", **resampling),
        fairness.gap_table(place, "race", reference="White", metrics="auc", **resampling),
    ],
    ignore_index=True,
)
place_gaps = place_gaps[place_gaps["label"] == "mean"]
show(
    schema.wide(place_gaps, index=["attribute", "group"], columns="model", digits=3).rename(
        **TITLES
    ),
    caption=f"Gaps in mean AUC of {first} by site and by race, as drawn and with all scanners alike",
)

# %%
signature = fairness.model_gap_table(
    place, [("as drawn", ALIKE)], metrics="auc", attributes=("site", "race"), **resampling
)
signature = signature[(signature["label"] == "mean") & (signature["attribute"] != "all")]
show(
    schema.wide(signature, index=["attribute", "group"], columns="model", digits=3).rename(
        **TITLES
    ),
    caption=f"What the signatures do to mean AUC of {first}, on the same films",
)

# %% tags=["remove-cell"]
glue("own-site", percent(planted.recipe["dials"]["site_by_race"]))
site = signature[signature["attribute"] == "site"].set_index("group")
shifted = [g for g in site.index if schema.side(site.loc[g]) in ("above", "below")]
glue("site-effects", "; ".join(f"{g}: {fmt_row(row, 3, True)}" for g, row in site.iterrows()))
glue("site-moved", f"excludes 0 at {' and '.join(shifted)}" if shifted else "excludes 0 nowhere")


def outside(table, attribute, model):
    rows = table[(table["attribute"] == attribute) & (table["model"] == model)]
    return f"{int(rows.apply(schema.side, axis=1).isin(['above', 'below']).sum())} of {len(rows)}"


race_on, race_off = (outside(place_gaps, "race", model) for model in ("as drawn", ALIKE))
glue("race-out-on", race_on)
glue("race-out-off", race_off)
glue("site-out-on", outside(place_gaps, "site", "as drawn"))
race = place_gaps[place_gaps["attribute"] == "race"]
by_model = race.assign(size=race["value"].abs()).groupby("model")["size"].max()
glue("race-max-on", fmt(by_model["as drawn"], 3))
glue("race-max-off", fmt(by_model[ALIKE], 3))

# %% [markdown]
# The signatures themselves change mean AUC by {glue:text}`site-effects` (the scanner of A is the one that
# all get in the twins); the interval {glue:text}`site-moved`. Of the gaps between sites, {glue:text}`site-out-on` intervals exclude
# 0; of the gaps between races, {glue:text}`race-out-on`. The largest gap by race is
# {glue:text}`race-max-on` as drawn and {glue:text}`race-max-off` with the scanners alike.
#
# The second number deserves a long look. With the scanners alike, race has *no* way into the image:
# what is left is not bias of any kind, it is which patients happen to be in a small group. Here
# {glue:text}`race-out-off` intervals exclude 0. A gap of that size in a real study of this size would be
# no news.

# %% [markdown]
# ## The planted truth, part 4: the silent reports
#
# The last bias sits not in the images but in the reports that a model learned from. One model,
# `phantom-resnet-underreport`, was trained on reports that leave out most of the findings of women (its
# card, in the table of the chapter on [zero-shot classification](02_zero_shot), says how many). The test
# labels of the phantoms are {glue:text}`test-labels`. What does an audit see?

# %%
auc_by_sex = fairness.gap_table(of_planted, "sex", reference="M", metrics="auc", **resampling)
auc_by_sex = auc_by_sex[auc_by_sex["label"] == "mean"]
show(
    schema.wide(auc_by_sex, index="model", columns="group", digits=3).rename(**TITLES),
    caption="Gap in mean AUC, women minus men",
)

# %% tags=["remove-input"]
quiz(
    "Suppose a model lowers the scores of all women by the same amount, ill and healthy alike. What happens?",
    {
        "AUC among women falls.": (
            False,
            "AUC only asks whether an ill woman scores higher than a healthy one. A common shift moves both.",
        ),
        "AUC among women stays, but at one threshold for all, more ill women are missed.": (
            True,
            "The order within women is untouched; the threshold is not lowered for them. The next cells "
            "count who is missed.",
        ),
        "Nothing that matters: the order is right.": (
            False,
            "The order within women is right. But whoever is called back is chosen by a threshold that "
            "women and men share.",
        ),
    },
)

# %% [markdown]
# AUC compares women with women and men with men. If all scores of women are too low, ill and healthy
# alike, their order does not change and neither does the AUC. But a clinic has *one* threshold. Here it
# is set, finding by finding, where the wanted share of healthy images is called healthy over all
# patients together. Then we count the ill who are found.

# %%
decided = fairness.decide(of_planted, specificity)
rates = fairness.performance_table(decided, ("sensitivity", "specificity"), ("sex",), **resampling)
rates = rates[(rates["label"] == "mean") & (rates["attribute"] == "sex")]
show(
    schema.wide(rates, index=["model", "group"], columns="metric").rename(**TITLES),
    caption="Mean sensitivity and specificity at one common operating point",
)

# %% tags=["hide-input"]
found = rates[rates["metric"] == "sensitivity"]
fig = bars(found, x="model", hue="group", baseline=0)
figure(
    "fig-subgroup-sensitivity",
    caption="Sensitivity for women and men at one threshold for all, mean over findings. What is missing to 1 is underdiagnosis.",
    alt="A pair of bars for each model, women and men: mean sensitivity on the vertical axis, with interval "
    f"whiskers. {in_words(found)}",
    table=found,
)

# %%
sensitivity_gaps = fairness.gap_table(
    decided, "sex", [("F", "M")], metrics="sensitivity", **resampling
)
sensitivity_gaps = sensitivity_gaps[sensitivity_gaps["label"] == "mean"]
show(
    schema.wide(sensitivity_gaps, index="model", columns="group", digits=3).rename(**TITLES),
    caption="Gap in mean sensitivity, women minus men",
)

# %% tags=["remove-cell"]
FAIR, SILENT = "phantom-resnet", "phantom-resnet-underreport"
ABSENT = "not known in this run, which lacks the model"
keys = ("silent-auc", "silent-auc-where", "silent-gap", "silent-gap-where", "missed-women",
        "missed-men", "women-change", "men-change", "fair-gap")  # fmt: skip
told = dict.fromkeys(keys, ABSENT)
silent_gap, verdict = ABSENT, "cannot be judged without both models"
if SILENT in names:
    ranked = schema.row(auc_by_sex, model=SILENT)
    gap = schema.row(sensitivity_gaps, model=SILENT)
    found = rates[(rates["model"] == SILENT) & (rates["metric"] == "sensitivity")].set_index(
        "group"
    )
    silent_gap = fmt_row(gap, signed=True)
    told |= {
        "silent-auc": fmt_row(ranked, 3, signed=True),
        "silent-auc-where": interval_lies(ranked),
        "silent-gap": silent_gap,
        "silent-gap-where": interval_lies(gap),
        "missed-women": percent(1 - found.loc["F", "value"]),
        "missed-men": percent(1 - found.loc["M", "value"]),
    }
if {FAIR, SILENT} <= set(names):
    change = fairness.model_gap_table(
        decided, [(SILENT, FAIR)], metrics="sensitivity", attributes=("sex",), **resampling
    )
    change = change[(change["label"] == "mean") & (change["attribute"] == "sex")].set_index("group")
    told |= {
        "women-change": fmt_row(change.loc["F"], signed=True),
        "men-change": fmt_row(change.loc["M"], signed=True),
    }
    in_women, in_men = (schema.side(change.loc[g]) for g in "FM")
    if "undefined" in (in_women, in_men):
        verdict = "cannot be judged in this run, which has too few patients"
    elif in_women == "below" and change.loc["F", "value"] < change.loc["M", "value"]:
        verdict = "is found at one threshold: women lose sensitivity, and more than men"
        if schema.side(ranked) != "below":
            verdict += ", while the gap in AUC does not show it"
    else:
        verdict = "is not found in this run: the sensitivity of women did not measurably fall"
if FAIR in names:
    told["fair-gap"] = fmt_row(schema.row(sensitivity_gaps, model=FAIR), signed=True)
for key, text in told.items():
    glue(key, text)
glue("silent-verdict", verdict)
glue("specificity", percent(specificity))
glue(
    "test-labels",
    "complete"
    if not planted.recipe["dials"]["underreport"]
    else "not complete in this run either: its dials leave findings out of them",
)

# %% [markdown]
# The gap of the silently trained model in mean AUC is {glue:text}`silent-auc`; the interval
# {glue:text}`silent-auc-where`. At the common operating point (specificity {glue:text}`specificity`), its
# gap in sensitivity is {glue:text}`silent-gap`, and the interval {glue:text}`silent-gap-where`. It misses
# {glue:text}`missed-women` of the findings of women, and {glue:text}`missed-men` of those of men. The
# model trained on complete reports has a gap of {glue:text}`fair-gap`.
#
# On the same films, paired, the silent reports changed the sensitivity by {glue:text}`women-change` in
# women and by {glue:text}`men-change` in men. (The two are coupled: if the scores of women fall, the
# common threshold falls with them, and more men lie above it.) **The planted underreporting {glue:text}`silent-verdict`.**
#
# ### What underdiagnosis means
#
# A false alarm costs a second look. A missed finding sends a patient home. When a model reads films
# before anyone else does, a group with lower sensitivity waits longer and comes back sicker, and nobody
# sees why, since the healthy-looking report is the one that is not checked. Large models of chest films
# underdiagnose the very groups that medicine already underserves {cite:p}`seyyedkalantari2021`, vision-language
# models among them {cite:p}`yang2025`. A model learns it from reports that were written by people.
#
# So an audit reports both: how well patients are ranked (AUC), and who is missed at the threshold that
# is used.

# %% [markdown]
# ## What was planted, and was it found?
#
# The four parts in one table: what the phantoms were built with, what an audit saw that knew nothing of it,
# and whether the two agree.

# %% tags=["hide-input"]
ledger = pd.DataFrame(
    [
        ("findings by age", fmt_row(on, 3, True), f"{age_verdict}."),
        (
            "findings by sex",
            fmt_row(sex_gap.loc["as drawn"], 3, True),
            f"{sex_verdict}.",
        ),
        (
            "race, only by way of the scanner",
            f"up to {fmt(by_model['as drawn'], 3)}",
            f"{race_on} intervals exclude 0 as drawn, {race_off} with the scanners alike.",
        ),
        ("reports silent on women", silent_gap, f"The planted underreporting {verdict}."),
    ],
    columns=["planted", "gap in the audit", "found?"],
)
show(
    ledger,
    caption="Planted truths and the audit: gaps in mean AUC (65–80 minus 25–50; women minus men; the largest "
    "by race) and, for the reports, in mean sensitivity (women minus men)",
)

# %% tags=["remove-cell"]
judgements = [age_verdict, sex_verdict, f"The planted underreporting {verdict}"]
judgements = [v for v in judgements if v.startswith("The planted") and "cannot" not in v]
glue("n-judged", fmt(len(judgements), 0))
glue("n-found", fmt(sum("is found" in v for v in judgements), 0))
glue(
    "auc-blind",
    "An audit that had looked at AUC alone would have missed the last of them"
    if verdict.endswith("does not show it")
    else "Whether AUC alone would have hidden one of them cannot be told"
    if "cannot" in verdict
    else "Looking at AUC alone would have hidden none of them here",
)

# %% [markdown]
# Effects that were planted and can be judged in this run: {glue:text}`n-judged`; found:
# {glue:text}`n-found`. {glue:text}`auc-blind`. A bias that an audit finds in a phantom is no news. That it
# says what is there, stays quiet about what is not, and shows which of the two it did: this is what makes
# it worth asking about real films.

# %% [markdown]
# ## Both at once: sex and age
#
# Paper S names one limit of its analysis: each attribute is looked at alone. A group at the crossing of
# two attributes can fare worse than either shows. It is also smaller than either.

# %%
BOTH = "sex x age_group"
crossed = fairness.performance_table(
    one, "auc", ("sex", "age_group", ("sex", "age_group")), **resampling
)
cells = crossed[(crossed["attribute"] == BOTH) & (crossed["label"] != "mean")]
show(
    schema.wide(cells, index="group", columns="label")
    .rename(columns=readable)
    .rename(index=lambda group: ", ".join(map(readable, group.split(" x ")))),
    caption=f"AUC of {first} by sex and age",
)

# %% tags=["remove-cell"]
widths = crossed[crossed["label"] != "mean"].assign(width=lambda t: t["ci_high"] - t["ci_low"])
widths = widths.groupby("attribute")["width"].mean()
glue("width-sex", fmt(widths["sex"]))
glue("width-age", fmt(widths["age_group"]))
glue("width-both", fmt(widths[BOTH]))
glue(
    "width-verdict",
    "The more a group is divided, the wider its intervals become"
    if widths[BOTH] > max(widths["sex"], widths["age_group"])
    else "Where both give a number, dividing a group did not widen the intervals here",
)
glue("cells", fmt(len(cells), 0))
glue("cells-undefined", fmt(cells["value"].isna().sum(), 0))

# %% [markdown]
# Of {glue:text}`cells` cells, {glue:text}`cells-undefined` have too few cases for a number. Where there
# is one, the average interval is {glue:text}`width-sex` wide by sex, {glue:text}`width-age` by age and
# {glue:text}`width-both` by both. {glue:text}`width-verdict`. With two attributes this is a table; with four it would be a list of
# single patients. Methods that borrow strength between cells exist; none of them finds cases that are
# not there.

# %% [markdown]
# ## Beside the paper
#
# Paper S prints these results as bars and words, on its own selection of patients and of models, so no
# number here can agree or disagree with it. Its three statements, and what the same look gives in this run:

# %% tags=["hide-input"]
size = gaps[gaps["label"] != "mean"].assign(size=lambda t: t["value"].abs())
size = size.groupby("attribute")["size"].mean()
age_rows = mean_gaps[mean_gaps["attribute"] == "age_group"]
age_below = age_rows.apply(schema.side, axis=1).isin(["above", "below"]).sum()
of_race = "not recorded" if "race" not in size else fmt(size["race"], 3)
claims = pd.DataFrame(
    [
        (
            "gaps across ages in most models",
            f"{age_below} of {len(age_rows)} age gaps in mean AUC exclude 0",
        ),
        (
            "smaller gaps by sex and race",
            f"mean absolute gap: age {fmt(size.get('age_group'), 3)}, sex {fmt(size.get('sex'), 3)}, "
            f"race {of_race}",
        ),
        (
            "Asian patients extreme, few positives",
            f"mean width of intervals: Asian {fmt(width.get('Asian'))}, White {fmt(width.get('White'))}",
        ),
    ],
    columns=["S, section 3.1", "this run"],
)
show(claims.assign(verdict=published.OTHER_COHORT), caption="Statements of S, and this run")

# %% tags=["remove-cell"]
others = size.drop("age_group", errors="ignore")
glue(
    "order",
    "here too, gaps by age are the largest on average"
    if "age_group" in size and size["age_group"] > others.max()
    else "here, gaps by age are not the largest on average",
)
glue(
    "asian-wide",
    "wider" if width.get("Asian", np.nan) > width.get("White", np.nan) else "not known to be wider",
)

# %% [markdown]
# In this run, {glue:text}`order`, and the intervals of Asian patients are {glue:text}`asian-wide` than those
# of White patients. The sizes in the table average over findings and models, and small groups have large
# gaps by chance alone: compare them with the noise floors above before you compare them with each other.

# %% [markdown]
# ## Limits
#
# - Groups are what was recorded: two sexes, five bands of age, three words for race. Who was recorded
#   wrongly, or not at all, is in the wrong group or in none, and these people are seldom a random sample.
# - An interval says what other patients of the same source would change. It knows nothing of another
#   hospital, another scanner or another year.
# - The figures show one model, and means over findings can hide a finding whose gap points the other way.
# - The threshold was set on the very patients that it is judged on. A device in use brings its own.
# - That a planted bias is found shows that the analysis can find such a bias. It shows neither that real
#   films hold it, nor that race acts in hospitals by way of scanners alone.
#
# ## What we learned
#
# - A gap needs its own interval, paired on the same resamples. Two overlapping bars are not a test.
# - Thin groups have wide intervals and extreme values. A missing number with a reason is a result.
# - A fair model shows gaps too. Read a gap beside its noise floor.
# - Many comparisons produce "findings" by themselves: {glue:text}`n-out` of {glue:text}`n-asked` before
#   correction, {glue:text}`n-bh` after. Count them before you read them.
# - {glue:text}`age-verdict`. {glue:text}`sex-verdict`.
# - In phantoms without any way for race to enter the image, gaps by race of up to
#   {glue:text}`race-max-off` remain. A gap is a question about causes, and only rarely an answer.
# - AUC cannot see that all scores of a group are shifted; the sensitivity at a common threshold can. The
#   planted underreporting {glue:text}`silent-verdict`.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-subgroup-blind
# Cover the part on the planted truth. From {numref}`fig-subgroup-gaps` and {numref}`fig-subgroup-floor` alone:
# in which age groups are findings drawn fainter, or stronger, than at 25 to 50? Are they in one of the
# sexes? Write down your answer and how sure you are, and only then compare.
# ```

# %% tags=["remove-cell", "solution"]
glue("answer-planted", planted_words or "the same factor in everybody")
seen = of_first[of_first["attribute"].isin(["age_group", "sex"])].apply(interval_lies, axis=1)
glue(
    "answer-seen",
    "; ".join(f"{readable(g)} {where}" for g, where in seen.items()),
)
single_bars = results[results["metric"] == "auc"].set_index(
    ["model", "label", "attribute", "group"]
)


def overlap(gap):
    """Whether the intervals of the two groups of a gap overlap."""
    where = (gap["model"], gap["label"], gap["attribute"])
    a, b = (single_bars.loc[(*where, group)] for group in gap["group"].split(" - "))
    return a["ci_low"] <= b["ci_high"] and b["ci_low"] <= a["ci_high"]


certain = gaps[(gaps["label"] != "mean") & gaps.apply(schema.side, axis=1).isin(["above", "below"])]
strict = certain[[overlap(gap) for _, gap in certain.iterrows()]]
glue("answer-overlap", f"{len(strict)} of {len(certain)}")
glue(
    "answer-overlap-one",
    "There is none in this run"
    if strict.empty
    else "One of them is {label} of {model}, {group}".format(
        **strict.iloc[0][["label", "model"]], group=readable(strict.iloc[0]["group"])
    ),
)

# %% [markdown]
# ```{solution} ex-subgroup-blind
# :class: dropdown
# In this run the contrast of findings was multiplied by {glue:text}`answer-planted`. The intervals of {glue:text}`first`:
# {glue:text}`answer-seen`. Where these disagree, look at the noise floor, and at how many ill patients the
# pair has. A gap without a dial may still have a cause, such as another mix of ages.
# ```
#
# ```{exercise}
# :label: ex-subgroup-turn
# Turn the planted bias around: findings fainter in the *young*, and in men. Before you run it, write down
# the signs that you expect in {numref}`fig-subgroup-gaps`, and which of the four lines under "What was
# planted, and was it found?" should stay as it is.
#
# `cxrbook run 04 -p 'options={"dials": {"contrast": {"age_group": {"18-25": 0.58, "25-50": 0.72}, "sex": {"M": 0.7}}}}'`
# ```
#
# ```{solution} ex-subgroup-turn
# :class: dropdown
# The gap by sex should turn most clearly: women minus men, above 0. Of the ages, 18–25 falls behind 25–50, and
# 50–65, whose findings are now the clearer ones, should come out ahead of it. The oldest groups may gain less
# than their factors promise: whatever gap part 1 shows with the dial off is there before the dial, and where
# it lies below 0, a bias planted against the young has to work against it. The lines on race and
# on the silent reports do not depend on the contrast by age or sex and should say the same, if with other
# digits: the threshold moves with everybody's scores.
# ```
#
# ```{exercise}
# :label: ex-subgroup-thresholds
# Give women and men each their own threshold at the wanted specificity. What happens to the gap in
# sensitivity of `phantom-resnet-underreport`? Would you do that in a clinic?
# ```
#
# ```{solution} ex-subgroup-thresholds
# :class: dropdown
# `pd.concat([fairness.decide(rows, specificity) for _, rows in of_planted.groupby("sex")])`, then
# `fairness.gap_table` as above. Most of the gap should go, since the scores of women were shifted more
# than they were blurred. In a clinic it means treating the recorded sex as an input to the decision: it
# needs a reason, a record of it, and a plan for those whose entry is missing or wrong. Mending the
# reports is better.
# ```
#
# ```{exercise}
# :label: ex-subgroup-labels
# The test labels of the phantoms are complete. In practice they are mined from the same reports as those
# of the training. Test `phantom-resnet-underreport` against the labels of
# `phantom.twin(planted, underreport={"sex": {"F": 0.65}})`. Which of the two rates still tells the truth?
# ```
#
# ```{solution} ex-subgroup-labels
# :class: dropdown
# Replace `y_true` by the twin's labels. The reports leave out findings at random, so those that remain
# are a fair sample of women's findings: their sensitivity is still right, with a wider interval. The
# specificity of women is not: real findings now count as false alarms. If the harder or milder findings
# were left out more often, sensitivity would be wrong as well, and to the advantage of the model.
# ```
#
# ```{exercise}
# :label: ex-subgroup-seed
# Run the chapter on the phantom with three other seeds. Which of the gaps by race keep their sign? Which
# of the gaps by age do?
# ```
#
# ```{solution} ex-subgroup-seed
# :class: dropdown
# A planted gap keeps its sign from seed to seed, most clearly in the oldest groups. Gaps by race, for
# which no cause but the site exists, wander around 0. A result that changes its sign with the draw was
# not a result, however its first interval looked.
# ```
#
# ```{exercise}
# :label: ex-subgroup-overlap
# Find a pair of groups whose intervals overlap while the interval of their gap excludes 0. Why does it
# happen?
# ```
#
# ```{solution} ex-subgroup-overlap
# :class: dropdown
# Join `results` and `gaps` on model, label and group. Of the gaps in AUC of single findings whose interval
# excludes 0, {glue:text}`answer-overlap` have groups with overlapping intervals.
# {glue:text}`answer-overlap-one`. If two independent estimates have the same
# standard error $s$, their intervals stop overlapping at a distance of $2 \times 1.96\,s$, while the
# interval of the gap excludes 0 from $1.96\sqrt{2}\,s$ on. Between the two distances lies the region
# where the eye is too strict.
# ```
#
# ## Further reading
#
# - {cite:t}`seyyedkalantari2021`: underdiagnosis in chest films, group by group and at the crossing of
#   groups; where the argument of part 4 comes from.
# - {cite:t}`larrazabal2020`: what happens to women when few women were in the training.
# - {cite:t}`glocker2023`: how a gap between groups can come from their mix of ages and findings, and how to
#   test for it.
# - {cite:t}`yang2025`: the same questions asked of large vision-language models and of radiologists.
# - {cite:t}`oakdenrayner2020`: groups that nobody recorded, and in which a good average hides failures.
# - {cite:t}`westfall1993`: the book behind the simultaneous bands.
