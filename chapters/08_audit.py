# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.1: fig-audit-length
#       S 2.2: ''
#       S 2.3: ''
#       S 2.4: ''
#       S 4: ''
#       S Fig. 4b: fig-audit-prevalence
#       S Table 1: ''
#       X 2.1: ''
#       X 2.4: ''
#       X 3.1: ''
#       X 3.3: fig-audit-floor
#       X Eq. 2: fig-audit-floor
#       X Eq. 3: fig-audit-floor
#       X Eq. 4: ''
#       X Fig. 3c: fig-audit-floor
#       X Fig. 3d: fig-audit-floor
#     goals:
#     - read a paper beside its code, and say which choices move a result and which
#       do not
#     - simulate the noise floor of a fairness gap before believing one
#     - name the definition behind a metric, and show two that disagree on the same
#       data
#     needs:
#     - 02_zero_shot
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # Audit: what the papers say, what their code does, what open data show
#
# *Answers sections 2 and 4 of {cite:t}`sourget2025`, paper S, with its public code, and sections 2.1, 2.4,
# 3.1 and 3.3 of {cite:t}`sun2025`, paper X, which has no public code.*
#
# The head of a radiology department has both papers on her desk. One says that models do worse without
# chest drains, the other that fine-tuning makes some models less fair. She has to decide by Friday whether
# to buy. If she trusts a gap that is noise, she sends back a model that would have helped; if she waves
# away a gap that is real, some of her patients pay for it. Before she acts on a number she asks what a
# careful reader of any trial asks: whose images were these, what exactly was computed, and could it be
# chance?
#
# An audit helps to read; it does not accuse. Every study makes dozens of choices that no page limit has
# room for, and both groups deserve thanks for making theirs checkable: S by publishing its code and
# result files, X by giving recipe and exception precisely enough to be rebuilt. Here each choice that
# matters is named, and its effect is computed wherever open data or arithmetic allow it. All of them
# stand together in the register at the end of the chapter; readers in a hurry begin there.

# %% tags=["parameters"]
models: str = "phantom-resnet"  # a name of `cxrbook models`: the model examined
seed: int = 1907  # [0, 1000000] seed of the phantom cohort, of draws, splits and simulations
n_patients: int = 4000  # [100, 30805] patients of NIH ChestX-ray14 on whom intervals are shown
n_images: int = 1500  # [60, 17000] images in the phantom cohort
n_resamples: int = 300  # [2, 100000] bootstrap resamples
n_draws: int = 20  # [1, 1000] draws of NIH 6x200
n_splits: int = 8  # [1, 1000] splits of patients for the probes
n_simulations: int = 1000  # [1, 100000] test sets of an exactly fair classifier

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import metadata, nih6x200
from cxrlib.cohorts.metadata import S_FINDINGS
from cxrlib.embed.extract import embed
from cxrlib.models import choose_models, load_model, published_models
from cxrlib.models.images import each
from cxrlib.models.registry import recipe
from cxrlib.papers import published
from cxrlib.predict.zeroshot import POSITIVE
from cxrlib.protocol import NAMES, differences, protocol_of
from cxrlib.show.notebook import (
    figure,
    glue,
    keep,
    quiz,
    setup,
    show,
    warn_if_seeded,
)
from cxrlib.show.words import colours, fmt, fmt_interval, percent, readable
from cxrlib.stats import calibration, inference, metrics, probes, simulate
from cxrlib.stats.as_published import performance_by_protocol

setup()
first = choose_models(models)[0]
as_published, corrected = map(protocol_of, NAMES)
warn_if_seeded([first])

# %% [markdown]
# ## One object carries every switch
#
# Where the code of a paper, its text, the authors of a model or statistics disagree, this book offers
# both forms by name. `protocol="as_published"` is what a printed number came from,
# `protocol="corrected"` what the models' authors prescribe or statistics ask for. Neither is the truth;
# the difference between them is a finding.

# %%
switches = differences().rename(columns=readable)
show(switches.drop(columns="seen in"), caption="The switches between the two protocols")

# %% tags=["remove-cell"]
glue("n-switches", len(switches))

# %% [markdown]
# There are {glue:text}`n-switches` of them, and the rest of this chapter asks what they are worth. A single one
# can be turned too: `replace(protocol_of("corrected"), unit="image")`. The chapters
# {doc}`02_zero_shot` and {doc}`04_subgroup_fairness` to {doc}`07_calibration` take the protocol as a
# parameter, and load the models of the papers with it.
#
# ## S: which images?
#
# S works on the part of MIMIC-CXR {cite:p}`johnson2019` that it calls the original test split. The test
# split in the official file, which this book uses where a reader has access, has another size.

# %%
OFFICIAL = {"images": 5159, "reports": 3269}  # of the test split in the file of MIMIC-CXR-JPG
cohort_sizes = published.table("S Section 2.3").set_index(["cohort", "metric"])["value"]
said = int(cohort_sizes["mimic-cxr-sourget", "n_images"])
used = int(cohort_sizes["mimic-cxr-sourget", "n_images_with_findings_text"])

# %% tags=["remove-cell"]
glue("said", said)
glue("used", used)
glue("official", OFFICIAL["images"])
glue("official-reports", OFFICIAL["reports"])

# %% [markdown]
# The paper counts {glue:text}`said:,d` images, of which {glue:text}`used:,d` have a FINDINGS section. The
# official test split has {glue:text}`official:,d` images with {glue:text}`official-reports:,d` reports, so
# that even all of it is smaller than what the paper *keeps*. The table that its code reads is made by no
# public script: the cohort cannot be rebuilt. Nothing suggests that the results are wrong; they belong to a selection that
# only its authors can describe.

# %% [markdown]
# ## S: where intervals come from
#
# An interval in S comes from the *bootstrap*: images are drawn again with replacement, many times, and the
# metric is computed anew each time (chapter {doc}`02_zero_shot`). S draws images, not patients, and one
# stream of random numbers runs through findings, groups and metrics in turn. What that does shows best on
# real patients. Pixels of NIH ChestX-ray14 are not at hand,
# but its metadata are, so here is a "model" that knows nothing of a film but the age of the patient.
# Whether it is any good is not the question; how sure one may be of its AUC is.

# %%
nih = cohorts.load("nih-metadata").table
rng = np.random.default_rng(seed)
some = rng.permutation(nih["patient_id"].unique())[:n_patients]
part = nih[nih["patient_id"].isin(some) & nih["age_group"].notna()]
by_age = part.melt(
    ["image_id", "patient_id", "sex", "age_group", "age"], list(S_FINDINGS), "label", "y_true"
)
by_age = by_age.assign(
    cohort="nih-metadata", model="age alone", method="none", score=by_age["age"] / 120
)
ATTRIBUTES = {"sex": ["F", "M"], "age_group": list(metadata.AGE_GROUPS)}
both = pd.concat(
    [
        performance_by_protocol(by_age, ATTRIBUTES, p, n_resamples=n_resamples, seed=seed)
        for p in NAMES
    ],
    ignore_index=True,
)

