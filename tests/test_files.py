"""Files as distributed: found, refused with one message, never followed out of their folder."""

import gzip
from dataclasses import replace

import pandas as pd
import pytest

from cxrlib import cohorts
from cxrlib.cohorts import files, labels, mimic_files
from cxrlib.cohorts.files import DataError

COLUMNS = {"Image Index": "image_id", ("Patient Sex", "Patient Gender"): "sex"}
TEXT = "Image Index,Patient Gender,More\na.png,F,1\nb.png,M,2\n"


def write(path, text=TEXT, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("gender", ["Patient Gender", "Patient Sex"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_either_spelling_with_or_without_a_byte_order_mark(tmp_path, gender, encoding):
    path = write(tmp_path / "t.csv", TEXT.replace("Patient Gender", gender), encoding)
    table = files.read_table(path, COLUMNS)
    assert table.to_dict("list") == {"image_id": ["a.png", "b.png"], "sex": ["F", "M"]}


def test_compressed_tables_and_types(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(TEXT.encode()))
    table = files.read_table(path, {"More": "more"}, dtype={"More": str})
    assert list(table["more"]) == ["1", "2"]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (TEXT.replace(",", ";").encode(), "semicolons"),
        (TEXT.replace("Patient Gender", "Gender").encode(), "column 'Patient Sex' is missing"),
        (b"Image Index,Patient Gender\n\xff\xfe,F\n", "UTF-8"),
        (b'Image Index,Patient Gender\n"a,F\n', "damaged"),
    ],
)
def test_a_table_that_is_not_right(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        files.read_table(path, COLUMNS)
    assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [5, -30])
def test_a_truncated_archive(tmp_path, cut):
    path = tmp_path / "t.csv.gz"
    whole = gzip.compress((TEXT + "x.png,F,3\n" * 5000).encode())
    path.write_bytes(whole[:cut])
    with pytest.raises(DataError, match=r"t\.csv\.gz: damaged or cut off"):
        files.read_table(path, COLUMNS)


def test_repeated_rows_are_counted_with_their_lines(tmp_path):
    table = pd.DataFrame({"a": [1, 2, 1, 1], "b": [1, 1, 1, 2]})
    with pytest.raises(DataError, match=r"2 rows repeat the a of an earlier one \(lines 4, 5\)"):
        files.unique(table, "a", "t.csv")
    with pytest.raises(DataError, match=r"1 rows repeat the a and b .* \(line 4\)"):
        files.unique(table, ["a", "b"], "t.csv")


def test_links_and_names_that_lead_out(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    root.mkdir(), other.mkdir()
    write(other / "t.csv")
    (root / "t.csv").symlink_to(other / "t.csv")
    (root / "deep").mkdir()
    (root / "deep" / "folder").symlink_to(other)
    deep = root / "deep" / "folder" / "t.csv"
    for path in (root / "t.csv", deep, root / ".." / "other" / "t.csv"):
        with pytest.raises(DataError, match="leads out of the data folder"):
            files.inside(root, path)
    with pytest.raises(DataError, match="leads out"):
        files.locate(root, "t.csv")
    write(root / "own.csv")
    assert files.locate(root, ["none.csv", "own.csv"], ("missing", "")) == root / "own.csv"
    assert files.locate(root, "none.csv") is None


@pytest.mark.parametrize(
    ("link", "target"), [("jpg", "other"), ("jpg", "other/jpg-2.1.0"), ("jpg", "link to other")]
)
def test_folders_of_other_disks_may_be_linked_from_the_root(tmp_path, link, target):
    """And nothing else of these disks is reached through them."""
    root, disk = tmp_path / "root", tmp_path / target.replace("link to other", "other")
    root.mkdir(), disk.mkdir(parents=True)
    (tmp_path / "link to other").symlink_to(tmp_path / "other")
    (root / link).symlink_to(tmp_path / target)
    table, beside = write(disk / "t.csv"), write(disk.parent / "beside.csv")
    assert files.locate(root, "t.csv", (link,)) == root / link / "t.csv"
    (disk / "out.csv").symlink_to(beside)
    for path in (root / link / "out.csv", root / link / ".." / "beside.csv", beside):
        with pytest.raises(DataError, match=f"{path.name}: leads out .* from {root} itself"):
            files.inside(root, path)
    (root / link).unlink()
    with pytest.raises(DataError, match="leads out"):
        files.inside(root, table)


@pytest.mark.parametrize(
    ("target", "words"), [("gone", "a link to what is not there"), ("a", "lead in a circle")]
)
def test_links_that_lead_nowhere(tmp_path, monkeypatch, target, words):
    (tmp_path / "a").symlink_to(tmp_path / target)
    (tmp_path / "mimic-cxr").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match=f"a: .*{words}"):
        files.locate(tmp_path, "a")
    with pytest.raises(DataError, match=rf"split.csv.gz is not there; a is .*{words}"):
        mimic_files.find(tmp_path, "mimic-cxr-jpg", mimic_files.IMAGES)
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"mimic-cxr is .*{words}"):
        files.root_of("mimic-cxr")


