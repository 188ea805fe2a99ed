"""Zero-shot classification: from embeddings to one table of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from cxrlib.cohorts.cohort import Cohort
from cxrlib.core.checks import one_of
from cxrlib.core.errors import Lacks
from cxrlib.embed.extract import embed, loaded
from cxrlib.models.encoder import Encoder
from cxrlib.models.loading import Ensemble
from cxrlib.models.scores import Scores
from cxrlib.predict import precomputed, prompts
from cxrlib.stats import metrics

POSITIVE, NEGATIVE = "Chest {label}", "Chest No Findings"
READINGS = {"cosine only": "none", "learned scale": "learned"}  # method -> temperature
UNIT = 1e-3  # how far the length of an embedding may be from 1


def similarity(images: np.ndarray, texts: np.ndarray, unit_text: bool = True) -> np.ndarray:
    """Cosine similarity of every image to every text.

    Parameters
    ----------
    images : array (n, d), rows of unit length
    texts : array (m, d), rows of unit length
    unit_text : bool
        False for texts of an encoder whose protocol leaves them at their length (its
        ``unit_text``); the result is then the cosine times that length.

    Returns
    -------
    array (n, m), in [-1, 1] for unit vectors

    Raises
    ------
    ValueError
        Arrays of other shapes, numbers that are not finite, vectors that are not of unit length.
    """
    images, texts = np.asarray(images), np.asarray(texts)
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"images of shape {images.shape} and texts of shape {texts.shape}: expected (n, d) and "
            "(m, d), embeddings by one model"
        )
    _check_length("images", images)
    _check_length("texts", texts, unit_text)
    return images @ texts.T


def _check_length(side, vectors, unit=True):
    length = np.linalg.norm(vectors, axis=1)
    good = np.abs(length - 1) <= UNIT if unit else np.isfinite(length)
    if good.all():
        return
    first = int(np.argmin(good))
    wrong = f"{side}: row {first} has length {length[first]:.4g} ({(~good).sum()} of {len(good)}"
    if not np.isfinite(length[first]):
        raise ValueError(f"{wrong} such rows): find out where it lost its numbers")
    raise ValueError(
        f"{wrong} rows are not of unit length, within {UNIT:g}): divide each by its length, or "
        "take what encode_image and encode_text of a loaded model return"
    )


def predict(
    cohort: Cohort,
    models: Sequence,
    labels: Sequence[str],
    positive: str | Sequence[str] = POSITIVE,
    negative: str | Sequence[str] = NEGATIVE,
    temperature: str = "learned",
    cache: bool = True,
) -> pd.DataFrame:
    """Probability of each label for each image (S, section 2.1).

    For a label, the similarities of the image to ``positive`` and to ``negative`` go through a
    softmax; the first probability is the score. That of an ensemble is the mean over its members.

    Parameters
    ----------
    cohort : Cohort
    models : sequence of loaded models or names
        Of a file of scores (:mod:`cxrlib.models.scores`), these are taken as they are.
    labels : sequence of str
        Finding columns of the cohort.
    positive, negative : str or sequence of str
        Prompts; ``{label}`` is replaced. The embeddings of several are averaged, as the model's
        authors do.
    temperature : {"learned", "none"}
        Multiply cosine similarities by the model's logit scale, or leave them in [-1, 1]. The
        scale of a model that was loaded ``as_published`` is 1 where S left it out. The
        ranking, hence AUC and precision-recall, does not depend on it; calibration does.

    Returns
    -------
    DataFrame
        One row per image, model and label: ``image_id, patient_id, cohort, model, method, label,
        y_true, score``.

    Raises
    ------
    ValueError
        No prompt, or an unknown temperature.
    Lacks
        A label that the cohort does not have; a model that is a file has no answer for some film.
    """
    one_of("temperature", temperature, ("learned", "none"))
    if missing := [label for label in labels if label not in cohort.findings]:
        raise Lacks(
            f"labels not in cohort {cohort.name!r}: {', '.join(missing)}; "
            f"it has {', '.join(cohort.findings)}"
        )
    labels = list(dict.fromkeys(labels))
    parts = []
    for model in map(loaded, models):
        if isinstance(model, Scores):  # of a file, whatever was asked and how
            for label in labels:
                score = precomputed.scores(cohort, model, label, temperature)
                how, truth = precomputed.method(model), cohort.table[label]
                parts.append(rows_of(cohort, model.name, how, label, truth, score))
            continue
        scores = pair_scores(cohort, model, labels, [(positive, negative)], temperature, cache)
        for label, (score,) in zip(labels, scores, strict=True):
            truth = cohort.table[label]
            parts.append(rows_of(cohort, model.name, "zero-shot", label, truth, score))
    return pd.concat(parts, ignore_index=True)


def both_readings(
    cohort: Cohort,
    models: Sequence,
    labels: Sequence[str],
    negative: str | Sequence[str] = NEGATIVE,
    tested: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Predictions with the cosines alone and with the learned scale, as two methods.

    Parameters
    ----------
    cohort, models, labels, negative : as in :func:`predict`
    tested : DataFrame, optional
        The rows of the cohort to keep; where these are not all, the name of the cohort says so.
    """
    parts = [
        predict(cohort, models, labels, negative=negative, temperature=t).assign(method=reading)
        for reading, t in READINGS.items()
    ]
    both = pd.concat(parts, ignore_index=True)
    if tested is None or len(tested) == len(cohort.table):
        return both
    both = both[both["image_id"].isin(tested["image_id"])]
    return both.assign(cohort=f"{cohort.name} (part)")


