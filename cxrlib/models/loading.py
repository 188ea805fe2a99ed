"""How the name of a published model becomes a loaded model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from cxrlib.core.used import SEEDED
from cxrlib.models import checkpoints, files, registry, seeded
from cxrlib.models.encoder import Encoder
from cxrlib.models.images import each
from cxrlib.models.recipe import Recipe
from cxrlib.models.text import words
from cxrlib.protocol import Protocol, protocol_of

SHARED = ("images.py", "text.py", "recipe.py", "seeded.py", "parts.py", "renames.toml")
LARGEST_SCALE = 10_000  # CLIP and its kin stop at 100; the exponential of a scale is far above
SHARED_CODE = tuple(Path(__file__).with_name(file) for file in SHARED)


@dataclass(frozen=True)
class Ensemble:
    """Several checkpoints of one model; their probabilities are averaged, not their embeddings."""

    name: str
    members: tuple[Encoder, ...] = field(repr=False)

    @property
    def card(self) -> dict:
        return self.members[0].card

    @property
    def logit_scale(self) -> float:
        return self.members[0].logit_scale

    @property
    def notes(self) -> tuple[str, ...]:
        return (f"ensemble of {len(self.members)} checkpoints", *self.members[0].notes)

    def to(self, device: str, precision: str = "float32") -> Ensemble:
        """See :meth:`cxrlib.models.encoder.Encoder.to`."""
        return replace(self, members=tuple(m.to(device, precision) for m in self.members))


def load(
    name: str, protocol: str | Protocol = "corrected", checkpoint: str | Path | None = None
) -> Encoder | Ensemble:
    """A published model from its authors' files, or with weights seeded by names.

    Parameters
    ----------
    name : str
        A name of :func:`cxrlib.models.registry.cards`, or one after ``seeded:``.
    protocol : {"corrected", "as_published"} or Protocol
        As the model's authors use it, or as paper S used it.
    checkpoint : path, optional
        See :func:`cxrlib.models.files.folder_of`.

    Raises
    ------
    ValueError
        A file that is missing, damaged, of another model, or not tensors only.
    """
    chosen = protocol_of(protocol)
    plain = name.removeprefix(SEEDED)
    card, made = registry.cards()[plain], registry.recipe(plain)
    if name != plain:
        return _seeded(name, made, card, chosen)
    where = files.folder_of(name, checkpoint)
    found = files.find(card, where)
    files.all_there(card, found, where)
    vocabulary = _vocabulary(card, found.pop("vocabulary", None))
    tokenizer = made.tokenizer(vocabulary)
    members: list[Encoder] = []
    again = []
    for paths in zip(*found.values(), strict=True):
        network, hashes, notes = _filled(made, card, dict(zip(found, paths, strict=True)))
        if any(_same(network, member.network) for member in members):
            again.append(f"{paths[0].name} left out: the weights of another file once more")
            continue
        if vocabulary:
            hashes.append(files.sha256(vocabulary))
        if made.vocabulary and vocabulary:
            made.vocabulary(network, vocabulary)
        weights = "+".join(hashes)
        members.append(_encoder(name, made, card, network, tokenizer, weights, chosen, notes))
    members[0] = replace(members[0], notes=(*members[0].notes, *again))
    return members[0] if len(members) == 1 else Ensemble(name, tuple(members))


def _seeded(name: str, made: Recipe, card: dict, chosen: Protocol) -> Encoder:
    """The model with weights computed from names, and without a vocabulary."""
    network = made.build().eval()
    seeded.fill(network, made.upstream)
    padded = card["max_length"] if card["pads_to_max_length"] else None
    without_file = all(file["part"] != "vocabulary" for file in card["files"])
    tokenizer = made.tokenizer(None) if without_file else seeded.wordpiece(padded)
    note = "weights computed from tensor names: its numbers mean nothing"
    return _encoder(name, made, card, network, tokenizer, SEEDED, chosen, (note,))


def _same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict().values(), other.state_dict().values()
    return all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def _filled(made, card, paths):
    """The network with the weights of its files, their hashes, and what was noticed."""
    network, hashes, notes = made.build().eval(), [], []
    for part, path in paths.items():
        try:
            parts = checkpoints.files_of(path)
            hashes += [files.check_hash(file, _about(card, part))[0] for file in parts]
            state = checkpoints.read(path)
        except ValueError as error:
            raise ValueError(f"{card['name']}, {error}") from None
        target = network if part == "weights" else getattr(network, part)
        what = f"{card['name']}, {path}"
        notes += checkpoints.load_strictly(target, state, what, made.upstream, made.prefix)
    scale = made.learned_scale(network)
    if scale is not None:
        check_scale(scale, what)
    return network, hashes, tuple(dict.fromkeys(notes))


def check_scale(scale: float, what: str) -> None:
    """Refuse a logit scale that no training ends with; ``what`` is the model, for the message."""
    if not 0 < scale < LARGEST_SCALE:
        raise ValueError(
            f"{what}: its logit scale is {scale} (expected e to the stored number, usually 10 to "
            "100): damaged, or not a logarithm as its authors' code stores it"
        )


def _vocabulary(card: dict, found: list[Path] | None) -> Path | None:
    """The file with the word pieces, which must be as many as the model has; None without one."""
    if found is None:
        return None
    (path,), about = found, _about(card, "vocabulary")
    if (there := len(words(path))) != about["words"]:
        raise ValueError(
            f"{card['name']}, {path}: {there} words; this model knows {about['words']}: the "
            f"vocabulary of another model, or cut off. It is at {about['source']}"
        )
    return path


def _about(card: dict, part: str) -> dict:
    return next(file for file in card["files"] if file["part"] == part)


def _encoder(name, made, card, network, tokenizer, weights, chosen, notes):
    as_s = chosen.preprocessing == "paper S"
    scale = made.learned_scale(network)
    if scale is None:
        notes += ("no logit scale was learned; similarities are used as they are",)
    elif chosen.temperature == "none" and not made.scale_s:
        scale = None
    other_steps = as_s and made.preprocess_s is not None
    unit_text = made.unit_text_s or chosen.text_vectors == "unit length"
    family = Path(__file__).with_name(f"{card['family']}.py")
    return Encoder(
        name=name,
        network=network,
        preprocess=each(made.preprocess_s if other_steps else made.preprocess),
        tokenizer=tokenizer,
        card=card,
        weights=weights,
        code=(family, *SHARED_CODE),
        logit_scale=1.0 if scale is None else scale,
        protocol=chosen.name,
        preprocessing="paper S" if other_steps else "authors",
        unit_text=unit_text,
        one_by_one=made.one_by_one and not as_s,
        average=made.average,
        notes=notes,
    )
