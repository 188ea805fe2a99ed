"""How far the wording of a zero-shot question moves its answer: many pairs of prompts at once.

A pair of prompts is the ``method`` of its rows. Fairness gaps are differences "A - B" in AUC
between two groups of patients; the mean over labels is over those that are defined in both groups,
as in :func:`cxrlib.stats.fairness.gap_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxrlib import schema
from cxrlib.cohorts.cohort import Cohort
from cxrlib.predict.zeroshot import rows_of
from cxrlib.protocol import Protocol, protocol_of
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
        Such as one group of patients per row, 1 in the group and 0 outside.

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
    protocol: str | Protocol = "corrected",
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
    protocol : str or Protocol
        Its ``min_cases``: a group with fewer positive or fewer negative images of a label has no
        AUC of it.

    Returns
    -------
    Results table without intervals: a row each model, pair, and label or "mean"; with attribute
    and group "all" the AUC, with group "A - B" the difference between two groups.

    Raises
    ------
    ValueError
        Scores of another shape, a group that the cohort does not have.
    """
    gaps, min_cases = gaps or {}, protocol_of(protocol).min_cases
    truth = cohort.table[list(labels)].to_numpy(int)
    inside = {"all": {"all": np.ones(len(truth), bool)}}
    for attribute, groups in gaps.items():
        column = cohort.table[attribute].astype(object).map(str, na_action="ignore")
        inside[attribute] = {group: (column == group).to_numpy() for group in groups}
        if absent := [group for group, rows in inside[attribute].items() if not rows.any()]:
            raise ValueError(
                f"gaps: no image of cohort {cohort.name!r} has {absent[0]!r} in column "
                f"{attribute!r}; it has {', '.join(sorted(column.dropna().unique()))}"
            )
    cells, parts = {}, {}
    for attribute, groups in inside.items():
        parts[attribute] = [_cells(cohort, truth, rows, min_cases) for rows in groups.values()]
        both = _cells(cohort, truth, np.any([*groups.values()], axis=0), 0)
        said = zip(*(part["note"] for part in parts[attribute]), strict=True)
        named = [f"{group}: " if attribute in gaps else "" for group in groups]
        notes = [[n + note for n, note in zip(named, few, strict=True) if note] for few in said]
        cells[attribute] = both.assign(note=["; ".join(few) for few in notes])

    out = []
    for model, score in scores.items():
        if score.shape != (len(labels), len(names), len(truth)):
            raise ValueError(
                f"scores of {model}: shape {score.shape}; expected {len(labels)} labels, "
                f"{len(names)} pairs and {len(truth)} images"
            )
        weights = [rows for groups in inside.values() for rows in groups.values()]
        found = iter(areas(score, truth, np.array(weights).astype(np.uint8)))
        for attribute, groups in inside.items():
            value = next(found) - next(found) if attribute in gaps else next(found)
            where = {"cohort": cohort.name, "model": model, "metric": "auc"}
            where |= {"attribute": attribute, "group": " - ".join(groups)}
            out += _point_rows(value, cells[attribute], parts[attribute], labels, names, where)
    return schema.results(out)


def _cells(cohort, truth, inside, min_cases):
    """Images and patients of a group for each label, and why it has no AUC, or ""."""
    patients = cohort.table.loc[inside, "patient_id"].nunique()
    ill = truth[inside].sum(axis=0)
    cells = pd.DataFrame({"n": inside.sum(), "n_positive": ill, "n_negative": inside.sum() - ill})
    cells = cells.assign(n_patients=patients, note="")
    if patients < schema.smallest_cell():
        return cells.assign(note=schema.SUPPRESSED)
    fewest = max(1, min_cases, schema.smallest_cell())
    for side in ("negative", "positive"):  # where both are few, positive ones are named
        of_side = cells[f"n_{side}"]
        reason = of_side.astype(str) + f" {side} images, fewer than {fewest}"
        cells["note"] = cells["note"].where(of_side >= fewest, reason)
    return cells


def _point_rows(value, cells, parts, labels, names, where):
    """Rows of (labels, pairs) values, and of their mean over the labels that are defined.

    Counts of a mean are those of the scarcest label, in each of its groups (``parts``).
    """
    defined = (cells["note"] == "").to_numpy()
    value = np.where(defined[:, None], value, np.nan)
    about = [
        cell | {"label": label, "note": cell["note"] or POINT}
        for label, cell in zip(labels, cells.to_dict("records"), strict=True)
    ]
    kept = [part[defined] if defined.any() else part for part in parts]
    mean = {c: sum(part[c].min() for part in kept) for c in ("n", "n_positive", "n_negative")}
    why = zip(labels, cells["note"], strict=True)
    left_out = ", ".join(f"{label} ({reason})" for label, reason in why if reason)
    note = f"mean over {defined.sum()} of {len(labels)} labels"
    note += f"; left out: {left_out}" if left_out else ""
    note += f"; {POINT}" if defined.any() else ""
    mean |= {"n_patients": cells["n_patients"].iloc[0], "label": "mean", "note": note}
    of_mean = value[defined].mean(axis=0) if defined.any() else np.full(len(names), np.nan)
    return [
        where | of | {"method": name, "value": v}
        for of, numbers in zip([*about, mean], [*value, of_mean], strict=True)
        for name, v in zip(names, numbers, strict=True)
    ]


