"""Students get no solution and no note for teachers, in any file of their book; teachers do.

And what every chapter of the book owes its readers: goals, exercises with solutions.
"""

import re
import shutil

import jupytext
import nbformat
import pytest

from cxrlib.book.build import build
from cxrlib.book.chapters import chapters
from cxrlib.book.pages import for_students, student_text
from tests.conftest import ROOT

# Of the miniature book, and below added to it: what is for teachers alone.
HIDDEN = ("secret", "plan of the lesson", "confidential")

ADDED = """
# %% [markdown]
# ````{solution-start} ex-01
# :class: dropdown
# ````
# A secret begins.

# %% tags=["solution"]
print("a secret output")

# %% [markdown]
# ````{solution-end}
# ````
#
# :::{teacher}
# Say this, it is confidential.
# :::
#
# The last sentence of the page.
"""


@pytest.fixture(scope="module")
def editions(built, tmp_path_factory):
    """The miniature's book for teachers, and one for students with every kind of solution."""
    root = shutil.copytree(built, tmp_path_factory.mktemp("editions") / "mini")
    script = root / "chapters" / "01_first.py"
    text = re.sub(r"# ```\{solution\} ex-01\n.*?# ```\n", "", script.read_text(), flags=re.DOTALL)
    script.write_text(text + ADDED)
    index = root / "book" / "index.md"
    index.write_text(index.read_text() + "\n```{teacher}\nA confidential line.\n```\n")
    student, _ = build(root, edition="student")
    return {"teacher": built / "_build" / "html", "student": student.parent}


def holds(folder, words):
    """Files of a book with the words; what the theme brings is not looked at."""
    found = (p for p in sorted(folder.rglob("*")) if p.is_file())
    names = {p.relative_to(folder).as_posix(): p for p in found}
    return [
        name
        for name, path in names.items()
        if not name.startswith("_static/")
        and words in path.read_bytes().decode("utf-8", "replace").lower()
    ]


@pytest.mark.parametrize("words", HIDDEN)
def test_no_file_for_students_holds_it(editions, words):
    assert holds(editions["student"], words) == []


def test_the_teachers_have_it_on_pages_downloads_and_in_the_search(editions):
    found = holds(editions["teacher"], "secret")
    assert "chapters/01_first.html" in found and "chapters/02_zero_shot.html" in found
    assert "searchindex.js" in found
    downloads = {path.rsplit("/", 1)[-1] for path in found if path.startswith("_downloads")}
    assert downloads == {"01_first.py", "01_first.ipynb", "02_zero_shot.py", "02_zero_shot.ipynb"}
    assert "teaching.html" in holds(editions["teacher"], "plan of the lesson")


def test_students_have_all_the_rest(editions):
    student, teacher = (
        {p.relative_to(editions[e]).as_posix() for p in editions[e].rglob("*.html")}
        for e in ("student", "teacher")
    )
    assert teacher - student == {"teaching.html"}
    page = (editions["student"] / "chapters" / "01_first.html").read_text()
    for words in ("How many?", "The last sentence of the page.", "Before you read", "Check"):
        assert words in page
    scripts = sorted(editions["student"].rglob("01_first.py"))
    assert "The last sentence of the page." in scripts[0].read_text()


# --- the chapters and pages of the book ----------------------------------------------------------

EXERCISE = re.compile(r"\{exercise(?:-start)?\}[^\n]*\n:label: (\S+)")
SOLUTION = re.compile(r"\{solution(?:-start)?\}+ (\S+)")  # two braces where code says it


def prose(cells):
    return "\n".join(c.source for c in cells if c.cell_type == "markdown")


@pytest.mark.parametrize("chapter", chapters(ROOT), ids=lambda c: c.name)
def test_a_chapter_has_goals_and_exercises_with_solutions(chapter):
    about = chapter.about
    assert len(about["goals"]) >= 2
    names = {c.name for c in chapters(ROOT)}
    assert set(about["needs"]) <= names - {chapter.name}
    text = prose(chapter.notebook.cells)
    exercises = EXERCISE.findall(text)
    assert exercises
    code = "\n".join(c.source for c in chapter.notebook.cells if c.cell_type == "code")
    assert sorted(exercises) == sorted(SOLUTION.findall(text + code))


@pytest.mark.parametrize("chapter", chapters(ROOT), ids=lambda c: c.name)
def test_the_student_edition_of_a_chapter_keeps_the_exercises_alone(chapter):
    notebook = for_students(nbformat.reads(nbformat.writes(chapter.notebook), as_version=4))
    left = jupytext.writes(notebook, fmt="py:percent")
    assert "{solution" not in left and "{teacher}" not in left
    assert EXERCISE.findall(prose(notebook.cells)) == EXERCISE.findall(
        prose(chapter.notebook.cells)
    )


def test_all_between_start_and_end_of_a_solution_goes():
    source = nbformat.v4.new_notebook()
    for text in ("Before.", "````{solution-start} a\n````\nIt is 3.", "And 4.", None, "So 5."):
        new = nbformat.v4.new_markdown_cell(text) if text else nbformat.v4.new_code_cell("2 + 1")
        source.cells.append(new)
    source.cells[-1].source += "\n````{solution-end}\n````\nAfter.\n:::{teacher}\nHush.\n:::\nEnd."
    source.cells.append(nbformat.v4.new_code_cell("kept = 1"))
    left = [cell.source for cell in for_students(source).cells]
    assert left == ["Before.", "After.\nEnd.", "kept = 1"]
    page = "One.\n```{solution-start} a\n```\nIt is 3.\n```{solution-end}\n```\nTwo.\n"
    assert student_text(page + page) == ("One.\nTwo.\n" * 2, False)


def test_pages_for_students_hold_exercises_and_no_solutions():
    text = (ROOT / "book" / "flaws.md").read_text(encoding="utf-8")
    exercises = EXERCISE.findall(text)
    assert 6 <= len(exercises) <= 10
    assert sorted(exercises) == sorted(SOLUTION.findall(text))
    left, _ = student_text(text)
    assert EXERCISE.findall(left) == exercises
    assert "{solution" not in left and "switch `" not in left
    assert "{teacher}" not in student_text((ROOT / "book" / "ethics.md").read_text("utf-8"))[0]
