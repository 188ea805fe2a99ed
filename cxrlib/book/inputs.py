"""The files that may decide about a chapter beside its own source, and what is in them.

A kernel notes which of them it opened (:func:`cxrlib.core.used.watch`). They are the library with
its package data, the recorded benchmarks, and the files of models. A file has a name that is the
same on every machine, such as ``cxrlib/stats/metrics.py``; a folder that was listed ends in ``/``.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path, PurePosixPath

from cxrlib.core.places import remembered

CODE, RECORDED = "cxrlib", "benchmarks"
WEIGHTS = "checkpoints"  # may be gigabytes, as whatever else a model is named by
BESIDE = "beside "  # what lies in the folder of a file, not in the folders below


def places(root: Path, library: Path) -> dict[str, Path]:
    """The folders that are looked at: first part of a file's name -> folder.

    Parameters
    ----------
    root : Path
        The project's folder.
    library : Path
        The folder of `cxrlib`.
    """
    found = {CODE: library, RECORDED: (root / "benchmarks").resolve()}
    if folder := os.environ.get("CXRBOOK_CHECKPOINTS"):
        found[WEIGHTS] = Path(folder).expanduser().absolute()
    for name, path in remembered().items():
        found |= {name: path} if path.is_dir() else {f"{BESIDE}{name}": path.parent}
    return found


def hashes(folders: dict[str, Path]) -> dict[str, str]:
    """What is in every file of the `places`, and which data lie in their folders: name -> SHA-256.

    Of the files of models, size and time stand for the content. A folder's hash covers the names of
    all but Python modules, so that a new module changes nothing before somebody imports it.
    """
    found = {}
    for place, folder in folders.items():
        inside = folder.glob("*") if place.startswith(BESIDE) else folder.rglob("*")
        for file in sorted(p for p in inside if p.is_file()):
            if "__pycache__" not in file.parts:
                name = f"{place}/{file.relative_to(folder).as_posix()}"
                ours = place in (CODE, RECORDED)
                found[name] = _sha256(file.read_bytes() if ours else _status(file))
    listed = defaultdict(set)
    for path in (PurePosixPath(name) for name in found if not name.endswith(".py")):
        for entry, above in pairwise([path, *path.parents]):
            listed[f"{above}/"].add(entry.name)
    return found | {name: _sha256("\n".join(sorted(x)).encode()) for name, x in listed.items()}


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _status(file):
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}".encode()


def named(opened: list[str], folders: dict[str, Path]) -> list[str]:
    """The sorted names of files and folders that a kernel opened or listed, without repetition.

    Who reads a data file may have looked which others lie beside it, which nobody notes: its folder
    counts as listed.
    """
    found = set()
    for path in map(Path, opened):
        for place, folder in folders.items():
            if path.is_relative_to(folder) and "__pycache__" not in path.parts:
                name = (PurePosixPath(place) / path.relative_to(folder).as_posix()).as_posix()
                if path.is_dir():
                    found.add(f"{name}/")
                    continue
                found.add(name)
                if path.suffix != ".py":
                    found.add(f"{name.rpartition('/')[0]}/")
    return sorted(found)
