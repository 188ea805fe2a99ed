"""The command ``cxrbook fetch``: open data and open models, to where chapters look for them.

What there is, its addresses and its terms stand in ``fetch.toml``. This is the only part of the
book that uses the network, and it does when it is asked to. Beside the files it keeps
``TERMS.txt``, their licence and whom to cite, and ``SHA256SUMS``, the hashes of what came.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from cxrlib.cohorts import files as data_files
from cxrlib.core import atomic, toml
from cxrlib.core.download import MB, digest, download, headers, room_for, unpack
from cxrlib.core.errors import BookError, known
from cxrlib.models import files as model_files
from cxrlib.models import registry

CATALOGUE = toml.beside(__file__)
NIH = "nih-cxr14"
TERMS = "TERMS.txt"
SUMS = model_files.SUMS
MODEL_PARTS = ("weights", "image", "text", "vocabulary")


@dataclass(frozen=True)
class Item:
    """One address, and what becomes of its file.

    Attributes
    ----------
    url, name, size, hashes
        The address, the name of the file in its folder, and what is known of it.
    there : bool
        Nothing is left to fetch.
    note : str
        What of the file is wanted.
    place : callable, optional
        Of an archive: from a name in it to the file to write, or None to pass it over.
    wanted : int
        Of an archive: how many files have to come out of it, at least.
    unpacked : int
        Bytes that these take, about.
    listed : bool
        Of an archive: the hash of each of its files is recorded.
    """

    url: str
    name: str
    size: int | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    there: bool = False
    note: str = ""
    place: Callable[[str], Path | None] | None = None
    wanted: int = 1
    unpacked: int = 0
    listed: bool = False


@dataclass(frozen=True)
class Thing:
    """What has a name of its own here; ``folder`` is None where no variable says where it goes."""

    name: str
    variable: str
    folder: Path | None
    title: str
    licence: str
    cite: str
    page: str
    source: str
    seen: str
    items: list[Item]
    by_hand: dict[str, str] = field(default_factory=dict)  # names of files to a page for people
    card: dict[str, Any] | None = None


def names() -> list[str]:
    """Everything that can be fetched."""
    return [*CATALOGUE["data"], *CATALOGUE["models"]]


def listing() -> str:
    """What can be fetched, and what cannot."""
    lines = ["Open to anyone; cxrbook fetch NAME --dry-run shows addresses, sizes and terms:"]
    for name in names():
        data = CATALOGUE["data"].get(name)
        title = data["title"] if data else registry.cards()[name]["title"]
        lines.append(f"  {name:<18}{title}")
    lines.append("Never fetched:")
    lines += [f"  {name:<18}{entry['text']}" for name, entry in CATALOGUE["closed"].items()]
    return "\n".join(lines)


def plan(
    what: Sequence[str], parts: Sequence[int] = (), draw: str | None = None, seed: int = 1907
) -> list[Thing]:
    """What is to be fetched of these things, and what of it is there.

    Parameters
    ----------
    what : sequence of str
        Names.
    parts : sequence of int
        Archives of NIH, 1 to 12.
    draw : {"6x200"}, optional
        Of NIH: only the films of this draw, from these archives, or from all.
    seed : int
        Of the draw.

    Raises
    ------
    BookError
        An unknown name; data that are not open to anyone, with who may have them and how; parts
        or a draw where NIH is not asked for.
    """
    found = list(dict.fromkeys(map(_name, what)))
    if (parts or draw) and NIH not in found:
        raise BookError(f"--part and --draw are of {NIH}; {found[0]} has none", code=2)
    return [
        _model(name) if name in CATALOGUE["models"] else _data(name, parts, draw, seed)
        for name in found
    ]


def _data(name, parts, draw, seed):
    entry, folder = CATALOGUE["data"][name], _folder("CXRBOOK_DATA", name)
    items = [_file(one, folder) for one in entry["files"]]
    if name == NIH:
        items += _archives(folder, parts, draw, seed)
    terms = {key: entry[key] for key in ("title", "licence", "cite", "page", "source", "seen")}
    return Thing(name, "CXRBOOK_DATA", folder, **terms, items=items)


def parts_of(texts: Sequence[str]) -> list[int]:
    """Numbers of NIH's archives: "3", "2-4", "1,5" or "all", once each and in order.

    Raises
    ------
    BookError
        Another number, or no number.
    """
    last = len(CATALOGUE["data"][NIH]["archives"])
    found: set[int] = set()
    for word in ",".join(texts).split(",") if texts else []:
        low, _, high = ("1", "-", str(last)) if word.strip() == "all" else word.partition("-")
        try:
            chosen = range(int(low), int(high or low) + 1)
        except ValueError:
            chosen = range(0)
        if not chosen or chosen[0] < 1 or chosen[-1] > last:
            raise BookError(f"--part {word}: expected numbers from 1 to {last}, or all", code=2)
        found |= set(chosen)
    return sorted(found)


def described(thing: Thing) -> str:
    """Terms, addresses, sizes and destination, as they are shown before anything is fetched."""
    place = thing.folder or f"${thing.variable}/{thing.name} ({thing.variable} is not set)"
    lines = [*_terms(thing), f"  into: {place}"]
    for item in thing.items:
        size = f"{item.size / MB:,.0f} MB" if item.size else "size not known"
        hashed = ", hash known" if item.hashes else ""
        state = "there already" if item.there else f"{size}{hashed}"
        about = f" ({item.note})" if item.note else ""
        lines.append(f"  {item.name}: {state}{about}\n    {item.url}")
    lines += [f"  {file}: by hand, from\n    {page}" for file, page in thing.by_hand.items()]
    if thing.name == NIH and not any(item.place for item in thing.items):
        first = CATALOGUE["data"][NIH]["archives"][0]["size"] / MB
        lines.append(
            f"  and films: --part 1 ({first:,.0f} MB) to 12, --part all, or --draw 6x200 for the "
            "1,200 of a draw"
        )
    todo = [item for item in thing.items if not item.there]
    if todo:
        unknown = sum(item.size is None for item in todo)
        more = f" and {unknown} of unknown size" if unknown else ""
        lines.append(f"  to download: {sum(i.size or 0 for i in todo) / MB:,.0f} MB{more}")
    seen = thing.seen or f"no day is known; cxrbook fetch {thing.name} --check asks them"
    return "\n".join([*lines, f"  addresses last seen working: {seen}"])


def fetch(thing: Thing, keep_archives: bool = False) -> Iterator[str]:
    """Fetch what is not there, check what is, unpack and convert; a line for each step.

    Parameters
    ----------
    thing : Thing
    keep_archives : bool
        Archives are removed when their files have been unpacked, unless this is true.

    Raises
    ------
    BookError
        Whatever stops it; what came before is kept, and the same call goes on.
    """
    folder = thing.folder
    if folder is None:
        raise BookError(_unset(thing.variable))
    folder.mkdir(exist_ok=True)
    with _alone(folder):
        terms = "\n".join(_terms(thing)) + "\n"
        if not (folder / TERMS).is_file() or (folder / TERMS).read_text() != terms:
            atomic.write(folder / TERMS, terms.encode())
        todo = [item for item in thing.items if not item.there]
        largest = max((item.size or 0 for item in todo if item.place), default=0)
        kept = sum(item.unpacked if item.place else item.size or 0 for item in todo)
        room_for(kept + largest - _there_of(folder, todo), folder, thing.name)
        for item in thing.items:
            yield from _checked(folder, item) if item.there else _got(thing, item, keep_archives)
        if thing.card:
            yield from _checkpoints(thing)
            yield f"{thing.name}: all there; cxrbook run zero_shot -p models={thing.name}"
        else:
            yield f"{thing.name}: all there that was asked for, in {folder}"


def check(what: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Ask every address of these things for its headers: a line, and whether it is as expected."""
    for thing in plan(what, parts_of(["all"]) if NIH in map(_name, what) else ()):
        asked = [_check(item.url, item.name, item.size) for item in thing.items]
        asked += [_check(page, "", None) for page in thing.by_hand.values()]
        yield from asked
        if all(fine for _, fine in asked):
            table = f"{'models' if thing.card else 'data'}.{thing.name}"
            line = f"every address of {thing.name} answers. cxrlib/book/fetch.toml can say so, "
            yield line + f'under [{table}]: seen = "{date.today()}, YOUR NAME"', True


