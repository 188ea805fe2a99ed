"""Resampling: the patient is drawn, with all of the patient's images.

Images of one patient resemble each other, so drawing images one by one (as S did) makes intervals
too narrow. A resample is stored as whole-number weights, one row of a matrix a resample; the
functions of `cxrlib.stats.metrics` take the matrix as it is. Groups, models and labels that are
evaluated on the same resamples are paired: the interval of a difference comes from the differences
resample by resample.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from cxrlib.core import checks
from cxrlib.protocol import Protocol

CHUNK = 2_000_000  # weights handled at a time; small enough to stay in a processor's cache
MAX_BLOCKS = 200  # of the jackknife
METHODS = ("expanded", "percentile", "bca")  # of resamples; "analytic" takes none


@dataclass(frozen=True, eq=False)
class Resamples:
    """B resamples of a cohort, drawn when they are needed and never all held at once.

    With m patients (numbered in order of first appearance), a resample draws m of them with
    replacement, ``rng.integers(m, size=m)`` from one generator ``numpy.random.default_rng(seed)``;
    an image has the count of its patient. The first resamples are the same whatever B.

    Parameters
    ----------
    patient_id : (n,) one entry per image
    n_resamples : int, B
    seed : int
    unit : "patient", or "image" to draw images one by one as S did

    Raises
    ------
    ValueError
        For an unknown unit or missing patients.
    """

    patient_id: ArrayLike
    n_resamples: int = 1000
    seed: int = 1907
    unit: str = "patient"
    code: np.ndarray = field(init=False, repr=False)  # (n,) number of the image's unit

    def __post_init__(self):
        checks.one_of("unit", self.unit, ("patient", "image"))
        if not isinstance(self.n_resamples, int | np.integer) or self.n_resamples < 1:
            raise ValueError(
                f"n_resamples: {self.n_resamples!r}; expected a whole number of 1 or more."
            )
        if len(self.patient_id) == 0:
            raise ValueError("patient_id: empty; expected one entry per image.")
        code = pd.factorize(np.asarray(self.patient_id))[0]
        who = {"patient_id": self.patient_id}
        checks.refuse(code < 0, "patient_id: missing", "a patient for every image", **who)
        if self.unit == "image":
            code = np.arange(len(code))
        object.__setattr__(self, "code", code)

    def __len__(self):
        return self.n_resamples

    def chunks(self) -> Iterator[np.ndarray]:
        """Weights of a few resamples at a time: (b, n), one image's entries side by side."""
        rng = np.random.default_rng(self.seed)
        m = self.code.max() + 1
        step = chunk_length(len(self.code))
        for start in range(0, self.n_resamples, step):
            counts = np.zeros((m, min(step, self.n_resamples - start)), dtype=np.uint16)
            for b in range(counts.shape[1]):
                counts[:, b] = np.bincount(rng.integers(m, size=m), minlength=m)
            yield self._hand_out(counts)

    def jackknife(self) -> Iterator[np.ndarray]:
        """Weights that leave out one block of patients each, a few at a time: (b, n).

        Up to `MAX_BLOCKS` patients are left out one by one; more are dealt into that many blocks
        at random (by the seed). For the acceleration of BCa, sums over patients and over blocks
        of independent patients have the same expected third moment.
        """
        m = self.code.max() + 1
        deal = np.random.default_rng(self.seed).permutation(m) if m > MAX_BLOCKS else np.arange(m)
        block = (deal % self.n_blocks).astype(np.uint8)
        step = chunk_length(len(self.code))
        for start in range(0, self.n_blocks, step):
            left_out = np.arange(start, min(start + step, self.n_blocks), dtype=np.uint8)
            yield self._hand_out((block[:, None] != left_out).astype(np.uint16))

    @property
    def n_blocks(self) -> int:
        """Rows of `jackknife`."""
        return min(int(self.code.max()) + 1, MAX_BLOCKS)

    def once(self) -> np.ndarray:
        """The cohort itself: (1, n) ones."""
        return self._hand_out(np.ones((self.code.max() + 1, 1), dtype=np.uint16))

    def _hand_out(self, counts):
        """Counts of units (m, b) -> weights of images (b, n)."""
        return counts.take(self.code, axis=0).T


