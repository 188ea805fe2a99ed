"""Is a gap more than chance, and how many patients would show it?

A gap between two finite groups is never exactly 0, and of many gaps some look large. Here a gap is
set beside the gaps that an exactly fair model would show on the same patients, and a family of
gaps is corrected for its size.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Unpack

import numpy as np
import pandas as pd
from scipy.special import ndtri

from cxrlib import schema
from cxrlib.core import checks
from cxrlib.protocol import protocol_of
from cxrlib.stats import analytic, bootstrap, fairness
from cxrlib.stats import estimates as est

METHODS = {"p_holm": "holm", "p_bh": "fdr_bh"}  # columns of corrected p-values, by statsmodels name


def gap_tests(
    predictions: pd.DataFrame,
    comparisons: Mapping[est.Attribute, est.Pairs | str | None],
    *,
    metrics: str | Sequence[str] = fairness.DEFAULT,
    n_permutations: int = 1000,
    alpha: float = 0.05,
    mean_over_labels: bool = True,
    **sampling: Unpack[est.Sampling],
) -> pd.DataFrame:
    """Gaps between groups with their noise floor, p-value and corrections over the family.

    The noise floor is the distribution of the gap if the model were exactly fair: groups are dealt
    anew to patients with the same label, `n_permutations` times. For the mean over labels, the
    labels share the order in which patients are dealt. A patient whose group changes between images
    is dealt with as one patient per group.

    Parameters
    ----------
    predictions : DataFrame, as in `cxrlib.stats.fairness.performance_table`
    comparisons : dict attribute -> list of pairs (A, B), a reference group, or None for all pairs:
        {"sex": [("F", "M")], "race": "White", "age_group": None}. All of them, for all models,
        methods, labels and metrics in the result, are one family. A list of pairs also says which
        groups count in the choice of labels for the mean.
    metrics, mean_over_labels : as in `performance_table`; sampling is its protocol, n_resamples
        and seed
    n_permutations : int; Holm's correction of K gaps can flag one only with more than K / alpha.
        With the protocol's interval "analytic" 0 is allowed: Student's test of the same standard
        error, and no noise floor
    alpha : 1 - level of the simultaneous bands

    Returns
    -------
    DataFrame: the rows of `cxrlib.stats.fairness.gap_table` and

    floor_mean, floor_p95 : mean and 95th percentile of the absolute gap of a fair model
    n_permutations : on which the gap was defined
    p_value : (1 + permutations with at least this absolute gap) / (1 + n_permutations)
    p_holm, p_bh : corrected by Holm and by Benjamini-Hochberg (statsmodels) over the family
    band_low, band_high : simultaneous intervals of the family, gap -+ c SE, with c the quantile of
        the largest abs(gap* - gap) / SE in the same resamples (max-t); with analytic intervals see
        `cxrlib.stats.analytic.bands`
    """
    parts = []
    if not n_permutations and protocol_of(sampling.get("protocol", "corrected")).interval != (
        est.ANALYTIC
    ):
        raise ValueError(
            "n_permutations: 0; expected 1 or more. Only with interval='analytic' is there a test "
            "without permutations."
        )
    attributes = {attribute: _named(asked) for attribute, asked in comparisons.items()}
    metrics = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    for study, found in est.estimated(
        predictions, attributes, metrics, mean_over_labels=mean_over_labels, match=None, **sampling
    ):
        gaps, null = {}, {}
        for attribute, asked in comparisons.items():
            name = est.attribute_name(attribute)
            pairs = _pairs(study.groups[name], asked)
            gaps |= est.group_gaps(found, name, pairs)
            kept = est.labels_in_mean(found, name) if mean_over_labels else ()
            if n_permutations:
                null |= _null_gaps(study, name, pairs, metrics, n_permutations, kept)
        parts.append(_table(study, gaps, null, alpha))
    return pd.concat(parts, ignore_index=True)


def multiclass_gap_tests(
    predictions: pd.DataFrame,
    comparisons: Mapping[str, est.Pairs | str | None],
    *,
    n_permutations: int = 1000,
    alpha: float = 0.05,
    **sampling: Unpack[est.Sampling],
) -> pd.DataFrame:
    """`gap_tests` for a classifier that picks one class per image (X Eqs. 2-4).

    Groups are dealt anew to patients with the same true class. Columns and parameters are those of
    `gap_tests`, rows those of `cxrlib.stats.fairness.multiclass_table` for pairs of groups.
    """
    parts = []
    for study in est.studies(predictions, list(comparisons), **sampling):
        pairs = {a: _pairs(study.groups[a], asked) for a, asked in comparisons.items()}
        gaps, null = {}, {}
        for names, answers in fairness.class_answers(study):
            found = fairness.multiclass_estimates(answers, study, pairs)
            for attribute, its_pairs in pairs.items():
                drawn = _null_multiclass(study, answers, attribute, its_pairs, n_permutations)
                for (pair, metric), values in drawn.items():
                    where = ("all", attribute, pair, metric)
                    key = est.Key(*names, *where)
                    gaps[key], null[key] = found[where], values
        parts.append(_table(study, gaps, null, alpha))
    return pd.concat(parts, ignore_index=True)


def _named(asked):
    """The groups that a list of pairs names, in order; None where none is given."""
    if asked is None or isinstance(asked, str):
        return None
    return list(dict.fromkeys(g for pair in asked for g in pair))


def _pairs(known, asked):
    reference = asked if isinstance(asked, str) else None
    return est.pairs_of(known, None if reference else asked, reference)


def _table(study, gaps, null, alpha):
    table = schema.results(est.rows(gaps, study, differences=True))
    values = np.array([e.value for e in gaps.values()])
    # Where credentialed data have too few images behind a gap, its test would tell what it was.
    hidden = table["value"].isna().to_numpy() & (schema.smallest_cell() > 0)
    values[hidden] = np.nan
    known = zip(gaps, hidden, strict=True)
    drawn = (np.nan if gone else null.get(key, np.nan) for key, gone in known)
    floor = [pd.Series(np.abs(x)) for x in drawn]
    table["floor_mean"] = [x.mean() for x in floor]
    table["floor_p95"] = [x.quantile(0.95) for x in floor]
    table["n_permutations"] = [x.count() for x in floor]
    # as large as observed, up to rounding in the last digits
    table["p_value"] = [
        (1 + (x >= abs(v) - 1e-12).sum()) / (1 + x.count()) if np.isfinite(v) else np.nan
        for v, x in zip(values, floor, strict=True)
    ]
    if study.analytic:
        none = np.zeros(study.resamples.code.max() + 1)
        moved = np.stack([none if e.moved is None else e.moved for e in gaps.values()])
        low, high = analytic.bands(values, moved, alpha, study.resamples.seed)
        if not null:
            table["p_value"] = list(map(analytic.p_value, values, moved))
    else:
        replicates = np.stack([e.replicates for e in gaps.values()], axis=1)
        low, high = simultaneous_bands(values, replicates, alpha)
    for column, method in METHODS.items():
        table[column] = corrected(table["p_value"], method)
    return table.assign(band_low=low, band_high=high)


def corrected(p_values: np.ndarray | pd.Series, method: str) -> np.ndarray:
    """p-values corrected for the size of their family, by statsmodels; undefined ones stay NaN.

    p_values : (K,)
    method : "holm" (chance of any false alarm) or "fdr_bh" (share of false alarms among alarms)
    """
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p_values, dtype=float)
    out = np.full(len(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        out[known] = multipletests(p[known], method=method)[1]
    return out


def simultaneous_bands(
    values: np.ndarray, replicates: np.ndarray, alpha: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals that hold all true values at once with probability 1 - alpha.

    ``value -+ c SE``: SE is the standard deviation of the replicates, c the 1 - alpha quantile over
    resamples of the largest abs(replicate - value) / SE (max-t; Westfall and Young 1993).

    Parameters
    ----------
    values : (K,), NaN where undefined: not in the family
    replicates : (B, K) on the same resamples

    Returns
    -------
    low, high : (K,), NaN where undefined or without any spread
    """
    values, replicates = np.asarray(values, float), np.asarray(replicates, float)
    spread = np.full(len(values), np.nan)
    known = np.isfinite(values) & (np.isfinite(replicates).sum(axis=0) > 1)
    spread[known] = np.nanstd(replicates[:, known], axis=0, ddof=1)
    spread[spread == 0] = np.nan
    known = np.isfinite(spread)
    if not known.any():
        return np.full_like(values, np.nan), np.full_like(values, np.nan)
    t = np.abs(replicates[:, known] - values[known]) / spread[known]
    largest = np.nanmax(np.where(np.isfinite(t).any(axis=1, keepdims=True), t, 0), axis=1)
    c = np.quantile(largest, 1 - alpha)
    return values - c * spread, values + c * spread


