"""Run chapters with papermill, two at a time, and keep what they gave until something changes."""

import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path

import nbformat

from cxrlib import atomic, register, scan
from cxrlib.chapters import assign
from cxrlib.errors import BookError
from cxrlib.progress import STATUS

LIBRARY = Path(__file__).resolve().parent


def fingerprint(paths, *values):
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


def run(root, chosen, given=None, out=None, jobs=2):
    """Execute chapters that changed since they were last executed.

    A chapter is executed again when its source, its parameters, the library (weights and open
    metadata included), the recorded benchmarks, the lock file, the Python version or the folder of
    its data set changed. A chapter whose cells all passed replaces its notebook in one step; one
    with a failed cell leaves the former notebook as it was, and so does one that shows what must
    not be shown (:mod:`cxrlib.scan`).

    Parameters
    ----------
    root : Path
        The project's folder.
    chosen : list of Chapter
    given : dict, optional
        Parameters, see :func:`cxrlib.chapters.assign`.
    out : Path, optional
        Where the executed notebooks go. Default: ``book/chapters`` for default parameters, else a
        folder below ``_build/runs`` named after chapter and parameters, so that a run with other
        parameters never replaces a chapter of the book.
    jobs : int
        Chapters executed at the same time.

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
    values = assign(chosen, given or {})
    _refuse_paths(values)
    lock = root / "requirements.lock"
    if not lock.is_file():
        raise BookError(f"{lock} is missing: restore it with 'git checkout requirements.lock'")
    out = out or _default_out(root, chosen, values)
    check_writable(out)

    recorded = sorted((root / "benchmarks").glob("*.csv"))
    base = fingerprint([LIBRARY, lock, *recorded], sys.version)
    keys = {
        c.name: fingerprint([c.path], base, values[c.name], _data_stamp(values[c.name]))
        for c in chosen
    }
    targets = {c.name: out / f"{c.name}.ipynb" for c in chosen}
    stale = [c for c in chosen if _key_of(targets[c.name]) != keys[c.name]]
    if stale:
        _run_all(root, stale, values, keys, targets, jobs, out / ".durations.json")
    return [targets[c.name] for c in chosen]


def _data_stamp(values):
    """Changes when the folder of a chapter's cohort does; "" for cohorts without files."""
    from cxrlib.cohorts import files, known  # pandas takes a while

    try:
        folder = known(values["data"]).folder
        return files.stamp(files.root_of(folder)) if folder else ""
    except (KeyError, ValueError):
        return ""  # the default cohort, or a name or folder of which the chapter will complain


def _refuse_paths(values):
    """Parameters are kept in the notebook, where no path of this machine may be."""
    for of_chapter in values.values():
        for name, value in of_chapter.items():
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


def check_writable(folder):
    """Make `folder`; BookError where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BookError(f"cannot write to {folder}: {error.strerror}") from None


def _key_of(path):
    """The key under which a notebook was executed; None where there is none to read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["cxrbook"]["key"]
    except (OSError, ValueError, KeyError):
        return None


def _run_all(root, stale, values, keys, targets, jobs, memory):
    stop = threading.Event()

    with tempfile.TemporaryDirectory(prefix="cxrbook-") as scratch, _kernel(Path(scratch)):
        progress = Progress(stale, jobs, memory, Path(os.environ[STATUS]))

        def execute(chapter):
            if not stop.is_set():
                notebook = _execute(root, chapter, values[chapter.name], Path(scratch), progress)
                notebook.metadata["cxrbook"] = {
                    "key": keys[chapter.name],
                    "parameters": values[chapter.name],
                }
                hits = scan.notebook(notebook, f"{chapter.name}.ipynb")
                if hits:
                    raise BookError(f"not kept: {'; '.join(map(str, hits))}")
                text = nbformat.writes(notebook) + "\n"
                atomic.write(targets[chapter.name], text.encode())

        with ThreadPoolExecutor(jobs) as pool:
            # The longest first, so that none is left to run alone at the end.
            ordered = sorted(stale, key=lambda c: -sum(progress.past.get(c.name, [])))
            running = {pool.submit(execute, chapter) for chapter in ordered}
            pending = running
            try:
                while pending:
                    pending = wait(pending, timeout=1)[1]
                    progress.show()
            except KeyboardInterrupt:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                _kill_kernels(running)
                raise
            finally:
                progress.close()
    failures = [f.exception() for f in running if f.exception()]
    for failure in failures:
        if not isinstance(failure, BookError):
            raise failure
    if failures:
        raise BookError("\n".join(sorted(map(str, failures))))


def _kill_kernels(running):
    """Kernels live in sessions of their own, where Ctrl-C does not reach them."""
    import psutil

    while not all(future.done() for future in running):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        wait(running, timeout=0.3)


