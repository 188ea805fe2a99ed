"""Who is studied: every dataset as one tidy table, one row an image.

``load(name)`` returns a :class:`Cohort`. The default cohorts need no download: real public
metadata, and phantom radiographs rendered from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Cohort:
    """A set of radiographs and what is known about them.

    Attributes
    ----------
    name : str
    table : DataFrame
        One row an image: ``image_id, patient_id, sex, age, age_group, view`` and one 0/1 column a
        finding; where known also ``race, site, split, report`` and devices.
    findings : tuple of str
        The label columns of ``table``.
    access : "open" or "credentialed"
    recipe : dict
        Everything needed to build the cohort again.
    flow : DataFrame
        Exclusion flow: ``step, images, patients``.
    images : callable or None
        Positions (m,) in ``table`` to uint8 radiographs (m, size, size); None for metadata only.
    sources : tuple of str
        Data sets that the images come from, spelt as on the cards of models
        (:func:`cxrlib.models.leaks.leaks`).
    """

    name: str
    table: pd.DataFrame
    findings: tuple[str, ...]
    access: Literal["open", "credentialed"]
    recipe: dict
    flow: pd.DataFrame
    images: Callable[[np.ndarray], np.ndarray] | None = field(default=None, repr=False)
    sources: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Short hash of the recipe and of the rows, whatever their order."""
        rows = pd.util.hash_pandas_object(self.table, index=False).to_numpy()
        digest = hashlib.sha256(repr(sorted(self.recipe.items())).encode())
        digest.update(np.sort(rows).tobytes())
        return digest.hexdigest()[:16]


def _phantom(**parameters) -> Cohort:
    from cxrlib.cohorts import phantom

    return phantom.build(**parameters)


def _phantom_6x200(**parameters) -> Cohort:
    from cxrlib.cohorts import phantom

    return phantom.build_6x200(**parameters)


def _nih_metadata() -> Cohort:
    from cxrlib.cohorts import metadata

    recipe = {"name": "nih-metadata", "file": "Data_Entry_2017_v2020.csv (torchxrayvision wheel)"}
    return Cohort(
        "nih-metadata",
        metadata.nih(),
        metadata.FINDINGS,
        "open",
        recipe,
        metadata.nih_flow(),
        sources=("NIH-CXR14",),
    )


_COHORTS = {
    "phantom": (_phantom, "phantom radiographs with planted biases on real NIH rows"),
    "phantom-6x200": (_phantom_6x200, "phantom radiographs of the NIH 6x200 recipe of X"),
    "nih-metadata": (_nih_metadata, "the 112,120 rows of NIH ChestX-ray14, without pixels"),
}


def names() -> list[str]:
    """Names that :func:`load` accepts."""
    return list(_COHORTS)


def describe() -> pd.DataFrame:
    """One row a cohort: name, access, what it is."""
    return pd.DataFrame(
        [
            {"cohort": name, "access": "open", "description": text}
            for name, (_, text) in _COHORTS.items()
        ]
    )


def load(name: str, **parameters) -> Cohort:
    """Build a cohort by name; ``parameters`` are those of its builder.

    Raises
    ------
    ValueError
        Unknown name; the message lists the known ones.
    """
    if name not in _COHORTS:
        near = get_close_matches(name, _COHORTS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown cohort {name!r}: {hint}known cohorts: {', '.join(_COHORTS)}")
    return _COHORTS[name][0](**parameters)
