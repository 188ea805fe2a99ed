# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - turn a gap into missed cases and false alarms of a thousand patients
#     - say which threshold a stated harm means, and read a decision curve
#     - tell who pays for a fairness rule, and whether anybody gains
#     needs:
#     - 07_calibration
#     - 17_recalibration
# ---

# %% [markdown]
# # Who pays for an alarm? Net benefit by group
#
# *Goes on where [Calibration](07_calibration) ends, section 3.3 of
# {cite:t}`sourget2025`, paper S: probabilities that hold, and then?*
#
# A committee is to decide whether software may sort the chest films of the
# night. The vendor shows an AUC and a gap in AUC. The head of the emergency
# room asks other things. How many with air around the lung will we send home?
# How many healthy will we wake a surgeon for? Who are they?
#
# An AUC answers none of it, since it decides nothing. **What does a model do
# to a thousand patients, whom does it fail, and who pays when the rule is
# made fair?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`: the first is looked at
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of phantoms and planted patients
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
harm_ratio: float = 9.0  # (0, 1000) false alarms as bad as one missed case
specificity: float = 0.8  # (0, 1) of a device that has a fixed threshold
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# As in [Recalibration](17_recalibration), there are models, films to test them
# on, and films of other patients to fit on, the *validation* patients. On
# these, a line of logistic regression (Platt scaling) turns scores into risks.

# %% tags=["hide-input"]
from dataclasses import replace

import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts.metadata import young_or_old
from cxrlib.core.errors import Lacks
from cxrlib.models import load_models, model_names
from cxrlib.predict import policies, zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import interactive, notebook, plots, words
from cxrlib.show.notebook import asked, figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import estimate, fmt, lying, percent, readable, span
from cxrlib.stats import calibration, fairness, net_benefit

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
clips = load_models(models, replace(chosen, temperature="learned"))
names = [clip.name for clip in clips]
first = names[0]
notebook.warn_if_seeded(names, data)
how = {"preprocessing": chosen.preprocessing}
drawn = (data, n_images, seed, options)
test = cohorts.study(*drawn, **how)
valid, tested = cohorts.validation(test, *drawn, **how)
(LABEL,) = asked(test.name, test.findings, ["Pneumothorax"])
GROUPS = {"age60": ["old", "young"], "sex": ["F", "M"]}
GROUPS["race"] = ["Black", "White"]


def asked_of(cohort, rows=None):
    """Predictions by the cosines alone, with the groups of patients."""
    question = (cohort, clips, [LABEL], chosen.negative_prompt)
    found = zeroshot.both_readings(*question, rows)
    found = schema.rows(found, method=next(iter(zeroshot.READINGS)))
    people = cohort.table.assign(age60=young_or_old(cohort.table["age"]))
    known = ["image_id", *(a for a in GROUPS if a in people)]
    return found.merge(people[known], on="image_id")


applied, fitted = asked_of(test, tested), asked_of(valid)
risk = calibration.recalibrate(applied, fitted).assign(method="Platt")
GROUPS = {
    a: pair
    for a, pair in GROUPS.items()
    if a in risk and {*pair} <= {*risk[a]}
}
if not GROUPS:
    raise Lacks("no film of old and young, women and men, Black and White")
PAIRS = {a: [tuple(pair)] for a, pair in GROUPS.items()}
main, (ONE, OTHER) = next(iter(GROUPS.items()))  # looked at closely
# no number of a group with few cases, whichever the protocol
careful = {"protocol": chosen.cautious}

# %% [markdown]
# ## The price of a missed case
#
# No threshold is right in itself. It is right for a price: how many false
# alarms are as bad as one missed case? Call that number $h$, the *harm ratio*.
# With a risk $p$, an alarm is worth it when the harm it prevents outweighs the
# harm it does, $h\,p > 1 - p$, so when
#
# $$ p > t = \frac{1}{1 + h} $$ (eq-benefit-threshold)
#
# {cite:p}`vickers2006`. The price is a value, and no statistic gives it. Those
# who bear the harm should have a say. What it commits one to can be computed.