# %% tags=["hide-input"]
single = both[(both["label"] != "mean") & (both["metric"] == "auc")]
shown = single[(single["label"] == "Pneumonia") | (single["group"] == "all")]
cells = schema.wide(shown, index=["label", "group"], columns="protocol")
positives = single.drop_duplicates(["label", "group"]).set_index(["label", "group"])["n_positive"]
cells.insert(0, "positive images", positives.reindex(cells.index))
cells = cells.rename(columns=readable, index=readable).rename(
    columns={"positive images": "positives"}
)
cells.index = pd.Index(map(", ".join, cells.index), name="finding, group")
show(cells, caption="AUC of the age alone under both protocols, NIH ChestX-ray14")

# %% tags=["remove-cell"]
width = single.assign(width=single["ci_high"] - single["ci_low"])
width = width.pivot(index=["label", "group"], columns="protocol", values="width")
ratio = (width["corrected"] / width["as_published"]).replace(np.inf, np.nan)
glue("per-patient", fmt(len(part) / part["patient_id"].nunique(), 1))
glue("width-ratio", fmt(ratio.median(), 1))
glue("width-most", fmt(ratio.max(), 1))
glue(
    "width-where", ", ".join(map(readable, ratio.idxmax())) if ratio.notna().any() else "undefined"
)
few = single[(single["protocol"] == "as_published") & single["value"].notna()]
few = few[few["n_positive"] < corrected.min_cases].sort_values("n_positive")
glue("n-few", len(few))
glue("n-cells", int((single["protocol"] == "as_published").sum()))
glue("min-cases", corrected.min_cases)
scarcest = "there is none"
if len(few):
    row = few.iloc[0]
    limits = fmt_interval(*row[["value", "ci_low", "ci_high"]])
    scarcest = f"{row['label']}, {readable(row['group'])}: {limits} from {row['n_positive']} positive images"
glue("scarcest", scarcest)
means = both[both["label"] == "mean"].set_index(["protocol", "metric", "group"])
overall = means.loc[("corrected", "auc", "all")]
glue("mean-sd", fmt(means.loc[("as_published", "auc_sd_over_labels", "all"), "value"], 3))
glue("mean-half", fmt((overall["ci_high"] - overall["ci_low"]) / 2, 3))

# %% [markdown]
# But for rounding, the AUC itself is the same under both protocols; its interval is not. Drawn as whole patients, with
# {glue:text}`per-patient` images each on average, and read off with expanded limits, the data give
# intervals {glue:text}`width-ratio` times as wide (median over all findings and groups), and up to
# {glue:text}`width-most` times ({glue:text}`width-where`). Many films of one patient look alike; drawn
# image by image they pass for as many witnesses. How often such intervals hold the truth is the subject of chapter
# {doc}`09_coverage`.
#
# As published, {glue:text}`n-few` of {glue:text}`n-cells` AUC values rest on fewer than
# {glue:text}`min-cases` positive images. The scarcest: {glue:text}`scarcest`. An interval from so few films
# can look tight and still know nothing. Corrected, such cells stay in the table without a number and say
# why.
#
# The "±" behind a mean in S's Table 1 is the spread between findings, {glue:text}`mean-sd` here. Half the
# interval of that mean over patients is {glue:text}`mean-half`. They answer different questions.
#
# ### Intervals that exclude their own estimate
#
# An older version of the code cut limits to [0, 1]. But adjusted AUPRC goes below 0, wherever scores rank
# films worse than chance. What the cut does to the limits of this run:

# %%
below = both[(both["protocol"] == "as_published") & (both["metric"] == "adjusted_auprc")]
below = below[(below["value"] < 0) & (below["label"] != "mean")]
cut = below[["ci_low", "ci_high"]].clip(0, 1)
excluded = (below["value"] < cut["ci_low"]) | (below["value"] > cut["ci_high"])

# %% tags=["remove-cell"]
table_1 = published.table("S Table 1")
printed = published.compare(both, table_1)
outside = printed[printed["verdict"] == published.CONTRADICTED]
glue("n-below", len(below))
glue("n-excluded", int(excluded.sum()))
glue("n-printed", int(table_1["ci_low"].notna().sum()))
glue("n-outside", len(outside))
glue("outside-models", ", ".join(outside["model"].unique()))
glue("outside-labels", ", ".join(outside["label"].unique()))

# %% [markdown]
# As published, {glue:text}`n-below` adjusted AUPRCs of the age alone are negative. With limits cut to [0, 1],
# {glue:text}`n-excluded` of them lie outside their interval. Of the {glue:text}`n-printed` intervals of
# S's Table 1, {glue:text}`n-outside` exclude the value in front of them ({glue:text}`outside-models`:
# {glue:text}`outside-labels`). They carry the mark of the cut; the estimates are untouched.

# %% [markdown]
# ## S: "adjusted" for prevalence, but not free of it
#
# S compares pneumothorax with drains and without by adjusted AUPRC. The two arms differ in prevalence, the
# share of films with the disease, and the adjustment
# $1 - \log\mathrm{AUPRC} / \log\pi$ is meant to take the prevalence $\pi$ out. Does it? Take a test whose scores are normal in the ill and in the healthy, with the same spread: its ROC curve
# is known, and average precision follows for any prevalence by an integral, which `simulate.population`
# takes. Same test, same ROC curve, only the prevalence changes:


# %%
def adjusted_auprc(auc, prevalence):
    return simulate.population(auc, prevalence)["adjusted_auprc"]


ARMS = {"without drain": 0.04, "with drain": 0.07}  # prevalences in S's result files
by_auc = pd.DataFrame(
    [
        {"AUC of the test": auc}
        | {f"{arm}, {percent(share)}": adjusted_auprc(auc, share) for arm, share in ARMS.items()}
        for auc in (0.6, 0.7, 0.8, 0.9, 0.95)
    ]
)
by_auc["difference"] = by_auc.iloc[:, 2] - by_auc.iloc[:, 1]
show(by_auc, caption="Adjusted AUPRC of one and the same test at the prevalences of S's two arms")

# %% tags=["hide-input"]
fig, axis = plt.subplots(figsize=(5, 3.4))
grid = np.geomspace(0.005, 0.5, 40)
curves = pd.DataFrame({"prevalence": grid})
for auc in (0.6, 0.7, 0.8, 0.9):
    curve = curves[f"AUC {auc}"] = [adjusted_auprc(auc, share) for share in grid]
    axis.plot(100 * grid, curve, color="#0072B2")
    axis.annotate(
        f"AUC {auc}", (100 * grid[-1], curve[-1]), xytext=(4, -3), textcoords="offset points"
    )
for share in ARMS.values():
    axis.axvline(100 * share, color="#D55E00", lw=1, ls="--")
