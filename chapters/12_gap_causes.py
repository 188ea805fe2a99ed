# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - match two groups on what they are made of, and say what it cannot mend
#     - take a gap apart with counterfactual twins
#     - say why AUC can miss that a group is underdiagnosed
#     needs:
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # Where a gap comes from
#
# *Deepens section 3.1 of {cite:t}`sourget2025`, paper S: it reports gaps
# between groups and leaves their causes open.*
#
# A hospital learns that its model ranks the films of old patients less well.
# One colleague says: the model is unfair, replace it. Another: old people have
# more to see on a film, nothing can be done. A third: their films were taken
# lying down, mend that. Each would spend the money on something else.
#
# Real films cannot settle it, for nobody can take a patient's years away and
# leave all the rest. On phantoms one can. **Four possible causes of a gap,
# most of them planted on purpose: which does an audit find, and how are they
# told apart?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort and of the resamples
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
specificity: float = 0.8  # (0, 1) at the operating point, over all patients
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# The cohort is that of [chapter 4](04_subgroup_fairness). Real data serve for
# the next section only: what is planted is planted in phantoms, and from
# there on the chapter draws its own.

# %% tags=["hide-input"]
from dataclasses import replace
from functools import partial

import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import phantom
from cxrlib.models import load_models
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import estimate, fmt, judged, listed, percent, sides
from cxrlib.stats import fairness

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
first = clips[0].name
warn_if_seeded([clip.name for clip in clips], data)

cohort = cohorts.study(
    data, n_images, seed, options, preprocessing=chosen.preprocessing
)
planted = cohort
if not cohort.planted:
    planted = cohorts.load("phantom", n_images=n_images, seed=seed)
beside_twins = partial(
    zeroshot.beside_twins,
    planted,
    model=clips[0],
    negative=chosen.negative_prompt,
)
sampling = {"n_resamples": n_resamples, "seed": seed}
sampling["protocol"] = chosen.cautious  # no gap of a group with few cases
auc = sampling | {"metrics": "auc"}
sensitivity = sampling | {"metrics": "sensitivity"}

# %% [markdown]
# ## Is it the group, or what it is made of?
#
# Groups differ in more than their name: how often they are ill, how old they
# are, whether they are filmed standing (PA) or lying (AP). Weighting the
# images so that every group has the same mix says how much of a gap these
# differences carry. It corrects for what is measured, and for nothing else.

# %%
MIXES = {
    "nothing": None,
    "prevalence": "prevalence",
    "prevalence and view position": ("prevalence", "view"),
    "prevalence and age": ("prevalence", "age_group"),
}
one = zeroshot.predict(
    cohort, clips[:1], cohort.findings, negative=chosen.negative_prompt
).merge(cohort.table[["image_id", "sex", "age_group", "view"]])
matched = pd.concat(
    fairness.gap_table(one, "sex", [("F", "M")], match=mix, **sampling).assign(
        method=f"matched on {name}"
    )
    for name, mix in MIXES.items()
)
matched = schema.rows(matched, label="mean")
show(
    matched,
    f"Gap of {first}, women minus men, mean over findings",
    rows="method",
    columns="metric",
)

# %% tags=["remove-input"]
raw, by_age = (
    estimate(matched, metric="auc", method=f"matched on {mix}")
    for mix in ("nothing", "prevalence and age")
)
ages = planted.table.groupby("sex")["age"].mean()
say(f"""
The raw gap between women and men in AUC is {raw}; among women and men of the
same mix of ages it is {by_age}, and the interval {by_age.lies}. Age matters
here as far as the two differ in it: among the phantoms, women are
{ages["F"]:.1f} and men {ages["M"]:.1f} years old on average, and the years
have a dial of their own.
""")

# %% [markdown]
# Matching is what an audit of real films can do. It needs the cause to be
# recorded, and enough patients in every stratum; who has no counterpart in the
# other group gets no weight.
#
# ## The dial
#
# How well the findings of a phantom stand out is multiplied by a known factor,
# group by group (all of them are in the fold). The audit knows nothing of it.

# %% tags=["hide-cell"]
contrast = planted.recipe["dials"]["contrast"]
dial = pd.DataFrame(
    [
        (attribute, group, contrast.get(attribute, {}).get(group, 1.0))
        for attribute in ("age_group", "sex", "site")
        for group in sorted(planted.table[attribute].unique())
    ],
    columns=["attribute", "group", "contrast of findings"],
)
show(dial, "The planted dial, as set in this run")
factor = dict(zip(dial["group"], dial["contrast of findings"], strict=True))

