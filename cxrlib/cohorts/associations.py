"""Which findings come with which devices in real cohorts, with intervals over patients.

A shortcut can only be learnt where a finding and a device go together. These tables measure how
strongly they do in open metadata, and give the planted drain of the phantom cohort its scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtri

from cxrlib.cohorts import metadata

Z = ndtri(0.975)  # of intervals at 95 %

FRONTAL_VIEWS = ("PA", "AP", "AP_horizontal")
"""PadChest projections of a frontal film, patient standing or lying."""


def proportion(outcome: ArrayLike, patient_id: ArrayLike) -> dict[str, float]:
    """Share of images with an outcome, with a 95 % Wilson interval widened for repeated patients.

    Images of one patient resemble each other, so n images tell less than n patients. The
    variance of the share is estimated from patient totals (linearisation of a ratio); the design
    effect is that variance over the binomial one, and Wilson's formula is used with n divided by
    it. A design effect below 1 is taken as 1, also where it cannot be estimated because all
    outcomes agree.

    Parameters
    ----------
    outcome : array-like of 0/1, shape (n,)
    patient_id : array-like, shape (n,)

    Returns
    -------
    dict
        ``value``, ``ci_low``, ``ci_high`` in [0, 1] (NaN without images), ``n``, ``n_positive``
        (images), ``n_patients`` and ``design_effect``.

    References
    ----------
    Wilson, JASA 22, 1927; Kish, Survey Sampling, 1965 (design effect).
    """
    from statsmodels.stats.proportion import proportion_confint  # takes a second to import

    outcome = np.asarray(outcome, dtype=float)
    patient, patients = pd.factorize(np.asarray(patient_id))
    n, n_patients = len(outcome), len(patients)
    counts = {"n": n, "n_positive": int(outcome.sum()), "n_patients": n_patients}
    if n == 0:
        return dict.fromkeys(("value", "ci_low", "ci_high", "design_effect"), np.nan) | counts
    p = outcome.mean()
    binomial = p * (1 - p) / n
    clustered = _cluster_variance((outcome - p) / n, patient)
    design_effect = max(1.0, clustered / binomial) if binomial > 0 and n_patients > 1 else 1.0
    effective = n / design_effect
    low, high = proportion_confint(p * effective, effective, method="wilson")
    limits = {"value": p, "ci_low": max(0.0, low), "ci_high": min(1.0, high)}
    return limits | counts | {"design_effect": design_effect}


def mean(values: ArrayLike, patient_id: ArrayLike) -> dict[str, float]:
    """Mean over images, with a normal 95 % interval over patients (linearisation of a ratio).

    Parameters
    ----------
    values : array-like of numbers, shape (n,)
    patient_id : array-like, shape (n,)

    Returns
    -------
    dict
        ``value``, ``ci_low``, ``ci_high`` in the unit of ``values`` (all NaN without images, the
        limits also with one patient), ``n`` (images) and ``n_patients``.
    """
    values = np.asarray(values, dtype=float)
    patient, patients = pd.factorize(np.asarray(patient_id))
    value = values.mean() if len(values) else np.nan
    half = Z * np.sqrt(_cluster_variance((values - value) / max(len(values), 1), patient))
    return _within(value, half) | {"n": len(values), "n_patients": len(patients)}


def _within(value, half):
    return {"value": value, "ci_low": value - half, "ci_high": value + half}


def _cluster_variance(influence, patient):
    """Variance of a statistic from each image's influence on it, summed by patient."""
    totals = np.bincount(patient, weights=influence)
    n_patients = len(totals)
    if n_patients < 2:
        return np.nan
    return n_patients / (n_patients - 1) * np.sum(totals**2)


def association(table: pd.DataFrame, outcome: str, given: str) -> pd.DataFrame:
    """P(outcome | finding), P(outcome | no finding) and their difference, with 95 % intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        ``patient_id`` and two 0/1 columns.
    outcome, given : str
        Columns, for example ``"drain"`` and ``"pneumothorax"``.

    Returns
    -------
    pandas.DataFrame, 3 rows
        ``outcome``, ``given``, ``group`` ("with", "without", "with - without"), ``value``,
        ``ci_low``, ``ci_high``, ``n``, ``n_positive`` (images with the outcome), ``n_patients``
        and ``design_effect`` (missing for the difference). The interval of the difference is a
        normal one over patients; a patient with images in both groups is counted as one patient.

    Raises
    ------
    ValueError
        A column is missing or holds anything but 0 and 1.
    """
    _need(table, "patient_id", outcome, given)
    for column in (outcome, given):
        if not table[column].isin([0, 1]).all():
            raise ValueError(f"column {column!r} must hold only 0 and 1; code other values first")
    with_finding = table[given].to_numpy() == 1
    y = table[outcome].to_numpy(dtype=float)
    rows = {"with": with_finding, "without": ~with_finding}
    arms = {arm: proportion(y[of], table["patient_id"][of]) for arm, of in rows.items()}
    p1, p0 = arms["with"]["value"], arms["without"]["value"]
    n1, n0 = max(arms["with"]["n"], 1), max(arms["without"]["n"], 1)
    influence = np.where(with_finding, (y - p1) / n1, -(y - p0) / n0)
    patient, patients = pd.factorize(table["patient_id"].to_numpy())
    half = Z * np.sqrt(_cluster_variance(influence, patient))
    counts = {"n": len(y), "n_positive": int(y.sum()), "n_patients": len(patients)}
    arms["with - without"] = _within(p1 - p0, half) | counts | {"design_effect": np.nan}
    rows = [{"outcome": outcome, "given": given, "group": g, **row} for g, row in arms.items()]
    return pd.DataFrame(rows)