def _check(url, name, size):
    """An address: a line, and whether it answers with a file (without a name: with a page)."""
    try:
        said = headers(url)
    except BookError as error:
        return f"problem  {error}", False
    page = said.kind.startswith("text/html")
    if name and page:
        return f"problem  {url}: a web page in place of {name}", False
    if size and said.size and size != said.size:
        return f"problem  {url}: {said.size:,} bytes in place of {size:,}", False
    much = f", {said.size / MB:,.1f} MB" if said.size and not page else ""
    return f"ok       {url}: {name or 'a page for people'}{much}", True


def _name(word):
    """The name of a thing, which may go by that of a cohort."""
    for kind in ("data", "closed"):
        for name, entry in CATALOGUE[kind].items():
            if word == name or word in entry.get("also", ()):
                if kind == "closed":
                    raise BookError(f"{word} is not fetched: {entry['text']}")
                return name
    known(word, names(), f"nothing is called {word!r}")
    return word


def _folder(variable, name):
    """Where a thing goes; None where the variable is not set."""
    if not os.environ.get(variable):
        return None
    if variable == "CXRBOOK_DATA":
        return (data_files.data_folder() / name).resolve()
    root = Path(os.environ[variable]).expanduser()
    if not root.is_dir():
        raise BookError(f"{variable}={root}: no such folder; make it, or correct the variable")
    return root.resolve() / name


