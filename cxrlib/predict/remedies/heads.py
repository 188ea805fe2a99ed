"""Remedies that learn a new last layer on the image vectors, from films and labels to fit on.

A layer is a logistic regression for each finding: the log odds of it, from the standardised vector.
They differ in how much each film counts. The penalty is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cxrlib.core.errors import Lacks
from cxrlib.predict.remedies import cells
from cxrlib.predict.remedies.remedy import Answer, Films, Question, Remedy

# One over the L2 penalty. Of 0.01, 0.1, 1 and 10 it gave the least loss, averaged over group and
# label, of balanced heads on validation patients of phantoms that were held out.
C = 0.1
DRAWS = 10  # of films for the group-balanced head; its authors' code takes 20
# weights of cells in GroupDRO: how fast they move, and when they rest
STEPS, RATE, CLOSE = 200, 2.0, 2e-3
FACTORS = (1, 4, 20)  # that a film may count in the second training of JTT


def plain_head(question: Question, fitting: Films) -> Answer:
    """Learn a new last layer on films of other patients, and let every film count the same.

    It is the control of the heads below: what new labels alone do, their shortcuts included.
    Radford et al. 2021, the authors of CLIP, call it a linear probe.
    """
    return new_layer(question, fitting, lambda x, y, cell: logistic(x, y))


def reweighing(question: Question, fitting: Films) -> Answer:
    """Let films count so that group and finding are independent among those it learns from.

    A film of a group and label counts P(group) P(label) / P(group, label): where the finding is
    as common in both groups, nothing changes. Kamiran and Calders 2012.
    """

    def fit(x, y, cell):
        joint = np.bincount(cell, minlength=4).reshape(2, 2) / len(cell)
        apart = joint.sum(1, keepdims=True) * joint.sum(0)
        return logistic(x, y, (apart / joint).ravel()[cell])

    return new_layer(question, fitting, fit)


def balanced_head(question: Question, fitting: Films) -> Answer:
    """Learn the last layer on equally many films of each group and label, drawn several times.

    Most films are left out of each draw, and the layers are averaged; all depends on the smallest
    cell. Deep feature reweighting (DFR), Kirichenko et al. 2023, whose penalty is L1 and tuned.
    """

    def fit(x, y, cell):
        draws = [balanced(cell, seed) for seed in range(DRAWS)]
        return np.mean([logistic(x[rows], y[rows]) for rows in draws], axis=0)

    return new_layer(question, fitting, fit)


def group_dro(question: Question, fitting: Films) -> Answer:
    """Learn the layer whose loss is least in the group and label where it is largest.

    A cell where the loss is large gains weight by its exponential, until no other gains; a cell
    that cannot be learned sets the price for all. GroupDRO, Sagawa et al. 2020.
    """

    def fit(x, y, cell):
        share, layer, rate, last = np.full(4, 1 / 4), None, RATE, np.inf
        for _ in range(STEPS):
            layer = logistic(x, y, (share / np.bincount(cell))[cell] * len(cell), layer)
            each = np.logaddexp(0, np.where(y, -1, 1) * (x @ layer))
            loss = np.bincount(cell, each) / np.bincount(cell)
            gap = loss.max() - share @ loss
            if gap < CLOSE:
                break
            rate, last = rate / (1 + (gap > 2 * last)), gap
            share = share * np.exp(rate * loss) / (share @ np.exp(rate * loss))
        return layer

    return new_layer(question, fitting, fit)


def just_train_twice(question: Question, fitting: Films) -> Answer:
    """Learn a layer, and then another to which the films count more that the first got wrong.

    The groups serve only to choose how much more, by the worst accuracy of a group and label on a
    third of the patients; it supposes that films are got wrong because of a shortcut, not because
    they are hard. JTT, Liu et al. 2021.
    """
    patients = np.random.default_rng(0).permutation(np.unique(fitting.patient))
    held = np.isin(fitting.patient, patients[::3])

    def fit(x, y, cell):
        def twice(rows, *factors):
            wrong = (x[rows] @ logistic(x[rows], y[rows]) > 0) != y[rows]
            return [logistic(x[rows], y[rows], np.where(wrong, f, 1)) for f in factors]

        def worst(layer):
            right = (x[held] @ layer > 0) == y[held]
            return min(right[cell[held] == c].mean() for c in set(cell[held]))

        tried = [worst(layer) for layer in twice(~held, *FACTORS)]
        return twice(held | ~held, FACTORS[np.argmax(tried)])[0]

    return new_layer(question, fitting, fit)


def new_layer(question: Question, fitting: Films, fit: Callable) -> Answer:
    """Margins by ``fit(x, y, cell)``, which gives the layer (d + 1,) of a finding.

    x (n, d + 1) are vectors standardised on the films to fit on, with a column of ones; y (n,) the
    labels; cell (n,) from :func:`cells.of`.
    """
    mean, spread = fitting.images.mean(0), fitting.images.std(0)
    spread = np.where(spread > 0, spread, 1)

    def x(films):
        return np.column_stack([(films.images - mean) / spread, np.ones(len(films))])

    labels = zip(fitting.truth.T, cells.of(question, fitting).T, strict=True)
    layers = np.array([fit(x(fitting), y, cell) for y, cell in labels])
    return lambda films: x(films) @ layers.T


def logistic(
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None = None,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Layer (d + 1,) of a logistic regression whose last column, of ones, is not penalised."""
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    if y.all() or not y.any():
        raise Lacks(f"{len(y)} films to learn from, all of one label: expected both")
    model = LogisticRegression(C=C, max_iter=1000, warm_start=True)
    if start is not None:
        model.coef_, model.intercept_ = start[None, :-1], start[-1:]
    with config_context(assume_finite=True, skip_parameter_validation=True):  # thousands of fits
        model.fit(x[:, :-1], y, weight)
    return np.append(model.coef_, model.intercept_)


def balanced(cell: np.ndarray, seed: int) -> np.ndarray:
    """Rows of a draw of equally many films of each cell, as many as the smallest has."""
    rng, size = np.random.default_rng(seed), np.bincount(cell).min()
    return np.concatenate(
        [rng.choice(np.flatnonzero(cell == c), size, replace=False) for c in range(4)]
    )


REMEDIES = {
    "plain head": Remedy(plain_head, "head"),
    "reweighing": Remedy(reweighing, "head"),
    "group-balanced head": Remedy(balanced_head, "head"),
    "GroupDRO head": Remedy(group_dro, "head"),
    "JTT": Remedy(just_train_twice, "head"),
}
