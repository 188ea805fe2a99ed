"""Remedies that take a direction, or several, out of the image vectors."""

from __future__ import annotations

import numpy as np

from cxrlib.predict.remedies.remedy import Answer, Films, Question, Remedy, ask, moved


def mean_difference(question: Question, fitting: Films) -> Answer:
    """Take the direction between the means of the two groups out of all films.

    Whatever else differs between the groups, such as how often they are ill, goes with it. Zhang,
    Dullerud et al. 2018 and many after them call it a projection; it costs one subtraction.
    """
    one, other = (fitting.images[fitting.group == g].mean(0) for g in question.groups)
    direction = (one - other) / ((one - other) ** 2).sum() ** 0.5

    def answer(films: Films) -> np.ndarray:
        along = films.images @ direction
        return ask(question, moved(films, films.images - along[:, None] * direction))

    return answer


REMEDIES = {"mean difference": Remedy(mean_difference, "images")}