# %% tags=["remove-input"]
at = net_benefit.threshold(harm_ratio)
risks = {h: percent(net_benefit.threshold(h)) for h in (1, 4, 19, 49)}
say(f"""
This run says that missing a {readable(LABEL).lower()} is as bad as
{harm_ratio:g} false alarms: an alarm above a risk of {percent(at, 1)}. (A
harm ratio of {words.listed(f"{h} means {x}" for h, x in risks.items())}.)
""")

# %% [markdown]
# ## A thousand patients
#
# Now count. Of a thousand patients, each with a film, some are ill and found,
# some ill and missed, some healthy and alarmed. Most are healthy and left
# alone. (A patient who comes twice counts twice in the sum, and once as the
# unit of the intervals.)

# %% tags=["remove-cell"]
biased = [m for m in names if m.endswith("-underreport")]
others = [m for m in names if m in model_names() and m not in biased]
twins = [*biased[:1], *others[:1]] * test.planted  # of one making
apart = {"model": [tuple(twins)]} if len(twins) == 2 else {}

# %%
alarms = fairness.decide(risk, threshold=at)
counted = net_benefit.table(
    alarms,
    harm_ratio,
    GROUPS,
    between=PAIRS | apart,
    metrics=(*net_benefit.DEFAULT, "found_cases", "all_alarmed"),
    **careful,
)
keep(counted.assign(protocol=chosen.name))
people = schema.rows(counted, model=first, attribute=main)

# %% tags=["hide-input"]
plots.icon_arrays(schema.rows(people, group=[ONE, OTHER]))
figure(
    "fig-benefit-icons",
    f"A thousand patients of each group, by {first}: an alarm above a risk of "
    f"{percent(at, 1)}. Marks are patients; in truth they come in any order.",
)

# %% tags=["remove-input"]
GAP = f"{ONE} - {OTHER}"
missed, alarmed = (
    {g: estimate(people, group=g, metric=m) for g in (ONE, OTHER, GAP)}
    for m in ("missed_cases", "false_alarms")
)
say(f"""
Of a thousand {readable(ONE)} patients, {missed[ONE]} are missed and
{alarmed[ONE]} alarmed for nothing; of a thousand {readable(OTHER)} ones,
{missed[OTHER]} and {alarmed[OTHER]}. The difference, {readable(GAP)}, is
{missed[GAP]} missed (the interval {missed[GAP].lies}) and {alarmed[GAP]} false
alarms (the interval {alarmed[GAP].lies}). {words.why_undefined(people)}

Icons like these are an effective way to tell of risks, useful above all to
those who do not like numbers {{cite:p}}`zikmundfisher2014`.
""")

# %% [markdown]
# ## One number: net benefit
#
# Found cases are good, false alarms bad, and the price says how bad. *Net
# benefit* {cite:p}`vickers2006` adds them up, in cases:
#
# $$ \mathrm{NB} = \frac{\mathrm{TP}}{n} - \frac{1}{h} \cdot
# \frac{\mathrm{FP}}{n} $$ (eq-benefit-nb)
#
# here times a thousand. Suppose that it is 60: that is as good as finding 60
# cases in a thousand without a single false alarm. Two rules need no model:
# *an alarm for none*, which gains nothing, and *an alarm for all*. A model
# that does not beat both is of no use at that price. A **decision curve**
# draws this for every price, each with its own threshold.

# %%
RISKS = [0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]
BOTH = ("net_benefit", "all_alarmed")
by_model = net_benefit.curves(risk, RISKS, metrics=BOTH, **careful)
plots.decision_curves(by_model, "model")
figure(
    "fig-benefit-models",
    f"Decision curves for {readable(LABEL).lower()}, all patients, with "
    "95 % intervals. Dashed: an alarm for all. The line at 0: one for none.",
)

# %% tags=["remove-cell"]
EVERYBODY = net_benefit.EVERYBODY
beside = net_benefit.table(
    net_benefit.beside_extremes(alarms),
    harm_ratio,
    between={"method": [("Platt", EVERYBODY)]},
    metrics=["net_benefit"],
    **careful,
)

