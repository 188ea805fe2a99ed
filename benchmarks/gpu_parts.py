"""The parts of `make gpu-check`; see `gpu.py`, which runs each of them in a process of its own.

A part tells a figure as soon as it has it, so that one that is cut off leaves those before it.
All but torch is imported where it is wanted: the device is looked at without delay, and a package
that is missing costs the parts that want it alone.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
WORKERS = min(16, max(1, (os.cpu_count() or 1) - 1))
PACKAGES = ("torch", "torchvision", "triton", "numpy", "open_clip_torch", "timm", "transformers")
PACKAGES += ("peft",)
VIT = "seeded:clip_vit_b16"
BUSY = {VIT: 0.5}  # least share of the product of matrices that is aimed at
CHAPTER = "chapters/03_fine_tuning.py"
SMALL = {"models": "phantom-vit", "data": "phantom-6x200", "precision": "bfloat16"}
SMALL |= {"n_splits": 1, "n_seeds": 1, "rates": "none"}

FULL = {
    "parity": [],  # all that are published
    "lower": [],
    "encoders": {VIT: 256, "seeded:medimageinsight": 64},  # model: images a batch
    "batches": 20,
    "rounds": 5,
    "compiler": "inductor",
    "tuned": {
        "model": VIT,
        "batch": 64,
        "precision": "bfloat16",
        "steps": 20,
        "rounds": 11,
        "images": 840,  # that train in NIH 6x200
        "epochs": 5,
    },
    "embedded": {"model": VIT, "films": 16384, "drawn": 64, "workers": WORKERS},
    "chapter": SMALL
    | {"epochs_head": 10, "epochs_encoder": 3}
    | {"n_draws": 2, "n_resamples": 100, "n_permutations": 100},
    "tests": [],  # all that are marked
}
TINY = {
    "parity": ["cxr_clip_rn50"],
    "lower": ["phantom-vit"],
    "encoders": {"phantom-vit": 4},
    "batches": 2,
    "rounds": 2,
    "compiler": "eager",
    "tuned": {
        "model": "phantom-vit",
        "batch": 4,
        "precision": "float32",
        "steps": 2,
        "rounds": 2,
        "images": 8,
        "epochs": 3,
    },
    "embedded": {"model": "phantom-vit", "films": 40, "drawn": 8, "workers": 0},
    "chapter": SMALL
    | {"epochs_head": 1, "epochs_encoder": 1}
    | {"n_draws": 1, "n_resamples": 5, "n_permutations": 5},
    "tests": ["tests/test_training.py"],
}
SIZES = {"full": FULL, "tiny": TINY}


def main():
    device, sizes, part, file = sys.argv[1:]
    PARTS[part](SIZES[sizes], device, Told(Path(file)))


class Told:
    """What a part has found, a line of JSON each, in a file that is whole whenever it ends."""

    def __init__(self, file):
        self.file = file

    def __call__(self, what, value, unit, *, at_most=None, at_least=None, **about):
        """A figure, and whether it is within what is asked of it."""
        bounds = {"at_most": at_most, "at_least": at_least}
        bounds = {name: bound for name, bound in bounds.items() if bound is not None}
        if bounds:
            above = at_least is None or value >= at_least
            bounds["met"] = bool(above and (at_most is None or value <= at_most))
        self.line(what=what, value=value, unit=unit, **about, **bounds)

    def line(self, **found):
        with self.file.open("a") as f:
            f.write(json.dumps({name: short(value) for name, value in found.items()}) + "\n")


def short(value):
    """A number to six digits; None where it is none, which JSON has no word for."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def waited(run, device):
    """Seconds of a run, until the device is done."""
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


# --- the device ---


def look(sizes, device, tell):
    """Device and versions; ends with a message where torch cannot use the device."""
    about = {"device": device, "threads": torch.get_num_threads()}
    if device == "cuda":
        if not torch.cuda.is_available():
            sys.exit("torch sees no GPU here")
        there = torch.cuda.get_device_properties(0)
        about |= {"device": there.name, "memory_gib": round(there.total_memory / 2**30, 1)}
    versions = {"python": sys.version.split()[0], "cuda": torch.version.cuda}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    tell.line(**about, versions=versions)


# --- same numbers ---


def float32(sizes, device, tell):
    """Each encoder against its authors' own numbers, in float32 without TF32."""
    from cxrlib import models
    from cxrlib.models import parity

    tf32 = torch.backends.cuda.matmul.allow_tf32
    tell("TF32 in matrix products", int(tf32), "1 if on", at_most=0)
    for name in sizes["parity"] or models.published_models():
        _compared(tell, name, parity.against_upstream(name, device))


def half(sizes, device, tell):
    """bfloat16 and float16 against float32 on the same device."""
    from cxrlib import models
    from cxrlib.models import parity

    for name in sizes["lower"] or [f"seeded:{name}" for name in models.published_models()]:
        _compared(tell, name, parity.precisions(models.load_model(name), device))


def _compared(tell, name, table):
    for row in table.itertuples():
        what = f"{name}: {row.check}"
        tell(what, row.difference, "largest difference", at_most=row.tolerance, model=name)


# --- images a second ---


def throughput(sizes, device, tell):
    """Encoders in bfloat16, as a share of the product of two matrices measured just before."""
    import finetune

    power = finetune.matmul_peak(torch.device(device), "bfloat16")
    tell("product of two matrices, bfloat16", power / 1e12, "TFLOP/s")
    for name, batch in sizes["encoders"].items():
        _encoder(sizes, device, tell, name, batch, power)


