# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.3: fig-curation-flow
#       X 2.1: fig-curation-cells
#     goals:
#     - say who is in a data set, and what its labels, ages and views hide
#     - tell images from patients, and why intervals need patients
#     - rebuild a cohort from the numbers that a paper prints
#     needs: []
# ---

# %% [markdown]
# # Data curation: who is in the picture
#
# *Answers section 2.3 of {cite:t}`sourget2025`, paper S, and section 2.1 of
# {cite:t}`sun2025`, paper X.*
#
# A hospital wants to know whether a model treats its patients alike. The first
# thing to ask is not about the model at all: who are the patients? A data set
# that is full of people imaged in bed teaches a model what a bed looks like,
# and one patient with a hundred films counts as a hundred. Later, in a table
# of results, both come back dressed as properties of the model: skill that it
# does not have, or unfairness that was in the data. Somebody pays for it, and
# mostly it is the patient whose kind was hardly there, so that nobody measured
# how often the model is wrong about them.
#
# Both papers describe their data in one section. **Who is in their data, can
# their cohorts be rebuilt from what they print, and who is studied in this
# book?**

# %% tags=["parameters"]
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] seed of the phantom cohort
n_images: int = 800  # [60, 17000] images in the phantom cohort
size: int = 96  # [32, 256] side of a phantom image, in pixels

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

from cxrlib import cohorts, guard
from cxrlib.cohorts import associations, metadata, nih6x200, planted, summary
from cxrlib.cohorts.look import alike, of_the_same_kind
from cxrlib.papers import counts, published
from cxrlib.show import plots
from cxrlib.show.notebook import figure, films, keep, show, withheld
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, fmt_row, listed, percent, plural

# %% [markdown]
# Two tables are read: that of the cohort of this run, which comes further
# down, and the metadata of NIH ChestX-ray14.

# %%
studied = cohorts.study(data, n_images, seed, options, size=size)
release = cohorts.load("nih-metadata")
nih = release.table
FINDINGS = list(metadata.FINDINGS)

# %% [markdown]
# ## The real patients of NIH ChestX-ray14
#
# The images of ChestX-ray14 {cite:p}`wang2017` fill a disk. Their table takes
# a megabyte, travels inside the open-source package TorchXRayVision
# {cite:p}`cohen2022`, and needs no permission. One row is one image. A
# *finding* is something that can be seen on it, such as fluid or an enlarged
# heart.

# %% tags=["hide-input"]
if guard.active():
    withheld("rows of single images")
else:
    show(
        nih.iloc[:4, :8].rename(columns={"age_group": "age group"}),
        "The first rows and columns of the table of NIH ChestX-ray14",
    )

# %% tags=["remove-input"]
nothing = (nih[FINDINGS].sum(axis=1) == 0).mean()
patients = nih["patient_id"].nunique()
say(f"""
There are {len(nih):,} images of {patients:,} patients; {percent(nothing)} of
the images carry none of the {len(FINDINGS)} findings. The names are those of
the release, with one exception: its "Effusion" is called *Pleural Effusion*
here, the name that paper S uses. The labels were read out of radiology reports
by software. A 1 means "the software read the report as saying so", not "the
patient has it" {{cite:p}}`oakdenrayner2020datasets`.
""")

# %% [markdown]
# Every analysis by age starts with a count of what it must leave out. Paper S
# sorts patients into five age groups from 18 years on, so children have none.

# %% tags=["hide-input"]
show(
    summary.flow(release),
    "From the release to an age group",
    counts=("images", "patients"),
)

# %% tags=["remove-input"]
impossible = len(metadata.impossible_ages(nih))
say(f"""
Recorded ages run from {nih["age"].min()} to {nih["age"].max()} years. Older
copies of this table held ages of several centuries; this one holds
{impossible} above {metadata.OLDEST_POSSIBLE_AGE} years. The check costs one
line, so it stays.
""")

# %% [markdown]
# ### How many images has a patient?

