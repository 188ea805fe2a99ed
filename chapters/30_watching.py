# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - say why a test that is repeated until it alarms always alarms
#     - state the null hypothesis of a watch, and bet against it
#     - plan a watch, and say what it cannot see
#     needs:
#     - 04_subgroup_fairness
#     - 20_planning
# ---

# %% [markdown]
# # Watching a device
#
# *Goes beyond both papers: they judge a model once. A device is used for
# years.*
#
# A hospital buys a model that was set up elsewhere. The contract says how many
# of the ill it finds. In spring the department gets a new filter for its
# films. Somebody has the feeling that it now misses more women, and tests for
# it every Friday until a Friday says "significant". The vendor answers,
# rightly, that such a test always gets there. Had nobody looked before the
# yearly audit, the women of a whole year would have been missed. **Can one
# look after every patient, and still be believed?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`: the first one is watched
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort, and of who comes when
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
specificity: float = 0.8  # (0, 1) at which the device is set up
allowed: float = 0.05  # (0, 0.5] loss of sensitivity that breaks no promise
tolerated: float = 0.0  # [0, 0.5] gap that raises no alarm
worth: float = 0.1  # (0, 0.5] of what is beyond: worth finding soon
level: float = 0.05  # (0, 0.5] of false alarms, of each watch
change: float = 0.4  # (0, 1) share of the patients who come before it
faint: float = 0.7  # [0, 1] how visible women's findings are after it
protocol: str = "corrected"  # {corrected, as_published} as S's code does it

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
from dataclasses import replace

import numpy as np
import pandas as pd

from cxrlib import cohorts
from cxrlib.cohorts import phantom
from cxrlib.models import choose_models, load_model
from cxrlib.predict import zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, fmt, fmt_interval, listed, percent
from cxrlib.stats import watch

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
model = load_model(choose_models(models)[0], chosen)
warn_if_seeded([model.name], data)
how = {"preprocessing": chosen.preprocessing}
cohort = cohorts.study(data, n_images, seed, options, **how)
drawn = ("phantom", n_images, seed, options if data == "phantom" else {})
planted = cohort if data == "phantom" else cohorts.study(*drawn)
valid, tested = cohorts.validation(planted, *drawn)


def predicted(films):
    """Scores of all findings, one row per film and finding."""
    about = [c for c in ("image_id", "sex", "site") if c in films.table]
    return zeroshot.predict(
        films, [model], films.findings, negative=chosen.negative_prompt
    ).merge(films.table[about], on="image_id")


# %% [markdown]
# ## Set up at one site, used at others
#
# The device is set up at site A, on validation patients: for each finding, the
# threshold at which it has the wanted specificity there. Then it goes to sites
# B and C, whose scanners leave other signatures.
#
# **The unit is the patient.** A patient enters the watch once, when all films
# are read, with one number: the share of the findings that were found, over
# all of the patient's films. Two films of one patient are no two patients.
# Only the ill count, since sensitivity is watched.

# %%
PAIR = ("M", "F")  # the second is feared to be served worse
set_up = predicted(valid)
set_up = set_up[set_up["site"] == "A"]
points = watch.operating_points(set_up, specificity)
before = watch.found(set_up, points, "sex")
plan = watch.plan(before, PAIR, allowed, tolerated, worth)

# %%
scores = predicted(planted)
in_use = scores["image_id"].isin(tested["image_id"]) & (scores["site"] != "A")
as_drawn = watch.found(scores[in_use], points, "sex")
as_drawn = as_drawn.sample(frac=1, random_state=seed, ignore_index=True)

# %% tags=["remove-input"]
say(f"""
At site A, the mean share of {count(len(before))} ill validation patients is
{fmt(before["found"].mean())}. The promise leaves {fmt(allowed)} to chance and
to other patients: **sensitivity is at least {fmt(plan.promise)}**. At sites B
and C, {count(len(as_drawn))} ill patients come one after the other, in an
order drawn at random. Their mean share is {fmt(as_drawn["found"].mean())}.
""")

