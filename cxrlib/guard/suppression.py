"""Tables of a credentialed cohort as they may be shown: no small count, nor what gives one away."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrlib.guard.latch import (
    FEW,
    MIN_CELL,
    GuardError,
    active,
    columns,
    refuse,
    without_small_counts,
)

SMALL, HIDDEN = f"<{MIN_CELL}", "hidden"  # cells of a shown table
SUPPRESSED = f"suppressed: {FEW} images or patients"
ONLY_COUNTS = "counts suppressed, or others could be computed from them"

ROW_LEVEL = re.compile(  # columns with entries of single images
    r"(image|patient|subject|study|dicom)_?ids?$|^report$|^file(_?name)?s?$|^path$|(?<!up)date$|"
    r"^sha256$|^phash$",
    re.IGNORECASE,
)
TOTALS = ("all", "total", "all patients")  # what a row is called that holds the sum of the others
NEEDS_COUNT = {"age", "score", "y_true", "probability"}  # columns of films, unless images are given
OLDEST = 89  # years; a higher age tells who it is


def presentable(table: pd.DataFrame, counts: Sequence[str] | None = None) -> pd.DataFrame:
    """A table as it may be shown: small counts as "<10", those that give them away as "hidden".

    Parameters
    ----------
    table : DataFrame
    counts : sequence of str, optional
        Columns that count images or patients; by default every column of whole numbers.

    Raises
    ------
    GuardError
        A column of single images; names it.
    """
    if not active():
        return table
    found = _count_columns(table) if counts is None else list(counts)
    found = [name for name in found if name not in NEEDS_COUNT]
    if (one := _of_single_images(table, found)) is not None:
        raise GuardError(
            f"table: column {one!r} is one of single images; show counts, shares or means over "
            f"at least {MIN_CELL} images and patients"
        )
    labels = table.index.to_frame().map(str).to_numpy().ravel()
    refuse(" ; ".join([*map(str, table.columns), *labels]), "table: the heads of rows or columns")
    for i, name in enumerate(table.columns):
        refuse(" ; ".join(map(str, table.iloc[:, i].dropna())), f"table: column {str(name)!r}")
    places = [i for i, name in enumerate(table.columns) if name in found]
    if not places or table.empty:
        return table
    numbers = np.array([[_counted(x) for x in table.iloc[:, i]] for i in places], float).T
    small, hidden = _hidden_cells(numbers, table, found)
    out = table.astype({table.columns[i]: object for i in places})
    for k, i in enumerate(places):
        column = out.iloc[:, i].to_numpy(dtype=object).copy()
        column[hidden[:, k]] = HIDDEN
        column[small[:, k]] = SMALL
        out.isetitem(i, column)
    return out


def _of_single_images(table, found):
    """The name of a column with entries of single images, None where there is none."""
    names = [str(name) for name in table.columns]
    for i, name in enumerate(names):
        number = pd.api.types.is_numeric_dtype(table.iloc[:, i])
        if name in NEEDS_COUNT and number and not found:
            return name
        if name == "age" and number and (table.iloc[:, i] > OLDEST).any():
            return name
    rows = table.index.names == [None] and pd.api.types.is_integer_dtype(table.index)
    if rows and names and set(names) <= columns():  # rows of the cohort's own table
        return names[0]
    return next(filter(ROW_LEVEL.search, map(str, [*table.index.names, *names])), None)


def _count_columns(table):
    """Columns of whole numbers, also where they are written as "12 (3 %)"."""
    out = []
    for i, name in enumerate(table.columns):
        column = table.iloc[:, i].dropna()
        if pd.api.types.is_bool_dtype(column) or not len(column):
            continue
        numbers = np.array([_counted(x) for x in column])
        whole = np.isfinite(numbers).all()
        if whole and (not pd.api.types.is_float_dtype(column) or numbers.max() > 1):
            out.append(name)
    return out


def _counted(entry):
    """The count in a cell, NaN if it holds none."""
    if isinstance(entry, str):
        said = re.match(r"\s*(\d[\d,]*)\s*(\(.*)?$", entry)
        return float(said.group(1).replace(",", "")) if said else np.nan
    if isinstance(entry, (int, float, np.integer, np.floating)) and float(entry).is_integer():
        return float(entry)
    return np.nan


def _few(counts):
    return (counts >= 1) & (counts < MIN_CELL)


def _floats(columns):
    """Numbers (n, k) of columns that may have missing entries, NaN there."""
    return columns.astype("Float64").to_numpy(float, na_value=np.nan)


def _sums_of_rows(table, found, by=None):
    """Rows of a table that may add up to a number known elsewhere: list of (members, total).

    All of them, and those that share an entry of a column other than counts (or of `by`). A row
    that is called "all" is the total.
    """
    names = [f"index {k}" for k in range(table.index.nlevels)]
    index = table.index.to_frame(index=False, name=names)
    cells = pd.concat([index, table.drop(columns=found).reset_index(drop=True)], axis=1).map(str)
    whole = np.flatnonzero(cells.map(lambda x: x.lower() in TOTALS).any(axis=1))
    total = whole[0] if len(whole) == 1 else None
    parts = np.setdiff1d(np.arange(len(table)), whole[:1] if total is not None else [])
    keys = [np.zeros(len(table), int), *(pd.factorize(entries)[0] for _, entries in cells.items())]
    if by is not None:
        keys = [table.groupby(list(by), dropna=False).ngroup().to_numpy()]
    sums = [(parts[key[parts] == value], total) for key in keys for value in np.unique(key[parts])]
    return [s for s in sums if len(s[0]) > 1]


def _hidden_cells(numbers, table, found):
    """Small cells, and all cells to hide, (r, c) bool; sums run down columns and along rows."""
    r, c = numbers.shape
    small = _few(numbers)
    if "step" in table:
        return small, small | np.stack([_chain(column) for column in numbers.T], axis=1)
    cell = np.arange(r * c).reshape(r, c)
    sums = [
        (cell[members, k], None if total is None else cell[total, k])
        for members, total in _sums_of_rows(table, found)
        for k in range(c)
    ]
    whole = [k for k, name in enumerate(found) if str(name).lower() in TOTALS]
    total = whole[0] if len(whole) == 1 else None
    parts = np.setdiff1d(np.arange(c), whole if total is not None else [])
    if len(parts) > 1:
        sums += [(cell[i, parts], None if total is None else cell[i, total]) for i in range(r)]
    missing = np.isnan(numbers)
    hidden = cover(numbers.reshape(-1, 1), (small | missing).ravel(), sums).reshape(r, c)
    return small, hidden & ~missing


def _chain(column):
    """Counts of a flow to hide, so that no step can be seen to leave out 1 to 9."""
    shown, last = [0], len(column) - 1
    for i in range(1, last + 1):
        while i == last and len(shown) > 1 and 0 < column[shown[-1]] - column[i] < MIN_CELL:
            shown.pop()
        if i == last or not 0 < column[shown[-1]] - column[i] < MIN_CELL:
            shown.append(i)
    return ~np.isin(np.arange(last + 1), shown)


# --- suppression -------------------------------------------------------------------------------

COUNTS = ["n", "n_positive", "n_negative", "n_patients"]
NUMBERS = ["value", "ci_low", "ci_high"]
SEVERAL = ("mean", "all")  # labels of rows over several findings
FREE_OF_COUNTS = ("auc", "adjusted_auprc")  # metrics that tell nothing of the counts behind them
BLOCK = ["paper", "artefact", "protocol", "cohort", "model", "method", "metric"]


def suppress(
    table: pd.DataFrame,
    counts: Sequence[str] | None = None,
    values: Sequence[str] | None = None,
    by: Sequence[str] | None = None,
) -> pd.DataFrame:
    """A table without counts from 1 to 9, nor what rests on them or gives them away.

    Without credentialed data the table is returned as it is. Suppressed entries are missing.
    Zeros stay.

    Parameters
    ----------
    table : DataFrame
        A results table (its own columns are known, the other arguments are not needed), or any
        other with columns of counts.
    counts : sequence of str, optional
        Columns that count images or patients; by default every column of whole numbers.
    values : sequence of str, optional
        Columns with numbers that rest on these counts; by default every column of floats.
    by : sequence of str, optional
        Columns within which rows are parts of one whole, such as ("label", "attribute"); by default
        all rows are. A row that is called "all" is that whole.

    Returns
    -------
    DataFrame of the same shape. In a results table, rows that rest on fewer than ten images,
    positive or negative images, or patients lose their value and interval, differences with such a
    group too, and values keep three significant digits (a fraction written out in full tells its
    denominator).
    """
    if not active():
        return table
    if set(COUNTS + NUMBERS + BLOCK) <= set(table.columns):
        return _suppress_results(table)
    found = _count_columns(table) if counts is None else list(counts)
    if values is None:
        others: list = [c for c in table if c not in found]
        values = [c for c in others if pd.api.types.is_float_dtype(table[c])]
    numbers = _floats(table[found])
    hidden = (_few(numbers) | np.isnan(numbers)).any(axis=1)
    hidden = cover(numbers, hidden, _sums_of_rows(table, found, by))
    out = table.astype({c: "Int64" for c in found})
    out.loc[hidden, found] = pd.NA
    out.loc[hidden, list(values)] = np.nan
    return out


def in_blocks(y_true: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Scores as ranks of blocks of films, so that no step of a curve is a single film.

    Parameters
    ----------
    y_true : (n,) of 0/1
    score : (n,)

    Returns
    -------
    int array (n,): in the order of the scores; each block has at least `MIN_CELL` films with the
    finding and as many without. One block where there are too few for two.
    """
    rank, block, inside = 0, np.zeros(len(y_true), int), [0, 0]
    for i in np.argsort(score):
        block[i] = rank
        inside[y_true[i]] += 1
        if min(inside) >= MIN_CELL:
            rank, inside = rank + 1, [0, 0]
    return np.minimum(block, max(rank - 1, 0))  # what is left over joins the last full block


