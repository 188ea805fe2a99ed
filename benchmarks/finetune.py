"""What full fine-tuning costs: images a second, against a bare PyTorch loop of the same model.

The loop of ``cxrlib.predict.training`` should cost at most 5 % more than the bare one, which has
all images on the device already. Besides: what a checkpoint adds to an epoch, and the peak of
memory with and without recomputing activations. Here for phantom-vit on the CPU, small, in float32;
for CLIP's ViT-B/16 on a GPU it is a part of ``make gpu-check``.

Run: python benchmarks/finetune.py
"""

import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from cxrlib import models
from cxrlib.predict import adapters, training

OVERHEAD, WARM, CLASSES = 0.05, 3, 6
TRAIN, MATRIX = 840, {"cuda": 8192, "cpu": 1024}  # training images of NIH 6x200
PLAN = {
    "model": "phantom-vit",
    "batch": 16,
    "precision": "float32",
    "steps": 5,
    "rounds": 11,
    "images": TRAIN,
    "epochs": 5,
}


def main():
    device = torch.device("cpu")
    print(f"{processor()}, {torch.get_num_threads()} threads; torch {torch.__version__}")
    print(f"{PLAN['model']}, full fine-tuning, {PLAN['precision']}, batch {PLAN['batch']}")
    measure(PLAN, device, show)


def show(what, value, unit, at_most=None, low=None, high=None):
    """Print a figure."""
    span = "" if low is None else f" ({low:.4g} to {high:.4g})"
    verdict = "met" if at_most is None or value <= at_most else "NOT met"
    aim = "" if at_most is None else f", at most {at_most}: {verdict}"
    print(f"    {what}: {value:.4g} {unit}{span}{aim}", flush=True)


def measure(plan, device, tell):
    """Tell all figures of a plan, one after the other."""
    settings = training.Settings(
        batch=plan["batch"], precision=plan["precision"], learning_rate=1e-5
    )
    network, size = built(plan["model"], device)
    speed(plan, network, size, settings, tell)
    checkpoints(plan, network, size, settings, tell)
    del network
    memory(plan, settings, device, tell)


def processor():
    said = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in said.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def built(name, device, recompute=False):
    """The image half with a head, and the side of its images."""
    model = models.load_model(name).to(device)
    tower, films = adapters.tower(model), adapters.probe(model)
    if recompute:
        adapters.recompute_activations(tower)
    with torch.no_grad():
        width = tower(films.to(device)).shape[1]
    return nn.Sequential(tower, nn.Linear(width, CLASSES)).to(device), films.shape[-1]


def made(n, size):
    return torch.randn(n, 3, size, size), torch.randint(0, CLASSES, (n,))


# --- speed ---


def speed(plan, network, size, settings, tell):
    """Seconds a step, ours and bare in turn on the same network."""
    batch, steps = plan["batch"], WARM + plan["steps"]
    device = next(network.parameters()).device
    x, y = made(batch * steps, size)
    rows, valid = torch.arange(len(x)), torch.arange(2)
    there = x.to(device), y.to(device)
    one = training.Settings(**{**vars(settings), "epochs": 1})
    pairs = []
    for seed in range(plan["rounds"]):
        ours = timed(network, lambda s=seed: training.fit(network, x, y, rows, valid, one, s))
        plain = timed(network, lambda: bare(network, *there, settings))
        pairs.append((ours, plain))
    ours, plain = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    ratios = sorted(a / b for a, b in pairs)
    peak, work = matmul_peak(device, plan["precision"]), flops(network, x[:batch], settings)
    tell(
        "time a step, against the bare loop",
        statistics.median(ratios),
        "x",
        at_most=1 + OVERHEAD,
        low=ratios[0],
        high=ratios[-1],
    )
    tell("training", batch / ours, "images/s")
    tell("training, the bare loop", batch / plain, "images/s")
    side = MATRIX[device.type]
    tell(f"product of two matrices of side {side}", peak / 1e12, "TFLOP/s")
    tell("training, of the product of matrices", work / ours / peak, "share")


def bare(network, x, y, settings):
    """One epoch as one would write it, with nothing around it."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, fused=True)
    for part in torch.randperm(len(x), device=x.device).split(settings.batch):
        optimizer.zero_grad()
        with training.autocast(x.device, settings.precision):
            loss = F.cross_entropy(network(x[part]), y[part])
        loss.backward()
        optimizer.step()


def timed(network, run):
    """Seconds from the start of one step to that of the next, the first few steps left out."""
    cuda = next(network.parameters()).is_cuda
    ticks = []

    def tick(module, _):
        if module.training:
            ticks.append(torch.cuda.Event(enable_timing=True) if cuda else time.perf_counter())
            if cuda:
                ticks[-1].record()

    hook = network.register_forward_pre_hook(tick)
    run()
    hook.remove()
    first, last = ticks[WARM], ticks[-1]
    if cuda:
        torch.cuda.synchronize()
    seconds = first.elapsed_time(last) / 1000 if cuda else last - first
    return seconds / (len(ticks) - WARM - 1)


def flops(network, x, settings):
    """Floating-point operations of a step, forward and backward."""
    x = x.to(next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        with training.autocast(x.device, settings.precision):
            total = network(x).sum()
        total.backward()
    network.zero_grad()
    return counter.get_total_flops()


def matmul_peak(device, precision):
    """Operations a second of the product of two large matrices, the fastest of many."""
    n = MATRIX[device.type]
    dtype = training.PRECISIONS[precision] or torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


# --- checkpoints and memory ---


def checkpoints(plan, network, size, settings, tell):
    """What writing a checkpoint adds to an epoch; the first epoch warms up."""
    n = plan["images"]
    x, y = made(n + 2, size)
    rows, ends, training_time = torch.arange(len(x)), [], []

    def report(row, _):
        ends.append(time.perf_counter())
        training_time.append(row["seconds"])

    few = training.Settings(**{**vars(settings), "epochs": plan["epochs"]})
    with tempfile.TemporaryDirectory() as folder:
        training.fit(network, x, y, rows[:n], rows[n:], few, 0, Path(folder), report=report)
        written = sum(p.stat().st_size for p in Path(folder).iterdir()) / 2**20
    epochs = training_time[1:]
    closing = [b - a - t for a, b, t in zip(ends, ends[1:], epochs, strict=False)]
    epoch, close = statistics.median(epochs), statistics.median(closing)
    tell(f"an epoch of {n} images", epoch, "s")
    tell("its checkpoint", close, "s")
    tell("its checkpoint, of the epoch", close / epoch, "share")
    tell("its checkpoint, on disk", written, "MiB")


def memory(plan, settings, device, tell):
    """Of a step: the measured peak on a GPU, else counted."""
    how = "measured peak" if device.type == "cuda" else "counted"
    for recompute in (False, True):
        network, size = built(plan["model"], device, recompute)
        x, y = made(2 * plan["batch"], size)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            rows = torch.arange(len(x))
            one = training.Settings(**{**vars(settings), "epochs": 1})
            training.fit(network, x, y, rows, rows[:2], one, 0)
            found = torch.cuda.max_memory_allocated()
        else:
            found = training.needed_memory(network.train(), x[: plan["batch"]])
        del network
        way = ", recomputing activations" if recompute else ""
        tell(f"memory{way} ({how})", found / 2**20, "MiB")


if __name__ == "__main__":
    main()