def beside_twins(
    cohort: Cohort,
    twins: Mapping[str, Cohort],
    model: Encoder | Ensemble | str,
    attributes: Sequence[str],
    negative: str | Sequence[str] = NEGATIVE,
) -> pd.DataFrame:
    """Predictions of one model for films and for their twins, as if by several models.

    Parameters
    ----------
    cohort : Cohort
        The films as they are drawn: "as drawn" in the column ``model``.
    twins : dict of name -> Cohort
        From :func:`cxrlib.cohorts.phantom.twin`.
    attributes : columns of the cohort that are joined in
    model, negative : as in :func:`predict`

    Returns
    -------
    DataFrame as of :func:`predict`, with the attributes.
    """
    of_film = cohort.table[["image_id", *attributes]]
    parts = [
        predict(films, [model], cohort.findings, negative=negative).assign(model=name)
        for name, films in {"as drawn": cohort, **twins}.items()
    ]
    return pd.concat(parts, ignore_index=True).merge(of_film, on="image_id")


def severity_halves(cohort: Cohort, predictions: pd.DataFrame) -> pd.DataFrame:
    """AUC of the mild and of the severe half of the films with a finding, against those without.

    Parameters
    ----------
    cohort : Cohort
        Of phantoms, which know how severe each finding was drawn.
    predictions : DataFrame as of :func:`predict`
        All of the cohort's films, in its order.

    Returns
    -------
    DataFrame, one row per model and label: ``model, finding, mild half, severe half``. Films of
    median severity are of the mild half. NaN where a half is empty; no rows where nothing was
    planted.
    """
    rows, columns = [], ["model", "finding", "mild half", "severe half"]
    known = predictions if cohort.planted else predictions.iloc[:0]
    for (model, label), films in known.groupby(["model", "label"], sort=False):
        severity = cohort.table[f"severity_{label}"].to_numpy()
        ill, score = severity > 0, films["score"].to_numpy()
        middle = np.median(severity[ill]) if ill.any() else 0
        of_half = {"mild half": severity <= middle, "severe half": severity > middle}
        areas = {
            half: metrics.auc(ill[~ill | part].astype(int), score[~ill | part])
            for half, part in of_half.items()
        }
        rows.append({"model": model, "finding": label} | areas)
    return pd.DataFrame(rows, columns=columns)


def pair_scores(
    cohort: Cohort,
    model: Encoder | Ensemble | str,
    labels: Sequence[str],
    pairs: Sequence[tuple],
    temperature: str = "learned",
    cache: bool = True,
) -> np.ndarray:
    """Probability of each label by each of several pairs of prompts, from stored embeddings.

    Images are encoded once, and so is each text, however many pairs it stands in. The exception is
    a model whose protocol leaves its texts dependent on the padding of others (MedCLIP as
    published): there the two sides of a pair go through the text encoder together, as in S.

    Parameters
    ----------
    cohort, temperature, cache : as in :func:`predict`
    model : loaded model or name
        The probability of an ensemble of checkpoints is the mean over its members.
    labels : sequence of str
        What ``{label}`` is replaced by; need not be findings of the cohort.
    pairs : sequence of (positive, negative)
        As in :func:`predict`: prompts, or several whose embeddings are averaged.

    Returns
    -------
    float array (labels, pairs, n), in [0, 1], images in the order of ``cohort.table``

    Raises
    ------
    ValueError
        No prompt, one with another slot, or an unknown temperature.
    """
    one_of("temperature", temperature, ("learned", "none"))
    asked = [
        tuple(_prompts(side, label) for side in pair) for label, pair in product(labels, pairs)
    ]

    def probabilities(member):
        texts, places = _sides(member, asked)
        images = embed(cohort, member, cache)
        scale = member.logit_scale if temperature == "learned" else 1.0
        logits = scale * similarity(images, texts, member.unit_text)
        margin = (logits[:, places[:, 0]] - logits[:, places[:, 1]]).astype(float)
        return 1 / (1 + np.exp(-margin))

    score = _mean(loaded(model), probabilities)
    return np.ascontiguousarray(score.T).reshape(len(labels), len(pairs), -1)


