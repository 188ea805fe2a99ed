"""Embeddings of a cohort by a model, computed once and kept on disk.

:func:`embed` is what a chapter calls. :func:`extract` fills a store (:mod:`cxrlib.embed.store`) at
any size: images are decoded by worker processes while the model runs, every image is encoded once,
and what was done stays done. Several processes with the same call share the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from cxrlib import guard
from cxrlib.cohorts.cohort import Cohort
from cxrlib.core.checks import one_of
from cxrlib.core.errors import Lacks
from cxrlib.core.folders import folder_for
from cxrlib.core.progress import Bar
from cxrlib.embed.store import ROWS, Store, StoreError, create
from cxrlib.embed.worker import Films, Job, encode, try_again, work
from cxrlib.models.embeddings import Vectors
from cxrlib.models.encoder import Encoder

if TYPE_CHECKING:  # torchvision takes seconds
    from cxrlib.models.loading import Ensemble
    from cxrlib.models.scores import Scores

BATCH_PIXELS = 2**20  # 256 images of 64 x 64 pixels, 20 of 224 x 224
FILM_PIXELS = 2**27  # as they are on disk: 128 films of 1024 x 1024
PROBED = 32  # images on which a lower precision is compared with float32
WORKERS = 16  # more processes hardly decode faster
ENGINES = ("local", "ray")


def embed(cohort: Cohort, model: Encoder | Ensemble | str, cache: bool = True) -> np.ndarray:
    """Image embeddings of a whole cohort.

    Parameters
    ----------
    cohort : Cohort
    model : object or str
        A loaded model, or a name for :func:`cxrlib.models.load_model`.
    cache : bool
        Keep the result, or find it, where :func:`extract` puts it.

    Returns
    -------
    float32 array (n, d), unit norm, in the order of ``cohort.table``

    Raises
    ------
    ValueError
        The model is an ensemble.
    StoreError
        Images that could not be read or encoded, or a damaged store.
    Lacks
        A cohort without films, or a model that is a file and has no answer for some.
    OSError
        The store cannot be written.
    """
    model = loaded(model)
    if isinstance(model, Vectors):
        return _recorded(cohort, model)
    if not cache:
        if cohort.keep:  # of credentialed data nothing lies elsewhere, even for a while
            cohort.keep.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cohort.keep) as folder:
            return _in_order(cohort, extract(cohort, model, Path(folder) / "store"))
    return _in_order(cohort, extract(cohort, model))


def not_a_twin(cohort: Cohort, model: Scores | Vectors) -> None:
    """Refuse to take what a file says of a film for its twin, which has the same name.

    Raises
    ------
    Lacks
        The cohort is a twin.
    """
    if "twin" in cohort.recipe:
        raise Lacks(
            f"{model.name} has answers to films as they were, and none to the same films drawn "
            "with a difference; chapters 4, 6 and 7 ask the small models of the book instead"
        )


def _recorded(cohort, model):
    """Vectors of a folder for the films of a cohort."""
    not_a_twin(cohort, model)
    names = cohort.table["image_id"].tolist()
    if absent := sum(name not in model.images for name in names):
        raise Lacks(
            f"{model.name} has no vector for {guard.counted(absent, len(names), 'films')} of "
            f"cohort {cohort.name!r}; chapters 4, 6 and 7 leave such films out"
        )
    return model.image_vectors[[model.images[name] for name in names]]


def _in_order(cohort: Cohort, store: Store) -> np.ndarray:
    vectors = store.vectors()
    if np.isnan(vectors).any():
        problems = [p for few in store.problems().values() for p in few.items()]
        first = "; ".join(f"{image}: {why}" for image, why in problems[:3])
        raise StoreError(
            f"{len(problems)} of {len(vectors)} images of cohort {cohort.name!r} have no embedding "
            f"({first}). Mend them and call again, which tries these alone, or take them out"
        )
    return vectors[np.argsort(_order(cohort))]


def _order(cohort: Cohort) -> np.ndarray:
    """Positions in the cohort's table by image name: a store does not depend on their order."""
    return np.argsort(cohort.table["image_id"].to_numpy(str), kind="stable")


