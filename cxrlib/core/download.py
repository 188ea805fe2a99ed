"""Files from the web and out of archives: whole and checked, or not at all.

requests and urllib3 do what HTTP asks for: redirects, tries, the wait that a server demands. What
stands here is what they leave open: going on where a download was cut, the space on the disk, the
hash, one line for whatever goes wrong. (pooch begins a cut download anew, which for archives of
gigabytes is no help; huggingface_hub goes on, but knows one hub only.)
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from cxrlib.core.errors import BookError
from cxrlib.core.progress import Bar

if TYPE_CHECKING:
    from requests import Response, Session

CHUNK = 1 << 18  # bytes read at once
MB = 1_000_000
TIMEOUT = (20.0, 60.0)  # seconds to connect, and without a single byte
TRIES = 5  # without a megabyte gained between them
BACKOFF = 1.0  # seconds before the second try; doubled before each further one
LONGEST_WAIT = 300  # seconds that a server may ask for
BUSY = (429, 500, 502, 503, 504)
WORDS = {
    401: "asks for a log-in",
    403: "refuses, or asks for a log-in",
    404: "has no such file",
    410: "has the file no longer",
    429: "has too many requests and asks to wait",
}
PART, MARK = ".part", ".part-of"  # what is there of a file, and of which version of it
HASHES = {"sha256": "SHA-256", "md5": "MD5"}
PAGE = re.compile(rb"\s*(<!doctype html|<html|<head)", re.IGNORECASE)
PAGE_INSTEAD = (
    "answers with a web page in place of the file, perhaps a log-in; open the address in a "
    "browser, and see whether the file has moved"
)
SHA256 = re.compile(r"[0-9a-f]{64}")


class Headers(NamedTuple):
    """What a server says of a file: its bytes (None: not said), and what it is."""

    size: int | None
    kind: str


class _Cut(Exception):
    """The connection ended early: worth another try."""


def headers(url: str) -> Headers:
    """What the server says of a file, none of which is read.

    The first byte is asked for and not waited for, since some servers answer HEAD with an error.

    Raises
    ------
    BookError
        It cannot be reached, refuses, or has no such file.
    """
    with _session() as web, _answer(web, url, {"Range": "bytes=0-0"}) as response:
        return Headers(_total(response, 0), response.headers.get("Content-Type", ""))


def download(
    url: str,
    path: Path,
    size: int | None = None,
    hashes: dict[str, str] | None = None,
    hint: str = "",
) -> str:
    """Fetch a file; it appears under its name when it is whole and its hash is right.

    Until then it is called ``NAME.part``. What is there of it is kept when the connection or the
    process ends, and the next call goes on from there, where the server can and has the same
    version still.

    Parameters
    ----------
    url : str
    path : Path
        Its folder is made.
    size : int, optional
        Bytes expected.
    hashes : dict of str to str, optional
        "sha256" or "md5", in hexadecimal digits.
    hint : str
        What to say beside a hash that differs.

    Returns
    -------
    Its SHA-256.

    Raises
    ------
    BookError
        Whatever stops it, in one line: no answer, a log-in page, another size or hash, a full disk,
        a connection that ends again and again.
    """
    hashes = {kind: value.lower() for kind, value in (hashes or {}).items()}
    part = path.with_name(path.name + PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    tries = 0
    with _session() as web, Bar(0, path.name, "megabyte") as bar:
        while True:
            before = _bytes(part)
            try:
                announced = _rest(web, url, part, size, bool(hashes), bar)
                break
            except _Cut as cut:
                tries = 1 if _bytes(part) - before >= MB else tries + 1
                if tries >= TRIES:
                    kept = f"{_bytes(part):,} bytes are kept, and the same command goes on"
                    raise BookError(f"{url}: {cut}, again and again; {kept}") from None
            time.sleep(BACKOFF * 2 ** (tries - 1))
    found = {kind: digest(part, kind) for kind in {"sha256", *hashes}}
    for kind, value in [*hashes.items(), *announced.items()]:
        if found[kind] != value:
            _forget(part)
            raise BookError(
                f"{url}: {HASHES[kind]} {found[kind]} in place of {value}: damaged on the way, or "
                f"another file; nothing was kept{hint}"
            )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    _forget(part)
    return found["sha256"]


def digest(path: Path, kind: str = "sha256") -> str:
    """The hash of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _rest(
    web: Session, url: str, part: Path, size: int | None, checked: bool, bar: Bar
) -> dict[str, str]:
    """Add to a part what it lacks; the hash that the server announces, if it does."""
    have, mark = _bytes(part), _mark(part)
    version = mark.read_text() if mark.is_file() else ""
    if not (version or checked):
        have = 0  # of another version, perhaps, and nobody would notice
    asked = {"Range": f"bytes={have}-"} if have else {}
    if have and version:
        asked["If-Range"] = version
    with _answer(web, url, asked) as response:
        if response.status_code == 416:
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return _announced(response)
            _forget(part)
            raise _Cut("the server cannot go on where it ended")
        have = have if response.status_code == 206 else 0
        total = _total(response, have)
        _refuse(response, part, total, size, have)
        bar.total = total and total // MB
        try:
            _save(response, part, have, size if total is None else total, bar)
        except OSError as error:
            why = error.strerror or error
            raise BookError(f"{part}: cannot be written ({why}); what came is kept") from None
        return _announced(response)


