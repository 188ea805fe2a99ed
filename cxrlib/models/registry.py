"""The published models: their cards, and the code that belongs to each."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds, and names and cards need none of it
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