def embed_text(texts: list[str], model: Encoder | Ensemble | str) -> np.ndarray:
    """Text embeddings, float32 (n, d), of unit norm unless the model's protocol says else."""
    return _one(model).encode_text(list(texts)).numpy()


def embed_reports(cohort: Cohort, model: Encoder | Ensemble | str) -> tuple[np.ndarray, np.ndarray]:
    """Text embeddings of what was written on each film; each wording is encoded once.

    Without reports, the texts name the findings recorded: "Chest Edema, Pneumothorax".

    Returns
    -------
    embeddings : float32 (m, d)
    positions : int (m,)
        The film of each text; films without a report have none.

    Raises
    ------
    Lacks
        A folder of vectors that has not all of the texts.
    """
    if "report" in cohort.table:
        words = cohort.table["report"].to_numpy(object)
    else:
        present = cohort.table[list(cohort.findings)].to_numpy(bool)
        names = np.array(cohort.findings)
        words = np.array([f"Chest {', '.join(names[row]) or 'No Findings'}" for row in present])
    positions = np.flatnonzero(pd.notna(words))
    wordings, wording = np.unique(words[positions], return_inverse=True)
    if isinstance(one := _one(model), Vectors):  # never a wording in a message: it may be a report
        if absent := sum(text not in one.texts for text in wordings):
            of = guard.counted(absent, len(wordings), "wordings")
            raise Lacks(f"{one.name} has no vector for {of} of what was written on the films")
        model = one
    return embed_text(wordings.tolist(), model)[wording], positions


def loaded(model: Encoder | Ensemble | str) -> Encoder | Ensemble:
    """The model itself, or the one of that name."""
    if isinstance(model, str):
        from cxrlib import models

        return models.load_model(model)
    return model


def _one(model: Encoder | Ensemble | str) -> Encoder:
    """The loaded model, which must not be an ensemble."""
    whole = loaded(model)
    if len(whole.members) > 1:
        raise ValueError(
            f"{whole.name} is an ensemble of {len(whole.members)} checkpoints, whose probabilities "
            "are averaged: its members have embeddings, it has not. Take one, model.members[0], or "
            "keep one checkpoint in its folder"
        )
    return whole.members[0]