axis.set(xscale="log", xlabel="prevalence (%)", ylabel="adjusted AUPRC", ylim=(0, None))
axis.set_xticks([0.5, 1, 2, 5, 10, 20, 50], [0.5, 1, 2, 5, 10, 20, 50])
figure(
    "fig-audit-prevalence",
    caption="One ROC curve, many adjusted AUPRCs. Each line is one test at all prevalences; the dashed lines mark the prevalences of S's two drain arms.",
    alt="Adjusted AUPRC over prevalence on a logarithmic axis, one line for each of four ROC curves, all rising to the right: "
    + "; ".join(
        f"{auc} from {fmt(curves[auc].iloc[0])} at {percent(grid[0], 1)} to "
        f"{fmt(curves[auc].iloc[-1])} at {percent(grid[-1])}"
        for auc in curves.columns[1:]
    )
    + ". Two dashed vertical lines mark the prevalences of the arms.",
    table=curves,
)

# %% tags=["remove-cell"]
drains = published.table("S Fig. 4b")["value"]
glue("by-prevalence", f"{fmt(by_auc['difference'].min())} to {fmt(by_auc['difference'].max())}")
glue("drain-range", f"{fmt(drains.min())} to {fmt(drains.max())}")
explained = by_auc["difference"].max() / drains.min()
glue("drain-share", percent(explained))

# %% [markdown]
# Were the metric free of prevalence, the lines of {numref}`fig-audit-prevalence` would be level.
# Prevalence alone moves adjusted AUPRC by {glue:text}`by-prevalence` between the two arms. S prints gaps
# of {glue:text}`drain-range` for five models. The smallest of them can be prevalence up to
# {glue:text}`drain-share`; the largest cannot be explained in this way. The direction of the finding
# stands, its size needs arms of equal prevalence. Chapter {doc}`06_shortcuts` shows the arms raw, matched
# and with controls free of drains. It also quotes the exception, CXR-CLIP, that the abstract's "all
# models" passes over and the results section names.

# %% [markdown]
# ## S: texts of different length
#
# CLIP compares directions: both embeddings are brought to length 1. In S's code the text embeddings of
# BioViL and BioViL-T keep their length, so the longer prompt counts for more. That changes not the scale
# but the *ranking* of films, and with it AUC. Any model can play this too, here {glue:text}`examined`, and
# the ratio of the two lengths can be set to anything.

# %%
cohort = cohorts.load("phantom", n_images=n_images, seed=seed)
clip = load_model(first).members[0]
z = embed(cohort, clip)
prompts = [*(POSITIVE.format(label=label) for label in S_FINDINGS), corrected.negative_prompt]
encoded = clip.encode_text(prompts, raw=True).numpy()
length = np.linalg.norm(encoded, axis=1, keepdims=True)
TEXTS = {"as encoded": encoded, "unit length": encoded / length}


def auc_of(texts, k):
    return metrics.auc(cohort.table[S_FINDINGS[k]], z @ (texts[k] - texts[-1]))


text_auc = pd.DataFrame(
    {
        "finding": S_FINDINGS,
        "length of its prompt": length[:-1, 0],
        **{
            f"AUC, {readable(p.name)}": [
                auc_of(TEXTS[p.text_vectors], k) for k in range(len(S_FINDINGS))
            ]
            for p in (as_published, corrected)
        },
    }
)
show(text_auc, caption=f"AUC by the length of text embeddings, {first}", digits=3)

# %% tags=["hide-input"]
fig, axis = plt.subplots(figsize=(5, 4.2))
ratios = np.geomspace(0.25, 4, 17)
unit = TEXTS["unit length"]
bent, shade = {}, colours(S_FINDINGS)
for k, label in enumerate(S_FINDINGS):
    scaled = (np.append(ratio * unit[: k + 1], unit[k + 1 :], axis=0) for ratio in ratios)
    bent[label] = [auc_of(texts, k) for texts in scaled]
    axis.plot(ratios, bent[label], label=label, color=shade[label])
axis.axvline(1, color="#888888", lw=1)
axis.set(xscale="log", xlabel="length of the finding's prompt / length of the other", ylabel="AUC")
axis.set_xticks([0.25, 0.5, 1, 2, 4], [0.25, 0.5, 1, 2, 4])
axis.minorticks_off()
axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
bent = pd.DataFrame(bent, index=pd.Index(ratios, name="ratio of lengths"))
figure(
    "fig-audit-length",
    caption=f"AUC of {first} when the prompt of the finding is longer (right) or shorter (left) than that of no finding. The vertical line marks equal lengths.",
    alt="AUC over the ratio of the lengths of the two prompts, one line for each of six findings, with a vertical line where both have the same length. Lowest and highest AUC over all ratios: "
    + "; ".join(f"{label} {fmt(line.min())} and {fmt(line.max())}" for label, line in bent.items())
    + ".",
    table=bent.reset_index(),
)

# %% tags=["remove-cell"]
glue("examined", first)
moved = (text_auc.iloc[:, -1] - text_auc.iloc[:, -2]).abs()
fall = bent.max() - bent.min()
glue("lengths", f"{fmt(length.min(), 1)} to {fmt(length.max(), 1)}")
glue("length-moves", fmt(moved.max(), 3))
glue("length-bends", fmt(fall.max()))
glue("length-label", fall.idxmax())

# %% [markdown]
# The lengths of this model's prompts run from {glue:text}`lengths`, and leaving them in moves AUC by
# {glue:text}`length-moves` at most. How much it would move for another model depends on how unlike its
# lengths are, and nothing in training keeps them alike. Over the ratios in {numref}`fig-audit-length`,
# AUC moves by up to {glue:text}`length-bends` ({glue:text}`length-label`).
#
# ## S: the same film, prepared otherwise
#
# A network expects films as it saw them in training: so many pixels, cut or padded in one way, and grey
# levels brought to one mean and spread. The code of S prepares films for some models in another way than
# the authors of these models do. What that does to a film can be computed without any weights. Here is a
# phantom film, upright as films of chests often are, and what enters the network.

# %%
upright = cohorts.load("phantom", n_images=60, seed=seed, size=512).images([0])[0][:, 56:456]
steps = {name: recipe(name) for name in published_models()}
rows = []
for name, step in steps.items():
    if step.preprocess_s is None:
        continue
    theirs, by_s = (each(prepare)(upright) for prepare in (step.preprocess, step.preprocess_s))
    same_size = theirs.shape == by_s.shape
    rows.append(
        {
            "model": name,
            "pixels, authors": "x".join(map(str, theirs.shape[2:])),
            "pixels, S": "x".join(map(str, by_s.shape[2:])),
            "mean, authors": float(theirs.mean()),
            "mean, S": float(by_s.mean()),
            "SD, authors": float(theirs.std()),
            "SD, S": float(by_s.std()),
            "mean absolute difference": float((theirs - by_s).abs().mean()) if same_size else None,
        }
    )
inputs = pd.DataFrame(rows)
show(
    inputs.rename(columns={"mean absolute difference": "off by"}),
    caption="One film at the entrance of the network, as the authors and as S prepare it",
    missing="other size",
)