# %% [markdown]
# ## What is planted
#
# After some of the patients, the filter comes. From then on what women have
# shows more faintly, and nothing else changes: later patients are drawn again,
# as twins, with the dial for women turned.

# %%
n_before = int(change * len(as_drawn))
later = as_drawn["patient_id"][n_before:]
films = planted.table[planted.table["patient_id"].isin(later)]
films = films[films[list(planted.findings)].any(axis=1)]
contrast = planted.recipe["dials"]["contrast"] | {"sex": {"F": faint}}
filtered = phantom.twin(
    replace(planted, table=films.reset_index(drop=True)), contrast=contrast
)
after = watch.found(predicted(filtered), points, "sex")
after = after.set_index("patient_id")["found"]
changed = as_drawn.assign(
    found=as_drawn["patient_id"].map(after).fillna(as_drawn["found"])
)

# %% tags=["remove-input"]
past = pd.DataFrame(
    {"as drawn": as_drawn["found"], "with the filter": changed["found"]}
)[n_before:]
past = past.groupby(as_drawn["group"][n_before:]).mean().reindex(PAIR)
past.loc["men minus women"] = past.loc["M"] - past.loc["F"]
past.index.name = "patients past the change"
show(past, "Mean share found", digits=3)

# %% [markdown]
# ## The usual test, and why it cries wolf
#
# To compare two groups as they come, the first woman and the first man make
# the first pair, the second ones the second, and so on. The *difference* of a
# pair is the man's share minus the woman's. The usual test asks of all pairs
# so far whether their mean is above 0. Its level is kept by *one* test, at a
# time that was fixed beforehand. What a second and a third look cost has been
# known for long {cite:p}`armitage1969`. (Whoever is ahead waits for a partner.
# Where one group is far larger, a block holds several of it.)
#
# To see it, take the patients as drawn and deal "man" and "woman" among them
# at random, many times. Nobody is treated worse, and every alarm is false.

# %%
EVERY = 25  # pairs, in which no single patient can be seen
rng = np.random.default_rng(seed)
shuffled = [rng.permutation(as_drawn["group"]) for _ in range(400)]
fair = [watch.blocks(as_drawn["found"], sex, PAIR) for sex in shuffled]
fair = np.stack([pairs["difference"] for pairs in fair])
p = watch.p_values(fair - tolerated)

# %% [markdown]
# ## A bet instead
#
# Start with one coin and bet against the device. The *null hypothesis* is that
# women are not served worse than is tolerated: **for each next pair, whatever
# came before, the expected difference is at most** $g_0$. Stake a fixed share
# $\lambda$ on each pair. With difference $d_t$ the wealth becomes
#
# $$ K_t = K_{t-1} \left( 1 + \lambda (d_t - g_0) \right), \qquad K_0 = 1 .
# $$ (eq-watch-wealth)
#
# If the null holds, no bet is expected to win, and wealth can only grow by
# luck. Luck has a bound: **the chance that it *ever* reaches** $1/\alpha$
# **is at most** $\alpha$ {cite:p}`ville1939`. Ever: at whatever patient one
# stops, for whatever reason. So one may look after each of them. The bets are
# those of {cite:t}`waudbysmith2024`, which ask only that numbers are bounded;
# for audits see {cite:t}`chugg2023`, for two groups {cite:t}`turner2024`.
#
# The other watch is of one group: everybody. Its null is that **for each next
# patient the expected share found is at least the promise** $s_0$, and a
# patient with share $x_t$ pays $s_0 - x_t$.
#
# - *How much to stake?* As much as soon finds a gap that is worth finding:
#   about that gap over the variance of a difference. A wrong guess costs time,
#   never a false alarm.
# - *What if the change comes late?* A bettor who loses for a year is
#   poor when it comes. So some money is kept, and put down bit by bit: each
#   bit is a bettor of its own who starts later {cite:p}`shin2023`.

# %%
rich = watch.wealth(fair - tolerated, 1 + tolerated, plan.on_gap)

