# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - say what limits an extraction on a given machine
#     - estimate the time and the price of an audit from a few measured rates
#     - run an extraction on many GPUs, and know what happens when one dies
#     needs:
#     - 10_scale
# ---

# %% [markdown]
# # The plan on paper
#
# *Goes beyond both papers: what an audit takes that is larger than theirs.*
#
# An authority wants every chest film of its country audited, and asks what to
# buy. Someone says: the fastest GPUs. Half a year later they stand idle three
# quarters of the time, waiting for films, and the money for the cores that
# would have fed them is spent.
#
# What does it take to embed the
# {published}`S Section 2.3; nih-cxr14; n_images` films of NIH, all of
# MIMIC-CXR, a million, a hundred million, by each of the models of the papers?
# **What limits it on which machine, and what breaks first?**
#
# ```{note}
# Seconds are *timed* while the page is made and differ from run to run, and so
# does whatever is reckoned from them. Sizes of machines and prices are
# *declared*. Each table says which.
# ```

# %% tags=["parameters"]
n_images: int = 400  # [40, 100000] phantoms in the store that is measured
seed: int = 1907  # [0, 1000000] of the phantom cohort and of made-up films
price: float = 4.0  # [0, 1000000] an hour of a host with one GPU
n_hosts: int = 64  # [1, 100000] hosts of the cluster
host_cores: int = 16  # [1, 10000] CPU cores of a host
device_tflops: float = 989.0  # (0, 1000000] peak of a GPU, bfloat16, 10^12/s
device_share: float = 0.3  # (0, 1] ASSUMED share of it if no GPU was measured

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib import cohorts
from cxrlib.cohorts.films import CHUNK
from cxrlib.embed import plan, rates
from cxrlib.embed.extract import extract
from cxrlib.embed.rates import MIMIC, NIH, PHANTOM, SIZES
from cxrlib.embed.store import ROWS
from cxrlib.models import load_model, model_card, published_models
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import duration, listed, percent, size

ELEVEN = published_models()
N_MIMIC, MILLION, HUNDRED = 377_110, 10**6, 10**8  # films

# %% [markdown]
# ## The rates
#
# What a film costs on one core of this machine is timed as in
# [chapter 10](10_scale). What a GPU does is taken from the benchmark where one
# was measured; otherwise it is **assumed**.

# %% tags=["timing"]
cohort = cohorts.load("phantom", n_images=n_images, seed=seed)
films, prepare = rates.of_films(cohort, ELEVEN, seed)
operations = plan.operations()[ELEVEN]
core_rate = operations["chexzero"] / rates.of_vit_b32()

# %%
measured = plan.gpu_rate(plan.recorded())
device_rate = device_share * device_tflops * 1e12  # operations a second
how = "ASSUMED"
if len(measured):
    device_rate = measured.mean()
    how = f"measured with {listed(measured.index)}, ASSUMED for the others"
share = percent(device_rate / (device_tflops * 1e12))

# %% tags=["remove-input", "timing"]
say(f"""
A core does {core_rate / 1e9:.0f} billion operations a second here. For a GPU,
{device_rate / 1e12:.0f} million million are {how}: {share} of the declared
peak.
""")

# %% [markdown]
# ## From rates to hours
#
# From there on everything is arithmetic, in `cxrlib/embed/plan.py`. One model
# run over a cohort is a *pass*. For $N$ films of $b$ bytes, with $C$ cores,
# $D$ devices (GPUs) and storage that gives $S$ bytes a second, a pass of
# models $m$ lasts
#
# $$ T = t_0 + N \max\left( \frac{b + \sum_m r_m}{S},\;
# \frac{d + \sum_m p_m}{C},\; \frac{\sum_m e_m}{D} \right) $$ (eq-scale-pass)
#
# where $d$ are the core-seconds to decode a film, $p_m$ to prepare it, $e_m$
# the device-seconds to encode it, $r_m$ the bytes of its row in the store, and
# $t_0$ the time to start. The maximum stands for work that runs side by side:
# worker processes decode and prepare while the network encodes. Whichever of
# the three is slowest is the bottleneck, and money spent on the other two is
# lost. Without devices, the cores encode too.
#
# As our code stands, eleven models are eleven passes, and the check of the
# films is a twelfth. Three places to run them are compared.

# %%
CLUSTER = f"cluster of {n_hosts}"
PLACES = pd.DataFrame(
    {
        "laptop": [8, 0, 1e9, 0.0],
        "one GPU host": [host_cores, 1, 1e9, price],
        CLUSTER: [n_hosts * host_cores, n_hosts, 20e9, n_hosts * price],
    },
    index=["cores", "devices", "storage", "price"],
).T.astype({"cores": int, "devices": int})
LAPTOP, HOST = PLACES.index[:2]

