"""Words and colours: how numbers, intervals, names and groups are written and drawn everywhere.

A group or model has the same colour in every figure, and colours shown together can be told apart
with the common forms of colour blindness.
"""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

UNDEFINED = "undefined"
_WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
COLOURS, SPARE, NAMES = _WORDS["colours"], _WORDS["spare"], _WORDS["names"]
FIGURES = _WORDS["figures"]
CHANCE, PERFORMANCE, X_GAPS, ABSOLUTE = (
    _WORDS["metrics"][key] for key in ("chance", "performance", "x_gaps", "absolute")
)
UNSTATED = "direction of the difference is not stated"  # in the note of a printed number


def readable(text: object) -> str:
    """How a code of the tables is written in figures: "F" -> "female", "F - M" likewise."""
    return " − ".join(NAMES.get(part, part) for part in str(text).split(" - "))


def in_words(results: pd.DataFrame, digits: int = 2) -> str:
    """The values that matter in a results table, for the text alternative of its figure.

    Parameters
    ----------
    results : results table
        Of one metric. Its lowest and highest defined value are named by whatever tells the rows
        apart, and values that are undefined are counted.

    Returns
    -------
    str, such as "AUC from 0.61 (Edema, phantom-vit) to 0.93 (Pneumothorax, phantom-resnet)."
    """
    columns = ("label", "attribute", "group", "method", "model", "protocol")
    varying = [c for c in columns if results[c].nunique() > 1]
    known = results[results["value"].notna()]
    missing = len(results) - len(known)
    what = ", ".join(readable(m) for m in dict.fromkeys(results["metric"]))
    what = what[:1].upper() + what[1:]
    if known.empty:
        return f"{what}: every value is undefined."

    def end(row):
        who = ", ".join(readable(row[c]) for c in varying if not pd.isna(row[c]))
        return f"{row['value']:.{digits}f}{f' ({who})' if who else ''}"

    lowest, highest = (known.loc[at] for at in (known["value"].idxmin(), known["value"].idxmax()))
    ends = f"from {end(lowest)} to {end(highest)}" if len(known) > 1 else end(lowest)
    return f"{what} {ends}{f'; {missing} undefined' if missing else ''}."


def colours(entries: Iterable[str]) -> dict[str, str]:
    """One colour per entry: the fixed one where there is one, else a spare one."""
    spare = iter(SPARE * 10)
    return {e: COLOURS[e] if e in COLOURS else next(spare) for e in entries}


def ordered(entries: Iterable) -> list:
    """Distinct entries, known groups in their natural order, others as they come."""
    rank = {entry: i for i, entry in enumerate(COLOURS)}
    distinct = [e for e in dict.fromkeys(entries) if not pd.isna(e)]
    return sorted(distinct, key=lambda e: rank.get(e, len(rank)))


def fmt(x: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number as text: ``fmt(0.8712)`` -> "0.87"; NaN or None -> "undefined"."""
    if pd.isna(x):
        return UNDEFINED
    x = round(float(x), digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{x:{'+' if signed and x else ''},.{digits}f}"


def fmt_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    digits: int = 2,
    signed: bool = False,
    bare: bool = False,
) -> str:
    """An estimate with its interval: "0.87 [0.84, 0.90]".

    Where the interval is undefined, it reads "0.87 [undefined]", or "0.87" if `bare`.
    """
    text = fmt(value, digits, signed)
    if text == UNDEFINED or (bare and (pd.isna(low) or pd.isna(high))):
        return text
    if pd.isna(low) or pd.isna(high):
        return f"{text} [{UNDEFINED}]"
    return f"{text} [{fmt(low, digits, signed)}, {fmt(high, digits, signed)}]"


def fmt_row(row: Mapping, digits: int = 2, signed: bool = False) -> str:
    """A row of a results table as text, see `fmt_interval`."""
    return fmt_interval(row["value"], row["ci_low"], row["ci_high"], digits, signed)


def interval_lies(row: Mapping, of: float = 0) -> str:
    """Where the interval of a row lies, for a sentence: "lies above 0", "includes 0"."""
    from cxrlib import schema  # pandera, which it imports, costs a second

    where = {"above": "lies above {}", "below": "lies below {}", "around": "includes {}"}
    return where.get(schema.side(row, of), f"is {UNDEFINED}").format(of)


def percent(fraction: float | None, digits: int = 0) -> str:
    """A fraction as text: ``percent(0.123)`` -> "12 %"."""
    text = fmt(None if fraction is None else 100 * fraction, digits)
    return text if text == UNDEFINED else f"{text} %"
