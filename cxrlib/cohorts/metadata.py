"""Open metadata of three public chest radiograph datasets, read from the torchxrayvision wheel.

The wheel ships the tables that describe NIH ChestX-ray14, PadChest and CheXpert. They hold no
pixels, so they can be read by anyone, and they are enough to ask who was imaged, how, and with
which findings. The files are located without importing torchxrayvision, whose import takes
seconds because it loads torch.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib.cohorts import files
from cxrlib.cohorts.cohort import Cohort, flow
from cxrlib.core import toml

_NAMES = toml.beside(__file__)

FINDINGS = tuple(_NAMES["findings"])
"""The 14 findings of NIH ChestX-ray14, under the names this book uses."""

S_FINDINGS = tuple(_NAMES["s_findings"])
"""The six findings of Table 1 of Sourget et al. 2025."""

NIH_NAMES = _NAMES["nih_names"]
"""NIH spellings that differ from ours. "Effusion" takes the name used by Sourget et al. 2025."""

STUDIED = tuple(_NAMES["studied"])
"""The six findings of S, and Edema, which X adds."""

VIEWS = tuple(_NAMES["views"])
"""View positions as DICOM, MIMIC-CXR and PadChest write them."""

AGE_GROUPS = tuple(_NAMES["age_groups"])
"""Age groups of Sourget et al. 2025, left-closed: a patient of 25 belongs to "25-50"."""

OLDEST_POSSIBLE_AGE = 120


def wheel_file(name: str) -> Path:
    """Path of a data file inside the installed torchxrayvision package.

    Parameters
    ----------
    name : str
        File name, for example ``"Data_Entry_2017_v2020.csv.gz"``.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    ModuleNotFoundError
        torchxrayvision is not installed.
    ValueError
        The installed version ships no such file.
    """
    spec = find_spec("torchxrayvision")
    if spec is None:
        raise ModuleNotFoundError(
            "torchxrayvision is not installed; its wheel carries the open metadata. "
            "Install the project's requirements.lock."
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    if not path.exists():
        raise ValueError(
            f"the installed torchxrayvision has no data file {name!r}; "
            "install the version pinned in requirements.lock"
        )
    return path


def age_group(age: ArrayLike) -> pd.Series:
    """Age groups of Sourget et al. 2025 (section 2.1), missing under 18 and over 120.

    Parameters
    ----------
    age : array-like of numbers, shape (n,)
        Age in years.

    Returns
    -------
    pandas.Series of str, shape (n,)
        One of :data:`AGE_GROUPS`, or missing.
    """
    edges = [18, 25, 50, 65, 80, OLDEST_POSSIBLE_AGE + 1]
    groups = pd.cut(pd.Series(age), edges, right=False, labels=list(AGE_GROUPS))
    return groups.astype("str").where(groups.notna())


def young_or_old(age: ArrayLike) -> pd.Series:
    """ "young" below 60 years, "old" from 60 (the border of X); missing where the age is.

    Two groups that are large in most cohorts, unlike those of :func:`age_group`.
    """
    age = pd.Series(age)
    return pd.Series(np.where(age >= 60, "old", "young"), age.index).where(age.notna())


def read_nih(path: Path) -> pd.DataFrame:
    """The table of NIH ChestX-ray14 as released, in either spelling, tidy.

    Parameters
    ----------
    path : Path
        ``Data_Entry_2017.csv`` (ages as ``058Y``, ``006M``, ``013D``, some above 400) or
        ``Data_Entry_2017_v2020.csv`` (ages in years), compressed or not.

    Returns
    -------
    pandas.DataFrame
        One row per image as :func:`nih` describes it; ages in whole years as recorded, impossible
        ones too.

    Raises
    ------
    DataError
        Damaged file, missing column, images listed twice, an age or a finding that cannot be read.
    """
    columns = {tuple(spellings): name for name, spellings in _NAMES["nih"].items()}
    # The lines of 2017 end with a comma, which must not be taken for an index.
    text = {"Patient Age": str, "Image Index": str, "Finding Labels": str}
    table = files.read_table(path, columns, dtype=text, index_col=False)
    files.unique(table, "image_id", path)
    table["age"] = _years(table["age"], path)
    table.insert(4, "age_group", age_group(table["age"]))
    # 836 distinct label strings describe 112,120 images: expand the strings, not the images.
    codes, strings = pd.factorize(table.pop("labels"), use_na_sentinel=False)
    empty = np.flatnonzero(pd.isna(strings)[codes])
    indicators = pd.Series(strings).fillna("").str.get_dummies("|").rename(columns=NIH_NAMES)
    unknown = sorted(set(indicators) - {*FINDINGS, "No Finding", ""})
    if unknown or len(empty):
        what = f"holds {unknown[0]!r}" if unknown else f"is empty in line {empty[0] + 2}"
        raise files.DataError(
            f"{path}: column 'Finding Labels' {what}; expected the 14 findings of ChestX-ray14 "
            "or 'No Finding'. Fetch the file again as distributed"
        )
    indicators = indicators.reindex(columns=list(FINDINGS), fill_value=0)
    findings = indicators.to_numpy(np.int8)[codes]
    return table.join(pd.DataFrame(findings, columns=list(FINDINGS)))


def years(text: pd.Series) -> np.ndarray:
    """Years of ages written as 58, or as DICOM does: 058Y, 006M, 002W, 013D.

    Parameters
    ----------
    text : Series of str, shape (n,)

    Returns
    -------
    ndarray of float, shape (n,)
        Whole years of what has a unit; missing where the text is no age.
    """
    codes, texts = pd.factorize(text, use_na_sentinel=False)  # a hundred or so differ
    parts = pd.Series(texts, dtype=str).str.extract(r"^(\d+(?:\.\d+)?)([YMWD]?)$")
    number = parts[0].astype(float)
    in_a_year = parts[1].map({"Y": 1, "M": 12, "W": 52, "D": 365})
    return number.where(parts[1].eq(""), number // in_a_year).to_numpy()[codes]


def _years(text, path):
    """Whole years of the ages of NIH; refuses what is none."""
    found = years(text)
    wrong = np.flatnonzero(np.isnan(found))
    if len(wrong):
        raise files.DataError(
            f"{path}: column 'Patient Age' has {text.iloc[wrong[0]]!r} in line {wrong[0] + 2}; "
            "expected years such as 58 or 058Y, months such as 006M, or days such as 013D"
        )
    return found.astype(int)


@lru_cache(maxsize=1)
def _nih():
    return read_nih(wheel_file("Data_Entry_2017_v2020.csv.gz"))


def nih() -> pd.DataFrame:
    """Metadata of NIH ChestX-ray14: one row per image, in the order of the released file.

    Nothing is dropped: 112,120 images of 30,805 patients. "Effusion" is renamed to "Pleural
    Effusion" and "Pleural_Thickening" to "Pleural Thickening". An image without any of the 14
    findings has 0 in every finding column. Race is not recorded.

    Returns
    -------
    pandas.DataFrame, shape (112120, 21)
        ``image_id`` (str), ``patient_id`` (int), ``sex`` ("F"/"M"), ``age`` (int, years, as
        recorded), ``age_group`` (str, missing under 18), ``view`` ("AP"/"PA"), ``follow_up``
        (int, position of the image in the patient's series) and one int8 column (0/1) for each
        of :data:`FINDINGS`. The caller owns the copy.

    References
    ----------
    Wang et al., ChestX-ray8, CVPR 2017; file ``Data_Entry_2017_v2020.csv``.
    """
    return _nih().copy()


def impossible_ages(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose recorded age cannot be true: negative, or above 120 years.

    Early releases of the NIH table recorded ages above 400; the release shipped in the wheel was
    corrected by the NIH. Such rows are reported, not dropped and not mended: they keep their
    recorded ``age``, and :func:`age_group` leaves their group missing, so no analysis by age
    group can use them.

    Parameters
    ----------
    table : pandas.DataFrame
        Any table with a numeric column ``age`` (years).

    Returns
    -------
    pandas.DataFrame
        The offending rows; empty when all ages are possible.
    """
    return table[(table["age"] < 0) | (table["age"] > OLDEST_POSSIBLE_AGE)]


def nih_flow() -> pd.DataFrame:
    """Exclusion flow of the NIH metadata: what stays and what an age analysis must leave out.

    Returns
    -------
    pandas.DataFrame
        As :attr:`cxrlib.cohorts.cohort.Cohort.flow`. Nobody is dropped from :func:`nih` itself.
    """
    table = _nih()
    possible = table.drop(index=impossible_ages(table).index)
    steps = [
        ("Released metadata", table, ""),
        ("Age possible", possible, f"age below 0 or above {OLDEST_POSSIBLE_AGE}"),
        ("With an age group", possible[possible["age_group"].notna()], "age under 18"),
    ]
    return flow(steps)


def build() -> Cohort:
    """The cohort "nih-metadata": :func:`nih` and its flow, without films."""
    recipe = {"name": "nih-metadata", "file": "Data_Entry_2017_v2020.csv (torchxrayvision wheel)"}
    about = {"access": "open", "recipe": recipe, "sources": ("NIH-CXR14",)}
    return Cohort("nih-metadata", nih(), FINDINGS, flow=nih_flow(), **about)


@lru_cache(maxsize=1)
def _padchest():
    columns = _NAMES["padchest"]
    path = wheel_file("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz")
    raw = pd.read_csv(path, usecols=list(columns), dtype=str).rename(columns=columns)
    labels = raw["labels"].fillna("[]")
    studied = pd.to_numeric(raw["date"].str[:4], errors="coerce")
    born = pd.to_numeric(raw["birth"], errors="coerce")
    table = raw[["image_id", "patient_id", "sex"]].copy()
    table["sex"] = table["sex"].where(table["sex"].isin(["F", "M"]))
    table["age"] = studied - born
    table["age_group"] = age_group(table["age"])
    table[["view", "label_source"]] = raw[["view", "label_source"]]
    for column, pattern in _NAMES["padchest_findings"].items():
        table[column] = labels.str.contains(pattern, regex=True).astype(np.int8)
    return table


def padchest() -> pd.DataFrame:
    """Metadata of PadChest needed for the drain question: one row per image, file order.

    Returns
    -------
    pandas.DataFrame, shape (160861, 10)
        ``image_id``, ``patient_id`` (str), ``sex`` ("F"/"M" or missing), ``age`` (year of the
        study minus year of birth: up to a year too high; missing without a year of birth),
        ``age_group`` (missing under 18), ``view`` (projection as PadChest names it: "PA", "AP",
        "AP_horizontal", "L", "COSTAL", ...), ``label_source`` ("Physician" for labels read by
        hand, "RNN_model" for predicted ones) and three int8 columns (0/1): ``pneumothorax``
        (hydropneumothorax included, as air is in the pleural space either way),
        ``hydropneumothorax`` and ``drain`` ("chest drain tube").

    References
    ----------
    Bustos et al., PadChest, Medical Image Analysis 66, 2020.
    """
    return _padchest().copy()


@lru_cache(maxsize=1)
def _chexpert():
    raw = pd.read_csv(wheel_file("chexpert_train.csv.gz"))
    frontal = raw["Frontal/Lateral"] == "Frontal"
    table = pd.DataFrame(
        {
            "image_id": raw["Path"],
            "patient_id": raw["Path"].str.extract(r"patient(\d+)", expand=False).astype(int),
            "sex": raw["Sex"].map({"Female": "F", "Male": "M"}),
            "age": raw["Age"],
            "age_group": age_group(raw["Age"]),
            "view": raw["AP/PA"].where(frontal, "lateral"),
        }
    )
    return table.join(raw.loc[:, "No Finding":"Support Devices"])


def chexpert() -> pd.DataFrame:
    """Metadata of the CheXpert training set: one row per image, file order.

    Returns
    -------
    pandas.DataFrame, shape (223414, 20)
        ``image_id`` (path in the release), ``patient_id`` (int), ``sex`` ("F"/"M" or missing),
        ``age`` (int, years, capped at 90 by the release), ``age_group`` (missing under 18),
        ``view`` ("AP", "PA", "lateral"; a few "LL" and "RL") and 14 label columns, "Support
        Devices" among them, as released: 1 present, 0 absent, -1 uncertain, missing when the
        report does not mention it.

    References
    ----------
    Irvin et al., CheXpert, AAAI 2019.
    """
    return _chexpert().copy()
