"""What a run left and how it came about, for people and programs elsewhere; and whether it changed.

The file `FILE` in the folder of a run, and in that of the built pages, follows RO-Crate 1.1 with
its profile Process Run Crate 0.5: every file with its SHA-256 and size, and for each chapter the
action that made its files, from what. Its first home of a fact is the card
(:mod:`cxrlib.book.record`), which has all parameters, the versions of packages and the files used,
and is a file of the manifest itself; of a cohort and of weights stand here the fingerprints alone,
never a path, so that a manifest may be shown where the card may.

Hashes are taken once, when a chapter has ended, and kept until it is run again: what was changed in
between is not taken for the result of a run.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote, unquote

from filelock import FileLock

from cxrlib.book.parameters import command
from cxrlib.core import atomic
from cxrlib.core.errors import BookError, nearest

FILE = "ro-crate-metadata.json"
CRATE, PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = [f"{CRATE}/context", "https://w3id.org/ro/terms/workflow-run/context"]  # it has sha256
RUNNING, ENDED, FAILED = (
    f"http://schema.org/{x}ActionStatus" for x in ("Active", "Completed", "Failed")
)
LICENCE = "https://spdx.org/licenses/Apache-2.0"
KINDS = {".ipynb": "application/x-ipynb+json", ".parquet": "application/vnd.apache.parquet"}
OWN = "sha256:"  # before the hash of the manifest, taken with zeros in its place
BUILD = "#build"


# --- writing --------------------------------------------------------------------------------------


def update(
    folder: Path,
    states: dict[str, str] | None = None,
    files: Iterable[Path] = (),
    project: Iterable[str] | None = None,
) -> None:
    """Note in the manifest of a run what became of its chapters.

    Parameters
    ----------
    folder : Path
        With the executed notebooks.
    states : dict, optional
        Name of a chapter -> `RUNNING`, `ENDED` or `FAILED`; of one that ended, the hashes of its
        notebook, card and results table are taken.
    files : iterable of Path
        Others in the folder that belong to the run, whose hashes are taken.
    project : iterable of str, optional
        The chapters that there are: others are forgotten once their notebook is gone.
    """
    from cxrlib.book import record  # pyarrow takes a moment, which a verification is spared

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".ro-crate.lock"):
        states, (before, hashes) = states or {}, _read(folder)
        known = before | states
        if project is not None:
            there = {*project, *(path.stem for path in folder.glob("*.ipynb"))}
            known = {name: state for name, state in known.items() if name in there}
        # of these chapters, what was known of their files holds no more
        old = (before.keys() - known.keys()) | states.keys()
        hashes = {name: about for name, about in hashes.items() if _chapter(name) not in old}
        ended = [name for name, state in states.items() if state == ENDED]
        new = [*files, *(part for name in ended for part in _parts(folder, name))]
        hashes |= {_name(path, folder): _hash(path) for path in new}
        graph, title = [], None
        for name, state in sorted(known.items()):
            card = record.card_of(folder / f"{name}.ipynb") if state == ENDED else {}
            title = title or card.get("name")
            graph += _run(name, state, card)
        about = "Executed chapters of the executable companion: notebook, results table, and card"
        about += " with all parameters, versions of packages and files used."
        _write(folder, f"Run {title}" if title else "Chapters of the book", about, hashes, graph)


def pages(folder: Path, notebooks: Iterable[Path]) -> None:
    """Write the manifest of built pages, which says of which executed notebooks they are."""
    made_from = [
        {
            "@id": f"#{path.stem}",
            "@type": "CreativeWork",
            "name": path.stem,
            "sha256": _hash(path)[0],
        }
        for path in notebooks
    ]
    tool = {"@id": "#cxrbook", "@type": "SoftwareApplication", "name": "cxrbook"}
    action = {"@id": BUILD, "@type": "CreateAction", "name": "The pages of the book"}
    action |= {"description": "cxrbook build", "endTime": _now(), "actionStatus": ENDED}
    action |= {"instrument": _at(tool["@id"]), "object": _all(x["@id"] for x in made_from)}
    action |= {"result": _at("./")}
    hashes = {_name(path, folder): _hash(path) for path in inside(folder)}
    about = "Pages of the executable companion, which need no network."
    graph = [action, tool | {"softwareVersion": version("cxrbook")}, *made_from]
    _write(folder, "The built book", about, hashes, graph)


def inside(folder: Path) -> list[Path]:
    """The files that belong to a run: all but hidden ones and what is kept of failed chapters."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        parts = path.relative_to(folder).parts
        if parts != (FILE,) and parts[0] != "failed" and not any(p.startswith(".") for p in parts):
            found.append(path)
    return found


