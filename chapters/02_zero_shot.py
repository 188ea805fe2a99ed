# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.1: ''
#       S 2.4: ''
#       S 3.1: fig-zeroshot-auc
#       S Table 1: fig-zeroshot-auc
#       X 2.3: fig-zeroshot-wording
#     goals:
#     - say how two phrases become a probability, and what the logit scale does to it
#     - read a table of AUC and adjusted AUPRC, and tell a spread over diseases from
#       an uncertainty
#     - show that the wording of a question moves both performance and fairness
#     needs:
#     - 01_data_curation
# ---

# %% [markdown]
# # Zero-shot: asking a model in words
#
# *Answers sections 2.1, 2.4 and 3.1 of {cite:t}`sourget2025`, paper S, and its Table 1; and of section 2.3
# of {cite:t}`sun2025`, paper X, the choice of a prompt.*
#
# A radiologist never trained this model to find a pneumothorax, which is air between lung and chest wall.
# It read films and reports side by side and learned which words go with which shadows. Now somebody asks:
# is there a pneumothorax on this film? The question has to be put as two phrases, and the answer is
# whichever phrase lies closer to the image. It costs nothing, so it is tempting: no labels, no training, a
# new question any day. But put in other words it may get another answer, and a patient is sent home on it.
# Can a clinician rely on an answer that is obtained this way? And what does a table of such answers tell
# her?
#
# This chapter follows one film from its similarities to its probabilities, builds the table of paper S
# for the models of this run, and then looks at what stands behind each of its numbers: the
# prevalence, the unit of the interval, and the wording of the question.

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models` separated by commas, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "all"}, or the dials of a phantom
seed: int = 1907  # [0, 1000000] seed of the phantom cohort and of the resamples
n_images: int = 4000  # [60, 100000] images in the phantom cohort; real cohorts are taken whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
n_splits: int = 20  # [1, 1000] random halves of the patients, to choose a wording on one of them
protocol: str = "corrected"  # {corrected, as_published} models, prompt and resampling of S's code

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts.metadata import S_FINDINGS
from cxrlib.embed.extract import embed, embed_text
from cxrlib.models import describe_models, load_model, load_models, model_names
from cxrlib.models.leaks import leaks
from cxrlib.papers import published
from cxrlib.predict import prompts, wordings, zeroshot
from cxrlib.protocol import protocol_of
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
from cxrlib.show.plots import bars, dose_response, gap_forest
from cxrlib.show.words import (
    fmt,
    fmt_interval,
    fmt_row,
    in_words,
    percent,
    readable,
)
from cxrlib.stats import bootstrap, fairness, metrics
from cxrlib.stats.as_published import METRICS, performance_by_protocol

setup()
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
names = [clip.name for clip in clips]
# a group with few cases gets no number in the tables of this book, whichever the protocol
sharing = replace(chosen, min_cases=protocol_of("corrected").min_cases)
boot = {"n_resamples": n_resamples, "seed": seed, "protocol": sharing}
warn_if_seeded(names)

# %% [markdown]
# ## One film, seven phrases
#
# The models are CLIPs {cite:p}`radford2021`: an image encoder and a text encoder that were trained
# together. Each turns what it is given into an *embedding*, a list of numbers, and training made the
# embedding of a film similar to that of its own report. Embeddings have length 1, and their similarity is
# the cosine of the angle between them. It lies between $-1$ and $1$.{glue:text}`long-texts`

# %%
cohort = cohorts.study(data, n_images, seed, options, preprocessing=chosen.preprocessing)
findings = asked(cohort.name, cohort.findings, S_FINDINGS)
described = describe_models(names).set_index("name").rename_axis("model")
described.columns = [c.replace("_", " ") for c in described]
show(described, caption="The models of this run", counts=())

# %% [markdown]
# The last column says what a model learned from. For the small CLIPs of this book it names the bias that was
# planted in their training; later chapters look for it.
#
# What a model has met before decides what its result is worth: a patient whose films and reports were
# in the training is recognised, not diagnosed. So every model is looked up beside the cohort.

# %%
register = leaks(names, cohort)
show(
    register.set_index("model").rename(columns=lambda c: c.replace("_", " ")),
    caption=f"What the models were pretrained on, and the cohort {cohort.name!r}",
)

# %% tags=["remove-cell"]
unscaled = [clip.name for clip in clips if not clip.members[0].unit_text]
glue(
    "long-texts",
    f" Not so for the texts of {', '.join(unscaled)}, which S's code leaves at the length they come in."
    if unscaled
    else "",
)

# %% [markdown]
# One film shows how it works: {glue:text}`which-film`. The first model compares it with the six phrases
# of paper S, one for each finding, and with one phrase that stands for health.

# %%
shown = cohort
if guard.active():  # no film of a protected patient; a phantom serves as well
    shown = cohorts.load("phantom", n_images=100, seed=seed)
alone = shown.table[list(shown.findings)].sum(axis=1) == 1
sought = "Pleural Effusion" if "Pleural Effusion" in findings else findings[0]
degree = shown.table[f"severity_{sought}" if shown.planted else sought]
film = int(np.argmax(alone * degree))
phrases = [f"Chest {label}" for label in findings] + ["Chest No Findings"]
clip = clips[0]
if chosen.temperature == "none":  # the film is answered with the learned scale too
    clip = load_model(names[0], replace(chosen, temperature="learned"))
clip = clip.members[0]  # of an ensemble, its first checkpoint
similarity = zeroshot.similarity(
    embed(shown, clip)[[film]], embed_text(phrases, clip), clip.unit_text
)[0]
if guard.active():
    withheld("the film")

# %% tags=["hide-input"]
fig, (picture, lengths) = plt.subplots(1, 2, figsize=(5.6, 2.8), width_ratios=(1, 1.3))
picture.axis("off")
if not guard.active():
    # a phantom can be drawn finer than the models see it
    fine = cohorts.study(data, n_images, seed, options, size=192) if cohort.planted else cohort
    picture.imshow(fine.images([film])[0], cmap="gray", vmin=0, vmax=255)
lengths.barh(phrases[:-1], similarity[:-1], color="#56B4E9")
lengths.axvline(similarity[-1], color="#D55E00", linestyle="--", label=phrases[-1])
lengths.axvline(0, color="#888888", linewidth=1)
lengths.set(xlabel="cosine similarity", ylim=(len(findings) - 0.4, -0.6))
lengths.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
fig.suptitle(names[0])
figure(
    "fig-zeroshot-film",
    caption='A film, and its similarity to the phrase of each finding. The dashed line is the similarity to "Chest No Findings": what counts is the distance of a bar\'s end from it.',
    alt="Left: a chest radiograph, where it may be shown. Right: horizontal bars of its cosine similarity to "
    "the phrases, with a dashed line at that to the last one. "
    + "; ".join(f"{x} {fmt(y)}" for x, y in zip(phrases, similarity, strict=True))
    + ".",
    table=pd.DataFrame({"phrase": phrases, "cosine similarity": similarity}),
)

# %% [markdown]
# Bars that reach beyond the dashed line of {numref}`fig-zeroshot-film` are findings that the model prefers
# to health: {glue:text}`preferred`. But a similarity by itself means little. Paper S turns two of them into a probability: the softmax over
# the phrase of the finding, with similarity $s_+$, and the phrase of health, with similarity $s_-$:
#
# $$ p = \frac{e^{\tau s_+}}{e^{\tau s_+} + e^{\tau s_-}} = \frac{1}{1 + e^{-\tau (s_+ - s_-)}} $$ (eq-zero-shot)
#
# The factor $\tau$, the *logit scale*, was learned in training. Some of the models in S were used
# without it, which is the same as $\tau = 1$.

# %%
margin = similarity[:-1] - similarity[-1]
answers = pd.DataFrame({"finding": findings, "on the film": shown.table[list(findings)].iloc[film]})
answers["on the film"] = answers["on the film"].map({0: "no", 1: "yes"})
answers["s+"] = similarity[:-1]
answers["s+ - s-"] = margin
answers["p, scale 1"] = 1 / (1 + np.exp(-margin))
answers["p, learned scale"] = 1 / (1 + np.exp(-clip.logit_scale * margin))
show(
    answers.reset_index(drop=True),
    caption=f"What {names[0]} answers for this film: similarities, their difference, probabilities",
)

# %% tags=["remove-cell"]
glue(
    "which-film",
    ("the films of this cohort may not be shown, so it is a phantom, " if guard.active() else "")
    + (
        f"the first of the cohort, as none has {sought.lower()} and nothing else"
        if not (alone * degree).any()
        else f"the most severe {sought.lower()} among the films that show nothing else"
        if shown.planted
        else f"the first of the cohort with {sought.lower()} and no other finding"
    ),
)
glue("first", names[0])
preferred = answers.loc[answers["s+ - s-"] > 0, "finding"]
glue("preferred", ", ".join(preferred) or "none")
glue("scale", fmt(clip.logit_scale, 1))
ranked = answers.sort_values("s+ - s-", ascending=False)
glue("top", ranked["finding"].iloc[0])
glue("top-right", "is" if ranked["on the film"].iloc[0] == "yes" else "is not")
glue("p-top-one", fmt(ranked["p, scale 1"].iloc[0]))
glue("p-top-learned", fmt(ranked["p, learned scale"].iloc[0]))
false_alarms = answers[(answers["s+ - s-"] > 0) & (answers["on the film"] == "no")]["finding"]
glue("false", ", ".join(false_alarms) or "none")
glue("p-sum", fmt(answers["p, learned scale"].sum()))

# %% [markdown]
# The phrase that comes out highest against "Chest No Findings" is that of {glue:text}`top`, which
# {glue:text}`top-right` on this film. Its probability is {glue:text}`p-top-one` with a scale of 1 and
# {glue:text}`p-top-learned` with the learned scale of {glue:text}`scale`: the same two similarities,
# the same order of films, another number. The chapter on calibration returns to this.
#
# Two more things can be read from the table.
#
# Each finding is asked separately. The probabilities of one film need not sum to 1; here they sum to
# {glue:text}`p-sum`.
#
# And every question shares the same opponent. A film that looks ill is unlike "Chest No Findings", and
# that lifts the score of *every* finding. Findings that are not on this
# film and yet come out above one half: {glue:text}`false`.

# %% [markdown]
# ## The table of S
#
# Now for all {glue:text}`n-images:,d` films of {glue:text}`n-patients:,d` patients of the cohort
# *{glue:text}`cohort`*, each model and each finding. AUC is the chance that a film with the finding
# scores higher than one without: one half is random, 1 is perfect. The adjusted AUPRC starts from two other
# shares: *recall*, how many of the films with the finding raise an alarm, and *precision*, how many of
# the alarms are true. Both change with the threshold, which gives the precision-recall curve. The area
# under it, AUPRC, is set against the prevalence $\pi$, the share of films with the finding, which is what
# random scores would reach {cite:p}`mosquera2024`:
#
# $$ \mathrm{AUPRC}_{adj} = 1 - \frac{\log \mathrm{AUPRC}}{\log \pi} $$ (eq-auprc-adj)
#
# Here 0 is random and 1 is perfect. The intervals come from a *bootstrap*: {glue:text}`drawn` are drawn at
# random from the cohort, with repeats, {glue:text}`n-resamples` times, and every number is computed again.
# Where most of these numbers lie, there is the interval.

# %%
predictions = zeroshot.predict(cohort, clips, findings, negative=chosen.negative_prompt)
results = performance_by_protocol(predictions, protocol=chosen, n_resamples=n_resamples, seed=seed)
results = results[results["metric"].isin(METRICS)]

# %% [markdown]
# The row *mean* averages the findings. Paper S prints a $\pm$ behind its means: the standard deviation
# over the six findings. That is a spread between diseases. It would not shrink with a million patients.
# The interval of our mean answers the other question: how far would the mean move with other patients?
# Both are shown{glue:text}`no-mean-interval`.

# %% tags=["hide-input"]
per_label = results[results["label"] != "mean"]
spread = per_label.groupby(["cohort", "model", "method", "metric"], sort=False)["value"].agg(
    lambda values: values.std(ddof=1, skipna=False)
)
spread = spread.reset_index().assign(
    label="mean", attribute="all", group="all", protocol=chosen.name
)
spread["metric"] += "_sd_over_labels"
spread["note"] = np.where(
    spread["value"].notna(),
    "standard deviation over the findings: a spread, not an uncertainty",
    "undefined: a finding has no value",
)
spread = schema.results(spread)


def like_table_1(table, metric):
    """Findings as rows, models as columns, and S's spread below the mean."""
    below = table[table["metric"] == f"{metric}_sd_over_labels"].assign(label="SD over findings")
    both = pd.concat([table[table["metric"] == metric], below], ignore_index=True)
    return schema.wide(both, index="label", columns="model").rename_axis("finding")


ours = pd.concat([results, spread], ignore_index=True)
show(like_table_1(ours, "auc"), caption=f"Zero-shot AUC with 95 % intervals over {chosen.unit}s")
show(like_table_1(ours, "adjusted_auprc"), caption="Zero-shot adjusted AUPRC, likewise")

# %% tags=["hide-input"]
shown = results[results["metric"] == "auc"]
bars(shown)
figure(
    "fig-zeroshot-auc",
    caption="Zero-shot AUC by finding and model (S, Table 1, as a figure). The dashed line is chance.",
    alt="Bars of zero-shot AUC for each finding and their mean, one bar a model, with interval whiskers "
    f"and a dashed line at chance. {in_words(shown)}",
    table=shown,
)

# %% tags=["hide-input"]
shown = results[results["metric"] == "adjusted_auprc"]
bars(shown)
figure(
    "fig-zeroshot-auprc",
    caption="Zero-shot adjusted AUPRC by finding and model. The dashed line is what random scores give.",
    alt="Bars of zero-shot adjusted AUPRC for each finding and their mean, one bar a model, with interval "
    f"whiskers and a dashed line at zero. {in_words(shown)}",
    table=shown,
)

# %% tags=["remove-cell"]
LOW, HIGH = 0.78, 0.95  # what the training of the models was planned to reach
mean = {m: schema.row(results, model=m, label="mean", metric="auc", attribute="all") for m in names}
glue(
    "drawn",
    "patients, each with all of their films," if chosen.unit == "patient" else "films, as S does,",
)
glue("n-resamples", str(n_resamples))
glue(
    "no-mean-interval",
    ""
    if chosen.over_labels == "interval"
    else ", but for the interval of the mean, which S does not compute",
)
glue("cohort", cohort.name)
glue("n-images", len(cohort.table))
glue("n-patients", cohort.table["patient_id"].nunique())
adjusted = {
    m: schema.row(results, model=m, label="mean", metric="adjusted_auprc", attribute="all")
    for m in names
}
for key, of in {"means": mean, "means-adjusted": adjusted}.items():
    known = sorted((m for m in names if not np.isnan(of[m]["value"])), key=lambda m: of[m]["value"])
    ends_of_known = dict.fromkeys([*known[:1], *known[-1:]])
    glue(key, " to ".join(f"{fmt_row(of[m])} ({m})" for m in ends_of_known) or "undefined")
orders = [sorted(names, key=lambda m: -of[m]["value"]) for of in (mean, adjusted)]
certain = all(not np.isnan(of[m]["value"]) for of in (mean, adjusted) for m in names)
order = "the same order" if orders[0] == orders[1] else "different orders"
glue("same-order", order if certain else "an order that is undefined")
own = [m for m in names if m in model_names() and cohort.planted]
own = [m for m in own if not np.isnan(mean[m]["value"])]
found = [m for m in own if LOW <= mean[m]["value"] <= HIGH]
missed = [m for m in own if m not in found]
unjudged = "not judged, as none has a mean on phantoms here"
expected = f"found for {len(found)} of {len(own)} models" if own else unjudged
glue("expected", expected)
glue(
    "plan",
    f"The small CLIPs of this book were built to be good but not perfect, with a mean AUC between {LOW} "
    f"and {HIGH} on phantom patients whom they have not seen. This is {expected}"
    + (f", not found for {', '.join(missed)}." if missed else "."),
)
alike = schema.row(ours, model=names[0], label="mean", metric="auc_sd_over_labels")
glue("first-mean", fmt_row(mean[names[0]]))
glue("first-sd", fmt(alike["value"]))
half = (mean[names[0]]["ci_high"] - mean[names[0]]["ci_low"]) / 2
glue("first-half", fmt(half, 3))
glue("sd-over-half", fmt(alike["value"] / half, 0 if alike["value"] > 2 * half else 1))
glue(
    "spread-moral",
    "Whoever reads the spread as an uncertainty will take two models for equal that are not."
    if alike["value"] > half
    else "Where a finding has no value, the findings have no common spread."
    if np.isnan(alike["value"])
    else "That the spread is no wider here is an accident of few films; it answers another question.",
)
by_label = per_label[per_label["metric"] == "auc"].groupby("label", sort=False)["value"].mean()
defined = by_label.dropna().sort_values()
glue("easiest", defined.index[-1] if len(defined) else "undefined")
hardest = defined.index[0] if len(defined) else findings[0]
glue("hardest", hardest if len(defined) else "undefined")

# %% [markdown]
# The mean AUC, the last group of bars in {numref}`fig-zeroshot-auc`, runs from {glue:text}`means`; the mean
# adjusted AUPRC, in {numref}`fig-zeroshot-auprc`, from {glue:text}`means-adjusted`. By the one and by the
# other measure the models stand in {glue:text}`same-order`.
#
# For {glue:text}`first` the mean is {glue:text}`first-mean`, an uncertainty of about
# $\pm$ {glue:text}`first-half`. Its standard deviation over the findings is {glue:text}`first-sd`, some
# {glue:text}`sd-over-half` times as large. {glue:text}`spread-moral` Averaged over models, the hardest
# finding is {glue:text}`hardest` and the easiest {glue:text}`easiest`.

# %% tags=["hide-input"]
table_1 = (
    published.table("S Table 1").query("label == 'mean'").set_index(["model", "metric"])["value"]
)
said = {
    m: f"{table_1[m, 'auc']:.2f} ± {table_1[m, 'auc_sd_over_labels']:.2f}"
    for m in ("MedCLIP", "CheXzero")
}
quiz(
    f"Table 1 of S prints a mean AUC of {said['MedCLIP']} for MedCLIP and {said['CheXzero']} for CheXzero. "
    "What do the two ± say about which of them would be ahead on other patients?",
    {
        "They overlap, so the two models cannot be told apart.": (
            False,
            "The ± would overlap just as much with a million patients. It says that some findings are "
            "easier than others, for both models alike.",
        ),
        "Nothing.": (
            True,
            "They are spreads over findings. An answer needs the difference of the two models, with an "
            "interval from drawing patients. The next section computes one.",
        ),
        "MedCLIP is ahead for sure, since its mean is higher and its ± smaller.": (
            False,
            "A smaller ± means that its findings are more alike in difficulty. It says nothing about "
            "other patients.",
        ),
    },
)

# %% [markdown]
# ## Which model is better?
#
# All models saw the same films. So their difference can be taken within each resample of patients: a
# lucky draw of easy patients helps both models, and cancels. Such a paired interval is the only one
# that answers the question; comparing two separate intervals by eye ignores what they share.

# %%
pairs = [(name, names[0]) for name in names[1:]]
gaps = None
if pairs:
    gaps = fairness.model_gap_table(predictions, pairs, metrics=("auc",), **boot)

# %% tags=["hide-input"]
if pairs:
    gap_forest(gaps)
    figure(
        "fig-zeroshot-gaps",
        caption="Difference in zero-shot AUC from the first model, paired over the same resamples of patients.",
        alt="Dots with intervals around a line at zero: difference in zero-shot AUC of each further model from "
        f"the first one, one line per finding and one for the mean. Differences: {in_words(gaps)}",
        table=gaps,
    )
else:
    print("Only one model was chosen; there is nothing to compare it with.")

# %% tags=["remove-cell"]
WORDS = {
    "above": "better",
    "below": "worse",
    "around": "not told apart",
    "undefined": "undefined",
}


def verdict(a, b):
    row = schema.row(gaps, model=f"{a} - {b}", label="mean", metric="auc")
    return f"{a}: {fmt_row(row, 3, signed=True)}, {WORDS[schema.side(row)]}"


glue("gaps", "; ".join(verdict(a, b) for a, b in pairs) or "no second model was run")
sides = gaps[gaps["label"] != "mean"].apply(schema.side, axis=1) if pairs else pd.Series(dtype=str)
glue("n-single-gaps", str(len(sides)))
glue("n-single-clear", str(sides.isin(["above", "below"]).sum()))

# %% [markdown]
# Differences in mean AUC from {glue:text}`first`: {glue:text}`gaps`. Of the {glue:text}`n-single-gaps`
# differences in a single finding, the intervals of {glue:text}`n-single-clear` exclude 0. The wording "not
# told apart" is chosen with care. An interval that includes 0 does not show that two models are equal.

# %% [markdown]
# ## What is resampled?
#
# Paper S resamples films. Films of one patient resemble each other, so a film brings less news than
# it seems to, and an interval over films tends to be too narrow. Here are both, on the same
# predictions.

# %%
by_patient, by_image = (
    fairness.performance_table(predictions, **(boot | {"protocol": replace(sharing, unit=unit)}))
    for unit in ("patient", "image")
)
keys = ["model", "label", "metric"]
both = by_patient[[*keys, "ci_low", "ci_high"]].merge(
    by_image[[*keys, "ci_low", "ci_high"]], on=keys, suffixes=("", "_image")
)
both["patients"] = both["ci_high"] - both["ci_low"]
both["films"] = both["ci_high_image"] - both["ci_low_image"]

# %% tags=["hide-input"]
both["metric"] = both["metric"].map(readable)
widths = both.groupby(["metric", "label"], sort=False)[["patients", "films"]].mean()
widths = widths.sort_index(level="metric", sort_remaining=False)
widths["ratio"] = widths["patients"] / widths["films"]
widths = widths.rename(columns={"patients": "width, patients drawn", "films": "width, films drawn"})
show(widths, caption="Width of the 95 % interval, averaged over models", digits=3)

# %% tags=["remove-cell"]
ratio = (both["patients"] / both["films"]).replace(np.inf, np.nan).dropna()
glue("ratio-median", fmt(ratio.median()))
glue("wider", percent((ratio > 1).mean()))
glue(
    "correction",
    "undefined"
    if np.isnan(ratio.median())
    else "too small to see"
    if ratio.median() < 1.03
    else "modest"
    if ratio.median() < 1.1
    else "considerable",
)
per_patient = cohort.table.groupby("patient_id").size()
glue("per-patient", fmt(per_patient.mean(), 1))
# The maximum is a single patient's number.
glue("most", "" if guard.active() else f" and never more than {per_patient.max()}")
glue(
    "drawn-anew",
    "Phantom findings are drawn anew for each film unless the real patient had them, and the films of a "
    "patient are few. "
    if cohort.planted
    else "",
)

# %% [markdown]
# In this cohort a patient has {glue:text}`per-patient` films on average{glue:text}`most`. The interval
# over patients is wider in {glue:text}`wider` of the rows; the median ratio is
# {glue:text}`ratio-median`. So the correction is {glue:text}`correction` here.
# {glue:text}`drawn-anew`Where somebody is imaged every morning, as in intensive care, expect more.
# Drawing patients costs nothing, and is right in both cases.

# %% [markdown]
# ## What does prevalence do?
#
# AUC compares one ill with one healthy film, so it cannot know how many of each there are. Precision
# does: among a hundred alarms, the share of true ones falls when the disease becomes rare. This can be
# seen without a new cohort. Each film without the finding is given a weight, as if it stood for
# several, and the weight sets the prevalence. The finding is the hardest one, {glue:text}`hardest`. Two
# curves are drawn: precision against recall, and the *ROC* curve, which sets recall against the share of
# healthy films that raise an alarm, and whose area is the AUC.


# %%
def at_prevalence(y, prevalence):
    """One weight a film: 1 for films with the finding; the others make up the prevalence."""
    negatives = y.sum() * (1 - prevalence) / prevalence
    return np.where(y == 1, 1.0, negatives / max((y == 0).sum(), 1))


one = predictions[(predictions["model"] == names[0]) & (predictions["label"] == hardest)]
y, score = one["y_true"].to_numpy(), one["score"].to_numpy()
if not len(defined):  # no finding has films enough: what follows is undefined
    y = np.zeros_like(y)


# %% tags=["hide-input"]
def coarse(y, score):
    """Scores as ranks of blocks of films, each with ten or more that have the finding, and that lack it."""
    rank, block, inside = 0, np.zeros(len(y), int), [0, 0]
    for i in np.argsort(score):
        block[i] = rank
        inside[y[i]] += 1
        if min(inside) >= guard.MIN_CELL:
            rank, inside = rank + 1, [0, 0]
    return np.minimum(block, max(rank - 1, 0))  # what is left over joins the last full block


marks = coarse(y, score) if guard.active() else score  # no step of the curves is a single film
fig, axes = plt.subplots(1, 2, figsize=(5.6, 3.2))
shades = {0.5: "#56B4E9", 0.1: "#0072B2", 0.01: "#D55E00"}
areas = []
for width, (prevalence, shade) in zip((6, 3.5, 1.2), shades.items(), strict=True):
    if y.any():
        weight = at_prevalence(y, prevalence)
        areas.append({"prevalence": prevalence} | metrics.ranking(y, marks, weight))
        false, true, _ = roc_curve(y, marks, sample_weight=weight)
        precision, recall, _ = precision_recall_curve(y, marks, sample_weight=weight)
        axes[0].plot(false, true, color=shade, linewidth=width)
        axes[1].plot(recall, precision, color=shade, label=f"{100 * prevalence:g} %")
    axes[1].axhline(prevalence, color=shade, linestyle=":", linewidth=1)
axes[0].plot([0, 1], [0, 1], ":", color="#888888", linewidth=1)
axes[0].set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
axes[1].set(xlabel="recall (true positive rate)", ylabel="precision", title="precision-recall")
axes[1].set_ylim(0, 1.03)
if y.any():
    fig.legend(title="prevalence", loc="outside lower center", ncols=3)
fig.suptitle(names[0])
figure(
    "fig-zeroshot-curves",
    caption="The same scores of the first model for the hardest finding of the cohort at three prevalences. Dotted: what random scores would give.",
    alt="Left: ROC curves at three prevalences, true against false positive rate, in lines of three widths "
    "because they coincide. Right: precision against recall at the same prevalences, each with a dotted "
    "line at its prevalence. Average precision: "
    + "; ".join(f"{fmt(x['average_precision'])} at {100 * x['prevalence']:g} %" for x in areas)
    + ".",
    table=pd.DataFrame(areas).astype(float),
)

# %% [markdown]
# The ROC curves lie on top of each other; the precision-recall curves do not. Equation
# {eq}`eq-auprc-adj` divides by the logarithm of the prevalence to make up for it. Does it? The adjusted
# AUPRC at each prevalence, for every model, with the same resamples of patients:

# %%
PREVALENCES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
statistics = {}
for name in names:
    rows = predictions["model"].eq(name) & predictions["label"].eq(hardest)
    score = predictions.loc[rows, "score"].to_numpy()
    for prevalence in PREVALENCES:
        weight = at_prevalence(y, prevalence)
        statistics[name, prevalence] = lambda w, s=score, v=weight: metrics.ranking(y, s, w * v)
drawn = bootstrap.Resamples(one["patient_id"].to_numpy(), n_resamples, seed, chosen.unit)
measured = bootstrap.evaluate(statistics, drawn)
by_prevalence = pd.DataFrame(
    [
        {"model": name, "prevalence": prevalence, "metric": metric}
        | bootstrap.interval(*found, method=chosen.interval)
        for ((name, prevalence), metric), found in measured.items()
    ]
)

# %% tags=["hide-input"]
of_first = by_prevalence[by_prevalence["model"] == names[0]]
printed = schema.wide(of_first, index="prevalence", columns="metric")
printed.columns = ["AUC", "average precision", "adjusted AUPRC"]
show(printed, caption=f"{names[0]}, {hardest}: the same scores at six prevalences")

# %% tags=["hide-input"]
shown = by_prevalence[by_prevalence["metric"] == "adjusted_auprc"]
fig = dose_response(shown, x="prevalence", xlabel=f"prevalence of {hardest} (log scale)")
fig.axes[0].set_xscale("log")
fig.axes[0].set_xticks(PREVALENCES, [f"{100 * p:g} %" for p in PREVALENCES])
fig.axes[0].minorticks_off()
by_model = shown.pivot(index="model", columns="prevalence", values="value").loc[names, [0.01, 0.5]]
ends_of_lines = "; ".join(
    f"{m}: {fmt(low)} at 1 %, {fmt(high)} at 50 %" for m, low, high in by_model.itertuples()
)
figure(
    "fig-zeroshot-prevalence",
    caption="Adjusted AUPRC of the same scores at different prevalences. A measure that is free of prevalence would give horizontal lines.",
    alt=f"Adjusted AUPRC for {hardest} against prevalence on a logarithmic axis, one line per model with an "
    f"interval band. {ends_of_lines}.",
    table=shown[["model", "prevalence", "metric", "value", "ci_low", "ci_high"]],
)

# %% tags=["remove-cell"]
auc = of_first.loc[of_first["metric"] == "auc", "value"]
glue("auc-range", f"{auc.max() - auc.min():.0e}" if auc.notna().all() else "undefined")
KEY = "adjusted_auprc"
lowest, highest = PREVALENCES[0], PREVALENCES[-1]
glue("lowest", percent(lowest))
glue("highest", percent(highest))
change = {
    m: bootstrap.interval(
        *(
            high - low
            for high, low in zip(
                measured[(m, highest), KEY], measured[(m, lowest), KEY], strict=True
            )
        ),
        method=chosen.interval,
    )
    for m in names
}
glue("change", "; ".join(f"{m} {fmt_row(change[m], signed=True)}" for m in names))
moved = [m for m in names if schema.side(change[m]) in ("above", "below")]
glue("n-moved", f"{len(moved)} of {len(names)}")
unmoved = "may do so, but not further than chance could take it"
glue("moves", "does" if moved else unmoved if len(defined) else "is undefined here")
glue("real-prevalence", percent(y.mean() if y.any() else None))

# %% [markdown]
# AUC does not move (by {glue:text}`auc-range`, which is rounding). The adjusted AUPRC
# {glue:text}`moves`: from a prevalence of {glue:text}`lowest` to one of {glue:text}`highest` it
# changes by {glue:text}`change`. These are the
# two ends of the lines of {numref}`fig-zeroshot-prevalence`. The interval of the change excludes 0 for
# {glue:text}`n-moved` models. Nothing about the models or the films has changed. (An estimate may
# lie near the edge of its interval: average precision is not a mean, and its resamples come out a little
# high where positives are rare.)
#
# "Adjusted" therefore means: random scores give 0 and perfect ones 1 at every prevalence. What lies
# between still depends on prevalence. Two findings, two hospitals or two groups of patients with
# unequal prevalence cannot be compared by it as they stand. In this cohort the prevalence of
# {glue:text}`hardest` is {glue:text}`real-prevalence`.

# %% [markdown]
# ## Beside the paper
#
# Table 1 of S as printed. It rests on {published}`S Section 2.3; n_images_with_findings_text` real films and
# {published}`S Section 2.4; n_models` published models.

# %% tags=["hide-input"]
theirs = published.table("S Table 1")
show(like_table_1(theirs, "auc"), caption="S, Table 1: AUC as printed")
show(like_table_1(theirs, "adjusted_auprc"), caption="S, Table 1: adjusted AUPRC as printed")

# %% tags=["hide-input"]
keep(ours)
verdicts = published.compare(ours, theirs)
NAMED = {
    "auc": "AUC",
    "adjusted_auprc": "adjusted AUPRC",
    "auc_sd_over_labels": "AUC, SD over findings",
    "adjusted_auprc_sd_over_labels": "adjusted AUPRC, SD over findings",
}
counts = verdicts.groupby(["metric", "verdict"], sort=False).size().rename("numbers of S")
counts = counts.reset_index().assign(metric=lambda t: t["metric"].map(NAMED))
show(counts, caption="Verdicts on the numbers of Table 1", counts=())

# %% tags=["remove-cell"]
s_mean = theirs[(theirs["label"] == "mean") & (theirs["metric"] == "auc")]
glue("s-low", fmt(s_mean["value"].min()))
glue("s-high", fmt(s_mean["value"].max()))
glue("s-worst", s_mean.loc[s_mean["value"].idxmin(), "model"])
glue("s-best", s_mean.loc[s_mean["value"].idxmax(), "model"])
our_means = pd.Series([mean[m]["value"] for m in names])
glue("our-low", fmt(our_means.min()))
glue("our-high", fmt(our_means.max()))
outside = (theirs["value"] < theirs["ci_low"]) | (theirs["value"] > theirs["ci_high"])
glue("n-outside", str(outside.sum()))
glue("outside", ", ".join(theirs.loc[outside, "model"].unique()) or "none")
glue("n-other", str((verdicts["verdict"] == published.OTHER_COHORT).sum()))
glue("n-s", str(len(verdicts)))

# %% [markdown]
# {glue:text}`n-other` of the {glue:text}`n-s` numbers get the verdict *not comparable (another cohort)*:
# the same quantities, other films. S chose its films from MIMIC-CXR in a way that is not public, so that
# no cohort of this book is that of its Table 1. Mean AUC runs from {glue:text}`s-low`
# ({glue:text}`s-worst`) to {glue:text}`s-high` ({glue:text}`s-best`) in S and from
# {glue:text}`our-low` to {glue:text}`our-high` in the cohort *{glue:text}`cohort`*. Whether these ranges
# overlap says nothing about anybody's models.
#
# {glue:text}`n-outside` printed intervals do not hold their own estimate (model:
# {glue:text}`outside`). The published tables mix two versions of the bootstrap, and the older one cut
# limits off at 0, which a negative adjusted AUPRC cannot survive. What carries over is the reading:
# means over findings, intervals, and the questions that the last sections put to them.

# %% [markdown]
# ## All the ways of asking
#
# A supervised classifier has one output for pneumothorax. A zero-shot classifier has as many as there
# are ways of asking. Paper S asks all models in one way. The authors of the models ask in others, and
# any phrase that says that a finding is there can be set against any that says that it is not. These
# are the phrases with a slot for the finding that can be traced to a paper or to its authors' code.

# %% tags=["hide-input"]
sides = {"is there": prompts.POSITIVE, "is not there": prompts.NEGATIVE}
asked_by = pd.DataFrame(
    [
        {"the finding": side, "phrase": x.text, "asked by": ", ".join(x.by), "source": x.source}
        for side, phrases_of_side in sides.items()
        for x in phrases_of_side
    ]
)
show(asked_by, caption="Phrases of papers and models")

# %% [markdown]
# Each phrase of the first kind against each of the second makes {glue:text}`n-single` pairs. One more
# way is to ask with all of them at once: the embeddings of the phrases are averaged on either side,
# which is called a prompt ensemble. The films need not be encoded again. A new question costs the
# embedding of a few words and one product of matrices.
#
# For each pair we take the mean AUC over the findings, and its difference between two groups of
# patients, which is the fairness gap of the pair: {glue:text}`gap-definition`. Findings without
# cases enough in one of the two groups are left out of both means.

# %%
pairs = prompts.pairs()
scores = {
    clip.name: zeroshot.pair_scores(cohort, clip, findings, list(pairs.values())) for clip in clips
}
GAPS = {"sex": ("F", "M"), "age_group": ("80+", "25-50")}
GAPS = {a: groups for a, groups in GAPS.items() if set(groups) <= set(cohort.table[a].dropna())}
points = wordings.pair_table(cohort, scores, findings, list(pairs), GAPS)

# %% tags=["hide-input"]
OWN = f"{zeroshot.POSITIVE} / {zeroshot.NEGATIVE}"
MARKS = {
    OWN: ("D", "#D55E00", "pair of paper S"),
    prompts.ALL: ("o", "none", "all phrases together"),
}
on_mean = points[points["label"] == "mean"]
titles = {("all", "all"): "mean AUC"} | {
    (a, f"{one} - {other}"): f"gap in mean AUC, {readable(f'{one} - {other}')}"
    for a, (one, other) in GAPS.items()
}
fig, axes = plt.subplots(len(titles), figsize=(5.6, len(titles) * (0.8 + 0.35 * len(names))))
for ax, ((attribute, group), title) in zip(np.atleast_1d(axes), titles.items(), strict=True):
    ax.axvline(0.5 if group == "all" else 0, color="#888888", linestyle=":", linewidth=1)
    of_panel = on_mean[(on_mean["attribute"] == attribute) & (on_mean["group"] == group)]
    for k, m in enumerate(names):
        strip = of_panel[of_panel["model"] == m].set_index("method")["value"]
        height = k + np.random.default_rng(seed).uniform(-0.25, 0.25, len(strip))
        ax.scatter(strip, height, s=14, color="#56B4E9", alpha=0.7, linewidths=0)
        for pair, (shape, inside, label) in MARKS.items():
            ax.scatter(
                *(strip[pair], k),
                **{"marker": shape, "s": 50, "facecolors": inside, "edgecolors": "black"},
                label=label if k == 0 else None,
                zorder=3,
            )
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5), xlabel=title)
told = []
for (attribute, group), title in titles.items():
    strip = on_mean[(on_mean["attribute"] == attribute) & (on_mean["group"] == group)]
    told.append(f"{title}: {in_words(strip)}")
handles, marked = np.atleast_1d(axes)[0].get_legend_handles_labels()
fig.legend(handles, marked, loc="outside upper center", ncols=2)
figure(
    "fig-zeroshot-wording",
    caption="Every pair of phrases is a dot: mean AUC over the findings, and the difference in it between groups of patients.",
    alt="Panels one above the other: mean AUC, and its gaps between groups of patients, each with a line at "
    "chance or zero. In each panel one strip of dots a model, one dot a pair of phrases; a diamond marks the "
    f"pair of paper S, a ring all phrases together. {' '.join(told)}",
    table=on_mean,
)

# %% [markdown]
# In {numref}`fig-zeroshot-wording` look at the width of a strip first: it is what the wording alone does.
# Intervals follow for the pairs that matter: that of S, the lowest, the highest and the ensemble of
# each model. All of them come from the same resamples of patients, so that the difference of a pair
# from that of S is paired. The other pairs are point values. Lowest and highest are picked on the very
# patients who then measure them, so they lie further out than they would on others; the section after
# this one is about that.


# %%
def ends(model):
    """The pairs with the lowest and the highest mean AUC of a model."""
    of_model = (on_mean["model"] == model) & (on_mean["attribute"] == "all")
    auc = on_mean[of_model].set_index("method")["value"].dropna()
    return (auc.idxmin(), auc.idxmax()) if len(auc) else (OWN, OWN)


roles = {
    m: dict(zip(("lowest", "highest"), ends(m), strict=True))
    | {"of S": OWN, "all phrases": prompts.ALL}
    for m in names
}
compared = {
    m: [(pair, OWN) for pair in which.values()] + [(which["highest"], which["lowest"])]
    for m, which in roles.items()
}
measured = wordings.interval_table(cohort, scores, findings, list(pairs), compared, GAPS, **boot)
measured = measured[measured["label"] == "mean"]

# %% tags=["hide-input"]
printed = []
for m in names:
    for pair in dict.fromkeys(roles[m].values()):
        of_pair = {"model": m, "method": pair}
        line = {"model": m, "pair": ", ".join(r for r in roles[m] if roles[m][r] == pair)}
        line["mean AUC"] = fmt_row(schema.row(measured, **of_pair, attribute="all"))
        line["less that of S"] = ""
        if pair != OWN:
            less = schema.row(measured, model=m, method=f"{pair} - {OWN}", attribute="all")
            line["less that of S"] = fmt_row(less, signed=True)
        for attribute, groups in GAPS.items():
            gap = schema.row(measured, **of_pair, attribute=attribute)
            line[f"gap, {readable(' - '.join(groups))}"] = fmt_row(gap, signed=True)
        line["wording"] = pair
        printed.append(line)
show(
    pd.DataFrame(printed),
    caption=f"Mean zero-shot AUC and its gaps by wording, with 95 % intervals over {chosen.unit}s",
)
counts = ["n", "n_positive", "n_patients"]
based_on = on_mean[on_mean["model"] == names[0]].drop_duplicates(["attribute", "group"])
based_on = based_on[["attribute", "group", *counts]].reset_index(drop=True)
based_on["group"] = based_on["group"].map(readable)
based_on["attribute"] = based_on["attribute"].map(readable)
based_on = based_on.rename(
    columns={"n": "films", "n_positive": "fewest with a finding", "n_patients": "patients"}
)
show(
    based_on,
    caption="What these numbers rest on, the same for every pair and model",
    missing="hidden",
)

# %% tags=["remove-cell"]
auc = on_mean[on_mean["attribute"] == "all"].pivot(index="method", columns="model", values="value")
known = auc.notna().all().all()
glue("n-single", str(len(pairs) - 1))
glue("n-pairs", str(len(pairs)))
glue(
    "gap-definition",
    " and ".join(f"{readable(a)}, {readable(' - '.join(g))}" for a, g in GAPS.items())
    or "none here, for want of patients",
)
glue("swing-mean", fmt((auc.max() - auc.min()).max()))
below_s = {m: int((auc[m] < auc.loc[OWN, m]).sum()) if known else np.nan for m in names}
below_all = {m: int((auc[m] < auc.loc[prompts.ALL, m]).sum()) if known else np.nan for m in names}
of_all = {
    m: schema.row(measured, model=m, method=f"{prompts.ALL} - {OWN}", attribute="all")
    for m in names
}
sides = [schema.side(row) for row in of_all.values()]
most = (len(pairs) - 1) / 2
glue("s-good", f"{sum(k > most for k in below_s.values())} of {len(names)}")
glue("all-good", f"{sum(k > most for k in below_all.values())} of {len(names)}")
for key, side in {"all-higher": "above", "all-lower": "below", "all-around": "around"}.items():
    glue(key, f"{sides.count(side)} of {len(names)}")
by_label = points[(points["label"] != "mean") & (points["attribute"] == "all")]
swing = by_label.groupby(["model", "label"])["value"].agg(["min", "max"]).dropna()
swing["swing"] = swing["max"] - swing["min"]
widest = swing["swing"].idxmax() if len(swing) else None
glue(
    "swing-one",
    f"{widest[1]} in {widest[0]}, from {fmt(swing.loc[widest, 'min'])} to "
    f"{fmt(swing.loc[widest, 'max'])}"
    if widest
    else "undefined",
)
glue(
    "below-chance",
    f"{int((swing['min'] < 0.5).sum())} of {len(swing)}" if len(swing) else "undefined",
)


def signs(attribute, groups):
    """With how many pairs the gap has the other sign than with the pair of S."""
    rows = on_mean[on_mean["attribute"] == attribute]
    gap = rows.pivot(index="method", columns="model", values="value")[names]
    if gap.isna().any().any():
        return f"{readable(' - '.join(groups))} undefined"
    turned = (np.sign(gap) == -np.sign(gap.loc[OWN])).sum()
    most = turned.idxmax()
    ends_of_most = (fmt(x, 3, signed=True) for x in (gap[most].min(), gap[most].max()))
    return (
        f"{readable(' - '.join(groups))} {turned.sum()} of {(len(gap) - 1) * len(names)}, most of them "
        f"in {most} ({turned[most]}), where the gap runs from {' to '.join(ends_of_most)}"
        if turned.any()
        else f"{readable(' - '.join(groups))} none of {(len(gap) - 1) * len(names)}"
    )


glue("signs", "; ".join(signs(a, g) for a, g in GAPS.items()) or "undefined")
thin = points[(points["label"] != "mean") & points["value"].isna()]
thin = thin.drop_duplicates(["group", "label"]).groupby("group", sort=False)["label"]
glue(
    "left-out",
    "; ".join(
        f"{readable(group)}: {'all' if len(x) == len(findings) else ', '.join(x)}"
        for group, x in thin
    )
    or "none",
)
shown_gaps = measured[measured["attribute"] != "all"].apply(schema.side, axis=1)
by_gap = on_mean[on_mean["attribute"] != "all"].groupby(["group", "model"])["value"].agg(np.ptp)
glue("swing-gap", fmt(by_gap.max()) if len(by_gap) else "undefined")
glue("n-gaps", str(len(shown_gaps)))
glue("n-gaps-clear", str(shown_gaps.isin(["above", "below"]).sum() if len(shown_gaps) else 0))

# %% tags=["hide-input"]
strips = pd.DataFrame({"model": names})
strips["lowest to highest"] = [f"{fmt(auc[m].min())} to {fmt(auc[m].max())}" for m in names]
strips["all phrases less that of S"] = [fmt_row(of_all[m], 3, signed=True) for m in names]
strips["below that of S"] = [str(below_s[m]) for m in names]
strips["below all phrases"] = [str(below_all[m]) for m in names]
show(
    strips,
    caption=f"The strips of mean AUC in numbers; below: how many of the other {len(pairs) - 1} ways of asking",
)

# %% [markdown]
# Over {glue:text}`n-pairs` ways of asking, the mean AUC of a single model moves by up to
# {glue:text}`swing-mean`. The largest swing of a single finding is that of {glue:text}`swing-one`. In
# {glue:text}`below-chance` combinations of model and finding, at least one pair ranks films worse than a
# coin. Nothing about models or films differs between the dots of a strip.
#
# The pair of S does better than most others in {glue:text}`s-good` models, all phrases together do better
# than most single pairs in {glue:text}`all-good`. Set against the pair of S, all phrases together are higher
# in {glue:text}`all-higher` models, lower in {glue:text}`all-lower`, and not told apart in
# {glue:text}`all-around`. They need no choice, and so no other patients to choose on.
#
# Which phrases do well depends on the reports that a model learned from, and the small models of this
# book learned from those of phantoms. How far apart the dots lie is what to take along, not their
# order.
#
# Is the fairness gap a property of the wording, too? Combinations of model and pair in which it has the
# other sign than with the pair of S: {glue:text}`signs`. Of the {glue:text}`n-gaps` gaps in the table,
# the intervals of {glue:text}`n-gaps-clear` exclude 0. Where an interval includes 0, a change of sign
# may be chance; to call a model fair or unfair by one wording is to say too much in any case. Findings
# left out because a group has fewer than ten films with them, or without them: {glue:text}`left-out`.
#
# ### Choosing a wording
#
# What would somebody report who tries all pairs on the test set and prints the best? And does a choice
# hold on other patients? Patients are split at random into halves, {glue:text}`n-splits` times. The
# pair with the highest mean AUC on one half is reported there, which is what choosing on the test set
# does, and on the other half, which is honest. The difference is the *optimism* of the choice. The choice
# can also be made for each finding separately, which leaves more room for luck. The means are over the
# {glue:text}`n-kept` findings that have ten cases and ten controls in every half.

# %%
truth = cohort.table[list(findings)].to_numpy(int)
patients = cohort.table["patient_id"].to_numpy()
halves = pd.concat(
    [
        wordings.chosen_on_half(
            *(scores[m], truth, patients, list(pairs), OWN, n_splits, seed), each=each
        ).assign(model=m, choice="one for each finding" if each else "one for all findings")
        for m in names
        for each in (False, True)
    ],
    ignore_index=True,
)
halves["optimism"] = halves["seen"] - halves["unseen"]
halves["gain over S"] = halves["unseen"] - halves["own"]


# %% tags=["hide-input"]
def over_halves(values):
    """Mean over the halves, and between which limits nine of ten lie."""
    low, high = values.quantile([0.05, 0.95])
    return fmt_interval(values.mean(), low, high, 3, signed=values.name not in ("seen", "unseen"))


shown_columns = ["seen", "unseen", "optimism", "gain over S"]
if len(halves):
    summary = halves.groupby(["model", "choice"], sort=False)[shown_columns].agg(over_halves)
    summary.columns = [
        "AUC where chosen",
        "AUC on other patients",
        "optimism",
        "gain over the pair of S, on other patients",
    ]
    show(
        summary.reset_index(),
        caption="The best pair of one half of the patients: mean over halves [5 %, 95 % of them]",
    )
else:
    print("No finding has films enough in every half of the patients.")

# %% tags=["remove-cell"]
optimism, optimism_each = (
    halves.loc[halves["choice"] == which, "optimism"].mean() if len(halves) else np.nan
    for which in ("one for all findings", "one for each finding")
)
glue(
    "which-cohort",
    "The films are phantoms: that one model is ahead of another here says nothing about real films, and "
    "nothing about the published models."
    if cohort.planted
    else "The cohort is one data set; the labels were read from reports by software.",
)
glue("n-splits", str(n_splits))
glue("n-kept", f"{halves['labels'].iloc[0] if len(halves) else 0} of {len(findings)}")
average = halves.groupby(["choice", "model"], sort=False)[["optimism", "gain over S"]].mean()


def said(choice, column):
    """For how many models the average is above 0 as it is printed, and the average of all."""
    if not len(halves):
        return "undefined"
    values = average.loc[choice, column]
    count = f"{int((values.round(3) > 0).sum())} of {len(values)}"
    return f"{fmt(values.mean(), 3, signed=True)} on average over the models, above 0 for {count}"


glue("optimism-all", said("one for all findings", "optimism"))
glue("optimism-each", said("one for each finding", "optimism"))
glue("gain-all", said("one for all findings", "gain over S"))
glue("gain-each", said("one for each finding", "gain over S"))
picked = halves[halves["choice"] == "one for all findings"].groupby("model", sort=False)["chosen"]
glue(
    "picked",
    "; ".join(f"{m} {x.nunique()}, that of S in {percent((x == OWN).mean())}" for m, x in picked)
    or "undefined",
)
if len(halves):
    larger = average.loc["one for each finding", "optimism"].mean()
    larger -= average.loc["one for all findings", "optimism"].mean()
glue(
    "each-larger",
    "undefined" if not len(halves) else "larger" if larger > 0 else "no larger",
)

# %% [markdown]
# The optimism of one pair for all findings is {glue:text}`optimism-all`. With one pair for each finding it is
# {glue:text}`optimism-each`: {glue:text}`each-larger` with more choices. How many different pairs won on some
# half, and in how many halves that of S did: {glue:text}`picked`.
#
# What the choice is worth on other patients, against asking as S did: {glue:text}`gain-all`, with one pair for
# all findings; {glue:text}`gain-each`, with one for each.
#
# The limits in the table are those of halves of one cohort, which overlap; they are no intervals for
# other patients. Optimism grows with the number of pairs and shrinks with the number of patients. It
# has a cure, which is to choose on patients who are not in the test set. The width of the strips has
# none: a table of zero-shot results is a table of *models with a wording*.

# %% tags=["remove-input"]
quiz(
    f"A colleague tries all {len(pairs)} ways of asking on the test set and reports the best mean AUC with "
    "a 95 % interval over patients. What is wrong with it?",
    {
        "Nothing: the interval allows for chance.": (
            False,
            "It allows for other patients, with the wording given. It does not know that the wording was "
            "picked because it did well on these very patients.",
        ),
        "The pair was picked for these patients, and the interval does not say so.": (
            True,
            "What it costs depends on how close the best pairs are, and on the number of patients. Averaged "
            f"over the models and halves of this run it is {fmt(optimism, 3, signed=True)} in mean AUC, and "
            f"{fmt(optimism_each, 3, signed=True)} with a pair for each finding. With fewer patients it is more.",
        ),
        "The interval should be over films.": (
            False,
            "Films of one patient are not independent, and the choice would remain unsaid.",
        ),
    },
)

# %% [markdown]
# ## What was planted, and was it found?
#
# {glue:text}`plan`
#
# Something finer was planted too. The phantom knows how *severe* each finding is, from barely drawn to
# plain. No label and no phrase says so. If a score means what it should, the severe half of the films with a
# finding must be told from films without it more easily than the mild half.

# %% tags=["hide-input"]
rows = []
for name in names if cohort.planted else ():
    for label in findings:
        one = predictions[(predictions["model"] == name) & (predictions["label"] == label)]
        score, severity = one["score"].to_numpy(), cohort.table[f"severity_{label}"].to_numpy()
        ill = severity > 0
        middle = np.median(severity[ill]) if ill.any() else 0
        of_half = {"mild half": severity <= middle, "severe half": severity > middle}
        for part, of_part in of_half.items():
            kept = ~ill | of_part
            value = metrics.auc(ill[kept].astype(int), score[kept])
            rows.append({"model": name, "finding": label, "half": part, "AUC": value})
if rows:
    halves_of_ill = pd.DataFrame(rows).pivot(
        index=["model", "finding"], columns="half", values="AUC"
    )
    by_model = halves_of_ill.groupby(level="model").mean().loc[names]
    show(
        by_model.rename_axis(columns=None),
        caption="Mean AUC over the findings, mild and severe halves of the films with a finding",
    )
    easier = halves_of_ill["severe half"] > halves_of_ill["mild half"]
    found_severity = f"{easier.sum()} of {len(easier)}"
else:
    print("Nothing was planted in this cohort.")
    found_severity = "none, as nothing was planted"
glue("severity", found_severity)
faded = cohort.recipe.get("dials", {}).get("contrast", {}).get("age_group", {})
faded = ", ".join(f"{group} {factor:g}" for group, factor in faded.items())
of_age = measured[(measured["attribute"] == "age_group") & (measured["method"] == OWN)]
sides = [schema.side(row) for _, row in of_age.iterrows()]
known_sides = [side for side in sides if side != "undefined"]
glue(
    "fading",
    f"A bias was planted as well: the dial contrast fades findings with age (factors {faded}). With the "
    f"pair of S, the gap by age lies below 0 with its whole interval in {known_sides.count('below')} of the "
    f"{len(known_sides)} models where it is defined. The chapter on subgroups takes it from there."
    if faded
    else "No fading of findings with age was planted here.",
)

# %% [markdown]
# The severe half is the easier one in this many combinations of model and finding:
# {glue:text}`severity`. No model was told about severity; where it ranks by it, it saw what there is to see.
#
# {glue:text}`fading`
#
# ## Limits
#
# - {glue:text}`which-cohort`
# - AUC and adjusted AUPRC know no threshold. Whether an alarm is worth its cost, and whether a
#   probability keeps its word, is asked in the chapter on calibration.
# - The intervals are about other patients *like these*. Another hospital has other scanners, other reports
#   and other labels, and no bootstrap knows them.
# - The phrases are those that could be traced to a source, not all that could be asked.
#
# ## What we learned
#
# - A zero-shot probability is a comparison of two phrases. Every finding has the same opponent, and the
#   number depends on a scale that some published evaluations leave out.
# - That the mean AUC of the small CLIPs lies in the planned range is {glue:text}`expected`; the severe half
#   of the films is the easier one in {glue:text}`severity` combinations.
# - S's $\pm$ is a spread over diseases. The uncertainty of a mean, and of a difference between models,
#   comes from resampling patients, and differences have to be paired.
# - Adjusted AUPRC is not free of prevalence: it moved, beyond what chance explains, for
#   {glue:text}`n-moved` models while nothing but the prevalence changed.
# - The wording is part of the model. Over {glue:text}`n-pairs` ways of asking, the mean AUC of one model
#   ran over a range of up to {glue:text}`swing-mean`, and its gap between two groups of patients over one
#   of up to {glue:text}`swing-gap`.
# - Whoever prints the best of several wordings has tuned on the test set. Choose on other patients, or
#   ask with all phrases together.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-zeroshot-by-hand
# A model has an AUPRC of 0.4. Compute its adjusted AUPRC at a prevalence of 0.4, of 0.1 and of 0.01.
# Would you say that a model with 0.4 at 1 % prevalence is as good as one with 0.4 at 10 %?
# ```
#
# ```{solution} ex-zeroshot-by-hand
# :class: dropdown
# $1 - \log 0.4 / \log 0.4 = 0$: random. At 0.1 it is $1 - \log 0.4 / \log 0.1 = 0.60$, at 0.01 it is
# 0.80. At 1 % the model has lifted precision to forty times that of random scores, at 10 % to four
# times; the adjusted value rewards this. To a ward that acts on alarms both mean the same: about four
# alarms in ten are true.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-seven
# Replace the two-way softmax by one softmax over all seven phrases. Can the AUC of a finding change?
# Does AUC change if only the logit scale changes?
# ```
#
# ```{solution} ex-zeroshot-seven
# :class: dropdown
# Yes: the score of one finding now also depends on the similarities to the others, so the order of
# films can change. A film with two findings loses most, since they compete. The logit scale cannot
# change the two-way score's order, because the sigmoid is increasing; in the seven-way softmax even
# that no longer holds. `zeroshot.softmax` and `embed.embed_text` are all you need to try it.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-case
# The paper writes "Chest No Findings", its public code "Chest No findings". Does it matter for the
# small CLIPs? For which models would it?
# ```
#
# ```{solution} ex-zeroshot-case
# :class: dropdown
# Call `zeroshot.predict(cohort, clips, findings, negative="Chest No findings")` and compare the scores:
# they are identical, since the tokenizer of these models ignores case. For a model with a cased
# vocabulary the two are different tokens, hence different embeddings, hence another ranking.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-opponent
# How much of the AUC for pneumothorax comes from the *opponent* alone? Rank films by minus their
# similarity to "Chest No Findings".
# ```
#
# ```{solution} ex-zeroshot-opponent
# :class: dropdown
# Compute `-(embed(cohort, clip) @ embed_text(["Chest No Findings"], clip)[0])` and pass it to
# `metrics.auc` with the column `Pneumothorax` of `cohort.table`. Whatever lies above one half is the
# model's sense that *something* is wrong. A test set whose negatives are all healthy would credit it
# to pneumothorax.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-side
# Which matters more for the mean AUC, the phrase of the finding or its opponent? `points` has all that
# you need.
# ```
#
# ```{solution} ex-zeroshot-side
# :class: dropdown
# Take the rows with `label` "mean" and `attribute` "all" of a model, without the ensemble, split
# `method` at " / " into two columns, pivot to a table of phrase by opponent, and compare the spread of its row
# means with that of its column means. If one is much larger, this side of the question decides. Then
# look at what remains when both are taken away: a phrase that does well against one opponent need not
# do so against another.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-quarter
# Run the chapter with a quarter of the films, `-p n_images=1000`. Predict before you look: what happens to
# the width of the interval of the mean AUC of {glue:text}`first`, and what to the $\pm$ of paper S, its
# standard deviation over the findings?
# ```

