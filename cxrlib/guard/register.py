"""What must not leave the folder of a credentialed cohort, as hashes that a scan can look for.

The register of a cohort lies beside its data and holds no value: 64-bit hashes of identifiers, file
names and dates, of capitalised words that few reports have (names are among them), and of words in
a row of the reports: any seven, and four that few reports have.
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
from cxrlib.guard.spellings import dates_in, tokens_in

FOLDER = Path("guard", "v2")  # of registers beside the data; another one whenever fields change
ROW = 7  # words that, in this order, are taken for a piece of a report
PIECE = 4  # and so many, where few reports have them
FEW = 10  # a capitalised word, or a piece, in fewer reports may tell of a patient
CHUNK = 5000  # texts hashed at a time, which bounds the memory
SHIFTED = ("2100", "2300")  # years to which MIMIC's dates were moved; no other text has them
SHORTEST = 6  # an identifier with fewer characters cannot be told from a number
GROUP = 8  # and a group of one (DICOM's are of eight digits) with fewer than these

_WORD = re.compile(r"[a-z0-9]+")
_NAME = re.compile(r"\b[A-Z][a-z]{3,}(?:-[A-Z][a-z]+)*\b")
_LETTERS = re.compile(r"[a-z]+(?:-[a-z]+)*")
# A row of these alone is a list of findings, such as any text on radiographs has.
_LISTED = (
    *("atelectasis", "cardiomegaly", "consolidation", "edema", "effusion", "emphysema"),
    *("enlarged", "cardiomediastinum", "fibrosis", "fracture", "hernia", "infiltration"),
    *("lesion", "lung", "mass", "nodule", "opacity", "pleural", "pneumonia"),
    *("pneumothorax", "support", "devices", "thickening", "finding", "findings", "other"),
    *("no", "and", "or", "of", "in", "the", "with", "a"),
)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication loses nothing


class Register(NamedTuple):
    """Sorted 64-bit hashes, (n,) uint64 each."""

    identifiers: np.ndarray
    files: np.ndarray
    dates: np.ndarray
    names: np.ndarray  # written with a capital somewhere in few reports
    surnames: np.ndarray  # of these, what no report writes in small letters
    rows: np.ndarray  # of seven words
    pieces: np.ndarray  # of four words that few reports have


KINDS = {
    "identifiers": "identifier",
    "files": "file name",
    "dates": "date",
    "names": "report text",
    "surnames": "report text",
    "rows": "report text",
    "pieces": "report text",
}
TYPED = {"identifiers", "files", "dates", "rows"}  # what no author's own sentence holds by chance


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
    groups = {group for x in identifiers if "-" in x for group in x.split("-")}
    identifiers |= {g for g in groups if len(g) >= GROUP and re.search(r"\d", g)}
    paths = [] if cohort.films is None else cohort.films["file"]
    files = {name.partition(".")[0] for path in paths for name in _named(_plain(path))}
    reports = table["report"].dropna().unique() if "report" in table else []
    seen = Counter(name for text in reports for name in names_in(text))
    names = {name for name, count in seen.items() if count < FEW}
    small = {word for text in reports for word in _LETTERS.findall(text)}  # as they are written
    return Register(
        _hashes(x for x in identifiers if len(x) >= SHORTEST),
        _hashes(x for x in files - identifiers if len(x) >= SHORTEST),
        _hashes(dates),
        _hashes(names),
        _hashes(names - small),
        rows_of(reports),
        rows_of(reports, PIECE, FEW),
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
    """Capitalised words of a text and their parts between hyphens, in small letters."""
    return _with_parts(name.lower() for name in _NAME.findall(text))


def words_in(text: str) -> set[str]:
    """Words of a text and their parts between hyphens, in small letters."""
    return _with_parts(_LETTERS.findall(text.lower()))


def _with_parts(words):
    found = set(words)
    return found | {part for word in found for part in word.split("-") if len(part) > 3}


def rows_of(texts: Iterable[str], n: int = ROW, fewer: int | None = None) -> np.ndarray:
    """Hashes of all `n` words in a row of each text, sorted, (m,) uint64.

    Parameters
    ----------
    texts : iterable of str
    n : int
    fewer : int, optional
        Only of rows in fewer texts than this, and not of lists of findings.
    """
    texts, known = list(texts), _Hashes()
    found = [_rows(texts[i : i + CHUNK], known, n, fewer) for i in range(0, len(texts), CHUNK)]
    rows, counts = np.unique(
        np.concatenate([np.empty(0, dtype=np.uint64), *found]), return_counts=True
    )
    return rows if fewer is None else rows[counts < fewer]


class _Hashes(dict):
    """word -> hash, computed once."""

    def __missing__(self, word):
        self[word] = _hash(word)
        return self[word]


def _rows(texts, known, n, fewer):
    """Hashes of rows of words, each once per text; of all texts together where none is counted."""
    words = [_WORD.findall(text.lower()) for text in texts]
    text = np.repeat(np.arange(len(texts)), [len(w) for w in words])
    hashed = np.fromiter((known[w] for of_text in words for w in of_text), dtype=np.uint64)
    m = len(hashed) - n + 1
    if m < 1:
        return np.empty(0, dtype=np.uint64)
    out = np.zeros(m, dtype=np.uint64)
    for k in range(n):
        out = out * _FACTOR + hashed[k : k + m]
    inside = text[:m] == text[n - 1 :]
    if fewer is None:
        return np.unique(out[inside])
    listed = _in(hashed, _hashes(_LISTED))
    inside &= ~np.lib.stride_tricks.sliding_window_view(listed, n).all(axis=1)
    pairs = np.unique(np.stack([text[:m][inside].astype(np.uint64), out[inside]]), axis=1)
    return pairs[1]


def kinds(
    register: Register, text: str, known: Known | None = None, strict: bool = True
) -> set[str]:
    """What of the register occurs in a text: a set of `KINDS`, see `found`."""
    return {KINDS[field] for field in found(register, text, known, strict)}


def found(
    register: Register, text: str, known: Known | None = None, strict: bool = True
) -> set[str]:
    """Which fields of the register hold something of a text: a set.

    Parameters
    ----------
    register : Register
    text : str
    known : Known, optional
        What the text may hold, since the project's own pages do.
    strict : bool
        Whether long numbers count even where they are known: an example may be a true one.
    """
    tokens, names, words, rows, pieces = _parts(text)
    if known is not None:
        long = {t for t in tokens if strict and re.search(r"\d{5}", t)}
        tokens = long | (tokens - known.tokens)
        names, words = names - known.words, words - known.words
        rows, pieces = rows[~_in(rows, known.rows)], pieces[~_in(pieces, known.pieces)]
    hashed = _hashes(tokens)
    looked_for = {
        **dict.fromkeys(("identifiers", "files", "dates"), hashed),
        "names": _hashes(names),
        "surnames": _hashes(words),
        "rows": rows,
        "pieces": pieces,
    }
    hits = {field for field, some in looked_for.items() if _any(some, getattr(register, field))}
    if any(SHIFTED[0] <= day < SHIFTED[1] for day in dates_in(text)):
        hits.add("dates")
    return hits


@functools.lru_cache(maxsize=1)  # the same text is looked for in one register after the other
def _parts(text):
    return (
        tokens_in(text),
        names_in(text),
        words_in(text),
        rows_of([text]),
        rows_of([text], PIECE),
    )


class Known(NamedTuple):
    """Words that tell nothing of a cohort, since the project's own text has them."""

    tokens: set
    words: set
    rows: np.ndarray
    pieces: np.ndarray

    @classmethod
    def of(cls, text: str) -> Known:
        """Of one text."""
        tokens, _, words, rows, pieces = _parts(text)
        return cls(tokens, words, rows, pieces)

    def __or__(self, other):
        return Known(
            self.tokens | other.tokens,
            self.words | other.words,
            _both(self.rows, other.rows),
            _both(self.pieces, other.pieces),
        )


@functools.cache
def project() -> Known:
    """The words of `own_text`."""
    return Known.of(own_text())


@functools.cache
def packaged() -> Known:
    """The words of the library alone: what a chapter may say without having typed it."""
    return Known.of(_text_of(_library_files()))


@functools.cache
def own_text() -> str:
    """All text of this library, and of the chapters and pages beside it."""
    files = _library_files()
    for folder, kind in (("chapters", "*.py"), ("book", "**/*.md"), (".", "*.md")):
        files += (LIBRARY.parent / folder).glob(kind)
    return _text_of(files)


def _library_files():
    return [file for kind in ("*.py", "*.toml", "*.csv", "*.md") for file in LIBRARY.rglob(kind)]


def _text_of(files):
    return "\n".join(f.read_text(encoding="utf-8") for f in files)


def _both(some, others):
    """Two sorted arrays as one, for `_in`, to which hashes that come twice are no matter."""
    return np.sort(np.concatenate([some, others]), kind="stable")  # merges them


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
