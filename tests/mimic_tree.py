"""A made-up MIMIC-CXR: published layout, columns and oddities; ids, texts and films are invented.

Films, findings, ages, sexes, races and report texts are a phantom cohort's, so that models see what
the tables say. Everything else is drawn here.
"""

import gzip
import hashlib
import io
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib import cohorts
from cxrlib.cohorts.phantom import FINDINGS

SIZE = 128
LAYOUTS = {  # folders of MIMIC-CXR-JPG, MIMIC-IV and MIMIC-CXR (reports, DICOMs)
    "one": ("", "", ""),
    "folders": ("mimic-cxr-jpg", "mimiciv", "mimic-cxr"),
    "versions": ("mimic-cxr-jpg/2.1.0", "mimiciv/3.1", "mimic-cxr/2.1.0"),
    "wget": tuple(
        f"physionet.org/files/{name}"
        for name in ("mimic-cxr-jpg/2.1.0", "mimiciv/3.1", "mimic-cxr/2.1.0")
    ),
}
LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
RACES = {
    "White": ("WHITE", "WHITE", "WHITE - OTHER EUROPEAN", "WHITE - RUSSIAN", "WHITE - BRAZILIAN"),
    "Black": ("BLACK/AFRICAN AMERICAN", "BLACK/CAPE VERDEAN", "BLACK/AFRICAN"),
    "Asian": ("ASIAN", "ASIAN - CHINESE", "ASIAN - SOUTH EAST ASIAN"),
    "other": ("OTHER", "HISPANIC/LATINO - DOMINICAN", "PORTUGUESE", "MULTIPLE RACE/ETHNICITY"),
    "unknown": ("UNKNOWN", "UNABLE TO OBTAIN", "PATIENT DECLINED TO ANSWER"),
}
# What admissions say of race where not just the patient's own: share of patients.
ODD_RACES = {
    "own and unknown": 0.08,
    "two groups": 0.03,
    "unknown": 0.03,
    "other": 0.03,
    "no admission": 0.03,
    "not in MIMIC-IV": 0.02,
}
PREAMBLE = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PORTABLE AP)

 INDICATION:  ___ year old patient with dyspnea, read for Dr. {name}  // findings?

 COMPARISON:  ___
