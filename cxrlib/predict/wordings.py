"""How far the wording of a zero-shot question moves its answer: many pairs of prompts at once.

A pair of prompts is the ``method`` of its rows. Fairness gaps are differences "A - B" in AUC
between two groups of patients; the mean over labels is over those that are defined in both groups,
as in :func:`cxrlib.stats.fairness.gap_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import schema
from cxrlib.cohorts.cohort import Cohort
from cxrlib.predict.zeroshot import rows_of
from cxrlib.stats.estimates import difference, estimated, group_gaps, rows
from cxrlib.stats.ranking import ranker

POINT = "no interval: a point value"


def areas(score: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC of every label and pair under each of several weightings of the images.

    Parameters
    ----------
    score : float array (labels, pairs, n)
        See :func:`cxrlib.predict.zeroshot.pair_scores`.
    truth : 0/1 array (n, labels)
    weights : array (w, n) of numbers >= 0
        Such as one group of patients a row, 1 in the group and 0 outside.

    Returns
    -------
    float array (w, labels, pairs), in [0, 1]; NaN where one class alone has weight
    """
    weights = np.asfortranarray(weights)  # one image's entries side by side, as `ranker` likes it
    found = np.empty((len(weights), *score.shape[:2]))
    for k, of_label in enumerate(score):
        for p, of_pair in enumerate(of_label):
            found[:, k, p] = ranker(truth[:, k], of_pair)(weights)["auc"]
    return found


def pair_table(
    cohort: Cohort,
    scores: Mapping[str, np.ndarray],
    labels: Sequence[str],
    names: Sequence[str],
    gaps: Mapping[str, tuple[str, str]] | None = None,
    min_cases: int = 10,
) -> pd.DataFrame:
    """AUC and fairness gaps of every pair: point values, for each label and their mean.

    Parameters
    ----------
    cohort : Cohort
    scores : dict
        Model to its scores (labels, pairs, n).
    labels : sequence of str
        Finding columns of the cohort.
    names : sequence of str
        Of the pairs.
    gaps : dict, optional
        Attribute to its two groups (A, B): ``{"sex": ("F", "M")}``.
    min_cases : int
        A group with fewer positive or fewer negative images of a label has no AUC of it.

    Returns
    -------
    Results table without intervals: a row each model, pair, and label or "mean"; with attribute
    and group "all" the AUC, with group "A - B" the difference between two groups.

    Raises
    ------
    ValueError
        Scores of another shape, a group that the cohort does not have.
    """
    gaps = gaps or {}
    truth = cohort.table[list(labels)].to_numpy(int)
    inside = {("all", "all"): np.ones(len(truth), bool)}
    for attribute, groups in gaps.items():
        column = cohort.table[attribute].astype(object).map(str, na_action="ignore")
        for group in groups:
            if not (column == group).any():
                raise ValueError(
                    f"gaps: no image of cohort {cohort.name!r} has {group!r} in column "
                    f"{attribute!r}; it has {', '.join(sorted(column.dropna().unique()))}"
                )
            inside[attribute, group] = (column == group).to_numpy()
    everyone = _cells(cohort, truth, inside["all", "all"], min_cases)
    cells, parts = {"all": everyone}, {"all": [everyone]}
    for attribute, groups in gaps.items():
        parts[attribute] = [_cells(cohort, truth, inside[attribute, g], min_cases) for g in groups]
        notes = [
            c["note"].where(c["note"] == "", f"{g}: " + c["note"])
            for g, c in zip(groups, parts[attribute], strict=True)
        ]
        both = _cells(cohort, truth, inside[attribute, groups[0]] | inside[attribute, groups[1]], 0)
        joined = notes[0].str.cat(notes[1], sep="; ").str.strip("; ")
        cells[attribute] = both.assign(note=joined)

    out = []
    for model, score in scores.items():
        if score.shape != (len(labels), len(names), len(truth)):
            raise ValueError(
                f"scores of {model}: shape {score.shape}; expected {len(labels)} labels, "
                f"{len(names)} pairs and {len(truth)} images"
            )
        weights = np.array([*inside.values()]).astype(np.uint8)
        found = dict(zip(inside, areas(score, truth, weights), strict=True))
        about = {"cohort": cohort.name, "model": model, "metric": "auc"}
        values = {("all", "all"): found["all", "all"]}
        for attribute, (a, b) in gaps.items():
            values[attribute, f"{a} - {b}"] = found[attribute, a] - found[attribute, b]
        for (attribute, group), value in values.items():
            where = about | {"attribute": attribute, "group": group}
            out += _point_rows(value, cells[attribute], parts[attribute], labels, names, where)
    return schema.results(out)


