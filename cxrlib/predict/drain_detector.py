"""The network that paper S trains to see chest drains: a DenseNet-121 with one output.

S trains and tests it on annotated films of NIH ChestX-ray14's official test list, the films that
its labels then help to evaluate: ``apart_from`` leaves their patients out of training. Annotations
are nearly all of films with pneumothorax, so its AUC on films of the same kind says little about
films without one.

A training is a folder, named by a hash of cohort and settings. Asked for again it is read, and an
interrupted one goes on. Nothing is downloaded.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from torch import nn
from torchvision.models import densenet121
from torchvision.transforms import functional as TF

from cxrlib.cohorts.cohort import Cohort
from cxrlib.core import atomic
from cxrlib.core.checks import one_of
from cxrlib.core.folders import folder_for
from cxrlib.core.progress import Bar
from cxrlib.models import checkpoints, files
from cxrlib.models.images import BILINEAR, IMAGENET, grey, stored_by_s
from cxrlib.protocol import NAMES
from cxrlib.stats import metrics
from cxrlib.stats.probes import patient_split

NAME = "drain detector"
SIZE = 224  # pixels a side, unless the cohort is a phantom of another size
SMALLEST = 64  # DenseNet halves a film five times
EPOCHS = 200
RULES = {
    "as_published": "0.5, as published",
    "corrected": "largest Youden index on the validation patients",
}
BATCH = 64  # films at a time where nothing is learned


@dataclass(frozen=True)
class Detector:
    """A trained network, where it says yes, and how it came about.

    Attributes
    ----------
    network : nn.Module
        Films (n, 3, size, size) to logits (n, 1).
    settings : dict
        ``protocol, size``, and of :func:`train` all that decides the result.
    threshold : float
        A probability *above* it is a drain.
    rule : str
        How the threshold was chosen.
    best_epoch : int or None
        The epoch whose weights these are.
    log : DataFrame
        ``epoch, train_loss`` (nats a film) and, as published, ``test_auc``, else ``valid_auc``.
    films : DataFrame
        Annotated films: ``image_id, patient_id`` (text), ``part`` ("train", "valid", "test"),
        ``drain`` and ``probability``, missing for those it was trained on.
    sources : tuple of str
        Data sets of these films.
    notes : tuple of str
        What to know before its numbers are read.
    file : Path
    """

    network: nn.Module = field(repr=False)
    settings: dict
    threshold: float
    rule: str
    best_epoch: int | None
    log: pd.DataFrame = field(repr=False)
    films: pd.DataFrame = field(repr=False)
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    file: Path

    @property
    def fingerprint(self) -> str:
        """Short hash of all that decides a label: weights, threshold, what is done to films."""
        about = [self.settings["protocol"], self.settings["size"], self.threshold]
        digest = hashlib.sha256(repr(about).encode())
        for name, tensor in self.network.state_dict().items():
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


# --- training -----------------------------------------------------------------------------------


def train(
    cohort: Cohort,
    protocol: str = "corrected",
    *,
    epochs: int = EPOCHS,
    batch_size: int = 32,
    lr: float = 1e-4,
    seed: int = 1907,
    weights: Path | str | None = None,
    size: int | None = None,
    apart_from: Cohort | None = None,
    device: str = "cpu",
    folder: Path | str | None = None,
) -> Detector:
    """Train on the annotated films of a cohort, or go on where an earlier run stopped.

    ======================  ==========================  =========================================
    protocol                as_published                corrected
    ======================  ==========================  =========================================
    split by patient        80 % train, 20 % test       64 % train, 16 % valid, 20 % test
    film                    as S stored it, 0 to 255    antialiased, as ImageNet weights expect it
    order of films          that of the cohort          shuffled
    weights kept            of the last epoch           of the best AUC on validation
    threshold               0.5                         largest Youden index on validation
    ======================  ==========================  =========================================

    Both: DenseNet-121 with one logit, all layers trained, mean binary cross-entropy, Adam, no
    augmentation. The result depends on cohort, settings, seed and machine alone. After every epoch
    its state is saved, so that an interrupted training loses at most one epoch and ends as it
    would have; a finished one is read.

    Parameters
    ----------
    cohort : Cohort
        With a column ``drain``: 0, 1, or missing. Predicted labels count as missing.
    protocol : "corrected" or "as_published"
    epochs, batch_size : int
    lr : float
        Learning rate.
    seed : int
        Of the split, the first weights and the order of films.
    weights : path, optional
        A local file to start from: torchvision's DenseNet-121 of ImageNet (of any age), or a
        detector. By default training starts from scratch; nothing is ever downloaded.
    size : int, optional
        Pixels a side, 64 or more; by default that of a phantom, else 224.
    apart_from : Cohort, optional
        Its patients are left out, so that labels for them come from other people's films.
    device : "cpu" or "cuda"
    folder : path, optional
        By default one named by cohort and settings.

    Raises
    ------
    ValueError
        No annotations, a part without one of the two classes, weights of another network, a folder
        with another training in it, or a parameter out of range.
    FloatingPointError
        The loss is not finite; names the epoch.

    References
    ----------
    S, section 2.3 (drain labels), and its code. S starts from ImageNet weights.
    """
    check(protocol, cohort, epochs=epochs, batch_size=batch_size, lr=lr)
    size = size or (cohort.recipe["size"] if cohort.planted else SIZE)
    if size < SMALLEST:
        raise ValueError(f"size={size}: expected {SMALLEST} or more pixels a side")
    settings = {"cohort": cohort.name, "fingerprint": cohort.fingerprint, "protocol": protocol}
    settings |= {"epochs": int(epochs), "batch_size": int(batch_size), "lr": float(lr)}
    settings |= {"seed": int(seed), "size": int(size)}
    settings |= {"apart_from": apart_from.fingerprint if apart_from else ""}
    settings |= {"weights": files.sha256(Path(weights).expanduser()) if weights else ""}
    films = _annotated(cohort, apart_from)
    films["part"] = _split(films, protocol, seed)
    if folder is None:
        key = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:16]
        folder = home(cohort) / key
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        file = folder / "detector.pt"
        if not file.is_file():
            _train(cohort, films, settings, weights, device, folder)
        detector = load(file)
        _refuse_another(file, detector.settings, settings)
        return detector


def check(protocol: str, cohort: Cohort, **numbers: float) -> None:
    """Refuse an unknown protocol, a cohort without films, and numbers that are not above 0."""
    one_of("protocol", protocol, NAMES)
    if cohort.images is None:
        raise ValueError(f"cohort {cohort.name!r} is metadata only; the detector needs films")
    for parameter, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{parameter}={value}: expected a number above 0")


def home(cohort: Cohort) -> Path:
    """The folder of the detectors that label a cohort."""
    return folder_for(cohort) / "drains"


def sources_of(cohort: Cohort) -> tuple[str, ...]:
    """Where patients come from: only within these does one number mean one patient."""
    return cohort.sources or (cohort.recipe["name"],)


def known_drains(cohort: Cohort) -> np.ndarray:
    """Drains that somebody saw or planted: 0, 1, or NaN, (n,); predicted labels are NaN."""
    if "drain" not in cohort.table:
        return np.full(len(cohort.table), np.nan)
    drain = cohort.table["drain"].astype(float)
    if "drain_source" in cohort.table:
        drain = drain.where(cohort.table["drain_source"] == "annotated")
    return drain.to_numpy()


def _annotated(cohort, apart_from):
    """The films to learn from, one row each, and their row in the cohort."""
    table = cohort.table
    drain = known_drains(cohort)
    use = ~np.isnan(drain)
    if not use.any():
        raise ValueError(
            f"cohort {cohort.name!r}: no film has a known drain; the detector learns from a column "
            "'drain' of 0 and 1. For NIH ChestX-ray14, put the file of NEATX beside its tables"
        )
    if apart_from is not None and set(sources_of(apart_from)) & set(sources_of(cohort)):
        use &= ~table["patient_id"].isin(apart_from.table["patient_id"]).to_numpy()
        if not use.any():
            raise ValueError(
                f"cohort {cohort.name!r}: every film with a known drain is of a patient of "
                f"{apart_from.name!r}, from which training was to stay apart. Take a cohort with "
                "more patients, such as all of the data set, or train without apart_from"
            )
    films = table.loc[use, ["image_id", "patient_id"]].reset_index(drop=True)
    return films.assign(drain=drain[use].astype(int), row=np.flatnonzero(use))


def _split(films, name, seed):
    """The part of each film, by patient; every part has films with drain and without."""
    _, valid, test = patient_split(films["patient_id"], seed)
    part = np.full(len(films), "train", dtype=object)
    part[test] = "test"
    if name == "corrected":
        part[valid] = "valid"
    for one, drain in films["drain"].groupby(part):
        if drain.nunique() < 2:
            raise ValueError(
                f"drain annotations: all {len(drain)} films of the part {one!r} are "
                f"{'with' if drain.any() else 'without'} drain; expected both kinds. Take more "
                "annotated films, or another seed"
            )
    return part


def _train(cohort, films, settings, weights, device, folder):
    """Fit, choose the threshold, and write ``detector.pt``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        network = build_network()
    notes = _start_from(network, weights)
    if "Pneumothorax" in cohort.table:
        ill = int(cohort.table["Pneumothorax"].to_numpy()[films["row"]].sum())
        notes.append(f"{ill} of the {len(films)} annotated films show a pneumothorax")
    network = on_device(network, device)
    name = settings["protocol"]
    x = prepared(cohort, films["row"].to_numpy(), settings)
    y = films["drain"].to_numpy()
    at = {part: np.flatnonzero(films["part"] == part) for part in films["part"].unique()}
    saved = folder / "training.pt"
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        state = _fit(network, x, y, at, settings, saved)
    network.load_state_dict(state["kept"])

    probability = np.full(len(films), np.nan)
    held_out = np.flatnonzero(films["part"] != "train")
    probability[held_out] = probabilities(network, x[held_out], name)
    threshold = 0.5
    if name == "corrected":
        threshold = metrics.threshold_youden(y[at["valid"]], probability[at["valid"]])
    films = films.drop(columns="row").assign(probability=probability).astype({"patient_id": str})
    record = {"settings": settings, "threshold": threshold, "rule": RULES[name], "notes": notes}
    record |= {"best_epoch": state["best_epoch"], "log": state["log"]}
    record |= {"films": films.to_dict("list"), "sources": list(sources_of(cohort))}
    content = {"state_dict": state["kept"], "record": record}
    atomic.in_one_step(folder / "detector.pt", lambda part: torch.save(content, part))
    saved.unlink()


