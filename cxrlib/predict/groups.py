"""The two groups of an attribute that should not matter to an answer, from a cohort's table."""

from __future__ import annotations

import pandas as pd

from cxrlib.cohorts.metadata import young_or_old
from cxrlib.core.errors import Lacks

ALIKE = "race, scanners alike"
GROUPS = {
    "drain": ("drain", "none"),
    "sex": ("F", "M"),
    "age60": ("old", "young"),
    "site": ("C", "A"),
    "race": ("Black", "White"),
    ALIKE: ("Black", "White"),
}
"""Attribute to its two groups: the one that is served worse, or set apart, first; differences are
those of the first minus the second."""


def group_of(table: pd.DataFrame, attribute: str) -> pd.Series:
    """The group of each row of a cohort's table, in the words of :data:`GROUPS`.

    Other groups, such as a third race, keep theirs; `age60` is made of the years where the table
    lacks it.

    Raises
    ------
    Lacks
        The attribute is not recorded.
    """
    if attribute == "age60" and "age" in table:
        return young_or_old(table["age"])
    attribute = "race" if attribute == ALIKE else attribute
    if attribute not in table:
        raise Lacks(f"the cohort does not record {attribute}")
    known = table[attribute]
    return known.map({1: "drain", 0: "none"}) if attribute == "drain" else known