def as_family(tests: pd.DataFrame) -> pd.DataFrame:
    """Some rows of :func:`gap_tests` with `p_holm` and `p_bh` corrected for these rows alone."""
    return tests.assign(**{p: corrected(tests["p_value"], m) for p, m in METHODS.items()})


def flagged(tests: pd.DataFrame, alpha: float = 0.05) -> dict:
    """How many comparisons of a family are flagged, before and after correction.

    Returns
    -------
    dict: comparisons (with a p-value), undefined, and the counts uncorrected, holm, bh, band
        (the simultaneous band excludes 0). holm is None where even the smallest p-value that the
        permutations can give would not pass it.
    """
    possible = _smallest(tests) * tests["p_value"].notna().sum() < alpha
    outside = (tests["band_low"] > 0) | (tests["band_high"] < 0)
    return {
        "comparisons": int(tests["p_value"].notna().sum()),
        "undefined": int(tests["p_value"].isna().sum()),
        "uncorrected": int((tests["p_value"] < alpha).sum()),
        "holm": int((tests["p_holm"] < alpha).sum()) if possible else None,
        "bh": int((tests["p_bh"] < alpha).sum()),
        "band": int(outside.sum()),
    }


def fewest_alarms(tests: pd.DataFrame, alpha: float = 0.05) -> int:
    """How many gaps Benjamini and Hochberg flag at once, at the least, with these permutations.

    No p-value is below 1 / (1 + permutations); k of K comparisons that reach it are flagged if
    ``K / k / (1 + permutations) < alpha``. From 2 on, a single gap cannot be, however large it is.
    """
    return int(tests["p_value"].notna().sum() * _smallest(tests) / alpha) + 1


