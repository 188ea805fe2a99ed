"""Where the files of MIMIC-CXR-JPG, MIMIC-IV and MIMIC-CXR lie, and its reports read.

The three releases may lie in one folder, in folders named after them, with or without a folder of
the version, or as ``wget -r`` leaves them.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pandas as pd

from cxrlib.cohorts import files
from cxrlib.cohorts.files import DataError
from cxrlib.core import toml

IMAGES = "mimic-cxr-2.0.0-split.csv.gz"
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"
LABELS_OF = "mimic-cxr-2.0.0-{}.csv.gz"
PATIENTS = "hosp/patients.csv.gz"
ADMISSIONS = "hosp/admissions.csv.gz"
ARCHIVE = "mimic-cxr-reports.zip"
_ABOUT = toml.beside(__file__)
_RELEASES, SHARES = _ABOUT["releases"], _ABOUT["shares"]
WHERE = {release: about["address"] for release, about in _RELEASES.items()}
TABLES = [
    (release, name, key, rows or None)
    for release, about in _RELEASES.items()
    for name, (key, rows) in about.get("tables", {}).items()
]
"""Release, name, key and rows in the whole release (None where nobody says)."""


def places(root: Path, release: str) -> list[str]:
    """Folders below ``root``, relative to it, in which a release may lie; the newest first."""
    found = [""]
    for base in ("", "physionet.org/files"):
        for pattern in _RELEASES[release]["folders"]:
            for folder in sorted((root / base).glob(pattern), reverse=True):
                versions = sorted(folder.glob("[0-9]*.[0-9]*"), reverse=True)
                found += [str(f.relative_to(root)) for f in (*versions, folder) if f.is_dir()]
    return found


def _spellings(name):
    return name, name.removesuffix(".gz")


def copies(root: Path, release: str, name: str) -> list[Path]:
    """The file of a release wherever it lies, the newest release first; a link counts once."""
    found = {}
    for place in places(root, release):
        path = files.locate(root, _spellings(name), (place,))
        if path:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def find(root: Path, release: str, name: str) -> Path:
    """The file of a release, compressed or not.

    Raises
    ------
    DataError
        It is not there; says in which folder it is, if it is near.
    """
    names = _spellings(name)
    path = files.locate(root, names, places(root, release))
    if path:
        return path
    below = sorted(f for f in islice(root.iterdir(), 100) if f.is_dir())
    for folder in (*list(root.parents)[:4], *below):
        if any((folder / p / n).is_file() for p in places(folder, release) for n in names):
            raise DataError(
                f"{root}: wrong folder, {name} is not in it but in {folder} or a folder of it. "
                f"Give {folder}, or make CXRBOOK_DATA/mimic-cxr a link to it"
            )
    dead = [
        f"{f.name} is {files.dead_link(f)}; " for f in sorted(root.iterdir()) if files.dead_link(f)
    ]
    raise DataError(
        f"{root}: {name} is not there; {''.join(dead[:3])}fetch it from {WHERE[release]}. "
        "'cxrbook check-data mimic-cxr' lists what belongs there"
    )


def folder_of(rows: pd.DataFrame) -> pd.Series:
    """Where PhysioNet puts a study: files/p10/p10000032/s50414267."""
    patient, study = rows["patient_id"].astype(str), rows["study_id"].astype(str)
    return "files/p" + patient.str[:2] + "/p" + patient + "/s" + study


def films_of(root: Path, rows: pd.DataFrame) -> list[str]:
    """File names of the films relative to ``root``: JPEGs if any is there, else DICOMs.

    Parameters
    ----------
    root : Path
    rows : DataFrame
        ``image_id, patient_id, study_id``.

    Raises
    ------
    DataError
        None of them is there.
    """
    names = folder_of(rows) + "/" + rows["image_id"]
    for release, kind in (("mimic-cxr-jpg", ".jpg"), ("mimic-cxr", ".dcm")):
        for place in places(root, release):
            found = [os.path.join(place, name + kind) for name in names]
            if (root / place / "files").is_dir() and any((root / f).is_file() for f in found):
                return found
    raise DataError(
        f"{root}: none of the {len(rows)} films that are wanted is there; expected "
        "files/pXX/pSUBJECT/sSTUDY/DICOM.jpg as on "
        f"{WHERE['mimic-cxr-jpg']}, or the original .dcm files of {WHERE['mimic-cxr']}"
    )


def reports_of(studies: pd.DataFrame) -> pd.Series:
    """Where PhysioNet puts the report of each study."""
    return folder_of(studies) + ".txt"


def read_reports(root: Path, names: Sequence[str], needed: bool) -> Iterator[str | None]:
    """Text of each report, None where it is not there or empty, from the archive or from files.

    Raises
    ------
    DataError
        No reports at all, though they are ``needed``; a damaged archive; a report that is not
        UTF-8. Reports are plain ASCII as distributed: another encoding means another file.
    """
    archive = files.locate(root, ARCHIVE, places(root, "mimic-cxr"))
    if archive:
        return _zipped(archive, names)
    folder, there = _unpacked_to(root, names)
    if there:
        return _unpacked(root, folder, names)
    if needed:
        raise DataError(
            f"{root}: no reports; fetch {ARCHIVE} from {WHERE['mimic-cxr']}, or pass "
            "reports='any' to go on without them"
        )
    return iter([None] * len(names))


def reports_there(root: Path, names: Sequence[str]) -> pd.Series:
    """Which reports are there and not empty, (n,) bool; none of them is read.

    Raises
    ------
    DataError
        A damaged archive.
    """
    archive = files.locate(root, ARCHIVE, places(root, "mimic-cxr"))
    if not archive:
        _, there = _unpacked_to(root, names)
        return pd.Series(there or [False] * len(names))
    try:
        with zipfile.ZipFile(archive) as file:
            sizes = {name: about.file_size for name, about in file.NameToInfo.items()}
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{archive}: damaged or cut off ({error}); fetch it again") from None
    return pd.Series([sizes.get(name, 0) > 0 for name in names])


def _unpacked_to(root, names):
    """The folder in which most of the reports lie, and which of them, (n,) of bool."""
    best, most = root, []
    for place in places(root, "mimic-cxr"):
        for folder in (root / place, root / place / "mimic-cxr-reports"):
            if (folder / "files").is_dir():
                there = [_size(folder / name) > 0 for name in names]
                if sum(there) > sum(most):
                    best, most = folder, there
    return best, most


def _size(path):
    return path.stat().st_size if path.is_file() else 0


def _zipped(archive, names):
    try:
        with zipfile.ZipFile(archive) as file:
            there = file.NameToInfo
            for name in names:
                yield _text(file.read(name), name) if name in there else None
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive}: damaged or cut off ({error}); fetch it again") from None


def _unpacked(root, folder, names):
    for name in names:
        path = folder / name
        yield _text(files.inside(root, path).read_bytes(), name) if path.is_file() else None


def _text(data, name):
    try:
        return data.decode() or None
    except UnicodeDecodeError:
        raise DataError(f"{name}: a report that is not UTF-8 text; fetch it again") from None


def names_on_disk(root: Path, release: str, kinds: tuple[str, ...]) -> set[str]:
    """Names, without ending, of the files of these kinds below the folders ``files``."""
    found = set()
    for place in places(root, release):
        for _, _, names in os.walk(root / place / "files"):
            found.update(n[: n.rindex(".")] for n in names if n.endswith(kinds))
    return found
