"""The files of a published model: where they are looked for, which are there, their hashes.

Nothing here touches the network or opens a checkpoint; that is :mod:`cxrlib.models.checkpoints`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

FOLDER = "CXRBOOK_CHECKPOINTS"
SUMS = "SHA256SUMS"
SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)")  # a line of it
AGAIN = re.compile(r" \(\d+\)(?=\.[^.]*$|$)")  # what browsers add to the name of a second download
INDEX = ".index.json"  # of a checkpoint in several files, as transformers writes it
SHOWN = 5  # files named in a message
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

    A folder is searched with its subfolders; what lies higher goes first. A converted
    ``.safetensors`` goes before the file that it was made from, and the index of a checkpoint in
    several files stands for it. Of several files that would do, the first of the card is taken,
    unless they are members of an ensemble (``many``), which lie in one folder. A file that is given
    itself may have any name; what else the model needs is looked for beside it.

    Raises
    ------
    ValueError
        A folder that cannot be read; a file given for a model whose weights come in several files,
        by a name that does not say which it is; members of an ensemble in several folders.
    """
    given = where if where and os.path.isfile(where) else None
    there = listed(where)
    found = {file["part"]: _matching(file, there) for file in card["files"]}
    if given:
        found[_part_of(given, card)] = [given]
    return found


def listed(where: Path | None) -> list[Path]:
    """The files that are looked at: of a folder and below, or beside a file; higher ones first."""
    if where is None:
        return []
    beside = os.path.isfile(where)
    found = _files(where.parent if beside else where, deep=not beside)
    return sorted(found, key=lambda path: (len(path.parts), plain(path) != path.name, path))


def plain(path: Path) -> str:
    """The name of a file without what a browser adds to it at a second download, ``" (1)"``."""
    return AGAIN.sub("", path.name)


def all_there(card: dict, found: dict[str, list[Path]], where: Path | None) -> None:
    """Refuse a model of which `find` has not found every part; names what is wanted."""
    missing = [f for f in card["files"] if not found[f["part"]]]
    if not missing:
        return
    wanted = "; ".join(
        f"{f['part']}: {' or '.join(f['names'])}, from {f['source']}" for f in missing
    )
    place = (
        f"not found in {where}{_instead(where)}"
        if where
        else f"no folder was given: set {FOLDER} to a folder with a folder "
        f"{card['name']!r} in it, or pass checkpoint="
    )
    raise ValueError(
        f"{card['name']}: files are missing ({place}). Wanted are {wanted}. Nothing is downloaded "
        "by itself; `cxrbook models` lists what each model wants, `cxrbook fetch` gets it"
    )


def _instead(where):
    """What is there, as far as a message can tell; "" where nothing is."""
    there = [path.name for path in listed(where)]
    more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
    return f", where there are {', '.join(there[:SHOWN])}{more}" if there else ""


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
        converted = Path(name).with_suffix(".safetensors").name
        for pattern in (converted, converted + INDEX, name, name + INDEX):
            for path in there:
                if fnmatchcase(plain(path).lower(), pattern.lower()):
                    found.setdefault(path.with_suffix(""), path)
    if not file.get("many"):
        return list(found.values())[:1]
    highest = min((len(path.parts) for path in found.values()), default=0)
    members = sorted(path for path in found.values() if len(path.parts) == highest)
    if len(folders := sorted({str(path.parent) for path in members})) > 1:
        raise ValueError(
            f"members of one ensemble in several folders ({', '.join(folders)}): "
            "put those that belong together into one, or name one of these as the checkpoint"
        )
    return members


def _files(folder: Path, deep: bool = True) -> list[Path]:
    """Files that are not hidden; each folder once, even where links go round in circles.

    Pipes and devices are left out, since reading one can wait for ever.
    """

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
        paths = [Path(root, name) for name in names if name[0] != "."]
        found += [p for p in paths if os.path.isfile(p) or not os.path.exists(p)]
    return found


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
    why = error.strerror
    if path.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP):
        gone = error.errno == errno.ENOENT
        why = "a link to a file that is gone" if gone else "links that lead in a circle"
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
        if kind in card_file and plain(path) in card_file["names"]:
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
