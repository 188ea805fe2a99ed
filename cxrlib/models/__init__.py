"""Who is examined: image-text models by name, behind one small protocol.

A model owns its preprocessing, its tokenizer and its temperature; no chapter sets them.
``load_model(name)`` returns an :class:`~cxrlib.models.encoder.Encoder` with

- ``preprocess(images)``: uint8 (n, h, w) to a float tensor ready for ``encode_image``;
- ``encode_image(batch)`` and ``encode_text(texts)``: L2-normalised embeddings (n, d);
- ``logit_scale``: the learned factor on cosine similarities;
- ``name`` and ``card``: what it was trained on and how;
- ``fingerprint``: changes whenever its embeddings could.

The small models of the book come with it. The published ones are built from their own files on
your disk; ``seeded:NAME`` builds one with weights that mean nothing, for trying things out. Any
other model is named by its kind and by where it lies (:data:`KINDS`). Must not know who is studied,
nor what may be shown.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from textwrap import TextWrapper
from types import ModuleType
from typing import TYPE_CHECKING

import pandas as pd

from cxrlib.core import places, used
from cxrlib.core.errors import nearest
from cxrlib.core.used import SEEDED
from cxrlib.models import files, registry

if TYPE_CHECKING:  # they import torch, which names and cards do without
    from cxrlib.models.encoder import Encoder
    from cxrlib.models.loading import Ensemble
    from cxrlib.protocol import Protocol

WEIGHTS = Path(__file__).with_name("weights")
OTHERS = """\
Any other, by its place (a path below CXRBOOK_CHECKPOINTS, or an absolute one):
    transformers:FOLDER  CLIP, SigLIP and kin, as save_pretrained writes them (safetensors)
    open_clip:FOLDER     with open_clip_config.json, or under the name of an architecture
    own:FILE             a Python file with a function build() that returns an Encoder
    scores:FILE          a table of scores from anywhere: image_id, finding, score
    embeddings:FOLDER    vectors of films, and of texts by phrase"""
# Models that are in no list: what stands before their place (:mod:`cxrlib.core.places`), and the
# module here that knows such models. Each has
#   check(name): raises a ValueError of one line, before anything heavy is imported or loaded;
#   card(name) -> dict, with the keys that the cards of published models have;
#   load(name, protocol) -> Encoder, or what of it a file can be.
# A name is the one that `choose_models` returns; `places.place_of` says where it lies.
KINDS = {
    "open_clip:": "open_clip_folder",
    "own:": "own",
    "transformers:": "transformers_folder",
    "scores:": "scores",
    "embeddings:": "embeddings",
}
_loaded: dict[str, dict] = {}  # cards of such models, which know more once they were loaded


def model_names() -> list[str]:
    """Names of the small models that ``models="all"`` means: those that come with the book, apart
    from remedied ones.
    """
    return [card["name"] for card in model_cards() if "remedy_of" not in card]


def remedied_models() -> list[str]:
    """Names of the small models that were trained to remedy a bias of one of the others."""
    return [card["name"] for card in model_cards() if "remedy_of" in card]


def remedied(biased: str) -> dict[str, str]:
    """Remedies in training of a biased model that come with the book.

    Parameters
    ----------
    biased : str
        Any name of a model.

    Returns
    -------
    dict
        What was done in training to the name of the model that came of it; empty where none did.
    """
    cards = model_cards()
    return {card["remedy"]: card["name"] for card in cards if card.get("remedy_of") == biased}


def published_models() -> list[str]:
    """Names of the published models."""
    return list(registry.cards())


def model_cards() -> list[dict]:
    """Cards of all models that come with the book: unbiased, biased, then remedied ones."""
    found = [json.loads(p.read_text()) | {"sources": ["phantom"]} for p in WEIGHTS.glob("*.json")]
    return sorted(found, key=lambda card: card["order"])


def kind_of(name: str) -> ModuleType | None:
    """The module that knows a model of :data:`KINDS`; None for models that come by name alone."""
    module = next((KINDS[prefix] for prefix in KINDS if name.startswith(prefix)), None)
    return import_module(f"cxrlib.models.{module}") if module else None


def model_card(name: str) -> dict:
    """What is known about a model; of a ``seeded:`` one, what is known about its architecture."""
    if kind := kind_of(name):
        return _loaded[name] if name in _loaded else kind.card(name)
    plain = name.removeprefix(SEEDED)
    own = {card["name"]: card for card in model_cards()}
    return own.get(plain) or registry.cards()[plain]


def describe_models(chosen: list[str] | None = None) -> pd.DataFrame:
    """One row per model: name, architecture, parameters, what it was trained on.

    Where there are remarks, as of models in no list, they are a further column.

    Parameters
    ----------
    chosen : list of str, optional
        Names as :func:`choose_models` returns them; by default the models that come with the book.
    """
    names = model_names() if chosen is None else chosen
    cards = list(map(model_card, names))
    columns = ["name", "architecture", "parameters", "trained_on"]
    columns += ["remarks"] if any(card.get("remarks") for card in cards) else []
    table = pd.DataFrame(cards, columns=columns).assign(name=names)
    if "remarks" in table:
        table["remarks"] = table["remarks"].fillna("")
    nothing = "nothing: weights computed from names, numbers mean nothing"
    table.loc[[name.startswith(SEEDED) for name in names], "trained_on"] = nothing
    return table


def choose_models(wanted: str) -> list[str]:
    """Model names from a chapter parameter: ``"all"`` or names separated by commas.

    ``"all"`` are :func:`model_names`. A remedied model is named as in :func:`remedied_models`, a
    published one as in :func:`published_models`; ``seeded:`` before the latter asks for weights
    that mean nothing. Any other is named by its kind and where it lies
    (:mod:`cxrlib.core.places`); the name returned is without folders, as tables and pages show
    it, and loads the same model.

    Raises
    ------
    ValueError
        An unknown name; the message gives the nearest one. Two models that would have one name.
    """
    own = model_names()
    if wanted.strip() == "all":
        return own
    known = own + remedied_models() + published_models()
    chosen = []
    for name in (name.strip() for name in wanted.split(",") if name.strip()):
        if name.startswith(tuple(KINDS)):
            if (name := places.shown(name)) in chosen:
                raise ValueError(f"models={wanted!r}: two are called {name}; name each once")
        elif name not in known and name.removeprefix(SEEDED) not in published_models():
            kind, colon, _ = name.partition(":")
            misspelt = colon and not name.startswith(SEEDED)
            hint = nearest(f"{kind}:", list(KINDS)) if misspelt else nearest(name, known)
            cut = any(prefix in wanted for prefix in KINDS)
            comma = "; a comma ends a name, so no path may have one" if cut else ""
            raise ValueError(f"unknown model {name!r}: {hint}{comma}")
        chosen.append(name)
    if not chosen:
        raise ValueError(f"models={wanted!r} names no model; known models: {', '.join(known)}")
    return chosen


def without_places(wanted: str) -> str:
    """The same parameter of a chapter without folders of this machine, fit to be shown.

    wanted : as for :func:`choose_models`, which then finds the same models
    """
    return ", ".join(choose_models(wanted)) if "/" in wanted or "\\" in wanted else wanted


def check_files(wanted: str) -> None:
    """Refuse names of which files are missing, before anything is loaded.

    wanted : as for :func:`choose_models`; raises as :func:`load_model` would
    """
    for name in choose_models(wanted):
        if kind := kind_of(name):
            kind.check(name)
        elif card := registry.cards().get(name):
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
    if kind := kind_of(name):
        if checkpoint:
            raise ValueError(f"{name}: its name says where it lies; leave checkpoint= out")
        model = kind.load(name, protocol)
        _loaded[name] = model.card
    elif name in [*model_names(), *remedied_models()]:
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
    return "\n\n".join([*(_entry(card, hashes) for card in registry.cards().values()), OTHERS])


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
