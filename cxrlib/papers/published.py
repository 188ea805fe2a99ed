"""The numbers printed in the two papers, as a results table, and the comparison with them.

S = Sourget et al. 2025: Table 1 (zero-shot), Table 2 (probes), the drain range of section 3.3.
X = Sun et al. 2025: the numbers printed in its text; its figures are bar charts without values.
Percentages are kept as fractions. Cohort sizes and numbers of the recipe are rows too (metrics
"n_images", "n_patients", "batch_size", ...). The +- behind S's means is a standard deviation over
the six findings, not an uncertainty: it is a row of its own, metric "auc_sd_over_labels" or
"adjusted_auprc_sd_over_labels", and the means have no interval.
"""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib import schema
from cxrlib.show.words import fmt, fmt_interval

REPRODUCED = "reproduced"
WITHIN = "within interval"
DIFFERS = "differs"
OTHER_COHORT = "not comparable (another cohort)"
NOT_RUN = "not run"
CONTRADICTED = "contradicted by the paper's own numbers"
VERDICTS = (DIFFERS, CONTRADICTED, REPRODUCED, WITHIN, OTHER_COHORT, NOT_RUN)

_WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
NEEDED, TITLES = _WORDS["needed"], _WORDS["titles"]

QUANTITY = ["method", "label", "attribute", "group", "metric"]
KEYS = ["cohort", "model", *QUANTITY]
PRINT = ["place", "rounding", "direction"]  # what a printed number has beyond the results table
COMPUTED = ["computed", "computed_low", "computed_high"]

ARMS = ("with drain", "without drain")
GAP = " - ".join(ARMS)
FIVE = ("MedCLIP", "Biovil", "Biovil-t", "MedImageInsight", "CheXzero")  # S but for CXR-CLIP
# Ends of ranges that the papers print: (which rows, the column they run over, its entries or how
# many there are, the names of the two ends).
RANGES = (
    (
        {"attribute": "drain", "group": GAP, "metric": "adjusted_auprc"},
        "model",
        FIVE,
        ("smallest of five", "largest of five"),
    ),
    ({"attribute": "all", "metric": "f1"}, "label", 6, ("lowest", "highest")),
    ({"attribute": "age_sex", "metric": "macro_f1"}, "group", 4, ("lowest", "highest")),
)


def printed() -> pd.DataFrame:
    """Every published number with what its print adds to the results table.

    Returns
    -------
    DataFrame: the columns of the results table, and

    place : where in the paper: table, caption or section
    rounding : half a unit of the last printed digit, in the unit of `value`
    direction : "not stated" for a difference printed without saying of what from what
    """
    everything = pd.read_csv(Path(__file__).with_name("published.csv"))
    table = schema.results(everything.drop(columns=PRINT))
    return table.assign(**everything[PRINT].fillna({"direction": ""}))


def load() -> pd.DataFrame:
    """Every published number: a results table with protocol "as_published"."""
    return printed()[list(schema.COLUMNS)]


def table(name: str) -> pd.DataFrame:
    """The published numbers of one table or figure.

    name : paper and artefact, such as "S Table 1", "S Table 2", "X Fig. 3c"

    Raises
    ------
    ValueError : for an unknown name; lists the known ones.
    """
    everything = load()
    names = everything["paper"] + " " + everything["artefact"]
    if not (names == name).any():
        raise ValueError(f"name: unknown {name!r}; expected one of {', '.join(names.unique())}.")
    return everything[names == name].reset_index(drop=True)


def prepared(results: pd.DataFrame) -> pd.DataFrame:
    """A results table ready to be set beside print: one row per quantity, derived rows added.

    Undefined rows are left out. Of several protocols, "as_published" counts. Added are what the
    papers print and tables leave to the reader: the gap between the two drain arms where it is
    missing (it then has no interval), and the ends of the ranges in `RANGES`, each with the
    interval of the row that is the end.

    Returns
    -------
    DataFrame : the columns of the results table, and `slack`: how far a value can be off because
        it was derived from rows that had been rounded, otherwise 0.
    """
    results = results.assign(slack=0.0)
    later = results["protocol"].fillna("as_published").ne("as_published")
    both = pd.concat([results.assign(later=later), _drain_gaps(results)], ignore_index=True)
    once = both[both["value"].notna()].sort_values("later", kind="stable").drop_duplicates(KEYS)
    once = once.drop(columns="later")
    return pd.concat([once, *(_ends(once, *each) for each in RANGES)], ignore_index=True)


