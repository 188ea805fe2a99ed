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
#     - say why a model may read the treatment instead of the disease
#     - name what a gap with and without a device can mean besides a shortcut
#     - prove a shortcut with twins, and read a dose-response curve
#     needs:
#     - 02_zero_shot
# ---

# %% [markdown]
# # Shortcuts: the disease, or its treatment?
#
# *Answers section 3.3 of {cite:t}`sourget2025`, paper S, its Fig. 4a and 4b,
# and the drain labels of its section 2.3.*
#
# Three in the morning, a young man with a sudden pain in the chest. His lung
# has collapsed: there is air between lung and chest wall, a *pneumothorax*.
# The treatment is a *drain*, a tube that lets the air out. A film with a drain
# shows somebody who has already been found and treated. A model that reads the
# tube instead of the air looks excellent on an archive full of such films, and
# fails the one patient for whom it was bought: the one whom nobody has treated
# yet {cite:p}`oakdenrayner2020,jimenezsanchez2023`. A feature that predicts
# the label without being the disease is called a *shortcut*.
#
# Paper S compares pneumothorax with drains to pneumothorax without, for six
# models. This chapter also asks what real data cannot answer: **does the score
# of the same film change when only the drain is added?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort and of the resamples
n_images: int = 4000  # [60, 17000] of a phantom; real ones are whole
n_twins: int = 1500  # [60, 17000] films drawn with and without a drain
drain_labels: str = "annotated"  # {annotated, predicted} of unlabelled films
label_error: dict = {}  # known error rates of the labels, by finding
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# Of models that this book trained, it is known what they met: in the training
# of *phantom-resnet-drain*, drains gave the disease away; in others, not.

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import associations, phantom
from cxrlib.models import load_models, model_names
from cxrlib.papers import published
from cxrlib.predict import drains, precomputed, zeroshot
from cxrlib.predict.phantom_models import BIASED_DRAINS, FAIR_DRAINS
from cxrlib.protocol import protocol_of
from cxrlib.show import interactive, notebook, plots, words
from cxrlib.show.corrections import beside_noted
from cxrlib.show.notebook import figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import each, fmt, listed, percent, why_undefined
from cxrlib.stats import fairness, shortcuts
from cxrlib.stats.label_error import as_stated, corrected_arms

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
clips = load_models(models, chosen)
seers = precomputed.seeing(clips, chosen)
names, seen = ([clip.name for clip in of] for of in (clips, seers))
notebook.warn_if_seeded(names, data)
every = [*names, *seen]
trained = {m: m.endswith("-drain") for m in every if m in model_names()}
biased = [m for m, on_drains in trained.items() if on_drains]
fair = [m for m, on_drains in trained.items() if not on_drains]
foreign = [m for m in names if m not in trained]
sampling = {"n_resamples": n_resamples, "seed": seed}

# %% [markdown]
# ## The association is real
#
# A shortcut needs an association to feed on. PadChest {cite:p}`bustos2020` is
# one of the few public sets whose labels name the drain.

# %%
padchest = associations.padchest_drains().set_index("group")
show(
    padchest[["n", "n_positive", "n_patients"]]
    .set_axis(["images", "images with a drain", "patients"], axis=1)
    .assign(share=[words.fmt_row(row, 4) for _, row in padchest.iterrows()])
    .rename_axis("pneumothorax"),
    "PadChest: share of images with a chest drain, by pneumothorax",
)

# %% tags=["remove-input"]
times = padchest["value"]["with"] / padchest["value"]["without"]
say(f"""
A drain is {times:.0f} times as common with pneumothorax as without. Yet
{padchest["n_positive"]["without"]} images have the drain and no pneumothorax
on record: a drain is evidence, not proof. Other findings go with other
devices, and the bond differs between women and men, young and old:
[A detector for the controls](16_drain_detector) counts both.
""")

