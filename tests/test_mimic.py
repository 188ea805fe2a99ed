"""MIMIC-CXR from made-up files in the published layout, against what was planted in them."""

import gzip
import re
import shutil
import zipfile

import mimic_tree
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.cohorts import check_data, mimic
from cxrlib.cohorts.files import DataError

SPLIT, METADATA, CHEXPERT = (
    f"mimic-cxr-2.0.0-{name}.csv.gz" for name in ("split", "metadata", "chexpert")
)


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    monkeypatch.delenv("CXRBOOK_DATA", raising=False)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A tree and what was planted in it; not to be changed."""
    root = tmp_path_factory.mktemp("mimic") / "tree"
    return root, mimic_tree.write(root, n_images=120, per_cell=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small tree, to be copied and damaged."""
    root = tmp_path_factory.mktemp("mimic") / "small"
    return root, mimic_tree.write(root, n_images=16, per_cell=0)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A tree with unpacked reports, to be copied and damaged."""
    root = tmp_path_factory.mktemp("mimic") / "texts"
    return root, mimic_tree.write(root, n_images=60, per_cell=0, reports="files")


@pytest.fixture
def damaged(small, tmp_path):
    ignore = shutil.ignore_patterns("derived")
    return shutil.copytree(small[0], tmp_path / "mimic-cxr", ignore=ignore)


def wanted(truth, split="test"):
    """Planted rows of the default cohort."""
    rows = truth["images"]
    rows = rows[rows["view"].isin(["AP", "PA"]) & rows["in_chexpert"]]
    rows = rows[rows["findings_text"].notna()]
    return rows[rows["split"] == split].sort_values("image_id", ignore_index=True)


# --- what is in the tables -------------------------------------------------------------------


def test_tables_say_what_was_planted(planted):
    root, truth = planted
    found = mimic.tables(root)
    expected = truth["images"].sort_values("image_id", ignore_index=True)
    expected["split"] = expected["split"].replace({"validate": "valid"})
    for finding in (*mimic.FINDINGS, "support_devices"):
        expected[finding] = expected[finding].where(expected["in_chexpert"])
    columns = ["image_id", "patient_id", "study_id", "split", "view", "sex", "age", "race"]
    columns += [*mimic.FINDINGS, "support_devices"]
    pd.testing.assert_frame_equal(found[columns], expected[columns], check_dtype=False)
    assert (found["labelled"] == expected["in_chexpert"]).all()
    assert expected["race"].nunique() == 5 and expected["age"].isna().any()  # oddities are there
    assert expected["view"].isna().any() and expected["view"].isin(["LL", "LATERAL"]).any()


def test_the_other_labeller(planted):
    root, _ = planted
    negbio, chexpert = mimic.tables(root, "negbio"), mimic.tables(root)
    raw = chexpert[list(mimic.FINDINGS)]
    assert raw.eq(-1).any(axis=None)
    pd.testing.assert_frame_equal(negbio[list(mimic.FINDINGS)], raw.replace({-1.0: 0.0}))


def test_age_at_the_study(tmp_path, small):
    """Anchor age plus years since; 91 stands for everyone over 89; nonsense is missing."""
    root = shutil.copytree(small[0], tmp_path / "tree")
    path = root / "hosp/patients.csv.gz"
    patients = pd.read_csv(path)
    table = pd.read_csv(root / METADATA)
    first = table.groupby("subject_id")["StudyDate"].min() // 10_000
    ids = [i for i in first.index if i in set(patients["subject_id"])][:4]
    for patient, age, after in zip(ids, (91, 17, 300, 60), (2, 0, 0, -3), strict=True):
        where = patients["subject_id"] == patient
        patients.loc[where, ["anchor_age", "anchor_year"]] = [age, first[patient] - after]
    mimic_tree.csv_gz(path, patients)
    found = mimic.tables(root).set_index("image_id")
    dates = table.set_index("dicom_id")["StudyDate"] // 10_000
    for patient, age in zip(ids, (93, 17, np.nan, 57), strict=True):
        rows = found[found["patient_id"] == patient]
        start = rows[dates[rows.index] == first[patient]]
        np.testing.assert_array_equal(start["age"], age)
    groups = found.drop_duplicates("patient_id").set_index("patient_id")["age_group"]
    assert groups[ids[0]] == "80+" and groups[ids[1:3]].isna().all() and groups[ids[3]] == "50-65"


@pytest.mark.parametrize(
    ("entries", "group"),
    [
        (["WHITE"], "White"),
        (["WHITE - BRAZILIAN", "WHITE"], "White"),
        (["BLACK/CAPE VERDEAN", "UNKNOWN"], "Black"),
        (["PATIENT DECLINED TO ANSWER", "UNABLE TO OBTAIN"], "unknown"),
        ([None, "ASIAN - KOREAN"], "Asian"),
        ([None], "unknown"),
        (["WHITE", "ASIAN"], "other"),
        (["WHITE", "HISPANIC/LATINO - CUBAN", "UNKNOWN"], "other"),
        (["PORTUGUESE"], "other"),
        (["SOUTH AMERICAN", "OTHER"], "other"),
    ],
)
def test_races_of_one_patient(entries, group):
    admissions = pd.DataFrame({"subject_id": 7, "race": entries})
    for table in (admissions, admissions[::-1]):
        assert mimic.races(table).to_dict() == {7: group}


def test_every_entry_of_mimic_iv_has_a_group():
    assert len(mimic.RACES) == 33
    named = {"WHITE": "White", "BLACK": "Black", "ASIAN": "Asian"}
    for entry, group in mimic.RACES.items():
        first = entry.split("/")[0].split(" ")[0]
        assert group == named.get(first, group)
        assert first in named or group in ("other", "unknown")


# --- the cohort ------------------------------------------------------------------------------


def test_default_cohort(planted):
    root, truth = planted
    cohort, expected = mimic.build(root), wanted(truth)
    table = cohort.table
    assert table["image_id"].tolist() == expected["image_id"].tolist()
    assert table["report"].tolist() == expected["findings_text"].tolist()
    for finding in (*mimic.FINDINGS, "support_devices"):
        assert (table[finding] == (expected[finding] == 1)).all()
    assert cohort.name == "mimic-cxr-test (part)" and cohort.access == "credentialed"
    assert cohort.attributes == ("sex", "age_group", "race") and not cohort.planted
    assert cohort.sources == ("MIMIC-CXR",) and cohort.keep == root / "derived"
    for i, film in zip((0, 5), cohort.images([0, 5]), strict=True):
        np.testing.assert_array_equal(film, np.asarray(Image.open(root / expected["file"][i])))
    assert cohort.films["file"].tolist() == expected["file"].tolist()


def test_flow_counts_what_was_planted(planted):
    root, truth = planted
    steps = [truth["images"]]
    steps += [steps[-1].query("split == 'test'")] * 2  # once more with what is known
    steps.append(steps[-1].query("view in ('AP', 'PA')"))
    steps.append(steps[-1].query("in_chexpert"))
    steps.append(steps[-1])  # all have a report
    steps += [steps[-1].query("findings_text.notna()")] * 2
    flow = mimic.build(root).flow
    assert flow["images"].tolist() == [len(rows) for rows in steps]
    assert flow["patients"].tolist() == [rows["patient_id"].nunique() for rows in steps]
    assert flow["images"].is_monotonic_decreasing and flow["images"].nunique() == 5


def test_other_parts(planted):
    root, truth = planted
    valid, expected = mimic.build(root, split="valid"), wanted(truth, "validate")
    assert valid.table["image_id"].tolist() == expected["image_id"].tolist()
    assert set(valid.table["split"]) == {"valid"} and valid.name == "mimic-cxr-valid (part)"
    every = mimic.build(root, split="all", views="all", reports="any")
    expected = truth["images"].query("in_chexpert").sort_values("image_id", ignore_index=True)
    assert every.table["image_id"].tolist() == expected["image_id"].tolist()
    pd.testing.assert_series_equal(
        every.table["report"], expected["findings_text"], check_names=False, check_dtype=False
    )
    assert every.table["report"].isna().any() and every.name == "mimic-cxr (part)"
    again = mimic.build(root, split=None, views="all", reports="any")
    assert every.fingerprint == again.fingerprint


@pytest.mark.parametrize("labels", mimic.POLICIES)
def test_label_policies(planted, labels):
    root, truth = planted
    rows = wanted(truth)
    raw = rows[list(mimic.FINDINGS)]
    if labels in ("certain", "stated"):
        rows, raw = rows[~raw.eq(-1).any(axis=1)], raw[~raw.eq(-1).any(axis=1)]
    if labels == "stated":  # the labeller of the tree denies all where it finds none
        stated = raw.notna().all(axis=1) | ~raw.eq(1).any(axis=1)
        rows, raw = rows[stated], raw[stated]
    found = mimic.build(root, labels=labels).table
    assert found["image_id"].tolist() == rows["image_id"].tolist()
    positive = raw.isin([1, -1]) if labels == "uncertain_positive" else raw.eq(1)
    np.testing.assert_array_equal(found[list(mimic.FINDINGS)], positive)


def test_drawn_images(planted):
    root, truth = planted
    some = mimic.build(root, n_images=20, seed=1)
    assert len(some.table) == 20 and some.name == "mimic-cxr-test (part)"
    assert set(some.table["image_id"]) < set(wanted(truth)["image_id"])
    assert some.fingerprint == mimic.build(root, n_images=20, seed=1).fingerprint
    assert some.fingerprint != mimic.build(root, n_images=20, seed=2).fingerprint


def test_complete_when_all_that_was_published_is_there(planted, monkeypatch):
    root, truth = planted
    test = truth["images"].query("split == 'test'")
    monkeypatch.setitem(mimic.OFFICIAL, "test", (len(test), test["patient_id"].nunique()))
    assert mimic.build(root).name == "mimic-cxr-test"
    assert mimic.build(root, n_images=5).name == "mimic-cxr-test (part)"


def test_recipe_and_fingerprint_do_not_know_the_place(planted, tmp_path):
    root, _ = planted
    copy = shutil.copytree(root, tmp_path / "elsewhere")
    first, second = mimic.build(root), mimic.build(copy)
    assert first.fingerprint == second.fingerprint
    assert str(root) not in repr(first.recipe)


@pytest.mark.parametrize(("layout", "reports"), [("folders", "files"), ("versions", "zip")])
def test_layouts(small, tmp_path, layout, reports):
    mimic_tree.write(tmp_path, n_images=16, per_cell=0, layout=layout, reports=reports)
    found = mimic.build(tmp_path)
    pd.testing.assert_frame_equal(found.table, mimic.build(small[0]).table)


def test_original_dicoms_as_wget_leaves_them(small, tmp_path):
    truth = mimic_tree.write(tmp_path, n_images=16, per_cell=0, jpg=False, layout="wget")
    cohort = mimic.build(tmp_path)
    pd.testing.assert_frame_equal(cohort.table, mimic.build(small[0]).table)
    rows = wanted(truth)
    assert rows["file"].str.startswith("physionet.org/files/mimic-cxr/2.1.0/files/p1").all()
    plain = rows.index[~rows["repeated"] & (rows["image_id"] != truth["canaries"]["pattern_image"])]
    for i, film in zip(plain, cohort.images(plain), strict=True):
        drawn = truth["pixels"][rows["phantom"][i]]
        margin = (drawn.shape[1] - film.shape[1]) // 2
        drawn = drawn[:, margin : drawn.shape[1] - margin].astype(float)
        # A window rounds once more than the drawn film.
        seen = (drawn - drawn.min()) / np.ptp(drawn) * 255
        assert np.abs(film - seen).max() <= 1.5


def test_balanced(planted):
    root, _ = planted
    cohort = mimic.build_balanced(root, per_cell=1, seed=3)
    table = cohort.table
    assert len(table) == 24 and (table[list(mimic.FINDINGS)].sum(axis=1) == 1).all()
    assert (table.groupby(["disease", "age60", "sex"]).size() == 1).all()
    assert ((table["age"] >= 60) == (table["age60"] == "old")).all()
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    assert cohort.name == "mimic-balanced (part)" and cohort.access == "credentialed"
    with pytest.raises(DataError, match="of 24 cells hold fewer images") as caught:
        mimic.build_balanced(root, per_cell=50)
    assert re.findall(r": (.*?) of 50", str(caught.value)).count("fewer than 10") > 10
    assert not re.search(r"(: |=)[1-9]\b", str(caught.value))


# --- bad input: one clear message, and nothing written ---------------------------------------


def rewrite(path, change):
    """Change a gzipped table as a whole."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    mimic_tree.csv_gz(path, change(table))


