# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - keep embeddings so that no crash, damage or other model spoils them
#     - time the steps between a file and its embedding
#     - read a benchmark beside its machine, its date and its aim
#     needs:
#     - 02_zero_shot
# ---

# %% [markdown]
# # From laptop to cluster
#
# *Goes beyond both papers. The code of {cite:t}`sourget2025`, paper S, encodes
# every film again for each finding and keeps what it finds in lists in memory;
# {cite:t}`sun2025`, paper X, works with
# {published}`X Section 2.1; each disease; n_images` films a disease.*
#
# A hospital wants to know whether a new model treats its patients fairly. The
# audit of this book answers that, and the next model, the next hospital and
# the next version of the software each ask again. If an audit takes an
# afternoon, it will be run. If it takes six weeks, somebody will decide that
# it was done last year, and the patients whom the new version serves worse
# will not appear in any table.
#
# What takes the time is a single step: every film goes through every encoder
# once. All that follows, every table and figure of this book, is arithmetic on
# the embeddings. **How are embeddings kept so that no accident spoils them,
# and what does it cost to make them?** What a million films would take is
# reckoned in [the plan on paper](20_planning).
#
# ```{note}
# Three kinds of numbers stand on this page. What happens to the small store is
# *computed* and the same each time. Seconds are *timed* while the page is made
# and differ from run to run. What took long was *recorded* earlier, with
# machine and date.
# ```

# %% tags=["parameters"]
n_images: int = 400  # [40, 100000] phantoms in the store that is made live
seed: int = 1907  # [0, 1000000] of the phantom cohort and of made-up films

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts.files import DataError
from cxrlib.embed import plan, rates
from cxrlib.embed.extract import extract
from cxrlib.embed.store import ROWS, StoreError
from cxrlib.models import load_model, published_models
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show
from cxrlib.show.say import in_short, say
from cxrlib.show.words import listed, percent

# %% [markdown]
# ## A store that survives
#
# Long work is interrupted work: a cable, a full disk, a colleague who needs
# the machine. Embeddings therefore go into a *store*: a folder of Parquet
# files, called shards, each with so many images. A shard is written in one
# step and never changed: first under another name, then renamed, which a file
# system does entirely or not at all. Whatever happens, what is there is whole.
# Here is one, small enough to watch.