def _need(table, *columns):
    for column in columns:
        if column not in table:
            raise ValueError(f"column {column!r} is missing; the table has {list(table.columns)}")


def by_group(table: pd.DataFrame, outcome: str, given: str, attribute: str) -> pd.DataFrame:
    """:func:`association` within each group of patients: is the bond the same in all of them?

    Parameters
    ----------
    table : pandas.DataFrame
        ``patient_id``, the attribute, and two 0/1 columns.
    outcome, given : str
        Columns, as in :func:`association`.
    attribute : str
        Column with the groups, such as ``"sex"`` or ``"age_group"``. Rows where it is missing are
        left out.

    Returns
    -------
    pandas.DataFrame, 3 rows per group
        ``attribute``, ``group``, then as :func:`association`, whose "with", "without" and
        "with - without" stand in the column ``arm``. A share is undefined (NaN) in a group where
        its arm has no image; ``n`` says so.

    Raises
    ------
    ValueError
        A column is missing or holds anything but 0 and 1.
    """
    _need(table, attribute)
    parts = []
    for group, images in table.groupby(attribute):
        rows = association(images, outcome, given).rename(columns={"group": "arm"})
        rows.insert(0, "attribute", attribute)
        rows.insert(1, "group", group)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def padchest_drains(
    frontal_only: bool = False, read_by_hand_only: bool = False, by: str | None = None
) -> pd.DataFrame:
    """How often a chest drain is present with and without a pneumothorax in PadChest.

    Parameters
    ----------
    frontal_only : bool
        Leave out lateral and rib projections.
    read_by_hand_only : bool
        Keep only reports labelled by physicians; most labels are predicted from the report.
    by : str, optional
        ``"sex"`` or ``"age_group"``: the same in each group.

    Returns
    -------
    pandas.DataFrame, 3 rows, or 3 a group
        As :func:`association`, or :func:`by_group`: outcome "drain", given "pneumothorax".
    """
    table = metadata.padchest()
    if frontal_only:
        table = table[table["view"].isin(FRONTAL_VIEWS)]
    if read_by_hand_only:
        table = table[table["label_source"] == "Physician"]
    return _associations(table, "drain", ["pneumothorax"], by)


def chexpert_devices(
    frontal_only: bool = True, findings: Iterable[str] | None = None, by: str | None = None
) -> pd.DataFrame:
    """How often support devices are reported with and without each CheXpert finding.

    Only a report that states a finding or a device counts as having it: uncertain, absent and
    not mentioned are all 0, as Sourget et al. 2025 treat missing labels.

    Parameters
    ----------
    frontal_only : bool
        Leave out lateral films.
    findings : sequence of str, optional
        All by default.
    by : str, optional
        ``"sex"`` or ``"age_group"``: the same in each group.

    Returns
    -------
    pandas.DataFrame, 3 rows per finding, or a finding and group
        As :func:`association`, or :func:`by_group`: outcome "Support Devices", given the finding.
    """
    table = metadata.chexpert()
    if frontal_only:
        table = table[table["view"] != "lateral"]
    labels = list(table.columns[table.columns.get_loc("No Finding") :])
    table[labels] = (table[labels] == 1).astype(np.int8)
    findings = findings or [name for name in labels if name != "Support Devices"]
    return _associations(table, "Support Devices", findings, by)


def _associations(table, outcome, findings, by):
    found = association if by is None else partial(by_group, attribute=by)
    return pd.concat([found(table, outcome, each) for each in findings], ignore_index=True)


def prevalence(table: pd.DataFrame, findings: Sequence[str], attribute: str) -> pd.DataFrame:
    """How common each finding is in each group of an attribute.

    Parameters
    ----------
    table : pandas.DataFrame
        ``patient_id``, the attribute and one 0/1 column per finding.
    findings : sequence of str
    attribute : str
        Column with the groups, for example ``"view"``. Rows where it is missing are left out.

    Returns
    -------
    pandas.DataFrame, one row per finding x group
        ``label``, ``attribute``, ``group``, and the entries of :func:`proportion`. Groups in
        sorted order within a finding.

    Raises
    ------
    ValueError
        A column is missing.
    """
    _need(table, "patient_id", attribute, *findings)
    rows = []
    for finding in findings:
        for group, images in table.groupby(attribute):
            row = {"label": finding, "attribute": attribute, "group": group}
            rows.append(row | proportion(images[finding], images["patient_id"]))
    return pd.DataFrame(rows)
