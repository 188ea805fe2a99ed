"""Who is examined: image-text models by name, behind one small protocol.

A model owns its preprocessing, its tokenizer and its temperature; no chapter sets them.
``load_model(name)`` returns an :class:`~cxrlib.models.encoder.Encoder` with

- ``preprocess(images)``: uint8 (n, h, w) to a float tensor ready for ``encode_image``;
- ``encode_image(batch)`` and ``encode_text(texts)``: L2-normalised embeddings (n, d);
- ``logit_scale``: the learned factor on cosine similarities;
- ``name`` and ``card``: what it was trained on and how;
- ``fingerprint``: changes whenever its embeddings could.

The small models of the book come with it. The published ones are built from their own files on
your disk; ``seeded:NAME`` builds one with weights that mean nothing, for trying things out. Must
not know who is studied, nor what may be shown.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING

import pandas as pd

from cxrlib.core import used
from cxrlib.core.errors import nearest
from cxrlib.core.used import SEEDED
from cxrlib.models import files, registry

if TYPE_CHECKING:  # they import torch, which names and cards do without
    from cxrlib.models.encoder import Encoder
    from cxrlib.models.loading import Ensemble
    from cxrlib.protocol import Protocol

WEIGHTS = Path(__file__).with_name("weights")


def model_names() -> list[str]:
    """Names of the small models that come with the book."""
    return [card["name"] for card in model_cards()]


def published_models() -> list[str]:
    """Names of the published models."""
    return list(registry.cards())


def model_cards() -> list[dict]:
    """Cards of the models that come with the book, unbiased ones first."""
    found = [json.loads(p.read_text()) | {"sources": ["phantom"]} for p in WEIGHTS.glob("*.json")]
    return sorted(found, key=lambda card: card["order"])


def model_card(name: str) -> dict:
    """What is known about a model; of a ``seeded:`` one, what is known about its architecture."""
    plain = name.removeprefix(SEEDED)
    own = {card["name"]: card for card in model_cards()}
    return own.get(plain) or registry.cards()[plain]


def describe_models(chosen: list[str] | None = None) -> pd.DataFrame:
    """One row per model: name, architecture, parameters, what it was trained on.

    Parameters
    ----------
    chosen : list of str, optional
        Names as :func:`choose_models` returns them; by default the models that come with the book.
    """
    names = model_names() if chosen is None else chosen
    columns = ["name", "architecture", "parameters", "trained_on"]
    table = pd.DataFrame(map(model_card, names), columns=columns).assign(name=names)
    nothing = "nothing: weights computed from names, numbers mean nothing"
    table.loc[[name.startswith(SEEDED) for name in names], "trained_on"] = nothing
    return table


def choose_models(wanted: str) -> list[str]:
    """Model names from a chapter parameter: ``"all"`` or names separated by commas.

    ``"all"`` are the models that come with the book. A published model is named as in
    :func:`published_models`; ``seeded:`` before its name asks for weights that mean nothing.

    Raises
    ------
    ValueError
        An unknown name; the message gives the nearest one.
    """
    own = model_names()
    if wanted.strip() == "all":
        return own
    known = own + published_models()
    chosen = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in chosen:
        if name not in known and name.removeprefix(SEEDED) not in published_models():
            raise ValueError(f"unknown model {name!r}: {nearest(name, known)}")
    if not chosen:
        raise ValueError(f"models={wanted!r} names no model; known models: {', '.join(known)}")
    return chosen


def check_files(wanted: str) -> None:
    """Refuse names of which files are missing, before anything is loaded.

    wanted : as for :func:`choose_models`; raises as :func:`load_model` would
    """
    for name in choose_models(wanted):
        if card := registry.cards().get(name):
            where = files.folder_of(name)
            files.all_there(card, files.find(card, where), where)


def load_model(
    name: str,
    protocol: str | Protocol = "corrected",
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    precision: str = "float32",
) -> Encoder | Ensemble:
    """The model of that name, in evaluation mode.

    Parameters
    ----------
    name : str
        One that :func:`choose_models` accepts.
    protocol : {"corrected", "as_published"} or Protocol
        Use a published model as its authors do, or as paper S did. For the small models the
        temperature alone differs: without it their logit scale is 1.
    checkpoint : path, optional
        Folder or file of a published model; by default the folder of that name in the folder of
        the environment variable ``CXRBOOK_CHECKPOINTS``.
    device : str
        As torch names it: "cpu", "cuda", "cuda:1".
    precision : {"float32", "bfloat16", "float16"}

    Returns
    -------
    Encoder, or Ensemble where several checkpoints of a model lie in its folder

    Raises
    ------
    ValueError
        Unknown name; files that are missing, damaged, unsafe or of another model.
    """
    from cxrlib.models import loading

    (name,) = choose_models(name)
    model: Encoder | Ensemble
    if name in model_names():
        from cxrlib.models import phantom_clip
        from cxrlib.protocol import protocol_of

        chosen = protocol_of(protocol)
        model = phantom_clip.load(WEIGHTS / f"{name}.safetensors")
        scale = 1.0 if chosen.temperature == "none" else model.logit_scale
        model = replace(model, logit_scale=scale, protocol=chosen.name)
    else:
        model = loading.load(name, protocol, checkpoint)
    model = model.to(device, precision)
    used.weights(model)
    return model


def load_models(wanted: str, protocol: str | Protocol = "corrected") -> list[Encoder | Ensemble]:
    """The models that a chapter parameter names, as :func:`load_model` gives each.

    Parameters
    ----------
    wanted : str
        See :func:`choose_models`.
    protocol : {"corrected", "as_published"} or Protocol

    Returns
    -------
    list of Encoder or Ensemble

    Raises
    ------
    ValueError
        See :func:`choose_models` and :func:`load_model`.
    """
    return [load_model(name, protocol) for name in choose_models(wanted)]


def listing(hashes: bool = False) -> str:
    """What ``cxrbook models`` prints of the published models.

    Parameters
    ----------
    hashes : bool
        Compute the SHA-256 of the files that are there.
    """
    return "\n\n".join(_entry(card, hashes) for card in registry.cards().values())


def _entry(card: dict, hashes: bool) -> str:
    where = files.folder_of(card["name"])
    found = files.find(card, where)
    lines = [f"{card['name']}: {card['title']} ({card['paper']})"]
    lines += _indented(
        f"{card['architecture']}; {card['image_size']} pixels, {card['parameters']:,} parameters, "
        f"embeddings of {card['embed_dim']}",
        f"licence: {card['licence']}; code: {card['repository']}",
        f"pretrained on: {card['trained_on']}",
        f"under as_published: {card['as_published']}",
    )
    for file in card["files"]:
        known = next((f", {k} {file[k]}" for k in ("sha256", "md5") if k in file), "")
        names = " or ".join(file["names"])
        lines += _indented(f"{file['part']}: {names}, from {file['source']}{known}")
        for path in found[file["part"]]:
            value = f", SHA-256 {files.sha256(path)}" if hashes else ""
            lines.append(f"        present: {path}{value}")
        if not found[file["part"]]:
            lines.append(f"        missing{f' in {where}' if where else ''}")
    return "\n".join(lines)


def _indented(*texts: str) -> list[str]:
    """Lines of at most 100 characters, with words and addresses left whole."""
    wrap = TextWrapper(100, "    ", "      ", break_long_words=False, break_on_hyphens=False)
    return [wrap.fill(text) for text in texts]