def interval_table(
    cohort: Cohort,
    scores: Mapping[str, np.ndarray],
    labels: Sequence[str],
    names: Sequence[str],
    pairs: Mapping[str, Sequence[tuple[str, str | None]]],
    gaps: Mapping[str, tuple[str, str]] | None = None,
    protocol: str | Protocol = "corrected",
    n_resamples: int = 500,
    seed: int = 1907,
) -> pd.DataFrame:
    """Bootstrap intervals for a few of the pairs, and of paired differences between them.

    Parameters
    ----------
    cohort, scores, labels, names, gaps : as in :func:`pair_table`
    pairs : dict
        Model to the pairs (one, other): one alone where other is None, otherwise also the
        difference between the two, unless they are the same.
    protocol, n_resamples, seed : as in :func:`cxrlib.stats.fairness.performance_table`

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
    predictions = predictions.merge(cohort.table[["image_id", *gaps]], on="image_id")
    how = {"protocol": protocol, "n_resamples": n_resamples, "seed": seed}
    out = []
    for study, found in estimated(predictions, gaps, ("auc",), **how):
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


def beside_own(measured: pd.DataFrame, roles: pd.DataFrame, own: str) -> pd.DataFrame:
    """A few pairs of each model, for a table with a line for each.

    Parameters
    ----------
    measured : results table
        From :func:`interval_table`, of one label, with the differences from ``own``.
    roles : DataFrame
        Models (index) by what their pairs are called (columns): the pairs.
    own : str
        The pair that the others are compared with.

    Returns
    -------
    The rows of these pairs, with ``pair`` (all that a pair is called) and ``what`` is in the row:
    "mean AUC", "difference", or the two groups of a gap.
    """
    called = roles.stack().rename_axis(["model", "pair"]).rename("method").reset_index()
    called = called.groupby(["model", "method"], sort=False)["pair"].agg(", ".join).reset_index()
    ending = f" - {own}"
    what = measured["group"].replace("all", "mean AUC")
    what = what.mask(measured["method"].str.endswith(ending), "difference")
    pair = measured["method"].str.removesuffix(ending)
    return called.merge(measured.assign(method=pair, what=what), on=["model", "method"])


def over_halves(halves: pd.DataFrame) -> pd.DataFrame:
    """What a choice of pairs is worth, over the halves on which it was made.

    Parameters
    ----------
    halves : DataFrame
        From :func:`chosen_on_half`, with ``model`` and ``choice``.

    Returns
    -------
    DataFrame
        One row per model, choice and ``what``: "seen", "unseen", "optimism" (seen less unseen) and
        "gain over S" (unseen less own). ``value`` is the mean over halves; nine of ten of them lie
        from ``ci_low`` to ``ci_high``, which is no interval for other patients.
    """
    of_half = halves.assign(
        optimism=halves["seen"] - halves["unseen"],
        **{"gain over S": halves["unseen"] - halves["own"]},
    )
    what = ["seen", "unseen", "optimism", "gain over S"]
    long = of_half.melt(["model", "choice"], what, "what").astype({"value": float})
    by = long.groupby(["model", "choice", "what"], sort=False)["value"]
    limits = {"ci_low": by.quantile(0.05), "ci_high": by.quantile(0.95)}
    return pd.DataFrame({"value": by.mean(), **limits}).reset_index().assign(group="all")


def turned(points: pd.DataFrame, own: str) -> pd.DataFrame:
    """With how many pairs the gap of a model has the other sign than with its own.

    Parameters
    ----------
    points : results table
        From :func:`pair_table`, with gaps.
    own : str
        The pair that the others are compared with.

    Returns
    -------
    DataFrame, one row per gap and model: ``attribute, group, model, turned`` (pairs with the other
    sign; missing where a gap is undefined), ``others`` (pairs), ``lowest, highest`` (gap).
    """
    gaps = points[(points["label"] == "mean") & (points["attribute"] != "all")]
    rows = []
    for where, of in gaps.groupby(["attribute", "group", "model"], sort=False, observed=True):
        gap = of.set_index("method")["value"]
        other = (np.sign(gap) == -np.sign(gap[own])).sum() if gap.notna().all() else np.nan
        rows.append((*where, other, len(gap) - 1, gap.min(), gap.max()))
    columns = ["attribute", "group", "model", "turned", "others", "lowest", "highest"]
    return pd.DataFrame(rows, columns=columns)


def chosen_on_half(
    score: np.ndarray,
    truth: np.ndarray,
    patient_id: np.ndarray | pd.Series,
    names: Sequence[str],
    own: str,
    n_splits: int = 20,
    seed: int = 1907,
    protocol: str | Protocol = "corrected",
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
    protocol : str or Protocol
        Its ``min_cases``: labels with fewer positive or fewer negative images in some half are
        left out.
    each : bool
        Choose for each label separately.

    Returns
    -------
    DataFrame
        One row per split and half: ``split, chosen`` (names of the pairs chosen, in the order of
        the labels), ``seen`` (their mean AUC on the half they were chosen on), ``unseen`` (on the
        other half), ``own`` (that of ``own`` on the other half), ``labels`` (how many are in the
        means). ``seen`` less ``unseen`` is the optimism of a choice. No rows where no label has
        cases enough.
    """
    code = pd.factorize(np.asarray(patient_id))[0]
    rng, m = np.random.default_rng(seed), code.max() + 1
    first = np.array([rng.permutation(m) < m // 2 for _ in range(n_splits)])[:, code]
    halves = np.stack([first, ~first], axis=1).reshape(2 * n_splits, -1).astype(np.uint8)
    ill = halves.astype(int) @ truth
    fewest = np.minimum(ill, halves.sum(axis=1, dtype=int)[:, None] - ill).min(axis=0)
    kept = fewest >= max(1, protocol_of(protocol).min_cases)
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
