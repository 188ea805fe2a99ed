"""A run beside another: which numbers differ, by how much, and what has no counterpart."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import pandas as pd

from cxrlib.book.record import Run
from cxrlib.show.words import UNDEFINED, fmt, fmt_interval

KEYS = (
    *("paper", "artefact", "protocol", "cohort", "model", "method", "label", "attribute"),
    *("group", "metric", "unit"),
)  # columns of a results table that say what a number is
RENAMED = ("protocol", "cohort", "unit")  # left out of the join where each side has its own one
VALUES = ("value", "ci_low", "ci_high")
APART, TOUCHING = "no", "yes"  # whether intervals overlap


class Comparison(NamedTuple):
    """What `compare` found."""

    parameters: pd.DataFrame  # parameter, reference, run: those that differ
    numbers: pd.DataFrame  # rows of both results tables, joined
    texts: pd.DataFrame  # name, reference, run: paragraphs of the text that differ
    n_texts: int  # in both
    notes: list[str]  # what to keep in mind


def compare(reference: Run, run: Run) -> Comparison:
    """Set a run of a chapter beside another one.

    Parameters
    ----------
    reference, run : record.Run

    Returns
    -------
    Comparison
        See :func:`differences` for its ``numbers``.
    """
    old, new = reference.card, run.card
    parameters = _differing(old["parameters"], new["parameters"], "parameter")
    before, after = (card.get("said", {}) for card in (old, new))
    texts = _differing(before, after, "name")
    numbers, notes = differences(reference.table, run.table)
    if _other_code(old["code"], new["code"]):
        notes.append("the reference was made by other code: run its chapter again to be sure")
    if old["packages"] != new["packages"] or old["python"] != new["python"]:
        notes.append("the reference was made with other packages")
    shared = len(before.keys() & after.keys())
    return Comparison(parameters, numbers, texts, shared, notes)


def _other_code(old, new):
    """Whether two cards tell of another chapter, or of another content of a file that both used."""
    both = old["files"].keys() & new["files"].keys()
    differ = any(old["files"][name] != new["files"][name] for name in both)
    return differ or old["chapter"] != new["chapter"]


def _differing(old, new, what):
    """Entries of two dicts that differ; "" where one has none."""
    rows = [
        {what: name, "reference": str(old.get(name, "")), "run": str(new.get(name, ""))}
        for name in dict.fromkeys([*old, *new])
        if name not in old or name not in new or old[name] != new[name]
    ]
    return pd.DataFrame(rows, columns=[what, "reference", "run"])


def differences(reference: pd.DataFrame, run: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Two results tables joined on what their numbers are.

    Parameters
    ----------
    reference, run : results table

    Returns
    -------
    (DataFrame, list of str)
        One row per number: `KEYS`; of each side value, ci_low, ci_high (``_reference``, ``_run``);
        difference (run - reference; NaN where either is undefined); overlap of the intervals
        ("yes", "no", "" without two); ``in`` ("both", "reference", "run"); note (why something is
        undefined). Rows whose intervals are apart come first, then the largest differences.
        And remarks on the join.
    """
    keys, notes = list(KEYS), []
    for column in RENAMED:
        old, new = (set(t[column].dropna()) for t in (reference, run))
        if len(old) == len(new) == 1 and old != new:
            keys.remove(column)
            notes.append(f"{column}: {old.pop()} in the reference, {new.pop()} in this run")
    sides = []
    for table in (reference, run):
        mine = table[[*keys, *VALUES, "note"]].copy()
        mine[keys] = mine[keys].astype(object).where(mine[keys].notna(), "")
        # Rows that nothing tells apart, such as several trainings, are paired in their order.
        sides.append(mine.assign(copy=mine.groupby(keys).cumcount()))
    both = sides[0].merge(
        sides[1], "outer", [*keys, "copy"], suffixes=("_reference", "_run"), indicator="in"
    )
    names = {"left_only": "reference", "right_only": "run"}
    both["in"] = both["in"].cat.rename_categories(names).astype(str)
    both["difference"] = both["value_run"] - both["value_reference"]
    numbers = [f"{c}_{side}" for side in ("reference", "run") for c in VALUES]
    limits = both[[c for c in numbers if c.startswith("ci_")]].notna().all(axis=1)
    apart = (both["ci_low_run"] > both["ci_high_reference"]) | (
        both["ci_high_run"] < both["ci_low_reference"]
    )
    both["overlap"] = apart.map({True: APART, False: TOUCHING}).where(limits, "")
    both["note"] = [_reasons(row) for row in both.to_dict("records")]
    both = both.assign(apart=apart & limits, size=both["difference"].abs())
    both = both.sort_values(["apart", "size"], ascending=False, ignore_index=True)
    return both[[*keys, *numbers, "difference", "overlap", "in", "note"]], notes


