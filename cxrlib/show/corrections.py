"""Numbers beside those that a reader asked for: labels without known errors, borrowed strength."""

from __future__ import annotations

import pandas as pd

from cxrlib.show.notebook import keep, show
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


def beside_own(table: pd.DataFrame, first: str) -> None:
    """Show crossed groups, those with borrowed strength below the others, and say which they are.

    Parameters
    ----------
    table : results table
        As `cxrlib.stats.borrowed.crossed` returns it, of one metric.
    first : str
        The model that is shown; all are kept.
    """
    keep(table)
    table = table[table["model"] == first]
    known = table.dropna(subset="value")
    lent = known["note"].str.startswith("borrowed strength")
    crossed = table["attribute"].iloc[0].replace("_", " ")
    show(
        table,
        f"AUC of {first} by {crossed}: own films, or, where the method says structured, borrowed "
        "strength",
        rows=["method", "group"],
        columns="label",
    )
    say(f"""
**Borrowed strength.** {lent.sum()} of {len(lent)} numbers in the groups of {crossed} are not those
of the group's own films, which are too few: they are what its attributes add up to, and a part of
its own. They suppose that the group differs from that sum no more than others do from theirs
({{doc}}`29_crossed_groups`). {why_undefined(table)}
""")