# %% tags=["remove-cell"]
alike = inputs["pixels, authors"] == inputs["pixels, S"]
shifted = inputs[alike].assign(
    in_sd=lambda t: t["mean absolute difference"] / t["SD, authors"],
    text=lambda t: [
        f"{m}: mean {fmt(a)} against {fmt(b)}"
        for m, a, b in zip(t["model"], t["mean, authors"], t["mean, S"], strict=True)
    ],
)
resized = [
    f"{m}: {a} against {b} pixels"
    for m, a, b in inputs.loc[~alike, ["model", "pixels, authors", "pixels, S"]].to_numpy()
]
largest = shifted.loc[shifted["in_sd"].idxmax()]
entrance_most = f"{fmt(largest['in_sd'])} SD ({largest['model']})"
glue("n-prepared", f"{len(inputs)} of {len(steps)}")
glue("entrance", "; ".join([*shifted["text"], *resized]))
glue("entrance-most", entrance_most)

# %% [markdown]
# It concerns {glue:text}`n-prepared` models; "off by" is the mean absolute difference of their pixels. Authors against S, {glue:text}`entrance`. In standard
# deviations (SD) of the authors' input, a pixel is off on average by up to {glue:text}`entrance-most`: as
# if the film had been exposed otherwise.
# Whether a network minds can be computed only with its weights: `protocol="as_published"`, in a chapter
# that takes it and with the files in place, shows it.
#
# ## S: probabilities near one half
#
# A CLIP learns a factor, the *logit scale* or temperature, by which cosines are multiplied before they
# become probabilities. Without it, the softmax sees the bare difference of two cosines, which lies
# between −2 and 2.

# %%
low, high = 1 / (1 + np.exp([2, -2]))
wordings = (as_published.negative_prompt, corrected.negative_prompt)
one, other = (clip.tokenizer([wording]).ids.tolist() for wording in wordings)

# %% tags=["remove-cell"]
glue("low", fmt(low))
glue("high", fmt(high))
glue("wording-a", wordings[0])
glue("wording-b", wordings[1])
glue("tokens", "the same tokens" if one == other else "different tokens")

# %% [markdown]
# So every probability lies between {glue:text}`low` and {glue:text}`high`, whatever the film shows. In S
# that holds for CheXzero and CXR-CLIP. The factor of BioViL and BioViL-T is left out too, but there the
# length of the texts takes its place, and no such bound holds. Chapter {doc}`07_calibration` draws the
# curves with and without. The other prompt is written "{glue:text}`wording-b`" in the paper and "{glue:text}`wording-a`"
# in the code; for {glue:text}`examined` these are {glue:text}`tokens`. A tokenizer that keeps case tells
# them apart.

# %% tags=["remove-input"]
quiz(
    "S's code leaves out the learned factor for four models. What does that change?",
    {
        "AUC and the probabilities": (
            False,
            "The factor multiplies every difference by the same positive number. The order of the films "
            "stays, and AUC sees nothing but the order.",
        ),
        "The probabilities, not AUC": (
            True,
            f"They are pressed into {fmt(low)} to {fmt(high)}, and calibration suffers. Each film keeps "
            "its rank.",
        ),
        "Nothing, since softmax normalises": (
            False,
            "Softmax makes the two probabilities sum to 1. How far apart they are depends on the factor.",
        ),
    },
)

# %% [markdown]
# ## S: probes tuned on other films
#
# In the code behind Table 2, the rows on which a probe's setting is chosen are mixed up, as chapter
# {doc}`05_embeddings` explains. One split may be lucky, so here are {glue:text}`splits`, with k-NN, which
# lets the nearest films vote, reading the sex of the patient:

# %%
table = cohort.table
draws = []
for s in range(seed, seed + n_splits):
    train, valid, test = probes.patient_split(table["patient_id"], s)
    taken, _ = probes.tuning_rows(train, valid, as_published.probe_tuning)
    row = {"own": (taken == train).mean(), "from test": np.isin(taken, test).mean()}
    for tuning in (as_published.probe_tuning, corrected.probe_tuning):
        p = replace(corrected, probe_tuning=tuning)
        read = probes.probe_table({first: z}, table, ("sex",), ("knn",), p, n_resamples=1, seed=s)
        row[tuning] = read["value"].iloc[0]
    draws.append(row)
draws = pd.DataFrame(draws)

# %% tags=["remove-cell"]
loss = draws["matched"] - draws["mismatched"]
glue("splits", n_splits)
glue("own", percent(draws["own"].mean()))
glue("from-test", percent(draws["from test"].mean()))
glue("tuning-lower", int((loss > 0).sum()))
glue("tuning-equal", int((loss == 0).sum()))
glue("tuning-higher", int((loss < 0).sum()))
glue("tuning-mean", fmt(loss.mean(), 3, signed=True))
glue("tuning-worst", fmt(max(loss.dropna(), key=abs, default=np.nan), 3, signed=True))
glue(
    "tuning-said",
    "On average it cost performance here."
    if loss.mean() > 0
    else "With so few films it is undefined here."
    if loss.isna().all()
    else "On average it cost none here; a setting chosen by accident can be a good one.",
)

# %% [markdown]
# On average over the splits by patient, {glue:text}`own` of the labels keep their own embedding, and
# {glue:text}`from-test` of the embeddings come from test films. Tuning on the right rows changes the test
# AUC by {glue:text}`tuning-mean` on average and {glue:text}`tuning-worst` at most. Splits in which it is
# higher, equal and lower: {glue:text}`tuning-lower`, {glue:text}`tuning-equal` and
# {glue:text}`tuning-higher`. The reported test AUC itself is computed on the right rows, so the slip can
# choose a poor setting but cannot invent performance. {glue:text}`tuning-said`
#
# The panels of Fig. 2 for single attributes mix axes of two projections; chapter {doc}`05_embeddings`
# draws both versions.

# %% [markdown]
# ## X: the recipe, on the real metadata
#
# X balances six diseases over age and sex: as many young women as young men, old women and old men, each
# combination a *cell*. Chapter {doc}`01_data_curation` rebuilds the recipe from the metadata; here are its
# results, anew.

# %%
recipe_cells = nih6x200.cell_counts(nih)
drawn = nih6x200.draws(range(seed, seed + n_draws))
splits = {p.name: nih6x200.draw(seed, split=p.split) for p in (as_published, corrected)}
view = drawn.filter(like="AP ").mean().rename(lambda c: c.removeprefix("AP "))

