r"""Do predicted probabilities mean what they say?

The fields at the end of a docstring (Formula, Source, ...) are the metric's card, see
`cxrlib.book.metric_cards`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import schema
from cxrlib.core import checks
from cxrlib.protocol import Protocol, protocol_of
from cxrlib.stats import bootstrap, metrics
from cxrlib.stats.ranking import Value, Weights, as_weights, shaped

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

ROUNDED = 2.0**-53  # 1 minus less than this is 1


def bin_edges(p: np.ndarray, n_bins: int = 10, strategy: str = "uniform") -> np.ndarray:
    """Edges of probability bins: equal width on [0, 1], or equal numbers of images.

    Bins are open to the left and closed to the right, as in scikit-learn's `calibration_curve`.
    Returns (n_bins + 1,).
    """
    if not (isinstance(n_bins, int | np.integer) and n_bins >= 1):
        raise ValueError(f"n_bins: {n_bins!r}; expected a whole number from 1.")
    if not len(p):
        raise ValueError("p: no entries; expected one per image.")
    checks.one_of("strategy", strategy, ("uniform", "quantile"))
    shares = np.linspace(0, 1, n_bins + 1)
    return shares if strategy == "uniform" else np.quantile(p, shares)


def reliability_curve(
    y_true: ArrayLike, p: ArrayLike, n_bins: int = 10, strategy: str = "uniform"
) -> pd.DataFrame:
    """Observed frequency against mean predicted probability (S Fig. 4c).

    Parameters
    ----------
    y_true : (n,) of 0/1
    p : (n,) probabilities in [0, 1]
    n_bins : int
    strategy : "uniform" (S) or "quantile"

    Returns
    -------
    DataFrame, one row per bin that holds images: low, high (edges), predicted, observed, n,
    n_positive. `predicted` and `observed` equal scikit-learn's `calibration_curve`.
    """
    y, p = metrics.probabilities(y_true, p)
    edges = bin_edges(p, n_bins, strategy)
    table = pd.DataFrame({"predicted": p, "observed": y}).groupby(_bin(p, edges, strategy))
    filled = table.mean()
    filled.insert(0, "low", edges[filled.index])
    filled.insert(1, "high", edges[filled.index + 1])
    counted = filled.assign(n=table.size(), n_positive=table["observed"].sum())
    return counted.reset_index(drop=True)


def reliability_table(
    predictions: pd.DataFrame,
    n_bins: int = 10,
    strategy: str = "uniform",
    *,
    protocol: str | Protocol = "corrected",
    n_resamples: int = 500,
    seed: int = 1907,
) -> pd.DataFrame:
    """Reliability curves with intervals for every model, method and label of a predictions table.

    The bins are those of the sample and stay fixed in the resamples. protocol : name or Protocol;
    its switches unit and interval.

    Returns
    -------
    DataFrame: cohort, model, method, label, then the columns of `reliability_curve`, n_patients,
    and ci_low, ci_high of `observed` (from the resamples in which the bin is not empty).
    """
    chosen = protocol_of(protocol)
    predictions = schema.predictions(predictions, probabilities=True)
    keys = list(schema.KEYS)
    parts = []
    for names, block in predictions.groupby(keys, sort=False, observed=True):
        y, p = metrics.probabilities(block["y_true"], block["score"])
        curve = reliability_curve(y, p, n_bins, strategy)
        in_bin = _bin(p, bin_edges(p, n_bins, strategy), strategy)
        bins = [np.flatnonzero(in_bin == b) for b in np.unique(in_bin)]
        observed = {
            i: lambda w, at=at, y=y: {"": metrics.weighted_mean(y[at], w[:, at])}
            for i, at in enumerate(bins)
        }
        found = bootstrap.intervals(observed, block["patient_id"], chosen, n_resamples, seed)
        curve = curve.join(pd.DataFrame(found.values())[["ci_low", "ci_high"]])
        curve["n_patients"] = block["patient_id"].groupby(in_bin).nunique().to_numpy()
        parts.append(pd.DataFrame([names] * len(curve), columns=keys).join(curve))
    return pd.concat(parts, ignore_index=True)


def recalibrate(
    predictions: pd.DataFrame,
    fitted: pd.DataFrame,
    by: Sequence[str] = (),
    intercept: bool = True,
) -> pd.DataFrame:
    """Probabilities by a logistic regression of the outcome on the logit of the score.

    Fitted for each model and label on other patients. With the cosines alone the logit is the
    difference of the two similarities.

    Parameters
    ----------
    predictions, fitted : predictions tables
        What gets new scores, and the patients to fit on; of one method, scores in [0, 1]: exact 0
        and 1, whose logit is infinite, are taken for what is rounded to them.
    by : columns, such as ("sex",)
        Within whose groups to fit apart. Rows of a group without a patient to fit on are left out.
    intercept : bool
        With a shift (Platt 1999), or a scale alone (temperature, Guo et al. 2017).

    Returns
    -------
    The predictions, group by group, with the new score and columns slope and shift. Where only
    one outcome was seen, the score is its frequency, and slope and shift are NaN.
    """

    def logit(table):
        p = table["score"].replace({0.0: ROUNDED, 1.0: 1 - ROUNDED})
        return np.log(p / (1 - p)).to_numpy()[:, None]

    keys = ["model", "label", *by]
    known, parts = dict(list(fitted.groupby(keys))), []
    for key, block in predictions.groupby(keys, sort=False):
        if key not in known:
            continue
        y = known[key]["y_true"]
        if y.nunique() < 2:
            parts.append(block.assign(score=float(y.mean()), slope=np.nan, shift=np.nan))
            continue
        fit = platt(logit(known[key]), y, intercept)
        p = fit.predict_proba(logit(block))[:, 1]
        shift = fit.intercept_[0] if intercept else 0.0
        parts.append(block.assign(score=p, slope=fit.coef_[0, 0], shift=shift))
    return pd.concat(parts, ignore_index=True)


def platt(margin: ArrayLike, y_true: ArrayLike, intercept: bool = True) -> LogisticRegression:
    """A logistic regression of outcomes (n,) on margins (n, 1), without a penalty (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression  # takes seconds to import

    return LogisticRegression(C=np.inf, fit_intercept=intercept).fit(margin, y_true)


def risk_by_group(predictions: pd.DataFrame, off: pd.DataFrame) -> pd.DataFrame:
    """Observed frequency and mean predicted probability of one label in groups of patients.

    Parameters
    ----------
    predictions : predictions table of one label
    off : results table, `calibration_in_the_large` of the same in groups of one attribute

    Returns
    -------
    DataFrame, one row per model and group, in order of appearance: films, observed, predicted.
    Once credentialed data were loaded, empty where `off` is, and without the number of films,
    whose sum tells how many have no group recorded.
    """
    keys = ["model", off["attribute"].iloc[0]]
    table = predictions.groupby(keys, sort=False, observed=True).agg(
        films=("score", "size"), observed=("y_true", "mean"), predicted=("score", "mean")
    )
    if schema.smallest_cell():
        known = off.set_index(["model", "group"])["value"].rename_axis(keys).notna()
        table = table.drop(columns="films").where(known)
    return table


def calibration_in_the_large(y_true: ArrayLike, p: ArrayLike, weights: Weights = None) -> Value:
    r"""Calibration in the large, mean predicted probability minus observed frequency.

    y_true (n,) of 0/1; p (n,) in [0, 1]; weights None, (n,) or (B, n) -> float or (B,).

    :Formula: $\dfrac{1}{n} \sum_i (p_i - y_i)$
    :Source: Van Calster et al. 2019, as a difference of probabilities.
    :Range: [-1, 1]
    :Direction: closer to 0 is better
    :Zero means: The risk is right on average over the group. Needed for calibration, not enough for
        it: overestimates of some may cancel underestimates of others.
    :Undefined when: No image has weight.
    :Look-alikes: The same words for the intercept of a logistic recalibration, on the logit scale.
        The ratio of observed to expected events. Sign: above 0 is risk overestimated; some authors
        subtract the other way round.
    """
    y, p = metrics.probabilities(y_true, p)
    return metrics.weighted_mean(p - y, weights)


def ece_equal_width(
    y_true: ArrayLike, p: ArrayLike, weights: Weights = None, n_bins: int = 10
) -> Value:
    r"""Expected calibration error over bins of equal width.

    y_true (n,) of 0/1; p (n,) in [0, 1]; weights None, (n,) or (B, n) -> float or (B,).

    :Formula: $\sum_b \dfrac{W_b}{W}\, |\bar{p}_b - \bar{y}_b|$ over the bins [0, 0.1], (0.1, 0.2]
        and so on of the probability, with the weight $W_b$, mean probability and mean outcome of
        bin $b$; empty bins add nothing.
    :Source: Naeini et al. 2015, for the probability of one label.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: In every bin the mean probability is the observed frequency. Giving everybody the
        prevalence has 0, and no use. In a finite sample a perfectly calibrated model is above 0,
        and higher in smaller groups: part of a gap between groups of different size is that.
    :Undefined when: No image has weight.
    :Look-alikes: `ece_equal_mass`. X Eq. 4 (`calibration_gap_eq4`), which has no bins. The ECE of
        Guo et al. 2017, which bins the confidence of the predicted class and compares it with
        accuracy. FairMedFM (Jin et al. 2024) cuts the range of the probabilities found in the group
        instead of [0, 1]. Values with different numbers of bins differ.
    """
    return _ece(y_true, p, weights, n_bins, "uniform")


def ece_equal_mass(
    y_true: ArrayLike, p: ArrayLike, weights: Weights = None, n_bins: int = 10
) -> Value:
    r"""Expected calibration error over bins with equal numbers of images.

    y_true (n,) of 0/1; p (n,) in [0, 1]; weights None, (n,) or (B, n) -> float or (B,). The edges
    come from the sample itself and stay the same whatever the weights.

    :Formula: $\sum_b \dfrac{W_b}{W}\, |\bar{p}_b - \bar{y}_b|$ over the tenths of the sample by
        rising probability, with the weight $W_b$, mean probability and mean outcome of bin $b$.
    :Source: The adaptive bins of Nixon et al. 2019, for the probability of one label.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: In every tenth of the images the mean probability is the observed frequency. In a
        finite sample a perfectly calibrated model is above 0, and higher in smaller groups.
    :Undefined when: No image has weight.
    :Look-alikes: `ece_equal_width`, in which one crowded bin can hide everything when the
        probabilities lie close together, as those of cosine similarities without temperature do.
        Equal probabilities are never divided, so bins can be of unequal size.
    """
    return _ece(y_true, p, weights, n_bins, "quantile")


def ece_gap(
    y_true: ArrayLike, p: ArrayLike, weights_a: ArrayLike, weights_b: ArrayLike, n_bins: int = 10
) -> Value:
    r"""Gap in expected calibration error, between two groups of the same images.

    y_true (n,) of 0/1; p (n,) in [0, 1]; weights (n,) or (B, n), 0 outside the group -> float or
    (B,). For one class out of several, p is the probability of the predicted class and y_true
    whether that class is the true one.

    :Formula: $|\mathrm{ECE}_A - \mathrm{ECE}_{A'}|$, each over bins of equal width.
    :Source: The words of X, section 2.4; Guo et al. 2017 for the binned confidence.
    :Range: [0, 1]
    :Direction: lower is better
    :Zero means: Equal calibration error, of whatever size, and perhaps in opposite directions.
    :Undefined when: A group has no weight.
    :Look-alikes: `calibration_gap_eq4`, what X writes down under this name. A smaller group has the
        larger ECE at equal calibration, so a gap between groups of different size is partly that.
    """
    errors = (_ece(y_true, p, w, n_bins, "uniform") for w in (weights_a, weights_b))
    return np.abs(np.subtract(*errors))[()]


def _ece(y_true, p, weights, n_bins, strategy):
    y, p = metrics.probabilities(y_true, p)
    w, is_matrix = as_weights(weights, len(y))
    in_bin = _bin(p, bin_edges(p, n_bins, strategy), strategy)
    columns = np.zeros((len(p), n_bins + 1))
    columns[np.arange(len(p)), in_bin] = p - y
    columns[:, n_bins] = 1
    sums = w @ columns
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.abs(sums[:, :n_bins]).sum(axis=1) / sums[:, n_bins]
    return shaped(value, is_matrix)


def _bin(p, edges, strategy):
    """The bin of each probability; 0.1 lies in the first of ten, also where it was stored in
    float32 and is 0.10000000149."""
    if strategy == "uniform":
        edges = edges.astype(checks.precision(p)).astype(float)
    return np.searchsorted(edges[1:-1], p)
