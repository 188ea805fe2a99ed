"""Performance and fairness metrics as pure functions on arrays.

Every function takes `weights`: None, one weight an image (n,), or a matrix (B, n) with one row a
resample; the answer is then one number a row. A resample drawn with replacement *is* a row of
small whole-number weights (how often each image was drawn), which lets a thousand resamples share
one sort. What is not defined (one class only, no weight at all) is NaN.

S = Sourget et al. 2025, X = Sun et al. 2025.
"""

import numpy as np

from cxrlib.ranking import as_weights, binary, ranking, shaped

# --- one label at a time ---------------------------------------------------------------------


def auc(y_true, score, weights=None):
    """Area under the ROC curve, in [0, 1]; equals scikit-learn's `roc_auc_score`."""
    return ranking(y_true, score, weights)["auc"]


def average_precision(y_true, score, weights=None):
    """Average precision, in (0, 1]; equals scikit-learn's `average_precision_score`."""
    return ranking(y_true, score, weights)["average_precision"]


def adjusted_auprc(y_true, score, weights=None):
    """Prevalence-adjusted area under the precision-recall curve (S section 2.1).

    ``1 - log(AP) / log(prevalence)``, with the prevalence of the same (weighted) sample:
    1 is perfect, 0 is what random scores give, below 0 is worse than that.
    """
    return ranking(y_true, score, weights)["adjusted_auprc"]


def brier(y_true, score, weights=None):
    """Mean squared difference of probability and outcome, in [0, 1]; 0 is best."""
    y, p = binary(y_true, score)
    return weighted_mean((p - y) ** 2, weights)


def sensitivity(y_true, decision, weights=None):
    """Share of the positives that are called positive, the true positive rate, in [0, 1].

    decision : (n,) of 0/1, such as score > threshold. 1 - sensitivity is the rate of
    underdiagnosis.
    """
    y, d = binary(y_true, decision)
    w, is_matrix = as_weights(weights, len(y))
    return shaped(weighted_mean(d[y], w[:, y]), is_matrix)


def specificity(y_true, decision, weights=None):
    """Share of the negatives that are called negative, in [0, 1]; see `sensitivity`."""
    y, d = binary(y_true, decision)
    return sensitivity(~y, 1 - d, weights)


def weighted_mean(x, weights=None):
    """Mean of x (n,) under weights; float or (B,); NaN where there is no weight."""
    x = np.asarray(x, dtype=float)
    w, is_matrix = as_weights(weights, len(x))
    with np.errstate(invalid="ignore", divide="ignore"):
        return shaped((w @ x) / w.sum(axis=1), is_matrix)


# --- one class out of several ---------------------------------------------------------------


def _classes(y_class, pred_class, n_classes):
    y, p = np.asarray(y_class), np.asarray(pred_class)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"classes: shapes {y.shape} and {p.shape}; expected two equal (n,).")
    for name, c in (("y_class", y), ("pred_class", p)):
        if not np.isin(c, np.arange(n_classes)).all():
            raise ValueError(f"{name}: expected whole numbers from 0 to {n_classes - 1}.")
    return np.eye(n_classes)[y.astype(int)], np.eye(n_classes)[p.astype(int)]


def accuracy(y_class, pred_class, weights=None):
    """Share of images whose predicted class is the true one, in [0, 1]; float or (B,)."""
    y, p = np.asarray(y_class), np.asarray(pred_class)
    return weighted_mean(y == p, weights)


def f1_by_class(y_class, pred_class, n_classes, weights=None):
    """F1 of each class against the rest: ``2 TP / (2 TP + FP + FN)``.

    Parameters
    ----------
    y_class, pred_class : (n,) whole numbers in 0..n_classes-1
    weights : None, (n,) or (B, n)

    Returns
    -------
    (C,) or (B, C) in [0, 1]; NaN for a class that is neither present nor predicted.
    """
    y, p = _classes(y_class, pred_class, n_classes)
    w, is_matrix = as_weights(weights, len(y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return shaped(2 * (w @ (y * p)) / (w @ (y + p)), is_matrix)


def rates_by_class(y_class, pred_class, n_classes, weights=None):
    """True and false positive rate of each class against the rest.

    Returns
    -------
    tpr, fpr : each (C,) or (B, C) in [0, 1]
        NaN where the class (for fpr: every other class) has no weight.
    """
    y, p = _classes(y_class, pred_class, n_classes)
    w, is_matrix = as_weights(weights, len(y))
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr = (w @ (y * p)) / (w @ y)
        fpr = (w @ ((1 - y) * p)) / (w @ (1 - y))
    return shaped(tpr, is_matrix), shaped(fpr, is_matrix)


def var_f1(f1):
    """Variance of F1 over the classes, divisor C (X Eq. 1).

    f1 : (C,) or (B, C) -> float or (B,), >= 0. A spread between diseases, not between patients.
    """
    return np.var(f1, axis=-1)[()]


def f1_gap(f1_a, f1_b, absolute=False):
    """Mean over classes of ``F1_A - F1_A'`` (X Eq. 2).

    Eq. 2 has no modulus, so gaps of opposite sign cancel; `absolute=True` takes the modulus
    class by class. f1_a, f1_b : (C,) or (B, C) -> float or (B,), in [-1, 1] ([0, 1] if absolute).
    """
    difference = np.subtract(f1_a, f1_b)
    return np.mean(np.abs(difference) if absolute else difference, axis=-1)[()]


def eq_odds_mean(rates_a, rates_b):
    """Equalised odds as X defines it (Eq. 3): mean of all TPR and FPR gaps, in [0, 1].

    rates_a, rates_b : (tpr, fpr) of two groups from `rates_by_class`; 0 is fair.
    """
    tpr, fpr = _rate_gaps(rates_a, rates_b)
    return np.mean((tpr + fpr) / 2, axis=-1)[()]


def eq_odds_max(rates_a, rates_b):
    """Equalised odds as fairlearn defines it: the larger of TPR and FPR gap, in [0, 1].

    With several classes, the mean over classes of each class's larger gap. For one class, or two
    exhaustive classes, this is fairlearn's `equalized_odds_difference`.
    """
    return np.mean(np.maximum(*_rate_gaps(rates_a, rates_b)), axis=-1)[()]


def _rate_gaps(rates_a, rates_b):
    (tpr_a, fpr_a), (tpr_b, fpr_b) = rates_a, rates_b
    return np.abs(np.subtract(tpr_a, tpr_b)), np.abs(np.subtract(fpr_a, fpr_b))


def calibration_gap_eq4(p_a, outcome_a, p_b, outcome_b, weights_a=None, weights_b=None):
    """Difference between two groups in mean ``|p - outcome|`` (X Eq. 4), in [0, 1].

    X calls it a gap of expected calibration error; it is a mean absolute residual without bins,
    and mixes calibration with sharpness. For an ECE see `cxrlib.calibration`.

    p, outcome : (n_A,) and (n_A',) probabilities and 0/1 outcomes; weights (n,) or (B, n) each.
    """
    a = weighted_mean(np.abs(np.subtract(p_a, outcome_a, dtype=float)), weights_a)
    b = weighted_mean(np.abs(np.subtract(p_b, outcome_b, dtype=float)), weights_b)
    return np.abs(np.subtract(a, b))[()]
