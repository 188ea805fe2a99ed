"""The page of a sweep: every number over the grid, and what the chapter found at each point."""

from __future__ import annotations

import html
from collections.abc import Sequence

import pandas as pd

from cxrlib.book import compare_runs
from cxrlib.book.sweep import PREFIX, SEED
from cxrlib.show.notebook import rendered
from cxrlib.show.words import fmt_interval, plural

STYLE = """
body { font: 16px/1.5 sans-serif; margin: 2em auto; max-width: 100em; padding: 0 1em }
table { border-collapse: collapse; font-size: 14px; margin-bottom: 2em }
th, td { border-bottom: 1px solid #ddd; padding: 3px 10px; text-align: left; vertical-align: top }
.cxr-caption { font-weight: bold; margin: 1em 0 .3em }
.cxr-scroll { overflow-x: auto }
.cxr-whole { white-space: nowrap }
td.text { min-width: 40em; white-space: pre-line }
img { max-width: 60em; width: 100% }
"""


def over_the_grid(table: pd.DataFrame, swept: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The results of a sweep by attribute, metrics side by side.

    Parameters
    ----------
    table : DataFrame
        From :func:`cxrlib.book.sweep.joined`.
    swept : sequence of str
        Parameters of the grid.

    Returns
    -------
    dict
        Attribute to a table of text: one row for each value of the swept parameters but the seed,
        and each entry of the other columns that tell numbers apart; one column a metric. A cell
        has the mean, and in brackets the smallest and the largest over seeds, and in how many it
        is defined if not in all; of one run, its interval.
    """
    others = [f"{PREFIX}{name}" for name in swept if name != SEED]
    named = [c for c in compare_runs.KEYS if c not in ("metric", "attribute")]
    rows = [*others, *(c for c in named if table[c].astype(str).nunique() > 1)]
    by = ["attribute", *(rows or ["model"]), "metric"]
    groups = table.assign(**table[by].fillna("").astype(str)).groupby(by, sort=False)
    found = groups["value"].agg(["mean", "min", "max", "count", "size"])
    for limit, of_run in (("min", "ci_low"), ("max", "ci_high")):
        found[limit] = found[limit].mask(found["size"] == 1, groups[of_run].first())
    cells = pd.Series([_cell(**row) for row in found.to_dict("records")], found.index)
    order = [found.index.unique("metric"), cells.index.droplevel("metric").unique()]
    wide = cells.unstack("metric").reindex(index=order[1], columns=order[0])
    wide.index.names = [name.removeprefix(PREFIX) for name in wide.index.names]
    parts = wide.groupby("attribute", sort=False)
    return {of: part.droplevel("attribute").dropna(axis=1, how="all") for of, part in parts}


def _cell(mean, min, max, count, size):
    some = f" in {count:.0f} of {size:.0f}" if 0 < count < size else ""
    return fmt_interval(mean, min, max) + some


def page(
    title: str, table: pd.DataFrame, texts: pd.DataFrame, swept: Sequence[str], plot: str = ""
) -> str:
    """The page, as HTML.

    Parameters
    ----------
    title : str
    table, texts : DataFrame
        From :func:`cxrlib.book.sweep.joined`.
    swept : sequence of str
        Parameters of the grid.
    plot : str
        Address of the figure, if there is one.
    """
    given = [f"{PREFIX}{name}" for name in swept]
    n_runs = len(table[given].drop_duplicates())
    many = SEED in swept and table[f"{PREFIX}{SEED}"].nunique() > 1
    brackets = "the smallest and the largest over seeds" if many else "the interval of the run"
    parts = [
        f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>",
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<p>{plural(n_runs, 'point')} of a grid over {html.escape(', '.join(swept))}. "
        f"Cells hold the mean, and in brackets {brackets}.</p>",
    ]
    parts += [f'<p><img src="{plot}" alt="The metric over the grid; numbers below."></p>'] * bool(
        plot
    )
    short = texts[texts["name"] == "in short"] if len(texts) else texts
    if len(short):
        said = short.set_index(given).rename_axis(list(swept))[["text"]]
        parts.append(rendered(said, "In short, at each point", counts=())[0])
    for attribute, cells in over_the_grid(table, swept).items():
        caption = "All together" if attribute == "all" else f"By {attribute}"
        parts.append(rendered(cells, caption, missing="–", counts=())[0])
    return "\n".join(parts) + "\n"
