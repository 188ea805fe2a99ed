"""What a chapter left in the working folder: of credentialed data, looked at as its pages are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrlib.book.scan import Hit

MADE_ELSEWHERE = ("_build", "__pycache__", "node_modules")  # and where runs are kept
State = dict[Path, tuple[int, int]]  # file -> when it was written, and its size


def state(root: Path, kept: Iterable[Path] = ()) -> State:
    """The files below `root`, without hidden folders, built pages and folders of `kept` runs."""
    left_out = {root / "book" / "chapters", *(path.absolute() for path in kept)}
    found = {}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and name not in MADE_ELSEWHERE and here / name not in left_out
        ]
        for file in files:
            about = (here / file).lstat()
            found[here / file] = about.st_mtime_ns, about.st_size
    return found


def hits(root: Path, before: State, kept: Iterable[Path] = ()) -> list[Hit]:
    """What the files written below `root` since `before` must not hold: list of Hit.

    New files with a hit are moved to ``CXRBOOK_DATA/derived/refused``, so that nothing is lost and
    nothing stays where it may be published.
    """
    from cxrlib.book import scan
    from cxrlib.cohorts.files import data_folder

    now = state(root, kept)
    found = []
    for file in sorted(path for path in now if before.get(path) != now[path]):
        name = str(file.relative_to(root))
        try:
            kinds = _kinds(file, new=file not in before)
            if kinds and file not in before:
                away = data_folder() / "derived" / "refused" / file.name
                away.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(file, away)  # perhaps to another disk
                name += " (now in derived/refused of the data)"
        except FileNotFoundError:  # a chapter that ended at the same time has moved it
            continue
        found += scan.hits(name, kinds)
    return found


def _kinds(file, new):
    """What a file holds that must not be shown."""
    from cxrlib.book import scan

    kinds = {hit.kind for hit in scan.anything(file)}
    if new and file.suffix in scan.TEXTS | {".csv"}:
        kinds |= scan.printed_kinds(file.read_text(encoding="utf-8", errors="replace"))
    if file.suffix in scan.PICTURES and not scan.drawn_by_matplotlib(file.read_bytes()):
        kinds.add("image")
    return kinds
