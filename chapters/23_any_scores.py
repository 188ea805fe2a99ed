# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - audit a model of which you have nothing but its answers
#     - say which questions scores can answer, and which need films
#     - count who was not answered before anything is compared
#     needs:
#     - 04_subgroup_fairness
#     - 07_calibration
# ---

# %% [markdown]
# # Any score can be audited
#
# *Goes beyond {cite:t}`sourget2025` and {cite:t}`sun2025`: their questions,
# put to what is no CLIP.*
#
# A hospital has bought a device for the night shift. It writes a number beside
# each film; what is inside, the vendor keeps to himself. The radiologist of
# the day writes "yes" or "no". A colleague has asked a language model that
# reads pictures. Three answers for the same patient, and a fair question from
# the ward: do women get as good an answer as men, from each of the three?
#
# Nobody can look inside, and nobody has to. A table with film, finding and
# score is all that the audit of this book reads. **What can be said of a model
# that is nothing but its answers, and would a bias planted in them be found?**

# %% tags=["parameters"]
seed: int = 1907  # [0, 1000000] of the phantoms, the readers and the resamples
n_images: int = 4000  # [200, 17000] films that are audited
missed: float = 0.3  # [0, 0.9] of what is seen in men, overlooked in women
silent: float = 0.03  # [0, 0.5] of films, on which one model says nothing
n_resamples: int = 300  # [2, 100000] bootstrap resamples

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# The films are phantoms, so that the truth is known. Their findings:

# %% tags=["hide-input"]
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from cxrlib import cohorts, schema
from cxrlib.embed.extract import embed
from cxrlib.models import load_models
from cxrlib.predict import precomputed, zeroshot
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, estimate, fmt, listed, plural
from cxrlib.stats import fairness

# %%
drawn = cohorts.load("phantom", n_images=n_images, seed=seed)
others = cohorts.load(
    "phantom", n_images=n_images // 2, seed=seed, split="valid"
)
people, findings = drawn.table, list(drawn.findings)
truth = people[findings].to_numpy()
rng = np.random.default_rng(seed)
folder = Path(mkdtemp())

# %% tags=["remove-input"]
say(f"""
{listed(findings)}, on {count(len(people))} films of
{count(people["patient_id"].nunique())} patients.
""")

# %% [markdown]
# ## A file of scores
#
# One row for each film and finding: `image_id`, `finding`, `score`. The higher
# the score, the more likely the finding; it may be a probability, a distance,
# a grade from one to five, or yes and no. A column `method` may say how it
# came about. CSV or Parquet, from whatever program.


# %%
def write(name, answers, of=people["image_id"]):
    """A file with the answers (films, findings) of one model."""
    table = pd.DataFrame(answers, columns=findings).assign(image_id=[*of])
    table = table.melt("image_id", var_name="finding", value_name="score")
    table.to_csv(folder / name, index=False)


# %% [markdown]
# ### A classifier
#
# The first is no CLIP: a logistic regression for each finding, fitted by this
# chapter to other patients. It sees films by the image half of
# *phantom-resnet* and reads no text; a network for films with a head for each
# finding is what most devices are.

# %%
seen, asked = embed(others, "phantom-resnet"), embed(drawn, "phantom-resnet")
heads = [
    LogisticRegression(max_iter=500).fit(seen, others.table[f])
    for f in findings
]
of_head = np.stack([h.predict_proba(asked)[:, 1] for h in heads], axis=1)
write("classifier.csv", of_head)
show(pd.read_csv(folder / "classifier.csv", nrows=3), "First lines of a file")

# %% [markdown]
# ### A reader with a bias
#
# The second is made up, so that it is known what is wrong with her. She says
# yes or no. In men she finds a fixed share of what is there; in women she
# misses more, by the parameter `missed`. Her false alarms are the same in all.

# %%
IN_MEN, ALARMS = 0.85, 0.08
share = np.where(people["sex"] == "F", IN_MEN * (1 - missed), IN_MEN)
says_yes = np.where(truth == 1, share[:, None], ALARMS)
of_reader = (rng.random(truth.shape) < says_yes).astype(int)
write("reader.csv", of_reader)

# %% [markdown]
# ### A model that generates text
#
# The third stands for a language model that was asked "Is there a ...? Answer
# yes or no." and whose probability of the word "yes" was written down.
# **It is simulated**: no such model has seen these films. Its scores follow
# from how severely a finding was drawn, with noise, and are pushed to the
# ends, as those of such models often are. On a few films it declines to
# answer. These have no row in its file.

# %%
severity = people[[f"severity_{f}" for f in findings]].to_numpy()
evidence = severity + rng.normal(0, 0.35, truth.shape)
of_words = np.round(1 / (1 + np.exp(-9 * (evidence - 0.45))), 3)
answers = rng.random(len(people)) >= silent
write("generated.csv", of_words[answers], people["image_id"][answers])