# %% tags=["remove-input"]
value = schema.rows(beside, method="Platt")
over_all = schema.rows(beside, method=f"Platt - {EVERYBODY}")
every = estimate(beside, model=first, method=EVERYBODY)
say(f"""
At the price of this run, the net benefit over the models goes from
{span(value["value"], digits=1)}; an alarm for all has {every:value}. With
the whole interval, {lying(over_all, "above")} models do better than an alarm
for all, and {lying(value, "above")} better than none. At the left end of the
curves little is gained over alarming everybody: whoever fears a miss that much
needs no model. What matters is the range of prices that sensible people name
{{cite:p}}`vickers2019`.
""")

# %% tags=["remove-input"]
quiz(
    "Two groups, one model, equal sensitivity and specificity. In the first, "
    "twice as many are ill. Whose net benefit is larger?",
    {
        "The same: the model treats them alike": (
            False,
            "Net benefit counts patients. Where more are ill, more can be "
            "found, and fewer healthy ones are there to be alarmed.",
        ),
        "That of the first, since more are ill": (
            True,
            "So a lower net benefit can mean a healthier group. That is next.",
        ),
    },
)

# %% [markdown]
# ## Worse, or only healthier?
#
# In a group with few ill patients little can be gained. To compare how groups
# are *served*, both have to be looked at with the same share of ill: take each
# group's sensitivity and specificity, and one stated prevalence $\pi$
# {cite:p}`kerr2016`:
#
# $$ \mathrm{NB}_\pi = \pi \cdot \mathrm{sens} - \frac{1 - \pi}{h} \cdot
# (1 - \mathrm{spec}) $$ (eq-benefit-standard)
#
# Here it is that of all patients together, taken as fixed.

# %% tags=["hide-input"]
prevalence = 0.1  # where too few are ill to be told
if value["value"].notna().any():
    prevalence = float((value["n_positive"] / value["n"]).max())
same = {"prevalence": prevalence, **careful}
of_first = schema.rows(alarms, model=first)
standard = net_benefit.table(
    of_first, harm_ratio, GROUPS, between=PAIRS, **same
)
both = {"as they come": counted, "at one prevalence": standard}
both = pd.concat(t.assign(method=m) for m, t in both.items())
both = schema.rows(both, model=first)
both = schema.rows(both, metric="net_benefit", attribute=list(GROUPS))
show(
    both,
    f"Net benefit of {first} per thousand, by group and between groups",
    digits=1,
    rows="group",
    columns="method",
)

# %% tags=["remove-input"]
natural, alike = (
    estimate(both, group=GAP, method=m)
    for m in ("as they come", "at one prevalence")
)
ill = schema.rows(people, metric="net_benefit").set_index("group")
ill = (ill["n_positive"] / ill["n"]).where(ill["value"].notna())
even = both[both["group"].str.contains(" - ")]
even = schema.rows(even, method="at one prevalence")
say(f"""
{percent(ill.get(ONE), 1)} of the {readable(ONE)} and
{percent(ill.get(OTHER), 1)} of the {readable(OTHER)} are ill. As they come,
{readable(GAP)} is {natural}; at one prevalence of {percent(prevalence, 1)} it
is {alike} (the interval {alike.lies}). Of the differences at one prevalence,
{lying(even, "around")} have an interval that includes 0.

Both columns are true. The first says what happens in this hospital; the second
how well each group is served. One without the other misleads.
""")

# %% [markdown]
# ## Move the threshold
#
# Each risk on the slider stands for a price. Move it and read, group by group,
# who is missed and who is alarmed. The curves are at one prevalence, so that
# no group looks worse for being healthier.

