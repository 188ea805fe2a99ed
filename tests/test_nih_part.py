"""Some films of NIH ChestX-ray14: a cohort of what is there, and the sample of real films."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrlib import cohorts, guard
from cxrlib.cohorts import check_data, films, look, metadata, nih, nih6x200
from cxrlib.cohorts.files import DataError
from cxrlib.models import load_model
from tests import nih_tree

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "samples"
real = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no folder {SAMPLES}")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Checks of films are kept here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("CXRBOOK_DATA", raising=False)
        yield


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder for each archive, tables and NEATX; and what was planted."""
    root = tmp_path_factory.mktemp("data") / "nih-cxr14"
    options = {"n_images": 150, "per_cell": 2, "size": 32, "layout": "images_001"}
    return root, nih_tree.write(root, **options)["table"]


@pytest.fixture
def copy(tree, tmp_path):
    return Path(shutil.copytree(tree[0], tmp_path / "nih-cxr14"))


def archives(planted):
    """The archive of each film, from the folder in which it was written."""
    return planted["file"].str.extract(r"images_0*(\d+)/")[0].astype(int)


def without(root, *numbers):
    for number in numbers:
        shutil.rmtree(root / f"images_{number:03d}")


def flat(root, names, size=8):
    """A folder ``images`` with a film of its own for each name."""
    (root / "images").mkdir(parents=True)
    film = np.arange(size * size, dtype=np.uint8).reshape(size, size)
    for k, name in enumerate(names):
        Image.fromarray(np.roll(film, k)).save(root / "images" / name)


def test_each_film_belongs_to_the_archive_that_holds_it(tree):
    assert nih.archive_of(tree[1]["image_id"]).tolist() == archives(tree[1]).tolist()
    names = sorted(metadata.nih()["image_id"])
    every = nih.archive_of(names)
    assert np.bincount(every).tolist() == [0, 4_999, *[10_000] * 10, 7_121]
    assert (np.diff(every) >= 0).all() and nih.archive_of(["../x.png"]).tolist() == [0]


def test_films_of_absent_archives_are_counted_and_no_error(copy, tree):
    without(copy, 2, 7)
    planted = tree[1]
    of_test = planted["test"] & ~archives(planted).isin((2, 7))
    cohort = cohorts.load("nih", root=copy)
    assert cohort.name == "nih-cxr14-test, archives 1, 3, 4, 5, 6, 8, 9, 10, 11, 12 (part)"
    assert cohort.table["image_id"].tolist() == planted.loc[of_test, "image_id"].tolist()
    step = cohort.flow.iloc[1]
    assert step["step"].startswith("films that are there: archives 1, 3, 4, ")
    assert step["images"] == (~archives(planted).isin((2, 7))).sum()
    assert step["left_out"] == "not in the folder"


def test_one_archive_alone(copy, tree):
    without(copy, *(k for k in range(1, 13) if k != 3))
    cohort = cohorts.load("nih", root=copy, split="all")
    assert cohort.name == "nih-cxr14, archive 3 (part)"
    of_third = tree[1].loc[archives(tree[1]) == 3, "image_id"]
    assert cohort.table["image_id"].tolist() == of_third.tolist()


