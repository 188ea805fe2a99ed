"""Who is examined: image-text models by name, behind one small protocol.

A model owns its preprocessing, its tokenizer and its temperature; no chapter sets them.
``load(name)`` returns an object with

- ``preprocess(images)``: uint8 (n, h, w) to a float tensor ready for ``encode_image``;
- ``encode_image(batch)`` and ``encode_text(texts)``: L2-normalised embeddings (n, d);
- ``logit_scale``: the learned factor on cosine similarities;
- ``name`` and ``card``: what it was trained on and how;
- ``fingerprint``: changes whenever its embeddings could.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

WEIGHTS = Path(__file__).with_name("weights")


def names() -> list[str]:
    """Names that :func:`load` accepts."""
    return [card["name"] for card in cards()]


def cards() -> list[dict]:
    """Cards of all models, unbiased ones first."""
    found = [json.loads(p.read_text()) for p in WEIGHTS.glob("*.json")]
    return sorted(found, key=lambda card: card["order"])


def describe() -> pd.DataFrame:
    """One row a model: name, architecture, parameters, what it was trained on."""
    columns = ("name", "architecture", "parameters", "size_mb", "trained_on")
    return pd.DataFrame([{c: card[c] for c in columns} for card in cards()])


def choose(wanted: str) -> list[str]:
    """Model names from a chapter parameter: ``"all"`` or names separated by commas.

    Raises
    ------
    ValueError
        An unknown name; the message gives the nearest one.
    """
    known = names()
    if wanted.strip() == "all":
        return known
    chosen = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown model {name!r}: {hint}known models: {', '.join(known)}")
    if not chosen:
        raise ValueError(f"models={wanted!r} names no model; known models: {', '.join(known)}")
    return chosen


def load(name: str):
    """The model of that name, in evaluation mode on the CPU.

    Raises
    ------
    ValueError
        Unknown name, or a weights file that does not match its card.
    """
    from cxrlib.models import phantom_clip

    (name,) = choose(name)
    return phantom_clip.load(WEIGHTS / f"{name}.safetensors")
