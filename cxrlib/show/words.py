"""Words and colours: how numbers, intervals, names and groups are written and drawn everywhere.

A group or model has the same colour in every figure, and colours shown together can be told apart
with the common forms of colour blindness.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cxrlib import guard

UNDEFINED, MINUS = "undefined", "−"
_WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
COLOURS, SPARE, NAMES = _WORDS["colours"], _WORDS["spare"], _WORDS["names"]
FIGURES = _WORDS["figures"]
CHANCE, PERFORMANCE, X_GAPS, ABSOLUTE, PER_THOUSAND = (
    _WORDS["metrics"][key]
    for key in ("chance", "performance", "x_gaps", "absolute", "per_thousand")
)
UNSTATED = "direction of the difference is not stated"  # in the note of a printed number


def readable(text: object) -> str:
    """How a code of the tables is written: "F" -> "female", "F - M" and "F x 80+" likewise."""
    sides = (part.split(" x ") for part in str(text).split(" - "))
    return " − ".join(" x ".join(NAMES.get(code, code) for code in codes) for codes in sides)


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
    varying = [c for c in columns if c in results and results[c].nunique() > 1]
    known = results[results["value"].notna()]
    missing = len(results) - len(known)
    what = ", ".join(readable(m) for m in dict.fromkeys(results["metric"]))
    what = what[:1].upper() + what[1:]
    if known.empty:
        return f"{what}: every value is undefined."

    def end(row):
        who = ", ".join(readable(row[c]) for c in varying if not pd.isna(row[c]))
        return f"{fmt(row['value'], digits)}{f' ({who})' if who else ''}"

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
    return f"{x:{'+' if signed and x else ''},.{digits}f}".replace("-", MINUS)


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


@dataclass(frozen=True)
class Printed:
    """One value of a results table, which prints itself: "0.87 [0.84, 0.90]".

    A difference has three digits and its sign, anything else two, and numbers per thousand patients
    one. An undefined one reads "undefined", with its reason where the table gives one.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    difference: bool = False
    why: str = ""
    per_thousand: bool = False

    @property
    def digits(self) -> int:
        return 1 if self.per_thousand else 3 if self.difference else 2

    def __str__(self) -> str:
        text = f"{self:value}"
        if text.startswith(UNDEFINED):
            return text
        return fmt_interval(self.value, self.low, self.high, self.digits, self.difference)

    def __format__(self, spec: str) -> str:
        """``f"{gap:value}"`` is the value alone, ``f"{gap}"`` has the interval as well."""
        if spec != "value":
            return format(str(self), spec)
        if pd.isna(self.value):
            return f"{UNDEFINED} ({self.why})" if self.why else UNDEFINED
        return fmt(self.value, self.digits, self.difference)

    @property
    def side(self) -> str:
        """Where the interval lies beside 0: "above", "below", "around", or "undefined"."""
        from cxrlib import schema  # pandera, which it imports, costs a second

        return schema.side({"ci_low": self.low, "ci_high": self.high})

    @property
    def lies(self) -> str:
        """The same for a sentence: "lies above 0", "includes 0"."""
        return interval_lies({"ci_low": self.low, "ci_high": self.high})

    @property
    def placed(self) -> str:
        """The value and where it lies: "+0.04 [+0.01, +0.10] (the interval lies above 0)"."""
        return str(self) if pd.isna(self.value) else f"{self} (the interval {self.lies})"


def estimate(table: pd.DataFrame, **where: object) -> Printed:
    """The value of a results table with these entries, for a sentence.

    Parameters
    ----------
    table : results table
    **where
        Column = entry, such as ``model="phantom-vit", label="mean"``. Where no row has them, the
        estimate is undefined: "not in these data".

    Raises
    ------
    ValueError
        Several rows have them; names the columns that still differ.
    """
    from cxrlib import schema

    if schema.rows(table, **where).empty:
        return Printed(None, why="not in these data")
    return _estimated(schema.row(table, **where))


def _estimated(row):
    difference = any(" - " in str(row.get(c)) for c in ("group", "model", "method"))
    difference |= row.get("metric") == "calibration_in_the_large"  # predicted minus observed
    note = str(row.get("note") or "") if pd.isna(row["value"]) else ""
    why = note.split(";")[0].removeprefix(f"{UNDEFINED}: ")
    limits = row["value"], row["ci_low"], row["ci_high"]
    return Printed(*limits, difference, why, row.get("metric") in PER_THOUSAND)