# %% [markdown]
# ## Two arms
#
# S forms two *arms*: positives of one are films of pneumothorax with a drain,
# of the other without. Both share the *controls*, films without pneumothorax.
# Each arm gets an AUC and adjusted AUPRC ({doc}`02_zero_shot`): how far apart?
#
# Two things first. The arms differ in *prevalence*, the share of positives, as
# soon as one has more positives than the other; and adjusted AUPRC does not
# remove prevalence fully. And the paper labels drains in the *controls* by a
# detector, but in its code these labels have no effect: controls with a drain
# stay in both arms. The corrected form weights the positives of the larger arm
# to the prevalence of the smaller, keeps only controls labelled as without a
# drain, and resamples patients instead of images, with expanded intervals
# (chapter {doc}`09_coverage`).

# %%
how = {"preprocessing": chosen.preprocessing}
cohort = cohorts.study(data, n_images, seed, options, **how)
cohort = precomputed.answerable(cohort, clips)
if drain_labels == "predicted":
    cohort = drains.stored(cohort)
DEVICE, status = shortcuts.device_status(cohort.table)
carries = shortcuts.carriers(status)
show(carries, f"Images with and without {DEVICE}")

# %% tags=["remove-input"]
both = shortcuts.arm_protocols(carries)
unknown = carries.loc["controls", "unknown"] / carries.loc["controls"].sum()
used = {"without": f"those labelled as without {DEVICE}", "any": "all of them"}
say(f"""
{drains.provenance(cohort)} A pneumothorax of which nobody knows whether it had
one belongs to neither arm, as in S. Of the controls, {percent(unknown)} are
unknown; the corrected arms take {used[both[1].drain_controls]}.
""")

# %%
asked = {"labels": ["Pneumothorax"], "negative": chosen.negative_prompt}
predictions = zeroshot.predict(cohort, clips, **asked)
predictions = predictions.merge(status[["image_id", DEVICE]])
arms = shortcuts.drain_arms(
    predictions, device=DEVICE, protocols=both, **sampling
)
keep(arms)
ours = schema.rows(arms, protocol=chosen.name)
GAP = f"with {DEVICE} - without {DEVICE}"
show(
    ours.replace({GAP: "difference"}),
    f"Zero-shot pneumothorax with and without {DEVICE}, protocol {protocol}",
    rows=["model", "metric"],
    columns="group",
)

# %% tags=["hide-input"]
plots.drain_arms(ours, metric="auc", protocol=chosen.name)
figure(
    "fig-shortcut-arms-auc",
    "AUC of zero-shot pneumothorax in the two arms, with and without "
    f"{DEVICE} (S, Fig. 4a). Bars start at chance.",
)

# %% tags=["hide-input"]
plots.drain_arms(ours, protocol=chosen.name)
figure(
    "fig-shortcut-arms",
    "Adjusted AUPRC of zero-shot pneumothorax in the two arms, with and "
    f"without {DEVICE} (S, Fig. 4b). Bars start at what random scores give.",
)

# %% tags=["remove-input"]
gaps = schema.rows(ours, group=GAP, metric="adjusted_auprc")
raw = schema.rows(arms, protocol="as_published", metric="auc", model=names[0])
share = raw.set_index("group").eval("n_positive / n").replace(0, np.nan)
of = {"fair": fair, "biased": biased, "foreign": foreign}
told = {w: each(schema.rows(gaps, model=of[w]), none="not run") for w in of}
say(f"""
{{numref}}`fig-shortcut-arms-auc` and {{numref}}`fig-shortcut-arms` show both.
Before any correction, positives make up {percent(share[f"with {DEVICE}"], 1)}
of the arm with {DEVICE} and {percent(share[f"without {DEVICE}"], 1)} without.

In the training of *phantom-resnet-drain*, a drain was on
{percent(BIASED_DRAINS["drain_if_pneumothorax"])} of the films with
pneumothorax and on {percent(BIASED_DRAINS["drain_if_none"])} of the others.
Its gap in adjusted AUPRC, with minus without {DEVICE}: {told["biased"]}. The
other small CLIPs met drains on {percent(FAIR_DRAINS["drain_if_none"])} of all
films, ill or not, so that the drain told them nothing: {told["fair"]}.
{f"What others met is not known: {told['foreign']}." if foreign else ""}
{why_undefined(gaps)}
""")

