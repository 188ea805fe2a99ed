"""``own:NAME``: a Python file of the user's that builds an encoder.

The file defines ``build()``, which returns an :class:`~cxrlib.models.encoder.Encoder`. Its code
runs when the model is loaded, at no other time, and with all that Python may do: the notes of the
model say so. Files that it reads lie beside it (``Path(__file__).with_name(...)``), as do modules
that it imports.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import sys
from contextlib import suppress
from dataclasses import replace
from numbers import Real
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
PARTS = {"logit_scale": Real, "card": dict, "weights": str, "code": tuple, "notes": tuple}


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
    """What the encoder's own card says, and what can be counted: runs the file."""
    return load(name).card


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
    model, imported = _built(name, path)
    ran = f"built by the code of {path.name}, which was run"
    model = replace(
        model,
        name=name,
        card=unlisted.card(**{"remarks": ran} | model.card | {"name": name}),
        weights=_hash(model.network),
        code=(path, *imported, *model.code),
        protocol=protocol_of(protocol).name,
        notes=(ran, *model.notes),
    )
    return _tried(model)


def _built(name: str, path: Path) -> tuple[Encoder, list[Path]]:
    """What the file builds, and the modules beside it that it imported."""
    from cxrlib.models.encoder import Encoder

    module = ModuleType(f"cxrbook_own_{path.stem}")
    module.__file__ = str(path)
    before = set(sys.modules)
    sys.modules[module.__name__] = module  # which dataclasses ask for
    sys.path.insert(0, str(path.parent))  # as for any script
    importlib.invalidate_caches()
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        model = getattr(module, BUILD)()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name}: {path} failed: {unlisted.kind_and_line(error)}") from None
    finally:
        with suppress(ValueError):  # unless the code removed it
            sys.path.remove(str(path.parent))
        # none of them stays, so that other processes get their functions by value
        new = {key: _file(sys.modules[key]) for key in sys.modules.keys() - before}
        beside = {key: file for key, file in new.items() if file and file.parent == path.parent}
        for key in beside:
            del sys.modules[key]
    if not isinstance(model, Encoder):
        raise ValueError(
            f"{name}: {BUILD}() of {path} returned {type(model).__name__}; expected a "
            "cxrlib.models.encoder.Encoder"
        )
    imported = sorted(file for file in beside.values() if file != path)
    for part, kind in PARTS.items():
        if not isinstance(found := getattr(model, part), kind):
            said = f"{part} of the Encoder that {path} builds is {type(found).__name__}"
            raise ValueError(f"{name}: {said}; expected {kind.__name__}")
    if not isinstance(model.card.get("sources", []), list):
        raise ValueError(f"{name}: sources on the card that {path} builds are no list of names")
    return model, imported


def _file(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _tried(model: Encoder) -> Encoder:
    """See :func:`unlisted.tried`; and the same film has to get the same embedding."""
    from cxrlib.models import parity

    model = unlisted.tried(model)
    table = parity.self_test(model)
    if len(failed := table[~table["holds"]]):
        row = failed.iloc[0]
        raise ValueError(
            f"{model.name}: as its file builds it, it fails the check {row['check']!r} (by "
            f"{row['difference']:.1e}; allowed is {row['tolerance']:.0e}). A network has to be in "
            "evaluation mode (.eval()), and a film to get the same embedding every time, not all 0"
        )
    return model


def _hash(network: nn.Module) -> str:
    """SHA-256 of all weights by name: which files they came from, only the user's code knows."""
    import torch

    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
