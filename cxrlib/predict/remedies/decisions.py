"""Remedies that leave the model alone and change what is decided from its answers.

The group of each film must be known in use, and enters the decision. Multicalibration is left out:
no library of it is among those that are locked.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cxrlib.predict.remedies import cells
from cxrlib.predict.remedies.remedy import Answer, Films, Question, Remedy, ask
from cxrlib.stats import calibration

SPECIFICITY = 0.8  # of each group, and of the threshold that all share without a remedy


def group_thresholds(question: Question, fitting: Films) -> Answer:
    """A threshold for each group, at which the same share of its healthy films is called healthy.

    The order within a group stays as it is, and so does what the model cannot see in it. Hardt et
    al. 2016 choose such thresholds so that the ill are treated alike; here the healthy are.
    """
    margins, cell = ask(question, fitting), cells.of(question, fitting)
    healthy = [[m[c == 2 * g] for m, c in zip(margins.T, cell.T, strict=True)] for g in (0, 1)]
    at = np.array([[np.quantile(m, SPECIFICITY) for m in group] for group in healthy])
    return lambda films: ask(question, films) - at[cells.member(question, films)]


def equalised_odds(question: Question, fitting: Films) -> Answer:
    """A mixture of thresholds for each group, with the same sensitivity and specificity in both.

    What is better in the better-served group is given up by chance: a share of its films is
    decided by lot. Hardt et al. 2016, as fairlearn has it; of equal odds, those of the largest
    balanced accuracy are taken.
    """
    cell = cells.of(question, fitting)
    asked = zip(ask(question, fitting).T, cell.T, strict=True)
    rules = [odds_rule(m, c % 2, c // 2) for m, c in asked]

    def answer(films: Films) -> np.ndarray:
        group = cells.member(question, films)
        asked = zip(rules, ask(question, films).T, strict=True)
        return np.column_stack([rule(m, group) for rule, m in asked])

    return answer


def odds_rule(
    margin: np.ndarray, truth: np.ndarray, group: np.ndarray
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The rule of `equalised_odds`, fitted on (n,) margins, outcomes of 0/1 and groups.

    Returns
    -------
    Function of margins and groups (m,) that gives the probability of a yes (m,).
    """
    from fairlearn.postprocessing import ThresholdOptimizer

    how = {"constraints": "equalized_odds", "objective": "balanced_accuracy_score"}
    rule = ThresholdOptimizer(estimator=as_it_is(), prefit=True, predict_method="predict", **how)
    rule.fit(margin[:, None], truth, sensitive_features=group)

    def yes(margin: np.ndarray, group: np.ndarray) -> np.ndarray:
        # its predict draws the lots; nothing public gives their probability
        return rule._pmf_predict(margin[:, None], sensitive_features=group)[:, 1]

    return yes


def group_recalibration(question: Question, fitting: Films) -> Answer:
    """A scale and a shift of the margins for each group, so that they are log odds in it.

    A score comes to mean the same risk in both, as the labels have it: a group that is ill more
    often gets higher ones, be it ill or only reported so. Platt 1999, in each group.
    """
    cell = cells.of(question, fitting)
    asked = list(zip(ask(question, fitting).T, cell.T, strict=True))
    of = [[(m[c // 2 == g], c[c // 2 == g] % 2) for m, c in asked] for g in (0, 1)]
    fits = [[calibration.platt(m[:, None], ill) for m, ill in group] for group in of]
    lines = np.array([[(f.coef_[0, 0], f.intercept_[0]) for f in group] for group in fits])

    def answer(films: Films) -> np.ndarray:
        scale, shift = np.moveaxis(lines[cells.member(question, films)], 2, 0)
        return scale * ask(question, films) + shift

    return answer


def as_it_is() -> object:
    """An estimator that predicts what it is given."""
    from sklearn.base import BaseEstimator

    class AsItIs(BaseEstimator):
        def fit(self, x, y):
            return self

        def __sklearn_is_fitted__(self):
            return True

        def predict(self, x):
            return np.asarray(x)[:, 0]

    return AsItIs()


REMEDIES = {
    "group thresholds": Remedy(group_thresholds, "decisions"),
    "equalised odds": Remedy(equalised_odds, "decisions", decides=True),
    "group recalibration": Remedy(group_recalibration, "decisions"),
}