def again(card: dict) -> str:
    """What to type to make a run again, from its card."""
    named = f" --name {card['name']}" if card["name"] else ""
    return command(card["chapter"], _given(card)) + named


def _given(card):
    """The parameters that differ from the defaults."""
    return {name: card["parameters"][name] for name in card["given"]}


def noted(folder: Path) -> dict[str, str]:
    """What the manifest says became of each chapter; empty without one."""
    return _read(folder)[0]


def _parts(folder, chapter):
    return [folder / f"{chapter}{end}" for end in (".ipynb", ".json", ".parquet")]


def _chapter(name):
    """The chapter of a file: what stands before the ending, at the top of the folder."""
    return name.rpartition(".")[0] if "/" not in name else ""


def _name(path, folder):
    return path.relative_to(folder).as_posix()


def _hash(path):
    """SHA-256 and bytes of a file, both as text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), str(path.stat().st_size)


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")


def _at(identifier):
    return {"@id": identifier}


def _all(identifiers):
    """References without repetition: one as such, several as a list."""
    found = [_at(identifier) for identifier in dict.fromkeys(identifiers)]
    return found[0] if len(found) == 1 else found


def _run(chapter, state, card):
    """The entities of a chapter's run: the action first."""
    action = {"@id": f"#{chapter}", "@type": "CreateAction", "name": f"Run of chapter {chapter}"}
    tool = {"@id": f"#{chapter}.py", "@type": "SoftwareSourceCode", "name": f"{chapter}.py"}
    action |= {"actionStatus": state, "instrument": _at(tool["@id"])}
    if not card:
        return [action, tool]
    code = card["code"]
    # a revision says nothing of files that were changed since: the hash of those used does
    revision = None if code["changed"] else code["revision"]
    tool |= {"identifier": code["chapter"], "version": revision or code["library"]}
    tool |= {"runtimePlatform": f"Python {card['python']}, {card['system']}"}
    used = [_work(f"cohort {c['name']}, {c['access']}", c["fingerprint"]) for c in card["cohorts"]]
    used += [_work(f"weights of {m['name']}", m["weights"]) for m in card["models"]]
    if lock := code.get("lock"):  # cards of earlier versions have none
        used.append(_work("requirements.lock", lock) | {"sha256": lock})
    for name, value in _given(card).items():
        value = value if isinstance(value, str | int | float) else repr(value)
        about = {"@id": f"#{chapter}-{name}", "@type": "PropertyValue", "name": name}
        used.append(about | {"value": value})
    action |= {"description": again(card), "endTime": card["date"]}
    action |= {"object": _all(entity["@id"] for entity in used)}
    action |= {"result": _all(path.name for path in _parts(Path(), chapter))}
    return [action, tool, *used]


def _work(name, identifier):
    place = f"#{hashlib.sha256(f'{name} {identifier}'.encode()).hexdigest()[:16]}"
    return {"@id": place, "@type": "CreativeWork", "name": name, "identifier": identifier}


def _write(folder, name, about, hashes, graph):
    actions = _all(entity["@id"] for entity in graph if entity["@type"] == "CreateAction")
    files = [
        {
            "@id": quote(file),
            "@type": "File",
            "sha256": digest,
            "contentSize": size,
            "encodingFormat": KINDS.get(Path(file).suffix)
            or mimetypes.guess_type(file)[0]
            or "application/octet-stream",
        }
        for file, (digest, size) in sorted(hashes.items())
    ]
    head = [
        {
            "@id": FILE,
            "@type": "CreativeWork",
            "conformsTo": _at(CRATE),
            "about": _at("./"),
            "identifier": OWN + 64 * "0",
        },
        {
            "@id": "./",
            "@type": "Dataset",
            "name": name,
            "description": about,
            "datePublished": _now(),
            "license": _at(LICENCE),
            "conformsTo": _at(PROFILE),
            "hasPart": _all(file["@id"] for file in files),
            "mentions": actions,
        },
        {
            "@id": LICENCE,
            "@type": "CreativeWork",
            "name": "Apache License 2.0",
            "description": "Of code and text; data stay under the terms of their owners.",
        },
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
    ]
    once = {entity["@id"]: entity for entity in [*head, *files, *graph]}
    lines = ",\n".join(json.dumps(entity, ensure_ascii=False) for entity in once.values())
    text = f'{{"@context": {json.dumps(CONTEXT)},\n"@graph": [\n{lines}\n]}}\n'
    atomic.write(folder / FILE, text.replace(OWN + 64 * "0", OWN + _own(text), 1).encode())


