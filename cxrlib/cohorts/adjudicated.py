"""NIH films that radiologists read again: adjudicated labels beside the text-mined ones.

The torchxrayvision wheel carries the labels that Majkowska et al. made public for 4,376 films of
NIH ChestX-ray14. No pixel is needed to ask where the labels mined from reports differ from them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from cxrlib.cohorts import files, metadata
from cxrlib.core import checks, toml

_NAMES = toml.beside(__file__)

READ = ("Pneumothorax", "Nodule or mass", "Airspace opacity", "Fracture")
"""What radiologists read for."""

FINDINGS = READ[:3]
"""Those of :data:`READ` for which NIH has a label."""

OPACITY = _NAMES["opacity"]
"""Ways to compose "Airspace opacity" out of NIH's findings, each wider than the one before."""


def noted(opacity: str = "infiltration") -> dict[str, list[str]]:
    """For each of :data:`FINDINGS`, the findings of NIH any of which counts as noted.

    Parameters
    ----------
    opacity : a key of :data:`OPACITY`

    Raises
    ------
    ValueError
        For another one.
    """
    checks.one_of("opacity", opacity, tuple(OPACITY))
    return _NAMES["noted"] | {"Airspace opacity": OPACITY[opacity]}


@lru_cache(maxsize=1)
def _read():
    path = metadata.wheel_file("google2019_nih-chest-xray-labels.csv.gz")
    columns = {column: name for name, column in _NAMES["columns"].items()}
    table = files.read_table(path, columns | {finding: finding for finding in READ})
    files.unique(table, "image_id", path)
    yes_or_no = {finding: {"NO": 0, "YES": 1} for finding in READ}
    for column, codes in ({"set": _NAMES["sets"]} | yes_or_no).items():
        coded = table[column].map(codes)
        if coded.isna().any():
            raise files.DataError(
                f"{path}: column {column!r} has {table[column][coded.isna()].iloc[0]!r} in "
                f"{files.in_lines(coded.isna())}; expected {' or '.join(codes)}. Install the "
                "torchxrayvision of requirements.lock"
            )
        table[column] = coded if column == "set" else coded.astype(np.int8)
    return table


def load(opacity: str = "infiltration") -> pd.DataFrame:
    """The adjudicated films: one row per film, in the order of the released file.

    Age, sex, view and noted findings are those of :func:`cxrlib.cohorts.metadata.nih`. The ages in
    the file itself are an earlier release's, up to two years off.

    Parameters
    ----------
    opacity : a key of :data:`OPACITY`
        Which findings of NIH count as a noted airspace opacity.

    Returns
    -------
    pandas.DataFrame, shape (4376, 15)
        ``image_id``, ``patient_id``, ``sex``, ``age``, ``age_group`` (missing under 18), ``view``,
        ``follow_up``, ``set`` ("validation" or "test", the part of the release), and int8 columns
        (0/1) ``noted <finding>`` for each of :data:`FINDINGS`, ``adjudicated <finding>`` for each
        of :data:`READ`.

    Raises
    ------
    ValueError
        For an unknown ``opacity``.
    DataError
        The file is damaged, or names a film that NIH does not have.

    References
    ----------
    Majkowska et al., Radiology 294:421-431, 2020; file ``google2019_nih-chest-xray-labels.csv``.
    """
    sources, read = noted(opacity), _read()
    nih = metadata.nih()
    nih = nih[nih["image_id"].isin(read["image_id"])].set_index("image_id")
    stranger = ~read["image_id"].isin(nih.index)
    if stranger.any():
        raise files.DataError(
            f"adjudicated labels: film {read['image_id'][stranger].iloc[0]!r} is none of NIH "
            "ChestX-ray14; install the torchxrayvision of requirements.lock"
        )
    rows = nih.loc[read["image_id"]].reset_index()
    about = ["image_id", "patient_id", "sex", "age", "age_group", "view", "follow_up"]
    mined = {f"noted {f}": rows[of].max(axis=1) for f, of in sources.items()}
    return (
        rows[about]
        .assign(set=read["set"], **mined)
        .join(read[list(READ)].add_prefix("adjudicated "))
    )


def predictions(table: pd.DataFrame) -> pd.DataFrame:
    """The noted labels as a classifier that says 0 or 1, judged by the adjudicated ones.

    Parameters
    ----------
    table : DataFrame
        From :func:`load`, or some rows of it, with further columns that describe a film.

    Returns
    -------
    DataFrame, one row per film and finding of :data:`FINDINGS`
        An audit as :mod:`cxrlib.stats.label_audit` and `label_error` take it: a predictions table
        with y_true adjudicated and score noted, and the columns that describe a film.
    """
    about = table.loc[:, [c for c in table if not c.startswith(("noted ", "adjudicated "))]]
    about = about.assign(cohort="nih-adjudicated", model="text-mined labels", method="as mapped")
    parts = [
        about.assign(
            label=finding,
            y_true=table[f"adjudicated {finding}"],
            score=table[f"noted {finding}"].astype(float),
        )
        for finding in FINDINGS
    ]
    return pd.concat(parts, ignore_index=True)
