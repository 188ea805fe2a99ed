"""A folder of NIH ChestX-ray14 as distributed, with made-up pixels: phantoms on real public rows.

Run by hand: python tests/nih_tree.py FOLDER [N_IMAGES]
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib import cohorts
from cxrlib.cohorts import metadata, nih6x200, phantom

TABLE_2017, TABLE_2020 = "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"
NEATX = "NIH-CX14_TubeAnnotations_NonExperts_aggregated.csv"
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{sex},View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
DIALS = {"prevalence": 0.2}  # so that few images have enough of each finding
TEST_SHARE = 0.75  # of the images beside the small 6x200
RGBA_EVERY = 40
ODD_AGES = ("006M", "013D", "412Y", "412Y")  # of the first test images, in the release of 2017
STRANGERS = ("00039999_000.png", "00039999_001.png")  # in NEATX, unknown to NIH
ARCHIVES = [4_999] + 10 * [10_000] + [7_121]  # films of NIH's archives, by name


def write(
    root,
    n_images=300,
    seed=1907,
    *,
    layout="images",
    table=TABLE_2017,
    sex_column="Patient Gender",
    neatx=True,
    per_cell=5,
    size=128,
):
    """Write the tree and say what is in it.

    Parameters
    ----------
    root : path
        Made if needed.
    n_images : int
        Of them ``24 * per_cell`` are a small 6x200 (in the train_val list); three quarters of the
        others are in the test list. Patients of the lists are disjoint.
    layout : "images" or "images_001"
        One folder, or a folder for each of NIH's archives.
    table : TABLE_2017 or TABLE_2020
        The old release writes ages as 058Y and ends each line with a comma.
    sex_column : "Patient Gender" or "Patient Sex"
    neatx : bool
        Whether annotations of drains are there: of all images with pneumothorax, of a tenth of
        the others, and of two images that NIH does not know.
    per_cell : int
        Images with exactly one finding, of each of six diseases by young/old by sex.
    size : int
        Pixels a side.

    Returns
    -------
    dict
        ``table``: one row per image with image_id, patient_id, sex, age (as it can be read: 0 for
        months and days, 412), view, one column per finding, drain (the truth), annotated (the drain
        of NEATX, else missing), test (bool), file, rgba (bool).
    """
    root = Path(root)
    parts = _parts(n_images, seed, per_cell, size)
    rows = pd.concat([p.table.iloc[keep] for p, keep, _ in parts], ignore_index=True)
    rows["test"] = np.concatenate([np.full(len(keep), test) for *_, keep, test in parts])
    films = [film for p, keep, _ in parts for film in p.images(keep)]
    order = np.argsort(rows["image_id"].to_numpy())
    rows, films = rows.iloc[order].reset_index(drop=True), [films[i] for i in order]

    # The findings that phantoms cannot show are those of the real rows.
    real = metadata.nih().set_index("image_id").loc[rows["image_id"]]
    for finding in set(metadata.FINDINGS) - set(phantom.FINDINGS):
        rows[finding] = real[finding].to_numpy()
    rows["follow_up"] = real["follow_up"].to_numpy()
    written = rows["age"].map("{:03d}Y".format if table == TABLE_2017 else str)
    if table == TABLE_2017:
        odd = np.flatnonzero(rows["test"])[: len(ODD_AGES)]
        written.iloc[odd] = ODD_AGES
        rows.loc[odd, "age"] = [int(a[:-1]) if a.endswith("Y") else 0 for a in ODD_AGES]

    rows["rgba"] = np.arange(len(rows)) % RGBA_EVERY == 7
    part = np.searchsorted(_first_films(), rows["image_id"].to_numpy(str), side="right")
    folders = [f"images_{k:03d}/images" if layout == "images_001" else "images" for k in part]
    rows["file"] = [f"{f}/{i}" for f, i in zip(folders, rows["image_id"], strict=True)]
    for file, film, rgba in zip(rows["file"], films, rows["rgba"], strict=True):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(film).convert("RGBA" if rgba else "L").save(root / file)

    ends = "," if table == TABLE_2017 else ""
    lines = [HEADER.format(sex=sex_column) + ends]
    for age, row in zip(written, rows.itertuples(), strict=True):
        lines.append(
            f"{row.image_id},{_labels(rows.loc[row.Index])},{row.follow_up},{row.patient_id},{age},"
            f"{row.sex},{row.view},2500,2048,0.168,0.168{ends}"
        )
    (root / table).write_text("\n".join(lines) + "\n")
    for name, chosen in {
        "test_list.txt": rows["test"],
        "train_val_list.txt": ~rows["test"],
    }.items():
        (root / name).write_text("\n".join(rows.loc[chosen, "image_id"]))

    ill = rows["Pneumothorax"] == 1
    covered = ill | (np.arange(len(rows)) % 10 == 3)
    rows["annotated"] = rows["drain"].where(covered) if neatx else np.nan
    if neatx:
        _write_neatx(root / NEATX, rows[covered])
    kept = ["image_id", "patient_id", "sex", "age", "view", *metadata.FINDINGS]
    return {"table": rows[[*kept, "drain", "annotated", "test", "file", "rgba"]]}


def _first_films():
    """The first film of each archive, of the real names."""
    names = sorted(metadata.nih()["image_id"])
    return [names[start] for start in np.cumsum([0, *ARCHIVES[:-1]])]


def _parts(n_images, seed, per_cell, size):
    """Phantom cohorts, positions in them, and whether they are in the test list."""
    n_test = round(TEST_SHARE * (n_images - 24 * per_cell))
    n_train = n_images - 24 * per_cell - n_test
    options = {"seed": seed, "size": size, "dials": DIALS}
    test = cohorts.load("phantom", n_images=n_test, split="test", **options)
    train = cohorts.load("phantom", n_images=n_train, split="train", **options)
    six = cohorts.load("phantom-6x200", seed=seed, size=size)
    seen = set(test.table["patient_id"]) | set(train.table["patient_id"])
    free = six.table[~six.table["patient_id"].isin(seen)]
    cells = free.groupby(["disease", "age60", "sex"])
    chosen = np.sort(cells.head(per_cell).index.to_numpy())
    assert len(chosen) == 4 * per_cell * len(nih6x200.DISEASES)
    return [
        (test, np.arange(n_test), True),
        (train, np.arange(n_train), False),
        (six, chosen, False),
    ]


def _labels(row):
    """Finding Labels as NIH writes them: Atelectasis|Effusion, or No Finding."""
    spelt = {ours: theirs for theirs, ours in metadata.NIH_NAMES.items()}
    found = [spelt.get(f, f) for f in metadata.FINDINGS if row[f] == 1]
    return "|".join(found) or "No Finding"


def _write_neatx(path, rows):
    """Two annotators; where they agree, the aggregated drain is theirs."""
    side = np.where(rows["drain"] == 1, "Left", "")
    table = pd.DataFrame(
        {
            "Image Index": rows["image_id"],
            "Drain": rows["drain"],
            "Drain_a1": rows["drain"],
            "Drain_Location_a1": side,
            "Drain_a2": rows["drain"],
            "Drain_Location_a2": side,
        }
    )
    strangers = table.iloc[: len(STRANGERS)].assign(**{"Image Index": STRANGERS})
    pd.concat([table, strangers], ignore_index=True).to_csv(path)


if __name__ == "__main__":
    write(sys.argv[1], *map(int, sys.argv[2:3]))
