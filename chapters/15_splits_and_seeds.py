# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - say what a way of adapting trains, and what it costs
#     - tell apart the luck of patients, splits and random numbers
#     - judge a claim that adaptation raised a gap
#     needs:
#     - 03_fine_tuning
# ---

# %% [markdown]
# # Where the luck is: splits and seeds
#
# *Deepens sections 2.3, 2.4 and 3.3 of {cite:t}`sun2025`, paper X: what its
# four ways of adapting do, and how firm a change of a gap is that one training
# on one split has shown.*
#
# Two hospitals adapt the same model to the same films, with the same code. One
# reports that the gap between women and men has grown, and calls the project
# off. The other reports that it has shrunk, and buys. Neither made a mistake.
# They had set aside other films for the test, and their computers had rolled
# other dice.
#
# X trains once, on one split, and says which models became less fair. **How
# much of such a sentence is the adaptation, and how much is the luck of one
# run?** Here everything is trained several times.

# %% tags=["parameters"]
models: str = "phantom-resnet"  # of `cxrbook models`, by commas, or "all"
data: str = "phantom"  # a balanced cohort, or the one beside which it lies
options: dict = {}  # of the balanced cohort, or the dials of a phantom
protocol: str = "corrected"  # {corrected, as_published} the latter: one split
seed: int = 1907  # [0, 1000000] of phantoms, splits, training and resamples
n_splits: int = 5  # [1, 100] 7:1:2 splits; five test every image once
n_seeds: int = 3  # [1, 100] trainings of a split: linear probe and MLP
n_seeds_encoder: int = 1  # [1, 100] likewise LoRA and full fine-tuning
epochs_head: int = 30  # [1, 10000] of linear probe and MLP; X: 150
epochs_encoder: int = 6  # [1, 10000] of LoRA and full fine-tuning; X: 150
rates: str = "heads"  # {heads, all, none} of which learning rates are sought
n_draws: int = 10  # [1, 1000] random prompts of a format
device: str = "cpu"  # as torch names it: "cuda" for a GPU
precision: str = "float32"  # {float32, bfloat16, float16} of encoders
jobs: int = 1  # [1, 256] trainings at the same time, on several cores
n_resamples: int = 500  # [2, 100000] bootstrap resamples
n_permutations: int = 1000  # [1, 100000] groups dealt anew, for a fair model

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# Cohort, models and splits are those of [chapter 3](03_fine_tuning). A
# training that was finished there is read here, not repeated.

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts.nih6x200 import DISEASES
from cxrlib.models import choose_models, load_model
from cxrlib.papers import published
from cxrlib.predict import finetune, repeats, zeroshot
from cxrlib.protocol import protocol_of
from cxrlib.show import notebook, plots, words
from cxrlib.show.notebook import figure, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import UNDEFINED, count, fmt, percent, readable
from cxrlib.stats import fairness, inference

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
names = choose_models(models)
first = names[0]
notebook.warn_if_seeded(names, data)
balanced = cohorts.BALANCED.get(data, data)
cohort = cohorts.study(balanced, None, seed, options, split=chosen.split)
table = cohort.table
diseases = notebook.asked(cohort.name, table["disease"], DISEASES, least=2)
splits = repeats.splits_of(table, n_splits, seed, chosen)
sampling = {"n_resamples": n_resamples, "seed": seed}

# %% [markdown]
# ## Which films are the test?
#
# The first toss is the *split*. Patients are shuffled and laid out on a
# circle; the test takes a fifth of it, validation the tenth before, training
# the rest. Turning the circle by a fifth gives the next split. So the test
# parts of five splits are apart from each other and hold every film once,
# while their training parts share most of their films.

# %% tags=["hide-input"]
what = f"The 7:1:2 splits, drawn by {chosen.split}"
show(repeats.part_sizes(table, splits), what)

# %% tags=["remove-input"]
parts_tested = [split == "test" for split in splits]
tested = np.any(parts_tested, axis=0).mean()
patients = table["patient_id"]
shared = np.mean(
    [patients[at].isin(patients[~at]).mean() for at in parts_tested]
)
say(f"""
Together the test parts hold {percent(tested)} of the films. On average
{percent(shared)} of the films of a test part belong to patients who also have
films in training or validation: such a patient may be recognised instead of
diagnosed. The paper does not say how it split; with `protocol="as_published"`
this chapter makes one split by image, and looks at nothing else.
""")

