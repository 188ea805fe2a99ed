"""AUC, average precision and adjusted AUPRC of one sample under many weightings at once.

A resample drawn with replacement *is* a row of small whole-number weights (how often each image
was drawn), so a thousand resamples share one sort.
"""

import numpy as np


def as_weights(weights, n):
    """Weights as a (B, n) matrix, and whether the caller gave a matrix.

    Whole numbers stay whole numbers, so that sums of counts are exact.
    """
    w = np.ones(n, dtype=np.int64) if weights is None else np.asarray(weights)
    if w.ndim not in (1, 2) or w.shape[-1] != n:
        raise ValueError(f"weights: shape {w.shape}; expected ({n},) or (B, {n}), as y_true.")
    if w.dtype.kind not in "iuf":
        w = w.astype(float)
    if w.dtype.kind != "u" and w.size and not w.min() >= 0:
        raise ValueError("weights: negative or NaN entries; expected numbers >= 0.")
    return np.atleast_2d(w), w.ndim == 2


def shaped(values, is_matrix):
    """(B, ...) -> as it is for a weight matrix, its only row otherwise."""
    if is_matrix:
        return values
    return float(values[0]) if values.ndim == 1 else values[0]


def binary(y_true, score):
    y = np.asarray(y_true)
    s = np.asarray(score, dtype=float)
    if y.ndim != 1 or y.shape != s.shape:
        raise ValueError(
            f"y_true and score: shapes {y.shape} and {s.shape}; expected two equal (n,)."
        )
    if not np.isin(y, (0, 1)).all():
        raise ValueError("y_true: entries other than 0 and 1; expected a binary label.")
    if not np.isfinite(s).all():
        raise ValueError("score: NaN or infinite entries; expected finite numbers.")
    return y.astype(bool), s


def ranking(y_true, score, weights=None):
    """AUC, average precision and adjusted AUPRC from one pass over the sorted scores.

    Images are sorted once by falling score. Only blocks of tied scores that hold a positive
    matter for either curve, so one cumulative sum of weights, read at the ends of these blocks,
    gives all three numbers. Ties are treated exactly as in scikit-learn.

    Parameters
    ----------
    y_true : (n,) of 0/1
    score : (n,) finite numbers, higher means more likely positive
    weights : None, (n,) or (B, n) numbers >= 0

    Returns
    -------
    dict of float, or of (B,) arrays
        "auc" in [0, 1], "average_precision" in (0, 1], "adjusted_auprc" in (-inf, 1];
        NaN where only one class has weight.

    Source: S section 2.1.
    """
    y, s = binary(y_true, score)
    w, is_matrix = as_weights(weights, len(y))
    if not y.any():
        nan = np.full(len(w), np.nan)
        return {k: shaped(nan, is_matrix) for k in ("auc", "average_precision", "adjusted_auprc")}
    order = np.argsort(-s, kind="stable")
    y, s = y[order], s[order]
    w = w.take(order, axis=1)

    last = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)  # last position of each tied block
    block = np.searchsorted(last, np.flatnonzero(y))  # the block of each positive
    holds, first_positive = np.unique(block, return_index=True)
    end = last[holds]
    before = last[holds - 1]  # for block 0 this reads a wrong column, mended below

    exact = np.int64 if w.dtype.kind in "iu" else np.float64
    cumulative = np.cumsum(w, axis=1, dtype=exact)
    all_end = cumulative.take(end, axis=1)
    all_before = cumulative.take(before, axis=1)
    if holds[0] == 0:
        all_before[:, 0] = 0
    positives = np.add.reduceat(w[:, y], first_positive, axis=1, dtype=exact)  # in each block
    true_positives = np.cumsum(positives, axis=1)
    negatives_end = all_end - true_positives
    negatives_before = all_before - (true_positives - positives)

    n_pos = true_positives[:, -1].astype(float)
    n_all = cumulative[:, -1].astype(float)
    n_neg = n_all - n_pos
    with np.errstate(invalid="ignore", divide="ignore"):
        # a positive beats every negative ranked after it, and half of those tied with it
        beaten = n_neg[:, None] - 0.5 * (negatives_end + negatives_before)
        auc_ = np.einsum("bk,bk->b", positives, beaten) / (n_pos * n_neg)
        precision = true_positives / np.where(all_end > 0, all_end, 1)
        ap = np.einsum("bk,bk->b", positives, precision) / n_pos
        one_class = ~((n_pos > 0) & (n_neg > 0))
        auc_[one_class] = ap[one_class] = np.nan
        adjusted = 1 - np.log(ap) / np.log(n_pos / n_all)
    values = {"auc": auc_, "average_precision": ap, "adjusted_auprc": adjusted}
    return {name: shaped(v, is_matrix) for name, v in values.items()}
