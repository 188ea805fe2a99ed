"""The sections of a free-text radiology report, above all FINDINGS.

Reports of MIMIC-CXR have headers, but nobody enforced them: capitals or not, with or without a
colon, in a line of their own or in the middle of one, misspelt, or a description of the films in
place of "FINDINGS". The rules follow the shapes that such reports take; :func:`findings` says what
they cannot tell apart.
"""

from __future__ import annotations

import re

_AND = r" *(?:AND|&|/) *"
_NAMES = "|".join(
    (
        rf"FIND[A-Z]*(?:{_AND}IMPR[A-Z]*)?",  # FINDINGS, FINDING, FINDNGS
        rf"IMPR[A-Z]*(?:{_AND}FIND[A-Z]*)?",
        r"CONCLUSIONS?|SUMMARY|COMMENTS?|NOTIFICATION|ADDENDUM|WET ?READ",
        r"(?:CLINICAL |PATIENT )?(?:HISTORY|INDICATIONS?|INFORMATION)",
        r"REASON FOR (?:THE )?(?:EXAM(?:INATION)?|STUDY)",
        r"(?:TYPE OF |REFERENCE )?EXAM(?:INATION)?S?|STUDY|PROCEDURE|TECHNIQUES?|DATE",
        r"COMPARISONS?(?: (?:EXAM(?:INATION)?S?|FILMS?|STUDY|STUDIES))?",
        r"RECOMMENDATIONS?(?:\(S\))?",
    )
).replace(" ", r"\ ")  # as re.VERBOSE wants it
_HEADER = re.compile(
    rf"""
    ^[ \t]*(?:
        (?P<start>(?i:{_NAMES}))[ \t]*:  # a known name first in its line
        | (?P<alone>(?i:{_NAMES}))[ \t]*$  # or alone in it
        | (?P<plain>FINDINGS|IMPRESSION|ADDENDUM)\b  # or in capitals, its colon forgotten
        # or the films described, in capitals, instead of FINDINGS
        | (?P<films>(?=[^:\n]*\b(?:CHEST|RADIOGRAPHS?|VIEWS?)\b)[A-Z][A-Z0-9 ,/()&._-]+):
    )
    | (?<=[ \t])(?P<within>{_NAMES}):  # or a known name in the middle of a line, in capitals
    """,
    re.MULTILINE | re.VERBOSE,
)
_FINAL = re.compile(r"^[ \t]*FINAL REPORT[ \t]*$", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*_{4,}[ \t]*$", re.MULTILINE)  # a drawn line; ___ is a removed word
_SENTENCE = 5  # words that have to follow a description of the films


def sections(text: str) -> dict[str, str]:
    """Sections of a report by name.

    Parameters
    ----------
    text : str

    Returns
    -------
    dict
        Name in lower case, as written but for blanks, to text with single blanks, in the order of
        the report. ``preamble`` is what stands before the first header, ``preliminary`` what stands
        before the last line "FINAL REPORT" (a wet read, an earlier addendum), ``films`` what
        follows a description of the films in capitals. Sections of the same name are joined.
    """
    *preliminary, text = _FINAL.split(text.replace("\r", ""))
    found = {}
    _add(found, "preliminary", " ".join(preliminary))
    name, start = "preamble", 0
    for header in _HEADER.finditer(text):
        title = header[header.lastgroup]
        # In running text a line can begin with a word such as "comparison"; no header is meant.
        unsure = header.lastgroup == "alone" or title[0].islower()
        if unsure and text[: header.start()].rpartition("\n")[0].rpartition("\n")[2].strip(" \t_"):
            continue
        _add(found, name, text[start : header.start()])
        name = "films" if header.lastgroup == "films" else " ".join(title.lower().split())
        start = header.end()
    _add(found, name, text[start:])
    return found


def _add(found, name, text):
    text = " ".join(_RULE.sub(" ", text).split())
    if text:
        found[name] = f"{found[name]} {text}" if name in found else text


def findings(text: str) -> str | None:
    """The FINDINGS section of a report, in one line; None if it has none.

    A section "FINDINGS AND IMPRESSION" counts. Without either, text of five words or more below a
    description of the films ("PA AND LATERAL CHEST RADIOGRAPHS: ...") does. A paragraph without any
    header does not count, even if it describes the films: nothing tells it from an impression.
    """
    found = sections(text)
    for name, body in found.items():
        if "find" in name:
            return body
    films = found.get("films", "")
    return films if len(films.split()) >= _SENTENCE else None
