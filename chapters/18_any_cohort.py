# ---
# jupyter:
#   chapter:
#     answers:
#       X 3.1: fig-curation-leakage
#     goals:
#     - measure how many test images show a patient who was in training
#     - find what goes with a group, and with a class of a balanced subset
#     - say which decisions stand behind a table of ages, races and labels
#     needs:
#     - 01_data_curation
# ---

# %% [markdown]
# # Leakage and confounders of any cohort
#
# *Goes further than [Data curation](01_data_curation): the splits of
# {cite:t}`sun2025`, paper X, section 3.1, and what the cohorts of both papers
# could give away.*
#
# A student who has seen the questions before the exam gets a good mark, and
# the mark says nothing. A model has seen them if the patient of a test image
# was in its training. And a student who notices that the right answer is
# mostly the longest one needs no medicine. For a model, the view position may
# be such a clue, or the scanner, or the age. Both make a model look better
# than it will be for the next patient who comes in.
#
# **What of that is in a data set can be counted before any model is trained.
# What does a cohort give away?**

# %% tags=["parameters"]
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom and of the first 6x200 draw
n_draws: int = 50  # [1, 1000] how often the 6x200 subset is drawn anew
n_images: int = 800  # [60, 17000] images in the phantom cohort
size: int = 96  # [32, 256] side of a phantom image, in pixels

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# The first half of the chapter reads the metadata of real patients, NIH
# ChestX-ray14; the second half asks the same of the cohort of this run.

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import associations, leakage, mimic, nih6x200, summary
from cxrlib.models import model_names, published_models
from cxrlib.models.leaks import leaks
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import (
    COLOURS,
    estimate,
    fmt_row,
    listed,
    percent,
    readable,
)

# %%
studied = cohorts.study(data, n_images, seed, options, size=size)
nih = cohorts.load("nih-metadata").table

# %% [markdown]
# ## Drawing the balanced subset, and splitting it
#
# The list of images of NIH 6x200 is not published, so the draw of paper X is
# one of very many. Here the images are drawn again and again by the recipe,
# and each draw is split 7:1:2 into training, validation and test *images*, as
# the recipe reads. *Leakage* is the share of test images whose patient has
# another image in training: the model has met this patient.

# %%
draws = nih6x200.draws(range(seed, seed + n_draws))
show(
    draws[["seed", "patients", "leakage"]].head(3),
    "The first draws: patients among the images, and leakage",
    counts=("patients",),
)

# %% tags=["hide-input"]
leaking = draws["leakage"]
over_draws = f"{percent(leaking.min())} to {percent(leaking.max())}"
fig, axis = plt.subplots(figsize=(4, 2.8))
axis.hist(100 * leaking, bins=np.arange(0, 41, 2), color="#0072B2")
axis.axvline(0, color="#D55E00", lw=3)
label_at = (0.5, axis.get_ylim()[1] * 0.85)
axis.annotate("split by patient", label_at, color="#B34700")
axis.yaxis.get_major_locator().set_params(integer=True)
axis.set(xlabel="leaking test images (%)", ylabel="draws", xlim=(-0.5, 40))
figure(
    "fig-curation-leakage",
    "Share of test images whose patient also has an image in training, over "
    "repeated draws with an image-level split. A patient-level split gives 0.",
    "Histogram: leaking test images in per cent against draws. Over the draws "
    f"the share runs from {over_draws}, mean {percent(leaking.mean())}; a "
    "line at 0 marks a split by patient.",
    draws,
    counts=(),
)

# %% tags=["remove-input"]
by_image = nih6x200.draw(seed, split="image")
by_patient = nih6x200.draw(seed, split="patient")
tested = (by_image["split"] == "test").sum()
say(f"""
A draw of {len(by_image):,} images has about {draws["patients"].mean():.0f}
patients. On average {percent(leaking.mean())} of the {tested} test images
({over_draws} over the {len(draws)} draws), some
{leaking.mean() * tested:.0f} images or one in {1 / leaking.mean():.0f}, show a
patient on whom the model was trained. A model that remembers patients is
rewarded for it there. Splitting patients instead leaves
{percent(nih6x200.leakage(by_patient))}. The paper does not say which of the
two it did.

Whoever wants the films of a draw needs their names first. The command
`cxrbook nih-6x200-list --seed N --out films.txt` writes them from the metadata
alone, before anything is fetched, and says the fingerprint of the draw. With
the seed of this run, {seed}, it is `{nih6x200.fingerprint(by_patient)}`: two
people with the same fingerprint have the same films in the same split.

"Young" has no lower end: this draw holds {(by_image["age"] < 18).sum()} images
of patients under 18, the youngest aged {by_image["age"].min()}.
""")