def test_what_is_missing_from_an_archive_that_is_there_is_damage(copy, tree):
    """Half of its films are there: the others were lost."""
    without(copy, 2, 7)
    of_third = tree[1][archives(tree[1]) == 3]
    lost = of_third.loc[of_third["test"], "file"].head(len(of_third) // 2)
    for file in lost:
        (copy / file).unlink()
    with pytest.raises(DataError, match=f"{len(lost)} of .* films cannot be read, .*not there"):
        cohorts.load("nih", root=copy)
    cohort = cohorts.load("nih", root=copy, max_broken=0.5)
    assert cohort.flow.iloc[-1]["left_out"] == f"absent: {len(lost)}, damaged: 0"


def test_broken_films_of_a_part_still_hit_the_limit(copy, tree):
    without(copy, 2, 7)
    rows = tree[1][tree[1]["test"] & (archives(tree[1]) == 5)]
    (copy / rows["file"].iloc[0]).write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of .* films cannot be read, more than the 1%"):
        cohorts.load("nih", root=copy)


def test_in_one_folder_most_of_an_archive_is_meant_to_be_all_of_it(tmp_path):
    """Of archive 1, 60 % of the films are there: the others were lost. Of archive 2, a few."""
    names = sorted(metadata.nih()["image_id"])
    there = names[:3_000] + names[4_999:5_009]
    (tmp_path / "images").mkdir()
    Image.linear_gradient("L").resize((8, 8)).save(tmp_path / "one.png")
    for name in there:
        os.link(tmp_path / "one.png", tmp_path / "images" / name)
    found = nih.on_disk(tmp_path, metadata.nih()["image_id"])
    assert found.what == "archive 1 and 10 films of others" and found.named == ", archive 1"
    assert found.absent.sum() == 112_120 - 4_999 - 10
    text, problems = check_data.report("nih", tmp_path)
    assert problems == 1 and "3,010 of 5,009 films of the table are there" in text


# --- a selection, without tables and lists -------------------------------------------------------


@pytest.fixture(scope="module")
def selection(tmp_path_factory):
    """120 films of real names in one folder, and nothing else."""
    root = tmp_path_factory.mktemp("selection") / "nih-cxr14"
    rows = metadata.nih().sample(120, random_state=0)
    flat(root, rows["image_id"])
    return root, rows


def test_a_selection_is_read_with_the_open_table(selection):
    root, rows = selection
    cohort = cohorts.load("nih", root=root)
    assert cohort.name == "nih-cxr14 (part)" and cohort.access == "open"
    expected = rows.set_index("image_id").loc[cohort.table["image_id"]]
    assert set(cohort.table["image_id"]) == set(rows["image_id"])
    for column in ("patient_id", "sex", "age", "view", *metadata.FINDINGS):
        assert cohort.table[column].tolist() == expected[column].tolist()
    steps = " | ".join(cohort.flow["step"])
    assert "of the torchxrayvision wheel | films that are there: a selection of 120, no" in steps
    assert "no official lists, the official split is not known: all films" in steps
    assert "split" not in cohort.table
    assert cohort.flow["images"].tolist() == [112_120, 120, 120, 120, 120]


def test_without_lists_parts_are_drawn_by_patients(selection):
    parts = {s: cohorts.load("nih", root=selection[0], split=s) for s in ("test", "train", "valid")}
    patients = [set(c.table["patient_id"]) for c in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients))
    assert sum(len(c.table) for c in parts.values()) == 120
    for name, cohort in parts.items():
        assert cohort.name == f"nih-cxr14-{name} (part)" and set(cohort.table["split"]) == {name}
        assert f"of the patients, drawn for {name}" in cohort.flow["step"].iloc[2]
        assert cohort.recipe["split_by"] == "patients"
    drawn = nih.drawn_split(metadata.nih().drop_duplicates("patient_id"))
    for part, share in {"test": 0.4, "train": 0.4, "valid": 0.2}.items():
        assert (drawn == part).mean() == pytest.approx(share, abs=0.01)


def test_validation_patients_are_set_aside_from_all_films(selection, monkeypatch, tmp_path):
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    (tmp_path / "nih-cxr14").symlink_to(selection[0])
    test = cohorts.study("nih", 100, 1907)
    valid, tested = cohorts.validation(test, "nih", 100, 1907)
    assert not set(valid.table["patient_id"]) & set(tested["patient_id"])
    assert len(valid.table) + len(tested) == len(test.table) == 120


def test_one_list_of_two_is_an_error(selection, tmp_path):
    root = Path(shutil.copytree(selection[0], tmp_path / "nih-cxr14"))
    (root / "test_list.txt").write_text(sorted(os.listdir(root / "images"))[0])
    with pytest.raises(DataError, match=r"has no train_val_list\.txt: get it at"):
        cohorts.load("nih", root=root)


