"""The NIH 6x200 recipe of Sun et al. 2025 (section 2.1), rebuilt from its numbers.

The paper draws, for each of six diseases, 50 images from each of four cells: young/old (60 and
over) by female/male. It does not say how it treats images with several findings. The rule here,
*exactly one finding*, is the one that reproduces its only exception: old patients with edema,
47 female and 53 male.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import guard
from cxrlib.cohorts import metadata
from cxrlib.cohorts.files import DataError
from cxrlib.core.checks import one_of

DISEASES = tuple(finding for finding in metadata.STUDIED if finding != "Pneumonia")
"""The six diseases of the paper, in alphabetical order ("Effusion" there)."""

OLD_AGE = 60
PER_CELL = 50
EXCEPTIONS = {("Edema", "old", "F"): 47, ("Edema", "old", "M"): 53}
"""Cells with a size other than 50, as the paper states them."""

TENTHS = {"train": 7, "valid": 1, "test": 2}
ROTATIONS = 10 // TENTHS["test"]  # of one shuffle, until every image was tested


def eligible(
    table: pd.DataFrame | None = None,
    rule: str = "single",
    findings: Sequence[str] = metadata.FINDINGS,
    border: int = OLD_AGE,
) -> pd.DataFrame:
    """Images that may stand for a disease: one row per image x disease.

    Parameters
    ----------
    table : pandas.DataFrame, optional
        One row per image, such as :func:`cxrlib.cohorts.metadata.nih` returns it; the default.
    rule : {"single", "any"}
        ``"single"`` takes images with exactly one finding (the rule of the recipe). ``"any"``
        takes every image with the finding, whatever else it shows, so an image can appear under
        several diseases.
    findings : sequence of str
        The columns (0/1) that count as findings.
    border : int
        Age in years from which a patient is old.

    Returns
    -------
    pandas.DataFrame
        The columns of ``table`` plus ``disease`` (str) and ``age60`` ("young" below 60 years,
        "old" from 60; the column is named after the border). Rows in the order of ``table``,
        disease by disease, without those of unknown or impossible age.

    Raises
    ------
    ValueError
        Unknown ``rule``.
    """
    one_of("rule", rule, ("single", "any"))
    if table is None:
        table = metadata.nih()
    table = table[table["age"].between(0, metadata.OLDEST_POSSIBLE_AGE)]
    if rule == "single":
        table = table[table[list(findings)].sum(axis=1) == 1]
    parts = [table[table[name] == 1].assign(disease=name) for name in findings]
    rows = pd.concat(parts, ignore_index=True)
    rows[f"age{border}"] = np.where(rows["age"] >= border, "old", "young")
    return rows


def cell_counts(
    table: pd.DataFrame | None = None, rule: str = "single", per_cell: int = PER_CELL
) -> pd.DataFrame:
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
    sizes = rows.groupby(["disease", "age60", "sex"]).size().unstack(["age60", "sex"], fill_value=0)
    counts = sizes.reindex(index=list(metadata.FINDINGS), columns=cells, fill_value=0)
    counts.columns = [f"{age60} {sex}" for age60, sex in cells]
    counts.index.name = "disease"
    counts["smallest"] = counts.min(axis=1)
    counts["satisfies"] = counts["smallest"] >= per_cell
    counts["in_paper"] = counts.index.isin(DISEASES)
    return counts.sort_values("smallest", ascending=False, kind="stable")


def draw(
    seed: int,
    split: str = "patient",
    table: pd.DataFrame | None = None,
    per_cell: int = PER_CELL,
) -> pd.DataFrame:
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
    per_cell : int
        Images of each cell. With another number than 50 no cell is an exception.

    Returns
    -------
    pandas.DataFrame, 1200 rows
        The columns of :func:`eligible` plus ``split`` ("train"/"valid"/"test"), in the order of
        the NIH file.

    Raises
    ------
    DataError
        Cells of ``table`` hold too few images.
    ValueError
        Unknown ``split``.
    """
    table = metadata.nih() if table is None else table
    sexes = set(eligible(table)["sex"].dropna())
    if len(sexes) < 2:
        raise DataError(
            f"cells of both sexes are drawn; the table has {', '.join(sexes) or 'none'}"
        )
    odd = EXCEPTIONS if per_cell == PER_CELL else None
    return balanced(table, DISEASES, OLD_AGE, per_cell, seed=seed, unit=split, exceptions=odd)


