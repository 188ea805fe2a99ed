"""Brings planted biases before the court: films, models and questions of each, with a placebo.

A case has two sides. On the biased one something was planted, in the training of a model or in the
films; on the clean one, the placebo, nothing was, and whatever a remedy changes there it invents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxrlib import cohorts
from cxrlib.cohorts import phantom
from cxrlib.cohorts.cohort import Cohort
from cxrlib.cohorts.metadata import young_or_old
from cxrlib.core.errors import Lacks
from cxrlib.embed.extract import embed, embed_text, loaded
from cxrlib.models.encoder import Encoder
from cxrlib.predict import zeroshot
from cxrlib.predict.remedies.remedy import Answer, Films, Question, Remedy, ask, nothing
from cxrlib.stats import court as stats
from cxrlib.stats.influence import Estimate

SPECIFICITY = 0.8  # of all tuning films together, at the threshold that all share
FITTED = 2 / 3  # of the validation patients; thresholds and scales are set on the others
N_TWINS = 300  # fitting films that an oracle sees twice
DRAIN = "Pneumothorax"
GROUPS = {"drain": ("drain", "none"), "age60": ("old", "young"), "sex": ("F", "M")}
"""Attribute to its two groups: the one that is served worse, or set apart, first."""
PROMPTS = {
    "drain": (("Chest drain", "Chest tube in place"), ("Chest without drain", "No chest tube")),
    "age60": (("Chest of an old patient", "Elderly"), ("Chest of a young patient", "Young adult")),
    "sex": (("Chest of a woman", "Female patient"), ("Chest of a man", "Male patient")),
}


NOTHING = Remedy(nothing, "texts")


@dataclass(frozen=True)
class Side:
    """A model and its films, as a remedy meets them.

    Attributes
    ----------
    question : Question
    fitting, tuning : Films
        Validation patients: a remedy is fitted on the first, the common threshold and the scale of
        probabilities on the second.
    test : Films
    changed : Films or None
        The test films with a drain; ``test`` are then the same without.
    drawn : Films or None
        The test films as they came, some with a drain; None where ``test`` are.
    """

    question: Question
    fitting: Films
    tuning: Films
    test: Films
    changed: Films | None = None
    drawn: Films | None = None


@dataclass(frozen=True)
class Case:
    """A bias, and the same without it.

    Attributes
    ----------
    bias : str
        Its name.
    model : str
        Whose answers are judged.
    biased : Side
    clean : Side or None
        The placebo; None of real films.
    """

    bias: str
    model: str
    biased: Side
    clean: Side | None = None


def films(cohort: Cohort, model: Encoder, findings: tuple[str, ...], attribute: str) -> Films:
    """What a remedy may know of a cohort."""
    table = cohort.table
    truth = table[list(findings)].to_numpy(bool)
    group = groups(table, attribute)
    return Films(embed(cohort, model), truth, group, table["patient_id"].to_numpy())


def groups(table: pd.DataFrame, attribute: str) -> np.ndarray:
    """To which of the two groups each row belongs; "" where nobody knows."""
    if attribute == "drain":
        known = table["drain"].map({1: "drain", 0: "none"})
    elif attribute == "age60":
        known = young_or_old(table["age"])
    else:
        known = table[attribute].where(table[attribute].isin(GROUPS[attribute]))
    return known.fillna("").to_numpy(str)


def question(model: Encoder, findings: tuple[str, ...], attribute: str, negative) -> Question:
    """The two prompts of each finding, as in the chapter on zero-shot classification."""
    negative = [negative] if isinstance(negative, str) else list(negative)
    sides = [
        [model.encode_prompts([p.format(label=f) for p in prompts]).numpy() for f in findings]
        for prompts in ([zeroshot.POSITIVE], negative)
    ]
    return Question(
        findings=findings,
        positive=np.array(sides[0]),
        negative=np.array(sides[1]),
        scale=model.logit_scale,
        attribute=attribute,
        groups=GROUPS[attribute],
        prompts=PROMPTS[attribute],
        encode=lambda texts: embed_text(texts, model),
    )


def parted(valid: Films, seed: int) -> tuple[Films, Films]:
    """Fitting and tuning films, by patients."""
    names = np.unique(valid.patient)
    fitted = np.random.default_rng(seed).permutation(names)[: round(FITTED * len(names))]
    chosen = np.isin(valid.patient, fitted)
    return valid.rows(chosen), valid.rows(~chosen)


def drain(
    biased: Encoder, clean: Encoder, valid: Cohort, small: Cohort, negative, seed: int
) -> Case:
    """The drain shortcut: whose pneumothorax score rises when a drain is drawn into a film?

    valid : validation patients; small : test films, whose twins chapter 6 has stored
    """
    twins = [phantom.twin(small, drain=d) for d in (0, 1)]
    few = _few(valid, seed)
    pairs = [phantom.twin(few, drain=d) for d in (0, 1)]
    has = small.table["drain"].to_numpy(bool)

    def side(model):
        asked = question(model, (DRAIN,), "drain", negative)
        asked = replace(asked, twins=tuple(embed(p, model) for p in pairs))
        fitting, tuning = parted(films(valid, model, (DRAIN,), "drain"), seed)
        test, changed = (films(t, model, (DRAIN,), "drain") for t in twins)
        drawn = replace(
            test,
            images=np.where(has[:, None], changed.images, test.images),
            group=np.where(has, "drain", "none"),
        )
        return Side(asked, fitting, tuning, test, changed, drawn)

    return Case("drain shortcut", biased.name, side(biased), side(clean))


def age(model: Encoder, valid: Cohort, test: Cohort, findings, negative, seed: int) -> Case:
    """Fainter findings in the old: the films are biased, and clean ones are drawn without."""
    contrast = test.recipe["dials"]["contrast"]
    others = {a: of for a, of in contrast.items() if a != "age_group"}
    plain = [phantom.twin(c, contrast=others) for c in (valid, test)]
    few = _few(valid, seed)
    pairs = tuple(embed(c, model) for c in (few, phantom.twin(few, contrast=others)))

    def side(valid, test):
        asked = question(model, findings, "age60", negative)
        fitting, tuning = parted(films(valid, model, findings, "age60"), seed)
        asked = replace(asked, twins=pairs)
        return Side(asked, fitting, tuning, films(test, model, findings, "age60"))

    return Case("fainter findings by age", model.name, side(valid, test), side(*plain))


def sex(
    biased: Encoder, clean: Encoder, valid: Cohort, test: Cohort, findings, negative, seed: int
) -> Case:
    """Reports that leave out findings of women, in the training of one model."""
    few = _few(valid, seed)
    pairs = [phantom.twin(replace(few, table=few.table.assign(sex=s))) for s in "FM"]

    def side(model):
        asked = question(model, findings, "sex", negative)
        asked = replace(asked, twins=tuple(embed(p, model) for p in pairs))
        fitting, tuning = parted(films(valid, model, findings, "sex"), seed)
        return Side(asked, fitting, tuning, films(test, model, findings, "sex"))

    return Case("silent reports by sex", biased.name, side(biased), side(clean))


def _few(valid, seed):
    """Some films of the patients that remedies are fitted on."""
    patients = valid.table["patient_id"].to_numpy()
    names = np.unique(patients)
    fitted = np.random.default_rng(seed).permutation(names)[: round(FITTED * len(names))]
    table = valid.table[np.isin(patients, fitted)].iloc[:N_TWINS].reset_index(drop=True)
    return replace(valid, table=table)


@dataclass(frozen=True)
class Answers:
    """What a model says, with a remedy or without, of the test films of a side.

    Attributes
    ----------
    margins : tuple of three (n, k) arrays
        Of the test films, of the same as they came, and of the changed ones (or None).
    yes, yes_drawn : (n, k) arrays
        Decisions at the common threshold, or probabilities of a yes, of the first two.
    p : (n, k) array or None
        Probabilities after Platt scaling; None for a remedy that decides.
    """

    margins: tuple[np.ndarray, np.ndarray, np.ndarray | None]
    yes: np.ndarray
    yes_drawn: np.ndarray
    p: np.ndarray | None


def answers(side: Side, remedy: Remedy) -> Answers:
    """Fit a remedy on a side and ask it there.

    Raises
    ------
    ValueError
        Fitting or tuning patients are test patients.
    Lacks
        The remedy cannot be applied to this question.
    """
    for what, known in (("fitted", side.fitting), ("tuned", side.tuning)):
        if seen := len(np.intersect1d(known.patient, side.test.patient)):
            raise ValueError(
                f"a remedy would be {what} on {seen} patients of the test; expected none: take "
                "validation patients, cohorts.validation(...), and leave them out of the test"
            )
    answer = remedy.fit(side.question, side.fitting)
    given = answer(side.test)
    drawn = given if side.drawn is None else answer(side.drawn)
    changed = None if side.changed is None else answer(side.changed)
    margins = (given, drawn, changed)
    if remedy.decides:
        return Answers(margins, given, drawn, None)
    tuned, truth = answer(side.tuning), side.tuning.truth
    at = [np.quantile(m[~t], SPECIFICITY) for m, t in zip(tuned.T, truth.T, strict=True)]
    yes, yes_drawn = ((m > at).astype(float) for m in (given, drawn))
    return Answers(margins, yes, yes_drawn, platt(tuned, truth, given))


def harm(side: Side, found: Answers) -> Estimate:
    """Shift between twins, or the gap in mean sensitivity, first group minus second."""
    if side.changed is not None:
        (given, _, changed), healthy = found.margins, ~side.test.truth[:, 0]
        return stats.shift(given[:, 0], changed[:, 0], healthy)
    one, other = sensitivities(side, found)
    return one - other


def sensitivities(side: Side, found: Answers) -> tuple[Estimate, Estimate]:
    """Mean sensitivity in each group at the common threshold, of films as they came."""
    films = side.drawn or side.test
    one, other = (films.group == g for g in side.question.groups)
    return tuple(stats.sensitivity(found.yes_drawn, films.truth, g) for g in (one, other))


def orders(side: Side, found: Answers, decides: bool) -> tuple[Estimate, Estimate, Estimate]:
    """Mean AUC of the test films, and of each group of films as they came.

    Of decisions, or where ``decides`` asks for these: balanced accuracy.
    """
    films = side.drawn or side.test
    every = np.ones(len(films), bool)
    asked = [(side.test, every), *((films, films.group == g) for g in side.question.groups)]
    if decides:
        yes = (found.yes, found.yes_drawn, found.yes_drawn)
        return tuple(
            stats.balanced_accuracy(y, f.truth, g) for y, (f, g) in zip(yes, asked, strict=True)
        )
    given, drawn, _ = found.margins
    return tuple(
        stats.mean_auc(m, f.truth, g)
        for m, (f, g) in zip((given, drawn, drawn), asked, strict=True)
    )


def try_(case: Case, remedy: Remedy) -> stats.Effects:
    """What a remedy does to a case: to its biased side, and to the placebo.

    Raises
    ------
    ValueError, Lacks
        See :func:`answers`.
    """
    biased, clean = case.biased, case.clean
    plain, remedied = (answers(biased, r) for r in (NOTHING, remedy))
    order, new_order = (orders(biased, a, remedy.decides) for a in (plain, remedied))
    kind = "gap" if biased.changed is None else "shift"
    before, after = harm(biased, plain), harm(biased, remedied)
    placebo = {}
    if clean is not None:
        plain_clean, remedied_clean = (answers(clean, r) for r in (NOTHING, remedy))
        of_nobody = harm(clean, plain_clean)
        if kind == "gap":  # what is there without the bias is no harm of the bias
            before, after = before - of_nobody, after - of_nobody
        old, new = (orders(clean, a, remedy.decides) for a in (plain_clean, remedied_clean))
        placebo = {
            "new_harm": harm(clean, remedied_clean) - of_nobody,
            "new_order": new[0] - old[0],
            "new_worst": stats.worst(new[1:]) - stats.worst(old[1:]),
        }
    if kind == "gap":
        groups = zip(sensitivities(biased, remedied), sensitivities(biased, plain), strict=True)
    else:
        groups = zip(new_order[1:], order[1:], strict=True)
    p, q = plain.p, remedied.p
    truth = biased.test.truth
    score = None if q is None else stats.brier(q, truth) - stats.brier(p, truth)
    return stats.Effects(
        before=before,
        after=after,
        order=new_order[0] - order[0],
        worst_order=stats.worst(new_order[1:]) - stats.worst(order[1:]),
        gains=tuple(a - b for a, b in groups),
        kind=kind,
        brier=score,
        **placebo,
    )


def platt(tuned: np.ndarray, truth: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Probabilities (n, k) by a logistic regression for each finding (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    columns = []
    for m, t, x in zip(tuned.T, truth.T, margins.T, strict=True):
        fit = LogisticRegression(C=np.inf).fit(m[:, None], t)
        columns.append(fit.predict_proba(x[:, None])[:, 1])
    return np.column_stack(columns)
