"""What a page adds to an executed chapter: numbers, text alternatives, data, the opening box."""

from copy import deepcopy

import jupytext
import nbformat
import pandas as pd
import pytest

from cxrlib.book import pages, parameters
from cxrlib.book.chapters import Chapter
from cxrlib.book.minutes import minutes
from cxrlib.core.errors import BookError
from cxrlib.core.kernel import FIGURE
from cxrlib.schema import results
from cxrlib.show.words import in_words
from tests.test_book import soup


@pytest.fixture(scope="module")
def page(built):
    return soup(built / "_build" / "html" / "chapters" / "01_first.html")


def test_a_figure_has_number_caption_alternative_and_data(built, page):
    figure = page.select_one("figure#fig-01")
    assert figure.img["alt"] == "A line to 19."
    assert figure.select_one(".caption-number").get_text().strip() == "Fig. 1.1"
    assert figure.select_one(".caption-text").get_text().startswith("One, of 01.")
    [link] = page.select("p.cxr-data a")
    assert "download" in link.attrs
    table = pd.read_csv((built / "_build/html/chapters" / link["href"]).resolve())
    assert table["x"].tolist() == list(range(20))


def test_a_table_has_number_and_all_its_digits_as_csv(built, page):
    caption = page.select_one("p.cxr-caption")
    assert caption.get_text(" ", strip=True) == "Table 1.1 Table of <01> CSV"
    link = caption.select_one("a[download]")
    table = pd.read_csv((built / "_build/html/chapters" / link["href"]).resolve())
    assert table.to_dict("list") == {"model": ["a"], "auc": [0.8123]}


def test_the_box_tells_goals_and_time_and_gives_the_sources(built, page):
    box = page.select_one(".cxr-before")
    assert "read a miniature book" in box.get_text() and "about 4 minutes." in box.get_text()
    assert box.select_one("code.cxr-command").get_text() == "cxrbook run 01_first"
    files = {link["href"].rsplit(".")[-1]: link["href"] for link in box.select("a.download")}
    folder = built / "_build" / "html" / "chapters"
    script = (folder / files["py"]).read_text(encoding="utf-8")
    original = (built / "chapters" / "01_first.py").read_text(encoding="utf-8")
    same = (jupytext.reads(t, fmt="py:percent").cells for t in (script, original))
    assert [c.source for c in next(same)] == [c.source for c in next(same)]
    notebook = nbformat.read(folder / files["ipynb"], as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_parameters_are_a_folded_table_with_the_declarations_below(page):
    box = page.select_one("details.cxr-parameters")
    assert not box.has_attr("open")
    row = next(r for r in box.select("tbody tr") if r.th.get_text() == "how")
    assert row.th["scope"] == "row"
    assert [td.get_text() for td in row.select("td")] == ["'plain'", "str, one of plain, fancy", ""]
    assert "n_images: int = 20  # [2, 100] how many" in box.select_one("pre").get_text()
    assert page.get_text().count("n_images: int") == 1


def test_what_a_run_changed_is_said_above_and_marked_in_the_table(built):
    chapter = Chapter(built / "chapters" / "01_first.py")
    cells = deepcopy(chapter.notebook.cells)
    at = next(i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", []))
    tags = {"tags": ["injected-parameters"]}
    injected = nbformat.v4.new_code_cell("# Parameters\nrate = 0.25\n", metadata=tags)
    left = [*cells[: at + 1], injected]
    parameters.fold(left, chapter)
    assert len(left) == at + 1
    text = left[at].source
    assert text.startswith("**Changed in this run**: `rate = 0.25`.\n")
    changed = "changed to <code>0.25</code> from <code>0.5</code>"
    assert text.count("changed to") == 1 and changed in text


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([], 1),
        (["word " * 400], 2),
        (["# Two words, $x = 3$\n\n% a comment " + "no " * 900], 1),
        (["```{exercise}\n:label: ex\n" + "word " * 200 + "\n```"], 3),  # 1 to read, 2 to do
        ([{"figure": "word " * 100}] * 2, 2),  # half a minute to read, half to look
        ([{"html": '<table class="cxr-table">'}, {"html": '<div class="cxr-quiz">'}] * 3, 3),
        ([{"source": "code " * 900}], 1),
    ],
)
def test_minutes_are_counted_from_words_figures_tables_and_exercises(cells, expected):
    notebook = nbformat.v4.new_notebook()
    for cell in cells:
        if isinstance(cell, str):
            notebook.cells.append(nbformat.v4.new_markdown_cell(cell))
            continue
        code = nbformat.v4.new_code_cell(cell.get("source", ""))
        if "figure" in cell:
            code.metadata["mystnb"] = {"figure": {"caption": cell["figure"]}}
        data = {"text/html": cell.get("html", "")}
        code.outputs = [nbformat.v4.new_output("display_data", data)]
        notebook.cells.append(code)
    assert minutes(notebook) == expected


def test_a_question_needs_no_script(page):
    quiz = page.select_one(".cxr-quiz")
    answers = {d.summary.get_text(): d.p.get_text() for d in quiz.select("details")}
    assert answers == {"this": "Right. It is.", "that": "No. It is not."}


def test_two_figures_in_one_cell_are_refused(built, tmp_path):
    chapter = Chapter(built / "chapters" / "01_first.py")
    notebook = nbformat.read(built / "book" / "chapters" / "01_first.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if any(FIGURE in o.get("data", {}) for o in outputs(c)))
    cell.outputs = [*cell.outputs, *cell.outputs]
    nbformat.write(notebook, tmp_path / "twice.ipynb")
    with pytest.raises(BookError, match="01_first: two figures in one cell"):
        pages.write(tmp_path / "twice.ipynb", chapter, tmp_path / "stage")


def outputs(cell):
    return cell.get("outputs", [])


def test_words_for_a_figure_name_its_ends():
    table = results(
        [
            {"metric": "auc", "label": "Edema", "model": "a", "value": 0.612},
            {"metric": "auc", "label": "Mass", "model": "b", "value": 0.934},
            {"metric": "auc", "label": "Mass", "model": "a", "note": "no case"},
        ]
    )
    assert in_words(table) == "AUC from 0.61 (Edema, a) to 0.93 (Mass, b); 1 undefined."
    assert in_words(table[:1]) == "AUC 0.61."
    assert in_words(table[2:]) == "AUC: every value is undefined."
