"""The page from the papers to the book: complete, joined with the chapters and the ledger."""

from types import SimpleNamespace

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from cxrlib import schema
from cxrlib.core.errors import BookError
from cxrlib.papers import crosswalk, ledger, published

# Read off the papers' pages.
SECTIONS = ["1", "2.1", "2.2", "2.3", "2.4", "3.1", "3.2", "3.3", "4"]
HELD = {
    "S": [*SECTIONS, "Table 1", "Table 2", "Fig. 1", *(f"Fig. 2{panel}" for panel in "abcd")]
    + [f"Fig. 3{panel}" for panel in "abcd"]
    + [f"Fig. 4{panel}" for panel in "abc"],
    "X": [*SECTIONS, "Fig. 1", "Fig. 2a", "Fig. 2b", *(f"Fig. 3{panel}" for panel in "abcd")]
    + [f"Eq. {number}" for number in (1, 2, 3, 4)],
}
NONE = schema.results([])


def chapter(name="01_a", **answers):
    path = SimpleNamespace(name=f"{name}.py")
    cells = [SimpleNamespace(source='figure("fig-withheld", caption)')]
    notebook = SimpleNamespace(cells=cells)
    return SimpleNamespace(name=name, path=path, about={"answers": answers}, notebook=notebook)


@pytest.fixture(scope="module")
def entries():
    return ledger.ledger(NONE)


def test_a_figure_that_a_run_withheld_leaves_the_answer_in_words():
    one = chapter(**{"S Fig. 4c": "fig-withheld"})
    assert crosswalk.answers([one], set())["S Fig. 4c"] == [(one, "")]
    assert crosswalk.answers([one], {"fig-withheld"})["S Fig. 4c"] == [(one, "fig-withheld")]


def test_every_artefact_of_both_papers_is_listed_once():
    table = crosswalk.artefacts()
    for paper, expected in HELD.items():
        assert list(table.loc[table["paper"] == paper, "artefact"]) == expected
    assert table["shows"].str.len().min() > 10


def test_every_number_and_claim_belongs_somewhere(entries):
    keys = list(crosswalk.artefacts()["key"])
    nowhere = [e["item"] for _, e in entries.iterrows() if not crosswalk.places(e, keys)]
    assert nowhere == []


@pytest.mark.parametrize(
    ("paper", "artefact", "place", "expected"),
    [
        ("S", "Table 1", "Table 1", ["S Table 1"]),
        ("S", "Fig. 4b bars", "Fig. 4b", ["S Fig. 4b"]),
        ("X", "Section 2.1", "Section 2.1", ["X 2.1"]),
        ("S", "Claims", "Abstract; sections 3.2, 4", ["S 3.2", "S 4"]),
        ("S", "Claims", "Section 3.2, Fig. 3", ["S 3.2", *(f"S Fig. 3{p}" for p in "abcd")]),
        ("X", "Claims", "Abstract; section 1", ["X 1"]),
    ],
)
def test_where_an_entry_belongs(paper, artefact, place, expected):
    entry = {"paper": paper, "artefact": artefact, "place": place}
    assert crosswalk.places(entry, list(crosswalk.artefacts()["key"])) == expected


def test_chapters_and_verdicts_are_joined(entries):
    chapters = [
        chapter("01_a", **{"S Table 1": "fig-a", "S 2.1": ""}),
        chapter("02_b", **{"S Table 1": "", "S Fig. 2": "fig-b", "X Eq. 2": ""}),
    ]
    table = crosswalk.crosswalk(chapters, {"fig-a", "fig-b"}, entries).set_index("key")
    names = table["answered"].map(lambda found: [(c.name, label) for c, label in found])
    assert names["S Table 1"] == [("01_a", "fig-a"), ("02_b", "")]
    assert all(names[f"S Fig. 2{p}"] == [("02_b", "fig-b")] for p in "abcd")
    assert names["X Eq. 3"] == []
    assert table.loc["S Table 1", "status"].startswith("[96 numbers](#ledger-s-table-1): ")
    assert table.loc["S Fig. 2a", "status"] == crosswalk.NOTHING
    assert table.loc["X Eq. 2", "status"] == crosswalk.WORDS
    assert table.loc["X Eq. 3", "status"] == crosswalk.NOT_ANSWERED
    missing = "not answered; [2 numbers](#ledger-x-fig-2a): 2 not run"
    assert table.loc["X Fig. 2a", "status"] == missing


def test_the_status_counts_the_verdicts():
    entries = pd.DataFrame(
        [("S", "Table 1", published.REPRODUCED)] * 2
        + [("S", "Table 1", published.DIFFERS), ("S", ledger.SAID, published.NOT_RUN)],
        columns=["paper", "artefact", "verdict"],
    )
    text = crosswalk.status([(chapter(), "")], entries)
    assert text == (
        "[3 numbers](#ledger-s-table-1): 1 differs, 2 reproduced; "
        "[1 claim](#ledger-s-claims): 1 not run"
    )


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"S Table 3": ""}, "01_a.py: 'answers' names 'S Table 3', which neither paper holds"),
        ({"S Fig. 4d": ""}, "'S Fig. 4d', which neither paper holds"),
        (
            {"S Table 1": "fig-x"},
            "01_a.py: 'answers' gives 'S Table 1' the figure 'fig-x'",
        ),
    ],
)
def test_a_wrong_answer_is_refused(answers, message):
    with pytest.raises(BookError, match=message):
        crosswalk.answers([chapter(**answers)], {"fig-a"})


def test_the_page_of_a_built_book(built):
    path = built / "_build" / "html" / "crosswalk.html"
    page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    rows = page.select("section#s-sourget-et-al-2025 tbody tr")
    rows = {row.select_one("td").get_text(): row for row in rows}
    links = [link["href"] for link in rows["Table 1"].select("td:nth-of-type(3) a")]
    assert links[:2] == ["chapters/01_first.html", "chapters/01_first.html#fig-01"]
    assert "not answered" in rows["Table 2"].get_text()
