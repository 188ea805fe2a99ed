"""The dossier of a run: reporting checklists, filled from what the run can say of itself.

A checklist is a file in ``checklists/``. An item names the facts on which its answer rests
(:mod:`cxrlib.book.facts`), the kinds of study to which it applies (all, unless ``for`` says which),
and the reason why it does not apply to others (``na``).
"""

from __future__ import annotations

import html
import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import yaml

from cxrlib.book import facts as gathered
from cxrlib.book import manifest, real
from cxrlib.book.facts import ANSWERS, Fact, Known
from cxrlib.core import atomic
from cxrlib.core.errors import BookError, known

CHECKLISTS = ("tripod_ai", "claim", "standing_together", "datasheet", "chai")
RUN, USER, NOT, MISSING = STATES = (
    "answered from the run",
    "answered by the user",
    "does not apply",
    "missing",
)
GIVEN = ("answers",)  # the places of a fact that the user gave
PAGE = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")


class Item(NamedTuple):
    """An item of a checklist with its answer."""

    number: str
    section: str
    text: str
    state: str
    answer: str
    places: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()  # facts that are not known
    verified: bool = True  # whether the item was compared with a public copy of its source


class Answers(NamedTuple):
    """What the user wrote: facts, and answers to single items."""

    facts: dict[str, str]
    items: dict[str, dict[str, Any]]


@cache
def checklists() -> dict[str, dict]:
    """All checklists by name: title, source, what of it was verified, counts, and ``item``."""
    folder = Path(__file__).with_name("checklists")
    texts = {name: (folder / f"{name}.toml").read_text(encoding="utf-8") for name in CHECKLISTS}
    return {name: tomllib.loads(text) for name, text in texts.items()}


def wanted() -> dict[str, list[tuple[str, str, str]]]:
    """Every fact on which an item rests: fact -> list of (checklist, number, text)."""
    found: dict[str, list] = {}
    for name, checklist in checklists().items():
        for item in checklist["item"]:
            for fact in item.get("from", ()):
                found.setdefault(fact, []).append((name, item["number"], item["text"]))
    return found


# --- the user's file ---------------------------------------------------------------------------


def read(path: Path) -> Answers:
    """The answers in a YAML file; none where there is no such file.

    Raises
    ------
    BookError
        With exit code 2: no YAML, or a fact, checklist or item that is not known; names it.
    """
    if not path.is_file():
        return Answers({}, {})
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise BookError(f"{path.name}: no YAML text: {line}", code=2) from None
    _expect(isinstance(content, dict), path, "expected `facts:` and names of checklists")
    for name, block in content.items():
        known(str(name), ("facts", *CHECKLISTS), f"{path.name}: unknown entry {name!r}")
        _expect(block is None or isinstance(block, dict), path, f"{name}: expected `key: answer`")
    given = {str(k): v for k, v in (content.get("facts") or {}).items() if v is not None}
    for fact, text in given.items():
        known(fact, list(wanted()), f"{path.name}: unknown fact {fact!r}")
        _expect(isinstance(text, str | int | float), path, f"{fact}: expected a text")
    items: dict[str, dict[str, Any]] = {}
    for name in CHECKLISTS:
        numbers = [item["number"] for item in checklists()[name]["item"]]
        for number, answer in (content.get(name) or {}).items():
            known(str(number), numbers, f"{path.name}: {name} has no item {number!r}")
            if answer is None:
                continue
            fine = isinstance(answer, str) or (isinstance(answer, dict) and list(answer) == [NOT])
            _expect(fine, path, f"{name} {number}: expected a text, or {{{NOT}: the reason}}")
            items.setdefault(name, {})[str(number)] = answer
    return Answers({k: str(v) for k, v in given.items()}, items)


def _expect(fine, path, what):
    if not fine:
        raise BookError(f"{path.name}: {what}", code=2)


def template(filled: dict[str, list[Item]]) -> str:
    """A YAML file that asks for what is missing: each fact once, with the items that it fills."""
    lacking = dict.fromkeys(n for items in filled.values() for item in items for n in item.needs)
    lines = [
        "# What the run does not say. Write an answer behind a name; it fills every item that is",
        "# named above it. A single item is answered below the name of its checklist:",
        "#   tripod_ai:",
        '#     "19": Two patients read the report before it was sent.',
        f"#     12f: {{{NOT}: the scores are not probabilities}}",
        "facts:",
    ]
    for fact in lacking:
        uses = wanted()[fact]
        titles = [f"{checklists()[name]['title']} {number}" for name, number, _ in uses]
        lines += [f"  # {', '.join(titles)}", f"  # {uses[0][2]}", f"  {fact}:"]
    return "\n".join([*lines, ""])


