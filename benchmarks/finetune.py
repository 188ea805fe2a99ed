"""What full fine-tuning costs: images a second, against a bare PyTorch loop of the same model.

On a GPU: CLIP's ViT-B/16 in bfloat16 at batch 64, the share of the measured peak of matrix
products, the peak of memory with and without recomputing activations, and what a checkpoint adds
to an epoch. The loop of ``cxrlib.predict.training`` should cost at most 5 % more than the bare one,
which has all images on the device already. Without a GPU: the same for phantom-vit, small, in
float32.

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

OVERHEAD, ROUNDS, WARM, CLASSES, EPOCHS = 0.05, 11, 3, 6, 5
GPU = {"model": "seeded:clip_vit_b16", "batch": 64, "precision": "bfloat16", "steps": 20}
CPU = {"model": "phantom-vit", "batch": 16, "precision": "float32", "steps": 5}
TRAIN, MATRIX = 840, {"cuda": 8192, "cpu": 1024}  # training images of NIH 6x200


def main():
    cuda = torch.cuda.is_available()
    device, plan = torch.device("cuda" if cuda else "cpu"), GPU if cuda else CPU
    print(f"{name_of(device)}; torch {torch.__version__}")
    if not cuda:
        print("GPU part (ViT-B/16, bfloat16, batch 64): NOT RUN, torch sees no GPU here")
    settings = training.Settings(
        batch=plan["batch"], precision=plan["precision"], learning_rate=1e-5
    )
    network, size = built(plan["model"], device)
    speed(plan, network, size, settings)
    memory(plan, settings, device)
    checkpoints(plan, network, size, settings)


def name_of(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    said = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in said.splitlines() if "model name" in line]
    return f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"


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


def speed(plan, network, size, settings):
    """Seconds a step, ours and bare in turn on the same network."""
    batch, steps = plan["batch"], WARM + plan["steps"]
    device = next(network.parameters()).device
    x, y = made(batch * steps, size)
    rows, valid = torch.arange(len(x)), torch.arange(2)
    there = x.to(device), y.to(device)
    one = training.Settings(**{**vars(settings), "epochs": 1})
    pairs = []
    for seed in range(ROUNDS):
        ours = timed(network, lambda s=seed: training.fit(network, x, y, rows, valid, one, s))
        plain = timed(network, lambda: bare(network, *there, settings))
        pairs.append((ours, plain))
    ours, plain = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    ratios = sorted(a / b for a, b in pairs)
    ratio = statistics.median(ratios)
    peak, work = matmul_peak(device, plan["precision"]), flops(network, x[:batch], settings)
    print(
        f"{plan['model']}, full fine-tuning, {plan['precision']}, batch {batch}: "
        f"{batch / ours:.1f} images a second (bare {batch / plain:.1f}), "
        f"{work / ours / 1e12:.3g} TFLOP/s, {work / ours / peak:.0%} of the {peak / 1e12:.3g} "
        f"of a product of two matrices of side {MATRIX[device.type]}"
    )
    verdict = "met" if ratio <= 1 + OVERHEAD else "NOT met"
    print(
        f"    against the bare loop: time a step x{ratio:.3f} (of {ROUNDS} pairs: "
        f"{ratios[0]:.3f} to {ratios[-1]:.3f}; at most {1 + OVERHEAD}: {verdict})"
    )


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


# --- memory and checkpoints ---


def memory(plan, settings, device):
    """Of a step: the measured peak on a GPU, else counted."""
    found = {}
    for recompute in (False, True):
        network, size = built(plan["model"], device, recompute)
        x, y = made(2 * plan["batch"], size)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            rows = torch.arange(len(x))
            one = training.Settings(**{**vars(settings), "epochs": 1})
            training.fit(network, x, y, rows, rows[:2], one, 0)
            found[recompute] = torch.cuda.max_memory_allocated()
        else:
            found[recompute] = training.needed_memory(network.train(), x[: plan["batch"]])
        del network
    how = "measured peak" if device.type == "cuda" else "counted"
    print(
        f"    memory ({how}): {found[False] / 2**20:.0f} MiB; recomputing activations "
        f"{found[True] / 2**20:.0f} MiB"
    )


def checkpoints(plan, network, size, settings):
    """What writing a checkpoint adds to an epoch of NIH 6x200; the first epoch warms up."""
    x, y = made(TRAIN + 2, size)
    rows, ends, training_time = torch.arange(len(x)), [], []

    def report(row, _):
        ends.append(time.perf_counter())
        training_time.append(row["seconds"])

    few = training.Settings(**{**vars(settings), "epochs": EPOCHS})
    with tempfile.TemporaryDirectory() as folder:
        training.fit(network, x, y, rows[:TRAIN], rows[TRAIN:], few, 0, Path(folder), report=report)
        written = sum(p.stat().st_size for p in Path(folder).iterdir()) / 2**20
    epochs = training_time[1:]
    closing = [b - a - t for a, b, t in zip(ends, ends[1:], epochs, strict=False)]
    epoch, close = statistics.median(epochs), statistics.median(closing)
    print(
        f"    an epoch of {TRAIN} images: {epoch:.2f} s, its checkpoint {close:.2f} s more "
        f"({close / epoch:.1%}; {written:.0f} MiB)"
    )


if __name__ == "__main__":
    main()
