"""The files of a published model: where they are looked for, which are there, their hashes.

Nothing here touches the network or opens a checkpoint; that is :mod:`cxrlib.models.checkpoints`.
"""

from __future__ import annotations

import hashlib
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

FOLDER = "CXRBOOK_CHECKPOINTS"
SUMS = "SHA256SUMS"
SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")  # a line of it
HASHES = {"sha256": "SHA-256", "md5": "MD5"}  # of files, as cards name them


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

    A folder is searched with its subfolders. A converted ``.safetensors`` goes before the file that
    it was made from. Of several files that would do, the first of the card is taken, unless they
    are members of an ensemble (``many``). A file that is given itself may have any name; what else
    the model needs is looked for beside it.

    Raises
    ------
    ValueError
        A folder that cannot be read; a file given for a model whose weights come in several files,
        by a name that does not say which it is.
    """
    given = where if where and os.path.isfile(where) else None
    there = _files(given.parent, deep=False) if given else _files(where) if where else []
    found = {file["part"]: _matching(file, there) for file in card["files"]}
    if given:
        found[_part_of(given, card)] = [given]
    return found


def all_there(card: dict, found: dict[str, list[Path]], where: Path | None) -> None:
    """Refuse a model of which `find` has not found every part; names what is wanted."""
    missing = [f for f in card["files"] if not found[f["part"]]]
    if not missing:
        return
    wanted = "; ".join(
        f"{f['part']}: {' or '.join(f['names'])}, from {f['source']}" for f in missing
    )
    place = (
        f"not found in {where}"
        if where
        else f"no folder was given: set {FOLDER} to a folder with a folder "
        f"{card['name']!r} in it, or pass checkpoint="
    )
    raise ValueError(
        f"{card['name']}: files are missing ({place}). Wanted are {wanted}. Nothing is downloaded "
        "by itself; `cxrbook models` lists what each model wants"
    )


def _part_of(path: Path, card: dict) -> str:
    parts = [file for file in card["files"] if file["part"] != "vocabulary"]
    if len(parts) > 1:
        parts = [file for file in parts if _matching(file, [path])]
    if len(parts) != 1:
        wanted = "; ".join(f"{f['part']}: {' or '.join(f['names'])}" for f in card["files"])
        raise ValueError(
            f"{path}: {card['name']} wants several files ({wanted}) and this name does not say "
            "which it is; give the folder with all of them"
        )
    return parts[0]["part"]


def _matching(file: dict, there: list[Path]) -> list[Path]:
    """The paths that go by a name of this file of a card; capitals do not matter."""
    found: dict[Path, Path] = {}
    for name in file["names"]:
        for pattern in (Path(name).with_suffix(".safetensors").name, name):
            for path in there:
                if fnmatchcase(path.name.lower(), pattern.lower()):
                    found.setdefault(path.with_suffix(""), path)
    return sorted(found.values()) if file.get("many") else list(found.values())[:1]


def _files(folder: Path, deep: bool = True) -> list[Path]:
    """Files that are not hidden; each folder once, even where links go round in circles."""

    def stop(error):
        if not isinstance(error, FileNotFoundError):
            raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None

    found, seen = [], set()
    for root, folders, names in os.walk(folder, onerror=stop, followlinks=True):
        seen.add(os.path.realpath(root))
        folders[:] = [
            f
            for f in folders
            if deep and f[0] != "." and os.path.realpath(os.path.join(root, f)) not in seen
        ]
        found += [Path(root, name) for name in names if name[0] != "."]
    return sorted(found)


def sha256(path: Path) -> str:
    """Hash of a file."""
    return _digest(path, "sha256")


def _digest(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, algorithm).hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> ValueError:
    """What to raise where a file cannot be read."""
    why = "a link to a file that is gone" if path.is_symlink() else error.strerror
    return ValueError(f"{path}: cannot be read ({why})")


def check_hash(path: Path, card_file: dict) -> tuple[str, str]:
    """The SHA-256 of a file, and what it was compared with.

    It is compared with the hash that the authors published (SHA-256 or MD5), where the card has
    one, and with a file ``SHA256SUMS`` beside it (what the program sha256sum writes), where there
    is one.

    Raises
    ------
    ValueError
        A hash that differs; a file that cannot be read.
    """
    found = sha256(path)
    known = {}
    for kind in HASHES:
        if kind in card_file and path.name in card_file["names"]:
            known["the hash its authors publish"] = kind, card_file[kind]
    sums = path.with_name(SUMS)
    if os.path.isfile(sums):
        try:
            lines = map(SUM.fullmatch, sums.read_text(errors="replace").splitlines())
        except OSError as error:
            raise unreadable(sums, error) from None
        listed = {line[2]: line[1] for line in lines if line}
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