def _own(text):
    """The hash of a manifest, with zeros where it stands in it."""
    blank = re.sub(f"{OWN}[0-9a-f]{{64}}", OWN + 64 * "0", text, count=1)
    return hashlib.sha256(blank.encode()).hexdigest()


def _entities(folder):
    """The entities of a manifest by their names; none where there is none that can be read."""
    try:
        graph = json.loads((folder / FILE).read_text(encoding="utf-8"))["@graph"]
        return {entity["@id"]: entity for entity in graph}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _read(folder):
    """Chapter -> state, and file -> (SHA-256, bytes), as a manifest has them."""
    states, hashes = {}, {}
    for name, entity in _entities(folder).items():
        if entity.get("@type") == "CreateAction":
            states[name.lstrip("#")] = entity.get("actionStatus")
        elif entity.get("@type") == "File":
            hashes[unquote(name)] = entity.get("sha256"), entity.get("contentSize")
    return states, hashes


# --- verifying ------------------------------------------------------------------------------------


def verify(root: Path, run: str | None = None) -> Iterator[tuple[str, bool]]:
    """What differs in a run from what its manifests say.

    Parameters
    ----------
    root : Path
        The project's folder.
    run : str, optional
        Name of a run or a sweep, or a folder. Default: the book, its chapters and its pages.

    Yields
    ------
    (str, bool)
        A line, and whether it tells of something fine.

    Raises
    ------
    BookError
        With exit code 2: there is no such run.
    """
    folders = _folders(root, run)
    executed = {path.stem: path for folder in folders for path in folder.glob("[0-9][0-9]_*.ipynb")}
    for folder in folders:
        where = folder.relative_to(root) if folder.is_relative_to(root) else folder
        problems = list(_problems(folder, executed))
        yield from ((f"{where}{problem}", False) for problem in problems)
        if not problems:
            entities = _entities(folder)
            said = f"{where}: {len(_read(folder)[1])} files as they were when the run ended"
            yield f"{said}; manifest {entities[FILE]['identifier']}", True


def _folders(root, run):
    """The folders with manifests, or those that should have one."""
    if run is None:
        return [root / "book" / "chapters", root / "_build" / "html"]
    place = place_of(root, run)
    return sorted(path.parent for path in place.rglob(FILE)) or [place]


def place_of(root: Path, run: str) -> Path:
    """The folder of a run or a sweep by its name, or any folder by its path.

    Raises
    ------
    BookError
        With exit code 2: there is none; names those that there are.
    """
    kept = [root / "_build" / kind for kind in ("runs", "sweeps")]
    for place in (*(k / run for k in kept), Path(run).absolute()):
        if place.is_dir():
            return place
    names = [p.name for k in kept for p in sorted(k.glob("*")) if p.is_dir()]
    raise BookError(f"no run {run!r}, nor a folder; {nearest(run, names)}", code=2)


def _problems(folder, executed):
    """What is wrong in a folder, each as what follows its name."""
    file = folder / FILE
    if not file.is_file():
        yield f": no {FILE}, so no run has ended here: run it (again), or 'make book' for the book"
        return
    text, entities = file.read_bytes().decode(errors="replace"), _entities(folder)
    said = entities.get(FILE, {}).get("identifier")
    if said != OWN + _own(text):
        again = "take it from a copy, or remove it and run again"
        yield f"/{FILE}: changed after it was written: {again}"
        return
    known, hashes = _read(folder)
    unfinished = {name for name, state in known.items() if state != ENDED}
    for name in sorted(unfinished):
        how = "failed or was stopped" if known[name] == FAILED else "was cut off, or is running"
        yield f": the run of {name} has not finished ({how}): the same command goes on"
    pages = BUILD.lstrip("#") in known
    there = {_name(path, folder): path for path in inside(folder)}
    for name, (digest, size) in hashes.items():
        again = "take it from a copy, or remove it and run the same command again"
        if pages:
            again = "take it from a copy, or remove the folder and build the book again"
        elif _chapter(name) not in known:
            again = "take it from a copy, or call the command again that wrote it"
        if name not in there:
            again = again.replace("remove it and ", "")
            yield f"/{name}: missing; expected {size} bytes with SHA-256 {digest}: {again}"
        elif (found := _hash(there[name])) != (digest, size):
            told = f"expected {size} bytes with SHA-256 {digest}, found {found[1]} with {found[0]}"
            yield f"/{name}: changed; {told}: {again}"
    for name in there:
        if name not in hashes and _chapter(name) not in unfinished:
            yield f"/{name}: added; no file of this run: remove it"
    for name, path in executed.items():
        made_from = entities.get(f"#{name}", {})
        if "sha256" in made_from and made_from["sha256"] != _hash(path)[0]:
            yield f": the page of {name} is of another run of it: build the book again"
