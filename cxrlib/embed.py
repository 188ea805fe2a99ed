"""Embeddings of a cohort by a model, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock

BATCH_PIXELS = 2**20  # 256 images of 64 x 64 pixels, 20 of 224 x 224
FILM_PIXELS = 2**27  # as they are on disk: 128 films of 1024 x 1024


def cache_folder() -> Path:
    """Where embeddings are kept: ``CXRBOOK_CACHE``, or ``~/.cache/cxrbook``."""
    return Path(os.environ.get("CXRBOOK_CACHE") or Path.home() / ".cache" / "cxrbook")


def folder_for(cohort) -> Path:
    """Where what is computed for single images of a cohort is kept.

    The cohort's own folder, where it has one (credentialed data stay with the data), or
    :func:`cache_folder`.
    """
    return cohort.keep or cache_folder()


def embed(cohort, model, cache: bool = True) -> np.ndarray:
    """Image embeddings of a whole cohort.

    Parameters
    ----------
    cohort : Cohort
    model : object or str
        A loaded model, or a name for :func:`cxrlib.models.load`.
    cache : bool
        Keep the result in :func:`folder_for` the cohort, keyed by the fingerprints of cohort
        and model. Two processes that want the same embeddings wait for each other.

    Returns
    -------
    float32 array (n, d), unit norm, in the order of ``cohort.table``

    Raises
    ------
    ValueError
        The cohort has no images, or the model is an ensemble.
    OSError
        The cache folder cannot be made.
    """
    model = _one(model)
    if cohort.images is None:
        raise ValueError(f"cohort {cohort.name!r} is metadata only; embeddings need images")
    if not cache:
        return _compute(cohort, model, np.arange(len(cohort.table)))
    key = hashlib.sha256(f"{cohort.fingerprint} {model.fingerprint}".encode()).hexdigest()[:24]
    path = folder_for(cohort) / f"{key}.npy"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"embeddings cannot be kept in {path.parent} ({error.strerror}); "
            "set CXRBOOK_CACHE to a folder that can be written"
        ) from error
    # A fingerprint does not depend on the order of the rows, so the file has an order of its own.
    order = np.argsort(cohort.table["image_id"].to_numpy(str), kind="stable")
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            _write(path, _compute(cohort, model, order))
    return np.load(path)[np.argsort(order)]


def embed_text(texts: list[str], model) -> np.ndarray:
    """Text embeddings, float32 (n, d), of unit norm unless the model's protocol says else."""
    return _one(model).encode_text(list(texts)).numpy()


def loaded(model):
    """The model itself, or the one of that name."""
    if isinstance(model, str):
        from cxrlib import models

        return models.load(model)
    return model


def _one(model):
    """The loaded model, which must not be an ensemble."""
    model = loaded(model)
    if len(model.members) > 1:
        raise ValueError(
            f"{model.name} is an ensemble of {len(model.members)} checkpoints, whose probabilities "
            "are averaged: its members have embeddings, it has not. Take one, model.members[0], or "
            "keep one checkpoint in its folder"
        )
    return model


def prepared(cohort, model, positions) -> Iterator:
    """The films at ``positions`` as the model wants them, a few at a time: float (m, 3, h, w)."""
    batch = max(1, BATCH_PIXELS // model.card["image_size"] ** 2)
    if cohort.films is not None:
        largest = int((cohort.films["height"] * cohort.films["width"]).max())
        batch = min(batch, max(1, FILM_PIXELS // largest))
    for few in np.array_split(positions, max(1, len(positions) // batch)):
        yield model.preprocess(cohort.images(few))


def _compute(cohort, model, positions) -> np.ndarray:
    return np.concatenate(
        [model.encode_image(batch).numpy() for batch in prepared(cohort, model, positions)]
    )


def _write(path: Path, array: np.ndarray) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".npy")
    with os.fdopen(handle, "wb") as f:
        np.save(f, array)
    os.replace(temporary, path)