# --- filling -----------------------------------------------------------------------------------


def fill(facts: dict[str, Fact], kinds: Iterable[str], answers: Answers) -> dict[str, list[Item]]:
    """All checklists, each item with its state.

    Parameters
    ----------
    facts : dict
        See :func:`cxrlib.book.facts.gather`.
    kinds : iterable of str
        Of study; an item that is for none of them does not apply.
    answers : Answers
        An answer to an item goes before everything else, a fact of the user before one of the run.
    """
    facts = facts | {name: Fact(text, GIVEN) for name, text in answers.facts.items()}
    filled = {}
    for name, checklist in checklists().items():
        given = answers.items.get(name, {})
        filled[name] = [
            _filled(item, checklist, facts, set(kinds), given) for item in checklist["item"]
        ]
    return filled


def _filled(item, checklist, facts, kinds, given):
    about = item["number"], item["section"], item["text"]
    verified = item.get("verified", True)
    if (answer := given.get(item["number"])) is not None:
        if isinstance(answer, dict):
            return Item(*about, NOT, f"because {answer[NOT]}", GIVEN, (), verified)
        return Item(*about, USER, answer, GIVEN, (), verified)
    if "for" in item and not kinds & set(item["for"]):
        reason = item.get("na", checklist["not_development"])
        return Item(*about, NOT, f"because {reason}", (), (), verified)
    needs = tuple(name for name in item["from"] if name not in facts)
    if needs:
        return Item(*about, MISSING, "", (), needs, verified)
    used = [facts[name] for name in item["from"]]
    state = USER if any(fact.places == GIVEN for fact in used) else RUN
    places = tuple(dict.fromkeys(place for fact in used for place in fact.places))
    answer = " ".join(dict.fromkeys(fact.text for fact in used))
    return Item(*about, state, answer, places, (), verified)


def counts(items: Iterable[Item]) -> dict[str, int]:
    """How many items are in each state."""
    found = Counter(item.state for item in items)
    return {state: found[state] for state in STATES}


# --- how places are said and linked --------------------------------------------------------------

Where = Callable[[str], tuple[str, str]]  # of a place: what it is called, and its address or ""


def in_book(place: str) -> tuple[str, str]:
    """A place as a page of the book links it: (what it is called, its address)."""
    kind, _, name = place.partition(":")
    if kind == "answers":
        return "the answers", ""
    if kind == "page":
        return "opening page" if name == "index" else name.replace("_", " "), f"{name}.html"
    name, _, figure = name.partition("#")
    said = f"chapter {int(name[:2])}"
    anchor = f"#{figure}" if figure else ""
    return f"figure in {said}" if figure else said, f"chapters/{name}.html{anchor}"


def beside(notebooks: Iterable[Path], out: Path) -> Where:
    """Places as a dossier in the folder `out` links them: files of the run; the book has the rest.

    A link that would tell folders of this machine, all the way from its root, is left out.

    Parameters
    ----------
    notebooks : iterable of Path
        The executed chapters of the run.
    out : Path
    """
    files = {path.stem: os.path.relpath(path, out).replace(os.sep, "/") for path in notebooks}
    ends = {"card": ".json", "results": ".parquet"}

    def where(place: str) -> tuple[str, str]:
        kind, _, name = place.partition(":")
        said, _ = in_book(place)
        file = files.get(name.partition("#")[0])
        if file is None:
            return said if kind == "answers" else f"book: {said}", ""
        said = f"{kind} of {said}" if kind in ends else said
        if os.path.abspath(out / file).lstrip(os.sep) in file:
            return said, ""
        return said, file.removesuffix(".ipynb") + ends.get(kind, ".ipynb")

    return where


# --- how it is written ---------------------------------------------------------------------------


def _warning(run):
    """What chapters of the run warn of, in one sentence; "" where they do not."""
    warned = [path.stem[:2] for path, content in run.notebooks.items() if real.warning(content)]
    if not warned:
        return ""
    return (
        "Numbers of models that learned from phantoms mean nothing on real films, and those of "
        f"models with computed weights nothing at all (chapters {', '.join(warned)})."
    )