# %%
per_patient = nih.groupby("patient_id").size().sort_values(ascending=False)
most = per_patient.max()
once = (per_patient == 1).mean()
top_tenth = per_patient.head(len(per_patient) // 10).sum() / len(nih)

# %% tags=["hide-input"]
plots.images_per_patient(per_patient)
figure(
    "fig-curation-images-per-patient",
    "Images per patient in NIH ChestX-ray14. Both axes are logarithmic: each "
    "step is a factor, not a sum.",
    counts=("patients",),
)

# %% tags=["remove-input"]
say(f"""
{percent(once)} of the patients were imaged once: the tall block at the left of
{{numref}}`fig-curation-images-per-patient`. At its right end stands one
patient who was imaged {most} times. The most imaged tenth of the patients own
{percent(top_tenth)} of all images.
""")

# %% [markdown]
# Two images of one patient share a rib cage, a heart, often a disease. They
# are not two independent observations. That has two consequences for the whole
# book: a split that separates training from test must separate *patients*, and
# an uncertainty must come from resampling *patients*.
#
# ### Which findings, in whom?
#
# A patient who can stand is imaged with the beam entering at the back:
# *posteroanterior*, PA. A patient who cannot is imaged in bed, with the beam
# entering at the front: *anteroposterior*, AP. There the heart looks larger,
# the lungs shorter, and cables cross the chest. The view position is not a
# property of the patient, yet it says a lot about the patient.
#
# The *prevalence* of a finding is the share of images that show it. Each one
# gets an interval over patients: Wilson's interval for a share, widened by the
# *design effect*. That is the factor by which repeated images of the same
# patients inflate the variance. Suppose it is 4: then a thousand images tell
# as much as 250 images of different patients would.

# %%
ATTRIBUTES = ("sex", "view", "age_group")
by_group = [associations.prevalence(nih, FINDINGS, a) for a in ATTRIBUTES]
found = pd.concat(by_group, ignore_index=True)

# %% tags=["hide-input"]
plots.prevalence_panels(found)
figure(
    "fig-curation-prevalence",
    f"Prevalence of the {len(FINDINGS)} findings by sex, view position and "
    "age group, with 95 % intervals over patients. The axis is logarithmic: "
    "equal distances are equal ratios.",
    counts=("n", "n_positive", "n_patients"),
)

# %%
shares = found.pivot(index="label", columns="group", values="value")
ratios = {
    attribute: np.maximum(shares[a] / shares[b], shares[b] / shares[a])
    for attribute, a, b in (("sex", "F", "M"), ("view", "AP", "PA"))
}
table = pd.DataFrame(ratios).agg(["median", "max", "idxmax"]).T
show(
    table.set_axis(["median of all findings", "largest", "that of"], axis=1),
    "Ratio of the prevalences in two groups, the larger over the smaller",
    digits=1,
)

# %% tags=["remove-input"]
by_sex, by_view = ratios.values()
more = "more" if by_view.median() > by_sex.median() else "less"
extreme = by_view.idxmax()
side = "AP" if shares.loc[extreme, "AP"] > shares.loc[extreme, "PA"] else "PA"
clustered = found.loc[found["design_effect"].idxmax()]
say(f"""
Findings follow the view position {more} than the sex. The extreme is
{extreme}: {by_view.max():.0f} times as common on {side} films as on the
other view. A model that recognises a bed can therefore look as if it
recognised {extreme}; keep that in mind when the next section calls a subset
"balanced".

The design effect is largest for {clustered["label"]} in the group
{clustered["group"]}: {clustered["design_effect"]:.1f}. A few patients with
many images carry most of the count there. An interval that took images for
independent would be {np.sqrt(clustered["design_effect"]):.1f} times too
narrow, the square root of it.
""")

# %% [markdown]
# ## A balanced subset: NIH 6x200

# %% tags=["remove-input"]
edema_old = ["old F", "old M"]
in_print = [nih6x200.EXCEPTIONS["Edema", "old", sex] for sex in "FM"]
say(f"""
Paper X wants equal numbers of young and old, women and men. For each disease
it draws {nih6x200.PER_CELL} images from each of four cells: young or old
({nih6x200.OLD_AGE} and over) by female or male. Four cells make
{4 * nih6x200.PER_CELL} images a disease; there are {len(nih6x200.DISEASES)}
diseases, hence the name NIH 6x200. One exception is stated: old patients with
edema are {in_print[0]} women and {in_print[1]} men. How images with *several*
findings are handled is not stated. The exception gives it away.
""")

# %%
single = nih6x200.cell_counts(nih, rule="single")
several = nih6x200.cell_counts(nih, rule="any")
edema = pd.DataFrame(
    {
        "exactly one finding": single.loc["Edema", edema_old].astype(int),
        "edema, whatever else": several.loc["Edema", edema_old].astype(int),
        "paper X": in_print,
    }
).rename_axis("cell")
show(edema, "Old patients with edema, counted by two rules")

# %% tags=["remove-input"]
fits = [list(edema[rule]) == in_print for rule in edema.columns[:2]]
say(f"""
Counting images with *exactly one finding*
{"gives exactly" if fits[0] else "does not give"} the numbers of the paper.
Counting every image with edema {"also fits" if fits[1] else "does not fit"}.
One exception, printed in passing, tells how the cohort was made. And with the
rule, the paper's statement that "only six diseases satisfy" its criterion can
be checked: each of the four cells must offer {nih6x200.PER_CELL} images.
""")

# %% tags=["hide-input"]
least = single["smallest"]
plots.smallest_cells(single, nih6x200.PER_CELL)
figure(
    "fig-curation-cells",
    "The smallest of the four cells of each disease. Dark bars: the six "
    "diseases of paper X. The line marks the number of images that the recipe "
    "asks for.",
    counts=("young F", "young M", "old F", "old M", "smallest"),
)

# %% tags=["remove-input"]
enough = single.index[single["satisfies"]]
further = [d for d in enough if d not in nih6x200.DISEASES]
short = [d for d in nih6x200.DISEASES if d not in enough]
smallest = count(single.loc[list(nih6x200.DISEASES), "smallest"].min())
only_six = "follows" if len(enough) == 6 else "does not follow"
say(f"""
By this count {len(enough)} of the {len(single)} diseases satisfy the
criterion: all bars of {{numref}}`fig-curation-cells` that cross the line. The
paper says six. Of its six, those that fall short: {listed(short)}; the
smallest cell of the six has {smallest} images. More diseases would have been
possible, {len(further)} of them: {listed(further)}.

So "only six" {only_six} from the rule. The six may have been chosen for
other good reasons, such as being the labels of other data sets. A reader
should know that more could be studied.
""")

# %% [markdown]
# How the subset is drawn and split, how many patients a split by images leaves
# on both sides, and what balancing age and sex did not balance is told in
# [Leakage and confounders](18_any_cohort).
#
# ### What the papers say, what this run computes

# %% tags=["hide-input"]
claims = counts.nih_beside_papers()
show(claims, "What the papers say of NIH and of NIH 6x200, and what it holds")

# %% [markdown]
# The first line has a simple explanation. ChestX-ray8, the eight-label data
# set of the article that paper X cites {cite:p}`wang2017`, has the counts that
# paper X prints; the release with fourteen labels has those of paper S. Paper
# X describes the fourteen labels and quotes the counts of the eight-label
# predecessor. No result hangs on it. But whoever wants to rebuild a cohort
# starts from its size.
#
# ## Who is in it? The cohort of this run
#
# The chapters that follow study one cohort, which the parameter `data` names.
# By default it is a *phantom*: films drawn by a program for real rows of the
# NIH table. `cxrbook cohorts` lists the others, and {doc}`../data` says which
# files they want.

# %% tags=["remove-input"]
people = studied.table
hidden = ("name", "dials", "renderer", "drains")  # say nothing here
recipe = [f"{k} {v}" for k, v in studied.recipe.items() if k not in hidden]
say(f"""
Here it is **{studied.name}**: {count(len(people))} images of
{count(people["patient_id"].nunique())} patients, with
{plural(len(studied.findings), "finding")} and the attributes
{listed(studied.attributes, none="of no two groups")}; its access is
{studied.access}. Options: {listed(recipe)}. Fingerprint:
`{studied.fingerprint}`. It is computed from the rows, the films and the
options, whatever their order and the folder they lie in: two runs with the
same one studied the same cohort; one label or film that differs gives another.
""")

# %% tags=["hide-input"]
steps = summary.flow(studied)
plots.flow_diagram(steps)
figure(
    "fig-curation-flow",
    "The exclusion flow, from the release to the cohort of this run.",
    counts=("images", "patients", "images_out", "patients_out"),
)

# %% tags=["remove-input"]
most_out = steps.loc[steps["images_out"].idxmax()]
by_step = "no step left out an image"
if most_out["images_out"]:
    by_step = f'the step that left out most is "{most_out["step"]}", with '
    by_step += f"{most_out['images_out']:,} images"
say(f"""
Of the images of the first step,
{percent(len(people) / steps["images"].iloc[0], 1)} are left; {by_step}.
A patient is left out with the last of the patient's images. In credentialed
data, steps that left out fewer than ten are merged with their neighbours.
""")

# %% [markdown]
# Clinical papers describe their patients in the first table; papers on models
# seldom do. Images are counted, except in the line of patients. Shares are of
# the images of the column, ages are medians with quartiles. In credentialed
# data, "hidden" stands for numbers that rest on fewer than ten patients, and
# for others from which these could be computed.

# %%
characteristics = summary.characteristics(studied, by="sex")
show(
    summary.table_one(characteristics),
    f"Characteristics by sex: {studied.name}",
    counts=(),
)

# %% tags=["remove-input"]
in_group = {
    group: images["patient_id"].nunique()
    for attribute in studied.attributes
    for group, images in people.groupby(attribute)
}
thin = min(in_group, key=in_group.get, default=None)
say(f"""
Look in such a table for small groups. The smallest by sex, age or race is
{listed([thin])}, with {count(in_group.get(thin))} patients: numbers about them
will have wide intervals. The same table by race, what else differs between
groups, and what could leak: [Leakage and confounders](18_any_cohort).
""")

# %%
keep(counts.cohort_counts(studied))
beside = counts.counts_beside_papers(studied)
if len(beside):
    show(
        beside,
        "Counts: the data set, the papers, this run",
        missing="–",
        counts=(),
    )

# %% tags=["remove-input"]
differ = (beside["verdict"] == published.DIFFERS).sum()
none = "Neither paper prints counts of this data set."
say(f"""
{f"{differ} of these {len(beside)} counts differ." if len(beside) else none} A
cohort whose name ends in "(part)" lacks some of the images that the official
release or list has; its numbers are never set against published ones. On
MIMIC-CXR nobody can meet the papers' counts: [the reason](18_any_cohort).
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# Of real patients nobody knows the truth. A phantom is there because **its
# biases are planted**: one can ask whether an audit finds them. Some can be
# found by counting in the table of the cohort. (Whatever the data of the
# chapter, this part is about phantoms.)

# %%
phantoms = studied
if studied.name != "phantom":
    phantoms = cohorts.load("phantom", n_images=n_images, seed=seed, size=size)
counted = planted.counted(phantoms)

# %% tags=["remove-input"]
told = "\n".join(
    f"- {x['share of']}: planted {x['planted']:.2f}, counted {fmt_row(x)}"
    for _, x in counted.iterrows()
)
recovered = (counted["verdict"] == "found").sum()
say(f"""
{told}

The interval over patients holds the planted share for {recovered} of
{len(counted)}. What else is planted, and how twins find what no table shows:
[Phantoms](11_phantoms).
""")

# %% tags=["remove-input"]
if studied.films is not None and not guard.active():
    real, drawn, kinds = of_the_same_kind(studied, phantoms)
    films(
        "fig-curation-real",
        f"Real films, phantoms below: {listed(kinds)}. {studied.credit}",
        {"real": studied.images(real), "phantoms": phantoms.images(drawn)},
        f"Chest radiographs, and phantoms of the same kinds: {listed(kinds)}.",
    )
    say(f"""
**What the phantom lacks.** It has what this book plants or needs: lungs, a
heart, bones, vessels, findings, devices, the scanner of a site. It lacks what
nobody planted: arms, air in the stomach, films turned or cropped by hand, most
tubes and lines, illness that no label names. How alike are two patients? The
pixels of real films correlate at {alike(studied):.2f}, those of phantoms at
{alike(phantoms):.2f} (medians). What holds on phantoms shows that a method
works where the truth is known. A model that learned from them has seen none of
what {{numref}}`fig-curation-real` shows in its upper row.
""")

# %% [markdown]
# ## Limits
#
# - The metadata are those of one American research hospital. Race, income and
#   scanner are not in them.
# - All labels were read from reports by software. The errors are not
#   independent of how the report was written.
# - The rule behind NIH 6x200 was inferred from one printed exception. Another
#   rule that gives the same two numbers cannot be excluded.

# %% tags=["remove-input"]
in_short(
    f"""
Who is in the data of the papers, and can their cohorts be rebuilt? NIH
ChestX-ray14 has {len(nih):,} images of {patients:,} patients; the most imaged
tenth of them own {percent(top_tenth)} of the images, and findings follow the
view position {more} than the sex. Of {len(claims)} statements in print about
this data set, {(claims["verdict"] == published.REPRODUCED).sum()} are
reproduced. Counting images with exactly one finding
{"gives" if fits[0] else "does not give"} the {in_print[0]} old women and
{in_print[1]} old men with edema of paper X; by that rule {len(enough)}
diseases could be studied, where X says six. Of {len(counted)} shares planted
in the phantom cohort, {recovered} lie in the interval counted from its table.
""",
    figure="fig-curation-cells",
    found=f"By the rule that X prints, {len(enough)} diseases of NIH could "
    "have been studied, where it says six.",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-curation-threshold
# How many diseases would be left if the recipe asked for 100 images a cell,
# how many for 30? Which threshold is the largest at which all six diseases of
# paper X satisfy it?
# ```

# %% tags=["remove-input", "solution"]
say(f"""
```{{solution}} ex-curation-threshold
:class: dropdown
{(least >= 100).sum()} diseases would be left at 100 images a cell,
and {(least >= 30).sum()} at 30: `(single["smallest"] >= 100).sum()`. All six
satisfy a threshold of {smallest}, the smallest cell among them.
```
""")

# %% [markdown]
# ## Further reading
#
# - {cite:t}`wang2017` made the NIH data set, and tell how its labels were read
#   from reports.
# - {cite:t}`oakdenrayner2020datasets` looked at the images behind public
#   labels, and at what the labels miss.
# - {cite:t}`gebru2021` propose the questions that every data set should come
#   with answers to.
# - {cite:t}`johnson2019` describe MIMIC-CXR, the credentialed data set of
#   paper S.
