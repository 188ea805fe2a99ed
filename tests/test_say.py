"""What a chapter says: in a notebook, in a script, on its page, and under guard."""

import json
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from cxrlib.book import pages, preface
from cxrlib.book.chapters import Chapter
from cxrlib.core.errors import BookError
from cxrlib.core.kernel import FIGURE, SAID
from cxrlib.guard import latch
from cxrlib.show.say import in_short, say
from cxrlib.show.script import plain
from tests.conftest import ROOT

SCRIPT = '''# %% [markdown]
# # A title
#
# Some prose that goes on for long enough to be wrapped by a terminal of the
# usual width, {cite:p}`sun2025`.

# %% tags=["parameters"]
n: int = 3

# %% [markdown]
# ## Part two

# %% tags=["remove-input"]
from cxrlib.show.say import say

say(f"""
There are {n} films, a share of {float("nan"):.2f}, see {{numref}}`fig-a`.
""")

# %% [markdown]
# What comes behind the last output.
'''


def test_a_script_prints_a_report(tmp_path):
    (tmp_path / "01_a.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "01_a.py"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert out.split("\n\n") == [
        "# A title",
        "Some prose that goes on for long enough to be wrapped by a terminal of the\n"
        "usual width, `sun2025`.",
        "## Part two",
        "There are 3 films, a share of undefined, see `fig-a`.",
        "",
    ]


@pytest.mark.parametrize(
    ("myst", "text"),
    [
        ("{cite:p}`a2020` and {numref}`fig-b`", "`a2020` and `fig-b`"),
        ("```{exercise}\n:label: ex-a\nHow many?\n```", "**Exercise** \nHow many?"),
        (":::{admonition} Mind\n:class: tip\nThis.\n:::", "**Admonition** Mind\nThis."),
        ("$x^{2}$ and `code`", "$x^{2}$ and `code`"),
    ],
)
def test_myst_reads_without_its_software(myst, text):
    assert plain(myst) == text


def notebook(*cells):
    """Executed cells: (tags, outputs)."""
    title = nbformat.v4.new_markdown_cell("# Title")
    code = [nbformat.v4.new_code_cell("n: int = 3", metadata={"tags": ["parameters"]})]
    for tags, outputs in cells:
        outputs = [nbformat.v4.new_output("display_data", data) for data in outputs]
        code.append(nbformat.v4.new_code_cell("x", outputs=outputs, metadata={"tags": tags}))
    return nbformat.v4.new_notebook(cells=[title, *code])


def said(text, **more):
    return {"text/markdown": text, SAID: json.dumps({"text": text, **more})}


@pytest.fixture
def chapter(tmp_path):
    (tmp_path / "01_a.py").write_text(SCRIPT)
    return Chapter(tmp_path / "01_a.py")


def paged(content, chapter, tmp_path, edition="teacher"):
    path = tmp_path / "executed.ipynb"
    nbformat.write(content, path)
    pages.write(path, chapter, tmp_path / "stage", edition)
    return nbformat.read(tmp_path / "stage" / "chapters" / "01_a.ipynb", as_version=4).cells


PNG = {"image/png": "iVBORw0KGgo=", "text/plain": "figure"}
ABOUT = {FIGURE: json.dumps({"name": "fig-a", "caption": "A", "alt": "Bars\nup to 3."})}


def test_a_page_holds_what_was_said_as_text(chapter, tmp_path):
    content = notebook(
        (["remove-input"], [said("One."), said("Two.")]),
        ([], [{"text/plain": "a table"}, said("Three.")]),
        (["hide-input"], [PNG, ABOUT]),
        (["remove-input"], [said("In few words.", figure="fig-a")]),
        (["remove-input", "solution"], [said("```{solution} ex-a\nThe answer.\n```")]),
    )
    cells = paged(content, chapter, tmp_path)
    texts = [c.source for c in cells if c.cell_type == "markdown"]
    assert texts[0] == "# Title" and "One.\n\nTwo." in texts
    assert "In few words." in texts[1] and ":alt: Bars up to 3." in texts[1]
    assert (tmp_path / "stage/chapters/01_a-key.png").read_bytes().startswith(b"\x89PNG")
    code = [c for c in cells if c.cell_type == "code"]
    assert [len(c.outputs) for c in code] == [1, 1]  # cells that only said something are text now
    place = cells.index(code[0])
    assert cells[place + 1].source == "Three."
    assert any("The answer." in text for text in texts)
    assert not any(SAID in o.data for c in code for o in c.outputs)

    of_students = paged(content, chapter, tmp_path, pages.STUDENT)
    assert not any("The answer." in c.source for c in of_students)
    assert any("Three." in c.source for c in of_students)


def test_a_key_figure_that_is_not_there_is_named(chapter, tmp_path):
    content = notebook((["remove-input"], [said("Short.", figure="fig-b")]))
    with pytest.raises(BookError, match="in_short names the figure 'fig-b'; no cell shows it"):
        paged(content, chapter, tmp_path)


def test_small_counts_are_coarse_once_credentialed_data_were_loaded(monkeypatch, capsys):
    say("7 patients.")
    in_short("So it was.", figure="fig-a")
    assert capsys.readouterr().out == "7 patients.\n\n**In short.** So it was.\n\n"
    monkeypatch.setattr(latch, "_protected", ["made-up"])  # as after credentialed data were loaded
    monkeypatch.setattr(latch, "_registers", [])
    say("7 patients.")
    assert capsys.readouterr().out == "fewer than 10 patients.\n\n"


def test_the_preface_holds_films_and_findings_of_the_run(chapter, tmp_path):
    films = {FIGURE: json.dumps({"name": preface.FILMS[1], "caption": "Two films.", "alt": "Two."})}
    content = notebook(
        ([], [PNG, films]),
        ([], [said("Short.", figure="fig-films", found="Of 3 gaps, 1 is large.")]),
        ([], [said("Another text.")]),
    )
    nbformat.write(content, path := tmp_path / "executed.ipynb")
    entries = pd.DataFrame({"verdict": ["not run", "differs", "not run"]})
    text = preface.page(
        "# Book\n\n% films\n\n% found\n",
        [chapter],
        [path],
        entries,
        tmp_path,
    )
    assert text.startswith("# Book\n\n```{figure} films.png\n:alt: Two.\n\nTwo films.\n```\n\n")
    assert "\n- Of 3 gaps, 1 is large ([1, A title](chapters/01_a.ipynb)).\n- Of 3 numbers" in text
    assert "2 not run; 1 differs" in text
    assert (tmp_path / "films.png").is_file()
    bare = preface.page("% films% found", [], [], entries, tmp_path)
    assert bare.startswith("- Of 3 numbers")
