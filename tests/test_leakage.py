"""The leakage report finds what was planted, and what a comparison of all pairs finds."""

from dataclasses import replace

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib import cohorts, guard
from cxrlib.cohorts import films, leakage
from cxrlib.models.leaks import leaks


def brute_force(hashes, max_distance, column):
    """Any other image within the distance; one with another entry; by all pairs."""
    numbers = [None if h is None else int(h) for h in hashes]
    any_, other = [], []
    for i, a in enumerate(numbers):
        near = [
            j
            for j, b in enumerate(numbers)
            if j != i and a is not None and b is not None and bin(a ^ b).count("1") <= max_distance
        ]
        any_.append(bool(near))
        known = [column[j] for j in near if column[j] is not None]
        other.append(column[i] is not None and any(c != column[i] for c in known))
    return any_, other


@pytest.mark.parametrize("max_distance", [0, 1, 2, 5, 9])
def test_bands_find_what_all_pairs_find(max_distance):
    rng = np.random.default_rng(max_distance)
    # families of hashes a few bits apart, as chest films are; some missing
    parents = rng.integers(0, 2**64, 12, dtype=np.uint64)
    hashes = []
    for parent in rng.choice(parents, 220):
        flips = rng.choice(64, rng.integers(0, 8), replace=False)
        hashes.append(parent ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64)))
    hashes = [None if rng.random() < 0.05 else h for h in hashes]
    patient = [None if rng.random() < 0.05 else int(p) for p in rng.integers(0, 60, 220)]
    any_, other = brute_force(hashes, max_distance, patient)
    table = pd.DataFrame({"patient": pd.array(patient, dtype="Int64")})
    codes = pd.array([None if h is None else int(h) for h in hashes], dtype="UInt64")
    got = leakage.alike(pd.Series(codes), max_distance, table, ["patient"])
    assert got["any"].tolist() == any_
    assert got["patient"].tolist() == other
    assert 0 < sum(any_) < len(any_)  # both answers occur


def test_a_release_of_112120_films_takes_seconds():
    """Alike as chest films are: bits that are nearly always set, and a million close pairs."""
    rng = np.random.default_rng(0)
    n = 112_120
    share = np.clip(rng.beta(0.6, 0.6, 64), 0.03, 0.97)
    hashes = np.zeros(n, dtype=np.uint64)
    for bit, p in enumerate(share):
        hashes |= (rng.random(n) < p).astype(np.uint64) << np.uint64(bit)
    compared = 0
    for first, _ in leakage._close(np.unique(hashes), 2):
        compared += len(first)
    table = pd.DataFrame({"patient_id": rng.integers(0, 30_805, n)})
    got = leakage.alike(pd.Series(hashes, dtype="UInt64"), 2, table, ["patient_id"])
    assert 0 < got["any"].sum() < n
    assert compared < n  # of 6,285,391,140 pairs


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Twenty films of phantoms, then planted: a copy, a smaller JPEG, another patient's copy."""
    phantoms = cohorts.load("phantom", n_images=20, size=128)
    root = tmp_path_factory.mktemp("films")
    pictures = phantoms.images(np.arange(20))
    for i, film in enumerate(pictures):
        Image.fromarray(film).save(root / f"{i}.png")
    (root / "copy.png").write_bytes((root / "3.png").read_bytes())
    (root / "stranger.png").write_bytes((root / "5.png").read_bytes())
    Image.fromarray(pictures[7]).resize((96, 96)).save(root / "small.jpg", quality=85)
    names = [*(f"{i}.png" for i in range(20)), "copy.png", "stranger.png", "small.jpg"]
    rows = phantoms.table.loc[[*range(20), 3, 5, 7]].reset_index(drop=True)
    rows["image_id"] = names
    rows["patient_id"] = np.arange(23)
    rows.loc[20, "patient_id"] = 3  # the copy is of the same patient and split
    rows["split"] = "train"
    rows.loc[21, "split"] = "test"
    rows.loc[22, "split"] = "test"
    checked = films.check(root, names, root / "films.parquet")
    return replace(phantoms, name="made", table=rows, films=checked, sources=())


def test_planted_duplicates_are_found(planted):
    report = leakage.report(planted).set_index("check")
    assert report.loc["films with exact copies", "found"] == 4
    assert report.loc["films with exact copies of another patient", "found"] == 2
    assert report.loc["films with exact copies in another split", "found"] == 2
    # near-duplicates by all pairs, with imagehash's own distance
    hashes = [imagehash.hex_to_hash(h) for h in planted.films["phash"]]
    near = {
        (i, j) for i, a in enumerate(hashes) for j, b in enumerate(hashes) if i != j and a - b <= 2
    }
    assert {(3, 20), (5, 21), (7, 22)} <= near
    patient, split = planted.table["patient_id"], planted.table["split"]
    for where, expected in {
        "": {i for i, _ in near},
        " of another patient": {i for i, j in near if patient[i] != patient[j]},
        " in another split": {i for i, j in near if split[i] != split[j]},
    }.items():
        assert report.loc[f"films with near-duplicates{where}", "found"] == len(expected)
    assert (report["of"].dropna() <= 23).all()


def test_patients_over_splits_and_classes_by_hand():
    phantoms = cohorts.load("phantom", n_images=8)
    table = phantoms.table.assign(
        patient_id=[1, 1, 2, 2, 3, 3, 4, 5],
        split=["train", "test", "train", "train", "test", "test", "valid", "test"],
        disease=["Edema", "Edema", "Edema", "Mass", "Mass", "Mass", "Mass", "Edema"],
    )
    report = leakage.report(replace(phantoms, table=table)).set_index("check")
    row = report.loc["patients in several splits"]
    assert (row["found"], row["of"], row["share"]) == (1, 5, 0.2)
    row = report.loc["test images whose patient is in training"]
    assert (row["found"], row["of"]) == (1, 4)
    row = report.loc["patients in several classes"]
    assert (row["found"], row["of"]) == (1, 5)


def test_what_does_not_apply_says_why():
    cohort = cohorts.load("phantom", n_images=30)
    report = leakage.report(cohort, leaks(["phantom-resnet"], cohort)).set_index("check")
    assert report["found"].isna().all()
    notes = report["note"]
    assert (
        notes["patients in several splits"] == "not applicable: the cohort has images of test only"
    )
    assert "no classes" in notes["patients in several classes"]
    assert notes["films with exact copies"] == "not applicable: the films are drawn by a program"
    assert notes["pretraining of phantom-resnet"] == "trained on this source, on other patients"
    bare = leakage.report(cohorts.load("nih-metadata")).set_index("check")["note"]
    assert bare["films with near-duplicates"] == "not applicable: there are no films"
    assert bare["patients in several splits"] == "not applicable: the cohort has no splits"


def test_a_distance_beyond_the_hash_is_refused(planted):
    with pytest.raises(ValueError, match="max_distance: 64; expected 0 to 63"):
        leakage.report(planted, max_distance=64)


def test_report_on_credentialed_films_has_no_small_count(planted):
    report = leakage.report(replace(planted, access="credentialed")).set_index("check")
    assert not report["found"].between(1, 9).any()
    assert not (report["of"] - report["found"]).between(1, 9).any()
    row = report.loc["films with exact copies"]  # four of them
    assert pd.isna(row["found"]) and pd.isna(row["share"]) and row["note"] == guard.SUPPRESSED
    assert report.loc["patients in several splits", "found"] == 0
