"""Who is studied: every dataset as one tidy table, one row per image.

``load(name)`` returns a :class:`Cohort`. The default cohorts need no download: real public
metadata, and phantom radiographs rendered from it. The others read data sets as distributed, from
``CXRBOOK_DATA/<folder>`` (:mod:`cxrlib.cohorts.files`). Must not know what is predicted or computed
from a cohort; of models it knows how images are prepared, no more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple, get_type_hints

import pandas as pd

from cxrlib import guard
from cxrlib.cohorts.cohort import Cohort
from cxrlib.core import toml, used
from cxrlib.core.errors import nearest


class _Known(NamedTuple):
    where: str  # module:function of this package; imported when it is wanted
    access: str
    text: str
    folder: str = ""  # below CXRBOOK_DATA
    balanced: str = ""

    def builder(self) -> Callable[..., Cohort]:
        module, _, function = self.where.partition(":")
        return getattr(import_module(f"{__name__}.{module}"), function)


_COHORTS = {name: _Known(**about) for name, about in toml.beside(__file__, "cohorts").items()}
BALANCED = {name: known.balanced for name, known in _COHORTS.items() if known.balanced}
"""The balanced cohort of X beside each cohort of S, for the chapter on fine-tuning."""


def names() -> list[str]:
    """Names that :func:`load` accepts."""
    return list(_COHORTS)


def describe() -> pd.DataFrame:
    """One row per cohort: name, access, folder below ``CXRBOOK_DATA``, what it is."""
    columns = ["cohort", "access", "folder", "description"]
    rows = [(k, v.access, v.folder or "none needed", v.text) for k, v in _COHORTS.items()]
    return pd.DataFrame(rows, columns=columns)


def known(name: str) -> _Known:
    """How a cohort is built, its access and its folder.

    Raises
    ------
    ValueError
        Unknown name; the message gives the nearest one, or lists all.
    """
    if name not in _COHORTS:
        raise ValueError(f"unknown cohort {name!r}: {nearest(name, list(_COHORTS))}")
    return _COHORTS[name]


def card(name: str) -> dict[str, str]:
    """What is known of the source of a cohort: name -> a sentence or two; what is not known is
    absent. ``place`` is the page or chapter of the book that says more.

    Parameters
    ----------
    name : str
        One of :func:`names`; for another the card is empty.
    """
    cards = toml.beside(__file__, "cards").values()
    found = next((card for card in cards if name in card["cohorts"]), {})
    return {key: text for key, text in found.items() if key != "cohorts"}


def load(name: str, **parameters: Any) -> Cohort:
    """Build a cohort by name; ``parameters`` are those of its builder.

    Raises
    ------
    ValueError
        Unknown name or parameter; the message lists the known ones.
    DataError
        Files that are missing or damaged.
    """
    build = known(name).builder()
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


def check_options(name: str, options: dict) -> None:
    """Refuse options that the builder of a cohort does not have, or values that it cannot take.

    Raises
    ------
    ValueError
        Names the option, or the dial of a phantom, and what is expected: types and bounds are those
        of the builder's annotations.
    """
    if not isinstance(options, dict):
        raise ValueError(f"options: {options!r}; expected a dictionary such as {{'split': 'all'}}")
    kinds = get_type_hints(known(name).builder(), include_extras=True)
    del kinds["return"]
    _check_each(options, kinds, f"cohort {name!r} has no option", "")
    if dials := options.get("dials"):
        from cxrlib.cohorts import phantom

        _check_each(dials, get_type_hints(phantom.Dials), "unknown dial", "dial ")
        try:
            phantom.Dials(**dials)
        except ValueError as error:
            raise ValueError(f"options: {error}") from None


def _check_each(given, kinds, unknown, prefix):
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    config = ConfigDict(strict=True, allow_inf_nan=False)
    for name, value in given.items():
        if name not in kinds:
            near = nearest(str(name), list(kinds))
            raise ValueError(f"options: {unknown} {name!r}; {near}")
        try:
            TypeAdapter(kinds[name], config=config).validate_python(value)
        except ValidationError as error:
            expected = error.errors()[-1]["msg"].replace("Input should be", "expected")
            raise ValueError(f"options: {prefix}{name} is {value!r}; {expected}") from None


def study(
    data: str, n_images: int, seed: int, options: dict | None = None, **wanted: Any
) -> Cohort:
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
    check_options(data, options or {})
    accepted = inspect.signature(known(data).builder()).parameters
    wanted |= {"seed": seed}
    if not known(data).folder:
        wanted |= {"n_images": n_images}
    wanted = {name: value for name, value in wanted.items() if name in accepted}
    return load(data, **(wanted | (options or {})))


def validation(
    test: Cohort,
    data: str,
    n_images: int,
    seed: int,
    options: dict | None = None,
    **wanted: Any,
) -> tuple[Cohort, pd.DataFrame]:
    """Validation patients beside a test cohort, half as many where their number is given.

    Parameters
    ----------
    test : Cohort
        From :func:`study`, called with what follows.

    Returns
    -------
    (Cohort, DataFrame)
        The validation cohort, and the rows of the test cohort whose patients are not in it:
        options such as ``{"split": "all"}`` take some of them into the test.

    Raises
    ------
    ValueError
        No patient is left to be tested.
    """
    options = {key: value for key, value in (options or {}).items() if key != "split"}
    if "n_images" in options:
        options["n_images"] //= 2
    valid = study(data, n_images // 2, seed, options, split="valid", **wanted)
    shared = test.table["patient_id"].isin(valid.table["patient_id"])
    if shared.all():
        raise ValueError(
            f"cohort {test.name!r}: all its patients are in the validation split, so that none is "
            "left to be tested; choose another split, or give the table a column 'split'"
        )
    return valid, test.table[~shared]
