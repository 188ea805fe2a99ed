"""Estimates that carry the influence of each image, so that their intervals need no resampling.

The influence of an image is how far the estimate moves, per share of weight that the image gains
(the infinitesimal jackknife; Efron 1982, chapter 6). The influences of sums, differences and
ratios follow from those of their parts, images without influence have 0, and the variance is the
sum over patients of the squared sum of their influences: patients are the unit, and estimates on
the same images are paired by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from cxrlib.core import checks


@dataclass(frozen=True)
class Estimate:
    """A number, and how much each image moves it.

    Attributes
    ----------
    value : float
    influence : (n,) array
        Of all images that are studied; sums to 0.
    """

    value: float
    influence: np.ndarray

    def __add__(self, other: Estimate | float) -> Estimate:
        other = _estimate(other)
        return Estimate(self.value + other.value, self.influence + other.influence)

    def __sub__(self, other: Estimate | float) -> Estimate:
        return self + _estimate(other) * -1

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.influence * factor)

    def __truediv__(self, other: Estimate | float) -> Estimate:
        other = _estimate(other)
        ratio = self.value / other.value
        return Estimate(ratio, (self.influence - ratio * other.influence) / other.value)


def _estimate(number):
    return number if isinstance(number, Estimate) else Estimate(float(number), np.zeros(1))


def mean(values: ArrayLike, among: ArrayLike | None = None) -> Estimate:
    """Mean of (n,) values, or of those ``among`` (n,) bool: a sensitivity is the mean of decisions
    among the ill.

    Raises
    ------
    ValueError
        None is among them.
    """
    values = np.asarray(values, float)
    among = np.ones(len(values), bool) if among is None else np.asarray(among, bool)
    if not among.any():
        raise ValueError("no image to take a mean of")
    value = values[among].mean()
    share = among / among.sum()
    return Estimate(float(value), np.where(among, values - value, 0.0) * share)


def spread(values: ArrayLike, among: ArrayLike | None = None) -> Estimate:
    """Standard deviation (of n, not n - 1) of (n,) values, or of those ``among`` (n,) bool."""
    middle = mean(values, among)
    variance = mean((np.asarray(values, float) - middle.value) ** 2, among)
    deviation = variance.value**0.5
    return Estimate(deviation, variance.influence / (2 * deviation))


def auc(y_true: ArrayLike, score: ArrayLike, among: ArrayLike | None = None) -> Estimate:
    """AUC of (n,) scores, or of those ``among``, by placement values (DeLong et al. 1988).

    The placement of an ill image is the share of healthy ones that score lower, ties counting
    half; that of a healthy one the share of ill ones that score higher.

    Raises
    ------
    ValueError
        No ill or no healthy image.
    """
    return _ranked(weighted_auc, y_true, score, among)


def average_precision(
    y_true: ArrayLike, score: ArrayLike, among: ArrayLike | None = None
) -> Estimate:
    """Average precision of (n,) scores, or of those ``among``; raises as `auc` does."""
    return _ranked(weighted_average_precision, y_true, score, among)


def adjusted_auprc(y_true: ArrayLike, score: ArrayLike, among: ArrayLike | None = None) -> Estimate:
    """Adjusted AUPRC (S 2.1) of (n,) scores, or of those ``among``; raises as `auc` does.

    The prevalence is that of the sample, so its influence is part of it.
    """
    return _ranked(weighted_adjusted_auprc, y_true, score, among)


def _ranked(weighted, y_true, score, among):
    y, score = checks.outcomes(y_true, "y_true"), np.asarray(score, float)
    among = np.ones(len(y), bool) if among is None else np.asarray(among, bool)
    ill, well = among & y, among & ~y
    if not (ill.any() and well.any()):
        raise ValueError(f"{ill.sum()} ill and {well.sum()} healthy images; expected both")
    weight = among / among.sum()
    value, moves = weighted(y, np.unique(score, return_inverse=True)[1], weight)
    return Estimate(float(value), weight * moves)


# Each takes y (n,) bool, rank (n,) of the score among the distinct ones, and weights (n,); it gives
# the value, and how far it moves per weight that an image gains (n,), which times the weights is
# its influence and sums to 0. NaN and zeros where only one class has weight.


def weighted_auc(y: np.ndarray, rank: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """AUC under weights, and how far each image moves it."""
    size = rank.max() + 1
    ill, well = (np.bincount(rank, weight * of, size) for of in (y, ~y))
    p, q = ill.sum(), well.sum()
    if p == 0 or q == 0:
        return np.nan, np.zeros(len(y))
    below, above = np.cumsum(well) - well / 2, p - np.cumsum(ill) + ill / 2
    value = (ill * below).sum() / (p * q)
    placed = np.where(y, below[rank] / q, above[rank] / p)
    return value, (placed - value) / np.where(y, p, q)


def weighted_average_precision(
    y: np.ndarray, rank: np.ndarray, weight: np.ndarray
) -> tuple[float, np.ndarray]:
    """Average precision under weights, and how far each image moves it."""
    size = rank.max() + 1
    ill, every = np.bincount(rank, weight * y, size), np.bincount(rank, weight, size)
    p = ill.sum()
    if p == 0 or every.sum() - p <= 0:
        return np.nan, np.zeros(len(weight))
    hits, shown = (np.cumsum(x[::-1])[::-1] for x in (ill, every))  # at this score or above
    shown = np.where(shown > 0, shown, 1)
    precision = hits / shown
    value = (ill * precision).sum() / p
    # an image counts in the precision at every score up to its own
    gain, loss = np.cumsum(ill / (p * shown)), np.cumsum(ill * precision / (p * shown))
    return value, y * (precision[rank] - value) / p + y * gain[rank] - loss[rank]


def weighted_adjusted_auprc(
    y: np.ndarray, rank: np.ndarray, weight: np.ndarray
) -> tuple[float, np.ndarray]:
    """Adjusted AUPRC under weights, and how far each image moves it, the prevalence included."""
    ap, moves = weighted_average_precision(y, rank, weight)
    if np.isnan(ap):
        return ap, moves
    total = weight.sum()
    p = (weight * y).sum() / total
    value = 1 - np.log(ap) / np.log(p)
    return value, ((1 - value) * (y - p) / (p * total) - moves / ap) / np.log(p)


def average(estimates: list[Estimate]) -> Estimate:
    """Mean of several estimates on the same images, such as of one metric over findings."""
    return Estimate(
        float(np.mean([e.value for e in estimates])),
        np.mean([e.influence for e in estimates], axis=0),
    )


def refitted(estimate: Estimate, without: ArrayLike) -> Estimate:
    """The estimate with the luck of its fit: further influences, behind those of the images.

    Parameters
    ----------
    estimate : Estimate
    without : (m,)
        Its value where what it rests on was fitted without the first, ..., the m-th part of the
        patients it is fitted on. They are the influences of a grouped jackknife (Efron 1982,
        chapter 3), each part a patient of its own.
    """
    values = np.asarray(without, float)
    m = len(values)
    luck = (values - values.mean()) * ((m - 1) / m) ** 0.5
    return Estimate(estimate.value, np.append(estimate.influence, luck))


def interval(estimate: Estimate, patient_id: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Limits of Student's distribution, with the patients as the unit.

    See `freedom`.

    Parameters
    ----------
    estimate : Estimate
    patient_id : (n,)
        Of the images of its influences.
    level : float in (0, 1)
    """
    squares, m = _by_patient(estimate, patient_id)
    half = stdtrit(freedom(squares, m), 0.5 + level / 2) * standard_error(estimate, patient_id)
    return estimate.value - half, estimate.value + half