def _fit(network, x, y, at, settings, saved):
    """All epochs that are left; the state after the last one."""
    corrected = settings["protocol"] == "corrected"
    watched = "valid" if corrected else "test"
    optimiser = torch.optim.Adam(network.parameters(), lr=settings["lr"])
    state = {"settings": settings, "log": [], "best_epoch": None}
    if saved.is_file():
        state = checkpoints.unpickle(saved)
        _refuse_another(saved, state["settings"], settings)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
    log, train = state["log"], at["train"]
    steps = -(-len(train) // settings["batch_size"])
    total = settings["epochs"] * steps
    with Bar(total, NAME, "batch", len(log) * steps) as bar:
        for epoch in range(len(log) + 1, settings["epochs"] + 1):
            order = train
            if corrected:  # of seed and epoch alone, so that nothing has to be remembered
                order = np.random.default_rng([settings["seed"], epoch]).permutation(train)
            loss = _epoch(network, optimiser, x, y, order, settings, epoch, bar)
            probability = probabilities(network, x[at[watched]], settings["protocol"])
            auc = float(metrics.auc(y[at[watched]], probability))
            best = max((entry[f"{watched}_auc"] for entry in log), default=-1.0)
            log.append({"epoch": epoch, "train_loss": loss, f"{watched}_auc": auc})
            state["network"] = network.state_dict()
            state["optimiser"] = optimiser.state_dict()
            if not corrected or auc > best:
                state["kept"], state["best_epoch"] = copy.deepcopy(state["network"]), epoch
            atomic.in_one_step(saved, lambda part: torch.save(state, part))
            bar.set_postfix(epoch=epoch, loss=f"{loss:.3f}", auc=f"{auc:.3f}")
    return state


def _epoch(network, optimiser, x, y, order, settings, epoch, bar):
    """One pass over the films in this order; their mean loss."""
    device = next(network.parameters()).device
    network.train()
    total = 0.0
    for start in range(0, len(order), settings["batch_size"]):
        part = order[start : start + settings["batch_size"]]
        logit = network(_scaled(x[part], settings["protocol"], device))[:, 0]
        truth = torch.as_tensor(y[part], dtype=torch.float32, device=device)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, truth)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"drain detector: the loss is {loss.item()} in epoch {epoch}; lower the learning "
                f"rate ({settings['lr']:g})"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        total += loss.item() * len(part)
        bar.update()
    return total / len(order)


