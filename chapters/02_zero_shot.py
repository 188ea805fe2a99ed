# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.1: ""
#       S 3.1: ""
#       S Table 1: fig-zeroshot-auc
#     goals:
#       - say how two phrases become a probability, and what the logit scale does to it
#       - read a table of AUC and adjusted AUPRC, and tell a spread over diseases from an uncertainty
#       - show that the wording of a question moves both performance and fairness
#     needs: [01_data_curation]
#     minutes: 40
# ---

# %% [markdown]
# # Zero-shot: asking a model in words
#
# *Answers sections 2.1 and 3.1 of {cite:t}`sourget2025`, paper S, and its Table 1.*
#
# A radiologist never trained this model to find a pneumothorax. It read films and reports side by side
# and learned which words go with which shadows. Now somebody asks: is there a pneumothorax on this
# film? The question has to be put as two phrases, and the answer is whichever phrase lies closer to
# the image. Can a clinician rely on an answer that is obtained this way? And what does a table of such
# answers tell her?
#
# This chapter follows one film from its similarities to its probabilities, builds the table of paper S
# for the models of this run, and then looks at what stands behind each of its numbers: the
# prevalence, the unit of the interval, and the wording of the question.

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models` separated by commas, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, such as {"split": "all"}, or the dials of a phantom
seed: int = 1907  # [0, 1000000] seed of the phantom cohort and of the resamples
n_images: int = 4000  # [60, 1000000] images in the phantom cohort; real cohorts are taken whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
n_splits: int = 20  # [1, 1000] random halves of the patients, to choose a wording on one of them
protocol: str = "corrected"  # {corrected, as_published} models, prompt and resampling of S's code

# %% tags=["remove-cell"]
from cxrlib.parameters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from cxrlib import (
    bootstrap,
    cohorts,
    evaluation,
    fairness,
    guard,
    metrics,
    prompts,
    published,
    schema,
    wordings,
    zeroshot,
)
from cxrlib import models as registry
from cxrlib import protocol as protocols
from cxrlib.embed import embed, embed_text
from cxrlib.models.leaks import leaks
from cxrlib.notebook import (
    figure,
    fmt,
    fmt_interval,
    glue,
    keep,
    percent,
    setup,
    show,
    warn_if_seeded,
    withheld,
)
from cxrlib.plots import bars, dose_response, gap_forest, in_words
from cxrlib.plots import name as readable

setup()
chosen = protocols.protocol(protocol)
clips = [registry.load(name, chosen) for name in registry.choose(models)]
names = [clip.name for clip in clips]
boot = {"n_resamples": n_resamples, "seed": seed, "unit": chosen.unit, "interval": chosen.interval}
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
)


def interval(row, digits=2, signed=False):
    return fmt_interval(row["value"], row["ci_low"], row["ci_high"], digits, signed)


warn_if_seeded(names)

# %% [markdown]
# ## One film, seven phrases
#
# The models are CLIPs {cite:p}`radford2021`: an image encoder and a text encoder that were trained
# together, so that a film and its own report get similar embeddings. Embeddings have length 1, and
# their similarity is the cosine of the angle between them. It lies between $-1$ and
# $1$.{glue:text}`long-texts`

# %%
cohort = cohorts.study(data, n_images, seed, options, preprocessing=chosen.preprocessing)
described = registry.describe(names).set_index("name").rename_axis("model")
described.columns = [c.replace("_", " ") for c in described]
show(described, caption="The models of this run", counts=())

# %% [markdown]
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
effusion = shown.table["severity_Pleural Effusion" if shown.planted else "Pleural Effusion"]
film = int(np.argmax(alone * effusion))
phrases = [f"Chest {label}" for label in LABELS] + ["Chest No Findings"]
clip = clips[0]
if chosen.temperature == "none":  # the film is answered with the learned scale too
    clip = registry.load(names[0], replace(chosen, temperature="learned"))
clip = clip.members[0]  # of an ensemble, its first checkpoint
similarity = zeroshot.similarity(
    embed(shown, clip)[[film]], embed_text(phrases, clip), clip.unit_text
)[0]
if guard.active():
    withheld("the film")

# %% tags=["hide-input"]
fig, (picture, lengths) = plt.subplots(1, 2, figsize=(7, 3), width_ratios=(1, 1.3))
picture.axis("off")
if not guard.active():
    # a phantom can be drawn finer than the models see it
    fine = cohorts.study(data, n_images, seed, options, size=192) if cohort.planted else cohort
    picture.imshow(fine.images([film])[0], cmap="gray", vmin=0, vmax=255)
lengths.barh(phrases[:-1], similarity[:-1], color="#56B4E9")
lengths.axvline(similarity[-1], color="#D55E00", linestyle="--", label="Chest No Findings")
lengths.axvline(0, color="#888888", linewidth=1)
lengths.set(xlabel="cosine similarity", ylim=(5.6, -0.6))
lengths.legend(loc="lower center", bbox_to_anchor=(0.5, 1))
fig.suptitle(names[0])
figure(
    "fig-zeroshot-film",
    caption='A film, and its similarity to the phrase of each finding. The dashed line is the similarity to "Chest No Findings": what counts is the distance of a bar\'s end from it.',
    alt="Left: a chest radiograph, where it may be shown. Right: horizontal bars of its cosine similarity to six phrases, one a finding, with a dashed line at its similarity to Chest No Findings.",
)

# %% [markdown]
# A similarity by itself means little. Paper S turns two of them into a probability: the softmax over
# the phrase of the finding, with similarity $s_+$, and the phrase of health, with similarity $s_-$:
#
# $$ p = \frac{e^{\tau s_+}}{e^{\tau s_+} + e^{\tau s_-}} = \frac{1}{1 + e^{-\tau (s_+ - s_-)}} $$ (eq-zero-shot)
#
# The factor $\tau$, the *logit scale*, was learned in training. Some of the models in S were used
# without it, which is the same as $\tau = 1$.

# %%
margin = similarity[:-1] - similarity[-1]
answers = pd.DataFrame({"finding": LABELS, "on the film": shown.table[list(LABELS)].iloc[film]})
answers["on the film"] = answers["on the film"].map({0: "no", 1: "yes"})
answers["s+"] = similarity[:-1]
answers["s+ - s-"] = margin
answers["p, scale 1"] = 1 / (1 + np.exp(-margin))
answers["p, learned scale"] = 1 / (1 + np.exp(-clip.logit_scale * margin))
show(answers.reset_index(drop=True), caption=f"What {names[0]} answers for this film")

# %% tags=["remove-cell"]
glue(
    "which-film",
    ("the films of this cohort may not be shown, so it is a phantom, " if guard.active() else "")
    + (
        "the first of the cohort, as none has a pleural effusion and nothing else"
        if not (alone * effusion).any()
        else "the most severe pleural effusion among the films that show nothing else"
        if shown.planted
        else "the first of the cohort with a pleural effusion and no other finding"
    ),
)
glue("first", names[0])
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
# scores higher than one without. The adjusted AUPRC starts from the precision-recall curve and sets its
# area against the prevalence $\pi$, which is what random scores would reach {cite:p}`mosquera2024`:
#
# $$ \mathrm{AUPRC}_{adj} = 1 - \frac{\log \mathrm{AUPRC}}{\log \pi} $$ (eq-auprc-adj)
#
# 0 is random, 1 is perfect. The intervals come from drawing {glue:text}`drawn` again.

# %%
predictions = zeroshot.predict(cohort, clips, LABELS, negative=chosen.negative_prompt)
results = evaluation.performance_table(
    predictions, protocol=chosen, n_resamples=n_resamples, seed=seed
)
results = results[results["metric"].isin(evaluation.METRICS)]

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
    alt="Bars of zero-shot AUC for six findings and their mean, one bar a model, with interval whiskers "
    f"and a dashed line at chance. {in_words(shown)}",
    table=shown,
)

# %% tags=["hide-input"]
fig = bars(results[results["metric"] == "adjusted_auprc"])
figure(
    "fig-zeroshot-auprc",
    caption="Zero-shot adjusted AUPRC by finding and model. The dashed line is what random scores give.",
    alt="Bars of zero-shot adjusted AUPRC for six findings and their mean, one bar a model, with interval whiskers and a dashed line at zero.",
)

# %% tags=["remove-cell"]
LOW, HIGH = 0.78, 0.95  # what the training of the models was planned to reach
mean = {m: schema.row(results, model=m, label="mean", metric="auc", attribute="all") for m in names}
glue(
    "drawn",
    "patients, each with all of their films," if chosen.unit == "patient" else "films, as S does,",
)
glue(
    "no-mean-interval",
    ""
    if chosen.over_labels == "interval"
    else ", but for the interval of the mean, which S does not compute",
)
glue("cohort", cohort.name)
glue("n-images", len(cohort.table))
glue("n-patients", cohort.table["patient_id"].nunique())
glue("means", "; ".join(f"{m} {interval(mean[m])}" for m in names))
own = [m for m in names if m in registry.names() and cohort.planted]
found = [m for m in own if LOW <= mean[m]["value"] <= HIGH]
missed = [m for m in own if m not in found]
unjudged = "not judged, as none was run on phantoms"
expected = f"found for {len(found)} of {len(own)} models" if own else unjudged
glue("expected", expected)
glue(
    "plan",
    f"The small CLIPs of this book were built to be good but not perfect, with a mean AUC between {LOW} "
    f"and {HIGH} on phantom patients whom they have not seen. This is {expected}"
    + (f", not found for {', '.join(missed)}." if missed else "."),
)
alike = schema.row(ours, model=names[0], label="mean", metric="auc_sd_over_labels")
glue("first-mean", interval(mean[names[0]]))
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
hardest = defined.index[0] if len(defined) else LABELS[0]
glue("hardest", hardest if len(defined) else "undefined")

# %% [markdown]
# The mean AUCs are: {glue:text}`means`. {glue:text}`plan`
#
# For {glue:text}`first` the mean is {glue:text}`first-mean`, an uncertainty of about
# $\pm$ {glue:text}`first-half`. Its standard deviation over the findings is {glue:text}`first-sd`, some
# {glue:text}`sd-over-half` times as large. {glue:text}`spread-moral` Averaged over models, the hardest
# finding is {glue:text}`hardest` and the easiest {glue:text}`easiest`.

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
    fig = gap_forest(gaps)
    figure(
        "fig-zeroshot-gaps",
        caption="Difference in zero-shot AUC from the first model, paired over the same resamples of patients.",
        alt="Differences in zero-shot AUC between each further model and the first one, one line a finding and one for the mean, with intervals around a line at zero.",
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
    return f"{a}: {interval(row, 3, signed=True)}, {WORDS[schema.side(row)]}"


glue("gaps", "; ".join(verdict(a, b) for a, b in pairs) or "no second model was run")

# %% [markdown]
# Differences in mean AUC from {glue:text}`first`: {glue:text}`gaps`. The wording "not told apart" is
# chosen with care. An interval that includes 0 does not show that two models are equal.

# %% [markdown]
# ## What is resampled?
#
# Paper S resamples films. Films of one patient resemble each other, so a film brings less news than
# it seems to, and an interval over films tends to be too narrow. Here are both, on the same
# predictions.

# %%
by_patient, by_image = (
    fairness.performance_table(predictions, **(boot | {"unit": unit}))
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
# several, and the weight sets the prevalence. The finding is the hardest one, {glue:text}`hardest`.


# %%
def at_prevalence(y, prevalence):
    """One weight a film: 1 for films with the finding; the others make up the prevalence."""
    negatives = y.sum() * (1 - prevalence) / prevalence
    return np.where(y == 1, 1.0, negatives / max((y == 0).sum(), 1))


def coarse(y, score):
    """Scores as ranks of blocks of films, each with ten or more that have the finding, and that lack it."""
    rank, block, inside = 0, np.zeros(len(y), int), [0, 0]
    for i in np.argsort(score):
        block[i] = rank
        inside[y[i]] += 1
        if min(inside) >= guard.MIN_CELL:
            rank, inside = rank + 1, [0, 0]
    return np.minimum(block, max(rank - 1, 0))  # what is left over joins the last full block


one = predictions[(predictions["model"] == names[0]) & (predictions["label"] == hardest)]
y, score = one["y_true"].to_numpy(), one["score"].to_numpy()
if not len(defined):  # no finding has films enough: what follows is undefined
    y = np.zeros_like(y)

# %% tags=["hide-input"]
marks = coarse(y, score) if guard.active() else score  # no step of the curves is a single film
fig, axes = plt.subplots(1, 2, figsize=(7, 3.4))
shades = {0.5: "#56B4E9", 0.1: "#0072B2", 0.01: "#D55E00"}
for width, (prevalence, shade) in zip((6, 3.5, 1.2), shades.items(), strict=True):
    if y.any():
        weight = at_prevalence(y, prevalence)
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
    alt="Left: ROC curves at three prevalences, drawn with different line widths because they coincide. Right: the precision-recall curves at the same prevalences, which lie apart, each with a dotted line at its prevalence.",
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
figure(
    "fig-zeroshot-prevalence",
    caption="Adjusted AUPRC of the same scores at different prevalences. A measure that is free of prevalence would give horizontal lines.",
    alt="Adjusted AUPRC for one finding over prevalence on a logarithmic axis, one line a model with an interval band.",
)

# %% tags=["remove-cell"]
auc = of_first.loc[of_first["metric"] == "auc", "value"]
glue("auc-range", f"{auc.max() - auc.min():.0e}" if auc.notna().all() else "undefined")
KEY = "adjusted_auprc"
change = {
    m: bootstrap.interval(
        *(
            high - low
            for high, low in zip(measured[(m, 0.5), KEY], measured[(m, 0.01), KEY], strict=True)
        ),
        method=chosen.interval,
    )
    for m in names
}
glue("change", "; ".join(f"{m} {interval(change[m], signed=True)}" for m in names))
moved = [m for m in names if schema.side(change[m]) in ("above", "below")]
glue("n-moved", f"{len(moved)} of {len(names)}")
glue("real-prevalence", percent(y.mean() if y.any() else None))

# %% [markdown]
# AUC does not move (by {glue:text}`auc-range`, which is rounding). The adjusted AUPRC does: from a
# prevalence of 1 % to one of 50 % it changes by {glue:text}`change`. The interval of the change excludes
# 0 for {glue:text}`n-moved` models. Nothing about the models or the films has changed. (An estimate may
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
# Table 1 of S as printed. It rests on 8,950 real films and six published models.

# %% tags=["hide-input"]
theirs = published.table("S Table 1")
show(like_table_1(theirs, "auc"), caption="S, Table 1: AUC as printed")
show(like_table_1(theirs, "adjusted_auprc"), caption="S, Table 1: adjusted AUPRC as printed")

# %%
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
    clip.name: zeroshot.pair_scores(cohort, clip, LABELS, list(pairs.values())) for clip in clips
}
GAPS = {"sex": ("F", "M"), "age_group": ("80+", "25-50")}
GAPS = {a: groups for a, groups in GAPS.items() if set(groups) <= set(cohort.table[a].dropna())}
points = wordings.pair_table(cohort, scores, LABELS, list(pairs), GAPS)

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
fig, axes = plt.subplots(len(titles), figsize=(7, len(titles) * (0.8 + 0.35 * len(names))))
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
handles, marked = np.atleast_1d(axes)[0].get_legend_handles_labels()
fig.legend(handles, marked, loc="outside upper center", ncols=2)
figure(
    "fig-zeroshot-wording",
    caption="Every pair of phrases is a dot: mean AUC over the findings, and the difference in it between groups of patients.",
    alt="Panels one above the other: mean AUC, and its gaps between groups of patients. In each panel one strip of dots a model, one dot a pair of phrases; a diamond marks the pair of paper S, a ring the ensemble of all phrases. Gaps have a line at zero.",
)

# %% [markdown]
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
measured = wordings.interval_table(cohort, scores, LABELS, list(pairs), compared, GAPS, **boot)
measured = measured[measured["label"] == "mean"]

# %% tags=["hide-input"]
printed = []
for m in names:
    for pair in dict.fromkeys(roles[m].values()):
        of_pair = {"model": m, "method": pair}
        line = {"model": m, "pair": ", ".join(r for r in roles[m] if roles[m][r] == pair)}
        line["mean AUC"] = interval(schema.row(measured, **of_pair, attribute="all"))
        line["less that of S"] = ""
        if pair != OWN:
            less = schema.row(measured, model=m, method=f"{pair} - {OWN}", attribute="all")
            line["less that of S"] = interval(less, signed=True)
        for attribute, groups in GAPS.items():
            gap = schema.row(measured, **of_pair, attribute=attribute)
            line[f"gap, {readable(' - '.join(groups))}"] = interval(gap, signed=True)
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
glue("ranges", "; ".join(f"{m} {fmt(auc[m].min())} to {fmt(auc[m].max())}" for m in names))
glue("swing-mean", fmt((auc.max() - auc.min()).max()))
below_s = [int((auc[m] < auc.loc[OWN, m]).sum()) for m in names]
glue(
    "below-s",
    "; ".join(f"{k} in {m}" for k, m in zip(below_s, names, strict=True)) if known else "undefined",
)
of_all = [
    schema.row(measured, model=m, method=f"{prompts.ALL} - {OWN}", attribute="all") for m in names
]
MOVED = {"above": "higher", "below": "lower", "around": "not told apart", "undefined": "undefined"}
glue(
    "ensemble",
    "; ".join(
        f"{m} {interval(row, 3, signed=True)}, {MOVED[schema.side(row)]}"
        for m, row in zip(names, of_all, strict=True)
    ),
)
glue(
    "ensemble-above",
    "; ".join(f"{int((auc[m] < auc.loc[prompts.ALL, m]).sum())} in {m}" for m in names)
    if known
    else "undefined",
)
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
        f"{readable(group)}: {'all' if len(x) == len(LABELS) else ', '.join(x)}"
        for group, x in thin
    )
    or "none",
)
shown_gaps = measured[measured["attribute"] != "all"].apply(schema.side, axis=1)
glue("n-gaps", str(len(shown_gaps)))
glue("n-gaps-clear", str(shown_gaps.isin(["above", "below"]).sum() if len(shown_gaps) else 0))

# %% [markdown]
# Over {glue:text}`n-pairs` ways of asking, mean AUC runs over: {glue:text}`ranges`. Of the other
# {glue:text}`n-single`, those that come out lower than the pair of S: {glue:text}`below-s`. The largest
# swing of a single finding is that of {glue:text}`swing-one`. In {glue:text}`below-chance` combinations
# of model and finding, at least one pair ranks films worse than a coin. Nothing about models or films
# differs between the dots of a strip.
#
# All phrases together, less the pair of S: {glue:text}`ensemble`. Of the {glue:text}`n-single` single
# pairs, the ensemble comes out above {glue:text}`ensemble-above`. It needs no choice, and so no other
# patients to choose on.
#
# Which phrases do well depends on the reports that a model learned from, and the small models of this
# book learned from those of phantoms. How far apart the dots lie is what to take along, not their
# order.
#
# The fairness gap is a property of the wording too. Combinations of model and pair in which it has the
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
truth = cohort.table[list(LABELS)].to_numpy(int)
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
glue("n-splits", str(n_splits))
glue("n-kept", f"{halves['labels'].iloc[0] if len(halves) else 0} of {len(LABELS)}")
average = halves.groupby(["choice", "model"], sort=False)[["optimism", "gain over S"]].mean()


def said(choice, column, words):
    """The averages of all models, and how many of them are above 0 as they are printed."""
    if not len(halves):
        return "undefined"
    values = average.loc[choice, column]
    each = "; ".join(f"{m} {fmt(values[m], 3, signed=True)}" for m in names)
    return f"{each} ({words} for {int((values.round(3) > 0).sum())} of {len(values)})"


glue("optimism-all", said("one for all findings", "optimism", "above 0"))
glue("optimism-each", said("one for each finding", "optimism", "above 0"))
glue("gain-all", said("one for all findings", "gain over S", "a gain"))
glue("gain-each", said("one for each finding", "gain over S", "a gain"))
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
# Optimism of one pair for all findings: {glue:text}`optimism-all`. Of one pair for each finding:
# {glue:text}`optimism-each`; on average over the models it is {glue:text}`each-larger` with more
# choices. How many different pairs won on some half, and in how many halves that of S did:
# {glue:text}`picked`.
#
# What the choice is worth on other patients, against asking as S did: {glue:text}`gain-all` with one
# pair for all findings, {glue:text}`gain-each` with one for each.
#
# The limits in the table are those of halves of one cohort, which overlap; they are no intervals for
# other patients. Optimism grows with the number of pairs and shrinks with the number of patients. It
# has a cure, which is to choose on patients who are not in the test set. The width of the strips has
# none: a table of zero-shot results is a table of *models with a wording*.
#
# ## What we learned
#
# - A zero-shot probability is a comparison of two phrases. Every finding has the same opponent, and the
#   number depends on a scale that some published evaluations leave out.
# - That the mean AUC of the small CLIPs lies in the planned range is {glue:text}`expected`.
# - S's $\pm$ is a spread over diseases. The uncertainty of a mean, and of a difference between models,
#   comes from resampling patients, and differences have to be paired.
# - Adjusted AUPRC is not free of prevalence: it moved, beyond what chance explains, for
#   {glue:text}`n-moved` models while nothing but the prevalence changed.
# - The wording is part of the model. Over {glue:text}`n-pairs` ways of asking, the mean AUC of one model
#   moved by up to {glue:text}`swing-mean`, and the fairness gap moved with it.
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
# Call `zeroshot.predict(cohort, clips, LABELS, negative="Chest No findings")` and compare the scores:
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