def bins(curves: pd.DataFrame) -> pd.DataFrame:
    """Reliability curves with ``n_negative``; of protected patients only the bins that hold enough.

    curves : from :func:`cxrlib.stats.calibration.reliability_table`.
    """
    curves = curves.assign(n_negative=curves["n"] - curves["n_positive"])
    numbers = ["predicted", "observed", "ci_low", "ci_high"]
    return suppress(curves, COUNTS, numbers, ["model", "method", "label"]).dropna(subset="n")


def extremes(values: pd.Series) -> pd.Series:
    """The smallest and the largest of values of images: (2,).

    Once credentialed data were loaded, the means of the ten smallest and the ten largest: a single
    extreme is one patient's number.
    """
    together = MIN_CELL if active() else 1
    values = values.sort_values()
    return pd.Series([values[:together].mean(), values[-together:].mean()])


def cover(counts: np.ndarray, hidden: np.ndarray, sums: Sequence[tuple]) -> np.ndarray:
    """Which entries to hide beside those hidden already, so that these cannot be computed.

    Parameters
    ----------
    counts : (m, k) float
        Counts of k kinds (images, patients, ...) of m entries, NaN where unknown.
    hidden : (m,) bool
        Entries that must not be known.
    sums : list of (members, total)
        Positions of entries that add up to the entry `total`, or to a number that is known
        elsewhere (None).

    Returns
    -------
    hidden : (m,) bool
        With it, no entry that was to be hidden follows from the sums, and no difference between a
        total and what is shown of its members is 1 to 9.
    """
    secret, hidden = hidden, hidden.copy()
    exhausted: set = set()
    while (found := _given_away(counts, secret, hidden, sums, exhausted)) is not None:
        members, total = sums[found]
        free = members[~hidden[members]]
        if len(free):  # the smallest; a zero only if there is nothing else
            size = np.where(counts[free] > 0, counts[free], np.inf).min(axis=1)
            hidden[free[np.argmin(size)]] = True
        elif total is not None and not hidden[total]:
            hidden[total] = True
        else:
            exhausted.add(found)
    return hidden