# %% [markdown]
# ## Which words?
#
# Before any training, the prompts are chosen: the best of three formats, each
# of several random draws.

# %%
tasks, scores, before = {}, {}, []
for name in names:
    model = load_model(name, chosen, device=device)
    task = finetune.Task(cohort, model, diseases)
    asked = zeroshot.format_scores(cohort, model, diseases, n_draws, seed)
    before.append(repeats.zero_shot(task, asked, splits, chosen))
    tasks[name], scores[name] = task, asked
before = pd.concat(before, ignore_index=True)

# %% tags=["remove-input"]
picked = before.drop_duplicates(["model", "split"])
picks = picked.groupby("model", sort=False)["format"].value_counts(sort=False)
of = f"of {len(splits)}"
picks = [f"{kind} in {n} {of} ({model})" for (model, kind), n in picks.items()]
taken = schema.rows(picked, model=first, split=0)["format"].item()
y = tasks[first].y.numpy()
every = zeroshot.format_table(scores[first], y).set_index("format")
ensemble = scores[first][taken].mean(axis=0).argmax(axis=1) == y
say(f"""
The best format on the {chosen.prompt_choice} films, split by split:
{words.listed(picks)}. X reports the mean accuracy of single draws. For {first}
and the format of the first split, that is {every.loc[taken, "accuracy"]:.3f},
where single draws reach from {every.loc[taken, "lowest"]:.3f} to
{every.loc[taken, "highest"]:.3f}; the mean of their probabilities, with which
this book goes on, has {ensemble.mean():.3f}.
""")

# %% [markdown]
# ## One training, from the inside
#
# The second toss is the *seed* of a training: its random numbers set the first
# weights of the head and the order of the films. What such a training is, and
# what it costs, first.

# %%
once = chosen.repeats == "one split"
n_runs = [1 if once else n for n in (n_seeds, n_seeds_encoder)]
seeds = {
    way: list(range(seed, seed + n_runs[way not in finetune.ON_EMBEDDINGS]))
    for way in finetune.STRATEGIES
}
tuned = {}
for name, task in tasks.items():
    epochs = (epochs_head, epochs_encoder)
    how = repeats.settings_of(task, splits[0], *epochs, rates, precision, seed)
    tuned[name] = repeats.tune(task, list(how), splits, seeds, how, jobs=jobs)
runs = pd.concat([t.runs for t in tuned.values()], ignore_index=True)

# %% tags=["hide-input"]
ways = runs.groupby(["model", "strategy"], sort=False)
cost = ways[["trainable", "epochs"]].first()
seen = np.isin(splits[0], ["train", "valid"]).sum()  # films of an epoch
passes = [
    len(table) if strategy in finetune.ON_EMBEDDINGS else seen * epochs
    for (_, strategy), epochs in cost["epochs"].items()
]
cost["memory"] = ways["memory_mib"].max()
shown = {
    "trained parameters": cost["trainable"],
    "memory of a step (MiB)": cost["memory"].map("{:.3g}".format),
    "films through the encoder": passes,
}
show(pd.DataFrame(shown), f"What a training costs, on {device}", counts=())

# %% [markdown]
# A step (one batch forth and back) needs memory for the weights, their
# gradients, the two running means that AdamW keeps of each gradient, and what
# the forward pass keeps for the way back: on a CPU this is counted, on a GPU
# it is the measured peak. What takes time is the number of films that go
# through the encoder: for linear probe and MLP each film once, whose embedding
# is kept, for the others in every epoch. Energy was not measured.

# %% tags=["remove-input"]
of_first = cost.loc[first]
share, memory = (
    of_first[c] / of_first.loc["full", c] for c in ("trainable", "memory")
)
moral = "as much of a saving"
if memory["LoRA"] > share["LoRA"]:
    moral = "less of a saving, as most of it holds what the forward pass keeps"
