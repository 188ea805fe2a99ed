"""Films by group and label, which heads and decisions are fitted on."""

from __future__ import annotations

import numpy as np

from cxrlib.core.errors import Lacks
from cxrlib.predict.remedies.remedy import Films, Question


def of(question: Question, fitting: Films) -> np.ndarray:
    """Cell (n, k) of each film for each finding: 0 and 1 are the first group without and with it,
    2 and 3 the second.

    Raises
    ------
    Lacks
        A cell without a film, or a film of neither group.
    """
    cell = 2 * member(question, fitting)[:, None] + fitting.truth
    for column, finding in zip(cell.T, question.findings, strict=True):
        for empty in np.flatnonzero(np.bincount(column, minlength=4) == 0):
            group, label = question.groups[empty // 2], "with" if empty % 2 else "without"
            raise Lacks(
                f"no film of group {group!r} {label} {finding} to fit on: of each group of "
                f"{question.attribute}, films with and without each finding are needed"
            )
    return cell


def member(question: Question, films: Films) -> np.ndarray:
    """Which group (n,) each film belongs to, 0 or 1.

    Raises
    ------
    Lacks
        A film of neither group: nothing was fitted that could decide on it.
    """
    group = np.asarray(films.group)
    if strangers := sorted(set(group.tolist()) - set(question.groups), key=str):
        raise Lacks(
            f"{np.isin(group, strangers).sum()} films of {question.attribute} {strangers[0]!r}: "
            f"fitted are {' and '.join(question.groups)}; leave those films out"
        )
    return (group == question.groups[1]).astype(int)