def test_6x200_from_a_part_is_drawn_from_what_is_there_or_refused(selection, tree):
    with pytest.raises(DataError, match=r"nih-6x200: .* of the 1,200 films .* 120 films that are"):
        cohorts.load("nih-6x200", root=selection[0])
    released = nih.read(tree[0])[0]
    cells = nih6x200.cell_counts(released, per_cell=2).loc[list(nih6x200.DISEASES), "smallest"]
    assert cells.min() == 2  # the smallest tree that fills them
    assert len(cohorts.load("nih-6x200", root=tree[0], per_cell=2).flow) == 3


def test_check_data_says_which_chapters_the_films_are_enough_for(selection, tree):
    text, problems = check_data.report("nih", selection[0])
    assert problems == 0
    last = text.splitlines()[-1]
    assert "120 of 112,120 films: enough for chapters 1, 2, 4, 5, 7, " in last
    assert "no drains: chapters 6, 16 need NEATX; no 6x200: chapters 3, 15 need the films" in last
    assert check_data.lacking("nih", {"root": selection[0]}).keys() == {"drains", "balanced"}
    few = check_data.lacking("nih", {"root": tree[0], "per_cell": 2})
    assert "balanced" not in few
    assert check_data.lacking("phantom", {}) == {}


def test_the_numbers_of_chapters_are_those_that_ask_for_more():
    """What chapters.toml says of them stands in their code."""
    scripts = sorted((Path(__file__).parents[1] / "chapters").glob("[0-9]*.py"))
    code = {int(p.name[:2]): p.read_text() for p in scripts}
    asked = {n for n, text in code.items() if "cohorts.study(" in text}
    listed = [n for numbers in check_data.CHAPTERS.values() for n in numbers]
    assert set(listed) == asked and len(listed) == len(set(listed))
    balanced = {n for n, text in code.items() if "BALANCED" in text}
    assert set(check_data.CHAPTERS["balanced"]) == balanced
    drains = {n for n, text in code.items() if "drain_labels: str" in text}
    assert set(check_data.CHAPTERS["drains"]) == drains


def test_films_may_be_picked_from_archives_in_folders_of_their_own(copy, tree):
    """Few of each archive, in the folders as unpacked: a selection, as in one folder."""
    held = archives(tree[1])
    kept = tree[1][held.map(held.value_counts()) > 2].groupby(held).head(1)
    assert len(kept) > 2
    for file in set(tree[1]["file"]) - set(kept["file"]):
        (copy / file).unlink()
    cohort = cohorts.load("nih", root=copy, split="all")
    assert cohort.table["image_id"].tolist() == kept["image_id"].tolist()
    assert cohort.name == "nih-cxr14 (part)"
    assert check_data.report("nih", copy)[1] == int(not kept["test"].any())


def test_names_in_capitals_and_what_macos_leaves(selection, tmp_path):
    root = Path(shutil.copytree(selection[0], tmp_path / "nih-cxr14"))
    for film in sorted((root / "images").iterdir())[:20]:
        (root / "images" / f"._{film.name}").write_bytes(b"a resource fork")
        film.rename(film.with_suffix(".PNG"))
    cohort = cohorts.load("nih", root=root)
    assert len(cohort.table) == 120 and cohort.flow["left_out"].iloc[0] == ""
    assert cohort.fingerprint == cohorts.load("nih", root=selection[0]).fingerprint


@pytest.mark.parametrize(
    ("place", "suffix", "words"),
    [
        (".", ".png", r"There are 120 PNGs in .*: move them to .*images"),
        ("images_001", ".png", r"There are 120 PNGs in .*images_001: move them"),
        ("images/images", ".png", r"There are 120 PNGs in .*images/images: move them"),
        ("images", ".jpg", r"images holds other files, such as .*\.jpg: NIH's films are PNGs"),
    ],
)
def test_films_in_another_place_are_named(selection, tmp_path, place, suffix, words):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    for film in (selection[0] / "images").iterdir():
        os.link(film, folder / (film.stem + suffix))
    with pytest.raises(DataError, match=words):
        cohorts.load("nih", root=tmp_path)