def _cells(cohort, truth, inside, min_cases) -> pd.DataFrame:
    """Images and patients of a group for each label, and why it has no AUC, or ""."""
    patients = cohort.table.loc[inside, "patient_id"].nunique()
    ill = truth[inside].sum(axis=0)
    cells = pd.DataFrame({"n": inside.sum(), "n_positive": ill, "n_negative": inside.sum() - ill})
    fewest = max(1, min_cases, schema.smallest_cell())
    few = cells[["n_positive", "n_negative"]].min(axis=1) < fewest
    which = ["positive" if k < fewest else "negative" for k in cells["n_positive"]]
    reason = [
        f"{cells[f'n_{side}'].iloc[k]} {side} images, fewer than {fewest}"
        for k, side in enumerate(which)
    ]
    if patients < schema.smallest_cell():
        few, reason = few | True, [schema.SUPPRESSED] * len(cells)
    return cells.assign(n_patients=patients, note=np.where(few, reason, ""))


def _point_rows(value, cells, parts, labels, names, where) -> list[dict]:
    """Rows of (labels, pairs) values, and of their mean over the labels that are defined.

    Counts of a mean are those of the scarcest label, in each of its groups (``parts``).
    """
    defined = (cells["note"] == "").to_numpy()
    out = []
    for k, (label, cell) in enumerate(zip(labels, cells.to_dict("records"), strict=True)):
        about = where | cell | {"label": label, "note": cell["note"] or POINT}
        numbers = value[k] if defined[k] else np.full(len(names), np.nan)
        out += [about | {"method": n, "value": v} for n, v in zip(names, numbers, strict=True)]
    kept = [part[defined] if defined.any() else part for part in parts]
    mean = {c: sum(part[c].min() for part in kept) for c in ("n", "n_positive", "n_negative")}
    why = zip(labels, cells["note"], strict=True)
    left_out = ", ".join(f"{label} ({reason})" for label, reason in why if reason)
    note = f"mean over {defined.sum()} of {len(labels)} labels"
    note += f"; left out: {left_out}" if left_out else ""
    note += f"; {POINT}" if defined.any() else ""
    about = where | mean | {"n_patients": cells["n_patients"].iloc[0], "label": "mean"}
    numbers = value[defined].mean(axis=0) if defined.any() else np.full(len(names), np.nan)
    return out + [
        about | {"note": note, "method": n, "value": v} for n, v in zip(names, numbers, strict=True)
    ]


