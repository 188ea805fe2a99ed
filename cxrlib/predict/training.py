"""One training loop for all ways of adapting a model (X, section 3.1).

AdamW, a cosine schedule, and the weights of the epoch with the lowest validation loss. After every
epoch everything that the next one needs is on disk, so a run that is killed goes on where it was:
on the CPU, with the same number of threads, to the same bits.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from cxrlib.core import atomic
from cxrlib.core.checks import one_of
from cxrlib.embed.worker import out_of_memory
from cxrlib.models.encoder import PRECISIONS

SHIFT = {"degrees": 5, "translate": (0.05, 0.05), "scale": (0.95, 1.05)}  # of augmentation


@dataclass(frozen=True)
class Settings:
    """How a model is trained; what X does not state is marked as ours.

    Attributes
    ----------
    epochs, batch : int
        150 and 64 in X.
    learning_rate : float
        Peak of the cosine; X chose its rates on validation and does not print them.
    head_rate : float, optional
        Likewise for the head, which starts from random numbers; ours. The same rate by default.
    weight_decay : float
        AdamW's own default; ours.
    label_smoothing : float
        In [0, 1); off in X, as far as it says.
    augment : bool
        Turn (5 degrees), shift and scale (5 %) each training image anew; off in X, as far as it
        says. Images are never mirrored: the heart is on the left.
    rank : int
        Of LoRA; ours.
    precision : {"float32", "bfloat16", "float16"}
        Lower ones are torch's autocast; weights stay in float32. On a GPU, float32 convolutions
        are computed in TF32, torch's default.
    recompute : bool
        Gradient checkpointing: less memory, about a third more time.
    split_batches : bool
        When memory runs out, halve what goes through the network at once and add up gradients.
        Same result, but for networks with BatchNorm trained in full, and what dropout draws.
    """

    epochs: int = 150
    batch: int = 64
    learning_rate: float = 1e-3
    head_rate: float | None = None
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    augment: bool = False
    rank: int = 4
    precision: str = "float32"
    recompute: bool = False
    split_batches: bool = False

    def __post_init__(self):
        number = (int, float)
        for names, kind, holds, expected in (
            ("epochs batch rank", int, lambda v: v >= 1, "a whole number, 1 or more"),
            ("learning_rate", number, lambda v: 0 < v < math.inf, "a number above 0"),
            ("head_rate", number, lambda v: 0 < v < math.inf, "a number above 0, or None"),
            ("weight_decay", number, lambda v: 0 <= v < math.inf, "a number, 0 or more"),
            ("label_smoothing", number, lambda v: 0 <= v < 1, "a number from 0 to below 1"),
            ("augment recompute split_batches", bool, lambda v: True, "True or False"),
        ):
            for name in names.split():
                value = getattr(self, name)
                right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
                if not (right and holds(value)) and (name, value) != ("head_rate", None):
                    raise ValueError(f"{name}={value!r}: expected {expected}")
        one_of("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class Fit:
    """What training gave; the network itself holds the best weights.

    Attributes
    ----------
    history : DataFrame
        ``epoch, train_loss, valid_loss`` (cross-entropy, nats; labels are smoothed in the first
        alone), ``valid_accuracy``, ``seconds``.
    best_epoch : int
        Epoch of the lowest validation loss, the first of equals.
    """

    history: pd.DataFrame
    best_epoch: int


def fit(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    train: Tensor,
    valid: Tensor,
    settings: Settings,
    seed: int,
    folder: Path | None = None,
    fingerprint: str = "",
    report: Callable[[dict, int], None] | None = None,
) -> Fit:
    """Train the parameters that ask for a gradient; leave the network with its best weights.

    The last batch of an epoch is as large as is left; one image alone joins the batch before, as
    BatchNorm can learn nothing from it.

    Parameters
    ----------
    network : nn.Module
        From a batch of ``x`` to logits (n, classes), on the device that it shall be trained on.
    x : float tensor (n, ...)
        On the CPU.
    y : int64 tensor (n,)
        Classes.
    train, valid : int64 tensors
        Positions in ``x``.
    settings : Settings
    seed : int
        Of the order of the images, and of whatever the network draws.
    folder : Path, optional
        Where checkpoints are kept; a run found there goes on. For one process at a time.
    fingerprint : str
        Names the run; a checkpoint of another one is refused.
    report : callable, optional
        Called with each row of the history and the number of epochs.

    Raises
    ------
    FloatingPointError
        A loss that is not finite: names the step and the last good checkpoint, at the end of the
        epoch. The checkpoint stays; the same run would stop there again.
    ValueError
        A checkpoint in ``folder`` is of another run, or damaged.
    MemoryError
        Memory ran out; says which setting to change.
    """
    device = next(network.parameters()).device
    how = {"weight_decay": settings.weight_decay, "fused": True}
    optimizer = torch.optim.AdamW(_groups(network, settings), **how)
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    run = _Run(network, optimizer, scaler, settings.batch)
    if folder is not None:
        run.resume(folder, fingerprint)
    with _random_state_kept(device):
        for epoch in range(len(run.history) + 1, settings.epochs + 1):
            start = time.perf_counter()
            # Whatever is drawn depends on seed and epoch alone, so a resumed run draws the same.
            _seed(f"{seed} {epoch}", device)
            try:
                train_loss = _train(run, x, y, train, settings, epoch, folder)
                logits = predict(network, x, valid, settings)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                raise MemoryError(_too_large(run.at_once, settings)) from None
            valid_loss = F.cross_entropy(logits, y[valid]).item()
            _refuse_lost("validation loss", valid_loss, epoch, folder, settings)
            accuracy = (logits.argmax(dim=1) == y[valid]).float().mean().item()
            row = {"epoch": epoch, "train_loss": train_loss, "valid_loss": valid_loss}
            row |= {"valid_accuracy": accuracy, "seconds": time.perf_counter() - start}
            run.close_epoch(row, folder, fingerprint)
            if report:
                report(row, settings.epochs)
    network.load_state_dict(run.best, strict=False)
    network.eval()
    return Fit(pd.DataFrame(run.history), run.best_epoch)


def _groups(network, settings):
    """Trained parameters by their peak learning rate: all but the head, and the head."""
    head, rest = [], []
    for name, p in network.named_parameters():
        if p.requires_grad:
            (head if settings.head_rate and name.startswith("head.") else rest).append(p)
    groups = [{"params": rest, "peak": settings.learning_rate}]
    return groups + [{"params": head, "peak": settings.head_rate}] * bool(head)


def _train(run, x, y, train, settings, epoch, folder):
    """One epoch; its mean loss."""
    run.network.train()
    parts = train[torch.randperm(len(train))].split(_sizes(len(train), settings.batch))
    step, steps = (epoch - 1) * len(parts), settings.epochs * len(parts)
    losses = []
    for i, part in enumerate(parts):
        for group in run.optimizer.param_groups:
            group["lr"] = cosine(group["peak"], (step + i) / steps)
        losses.append(_gradients(run, x, y, part, settings))
        run.scaler.step(run.optimizer)
        run.scaler.update()
    # Read once an epoch, so that a GPU never waits for the next batch to be prepared.
    losses = torch.stack(losses).tolist()
    for i, loss in enumerate(losses, step + 1):
        _refuse_lost(f"loss at step {i} of {steps}", loss, epoch, folder, settings)
    return sum(loss * len(part) for loss, part in zip(losses, parts, strict=True)) / len(train)


def _gradients(run, x, y, part, settings):
    """Leave the gradients of a batch's mean loss in the network; that loss."""
    images, truth = _batch(x, y, part, settings, next(run.network.parameters()).device)
    while True:
        run.optimizer.zero_grad()
        total = torch.zeros((), device=images.device)
        sizes = _sizes(len(part), run.at_once)
        try:
            for few, classes in zip(images.split(sizes), truth.split(sizes), strict=True):
                with autocast(images.device, settings.precision):
                    logits = run.network(few)
                loss = F.cross_entropy(
                    logits.float(), classes, label_smoothing=settings.label_smoothing
                ) * (len(few) / len(part))
                run.scaler.scale(loss).backward()
                total += loss.detach()
            return total
        except RuntimeError as error:
            if not settings.split_batches or run.at_once == 1 or not out_of_memory(error):
                raise
        # Out of the except block, which keeps the tensors of the failed try alive.
        run.at_once = (min(run.at_once, len(part)) + 1) // 2