def _smallest(tests):
    """The smallest p-value that there can be: 0 of a test without permutations."""
    n = tests["n_permutations"].max()
    return 1 / (1 + n) if n else 0.0


# --- exactly fair models ----------------------------------------------------------------------


def _null_gaps(study, attribute, pairs, metrics, n_permutations, mean_of):
    """Gaps of fair models: Key -> (P,); with their mean over the labels in `mean_of`, if any."""
    statistics, truth = {}, {}
    for (*names, label), y, score, image in study.blocks():
        statistics.setdefault(label, {})[tuple(names)] = est.statistic(y, score, image, metrics)
        truth.setdefault(label, np.zeros(len(study.images), dtype=bool))[image] |= y
    groups = list(dict.fromkeys(g for pair in pairs for g in pair))
    tasks = [(x, m, g) for x, models in statistics.items() for m, g in product(models, groups)]
    drawn = {task: [] for task in tasks}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for deal in _deals(study, attribute, groups, n_permutations):
            member = {label: deal(y[:, None]) for label, y in truth.items()}

            def on(task, member=member):
                label, model, group = task
                found = statistics[label][model](member[label][group])
                return [found[metric] for metric in metrics]

            for task, values in zip(tasks, pool.map(on, tasks), strict=True):
                drawn[task].append(values)
    of = {task: np.concatenate(parts, axis=1) for task, parts in drawn.items()}
    out = {}
    for model in dict.fromkeys(m for _, m, _ in tasks):
        for a, b in pairs:
            gaps = {x: of[x, model, a] - of[x, model, b] for x in statistics if (x, model, a) in of}
            kept = [gaps[label] for label in mean_of if label in gaps]
            if kept:
                gaps["mean"] = np.mean(kept, axis=0)
            for label, by_metric in gaps.items():
                for metric, gap in zip(metrics, by_metric, strict=True):
                    out[est.Key(*model, label, attribute, f"{a} - {b}", metric)] = gap
    return out


def _null_multiclass(study, answers, attribute, pairs, n_permutations):
    """Gaps of a fair classifier: (pair, metric) -> (P,)."""
    truth = np.zeros((len(study.images), len(answers.labels)), dtype=bool)
    truth[answers.image, answers.y] = True
    gaps = fairness.multiclass_gaps(answers)
    groups = list(dict.fromkeys(g for pair in pairs for g in pair))
    drawn = {}
    for deal in _deals(study, attribute, groups, n_permutations):
        own = {g: est.take(w, answers.image) for g, w in deal(truth).items()}
        for a, b in pairs:
            for (_, metric), values in gaps(own[a], own[b]).items():
                drawn.setdefault((f"{a} - {b}", metric), []).append(values)
    return {key: np.concatenate(values) for key, values in drawn.items()}


def _deals(study, attribute, groups, n_permutations):
    """Groups dealt anew, a few permutations at a time.

    Yields functions of truth (n, L) that give dict group -> (p, n) of 0/1. Patients change places
    only with patients who have the same labels, in any of their images. All calls of one function
    line the patients up in the same random order, so that a patient lands in the same group under
    most labels, and the gaps of different labels vary together as those of patients do.
    """
    group = pd.Categorical(study.images[attribute], categories=groups).codes.astype(np.int8)
    inside = np.flatnonzero(group >= 0)
    patient = pd.factorize(study.patient[inside] * len(groups) + group[inside])[0]
    n_patients = patient.max() + 1
    own = np.zeros(n_patients, dtype=np.int8)
    own[patient] = group[inside]
    rng = np.random.default_rng(study.resamples.seed)
    step = bootstrap.chunk_length(len(study.images))
    for start in range(0, n_permutations, step):
        count = min(step, n_permutations - start)
        line = np.argsort(rng.random((n_patients, count)), axis=0)

        def deal(truth, line=line, count=count):
            ever = np.zeros((n_patients, truth.shape[1]), dtype=bool)
            np.logical_or.at(ever, patient, truth[inside])
            stratum = np.unique(ever, axis=0, return_inverse=True)[1].ravel().astype(np.int16)
            # within each stratum, the first in line get the first group, and so on
            places = np.argsort(stratum[line], axis=0, kind="stable")
            lined_up = np.take_along_axis(line, places, axis=0)
            dealt = np.empty((n_patients, count), dtype=np.int8)
            seats = own[np.lexsort((own, stratum))]
            np.put_along_axis(dealt, lined_up, seats[:, None], axis=0)
            anew = np.full((len(study.images), count), -1, dtype=np.int8)
            anew[inside] = dealt[patient]
            return {g: (anew == i).astype(np.uint8).T for i, g in enumerate(groups)}

        yield deal


