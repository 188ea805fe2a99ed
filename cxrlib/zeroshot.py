"""Zero-shot classification: from embeddings to one table of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from cxrlib.embed import embed, loaded

POSITIVE, NEGATIVE = "Chest {label}", "Chest No Findings"
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
    cohort,
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
        One row an image, model and label: ``image_id, patient_id, cohort, model, method, label,
        y_true, score``.

    Raises
    ------
    ValueError
        A label that the cohort does not have, no prompt, or an unknown temperature.
    """
    missing = [label for label in labels if label not in cohort.findings]
    if missing:
        raise ValueError(
            f"labels not in cohort {cohort.name!r}: {', '.join(missing)}; "
            f"it has {', '.join(cohort.findings)}"
        )
    if temperature not in ("learned", "none"):
        raise ValueError(f"temperature={temperature!r}: expected 'learned' or 'none'")
    asked = {
        label: (_prompts(positive, label), _prompts(negative, label))
        for label in dict.fromkeys(labels)
    }
    parts = []
    for model in map(loaded, models):
        score = _mean(model, lambda m: _binary(cohort, m, asked, temperature, cache))
        parts += [
            _rows(cohort, model.name, "zero-shot", label, cohort.table[label], score[:, k])
            for k, label in enumerate(asked)
        ]
    return pd.concat(parts, ignore_index=True)


def _prompts(wording, label) -> list[str]:
    """The prompts of a wording, or of several, for a label."""
    wordings = [wording] if isinstance(wording, str) else list(wording)
    if not wordings:
        raise ValueError("no prompt: expected a text, or several, such as 'Chest {label}'")
    return [text.format(label=label) for text in wordings]


def _mean(model, probabilities) -> np.ndarray:
    """Probabilities by a model, or their mean over the members of an ensemble."""
    return np.mean([probabilities(m) for m in model.members], axis=0)


def _binary(cohort, model, asked, temperature, cache) -> np.ndarray:
    """Probability of each label against its opponent, double precision (n, labels)."""
    # The two prompts of a label go through the text encoder together, as in S: where a model
    # attends to padding, the embedding of one depends on the length of the other.
    pairs = [
        model.encode_text([*positive, *negative])
        if len(positive) == len(negative) == 1
        else torch.stack([model.encode_prompts(positive), model.encode_prompts(negative)])
        for positive, negative in asked.values()
    ]
    images = embed(cohort, model, cache)
    scale = model.logit_scale if temperature == "learned" else 1.0
    logits = scale * similarity(images, torch.cat(pairs).numpy(), model.unit_text)
    margin = (logits[:, 0::2] - logits[:, 1::2]).astype(float)
    return 1 / (1 + np.exp(-margin))


def classify(
    cohort,
    models: Sequence,
    labels: Sequence[str],
    target: str = "disease",
    prompt: str | Sequence[str] = POSITIVE,
    rows=None,
) -> pd.DataFrame:
    """One of several labels for each image: softmax over the labels (X, section 2.3).

    Parameters
    ----------
    cohort : Cohort
    models, labels : as in :func:`predict`
    target : str
        Column of the cohort's table with the true class, one of ``labels``.
    prompt : str or sequence of str
        As ``positive`` in :func:`predict`.
    rows : boolean array, optional
        Images to score; all of them by default.

    Returns
    -------
    DataFrame
        As :func:`predict`, with ``y_true`` one-hot and scores that sum to 1 over the labels.
    """
    rows = np.ones(len(cohort.table), bool) if rows is None else np.asarray(rows)
    prompts = [_prompts(prompt, label) for label in labels]

    def probabilities(model):
        texts = torch.stack([model.encode_prompts(p) for p in prompts]).numpy()
        cosines = similarity(embed(cohort, model)[rows], texts, model.unit_text)
        return softmax(model.logit_scale * cosines)

    parts = []
    for model in map(loaded, models):
        score = _mean(model, probabilities)
        parts.append(one_hot_rows(cohort, rows, model.name, "zero-shot", labels, target, score))
    return pd.concat(parts, ignore_index=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise softmax in double precision."""
    e = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def one_hot_rows(
    cohort, rows, model: str, method: str, labels, target: str, score: np.ndarray
) -> pd.DataFrame:
    """Predictions table of a multi-class score (m, classes) for the chosen rows."""
    truth = cohort.table.loc[rows, target].to_numpy()
    unknown = sorted(set(truth) - set(labels))
    if unknown:
        raise ValueError(f"column {target!r} holds classes outside labels: {', '.join(unknown)}")
    parts = [
        _rows(cohort, model, method, label, truth == label, score[:, k], rows)
        for k, label in enumerate(labels)
    ]
    return pd.concat(parts, ignore_index=True)


def _rows(cohort, model, method, label, y_true, score, rows=slice(None)) -> pd.DataFrame:
    table = cohort.table.loc[rows, ["image_id", "patient_id"]]
    return pd.DataFrame(
        {
            "image_id": table["image_id"].to_numpy(),
            "patient_id": table["patient_id"].to_numpy(),
            "cohort": cohort.name,
            "model": model,
            "method": method,
            "label": label,
            "y_true": np.asarray(y_true).astype(np.int8),
            "score": score.astype(float),
        }
    )
