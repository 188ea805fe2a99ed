"""A cohort of one's own, from a table and films."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib import cohorts
from cxrlib.cohorts import check_data, own
from cxrlib.cohorts.files import DataError
from cxrlib.show.notebook import asked
from tests.conftest import at


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


@pytest.mark.parametrize(
    "edit, words",
    [
        (at(5, "Edema", "yes"), r"not so: Edema \(line 7\)"),
        (lambda t: t.assign(Edema="no"), r"not so: Edema \(lines 2, 3, 4, \.\.\.\)"),
        (lambda t: t.assign(Edema=np.nan), r"not so: Edema \(empty"),
        (lambda t: t.rename(columns={"Edema": "edema"}).assign(edema="x"), "not so: edema"),
        (lambda t: t[[*[*t][:-3], "ward"]], r"not so: ward \(lines 4, 5, 6, \.\.\.\)"),
        (at(3, "age", "old"), "'age': expected years such as 45, or 045Y.*; line 5$"),
        (at(3, "age", 130), r"'age' breaks the rule .* in 1 of 24 rows of .*cohort\.csv, line 5$"),
        (at(3, "age", -4), "'age': expected years .*; line 5$"),
        (at(9, "sex", "W"), r"'sex' breaks .* in 1 of 24 rows of .*cohort\.csv, line 11$"),
        (at(0, "view", "frontal"), "'view' breaks the rule .* line 2$"),
        (at(0, "split", "validate"), "'split' breaks the rule .* line 2$"),
        (
            lambda t: t.assign(race="white"),
            "'race' breaks the rule .* in 24 of 24 rows .* lines 2, 3",
        ),
        (lambda t: t.assign(drain="yes"), "'drain': expected 1, 0 or nothing; lines 2, 3, 4"),
        (at(4, "path", ""), "'path' is empty in line 6$"),
        (at(4, "patient_id", None), "'patient_id' is empty in line 6$"),
        (at(4, "image_id", "film 3"), r"1 rows repeat the image_id .* \(line 6\)"),
        (lambda t: t.rename(columns={"ward": " Edema"}), "two columns are called 'Edema'"),
        (lambda t: t.head(0), "no row below the names"),
    ],
)
def test_entries_that_are_not_right(root, edit, words):
    """The builder and check-data refuse them in the same words: column and lines, no entry."""
    change(root, edit)
    with pytest.raises(DataError, match=words) as caught:
        cohorts.load("own", root=root, access="open")
    text, problems = check_data.report("own", root)
    assert problems == 1 and f"problem {caught.value}\n" in text
    assert "\n" not in str(caught.value) and "cohort.csv" in str(caught.value)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda text: text.encode("utf-16"), "not UTF-8 text; save it as CSV"),
        (lambda text: text.replace("film", "fi\xe9m").encode("latin-1"), "not UTF-8 text"),
        (lambda text: b"", "the file is empty"),
        (lambda text: b"\n\n", "the file is empty"),
        (lambda text: text.replace(",", ";").encode(), "separated by semicolons"),
        (lambda text: text.replace(",", "\t").encode(), "separated by tabs"),
        (lambda text: text[:-12].encode(), r"line 25: more or fewer entries than the 10 names"),
        (lambda text: text.replace("0004,", "0004,,").encode(), "cut off .lines 10, 11: more"),
        (lambda text: b"PK\x03\x04" + bytes(range(256)), "not UTF-8 text"),
    ],
)
def test_tables_that_cannot_be_read(root, spoil, words):
    path = root / "cohort.csv"
    path.write_bytes(spoil(path.read_text()))
    for look in (own.read, lambda root: cohorts.load("own", root=root)):
        with pytest.raises(DataError, match=f"cohort.csv: .*({words})"):
            look(root)
    assert check_data.report("own", root)[1] == 1
    path.rename(root / "cohort.csv.gz")  # and named as if it were compressed
    with pytest.raises(DataError, match=r"cohort\.csv\.gz: (damaged|the file is empty)"):
        own.read(root)


@pytest.mark.parametrize(
    ("policy", "value", "present"),
    [
        ("as_published", -1, 0),
        ("uncertain_positive", -1, 1),
        ("certain", -1, None),
        ("as_published", None, 0),
        ("uncertain_positive", "NA", 0),
        ("certain", "", 0),
        ("stated", None, None),
        ("stated", -1, None),
    ],
)
def test_labels_that_are_open_follow_the_policy(root, policy, value, present):
    change(root, at(4, "Edema", value))
    cohort = cohorts.load("own", root=root, access="open", policy=policy)
    table = cohort.table.set_index("image_id")
    assert cohort.findings == ("Pneumothorax", "Edema")
    assert present == (table["Edema"].get("film 4"))
    assert (table["Edema"].drop("film 4", errors="ignore") == expected_edema(table)).all()
    assert cohort.flow["step"].str.contains("not decided for some images .*: Edema").any()
    text, problems = check_data.report("own", root)
    assert problems == 0 and "Edema: 1 or 0 for all but fewer than 10 of 24 images; -1 or" in text
    assert "in line 6, which the option 'policy' decides" in text


def expected_edema(table):
    """What `root` has written, for all films but that of line 6."""
    ids = table.index.drop("film 4", errors="ignore")
    return ids.str.split().str[1].astype(int) % 4 == 0


@pytest.mark.parametrize("written", [("True", "False"), ("1.0", "0.0"), (" 1", "0 ")])
def test_ways_to_write_a_label(root, written):
    before = cohorts.load("own", root=root, access="open").table["Edema"]
    change(root, lambda t: t.assign(Edema=np.where(t["Edema"] == 1, *written)))
    assert cohorts.load("own", root=root, access="open").table["Edema"].equals(before)


def test_ages_as_dicom_writes_them(root):
    texts = ["045Y", "006M", "018M", "013D", "052W", "45", "45.5", "", "NA", "007Y"]
    ages = [45, 0, 1, 0, 1, 45, 45.5, np.nan, np.nan, 7]
    change(root, lambda t: t.assign(age=(texts * 3)[: len(t)]))
    found = cohorts.load("own", root=root, access="open").table
    np.testing.assert_array_equal(found["age"], (ages * 3)[:24])
    assert found["age_group"][:2].tolist() == ["25-50", None] or pd.isna(found["age_group"][1])


def test_what_is_left_out_is_said(root):
    change(root, lambda t: t.assign(**{"Lung Lesion": t["Edema"].map({0: "n", 1: "y"}), "": 1}))
    cohort = cohorts.load("own", root=root, access="open")
    assert (
        cohort.flow["step"][0]
        == "cohort.csv; no findings, left out: ward, Lung Lesion, (column 12)"
    )
    text, problems = check_data.report("own", root)
    assert problems == 0
    for words in ("'ward' is no finding", "'Lung Lesion' is no finding", "(lines 2, 3, 4, ...)"):
        assert words in text
    assert (
        "no column Atelectasis, Cardiomegaly, Consolidation, Pleural Effusion, Pneumonia;" in text
    )


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
    with pytest.raises(DataError, match=r"F: 3 of 50.* per_cell=3 or less"):
        cohorts.load("own-balanced", **options)
    options["access"] = "credentialed"
    with pytest.raises(DataError, match=r"F: fewer than 10 of 50.* pass a smaller per_cell"):
        cohorts.load("own-balanced", **options)
    del options["labels"]  # of the six of X, those that the table has
    with pytest.raises(DataError, match=r"of 8 cells .*Edema.*Pneumothorax"):
        cohorts.load("own-balanced", **options)


def test_a_split_that_nobody_is_in(root):
    with pytest.raises(DataError, match="no row has 'valid' in the column 'split'"):
        cohorts.load("own", root=root, split="valid")
    change(root, lambda t: t.drop(columns="split"))
    flow = cohorts.load("own", root=root, split="valid", access="open").flow
    assert "no column 'split': all images, not those of 'valid'" in flow["step"].tolist()


def test_a_chapter_says_which_findings_a_cohort_lacks(capsys):
    assert asked("own", ["Edema", "Hernia"], ["Edema"]) == ("Edema",)
    assert capsys.readouterr().out == ""
    assert asked("own", ["Edema", "Hernia"], ["Mass", "Edema", "Nodule"]) == ("Edema",)
    assert "cohort own has no labels of Mass, Nodule" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"'own' has no labels of Mass, and this .* it has Edema$"):
        asked("own", ["Edema", "Edema"], ["Mass"])
    with pytest.raises(ValueError, match="no labels of Mass"):
        asked("own", ["Edema"], ["Mass", "Edema"], least=2)


def test_nothing_of_guarded_films_is_written_into_a_repository(root, monkeypatch):
    monkeypatch.delenv("CXRBOOK_DATA", raising=False)
    (root / ".git").mkdir()
    with pytest.raises(DataError, match="inside a git working tree"):
        cohorts.load("own", root=root)
    assert not (root / "derived").exists()
    assert len(cohorts.load("own", root=root, access="open").table) == 24
