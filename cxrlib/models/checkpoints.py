"""Checkpoints as their authors published them: found, read as tensors only, loaded strictly.

Nothing here touches the network or runs code from a file.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

FOLDER = "CXRBOOK_CHECKPOINTS"
SUMS = "SHA256SUMS"
HASHES = {"sha256": "SHA-256", "md5": "MD5"}  # of files, as cards name them
NESTED = ("state_dict", "model", "model_state_dict")
# Buffers that older libraries saved and newer ones compute; they hold no weights.
NOT_WEIGHTS = re.compile(r"(^|\.)(position_ids|relative_position_index)$")
SHOWN = 5  # keys named in a message


def folder_of(name: str, checkpoint: str | Path | None = None) -> Path | None:
    """Where the files of a model are looked for; None where nobody said.

    Parameters
    ----------
    name : str
    checkpoint : path, optional
        A folder, or the file with the weights. By default the folder ``name`` in the folder that
        the environment variable ``CXRBOOK_CHECKPOINTS`` names.
    """
    if checkpoint:
        return Path(checkpoint).expanduser()
    if root := os.environ.get(FOLDER):
        return Path(root).expanduser() / name
    return None


def find(card: dict, where: Path | None) -> dict[str, list[Path]]:
    """The files of a model that are there: part of the model to paths, an empty list if missing.

    A converted ``.safetensors`` goes before the file that it was made from. Of several files that
    would do, the first of the card is taken, unless they are members of an ensemble (``many``).

    Raises
    ------
    ValueError
        A folder that cannot be read.
    """
    is_file = where is not None and where.is_file()
    there = _files(where.parent if is_file else where) if where else []
    found = {}
    for file in card["files"]:
        if is_file and file["part"] != "vocabulary":
            found[file["part"]] = [where]
            continue
        paths = {}
        for name in file["names"]:
            for pattern in (Path(name).with_suffix(".safetensors").name, name):
                for path in there:
                    if path.match(pattern):
                        paths.setdefault(path.with_suffix(""), path)
        chosen = list(paths.values())
        found[file["part"]] = chosen if file.get("many") else chosen[:1]
    return found


def _files(folder: Path) -> list[Path]:
    def stop(error):
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None

    if not folder.exists():
        return []
    walk = os.walk(folder, onerror=stop, followlinks=True)
    return sorted(Path(root) / name for root, _, names in walk for name in names)


def sha256(path: Path) -> str:
    """Hash of a file."""
    return _digest(path, "sha256")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, algorithm).hexdigest()


def check_hash(path: Path, card_file: dict) -> tuple[str, str]:
    """The SHA-256 of a file, and what it was compared with.

    It is compared with the hash that the authors published (SHA-256 or MD5), where the card has
    one, and with a file ``SHA256SUMS`` beside it (what the program sha256sum writes), where there
    is one.

    Raises
    ------
    ValueError
        A hash that differs.
    """
    found = sha256(path)
    known = {}
    for kind in HASHES:
        if kind in card_file and path.name in card_file["names"]:
            known["the hash its authors publish"] = kind, card_file[kind]
    sums = path.with_name(SUMS)
    if sums.is_file():
        lines = (line.split(maxsplit=1) for line in sums.read_text().splitlines() if line.strip())
        listed = {name.strip().lstrip("*"): value for value, name in lines}
        if path.name in listed:
            known[SUMS] = "sha256", listed[path.name]
    for what, (kind, value) in known.items():
        own = found if kind == "sha256" else _digest(path, kind)
        if value.lower() != own:
            raise ValueError(
                f"{path}: {HASHES[kind]} {own} differs from {what} ({value}): the file is damaged, "
                "or another one; download it again"
            )
    return found, " and ".join(known) or "no hash is known to compare with"


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
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            head = f.read(9)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if size == 0:
        raise ValueError(f"{path}: the file is empty (0 bytes): download it again")
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**30:
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(
                f"{path}: a damaged safetensors file ({error}): download it again"
            ) from None
    if head[:2] != b"PK" and head[:1] != b"\x80":
        raise ValueError(
            f"{path}: not a checkpoint (it starts with {head!r}); expected a file of torch or "
            "safetensors. A saved web page or a git-lfs pointer often is the cause"
        )
    return tensors(_unpickle(path), path)


def _unpickle(path: Path):
    if is_torchscript(path):
        raise ValueError(_convert(path, "a TorchScript program"))
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise ValueError(_convert(path, f"objects of type {refused[1]}")) from None
        raise ValueError(
            f"{path}: not read, since it holds more than tensors and plain containers, or is "
            f"damaged ({str(error).splitlines()[0]})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise ValueError(
            f"{path}: damaged or cut off ({str(error).splitlines()[0]}): download it again"
        ) from None


def _convert(path: Path, what: str) -> str:
    return (
        f"{path}: holds {what} beside its tensors and is not opened for your safety; convert it "
        f"once with `cxrbook models convert {path}`"
    )


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, which holds a program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def tensors(found, path: Path) -> dict[str, torch.Tensor]:
    """The state dict in what a file held: itself, or below ``state_dict`` or ``model``.

    Raises
    ------
    ValueError
        No tensors.
    """
    if isinstance(found, dict):
        for key in NESTED:
            if isinstance(found.get(key), dict):
                return tensors(found[key], path)
        state = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
        if state:
            return state
        keys = ", ".join(map(str, list(found)[:SHOWN])) or "nothing"
    else:
        keys = f"an object of type {type(found).__name__}"
    raise ValueError(
        f"{path}: holds no tensors by name (found {keys}); expected a state dict, alone or below "
        f"{', '.join(map(repr, NESTED))}"
    )


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
    given, dropped = {}, []
    unused = getattr(network, "unused", None)
    for key, value in state.items():
        key = key.rsplit(prefix, 1)[-1] if prefix else key
        key = key.removeprefix("module.")
        if unused and re.search(unused, key):
            dropped.append(key)
        elif not NOT_WEIGHTS.search(key):
            given[key] = value
    ours = network.state_dict()
    wanted = {upstream(key): key for key in ours if not NOT_WEIGHTS.search(key)}
    _add_tied(given, wanted, ours)

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
    if wrong:
        raise ValueError(f"{what}: {_count('wrong', wrong)}")
    bad = [key for key in wanted if not torch.isfinite(given[key]).all()]
    if bad:
        raise ValueError(
            f"{what}: values that are not finite (NaN or infinite). {_count('in', bad)}"
        )
    network.load_state_dict({own: given[key] for key, own in wanted.items()}, strict=False)
    cast = {
        str(t.dtype).removeprefix("torch.")
        for t in given.values()
        if t.is_floating_point() and t.dtype != torch.float32
    }
    notes = [f"weights stored as {', '.join(sorted(cast))}, cast to float32"] if cast else []
    return notes + ([f"left out as upstream does: {', '.join(dropped)}"] if dropped else [])


def _add_tied(given, wanted, ours):
    """A tensor that is another one under a second name may be left out of a file."""
    first: dict[int, str] = {}
    for key, own in wanted.items():
        twin = first.setdefault(ours[own].data_ptr(), key) if ours[own].numel() else key
        if key not in given and twin in given:
            given[key] = given[twin]


def _kind(tensor):
    kind = "" if tensor.is_floating_point() else f" {tensor.dtype}".replace("torch.", "")
    return f"{list(tensor.shape)}{kind}"


def _count(word: str, keys: list[str]) -> str:
    if not keys:
        return f"none {word}"
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return f"{len(keys)} {word}: {', '.join(keys[:SHOWN])}{more}"