def _given_away(counts, secret, hidden, sums, exhausted):
    """The first sum that gives a secret or a small difference away, or None."""
    open_sums = [i for i in range(len(sums)) if i not in exhausted]
    for i in open_sums:
        members, total = sums[i]
        if total is not None and hidden[total]:
            continue
        whole = np.nansum(counts[members], axis=0) if total is None else counts[total]
        rest = whole - np.nansum(counts[members[~hidden[members]]], axis=0)
        if ((rest > 0) & (rest < MIN_CELL)).any():
            return i
    # An entry follows from the sums if its unit vector lies in the span of their hidden parts.
    unknown = np.flatnonzero(hidden)
    if not secret.any() or not sums:
        return None
    matrix = np.zeros((len(sums), len(counts)))
    for line, (members, total) in zip(matrix, sums, strict=True):
        line[members] = 1
        if total is not None:
            line[total] = -1
    part = matrix[:, unknown]
    follows = np.isclose(np.diag(np.linalg.pinv(part) @ part), 1)
    known = unknown[follows & secret[unknown]]
    if not len(known):
        return None
    # Hide more of a sum with such an entry; where none is left, of another that meets hidden ones.
    near = [i for i in open_sums if np.isin(known, _entries(sums[i])).any()]
    return next(iter(near or [i for i in open_sums if hidden[_entries(sums[i])].any()]), None)


def _entries(of_sum):
    members, total = of_sum
    return members if total is None else np.append(members, total)


