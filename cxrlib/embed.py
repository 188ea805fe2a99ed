"""Embeddings of a cohort by a model, computed once and kept on disk.

:func:`embed` is what a chapter calls. :func:`extract` fills a store (:mod:`cxrlib.store`) at any
size: images are decoded by worker processes while the model runs, every image is encoded once, and
what was done stays done. Several processes with the same call share the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from filelock import Timeout
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cxrlib import store as stores
from cxrlib.cohorts.films import MAX_BROKEN
from cxrlib.progress import teller
from cxrlib.store import ROWS, Store, StoreError

BATCH_PIXELS = 2**20  # 256 images of 64 x 64 pixels, 20 of 224 x 224
FILM_PIXELS = 2**27  # as they are on disk: 128 films of 1024 x 1024
FEW_BROKEN = 10  # images that may have no embedding, however small the cohort
PROBED = 32  # images on which a lower precision is compared with float32
WORKERS = 16  # more processes hardly decode faster
WAIT = 60.0  # seconds until it is said that another process is waited for
ENGINES = ("local", "ray")


def cache_folder() -> Path:
    """Where embeddings are kept: ``CXRBOOK_CACHE``, or ``~/.cache/cxrbook``."""
    return Path(os.environ.get("CXRBOOK_CACHE") or Path.home() / ".cache" / "cxrbook")


def folder_for(cohort) -> Path:
    """Where what is computed for single images of a cohort is kept.

    The cohort's own folder, where it has one (credentialed data stay with the data), or
    :func:`cache_folder`.
    """
    return cohort.keep or cache_folder()


def embed(cohort, model, cache: bool = True) -> np.ndarray:
    """Image embeddings of a whole cohort.

    Parameters
    ----------
    cohort : Cohort
    model : object or str
        A loaded model, or a name for :func:`cxrlib.models.load`.
    cache : bool
        Keep the result, or find it, where :func:`extract` puts it.

    Returns
    -------
    float32 array (n, d), unit norm, in the order of ``cohort.table``

    Raises
    ------
    ValueError
        The cohort has no images, or the model is an ensemble.
    StoreError
        Images that could not be read or encoded, or a damaged store.
    OSError
        The store cannot be written.
    """
    if not cache:
        with tempfile.TemporaryDirectory() as folder:
            return _in_order(cohort, extract(cohort, model, Path(folder) / "store"))
    return _in_order(cohort, extract(cohort, model))


def _in_order(cohort, store) -> np.ndarray:
    vectors = store.vectors()
    if np.isnan(vectors).any():
        problems = {k: v for few in store.problems().values() for k, v in few.items()}
        first = "; ".join(f"{image}: {why}" for image, why in list(problems.items())[:3])
        raise StoreError(
            f"{len(problems)} of {len(vectors)} images of cohort {cohort.name!r} have no embedding "
            f"({first}). Mend them and call again, which tries these alone, or take them out"
        )
    return vectors[np.argsort(_order(cohort))]


def _order(cohort) -> np.ndarray:
    """Positions in the cohort's table by image name: a store does not depend on their order."""
    return np.argsort(cohort.table["image_id"].to_numpy(str), kind="stable")


def embed_text(texts: list[str], model) -> np.ndarray:
    """Text embeddings, float32 (n, d), of unit norm unless the model's protocol says else."""
    return _one(model).encode_text(list(texts)).numpy()


def loaded(model):
    """The model itself, or the one of that name."""
    if isinstance(model, str):
        from cxrlib import models

        return models.load(model)
    return model


def _one(model):
    """The loaded model, which must not be an ensemble."""
    model = loaded(model)
    if len(model.members) > 1:
        raise ValueError(
            f"{model.name} is an ensemble of {len(model.members)} checkpoints, whose probabilities "
            "are averaged: its members have embeddings, it has not. Take one, model.members[0], or "
            "keep one checkpoint in its folder"
        )
    return model


