"""What a cohort is: a validated table of images, how it came about, and where its films are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from cxrlib.cohorts.pixels import READING
from cxrlib.core import toml

# What the options of builders may be; chapters refuse others before they run.
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Split = Literal["train", "valid", "test", "all"] | None
Unit = Literal["patient", "image"]

ATTRIBUTES = ("sex", "age_group", "race")
"""Attributes of S, section 2.1; a cohort has those that its source records."""

CREDITS = toml.beside(__file__, "credits")
"""Data set that films come from -> what its owners ask to be said beside them, in MyST."""

AT_ONCE = 10_000  # rows whose texts are in memory a second time while they are hashed


@dataclass(frozen=True)
class Cohort:
    """A set of radiographs and what is known about them.

    Attributes
    ----------
    name : str
    table : DataFrame
        One row per image: ``image_id, patient_id, sex, age, age_group, view`` and one 0/1 column a
        finding; where known also ``race, site, split, report`` and devices.
    findings : tuple of str
        The label columns of ``table``.
    access : "open" or "credentialed"
    recipe : dict
        Everything needed to build the cohort again.
    flow : DataFrame
        Exclusion flow: ``step, images, patients``, and where steps leave some out ``left_out``,
        the reason.
    images : callable or None
        Positions (m,) in ``table`` to m uint8 radiographs: an array (m, size, size) of phantoms, a
        list of arrays (height, width) of real ones. None for metadata only.
    sources : tuple of str
        Data sets that the images come from, spelt as on the cards of models
        (:func:`cxrlib.models.leaks.leaks`).
    films : DataFrame or None
        What :func:`cxrlib.cohorts.films.check` found, one row per image in the order of ``table``;
        None for phantoms and metadata.
    keep : Path or None
        The folder in which everything computed for single images has to stay; None where
        :func:`cxrlib.core.folders.cache_folder` will do.
    """

    name: str
    table: pd.DataFrame
    findings: tuple[str, ...]
    access: Literal["open", "credentialed"]
    recipe: dict
    flow: pd.DataFrame
    images: Callable[[np.ndarray], np.ndarray | list] | None = field(default=None, repr=False)
    sources: tuple[str, ...] = ()
    films: pd.DataFrame | None = field(default=None, repr=False)
    keep: Path | None = field(default=None, repr=False)

    @property
    def fingerprint(self) -> str:
        """Short hash of the recipe, the rows and the films, whatever their order and place."""
        parts = (self.table[i : i + AT_ONCE] for i in range(0, len(self.table), AT_ONCE))
        rows = [pd.util.hash_pandas_object(part, index=False).to_numpy() for part in parts]
        digest = hashlib.sha256(repr(sorted(self.recipe.items())).encode())
        digest.update(np.sort(np.concatenate(rows)).tobytes())
        if self.films is not None:
            digest.update("".join(sorted(self.films["sha256"])).encode())
            digest.update(str(READING).encode())
        return digest.hexdigest()[:16]

    @property
    def attributes(self) -> tuple[str, ...]:
        """Those of :data:`ATTRIBUTES` that are recorded, with two groups or more."""
        return tuple(a for a in ATTRIBUTES if a in self.table and self.table[a].nunique() > 1)

    @property
    def credit(self) -> str:
        """Whom its films are owed to, in MyST; "" for phantoms, and where no owner asks."""
        if self.films is None:
            return ""
        return " ".join(CREDITS[source] for source in self.sources if source in CREDITS)

    @property
    def planted(self) -> bool:
        """Whether this is a phantom, whose biases are known and which has twins."""
        return self.name.startswith("phantom")


def flow(steps: Iterable[tuple[str, pd.DataFrame, str]]) -> pd.DataFrame:
    """The exclusion flow of a cohort, one row per step.

    Parameters
    ----------
    steps : sequence of (str, DataFrame, str)
        What was done, the rows that are left, and why others are not ("" where none were lost).

    Returns
    -------
    DataFrame
        ``step, images, patients, left_out``.
    """
    rows = [(step, len(left), left["patient_id"].nunique(), why) for step, left, why in steps]
    return pd.DataFrame(rows, columns=["step", "images", "patients", "left_out"])
