"""The leak register: which models were pretrained on the source of a cohort.

A patient whose films a model has read with their reports is recognised by it, not diagnosed.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxrlib import models
from cxrlib.core.used import SEEDED

SHARED = "trained on this source: patients may be in both"
APART = "trained on this source, on other patients"
NOT_KNOWN = "no shared source known"
OPEN = "cannot be told"
UNTRAINED = "trained on nothing"


def leaks(names: list[str], cohort: Any) -> pd.DataFrame:
    """What each model was pretrained on, set beside the source of a cohort.

    Parameters
    ----------
    names : list of str
        Names as :func:`cxrlib.models.choose_models` returns them.
    cohort : Cohort
        Its ``sources`` are compared with those of the models' cards.

    Returns
    -------
    DataFrame
        One row per model: ``model, pretrained_on, shared, verdict``. The verdict is one of

        - trained on this source: patients may be in both
        - trained on this source, on other patients: the split and the seed of a phantom say so
        - no shared source known
        - cannot be told: the card's list of sources is not complete, since data were collected
          from the web or not published; or the cohort names no source
        - trained on nothing: weights computed from names
    """
    return pd.DataFrame([_row(name, cohort) for name in names])


def _row(name, cohort):
    card = models.model_card(name)
    untrained = name.startswith(SEEDED)
    sources = [] if untrained else card["sources"]
    complete = untrained or card.get("sources_complete", True)
    shared = [source for source in sources if source in cohort.sources]
    if untrained:
        verdict = UNTRAINED
    elif shared:
        verdict = APART if shared == ["phantom"] and _other_patients(card, cohort) else SHARED
    else:
        verdict = NOT_KNOWN if complete and cohort.sources else OPEN
    listed = sources if complete else [*sources, "data that cannot be listed"]
    return {
        "model": name,
        "pretrained_on": ", ".join(listed) or "nothing",
        "shared": ", ".join(shared) or "none",
        "verdict": verdict,
    }


def _other_patients(card, cohort):
    """Whether no phantom patient of the cohort was in the training of a small model.

    The seed makes the persons, so that another seed means other ones; of the same persons, the
    models have seen those of the training split.
    """
    same_persons = cohort.recipe["seed"] == card.get("cohort_seed", cohort.recipe["seed"])
    return not (same_persons and cohort.table["split"].eq("train").any())