# %% tags=["hide-input"]
satisfying = recipe_cells.index[recipe_cells["satisfies"]]
short = [d for d in nih6x200.DISEASES if d not in satisfying]
others = [d for d in satisfying if d not in nih6x200.DISEASES]
by_unit = [nih6x200.leakage(splits[name]) for name in NAMES]
counts = {"images": len(nih), "patients": nih["patient_id"].nunique()}
said_x = (
    published.table("X Section 2.1").query("cohort == 'nih-cxr14'").set_index("metric")["value"]
)
old_edema = recipe_cells.loc["Edema", ["old F", "old M"]].tolist()
in_x = published.table("X Section 2.1").query("cohort == 'nih-6x200'")
edema_x = [int(in_x.loc[in_x["group"] == cell, "value"].iloc[0]) for cell in ("old F", "old M")]
kinds_x = int(in_x.loc[in_x["metric"] == "n_labels", "value"].iloc[0])
rebuilt = pd.DataFrame(
    [
        (
            "images / patients of the release",
            f"{said_x['n_images']:,.0f} / {said_x['n_patients']:,.0f}",
            f"{counts['images']:,} / {counts['patients']:,}",
        ),
        (
            "old patients with edema alone, F / M",
            " / ".join(map(str, edema_x)),
            " / ".join(map(str, old_edema)),
        ),
        ("diseases with 50 images in each cell", str(kinds_x), str(len(satisfying))),
        ("of the paper's six, short of 50", "Edema (old)", ", ".join(short) or "none"),
        ("not among the paper's six, with 50", "none", ", ".join(others)),
        (
            "test images with their patient in training",
            "not stated",
            f"{percent(drawn['leakage'].mean())} ({percent(drawn['leakage'].min())} to "
            f"{percent(drawn['leakage'].max())}), split by image",
        ),
        (
            "AP films, by disease",
            "not stated",
            f"{percent(view.min())} ({view.idxmin()}) to {percent(view.max())} ({view.idxmax()})",
        ),
    ],
    columns=["quantity", "paper X", "metadata"],
)
show(
    rebuilt.set_index("quantity"),
    caption=f"NIH 6x200: the paper and the metadata ({n_draws} draws)",
)

# %% tags=["remove-cell"]
about = {
    "paper": "X",
    "artefact": "Section 2.1",
    "label": "all",
    "attribute": "all",
    "group": "all",
}
nih_size = [
    about | {"cohort": "nih-cxr14", "metric": f"n_{what}", "value": n} for what, n in counts.items()
]
nih_size.append(
    about | {"cohort": "nih-cxr14", "metric": "n_labels", "value": len(metadata.FINDINGS)}
)
cells = [
    about
    | {"cohort": "nih-6x200", "label": "Edema", "attribute": "age_sex", "group": cell}
    | {"metric": "n_images", "value": n}
    for cell, n in zip(("old F", "old M"), old_edema, strict=True)
]
kinds = about | {"cohort": "nih-6x200", "metric": "n_labels", "value": len(satisfying)}
keep(schema.results([*nih_size, *cells, kinds]))
glue("x-images", int(said_x["n_images"]))
glue("x-patients", int(said_x["n_patients"]))
glue("n-satisfying", len(satisfying))
glue("n-findings", len(recipe_cells))
glue("leak", percent(drawn["leakage"].mean()))
glue("leak-patient", percent(by_unit[1]))
glue("patients", fmt(drawn["patients"].mean(), 0))
glue("ap-low", f"{percent(view.min())} for {view.idxmin()}")
glue("ap-high", f"{percent(view.max())} for {view.idxmax()}")
glue("rule", "fits" if old_edema == edema_x else "does not fit")

# %% [markdown]
# "Exactly one finding, and old from 60" {glue:text}`rule` the one exception that the paper prints, so the
# rule is known. By it {glue:text}`n-satisfying` of {glue:text}`n-findings` findings satisfy the criterion,
# so that "only six" does not follow from it. The counts {glue:text}`x-images:,d` and
# {glue:text}`x-patients:,d` belong to the eight-label predecessor of the release {cite:p}`wang2017`.
#
# A draw has about {glue:text}`patients` patients. If its 7:1:2 split was made by image, as the text reads,
# {glue:text}`leak` of the test images show a patient of the training part; split by patient it is
# {glue:text}`leak-patient`. A patient in both parts is recognised, not diagnosed. And the balance ends with
# age and sex: AP films, mostly taken at the bedside of patients who cannot stand, make up {glue:text}`ap-low` and
# {glue:text}`ap-high`.

# %% [markdown]
# ## X: how large is a gap of nothing?
#
# X prints gaps between women and men, and between old and young, on {glue:text}`n-test` test images. Toss a
# fair coin ten times for each of two people, and their counts of heads will hardly be equal. So how large
# would X's gaps be for a classifier that is *exactly* fair? That is the *noise floor*.
#
# Take two such classifiers, both with the accuracy of X's best model and with wrong answers spread over
# the other diseases. One recognises every disease equally often ("even"), the other some nearly always and
# others rarely ("uneven"). Both treat the two groups alike: that is planted. Test them again and again on a
# balanced test set.

# %%
CLASSES, PER_CELL = len(nih6x200.DISEASES), 20  # 240 test images: 6 classes x 2 groups x 20
full = published.table("X Fig. 2a").set_index("method")["value"]["full"]  # best model of X
truth = np.repeat(np.arange(CLASSES), PER_CELL)
RECALL = {"even": np.full(CLASSES, full), "uneven": full + np.linspace(-0.38, 0.38, CLASSES)}


def fair_answers(recall):
    """Predicted classes of one group: what is recognised depends on the disease alone."""
    wrong = (truth + rng.integers(1, CLASSES, len(truth))) % CLASSES
    return np.where(rng.random(len(truth)) < recall[truth], truth, wrong)


def gaps_of(a, b):
    """What four definitions call the gap between two groups."""
    f1 = [metrics.f1_by_class(truth, answers, CLASSES) for answers in (a, b)]
    rates = [metrics.rates_by_class(truth, answers, CLASSES) for answers in (a, b)]
    return {
        "f1_gap_signed": abs(metrics.f1_gap_signed(*f1)),
        "f1_gap_absolute": metrics.f1_gap_absolute(*f1),
        "eq_odds_mean": metrics.eq_odds_mean(*rates),
        "eq_odds_max": metrics.eq_odds_max(*rates),
    }


floors = {
    kind: pd.DataFrame(
        [gaps_of(fair_answers(recall), fair_answers(recall)) for _ in range(n_simulations)]
    )
    for kind, recall in RECALL.items()
}
summary = pd.concat(
    {
        kind: floor.describe(percentiles=[0.05, 0.95]).T[["mean", "5%", "95%"]]
        for kind, floor in floors.items()
    },
    names=["recall", "gap"],
)
show(
    summary.rename(index=readable),
    caption=f"Gaps of exactly fair classifiers on {n_simulations:,} test sets (modulus of Eq. 2)",
    digits=3,
)

# %% tags=["remove-cell"]
glue("n-test", 2 * CLASSES * PER_CELL)
glue("per-cell", PER_CELL)
glue("step", fmt(100 / PER_CELL, 0))
smallest = summary["mean"].idxmin()
glue(
    "floor-smallest",
    f"{readable(smallest[1])}, {smallest[0]} recall: {fmt(summary['mean'].min(), 3)}",
)

# %% [markdown]
# The truth is zero in every row; the smallest of the averages is {glue:text}`floor-smallest`. The last two
# columns are percentiles: nine in ten test sets lie between them.
#
# Now the printed gaps beside the more lenient of the two classifiers. *p* is the share of its test sets
# with a gap at least as large as the printed one; "fair below" is the share with a smaller gap. The last
# column corrects *p* for the number of comparisons (Holm's method, {cite:t}`holm1979`).

