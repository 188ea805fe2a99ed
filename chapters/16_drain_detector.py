# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.3: ''
#       S 3.3: ''
#     goals:
#     - say what each choice behind two arms does to the gap between them
#     - choose the controls that fit a question
#     - judge labels that a detector made, where the thing it looks for is rare
#     needs:
#     - 06_shortcuts
# ---

# %% [markdown]
# # A detector for the controls
#
# *Goes on where [Shortcuts](06_shortcuts) ends: the drain labels of sections
# 2.3 and 3.3 of {cite:t}`sourget2025`, paper S.*
#
# A radiologist writes "drain in place" where it matters, beside the
# pneumothorax it treats. In a patient with pneumonia, the same tube goes
# without saying. So data sets know of drains where the disease is, and little
# where it is not. But those without the disease are the *controls*: they
# decide what a false alarm is, and half of what a gap between films with and
# without a drain rests on. Paper S trains a network to look for drains in
# them. **Which controls should there be, what would labels that a network
# guessed change, and how good are they?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of phantoms, training and resamples
n_images: int = 4000  # [60, 17000] of a phantom; real ones are whole
n_detector: int = 600  # [100, 17000] phantoms to learn from, and to label
epochs: int = 5  # [1, 200] passes of the detector over its films; S: 200
drain_labels: str = "annotated"  # {annotated, predicted} of unlabelled films
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# Cohort, models and arms are those of [Shortcuts](06_shortcuts): films of
# pneumothorax with a device in one arm, without it in the other, and shared
# controls. There, adding a drain to the same film showed which model reads it.
# Here we ask what the arms alone can tell, and on which choices they rest.

# %% tags=["hide-input"]
from dataclasses import replace
from functools import partial

import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import associations
from cxrlib.models import load_models
from cxrlib.predict import drains, zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import (
    count,
    each,
    estimate,
    fmt,
    percent,
    why_undefined,
)
from cxrlib.stats import shortcuts

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
warn_if_seeded([clip.name for clip in clips], data)
cohort = cohorts.study(
    data, n_images, seed, options, preprocessing=chosen.preprocessing
)
if drain_labels == "predicted":
    cohort = drains.stored(cohort)
DEVICE, status = shortcuts.device_status(cohort.table)
GAP = f"with {DEVICE} - without {DEVICE}"
sampling = {"n_resamples": n_resamples, "seed": seed}

# %% [markdown]
# ## Which devices, and in whom?
#
# Where drains are not told apart, a wider label may have to stand in.
# CheXpert {cite:p}`irvin2019` counts support devices of all kinds: tubes,
# lines, pacemakers. They can be set beside every finding. What such a label
# gains in patients it loses in meaning: a pacemaker treats no lung.

# %% tags=["hide-input"]
devices = associations.chexpert_devices()
show(
    schema.wide(devices, "given", "group", digits=3)
    .rename(columns={"with - without": "difference"})
    .rename_axis("finding"),
    "CheXpert, frontal films: share with support devices, with and without "
    "each finding",
)

# %% tags=["remove-input"]
bond = devices[devices["group"] == "with - without"].sort_values("value")
say(f"""
The share of films with a device rises most with one finding,
{each(bond.iloc[[-1]], by="given")}, and rises least, or falls most, with
another, {each(bond.iloc[[0]], by="given")}. So pneumothorax is one of many
findings that could be read from a device, and for some the device would speak
against the disease.
""")

# %% [markdown]
# The bond need not be equally tight in all patients either. Where it differs
# between women and men, or young and old, the harm of a shortcut will differ
# too. PadChest {cite:p}`bustos2020` names the drain itself.

# %% tags=["hide-input"]
devices_of = partial(associations.chexpert_devices, findings=["Pneumothorax"])
groups = pd.concat(
    count_in(by=attribute).assign(source=source)
    for source, count_in in {
        "PadChest, drains": associations.padchest_drains,
        "CheXpert, devices": devices_of,
    }.items()
    for attribute in ("sex", "age_group")
)
show(
    schema.wide(
        groups, ["source", "attribute", "group"], "arm", digits=3
    ).rename(columns={"with - without": "difference"}),
    "Share with a drain or device, with and without pneumothorax, by sex and "
    "age",
)

# %% tags=["remove-input"]
drained = groups[groups["source"].str.contains("drains")]
drained = drained[drained["arm"] == "with"].dropna(subset="value")
drained = drained.sort_values("value")
say(f"""
Of PadChest's patients with pneumothorax, the share with a drain goes over the
groups of sex and age from {each(drained.iloc[[0]], by="group")} to
{each(drained.iloc[[-1]], by="group")}. Their intervals are wide: few images
carry the evidence.
""")