"""
SHAPES = (  # of reports that have a FINDINGS section
    PREAMBLE + "\n FINDINGS: \n \n {findings}\n \n IMPRESSION: \n \n {impression}\n",
    PREAMBLE + "\n FINDINGS:  {findings}\n\n IMPRESSION:  {impression}\n",
    " WET READ: ___ ___ ___ 7:12 PM\n  {impression}\n " + "_" * 40 + "\n" + PREAMBLE
    + "\n Findings:\n {findings}\n\n Impression: {impression}\n",
    PREAMBLE + "\n FINDINGS AND IMPRESSION:  {findings}\n",
    PREAMBLE + "\n FINDINGS\n\n {findings}\n\n IMPRESSION\n\n {impression}\n",
    PREAMBLE + "\n FINDINGS:  {findings}\n \n IMPRESSION:  {impression}\n"
    "                               ADDENDUM  Discussed by telephone.\n",
)  # fmt: skip
BARE = (  # of reports without one
    PREAMBLE + "\n IMPRESSION:  {impression}\n",
    "                                 FINAL REPORT\n CHEST RADIOGRAPH PERFORMED ON ___\n\n"
    " {impression}\n",
)
NAME = "Quellfarthing-Zyxwomina"
SENTENCE = "The vermilion lighthouse sign of Zandvoortia is unchanged since the moonlit walrus."


def write(root, n_images=300, seed=1907, jpg=True, layout="one", reports="zip", per_cell=5) -> dict:
    """Write the tree below ``root`` and return what was planted.

    Parameters
    ----------
    root : Path
        Made if it is not there.
    n_images : int
        Studies, each with one frontal film of a phantom; three quarters in the official test
        split. Lateral films and second frontal films come on top.
    seed : int
    jpg : bool
        JPEGs of MIMIC-CXR-JPG, or the original DICOMs of MIMIC-CXR.
    layout : a key of :data:`LAYOUTS`
    reports : "zip" or "files"
    per_cell : int
        So many studies more, in train, of each cell of the 6x200 recipe (six diseases, young and
        old, both sexes), with that finding alone; 0 for none.

    Returns
    -------
    dict
        ``images``: one row per film, in the order of the split file, with what a cohort should say:
        ``image_id, patient_id, study_id, split, view, sex, age, race``, the labels as written
        (1, 0, -1 or missing), ``support_devices``, ``in_chexpert``, ``findings_text`` (missing
        where the report has no such section), ``file`` (relative to ``root``) and ``phantom``, the
        row of ``pixels``. ``pixels``: uint8 (n_images, SIZE, SIZE). ``canaries``: what must never
        be seen outside: ``name``, ``sentence``, ``procedure``, ``provider``, ``dates`` (text),
        ``subjects, studies, dicoms`` (as text), ``pattern`` (uint8 32 x 32, at the upper left of
        the film ``pattern_image``). ``places``: the folders of the three parts.
    """
    root = Path(root)
    rng = np.random.default_rng(seed)
    rows, pixels = _phantoms(n_images, seed, per_cell)
    patients = _patients(rows, rng)
    studies = _studies(rows, patients, rng)
    images = _images(studies, rng, seed)
    jpg_place, iv_place, cxr_place = (root / place for place in LAYOUTS[layout])
    films = jpg_place if jpg else cxr_place
    images["file"] = [
        (films / _folder(r) / f"{r.image_id}.{'jpg' if jpg else 'dcm'}")
        .relative_to(root)
        .as_posix()
        for r in images.itertuples()
    ]
    plain = images["view"].isin(["AP", "PA"]) & images["in_chexpert"]
    plain &= images["findings_text"].notna() & (images["split"] == "test")
    marked = images.index[plain][0]
    canaries = {
        "name": NAME,
        "sentence": SENTENCE,
        "procedure": "CHEST (ZANDVOORTIA VIEW)",
        "provider": "P9ZXQ7",
        "dates": sorted({f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in images["date"].astype(str)}),
        "subjects": sorted(images["patient_id"].astype(str).unique()),
        "studies": sorted(images["study_id"].astype(str).unique()),
        "dicoms": images["image_id"].tolist(),
        "pattern": np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((8, 8))).astype(np.uint8) * 255,
        "pattern_image": images.loc[marked, "image_id"],
    }
    _write_films(root, images, pixels, canaries, jpg)
    _write_tables(jpg_place, images, studies, canaries, rng)
    _write_mimic_iv(iv_place / "hosp", patients, canaries, rng)
    _write_reports(cxr_place, studies, reports)
    return {
        "images": images.drop(columns=["date", "time"]),
        "pixels": pixels,
        "canaries": canaries,
        "places": (jpg_place, iv_place, cxr_place),
    }


def _phantoms(n_images, seed, per_cell):
    """Rows and pixels of phantoms: three quarters test, an eighth validate, the rest train."""
    valid = n_images // 8
    sizes = {"test": n_images - 2 * valid, "validate": valid, "train": valid}
    tables, pixels = [], []
    for split, n in sizes.items():
        part = split.removesuffix("ate")
        cohort = cohorts.load("phantom", n_images=n, seed=seed, split=part, size=SIZE)
        tables.append(cohort.table.assign(split=split, single=False))
        pixels.append(cohort.images(np.arange(n)))
    if per_cell:
        cohort = cohorts.load("phantom-6x200", seed=seed, size=SIZE)
        seen = pd.concat(tables)["patient_id"]
        free = cohort.table[~cohort.table["patient_id"].isin(seen)]
        chosen = np.sort(free.groupby(["disease", "age60", "sex"]).head(per_cell).index)
        assert len(chosen) == 24 * per_cell
        tables.append(cohort.table.loc[chosen].assign(split="train", single=True))
        pixels.append(cohort.images(chosen))
    return pd.concat(tables, ignore_index=True), np.concatenate(pixels)


def _patients(rows, rng):
    """One row per patient of the phantom: made-up ids, anchor year and age, race entries."""
    patients = rows.groupby("patient_id").agg(
        sex=("sex", "first"),
        first_age=("age", "min"),
        phantom_race=("race", "first"),
        single=("single", "any"),
    )
    n = len(patients)
    patients["subject_id"] = 10_000_000 + rng.choice(9_999_999, n, replace=False)
    patients["anchor_year"] = rng.integers(2110, 2200, n)
    patients["anchor_age"] = patients["first_age"].where(patients["first_age"] <= 89, 91)
    odd = [case for case, share in ODD_RACES.items() for _ in range(int(np.ceil(share * n)))]
    patients["case"] = rng.permutation((odd + ["own"] * n)[:n])
    patients.loc[patients["single"], "case"] = "own"
    patients["entries"] = [_entries(r, rng) for r in patients.itertuples()]
    own = patients["case"].isin(["own", "own and unknown"])
    mixed = patients["case"].isin(["two groups", "other"])
    patients["race"] = patients["phantom_race"].where(own, np.where(mixed, "other", "unknown"))
    return patients


def _entries(patient, rng):
    """Race entries of a patient's admissions, in order of time."""
    groups = {
        "own": [patient.phantom_race] * int(rng.integers(1, 4)),
        "own and unknown": ["unknown", patient.phantom_race],
        "two groups": ["White", "Black"],
        "unknown": ["unknown", "unknown"],
        "other": ["other"],
    }
    return [str(rng.choice(RACES[group])) for group in groups.get(patient.case, [])]


