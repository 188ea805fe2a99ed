"""Scores from anywhere as a model: a table of predictions, with no network behind it.

``scores:FILE`` is a CSV or Parquet file with one row per film and finding: ``image_id``,
``finding``, ``score`` (the higher, the more likely; any range), and where you like ``method``. It
may come from a classifier, a generative model's yes and no, a device that was bought, or a reader.
What cohort it belongs to, only the film names say; :mod:`cxrlib.predict.precomputed` joins the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.core import places
from cxrlib.core.errors import Lacks
from cxrlib.models import files, unlisted
from cxrlib.protocol import Protocol, protocol_of

COLUMNS = ("image_id", "finding", "score")
METHOD = "scores"  # of files that name none
READINGS = ("cosine only", "learned scale")  # of a CLIP, which may both be in one file
KEYS = ["image_id", "finding", "method"]
EXPECTED = "expected one row per film and finding: image_id, finding, score, and method if you like"


@dataclass(frozen=True)
class Scores:
    """A table of scores beside encoders; asked for anything else, it says that it has none.

    Attributes
    ----------
    name : str
    table : DataFrame
        ``image_id, finding, method`` as text and ``score`` as float; each triple once.
    weights : str
        SHA-256 of the file.
    protocol : str
    notes : tuple of str
        What was noticed while reading, for the page.
    """

    name: str
    table: pd.DataFrame = field(repr=False)
    weights: str
    protocol: str = "corrected"
    notes: tuple[str, ...] = ()
    logit_scale: float = np.nan  # none was learned that could be left out
    device: str = "cpu"
    precision: str = "float32"

    @property
    def card(self) -> dict:
        return card(self.name)

    @property
    def fingerprint(self) -> str:
        """Changes with the file."""
        return self.weights[:16]

    @property
    def members(self) -> tuple[Scores, ...]:
        return (self,)

    @property
    def findings(self) -> tuple[str, ...]:
        return tuple(self.table["finding"].unique())

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.table["method"].unique())

    @property
    def probabilities(self) -> bool:
        """Whether the scores may be read as probabilities: within [0, 1], and no bare yes or no."""
        score = self.table["score"]
        return bool(score.between(0, 1).all() and not score.isin((0, 1)).all())

    def to(self, device: str, precision: str = "float32") -> Scores:
        """Itself: there is nothing to move."""
        return self

    def __getattr__(self, name: str) -> Any:
        # Whatever of an encoder is not here, above all its embeddings; private names are Python's.
        if name.startswith("_"):
            raise AttributeError(name)
        raise Lacks(
            f"{self.name} has scores and nothing else, and this needs films that a model can be "
            "shown, or its embeddings; chapters 4, 6 and 7 run on scores"
        )


def check(name: str) -> None:
    """Refuse a file that is not there, or is no such table."""
    load(name)


def card(name: str) -> dict:
    """What is known of such a model: nothing but that it is a file."""
    return unlisted.card(name, architecture="not known: a table of scores")


def load(name: str, protocol: str | Protocol = "corrected") -> Scores:
    """The scores of a file.

    Parameters
    ----------
    name : str
        ``scores:FILE``, see :mod:`cxrlib.core.places`.
    protocol : {"corrected", "as_published"} or Protocol
        Noted, and otherwise without effect: a score is what it is.

    Raises
    ------
    ValueError
        No such file, another format, a column that is missing, a row without entry, a score that is
        no finite number, rows that are there twice, several methods, or one score throughout. Names
        lines, never an entry: these may be patients under guard.
    """
    path = places.place_of(name)
    table, digest = _read(path)
    table, notes = _checked(table, path)
    return Scores(f"scores:{path.name}", table, digest, protocol_of(protocol).name, notes)


def _read(path: Path) -> tuple[pd.DataFrame, str]:
    """The file as it is, and its SHA-256."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file of scores; {EXPECTED}, as CSV or Parquet")
    digest = files.sha256(path)
    with path.open("rb") as f:
        parquet = f.read(4) == b"PAR1" or path.suffix == ".parquet"
    try:
        if parquet:
            table = pd.read_parquet(path)
            table = table.reset_index() if any(table.index.names) else table
            return table.set_axis(range(-1, len(table) - 1)), digest  # rows are counted from 1
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False
        )
    except Exception as error:  # each reader has its own
        kind = "Parquet" if parquet else "CSV"
        raise ValueError(
            f"{path}: not read as {kind} ({unlisted.line(error)}); "
            f"{EXPECTED}, as CSV with commas in UTF-8, or as .parquet"
        ) from None
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(
            f"{path}: rows have more entries than the first line names columns ({_header(table)}); "
            "write numbers with a decimal point, and no comma at the end of rows"
        )
    return table, digest


