"""Images and patients of a cohort beside those of the data set itself and of the papers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxrlib import schema
from cxrlib.cohorts import metadata, mimic, nih, nih6x200
from cxrlib.cohorts.cohort import Cohort
from cxrlib.papers import published

_RELEASES = {"NIH-CXR14": "nih-cxr14", "phantom": "nih-cxr14", "MIMIC-CXR": "mimic-cxr"}
_OFFICIAL = {"nih-cxr14": nih.OFFICIAL, "mimic-cxr": mimic.OFFICIAL}
_TEST_LISTS = ("test_list.txt", "official split: test")  # steps of flows
IN_DATA_SET = "data set"
PART = "the folder holds a part of it, or another release"


def cohort_counts(cohort: Cohort) -> pd.DataFrame:
    """Images and patients of the release, of its official test list, and of the cohort itself.

    Returns
    -------
    results table
        Metrics ``"n_images"`` and ``"n_patients"``, cohorts such as "nih-cxr14", "nih-cxr14-test"
        and the cohort's own name. What has not the official size is called "(part)", so that it
        is never taken for what the papers count.
    """
    release = _release(cohort)
    found = {cohort.name: (len(cohort.table), cohort.table["patient_id"].nunique())}
    for part, size in _sizes(cohort).items():
        name = _named(release, part)
        found[name if size == _OFFICIAL[release][part] else f"{name} (part)"] = size
    about = dict.fromkeys(("label", "attribute", "group"), "all")
    return schema.results(
        [
            about | {"cohort": name, "metric": metric, "value": value}
            for name, size in found.items()
            for metric, value in zip(("n_images", "n_patients"), size, strict=True)
        ]
    )


def _release(cohort):
    return next((_RELEASES[s] for s in cohort.sources if s in _RELEASES), None)


def _named(release, part):
    return f"{release}-{part}" if part else release


def _sizes(cohort):
    """Images and patients of the release (None) and of its test list ("test"), as in the flow."""
    if _release(cohort) is None:
        return {}
    sizes = list(zip(cohort.flow["images"].map(int), cohort.flow["patients"].map(int), strict=True))
    tested = cohort.flow["step"].str.startswith(_TEST_LISTS).to_numpy().nonzero()[0]
    return {None: sizes[0]} | ({"test": sizes[tested[0]]} if len(tested) else {})


def counts_beside_papers(cohort: Cohort) -> pd.DataFrame:
    """The cohort's counts beside those of the data set itself and those that the papers print.

    Returns
    -------
    DataFrame
        ``source`` ("data set", "S" or "X"), ``quantity``, ``stated`` and ``computed`` (counts),
        ``verdict`` (:data:`cxrlib.papers.published.VERDICTS`) and ``reason``. Empty for cohorts of
        other sources.
    """
    release = _release(cohort)
    columns = ["source", "quantity", "stated", "computed", "verdict", "reason"]
    if release is None:
        return pd.DataFrame(columns=columns)
    sizes, rows = _sizes(cohort), []
    for part in (None, "test"):
        stated = _OFFICIAL[release][part]
        computed = sizes.get(part, (np.nan, np.nan))
        for metric, a, b in zip(("n_images", "n_patients"), stated, computed, strict=True):
            verdict, reason = published.DIFFERS, PART
            if a == b:
                verdict, reason = published.REPRODUCED, ""
            elif part not in sizes:
                verdict, reason = published.NOT_RUN, "no step of this cohort"
            rows.append((IN_DATA_SET, _named(release, part), metric, a, b, verdict, reason))
    printed = published.printed()
    metrics = ("n_images", "n_patients", "n_studies", "n_images_with_findings_text")
    of_release = printed["cohort"].str.fullmatch(f"{release}(-test|-sourget)?")
    printed = printed[of_release & printed["metric"].isin(metrics) & printed["method"].isna()]
    for row in published.compare(cohort_counts(cohort), printed).itertuples():
        reason = "" if row.verdict == published.REPRODUCED else row.reason
        if row.verdict == published.NOT_RUN:
            of_flow = row.cohort.removeprefix(release).removeprefix("-") or None
            counted = of_flow in sizes and row.metric in ("n_images", "n_patients")
            reason = PART if counted else f"needs {published.NEEDED[row.cohort]}"
            if of_flow in sizes and not counted:
                reason = "not counted here"
        about = (row.value, row.computed, row.verdict, reason)
        rows.append((row.paper, row.cohort, row.metric, *about))
    table = pd.DataFrame(rows, columns=["source", "cohort", "metric", *columns[2:]])
    table["quantity"] = [
        f"{cohort}: {metric.removeprefix('n_').replace('_', ' ')}"
        for cohort, metric in zip(table["cohort"], table["metric"], strict=True)
    ]
    return table.astype({"stated": "Int64", "computed": "Int64"})[columns]


def nih_beside_papers() -> pd.DataFrame:
    """What both papers say of NIH ChestX-ray14 and its 6x200 subset, and what its table holds.

    Returns
    -------
    DataFrame
        ``section, quantity, paper says, this run, verdict``, all text.
    """
    table = metadata.nih()
    cells = nih6x200.cell_counts(table)
    printed = [nih6x200.EXCEPTIONS["Edema", "old", sex] for sex in "FM"]
    counted = [cells.loc["Edema", f"old {sex}"] for sex in "FM"]
    x, s = "X Section 2.1", "S Section 2.3"
    size = (len(table), table["patient_id"].nunique())
    enough = f"diseases with {nih6x200.PER_CELL} in each cell"
    rows = [
        *((place, "images / patients of NIH", _printed_size(place), size) for place in (x, s)),
        (x, "old patients with edema, F / M", printed, counted),
        (x, enough, [len(nih6x200.DISEASES)], [cells["satisfies"].sum()]),
    ]
    said = pd.DataFrame(rows, columns=["section", "quantity", "paper says", "this run"])
    for column in ("paper says", "this run"):
        said[column] = [" / ".join(f"{count:,.0f}" for count in counts) for counts in said[column]]
    same = said["paper says"] == said["this run"]
    return said.assign(verdict=same.map({True: published.REPRODUCED, False: published.DIFFERS}))


def _printed_size(place):
    """Images and patients of NIH, as a section prints them."""
    printed = published.table(place).query("cohort == 'nih-cxr14'")
    return [schema.row(printed, metric=m)["value"] for m in ("n_images", "n_patients")]