# %% tags=["hide-input"]
MORE = [0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4]
by_group = net_benefit.curves(
    schema.rows(risk, model=first),
    sorted({*MORE, round(at, 4)}),
    GROUPS,
    metrics=(*net_benefit.DEFAULT, "all_alarmed"),
    **same,
)
by_group = schema.rows(by_group, attribute=list(GROUPS))
plots.decision_curves(schema.rows(by_group, attribute=main))
figure(
    "fig-benefit-groups",
    f"Decision curves of {first} by group, at one prevalence of "
    f"{percent(prevalence, 1)}, with 95 % intervals.",
)

# %% tags=["remove-input"]
interactive.decisions(
    schema.rows(by_group, metric=list(net_benefit.DEFAULT)),
    "Explore: who pays when the threshold moves",
    start=at,
)

# %% [markdown]
# ## Two models, the same patients
#
# *phantom-resnet-underreport* learned from reports that leave out most of the
# findings of women. Here it is beside the first of the other small CLIPs, on
# the same patients and at the same price.

# %% tags=["remove-input"]
models_apart = counted[counted["model"].str.contains(" - ")]
models_apart = schema.rows(models_apart, attribute="sex")
lost, men, more = (
    estimate(models_apart, group=g, metric="net_benefit")
    for g in ("F", "M", "F - M")
)
unseen = estimate(models_apart, group="F", metric="missed_cases")
men_too = "and so do men" if men.side == "below" else "and men may too"
verdict = {
    ("below", "below"): "women pay for the silent reports, and more than men",
    ("below", "around"): f"women pay for the silent reports, {men_too}",
}.get((lost.side, more.side), "no harm to women is shown, beyond chance")
if lost.side == "undefined":
    verdict = "this run has no two such models to compare"
here = f"""Against {" ".join(others[:1])}, missed cases change by {unseen} per
thousand women, and net benefit by {lost} (the interval {lost.lies}); in men by
{men} (the interval {men.lies}). Women minus men, that is {more} (the interval
{more.lies}). """
say(f"""
{here * bool(len(models_apart))}**At this price, {verdict}.**
""")

# %% [markdown]
# ## Five rules, one price
#
# The price is fixed; the rule is not. Five ways to set thresholds, all fitted
# on the validation patients, all judged at the same price:
#
# - *common threshold*: a device with one threshold, set for a specificity;
# - *threshold per group*: the same specificity in each group;
# - *harm ratio*: the risk above $t$, one Platt scale for all;
# - *harm ratio, per group*: the same, a scale for each group;
# - *equalised odds* {cite:p}`hardt2016`: equal sensitivity and equal
#   specificity, by thresholds and, where needed, by lot.

# %%
ODDS, OWN = policies.ODDS, policies.OWN_RISK
only = {"model": first, main: [ONE, OTHER]}
own = policies.decided(
    schema.rows(applied, **only),
    schema.rows(fitted, **only),
    main,
    harm_ratio,
    specificity,
)
rules = schema.results([])
if len(own):  # each group has validation patients of both kinds
    apart = {"method": [(ODDS, OWN)], main: [(ONE, OTHER)]}
    rules = net_benefit.table(
        own, harm_ratio, {main: [ONE, OTHER]}, between=apart, **careful
    )
rules = schema.rows(rules, attribute=main)

# %% tags=["hide-input"]
single = schema.rows(rules, method=list(policies.POLICIES))
for metric in net_benefit.DEFAULT:
    what = readable(metric)
    what = f"{what[0].upper()}{what[1:]}, by {first} and five rules"
    of_one = schema.rows(single, metric=metric)
    show(of_one, what, digits=1, rows="method", columns="group")

# %% tags=["remove-input"]
worth = schema.rows(single, metric="net_benefit").dropna(subset="value")
worth = worth.sort_values("value").groupby("group")["method"].last()
swap = {
    g: estimate(rules, metric="net_benefit", method=f"{ODDS} - {OWN}", group=g)
    for g in (ONE, OTHER)
}
say(f"""
By the estimates, the best rule for the {readable(ONE)} is
*{worth.get(ONE, "undefined")}* and for the {readable(OTHER)}
*{worth.get(OTHER, "undefined")}*. From risks that hold in each group to
equalised odds, net benefit changes by {swap[ONE]} in the {readable(ONE)} and
by {swap[OTHER]} in the {readable(OTHER)}. A fixed threshold may be far from
what the price asks for, and no fairness rule mends that.
""")

