"""The published models: their cards, and the code that belongs to each."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds, and names and cards need none of it
    import numpy as np
    import pandas as pd

    from cxrlib.models.recipe import Recipe

CARDS = Path(__file__).with_name("cards")


@cache
def cards() -> dict[str, dict]:
    """The cards of all published models by name, in the order of their cards."""
    found = [tomllib.loads(p.read_text(encoding="utf-8")) for p in CARDS.glob("*.toml")]
    return {card["name"]: card for card in sorted(found, key=lambda card: card["order"])}


def recipe(name: str) -> Recipe:
    """The code of a published model."""
    family = import_module(f"cxrlib.models.{cards()[name]['family']}")
    return family.MODELS[name]


def entrances(film: np.ndarray) -> pd.DataFrame:
    """What enters the networks that S's code prepares films for otherwise than their authors.

    Parameters
    ----------
    film : (height, width) of uint8

    Returns
    -------
    DataFrame, one row per such model: its name, then pixels, mean and SD of the input by the
    authors' code and by S's, and "off by", the mean absolute difference of a pixel (missing where
    the sizes differ).
    """
    import pandas as pd

    from cxrlib.models.images import each

    rows = []
    for name in cards():
        step = recipe(name)
        row: dict[str, object] = {"model": name}
        if step.preprocess_s is None:
            continue
        theirs, by_s = (each(how)(film) for how in (step.preprocess, step.preprocess_s))
        named = {"authors": theirs, "S": by_s}
        row |= {f"pixels, {who}": "x".join(map(str, x.shape[2:])) for who, x in named.items()}
        row |= {f"mean, {who}": float(x.mean()) for who, x in named.items()}
        row |= {f"SD, {who}": float(x.std()) for who, x in named.items()}
        alike = theirs.shape == by_s.shape
        row["off by"] = float((theirs - by_s).abs().mean()) if alike else None
        rows.append(row)
    return pd.DataFrame(rows)