# --- planning ---------------------------------------------------------------------------------


def power_plan(
    predictions: pd.DataFrame,
    attribute: est.Attribute,
    gaps: Sequence[float] = (0.05,),
    *,
    pairs: est.Pairs | None = None,
    reference: str | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
    metrics: str | Sequence[str] = ("auc",),
    **sampling: Unpack[est.Sampling],
) -> pd.DataFrame:
    """Positives and patients per group that a study needs to show a gap.

    The standard error of a metric in a group falls as ``1 / sqrt(positives)`` at the group's
    prevalence and images per patient, so one run tells the cost of any other size:
    ``N = (v_A + v_B) (z_{1 - alpha/2} + z_{power})^2 / gap^2`` positives in each group, where v is
    the group's squared standard error, from resampled patients, times its positives.

    Parameters
    ----------
    predictions, attribute, pairs, reference, metrics : as in `cxrlib.stats.fairness.gap_table`;
        sampling is its protocol, n_resamples and seed
    gaps : absolute gaps that should be seen
    power : chance of seeing them
    alpha : chance of a false alarm, two-sided

    Returns
    -------
    DataFrame, one row per model, method, label, pair, metric and gap: n_positive_a, n_positive_b
    and n_patients_a, n_patients_b (present), detectable (gap that the present groups show with this
    power), gap, positives_needed (in each group), patients_needed_a, patients_needed_b, note.
    """
    checks.fractions(power=power, alpha=alpha)
    if not np.all(np.asarray(gaps) > 0):
        raise ValueError(f"gaps: {gaps!r}; expected absolute gaps above 0.")
    z = ndtri(1 - alpha / 2) + ndtri(power)
    out = []
    name = est.attribute_name(attribute)
    for study, found in est.estimated(
        predictions, [attribute], metrics, mean_over_labels=False, match=None, **sampling
    ):
        for a, b in est.pairs_of(study.groups[name], pairs, reference):
            for key in [k for k in found if k.attribute == name and k.group == a]:
                of_a, of_b = found[key], found[key._replace(group=b)]
                row = {"cohort": study.cohort} | key._replace(group=f"{a} - {b}")._asdict()
                out += [row | plan for plan in _plans(of_a, of_b, gaps, z)]
    return pd.DataFrame(out)


def easiest_and_hardest(plan: pd.DataFrame) -> pd.DataFrame:
    """Of each pair of a plan, the lines that show the smallest gap and only the largest.

    Parameters
    ----------
    plan : DataFrame
        From :func:`power_plan`.

    Returns
    -------
    DataFrame, two rows per pair; one where fewer than two lines have cases enough.
    """
    parts = []
    for _, pair in plan.groupby(["attribute", "group"], sort=False):
        known = pair.dropna(subset="detectable").sort_values("detectable")
        parts.append(known.iloc[[0, -1]] if len(known) > 1 else pair.head(1))
    return pd.concat(parts, ignore_index=True)


def _plans(a, b, gaps, z):
    spread = np.array([est.spread(e) if not e.note else np.nan for e in (a, b)])
    positives = np.array([a.n_positive, b.n_positive])
    patients = np.array([len(a.patients), len(b.patients)])
    for gap in gaps:
        needed = (spread**2 * positives).sum() * (z / gap) ** 2
        with np.errstate(invalid="ignore", divide="ignore"):
            people = np.ceil(needed * patients / positives)
        yield {
            "n_positive_a": positives[0],
            "n_positive_b": positives[1],
            "n_patients_a": patients[0],
            "n_patients_b": patients[1],
            "detectable": z * np.sqrt((spread**2).sum()),
            "gap": gap,
            "positives_needed": np.ceil(needed),
            "patients_needed_a": people[0],
            "patients_needed_b": people[1],
            "note": "; ".join(dict.fromkeys(e.note for e in (a, b) if e.note)),
        }
