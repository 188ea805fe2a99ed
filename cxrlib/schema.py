"""The two tables that everything exchanges: predictions in, results out.

Computed numbers, the papers' numbers and planted truths all have the shape of the results table,
so a comparison is a join and a plot takes any of them. ``schema.toml`` says what each column of the
results table means.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from cxrlib import guard
from cxrlib.core import checks, levels

PART = re.compile(r"mean over (\d+ of \d+) labels; left out")  # the note of a mean of some labels
KEYS = ("cohort", "model", "method", "label")  # of the predictions that are judged together
PREDICTION_COLUMNS = ("image_id", "patient_id", *KEYS, "y_true", "score")

_KINDS = {
    "text": pa.Column(str, nullable=True, coerce=True),
    "name": pa.Column(str, coerce=True),
    "number": pa.Column(float, nullable=True, coerce=True),
    "count": pa.Column("Int64", pa.Check.ge(0), nullable=True, coerce=True),
}
_COLUMNS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
_RULES = {
    "ci_low must not be above ci_high": lambda t: ~(t["ci_low"] > t["ci_high"]),
    "n_positive must not be above n": lambda t: ~(t["n_positive"] > t["n"]).fillna(False),
    # for the scarcest of several labels too: n is that of the largest
    "n_positive + n_negative must not be above n": lambda t: (
        ~(t["n_positive"] + t["n_negative"] > t["n"]).fillna(False)
    ),
    "an undefined value (NaN) needs its reason in `note`": lambda t: (
        t["value"].notna() | (t["note"] != "")
    ),
}
RESULTS = pa.DataFrameSchema(
    {name: _KINDS[column["kind"]] for name, column in _COLUMNS.items()},
    checks=[pa.Check(rule, error=text) for text, rule in _RULES.items()],
    strict=True,
    ordered=True,
)
COLUMNS = tuple(_COLUMNS)
SUPPRESSED = guard.SUPPRESSED  # note of a number that rests on too few, see `smallest_cell`


def results(rows: list[dict] | pd.DataFrame) -> pd.DataFrame:
    """Make a validated results table.

    Parameters
    ----------
    rows : list of dict, or DataFrame
        One entry per number. Absent columns are filled with missing values, `note` with "".
        A missing n_negative is filled with n - n_positive for a single finding; over several
        (label "mean" or "all") the two counts can belong to different ones, so it is not.

    Returns
    -------
    DataFrame with the columns `COLUMNS`, in that order, on a fresh index. Once credentialed data
    were loaded, without what rests on fewer than ten images or patients, see `guard.suppress`.

    Raises
    ------
    ValueError
        For an unknown column or an entry that breaks the schema: names the column, the rule and
        the first offending entry.
    """
    table = pd.DataFrame(rows).reset_index(drop=True)
    unknown = [c for c in table.columns if c not in COLUMNS]
    if unknown:
        raise ValueError(
            f"results table: unknown column {unknown[0]!r}; expected some of {', '.join(COLUMNS)}."
        )
    table = table.reindex(columns=COLUMNS)
    table["note"] = table["note"].astype(object).where(table["note"].notna(), "")
    table["n_negative"] = _negatives(table)
    try:
        return guard.suppress(RESULTS.validate(table, lazy=True))
    except pa.errors.SchemaErrors as error:
        first = error.failure_cases.iloc[0]
        row = "" if pd.isna(first["index"]) else f" in row {int(first['index'])}"
        if first["schema_context"] == "Column":
            what = f"column {first['column']!r}{row} holds {first['failure_case']!r}; expected"
        else:
            what = f"entry{row or ' in some row'} breaks the rule"
        raise ValueError(
            f"results table: {what} {first['check']}. Correct the entry or leave it out."
        ) from None


def smallest_cell() -> int:
    """Fewest images, and patients, behind a number that may be shown in this process.

    0, or `guard.MIN_CELL` once credentialed data were loaded. `results` hides what rests on fewer;
    who combines numbers before they are in a table leaves such a number out, with the note
    `SUPPRESSED`, so that no mean or difference tells what it was.
    """
    return guard.MIN_CELL if guard.active() else 0


def _negatives(table):
    """n_negative, filled where it follows from the other counts."""
    n, n_positive = (pd.to_numeric(table[c], errors="coerce") for c in ("n", "n_positive"))
    single = ~table["label"].isin(("mean", "all")) & (n >= n_positive)
    return table["n_negative"].where(table["n_negative"].notna() | ~single, n - n_positive)


def predictions(table: pd.DataFrame, *attributes: str, probabilities: bool = False) -> pd.DataFrame:
    """Check a predictions table, and spell it one way: the one gate of everything in `stats`.

    Parameters
    ----------
    table : DataFrame
        Long table, one row per image x label x model x method: `PREDICTION_COLUMNS`, y_true 0/1,
        score finite. Within a cohort an image has one patient, one value of each attribute, and
        one truth per label, whatever the model.
    attributes : str
        Further columns that have to be there, such as "sex".
    probabilities : bool
        Whether scores have to lie in [0, 1].

    Returns
    -------
    DataFrame on a fresh index, in the order of the rows: `KEYS` as text, names of images and
    patients as `cxrlib.core.levels.names` spells them, attributes as categories of text (missing
    ones stay missing), y_true as int, score as float. Further columns are as they were.

    Raises
    ------
    ValueError
        Names the column, how many rows are wrong and the first of them, what was expected and
        what to do. Rows are counted from 0.
    """
    for column in PREDICTION_COLUMNS:
        if column not in table:
            expected = ", ".join(PREDICTION_COLUMNS)
            raise ValueError(
                f"predictions: column {column!r} is missing; expected {expected}. Make the table "
                "with cxrlib.predict.zeroshot or cxrlib.predict.finetune."
            )
    for attribute in attributes:
        if attribute not in table:
            raise ValueError(
                f"predictions: attribute column {attribute!r} is missing. Join it in: "
                f'predictions.merge(cohort.table[["image_id", "{attribute}"]], on="image_id").'
            )
    if len(table) == 0:
        raise ValueError("predictions: the table has no rows; expected one per image and label.")

    raw = table.reset_index(drop=True)
    about = {c: raw[c].to_numpy(object) for c in ("image_id", "label", "model")}

    def refuse(bad, column, what, expected):
        shown = about | {column: raw[column].to_numpy(object)}
        checks.refuse(bad, f"predictions: column {column!r} {what}", expected, **shown)

    spelt = {c: levels.levels(raw[c], f"predictions: column {c!r}") for c in (*KEYS, *attributes)}
    given = "a value in every row. Leave out images without one"
    for column in PREDICTION_COLUMNS:
        refuse(spelt.get(column, raw[column]).isna(), column, "has missing entries", given)
    names = {column: levels.names(raw[column]) for column in ("image_id", "patient_id")}
    truth = raw["y_true"].isin((0, 1))
    refuse(~truth, "y_true", "holds entries other than 0 and 1", "0 or 1 only")
    score = pd.to_numeric(raw["score"], errors="coerce").to_numpy(float)
    finite = "probabilities or other finite numbers"
    refuse(~np.isfinite(score), "score", "holds entries that are infinite or no number", finite)
    if probabilities:
        score = checks.unit_interval(score)
        one = "probabilities. Pass scores through a sigmoid or softmax first"
        refuse((score < 0) | (score > 1), "score", "holds values outside [0, 1]", one)
    table = raw.assign(**spelt, **names, y_true=raw["y_true"].astype(int), score=score)
    table = table.astype(dict.fromkeys(KEYS, object))

    keys = [*KEYS, "image_id"]
    checks.refuse(
        table.duplicated(keys),
        f"predictions: {', '.join(keys)} are those of an earlier row",
        "one row each. Drop the copies, or tell variants apart by `method`",
        **about,
    )
    image = ["cohort", "image_id"]
    same = "one value in all rows of an image. Give images of different patients different names"
    for column in ("patient_id", *attributes):
        refuse(_contradicts(table, image, column), column, "changes within an image", same)
    differs = "differs between models for one image and label"
    one = "one truth. Judge models on one set of labels, or give the other set a cohort of its own"
    refuse(_contradicts(table, [*image, "label"], "y_true"), "y_true", differs, one)
    return table


def _contradicts(table, keys, column):
    """Rows whose entry in a column is not that of the first row with these keys."""
    distinct = table[[*keys, column]].drop_duplicates()
    again = distinct[distinct.duplicated(keys)]
    if again.empty:
        return np.zeros(len(table), dtype=bool)
    marked = pd.MultiIndex.from_frame(table[[*keys, column]].astype(object))
    return marked.isin(pd.MultiIndex.from_frame(again.astype(object)))


def wide(
    table: pd.DataFrame,
    index: str | Sequence[str] = "model",
    columns: str | Sequence[str] = "label",
    digits: int = 2,
) -> pd.DataFrame:
    """A results table laid out as papers print it: "0.87 [0.84, 0.90]" in every cell.

    Parameters
    ----------
    table : results table, filtered so that index and columns identify its rows
    index, columns : column or columns of the table that become rows and columns
    digits : decimals

    Returns
    -------
    DataFrame of text, in the order of first appearance; cells without a row are "",
    undefined values are "undefined". A mean that leaves labels out says of how many it is:
    "0.87 [0.84, 0.90] (2 of 7)".

    Raises
    ------
    ValueError
        If two rows fall into one cell: filter the table further, or name more columns.
    """
    index = [index] if isinstance(index, str) else list(index)
    columns = [columns] if isinstance(columns, str) else list(columns)
    doubled = table.duplicated([*index, *columns])
    if doubled.any():
        cell = table.loc[doubled, [*index, *columns]].iloc[0].to_dict()
        raise ValueError(f"wide: more than one row for {cell}; filter the table or add a column.")

    def text(row):
        if pd.isna(row["value"]):
            return "undefined"
        value, low, high = (
            f"{round(row[c], digits) + 0.0:.{digits}f}" for c in ("value", "ci_low", "ci_high")
        )
        cell = value if pd.isna(row["ci_low"]) else f"{value} [{low}, {high}]"
        part = PART.search(str(row.get("note", "")))
        return f"{cell} ({part[1]})" if part else cell

    cells = table[[*index, *columns]].assign(cell=table.apply(text, axis=1))
    out = cells.pivot(index=index, columns=columns, values="cell").fillna("")
    rows = cells[index].drop_duplicates()
    heads = cells[columns].drop_duplicates()
    out = out.reindex(pd.MultiIndex.from_frame(rows) if len(index) > 1 else rows[index[0]])
    return out[pd.MultiIndex.from_frame(heads) if len(columns) > 1 else heads[columns[0]]]


def rows(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows with these entries: ``rows(results, model="a", metric=["auc", "f1"])``.

    Parameters
    ----------
    table : DataFrame
    **where
        Column = entry, or a list of entries of which a row has one.

    Raises
    ------
    ValueError
        For a column that the table lacks.
    """
    for column, entry in where.items():
        if column not in table:
            have = ", ".join(map(str, table.columns))
            raise ValueError(f"rows: no column {column!r}; expected some of {have}.")
        table = table[table[column].isin(entry if isinstance(entry, list | tuple) else [entry])]
    return table


def row(table: pd.DataFrame, **where: object) -> pd.Series:
    """The one row with these entries: ``row(results, model="a", label="mean", metric="auc")``.

    Returns a Series, so that its numbers are ``r["value"]``, ``r["ci_low"]``, ``r["note"]``.

    Raises
    ------
    ValueError
        If no row or several fit; says how many, and which columns still differ.
    """
    found = rows(table, **where)
    if len(found) != 1:
        differ = [c for c in found.columns if c in COLUMNS[:10] and found[c].nunique() > 1]
        hint = f"; they differ in {', '.join(differ)}" if differ else ""
        raise ValueError(f"row: {len(found)} rows for {where}{hint}; expected exactly one.")
    return found.iloc[0]


def side(row: pd.Series | Mapping, of: float = 0.0) -> str:
    """Where an interval lies: "above", "below" or "around" a number, or "undefined".

    For sentences whose direction is computed: a gap is shown only if its interval is not "around"
    0. row : a row of a results table, as `row` returns it.
    """
    if pd.isna(row["ci_low"]) or pd.isna(row["ci_high"]):
        return "undefined"
    if row["ci_low"] > of:
        return "above"
    return "below" if row["ci_high"] < of else "around"
