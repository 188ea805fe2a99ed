"""One process at work on a store: films in, shards out.

Worker processes decode and prepare films while the model runs. A process takes the shards whose
locks are free, so that several share the work; :func:`cxrlib.embed.extract.extract` is the way in.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import cv2
import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cxrlib.cohorts.films import MAX_BROKEN
from cxrlib.core.folders import for_sockets
from cxrlib.embed.store import Store, StoreError
from cxrlib.models.encoder import Encoder

REMEMBERED = 2**26  # bytes of films that were drawn here: 16,384 of 64 pixels
FEW_BROKEN = 10  # images that may have no embedding, however small the cohort
WAIT = 60.0  # seconds until it is said that another process is waited for


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
        See :class:`cxrlib.cohorts.cohort.Cohort`.
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
    model: Encoder
    at_once: int
    batch_size: int | None
    workers: int


def work(
    job: Job, shards: Iterable[int], tell: Callable[..., None], batch: Batch | None = None
) -> None:
    """Fill those of the shards that are missing; those of other processes are waited for.

    Parameters
    ----------
    job : Job
    shards : iterable of int
    tell : callable
        Called with the number of images after each shard.
    batch : Batch, optional
        Of earlier calls with this job: the size that they found is kept.
    """
    shards = set(shards)
    batch = batch or Batch(job)
    broken = 0
    while todo := sorted(shards & set(job.store.missing())):
        held: dict[int, FileLock] = {}
        taken = 0
        try:
            for shard, vectors, problems in _encoded(job, _claimed(job.store, todo, held), batch):
                taken += 1
                broken += sum(map(bool, problems))
                refuse_many(job, broken, problems)
                rows = job.store.rows(shard)
                ids = job.image_ids[rows.start : rows.stop]
                job.store.write(shard, ids, vectors, problems)
                held.pop(shard).release()
                tell(len(rows))
        finally:
            for lock in held.values():
                lock.release()
        if not taken:  # all are with other processes: wait for one, holding none
            lock = job.store.lock(todo[0])
            try:
                with lock.acquire(timeout=WAIT):
                    pass
            except Timeout:
                tell(0, f"waiting for a process that holds {lock.lock_file}")


def _claimed(store: Store, shards: list[int], held: dict[int, FileLock]) -> Iterator[int]:
    """Missing shards whose locks are free, and from now on in ``held``; others are passed over."""
    for shard in shards:
        lock = store.lock(shard)
        try:
            with store.explained(f"the lock of shard {shard}"):
                lock.acquire(timeout=0)
        except Timeout:
            continue
        held[shard] = lock
        if shard in store.present():
            held.pop(shard).release()
        else:
            yield shard


class Films(Dataset):
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

    def alone(self, position: int) -> tuple:
        try:
            return self.preprocess(self.images(np.array([position]))), ""
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            return None, reason or type(error).__name__


def _encoded(
    job: Job, shards: Iterable[int], batch: Batch
) -> Iterator[tuple[int, np.ndarray, list[str]]]:
    """Shards in their order as they are done: number, vectors (m, d), problems (m,)."""

    def asked():
        for shard in shards:
            rows = job.store.rows(shard)
            positions = job.positions[rows.start : rows.stop]
            for start in range(0, len(positions), job.at_once):
                yield shard, positions[start : start + job.at_once]

    images = job.images if job.workers else _remembered(job.images)
    films = DataLoader(
        Films(images, job.model.preprocess),
        sampler=asked(),
        batch_size=None,
        num_workers=job.workers,
        collate_fn=lambda item: item,
        worker_init_fn=partial(_begin, os.getpid()),
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


@lru_cache(maxsize=1)
def _remembered(images):
    """The same films, where they fit into memory: one model after the other looks at a cohort."""
    drawn: dict[bytes, np.ndarray] = {}

    def films(positions):
        key = positions.tobytes()
        if key not in drawn:
            found = images(positions)
            full = sum(f.nbytes for f in drawn.values()) + getattr(found, "nbytes", 0) > REMEMBERED
            if full or not isinstance(found, np.ndarray):
                return found
            drawn[key] = found
        return drawn[key].copy()

    return films


def _begin(parent: int, _: int) -> None:
    """What a worker process does first."""
    cv2.setNumThreads(1)  # more would compete with the other workers
    tempfile.tempdir = for_sockets()  # tensors are handed over through one
    if os.getppid() != parent:  # killed by now, which torch's watch begins too late to notice
        os._exit(1)


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


class Batch:
    """Films on their way through the model, as many at once as is good for it."""

    def __init__(self, job):
        self.model, self.films = job.model, []
        # for a GPU it is searched when there are films to try it with
        self.size = job.batch_size or (job.at_once if job.model.device == "cpu" else None)

    def add(self, films: Tensor) -> None:
        if self.size is None:
            self.size = fastest(lambda n: _seconds(self.model, films[:1], n))
        self.films.append(films.to(self.model.device, non_blocking=True))

    def full(self) -> list[Tensor]:
        """Embeddings of as many whole batches as there are."""
        waiting = sum(map(len, self.films))
        return self._run(waiting - waiting % self.size)

    def rest(self) -> list[Tensor]:
        return self._run(sum(map(len, self.films)))

    def _run(self, n: int) -> list[Tensor]:
        if not n:
            return []
        films = torch.cat(self.films) if len(self.films) > 1 else self.films[0]
        self.films = [films[n:]] if n < len(films) else []
        done, films = [], films[:n]
        while len(films):
            try:
                done.append(encode(self.model, films[: self.size]))
                films = films[self.size :]
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if self.size == 1:
                    raise MemoryError(
                        f"{self.model.name}: memory ran out with a single image; free some, or "
                        "take another device or a lower precision"
                    ) from None
                self.size = -(-self.size // 2)
        return done


def encode(model: Encoder, films: Tensor) -> Tensor:
    # A lone image takes other kernels, whose rounding differs by more than a millionth.
    if len(films) == 1:
        return model.image_vectors(films.repeat(2, 1, 1, 1))[:1]
    return model.image_vectors(films)


def out_of_memory(error: Exception) -> bool:
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
        By which images per second have to rise.
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


def _seconds(model: Encoder, film: Tensor, n: int) -> float:
    films = film.to(model.device).repeat(n, 1, 1, 1)
    encode(model, films).cpu()  # the first run of a shape finds kernels and memory
    start = time.perf_counter()
    encode(model, films).cpu()
    return time.perf_counter() - start


def refuse_many(job: Job, broken: int, problems: Sequence[str]) -> None:
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


def _mended(job: Job, position: int) -> bool:
    film, why = Films(job.images, job.model.preprocess).alone(position)
    return not why and bool(encode(job.model, film).isfinite().all())
