# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.1: ''
#       S 2.4: ''
#       S 3.1: fig-zeroshot-auc
#       S Table 1: fig-zeroshot-auc
#     goals:
#     - say how two phrases become a probability, and what the scale does to it
#     - read a table of such answers, and tell a spread from an uncertainty
#     needs:
#     - 01_data_curation
# ---

# %% [markdown]
# # Zero-shot: asking a model in words
#
# *Answers sections 2.1, 2.4 and 3.1 of {cite:t}`sourget2025`, paper S, and its
# Table 1.*
#
# A radiologist never trained this model to find a pneumothorax, which is air
# between lung and chest wall. It read films and reports side by side and
# learned which words go with which shadows. Now somebody asks: is there a
# pneumothorax on this film? The question is put as two phrases, and the answer
# is whichever lies closer to the image. It costs nothing, so it is tempting:
# no training, a new question any day. But a patient is sent home on it. **Can
# a clinician rely on an answer that is obtained this way, and what does a
# table of such answers tell her?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort and of the resamples
n_images: int = 4000  # [60, 100000] of a phantom; real ones are whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import pandas as pd

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts.metadata import S_FINDINGS
from cxrlib.cohorts.summary import clearest
from cxrlib.embed.extract import embed, embed_text
from cxrlib.models import describe_models, load_models
from cxrlib.models.leaks import leaks
from cxrlib.papers import published
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import notebook, plots
from cxrlib.show.notebook import figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import beside, count, estimate, fmt, in_words, listed
from cxrlib.stats import as_published, fairness
from cxrlib.stats.prevalence import prevalence_table

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
names = [clip.name for clip in clips]
first = names[0]
notebook.warn_if_seeded(names, data)
how = {"preprocessing": chosen.preprocessing}
cohort = cohorts.study(data, n_images, seed, options, **how)
findings = notebook.asked(cohort.name, cohort.findings, S_FINDINGS)
drawing = {"n_resamples": n_resamples, "seed": seed}

# %% [markdown]
# ## One film, seven phrases
#
# The models are CLIPs {cite:p}`radford2021`: an image and a text encoder that
# were trained together. Each turns what it is given into an *embedding*, a
# vector of length 1 (as S's code has it, some texts keep another length).
# Training made that of a film similar to that of its own report. Similarity is
# the cosine of the angle between the two, between $-1$ and $1$.

# %% tags=["hide-input"]
described = describe_models(names).set_index("name").rename_axis("model")
show(described, "The models of this run", counts=())
met = leaks(names, cohort).set_index("model")
show(met, f"What the models were pretrained on, and cohort {cohort.name!r}")

# %% [markdown]
# What the small CLIPs were trained on names the bias that was planted there. A
# patient whose films were in the training is recognised, not diagnosed: hence
# the second table.
#
# One film shows how asking works. The first model compares it with the phrases
# of paper S, one for each finding, and with one that stands for health. (Where
# films may not be shown, the film is a phantom.)

# %%
shown = cohort
if guard.active():  # no film of a protected patient; a phantom serves as well
    notebook.withheld("the film")
    shown = cohorts.load("phantom", n_images=100, seed=seed)
film = clearest(shown, ["Pleural Effusion", *findings])

clip = clips[0]
if chosen.temperature == "none":  # the film is answered with the scale too
    clip = load_models(first, replace(chosen, temperature="learned"))[0]
clip = clip.members[0]  # of an ensemble, its first checkpoint
phrases = [f"Chest {label}" for label in findings] + ["Chest No Findings"]
image, texts = embed(shown, clip)[[film]], embed_text(phrases, clip)
similarity = zeroshot.similarity(image, texts, clip.unit_text)[0]

# %% tags=["hide-input"]
fine = cohorts.study(data, n_images, seed, options, size=192)  # of a phantom
seen = None if guard.active() else fine.images([film])[0]
plots.film_and_phrases(seen, phrases, similarity, first)
figure(
    "fig-zeroshot-film",
    "A film, and its similarity to phrases. What counts is the distance of a "
    f"bar's end from the dashed line, the phrase for health. {shown.credit}",
)

