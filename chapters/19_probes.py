# ---
# jupyter:
#   chapter:
#     answers:
#       S 3.2: ''
#     goals:
#     - find out by which way an attribute came into an embedding
#     - say what a slip of rows in the tuning of a probe costs, and what not
#     - keep apart "is encoded", "was learned" and "is used"
#     needs:
#     - 05_embeddings
# ---

# %% [markdown]
# # What a probe may say
#
# *Goes on where [Embeddings](05_embeddings) ends, with section 3.2 of
# {cite:t}`sourget2025`, paper S.*
#
# "We looked into the model," the auditor says, "and it knows the patient's
# race." The room falls silent. A probe has read race from embeddings, on new
# patients, with a narrow interval; there is nothing wrong with the number. But
# what follows? That the network sees race in a lung? That it was taught to?
# That it treats people by it? Each of these is another sentence, and the probe
# has said none of them. **By which way did it get there, and does anybody use
# it?** On phantoms both can be answered, for both are planted.

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
probed: str = "first two"  # of `models`: which are probed; or names, or "all"
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort, splits and resamples
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} axes, probes of S

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# Models, cohort and probes are those of [Embeddings](05_embeddings).

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import phantom
from cxrlib.embed.extract import embed, embed_reports
from cxrlib.models import choose_models, load_model, model_names
from cxrlib.protocol import NAMES, protocol_of
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import (
    each,
    estimate,
    fmt,
    interval_lies,
    listed,
    path_judged,
    percent,
)
from cxrlib.stats import probes

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
names = choose_models(models)
examined = names[:2] if probed == "first two" else choose_models(probed)
first = examined[0]
loaded = dict.fromkeys([first, *names, *examined])
clips = {name: load_model(name, chosen) for name in loaded}
warn_if_seeded(clips, data)
resampling = {"n_resamples": n_resamples, "seed": seed}
sampling = {"protocol": chosen, **resampling}
cohort = cohorts.study(
    data, n_images, seed, options, preprocessing=chosen.preprocessing
)
table = cohort.table
images = {name: embed(cohort, clips[name]) for name in examined}
z, (t, spoken) = images[first], embed_reports(cohort, clips[first])

# %% [markdown]
# ## One map, one fit
#
# Before a probe is asked, most of us look at a map. A map needs both its axes
# from one fit. The code behind Fig. 2b to 2d of paper S takes the horizontal
# axis from the fit to films and texts together, and the vertical one from the
# fit to the films alone. Drawn both ways, how well does the better axis tell
# the groups?

# %% tags=["hide-input"]
way, one = ("site", "A") if cohort.planted else ("view", "AP")
told = {
    "women": table["sex"].map({"F": 1, "M": 0}),
    "80 and over": (table["age"] >= 80).where(table["age"].notna()),
    f"{way} {one}": (table[way] == one).where(table[way].notna()),
}
maps, rows = {}, []
for name in NAMES:
    axes = protocol_of(name).pca_axes
    maps[name], _ = probes.image_panel(z, t, axes=axes)
    found = probes.best_axis(maps[name], told, table["patient_id"], **sampling)
    rows.append(found.assign(method=f"{name.replace('_', ' ')} ({axes})"))
show(
    pd.concat(rows),
    f"The better axis of the map of {first}: AUC, by the fits that the axes "
    "come from",
    rows="method",
    columns="label",
    digits=2,
)

# %% tags=["remove-input"]
lean = {name: np.corrcoef(panel.T)[0, 1] for name, panel in maps.items()}
horizontal = np.corrcoef(*(maps[name][:, 0] for name in NAMES))[0, 1]
mixed = abs(lean["as_published"])
matters = (
    "the mixed axes lean on one another, and the widest direction among the "
    "films is partly lost"
    if mixed > 0.1
    else "for this model the two maps hardly differ, which nothing guarantees"
)
say(f"""
The axes of one fit are uncorrelated by construction
({fmt(lean["corrected"])}). The mixed ones correlate with
{fmt(lean["as_published"])}, and the horizontal axis of the one map with that
of the other with {fmt(abs(horizontal))}: {matters}.
""")

# %% [markdown]
# ## Did it come with the words?
#
# Nobody taught the small CLIPs of this book sex or age: no report that they
# have read mentions either. But women and men do not have the same findings,
# and texts name findings. Could sex have come with the words all the same?

