"""The NIH 6x200 recipe of Sun et al. 2025 (section 2.1), rebuilt from its numbers.

The paper draws, for each of six diseases, 50 images from each of four cells: young/old (60 and
over) by female/male. It does not say how it treats images with several findings. The rule here,
*exactly one finding*, is the one that reproduces its only exception: old patients with edema,
47 female and 53 male.
"""

import numpy as np
import pandas as pd

from cxrlib.cohorts import metadata

DISEASES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Pleural Effusion",
    "Pneumothorax",
)
"""The six diseases of the paper, in alphabetical order ("Effusion" there)."""

OLD_AGE = 60
PER_CELL = 50
EXCEPTIONS = {("Edema", "old", "F"): 47, ("Edema", "old", "M"): 53}
"""Cells with a size other than 50, as the paper states them."""

FRACTIONS = {"train": 0.7, "valid": 0.1, "test": 0.2}


def eligible(table=None, rule="single"):
    """Images that may stand for a disease: one row an image x disease.

    Parameters
    ----------
    table : pandas.DataFrame, optional
        NIH metadata as :func:`cxrlib.cohorts.metadata.nih` returns it; the default reads it.
    rule : {"single", "any"}
        ``"single"`` takes images with exactly one finding (the rule of the recipe). ``"any"``
        takes every image with the finding, whatever else it shows, so an image can appear under
        several diseases.

    Returns
    -------
    pandas.DataFrame
        The columns of ``table`` plus ``disease`` (str) and ``age60`` ("young" below 60 years,
        "old" from 60). Rows in the order of ``table``, disease by disease.

    Raises
    ------
    ValueError
        Unknown ``rule``.
    """
    if rule not in ("single", "any"):
        raise ValueError(f"rule must be 'single' or 'any', got {rule!r}")
    if table is None:
        table = metadata.nih()
    table = table.drop(index=metadata.impossible_ages(table).index)
    findings = list(metadata.FINDINGS)
    if rule == "single":
        table = table[table[findings].sum(axis=1) == 1]
    parts = [table[table[name] == 1].assign(disease=name) for name in findings]
    rows = pd.concat(parts, ignore_index=True)
    rows["age60"] = np.where(rows["age"] >= OLD_AGE, "old", "young")
    return rows


def cell_counts(table=None, rule="single", per_cell=PER_CELL):
    """How many images each disease offers in each cell, and whether that is enough.

    Parameters
    ----------
    table, rule
        As in :func:`eligible`.
    per_cell : int
        Images asked of every cell.

    Returns
    -------
    pandas.DataFrame, 14 rows
        Index ``disease``; integer columns ``young F``, ``young M``, ``old F``, ``old M`` and
        ``smallest`` (images); bool columns ``satisfies`` (every cell holds at least ``per_cell``
        images) and ``in_paper``. Sorted by ``smallest``, largest first.
    """
    rows = eligible(table, rule)
    cells = [(age60, sex) for age60 in ("young", "old") for sex in ("F", "M")]
    counts = (
        rows.groupby(["disease", "age60", "sex"])
        .size()
        .unstack(["age60", "sex"], fill_value=0)
        .reindex(index=list(metadata.FINDINGS), columns=cells, fill_value=0)
    )
    counts.columns = [f"{age60} {sex}" for age60, sex in cells]
    counts.index.name = "disease"
    counts["smallest"] = counts.min(axis=1)
    counts["satisfies"] = counts["smallest"] >= per_cell
    counts["in_paper"] = counts.index.isin(DISEASES)
    return counts.sort_values("smallest", ascending=False, kind="stable")


