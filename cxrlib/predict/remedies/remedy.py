"""What a remedy is: the films and the question that it is fitted on, and the answers it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Films:
    """What a remedy may know of films.

    Attributes
    ----------
    images : (n, d) array
        Vectors of unit length.
    truth : (n, k) bool array
        Labels of the findings that are asked for, in their order. Of test films they are for the
        judge alone: no answer looks at them.
    group : (n,) array of str
        To which of the question's groups each film belongs.
    patient : (n,) array
    """

    images: np.ndarray
    truth: np.ndarray
    group: np.ndarray
    patient: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, chosen: np.ndarray) -> Films:
        """The films at these positions, or of this mask."""
        return Films(*(getattr(self, f)[chosen] for f in self.__dataclass_fields__))


@dataclass(frozen=True)
class Question:
    """What a model is asked, and what must not matter to the answer.

    Attributes
    ----------
    findings : tuple of str
        k of them.
    positive, negative : (k, d) arrays
        Vectors of the two prompts of each finding, of unit length.
    scale : float
        The model's logit scale.
    attribute : str
        What must not matter: "drain", "sex", ...
    groups : (str, str)
        Its two groups, the one that is served worse or set apart first: ("F", "M").
    prompts : tuple of two tuples of str
        Words for the first and for the second group, as a reader would write them.
    encode : callable
        Texts to vectors (m, d) of unit length.
    twins : (m, d) array and (m, d) array, or None
        Fitting films and the same films with the planted thing changed: known of phantoms alone.
    """

    findings: tuple[str, ...]
    positive: np.ndarray
    negative: np.ndarray
    scale: float
    attribute: str
    groups: tuple[str, str]
    prompts: tuple[tuple[str, ...], tuple[str, ...]]
    encode: Callable[[list[str]], np.ndarray]
    twins: tuple[np.ndarray, np.ndarray] | None = None


Answer = Callable[[Films], np.ndarray]
Fit = Callable[[Question, Films], Answer]


class Remedy(NamedTuple):
    """A remedy of the book.

    Attributes
    ----------
    fit : callable
    works_on : str
        "texts", "images", "head", "decisions" or "training".
    decides : bool
        It gives the probability of a yes instead of margins; there is no order to take an AUC of.
    oracle : bool
        It needs twins, which nobody has of real films.
    """

    fit: Fit
    works_on: str
    decides: bool = False
    oracle: bool = False


def ask(question: Question, films: Films) -> np.ndarray:
    """Margins (n, k) without any remedy: similarity to the one prompt minus that to the other,
    times the logit scale (S section 2.1).
    """
    return question.scale * films.images @ (question.positive - question.negative).T


def nothing(question: Question, fitting: Films) -> Answer:
    """The model as it is. Whatever a remedy does is counted from here."""
    return lambda films: ask(question, films)


def moved(films: Films, images: np.ndarray) -> Films:
    """The films with other vectors, at unit length."""
    return replace(films, images=images / np.linalg.norm(images, axis=1, keepdims=True))
