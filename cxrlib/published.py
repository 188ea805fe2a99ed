"""The numbers printed in the two papers, as a results table, and the comparison with them.

S = Sourget et al. 2025: Table 1 (zero-shot), Table 2 (probes), the drain range of section 3.3.
X = Sun et al. 2025: the numbers printed in its text; its figures are bar charts without values.
Percentages are kept as fractions. Cohort sizes are rows too (metric "n_images", "n_patients").
"""

from importlib.resources import files

import numpy as np
import pandas as pd

from cxrlib import schema

REPRODUCED = "reproduced"
WITHIN = "within interval"
DIFFERS = "differs"
OTHER_COHORT = "not comparable (another cohort)"
NOT_RUN = "not run"

ROUNDING = {"S": 0.005, "X": 0.0005}  # half a unit of the last digit that each paper prints
QUANTITY = ["method", "label", "attribute", "group", "metric"]


def load():
    """Every published number: a results table with protocol "as_published"."""
    return schema.results(pd.read_csv(files("cxrlib") / "data" / "published.csv"))


def table(name):
    """The published numbers of one table or figure.

    name : paper and artefact, such as "S Table 1", "S Table 2", "X Fig. 3c"

    Raises
    ------
    ValueError : for an unknown name; lists the known ones.
    """
    everything = load()
    names = everything["paper"] + " " + everything["artefact"]
    if not (names == name).any():
        raise ValueError(f"name: unknown {name!r}; expected one of {', '.join(names.unique())}.")
    return everything[names == name].reset_index(drop=True)


def compare(results, published):
    """Set computed numbers beside published ones and say how they agree.

    A computed number is compared with a published one if cohort, model and quantity (method,
    label, attribute, group, metric) are the same; of several protocols, "as_published" counts.

    Parameters
    ----------
    results, published : results tables

    Returns
    -------
    DataFrame: the published rows with `computed`, `computed_low`, `computed_high` and `verdict`:

    reproduced : the numbers agree up to rounding in print
    within interval : the computed interval holds the published number
    differs : it does not
    not comparable (another cohort) : the quantity was computed, but on another cohort
    not run : the quantity was not computed, or is undefined
    """
    first = results.assign(_later=results["protocol"].fillna("as_published").ne("as_published"))
    keys = ["cohort", "model", *QUANTITY]
    computed = (
        first[first["value"].notna()]
        .sort_values("_later", kind="stable")
        .drop_duplicates(keys)
        .rename(columns={"value": "computed", "ci_low": "computed_low", "ci_high": "computed_high"})
    )
    merged = published.merge(
        computed[[*keys, "computed", "computed_low", "computed_high"]], on=keys, how="left"
    )
    cohorts = computed.groupby(QUANTITY)["cohort"].agg(set).to_dict()
    elsewhere = [
        bool(cohorts.get(quantity, set()) - {cohort})
        for cohort, quantity in zip(
            merged["cohort"], merged[QUANTITY].itertuples(index=False, name=None), strict=True
        )
    ]
    merged["verdict"] = np.select(
        [
            (merged["computed"] - merged["value"]).abs() <= merged["paper"].map(ROUNDING) + 1e-9,
            merged["value"].between(merged["computed_low"], merged["computed_high"]),
            merged["computed"].notna(),
            elsewhere,
        ],
        [REPRODUCED, WITHIN, DIFFERS, OTHER_COHORT],
        NOT_RUN,
    )
    return merged
