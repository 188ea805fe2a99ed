"""The court: tries a remedy on a bias and, beside it, on a placebo in which nothing was planted.

Whatever a remedy changes on the placebo it invents. How biases are brought here: ``charges``. What
the rule says of a trial: :mod:`cxrlib.stats.court_rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib import models, schema
from cxrlib.core.errors import Lacks, nearest
from cxrlib.core.folders import BENCHMARKS
from cxrlib.models.encoder import Encoder
from cxrlib.predict.remedies.decisions import SPECIFICITY
from cxrlib.predict.remedies.remedy import Films, Question, Remedy, nothing
from cxrlib.stats import calibration, court_rule, influence
from cxrlib.stats.influence import Estimate

FOLDS = 4  # so often is a remedy fitted again, for what the luck of its fitting patients does
RECORDED = BENCHMARKS / "court.csv"
BARS_SET_ON = 101  # the seed whose trials the bars of the rule were chosen by
NOTHING = Remedy(nothing, "nothing")

Trial = court_rule.Effects | str  # the effects of a remedy, or why it does not apply


@dataclass(frozen=True, eq=False)
class Side:
    """A model and its films, as a remedy meets them.

    Attributes
    ----------
    question : Question
    fitting, tuning : Films
        Of validation patients: a remedy is fitted on the first; the threshold that all share, and
        Platt's scale, on the second.
    test : Films
    changed : Films or None
        The test films with a drain drawn in; ``test`` are then the same films without one.
    drawn : Films
        The test films as they came, some with a drain; ``test`` itself where that is the same.
    """

    question: Question
    fitting: Films
    tuning: Films
    test: Films
    changed: Films | None = None
    drawn: Films | None = None

    @property
    def as_drawn(self) -> Films:
        return self.test if self.drawn is None else self.drawn

    @cached_property
    def untreated(self) -> Answers:
        return answers(self, NOTHING)


@dataclass(frozen=True)
class Case:
    """A bias, and the same without it.

    Attributes
    ----------
    bias : str
    model : str
        Whose answers are judged.
    biased : Side
    clean : Side or None
        The placebo; None of real films.
    seen_by : callable
        The biased side as another model sees it: a remedy in training is another model.
    cohort : str
    """

    bias: str
    model: str
    biased: Side
    clean: Side | None
    seen_by: Callable[[Encoder], Side]
    cohort: str

    @cached_property
    def units(self) -> np.ndarray:
        """Patient of each influence: of the test films, and the folds of the others."""
        names, code = np.unique(self.biased.test.patient, return_inverse=True)
        return np.append(code, len(names) + np.arange(FOLDS))

    @property
    def kind(self) -> str:
        """How harm is counted: "shift" between twins, or "gap" in sensitivity."""
        return "gap" if self.biased.changed is None else "shift"


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of a side's test films, with a remedy or without.

    Attributes
    ----------
    margins, drawn, changed : (n, k) arrays
        Of the test films, of the same as they came, of the changed ones (or None).
    yes, yes_drawn : (n, k) arrays
        Decisions at the common threshold, or probabilities of a yes, of the first two.
    p : (n, k) array or None
        Probabilities after Platt scaling; None for a remedy that decides.
    folds : tuple of Answers
        The same, fitted and tuned without a part of the validation patients.
    """

    margins: np.ndarray
    drawn: np.ndarray
    changed: np.ndarray | None
    yes: np.ndarray
    yes_drawn: np.ndarray
    p: np.ndarray | None = None
    folds: tuple[Answers, ...] = ()


