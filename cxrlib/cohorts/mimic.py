"""MIMIC-CXR with MIMIC-IV, from the files as PhysioNet distributes them. Credentialed.

Three releases are joined: MIMIC-CXR-JPG (official split, views, dates, labels, films), MIMIC-IV
(sex, age, race) and MIMIC-CXR (reports; original films, where there are no JPEGs). They may lie in
one folder, in folders named after the releases, or as ``wget -r`` leaves them.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from cxrlib import guard
from cxrlib.cohorts import files, films, metadata, mimic_files, nih6x200
from cxrlib.cohorts.cohort import Cohort, Count, Share, Split, Unit, Whole, flow
from cxrlib.cohorts.files import DataError
from cxrlib.cohorts.labels import POLICIES, Labels, decide
from cxrlib.cohorts.real import with_films
from cxrlib.cohorts.report_sections import findings
from cxrlib.cohorts.table import SEXES, drawn_by_patients
from cxrlib.core import toml
from cxrlib.core.checks import one_of

FINDINGS = metadata.STUDIED

OFFICIAL = {
    None: (377_110, 65_379),
    "train": (368_960, 64_586),
    "valid": (2_991, 500),
    "test": (5_159, 293),
}
"""Images and patients of the whole release and of its official splits."""

UNLABELLED = 8
"""Studies of the release that the labellers left out."""

KNOWN = pd.read_csv(Path(__file__).with_name("mimic_counts.csv")).astype(
    dict.fromkeys(("images", "studies", "patients"), "Int64")
)
"""Counts that were published, to compare with."""

SPLITS = {"train": "train", "validate": "valid", "test": "test"}
VIEWS = {"frontal": ("AP", "PA"), "all": None}
LABELERS = ("chexpert", "negbio")
REPORTS = ("findings", "any")


_CODES = toml.beside(__file__)

RACES = {entry: group for group, entries in _CODES["races"].items() for entry in entries}
"""Every entry of ``race`` in MIMIC-IV 3.1 to a group; ``mimic.toml`` says why."""

_DICOM_ID = "[0-9a-f]{8}(?:-[0-9a-f]{8}){4}"


def build(
    root: Path | str | None = None,
    split: Split = "test",
    views: Literal["frontal", "all"] = "frontal",
    labeler: Literal["chexpert", "negbio"] = "chexpert",
    labels: Labels = "as_published",
    reports: Literal["findings", "any"] = "findings",
    n_images: Count | None = None,
    seed: Whole = 1907,
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """MIMIC-CXR: by default frontal films of the official test split with a FINDINGS section.

    The table has the columns of :func:`tables`, findings as 0/1, ``support_devices`` (0/1,
    uncertain ones as absent, or as present with "uncertain_positive") and ``report``, the FINDINGS
    section. Studies without a row in the labeller's file are left out. Images of patients whose age
    is unknown or under 18 stay, without an age group. The cohort is called "(part)" unless every
    source is whole: all films of the official split are listed and those asked for can be read, no
    join falls below its share (:func:`joins`), and every study has a report.

    Parameters
    ----------
    root : path, optional
        The folder that holds the three releases; ``CXRBOOK_DATA/mimic-cxr`` by default.
    split : {"test", "train", "valid"} or None
        Official split; None or "all" for all of them.
    views : {"frontal", "all"}
        Frontal films are those whose ViewPosition is AP or PA; without an entry a film is not one.
    labeler : {"chexpert", "negbio"}
        Whose labels.
    labels : a key of :data:`cxrlib.cohorts.labels.POLICIES`
        What becomes of uncertain and of unmentioned findings.
    reports : {"findings", "any"}
        Only studies whose report has a FINDINGS section (as S), or all. With "any" reports need
        not be there.
    n_images, seed, max_broken
        As for :func:`cxrlib.cohorts.nih.build`.

    Raises
    ------
    DataError
        As for :func:`cxrlib.cohorts.nih.build`.
    ValueError
        Unknown split, view, labeller, label policy or kind of reports, or too many images wanted.

    References
    ----------
    Johnson et al., MIMIC-CXR, Scientific Data 6:317, 2019; Johnson et al., MIMIC-IV, Scientific
    Data 10:1, 2023; section 2.1 of Sourget et al. 2025.
    """
    split = None if split == "all" else split
    one_of("split", split, (*SPLITS.values(), None))
    one_of("views", views, VIEWS)
    one_of("labels", labels, POLICIES)
    one_of("reports", reports, REPORTS)
    root = files.root_of("mimic-cxr", root)
    rows = tables(root, labeler)
    steps = [("MIMIC-CXR-JPG, every film", rows, "")]
    if split is not None:
        rows = rows[rows["split"] == split]
        steps.append((f"official split: {split}", rows, "in another split"))
    complete = _joined(rows, steps) and _counts(rows) == OFFICIAL[split]
    rows = _chosen(rows, steps, views, labeler, labels)
    rows, there = _with_reports(root, rows, steps, needed=reports == "findings")
    complete &= there
    name = f"mimic-cxr-{split}" if split else "mimic-cxr"
    recipe = {"name": name, "views": views, "labeler": labeler, "labels": labels}
    recipe |= {"reports": reports}
    if n_images is not None:
        rows, complete = drawn_by_patients(rows, n_images, seed), False
        steps.append(("drawn by patients", rows, "not drawn"))
        recipe |= {"n_images": n_images, "seed": seed}
    return _cohort(root, rows, steps, name, complete, recipe, max_broken)


def build_balanced(
    root: Path | str | None = None,
    seed: Whole = 1907,
    split: Unit = "patient",
    per_cell: Count = nih6x200.PER_CELL,
    border: Whole = nih6x200.OLD_AGE,
    views: Literal["frontal", "all"] = "frontal",
    labeler: Literal["chexpert", "negbio"] = "chexpert",
    labels: Labels = "as_published",
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """The 6x200 recipe of X on MIMIC-CXR, drawn from all official splits.

    "Exactly one finding" counts the seven of :data:`FINDINGS`. The table has the columns of
    :func:`build` without ``report``, ``disease``, ``age60`` (named after the border) and the
    ``split`` of the recipe. Films are looked at after the draw: up to ``max_broken`` of them may
    be missing from it.

    Parameters
    ----------
    root, views, labeler, labels, max_broken
        As for :func:`build`.
    seed, per_cell, border
        Of :func:`cxrlib.cohorts.nih6x200.balanced`.
    split : {"patient", "image"}
        What the 7:1:2 split keeps together.
    """
    one_of("views", views, VIEWS)
    one_of("labels", labels, POLICIES)
    root = files.root_of("mimic-cxr", root)
    rows = tables(root, labeler)
    steps = [("MIMIC-CXR-JPG, every film", rows, "")]
    complete = _joined(rows, steps) and _counts(rows) == OFFICIAL[None]
    rows = _chosen(rows, steps, views, labeler, labels)
    how = {"seed": seed, "unit": split, "findings": FINDINGS, "hidden": True}
    rows = nih6x200.balanced(rows, nih6x200.DISEASES, border, per_cell, **how)
    steps.append(("drawn by the balanced rule", rows, "not drawn"))
    name = "mimic-balanced"
    recipe = {"name": name, "seed": seed, "split": split, "per_cell": per_cell, "border": border}
    recipe |= {"views": views, "labeler": labeler, "labels": labels}
    return _cohort(root, rows, steps, name, complete, recipe, max_broken)


def _chosen(rows, steps, views, labeler, labels):
    """Rows of the views, with labels as the policy has them; adds to ``steps``."""
    if VIEWS[views]:
        rows = rows[rows["view"].isin(VIEWS[views])]
        steps.append(("frontal films (AP, PA)", rows, "lateral, or without a view on record"))
    rows = rows[rows["labelled"]].drop(columns="labelled")
    steps.append((f"with labels of {labeler}", rows, "study without labels"))
    rows = decide(rows, FINDINGS, labels, steps, beside=["support_devices"])
    return rows.drop(columns="no_finding")


def _cohort(root, rows, steps, name, complete, recipe, max_broken):
    """Checks the films of the rows, and keeps those that can be read."""
    if not len(rows):
        step = next(step for step, left, _ in steps if not len(left))
        raise DataError(f"{name}: no film is left after the step {step!r}")
    keep = files.derived(root)
    about = {"flow": flow(steps), "sources": ("MIMIC-CXR",), "keep": keep}
    draft = Cohort(name, rows, FINDINGS, "credentialed", recipe, **about)
    checks = keep / "films-mimic.parquet"
    return with_films(draft, root, mimic_files.films_of(root, rows), checks, max_broken, complete)


def _with_reports(root, rows, steps, needed):
    """Rows with the FINDINGS section of their study, and whether no report is missing.

    Where they are ``needed``, rows without a report, and then those without such a section, go.
    """
    studies = rows.drop_duplicates("study_id")
    texts = list(mimic_files.read_reports(root, mimic_files.reports_of(studies), needed))
    there = dict(zip(studies["study_id"], (text is not None for text in texts), strict=True))
    found = dict(zip(studies["study_id"], (findings(text or "") for text in texts), strict=True))
    rows = rows.assign(report=rows["study_id"].map(found))
    of = guard.n_of_m(sum(there.values()), len(there), "studies")
    if not needed:
        steps.append((f"reports: {of}", rows, ""))
        return rows, not any(there.values()) or all(there.values())
    rows = rows[rows["study_id"].map(there)]
    steps.append((f"with a report: {of}", rows, "no report file, or an empty one"))
    rows = rows[rows["report"].notna()]
    steps.append(("with a FINDINGS section", rows, "no such section in the report"))
    return rows, all(there.values())


def _counts(rows):
    return len(rows), rows["patient_id"].nunique()


# --- the tables ------------------------------------------------------------------------------


def tables(root: Path | str, labeler: str = "chexpert") -> pd.DataFrame:
    """Every film of the official split file, joined with what the other tables say of it.

    Age at the study is ``anchor_age`` + year of the study - ``anchor_year``: dates are shifted by
    patient, differences between them are true to the year. MIMIC-IV writes 91 for anyone over 89
    in the anchor year, so ages from 91 on are lower limits; all of them belong to "80+". Ages
    outside 0 to 120 are missing, as are sex and age of patients whom MIMIC-IV does not have. Where
    several releases of MIMIC-IV are there, such as its demo, the one with most of the patients is
    taken.

    Parameters
    ----------
    root : path
    labeler : {"chexpert", "negbio"}

    Returns
    -------
    DataFrame, sorted by ``image_id``
        ``image_id`` (dicom_id), ``patient_id``, ``study_id`` (int), ``split``, ``view``
        (ViewPosition, may be missing), ``sex``, ``age``, ``age_group``, ``race`` (:func:`races`,
        "unknown" without admission), the labels as the labeller wrote them (1, 0, -1 or missing)
        of :data:`FINDINGS`, ``support_devices`` and ``no_finding``, and ``labelled``, whether the
        labeller's file has the study.

    Raises
    ------
    DataError
        Files are missing, damaged or contradict each other; a patient in two official splits; a
        code that the release does not have.
    """
    one_of("labeler", labeler, LABELERS)
    root = Path(root)
    images = _official(root)
    films_path = mimic_files.find(root, "mimic-cxr-jpg", mimic_files.METADATA)
    about = _read(films_path, "dicom_id", ["ViewPosition"], whole=["StudyDate"])
    absent = ~images["dicom_id"].isin(about.index)
    if absent.any():
        raise DataError(
            f"{films_path}: {int(absent.sum())} films of {mimic_files.IMAGES} are not in it; fetch "
            "both files of the same version"
        )
    _refuse_codes(about["ViewPosition"], metadata.VIEWS, films_path)
    about = about.reindex(images["dicom_id"])
    path = _covering(root, mimic_files.PATIENTS, images["subject_id"])
    patients = _read(path, "subject_id", ["gender"], whole=["anchor_age", "anchor_year"])
    _refuse_codes(patients["gender"], SEXES, path)
    patients = patients.reindex(images["subject_id"])
    age = patients["anchor_age"].to_numpy() + about["StudyDate"].to_numpy() // 10_000
    age = pd.Series(age - patients["anchor_year"].to_numpy())
    age = age.where(age.between(0, metadata.OLDEST_POSSIBLE_AGE)).astype(float)
    sex = patients["gender"].to_numpy()
    path = _covering(root, mimic_files.ADMISSIONS, images["subject_id"])
    race = races(files.read_table(path, {"subject_id": "subject_id", "race": "race"}), path)
    labels = _labels(mimic_files.find(root, "mimic-cxr-jpg", mimic_files.LABELS_OF.format(labeler)))
    table = images.rename(columns={"dicom_id": "image_id", "subject_id": "patient_id"})
    table = table[["image_id", "patient_id", "study_id", "split"]].assign(
        view=about["ViewPosition"].to_numpy(), sex=sex, age=age, age_group=metadata.age_group(age)
    )
    table["race"] = table["patient_id"].map(race).fillna("unknown")
    of_study = labels.reindex(images["study_id"]).set_index(table.index)
    table = pd.concat([table, of_study], axis=1)
    table["labelled"] = table["study_id"].isin(labels.index)
    return table.sort_values("image_id", ignore_index=True)


def _covering(root, name, subjects):
    """The file of that release of MIMIC-IV which has most of the patients, the newest of equals."""
    paths = mimic_files.copies(root, "mimiciv", name)
    if len(paths) < 2:
        return mimic_files.find(root, "mimiciv", name)
    subjects = pd.Index(subjects.unique())
    return max(paths, key=lambda path: subjects.isin(_subjects(path)).sum())


def _subjects(path):
    return files.read_table(path, {"subject_id": "subject_id"})["subject_id"]


class Join(NamedTuple):
    """What one source says of how many rows of another."""

    text: str  # such as "sex: known for 38 of 52 patients"
    enough: bool  # at least the share of ``mimic_files.SHARES``


def joins(rows: pd.DataFrame) -> list[Join]:
    """How far sex, age, race and labels of the rows of :func:`tables` are known."""
    patients, studies = rows.drop_duplicates("patient_id"), rows.drop_duplicates("study_id")
    known = {
        "sex": (patients["sex"].notna(), "patients"),
        "age": (rows.groupby("patient_id")["age"].count() > 0, "patients"),
        "race": (patients["race"] != "unknown", "patients"),
        "labels": (studies["labelled"], "studies"),
    }
    return [join(what, *of) for what, of in known.items()]


def join(what: str, known: pd.Series, things: str) -> Join:
    """How many of ``things`` are ``known`` (n,), beside the share that is expected."""
    n, m = int(known.sum()), len(known)
    enough = n >= mimic_files.SHARES[what] * m
    few = "" if enough else f", fewer than the {mimic_files.SHARES[what]:.0%} expected"
    return Join(f"{what}: known for {guard.n_of_m(n, m, things)}{few}", enough)


def _joined(rows, steps):
    """Adds a step that tells the joins; whether none falls short of the release."""
    found = joins(rows)
    steps.append(("; ".join(one.text for one in found), rows, ""))
    unlabelled = rows.loc[~rows["labelled"], "study_id"].nunique()
    return unlabelled <= UNLABELLED and all(one.enough for one in found)


def races(admissions: pd.DataFrame, path: Path | str = "admissions") -> pd.Series:
    """One group of :data:`RACES` a patient, from all of his admissions.

    Entries that mean "unknown" count only where a patient has no other. A patient with entries of
    one group belongs to it; one with entries of several is "other", as one whose single entry says
    MULTIPLE RACE/ETHNICITY.

    Parameters
    ----------
    admissions : DataFrame
        ``subject_id, race``, one row per admission.
    path : what a message names

    Returns
    -------
    Series of str, by ``subject_id``

    Raises
    ------
    DataError
        An entry that :data:`RACES` does not have: its group has to be decided, not guessed.
    """
    group = admissions["race"].map(RACES)
    strange = group.isna() & admissions["race"].notna()
    if strange.any():
        what = "that MIMIC-IV 3.1 does not have; give them a group in mimic.toml, or"
        _refuse(strange, path, "race", what)
    found = admissions.assign(race=group.fillna("unknown")).drop_duplicates(["subject_id", "race"])
    only = found.groupby("subject_id")["race"].transform("size").eq(1)
    found = found[only | found["race"].ne("unknown")]
    several = found["subject_id"].duplicated(keep=False)
    found["race"] = found["race"].mask(several, "other")
    return found.drop_duplicates("subject_id").set_index("subject_id")["race"]


def _official(root):
    """``dicom_id, study_id, subject_id, split`` of the split file, checked."""
    path = mimic_files.find(root, "mimic-cxr-jpg", mimic_files.IMAGES)
    images = _read(path, "dicom_id", ["split"], whole=["study_id", "subject_id"]).reset_index()
    odd = ~images["dicom_id"].astype(str).str.fullmatch(_DICOM_ID)
    what = "that are no id of MIMIC-CXR (five groups of eight hexadecimal digits)"
    _refuse(odd, path, "dicom_id", what)
    images["split"] = images["split"].map(SPLITS)
    _refuse(images["split"].isna(), path, "split", f"other than {', '.join(SPLITS)}")
    parts = images.drop_duplicates(["subject_id", "split"])["subject_id"]
    if parts.duplicated().any():
        raise DataError(
            f"{path}: patients in two official splits: {parts[parts.duplicated()].nunique()}; "
            "expected one split a patient. Fetch the file again as distributed"
        )
    return images


def _labels(path):
    """Labels as written, by ``study_id``."""
    names = {"Support Devices": "support_devices", "No Finding": "no_finding"}
    table = _read(path, "study_id", [*FINDINGS, *names])
    for column in table:
        odd = ~table[column].isin([1, 0, -1]) & table[column].notna()
        _refuse(odd, path, column, "other than 1, 0, -1 and nothing")
    return table.astype(float).rename(columns=names)


def _read(path, key, columns, whole=()):
    """Columns of a table by its unique ``key``; it, but for films, and ``whole`` hold integers."""
    table = files.read_table(path, {c: c for c in (key, *columns, *whole)})
    files.unique(table, key, path)
    for column in (*whole, *([] if key == "dicom_id" else [key])):
        if not pd.api.types.is_integer_dtype(table[column]):
            number = pd.to_numeric(table[column], errors="coerce")
            odd = number.isna() | (number % 1 != 0)
            _refuse(odd, path, column, "that are no whole numbers")
    return table.set_index(key)


def _refuse(odd, path, column, what):
    """DataError if some rows are odd, (n,) bool in the order of the file."""
    odd = np.asarray(odd)
    if odd.any():
        what += "" if what.endswith(" or") else ";"
        raise DataError(
            f"{path}: column {column!r} holds {int(odd.sum())} entries {what} fetch the file again "
            f"as distributed (the first is in line {odd.argmax() + 2})"
        )


def _refuse_codes(column, known, path):
    odd = column.notna() & ~column.isin(known)
    _refuse(odd, path, column.name, f"other than {', '.join(known)} and nothing")


# --- what is there -----------------------------------------------------------------------------


class There(NamedTuple):
    """What is there of one table, of the reports, or of the films."""

    file: str
    rows: int | None  # rows, reports or films; None where there are none
    expected: int | None  # in the whole release; None where nobody says
    problem: str = ""


def describe_files(root: Path | str | None) -> list[There]:
    """What of the three releases is there, and how much of it; films are counted, not opened."""
    root = files.root_of("mimic-cxr", root)
    found = []
    for release, name, key, expected in mimic_files.TABLES:
        try:
            paths = mimic_files.copies(root, release, name)
            for path in paths or [mimic_files.find(root, release, name)]:
                called = name if len(paths) < 2 else path.relative_to(root).as_posix()
                rows = len(files.read_table(path, {key: key}))
                found.append(There(called, rows, expected))
        except DataError as error:
            found.append(There(name, None, expected, str(error)))
    return [*found, _reports_there(root), _films_there(root)]


def _reports_there(root):
    archive = files.locate(root, mimic_files.ARCHIVE, mimic_files.places(root, "mimic-cxr"))
    if not archive:
        rows = len(mimic_files.names_on_disk(root, "mimic-cxr", (".txt",))) or None
        return There(mimic_files.ARCHIVE, rows, 227_835)
    try:
        with zipfile.ZipFile(archive) as file:
            rows = sum(name.endswith(".txt") for name in file.NameToInfo)
        return There(mimic_files.ARCHIVE, rows, 227_835)
    except (zipfile.BadZipFile, OSError) as error:
        problem = f"{archive}: damaged or cut off ({error}); fetch it again"
        return There(mimic_files.ARCHIVE, None, 227_835, problem)


def _films_there(root):
    there, kind = mimic_files.names_on_disk(root, "mimic-cxr-jpg", (".jpg",)), "files/*.jpg"
    if not there and (there := mimic_files.names_on_disk(root, "mimic-cxr", (".dcm",))):
        kind = "files/*.dcm"
    try:
        listed = set(_official(root)["dicom_id"])
    except DataError as error:
        return There(kind, len(there) or None, OFFICIAL[None][0], str(error))
    absent, beside = len(listed - there), len(there - listed)
    problems = [f"listed, but not there: {absent} films"] if absent else []
    problems += [f"there, but not listed in {mimic_files.IMAGES}: {beside} films"] if beside else []
    return There(kind, len(there & listed) or None, OFFICIAL[None][0], "; ".join(problems))
