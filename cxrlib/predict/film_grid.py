"""Some phantom patients, drawn in every combination of a few changes, with the scores of each film.

What :func:`cxrlib.show.film_explorer.film_explorer` lets a reader choose from.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from cxrlib.cohorts import phantom, render
from cxrlib.cohorts.cohort import Cohort
from cxrlib.predict import zeroshot

FADED = (1.0, 0.7, 0.4)  # how visible findings are, as a share of the film as recorded
DRAINED = "Pneumothorax"  # what a drain treats
MODERATE = 0.25  # severity, from 0.15 to 1, of the patients that are preferred
YOUNG, OLD = 25, 85  # years of the anatomy that a patient does not have


def film_grid(
    cohort: Cohort,
    models: Sequence,
    n_patients: int = 12,
    negative: str | Sequence[str] = zeroshot.NEGATIVE,
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Counterfactual twins of some patients, and zero-shot scores of those very films.

    Each patient is drawn in all 72 combinations of: drain or none, three degrees of fading, each
    scanner, both sexes, and the age recorded or one at the other end of adult life. Sex and age are
    those of the anatomy: findings, how visible these are at the recorded age, and report stay. What
    a dial of the cohort plants for one sex alone goes with the sex drawn.

    Parameters
    ----------
    cohort : Cohort
        A phantom; the size of its films is that of the films drawn and scored.
    models : sequence of loaded models or names
    n_patients : int
        At most so many, each with another combination of one finding, or none, and drain.
    negative : str or sequence of str
        The negative prompt, see :func:`cxrlib.predict.zeroshot.predict`.

    Returns
    -------
    films : uint8 array (n, size, size)
    states : DataFrame
        One row per film, patient by patient: ``image_id`` (unique), ``patient`` (in words),
        ``drain, contrast, site, sex, age, report``, and ``recorded``: whether it is the film as
        recorded.
    predictions : DataFrame
        Of each film by each model for each finding, that which drains treat first.

    Raises
    ------
    ValueError
        The cohort is no phantom, or has no film with at most one finding.
    """
    if not cohort.planted:
        raise ValueError(f"cohort {cohort.name!r}: only phantoms have twins; load a phantom")
    people = _various(cohort, n_patients)
    # Four anatomies each; the age group, by which a dial may fade findings, stays as recorded.
    drawn_as = people.loc[people.index.repeat(4)].reset_index(drop=True)
    place = np.arange(len(drawn_as)) % 4
    other_sex = drawn_as["sex"].map({"F": "M", "M": "F"})
    other_age = np.where(drawn_as["age"] < (YOUNG + OLD) / 2, OLD, YOUNG)
    drawn_as["sex"] = drawn_as["sex"].mask(place % 2 == 1, other_sex)
    drawn_as["age"] = drawn_as["age"].mask(place > 1, other_age)
    seed, size, planted = (cohort.recipe[key] for key in ("seed", "size", "dials"))
    faded_before = planted["contrast"].get("site", {})
    parts, tables = [], []
    for drain, faded, site in product((0, 1), FADED, phantom.SITES):
        by_site = {s: faded * faded_before.get(s, 1.0) for s in phantom.SITES}
        dials = phantom.Dials(**planted | {"contrast": planted["contrast"] | {"site": by_site}})
        table = drawn_as.assign(drain=drain, contrast=faded, site=site)
        parts.append(render.render(phantom.scene(table, seed, dials), size))
        tables.append(table)
    by_patient = (
        np.arange(len(parts) * len(place)).reshape(len(parts), -1, 4).swapaxes(0, 1).ravel()
    )
    films = np.concatenate(parts)[by_patient]
    table = pd.concat(tables).iloc[by_patient].reset_index(drop=True)
    was = people.loc[people.index.repeat(4 * len(parts))].reset_index(drop=True)
    kept = ["drain", "site", "sex", "age"]
    table["recorded"] = (table[kept] == was[kept]).all(axis=1) & (table["contrast"] == 1)
    table["patient"] = was["patient"]
    table["image_id"] += [f" {i}" for i in range(len(table))]  # one per film

    grid = replace(cohort, table=table, images=lambda positions: films[positions])
    labels = sorted(cohort.findings, key=lambda finding: finding != DRAINED)
    predictions = zeroshot.predict(grid, models, labels, negative=negative, cache=False)
    columns = ["image_id", "patient", "drain", "contrast", "site", "sex", "age", "report"]
    return films, table[[*columns, "recorded"]], predictions


def _various(cohort, n):
    """Rows of patients who differ in their one finding and drain, with a column `patient`."""
    findings = list(cohort.findings)
    table = cohort.table[cohort.table[findings].sum(axis=1) <= 1]
    if table.empty:
        raise ValueError(f"cohort {cohort.name!r}: no film has at most one finding; load more")
    severity = table[[f"severity_{finding}" for finding in findings]].sum(axis=1)
    # Neither so plain nor so subtle that no change could move a score.
    table = table.iloc[(severity - MODERATE).abs().argsort(kind="stable")]
    table = table.groupby([*findings, "drain"]).head(1).drop_duplicates("patient_id")
    of_interest = 2 * table[DRAINED] + (table[findings].sum(axis=1) == 0)
    table = table.iloc[(-of_interest).argsort(kind="stable")].head(n)
    sex = table["sex"].map({"F": "woman", "M": "man"})
    has = np.where(table[findings].any(axis=1), table[findings].idxmax(axis=1), "no finding")
    drain = table["drain"].map({0: "", 1: ", drain"})
    number = pd.Series(range(1, len(table) + 1), table.index).astype(str)
    return table.assign(
        patient=number + ": " + sex + ", " + table["age"].astype(str) + ", " + has + drain
    )