# %%
fig_3 = pd.concat([published.table("X Fig. 3c"), published.table("X Fig. 3d")], ignore_index=True)
claimed = fig_3[fig_3["metric"].isin(summary.index.levels[1])]


def share_of_fair(metric, hits):
    """Share of simulated test sets that `hits` a condition; the classifier with the larger share."""
    return max((1 + hits(floor[metric]).sum()) / (1 + len(floor)) for floor in floors.values())


pairs = list(zip(claimed["metric"], claimed["value"], strict=True))
claimed = claimed.assign(
    p=[share_of_fair(m, lambda null, v=v: null >= v) for m, v in pairs],
    below=[share_of_fair(m, lambda null, v=v: null < v) for m, v in pairs],
)
claimed["corrected"] = inference.corrected(claimed["p"], "holm")

# %% tags=["hide-input"]
about_gaps = claimed["metric"].map(readable) + " by " + claimed["attribute"].map(readable)
printed_gaps = pd.DataFrame(
    {
        "gap": about_gaps + ", " + claimed["model"] + ", " + claimed["method"].map(readable),
        "printed": claimed["value"].map(lambda v: percent(v, 1)),
        "fair below": claimed["below"].map(percent),
        "p": claimed["p"],
        "p, Holm": claimed["corrected"],
    }
)
show(
    printed_gaps.set_index("gap"),
    caption="Gaps that X prints in its text, against an exactly fair classifier",
    digits=3,
)

# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 1, figsize=(5, 5))
for axis, metric in zip(axes, ("f1_gap_signed", "eq_odds_mean"), strict=True):
    bins = np.linspace(0, 100 * max(floor[metric].max() for floor in floors.values()), 31)
    axis.hist(100 * floors["even"][metric], bins, color="#B8CFE0", label="fair, even recall")
    style = {"histtype": "step", "color": "#0072B2", "label": "fair, uneven recall"}
    axis.hist(100 * floors["uneven"][metric], bins, **style)
    top = axis.get_ylim()[1]
    printed_here = 100 * claimed.loc[claimed["metric"] == metric, "value"]
    axis.vlines(printed_here, 0, 0.35 * top, color="#D55E00", lw=2, label="printed in X")
    axis.set(xlabel=f"{readable(metric)} (%)", ylabel="test sets", xlim=(0, None))
axes[0].legend(loc="upper right")
floor_alt = "; ".join(
    f"{readable(metric)} of fair classifiers {percent(summary.loc[(slice(None), metric), '5%'].min(), 1)} to "
    f"{percent(summary.loc[(slice(None), metric), '95%'].max(), 1)}, printed "
    + ", ".join(percent(v, 1) for v in sorted(claimed.loc[claimed["metric"] == metric, "value"]))
    for metric in ("f1_gap_signed", "eq_odds_mean")
)
figure(
    "fig-audit-floor",
    caption=f"Gaps of exactly fair classifiers on {2 * CLASSES * PER_CELL} test images, with even (filled) and uneven recall (outlined), and the gaps that X prints (short lines).",
    alt=f"Two histograms over the size of a gap, in per cent, with short lines at printed values. From the fifth to the 95th percentile: {floor_alt}.",
    table=pd.concat(floors, names=["recall", "test set"]).reset_index(),
)

# %% tags=["remove-cell"]
glue("accuracy", percent(full, 1))
floor = floors["even"]
glue("floor-f1", percent(floor["f1_gap_signed"].mean(), 1))
glue("floor-f1-95", percent(floor["f1_gap_signed"].quantile(0.95), 1))
glue("floor-eq", percent(floor["eq_odds_mean"].mean(), 1))
low_odds = min(floor["eq_odds_mean"].quantile(0.05) for floor in floors.values())
glue("floor-eq-5", percent(low_odds, 1))
glue("floor-f1-absolute", percent(floor["f1_gap_absolute"].mean(), 1))
glue("n-claimed", len(claimed))
glue("n-uncorrected", int((claimed["p"] < 0.05).sum()))
glue("n-corrected", int((claimed["corrected"] < 0.05).sum()))
largest = claimed.loc[claimed["value"].idxmax()]
glue("largest", percent(largest["value"], 1))
odds = claimed[claimed["metric"] == "eq_odds_mean"]
glue("odds-low", f"{int((odds['below'] < 0.05).sum())} of the {len(odds)}")

# %% [markdown]
# Read {numref}`fig-audit-floor` so: a short line inside the histogram is a gap that a fair classifier shows
# too. At an accuracy of {glue:text}`accuracy`, that of X's best model, an exactly fair classifier shows an F1
# gap of {glue:text}`floor-f1` on average and of {glue:text}`floor-f1-95` in one test set out of twenty.
# Its equalised odds (Eq. 3) average {glue:text}`floor-eq`. Of the {glue:text}`n-claimed` gaps that X
# prints, {glue:text}`n-uncorrected` exceed what 95 % of fair classifiers show, and
# {glue:text}`n-corrected` remain when the number of comparisons is accounted for. The largest is
# {glue:text}`largest`.

# %% tags=["remove-input"]
quiz(
    f"A model's F1 gap between women and men is {percent(floors['even']['f1_gap_signed'].mean(), 1)} on "
    f"{2 * CLASSES * PER_CELL} images. Is the model fair?",
    {
        "Yes: fair classifiers show as much.": (
            False,
            "That the gap could be noise does not make it noise. A model with a real gap of that size "
            "would look just the same.",
        ),
        "No: the gap is not 0.": (
            False,
            "An exactly fair classifier shows such a gap on average, on a test set of that size.",
        ),
        "The test set is too small to say.": (
            True,
            "On so few images, fair and unfair look alike. More images shrink the noise floor, not the "
            "gap of an unfair model.",
        ),
    },
)

# %% [markdown]
# A puzzle remains. Of the printed equalised odds, {glue:text}`odds-low` lie *below* what 95 % of fair
# classifiers show ({glue:text}`floor-eq-5` and more). With {glue:text}`per-cell` images of a disease in a
# group, a single image moves a true positive rate by {glue:text}`step` percentage points, so a mean of absolute differences is hardly ever that
# small. A classifier that answers few diseases only would come closer; so would an average over more
# images, or differences taken with their sign. The paper does not say.

# %% [markdown]
# ## X and others: one name, several meanings
#
# **Equalised odds** has three definitions in use. X (Eq. 3) takes the mean of all gaps in true and false
# positive rate, fairlearn the larger of the two, and FairMedFM {cite:p}`jin2024` one minus the gap, so
# that 1 is fair. One pair of groups, one disease, and rates that we make up:

# %%
# Suppose these rates of women and men: a true positive rate each, then a false positive rate.
women, men = (np.array([0.80]), np.array([0.10])), (np.array([0.60]), np.array([0.06]))
three = pd.DataFrame(
    [
        {"definition": "X, Eq. 3: mean of the two gaps", "value": metrics.eq_odds_mean(women, men)},
        {"definition": "fairlearn: larger gap", "value": metrics.eq_odds_max(women, men)},
        {"definition": "FairMedFM: 1 - gap", "value": 1 - metrics.eq_odds_mean(women, men)},
    ]
)
show(three, caption="One pair of groups, three values of equalised odds")

