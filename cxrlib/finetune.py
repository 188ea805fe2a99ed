"""Four ways to adapt a CLIP model to one-of-several classification (X, section 2.3).

Linear probe and MLP train a head on frozen embeddings; LoRA adds low-rank updates to the layers of
the image encoder; full fine-tuning updates the whole encoder. All share one training loop.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from cxrlib import adapters, training
from cxrlib.embed import embed, folder_for, loaded
from cxrlib.training import Settings
from cxrlib.zeroshot import one_hot_rows, softmax

STRATEGIES = ("linear probe", "MLP", "LoRA", "full")
ON_EMBEDDINGS = ("linear probe", "MLP")
HIDDEN = 128  # units of the MLP; X gives none
LEARNING_RATES = {
    "linear probe": (3e-3, 1e-2, 3e-2),
    "MLP": (1e-3, 3e-3, 1e-2),
    "LoRA": (2e-3, 5e-3, 1e-2),
    "full": (2e-4, 5e-4, 1e-3),
}
"""Rates of the validation search; ours, as X gives none. The middle one is the default."""
SPLITS = ("train", "valid", "test")
MERGE_TOLERANCE = 1e-3  # of the largest logit


@dataclass(frozen=True)
class Task:
    """A cohort, a model and the classes to tell apart; films and embeddings are read once.

    Attributes
    ----------
    cohort : Cohort
    model : loaded model or name
    labels : sequence of str
        The classes.
    target : str
        The column of the cohort's table that holds them.
    """

    cohort: object
    model: object
    labels: Sequence[str]
    target: str = "disease"

    def __post_init__(self):
        object.__setattr__(self, "model", loaded(self.model))
        if self.target not in self.cohort.table:
            raise ValueError(
                f"cohort {self.cohort.name!r} has no column {self.target!r} with one class an "
                "image; take a balanced cohort"
            )
        unknown = sorted(set(self.cohort.table[self.target]) - set(self.labels))
        if unknown:
            raise ValueError(f"column {self.target!r}: {', '.join(unknown)} not among the labels")

    @cached_property
    def y(self) -> Tensor:
        """Class of each image, int64 (n,)."""
        codes = pd.Categorical(self.cohort.table[self.target], categories=list(self.labels)).codes
        return torch.from_numpy(codes.astype(np.int64))

    @cached_property
    def embeddings(self) -> Tensor:
        """Float32 (n, d), unit norm."""
        return torch.from_numpy(embed(self.cohort, self.model))

    @cached_property
    def pixels(self) -> Tensor:
        """What the model makes of all films, float32 (n, 3, h, w): kept in memory."""
        n, step = len(self.cohort.table), 64
        parts = [
            self.model.preprocess(self.cohort.images(np.arange(i, min(i + step, n))))
            for i in range(0, n, step)
        ]
        return torch.cat(parts)


@dataclass(frozen=True)
class FineTuned:
    """What one adaptation gave.

    Attributes
    ----------
    predictions : DataFrame
        Test images, as :func:`cxrlib.zeroshot.classify` returns them.
    history : DataFrame
        See :class:`cxrlib.training.Fit`.
    best_epoch : int
        Epoch of the lowest validation loss; its weights made the predictions.
    trainable : int
        Number of trained parameters.
    seconds : float
        Training time.
    memory : int
        Bytes that a step needs: counted on the CPU, the measured peak on a GPU.
    adapted : DataFrame or None
        For LoRA, see :func:`cxrlib.adapters.listing`.
    settings : Settings
    weights : str
        SHA-256 of the trained tensors.
    folder : Path or None
        Where they lie.
    """

    predictions: pd.DataFrame
    history: pd.DataFrame
    best_epoch: int
    trainable: int
    seconds: float
    memory: int
    adapted: pd.DataFrame | None
    settings: Settings
    weights: str
    folder: Path | None


def settings_for(strategy: str, **changed) -> Settings:
    """The settings of a strategy, with its own learning rate unless one is given."""
    _known(strategy)
    rate = LEARNING_RATES[strategy][1]
    return Settings(**({"learning_rate": rate} | changed))


def fine_tune(
    task: Task,
    strategy: str,
    split=None,
    settings: Settings | None = None,
    seed: int = 0,
    folder: Path | None = None,
    keep: bool = True,
) -> FineTuned:
    """Adapt a model on the training part of a split and predict its test part.

    Parameters
    ----------
    task : Task
    strategy : one of ``STRATEGIES``
    split : array of str (n,), optional
        "train", "valid" or "test" for each image; by default the cohort's own.
    settings : Settings, optional
        By default :func:`settings_for` the strategy.
    seed : int
        Of the initial head, the adapters and the order of the images.
    folder : Path, optional
        Where the run is kept; by default a folder of its own, named by its fingerprint, beside
        the kept embeddings. A finished run is read from there, an unfinished one goes on.
    keep : bool
        False keeps nothing on disk.

    Raises
    ------
    ValueError
        Unknown strategy; a split without images, or a class that training lacks; a folder with
        another run.
    FloatingPointError, MemoryError
        See :func:`cxrlib.training.fit`.
    """
    _known(strategy)
    settings = settings or settings_for(strategy)
    if settings.augment and strategy in ON_EMBEDDINGS:
        raise ValueError(f"augment=True: a {strategy} is trained on embeddings; it sees no images")
    table = task.cohort.table
    split = table["split"].to_numpy() if split is None else np.asarray(split)
    at = _parts(task, split)
    fingerprint = run_fingerprint(task, strategy, split, settings, seed)
    if keep and folder is None:
        folder = folder_for(task.cohort) / "fine-tuning" / fingerprint[:24]
    folder = folder if keep else None
    done = _read(folder, fingerprint, settings) if folder else None
    if done is None:
        done = _run(task, strategy, at, settings, seed, folder, fingerprint)
    score = softmax(done.pop("logits").numpy())
    predictions = one_hot_rows(
        task.cohort, split == "test", task.model.name, strategy, task.labels, task.target, score
    )
    return FineTuned(predictions, settings=settings, folder=folder, **done)


def search(task: Task, strategy: str, split=None, rates=None, **options) -> pd.DataFrame:
    """Train at several learning rates; the test part is not looked at.

    Parameters
    ----------
    task, strategy, split : as in :func:`fine_tune`
    rates : sequence of float, optional
        By default those of :data:`LEARNING_RATES`.
    options : ``settings``, ``seed``, ``keep`` of :func:`fine_tune`

    Returns
    -------
    DataFrame
        ``learning_rate, valid_loss`` (the lowest, nats; NaN where the loss ran away),
        ``best_epoch``, ``chosen``.
    """
    _known(strategy)
    start = options.pop("settings", None) or settings_for(strategy)
    rows = []
    for rate in LEARNING_RATES[strategy] if rates is None else rates:
        try:
            tried = fine_tune(task, strategy, split, replace(start, learning_rate=rate), **options)
            lowest, epoch = tried.history["valid_loss"].min(), tried.best_epoch
        except FloatingPointError:
            lowest, epoch = np.nan, None
        rows.append({"learning_rate": rate, "valid_loss": lowest, "best_epoch": epoch})
    table = pd.DataFrame(rows)
    if table["valid_loss"].isna().all():
        raise FloatingPointError(f"{strategy}: the loss ran away at every rate tried; give others")
    return table.assign(chosen=table.index == table["valid_loss"].idxmin())


def run_fingerprint(task: Task, strategy: str, split, settings: Settings, seed: int) -> str:
    """SHA-256 of everything that decides the trained weights."""
    model = task.model
    here = Path(__file__).parent
    code = [(here / f).read_bytes() for f in ("finetune.py", "training.py", "adapters.py")]
    parts = {
        "cohort": task.cohort.fingerprint,
        "split": hashlib.sha256("\n".join(split).encode()).hexdigest(),
        "model": model.fingerprint,
        "device": torch.device(model.device).type,
        "strategy": strategy,
        "labels": list(task.labels),
        "target": task.target,
        "settings": asdict(settings),
        "seed": seed,
        "torch": torch.__version__,
        "code": hashlib.sha256(b"".join(code)).hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# --- networks ---


class Head(nn.Module):
    """One linear layer on standardised embeddings, or two with a ReLU between them (MLP).

    Components of unit vectors are small: they are standardised by mean and standard deviation of
    the training images under the model as it came.
    """

    def __init__(self, training_embeddings: Tensor, classes: int, hidden: int | None = None):
        super().__init__()
        width = training_embeddings.shape[1]
        self.register_buffer("mean", training_embeddings.mean(dim=0))
        self.register_buffer("sd", training_embeddings.std(dim=0).clamp_min(1e-6))
        layers = [nn.Linear(width, hidden), nn.ReLU()] if hidden else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or width, classes))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers((z - self.mean) / self.sd)


class Classifier(nn.Module):
    """Image tower, its embedding brought to unit length as in pretraining, and a head."""

    def __init__(self, tower: nn.Module, head: Head, frozen: bool):
        super().__init__()
        self.tower, self.head, self.frozen = tower, head, frozen

    def train(self, mode: bool = True):
        super().train(mode)
        if self.frozen:  # no statistics, no stochastic depth in layers that are not trained
            self.tower.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.normalize(self.tower(x).float(), dim=-1))


def build(task: Task, strategy: str, train: Tensor, settings: Settings, seed: int):
    """The network of a strategy and what goes into it: (network, inputs (n, ...))."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = HIDDEN if strategy == "MLP" else None
        head = Head(task.embeddings[train], len(task.labels), hidden)
        if strategy in ON_EMBEDDINGS:
            return head.to(task.model.device), task.embeddings
        tower, lora = adapters.tower(task.model), strategy == "LoRA"
        if settings.recompute:
            adapters.recompute_activations(tower)
        if lora:
            tower = adapters.with_lora(tower, adapters.probe(task.model), settings.rank)
        return Classifier(tower, head, frozen=lora).to(task.model.device), task.pixels