# %% tags=["remove-input"]
if label_error:
    told = predictions, label_error, DEVICE
    how = {"films": cohort.table, "protocol": both[protocol == "corrected"]}
    beside_noted(as_stated(corrected_arms, *told, **how, **sampling), names[0])

# %% [markdown]
# Is a gap above 0 proof of a shortcut, and one at 0 proof of none? Patients
# with a drain may have a larger pneumothorax, which is easier to see. And a
# drain can hide the very air that readers look for: the gap falls below 0.

# %% tags=["remove-input"]
quiz(
    "On real films, a model finds pneumothorax better with a drain than "
    "without, and the interval of the difference lies above 0. What follows?",
    {
        "The model reads the drain.": (
            False,
            "It may. But patients with a drain may also have more air in the "
            "chest, which any model finds more easily.",
        ),
        "On films with a drain, a test reports more than on films without.": (
            True,
            "That is what was measured, whatever the cause. Who wants to find "
            "untreated patients has to look at the arm without drains.",
        ),
        "More patients would settle which of the two it is.": (
            False,
            "They would make the interval narrower. Two causes of one gap "
            "stay two causes in any number of patients.",
        ),
    },
)

# %% [markdown]
# ## Beside the paper
#
# S finds a gap of {published}`S Fig. 4b; smallest of five` to
# {published}`S Fig. 4b; largest of five` in five of its six models, on the
# official test images of NIH ChestX-ray14 with the drains of NEATX
# {cite:p}`cheplygina2025`, tubes marked by readers who are no radiologists.

# %% tags=["hide-input"]
verdicts = published.compare(arms, published.table("S Fig. 4b"))
show(
    verdicts[["model", "value", "verdict"]],
    "Gap in adjusted AUPRC, with minus without drains, over S's models",
)

# %% [markdown]
# The abstract of S says that all models do worse without drains; its results
# section names the exception, CXR-CLIP. S calls the gaps a *potential*
# reliance on the drain, as far as arms can go. How a gap moves with the choice
# of controls: [A detector for the controls](16_drain_detector).
#
# ## The same film, with and without
#
# The phantom can do what no hospital can: draw the same film twice, alike in
# every pixel but the drain. These pairs are *counterfactual twins*: each shows
# what the other would have been. From here on the chapter uses the phantom,
# whatever the data above.
#
# **In [Phantoms](11_phantoms) you can add the drain yourself, and watch.**

# %%
small = cohorts.load("phantom", n_images=n_twins, seed=seed)
twins = [phantom.twin(small, drain=drain) for drain in (0, 1)]

# %% tags=["hide-input"]
large = cohorts.load("phantom", n_images=60, seed=seed, size=192)
few = np.flatnonzero(large.table["severity_Pneumothorax"] == 0)[:3]
pair = {"without drain": 0, "with drain": 1}
notebook.films(
    "fig-shortcut-twins",
    "Counterfactual twins: the same phantoms without and with a drain.",
    {t: phantom.twin(large, drain=d).images(few) for t, d in pair.items()},
    "Three phantom radiographs above; below, the same three with a thin "
    "bright tube that enters one lung from the side, and no other difference.",
)

# %% [markdown]
# Look for the thin bright line in the lower row: that is all that differs. For
# films *without* pneumothorax, the drain adds no disease, so any rise of the
# pneumothorax score between twins is caused by the drain. The *shift* is the
# mean difference between twins of the score on the log-odds scale,
# $\log\frac{p}{1-p}$, where probabilities near 0 and 1 are not squeezed
# together, in standard deviations (SD) of that score over films without a
# drain. Films *with* pneumothorax tell the other half: there the tube can lie
# over the very air that a reader looks for.

# %%
severity = small.table["severity_Pneumothorax"]
film = np.tile(np.where(severity > 0, "ill", "healthy"), len(seen))
scores = [
    zeroshot.predict(twin, seers, **asked).assign(film=film) for twin in twins
]
expanded = {"protocol": replace(chosen, interval="expanded"), **sampling}
shifts = shortcuts.score_shifts(scores[1], scores[0], "film", **expanded)
show(
    shifts,
    "Shift of the pneumothorax score (SD) when a drain is added to a film",
    rows="model",
    columns="group",
)