# %% tags=["remove-input"]
present = shown.table[list(findings)].iloc[film] == 1
margin = similarity[:-1] - similarity[-1]
say(f"""
The film of {{numref}}`fig-zeroshot-film` shows
{listed(present.index[present], none="no finding")}. Bars beyond the dashed
line are preferred to health: {listed(np.array(findings)[margin > 0])}.
""")

# %% [markdown]
# But a similarity by itself means little. Paper S turns two of them into a
# probability: the softmax over the phrase of the finding, with similarity
# $s_+$, and the phrase of health, with similarity $s_-$:
#
# $$ p = \frac{e^{\tau s_+}}{e^{\tau s_+} + e^{\tau s_-}}
#    = \frac{1}{1 + e^{-\tau (s_+ - s_-)}} $$ (eq-zero-shot)
#
# The factor $\tau$, the *logit scale*, was learned in training. Some of the
# models in S were used without it, which is the same as $\tau = 1$.

# %%
answers = pd.DataFrame({"finding": findings})
answers["on the film"] = np.where(present, "yes", "no")
answers["s+"] = similarity[:-1]
answers["s+ - s-"] = margin
answers["p, scale 1"] = 1 / (1 + np.exp(-margin))
answers["p, learned scale"] = 1 / (1 + np.exp(-clip.logit_scale * margin))
show(answers, f"What {first} answers for this film")

# %% tags=["remove-input"]
top = answers.loc[answers["s+ - s-"].idxmax()]
false = answers[(margin > 0) & (answers["on the film"] == "no")]["finding"]
say(f"""
The highest phrase is that of {top["finding"]}, which
{"is" if top["on the film"] == "yes" else "is not"} on this film. Its
probability is {top["p, scale 1"]:.2f} with a scale of 1 and
{top["p, learned scale"]:.2f} with the learned scale of
{clip.logit_scale:.1f}: the same two similarities, the same order of films,
another number, to which [chapter 7](07_calibration) returns.

Each finding is asked separately: the probabilities of a film need not sum to
1; here they sum to {answers["p, learned scale"].sum():.2f}. And every question
has the same opponent. A film that looks ill is unlike "Chest No Findings", and
that lifts the score of *every* finding. Above one half, and not on this film:
{listed(false)}.
""")

# %% [markdown]
# ## The table of S
#
# Now all films, models and findings. *AUC* is the chance that a film with the
# finding scores higher than one without: one half is random, 1 is perfect.
# *Adjusted AUPRC* starts from recall (sensitivity: how many films with the
# finding raise an alarm) and precision (how many alarms are true). The area
# under their curve, AUPRC, is set against the prevalence $\pi$, the share of
# films with it, which random scores would reach {cite:p}`mosquera2024`:
#
# $$ \mathrm{AUPRC}_{adj} =
#    1 - \frac{\log \mathrm{AUPRC}}{\log \pi} $$ (eq-auprc-adj)
#
# Here 0 is random and 1 is perfect. The intervals come from a *bootstrap*:
# patients are drawn at random from the cohort, with repeats, each with all of
# their films (as published: films), and every number is computed again, many
# times. Where most of these numbers lie, there is the interval.
#
# The row *Mean* averages the findings. Paper S prints a $\pm$ behind its
# means: the standard deviation over the findings. That is a spread between
# diseases; it would not shrink with a million patients. The interval of a mean
# answers the other question, how far it would move with other patients.

# %%
predictions = zeroshot.predict(
    cohort, clips, findings, negative=chosen.negative_prompt
)
results = as_published.performance_by_protocol(
    predictions, protocol=chosen, **drawing
)
results = schema.rows(results, metric=list(as_published.METRICS))
spread = as_published.spread_over_labels(results)
ours = pd.concat([results, spread], ignore_index=True)
keep(ours)

# %% tags=["hide-input"]
over = f"95 % intervals over {chosen.unit}s"
layout = {"rows": "label", "columns": "model"}
as_in_s = as_published.like_table_1  # findings, their mean, S's ± below
show(as_in_s(ours, "auc"), f"Zero-shot AUC, {over}", **layout)

# %% tags=["hide-cell"]
show(as_in_s(ours, "adjusted_auprc"), f"Adjusted AUPRC, {over}", **layout)

