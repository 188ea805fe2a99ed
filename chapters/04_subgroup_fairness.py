# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals: []
#     needs: []
#     minutes: 30
# ---

# %% [markdown]
# # Subgroup fairness: as good for everyone?
#
# *Answers section 3.1 of {cite:t}`sourget2025`, paper S, and its Fig. 1.*
#
# A model finds a pleural effusion with a good AUC *on average*. Nobody is an average patient. Does it
# find the effusion as well in a woman of 82 as in a man of 40, and would we notice if it did not?
#
# Paper S compares groups of patients by age, sex and race. It sees gaps by age, smaller ones by sex and
# race, and extreme values where patients are few. This chapter asks the same of the models of this run, puts
# an interval on every gap, counts how many comparisons were made, and then does what real data do not
# allow: on phantoms, it checks the answers against the truth that was planted.

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models` separated by commas, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "all"}
seed: int = 1907  # seed of the phantom cohort and of the resamples
n_images: int = 4000  # images in the phantom cohort; real cohorts are taken whole
n_resamples: int = 500  # bootstrap resamples
n_permutations: int = 1000  # groups dealt anew, for the gaps of an exactly fair model
specificity: float = 0.8  # at the operating point, over all patients
protocol: str = "corrected"  # or "as_published": models, prompt, resampling, rounding of S

# %% tags=["remove-cell"]
from cxrlib.parameters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace

import pandas as pd

from cxrlib import cohorts, evaluation, fairness, guard, inference, published, schema, zeroshot
from cxrlib import models as registry
from cxrlib.cohorts import phantom
from cxrlib.notebook import figure, fmt, fmt_row, glue, keep, percent, setup, show, warn_if_seeded
from cxrlib.plots import bars, gap_forest, group_bars
from cxrlib.plots import name as title
from cxrlib.protocol import protocol as chosen_protocol

setup()
chosen = chosen_protocol(protocol)
TITLES = {"index": title, "columns": title}  # "F" reads "female" in tables
clips = [registry.load(name, chosen) for name in registry.choose(models)]
names = [clip.name for clip in clips]
first = names[0]
resampling = {"n_resamples": n_resamples, "seed": seed}
resampling |= {"unit": chosen.unit, "interval": chosen.interval}
WHERE = {
    "above": "lies above 0",
    "below": "lies below 0",
    "around": "includes 0",
    "undefined": "is undefined",
}
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
                "group": group,
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

# %% [markdown]
# These are the groups of the cohort {glue:text}`cohort`. {glue:text}`race-note`. Images with another
# entry, or without one, count in the whole cohort and in no comparison of groups
# ({glue:text}`nowhere`).
#
# The thinnest place is group {glue:text}`scarce-group`: {glue:text}`scarce-n` images with
# {glue:text}`scarce-finding`. One such image seen or missed moves the sensitivity of that group by a
# visible step.
#
# ## One model, three attributes
#
# Every model scores every image once. The scores are then evaluated group by group. A group with fewer
# than ten positive or ten negative images gets no number, and the table says so.

# %%
predictions = zeroshot.predict(
    cohort, clips, cohort.findings, negative=chosen.negative_prompt
).merge(people[["image_id", "view", *ATTRIBUTES]], on="image_id")
results = evaluation.performance_table(
    predictions, ATTRIBUTES, chosen, n_resamples=n_resamples, seed=seed
)
keep(results)

# %% tags=["hide-input"]
fig = group_bars(results, "auc", first)
figure(
    "fig-subgroup-auc",
    caption="AUC by finding in groups of patients, with 95 % intervals over patients (S, Fig. 1).",
    alt="Panels of bars, by age group, by sex and, where it is recorded, by race: AUC for each finding and their mean, with interval whiskers; a hollow ring where a group has too few positives.",
)

# %% tags=["hide-input"]
fig = group_bars(results, "adjusted_auprc", first)
figure(
    "fig-subgroup-auprc",
    caption="Adjusted AUPRC in the same groups (S, Fig. 1).",
    alt="Panels of bars, by age group, by sex and, where it is recorded, by race: adjusted AUPRC for each finding and their mean, with interval whiskers.",
)

# %% tags=["remove-cell"]
single = results[
    (results["model"] == first) & (results["metric"] == "auc") & (results["label"] != "mean")
]
in_groups = single[single["attribute"] != "all"]
undefined = in_groups[in_groups["value"].isna()]
glue("n-bars", fmt(len(in_groups), 0))
glue("n-undefined", fmt(len(undefined), 0))
glue(
    "undefined-groups",
    f"they lie in {', '.join(undefined['group'].unique())}"
    if len(undefined)
    else "none is missing",
)
width = (single["ci_high"] - single["ci_low"]).groupby(single["group"]).mean().drop("all").dropna()
glue("widest", width.idxmax() if len(width) else "undefined")
glue("widest-width", fmt(width.max()))
glue("narrowest", width.idxmin() if len(width) else "undefined")
glue("narrowest-width", fmt(width.min()))
of_age = (results["model"] == first) & (results["attribute"] == "age_group")
notes = results.loc[of_age & (results["label"] == "mean") & (results["metric"] == "auc"), "note"]
glue("first", first)
glue("age-note", notes.iloc[0] if len(notes) else "S takes no mean within groups")

# %% [markdown]
# These are the figures of paper S, drawn for {glue:text}`first`. Of
# {glue:text}`n-bars` AUC values, {glue:text}`n-undefined` are undefined for want of cases:
# {glue:text}`undefined-groups`. The average interval is {glue:text}`widest-width` wide for
# {glue:text}`widest` and {glue:text}`narrowest-width` for {glue:text}`narrowest`. A tall or a short bar
# in a thin group is first of all a thin group.
#
# The bars called "Mean" average the same findings in every group of an attribute, or a group could look
# worse only because its hard findings were counted. For age: {glue:text}`age-note`.

# %% [markdown]
# ### As published, and corrected
#
# The numbers of paper S came from another protocol: images instead of patients were resampled, every
# interval drew resamples of its own, everything was rounded to two digits, and no group was too small
# for a number. What does that change? Here is one model both ways.

# %%
ways = {
    way: evaluation.performance_table(
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
    summary.rename(index=title).rename(columns={"width": "mean width of intervals"}),
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

# %% [markdown]
# The eye now compares intervals: do they overlap? That is not a test of the gap. Two intervals can
# overlap while their difference is certain, and groups that share patients, findings and a model are
# not independent. So the *gap itself* gets an interval.
#
# ## Gaps
#
# A gap "A − B" is a signed difference: below 0, group A fares worse. Each resample of patients gives one
# gap, with both groups taken from the same draw; the interval is the spread of these gaps. The
# references are the ages 25 to 50, men, and White patients: in most cohorts the largest or least impaired
# group, and not a norm.

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
    alt="Differences in mean AUC with intervals around a line at zero: age groups against 25 to 50, women against men and, where race is recorded, Black and Asian against White patients, one mark a model.",
)

# %% tags=["remove-cell"]
HEADLINE = {"age": "65-80 - 25-50", "sex": "F - M", "asian": "Asian - White"}
of_first = mean_gaps[mean_gaps["model"] == first].set_index("group")
for key, group in HEADLINE.items():
    if group in of_first.index:
        found = of_first.loc[group]
        glue(f"gap-{key}", fmt_row(found, 3, signed=True))
        glue(f"gap-{key}-where", WHERE[schema.side(found)])
    else:
        glue(f"gap-{key}", "not known, since these data lack one of the two groups")
        glue(f"gap-{key}-where", WHERE["undefined"])

# %% [markdown]
# For {glue:text}`first`, the gap in mean AUC between the ages 65–80 and 25–50 is
# {glue:text}`gap-age`; its interval {glue:text}`gap-age-where`. Between women and men it is
# {glue:text}`gap-sex`, and the interval {glue:text}`gap-sex-where`. Between Asian and White patients it
# is {glue:text}`gap-asian`; the interval {glue:text}`gap-asian-where`.

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
figure(
    "fig-subgroup-floor",
    caption="The same gaps before their noise floor: 95 of 100 fair models would show a gap within the grey bar.",
    alt="The differences in mean AUC once more, with their intervals; behind each a grey bar around zero as long as the gaps that a fair model would show.",
)

# %% tags=["hide-input"]
floors = of_means[of_means["model"] == first]
show(
    floors.assign(
        group=floors["group"].map(title),
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
glue("floor-thin-pair", title(reach.index[0]))

# %% [markdown]
# One fair model in twenty shows a gap of {glue:text}`floor-age` or more between the ages 65–80 and
# 25–50; for the pair {glue:text}`floor-thin-pair` it takes {glue:text}`floor-thin`. A gap should be read
# beside its floor, never beside 0.
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

# %% [markdown]
# A family of comparisons can be corrected for its size. *Holm* {cite:p}`holm1979` bounds the chance of even
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
glue(
    "n-holm",
    "Holm's correction cannot flag any with this number of permutations"
    if of_findings["holm"] is None
    else f"{of_findings['holm']} after Holm's",
)
glue("m-asked", fmt(in_means["comparisons"], 0))
glue("m-out", fmt(in_means["uncorrected"], 0))
glue("m-holm", fmt(in_means["holm"], 0))
left = of_means.assign(p_holm=lambda t: inference.corrected(t["p_value"], "holm"))
left = left[left["p_holm"] < 0.05]
glue(
    "m-where",
    "; ".join(
        f"{title(g)} in {n} of {len(names)} models" for g, n in left["group"].value_counts().items()
    )
    or "none",
)

# %% [markdown]
# Of {glue:text}`n-asked` comparisons of single findings ({glue:text}`n-undefined-gaps` more are
# undefined), {glue:text}`n-out` would be flagged uncorrected; {glue:text}`n-expected` would be expected
# of fair models. {glue:text}`n-bh` remain after Benjamini and Hochberg, and {glue:text}`n-holm`. Of the
# {glue:text}`m-asked` means, {glue:text}`m-out` would be flagged uncorrected and {glue:text}`m-holm`
# after Holm's correction: {glue:text}`m-where`.
#
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
    .T.rename(columns=title)
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
# number of ill patients that a gap of 0.05 would ask for.

# %%
plans = []
for attribute, reference in references.items():
    plan = inference.power_plan(one, attribute, reference=reference, **resampling)
    for _, of_pair in plan.groupby("group", sort=False):
        defined = of_pair.dropna(subset="detectable").sort_values("detectable")
        plans.append(defined.iloc[[0, -1]] if len(defined) > 1 else of_pair.head(1))
plan = pd.concat(plans)
plan["group"] = plan["group"].map(title)
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

# %% [markdown]
# ## The planted truth, part 1: age
#
# On real data the story ends here: a gap was seen, and its cause can be argued about. The phantom goes
# on. Its findings are drawn fainter in older patients, by known factors. (This part and the three that
# follow are about phantoms, whatever the data of the chapter.)

# %%
planted = cohort if cohort.planted else cohorts.load("phantom", n_images=n_images, seed=seed)
marks = planted.table[["image_id", "age_group", "sex", "race", "site"]]
of_planted = zeroshot.predict(
    planted, clips, planted.findings, negative=chosen.negative_prompt
).merge(marks, on="image_id")
dial = planted.recipe["dials"]["contrast"]["age_group"]
show(
    pd.DataFrame({"age group": dial.keys(), "contrast of findings": dial.values()}),
    caption="The planted dial: groups not listed have the factor 1",
)

# %% [markdown]
# Turn the dial off and draw *the same patients* again, alike in everything else down to the grain.
# These images are counterfactual twins. What the dial did to the AUC of a group is then no estimate
# between different people; it is the difference between each film and its twin.


# %%
def both(twin, called):
    """Predictions of the first model on the phantoms and on their twins, as if by two models."""
    after = zeroshot.predict(
        twin, clips[:1], planted.findings, negative=chosen.negative_prompt
    ).merge(marks, on="image_id")
    before = of_planted[of_planted["model"] == first]
    return pd.concat([before.assign(model="as drawn"), after.assign(model=called)])


# %%
OFF = "contrast restored"
age = both(phantom.twin(planted, contrast={}), OFF)
truth = fairness.model_gap_table(
    age, [("as drawn", OFF)], metrics="auc", attributes=("age_group",), **resampling
)
truth = truth[(truth["label"] == "mean") & (truth["attribute"] == "age_group")]

# %% tags=["hide-input"]
fig = gap_forest(truth)
fig.suptitle(first)
figure(
    "fig-subgroup-age-truth",
    caption="The recorded truth of the age dial: mean AUC as drawn minus mean AUC of the twins, by age group.",
    alt="Difference in mean AUC between the images as drawn and their twins with restored contrast, one line an age group with its interval.",
)

# %%
bands = {"groups": ["25-50", "65-80"], "metrics": "auc"}
age_gaps = fairness.gap_table(age, "age_group", [("65-80", "25-50")], **bands, **resampling)
show(
    schema.wide(age_gaps, index="label", columns="model", digits=3).rename(**TITLES),
    caption=f"Gap in AUC of {first}, ages 65–80 minus 25–50, as drawn and with the dial off",
)

# %% tags=["remove-cell"]
on = schema.row(age_gaps, label="mean", model="as drawn")
off = schema.row(age_gaps, label="mean", model=OFF)
by_group = truth.set_index("group")
untouched = [g for g in by_group.index if g not in dial]
glue("truth-young", " and ".join(f"{g}: {fmt_row(by_group.loc[g], 3, True)}" for g in untouched))
glue(
    "truth-old",
    "; ".join(f"{g}: {fmt_row(by_group.loc[g], 3, True)}" for g in dial if g in by_group.index),
)
glue("age-on", fmt_row(on, 3, signed=True))
glue("age-on-where", WHERE[schema.side(on)])
glue("age-off", fmt_row(off, 3, signed=True))
glue("age-off-where", WHERE[schema.side(off)])
glue("age-sign", "right" if on["value"] < 0 else "wrong")
smaller = abs(off["value"]) < abs(on["value"]) / 2
if pd.isna(on["value"]) or pd.isna(off["value"]):
    verdict = "cannot be judged in this run, which has too few patients"
elif schema.side(on) == "below" and smaller:
    verdict = "is found: it has the right sign, its interval excludes 0, and it goes with its dial"
elif on["value"] < 0 and smaller:
    verdict = "shows the right sign and goes with its dial, but its interval does not exclude 0"
else:
    verdict = "is not found in this run"
glue("age-verdict", verdict)

# %% [markdown]
# In the groups that the dial leaves alone, the twins are the same images and nothing changes:
# {glue:text}`truth-young`. In the others, the dial moves AUC by {glue:text}`truth-old`.
#
# Now the audit, which knows nothing of the dial. It sees a gap of {glue:text}`age-on` (the sign is
# {glue:text}`age-sign`; the interval {glue:text}`age-on-where`). With the dial off, the gap on the same
# people is {glue:text}`age-off` (the interval {glue:text}`age-off-where`). **The planted effect of age
# {glue:text}`age-verdict`.**
#
# What remains with the dial off is whatever else differs between a group of old and a group of young
# patients: how they were imaged, what else they have, and chance. The observed gap is exactly the sum of
# the two parts. No real cohort shows its parts.

# %% [markdown]
# ## The planted truth, part 2: sex
#
# No dial makes findings fainter in women. If there is a gap by sex all the same, the drawing of the female
# body may cover findings; or women and men among the phantoms differ in age, and the age dial works in
# disguise; or in something else; or it is chance. Twins tell these apart. First, everybody is drawn
# with the anatomy that the renderer gives to men. Then the age dial is turned off as well.

# %%
SAME, PLAIN = "one anatomy", "one anatomy, contrast restored"
as_men = phantom.twin(replace(planted, table=planted.table.assign(sex="M")))
same = both(as_men, SAME)
plain = both(phantom.twin(as_men, contrast={}), PLAIN)
sex = pd.concat([same, plain[plain["model"] == PLAIN]])
sex_gaps = fairness.gap_table(sex, "sex", [("F", "M")], metrics="auc", **resampling)
show(
    schema.wide(sex_gaps, index="label", columns="model", digits=3).rename(**TITLES),
    caption=f"Gap in AUC of {first}, women minus men, as drawn and in two twin cohorts",
)

# %% tags=["remove-cell"]
sex_gap = sex_gaps[sex_gaps["label"] == "mean"].set_index("model")
anatomy = fairness.model_gap_table(
    same, [("as drawn", SAME)], metrics="auc", attributes=("sex",), **resampling
)
anatomy = schema.row(anatomy, label="mean", attribute="sex", group="F")
glue("sex-on", fmt_row(sex_gap.loc["as drawn"], 3, signed=True))
glue("sex-on-where", WHERE[schema.side(sex_gap.loc["as drawn"])])
glue("sex-anatomy", fmt_row(anatomy, 3, signed=True))
glue("sex-anatomy-where", WHERE[schema.side(anatomy)])
CAUSE = {
    "above": "the female anatomy, as drawn here, makes findings easier to rank",
    "below": "the female anatomy, as drawn here, hides findings",
    "around": "the drawing of the female body has no measurable effect on the ranking",
    "undefined": "this run is too small to tell",
}
glue("sex-cause", CAUSE[schema.side(anatomy)])
glue("sex-same", fmt_row(sex_gap.loc[SAME], 3, signed=True))
glue("sex-plain", fmt_row(sex_gap.loc[PLAIN], 3, signed=True))
glue("sex-plain-where", WHERE[schema.side(sex_gap.loc[PLAIN])])
ages = planted.table.groupby("sex")["age"].mean()
glue("age-women", fmt(ages["F"], 1))
glue("age-men", fmt(ages["M"], 1))

# %% [markdown]
# As drawn, the gap by sex is {glue:text}`sex-on` in mean AUC; its interval
# {glue:text}`sex-on-where`. The AUC of women as drawn, minus that of the same women with a man's
# anatomy, is {glue:text}`sex-anatomy`, and the interval {glue:text}`sex-anatomy-where`:
# {glue:text}`sex-cause`.
#
# With one anatomy for all, the gap is {glue:text}`sex-same`. Women are {glue:text}`age-women` years old
# on average here and men {glue:text}`age-men`; once the fading with age is off too, it is
# {glue:text}`sex-plain` (the interval {glue:text}`sex-plain-where`). That remainder is hereby declared.
# Neither anatomy nor fading can cause it: what is left are the findings that occur together, their
# severity, view positions, and the luck of this draw.

# %% [markdown]
# ## The planted truth, part 3: race and site
#
# Race changes nothing in the body of a phantom. It decides *where* a patient is likely to be imaged,
# and each site's scanner leaves a signature. If a gap by race arises, it comes by way of the site. The
# twins are drawn as if all scanners were alike.

# %%
ALIKE = "scanners alike"
alike = phantom.twin(planted, site_signature=0.0)
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
site = signature[signature["attribute"] == "site"].set_index("group")
moved = [g for g in ("B", "C") if schema.side(site.loc[g]) in ("above", "below")]
glue("site-effects", "; ".join(f"{g}: {fmt_row(site.loc[g], 3, True)}" for g in ("B", "C")))
glue(
    "site-moved",
    f"excludes 0 at {' and '.join(moved)}" if moved else "excludes 0 at neither of them",
)


def outside(table, attribute, model):
    rows = table[(table["attribute"] == attribute) & (table["model"] == model)]
    return f"{int(rows.apply(schema.side, axis=1).isin(['above', 'below']).sum())} of {len(rows)}"


glue("race-out-on", outside(place_gaps, "race", "as drawn"))
glue("race-out-off", outside(place_gaps, "race", ALIKE))
glue("site-out-on", outside(place_gaps, "site", "as drawn"))
race = place_gaps[place_gaps["attribute"] == "race"]
by_model = race.assign(size=race["value"].abs()).groupby("model")["size"].max()
glue("race-max-on", fmt(by_model["as drawn"], 3))
glue("race-max-off", fmt(by_model[ALIKE], 3))

# %% [markdown]
# The signature itself changes mean AUC at the sites that have one by {glue:text}`site-effects`; the
# interval {glue:text}`site-moved`. Of the gaps between sites, {glue:text}`site-out-on` intervals exclude
# 0; of the gaps between races, {glue:text}`race-out-on`. The largest gap by race is
# {glue:text}`race-max-on` as drawn and {glue:text}`race-max-off` with the scanners alike.
#
# The second number deserves a long look. With the scanners alike, race has *no* way into the image:
# what is left is not bias of any kind, it is which patients happen to be in a small group. Its intervals
# exclude 0 in {glue:text}`race-out-off` cases. A gap of that size in a real study of this size would be
# no news.

# %% [markdown]
# ## The planted truth, part 4: the silent reports
#
# The last bias sits not in the images but in the reports that a model learned from. One model,
# `phantom-resnet-underreport`, was trained on reports that leave out most of the findings of women (its
# card, in the table of the zero-shot chapter, says how many). The test labels of the phantoms are complete.
# What does an audit see?

# %%
auc_by_sex = fairness.gap_table(of_planted, "sex", reference="M", metrics="auc", **resampling)
auc_by_sex = auc_by_sex[auc_by_sex["label"] == "mean"]
show(
    schema.wide(auc_by_sex, index="model", columns="group", digits=3).rename(**TITLES),
    caption="Gap in mean AUC, women minus men",
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
fig = bars(rates[rates["metric"] == "sensitivity"], x="model", hue="group", baseline=0)
figure(
    "fig-subgroup-sensitivity",
    caption="Sensitivity for women and men at one threshold for all, mean over findings. What is missing to 1 is underdiagnosis.",
    alt="Bars of mean sensitivity for women and for men, a pair for each model, with interval whiskers.",
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
verdict = "cannot be judged without both models"
if SILENT in names:
    ranked = schema.row(auc_by_sex, model=SILENT)
    gap = schema.row(sensitivity_gaps, model=SILENT)
    found = rates[(rates["model"] == SILENT) & (rates["metric"] == "sensitivity")].set_index(
        "group"
    )
    told |= {
        "silent-auc": fmt_row(ranked, 3, signed=True),
        "silent-auc-where": WHERE[schema.side(ranked)],
        "silent-gap": fmt_row(gap, signed=True),
        "silent-gap-where": WHERE[schema.side(gap)],
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
    schema.wide(cells, index="group", columns="label").rename(**TITLES),
    caption=f"AUC of {first} by sex and age",
)

# %% tags=["remove-cell"]
widths = crossed[crossed["label"] != "mean"].assign(width=lambda t: t["ci_high"] - t["ci_low"])
widths = widths.groupby("attribute")["width"].mean()
glue("width-sex", fmt(widths["sex"]))
glue("width-age", fmt(widths["age_group"]))
glue("width-both", fmt(widths[BOTH]))
glue("cells", fmt(len(cells), 0))
glue("cells-undefined", fmt(cells["value"].isna().sum(), 0))

# %% [markdown]
# Of {glue:text}`cells` cells, {glue:text}`cells-undefined` have too few cases for a number. Where there
# is one, the average interval is {glue:text}`width-sex` wide by sex, {glue:text}`width-age` by age and
# {glue:text}`width-both` by both. With two attributes this is a table; with four it would be a list of
# single patients. Methods that borrow strength between cells exist; none of them finds cases that are
# not there.

# %% [markdown]
# ## Beside the paper
#
# Paper S prints these results as bars and words, on its own selection of patients and of models. Its
# three statements, and what the same look gives here:

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
            f"mean absolute gap: age {fmt(size['age_group'], 3)}, sex {fmt(size['sex'], 3)}, "
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

# %% [markdown]
# ## What we learned
#
# - A gap needs its own interval, paired on the same resamples. Two overlapping bars are not a test.
# - Thin groups have wide intervals and extreme values. A missing number with a reason is a result.
# - A fair model shows gaps too. Read a gap beside its noise floor.
# - Many comparisons produce "findings" by themselves: {glue:text}`n-out` of {glue:text}`n-asked` before
#   correction, {glue:text}`n-bh` after. Count them before you read them.
# - The planted effect of age {glue:text}`age-verdict`.
# - In phantoms without any way for race to enter the image, gaps by race of up to
#   {glue:text}`race-max-off` remain. A gap is a question about causes, and only rarely an answer.
# - AUC cannot see that all scores of a group are shifted; the sensitivity at a common threshold can. The
#   planted underreporting {glue:text}`silent-verdict`.
#
# ## Exercises
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
# Join `results` and `gaps` on model, label and group. If two independent estimates have the same
# standard error $s$, their intervals stop overlapping at a distance of $2 \times 1.96\,s$, while the
# interval of the gap excludes 0 from $1.96\sqrt{2}\,s$ on. Between the two distances lies the region
# where the eye is too strict.
# ```