# %% tags=["hide-input"]
often = (p < level)[:, EVERY - 1 :: EVERY]
alarms = pd.Series(
    {
        "usual test after every pair": (p < level)[:, EVERY:].any(axis=1),
        f"usual test after every {EVERY} pairs": often.any(axis=1),
        "usual test once, at the end": p[:, -1] < level,
        "bets after every pair": np.isfinite(watch.first_alarm(rich, level)),
    },
    name="false alarms",
).map(np.mean)
what = "Streams dealt at random that raise an alarm, per cent"
show(100 * alarms.to_frame(), what, digits=1)

# %% tags=["remove-input"]
usual, weekly, once, bets = alarms
say(f"""
Of {count(len(fair))} streams without any gap, of {count(fair.shape[1])} pairs,
the test after every pair (past the first {EVERY}) alarms in {percent(usual)},
that after every {EVERY} in {percent(weekly)}; with more patients it would be
more. Once, at the end, it is {percent(once)}. The bets, looked at after every
pair, alarm in {percent(bets)}.
""")

# %% tags=["remove-input"]
quiz(
    "The wealth of a watch has come to half of what raises the alarm. The "
    "head of department wants to go on for another month, because it looks "
    "promising. Is that allowed?",
    {
        "No: the plan must not depend on the data.": (
            False,
            "That is the rule of the usual test. Wealth may be looked at, and "
            "the decision to go on may rest on it.",
        ),
        "Yes, and the chance of a false alarm stays what it was.": (
            True,
            "The bound holds for wealth ever reaching the line, so for every "
            "rule of stopping and going on.",
        ),
    },
)

# %% [markdown]
# ## The watch at work

# %%
quiet, _ = watch.watched(as_drawn, plan, level)
alarm, course = watch.watched(changed, plan, level)

# %% tags=["hide-input"]
plots.watched(course, level, n_before)
figure(
    "fig-watching-gap",
    f"{model.name} at sites B and C: the gap in the share found, men minus "
    "women, with a band that holds at all times together (above), and the "
    "wealth of the bets against “no gap” (below). The filter comes at "
    "the dashed line.",
    table=course,
    counts=(),
)


# %% tags=["remove-input"]
def when(at):
    """After how many patients there was an alarm, and after the change."""
    if not np.isfinite(at):
        return "never"
    past = at - n_before
    return f"after patient {at:,.0f}" + f" ({past:,.0f} after it)" * (past > 0)


table = pd.DataFrame({"as drawn": quiet, "with the filter": alarm})
nulls = {
    "gap": f"the gap is at most {fmt(tolerated)}",
    "promise": f"sensitivity is at least {fmt(plan.promise)}",
}
table = table.rename(nulls).rename_axis("null hypothesis")
show(table.map(when), "When the watches raise an alarm")
size = watch.planned_size(worth, plan.variance, level)
test = watch.p_values(course["difference"] - tolerated)[:size]
says = f"says p = {fmt(test[-1])}; what comes later it does not see"
if len(test) < size:
    says = "has not enough of them yet"
end = course.iloc[-1]
band = fmt_interval(end["gap"], end["low"], end["high"], 3, True)
say(f"""
The filter comes after patient {count(n_before)}. Alarm of the watch of the
gap: {when(alarm["gap"])}. Of that of everybody: {when(alarm["promise"])}; the
mean past the change is {fmt(changed["found"][n_before:].mean())}. **A loss of
one group is thinned out in the mean of all.** A single test, planned from the
first patient on to find a gap of {fmt(worth)} four times in five, takes
{count(size)} pairs, and {says}.

The band of {{numref}}`fig-watching-gap` is a *confidence sequence*: a gap that
stays the same is inside at all times, with a chance of at least
{percent(1 - level)}. It looks both ways and is not told what is worth finding,
so it is wider than an interval for one look, and slower than the alarm. At the
end it is {band}, for all pairs: where a gap moves, the band follows its mean.
""")

