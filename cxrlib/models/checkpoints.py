"""Checkpoints as their authors published them: read as tensors only, loaded strictly.

Nothing here touches the network or runs code from a file.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cxrlib.models.files import unreadable

NESTED = ("state_dict", "model", "model_state_dict")
DEPTH = 4  # levels that a state dict is looked for; the published ones are on the first or second
# Buffers that older libraries saved and newer ones compute; they hold no weights.
NOT_WEIGHTS = re.compile(r"(^|\.)(position_ids|relative_position_index)$")
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
LONGEST_HEADER = 100_000_000  # bytes, of a safetensors file; the format's own limit
SHOWN = 5  # keys named in a message
# What torch puts before names: of a compiled network anywhere, of a parallel one at the beginning.
WRAPPED = re.compile(r"(^|\.)_orig_mod\.|^(module\.)+")
# How files begin that often lie where a checkpoint should.
MISTAKEN = (
    (b"version https://git-lfs", "it is a git-lfs pointer: get the file itself, `git lfs pull`"),
    (b"<", "it is a web page, often a notice in place of the file: download it again"),
    (b"\x1f\x8b", "it is a gzip archive: unpack it"),
)


def read(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, whatever surrounds them in the file.

    Safetensors and torch files are told apart by their content, not by their name. Torch files are
    read by torch's restricted unpickler, which knows tensors and plain containers only.

    Raises
    ------
    ValueError
        The file cannot be read, is no checkpoint, is damaged, or holds other objects; in the last
        case the message names the command that converts it.
    """
    advice = (
        f"`cxrbook models convert {shlex.quote(str(path))}` writes the tensors to a file of their "
        "own, once, where the rest is harmless"
    )
    kind = kind_of(path)
    if kind == "safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path}: a damaged safetensors file ({_line(error)}): download it again"
            ) from None
    if kind == "index":
        return _of_shards(path)
    if kind == "TorchScript":
        raise ValueError(
            f"{path}: a program (TorchScript) with tensors, and only tensors are opened. {advice}"
        )
    return tensors(unpickle(path, advice=advice), path)


def files_of(path: Path) -> list[Path]:
    """The files of a checkpoint: itself and, where it is an index, those with the tensors.

    A converted ``.safetensors`` goes before the file that it was made from.

    Raises
    ------
    ValueError
        An index that names files elsewhere, or files that are not there.
    """
    if not (places := _weight_map(path)):
        return [path]
    names = sorted(set(places.values()))
    if odd := [name for name in names if Path(name).name != name or name.endswith(".json")]:
        raise ValueError(f"{path}: names {odd[0]!r}; expected files with tensors beside it")
    converted = [path.with_name(name).with_suffix(".safetensors") for name in names]
    pairs = zip(names, converted, strict=True)
    there = [new if new.is_file() else path.with_name(name) for name, new in pairs]
    if missing := [part.name for part in there if not part.is_file()]:
        raise ValueError(
            f"{path}: the checkpoint is in several files; {_count('missing', missing)}"
        )
    return [path, *there]