sought = {"all": "all four ways", "none": "none of them"}
sought = sought.get(rates, words.listed(repeats.SOUGHT[rates]))
say(f"""
For {first}, LoRA trains {percent(share["LoRA"], 1)} of the weights that full
fine-tuning trains. A step of it takes {percent(memory["LoRA"])} of the memory:
{moral}. A step of the linear probe takes
{percent(memory["linear probe"], 1)}.

All four share one loop (`cxrlib.predict.training.fit`): the optimiser AdamW, a
learning rate that falls along a cosine, batches of {how["full"].batch} films.
An *epoch* is one pass through the training films; kept are the weights of the
epoch with the lowest *validation loss*, the cross-entropy on films that
training did not use. Learning rates were sought on the validation films of the
first split for {sought}. All other settings are in `cxrlib.predict.finetune`
and `cxrlib.predict.training`.
""")

# %% tags=["hide-input"]
shown = {
    "learning rate": ways["learning_rate"].first().map("{:g}".format),
    "epochs": cost["epochs"],
    "best epoch, median": ways["best_epoch"].median().map("{:g}".format),
    "runs": ways.size(),
}
show(pd.DataFrame(shown), "How the ways were trained", counts=())

# %% tags=["hide-input"]
one = {way: tuned[first].fits[way, 0, seed] for way in finetune.STRATEGIES}
histories = {way: fit.history for way, fit in one.items()}
plots.learning_curves(histories, {way: f.best_epoch for way, f in one.items()})
figure(
    "fig-tuning-curves",
    "Cross-entropy by epoch in training (solid) and validation (dashed), "
    f"{first}, first split. The dot marks the epoch whose weights are kept.",
    table=pd.concat(
        [h.assign(strategy=way) for way, h in histories.items()]
    ).drop(columns="seconds"),  # differs from run to run
    counts=(),
)

# %% tags=["remove-input"]
last = {way: history.iloc[-1] for way, history in histories.items()}
learnt = [
    w for w, end in last.items() if end["valid_loss"] > end["train_loss"]
]
lowest = min(histories, key=lambda way: histories[way]["valid_loss"].min())
kept = [
    f"{f.best_epoch} of {len(f.history)} ({way})" for way, f in one.items()
]
say(f"""
The epochs kept: {words.listed(kept)}. Where the dashed line ends above the
solid one, the model does better on the films that it trains on than on others,
and begins to learn them by heart: {words.listed(learnt)}. The lowest
validation loss of the four on this split is that of {readable(lowest)}.
""")

# %% [markdown]
# X applies LoRA to all layers of the image encoder. Which are those?

# %% tags=["hide-input"]
adapted = pd.concat(
    [
        t.fits["LoRA", 0, seed].adapted.assign(model=name)
        for name, t in tuned.items()
    ],
    ignore_index=True,
)
columns = {"left_out": "left as they are", "trained": "trained parameters"}
show(
    adapted[["model", "layer", "adapted", *columns]].rename(columns=columns),
    "What LoRA adapts in the image encoder",
    counts=(),
)

# %% tags=["remove-input"]
left, among = adapted["left_out"].sum(), adapted[["adapted", "left_out"]]
say(f"""
A layer counts as adapted only if the loss depends on its update; training
stops otherwise. Left as they are: {left} of the {among.sum().sum()} matrices
of the listed kinds, biases, and the factors of normalising layers. After
training, the updates are added to the weights, and the predictions are those
of the merged model.
""")

# %% [markdown]
# ## Which gap?
#
# A third toss is not the computer's. X defines three gaps, and each has a
# look-alike that shares its name: of the F1 gap, the mean of the *absolute*
# gaps $|F1^c_A - F1^c_{A'}|$, in which diseases cannot cancel; of equalised
# odds, the *larger* of the two gaps instead of the mean, as in fairlearn; of
# the calibration gap, which X calls gap in ECE (expected calibration error),
# the gap in a real ECE, which compares means within *bins* of the probability.
# The look-alikes are in the second, folded table.

# %%
PAIRS = {"sex": [("F", "M")], "age60": [("old", "young")]}
after = [t.predictions for t in tuned.values()]
every_run = pd.concat([before, *after], ignore_index=True)
every_run = every_run.merge(table[["image_id", *PAIRS]], on="image_id")
together = repeats.pooled(every_run)
results = fairness.multiclass_table(together, list(PAIRS), PAIRS, **sampling)

