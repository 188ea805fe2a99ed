"""Remedies that leave the model alone and change what is decided from its answers.

The group of each film must be known in use, and enters the decision. Multicalibration is left out:
no library of it is among those that are locked.
"""

from __future__ import annotations

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
    from fairlearn.postprocessing import ThresholdOptimizer

    rules, cell = [], cells.of(question, fitting)
    how = {"constraints": "equalized_odds", "objective": "balanced_accuracy_score"}
    for m, c in zip(ask(question, fitting).T, cell.T, strict=True):
        rule = ThresholdOptimizer(
            estimator=as_it_is(), prefit=True, predict_method="predict", **how
        )
        rules.append(rule.fit(m[:, None], c % 2, sensitive_features=c // 2))

    def answer(films: Films) -> np.ndarray:
        asked = zip(rules, ask(question, films).T, strict=True)
        group = cells.member(question, films)
        # its predict draws the lots; nothing public gives their probability
        yes = [r._pmf_predict(m[:, None], sensitive_features=group)[:, 1] for r, m in asked]
        return np.column_stack(yes)

    return answer


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