def retext(path, change):
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


def two_splits(table):
    patient = table["subject_id"].value_counts().index[0]
    row = table.index[table["subject_id"] == patient][0]
    table.loc[row, "split"] = "train" if table.loc[row, "split"] != "train" else "test"
    return table


def entry(column, value):
    """A change of one entry."""

    def change(table):
        table.loc[table.index[1], column] = value
        return table

    return change


BAD_TABLES = {
    "missing column": (
        METADATA,
        lambda t: t.drop(columns="ViewPosition"),
        "'ViewPosition' is missing",
    ),
    "duplicated film": (
        SPLIT,
        lambda t: pd.concat([t, t.head(2)]),
        "2 rows repeat the dicom_id of an earlier one",
    ),
    "duplicated study": (CHEXPERT, lambda t: pd.concat([t, t.head(1)]), "repeat the study_id"),
    "duplicated patient": (
        "hosp/patients.csv.gz",
        lambda t: pd.concat([t, t.head(1)]),
        "repeat the subject_id",
    ),
    "patient in two splits": (SPLIT, two_splits, "patients in two official splits: 1"),
    "another split": (SPLIT, entry("split", "holdout"), "1 entries other than train, validate"),
    "id out of the folder": (
        SPLIT,
        entry("dicom_id", "../../../secret"),
        "'dicom_id' holds 1 entries that are no id",
    ),
    "patient out of the folder": (
        SPLIT,
        entry("subject_id", "../x"),
        "'subject_id' holds 1 entries that are no whole numbers",
    ),
    "film without metadata": (METADATA, lambda t: t.iloc[3:], "3 films of .* are not in it"),
    "date as text": (
        METADATA,
        entry("StudyDate", "2180-05-06"),
        "'StudyDate' holds 1 entries that are no whole numbers",
    ),
    "label of another kind": (
        CHEXPERT,
        entry("Edema", "2.0"),
        "'Edema' holds 1 entries other than 1, 0, -1",
    ),
    "unknown race": (
        "hosp/admissions.csv.gz",
        entry("race", "MARTIAN"),
        "'race' holds 1 entries that MIMIC-IV 3.1 does not have; .* in line 3",
    ),
    "unknown sex": (
        "hosp/patients.csv.gz",
        entry("gender", "Female"),
        "'gender' holds 1 entries other than F, M and nothing; .* in line 3",
    ),
    "unknown view": (
        METADATA,
        entry("ViewPosition", "Frontal"),
        "'ViewPosition' holds 1 entries other than AP, PA, .* in line 3",
    ),
}


