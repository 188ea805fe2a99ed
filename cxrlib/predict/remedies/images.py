"""Remedies that take an attribute out of the image vectors.

What is left is not brought back to unit length: lengths would tell the attribute again, and a
linear answer needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cxrlib.core.errors import Lacks
from cxrlib.predict.remedies.remedy import Answer, Films, Question, Remedy, ask


def mean_difference(question: Question, fitting: Films) -> Answer:
    """Take the direction between the means of the two groups out of all films.

    Whatever else lies along it goes too: how often a group is ill, and all of a finding that looks
    like the attribute. It costs one subtraction (mean projection, Haghighatkhah et al. 2022).
    """
    first = _first_group(question, fitting)
    direction = fitting.images[first].mean(0) - fitting.images[~first].mean(0)
    direction /= np.linalg.norm(direction)

    def answer(films: Films) -> np.ndarray:
        along = films.images @ direction
        return ask(question, replace(films, images=films.images - along[:, None] * direction))

    return answer


def leace(question: Question, fitting: Films) -> Answer:
    """Change the films as little as can be so that no linear reader tells the groups apart.

    The difference between the group means goes, as much of it as the rest of a film foretells
    (Belrose et al. 2023, theorem 4.3, by the authors' library). If one group is more often ill,
    signs of illness count as signs of the group, and are erased.
    """
    erase = eraser(fitting.images, _first_group(question, fitting))
    return lambda films: ask(question, replace(films, images=erase(films.images)))


def leace_within_labels(question: Question, fitting: Films) -> Answer:
    """Erase of the group only what the labels of all findings do not tell of it.

    LEACE of the group less its regression on the labels, so that films with the same labels are
    compared and a finding that is commoner in one group is left alone (after Frisch and Waugh
    1933). It needs labels that are right in both groups.
    """
    group = _first_group(question, fitting).astype(float)
    labels = np.column_stack([np.ones(len(fitting)), fitting.truth])
    told = labels @ np.linalg.lstsq(labels, group, rcond=None)[0]
    erase = eraser(fitting.images, group - told)
    return lambda films: ask(question, replace(films, images=erase(films.images)))


def twin_direction(question: Question, fitting: Films) -> Answer:
    """Take out the mean difference between films and their twins, and nothing else.

    An oracle: of real films there are no twins. How much of it is in a film LEACE tells; taken by
    the angle alone, a finding that points the same way would go too.
    """
    if question.twins is None:
        raise Lacks(f"no twins of the fitting films that differ in {question.attribute} alone")
    changed = np.repeat([False, True], [len(side) for side in question.twins])
    erase = eraser(np.concatenate(question.twins), changed)
    return lambda films: ask(question, replace(films, images=erase(films.images)))


REMEDIES = {
    "mean difference": Remedy(mean_difference, "images"),
    "LEACE": Remedy(leace, "images"),
    "LEACE within labels": Remedy(leace_within_labels, "images"),
    "twin direction": Remedy(twin_direction, "images", oracle=True),
}


def eraser(images: np.ndarray, concept: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """LEACE by its authors' library, as a function of arrays (n, d).

    Parameters
    ----------
    images : (n, d)
    concept : (n,) bool or numbers
        What no linear function of the vectors shall tell afterwards.

    Raises
    ------
    Lacks
        Nothing in the vectors goes with the concept.
    """
    import torch
    from concept_erasure import LeaceEraser

    fitted = LeaceEraser.fit(torch.tensor(images).double(), torch.tensor(concept).double())
    if not fitted.proj_left.any():
        raise Lacks("no difference between the groups to take out of the vectors")
    return lambda x: fitted(torch.tensor(x).double()).numpy()


def _first_group(question, fitting):
    """Which fitting films are of the first group."""
    one, other = (fitting.group == g for g in question.groups)
    if min(one.sum(), other.sum()) < 2:
        sizes = f"{one.sum()} {question.groups[0]}, {other.sum()} {question.groups[1]}"
        raise Lacks(f"fitting films by {question.attribute}: {sizes}; expected 2 or more of each")
    if np.allclose(fitting.images[one].mean(0), fitting.images[other].mean(0), atol=1e-9):
        raise Lacks(f"fitting films by {question.attribute}: both groups have one mean vector")
    return one
