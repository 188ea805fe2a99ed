"""FairCLIP (Luo et al. 2024) on stored vectors: the term of its equation, and that of its code.

Two linear layers, one on the vectors of films and one on those of texts, start as the identity and
are trained on films and their reports: CLIP's contrastive loss, plus a weight times a sum over
groups of the Sinkhorn distance between similarities in a batch and in a batch of the group. The
logit scale stays as it is. What the public code does, and where that was read, stands in
``fairclip.toml``; nothing of it is used here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxrlib.cohorts.cohort import Cohort
from cxrlib.core import toml
from cxrlib.core.checks import one_of
from cxrlib.core.errors import Lacks
from cxrlib.predict import court
from cxrlib.predict.remedies.remedy import Answer, Films, Question, Remedy, ask, moved
from cxrlib.show import words
from cxrlib.stats.influence import Estimate

if TYPE_CHECKING:
    from torch import Tensor

EPOCHS, BATCH, RATE = 2, 64, 1.5e-3
BLUR, ITERATIONS = 0.05, 10

_KNOWN = toml.beside(__file__)
MEASURES = ("accuracy", "auc", "parity", "odds")

Pairs = tuple["Tensor", "Tensor"]  # vectors (..., n, d) of films and of their reports


def sinkhorn(x: Tensor, y: Tensor, blur: float = BLUR, iterations: int = ITERATIONS) -> Tensor:
    """Sinkhorn distance of two samples of numbers, with the cost (x - y)^2 / 2 (Cuturi 2013).

    The plan is found in the log domain and held fixed in the gradient, as the envelope theorem
    allows.

    Parameters
    ----------
    x : (..., n) tensor
    y : (..., m) tensor
    blur : float > 0
        Entropy of the plan, as a share of the mean cost: the smaller, the nearer is the exact
        distance, and the more iterations it takes.
    iterations : int

    Returns
    -------
    (...) tensor, at least 0, in squared units of the samples
    """
    import torch

    cost = (x[..., :, None] - y[..., None, :]) ** 2 / 2
    n, m = cost.shape[-2:]
    with torch.no_grad():
        scaled = cost / (blur * cost.mean((-2, -1), keepdim=True)).clamp(min=1e-30)
        g = torch.zeros_like(scaled[..., :1, :])
        for _ in range(iterations):
            f = np.log(m) - (g - scaled).logsumexp(-1, keepdim=True)
            g = np.log(n) - (f - scaled).logsumexp(-2, keepdim=True)
        plan = (f + g - scaled).exp() / (n * m)
    return (plan * cost).sum((-2, -1))


def to_own_report(films: Tensor, reports: Tensor) -> Tensor:
    """Similarity of each film to its own report (..., n): the diagonal in the paper's equation."""
    return (films * reports).sum(-1)


def diagonal_of_square(films: Tensor, reports: Tensor, scale: float) -> Tensor:
    """Diagonal (..., n) of the matrix of logits times itself, which the code takes instead.

    Each number is a sum over the batch: logit of this film and that report, times logit of that
    film and this report.
    """
    logits = scale * films @ reports.mT
    return (logits * logits.mT).sum(-1)


def corrected(batch: Pairs, of_groups: Pairs, scale: float) -> Tensor:
    """The term of the paper: like is compared with like."""
    return sinkhorn(to_own_report(*batch), to_own_report(*of_groups)).sum()


def as_published(batch: Pairs, of_groups: Pairs, scale: float) -> Tensor:
    """The term of the code: a group's numbers are divided by their sum and held fixed."""
    fixed = diagonal_of_square(*of_groups, scale).detach()
    fixed = fixed / fixed.sum(-1, keepdim=True)
    return sinkhorn(diagonal_of_square(*batch, scale), fixed).sum()


TERMS: dict[str, Callable[[Pairs, Pairs, float], Tensor]] = {
    "as_published": as_published,
    "corrected": corrected,
}