def _refuse(response: Response, part: Path, total: int | None, size: int | None, have: int) -> None:
    """What can be told from the headers not to end well."""
    url = _asked(response)
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html"):
        raise BookError(f"{url}: {PAGE_INSTEAD}")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise BookError(f"{url}: comes compressed although it was asked for as it is")
    if size and total and total != size:
        raise BookError(
            f"{url}: has {total:,} bytes in place of {size:,}: another file than the one known here"
        )
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status_code == 206 and not (start and int(start[1]) == have):
        _forget(part)
        raise _Cut("the server goes on at another place than asked")
    room_for((total or size or 0) - have, part.parent, url)


def room_for(needed: int, folder: Path, what: str) -> None:
    """Refuse what needs more bytes than there are on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BookError(
            f"{what}: needs {needed / MB:,.0f} MB, and {folder} has {free / MB:,.0f} MB free"
        )


def _save(response: Response, part: Path, have: int, total: int | None, bar: Bar) -> None:
    """Write what comes; _Cut where it ends before the end."""
    pieces = _pieces(response)
    first = next(pieces, b"")
    if not have and PAGE.match(first):
        raise BookError(f"{_asked(response)}: {PAGE_INSTEAD}")
    tag = response.headers.get("ETag", "W/")
    version = response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
    with part.open("ab" if have else "wb") as file:
        _mark(part).write_text(version)
        for piece in chain([first], pieces):
            file.write(piece)
            have += len(piece)
            bar.update(have // MB - bar.n)
    if total is not None and have != total:
        raise _Cut("the connection ended early")


def _pieces(response: Response) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except HTTPError:
        raise _Cut("the connection ended early") from None


def _asked(response: Response) -> str:
    """The address that was asked for, not one that it sent on to, which may hold a key."""
    return response.history[0].url if response.history else response.url


def _announced(response: Response) -> dict[str, str]:
    """The SHA-256 that Hugging Face tells beside its redirect to a large file."""
    for answer in (*response.history, response):
        said = answer.headers.get("X-Linked-ETag", "").strip('"')
        if SHA256.fullmatch(said):
            return {"sha256": said}
    return {}


def _total(response: Response, have: int) -> int | None:
    """Bytes of the whole file, where the server says so."""
    whole = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    if whole:
        return int(whole[1])
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdigit() else None


def _session() -> Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    how: dict[str, Any] = {"connect": 2, "read": 2, "status": TRIES, "other": 0}
    how |= {"status_forcelist": BUSY, "backoff_factor": BACKOFF, "retry_after_max": LONGEST_WAIT}
    web = requests.Session()
    for kind in ("https://", "http://"):
        web.mount(kind, HTTPAdapter(max_retries=Retry(TRIES, raise_on_status=False, **how)))
    web.headers.update({"User-Agent": "cxrbook", "Accept-Encoding": "identity"})
    return web


def _answer(web: Session, url: str, asked: dict[str, str]) -> Response:
    """The answer of a server before its content is read; BookError where there is none."""
    import requests

    try:
        response = web.get(url, headers=asked, stream=True, timeout=TIMEOUT)
    except requests.exceptions.SSLError:
        raise BookError(f"{url}: its certificate cannot be trusted") from None
    except requests.Timeout:
        raise BookError(f"{url}: no answer in {TIMEOUT[1]:.0f} s; try again later") from None
    except requests.TooManyRedirects:
        raise BookError(f"{url}: sends from one address to the next without end") from None
    except requests.ConnectionError as error:
        timed_out = "timed out" in str(error)
        why = f"no answer in {TIMEOUT[1]:.0f} s" if timed_out else "cannot be reached"
        raise BookError(
            f"{url}: {why}; is there a network? Try again later, or bring the file from another "
            "machine ('cxrbook fetch NAME --dry-run' says where it belongs)"
        ) from None
    except (requests.RequestException, ValueError) as error:
        what = type(error).__name__
        raise BookError(f"{url}: leads to what is no address of a file ({what})") from None
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise BookError(f"{url}: sends on to an address that is not encrypted ({response.url})")
    if not (response.ok or response.status_code == 416):
        response.close()
        code = response.status_code
        raise BookError(f"{url}: the server {WORDS.get(code, 'fails')} (HTTP {code})")
    return response


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _mark(part: Path) -> Path:
    return part.with_name(part.name.removesuffix(PART) + MARK)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark(part).unlink(missing_ok=True)


def unpack(archive: Path, place: Callable[[str], Path | None]) -> list[Path]:
    """Write files of an archive, each in one step; those that are there already stay.

    Links, devices and folders are passed over.

    Parameters
    ----------
    archive : Path
        A zip file or a tar archive, compressed or not.
    place : callable
        From the name in the archive to the file to write, or None to pass it over.

    Returns
    -------
    Where each of the files lies.

    Raises
    ------
    BookError
        Damaged; a name that leads out of the folder; more than the disk has room for.
    """
    placed = []
    try:
        for name, size, opened in _members(archive):
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise BookError(f"{archive}: names {name!r}, out of its folder; not unpacked")
            target = place(name)
            if target is None:
                continue
            placed.append(target)
            if _bytes(target) != size or not target.is_file():
                room_for(size, archive.parent, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened() as content:
                    _one(content, target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BookError(_damaged(archive, error)) from None
    except OSError as error:
        if error.strerror is None:  # what gzip raises
            raise BookError(_damaged(archive, error)) from None
        raise BookError(f"{archive}: cannot be unpacked ({error.strerror})") from None
    getattr(os, "sync", lambda: None)()
    return placed


def _damaged(archive: Path, error: Exception) -> str:
    why = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
    return f"{archive}: damaged ({why}); remove it, and the same command fetches it again"


def _members(archive: Path) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Name and bytes of each file in an archive, and what opens it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as held:
            for entry in held.infolist():
                if not (entry.is_dir() or entry.external_attr >> 28 == 0xA):  # 0xA: a link
                    yield entry.filename, entry.file_size, partial(held.open, entry)
        return
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.isfile():
                yield member.name, member.size, partial(packed.extractfile, member)


def _one(content: IO[bytes], target: Path) -> None:
    part = target.with_name(target.name + PART)
    try:
        with part.open("wb") as file:
            shutil.copyfileobj(content, file)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
