"""From the rows of a real cohort to the cohort: its films are checked, its table is validated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cxrlib.cohorts import films
from cxrlib.cohorts.cohort import Cohort, flow
from cxrlib.cohorts.table import validated


def with_films(
    draft: Cohort,
    root: Path,
    paths: Sequence[str],
    checks: Path,
    max_broken: float,
    whole: bool | None = None,
    prepare: Callable | None = None,
) -> Cohort:
    """The cohort of the images whose films can be read; how many cannot is a step of its flow.

    Parameters
    ----------
    draft : Cohort
        Of n images, without films.
    root : Path
    paths : sequence of str, shape (n,)
        Of the films, relative to ``root``.
    checks : Path
        Where :func:`cxrlib.cohorts.films.check` keeps what it finds.
    max_broken : float
        Share of films that may be left out.
    whole : bool, optional
        Whether the draft has all images of the release; unless it does, and all films can be read,
        the cohort is called "(part)". None where there is no release.
    prepare : callable, optional
        As for :func:`cxrlib.cohorts.films.reader`.

    Raises
    ------
    DataError
        Too many films are broken, or the table has not the declared shape.
    """
    checked = films.check(root, paths, checks)
    good = films.sound(checked, draft.name, max_broken)
    why = "not there, or damaged"
    if draft.access == "open":
        absent = int(checked["problem"].str.endswith("not there").sum())
        why = "" if good.all() else f"absent: {absent}, damaged: {(~good).sum() - absent}"
        noted = checked.loc[checked["note"] != "", ["file", "note"]]
        if len(noted):
            first = ": ".join(noted.iloc[0])
            why += f"{'; ' * bool(why)}read otherwise than they say: {len(noted)} ({first})"
    checked, rows = checked[good].reset_index(drop=True), draft.table[good]
    step = flow([("films that can be read", rows, why)])
    part = whole is not None and not (whole and good.all())
    return replace(
        draft,
        name=f"{draft.name} (part)" if part else draft.name,
        table=validated(rows, draft.findings, draft.name),
        flow=pd.concat([draft.flow, step], ignore_index=True),
        images=films.reader(root, checked["file"], prepare),
        films=checked,
    )
