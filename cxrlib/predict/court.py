"""Brings a bias before the court: the films, the model and the question, each with a placebo.

A case has two sides. On the biased one something was planted, in the training of a model or in the
films; on the clean one, the placebo, nothing was, and whatever a remedy changes there it invents.
Real films have one side: nobody knows what they would be without their bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib import cohorts, models, schema
from cxrlib.cohorts import phantom
from cxrlib.cohorts.cohort import Cohort
from cxrlib.cohorts.metadata import S_FINDINGS, young_or_old
from cxrlib.core.errors import Lacks, nearest
from cxrlib.embed.extract import embed, embed_text
from cxrlib.models.encoder import Encoder
from cxrlib.predict import zeroshot
from cxrlib.predict.remedies.remedy import Films, Question, Remedy, nothing
from cxrlib.stats import court as stats
from cxrlib.stats import influence
from cxrlib.stats.influence import Estimate

BIASES = {
    "drain": "drain shortcut",
    "age60": "fainter findings by age",
    "sex": "silent reports by sex",
}
"""The attribute that must not matter, and what is planted."""
GROUPS = {"drain": ("drain", "none"), "age60": ("old", "young"), "sex": ("F", "M")}
"""Attribute to its two groups: the one that is served worse, or set apart, first."""
PROMPTS = {
    "drain": (("Chest drain", "Chest tube in place"), ("Chest without drain", "No chest tube")),
    "age60": (("Chest of an old patient", "Elderly"), ("Chest of a young patient", "Young adult")),
    "sex": (("Chest of a woman", "Female patient"), ("Chest of a man", "Male patient")),
}
CLEAN, DRAINED, SILENT = "phantom-resnet", "phantom-resnet-drain", "phantom-resnet-underreport"
DRAIN_FINDING = "Pneumothorax"
SPECIFICITY = 0.8  # of all tuning films together, at the threshold that all share
FITTED = 2 / 3  # of the validation patients; thresholds and scales are set on the others
FOLDS = 4  # so often is a remedy fitted again, for what the luck of its fitting patients does
FEW = 10  # ill and healthy films of each group, or a finding is not asked for
N_TWINS = 300  # fitting films that an oracle sees twice
RECORDED = Path(__file__).parents[2] / "benchmarks" / "court.csv"
NOTHING = Remedy(nothing, "nothing")

Trial = stats.Effects | str  # the effects of a remedy, or why it does not apply


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


# --- the trial ---


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
    found, tuned = _asked(side, remedy, side.fitting, side.tuning)
    parts = [_without(films, k) for films in (side.fitting, side.tuning) for k in range(FOLDS)]
    folds = zip(parts[:FOLDS], parts[FOLDS:], strict=True)
    folds = tuple(_asked(side, remedy, *apart)[0] for apart in folds)
    if tuned is None:
        return replace(found, folds=folds)
    return replace(found, p=platt(tuned, side.tuning.truth, found.margins), folds=folds)


def _asked(side, remedy, fitting, tuning):
    """Answers by a remedy fitted on some films, and its margins of the tuning films."""
    answer = remedy.fit(side.question, fitting)
    given = answer(side.test)
    drawn = given if side.drawn is None else answer(side.drawn)
    changed = None if side.changed is None else answer(side.changed)
    if remedy.decides:
        return Answers(given, drawn, changed, given, drawn), None
    tuned = answer(tuning)
    at = [np.quantile(m[~t], SPECIFICITY) for m, t in zip(tuned.T, tuning.truth.T, strict=True)]
    yes, yes_drawn = ((m > at).astype(float) for m in (given, drawn))
    return Answers(given, drawn, changed, yes, yes_drawn), tuned


def _without(films, fold):
    """Films without those of each so-manieth patient."""
    names, patient = np.unique(films.patient, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))
    return films.rows(order[patient] % FOLDS != fold)


def platt(tuned: np.ndarray, truth: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Probabilities (n, k) by a logistic regression for each finding (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression  # takes seconds to import

    columns = []
    for m, t, x in zip(tuned.T, truth.T, margins.T, strict=True):
        fit = LogisticRegression(C=np.inf).fit(m[:, None], t)
        columns.append(fit.predict_proba(x[:, None])[:, 1])
    return np.column_stack(columns)


def harm(side: Side, found: Answers) -> Estimate:
    """Shift between twins, or the gap in mean sensitivity, first group minus second."""
    if found.changed is not None:
        return _fitted(_shift, side, found)
    one, other = sensitivities(side, found)
    return one - other


def _shift(side, found):
    return stats.shift(found.margins[:, 0], found.changed[:, 0], ~side.test.truth[:, 0])


def sensitivities(side: Side, found: Answers) -> tuple[Estimate, Estimate]:
    """Mean sensitivity in each group, of films as they came."""
    return tuple(_fitted(partial(_sensitivity, group=g), side, found) for g in side.question.groups)


def _sensitivity(side, found, group):
    films = side.as_drawn
    return stats.sensitivity(found.yes_drawn, films.truth, films.group == group)


def _fitted(measure, side, found):
    """A measure whose influences go on behind the test films with those of the folds."""
    estimate = measure(side, found)
    others = np.array([measure(side, fold).value for fold in found.folds])
    return influence.refitted(estimate, others)


def orders(side: Side, found: Answers, decides: bool) -> tuple[Estimate, Estimate, Estimate]:
    """Mean AUC of all test films, and of each group of films as they came.

    Balanced accuracy where ``decides``: a remedy that gives decisions leaves no order.
    """
    truth, films = side.test.truth, side.as_drawn
    groups = [films.group == g for g in side.question.groups]
    every = np.ones(len(truth), bool)
    measure = stats.balanced_accuracy if decides else stats.mean_auc
    given = (found.yes, found.yes_drawn) if decides else (found.margins, found.drawn)
    of = measure(given[0], truth, every), *(measure(given[1], films.truth, g) for g in groups)
    return tuple(influence.refitted(estimate, np.zeros(FOLDS)) for estimate in of)


def try_(case: Case, remedy: Remedy) -> stats.Effects:
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
    trained = [name for model in (DRAINED, SILENT) for name in models.remedied(model)]
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


def try_model(case: Case, model: Encoder) -> stats.Effects:
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
                "new_worst": stats.worst(new[1:]) - stats.worst(old[1:]),
            }
    new, old = orders(side, found, decides), orders(biased, biased.untreated, decides)
    gained = new[:0:-1], old[:0:-1]  # those without a drain first
    if case.kind == "gap":
        gained = sensitivities(side, found), sensitivities(biased, biased.untreated)
    return stats.Effects(
        kind=case.kind,
        decides=decides,
        before=before,
        after=after,
        order=new[0] - old[0],
        worst_order=stats.worst(new[1:]) - stats.worst(old[1:]),
        gains=tuple(a - b for a, b in zip(*gained, strict=True)),
        brier=_brier(side, found) - _brier(biased, biased.untreated) if not decides else None,
        **placebo,
    )


def _brier(side, found):
    return influence.refitted(stats.brier(found.p, side.test.truth), np.zeros(FOLDS))


def verdict(case: Case, trial: Trial) -> stats.Verdict | str:
    """The verdict on a remedy, or why it does not apply; printed, one line."""
    if isinstance(trial, str):
        return f"does not apply: {trial}"
    return stats.verdict(trial, case.units)


def results(case: Case, method: str, effects: stats.Effects, **about: object) -> pd.DataFrame:
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


# --- the cases ---


def planted(
    n_images: int,
    n_twins: int,
    seed: int,
    attributes: Sequence[str] = tuple(BIASES),
    negative: str | Sequence[str] = zeroshot.NEGATIVE,
) -> list[Case]:
    """Planted biases, on phantoms drawn as other chapters draw them.

    Parameters
    ----------
    n_images, n_twins : int
        Of the test cohort, and of that whose films have twins with and without a drain.
    seed : int
    attributes : sequence of str
        Of :data:`BIASES`.
    negative : str or sequence of str
        The prompt for "nothing found".

    Raises
    ------
    Lacks
        No finding has ill and healthy films enough in each group.
    """
    made = {"drain": _drains, "age60": _ages, "sex": _reports}
    test = cohorts.load("phantom", n_images=n_images, seed=seed)
    valid, _ = cohorts.validation(test, "phantom", n_images, seed)
    part = partial(_side, seed=seed, negative=negative)
    found = []
    for attribute in attributes:
        model, biased, clean = made[attribute](part, valid, test, n_twins)
        bias = BIASES[attribute]
        found.append(Case(bias, model.name, biased(model), clean(), biased, test.name))
    return found


def _drains(part, valid, test, n_twins):
    """In the training of one model, a drain gave pneumothorax away."""
    seed = test.recipe["seed"]
    small = cohorts.load("phantom", n_images=n_twins, seed=seed)
    films, few = ([phantom.twin(c, drain=d) for d in (0, 1)] for c in (small, _few(valid, seed)))
    seen_by = partial(part, attribute="drain", valid=valid, test=films[0], pairs=few)
    seen_by = partial(seen_by, changed=films[1], drawn=small)
    return models.load_model(DRAINED), seen_by, lambda: seen_by(models.load_model(CLEAN))


def _ages(part, valid, test, n_twins):
    """The findings of the old are drawn with less contrast; the clean films are drawn without."""
    contrast = test.recipe["dials"]["contrast"]
    others = {a: of for a, of in contrast.items() if a != "age_group"}
    model, few = models.load_model(CLEAN), _few(valid, test.recipe["seed"])
    plain = [phantom.twin(c, contrast=others) for c in (few, valid, test)]
    seen_by = partial(part, attribute="age60", pairs=(few, plain[0]))
    clean = partial(seen_by, model, valid=plain[1], test=plain[2])
    return model, partial(seen_by, valid=valid, test=test), clean


def _reports(part, valid, test, n_twins):
    """In the training of one model, most findings of women were missing."""
    few = _few(valid, test.recipe["seed"])
    drawn = [phantom.twin(replace(few, table=few.table.assign(sex=s))) for s in GROUPS["sex"]]
    seen_by = partial(part, attribute="sex", valid=valid, test=test, pairs=drawn)
    return models.load_model(SILENT), seen_by, lambda: seen_by(models.load_model(CLEAN))


def recorded(
    test: Cohort,
    valid: Cohort,
    model: Encoder,
    attribute: str,
    seed: int,
    negative: str | Sequence[str] = zeroshot.NEGATIVE,
) -> Case:
    """A recorded attribute of any cohort: its gap in sensitivity, without twins or placebo.

    Parameters
    ----------
    test, valid : Cohort
        See :func:`cxrlib.cohorts.validation`; films of patients that are in both are not tested.
    model : Encoder
    attribute : str
        Of :data:`GROUPS`.
    seed : int
        Of which validation patients a remedy is fitted on.
    negative : str or sequence of str

    Raises
    ------
    Lacks
        The cohort does not record it, or no finding has ill and healthy films enough.
    """
    seen_by = partial(_side, attribute=attribute, valid=valid, test=test, seed=seed)
    both = np.intersect1d(test.table["patient_id"], valid.table["patient_id"])
    seen_by = partial(seen_by, negative=negative, left_out=both)
    return Case(f"gap by {attribute}", model.name, seen_by(model), None, seen_by, test.name)


def _side(
    model,
    *,
    attribute,
    valid,
    test,
    seed,
    negative,
    pairs=None,
    changed=None,
    drawn=None,
    left_out=(),
):
    """The films of a case as one model sees them."""
    if len(getattr(model, "members", (model,))) != 1 or not hasattr(model, "encode_prompts"):
        raise Lacks(f"{model.name} has no vectors of its own, which remedies work on")
    kinds = (DRAIN_FINDING,) if attribute == "drain" else S_FINDINGS
    findings = tuple(f for f in kinds if f in test.findings and f in valid.findings)
    fitted, tuned = _parts(valid, seed)
    of = {"fitted": (valid, fitted), "tuned": (valid, tuned), "tested": (drawn or test, None)}
    findings = _frequent(findings, of, attribute)
    prompts = [negative] if isinstance(negative, str) else list(negative)
    positive, none = (
        np.array([model.encode_prompts([p.format(label=f) for p in of]).numpy() for f in findings])
        for of in ([zeroshot.POSITIVE], prompts)
    )
    question = Question(
        findings=findings,
        positive=positive,
        negative=none,
        scale=model.logit_scale,
        attribute=attribute,
        groups=GROUPS[attribute],
        prompts=PROMPTS[attribute],
        encode=_once(model),
        twins=pairs and tuple(embed(films, model) for films in pairs),
    )
    films = _films(valid, model, findings, attribute)
    tested = _films(test, model, findings, attribute)
    if changed is None:
        known = (tested.group != "") & ~np.isin(tested.patient, left_out)
        return Side(question, films.rows(fitted), films.rows(tuned), tested.rows(known))
    moved = _films(changed, model, findings, attribute)
    group = groups(drawn.table, attribute)
    with_it = (group == GROUPS[attribute][0])[:, None]
    as_drawn = replace(tested, images=np.where(with_it, moved.images, tested.images), group=group)
    return Side(question, films.rows(fitted), films.rows(tuned), tested, moved, as_drawn)


def _once(model):
    """Encode each list of texts once, however often a remedy is fitted."""
    known: dict[tuple[str, ...], np.ndarray] = {}

    def encode(texts):
        key = tuple(texts)
        if key not in known:
            known[key] = embed_text(list(texts), model)
        return known[key]

    return encode


def _films(cohort, model, findings, attribute):
    table = cohort.table
    truth, group = table[list(findings)].to_numpy(bool), groups(table, attribute)
    vectors = embed(cohort, model).astype(float)  # fairlearn's thresholds want it
    return Films(vectors, truth, group, table["patient_id"].to_numpy())


def groups(table: pd.DataFrame, attribute: str) -> np.ndarray:
    """Group (n,) of each row of a cohort's table: one of :data:`GROUPS`, "" where it is not known.

    Raises
    ------
    Lacks
        The attribute is not recorded.
    """
    column = {"age60": "age"}.get(attribute, attribute)
    if column not in table:
        raise Lacks(f"the cohort does not record {attribute}")
    known = table[column]
    if attribute == "age60":
        known = young_or_old(known)
    if attribute == "drain":
        known = known.map({1: "drain", 0: "none"})
    return known.where(known.isin(GROUPS[attribute]), "").to_numpy(str)


def _parts(valid, seed):
    """Masks of the fitting and of the tuning films, by patients."""
    patients = valid.table["patient_id"].to_numpy()
    names = np.random.default_rng(seed).permutation(np.unique(patients))
    fitted = np.isin(patients, names[: round(FITTED * len(names))])
    return fitted, ~fitted


def _few(valid, seed):
    """The first of the fitting films."""
    table = valid.table[_parts(valid, seed)[0]].iloc[:N_TWINS]
    return replace(valid, table=table.reset_index(drop=True))


def _frequent(findings, of, attribute):
    """Findings with ill and healthy films enough in each group."""
    kept = list(findings)
    for cohort, rows in of.values():
        table = cohort.table if rows is None else cohort.table[rows]
        group = groups(table, attribute)
        for g in GROUPS[attribute]:
            ill = table.loc[group == g, list(findings)]
            kept = [f for f in kept if FEW <= ill[f].sum() <= len(ill) - FEW]
    if not kept:
        raise Lacks(
            f"{' and '.join(GROUPS[attribute])}: fewer than {FEW} ill or healthy films in one of "
            "them, for every finding; a remedy cannot be judged on so few"
        )
    return tuple(kept)


# --- what was recorded ---


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
            there = (stats.Verdict(*row) for row in others[list(here._fields)].to_numpy())
            apart = [stats.contradicts(here, other) for other in there]
            asked = sorted({question for questions in apart for question in questions})
            counted = {"seeds": len(apart), "contradicted": sum(map(bool, apart))}
            rows.append({"bias": case.bias, "remedy": name, **counted, "in": ", ".join(asked)})
    return pd.DataFrame(rows, columns=["bias", "remedy", "seeds", "contradicted", "in"])