def _unset(variable):
    what = "data sets" if variable == "CXRBOOK_DATA" else "models"
    return (
        f"where to? Set {variable} to the folder that holds the {what}, a folder each: "
        f"export {variable}=~/{'data' if variable == 'CXRBOOK_DATA' else 'checkpoints'}"
    )


def _file(one, folder):
    """The item of an entry ``files``."""
    item = Item(one["url"], one["name"], one.get("size"), _hashes(one))
    if "unpack" not in one:
        names = [item.name, *one.get("instead", ())]
        there = folder is not None and any((folder / name).is_file() for name in names)
        return replace(item, there=there)

    def place(name):
        inner = PurePosixPath(*PurePosixPath(name).parts[1:])
        fits = (fnmatchcase(str(inner).lower(), pattern) for pattern in one["unpack"])
        return folder / inner if any(fits) else None

    there = folder is not None and _unpacked(folder, item.name)
    return replace(item, place=place, there=there, listed=True)


def _unpacked(folder, archive):
    """Whether all that an archive held, by the list of hashes, is there."""
    sums = _sums(folder)
    held = [name for name in sums if name != archive]
    return archive in sums and bool(held) and all((folder / name).is_file() for name in held)


def _archives(folder, parts, draw, seed):
    """The items of NIH's archives that hold films that are wanted and not there."""
    if not (parts or draw):
        return []
    from cxrlib.cohorts import nih

    entries = CATALOGUE["data"][NIH]["archives"]
    films = _released()
    present = _films_in(folder)
    drawn = _drawn(seed, folder) if draw else None
    held: dict[int, list[str]] = {}
    for film, number in zip(films, nih.archive_of(films), strict=True):
        held.setdefault(number, []).append(film)
    items = []
    for number in parts or range(1, len(entries) + 1):
        one = entries[number - 1]
        wanted = [film for film in held.get(number, ()) if drawn is None or film in drawn]
        missing = frozenset(wanted) - present
        place = Path("images" if draw else f"images_{number:03d}/images")
        share = len(missing) / max(1, len(held.get(number, ())))
        note = f"{len(wanted):,} films"
        if drawn is not None:
            note = f"{len(wanted):,} of its {len(held.get(number, ())):,} films"
        items.append(
            Item(
                one["url"],
                f"images_{number:03d}.tar.gz",
                one.get("size"),
                _hashes(one),
                there=not missing,
                note=note,
                place=_placed(folder, place, missing),
                wanted=len(missing),
                unpacked=round(share * one.get("size", 0)),
            )
        )
    return items


