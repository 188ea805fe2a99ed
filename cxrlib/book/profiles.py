"""Profiles: parameters that go together, in a YAML file.

::

    title: NIH ChestX-ray14
    needs: {data: [nih-cxr14]}    # also checkpoints: [names of models], gpu: true
    parameters: {data: nih}       # for each chapter that declares them
    chapters:                     # for one chapter
      fine_tuning: {n_splits: 5}

Those of the book lie in the folder ``profiles`` beside this file; any other is named by its path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from cxrlib.book.chapters import chapters, find
from cxrlib.core.errors import BookError, known, nearest

FOLDER = Path(__file__).with_name("profiles")
KEYS = {"title": str, "needs": dict, "parameters": dict, "chapters": dict}
NEEDS = {"data": list, "checkpoints": list, "gpu": bool}


@dataclass(frozen=True)
class Profile:
    """A checked profile: what it needs, and the parameters that it gives to each chapter."""

    name: str
    title: str
    needs: dict
    values: dict  # chapter name -> parameters


def names() -> list[str]:
    """The profiles of the book, the default first."""
    found = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    return sorted(found, key=lambda name: name != "default")


def load(name: str, root: Path) -> Profile:
    """A profile of the book by name, or one of your own by path.

    Parameters
    ----------
    name : str
    root : Path
        The project's folder, whose chapters say which parameters there are.

    Raises
    ------
    BookError
        With exit code 2: no such profile, no YAML, or an unknown key, chapter or parameter; names
        file and key.
    """
    path = FOLDER / f"{name}.yaml"
    if name not in names():
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            raise BookError(
                f"no profile {name!r}, nor the path of a .yaml file; {nearest(name, names())}",
                code=2,
            )
        if not path.is_file():
            raise BookError(f"--profile {name}: no such file", code=2)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = str(error).replace("\n", " ")
        raise BookError(f"{path.name} is no YAML: {problem}", code=2) from None
    content = _typed(content, KEYS, path.name)
    needs = _typed(content.get("needs") or {}, NEEDS, f"{path.name}, needs")
    every = chapters(root)
    values: dict[str, dict] = {chapter.name: {} for chapter in every}
    _general(content.get("parameters") or {}, every, values, path.name)
    for query, own in (content.get("chapters") or {}).items():
        _of_chapter(str(query), own, root, values, path.name)
    return Profile(path.stem, content.get("title") or path.stem, needs, values)


def _typed(content, keys, where):
    """A mapping with these keys only, each of its type."""
    if not isinstance(content, dict):
        raise BookError(f"{where}: expected a mapping with {', '.join(keys)}", code=2)
    for key, value in content.items():
        known(str(key), list(keys), f"{where}: unknown key {key!r}")
        if value is not None and not isinstance(value, keys[key]):
            raise BookError(f"{where}: {key} is {value!r}; expected a {keys[key].__name__}", code=2)
    return content


def _general(given, every, values, where):
    declared = sorted({name for chapter in every for name in chapter.parameters})
    for name, value in given.items():
        known(str(name), declared, f"{where}: parameters: no chapter declares {name!r}")
        for chapter in every:
            if name in chapter.parameters:
                values[chapter.name][name] = value


def _of_chapter(query, own, root, values, where):
    where = f"{where}: chapters:"
    try:
        (chapter,) = find(root, query)
    except (BookError, ValueError):
        hint = nearest(query, [name[3:] for name in values])
        raise BookError(f"{where} no chapter {query!r}; {hint}", code=2) from None
    if not isinstance(own, dict):
        raise BookError(f"{where} {query}: expected parameters", code=2)
    for name in own:
        known(str(name), list(chapter.parameters), f"{where} {query}: no parameter {name!r}")
    values[chapter.name] |= own


def combined(wanted: Iterable[str], root: Path) -> dict[str, dict]:
    """Several profiles as one: a later one wins over an earlier one.

    Parameters
    ----------
    wanted : list of str
        Names or paths.
    root : Path

    Returns
    -------
    dict
        Chapter name -> parameters, without chapters that get none.

    Raises
    ------
    BookError
        See `load`.
    """
    values: dict[str, dict] = {}
    for name in wanted:
        for chapter, given in load(name, root).values.items():
            values[chapter] = values.get(chapter, {}) | given
    return {chapter: given for chapter, given in values.items() if given}


def listing(root: Path) -> str:
    """What ``cxrbook profiles`` prints."""
    lines = []
    for name in names():
        profile = load(name, root)
        lines.append(f"{name}: {profile.title}")
        if needs := _in_words(profile.needs):
            lines.append(f"    needs {needs}")
        lines += [f"    {line}" for line in _parameters(profile.values)]
    return "\n".join(lines)


def _in_words(needs):
    parts = [f"the folder {folder} below CXRBOOK_DATA" for folder in needs.get("data", ())]
    if checkpoints := needs.get("checkpoints"):
        parts.append(f"below CXRBOOK_CHECKPOINTS the files of {', '.join(checkpoints)}")
    if needs.get("gpu"):
        parts.append("a GPU")
    return "; ".join(parts)


def _parameters(values):
    """Lines NAME=VALUE, with the chapters that get it where not all that declare it do."""
    getting = {}
    for chapter, given in values.items():
        for name, value in given.items():
            getting.setdefault(f"{name}={value}", []).append(chapter[:2])
    return [f"{pair}  (chapters {', '.join(who)})" for pair, who in getting.items()]
