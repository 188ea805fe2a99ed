"""Run chapters with papermill, two at a time, and keep what they gave until something changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nbformat
from tqdm import tqdm

from cxrlib.book import inputs, leftovers, manifest, record
from cxrlib.book.chapters import Chapter, assign
from cxrlib.core import atomic, used
from cxrlib.core.errors import BookError, Lacks
from cxrlib.core.folders import LIBRARY, for_sockets
from cxrlib.core.progress import STATUS

TRAINS = {"epochs", "epochs_encoder", "remedies"}  # parameters of chapters that train something
TELLING = "cxrbook-used"  # id of the driver's own cell


def fingerprint(paths: Iterable[Path], *values: object) -> str:
    """SHA-256 over the names and contents of files (folders are walked) and over `values`."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(path.parent)}\0".encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    digest.update(json.dumps(values, sort_keys=True, default=str).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Task:
    """A chapter to execute with some parameters."""

    chapter: Chapter
    given: dict  # parameters that differ from the declared defaults
    target: Path  # the executed notebook
    own: str  # changes with source, parameters, lock file, Python, and the data set
    hashes: dict  # of every file that the chapter might use, see `inputs.hashes`
    code: dict  # hash of the chapter, and the state of the repository
    name: str  # for messages: of the chapter, and what tells the task from others
    run: str | None = None  # the name that the user gave the run
    guarded: Path | None = None  # the only folder for anything of credentialed data
    among: bool = False  # others: where its models or data lack what it wants, it ends with a note

    def content(self, used: Iterable[str]) -> dict[str, str | None]:
        """Files that were used, with their hashes; None for one that is not there."""
        return {name: self.hashes.get(name) for name in used}

    def made_by(self, used: Iterable[str]) -> dict:
        """The code behind a run that used these files: their hashes, and those of its parts."""
        files = self.content(used)
        library = {name: content for name, content in files.items() if name.startswith("cxrlib/")}
        return {"library": fingerprint([], library), **self.code, "files": files}

    def key(self, used: Iterable[str]) -> str:
        """Changes with whatever decides about the result of a run that used these files."""
        return fingerprint([], self.own, self.content(used))

    @property
    def fresh(self) -> bool:
        """Whether notebook, card and results table are there as they would be made now."""
        used = record.card_of(self.target).get("code", {}).get("files")
        return used is not None and record.key(self.target) == self.key(used)


def run(
    root: Path,
    chosen: list[Chapter],
    given: dict | None = None,
    out: Path | None = None,
    jobs: int = 2,
    profile: dict[str, dict] | None = None,
    name: str | None = None,
) -> list[Path]:
    """Execute chapters that changed since they were last executed.

    A chapter is executed again when its source, its parameters, the lock file, the Python version,
    the folder of its data set or a file that it used last time changed: a module of the library,
    weights, package data, a recorded benchmark (:mod:`cxrlib.book.inputs`). A chapter whose cells
    all passed replaces its card, its results table (:mod:`cxrlib.book.record`) and, last, its
    notebook; one with a failed cell leaves the former ones as they were, and so does one that shows
    what must not be shown (:mod:`cxrlib.book.scan`).

    Parameters
    ----------
    root : Path
        The project's folder.
    chosen : list of Chapter
    given : dict, optional
        Parameters, see :func:`cxrlib.book.chapters.assign`.
    out : Path, optional
        Where the executed notebooks go. Default: ``book/chapters`` for default parameters, else a
        folder below ``_build/runs`` named after chapter and parameters, so that a run with other
        parameters never replaces a chapter of the book.
    jobs : int
        Chapters executed at the same time.
    profile : dict, optional
        Chapter name -> parameters, see :func:`cxrlib.book.profiles.combined`; `given` wins over it.
    name : str, optional
        Goes to the cards.

    Returns
    -------
    list of Path
        The executed notebooks, in the order of `chosen`.

    Raises
    ------
    BookError
        Bad parameter, missing lock file, unwritable folder, or cells that failed or show what must
        not be shown (all of them named).
    """
    values = parameters_of(chosen, given or {}, profile or {})
    out = out or _default_out(root, chosen, values)
    wanted = [(c, values[c.name], out / f"{c.name}.ipynb", c.name) for c in chosen]
    every = tasks(root, wanted, name, among=len(chosen) > 1)
    check_writable(out)
    execute(root, every, jobs, out / ".durations.json")
    return [task.target for task in every]


def parameters_of(chosen: list[Chapter], given: dict, profile: dict) -> dict[str, dict]:
    """Checked parameters of each chapter: dict of name -> those that differ from the defaults."""
    declared = {name for chapter in chosen for name in chapter.parameters}
    if unknown := [name for name in given if name not in declared]:
        assign(chosen, {unknown[0]: given[unknown[0]]})  # refuses it
    values: dict[str, dict] = {}
    for chapter in chosen:
        mine = {name: value for name, value in given.items() if name in chapter.parameters}
        values |= assign([chapter], profile.get(chapter.name, {}) | mine)
    return values


def tasks(
    root: Path,
    wanted: list[tuple[Chapter, dict, Path, str]],
    run: str | None = None,
    among: bool = False,
) -> list[Task]:
    """What to execute: list of Task.

    Parameters
    ----------
    root : Path
    wanted : list of (Chapter, dict, Path, str)
        Parameters that differ from the defaults, the executed notebook, and the task's name.
    run : str, optional
        The name that the user gave the run.
    among : bool
        Chapters that lack something end with a note, so that the others make a book.

    Raises
    ------
    BookError
        A parameter that holds a path of this machine, or a missing lock file.
    """
    for _, given, _, _ in wanted:
        _refuse_paths(given)
    lock = root / "requirements.lock"
    if not lock.is_file():
        raise BookError(f"{lock} is missing: restore it with 'git checkout requirements.lock'")
    hashes = inputs.hashes(inputs.places(root, LIBRARY))
    state = record.git_state(LIBRARY) | {"lock": hashlib.sha256(lock.read_bytes()).hexdigest()}
    return [
        Task(
            chapter,
            given,
            target,
            fingerprint([chapter.path, lock], sys.version, given, _data_stamp(given)),
            hashes,
            {"chapter": fingerprint([chapter.path]), **state},
            name,
            run,
            _guarded(chapter, given),
            among,
        )
        for chapter, given, target, name in wanted
    ]


def _data_stamp(given):
    """Changes when the folder of a chapter's cohort does; "" for cohorts without files."""
    if "data" not in given:
        return ""  # the default cohort
    from cxrlib.cohorts import files, known  # pandas takes a while

    folder = known(given["data"]).folder
    return files.stamp(files.root_of(folder)) if folder else ""


def _guarded(chapter, given):
    """The folder beside credentialed data, where a chapter has them."""
    values = {p.name: p.default for p in chapter.parameters.values()} | given
    name = values.get("data")
    if not name or name.startswith("phantom"):
        return None
    from cxrlib.cohorts import files, known  # pandas takes a while

    about = known(name)
    if "open" in (about.access, values.get("options", {}).get("access")):
        return None
    try:
        return files.derived(files.root_of(about.folder))
    except files.DataError as error:
        raise BookError(str(error)) from None


def _refuse_paths(values):
    """Parameters are kept in the notebook, where no path of this machine may be."""
    for name, value in values.items():
        for text in re.findall(r"""[^"',\s\[\]{}()]+""", str(value)):
            if Path(text).is_absolute() or text.startswith("~"):
                raise BookError(
                    f"parameter {name!r} holds a path of this machine, which would be kept in "
                    "the notebook: put or link the folder below CXRBOOK_DATA instead",
                    code=2,
                )


def _default_out(root, chosen, values):
    changed = {name: v for name, v in values.items() if v}
    if not changed:
        return root / "book" / "chapters"
    name = chosen[0].name if len(chosen) == 1 else "book"
    return root / "_build" / "runs" / f"{name}-{fingerprint([], changed)[:8]}"


def check_writable(folder: Path) -> None:
    """Make `folder`; BookError where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BookError(f"cannot write to {folder}: {error.strerror}") from None


def execute(root: Path, every: list[Task], jobs: int, memory: Path) -> None:
    """Execute the tasks that are not fresh, several at a time.

    Parameters
    ----------
    root : Path
        The project's folder, in which chapters run.
    every : list of Task
    jobs : int
    memory : Path
        File with the seconds that cells took.

    Raises
    ------
    BookError
        Cells that failed or show what must not be shown, all of them named; the other tasks were
        executed.
    """
    stale = [task for task in every if not task.fresh]
    with _noted(root, every, stale):
        if stale:
            _execute_all(root, every, stale, jobs, memory)


@contextlib.contextmanager
def _noted(root, every, stale):
    """Have the manifests say which chapters run, and which have ended."""
    known = [path.stem for path in (root / "chapters").glob("*.py")]

    def note(state_of, those):
        for folder in dict.fromkeys(task.target.parent for task in those):
            here = [task for task in those if task.target.parent == folder]
            manifest.update(folder, {task.target.stem: state_of(task) for task in here}, (), known)

    note(lambda task: manifest.RUNNING, stale)
    try:
        yield
    finally:
        # also those that were kept by a run which was cut off before it could note them
        unnoted = [
            t for t in every if manifest.noted(t.target.parent).get(t.target.stem) != manifest.ENDED
        ]
        note(lambda task: manifest.ENDED if task.fresh else manifest.FAILED, unnoted)


def _execute_all(root, every, stale, jobs, memory):
    kept = {task.target.parent for task in every}
    with tempfile.TemporaryDirectory(prefix="cxrbook-") as scratch:
        progress = Progress(stale, jobs, memory, Path(scratch) / "status")

        def one(task):
            if task.guarded:  # what a run leaves that was killed is found where the data are
                task.guarded.mkdir(parents=True, exist_ok=True)
            at = task.guarded or scratch
            try:
                with tempfile.TemporaryDirectory(prefix="cxrbook-", dir=at) as folder:
                    before = leftovers.state(root, kept)
                    try:
                        done = _execute(root, task, Path(folder), progress)
                    finally:  # whether it failed or not
                        left = leftovers.hits(root, before, kept) if task.guarded else []
                    _keep(task, *done, left)
            except BaseException:
                progress.fail(task)
                raise

        with ThreadPoolExecutor(jobs) as pool:
            # The longest first, so that none is left to run alone at the end; of chapters never
            # run, those that train, but not one that would wait for another's trainings.
            of = [task.chapter for task in stale]
            train = {c.name for c in of if TRAINS & c.parameters.keys()}
            ordered = sorted(
                stale,
                key=lambda t: (
                    -sum(progress.past.get(t.name, [])),
                    t.chapter.name not in train or not train.isdisjoint(t.chapter.about["needs"]),
                ),
            )
            running = {pool.submit(one, task) for task in ordered}
            pending = running
            try:
                while pending:
                    pending = wait(pending, timeout=1)[1]
                    progress.show()
            except KeyboardInterrupt:
                _stop(pool, running)
                raise
            finally:
                progress.close()
    failures = [failure for f in running if (failure := f.exception())]
    if faults := [failure for failure in failures if not isinstance(failure, BookError)]:
        raise faults[0]
    if failures:
        raise BookError("\n".join(sorted(map(str, failures))))


def _keep(task, path, told, seconds, left):
    """Keep an executed notebook, its card and its results table, unless they show too much, or the
    chapter `left` what does in the working folder."""
    from cxrlib.book import scan  # pandas takes seconds, which a run with nothing to do is spared

    notebook = nbformat.read(path, as_version=4)
    table = record.results(path)
    card = record.card(task, told, seconds, notebook, table)
    hits = scan.notebook(notebook, task.target.name)
    hits += record.hits(card, table, notebook, task.target.stem) + left
    if hits:
        raise BookError(f"not kept: {'; '.join(map(str, hits))}")
    task.target.parent.mkdir(parents=True, exist_ok=True)
    record.write(task.target, card, table)
    # The notebook comes last: it says that the run is whole.
    atomic.write(task.target, path.read_bytes())


def _stop(pool, running):
    """Kill the kernels, which live in sessions of their own, where Ctrl-C does not reach them.

    A second Ctrl-C would leave them running, and be waited for.
    """
    while not all(future.done() for future in running):
        with contextlib.suppress(KeyboardInterrupt):
            import psutil

            pool.shutdown(wait=False, cancel_futures=True)
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            wait(running, timeout=0.3)


def _kernels(**variables):
    """Kernels of this very interpreter, one thread each, untouched by the user's own settings.

    A class for papermill; its kernels find these variables in their environment.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    from cxrlib.book import kernels

    paths = [str(LIBRARY.parent), os.environ.get("PYTHONPATH", "")]
    variables |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONHASHSEED": "0"}
    quiet = get_kernel_dict(["--log-level=CRITICAL"])  # what goes wrong in a cell is in its output
    about = {"env": variables | {"OMP_NUM_THREADS": "1"}, "metadata": kernels.settings()}
    spec = KernelSpec(**(quiet | about))

    async def start_kernel(self, **options):
        # What is written past the notebook would come to the user's terminal, unseen by any guard.
        nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return await AsyncKernelManager.start_kernel(self, **nowhere, **options)

    return type(
        "Kernels", (AsyncKernelManager,), {"kernel_spec": spec, "start_kernel": start_kernel}
    )


@contextlib.contextmanager
def _channel():
    """Talk to the kernel through files of its own, which needs no network interface at all."""
    place = for_sockets()
    if os.name != "posix" or place is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(
        prefix="cxrbook-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield {"transport": "ipc", "ip": f"{folder}/k"}


def _execute(root, task, scratch, progress):
    """Run one chapter.

    Returns
    -------
    (Path, dict, float)
        The executed notebook without timings and machine names; what the kernel told of itself
        (:func:`cxrlib.core.used.tell`), and the ``files`` it used; wall time in seconds.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from cxrlib.book import kernels

    source, target = scratch / "in.ipynb", scratch / f"{task.target.stem}.ipynb"
    last = nbformat.v4.new_code_cell(used.CELL, id=TELLING)
    asked = task.chapter.notebook
    asked = nbformat.from_dict({**asked, "cells": [*asked.cells, last]})
    nbformat.write(asked, source)
    places, notes = inputs.places(root, LIBRARY), scratch / "opened"
    watched = used.watched(notes, list(places.values()))
    variables = {used.WATCH: watched, STATUS: str(progress.status)}
    progress.start(task)
    begun = time.monotonic()
    problem, lacks = None, False
    try:
        with _channel() as channel:
            papermill.execute_notebook(
                source,
                target,
                parameters=task.given,
                kernel_name="python3",
                kernel_manager_class=_kernels(IPYTHONDIR=str(scratch), **variables),
                progress_bar=False,
                request_save_on_cell_execute=False,
                resources={"metadata": {"path": str(root)}},
                config=Config(KernelManager=channel),
                shutdown_kernel="immediate",  # all is told; asked to end, one takes seconds
                on_cell_start=lambda cell, cell_index: progress.cell(task, cell),
            )
    except PapermillExecutionError as error:
        first = error.source.strip().splitlines()[0]
        said = str(error.evalue).strip().partition("\n")[0]
        problem = (f"(begins {first!r}) failed: {error.ename}", said)
        lacks = error.ename == Lacks.__name__
    except RuntimeError as error:
        problem = ("lost its kernel, perhaps for want of memory", str(error))
    seconds = time.monotonic() - begun
    opened = notes.read_text().splitlines() if notes.is_file() else []
    files = inputs.named(opened, places)
    if target.is_file():
        told = _without_traces(target, {"key": task.key(files), "parameters": task.given})
    if lacks:
        said = _ended(target, problem[1])
        if not task.among:
            raise BookError(f"chapter {task.name} did not run: {said}")
        sys.stderr.write(f"{task.name} did not run: {said}\n")
        told = {"cohorts": [], "models": [], "memory_mb": None, "modules": []} | used.gpu()
    elif problem:
        where = f"chapter {task.name}, cell {progress.where(task)}"
        raise BookError(f"{where} {_failure(root, task, target, *problem)}")
    kernels.learn(told.pop("modules"))
    progress.finish(task)
    return target, told | {"files": files}, seconds


def _without_traces(path, about):
    """Take out of a notebook what papermill and the driver put there, and write into it what
    belongs to it; return what it told."""
    notebook = nbformat.read(path, as_version=4)
    told = None
    for output in [o for cell in notebook.cells if cell.id == TELLING for o in cell.outputs]:
        if used.KIND in output.get("data", {}):
            told = json.loads(output["data"][used.KIND])
    notebook.cells = [cell for cell in notebook.cells if cell.id != TELLING]
    for part in (notebook, *notebook.cells):
        part.metadata.pop("papermill", None)
        part.metadata.pop("execution", None)
    notebook.metadata["cxrbook"] = about
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return told


def _ended(path, said):
    """Leave of a chapter its head and why it ends there; the reason, where it may be told."""
    from cxrlib.book import scan
    from cxrlib.guard import MARK

    notebook = nbformat.read(path, as_version=4)
    if scan.is_guarded(notebook) and scan.text_kinds(said, scan.watch(True)):
        said = "it lacks something; what, is withheld"
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    declaring = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    head = notebook.cells[: notebook.cells.index(declaring) + 1]
    head += [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]
    text = f"```{{warning}}\nThis chapter did not run here: {said}.\n```"
    why = nbformat.v4.new_markdown_cell(text, id="did-not-run")
    guard = nbformat.v4.new_code_cell(id="guard", metadata={"tags": ["remove-cell"]})
    guard.outputs = [output for output in outputs if MARK in output.get("data", {})]
    notebook.cells = [*head, why, *([guard] if guard.outputs else [])]
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return said


def _failure(root, task, target, what, said):
    """What is told of a failed chapter; its notebook is kept, unless it is of credentialed data."""
    from cxrlib.book import scan

    content = nbformat.read(target, as_version=4) if target.is_file() else None
    if content is not None and scan.is_guarded(content):
        kinds = scan.text_kinds(said, scan.watch(True)) - {"machine path", "user name"}
        if kinds:
            said = f"its text is withheld ({', '.join(sorted(kinds))})"
        return f"{what}: {said} (no traceback is kept of credentialed data)"
    line = f"{what}: {said}"
    if content is None:
        return line
    name = re.sub(r"[^\w=,.-]+", "-", task.name)[:100]
    for folder in (root / "_build", task.target.parent):  # the project may be read-only
        kept = folder / "failed" / f"{name}.ipynb"
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(kept, target.read_bytes())
            return f"{line} (traceback in {kept})"
    return f"{line} (its notebook could not be written to {kept.parent})"


class Progress:
    """Which chapter is at which cell, for how long, and how long still: on stderr.

    The estimate takes the seconds that each cell took last time (kept in the file `memory`), and
    the mean of the cells seen so far for a cell never run. What a long cell says of itself in the
    file `status` stands behind it.
    """

    def __init__(self, stale: list[Task], jobs: int, memory: Path, status: Path):
        self.jobs, self.memory, self.status = jobs, memory, status
        self.cells = {t.name: sum(map(_is_code, t.chapter.notebook.cells)) for t in stale}
        self.begun: dict[str, list[float]] = {}  # chapter -> times at which its code cells began
        self.ended: set[str] = set()
        self.failed = 0
        self.t0 = self.told = time.monotonic()
        self.past = record.kept(memory)

    def start(self, task: Task) -> None:
        self.begun[task.name] = []

    def cell(self, task: Task, cell: nbformat.NotebookNode) -> None:
        given = "injected-parameters" in cell.metadata.get("tags", [])
        if _is_code(cell) and not given and cell.id != TELLING:
            self.begun[task.name].append(time.monotonic())

    def where(self, task: Task) -> str:
        return f"{len(self.begun[task.name])} of {self.cells[task.name]}"

    def finish(self, task: Task) -> None:
        times = [*self.begun[task.name], time.monotonic()]
        self.past[task.name] = [b - a for a, b in pairwise(times)]
        self.ended.add(task.name)
        self._say(f"{task.name}: {self.cells[task.name]} cells in {times[-1] - times[0]:.0f} s\n")

    def fail(self, task: Task) -> None:
        self.ended.add(task.name)
        self.failed += 1

    def left(self) -> float | None:
        """Seconds still to go, or None before a tenth of the cells is known."""
        now = time.monotonic()
        seen = [s for times in self.past.values() for s in times]
        seen = seen or [b - a for t in self.begun.values() for a, b in pairwise([*t, now])]
        if not seen or len(seen) < sum(self.cells.values()) / 10:
            return None  # long chapters begin: their cells are not typical
        typical = sum(seen) / len(seen)
        rest = {}
        for name in self.cells.keys() - self.ended:
            past, begun = self.past.get(name, []), self.begun.get(name, [])
            todo = range(len(begun), self.cells[name])
            rest[name] = sum(past[i] if i < len(past) else typical for i in todo)
            if begun and len(begun) <= len(past):
                rest[name] += max(0, past[len(begun) - 1] - (now - begun[-1]))
        return max(sum(rest.values()) / self.jobs, *rest.values(), 0)

    def show(self) -> None:
        """One status line: every second on a terminal, every ten elsewhere."""
        now, terminal, clock = time.monotonic(), sys.stderr.isatty(), tqdm.format_interval
        running = [n for n in self.begun if n not in self.ended]
        if not running or (not terminal and now - self.told < 10):
            return
        self.told = now
        left = self.left()
        at = ", ".join(f"{n} cell {len(self.begun[n])}/{self.cells[n]}" for n in running)
        rest = "time left unknown yet" if left is None else f"about {clock(left)} left"
        done = f"{len(self.ended)}/{len(self.cells)} chapters"
        done += f", {self.failed} failed" if self.failed else ""
        line = f"[{done}] {at}; {clock(now - self.t0)}, {rest}"
        if self.status.is_file():
            line += f" ({self.status.read_text(encoding='utf-8')})"
        self._say(line if terminal else line + "\n")

    def close(self) -> None:
        self._say("")
        with contextlib.suppress(OSError):
            atomic.write(self.memory, json.dumps(self.past).encode())

    def _say(self, text):
        sys.stderr.write(("\r\x1b[K" if sys.stderr.isatty() else "") + text)
        sys.stderr.flush()


def _is_code(cell):
    return cell.cell_type == "code" and bool(cell.source.strip())
