"""The files that may decide about a chapter beside its own source, and what is in them.

A kernel notes which of them it opened (:func:`cxrlib.core.used.watch`). They are the library with
its package data, the recorded benchmarks, and the weights of published models. A file has a name
that is the same on every machine, such as ``cxrlib/stats/metrics.py``; a folder that was listed
ends in ``/``.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path, PurePosixPath

WEIGHTS = "checkpoints"  # may be gigabytes


def places(root: Path, library: Path) -> dict[str, Path]:
    """The folders that are looked at: first part of a file's name -> folder.

    Parameters
    ----------
    root : Path
        The project's folder.
    library : Path
        The folder of `cxrlib`.
    """
    found = {"cxrlib": library, "benchmarks": (root / "benchmarks").resolve()}
    if folder := os.environ.get("CXRBOOK_CHECKPOINTS"):
        found[WEIGHTS] = Path(folder).expanduser().absolute()
    return found


def hashes(folders: dict[str, Path]) -> dict[str, str]:
    """What is in every file of the `places`, and which data lie in their folders: name -> SHA-256.

    Of published weights, size and time stand for the content. A folder's hash covers the names of
    all but Python modules, so that a new module changes nothing before somebody imports it.
    """
    found = {}
    for place, folder in folders.items():
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            if "__pycache__" not in file.parts:
                name = f"{place}/{file.relative_to(folder).as_posix()}"
                found[name] = _sha256(_status(file) if place == WEIGHTS else file.read_bytes())
    listed = defaultdict(set)
    for path in (PurePosixPath(name) for name in found if not name.endswith(".py")):
        for entry, folder in pairwise([path, *path.parents]):
            listed[f"{folder}/"].add(entry.name)
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