# %% [markdown]
# Turn the factors for age off and draw *the same patients* again, alike in
# everything else down to the grain. These images are counterfactual *twins*.
# What the dial did to the AUC of a group is then no estimate between different
# people; it is the difference between each film and its twin.
#
# ## Part 1: age
#
# Chapter 4 turned the dial for age off and watched one gap between two groups.
# Here is what it did in every group, each film beside its twin: the recorded
# truth that an audit should find.

# %%
OFF = "age restored"
others = {a: of for a, of in contrast.items() if a != "age_group"}
alike = phantom.twin(planted, contrast=others)
age = beside_twins({OFF: alike}, attributes=["age_group"])
truth = fairness.model_gap_table(
    age, [("as drawn", OFF)], attributes=("age_group",), **auc
)
truth = schema.rows(truth, label="mean", attribute="age_group")

# %% tags=["hide-input"]
plots.gap_forest(truth)
figure(
    "fig-subgroup-age-truth",
    f"The recorded truth of the age dial: mean AUC of {first} as drawn minus "
    "that of the twins, by age group. Left of 0, the dial does harm.",
)

# %% tags=["remove-input"]
moved = {g: estimate(truth, group=g) for g in truth["group"] if factor[g] != 1}
still = [g for g in truth["group"] if g not in moved]
moves = listed((f"{x} at {g}" for g, x in moved.items()), none="nothing")
say(f"""
The dial moves mean AUC by {moves}. In the groups that it leaves alone
({listed(still)}), the twins are the same images, and nothing changes.
""")

# %% [markdown]
# Now the audit, which sees the films and not the dial, and which compares two
# groups of different people.

# %%
bands = ["25-50", "65-80"]
age_gaps = fairness.gap_table(
    age, "age_group", [("65-80", "25-50")], groups=bands, **auc
)

# %% tags=["remove-input"]
on = estimate(age_gaps, label="mean", model="as drawn")
off = estimate(age_gaps, label="mean", model=OFF)
old, young = factor["65-80"], factor["25-50"]
age_verdict = judged("age", on, off, old - young)
say(f"""
Between 65–80 and 25–50, whose factors are {old:g} and {young:g}, the audit
sees {on} (the interval {on.lies}); with the dial off, it is {off} between the
same people (the interval {off.lies}). **{age_verdict}.** The observed gap is
exactly the sum of what the dial did and of what it did not.
""")

# %% [markdown]
# ## Part 2: sex
#
# A gap by sex can have other causes than a dial for sex. The drawing of the
# female body may cover findings. Women and men among the phantoms differ in
# age, so that the age dial can work in disguise. They differ by chance in
# which findings they have and how severe these are.
#
# Twins tell these apart, one step at a time. First all contrast factors are
# turned off. Then everybody is also drawn with the anatomy that the renderer
# gives to men.

# %%
RESTORED, PLAIN = "contrast restored", "one anatomy too"
as_men = replace(planted, table=planted.table.assign(sex="M"))
restored = phantom.twin(planted, contrast={})
plain = phantom.twin(as_men, contrast={})
steps = beside_twins({RESTORED: restored, PLAIN: plain}, attributes=["sex"])
sex_gaps = fairness.gap_table(steps, "sex", [("F", "M")], **auc)
show(
    sex_gaps,
    f"Gap in AUC of {first}, women minus men, drawn in three ways",
    rows="label",
    columns="model",
)

# %%
one_by_one = [("as drawn", RESTORED), (RESTORED, PLAIN)]
causes = fairness.model_gap_table(
    steps, one_by_one, attributes=("sex",), **auc
)
causes = schema.rows(causes, label="mean", attribute="sex")
show(
    causes,
    f"What each step does to mean AUC of {first}, on the same films",
    rows="group",
    columns="model",
)