# %% tags=["hide-input", "timing"]
rate = PLACES["devices"] * device_rate
rate = rate.where(rate > 0, PLACES["cores"] * core_rate) / 1e12
places = PLACES.assign(**{"encodes, TFLOP/s": rate})
places["storage"] /= 1e9
show(
    places.rename(columns={"devices": "GPUs", "storage": "GB/s"}),
    "Three places; cores, GPUs, storage (GB a second) and prices an hour are "
    f"declared, the rate of a GPU is {share} of the peak, {how}",
    digits=1,
    counts=(),
)

# %% [markdown]
# The rows of a store are as long as those of a small one, made here.

# %% tags=["hide-input"]
scratch = tempfile.TemporaryDirectory()
model = load_model("phantom-resnet")
small, half = (
    extract(
        cohort,
        model,
        Path(scratch.name) / dtype,
        dtype=dtype,
        rows_per_shard=max(1, n_images // 8),
    )
    for dtype in ("float32", "float16")
)
on_disk = sum(path.stat().st_size for path in small.present().values())
NAME = {PHANTOM: 16, NIH: 16, MIMIC: 44}  # characters of an image's name
beside = on_disk / n_images - 4 * model.embed_dim - NAME[PHANTOM]
WIDTHS = [model_card(name)["embed_dim"] for name in ELEVEN]
START = 30.0  # seconds until a pass does its first image: libraries, weights


def work(kind, rate):
    """What each of the models costs with films of a kind."""
    parts = {"prepare": prepare[kind], "encode": operations / rate}
    return pd.DataFrame(parts).assign(model=ELEVEN, width=WIDTHS)


def passes(place, kind, n, together=False, **other):
    """All passes of the eleven models over n films: hours, price, limit."""
    there = PLACES.loc[place].to_dict() | other
    rate = device_rate if there["devices"] else core_rate
    there |= {"row_bytes": beside + NAME[kind], "start": START}
    film = films.loc[kind]
    return plan.over_films(work(kind, rate), film, n, together, **there)


# %% tags=["hide-input", "timing"]
COHORTS = {
    "phantoms": (4_000, PHANTOM),  # of most chapters
    "NIH ChestX-ray14": (112_120, NIH),
    "MIMIC-CXR": (N_MIMIC, MIMIC),
    "a million": (MILLION, MIMIC),
    "a hundred million": (HUNDRED, MIMIC),
}
lines = {}
for name, (n, kind) in COHORTS.items():
    lines[name] = {"images": f"{n:,}"}
    for place in PLACES.index:
        found = passes(place, kind, n)
        time = duration(found["hours"])
        lines[name][place] = f"{time}, {found['bottleneck']}"
        if found["cost"]:
            lines[name][f"{place}: price"] = f"{found['cost']:,.0f}"
show(
    pd.DataFrame(lines).T.fillna(""),
    "Eleven models, one pass each: time, what limits it, price",
)

# %% tags=["hide-input", "timing"]
GRID = np.unique(np.round(np.geomspace(1e3, 1e8, 21), -2)).astype(int)
hours = pd.DataFrame(
    [
        {"place": place, "films": n} | passes(place, MIMIC, int(n))
        for place in PLACES.index
        for n in GRID
    ]
)
plots.bottlenecks(hours, x="films", line="place", xlabel="films")
figure(
    "fig-scale-hours",
    "Time for eleven models on films like those of MIMIC-CXR; dots in the "
    "colour of what limits.",
)

# %% tags=["remove-input", "timing"]
mimic = {place: passes(place, MIMIC, N_MIMIC) for place in PLACES.index}
limits = {place: found["bottleneck"] for place, found in mimic.items()}
told = listed(f"“{limit}” on the {place}" for place, limit in limits.items())
moves = "All three wait for the same step; money spent on any other is lost."
if len(set(limits.values())) > 1:
    moves = "A faster machine does not remove the bottleneck, it moves it to "
    moves += "the next step, and the next machine should be bought for that."
say(f"""
These are twelve passes with {START:.0f} seconds to start each, which is all
that few films need. For the films of MIMIC-CXR the limit is {told}. {moves}
{{numref}}`fig-scale-hours` shows the same for any number of films: where a
line is flat, starting the passes takes longer than the films.
""")

# %% [markdown]
# ## One million films
#
# Where the limit of a GPU host is "decode" or "prepare", the GPU waits for
# films. How many cores does it need? The two times of {eq}`eq-scale-pass` are
# equal at $C / D = (d + \sum_m p_m) / \sum_m e_m$ cores a device. (An assumed
# share of the peak flatters convolutional networks most; with a slower GPU,
# fewer cores do.)

# %% tags=["hide-input", "timing"]
decode = films["decode"][MIMIC]
needed = plan.cores_a_device(work(MIMIC, device_rate), decode)
table = pd.DataFrame(
    {
        "10^9 operations an image": operations / 1e9,
        "images a second, one GPU": device_rate / operations,
        "decode and prepare, ms of a core": 1000 * (decode + prepare[MIMIC]),
        "cores to keep it busy": needed,
    }
)
whole = ["images a second, one GPU", "cores to keep it busy"]
table[whole] = table[whole].map("{:,.0f}".format)
show(
    table.rename_axis("model"),
    f"Films like those of MIMIC-CXR; GPU at {share} of its peak, {how}",
    digits=1,
    counts=(),
)

# %% tags=["remove-input", "timing"]
ends = [needed.idxmin(), needed.idxmax()]
least, most = (f"{needed[name]:,.0f} ({name})" for name in ends)
reading = len(ELEVEN) * decode + films["check"][MIMIC]
part = reading / (reading + prepare[MIMIC].sum())
say(f"""
From {least} to {most}; the host has {host_cores}. Of the work of the cores,
{percent(part)} is reading the same films again and again (with the check), and
{percent(1 - part)} is resizing them for eleven models. Two remedies cost no
hardware. *One pass for all models* decodes a film once. *Smaller films*,
stored once at {SIZES[NIH][0]:,} pixels, as NIH distributes them, have fewer
pixels to decode and to resize; but other pixels give other embeddings, so that
must be a declared step of the preprocessing, and its effect be measured,
before anyone compares AUCs.
""")

# %% tags=["hide-input", "timing"]
decode = films["decode"][NIH]
busy = plan.cores_a_device(work(NIH, device_rate), decode, together=True)
busy = int(np.ceil(busy.iloc[0]))
NOW, TWO = "as the code stands", "a second GPU"
ALL, BOTH = "one pass for all models", "one pass, smaller films"
STEPS = {
    NOW: (MIMIC, False, {}),
    TWO: (MIMIC, False, {"devices": 2}),
    ALL: (MIMIC, True, {}),
    f"films of {SIZES[NIH][0]:,} pixels": (NIH, False, {}),
    BOTH: (NIH, True, {}),
    f"that, and {busy} cores": (NIH, True, {"cores": busy}),
}
steps = pd.DataFrame(
    {
        step: passes(HOST, kind, MILLION, together, **other)
        for step, (kind, together, other) in STEPS.items()
    }
).T
times = steps["hours"].map(duration)
show(
    pd.DataFrame({"time": times, "limit": steps["bottleneck"]}),
    "A million films, eleven models, one GPU host",
)

# %% tags=["hide-input", "timing"]
CORES = np.unique(np.geomspace(2, 2048, 21).astype(int))
by_cores = pd.DataFrame(
    [
        {"change": step, "cores": c}
        | passes(HOST, kind, MILLION, together, cores=int(c))
        for step, (kind, together, _) in STEPS.items()
        if step in (NOW, ALL, BOTH)
        for c in CORES
    ]
)
label = "CPU cores beside one GPU"
fig = plots.bottlenecks(by_cores, x="cores", line="change", xlabel=label)
fig.axes[0].axvline(host_cores, color="#888888", lw=1, ls="--")
figure(
    "fig-scale-cores",
    "A million films on one GPU, by the cores beside it. Where a line runs "
    "flat, more cores buy nothing. Vertical line: the cores of the host.",
)

# %% tags=["remove-input", "timing"]
quiz(
    "A GPU host is too slow, and the money is enough for a second GPU. When "
    "does it help?",
    {
        "Always: the GPU does most of the arithmetic": (
            False,
            "Arithmetic that is done side by side with something slower costs "
            "no time.",
        ),
        "When the limit is to encode": (
            True,
            f"Here the limit is to {steps['bottleneck'][NOW]}: {times[NOW]} "
            f"with one GPU, {times[TWO]} with two.",
        ),
        "When the films are large": (
            False,
            "Large films take longer to read and decode, which a GPU does not "
            "do here.",
        ),
    },
)

# %% [markdown]
# In {numref}`fig-scale-cores`, the dots say what each further core still buys.
# Where a line turns flat, its colour changes: from there on something else
# limits, and the next core is lost. The lines end at different heights: who
# reads and decodes a film once a model pays for it once a model, on whatever
# machine.
#
# Then the files. A folder with a million single films is slow to list and to
# copy, on most shared file systems; a thousand archives of a thousand films
# (tar, or Parquet with the bytes in a column) are read from front to back.
# Without that, a plan that says "decode" can in truth be waiting for a
# directory to answer. The stores of eleven models come on top:

# %% tags=["hide-input"]
LARGE = 2**16
options = {"row_bytes": beside + NAME[MIMIC]}
rows = []
for n in (N_MIMIC, MILLION, HUNDRED):
    for shard, dtype in ((ROWS, "float32"), (LARGE, "float16")):
        sizes = {"rows_per_shard": shard, "dtype": dtype, **options}
        found = plan.stores(WIDTHS, n, **sizes)
        rows.append((n, shard, dtype, *found.values()))
columns = ["films", "images a shard", "numbers", "stores", "files"]
columns += ["largest file", "images lost in a crash"]
stores = pd.DataFrame(rows, columns=columns)
stores.insert(1, "of bytes", 1e6 * films["MB"][MIMIC] * stores["films"])
in_bytes = ["of bytes", "stores", "largest file"]
whole = stores.columns.difference([*in_bytes, "numbers"])
shown = stores.assign(**stores[in_bytes].map(size))
shown[whole] = stores[whole].map("{:,}".format)
show(shown, "Stores of eleven models, by shards and numbers")

# %% tags=["remove-input"]
error = np.linalg.norm(half.vectors() - small.vectors(), axis=1).max()
of_films = stores["stores"][2] / stores["of bytes"][2]
say(f"""
They have {percent(of_films, 1)} of the bytes of the films. Larger shards are
fewer files, and a crash costs more. Half precision, `dtype="float16"`, halves
the stores; on the small store, vectors of length 1 move by {error:.0e} at
most. A ranking changes only where two films are that close to each other.
""")

# %% [markdown]
# ## A hundred million films
#
# No public collection comes near; the archives of a whole country might. But
# our code would not get there, and this is the place to say so. For one cohort
# and one model with the widest embeddings it keeps in memory:

# %% tags=["hide-input"]
table_bytes = cohort.table.memory_usage(deep=True).sum() / n_images
held = {
    f"{n:,}": plan.memory(
        max(WIDTHS), n, table_bytes=table_bytes, id_characters=NAME[MIMIC]
    )
    for n in (n_images, N_MIMIC, MILLION, HUNDRED)
}
columns = {"table": "cohort's table", "names": "sorted names"}
columns |= {"embeddings": "embed()"}
held = pd.DataFrame(held).T.map(size).rename(columns=columns)
show(
    held.rename_axis("films"),
    "Memory that the code of this book takes at its peak",
)

# %% tags=["remove-input", "timing"]
apart, once = (
    duration(passes(CLUSTER, MIMIC, HUNDRED, together=together)["hours"])
    for together in (False, True)
)
petabytes = HUNDRED * films["MB"][MIMIC] / 1e9
saves = HUNDRED // CHUNK
written = CHUNK * saves * (saves + 1) / 2
wide = size(HUNDRED * (4 * max(WIDTHS) + options["row_bytes"]))
say(f"""
On paper, the cluster needs {apart}. What would have to change, in the order in
which it breaks:

1. **The check of the films** keeps its results in one file, written anew after
   every {CHUNK:,} films. The rows written grow with the square of the films:
   {CHUNK * 1000 * 1001 / 2 / 1e6:,.0f} million at a million,
   {written / 1e12:.1f} million million at a hundred million. It needs parts,
   as the store has them.
2. **Films are decoded once a model.** With the check, that reads
   {(len(ELEVEN) + 1) * petabytes:.1f} PB. One pass for all models, the check
   in it, would read {petabytes:.2f} PB; with a check of its own, the plan
   shrinks from {apart} to {once}. This is the first thing to change, and worth
   it at a million already.
3. **The cohort is one table in memory, and its fingerprint one sort over all
   rows.** At this size a cohort is a catalogue: a table of tables, each part
   with a hash of its own, and the fingerprint a hash of hashes. An added month
   of films then changes one part, not the name of everything.
4. **`embed()` returns all embeddings at once.** Whoever learns from them
   should go shard by shard, which `Store.tables` offers; so should the search
   for broken images, which reads a whole store ({wide} here) at each call.
5. **A store is one folder**, {-(-HUNDRED // ROWS):,} files of the default
   size, listed whenever a process looks for what is missing, with locks that a
   file system must honour. An object store has no such locks and lists slowly.
   Shards of {LARGE:,} rows, folders by the first digits, and a catalogue of
   what is done take their place; "write if it is not there yet" is the lock
   that object stores do have.

None of it touches what makes a store trustworthy: content in the name, one
step a file, one manifest that refuses another model.
""")

# %% [markdown]
# ## Many GPUs, many machines
#
# Embeddings are made by processes that share one folder, the store. Each takes
# shards that nobody else has, and writes them in one step. Such processes are
# started by the queue of a cluster, or by Ray. Neither changes the embeddings
# (less than a millionth of their length).
#
# One machine with several GPUs needs one command, and so does an allocation of
# Slurm:
#
# ```bash
# cxrbook embed --data nih -m biovil --device cuda --engine ray
# ```
#
# What happens when something dies:
#
# - **A process**: what it had stored is kept. Its other shards go to another
#   process, and a new one is started in its place.
# - **A machine**: the same, once Ray has noticed.
# - **The command**, or the machine it runs on: the same command goes on from
#   there.
# - **Other versions** on a machine, or a folder that is not shared: refused
#   before anything is computed, with the machine's name.
#
# How to start it under Slurm, with or without Ray, and which file systems keep
# the promises that a store needs: [many GPUs, many machines](../cluster.md).
#
# ## Limits
#
# - The plan assumes that reading, preparing and encoding overlap perfectly,
#   and that storage gives what it is declared to give, to everybody at once.
#   Real clusters do neither.
# - One network was timed here, on one core; the others are assumed to be as
#   efficient. Convolutional networks seldom are.
# - Made-up films weigh what real ones weigh on average; a real archive has
#   thick ones too.
# - Prices are declared, and leave out the people who do the work.

# %% tags=["remove-input", "timing"]
in_short(
    f"""
All of MIMIC-CXR by eleven models takes {duration(mimic[LAPTOP]["hours"])} on a
laptop and {duration(mimic[HOST]["hours"])} on one GPU host (at a price of
{mimic[HOST]["cost"]:,.0f}), by the plan. The limit is {told}. A GPU wants from
{least} to {most} cores beside it for such films. A million of them take a host
{times[NOW]}; with a second GPU {times[TWO]}; with one pass for all models and
smaller films {times[BOTH]}.
""",
    figure="fig-scale-hours",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-scale-crossing
# How many cores must a machine without a GPU have to do as well as the GPU
# host above on MIMIC-CXR? Use `passes` with `devices=0`.
# ```

# %% [markdown]
# ````{solution-start} ex-scale-crossing
# :class: dropdown
# ````

# %% tags=["timing"]
without = {
    c: passes(HOST, MIMIC, N_MIMIC, devices=0, cores=c)["hours"]
    for c in (16, 64, 256, 1024)
}
show(
    pd.Series(without, name="time").map(duration).to_frame(),
    "MIMIC-CXR, eleven models, without a GPU; the GPU host takes "
    f"{duration(mimic[HOST]['hours'])}",
)

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-scale-price
# The price is a parameter, and so are the hosts. Predict what
# `cxrbook run 20 -p n_hosts=8` changes in the table of times: which places,
# and does the price of the cluster rise or fall? Then run it.
# ```
#
# ```{solution} ex-scale-price
# :class: dropdown
# Only the column of the cluster changes. With an eighth of the hosts, what is
# limited by cores or devices takes eight times as long and costs the same,
# since time and hosts multiply. Only two things do not shrink with hosts: the
# start of each pass, and the storage, which is declared for the whole cluster.
# Where one of them was the limit, fewer hosts wait less, and the price falls.
# ```
#
# ```{exercise}
# :label: ex-scale-buy
# The GPU host is to embed a million films, as the code stands. Three offers
# have the same price: a second GPU; twice the cores; storage that is twice as
# fast. Which one shortens the work, and by how much at most? Look at the limit
# first, then check with `passes(HOST, MIMIC, MILLION, cores=...)`.
# ```
#
# ```{solution} ex-scale-buy
# :class: dropdown
# Only the offer for whatever limits; the two others change nothing at all.
# Twice of it halves the time at most, and less where the next limit is near:
# the time falls until another of the three terms of {eq}`eq-scale-pass` is the
# largest. Where the limit is "decode" or "prepare", the offer to take is the
# cores, and one pass for all models costs nothing and does more.
# ```
#
# ## Further reading
#
# - {cite:t}`williams2009`: a picture that says what limits a computation,
#   before anything is bought.
# - {cite:t}`amdahl1967`: the part that does not speed up decides; the argument
#   behind every bottleneck here.
# - {cite:t}`moritz2018`: the design of Ray.
