"""Embeddings by several GPUs or machines: Ray places processes and says when one died.

One actor a GPU, or a few cores, each fills groups of shards by :func:`cxrlib.embed.worker.work`.
The driver hands out the groups: first large ones, last single shards, so that all actors end
together (guided self-scheduling, Polychronopoulos and Kuck 1987, IEEE Trans. Computers 36(12)). A
group whose actor died goes to another; what that actor had stored is kept. The folder of the store
has to be the same one on all machines.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pyarrow.parquet as pq
import torch

from cxrlib.embed import worker
from cxrlib.embed.store import PACKAGES, StoreError, load

THREADS = 4  # cores of an actor without a GPU: more speed a small model up little
GROUPS = 4  # an actor's share of what is left, in groups
DEATHS = 3  # times that all actors may die without one shard stored in between
POLL = 2.0  # seconds between two looks at the store
PATIENCE = 60.0  # seconds until a missing actor is mentioned, or a network drive has to show a file
OURS = (ValueError, OSError, MemoryError)  # messages that need no traceback of another process


def run(
    job: worker.Job,
    tell: Callable[..., None],
    actors: int | None = None,
    address: str | None = None,
) -> None:
    """Fill the missing shards of a store by Ray actors.

    Parameters
    ----------
    job : Job
        Its ``workers`` are those of each actor, but no more than fit its cores.
    tell : callable
        Called with the number of images that were stored since the last call.
    actors : int, optional
        By default one a GPU for a model on "cuda", else one for up to 4 cores.
    address : str, optional
        Of a Ray cluster: "auto" on one of its machines, "host:port" or "ray://host:port". By
        default Ray is started on this machine, and ended when the work is done. A process that is
        connected to Ray already stays so.

    Raises
    ------
    ImportError
        Ray is not installed.
    ConnectionError
        No Ray answers at the address.
    ValueError
        No machine of the cluster has room for an actor, or ``actors`` is below 1.
    StoreError
        The store is not the same folder on all machines, they have other versions, or too many
        images are broken.
    ChildProcessError
        Actors died again and again.
    OSError, MemoryError
        As :func:`cxrlib.embed.extract.extract`.
    """
    if actors is not None and actors < 1:
        raise ValueError(f"actors={actors}: expected 1 or more")
    try:
        import ray
    except ImportError:
        raise ImportError(
            "engine='ray' needs Ray, which is not installed: pip install -e '.[ray]' in the "
            "clone, or take engine='local'"
        ) from None
    own = not ray.is_initialized()
    if own:
        _connect(ray, address)
    model = job.model
    place = next(model.network.parameters()).device
    try:
        # The weights travel by way of the CPU, and leave this machine's GPU to an actor.
        store = replace(job.store, folder=job.store.folder.resolve())
        moved = replace(job, store=store, model=model.to("cpu", model.precision))
        _drive(ray, moved, tell, actors, torch.device(model.device).type)
    finally:
        model.network.to(place)
        if own:
            ray.shutdown()


def _connect(ray, address):
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no report to Ray's makers
        ray.init("local", include_dashboard=False, **quiet)
        return
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdigit():  # Ray itself tries for two minutes, then ends this process
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"address={address!r}: no Ray cluster can be reached there ({error}). Expected 'auto' "
            "on a machine of the cluster, 'host:port' or 'ray://host:port'; None starts Ray here"
        ) from None


def _drive(ray, job, tell, actors, device):
    """Hand out groups of shards until all are stored."""
    todo = job.store.missing()
    unseen = set(todo)
    actors, need = _shares(_machines(ray), actors, len(todo), device, job.workers)
    shared = ray.put(job)
    hello = shared, device, need["CPU"], os.getcwd(), _versions()
    remote = ray.remote(num_cpus=need["CPU"], num_gpus=need["GPU"])(_Actor)
    crew, idle = [], []
    doing = {}  # what is waited for: the actor and its shards, none while it starts
    deaths, problems, begun, warned = 0, [], time.monotonic(), False

    def start():
        crew.append(actor := remote.remote())
        doing[actor.prepare.remote(*hello)] = actor, []

    try:
        for _ in range(actors):
            start()
        while todo or any(group for _, group in doing.values()):
            while todo and idle:
                n = -(-len(todo) // (GROUPS * actors))
                group, todo = todo[:n], todo[n:]
                actor = idle.pop()
                doing[actor.fill.remote(group)] = actor, group
            for ref in ray.wait(list(doing), timeout=POLL)[0]:
                actor, group = doing.pop(ref)
                try:
                    problems += _result(ray, ref)
                    idle.append(actor)
                except ray.exceptions.RayError as error:  # the actor, or its machine, is gone
                    ray.kill(actor)  # it may only have lost touch: it has to give up its locks
                    todo = group + todo
                    deaths += 1
                    if deaths >= DEATHS * actors:
                        raise ChildProcessError(_gave_up(error, deaths, group)) from None
                    start()
            worker.refuse_many(job, len(problems), problems)
            if seen := unseen & set(job.store.present()):
                unseen -= seen
                deaths = 0
                tell(sum(len(job.store.rows(shard)) for shard in seen))
            if idle or any(group for _, group in doing.values()):
                begun = time.monotonic()
            elif not any(all(m.get(k, 0) >= need[k] for k in need) for m in _machines(ray)):
                raise _no_room(need)
            elif time.monotonic() - begun > PATIENCE and not warned:
                warned = True
                warnings.warn(
                    f"no actor has started for {PATIENCE:.0f} s: each waits for {_text(need)} of "
                    "the Ray cluster, which others may hold",
                    stacklevel=4,
                )
    finally:
        for actor in crew:
            ray.kill(actor)
    _await(job.store, unseen, tell)


def _machines(ray):
    """Resources of the machines that are alive."""
    return [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]


def _shares(machines, actors, shards, device, workers):
    """How many actors, and what each takes of a machine."""
    if device == "cuda":
        with_gpu = [m for m in machines if m.get("GPU", 0) >= 1]
        if not with_gpu:
            raise ValueError(
                "the model is on 'cuda', and no machine of the Ray cluster has a GPU: start them "
                "with one (ray start --num-gpus), or take device 'cpu'"
            )
        cores = min(int(m.get("CPU", 0) // m["GPU"]) for m in with_gpu)
        actors = min(actors or sum(int(m["GPU"]) for m in with_gpu), shards)
        return actors, {"CPU": min(cores, 1 + workers), "GPU": 1}
    cores = [int(m.get("CPU", 0)) for m in machines]
    if not any(cores):
        raise _no_room({"CPU": 1, "GPU": 0})
    if actors is None:
        each = min(THREADS, torch.get_num_threads(), max(cores))
        return min(sum(n // each for n in cores), shards), {"CPU": each, "GPU": 0}
    actors = min(actors, shards)
    fitting = (c for c in range(max(cores), 0, -1) if sum(n // c for n in cores) >= actors)
    return actors, {"CPU": next(fitting, 1), "GPU": 0}


def _text(need):
    return " and ".join(f"{n} {kind}" for kind, n in need.items() if n)


def _no_room(need):
    return ValueError(
        f"no machine of the Ray cluster has {_text(need)}, which an actor needs; what is stored "
        "stays good: add machines, or ask for fewer cores (more actors), and run it again"
    )


def _result(ray, ref):
    """What an actor returned; its errors as they were raised there."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        plain = isinstance(error.cause, (*OURS, ray.exceptions.RayError))
        raise error.cause from None if plain else error