# %% tags=["hide-input"]
plots.bars(schema.rows(results, metric="auc"))
figure("fig-zeroshot-auc", f"Zero-shot AUC, with {over} (S, Table 1).")

# %% tags=["hide-input"]
plots.bars(schema.rows(results, metric="adjusted_auprc"))
figure("fig-zeroshot-auprc", f"Zero-shot adjusted AUPRC, with {over}.")

# %% tags=["remove-input"]
means = schema.rows(results, label="mean")
ranked = means.pivot(index="model", columns="metric", values="value").rank()
same = (ranked["auc"] == ranked["adjusted_auprc"]).sum()
auc = estimate(means, metric="auc", model=first)
half = (auc.high - auc.low) / 2
sd = estimate(spread, model=first, metric="auc_sd_over_labels").value
easy = schema.rows(results, metric="auc", label=findings)
easy = easy.groupby("label", sort=False)["value"].mean().dropna().sort_values()
hardest = easy.index[0] if len(easy) else findings[0]
say(f"""
These are {count(len(cohort.table))} films of
{count(cohort.table["patient_id"].nunique())} patients of the cohort
*{cohort.name}*. Means over the findings, in {{numref}}`fig-zeroshot-auc`:
{in_words(schema.rows(means, metric="auc"))} In {{numref}}`fig-zeroshot-auprc`:
{in_words(schema.rows(means, metric="adjusted_auprc"))} In the order of the
models, {same} of {len(names)} have the same place by both measures. The
hardest finding is {listed(easy.index[:1])}, the easiest
{listed(easy.index[-1:])}.

For {first} the mean AUC is {auc}, an uncertainty of about ± {half:.3f}. Its
standard deviation over the findings is {fmt(sd)}, {sd / half:.1f} times as
large: it says how findings differ, not how sure the mean is.
""")

# %% tags=["remove-input"]
table_1 = published.table("S Table 1").query("label == 'mean'")
a, b = (
    " ± ".join(f"{x:.2f}" for x in schema.rows(table_1, model=m)["value"][:2])
    for m in ("MedCLIP", "CheXzero")
)
quiz(
    f"Table 1 of S prints a mean AUC of {a} for MedCLIP and {b} for CheXzero. "
    "What do the two ± say about which would be ahead on other patients?",
    {
        "They overlap, so the two models cannot be told apart.": (
            False,
            "They would overlap just as much with a million patients: some "
            "findings are easier than others, for both models alike.",
        ),
        "Nothing.": (
            True,
            "They are spreads over findings. An answer needs the difference "
            "of the two models, with an interval from drawing patients.",
        ),
        "MedCLIP is ahead for sure: its mean is higher, its ± smaller.": (
            False,
            "A smaller ± means that its findings are more alike.",
        ),
    },
)

# %% [markdown]
# ## Which model is better?
#
# All models saw the same films. So their difference can be taken within each
# resample of patients: a lucky draw of easy patients helps both, and cancels.
# Comparing two separate intervals by eye ignores what they share.

# %%
if pairs := [(name, first) for name in names[1:]]:
    cautious = {"protocol": chosen.cautious} | drawing  # none of few cases
    gaps = fairness.model_gap_table(
        predictions, pairs, metrics="auc", **cautious
    )
    plots.gap_forest(gaps)
    what = "Difference in AUC on the same films, with paired 95 % intervals. "
    what += "Right of 0, the model named first is better."
    figure("fig-zeroshot-gaps", what)

# %% tags=["remove-input"]
if pairs:
    found = schema.rows(gaps, label="mean")
    found = {a: estimate(found, model=f"{a} - {b}") for a, b in pairs}
    sides = gaps[gaps["label"] != "mean"].apply(schema.side, axis=1)
    say(f"""
Mean AUC beside {first}:
{"; ".join(f"{a} {beside(x)}, {x}" for a, x in found.items())}. Of the
{len(sides)} differences in a single finding, the intervals of
{sides.isin(["above", "below"]).sum()} exclude 0. An interval that includes 0
does not show that two models are equal.
""")

