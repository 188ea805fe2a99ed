"""How fast real cohorts are read: tables of full size, reports, films. All content is made up.

Each part runs in a process of its own, so that its memory is its own. The tables of MIMIC-CXR are
written once, to a temporary folder.

Run: python benchmarks/cohorts.py
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gzip
import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import apart, peak
from PIL import Image

from cxrlib import cohorts
from cxrlib.cohorts import films, metadata, mimic, nih
from cxrlib.cohorts.mimic_files import read_reports
from cxrlib.cohorts.report_sections import findings

IMAGES, STUDIES, PATIENTS, ADMISSIONS = 377_110, 227_835, 65_379, 430_000
REPORTS, FILMS = 20_000, 300
OTHER_LABELS = (
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Other",
    "Support Devices",
)


# --- made-up data ----------------------------------------------------------------------------


def write_nih(root):
    """The real table of 112,120 rows, and lists of the official sizes, of other patients."""
    with gzip.open(metadata.wheel_file("Data_Entry_2017_v2020.csv.gz")) as file:
        (root / "Data_Entry_2017_v2020.csv").write_bytes(file.read())
    rows = metadata.nih()
    test = rows["patient_id"].isin(rows["patient_id"].unique()[:2797])
    (root / "test_list.txt").write_text("\n".join(rows.loc[test, "image_id"]))
    (root / "train_val_list.txt").write_text("\n".join(rows.loc[~test, "image_id"]))


def csv_gz(path, columns):
    path.parent.mkdir(exist_ok=True)
    text = pd.DataFrame(columns).to_csv(index=False)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=1))


def write_mimic(root):
    """Tables as PhysioNet has them, and an archive of reports of the first studies."""
    rng = np.random.default_rng(0)
    some = lambda values, n: rng.choice(np.array(values, object), n)  # noqa: E731
    patient = np.arange(PATIENTS) + 10_000_000
    of_study = np.sort(np.r_[patient, rng.choice(patient, STUDIES - PATIENTS)])
    study = np.arange(STUDIES) + 50_000_000
    at = np.sort(np.r_[np.arange(STUDIES), rng.integers(0, STUDIES, IMAGES - STUDIES)])
    words = rng.integers(0, 2**32, (IMAGES, 5)).astype(np.uint32)
    ids = {
        "dicom_id": ["-".join(f"{w:08x}" for w in five) for five in words.tolist()],
        "study_id": study[at],
        "subject_id": of_study[at],
    }
    part = np.repeat(["train", "validate", "test"], [64_586, 500, 293])
    csv_gz(root / "mimic-cxr-2.0.0-split.csv.gz", ids | {"split": part[of_study[at] - patient[0]]})
    more = {
        "PerformedProcedureStepDescription": "CHEST (PA AND LAT)",
        "ViewPosition": some(["AP", "PA", "LATERAL", "LL", None], IMAGES),
        "Rows": 3056,
        "Columns": 2544,
        "StudyDate": rng.integers(2110, 2200, IMAGES) * 10_000 + 615,
        "StudyTime": np.round(rng.uniform(0, 235_959, IMAGES), 3),
        "ProcedureCodeSequence_CodeMeaning": "CHEST (PA AND LAT)",
        "ViewCodeSequence_CodeMeaning": "postero-anterior",
        "PatientOrientationCodeSequence_CodeMeaning": "Erect",
    }
    csv_gz(root / "mimic-cxr-2.0.0-metadata.csv.gz", ids | more)
    labels = {
        name: some([1.0, 0.0, -1.0, None, None, None], STUDIES)
        for name in (*mimic.FINDINGS, *OTHER_LABELS)
    }
    table = {"subject_id": of_study, "study_id": study} | labels
    csv_gz(root / "mimic-cxr-2.0.0-chexpert.csv.gz", table)
    people = {
        "subject_id": patient,
        "gender": some(["F", "M"], PATIENTS),
        "anchor_age": rng.integers(18, 91, PATIENTS),
        "anchor_year": rng.integers(2110, 2200, PATIENTS),
        "anchor_year_group": "2011 - 2013",
        "dod": None,
    }
    csv_gz(root / "hosp" / "patients.csv.gz", people)
    stays = {
        "subject_id": rng.choice(patient, ADMISSIONS),
        "hadm_id": np.arange(ADMISSIONS) + 20_000_000,
        "admittime": "2180-05-06 22:23:00",
        "dischtime": "2180-05-07 17:15:00",
        "admission_type": "URGENT",
        "insurance": "Medicaid",
        "race": some(list(mimic.RACES), ADMISSIONS),
    }
    csv_gz(root / "hosp" / "admissions.csv.gz", stays)
    text = cohorts.load("phantom", n_images=1000, size=16).table["report"].to_numpy()
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(REPORTS):
            report = f"{HEAD}\n FINDINGS:\n\n {text[i % 1000]}\n\n IMPRESSION:  As above.\n"
            archive.writestr(f"files/p10/p{of_study[i]}/s{study[i]}.txt", report)


HEAD = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  History of cough.

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  None.
"""


