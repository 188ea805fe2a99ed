# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - ask of a remedy what it removes, costs, invents and takes from others
#     - say why a placebo is needed to judge one
#     - judge a remedy of your own, and say what real films leave open
#     needs:
#     - 06_shortcuts
#     - 12_gap_causes
#     - 17_recalibration
# ---

# %% [markdown]
# # The court: does a remedy remove the bias?
#
# *Goes further than both papers: {cite:t}`sourget2025` and {cite:t}`sun2025`
# end by asking for mitigation, and neither tries one.*
#
# The audit is over. The model takes the drain for the disease, and the
# hospital asks its vendor for an update. It comes: "Debiased. The gap is
# closed, accuracy is maintained." On the hospital's own films the gap is
# indeed gone. May the model go back to the emergency room?
#
# A gap can close since the bias is gone, since everybody is served worse, or
# since a second bias now hides the first. On real films these look alike. On
# phantoms the bias is planted and the same model exists without it, so a
# remedy can be tried as a drug is: on those who have the disease, and, beside
# them, on those who have not. **Which remedies remove a planted bias, what do
# they cost, and what do they do where there was none?**

# %% tags=["parameters"]
biases: str = "all"  # planted: drain, age60, sex, with commas between
remedies: str = "all"  # names, with commas between
seed: int = 1907  # [0, 1000000] of the phantoms, and of who is fitted on
n_images: int = 4000  # [1000, 17000] of the test; half as many to fit on
n_twins: int = 1500  # [1000, 17000] films with and without a drain
data: str = "phantom"  # cohort of the court without a placebo, at the end
options: dict = {}  # of that cohort
models: str = "phantom-resnet-underreport"  # judged there
attribute: str = "sex"  # {sex, age60, drain} whose gap is judged there
protocol: str = "corrected"  # {corrected, as_published} prompts as S's code

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %%
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.models import load_models
from cxrlib.predict import court
from cxrlib.predict.remedies import KNOWN
from cxrlib.predict.remedies.remedy import Remedy, ask
from cxrlib.protocol import protocol_of
from cxrlib.show import notebook, plots
from cxrlib.show.notebook import explained, figure, keep, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import estimate, fmt, how_many, listed, plural
from cxrlib.stats import court as rule

# %% [markdown]
# ## Three charges
#
# Three biases of this book are planted, and each has a side without it, its
# *placebo*:
#
# - **The drain shortcut.** *phantom-resnet-drain* was trained where drains
#   give pneumothorax away, *phantom-resnet* where they do not
#   ([Shortcuts](06_shortcuts)). The *harm* is the shift of the pneumothorax
#   score of healthy films when only a drain is drawn into them, in standard
#   deviations (SD).
# - **Fainter findings in the old.** Here the films are biased: findings of
#   patients of 60 and over are drawn with less contrast
#   ([Where a gap comes from](12_gap_causes)). The placebo are the same
#   patients with the dial off. The harm is the part of the gap in mean
#   sensitivity, old minus young, that comes with the dial.
# - **Silent reports.** *phantom-resnet-underreport* was trained on reports
#   that leave out most findings of women. The harm is the gap in mean
#   sensitivity, women minus men, beyond that of *phantom-resnet*.
#
# Sensitivities are counted at one threshold for all, set on patients apart.
# No patient of the test is among those on whom a remedy is fitted or a
# threshold set: the court refuses to sit otherwise.

# %%
chosen = protocol_of(protocol)
charged = court.chosen(biases, court.BIASES, "biases")
fits = court.chosen(remedies, KNOWN, "remedies")
cases = court.planted(
    n_images, n_twins, seed, list(charged), chosen.negative_prompt
)

# %% tags=["hide-input"]
plain = [court.try_(case, court.NOTHING) for case in cases]
plain = pd.concat(
    court.results(case, "nothing", found)
    for case, found in zip(cases, plain, strict=True)
)
before = schema.rows(plain, metric=["harm_before", "placebo_before"])
before = before.assign(bias=before["attribute"].map(court.BIASES))
heads = {"harm_before": "harm", "placebo_before": "same measure, placebo"}
show(
    before.assign(what=before["metric"].map(heads)),
    "The harm before any remedy: shift (SD), gaps in sensitivity",
    rows="bias",
    columns="what",
)

# %% [markdown]
# ## Four questions, one rule
#
# 1. **Does it remove?** The harm that is left, as a share of the harm before.
# 2. **What does it cost?** Mean AUC over findings, the same in the group that
#    is served worse, and the Brier score after Platt scaling, on the biased
#    side; for the drain, AUC on films without one.
# 3. **What does it invent?** The same remedy, fitted and tested on the
#    placebo. A change of the shift or gap there is a new bias, a loss there a
#    price that healthy models pay.
# 4. **Does it level down?** A gap can close since the worse-served gain or
#    since the better-served lose. Where the first gain less than a third of
#    what the others lose, closing the gap is a name for harm.
#
# Every change is paired, film by film, and its interval has patients as the
# unit. The intervals need no resampling: each film's *influence* on a number
# says how far the number would move with it {cite:p}`efron1982`.
#
# The verdict in words comes from one rule, which was written down before the
# results of this page were looked at:

# %% tags=["hide-input"]
ends = [None, *rule.SHARES.values()]
words = [*rule.SHARES, rule.WORSENS]
bars = [
    f"above {fmt(low)}" if low is not None else "anything lower"
    for low in ends
]
show(
    pd.DataFrame({"verdict": words, "share of the harm that is left": bars}),
    "The first question",
)

# %% tags=["remove-input"]
say(f"""
A remedy gets the word of its value, and after it each further word that its
95 % interval reaches: *removes or reduces* stands near the bar. A cost is a
loss of more than {rule.LOSS:g} AUC, or {rule.LOSS_BRIER:g} of the Brier score,
by the whole interval; a loss on the placebo likewise. A shift is invented
beyond {rule.NEW["shift"]:g} SD, a gap beyond {rule.NEW["gap"]:g}. Where the
interval holds the bar, the rule says *perhaps*. Where a remedy answers with
decisions and no order is left for an AUC, balanced accuracy stands in.
""")

# %% [markdown]
# ## The verdicts

# %%
trials = court.trials(cases, fits)
of_bias = {case.bias: case for case in cases}
tried = [name for bias, name in trials if bias == cases[0].bias]
table = pd.DataFrame(
    [
        {"remedy": f"{i} {name}"}
        | {b: court.verdict(of_bias[b], trials[b, name]) for b in of_bias}
        for i, name in enumerate(tried, 1)
    ]
)
show(table, "Verdicts on each remedy", counts=())

# %% tags=["remove-cell"]
found = pd.concat(
    court.results(of_bias[bias], name, trial, seed=seed)
    for (bias, name), trial in trials.items()
    if not isinstance(trial, str)
)
keep(pd.concat([plain, found]).assign(protocol=chosen.name))

# %% tags=["hide-input"]
plots.court(found, {n: i for i, n in enumerate(tried, 1)}, charged)
figure(
    "fig-court",
    "What remedies remove and what they cost. Left, the biased side: the "
    "share of the harm that is left (grey: removed) against the change of "
    "AUC. Right, the placebo, where nothing was planted: new harm, in units "
    "of the planted one, against the change of AUC. A good remedy lies at the "
    "crossing of the lines on both sides. Numbers as in the table; those "
    "beyond the frame stand at its edge.",
)