def chosen(wanted: str, known: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Entries of a dictionary by a chapter's parameter: "all", or names with commas between.

    Raises
    ------
    ValueError
        A name that is not there; gives the nearest one.
    """
    names = list(known) if wanted.strip() == "all" else [n.strip() for n in wanted.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"{what}: unknown {name!r}; {nearest(name, list(known))}")
    return {name: known[name] for name in names}


def answers(side: Side, remedy: Remedy) -> Answers:
    """Fit a remedy on a side, and ask it there.

    Raises
    ------
    ValueError
        Patients of the test are among those that it would be fitted or tuned on.
    Lacks
        The remedy cannot be applied to this question.
    """
    for what, known in (("fitted", side.fitting), ("tuned", side.tuning)):
        if seen := len(np.intersect1d(known.patient, side.test.patient)):
            raise ValueError(
                f"a remedy would be {what} on {seen} patients of the test; expected none: take "
                "other patients, such as those of cohorts.validation"
            )
    apart = ([_without(films, k) for films in (side.fitting, side.tuning)] for k in range(FOLDS))
    folds = tuple(once(side, remedy, *films) for films in apart)
    return replace(once(side, remedy, side.fitting, side.tuning), folds=folds)


def once(side: Side, remedy: Remedy, fitting: Films, tuning: Films) -> Answers:
    """Answers by a remedy fitted on some films, thresholds and a scale on others; no folds."""
    answer = remedy.fit(side.question, fitting)
    given = answer(side.test)
    drawn = given if side.drawn is None else answer(side.drawn)
    changed = None if side.changed is None else answer(side.changed)
    if remedy.decides:
        return Answers(given, drawn, changed, given, drawn)
    tuned = answer(tuning)
    at = [np.quantile(m[~t], SPECIFICITY) for m, t in zip(tuned.T, tuning.truth.T, strict=True)]
    yes, yes_drawn = ((m > at).astype(float) for m in (given, drawn))
    fits = [calibration.platt(m[:, None], t) for m, t in zip(tuned.T, tuning.truth.T, strict=True)]
    asked = zip(fits, given.T, strict=True)
    p = np.column_stack([fit.predict_proba(m[:, None])[:, 1] for fit, m in asked])
    return Answers(given, drawn, changed, yes, yes_drawn, p)


def _without(films, fold):
    """Films without those of one part of the patients, out of FOLDS."""
    names, patient = np.unique(films.patient, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))
    return films.rows(order[patient] % FOLDS != fold)


# What is measured without a remedy is wanted beside each of them.
remembered = lru_cache(maxsize=12)


@remembered
def harm(side: Side, found: Answers) -> Estimate:
    """Shift between twins, or the gap in mean sensitivity, first group minus second."""
    if found.changed is not None:
        return _fitted(_shift, side, found)
    one, other = sensitivities(side, found)
    return one - other


def _shift(side, found):
    return court_rule.shift(found.margins[:, 0], found.changed[:, 0], ~side.test.truth[:, 0])


@remembered
def sensitivities(side: Side, found: Answers) -> tuple[Estimate, Estimate]:
    """Mean sensitivity in each group, of films as they came."""
    return tuple(_fitted(partial(_sensitivity, group=g), side, found) for g in side.question.groups)


def _sensitivity(side, found, group):
    films = side.as_drawn
    return court_rule.sensitivity(found.yes_drawn, films.truth, films.group == group)


def _fitted(measure, side, found):
    """A measure whose influences go on behind the test films with those of the folds, if any."""
    estimate = measure(side, found)
    if not found.folds:
        return estimate
    others = np.array([measure(side, fold).value for fold in found.folds])
    return influence.refitted(estimate, others)


@remembered
def orders(side: Side, found: Answers, decides: bool) -> tuple[Estimate, Estimate, Estimate]:
    """Mean AUC of all test films, and of each group of films as they came.

    Balanced accuracy where ``decides``: a remedy that gives decisions leaves no order.
    """
    groups = [side.as_drawn.group == g for g in side.question.groups]
    measures = [partial(_order, among=among, decides=decides) for among in (None, *groups)]
    return tuple(_fitted(measure, side, found) for measure in measures)


def _order(side, found, among, decides):
    measure = court_rule.balanced_accuracy if decides else court_rule.mean_auc
    if among is None:
        given, films = found.yes if decides else found.margins, side.test
        return measure(given, films.truth, np.ones(len(films), bool))
    return measure(found.yes_drawn if decides else found.drawn, side.as_drawn.truth, among)


def try_(case: Case, remedy: Remedy) -> court_rule.Effects:
    """What a remedy does to a case: to its biased side, and to the placebo.

    Raises
    ------
    ValueError, Lacks
        See :func:`answers`.
    """
    clean = None if case.clean is None else answers(case.clean, remedy)
    return _effects(case, case.biased, answers(case.biased, remedy), clean, remedy.decides)


def trials(
    cases: Sequence[Case],
    remedies: Mapping[str, Remedy],
    names: Sequence[str] | None = None,
) -> dict[tuple[str, str], Trial]:
    """Every remedy on every case, those in the training of another model among them.

    Parameters
    ----------
    cases : sequence of Case
    remedies : dict of name -> Remedy
    names : sequence of str, optional
        Which to try; all of :func:`names_of_trials` by default.

    Returns
    -------
    dict of (bias, name of the remedy) -> Effects, or the reason why it does not apply
    """
    found: dict[tuple[str, str], Trial] = {}
    for case in cases:
        retrained = models.remedied(case.model)
        for name in names_of_trials(remedies) if names is None else names:
            if name in remedies:
                found[case.bias, name] = _or_why(try_, case, remedies[name])
            elif name not in retrained:
                found[case.bias, name] = "no model was trained so"
            elif not (models.WEIGHTS / f"{retrained[name]}.safetensors").exists():
                found[case.bias, name] = "its weights are not here; make phantom-models trains it"
            else:
                model = models.load_model(retrained[name])
                found[case.bias, name] = _or_why(try_model, case, model)
    return found


def names_of_trials(remedies: Mapping[str, Remedy]) -> list[str]:
    """Names of remedies, and behind them of those in training of which the book has models."""
    trained = [card["remedy"] for card in models.model_cards() if "remedy" in card]
    return list(dict.fromkeys([*remedies, *trained]))


def trained(case: Case) -> pd.DataFrame:
    """Remedies in training that the book has models of: bias, remedy, model, trained on."""
    cards = {card["name"]: card for card in models.model_cards()}
    rows = [
        {
            "bias": case.bias,
            "remedy": name,
            "model": model,
            "trained on": cards[model]["trained_on"],
        }
        for name, model in models.remedied(case.model).items()
    ]
    return pd.DataFrame(rows, columns=["bias", "remedy", "model", "trained on"])


def _or_why(judge, *what):
    try:
        return judge(*what)
    except Lacks as why:
        return str(why)


def try_model(case: Case, model: Encoder) -> court_rule.Effects:
    """What another model does to a case. What the same training invents is not known: nobody has
    trained it where nothing was planted.
    """
    side = case.seen_by(model)
    return _effects(case, side, side.untreated, None, False)


def _effects(case, side, found, on_clean, decides):
    biased, clean = case.biased, case.clean
    before, after = harm(biased, biased.untreated), harm(side, found)
    placebo = {}
    if clean is not None:
        none = harm(clean, clean.untreated)
        placebo["on_placebo"] = none
        if case.kind == "gap":  # what is there without the bias is no harm of the bias
            before, after = before - none, after - none
        if on_clean is not None:
            new, old = (orders(clean, a, decides) for a in (on_clean, clean.untreated))
            placebo |= {
                "new_harm": harm(clean, on_clean) - none,
                "new_order": new[0] - old[0],
                "new_worst": court_rule.worst(new[1:]) - court_rule.worst(old[1:]),
            }
    new, old = orders(side, found, decides), orders(biased, biased.untreated, decides)
    gained = new[:0:-1], old[:0:-1]  # those without a drain first
    if case.kind == "gap":
        gained = sensitivities(side, found), sensitivities(biased, biased.untreated)
    return court_rule.Effects(
        kind=case.kind,
        decides=decides,
        before=before,
        after=after,
        order=new[0] - old[0],
        worst_order=court_rule.worst(new[1:]) - court_rule.worst(old[1:]),
        gains=tuple(a - b for a, b in zip(*gained, strict=True)),
        brier=_brier(side, found) - _brier(biased, biased.untreated) if not decides else None,
        **placebo,
    )


@remembered
def _brier(side, found):
    return _fitted(lambda side, found: court_rule.brier(found.p, side.test.truth), side, found)


def verdict(case: Case, trial: Trial) -> court_rule.Verdict | str:
    """The verdict on a remedy, or why it does not apply; printed, one line."""
    if isinstance(trial, str):
        return f"does not apply: {trial}"
    return court_rule.verdict(trial, case.units)


def results(case: Case, method: str, effects: court_rule.Effects, **about: object) -> pd.DataFrame:
    """The results table of one trial: every effect with its interval, patients as the unit.

    Metrics that start with ``placebo`` are of the clean side; their model is the clean one where
    that differs. ``about`` : further columns of every row.
    """
    test, measured = case.biased.as_drawn, "balanced_accuracy" if effects.decides else "auc"
    worse, better = case.biased.question.groups[:: 1 if case.kind == "gap" else -1]
    named = {
        ("harm_before", "all"): effects.before,
        ("harm", "all"): effects.after,
        ("placebo_before", "all"): effects.on_placebo,
        ("share_left", "all"): effects.share_left,
        (f"change_{measured}", "all"): effects.order,
        (f"change_{measured}", "worse group"): effects.worst_order,
        ("change_brier", "all"): effects.brier,
        ("change_served", worse): effects.gains[0],
        ("change_served", better): effects.gains[1],
        ("placebo_harm", "all"): effects.new_harm,
        ("placebo_share", "all"): effects.new_harm and effects.new_harm / effects.before,
        (f"placebo_change_{measured}", "all"): effects.new_order,
        (f"placebo_change_{measured}", "worse group"): effects.new_worst,
    }
    ill = int(test.truth.sum(0).min())
    common = {
        "cohort": case.cohort,
        "model": case.model,
        "method": method,
        "label": "mean" if test.truth.shape[1] > 1 else case.biased.question.findings[0],
        "attribute": case.biased.question.attribute,
        "n": len(test),
        "n_positive": ill,
        "n_patients": len(np.unique(test.patient)),
        "unit": "patient",
    } | about
    rows = []
    for (metric, group), estimate in named.items():
        row = common | {"metric": metric, "group": group}
        if estimate is None:
            why = "no placebo" if metric.startswith("placebo") else "decisions have no probability"
            rows.append(row | {"value": np.nan, "note": f"undefined: {why}"})
            continue
        low, high = influence.interval(estimate, case.units)
        rows.append(row | {"value": estimate.value, "ci_low": low, "ci_high": high})
    return schema.results(rows)


def recorded_trials(path: Path = RECORDED) -> pd.DataFrame:
    """Verdicts on other seeds: ``benchmarks/court.py``, one row per seed, bias and remedy."""
    table = pd.read_csv(path, keep_default_na=False)
    return table[table["note"] == ""]


def held(
    recorded: pd.DataFrame, cases: Sequence[Case], trials: Mapping[tuple[str, str], Trial]
) -> pd.DataFrame:
    """How often the verdicts of other seeds contradict those of this run.

    Parameters
    ----------
    recorded : DataFrame
        From :func:`recorded_trials`.
    cases, trials
        Of this run.

    Returns
    -------
    DataFrame, one row per trial that is recorded: bias, remedy, seeds, contradicted (seeds), in
    (the questions, listed)
    """
    rows = []
    for case in cases:
        for name, others in recorded[recorded["bias"] == case.bias].groupby("remedy", sort=False):
            trial = trials.get((case.bias, name), "")
            if isinstance(trial, str):
                continue
            here = verdict(case, trial)
            there = (court_rule.Verdict(*row) for row in others[list(here._fields)].to_numpy())
            apart = [court_rule.contradicts(here, other) for other in there]
            asked = sorted({question.replace("_", " ") for each in apart for question in each})
            counted = {"seeds": len(apart), "contradicted": sum(map(bool, apart))}
            rows.append({"bias": case.bias, "remedy": name, **counted, "in": ", ".join(asked)})
    return pd.DataFrame(rows, columns=["bias", "remedy", "seeds", "contradicted", "in"])