# %% [markdown]
# ## A case in which fairness harms the worst off
#
# Now a case of which everything is known. Two groups, planted: in the *faint*
# one few are ill, and it is hard to see; in the *clear* one more are, and it
# is easy. Scores are normal, risks are exact. Nobody is wronged by labels or
# by a bad scale. Gain and loss are those of a group's own patients.

# %%
# share of the ill, distance of ill and healthy scores, share of patients
PLANTED = {"faint": (0.05, 0.8, 0.25), "clear": (0.15, 2.5, 0.75)}
decided = policies.planted(PLANTED, harm_ratio, seed)
planted = net_benefit.table(
    decided,
    harm_ratio,
    ["kind"],
    between={"method": [(ODDS, OWN)]},
    metrics=(*net_benefit.DEFAULT, "standardised_net_benefit"),
)
planted = schema.rows(planted, attribute="kind")
odds = decided.groupby(["method", "y_true", "kind"])["score"].mean().unstack()
unequal = (odds["faint"] - odds["clear"]).abs().groupby("method").max()

# %% tags=["hide-input"]
show(
    planted[planted["metric"] != "standardised_net_benefit"],
    "The planted case, per thousand",
    digits=1,
    rows=["metric", "group"],
    columns="method",
)

# %% tags=["remove-input"]
change = schema.rows(planted, method=f"{ODDS} - {OWN}")
share = schema.rows(planted, metric="standardised_net_benefit", method=OWN)
worst = share.loc[share["value"].idxmin(), "group"]
pays = {g: estimate(change, group=g, metric="net_benefit") for g in PLANTED}
truth = policies.planted_truth(PLANTED, harm_ratio)


def by_formula(group, method=ODDS):
    """Change from exact risks, in an endless sample."""
    return fmt(truth[method, group] - truth[OWN, group], 1, True)


own_of_worst, odds_of_worst = (
    estimate(planted, group=worst, metric="net_benefit", method=m)
    for m in (OWN, ODDS)
)
loses = {
    "below": "**the group that was worst off loses**",
    "above": "the group that was worst off gains",
}.get(pays[worst].side, "the worst off are as they were")
say(f"""
The larger of the gaps in sensitivity and specificity falls from
{fmt(unequal[OWN])} to {fmt(unequal[ODDS])}: equalised odds does what it
promises. And {loses}: the *{worst}* one, by its share of the best net benefit.
Its own goes from {own_of_worst} to {odds_of_worst} per thousand; at 0 the
software might as well be off.

The change is {pays["faint"]} in the faint (by the formula,
{by_formula("faint")}) and {pays["clear"]} in the clear (by the formula,
{by_formula("clear")}). The rule was fitted on a sample and misses the formula,
since thresholds near its optimum do almost equally well. It seeks the best
balanced accuracy, which has a price of its own; the equal odds that are best
for all *at this price* change the faint by
{by_formula("faint", policies.BEST_ODDS)}.

This is no accident of the numbers. Where risks hold in each group, an alarm
above $t$ is the best that can be done for *every* group at that price; any
other rule can only cost {{cite:p}}`corbettdavies2023`. In a study of statins,
training for fairness gave no group more net benefit {{cite:p}}`pfohl2022`.
Where risks do *not* hold, or labels are wrong, equal odds may help: compare
the five rules above.
""")

# %% [markdown]
# ## Do the intervals hold the truth?
#
# *Recorded* by `benchmarks/net_benefit.py`: normal scores, two films of each
# patient, the truth by a formula.