def _gave_up(error, deaths, group):
    reason = next(reversed(str(error).strip().splitlines()), type(error).__name__).strip()
    where = f"at shards {group[0]} to {group[-1]}" if group else "before it could work"
    return (
        f"actors died {deaths} times without one shard stored in between, the last one {where}: "
        f"{reason[:500]}. What is stored stays good"
    )


def _await(store, unseen, tell):
    """Let a network drive show what other machines wrote."""
    until = time.monotonic() + PATIENCE
    while missing := store.missing():
        if time.monotonic() > until:
            raise StoreError(
                f"{len(missing)} shards were stored by other machines and are not in "
                f"{store.folder} here: it has to be one folder that all machines share"
            )
        time.sleep(POLL)
    if unseen:
        tell(sum(len(store.rows(shard)) for shard in unseen))


# --- in the processes that Ray starts ---


class _Actor:
    """A process with the model on its device."""

    def prepare(
        self, job: Any, device: str, cores: int, folder: str, versions: dict[str, str]
    ) -> list[str]:
        """Make ready, or raise why not; errors of ``__init__`` would come as those of Ray."""
        with suppress(OSError):  # where there is no such folder, paths are absolute
            os.chdir(folder)
        _refuse_other_machine(job, versions)
        torch.set_num_threads(max(1, cores))
        model = job.model.to(device, job.model.precision)
        workers = min(job.workers, max(1, cores - 1))
        self.job = replace(job, model=model, workers=workers)
        self.batch = worker.Batch(self.job)
        return []

    def fill(self, group: list[int]) -> list[str]:
        """Fill shards; returns why images in them have no embedding."""
        worker.work(self.job, group, lambda *_: None, self.batch)
        there = self.job.store.present()
        columns = (pq.read_table(there[shard], columns=["problem"])["problem"] for shard in group)
        return [why for column in columns for why in column.to_pylist() if why]


def _versions() -> dict[str, str]:
    return {package: version(package) for package in PACKAGES}


def _refuse_other_machine(job, versions):
    here = f"machine {socket.gethostname()} of the Ray cluster"
    asked = versions | {"code": job.store.manifest["made_from"]["preprocessing_hash"]}
    try:
        # a new object: the hash that came with the job is that of the other machine
        found = _versions() | {"code": replace(job.model).preprocessing_hash}
        same = load(job.store.folder).manifest == job.store.manifest
    except OSError as error:
        raise StoreError(
            f"{here}: {error.filename} is not there; cxrlib has to be installed in the same place "
            "on all machines"
        ) from None
    except StoreError as error:
        raise StoreError(f"{here}: {error}. All machines have to share this folder") from None
    if not same:
        raise StoreError(f"{here}: {job.store.folder} is another store there; share the folder")
    if other := [k for k in asked if asked[k] != found[k]]:
        said = "; ".join(f"{k}: {found[k]} there, {asked[k]} here" for k in other)
        raise StoreError(f"{here} would compute other embeddings ({said}): install the same there")