def as_markdown(filled: dict[str, list[Item]], where: Where, warning: str = "") -> str:
    """The dossier in Markdown."""
    lines = ["# Dossier", "", *([f"**{warning}**", ""] if warning else [])]
    for name, items in filled.items():
        checklist = checklists()[name]
        lines += [f"## {checklist['title']}", "", checklist["source"], ""]
        lines += [f"*{checklist['verified']}*", "", _in_numbers(items)]
        section = ""
        for item in items:
            if item.section != section:
                section = item.section
                lines += ["", f"### {section}", ""]
            links = [f"[{said}]({at})" if at else said for said, at in _seen(item, where)]
            seen = f" ({', '.join(links)})" if links else ""
            state = f"**{MISSING}**" if item.state == MISSING else f"*{item.state}*"
            asked = f"**{item.number}** {item.text}{_mark(item)}"
            lines.append(f"- {asked} {state}: {_told(item)}{seen}")
        lines.append("")
    return "\n".join(lines)


def _in_numbers(items):
    return "; ".join(f"{state}: {n}" for state, n in counts(items).items()) + f"; of {len(items)}."


def _told(item):
    """The answer, or which facts would give one, and which chapters tell them."""
    if item.state != MISSING:
        return item.answer
    said = []
    for fact in item.needs:
        chapters = [name.replace("_", " ") for name in gathered.TOLD.get(fact, ())]
        said.append(f"{fact} ({', '.join(chapters)})" if chapters else fact)
    chapters = any(fact in gathered.TOLD for fact in item.needs)
    how = "run the chapter in brackets too, or answer" if chapters else "for its authors to answer"
    return f"Needs {', '.join(said)}: {how}."


def _seen(item, where):
    """The places of an item, each link once."""
    return dict.fromkeys(map(where, item.places))


def _mark(item):
    return "" if item.verified else " (not compared with the article)"


