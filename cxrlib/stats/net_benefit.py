r"""What decisions do to a thousand patients: missed cases, false alarms and net benefit, by group.

A *harm ratio* h says that a missed case is as bad as h false alarms. Whoever means it acts on a
risk above 1 / (1 + h). Decisions (0, 1, or the probability of an alarm) may come from any rule;
the harm ratio values them. Each number carries the influence of every image
(`cxrlib.stats.influence`), so differences between groups, models and rules are paired, and
patients are the unit.

The fields at the end of a docstring (Formula, Source, ...) are the metric's card, see
`cxrlib.book.metric_cards`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import schema
from cxrlib.core import checks, levels
from cxrlib.core.folders import BENCHMARKS
from cxrlib.protocol import Protocol
from cxrlib.stats import estimates as est
from cxrlib.stats import influence, simulate
from cxrlib.stats.influence import Estimate

PER = 1000
RECORDED = BENCHMARKS / "net_benefit.csv"
ALIKE = "no interval: all patients count alike, which leaves no spread to estimate one from"

Some = ArrayLike | None


def threshold(harm_ratio: float) -> float:
    """The risk above which to act, in (0, 1), where a missed case is as bad as so many alarms.

    Raises
    ------
    ValueError
        The harm ratio is not above 0.

    Source: Vickers and Elkin 2006.
    """
    return 1 / (1 + _positive(harm_ratio))


def missed_cases(
    y_true: ArrayLike, yes: ArrayLike, among: Some = None, prevalence: float | None = None
) -> Estimate:
    r"""Ill patients without an alarm, per 1,000 patients.

    y_true (n,) of 0/1; yes (n,) of decisions or probabilities of one; among (n,) bool, whom to
    count; prevalence in (0, 1), that of another population with the same sensitivity.

    :Formula: $1000\, \pi\, (1 - \mathrm{sensitivity})$ with the prevalence $\pi$ of the patients,
        or a stated one.
    :Source: Standard.
    :Range: [0, 1000]
    :Direction: lower is better
    :Zero means: Every case is found, or there is none.
    :Undefined when: There is no patient, or no ill one where a prevalence is stated.
    :Look-alikes: `false_negative_rate`, which is a share of the ill alone: where more are ill, the
        same rate misses more.
    """
    y = checks.outcomes(y_true, "y_true")
    return _per(y, 1 - np.asarray(yes, float), among, prevalence)


def false_alarms(
    y_true: ArrayLike, yes: ArrayLike, among: Some = None, prevalence: float | None = None
) -> Estimate:
    r"""Healthy patients with an alarm, per 1,000 patients. Parameters as in `missed_cases`.

    :Formula: $1000\, (1 - \pi)\, (1 - \mathrm{specificity})$
    :Source: Standard.
    :Range: [0, 1000]
    :Direction: lower is better
    :Zero means: No alarm is false, or nobody is healthy.
    :Undefined when: There is no patient, or no healthy one where a prevalence is stated.
    :Look-alikes: `false_positive_rate`, which is a share of the healthy alone.
    """
    y = checks.outcomes(y_true, "y_true")
    return _per(~y, np.asarray(yes, float), among, None if prevalence is None else 1 - prevalence)


def found_cases(
    y_true: ArrayLike, yes: ArrayLike, among: Some = None, prevalence: float | None = None
) -> Estimate:
    r"""Ill patients with an alarm, per 1,000 patients. Parameters as in `missed_cases`.

    :Formula: $1000\, \pi\, \mathrm{sensitivity}$
    :Source: Standard.
    :Range: [0, 1000]
    :Direction: higher is better
    :Zero means: No case is found, or there is none.
    :Undefined when: There is no patient, or no ill one where a prevalence is stated.
    :Look-alikes: `sensitivity`, which is a share of the ill alone.
    """
    y = checks.outcomes(y_true, "y_true")
    return _per(y, np.asarray(yes, float), among, prevalence)


def net_benefit(
    y_true: ArrayLike,
    yes: ArrayLike,
    harm_ratio: float,
    among: Some = None,
    prevalence: float | None = None,
) -> Estimate:
    r"""Net benefit, the cases found minus false alarms at their price in cases, per 1,000 patients.

    harm_ratio: number above 0; others as in `missed_cases`.

    :Formula: $1000 \left( \dfrac{\mathrm{TP}}{n} - \dfrac{1}{h} \dfrac{\mathrm{FP}}{n} \right)$, a
        missed case being as bad as $h$ false alarms. With a stated prevalence $\pi$:
        $1000 \left( \pi\, \mathrm{sensitivity} - \dfrac{1 - \pi}{h} (1 - \mathrm{specificity})
        \right)$.
    :Source: Vickers and Elkin 2006; with a stated prevalence Kerr et al. 2016.
    :Range: at most $1000\, \pi$
    :Direction: higher is better
    :Zero means: No better than no alarm at all.
    :Undefined when: There is no patient, or an outcome is missing where a prevalence is stated.
    :Look-alikes: `standardised_net_benefit`. The net benefit of a threshold on probabilities, where
        one number sets both what is decided and its price. "Standardised" for prevalence, as here
        with a stated one.
    """
    ratio = _positive(harm_ratio)
    found = found_cases(y_true, yes, among, prevalence)
    return found - false_alarms(y_true, yes, among, prevalence) / ratio


def standardised_net_benefit(
    y_true: ArrayLike,
    yes: ArrayLike,
    harm_ratio: float,
    among: Some = None,
    prevalence: float | None = None,
) -> Estimate:
    r"""Standardised net benefit, a share of the best possible. Parameters as in `net_benefit`.

    :Formula: $\dfrac{\mathrm{net\ benefit}}{1000\, \pi}$
    :Source: Kerr et al. 2016.
    :Range: at most 1
    :Direction: higher is better
    :Zero means: No better than no alarm at all.
    :Undefined when: Nobody is ill.
    :Look-alikes: `net_benefit`. The division takes out how many can be gained, not how many are
        healthy and can be alarmed: only a stated prevalence takes out both.
    """
    best = found_cases(y_true, np.ones(len(np.asarray(yes))), among, prevalence)
    return net_benefit(y_true, yes, harm_ratio, among, prevalence) / best


def all_alarmed(
    y_true: ArrayLike,
    yes: ArrayLike,
    harm_ratio: float,
    among: Some = None,
    prevalence: float | None = None,
) -> Estimate:
    r"""Net benefit of an alarm for everybody, without any model. Parameters as in `net_benefit`.

    :Formula: $1000 \left( \pi - \dfrac{1 - \pi}{h} \right)$
    :Source: Vickers and Elkin 2006.
    :Range: at most $1000\, \pi$
    :Direction: closer to 0 is better
    :Zero means: The prevalence is the risk above which to act, $1 / (1 + h)$. Far above 0 a model
        is hardly needed, far below nobody would alarm all.
    :Undefined when: As `net_benefit`.
    :Look-alikes: `net_benefit` of a model that finds every case: it alarms fewer of the healthy.
    """
    return net_benefit(y_true, np.ones(len(np.asarray(yes))), harm_ratio, among, prevalence)


def _per(y, yes, among, share):
    """How many of 1,000 are of class y (n,) bool and `yes`; share: a stated one of the class."""
    if share is None:
        return influence.mean(y * yes, among) * PER
    if not 0 < share < 1:
        raise ValueError(f"prevalence: {share!r}; expected a number between 0 and 1.")
    of = y if among is None else y & np.asarray(among, bool)
    return influence.mean(yes, of) * (PER * share)


def _positive(harm_ratio):
    if not (np.isfinite(harm_ratio) and harm_ratio > 0):
        raise ValueError(
            f"harm_ratio: {harm_ratio!r}; expected a number above 0, the false alarms that are as "
            "bad as one missed case."
        )
    return float(harm_ratio)


# Estimates of (y_true, yes, harm_ratio, among, prevalence).
METRICS = {
    "net_benefit": net_benefit,
    "missed_cases": lambda y, yes, ratio, *rest: missed_cases(y, yes, *rest),
    "found_cases": lambda y, yes, ratio, *rest: found_cases(y, yes, *rest),
    "false_alarms": lambda y, yes, ratio, *rest: false_alarms(y, yes, *rest),
    "standardised_net_benefit": standardised_net_benefit,
    "all_alarmed": all_alarmed,
}
DEFAULT = ("net_benefit", "missed_cases", "false_alarms")
COUNTED = ("missed_cases", "found_cases", "false_alarms")  # which cannot be below 0
EVERYBODY, NOBODY = "an alarm for all", "an alarm for none"  # methods, see `beside_extremes`

# --- tables -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """An estimate, or why there is none, and what it rests on."""

    estimate: Estimate | None
    of: np.ndarray  # (n,) bool
    y: np.ndarray  # (n,) bool
    note: str

    def minus(self, other, name, other_name):
        notes = [f"{n}: {x.note}" for n, x in ((name, self), (other_name, other)) if x.note]
        known = self.estimate is not None and other.estimate is not None
        gap = self.estimate - other.estimate if known else None
        note = self.note if self.note == other.note else est.joined(*notes)
        return _Found(gap, self.of | other.of, self.y | other.y, note)


def table(
    decisions: pd.DataFrame,
    harm_ratio: float,
    attributes: est.Attributes = (),
    *,
    between: Mapping[str, est.Pairs] | None = None,
    metrics: Sequence[str] = DEFAULT,
    prevalence: float | None = None,
    protocol: str | Protocol = "corrected",
) -> pd.DataFrame:
    """Metrics of this module overall and by group, and differences, as a results table.

    Parameters
    ----------
    decisions : predictions table
        ``score`` is the decision, 0 or 1, or the probability of an alarm; see
        `cxrlib.stats.fairness.decide`, `cxrlib.predict.policies.decided`.
    harm_ratio : number above 0
        So many false alarms are as bad as one missed case.
    attributes : as in `cxrlib.stats.fairness.performance_table`
    between : dict of "model", "method" or an attribute -> list of (A, B)
        Differences "A - B" to add, all paired. Of two kinds, their combinations too: how a change
        of method changes the gap between two groups.
    metrics : names out of `METRICS`
    prevalence : in (0, 1)
        Count in a population of which this share is ill, with the sensitivity and specificity of
        each group, so that no group is worse for being healthier; the note says it.
    protocol : name or Protocol; its switches unit and min_cases

    Returns
    -------
    Results table; an interval that cannot be known is missing, and the note says why.

    Raises
    ------
    ValueError
        An unknown metric, attribute, group, model or method; scores outside [0, 1].
    """
    rows = []
    for study in _studies(decisions, attributes, metrics, protocol):
        rows += _rows(study, None, harm_ratio, between or {}, metrics, prevalence)
    return schema.results(rows)


def curves(
    predictions: pd.DataFrame,
    thresholds: Sequence[float],
    attributes: est.Attributes = (),
    *,
    between: Mapping[str, est.Pairs] | None = None,
    metrics: Sequence[str] = DEFAULT,
    prevalence: float | None = None,
    protocol: str | Protocol = "corrected",
) -> pd.DataFrame:
    """Decision curves: `table` at each threshold of a probability, valued at its own harm ratio.

    Parameters
    ----------
    predictions : predictions table, whose ``score`` is a risk in [0, 1]
        Above the threshold is an alarm.
    thresholds : numbers in (0, 1)
    others : as in `table`

    Returns
    -------
    Results table with a further column ``threshold``. Once credentialed data were loaded, a
    threshold is left undefined for a model if in some group less than ten ill or healthy films
    part it from the one before: no step of a curve tells of single films.
    """
    parts = []
    for study in _studies(predictions, attributes, metrics, protocol):
        near = _too_near(study, thresholds)
        for at in thresholds:
            if not 0 < at < 1:
                raise ValueError(f"thresholds: {at!r}; expected numbers between 0 and 1.")
            ratio = (1 - at) / at
            rows = _rows(study, at, ratio, between or {}, metrics, prevalence, near[at])
            # one by one: groups of one threshold are the parts of a whole
            parts.append(schema.results(rows).assign(threshold=float(at)))
    return pd.concat(parts, ignore_index=True)


def beside_extremes(decisions: pd.DataFrame) -> pd.DataFrame:
    """Decisions, and beside them an alarm for everybody and for nobody, as two more methods."""
    every = decisions.drop_duplicates([*schema.KEYS[:2], "label", "image_id"])
    extremes = [every.assign(method=m, score=x) for m, x in ((EVERYBODY, 1.0), (NOBODY, 0.0))]
    return pd.concat([decisions, *extremes], ignore_index=True)


def _studies(predictions, attributes, metrics, protocol):
    est.check_known(metrics, METRICS, "metrics")
    yield from est.studies(predictions, attributes, protocol=protocol, probabilities=True)


def _too_near(study, thresholds):
    """threshold -> (model, method, label) for which it is too near to the one before."""
    near = {at: set() for at in thresholds}
    fewest = schema.smallest_cell()
    for names, y, score, image in study.blocks() if fewest else ():
        groups = [("all", "all"), *((a, g) for a, of in study.groups.items() for g in of)]
        cells = [study.member(*of)[image] & (y == ill) for of in groups for ill in (False, True)]
        kept = None
        for at in sorted(thresholds):
            above = np.array([(cell & (score > at)).sum() for cell in cells])
            steps = None if kept is None else np.abs(above - kept)
            if steps is not None and ((steps > 0) & (steps < fewest)).any():
                near[at].add(names)
            else:
                kept = above
    return near


def _rows(study, at, harm_ratio, between, metrics, prevalence, suppressed=()):
    """Rows of a results table: decisions as they are, or scores above a threshold `at`."""
    found = {}
    fewest = max(study.protocol.min_cases, schema.smallest_cell())
    for names, y_true, score, image in study.blocks():
        yes, y, there = (np.zeros(len(study.images), kind) for kind in (float, bool, bool))
        yes[image] = score if at is None else score > checks.precision(score)(at)
        y[image], there[image] = y_true, True
        for attribute, groups in ({"all": ["all"]} | study.groups).items():
            for group in groups:
                of = there & study.member(attribute, group)
                why = est.not_given(y[of], study.patient[of], fewest)
                if names in suppressed:
                    why = schema.SUPPRESSED
                for metric in metrics:
                    ask = partial(METRICS[metric], y, yes, harm_ratio, of, prevalence)
                    key = est.Key(*names, attribute, group, metric)
                    found[key] = _Found(None if why else ask(), of, y & of, why)
    for column, pairs in between.items():
        found |= _gaps(found, column, pairs)
    unit = study.patient if study.resamples.unit == "patient" else np.arange(len(study.images))
    return [_row(study, key, x, unit, prevalence) for key, x in found.items()]


def _gaps(found, column, pairs):
    """Differences between models, methods, or groups of an attribute."""
    field = column if column in ("model", "method") else "group"
    own = {k: x for k, x in found.items() if field != "group" or k.attribute == column}
    known = list(dict.fromkeys(getattr(key, field) for key in own))
    gaps = {}
    for a, b in ((levels.text(a), levels.text(b)) for a, b in pairs):
        est.check_known((a, b), known, f"between, {column}")
        for key, of_a in own.items():
            other = own.get(key._replace(**{field: b}))
            if getattr(key, field) == a and other is not None:
                gaps[key._replace(**{field: f"{a} - {b}"})] = of_a.minus(other, a, b)
    return gaps


def _row(study, key, found, unit, prevalence):
    value = low = high = np.nan
    note = found.note
    if found.estimate is not None:
        value = found.estimate.value
        low, high = influence.interval(found.estimate, unit)
        if low == high:
            low = high = np.nan
            note = ALIKE
        elif key.metric in COUNTED and " - " not in key.model + key.method + key.group:
            low, high = max(low, 0.0), min(high, float(PER))
    about = {"cohort": study.cohort, **key._asdict()}
    about |= {"value": value, "ci_low": low, "ci_high": high}
    about |= est.counts(found.y[found.of], study.patient[found.of])
    stated = None if prevalence is None else f"at a prevalence of {prevalence:.3g}"
    note = est.joined(note, stated, study.missing.get(key.attribute))
    return about | {"unit": study.resamples.unit, "note": note}


def recorded(path: Path = RECORDED) -> pd.DataFrame:
    """How often intervals held the truth: ``benchmarks/net_benefit.py``.

    Returns
    -------
    DataFrame, one row per design, number of events, harm ratio and what is estimated; and coverage
    with its interval, see `cxrlib.stats.simulate.shares`.
    """
    return simulate.shares(pd.read_csv(path))
