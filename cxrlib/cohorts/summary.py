"""Who is in a cohort: the flow into it, its Table 1, what goes with a group, its counts.

Of a credentialed cohort, nothing that these tables hold rests on fewer than
:data:`cxrlib.guard.MIN_CELL` patients, nor can it be had by subtraction from what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrlib import guard, schema
from cxrlib.cohorts import associations, metadata
from cxrlib.cohorts.cohort import Cohort
from cxrlib.cohorts.table import RACES, SEXES

PARTS = ("sex", "age_group", "race", "view", "drain", "disease", "split")
"""Columns whose entries divide a cohort; Table 1 has those that the cohort has."""

NAMES = {"age_group": "age group", "drain": "chest drain", "disease": "class"}
MISSING = "not recorded"
NO_AGE_GROUP = "no group (under 18, impossible or not recorded)"
OTHER = "other or not recorded"
OTHERS = "other groups"  # too small to be shown alone
ORDER = {
    "sex": SEXES,
    "age_group": metadata.AGE_GROUPS,
    "race": RACES,
    "view": ("PA", "AP"),
    "drain": ("yes", "no"),
    "split": ("train", "valid", "test"),
}


def _guarded(cohort):
    return cohort.access == "credentialed"


# --- the flow --------------------------------------------------------------------------------


def flow(cohort: Cohort) -> pd.DataFrame:
    """Step by step from the release to the cohort.

    Returns
    -------
    DataFrame
        ``step, images, patients`` (what remains), ``images_out, patients_out`` (what this step
        left out; 0 in the first) and ``left_out``, the reason ("" where nothing was left out). A
        patient is left out with the last of their images. In a credentialed cohort, a step that
        left out fewer than ten images or patients is told together with its neighbour.
    """
    table = cohort.flow[["step", "images", "patients"]].astype({"images": int, "patients": int})
    given = cohort.flow.get("left_out", pd.Series("", index=table.index))
    steps = table.assign(left_out=given.fillna("")).to_dict("records")
    if _guarded(cohort):
        steps = [_without_small_counts(step) for step in _coarser(steps)]
    table = pd.DataFrame(steps)
    for column in ("images", "patients"):
        table[f"{column}_out"] = -table[column].diff().fillna(0).astype(int)
    lost = table[["images_out", "patients_out"]].any(axis=1) | (table.index == 0)
    table["left_out"] = table["left_out"].where(lost, "")
    return table[["step", "images", "patients", "images_out", "patients_out", "left_out"]]


def _coarser(steps):
    """Steps joined until none left out a number of images or patients that is small."""
    steps = list(steps)
    while few := [i for i in range(1, len(steps)) if _few_out(steps[i - 1], steps[i])]:
        first = min(few[0], len(steps) - 2)  # with the step after it, the last with the one before
        steps[first : first + 2] = [_joined(*steps[first : first + 2])]
    return steps


def _without_small_counts(step):
    return step | {c: guard.text(step[c], "the flow of the cohort") for c in ("step", "left_out")}


def _few_out(before, after):
    return any(0 < before[c] - after[c] < guard.MIN_CELL for c in ("images", "patients"))


def _joined(first, second):
    told = {k: filter(None, [first[k], second[k]]) for k in ("step", "left_out")}
    return second | {k: "; ".join(dict.fromkeys(texts)) for k, texts in told.items()}


# --- groups ----------------------------------------------------------------------------------


def clearest(cohort: Cohort, wanted: Sequence[str]) -> int:
    """Place of the film that shows a finding best: it shows no other, and is most severe.

    The finding is the first of those wanted that the cohort has. How severe it is only phantoms
    know; of other films the first is taken. 0 where none shows the finding alone.
    """
    finding = next(f for f in wanted if f in cohort.findings)
    alone = cohort.table[list(cohort.findings)].sum(axis=1) == 1
    degree = cohort.table[f"severity_{finding}" if cohort.planted else finding]
    return int(np.argmax(alone * degree))


def group_sizes(
    table: pd.DataFrame, attributes: Sequence[str], findings: Sequence[str]
) -> pd.DataFrame:
    """How large the groups are, and which finding is rarest in each.

    Parameters
    ----------
    table : DataFrame
        Of a cohort. Images without an entry form the group "other or not recorded".
    attributes, findings : columns of it

    Returns
    -------
    DataFrame
        ``attribute, group, images, patients, fewest positives, for``; once credentialed data were
        loaded, small counts are missing, and those from which these follow.
    """
    rows = []
    for attribute in attributes:
        column = table[attribute].astype(object)
        for group, images in table.groupby(column.where(column.notna(), OTHER)):
            positives = images[list(findings)].sum()
            counts = (len(images), images["patient_id"].nunique(), int(positives.min()))
            rows.append((attribute, group, *counts, positives.idxmin()))
    counts = ["images", "patients", "fewest positives"]
    sizes = pd.DataFrame(rows, columns=["attribute", "group", *counts, "for"])
    for together in (counts[:2], counts[2:]):
        sizes = guard.suppress(sizes, counts=together, values=(), by=["attribute"])
    return sizes


# --- Table 1 ---------------------------------------------------------------------------------


def characteristics(cohort: Cohort, by: str = "sex") -> pd.DataFrame:
    """Table 1 as a tidy table: how many images and patients have what, over all and by group.

    Parameters
    ----------
    cohort : Cohort
    by : str
        Column with the groups, such as ``"sex"`` or ``"race"``. Images without an entry form a
        group of their own.

    Returns
    -------
    DataFrame, one row per characteristic, level and group ("all" first)
        ``characteristic, level, group``; ``n`` images and ``n_patients`` patients of whom this is
        true; ``share`` of the group's images, or, in the rows of characteristic "patients", images
        a patient; and for characteristic "age" ``median, low, high``, years (low and high are the
        quartiles) over the ``n`` images with an age. In a credentialed cohort, numbers that rest
        on fewer than ten patients are missing, as are numbers from which these could be had, and
        levels and groups of fewer than ten patients are taken together, if need be with the
        largest.

    Raises
    ------
    ValueError
        ``by`` is no column.
    """
    table = cohort.table
    if by not in table:
        known = ", ".join(c for c in PARTS if c in table)
        raise ValueError(f"by: the cohort {cohort.name} has no {by!r}; it has {known}")
    parts = {c: _levels(table, c) for c in dict.fromkeys((*PARTS, by)) if c in table}
    if _guarded(cohort):
        parts = {c: _large_enough(levels, table["patient_id"]) for c, levels in parts.items()}
    table = table.assign(**parts)
    members = {"all": np.ones(len(table), dtype=bool)}
    members |= {group: (table[by] == group).to_numpy() for group in _in_order(table[by], by)}
    rows = []
    for characteristic, levels in _partitions(table, cohort.findings, by):
        hidden = _hidden(levels, members, table["patient_id"]) if _guarded(cohort) else ()
        for level, has in levels.items():
            if level is None:  # the images without a finding: told by those with it
                continue
            for group, member in members.items():
                row = _row(table, has & member, member, characteristic)
                if (level, group) in hidden:
                    few = row["n_patients"] < guard.MIN_CELL
                    row |= dict.fromkeys(row if few else ("n", "n_patients", "share"))
                about = {"characteristic": characteristic, "level": level, "group": group}
                rows.append(about | row)
    counts = {"n": "Int64", "n_patients": "Int64"}
    return pd.DataFrame(rows).astype(counts | dict.fromkeys(("share", *QUARTILES), float))


QUARTILES = {"median": 0.5, "low": 0.25, "high": 0.75}


def _row(table, rows, member, characteristic):
    n, n_patients = int(rows.sum()), table.loc[rows, "patient_id"].nunique()
    found = {"n": n, "n_patients": n_patients, "share": np.nan, **dict.fromkeys(QUARTILES, np.nan)}
    if characteristic == "age":
        ages = table.loc[rows, "age"].quantile(list(QUARTILES.values()))
        return found | dict(zip(QUARTILES, ages, strict=True))
    whole = n_patients if characteristic == "patients" else int(member.sum())
    return found | {"share": n / whole if whole else np.nan}


def _partitions(table, findings, by):
    """(characteristic, {level: which images (n,)}) where the levels divide the images."""
    everyone = np.ones(len(table), dtype=bool)
    yield "images", {"": everyone}
    yield "patients", {"": everyone}
    known = table["age"].notna().to_numpy()
    yield "age", {"median": known, None: ~known}
    for column in PARTS:
        if column in table and column != by:
            levels = _in_order(table[column], column)
            if column == "split" and len(levels) == 1:
                continue
            characteristic = NAMES.get(column, column)
            yield characteristic, {x: (table[column] == x).to_numpy() for x in levels}
    for finding in findings:
        has = table[finding].to_numpy() == 1
        yield "finding", {finding: has, None: ~has}


def _levels(table, column):
    """Entries as text, missing ones under a name."""
    entries = table[column]
    if column == "drain":
        entries = entries.map({0: "no", 1: "yes"})
    missing = NO_AGE_GROUP if column == "age_group" else MISSING
    return entries.astype(object).where(entries.notna(), missing)


def _in_order(levels, column):
    """Distinct entries, known ones in their order, others by how common they are."""
    found = list(levels.value_counts(sort=True).index)
    rank = {level: i for i, level in enumerate(ORDER.get(column, ()))}
    last = {OTHERS: 1, MISSING: 2, NO_AGE_GROUP: 2}
    return sorted(found, key=lambda x: (last.get(x, 0), rank.get(x.split(" or ")[0], len(rank))))


def _large_enough(groups, patient_id):
    """Groups of fewer than ten patients under one name, with the largest if that is still few."""
    sizes = patient_id.groupby(groups).nunique().sort_values()
    small = list(sizes.index[sizes < guard.MIN_CELL])
    together = groups.isin(small)
    if 0 < patient_id[together].nunique() < guard.MIN_CELL:
        small.insert(0, sizes.index[-1])
        return groups.mask(groups.isin(small), " or ".join(small))
    return groups.mask(together, OTHERS)


def _hidden(levels, members, patient_id):
    """Pairs (level, group) that are hidden: few patients, or they would give a hidden one away.

    Levels add up to the size of a group, and groups to all. So what is hidden in the groups is a
    block: all levels and all groups with a small cell, and with them the next smallest levels and
    groups, until no line of the block is a single cell or small as a whole. Levels and groups are
    treated alike, so that race by sex hides what sex by race hides. What is small over all is
    hidden there too.
    """

    def few(rows):
        return 0 < patient_id[rows].nunique() < guard.MIN_CELL

    def closed(hidden, of, across):
        """The entries of ``of`` to hide, so that they are not small together in any of across."""
        by_size = sorted(of, key=lambda x: patient_id[of[x]].nunique())
        hidden = [x for x in by_size if x in hidden]
        further = [x for x in by_size if x not in hidden]
        while hidden and further:
            together = np.any([of[x] for x in hidden], axis=0)
            if len(hidden) > 1 and not any(few(together & rows) for rows in across):
                break
            hidden.append(further.pop(0))
        return hidden

    groups = {group: rows for group, rows in members.items() if group != "all"}
    over_all = closed([x for x, has in levels.items() if few(has)], levels, [members["all"]])
    small = [(x, g) for x, has in levels.items() for g, rows in groups.items() if few(has & rows)]
    block = closed({x for x, _ in small} | set(over_all), levels, groups.values())
    across = closed({g for _, g in small}, groups, levels.values())
    return {(x, g) for x in block for g in across} | {(x, "all") for x in over_all}


def table_one(found: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as it is printed: "1,234 (56.7 %)", one row per characteristic, one column per group.

    Parameters
    ----------
    found : DataFrame
        From :func:`characteristics`.
    """
    cells = [_cell(row) for row in found.itertuples(index=False)]
    lines = found.assign(cell=cells, level=found["level"].map(_in_words))
    groups = list(dict.fromkeys(found["group"]))
    by = ["characteristic", "level"]
    wide = lines.pivot_table("cell", by, "group", aggfunc="first", sort=False)[groups]
    return wide.rename(columns=_in_words).reset_index().rename_axis(columns=None)


