"""The one shape of a cohort's table, declared and checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from cxrlib.cohorts.files import DataError, in_lines
from cxrlib.cohorts.metadata import AGE_GROUPS, VIEWS

SEXES = ("F", "M")
RACES = ("White", "Black", "Asian", "other", "unknown")
SPLITS = ("train", "valid", "test")

_NUMBER = pa.Column(float, pa.Check.between(0, 120), nullable=True, coerce=True)
_TEXT = pa.Column(nullable=True, required=False)


def _one_of(groups, required=True):
    rule = f"one of {', '.join(map(str, groups))}"
    return pa.Column(checks=pa.Check.isin(groups, error=rule), nullable=True, required=required)


def schema(findings: Iterable[str]) -> pa.DataFrameSchema:
    """What a cohort's table has to be: see :class:`cxrlib.cohorts.cohort.Cohort`.

    ``image_id`` is text and unique, ``patient_id`` a number or text and never missing. Sex, age,
    age group, view and race may be missing for single images; findings may not.
    """
    return pa.DataFrameSchema(
        {
            "image_id": pa.Column(str, unique=True),
            "patient_id": pa.Column(nullable=False),
            "sex": _one_of(SEXES),
            "age": _NUMBER,
            "age_group": _one_of(AGE_GROUPS),
            "view": _one_of(VIEWS),
            "race": _one_of(RACES, required=False),
            "split": _one_of(SPLITS, required=False),
            "report": _TEXT,
            "drain": _one_of((0, 1), required=False),
            **{f: pa.Column(checks=pa.Check.isin((0, 1)), nullable=False) for f in findings},
        },
        strict=False,
    )


def validated(
    table: pd.DataFrame, findings: Iterable[str], name: str, path: Path | None = None
) -> pd.DataFrame:
    """The table itself, on a fresh index, if it has the declared shape.

    Parameters
    ----------
    table : DataFrame
    findings : iterable of str
    name : str
        Of the cohort.
    path : Path, optional
        The file from which the table was read, with its index, to be named with its lines.

    Raises
    ------
    DataError
        Names the column, which rows are wrong, and the rule; never an entry, since tables of
        credentialed cohorts come this way.
    """
    if not len(table):
        raise DataError(f"cohort {name}: no image is left; look at the steps of its flow")
    try:
        return schema(findings).validate(table.reset_index(drop=True), lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        first = cases.iloc[0]
        wrong = cases.loc[cases["column"] == first["column"], "index"].dropna().unique().astype(int)
        which = pd.Series(np.isin(np.arange(len(table)), wrong), table.index)
        where = f" of {path}, {in_lines(which)}" if path and len(wrong) else ""
        raise DataError(
            f"cohort {name}: column {first['column'] or first['failure_case']!r} breaks the rule "
            f"'{first['check']}' in {which.sum()} of {len(table)} rows{where}"
        ) from None


def drawn_by_patients(rows: pd.DataFrame, n_images: int, seed: int) -> pd.DataFrame:
    """``n_images`` of the rows: patients in random order, all images of each but of the last.

    Rows stay in their order. Which are drawn depends on the patients and the seed alone.

    Raises
    ------
    ValueError
        More images than there are, or none.
    """
    if not 1 <= n_images <= len(rows):
        raise ValueError(f"n_images={n_images}: expected 1 to {len(rows)}, as many as there are")
    patient = pd.factorize(rows["patient_id"], sort=True)[0]
    place = np.random.default_rng(seed).permutation(patient.max() + 1)[patient]
    return rows.iloc[np.sort(np.argsort(place, kind="stable")[:n_images])]
