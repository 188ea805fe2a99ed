"""One training loop for all ways of adapting a model (X, section 3.1).

AdamW, a cosine schedule, and the weights of the epoch with the lowest validation loss. After every
epoch everything that the next one needs is on disk, so a run that is killed goes on where it was:
on the CPU, with the same number of threads, to the same bits.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

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
        Lower ones are torch's autocast; weights stay in float32.
    recompute : bool
        Gradient checkpointing: less memory, about a third more time.
    split_batches : bool
        When memory runs out, halve what goes through the network at once and add up gradients.
        Same result, but for networks with BatchNorm trained in full.
    """

    epochs: int = 150
    batch: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    augment: bool = False
    rank: int = 4
    precision: str = "float32"
    recompute: bool = False
    split_batches: bool = False

    def __post_init__(self):
        for name in ("epochs", "batch", "rank"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}={value!r}: expected a whole number, 1 or more")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate={self.learning_rate!r}: expected a number above 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay={self.weight_decay!r}: expected 0 or more")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing!r}: expected 0 to below 1")
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ValueError(f"precision={self.precision!r}: expected one of {known}")


@dataclass(frozen=True)
class Fit:
    """What training gave; the network itself holds the best weights.

    Attributes
    ----------
    history : DataFrame
        ``epoch, train_loss, valid_loss`` (cross-entropy, nats), ``valid_accuracy``, ``seconds``.
    best_epoch : int
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
        Where checkpoints are kept; a run found there goes on.
    fingerprint : str
        Names the run; a checkpoint of another one is refused.
    report : callable, optional
        Called with each row of the history and the number of epochs.

    Raises
    ------
    FloatingPointError
        A loss that is not finite: names the step and the last good checkpoint.
    ValueError
        A checkpoint in ``folder`` is of another run, or damaged.
    MemoryError
        Memory ran out; says which setting to lower.
    """
    device = next(network.parameters()).device
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    steps_an_epoch = math.ceil(len(train) / settings.batch)
    steps = settings.epochs * steps_an_epoch
    run = _Run(network, optimizer, scaler, settings.batch)
    if folder is not None:
        run.resume(folder, fingerprint)
    # Whatever is drawn depends on seed and epoch alone, so a resumed run draws the same.
    with torch.random.fork_rng():
        for epoch in range(len(run.history) + 1, settings.epochs + 1):
            start = time.perf_counter()
            number = int(hashlib.sha256(f"{seed} {epoch}".encode()).hexdigest()[:15], 16)
            torch.manual_seed(number)
            order = train[
                torch.randperm(len(train), generator=torch.Generator().manual_seed(number))
            ]
            network.train()
            total, step = 0.0, (epoch - 1) * steps_an_epoch
            for part in order.split(settings.batch):
                for group in optimizer.param_groups:
                    group["lr"] = cosine(settings.learning_rate, step / steps)
                step += 1
                loss = _step(run, x, y, part, settings, device)
                if not math.isfinite(loss):
                    raise FloatingPointError(_lost(loss, step, steps, epoch, settings, folder))
                total += loss * len(part)
            logits = predict(network, x, valid, settings)
            valid_loss = F.cross_entropy(logits, y[valid]).item()
            row = {
                "epoch": epoch,
                "train_loss": total / len(train),
                "valid_loss": valid_loss,
                "valid_accuracy": (logits.argmax(dim=1) == y[valid]).float().mean().item(),
                "seconds": time.perf_counter() - start,
            }
            run.close_epoch(row, folder, fingerprint)
            if report:
                report(row, settings.epochs)
    run.restore_best(folder)
    return Fit(pd.DataFrame(run.history), run.best_epoch)


def cosine(peak: float, progress: float) -> float:
    """Learning rate ``peak / 2 (1 + cos(pi progress))``, for a progress of 0 to below 1."""
    return 0.5 * peak * (1 + math.cos(math.pi * progress))


def _step(run, x, y, part, settings, device) -> float:
    """One step of AdamW on a batch; its mean loss."""
    while True:
        run.optimizer.zero_grad(set_to_none=True)
        try:
            total = 0.0
            for few in part.split(run.at_once):
                batch, truth = x[few], y[few].to(device, non_blocking=True)
                if settings.augment:
                    batch = shifted(batch)
                with autocast(device, settings.precision):
                    logits = run.network(batch.to(device, non_blocking=True))
                loss = F.cross_entropy(
                    logits.float(), truth, label_smoothing=settings.label_smoothing, reduction="sum"
                )
                loss = loss / len(part)
                run.scaler.scale(loss).backward()
                total += loss.item()
            break
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if not settings.split_batches or run.at_once == 1:
                raise MemoryError(_too_large(run.at_once, settings)) from None
        # Out of the except block, which keeps the tensors of the failed try alive.
        run.at_once = (run.at_once + 1) // 2
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return total


def predict(network: nn.Module, x: Tensor, positions: Tensor, settings: Settings) -> Tensor:
    """Logits of the images at ``positions``, float32 (m, classes) on the CPU."""
    device = next(network.parameters()).device
    network.eval()
    with torch.no_grad(), autocast(device, settings.precision):
        parts = [
            network(x[few].to(device)).float().cpu() for few in positions.split(settings.batch)
        ]
    return torch.cat(parts)


