"""Borrowed strength: what can be said of a small group with the help of those that are like it.

Groups are the cells of crossed attributes, such as sex x age x race x site. One model of areas (Fay
and Herriot 1979) holds all answers. On the logit scale the cell k is

    z_k = x_k' beta + u_k + e_k

with what its attributes add up to, what is left of it (u, whose standard deviation is learned,
`SPREADS`), and the luck of its films (e, of known covariance). A mean and u are empirical Bayes,
attributes alone are additive, both together structured (in the sense of Herlihy et al. 2024); were
u of any size, the number would be the raw one.

A cell in which every answer is right has no logit. So z is linearised where the model puts the
cell, as in any logistic regression, and the variance of e is that of a share out of so many
*trials*, pooled over the cells: five films cannot tell their own variance. statsmodels fits no
model with a known covariance of e and an unknown one of u; what it does fit, tests compare.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.special import expit, ndtri

from cxrlib import schema
from cxrlib.core import checks
from cxrlib.core.folders import BENCHMARKS
from cxrlib.stats import estimates, fairness, influence, simulate

RAW, EMPIRICAL_BAYES, ADDITIVE, STRUCTURED = "raw", "empirical Bayes", "additive", "structured"
METHODS = (RAW, EMPIRICAL_BAYES, ADDITIVE, STRUCTURED)
METRICS = ("auc", "sensitivity")
FEWEST = 5  # positive and negative images of a cell that is given a number
SPREADS = np.linspace(0, 1.5, 16)  # of u, in logits; equally likely before the data are seen
WIDE = (
    2.5  # standard deviation in logits of beta before the data are seen, felt where all are right
)
FARTHEST = 6.0  # logit at which z is linearised at most
ALMOST_ALIKE = 0.99  # of correlations, so that no two cells count as one
SIZES = {"5 to 9": 5, "10 to 29": 10, "30 or more": 30}  # positive images of a recorded cell
LARGE, THEY = "30 or more", ": they"
RECORDED = BENCHMARKS / "borrowed.csv"
BORROWED = "borrowed strength"  # begins the note of every such number


@dataclass(frozen=True)
class Cells:
    """What the films say of each cell, without help.

    Attributes
    ----------
    groups : DataFrame, one row per cell, one column per attribute
    value : (k,) in [0, 1], the metric
    trials : (k,) of a share with the variance that the value has, patients being the unit
    correlation : (k, k) of the values: patients whose films lie in several cells
    counts : of each cell, as in the results table
    """

    groups: pd.DataFrame
    value: np.ndarray
    trials: np.ndarray
    correlation: np.ndarray
    counts: list[dict[str, int]]


@dataclass(frozen=True)
class Fit:
    """What a model says of each cell.

    Attributes
    ----------
    value, low, high : (k,) in [0, 1], and the limits of its interval
    own : (k,) how much of the value moves with the cell's own; 1 is raw
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    own: np.ndarray


# --- what the films say -----------------------------------------------------------------------


def observed(
    y: np.ndarray, score: np.ndarray, patient_id: np.ndarray, groups: pd.DataFrame, metric: str
) -> Cells:
    """The metric in each cell, with its variance pooled over cells.

    Parameters
    ----------
    y, score, patient_id : (n,) 0/1, scores (for sensitivity: decisions of 0/1) and patients
    groups : DataFrame with the attributes of these images, none missing. All cells need an ill
        image, for AUC a healthy one, too.
    metric : "auc" (of the cell's ill against the cell's healthy) or "sensitivity"

    Source: placement values, DeLong et al. 1988; smoothing of variances, as usual for small areas.
    """
    checks.one_of("metric", metric, METRICS)
    y, score = np.asarray(y, bool), np.asarray(score, float)
    code, kept = pd.MultiIndex.from_frame(groups.astype(object)).factorize(sort=False)
    person = pd.factorize(np.asarray(patient_id))[0]
    n_cells = len(kept)
    value, moves = np.zeros(n_cells), np.zeros(len(y))  # an image has influence on its own cell
    for k in range(n_cells):
        own = code == k
        if metric == "auc":
            found = influence.auc(y[own], score[own])
        else:
            found = influence.mean(score[own], y[own])
        value[k], moves[own] = np.clip(found.value, 0, 1), found.influence
    ill, well = (np.bincount(code, side, n_cells) for side in (y, ~y))
    per_trial = 1 / ill  # the variance of one trial is value * (1 - value)
    if metric == "auc":
        unit = value * (1 - value)
        squares = [np.bincount(code, moves**2 * side, n_cells) for side in (y, ~y)]
        of_both = _placed(squares[0], ill, unit) + _placed(squares[1], well, unit)
        per_trial = np.maximum(of_both, 1 / (ill * well))
    by_patient = coo_array((moves, (code, person))).tocsr()
    covariance = (by_patient @ by_patient.T).toarray()
    # Large cells know best how much the films of a patient repeat each other.
    clustered, single = np.diag(covariance), np.bincount(code, moves**2, n_cells)
    if single.any():
        per_trial = per_trial * max(1.0, (ill**2 @ clustered) / (ill**2 @ single))
    scale = np.sqrt(np.maximum(clustered, value * (1 - value) * per_trial))
    scale = np.where(scale > 0, scale, 1.0)
    correlation = ALMOST_ALIKE * covariance / scale / scale[:, None]
    np.fill_diagonal(correlation, 1.0)
    counts = [estimates.counts(y[code == k], person[code == k]) for k in range(n_cells)]
    cells = pd.DataFrame(list(kept), columns=groups.columns)
    return Cells(cells, value, 1 / per_trial, correlation, counts)


