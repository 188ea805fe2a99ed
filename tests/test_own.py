"""A cohort of one's own, from a table and films."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib import cohorts
from cxrlib.cohorts.files import DataError


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    rows = []
    for k in range(24):
        name = f"films/{k:02d}.png"
        Image.fromarray(rng.integers(0, 256, (30, 40), dtype=np.uint8)).save(tmp_path / name)
        rows.append(
            {
                "image_id": f"film {k}",
                "patient_id": f"{k // 2:04d}",
                "path": name,
                "sex": "FM"[k % 2],
                "age": 10 + 3 * k,
                "view": "PA",
                "split": "test" if k < 16 else "train",
                "Pneumothorax": k % 3 == 0,
                "Edema": k % 4 == 0,
                "ward": k,
            }
        )
    table = pd.DataFrame(rows).astype({"Pneumothorax": int, "Edema": int})
    table.to_csv(tmp_path / "cohort.csv", index=False)
    return tmp_path


def change(root, edit):
    table = pd.read_csv(root / "cohort.csv", dtype={"patient_id": str})
    edit(table).to_csv(root / "cohort.csv", index=False)


def test_films_of_ones_own(root):
    cohort = cohorts.load("own", root=root, split="test", access="open")
    assert cohort.findings == ("Pneumothorax", "Edema")
    assert len(cohort.table) == 16 and cohort.table["patient_id"][0] == "0000"
    assert cohort.table["age_group"].isna().sum() == 3  # 10, 13 and 16 years
    assert cohort.flow["images"].tolist() == [24, 16, 16]
    film = np.asarray(Image.open(root / "films" / "05.png"))
    assert np.array_equal(cohort.images([5])[0], film)


def test_the_fingerprint_knows_the_films_and_not_the_folder(root, tmp_path_factory):
    def fingerprint(folder):
        return cohorts.load("own", root=folder, access="open", max_broken=1).fingerprint

    before = fingerprint(root)
    change(root, lambda t: t.sample(frac=1, random_state=1))
    assert fingerprint(root) == before
    moved = root.rename(tmp_path_factory.mktemp("elsewhere") / "own")
    assert fingerprint(moved) == before
    Image.linear_gradient("L").save(moved / "films" / "00.png")
    assert fingerprint(moved) != before


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda t: t.drop(columns="view"), "column 'view' is missing"),
        (lambda t: t.assign(sex="female"), "column 'sex' breaks the rule .* in 24 of 24 rows"),
        (lambda t: t.assign(age=412), "column 'age' breaks the rule"),
        (lambda t: t.assign(image_id="a"), "23 rows repeat the image_id"),
        (lambda t: t.assign(Edema=2, Pneumothorax=-1), "columns of 0 and 1"),
        (lambda t: t.assign(path="films/none.png"), "24 of 24 films cannot be read"),
        (lambda t: t.assign(path="../x.png"), "leads out of the data folder"),
    ],
)
def test_a_table_that_is_not_right(root, edit, words):
    change(root, edit)
    with pytest.raises(DataError, match=words):
        cohorts.load("own", root=root, access="open")


def test_findings_by_name(root):
    cohort = cohorts.load("own", root=root, access="open", findings=["Edema"])
    assert cohort.findings == ("Edema",)
    with pytest.raises(DataError, match="not so: ward"):
        cohorts.load("own", root=root, access="open", findings=["Edema", "ward"])
    with pytest.raises(ValueError, match="expected one of credentialed, open"):
        cohorts.load("own", root=root, access="public")


def test_the_balanced_recipe_on_films_of_ones_own(root):
    change(root, lambda t: t.assign(Edema=1 - t["Pneumothorax"]))
    options = {"root": root, "access": "open", "labels": ["Edema"], "border": 40}
    cohort = cohorts.load("own-balanced", per_cell=3, **options)
    cells = cohort.table.groupby(["disease", "age40", "sex"]).size()
    assert len(cells) == 4 and set(cells) == {3}
    assert set(cohort.table["split"]) == {"train", "valid", "test"}
    film = cohort.images([4])[0]
    expected = Image.open(root / "films" / f"{int(cohort.table['image_id'][4].split()[1]):02d}.png")
    assert np.array_equal(film, np.asarray(expected))
    with pytest.raises(DataError, match="cells hold fewer images"):
        cohorts.load("own-balanced", **options)


def test_nothing_of_guarded_films_is_written_into_a_repository(root, monkeypatch):
    monkeypatch.delenv("CXRBOOK_DATA", raising=False)
    (root / ".git").mkdir()
    with pytest.raises(DataError, match="inside a git working tree"):
        cohorts.load("own", root=root)
    assert not (root / "derived").exists()
    assert len(cohorts.load("own", root=root, access="open").table) == 24