def prepared(cohort: Cohort, model: Encoder, positions: np.ndarray) -> Iterator:
    """The films at ``positions`` as the model wants them, a few at a time: float (m, 3, h, w)."""
    few = _at_once(cohort, model)
    for part in np.array_split(positions, max(1, len(positions) // few)):
        yield model.preprocess(cohort.images(part))  # type: ignore[misc]


def _at_once(cohort: Cohort, model: Encoder) -> int:
    """Films that are read and prepared together, by the memory that they take."""
    batch = max(1, BATCH_PIXELS // model.card["image_size"] ** 2)
    if cohort.films is not None:
        largest = int((cohort.films["height"] * cohort.films["width"]).max())
        batch = min(batch, max(1, FILM_PIXELS // largest))
    return batch


# --- the store of a cohort and a model ---


def made_from(cohort: Cohort, model: Encoder, dtype: str = "float32") -> dict:
    """What decides the embeddings: names, hashes and precision."""
    what = {"cohort": cohort.name, "cohort_fingerprint": cohort.fingerprint, "model": model.name}
    for name in ("weights", "preprocessing", "preprocessing_hash", "precision"):
        what[name] = getattr(model, name)
    return what | {"dtype": dtype}


def store_folder(cohort: Cohort, model: Encoder, dtype: str = "float32") -> Path:
    """The folder of the store, below :func:`folder_for` the cohort."""
    return _folder(cohort, made_from(cohort, model, dtype))


def _folder(cohort: Cohort, what: dict) -> Path:
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    readable = re.sub(r"[^\w-]+", "-", f"{what['cohort']}_{what['model']}")
    return folder_for(cohort) / "embeddings" / f"{readable}_{key}"


def extract(
    cohort: Cohort,
    model: Encoder | Ensemble | str,
    folder: Path | None = None,
    *,
    dtype: str = "float32",
    rows_per_shard: int = ROWS,
    batch_size: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    actors: int | None = None,
    address: str | None = None,
) -> Store:
    """Encode every image of a cohort once; go on where an earlier call was cut off.

    The embeddings depend on none of the parameters below ``dtype``, but for rounding (less than a
    millionth of their length).

    Parameters
    ----------
    cohort : Cohort
    model : object or str
        A loaded model on its device and in its precision, or a name.
    folder : Path, optional
        By default :func:`store_folder`. A store that is there is extended, or refused if it was
        made from something else.
    dtype : {"float32", "float16"}
        Of the numbers on disk.
    rows_per_shard : int
        Images per file of a new store; a crash costs at most as many images per process.
    batch_size : int, optional
        Images that go through the model at once. By default as fits a CPU's caches, or as runs
        fastest on a GPU; it is halved when memory runs out.
    workers : int, optional
        Processes that read and prepare films, 0 for none beside this one. By default one a core
        but one (at most 16) for films on disk, none for phantoms.
    engine : {"local", "ray"}
        In this process, or by :mod:`cxrlib.embed.ray` on several GPUs or machines.
    actors, address : int, str, optional
        Of the engine "ray", see :func:`cxrlib.embed.ray.run`.

    Returns
    -------
    Store
        Complete; images that cannot be read or encoded are in it with the reason.

    Raises
    ------
    ValueError
        Metadata only, an ensemble, another value than expected.
    StoreError
        The folder holds something else, or too many images are broken (more than 1 %, and more
        than 10): that is no matter of single images.
    OSError
        The store cannot be written. What is there stays good.
    """
    model = _one(model)
    if cohort.images is None:
        raise Lacks(f"cohort {cohort.name!r} is metadata only; embeddings need images")
    if not len(cohort.table):
        raise ValueError(f"cohort {cohort.name!r} has no images")
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and (value < least or value != int(value)):
            raise ValueError(f"{name}={value}: expected a whole number, {least} or more")
    one_of("engine", engine, ENGINES)
    if workers is None:
        workers = 0 if cohort.films is None else min(WORKERS, max(1, _cores() - 1))
    order, what = _order(cohort), made_from(cohort, model, dtype)
    store = create(
        _folder(cohort, what) if folder is None else Path(folder),
        what,
        len(order),
        rows_per_shard,
        lambda: precision_error(cohort, model),
    )
    job = Job(
        store=store,
        image_ids=cohort.table["image_id"].to_numpy(str)[order],
        positions=order,
        images=cohort.images,
        model=model,
        at_once=_at_once(cohort, model),
        batch_size=batch_size,
        workers=workers,
    )
    try_again(job)
    if store.missing():
        title = f"embedding {cohort.name} by {model.name}"
        kept = sum(len(store.rows(shard)) for shard in store.present())
        with Bar(len(order), title, "image", kept) as bar:
            tell = partial(_tell, bar)
            if engine == "ray":
                from cxrlib.embed import ray

                ray.run(job, tell, actors, address)
            else:
                work(job, range(store.n_shards), tell)
    store.tidy()
    return store


def _tell(bar: Bar, images: int, waiting_for: str = "") -> None:
    """So many more images are done, or what they wait for."""
    bar.set_postfix_str(waiting_for, refresh=bool(waiting_for))
    bar.update(images)


def _cores() -> int:
    """Processor cores that this process may use, which a cluster may limit."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def precision_error(cohort: Cohort, model: Encoder, n: int = PROBED) -> dict | None:
    """How far a lower precision is from float32, on images spread over the cohort.

    Returns
    -------
    dict or None
        ``n_images``, ``largest`` and ``mean`` length of the difference (of vectors of length 1);
        None for float32 itself, or if none of the images can be read and encoded.
    """
    if model.precision == "float32":
        return None
    some = np.unique(np.linspace(0, len(cohort.table) - 1, n).astype(int))
    exact = model.to(model.device)
    films = Films(cohort.images, model.preprocess)
    parts = (films[0, p][1] for p in np.array_split(some, -(-len(some) // _at_once(cohort, model))))
    pairs = [(encode(model, x), encode(exact, x)) for x in parts if x is not None]
    apart = torch.cat([torch.zeros(0), *((low - full).norm(dim=1).cpu() for low, full in pairs)])
    apart = apart[apart.isfinite()]
    if not len(apart):
        return None
    largest, mean = round(float(apart.max()), 8), round(float(apart.mean()), 8)
    return {"n_images": len(apart), "largest": largest, "mean": mean}