def _refuse_another(file, found, wanted):
    if differing := [k for k in wanted if found.get(k) != wanted[k]]:
        said = "; ".join(f"{k} {found.get(k)!r}, not {wanted[k]!r}" for k in differing)
        raise ValueError(f"{file}: another training ({said}); give another folder, or none")


# --- the network and its files ------------------------------------------------------------------


def build_network() -> nn.Module:
    """DenseNet-121 with one logit; its keys are those of S: 727 tensors, 6,954,881 weights."""
    network = densenet121()
    network.classifier = nn.Sequential(nn.Flatten(), nn.Linear(1024, 1))
    return network


def load(file: Path | str) -> Detector:
    """A detector from its file, or from a plain state dict such as S's code writes.

    The latter is used as published: films as S stored them, threshold 0.5. Whose films it was
    trained on is not known.

    Raises
    ------
    ValueError
        The file is missing, damaged, of another network, or holds more than tensors and numbers.
    """
    path = Path(file).expanduser()
    if checkpoints.kind_of(path) == "safetensors":
        held = checkpoints.read(path)
    else:
        held = checkpoints.unpickle(path, advice="Expected a state dict or a trained detector.")
    with torch.random.fork_rng(devices=[]):
        network = build_network()
    state = _renamed(checkpoints.tensors(held, path), network)
    notes = checkpoints.load_strictly(network, state, f"{NAME}, {path}")
    record = held.get("record") or {
        "settings": {"protocol": "as_published", "size": SIZE},
        "threshold": 0.5,
        "rule": RULES["as_published"],
        "best_epoch": None,
        "log": [],
        "films": {c: [] for c in ("image_id", "patient_id", "drain", "part", "probability")},
        "sources": [],
        "notes": ["a file of weights alone: what it was trained on is not known"],
    }
    tables = {name: pd.DataFrame(record[name]) for name in ("log", "films")}
    told = {"sources": tuple(record["sources"]), "notes": (*record["notes"], *notes)}
    return Detector(network.eval(), file=path, **record | tables | told)