def inventory(root):
    return {p: p.stat().st_mtime_ns for p in root.rglob("*")}


def refused(root, message, **options):
    before = inventory(root)
    with pytest.raises(DataError, match=message) as caught:
        mimic.build(root, **options)
    assert "\n" not in str(caught.value)
    assert inventory(root) == before


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables(damaged, case):
    name, change, message = BAD_TABLES[case]
    rewrite(damaged / name, change)
    refused(damaged, message)


def test_damaged_text(damaged):
    path = damaged / METADATA
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    refused(damaged, "damaged or cut off")
    path.write_bytes(sound)
    retext(path, lambda text: text.replace(b",", b";"))
    refused(damaged, "separated by semicolons")
    path.write_bytes(b"")
    refused(damaged, f"{METADATA}: .*(empty|damaged)")
    path.write_bytes(sound)
    retext(path, lambda text: b"\xef\xbb\xbf" + text)
    assert len(mimic.build(damaged).table)  # a byte order mark does no harm


def test_wrong_folder(small, damaged, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    whole = shutil.copytree(damaged, tmp_path / "data" / "mimic-cxr-2.1.0")
    shutil.move(whole / "hosp", tmp_path / "data" / "mimic-iv-3.1" / "hosp")
    refused(damaged / "hosp", f"wrong folder, .*Give {damaged}")
    refused(damaged / "files", f"wrong folder, .*Give {damaged}")
    refused(whole, f"hosp/patients.csv.gz .*Give {tmp_path / 'data'}")
    shutil.rmtree(tmp_path / "data")
    refused(tmp_path, f"wrong folder, .*Give {damaged}")
    shutil.rmtree(damaged)
    refused(elsewhere, "split.csv.gz is not there; fetch it from https://physionet.org")


def test_reports_that_cannot_be_read(damaged, small):
    _, truth = small
    archive = damaged / "mimic-cxr-reports.zip"
    sound = archive.read_bytes()
    archive.write_bytes(sound[: len(sound) // 2])
    refused(damaged, "mimic-cxr-reports.zip: damaged or cut off")
    archive.unlink()
    refused(damaged, "no reports; fetch mimic-cxr-reports.zip")
    assert mimic.build(damaged, reports="any").table["report"].isna().all()
    shutil.rmtree(damaged / "derived")
    row = wanted(truth).iloc[0]
    name = f"{row['file'].rpartition('/')[0]}.txt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, "FINDINGS: The Zyxwomina sign, 38 °C.".encode("latin-1"))
    with pytest.raises(DataError, match=f"{name}: a report that is not UTF-8") as caught:
        mimic.build(damaged)
    assert "Zyxwomina" not in str(caught.value)


def test_unpacked_report_that_leads_elsewhere(damaged, small, tmp_path):
    with zipfile.ZipFile(damaged / "mimic-cxr-reports.zip") as archive:
        archive.extractall(damaged)
    (damaged / "mimic-cxr-reports.zip").unlink()
    report = (damaged / wanted(small[1])["file"][0]).parent.with_suffix(".txt")
    shutil.move(report, tmp_path / "outside.txt")
    report.symlink_to(tmp_path / "outside.txt")
    refused(damaged, f"{report.name}: leads out of the data folder")


def short_archive(root, gone):
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip") as old:
        texts = {name: old.read(name) for name in old.namelist() if not name.endswith(gone)}
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as new:
        for name, text in texts.items():
            new.writestr(name, text)


def unpacked(root, gone):
    with zipfile.ZipFile(root / "mimic-cxr-reports.zip") as archive:
        archive.extractall(root, [n for n in archive.namelist() if not n.endswith(gone)])
    (root / "mimic-cxr-reports.zip").unlink()


def emptied(root, gone):
    unpacked(root, ".none")
    next(root.rglob(gone)).write_bytes(b"")


def whole_copy_beside(root, gone):
    """A folder cut off, found before the whole one."""
    unpacked(root, ".none")
    shutil.copytree(root / "files", root / "mimic-cxr" / "files")
    for path in list(root.glob("files/**/*.txt"))[:-1]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "lost"),
    [(short_archive, 1), (unpacked, 1), (emptied, 1), (whole_copy_beside, 0)],
)
def test_a_study_without_a_report_is_no_study_without_findings(damaged, small, spoil, lost):
    """It is a step of its own, and a source that is not whole."""
    frontal = small[1]["images"].query("split == 'test' and view in ('AP', 'PA') and in_chexpert")
    rows = wanted(small[1])
    spoil(damaged, f"s{rows['study_id'][0]}.txt")
    mine, found = rows["study_id"] == rows["study_id"][0], mimic.build(damaged)
    kept = rows[~mine] if lost else rows
    assert found.table["image_id"].tolist() == kept["image_id"].tolist()
    flow = found.flow.set_index("step")["images"]
    assert flow.filter(like="with a report").item() == len(frontal) - (mine.sum() if lost else 0)
    assert flow["with a FINDINGS section"] == len(kept)


def cut_down(path):
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    mimic_tree.csv_gz(path, table.head(len(table) // 4))


def without_reports(root):
    for path in list(root.glob("files/**/s*.txt"))[10:]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "options", "problem"),
    [
        (lambda root: cut_down(root / "hosp/patients.csv.gz"), {}, "sex: known for"),
        (lambda root: cut_down(root / CHEXPERT), {}, "labels: known for"),
        (lambda root: entries(root, "race", "UNKNOWN"), {}, "race: known for 0 of"),
        (lambda root: entries(root, "anchor_year", "1"), {}, "age: known for 0 of"),
        (without_reports, {}, "reports: known for"),
        (without_reports, {"reports": "any"}, "reports: known for"),
        (lambda root: None, {}, None),
        (lambda root: None, {"reports": "any"}, None),
    ],
)
def test_whole_needs_every_source(texts, tmp_path, monkeypatch, spoil, options, problem):
    tmp_path, truth = shutil.copytree(texts[0], tmp_path / "tree"), texts[1]["images"]
    for split, of in ((None, truth), ("test", truth.query("split == 'test'"))):
        monkeypatch.setitem(mimic.OFFICIAL, split, (len(of), of["patient_id"].nunique()))
    spoil(tmp_path)
    assert mimic.build(tmp_path, **options).name == "mimic-cxr-test" + " (part)" * bool(problem)
    text, problems = check_data.report("mimic", tmp_path)
    assert problems == bool(problem) + (problem == "sex: known for")  # with sex, age is gone
    told = [line for line in text.splitlines() if line.lstrip().startswith("problem")]
    assert all(" expected" in line for line in told)
    assert problem is None or any(problem in line for line in told)


def entries(root, column, value):
    path = root / "hosp" / ("admissions.csv.gz" if column == "race" else "patients.csv.gz")
    rewrite(path, lambda t: t.assign(**{column: value}))


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        ("mimic-iv-3.1", "mimic-iv-clinical-database-demo-2.2"),
        ("mimiciv/2.2", "mimiciv/3.1"),
        ("mimiciv/3.1", ""),  # a demo unpacked into the folder itself
        ("physionet.org/files/mimiciv/3.1", "mimic-iv-demo/2.2"),
        ("", "mimiciv"),
    ],
)
def test_the_release_that_has_the_patients_is_taken(damaged, small, whole, part):
    """Whatever else of MIMIC-IV lies beside it, and whatever it is called."""
    shutil.move(damaged / "hosp", damaged / "aside")
    (damaged / whole).mkdir(parents=True, exist_ok=True)
    shutil.move(damaged / "aside", damaged / whole / "hosp")
    few = pd.read_csv(damaged / whole / "hosp/patients.csv.gz")["subject_id"].head(3)
    for name in ("patients", "admissions"):
        table = pd.read_csv(damaged / whole / f"hosp/{name}.csv.gz")
        path = damaged / part / f"hosp/{name}.csv.gz"
        if whole and not part:
            path = path.with_suffix("")
        path.parent.mkdir(parents=True, exist_ok=True)
        table[table["subject_id"].isin(few)].to_csv(path, index=False)
    pd.testing.assert_frame_equal(mimic.tables(damaged), mimic.tables(small[0]))
    assert "sex: known for" in check_data.report("mimic", damaged)[0]


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-400])