def write_films(root):
    """Phantoms of 1,024 pixels a side with grain, about as large on disk as those of NIH."""
    rng = np.random.default_rng(0)
    phantoms = cohorts.load("phantom", n_images=FILMS, size=64).images(np.arange(FILMS))
    for i, film in enumerate(phantoms):
        large = np.asarray(Image.fromarray(film).resize((1024, 1024), Image.Resampling.BICUBIC))
        grain = large + rng.normal(0, 2, large.shape)
        Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).save(root / f"{i}.png")


# --- what is measured ------------------------------------------------------------------------


def read_nih(root):
    rows, _ = nih.read(root)
    split = nih.official_split(root, rows)
    return f"{len(rows):,} rows, {(split == 'test').sum():,} of them in the test list"


def read_mimic(root):
    rows = mimic.tables(root)
    return (
        f"{len(rows):,} images, {rows['study_id'].nunique():,} studies, "
        f"{rows['patient_id'].nunique():,} patients, {ADMISSIONS:,} admissions"
    )


def read_sections(root):
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip") as archive:
        names = archive.namelist()
    found = [findings(text) for text in read_reports(root, names, needed=True)]
    assert all(found)
    return len(found)


def check_films(root):
    found = films.check(root, sorted(p.name for p in root.glob("*.png")), root / "kept.parquet")
    assert (found["problem"] == "").all()
    return len(found)


STEPS = {f.__name__: f for f in (read_nih, read_mimic, read_sections, check_films)}


def measured(step, root):
    """Seconds, peak memory in GB and result of a step in a process of its own, imports apart."""
    return apart(__file__, step, root)


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = {name: Path(folder) / name for name in ("nih", "mimic", "films")}
        for path in root.values():
            path.mkdir()
        write_nih(root["nih"])
        seconds, memory, what = measured("read_nih", root["nih"])
        print(f"NIH metadata: {seconds:.1f} s, {memory:.2f} GB ({what}; target 3 s)")
        write_mimic(root["mimic"])
        seconds, memory, what = measured("read_mimic", root["mimic"])
        print(f"MIMIC tables: {seconds:.1f} s, {memory:.2f} GB ({what}; target 60 s, 2 GB)")
        seconds, _, n = measured("read_sections", root["mimic"])
        print(f"FINDINGS from the archive: {n / seconds:,.0f} reports a second (target 5,000)")
        write_films(root["films"])
        seconds, _, n = measured("check_films", root["films"])
        size = np.mean([p.stat().st_size for p in root["films"].glob("*.png")]) / 1e6
        print(
            f"films checked: {n / seconds:.0f} a second, {os.cpu_count()} cores (1,024 pixels, "
            f"{size:.1f} MB each): NIH's test list in {25_596 * seconds / n / 60:.0f} minutes"
        )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        start = time.perf_counter()
        result = STEPS[sys.argv[1]](Path(sys.argv[2]))
        seconds = time.perf_counter() - start
        print(json.dumps([seconds, peak() / 1024, result]))
