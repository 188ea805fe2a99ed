"""How identifiers and dates may be written: every reading of a text's numbers and dates."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

_TOKEN = re.compile(r"[0-9a-z]+(?:[-_][0-9a-z]+)*")
_DECIMALS = re.compile(r"(?<=\d)\.\d{4,}")  # of a fraction: no identifier begins behind the point
_NUMBERED = re.compile(r"^[a-z]+(\d{6,})$")  # patient12345678
_FLOAT = re.compile(r"\b\d(?:\.\d+)?e\+?0?\d\b")
_BETWEEN = r"[ ,.'’_\-\u00a0\u2009\u202f]"
_GROUPS = [  # 12,345,678; 1234 5678; 1 2 3 4 5 6 7 8
    re.compile(rf"(?<![\d.])\d{{1,3}}(?:({_BETWEEN})\d{{3}})(?:\1\d{{3}})*(?!\w|\.\d*[1-9])"),
    re.compile(rf"(?<![\d.])\d{{4}}({_BETWEEN})\d{{4}}(?!\w|\.\d*[1-9])"),
    re.compile(rf"(?<![\d.])\d(?:({_BETWEEN})\d)(?:\1\d){{4,}}(?!\w|\.\d*[1-9])"),
]
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY, _YEAR = r"(\d{1,2})(?:st|nd|rd|th)?", r"(\d{4})"
_GAP = r"(?:\s+of)?[\s,./_-]*"
_IN_WORDS = [
    (re.compile(rf"\b{_DAY}{_GAP}{_MONTH}{_GAP}{_YEAR}\b"), "dmy"),
    (re.compile(rf"\b{_MONTH}{_GAP}{_DAY}{_GAP}{_YEAR}\b"), "mdy"),
    (re.compile(rf"\b{_YEAR}{_GAP}{_MONTH}{_GAP}{_DAY}\b"), "ymd"),
    (re.compile(rf"\b{_YEAR}{_GAP}{_DAY}{_GAP}{_MONTH}\b"), "ydm"),
]
_MONTH_OF_YEAR = re.compile(rf"\b{_MONTH}{_GAP}{_YEAR}\b")
_SEP = r"\s?[-/._]\s?"  # no mere blank: tables have rows such as 2150 3 12
_IN_NUMBERS = [
    (re.compile(rf"(?<!\d)(\d{{4}}){_SEP}(\d{{1,2}}){_SEP}(\d{{1,2}})(?!\d)"), ("ymd", "ydm")),
    (re.compile(rf"(?<!\d)(\d{{1,2}}){_SEP}(\d{{1,2}}){_SEP}(\d{{4}})(?!\d)"), ("dmy", "mdy")),
]


def tokens_in(text: str) -> set[str]:
    """What may be an identifier or a date in a text.

    Tokens, their parts with and without a leading p or s; numbers whose digits stand in groups of
    one, three or four, or that are written with an exponent, as plain digits; dates with slashes,
    points or months in words as 2187-03-04. Decimals of fractions are left out.
    """
    text = text.lower()
    found = set()
    for token in set(_TOKEN.findall(_DECIMALS.sub(" ", text))):
        found.add(token)
        for part in re.split("[-_]", token):
            found |= {part, part.lstrip("ps"), *_NUMBERED.findall(part)}
    for groups in _GROUPS:
        found |= {re.sub(r"\D", "", match.group()) for match in groups.finditer(text)}
    found |= {str(int(float(match.group()))) for match in _FLOAT.finditer(text)}
    return found | dates_in(text)


def dates_in(text: str) -> frozenset[str]:
    """Dates in a text, however written, as 2187-03-04; both readings of 3/4/2187."""
    return _dates_of(text.lower())


@functools.lru_cache(maxsize=1)  # asked for several times by whoever looks at a text
def _dates_of(text):
    return frozenset(_dates(text))


def _dates(text: str) -> Iterator[str]:
    for month, year in _MONTH_OF_YEAR.findall(text):
        yield f"{year}-{_MONTHS.index(month[:3]) + 1:02d}"
    for pattern, order in _IN_WORDS:
        for match in pattern.finditer(text):
            yield from _iso(match.groups(), order)
    for pattern, orders in _IN_NUMBERS:
        for match in pattern.finditer(text):
            for order in orders:
                yield from _iso(match.groups(), order)


def _iso(parts, order):
    day, month, year = (parts[order.index(what)] for what in "dmy")
    month = int(month) if month.isdigit() else _MONTHS.index(month[:3]) + 1
    if 1 <= month <= 12 and 1 <= int(day) <= 31:
        yield f"{year}-{month:02d}-{int(day):02d}"
