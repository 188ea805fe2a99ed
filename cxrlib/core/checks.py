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


def comparable(values: ArrayLike) -> np.ndarray:
    """Values as an array; NA of pandas, which cannot be compared with anything, becomes None."""
    y = np.array(values)
    if y.dtype != object:
        return y
    import pandas as pd

    y[pd.isna(y)] = None
    return y


def precision(values: np.ndarray) -> type[np.floating]:
    """The narrowest type of floating-point number that holds all of these as they are.

    Probabilities stored in float32 keep its rounding wherever they go: 0.1 is 0.10000000149.
    """
    narrow = (np.float16, np.float32)
    with np.errstate(over="ignore"):
        return next((t for t in narrow if (values.astype(t) == values).all()), np.float64)


def unit_interval(values: np.ndarray) -> np.ndarray:
    """Probabilities that rounding of their sum has carried a hair outside [0, 1], put back."""
    hair = max(1e-6, 2 * float(np.finfo(precision(values)).eps))
    inside = np.clip(values, 0, 1)
    return np.where(np.abs(values - inside) <= hair, inside, values)


def outcomes(values: ArrayLike, name: str) -> np.ndarray:
    """Values as a bool array; ValueError naming `name` and the rows that are not 0 or 1."""
    y = comparable(values)
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


def fractions(**values: float) -> None:
    """Refuse the first of these parameters that is not strictly between 0 and 1."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name}: {value!r}; expected a number between 0 and 1.")


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