# %% [markdown]
# None of the three is wrong. A table that says "equalised odds" and not which has three readings.
#
# **Eq. 4** of X is named a gap of expected calibration error. It compares mean $|p - o|$, without bins.
# Two groups can both be perfectly calibrated and differ in it, if one is easier to predict:

# %%
sure, unsure = np.full(10, 0.9), np.full(10, 0.6)
outcome_sure, outcome_unsure = (np.arange(10) < 9).astype(int), (np.arange(10) < 6).astype(int)
eq_4 = metrics.calibration_gap_eq4(sure, outcome_sure, unsure, outcome_unsure)
binned = [
    calibration.ece_equal_width(outcome_sure, sure),
    calibration.ece_equal_width(outcome_unsure, unsure),
]

# %% tags=["remove-cell"]
glue("eq4", fmt(eq_4))
glue("sure", fmt(sure[0], 1))
glue("unsure", fmt(unsure[0], 1))
glue("binned", f"{fmt(binned[0])} and {fmt(binned[1])}")

# %% [markdown]
# Of the patients to whom the model says {glue:text}`sure`, nine in ten are ill; of those to whom it says
# {glue:text}`unsure`, six in ten are. Nobody could ask for more. The binned errors are {glue:text}`binned`, and Eq. 4 gives
# {glue:text}`eq4`. **Eq. 2** has no modulus, so gaps of opposite sign cancel: in the
# simulation above its modulus averages {glue:text}`floor-f1`, the version with a modulus in each disease
# {glue:text}`floor-f1-absolute`. In this book a metric always carries the name of its definition.

# %% [markdown]
# ## What was planted, and was it found?
#
# Three times this chapter planted a truth of exactly zero: two groups that a classifier treats alike, one
# and the same test at two prevalences, and two groups with perfect calibration. What the metrics made of it:

# %% tags=["hide-input"]
none = pd.DataFrame(
    [
        ("groups treated alike", readable("f1_gap_signed"), floors["even"]["f1_gap_signed"].mean()),
        ("groups treated alike", readable("eq_odds_mean"), floors["even"]["eq_odds_mean"].mean()),
        ("one test, two prevalences", "difference in adjusted AUPRC", by_auc["difference"].max()),
        ("two calibrated groups", readable("calibration_gap_eq4"), eq_4),
        ("two calibrated groups", "difference in binned ECE", abs(binned[0] - binned[1])),
    ],
    columns=["planted", "metric", "what it says"],
)
show(none, caption="Where the truth is zero: what each metric says", digits=3)

# %% tags=["remove-cell"]
told = none.loc[none["what it says"].abs() < 0.0005, "metric"]
glue("told", f"{len(told)} of {len(none)} ({', '.join(told)})" if len(told) else "none")

# %% [markdown]
# Metrics that find the planted zero: {glue:text}`told`. The others are not wrong, they measure something
# besides the thing in their name: the size of the test set, the prevalence, how hard a group is to predict.

# %% [markdown]
# ## The register
#
# What cannot be computed here without the papers' images is listed too, with its source: the code and
# the result files that the authors of S publish. Each entry says what the paper says, what its code or open
# data show, and how far it moves a result.

# %% tags=["hide-input"]
STATED = "stated, not computed here"
register = pd.DataFrame(
    [
        (
            "S",
            "cohort",
            f"test split of {said:,} images",
            f"official split: {OFFICIAL['images']:,} images",
            STATED,
        ),
        (
            "S",
            "drain labels of controls",
            "predicted by a detector",
            "the code's assignment has no effect; all controls are used",
            "chapter on shortcuts",
        ),
        (
            "S",
            "prevalence of drain arms",
            "adjusted AUPRC compared as it is",
            f"arms at {percent(min(ARMS.values()))} and {percent(max(ARMS.values()))}",
            f"moves it by {fmt(by_auc['difference'].min())} to {fmt(by_auc['difference'].max())}",
        ),
        (
            "S",
            '"all models"',
            "abstract: all worse without drains",
            "results: not CXR-CLIP",
            "chapter on shortcuts",
        ),
        (
            "S",
            "text embeddings",
            "not mentioned",
            "BioViL, BioViL-T: not normalised",
            f"AUC moves by up to {fmt(moved.max(), 3)} here, {fmt(fall.max())} at other lengths",
        ),
        (
            "S",
            "preprocessing",
            "not mentioned",
            "other pixel statistics, crops or sizes than upstream for CXR-CLIP, CheXzero, BioViL(-T)",
            f"a pixel is off by up to {entrance_most}, and sizes differ",
        ),
        (
            "S",
            "temperature",
            "not mentioned",
            "left out for four of six models",
            f"cosines keep probabilities within {fmt(low)} to {fmt(high)}",
        ),
        (
            "S",
            "tuning of probes",
            "on validation patients",
            "labels and features of different rows",
            f"test AUC {fmt(loss.mean(), 3, signed=True)} on average with the right rows",
        ),
        ("S", "axes of Fig. 2", "PCA", "two fits mixed", "chapter on embeddings"),
        (
            "S",
            "limits cut to [0, 1]",
            "percentile bootstrap",
            "two versions of it in the result files",
            f"{len(outside)} of {int(table_1['ci_low'].notna().sum())} intervals of Table 1 exclude "
            "their estimate",
        ),
        (
            "S",
            "unit of resampling",
            "bootstrap",
            "images, not patients",
            f"corrected intervals {fmt(ratio.median(), 1)} times as wide on real metadata",
        ),
        (
            "S",
            "many comparisons",
            "groups compared by eye",
            "disjoint intervals: 5 of 36 pairs by sex, 10 of 108 by race, 56 of 360 by age",
            STATED,
        ),
        (
            "X",
            "rule of NIH 6x200",
            "only six diseases satisfy it",
            f"{len(satisfying)} of {len(recipe_cells)} do",
            "computed",
        ),
        ("X", "size of the release", rebuilt["paper X"][0], rebuilt["metadata"][0], "computed"),
        (
            "X",
            "patients in the split",
            "7:1:2",
            "unit not stated",
            f"{percent(drawn['leakage'].mean())} of test images leak if by image",
        ),
        (
            "X",
            "balance",
            "age and sex",
            "not view position",
            f"AP {percent(view.min())} to {percent(view.max())}",
        ),
        (
            "X",
            "gaps",
            "read as unfairness",
            "noise floor not given",
            f"{int((claimed['corrected'] < 0.05).sum())} of {len(claimed)} printed gaps beyond it",
        ),
        (
            "X",
            "prompt format",
            "the best of three for each model",
            "images of the choice not stated; as published read as the "
            f"{as_published.prompt_choice} images, corrected as {corrected.prompt_choice}",
            "chapter on fine-tuning",
        ),
        (
            "X",
            "repeats",
            f"{as_published.repeats}, 240 test images",
            f"no error of the numbers is given; corrected: {corrected.repeats}",
            "chapter on fine-tuning",
        ),
        (
            "X",
            "CLIP, full fine-tuning",
            "in the same figure",
            "another network: a ViT trained on ImageNet (the paper says so)",
            STATED,
        ),
        (
            "X",
            "settings",
            "adjusted on validation data",
            "learning rates, LoRA rank, seeds not given; most values only as bars",
            STATED,
        ),
    ],
    columns=["paper", "item", "what the paper says", "what code or data show", "effect"],
)
show(register.set_index("item"), caption="The register of the audit")

