"""The sections of a free-text radiology report, above all FINDINGS.

Reports of MIMIC-CXR have headers, but nobody enforced them: capitals or not, with or without a
colon, in a line of their own or in the middle of one, misspelt, or a description of the films in
place of "FINDINGS". The rules follow the shapes that such reports take; :func:`findings` says what
they cannot tell apart. The words are in ``report_sections.toml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import NamedTuple

from cxrlib.core import toml

_WORDS = {kind: frozenset(words) for kind, words in toml.beside(__file__).items()}
_LONG = sorted(word for word in _WORDS["known"] if len(word) > 5)
_CLOSE = 0.8  # share of letters in common (difflib) from which a word is a known one, misspelt
_LONGEST = 8  # words of a header that is not known
_SENTENCE = 5  # words that have to follow a description of the films

_HEAD = re.compile(  # what stands before the first colon of a line, but for that of 5:30
    r"[ \t]*(?P<title>[A-Za-z](?:[^:\n]|(?<=\d):(?=\d))*?)[ \t]*(?::(?!\d)|(?<!\d):)"
)
_PLAIN = re.compile(
    r"[ \t]*(?P<title>FINDINGS|IMPRESSION|ADDENDUM)\b(?P<mark>[ \t]*[-;.,=]?)[ \t]*"
)
_WITHIN = re.compile(  # in the middle of a line, in capitals: one word or "CLINICAL HISTORY"
    r"(?<=[ \t])(?P<title>(?:(?:CLINICAL|PATIENT|REASON FOR(?: THE)?|TYPE OF|REFERENCE|WET) )?"
    r"[A-Z]{4,}(?: *(?:AND|&|/) *[A-Z]{4,})*):"
)
_FINAL = re.compile(r"^[ \t]*FINAL REPORT[ \t]*$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*_{4,}[ \t]*$", re.MULTILINE)  # a drawn line; ___ is a removed word


class _Title(NamedTuple):
    name: str  # lower case, spelt as it should be
    kind: str  # "findings", "films", "part" (of findings) or ""
    known: bool  # nothing but words of headers


def sections(text: str) -> dict[str, str]:
    """Sections of a report by name.

    A section ends where a line begins with a header: a known name, or any words in capitals with a
    colon, unless they are a part of FINDINGS such as LUNGS.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict
        Name in lower case, with known words spelt as they should be, to text with single blanks, in
        the order of the report. ``preamble`` is what stands before the first header,
        ``preliminary`` what stands before the last line "FINAL REPORT" (a wet read, an earlier
        addendum), ``films`` what follows a description of the films in capitals. Sections of the
        same name are joined.
    """
    *preliminary, text = _FINAL.split(text.replace("\r", ""))
    found: dict[str, str] = {}
    _add(found, "preliminary", " ".join(preliminary))
    name, kind, start = "preamble", "", 0
    for title, at, end in _headers(text):
        if title.kind == "part" and kind in ("findings", "films"):
            continue
        _add(found, name, text[start:at])
        kind, start = title.kind, end
        name = "films" if kind == "films" else title.name
    _add(found, name, text[start:])
    return found


def findings(text: str) -> str | None:
    """The FINDINGS section of a report, in one line; None if it has none.

    A section "FINDINGS AND IMPRESSION" counts. Without either, text of five words or more below a
    description of the films ("PA AND LATERAL CHEST RADIOGRAPHS: ...") does. A paragraph without any
    header does not count, even if it describes the films: nothing tells it from an impression.
    """
    found = sections(text)
    for name, body in found.items():
        if _read(name).kind == "findings":
            return body
    films = found.get("films", "")
    return films if len(films.split()) >= _SENTENCE else None


def _add(found, name, text):
    text = " ".join(_RULE.sub(" ", text).split())
    if text:
        found[name] = f"{found[name]} {text}" if name in found else text


def _headers(text: str) -> Iterator[tuple[_Title, int, int]]:
    """Each header, where it begins and where its text begins."""
    capitals = not re.search("[a-z]{3}", text)
    before, place = "", 0
    for line in text.split("\n"):
        after = 0
        if header := _first(line, before, capitals):
            title, after = header
            yield title, place, place + after
        for match in _WITHIN.finditer(line, after):
            title = _read(match["title"])
            if title.known:
                yield title, place + match.start(), place + match.end()
        before = line.strip(" \t_")
        place += len(line) + 1


def _first(line, before, capitals):
    """The header with which a line begins, and where its text does; None if there is none."""
    if not line.strip():
        return None
    ended = not before or before[-1] in ".:;!?"
    if match := _HEAD.match(line):
        written, title = match["title"], _read(match["title"])
        if title.known:
            # In running text a line can begin with a word such as "comparison": no header.
            return None if written[0].islower() and before else (title, match.end())
        heads = written.isupper() and not _goes_on(written)
        heads &= ". " not in written or title.kind == "films"
        if heads and (title.kind == "findings" or (not before if capitals else ended)):
            long = len(written.split()) > _LONGEST and not title.kind
            return None if long else (title, match.end())
    title = _read(line)
    exact = line.isupper() or title.name == " ".join(line.lower().split())
    if title.known and exact and not before:
        return title, len(line)
    if match := _PLAIN.match(line):
        rest, mark = line[match.end() :], match["mark"].strip()
        word = re.match(r"[A-Za-z]*", rest)[0]
        sentence = word[:1].islower() or word in _WORDS["verbs"]
        capital = len(word) > 1 and word.isupper()
        if rest and not sentence and (not before or (ended if mark else not capital)):
            return _read(match["title"]), match.end()
    return None


def _goes_on(written):
    words = re.findall("[A-Z]+", written)
    return words[1:2] and words[1] in _WORDS["verbs"]


@lru_cache(maxsize=10_000)
def _read(title: str) -> _Title:
    """What words in the place of a header say."""
    title = " ".join(re.sub("[A-Z]+", lambda word: _spelt(word[0]), title.upper()).split())
    words = re.findall("[A-Z]+", title)
    known = any(w in _WORDS["known"] for w in words) or words == ["WET", "READ"]
    known = known and all(w in _WORDS["known"] | _WORDS["beside"] for w in words)
    known = known and words[0] not in ("THE", "AND", "OF", "BY", "FOR", "S")
    return _Title(title.lower(), _kind(title, words), known)


def _spelt(word):
    if len(word) < 6 or word in _WORDS["known"]:
        return word
    return next(iter(get_close_matches(word, _LONG, 1, _CLOSE)), word)


def _kind(title, words):
    if any(_of_findings(re.findall("[A-Z]+", part)) for part in re.split(r"\bAND\b|[&/,]", title)):
        return "findings"
    device = re.search(r"\bCHEST (?:WALL|TUBE)", title)
    if set(words) & _WORDS["films"] and not (device or set(words) & _WORDS["elsewhere"]):
        return "" if words[0] in _WORDS["known"] else "films"
    return "part" if any(word.startswith(tuple(_WORDS["parts"])) for word in words) else ""


def _of_findings(words):
    """FINDINGS ..., or ... FINDINGS that are those of this study."""
    if words and words[0] in ("FINDINGS", "FINDING"):
        return True
    own = not set(words) & (_WORDS["elsewhere"] - {"REFERENCE"} | {"OF"})
    return words[-1:] in (["FINDINGS"], ["FINDING"]) and own
