"""Numbers against labels as they are noted, beside those with known errors taken out."""

from __future__ import annotations

import pandas as pd

from cxrlib.show.notebook import show
from cxrlib.show.say import say
from cxrlib.show.words import each, listed, why_undefined

AS_NOTED, CORRECTED = "as noted", "corrected"


def beside_noted(table: pd.DataFrame, first: str) -> None:
    """Show corrected numbers beside the uncorrected, and say what they are of all models.

    Parameters
    ----------
    table : results table
        As `cxrlib.stats.label_error.corrected_table` or `corrected_arms` returns it: one metric,
        and each method of the models twice, once with ", labels corrected" behind its name.
    first : str
        The model of the table; the sentence has all.
    """
    noted = ~table["method"].str.endswith(f", labels {CORRECTED}")
    table = table.assign(labels=noted.map({True: AS_NOTED, False: CORRECTED}))
    show(
        table[table["model"] == first],
        f"AUC of {first} against the labels as noted, and with their stated errors taken out",
        rows=["label", "attribute", "group"],
        columns="labels",
    )
    whole = table[table["attribute"] == "all"]
    if whole.empty:  # of arms, their difference
        whole = table[table["group"].str.contains(" - ")]
    said = (
        f"{model}, {label}, {each(rows, 'labels')}"
        for (model, label), rows in whole.groupby(["model", "label"], sort=False)
    )
    what = f"AUC, {listed(dict.fromkeys(whole['group'].replace('all', 'over all films')))}"
    say(f"""
**The labels err.** {what}, as noted and with the stated errors taken out (the intervals hold the
uncertainty of these rates): {"; ".join(said)}. The correction holds if, among ill films and among
healthy ones, errors do not go with the score; if the faint are missed, it promises too much.
{why_undefined(whole)}
""")