# %% [markdown]
# ## What is resampled?
#
# Paper S resamples films. Films of one patient resemble each other, so a film
# brings less news than it seems to, and an interval over films tends to be too
# narrow. Here are both, on the same predictions.

# %%
widths = pd.DataFrame()
for unit in ("patient", "image"):
    p = replace(chosen.cautious, unit=unit)
    table = fairness.performance_table(predictions, protocol=p, **drawing)
    table = table.set_index(["metric", "label", "model"])
    widths[f"{unit}s"] = table["ci_high"] - table["ci_low"]

# %% tags=["hide-input"]
averaged = widths.groupby(["metric", "label"]).mean()
averaged["ratio"] = averaged.eval("patients / images")
show(averaged, "Mean width of 95 % intervals, by what is drawn", digits=3)

# %% tags=["remove-input"]
ratio = widths.eval("patients / images").replace(np.inf, np.nan).dropna()
films = cohort.table.groupby("patient_id").size()
say(f"""
A patient has {films.mean():.1f} films on average here. The interval over
patients is wider in {100 * (ratio > 1).mean():.0f} % of the rows; the median
ratio is {ratio.median():.2f}. (Most phantoms have findings drawn anew for each
film.) Where somebody is imaged every morning, as in intensive care, expect
more: [Do the intervals cover?](09_coverage) tests it on a known truth.
""")

# %% [markdown]
# ## What does prevalence do?
#
# AUC compares one ill with one healthy film, so it cannot know how many of
# each there are. Precision does: among a hundred alarms, the share of true
# ones falls when the disease becomes rare. Equation {eq}`eq-auprc-adj` divides
# by the logarithm of the prevalence to make up for it. Does it? Give each film
# without the finding a weight, as if it stood for several: the weight sets the
# prevalence, and nothing else changes. The finding is the hardest one.

# %%
of_hardest = schema.rows(predictions, label=hardest)
prevalences = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
weighted, change = prevalence_table(of_hardest, prevalences, chosen, **drawing)

# %% tags=["hide-input"]
plots.dose_response(
    schema.rows(weighted, metric="adjusted_auprc"),
    x="prevalence",
    xlabel=f"prevalence of {hardest} (log scale)",
    shares=True,
)
figure(
    "fig-zeroshot-prevalence",
    "Adjusted AUPRC of the same scores; free of prevalence, it would be flat.",
)

# %% tags=["remove-input"]
steady = schema.rows(weighted, metric="auc", model=first)["value"]
change = schema.rows(change, metric="adjusted_auprc")
moved = change.apply(schema.side, axis=1).isin(["above", "below"]).sum()
moves = "; ".join(f"{m} {estimate(change, model=m)}" for m in names)
say(f"""
AUC does not move (by {steady.max() - steady.min():.0e}, which is rounding). In
{{numref}}`fig-zeroshot-prevalence` the adjusted AUPRC changes, from the lowest
prevalence to the highest, by {moves}; the interval of the change excludes 0
for {moved} of {len(names)}. "Adjusted" means that random scores give 0 and
perfect ones 1 at every prevalence. What lies between still depends on
prevalence: two findings, hospitals or groups cannot be compared by it as they
stand. The curves behind it: [All the ways of asking](14_wordings).
""")

# %% [markdown]
# ## Beside the paper
#
# S prints, of {published}`S Section 2.4; n_models` models and
# {published}`S Section 2.3; n_images_with_findings_text` real films:

# %% tags=["hide-input"]
theirs = published.table("S Table 1")
show(as_in_s(theirs, "auc"), "S, Table 1: AUC", **layout)
compared = published.compare(ours, theirs)
counts = compared.groupby(["metric", "verdict"], sort=False).size()
show(counts.rename("numbers of S").reset_index(), "Verdicts", counts=())

# %% tags=["hide-cell"]
show(as_in_s(theirs, "adjusted_auprc"), "S: adjusted AUPRC", **layout)