# %% [markdown]
# ## One switch at a time
#
# From the arms as published to the corrected ones it is three steps: patients
# instead of images and expanded intervals, equal prevalence, controls without
# a drain. A paper that changes three things at once cannot say which of them
# mattered; here each step is added to those before, on the same scores.

# %%
asked = {"labels": ["Pneumothorax"], "negative": chosen.negative_prompt}
predictions = zeroshot.predict(cohort, clips, **asked)
predictions = predictions.merge(status[["image_id", DEVICE]])

# %% tags=["hide-input"]
STEPS = {
    "+ patients": ["unit", "interval"],
    "+ equal prevalence": ["drain_prevalence"],
    f"+ controls without {DEVICE}": ["drain_controls"],
}
carries = shortcuts.carriers(status)
published, corrected = shortcuts.arm_protocols(carries)
steps = [published]
for name, switches in STEPS.items():
    turned = {switch: getattr(corrected, switch) for switch in switches}
    steps.append(replace(steps[-1], name=name, **turned))

# %%
stepwise = shortcuts.drain_arms(
    predictions, device=DEVICE, protocols=steps, **sampling
)
stepwise = schema.rows(stepwise, group=GAP, metric="adjusted_auprc")
show(
    stepwise,
    "Gap in adjusted AUPRC, from the arms as published to the corrected ones",
    rows="model",
    columns="protocol",
    digits=3,
)

# %% tags=["remove-input"]
order = [step.name for step in steps]
by_step = stepwise.pivot(index="model", columns="protocol", values="value")
moved = by_step[order].diff(axis=1).stack()
farthest = "none, or the gaps are undefined"
if moved.abs().max() > 0:
    whose, step = moved.abs().idxmax()
    by = fmt(moved[whose, step], 3, signed=True)
    farthest = f"{step.removeprefix('+ ')}, by {by} ({whose})"
width = stepwise["ci_high"] - stepwise["ci_low"]
width = width.groupby(stepwise["protocol"]).mean()
wider = percent(width["+ patients"] / width["as_published"] - 1)
per_patient = len(cohort.table) / cohort.table["patient_id"].nunique()
little = corrected.drain_controls == "any"
say(f"""
The step that moves a gap most is: {farthest}. Resampling patients instead of
images, with expanded intervals, changes the width of intervals by {wider} on
average; this cohort has {per_patient:.1f} images a patient. The more the
prevalences of the arms differ, the more the second step matters:
[Audit](08_audit) computes how much for S.
{"The last step changes nothing: few controls are labelled." if little else ""}
""")

# %% [markdown]
# ## Which controls?
#
# Against controls *without* the device, a model that reads the device finds
# the treated with ease. Against controls that all carry it, it has nothing to
# go by for the treated, and is misled for the untreated. A model that does not
# see the device should not care. So the choice of controls is an experiment of
# its own, and one that any cohort with labelled controls allows. AUC, which
# does not depend on how many controls there are, by three choices:

# %%
choices = [
    replace(chosen, name="controls without", drain_controls="without"),
    replace(chosen, name="all controls", drain_controls="any"),
    replace(chosen, name="controls with", drain_controls="with"),
]
by_controls = shortcuts.drain_arms(
    predictions, device=DEVICE, protocols=choices, **sampling
)
by_controls = schema.rows(by_controls, metric="auc")
show(
    by_controls.replace({GAP: "difference"}),
    f"AUC for pneumothorax by what is known of the controls' {DEVICE}",
    rows=["group", "model"],
    columns="protocol",
)

# %% tags=["hide-input"]
gaps = schema.rows(by_controls, group=GAP)
plots.gap_forest(gaps)
figure(
    "fig-controls-gaps",
    f"Difference in AUC between the arms with and without {DEVICE}, by three "
    "choices of controls. A model that the device does not move lies on the "
    "line, whatever the controls.",
)

# %% tags=["remove-input"]
by_choice = gaps.pivot(index="model", columns="protocol", values="value")
reach = by_choice.max(axis=1) - by_choice.min(axis=1)
reach = reach.where(by_choice.notna().sum(axis=1) > 1).sort_values()
known = reach.index[reach.notna()] if reach.notna().any() else reach.index
most, least = known[-1], known[0]
taught = ", trained where drains give the disease away"
which = f"{most}{taught}" if most.endswith("-drain") else most
say(f"""
The difference that depends most on the choice of controls is that of {which}:
{each(schema.rows(gaps, model=most), by="protocol")}. That of {least} depends
least: it moves by {reach[least]:.3f}. {why_undefined(gaps)}
""")

