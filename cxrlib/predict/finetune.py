"""Four ways to adapt a CLIP model to one-of-several classification (X, section 2.3).

Linear probe and MLP train a head on frozen embeddings; LoRA adds low-rank updates to the layers of
the image encoder; full fine-tuning updates the whole encoder. All share one training loop.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch import Tensor, nn

from cxrlib.core import atomic
from cxrlib.core.checks import one_of
from cxrlib.core.folders import folder_for
from cxrlib.core.progress import Bar
from cxrlib.embed.extract import embed, loaded, prepared
from cxrlib.models.encoder import Encoder
from cxrlib.predict import adapters, training
from cxrlib.predict.training import Settings
from cxrlib.predict.zeroshot import one_hot_rows, softmax

STRATEGIES = ("linear probe", "MLP", "LoRA", "full")
ON_EMBEDDINGS = ("linear probe", "MLP")
HIDDEN = 128  # units of the MLP; X gives none
LEARNING_RATES = {
    "linear probe": (1e-3, 3e-3, 1e-2),
    "MLP": (3e-4, 1e-3, 3e-3),
    "LoRA": (3e-4, 1e-3, 3e-3),
    "full": (3e-5, 1e-4, 3e-4),
}
"""Rates of the validation search; ours, as X gives none. The middle one is the default."""
OWN = {"linear probe": {"weight_decay": 1.0}, "MLP": {"weight_decay": 1.0}}
OWN |= {"LoRA": {"head_rate": 3e-3}, "full": {"head_rate": 3e-3}}
"""Settings in which a strategy differs from the defaults; ours, found by trying on the phantom."""
SPLITS = ("train", "valid", "test")
MERGE_TOLERANCE = 1e-3  # of the largest logit


@dataclass(frozen=True)
class Task:
    """A cohort, a model and the classes to tell apart; films and embeddings are read once.

    Attributes
    ----------
    cohort : Cohort
    model : loaded model or name
        Trained on the device that it was loaded on.
    labels : sequence of str
        The classes.
    target : str
        The column of the cohort's table that holds them.

    Raises
    ------
    ValueError
        An ensemble; no such column, or one with other classes than ``labels``.
    """

    cohort: object
    model: object
    labels: Sequence[str]
    target: str = "disease"

    def __post_init__(self):
        object.__setattr__(self, "model", loaded(self.model))
        if (checkpoints := len(self.model.members)) > 1:
            raise ValueError(
                f"{self.model.name} is an ensemble of {checkpoints} checkpoints: adapt them one by "
                "one, such as Task(cohort, model.members[0], labels)"
            )
        labels = self.labels
        if isinstance(labels, str) or len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"labels={labels!r:.200}: expected two or more different classes")
        if self.target not in self.cohort.table:
            raise ValueError(
                f"cohort {self.cohort.name!r} has no column {self.target!r} with one class an "
                "image; take a balanced cohort (cxrbook cohorts), or name another target"
            )
        classes = self.cohort.table[self.target]
        if classes.isna().any():
            raise ValueError(
                f"column {self.target!r}: {classes.isna().sum()} of {len(classes)} images have no "
                "class; leave them out of the cohort"
            )
        if unknown := sorted(map(str, set(classes) - set(labels))):
            raise ValueError(
                f"column {self.target!r} holds classes outside labels: {', '.join(unknown)}; name "
                "them too, or leave their images out of the cohort"
            )

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
        n, films, start = len(self.cohort.table), None, 0
        for batch in prepared(self.cohort, self.model, np.arange(n)):
            if films is None:  # filled in place: putting parts together would take twice as much
                films = torch.empty((n, *batch.shape[1:]))
            films[start : start + len(batch)] = batch
            start += len(batch)
        return films


@dataclass(frozen=True)
class FineTuned:
    """What one adaptation gave.

    Attributes
    ----------
    predictions : DataFrame
        Test images, as :func:`cxrlib.predict.zeroshot.one_hot_rows` returns them.
    history : DataFrame
        See :class:`cxrlib.predict.training.Fit`.
    best_epoch : int
        Epoch of the lowest validation loss; its weights made the predictions.
    trainable : int
        Number of trained parameters.
    seconds : float
        Training time.
    memory : int
        Bytes that a step needs: counted on the CPU (:func:`cxrlib.predict.training.needed_memory`);
        on a GPU the measured peak, with all else that lay there.
    adapted : DataFrame or None
        For LoRA, see :func:`cxrlib.predict.adapters.listing`.
    settings : Settings
    weights : str
        SHA-256 of the trained tensors.
    folder : Path or None
        Where they lie; :func:`restore` makes a network of them.
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