def _in_words(group):
    return " or ".join({"F": "female", "M": "male"}.get(part, part) for part in group.split(" or "))


def _cell(row):
    if row.characteristic == "age" and pd.notna(row.median):
        return f"{row.median:.0f} [{row.low:.0f}, {row.high:.0f}]"
    if pd.isna(row.n):
        return "hidden"
    if row.characteristic == "images":
        return f"{row.n:,}"
    if row.characteristic == "patients":
        return f"{row.n_patients:,}"
    if row.characteristic == "age":
        return "undefined"
    return f"{row.n:,} ({100 * row.share:.1f} %)"


# --- what goes with a group ------------------------------------------------------------------


def confounders(cohort: Cohort, attribute: str) -> pd.DataFrame:
    """View, age and findings of each group: what a model could see instead of the group.

    Parameters
    ----------
    cohort : Cohort
    attribute : str
        One of ``cohort.attributes``.

    Returns
    -------
    results table
        A row per group and metric, with 95 % intervals over patients: ``"share_ap"`` (AP films
        among those with a recorded view; as for prevalence, see
        :func:`cxrlib.cohorts.associations.proportion`), ``"mean_age"`` (years) and, one row per
        finding, ``"prevalence"``.

    Raises
    ------
    ValueError
        The attribute is no column.
    """
    if attribute not in cohort.table:
        raise ValueError(
            f"attribute: the cohort {cohort.name} has no {attribute!r}; it has "
            f"{', '.join(cohort.attributes) or 'none'}"
        )
    table = cohort.table[cohort.table[attribute].notna()]
    rows = []
    for group in _in_order(table[attribute], attribute):
        images = table[table[attribute] == group]
        viewed, aged = images[images["view"].notna()], images[images["age"].notna()]
        share_ap = associations.proportion(viewed["view"] == "AP", viewed["patient_id"])
        mean_age = associations.mean(aged["age"], aged["patient_id"])
        found = {("share_ap", "all"): share_ap, ("mean_age", "all"): mean_age}
        for finding in cohort.findings:
            share = associations.proportion(images[finding], images["patient_id"])
            found["prevalence", finding] = share
        for (metric, label), row in found.items():
            row.pop("design_effect", None)
            about = {"cohort": cohort.name, "attribute": attribute, "group": group, "label": label}
            note = "" if row["n"] else "not recorded in this group"
            rows.append(about | {"metric": metric, "unit": "patient", "note": note} | row)
    return schema.results(rows)


def widest_difference(confounders: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The finding that differs most between two groups of one attribute.

    Parameters
    ----------
    confounders : sequence of results tables
        From :func:`confounders`, one per attribute.

    Returns
    -------
    results table, 2 rows
        The prevalence in the group where it is highest, then where it is lowest; no row where no
        two groups have a number.
    """
    rows = pd.concat([schema.results([]), *confounders], ignore_index=True)
    rows = rows[(rows["metric"] == "prevalence") & rows["value"].notna()]
    ends = rows.groupby(["attribute", "label"])["value"].agg(["idxmax", "idxmin", "nunique"])
    ends = ends[ends["nunique"] > 1]
    if ends.empty:
        return rows.iloc[:0]
    pairs = [
        rows.loc[[high, low]] for high, low in zip(ends["idxmax"], ends["idxmin"], strict=True)
    ]
    return max(pairs, key=lambda pair: pair["value"].iloc[0] - pair["value"].iloc[1])
