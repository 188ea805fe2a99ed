"""Claims of the papers as rules over a results table: what a rule can ask, and how it is decided.

A rule asks a `Numbers` for values. Asked for a row that is not there, it raises `Missing`, and the
claim stays open: a single counterexample refutes "every model", but only all models confirm it.
The claims themselves are in ``claims.toml``, their rules in `cxrlib.papers.claims_s` and
`cxrlib.papers.claims_x`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

TEXTS = tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf-8"))
ENTRIES = ("model", "method", "label", "attribute", "group", "metric", "value")


class Missing(LookupError):
    """A claim needs a row that the table does not have."""


class Outcome(NamedTuple):
    """What a rule found: whether the claim holds (None: nobody can tell), why, from which rows."""

    holds: bool | None
    text: str
    rows: pd.DataFrame


class Numbers:
    """The defined rows of one cohort, by what they are about; remembers which were asked for.

    table : table of `published.prepared`, of one cohort
    models : the models that a claim about "every model" speaks of; by default those in the table
    """

    def __init__(self, table, models=None):
        self.table, self._models = table, models
        self._columns = {c: table[c].to_numpy(object) for c in ENTRIES}
        self._used = np.zeros(len(table), bool)

    def __call__(self, metric: str, **where: str) -> float:
        """One value; label, attribute and group are "all" unless said otherwise."""
        where = {"label": "all", "attribute": "all", "group": "all", **where}
        return self._columns["value"][self._at(metric=metric, **where)][0]

    def rows(self, **where: str) -> pd.DataFrame:
        """The rows with these entries, a part of `table`."""
        return self.table[self._at(**where)]

    def models(self, **where: str) -> list[str]:
        """Those of the claim, or those with such rows."""
        return list(self._models or self.rows(**where)["model"].dropna().unique())

    @property
    def used(self) -> pd.DataFrame:
        """The rows that were asked for."""
        return self.table[self._used]

    def _at(self, **where):
        at = np.ones(len(self.table), bool)
        for column, entry in where.items():
            at &= self._columns[column] == entry
        if not at.any():
            wanted = ", ".join(f"{c} {v}" for c, v in where.items() if v != "all")
            raise Missing(f"no result with {wanted}")
        self._used |= at
        return at


def every(cases: Iterable, margin: Callable[..., float], but: int = 0) -> Decided:
    """Whether `margin(*case)` is above 0 in every case, or in all but a few.

    Returns (holds, text). Enough counterexamples decide it, whatever is missing; otherwise the
    first missing row is raised.
    """
    cases = [case if isinstance(case, tuple) else (case,) for case in cases]
    margins, missing = {}, []
    for case in cases:
        try:
            margins[" ".join(case)] = margin(*case)
        except Missing as error:
            missing.append(error)
    against = {case: value for case, value in margins.items() if not value > 0}
    if len(against) <= but and missing:
        raise missing[0]
    if not against:
        return True, f"all of {len(cases)} cases"
    listed = ", ".join(f"{case} by {short(-value)}" for case, value in against.items())
    text = f"{len(against)} of {len(cases)} cases against it: {listed}"
    return len(against) <= but, f"{text}; {len(missing)} without a number" if missing else text


def short(value: float) -> str:
    """A number for a sentence: three digits, or all that a large one has."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{round(value, 9):.3g}"


def with_interval(row: pd.Series) -> pd.Series:
    """The row itself; `Missing` where it has no interval."""
    if pd.isna(row["ci_low"]):
        raise Missing(f"no interval for model {row['model']}, metric {row['metric']}")
    return row


def away_from_zero(row: pd.Series) -> float:
    """How far the interval of a row lies from 0; negative where it holds 0."""
    return max(with_interval(row)["ci_low"], -row["ci_high"])


Decided = tuple[bool, str]  # whether a claim holds, and why
Rule = Callable[[Numbers], Decided]


class Claim(NamedTuple):
    """A testable sentence of a paper.

    id : short name
    paper, where : "S" or "X", and its sections
    statement : what is claimed, in own words
    cohort, models : on what the paper claims it
    rule : function of `Numbers` -> (holds, text)
    files : what result files say that the authors publish beside the paper, or ""
    """

    id: str
    paper: str
    where: str
    statement: str
    cohort: str
    models: tuple
    rule: Rule
    files: str = ""


def claims(
    paper: str, rules: Mapping[str, Rule], cohort: str, models: Sequence[str]
) -> tuple[Claim, ...]:
    """The claims of one paper in ``claims.toml``.

    rules : the rule of each claim, under its name
    cohort, models : of claims that do not name their own
    """
    return tuple(
        Claim(
            f"{paper.lower()}-{name}",
            paper,
            rule=rules[name.replace("-", "_")],
            **{"cohort": cohort, "models": tuple(models), **about},
        )
        for name, about in TEXTS[paper].items()
    )


def outcome(claim: Claim, table: pd.DataFrame, models: Sequence[str] | None = None) -> Outcome:
    """Apply the rule of a claim to the rows of one cohort.

    table : table of `published.prepared`, of one cohort

    Returns
    -------
    Outcome : with `holds` None where a row is missing, which `text` names
    """
    get = Numbers(table, models)
    try:
        holds, text = claim.rule(get)
    except Missing as error:
        return Outcome(None, str(error), get.used)
    return Outcome(bool(holds), text, get.used)
