"""Remedies that leave the model alone and change what is decided from its answers."""

from __future__ import annotations

import numpy as np

from cxrlib.predict.remedies.remedy import Answer, Films, Question, Remedy, ask

SPECIFICITY = 0.8  # of each group, and of the threshold that all share without a remedy


def group_thresholds(question: Question, fitting: Films) -> Answer:
    """A threshold for each group, at which the same share of its healthy films is called healthy.

    The order within a group stays as it is. The group of each film must be known in use, and
    entered into the decision.
    """
    margins, healthy = ask(question, fitting), ~fitting.truth
    at = {
        g: [
            np.quantile(m[h & (fitting.group == g)], SPECIFICITY)
            for m, h in zip(margins.T, healthy.T, strict=True)
        ]
        for g in question.groups
    }
    return lambda films: ask(question, films) - np.array([at[g] for g in films.group])


REMEDIES = {"group thresholds": Remedy(group_thresholds, "decisions")}
