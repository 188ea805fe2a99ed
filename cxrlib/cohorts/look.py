"""What films look like: a few of real ones beside phantoms, and how alike they are."""

from __future__ import annotations

from itertools import product

import numpy as np
from PIL import Image

from cxrlib.cohorts.cohort import Cohort
from cxrlib.cohorts.table import SEXES

SIDE = 64  # pixels to which films are reduced before they are compared


def of_the_same_kind(cohort: Cohort, other: Cohort) -> tuple[list[int], list[int], list[str]]:
    """A film of each sex and view in both cohorts, without a finding where there is such a one.

    Returns
    -------
    (list of int, list of int, list of str)
        Positions in either table, and what they are, such as "woman PA". Kinds that one of the
        cohorts lacks are left out.
    """
    found = []
    for sex, view in product(SEXES, ("PA", "AP")):
        at = [_first(c, sex, view) for c in (cohort, other)]
        if None not in at:
            found.append((*at, f"{'woman' if sex == 'F' else 'man'} {view}"))
    first, second, kinds = zip(*(found or [(0, 0, "the first films")]), strict=True)
    return list(first), list(second), list(kinds)


def _first(cohort, sex, view):
    table = cohort.table
    kind = (table["sex"] == sex) & (table["view"] == view)
    healthy = kind & (table[list(cohort.findings)].sum(axis=1) == 0)
    of = healthy if healthy.any() else kind
    return int(np.argmax(of)) if of.any() else None


def alike(cohort: Cohort, n: int = 60) -> float:
    """How alike films of different patients are: median correlation of their pixels.

    Parameters
    ----------
    cohort : Cohort
    n : int
        Films that are compared, the first of as many patients, each reduced to 64 by 64 pixels.

    Returns
    -------
    float
        In [-1, 1]; missing for fewer than two patients.
    """
    first = np.flatnonzero(~cohort.table["patient_id"].duplicated())[:n]
    if len(first) < 2:
        return float("nan")
    size = (SIDE, SIDE)
    small = [
        np.asarray(Image.fromarray(np.asarray(film)).resize(size, Image.Resampling.BILINEAR))
        for film in cohort.images(first)
    ]
    pixels = np.stack(small).reshape(len(small), -1).astype(float)
    upper = np.triu_indices(len(small), 1)
    return float(np.median(np.corrcoef(pixels)[upper]))
