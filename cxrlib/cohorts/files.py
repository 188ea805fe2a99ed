"""Data sets as distributed: where their files are, and their tables read with care.

Nothing is downloaded. A data set lies in the folder ``CXRBOOK_DATA/<name>``, which is the folder as
it was unpacked or a link to it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from errno import ELOOP
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from cxrlib.core.folders import in_git

FILM_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


class DataError(ValueError):
    """Files of a data set that are missing, damaged or not what they should be."""


def data_folder() -> Path:
    """The folder that holds the data sets: ``CXRBOOK_DATA``.

    Raises
    ------
    DataError
        The variable is not set, or names no folder.
    """
    value = os.environ.get("CXRBOOK_DATA")
    if not value:
        raise DataError(
            "where are the data? Set CXRBOOK_DATA to the folder that holds nih-cxr14, mimic-cxr, "
            "...: export CXRBOOK_DATA=~/data (cxrbook check-data says what belongs there)"
        )
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise DataError(f"CXRBOOK_DATA={value}: no such folder; make it, or correct the variable")
    return folder


def root_of(name: str, root: Path | str | None = None) -> Path:
    """The folder of a data set: ``root``, or ``CXRBOOK_DATA/<name>``, links resolved.

    Raises
    ------
    DataError
        No such folder.
    """
    path = Path(root).expanduser() if root is not None else data_folder() / name
    if not path.is_dir():
        dead = dead_link(path)
        what = f"is {dead}" if dead else "is a file" if path.is_file() else "does not exist"
        raise DataError(
            f"{path} {what}; expected the folder of {name}, or a link to it. "
            f"'cxrbook check-data {name}' lists what belongs there"
        )
    return path.resolve()


def derived(root: Path) -> Path:
    """Where results for single images of a credentialed data set stay: beside the data.

    ``CXRBOOK_DATA/derived``, or ``<root>/derived`` if the variable is not set.

    Raises
    ------
    DataError
        That would be inside a git working tree; nothing was written there.
    """
    folder = (data_folder() if os.environ.get("CXRBOOK_DATA") else root) / "derived"
    if in_git(folder):
        raise DataError(
            f"{folder} lies inside a git working tree, from which credentialed data could be "
            "published; move the data elsewhere and set CXRBOOK_DATA"
        )
    return folder


def stamp(root: Path) -> str:
    """Short hash that changes when files are added, removed, or tables replaced.

    It looks at the tables and folders in the two upper levels, not at single films: a film that
    was overwritten in its place is noticed when films are checked.
    """
    digest = hashlib.sha256()
    for folder in (root, *sorted(p for p in root.iterdir() if p.is_dir())):
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if not entry.name.lower().endswith(FILM_SUFFIXES):
                status = entry.stat()
                size = 0 if entry.is_dir() else status.st_size
                digest.update(f"{entry.name}\0{size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def locate(root: Path, names: str | Sequence[str], places: Sequence[str] = ("",)) -> Path | None:
    """The first file of these names in these folders below ``root``; None where there is none.

    Parameters
    ----------
    root : Path
    names : str or sequence of str
        File names, in order of preference.
    places : sequence of str
        Folders relative to ``root``, in order of preference.

    Raises
    ------
    DataError
        The file is a link that leads out of ``root``, or nowhere.
    """
    for place in places:
        for name in [names] if isinstance(names, str) else names:
            path = root / place / name
            if path.is_file() or path.is_symlink():
                return inside(root, path)
    return None


def inside(root: Path, path: Path) -> Path:
    """``path`` itself, if it lies below ``root`` also after links are followed.

    Folders on other disks may be linked from ``root`` itself: what lies below the folder that such
    a link names is inside too. Links further down are not followed out.

    Raises
    ------
    DataError
        It does not: a name with ``..`` in it, an absolute one, or a link that leads elsewhere or
        in a circle.
    """
    if dead := dead_link(path):
        raise DataError(f"{path}: {dead}; put the file or folder itself there")
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(allowed) for allowed in _allowed(root)):
        raise DataError(
            f"{path}: leads out of the data folder {root}. Copy it there, or link the folder that "
            f"holds it from {root} itself"
        )
    return path


def dead_link(path: Path) -> str:
    """Why a link cannot be followed; "" where it can, or is none."""
    try:
        os.path.realpath(path, strict=path.is_symlink())
    except OSError as error:
        circle = error.errno == ELOOP
        return "links that lead in a circle" if circle else "a link to what is not there"
    return ""


def _allowed(root):
    """The real ``root``, and the real folders that links in it name."""
    root = root.resolve()
    return root, *_linked(root, root.stat().st_mtime_ns if root.is_dir() else 0)


@lru_cache(maxsize=16)
def _linked(root, changed):
    if not root.is_dir():
        return ()
    links = [Path(entry.path) for entry in os.scandir(root) if entry.is_symlink()]
    return tuple(link.resolve() for link in links if link.is_dir())


@contextmanager
def _readable(path, cure):
    """Whatever stops a CSV file from being read, as one message."""
    try:
        yield
    except (EOFError, zlib.error, OSError, csv.Error, pd.errors.ParserError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged or cut off ({reason}); {cure}") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty; {cure}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; {cure}") from None


def read_text(path: Path, cure: str) -> pd.DataFrame:
    """All columns of a CSV file as text, as they are written; "" where nothing is.

    The index is such that the line of a row in the file is its index + 2, as in
    :func:`read_table`. Lines without any entry are left out. A byte order mark is accepted. A
    column without a name is called "(column 3)" by its place.

    Parameters
    ----------
    path : Path
    cure : str
        What to do where the file cannot be read, such as "fetch it again".

    Raises
    ------
    DataError
        Empty, truncated or damaged file, another separator or encoding, a column name that is
        missing or there twice, a line that is too short or too long.
    """
    with _readable(path, cure):
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num - 2, row) for row in reader if any(map(str.strip, row))]
    if not lines:
        raise DataError(f"{path}: the file is empty; {cure}")
    rows = dict(lines[1:])
    names = [name.strip() or f"(column {i})" for i, name in enumerate(lines[0][1], 1)]
    for mark, word in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and mark in names[0]:
            raise DataError(f"{path}: separated by {word}; expected commas: {cure}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: two columns are called {twice[0]!r}; keep one of them")
    odd = pd.Series({line: len(row) != len(names) for line, row in rows.items()}, dtype=bool)
    if odd.any():
        raise DataError(
            f"{path}: damaged or cut off ({in_lines(odd)}: more or fewer entries than the "
            f"{len(names)} names of the first line); {cure}"
        )
    table = pd.DataFrame(rows.values(), rows, names, dtype=str)
    return table.apply(lambda column: column.str.strip())


def in_lines(which: pd.Series) -> str:
    """The first lines of a file in which ``which``, indexed as it was read, is true."""
    lines = [str(i + 2) for i in which.index[which.to_numpy(bool)]]
    more = ", ..." if len(lines) > 3 else ""
    return f"line{'s' * (len(lines) > 1)} {', '.join(lines[:3])}{more}"


def read_table(
    path: Path, columns: Mapping[str | tuple[str, ...], str], **options: Any
) -> pd.DataFrame:
    """Read columns of a CSV file, compressed or not, with one clear message if it is not right.

    A byte order mark is accepted.

    Parameters
    ----------
    path : Path
    columns : dict
        Name in the file to name in the result, in the order of the result. A key may be a tuple of
        spellings, of which the file has one.
    options : of :func:`pandas.read_csv`, such as ``dtype`` by names in the file

    Raises
    ------
    DataError
        Empty, truncated or damaged file, another separator, another encoding, a missing column.
    """
    with _readable(path, "fetch it again as distributed"):
        head = pd.read_csv(path, nrows=0, encoding="utf-8-sig")
        found = {}
        for spellings, name in columns.items():
            spellings = (spellings,) if isinstance(spellings, str) else spellings
            found[next((s for s in spellings if s in head), None) or spellings[0]] = name
        absent = [column for column in found if column not in head]
        if absent and len(head.columns) == 1 and ";" in head.columns[0]:
            raise DataError(
                f"{path}: separated by semicolons; expected commas, as distributed. A spreadsheet "
                "may have saved it anew: fetch the file again"
            )
        if absent:
            raise DataError(
                f"{path}: column {absent[0]!r} is missing; the file has "
                f"{', '.join(map(str, head.columns[:12]))}. Fetch the file again as distributed"
            )
        table = pd.read_csv(path, usecols=list(found), encoding="utf-8-sig", **options)
    return table[list(found)].rename(columns=found)


def unique(
    table: pd.DataFrame,
    columns: str | Sequence[str],
    path: Path | str,
    cure: str = "Fetch the file again as distributed",
) -> None:
    """Refuse a table, indexed as it was read, in which two rows have the same ``columns``."""
    columns = [columns] if isinstance(columns, str) else list(columns)
    again = table.duplicated(columns)
    if again.any():
        raise DataError(
            f"{path}: {int(again.sum())} rows repeat the {' and '.join(columns)} of an earlier one "
            f"({in_lines(again)}); expected one row each. {cure}"
        )
