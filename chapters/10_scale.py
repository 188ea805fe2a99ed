# ---
# jupyter:
#   chapter:
#     answers: {}
#     goals:
#     - keep embeddings so that a crash, a damaged file or another model cannot spoil
#       them in silence
#     - say what limits an extraction on a given machine, and what to buy or change
#     - estimate the time and the price of an audit from a few measured rates
#     needs:
#     - 02_zero_shot
# ---

# %% [markdown]
# # From laptop to cluster
#
# *Goes beyond both papers. The code of {cite:t}`sourget2025`, paper S, encodes every film again for each
# finding and keeps what it finds in lists in memory; {cite:t}`sun2025`, paper X, works with
# {published}`X Section 2.1; each disease; n_images` films a disease.*
#
# A hospital wants to know whether a new model treats its patients fairly. The audit of this book answers
# that, and the next model, the next hospital and the next version of the software each ask again. If an
# audit takes an afternoon, it will be run. If it takes six weeks, somebody will decide that it was done
# last year, and the patients whom the new version serves worse will not appear in any table.
#
# What takes the time is a single step: every film goes through every encoder once. All that follows, every
# table and figure of this book, is arithmetic on the embeddings. So what does it take to embed
# {glue:text}`n-phantoms` phantoms, the {published}`S Section 2.3; nih-cxr14; n_images` films of NIH, the
# {glue:text}`n-mimic` of MIMIC-CXR, a million, a hundred million, by each of the {glue:text}`n-models` models
# of the papers? And what breaks first?
#
# ```{note}
# Four kinds of numbers stand on this page. What happens to the small store is *computed* and the same each
# time. Seconds are *timed* while the page is made and differ from run to run, and so does the plan that is
# reckoned from them. What took long was *recorded* earlier, with machine and date. Sizes of machines and
# prices are *declared*. Each table says which.
# ```

# %% tags=["parameters"]
n_images: int = 400  # [40, 100000] phantoms in the store that is made live
seed: int = 1907  # [0, 1000000] seed of the phantom cohort and of made-up films
price: float = 4.0  # [0, 1000000] of a host with one GPU, an hour, in any currency
n_hosts: int = 64  # [1, 100000] hosts of the cluster
host_cores: int = 16  # [1, 10000] CPU cores of a host
device_tflops: float = 989.0  # (0, 1000000] peak of a GPU in bfloat16, 10^12 operations a second
device_share: float = 0.3  # (0, 1] ASSUMED share of that peak, used where no GPU was measured

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from PIL import Image

from cxrlib import cohorts
from cxrlib.book.chapters import find_root
from cxrlib.cohorts import films
from cxrlib.cohorts.files import DataError
from cxrlib.embed import plan as scale
from cxrlib.embed.extract import extract
from cxrlib.embed.store import ROWS, StoreError
from cxrlib.models import load_model, model_card, published_models
from cxrlib.models.images import each
from cxrlib.models.registry import recipe
from cxrlib.show.notebook import figure, glue, quiz, setup, show
from cxrlib.show.words import fmt, percent

setup()
ELEVEN = published_models()
WIDTHS = [model_card(name)["embed_dim"] for name in ELEVEN]
N_MIMIC, MILLION, HUNDRED = (
    377_110,
    10**6,
    10**8,
)  # films of MIMIC-CXR-JPG, and of larger collections
PART_COLOUR = {
    "start": "#888888",
    "read": "#CC79A7",
    "write": "#882255",
    "decode": "#E69F00",
    "prepare": "#009E73",
    "encode": "#0072B2",
}

# %% [markdown]
# ## A store that survives
#
# Long work is interrupted work: a cable, a full disk, a colleague who needs the machine. Embeddings
# therefore go into a *store*: a folder of Parquet files, called shards, each with so many images. A shard
# is written in one step and never changed. Whatever happens, what is there is whole. Here is one, small
# enough to watch.