def draw(seed, split="patient", table=None):
    """Draw the cohort: 1,200 images, 200 a disease, split 7:1:2.

    The paper does not publish its draw, so each seed is one of the many cohorts that the recipe
    allows. Images are drawn without replacement within a cell, and all 100 old edema images that
    exist are always taken.

    Parameters
    ----------
    seed : int
        Seed of the draw and of the split.
    split : {"patient", "image"}
        ``"patient"`` keeps all images of a patient in one part; ``"image"`` splits images
        regardless of their patient, as the recipe read literally would.
    table : pandas.DataFrame, optional
        NIH metadata; the default reads it.

    Returns
    -------
    pandas.DataFrame, 1200 rows
        The columns of :func:`eligible` plus ``split`` ("train"/"valid"/"test"), in the order of
        the NIH file.

    Raises
    ------
    ValueError
        Unknown ``split``, or a cell of ``table`` holds too few images.
    """
    rows = eligible(table)
    rows = rows[rows["disease"].isin(DISEASES)]
    generator = np.random.default_rng(seed)
    chosen = []
    for disease in DISEASES:
        for age60 in ("young", "old"):
            for sex in ("F", "M"):
                size = EXCEPTIONS.get((disease, age60, sex), PER_CELL)
                cell = rows.index[
                    (rows["disease"] == disease) & (rows["age60"] == age60) & (rows["sex"] == sex)
                ]
                if len(cell) < size:
                    raise ValueError(
                        f"the recipe needs {size} images with {disease} alone in {age60} {sex}, "
                        f"the table has {len(cell)}; pass the full NIH metadata"
                    )
                chosen.append(generator.choice(cell.to_numpy(), size, replace=False))
    cohort = rows.loc[np.concatenate(chosen)].sort_values("image_id", ignore_index=True)
    cohort["split"] = assign_split(cohort["patient_id"], generator, unit=split)
    return cohort


def assign_split(patient_id, generator, unit="patient"):
    """Divide images 7:1:2 into train, validation and test.

    With ``unit="image"`` the parts have exactly 70, 10 and 20 % of the images. With
    ``unit="patient"`` patients are shuffled and go, whole, to the part whose share of *images*
    is next to be filled, so shares are met to within one patient's images.

    Parameters
    ----------
    patient_id : array-like, shape (n,)
        Patient of each image.
    generator : numpy.random.Generator
        Source of the shuffle.
    unit : {"patient", "image"}
        What stays together.

    Returns
    -------
    numpy.ndarray of str, shape (n,)

    Raises
    ------
    ValueError
        Unknown ``unit``.
    """
    if unit not in ("patient", "image"):
        raise ValueError(f"split must be 'patient' or 'image', got {unit!r}")
    n = len(patient_id)
    groups = np.arange(n) if unit == "image" else pd.factorize(np.asarray(patient_id))[0]
    sizes = np.bincount(groups)
    order = generator.permutation(len(sizes))
    middle = np.empty(len(sizes))  # share of images at the middle of each group, in shuffled order
    middle[order] = (np.cumsum(sizes[order]) - sizes[order] / 2) / n
    edges = np.cumsum(list(FRACTIONS.values()))[:-1]
    return np.array(list(FRACTIONS))[np.searchsorted(edges, middle)][groups]


def leakage(cohort):
    """Share of test images whose patient also has an image in the training part.

    Parameters
    ----------
    cohort : pandas.DataFrame
        Any table with ``patient_id`` and ``split``.

    Returns
    -------
    float
        In [0, 1]; 0 for a split by patient.

    Raises
    ------
    ValueError
        The table has no test images.
    """
    test = cohort[cohort["split"] == "test"]
    if test.empty:
        raise ValueError("column 'split' has no 'test' row; draw the cohort with a split")
    train = cohort.loc[cohort["split"] == "train", "patient_id"]
    return float(test["patient_id"].isin(train).mean())


def draws(seeds):
    """What varies from draw to draw when images, not patients, are split.

    Parameters
    ----------
    seeds : iterable of int
        One draw each.

    Returns
    -------
    pandas.DataFrame
        One row a seed: ``seed``, ``patients`` (int), ``leakage`` (share of test images in [0, 1])
        and ``AP <disease>`` (share of the disease's images taken in AP view, in [0, 1]).
    """
    table = metadata.nih()
    rows = []
    for seed in seeds:
        cohort = draw(seed, split="image", table=table)
        ap = cohort["view"].eq("AP").groupby(cohort["disease"]).mean()
        rows.append(
            {
                "seed": seed,
                "patients": cohort["patient_id"].nunique(),
                "leakage": leakage(cohort),
                **ap.add_prefix("AP ").to_dict(),
            }
        )
    return pd.DataFrame(rows)