def test_films_of_one_list_alone(copy, tree):
    """None of the test list is there: one line says so, and what to do."""
    for file in tree[1].loc[tree[1]["test"], "file"]:
        (copy / file).unlink()
    for archive in copy.glob("images_*"):
        of = tree[1][tree[1]["file"].str.startswith(archive.name)]
        if (~of["test"]).mean() >= nih.MEANT:  # what is lost of a whole archive is another matter
            shutil.rmtree(archive)
    with pytest.raises(DataError, match=r"none of its films is for 'test' \(test_list.txt\)"):
        cohorts.load("nih", root=copy)
    assert "no film of test_list.txt is there" in check_data.report("nih", copy)[0]
    assert "films" in check_data.lacking("nih", {"root": copy})


@pytest.mark.parametrize("which", ["one film", "women"])
def test_few_films_give_no_6x200_and_one_line(tmp_path, which):
    rows = metadata.nih()
    rows = rows.head(1) if which == "one film" else rows[rows["sex"] == "F"].head(60)
    flat(tmp_path, rows["image_id"])
    with pytest.raises(DataError, match=r"nih-6x200: .* do not fill its cells"):
        cohorts.load("nih-6x200", root=tmp_path)
    text, problems = check_data.report("nih", tmp_path)
    assert problems == 0 and "no 6x200: chapters 3, 15 need" in text


# --- real films ----------------------------------------------------------------------------------


@real
def test_the_thousand_real_films(tmp_path):
    (tmp_path / "images").symlink_to(SAMPLES / "nih_mini" / "images")
    cohort = cohorts.load("nih", root=tmp_path)
    assert (len(cohort.table), cohort.table["patient_id"].nunique()) == (1000, 682)
    assert cohort.table["Pneumonia"].sum() == 500
    assert cohort.table["Pneumothorax"].sum() == 12
    assert set(cohort.films["height"]) == {256} and (cohort.films["problem"] == "").all()
    assert "NIH Clinical Center" in cohort.credit and nih.FETCH_NIH in cohort.credit
    assert not guard.active()
    phantoms = cohorts.load("phantom", n_images=200, size=32)
    assert phantoms.credit == ""
    kinds = look.of_the_same_kind(cohort, phantoms)
    assert kinds[2] == ["woman PA", "woman AP", "man PA", "man AP"]
    for positions, of in zip(kinds[:2], (cohort, phantoms), strict=True):
        rows = of.table.iloc[positions]
        assert rows["sex"].tolist() == ["F", "F", "M", "M"]
        assert (rows[list(of.findings)].sum(axis=1) == 0).all()
    assert look.alike(cohort, 30) < look.alike(phantoms, 30)  # phantoms are of one mould


@real
@pytest.mark.parametrize("name", ["phantom-resnet", "seeded:clip_vit_b16"])
def test_originals_and_their_copies_of_256_pixels_have_the_same_embeddings(name):
    """Cosine distance of a film to its copy, beside that of different films.

    Over all 85 films it is 0.00006 at most (phantom-resnet) and 0.00005 (CLIP ViT-B/16 with
    computed weights), the trace of two reductions and of one more rounding to 8 bits. Two different
    films are 0.006 and 0.003 apart at least: the bound lies four times above the one and a factor
    of ten below the other.
    """
    files = sorted((SAMPLES / "nih_originals").iterdir())[::15]
    model = load_model(name).members[0]
    folders = (SAMPLES / "nih_originals", SAMPLES / "nih_mini" / "images")
    original, copied = (
        model.encode_image(model.preprocess([films.read(f / p.name) for p in files])).numpy()
        for f in folders
    )
    apart = 1 - original @ copied.T
    assert np.diag(apart).max() < 0.00025
    assert (apart.argmin(axis=1) == np.arange(len(files))).all()  # nearest to its own copy