def _reasons(row):
    said = {side: row[f"note_{side}"] for side in ("reference", "run")}
    undefined = [s for s in said if pd.isna(row[f"value_{s}"]) and row["in"] in ("both", s)]
    return "; ".join(f"{side}: {said[side]}" for side in undefined)


def largest(numbers: pd.DataFrame, n: int = 10) -> pd.DataFrame:
    """The first `n` rows of `differences` as text, without the columns in which all rows agree.

    Returns
    -------
    DataFrame: the columns of `KEYS` that vary, reference, this run, difference, overlap
    """
    both = numbers[numbers["in"] == "both"]
    keys = [c for c in KEYS if c in both and both[c].nunique() > 1] or ["metric"]
    head = both.head(n)
    out = head[keys].reset_index(drop=True)
    for side, title in (("reference", "reference"), ("run", "this run")):
        columns = head[[f"{c}_{side}" for c in VALUES]]
        out[title] = [
            fmt_interval(*row, _digits(row[0]), bare=True)
            for row in columns.itertuples(index=False)
        ]
    out["difference"] = [fmt(x, _digits(x), signed=True) for x in head["difference"]]
    out["intervals overlap"] = head["overlap"].replace("", "no intervals").to_list()
    return out


def _digits(x):
    """Three decimals, none for large whole numbers."""
    return 0 if pd.notna(x) and abs(x) >= 100 and float(x).is_integer() else 3


def summary(numbers: pd.DataFrame) -> str:
    """In words: how many rows were joined, intervals are apart, and have no counterpart."""
    if numbers.empty:
        return "this chapter keeps no table of results; its text is compared"
    both = numbers[numbers["in"] == "both"]
    if both.empty:
        mine, its = (numbers[numbers["in"] == side] for side in ("run", "reference"))
        return f"no number in both: here {_which(mine, its)}; there {_which(its, mine)}"
    same = int((both["difference"] == 0).sum())
    parts = [f"{len(both)} numbers in both", f"{same} of them equal"]
    judged = both[both["overlap"] != ""]
    if len(judged):
        apart = int((judged["overlap"] == APART).sum())
        parts.append(f"intervals apart in {apart} of {len(judged)}")
    undefined = int(both["difference"].isna().sum())
    if undefined:
        parts.append(f"{undefined} {UNDEFINED} in one of the two")
    for side, words in (("reference", "only in the reference"), ("run", "only in this run")):
        alone = numbers[numbers["in"] == side]
        if len(alone):
            parts.append(f"{len(alone)} {words} ({_which(alone, both)})")
    return "; ".join(parts)


def _which(alone, both):
    """By which entries rows differ from those that have a counterpart, in short."""
    said = []
    for column in [c for c in KEYS if c in alone]:
        new = [x for x in dict.fromkeys(alone[column]) if x and x not in set(both[column])]
        if new:
            said.append(f"{column} {', '.join(new[:3])}{', ...' if len(new) > 3 else ''}")
    return "; ".join(said) or "other combinations"


def as_text(comparison: Comparison, n: int = 10) -> str:
    """What ``cxrbook run`` prints of a comparison."""
    lines = [f"note: {note}" for note in comparison.notes]
    lines.append(summary(comparison.numbers))
    both = comparison.numbers[comparison.numbers["in"] == "both"]
    changed = both[both["difference"].abs() > 0]
    if len(changed):
        lines.append(largest(changed, n).to_string(index=False))
    texts = comparison.texts
    lines.append(f"paragraphs of the text: {len(texts)} differ, {comparison.n_texts} are in both")
    if comparison.numbers.empty and len(texts):
        lines.append(excerpts(texts.head(n)).to_string(index=False))
    return "\n".join(lines)


def excerpts(texts: pd.DataFrame, length: int = 60) -> pd.DataFrame:
    """Pairs of texts (columns reference and run), each cut to where it begins to differ."""

    def cut(pair):
        same = next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), 0)
        start = pair["run"].rfind(" ", 0, max(0, same - 20)) + 1
        return ["…" * (start > 0) + textwrap.shorten(text[start:], length) for text in pair]

    pairs = texts[["reference", "run"]].apply(cut, axis=1, result_type="broadcast")
    return texts.assign(**pairs)