def balanced(
    table: pd.DataFrame,
    labels: Iterable[str],
    border: int = OLD_AGE,
    per_cell: int = PER_CELL,
    attributes: Iterable[str] = ("sex",),
    seed: int = 1907,
    unit: str = "patient",
    exceptions: dict[tuple, int] | None = None,
    findings: Sequence[str] = metadata.FINDINGS,
    hidden: bool = False,
) -> pd.DataFrame:
    """The recipe on any table: equally many images with one finding in every cell, split 7:1:2.

    A cell is a label x young/old x one group of each attribute. Images are drawn without
    replacement. A cell is never filled up from others and never left short: where a cell holds
    too few images, nothing is drawn, and the message lists all such cells and the largest
    ``per_cell`` that would do.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per image: ``image_id, patient_id, age``, the attributes and the findings.
    labels : sequence of str
        The diseases to draw, of ``findings``.
    border : int
        Age in years from which a patient is old.
    per_cell : int
        Images of each cell, 1 or more.
    attributes : sequence of str
        Columns whose groups are balanced beside age. Images without an entry are not drawn.
    seed : int
        Seed of the draw and of the split.
    unit : {"patient", "image"}
        What the split keeps together; see :func:`assign_split`.
    exceptions : dict, optional
        (label, "young" or "old", group of each attribute) to another size of this cell.
    findings : sequence of str
        The columns among which exactly one is 1 in an image that may be drawn.
    hidden : bool
        Whether a message may not tell counts of 1 to 9, as of credentialed data.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`eligible` plus ``split``, sorted by ``image_id``.

    Raises
    ------
    DataError
        Cells are short.
    ValueError
        Unknown label or unit, a column that is missing, an exception that is no cell, or a
        ``per_cell`` below 1.
    """
    labels, attributes, exceptions = list(labels), list(attributes), exceptions or {}
    missing = [c for c in (*attributes, *findings) if c not in table]
    unknown = [label for label in labels if label not in findings]
    if missing or unknown:
        what = f"column {missing[0]!r} is missing" if missing else f"no finding {unknown[0]!r}"
        raise ValueError(f"{what}; findings: {', '.join(findings)}")
    if per_cell < 1:
        raise ValueError(f"per_cell={per_cell}: expected 1 or more")
    rows = eligible(table, findings=findings, border=border)
    age = f"age{border}"
    groups = [sorted(rows[a].dropna().unique()) for a in attributes]
    if not all(groups):
        raise DataError("no image has one finding alone and a known age")
    cells = list(product(labels, ("young", "old"), *groups))
    strange = set(exceptions) - set(cells)
    if strange:
        raise ValueError(f"exceptions: {min(strange)} is no cell; cells are such as {cells[0]}")
    members = rows.groupby(["disease", age, *attributes]).groups
    members = {cell: members.get(cell, rows.index[:0]) for cell in cells}
    sizes = {cell: exceptions.get(cell, per_cell) for cell in cells}
    _refuse_short(members, sizes, hidden)
    generator = np.random.default_rng(seed)
    chosen = [generator.choice(members[c].to_numpy(), n, replace=False) for c, n in sizes.items()]
    cohort = rows.loc[np.concatenate(chosen)].sort_values("image_id", ignore_index=True)
    cohort["split"] = assign_split(cohort["patient_id"], generator, unit)
    return cohort


def _refuse_short(members, sizes, hidden):
    def told(count):
        return guard.FEW if hidden and 0 < count < guard.MIN_CELL else count

    short = {cell: size for cell, size in sizes.items() if len(members[cell]) < size}
    if short:
        cells = "; ".join(
            f"{' '.join(c)}: {told(len(members[c]))} of {n}" for c, n in short.items()
        )
        most = min(map(len, members.values()))
        smaller = f"per_cell={most} or less" if told(most) == most else "a smaller per_cell"
        cure = f"pass {smaller}, or fewer labels" if most else "pass fewer labels"
        raise DataError(
            f"{len(short)} of {len(members)} cells hold fewer images with one finding than the "
            f"recipe asks for ({cells}); {cure}"
        )