# %% tags=["remove-input"]
drawn, restored, plain = (
    estimate(sex_gaps, label="mean", model=model)
    for model in ("as drawn", RESTORED, PLAIN)
)
dials, anatomy = (" - ".join(step) for step in one_by_one)
women, men = (estimate(causes, model=dials, group=g) for g in "FM")
body = estimate(causes, model=anatomy, group="F")
sex_verdict = judged("sex", drawn, restored, factor["F"] - factor["M"])
say(f"""
The dial for sex stands at {factor["F"]:g} for women and at {factor["M"]:g} for
men. As drawn, the gap is {drawn} in mean AUC; its interval {drawn.lies}. The
contrast factors, those for age among them, move the mean AUC of women by
{women} and that of men by {men}. Without them the gap is {restored}.
**{sex_verdict}.**

The AUC of women minus that of the same women with a man's anatomy is {body};
its interval {body.lies}. Below 0, the female anatomy, as drawn here, would
hide findings.

So the observed gap comes in three parts:
{fmt(drawn.value - restored.value, 3, True)} goes back to the contrast factors,
{fmt(restored.value - plain.value, 3, True)} to the drawing of the body, and
{plain} to neither (the interval {plain.lies}). That remainder is stated, not
explained. What is left in it are the findings that occur together, their
severity, view positions, and the luck of this draw.
""")

# %% [markdown]
# ## Part 3: race and site
#
# Race changes nothing in the body of a phantom. It decides *where* a patient
# is likely to be imaged, and each site's scanner leaves a signature. If a gap
# by race arises in the images, it comes by way of the site. The twins are
# drawn as if all scanners were alike.

# %%
ALIKE = "scanners alike"
others = {a: of for a, of in contrast.items() if a != "site"}
alike = phantom.twin(planted, site_signature=0.0, contrast=others)
place = beside_twins({ALIKE: alike}, attributes=["site", "race"])
place_gaps = pd.concat(
    fairness.gap_table(place, attribute, reference=reference, **auc)
    for attribute, reference in {"site": "A", "race": "White"}.items()
)
place_gaps = schema.rows(place_gaps, label="mean")
show(
    place_gaps,
    f"Gaps in mean AUC of {first} by site and by race",
    rows=["attribute", "group"],
    columns="model",
)

# %%
signature = fairness.model_gap_table(
    place, [("as drawn", ALIKE)], attributes=("site", "race"), **auc
)
signature = schema.rows(signature, label="mean", attribute=["site", "race"])
show(
    signature,
    f"What the signatures do to mean AUC of {first}, on the same films",
    rows=["attribute", "group"],
    columns="model",
)

# %% tags=["remove-input"]
own_site = planted.recipe["dials"]["site_by_race"]
site = schema.rows(signature, attribute="site")
shifts = listed(f"{estimate(site, group=g)} at {g}" for g in site["group"])
race = schema.rows(place_gaps, attribute="race")
lie = {
    (attribute, model): sides(rows, "gaps")
    for (attribute, model), rows in place_gaps.groupby(["attribute", "model"])
}
size = race["value"].abs().groupby(race["model"]).max()
say(f"""
A share of {percent(own_site)} goes to the site that most patients of the same
race go to, the others anywhere. The signatures change mean AUC by {shifts}
(the scanner of A is the one that all get in the twins).

Of the gaps between sites, as drawn, the interval lies
{lie["site", "as drawn"]}; of those between races {lie["race", "as drawn"]}.
The largest gap by race is {size["as drawn"]:.3f} as drawn and
{size[ALIKE]:.3f} with the scanners alike.

The second number deserves a long look. With the scanners alike, race has *no*
way into the image: what is left is not bias of any kind, it is which patients
happen to be in a small group. Here the interval lies {lie["race", ALIKE]}. A
gap of that size in a real study of this size would be no news.
""")

# %% [markdown]
# ## Part 4: the silent reports
#
# The last bias sits not in the images but in the reports that a model learned
# from. One model, `phantom-resnet-underreport`, was trained on reports that
# leave out most of the findings of women (its card, in the table of the
# chapter on [zero-shot classification](02_zero_shot), says how many). What
# does an audit see?

# %%
predictions = zeroshot.predict(
    planted, clips, planted.findings, negative=chosen.negative_prompt
).merge(planted.table[["image_id", "sex"]])
auc_gaps = fairness.gap_table(predictions, "sex", [("F", "M")], **auc)
auc_gaps = schema.rows(auc_gaps, label="mean")
show(auc_gaps, "Gap in mean AUC", rows="model", columns="group")