# %% [markdown]
# ## Read back
#
# `models=scores:FILE` names such a file wherever a chapter asks for models;
# several stand side by side, also with encoders. `answerable` is what chapters
# 4, 6 and 7 do next: they keep the films that every model has answered, so
# that all are judged on the same patients, and say how many are left.

# %%
names = ["classifier.csv", "reader.csv", "generated.csv"]
models = load_models(",".join(f"scores:{folder / name}" for name in names))
cohort = precomputed.answerable(drawn, models)
people = cohort.table
WHO = dict(zip([m.name for m in models], names, strict=True))
WHO = {name: file.removesuffix(".csv") for name, file in WHO.items()}
predictions = zeroshot.predict(cohort, models, findings)
predictions = predictions.replace({"model": WHO})
predictions = predictions.merge(people[["image_id", "sex"]], on="image_id")

# %% tags=["remove-input"]
lost = len(drawn.table) - len(people)
say(f"""
Of {count(len(drawn.table))} films, {count(lost)} are left out because one of
the three was silent. The honest alternatives are few. To count silence as
"no" is to invent an answer; to judge each on its own films is to compare an
exam with another exam. To leave out is to lose patients, and whoever is silent
on difficult films gains by it. So the number stands on the page.
""")

# %% [markdown]
# ## The same audit for all
#
# From here on nothing knows where a score came from. First, how well ill and
# healthy are put in order:

# %%
sampling = {"n_resamples": n_resamples, "seed": seed}
quality = fairness.performance_table(predictions, "auc", ["sex"], **sampling)
show(
    schema.rows(quality, label="mean"),
    "AUC, mean over findings",
    rows="model",
    columns="group",
)

# %% [markdown]
# AUC asks for an order, and a yes or no orders films in two heaps: hers is the
# mean of sensitivity and specificity. So let us put the same question to all:
# who of the ill is found? The reader's yes is her own. The others get the
# threshold at which they raise as many false alarms as she does.

# %%
reader = predictions["model"] == "reader"
decided = pd.concat(
    [
        fairness.decide(predictions[reader], threshold=0.5),
        fairness.decide(predictions[~reader], specificity=1 - ALARMS),
    ]
)
rates = ["sensitivity", "specificity"]
gaps = fairness.gap_table(
    decided, "sex", [("F", "M")], metrics=rates, **sampling
)
found = schema.rows(gaps, metric="sensitivity", label="mean")

# %% tags=["hide-input"]
PLANTED = -IN_MEN * missed
plots.gap_forest(found).axes[0].axvline(PLANTED, color="black", ls=":")
figure(
    "fig-scores-gaps",
    "Women minus men: sensitivity, mean over findings, with 95 % intervals. "
    "Left of 0, women are missed more often. Dotted: what was planted in the "
    "reader.",
)

# %% tags=["remove-input"]
at = {m: estimate(found, model=m) for m in WHO.values()}
alarms = estimate(gaps, metric="specificity", label="mean", model="reader")
row = schema.row(found, model="reader")
holds = row["ci_low"] <= PLANTED <= row["ci_high"]
verdict = "cannot be judged in this run"
if at["reader"].side != "undefined":
    below = at["reader"].side == "below"
    verdict = "is found" if below else "is not found in this run"
bias = f"planted bias {verdict}" if missed else "reader was given no bias"
covers = "covers" if holds else "does not cover"
if at["reader"].side == "undefined":
    covers = "cannot say whether it covers"
say(f"""
In the reader, the planted gap is {fmt(PLANTED, 3, signed=True)}. The audit,
which knows nothing of it, says {at["reader"]} (the interval {covers} what was
planted, and {at["reader"].lies}). **The {bias}.** In
specificity, where nothing was planted, the gap is {alarms}; its interval
{alarms.lies}.

In the other two nothing was planted by sex. The classifier's gap is
{at["classifier"]} (the interval {at["classifier"].lies}), that of the
generated answers {at["generated"]} (the interval {at["generated"].lies}).
""")

# %% tags=["remove-input"]
quiz(
    "The vendor of the device gives scores for the films that his device "
    "rated as readable. Which number do you ask for first?",
    {
        "Its AUC on these films.": (
            False,
            "Films that were left out are rarely a random sample. Their "
            "number, and who is on them, decides what the AUC means.",
        ),
        "How many films were not rated, by sex and age.": (
            True,
            f"Here {count(lost)} films are missing by chance, because this "
            "chapter drew them. Elsewhere they may be the old and the ill.",
        ),
        "None: scores without a network cannot be audited.": (
            False,
            "Every number of this page came from answers alone.",
        ),
    },
)