def _suppress_results(table):
    out = table.reset_index(drop=True)
    numbers = pd.DataFrame(_floats(out[COUNTS]), columns=COUNTS)
    small = _few(numbers.to_numpy()).any(axis=1)
    where = out[["label", "attribute", "group"]].astype(object).fillna("all").astype(str)
    pair = where["group"].str.contains(" - ").to_numpy()
    several = where["label"].isin(SEVERAL).to_numpy()
    # Some metrics exist for pairs of groups alone: which groups are small, other metrics tell.
    about = out.groupby([c for c in BLOCK if c != "metric"], dropna=False, sort=False).ngroup()
    places = list(zip(about, where["label"], where["attribute"], strict=True))
    bad = {(*places[i], where["group"][i]) for i in np.flatnonzero(small & ~pair)}
    for i in np.flatnonzero(pair):
        small[i] |= any((*places[i], g) in bad for g in where["group"][i].split(" - "))
    lost, done = pd.DataFrame(False, out.index, COUNTS), {}
    of_label = ["n_positive", "n_negative"]
    for _, block in out.groupby(BLOCK, dropna=False, sort=False):
        rows = block.index.to_numpy()
        rows = rows[~pair[rows]]
        key = (where.loc[rows].to_csv(), numbers.loc[rows].to_csv(index=False))
        if key not in done:  # models share their counts
            done[key] = _cover_block(where.loc[rows], numbers.loc[rows], several[rows])
        of_images, of_labels = done[key]
        lost.loc[rows] |= of_images[:, None]
        lost.loc[rows, of_label] |= of_labels[:, None]
    hidden = lost.any(axis=1) & ~pair & ~several
    lost[of_label] |= several[:, None]  # those of whichever label is scarcest
    lost |= pair[:, None]  # sums of two groups
    for c in COUNTS:
        out.loc[lost[c], c] = pd.NA
    gone = small | (hidden & ~out["metric"].isin(FREE_OF_COUNTS).to_numpy())
    defined = out["value"].notna().to_numpy()
    out[NUMBERS] = out[NUMBERS].map(_three_digits)
    out.loc[gone, NUMBERS] = np.nan
    note = out["note"].map(without_small_counts)
    other = ~note.str.contains("suppressed")
    note = note.mask(gone & defined, SUPPRESSED)
    out["note"] = note.mask(
        hidden & ~(gone & defined) & other, note.where(note == "", note + "; ") + ONLY_COUNTS
    )
    return out


def _three_digits(x):
    return x if pd.isna(x) or float(x).is_integer() else float(f"{x:.3g}")


def _cover_block(where, numbers, several):
    """Rows of one model and metric that lose all counts, and those of positives and negatives.

    First groups, whose images and patients are the same for every label; then single labels.
    """
    attribute, group = where["attribute"].to_numpy(), where["group"].to_numpy()
    cell, cells = pd.factorize(pd.Series(zip(attribute, group, strict=True)))
    label, labels = pd.factorize(where["label"])
    by_label = np.full((len(cells), 2 * len(labels)), np.nan)
    by_label[cell, label] = numbers["n"]
    by_label[cell, len(labels) + label] = numbers["n_patients"]
    known = ~np.isnan(by_label).all(axis=1)
    of_images = cover(by_label, _few(by_label).any(axis=1) | ~known, _sums(list(cells)))[cell]

    single = np.flatnonzero(~several)
    pairs = numbers[["n_positive", "n_negative"]].to_numpy()[single]
    places = [cells[c] for c in cell[single]]
    sums = []
    for k in range(len(labels)):
        mine = np.flatnonzero(label[single] == k)
        of_label = _sums([places[i] for i in mine])
        sums += [(mine[m], None if t is None else mine[t]) for m, t in of_label]
    for c in range(len(cells)):  # classes of which every image has one add up to its images
        mine = np.flatnonzero(cell[single] == c)
        if len(mine) > 1 and pairs[mine, 0].sum() == numbers["n"].to_numpy()[single[mine[0]]]:
            sums.append((mine, None))
    hidden = _few(pairs).any(axis=1) | of_images[single] | np.isnan(pairs).all(axis=1)
    of_labels = np.zeros(len(where), dtype=bool)
    of_labels[single] = cover(pairs, hidden, sums)
    return of_images & known[cell], of_labels


def _sums(cells):
    """Which (attribute, group) add up to which: groups to all, crossed ones to groups as well."""
    total = cells.index(("all", "all")) if ("all", "all") in cells else None
    sums = []
    for attribute in dict.fromkeys(a for a, _ in cells if a != "all"):
        members = [i for i, (a, _) in enumerate(cells) if a == attribute]
        sums.append((members, total))
        parts = attribute.split(" x ")
        for k, part in enumerate(parts if len(parts) > 1 else ()):
            for value in dict.fromkeys(cells[i][1].split(" x ")[k] for i in members):
                mine = [i for i in members if cells[i][1].split(" x ")[k] == value]
                whole = (part, value)
                sums.append((mine, cells.index(whole) if whole in cells else None))
    return [(np.array(m), t) for m, t in sums if len(m) > 1]