def _drain_gaps(results):
    """The difference of the two drain arms, as rows behind all others (`later` = 2)."""
    same = ["paper", "artefact", "protocol", *(key for key in KEYS if key != "group")]
    at = results["attribute"].eq("drain")
    drained, undrained = (results[at & results["group"].eq(arm)] for arm in ARMS)
    both = drained.merge(undrained[[*same, "value"]], on=same, suffixes=("", "_without"))
    rounded = both.groupby(["cohort", "metric"], dropna=False)
    off = sum(rounded[c].transform(_half_unit) for c in ("value", "value_without"))
    gaps = both.assign(
        group=GAP, value=both["value"] - both["value_without"], ci_low=np.nan, ci_high=np.nan
    )
    gaps = gaps.assign(slack=off, later=2, note="difference of the two arms")
    return gaps.drop(columns="value_without")


def _half_unit(values):
    """Half a unit of the last digit where all values end at two or three decimals, otherwise 0."""
    for digits in (2, 3):
        if np.allclose(values, np.round(values, digits), rtol=0, atol=1e-9, equal_nan=True):
            return 0.5 * 10.0**-digits
    return 0.0


def _ends(table, which, over, members, names):
    """The smallest and the largest value over a column, under the names of `names`."""
    rows = table
    for column, entry in which.items():
        rows = rows[rows[column] == entry]
    count = members
    if not isinstance(members, int):
        rows, count = rows[rows[over].isin(members)], len(members)
    ends = []
    others = [key for key in KEYS if key != over]
    for _, block in rows.groupby(others, dropna=False, sort=False):
        if len(block) == count:
            low, high = block["value"].idxmin(), block["value"].idxmax()
            ends.append(block.loc[[low, high]].assign(**{over: names}))
    return pd.concat(ends) if ends else rows.iloc[:0]