def as_json(filled: dict[str, list[Item]]) -> str:
    """The dossier for programs."""
    told = {
        name: {key: checklists()[name][key] for key in ("title", "source", "verified")}
        | {"counts": counts(items), "items": [item._asdict() for item in items]}
        for name, items in filled.items()
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def table(name: str, items: list[Item], where: Where) -> str:
    """A checklist as an HTML table; on a phone each row is a card."""
    title = html.escape(checklists()[name]["title"], quote=True)
    heads = ("item", "asked", "state", "answer")
    lines = [f'<div class="cxr-scroll" role="region" aria-label="{title}" tabindex="0">']
    lines.append('<table class="cxr-table cxr-wordy cxr-dossier"><thead><tr>')
    lines += [f'<th scope="col">{head}</th>' for head in heads]
    lines.append("</tr></thead>\n<tbody>")
    for item in items:
        links = [_link(said, address) for said, address in _seen(item, where)]
        seen = f" <small>({', '.join(links)})</small>" if links else ""
        state = f"<strong>{item.state}</strong>" if item.state == MISSING else item.state
        cells = (
            html.escape(f"{item.section}: {item.text}{_mark(item)}"),
            state,
            html.escape(_told(item)) + seen,
        )
        number = html.escape(item.number).replace("/", "/<wbr>")
        row = "".join(
            f'<td class="text" data-label="{head}">{cell}</td>'
            for head, cell in zip(heads[1:], cells, strict=True)
        )
        head = f'<th scope="row" data-label="item">{number}</th>'
        lines.append(f'<tr data-state="{item.state}">{head}{row}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


def _link(said, address):
    said = html.escape(said)
    return f'<a href="{html.escape(address, quote=True)}">{said}</a>' if address else said


def counts_table(filled: dict[str, list[Item]]) -> str:
    """States by checklist, in HTML."""
    heads = ("checklist", "items", *STATES)
    lines = ['<div class="cxr-scroll" role="region" aria-label="Items by state" tabindex="0">']
    lines.append('<table class="cxr-table"><thead><tr>')
    lines += [f'<th scope="col">{head}</th>' for head in heads]
    lines.append("</tr></thead><tbody>")
    for name, items in filled.items():
        numbers = (len(items), *counts(items).values())
        cells = "".join(f'<td class="number">{n}</td>' for n in numbers)
        title = html.escape(checklists()[name]["title"])
        lines.append(f'<tr><th scope="row">{title}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table></div>"])


STYLE = """\
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 75rem; margin: auto; padding: 1rem;
  color-scheme: light dark; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8888; padding: .3rem .6rem; text-align: left;
  vertical-align: top; }
td.number { text-align: right; }
@media (max-width: 40rem) { .cxr-wordy thead { display: none; }
  .cxr-wordy :is(tr, th, td) { display: block; }
  .cxr-wordy [data-label]::before { content: attr(data-label) ": "; font-weight: bold; } }"""


def as_html(filled: dict[str, list[Item]], where: Where, warning: str = "") -> str:
    """The dossier as one page that needs no other file."""
    lines = ['<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">']
    lines.append('<meta name="viewport" content="width=device-width, initial-scale=1">')
    lines.append(f"<title>Dossier</title><style>{STYLE}</style></head><body><main>")
    warned = f"<p><strong>{html.escape(warning)}</strong></p>" if warning else ""
    lines += ["<h1>Dossier</h1>", warned, counts_table(filled)]
    for name, items in filled.items():
        checklist = checklists()[name]
        lines.append(f"<h2>{html.escape(checklist['title'])}</h2>")
        lines += [f"<p>{html.escape(checklist[key])}</p>" for key in ("source", "verified")]
        lines.append(table(name, items, where))
    return "\n".join([*lines, "</main></body></html>", ""])


# --- the card in the schema of the Coalition for Health AI ---------------------------------------

ABSENT = "Missing: not said by the run or by its authors."


def chai(
    items: list[Item], facts: dict[str, Fact], estimates: dict[str, list[tuple[str, dict]]]
) -> str:
    """The Applied Model Card of one model, in XML.

    Parameters
    ----------
    items : list of Item
        The filled checklist "chai"; an item's number is the place of its element.
    facts : dict
        Those that fill the parts of key metrics: goal, interpretation, test, data, validation.
    estimates : dict
        Name of a key metric -> list of (label, value), see :func:`cxrlib.book.facts.estimates`.
    """
    checklist = checklists()["chai"]
    root = ElementTree.Element("AppliedModelCard", xmlns=checklist["namespace"])
    for item, about in zip(items, checklist["item"], strict=True):
        said = item.answer or ABSENT
        if item.state == NOT:
            said = f"Does not apply, {item.answer}."
        if item.state == MISSING and about.get("optional"):
            continue
        *above, name = item.number.split("/")
        parent = root
        for step in above:
            found = parent.find(step)
            parent = ElementTree.SubElement(parent, step) if found is None else found
        element = ElementTree.SubElement(parent, name)
        if name == "Keywords":
            for word in said.rstrip(".").split(", ") if item.state != MISSING else ():
                ElementTree.SubElement(element, "Keyword").text = word
        elif above == ["KeyMetrics"]:
            _metric(element, [facts.get(fact) for fact in about["from"]], estimates.get(name, []))
        else:
            element.text = said
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).decode() + "\n"


def _metric(element, parts, found):
    goal, interpretation, test, data, validation = (p.text if p else ABSENT for p in parts)
    ElementTree.SubElement(element, "MetricGoal").text = goal
    results = ElementTree.SubElement(element, "Results")
    for said, value in found or [("Not estimated in this run", {"kind": "single", "value": None})]:
        result = ElementTree.SubElement(results, "MetricResult")
        ElementTree.SubElement(result, "Label").text = said
        ElementTree.SubElement(result, "ValueJson").text = json.dumps(value)
    for name, text in (
        ("Interpretation", interpretation),
        ("TestType", test),
        ("TestingDataDescription", data),
        ("ValidationProcessAndJustification", validation),
    ):
        ElementTree.SubElement(element, name).text = text


# --- from a run to files -------------------------------------------------------------------------


def files(run: Known, answers: Answers, where: Where) -> dict[str, str]:
    """All files of a dossier: name -> text."""
    filled = fill(run.facts, run.kinds, answers)
    made = {
        "dossier.html": as_html(filled, where, _warning(run)),
        "dossier.md": as_markdown(filled, where, _warning(run)),
        "dossier.json": as_json(filled),
    }
    for model in run.models:
        facts = run.facts | gathered.of_models(run.runs, [model])
        facts |= {name: Fact(text, GIVEN) for name, text in answers.facts.items()}
        items = fill(facts, run.kinds, answers)["chai"]
        estimates = {
            "UsefulnessUsabilityEfficacy": gathered.estimates(run.runs, model, by_group=False),
            "FairnessEquity": gathered.estimates(run.runs, model, by_group=True),
        }
        made[f"chai-{re.sub(r'[^A-Za-z0-9_-]+', '_', model)}.xml"] = chai(items, facts, estimates)
    return made


def refuse(run: Known, made: dict[str, str]) -> None:
    """BookError if a file would hold what must not leave the folder of credentialed data."""
    from cxrlib.book import scan
    from cxrlib.guard import register

    own = ("".join(c["source"]) for content in run.notebooks.values() for c in content["cells"])
    if run.guarded and not scan.registers():
        raise BookError(
            "the run is on credentialed data: set CXRBOOK_DATA to their folder, so that the "
            "dossier can be searched for what must not leave"
        )
    watch = scan.watch(run.guarded, register.project() | register.Known.of("\n".join(own)))
    for name, text in made.items():
        look = scan.page_kinds if name.endswith(".html") else scan.text_kinds
        if kinds := look(text, watch):
            raise BookError(
                f"the dossier was not written: {name} would hold what must not leave "
                f"({', '.join(sorted(kinds))}); look at your answers, or run the chapters again"
            )


def notebooks_of(root: Path, name: str | None) -> list[Path]:
    """The executed chapters of a run with a name, or of the book.

    Raises
    ------
    BookError
        There are none; names the runs that there are.
    """
    from cxrlib.book import runs

    if name is None:
        found = sorted((root / "book" / "chapters").glob("[0-9][0-9]_*.ipynb"))
        if not found:
            raise BookError("the book has not been run yet: run 'make book', or name a run")
        return found
    named = runs.named(root)
    known(name, list(dict.fromkeys(n for n, _ in named)), f"no run {name!r}")
    return [path for n, path in named if n == name]


def write(
    root: Path, name: str | None = None, given: Path | None = None, out: Path | None = None
) -> tuple[dict[str, list[Item]], Path, Path]:
    """Write the dossier of a run, and keep the file of answers with the run.

    Parameters
    ----------
    root : Path
        The project's folder.
    name : str, optional
        Of a run; the book by default.
    given : Path, optional
        A file of answers, which takes the place of the one that is kept.
    out : Path, optional
        Folder of the dossier; by default ``dossier`` in the folder of the run, ``_build/dossier``
        for the book.

    Returns
    -------
    (dict, Path, Path)
        The filled checklists, the folder, and the file of answers, which asks for what is missing
        where there was none.

    Raises
    ------
    BookError
        See `notebooks_of`, `read`, `refuse`.
    """
    notebooks = notebooks_of(root, name)
    kept = notebooks[0].parent / ANSWERS
    if given is not None and not given.is_file():
        raise BookError(f"--answers {given}: no such file", code=2)
    answers = read(given or kept)
    run = gathered.gather(notebooks)
    out = out or (kept.parent if name else root / "_build") / "dossier"
    made = files(run, answers, beside(notebooks, out))
    refuse(run, made)
    out.mkdir(parents=True, exist_ok=True)
    filled = fill(run.facts, run.kinds, answers)
    for file, text in made.items():
        atomic.write(out / file, text.encode())
    if given is not None and given.resolve() != kept.resolve():
        atomic.write(kept, given.read_bytes())
    elif not kept.is_file():
        atomic.write(kept, template(filled).encode())
    of_run = [path for path in (*(out / f for f in made), kept) if path.is_relative_to(kept.parent)]
    manifest.update(kept.parent, files=of_run)
    return filled, out, kept


def _from_below(place):
    said, address = in_book(place)
    return said, address and f"../{address}"


def page(notebooks: Sequence[Path], extra: Path) -> str:
    """The dossier of a book as one of its pages, in MyST.

    Parameters
    ----------
    notebooks : list of Path
        The executed chapters; a file of answers may lie beside them.
    extra : Path
        Folder that gets the files of the dossier; it lies beside the pages.
    """
    run, answers = gathered.gather(notebooks), read(notebooks[0].parent / ANSWERS)
    filled = fill(run.facts, run.kinds, answers)
    made = files(run, answers, _from_below)
    del made["dossier.html"]  # this page
    extra.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (extra / name).write_text(text, encoding="utf-8")
    sections = []
    for name, items in filled.items():
        about = checklists()[name]
        sections += [f"## {about['title']}", about["source"], f"*{about['verified']}*"]
        folded = f"<summary>The {len(items)} items</summary>\n{table(name, items, in_book)}"
        sections.append(f"```{{raw}} html\n<details>{folded}</details>\n```")
    links = (f'<a href="{extra.name}/{name}" download>{name}</a>' for name in made)
    return PAGE.format(
        warning=f"**{said}**\n" if (said := _warning(run)) else "",
        typed=", but for those marked so" if answers.facts or answers.items else "",
        counts=counts_table(filled),
        files=", ".join(links),
        sections="\n\n".join(sections),
    )