def _prompts(wording, label):
    """The prompts of a wording, or of several, for a label."""
    wordings = [wording] if isinstance(wording, str) else list(wording)
    if not wordings:
        raise ValueError("no prompt: expected a text, or several, such as 'Chest {label}'")
    try:
        return tuple(text.format(label=label) for text in wordings)
    except (KeyError, IndexError, ValueError):
        raise ValueError(
            f"prompt {' | '.join(wordings)!r}: expected {{label}} as the only slot"
        ) from None


def _mean(model, probabilities):
    """Probabilities by a model, or their mean over the members of an ensemble."""
    return np.mean([probabilities(m) for m in model.members], axis=0)


def _sides(model, asked):
    """Text vectors (m, d), and which of them are the two sides of each pair (pairs, 2)."""
    texts = list(dict.fromkeys(text for pair in asked for side in pair for text in side))
    if _padding_matters(model, texts):
        # as in S, where the embedding of one prompt depends on the length of the other
        alone = [
            model.encode_text([*positive, *negative])
            if len(positive) == len(negative) == 1
            else torch.stack([model.encode_prompts(positive), model.encode_prompts(negative)])
            for positive, negative in asked
        ]
        return torch.cat(alone).numpy(), np.arange(2 * len(asked)).reshape(-1, 2)
    row = {text: i for i, text in enumerate(texts)}
    raw = model.encode_text(texts, raw=True)
    sides = {side: i for i, side in enumerate(dict.fromkeys(s for pair in asked for s in pair))}
    vectors = [model.averaged(raw[[row[text] for text in side]]) for side in sides]
    return torch.stack(vectors).numpy(), np.array([[sides[s] for s in pair] for pair in asked])


def _padding_matters(model, texts):
    """Whether a text's embedding depends on what it is encoded with, tried on two texts."""
    if model.one_by_one:
        return False
    length = model.tokenizer(texts).mask.sum(dim=1)
    short, long = texts[int(length.argmin())], texts[int(length.argmax())]
    alone, beside = model.encode_text([short], raw=True), model.encode_text([short, long], raw=True)
    return not torch.allclose(alone[0], beside[0], rtol=0, atol=1e-4 * float(alone.norm()))


def format_scores(
    cohort: Cohort,
    model: Encoder | Ensemble | str,
    labels: Sequence[str],
    n_draws: int = 10,
    seed: int = 0,
    formats: Sequence[str] = prompts.FORMATS,
) -> dict[str, np.ndarray]:
    """Probabilities of the classes by each prompt format and draw (X, section 2.3).

    A class is the mean of its texts in the draw, taken as the model's authors do. Draws follow
    from seed, format and label alone: neither the other labels nor ``n_draws`` change them, and
    all models get the same ones. Each text is encoded once and by itself, so that it has one
    embedding also where a protocol leaves a model dependent on the padding of others.

    Parameters
    ----------
    cohort : Cohort
    model : loaded model or name
        The probability of an ensemble is the mean over its members.
    labels : sequence of str
        The classes.
    n_draws : int
        Draws of a random format; a fixed one has a single draw.
    seed : int
    formats : sequence of str
        Of :data:`cxrlib.predict.prompts.FORMATS`.

    Returns
    -------
    dict
        Format to a float array (draws, n, classes): softmax over the classes, for all images in
        the order of ``cohort.table``.

    Raises
    ------
    ValueError
        No draw, no format or an unknown one, fewer than two different labels, or one without
        words in a format.
    """
    if n_draws < 1:
        raise ValueError(f"n_draws={n_draws}: expected 1 or more")
    if not formats:
        raise ValueError(f"no prompt format: expected some of {', '.join(prompts.FORMATS)}")
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise ValueError(f"labels {', '.join(labels)}: expected two or more, each once")

    def draw(name, k, label):
        by = [seed, k, crc32(f"{name} {label}".encode())]
        return prompts.draw(name, label, np.random.default_rng(by))

    drawn = {
        name: [
            [draw(name, k, label) for label in labels]
            for k in range(n_draws if name in prompts.RANDOM else 1)
        ]
        for name in formats
    }
    draws = [classes for runs in drawn.values() for classes in runs]
    texts = list(dict.fromkeys(text for classes in draws for some in classes for text in some))
    row = {text: i for i, text in enumerate(texts)}

    def probabilities(member):
        encoded = torch.cat([member.encode_text([text], raw=True) for text in texts])
        images = embed(cohort, member)
        scores = []
        for classes in draws:
            means = [member.averaged(encoded[[row[t] for t in some]]) for some in classes]
            cosines = similarity(images, torch.stack(means).numpy(), member.unit_text)
            scores.append(softmax(member.logit_scale * cosines))
        return np.stack(scores)

    scores = _mean(loaded(model), probabilities)
    ends = np.cumsum([len(runs) for runs in drawn.values()])
    return dict(zip(drawn, np.split(scores, ends[:-1]), strict=True))


