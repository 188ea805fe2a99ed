"""Resampling: the patient is drawn, with all of the patient's images.

Images of one patient resemble each other, so drawing images one by one (as S did) makes intervals
too narrow. A resample is stored as whole-number weights, one row of a matrix a resample; the
functions of `cxrlib.metrics` take the matrix as it is. Groups, models and labels that are
evaluated on the same matrix are paired: the interval of a difference comes from the differences
resample by resample.
"""

import numpy as np
import pandas as pd

CHUNK = 4_000_000  # weights handled at a time: about 32 MB in double precision


def patient_weights(patient_id, n_resamples=1000, seed=1907, unit="patient"):
    """How often each image occurs in each resample.

    With m patients (numbered in order of first appearance), resample b draws m of them with
    replacement, ``rng.integers(m, size=m)`` from one generator ``numpy.random.default_rng(seed)``;
    an image has the count of its patient. The first resamples are the same whatever n_resamples.

    Parameters
    ----------
    patient_id : (n,) one entry an image
    n_resamples : int, B
    seed : int
    unit : "patient", or "image" to draw images one by one as S did

    Returns
    -------
    (B, n) array of uint16
    """
    if unit not in ("patient", "image"):
        raise ValueError(f"unit: {unit!r}; expected 'patient' or 'image'.")
    n = len(patient_id)
    if n == 0:
        raise ValueError("patient_id: empty; expected one entry an image.")
    code = np.arange(n) if unit == "image" else pd.factorize(np.asarray(patient_id))[0]
    if code.min() < 0:
        raise ValueError("patient_id: missing entries; expected a patient for every image.")
    m = code.max() + 1
    rng = np.random.default_rng(seed)
    weights = np.empty((n_resamples, n), dtype=np.uint16)
    for row in weights:
        row[:] = np.bincount(rng.integers(m, size=m), minlength=m)[code]
    return weights


def replicates(statistic, weights, rows=slice(None)):
    """Evaluate a statistic on every resample, a few resamples at a time.

    Parameters
    ----------
    statistic : callable, (b, k) weights -> (b,) or (b, C) values, or a dict of them
    weights : (B, n) from `patient_weights`
    rows : positions or mask of the k images that the statistic is about

    Returns
    -------
    What `statistic` returns, with B rows.
    """
    width = weights[:1, rows].shape[1]
    step = max(1, CHUNK // max(width, 1))
    parts = [statistic(weights[i : i + step, rows]) for i in range(0, len(weights), step)]
    if isinstance(parts[0], dict):
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    return np.concatenate(parts)


def interval(value, replicates, level=0.95):
    """Percentile interval of a bootstrapped value.

    Parameters
    ----------
    value : float, the statistic on the sample itself
    replicates : (B,) the statistic on the resamples, NaN where undefined
    level : coverage in (0, 1)

    Returns
    -------
    dict of value, ci_low, ci_high, n_replicates (usable ones) and note. The limits are NaN, with
    the reason in note, if the value or every replicate is undefined; the note also says when
    fewer than 90 % of the replicates were usable.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: {level!r}; expected a number between 0 and 1, such as 0.95.")
    replicates = np.asarray(replicates, dtype=float)
    usable = replicates[np.isfinite(replicates)]
    low, high, note = np.nan, np.nan, ""
    if not np.isfinite(value):
        note = "undefined on the sample itself"
    elif len(usable) == 0:
        note = "no interval: undefined on every resample"
    else:
        tail = 50 * (1 - level)
        low, high = np.percentile(usable, [tail, 100 - tail])
        if len(usable) < 0.9 * len(replicates):
            note = f"only {len(usable)} of {len(replicates)} resamples usable"
    return {
        "value": float(value),
        "ci_low": float(low),
        "ci_high": float(high),
        "n_replicates": len(usable),
        "note": note,
    }