# %% [markdown]
# ## Is it sooner than a plan?
#
# One stream is luck. Thousands are *recorded* by `benchmarks/watch.py`, in
# patients of whom eight in ten are found, and a gap of one in ten. Bets and
# plans are told the same: which gap is worth finding, and its variance. A plan
# may have one test at its end, or four looks on the way, with stricter limits
# at the early ones {cite:p}`obrien1979`; or it starts anew with each batch and
# shares its level among them.

# %% tags=["hide-input"]
recorded = watch.recorded()
short = watch.compared(recorded)
soon = short[list(watch.CHANGES)]
shown = soon.map(lambda x: fmt(x, 0) if np.isfinite(x) else "not by half")
shown.insert(0, "false alarms", short["false"].map(lambda x: percent(x, 1)))
what = "Recorded: false alarms, and median patients from change to alarm"
show(shown, what, counts=())

# %% tags=["remove-input"]
first, *later_ones = watch.CHANGES
bet, one, four, batch = (
    soon.loc[name] for name in (watch.BETS, watch.ONE, watch.FOUR, watch.BATCH)
)
lost = listed(f"{fmt(batch[x] - bet[x], 0)} patients" for x in later_ones)
most, wolf = short["most_false"][watch.BETS], short["false"][watch.USUAL]
say(f"""
Recorded on {recorded["date"].max()}, {count(recorded["n_streams"].min())}
streams of {count(recorded["n_patients"].min())} patients for each design. In
no fair design do the bets alarm in more than {percent(most, 1)}; the usual
test after every patient does in {percent(wolf)} of them all.

If the gap is there from the first patient on, half of the watches have found
it after {fmt(bet[first], 0)} patients, the plan with one test after
{fmt(one[first], 0)}, that with four looks after {fmt(four[first], 0)}.
**Whoever knows when the gap begins is best served by planned looks.** But one
that begins later is past what either plan looks at. Batches go on; their
median is later than that of bets by {lost}.
""")

# %% [markdown]
# ## Real patients need an order
#
# A watch reads patients in the order in which they came. Published data sets
# hide it, for good reasons.

# %% tags=["hide-input"]
ORDERS = {
    "phantom": "none: drawn at random here",
    "nih": "none: no dates; numbers of films count within a patient",
    "mimic": "none: each patient's dates are moved by a time of its own",
    "own": "the rows of cohort.csv: sort them by date before you save it",
}
order = pd.Series(ORDERS, name="order of the patients").rename_axis("data")
show(order.to_frame(), "What says who came first")

# %% tags=["remove-input"]
said = """
The stream above is one of phantoms. Real data are set up on their validation
patients and watched on their test patients, by the same calls.
"""
if data != "phantom":
    fitting, rows = cohorts.validation(
        cohort, data, n_images, seed, options, **how
    )
    told, own = predicted(fitting), predicted(cohort)
    points = watch.operating_points(told, specificity)
    told = watch.found(told, points, "sex")
    own = own[own["image_id"].isin(rows["image_id"])]
    own = watch.found(own, points, "sex")
    if data != "own":
        own = own.sample(frac=1, random_state=seed, ignore_index=True)
    least = min(sum(t["group"] == g) for t in (told, own) for g in PAIR)
    said = f"In {cohort.name}, the gap is undefined: too few ill of a group."
    if least >= EVERY:
        theirs = watch.plan(told, PAIR, allowed, tolerated, worth)
        _, seen = watch.watched(own, theirs, level)
        seen = seen.iloc[EVERY - 1 :: EVERY]
        rang = (seen["wealth"] >= 1 / level).any()
        last = seen.iloc[-1]
        gap = fmt_interval(last["gap"], last["low"], last["high"], 3, True)
        said = f"""
In {cohort.name}, looked at after every {EVERY} pairs, the gap after
{count(last["patient"])} ill patients is {gap}, and the watch of it
{"alarms" if rang else "does not alarm"}.
"""
say(f"""
{said}
Where there is no order and one is drawn, a watch can find a gap that has been
there all the time. It cannot say when one began.
""")