# %%
in_text = probes.probe_table(
    {"texts": t, "films": z[spoken]},
    table.iloc[spoken],
    ["sex"],
    ["linear"],
    **sampling,
)
show(
    in_text,
    f"Sex, read from text embeddings and from image embeddings of {first}",
    rows="label",
    columns="model",
)

# %% tags=["remove-input"]
from_text = schema.row(in_text, model="texts")
by_sex = table.groupby("sex")[list(cohort.findings)]
often = by_sex.mean().loc[:, (by_sex.sum() >= probes.FEW).all()].T
apart = (often["F"] - often["M"]).abs().sort_values()
differ = [
    f"{name} ({percent(often['F'][name])} of the films of women, "
    f"{percent(often['M'][name])} of those of men)"
    for name in apart.index[-1:]
]
alone = "These texts name findings: only how often each sex has them can tell"
if "report" in table and not cohort.planted:
    alone = "A real report may name what only women or only men have"
say(f"""
From the embeddings of the texts, sex is read with
{estimate(in_text, model="texts")}; the interval
{interval_lies(from_text, of=0.5)}. {alone}. Of the findings on ten films or
more of each sex, the largest difference is in {listed(differ, none="none")}.
What the films give away beyond this came along with the picture.
""")

# %% [markdown]
# ## Tuned on whose films?
#
# A probe has a setting, such as the number of neighbours, and the validation
# patients choose it. In the code behind Table 2, positions *within* training
# and validation were used as positions within *all* images. So a label met the
# embedding of another film, and some of these films were test films. The final
# fit and the test take the right rows. What does it cost?

# %%
tuned = []
for tuning in [protocol_of(name).probe_tuning for name in NAMES]:
    p = replace(chosen, probe_tuning=tuning)
    found = probes.probe_table(
        images, table, ["sex", "age_group"], ["knn"], p, **resampling
    )
    tuned.append(found.assign(method=f"k-NN, tuned on {tuning} rows"))
tuned = pd.concat(tuned, ignore_index=True)
show(
    tuned,
    "AUC on the test patients, by the rows on which the number of neighbours "
    "was chosen",
    rows=["model", "label"],
    columns="method",
)

# %% tags=["remove-input"]
train, valid, test = probes.patient_split(table["patient_id"], seed)
taken, _ = probes.tuning_rows(
    train, valid, protocol_of("as_published").probe_tuning
)
cell = tuned.pivot(index=["model", "label"], columns="method", values="value")
lost = cell["k-NN, tuned on matched rows"].sub(
    cell["k-NN, tuned on mismatched rows"]
)
blind = "Too little is defined here to say what a blind choice costs"
if lost.abs().max() < 0.02:
    blind = "Here all settings are about as good, which nothing guarantees"
elif lost.abs().max() >= 0.02:
    blind = "Here the choice of the setting matters: a blind one is a gamble"
say(f"""
In this split, {percent((taken == train).mean())} of the training labels keep
their own embedding when the rows are mixed up, and
{percent(np.isin(taken, test).mean())} of the embeddings belong to test films.
The setting is then chosen nearly blindly. Choosing on the right rows changes
the AUC by {fmt(lost.min(), 3, signed=True)} to
{fmt(lost.max(), 3, signed=True)}, depending on model and attribute. {blind}.
""")

# %% [markdown]
# ## Race, or the place where one was imaged?
#
# In the phantoms of [Embeddings](05_embeddings), a linear probe reads race.
# The rest of this chapter is about phantoms, whatever its data. In a phantom,
# race changes nothing in the body. How could it be read?
#
# A share of the patients is imaged at the site of their race, the others
# anywhere, and every site has its scanner. If that is the whole way, two
# predictions follow. Among the patients of *one* site, race cannot be read.
# And with all scanners alike, it cannot be read at all.

# %% tags=["hide-input"]
planted = cohort
if not cohort.planted:
    planted = cohorts.load("phantom", n_images=n_images, seed=seed)
people, dials = planted.table, planted.recipe["dials"]
contrast = {a: of for a, of in dials["contrast"].items() if a != "site"}
same = phantom.twin(planted, site_signature=0.0, contrast=contrast)
as_drawn, alike = (embed(films, clips[first]) for films in (planted, same))
everyone = np.ones(len(people), bool)
looks = {"all sites": (as_drawn, everyone)}
for site in phantom.SITES:
    looks[f"site {site} only"] = (as_drawn, people["site"] == site)
