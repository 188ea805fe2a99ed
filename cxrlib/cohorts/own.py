"""A cohort of your own: one table, ``cohort.csv``, and the films that it names.

The shortest builder of a real cohort: locate, read, describe, check, validate.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from cxrlib.cohorts import files, films, metadata, nih6x200, table
from cxrlib.cohorts.cohort import Cohort, Count, Share, Split, Unit, Whole, flow
from cxrlib.cohorts.files import DataError, in_lines
from cxrlib.cohorts.labels import POLICIES, Labels, decide
from cxrlib.cohorts.real import with_films
from cxrlib.core.checks import one_of
from cxrlib.core.folders import cache_folder

REQUIRED = ("image_id", "patient_id", "sex", "age", "view")
OPTIONAL = ("path", "race", "split", "drain")  # without paths, a cohort without films
CURE = "save it as CSV with commas, in UTF-8 (a spreadsheet's 'CSV UTF-8')"
_NEEDED = ("image_id", "patient_id", "path")  # never empty
_EMPTY = ("", "NA", "N/A", "NaN", "nan", "None", "null")
_WRITTEN = {"1": 1.0, "0": 0.0, "-1": -1.0, "1.0": 1.0, "0.0": 0.0, "-1.0": -1.0}
_WRITTEN |= {"True": 1.0, "TRUE": 1.0, "False": 0.0, "FALSE": 0.0}
_RULE = "findings are columns of 0 and 1 (-1 for uncertain, nothing for not mentioned)"


def build(
    root: Path | str | None = None,
    split: Split = None,
    findings: Sequence[str] | None = None,
    policy: Labels = "as_published",
    access: Literal["credentialed", "open"] = "credentialed",
    sources: Sequence[str] = (),
    n_images: Count | None = None,
    seed: Whole = 1907,
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """The films of ``cohort.csv`` in ``CXRBOOK_DATA/own``.

    Columns: ``image_id`` (unique), ``patient_id``, ``sex`` (F, M), ``age`` (years, or as DICOM
    writes them: 045Y, 006M), ``view`` (such as PA, AP). Where you have them: ``path`` (relative to
    the folder; PNG, JPEG, TIFF or DICOM; without this column the cohort has no films, and models
    that are files can be audited on it), ``race`` (White, Black, Asian, other, unknown), ``split``
    (train, valid, test), ``drain`` (0, 1). Sex, age, view and race may be empty for single films.
    Every further column of 0 and 1, and of -1 and nothing where the ``policy`` decides, is a
    finding; a chapter finds those that it asks for if they are spelt as in
    :data:`cxrlib.cohorts.metadata.FINDINGS`. Other columns are left out, which the flow says.

    Parameters
    ----------
    root : path, optional
    split : {"train", "valid", "test"}, optional
        Only these films; all by default, also where the table has no such column.
    findings : sequence of str, optional
        Which columns are findings.
    policy : a key of :data:`cxrlib.cohorts.labels.POLICIES`
        What becomes of labels that are -1 or not there.
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
        Another access than the two, or an unknown policy.
    """
    path, rows, found, steps = _decided(root, findings, policy)
    split = None if split == "all" else split
    if split is not None and "split" in rows:
        rows = rows[rows["split"] == split]
        steps.append((f"split: {split}", rows, "in another split"))
        if rows.empty:
            raise DataError(f"{path}: no row has {split!r} in the column 'split'; give it to some")
    elif split is not None:
        steps.append((f"no column 'split': all images, not those of {split!r}", rows, ""))
    recipe = {"name": "own", "split": split, "findings": found, "policy": policy}
    if n_images is not None:
        rows = table.drawn_by_patients(rows, n_images, seed)
        steps.append(("drawn by patients", rows, "not drawn"))
        recipe |= {"n_images": n_images, "seed": seed}
    return _cohort(path.parent, "own", rows, found, steps, recipe, access, sources, max_broken)


def build_balanced(
    root: Path | str | None = None,
    seed: Whole = 1907,
    split: Unit = "patient",
    per_cell: Count = nih6x200.PER_CELL,
    border: Whole = nih6x200.OLD_AGE,
    labels: Sequence[str] = nih6x200.DISEASES,
    findings: Sequence[str] | None = None,
    policy: Labels = "as_published",
    access: Literal["credentialed", "open"] = "credentialed",
    sources: Sequence[str] = (),
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """The balanced recipe of X on the films of ``cohort.csv``.

    Parameters
    ----------
    root, findings, policy, access, sources, max_broken
        As for :func:`build`.
    seed, per_cell, border
        Of :func:`cxrlib.cohorts.nih6x200.balanced`.
    labels : sequence of str
        The diseases to draw; of those by default, the ones that the table has.
    split : {"patient", "image"}
        What the 7:1:2 split keeps together.
    """
    path, rows, found, steps = _decided(root, findings, policy)
    if tuple(labels) == nih6x200.DISEASES:
        labels = [label for label in labels if label in found] or labels
    how = {"seed": seed, "unit": split, "findings": found, "hidden": access != "open"}
    rows = nih6x200.balanced(rows, labels, border, per_cell, **how)
    steps.append(("drawn by the balanced rule", rows, "not drawn"))
    recipe = {"name": "own-balanced", "seed": seed, "split": split, "per_cell": per_cell}
    recipe |= {"border": border, "labels": tuple(labels), "findings": found, "policy": policy}
    return _cohort(
        path.parent, "own-balanced", rows, found, steps, recipe, access, sources, max_broken
    )


class Own(NamedTuple):
    """What ``cohort.csv`` says."""

    path: Path
    rows: pd.DataFrame  # indexed by line - 2; findings as they are written: 1, 0, -1 or missing
    findings: tuple[str, ...]
    left_out: dict[str, str]  # further columns, and why they are no findings


def read(root: Path | str | None = None, findings: Sequence[str] | None = None) -> Own:
    """The table ``cohort.csv``, checked; what :func:`build` and ``check-data`` start from.

    Raises
    ------
    DataError
        The file cannot be read, a column is missing or breaks the rules, or no column is a finding.
    """
    root = files.root_of("own", root)
    path = files.locate(root, ("cohort.csv", "cohort.csv.gz"))
    if path is None:
        raise DataError(f"{root} has no cohort.csv; it names your films, one row each")
    text = files.read_text(path, CURE)
    absent = [column for column in (*REQUIRED, *(findings or ())) if column not in text]
    if absent:
        raise DataError(
            f"{path}: column {absent[0]!r} is missing; the file has {', '.join(text)}. "
            f"{', '.join(REQUIRED)} and the findings have to be there"
        )
    if text.empty:
        raise DataError(f"{path}: no row below the names of the columns; expected one a film")
    needed = [column for column in _NEEDED if column in text]
    for column in needed:
        if (empty := text[column] == "").any():
            raise DataError(f"{path}: column {column!r} is empty in {in_lines(empty)}")
    rows = text[needed].join(_attributes(text, path))[
        [*REQUIRED, *(column for column in OPTIONAL if column in text)]
    ]
    files.unique(rows, "image_id", path, "Give each film its own")
    rows["age_group"] = metadata.age_group(rows["age"])
    table.validated(rows, (), "own", path)
    written, left_out = _labels(text, path, findings)
    return Own(path, rows.join(written), tuple(written), left_out)


def _attributes(text, path):
    """What is known of the patients, as numbers where it is one."""
    known = [c for c in (*REQUIRED, *OPTIONAL) if c in text and c not in _NEEDED]
    rows = text[known].where(~text[known].isin(_EMPTY))
    numbers = {"age": metadata.years(rows["age"])}
    if "drain" in rows:
        numbers["drain"] = rows["drain"].map(_WRITTEN)
    rules = {"age": "years such as 45, or 045Y, 006M, 013D", "drain": "1, 0 or nothing"}
    for column, number in numbers.items():
        odd = rows[column].notna() & pd.isna(number)
        if odd.any():
            raise DataError(f"{path}: column {column!r}: expected {rules[column]}; {in_lines(odd)}")
    return rows.assign(**numbers)


def _labels(text, path, findings):
    """Columns of labels as numbers, and why the other further columns are none."""
    further = [c for c in text if c not in (*REQUIRED, *OPTIONAL)]
    further = further if findings is None else list(findings)
    names = {name.casefold() for name in metadata.FINDINGS}
    labels, left_out = {}, {}
    for column in further:
        filled = ~text[column].isin(_EMPTY)
        number = text[column].map(_WRITTEN)
        odd = filled & number.isna()
        if column.startswith("(column ") or not filled.any() or odd.any():
            left_out[column] = in_lines(odd) if odd.any() else "empty, or without a name"
        else:
            labels[column] = number
    asked = [c for c in left_out if findings is not None or c.casefold() in names]
    if asked or not labels:
        wrong = "; ".join(f"{c} ({left_out[c]})" for c in asked or left_out) or "none is there"
        raise DataError(f"{path}: {_RULE}; not so: {wrong}")
    return pd.DataFrame(labels, text.index), left_out


def _decided(root, findings, policy):
    """The file, its rows with findings of 0 and 1, the findings, and the steps so far."""
    one_of("policy", policy, POLICIES)
    path, rows, found, left_out = read(root, findings)
    beside = f"; no findings, left out: {', '.join(left_out)}" if left_out else ""
    steps = [(f"cohort.csv{beside}", rows, "")]
    open_ = [f for f in found if (~rows[f].isin((0, 1))).any()]
    if open_:
        how = POLICIES[policy]
        steps.append((f"not decided for some images ({how}): {', '.join(open_)}", rows, ""))
    rows = decide(rows, found, policy, steps)
    return path, rows, found, steps


def _cohort(root, name, rows, found, steps, recipe, access, sources, max_broken):
    """The rows whose films can be read; all of them where the table names no films."""
    one_of("access", access, ("credentialed", "open"))
    if "path" not in rows:
        steps.append(("no column 'path': without films", rows, ""))
    keep = files.derived(root) if access == "credentialed" else None
    about = {"flow": flow(steps), "sources": tuple(sources), "keep": keep}
    if "path" not in rows:
        return Cohort(name, table.validated(rows, found, name), found, access, recipe, **about)
    draft = Cohort(name, rows.drop(columns="path"), found, access, recipe, **about)
    checks = (keep or cache_folder()) / "films-own.parquet"
    return with_films(draft, root, rows["path"], checks, max_broken)
