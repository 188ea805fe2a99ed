"""The zero-shot evaluation of S under a protocol: as its code does it, or corrected.

As published, one random stream runs through findings, groups and metrics in turn, every interval
has resamples of its own, and everything is rounded to two digits before means are taken
(section 2.1, Table 1, Fig. 1). It is kept so that published numbers can be traced to the digit.
"""

import numpy as np
import pandas as pd

from cxrlib import schema
from cxrlib.core import levels
from cxrlib.protocol import Protocol, protocol_of
from cxrlib.stats import bootstrap, fairness
from cxrlib.stats.estimates import Attributes, check_known, counts
from cxrlib.stats.ranking import ranker, ranking

METRICS = ("auc", "adjusted_auprc")
MODEL = ["cohort", "model", "method"]


def performance_by_protocol(
    predictions: pd.DataFrame,
    attributes: Attributes = (),
    protocol: str | Protocol = "as_published",
    *,
    n_resamples: int = 1000,
    seed: int = 1907,
) -> pd.DataFrame:
    """AUC and adjusted AUPRC over all images and in each group (S Table 1, Fig. 1).

    Parameters
    ----------
    predictions : DataFrame of `cxrlib.schema.predictions`, with the attribute columns joined in
    attributes : names of columns, or a dict name -> groups that orders them; by default groups
        come in order of first appearance
    protocol : name or Protocol; switches unit, stream, interval, digits, over_labels, min_cases
    n_resamples : int
    seed : int; as published, each model starts anew with ``numpy.random.RandomState(seed)``, and
        finding by finding draws for all images, then group by group, first for AUC, then for
        adjusted AUPRC

    Returns
    -------
    Results table. As published, the row "mean" is the mean over findings of rounded values, and
    ``auc_sd_over_labels`` their standard deviation (divisor: findings - 1), which S prints as +-.

    Raises
    ------
    ValueError
        For an unknown protocol, attribute or group, or a malformed predictions table.
    """
    p = protocol_of(protocol)
    if p.stream == "running":
        table = _running(predictions, attributes, p, n_resamples, seed)
    else:
        table = fairness.performance_table(
            predictions,
            METRICS,
            attributes,
            mean_over_labels=p.over_labels == "interval",
            protocol=p,
            n_resamples=n_resamples,
            seed=seed,
        )
    if p.digits is not None:
        numbers = ["value", "ci_low", "ci_high"]
        table[numbers] = table[numbers].round(p.digits)
    if p.over_labels == "standard deviation":
        means = pd.DataFrame(_means(table, p.digits))
        table = schema.results(pd.concat([table, means], ignore_index=True))
    return table.assign(protocol=p.name)


def spread_over_labels(results: pd.DataFrame) -> pd.DataFrame:
    """The standard deviation over findings, which S prints behind its means as +-.

    Parameters
    ----------
    results : results table
        Rows of single findings over all images; any others are left out.

    Returns
    -------
    Results table with label "mean" and metrics such as "auc_sd_over_labels" (divisor: findings -
    1), undefined where a finding has no value. A spread between findings, not an uncertainty.
    """
    single = results[(results["label"] != "mean") & (results["attribute"] == "all")]
    values = single.groupby([*MODEL, "protocol", "metric"], sort=False)["value"]
    spread = values.agg(lambda found: found.std(ddof=1, skipna=False)).reset_index()
    spread = spread.assign(label="mean", attribute="all", group="all")
    spread["metric"] += "_sd_over_labels"
    spread["note"] = np.where(
        spread["value"].notna(),
        "standard deviation over the findings: a spread, not an uncertainty",
        "undefined: a finding has no value",
    )
    return schema.results(spread)