def _weight_map(path: Path) -> dict[str, str]:
    """Names of tensors to files, of an index; empty for whatever else a file is."""
    try:
        with path.open("rb") as f:
            head = f.read(32)
            found = json.loads(head + f.read())["weight_map"] if head.lstrip()[:1] == b"{" else {}
        return {str(key): str(name) for key, name in found.items()}
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _of_shards(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for part in files_of(path)[1:]:
        held = read(part)
        _refuse(sorted(state.keys() & held.keys()), path, "in several files")
        state |= held
    _refuse(sorted(_weight_map(path).keys() - state.keys()), path, "in none of its files")
    return state


def kind_of(path: Path) -> str:
    """What a checkpoint is by its content.

    "safetensors", "torch", "TorchScript" (a program), or "index" of a checkpoint in several files.

    Raises
    ------
    ValueError
        None of these, or a file that cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise ValueError(f"{path}: no regular file")
    try:
        with path.open("rb") as f:
            head = f.read(32)
    except OSError as error:
        raise unreadable(path, error) from None
    if not head:
        raise ValueError(f"{path}: the file is empty (0 bytes): download it again")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        return "safetensors"
    if head[:2] == b"PK":
        entries = _archived(path)
        held = {entry.filename.rsplit("/", 1)[-1] for entry in entries}
        if not entries:
            raise ValueError(f"{path}: damaged or cut off, download it again (no whole archive)")
        if "data.pkl" not in held:
            names = ", ".join(entry.filename for entry in entries[:SHOWN])
            raise ValueError(
                f"{path}: a zip archive, not a checkpoint (it holds {names}): unpack it"
            )
        if "constants.pkl" in held:
            return "TorchScript"
        declared = sum(entry.file_size for entry in entries)
        if any(entry.compress_type for entry in entries) or declared > path.stat().st_size:
            raise ValueError(
                f"{path}: a torch file with compressed entries ({declared:,} bytes in it), which "
                "torch does not write and could fill the memory: unpack it and archive it without "
                "compression (`zip -0 -r`), or download the original"
            )
        return "torch"
    if head[:1] == b"\x80":  # what pickles begin with, and torch's files before they were archives
        return "torch"
    if _weight_map(path):
        return "index"
    why = next((why for begin, why in MISTAKEN if head.lstrip().startswith(begin)), None)
    raise ValueError(
        f"{path}: not a checkpoint of torch or safetensors, it begins with {head[:16]!r}"
        + (f"; {why}" if why else "")
    )


def _archived(path):
    """Entries of a zip archive; none of a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return []


def unpickle(path: Path, stand_ins: Sequence[tuple] = (), advice: str = "") -> Any:
    """What a torch file holds, by torch's restricted unpickler.

    Parameters
    ----------
    path : Path
    stand_ins : sequence of (class, str)
        Classes that take the place of others, and the full names of those: see
        :func:`torch.serialization.add_safe_globals`.
    advice : str
        What to do about a file with objects of other types.

    Raises
    ------
    ValueError
        A damaged file, or one with objects of other types.
    """
    try:
        # An open file, since by its path torch would go by the suffix.
        with path.open("rb") as f, _only(stand_ins), warnings.catch_warnings(action="ignore"):
            return torch.load(f, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise ValueError(
                f"{path}: holds more than tensors (it names {refused[1]}), and only tensors are "
                f"opened. {advice}"
            ) from None
        raise ValueError(
            f"{path}: holds more than tensors in plain containers, or is damaged ({_line(error)})"
        ) from None
    # A damaged file can fail anywhere inside; whatever it is, it is the file's fault.
    except Exception as error:
        raise ValueError(
            f"{path}: damaged or cut off, download it again ({_line(error)})"
        ) from None


@contextmanager
def _only(stand_ins):
    """These names and torch's own are known; not what other libraries let torch open elsewhere."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(stand_ins))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _line(error: Exception) -> str:
    """The part of an error's message that says something, or the name of its type."""
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    return text.splitlines()[0].split(". ")[0] if text else type(error).__name__


def tensors(found: object, path: Path) -> dict[str, torch.Tensor]:
    """The state dict in what a file held: itself, or below ``state_dict`` or ``model``.

    Raises
    ------
    ValueError
        No tensors, or tensors of an unusual kind.
    """
    for _ in range(DEPTH):
        inner = found if isinstance(found, dict) else {}
        found = next((inner[key] for key in NESTED if isinstance(inner.get(key), dict)), found)
    held = found if isinstance(found, dict) else {}
    state = {k: v for k, v in held.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not state:
        what = ", ".join(map(str, list(held)[:SHOWN])) or f"a {type(found).__name__}"
        raise ValueError(
            f"{path}: holds no tensors by name (found {what}); expected a state dict, alone or "
            f"below {', '.join(map(repr, NESTED))}"
        )
    odd = [k for k, v in state.items() if v.layout != torch.strided or v.is_quantized or v.is_meta]
    _refuse(odd, path, "sparse, quantised or without values")
    return state


def load_strictly(
    network: nn.Module,
    state: dict[str, torch.Tensor],
    what: str,
    upstream: Callable[[str], str] = str,
    prefix: str = "",
) -> list[str]:
    """Put every tensor of a checkpoint in its place; nothing may be missing or left over.

    Parameters
    ----------
    network : nn.Module
        Its attribute ``unused``, where it has one, is a regular expression of keys that upstream's
        loading drops: they may be in the file or not.
    state : dict
        Upstream's names to tensors.
    what : str
        Model and file, for messages.
    upstream : callable
        Our key to upstream's.
    prefix : str
        What stands before upstream's keys; everything up to its last occurrence is dropped.

    Returns
    -------
    list of str
        Notes, such as a cast to float32.

    Raises
    ------
    ValueError
        Missing or unexpected keys, wrong shapes or kinds, values that are not finite; the message
        names the model, the file and the first keys.
    """
    given, twice, dropped = {}, [], []
    unused = getattr(network, "unused", None)
    for key, value in state.items():
        key = WRAPPED.sub(r"\1", key)
        key = WRAPPED.sub(r"\1", key.rsplit(prefix, 1)[-1] if prefix else key)
        if unused and re.search(unused, key):
            dropped.append(key)
        elif not NOT_WEIGHTS.search(key):
            if key in given:
                twice.append(key)
            given[key] = value
    _refuse(twice, what, "there twice, behind different prefixes")
    ours = network.state_dict()
    wanted = {upstream(key): key for key in ours if not NOT_WEIGHTS.search(key)}
    twins = _twins(wanted, ours)
    given |= {key: given[twin] for key, twin in twins.items() if key not in given and twin in given}

    for key, own in wanted.items():  # older code kept single numbers as [1]
        if key in given and given[key].numel() == ours[own].numel() == 1:
            given[key] = given[key].reshape(ours[own].shape)
    missing = [key for key in wanted if key not in given]
    unexpected = [key for key in given if key not in wanted]
    if missing or unexpected:
        raise ValueError(
            f"{what}: not a checkpoint of this model. {_count('missing', missing)}; "
            f"{_count('unexpected', unexpected)}"
        )
    wrong = [
        f"{key} {_kind(given[key])} instead of {_kind(ours[own])}"
        for key, own in wanted.items()
        if _kind(given[key]) != _kind(ours[own])
    ]
    _refuse(wrong, what, "wrong")
    # After the cast, since a large float64 has no float32.
    bad = [k for k, own in wanted.items() if not _finite(given[k].to(ours[own].dtype))]
    _refuse(bad, what, "with values that are NaN or infinite")
    differing = [key for key, twin in twins.items() if not torch.equal(given[key], given[twin])]
    _refuse(differing, what, "unlike the tensor that they are tied to")
    network.load_state_dict({own: given[key] for key, own in wanted.items()}, strict=False)
    cast = {str(x.dtype).removeprefix("torch.") for x in given.values() if x.is_floating_point()}
    cast -= {"float32"}
    notes = [f"weights stored as {', '.join(sorted(cast))}, cast to float32"] if cast else []
    return notes + ([f"left out as upstream does: {', '.join(dropped)}"] if dropped else [])


def _twins(wanted: dict[str, str], ours: dict[str, torch.Tensor]) -> dict[str, str]:
    """Names of tensors that are an earlier one under a second name, which files may leave out."""
    first: dict[tuple, str] = {}
    earlier = {
        key: first.setdefault((ours[own].data_ptr(), ours[own].shape), key)
        for key, own in wanted.items()
        if ours[own].numel()
    }
    return {key: other for key, other in earlier.items() if other != key}


def _finite(tensor):
    """Whether all values are finite; NaN and infinity show in the extremes, found fast."""
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def _kind(tensor):
    """Shape, and type of number unless it is one that is cast to float32."""
    kind = "" if tensor.dtype in FLOATS else f" {tensor.dtype}".replace("torch.", "")
    return f"{list(tensor.shape)}{kind}"


def _refuse(keys: list[str], what: object, word: str) -> None:
    if keys:
        raise ValueError(f"{what}: {_count(word, keys)}")


def _count(word: str, keys: list[str]) -> str:
    if not keys:
        return f"none {word}"
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{len(keys)} {word}: {', '.join(keys[:SHOWN])}{more}"