def _studies(rows, patients, rng):
    """One row per study: one phantom film, its date, labels as a labeller writes them, report."""
    who = patients.loc[rows["patient_id"]].reset_index(drop=True)
    n = len(rows)
    year = who["anchor_year"] + rows["age"] - who["first_age"]
    studies = pd.DataFrame(
        {
            "patient_id": who["subject_id"],
            "study_id": 50_000_000 + rng.choice(9_999_999, n, replace=False),
            "split": rows["split"],
            "view": rows["view"],
            "phantom": np.arange(n),
            "single": rows["single"],
            "date": year * 10_000 + rng.integers(1, 13, n) * 100 + rng.integers(1, 29, n),
            "time": np.round(rng.uniform(0, 235_959, n), 3),
            "sex": who["sex"],
            "age": (who["anchor_age"] + rows["age"] - who["first_age"]).astype(float),
            "race": who["race"],
        }
    )
    absent = (who["case"] == "not in MIMIC-IV").to_numpy()
    studies.loc[absent, ["sex", "age"]] = [None, np.nan]
    for finding in FINDINGS:
        said = np.where(rows[finding] == 1, 1.0, np.where(rng.random(n) < 0.3, 0.0, np.nan))
        unsure = (rng.random(n) < 0.04) & ~rows["single"].to_numpy()
        studies[finding] = np.where(unsure, -1.0, said)
    devices = (rows["drain"] == 1) | (rows["pacemaker"] == 1)
    studies["support_devices"] = np.where(devices, 1.0, np.nan)
    studies["in_chexpert"] = (np.arange(n) % 149 != 17) | rows["single"]
    shape = rng.permutation(np.arange(n) % 8)
    studies["shape"] = np.where(shape < 7, shape % len(SHAPES), len(SHAPES) + np.arange(n) % 2)
    told = rows["report"].where(np.arange(n) % 5 != 0, rows["report"] + " " + SENTENCE)
    studies["told"] = told
    studies["findings_text"] = told.where(studies["shape"] < len(SHAPES))
    return studies


def _images(studies, rng, seed):
    """One row per film: the frontal one of each study, laterals, some twice, some without view."""
    n = len(studies)
    side = studies[rng.random(n) < 0.25]
    side = side.assign(view=np.where(rng.random(len(side)) < 0.7, "LATERAL", "LL"))
    again = studies[rng.random(n) < 0.03]
    frontal = studies.assign(view=studies["view"].where(studies["single"] | (rng.random(n) > 0.03)))
    images = pd.concat([frontal, side, again]).sort_values(
        ["patient_id", "study_id"], kind="stable", ignore_index=True
    )
    ids = [hashlib.sha1(f"{seed} {i}".encode()).hexdigest() for i in range(len(images))]
    images.insert(0, "image_id", ["-".join(h[k : k + 8] for k in range(0, 40, 8)) for h in ids])
    images["repeated"] = images.duplicated(["study_id", "view"])
    return images.drop(columns=["shape", "told", "single"])


def _folder(row):
    return f"files/p{str(row.patient_id)[:2]}/p{row.patient_id}/s{row.study_id}"