def _placed(folder, place, missing):
    """Where a film of an archive goes: nowhere, unless it is wanted and not there."""

    def where(name):
        film = PurePosixPath(name).name
        return folder / place / film if film in missing else None

    return where


def _released():
    """Names of all NIH films; the open table has them."""
    from cxrlib.cohorts import metadata

    return metadata.nih()["image_id"].tolist()


def _drawn(seed, folder):
    """Names of the films of a 6x200 draw."""
    from cxrlib.cohorts import nih

    there = folder if folder and folder.is_dir() else None
    return frozenset(nih.draw_6x200(seed, root=there)[1]["image_id"])


def _films_in(folder):
    """Names of the NIH films that are there, wherever chapters would find them."""
    if folder is None or not folder.is_dir():
        return frozenset()
    places = [folder / "images", *folder.glob("images_*/images")]
    found = {name for place in places if place.is_dir() for name in os.listdir(place)}
    return frozenset(name for name in found if name.endswith(".png"))


def _model(name):
    """A model: an address or a page for each part of its card."""
    entry, card = CATALOGUE["models"][name], registry.cards()[name]
    folder = _folder(model_files.FOLDER, name)
    found = model_files.find(card, folder) if folder and folder.is_dir() else {}
    by_part = {file["part"]: file for file in card["files"]}
    items = []
    for part in [part for part in MODEL_PARTS if part in entry]:
        url = CATALOGUE["shared"].get(entry[part], entry[part])
        file, last = by_part[part], PurePosixPath(url).name
        item = Item(url, last, hashes=_hashes(file), there=bool(found.get(part)))
        if last.endswith(".zip"):
            place = _member(folder, file["names"])
            item = replace(item, place=place, note=f"of it {file['names'][0]}", hashes={})
        items.append(item)
    pages = {part: page for part, page in entry.get("by_hand", {}).items() if not found.get(part)}
    return Thing(
        name,
        model_files.FOLDER,
        folder,
        card["title"],
        f"{card['licence']} (pretrained on {card['trained_on']})",
        card["paper"],
        card["repository"],
        entry["source"],
        entry["seen"],
        items,
        {" or ".join(by_part[part]["names"]): page for part, page in pages.items()},
        card,
    )


def _member(folder, wanted):
    """Where a file of the archive of a model goes: into its folder, if the card wants it."""

    def where(name):
        last = PurePosixPath(name).name
        return folder / last if last in wanted else None

    return where


def _terms(thing):
    return [
        thing.title,
        f"  licence: {thing.licence}",
        f"  cite: {thing.cite}",
        f"  from: {thing.page}",
        f"  addresses as in: {thing.source}",
    ]


def _there_of(folder, todo):
    """Bytes of downloads that are on the disk already, whole or in part."""
    names = [name for item in todo for name in (item.name, f"{item.name}.part")]
    paths = [folder / name for name in names]
    return sum(path.stat().st_size for path in paths if path.is_file())


@contextmanager
def _alone(folder):
    """Refuse to write into a folder into which another process fetches."""
    path = folder / ".fetch.lock"
    try:
        with FileLock(path, timeout=0):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)  # left behind, it would change the folder's stamp
    except Timeout:
        raise BookError(f"{folder}: another process fetches into it; wait for it") from None