# %% tags=["hide-input"]
gaps = schema.rows(results, group=["F - M", "old - young"])
gaps = gaps.sort_values(["model", "attribute"], kind="stable")
laid = {"rows": ["model", "attribute", "method"], "columns": "metric"}
what = "Gaps as X defines them, women minus men and old minus young"
show(schema.rows(gaps, metric=words.X_GAPS), what, digits=2, **laid)

# %% tags=["hide-cell"]
ALIKE = ["f1_gap_absolute", "eq_odds_max", "ece_gap"]
what = "Their look-alikes, on the same films"
show(schema.rows(gaps, metric=ALIKE), what, digits=2, **laid)

# %% tags=["remove-input"]
full = schema.rows(gaps, model=first, method="full", group="F - M")
full = full.set_index("metric")["value"]
say(f"""
After full fine-tuning of {first}, the F1 gap between women and men is
{fmt(full["f1_gap_signed"], 3)} signed and
{fmt(full["f1_gap_absolute"], 3)} absolute; equalised odds are
{fmt(full["eq_odds_mean"], 3)} by X's mean and {fmt(full["eq_odds_max"], 3)} by
the larger gap. Resampling adds noise, and noise adds to a mean of absolute
gaps: the interval of such a gap tends to reach up more than down, and with few
films it can lie above its own estimate.
""")

# %% [markdown]
# ## With a test set of X's size
#
# These were the test parts of all splits together. X has one, a fifth of the
# films. How large are the gaps of an exactly fair model in so few? Groups are
# dealt anew among patients with the same disease, as in
# [chapter 3](03_fine_tuning), on the first of our test parts. The last columns
# set the gaps of X after fine-tuning beside them, for its two extreme models.

# %%
one_test = schema.rows(together, model=first, method="full", split=0)
small = inference.multiclass_gap_tests(
    one_test, PAIRS, n_permutations=n_permutations, **sampling
)
small = schema.rows(small, metric=repeats.GAPS)
printed = published.table("X Fig. 3c").set_index(["attribute", "metric"])
sizes = printed.set_index("model", append=True)["value"].abs().unstack()

# %% tags=["hide-input"]
FLOORS = ["floor_mean", "floor_p95", "p_value"]
beside = small.set_index(["attribute", "metric"])[["value", *FLOORS]]
own = beside.astype(object).where(beside.notna(), UNDEFINED)
of_x = sizes.add_prefix("X, ")
shown = own.rename(columns={"value": "here, full"}).join(of_x)
for attribute, ((a, b),) in PAIRS.items():
    pair = readable(f"{a} - {b}")
    what = f"Gaps {pair} after full fine-tuning, of a fair model, and in X"
    show(shown.loc[attribute], what, digits=3, missing="not printed")

# %% tags=["remove-input"]
known = beside.join(sizes).dropna(subset="floor_p95")
below = sum((known[m] <= known["floor_p95"]).sum() for m in sizes)
n_printed = known[list(sizes)].notna().sum().sum()
moral = "The size of the test set does not explain most of them"
if 2 * below > n_printed:
    moral = "With a test set of this size, most such gaps are unremarkable"
if not n_printed:
    moral = "Whether that is remarkable cannot be said, for want of films"
odds, signed = (
    schema.row(small, attribute="sex", metric=m)
    for m in ("eq_odds_mean", "f1_gap_signed")
)
everybody = schema.rows(gaps, model=first, method="full")
everybody = schema.row(everybody, attribute="sex", metric="f1_gap_signed")
half, half_all = (
    (row["ci_high"] - row["ci_low"]) / 2 for row in (signed, everybody)
)
x_f1 = printed.xs("f1_gap_signed", level="metric")["value"]
within = UNDEFINED if pd.isna(half) else (x_f1 < half).sum()
floor, reach = (f"{odds[c]:.3f}" for c in FLOORS[:2])
n_test = int(np.mean([at.sum() for at in parts_tested]))
say(f"""
A fair model with these answers shows an EqOdds between women and men of
{floor} on average, and one in twenty shows {reach} or more. Of the gaps that X
prints for these two models, {n_printed} have a floor here; {below} of them do
not exceed its 95th percentile. {moral}. That is no verdict on models that were
not run here: their floor depends on their own answers.

With {count(n_test)} test films, the interval of the F1 gap by sex reaches
{percent(half, 1)} to either side; {within} of the {len(x_f1)} F1 gaps that X
prints are smaller than that. With the test parts of all splits together it
reaches {percent(half_all, 1)}.
""")

