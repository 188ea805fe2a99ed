"""Where things are kept, and whether a folder could be published by accident."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).resolve().parents[1]  # the package cxrlib
BENCHMARKS = LIBRARY.parent / "benchmarks"  # what was timed and simulated at length
LONGEST = 70  # bytes of a folder for sockets, whose whole paths may have a hundred


def cache_folder() -> Path:
    """Where embeddings are kept: ``CXRBOOK_CACHE``, or ``~/.cache/cxrbook``."""
    return Path(os.environ.get("CXRBOOK_CACHE") or Path.home() / ".cache" / "cxrbook")


def folder_for(cohort: Any) -> Path:
    """Where what is computed for single images of a cohort is kept.

    The cohort's own folder, where it has one (credentialed data stay with the data), or
    :func:`cache_folder`.
    """
    return cohort.keep or cache_folder()


def for_sockets() -> str | None:
    """The temporary folder, or /tmp where its name is too long, as those of cluster jobs are.

    None where neither will do.
    """
    places = (tempfile.gettempdir(), "/tmp")
    fit = (p for p in places if len(os.fsencode(p)) <= LONGEST and os.access(p, os.W_OK))
    return next(fit, None)


def in_git(folder: Path) -> bool:
    """Whether a folder lies inside a git working tree, links followed."""
    folder = folder.resolve()
    return any((place / ".git").exists() for place in (folder, *folder.parents))
