"""The built pages: of a miniature book, and of the book.

Whole books with small parameters are those on made-up data folders, see test_guard_book.py.
"""

import re
import shutil

import pytest
import yaml
from bs4 import BeautifulSoup

from cxrlib.book.build import build
from cxrlib.book.chapters import chapters
from cxrlib.core.errors import BookError
from tests.conftest import ROOT

BOOK = ROOT / "_build" / "html"
NUMBER = re.compile(r"−?\d+(?:\.\d+)?")


def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def external(page):
    """Addresses that a browser would fetch from elsewhere while showing the page."""
    tags = page.find_all(["script", "link", "img", "iframe", "source"])
    addresses = [tag.get("src") or tag.get("href") or "" for tag in tags]
    return [a for a in addresses if a.startswith(("http:", "https:", "//"))]


def check(html, names):
    """What must hold on every page of a book, and of each of these chapters."""
    left = {html / "chapters" / f"{name}.html" for name in names}
    for path in html.rglob("*.html"):
        page = soup(path)
        assert external(page) == [], path
        for image in page.select('article img:not([src^="data:"])'):
            assert (path.parent / image["src"]).is_file(), image["src"]
        if path not in left:
            continue
        left.remove(path)
        article = page.select_one("article")
        assert "Traceback" not in article.get_text()
        assert article.select(".output.stderr, .output.traceback") == []
        images = article.select("img")
        assert images, f"{path.stem} shows no figure"
        for image in images:
            alt = image.get("alt", "")
            assert alt and not alt.endswith(".png"), (
                f"{path.stem}: a figure without alternative text"
            )
    assert left == set(), "these chapters have no page"


def test_miniature_pages(built):
    check(built / "_build" / "html", ["01_first", "02_zero_shot"])


def test_what_was_said_reads_as_text(built):
    text = soup(built / "_build" / "html" / "chapters" / "01_first.html").get_text()
    assert "Said: 20; 0.87 [0.84, 0.90]; It’s “higher” than 0.;\nundefined. See Fig. 1.1." in text


def test_tables_are_accessible(built):
    page = soup(built / "_build" / "html" / "chapters" / "01_first.html")
    [region] = [r for r in page.select("div.cxr-scroll") if r["aria-label"] == "Table of <01>"]
    assert region["tabindex"] == "0"
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


def test_a_book_with_other_parameters_goes_beside_the_book(copy_of_built, monkeypatch):
    """As far as its sources: rendered are books with other parameters in test_guard_book.py."""

    def unrendered(stage, fresh, log):
        shutil.copytree(stage / "chapters", fresh / "_build" / "html" / "chapters")

    monkeypatch.setattr("cxrlib.book.build._render", unrendered)
    root = copy_of_built
    page, changed = build(root, {"n_images": "5"})
    assert changed and page.is_relative_to(root / "_build" / "runs")
    assert "Said: 5;" in (page.parent / "chapters" / "01_first.ipynb").read_text()
    assert "Said: 20;" in soup(root / "_build/html/chapters/01_first.html").get_text()
    shutil.rmtree(page.parents[1])


def test_real_pages():
    """Of the book that was made before the tests."""
    assert BOOK.is_dir(), "there is no book: run make book"
    check(BOOK, [c.name for c in chapters(ROOT)])


def test_the_release_note_says_what_the_pages_say():
    """Each line that leads to a chapter has no number that the chapter's box does not have."""
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    note = (ROOT / "docs" / f"release-{version}.md").read_text()
    lines = re.findall(r"^- (.+) \[.*\]\(\.\./chapters/(\w+)\.py\)$", note, re.MULTILINE)
    assert len(lines) > 5
    for line, chapter in lines:
        box = soup(BOOK / "chapters" / f"{chapter}.html").select_one(".cxr-short")
        said = NUMBER.findall(box.get_text())
        assert [n for n in NUMBER.findall(line) if n not in said] == [], chapter
    (counted,) = re.findall(
        r"^- Each number and claim in print, (\d+) .* (\d+) are cont", note, re.M
    )
    preface = soup(BOOK / "index.html").get_text()
    assert f"Of {counted[0]} numbers and claims in print" in preface
    assert f"{counted[1]} contradicted by the paper’s own numbers" in preface