def _run(task, strategy, at, settings, seed, folder, fingerprint) -> dict:
    network, x = build(task, strategy, at["train"], settings, seed)
    device = next(network.parameters()).device
    lora = strategy == "LoRA"
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        memory = training.needed_memory(network.train(), x[at["train"][: settings.batch]])
    fitted = training.fit(
        network,
        x,
        task.y,
        at["train"],
        at["valid"],
        settings,
        seed,
        folder,
        fingerprint,
        reporter(f"{task.model.name}, {strategy}"),
    )
    if cuda:
        memory = torch.cuda.max_memory_allocated(device)
    state = training.trained_state(network)
    done = {
        "history": fitted.history,
        "best_epoch": fitted.best_epoch,
        "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "seconds": float(fitted.history["seconds"].sum()),
        "memory": int(memory),
        "adapted": adapters.listing(network.tower) if lora else None,
        "weights": training.state_hash(state),
        "logits": (_merged_logits if lora else training.predict)(network, x, at["test"], settings),
    }
    if folder is not None:
        _write(folder, fingerprint, done)
    return done


def _merged_logits(network, x, test, settings):
    """Predictions with the adapters merged into the weights, once that gives the same."""
    first = test[: settings.batch]
    expected = training.predict(network, x, first, settings)
    network.tower = adapters.merged(network.tower)
    logits = training.predict(network, x, test, settings)
    distance = (logits[: len(first)] - expected).abs().max() / expected.abs().max()
    if settings.precision == "float32" and distance > MERGE_TOLERANCE:
        raise RuntimeError(
            f"merged LoRA weights give other logits than the adapters ({distance:.1e} of the "
            "largest): a layer was adapted that the network does not use as peft expects"
        )
    return logits