def like_table_1(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric as S prints them: its spread over findings below the mean.

    table : results table, with the rows of `spread_over_labels`. Returns rows of one name per
    label, the last of which is "SD over findings".
    """
    below = schema.rows(table, metric=f"{metric}_sd_over_labels").assign(label="SD over findings")
    return pd.concat([schema.rows(table, metric=metric), below], ignore_index=True)


def interval_widths(results: pd.DataFrame) -> pd.DataFrame:
    """How wide the intervals of single findings in groups are, by metric and protocol.

    Parameters
    ----------
    results : results table
        Of one model, with the rows of several protocols.

    Returns
    -------
    DataFrame, one row per metric and protocol: ``groups`` (bars), ``defined`` (with a value), and
    ``mean width`` over the bars of which every protocol gives an interval.
    """
    bars = results[(results["label"] != "mean") & (results["attribute"] != "all")]
    bars = schema.rows(bars, metric=list(METRICS))
    bars = bars.assign(width=bars["ci_high"] - bars["ci_low"])
    known = bars.groupby(["metric", "label", "attribute", "group"])["width"].transform("count")
    bars["width"] = bars["width"].where(known == bars["protocol"].nunique())
    summary = bars.groupby(["metric", "protocol"]).agg(
        groups=("value", "size"), defined=("value", "count"), width=("width", "mean")
    )
    return summary.rename(columns={"width": "mean width"})


def _running(predictions, attributes, p, n_resamples, seed):
    """All intervals from one stream per model, as S's code draws them."""
    predictions = schema.predictions(predictions, *attributes)
    rows = []
    for names, block in predictions.groupby(MODEL, sort=False, observed=True):
        about = dict(zip(MODEL, names, strict=True)) | {"unit": p.unit, "seed": seed}
        stream = np.random.RandomState(seed)
        for label, images in block.groupby("label", sort=False, observed=True):
            for attribute, group, part in _groups(images, attributes):
                for metric in METRICS:
                    where = {"label": label, "attribute": attribute, "group": group}
                    rows.append(about | where | _estimate(part, metric, stream, p, n_resamples))
    return schema.results(rows)


def _groups(images, attributes):
    yield "all", "all", images
    for attribute in attributes:
        column = images[attribute].astype(object)
        given = attributes[attribute] if isinstance(attributes, dict) else None
        found = list(column.dropna().unique())
        groups = found if given is None else [levels.text(g) for g in given]
        check_known(groups, found, f"groups of {attribute!r}")
        for group in groups:
            yield attribute, group, images[column == group]


def _estimate(images, metric, stream, p, n_resamples):
    """One row: a metric, and the interval from the next stretch of the stream."""
    y, score = images["y_true"].to_numpy(bool), images["score"].to_numpy(float)
    row = {"metric": metric, **counts(y, images["patient_id"])}
    n, n_positive, fewest = row["n"], row["n_positive"], max(1, p.min_cases)
    if min(n_positive, n - n_positive) < fewest:
        reason = f"{n_positive} positive and {n - n_positive} negative images; needs {fewest} each"
        return row | {"value": np.nan, "note": reason}
    weights = _draws(images["patient_id"], n_resamples, stream, p.unit)
    rank = ranker(y, score)
    step = bootstrap.chunk_length(n)
    chunks = (weights[start : start + step] for start in range(0, n_resamples, step))
    repeated = np.concatenate([rank(w)[metric] for w in chunks])
    kept = repeated[weights[:, y].any(axis=1)]  # without a positive: skipped and not replaced
    left_out = None
    if p.interval != "percentile":
        resamples = bootstrap.Resamples(images["patient_id"], unit=p.unit)
        left_out = np.concatenate([rank(w)[metric] for w in resamples.jackknife()])
    value = ranking(y, score)[metric]
    found = bootstrap.interval(value, kept, left_out, method=p.interval)
    if not np.isfinite(kept).all():  # a percentile over them is undefined in S's code
        reason = "no interval: a resample had positives alone"
        found |= {"ci_low": np.nan, "ci_high": np.nan, "note": reason}
    return row | found


def _draws(patient_id, n_resamples, stream, unit):
    """The next resamples of a legacy NumPy stream: ``stream.randint(m, size=m)``, m units.

    The stream moves on by n_resamples * m numbers. Returns (n_resamples, n) of uint16: how often
    each image was drawn.
    """
    code = np.arange(len(patient_id)) if unit == "image" else pd.factorize(patient_id)[0]
    m = code.max() + 1
    drawn = np.empty((m, n_resamples), dtype=np.uint16)
    for b in range(n_resamples):
        drawn[:, b] = np.bincount(stream.randint(m, size=m), minlength=m)
    return drawn.take(code, axis=0).T


def _means(table, digits):
    """Rows of S's summary over findings: mean and standard deviation of the (rounded) values."""
    overall = table[(table["attribute"] == "all") & (table["label"] != "mean")]
    rows = []
    for (*names, metric), found in overall.groupby([*MODEL, "metric"], sort=False, observed=True):
        where = dict(zip(MODEL, names, strict=True)) | {"n": found["n"].max()}
        where |= {"label": "mean", "attribute": "all", "group": "all"}
        defined = found["value"].dropna()
        n = f"over {len(defined)} of {len(found)} findings"
        mean, sd = defined.mean(), defined.std(ddof=1)
        if digits is not None:
            mean, sd = np.round([mean, sd], digits)
        rows.append(where | {"metric": metric, "value": mean, "note": f"mean {n}"})
        spread = f"standard deviation {n}: a spread between findings, not an uncertainty"
        rows.append(where | {"metric": f"{metric}_sd_over_labels", "value": sd, "note": spread})
    return rows
