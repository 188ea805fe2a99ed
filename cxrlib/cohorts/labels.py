"""Labels as labellers write them, 1, 0, -1 and blank, and what a policy makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from cxrlib.cohorts.cohort import Cohort
from cxrlib.core import toml


class Policy(NamedTuple):
    """What becomes of labels that are neither present (1) nor absent (0)."""

    uncertain: str  # -1: "negative", "positive" or "left out"
    missing: str  # not mentioned in the report: "negative" or "left out"

    def __str__(self) -> str:
        return f"uncertain (-1): {self.uncertain}, blank: {self.missing}"


Labels = Literal["as_published", "uncertain_positive", "certain", "stated"]
POLICIES = {name: Policy(**policy) for name, policy in toml.beside(__file__).items()}
"""Ways to turn 1, 0, -1 and blank into 0 and 1, by name.

S sets blanks to 0. What became of its -1 is not known, since the file it reads is not public;
"as_published" takes them as absent. "certain" leaves out images with an uncertain finding.
"stated" leaves out images with an uncertain or an unmentioned one, except where "No Finding" (a
column ``no_finding``) is 1, which denies them all.
"""


def decide(
    rows: pd.DataFrame,
    findings: Sequence[str],
    policy: str,
    steps: list[tuple[str, pd.DataFrame, str]],
    beside: Sequence[str] = (),
) -> pd.DataFrame:
    """Rows with findings of 0 and 1, without those that the policy leaves out.

    Parameters
    ----------
    rows : DataFrame
        ``findings`` and ``beside`` hold 1, 0, -1 or nothing.
    findings : sequence of str
        Columns for which images are left out.
    policy : a key of :data:`POLICIES`
    steps : list
        Of the exclusion flow; those of the policy are added.
    beside : sequence of str
        Further columns to turn into 0 and 1, for which no image is left out.
    """
    how, raw = POLICIES[policy], rows[list(findings)]
    uncertain, blank = raw.eq(-1), raw.isna()
    if how.uncertain == "left out":
        kept = ~uncertain.any(axis=1)
        rows, blank = rows[kept], blank[kept]
        steps.append(("without uncertain findings", rows, "a finding is uncertain"))
    if how.missing == "left out":
        stated = ~blank.any(axis=1)
        if "no_finding" in rows:
            stated |= rows["no_finding"].eq(1)
        rows = rows[stated]
        steps.append(("with every finding stated", rows, "a finding is not mentioned"))
    present = [1, -1] if how.uncertain == "positive" else [1]
    columns = [*findings, *beside]
    return rows.assign(**{c: rows[c].isin(present).astype(np.int8) for c in columns})


def underreported(cohort: Cohort, findings: Sequence[str], share: float, seed: int) -> pd.DataFrame:
    """The labels that reports would leave which omit a share of the findings of women.

    Parameters
    ----------
    cohort : Cohort
        A phantom's reports omit what its twin's do; of other cohorts, findings are drawn.
    findings : columns of the cohort
    share : float in [0, 1]
    seed : int
        Of the draw.

    Returns
    -------
    DataFrame, one row per image and finding: image_id, label, y_true.
    """
    from cxrlib.cohorts import phantom

    findings = list(findings)
    if cohort.planted:
        left = phantom.twin(cohort, underreport={"sex": {"F": share}}).table
    else:
        left = cohort.table[["image_id", *findings]].copy()
        omitted = np.random.default_rng(seed).random((len(left), len(findings))) < share
        omitted &= (cohort.table[["sex"]] == "F").to_numpy()
        left[findings] = left[findings].where(~omitted, 0)
    return left.melt("image_id", findings, "label", "y_true")