looks["all sites, scanners alike"] = (alike, everyone)
by_way = pd.concat(
    probes.probe_table(
        {first: films[at]}, people[at], ["race"], ["linear"], **sampling
    ).assign(label=look)
    for look, (films, at) in looks.items()
).reset_index(drop=True)
plots.bars(by_way)
figure(
    "fig-probes-race",
    f"Race of phantoms, read by a linear probe from {first}: from all films, "
    "within one site, and with all scanners alike. The foot of the bars is "
    "chance.",
)

# %% tags=["hide-input"]
show(
    by_way[["label", "value", "ci_low", "ci_high", "n", "n_patients", "note"]]
    .rename(columns={"label": "race read from", "value": "AUC"})
    .rename(columns={"n": "test images"}),
    f"Linear probe for race in phantoms, {first}",
)

# %% tags=["remove-input"]
at = by_way.set_index("label")
everywhere, off = at.loc["all sites"], at.loc["all sites, scanners alike"]
within = by_way[by_way["label"].str.endswith("only")]
above = [schema.side(row, 0.5) for _, row in within.iterrows()].count("above")
is_open = dials["site_by_race"] > 0 and dials["site_signature"] > 0
verdict = path_judged("race", everywhere, off, is_open)
say(f"""
Of these patients, {percent(dials["site_by_race"])} are imaged at the site of
their race. Over all sites, race is read with
{estimate(by_way, label="all sites")}. Within one site:
{each(within, by="label")}; the interval lies above 0.5 at {above} of
{len(within)} sites (of three fair intervals, at least one misses its target in
{percent(1 - 0.95**3)} of all studies). With all scanners alike it is
{estimate(by_way, label="all sites, scanners alike")}, an interval that
{interval_lies(off, of=0.5)}. **The planted path {verdict}.**
""")

# %% [markdown]
# ### On using race at all
#
# Race is not a property of lungs. It is a category that societies made and
# that hospitals record, by asking or by guessing, with words that differ
# between countries and decades. It belongs in an audit because people are
# *treated* by it: where they live, where they are sent, how long they wait.
# Without the variable, a model that fails Black patients cannot be shown to do
# so.
#
# That is why race in this book acts only through where a person was imaged. We
# do not claim that it is so on real films. There, networks read recorded race
# from chest films even when these are heavily corrupted, and it is not settled
# how {cite:p}`gichoya2022`. Site and scanner are one candidate among several.
# What the phantom shows is narrower and still useful: that race can be read
# says nothing about bodies, as long as the ways through the system have not
# been ruled out.

# %% tags=["remove-input"]
quiz(
    "A probe reads recorded race from the films of one hospital with two "
    "machines, well above chance. What is the next question?",
    {
        "Which part of the lung differs between races?": (
            False,
            "That supposes that the way leads through the body. It may lead "
            "through the machine, the view, the time of day.",
        ),
        "Who is imaged on which machine?": (
            True,
            "If the machines stand in wards with other patients, they can "
            "carry race without any body in between. Then read race within "
            "one machine.",
        ),
        "How can the probe be made worse?": (
            False,
            "The probe is the messenger. What it reads stays in the embedding "
            "for whoever comes next.",
        ),
    },
)

# %% [markdown]
# ## Readable is not used
#
# The most common slip comes last. "The model encodes sex" is often heard as
# "the model uses sex". Paper S warns against it. The drain of the phantoms
# gives us a clean case: one small CLIP was trained where a drain gives the
# pneumothorax away, the others were not. Can a probe tell which?

# %%
of_phantoms = {name: embed(planted, clip) for name, clip in clips.items()}
drain = probes.probe_table(
    of_phantoms, people, ["drain"], ["linear"], **sampling
)
show(
    drain,
    "Chest drain of phantoms, read from image embeddings by a linear probe",
    rows="model",
    columns="label",
)

# %% tags=["remove-input"]
biased = [m for m in clips if m.endswith("-drain")]
fair = [m for m in clips if m in model_names() and m not in biased]
readable = [schema.side(row, 0.5) for _, row in drain.iterrows()]
betrayed = f"{readable.count('above')} of {len(drain)}"
best = drain.loc[drain["value"].fillna(0).idxmax(), "model"]
guess = "reading alone does not tell which of them leans on it"
if readable.count("above") < 2:
    guess = "which of them leans on it would have to be guessed"
which = "the biased one" if best in biased else "which is not the biased one"
say(f"""
The interval lies above chance in {betrayed} models. In the biased one:
{each(schema.rows(drain, model=biased), none="not run")}. In the other small
CLIPs: {each(schema.rows(drain, model=fair), none="not run")}. The drain is
read best from {best}{f", {which}" if biased else ""}. But a model that sees a
drain and ignores it when asked for a pneumothorax, and a model that answers
"pneumothorax" *because* of it, both pass for models that "encode the drain".
""")