# %% tags=["remove-input"]
interval = words.fmt_row(odds, 3)
quiz(
    f"On one test part, {first} has an EqOdds of {fmt(odds['value'], 3)} "
    "between women and men. What follows from this number alone?",
    {
        "Women and men are treated differently": (
            False,
            "A mean of absolute gaps is above 0 for a fair model too: with "
            f"these answers it would be {floor} on average.",
        ),
        "Nothing, before it is compared with the gap of a fair model": (
            True,
            f"A fair model exceeds {reach} once in twenty cases; a gap at "
            f"least as large as this one has p = {fmt(odds['p_value'], 3)}.",
        ),
        "It is a small number, so the model is fair": (
            False,
            "EqOdds averages over diseases and over two rates. Its interval, "
            f"{interval}, says how much larger it may be.",
        ),
    },
)

# %% [markdown]
# ## Other splits, other random numbers
#
# Intervals and floors ask what other *patients* would have given. Here is each
# run by itself, with the number that X's conclusion rests on: how much larger
# (or smaller) the gap is after fine-tuning than zero-shot, on the same test
# films.

# %%
per_run = repeats.values(every_run, PAIRS)
changes = per_run[per_run["method"].str.contains(" - ")]
parts = repeats.components(changes)

# %% tags=["hide-input"]
shown = schema.rows(changes, attribute="sex", metric="eq_odds_mean")
plots.spread(shown, "eq_odds_mean", components=parts)
figure(
    "fig-tuning-runs",
    "Change of EqOdds (Eq. 3) between women and men against zero-shot on the "
    "same test films. One dot a split and seed; dots of one split are joined. "
    "The bar is their mean.",
    counts=(),
)

# %% [markdown]
# Seeds lie within splits, so the spread of the dots can be parted by a one-way
# analysis of variance: between seeds of one split, and between splits, without
# what the seeds add.

# %% tags=["hide-input"]
UNFAIR = ["f1_gap_size", "eq_odds_mean", "calibration_gap_eq4"]
TWO = ["linear probe - zero-shot", "full - zero-shot"]
listed = schema.rows(parts, metric=UNFAIR, method=TWO)
listed = listed.merge(repeats.spread(per_run), on=repeats.KEYS)
listed = listed.sort_values(
    ["model", "attribute", "metric"], kind="stable", ignore_index=True
)
pairs = listed["group"].map(readable) + ", " + listed["metric"].map(readable)
named = {"model": listed["model"], "change": listed["method"], "gap": pairs}
luck = {
    "mean": listed["mean"],
    "SD, seeds": listed["sd_seed"],
    "SD, splits": listed["sd_split"],
}
what = "Change of gaps against zero-shot: mean and standard deviation (SD)"
show(pd.DataFrame(named | luck), what, digits=3, missing=UNDEFINED, counts=())

# %% tags=["hide-cell"]
span = {"lowest": listed["lowest"], "highest": listed["highest"]}
for which, title in (("runs", "rose in runs"), ("splits", "in splits")):
    rose = zip(listed[f"{which}_above_0"], listed[which], strict=True)
    span[title] = [f"{up} of {n}" for up, n in rose]
what = "The same changes: how far runs reach, and how often the gap rose"
show(pd.DataFrame(named | span), what, digits=3, missing=UNDEFINED, counts=())

# %% tags=["remove-input"]
of_sex = schema.rows(listed, model=first, attribute="sex")
of_sex = of_sex[of_sex["metric"] == "eq_odds_mean"].set_index("method")
probe, full = (of_sex.loc[way] for way in TWO)
rises = f"{full['runs_above_0']} of {full['runs']}"
share = full["share_above_0"]
survives = "All runs agree on the direction."
if 0 < share < 1:
    survives = "What a single run says of the direction depends on the run."
if np.isnan(share):
    survives = "Too few films for a direction."
if len(splits) == 1:
    survives = "With a single split nothing more can be said."
