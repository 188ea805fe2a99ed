"""One spelling for each level of a column, whatever types it came in.

A file read in pieces holds 1 beside "1", codes with a gap become 1.0 and 2.0, a missing entry
written as text is "nan". Everything that compares groups, models or patients spells them here.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pandas as pd

MISSING = ("", "nan", "NaN", "<NA>", "NaT", "None")  # what a missing entry becomes as text
NUMBERS = {"true": 1.0, "false": 0.0}


def text(level: Any) -> str:
    """A level as text: 1 for 1, 1.0, "1" and b"1 "; "" where it is missing."""
    if isinstance(level, bytes):
        level = level.decode("utf-8", "replace")
    if isinstance(level, float | np.floating) and level.is_integer():
        level = int(level)
    spelled = str(level).strip()
    return "" if spelled in MISSING else spelled


def levels(column: Any, what: str) -> pd.Categorical[str]:
    """The entries of a column as text; levels in the order of its categories, or sorted.

    Parameters
    ----------
    column : (n,) of any type; missing are None, NaN, NA, blanks, and the texts of `MISSING`
    what : str, the column in a message

    Raises
    ------
    ValueError
        Two levels that differ in capitals or blanks alone, or are one number: "F" and "f", "1" and
        "01", "True" and "1".
    """
    raw = pd.Categorical(column).remove_unused_categories()
    names = [text(level) for level in raw.categories]
    order = list(dict.fromkeys(filter(None, names)))
    alike: dict[str | float, str] = {}
    for name in order:
        other = alike.setdefault(_folded(name), name)
        if other != name:
            raise ValueError(
                f"{what} holds {other!r} and {name!r}; expected one spelling for each group. "
                "Write them alike, or give them names that differ in more than this"
            )
    given = isinstance(getattr(column, "dtype", None), pd.CategoricalDtype)
    if raw.categories.inferred_type.startswith("mixed") and not given:
        order.sort()
    code = {name: i for i, name in enumerate(order)}
    codes = np.array([*(code.get(name, -1) for name in names), -1])[raw.codes]
    return pd.Categorical.from_codes(codes, categories=pd.Index(order))


def _folded(name):
    """The same for levels that hardly anybody tells apart."""
    plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    try:
        return float(plain)
    except ValueError:
        return NUMBERS.get(plain, plain)


def names(column: Any) -> np.ndarray | pd.Series:
    """Names of images or patients, spelt as `text` does; a column of whole numbers stays as it is.

    column : (n,) without missing entries
    """
    if pd.api.types.infer_dtype(column, skipna=False) == "integer":
        return column
    codes, found = pd.factorize(column)
    return np.array([text(name) for name in found], dtype=object)[codes]


def one_kind(**arrays: np.ndarray) -> None:
    """Refuse two arrays of classes that cannot be compared by ==.

    Raises
    ------
    ValueError
        Missing entries; numbers beside text; or classes that differ in spelling alone.
    """
    kinds: dict[str, str] = {}  # kind of class -> an array with it
    classes: dict[Any, None] = {}
    for name, values in arrays.items():
        found = pd.unique(np.asarray(values))
        if pd.isna(found).any() or not all(map(text, found)):
            raise ValueError(f"{name}: missing entries; expected a class for every image.")
        kinds |= {_kind(c): name for c in found}
        classes |= dict.fromkeys(found)
    if len(kinds) > 1:
        held = " and ".join(f"{kind} ({name})" for kind, name in kinds.items())
        raise ValueError(f"{', '.join(arrays)}: hold {held}; expected classes of one type.")
    one = levels(list(classes), " and ".join(arrays)).categories
    if len(one) < len(classes):
        raise ValueError(f"{', '.join(arrays)}: classes differ in blanks alone; write them alike.")


def _kind(level):
    if isinstance(level, int | float | np.number | np.bool_):
        return "numbers"
    return "text" if isinstance(level, str) else type(level).__name__