def _placed(squares, n, unit):
    """(k,) variance of a mean of n placement values, in variances of one trial, pooled.

    squares : (k,) sum of squared influences
    """
    if not (n * unit).any():  # all cells are perfect: as unsure as a coin
        return 1 / n
    of_one = squares * n**2 * n / np.maximum(n - 1, 1)
    return of_one.sum() / (n * unit).sum() / n


# --- what the others add ----------------------------------------------------------------------


def fit(cells: Cells, method: str = STRUCTURED, level: float = 0.95) -> Fit:
    """What a method says of all cells.

    Parameters
    ----------
    cells : Cells
    method : "raw" (limits: Wilson 1927), "empirical Bayes" (all cells are alike), "additive" (what
        the attributes add up to and no more) or "structured" (and what is left of a cell)
    level : float in (0, 1)

    Raises
    ------
    ValueError
        An unknown method; for all but raw, no more cells than the sum has coefficients.

    Source: Fay and Herriot 1979; for shares of trials, by nested Laplace approximations (Rue et al.
    2009): all is averaged over the spread of u, so that intervals hold what is not known of it, and
    of beta.
    """
    checks.one_of("method", method, METHODS)
    if method == RAW:
        from statsmodels.stats.proportion import proportion_confint

        right = cells.value * cells.trials
        low, high = proportion_confint(right, cells.trials, 1 - level, "wilson")
        return Fit(cells.value, low, high, np.ones(len(right)))
    sums, rest = _sums(cells.groups, method), alike_in(cells.groups, method)
    if len(sums) <= (rank := np.linalg.matrix_rank(sums)):
        raise ValueError(f"{len(sums)} groups for {rank} coefficients: nobody to borrow from")
    spreads = SPREADS[:1] if method == ADDITIVE else SPREADS
    middle, parts = np.zeros(len(sums)), []
    for spread in spreads:
        for _ in range(100):  # as a logistic regression is fitted: where the last step led
            at = np.clip(middle, -FARTHEST, FARTHEST)
            p = expit(at)
            z = at + (cells.value - p) / (p * (1 - p))
            error = 1 / np.sqrt(cells.trials * p * (1 - p))
            sampling = cells.correlation * error * error[:, None]
            total = sampling + sums + spread**2 * rest
            to_others = np.linalg.solve(total, sampling).T
            last, middle = middle, z - to_others @ z
            if np.abs(middle - last).max() < 1e-5:
                break
        variance = np.diag(sampling) - np.einsum("ij,ij->i", to_others, sampling)
        # of the trials, by way of the likelihood of z (Laplace)
        left = z - middle
        of_z = np.linalg.slogdet(sampling)[1] + left @ np.linalg.solve(sampling, left)
        of_z -= np.linalg.slogdet(total)[1] + z @ np.linalg.solve(total, z)
        of_trials = cells.trials @ (cells.value * middle - np.logaddexp(0, middle))
        parts.append((of_trials + of_z / 2, middle, variance, 1 - np.diag(to_others)))
    log_likelihood, means, variances, owns = map(np.array, zip(*parts, strict=True))
    share = np.exp(log_likelihood - log_likelihood.max())
    share /= share.sum()
    mean = share @ means
    half = ndtri(0.5 + level / 2) * np.sqrt(share @ (variances + (means - mean) ** 2))
    limits = expit(mean - half), expit(mean + half)
    return Fit(expit(mean), *limits, share @ owns)


