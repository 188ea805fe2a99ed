"""Vectors from anywhere as a model: image and text embeddings, with no network behind them.

``embeddings:FOLDER`` holds Parquet files in the format of :mod:`cxrlib.embed.store` (``image_id``,
``embedding``, and where you like ``problem``), and ``texts.parquet`` (``text``, ``vector``) with
every phrase that will be asked. A file ``about.json`` may say the ``logit_scale`` (1 without it),
what the model was ``trained_on``, and its ``sources``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrlib.core import places
from cxrlib.core.errors import Lacks
from cxrlib.models import files, unlisted
from cxrlib.protocol import Protocol, protocol_of

TEXTS, ABOUT = "texts.parquet", "about.json"
SHARD = re.compile(r"\d{6,}-([0-9a-f]{16})\.parquet")  # of a store: its name has its SHA-256
KNOWN = {"logit_scale", "trained_on", "sources"}


@dataclass(frozen=True)
class Vectors:
    """Embeddings beside encoders: it answers for the films and phrases that it has.

    Attributes
    ----------
    name : str
    images, texts : dict of str -> row of the arrays
    image_vectors, text_vectors : float32 (n, d) and (m, d)
        Of images of unit length; of texts as they come.
    weights : str
        SHA-256 over the files.
    """

    name: str
    images: dict[str, int] = field(repr=False)
    image_vectors: np.ndarray = field(repr=False)
    texts: dict[str, int] = field(repr=False)
    text_vectors: np.ndarray = field(repr=False)
    card: dict = field(repr=False)
    weights: str
    logit_scale: float = 1.0
    protocol: str = "corrected"
    notes: tuple[str, ...] = ()
    unit_text: bool = True
    one_by_one: bool = True  # a phrase has one vector, whatever stands beside it
    average: str = "unit"
    device: str = "cpu"
    precision: str = "float32"

    @property
    def fingerprint(self) -> str:
        """Changes with the files."""
        return self.weights[:16]

    @property
    def members(self) -> tuple[Vectors, ...]:
        return (self,)

    @property
    def embed_dim(self) -> int:
        return self.image_vectors.shape[1]

    def to(self, device: str, precision: str = "float32") -> Vectors:
        """Itself: there is nothing to move."""
        return self

    def encode_text(self, texts: Sequence[str], raw: bool = False) -> Any:
        """Text embeddings, float32 tensor (n, d), as :class:`cxrlib.models.encoder.Encoder` does.

        Raises
        ------
        Lacks
            A phrase without a vector; names the first.
        """
        import torch
        from torch.nn import functional as F

        if absent := [text for text in dict.fromkeys(texts) if text not in self.texts]:
            raise Lacks(
                f"{self.name} has no vector for the text {absent[0]!r} ({len(absent)} of "
                f"{len(set(texts))} phrases asked are not in {TEXTS}); add it there"
            )
        rows = [self.texts[text] for text in texts]
        vectors = torch.from_numpy(self.text_vectors[rows])
        return vectors if raw else F.normalize(vectors, dim=1)

    def averaged(self, raw: Any) -> Any:
        """One vector of several texts, see :meth:`cxrlib.models.encoder.Encoder.averaged`."""
        from cxrlib.models.encoder import Encoder

        return Encoder.averaged(self, raw)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise Lacks(
            f"{self.name} has the vectors of its folder and no network, and this needs films that "
            "a model can be shown, or trained on; chapters 4 to 7 run on vectors"
        )


def check(name: str) -> None:
    """Refuse a folder that is not there, or holds no vectors; they are not read."""
    folder = places.place_of(name)
    _shards(folder)
    if not (folder / TEXTS).is_file():
        raise ValueError(f"{folder}: {TEXTS} is missing: columns text and vector, one row a phrase")


def card(name: str) -> dict:
    """What is known of such a model: what its ``about.json`` says, or nothing."""
    try:
        about = _about(places.place_of(name))
    except ValueError:
        about = {}
    about.pop("logit_scale", None)
    complete = "sources" in about
    how = "not known: vectors from files"
    return unlisted.card(name, architecture=how, sources_complete=complete, **about)


def load(name: str, protocol: str | Protocol = "corrected") -> Vectors:
    """The vectors of a folder.

    Parameters
    ----------
    name : str
        ``embeddings:FOLDER``, see :mod:`cxrlib.core.places`.
    protocol : {"corrected", "as_published"} or Protocol
        Without a temperature, the logit scale is 1.

    Raises
    ------
    ValueError
        No such folder, files that are missing or damaged, vectors of several lengths or that are
        not finite, an image or a text that is there twice.
    """
    folder, chosen = places.place_of(name), protocol_of(protocol)
    check(name)
    shards = _shards(folder)
    digest = hashlib.sha256()
    for path in (*shards, folder / TEXTS):
        found = files.sha256(path)
        if (shard := SHARD.fullmatch(path.name)) and not found.startswith(shard[1]):
            raise ValueError(f"{path} is damaged: its SHA-256 starts with {found[:16]}")
        digest.update(found.encode())
    about = _about(folder)
    digest.update(json.dumps(about, sort_keys=True).encode())
    parts = [_read(path, "image_id", "embedding") for path in shards]
    ids = [image for part, _ in parts for image in part]
    vectors = _unit(_joined([v for _, part in parts for v in part], folder), folder)
    texts, phrases = _read(folder / TEXTS, "text", "vector")
    spoken = _joined(phrases, folder / TEXTS)
    if spoken.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"{folder}: images have {vectors.shape[1]} numbers and texts {spoken.shape[1]}; "
            "expected vectors of one model"
        )
    scale = 1.0 if chosen.temperature == "none" else float(about.get("logit_scale", 1.0))
    return Vectors(
        f"embeddings:{folder.name}",
        _places(ids, "image_id", folder),
        vectors,
        _places(texts, "text", folder / TEXTS),
        spoken,
        card(name) | {"embed_dim": vectors.shape[1]},
        digest.hexdigest(),
        scale,
        chosen.name,
    )


def _shards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of vectors")
    shards = sorted(p for p in folder.glob("*.parquet") if p.name != TEXTS)
    if not shards:
        raise ValueError(
            f"{folder}: no Parquet file with vectors of images (columns image_id, embedding)"
        )
    return shards


def _about(folder: Path) -> dict:
    path = folder / ABOUT
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path}: no JSON") from None
    if not isinstance(about, dict) or (unknown := set(about) - KNOWN):
        said = f"unknown {', '.join(sorted(unknown))}" if isinstance(about, dict) else "no object"
        raise ValueError(f"{path}: {said}; expected some of {', '.join(sorted(KNOWN))}")
    return about


def _read(path: Path, key: str, values: str) -> tuple[list[str], list]:
    """Names and vectors of a file, without rows that have a problem instead of a vector."""
    try:
        table = pd.read_parquet(path)
    except Exception as error:
        raise ValueError(f"{path}: not read as Parquet ({unlisted.line(error)})") from None
    if absent := [column for column in (key, values) if column not in table]:
        have = ", ".join(map(str, table.columns))
        raise ValueError(f"{path}: column {absent[0]!r} is missing; the file has {have}")
    table = table[table[values].notna()]
    return table[key].astype(str).tolist(), table[values].tolist()


def _joined(vectors: list, path: Path) -> np.ndarray:
    lengths = {np.size(vector) for vector in vectors}
    if len(lengths) != 1:
        said = f"vectors of {len(lengths)} different lengths" if lengths else "no vector"
        raise ValueError(f"{path}: {said}; expected as many numbers in each")
    stacked = np.stack([np.asarray(vector, np.float32) for vector in vectors])
    if not np.isfinite(stacked).all():
        raise ValueError(f"{path}: vectors with numbers that are not finite")
    return stacked


def _unit(vectors: np.ndarray, path: Path) -> np.ndarray:
    """At unit length; vectors that are there already stay to the last bit."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not length.all():
        raise ValueError(f"{path}: a vector of length 0, which has no direction")
    return np.where(np.abs(length - 1) < 1e-5, vectors, vectors / length)


def _places(names: list[str], column: str, path: Path) -> dict[str, int]:
    if again := len(names) - len(set(names)):
        raise ValueError(f"{path}: {again} rows repeat the {column} of an earlier one")
    return {name: row for row, name in enumerate(names)}