def interval_table(
    cohort: Cohort,
    scores: Mapping[str, np.ndarray],
    labels: Sequence[str],
    names: Sequence[str],
    pairs: Mapping[str, Sequence[tuple[str, str | None]]],
    gaps: Mapping[str, tuple[str, str]] | None = None,
    **options,
) -> pd.DataFrame:
    """Bootstrap intervals for a few of the pairs, and of paired differences between them.

    Parameters
    ----------
    cohort, scores, labels, names, gaps : as in :func:`pair_table`
    pairs : dict
        Model to the pairs (one, other): one alone where other is None, otherwise also the
        difference between the two, unless they are the same.
    options : as in :func:`cxrlib.stats.fairness.performance_table`

    Returns
    -------
    Results table, for each label and their mean: AUC and gaps of each pair; AUC of differences,
    with method "one - other". All come from the same resamples of patients.
    """
    gaps = gaps or {}
    place = {name: p for p, name in enumerate(names)}
    parts = []
    for model, few in pairs.items():
        for name in dict.fromkeys(name for pair in few for name in pair if name):
            parts += [
                rows_of(cohort, model, name, label, cohort.table[label], score[place[name]])
                for label, score in zip(labels, scores[model], strict=True)
            ]
    predictions = pd.concat(parts, ignore_index=True)
    people = cohort.table[["image_id", *gaps]]
    out = []
    for study, found in estimated(
        predictions.merge(people, on="image_id"), gaps, ("auc",), **options
    ):
        table = {key: e for key, e in found.items() if key.attribute == "all"}
        for key in list(table):
            for one, other in pairs[key.model]:
                if key.method == one and other not in (None, one):
                    both = found[key], found[key._replace(method=other)]
                    table[key._replace(method=f"{one} - {other}")] = difference(*both, one, other)
        for attribute, groups in gaps.items():
            table |= group_gaps(found, attribute, [groups])
        out += rows(table, study)
    return schema.results(out)


def chosen_on_half(
    score: np.ndarray,
    truth: np.ndarray,
    patient_id: ArrayLike,
    names: Sequence[str],
    own: str,
    n_splits: int = 20,
    seed: int = 1907,
    min_cases: int = 10,
    each: bool = False,
) -> pd.DataFrame:
    """Choose the pair of the highest mean AUC on half of the patients, report it on the others.

    Parameters
    ----------
    score, truth : as in :func:`areas`
    patient_id : (n,)
        All images of a patient are in one half.
    names : sequence of str
        Of the pairs.
    own : str
        The pair that would have been taken without a choice.
    n_splits : int
        Random splits into halves; each half is chosen on once.
    seed : int
    min_cases : int
        Labels with fewer positive or fewer negative images in some half are left out.
    each : bool
        Choose for each label separately.

    Returns
    -------
    DataFrame
        One row per split and half: ``split, chosen`` (names of the pairs chosen, in the order of
        the labels), ``seen`` (their mean AUC on the half they were chosen on), ``unseen`` (on the
        other half), ``own`` (that of ``own`` on the other half), ``labels`` (how many are in the
        means).
        ``seen`` less ``unseen`` is the optimism of a choice. No rows where no label has cases
        enough.
    """
    code = pd.factorize(np.asarray(patient_id))[0]
    rng, m = np.random.default_rng(seed), code.max() + 1
    first = np.array([rng.permutation(m) < m // 2 for _ in range(n_splits)])[:, code]
    halves = np.stack([first, ~first], axis=1).reshape(2 * n_splits, -1).astype(np.uint8)
    ill = halves.astype(int) @ truth
    fewest = np.minimum(ill, halves.sum(axis=1, dtype=int)[:, None] - ill).min(axis=0)
    kept = fewest >= max(1, min_cases)
    columns = ["split", "chosen", "seen", "unseen", "own", "labels"]
    if not kept.any():
        return pd.DataFrame(columns=columns)
    found = areas(score[kept], truth[:, kept], halves)  # (2 n_splits, labels, pairs)
    if not each:
        found = found.mean(axis=1, keepdims=True)
    other = found.reshape(n_splits, 2, *found.shape[1:])[:, ::-1].reshape(found.shape)
    best = found.argmax(axis=2)[:, :, None]
    return pd.DataFrame(
        {
            "split": np.arange(2 * n_splits) // 2,
            "chosen": ["; ".join(names[k] for k in row) for row in best[:, :, 0]],
            "seen": np.take_along_axis(found, best, 2).mean(axis=(1, 2)),
            "unseen": np.take_along_axis(other, best, 2).mean(axis=(1, 2)),
            "own": other[:, :, list(names).index(own)].mean(axis=1),
            "labels": int(kept.sum()),
        }
    )