def _sums(groups, method):
    """(k, k) covariance of x' beta: a mean, and for all but empirical Bayes an effect per group."""
    alike = np.ones((len(groups), len(groups)))
    if method != EMPIRICAL_BAYES:
        alike = alike + _same(groups).sum(0)
    return WIDE**2 * alike


def alike_in(groups: pd.DataFrame, method: str) -> np.ndarray:
    """(k, k) correlation of u. Structured, half is a cell's own and half shared with others.

    Old women of one site are like old women of another: of the interactions of two attributes and
    more, but fewer than all, two cells share those in which they agree.
    """
    own, same = np.eye(len(groups)), _same(groups)
    some = range(2, len(same)) if method == STRUCTURED else ()
    shared = [same[list(c)].all(0) for k in some for c in combinations(range(len(same)), k)]
    return (own + np.mean(shared, axis=0)) / 2 if shared else own


def _same(groups):
    """(attributes, k, k) bool: which cells are alike in an attribute."""
    codes = np.array([pd.factorize(groups[a])[0] for a in groups])
    return codes[:, :, None] == codes[:, None, :]


# --- tables -----------------------------------------------------------------------------------


def table(
    predictions: pd.DataFrame,
    attributes: Sequence[str],
    metric: str = "auc",
    methods: Sequence[str] = METHODS,
    *,
    fewest: int = FEWEST,
) -> pd.DataFrame:
    """A metric in all cells of crossed attributes, by each method, as a results table.

    Parameters
    ----------
    predictions : DataFrame
        The long table of `cxrlib.schema.predictions`, with the attributes joined in; for
        sensitivity one of `cxrlib.stats.fairness.decide`. Images that lack an attribute are in no
        cell.
    attributes : two or more columns
    metric : "auc" or "sensitivity"
    methods : names out of `METHODS`
    fewest : positive, and negative, images of a cell that is given a number; others lend nothing

    Returns
    -------
    Results table: each cell by each method, whose name stands behind that of the predictions:
    "zero-shot, structured". Notes of all but raw begin with `BORROWED` and say how much of the
    number is the cell's own.

    Raises
    ------
    ValueError
        An unknown method or metric, fewer than two attributes, scores that are no decisions.
    """
    estimates.check_known(methods, METHODS, "methods")
    checks.one_of("metric", metric, METRICS)
    attributes = (attributes,) if isinstance(attributes, str) else tuple(attributes)
    if len(attributes) < 2:
        raise ValueError(
            f"attributes: {', '.join(attributes) or 'none'}; expected two or more to cross."
        )
    fewest = max(fewest, 1, schema.smallest_cell())
    name, rows = estimates.attribute_name(attributes), []
    for study in estimates.studies(predictions, [attributes], n_resamples=2):
        in_cell = study.images[name]
        for (model, how, label), y, score, image in study.blocks():
            if metric == "sensitivity" and not np.isin(score, (0, 1)).all():
                raise ValueError(
                    f"predictions, {model}, {label}: scores that are no decisions of 0 or 1; make "
                    "them with cxrlib.stats.fairness.decide."
                )
            cell, patient = in_cell.iloc[image], study.patient[image]
            about = {"cohort": study.cohort, "model": model, "label": label, "attribute": name}
            about |= {"metric": metric, "unit": "patient"}
            counts, why = {}, {}
            for group in study.groups[name]:
                own = (cell == group).to_numpy()
                counts[group] = estimates.counts(y[own], patient[own])
                why[group] = estimates.not_given(y[own], patient[own], fewest)
            kept = cell.map(why).eq("").to_numpy()
            if kept.any():
                groups = study.images[[*attributes]].iloc[image[kept]]
                cells = observed(y[kept], score[kept], patient[kept], groups, metric)
            for method in methods:
                found = _rows(cells, method) if kept.any() else {}
                for group in study.groups[name]:
                    of = found.get(group, {"note": why[group]})
                    note = estimates.joined(of["note"], study.missing[name])
                    of_method = {"method": f"{how}, {method}", "group": group}
                    rows.append(about | of_method | counts[group] | of | {"note": note})
    return schema.results(rows)


