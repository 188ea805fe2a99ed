# ---
# jupyter:
#   chapter:
#     answers:
#       S 3.2: ''
#     goals:
#     - tell what is encoded from what is used, and name all four cases
#     - estimate use without twins, in seven ways, and say what fools each
#     - choose an estimator by how often it was right where the truth is known
#     needs:
#     - 06_shortcuts
#     - 19_probes
# ---

# %% [markdown]
# # Encoded, used, or both
#
# *Goes on where sections 2.2 and 3.2 of {cite:t}`sourget2025`, paper S, stop:
# sex, race and age are read from embeddings. Are they used?*
#
# A hospital wants to buy a model that reports collapsed lungs. The ethics
# board has had it probed: "It knows the patient's sex, and whether there is a
# drain." The vendor answers: "It knows, and does not care." Both may be right.
# If the answer leans on the drain, patients whom nobody has treated will be
# missed; if it does not, the board would turn down a good model for what it
# merely sees.
#
# Paper S probes, and warns that what is encoded need not be used. It has no
# way to find out. On phantoms there is one: change the thing, leave all else,
# and watch the answer. So this chapter can ask what no study of real films
# could: **of the ways to estimate use without such twins, which one would have
# told the truth?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
finding: str = "Pneumothorax"  # whose answers are asked for
seed: int = 1907  # [0, 1000000] of the phantom cohort, and of what is dealt
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
n_twins: int = 1500  # [60, 17000] films drawn with and without a drain

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
import pandas as pd

from cxrlib import cohorts
from cxrlib.models import load_models
from cxrlib.predict import use
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, fmt_row, listed, plural, readable
from cxrlib.stats.use_rule import ENCODED, LOST, USED

# %%
clips = load_models(models)
warn_if_seeded([clip.name for clip in clips], data)
cohort = cohorts.study(data, n_images, seed, options)
small = cohort
if cohort.planted:
    small = cohorts.load("phantom", n_images=n_twins, seed=seed)

# %% [markdown]
# ## A rule, before any result
#
# Two questions, each with a bar. *Encoded*: on new patients, a linear probe
# reads the attribute from the embedding. *Used*: the answer moves with the
# attribute, in films that do not have the finding, where nothing excuses it.
# Answers are margins, the similarity to the one prompt minus that to the
# other; they move in standard deviations (SD) of the margin.

# %% tags=["remove-input"]
say(f"""
- **Encoded** is an AUC above {ENCODED}, **used** a move of more than {USED} SD
  up or down; a loss of AUC counts from {LOST}. An interval has to lie beyond
  the bar, or within it. One that lies across says *undecided*.
- The bars were written down, in `cxrlib.stats.use_rule`, before any result
  below was looked at. A quarter of an SD is small; a lower bar finds more.

Two answers make four quadrants: *encoded and used*; *encoded, not used*;
*neither*; and *used, not encoded*, which a linear answer hardly allows.
""")

# %% [markdown]
# ## Encoded?
#
# Five attributes, two groups each. All films are test films: each is scored by
# a probe that was fitted on other patients (five folds). Chance is at 0.5. The
# control of [chapter 19](19_probes) comes with it: the same within one site,
# since whoever reads the scanner can guess the patient.

# %%
asked, lacking = use.cases(cohort, clips, finding, seed)
read = use.encoded(asked)
show(
    read.assign(AUC=[fmt_row(row) for _, row in read.iterrows()]).pivot(
        index=["attribute", "method"], columns="model", values="AUC"
    ),
    "AUC of a linear probe, over all films and within the largest site",
    missing="not asked",
)

# %% tags=["remove-input"]
everywhere = read[read["method"] == "all sites"]
within = read[read["method"] == "one site"]
yes = everywhere[everywhere["says"] == "yes"]
race = {
    look: rows["value"].max()
    for look, rows in read[read["attribute"] == "race"].groupby("method")
}
way = ""
if len(race) == 2:
    way = (
        f"Race is read with up to {race['all sites']:.2f} over all sites and "
        f"with up to {race['one site']:.2f} within one. "
    )
left_out = listed(f"{a} ({why})" for a, why in lacking.to_numpy())
say(f"""
{len(yes)} of {plural(len(everywhere), "pair")} of model and attribute count as
encoded. {way}{f"Not asked: {left_out}." if len(lacking) else ""}
""")

# %% [markdown]
# ## Used? Turn one thing, leave the rest
#
# The same films are drawn again, with one change: a drain; the anatomy of the
# other sex; the years of a typical patient of the other age group, with
# findings as visible as before; the scanner of site A in place of that of C.
# Race changes nothing in a phantom (it decides who is imaged where), so its
# twin is the film itself. Differences are those of the first group minus the
# second: with a drain, women, old, site C, Black.

