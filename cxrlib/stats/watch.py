"""Watching a device in use, patient by patient, with tests that hold whenever one looks.

A watch bets against a null hypothesis such as "sensitivity is at least 0.75". It starts with 1 and
stakes a part of what it has on each patient, at odds that are fair or worse if the null holds. Then
its wealth grows to 1 / level, however long one watches, with a chance of at most `level` (Ville
1939): an alarm at that wealth is a false one at most that often, and one may look after every
patient and stop when one likes. Bets are those of Waudby-Smith and Ramdas 2024 on bounded means;
groups are compared in blocks (Turner, Ly and Gruenwald 2024; of audits Chugg et al. 2023); money
that is put down later starts a bet of its own (Shin, Ramdas and Rinaldo 2023).

The unit is the patient. A patient enters once, when all films of the visit have been read, with one
number in [0, 1], such as the share of the findings that were found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from cxrlib.core import checks
from cxrlib.core.folders import BENCHMARKS
from cxrlib.stats import metrics

# The first three were chosen on streams like those of benchmarks/watch.py, with other seeds.
CAUTION = 0.8  # share of Kelly's stake: smaller effects are found too, at little cost for others
KEPT = 0.25  # share of the capital that is not put down at once
RATE = 0.01  # of what is left of it, put down before each bet
SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16)  # of the largest stake, where nothing is known beforehand
LEAST = 0.01  # variance that is planned for, should the validation patients all be alike
RECORDED = BENCHMARKS / "watch.csv"
# Of the record: methods that are compared, and when its gaps begin.
BETS, USUAL = "bets, after every patient", "usual test, after every patient"
ONE, FOUR = "one test, planned for 80 % power", "four planned looks"
BATCH = "a test of each batch, levels shared"
CHANGES = ("gap from the first patient", "gap from patient 500", "gap from patient 1000")


def stake(effect: float, variance: float, most_lost: float) -> float:
    """What to bet at each patient or block, to find an effect soon.

    Parameters
    ----------
    effect : mean payoff that is worth finding, such as a gap of 0.10 beyond the tolerated one
    variance : of one payoff, as planned; a wrong guess costs time, never false alarms
    most_lost : see `wealth`; at most half of a stake that can ruin is bet

    Source: Kelly 1956 for small effects, with some caution.
    """
    if not (effect > 0 and variance > 0 and most_lost > 0):
        raise ValueError(
            f"effect={effect}, variance={variance}, most_lost={most_lost}: expected numbers above 0"
        )
    return min(CAUTION * effect / variance, 0.5 / most_lost)


def wealth(
    payoff: ArrayLike,
    most_lost: ArrayLike,
    stake: ArrayLike,
    kept: float = KEPT,
    rate: float = RATE,
) -> np.ndarray:
    r"""Wealth of a bettor after each patient or block, who starts with 1.

    Parameters
    ----------
    payoff : (..., n)
        What a stake of 1 wins. Under the null its mean is at most 0, given all that came before:
        ``promise - found`` for "sensitivity is at least `promise`", ``gap - tolerated`` for "the
        gap is at most `tolerated`". Streams lie beside each other in the leading axes.
    most_lost : float or (...)
        The payoff is never below minus this: ``1 - promise``, ``1 + tolerated``.
    stake : float or (...), from 0 to below 1 / most_lost
        Share of the wealth on the table that is bet each time, see `stake`; fixed beforehand.
    kept : share in [0, 1] that is not put down at once
        Of what is left of it, `rate` is put down before each bet, so that money is there for a
        change that comes late.
    rate : float in [0, 1]

    Returns
    -------
    (..., n), not negative. Under the null its mean is at most 1 at any time that is chosen without
    looking ahead.

    Raises
    ------
    ValueError
        A payoff below minus `most_lost`, or not a number; a stake or shares out of range.

    :Formula: $K_t = r_t + \sum_{s \le t} p_s \prod_{i=s}^{t} (1 + \lambda y_i)$, with $p_s$ put
        down before bet $s$ and $r_t$ still kept
    :Source: Waudby-Smith and Ramdas 2024, section 4, for fixed bets; the sum: Shin et al. 2023.
    """
    y = np.asarray(payoff, float)
    most, bet = (np.broadcast_to(np.asarray(a, float), y.shape[:-1]) for a in (most_lost, stake))
    if not ((most > 0) & (bet >= 0) & (bet * most < 1)).all():
        raise ValueError("stake: expected 0 to below 1 / most_lost, and most_lost above 0")
    if not (0 <= kept <= 1 and 0 <= rate <= 1):
        raise ValueError(f"kept={kept}, rate={rate}: expected shares from 0 to 1")
    if not (y >= -most[..., None] - 1e-9).all():
        raise ValueError(
            "payoff: a number is below minus most_lost, or missing. Are the patients' numbers all "
            "within 0 and 1?"
        )
    on_table, left = np.full(y.shape[:-1], 1.0 - kept), kept
    out = np.empty(y.shape)
    for t in range(y.shape[-1]):
        put, left = left * rate, left * (1 - rate)
        on_table = (on_table + put) * (1 + bet * y[..., t])
        out[..., t] = on_table + left
    return out


def first_alarm(wealth: ArrayLike, level: float = 0.05) -> np.ndarray:
    """After how many patients or blocks each wealth (..., n) first reaches 1 / level; inf if never.

    Under the null it ever does so with a chance of at most `level` (Ville 1939).
    """
    checks.fractions(level=level)
    there = np.asarray(wealth, float) >= 1 / level
    if not there.shape[-1]:
        return np.full(there.shape[:-1], np.inf)
    return np.where(there.any(-1), there.argmax(-1) + 1.0, np.inf)


def blocks(
    values: ArrayLike, group: ArrayLike, pair: tuple[str, str], sizes: tuple[int, int] = (1, 1)
) -> pd.DataFrame:
    """Differences between two groups, block by block: first minus second group of the pair.

    The first `sizes` patients of the groups make the first block, the next the second, so nobody
    is used twice, and nothing that comes later changes a block. Patients of the group that is
    ahead wait. Sizes are fixed beforehand, about as the groups are expected to come.

    Parameters
    ----------
    values : (n,) numbers in [0, 1], one a patient, in the order of their coming
    group : (n,)
    pair : two of the groups; other patients are left out
    sizes : patients of each in a block

    Returns
    -------
    DataFrame, one row per block: ``difference`` of the means, in [-1, 1], and ``patient``, how
    many had come (all groups) when the block was complete.

    Raises
    ------
    ValueError
        A value outside [0, 1], or as many groups as values are not given.
    """
    x, group = np.asarray(values, float), np.asarray(group)
    if x.shape != group.shape or not ((x >= 0) & (x <= 1)).all():
        raise ValueError("values: expected one number within 0 and 1 a patient, and their groups")
    if min(sizes) < 1:
        raise ValueError(f"sizes={sizes}: expected 1 or more patients of each group")
    at = [np.flatnonzero(group == name) for name in pair]
    n = min(len(where) // size for where, size in zip(at, sizes, strict=True))
    rows = [w[: n * size].reshape(n, size) for w, size in zip(at, sizes, strict=True)]
    first, second = (x[of].mean(1) for of in rows)
    complete = np.maximum(*(of.max(1) for of in rows)) + 1 if n else np.zeros(0, int)
    return pd.DataFrame({"difference": first - second, "patient": complete})


def band(
    difference: ArrayLike, level: float = 0.05, step: float = 0.005
) -> tuple[np.ndarray, np.ndarray]:
    """A confidence sequence: limits of a gap after each block that hold at all times together.

    A gap is within the limits while a bettor against it, half of whose money says "more" and half
    "less", is not rich. A gap that stays the same is inside at all times with a chance of at least
    1 - level. Of one that moves, a lower limit says that the gap was above it at some time.

    Parameters
    ----------
    difference : (n,) in [-1, 1]
    level : float in (0, 1)
    step : how finely gaps are tried; limits are rounded outwards by it

    Returns
    -------
    low, high : (n,) in [-1, 1]; NaN should no gap be left

    Source: Waudby-Smith and Ramdas 2024, section 4.
    """
    checks.fractions(level=level)
    d = np.asarray(difference, float)
    gap = np.linspace(-1, 1, round(2 / step) + 1)[1:-1]
    more, less = np.zeros((2, len(gap), len(d)))
    for share in SHARES:  # of the largest stake, equal parts of the capital
        with np.errstate(over="ignore"):  # who bets against a gap of -1 is soon infinitely rich
            more += wealth(d - gap[:, None], 1 + gap, share / (1 + gap), kept=0) / len(SHARES)
            less += wealth(gap[:, None] - d, 1 - gap, share / (1 - gap), kept=0) / len(SHARES)
    inside = more + less < 2 / level
    low = gap[inside.argmax(0)] - step
    high = gap[len(gap) - 1 - inside[::-1].argmax(0)] + step
    return np.where(inside.any(0), (low, high), np.nan)


# --- from predictions to one number a patient --------------------------------------------------


def operating_points(predictions: pd.DataFrame, specificity: float) -> dict[str, float]:
    """Label -> threshold with this specificity, of the labels that some image has and some has not.

    predictions : one row per image and label, with ``label, y_true, score``
    """
    return {
        label: metrics.threshold_at_specificity(rows["y_true"], rows["score"], specificity)
        for label, rows in predictions.groupby("label", sort=False)
        if rows["y_true"].nunique() == 2
    }


def found(
    predictions: pd.DataFrame, thresholds: Mapping[str, float], attribute: str
) -> pd.DataFrame:
    """Of each ill patient, the share of the findings that are found: one number, one bet.

    Parameters
    ----------
    predictions : DataFrame
        One row per image and label, with ``patient_id, label, y_true, score`` and the attribute.
    thresholds : dict of label -> threshold
        A score above it finds the label; other labels are left out.
    attribute : str
        Column of the patients' groups, such as "sex".

    Returns
    -------
    DataFrame, one row per patient with a finding, in the order of their first rows:
    ``patient_id``, ``found`` in [0, 1] over all films and findings of the patient, and ``group``.
    """
    ill = predictions[(predictions["y_true"] == 1) & predictions["label"].isin(list(thresholds))]
    hit = (ill["score"] > ill["label"].map(thresholds).astype(float)).astype(float)
    people = ill.assign(found=hit, group=ill[attribute]).groupby("patient_id", sort=False)
    return people.agg({"found": "mean", "group": "first"}).reset_index()


@dataclass(frozen=True)
class Plan:
    """What is promised, to whom, and what is bet against it; fixed before the first patient comes.

    Attributes
    ----------
    promise : float
        Null hypothesis of all patients: of each next one, the expected share found is at least it.
    pair : (str, str)
    tolerated : float
        Null of two groups: of each next pair, the expected difference, first minus second group,
        is at most it.
    variance : float
        Of such a difference.
    on_gap, on_all : float
        Stakes against the null of two groups, and that of all patients.
    """

    promise: float
    pair: tuple[str, str]
    tolerated: float
    variance: float
    on_gap: float
    on_all: float


def plan(
    before: pd.DataFrame, pair: tuple[str, str], allowed: float, tolerated: float, worth: float
) -> Plan:
    """A plan from validation patients.

    Parameters
    ----------
    before : DataFrame
        From :func:`found`.
    pair : two of its groups; the second one is feared to be served worse
    allowed : loss of sensitivity that breaks no promise
    tolerated : gap that raises no alarm
    worth : what is beyond either and worth finding soon

    Raises
    ------
    ValueError
        Fewer than two patients of a group.
    """
    groups = before[before["group"].isin(pair)].groupby("group")["found"]
    if (groups.size().reindex(pair, fill_value=0) < 2).any():
        raise ValueError(
            f"before: fewer than two ill patients of {' or '.join(pair)}; take more images"
        )
    promise, pooled = float(before["found"].mean()) - allowed, float(before["found"].var())
    of_pair = float(groups.var().sum())
    return Plan(
        promise=promise,
        pair=pair,
        tolerated=tolerated,
        variance=of_pair,
        on_gap=stake(worth, max(of_pair, LEAST), 1 + tolerated),
        on_all=stake(worth, max(pooled, LEAST), 1 - promise),
    )


def watched(
    people: pd.DataFrame, plan: Plan, level: float = 0.05
) -> tuple[dict[str, float], pd.DataFrame]:
    """Both watches of a plan, from the first patient to the last.

    Parameters
    ----------
    people : DataFrame
        From :func:`found`, in the order of their coming.
    plan : Plan
    level : float in (0, 1)
        The largest chance of a false alarm, of each watch.

    Returns
    -------
    alarms : dict
        "gap", "promise" -> how many patients had come at the alarm; inf if there was none.
    course : DataFrame
        One row per pair: ``patient`` (how many had come), ``difference``, ``gap`` (mean so far),
        ``low``, ``high`` (:func:`band`) and ``wealth`` of the watch of the gap.
    """
    course = blocks(people["found"], people["group"], plan.pair)
    d, short = course["difference"], plan.promise - people["found"]
    low, high = band(d, level)
    rich = wealth(d - plan.tolerated, 1 + plan.tolerated, plan.on_gap)
    pairs = first_alarm(rich, level)
    patients = course["patient"].iloc[int(pairs) - 1] if np.isfinite(pairs) else np.inf
    all_rich = wealth(short, 1 - plan.promise, plan.on_all)
    alarms = {"gap": float(patients), "promise": float(first_alarm(all_rich, level))}
    return alarms, course.assign(gap=d.expanding().mean(), low=low, high=high, wealth=rich)


# --- the usual tests, to set beside -----------------------------------------------------------


def p_values(payoff: ArrayLike) -> np.ndarray:
    """One-sided p-values of the usual z test after each patient or block: mean of the payoff <= 0.

    payoff (..., n) -> (..., n). Each is right for one look, at a time fixed beforehand. 1 where all
    payoffs so far are equal.
    """
    y = np.asarray(payoff, float)
    n = np.arange(1, y.shape[-1] + 1)
    mean = np.cumsum(y, -1) / n
    variance = np.maximum(np.cumsum(y**2, -1) / n - mean**2, 0) * n / np.maximum(n - 1, 1)
    known = variance > 1e-12
    z = mean / np.sqrt(np.where(known, variance, 1) / n)
    return np.where(known, 1 - ndtr(z), 1.0)


def planned_size(effect: float, variance: float, level: float = 0.05, power: float = 0.8) -> int:
    """Patients or blocks that a single one-sided z test needs to find a mean payoff of `effect`.

    variance : of one payoff.
    """
    checks.fractions(level=level, power=power)
    if effect <= 0:
        raise ValueError(f"effect={effect}: expected a number above 0")
    return int(np.ceil((ndtri(1 - level) + ndtri(power)) ** 2 * variance / effect**2))


def recorded(path: Path = RECORDED) -> pd.DataFrame:
    """How often watches and usual tests cried wolf, and how soon they found a gap.

    Returns
    -------
    DataFrame, one row per design and method of ``benchmarks/watch.py``: n_streams, n_patients of a
    stream, the planted gap and the patient from whom on, n_false (alarms before), n_found, and the
    quartiles of the patients from the change to the alarm, inf where it never came.
    """
    return pd.read_csv(path)


def compared(recorded: pd.DataFrame) -> pd.DataFrame:
    """The record in short, one row per method.

    Returns
    -------
    DataFrame with ``false`` and ``most_false`` (share of fair streams with an alarm, in all designs
    and in the worst), and for each of `CHANGES` the median patients from the change to the alarm.
    """
    fair = recorded[recorded["gap"] == 0]
    shares = (fair["n_false"] / fair["n_streams"]).groupby(fair["method"], sort=False)
    medians = recorded.pivot(index="method", columns="design", values="median")[list(CHANGES)]
    return shares.agg(false="mean", most_false="max").join(medians)