# %% tags=["hide-input"]
on_healthy = schema.rows(shifts, group="healthy")
plots.gap_forest(on_healthy)
figure(
    "fig-shortcut-shift",
    "Causal effect of an added drain on the pneumothorax score of films "
    "without the disease, in standard deviations of the score. A drain that a "
    "model ignores lies on the line at zero.",
)

# %% tags=["remove-input"]
FOUND, NOTHING = 0.5, 0.15  # SD: a shortcut lies above one, none within
known = trained | dict.fromkeys(foreign)
answers = shortcuts.device_readers(gaps, on_healthy, known, FOUND)
found = answers.loc[answers["model"].isin(biased), "twins say"].unique()
verdict = {
    "yes": "is found: the interval of the biased model lies above the bar",
    "no": "is not found: the interval of the biased model reaches below it",
}.get("".join(found), "cannot be judged in this run")
moved = {w: schema.rows(on_healthy, model=of[w]) for w in of}
told = {w: each(rows, none="not run") for w, rows in moved.items()}
near = moved["fair"]["value"].abs() < NOTHING
on_ill = schema.rows(shifts, group="ill", model=fair)
lowered = on_ill.loc[on_ill["ci_high"] < 0, "model"]
say(f"""
Of films without the disease, a shift above {FOUND:.1f} SD counts as a shortcut
here, one within {NOTHING:.2f} SD as none. In the model that met the
association it is: {told["biased"]}. **The planted shortcut {verdict}.** In the
other small CLIPs: {told["fair"]}; {near.sum()} of {len(fair)} stay within.
{f"What others met is not known: {told['foreign']}." if foreign else ""}

The fair models matter as much as the finding: had they moved as far, the test
would have measured how visible a drain is, not what a model learned. (To a
network, a bright line is a change of the picture like any other.) Of them, the
drain lowers the score of *ill* films for {listed(lowered)}. Where it does, it
hides part of what it treats, and the gap between the arms shrinks or turns
negative for a reason that is no shortcut.
""")

# %% [markdown]
# ## Dose and response
#
# How much of a benchmark's result is the drain? With the twins in hand, the
# share of pneumothorax images with a drain can be set to any value, nothing
# else changing: the *dose*. The AUC that such a test set would report is the
# *response*. If a treatment works, its effect grows with the dose.

# %%
with_drain, without = scores[1]["score"], scores[0]["score"]
how = {"protocol": chosen.cautious, "mean_over_labels": False, **sampling}
doses = []
for dose in (0.0, 0.25, 0.5, 0.75, 1.0):
    drained = phantom.twin(small, drain_if_pneumothorax=dose).table["drain"]
    mixed = np.where(np.tile(drained, len(seen)), with_drain, without)
    films = scores[0].assign(score=mixed)
    auc = fairness.performance_table(films, ["auc"], **how)
    doses.append(auc.assign(dose=dose))
doses = pd.concat(doses, ignore_index=True)

# %% tags=["hide-input"]
of_dose = "share of pneumothorax images with a drain"
plots.dose_response(doses, xlabel=of_dose)
figure(
    "fig-shortcut-dose",
    "Dose and response: the AUC that a test set reports as its share of "
    "treated pneumothorax grows, with intervals as bands.",
)

# %% tags=["remove-input"]
response = doses.pivot(index="model", columns="dose", values="value")
rise = (response[1.0] - response[0.0]).fillna(0)
steepest, flattest = rise.abs().idxmax(), rise.abs().idxmin()
low, high = (fmt(response.loc[steepest, dose]) for dose in (0.0, 1.0))
say(f"""
From no drain to a drain in every pneumothorax, the steepest line is that of
{steepest} (from {low} to {high}), the flattest that of {flattest} (a
difference of {fmt(rise[flattest], signed=True)}). Each model is the same at
both ends of its line: the test set decides which number is printed. A
benchmark that does not say how many of its patients were already treated
leaves its reader guessing where on the line it stands. Choose a share:
""")

