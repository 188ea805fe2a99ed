"""A cohort of your own: one table, ``cohort.csv``, and the films that it names.

The shortest builder of a real cohort: locate, read, describe, check, validate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from cxrlib.cohorts import files, films, metadata, nih6x200, table
from cxrlib.cohorts.cohort import Cohort, Count, Share, Split, Unit, Whole, flow
from cxrlib.cohorts.real import with_films
from cxrlib.core.checks import one_of
from cxrlib.core.folders import cache_folder

REQUIRED = ("image_id", "patient_id", "path", "sex", "age", "view")
OPTIONAL = ("race", "split", "drain")


def build(
    root: Path | str | None = None,
    split: Split = None,
    findings: Sequence[str] | None = None,
    access: Literal["credentialed", "open"] = "credentialed",
    sources: Sequence[str] = (),
    n_images: Count | None = None,
    seed: Whole = 1907,
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """The films of ``cohort.csv`` in ``CXRBOOK_DATA/own``.

    Columns: ``image_id`` (unique), ``patient_id``, ``path`` (relative to the folder; PNG, JPEG or
    DICOM), ``sex`` (F, M), ``age`` (years), ``view`` (such as PA, AP). Where you have them:
    ``race`` (White, Black, Asian, other, unknown), ``split`` (train, valid, test), ``drain`` (0,
    1). Sex, age, view and race may be empty for single films. Every further column that holds only
    0 and 1 is a finding; a chapter finds those that it asks for if they are spelt as in
    :data:`cxrlib.cohorts.metadata.FINDINGS`.

    Parameters
    ----------
    root : path, optional
    split : {"train", "valid", "test"}, optional
        Only these films; all by default, also where the table has no such column.
    findings : sequence of str, optional
        Which columns are findings.
    access : {"credentialed", "open"}
        Credentialed data are guarded (:mod:`cxrlib.guard`); say "open" only of what may be shown
        film by film.
    sources : sequence of str
        Public data sets that the films come from, spelt as on the cards of models.
    n_images : int, optional
        Only so many, drawn by patients. All by default.
    seed : int
        Of that draw.
    max_broken : float
        Share of films that may be unreadable.

    Raises
    ------
    DataError
        A column is missing or breaks the rules, no column is a finding, or films are broken.
    ValueError
        Another access than the two.
    """
    path, rows, found = read(root, findings)
    steps = [("cohort.csv", rows, "")]
    split = None if split == "all" else split
    if split is not None and "split" in rows:
        rows = rows[rows["split"] == split]
        steps.append((f"split: {split}", rows, "in another split"))
    recipe = {"name": "own", "split": split, "findings": found}
    if n_images is not None:
        rows = table.drawn_by_patients(rows, n_images, seed)
        steps.append(("drawn by patients", rows, "not drawn"))
        recipe |= {"n_images": n_images, "seed": seed}
    return _cohort(path.parent, "own", found, steps, recipe, access, sources, max_broken)


def build_balanced(
    root: Path | str | None = None,
    seed: Whole = 1907,
    split: Unit = "patient",
    per_cell: Count = nih6x200.PER_CELL,
    border: Whole = nih6x200.OLD_AGE,
    labels: Sequence[str] = nih6x200.DISEASES,
    findings: Sequence[str] | None = None,
    access: Literal["credentialed", "open"] = "credentialed",
    sources: Sequence[str] = (),
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """The balanced recipe of X on the films of ``cohort.csv``.

    Parameters
    ----------
    root, findings, access, sources, max_broken
        As for :func:`build`.
    seed, per_cell, border, labels
        Of :func:`cxrlib.cohorts.nih6x200.balanced`.
    split : {"patient", "image"}
        What the 7:1:2 split keeps together.
    """
    path, rows, found = read(root, findings)
    steps = [("cohort.csv", rows, "")]
    rows = nih6x200.balanced(rows, labels, border, per_cell, seed=seed, unit=split, findings=found)
    steps.append(("drawn by the balanced rule", rows, "not drawn"))
    recipe = {"name": "own-balanced", "seed": seed, "split": split, "per_cell": per_cell}
    recipe |= {"border": border, "labels": tuple(labels), "findings": found}
    return _cohort(path.parent, "own-balanced", found, steps, recipe, access, sources, max_broken)


def read(
    root: Path | str | None = None, findings: Sequence[str] | None = None
) -> tuple[Path, pd.DataFrame, tuple[str, ...]]:
    """The file ``cohort.csv``, its rows with the columns that are used, and the findings."""
    root = files.root_of("own", root)
    path = files.locate(root, ("cohort.csv", "cohort.csv.gz"))
    if path is None:
        raise files.DataError(f"{root} has no cohort.csv; it names your films, one row each")
    rows = _read(path, findings)
    files.unique(rows, "image_id", path)
    return path, rows, tuple(c for c in rows if c not in (*REQUIRED, *OPTIONAL))


def _cohort(root, name, found, steps, recipe, access, sources, max_broken):
    """The rows of the last step whose films can be read."""
    one_of("access", access, ("credentialed", "open"))
    rows = steps[-1][1]
    paths = rows["path"]
    rows = rows.drop(columns="path").assign(age_group=metadata.age_group(rows["age"]).to_numpy())
    keep = files.derived(root) if access == "credentialed" else None
    about = {"flow": flow(steps), "sources": tuple(sources), "keep": keep}
    draft = Cohort(name, rows, found, access, recipe, **about)
    checks = (keep or cache_folder()) / "films-own.parquet"
    return with_films(draft, root, paths, checks, max_broken)


def _read(path, findings):
    """The known columns of the table, and those of the findings as 0/1."""
    head = list(pd.read_csv(path, nrows=0, encoding="utf-8-sig"))
    known = [*REQUIRED, *(c for c in OPTIONAL if c in head)]
    further = [c for c in head if c not in known] if findings is None else list(findings)
    text = dict.fromkeys(("image_id", "patient_id", "path"), str)
    rows = files.read_table(path, {c: c for c in [*known, *further]}, dtype=text)
    labels = [c for c in further if rows[c].isin((0, 1)).all()]
    if not labels or (findings is not None and len(labels) < len(further)):
        wrong = ", ".join(sorted(set(further) - set(labels))) or "none"
        raise files.DataError(
            f"{path}: findings are columns of 0 and 1 without gaps; not so: {wrong}"
        )
    return rows[[*known, *labels]].astype(dict.fromkeys(labels, "int8"))
