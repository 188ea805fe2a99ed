"""One sample at other prevalences: each film without the finding stands for more, or fewer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import schema
from cxrlib.protocol import Protocol, protocol_of
from cxrlib.stats import bootstrap
from cxrlib.stats.ranking import ranking


def weights(y_true: ArrayLike, prevalence: float) -> np.ndarray:
    """Weights under which a sample has a prevalence: 1 for its positives, one number for the rest.

    Parameters
    ----------
    y_true : (n,) of 0/1
    prevalence : share of positives, in (0, 1)

    Returns
    -------
    float array (n,); all 0 where nothing is positive
    """
    y = np.asarray(y_true)
    negatives = y.sum() * (1 - prevalence) / prevalence
    return np.where(y == 1, 1.0, negatives / max((y == 0).sum(), 1))


def curves(y_true: ArrayLike, score: ArrayLike, prevalences: Sequence[float]) -> pd.DataFrame:
    """ROC and precision-recall curve of the same scores at several prevalences.

    Returns
    -------
    DataFrame with ``prevalence, curve`` ("ROC" or "precision-recall"), ``x, y``, in [0, 1]; no
    rows where nothing is positive.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    parts = [pd.DataFrame(columns=["prevalence", "curve", "x", "y"])]
    for prevalence in prevalences if np.any(y_true) else ():
        weight = weights(y_true, prevalence)
        false, true, _ = roc_curve(y_true, score, sample_weight=weight)
        precision, recall, _ = precision_recall_curve(y_true, score, sample_weight=weight)
        for curve, x, y in (("ROC", false, true), ("precision-recall", recall, precision)):
            parts.append(pd.DataFrame({"prevalence": prevalence, "curve": curve, "x": x, "y": y}))
    return pd.concat(parts[len(parts) > 1 :], ignore_index=True)


def prevalence_table(
    predictions: pd.DataFrame,
    prevalences: Sequence[float],
    protocol: str | Protocol = "corrected",
    n_resamples: int = 500,
    seed: int = 1907,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """AUC, average precision and adjusted AUPRC of each model at several prevalences.

    Parameters
    ----------
    predictions : DataFrame
        Of one finding, by models that saw the same images in the same order.
    prevalences : in (0, 1)
    protocol : name or Protocol; its unit, interval and min_cases, with fewer of which all is NaN
    n_resamples, seed : of the resamples, which all models and prevalences share

    Returns
    -------
    DataFrame
        One row per model, prevalence and metric: ``model, prevalence, metric, value, ci_low,
        ci_high, n_replicates, note``.
    DataFrame
        The change from the first prevalence to the last, without ``prevalence``; paired.
    """
    p, statistics = protocol_of(protocol), {}
    for model, rows in predictions.groupby("model", sort=False, observed=True):
        y, score = rows["y_true"].to_numpy(), rows["score"].to_numpy()
        if min(y.sum(), (1 - y).sum()) < max(p.min_cases, schema.smallest_cell()):
            y = np.zeros_like(y)  # undefined, as without any positive image
        for prevalence in prevalences:
            weight = weights(y, prevalence)
            statistics[model, prevalence] = lambda w, y=y, s=score, v=weight: ranking(y, s, w * v)
    drawn = bootstrap.Resamples(rows["patient_id"].to_numpy(), n_resamples, seed, p.unit)
    found = bootstrap.evaluate(statistics, drawn, p.interval != "percentile")

    def row(estimate, **about):
        return about | bootstrap.interval(*estimate, method=p.interval)

    table, changes, first, last = [], [], prevalences[0], prevalences[-1]
    for ((model, prevalence), metric), estimate in found.items():
        table.append(row(estimate, model=model, prevalence=prevalence, metric=metric))
        if prevalence == last:
            before = found[(model, first), metric]
            change = [b if b is None else b - a for a, b in zip(before, estimate, strict=True)]
            changes.append(row(change, model=model, metric=metric))
    return pd.DataFrame(table), pd.DataFrame(changes)