# %% tags=["remove-input"]
interactive.dose(
    doses, "Explore: the reported AUC as the test set changes", xlabel=of_dose
)

# %% tags=["remove-input"]
quiz(
    f"A vendor reports an AUC of {high}. All of its patients with "
    "pneumothorax had a drain. What can an emergency department expect, whose "
    "patients have none?",
    {
        f"{high}: it is the same model.": (
            False,
            "The same model on another test set. Without the drains, that of "
            f"{steepest} is {low} in this run.",
        ),
        "The report cannot tell.": (
            True,
            f"It depends on what the model learned: {flattest} changes by "
            f"{fmt(abs(rise[flattest]))}, {steepest} by "
            f"{fmt(abs(rise[steepest]))}.",
        ),
        "A lower one, since untreated patients are harder.": (
            False,
            "Perhaps they are, but these films are the same at every dose.",
        ),
    },
)

# %% [markdown]
# ## What was planted, and was it found?
#
# It is known which models met the association in training. *Arms* say yes if
# the interval of the gap lies above 0, *twins* if that of the shift lies above
# the bar.

# %% tags=["remove-input"]
show(answers, "Does a model read drains? What was planted, what was found")
judged = answers[~answers.isin(["not known", "not asked"]).any(axis=1)]
said = judged[["arms say", "twins say"]].replace(words.UNDEFINED, np.nan)
right = said.eq(judged["trained on drains"], axis=0).where(said.notna())
arms_right, twins_right = (words.how_many(right[by]) for by in right)
say(f"""
Models whose training is known, and that are judged as they were trained: by
the arms {arms_right}, by the twins {twins_right}.
""")

# %% [markdown]
# ## Limits
#
# - Drains of phantoms are more alike than real tubes. The bars are our choice.
# - One finding, one device, one pair of prompts: it may read something else.
# - Labels may err with the drain: the parameter `label_error` corrects.

# %% tags=["remove-input"]
in_short(
    f"""
Does a model read the pneumothorax, or the tube that treats it? In PadChest, a
drain is {times:.0f} times as common with pneumothorax as without. A gap
between films with and without {DEVICE} hints at a shortcut; models that it
judges as they were trained: {arms_right}. Adding a drain to the same film is
the proof: the planted shortcut {verdict.split(":")[0]}. As the share of
treated patients goes from none to all, the AUC of {steepest} changes most,
from {low} to {high}. In paper S, on films with and without drains, five of
six models do better with them.
""",
    figure="fig-shortcut-dose",
    found=f"The planted drain shortcut {verdict.split(':')[0]}.",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-shortcut-confounding
# Make larger pneumothoraces more likely to be drained: for each film, choose
# by its `severity` which of the two `scores` counts. Would an unbiased model
# show a gap between the arms? Would its twins?
# ```
#
# ```{solution} ex-shortcut-confounding
# :class: dropdown
# Yes and no. The drained arm would hold the easier cases: a gap without a
# shortcut. Twins compare each film with itself: the shift stays near zero.
# ```
#
# ```{exercise}
# :label: ex-shortcut-remedy
# A colleague proposes to mask drains in the test set. What would that fix?
# ```
#
# ```{solution} ex-shortcut-remedy
# :class: dropdown
# The number, not the model. Masking moves the test set to the left end of the
# dose curve; a model that learned the drain stays ignorant of the air. The
# remedy is training: compare `phantom-resnet` with `phantom-resnet-drain`.
# ```
#
# ## Further reading
#
# - {cite:t}`oakdenrayner2020`: how a good average hides the untreated patient.
# - {cite:t}`jimenezsanchez2023`: drains as a shortcut, marked by non-experts.
# - {cite:t}`zech2018`: a pneumonia model that recognised the hospital.
# - {cite:t}`degrave2021`: COVID-19 models that read markers, found by twins.
# - {cite:t}`geirhos2020`: shortcuts in medicine, language and animal learning.
