"""Films of Hannover: by the recipe of its own, and as a table of one's own."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib import cohorts, guard
from cxrlib.cohorts import check_data, hannover
from cxrlib.cohorts.files import DataError

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "samples" / "hannover"
HEAD = "patient_id,image_id,sex,age,size,weight,admission_offset,modality,projection\n"
ROWS = [("p1", "a1", "m", "ap"), ("p1", "a2", "m", "pa"), ("p2", "b1", "f", "pa")]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Checks of films are kept here."""
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("CXRBOOK_DATA", raising=False)


@pytest.fixture
def root(tmp_path):
    """Three films of two patients, as the repository lays them out."""
    (tmp_path / "png").mkdir()
    lines = [f"{patient},{image},{sex},,,,0,CR,{view}\n" for patient, image, sex, view in ROWS]
    (tmp_path / "data.csv").write_text(HEAD + "".join(lines))
    for k, (_, image, *_) in enumerate(ROWS):
        film = np.roll(np.arange(12 * 10, dtype=np.uint8), k).reshape(12, 10)
        Image.fromarray(film).save(tmp_path / "png" / f"{image}.png")
    return tmp_path


def test_the_repository_as_distributed(root, monkeypatch):
    monkeypatch.setattr(hannover, "OFFICIAL", (3, 2))
    cohort = cohorts.load("hannover", root=root)
    table = cohort.table
    assert cohort.name == "hannover" and cohort.access == "open" and not guard.active()
    assert table["image_id"].tolist() == ["a1", "a2", "b1"]
    assert table["patient_id"].tolist() == ["p1", "p1", "p2"]
    assert table["sex"].tolist() == ["M", "M", "F"]
    assert table["view"].tolist() == ["AP", "PA", "PA"]
    assert table["age"].isna().all() and table["age_group"].isna().all()
    assert table["COVID-19"].tolist() == [1, 1, 1] and cohort.findings == ("COVID-19",)
    assert cohort.attributes == ("sex",)
    assert "CC BY 3.0" in cohort.credit and "10.6084/m9.figshare.12275009" in cohort.credit
    film = np.asarray(Image.open(root / "png" / "b1.png"))
    assert np.array_equal(cohort.images([2])[0], film)
    assert cohorts.load("hannover", root=root, n_images=1).name == "hannover (part)"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",m,", ",x,", "column 'sex' breaks the rule"),
        (",ap", ",front", "column 'view' breaks the rule"),
        ("p1,a2", "p1,a1", "1 rows repeat the image_id"),
        ("projection", "view", "column 'projection' is missing"),
    ],
)
def test_a_table_that_is_not_right(root, old, new, words):
    text = (root / "data.csv").read_text()
    (root / "data.csv").write_text(text.replace(old, new))
    with pytest.raises(DataError, match=words):
        cohorts.load("hannover", root=root)
    assert check_data.report("hannover", root)[1] == 1


def test_films_that_are_not_there(root):
    (root / "png" / "a1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 3 films cannot be read, .*a1\.png: not there"):
        cohorts.load("hannover", root=root)
    (root / "png" / "a2.png").unlink()  # one of three: a selection
    cohort = cohorts.load("hannover", root=root)
    assert cohort.name == "hannover (part)" and cohort.table["image_id"].tolist() == ["b1"]
    (root / "png" / "b1.png").unlink()
    with pytest.raises(DataError, match="has no films: expected PNGs in png/"):
        cohorts.load("hannover", root=root)
    text, problems = check_data.report("hannover", root)
    assert problems == 1 and "enough for" not in text
    (root / "data.csv").unlink()
    with pytest.raises(DataError, match=r"has no data\.csv: get the repository at https"):
        cohorts.load("hannover", root=root)


def test_check_data_says_what_only_ill_patients_mean(root):
    text, problems = check_data.report("hannover", root)
    assert problems == 0
    assert "COVID-19 in all of them, and no ages: enough for chapters 1, 5, 18, 19" in text
    assert check_data.lacking("hannover", {"root": root}).keys() == {"labels", "drains", "balanced"}


def own_table(data, films):
    """``cohort.csv`` from the table of the repository, as book/data.md shows it."""
    table = pd.read_csv(data / "data.csv").rename(columns={"projection": "view"})
    table["path"] = films + table["image_id"] + ".png"
    table["sex"] = table["sex"].str.upper()
    table["view"] = table["view"].str.upper()
    table["COVID-19"] = 1
    columns = ["image_id", "patient_id", "path", "sex", "age", "view", "COVID-19"]
    return table[columns]


def test_the_same_films_as_a_table_of_ones_own(root):
    own_table(root, "png/").to_csv(root / "cohort.csv", index=False)
    own = cohorts.load("own", root=root, access="open", sources=["COVID-19 Image Repository"])
    recipe = cohorts.load("hannover", root=root)
    columns = ["image_id", "patient_id", "sex", "age", "view", "COVID-19"]
    pd.testing.assert_frame_equal(own.table[columns], recipe.table[columns], check_dtype=False)
    assert own.films["sha256"].tolist() == recipe.films["sha256"].tolist()
    assert own.credit == recipe.credit


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"no folder {SAMPLE}")
def test_the_real_films(tmp_path):
    cohort = cohorts.load("hannover", root=SAMPLE)
    assert (len(cohort.table), cohort.table["patient_id"].nunique()) == (60, 29)
    assert cohort.name == "hannover (part)"
    assert cohort.table["sex"].value_counts().to_dict() == {"F": 30, "M": 30}
    assert cohort.table["view"].value_counts().to_dict() == {"AP": 35, "PA": 25}
    assert cohort.flow["images"].tolist() == [243, 60, 60]
    shutil.copytree(SAMPLE, tmp_path / "own")
    table = own_table(tmp_path / "own", "")
    there = table["path"].map(lambda p: (tmp_path / "own" / p).is_file())
    table[there].to_csv(tmp_path / "own" / "cohort.csv", index=False)
    own = cohorts.load("own", root=tmp_path / "own", access="open")
    assert sorted(own.table["image_id"]) == sorted(cohort.table["image_id"])