# %% [markdown]
# ## How is a patient imaged?
#
# A patient who can stand is imaged with the beam entering at the back (PA),
# one who cannot, in bed, with the beam entering at the front (AP). The view
# position is not a property of the patient, yet it says how ill the patient
# is. Does it go with sex, or with age?

# %% tags=["hide-input"]
bands = pd.cut(nih["age"], edges := np.arange(0, 101, 5), right=False)
bands = bands.rename("age, years")
by_age = [pd.crosstab(bands, nih[a], dropna=False) for a in ("sex", "view")]
by_age = pd.concat(by_age, axis=1)
fig, axes = plt.subplots(1, 2, figsize=(4, 2.4), sharey=True)
for group, axis in zip(by_age, np.repeat(axes, 2), strict=True):
    style = {"lw": 2, "color": COLOURS[group], "label": readable(group)}
    axis.stairs(by_age[group], edges, **style)
    axis.set_xlabel("age (years)")
    axis.legend(loc="upper left")
axes[0].set_ylabel("images")
axes[0].set_ylim(0, 1.3 * by_age.max().max())  # room for the legends
figure(
    "fig-curation-age",
    "Age at imaging by sex (left) and by view position (right). An image "
    "counts as one, so that a patient with many images counts often.",
    "Two panels of histograms: age in bands of five years against images, by "
    "sex and by view.",
    by_age,
)

# %%
nih["AP"] = (nih["view"] == "AP").astype(int)
ap = associations.prevalence(nih, ["AP"], "age_group")
ap["share AP"] = [fmt_row(row) for _, row in ap.iterrows()]
show(
    ap[["group", "share AP", "n", "n_patients"]],
    "Share of images in AP view by age, with 95 % intervals over patients",
)

# %% tags=["remove-input"]
medians = {
    group: rows["age"].median()
    for attribute in ("sex", "view")
    for group, rows in nih.groupby(attribute)
}
ends = nih[nih["age_group"].isin(["18-25", "80+"])]
ends = ends.assign(old=(ends["age"] >= 80).astype(int))
apart = associations.association(ends, "AP", "old")
apart = estimate(apart, group="with - without")
old, young = (schema.row(ap, group=g) for g in ("80+", "18-25"))
say(f"""
The median age is {medians["F"]:.0f} years on the images of women and
{medians["M"]:.0f} on those of men, {medians["PA"]:.0f} on PA and
{medians["AP"]:.0f} on AP films. One might expect the oldest to be imaged in
bed most often. Here {percent(old["value"])} of their images are AP films,
against {percent(young["value"])} for the youngest adults: a difference of
{apart}, whose interval {apart.lies}. And the oldest are few: {old["n"]:,}
images, {percent(old["n"] / len(nih), 1)} of the release. Whatever a later
chapter says of patients over 80, it says with a wide interval.
""")

# %% [markdown]
# ## Balanced in age and sex, but in what else?
#
# Each disease of the subset has as many women as men, and as many young as
# old. The recipe says nothing of the view.

# %% tags=["hide-input"]
ap_share = draws.filter(like="AP ").rename(columns=lambda c: c[3:])
ap_share = ap_share[ap_share.mean().sort_values().index]
mean_ap = ap_share.mean()
fig, axis = plt.subplots(figsize=(4, 2.8))
ends = (100 * ap_share.min(), 100 * ap_share.max())
axis.hlines(ap_share.columns, *ends, color="#0072B2", lw=2)
axis.plot(100 * mean_ap, ap_share.columns, "o", color="#0072B2")
axis.set(xlim=(0, 100), xlabel="images taken in AP view (%)")
axis.grid(axis="x", alpha=0.3)
figure(
    "fig-curation-view",
    "Share of AP films of each disease in the 6x200 subset: mean and range "
    "over repeated draws.",
    "Dots with ranges, one row per disease: images taken in AP view, per "
    "cent. Means over the draws: "
    f"{listed(f'{d} {percent(x)}' for d, x in mean_ap.items())}.",
    ap_share.agg(["mean", "min", "max"]).T.rename_axis("disease"),
)

# %% [markdown]
# How far does the view alone carry? The best guess names, on AP films, the
# disease with most AP films, and on PA films the one with most PA films.

# %%
view_only = (mean_ap.max() + (1 - mean_ap).max()) / len(mean_ap)
by_chance = 1 / len(mean_ap)