def format_table(
    scores: dict[str, np.ndarray], y: ArrayLike, rows: ArrayLike | None = None
) -> pd.DataFrame:
    """Accuracy of each prompt format over its draws.

    Parameters
    ----------
    scores : dict
        What :func:`format_scores` returns.
    y : int array (n,)
        Number of the true class of each image, in the order of the labels.
    rows : boolean array (n,), optional
        Images to count; all of them by default.

    Returns
    -------
    DataFrame
        One row per format: ``format, draws, accuracy`` (mean over draws, in [0, 1]), ``sd`` over
        draws (divided by their number less one; missing where there is one draw, with the reason
        in ``note``), ``lowest`` and ``highest`` accuracy of a draw, ``n`` (images), ``note``.

    Raises
    ------
    ValueError
        No scores or no rows, arrays that do not fit each other, or scores that are not finite.
    """
    if not scores:
        raise ValueError("scores: no format; take what format_scores returns")
    y = np.asarray(y)
    rows = np.ones(len(y), bool) if rows is None else np.asarray(rows)
    if rows.dtype != bool or rows.shape != y.shape or not rows.any():
        raise ValueError(f"rows: expected {len(y)} booleans, one an image, some of them true")
    table = []
    for name, score in scores.items():
        _check_classes(name, score, y)
        right = (score[:, rows].argmax(axis=2) == y[rows]).sum(axis=1)
        n = int(rows.sum())
        each = right / n
        several = len(each) > 1
        # one division of whole numbers, so that equal formats are equal to the last bit
        entry = {"format": name, "draws": len(each), "accuracy": right.sum() / (len(each) * n)}
        entry |= {"sd": each.std(ddof=1) if several else np.nan}
        entry |= {"lowest": each.min(), "highest": each.max(), "n": n}
        table.append(entry | {"note": "" if several else "one draw: no spread"})
    return pd.DataFrame(table)


def _check_classes(name, score, y):
    if score.ndim != 3 or not len(score) or score.shape[1:2] != y.shape:
        raise ValueError(
            f"scores of the format {name} have shape {score.shape}, y has {y.shape}: expected "
            "(draws, n, classes) and (n,), of one cohort"
        )
    k = score.shape[2]
    if not np.issubdtype(y.dtype, np.integer) or not ((y >= 0) & (y < k)).all():
        raise ValueError(f"y: expected whole numbers from 0 to {k - 1}, the places of the labels")
    if not np.isfinite(score).all():
        raise ValueError(f"scores of the format {name} are not finite: find out where they broke")


def best_format(table: pd.DataFrame) -> str:
    """The format of the highest mean accuracy; of equal ones the first of the table."""
    return table.loc[table["accuracy"].idxmax(), "format"]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax in double precision."""
    e = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def one_hot_rows(
    cohort: Cohort,
    rows: np.ndarray,
    model: str,
    method: str,
    labels: Sequence[str],
    target: str,
    score: np.ndarray,
) -> pd.DataFrame:
    """Predictions table of a multi-class score (m, classes) for the chosen rows."""
    truth = cohort.table.loc[rows, target].to_numpy()
    if unknown := sorted(set(truth) - set(labels)):
        raise ValueError(f"column {target!r} holds classes outside labels: {', '.join(unknown)}")
    parts = [
        rows_of(cohort, model, method, label, truth == label, score[:, k], rows)
        for k, label in enumerate(labels)
    ]
    return pd.concat(parts, ignore_index=True)


def rows_of(
    cohort: Cohort,
    model: str,
    method: str,
    label: str,
    y_true: ArrayLike,
    score: np.ndarray,
    rows: np.ndarray | slice = slice(None),
) -> pd.DataFrame:
    """Predictions table of one label: its truth and scores (m,) for the chosen rows."""
    table = cohort.table.loc[rows, ["image_id", "patient_id"]].reset_index(drop=True)
    about = {"cohort": cohort.name, "model": model, "method": method, "label": label}
    return table.assign(**about, y_true=np.asarray(y_true, np.int8), score=score.astype(float))
