"""Remedies that change the prompts and leave the films alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from cxrlib.core.errors import Lacks
from cxrlib.predict import prompts
from cxrlib.predict.remedies.remedy import Answer, Films, Question, Remedy, ask
from cxrlib.predict.wordings import areas

LAMBDA = 1000  # weight of the pairs in the calibrated projection, as in its authors' code


def orthogonal_projection(question: Question, fitting: Films) -> Answer:
    """Take the span of the attribute's prompts out of the prompts of the findings.

    With these prompts, unit vectors, as the rows of A, a prompt z becomes (I - pinv(A) A) z, at
    unit length again. It needs no film, and supposes that the words for the attribute point where
    its trace in the films lies; what finding and attribute have in common goes too (Chuang et al.
    2023, equation of the orthogonal projection).
    """
    attribute = np.concatenate(_words(question))
    keep = np.eye(attribute.shape[1]) - np.linalg.pinv(attribute) @ attribute
    return _asked_with(question, keep)


def calibrated_projection(question: Question, fitting: Films) -> Answer:
    """The same, and texts of a finding with either group's words are drawn to one another.

    Of all matrices P it takes the one of the least ||P - P0||^2 + lambda mean ||P (z - z')||^2:
    P0 (I + lambda mean (z - z')(z - z')^T)^-1, with P0 the orthogonal projection and z, z' the
    two texts of a pair. It supposes that the words' contrast within a text is the bias (Chuang et
    al. 2023, lambda of their code).
    """
    attribute = np.concatenate(_words(question))
    first = np.eye(attribute.shape[1]) - np.linalg.pinv(attribute) @ attribute
    pairs = product(question.findings, *question.prompts)
    texts = [(f"{one}, {finding}", f"{other}, {finding}") for finding, one, other in pairs]
    one, other = (question.encode(list(side)) for side in zip(*texts, strict=True))
    apart = (one - other).T @ (one - other) / len(texts)
    return _asked_with(question, first @ np.linalg.inv(np.eye(len(apart)) + LAMBDA * apart))


def averaged_wordings(question: Question, fitting: Films) -> Answer:
    """Ask with the mean margin of the best few of 48 wordings, for each finding its own.

    Wordings are ranked, and their number is chosen, by the worst of four AUCs on the fitting
    films: the ill of either group against the healthy of either group, so that a shift between
    groups counts and not only a group that is served worse (Kallus and Zhou 2019; averages of
    wordings: Radford et al. 2021). It costs labels and groups of some films, and cannot do what no
    wording does.
    """
    of_finding = []
    for k, finding in enumerate(question.findings):
        asked = _wordings(question, finding)
        best_first = np.argsort(-_worst_area(question, fitting, k, asked), kind="stable")
        averages = asked[best_first].cumsum(0) / np.arange(1, len(asked) + 1)[:, None]
        of_finding.append(averages[_worst_area(question, fitting, k, averages).argmax()])
    return lambda films: question.scale * films.images @ np.stack(of_finding, axis=1)


REMEDIES = {
    "orthogonal projection": Remedy(orthogonal_projection, "texts"),
    "calibrated projection": Remedy(calibrated_projection, "texts"),
    "averaged wordings": Remedy(averaged_wordings, "texts"),
}


def _words(question):
    """Vectors of either group's prompts, if the model tells the groups apart."""
    one, other = (np.asarray(question.encode(list(words)), float) for words in question.prompts)
    if np.allclose(one.mean(0), other.mean(0), atol=1e-5):
        words = " and ".join(" | ".join(words) for words in question.prompts)
        raise Lacks(f"the model has one vector for all of these words: {words}")
    return one, other


def _asked_with(question, matrix):
    """Answers to the prompts of the findings after a matrix, at unit length."""
    changed = {}
    for side in ("positive", "negative"):
        vectors = getattr(question, side) @ matrix.T
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if (length < 1e-6).any():
            finding = question.findings[int(length.argmin())]
            raise Lacks(f"nothing is left of the {side} prompt for {finding}")
        changed[side] = vectors / length
    instead = replace(question, **changed)
    return lambda films: ask(instead, films)


def _wordings(question, finding):
    """Positive minus negative vector of each pair of phrases (48, d)."""
    sides = [
        question.encode([phrase.text.format(label=finding) for phrase in phrases])
        for phrases in (prompts.POSITIVE, prompts.NEGATIVE)
    ]
    return np.array([yes - no for yes, no in product(*sides)])


def _worst_area(question, fitting, k, asked):
    """Of each (m, d) difference of prompts, the worst AUC of ill and healthy by group."""
    ill, groups = fitting.truth[:, k], question.groups
    if ill.all() or not ill.any():
        raise Lacks(f"fitting films: {ill.sum()} of {len(ill)} with {question.findings[k]}")
    of = {g: fitting.group == g for g in groups}
    cells = np.array([np.where(ill, of[g], of[h]) for g, h in product(groups, groups)])
    margins = (fitting.images @ asked.T).T[None]
    found = areas(margins, ill[:, None], cells)[:, 0]  # NaN where a cell lacks ill or healthy
    return np.nan_to_num(found, nan=1.0).min(axis=0)