# %% [markdown]
# What a model uses shows in what changes its answer. [Shortcuts](06_shortcuts)
# adds a drain to the same film and watches the score.
# [Subgroup fairness](04_subgroup_fairness) did the same for age. Nor does the
# reverse hold: a model from which sex cannot be read may still serve women
# worse, by not having learnt their findings. Attributes in an embedding are a
# reason to look at the performance in groups, not a substitute for it
# {cite:p}`glocker2023`.
#
# ## What was planted, and was it found?

# %% tags=["remove-input"]
say(f"""
Race was given one way into the phantoms, by the scanner. The planted path
{verdict}. A drain gives the disease away in the training of {len(biased)} of
{len(clips)} models, while a probe reads it from {betrayed}:
{guess}. Whether something is in an embedding is a question for a probe.
Whether it is used is not.
""")

# %% [markdown]
# ## Limits
#
# - The phantom has one way from race to the film. A real hospital has many,
#   and not all of them are recorded.
# - Within a site, fewer patients remain, and intervals are wider: chance that
#   nothing is read where something is.
# - The splits are one draw. [Audit](08_audit) repeats the tuning on
#   several.

# %% tags=["remove-input"]
in_short(
    f"""
A probe reads race from films. What follows? In phantoms it is read with an AUC
of {estimate(by_way, label="all sites")} over all sites, and of
{estimate(by_way, label="all sites, scanners alike")} when all scanners are
alike. The planted path {verdict}. Sex is read from the texts alone with an AUC
of {estimate(in_text, model="texts")}. A drain is read from {betrayed} models,
of which {len(biased)} learned where drains give the disease away. Paper S
warns that what is encoded need not be used; its code tunes the probes on
mixed-up rows, which here moves the AUC by up to {fmt(lost.abs().max(), 3)}.
""",
    figure="fig-probes-race",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-embeddings-path
# Close the planted path: let every patient be imaged anywhere, whatever their
# race.
#
# `cxrbook run 19 -p 'options={"dials": {"site_by_race": 0.0}}'`
#
# Before you run it, say for each row of the table of the linear probe for race
# where its interval will lie, and whether the *site* will be harder to read.
# Then predict for yourself the same for `{"dials": {"site_signature": 0.0}}`.
# ```

# %% tags=["remove-input", "solution"]
say(f"""
```{{solution}} ex-embeddings-path
:class: dropdown
In this run, race is read with {estimate(by_way, label="all sites")} over all
sites and with {estimate(by_way, label="all sites, scanners alike")} with the
scanners alike, and the planted path {verdict}. Without the link from race to
site, each row is chance: now and then an interval will miss it. The site stays
as readable as before, since the scanners did not change; it only says nothing
of race any more. With the signatures off it is the other way round: race still
goes with the site, but the film does not show the site. A path is closed by
removing any one of its links.
```
""")

# %% [markdown]
# ```{exercise}
# :label: ex-embeddings-leak
# Give every phantom image a patient of its own before probing. What happens to
# the AUC for race within a site, and why?
# ```
#
# ```{solution} ex-embeddings-leak
# :class: dropdown
# Probe `as_drawn[at]` with
# `people[at].assign(patient_id=people["image_id"])`. Images of one patient now
# stand on both sides of the split. A phantom patient keeps ribs, heart and
# lung shape, so a probe can recognise the person, and with the person whatever
# was recorded about them. The AUC rises towards or above 0.5 where nothing of
# race is in the picture. A phantom patient has four images at most; in an
# archive with dozens, the leak is larger.
# ```
#
# ```{exercise}
# :label: ex-embeddings-randomnet
# An untrained network also gives embeddings. Would a probe read sex from them?
# What does that say about the sentence "the model has learnt sex"?
# ```
#
# ```{solution} ex-embeddings-randomnet
# :class: dropdown
# Yes, quite well: random filters keep much of the picture, and the picture
# shows the body. A probe that succeeds shows that the information was not
# thrown away. "Learnt" would need a comparison with the untrained network,
# "used" an intervention.
# ```
#
# ## Further reading
#
# - {cite:t}`gichoya2022`: networks read recorded race from films in which
#   radiologists see none, and from films that are heavily degraded.
# - {cite:t}`glocker2023`: from "encoded" to "used", with tests of each step,
#   on chest films.
# - {cite:t}`belinkov2022`: what a probe can and cannot show.