# %% tags=["remove-input"]
recorded = net_benefit.recorded()
of_groups = recorded[recorded["what"].str.startswith("A - B")]
ENOUGH = 30
enough = of_groups[of_groups["events"] >= ENOUGH]
fewer = of_groups[of_groups["events"] < ENOUGH]
nb = enough[enough["metric"] == "net_benefit"]
counts = enough[enough["metric"] != "net_benefit"]
low = recorded.loc[recorded["coverage"].idxmin()]
where = f"{readable(low['metric'])}, {low['what']}, {low['events']} ill films"
say(f"""
On {recorded["date"].max()}, {words.count(recorded["n_studies"].min())} studies
of each design: with {ENOUGH} ill films or more in each group, 95 % intervals
of the difference in net benefit between groups hold it in
{span(nb["coverage"], percent, digits=1)} of the studies. Those of missed cases
and false alarms do in {span(counts["coverage"], percent, digits=1)}; all of
them, with fewer ill, in {span(fewer["coverage"], percent, digits=1)}. The
least of all is {percent(low["coverage"], 1)} ({where}). Where a handful is
missed, no symmetric interval fits; where nobody is, the book shows none.
""")

# %% [markdown]
# ## Limits
#
# - A price is a value. It may differ between groups for good reasons, and
#   between those who send patients home and those who are sent.
# - A false alarm costs what follows it. A second look is one thing, a drain
#   another.
# - Scale and thresholds come from patients of the same hospital, the best
#   case. Intervals treat them as given, as those of a device are.
# - At one prevalence, sensitivity and specificity are taken along unchanged.
#   Where illness is also milder in the healthier group, they would not be.

# %% tags=["remove-input"]
pay = {
    "above": f"more of the {readable(ONE)} are missed",
    "below": f"more of the {readable(OTHER)} are missed",
    "undefined": "missed cases cannot be compared",
}.get(missed[GAP].side, "no difference in missed cases is shown")
in_short(
    f"""
A missed {readable(LABEL).lower()} as bad as {harm_ratio:g} false alarms
means an alarm above a risk of {percent(at, 1)}. Of a thousand
{readable(ONE)}, {first} then misses {missed[ONE]:value} and alarms
{alarmed[ONE]:value} for nothing; of a thousand {readable(OTHER)},
{missed[OTHER]:value} and {alarmed[OTHER]:value}: {pay}. Net benefit counts
found cases, less false alarms at that price; at one prevalence it differs by
{alike} per thousand ({readable(GAP)}). After training on reports that are
silent on women: {verdict}. In a planted case, equalised odds brings the larger
gap in sensitivity and specificity from {fmt(unequal[OWN])} to
{fmt(unequal[ODDS])}, and the net benefit of the worst off changes by
{pays[worst]} per thousand. Paper S stops before decisions.
""",
    figure="fig-benefit-icons",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-benefit-price
# A ward says: "we can look at forty films to find one case". Which harm ratio
# and which threshold is that, if a look is all that an alarm costs? Run the
# chapter with it. Is the model still better than an alarm for all?
# ```
#
# ```{solution} ex-benefit-price
# :class: dropdown
# Forty looks for one case are 39 false alarms and one found: `harm_ratio=39`,
# an alarm from 2.5 % on. Near the left end of the decision curves, models and
# an alarm for all lie close together. The answer may well be: look at all.
# ```
#
# ```{exercise}
# :label: ex-benefit-healthier
# Group A: 5 % ill, sensitivity 0.9, specificity 0.9. Group B: 20 % ill,
# sensitivity 0.7, specificity 0.8. Which has the higher net benefit at a harm
# ratio of 9? Which at one prevalence of 10 %?
# ```
#
# ```{solution} ex-benefit-healthier
# :class: dropdown
# As they come, A has $45 - 95/9 = 34$ per 1,000 and B $140 - 160/9 = 122$. At
# 10 %, A has $90 - 90/9 = 80$ and B $70 - 180/9 = 50$. B gains more and is
# served worse.
# ```
#
# ## Further reading
#
# - {cite:t}`vickers2019`, a guide to decision curves for clinicians.
# - {cite:t}`kerr2016` on standardised net benefit, and on misreadings.
# - {cite:t}`corbettdavies2023` on what fairness rules do to those they are
#   meant to protect.