def chunk_length(n: int) -> int:
    """Resamples handled at a time for n images."""
    return int(np.clip(CHUNK // max(n, 1), 8, 256))


def patient_weights(
    patient_id: ArrayLike, n_resamples: int = 1000, seed: int = 1907, unit: str = "patient"
) -> np.ndarray:
    """All weights of `Resamples` in one (B, n) array of uint16; for small cohorts."""
    drawn = Resamples(patient_id, n_resamples, seed, unit)
    return np.concatenate([np.ascontiguousarray(w) for w in drawn.chunks()])


class Evaluated(NamedTuple):
    """A statistic on the cohort, on its resamples, and with blocks of patients left out."""

    value: float
    replicates: np.ndarray  # (B,)
    jackknife: np.ndarray | None  # (g,), where asked for


def evaluate(
    statistics: Mapping[Any, Callable], resamples: Resamples, jackknife: bool = True
) -> dict[tuple, Evaluated]:
    """Evaluate many statistics on the same resamples, so that all of them are paired.

    Parameters
    ----------
    statistics : dict name -> callable, (b, n) weights -> dict metric -> (b,) values
    resamples : Resamples
    jackknife : also leave out blocks of patients, which every method but "percentile" needs

    Returns
    -------
    dict (name, metric) -> Evaluated. Statistics run side by side on the processor's cores.
    """
    statistics = dict(statistics)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def on(chunks):
            """(name, metric) -> its values under all weights of the chunks."""
            parts = {}
            for weights in chunks:
                found = pool.map(lambda statistic, w=weights: statistic(w), statistics.values())
                for name, by_metric in zip(statistics, found, strict=True):
                    for metric, values in by_metric.items():
                        parts.setdefault((name, metric), []).append(values)
            return {key: np.concatenate(values) for key, values in parts.items()}

        value, drawn = on([resamples.once()]), on(resamples.chunks())
        left_out = on(resamples.jackknife()) if jackknife else {}
    return {key: Evaluated(float(value[key][0]), drawn[key], left_out.get(key)) for key in value}


def intervals(
    statistics: Mapping[Any, Callable],
    patient_id: ArrayLike,
    protocol: Protocol,
    n_resamples: int,
    seed: int,
) -> dict[tuple, dict]:
    """Statistics of `evaluate`, with the unit and the interval of a protocol.

    Returns
    -------
    dict (name, metric) -> what `interval` returns.
    """
    only(protocol.interval)
    resamples = Resamples(np.asarray(patient_id), n_resamples, seed, protocol.unit)
    found = evaluate(statistics, resamples, protocol.interval != "percentile")
    return {key: interval(*e, method=protocol.interval) for key, e in found.items()}


def only(method: str) -> None:
    """Refuse an interval that does not come from resamples, before any are drawn."""
    if method not in METHODS:
        raise ValueError(
            f"interval={method!r}: no influences are known of these numbers; expected one of "
            f"{', '.join(METHODS)}. Tables of AUC, average precision, adjusted AUPRC, Brier score, "
            "calibration in the large and rates take 'analytic'."
        )


def interval(
    value: float,
    replicates: ArrayLike,
    jackknife: ArrayLike | None = None,
    *,
    method: str | None = None,
    level: float = 0.95,
) -> dict:
    """Interval of a bootstrapped value.

    Parameters
    ----------
    value : float, the statistic on the sample itself
    replicates : (B,) the statistic on the resamples, NaN where undefined
    jackknife : (g,) the statistic without each block of patients, see `evaluate`
    method : by default "expanded", and "percentile" where there is no jackknife

        "expanded" : percentiles further out, which make up for what resampling few patients loses
            (Hesterberg 2015); the only method here that keeps its level in `cxrlib.stats.simulate`
        "percentile" : quantiles of the replicates, as S took
        "bca" : bias-corrected and accelerated (Efron 1987), which corrects for replicates that
            are off centre or whose spread depends on the value
    level : coverage in (0, 1)

    Returns
    -------
    dict of value, ci_low, ci_high, n_replicates (usable ones) and note. The limits are NaN, with
    the reason in note, if the value or every replicate is undefined; the note also says when
    fewer than 90 % of the replicates were usable or all of them are equal.
    """
    checks.fractions(level=level)
    method = method or ("percentile" if jackknife is None else "expanded")
    checks.one_of("method", method, METHODS)
    if method != "percentile" and jackknife is None:
        raise ValueError(f"jackknife: missing; method {method!r} needs it, see `evaluate`.")
    replicates = np.asarray(replicates, dtype=float)
    usable = replicates[np.isfinite(replicates)]
    low, high, note = np.nan, np.nan, ""
    if not np.isfinite(value):
        note = "undefined on the sample itself"
    elif len(usable) == 0:
        note = "no interval: undefined on every resample"
    else:
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if method != "percentile":
            left_out = np.asarray(jackknife, dtype=float)
            left_out = left_out[np.isfinite(left_out)]
            if method == "bca":
                tails = _bca_tails(tails, value, usable, left_out)
            else:
                tails = _expanded_tails(tails, usable, left_out)
        low, high = np.quantile(usable, tails)
        if len(usable) < 0.9 * len(replicates):
            note = f"only {len(usable)} of {len(replicates)} resamples usable"
        elif low == high:
            note = "every usable resample gives the same value: the interval says nothing"
    return {
        "value": float(value),
        "ci_low": float(low),
        "ci_high": float(high),
        "n_replicates": len(usable),
        "note": note,
    }


def _bca_tails(tails, value, usable, left_out):
    """The quantiles of the replicates that BCa reads instead of the nominal ones."""
    below = ((usable < value).mean() + (usable <= value).mean()) / 2
    below = np.clip(below, 0.5 / len(usable), 1 - 0.5 / len(usable))
    bias = ndtri(below)
    influence = left_out.mean() - left_out if len(left_out) else left_out
    spread = (influence**2).sum()
    acceleration = (influence**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = bias + ndtri(tails)
    return ndtr(bias + shifted / (1 - acceleration * shifted))


def _expanded_tails(tails, usable, left_out):
    """The quantiles of the replicates that the expanded percentile interval reads.

    With few patients, percentile intervals are too narrow: a resample of m draws has (m - 1) / m
    of the variance, and a normal tail ignores that the variance is itself estimated. So quantiles
    further out are read, ``Phi(stretch t)``. Here t is the quantile of Student's distribution
    with as many degrees of freedom as the jackknife's own variance has (twice the square of its
    mean over its variance, as for surveys; Valliant and Rust 2010), and stretch is the
    jackknife's standard error over that of the resamples, at least 1.
    """
    spread = usable.std()
    if len(left_out) < 2 or spread == 0:
        return tails
    influence = left_out - left_out.mean()
    g, second, fourth = len(influence), (influence**2).sum(), (influence**4).sum()
    if second == 0:
        return tails
    uncertainty = fourth - second**2 / g
    df = max(1.0, 2 * second**2 / uncertainty) if uncertainty > 0 else g - 1
    error = np.sqrt(second * (g - 1) / g)
    return ndtr(max(1.0, error / spread) * stdtrit(df, tails))