# %% tags=["remove-input"]
say(f"""
{percent(mean_ap.max())} of the {mean_ap.idxmax()} images are AP films, but
only {percent(mean_ap.min())} of those with {mean_ap.idxmin()}. A "classifier"
that sees nothing but the view position is right for {percent(view_only)} of
the images; blind guessing gives {percent(by_chance)}. Balancing age and sex
did not balance how sick the patients were, nor how they were imaged.
""")

# %% tags=["remove-input"]
quiz(
    "In NIH 6x200 each disease has as many women as men and as many young as "
    "old. A model classifies its diseases better than chance. Must it have "
    "looked at the disease?",
    {
        "Yes: there is no other clue left in a balanced subset.": (
            False,
            "Only age and sex were balanced, alone and together. What was not "
            "looked at can still differ, as the view position does: it alone "
            f"is right for {percent(view_only)} of the images, where chance "
            f"gives {percent(by_chance)}.",
        ),
        "No: a clue that was not balanced may have helped.": (
            True,
            "The view position is such a clue. Scanner, ward, tubes and "
            "cables may be others, and metadata say nothing of them.",
        ),
        "No: the model may use age or sex.": (
            False,
            "Alone they do not help here: within each disease all four cells "
            "are of equal size, or nearly so.",
        ),
    },
)

# %% [markdown]
# ## What goes with a group?
#
# From here on, the cohort of this run. If one group is imaged in bed more
# often, is older, or has a finding more often, a model can treat groups
# differently without seeing the group at all. The table of patients in
# [Data curation](01_data_curation) was by sex; this one is by race, where race
# is recorded.

# %% tags=["hide-input"]
if "race" in studied.attributes:
    show(
        summary.table_one(summary.characteristics(studied, by="race")),
        f"Characteristics by race: {studied.name}",
        counts=(),
    )
else:
    say("Race is not recorded here, so nothing can be said by race.")

# %% [markdown]
# Three panels show what else there is to see: view, age and findings of each
# group, with intervals over patients. A hollow ring stands for a number that
# is undefined or, in credentialed data, hidden.

# %%
ORDER = ("sex", "race", "age_group")
panels = [a for a in ORDER if a in studied.attributes][:2]
confounders = [summary.confounders(studied, a) for a in panels]

# %% tags=["hide-input"]
CAPTION = "View, age and findings by {}, with 95 % intervals over patients."
if panels:
    plots.confounder_panel(confounders[0])
    figure("fig-curation-confounders", CAPTION.format(readable(panels[0])))

# %% tags=["hide-input"]
if len(panels) > 1:
    plots.confounder_panel(confounders[1])
    figure("fig-curation-confounders-2", CAPTION.format(readable(panels[1])))

# %% tags=["remove-input"]
widest = summary.widest_difference(confounders)
told = "Nothing can be compared here: no two groups have a number to show"
if len(widest):
    high, low = (row for _, row in widest.iterrows())
    touch = high["ci_low"] <= low["ci_high"]
    told = f"""
Of the findings drawn here, {high["label"]} differs most between groups: it is
on {percent(high["value"], 1)} of the images of one
({readable(high["group"])}), and on {percent(low["value"], 1)} of another
({readable(low["group"])}). Their intervals
{"overlap" if touch else "do not overlap"}. This is the widest of many
differences, so a little of it is luck in any case"""
say(f"{told}.")

# %% [markdown]
# ## What could leak?
#
# A patient who is in training and test, a film that is there twice under two
# names, a film that a model was pretrained on: each lets a model look better
# than it is. The official lists of NIH and of MIMIC-CXR are checked when they
# are read: a patient in two of them stops the run.

# %%
examined = [*model_names(), *published_models()]
report = leakage.report(studied, leaks(examined, studied))
show(report, f"Leakage report: {studied.name}", missing="–", counts=())

# %% tags=["remove-input"]
notes = report.loc[report["check"].str.startswith("pretraining"), "note"]
same = notes.str.startswith("trained on this source").sum()
apart_from = notes.str.contains("on other patients").sum()
say(f"""
Of {len(examined)} models, {same} were trained on a source of this cohort, of
them {apart_from} on other patients. A model that was trained on these very
patients is a student who is asked the questions of the textbook. A dash stands
for a check that does not apply to this cohort; the note says why.

Copies are found by a hash of the file; near-duplicates by a *perceptual* hash
of {leakage.HASH_BITS} bits, of which at most {leakage.MAX_DISTANCE} may
differ. A film that was saved anew, made smaller or a little brighter keeps its
hash or nearly so. Two films of different people can be as close by chance: a
near-duplicate is a reason to look, no proof.
""")