def _checked(raw: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    raw = raw.rename(columns=lambda column: str(column).strip())
    if missing := [column for column in COLUMNS if column not in raw]:
        wide = (
            "; a table with a column for each finding becomes one by pandas.melt(table, "
            "'image_id', var_name='finding', value_name='score')"
        )
        turn = wide if "image_id" in raw and "score" not in raw else ""
        raise ValueError(
            f"{path}: column {missing[0]!r} is missing; {_header(raw)}; {EXPECTED}{turn}"
        )
    # pandas calls a second column of the same name in a CSV file "score.1"
    given = [str(column).removesuffix(".1") for column in raw]
    if twice := [column for column in (*COLUMNS, "method") if given.count(column) > 1]:
        raise ValueError(f"{path}: two columns are called {twice[0]!r}; keep one of them")
    blank = raw.isna() | raw.astype(str).apply(lambda column: column.str.strip()).eq("")
    raw, blank = raw[~blank.all(axis=1)], blank[~blank.all(axis=1)]
    if raw.empty:
        raise ValueError(f"{path}: no row below the names of the columns; {EXPECTED}")
    names = {c: raw[c].astype(str).str.strip() for c in KEYS if c in raw}
    for column in names:
        _refuse(blank[column], f"{path}: column {column!r} is empty", "fill it, or leave rows out")
    score = pd.to_numeric(raw["score"], errors="coerce").to_numpy(float)
    _refuse(
        pd.Series(~np.isfinite(score), raw.index),
        f"{path}: column 'score' is empty, NaN, infinite or no number",
        "write 0.85, not 0,85 or 85 %, yes and no as 1 and 0, and leave out rows without a score: "
        "their films are then counted as missing",
    )
    try:
        # exactly the number that is written, which pandas' own reading of text need not be
        score = raw["score"].astype(float).to_numpy()
    except (TypeError, ValueError):  # such as times
        raise ValueError(
            f"{path}: column 'score' is of type {raw['score'].dtype}; expected numbers"
        ) from None
    table = pd.DataFrame({"method": METHOD} | names | {"score": score}, raw.index)
    _refuse(
        table.duplicated(KEYS),
        f"{path}: rows repeat the image_id and finding of an earlier one",
        "keep one row each",
    )
    methods = tuple(table["method"].unique())
    if len(methods) > 1 and set(methods) != set(READINGS):
        raise ValueError(
            f"{path}: column 'method' has {len(methods)} entries, and a file is one model: write a "
            f"file for each (only {' and '.join(READINGS)}, the readings of a CLIP, go together)"
        )
    if len(table) > 1 and table["score"].nunique() == 1:
        raise ValueError(f"{path}: column 'score' is the same in all rows; nothing can be ranked")
    return table.reset_index(drop=True), tuple(_noticed(table, list(raw)))


def _header(raw):
    """What the first line names; no entry of a file without such a line."""
    columns = [str(column) for column in raw]
    if odd := [mark for mark in (";", "\t", "|") if len(columns) == 1 and mark in columns[0]]:
        return f"its columns are separated by {odd[0]!r}, expected commas"
    if not columns or any(not re.match("[A-Za-z_]", column) for column in columns):
        return "its first line does not name columns"
    return f"the file has {', '.join(columns[:20])}{', ...' if len(columns) > 20 else ''}"


def _noticed(table, columns):
    """What a page should say of the scores, one sentence each."""
    if unused := [c for c in columns if c not in (*COLUMNS, "method")]:
        yield f"columns that are not used: {', '.join(unused)}"
    score = table["score"]
    if score.isin((0, 1)).all():
        yield "all scores are 0 or 1: read as somebody's yes or no, which orders films in two heaps"
    elif not score.between(0, 1).all():
        yield "some scores are below 0 or above 1: they order films, and are no probabilities"
    spread = table.groupby("finding", sort=False)["score"].nunique()
    if len(constant := spread.index[spread == 1]):
        yield f"the score never changes, so that AUC is chance: {', '.join(constant)}"


def _refuse(bad: pd.Series, what: str, do: str) -> None:
    if bad.any():
        lines = [str(i + 2) for i in bad.index[bad.to_numpy(bool)]]
        more = ", ..." if len(lines) > 3 else ""
        raise ValueError(
            f"{what} in {len(lines)} of {len(bad)} rows (line{'s' * (len(lines) > 1)} "
            f"{', '.join(lines[:3])}{more}); {do}"
        )
