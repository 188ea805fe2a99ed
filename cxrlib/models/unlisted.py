"""What models have in common that stand in no list: what is known comes from their files."""

from __future__ import annotations

from typing import Any


def card(name: str, **known: Any) -> dict:
    """A card with the keys that those of published models have.

    Parameters
    ----------
    name : str
    known : what the model's files tell, or its author does

    Returns
    -------
    dict
        Its pretraining data cannot be told (``sources_complete`` is False) unless `known` says so:
        a leak is neither known nor ruled out.
    """
    return {
        "name": name,
        "title": name,
        **dict.fromkeys(
            ("paper", "repository", "licence", "architecture", "tokenizer"), "not known"
        ),
        "parameters": None,
        "studied_in": [],
        "sources": [],
        "sources_complete": False,
        "trained_on": "cannot be told: its files do not say",
        "as_published": "paper S does not study this model",
        "prompts": {"positive": [], "negative": []},
        "files": [],
        **known,
    }


def line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or ["no message"])[0]
