"""What must not leave the folder of a credentialed cohort, as hashes that a scan can look for.

The register of a cohort lies beside its data and holds no value: 64-bit hashes of identifiers, file
names and dates, of capitalised words that few reports have (names are among them), and of seven
words in a row of the reports.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxrlib.core import atomic
from cxrlib.core.folders import LIBRARY

ROW = 7  # words that, in this order, are taken for a piece of a report
FEW = 10  # a capitalised word in fewer reports may be a name
CHUNK = 5000  # texts hashed at a time, which bounds the memory
SHORTEST = 6  # an identifier with fewer characters cannot be told from a number

_WORD = re.compile(r"[a-z0-9]+")
_NAME = re.compile(r"\b[A-Z][a-z]{3,}(?:-[A-Z][a-z]+)*\b")
_TOKEN = re.compile(r"[0-9a-z]+(?:[-_][0-9a-z]+)*")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses nothing


class Register(NamedTuple):
    """Sorted 64-bit hashes, (n,) uint64 each."""

    identifiers: np.ndarray
    files: np.ndarray
    dates: np.ndarray
    names: np.ndarray
    rows: np.ndarray  # of seven words


KINDS = {
    "identifiers": "identifier",
    "files": "file name",
    "dates": "date",
    "names": "report text",
    "rows": "report text",
}


def build(cohort: Any) -> Register:
    """The register of a cohort: columns named ``*_id`` or with "date" in it, films and reports."""
    table = cohort.table
    identifiers, dates = set(), set()
    for column in table:
        if column.endswith("_id"):
            identifiers |= {_plain(x) for x in table[column].dropna().unique()}
        elif "date" in column:
            dates |= {_plain(x)[:10] for x in table[column].dropna().unique()}
    dates |= {d.replace("-", "") for d in dates}
    paths = [] if cohort.films is None else cohort.films["file"]
    files = {name.partition(".")[0] for path in paths for name in _named(_plain(path))}
    reports = table["report"].dropna().unique() if "report" in table else []
    seen = Counter(name for text in reports for name in names_in(text))
    return Register(
        _hashes(x for x in identifiers if len(x) >= SHORTEST),
        _hashes(x for x in files - identifiers if len(x) >= SHORTEST),
        _hashes(dates),
        _hashes(name for name, count in seen.items() if count < FEW),
        rows_of(reports),
    )


def _named(path):
    """The parts of a path that may tell whose film it is: its last one, and folders with digits."""
    *folders, last = path.split("/")
    return [last, *(f for f in folders if re.search(r"\d", f))]


def _plain(value):
    return str(value).removesuffix(".0").lower()


def _hash(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _hashes(texts):
    return np.unique(np.fromiter(map(_hash, texts), dtype=np.uint64))


def names_in(text: str) -> set[str]:
    """Capitalised words of a text, in small letters."""
    return {name.lower() for name in _NAME.findall(text)}


def tokens_in(text: str) -> set[str]:
    """What may be an identifier in a text: tokens, and their parts without a leading p or s."""
    found = set()
    for token in set(_TOKEN.findall(text.lower())):
        found.add(token)
        for part in re.split("[-_]", token):
            found |= {part, part.lstrip("ps")}
    return found


def rows_of(texts: Iterable[str]) -> np.ndarray:
    """Hashes of all seven words in a row of each text, sorted, (n,) uint64."""
    texts, known = list(texts), _Hashes()
    found = [_rows(texts[i : i + CHUNK], known) for i in range(0, len(texts), CHUNK)]
    return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *found]))


class _Hashes(dict):
    """word -> hash, computed once."""

    def __missing__(self, word):
        self[word] = _hash(word)
        return self[word]


def _rows(texts, known):
    words = [_WORD.findall(text.lower()) for text in texts]
    text = np.repeat(np.arange(len(texts)), [len(w) for w in words])
    hashed = np.fromiter((known[w] for of_text in words for w in of_text), dtype=np.uint64)
    n = len(hashed) - ROW + 1
    if n < 1:
        return np.empty(0, dtype=np.uint64)
    out = np.zeros(n, dtype=np.uint64)
    for k in range(ROW):
        out = out * _FACTOR + hashed[k : k + n]
    return np.unique(out[text[:n] == text[ROW - 1 :]])


def kinds(
    register: Register, text: str, known: Known | None = None, strict: bool = True
) -> set[str]:
    """What of the register occurs in a text: a set of `KINDS`.

    Parameters
    ----------
    register : Register
    text : str
    known : Known, optional
        What the text may hold, since the project's own pages do.
    strict : bool
        Whether long numbers count even where they are known: an example may be a true one.
    """
    found = set()
    tokens = tokens_in(text)
    if known is not None:
        tokens -= {t for t in known.tokens if not (strict and re.search(r"\d{5}", t))}
    for field in ("identifiers", "files", "dates"):
        if _any(_hashes(tokens), getattr(register, field)):
            found.add(KINDS[field])
    names = names_in(text) - (known.words if known else set())
    rows = rows_of([text])
    if known is not None:
        rows = rows[~_in(rows, known.rows)]
    if _any(_hashes(names), register.names) or _any(rows, register.rows):
        found.add("report text")
    return found


class Known(NamedTuple):
    """Words that tell nothing of a cohort, since the project's own text has them."""

    tokens: set
    words: set
    rows: np.ndarray

    @classmethod
    def of(cls, text: str) -> Known:
        """Of one text."""
        return cls(tokens_in(text), set(re.findall("[a-z-]+", text.lower())), rows_of([text]))

    def __or__(self, other):
        return Known(
            self.tokens | other.tokens, self.words | other.words, np.union1d(self.rows, other.rows)
        )


@functools.cache
def project() -> Known:
    """The words of `own_text`."""
    return Known.of(own_text())


@functools.cache
def own_text() -> str:
    """All text of this library, and of the chapters and pages beside it."""
    files = [file for kind in ("*.py", "*.toml", "*.csv", "*.md") for file in LIBRARY.rglob(kind)]
    for folder, kind in (("chapters", "*.py"), ("book", "**/*.md"), (".", "*.md")):
        files += (LIBRARY.parent / folder).glob(kind)
    return "\n".join(f.read_text(encoding="utf-8") for f in files)


def _in(hashes, among):
    """Which are among sorted ones, (n,) bool."""
    if not len(among):
        return np.zeros(len(hashes), dtype=bool)
    place = np.minimum(np.searchsorted(among, hashes), len(among) - 1)
    return among[place] == hashes


def _any(hashes, among):
    return bool(_in(hashes, among).any())


def save(register: Register, path: Path) -> None:
    """Write in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(part):
        with part.open("wb") as file:  # to a name, NumPy would add an ending
            np.savez(file, **register._asdict())

    atomic.in_one_step(path, write)


def load(path: Path) -> Register:
    """Read what `save` wrote."""
    with np.load(path) as file:
        return Register(**{field: file[field] for field in Register._fields})
