"""How often a label is right, and for whom, from films of which the truth is known too.

Such films are an *audit*: a predictions table of the label, in which y_true is the truth about a
film and score what was noted of it, 0 or 1. What its error rates do to the numbers of a model is
in `cxrlib.stats.label_error`.
"""

from collections.abc import Mapping
from typing import Unpack

import numpy as np
import pandas as pd

from cxrlib import schema
from cxrlib.stats import estimates as est
from cxrlib.stats import fairness, label_error, metrics

RATES = ("sensitivity", "specificity")
VALUES = ("ppv", "npv")


def swapped(audit: pd.DataFrame) -> pd.DataFrame:
    """The audit with note and truth in each other's place.

    Sensitivity and specificity of a swapped audit are the positive and the negative predictive
    value of the label.
    """
    return audit.assign(y_true=audit["score"].astype(int), score=audit["y_true"].astype(float))


def shares(
    audit: pd.DataFrame,
    attributes: est.Attributes = (),
    pairs: est.Pairs | None = None,
    **options: Unpack[est.Options],
) -> pd.DataFrame:
    """Sensitivity, specificity, PPV and NPV of a label, or gaps in them, with intervals.

    Parameters
    ----------
    audit : predictions table of the label
    attributes : as in `cxrlib.stats.fairness.performance_table`; with `pairs` one attribute
    pairs : list of (A, B): gaps "A - B" in place of the values, see `fairness.gap_table`
    options : match, mean_over_labels, protocol, n_resamples and seed, as there

    Returns
    -------
    Results table with the metrics sensitivity, specificity, ppv and npv. n_positive counts films
    that are truly positive for the first two, films noted positive for the others.
    """
    out = []
    for table, names in ((audit, RATES), (swapped(audit), VALUES)):
        if pairs is None:
            found = fairness.performance_table(table, RATES, attributes, **options)
        else:
            found = fairness.gap_table(table, attributes, pairs, metrics=RATES, **options)
        found["metric"] = found["metric"].replace(dict(zip(RATES, names, strict=True)))
        out.append(found)
    return pd.concat(out, ignore_index=True)


def as_noted(audit: pd.DataFrame, attribute: str, pairs: est.Pairs, **model: float) -> pd.DataFrame:
    """What labels as wrong as those of an audit make of a model that treats groups alike.

    Parameters
    ----------
    audit : predictions table of the label, of one finding, with the attribute
    attribute, pairs : such as "sex", [("F", "M")]
    model : auc, sensitivity and specificity of the model in every group, against the truth; 1, a
        perfect model, where not given

    Returns
    -------
    DataFrame, one row per pair and metric: group "A - B", metric, truth, noted, change; see
    `cxrlib.stats.label_error.distorted`, whose rates and prevalences are those of the audit.
    """
    out = []
    for pair in pairs:
        given = {}
        for group in pair:
            own = audit[audit[attribute] == group]
            y, said = own["y_true"].to_numpy(), own["score"].to_numpy()
            rates = metrics.sensitivity(y, said), metrics.specificity(y, said)
            label = dict(zip(("label_sensitivity", "label_specificity"), rates, strict=True))
            given[group] = label | {"prevalence": y.mean()} | model
        table = label_error.distorted(given)
        out.append(table[table["group"] == " - ".join(pair)])
    return pd.concat(out, ignore_index=True)


def carried_over(
    audit: pd.DataFrame,
    attribute: str,
    noted: Mapping[str, float],
    pairs: est.Pairs | None = None,
    **sampling: Unpack[est.Sampling],
) -> pd.DataFrame:
    """Sensitivity and specificity of a label in other films, of which only the notes are known.

    Holds where films came into the audit by their note and their group alone: then PPV and NPV
    are those of all films, and with the share q of films that are noted

    ``Se = q PPV / (q PPV + (1 - q) (1 - NPV))``,
    ``Sp = (1 - q) NPV / ((1 - q) NPV + q (1 - PPV))``.

    Parameters
    ----------
    audit : predictions table of the label
    attribute : column whose groups are looked at
    noted : group -> q, the share of the other films of that group that are noted, in (0, 1); taken
        as known without error
    pairs : list of (A, B) for gaps "A - B"; all pairs of groups by default
    sampling : protocol, n_resamples and seed, as in `cxrlib.stats.fairness.performance_table`

    Returns
    -------
    Results table of the groups and of the gaps between them; counts are those of the audit.

    Raises
    ------
    ValueError
        For a group of the audit without a share, or a share that is not between 0 and 1.

    Source: Begg and Greenes 1983.
    """
    out = []
    for study in est.studies(audit, attribute, **sampling):
        groups = study.groups[attribute]
        for group in groups:
            if not 0 < noted.get(group, np.nan) < 1:
                raise ValueError(
                    f"noted: {noted.get(group)!r} for {attribute} {group!r}; expected the share of "
                    "films that are noted in each group, between 0 and 1."
                )
        fewest = max(1, study.protocol.min_cases, schema.smallest_cell())
        cells, statistics = {}, {}
        for names, y, score, image in study.blocks():
            for group in groups:
                at = np.flatnonzero(study.member(attribute, group)[image])
                key = (*names, attribute, group)
                why = est.not_given(y[at], study.patient[image[at]], fewest)
                cells[key] = y[at], image[at], why
                if not why:
                    statistics[key] = _elsewhere(y[at], score[at], image[at], noted[group])
        found = est.evaluated(study, cells, statistics, RATES)
        gaps = est.group_gaps(found, attribute, est.pairs_of(groups, pairs, None))
        out += est.rows(found | gaps, study)
    return schema.results(out)


def _elsewhere(y, score, image, q):
    """Function of the audit's weights (b, n) that gives both rates at a noted share q, (b,)."""
    noted, truth = score > 0, y.astype(float)

    def evaluate(weights):
        own = est.take(weights, image)
        ppv = metrics.sensitivity(noted, truth, own)
        npv = metrics.specificity(noted, truth, own)
        ill, well = q * ppv + (1 - q) * (1 - npv), (1 - q) * npv + q * (1 - ppv)
        return {"sensitivity": q * ppv / ill, "specificity": (1 - q) * npv / well}

    return evaluate
