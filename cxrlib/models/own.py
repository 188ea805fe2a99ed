"""``own:NAME``: a Python file of the user's that builds an encoder.

The file defines ``build()``, which returns an :class:`~cxrlib.models.encoder.Encoder`. Its code
runs when the model is loaded, at no other time, and with all that Python may do: the notes of the
model say so. Files that it reads lie beside it: ``Path(__file__).with_name("weights.safetensors")``.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cxrlib.core.places import place_of
from cxrlib.models import unlisted

if TYPE_CHECKING:  # torch takes seconds
    from torch import nn

    from cxrlib.models.encoder import Encoder
    from cxrlib.protocol import Protocol

BUILD = "build"
_cards: dict[str, dict] = {}  # of the models that were loaded


def check(name: str) -> None:
    """Refuse a file that is not there or that does not define ``build``, without running it.

    Raises
    ------
    ValueError
    """
    path = file_of(name)
    try:
        body = ast.parse(path.read_bytes(), path.name).body
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{name}: {path} cannot be read as Python ({error})") from None
    if not any(isinstance(x, ast.FunctionDef) and x.name == BUILD for x in body):
        raise ValueError(
            f"{name}: {path} defines no function {BUILD}(); expected one without parameters that "
            "returns a cxrlib.models.encoder.Encoder"
        )


def file_of(name: str) -> Path:
    """The Python file of a model; ``.py`` need not be said."""
    place = place_of(name)
    found = [path for path in (place, place.with_name(f"{place.name}.py")) if path.is_file()]
    if not found:
        raise ValueError(f"{name}: there is no file {place}; expected a Python file")
    return found[0]


def card(name: str) -> dict:
    """What the encoder's own card says, and what can be counted; loads the model once."""
    return _cards[name] if name in _cards else load(name).card


def load(name: str, protocol: str | Protocol = "corrected") -> Encoder:
    """The encoder that the file builds, once it did what any encoder must do.

    Raises
    ------
    ValueError
        Code that fails, or returns something else than an encoder; embeddings that are not finite,
        not those of the same film again, or of another length than those of texts.
    """
    from cxrlib.protocol import protocol_of

    check(name)
    path = file_of(name)
    for beside in path.parent.iterdir():
        if beside.is_file():  # whatever reads it, the record of a run counts it as used
            beside.open("rb").close()
    model = _built(name, path)
    known = _tried(name, model) | {"name": name}
    known |= {"parameters": sum(x.numel() for x in model.network.parameters())}
    _cards[name] = unlisted.card(**model.card | known)
    return replace(
        model,
        name=name,
        card=_cards[name],
        weights=_hash(model.network),
        code=(path, *model.code),
        protocol=protocol_of(protocol).name,
        notes=(f"the code of {path.name} was run to build it", *model.notes),
    )


def _built(name: str, path: Path) -> Encoder:
    from cxrlib.models.encoder import Encoder

    module = ModuleType(f"cxrbook_own_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # which dataclasses ask for
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        model = getattr(module, BUILD)()
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{name}: {path} failed: {type(error).__name__}: {unlisted.line(error)}"
        ) from None
    finally:
        del sys.modules[module.__name__]  # so that other processes get its functions by value
    if not isinstance(model, Encoder):
        raise ValueError(
            f"{name}: {BUILD}() of {path} returned {type(model).__name__}; expected a "
            "cxrlib.models.encoder.Encoder"
        )
    return model


def _tried(name: str, model: Encoder) -> dict:
    """Side of images and length of embeddings, for the card, once images and texts were tried."""
    import torch

    from cxrlib.models import loading, parity

    what = f"{name}, as its file builds it"
    loading.check_scale(model.logit_scale, what)
    try:
        batch = model.preprocess([parity.film(), parity.film(280, 320)])
        images = model.encode_image(batch)
        texts = model.encode_text(["Chest Pneumothorax", "Chest No Findings", "Chest Edema"])
    except Exception as error:
        raise ValueError(f"{what}: {type(error).__name__}: {unlisted.line(error)}") from None
    if images.ndim != 2 or texts.shape != (3, images.shape[1]) or len(images) != 2:
        raise ValueError(
            f"{what}: 2 films gave {tuple(images.shape)} numbers and 3 texts "
            f"{tuple(texts.shape)}; expected (2, d) and (3, d)"
        )
    if not torch.cat([images, texts]).isfinite().all():
        raise ValueError(f"{what}: embeddings with values that are NaN or infinite")
    table = parity.self_test(model)
    if len(failed := table[~table["holds"]]):
        row = failed.iloc[0]
        raise ValueError(
            f"{what}: fails the check {row['check']!r}, by {row['difference']:.1e} where "
            f"{row['tolerance']:.0e} is allowed; a network has to be in evaluation mode (.eval()) "
            "and give a film the same embedding whenever and whatever with it is encoded"
        )
    return {"embed_dim": images.shape[1], "image_size": max(batch.shape[2:])}


def _hash(network: nn.Module) -> str:
    """SHA-256 of all weights by name: which files they came from, only the user's code knows."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