def _start_from(network, weights):
    """Put the weights of a file into a fresh network; notes."""
    if weights is None:
        return ["trained from scratch: no weights of ImageNet were given"]
    path = Path(weights).expanduser()
    state = _renamed(checkpoints.read(path), network)
    what = f"{NAME}, {path}"
    if "classifier.1.weight" in state:
        return [f"weights of {path.name}", *checkpoints.load_strictly(network, state, what)]
    features = {k: v for k, v in state.items() if not k.startswith("classifier.")}
    notes = checkpoints.load_strictly(network.features, features, what, lambda k: f"features.{k}")
    return [f"layers of {path.name}, a new head", *notes]


def _renamed(state, network):
    """A state dict in today's names: until 2017, DenseNet's were ``norm.1`` for ``norm1``.

    Files of that time do not count batches either; nothing depends on the count.
    """
    state = {re.sub(r"\b(norm|conv)\.([12])\.", r"\1\2.", key): v for key, v in state.items()}
    if not any(key.endswith("num_batches_tracked") for key in state):
        own = network.state_dict()
        state |= {k: torch.zeros_like(v) for k, v in own.items() if k.endswith("_tracked")}
    return state


def on_device(network: nn.Module, device: str) -> nn.Module:
    """The network on a device; ValueError where torch cannot use it."""
    try:
        return network.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r}: torch cannot use it here ({reason}); 'cpu' always works"
        ) from None


# --- films --------------------------------------------------------------------------------------


def prepared(cohort: Cohort, rows: np.ndarray, settings: dict) -> torch.Tensor:
    """Films of these rows of the cohort, uint8 (n, size, size)."""
    side = settings["size"]

    def one(film):
        if settings["protocol"] == "as_published":
            return stored_by_s(film, side)
        return np.asarray(TF.resize(grey(film), [side, side], BILINEAR))

    def some(positions):
        return [one(film) for film in cohort.images(positions)]

    films = []
    parts = np.array_split(rows, -(-len(rows) // BATCH))
    with ThreadPoolExecutor(os.cpu_count()) as pool, Bar(len(rows), "films", "film") as bar:
        for read in pool.map(some, parts):
            films += read
            bar.update(len(read))
    return torch.from_numpy(np.stack(films))


def _scaled(x, name, device):
    """What the network takes, float (n, 3, side, side): 0 to 255 as published."""
    x = x.to(device).float()[:, None].expand(-1, 3, -1, -1)
    return x if name == "as_published" else TF.normalize(x / 255, *IMAGENET)


@torch.inference_mode()
def probabilities(network: nn.Module, x: torch.Tensor, protocol: str) -> np.ndarray:
    """Probability of a drain, (n,); statistics of batches are not used."""
    network.eval()
    device = next(network.parameters()).device
    logits = [network(_scaled(part, protocol, device))[:, 0] for part in x.split(BATCH)]
    return torch.cat(logits).double().sigmoid().cpu().numpy()
