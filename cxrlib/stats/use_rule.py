"""Is what embeddings encode of a patient used for the answer? A rule, and ways to estimate use.

All of them speak of one finding and one thing that should not matter to it: a drain, sex, age, a
site. Use is how far the finding's margin moves with that thing, in standard deviations (SD) of the
margin. Twins know it, and nobody has them of real films; the other estimators make do without.
Intervals are those of :mod:`cxrlib.stats.influence`: patients are the unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.stats.influence import Estimate, auc, average, spread

# Written down before any result was looked at.
ENCODED = 0.6  # AUC of a linear probe, above which an attribute counts as encoded
USED = 0.25  # SD of the margin, beyond which on either side it counts as used
LOST = 0.02  # of AUC, beyond which erasing it counts as a loss

QUADRANTS = {
    ("yes", "yes"): "encoded and used",
    ("yes", "no"): "encoded, not used",
    ("no", "yes"): "used, not encoded",
    ("no", "no"): "neither",
}


def says(low: float, high: float, bar: float) -> str:
    """ "yes" where an interval lies beyond a bar on one side of 0, "no" where it lies within.

    "undecided" where it does neither, "undefined" where there is none.
    """
    if not np.isfinite([low, high]).all():
        return "undefined"
    if low > bar or high < -bar:
        return "yes"
    return "no" if -bar < low and high < bar else "undecided"


def quadrant(encoded: str, used: str) -> str:
    """What two answers of :func:`says` say together; "undecided" unless both are yes or no."""
    return QUADRANTS.get((encoded, used), "undecided")


def matched(
    margin: ArrayLike,
    has: ArrayLike,
    strata: Sequence[ArrayLike] = (),
    unit: Estimate | None = None,
) -> Estimate:
    """Mean difference of margins, with minus without, among films alike in all that is matched on.

    Each film that has the thing is set against the mean of those without it in its stratum, so the
    answer is about films like those that have it; strata with one side only are left out, and
    their films have influence 0. Without strata it is the plain difference.

    Parameters
    ----------
    margin : (n,)
    has : (n,) bool
    strata : sequence of (n,)
        What films are matched on, exactly.
    unit : Estimate, optional
        What to divide by: by default the SD of the margin over all matched films without the thing.

    Returns
    -------
    Estimate
        In SD.

    Raises
    ------
    ValueError
        No film with the thing has a counterpart without it.
    """
    margin, has = np.asarray(margin, float), np.asarray(has, bool)
    _, stratum = np.unique(
        np.array([np.asarray(s).astype(str) for s in [np.zeros(len(has)), *strata]]).T,
        axis=0,
        return_inverse=True,
    )
    n_with, n_without = (np.bincount(stratum, side, stratum.max() + 1) for side in (has, ~has))
    both = ((n_with > 0) & (n_without > 0))[stratum]
    if not (both & has).any():
        raise ValueError("no film has a counterpart that is alike in all that is matched on")
    # Films without the thing weigh as much as those with it in their stratum.
    weight = np.where(has, 1.0, (n_with / np.maximum(n_without, 1))[stratum]) * both
    weight /= (weight * has).sum()
    beside = np.bincount(stratum, margin * ~has) / np.maximum(n_without, 1)
    centred = margin - beside[stratum]
    value = (weight * has * centred).sum()
    influence = weight * np.where(has, centred - value, -centred)
    return Estimate(float(value), influence) / (unit or spread(margin, both & ~has))


def removed(
    before: ArrayLike, after: ArrayLike, at_random: Sequence[ArrayLike], has: ArrayLike
) -> Estimate:
    """How much of the groups' difference in margins goes with an erasure, beyond random ones.

    Of a linear margin and LEACE, on the films that it was fitted on, this is the plain difference
    of :func:`matched` without strata: LEACE makes the group means equal.

    Parameters
    ----------
    before, after : (n,) margins
        As they are, and with the attribute erased.
    at_random : sequence of (n,) margins
        After erasures of the same rank that know nothing of the attribute.
    has : (n,) bool

    Returns
    -------
    Estimate
        In SD of the margins before, over the films without the thing.
    """
    before, has = np.asarray(before, float), np.asarray(has, bool)
    unit = spread(before, ~has)
    gone = [matched(before - np.asarray(m), has, unit=unit) for m in (after, *at_random)]
    return gone[0] - average(gone[1:])


def lost(y_true: ArrayLike, after: ArrayLike, at_random: Sequence[ArrayLike]) -> Estimate:
    """AUC that erasing an attribute costs, beyond what random erasures cost (Elazar et al. 2021).

    y_true (n,) of 0/1; margins as in :func:`removed`.
    """
    return average([auc(y_true, m) for m in at_random]) - auc(y_true, after)


def decoded(
    vectors: np.ndarray, has: ArrayLike, patient_id: ArrayLike, seed: int = 1907
) -> Estimate:
    """AUC of a linear probe for a group, each film scored by a probe of other patients.

    Five folds of patients; a penalised logistic regression as in :mod:`cxrlib.stats.probes`, with
    a fixed penalty. All films are test films, so that intervals are narrower than those of one
    split; they do not hold what another draw of training films would change.

    Parameters
    ----------
    vectors : (n, d)
    has : (n,) bool
    patient_id : (n,)
    seed : int
        Deals the patients into folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    has, areas = np.asarray(has, bool), []
    names, person = np.unique(patient_id, return_inverse=True)
    ever = np.bincount(person, has) > 0
    for _, dealt in StratifiedKFold(5, shuffle=True, random_state=seed).split(names, ever):
        fold = np.isin(person, dealt)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
        score = probe.fit(vectors[~fold], has[~fold]).decision_function(vectors)
        # fold by fold: pooled, scores of a probe without knowledge would lie below chance
        areas.append(auc(has, score, fold))
    return average(areas)