# %% tags=["remove-input"]
quiz(
    "Suppose a model lowers the scores of all women by the same amount, ill "
    "and healthy alike. What happens?",
    {
        "AUC among women falls.": (
            False,
            "AUC only asks whether an ill woman scores higher than a healthy "
            "one. A common shift moves both.",
        ),
        "AUC among women stays, but more of the ill are missed.": (
            True,
            "The order within women is untouched; the one threshold for all "
            "is not lowered for them. The next cells count who is missed.",
        ),
        "Nothing that matters: the order is right.": (
            False,
            "The order within women is right. But whoever is called back is "
            "chosen by a threshold that women and men share.",
        ),
    },
)

# %% [markdown]
# AUC compares women with women and men with men. If all scores of women are
# too low, ill and healthy alike, their order does not change and neither does
# the AUC. But a clinic has *one* threshold. Here it is set, finding by
# finding, where the wanted share of healthy images is called healthy over all
# patients together. Then we count the ill who are found.

# %%
decided = fairness.decide(predictions, specificity)
rates = fairness.performance_table(
    decided, ("sensitivity", "specificity"), ("sex",), **sampling
)
rates = schema.rows(rates, label="mean", attribute="sex")
show(
    rates,
    "Mean sensitivity and specificity at one common operating point",
    rows=["model", "group"],
    columns="metric",
)

# %% tags=["hide-input"]
found = schema.rows(rates, metric="sensitivity")
plots.bars(found, x="model", hue="group", baseline=0)
figure(
    "fig-subgroup-sensitivity",
    "Sensitivity for women and men at one threshold for all, mean over "
    "findings. What is missing to 1 is underdiagnosis.",
)

# %%
missed = fairness.gap_table(decided, "sex", [("F", "M")], **sensitivity)
missed = schema.rows(missed, label="mean")
show(missed, "Gap in mean sensitivity", rows="model", columns="group")

# %% [markdown]
# Models differ in more than the reports that they read. So the silently
# trained one is set beside the one that read complete reports, film by film.

# %%
FULL, SILENT = "phantom-resnet", "phantom-resnet-underreport"
pair = [(SILENT, FULL)] if {FULL, SILENT} <= set(decided["model"]) else []
change = fairness.model_gap_table(
    decided, pair, attributes=("sex",), **sensitivity
)
change = schema.rows(change, label="mean", attribute="sex")

# %% tags=["remove-input"]
ranked, gap = (estimate(t, model=SILENT) for t in (auc_gaps, missed))
women, men = (estimate(change, group=g) for g in "FM")
seen = {g: estimate(found, model=SILENT, group=g) for g in "FM"}
complete = estimate(missed, model=FULL)
silent_verdict = judged("the silent reports", gap, complete, -1)
silenced = planted.recipe["dials"]["underreport"]
labels = "not complete in this run either" if silenced else "complete"
say(f"""
The test labels of the phantoms are {labels}. The gap of the silently trained
model in mean AUC is {ranked}; the interval {ranked.lies}. At the common
operating point (specificity {percent(specificity)}), its gap in sensitivity is
{gap}, and the interval {gap.lies}: it finds a share of {seen["F"]} of what
women have and of {seen["M"]} of what men have. The gap of the model trained on
complete reports is {complete}.

On the same films, paired, the silent reports changed the sensitivity by
{women} in women and by {men} in men. (The two are coupled: if the scores of
women fall, the common threshold falls with them, and more men lie above it.)
**{silent_verdict}.**
""")

# %% [markdown]
# ### What underdiagnosis means
#
# A false alarm costs a second look. A missed finding sends a patient home.
# When a model reads films before anyone else does, a group with lower
# sensitivity waits longer and comes back sicker, and nobody sees why, since
# the healthy-looking report is the one that is not checked. Large models of
# chest films underdiagnose the very groups that medicine already underserves
# {cite:p}`seyyedkalantari2021`, vision-language models among them
# {cite:p}`yang2025`. A model learns it from reports that were written by
# people.
#
# So an audit reports both: how well patients are ranked (AUC), and who is
# missed at the threshold that is used.
#
# ## What was planted, and was it found?
#
# The four parts in one table: what the phantoms were built with, what an audit
# saw that knew nothing of it, and whether the two agree.

# %% tags=["hide-input"]
by_place = f"The interval lies {lie['race', 'as drawn']} as drawn, "
by_place += f"{lie['race', ALIKE]} with the scanners alike."
largest = f"up to {size['as drawn']:.3f}"
parts = [
    ("findings by age", str(on), f"{age_verdict}."),
    ("findings by sex", str(drawn), f"{sex_verdict}."),
    ("race, only by way of the scanner", largest, by_place),
    ("reports silent on women", str(gap), f"{silent_verdict}."),
]
show(
    pd.DataFrame(parts, columns=["planted", "gap in the audit", "found?"]),
    "Planted truths and the audit: gaps in mean AUC (65–80 minus 25–50; "
    "women minus men; the largest by race) and, for the reports, in mean "
    "sensitivity (women minus men)",
)

