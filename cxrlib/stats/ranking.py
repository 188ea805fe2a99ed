"""AUC, average precision and adjusted AUPRC of one sample under many weightings at once.

A resample drawn with replacement *is* a row of small whole-number weights (how often each image
was drawn), so a thousand resamples share one sort.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from cxrlib.core import checks

Value = float | np.ndarray  # one number, or one for each of B resamples
Weights = ArrayLike | None  # one per image (n,), one row per resample (B, n), or all 1


def as_weights(weights: Weights, n: int) -> tuple[np.ndarray, bool]:
    """Weights as a (B, n) matrix, and whether the caller gave a matrix.

    Whole numbers stay whole numbers, so that sums of counts are exact.
    """
    w = np.ones(n, dtype=np.int64) if weights is None else np.asarray(weights)
    if w.dtype.kind not in "iuf":
        w = w.astype(float)
    if w.ndim not in (1, 2) or w.shape[-1] != n:
        raise ValueError(f"weights: shape {w.shape}; expected ({n},) or (B, {n}), as y_true.")
    if w.dtype.kind != "u" and w.size and not w.min() >= 0:
        raise ValueError("weights: negative or NaN entries; expected numbers >= 0.")
    return (w if w.ndim == 2 else w[None]), w.ndim == 2


def shaped(values: np.ndarray, is_matrix: bool) -> Value:
    """(B, ...) -> as it is for a weight matrix, its only row otherwise."""
    if is_matrix:
        return values
    return float(values[0]) if values.ndim == 1 else values[0]


def binary(
    y_true: ArrayLike, score: ArrayLike, name: str = "score"
) -> tuple[np.ndarray, np.ndarray]:
    """Truth as (n,) bool and scores as (n,) float.

    Raises
    ------
    ValueError
        Lengths that differ, labels other than 0 and 1, scores that are NaN or infinite: names
        the parameter (`name` for the scores), the count and the first rows.
    """
    checks.same_length(**{"y_true": y_true, name: score})
    return checks.outcomes(y_true, "y_true"), finite(score, name)


def finite(values: ArrayLike, name: str) -> np.ndarray:
    """Values as floats; ValueError naming `name` and the rows that are NaN or infinite."""
    x = checks.numbers(values, name)
    checks.refuse(
        ~np.isfinite(x), f"{name}: NaN or infinite entries", "finite numbers", **{name: x}
    )
    return x


def ranking(y_true: ArrayLike, score: ArrayLike, weights: Weights = None) -> dict[str, Value]:
    """AUC, average precision and adjusted AUPRC, ties treated exactly as in scikit-learn.

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
    values = ranker(y, s)(w)
    return {name: shaped(v, is_matrix) for name, v in values.items()}


def ranker(
    y_true: ArrayLike, score: ArrayLike, rows: ArrayLike | None = None
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Sort once and rank under many weights: ``ranker(y, s)(weights)``, see `ranking`.

    Parameters
    ----------
    y_true, score : (n,)
    rows : (n,) columns of the weight matrix that belong to these images; all, in order, by default

    Returns
    -------
    Function of weights (B, N): dict name -> (B,). Fastest for weights with one image's entries side
    by side in memory, as `cxrlib.stats.bootstrap` draws them.
    """
    y, s = binary(y_true, score)
    rows = np.arange(len(y)) if rows is None else np.asarray(rows)
    names = ("auc", "average_precision", "adjusted_auprc")
    if not y.any() or y.all():
        return lambda weights: {name: np.full(len(weights), np.nan) for name in names}

    order = np.argsort(-s, kind="stable")
    y, s, rows = y[order], s[order], rows[order]
    # Only blocks of tied scores that hold a positive matter for either curve.
    block = np.concatenate([[0], np.cumsum(np.diff(s) != 0)])
    positive = np.flatnonzero(y)
    holds, first = np.unique(block[positive], return_index=True)
    end = np.searchsorted(block, holds, side="right")  # of each such block, exclusive
    start = np.concatenate([[0], end[:-1]])  # of the images ranked after the block before
    tied = np.flatnonzero(~y & np.isin(block, holds))  # negatives that tie with a positive
    tied_holds, tied_first = np.unique(block[tied], return_index=True)
    tied_at = np.searchsorted(holds, tied_holds)
    single = len(holds) == len(positive)

    def evaluate(weights):
        by_image = weights.T
        ahead = _segment_sums(by_image.take(rows[: end[-1]], axis=0), start)  # (K, B)
        tail = by_image.take(rows[end[-1] :], axis=0).sum(0)
        hits = by_image.take(rows[positive], axis=0)
        # positives of each block
        hits = hits.astype(_exact_type(hits)) if single else _segment_sums(hits, first)
        all_end, hits_end = ahead.cumsum(0), hits.cumsum(0)
        n_pos = hits_end[-1].astype(float)
        n_all = all_end[-1].astype(float) + tail.astype(float)
        n_neg = n_all - n_pos
        # a positive beats every negative ranked after it, and half of those tied with it
        beaten = n_neg - (all_end - hits_end).astype(float)
        if len(tied):
            draws = _segment_sums(by_image.take(rows[tied], axis=0), tied_first)
            beaten[tied_at] += 0.5 * draws.astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            auc_ = (hits * beaten).sum(0) / (n_pos * n_neg)
            precision = hits_end.astype(float) / np.where(all_end > 0, all_end, 1)
            ap = (hits * precision).sum(0) / n_pos
            one_class = ~((n_pos > 0) & (n_neg > 0))
            auc_[one_class] = ap[one_class] = np.nan
            adjusted = 1 - np.log(ap) / np.log(n_pos / n_all)
        return dict(zip(names, (auc_, ap, adjusted), strict=True))

    return evaluate


def _segment_sums(x, start):
    """Sums over rows start[k] <= i < start[k + 1]: (n, B) -> (K, B), exact for whole numbers."""
    return np.add.reduceat(x, start, axis=0, dtype=_exact_type(x))


def _exact_type(x):
    return np.float64 if x.dtype.kind == "f" else np.int64
