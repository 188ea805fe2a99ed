"""NIH ChestX-ray14 from a folder: what was planted comes back, and what is wrong is refused."""

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib import cohorts
from cxrlib.cohorts import films, metadata, nih, nih6x200
from cxrlib.cohorts.files import DataError
from cxrlib.models.images import stored_by_s
from tests import nih_tree

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples" / "nih"
SMALL = {"n_images": 150, "per_cell": 2, "size": 32}
OLD = nih_tree.TABLE_2017


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Checks of films are kept here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("CXRBOOK_CACHE", str(folder))
        patch.delenv("CXRBOOK_DATA", raising=False)
        yield folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """One folder, table of 2017, NEATX; and what was planted. Tests that change it take a copy."""
    root = tmp_path_factory.mktemp("data") / "nih-cxr14"
    return root, nih_tree.write(root, **SMALL)["table"]


@pytest.fixture
def copy(tree, tmp_path):
    return Path(shutil.copytree(tree[0], tmp_path / "nih-cxr14"))


def of_test(planted):
    return planted[planted["test"]].reset_index(drop=True)


def edit(path, old, new):
    """Replace the first occurrence in a text file."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- what was planted comes back ---------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layout": "images_001", "table": nih_tree.TABLE_2020},
        {"table": nih_tree.TABLE_2020, "sex_column": "Patient Sex", "neatx": False},
    ],
)
def test_the_test_list_as_planted(tmp_path, options):
    planted = of_test(nih_tree.write(tmp_path, **SMALL, **options)["table"])
    cohort = cohorts.load("nih", root=tmp_path)
    table = cohort.table
    for column in ("image_id", "patient_id", "sex", "view", *metadata.FINDINGS):
        assert table[column].tolist() == planted[column].tolist()
    possible = planted["age"] <= 120
    assert possible.all() == ("table" in options)
    assert table["age"].isna().tolist() == (~possible).tolist()
    assert table.loc[possible, "age"].tolist() == planted.loc[possible, "age"].tolist()
    assert table.loc[~possible, "age_group"].isna().all()
    assert (table["split"] == "test").all()
    if options.get("neatx", True):
        np.testing.assert_array_equal(table["drain"], planted["annotated"])
        known = planted["annotated"].notna()
        assert table["drain_source"].tolist() == np.where(known, "annotated", "").tolist()
    else:
        assert "drain" not in table
    assert planted["rgba"].any()
    for film, row in zip(cohort.images(range(len(planted))), planted.itertuples(), strict=True):
        stored = np.asarray(Image.open(tmp_path / row.file))
        assert stored.ndim == (3 if row.rgba else 2)
        np.testing.assert_array_equal(film, stored[..., 0] if row.rgba else stored)


def test_ages_of_2017_in_months_and_days_are_years(tree):
    table = cohorts.load("nih", root=tree[0]).table
    planted = of_test(tree[1])
    assert tree[1]["age"].eq(412).sum() == 2
    assert (table.loc[planted["age"] == 0, "age"] == 0).sum() == 2


def test_impossible_ages_and_what_neatx_knows_beside_nih_are_in_the_flow(tree):
    flow = cohorts.load("nih", root=tree[0]).flow
    planted = of_test(tree[1])
    assert flow["images"].tolist() == [150, *[len(planted)] * 4]
    assert flow["patients"].iloc[-1] == planted["patient_id"].nunique()
    steps = " | ".join(flow["step"])
    assert "age above 120 set to missing in 2 images" in steps
    known = planted["annotated"].notna().sum()
    assert f"drain known for {known} of {len(planted)} images; unknown to NIH: 2 of" in steps


def test_parts_are_of_different_patients_and_make_the_whole(tree):
    parts = {s: cohorts.load("nih", root=tree[0], split=s) for s in ("test", "train", "valid")}
    whole = cohorts.load("nih", root=tree[0], split="all")
    assert whole.fingerprint == cohorts.load("nih", root=tree[0], split=None).fingerprint
    ids = [set(c.table["patient_id"]) for c in parts.values()]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    joined = pd.concat([c.table for c in parts.values()])
    assert sorted(joined["image_id"]) == whole.table["image_id"].tolist()
    assert set(parts["test"].table["image_id"]) == set(of_test(tree[1])["image_id"])


def test_which_patients_are_for_validation_is_fixed(tmp_path):
    """On the 30,805 real patients; the first of them by name, so that no release moves them."""
    rows = metadata.nih()[["image_id", "patient_id"]].drop_duplicates("patient_id")
    (tmp_path / "test_list.txt").write_text(rows["image_id"].iloc[-1])
    (tmp_path / "train_val_list.txt").write_text("\n".join(rows["image_id"].iloc[:-1]))
    valid = nih.official_split(tmp_path, rows) == "valid"
    assert valid.mean() == pytest.approx(0.1, abs=0.005)
    assert rows.loc[valid, "patient_id"].tolist()[:5] == [7, 17, 32, 37, 41]


def test_a_cohort_is_a_part_until_it_has_the_official_counts(copy, tree, monkeypatch):
    assert cohorts.load("nih", root=copy).name == "nih-cxr14-test (part)"
    counts = lambda rows: (len(rows), rows["patient_id"].nunique())  # noqa: E731
    of = {None: tree[1], "test": of_test(tree[1]), "train_val": tree[1][~tree[1]["test"]]}
    monkeypatch.setattr(nih, "OFFICIAL", {key: counts(rows) for key, rows in of.items()})
    names = {"test": "nih-cxr14-test", "valid": "nih-cxr14-valid", None: "nih-cxr14"}
    for split, name in names.items():
        assert cohorts.load("nih", root=copy, split=split).name == name
    assert cohorts.load("nih", root=copy, n_images=20).name == "nih-cxr14-test (part)"
    (copy / of_test(tree[1])["file"].iloc[0]).unlink()
    assert cohorts.load("nih", root=copy, max_broken=0.1).name == "nih-cxr14-test (part)"


def test_films_as_paper_s_stored_them_are_another_cohort(tree):
    plain = cohorts.load("nih", root=tree[0])
    stored = cohorts.load("nih", root=tree[0], preprocessing="paper S")
    before, after = plain.images([3])[0], stored.images([3])[0]
    np.testing.assert_array_equal(after, stored_by_s(before))
    assert after.shape == (224, 224)
    assert plain.fingerprint != stored.fingerprint
    pd.testing.assert_frame_equal(plain.table, stored.table)


def test_some_images_are_drawn_by_patients(tree):
    whole = cohorts.load("nih", root=tree[0]).table
    drawn = cohorts.load("nih", root=tree[0], n_images=30).table
    assert len(drawn) == 30
    patients = drawn["patient_id"].unique()
    there = whole[whole["patient_id"].isin(patients)]
    cut = there.groupby("patient_id").size() - drawn.groupby("patient_id").size()
    assert (cut > 0).sum() <= 1  # the last patient alone may be incomplete
    other = cohorts.load("nih", root=tree[0], n_images=30, seed=2).table
    assert set(other["patient_id"]) != set(patients)


def test_the_fingerprint_is_of_the_content_not_of_the_place(tree, copy):
    before = cohorts.load("nih", root=tree[0])
    assert cohorts.load("nih", root=copy).fingerprint == before.fingerprint
    assert str(tree[0]) not in str(before.recipe)
    Image.linear_gradient("L").save(copy / of_test(tree[1])["file"].iloc[5])
    assert cohorts.load("nih", root=copy).fingerprint != before.fingerprint


def test_neatx_may_lie_in_a_folder_of_its_own(copy, tmp_path, monkeypatch):
    (tmp_path / "neatx").mkdir()
    shutil.move(copy / nih.NEATX, tmp_path / "neatx")
    assert "drain" not in cohorts.load("nih", root=copy).table
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    assert cohorts.load("nih").table["drain"].notna().any()


def test_minus_one_in_neatx_is_not_annotated(copy, tree):
    first = of_test(tree[1]).dropna(subset="annotated").iloc[0]
    line = f",{first['image_id']},{int(first['annotated'])},"
    edit(copy / nih.NEATX, line, f",{first['image_id']},-1,")
    row = cohorts.load("nih", root=copy).table.set_index("image_id").loc[first["image_id"]]
    assert np.isnan(row["drain"]) and row["drain_source"] == ""


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no folder {SAMPLES}")
@pytest.mark.parametrize("name", ["00000001_000.png", "00027426_000.png"])
def test_real_films_are_read(name):
    film = films.read(SAMPLES / name)
    assert film.shape == (512, 512) and film.dtype == np.uint8
    assert film.std() > 30


# --- NIH 6x200 -----------------------------------------------------------------------------------


def test_6x200_from_the_table_of_the_folder(tree):
    cohort = cohorts.load("nih-6x200", root=tree[0], per_cell=2)
    expected = nih6x200.draw(1907, "patient", nih.read(tree[0])[0], per_cell=2)
    assert cohort.table["image_id"].tolist() == expected["image_id"].tolist()
    assert cohort.table["disease"].value_counts().to_dict() == dict.fromkeys(nih6x200.DISEASES, 8)
    assert cohort.table.groupby("patient_id")["split"].nunique().max() == 1
    assert cohort.name == "nih-6x200 (part)"
    by_image = cohorts.load("nih-6x200", root=tree[0], per_cell=2, split="image")
    assert by_image.table["split"].value_counts().to_dict() == {"train": 34, "test": 10, "valid": 4}


def test_6x200_needs_its_1200_films_and_no_table(tmp_path):
    names, about = nih.list_6x200(seed=3)
    assert len(names) == len(set(names)) == 1200
    assert "seed 3" in about and "wheel" in about
    Image.linear_gradient("L").resize((8, 8)).save(tmp_path / "one.png")
    (tmp_path / "images").mkdir()
    for name in names:
        os.link(tmp_path / "one.png", tmp_path / "images" / name)
    cohort = cohorts.load("nih-6x200", root=tmp_path, seed=3)
    assert cohort.name == "nih-6x200"
    assert cohort.table["image_id"].tolist() == names
    for name in names[:13]:
        (tmp_path / "images" / name).unlink()
    with pytest.raises(DataError, match="13 of 1200 films cannot be read"):
        cohorts.load("nih-6x200", root=tmp_path, seed=3)


# --- what is wrong is refused --------------------------------------------------------------------


def no_column(root, planted):
    edit(root / OLD, "Patient Age", "Age")


def semicolons(root, planted):
    (root / OLD).write_text((root / OLD).read_text().replace(",", ";"))


def cut_gzip(root, planted):
    data = gzip.compress((root / OLD).read_bytes())
    (root / OLD).unlink()
    (root / f"{OLD}.gz").write_bytes(data[: len(data) // 2])


def no_table(root, planted):
    (root / OLD).unlink()
    shutil.rmtree(root / "images")


def twice(root, planted):
    with open(root / OLD, "a") as file:
        file.write((root / OLD).read_text().splitlines()[3] + "\n")


def unknown_finding(root, planted):
    edit(root / OLD, "|Edema", "|Oedema")


def no_finding(root, planted):
    edit(root / OLD, "No Finding", "")


def strange_age(root, planted):
    edit(root / OLD, "006M", "6 m")


def no_list(root, planted):
    (root / "train_val_list.txt").unlink()


def empty_list(root, planted):
    (root / "test_list.txt").write_text("\n")


def list_of_strangers(root, planted):
    with open(root / "test_list.txt", "a") as file:
        file.write("\n00039999_000.png")


def again_in_list(root, planted):
    text = (root / "test_list.txt").read_text()
    (root / "test_list.txt").write_text(text + "\n" + text.split()[0])


def patient_in_both(root, planted):
    several = planted[planted["test"] & planted["patient_id"].duplicated()].iloc[0]
    text = (root / "test_list.txt").read_text().split()
    text.remove(several["image_id"])
    (root / "test_list.txt").write_text("\n".join(text))
    with open(root / "train_val_list.txt", "a") as file:
        file.write("\n" + several["image_id"])


def no_films(root, planted):
    shutil.rmtree(root / "images")


def film_twice(root, planted):
    (root / "images_001" / "images").mkdir(parents=True)
    shutil.copy(root / planted["file"].iloc[0], root / "images_001" / "images")


def empty_films(root, planted):
    for file in of_test(planted)["file"].iloc[:3]:
        (root / file).write_bytes(b"")


def cut_films(root, planted):
    for file in of_test(planted)["file"].iloc[:3]:
        (root / file).write_bytes((root / file).read_bytes()[:200])


def absent_films(root, planted):
    for file in of_test(planted)["file"].iloc[:3]:
        (root / file).unlink()


def link_out(root, planted):
    file = root / of_test(planted)["file"].iloc[0]
    shutil.move(file, root.parent / "elsewhere.png")
    file.symlink_to(root.parent / "elsewhere.png")


def folder_out(root, planted):
    shutil.move(root / "images", root.parent / "elsewhere")
    (root / "images_001").mkdir()
    (root / "images_001" / "images").symlink_to(root.parent / "elsewhere")


def name_out(root, planted):
    shutil.move(root / of_test(planted)["file"].iloc[0], root.parent / "secret.png")
    for name in (OLD, "test_list.txt"):
        edit(root / name, of_test(planted)["image_id"].iloc[0], "../../secret.png")


def drain_of_two(root, planted):
    edit(root / nih.NEATX, ".png,1,", ".png,2,")


def drain_twice(root, planted):
    with open(root / nih.NEATX, "a") as file:
        file.write((root / nih.NEATX).read_text().splitlines()[1] + "\n")


def no_drain(root, planted):
    edit(root / nih.NEATX, ",Drain,", ",Tube,")


BAD = {
    no_column: "column 'Patient Age' is missing",
    semicolons: "semicolons",
    cut_gzip: r"Data_Entry_2017\.csv\.gz: damaged or cut off",
    no_table: r"has no Data_Entry_2017\*\.csv and no folder of films: get it at https://nihcc",
    twice: "1 rows repeat the image_id",
    unknown_finding: "'Finding Labels' holds 'Oedema'",
    no_finding: r"'Finding Labels' is empty in line \d+",
    strange_age: "'Patient Age' has '6 m' in line",
    no_list: r"has no train_val_list\.txt: get it at",
    empty_list: r"test_list\.txt: is empty",
    list_of_strangers: "names 1 images unknown to the table, such as '00039999_000.png'",
    again_in_list: "names 1 images again",
    patient_in_both: r"1 patients are in both test_list\.txt and train_val_list\.txt",
    no_films: "has no films: expected PNGs in images/",
    film_twice: "is also there as images/",
    empty_films: "3 of 76 films cannot be read, .*the file is empty",
    cut_films: "3 of 76 films cannot be read, .*damaged or cut off",
    absent_films: "3 of 76 films cannot be read, .*not there",
    link_out: "leads out of the data folder",
    folder_out: "leads out of the data folder",
    name_out: "leads out of the data folder",
    drain_of_two: "'Drain' has 2 in line",
    drain_twice: "1 rows repeat the image_id",
    no_drain: "column 'Drain' is missing",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_what_is_wrong_is_one_message_and_nothing_is_written(copy, tree, cache, spoil):
    spoil(copy, tree[1])
    before = sorted(copy.parent.rglob("*"))
    with pytest.raises(DataError, match=BAD[spoil]) as caught:
        cohorts.load("nih", root=copy)
    assert "\n" not in str(caught.value)
    assert sorted(copy.parent.rglob("*")) == before


def test_films_of_another_disk_linked_from_the_folder(copy, tree):
    shutil.move(copy / "images", copy.parent / "elsewhere")
    (copy / "images").symlink_to(copy.parent / "elsewhere")
    assert len(cohorts.load("nih", root=copy).table) == len(of_test(tree[1]))


def test_the_folder_above_or_below_is_named(tree):
    root = tree[0]
    for wrong in (root.parent, root / "images"):  # neither holds a folder of films
        with pytest.raises(DataError, match=f"{root} has one: pass that folder"):
            cohorts.load("nih", root=wrong)


def test_broken_films_are_left_out_up_to_a_stated_share(copy, tree):
    empty_films(copy, tree[1])
    last = of_test(tree[1])["file"].iloc[-1]
    (copy / last).unlink()
    cohort = cohorts.load("nih", root=copy, max_broken=0.06)
    assert cohort.table["image_id"].tolist() == of_test(tree[1])["image_id"].tolist()[3:-1]
    assert cohort.flow.iloc[-1]["left_out"] == "absent: 1, damaged: 3"
    assert len(cohort.films) == len(cohort.table) and (cohort.films["problem"] == "").all()


def test_films_that_the_table_does_not_list_are_counted(copy, tree):
    shutil.copy(copy / tree[1]["file"].iloc[0], copy / "images" / "00039999_000.png")
    cohort = cohorts.load("nih", root=copy)
    assert cohort.flow.iloc[0]["left_out"] == "1 films on disk that it does not list"
    assert "00039999_000.png" not in set(cohort.table["image_id"])


def test_a_byte_order_mark_is_accepted(copy, tree):
    before = cohorts.load("nih", root=tree[0]).fingerprint
    for name in (OLD, "test_list.txt", nih.NEATX):
        (copy / name).write_bytes(b"\xef\xbb\xbf" + (copy / name).read_bytes())
    assert cohorts.load("nih", root=copy).fingerprint == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "validate"}, "split='validate': expected one of test, train, valid, None"),
        ({"preprocessing": "S"}, "preprocessing='S'"),
        ({"n_images": 0}, "n_images=0: expected 1 to 76"),
        ({"spilt": "test"}, "has no option 'spilt'"),
    ],
)
def test_wrong_options_are_named(tree, options, words):
    with pytest.raises(ValueError, match=words):
        cohorts.load("nih", root=tree[0], **options)