# --- what is checked, kept and said ---


def _known(strategy):
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}: expected one of {', '.join(STRATEGIES)}")


def _parts(task, split) -> dict[str, Tensor]:
    """Positions of the images of each part."""
    cohort, table = task.cohort, task.cohort.table
    if len(split) != len(table) or not set(split) <= set(SPLITS):
        raise ValueError(f"split: expected one of {', '.join(SPLITS)} for each of {len(table)}")
    at = {part: np.flatnonzero(split == part) for part in SPLITS}
    for part, rows in at.items():
        if not len(rows):
            raise ValueError(f"cohort {cohort.name!r} has no images in split {part!r}")
    trained = table.iloc[at["train"]]
    absent = set(task.labels) - set(trained[task.target])
    if absent:
        raise ValueError(
            f"no training image of class {', '.join(sorted(absent))}: take another split, or leave "
            "the class out"
        )
    return {part: torch.from_numpy(rows) for part, rows in at.items()}


def _write(folder, fingerprint, done):
    """The finished run, in one step; what only a resumed one needs goes."""
    tables = {k: done[k].to_dict("list") for k in ("history", "adapted") if done[k] is not None}
    plain = {k: v for k, v in done.items() if k not in ("history", "adapted")}
    part = folder / f".done.{os.getpid()}"
    torch.save({"fingerprint": fingerprint, "tables": tables} | plain, part)
    part.replace(folder / "done.pt")
    (folder / "last.pt").unlink(missing_ok=True)


def _read(folder, fingerprint, settings):
    """A finished run; None where there is none."""
    path = folder / "done.pt"
    if not path.exists():
        return None
    kept = torch.load(path, weights_only=True)
    if kept.pop("fingerprint") != fingerprint:
        raise ValueError(
            f"{path} is of another run (another cohort, split, model, strategy, setting, seed or "
            "version of this library): name another folder, or remove this one"
        )
    tables = {k: pd.DataFrame(v) for k, v in kept.pop("tables").items()}
    return {"adapted": None} | kept | tables


STATUS = "CXRBOOK_STATUS"  # environment variable: the file that says how far a long cell is


def reporter(title: str):
    """Says after each epoch how far training is: on a terminal, and to the driver of the book."""
    start = time.monotonic()
    done = []

    def report(row, epochs):
        done.append(row["epoch"])
        left = (time.monotonic() - start) / len(done) * (epochs - row["epoch"])
        line = (
            f"{title}: epoch {row['epoch']}/{epochs}, loss {row['train_loss']:.3f}, validation "
            f"{row['valid_loss']:.3f} (accuracy {row['valid_accuracy']:.2f}), {left:.0f} s left"
        )
        if path := os.environ.get(STATUS):
            training.replace(Path(path), line.encode())
        if sys.stderr.isatty():
            end = "\n" if row["epoch"] == epochs else ""
            print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)

    return report