def _got(thing, item, keep_archives):
    """Fetch a file, and unpack it where it is an archive."""
    path, recorded = thing.folder / item.name, _sums(thing.folder).get(item.name)
    if path.is_file():  # an archive whose unpacking was cut, or one that was kept
        value = _same(thing.folder, item.name, item.hashes)
        keep_archives = keep_archives or recorded is not None
    else:
        hashes = item.hashes | ({"sha256": recorded} if recorded else {})
        hint = f"; to take a new version, remove its line from {thing.folder / SUMS}"
        value = download(item.url, path, item.size, hashes, hint if recorded else "")
        if not (item.place or thing.card):  # these are recorded when they have been opened
            _record(thing.folder, {item.name: value})
        yield f"{path}: {path.stat().st_size / MB:,.1f} MB, SHA-256 {value}"
    if item.place is None:
        return
    placed = unpack(path, item.place)
    if len(placed) < item.wanted:
        raise BookError(
            f"{path}: holds {len(placed):,} of the {item.wanted:,} files that are wanted of it: "
            "another archive than the one known here"
        )
    held = placed if item.listed else []
    hashes = {one.relative_to(thing.folder).as_posix(): digest(one) for one in held}
    _record(thing.folder, {item.name: value, **hashes})
    if not keep_archives:
        path.unlink()
    yield f"{path}: {len(placed):,} files unpacked, {'kept' if keep_archives else 'removed'}"


def _checked(folder, item):
    """Compare the hashes of what was fetched before, if these are known."""
    if item.listed:
        for name in _sums(folder):
            if (folder / name).is_file():
                yield from _verify(folder, name, {})
    elif item.place is None and (folder / item.name).is_file():
        yield from _verify(folder, item.name, item.hashes)


def _checkpoints(thing):
    """Check the files of a model; what is new and holds more than tensors is converted."""
    found = model_files.find(thing.card, thing.folder)
    for file in thing.card["files"]:
        for path in found[file["part"]]:
            if file["part"] != "vocabulary" and path.name not in _sums(path.parent):
                yield from _converted(path)
            hashes = _hashes(file) if path.name in file["names"] else {}
            yield from _verify(path.parent, path.name, hashes)
    for wanted, page in thing.by_hand.items():
        raise BookError(
            f"{thing.name}: its authors share {wanted} on a page for people, {page}: download it "
            f"there, put it into {thing.folder}, and give the same command again"
        )


def _converted(path):
    """Write the tensors of a checkpoint to a file of their own, where it holds anything else."""
    from cxrlib.models import checkpoints
    from cxrlib.models.convert import convert

    try:
        checkpoints.read(path)
    except ValueError:
        written = convert(path)
        yield from _verify(written.parent, written.name, {})
        yield f"{written}: the tensors of {path.name}, and nothing else"


def _verify(folder, name, hashes):
    """Compare a file with the hash that is known and with the recorded one, or record it."""
    own = _same(folder, name, hashes)
    if name not in _sums(folder):
        _record(folder, {name: own})
        yield f"{folder / name}: SHA-256 {own}, from now on in {SUMS}"


def _same(folder, name, hashes):
    """The SHA-256 of a file, once it is that which is known and recorded, if it is."""
    path, recorded = folder / name, _sums(folder).get(name)
    own = digest(path)
    for kind, value in [*hashes.items(), *([("sha256", recorded)] if recorded else [])]:
        found = own if kind == "sha256" else digest(path, kind)
        if found != value.lower():
            raise BookError(
                f"{path}: {model_files.HASHES[kind]} {found} in place of {value}: damaged, or "
                "another file; remove it, and the same command fetches it again"
            )
    return own


def _hashes(entry):
    return {kind: entry[kind] for kind in model_files.HASHES if kind in entry}


def _sums(folder):
    """The recorded hashes: names relative to the folder to SHA-256."""
    path = folder / SUMS
    if not path.is_file():
        return {}
    lines = map(model_files.SUM.fullmatch, path.read_text(errors="replace").splitlines())
    return {line[2]: line[1].lower() for line in lines if line}


def _record(folder, new):
    text = "".join(f"{value}  {name}\n" for name, value in (_sums(folder) | new).items())
    atomic.write(folder / SUMS, text.encode())