@contextlib.contextmanager
def _kernel(scratch):
    """A kernel of this very interpreter, one thread each, untouched by the user's own settings."""
    from ipykernel.kernelspec import write_kernel_spec

    quiet = ["--log-level=CRITICAL"]  # what goes wrong in a cell is in its output
    write_kernel_spec(scratch / "jupyter" / "kernels" / "python3", extra_arguments=quiet)
    paths = [str(LIBRARY.parent), os.environ.get("PYTHONPATH", "")]
    settings = {
        "JUPYTER_PATH": str(scratch / "jupyter"),
        "IPYTHONDIR": str(scratch / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        STATUS: str(scratch / "status"),
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _channel(scratch):
    """Talk to the kernel through files of its own, which needs no network interface at all."""
    if os.name != "posix":
        return {}
    return {"transport": "ipc", "ip": f"{tempfile.mkdtemp(dir=scratch)}/k"}


def _execute(root, chapter, parameters, scratch, progress):
    """Run one chapter; return the executed notebook without timings and machine names."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    source, target = scratch / f"{chapter.name}.in.ipynb", scratch / f"{chapter.name}.ipynb"
    nbformat.write(chapter.notebook, source)
    progress.start(chapter)
    problem = None
    try:
        papermill.execute_notebook(
            source,
            target,
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            request_save_on_cell_execute=False,
            resources={"metadata": {"path": str(root)}},
            config=Config(KernelManager=_channel(scratch)),
            on_cell_start=lambda cell, cell_index: progress.cell(chapter, cell),
        )
    except PapermillExecutionError as error:
        first = error.source.strip().splitlines()[0]
        said = str(error.evalue).strip().partition("\n")[0]
        problem = (f"(begins {first!r}) failed: {error.ename}", said)
    except RuntimeError as error:
        problem = ("lost its kernel, perhaps for want of memory", str(error))
    if problem:
        where = f"chapter {chapter.name}, cell {progress.where(chapter)}"
        raise BookError(f"{where} {_failure(root, target, *problem)}")
    progress.finish(chapter)

    notebook = nbformat.read(target, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    return notebook


def _failure(root, target, what, said):
    """What is told of a failed chapter; its notebook is kept, unless it is of credentialed data."""
    content = nbformat.read(target, as_version=4) if target.is_file() else None
    if content is not None and scan.is_guarded(content):
        watch = scan.Watch(register.project(), True, tuple(scan.registers().values()))
        kinds = scan.text_kinds(said, watch) - {"machine path", "user name"}
        if kinds:
            said = f"its text is withheld ({', '.join(sorted(kinds))})"
        return f"{what}: {said} (no traceback is kept of credentialed data)"
    line = f"{what}: {said}"
    if content is None:
        return line
    kept = root / "_build" / "failed" / target.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(kept, target.read_bytes())
    return f"{line} (traceback in {kept})"


class Progress:
    """Which chapter is at which cell, for how long, and how long still: on stderr.

    The estimate takes the seconds that each cell took last time (kept in the file `memory`), and
    the mean of the cells seen so far for a cell never run. What a long cell says of itself in the
    file `status` stands behind it.
    """

    def __init__(self, stale, jobs, memory, status=None):
        self.jobs, self.memory, self.status = jobs, memory, status
        self.cells = {c.name: sum(_is_code(x) for x in c.notebook.cells) for c in stale}
        self.begun = {}  # chapter -> times at which its code cells began
        self.ended = set()
        self.t0 = self.told = time.monotonic()
        try:
            self.past = json.loads(memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self.past = {}

    def start(self, chapter):
        self.begun[chapter.name] = []

    def cell(self, chapter, cell):
        if _is_code(cell) and "injected-parameters" not in cell.metadata.get("tags", []):
            self.begun[chapter.name].append(time.monotonic())

    def where(self, chapter):
        return f"{len(self.begun[chapter.name])} of {self.cells[chapter.name]}"

    def finish(self, chapter):
        times = [*self.begun[chapter.name], time.monotonic()]
        self.past[chapter.name] = [b - a for a, b in pairwise(times)]
        self.ended.add(chapter.name)
        self._say(
            f"{chapter.name}: {self.cells[chapter.name]} cells in {times[-1] - times[0]:.0f} s\n"
        )

    def left(self):
        """Seconds still to go, or None before anything is known."""
        now = time.monotonic()
        seen = [s for times in self.past.values() for s in times]
        if not seen:
            seen = [b - a for t in self.begun.values() for a, b in pairwise([*t, now])]
        if not seen:
            return None
        typical = sum(seen) / len(seen)
        rest = {}
        for name in self.cells.keys() - self.ended:
            past, begun = self.past.get(name, []), self.begun.get(name, [])
            todo = range(len(begun), self.cells[name])
            rest[name] = sum(past[i] if i < len(past) else typical for i in todo)
            if begun and len(begun) <= len(past):
                rest[name] += max(0, past[len(begun) - 1] - (now - begun[-1]))
        return max(sum(rest.values()) / self.jobs, *rest.values(), 0)

    def show(self):
        """One status line: every second on a terminal, every ten elsewhere."""
        now = time.monotonic()
        running = [n for n in self.begun if n not in self.ended]
        if not running or (not sys.stderr.isatty() and now - self.told < 10):
            return
        self.told = now
        left = self.left()
        at = ", ".join(f"{n} cell {len(self.begun[n])}/{self.cells[n]}" for n in running)
        left = "time left unknown yet" if left is None else f"about {_clock(left)} left"
        line = (
            f"[{len(self.ended)}/{len(self.cells)} chapters] {at}; {_clock(now - self.t0)}, {left}"
        )
        if self.status and self.status.is_file():
            line += f" ({self.status.read_text(encoding='utf-8')})"
        self._say(line if sys.stderr.isatty() else line + "\n")

    def close(self):
        self._say("")
        with contextlib.suppress(OSError):
            atomic.write(self.memory, json.dumps(self.past).encode())

    def _say(self, text):
        sys.stderr.write(("\r\x1b[K" if sys.stderr.isatty() else "") + text)
        sys.stderr.flush()


def _is_code(cell):
    return cell.cell_type == "code" and bool(cell.source.strip())


def _clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
