# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals: []
#     needs: []
#     minutes: 30
# ---

# %% [markdown]
# # Shortcuts: the disease, or its treatment?
#
# *Answers section 3.3 of {cite:t}`sourget2025`, paper S, and its Fig. 4a and 4b.*
#
# A pneumothorax is air between lung and chest wall; the treatment is a drain. A film with a drain
# shows a patient who has already been found and treated. A model that reads the drain instead of the
# air looks excellent on a test set and fails the one patient for whom it was bought: the one whom
# nobody has treated yet {cite:p}`oakdenrayner2020,jimenezsanchez2023`.
#
# Paper S compares pneumothorax with drains to pneumothorax without, for six models. This chapter does
# the same, by default for models whose training is known, and then asks the question that real data cannot
# answer: does the score of *the same film* change when only the drain is added?

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models` separated by commas, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "all"}
seed: int = 1907  # seed of the phantom cohort and of the resamples
n_images: int = 4000  # images in the phantom cohort; real cohorts are taken whole
n_twins: int = 1500  # images that are drawn with and without a drain
n_detector: int = 600  # phantom films to teach the drain detector, and as many for it to label
epochs: int = 5  # passes of the detector over its films; S makes 200
n_resamples: int = 500  # bootstrap resamples
protocol: str = "corrected"  # or "as_published": models, arms, resampling and prompt of S

# %% tags=["remove-cell"]
from cxrlib.parameters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, fairness, guard, published, schema, shortcuts, zeroshot
from cxrlib import models as registry
from cxrlib import protocol as protocols
from cxrlib.cohorts import associations, drains, phantom
from cxrlib.notebook import (
    figure,
    fmt,
    fmt_interval,
    fmt_row,
    glue,
    keep,
    percent,
    setup,
    show,
    warn_if_seeded,
    withheld,
)
from cxrlib.plots import dose_response, drain_arms, gap_forest, name

setup()
chosen = protocols.protocol(protocol)
clips = [registry.load(n, chosen) for n in registry.choose(models)]
names = [clip.name for clip in clips]
LABEL = "Pneumothorax"
METRIC_NAMES = {"auc": "AUC", "adjusted_auprc": "adjusted AUPRC"}
resampling = {"n_resamples": n_resamples, "seed": seed, "unit": chosen.unit}
warn_if_seeded(names)


# %% [markdown]
# ## The association is real
#
# A shortcut needs an association to feed on. PadChest is one of the few public sets whose labels name
# the drain. Its table needs no permission.

# %%
padchest = associations.padchest_drains()
show(
    padchest.drop(columns=["outcome", "given", "design_effect"]).rename(
        columns={"group": "pneumothorax", "value": "share", "n": "images"}
    ),
    caption="PadChest: share of images with a chest drain, with and without pneumothorax",
    digits=4,
)

# %% tags=["remove-cell"]
with_, without = padchest.iloc[0], padchest.iloc[1]
glue("p-with", fmt_interval(100 * with_["value"], 100 * with_["ci_low"], 100 * with_["ci_high"], 0))
glue(
    "p-without",
    fmt_interval(100 * without["value"], 100 * without["ci_low"], 100 * without["ci_high"], 2),
)
glue("n-with", int(with_["n_positive"]))
glue("n-ptx", int(with_["n"]))
glue("n-other", int(without["n_positive"]))
glue("odds", fmt(with_["value"] / without["value"], 0))

# %% [markdown]
# Of {glue:text}`n-ptx` images with a pneumothorax, {glue:text}`n-with` show a drain:
# {glue:text}`p-with` %. Among all other images it is {glue:text}`p-without` %. A drain is
# {glue:text}`odds` times as common with pneumothorax as without. Yet {glue:text}`n-other` images have
# the drain and no pneumothorax on record: a drain is evidence, not proof.
#
# CheXpert does not name the drain, but counts support devices of all kinds:

# %%
devices = associations.chexpert_devices()
chexpert = devices[devices["given"] == "Pneumothorax"]
show(
    chexpert.drop(columns=["outcome", "given", "design_effect"]).rename(
        columns={"group": "pneumothorax", "value": "share", "n": "images"}
    ),
    caption="CheXpert, frontal films: share with support devices, with and without pneumothorax",
    digits=4,
)

# %% [markdown]
# Pneumothorax is one of many findings that could be read from a device. And a bond between the two need
# not be the same in all patients; where it differs, so can the harm of the shortcut.


# %% tags=["hide-input"]
def shares(rows, index, arm):
    """Shares with and without the finding, and their difference, as text."""
    cells = rows.assign(share=[fmt_row(row, 3) for _, row in rows.iterrows()])
    cells = cells.pivot(index=index, columns=arm, values="share")
    return cells[["with", "without", "with - without"]].rename(columns=name).rename(index=name)


show(
    shares(devices, "given", "group").rename_axis("finding"),
    caption="CheXpert, frontal films: share with support devices, with and without each finding",
)
groups = pd.concat(
    found(by=attribute).assign(source=source)
    for source, found in {
        "PadChest, drains": associations.padchest_drains,
        "CheXpert, devices": partial(associations.chexpert_devices, findings=[LABEL]),
    }.items()
    for attribute in ("sex", "age_group")
)
show(
    shares(groups, ["source", "attribute", "group"], "arm"),
    caption="Share with a drain or device, with and without pneumothorax, by sex and age",
)

# %% tags=["remove-cell"]
bond = devices[devices["group"] == "with - without"].sort_values("value")
glue("bond-least", f"{bond['given'].iloc[0]} ({fmt_row(bond.iloc[0], signed=True)})")
glue("bond-most", f"{bond['given'].iloc[-1]} ({fmt_row(bond.iloc[-1], signed=True)})")
drained = groups[groups["source"].str.startswith("PadChest") & (groups["arm"] == "with")]
drained = drained[drained["value"].notna()].sort_values("value")
glue("drained-least", f"{name(drained['group'].iloc[0])} ({fmt_row(drained.iloc[0])})")
glue("drained-most", f"{name(drained['group'].iloc[-1])} ({fmt_row(drained.iloc[-1])})")

# %% [markdown]
# Of CheXpert's findings, the share with devices rises least, or falls most, with
# {glue:text}`bond-least`, and rises most with {glue:text}`bond-most`. Of PadChest's patients with
# pneumothorax, the group least often drained is {glue:text}`drained-least`, the one most often
# {glue:text}`drained-most`.

# %% [markdown]
# ## Two arms
#
# S forms two groups that share their negatives, all images without pneumothorax. The positives of one
# arm have a drain, those of the other have none. {glue:text}`device`
#
# Two things deserve a careful reader before any number is read. The arms differ in *prevalence*, and
# adjusted AUPRC does not remove prevalence fully. And the *controls*: the paper labels drains in them by
# a detector, but in its code these labels have no effect, so controls with a drain stay in both arms. The
# corrected form weights the positives of the larger arm so that both arms have the same prevalence,
# keeps only controls labelled as without a drain, and resamples patients instead of images, with
# expanded intervals (chapter {doc}`09_coverage`).

# %%
cohort = cohorts.study(data, n_images, seed, options, preprocessing=chosen.preprocessing)
column = next((c for c in ("drain", "support_devices") if c in cohort.table), "drain")
DEVICE = column.replace("_", " ")
GAP = f"with {DEVICE} - without {DEVICE}"
status = cohort.table.reindex(columns=["image_id", LABEL, column]).rename(columns={column: DEVICE})
carries = pd.crosstab(
    status[LABEL].map({1: "pneumothorax", 0: "controls"}).rename("images"),
    status[DEVICE].map({1: "with", 0: "without"}).fillna("unknown").rename(DEVICE),
).reindex(index=["pneumothorax", "controls"], columns=["with", "without", "unknown"], fill_value=0)
show(carries, caption=f"Images with and without {DEVICE}")

# %% [markdown]
# A pneumothorax whose {glue:text}`device-name` nobody has looked for belongs to neither arm, as in S. A
# control of which nobody knows stays in the arms as published and leaves the corrected ones. But a few
# controls that somebody happened to annotate are no sample of all. So where the status of fewer than
# half of the controls is known, the corrected arms keep every control too. {glue:text}`controls-used`

# %%
corrected = protocols.protocol("corrected")
of_controls = carries.loc["controls"] / carries.loc["controls"].sum()
mostly_known = of_controls["unknown"] <= 0.5
if not mostly_known:
    corrected = replace(corrected, drain_controls="any")
pair = [protocols.protocol("as_published"), corrected]
predictions = zeroshot.predict(cohort, clips, [LABEL], negative=chosen.negative_prompt)
predictions = predictions.merge(status[["image_id", DEVICE]], on="image_id")
resampled = {"device": DEVICE, "n_resamples": n_resamples, "seed": seed}
arms = shortcuts.drain_arms(predictions, protocols=pair, **resampled)
keep(arms)
ours = arms[arms["protocol"] == chosen.name]
show(
    schema.wide(ours, index=["model", "metric"], columns="group").rename(
        columns={GAP: "difference"}, index=METRIC_NAMES
    ),
    caption=f"Zero-shot pneumothorax with and without {DEVICE}, {name(chosen.name)}",
)

# %% tags=["remove-cell"]
if cohort.planted:
    share = cohort.recipe["dials"]["drain_if_pneumothorax"]
    of_device = (
        f"Our test cohort is drawn so that {percent(share)} of the pneumothorax images have one."
    )
elif status[DEVICE].isna().all():
    of_device = "In this cohort nobody has looked for drains, so that there are no arms."
elif column == "drain":
    of_device = (
        "In this cohort, drains are as annotated, or as a detector predicted them where the options "
        "of this run ask for it."
    )
else:
    of_device = (
        "This cohort does not name drains. Here the device is any support device that its labels "
        "name, of which a drain is one kind; S printed no such analysis to compare with."
    )
glue("device", of_device)
glue("device-name", DEVICE)
glue(
    "controls-used",
    f"Here it is unknown of {percent(of_controls['unknown'])} of the controls, so the corrected arms "
    + (f"have the controls labelled as without {DEVICE}." if mostly_known else "keep all of them."),
)

# %% tags=["hide-input"]
fig = drain_arms(ours, protocol=chosen.name)
figure(
    "fig-shortcut-arms",
    caption="Adjusted AUPRC of zero-shot pneumothorax in the two arms (S, Fig. 4b).",
    alt="Bars of adjusted AUPRC for each model, with and without the device, with interval whiskers.",
)

# %% tags=["remove-cell"]
gap = ours[(ours["group"] == GAP) & (ours["metric"] == "adjusted_auprc")]
gap = gap.set_index("model")
biased = [m for m in names if m.endswith("-drain")]
fair = [m for m in names if m in registry.names() and m not in biased]
foreign = [m for m in names if m not in registry.names()]


def of_foreign(text):
    """A sentence on models that were not trained in this book; nothing where none was run."""
    found = "; ".join(map(text, foreign))
    return (
        f" Whether the training of the other models had the association is not known: {found}."
        if foreign
        else ""
    )


def reason(row):
    """Why a number is missing, without what holds for all numbers of the table."""
    return row["note"].split(f"; {shortcuts.MATCHED}")[0]


def sentence(model):
    row = gap.loc[model]
    if schema.side(row) == "undefined":
        return f"{model}: {fmt_row(row, signed=True)} ({reason(row)})"
    where = "includes 0" if schema.side(row) == "around" else "excludes 0"
    return f"{model}: {fmt_row(row, signed=True)}, which {where}"


glue("gap-biased", "; ".join(map(sentence, biased)) or "no drain-biased model was run")
glue("gap-fair", "; ".join(map(sentence, fair)) or "no unbiased model was run")
glue("gap-foreign", of_foreign(sentence))
if gap.loc[[*biased, *fair], "value"].isna().any():
    glue("gap-order", "some are undefined, so that there is no order")
elif biased and fair:
    smaller = gap.loc[fair, "value"].max() < gap.loc[biased, "value"].min()
    glue(
        "gap-order",
        "every one of them is smaller than that of the biased model"
        if smaller
        else "not all of them are smaller than that of the biased model",
    )
else:
    glue("gap-order", "there is nothing to compare with in this run")

# %% [markdown]
# One of the small CLIPs was trained where the drain stands for the disease. Its gap in adjusted AUPRC,
# with minus without {glue:text}`device-name`, is: {glue:text}`gap-biased`.
#
# The other small CLIPs were trained where drains are independent of pneumothorax. Their gaps:
# {glue:text}`gap-fair`. Of these gaps, {glue:text}`gap-order`.{glue:text}`gap-foreign`
#
# ## Beside the paper
#
# Paper S gives a range of the gap over its models, on the official test images of NIH ChestX-ray14 with
# the drains of NEATX. A number from any other cohort gets a verdict that says so.

# %% tags=["hide-input"]
verdicts = published.compare(arms, published.table("S Fig. 4b"))
show(
    verdicts[["artefact", "model", "value", "verdict"]],
    caption="Gap in adjusted AUPRC, with minus without drains, as S prints it",
)

# %% [markdown]
# The abstract of S says that all models do worse without drains; its results section names the
# exception, CXR-CLIP. And a gap between arms is not proof of a shortcut. Patients with a drain may have a
# larger pneumothorax, which is easier to see.
#
# ## One switch at a time
#
# From the arms as published to the corrected ones it is three steps: patients instead of images and
# expanded intervals, equal prevalence, controls without a drain. Each step is added to those before.
# (The last one changes nothing where little is known of the controls.)

# %%
STEPS = {
    "+ patients": ("unit", "interval"),
    "+ equal prevalence": ("drain_prevalence",),
    f"+ controls without {DEVICE}": ("drain_controls",),
}
steps = [protocols.protocol("as_published")]
for words, switches in STEPS.items():
    turned = {switch: getattr(corrected, switch) for switch in switches}
    steps.append(replace(steps[-1], name=words, **turned))
stepwise = shortcuts.drain_arms(predictions, protocols=steps, **resampled)
stepwise = stepwise[(stepwise["group"] == GAP) & (stepwise["metric"] == "adjusted_auprc")]
show(
    schema.wide(stepwise, index="model", columns="protocol", digits=3).rename(columns=name),
    caption="Gap in adjusted AUPRC, from the arms as published to the corrected ones",
)

# %% tags=["remove-cell"]
by_step = stepwise.pivot(index="model", columns="protocol", values="value")
by_step = by_step[[p.name for p in steps]].diff(axis=1).iloc[:, 1:]
largest = by_step.abs().max()
glue("step-largest", largest.idxmax().removeprefix("+ ") if largest.max() > 0 else "none")
glue("step-size", fmt(largest.max(), 3))
width = stepwise.assign(width=stepwise["ci_high"] - stepwise["ci_low"])
width = width.pivot(index="model", columns="protocol", values="width").mean()
glue("patients-wider", percent(width["+ patients"] / width["as_published"] - 1))
glue("images-a-patient", fmt(len(cohort.table) / cohort.table["patient_id"].nunique(), 1))

# %% [markdown]
# The step that moves a gap most is: {glue:text}`step-largest`, by {glue:text}`step-size`. Resampling
# patients instead of images, with expanded intervals, changes their width by
# {glue:text}`patients-wider` on average; this cohort has {glue:text}`images-a-patient` images a patient.
# The more the prevalences of the arms differ, the more the second step matters: chapter
# {doc}`08_audit` computes how much for S.
#
# ## Which controls?
#
# Controls decide what a false alarm is. Against controls *without* the device, a model that reads the
# device finds the treated with ease. Against controls that all carry it, it has nothing to go by for the
# treated, and is misled for the untreated. AUC, which does not depend on how many controls there are, by
# three choices of controls:

# %%
choices = {"without": "controls without", "any": "all controls", "with": "controls with"}
choices = [replace(chosen, name=words, drain_controls=which) for which, words in choices.items()]
by_controls = shortcuts.drain_arms(predictions, protocols=choices, **resampled)
by_controls = by_controls[by_controls["metric"] == "auc"]
show(
    schema.wide(by_controls, index=["model", "group"], columns="protocol").rename(
        index={GAP: "difference"}
    ),
    caption=f"AUC for pneumothorax by what is known of the controls' {DEVICE}",
)

# %% tags=["remove-cell"]
of_gap = by_controls[by_controls["group"] == GAP].pivot(
    index="model", columns="protocol", values="value"
)


def by_choice(model):
    """Where the gap of a model is largest, and how far the choice of controls moves it."""
    gaps = of_gap.loc[model].dropna()
    if len(gaps) < 2:
        return f"{model}: undefined but for {len(gaps)} of {of_gap.shape[1]} choices"
    low, high = gaps.idxmin(), gaps.idxmax()
    return (
        f"{model}: {fmt(gaps[low], signed=True)} ({low}) to {fmt(gaps[high], signed=True)} ({high})"
    )


glue("by-choice", "; ".join(map(by_choice, names)))
missing = by_controls[by_controls["value"].isna()]
reasons = dict.fromkeys(reason(row) for _, row in missing.iterrows())
glue("by-choice-notes", f" Undefined here: {'; '.join(reasons)}." if reasons else "")

# %% [markdown]
# From the smallest to the largest, the difference in AUC between the arms is as follows.
# {glue:text}`by-choice`.{glue:text}`by-choice-notes`

# %% [markdown]
# ## A detector for the controls
#
# NEATX annotates drains in films with pneumothorax, not in controls. So S trains a network, a
# DenseNet-121, on the annotated films to label the others. Its code trains and tests that network on films
# of the very test list that the labels are for, keeps the last epoch, takes 0.5 as the threshold, and then
# loses the labels, as said above. The corrected form keeps the epoch with the best AUC on validation
# patients, and chooses the threshold there.
#
# How far can such labels be trusted? Only where drains are known can anyone tell, so this section runs on
# the phantom. The detector learns from films of other patients, among which drains are as common without
# pneumothorax as with it. That is an easier lesson than films with pneumothorax alone. Then it labels
# controls whose drains are hidden from it.

# %%
taught = cohorts.load(
    "phantom", n_images=n_detector, seed=seed, split="train", dials={"drain_if_none": 0.5}
)
detector = drains.train(
    taught, protocol, epochs=epochs, batch_size=16, lr=1e-3, seed=seed
)  # S: batches of 32, a rate of 1e-4
truth = cohorts.load("phantom", n_images=n_detector, seed=seed)
labelled = drains.label(drains.hide(truth, truth.table[LABEL] == 0), detector)
error = drains.label_error(labelled, truth, n_resamples=n_resamples, seed=seed)
own = drains.performance(detector, n_resamples, seed)
quality = pd.concat([own.assign(group="its own test films"), error.assign(group="controls")])
show(
    schema.wide(quality, index="group", columns="metric").rename(columns=name),
    caption="The drain detector on films like those it learned from, and on controls",
)

# %% tags=["remove-cell"]
guess = labelled.table[labelled.table["drain_source"] == "predicted"]
actual = truth.table.loc[guess.index, "drain"]
said = guess["drain"] == 1
glue("threshold", fmt(detector.threshold, 3))
glue("rule", detector.rule)
glue("best-epoch", str(detector.best_epoch))
for metric in ("auc", "sensitivity", "specificity"):
    glue(f"detector-{metric}", fmt_row(schema.row(error, metric=metric)))
glue("hidden", len(guess))
glue("hidden-with", int(actual.sum()))
glue("said", int(said.sum()))
glue("said-right", int(actual[said].sum()))
glue("said-share", percent(actual[said].mean()))

# %% [markdown]
# The weights are those of epoch {glue:text}`best-epoch`; the threshold is {glue:text}`threshold`, by the
# rule: {glue:text}`rule`. On the {glue:text}`hidden` controls its AUC is {glue:text}`detector-auc`, its
# sensitivity {glue:text}`detector-sensitivity` and its specificity {glue:text}`detector-specificity`. But
# few controls have a drain, {glue:text}`hidden-with` of them, so even rare false alarms weigh: of the
# {glue:text}`said` controls that the detector calls drained, {glue:text}`said-right`
# ({glue:text}`said-share`) are.
#
# What does this do to the gap between the arms? The same scores, with controls chosen by their known and by
# their predicted drains:

# %%
scored = zeroshot.predict(truth, clips, [LABEL], negative=chosen.negative_prompt)
by_labels = []
for words, source in {"known": truth, "predicted": labelled}.items():
    named = [replace(p, name=f"{p.name}, {words}") for p in choices if p.drain_controls != "any"]
    named += [p for p in choices if p.drain_controls == "any" and source is truth]
    found = scored.merge(source.table[["image_id", "drain"]], on="image_id")
    by_labels.append(
        shortcuts.drain_arms(found, protocols=named, n_resamples=n_resamples, seed=seed)
    )
by_labels = pd.concat(by_labels)
of_arms = by_labels["group"].eq("with drain - without drain") & by_labels["metric"].eq("auc")
by_labels = by_labels[of_arms].sort_values("protocol", kind="stable")
show(
    schema.wide(by_labels, index="model", columns="protocol"),
    caption="Phantom: difference in AUC between the arms, by known and by predicted drains of controls",
)

# %% tags=["remove-cell"]
by_known = by_labels.pivot(index="model", columns="protocol", values="value")
for which in ("with", "without"):
    moved = by_known[f"controls {which}, predicted"] - by_known[f"controls {which}, known"]
    farthest = moved.abs().idxmax() if moved.notna().any() else None
    glue(
        f"moved-{which}",
        "undefined" if farthest is None else f"{fmt(moved[farthest], signed=True)} ({farthest})",
    )
if cohort.planted:
    here = "The drains of this run's cohort are planted: it needs no detector."
elif "drain_source" in cohort.table and (cohort.table["drain_source"] == "predicted").any():
    shared = cohort.recipe["drains"]["shared_patients"]
    here = (
        f"In this run, {(cohort.table['drain_source'] == 'predicted').sum()} images of the "
        "sections above carry a label that a detector predicted; patients that it was trained or "
        f"chosen on: {'not known' if shared is None else shared}."
    )
elif column == "drain":
    here = (
        "The controls of this run's cohort were not labelled by a detector. The command cxrbook "
        'drains trains one on the annotated films and stores its labels; options={"drains": '
        '"predicted"} uses them.'
    )
else:
    here = "This run's cohort has no annotated drains from which a detector could learn."
glue("detector-here", here)

# %% [markdown]
# Predicted instead of known labels move a difference by at most {glue:text}`moved-without` with controls
# without drains, and by at most {glue:text}`moved-with` with controls that carry one.
# {glue:text}`detector-here`

# %% [markdown]
# ## The same film, with and without
#
# The phantom can do what no hospital can: draw the same film twice, alike in every pixel but the
# drain. These pairs are counterfactual twins. From here on the chapter uses the phantom, whatever the
# data of the sections above.

# %%
small = cohorts.load("phantom", n_images=n_twins, seed=seed)
twins = {drain: phantom.twin(small, drain=drain) for drain in (0, 1)}

# %% tags=["hide-input"]
if guard.active():
    withheld("films")
else:
    large = cohorts.load("phantom", n_images=60, seed=seed, size=192)
    shown = np.flatnonzero(large.table["severity_Pneumothorax"] == 0)[:3]
    fig, axes = plt.subplots(2, 3, figsize=(6.6, 4.5))
    for row, drain in zip(axes, (0, 1), strict=True):
        for axis, image in zip(row, phantom.twin(large, drain=drain).images(shown), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
    figure(
        "fig-shortcut-twins",
        caption="Counterfactual twins: the same phantom patients without (above) and with a drain (below).",
        alt="Three phantom radiographs above, the same three with a chest drain below, and no other difference.",
    )

# %% [markdown]
# For films *without* pneumothorax, the drain adds no disease. So any rise of the pneumothorax score
# between twins is caused by the drain. The shift is given in standard deviations of the score.

# %%
scores = {
    drain: zeroshot.predict(twin, clips, [LABEL], negative=chosen.negative_prompt)
    for drain, twin in twins.items()
}


def shift_by_drain(films):
    """Shift of each model's score, on the log-odds scale, when these films gain a drain."""

    def margins(drain, model):
        rows = scores[drain]
        p = rows.loc[(rows["model"] == model) & rows["image_id"].isin(films), "score"].to_numpy()
        return np.log(p / (1 - p))

    patient = small.table.loc[small.table["image_id"].isin(films), "patient_id"]
    about = {"cohort": small.name, "label": LABEL, "group": "drain added"}
    rows = [
        shortcuts.twin_shift(margins(1, m), margins(0, m), patient, model=m, **about, **resampling)
        for m in names
    ]
    return schema.results(pd.concat(rows))


has_pneumothorax = small.table["severity_Pneumothorax"] > 0
shifts = shift_by_drain(small.table.loc[~has_pneumothorax, "image_id"])
show(
    schema.wide(shifts, index="model", columns="metric"),
    caption="Shift of the pneumothorax score when a drain is added to a film without the disease",
)

# %% tags=["hide-input"]
fig = gap_forest(shifts)
figure(
    "fig-shortcut-shift",
    caption="Causal effect of an added drain on the pneumothorax score, in standard deviations of the score.",
    alt="Shift of the score caused by the drain, one line a model with its interval, around a line at zero.",
)

# %% tags=["remove-cell"]
shift = shifts.set_index("model")
glue(
    "shift-biased",
    "; ".join(f"{m}: {fmt_row(shift.loc[m], signed=True)}" for m in biased)
    or "no drain-biased model was run",
)
glue(
    "shift-fair",
    "; ".join(f"{m}: {fmt_row(shift.loc[m], signed=True)}" for m in fair)
    or "no unbiased model was run",
)
glue("shift-foreign", of_foreign(lambda m: f"{m}: {fmt_row(shift.loc[m], signed=True)}"))
found = [m for m in biased if shift.loc[m, "ci_low"] > 0.5]
glue(
    "found",
    "found: the biased model's shift exceeds half a standard deviation"
    if found
    else "not found in this run"
    if biased
    else "not judged, as no drain-biased model was run",
)
clean = [m for m in fair if abs(shift.loc[m, "value"]) < 0.15]
glue("clean", f"{len(clean)} of {len(fair)}")

# %% [markdown]
# In standard deviations of the score, the added drain moves the biased model by this much:
# {glue:text}`shift-biased`. The other small CLIPs: {glue:text}`shift-fair`; {glue:text}`clean` of them
# stay within 0.15 of no effect.{glue:text}`shift-foreign`
#
# The planted shortcut is {glue:text}`found`. The control models matter as much as the finding: had
# they moved too, the test would have measured how visible a drain is, not what a model learned.
#
# Films *with* pneumothorax tell the other half. There the tube can lie over the very air that a reader
# looks for.

# %%
ill = shift_by_drain(small.table.loc[has_pneumothorax, "image_id"])
show(
    schema.wide(ill, index="model", columns="metric"),
    caption="Shift of the pneumothorax score when a drain is added to a film with the disease",
)

# %% tags=["remove-cell"]
lowered = [m for m in fair if schema.side(ill.set_index("model").loc[m]) == "below"]
glue(
    "covered",
    f"lowers the score of ill films for {', '.join(lowered)}: the drain hides part of what it treats, "
    "and the gap between the arms shrinks or turns negative for a reason that is no shortcut"
    if lowered
    else "lowers the score of ill films for none of them",
)

# %% [markdown]
# Among the small CLIPs trained without the association, the added drain {glue:text}`covered`.

# %% [markdown]
# ## Dose and response
#
# How much of a benchmark's result is the drain? With the twins in hand, the share of pneumothorax
# images with a drain can be set to any value, nothing else changing. What a test set of that make
# would report is the response.

# %%
doses = []
for dose in (0.0, 0.25, 0.5, 0.75, 1.0):
    drained = phantom.twin(small, drain_if_pneumothorax=dose).table["drain"].to_numpy()
    has_drain = np.tile(drained == 1, len(names))
    mixed = scores[0].assign(score=np.where(has_drain, scores[1]["score"], scores[0]["score"]))
    rows = fairness.performance_table(
        mixed, ("auc",), mean_over_labels=False, interval=chosen.interval, **resampling
    )
    doses.append(rows.assign(dose=dose))
doses = pd.concat(doses, ignore_index=True)
show(
    schema.wide(doses, index="model", columns="dose"),
    caption="AUC for pneumothorax by the share of pneumothorax images with a drain",
)

# %% tags=["hide-input"]
fig = dose_response(doses, xlabel="share of pneumothorax images with a drain")
figure(
    "fig-shortcut-dose",
    caption="Dose and response: what a test set reports as its share of treated pneumothorax grows.",
    alt="AUC for pneumothorax over the share of pneumothorax images with a drain, one line a model with an interval band.",
)

# %% tags=["remove-cell"]
response = doses.pivot(index="model", columns="dose", values="value")
rise = response[1.0] - response[0.0]
glue(
    "rise",
    "; ".join(f"{m}: {fmt(response.loc[m, 0.0])} to {fmt(response.loc[m, 1.0])}" for m in names),
)
glue("steepest", rise.idxmax())

# %% [markdown]
# From no drain to a drain in every pneumothorax, AUC goes as follows. {glue:text}`rise`. The steepest
# is {glue:text}`steepest`. The model is the same at both ends: the test set decides which number is
# printed. A benchmark that does not say how many of its patients were already treated leaves its
# reader guessing where on this line it stands.
#
# ## What we learned
#
# - The association between drain and pneumothorax is real and strong, so models can learn it.
# - A gap between arms hints at a shortcut. It needs a control, an interval, and equal prevalence.
# - The effect of adding a drain to the same film is the proof. Only counterfactuals give it; the
#   phantom has them by construction.
# - Test performance depends on how many patients were treated before the film.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-shortcut-negatives
# The table by controls has three columns. A model reads the drain and nothing else. Which AUC would it
# have in each of the six cells of its two arms?
# ```
#
# ```{solution} ex-shortcut-negatives
# :class: dropdown
# Against controls without a drain: 1 for positives with a drain, one half for those without. Against
# controls with a drain: one half and 0. Against all controls, both lie in between, by the share that carries
# one. The difference is one half each time, but it does not mean the same: against drained controls the
# untreated patient is ranked *below* the treated one who has no air to find. A shortcut harms by false
# alarms too, and the choice of controls decides whether that is counted.
# ```
#
# ```{exercise}
# :label: ex-shortcut-confounding
# Make larger pneumothoraces more likely to be drained. Would an unbiased model show a gap between the
# arms? Would its twins?
# ```
#
# ```{solution} ex-shortcut-confounding
# :class: dropdown
# Yes and no. The drained arm would hold the easier cases, so every honest model would do better there:
# a gap without a shortcut. The twins compare each film with itself, so the shift stays near zero.
# Choose rows by `severity_Pneumothorax` from `small.table` to try it.
# ```
#
# ```{exercise}
# :label: ex-shortcut-remedy
# A colleague proposes to remove the shortcut by masking drains in the test set. What would that fix?
# ```
#
# ```{solution} ex-shortcut-remedy
# :class: dropdown
# The number, not the model. Masking moves the test set to the left end of the dose curve, which is
# honest about untreated patients; a model that learned the drain keeps its ignorance of the air. The
# remedy lies in training: compare `phantom-resnet` with `phantom-resnet-drain`.
# ```