notes = (note for text in listed["note"] for note in text.split("; ") if note)
notes = "; ".join(dict.fromkeys(notes)).replace("sd_seed", "the SD of seeds")
notes = notes.replace("sd_split", "the SD of splits")
say(f"""
After full fine-tuning of {first}, EqOdds between women and men is larger than
zero-shot in {rises} runs, with a mean change of
{fmt(full["mean"], 3, signed=True)}; after a linear probe in
{probe["runs_above_0"]} of {probe["runs"]}. {survives} For the linear probe,
whose trainings are cheap enough to repeat, the change varies by
{probe["sd_seed"]:.3f} (standard deviation) with the random numbers of the
training and by {probe["sd_split"]:.3f} with the split. The splits share most
of their training films, so the spread over truly new cohorts can be larger.
{f"Notes to the tables: {notes}." if notes else ""}
""")

# %% [markdown]
# ## Beside the paper
#
# X prints gaps before and after, to three decimals, of one training on one
# split. It gives no interval and repeats nothing, so its print cannot tell
# whether a second run would have ranked its models alike.
#
# ## Limits
#
# - What splits and seeds add was looked at for the gaps alone.
# - The trainings of LoRA and full fine-tuning are fewer than those of the
#   heads, and shorter than X's.
# - Splits of one cohort know nothing of another hospital.

# %% tags=["remove-input"]
in_short(
    f"""
Would a second run say the same? Here EqOdds between women and men rose in
{rises} runs of full fine-tuning of {first}, with a mean change of
{fmt(full["mean"], 3, signed=True)}. {survives} For a linear probe, the
standard deviation of the change is {probe["sd_seed"]:.3f} over seeds and
{probe["sd_split"]:.3f} over splits. On a test set of X's size an exactly fair
model shows an EqOdds of {floor} on average; of {n_printed} gaps that X prints
after fine-tuning, {below} lie within the reach of such a model.
""",
    figure="fig-tuning-runs",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-tuning-image-split
# Run chapter 3 with `protocol="as_published"`. By how much does the accuracy
# of full fine-tuning change, and why could it? Which intervals get wider, and
# which sentences become more certain than they should?
# ```
#
# ```{solution} ex-tuning-image-split
# :class: dropdown
# With an image-level split, a share of the test images comes from patients
# seen in training (this chapter prints it). A phantom patient keeps rib cage,
# heart and lung shape from film to film, so the model can recognise the
# patient and with it the disease. On real films the effect is the same in
# kind. There is one test set of a fifth of the films, so all intervals are
# wider; and with a single split, other splits have nothing to say, which does
# not make the numbers any safer.
# ```
#
# ```{exercise}
# :label: ex-tuning-signed
# Construct F1 scores of two groups on two diseases for which the signed gap of
# Eq. 2 is 0 and the absolute gap is large. What does each number tell a
# clinician?
# ```
#
# ```{solution} ex-tuning-signed
# :class: dropdown
# Women 0.9 and 0.5, men 0.5 and 0.9: the signed gap is 0, the absolute gap
# 0.4. The signed gap answers "is one group worse off over all diseases?"; the
# absolute one "how differently are they treated, disease by disease?". A
# clinician who treats one disease needs neither mean, but the row of her own.
# ```
#
# ```{exercise}
# :label: ex-tuning-rank
# LoRA trains a small share of the weights. Call `finetune.fine_tune` with
# `finetune.settings_for("LoRA", rank=1)` and with `rank=16` on the first
# split. Does validation loss tell the ranks apart? Would you trust a
# difference in the fairness gap between them?
# ```
#
# ```{solution} ex-tuning-rank
# :class: dropdown
# Compare the difference in validation loss with the spread over seeds of one
# rank (train each with three seeds). Fairness gaps are noisier still: a test
# part has half of its films in a group, and the floor shows what a fair model
# does with so few.
# ```
#
# ```{exercise}
# :label: ex-tuning-seed
# Run chapter 3 with three other values of `seed`. Which of its statements
# survive?
# ```
#
# ```{solution} ex-tuning-seed
# :class: dropdown
# Write down, for each seed, which strategies beat zero-shot with an interval
# above 0, and the sign of the change in EqOdds. The interval of that change
# tells you beforehand how often to expect the other sign; the dots of
# {numref}`fig-tuning-runs` showed it within one seed already.
# ```
#
# ## Further reading
#
# - {cite:t}`bouthillier2021` measure how much splits, seeds and settings add
#   to the luck of a benchmark.
# - {cite:t}`bengio2004` prove that the spread over overlapping splits has no
#   unbiased estimate.