# %%
if cohort.planted:
    by, known = "twins", use.truths(cohort, small, clips, finding)
else:  # an estimate, which a section below explains
    by, known = "matched pairs", use.estimates(asked, ["matched pairs"])
known["move"] = [fmt_row(row, signed=True) for _, row in known.iterrows()]
show(
    known.pivot(index="attribute", columns="model", values="move"),
    f"How far the score of {finding} moves on films without it (SD), by {by}",
    missing="not asked",
)

# %% tags=["hide-input"]
where = use.quadrants(read, known)
plots.encoded_or_used(where, ENCODED, USED, f"move up or down (SD), by {by}")
figure(
    "fig-use-map",
    f"Encoded and used: for each model and attribute, how well a linear probe "
    f"reads it, and how far the score of {finding} moves with it, by {by}. "
    "Lines are 95 % intervals, dashed lines the bars, hollow marks undecided.",
)

# %% tags=["remove-input"]
found = {
    quadrant: [
        f"{readable(r.attribute)} in {r.model}" for r in rows.itertuples()
    ]
    for quadrant, rows in where.groupby("quadrant")
}
told = {
    q: listed(found.get(q, []))
    for q in ("encoded and used", "neither", "used, not encoded")
}
idle = len(found.get("encoded, not used", []))
open_ = len(found.get("undecided", []))
no_twins = ""
if not cohort.planted:
    no_twins = f"""
Twins: {use.NO_TWINS}. The table and the map are by matched pairs, an estimate
that the next section explains.
"""
say(f"""
{no_twins}
Encoded and used: {told["encoded and used"]}. Neither:
{told["neither"]}. Used, not encoded: {told["used, not encoded"]}. In {idle} of
{plural(len(where), "pair")} ({{numref}}`fig-use-map`) the attribute is encoded
and *not* used, and {open_} cannot be decided.
""")

# %% [markdown]
# What was planted in the small models? *phantom-resnet-drain* met drains where
# lungs had collapsed; *phantom-resnet* met them anywhere.
# *phantom-resnet-underreport* read reports that leave out what women have.
# Nothing about scanners was planted in any of them: where one moves with the
# site, it found that by itself.

# %% tags=["remove-input"]
quiz(
    "A probe reads the chest drain from two models equally well. What can be "
    "said of their answers?",
    {
        "Both lean on the drain, about equally.": (
            False,
            "The probe looks for the drain itself, in whatever direction "
            "shows it. An answer looks along its own direction only.",
        ),
        "Nothing yet.": (
            True,
            "Equal encoding allows all use and none. Two points with one AUC "
            "can lie at the top and at the bottom of the map.",
        ),
        "Neither leans on it, or the probe would differ.": (
            False,
            "Use does not show in the probe: that reads what is there, and "
            "not what happens to it.",
        ),
    },
)

# %% [markdown]
# ## Without twins
#
# On real films nobody turns one thing alone. What can be done with the films
# as they came? Seven ways, from the careless to the laborious:
#
# - **Plain difference** of margins between the two groups, over all films.
# - **Matched pairs**: each film of the first group against those of the second
#   that are alike in sex, age group, view and site, all without the finding.
# - **Erasure**: LEACE {cite:p}`belrose2023` changes the embeddings as little
#   as can be so that no linear reader tells the groups apart. How much of
#   their difference in margins goes, beyond what goes when it is fitted to
#   groups dealt at random?
# - **Erasure within label**: the same on films without the finding.
# - **AUC lost by erasure**, again beyond random: *amnesic probing*
#   {cite:p}`elazar2021`. If nothing is lost, it was not needed.
# - **Prompt ablation**: the attribute's words in both prompts ("with a
#   drain"). Does the difference between the groups move?
# - **Masking**: the region of the device is painted over
#   {cite:p}`telea2004`. How far does the score fall, beyond what the same
#   paint does to films without a device?
#
# Erasures are fitted on half of the patients and looked at on the other half.

# %% tags=["hide-input"]
said = use.estimates(asked)
answers = pd.concat([known, said], ignore_index=True).drop_duplicates(
    ["attribute", "model", "method"]
)
pair = pd.MultiIndex.from_frame(answers[["attribute", "model"]])
chosen = pair.isin(list(use.PLANTED))
if not (cohort.planted and chosen.any()):
    chosen = answers["model"] == clips[0].name
