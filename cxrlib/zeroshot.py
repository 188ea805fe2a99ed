"""Zero-shot classification: from embeddings to one table of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrlib.embed import embed, embed_text, loaded

POSITIVE, NEGATIVE = "Chest {label}", "Chest No Findings"


def predict(
    cohort,
    models: Sequence,
    labels: Sequence[str],
    positive: str = POSITIVE,
    negative: str = NEGATIVE,
    temperature: str = "learned",
    cache: bool = True,
) -> pd.DataFrame:
    """Probability of each label for each image (S, section 2.1).

    For a label, the similarities of the image to ``positive`` and to ``negative`` go through a
    softmax; the first probability is the score.

    Parameters
    ----------
    cohort : Cohort
    models : sequence of loaded models or names
    labels : sequence of str
        Finding columns of the cohort.
    positive, negative : str
        Prompts; ``{label}`` is replaced.
    temperature : {"learned", "none"}
        Multiply cosine similarities by the model's logit scale, or leave them in [-1, 1]. The
        ranking, hence AUC and precision-recall, does not depend on it; calibration does.

    Returns
    -------
    DataFrame
        One row an image, model and label: ``image_id, patient_id, cohort, model, method, label,
        y_true, score``.

    Raises
    ------
    ValueError
        A label that the cohort does not have, or an unknown temperature.
    """
    missing = [label for label in labels if label not in cohort.findings]
    if missing:
        raise ValueError(
            f"labels not in cohort {cohort.name!r}: {', '.join(missing)}; "
            f"it has {', '.join(cohort.findings)}"
        )
    if temperature not in ("learned", "none"):
        raise ValueError(f"temperature={temperature!r}: expected 'learned' or 'none'")
    parts = []
    for model in map(loaded, models):
        images = embed(cohort, model, cache)
        prompts = embed_text([positive.format(label=x) for x in labels] + [negative], model)
        scale = model.logit_scale if temperature == "learned" else 1.0
        similarity = scale * images @ prompts.T
        margin = similarity[:, :-1] - similarity[:, -1:]
        score = 1 / (1 + np.exp(-margin.astype(float)))
        parts += [
            _rows(cohort, model.name, "zero-shot", label, cohort.table[label], score[:, k])
            for k, label in enumerate(labels)
        ]
    return pd.concat(parts, ignore_index=True)


def classify(
    cohort,
    models: Sequence,
    labels: Sequence[str],
    target: str = "disease",
    prompt: str = POSITIVE,
    rows=None,
) -> pd.DataFrame:
    """One of several labels for each image: softmax over the labels (X, section 2.3).

    Parameters
    ----------
    cohort : Cohort
    models, labels : as in :func:`predict`
    target : str
        Column of the cohort's table with the true class, one of ``labels``.
    rows : boolean array, optional
        Images to score; all of them by default.

    Returns
    -------
    DataFrame
        As :func:`predict`, with ``y_true`` one-hot and scores that sum to 1 over the labels.
    """
    rows = np.ones(len(cohort.table), bool) if rows is None else np.asarray(rows)
    parts = []
    for model in map(loaded, models):
        prompts = embed_text([prompt.format(label=label) for label in labels], model)
        logits = model.logit_scale * embed(cohort, model)[rows] @ prompts.T
        score = softmax(logits)
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
