"""Who is studied: every dataset as one tidy table, one row per image.

``load(name)`` returns a :class:`Cohort`. The default cohorts need no download: real public
metadata, and phantom radiographs rendered from it. The others read data sets as distributed, from
``CXRBOOK_DATA/<folder>`` (:mod:`cxrlib.cohorts.files`).
"""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple

import pandas as pd

from cxrlib import guard
from cxrlib.cohorts.cohort import Cohort
from cxrlib.core import used


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


class _Known(NamedTuple):
    build: str  # module:function; imported when it is wanted
    access: str
    folder: str  # below CXRBOOK_DATA; "" for cohorts without files
    text: str


_COHORTS = {
    "phantom": _Known(
        "cxrlib.cohorts.phantom:build",
        "open",
        "",
        "phantom radiographs with planted biases on real NIH rows",
    ),
    "phantom-6x200": _Known(
        "cxrlib.cohorts.phantom:build_6x200",
        "open",
        "",
        "phantom radiographs of the NIH 6x200 recipe of X",
    ),
    "nih-metadata": _Known(
        "cxrlib.cohorts:_nih_metadata",
        "open",
        "",
        "the 112,120 rows of NIH ChestX-ray14, without pixels",
    ),
    "nih": _Known(
        "cxrlib.cohorts.nih:build",
        "open",
        "nih-cxr14",
        "NIH ChestX-ray14, by default its official test list, with the drains of NEATX if there",
    ),
    "nih-6x200": _Known(
        "cxrlib.cohorts.nih:build_6x200",
        "open",
        "nih-cxr14",
        "the NIH 6x200 recipe of X on real films",
    ),
    "mimic": _Known(
        "cxrlib.cohorts.mimic:build",
        "credentialed",
        "mimic-cxr",
        "MIMIC-CXR with MIMIC-IV, by default the frontal films of its official test split",
    ),
    "mimic-balanced": _Known(
        "cxrlib.cohorts.mimic:build_balanced",
        "credentialed",
        "mimic-cxr",
        "the balanced recipe of X on MIMIC-CXR",
    ),
    "own": _Known(
        "cxrlib.cohorts.own:build",
        "as its option says",
        "own",
        "films of your own, named in one table, cohort.csv",
    ),
    "own-balanced": _Known(
        "cxrlib.cohorts.own:build_balanced",
        "as its option says",
        "own",
        "the balanced recipe of X on films of your own",
    ),
}
BALANCED = {
    "phantom": "phantom-6x200",
    "nih": "nih-6x200",
    "mimic": "mimic-balanced",
    "own": "own-balanced",
}
"""The balanced cohort of X beside each cohort of S, for the chapter on fine-tuning."""


def names() -> list[str]:
    """Names that :func:`load` accepts."""
    return list(_COHORTS)


def describe() -> pd.DataFrame:
    """One row per cohort: name, access, folder below ``CXRBOOK_DATA``, what it is."""
    return pd.DataFrame(
        [
            {
                "cohort": name,
                "access": known.access,
                "folder": known.folder or "none needed",
                "description": known.text,
            }
            for name, known in _COHORTS.items()
        ]
    )


def known(name: str) -> _Known:
    """How a cohort is built, its access and its folder.

    Raises
    ------
    ValueError
        Unknown name; the message lists the known ones.
    """
    if name not in _COHORTS:
        near = get_close_matches(name, _COHORTS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown cohort {name!r}: {hint}known cohorts: {', '.join(_COHORTS)}")
    return _COHORTS[name]


def load(name: str, **parameters) -> Cohort:
    """Build a cohort by name; ``parameters`` are those of its builder.

    Raises
    ------
    ValueError
        Unknown name or parameter; the message lists the known ones.
    DataError
        Files that are missing or damaged.
    """
    module, _, function = known(name).build.partition(":")
    build = getattr(import_module(module), function)
    accepted = inspect.signature(build).parameters
    for parameter in parameters:
        if parameter not in accepted:
            raise ValueError(
                f"cohort {name!r} has no option {parameter!r}; it has "
                f"{', '.join(accepted) or 'none'}"
            )
    cohort = build(**parameters)
    if cohort.access == "credentialed":
        guard.protect(cohort)
    used.cohort(cohort)
    return cohort


def study(data: str, n_images: int, seed: int, options: dict | None = None, **wanted) -> Cohort:
    """The cohort of a chapter: a phantom of this size and seed, or a real one, whole.

    Parameters
    ----------
    data : str
        A name of :func:`names`.
    n_images : int
        Of a phantom. A real cohort takes all its images, unless ``options`` has ``n_images``.
    seed : int
        Of a phantom, or of the draw of a real cohort that is drawn.
    options : dict, optional
        Parameters of the cohort's builder, given by the reader of a chapter; they win over
        ``wanted``.
    **wanted
        Parameters of the builder that the chapter asks for, such as ``split="valid"``; what a
        builder does not know is left out.
    """
    if not isinstance(options or {}, dict):
        raise ValueError(f"options: {options!r}; expected a dictionary such as {{'split': 'all'}}")
    module, _, function = known(data).build.partition(":")
    accepted = inspect.signature(getattr(import_module(module), function)).parameters
    wanted |= {"seed": seed}
    if not known(data).folder:
        wanted |= {"n_images": n_images}
    wanted = {name: value for name, value in wanted.items() if name in accepted}
    return load(data, **(wanted | (options or {})))