# %% tags=["remove-cell"]
glue("n-register", len(register))
glue("n-stated", int((register["effect"] == STATED).sum()))

# %% [markdown]
# Of the {glue:text}`n-register` entries, {glue:text}`n-stated` rest on reading alone; for the others the
# effect was computed, here or in the chapter that is named.
#
# ## Limits
#
# - S could be audited deeper than X because it published more. A long list of entries is the reward of
#   openness, not a mark of poor work.
# - Effects are shown on phantoms, on metadata and by arithmetic. How far a switch moves the papers' own
#   tables takes their images and weights, and for S a list of images that is not public.
# - The noise floor stands on two made-up classifiers. X's models may spread their errors otherwise, and
#   with them the floor moves.
# - Age alone is a poor "model": its intervals show what the unit of resampling does, not how wide those of
#   a good model are.
# - Auditors slip too. Each entry can be recomputed or looked up; corrections are welcome.
#
# ## What we learned
#
# - Most differences between a paper and its code are small slips in honest work; which of them matter can
#   be computed, and often only for some models.
# - Some change the scale alone (temperature: probabilities within {glue:text}`low` to
#   {glue:text}`high`), some the ranking (lengths of texts), some only the uncertainty (unit of
#   resampling: intervals {glue:text}`width-ratio` times as wide here).
# - "Adjusted" metrics are not free of prevalence: {glue:text}`by-prevalence` between S's two arms.
# - {glue:text}`n-satisfying` findings satisfy X's rule; {glue:text}`leak` of the test images leak if the
#   split was made by image.
# - A gap needs its noise floor: of {glue:text}`n-claimed` printed gaps {glue:text}`n-corrected` stand
#   out after correction.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-audit-accuracy
# The noise floor assumes the accuracy of X's best model. How large is the F1 gap of a fair classifier with
# a zero-shot accuracy of 30 %? How large with ten times as many test images? Predict which of the two
# matters more, then compute both.
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-audit-accuracy
# :class: dropdown
# ````


# %% tags=["solution"]
def floor_of(accuracy, per_cell, repeats=100):
    """Mean F1 gap (modulus of Eq. 2) of a fair classifier."""
    truth = np.repeat(np.arange(CLASSES), per_cell)
    found = []
    for _ in range(repeats):
        f1 = []
        for _ in range(2):
            wrong = (truth + rng.integers(1, CLASSES, len(truth))) % CLASSES
            answers = np.where(rng.random(len(truth)) < accuracy, truth, wrong)
            f1.append(metrics.f1_by_class(truth, answers, CLASSES))
        found.append(abs(metrics.f1_gap_signed(*f1)))
    return np.mean(found)


sizes = {n: 2 * CLASSES * n for n in (PER_CELL, 10 * PER_CELL)}
answer = pd.DataFrame(
    {f"{size:,} images": [floor_of(a, n) for a in (0.3, full)] for n, size in sizes.items()},
    index=pd.Index([percent(0.3), percent(full, 1)], name="accuracy"),
)
show(answer, caption="Mean F1 gap of a fair classifier", digits=3)

# %% tags=["remove-cell", "solution"]
by_accuracy = answer.iloc[:, 0].max() / answer.iloc[:, 0].min()
by_size = (answer.iloc[:, 0] / answer.iloc[:, 1]).mean()
glue("by-accuracy", fmt(by_accuracy, 1))
glue("by-size", fmt(by_size, 1))
glue("by-more", "the number of images" if by_size > by_accuracy else "the accuracy")

# %% [markdown] tags=["solution"]
# The accuracy changes the floor by a factor of {glue:text}`by-accuracy`, ten times the images by a factor of
# {glue:text}`by-size`: what matters more is {glue:text}`by-more`. Theory says that the floor falls with the
# square root of the number of images, whose factor would be $\sqrt{10} \approx 3.2$.
#
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-audit-parameter
# Run the chapter with `-p n_patients=500` and with `-p n_patients=16000`. Predict for each: are the
# corrected intervals narrower or wider, are there more or fewer undefined cells, and does the ratio of
# corrected to published widths change as much?
# ```
#
# ```{solution} ex-audit-parameter
# :class: dropdown
# With fewer patients the intervals widen under both protocols and more cells fall below the fewest cases
# that a number needs, most of all among the youngest and the oldest; with more patients the reverse.
# The ratio of the widths depends far less on the number of patients: it comes from how many films each of
# them has and how alike these are, which stays the same. Where few patients are left it wobbles, and the
# expanded limits add their share.
# ```
#
# ```{exercise}
# :label: ex-audit-switch
# Turn single switches of `protocol_of("corrected")` back with `replace` and evaluate the metadata table of
# this chapter. Which one alone makes it look most like the one as published?
# ```
#
# ```{solution} ex-audit-switch
# :class: dropdown
# The unit of resampling, by far: the intervals become about half as wide. Try it with
# `performance_by_protocol(by_age, ATTRIBUTES, replace(corrected, unit="image"))`, and so on for the
# others. `min_cases=0` fills the empty cells, `digits=2` rounds, `interval="percentile"` narrows intervals
# a little, most of all in small groups. `stream="running"` changes every limit a little and no
# estimate: noise of the bootstrap itself, which more resamples remove. It also gives no mean over
# findings with an interval, for their resamples have nothing in common.
# ```
#
# ```{exercise}
# :label: ex-audit-own
# Take the last paper you wrote or read. List its switches: unit of resampling, split, minimum group size,
# correction for many comparisons, rounding, handling of missing labels. Which can be read off the text,
# which only off the code, which not at all?
# ```
#
# ```{solution} ex-audit-own
# :class: dropdown
# There is no model answer. In the two papers here, the unit of resampling is found in S's code only, the
# unit of X's split not at all, the minimum group size is none, and no correction is mentioned in either.
# A table such as the first one of this chapter fits into any supplement.
# ```
#
# ## Further reading
#
# - {cite:t}`varoquaux2022`: how studies of medical images go astray, from data to publication.
# - {cite:t}`pineau2021`: a checklist for papers, and what it changed at a large conference.
# - {cite:t}`bouthillier2021`: where the variance of a benchmark comes from, and how to account for it.
# - {cite:t}`mosquera2024`: metrics under class imbalance, among them the adjusted AUPRC.
# - {cite:t}`hardt2016`: equalised odds as first defined, for one decision and two groups.
# - {cite:t}`jin2024`: a benchmark of fairness in medical imaging, with definitions of its own.