def interval_lies(row: Mapping, of: float = 0) -> str:
    """Where the interval of a row lies, for a sentence: "lies above 0", "includes 0"."""
    from cxrlib import schema  # pandera, which it imports, costs a second

    where = {"above": "lies above {}", "below": "lies below {}", "around": "includes {}"}
    return where.get(schema.side(row, of), f"is {UNDEFINED}").format(of)


def span(values: pd.Series, text: Callable[..., str] = fmt, to: str = "to", **how: object) -> str:
    """The smallest and the largest of some values: "0.12 to 0.34"; undefined ones are left out.

    text : function that writes a number, such as `percent`, with its keywords `how`.
    """
    known = values.dropna()
    if known.empty:
        return UNDEFINED
    return f"{text(known.min(), **how)} {to} {text(known.max(), **how)}"


def how_many(which: pd.Series) -> str:
    """Of how many something holds: "3 of 4"; undefined entries (NaN) do not count."""
    known = which.dropna().astype(bool)
    return f"{known.sum()} of {len(known)}" if len(known) else UNDEFINED


def lying(rows: pd.DataFrame, side: str, of: float | pd.Series = 0) -> str:
    """How many intervals lie "above", "below" or "around" a number: "3 of 4".

    rows : results table; of : the number, or one per row. Undefined intervals do not count.
    """
    from cxrlib import schema

    limits = pd.Series(of, rows.index)
    ends = zip(rows["ci_low"], rows["ci_high"], limits, strict=True)
    found = pd.Series([schema.side({"ci_low": a, "ci_high": b}, x) for a, b, x in ends], dtype=str)
    return how_many((found == side).where(found != UNDEFINED))


def percent(fraction: float | None, digits: int = 0) -> str:
    """A fraction as text: ``percent(0.123)`` -> "12 %"."""
    text = fmt(None if fraction is None else 100 * fraction, digits)
    return text if text == UNDEFINED else f"{text} %"


def duration(hours: float) -> str:
    """``duration(0.4)`` -> "24 minutes", ``duration(30)`` -> "30 hours", 40 -> "1.7 days"."""
    return _in_units(60 * hours, {"years": 525_960, "days": 1440, "hours": 60}, 1.5, "minutes")


def size(n_bytes: float) -> str:
    """``size(4.3e6)`` -> "4.3 MB", ``size(417e9)`` -> "417 GB"; 1 kB is 1,000 bytes."""
    return _in_units(n_bytes / 1e3, {"TB": 1e9, "GB": 1e6, "MB": 1e3}, 1, "kB")


def _in_units(x, units, least, smallest):
    """A number in the largest unit of which it has so many, with two digits or more."""
    for unit, of in units.items():
        if x >= least * of:
            return f"{fmt(x / of, 0 if x >= 10 * of else 1)} {unit}"
    return f"{fmt(x, 0)} {smallest}"


def count(n: float | None) -> str:
    """How many images or patients, for a sentence: "1,204".

    Once credentialed data were loaded, 1 to 9 read "fewer than 10".
    """
    if n is not None and guard.active() and 0 < n < guard.MIN_CELL:
        return guard.FEW
    return fmt(n, 0)