# %%
cohort = cohorts.load("phantom", n_images=n_images, seed=seed)
model = load_model("phantom-resnet")
rows = max(1, n_images // 8)
scratch = tempfile.TemporaryDirectory()
whole = extract(
    cohort, model, Path(scratch.name) / "whole", rows_per_shard=rows
)
kept = whole.present()
shards = [(p.name, p.stat().st_size / 1000) for p in kept.values()]
listing = pd.DataFrame(shards, columns=["file", "KB"])
listing["images"] = [len(whole.rows(shard)) for shard in kept]
show(listing, "The shards of a small store", digits=1)

# %% [markdown]
# The number in a file name is that of the shard; what follows is the start of
# the SHA-256 of its content, so a name that fits is a proof of the bytes
# behind it. Beside the shards lies a manifest: which cohort, which weights,
# which preprocessing, by their hashes.
#
# Nobody needs this book to read a store. With pandas it is one table:

# %%
table = pd.read_parquet(whole.folder)
few = table.head(3).assign(
    embedding=[f"{v[0]:.4f}, {v[1]:.4f}, ..." for v in table["embedding"][:3]]
)
show(few, "A store as pandas reads it")

# %% tags=["remove-input"]
row_bytes = 1000 * listing["KB"].sum() / n_images
beside = row_bytes - 4 * model.embed_dim
say(f"""
The column `problem` is empty for these; where an image has no embedding, it
says why. An image takes {row_bytes:.0f} bytes here: {model.embed_dim} numbers
in single precision, and {beside:.0f} bytes for its name and the rest.
""")

# %% [markdown]
# Polars and DuckDB read the same folder, the latter with SQL:
#
# ```python
# polars.read_parquet("store/*.parquet")
# duckdb.sql("""SELECT image_id, problem FROM 'store/*.parquet'
#               WHERE embedding IS NULL""")
# ```
#
# ### The power goes
#
# Now the same again, and in the midst of the third shard the power goes. The
# cohort is wrapped so that it notes which images are asked for.


# %% tags=["hide-input"]
class PowerCut(BaseException):
    """No `Exception`: those are taken for a broken film, and noted."""


def noting(read, last=None, broken=()):
    """The cohort, noting in a list which images are read; the power goes
    with more than `last`, and films that are `broken` cannot be read."""

    def images(positions):
        read.extend(positions)
        if last is not None and len(read) > last:
            raise PowerCut
        for image in cohort.table["image_id"].iloc[positions]:
            if image in broken:
                raise DataError(f"{image}: damaged or cut off")
        return cohort.images(positions)

    return replace(cohort, images=images)


# %%
folder = Path(scratch.name) / "store"
before, after = [], []
try:
    cut = noting(before, last=2 * rows)
    extract(cut, model, folder, rows_per_shard=rows)
except PowerCut:
    there = len(list(folder.glob("*.parquet")))
store = extract(noting(after), model, folder)
apart = float(np.abs(store.vectors() - whole.vectors()).max())

# %% tags=["remove-input"]
again = len(before) + len(after) - n_images
differs = "not at all" if apart == 0 else f"by {apart:.0e} at most"
say(f"""
After the cut, {there} shards were there. The second call read the other
{len(after):,} images, so {again:,} were computed twice: those of the shard in
progress. From the uninterrupted store the result differs {differs}. By default
a shard has {ROWS:,} images; that is what a crash costs.
""")

# %% [markdown]
# ### A flipped byte, a broken film, another model
#
# Disks forget. One bit of one shard is turned over, and the store is read:


# %% tags=["hide-input"]
def told(error):
    """An error's message, without the temporary folder of this run."""
    text = str(error).replace(f"{scratch.name}/", "")
    say(f"```text\n{textwrap.fill(text, 78)}\n```")


# %%
path = store.present()[1]
data = bytearray(path.read_bytes())
data[len(data) // 2] ^= 1
path.write_bytes(data)
flip_found = False
try:
    store.vectors()
except StoreError as error:
    flip_found = True
    told(error)

# %% [markdown]
# So the file goes, and the extraction runs again. Meanwhile, a film of this
# shard has become unreadable:

# %%
path.unlink()
victim = whole.image_ids()[rows]  # the first of the second shard
read, mended = [], []
store = extract(noting(read, broken=[victim]), model, folder)
table = pd.read_parquet(store.folder)
problems = table.loc[table["problem"] != "", ["image_id", "problem"]]
show(problems.reset_index(drop=True), "Images without an embedding")
store = extract(noting(mended), model, folder)

# %% tags=["remove-input"]
read, mended = set(read), set(mended)
say(f"""
The damaged shard alone was computed again ({len(read):,} images). The broken
film is in the store with its reason: a film that vanishes without a word would
change who is studied. Once the film is mended, the next call notices, does its
shard anew ({len(mended):,} images), and {len(store.problems()) or "none"} is
left without an embedding. If more than one film in a hundred is broken, the
extraction stops instead: that is a disk, no film.
""")

# %% [markdown]
# The worst error is the silent one, two models in one table. So one more try,
# another model into this folder:

# %%
other_found = False
try:
    extract(cohort, "phantom-vit", folder)
except StoreError as error:
    other_found = True
    told(error)

# %% [markdown]
# ### What was planted, and was it found?
#
# Four faults were planted. What the store made of them:

# %% tags=["hide-input"]
survived = there == 2 and apart == 0
named = list(problems["image_id"]) == [victim]
faults = pd.DataFrame(
    [
        ("the power goes", survived, f"{again:,} images computed twice"),
        ("a flipped bit", flip_found, f"{len(read):,} images computed again"),
        ("a broken film", named, "one film, with its reason"),
        ("another model", other_found, "nothing: refused"),
    ],
    columns=["planted", "found or mended", "what it cost"],
)
n_found = faults["found or mended"].sum()
faults["found or mended"] = np.where(faults["found or mended"], "yes", "NO")
show(faults, "Planted faults")

# %% tags=["remove-input"]
say(f"""
Found or mended: {n_found} of {len(faults)}. The four have one thing in common:
without a store that looks for them, none would have stopped anything. A table
with half the films, with one altered number in a million, or with two models
in it gives an AUC as readily as a sound one does, and nobody doubts an AUC
that looks reasonable.
""")

# %% tags=["remove-input"]
quiz(
    "An extraction of a million films stopped after six days. A colleague "
    "wants to start it again from the beginning, to be safe. What do you say?",
    {
        "Yes: one cannot know what is in the files": (
            False,
            "The name of a shard holds the hash of its bytes, and the "
            "manifest the hashes of cohort, weights and preprocessing.",
        ),
        "No: the same command goes on, and loses the shards in progress": (
            True,
            f"Above, {again:,} of {n_images:,} images were computed twice, "
            "and the result was the same.",
        ),
    },
)

# %% [markdown]
# ## What it costs on the machine at hand
#
# Between a file and its embedding lie three steps. *Decode*: from the bytes of
# a PNG or JPEG to pixels. *Prepare*: resize, crop and standardise, as the
# authors of the model did. *Encode*: the network. Below they are timed on the
# machine that made this page, in processor seconds of one core, best of a few
# runs. Processor seconds, and not those of a clock: a colleague's program
# beside it should not count, and processor seconds add up, over cores and over
# films. **Timings differ from run to run**; everything above is the same each
# time.

# %% tags=["timing"]
films = np.arange(min(n_images, 64))
drawn = cohort.images(films)
ready = model.preprocess(drawn)
steps = {
    "render (in place of decode)": lambda: cohort.images(films),
    "prepare": lambda: model.preprocess(drawn),
    "encode": lambda: model.image_vectors(ready),
}
seconds = pd.Series({s: rates.core_seconds(do) for s, do in steps.items()})
show(
    (1000 * seconds / len(films)).rename("ms an image").to_frame(),
    f"phantom-resnet on phantoms of {drawn.shape[1]} pixels, one core of this "
    "machine",
    digits=3,
)

# %% [markdown]
# Real films are larger. Here are two of the size and weight of NIH's PNGs and
# MIMIC-CXR-JPG's JPEGs: phantoms, enlarged, with noise until their files are
# as large as the real ones are on average. They are decoded, and prepared for
# each of the eleven models of the papers. A cohort on disk also pays for a
# *check*: before any model sees it, each film is read once, hashed, and
# refused if it is broken.

# %% tags=["timing"]
read, prepare = rates.of_films(cohort, published_models(), seed)
in_ms = 1000 * read[["check", "decode"]]
in_ms["prepare, least"] = 1000 * prepare.min()
in_ms["prepare, most"] = 1000 * prepare.max()
in_ms["prepare for all"] = 1000 * prepare.sum()
weights = read[["MB", "made", "megapixels"]]
of_real = weights.join(in_ms.add_suffix(", ms")).drop(rates.PHANTOM)
show(
    of_real.rename(columns={"MB": "real, MB", "made": "ours, MB"}),
    "One film on one core of this machine; the least and the most of eleven "
    "models",
    digits=1,
)

# %% [markdown]
# And the networks? Their work can be *counted* without running them: every
# multiplication with its addition is two operations. One of them, the ViT-B/32
# of CheXzero, is run here, with zeros for weights, since time does not depend
# on their values. That gives operations a second of one core. For the ten
# others we **assume** the same rate.

# %% tags=["timing"]
operations = plan.operations()
vit_b32 = rates.of_vit_b32()
core_rate = operations["chexzero"] / vit_b32

# %% tags=["remove-input", "timing"]
ends = [operations.idxmin(), operations.idxmax()]
least, most = (f"{name} ({operations[name] / 1e9:.0f})" for name in ends)
say(f"""
An image takes {1000 * vit_b32:.0f} ms in this network, so a core does
{core_rate / 1e9:.0f} billion operations a second. In billions of operations an
image, the models run from {least} to {most}; all eleven together take
{operations.sum() / 1e9:.0f}, of which the largest alone has
{percent(operations.max() / operations.sum())}.
""")

# %% [markdown]
# ## What was measured at length
#
# `benchmarks/embeddings.py` takes longer than a page should. It writes what it
# found to a table beside it, which is shown here with the machine and the day
# it was made on. What needs a GPU is measured by `make gpu-check`. What needs
# a machine that was not at hand says so.

# %%
recorded = plan.recorded()
show(
    plan.overview(recorded),
    "The parts of benchmarks/embeddings.py, and of make gpu-check",
)

# %% [markdown]
# Every number, if you want to see it:

# %% tags=["hide-cell"]
parts = {part: schema.rows(recorded, part=part) for part in plan.PARTS}
for part, rows in parts.items():
    if len(rows):
        by = [*rows["model"].dropna().unique(), plan.measured_on(rows)]
        show(plan.as_printed(rows), f"{part}: {'; '.join(by)}")

# %% [markdown]
# ### Against the way of S
#
# S's code goes through all films once a finding, and once more, one by one,
# for the embeddings. It was written anew for this comparison, from its
# description.

# %% tags=["hide-input"]
WAYS = {
    "per label": "as S's code works",
    "per label, encoded once": "as S's code, but encoding once",
    "once": "one extraction, this book",
}
spent = schema.rows(parts["pipeline"], unit="s", way=list(WAYS))
each = plan.an_image(spent).replace({"way": WAYS})
plots.bars(each, x="films", hue="way")
figure(
    "fig-scale-pipeline",
    "Six findings and the embeddings, by the way of S's code and by one "
    "extraction: the same numbers in the end. Lines: fastest and slowest "
    "round.",
    table=spent,
)


# %% tags=["remove-input"]
AIMED = 6  # times faster than S's way
times = schema.rows(parts["pipeline"], way="per label / once")
aim = "met" if (times["value"] >= AIMED).all() else "not met"
encoding = schema.rows(parts["pipeline"], way="of it, encoding again")
rest = "of it, decoding again and the rest"
rest = schema.rows(parts["pipeline"], way=rest)
against_s = plan.at_sizes(times)
say(f"""
One extraction gives the same numbers; the way of S takes a multiple of its
time, {against_s}. The aim, {AIMED} times or more, is {aim}. Encoding again
makes a factor of {plan.at_sizes(encoding)}; decoding again, and the rest, of
{plan.at_sizes(rest)}.

Most of the multiple is work that was done before and forgotten. Nobody decides
to encode a film seven times; it comes of a loop over findings around a loop
over films. Turning the two round costs nothing, and gives more than a second
machine would.
""")

# %% [markdown]
# ### Can it be faster still?
#
# On a CPU, decoding and encoding compete for the same cores. A bare loop,
# which only runs the encoder on tensors that are ready in memory, is what no
# extraction can reach.

# %% tags=["remove-input"]
HIDDEN = 1.1  # times as long as the encoder alone
ratios = schema.rows(parts["bound"], unit="x")
ratios = ratios[ratios["way"].str.startswith("extract")]
best = ratios.loc[ratios.groupby("film_pixels")["value"].idxmin()]
reached = f"{(best['value'] <= HIDDEN).sum()} of {len(best)} sizes"
busy = schema.rows(parts["bound"], way="all cores always busy / bare loop")
say(f"""
Our extraction, with all decoding and storing, takes
{plan.at_sizes(best, 2)} times as long. The aim, {HIDDEN} or less, is met at
{reached}. With all cores always busy it would be {plan.at_sizes(busy, 2)}: the
larger the film, the more decoding there is to hide, and on a CPU it can hide
behind nothing but the encoder itself.
""")

# %% [markdown]
# ### And memory, with more and more images?

# %% tags=["hide-input"]
WHAT = {"peak above memory before": "MB", "steady rate": "images/s"}
TITLES = "peak memory, less that before the start", "speed, once it is running"
fig, axes = plt.subplots(2, 1, figsize=(4, 4.5), sharex=True)
for axis, title, (way, unit) in zip(axes, TITLES, WHAT.items(), strict=True):
    grown = schema.rows(parts["memory"], way=way).sort_values("n_images")
    axis.plot(grown["n_images"], grown["value"], "o-", color="#0072B2")
    axis.set(xscale="log", ylabel=unit, ylim=(0, 1.25 * grown["value"].max()))
    axis.set_title(title, loc="left")
axes[1].set_xlabel("images")
figure(
    "fig-scale-memory",
    "Memory at its peak and speed of one extraction, by its number of images "
    "(phantoms, phantom-resnet).",
    alt="Two panels over the number of images on a logarithmic axis: memory "
    "at the peak, and images a second.",
    table=parts["memory"],
)

# %% tags=["remove-input"]
peak = schema.rows(parts["memory"], way=next(iter(WHAT))).sort_values(
    "n_images"
)
few, *_, many = (
    f"{mb:,.0f} MB with {n:,.0f} images"
    for mb, n in zip(peak["value"], peak["n_images"], strict=True)
)
last, rate = (
    schema.row(parts["memory"], way=f"last / first tenth: {what}")["value"]
    for what in ("memory", "rate")
)
absent = listed(part for part, rows in parts.items() if rows.empty)
say(f"""
At its peak, above that of the idle process, it is {few} and {many}, of which
names and table rows of the cohort are a part. From the first tenth of the
largest run to its last, memory changes by a factor of {last:.2f}, and speed by
one of {rate:.2f}. Parts without a record: {absent}.
""")

# %% [markdown]
# ## Limits
#
# - One network was timed here, on one core; the others are assumed to be as
#   efficient. Convolutional networks seldom are.
# - Made-up films weigh what real ones weigh on average; a real archive has
#   thick ones too.
# - Recorded numbers are those of one machine.
# - A store proves that its bytes are those that were written. It cannot prove
#   that the film was of the right patient.

# %% tags=["remove-input"]
in_short(
    f"""
Embeddings are computed once and kept in files that anyone can read. Of
{len(faults)} planted faults the store found or mended {n_found}: a crash costs
one shard, a flipped bit is found, another model is refused. On this machine a
film like those of MIMIC-CXR takes {1000 * read["decode"][rates.MIMIC]:.0f} ms
to decode and {1000 * vit_b32:.0f} ms in a ViT-B/32. The way of paper S, which
encodes each film once a finding, takes a multiple of the time, {against_s}.
""",
    figure="fig-scale-pipeline",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-scale-findings
# In {numref}`fig-scale-pipeline`, six findings are asked for. What would the
# bars be with fourteen, by the way of S's code and by one extraction?
# ```
#
# ```{solution} ex-scale-findings
# :class: dropdown
# The way of S encodes each film once a finding and once more for its
# embedding: seven times becomes fifteen, and its bar about doubles. One
# extraction stays as it is. More findings are more texts, and a text is
# encoded once for all films.
# ```
#
# ```{exercise}
# :label: ex-scale-shard
# A process is killed once an hour, at a random moment, and encodes 500 images
# a second. What share of its work is lost with shards of 1,024 and of 65,536
# images?
# ```
#
# ```{solution} ex-scale-shard
# :class: dropdown
# On average half a shard is lost with each kill: 512 of 1.8 million images an
# hour, 0.03 %, or 32,768, 1.8 %. With one image a second on a laptop CPU the
# large shard would never be done: it takes 18 hours. Shards should take
# minutes, whatever the machine.
# ```
#
# ```{exercise}
# :label: ex-scale-hash
# File names carry 16 hexadecimal digits of a SHA-256. How likely is it that a
# damaged shard passes the check? And that any two of a hundred thousand shards
# share a name by chance?
# ```
#
# ```{solution} ex-scale-hash
# :class: dropdown
# 16 digits are 64 bits: damaged bytes pass with probability $2^{-64}$, about 5
# in $10^{20}$. Among $n$ shards there are $n (n - 1) / 2$ pairs,
# $5 \times 10^9$ of them, so two agree with probability $3 \times 10^{-10}$;
# and even then nothing is lost, because the number of the shard stands before
# the hash.
# ```
#
# ## Further reading
#
# - {cite:t}`mohan2021`: how often GPUs wait for data, measured, and what
#   helps.
# - {cite:t}`johnson2019`: what MIMIC-CXR holds, and how it came about.