def prepared(cohort, model, positions) -> Iterator:
    """The films at ``positions`` as the model wants them, a few at a time: float (m, 3, h, w)."""
    few = _at_once(cohort, model)
    for part in np.array_split(positions, max(1, len(positions) // few)):
        yield model.preprocess(cohort.images(part))


def _at_once(cohort, model) -> int:
    """Films that are read and prepared together, by the memory that they take."""
    batch = max(1, BATCH_PIXELS // model.card["image_size"] ** 2)
    if cohort.films is not None:
        largest = int((cohort.films["height"] * cohort.films["width"]).max())
        batch = min(batch, max(1, FILM_PIXELS // largest))
    return batch


# --- the store of a cohort and a model ---


def made_from(cohort, model, dtype: str = "float32") -> dict:
    """What decides the embeddings: names, hashes and precision."""
    return {
        "cohort": cohort.name,
        "cohort_fingerprint": cohort.fingerprint,
        "model": model.name,
        "weights": model.weights,
        "preprocessing": model.preprocessing,
        "preprocessing_hash": model.preprocessing_hash,
        "precision": model.precision,
        "dtype": dtype,
    }


def store_folder(cohort, model, dtype: str = "float32") -> Path:
    """The folder of the store, below :func:`folder_for` the cohort."""
    return _folder(cohort, made_from(cohort, model, dtype))


def _folder(cohort, what: dict) -> Path:
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    readable = re.sub(r"[^\w-]+", "-", f"{what['cohort']}_{what['model']}")
    return folder_for(cohort) / "embeddings" / f"{readable}_{key}"


def extract(
    cohort,
    model,
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
        Images a file of a new store; a crash costs at most as many images a process.
    batch_size : int, optional
        Images that go through the model at once. By default as fits a CPU's caches, or as runs
        fastest on a GPU; it is halved when memory runs out.
    workers : int, optional
        Processes that read and prepare films, 0 for none beside this one. By default one a core
        but one (at most 16) for films on disk, none for phantoms.
    engine : {"local", "ray"}
        In this process, or by :mod:`cxrlib.embed_ray` on several GPUs or machines.
    actors, address : int, str, optional
        Of the engine "ray", see :func:`cxrlib.embed_ray.run`.

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
        raise ValueError(f"cohort {cohort.name!r} is metadata only; embeddings need images")
    if not len(cohort.table):
        raise ValueError(f"cohort {cohort.name!r} has no images")
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value is not None and (value < least or value != int(value)):
            raise ValueError(f"{name}={value}: expected a whole number, {least} or more")
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r}: expected {' or '.join(ENGINES)}")
    if workers is None:
        workers = 0 if cohort.films is None else min(WORKERS, max(1, _cores() - 1))
    order, what = _order(cohort), made_from(cohort, model, dtype)
    store = stores.create(
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
        tell = _progress(f"embedding {cohort.name} by {model.name}", job)
        if engine == "ray":
            from cxrlib import embed_ray

            embed_ray.run(job, tell, actors, address)
        else:
            work(job, range(store.n_shards), tell)
        tell(0, finished=True)  # other processes may have done the last ones
    store.tidy()
    return store


def _cores() -> int:
    """Processor cores that this process may use, which a cluster may limit."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def precision_error(cohort, model, n: int = PROBED) -> dict | None:
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
    films = _Films(cohort.images, model.preprocess)
    parts = (films[0, p][1] for p in np.array_split(some, -(-len(some) // _at_once(cohort, model))))
    pairs = [(_encode(model, x), _encode(exact, x)) for x in parts if x is not None]
    apart = torch.cat([torch.zeros(0), *((low - full).norm(dim=1).cpu() for low, full in pairs)])
    apart = apart[apart.isfinite()]
    if not len(apart):
        return None
    return {
        "n_images": len(apart),
        "largest": round(float(apart.max()), 8),
        "mean": round(float(apart.mean()), 8),
    }


# --- one process at work ---


@dataclass(frozen=True)
class Job:
    """All that a process needs to fill shards of a store.

    Attributes
    ----------
    store : Store
    image_ids : text (n,), sorted
    positions : int (n,)
        Of the store's rows in the cohort.
    images : callable
        See :class:`cxrlib.cohorts.Cohort`.
    model : Encoder
    at_once : int
        Images that a worker reads and prepares together.
    batch_size : int or None
    workers : int
    """

    store: Store
    image_ids: np.ndarray
    positions: np.ndarray
    images: Callable
    model: object
    at_once: int
    batch_size: int | None
    workers: int


def work(job: Job, shards, tell: Callable[[int], None], batch: _Batch | None = None) -> None:
    """Fill those of the shards that are missing; those of other processes are waited for.

    Parameters
    ----------
    job : Job
    shards : iterable of int
    tell : callable
        Called with the number of images after each shard.
    batch : _Batch, optional
        Of earlier calls with this job: the size that they found is kept.
    """
    shards = set(shards)
    batch = batch or _Batch(job)
    broken = 0
    while todo := sorted(shards & set(job.store.missing())):
        with _Claims(job.store, todo) as claims:
            for shard, vectors, problems in _encoded(job, claims, batch):
                broken += sum(map(bool, problems))
                _refuse_many(job, broken, problems)
                rows = job.store.rows(shard)
                ids = job.image_ids[rows.start : rows.stop]
                job.store.write(shard, ids, vectors, problems)
                claims.release(shard)
                tell(len(rows))
        if not claims.taken:  # all are with other processes: wait for one, holding none
            try:
                with job.store.lock(todo[0]).acquire(timeout=WAIT):
                    pass
            except Timeout:
                file = job.store.lock(todo[0]).lock_file
                tell(0, f"waiting for a process that holds {file}")


class _Claims:
    """Shards of which this process holds the locks; others are passed over."""

    def __init__(self, store, shards):
        self.store, self.shards, self.held, self.taken = store, shards, {}, 0

    def __iter__(self):
        for shard in self.shards:
            lock = self.store.lock(shard)
            try:
                with self.store.explained(f"the lock of shard {shard}"):
                    lock.acquire(timeout=0)
            except Timeout:
                continue
            self.held[shard] = lock
            if shard in self.store.present():
                self.release(shard)
                continue
            self.taken += 1
            yield shard

    def release(self, shard):
        self.held.pop(shard).release()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for shard in list(self.held):
            self.release(shard)


class _Films(Dataset):
    """Films as the model wants them, made in worker processes."""

    def __init__(self, images, preprocess):
        self.images, self.preprocess = images, preprocess

    def __getitem__(self, asked):
        """Shard, positions -> shard, tensor (m, 3, h, w) or None, why each could not be read."""
        shard, positions = asked
        try:
            return shard, self.preprocess(self.images(positions)), [""] * len(positions)
        except MemoryError:
            raise
        except Exception:  # which film it is, and why, is found out below
            found = [self.alone(position) for position in positions]
        good = [x for x, why in found if not why]
        return shard, torch.cat(good) if good else None, [why for _, why in found]

    def alone(self, position):
        try:
            return self.preprocess(self.images(np.array([position]))), ""
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            return None, reason or type(error).__name__


def _encoded(job, claims, batch) -> Iterator[tuple[int, np.ndarray, list[str]]]:
    """Shards in their order as they are done: number, vectors (m, d), problems (m,)."""

    def asked():
        for shard in claims:
            rows = job.store.rows(shard)
            positions = job.positions[rows.start : rows.stop]
            for start in range(0, len(positions), job.at_once):
                yield shard, positions[start : start + job.at_once]

    films = DataLoader(
        _Films(job.images, job.model.preprocess),
        sampler=asked(),
        batch_size=None,
        num_workers=job.workers,
        collate_fn=_as_it_is,
        worker_init_fn=_begin(os.getpid()),
        multiprocessing_context="fork" if job.workers else None,  # closures need no pickling
        pin_memory=job.model.device.startswith("cuda"),
    )
    vectors, problems = [], []
    for shard, x, why in films:
        if x is not None:
            batch.add(x)
        problems += why
        if len(problems) < len(job.store.rows(shard)):
            vectors += batch.full()
        else:
            yield shard, *_whole(vectors + batch.rest(), problems, job)
            vectors, problems = [], []


def _as_it_is(item):
    return item


def _begin(parent) -> Callable[[int], None]:
    """What a worker process does first."""

    def begin(_):
        import cv2  # its own threads would compete with the other workers

        cv2.setNumThreads(1)
        if os.getppid() != parent:  # killed by now, which torch's watch begins too late to notice
            os._exit(1)

    return begin


def _whole(vectors, problems, job):
    """Vectors for all rows, and the problems, with those of embeddings that are not finite."""
    good = np.array([not why for why in problems])
    width = vectors[0].shape[1] if vectors else job.model.embed_dim
    whole = np.full((len(problems), width), np.nan, np.float32)
    if vectors:
        whole[good] = torch.cat(vectors).cpu().numpy()  # the one time that a GPU is waited for
    for i in np.flatnonzero(good & ~np.isfinite(whole).all(axis=1)):
        problems[i] = f"its embedding is not finite (in {job.model.precision})"
    return whole, problems


class _Batch:
    """Films on their way through the model, as many at once as is good for it."""

    def __init__(self, job):
        self.model, self.size, self.films = job.model, job.batch_size, []
        self.searched = job.batch_size is not None or job.model.device == "cpu"
        if self.size is None and self.searched:
            self.size = job.at_once

    def add(self, films: Tensor) -> None:
        if not self.searched:
            self.size = fastest(lambda n: _seconds(self.model, films[:1], n))
            self.searched = True
        self.films.append(films.to(self.model.device, non_blocking=True))

    def full(self) -> list[Tensor]:
        """Embeddings of as many whole batches as there are."""
        waiting = sum(map(len, self.films))
        return self._run(waiting - waiting % self.size)

    def rest(self) -> list[Tensor]:
        return self._run(sum(map(len, self.films)))

    def _run(self, n) -> list[Tensor]:
        if not n:
            return []
        films = torch.cat(self.films) if len(self.films) > 1 else self.films[0]
        done, self.films = [], [films[n:]] if n < len(films) else []
        start = 0
        while start < n:
            try:
                done.append(_encode(self.model, films[start : min(start + self.size, n)]))
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if self.size == 1:
                    raise MemoryError(
                        f"{self.model.name}: memory ran out with a single image; free some, or "
                        "take another device or a lower precision"
                    ) from None
                self.size = -(-self.size // 2)
                continue
            start += self.size
        return done


def _encode(model, films: Tensor) -> Tensor:
    # A lone image takes other kernels, whose rounding differs by more than a millionth.
    if len(films) == 1:
        return model.image_vectors(films.repeat(2, 1, 1, 1))[:1]
    return model.image_vectors(films)


def out_of_memory(error) -> bool:
    """Whether an error is that of a GPU's or the CPU's allocator, or of a library that asked it."""
    said = ("DefaultCPUAllocator", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(s in str(error) for s in said)


def fastest(seconds: Callable[[int], float], largest: int = 1024, gain: float = 1.05) -> int:
    """The batch size from which a doubling no longer pays, or memory runs out.

    Parameters
    ----------
    seconds : callable
        Time of a batch of that many images; raises what torch raises when memory runs out.
    largest : int
    gain : float
        By which images a second have to rise.
    """
    best, speed, n = 1, 0.0, 1
    while n <= largest:
        try:
            found = n / seconds(n)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            break
        if found < gain * speed:
            break
        best, speed, n = n, found, 2 * n
    return best


def _seconds(model, film, n) -> float:
    films = film.to(model.device).repeat(n, 1, 1, 1)
    _encode(model, films).cpu()  # the first run of a shape finds kernels and memory
    start = time.perf_counter()
    _encode(model, films).cpu()
    return time.perf_counter() - start


def _refuse_many(job, broken, problems):
    if broken > max(FEW_BROKEN, MAX_BROKEN * len(job.image_ids)):
        raise StoreError(
            f"{broken} images so far cannot be read or encoded, the last one: "
            f"{[p for p in problems if p][-1]}. That is no matter of single films: look at the "
            "disk, the network drive or the model. What is stored stays good"
        )


def try_again(job: Job) -> None:
    """Give up shards with images that could not be read and now can, to be filled anew."""
    place = {image: i for i, image in enumerate(job.image_ids)}
    before = job.store.present()
    for shard, problems in job.store.problems().items():
        if shard in before and any(_mended(job, job.positions[place[i]]) for i in problems):
            with job.store.explained(f"shard {shard}"), job.store.lock(shard):
                # a file of another name is what another process has just made of it
                before[shard].unlink(missing_ok=True)


def _mended(job, position) -> bool:
    film, why = _Films(job.images, job.model.preprocess).alone(position)
    return not why and bool(_encode(job.model, film).isfinite().all())


def _progress(title, job) -> Callable[..., None]:
    n, start, tell = len(job.image_ids), time.monotonic(), teller()
    kept = n - sum(len(job.store.rows(shard)) for shard in job.store.missing())
    done = 0

    def report(images, waiting_for="", finished=False):
        nonlocal done
        done += images
        rate = done / max(time.monotonic() - start, 1e-9)
        left = timedelta(seconds=round((n - kept - done) / rate)) if done else "unknown time"
        line = f"{title}: {kept + done:,} of {n:,} images, {rate:,.0f} a second, {left} left"
        tell(f"{line}; {waiting_for}" if waiting_for else line, finished)

    return report