live = answers[chosen].assign(
    of=answers["attribute"] + ", " + answers["model"]
)
show(
    live.pivot(index="method", columns="of", values="says").reindex(
        live["method"].unique()
    ),
    f"Does the score of {finding} move with the attribute?",
)

# %% tags=["remove-input"]
silent = said[said["says"] == "nothing"]
silent = silent[silent["method"] != "masking"].drop_duplicates("attribute")
reasons = ""
if len(silent):
    why = (f"{row.note} ({row.attribute})" for row in silent[:2].itertuples())
    reasons = f"""
*Nothing* is said where nothing can be: {listed(why)}. The reports of phantoms
never name a drain or a patient's sex, so the small CLIPs lack the words.
"""
say(f"""
{reasons}
Only devices can be painted over, and only where somebody knows where they are.
""")

# %% [markdown]
# Two of these are one. On the films that it was fitted on, LEACE makes the
# means of the groups equal, so what it takes is *exactly* their plain
# difference. An eraser dressed as an intervention is fooled by whatever fools
# the difference: here, that patients with a drain are ill. Fitted among films
# without the finding it is the difference among them, and fares better.
#
# ## Graded where the truth is known
#
# One cohort may be luck. So others were drawn, smaller ones, and for
# each the twins and the seven were asked the same, by the same bars. This took
# too long for a page: it is *recorded* by `benchmarks/use.py`.

# %% tags=["hide-input"]
recorded = use.recorded()
graded = use.grades(recorded)
cases = pd.MultiIndex.from_frame(graded[["attribute", "model"]])
planted = graded[cases.isin(list(use.PLANTED))]
cells = [f"{row.quadrant} of {row.n}" for row in planted.itertuples()]
of = planted["attribute"] + ", " + planted["model"] + ": " + planted["used"]
table = planted.assign(of=of, cell=cells)
table = table.pivot(index="method", columns="of", values="cell")
show(
    table.reindex(list(use.ESTIMATORS)),
    "Recorded: seeds in which probe and estimator name the planted quadrant "
    "(whether it is used stands at the end of each heading)",
)

# %%
counts = ["n", "right", "wrong", "undecided", "nothing"]
whole = graded.groupby("method", sort=False)[counts].sum()
show(whole, "Recorded: all attributes and models, all seeds", counts=())

# %% tags=["remove-input"]
worst = planted[planted["wrong"] > planted["n"] / 2]
failing = {
    method: listed(f"{r.attribute} in {r.model}" for r in rows.itertuples())
    for method, rows in worst.groupby("method", sort=False)
}
fails = "; ".join(f"**{m}** on {where_}" for m, where_ in failing.items())
most_seeds = planted["quadrant"] > planted["n"] / 2
named = most_seeds.groupby(planted["method"], sort=False).sum()
named = listed(f"{m} in {k}" for m, k in named.items())
heard = whole[whole["nothing"] < whole["n"] / 2]
order = (heard["wrong"] / heard["n"]).sort_values(kind="stable")
first, last = order.index[0], order.index[-1]
most = (heard["right"] / heard["n"]).idxmax()
used = graded[(graded["used"] == "yes") & (graded["method"] == first)]
paint = whole.loc["masking"]
spoke = paint["n"] - paint["nothing"]
right, of_all = whole.loc[first, "right"], whole.loc[first, "n"]
agree = recorded.merge(
    pd.DataFrame(
        [(*pair, yes) for pair, yes in use.PLANTED.items()],
        columns=["attribute", "model", "planted"],
    )
)
as_planted = (agree["twins"] == agree["planted"]).sum()
seeds = recorded["seed"].nunique()
size = count(recorded["n_images"].max())
say(f"""
Recorded on {recorded["date"].max()}: {plural(seeds, "seed")}, {size} films
each. Twins say what was planted in {as_planted} of {len(agree)} cases.

In more than half of the seeds, of {len(use.PLANTED)} planted quadrants, the
right one is named by {named}. These name the wrong side as often:
{fails or "none"}; the others leave it open.

Of those that can speak of every attribute, **{first}** errs least: it is right
in {right} of {of_all}, wrong in {whole.loc[first, "wrong"]}, and leaves
{whole.loc[first, "undecided"]} undecided (where the attribute is used:
{used["right"].sum()} right and {used["wrong"].sum()} wrong of
{used["n"].sum()}). Most often right is **{most}**, in
{whole.loc[most, "right"]}, and wrong in {whole.loc[most, "wrong"]}.
Wrong most often is **{last}**, in {whole.loc[last, "wrong"]}. Masking, where
it can speak, is right in {paint["right"]} and wrong in {paint["wrong"]} of
{spoke}.
""")