# %% [markdown]
# ## What to do on an alarm
#
# An alarm is a finding about the promise, not about its cause.
#
# 1. Look at patients first: read again the films that were missed lately. Is
#    it one finding, one room, one scanner, one kind of patient?
# 2. Tell those who use the device, and say for whom it is less safe. Second
#    readings for these patients cost less than a device switched off.
# 3. Search for the cause as in [chapter 12](12_gap_causes), with whoever
#    changed something: a filter, an update, a protocol, the way of reporting.
# 4. Mend it, set a new promise, and start a new watch with new money. An old
#    watch that has alarmed stays alarmed.
#
# A hospital needs people whose work this is {cite:p}`feng2022`. And write the
# plan down beforehand: nulls, groups, stakes. Several watches at once, for
# each finding and group, share the level between them.
#
# ## What a watch cannot see
#
# - **Who has no label yet.** Sensitivity needs the truth, and the truth comes
#   late, from a report or a scan weeks after. A watch is as late as its
#   labels; patients enter in the order in which their labels arrive.
# - **Who is never labelled.** If the ill whom the device misses are not
#   followed up, they are counted as healthy and are not in the stream at all.
# - **Wrong labels**, more often wrong in one group
#   ([chapter 22](22_label_error)), look like a gap or hide one.
# - **A gap among the healthy**: false alarms of the *device* need a watch of
#   specificity, with the same code.
# - **Why.** If sicker women come in winter, the gap moves and the device has
#   not changed. The null speaks of each next patient, winter ones too.

# %% tags=["remove-input"]
in_short(
    f"""
One may look after every patient and be believed, if one bets: a stake on each
pair of patients wins when the woman is served worse, and what has been won is
the evidence. Where groups are dealt at random, the usual test after every pair
alarms in {percent(usual)} of streams, the bets in {percent(bets)}. Findings of
women were made fainter after patient {count(n_before)}; alarm of the watch of
the gap of {model.name}: {when(alarm["gap"])}. Recorded: bets find a gap of one
in ten after {fmt(bet[first], 0)} patients in the median, one planned test
after {fmt(one[first], 0)}, four planned looks after {fmt(four[first], 0)};
these plans miss a gap that comes later. A watch is as late as its labels, and
as wrong.
""",
    figure="fig-watching-gap",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-watching-hand
# Promise: sensitivity is at least 0.8. One bets 1 per unit, with all the money
# on the table. Two patients are found, then two are missed. How rich is the
# bettor, and what would the next miss make of it?
# ```
#
# ```{solution} ex-watching-hand
# :class: dropdown
# A found patient pays 0.8 − 1 = −0.2, a missed one 0.8. So the wealth is
# 0.8 · 0.8 · 1.8 · 1.8 = 2.07, and 3.73 after another miss:
# `watch.wealth([-0.2, -0.2, 0.8, 0.8, 0.8], 0.2, 1.0, kept=0)`.
# ```
#
# ```{exercise}
# :label: ex-watching-late
# Keep no money (`kept=0` in `watch.wealth`). What changes for a gap from the
# first patient on, and what for one that comes late?
# ```
#
# ```{solution} ex-watching-late
# :class: dropdown
# With all the money on the table the early gap is found a little sooner. The
# late one takes longer: by then most of the money is lost to fair pairs, and
# has to be won back first.
# ```
#
# ```{exercise}
# :label: ex-watching-both
# Nobody knows beforehand which group will lose. How would you watch both ways
# at one level?
# ```
#
# ```{solution} ex-watching-both
# :class: dropdown
# Give half of the money to each side: the mean of
# `watch.wealth(d - g, 1 + g, stake)` and `watch.wealth(-d - g, 1 + g, stake)`
# is a bet against "the gap is at most g either way". It needs twice the growth
# on the side that loses, which costs some patients. Do not start two watches
# at the full level each: that doubles the false alarms.
# ```
