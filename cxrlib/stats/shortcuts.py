"""Does a model read the device instead of the disease?

Two looks at a chest drain as a shortcut for pneumothorax: performance with and without drains
(S Fig. 4a, b), which any cohort with drain labels allows, and the shift of a score between two
renderings of the same patient that differ in one thing, which only a phantom allows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cxrlib import schema
from cxrlib.core import checks
from cxrlib.protocol import NAMES, Protocol, protocol_of
from cxrlib.stats import bootstrap, metrics
from cxrlib.stats.estimates import counts, joined
from cxrlib.stats.ranking import ranking

METRICS = ("auc", "adjusted_auprc")
CONTROLS = ("any", "without", "with")
MATCHED = "positives weighted to equal prevalence"
DEVICES = ("drain", "support_devices")  # columns of a cohort, the better one first


def device_status(table: pd.DataFrame, label: str = "Pneumothorax") -> tuple[str, pd.DataFrame]:
    """Which device a cohort names, and which of its images carry it.

    Parameters
    ----------
    table : DataFrame
        Of a cohort: ``image_id``, the finding, and a column of `DEVICES` where it has one.
    label : str
        The finding.

    Returns
    -------
    device : str
        "drain", or "support devices" of any kind where drains are not told apart.
    status : DataFrame
        ``image_id``, the finding, and the device: 1, 0, or missing where nobody knows.

    Raises
    ------
    ValueError
        The table has no column of the finding.
    """
    if label not in table:
        raise ValueError(f"the cohort has no labels of {label}, which drains are compared on")
    column = next((c for c in DEVICES if c in table), DEVICES[0])
    device = column.replace("_", " ")
    columns = ["image_id", label, column]
    return device, table.reindex(columns=columns).rename(columns={column: device})


def carriers(status: pd.DataFrame) -> pd.DataFrame:
    """How many images with and without the finding carry the device.

    Parameters
    ----------
    status : DataFrame
        Of `device_status`.

    Returns
    -------
    DataFrame of counts
        Rows "pneumothorax" (or the finding in lower case) and "controls", columns "with",
        "without" and "unknown".
    """
    label, device = status.columns[1:]
    rows, columns = [label.lower(), "controls"], ["with", "without", "unknown"]
    counts = pd.crosstab(
        status[label].map({1: rows[0], 0: rows[1]}).rename("images"),
        status[device].map({1: "with", 0: "without"}).fillna("unknown").rename(device),
    )
    return counts.reindex(index=rows, columns=columns, fill_value=0)


def arm_protocols(carriers: pd.DataFrame) -> tuple[Protocol, Protocol]:
    """The arms as published, and as corrected for a cohort of this make.

    Corrected controls are those known to be without the device. But a few that somebody happened
    to annotate are no sample of all: where the status of fewer than half of the controls is known,
    the corrected arms keep every control too.

    carriers : counts of `carriers`
    """
    published, corrected = map(protocol_of, NAMES)
    controls = carriers.loc["controls"]
    if controls["unknown"] > controls.sum() / 2:
        corrected = replace(corrected, drain_controls="any")
    return published, corrected


def drain_arms(
    predictions: pd.DataFrame,
    label: str = "Pneumothorax",
    device: str = "drain",
    protocols: Sequence[str | Protocol] = NAMES,
    *,
    n_resamples: int = 500,
    seed: int = 1907,
) -> pd.DataFrame:
    """Performance on positives with the device and without it, each against shared negatives.

    Five switches of a protocol matter:

    drain_prevalence : "raw", the arms as they stand: they differ in prevalence, and adjusted AUPRC
        does not remove prevalence fully; or "matched": positives of the larger arm are given
        weights below 1, in the sample and in every resample, so that both arms have the prevalence
        of the smaller one. AUC does not change.
    drain_controls : "any", negatives whatever device they carry; "without" the device; or "with"
    unit, interval : of resampling
    min_cases : an arm with fewer positive images, or negatives, gets NaN and a note

    A device may be unknown. Positives of unknown status belong to neither arm, as in S. Negatives
    of unknown status are controls of "any" device, but neither "with" nor "without" it. Notes say
    how many there are.

    Parameters
    ----------
    predictions : DataFrame with the device column joined in: 0, 1, or missing where unknown
    label : the finding
    device : column
    protocols : names or Protocols; rows for each of them

    Returns
    -------
    Results table for every cohort, model, method and protocol: attribute = device, groups
    "with drain", "without drain" and "with drain - without drain" (paired), metrics auc and
    adjusted_auprc. n and n_positive of the difference are those of both arms together.
    """
    status = predictions.get(device)
    predictions = schema.predictions(predictions, device)
    predictions = predictions.assign(**{device: status.to_numpy(object)})
    predictions = predictions[predictions["label"] == label]
    if predictions.empty:
        raise ValueError(f"label: no rows for {label!r} in the predictions.")
    checks.refuse(
        ~(predictions[device].isin((0, 1)) | predictions[device].isna()),
        f"predictions: column {device!r} is neither 0 nor 1",
        "0 or 1, or a missing entry where nobody knows",
        image_id=predictions["image_id"],
        **{device: predictions[device]},
    )
    rows = []
    keys = ["cohort", "model", "method"]
    for names, block in predictions.groupby(keys, sort=False, observed=True):
        for p in map(protocol_of, protocols):
            about = {"protocol": p.name} | dict(zip(keys, names, strict=True))
            about |= {"label": label, "attribute": device, "unit": p.unit, "seed": seed}
            rows += [about | row for row in _arms(block, device, p, n_resamples, seed)]
    return schema.results(rows)


def _arms(block, device, p, n_resamples, seed):
    """The rows of one model under one protocol."""
    checks.one_of("drain_controls", p.drain_controls, CONTROLS)
    unknown, ill = block[device].isna().to_numpy(), block["y_true"].to_numpy(bool)
    status = np.where(unknown, np.nan, block[device].isin((1,)))
    fits = p.drain_controls == "any" or status == (p.drain_controls == "with")
    used = np.where(ill, ~unknown, fits)
    matched = p.drain_prevalence == "matched"
    notes = [MATCHED] if matched else []
    if unknown.any():
        notes += [
            f"{(unknown & ill).sum()} positive images of unknown {device} left out, "
            f"{(unknown & ~ill).sum()} control images of unknown {device} "
            f"{'kept' if p.drain_controls == 'any' else 'left out'}"
        ]
    positive, has = ill[used], status[used] == 1
    score = block["score"].to_numpy(float)[used]
    patient = block["patient_id"].to_numpy()[used]
    names = (f"with {device}", f"without {device}")
    arm = {names[0]: positive & has, names[1]: positive & ~has}
    gap = " - ".join(names)
    fewest = max(1, p.min_cases)
    few = {
        name: f"{name}: {mask.sum()} positive images, fewer than {fewest}"
        for name, mask in arm.items()
        if mask.sum() < fewest
    }
    if (~positive).sum() < fewest:
        which = "" if p.drain_controls == "any" else f" {p.drain_controls} {device}"
        reason = f"{(~positive).sum()} control images{which}, fewer than {fewest}"
        few = dict.fromkeys(arm, reason)

    def evaluate(w):
        """(group, metric) -> (b,): both arms and their gap under weights (b, n)."""
        size = [w @ mask.astype(float) for mask in arm.values()]  # weight of positives, (b,)
        target = np.minimum(*size)
        found = {}
        for (name, mask), own in zip(arm.items(), size, strict=True):
            at = np.flatnonzero(mask | ~positive)
            w_arm = w[:, at]
            if matched:
                with np.errstate(invalid="ignore", divide="ignore"):
                    share = np.where(own > 0, target / own, 0)
                w_arm = w_arm * np.where(mask[at], share[:, None], 1.0)
            ranks = ranking(mask[at], score[at], w_arm)
            found |= {(name, metric): ranks[metric] for metric in METRICS}
        for metric in METRICS:
            found[gap, metric] = found[names[0], metric] - found[names[1], metric]
        return found

    evaluated = {}
    if len(few) < len(arm):
        evaluated = bootstrap.intervals({"arms": evaluate}, patient, p, n_resamples, seed)
    reason = few | ({gap: "; ".join(dict.fromkeys(few.values()))} if few else {})
    rows = []
    for metric in METRICS:
        for group in (*names, gap):
            if group in reason:
                found = {"value": np.nan, "n_replicates": 0, "note": reason[group]}
            else:
                found = evaluated["arms", (group, metric)]
            of = arm.get(group, positive)
            member = of | ~positive
            row = {"group": group, "metric": metric} | counts(of[member], patient[member]) | found
            rows.append(row | {"note": joined(found["note"], *notes)})
    return rows


def twin_shift(
    margin_changed: ArrayLike,
    margin_reference: ArrayLike,
    patient_id: ArrayLike,
    *,
    protocol: str | Protocol = "corrected",
    n_resamples: int = 500,
    seed: int = 1907,
    **about: str,
) -> pd.DataFrame:
    """How far a score moves when one thing in the image changes and all else stays equal.

    ``mean(changed - reference) / SD(reference)``: the paired difference of twins, in units of the
    standard deviation of the margin over images. 0 is no effect.

    Parameters
    ----------
    margin_changed, margin_reference : (n,) margins of the same images in the same order, such as
        the similarity to the positive minus that to the negative prompt, or a logit
    patient_id : (n,)
    protocol : name or Protocol; its switches unit and interval
    about : further columns of the row, such as model="phantom-resnet", label="Pneumothorax",
        group="drain added"

    Returns
    -------
    Results table with one row, metric "twin_shift".
    """
    a, b = np.asarray(margin_changed, float), np.asarray(margin_reference, float)
    patient = np.asarray(patient_id)
    if not (a.ndim == 1 and a.shape == b.shape == patient.shape):
        raise ValueError(
            f"twin_shift: shapes {a.shape}, {b.shape}, {patient.shape}; expected three equal (n,)."
        )
    checks.refuse(
        ~(np.isfinite(a) & np.isfinite(b)),
        "twin_shift: NaN or infinite margins",
        "finite numbers for both twins of every image",
        margin_changed=a,
        margin_reference=b,
    )

    p = protocol_of(protocol)
    shift = {"twins": lambda w: {"shift": metrics.twin_shift(a, b, w)}}
    found = bootstrap.intervals(shift, patient, p, n_resamples, seed)["twins", "shift"]
    row = {"attribute": "all", "group": "all", "metric": "twin_shift"} | about | found
    row |= {"unit": p.unit, "seed": seed, "note": joined(about.get("note"), found["note"])}
    row |= {"n": len(a), "n_patients": len(pd.unique(patient))}
    return schema.results([row])


def score_shifts(
    changed: pd.DataFrame,
    reference: pd.DataFrame,
    attribute: str,
    *,
    protocol: str | Protocol = "corrected",
    n_resamples: int = 500,
    seed: int = 1907,
) -> pd.DataFrame:
    """:func:`twin_shift` of each model's probability, on the log-odds scale, between twins.

    Parameters
    ----------
    changed, reference : predictions tables
        Of one label, the same images in the same order; scores in (0, 1).
    attribute : column of both, such as whether a film shows the finding: a row for each group
    protocol, n_resamples, seed : see `twin_shift`

    Returns
    -------
    Results table, one row per model and group.

    Raises
    ------
    ValueError
        The two tables do not hold the same models and images in the same order.
    """
    same = ["model", "image_id", attribute]
    if changed[same].to_numpy().tolist() != reference[same].to_numpy().tolist():
        raise ValueError("score_shifts: expected the same models and images in the same order")
    changed, reference = (scores.reset_index(drop=True) for scores in (changed, reference))
    sampling = {"protocol": protocol, "n_resamples": n_resamples, "seed": seed}
    rows = []
    for (model, group), after in changed.groupby(["model", attribute], sort=False):
        before = reference.loc[after.index, "score"]
        margins = (np.log(p / (1 - p)) for p in (after["score"].to_numpy(), before.to_numpy()))
        about = after[["cohort", "label"]].iloc[0].to_dict()
        about |= {"model": model, "attribute": attribute, "group": group}
        rows.append(twin_shift(*margins, after["patient_id"], **sampling, **about))
    return pd.concat(rows, ignore_index=True)


def device_readers(
    gaps: pd.DataFrame, shifts: pd.DataFrame, trained: Mapping[str, bool | None], bar: float
) -> pd.DataFrame:
    """Which models read the device: what is known of them, and what the two looks say.

    Parameters
    ----------
    gaps : results table
        Of `drain_arms`, the gap of one metric: one that lies above 0 says yes.
    shifts : results table
        Of `twin_shift`, of films without the finding: one that lies above `bar` says yes.
    trained : dict of model -> bool or None
        Whether it was trained where the device gives the finding away; None where nobody knows.
    bar : float
        In standard deviations.

    Returns
    -------
    DataFrame of text, one row per model
        ``model, trained on drains, arms say, twins say``: "yes", "no", and "undefined",
        "not known", or "not asked" of a model that is in only one of the tables.
    """
    says = {"above": "yes", "around": "no", "below": "no", "undefined": "undefined"}
    arms, twins = (
        {row["model"]: says[schema.side(row, of)] for _, row in table.iterrows()}
        for table, of in ((gaps, 0), (shifts, bar))
    )
    known = {True: "yes", False: "no", None: "not known"}
    rows = [
        (m, known[of], arms.get(m, "not asked"), twins.get(m, "not asked"))
        for m, of in trained.items()
    ]
    return pd.DataFrame(rows, columns=["model", "trained on drains", "arms say", "twins say"])