# %% tags=["remove-cell", "solution"]
by_age = points[(points["attribute"] == "age_group") & (points["label"] == "mean")]
by_age = by_age[(by_age["model"] == names[0]) & (by_age["method"] == OWN)]["value"]
glue("gap-age", fmt(by_age.iloc[0] if len(by_age) else None, signed=True))
glue("share-old", percent((cohort.table["age_group"] == "80+").mean()))
glue("width", fmt(2 * half, 3))
glue("width-quarter", fmt(4 * half, 3))

# %% [markdown]
# ```{solution} ex-zeroshot-quarter
# :class: dropdown
# An interval shrinks with the root of the number of patients: with a quarter of them it is about twice as
# wide. In this run it is {glue:text}`width` wide, so expect about {glue:text}`width-quarter`. The standard
# deviation over the findings is {glue:text}`first-sd` here. It has no reason to grow or to shrink (it only
# becomes less exact), since some findings stay easier than others. The one number is about patients, the
# other about diseases.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-fade
# Plant a stronger bias: `-p options='{"dials": {"contrast": {"age_group": {"80+": 0.2}}}}'` makes the
# findings of the oldest patients nearly invisible, and leaves all others as drawn. Which numbers of this
# chapter will notice: the mean AUC, the gap by sex, the gap by age?
# ```
#
# ```{solution} ex-zeroshot-fade
# :class: dropdown
# The gap by age: for {glue:text}`first` and the pair of S it is {glue:text}`gap-age` now, and will be far
# below that. The gap by sex should not move beyond chance, since the dial does not know sex. The
# mean AUC may hardly move: only {glue:text}`share-old` of the films are of patients of 80 years and more,
# and the default dials, which fade findings from 50 years on, are gone. A harm to a small group hides well
# in a mean.
# ```
#
# ## Further reading
#
# - {cite:t}`radford2021` introduce CLIP, zero-shot classification, and the first lists of prompts.
# - {cite:t}`tiu2022` bring it to chest radiographs, with pairs of a phrase and its negation.
# - {cite:t}`zhou2022coop` learn the wording from labelled images instead of guessing it.
# - {cite:t}`saito2015` explain what precision-recall curves show that ROC curves hide.
# - {cite:t}`mosquera2024` compare metrics under imbalance, and propose the adjusted AUPRC.
# - {cite:t}`hesterberg2015` teaches the bootstrap, and where it fails.
