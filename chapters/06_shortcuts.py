# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.3: ''
#       S 3.3: ''
#       S 4: ''
#       S Fig. 4a: fig-shortcut-arms-auc
#       S Fig. 4b: fig-shortcut-arms
#     goals:
#     - say why a model may read the treatment instead of the disease, and whom that
#       harms
#     - compare performance with and without a device, and name what such a gap can
#       mean besides a shortcut
#     - prove a shortcut with counterfactual twins, and read a dose-response curve
#     needs:
#     - 02_zero_shot
# ---

# %% [markdown]
# # Shortcuts: the disease, or its treatment?
#
# *Answers section 3.3 of {cite:t}`sourget2025`, paper S, its Fig. 4a and 4b, and the drain labels of its
# section 2.3.*
#
# Three in the morning, a young man with a sudden pain in the chest. His lung has collapsed: there is air
# between lung and chest wall, a *pneumothorax*. The treatment is a *drain*, a tube through the chest wall
# that lets the air out. A film with a drain in it shows somebody who has already been found and treated.
# A model that reads the tube instead of the air looks excellent on an archive full of such films, and
# fails the one patient for whom it was bought: the one whom nobody has treated yet
# {cite:p}`oakdenrayner2020,jimenezsanchez2023`. A feature that predicts the label without being the
# disease is called a *shortcut*.
#
# Paper S compares pneumothorax with drains to pneumothorax without, for six models. This chapter does
# the same, by default for models whose training is known, and then asks the question that real data cannot
# answer: does the score of *the same film* change when only the drain is added?

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models` separated by commas, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "all"}, or the dials of a phantom
seed: int = 1907  # [0, 1000000] seed of the phantom cohort and of the resamples
n_images: int = 4000  # [60, 17000] images in the phantom cohort; real cohorts are taken whole
n_twins: int = 1500  # [60, 17000] images that are drawn with and without a drain
n_detector: int = 600  # [100, 17000] phantom films to teach the detector, and as many to label
epochs: int = 5  # [1, 200] passes of the detector over its films; S makes 200
drain_labels: str = "annotated"  # {annotated, predicted} where nobody looked, by `cxrbook drains`
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} models, arms, resampling and prompt of S

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts import associations, phantom
from cxrlib.models import load_models, model_names
from cxrlib.papers import published
from cxrlib.predict import drains, zeroshot
from cxrlib.predict.phantom_models import BIASED_DRAINS, FAIR_DRAINS
from cxrlib.protocol import protocol_of
from cxrlib.show import interactive
from cxrlib.show.notebook import (
    asked,
    figure,
    glue,
    keep,
    quiz,
    setup,
    show,
    warn_if_seeded,
    withheld,
)
from cxrlib.show.plots import dose_response, drain_arms, gap_forest
from cxrlib.show.words import (
    fmt,
    fmt_interval,
    fmt_row,
    in_words,
    percent,
    readable,
)
from cxrlib.stats import fairness, shortcuts

setup()
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
names = [clip.name for clip in clips]
biased = [m for m in names if m.endswith("-drain")]  # trained where drains go with pneumothorax
fair = [m for m in names if m in model_names() and m not in biased]
foreign = [m for m in names if m not in model_names()]  # not trained in this book
LABEL = "Pneumothorax"
resampling = {"n_resamples": n_resamples, "seed": seed}
warn_if_seeded(names)


# %% [markdown]
# ## The association is real
#
# A shortcut needs an association to feed on. PadChest {cite:p}`bustos2020` is one of the few public sets
# whose labels name the drain, and its table of labels comes with the software of this book.

# %%
padchest = associations.padchest_drains()
show(
    padchest.assign(share=[fmt_row(row, 4) for _, row in padchest.iterrows()])
    .set_index("group")
    .rename_axis("pneumothorax")[["n", "n_positive", "n_patients", "share"]]
    .set_axis(["images", "images with a drain", "patients", "share with a drain"], axis=1),
    caption="PadChest: share of images with a chest drain, with and without pneumothorax",
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
# {glue:text}`p-with` %, the brackets holding a 95 % interval. Among all other images it is
# {glue:text}`p-without` %. A drain is {glue:text}`odds` times as common with pneumothorax as without. Yet
# {glue:text}`n-other` images have the drain and no pneumothorax on record: a drain is evidence, not proof.
#
# CheXpert {cite:p}`irvin2019` does not name the drain, but counts support devices of all kinds: tubes,
# lines, pacemakers. They can be set beside every finding, not pneumothorax alone.


# %% tags=["hide-input"]
def shares(rows, index, arm):
    """Shares with and without the finding, and their difference, as text."""
    cells = rows.assign(share=[fmt_row(row, 3) for _, row in rows.iterrows()])
    cells = cells.pivot(index=index, columns=arm, values="share")
    return (
        cells[["with", "without", "with - without"]].rename(columns=readable).rename(index=readable)
    )


devices = associations.chexpert_devices()
show(
    shares(devices, "given", "group").rename_axis("finding"),
    caption="CheXpert, frontal films: share with support devices, with and without each finding",
)

# %% tags=["remove-cell"]
bond = devices[devices["group"] == "with - without"].sort_values("value")
glue("bond-least", f"{bond['given'].iloc[0]} ({fmt_row(bond.iloc[0], signed=True)})")
glue("bond-most", f"{bond['given'].iloc[-1]} ({fmt_row(bond.iloc[-1], signed=True)})")

# %% [markdown]
# The share of films with a device rises most with {glue:text}`bond-most`, and rises least, or falls most,
# with {glue:text}`bond-least`. So pneumothorax is one of many findings that could be read from a device,
# and for some the device would speak against the disease.
#
# The bond need not be equally tight in all patients either. Where it differs between women and men, or
# young and old, the harm of a shortcut will differ too.

# %% tags=["hide-input"]
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
drained = groups[groups["source"].str.startswith("PadChest") & (groups["arm"] == "with")]
drained = drained[drained["value"].notna()].sort_values("value")
glue("drained-least", f"{readable(drained['group'].iloc[0])} ({fmt_row(drained.iloc[0])})")
glue("drained-most", f"{readable(drained['group'].iloc[-1])} ({fmt_row(drained.iloc[-1])})")

# %% [markdown]
# Of PadChest's patients with pneumothorax, the group least often drained is {glue:text}`drained-least`, the
# one most often {glue:text}`drained-most`. Their intervals are wide: few images carry the evidence.

# %% [markdown]
# ## Two arms
#
# S forms two groups, or *arms*. The positives of one arm are films of pneumothorax with a drain, those of
# the other arm without. Both arms share their negatives, the *controls*: all films without pneumothorax.
# Each arm gets its own AUC and adjusted AUPRC (chapter {doc}`02_zero_shot` explains both), and the question
# is how far apart they are. {glue:text}`device`
#
# Two things deserve a careful reader before any number is read. The arms differ in *prevalence*, the share
# of positives, as soon as one has more positives than the other; and adjusted AUPRC does not remove
# prevalence fully. And the *controls*: the paper labels drains in them by a detector, but in its code these
# labels have no effect, so controls with a drain stay in both arms. The corrected form weights the
# positives of the larger arm so that both arms have the same prevalence, keeps only controls labelled as
# without a drain, and resamples patients instead of images, with expanded intervals (chapter
# {doc}`09_coverage`).

# %%
cohort = cohorts.study(data, n_images, seed, options, preprocessing=chosen.preprocessing)
asked(cohort.name, cohort.findings, [LABEL])
if drain_labels == "predicted":
    cohort = drains.stored(cohort)
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
corrected = protocol_of("corrected")
of_controls = carries.loc["controls"] / carries.loc["controls"].sum()
mostly_known = of_controls["unknown"] <= 0.5
if not mostly_known:
    corrected = replace(corrected, drain_controls="any")
pair = [protocol_of("as_published"), corrected]
predictions = zeroshot.predict(cohort, clips, [LABEL], negative=chosen.negative_prompt)
predictions = predictions.merge(status[["image_id", DEVICE]], on="image_id")
resampled = {"device": DEVICE, "n_resamples": n_resamples, "seed": seed}
arms = shortcuts.drain_arms(predictions, protocols=pair, **resampled)
keep(arms)
ours = arms[arms["protocol"] == chosen.name]
show(
    schema.wide(ours, index=["model", "metric"], columns="group").rename(
        columns={GAP: "difference"}, index=readable
    ),
    caption=f"Zero-shot pneumothorax with and without {DEVICE}, {readable(chosen.name)}",
)

# %% tags=["remove-cell"]
if cohort.planted:
    dials = cohort.recipe["dials"]
    of_device = (
        f"The test cohort of this run is drawn so that {percent(dials['drain_if_pneumothorax'])} of "
        f"the films with pneumothorax have one, and {percent(dials['drain_if_none'])} of the others."
    )
elif status[DEVICE].isna().all():
    of_device = "In this cohort nobody has looked for drains, so that there are no arms."
elif column == "drain":
    of_device = (
        "In this cohort, drains are as annotated, or as a detector predicted them where the parameter "
        "drain_labels asks for it."
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
raw = arms[(arms["protocol"] == "as_published") & (arms["metric"] == "auc")]
raw = raw.drop_duplicates("group").set_index("group")
share = (raw["n_positive"] / raw["n"]).astype(float)
for which in ("with", "without"):
    glue(f"share-{which}", percent(share[f"{which} {DEVICE}"], 1))

# %% [markdown]
# Before any correction, positives make up {glue:text}`share-with` of the arm with {glue:text}`device-name`
# and {glue:text}`share-without` of the arm without. {numref}`fig-shortcut-arms-auc` and
# {numref}`fig-shortcut-arms` draw the table.

# %% tags=["hide-input"]
drawn = ours[~ours["group"].str.contains(" - ")]
drain_arms(ours, metric="auc", protocol=chosen.name)
figure(
    "fig-shortcut-arms-auc",
    caption=f"AUC of zero-shot pneumothorax in the two arms, with and without {DEVICE} (S, Fig. 4a). "
    "Bars start at chance.",
    alt=f"Two bars a model, AUC with and without {DEVICE}, with interval whiskers. "
    f"{in_words(drawn[drawn['metric'] == 'auc'])}",
    table=drawn[drawn["metric"] == "auc"],
)

# %% tags=["hide-input"]
drain_arms(ours, protocol=chosen.name)
figure(
    "fig-shortcut-arms",
    caption=f"Adjusted AUPRC of zero-shot pneumothorax in the two arms, with and without {DEVICE} (S, "
    "Fig. 4b). Bars start at what random scores give.",
    alt=f"Two bars a model, adjusted AUPRC with and without {DEVICE}, with interval whiskers. "
    f"{in_words(drawn[drawn['metric'] == 'adjusted_auprc'])}",
    table=drawn[drawn["metric"] == "adjusted_auprc"],
)

# %% tags=["remove-cell"]
gap = ours[(ours["group"] == GAP) & (ours["metric"] == "adjusted_auprc")]
gap = gap.set_index("model")
WHERE = {"above": "above 0", "below": "below 0", "around": "around 0"}


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
    where = WHERE.get(schema.side(row))
    tail = f", an interval {where}" if where else f" ({reason(row)})"
    return f"{model}: {fmt_row(row, signed=True)}{tail}"


glue("planted-with", percent(BIASED_DRAINS["drain_if_pneumothorax"]))
glue("planted-without", percent(BIASED_DRAINS["drain_if_none"]))
glue("planted-fair", percent(FAIR_DRAINS["drain_if_none"]))
glue("gap-biased", "; ".join(map(sentence, biased)) or "no drain-biased model was run")
glue("gap-fair", "; ".join(map(sentence, fair)) or "no unbiased model was run")
glue("gap-foreign", of_foreign(sentence))
if gap.loc[[*biased, *fair], "value"].isna().any():
    glue("gap-order", "some are undefined, so that there is no order")
elif biased and fair:
    smaller = gap.loc[fair, "value"].max() < gap.loc[biased, "value"].min()
    glue(
        "gap-order",
        "every one is smaller than that of the biased model"
        if smaller
        else "not all are smaller than that of the biased model",
    )
else:
    glue("gap-order", "there is nothing to compare with in this run")
astray = [m for m in fair if schema.side(gap.loc[m]) in ("above", "below")]
glue(
    "astray",
    f"Of the {len(fair)} models that never met the association, {len(astray)} "
    f"{'has' if len(astray) == 1 else 'have'} a gap whose interval excludes 0: "
    + "; ".join(f"{m} with an interval {WHERE[schema.side(gap.loc[m])]}" for m in astray)
    if astray
    else f"Of the {len(fair)} models that never met the association, none has a gap whose interval "
    "excludes 0 in this run"
    if fair
    else "No model without the association was run",
)

# %% [markdown]
# One small CLIP of this book, *phantom-resnet-drain*, was trained where the drain stands for the disease:
# on {glue:text}`planted-with` of the films with pneumothorax and on {glue:text}`planted-without` of the
# others. Its gap in adjusted AUPRC, with minus without {glue:text}`device-name`, is:
# {glue:text}`gap-biased`.
#
# The other small CLIPs met drains on {glue:text}`planted-fair` of all films, ill or not, so that the drain
# told them nothing. Their gaps: {glue:text}`gap-fair`. Of these gaps,
# {glue:text}`gap-order`.{glue:text}`gap-foreign`
#
# Is a gap above 0 proof of a shortcut, then? {glue:text}`astray`. There are other roads to a gap. Patients
# with a drain may have a larger pneumothorax, which is easier to see. And a drain can hide the very air that
# a reader looks for, which pulls the gap below 0.

# %% tags=["remove-input"]
quiz(
    "On real films, a model finds pneumothorax better with a drain than without, and the interval of the "
    "difference lies above 0. What follows?",
    {
        "The model reads the drain.": (
            False,
            "It may. But patients with a drain may also have more air in the chest, and a model "
            "that knows nothing of drains finds more air more easily.",
        ),
        "On films with a drain, a test reports more than on films without.": (
            True,
            "That is what was measured, whatever the cause. A hospital that wants to find untreated "
            "patients has to look at the arm without drains.",
        ),
        "More patients would settle which of the two it is.": (
            False,
            "They would make the interval narrower. Two causes of one gap stay two causes in any "
            "number of patients; it takes another experiment, which this chapter comes to.",
        ),
    },
)

# %% [markdown]
# ## Beside the paper
#
# S finds a gap of {published}`S Fig. 4b; smallest of five` to {published}`S Fig. 4b; largest of five` in
# five of its six models, on the official test images of NIH ChestX-ray14 with the drains of NEATX
# {cite:p}`cheplygina2025`, tubes that readers who are no radiologists have marked. A number from any
# other cohort gets a verdict that says so.

# %% tags=["hide-input"]
verdicts = published.compare(arms, published.table("S Fig. 4b"))
show(
    verdicts[["model", "value", "verdict"]].rename(
        columns={"model": "of S's models", "value": "gap"}
    ),
    caption="Gap in adjusted AUPRC, with minus without drains, as S prints it in Fig. 4b",
)

# %% [markdown]
# The abstract of S says that all models do worse without drains; its results section names the
# exception, CXR-CLIP. S calls the gaps a *potential* reliance on the drain, which is as far as arms can go.
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
steps = [protocol_of("as_published")]
for words, switches in STEPS.items():
    turned = {switch: getattr(corrected, switch) for switch in switches}
    steps.append(replace(steps[-1], name=words, **turned))
stepwise = shortcuts.drain_arms(predictions, protocols=steps, **resampled)
stepwise = stepwise[(stepwise["group"] == GAP) & (stepwise["metric"] == "adjusted_auprc")]
show(
    schema.wide(stepwise, index="model", columns="protocol", digits=3).rename(columns=readable),
    caption="Gap in adjusted AUPRC, from the arms as published to the corrected ones",
)

# %% tags=["remove-cell"]
by_step = stepwise.pivot(index="model", columns="protocol", values="value")
by_step = by_step[[p.name for p in steps]].diff(axis=1).iloc[:, 1:]
largest = by_step.abs().max()
if largest.max() > 0:
    step = largest.idxmax()
    whose = by_step[step].abs().idxmax()
    glue(
        "step-largest",
        f"{step.removeprefix('+ ')}, by {fmt(by_step.loc[whose, step], 3, signed=True)} ({whose})",
    )
else:
    glue("step-largest", "none, or the gaps are undefined")
width = stepwise.assign(width=stepwise["ci_high"] - stepwise["ci_low"])
width = width.pivot(index="model", columns="protocol", values="width").mean()
glue("patients-wider", percent(width["+ patients"] / width["as_published"] - 1))
glue("images-a-patient", fmt(len(cohort.table) / cohort.table["patient_id"].nunique(), 1))

# %% [markdown]
# The step that moves a gap most is: {glue:text}`step-largest`. Resampling patients instead of images, with
# expanded intervals, changes the width of intervals by {glue:text}`patients-wider` on average; this cohort
# has {glue:text}`images-a-patient` images a patient. The more the prevalences of the arms differ, the more
# the second step matters: chapter {doc}`08_audit` computes how much for S.
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
reach = (of_gap.max(axis=1) - of_gap.min(axis=1)).dropna()
glue(
    "choice-most",
    "no model's, as too little is defined"
    if reach.empty
    else f"that of {reach.idxmax()}, by {fmt(reach.max())}"
    + (", the model that was trained on drains" if reach.idxmax() in biased else ""),
)

# %% [markdown]
# From the smallest to the largest, the difference in AUC between the arms is as follows.
# {glue:text}`by-choice`.{glue:text}`by-choice-notes` The difference that depends most on the choice of
# controls is {glue:text}`choice-most`.

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
    schema.wide(quality, index="group", columns="metric").rename(columns=readable),
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
# rule: {glue:text}`rule` (the Youden index is sensitivity plus specificity minus 1). On the
# {glue:text}`hidden` controls its AUC is {glue:text}`detector-auc`, its sensitivity
# {glue:text}`detector-sensitivity` and its specificity {glue:text}`detector-specificity`. But only
# {glue:text}`hidden-with` of these controls have a drain, and the rarer a thing is, the more the false
# alarms weigh: of the {glue:text}`said` controls that the detector calls drained,
# {glue:text}`said-right` ({glue:text}`said-share`) are.
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
    schema.wide(by_labels, index="protocol", columns="model").rename_axis("controls"),
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
        "drains trains one on the annotated films and stores its labels; drain_labels=predicted "
        "uses them."
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
# drain. These pairs are *counterfactual twins*: each shows what the other would have been. From here on
# the chapter uses the phantom, whatever the data of the sections above.

# %%
small = cohorts.load("phantom", n_images=n_twins, seed=seed)
twins = {drain: phantom.twin(small, drain=drain) for drain in (0, 1)}

# %% tags=["hide-input"]
if guard.active():
    withheld("films")
else:
    large = cohorts.load("phantom", n_images=60, seed=seed, size=192)
    shown = np.flatnonzero(large.table["severity_Pneumothorax"] == 0)[:3]
    fig, axes = plt.subplots(2, 3, figsize=(5.2, 3.9))
    for row, (drain, words) in zip(
        axes, {0: "without drain", 1: "with drain"}.items(), strict=True
    ):
        for axis, image in zip(row, phantom.twin(large, drain=drain).images(shown), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.axis("off")
        row[0].set_title(words, loc="left")
    figure(
        "fig-shortcut-twins",
        caption="Counterfactual twins: the same phantom patients without (above) and with a drain (below).",
        alt="Three phantom radiographs above; below, the same three with a thin bright tube that enters "
        "one lung from the side, and no other difference.",
    )

# %% [markdown]
# Look for the thin bright line in the lower row: that is all that differs. For films *without*
# pneumothorax, the drain adds no disease. So any rise of the pneumothorax score between twins is caused by
# the drain. The *shift* is the mean difference between twins of the score on the log-odds scale,
# $\log\frac{p}{1-p}$, where probabilities near 0 and 1 are not squeezed together. It is given in standard
# deviations (SD) of that score over films without a drain, so that models can be compared.

# %%
FOUND, NOTHING = 0.5, 0.15  # SD: a shift above one is a shortcut, a shift within the other is none
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
    about |= {"protocol": replace(chosen, interval="expanded")}
    rows = [
        shortcuts.twin_shift(margins(1, m), margins(0, m), patient, model=m, **about, **resampling)
        for m in names
    ]
    return pd.concat(rows, ignore_index=True)


has_pneumothorax = small.table["severity_Pneumothorax"] > 0
shifts = shift_by_drain(small.table.loc[~has_pneumothorax, "image_id"])
show(
    schema.wide(shifts, index="model", columns="metric").set_axis(["shift (SD)"], axis=1),
    caption="Shift of the pneumothorax score when a drain is added to a film without the disease",
)

# %% tags=["hide-input"]
gap_forest(shifts)
figure(
    "fig-shortcut-shift",
    caption="Causal effect of an added drain on the pneumothorax score of films without the disease, in standard deviations of the score. A drain that a model ignores lies on the line at zero.",
    alt=f"One dot a model with its interval, beside a vertical line at zero. {in_words(shifts)}",
    table=shifts,
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
glue("bar-found", fmt(FOUND, 1))
glue("bar-nothing", fmt(NOTHING))
found = [m for m in biased if shift.loc[m, "ci_low"] > FOUND]
glue(
    "found",
    f"found: the whole interval of the biased model lies above {fmt(FOUND, 1)} SD"
    if found
    else "undefined, with so few films"
    if biased and shift.loc[biased, "ci_low"].isna().all()
    else f"not found in this run: the interval of the biased model reaches below {fmt(FOUND, 1)} SD"
    if biased
    else "not judged, as no drain-biased model was run",
)
clean = [m for m in fair if abs(shift.loc[m, "value"]) < NOTHING]
moved = shift.loc[fair, "value"].abs().dropna()
farthest = "" if moved.empty else f"; the farthest, {moved.idxmax()}, moves by {fmt(moved.max())}"
glue("clean", f"{len(clean)} of {len(fair)} stay within {fmt(NOTHING)} SD of no effect{farthest}")

# %% [markdown]
# In standard deviations of the score, the added drain moves the biased model by this much:
# {glue:text}`shift-biased`. The other small CLIPs: {glue:text}`shift-fair`. Of these,
# {glue:text}`clean`.{glue:text}`shift-foreign`
#
# The planted shortcut is {glue:text}`found`. The control models matter as much as the finding: had they
# moved as far, the test would have measured how visible a drain is, not what a model learned. A small
# shift in a model that never met the association is possible too: to a network, a bright line is a change
# of the picture like any other.
#
# Films *with* pneumothorax tell the other half. There the tube can lie over the very air that a reader
# looks for.

# %%
ill = shift_by_drain(small.table.loc[has_pneumothorax, "image_id"])
show(
    schema.wide(ill, index="model", columns="metric").set_axis(["shift (SD)"], axis=1),
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
# images with a drain can be set to any value, nothing else changing: that is the *dose*. The AUC that a
# test set of that make would report is the *response*. If a treatment works, the effect grows with the
# dose, and pharmacologists ask for such a curve before they believe in a cause.

# %%
every_dose = replace(chosen, min_cases=protocol_of("corrected").min_cases)
doses = []
for dose in (0.0, 0.25, 0.5, 0.75, 1.0):
    drained = phantom.twin(small, drain_if_pneumothorax=dose).table["drain"].to_numpy()
    has_drain = np.tile(drained == 1, len(names))
    mixed = scores[0].assign(score=np.where(has_drain, scores[1]["score"], scores[0]["score"]))
    rows = fairness.performance_table(
        mixed, ("auc",), mean_over_labels=False, protocol=every_dose, **resampling
    )
    doses.append(rows.assign(dose=dose))
doses = pd.concat(doses, ignore_index=True)
show(
    schema.wide(doses, index="model", columns="dose"),
    caption="AUC for pneumothorax by the share of pneumothorax images with a drain",
)

# %% tags=["remove-cell"]
response = doses.pivot(index="model", columns="dose", values="value")
rise = response[1.0] - response[0.0]
steepest, flattest = rise.abs().idxmax(), rise.abs().idxmin()
glue(
    "rise",
    "; ".join(f"{m}: {fmt(response.loc[m, 0.0])} to {fmt(response.loc[m, 1.0])}" for m in names),
)
glue("steepest", f"{steepest} ({fmt(rise[steepest], signed=True)})")
glue("flattest", f"{flattest} ({fmt(rise[flattest], signed=True)})")

# %% tags=["hide-input"]
dose_response(doses, xlabel="share of pneumothorax images with a drain")
figure(
    "fig-shortcut-dose",
    caption="Dose and response: the AUC that a test set reports as its share of treated pneumothorax grows, with intervals as bands.",
    alt="AUC for pneumothorax over the share of pneumothorax images with a drain, one line per model "
    "with an interval band. From no drain to a drain in every one, "
    + "; ".join(f"{m}: {fmt(response.loc[m, 0.0])} to {fmt(response.loc[m, 1.0])}" for m in names)
    + ".",
    table=doses,
)

# %% [markdown]
# From no drain to a drain in every pneumothorax, AUC goes as follows. {glue:text}`rise`. The steepest line
# is that of {glue:text}`steepest`, the flattest that of {glue:text}`flattest`. Each model is the same at
# both ends of its line: the test set decides which number is printed. A benchmark that does not say how
# many of its patients were already treated leaves its reader guessing where on the line it stands.
#
# Choose a share, and read what each model would be said to achieve:

# %% tags=["hide-input"]
interactive.dose(
    doses,
    "Explore: the reported AUC as the test set changes",
    xlabel="share of pneumothorax images with a drain",
)

# %% tags=["remove-input"]
quiz(
    f"A vendor reports an AUC of {fmt(response.loc[steepest, 1.0])} for pneumothorax. All of its "
    "patients with pneumothorax had a drain. Which AUC can an emergency department expect, whose "
    "patients have none?",
    {
        f"{fmt(response.loc[steepest, 1.0])}: it is the same model.": (
            False,
            "The same model on another test set. Without the drains, that of "
            f"{steepest} is {fmt(response.loc[steepest, 0.0])} in this run.",
        ),
        "The report cannot tell.": (
            True,
            f"It depends on what the model learned. {flattest} would lose or win "
            f"{fmt(abs(rise[flattest]))}, {steepest} {fmt(abs(rise[steepest]))}; and from a test set in "
            "which everybody is treated, nobody can see which of the two it is.",
        ),
        "A lower one, since untreated patients are harder.": (
            False,
            "Perhaps they are, but these films are the same at every dose. What the lines show is "
            "the drain alone.",
        ),
    },
)

# %% [markdown]
# ## What was planted, and was it found?
#
# The truth is known: which models met the association in training. Two analyses were asked, the arms
# (a gap in adjusted AUPRC whose interval lies above 0) and the twins (a shift whose interval lies above
# {glue:text}`bar-found` SD).

# %% tags=["hide-input"]
ANSWER = {True: "yes", False: "no"}
by_arms = gap["value"].where(
    gap["value"].isna(), [schema.side(row) == "above" for _, row in gap.iterrows()]
)
by_twins = shift["ci_low"] > FOUND
judged = pd.DataFrame(
    {
        "model": names,
        "trained on drains": ["not known" if m in foreign else ANSWER[m in biased] for m in names],
        "arms say": [ANSWER.get(by_arms[m], "undefined") for m in names],
        "twins say": [ANSWER[bool(by_twins[m])] for m in names],
    }
)
show(judged, caption="Does a model read drains? What was planted, and what each analysis says")

# %% tags=["remove-cell"]
known = judged[judged["trained on drains"] != "not known"]
for analysis in ("arms", "twins"):
    right = known[f"{analysis} say"] == known["trained on drains"]
    wrong = known.loc[~right, "model"]
    tail = f" (not {', '.join(wrong)})" if len(wrong) else ""
    glue(f"right-{analysis}", f"{right.sum()} of {len(known)} models{tail}")
glue(
    "biased-rise",
    "; ".join(
        f"{m} from {fmt(response.loc[m, 0.0])} to {fmt(response.loc[m, 1.0])}" for m in biased
    )
    or "none was run",
)

# %% [markdown]
# The arms judge {glue:text}`right-arms` as they were trained, the twins {glue:text}`right-twins`.

# %% [markdown]
# ## Limits
#
# - The drains of the phantom resemble each other more than real tubes do, so both the models and the
#   detector have an easier time with them.
# - Twins need a renderer. To paint drains into real films, or out of them, takes a generator whose own
#   traces a model may read.
# - The twins always use the book's own phantom, whatever the cohort above: a shift there says what a model
#   learned, not how it does in a hospital.
# - The bars of {glue:text}`bar-found` and {glue:text}`bar-nothing` SD are this book's choice, not a
#   standard.
# - One finding, one device, one pair of prompts. A model may be immune to drains and read something else.
#
# ## What we learned
#
# - A drain is {glue:text}`odds` times as common with pneumothorax as without in PadChest: models can learn
#   it.
# - A gap between arms hints at a shortcut, no more. It needs controls whose drains are known, an interval,
#   and equal prevalence; here it judges {glue:text}`right-arms` as they were trained.
# - The effect of adding a drain to the same film is the proof. Only counterfactuals give it. Here it judges
#   {glue:text}`right-twins` as they were trained.
# - Test performance depends on how many patients were treated before the film. From none to all, the AUC
#   of the model that reads drains goes as follows: {glue:text}`biased-rise`.
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
# :label: ex-shortcut-dial
# Change what is planted: let nine of ten pneumothoraces carry a drain,
# `cxrbook run 06 -p 'options={"dials": {"drain_if_pneumothorax": 0.9}}'`. Predict before you run: the
# prevalence of each arm, which step of the table with one switch at a time gains in weight, and what
# happens to the shift between twins.
# ```
#
# ```{solution} ex-shortcut-dial
# :class: dropdown
# The arm with drains now has about nine times as many positives as the other, against the same controls, so
# its prevalence is several times as high. Adjusted AUPRC rises with prevalence, which favours the drained
# arm of *every* model as long as the arms are compared raw; "equal prevalence" takes that away and moves
# the gaps more than before. The shift between twins stays exactly where it was. It is a property of a model,
# and no model was trained anew. Nor does the dose-response curve change: the dial is one point on its axis.
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
#
# ## Further reading
#
# - {cite:t}`oakdenrayner2020`: the paper that showed how a good average hides the untreated pneumothorax.
# - {cite:t}`jimenezsanchez2023`: drains as a shortcut of classifiers for chest radiographs, with
#   annotations by non-experts.
# - {cite:t}`damgaard2023`: how such annotations of tubes were made, the ground of NEATX.
# - {cite:t}`zech2018`: a pneumonia model that recognised the hospital instead of the lung.
# - {cite:t}`degrave2021`: COVID-19 models that read markers and projections, found by counterfactuals.
# - {cite:t}`geirhos2020`: what shortcuts in medicine, language and animal learning have in common.