def settings_for(strategy: str, **changed: Any) -> Settings:
    """The settings of a strategy: the defaults, what it has of its own, and what is changed."""
    one_of("strategy", strategy, STRATEGIES)
    own = {"learning_rate": LEARNING_RATES[strategy][1]} | OWN[strategy]
    return Settings(**(own | changed))


def fine_tune(
    task: Task,
    strategy: str,
    split: Sequence[str] | np.ndarray | None = None,
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
        By default :func:`settings_for` the strategy. ``rank`` is of LoRA alone; a linear probe
        and an MLP have no use for ``recompute``.
    seed : int
        Of the initial head, the adapters and the order of the images.
    folder : Path, optional
        Where the run is kept; by default a folder of its own, named by its fingerprint, beside
        the kept embeddings. A finished run is read from there, an unfinished one goes on.
    keep : bool
        False keeps nothing of the run on disk.

    Raises
    ------
    ValueError
        Unknown strategy; a split without images, or a class that training lacks; a folder with
        another run, with damaged files, or outside the place where the cohort's data have to stay.
    FloatingPointError, MemoryError
        See :func:`cxrlib.predict.training.fit`.
    OSError
        The folder cannot be made.
    """
    one_of("strategy", strategy, STRATEGIES)
    settings = settings or settings_for(strategy)
    if settings.augment and strategy in ON_EMBEDDINGS:
        raise ValueError(f"augment=True: {strategy} is trained on embeddings and sees no images")
    split = _split(task, split)
    at = _parts(task, split)
    run = description(task, strategy, split, settings, seed)
    if keep:
        folder = _folder(task.cohort, folder, run)
        with FileLock(folder / "lock"):  # two processes that want the same run wait for each other
            done = _read(folder, run) or _run(task, strategy, at, settings, seed, folder, run)
    else:
        folder, done = None, _run(task, strategy, at, settings, seed, None, run)
    # From the order of the names, in which images are numbered, to that of the table.
    score = softmax(done.pop("logits").numpy())[torch.argsort(at["test"])]
    predictions = one_hot_rows(
        task.cohort, split == "test", task.model.name, strategy, task.labels, task.target, score
    )
    return FineTuned(predictions, settings=settings, folder=folder, **done)


def search(
    task: Task,
    strategy: str,
    split: Sequence[str] | np.ndarray | None = None,
    rates: Sequence[float] | None = None,
    settings: Settings | None = None,
    seed: int = 0,
    keep: bool = True,
) -> pd.DataFrame:
    """Train at several learning rates; what is said of the test part decides nothing.

    The run at the chosen rate is kept, so that :func:`fine_tune` with that rate reads it.

    Parameters
    ----------
    task, strategy, split, settings, seed, keep : as in :func:`fine_tune`
    rates : sequence of float, optional
        By default those of :data:`LEARNING_RATES`.

    Returns
    -------
    DataFrame
        ``learning_rate, valid_loss`` (the lowest, nats; NaN where the loss ran away),
        ``best_epoch``, ``chosen``.

    Raises
    ------
    FloatingPointError
        The loss ran away at every rate.
    """
    one_of("strategy", strategy, STRATEGIES)
    rates = LEARNING_RATES[strategy] if rates is None else list(rates)
    if not rates:
        raise ValueError("rates: expected one learning rate or more")
    settings = settings or settings_for(strategy)
    rows = []
    for rate in rates:
        try:
            at_rate = replace(settings, learning_rate=rate)
            tried = fine_tune(task, strategy, split, at_rate, seed, keep=keep)
            lowest, epoch = tried.history["valid_loss"].min(), tried.best_epoch
        except FloatingPointError:
            lowest, epoch = np.nan, pd.NA
        rows.append({"learning_rate": rate, "valid_loss": lowest, "best_epoch": epoch})
    table = pd.DataFrame(rows).astype({"best_epoch": "Int64"})
    if table["valid_loss"].isna().all():
        raise FloatingPointError(
            f"{strategy}: the loss ran away at every rate tried ({', '.join(map(str, rates))}); "
            "give lower ones"
        )
    return table.assign(chosen=table.index == table["valid_loss"].idxmin())


def restore(model: Encoder | str, folder: Path) -> nn.Module:
    """The adapted network of a finished run, for use on other films.

    It takes ``model.preprocess(films)`` to logits (n, classes), whatever the strategy, in the
    order of ``labels`` in ``run.json`` in the folder. Its ``tower`` alone gives the adapted image
    embeddings, not yet of unit length. LoRA's updates are merged into the weights.

    Parameters
    ----------
    model : loaded model or name
        The one that was adapted.
    folder : Path
        ``folder`` of :class:`FineTuned`.

    Returns
    -------
    nn.Module
        In evaluation mode, on the device of the model.

    Raises
    ------
    ValueError
        No finished run there, one of another model or of a version with other networks, or damaged
        files.
    """
    model, folder = loaded(model), Path(folder)
    if not (folder / "done.pt").exists():
        raise ValueError(f"{folder} holds no finished run; fine_tune with keep=True makes one")
    run, done = _run_in(folder), _done_in(folder)
    if (run["model"], run["model_weights"]) != (model.name, model.weights):
        raise ValueError(
            f"{folder} adapts {run['model']} with weights {run['model_weights']:.12}, this is "
            f"{model.name} with weights {model.weights:.12}; load the one that was adapted"
        )
    path = folder / f"best-{done['best_epoch']}.safetensors"
    state = training.read(path, load_file)
    if training.state_hash(state) != done["weights"]:
        raise ValueError(
            f"{path} does not hold the weights that the run ended with: remove its folder to train "
            "anew"
        )
    settings = Settings(**{field.name: run[field.name] for field in fields(Settings)})
    strategy = run["strategy"]
    network = build(model, strategy, len(run["labels"]), settings, run["seed"])
    if network.load_state_dict(state, strict=False).unexpected_keys:
        raise ValueError(f"{folder} is of another version of this library: remove it to train anew")
    if strategy == "LoRA":
        network.tower = adapters.merged(network.tower)
    if strategy in ON_EMBEDDINGS:
        network = Classifier(adapters.tower(model), network, frozen=True)
    return network.eval().requires_grad_(False)


def description(
    task: Task, strategy: str, split: np.ndarray, settings: Settings, seed: int
) -> dict:
    """Everything that decides the trained weights; what ``run.json`` holds.

    The order of the rows does not: images are numbered by their names.
    """
    here, cohort, model = Path(__file__).parent, task.cohort, task.model
    code = [(here / f).read_bytes() for f in ("finetune.py", "training.py", "adapters.py")]
    named = zip(cohort.table["image_id"], split, strict=True)
    parts = "\n".join(sorted(f"{image} {part}" for image, part in named))
    run = {"cohort": cohort.name, "cohort_fingerprint": cohort.fingerprint}
    run |= {"split": hashlib.sha256(parts.encode()).hexdigest(), "model": model.name}
    run |= {"model_weights": model.weights, "model_fingerprint": model.fingerprint}
    run |= {"device": torch.device(model.device).type, "strategy": strategy}
    run |= {"labels": list(map(str, task.labels)), "target": task.target, "seed": int(seed)}
    run |= asdict(settings) | {"libraries": [torch.__version__, version("peft")]}
    return run | {"code": hashlib.sha256(b"".join(code)).hexdigest()}


# --- networks ---


class Head(nn.Module):
    """One linear layer on standardised embeddings, or two with a ReLU between them (MLP).

    Components of unit vectors are small: they are standardised by mean and standard deviation of
    the training images under the model as it came.
    """

    def __init__(self, width: int, classes: int, hidden: int | None = None):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("sd", torch.ones(width))
        layers = [nn.Linear(width, hidden), nn.ReLU()] if hidden else []
        self.layers = nn.Sequential(*layers, nn.Linear(hidden or width, classes))

    def standardise(self, training_embeddings: Tensor) -> None:
        self.mean.copy_(training_embeddings.mean(dim=0))
        self.sd.copy_(training_embeddings.std(dim=0).clamp_min(1e-6))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers((z - self.mean) / self.sd)


class Classifier(nn.Module):
    """Image tower, its embedding brought to unit length as in pretraining, and a head."""

    def __init__(self, tower: nn.Module, head: Head, frozen: bool):
        super().__init__()
        self.tower, self.head, self.frozen = tower, head, frozen

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.frozen:  # no statistics, no stochastic depth in layers that are not trained
            self.tower.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.normalize(self.tower(x).float(), dim=-1))


def build(model: Encoder, strategy: str, classes: int, settings: Settings, seed: int) -> nn.Module:
    """The network of a strategy, from embeddings or prepared films to logits (n, classes)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = Head(model.embed_dim, classes, HIDDEN if strategy == "MLP" else None)
        if strategy in ON_EMBEDDINGS:
            return head.to(model.device)
        tower, lora = adapters.tower(model), strategy == "LoRA"
        if settings.recompute:
            adapters.recompute_activations(tower)
        if lora:
            tower = adapters.with_lora(tower, adapters.probe(model), settings.rank)
        return Classifier(tower, head, frozen=lora).to(model.device)


def _run(task, strategy, at, settings, seed, folder, run):
    network = build(task.model, strategy, len(task.labels), settings, int(seed))
    on_embeddings, lora = strategy in ON_EMBEDDINGS, strategy == "LoRA"
    (network if on_embeddings else network.head).standardise(task.embeddings[at["train"]])
    x = task.embeddings if on_embeddings else task.pixels
    device = next(network.parameters()).device
    if folder is not None:
        atomic.write(folder / "run.json", json.dumps(run, indent=1).encode())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with Bar(settings.epochs, f"{task.model.name}, {strategy}", "epoch") as bar:
        kept = folder, _hash(run), partial(_report, bar)
        images = x, task.y, at["train"], at["valid"]
        fitted = training.fit(network, *images, settings, int(seed), *kept)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = _memory(network, x[:1].to(device), min(settings.batch, len(at["train"])))
    done = vars(fitted) | {"seconds": float(fitted.history["seconds"].sum())}
    done |= {"trainable": sum(p.numel() for p in network.parameters() if p.requires_grad)}
    done |= {"memory": int(memory), "adapted": adapters.listing(network.tower) if lora else None}
    done |= {"weights": training.state_hash(training.trained_state(network))}
    predict = _merged_logits if lora else training.predict
    done |= {"logits": predict(network, x, at["test"], settings)}
    if folder is not None:
        _write(folder, done)
    return done


def _memory(network, image, batch):
    """Bytes that a step needs: linear in the images, so two small batches tell."""
    two, four = (
        training.needed_memory(network.train(), image.expand(n, *image.shape[1:]).contiguous())
        for n in (2, 4)
    )
    return two + (four - two) * (batch - 2) // 2


def _merged_logits(network, x, test, settings):
    """Predictions with the adapters merged into the weights, once that gives the same."""
    first = test[: settings.batch]
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # which rounds to 1e-3
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


def _split(task, split):
    """The part of each image, in the order of the table."""
    table = task.cohort.table
    if split is None and "split" not in table:
        raise ValueError(f"cohort {task.cohort.name!r} has no column 'split': give one with split=")
    split = np.asarray(table["split"] if split is None else split)
    if split.shape != (len(table),):
        raise ValueError(
            f"split: {split.size} entries, the cohort has {len(table)} images; expected one of "
            f"{', '.join(SPLITS)} for each, in the order of its table"
        )
    if others := sorted(set(map(str, split)) - set(SPLITS)):
        raise ValueError(f"split holds {', '.join(others[:5])}; expected {', '.join(SPLITS)}")
    return split.astype(str)


def _parts(task, split):
    """Positions of the images of each part, in the order of their names."""
    table = task.cohort.table
    order = np.argsort(table["image_id"].to_numpy(str), kind="stable")
    at = {part: order[split[order] == part] for part in SPLITS}
    for part, rows in at.items():
        if not len(rows):
            raise ValueError(f"cohort {task.cohort.name!r} has no images in split {part!r}")
    if absent := sorted(set(task.labels) - set(table[task.target].iloc[at["train"]])):
        raise ValueError(
            f"no training image of class {', '.join(absent)}: take another split, or leave the "
            "class out"
        )
    return {part: torch.from_numpy(rows) for part, rows in at.items()}


def _hash(run: dict) -> str:
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()


def _folder(cohort, folder, run):
    """Where the run is kept; made if it is not there."""
    folder = folder_for(cohort) / "fine-tuning" / _hash(run)[:24] if folder is None else folder
    folder = Path(folder)
    if cohort.keep and not folder.resolve().is_relative_to(cohort.keep.resolve()):
        raise ValueError(
            f"folder {folder}: a run holds predictions of single images, which for cohort "
            f"{cohort.name!r} have to stay in {cohort.keep}; name a folder in there, or none"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the run cannot be kept in {folder} ({error.strerror}); set CXRBOOK_CACHE to a "
            "folder that can be written, or keep=False"
        ) from error
    return folder


def _write(folder, done):
    """The finished run, in one step; what only a resumed one needs goes."""
    tables = {k: done[k].to_dict("list") for k in ("history", "adapted") if done[k] is not None}
    kept = {k: v for k, v in done.items() if k not in ("history", "adapted")} | {"tables": tables}
    atomic.in_one_step(folder / "done.pt", lambda part: torch.save(kept, part))
    (folder / "last.pt").unlink(missing_ok=True)


def _read(folder, run):
    """What a finished run gave; None where there is none, or an unfinished one of this kind."""
    if not (folder / "run.json").exists():
        return None
    there = _run_in(folder)
    if differing := [name for name in run if there.get(name) != run[name]]:
        raise ValueError(
            f"{folder} holds another run, which differs in {', '.join(differing)} (see run.json): "
            "name another folder, or remove this one"
        )
    if not (folder / "done.pt").exists():
        return None
    kept = _done_in(folder)
    tables = {k: pd.DataFrame(v) for k, v in kept.pop("tables").items()}
    return {"adapted": None} | kept | tables


def _run_in(folder):
    return training.read(folder / "run.json", lambda path: json.loads(path.read_text()))


def _done_in(folder):
    return training.read(folder / "done.pt", partial(torch.load, weights_only=True))


def _report(bar: Bar, row: dict, _: int) -> None:
    """Say after an epoch how far training is."""
    if not bar.n:  # a resumed run does not start at 1
        bar.n = bar.initial = bar.last_print_n = row["epoch"] - 1
    losses = f"{row['train_loss']:.3f} in training, {row['valid_loss']:.3f} in validation"
    bar.set_postfix_str(f"loss {losses} (accuracy {row['valid_accuracy']:.2f})", refresh=False)
    bar.update()
