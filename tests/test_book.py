"""The built pages: of a miniature book, and of the book; planted truths with small parameters.

Whole books with small parameters are those on made-up data folders, see test_guard_book.py.
"""

import json
import re
import shutil

import pytest
from bs4 import BeautifulSoup

from cxrlib.book.build import build
from cxrlib.book.chapters import chapters
from cxrlib.book.run import run
from cxrlib.core.errors import BookError
from cxrlib.core.kernel import FIGURE
from tests.conftest import ROOT

# What makes a chapter quick; each value goes to the chapters that declare the parameter.
SMALL = {
    "n_images": 300,
    "n_twins": 300,
    "n_detector": 200,
    "n_resamples": 30,
    "n_permutations": 30,
    "n_draws": 3,
    "seed": 7,
}
PLANTED = [c for c in chapters(ROOT) if c.number in ("04", "06")]  # most is planted for these

GLUED = re.compile(r"\{glue(?::\w+)?\}`([^`:]+)")
NUMBERED = re.compile(r"\{numref\}`(fig-[\w-]+)`")
BOOK = ROOT / "_build" / "html"


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """Chapters on planted truths, with small parameters and another seed: name -> notebook."""
    declared = {name for c in PLANTED for name in c.parameters}
    given = {name: value for name, value in SMALL.items() if name in declared}
    paths = run(ROOT, PLANTED, given, tmp_path_factory.mktemp("small"), jobs=1)
    return {c.name: json.loads(p.read_text()) for c, p in zip(PLANTED, paths, strict=True)}


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def external(page):
    """Addresses that a browser would fetch from elsewhere while showing the page."""
    tags = page.find_all(["script", "link", "img", "iframe", "source"])
    addresses = [tag.get("src") or tag.get("href") or "" for tag in tags]
    return [a for a in addresses if a.startswith(("http:", "https:", "//"))]


def check(html, names):
    """What must hold on every page of a book."""
    for path in html.rglob("*.html"):
        page = soup(path)
        assert external(page) == [], path
        for image in page.select("article img"):
            assert (path.parent / image["src"]).is_file(), image["src"]
    for name in names:
        page = soup(html / "chapters" / f"{name}.html")
        article = page.select_one("article")
        assert "Traceback" not in article.get_text()
        assert article.select(".output.stderr, .output.traceback") == []
        images = article.select("img")
        assert images, f"{name} shows no figure"
        for image in images:
            alt = image.get("alt", "")
            assert alt and not alt.endswith(".png"), f"{name}: a figure without alternative text"


def test_miniature_pages(built):
    check(built / "_build" / "html", ["01_first", "02_zero_shot"])


def test_glued_values_read_as_text(built):
    text = soup(built / "_build" / "html" / "chapters" / "01_first.html").get_text()
    assert "Glued: 20; 0.87 [0.84, 0.90]; It’s “higher” than 0.;\nundefined. See Fig. 1.1." in text


def test_tables_are_accessible(built):
    page = soup(built / "_build" / "html" / "chapters" / "01_first.html")
    region = page.select_one("div.cxr-scroll")
    assert region["aria-label"] == "Table of <01>" and region["tabindex"] == "0"
    assert [th["scope"] for th in region.select("thead th")] == ["col", "col"]
    assert region.select_one("td.number").get_text() == "0.81"


def test_mathjax_is_local_and_its_font_is_there(built):
    html = built / "_build" / "html"
    page = soup(html / "chapters" / "01_first.html")
    [mathjax] = [s["src"] for s in page.select("script[src]") if "mathjax" in s["src"]]
    assert (html / "chapters" / mathjax.split("?")[0]).is_file()
    assert list(html.rglob("MathJax_Main-Regular.woff"))


def test_a_warning_fails_the_build_and_keeps_the_last_book(copy_of_built):
    root = copy_of_built
    page = root / "_build" / "html" / "rerun.html"
    before = page.read_text()
    source = root / "book" / "rerun.md"
    source.write_text(source.read_text() + "\nSee {numref}`no-such-figure`.\n")
    with pytest.raises(BookError, match="no-such-figure") as caught:
        build(root)
    assert "build.log" in str(caught.value)
    assert page.read_text() == before


def test_a_replacement_cut_off_halfway_is_undone(copy_of_built):
    html = copy_of_built / "_build" / "html"
    html.rename(html.with_name("html.old"))
    page, changed = build(copy_of_built)
    assert page.is_file() and not changed


def test_a_book_with_other_parameters_goes_beside_the_book(copy_of_built):
    root = copy_of_built
    page, changed = build(root, {"n_images": "5"})
    assert changed and page.is_relative_to(root / "_build" / "runs")
    assert "Glued: 5;" in soup(page.parent / "chapters" / "01_first.html").get_text()
    assert "Glued: 20;" in soup(root / "_build/html/chapters/01_first.html").get_text()
    shutil.rmtree(page.parents[1])


def test_real_pages():
    """Of the book that was made before the tests."""
    assert BOOK.is_dir(), "there is no book: run make book"
    check(BOOK, [c.name for c in chapters(ROOT)])


@pytest.mark.parametrize("chapter", PLANTED, ids=lambda c: c.name)
def test_real_chapter_executes(small_run, chapter):
    notebook = small_run[chapter.name]
    code = [c for c in notebook["cells"] if c["cell_type"] == "code" and c["source"]]
    assert all(c["execution_count"] for c in code)
    bad = [o for o in outputs(notebook) if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert not bad
    used = notebook["metadata"]["cxrbook"]["parameters"]
    assert used == {k: v for k, v in SMALL.items() if k in chapter.parameters}


def outputs(notebook):
    return [output for cell in notebook["cells"] for output in cell.get("outputs", [])]


def prose(notebook):
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    return "\n".join("".join(cell["source"]) for cell in cells)


@pytest.mark.parametrize("chapter", PLANTED, ids=lambda c: c.name)
def test_what_the_prose_names_is_there_whatever_the_numbers(small_run, chapter):
    """Small numbers take other turns; a name that they left out would stop the build of a page."""
    notebook = small_run[chapter.name]
    found = [o.get("metadata", {}).get("scrapbook", {}).get("name") for o in outputs(notebook)]
    glued = [name for name in found if name]
    said = set(GLUED.findall(prose(notebook)))
    assert said and said <= set(glued)
    assert len(glued) == len(set(glued))
    figures = [
        json.loads("".join(output["data"][FIGURE]))
        for of_one in small_run.values()
        for output in outputs(of_one)
        if FIGURE in output.get("data", {})
    ]
    assert all(figure["alt"].strip() and figure["caption"].strip() for figure in figures)
    assert set(NUMBERED.findall(prose(notebook))) <= {figure["name"] for figure in figures}