def _batch(x, y, part, settings, device):
    """Images and classes at some positions, on their way to the device."""
    pinned = device.type == "cuda"  # so that they are copied while the GPU computes
    images = torch.empty((len(part), *x.shape[1:]), dtype=x.dtype, pin_memory=pinned)
    torch.index_select(x, 0, part, out=images)
    if settings.augment:
        images = shifted(images)
    return images.to(device, non_blocking=True), y[part].to(device, non_blocking=True)


def _sizes(n: int, most: int) -> list[int]:
    """Sizes of the parts of n images, ``most`` each; a single one left over joins the last part."""
    sizes = [most] * (n // most)
    if n % most == 1 and sizes:
        sizes[-1] += 1
    elif n % most:
        sizes.append(n % most)
    return sizes


def cosine(peak: float, progress: float) -> float:
    """Learning rate ``peak / 2 (1 + cos(pi progress))``, for a progress of 0 to below 1."""
    return 0.5 * peak * (1 + math.cos(math.pi * progress))


def _random_state_kept(device):
    """Whatever is drawn inside, draws outside go on as if nothing had been."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _seed(text: str, device: torch.device) -> None:
    """Seed the generators of the CPU and of one device; torch.manual_seed seeds every GPU."""
    number = int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)


def predict(network: nn.Module, x: Tensor, positions: Tensor, settings: Settings) -> Tensor:
    """Logits of the images at ``positions``, float32 (m, classes) on the CPU."""
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad(), autocast(device, settings.precision):
        batches = positions.split(settings.batch)
        return torch.cat([network(x[few].to(device)).float().cpu() for few in batches])


def shifted(batch: Tensor) -> Tensor:
    """Each image turned, shifted and scaled at random; what comes into view is as dark as it gets.

    batch : (n, 3, h, w)
    """
    how = SHIFT | {"interpolation": v2.InterpolationMode.BILINEAR}
    return torch.stack([v2.RandomAffine(**how, fill=float(x.min()))(x) for x in batch])


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """torch's autocast to a precision; nothing for float32."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def needed_memory(network: nn.Module, batch: Tensor) -> int:
    """Bytes that a training step needs, counted: on any machine, and before anything runs out.

    Weights and buffers, gradients, AdamW's two moments, and what the forward pass keeps for the
    backward pass in float32. What libraries use in between comes on top.

    Parameters
    ----------
    network : in the mode in which it is trained
    batch : (n, ...), on the network's device
    """
    weights = [*network.parameters(), *network.buffers()]
    own = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in weights}
    kept = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    buffers = {name: b.clone() for name, b in network.named_buffers()}
    # A copy, which is as large as it looks: a view may share memory with more, or with itself.
    batch = batch.clone(memory_format=torch.contiguous_format)
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda t: t)
    with _random_state_kept(batch.device), hooks:
        network(batch).sum()
    for name, b in network.named_buffers():  # BatchNorm counted this pass
        b.copy_(buffers[name])
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    activations = sum(s.nbytes() for address, s in kept.items() if address not in own)
    return sum(own.values()) + 3 * trained + activations


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the tensors that training can change: trained parameters and buffers."""
    copied = {"device": "cpu", "copy": True, "memory_format": torch.contiguous_format}
    return {name: t.detach().to(**copied) for name, t in _changing(network).items()}


def _changing(network):
    names = {n for n, p in network.named_parameters() if p.requires_grad}
    names |= {n for n, _ in network.named_buffers()}
    return {n: t for n, t in network.state_dict().items() if n in names}


# --- what is kept of a run ---


class _Run:
    """The state of a run between two epochs, in memory and on disk.

    ``last.pt`` holds what the next epoch needs, ``best-<epoch>.safetensors`` the best weights,
    ``history.csv`` the learning curve for whoever wants an early look.
    """

    def __init__(self, network, optimizer, scaler, batch):
        self.network, self.optimizer, self.scaler = network, optimizer, scaler
        self.at_once = batch  # images that go through the network at once
        self.history, self.best_epoch, self.best = [], 0, None

    def resume(self, folder: Path, fingerprint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".*.part"):  # of a process that was killed
            part.unlink()
        last = folder / "last.pt"
        if not last.exists():
            return
        kept = read(last, lambda path: torch.load(path, map_location="cpu", weights_only=True))
        if not isinstance(kept, dict) or kept.get("fingerprint") != fingerprint:
            raise ValueError(
                f"checkpoint {last} is of another run (another cohort, split, model, strategy, "
                "setting, seed or version of this library): name another folder, or remove this one"
            )
        shapes = {name: t.shape for name, t in _changing(self.network).items()}
        if shapes != {name: t.shape for name, t in kept["weights"].items()}:
            raise ValueError(f"checkpoint {last} does not fit the network: remove its folder")
        self.network.load_state_dict(kept["weights"], strict=False)
        for part in ("optimizer", "scaler"):
            getattr(self, part).load_state_dict(kept[part])
        for name in ("at_once", "history", "best_epoch"):
            setattr(self, name, kept[name])
        self.best = read(_best(folder, self.best_epoch), load_file)
        self.follow(folder)

    def close_epoch(self, row: dict, folder: Path | None, fingerprint: str) -> None:
        lowest = min((r["valid_loss"] for r in self.history), default=math.inf)
        self.history.append(row)
        weights = trained_state(self.network)
        if better := row["valid_loss"] < lowest:
            self.best_epoch, self.best = row["epoch"], weights
        if folder is None:
            return
        if better:
            best = _best(folder, self.best_epoch)
            atomic.in_one_step(best, lambda part: save_file(weights, part))
        state = {"fingerprint": fingerprint, "weights": weights}
        state |= {part: getattr(self, part).state_dict() for part in ("optimizer", "scaler")}
        state |= {name: getattr(self, name) for name in ("at_once", "history", "best_epoch")}
        atomic.in_one_step(folder / "last.pt", lambda part: torch.save(state, part))
        self.follow(folder)

    def follow(self, folder: Path) -> None:
        """What follows from last.pt; done on resuming too, as a kill may have come before it."""
        # Only now: the former checkpoint needed the former best weights.
        for old in folder.glob("best-*.safetensors"):
            if old != _best(folder, self.best_epoch):
                old.unlink()
        table = pd.DataFrame(self.history).to_csv(index=False)
        atomic.write(folder / "history.csv", table.encode())


def _best(folder, epoch):
    return folder / f"best-{epoch}.safetensors"


def read(path: Path, how: Callable[[Path], Any]) -> Any:
    """A file of a run as ``how`` reads it; ValueError with what to do where it cannot."""
    try:
        return how(path)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} cannot be read ({reason:.100}): remove its folder to train anew"
        ) from None


def state_hash(state: dict[str, Tensor]) -> str:
    """SHA-256 of named tensors."""
    return hashlib.sha256(to_bytes(dict(sorted(state.items())))).hexdigest()


# --- what is said when it goes wrong ---


def _refuse_lost(what, loss, epoch, folder, settings):
    """Stop where a loss is not finite; say which epoch was good, and what to change."""
    if math.isfinite(loss):
        return
    if epoch == 1:
        good = "there is no good checkpoint before it"
    elif folder is None:
        good = f"the last good epoch was {epoch - 1}, of which nothing is kept on disk"
    else:
        good = f"the last good checkpoint is that of epoch {epoch - 1} in {folder}"
    lower = "" if settings.precision == "float32" else " or precision='float32'"
    raise FloatingPointError(
        f"{what} (epoch {epoch}) is {loss}; {good}; start another run with learning_rate below "
        f"{settings.learning_rate:g}{lower}"
    )


def _too_large(at_once, settings):
    ways = [] if settings.split_batches else ["set split_batches=True (same result, slower)"]
    ways += [] if settings.recompute else ["recompute=True (gradient checkpointing)"]
    ways += ["precision='bfloat16'"] if settings.precision == "float32" else []
    ways += [f"lower batch (now {settings.batch})"] if settings.batch > 1 else []
    return f"memory ran out with {at_once} images at once: {', or '.join(ways)}"
