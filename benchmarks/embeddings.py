"""What embeddings cost: against the way paper S's code works, a bare loop, and the memory.

Run: python benchmarks/embeddings.py [--part NAME] [--quick] [--threads N]

All parts take about a quarter of an hour on two processor cores. Writes embeddings.csv beside this
file after every part, one row for each measured quantity: `value` is the median over `rounds`,
`low` and `high` the least and the most. `--part` runs one part and replaces its rows alone.
`--quick` tries all out with few images and writes nothing. Weights are computed from names; no
file is needed. What needs a GPU is in `make gpu-check`.
"""

import argparse
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
from finetune import processor
from PIL import Image

from cxrlib import cohorts, models
from cxrlib.cohorts import films, own, phantom
from cxrlib.core import atomic
from cxrlib.embed.extract import extract
from cxrlib.embed.store import DTYPES, create
from cxrlib.models import images
from cxrlib.predict import zeroshot

RESULT = Path(__file__).with_suffix(".csv")
COLUMNS = ("part", "way", "n_images", "film_pixels", "value", "unit", "low", "high", "rounds")
COLUMNS += ("model", "device", "threads", "torch", "date")

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Pleural Effusion", "Pneumonia")
LABELS += ("Pneumothorax",)
VIT = "seeded:chexzero"  # CLIP's ViT-B/32
BATCH = 20  # what `extract` takes of 224 pixels on a CPU, here for all ways
SHARD = 250  # images, where the rate is taken from the times of shards
SAME = 1e-5  # largest difference between two ways to the same numbers
FASTER, HIDDEN, FLAT, FLAT_MB = 6, 1.10, 1.10, 64  # what is aimed at

FULL = {
    "films": {224: 256, 1024: 100},  # pixels a side: films of the part pipeline
    "bound": {224: 240, 1024: 120},  # of the part bound
    "rounds": 2,  # of both
    "memory": (1_000, 10_000, 100_000),
    "rows": 20_480,  # of a store
    "ray": 10_000,
}
QUICK = {
    "films": {224: 24, 1024: 24},
    "bound": {224: 24, 1024: 24},
    "rounds": 1,
    "memory": (1_000, 2_000),
    "rows": 2_048,
    "ray": 1_000,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--apart", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.apart:
        print(json.dumps(grown(given.apart)))
        return
    print(f"{processor()}, {given.threads} threads; torch {torch.__version__}")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CXRBOOK_CACHE"] = f"{folder}/cache"
        plan = (QUICK if given.quick else FULL) | {"folder": Path(folder)}
        for part in [given.part] if given.part else PARTS:
            print(f"\n{part}", flush=True)
            rows = Rows(part)
            PARTS[part](plan, rows)
            if not given.quick:
                write(rows.table())
    print(f"\n{time.perf_counter() - start:.0f} seconds in all")


class Rows:
    """What a part measured, printed as it comes."""

    def __init__(self, part):
        self.part, self.rows = part, []

    def add(self, way, values, unit, n_images=None, film_pixels=None, model=""):
        """A quantity: one number, or one of each round."""
        values = np.atleast_1d(values)
        middle, low, high = (float(f(values)) for f in (np.median, np.min, np.max))
        found = (self.part, way, n_images, film_pixels, middle, unit, low, high, len(values), model)
        found += (processor(), torch.get_num_threads(), torch.__version__, date.today())
        self.rows.append(found)
        size = "".join(f" {n:>7}" if n else " " * 8 for n in (n_images, film_pixels))
        span = f"  ({low:.4g} to {high:.4g}, {len(values)} rounds)" if len(values) > 1 else ""
        print(f"  {way:<44}{size} {middle:>10.4g} {unit}{span}", flush=True)

    def not_run(self, why):
        print(f"  NOT RUN: {why}", flush=True)
        here = (torch.get_num_threads(), torch.__version__, date.today())
        row = (self.part, why, None, None, None, "not run", None, None, 0, "", processor())
        self.rows.append((*row, *here))

    def table(self):
        return pd.DataFrame(self.rows, columns=COLUMNS)


def verdict(text, met):
    print(f"  {text}: {'met' if met else 'NOT met'}", flush=True)


def write(table):
    """Put the rows of a part in place of those that are there."""
    (part,) = set(table["part"])
    if RESULT.is_file():
        there = pd.read_csv(RESULT)
        table = pd.concat([there[there["part"] != part], table], ignore_index=True)
    place = table["part"].map({name: k for k, name in enumerate(PARTS)})
    table = table.iloc[place.argsort(kind="stable")]
    for column in ("n_images", "film_pixels"):
        table[column] = table[column].astype("Int64")
    atomic.write(RESULT, table.to_csv(index=False, float_format="%.6g").encode())


def in_turn(ways, rounds):
    """Seconds of each way in each round: A B A B."""
    seconds = defaultdict(list)
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(found) for name, found in seconds.items()}