def _write_films(root, images, pixels, canaries, jpg):
    for i, row in enumerate(images.itertuples()):
        film = pixels[row.phantom]
        if row.view in ("LATERAL", "LL"):
            film = np.roll(film, SIZE // 2, axis=1)
        elif row.repeated:
            film = np.clip(film[:, 2:].astype(int) + 4, 0, 255).astype(np.uint8)
        elif i % 3 == 0:
            film = film[:, 3:-3]  # films are not square
        film = film.copy()
        if row.image_id == canaries["pattern_image"]:
            film[:32, :32] = canaries["pattern"]
        path = root / row.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if jpg:
            Image.fromarray(film).save(path, quality=95)
        else:
            path.write_bytes(dicom(film, kind=i % 3))


def dicom(film, kind):
    """A film as a DICOM file: 12 bits with a window, 12 bits MONOCHROME1, or 16 bits."""
    import pydicom
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    bits = (12, 12, 16)[kind]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.Modality = "DX"
    dataset.PhotometricInterpretation = "MONOCHROME1" if kind == 1 else "MONOCHROME2"
    dataset.Rows, dataset.Columns = film.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    values = film.astype(np.uint16) * (2**bits // 256)
    if kind == 1:
        values = 2**bits - 1 - values
    if kind == 0:
        dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = values.astype("<u2").tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def csv_gz(path, table):
    """Write a table as PhysioNet does, the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(table.to_csv(index=False).encode(), mtime=0))


def _write_tables(place, images, studies, canaries, rng):
    ids = images.rename(
        columns={"image_id": "dicom_id", "patient_id": "subject_id", "date": "StudyDate"}
    )
    order = ["dicom_id", "study_id", "subject_id", "split"]
    csv_gz(place / "mimic-cxr-2.0.0-split.csv.gz", ids[order])
    side = ids["view"].isin(["LATERAL", "LL"])
    n = len(ids)
    table = pd.DataFrame(
        {
            "dicom_id": ids["dicom_id"],
            "subject_id": ids["subject_id"],
            "study_id": ids["study_id"],
            "PerformedProcedureStepDescription": np.where(
                np.arange(n) % 40 == 3, canaries["procedure"], "CHEST (PA AND LAT)"
            ),
            "ViewPosition": ids["view"],
            "Rows": SIZE,
            "Columns": SIZE,
            "StudyDate": ids["StudyDate"],
            "StudyTime": ids["time"],
            "ProcedureCodeSequence_CodeMeaning": "CHEST (PA AND LAT)",
            "ViewCodeSequence_CodeMeaning": np.where(side, "lateral", "postero-anterior"),
            "PatientOrientationCodeSequence_CodeMeaning": np.where(
                rng.random(n) < 0.9, "Erect", None
            ),
        }
    )
    # The two files list the films in different orders.
    csv_gz(place / "mimic-cxr-2.0.0-metadata.csv.gz", table.iloc[rng.permutation(n)])
    labels = studies[studies["in_chexpert"]].sort_values(["patient_id", "study_id"])
    labels = labels.rename(
        columns={"patient_id": "subject_id", "support_devices": "Support Devices"}
    )
    labels["No Finding"] = np.where((labels[list(FINDINGS)] == 1).any(axis=1), np.nan, 1.0)
    for label in LABELS:
        if label not in labels:
            labels[label] = np.where(rng.random(len(labels)) < 0.05, 1.0, np.nan)
    labels = labels[["subject_id", "study_id", *LABELS]]
    csv_gz(place / "mimic-cxr-2.0.0-chexpert.csv.gz", labels)
    # The other labeller differs: it takes what is uncertain as absent.
    negbio = labels.replace({-1.0: 0.0})
    csv_gz(place / "mimic-cxr-2.0.0-negbio.csv.gz", negbio)


def _write_mimic_iv(place, patients, canaries, rng):
    there = patients[patients["case"] != "not in MIMIC-IV"]
    table = pd.DataFrame(
        {
            "subject_id": there["subject_id"],
            "gender": there["sex"],
            "anchor_age": there["anchor_age"],
            "anchor_year": there["anchor_year"],
            "anchor_year_group": rng.choice(["2008 - 2010", "2011 - 2013"], len(there)),
            "dod": None,
        }
    )
    # Most patients of MIMIC-IV were never imaged.
    strangers = table.head(40)
    strangers = strangers.assign(subject_id=20_000_000 + np.arange(len(strangers)))
    table = pd.concat([table, strangers]).sort_values("subject_id")
    csv_gz(place / "patients.csv.gz", table)
    rows = []
    for patient in there.itertuples():
        for k, race in enumerate(patient.entries):
            rows.append((patient.subject_id, f"{patient.anchor_year + k}-03-0{k + 1}", race))
    rows += [(s, "2150-01-01", "WHITE") for s in strangers["subject_id"]]
    ids, days, races = zip(*rows, strict=True)
    n = len(rows)
    admissions = pd.DataFrame(
        {
            "subject_id": ids,
            "hadm_id": 20_000_000 + rng.choice(9_999_999, n, replace=False),
            "admittime": [f"{day} 10:15:00" for day in days],
            "dischtime": [f"{day} 21:40:00" for day in days],
            "deathtime": None,
            "admission_type": "EW EMER.",
            "admit_provider_id": canaries["provider"],
            "admission_location": "EMERGENCY ROOM",
            "discharge_location": "HOME",
            "insurance": "Medicare",
            "language": "English",
            "marital_status": "SINGLE",
            "race": races,
            "edregtime": None,
            "edouttime": None,
            "hospital_expire_flag": 0,
        }
    )
    csv_gz(place / "admissions.csv.gz", admissions)


def _write_reports(place, studies, kind):
    texts = {
        f"files/p{str(r.patient_id)[:2]}/p{r.patient_id}/s{r.study_id}.txt": _report(r)
        for r in studies.sort_values(["patient_id", "study_id"]).itertuples()
    }
    place.mkdir(parents=True, exist_ok=True)
    if kind == "zip":
        with zipfile.ZipFile(place / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as file:
            for name, text in texts.items():
                file.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
        return
    for name, text in texts.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _report(study):
    shape = (SHAPES + BARE)[study.shape]
    findings = "\n ".join(textwrap.wrap(study.told, 76))
    return shape.format(findings=findings, impression="As above.", name=NAME)