def compare(results: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Set computed numbers beside published ones and say how they agree.

    A computed number is compared with a published one if cohort, model and quantity (method,
    label, attribute, group, metric) are the same; see `prepared` for what is made ready before.
    A difference printed without its direction agrees with either sign.

    Parameters
    ----------
    results : results table
    published : rows of `load()` or `printed()`; or a results table with a column `rounding`

    Returns
    -------
    DataFrame: the published rows with `computed`, `computed_low`, `computed_high`, `verdict` and
    `reason`, which says in words what the verdict rests on:

    contradicted by the paper's own numbers : the printed interval excludes the printed estimate;
        a computed number that is far from this estimate too differs
    reproduced : the numbers agree up to rounding in print
    within interval : the computed interval holds the published number
    differs : it does not
    not comparable (another cohort) : the quantity was computed, but on another cohort
    not run : the quantity was not computed, or is undefined; `reason` says what is missing

    Raises
    ------
    ValueError
        For a published row of unknown rounding.
    """
    published = _with_print(published)
    computed = prepared(results).rename(
        columns={"value": "computed", "ci_low": "computed_low", "ci_high": "computed_high"}
    )
    merged = published.merge(computed[[*KEYS, *COMPUTED, "slack"]], on=KEYS, how="left")
    beside = _oriented(merged)
    elsewhere = _elsewhere(merged, computed)

    # S averages cells that it has rounded before; the spread of six moves by sqrt(6/5) at most.
    averaged = np.where(merged["label"] == "mean", 1 + np.sqrt(6 / 5), 1)
    tolerance = averaged * merged["rounding"] + merged["slack"] + 1e-9
    merged["verdict"] = np.select(
        [
            (beside["computed"] - merged["value"]).abs() <= tolerance,
            merged["value"].between(beside["computed_low"], beside["computed_high"]),
            merged["computed"].notna(),
            [text != "" for text in elsewhere],
        ],
        [REPRODUCED, WITHIN, DIFFERS, OTHER_COHORT],
        NOT_RUN,
    )
    excluded = _excluded(merged) & (merged["verdict"] != DIFFERS)
    merged["verdict"] = merged["verdict"].mask(excluded, CONTRADICTED)
    merged["reason"] = [
        _reason(row, text) for (_, row), text in zip(merged.iterrows(), elsewhere, strict=True)
    ]
    return merged.drop(columns="slack")


def _excluded(printed):
    """Rows whose printed interval excludes the printed estimate."""
    return (printed["value"] < printed["ci_low"]) | (printed["value"] > printed["ci_high"])


def _with_print(published):
    """The published rows with `PRINT`, looked up where they come without it."""
    if "rounding" in published:
        return published.assign(**{c: "" for c in PRINT if c not in published})
    keys = ["paper", "artefact", *KEYS]
    merged = published.merge(printed()[[*keys, *PRINT]], on=keys, how="left")
    unknown = merged["rounding"].isna()
    if unknown.any():
        row = merged.loc[unknown, keys].iloc[0].dropna().to_dict()
        raise ValueError(
            f"published: {int(unknown.sum())} rows are not in published.load(), so that their "
            f"rounding is unknown; the first is {row}. Add a column 'rounding'."
        )
    return merged


def _oriented(merged):
    """The computed numbers, turned round where print leaves the direction of a gap open."""
    beside = merged[COMPUTED].copy()
    turn = merged["direction"].eq("not stated") & (merged["computed"] * merged["value"] < 0)
    opposite = -merged[["computed", "computed_high", "computed_low"]]
    beside[turn] = opposite[turn].to_numpy()
    return beside


def _elsewhere(merged, computed):
    """For each published row, where else its quantity was computed; "" if nowhere.

    Counts have no method and are left out: the size of another cohort is another quantity.
    """
    found = {key: rows for key, rows in computed.groupby(QUANTITY, sort=False)}
    texts = []
    for _, row in merged.iterrows():
        rows = found.get(tuple(row[QUANTITY]), computed.iloc[:0])
        texts.append(
            "; ".join(
                f"computed on {cohort}: {_span(block['computed'], row['rounding'])}"
                for cohort, block in rows[rows["cohort"] != row["cohort"]].groupby("cohort")
            )
        )
    return texts


def _reason(row, elsewhere):
    value = number(row["value"], row["rounding"])
    computed = interval(*row[COMPUTED], row["rounding"])
    if row["verdict"] == NOT_RUN:
        return f"needs {needed(row.to_frame().T)}"
    if row["verdict"] == OTHER_COHORT:
        return elsewhere
    derived = ", from rows that were rounded before" if row["slack"] > 0 else ""
    beside = f"computed {computed}{derived}, printed {value}"
    if not _excluded(row):
        return beside
    limits = " to ".join(number(row[c], row["rounding"]) for c in ("ci_low", "ci_high"))
    flaw = f"the printed interval, {limits}, excludes the printed estimate, {value}"
    return f"{beside}; {flaw}" if np.isfinite(row["computed"]) else flaw


def needed(rows: pd.DataFrame) -> str:
    """What has to be there to run these published numbers, in words."""
    settings = rows["metric"].isin(_WORDS["settings"])
    parts = [NEEDED.get(cohort, cohort) for cohort in rows.loc[~settings, "cohort"].unique()]
    of_models = rows["method"].notna()
    models = []
    for model in rows.loc[of_models, "model"].unique():
        models += FIVE if model in ("smallest of five", "largest of five") else (model,)
    if models:
        parts.append(f"the weights of {', '.join(models)}")
    if settings.any():
        parts.append("nothing for what the paper set itself: that is taken over, not computed")
    return "; ".join(parts)


def number(value: float, rounding: float) -> str:
    """A number with as many digits as its print: ``number(0.8, 0.005)`` -> "0.80"."""
    return fmt(value, _decimals(rounding))


def interval(value: float, low: float, high: float, rounding: float) -> str:
    """An estimate with its interval, where it has one, with as many digits as in print."""
    return fmt_interval(value, low, high, _decimals(rounding), bare=True)


def _decimals(rounding):
    return max(0, int(np.ceil(-np.log10(2 * rounding) - 1e-9)))


def _span(values, rounding):
    low, high = (number(v, rounding) for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