# %% [markdown]
# ## How the table of MIMIC-CXR is made
#
# Nothing in MIMIC-CXR says how old a patient is, or of which race. Both come
# from MIMIC-IV, the hospital record of the same patients, and each takes a
# decision that a paper should state.
#
# - **Age.** Dates are shifted, by patient. The record gives an age in one
#   *anchor year*; the age at the film is that age plus the years between
#   anchor and film. Patients over 89 are written as 91, so that ages from 91
#   on are lower limits.
# - **Race.** Each admission has an entry, chosen by patient or clerk. The
#   entries are sorted into five groups by the table below. Entries that say
#   "unknown" count only where there is no other; a patient whose admissions
#   say two groups is "other".
# - **Text.** A report's FINDINGS section is what stands under that heading or
#   a spelling of it; a report without one leaves the cohort, as in S, unless
#   `reports` is set to "any".
# - **Labels.** A program read them from the reports: present, absent,
#   uncertain (−1), or blank. What becomes of the last two is the option
#   `labels`. S takes blanks as absent; what it did with −1 is not known.

# %% tags=["hide-input", "hide-output"]
entries = pd.Series(mimic.RACES, name="group").rename_axis("entry in MIMIC-IV")
show(entries.reset_index(), "Race: entries of MIMIC-IV and their groups")

# %% tags=["hide-input"]
policies = pd.DataFrame(mimic.POLICIES).T.set_axis(["−1", "blank"], axis=1)
policies.index = [f'"{name}"' for name in mimic.POLICIES]
show(policies.rename_axis("labels"), "Label policies, by name")

# %% tags=["remove-input"]
known = mimic.KNOWN.set_index("what")["images"]
say(f"""
"Hispanic or Latino" is no race in most censuses and one of the entries here,
so these patients have no race on record and are "other". Another mapping would
be another cohort.

And the papers' counts cannot be met. Paper S speaks of a test split of
{known["test split as S prints it"]:,} images,
{known["with a FINDINGS section, as S prints it"]:,} of them with a FINDINGS
section. The official test split has {known["official test split"]:,} images.
The file from which S read its cohort is made by no public script, so that
cohort cannot be rebuilt by anyone else; which of its images a model may have
been trained on cannot be checked either. This book takes the official split,
and says so with each number.
""")

# %% [markdown]
# ## Limits
#
# - What is not in a table cannot be found in it. Ward, scanner, tubes and
#   cables are clues as well, and metadata say nothing of them.
# - Leakage is counted by patient numbers. A patient who was given two numbers
#   is two patients here.
# - What a model was pretrained on is taken from its paper. "No shared source
#   known" is not "no shared source".

# %% tags=["remove-input"]
in_short(
    f"""
What does a cohort give away before any model is trained? In {len(draws)} draws
of NIH 6x200, split by images as its recipe reads, {percent(leaking.mean())} of
the test images show a patient of the training set ({over_draws}); a split by
patients leaves {percent(nih6x200.leakage(by_patient))}. Balanced in age and
sex, its diseases still differ in how they were imaged: the view position alone
is right for {percent(view_only)} of the images, where chance gives
{percent(by_chance)}. Of {len(examined)} models, {same} were trained on a
source of the cohort {studied.name}, {apart_from} of them on other patients.
""",
    figure="fig-curation-leakage",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-curation-view
# Repair the imbalance in view position: keep PA films only. Which of the six
# diseases can still offer 50 images in each cell? Who is no longer
# represented?
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-curation-view
# :class: dropdown
# ````

# %% tags=["solution"]
pa_only = nih6x200.cell_counts(nih[nih["view"] == "PA"])
pa_only = pa_only.loc[list(nih6x200.DISEASES)].drop(columns="in_paper")
show(pa_only, "PA films with exactly one finding, by cell")

# %% tags=["remove-input", "solution"]
dropped = pa_only.index[~pa_only["satisfies"]]
say(f"""
Dropped would be: {listed(dropped)}. {len(pa_only) - len(dropped)} of
{len(pa_only)} diseases are left. A subset without confounding by view is a
subset without the patients too ill to stand. The repair has a price, and one
group of patients pays it.
""")

# %% [markdown] tags=["solution"]
# ````{solution-end}
# ````

# %% [markdown]
# ## Further reading
#
# - {cite:t}`larrazabal2020` vary the share of women and men in training, and
#   watch who pays.
# - {cite:t}`oakdenrayner2020datasets` looked at the images behind public
#   labels.
# - {cite:t}`johnson2019` describe MIMIC-CXR, its films and its reports.
