"""The COVID-19 Image Repository of Hannover Medical School, from its folder as distributed.

The folder holds ``data.csv`` and the films in ``png``: 243 films of 71 patients, open to anyone
(CC BY 3.0, Winther et al., doi:10.6084/m9.figshare.12275009). Two things limit it. Every patient
has COVID-19 and nothing else is labelled: no film is a negative, so that no AUC, no specificity and
no gap between groups can be computed. And ages are redacted: nothing can be said by age.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from cxrlib.cohorts import files, films, metadata
from cxrlib.cohorts.cohort import Cohort, Count, Share, Whole, flow
from cxrlib.cohorts.files import DataError
from cxrlib.cohorts.nih import MEANT
from cxrlib.cohorts.real import with_films
from cxrlib.cohorts.table import drawn_by_patients, validated
from cxrlib.core.folders import cache_folder

TABLE = "data.csv"
FETCH = "https://github.com/ml-workgroup/covid-19-image-repository"
FINDING = "COVID-19"
OFFICIAL = (243, 71)  # films and patients
_COLUMNS = {c: c for c in ("image_id", "patient_id", "sex", "age")} | {"projection": "view"}
_SEXES = {"f": "F", "m": "M"}


def build(
    root: Path | str | None = None,
    n_images: Count | None = None,
    seed: Whole = 1907,
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """The films of Hannover; the cohort is called "(part)" unless all of them are there.

    The table has ``image_id, patient_id, sex, age`` (missing), ``age_group`` (missing), ``view``
    ("AP" or "PA") and the finding :data:`FINDING`, which is 1 everywhere.

    Parameters
    ----------
    root : path, optional
        The folder as distributed; ``CXRBOOK_DATA/hannover`` by default. Films may lie in ``png``
        or beside the table.
    n_images, seed, max_broken
        As for :func:`cxrlib.cohorts.nih.build`.

    Raises
    ------
    DataError
        Files are missing or damaged.
    """
    root = files.root_of("hannover", root)
    rows = read(root)
    paths = pd.Series(films_of(root, rows), rows.index)
    steps = [(TABLE, rows, "")]
    there = paths.ne("")
    if not there.any():
        raise DataError(f"{root} has no films: expected PNGs in png/, as distributed at {FETCH}")
    whole = (len(rows), rows["patient_id"].nunique()) == OFFICIAL and n_images is None
    if there.mean() < MEANT:  # a selection; of more than that, what is missing was lost
        rows, whole = rows[there], False
        steps.append((f"films that are there: a selection of {len(rows)}", rows, "not there"))
    recipe: dict = {"name": "hannover"}
    if n_images is not None:
        rows = drawn_by_patients(rows, n_images, seed)
        steps.append(("drawn by patients", rows, "not drawn"))
        recipe |= {"n_images": n_images, "seed": seed}
    place = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    checks = cache_folder() / f"films-hannover-{place}.parquet"
    about = {"flow": flow(steps), "sources": ("COVID-19 Image Repository",)}
    draft = Cohort("hannover", rows, (FINDING,), "open", recipe, **about)
    named = paths[rows.index].where(paths[rows.index].ne(""), rows["image_id"] + ".png")
    return with_films(draft, root, named, checks, max_broken, whole)


def read(root: Path) -> pd.DataFrame:
    """The table of the repository, tidy; see :func:`build` for its columns.

    Raises
    ------
    DataError
        It is missing or damaged, an image is there twice, or a sex or view is none.
    """
    path = files.locate(root, TABLE)
    if path is None:
        raise DataError(f"{root} has no {TABLE}: get the repository at {FETCH}")
    rows = files.read_table(path, _COLUMNS, dtype=dict.fromkeys(_COLUMNS, str))
    files.unique(rows, "image_id", path)
    rows = rows.assign(
        sex=rows["sex"].replace(_SEXES),
        age=metadata.years(rows["age"]),
        view=rows["view"].str.upper(),
    )
    rows.insert(4, "age_group", metadata.age_group(rows["age"]))
    rows[FINDING] = np.int8(1)
    validated(rows, (FINDING,), "hannover", path)
    return rows


def films_of(root: Path, rows: pd.DataFrame) -> list[str]:
    """The film of each row, relative to ``root``; "" for those that are not there."""
    places = [[f"{place}{name}.png" for place in ("png/", "")] for name in rows["image_id"]]
    return [next((p for p in two if (root / p).is_file()), "") for two in places]