# %% tags=["remove-input"]
quiz(
    "An emergency department wants to know how many patients a model would "
    "alarm for nothing. Which controls should its test have?",
    {
        "Those without a drain: a clean comparison.": (
            False,
            "Clean, but drained patients without pneumothorax come to the "
            "department too, and a model that reads drains alarms for each.",
        ),
        "All who come, with as many drains as they have there.": (
            True,
            "A false alarm is about the patients whom the model will see. To "
            "find out *why* it alarms, compare controls with and without.",
        ),
        "It does not matter, as AUC does not depend on prevalence.": (
            False,
            "AUC does not depend on how many controls there are, but it does "
            "on which: see the table above.",
        ),
    },
)

# %% [markdown]
# ## The detector
#
# NEATX {cite:p}`cheplygina2025` annotates drains in films with pneumothorax,
# not in controls. So S trains a network, a DenseNet-121, on the annotated
# films to label the others. Its code trains and tests that network on films of
# the very test list that the labels are for, keeps the last epoch, takes 0.5
# as the threshold, and then loses the labels. The corrected form keeps the
# epoch with the best AUC on validation patients, and chooses the threshold
# there.
#
# How far can such labels be trusted? Only where drains are known can anyone
# tell, so from here on this chapter runs on phantoms. The detector learns from
# films of other patients, among which drains are as common without
# pneumothorax as with it. That is an easier lesson than films with
# pneumothorax alone. Then it labels controls whose drains are hidden from it.

# %%
often = {"drain_if_none": 0.5}
taught = cohorts.load(
    "phantom", n_images=n_detector, seed=seed, split="train", dials=often
)
detector = drains.train(  # S: batches of 32, a rate of 1e-4
    taught, protocol, epochs=epochs, batch_size=16, lr=1e-3, seed=seed
)
truth = cohorts.load("phantom", n_images=n_detector, seed=seed)
hidden = drains.hide(truth, truth.table["Pneumothorax"] == 0)
labelled = drains.label(hidden, detector)

# %%
error = drains.label_error(labelled, truth, **sampling)
own = drains.performance(detector, **sampling)
show(
    pd.concat(
        [
            own.assign(group="its own test films"),
            error.assign(group="controls"),
        ]
    ),
    "The drain detector on films like those it learned from, and on controls",
    rows="group",
    columns="metric",
)

# %% tags=["remove-input"]
guess = labelled.table.query("drain_source == 'predicted'")
actual = truth.table.loc[guess.index, "drain"]
called = actual[guess["drain"] == 1]
rates = {m: estimate(error, metric=m) for m in error["metric"]}
say(f"""
The weights are those of epoch {detector.best_epoch}; the threshold is
{detector.threshold:.3f}, by the rule: {detector.rule} (the Youden index is
sensitivity plus specificity minus 1). On the {count(len(guess))} controls its
AUC is {rates["auc"]}, its sensitivity {rates["sensitivity"]} and its
specificity {rates["specificity"]}. But only {count(actual.sum())} of these
controls have a drain, and the rarer a thing is, the more the false alarms
weigh: of the {count(len(called))} controls that the detector calls drained,
{count(called.sum())} ({percent(called.mean())}) are.
""")

# %% [markdown]
# What does this do to the gap between the arms? A drained control that the
# detector overlooks stays among the controls without; a control that it takes
# for drained goes to those with. The same scores, with controls chosen by
# their known and by their predicted drains:

# %% tags=["hide-input"]
scored = zeroshot.predict(truth, clips, **asked)


def gaps_by(labels, source, kinds):
    named = [replace(p, name=f"{p.name}, {labels}") for p in kinds]
    found = scored.merge(source.table[["image_id", "drain"]])
    arms = shortcuts.drain_arms(found, protocols=named, **sampling)
    gap = "with drain - without drain"
    return schema.rows(arms, group=gap, metric="auc")


told_apart = [choices[0], choices[2]]  # without a drain, and with one
by_labels = pd.concat(
    [
        gaps_by("known", truth, choices),
        gaps_by("predicted", labelled, told_apart),
    ]
).sort_values("protocol", kind="stable")
show(
    by_labels,
    "Phantom: difference in AUC between the arms, by known and by predicted "
    "drains of controls",
    rows="protocol",
    columns="model",
    digits=2,
)