def replace_by_link(path):
    outside = path.parents[5] / "outside.jpg"
    shutil.move(path, outside)
    path.symlink_to(outside)


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda path: path.unlink(), "not there"),
        (empty, "the file is empty"),
        (cut, "damaged or cut off"),
        (replace_by_link, "leads out of the data folder"),
    ],
)
def test_broken_films(damaged, small, break_, message):
    rows = wanted(small[1])
    break_(damaged / rows["file"][1])
    with pytest.raises(DataError, match=f"1 of {len(rows)} films .*{message}"):
        mimic.build(damaged)
    cohort = mimic.build(damaged, max_broken=0.5)
    assert cohort.table["image_id"].tolist() == rows["image_id"].drop(1).tolist()
    assert cohort.flow["images"].tolist()[-2:] == [len(rows), len(rows) - 1]
    np.testing.assert_array_equal(
        cohort.images([1])[0], np.asarray(Image.open(damaged / rows["file"][2]))
    )


def test_dicom_without_pixels(tmp_path):
    import pydicom

    truth = mimic_tree.write(tmp_path, n_images=16, per_cell=0, jpg=False)
    path = tmp_path / wanted(truth)["file"][0]
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(DataError, match="a DICOM file without pixel data"):
        mimic.build(tmp_path)


def test_no_film_at_all(damaged):
    shutil.rmtree(damaged / "files")
    refused(damaged, "none of the .* films that are wanted is there")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validate"}, "split='validate': expected one of train, valid, test, None"),
        ({"views": "lateral"}, "views='lateral': expected one of frontal, all"),
        ({"labeler": "vote"}, "labeler='vote'"),
        ({"labels": "negative"}, "labels='negative': expected one of as_published"),
        ({"reports": "impression"}, "reports='impression'"),
        ({"n_images": 10**6}, "n_images=1000000: expected 1 to"),
    ],
)
def test_bad_options(small, options, message):
    with pytest.raises(ValueError, match=message):
        mimic.build(small[0], **options)


def test_what_is_there(damaged, small):
    found = {row.file: row for row in mimic.describe_files(damaged)}
    n = len(small[1]["images"])
    assert found[SPLIT].rows == found["files/*.jpg"].rows == n
    assert found["mimic-cxr-reports.zip"].rows == 16
    assert found[SPLIT].expected == 377_110 and not any(r.problem for r in found.values())
    film = damaged / small[1]["images"]["file"][0]
    film.rename(film.with_name("0-unlisted.jpg"))
    (damaged / "hosp/patients.csv.gz").unlink()
    found = {row.file: row for row in mimic.describe_files(damaged)}
    assert found["files/*.jpg"].problem == (
        f"listed, but not there: 1 films; there, but not listed in {SPLIT}: 1 films"
    )
    patients = found["hosp/patients.csv.gz"]
    assert patients.rows is None and "content/mimiciv" in patients.problem