def plural(n: int, noun: str, many: str | None = None) -> str:
    """``plural(1, "model")`` -> "1 model", ``plural(4, "gap")`` -> "4 gaps"."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def listed(entries: Iterable[object], none: str = "none", last: str = "and") -> str:
    """Entries by their readable names, for a sentence: "A", "A and B", "A, B and C"."""
    names = [readable(entry) for entry in entries]
    if len(names) < 2:
        return names[0] if names else none
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def each(rows: pd.DataFrame, by: str = "model", none: str = "none") -> str:
    """Every row's value by its name: "A 0.87 [0.84, 0.90] and B undefined".

    Parameters
    ----------
    rows : results table
    by : str
        The column whose entries name the rows.
    none : str
        What to say of a table without rows.
    """
    named = [
        f"{readable(row[by])} {replace(_estimated(row), why='')}" for _, row in rows.iterrows()
    ]
    return listed(named, none)


def ends(rows: pd.DataFrame, by: str = "model") -> str:
    """The smallest and the largest value: "A 0.61 [0.55, 0.66] to B 0.93 [0.90, 0.95]".

    rows : results table; by : the column whose entries name the rows. Undefined values do not
    count; of one there is one, of none it reads "undefined".
    """
    known = rows.dropna(subset="value").sort_values("value", kind="stable")
    known = known.iloc[[0, -1][: len(known)]]
    return " to ".join(each(known[i : i + 1], by) for i in range(len(known))) or UNDEFINED


def why_undefined(rows: pd.DataFrame) -> str:
    """Why values of a results table are undefined: "Undefined here: 3 positive images, ...".

    Each reason once; "" where every value is defined.
    """
    notes = rows.loc[rows["value"].isna(), "note"]
    reasons = dict.fromkeys(note.split("; ")[0] for note in notes)
    return f"Undefined here: {'; '.join(reasons)}." if reasons else ""


def sides(rows: pd.DataFrame, of: str = "models") -> str:
    """Where the intervals of several rows lie: "below 0 in 3 and above 0 in 1 of 4 models".

    Parameters
    ----------
    rows : results table
    of : str
        What the rows are, in the plural.
    """
    from cxrlib import schema

    found = [schema.side(row) for _, row in rows.iterrows()]
    if not found:
        return f"{UNDEFINED}: no {of}"
    where = {"below 0": "below", "above 0": "above", "on both sides of 0": "around"}
    where[UNDEFINED] = UNDEFINED
    parts = [f"{text} in {found.count(side)}" for text, side in where.items() if side in found]
    return f"{listed(parts)} of {len(found)} {of}"


def beside(gap: Printed) -> str:
    """What the first of two models is beside the second: "better", "worse", "not told apart"."""
    words = {"above": "better", "below": "worse", "around": "not told apart"}
    return words.get(gap.side, UNDEFINED)


def judged(what: str, on: Printed, off: Printed, planted: float) -> str:
    """What an audit made of a planted difference between two groups, as a sentence.

    Parameters
    ----------
    what : str
        Such as "age".
    on, off : Printed
        The gap of the audit as drawn, and with the dial off.
    planted : float
        Its sign is that of the first group's factor minus the second's: negative where the
        findings of the first are fainter, 0 where nothing was planted between the two.
    """
    sign = (planted > 0) - (planted < 0)
    if UNDEFINED in (on.side, off.side):
        return f"The effect of {what} cannot be judged in this run, which has too few patients"
    if not sign:
        nothing = f"No effect of {what} was planted between these two groups, and"
        if on.side == "around":
            return f"{nothing} the audit claims none: its interval includes 0"
        return f"{nothing} yet the interval of the audit excludes 0"
    effect, other = f"The planted effect of {what}", ""
    if off.side == ("below" if sign > 0 else "above"):
        other = ". With the dial off the gap points the other way: something else hides part of it"
    if sign * on.value <= 0:
        return f"{effect} is not found in this run: the gap has the wrong sign{other}"
    if sign * off.value >= sign * on.value / 2:
        return f"{effect} shows in the sign of the gap, but most of the gap stays without the dial"
    if on.side == "around":
        return f"{effect} shows in the sign of the gap, but the interval includes 0{other}"
    return f"{effect} is found: right sign, an interval that excludes 0, and it goes with its dial"


def path_judged(what: str, on: Mapping, off: Mapping, is_open: bool, chance: float = 0.5) -> str:
    """What an audit made of the only planted path to an attribute, to follow "The planted path".

    Parameters
    ----------
    what : str
        The attribute, such as "race".
    on, off : rows of a results table
        How well the attribute is read as drawn, and with the path closed.
    is_open : bool
        Whether this run has planted the path at all.
    chance : float
        The value of a reading that knows nothing.
    """
    from cxrlib import schema

    as_drawn, closed = (schema.side(row, chance) for row in (on, off))
    if UNDEFINED in (as_drawn, closed):
        return "cannot be judged in this run, which has too few patients"
    read = as_drawn == "above"
    if not is_open:
        readable_or_not = "readable all the same" if read else "not readable"
        return f"was closed by this run, and {what} is {readable_or_not}"
    if read and closed != "above":
        return f"is found: {what} is readable, and only that way"
    if read and off["value"] < on["value"]:
        return f"is found in part: without it {what} is less readable, but not at chance"
    return "is not found in this run"