def _rows(cells, method):
    """group -> value, limits and note of a method."""
    names = cells.groups.agg(" x ".join, axis=1)
    try:
        of = fit(cells, method)
    except ValueError as error:
        return {group: {"note": f"undefined: {error}"} for group in names}
    notes = [f"{BORROWED}: {own:.0%} its own" if method != RAW else "" for own in of.own]
    return {
        group: {"value": value, "ci_low": low, "ci_high": high, "note": note}
        for group, value, low, high, note in zip(
            names, of.value, of.low, of.high, notes, strict=True
        )
    }


def own_share(table: pd.DataFrame) -> pd.Series:
    """How much of each number of `table` is the cell's own, in [0, 1]; NaN where it is raw."""
    return table["note"].str.extract(rf"{BORROWED}: (\d+)%", expand=False).astype(float) / 100


def filled(results: pd.DataFrame, borrowed: pd.DataFrame) -> pd.DataFrame:
    """A table of results with borrowed numbers where its own are undefined.

    Parameters
    ----------
    results : results table, such as `cxrlib.stats.fairness.performance_table` gives
    borrowed : results table of one method, from `table`

    Returns
    -------
    The results; an undefined row that has a borrowed counterpart gives way to it. Its method, as in
    "zero-shot, structured", and its note say so.
    """
    keys = ["cohort", "model", "label", "attribute", "group", "metric"]
    checks.one_row_each(borrowed, keys)
    known = borrowed.dropna(subset="value").set_index(keys)
    at = pd.MultiIndex.from_frame(results[keys])
    gives_way = results["value"].isna().to_numpy() & at.isin(known.index)
    theirs = known.loc[at[gives_way]].reset_index().set_index(results.index[gives_way])
    return schema.results(pd.concat([results[~gives_way], theirs]).sort_index(kind="stable"))


def crossed(
    predictions: pd.DataFrame,
    attributes: Sequence[str],
    metric: str = "auc",
    **sampling: Unpack[estimates.Sampling],
) -> pd.DataFrame:
    """Crossed groups by their own films where these are enough, and with borrowed strength else.

    Parameters
    ----------
    predictions, attributes, metric : as in `table`
    sampling : of the own numbers, as in `cxrlib.stats.fairness.performance_table`

    Returns
    -------
    Results table, see `filled`: borrowed numbers have the method "zero-shot, structured".
    """
    attributes = tuple(map(str.strip, attributes))
    lent = table(predictions, attributes, metric, (STRUCTURED,))
    own = fairness.performance_table(
        predictions, metric, [attributes], mean_over_labels=False, **sampling
    )
    return filled(schema.rows(own, attribute=estimates.attribute_name(attributes)), lent)


def recorded(path: Path = RECORDED) -> pd.DataFrame:
    """What the methods said where the truth was known: ``benchmarks/borrowed.py``.

    Returns
    -------
    DataFrame, one row per design, metric, method, size of a cell (`SIZES`) and whether it is one of
    the old women's (special): cells that were judged (n_studies), counts of those whose interval
    holds the truth, lies below or above it, or excludes the mean over all cells (n_claims), sum of
    squared errors, mean error, width, own share and range of all values in a study; and coverage
    with its interval, see `cxrlib.stats.simulate.shares`.
    """
    return simulate.shares(pd.read_csv(path))


def errors(record: pd.DataFrame) -> pd.DataFrame:
    """Root-mean-square error of small cells (fewer than 30 positives), a column per method.

    record : from `recorded`. Returns one row per design and metric, in their order.
    """
    few = record[record["size"] != LARGE]
    sums = few.groupby(["design", "metric", "method"], sort=False)[["squares", "n_studies"]].sum()
    found = (sums["squares"] / sums["n_studies"]) ** 0.5
    return found.unstack("method")[[*METHODS]].rename_axis(columns=None)


def coverage(record: pd.DataFrame) -> pd.DataFrame:
    """How often intervals of small cells hold the truth, in per cent, of both metrics together.

    record : from `recorded`. Returns a table for `cxrlib.show.plots.crossed_groups`: one row per
    design (as group; old women who alone are harmed, `THEY`, apart from the others) and method.
    """
    few = record[record["size"] != LARGE]
    who = few["special"].map({True: THEY, False: ": others"})
    who = who.where(few["design"].str.contains("old women"), "")
    held = few.assign(design=few["design"] + who).groupby(["design", "method"], sort=False)
    held = held[["n_studies", "n_undefined", "n_hold"]].sum()
    found = simulate.in_percent(simulate.shares(held.reset_index()))
    place = pd.factorize(found["design"])[0]  # stands for a size, which orders the lines
    return found.assign(group=found["design"], metric="coverage, %", n_positive=place)
