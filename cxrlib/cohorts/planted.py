"""What is planted in a phantom cohort, and what of it is found: by counting, and between twins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd

from cxrlib.cohorts import associations, phantom
from cxrlib.cohorts.cohort import Cohort
from cxrlib.core import toml

MEANING = toml.beside(__file__)["meaning"]


def dials(cohort: Cohort) -> pd.DataFrame:
    """How the dials of a phantom cohort are set, and what they mean.

    Returns
    -------
    DataFrame
        ``dial, group, set to, meaning``, all text; one row per dial, or per group of a dial that
        is set by group ("none" where it is set for none).
    """
    rows = []
    for dial, setting in cohort.recipe["dials"].items():
        by_group = {"": setting}
        if isinstance(setting, dict):
            by_group = {
                f"{attribute.replace('_', ' ')} {group}": value
                for attribute, values in setting.items()
                for group, value in values.items()
            } or {"": "none"}
        for group, value in by_group.items():
            text = value if isinstance(value, str) else f"{value:g}"
            rows.append((dial, group, text, MEANING[dial]))
    return pd.DataFrame(rows, columns=["dial", "group", "set to", "meaning"])


def turned(cohort: Cohort) -> list[str]:
    """The dials of a phantom cohort that do not stand at their defaults."""
    default = asdict(phantom.Dials())
    return [dial for dial, value in cohort.recipe["dials"].items() if value != default[dial]]


def counted(cohort: Cohort) -> pd.DataFrame:
    """Planted shares that anybody can count in the table of a phantom cohort, and their counts.

    A race's own site takes its patients with the probability of the dial, and a third of the
    others, who go to a site by chance.

    Returns
    -------
    DataFrame
        ``share of`` (text), ``planted`` in [0, 1], then as
        :func:`cxrlib.cohorts.associations.proportion`, and ``verdict``: "found" where the interval
        holds the planted share, "missed" where not, "undefined" where nothing could be counted.
    """
    table, set_to = cohort.table, cohort.recipe["dials"]
    ill = table["severity_Pneumothorax"] > 0
    people = table.drop_duplicates("patient_id")
    own = people["race"].map(dict(zip(phantom.RACES, phantom.SITES, strict=True)))
    by_race = set_to["site_by_race"] + (1 - set_to["site_by_race"]) / len(phantom.SITES)
    shares = {
        "drains with a pneumothorax": (set_to["drain_if_pneumothorax"], table["drain"][ill]),
        "drains without one": (set_to["drain_if_none"], table["drain"][~ill]),
        "patients at the site of their race": (by_race, people["site"] == own),
    }
    rows = []
    for what, (planted, outcome) in shares.items():
        found = associations.proportion(outcome, table.loc[outcome.index, "patient_id"])
        inside = found["ci_low"] <= planted <= found["ci_high"]
        verdict = "found" if inside else "missed" if found["n"] else "undefined"
        rows.append({"share of": what, "planted": planted, **found, "verdict": verdict})
    return pd.DataFrame(rows)


def noted(
    table: pd.DataFrame,
    finding: str,
    missed: float | Mapping = 0.0,
    added: float | Mapping = 0.0,
    *,
    faint: float = 0.0,
    seed: int = 1907,
) -> np.ndarray:
    """Wrong labels planted on a phantom table: what somebody notes of a finding, (n,) of 0/1.

    The dial ``underreport`` does as much to the labels and reports of a whole cohort. This one
    also notes what is not there, and can miss the faint. The fate of a film hangs on the seed and
    its image_id alone; no pixel changes.

    Parameters
    ----------
    table : DataFrame
        Of a phantom cohort; ``severity_<finding>`` is the truth.
    finding : str
    missed, added : float or dict
        Probability that a finding which is there is not noted, and that one is noted which is not
        there: one number, or attribute -> group -> number as in the dials (where several apply
        they multiply, where none does it is 0).
    faint : float
        0: misses fall on all severities alike; 1: the faintest is missed with twice the
        probability, the clearest never. The mean stays ``missed``.
    seed : int

    Raises
    ------
    ValueError
        A probability outside [0, 1], also of the faintest film.
    """
    severity = table[f"severity_{finding}"].to_numpy(float)
    clear = (severity - 0.15) / 0.85  # uniform in [0, 1] where the finding is there
    miss = _chance(table, missed) * (1 + faint * (1 - 2 * clear))
    chance = np.where(severity > 0, 1 - miss, _chance(table, added))
    if ((chance < 0) | (chance > 1)).any():
        raise ValueError(
            f"noted: missed={missed}, added={added}, faint={faint}; expected probabilities from 0 "
            "to 1, missed * (1 + faint) too."
        )
    names = f"{seed} {finding} " + table["image_id"].astype(str)
    draw = pd.util.hash_array(names.to_numpy(object)) / 2.0**64
    return (draw < chance).astype(np.int8)


def _chance(table, dial):
    """(n,) the probability of each row under a dial: a number, or attribute -> group -> number."""
    if not isinstance(dial, Mapping):
        return np.full(len(table), float(dial))
    factors = [table[attribute].map(groups) for attribute, groups in dial.items()]
    known = pd.concat(factors, axis=1).notna().any(axis=1)
    return np.where(known, np.prod([f.fillna(1.0) for f in factors], axis=0), 0.0)


def switches(cohort: Cohort) -> dict[str, tuple[Cohort, pd.Series]]:
    """Twins of a phantom cohort with one bias off, and which images each is meant to change.

    Returns
    -------
    dict of what is changed -> (twin cohort, bool per image)
        "no drains", "no fading" (the contrast of findings as drawn) and "all scanners alike".
    """
    table, set_to = cohort.table, cohort.recipe["dials"]
    ill = (table.filter(like="severity_") > 0).any(axis=1)
    visible = pd.Series(1.0, table.index)  # the product of the contrast dials of an image
    for attribute, factors in set_to["contrast"].items():
        visible *= table[attribute].map(factors).fillna(1)
    # The scanner of the first site is the plain one.
    signed = (table["site"] != phantom.SITES[0]) & (set_to["site_signature"] > 0)
    return {
        "no drains": (phantom.twin(cohort, drain=0), table["drain"] == 1),
        "no fading": (phantom.twin(cohort, contrast={}), ill & (visible != 1)),
        "all scanners alike": (phantom.twin(cohort, site_signature=0.0), signed),
    }


def reached(cohort: Cohort, twins: Mapping[str, tuple[Cohort, pd.Series]]) -> pd.DataFrame:
    """Which images differ from their twins, beside those that should.

    Parameters
    ----------
    cohort : Cohort
        A phantom cohort.
    twins : dict
        As from :func:`switches`.

    Returns
    -------
    DataFrame, one row per change
        ``change``; ``meant to change``, ``of these changed`` and ``others changed`` (images);
        ``mean shift``, by which a pixel differs on average where a change is meant (grey levels of
        256; missing where none is meant); ``clearest``, the position of the image that differs
        most.
    """
    everything = np.arange(len(cohort.table))
    images, rows = cohort.images(everything).astype(np.int16), []
    for change, (twin, meant) in twins.items():
        shift = np.abs(twin.images(everything) - images).mean(axis=(1, 2))
        rows.append(
            {
                "change": change,
                "meant to change": int(meant.sum()),
                "of these changed": int((shift[meant] > 0).sum()),
                "others changed": int((shift[~meant] > 0).sum()),
                "mean shift": shift[meant].mean() if meant.any() else np.nan,
                "clearest": int(shift.argmax()),
            }
        )
    return pd.DataFrame(rows)