# %%
cohort = cohorts.load("phantom", n_images=n_images, seed=seed)
model = load_model("phantom-resnet")
rows = max(1, n_images // 8)
scratch = tempfile.TemporaryDirectory()
whole = extract(cohort, model, Path(scratch.name) / "whole", rows_per_shard=rows)
listing = pd.DataFrame(
    [
        {"file": path.name, "KB": path.stat().st_size / 1000, "images": len(whole.rows(shard))}
        for shard, path in whole.present().items()
    ]
)
show(listing, caption="The shards of a small store", digits=1)

# %% tags=["remove-cell"]
on_disk = sum(path.stat().st_size for path in whole.present().values())
row_bytes = on_disk / n_images - 4 * model.embed_dim
glue("n-mimic", f"{N_MIMIC:,}")
glue("n-models", str(len(ELEVEN)))
glue("default-rows", f"{ROWS:,}")
glue("width", model.embed_dim)
glue("bytes-a-row", fmt(on_disk / n_images, 0))
glue("bytes-beside", fmt(row_bytes, 0))

# %% [markdown]
# The number in a file name is that of the shard; what follows is the start of the SHA-256 of its content,
# so a name that fits is a proof of the bytes behind it. Beside the shards lies a manifest: which cohort,
# which weights, which preprocessing, by their hashes.
#
# Nobody needs this book to read a store. With pandas it is one table:

# %%
table = pd.read_parquet(whole.folder)
few = table.head(3).assign(
    embedding=[f"{v[0]:.4f}, {v[1]:.4f}, ..." for v in table["embedding"][:3]]
)
show(few, caption="A store as pandas reads it")

# %% [markdown]
# The column `problem` is empty for these; where an image has no embedding, it says why. Polars and DuckDB
# read the same folder, the latter with SQL:
#
# ```python
# polars.read_parquet("store/*.parquet")
# duckdb.sql("SELECT image_id, problem FROM 'store/*.parquet' WHERE embedding IS NULL")
# ```
#
# An image takes {glue:text}`bytes-a-row` bytes here: {glue:text}`width` numbers in single precision, and
# {glue:text}`bytes-beside` bytes for its name and the rest.
#
# ### The power goes
#
# Now the same again, and in the midst of the third shard the power goes. The cohort is wrapped so that it
# notes which images are asked for.


# %%
class PowerCut(BaseException):
    """No `Exception`: those are taken for a broken film, noted, and the work goes on."""


def noting(read, last=None, broken=()):
    """The cohort, noting in a list which images are read; the power goes with more than `last`."""

    def images(positions):
        read.extend(positions)
        if last is not None and len(read) > last:
            raise PowerCut
        for image in cohort.table["image_id"].iloc[positions]:
            if image in broken:
                raise DataError(f"{image}: damaged or cut off")
        return cohort.images(positions)

    return replace(cohort, images=images)


folder = Path(scratch.name) / "store"
before, after = [], []
try:
    extract(noting(before, last=2 * rows), model, folder, rows_per_shard=rows)
except PowerCut:
    there = len(list(folder.glob("*.parquet")))
store = extract(noting(after), model, folder)
apart = float(np.abs(store.vectors() - whole.vectors()).max())

# %% tags=["remove-cell"]
again = len(before) + len(after) - n_images
glue("shards-there", there)
glue("n-after", f"{len(after):,}")
glue("n-again", f"{again:,}")
glue("apart", "not at all" if apart == 0 else f"by {apart:.0e} at most")

# %% [markdown]
# After the cut, {glue:text}`shards-there` shards were there. The second call read the other
# {glue:text}`n-after` images, so {glue:text}`n-again` were computed twice: those of the shard in progress.
# From the uninterrupted store the result differs {glue:text}`apart`. By default a shard has
# {glue:text}`default-rows` images; that is what a crash costs.
#
# ### A flipped byte, a broken film, another model
#
# Disks forget. One bit of one shard is turned over, and the store is read:


# %%
def said(error):
    """An error's message, without the temporary folder of this run."""
    return textwrap.fill(str(error).replace(f"{scratch.name}/", ""), 78)


path = store.present()[1]
data = bytearray(path.read_bytes())
data[len(data) // 2] ^= 1
path.write_bytes(data)
flip_found = False
try:
    store.vectors()
except StoreError as error:
    flip_found = True
    print(said(error))

# %% [markdown]
# So the file goes, and the extraction runs again. Meanwhile, a film of this shard has become unreadable:

# %%
path.unlink()
victim = whole.image_ids()[rows]  # the first of the second shard
read, mended = [], []
store = extract(noting(read, broken=[victim]), model, folder)
table = pd.read_parquet(store.folder)
problems = table.loc[table["problem"] != "", ["image_id", "problem"]].reset_index(drop=True)
show(problems, caption="Images without an embedding")
store = extract(noting(mended), model, folder)

# %% tags=["remove-cell"]
glue("n-read", f"{len(set(read)):,}")
glue("n-mended", f"{len(set(mended)):,}")
glue("healed", "none" if not store.problems() else len(store.problems()))

# %% [markdown]
# The damaged shard alone was computed again ({glue:text}`n-read` images). The broken film is in the store
# with its reason: a film that vanishes without a word would change who is studied. Once the film is mended,
# the next call notices, does its shard anew ({glue:text}`n-mended` images), and {glue:text}`healed` is left
# without an embedding. If more than one film in a hundred is broken, the extraction stops instead: that is
# a disk, no film.
#
# The worst error is the silent one, two models in one table. So one more try, another model into this
# folder:

# %%
other_found = False
try:
    extract(cohort, "phantom-vit", folder)
except StoreError as error:
    other_found = True
    print(said(error))

# %% [markdown]
# ### What was planted, and was it found?
#
# Four faults were planted. What the store made of them:

# %% tags=["hide-input"]
FOUND = {True: "yes", False: "NO"}
faults = pd.DataFrame(
    [
        ("the power goes", FOUND[there == 2 and apart == 0], f"{again:,} images computed twice"),
        ("a flipped bit", FOUND[flip_found], f"{len(set(read)):,} images computed again"),
        (
            "a broken film",
            FOUND[list(problems["image_id"]) == [victim]],
            "one film, with its reason",
        ),
        ("another model", FOUND[other_found], "nothing: refused"),
    ],
    columns=["planted", "found or mended", "what it cost"],
)
show(faults, caption="Planted faults")

# %% [markdown]
# Found or mended: {glue:text}`n-found` of {glue:text}`n-faults`.

# %% tags=["remove-cell"]
glue("n-found", str((faults["found or mended"] == FOUND[True]).sum()))
glue("n-faults", str(len(faults)))

# %% tags=["remove-input"]
quiz(
    "An extraction of a million films stopped after six days. A colleague wants to start it again from the beginning, to be safe. What do you say?",
    {
        "Yes: one cannot know what is in the files": (
            False,
            "The name of a shard holds the hash of its bytes, and the manifest the hashes of cohort, weights and preprocessing.",
        ),
        "No: the same command goes on, and loses the shards in progress": (
            True,
            f"Above, {again:,} of {n_images:,} images were computed twice, and the result was the same.",
        ),
    },
)

# %% [markdown]
# ## What it costs on the machine at hand
#
# Between a file and its embedding lie three steps. *Decode*: from the bytes of a PNG or JPEG to pixels.
# *Prepare*: resize, crop and standardise, as the authors of the model did. *Encode*: the network. Below
# they are timed on the machine that made this page, in processor seconds of one core, best of a few runs.
# **Timings differ from run to run**, and so does whatever is computed from them further down; everything
# above is the same each time.


# %% tags=["timing"]
def core_seconds(work, runs=3):
    """Processor time of the fastest of a few runs, all threads added up."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


positions = np.arange(min(n_images, 64))
rendered = cohort.images(positions)
ready = model.preprocess(rendered)
small = {
    "render (in place of decode)": core_seconds(lambda: cohort.images(positions)),
    "prepare": core_seconds(lambda: model.preprocess(rendered)),
    "encode": core_seconds(lambda: model.image_vectors(ready)),
}
small = {step: seconds / len(positions) for step, seconds in small.items()}
show(
    pd.DataFrame({"step": small.keys(), "ms an image": [1000 * s for s in small.values()]}),
    caption=f"phantom-resnet on phantoms of {rendered.shape[1]} pixels, one core of this machine",
    digits=3,
)

# %% [markdown]
# Real films are larger. Here are two of the size and weight of NIH's PNGs and MIMIC-CXR-JPG's JPEGs: phantoms,
# enlarged, with noise until their files are as large as the real ones are on average. They are decoded,
# and prepared for each of the eleven models of the papers. A cohort on disk also pays for a *check*: before
# any model sees it, each film is read once, hashed, and refused if it is broken.

# %% tags=["timing"]
FILMS = pd.DataFrame(  # MB: size of the release, divided by its films
    {
        "MB": [45e3 / 112_120, 570e3 / N_MIMIC],
        "file": ["film.png", "film.jpg"],
        "size": [(1024, 1024), (2544, 3056)],
        "noise": [1.0, 1.9],
    },
    index=["NIH, PNG", "MIMIC-CXR, JPEG"],
)


def make(film, path):
    """A phantom, enlarged, with noise, on disk."""
    large = np.asarray(Image.fromarray(rendered[0]).resize(film["size"], Image.BICUBIC))
    noise = np.random.default_rng(seed).normal(0, film["noise"], large.shape)
    Image.fromarray((large + noise).clip(0, 255).astype(np.uint8)).save(path, quality=95)


def check(path):
    kept = path.with_suffix(".parquet")  # what the check found, which would spare the next one
    kept.unlink(missing_ok=True)
    films.check(path.parent, [path.name], kept)


prepare = {}
for kind, film in FILMS.iterrows():
    path = Path(scratch.name) / film["file"]
    make(film, path)
    FILMS.loc[kind, "made MB"] = path.stat().st_size / 1e6
    FILMS.loc[kind, "check"] = core_seconds(lambda p=path: check(p), runs=2)
    FILMS.loc[kind, "decode"] = core_seconds(lambda p=path: films.read(p))
    pixels = films.read(path)
    for name in ELEVEN:
        steps = each(recipe(name).preprocess)
        prepare[name, kind] = core_seconds(lambda s=steps, x=pixels: s([x]), runs=2)
for name in ELEVEN:
    steps = each(recipe(name).preprocess)
    prepare[name, "phantom"] = core_seconds(lambda s=steps: s(rendered[:4]), runs=2) / 4
prepare = pd.Series(prepare).unstack()

# %% tags=["hide-input", "timing"]
by_film = FILMS[["MB", "made MB"]].rename(columns={"MB": "MB a film", "made MB": "of ours"})
by_film["megapixels"] = [w * h / 1e6 for w, h in FILMS["size"]]
by_film["check, ms"] = 1000 * FILMS["check"]
by_film["decode, ms"] = 1000 * FILMS["decode"]
for word, of in (("least", prepare.min()), ("most", prepare.max())):
    by_film[f"prepare, {word}, ms"] = 1000 * of[FILMS.index]
by_film["prepare for all, ms"] = 1000 * prepare.sum()[FILMS.index]
show(
    by_film.rename_axis("film").reset_index(),
    caption="One film on one core of this machine; the least and the most of eleven models",
    digits=1,
)

# %% [markdown]
# And the networks? Their work can be *counted* without running them: every multiplication with its addition
# is two operations. One of them, the ViT-B/32 of CheXzero, is run here, with zeros for weights, since time
# does not depend on their values. That gives operations a second of one core. For the ten others we
# **assume** the same rate.

# %% tags=["timing"]
operations = scale.operations()
with torch.device("meta"):
    network = recipe("chexzero").build().eval()
network = network.to_empty(device="cpu")
for tensor in (*network.parameters(), *network.buffers()):
    tensor.data.zero_()
batch = torch.zeros(4, 3, 224, 224)
with torch.inference_mode():
    vit_b32 = core_seconds(lambda: network.encode_image(batch), runs=2) / len(batch)
core_rate = operations["chexzero"] / vit_b32

# %% tags=["remove-cell", "timing"]
glue("core-gflops", fmt(core_rate / 1e9, 0))
glue("vit-ms", fmt(1000 * vit_b32, 0))
glue("least-ops", f"{operations.idxmin()} ({fmt(operations.min() / 1e9, 0)})")
glue("most-ops", f"{operations.idxmax()} ({fmt(operations.max() / 1e9, 0)})")
glue("all-ops", fmt(operations.sum() / 1e9, 0))
glue("largest-share", percent(operations.max() / operations.sum()))

# %% [markdown]
# An image takes {glue:text}`vit-ms` ms in this network, so a core does {glue:text}`core-gflops` billion
# operations a second. In billions of operations an image, the models run from {glue:text}`least-ops` to
# {glue:text}`most-ops`; all eleven together take {glue:text}`all-ops`, of which the largest alone has
# {glue:text}`largest-share`.

# %% [markdown]
# ## What was measured at length
#
# `benchmarks/embeddings.py` takes longer than a page should. It writes what it found to a table beside it,
# which is shown here with the machine and the day it was made on. What needs a GPU is measured by
# `make gpu-check`. What needs a machine that was not at hand says so.

# %% tags=["hide-input"]
PARTS = {
    "pipeline": "the way of S's code, and ours",
    "bound": "extraction, and the encoder alone",
    "memory": "from few images to many",
    "store": "bytes and speed of the store",
    "gpu": "encoders on a GPU",
    "ray": "several processes under Ray",
}
COLUMNS = ["part", "way", "n_images", "film_pixels", "value", "unit", "low", "high", "rounds"]
COLUMNS += ["model", "device", "threads", "torch", "date"]
NOT_RUN = "not run"
NOT_MEASURED = "How much that is has not been measured yet."
file = find_root() / "benchmarks" / "embeddings.csv"
recorded = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=COLUMNS)
on_gpu = scale.on_gpu(file.with_name("gpu.json"))
if len(on_gpu):
    recorded = pd.concat([recorded, on_gpu], ignore_index=True)
recorded = recorded[recorded["value"].notna() & (recorded["unit"] != NOT_RUN)]


def those(part, **wanted):
    """Rows of a part of the benchmark."""
    chosen = recorded["part"] == part
    for column, value in wanted.items():
        chosen &= recorded[column] == value
    return recorded[chosen]


def machine(part):
    """Where and when a part was measured."""
    found = those(part)
    if found.empty:
        return NOT_RUN
    about = found[["device", "threads", "date"]].drop_duplicates().iloc[-1]
    return f"{about['device']}, {int(about['threads'])} threads, {about['date']}"


show(
    pd.DataFrame(
        {
            "part": PARTS.keys(),
            "compares": PARTS.values(),
            "numbers": [len(those(part)) for part in PARTS],
            "measured on": [machine(part) for part in PARTS],
        }
    ),
    caption="The parts of benchmarks/embeddings.py, and of make gpu-check",
)


# %% [markdown]
# Every number, if you want to see it:


# %% tags=["hide-cell"]
def cell(row):
    limits = "" if row["rounds"] < 2 else f" [{row['low']:,.4g}, {row['high']:,.4g}]"
    return f"{row['value']:,.4g}{limits}"


for part, text in PARTS.items():
    if len(found := those(part)):
        measured = found[["way", "film_pixels", "n_images"]].reset_index(drop=True)
        for column in ("film_pixels", "n_images"):
            measured[column] = [f"{n:,.0f}" if n == n else "" for n in measured[column]]
        measured = measured.rename(columns={"n_images": "images", "film_pixels": "pixels"})
        measured["value [range]"] = [cell(row) for row in found.to_dict("records")]
        measured["unit"] = found["unit"].to_numpy()
        by = ", ".join(found["model"].dropna().unique())
        show(measured, caption=f"{part}: {text}; {by + '; ' if by else ''}{machine(part)}")

# %% tags=["hide-input"]
WAYS = {
    "per label": ("as S's code works", "#D55E00"),
    "per label, encoded once": ("the same, images encoded once", "#E69F00"),
    "once": ("one extraction, this book", "#0072B2"),
}


def empty(axis):
    axis.text(0.5, 0.5, NOT_RUN, ha="center", va="center", transform=axis.transAxes)
    axis.set(xticks=[], yticks=[])


spent = those("pipeline", unit="s")
spent = spent[spent["way"].isin(WAYS)]
sizes = sorted(spent["film_pixels"].unique())
fig, axis = plt.subplots(figsize=(6, 1.2 + 0.9 * max(1, len(sizes))))
if spent.empty:
    empty(axis)
for k, (way, (text, colour)) in enumerate(WAYS.items()):
    for at, pixels in enumerate(sizes):
        for row in spent[(spent["way"] == way) & (spent["film_pixels"] == pixels)].to_dict(
            "records"
        ):
            ms = {c: 1000 * row[c] / row["n_images"] for c in ("value", "low", "high")}
            y = at + 0.27 * (1 - k)
            axis.barh(y, ms["value"], 0.25, color=colour, label=text if at == 0 else None)
            axis.hlines(y, ms["low"], ms["high"], color="black", lw=1)
if len(sizes):
    axis.set_yticks(range(len(sizes)), [f"films of {pixels:.0f} pixels" for pixels in sizes])
    axis.set_xlabel("milliseconds an image")
    fig.legend(loc="outside upper left", ncols=2)
figure(
    "fig-scale-pipeline",
    caption="Six findings and the embeddings, by the way of S's code and by one extraction: the same numbers in the end. Lines: fastest and slowest round.",
    alt="Horizontal bars, milliseconds an image. "
    + (
        "; ".join(
            f"{WAYS[r['way']][0]}, films of {r['film_pixels']:.0f} pixels: {1000 * r['value'] / r['n_images']:.1f}"
            for r in spent.to_dict("records")
        )
        or NOT_RUN
    ),
    table=spent,
)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(6, 2.8))
for axis, way, unit in zip(
    axes, ("peak above memory before", "steady rate"), ("MB", "images/s"), strict=True
):
    found = those("memory", way=way).sort_values("n_images")
    if found.empty:
        empty(axis)
        continue
    axis.plot(found["n_images"], found["value"], "o-", color="#0072B2")
    axis.set(xscale="log", xlabel="images", ylabel=unit, ylim=(0, 1.25 * found["value"].max()))
    axis.set_title(way, loc="left")
figure(
    "fig-scale-memory",
    caption="Memory at its peak and speed of one extraction, by its number of images (phantoms, phantom-resnet).",
    alt="Two panels over the number of images on a logarithmic axis. "
    + (
        "; ".join(
            f"{r['way']} at {r['n_images']:,.0f} images: {r['value']:,.0f} {r['unit']}"
            for r in those("memory").dropna(subset="n_images").to_dict("records")
            if r["way"] in ("peak above memory before", "steady rate")
        )
        or NOT_RUN
    ),
    table=those("memory"),
)


# %% tags=["remove-cell"]
def each_size(part, way, text):
    """A recorded value at each film size, in words."""
    found = those(part, way=way).sort_values("film_pixels")
    said = [
        f"{text(row['value'])} at {row['film_pixels']:.0f} pixels" for _, row in found.iterrows()
    ]
    return " and ".join(said) or NOT_RUN


times_as_long = each_size("pipeline", "per label / once", lambda v: fmt(v, 1))
by_encoding = each_size("pipeline", "of it, encoding again", lambda v: fmt(v, 1))
by_decoding = each_size("pipeline", "of it, decoding again and the rest", lambda v: fmt(v, 1))
AIMED, HIDDEN = 6, 1.1  # times faster than S's way; times as long as the encoder alone
aim = "met" if (those("pipeline", way="per label / once")["value"] >= AIMED).all() else "not met"
glue(
    "against-s",
    NOT_MEASURED
    if those("pipeline").empty
    else "One extraction gives the same numbers; the way of S takes a multiple of its time, "
    f"{times_as_long}. The aim, {AIMED} times or more, is {aim}. Encoding again makes a factor of "
    f"{by_encoding}; decoding again, and the rest, of {by_decoding}.",
)
ratios = those("bound", unit="x")
ratios = ratios[ratios["way"].str.startswith("extract")]
best = ratios.sort_values("value").drop_duplicates("film_pixels").sort_values("film_pixels")
said_of_best = [
    f"{fmt(r['value'])} at {r['film_pixels']:.0f} pixels (the aim, {HIDDEN} or less, is "
    f"{'met' if r['value'] <= HIDDEN else 'not met'})"
    for _, r in best.iterrows()
]
limit = each_size("bound", "all cores always busy / bare loop", fmt)
glue(
    "bound",
    NOT_MEASURED
    if those("bound").empty
    else f"Our extraction, with all decoding and storing, takes this many times as long: "
    f"{' and '.join(said_of_best)}. With all cores always busy it would be {limit}.",
)
grown = those("memory", way="peak above memory before").sort_values("n_images")


def in_run(what):
    found = those("memory", way=f"last / first tenth: {what}")["value"]
    return fmt(found.iloc[0]) if len(found) else NOT_RUN


glue(
    "grown",
    NOT_MEASURED
    if grown.empty
    else f"At its peak, above that of the idle process, it is {grown['value'].iloc[0]:,.0f} MB with "
    f"{grown['n_images'].iloc[0]:,.0f} images and {grown['value'].iloc[-1]:,.0f} MB with "
    f"{grown['n_images'].iloc[-1]:,.0f}, of which names and table rows of the cohort are a part. From "
    f"the first tenth of the largest run to its last, memory changes by a factor of "
    f"{in_run('memory')}, and speed by one of {in_run('rate')}.",
)
glue("absent", ", ".join(part for part in PARTS if those(part).empty) or "none")

# %% [markdown]
# S's code goes through all films once a finding, and once more, one by one, for the embeddings. It was
# written anew for this comparison, from its description.
# {glue:text}`against-s`
#
# Can it be faster still? On a CPU, decoding and encoding compete for the same cores. A bare loop, which only
# runs the encoder on tensors that are ready in memory, is what no extraction can reach.
# {glue:text}`bound`
#
# And memory, with more and more images? {glue:text}`grown` Parts without a record: {glue:text}`absent`.

# %% [markdown]
# ## The plan on paper
#
# From the rates above, everything else is arithmetic, in `cxrlib/embed/plan.py`. One model run over a cohort is a
# *pass*. For $N$ films of $b$ bytes, with $C$ cores, $D$ devices (GPUs) and storage that gives $S$ bytes a
# second, a pass of models $m$ lasts
#
# $$ T = t_0 + N \max\left( \frac{b + \sum_m r_m}{S},\; \frac{d + \sum_m p_m}{C},\; \frac{\sum_m e_m}{D} \right) $$ (eq-scale-pass)
#
# where $d$ are the core-seconds to decode a film, $p_m$ to prepare it, $e_m$ the device-seconds to encode it, $r_m$
# the bytes of its row in the store, and $t_0$ the time to start. The maximum stands for work that
# runs side by side: worker processes decode and prepare while the network encodes. Whichever of the three
# is slowest is the bottleneck, and money spent on the other two is lost. Without devices, the cores encode too.
#
# As our code stands, eleven models are eleven passes, and the check of the films is a twelfth. Three places to
# run them are compared. Cores are as fast as the one measured above. What a GPU does is taken from the
# benchmark where it was measured; otherwise it is **assumed**.{glue:text}`gpu-is`

# %%
gpu = those("gpu", unit="images/s")
gpu = (
    gpu[gpu["way"].str.contains("compiled")]
    .sort_values("value")
    .drop_duplicates("model", keep="last")
)
device_rate = device_share * device_tflops * 1e12
if len(gpu):  # operations a second, the mean of the models measured, each at its best
    done = operations[gpu["model"].str.removeprefix("seeded:")].to_numpy()
    device_rate = float((gpu["value"] * done).mean())
share = device_rate / (device_tflops * 1e12)
share_is = "ASSUMED"
if len(gpu):
    by = ", ".join(gpu["model"].str.removeprefix("seeded:"))
    share_is = f"measured with {by} on {machine('gpu')}, ASSUMED for the other models"
glue("gpu-is", f" For this page it is {share_is}: {percent(share)} of the declared peak.")
PLACES = {
    "laptop": {"cores": 8, "devices": 0, "storage": 1e9, "price": 0.0},
    "one GPU host": {"cores": host_cores, "devices": 1, "storage": 1e9, "price": price},
    f"cluster of {n_hosts}": {
        "cores": n_hosts * host_cores,
        "devices": n_hosts,
        "storage": 20e9,
        "price": n_hosts * price,
    },
}
START = 30.0  # seconds until a pass does its first image: libraries, weights
NAME = {"phantom": 16, "NIH, PNG": 16, "MIMIC-CXR, JPEG": 44}  # characters of an image's name
N_PHANTOMS = 4_000  # of most chapters
glue("n-phantoms", f"{N_PHANTOMS:,}")
COHORTS = {
    "phantoms": (N_PHANTOMS, "phantom"),
    "NIH ChestX-ray14": (112_120, "NIH, PNG"),
    "MIMIC-CXR": (N_MIMIC, "MIMIC-CXR, JPEG"),
    "a million": (MILLION, "MIMIC-CXR, JPEG"),
    "a hundred million": (HUNDRED, "MIMIC-CXR, JPEG"),
}

# %% tags=["hide-input", "timing"]
show(
    pd.DataFrame(
        [
            {
                "place": place,
                "cores": f"{w['cores']:,}",
                "GPUs": str(w["devices"]),
                "GB/s": w["storage"] / 1e9,
                "price/hour": w["price"],
                "encodes, TFLOP/s": (
                    w["devices"] * device_rate if w["devices"] else w["cores"] * core_rate
                )
                / 1e12,
                "that rate is": f"{percent(share)} of the peak, {share_is}"
                if w["devices"]
                else "measured above",
            }
            for place, w in PLACES.items()
        ]
    ),
    caption="Three places; cores, GPUs, storage (GB a second) and prices are declared",
    digits=1,
)


# %% tags=["timing"]
def plan(place, kind, n, together=False, **other):
    """The passes of all eleven models over n films of a kind."""
    there = PLACES[place] | other
    rate = device_rate if there["devices"] else core_rate
    eleven = pd.DataFrame(
        {
            "model": ELEVEN,
            "prepare": prepare.loc[ELEVEN, kind].to_numpy(),
            "encode": operations[ELEVEN].to_numpy() / rate,
            "width": WIDTHS,
        }
    )
    of_film = {"film_bytes": 0.0, "decode": small["render (in place of decode)"]}
    if kind in FILMS.index:
        film = FILMS.loc[kind]
        of_film = {"film_bytes": 1e6 * film["MB"], "decode": film["decode"], "check": film["check"]}
    beside = row_bytes - NAME["phantom"] + NAME[kind]
    return scale.plan(
        eleven, n, **of_film, **there, start=START, row_bytes=beside, together=together
    )


def duration(hours):
    """Hours as text, in the unit that fits."""
    for unit, size in (("years", 24 * 365.25), ("days", 24.0), ("hours", 1.0)):
        if hours >= 1.5 * size:
            return f"{fmt(hours / size, 0 if hours >= 10 * size else 1)} {unit}"
    return f"{fmt(60 * hours, 0)} minutes"


times, lines = {}, []
for cohort_name, (n, kind) in COHORTS.items():
    line = {"films": cohort_name, "images": f"{n:,}"}
    for place in PLACES:
        found = scale.total(plan(place, kind, n))
        times[cohort_name, place] = duration(found["hours"])
        line[place] = f"{duration(found['hours'])}, {found['bottleneck']}"
        if found["cost"]:
            line[f"{place}: price"] = f"{found['cost']:,.0f}"
    lines.append(line)
show(pd.DataFrame(lines), caption="Eleven models, one pass each: time, what limits it, price")

# %% [markdown]
# These are twelve passes with {glue:text}`start` seconds to start each, which is all that few films need.
# For the films of MIMIC-CXR the limit is "{glue:text}`limit-laptop`" on the laptop,
# "{glue:text}`limit-host`" on the GPU host and "{glue:text}`limit-cluster`" on the cluster.
# {glue:text}`limits-move` {numref}`fig-scale-hours` shows the same for any number of films: where a line is
# flat, starting the passes takes longer than the films.

# %% tags=["hide-input", "timing"]
MIMIC = FILMS.index[1]
GRID = np.unique(np.round(np.geomspace(1e3, 1e8, 21), -2)).astype(int)


def draw(axis, x, found, text, style="-"):
    """Hours as a line, with dots in the colours of the bottlenecks."""
    hours = [one["hours"] for one in found]
    axis.plot(x, hours, style, color="#BBBBBB", zorder=1)
    shade = [PART_COLOUR[one["bottleneck"]] for one in found]
    axis.scatter(x, hours, c=shade, s=22, zorder=2)
    axis.annotate(text, (x[-1], hours[-1]), xytext=(7, -3), textcoords="offset points")


def key(axis, found):
    """A legend of the bottlenecks that occur."""
    seen = [s for s in PART_COLOUR if any(one["bottleneck"] == s for one in found)]
    for stage in seen:
        axis.scatter([], [], color=PART_COLOUR[stage], s=22, label=stage)
    axis.figure.legend(loc="outside upper left", ncols=len(seen))


fig, axis = plt.subplots(figsize=(6, 4))
by_place = {p: [scale.total(plan(p, MIMIC, int(n))) for n in GRID] for p in PLACES}
for place, found in by_place.items():
    draw(axis, GRID, found, place)
key(axis, [one for found in by_place.values() for one in found])
axis.set(xscale="log", yscale="log", xlabel="films", ylabel="time", xlim=(800, 3e9))
axis.set_xticks([1e3, 1e4, 1e5, 1e6, 1e7, 1e8])
marks = {1 / 6: "10 min", 1: "1 hour", 24: "1 day", 24 * 30: "1 month", 24 * 365: "1 year"}
axis.set_yticks(list(marks), list(marks.values()))
axis.minorticks_off()
at_million = {p: scale.total(plan(p, MIMIC, MILLION)) for p in PLACES}
figure(
    "fig-scale-hours",
    caption="Time for eleven models on films like those of MIMIC-CXR; dots in the colour of what limits.",
    alt="Time over the number of films, both logarithmic, a line for each place, dots coloured by the step that limits. A million films: "
    + "; ".join(
        f"{p}, {duration(m['hours'])}, limited by {m['bottleneck']}" for p, m in at_million.items()
    ),
    table=pd.DataFrame(
        [
            {"place": p, "films": n, "hours": one["hours"], "limit": one["bottleneck"]}
            for p, found in by_place.items()
            for n, one in zip(GRID, found, strict=True)
        ]
    ),
)

# %% tags=["remove-cell", "timing"]
glue("mimic-laptop", times["MIMIC-CXR", "laptop"])
glue("mimic-host", times["MIMIC-CXR", "one GPU host"])
glue("start", fmt(START, 0))
limits = [scale.total(plan(place, MIMIC, N_MIMIC))["bottleneck"] for place in PLACES]
for key_, limit in zip(("laptop", "host", "cluster"), limits, strict=True):
    glue(f"limit-{key_}", limit)
moves = len(set(limits)) > 1
glue(
    "limits-move",
    "A faster machine does not remove the bottleneck, it moves it to the next step, and the next machine should be bought for that one."
    if moves
    else "All three wait for the same step; money spent on any other is lost.",
)
glue(
    "limits-word",
    "What limits moves with the machine" if moves else "The same step limits on all machines",
)

# %% [markdown]
# ## One million films
#
# Where the limit of a GPU host is "decode" or "prepare", the GPU waits for films. How many cores does it need?
# The two times of {eq}`eq-scale-pass` are equal at $C / D = (d + \sum_m p_m) / \sum_m e_m$ cores a device.
# (An assumed share of the peak flatters convolutional networks most; with a slower GPU, fewer cores do.)

# %% tags=["hide-input", "timing"]
HOST = "one GPU host"
eleven = pd.DataFrame(
    {
        "model": ELEVEN,
        "prepare": prepare.loc[ELEVEN, MIMIC].to_numpy(),
        "encode": operations[ELEVEN].to_numpy() / device_rate,
        "width": WIDTHS,
    }
)
decode = FILMS.loc[MIMIC, "decode"]
needed = scale.cores_a_device(eleven, decode)
show(
    pd.DataFrame(
        {
            "model": ELEVEN,
            "10^9 operations an image": (operations[ELEVEN] / 1e9).to_numpy(),
            "images a second, one GPU": (1 / eleven["encode"]).map("{:,.0f}".format),
            "decode and prepare, ms of a core": 1000 * (decode + eleven["prepare"]),
            "cores to keep it busy": needed[ELEVEN].map("{:,.0f}".format).to_numpy(),
        }
    ),
    caption=f"Films like those of MIMIC-CXR; GPU at {percent(share)} of its peak, {share_is}",
    digits=1,
)

# %% tags=["remove-cell", "timing"]
glue("cores-least", f"{needed.min():,.0f} ({needed.idxmin()})")
glue("cores-most", f"{needed.max():,.0f} ({needed.idxmax()})")
glue("host-cores", str(host_cores))
glue("small-pixels", f"{FILMS['size'].iloc[0][0]:,}")
decode_share = len(ELEVEN) * decode + FILMS.loc[MIMIC, "check"]
glue("decode-share", percent(decode_share / (decode_share + eleven["prepare"].sum())))
glue("prepare-share", percent(eleven["prepare"].sum() / (decode_share + eleven["prepare"].sum())))

# %% [markdown]
# From {glue:text}`cores-least` to {glue:text}`cores-most`; the host has {glue:text}`host-cores`. Of the work
# of the cores, {glue:text}`decode-share` is reading the same films again and again (with the check), and
# {glue:text}`prepare-share` is resizing them for eleven models. Two remedies cost no hardware. *One pass for
# all models* decodes a film once. *Smaller films*, stored once at {glue:text}`small-pixels` pixels, as NIH
# distributes them, have fewer pixels to decode and to resize; but other pixels give other embeddings, so that must be a declared step of the
# preprocessing, and its effect be measured, before anyone compares AUCs.

# %% tags=["hide-input", "timing"]
SMALLER = FILMS.index[0]
busy = scale.cores_a_device(
    eleven.assign(prepare=prepare.loc[ELEVEN, SMALLER].to_numpy()),
    FILMS.loc[SMALLER, "decode"],
    together=True,
)
busy = int(np.ceil(busy.iloc[0]))
STEPS = {
    "as the code stands": (MIMIC, False, {}),
    "a second GPU": (MIMIC, False, {"devices": 2}),
    "one pass for all models": (MIMIC, True, {}),
    f"films of {FILMS['size'].iloc[0][0]:,} pixels": (SMALLER, False, {}),
    "both": (SMALLER, True, {}),
    f"both, and {busy} cores": (SMALLER, True, {"cores": busy}),
}
steps = {
    text: scale.total(plan(HOST, kind, MILLION, together, **other))
    for text, (kind, together, other) in STEPS.items()
}
show(
    pd.DataFrame(
        [
            {"change": text, "time": duration(s["hours"]), "limit": s["bottleneck"]}
            for text, s in steps.items()
        ]
    ),
    caption="A million films, eleven models, one GPU host",
)

# %% tags=["remove-cell", "timing"]
now = steps["as the code stands"]["bottleneck"]
glue(
    "gpu-waits",
    "waiting for films" if now in ("decode", "prepare") else f'busy; the limit is "{now}"',
)
for key_, text in (("now", "as the code stands"), ("gpu", "a second GPU"), ("both", "both")):
    glue(f"steps-{key_}", duration(steps[text]["hours"]))

# %% tags=["hide-input", "timing"]
cores = np.unique(np.geomspace(2, 2048, 21).astype(int))
fig, axis = plt.subplots(figsize=(6, 4))
drawn = []
for text in ("as the code stands", "one pass for all models", "both"):
    kind, together, _ = STEPS[text]
    found = [scale.total(plan(HOST, kind, MILLION, together, cores=int(c))) for c in cores]
    draw(axis, cores, found, text.replace("both", "one pass, smaller films"))
    drawn += [{"change": text, "cores": int(c), **one} for c, one in zip(cores, found, strict=True)]
key(axis, drawn)
by_cores = pd.DataFrame(drawn)[["change", "cores", "hours", "bottleneck"]]
axis.axvline(host_cores, color="#888888", lw=1, ls="--")
axis.set(xscale="log", yscale="log", xlabel="CPU cores beside one GPU", ylabel="hours")
axis.set_xlim(1.6, 60_000)
ticks = [2, 8, 32, 128, 512, 2048]
axis.set_xticks(ticks, ticks)
ticks = [t for t in (0.3, 1, 3, 10, 30, 100) if axis.get_ylim()[0] < t < axis.get_ylim()[1]]
axis.set_yticks(ticks, ticks)
axis.minorticks_off()
figure(
    "fig-scale-cores",
    caption="A million films on one GPU, by the cores beside it. Where a line runs flat, more cores buy nothing. Vertical line: the cores of the host.",
    alt=f"Hours for a million films over the number of CPU cores beside one GPU, both logarithmic, a line per change, dots coloured by what limits; a vertical line at {host_cores} cores. "
    + "; ".join(
        f"{text}: {block['hours'].iloc[0]:,.1f} hours with {block['cores'].iloc[0]} cores, {block['hours'].iloc[-1]:,.1f} with {block['cores'].iloc[-1]}"
        for text, block in by_cores.groupby("change", sort=False)
    ),
    table=by_cores,
)

# %% tags=["remove-input", "timing"]
quiz(
    "A GPU host is too slow, and the money is enough for a second GPU. When does it help?",
    {
        "Always: the GPU does most of the arithmetic": (
            False,
            "Arithmetic that is done side by side with something slower costs no time.",
        ),
        "When the limit is to encode": (
            True,
            f"Here the limit is to {now}: {duration(steps['as the code stands']['hours'])} with one GPU, {duration(steps['a second GPU']['hours'])} with two.",
        ),
        "When the films are large": (
            False,
            "Large films take longer to read and decode, which a GPU does not do here.",
        ),
    },
)

# %% [markdown]
# In {numref}`fig-scale-cores`, the dots say what each further core still buys. As the code stands, the host's
# {glue:text}`host-cores` cores leave the GPU {glue:text}`gpu-waits`.
#
# Then the files. A folder with a million single films is slow to list and to copy, on most shared file
# systems; a thousand archives of a thousand films (tar, or Parquet with the bytes in a column) are read
# from front to back. The stores of eleven models come on top; they have {glue:text}`stores-share` of the
# bytes of the films:

# %% tags=["hide-input"]
beside = row_bytes - NAME["phantom"] + NAME[MIMIC]


def size(number):
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= of:
            return f"{fmt(number / of, 0 if number >= 10 * of else 1)} {unit}"
    return f"{fmt(number / 1e3, 0)} kB"


lines = []
for n in (N_MIMIC, MILLION, HUNDRED):
    for shard_rows, dtype in ((ROWS, "float32"), (2**16, "float16")):
        found = scale.stores(WIDTHS, n, rows_per_shard=shard_rows, row_bytes=beside, dtype=dtype)
        lines.append(
            {
                "films": f"{n:,}",
                "of bytes": size(1e6 * FILMS.loc[MIMIC, "MB"] * n),
                "images a shard": f"{shard_rows:,}",
                "numbers": dtype,
                "stores": size(found["bytes"]),
                "files": f"{found['files']:,}",
                "largest file": size(found["shard_bytes"]),
                "a crash costs": f"{found['lost']:,} images",
            }
        )
show(pd.DataFrame(lines), caption="Stores of eleven models, by shards and numbers")
whole_store = scale.stores(WIDTHS, MILLION, rows_per_shard=ROWS, row_bytes=beside, dtype="float32")
glue("stores-share", percent(whole_store["bytes"] / (1e6 * FILMS.loc[MIMIC, "MB"] * MILLION), 1))
glue("large-shard", f"{2**16:,}")

# %% [markdown]
# Larger shards are fewer files, and a crash costs more. Half precision, `dtype="float16"`, halves the stores.
# What that does to the numbers can be seen on the small store above:

# %%
half = extract(cohort, model, Path(scratch.name) / "half", dtype="float16", rows_per_shard=rows)
error = np.linalg.norm(half.vectors() - whole.vectors(), axis=1)

# %% tags=["remove-cell"]
glue("half-error", f"{error.max():.0e}")

# %% [markdown]
# Vectors of length 1 move by {glue:text}`half-error` at most. A ranking changes only where two films are
# that close to each other.
#
# ## A hundred million films
#
# No public collection comes near; the archives of a whole country might. On paper, the cluster needs
# {glue:text}`cluster-hundred`. But our code would not get there, and this is the place to say so. It keeps in
# memory, for one cohort and one model with embeddings of {glue:text}`wide` numbers:

# %% tags=["hide-input"]
table_bytes = cohort.table.memory_usage(deep=True).sum() / n_images
WIDE = max(WIDTHS)
lines = []
for n in (n_images, N_MIMIC, MILLION, HUNDRED):
    held = scale.memory(WIDE, n, table_bytes=table_bytes, id_characters=NAME[MIMIC])
    lines.append({"films": f"{n:,}"} | {k: size(v) for k, v in held.items()})
show(
    pd.DataFrame(lines).rename(
        columns={"table": "cohort's table", "names": "sorted names", "embeddings": "embed()"}
    ),
    caption="Memory that the code of this book takes at its peak",
)

# %% tags=["remove-cell", "timing"]
cluster = list(PLACES)[-1]
at_hundred = scale.total(plan(cluster, MIMIC, HUNDRED))
once = scale.total(plan(cluster, MIMIC, HUNDRED, together=True))
glue("wide", f"{WIDE:,}")
glue("cluster-hundred", duration(at_hundred["hours"]))
glue("cluster-once", duration(once["hours"]))
read_once = HUNDRED * FILMS.loc[MIMIC, "MB"] / 1e9
glue("read-today", f"{fmt((len(ELEVEN) + 1) * read_once, 1)} PB")
glue("read-once", f"{fmt(read_once, 2)} PB")
glue("shards-hundred", f"{-(-HUNDRED // ROWS):,}")
glue("store-hundred", size(HUNDRED * (4 * WIDE + beside)))
saves = HUNDRED // films.CHUNK
glue("check-rows", f"{fmt(films.CHUNK * saves * (saves + 1) / 2 / 1e12, 1)} million million")
glue("check-chunk", f"{films.CHUNK:,}")
glue("check-million", f"{films.CHUNK * 1000 * 1001 // 2 / 1e6:,.0f} million")

# %% [markdown]
# What would have to change, in the order in which it breaks:
#
# 1. **The check of the films** keeps its results in one file, written anew after every
#    {glue:text}`check-chunk` films. The rows written grow with the square of the films:
#    {glue:text}`check-million` at a million, {glue:text}`check-rows` at a hundred million. It needs parts, as
#    the store has them.
# 2. **Films are decoded once a model.** With the check, that reads {glue:text}`read-today`. One pass for all
#    models, the check in it, would read {glue:text}`read-once`; with a check of its own, the plan shrinks from
#    {glue:text}`cluster-hundred` to {glue:text}`cluster-once`. This is the first thing to change, and worth it
#    at a million already.
# 3. **The cohort is one table in memory, and its fingerprint one sort over all rows.** At this size a cohort is
#    a catalogue: a table of tables, each part with a hash of its own, and the fingerprint a hash of hashes. An
#    added month of films then changes one part, not the name of everything.
# 4. **`embed()` returns all embeddings at once.** Whoever learns from them should go shard by shard, which
#    `Store.tables` offers; so should the search for broken images, which reads a whole store
#    ({glue:text}`store-hundred` here) at each call.
# 5. **A store is one folder**, {glue:text}`shards-hundred` files of the default size, listed whenever a process
#    looks for what is missing, with locks that a file system must honour. An object store has no such locks and
#    lists slowly. Shards of {glue:text}`large-shard` rows, folders by the first digits, and a catalogue of what is done take their
#    place; "write if it is not there yet" is the lock that object stores do have.
#
# None of it touches what makes a store trustworthy: content in the name, one step a file, per manifest that
# refuses another model.
#
# ## Many GPUs, many machines
#
# Embeddings are made by processes that share one folder, the store. Each takes shards that nobody else
# has, and writes them in one step. There are two ways to start such processes: by the queue of a cluster,
# or by Ray. Neither changes the embeddings (less than a millionth of their length).
#
# What all machines have to see under the same path: the folder of the store (`CXRBOOK_CACHE`; for
# credentialed data `CXRBOOK_DATA/derived`) and the films (`CXRBOOK_DATA`). They need the same packages,
# with `cxrlib` in the same place. With Ray, the process that you start reads the checkpoint and sends the
# weights, so only that machine needs `CXRBOOK_CHECKPOINTS`; without Ray, every task reads it.
#
# Load a real cohort once on one machine before you start many: the first load reads every film to check
# it, and many tasks that start together would each do that.
#
# ### One machine with several GPUs
#
# ```bash
# pip install 'cxrbook[ray]'
# cxrbook embed --data nih -m biovil --device cuda --engine ray
# ```
#
# Ray is started on this machine, one process (an *actor*) a GPU, and ended with the command. It has no
# dashboard and reports nothing to its makers. `--actors 2` takes two of the GPUs. Each actor gets its
# share of the cores, and reads films with `--workers` processes (no more than its cores, less one).
# Without a GPU (`--device cpu`) there is an actor for four cores, or fewer if torch uses fewer threads
# (`OMP_NUM_THREADS`).
#
# Without Ray the same command, once a GPU, does the same: `CUDA_VISIBLE_DEVICES=0 cxrbook embed ... &`,
# `CUDA_VISIBLE_DEVICES=1 cxrbook embed ... &`. They share the work by locks.
#
# ### Slurm, without Ray
#
# An array of equal tasks. Each takes what is missing; none knows of the others. (The first line of a script
# for Slurm names the shell, `#!/bin/bash`.)
#
# ```bash
# #SBATCH --array=0-7
# #SBATCH --gres=gpu:1
# #SBATCH --cpus-per-task=8
# #SBATCH --requeue
# export CXRBOOK_DATA=/shared/data CXRBOOK_CACHE=/shared/cache CXRBOOK_CHECKPOINTS=/shared/checkpoints
# cxrbook embed --data nih -m biovil --device cuda --precision bfloat16 --workers 7
# ```
#
# A task that starts late helps with the rest; one that is killed costs the shards it was at, which the
# others redo as soon as its locks are free (below). Without `--workers` a task takes one process a core
# that Slurm lets it use, but one. For most clusters this is all that is needed.
#
# ### Slurm, with Ray
#
# Ray adds one driver that hands out the shards, one line of progress, and new actors for those that died.
# `ray symmetric-run` starts Ray on all machines of the allocation, runs the command on the first, and
# ends Ray after it:
#
# ```bash
# #SBATCH --nodes=4
# #SBATCH --ntasks-per-node=1
# #SBATCH --gres=gpu:4
# #SBATCH --cpus-per-task=32
# export CXRBOOK_DATA=/shared/data CXRBOOK_CACHE=/shared/cache CXRBOOK_CHECKPOINTS=/shared/checkpoints
# export RAY_USAGE_STATS_ENABLED=0
# head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# srun ray symmetric-run --address "$head:6379" --min-nodes "$SLURM_NNODES" \
#     --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus 4 --include-dashboard=false -- \
#     cxrbook embed --data nih -m biovil --device cuda --precision bfloat16 \
#     --workers 7 --engine ray --address auto
# ```
#
# It needs machines of your own (`--exclusive` where nodes are shared): Ray has no password unless you set
# one, and at its end `ray symmetric-run` calls `ray stop`, which ends every Ray of yours on those
# machines. With an older Ray, start the parts by hand: `ray start --head --port=6379` on the first
# machine, `ray start --address=$head:6379 --block` on the others, by `srun`.
#
# ### A Ray cluster that is there
#
# ```bash
# cxrbook embed --data nih -m biovil --device cuda --engine ray --address auto        # on one of its machines
# cxrbook embed --data nih -m biovil --device cuda --engine ray --address head:6379   # the same, by name
# ```
#
# The machine on which you type this has to be part of the cluster, have the same versions of Python and
# Ray, and a GPU for `--device cuda` (the model is loaded and a lower precision measured there). Ray's
# client (`ray://head:10001`, with `pip install 'ray[client]'`) is accepted from outside, but it was not
# tried; the machine has to see the shared folders all the same. Actors that find no free place wait;
# those that run do not wait for them. After a minute without any actor a warning says what is lacking.
#
# ### When something dies
#
# - **A process**: what it had stored is kept. Its other shards go to another actor, and a new actor is
#   started in its place. Its film-reading processes end by themselves within seconds.
# - **A machine**: the same, once Ray has noticed (by default within about a minute). If there is no place
#   for new actors, the others do the rest. If no machine with room is left, the command ends with that
#   message.
# - **Actors that die again and again** without one shard stored in between, three times each: the command
#   ends and gives Ray's reason. Often it is memory: take fewer `--workers` or a smaller `--batch-size`.
# - **The command, or the machine it runs on**: Ray ends its actors. The same command goes on from there.
# - **Ctrl-C**: actors are ended, the store stays consistent.
# - **Other versions on a machine**, or a folder that is not shared: refused before anything is computed,
#   with the machine's name.
#
# ### Which file systems
#
# A shard's lock is `flock`. On one machine the kernel frees it when its process ends, however it ends.
#
# - **Local disks, one machine**: good.
# - **NFS version 4**: good. The server frees the locks of a dead machine after its lease, ninety seconds by
#   default on Linux. Other machines may see a new file up to a minute late; the command waits that long at its
#   end.
# - **NFS version 3**: the locks of a dead machine may stay until it comes back. Whoever needs those
#   shards waits, and says for which file after a minute (Ray's actors wait silently). If the machine is
#   gone, stop all processes, remove the hidden `.*.lock` files of the store, and start again.
# - **Lustre**: mounted with `-o flock`. With `localflock` a lock holds on one machine only: use Ray,
#   whose driver gives no shard to two actors at once, not an array of tasks.
# - **File systems without `flock`**: the lock becomes a file that a killed process may leave behind; as
#   with NFS 3, remove it.
# - **Object stores** mounted as folders: not tried, and not advised; renaming in one step and locks are
#   what a store needs.
#
# Two machines that write the same shard in spite of all that leave two files of one number: reading
# refuses such a store and names both files.
#
# Credentialed data: the names of the files travel through Ray's memory and can be in its logs
# (in its temporary folder) on every machine. Run it only on machines that may hold the data.
#
# ## Limits
#
# - The plan assumes that reading, preparing and encoding overlap perfectly, and that storage gives what it is
#   declared to give, to everybody at once. Real clusters do neither.
# - One network was timed here, on one core; the others are assumed to be as efficient. Convolutional networks
#   seldom are.
# - Made-up films weigh what real ones weigh on average; a real archive has thick ones too.
# - Recorded numbers are those of one machine. Parts without a record: {glue:text}`absent`.
#
# ## What we learned
#
# - Embeddings are computed once and kept in files that anyone can read. A crash costs one shard, a flipped bit is
#   found, another model is refused.
# - S's way encodes each film once a finding. {glue:text}`against-s`
# - {glue:text}`limits-word`: "{glue:text}`limit-laptop`" on a laptop, "{glue:text}`limit-host`" on a
#   GPU host, "{glue:text}`limit-cluster`" on a cluster.
# - A GPU wants from {glue:text}`cores-least` to {glue:text}`cores-most` cores beside it for such films. A million of
#   them take a host {glue:text}`steps-now`; with a second GPU {glue:text}`steps-gpu`; with one pass for all
#   models and smaller films {glue:text}`steps-both`.
# - All of MIMIC-CXR by eleven models takes {glue:text}`mimic-laptop` on a laptop and {glue:text}`mimic-host` on one
#   GPU host, by the plan.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-scale-crossing
# How many cores must a machine without a GPU have to do as well as the GPU host above on MIMIC-CXR? Use
# `plan` with `devices=0`.
# ```

# %% [markdown]
# ````{solution-start} ex-scale-crossing
# :class: dropdown
# ````

# %% tags=["timing"]
goal = scale.total(plan(HOST, MIMIC, N_MIMIC))["hours"]
for n_cores in (16, 64, 256, 1024):
    hours = scale.total(plan(HOST, MIMIC, 377_110, devices=0, cores=n_cores))["hours"]
    print(f"{n_cores:>5} cores: {duration(hours)} (GPU host: {duration(goal)})")

# %% [markdown]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-scale-price
# The price is a parameter, and so are the hosts. Predict what `cxrbook run 10 -p n_hosts=8` changes in the
# table of times: which places, and does the price of the cluster rise or fall? Then run it.
# ```
#
# ```{solution} ex-scale-price
# :class: dropdown
# Only the column of the cluster changes. With an eighth of the hosts, what is limited by cores or devices
# takes eight times as long and costs the same, since time and hosts multiply. Only two things do not shrink
# with hosts: the start of each pass, and the storage, which is declared for the whole cluster. Where one of
# them was the limit, fewer hosts wait less, and the price falls.
# ```
#
# ```{exercise}
# :label: ex-scale-shard
# A process is killed once an hour, at a random moment, and encodes 500 images a second. What share of its work is
# lost with shards of 1,024 and of 65,536 images?
# ```
#
# ```{solution} ex-scale-shard
# :class: dropdown
# On average half a shard is lost with each kill: 512 of 1.8 million images an hour, 0.03 %, or 32,768, 1.8 %.
# With one image a second on a laptop CPU the large shard would never be done: it takes 18 hours. Shards should
# take minutes, whatever the machine.
# ```
#
# ```{exercise}
# :label: ex-scale-hash
# File names carry 16 hexadecimal digits of a SHA-256. How likely is it that a damaged shard passes the check? And
# that any two of a hundred thousand shards share a name by chance?
# ```
#
# ```{solution} ex-scale-hash
# :class: dropdown
# 16 digits are 64 bits: damaged bytes pass with probability $2^{-64}$, about 5 in $10^{20}$. Among $n$ shards
# there are $n (n - 1) / 2$ pairs, $5 \times 10^9$ of them, so two agree with probability $3 \times 10^{-10}$; and
# even then nothing is lost, because the number of the shard stands before the hash.
# ```
#
# ## Further reading
#
# - {cite:t}`williams2009`: a picture that says what limits a computation, before anything is bought.
# - {cite:t}`amdahl1967`: the part that does not speed up decides; the argument behind every bottleneck here.
# - {cite:t}`mohan2021`: how often GPUs wait for data, measured, and what helps.
# - {cite:t}`moritz2018`: the design of Ray.
# - {cite:t}`johnson2019`: what MIMIC-CXR holds, and how it came about.
