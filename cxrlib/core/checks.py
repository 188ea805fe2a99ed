"""Refuse bad input with one message: what is wrong, where, how often, and what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def refuse(bad: ArrayLike, what: str, expected: str, **shown: Any) -> None:
    """Raise ValueError if any row is bad.

    Parameters
    ----------
    bad : (n,) bool
    what : str, the column or parameter and what is wrong, such as "score: NaN entries"
    expected : str, what should be there and what to do
    shown : (n,) arrays whose entries identify a row, such as score=s or image_id=ids

    Raises
    ------
    ValueError
        With the number of bad rows and the first three, counted from 0.
    """
    bad = np.asarray(bad, dtype=bool)
    at = np.flatnonzero(bad)
    if not len(at):
        return
    rows = []
    for i in at[:3]:
        entries = ((name, np.asarray(values)[i]) for name, values in shown.items())
        text = ", ".join(f"{n} {v!r}" if isinstance(v, str) else f"{n} {v}" for n, v in entries)
        rows.append(f"row {i} ({text})")
    raise ValueError(
        f"{what} in {len(at)} of {len(bad)} rows, first {', '.join(rows)}; expected {expected}."
    )


def numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Values as a float array; ValueError naming `name` if some are no numbers."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: entries that are no numbers; expected numbers.") from None


def outcomes(values: ArrayLike, name: str) -> np.ndarray:
    """Values as a bool array; ValueError naming `name` and the rows that are not 0 or 1."""
    y = np.asarray(values)
    refuse(~np.isin(y, (0, 1)), f"{name}: entries other than 0 and 1", "0 or 1", **{name: y})
    return y.astype(bool)


def same_length(**arrays: ArrayLike) -> None:
    """Refuse arrays that are not all (n,) with one n."""
    shapes = [np.shape(a) for a in arrays.values()]
    if len(shapes[0]) != 1 or len(set(shapes)) > 1:
        raise ValueError(
            f"{', '.join(arrays)}: shapes {', '.join(map(str, shapes))}; expected equal (n,)."
        )


def one_of(name: str, value: object, known: Iterable[object]) -> None:
    """Refuse a value of the parameter ``name`` that is none of the known ones."""
    known = list(known)
    if value not in known:
        every = ", ".join(map(str, known))
        raise ValueError(f"{name}={value!r}: expected one of {every}")


def one_row_each(table: Any, keys: Sequence[str]) -> None:
    """Refuse a table for a figure that has no rows, or several for one place of the figure.

    Parameters
    ----------
    table : DataFrame
    keys : list of str, the columns that have to tell its rows apart

    Raises
    ------
    ValueError
        Naming the first entry that has more than one row.
    """
    if table.empty:
        raise ValueError("the table has no rows for this figure; check metric, model and label.")
    doubled = table.duplicated(keys)
    if doubled.any():
        entry = table.loc[doubled, keys].iloc[0].to_dict()
        raise ValueError(f"more than one row for {entry}; filter the table before drawing it.")