def train(
    question: Question,
    fitting: Films,
    reports: pd.DataFrame,
    form: str = "corrected",
    weight: float = 0.0,
    seed: int = 0,
    epochs: int = EPOCHS,
    batch: int = BATCH,
) -> np.ndarray:
    """The two layers, trained.

    Parameters
    ----------
    question : Question
    fitting : Films
    reports : DataFrame (m, d)
        Vectors of reports, of unit length, by the patient of the film (index), in the order of the
        films; patients who are not among ``fitting`` are left out.
    form : {"as_published", "corrected"}
    weight : float >= 0
        Of the term, lambda in the paper; 0 is the contrastive loss alone.
    seed : int
        Of the batches.
    epochs, batch : int
        A batch of each group is as large.

    Returns
    -------
    (2, d, d) array: for films, for texts

    Raises
    ------
    ValueError
        An unknown form, or reports of other films.
    Lacks
        One of the question's groups has no film.
    """
    import torch
    from torch.nn.functional import cross_entropy

    one_of("form", form, TERMS)
    members, vectors = _prepared(question, fitting, reports)
    layers = torch.eye(vectors[0].shape[1]).repeat(2, 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([layers], RATE)
    order, drawn = (torch.Generator().manual_seed(2 * seed + i) for i in (0, 1))
    for _ in range(epochs):
        for part in torch.randperm(len(fitting), generator=order).split(batch):
            pairs = _passed(layers, vectors, part)
            logits = question.scale * pairs[0] @ pairs[1].T
            target = torch.arange(len(part))
            loss = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
            if weight:
                of_groups = _passed(layers, vectors, _draw(members, len(part), drawn))
                loss = loss + weight * TERMS[form](pairs, of_groups, question.scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return layers.detach().numpy()


def pull(
    question: Question, fitting: Films, reports: pd.DataFrame, form: str, seed: int = 0
) -> np.ndarray:
    """Gradient (2, d, d) of the term alone, before any training: where it pulls the layers.

    One batch of :data:`BATCH` films is compared with as many of each group.
    """
    import torch

    members, vectors = _prepared(question, fitting, reports)
    layers = torch.eye(vectors[0].shape[1]).repeat(2, 1, 1).requires_grad_()
    drawn = torch.Generator().manual_seed(seed)
    part = torch.randperm(len(fitting), generator=drawn)[:BATCH]
    of_groups = _passed(layers, vectors, _draw(members, BATCH, drawn))
    TERMS[form](_passed(layers, vectors, part), of_groups, question.scale).backward()
    return layers.grad.numpy()


def agreement(
    question: Question,
    fitting: Films,
    reports: pd.DataFrame,
    form: str,
    batches: int,
    seed: int = 0,
) -> np.ndarray:
    """Cosine (batches,) between two pulls of the term, the groups as they are and shuffled.

    1: it pulls where it pulls whatever the groups are.
    """
    group = np.random.default_rng(seed).permutation(fitting.group)
    of_both = (fitting, replace(fitting, group=group))
    found = []
    for batch in range(batches):
        a, b = (pull(question, films, reports, form, batch).ravel() for films in of_both)
        found.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return np.array(found)


def _prepared(question, films, reports):
    """Positions of the films of each group, and vectors of films and of their reports."""
    import torch

    theirs = reports[reports.index.isin(films.patient)].to_numpy()
    if len(theirs) != len(films):
        raise ValueError(f"{len(theirs)} reports of {len(films)} films; expected one of each film")
    members = [torch.tensor(np.flatnonzero(films.group == g)) for g in question.groups]
    if absent := [g for g, of in zip(question.groups, members, strict=True) if not len(of)]:
        raise Lacks(f"FairCLIP compares groups, and no film it is fitted on is of {absent[0]!r}")
    return members, [torch.tensor(v, dtype=torch.float32) for v in (films.images, theirs)]


def _draw(members, n, generator):
    """As many films of each group, (groups, n)."""
    import torch

    return torch.stack([of[torch.randint(len(of), (n,), generator=generator)] for of in members])


def _passed(layers, vectors, rows):
    from torch.nn.functional import normalize

    return tuple(normalize(v[rows] @ w, dim=-1) for v, w in zip(vectors, layers, strict=True))


def answering(question: Question, layers: np.ndarray) -> Answer:
    """Margins of films and prompts that go through the layers."""
    texts = [p @ layers[1] for p in (question.positive, question.negative)]
    one, other = (t / np.linalg.norm(t, axis=1, keepdims=True) for t in texts)
    asked = replace(question, positive=one, negative=other)
    return lambda films: ask(asked, moved(films, films.images @ layers[0]))


def similarity(layers: np.ndarray, images: np.ndarray, reports: np.ndarray) -> np.ndarray:
    """Cosine (n,) of each film and its own report behind the layers."""
    pairs = (v @ w for v, w in zip((images, reports), layers, strict=True))
    one, other = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in pairs)
    return (one * other).sum(1)


def fit(question: Question, fitting: Films, reports: pd.DataFrame, **how: object) -> Answer:
    """FairCLIP as a remedy; ``how`` as in :func:`train`."""
    return answering(question, train(question, fitting, reports, **how))


def reports(question: Question, fitting: Films, cohort: Cohort) -> pd.DataFrame:
    """Vectors (n, d) of the reports of the fitting films, by patient.

    Parameters
    ----------
    question : Question
        Its ``encode`` turns each wording into a vector, once.
    fitting : Films
        All films of some patients of the cohort, in its order.
    cohort : Cohort
        Its table has a ``report`` of each film.
    """
    table = cohort.table[cohort.table["patient_id"].isin(fitting.patient)]
    texts, which = np.unique(table["report"].to_numpy(str), return_inverse=True)
    return pd.DataFrame(question.encode(texts.tolist())[which], index=table["patient_id"])


def harm(side: court.Side, answer: Answer) -> Estimate:
    """The harm of the court on the biased side, after one training: nothing is fitted anew."""
    remedy = Remedy(lambda question, fitting: answer, "training")
    return court.harm(side, court.once(side, remedy, side.fitting, side.tuning))


# --- what others published ---


def claims() -> pd.DataFrame:
    """What FairCLIP says and what code and reproductions show: what (index), says, shows, read in,
    verdict.
    """
    return pd.DataFrame(_KNOWN["claims"]).set_index("what").rename(columns={"read": "read in"})


def runs() -> pd.DataFrame:
    """Trainings that the reproductions published, one a row."""
    return pd.DataFrame(_KNOWN["runs"]["rows"], columns=_KNOWN["runs"]["columns"])


def reproduced() -> pd.DataFrame:
    """FairCLIP minus CLIP in each reproduction: the trainings are the unit, Welch's t interval.

    Returns
    -------
    DataFrame: by, architecture, attribute (index), and for each of :data:`MEASURES` the mean of
    CLIP, that of FairCLIP, their difference, its low and its high end (second level of columns).
    """
    from scipy.stats import ttest_ind

    found = {}
    names = ["by", "architecture", "attribute"]
    for kind, rows in runs().groupby(names, sort=False):
        one, other = (rows[rows["model"] == m] for m in ("FairCLIP", "CLIP"))
        for measure in MEASURES:
            a, b = one[measure], other[measure]
            ends = ttest_ind(a, b, equal_var=False).confidence_interval()
            values = {"CLIP": b.mean(), "FairCLIP": a.mean(), "difference": a.mean() - b.mean()}
            values |= {"low": ends.low, "high": ends.high}
            found |= {(*kind, measure, name): value for name, value in values.items()}
    return (
        pd.Series(found)
        .rename_axis([*names, "measure", "of"])
        .unstack(["measure", "of"], sort=False)
    )


def side_by_side() -> pd.DataFrame:
    """:func:`reproduced` for a reader: the mean of CLIP, and the change with its interval."""
    numbers = reproduced()
    table = pd.DataFrame({"trained": map(", ".join, numbers.index)})
    heads = {"parity": "parity", "accuracy": "accuracy", "auc": "AUC"}
    for measure, head in heads.items():
        of = numbers[measure]
        rows = zip(of["difference"], of["low"], of["high"], strict=True)
        table[f"{head}, CLIP"] = of["CLIP"].to_numpy()
        table[f"{head}, change"] = [words.fmt_interval(*row, digits=3) for row in rows]
    return table


def parity_by_chance() -> pd.Series:
    """Mean parity difference of an exactly fair classifier on the test set of Harvard-FairVLMed.

    By attribute, between its two largest groups; it calls every second patient ill. The difference
    of two shares is nearly normal, and the mean of its modulus sqrt(2 / pi) standard errors.
    """
    known = {a: list(n.values()) for a, n in _KNOWN["tested"].items()}
    spread = {a: (0.25 / np.array(n)).sum() ** 0.5 for a, n in known.items()}
    return pd.Series(spread) * (2 / np.pi) ** 0.5