def _encoder(sizes, device, tell, name, batch, power):
    """Timed: from 8-bit grey films of the network's size in (page-locked) memory of the host to
    vectors of unit length on the device: the copy, three normalised channels, the encoder."""
    from cxrlib import models
    from cxrlib.models import images

    model = models.load_model(name, device=device, precision="bfloat16")
    size = model.card["image_size"]
    shape = (sizes["batches"], batch, size, size)
    waiting = torch.randint(0, 256, shape, dtype=torch.uint8, pin_memory=device == "cuda")
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in images.OPENAI)

    def encode(x):
        x = x.to(device, non_blocking=True)[:, None].expand(-1, 3, -1, -1)
        return model.image_vectors((x / 255 - mean) / std)

    def run():
        for x in waiting:
            encode(x)

    work = _operations(lambda: encode(waiting[0])) / batch
    tell(f"{name}: operations of an image", work / 1e9, "GFLOP", model=name)
    for way in ("not compiled", "compiled"):
        if way == "compiled":
            network = model.network
            network.encode_image = torch.compile(network.encode_image, backend=sizes["compiler"])
            first = waited(lambda: encode(waiting[0]), device)
            tell(f"{name}: first batch, with the compiler's work", first, "s", model=name)
        run()
        found = [len(waiting) * batch / waited(run, device) for _ in range(sizes["rounds"])]
        rate = statistics.median(found)
        about = {"model": name, "low": min(found), "high": max(found), "rounds": len(found)}
        tell(f"{name}: {way}, batches of {batch}", rate, "images/s", **about)
        aim = BUSY.get(name) if way == "compiled" else None
        share = rate * work / power
        tell(f"{name}: {way}, of the product", share, "share", at_least=aim, model=name)


def _operations(run):
    """Floating-point operations of a run."""
    from torch.utils.flop_counter import FlopCounterMode

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation, which the counter does not know
    with FlopCounterMode(display=False) as counter:
        run()
    torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


# --- training, a store, a chapter ---


def tuning(sizes, device, tell):
    """Full fine-tuning against a bare loop, its checkpoints, its memory."""
    import finetune

    finetune.measure(sizes["tuned"], torch.device(device), tell)


def embedding(sizes, device, tell):
    """In bfloat16, from films in memory to vectors that were read back from a store."""
    import numpy as np

    from cxrlib import cohorts, models
    from cxrlib.embed import extract as embed
    from cxrlib.models import parity

    plan = sizes["embedded"]
    n, drawn = plan["films"], plan["drawn"]
    model = models.load_model(plan["model"], device=device, precision="bfloat16")
    cohort = cohorts.load("phantom", n_images=drawn, size=model.card["image_size"])
    films = cohort.images(np.arange(drawn))
    rows = cohort.table.iloc[np.arange(n) % drawn].reset_index(drop=True)
    rows["image_id"] = [f"{k:08d}" for k in range(n)]
    cohort = replace(cohort, table=rows, images=lambda at: films[at % drawn])
    with tempfile.TemporaryDirectory() as folder:
        begun = time.time()
        start = time.perf_counter()
        store = embed.extract(cohort, model, Path(folder) / "store", workers=plan["workers"])
        vectors = store.vectors()
        seconds = time.perf_counter() - start
        first = min(path.stat().st_mtime for path in store.present().values()) - begun
    about = {"model": plan["model"]}
    tell("films to vectors read back from the store", n / seconds, "images/s", **about)
    tell("of it, until the first shard is stored", first, "s", **about)
    tell("films", n, "images", **about)
    exact = model.to(device).encode_image(model.preprocess(films)).numpy()
    apart = float(1 - (vectors * exact[np.arange(n) % drawn]).sum(axis=1).min())
    what = "cosine distance to float32 without a store"
    tell(what, apart, "largest difference", at_most=parity.LOWER, **about)


def chapter(sizes, device, tell):
    """Chapter 3, small, as a script."""
    given = sizes["chapter"] | {"device": device}
    dials = [part for name, value in given.items() for part in ("-p", f"{name}={value}")]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, CHAPTER, *dials], cwd=ROOT)
    tell("the chapter", time.perf_counter() - start, "s")
    sys.exit(done.returncode)


# --- the tests ---


class Outcomes:
    """A plugin of pytest: tells what became of each test as soon as it is done."""

    def __init__(self, tell):
        self.tell = tell

    def pytest_collectreport(self, report):
        if report.outcome != "passed":  # of a whole file
            said = str(report.longrepr).strip().splitlines()[-1].removeprefix("E").strip()
            missing = said.startswith("ModuleNotFoundError")
            outcome = "not run" if missing else report.outcome
            self.tell.line(test=report.nodeid, outcome=outcome, reason=said)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.tell.line(test=report.nodeid, outcome=report.outcome)


def tests(sizes, device, tell):
    """The tests that are marked gpu; those marked slow repeat the parts before."""
    import pytest

    marked = (p for p in sorted(ROOT.glob("tests/test_*.py")) if "pytest.mark.gpu" in p.read_text())
    files = sizes["tests"] or [str(p.relative_to(ROOT)) for p in marked]
    options = ["-m", "gpu and not slow", "--continue-on-collection-errors"]
    options += ["-p", "no:cacheprovider"]
    code = pytest.main([*options, *files], plugins=[Outcomes(tell)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(f"pytest ended with {code!r}")


PARTS = {
    "device": look,
    "float32": float32,
    "half precision": half,
    "throughput": throughput,
    "fine-tuning": tuning,
    "embed": embedding,
    "chapter 3": chapter,
    "tests": tests,
}


if __name__ == "__main__":
    main()