# %% [markdown]
# ## What a score must be for what question
#
# Order is enough for AUC, a yes for sensitivity. *Calibration* asks more: a
# number between 0 and 1 that means a frequency. A file says nothing of what
# its numbers mean, so what lies outside is refused as a probability, and so is
# a bare yes or no.

# %%
able = [WHO[m.name] for m in precomputed.calibratable(models)]
mass, large = "ece_equal_mass", "calibration_in_the_large"
off = fairness.performance_table(
    schema.rows(predictions, model=able), [mass, large], **sampling
)
show(
    schema.rows(off, label="mean"),
    "Calibration of those with probabilities, mean over findings",
    rows="model",
    columns="metric",
)

# %% tags=["remove-input"]
of_words = estimate(off, metric=large, label="mean", model="generated")
of_head = estimate(off, metric=large, label="mean", model="classifier")
say(f"""
The classifier was fitted to frequencies: predicted minus observed is
{of_head} (the interval {of_head.lies}). The generated answers look like
probabilities and were never fitted to any; theirs is {of_words} (the interval
{of_words.lies}). An AUC would not have told.
""")

# %% [markdown]
# Other questions need more than scores, and chapters that ask them say so and
# end there. [Embeddings](05_embeddings) and [probes](19_probes) need vectors;
# `models=embeddings:FOLDER` takes them from a folder, with a vector for each
# phrase. Twins, films drawn again with one thing changed, need a model that
# can be shown new films: [Subgroup fairness](04_subgroup_fairness) and
# [Shortcuts](06_shortcuts) then show them to the small CLIPs of the book, and
# say so.
#
# | you have | you can ask |
# |---|---|
# | yes or no | sensitivity, specificity, their gaps; AUC of two heaps |
# | scores in any range | also AUC, AUPRC, arms with and without a drain |
# | probabilities | also calibration, and recalibration by group |
# | vectors of films, phrases | also zero-shot, some wordings, maps, probes |
# | the model | everything |
#
# ## Limits
#
# - Whoever made the file knew the films. Nothing here proves that scores were
#   given before the truth was known; a file that repeats the labels is
#   refused, one that repeats most of them is not.
# - Where a model was trained is not in its scores: a leak can neither be seen
#   nor ruled out.
# - The reader's errors were drawn film by film. Those of people hang together,
#   and one reader is not all readers.
# - What the generated scores show is what was simulated.

# %% tags=["remove-input"]
in_short(
    f"""
Can a model be audited of which there are only answers? Here three files
({listed(WHO.values())}) go through one audit on {count(len(people))} films;
{count(lost)} were left out because one model said nothing. In the reader, a
gap in sensitivity of {fmt(PLANTED, 3, signed=True)} between women and men was
planted; the audit says {at["reader"]}. The {bias}. Of
{plural(len(WHO), "file")}, {len(able)} can be asked for calibration. Papers S
and X look at CLIPs alone.
""",
    figure="fig-scores-gaps",
    found=f"From answers alone, an audit: the {bias}.",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-scores-mean
# A reader has a sensitivity of 0.8 and a specificity of 0.9. What is the AUC
# of her yes and no? What would a reader who always says no have?
# ```
#
# ```{solution} ex-scores-mean
# :class: dropdown
# A pair of an ill and a healthy film is in order with probability
# $0.8 \cdot 0.9$, tied with $0.8 \cdot 0.1 + 0.2 \cdot 0.9$, and a tie counts
# half: $0.72 + 0.13 = 0.85$, the mean of the two. A reader
# who always says no has 0.5.
# ```
#
# ```{exercise}
# :label: ex-scores-silent
# Let the generated answers be missing where they would have been wrong: write
# the file without films on which `of_words` is above 0.5 and nothing is there.
# What happens to its specificity, and to that of the classifier?
# ```
#
# ```{solution} ex-scores-silent
# :class: dropdown
# At its own threshold it now makes fewer mistakes, without being better. The
# classifier is judged on the same films, which are those that the other found
# easy, so it may gain as well. Only the count of films left out has changed
# visibly; this is why the page gives it.
# ```
#
# ```{exercise}
# :label: ex-scores-own
# Run chapters 4 and 6 on a file of your own making, such as the reader of this
# chapter written to a folder of yours:
# `cxrbook run 04 -p models=scores:PATH/reader.csv`. Which sections are about
# her, and which are about the models of the book?
# ```
#
# ```{solution} ex-scores-own
# :class: dropdown
# Whatever is computed from films of the cohort is hers: groups, gaps,
# families, arms. Whatever is drawn anew is not, since she never saw these
# films; a box on the page says so. Chapter 7 says that a bare yes or no has no
# calibration.
# ```
#
# ## Further reading
#
# - {cite:t}`seyyedkalantari2021` audit classifiers for missed disease by sex,
#   age, race and insurance.
# - {cite:t}`vancalster2019` say what calibration means to those who use a
#   score.