# --- films on disk ---


def on_disk(plan, size, n):
    """A cohort of n films as PNG, and their paths."""
    folder = plan["folder"] / f"films-{size}"
    if not folder.exists():
        _draw(plan)
    cohort = own.build(folder, access="open")
    cohort = replace(cohort, table=cohort.table[:n], films=cohort.films[:n])
    return cohort, [folder / file for file in cohort.films["file"]]


def _draw(plan):
    """Phantoms of 1,024 pixels, as NIH distributes films, and of 224, as paper S stored them. Seven
    of eight are turned or mirrored ones, which saves drawing and takes as long to decode."""
    most = max(*plan["films"].values(), *plan["bound"].values())
    drawn = cohorts.load("phantom", n_images=-(-most // 8), size=1024)
    rows = drawn.table.loc[np.repeat(drawn.table.index, 8)[:most]].reset_index(drop=True)
    rows["path"] = rows["image_id"] = [f"{k:04d}.png" for k in range(most)]
    folders = {size: plan["folder"] / f"films-{size}" for size in plan["films"]}
    for folder in folders.values():
        folder.mkdir()
        rows[[*own.REQUIRED, *phantom.FINDINGS]].to_csv(folder / "cohort.csv", index=False)
    for k, name in enumerate(rows["path"]):
        if k % 8 == 0:
            (film,) = drawn.images(np.array([k // 8]))
        turned = np.ascontiguousarray(np.rot90(film if k % 8 < 4 else film.T, k))
        for size, folder in folders.items():
            stored = turned if size == len(turned) else images.stored_by_s(turned, size)
            Image.fromarray(stored).save(folder / name)


# --- the part pipeline: S's way against this book's ---


def pipeline(plan, rows):
    model = models.load_model(VIT, "as_published")
    for size, n in plan["films"].items():
        cohort, paths = on_disk(plan, size, n)
        _compare(plan, rows, model, cohort, paths, size)


def _compare(plan, rows, model, cohort, paths, size):
    about = {"n_images": len(paths), "film_pixels": size, "model": VIT}
    kept = {}

    def ours():
        kept["ours"] = once(replace(cohort, keep=Path(tempfile.mkdtemp(dir=plan["folder"]))), model)

    def s():
        kept["s"] = per_label(paths, model)

    def s_once():
        kept["s, once"] = per_label(paths, model, encode_again=False)

    model.image_vectors(model.preprocess([films.read(paths[0])]).repeat(BATCH, 1, 1, 1))  # warm
    seconds = in_turn({"per label": s, "once": ours}, plan["rounds"])
    ablation = in_turn({"per label, encoded once": s_once}, 1)
    for other in ("s", "s, once"):
        for a, b, what in zip(kept["ours"], kept[other], ("probability", "number"), strict=False):
            apart = float(np.abs(a - b).max())
            assert apart < SAME, f"the ways differ by {apart} in a {what} of {other}"
    print(f"  same probabilities and embeddings: largest difference below {SAME}")
    for way, found in (seconds | ablation).items():
        rows.add(way, found, "s", **about)
    for stage, spent in kept["s"][2].items():
        rows.add(f"per label: {stage}", spent, "s", **about)
    ratio = seconds["per label"] / seconds["once"]
    (less,) = ablation["per label, encoded once"]
    rows.add("per label / once", ratio, "x", **about)
    rows.add("of it, encoding again", seconds["per label"] / less, "x", **about)
    rows.add("of it, decoding again and the rest", less / seconds["once"], "x", **about)
    verdict(f"at least {FASTER} times less time", np.median(ratio) >= FASTER)


def per_label(paths, model, encode_again=True):
    """Probabilities (n, labels), embeddings (n, d) and seconds of each stage, the way S's code
    works, made after its description: every label goes through all films again in batches, both
    of its texts are encoded with every batch, all is kept in lists and nothing is done beside the
    encoder. Then embeddings are made apart, image by image. Reading and preparing a film is this
    book's in both ways, and the texts of S's embeddings are left out of both."""
    spent, vectors = defaultdict(float), {}

    def prepared(some):
        with clock(spent, "read and prepare films"):
            return model.preprocess([films.read(path) for path in some])

    def encoded(some, x, stage):
        with clock(spent, stage):
            if encode_again or some[0] not in vectors:
                vectors.update(zip(some, model.encode_image(x), strict=True))
            return torch.stack([vectors[path] for path in some])

    columns = []
    for label in LABELS:
        texts = [zeroshot.POSITIVE.format(label=label), zeroshot.NEGATIVE]
        column = []
        for start in range(0, len(paths), BATCH):
            some = paths[start : start + BATCH]
            x = encoded(some, prepared(some), "encode for labels")
            with clock(spent, "encode texts"):
                pair = model.encode_text(texts)
            column += torch.softmax(model.logit_scale * x @ pair.T, dim=1)[:, 0].tolist()
        columns.append(column)
    embeddings = []
    for path in paths:
        x = encoded([path], prepared([path]), "encode one by one for embeddings")
        embeddings.append(x[0].tolist())
    return np.array(columns).T, np.array(embeddings), spent


def once(cohort, model):
    """The same by this book: probabilities and embeddings from one store."""
    table = zeroshot.predict(cohort, [model], LABELS)
    scores = table["score"].to_numpy().reshape(len(LABELS), -1).T
    return scores, extract.embed(cohort, model)


@contextmanager
def clock(spent, stage):
    start = time.perf_counter()
    yield
    spent[stage] += time.perf_counter() - start


# --- the part bound: against the image encoder alone ---


def bound(plan, rows):
    model, threads = models.load_model(VIT, "as_published"), torch.get_num_threads()
    for size, n in plan["bound"].items():
        cohort, paths = on_disk(plan, size, n)
        about = {"n_images": len(paths), "film_pixels": size, "model": VIT}
        start = time.process_time()
        torch.set_num_threads(1)
        ready = [model.preprocess([films.read(p)]) for p in paths]
        decode = (time.process_time() - start) / len(paths)
        torch.set_num_threads(threads)
        batches = torch.cat(ready).contiguous(memory_format=torch.channels_last).split(BATCH)
        del ready

        def bare(batches=batches):
            with torch.inference_mode():
                for x in batches:
                    model.network.encode_image(x)

        def extracting(workers, cohort=cohort):
            folder = Path(tempfile.mkdtemp(dir=plan["folder"])) / "store"
            return lambda: extract.extract(
                cohort, model, folder / str(time.monotonic_ns()), batch_size=BATCH, workers=workers
            )

        bare()
        ways = {"bare loop": bare}
        ways |= {f"extract, workers={w}": extracting(w) for w in (0, 1, 2)}
        seconds = in_turn(ways, plan["rounds"])
        alone = seconds.pop("bare loop")
        rows.add("bare loop", len(paths) / alone, "images/s", **about)
        encode = float(np.median(alone)) * threads / len(paths)
        for way, found in seconds.items():
            rows.add(way, len(paths) / found, "images/s", **about)
            rows.add(f"{way} / bare loop", found / alone, "x", **about)
        rows.add("read and prepare a film", decode, "core-s/image", **about)
        rows.add("encode a film", encode, "core-s/image", **about)
        rows.add("all cores always busy / bare loop", 1 + decode / encode, "x", **about)
        best = min(np.median(found / alone) for found in seconds.values())
        verdict(f"at most {HIDDEN} times the bare loop, {size} pixels", best <= HIDDEN)


# --- the part memory ---


def memory(plan, rows):
    found = {n: apart(n) for n in plan["memory"]}
    about = {"film_pixels": 64, "model": "phantom-resnet"}
    for n, one in found.items():
        rows.add("peak above memory before", one["grown"] / 1e6, "MB", n, **about)
        rows.add("steady rate", one["rate"], "images/s", n, **about)
    few, many = (found[n] for n in (min(found), max(found)))
    about |= {"n_images": max(found)}
    rows.add("last / first tenth: rate", many["rates"], "x", **about)
    rows.add("last / first tenth: memory", many["held"], "x", **about)
    more = (many["grown"] - few["grown"]) / 1e6
    verdict(f"from {min(found):,} images on {more:.0f} MB more, at most {FLAT_MB}", more <= FLAT_MB)
    verdict(f"rate constant within {FLAT - 1:.0%}", 1 / FLAT <= many["rates"] <= FLAT)


def apart(n):
    """What :func:`grown` says in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--apart", str(n), "--threads"]
    command.append(str(torch.get_num_threads()))
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def grown(n):
    """What it takes to extract n phantoms, which are drawn as they are wanted: memory at its peak
    above that before (bytes), images a second, and how both change from first to last tenth."""
    # so many images of a patient that the metadata suffice
    cohort = cohorts.load("phantom", n_images=n, split=None, dials={"images_per_patient": 1000})
    model = models.load_model("phantom-resnet")
    gc.collect()
    with tempfile.TemporaryDirectory() as folder, watched() as held:
        done = extract.extract(cohort, model, Path(folder) / "store", rows_per_shard=SHARD)
        at = np.array([path.stat().st_mtime for path in done.present().values()])
    tenth, moments = max(2, len(at) // 10), max(1, len(held) // 10)
    return {
        "grown": max(held) - held[0],
        "rate": rate(at),
        "rates": rate(at[-tenth:]) / rate(at[:tenth]),
        "held": max(held[-moments:]) / max(held[:moments]),
    }


def rate(at):
    """Images a second from the times at which shards were stored."""
    return SHARD * (len(at) - 1) / (at[-1] - at[0])


@contextmanager
def watched():
    """Bytes in memory, 50 times a second: of this process, and what only its children hold."""
    me, stop = psutil.Process(), threading.Event()

    def now():
        children = 0
        for child in me.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                children += child.memory_full_info().uss
        return me.memory_info().rss + children

    held = [now()]

    def watch():
        while not stop.wait(0.02):
            held.append(now())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield held
    finally:
        stop.set()
        watcher.join()


# --- the part store ---


def store(plan, rows):
    n, random = plan["rows"], np.random.default_rng(1907)
    for width in (128, 512, 768):
        x = random.standard_normal((n, width), np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        for dtype in DTYPES:
            _written_and_read(plan, rows, x, dtype)
    model = models.load_model("phantom-resnet")
    cohort = cohorts.load("phantom", n_images=n // 5)
    cohort = replace(cohort, keep=plan["folder"] / "kept")
    extract.extract(cohort, model)
    seconds = in_turn({"embed": lambda: extract.embed(cohort, model)}, 5)["embed"]
    about = {"n_images": n // 5, "film_pixels": 64, "model": "phantom-resnet"}
    rows.add("embed, all in the store", seconds, "s", **about)


def _written_and_read(plan, rows, x, dtype):
    n, width = x.shape
    names = [f"{k:012d}" for k in range(n)]
    made = []

    def writing():
        folder = Path(tempfile.mkdtemp(dir=plan["folder"])) / "store"
        made.append(create(folder, {"dtype": dtype}, n))
        for shard in range(made[-1].n_shards):
            part = made[-1].rows(shard)
            chosen = slice(part.start, part.stop)
            made[-1].write(shard, names[chosen], x[chosen], [""] * len(part))

    ways = {"write": writing, "read and verify": lambda: made[-1].vectors()}
    seconds = in_turn(ways, 3)
    assert np.abs(made[-1].vectors() - x).max() < (1e-3 if dtype == "float16" else 1e-9)
    size = sum(path.stat().st_size for path in made[-1].folder.iterdir())
    rows.add(f"{width} numbers, {dtype}: on disk", size / n, "bytes/image", n)
    for way, found in seconds.items():
        rows.add(f"{width} numbers, {dtype}: {way}", size / found / 1e6, "MB/s", n)


# --- the part ray ---


def by_ray(plan, rows):
    if importlib.util.find_spec("ray") is None:
        rows.not_run("Ray is not installed here")
        return
    n, threads = plan["ray"], torch.get_num_threads()
    cohort = cohorts.load("phantom", n_images=n, split=None)
    model = models.load_model("phantom-resnet")
    about = {"n_images": n, "film_pixels": 64, "model": "phantom-resnet"}
    ways = {
        f"local, {threads} threads": {},
        f"Ray, {threads} actors": {"engine": "ray", "actors": threads},
    }
    total = {}
    for way, engine in ways.items():
        folder, before = Path(tempfile.mkdtemp(dir=plan["folder"])) / "store", time.time()
        done = extract.extract(cohort, model, folder, rows_per_shard=SHARD, **engine)
        total[way] = time.time() - before
        at = np.sort([path.stat().st_mtime for path in done.present().values()])
        rows.add(way, total[way], "s", **about)
        rows.add(f"{way}: to the first shard", at[0] - before, "s", **about)
        rows.add(f"{way}: from then on", rate(at), "images/s", **about)
    local, ray = total.values()
    rows.add("Ray longer than local by", ray - local, "s", **about)


PARTS = {
    "pipeline": pipeline,
    "bound": bound,
    "memory": memory,
    "store": store,
    "ray": by_ray,
}


if __name__ == "__main__":
    main()