def shifted(batch: Tensor) -> Tensor:
    """Each image turned, shifted and scaled at random; what comes into view is as dark as it gets.

    batch : (n, 3, h, w)
    """
    move = [
        v2.RandomAffine(**SHIFT, interpolation=v2.InterpolationMode.BILINEAR, fill=float(i.min()))
        for i in batch
    ]
    return torch.stack([m(image) for m, image in zip(move, batch, strict=True)])


def autocast(device: torch.device, precision: str):
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
    own = {t.untyped_storage().data_ptr() for t in weights}
    kept = {}

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (
                storage.nbytes(),
                tensor,
            )  # alive, so no address comes twice
        return tensor

    buffers = {name: b.clone() for name, b in network.named_buffers()}
    with torch.random.fork_rng(), torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        network(batch).sum()
    for name, b in network.named_buffers():  # BatchNorm counted this pass
        b.copy_(buffers[name])
    trained = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    return (
        sum(t.numel() * t.element_size() for t in weights)
        + 3 * trained
        + sum(size for size, _ in kept.values())
    )


def trained_state(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the tensors that training can change: trained parameters and buffers."""
    changing = {n for n, p in network.named_parameters() if p.requires_grad}
    changing |= {n for n, _ in network.named_buffers()}
    state = network.state_dict()
    return {n: t.detach().cpu().clone().contiguous() for n, t in state.items() if n in changing}


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

    def resume(self, folder, fingerprint):
        folder.mkdir(parents=True, exist_ok=True)
        last = folder / "last.pt"
        if not last.exists():
            return
        try:
            kept = torch.load(last, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"checkpoint {last} cannot be read ({str(error).splitlines()[0]:.100}): remove its "
                "folder to train anew"
            ) from None
        if kept.get("fingerprint") != fingerprint:
            raise ValueError(
                f"checkpoint {last} is of another run (another cohort, split, model, strategy, "
                "setting, seed or version of this library): name another folder, or remove this one"
            )
        missing = self.network.load_state_dict(kept["weights"], strict=False).unexpected_keys
        if missing or set(kept["weights"]) != set(trained_state(self.network)):
            raise ValueError(f"checkpoint {last} does not fit the network: remove its folder")
        self.optimizer.load_state_dict(kept["optimizer"])
        self.scaler.load_state_dict(kept["scaler"])
        self.at_once, self.history = kept["at_once"], kept["history"]
        self.best_epoch = kept["best_epoch"]
        self.best = load_file(folder / f"best-{self.best_epoch}.safetensors")

    def close_epoch(self, row, folder, fingerprint):
        lowest = min((r["valid_loss"] for r in self.history), default=math.inf)
        self.history.append(row)
        if row["valid_loss"] < lowest:
            self.best_epoch, self.best = row["epoch"], trained_state(self.network)
        if folder is None:
            return
        best = folder / f"best-{self.best_epoch}.safetensors"
        if self.best_epoch == row["epoch"]:
            replace(best, to_bytes(self.best))
        state = {
            "fingerprint": fingerprint,
            "weights": trained_state(self.network),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "at_once": self.at_once,
            "history": self.history,
            "best_epoch": self.best_epoch,
        }
        part = folder / f".last.{os.getpid()}"
        torch.save(state, part)
        part.replace(folder / "last.pt")
        # Only now: until here the former checkpoint needed the former best weights.
        for old in folder.glob("best-*.safetensors"):
            if old != best:
                old.unlink()
        replace(folder / "history.csv", pd.DataFrame(self.history).to_csv(index=False).encode())

    def restore_best(self, folder):
        self.network.load_state_dict(self.best, strict=False)


def replace(path: Path, data: bytes) -> None:
    """Write a file in one step."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)


def state_hash(state: dict[str, Tensor]) -> str:
    """SHA-256 of named tensors."""
    return hashlib.sha256(to_bytes(dict(sorted(state.items())))).hexdigest()


# --- what is said when it goes wrong ---


def _lost(loss, step, steps, epoch, settings, folder):
    good = f"the last good checkpoint is that of epoch {epoch - 1}"
    where = f" in {folder}" if folder is not None else " (none is kept on disk)"
    return (
        f"loss is {loss} at step {step} of {steps} (epoch {epoch}); "
        f"{good + where if epoch > 1 else 'there is no good checkpoint before it'}; lower "
        f"learning_rate ({settings.learning_rate:g})"
        + ("" if settings.precision == "float32" else ", or use precision='float32'")
    )


def _out_of_memory(error) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def _too_large(at_once, settings):
    ways = [] if settings.split_batches else ["set split_batches=True (same result, slower)"]
    ways += [] if settings.recompute else ["recompute=True (gradient checkpointing)"]
    ways += ["precision='bfloat16'"] if settings.precision == "float32" else []
    ways += [f"lower batch (now {settings.batch})"] if settings.batch > 1 else []
    return f"memory ran out with {at_once} images at once: {', or '.join(ways)}"
