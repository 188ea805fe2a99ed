"""The pages for teaching point to sections, questions, switches and checks that exist."""

import re

from cxrlib import protocol
from cxrlib.book import grading
from cxrlib.book.chapters import chapters
from tests.conftest import ROOT

CHAPTERS = {int(c.number): c for c in chapters(ROOT)}
PLANS, FLAWS, GRADED = (
    (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("teaching", "flaws", "graded")
)


def text_of(number):
    return "\n".join(cell.source for cell in CHAPTERS[number].notebook.cells)


def headings(number):
    return re.findall(r"^#+ (.+)$", text_of(number), re.MULTILINE)


def test_sections_that_the_plans_name_are_in_their_chapters():
    named = [
        (int(number), section)
        for number, rest in re.findall(r"chapter (\d+)([^|;\n]*)", PLANS)
        for section in re.findall(r'"([A-Z][^"]+)"', rest)
    ]
    assert len(named) >= 10
    assert [(n, section) for n, section in named if section not in headings(n)] == []


def test_sections_of_the_page_on_ethics_exist():
    ethics = (ROOT / "book" / "ethics.md").read_text(encoding="utf-8")
    for section in re.findall(r'\(ethics\.md\), "([^"]+)"', PLANS):
        assert f"## {section}\n" in ethics


def test_switches_of_the_flaws_exist():
    named = re.findall(r"[Ss]witch `(\w+)`", FLAWS)
    assert len(named) >= 8
    assert set(named) <= set(protocol.differences().index)


def test_chapters_are_called_by_their_number_and_title():
    for page in (FLAWS, GRADED):
        for said, name in re.findall(r"\[([^\]]+)\]\(chapters/(\w+)\.ipynb\)", page):
            number, title = re.match(r"(?:[Cc]hapter )?(\d+), \*?([^*]+)", said).groups()
            assert CHAPTERS[int(number)].name == name
            assert headings(int(number))[0].startswith(title)


def test_every_check_is_in_the_plans_and_leads_to_the_same_chapter_on_page_and_sheet():
    for name, exercise in grading.EXERCISES.items():
        assert PLANS.count(f"`{name}`") >= 2
        row = next(line for line in GRADED.splitlines() if line.startswith(f"| `{name}`"))
        assert f"(chapters/{exercise.chapter}.ipynb)" in row