# %% tags=["remove-input"]
by_known = by_labels.pivot(index="model", columns="protocol", values="value")
shift = {
    of: by_known[f"controls {of}, predicted"]
    - by_known[f"controls {of}, known"]
    for of in ("without", "with")
}
farthest = {
    of: "an undefined amount"
    if moved.isna().all()
    else f"{fmt(moved[moved.abs().idxmax()], signed=True)} "
    f"({moved.abs().idxmax()})"
    for of, moved in shift.items()
}
say(f"""
Predicted instead of known labels move a difference by at most
{farthest["without"]} with controls without drains, and by at most
{farthest["with"]} with controls that carry one. {drains.provenance(cohort)}
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# Two things are known of a phantom. Whether a model learnt from drains: of
# such a model, the gap should follow the controls, and of the others stay
# where it is. And every drain: so the labels of the detector can be counted
# right or wrong, and the gap by guessed labels set beside the true one.

# %% tags=["remove-input"]
readers = [m for m in reach.dropna().index if m.endswith("-drain")]
follows = (
    f"The gap that follows the controls most is that of {most}, "
    + ("as planted." if most in readers else f"and not of {readers[0]}.")
    if readers
    else "No model that was trained on drains has a gap in this run."
)
auc_of = f"an AUC of {rates['auc']} on controls"
say(f"""
{follows} The detector reaches {auc_of}; of those that it calls drained,
{percent(1 - called.mean())} have no drain.
""")

# %% [markdown]
# ## Limits
#
# - The drains of the phantom resemble each other more than real tubes do, so
#   the detector has an easier time with them, and so have the models.
# - It learned here from films with and without pneumothorax. Trained on films
#   with pneumothorax alone, as NEATX has them, it may take the air for part of
#   the drain.
# - Labels that a network guessed err in a way that goes with the picture. No
#   interval in this chapter knows of that.

# %% tags=["remove-input"]
in_short(
    f"""
A gap between films with and without {DEVICE} rests on its controls. The choice
among three kinds of them moves the gap of {most} by {reach[most]:.2f}, that of
{least} by {reach[least]:.2f}. {follows} Where nobody looked for drains
in controls, a network can look: here it reaches {auc_of}, and of the controls
that it calls drained {percent(called.mean())} are, as drains are rare there.
Paper S describes such a detector; in its code the labels have no effect.
""",
    figure="fig-controls-gaps",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-shortcut-negatives
# The table by controls has three columns. A model reads the drain and nothing
# else. Which AUC would it have in each of the six cells of its two arms?
# ```
#
# ```{solution} ex-shortcut-negatives
# :class: dropdown
# Against controls without a drain: 1 for positives with a drain, one half for
# those without. Against controls with a drain: one half and 0. Against all
# controls, both lie in between, by the share that carries one. The difference
# is one half each time, but it does not mean the same: against drained
# controls the untreated patient is ranked *below* the treated one who has no
# air to find. A shortcut harms by false alarms too, and the choice of controls
# decides whether that is counted.
# ```
#
# ```{exercise}
# :label: ex-shortcut-dial
# Change what is planted: let nine of ten pneumothoraces carry a drain,
# `cxrbook run 16 -p 'options={"dials": {"drain_if_pneumothorax": 0.9}}'`.
# Predict before you run: the prevalence of each arm, which step of the table
# with one switch at a time gains in weight, and what happens to the shift
# between the twins of [Shortcuts](06_shortcuts).
# ```
#
# ```{solution} ex-shortcut-dial
# :class: dropdown
# The arm with drains now has about nine times as many positives as the other,
# against the same controls, so its prevalence is several times as high.
# Adjusted AUPRC rises with prevalence, which favours the drained arm of
# *every* model as long as the arms are compared raw; "equal prevalence" takes
# that away and moves the gaps more than before. The shift between twins stays
# exactly where it was. It is a property of a model, and no model was trained
# anew. Nor does the dose-response curve change: the dial is one point on its
# axis.
# ```
#
# ```{exercise}
# :label: ex-detector-rare
# A detector finds nine of ten drains and takes one undrained film in twenty
# for a drained one. One control in a hundred carries a drain. Of the controls
# that it calls drained, which share is? And if you need the controls *without*
# a drain, does that matter?
# ```
#
# ```{solution} ex-detector-rare
# :class: dropdown
# Of 10,000 controls, 100 have a drain, and 90 of them are called; so are 495
# of the 9,900 others. The share is 90 of 585, or 15 %. For controls without a
# drain it matters little: 10 drained films hide among some 9,400. For controls
# *with* a drain it is a disaster, as most of them have none.
# ```
#
# ## Further reading
#
# - {cite:t}`damgaard2023`: how annotations of tubes by non-experts were made,
#   the ground of NEATX.
# - {cite:t}`cheplygina2025`: NEATX itself.
# - {cite:t}`jimenezsanchez2023`: drains as a shortcut of classifiers for chest
#   radiographs.