# %% tags=["remove-input"]
verdicts = [age_verdict, sex_verdict, silent_verdict]
effects = [v for v in verdicts if "planted effect" in v and "cannot" not in v]
n_found = sum("is found" in verdict for verdict in effects)
hidden = "is found" in silent_verdict and ranked.side != "below"
alone = "AUC alone does not show the last of them. " if hidden else ""
say(f"""
In this run, {len(effects)} effects were planted and can be judged, of which
the audit finds {n_found}. {alone}A bias that an audit finds in a phantom is no
news. That it says what is there, stays quiet about what is not, and shows
which of the two it did: this is what makes it worth asking about real films.
""")

# %% [markdown]
# ## Limits
#
# - Matching corrects for what is recorded. Whoever matches on something that
#   the group itself causes takes a part of the gap away that belongs to it.
# - Twins say what a dial does in this renderer and to this model. They do not
#   say that real films hold such a dial, nor that race acts in hospitals by
#   way of scanners alone.
# - The parts of a gap add up because each twin changes one thing after the
#   other. In another order they can have other sizes: chapter
#   {doc}`26_parts_of_a_gap` averages over all orders.
# - The threshold was set on the very patients that it is judged on. A device
#   in use brings its own.

# %% tags=["remove-input"]
in_short(
    f"""
A gap is a question about causes, and only rarely an answer. Of those planted
in phantoms, {len(effects)} can be judged in this run, and the audit finds
{n_found}. The gap in mean AUC between 65–80 and 25–50 is {on}, and {off} with
the dial off. Where reports were silent on women, sensitivity in women minus
men is {gap}, AUC {ranked}. With no way for race to enter the image, gaps
by race of up to {size[ALIKE]:.3f} remain. Paper S reports gaps and cannot name
their causes; on real films alone, nobody can.
""",
    figure="fig-subgroup-age-truth",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-causes-turn
# Turn the planted bias around, as in the exercises of chapter 4. Write down
# beforehand which of the four lines under "What was planted, and was it
# found?" should stay as they are.
# ```
#
# ```{solution} ex-causes-turn
# :class: dropdown
# The lines on race and on the silent reports do not depend on the contrast by
# age or sex and should say the same, if with other digits: the threshold moves
# with everybody's scores.
# ```
#
# ```{exercise}
# :label: ex-subgroup-thresholds
# Give women and men each their own threshold at the wanted specificity. What
# happens to the gap in sensitivity of `phantom-resnet-underreport`? Would you
# do that in a clinic?
# ```
#
# ```{solution} ex-subgroup-thresholds
# :class: dropdown
# `pd.concat([fairness.decide(rows, specificity) for _, rows in
# predictions.groupby("sex")])`, then `fairness.gap_table` as above. Most of
# the gap should go, since the scores of women were shifted more than they were
# blurred. In a clinic it means treating the recorded sex as an input to the
# decision: it needs a reason, a record of it, and a plan for those whose entry
# is missing or wrong. Mending the reports is better.
# ```
#
# ```{exercise}
# :label: ex-subgroup-labels
# The test labels of the phantoms are complete. In practice they are mined from
# the same reports as those of the training. Test `phantom-resnet-underreport`
# against the labels of `phantom.twin(planted, underreport={"sex": {"F":
# 0.65}})`. Which of the two rates still tells the truth?
# ```
#
# ```{solution} ex-subgroup-labels
# :class: dropdown
# Replace `y_true` by the twin's labels. The reports leave out findings at
# random, so those that remain are a fair sample of women's findings: their
# sensitivity is still right, with a wider interval. The specificity of women
# is not: real findings now count as false alarms. If the harder or milder
# findings were left out more often, sensitivity would be wrong as well, and to
# the advantage of the model.
# ```
#
# ## Further reading
#
# - {cite:t}`larrazabal2020`: what happens to women when few women were in the
#   training.
# - {cite:t}`glocker2023`: how a gap between groups can come from their mix of
#   ages and findings, and how to test for it.
# - {cite:t}`yang2025`: the same questions asked of large vision-language
#   models and of radiologists.
