"""check-data: what is there is said, what stands in the way is counted."""

import os
import shutil

import pytest
from PIL import Image

from cxrlib.cli import nih_6x200_list
from cxrlib.cohorts import check_data, metadata, nih, nih6x200, own
from cxrlib.core.errors import BookError
from tests import mimic_tree, nih_tree


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """CXRBOOK_DATA with both data sets; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("data")
    nih_tree.write(folder / "nih-cxr14", n_images=150, per_cell=2, size=32)
    mimic_tree.write(folder / "mimic-cxr", n_images=60)
    return folder


@pytest.fixture
def copy(data, tmp_path, monkeypatch):
    folder = shutil.copytree(data, tmp_path / "data")
    monkeypatch.setenv("CXRBOOK_DATA", str(folder))
    return folder


def lines(name, root=None):
    text, problems = check_data.report(name, root)
    return text.splitlines(), problems


def test_nih_as_planted(data):
    planted = nih_tree.write(data.parent / "again", n_images=150, per_cell=2, size=32)["table"]
    test, drains = planted[planted["test"]], planted["annotated"].dropna()
    found, problems = lines("nih", data / "nih-cxr14")
    assert problems == 0 and not any("where to get it" in line for line in found)
    patients = planted["patient_id"].nunique()
    for expected in (
        f"150 images of {patients} patients; the release has 112,120 of 30,805",
        f"test_list.txt: {len(test)} images of {test['patient_id'].nunique()} patients; the",
        "no patient is in both lists",
        "2 ages above 120",
        f"ok      {len(test)} of {len(test)} films of test_list.txt are there",
        f"ok      {150 - len(test)} of {150 - len(test)} films of train_val_list.txt are there",
        "50 of them opened, all can be read",
        f"NEATX: {len(drains)} films annotated, {int(drains.sum())} with a drain; of "
        f"{planted['Pneumothorax'].sum()} with pneumothorax {planted['Pneumothorax'].sum()} are "
        "covered; 2 names unknown to NIH",
    ):
        assert any(expected in line for line in found), expected


def test_mimic_as_planted(data):
    found, problems = lines("mimic", data / "mimic-cxr")
    assert problems == 0
    assert any("the release has 377,110" in line for line in found)
    assert any("official test split" in line and "5,159 of 293" in line for line in found)
    assert any("of them opened, all can be read" in line for line in found)


def without(*names):
    def spoil(folder):
        for name in names:
            (folder / name).unlink()

    return spoil


def cut(name):
    def spoil(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:200])

    return spoil


def empty_films(folder):
    for file in (folder / "nih-cxr14" / "images").iterdir():
        file.write_bytes(b"")


def further_film(folder):
    Image.new("L", (8, 8)).save(folder / "nih-cxr14" / "images" / "00039999_000.png")


def absent(list_name):
    def spoil(folder):
        root = folder / "nih-cxr14"
        (root / "images" / (root / list_name).read_text().split()[0]).unlink()

    return spoil


def women(folder):
    path = folder / "nih-cxr14" / nih_tree.TABLE_2017
    path.write_text(path.read_text().replace(",F,", ",Female,"))


def other_names(folder):
    """NEATX for other films, or for names that are written in another way."""
    path = folder / "nih-cxr14" / nih.NEATX
    path.write_text(path.read_text().replace(".png,", ".jpg,"))


@pytest.mark.parametrize(
    ("name", "spoil", "problems", "words"),
    [
        (
            "nih",
            without(f"nih-cxr14/{nih_tree.TABLE_2017}"),
            0,
            "of the torchxrayvision wheel: 112,",
        ),
        ("nih", women, 1, "column 'sex' breaks the rule 'one of F, M'"),
        ("nih", other_names, 1, "names unknown to NIH, more than 10%: another file"),
        ("nih", without("nih-cxr14/test_list.txt"), 1, "has no test_list.txt: get it at https"),
        ("nih", without(f"nih-cxr14/{nih.NEATX}"), 0, "without it no drain is known"),
        ("nih", empty_films, 2, "50 of 50 films opened cannot be read"),
        ("nih", further_film, 0, "note    1 films that the table does not list"),
        ("nih", absent("test_list.txt"), 1, "problem 75 of 76 films of test_list.txt are there"),
        ("nih", absent("train_val_list.txt"), 0, "note    73 of 74 films of train_val_list.txt"),
        ("nih-6x200", absent("test_list.txt"), 1, "cells hold fewer images"),
        ("mimic", without("mimic-cxr/hosp/admissions.csv.gz"), 2, "admissions.csv.gz is not there"),
        ("mimic", cut("mimic-cxr/mimic-cxr-2.0.0-chexpert.csv.gz"), 2, "damaged or cut off"),
        ("mimic", cut("mimic-cxr/mimic-cxr-2.0.0-negbio.csv.gz"), 0, "damaged or cut off"),
    ],
)
def test_what_is_wrong_is_said_and_counted(copy, name, spoil, problems, words):
    spoil(copy)
    found, counted = lines(name)
    assert counted == problems
    assert any(words in line for line in found)
    assert any("where to get it" in line for line in found) == (problems > 0)


def test_a_folder_that_is_not_there_says_what_belongs_into_it(tmp_path):
    text, problems = check_data.report("nih-6x200", tmp_path / "nothing")
    assert problems == 1
    assert "does not exist" in text and nih.FETCH_NIH in text and nih.FETCH_NEATX in text


def test_all_data_sets_that_are_there(copy, monkeypatch):
    text, problems = check_data.report()
    assert problems == 0 and "\n\nmimic-cxr\n" in text
    shutil.rmtree(copy / "mimic-cxr")
    text, problems = check_data.report()
    assert problems == 0 and "\nmimic-cxr\n  note    not there; 'cxrbook check-data" in text
    shutil.rmtree(copy / "nih-cxr14")
    assert check_data.report()[1] == len(check_data.FETCH)
    monkeypatch.delenv("CXRBOOK_DATA")
    text, problems = check_data.report()
    assert (
        problems == len(check_data.FETCH) and "Set CXRBOOK_DATA" in text and nih.FETCH_NIH in text
    )


def test_the_real_table_has_the_counts_of_the_release(tmp_path):
    source = metadata.wheel_file("Data_Entry_2017_v2020.csv.gz")
    shutil.copy(source, tmp_path)
    found, problems = lines("nih", tmp_path)
    expected = "Data_Entry_2017_v2020.csv.gz: 112,120 images of 30,805 patients, as released"
    assert any(expected in line for line in found)
    assert problems == 1  # no lists


def test_unknown_names_are_answered():
    with pytest.raises(ValueError, match="unknown cohort 'nhi': did you mean 'nih'"):
        check_data.report("nhi")
    with pytest.raises(ValueError, match="'phantom' needs no files"):
        check_data.report("phantom")


# --- on the command line -------------------------------------------------------------------------


def test_the_exit_code_says_whether_something_is_missing(copy, cxrbook):
    good = cxrbook("check-data", "nih", cwd=copy)
    assert good.returncode == 0 and good.stderr == ""
    (copy / "nih-cxr14" / "test_list.txt").unlink()
    bad = cxrbook("check-data", "nih-cxr14", str(copy / "nih-cxr14"), cwd=copy)
    assert bad.returncode == 1 and "where to get it" in bad.stdout
    assert bad.stderr == "cxrbook: 1 problem, see above\n"


def test_the_list_of_a_draw_needs_no_data(tmp_path, monkeypatch, cxrbook):
    monkeypatch.delenv("CXRBOOK_DATA", raising=False)
    out = tmp_path / "names.txt"
    done = cxrbook("nih-6x200-list", "--seed", "4", "--out", str(out), cwd=tmp_path)
    assert done.returncode == 0
    drawn = nih6x200.draw(4)
    assert out.read_text().split() == drawn["image_id"].tolist()
    assert nih6x200.fingerprint(drawn) in done.stdout
    assert os.listdir(tmp_path) == ["names.txt"]
    with pytest.raises(BookError, match=r"cannot write .*x: Not a directory"):
        nih_6x200_list(4, out / "x")


def test_films_of_ones_own(tmp_path):
    (tmp_path / "cohort.csv").write_text(
        "image_id,patient_id,path,sex,age,view,Edema\na,1,a.png,F,50,PA,1\nb,1,b.png,F,51,PA,0\n"
    )
    Image.linear_gradient("L").save(tmp_path / "a.png")
    text, problems = check_data.report("own", tmp_path)
    assert "2 images of 1 patients" in text and "findings: Edema" in text
    assert "1 of 2 films of cohort.csv are there" in text and problems == 1


def test_the_columns_of_a_table_of_ones_own_are_all_told():
    told = check_data.FETCH["own"]
    assert [
        c for c in (*own.REQUIRED, *own.OPTIONAL) if f"{c} " not in f"{told} ".replace(",", " ")
    ] == []