# %% tags=["remove-input"]
s_means = schema.rows(theirs, label="mean", metric="auc")
outside = theirs.query("value < ci_low or value > ci_high")["model"]
say(f"""
{(compared["verdict"] == published.OTHER_COHORT).sum()} of the {len(compared)}
numbers get the verdict *not comparable (another cohort)*: S chose its films
from MIMIC-CXR in a way that is not public. Means over findings in S:
{in_words(s_means)} {len(outside)} printed intervals do not hold their own
estimate (model: {listed(outside.unique())}): the published tables mix two
versions of the bootstrap, and the older one cut limits off at 0, which a
negative adjusted AUPRC cannot survive.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# The phantom knows how *severe* each finding is; no label and no phrase says
# so. If a score means what it should, the severe half of the films with a
# finding must be told from films without it more easily than the mild half.

# %%
halves = zeroshot.severity_halves(cohort, predictions)
by_model = halves.groupby("model", sort=False)[["mild half", "severe half"]]
easier = halves["severe half"] > halves["mild half"]
if cohort.planted:
    show(by_model.mean(), "Mean AUC of mild and severe findings")

# %% tags=["remove-input"]
LOW, HIGH = 0.78, 0.95  # what the training of the models was planned to reach
small = describe_models()["name"] if cohort.planted else []
small = schema.rows(means, metric="auc", model=list(small))["value"].dropna()
promise = f"""The small CLIPs were built to be good but not perfect, with a
mean AUC between {LOW} and {HIGH} on phantom patients whom they have not seen:
found for {small.between(LOW, HIGH).sum()} of {len(small)}."""
severe = f"the severe half is the easier one in {easier.sum()} of "
severe += f"{len(easier)} combinations of model and finding."
planted = f"""Here {severe} Nobody told the models; where one ranks by
severity, it saw it. {promise if len(small) else ""}"""
say(planted if cohort.planted else "Real films: nothing was planted in them.")

# %% [markdown]
# ## Limits
#
# - One cohort: phantoms, or films labelled by software that read reports. That
#   one model is ahead on phantoms says nothing of real films.
# - AUC and adjusted AUPRC know no threshold, nor what an alarm costs.
# - The intervals are about other patients *like these*. Another hospital has
#   other scanners, reports and labels, and no bootstrap knows them.
# - S asks in one way. There are many: [All the ways of asking](14_wordings).

# %% tags=["remove-input"]
overall = in_words(schema.rows(means, metric="auc"))
in_short(
    f"""
How good are answers to a question in words? Means over findings, on
{count(len(cohort.table))} films ({cohort.name}): {overall}
{f"Of the films with a finding, {severe} " * cohort.planted}Paper S
prints, on its own films: {in_words(s_means)} The ± in its tables is a spread
over diseases, which here is {sd / half:.1f} times the uncertainty.
""",
    figure="fig-zeroshot-auc",
    found=f"Asked in words, mean over findings: {overall}",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-zeroshot-by-hand
# A model has an AUPRC of 0.4. Compute its adjusted AUPRC at a prevalence of
# 0.4, of 0.1 and of 0.01. Would you say that a model with 0.4 at 1 %
# prevalence is as good as one with 0.4 at 10 %?
# ```
#
# ```{solution} ex-zeroshot-by-hand
# :class: dropdown
# $1 - \log 0.4 / \log 0.4 = 0$: random. At 0.1 it is
# $1 - \log 0.4 / \log 0.1 = 0.60$, at 0.01 it is 0.80. At 1 % the model has
# lifted precision to forty times that of random scores, at 10 % to four times.
# To a ward both mean the same: about four alarms in ten are true.
# ```
#
# ```{exercise}
# :label: ex-zeroshot-quarter
# Run the chapter with a quarter of the films, `-p n_images=1000`. Predict
# before you look: what happens to the width of the interval of the mean AUC of
# the first model, and what to the $\pm$ of paper S?
# ```
#
# ```{solution} ex-zeroshot-quarter
# :class: dropdown
# An interval shrinks with the root of the number of patients: with a quarter
# of them it is about twice as wide as it is above. The standard deviation over
# the findings has no reason to grow or to shrink (it only becomes less exact),
# since some findings stay easier than others. The one number is about
# patients, the other about diseases.
# ```
#
# ## Further reading
#
# - {cite:t}`radford2021` introduce CLIP and zero-shot classification.
# - {cite:t}`mosquera2024` compare metrics under imbalance.
# - {cite:t}`hesterberg2015` teaches the bootstrap, and where it fails.
