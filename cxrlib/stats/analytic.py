"""Limits of the metrics of a table in one sort, without resampling: ``interval="analytic"``.

Every metric here has influences (`cxrlib.stats.influence`). Summed by patient they give the
standard error of the metric, of a gap between groups, of a difference between models and of a mean
over labels: sums and differences of estimates have the sums and differences of their influences,
patient by patient. Student's distribution gives the limits; those of a metric with a bound are
taken on a scale that has none (Boyd et al. 2013 for average precision).

In simulated studies (``benchmarks/coverage.csv``) they hold the truth from ten positive patients
on. They are too narrow with fewer, and where a handful of patients own most images.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit, ndtr, stdtr, stdtrit

from cxrlib.core import checks
from cxrlib.stats import influence
from cxrlib.stats.ranking import binary

RANKED = {
    "auc": influence.weighted_auc,
    "average_precision": influence.weighted_average_precision,
    "adjusted_auprc": influence.weighted_adjusted_auprc,
}
MEANS = {  # what is averaged, of (k,) bool truth and scores or decisions; among whom
    "brier": lambda y, p: ((p - y) ** 2, None),
    "calibration_in_the_large": lambda y, p: (p - y, None),
    "sensitivity": lambda y, p: (_decided(p), y),
    "specificity": lambda y, p: (~_decided(p), ~y),
    "false_negative_rate": lambda y, p: (~_decided(p), y),
    "false_positive_rate": lambda y, p: (_decided(p), ~y),
}
METRICS = (*RANKED, *MEANS)
PLAIN, LOGIT, BELOW_ONE = "plain", "logit", "below one"  # scales of the limits
SCALES = dict.fromkeys(METRICS, LOGIT) | {
    "adjusted_auprc": BELOW_ONE,
    "calibration_in_the_large": PLAIN,
}
NO_LIMITS = "no interval: no patient moves the value"
ROUNDING = 1e-12


def _decided(score):
    return checks.outcomes(score, "decision")


def intervals(
    y_true: ArrayLike,
    score: ArrayLike,
    patient_id: ArrayLike,
    metrics: Sequence[str] = tuple(RANKED),
    level: float = 0.95,
) -> dict[str, tuple[float, float, float]]:
    """Metrics of one sample with their limits, patients as the unit, in one sort.

    Parameters
    ----------
    y_true : (n,) of 0/1
    score : (n,) finite numbers; probabilities for calibration, 0/1 for decisions
    patient_id : (n,)
    metrics : names out of `METRICS`
    level : float in (0, 1)

    Returns
    -------
    dict of metric -> value, low, high. See `limits` for limits that are NaN.

    Raises
    ------
    ValueError
        For an unknown metric, labels other than 0 and 1 or of one class only, scores that are NaN,
        and a missing patient.
    """
    for metric in metrics:
        checks.one_of("metrics", metric, METRICS)
    checks.fractions(level=level)
    y, s = binary(y_true, score)
    checks.same_length(y_true=y, patient_id=patient_id)
    if y.all() or not y.any():
        raise ValueError(f"y_true: {y.sum()} positive of {len(y)} images; expected both classes.")
    code, names = pd.factorize(np.asarray(patient_id))
    who = {"patient_id": patient_id}
    checks.refuse(code < 0, "patient_id: missing", "a patient for every image", **who)
    found = by_patient(y, s, code, len(names), metrics)
    return {m: (v, *limits(v, moved, SCALES[m], level)) for m, (v, moved) in found.items()}


def by_patient(
    y: np.ndarray,
    score: np.ndarray,
    code: np.ndarray,
    n_patients: int,
    metrics: Sequence[str],
    weight: np.ndarray | None = None,
    stratum: np.ndarray | None = None,
) -> dict[str, tuple[float, np.ndarray]]:
    """Metrics of some images, and how far each patient moves them.

    Influences are widened by sqrt(k / (k - 1)), k patients with a positive image for those of
    positive images, and likewise for negative ones: the factors of Obuchowski (1997), with the
    geometric mean of both for what ill and healthy images of a patient share.

    Parameters
    ----------
    y : (k,) bool, both classes present
    score : (k,) finite numbers; 0 or 1 for decisions
    code : (k,) whole numbers below n_patients
    n_patients : of the cohort
    metrics : names out of `METRICS`
    weight : (k,) of the images, by default 1
    stratum : (k,) whole numbers; where given, the weights keep the weight of each stratum at what
        it is, and only what happens within strata varies

    Returns
    -------
    dict of metric -> value, (n_patients,). The sum of squares is the variance; NaN where it needs
    more than one patient.
    """
    weight = np.ones(len(y)) if weight is None else weight
    ranked = [m for m in metrics if m in RANKED]
    if ranked:  # sorted once: what follows runs along memory
        order = np.argsort(score, kind="stable")
        y, score, code, weight = (x[order] for x in (y, score, code, weight))
        stratum = stratum if stratum is None else stratum[order]
        rank = np.concatenate([[0], np.cumsum(np.diff(score) > 0)])
    ill, well = (_factor(code[of & (weight > 0)], n_patients) for of in (y, ~y))
    by_class = np.where(y, ill, well)
    out = {}
    for metric in metrics:
        if metric in RANKED:
            value, moves = RANKED[metric](y, rank, weight)
            factor = by_class
        else:
            values, among = MEANS[metric](y, score)
            value, moves = _mean(values, among, weight)
            factor = _factor(code[weight > 0], n_patients) if among is None else by_class
        if stratum is not None:
            mean = np.bincount(stratum, moves) / np.maximum(np.bincount(stratum), 1)
            moves = moves - mean[stratum]
        out[metric] = float(value), np.bincount(code, factor * weight * moves, n_patients)
    return out


def _factor(code, n_patients):
    k = np.count_nonzero(np.bincount(code, minlength=n_patients))
    return np.sqrt(k / (k - 1)) if k > 1 else np.nan


def _mean(values, among, weight):
    share = weight if among is None else weight * among
    value = (share * values).sum() / share.sum()
    return value, (values - value) * (1 if among is None else among) / share.sum()


def standard_error(moved: np.ndarray) -> np.ndarray:
    """Of (m,) movements by patients, or of each of (K, m)."""
    return np.sqrt((moved**2).sum(-1))


def _freedom(moved):
    return influence.freedom(moved**2, (moved != 0).sum(-1))


def limits(
    value: float, moved: np.ndarray, scale: str = PLAIN, level: float = 0.95
) -> tuple[float, float]:
    """Limits of Student's distribution.

    Parameters
    ----------
    value : float
    moved : (m,), from `by_patient` or sums of such
    scale : "plain"; "logit", within (0, 1): a half width h on the scale of the value is one of
        ``h / (v (1 - v))`` on that of the logit (delta method); "below one", of log(1 - v), for
        what has no lower bound
    level : float in (0, 1)

    Returns
    -------
    low, high : NaN where no patient moves the value. That is so at its bound, as for an AUC of 1,
        and where a single patient decides: nothing can be said of other patients then.
    """
    half = stdtrit(_freedom(moved), 0.5 + level / 2) * standard_error(moved)
    if not half > ROUNDING:
        return np.nan, np.nan
    if scale == LOGIT:
        half /= value * (1 - value)
        low, high = expit(logit(value) + np.array([-half, half]))
    elif scale == BELOW_ONE:
        low, high = 1 - (1 - value) * np.exp(np.array([half, -half]) / (1 - value))
    else:
        low, high = value - half, value + half
    return float(low), float(high)


def p_value(value: float, moved: np.ndarray) -> float:
    """Two-sided, of Student's test that the true value is 0; NaN where `limits` are."""
    error = standard_error(moved)
    return float(2 * stdtr(_freedom(moved), -abs(value) / error)) if error > ROUNDING else np.nan


def bands(
    values: np.ndarray, moved: np.ndarray, alpha: float = 0.05, seed: int = 1907
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals that hold all true values at once with probability 1 - alpha.

    Normal draws with the correlations of the movements say how small the smallest of K p-values is
    by chance; each band is the Student interval at that level. One value has its plain interval.

    Parameters
    ----------
    values : (K,)
    moved : (K, m)
    alpha : float in (0, 1)
    seed : of 10,000 draws

    Returns
    -------
    low, high : (K,), NaN where no patient moves the value
    """
    error = standard_error(moved)
    known = np.isfinite(values) & (error > ROUNDING)
    low, high = np.full((2, len(values)), np.nan)
    if known.any():
        unit = moved[known] / error[known, None]
        vectors, spread, _ = np.linalg.svd(unit @ unit.T, hermitian=True)
        normal = np.random.default_rng(seed).standard_normal((10_000, len(unit)))
        largest = np.abs(normal @ (vectors * np.sqrt(spread)).T).max(1)
        tail = ndtr(-np.quantile(largest, 1 - alpha)) if len(unit) > 1 else alpha / 2
        half = stdtrit(_freedom(moved[known]), 1 - tail) * error[known]
        low[known], high[known] = values[known] - half, values[known] + half
    return low, high