def freedom(squares: np.ndarray, patients: ArrayLike) -> np.ndarray:
    """Student's degrees of freedom of a variance that is the sum of (..., m) squares.

    The variance is itself estimated, from few patients where few have weight: twice the square of
    its mean over its variance (as for surveys; Valliant and Rust 2010), at least 1.

    patients : (...), how many of the m patients count
    """
    total = squares.sum(-1)
    unsure = (squares**2).sum(-1) - total**2 / np.maximum(patients, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = np.where(unsure > 0, 2 * total**2 / unsure, np.subtract(patients, 1))
    return np.maximum(df, 1)


def standard_error(estimate: Estimate, patient_id: ArrayLike) -> float:
    """Root of the sum over patients of their squared influences, times m / (m - 1).

    m is the number of patients whose images have an influence.
    """
    squares, m = _by_patient(estimate, patient_id)
    return float(np.sqrt(squares.sum() * m / max(m - 1, 1)))


def _by_patient(estimate, patient_id):
    """Squared influence of each patient, and the number of those whose images have any."""
    names, code = np.unique(np.asarray(patient_id), return_inverse=True)
    moved = np.bincount(code, estimate.influence != 0, len(names))
    return np.bincount(code, estimate.influence, len(names)) ** 2, np.count_nonzero(moved)


def combined(shares: ArrayLike, of: Sequence[Estimate | float]) -> Estimate | float:
    """Weighted sum of estimates on the same images, or of numbers, in one step."""
    if not isinstance(of[0], Estimate):
        return float(np.dot(shares, of))
    value = float(np.dot(shares, [e.value for e in of]))
    return Estimate(value, np.dot(shares, [e.influence for e in of]))
