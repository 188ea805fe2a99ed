"""Do predicted probabilities mean what they say?"""

import numpy as np
import pandas as pd

from cxrlib import bootstrap, metrics, schema


def bin_edges(p, n_bins=10, strategy="uniform"):
    """Edges of probability bins: equal width on [0, 1], or equal numbers of images.

    Bins are open to the left and closed to the right, as in scikit-learn's `calibration_curve`.
    Returns (n_bins + 1,).
    """
    if strategy == "uniform":
        return np.linspace(0, 1, n_bins + 1)
    if strategy == "quantile":
        return np.quantile(p, np.linspace(0, 1, n_bins + 1))
    raise ValueError(f"strategy: {strategy!r}; expected 'uniform' or 'quantile'.")


def reliability_curve(y_true, p, n_bins=10, strategy="uniform"):
    """Observed frequency against mean predicted probability (S Fig. 4c).

    Parameters
    ----------
    y_true : (n,) of 0/1
    p : (n,) probabilities in [0, 1]
    n_bins : int
    strategy : "uniform" (S) or "quantile"

    Returns
    -------
    DataFrame, one row a bin that holds images: low, high (edges), predicted, observed, n,
    n_positive. `predicted` and `observed` equal scikit-learn's `calibration_curve`.
    """
    y, p = _probabilities(y_true, p)
    edges = bin_edges(p, n_bins, strategy)
    in_bin = _bin(p, edges)
    n = np.bincount(in_bin, minlength=n_bins)
    positive = np.bincount(in_bin, weights=y, minlength=n_bins)
    total = np.bincount(in_bin, weights=p, minlength=n_bins)
    table = pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "predicted": total / np.maximum(n, 1),
            "observed": positive / np.maximum(n, 1),
            "n": n,
            "n_positive": positive.astype(int),
        }
    )
    return table[table["n"] > 0].reset_index(drop=True)


def reliability_table(
    predictions, n_bins=10, strategy="uniform", *, n_resamples=500, seed=1907, unit="patient"
):
    """Reliability curves with intervals for every model, method and label of a predictions table.

    The bins are those of the sample and stay fixed in the resamples of patients.

    Returns
    -------
    DataFrame: cohort, model, method, label, then the columns of `reliability_curve`, n_patients,
    and ci_low, ci_high of `observed` (from the resamples in which the bin is not empty).
    """
    schema.predictions(predictions)
    keys = ["cohort", "model", "method", "label"]
    parts = []
    for names, block in predictions.groupby(keys, sort=False, observed=True):
        y, p = _probabilities(block["y_true"], block["score"])
        curve = reliability_curve(y, p, n_bins, strategy)
        in_bin = _bin(p, bin_edges(p, n_bins, strategy))
        weights = bootstrap.patient_weights(block["patient_id"], n_resamples, seed, unit)
        for i, b in enumerate(np.unique(in_bin)):
            rows = np.flatnonzero(in_bin == b)
            again = bootstrap.replicates(
                lambda w, at=y[rows]: metrics.weighted_mean(at, w), weights, rows
            )
            limits = bootstrap.interval(curve.loc[i, "observed"], again)
            curve.loc[i, ["ci_low", "ci_high"]] = limits["ci_low"], limits["ci_high"]
            curve.loc[i, "n_patients"] = block["patient_id"].iloc[rows].nunique()
        curve["n_patients"] = curve["n_patients"].astype(int)
        parts.append(pd.DataFrame([names] * len(curve), columns=keys).join(curve))
    return pd.concat(parts, ignore_index=True)


def calibration_in_the_large(y_true, p, weights=None):
    """Mean predicted probability minus observed frequency, in [-1, 1].

    Above 0 the risk is overestimated on average, below 0 underestimated. 0 is needed for
    calibration, not enough for it.

    y_true (n,) of 0/1; p (n,) in [0, 1]; weights None, (n,) or (B, n) -> float or (B,).
    """
    y, p = _probabilities(y_true, p)
    return metrics.weighted_mean(p - y, weights)


def ece_equal_width(y_true, p, weights=None, n_bins=10):
    """Expected calibration error over bins of equal width.

    ``sum_b (weight of b / weight) * |mean p in b - mean outcome in b|``, in [0, 1].

    y_true (n,) of 0/1; p (n,) in [0, 1]; weights None, (n,) or (B, n) -> float or (B,).
    """
    return _ece(y_true, p, weights, n_bins, "uniform")


def ece_equal_mass(y_true, p, weights=None, n_bins=10):
    """Expected calibration error over bins with equal numbers of images, in [0, 1].

    As `ece_equal_width`, with the deciles of p as edges. The edges come from the sample itself
    and stay the same whatever the weights.
    """
    return _ece(y_true, p, weights, n_bins, "quantile")


def _ece(y_true, p, weights, n_bins, strategy):
    y, p = _probabilities(y_true, p)
    w, is_matrix = metrics.as_weights(weights, len(y))
    in_bin = _bin(p, bin_edges(p, n_bins, strategy))
    residual = np.zeros((len(p), n_bins))
    residual[np.arange(len(p)), in_bin] = p - y
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.abs(w @ residual).sum(axis=1) / w.sum(axis=1)
    return metrics.shaped(value, is_matrix)


def _bin(p, edges):
    return np.searchsorted(edges[1:-1], p)


def _probabilities(y_true, p):
    y, p = np.asarray(y_true, dtype=float), np.asarray(p, dtype=float)
    if y.ndim != 1 or y.shape != p.shape or not len(y):
        raise ValueError(
            f"y_true and p: shapes {y.shape} and {p.shape}; expected two equal (n,), not empty."
        )
    if not np.isin(y, (0, 1)).all():
        raise ValueError("y_true: entries other than 0 and 1; expected a binary label.")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            "p: values outside [0, 1]; expected probabilities. Pass scores through a sigmoid or "
            "softmax first."
        )
    return y, p