def test_a_data_set_may_be_a_link(tmp_path, monkeypatch):
    disk, data = tmp_path / "disk", tmp_path / "data"
    disk.mkdir(), data.mkdir()
    write(disk / "t.csv")
    (data / "nih-cxr14").symlink_to(disk)
    monkeypatch.setenv("CXRBOOK_DATA", str(data))
    root = files.root_of("nih-cxr14")
    assert files.locate(root, "t.csv") == disk / "t.csv"
    assert files.derived(root) == data / "derived"


def test_a_stamp_of_the_folder(tmp_path):
    films = tmp_path / "images_001" / "images"
    films.mkdir(parents=True)
    write(tmp_path / "t.csv")
    seen = {files.stamp(tmp_path)}
    assert files.stamp(tmp_path) in seen
    for change in (
        lambda: write(films / "a.png"),
        lambda: write(films / "b.png"),
        lambda: (films / "a.png").unlink(),
        lambda: write(tmp_path / "t.csv", TEXT + "c.png,F,3\n"),
        lambda: write(tmp_path / "more.txt"),
    ):
        change()
        assert files.stamp(tmp_path) not in seen
        seen.add(files.stamp(tmp_path))


def test_where_are_the_data(tmp_path, monkeypatch):
    monkeypatch.delenv("CXRBOOK_DATA", raising=False)
    with pytest.raises(DataError, match="Set CXRBOOK_DATA"):
        cohorts.load("nih")
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path / "no"))
    with pytest.raises(DataError, match="no such folder"):
        cohorts.load("nih")
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"nih-cxr14 does not exist.*check-data nih-cxr14"):
        cohorts.load("nih")
    (tmp_path / "nih-cxr14").write_text("")
    with pytest.raises(DataError, match="is a file"):
        cohorts.load("nih")


def test_options_of_a_cohort():
    with pytest.raises(ValueError, match=r"'phantom' has no option 'sizes'; it has n_images, seed"):
        cohorts.load("phantom", sizes=3)
    with pytest.raises(ValueError, match="did you mean 'phantom'"):
        cohorts.load("fantom")
    with pytest.raises(ValueError, match="expected a dictionary"):
        cohorts.study("phantom", 10, 1, "split=all")
    small = cohorts.study("phantom", 10, 1, {"n_images": 12}, split="valid", preprocessing="x")
    assert len(small.table) == 12 and set(small.table["split"]) == {"valid"}


def test_validation_patients_are_not_tested():
    test = cohorts.study("phantom", 60, 1)
    valid, tested = cohorts.validation(test, "phantom", 60, 1)
    assert len(valid.table) == 30 and len(tested) == 60
    mixed = replace(test, table=pd.concat([test.table, valid.table]))  # as of the split "all"
    _, tested = cohorts.validation(mixed, "phantom", 60, 1, {"split": "test"})
    assert set(tested["patient_id"]) == set(test.table["patient_id"])
    with pytest.raises(ValueError, match="all its patients are in the validation split"):
        cohorts.validation(valid, "phantom", 60, 1)


def test_labels_that_omit_findings_of_women():
    cohort = cohorts.load("phantom", n_images=400)
    own = replace(cohort, name="own")  # of which nobody has a twin
    for made in (cohort, own):
        left = labels.underreported(made, ["Edema", "Pneumothorax"], 0.5, seed=1)
        both = left.merge(made.table[["image_id", "sex", "Edema"]], on="image_id")
        both = both[(both["label"] == "Edema") & (both["Edema"] == 1)]
        kept = both.groupby("sex")["y_true"].mean()
        assert kept["M"] == 1 and 0.2 < kept["F"] < 0.8