# %% [markdown]
# ## What to do on real films
#
# - Match, among films without the finding, on all that is recorded, and give
#   the interval. If it lies across the bar, say so: more films are the cure,
#   not another method.
# - If the attribute is a device and somebody can outline it, mask it as well.
#   It is the only one here that changes the film itself, so it does not mind
#   what else the two groups differ in.
# - Erasure within the label decides on fewer films, by intervals that are too
#   narrow: a second opinion. Never read a loss of AUC as use. Erasing what
#   goes with illness costs AUC in a model that never looked.
# - A probe answers another question. Do not report it as this one.

# %% tags=["remove-input"]
quiz(
    "A team erases the drain from a model's embeddings, fitted on all films. "
    f"AUC for {finding} falls clearly. Does the model use the drain?",
    {
        "Yes: it was needed.": (
            False,
            "Films with a drain are mostly ill ones, so the eraser took signs "
            "of the illness too. In the recorded runs that is how a clean "
            "model came to be accused.",
        ),
        "It cannot be told from this.": (
            True,
            "Erase among films without the finding, or match, or mask, and "
            "see whether answers move there.",
        ),
        "No: erasure always costs some AUC.": (
            False,
            "Erasing groups dealt at random costs next to none; that is "
            "taken off already.",
        ),
    },
)

# %% [markdown]
# ## Limits
#
# - Phantoms are drawn by a few rules. Matching on sex, age, view and site is
#   complete here, since nothing else links the attribute to the answer. On
#   real films something unrecorded may, and no interval shows it.
# - Intervals of erasures and probes hold the films that are looked at, not
#   those that were fitted on: they are too narrow, and *undecided* too rare.
# - One finding, one pair of prompts. The truth is a mean over films: a use
#   that goes up in some and down in others can hide in it.
# - The bars are a choice. Near a bar, twins themselves are undecided.

# %% tags=["remove-input"]
in_short(
    f"""
What can be read from a model's embeddings need not move its answers. A probe
reads {len(yes)} of {plural(len(everywhere), "pair")} of model and attribute;
{idle} of these are not used, by {by}. Encoded and used:
{told["encoded and used"]}. Without twins, {first} named the truth most safely:
wrong in {whole.loc[first, "wrong"]} of {of_all} recorded cases, but undecided
in {whole.loc[first, "undecided"]}.
{f"Fooled in most seeds: {listed(failing)}." if failing else ""} Paper S shows
that attributes can be read, and leaves open whether they are used.
""",
    figure="fig-use-map",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-use-bar
# Move the bar of use from a quarter of an SD to a tenth. Which points of the
# map change their quadrant? Which estimators would become undecided?
# ```
#
# ```{solution} ex-use-bar
# :class: dropdown
# Take the column `move` of `known`: whatever lies between the two bars becomes
# used. Twins have narrow intervals, so few become undecided. Matched pairs of
# a rare device have wide ones: with a bar of a tenth they need several times
# the films before they may say "no".
# ```
#
# ```{exercise}
# :label: ex-use-unlinked
# Break the link between drain and illness in the *test* films:
# `cxrbook run 25 -p 'options={"dials": {"drain_if_pneumothorax": 0.05}}'`.
# Which estimators should now clear *phantom-resnet*, and why?
# ```
#
# ```{solution} ex-use-unlinked
# :class: dropdown
# The plain difference, the erasure and the loss of AUC: with as many drains
# among the ill as among the others, nothing is confounded any more. The models
# are the same, and so are the twins. What fooled the three was the cohort.
# ```
#
# ```{exercise}
# :label: ex-use-age
# The twins of age keep findings as visible as before, so the dial for age of
# [chapter 12](12_gap_causes) is not in this map. Should it be? Who "uses" age
# if old patients' findings are fainter?
# ```
#
# ```{solution} ex-use-age
# :class: dropdown
# Nobody: the film differs, and the model reads the film. It is a cause of a
# gap and no use of age. To hold it against the model one would need twins that
# differ in what age looks like and in nothing that the finding looks like:
# those are the ones drawn here.
# ```
#
# ## Further reading
#
# - {cite:t}`elazar2021`: amnesic probing, and that probes do not predict use.
# - {cite:t}`ravichander2021`: models encode what their task never needed.
# - {cite:t}`kumarprobing2022`: why erasing by a probe takes the task with it.
# - {cite:t}`glocker2023`: from encoded to used, on chest films.
# - {cite:t}`gichoya2022`: race is read from films in which nobody sees it.