def fingerprint(cohort: pd.DataFrame) -> str:
    """Short hash of the images of a draw and of their split, whatever their order.

    Parameters
    ----------
    cohort : pandas.DataFrame
        With ``image_id`` and ``split``.
    """
    lines = sorted(cohort["image_id"] + " " + cohort["split"])
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def assign_split(
    patient_id: ArrayLike, generator: np.random.Generator, unit: str = "patient"
) -> np.ndarray:
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
    return _parts(*_shuffled(patient_id, generator, unit))


def rotations(
    patient_id: ArrayLike, n_splits: int, seed: int, unit: str = "patient"
) -> list[np.ndarray]:
    """Several splits 7:1:2, of which every five test each image exactly once.

    Shuffled as in :func:`assign_split`, patients lie on a circle, of which test takes a fifth,
    validation the tenth before it, and training the rest. Five turns by a fifth use the circle up;
    the sixth split starts a new shuffle. Test parts of one shuffle are disjoint, training parts
    are not: two of them share four or five sevenths of their images.

    Parameters
    ----------
    patient_id : array-like, shape (n,)
        Patient of each image.
    n_splits : int
        1 or more. The first splits are the same whatever their number.
    seed : int
        Of the shuffles. The first split is that of ``assign_split`` with
        ``numpy.random.default_rng(seed)``.
    unit : {"patient", "image"}
        What stays together.

    Returns
    -------
    list of numpy.ndarray of str, each of shape (n,)
        "train", "valid" or "test" for each image.

    Raises
    ------
    ValueError
        Unknown ``unit``, or no split wanted.
    """
    if n_splits < 1:
        raise ValueError(f"n_splits={n_splits}: expected 1 or more")
    generator = np.random.default_rng(seed)
    splits = []
    for k in range(n_splits):
        if k % ROTATIONS == 0:
            middle, groups = _shuffled(patient_id, generator, unit)
        splits.append(_parts(middle, groups, k % ROTATIONS))
    return splits


def _shuffled(patient_id, generator, unit):
    """Shuffled groups on a circle of 20 n steps, and the group of each image.

    The middle of a group, in steps, is a whole number, and so are the edges of tenths of all
    images: whatever the turn, no rounding moves a group over an edge.
    """
    one_of("split", unit, ("patient", "image"))
    n = len(patient_id)
    groups = np.arange(n) if unit == "image" else pd.factorize(np.asarray(patient_id))[0]
    sizes = np.bincount(groups)
    order = generator.permutation(len(sizes))
    middle = np.empty(len(sizes), dtype=np.int64)
    middle[order] = 10 * (2 * np.cumsum(sizes[order]) - sizes[order])
    return middle, groups


def _parts(middle, groups, turn=0):
    """Part of each image, with the circle turned by some fifths."""
    tenth = 2 * len(groups)
    at = (middle + turn * TENTHS["test"] * tenth) % (10 * tenth)
    test = (TENTHS["train"] + TENTHS["valid"]) * tenth
    part = np.where(at <= TENTHS["train"] * tenth, "train", np.where(at < test, "valid", "test"))
    return part[groups]


def leakage(cohort: pd.DataFrame) -> float:
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


def draws(seeds: Iterable[int]) -> pd.DataFrame:
    """What varies from draw to draw when images, not patients, are split.

    Parameters
    ----------
    seeds : iterable of int
        One draw each.

    Returns
    -------
    pandas.DataFrame
        One row per seed: ``seed``, ``patients`` (int), ``leakage`` (share of test images in [0, 1])
        and ``AP <disease>`` (share of the disease's images taken in AP view, in [0, 1]).
    """
    table = metadata.nih()
    rows = []
    for seed in seeds:
        cohort = draw(seed, split="image", table=table)
        ap = cohort["view"].eq("AP").groupby(cohort["disease"]).mean().add_prefix("AP ")
        counts = {"patients": cohort["patient_id"].nunique(), "leakage": leakage(cohort)}
        rows.append({"seed": seed} | counts | ap.to_dict())
    return pd.DataFrame(rows)
