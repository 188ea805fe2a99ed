"""Things named by where they lie, such as the model ``transformers:siglip``.

One rule for every way to run a chapter: behind the prefix stands an absolute path (``~`` is the
home folder), or one below the folder that ``CXRBOOK_CHECKPOINTS`` names. It is never relative to
the current folder, which differs between a kernel, a script and the command line.

No page may name a folder of this machine: what is given by a path is called by the last part of
it, and where that lies is kept in the environment, which kernels and processes that start later
inherit.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

ROOT = "CXRBOOK_CHECKPOINTS"
PLACES = "CXRBOOK_PLACES"  # where the things lie that were named by a path, as JSON


def remembered() -> dict[str, Path]:
    """Where the things lie that were named by a path in this process, or in one that began it."""
    return {name: Path(place) for name, place in json.loads(os.environ.get(PLACES, "{}")).items()}


def shown(name: str) -> str:
    """The name by which a thing is called in tables and on pages; remembers where it lies.

    Parameters
    ----------
    name : str
        ``prefix:path``.

    Returns
    -------
    str
        ``prefix:`` and the last part of the path: the name itself, where it is a single part.

    Raises
    ------
    ValueError
        No path, or another thing of that name from elsewhere.
    """
    prefix, _, given = name.partition(":")
    short = f"{prefix}:{Path(given.strip()).name}"
    if not given.strip() or short in (f"{prefix}:", f"{prefix}:.."):
        raise ValueError(f"{name!r}: expected the name or path of a file or folder behind it")
    if short != name:
        known = remembered()
        if known.setdefault(short, place := _path(name)) != place:
            raise ValueError(
                f"{place} and {known[short]} would both be called {short}: rename one of them "
                "(in a notebook, start its kernel again)"
            )
        os.environ[PLACES] = json.dumps({key: str(path) for key, path in known.items()})
    return short


def place_of(name: str) -> Path:
    """Where the thing of that name lies; it need not be there.

    Raises
    ------
    ValueError
        A path that is not absolute, while ``CXRBOOK_CHECKPOINTS`` is not set.
    """
    return remembered().get(name) or _path(name)


def _path(name):
    given = Path(name.partition(":")[2].strip()).expanduser()
    root = os.environ.get(ROOT)
    if not root and not given.is_absolute():
        raise ValueError(
            f"{name}: set {ROOT} to the folder that holds {given}, or give its absolute path; a "
            "path is never taken from the current folder"
        )
    return Path(root or "/").expanduser().absolute() / given
