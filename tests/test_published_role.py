"""The role {published}: printed numbers in the prose, looked up in cxrlib/papers/published.csv."""

import io
import sys

import pandas as pd
import pytest
from conftest import ROOT
from sphinx.application import Sphinx

from cxrlib.papers import published

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from published_role import find

# As read in the papers.
IN_PRINT = {
    "S Table 1; MedCLIP; mean; auc": "0.83",
    "S Table 1; MedCLIP; mean; auc_sd_over_labels": "0.06",
    "S Table 1; Biovil; Pneumonia; adjusted_auprc; interval": "0.00 [−0.03, 0.03]",
    "S Table 2; CXR-CLIP; sex; knn": "0.89",
    "S Section 2.3; mimic-cxr-sourget; n_images": "30,359",
    "X Fig. 2a; zero-shot; %": "49.4 %",
    "X Fig. 3c; GLoRIA; age60; f1_gap_signed; %": "0.4 %",
}


@pytest.mark.parametrize(("text", "number"), IN_PRINT.items())
def test_says_the_number_as_printed(text, number):
    assert find(text)[0] == number


def test_every_printed_number_can_be_named():
    rows = published.printed()
    for _, row in rows.iterrows():
        words = [f"{row['paper']} {row['artefact']}", *row[published.KEYS].dropna()]
        said, heading, _ = find("; ".join(words))
        assert said == published.number(row["value"], row["rounding"])
        assert heading == f"{row['paper']}, {row['artefact']}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S Table 9; MedCLIP", "unknown 'S Table 9'; expected one of S Table 1"),
        ("S Table 1; MedKLIP; mean; auc", "no row with 'MedKLIP'; expected one of 'MedCLIP'"),
        ("S Table 1; MedCLIP; mean", "4 rows fit; add one of 'auc'"),
        ("S Table 1; MedCLIP; mean; auc; sex", "no row with 'sex'; expected .*leave it out"),
        ("S Table 1; MedCLIP; mean; auc; interval", "no interval is printed"),
    ],
)
def test_refuses_what_names_no_number_or_several(text, message):
    with pytest.raises(ValueError, match=message):
        find(text)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A right and a wrong page below a folder: the HTML and the warnings."""
    source = tmp_path_factory.mktemp("role")
    pages = {
        "index": "# Book\n\n```{toctree}\nledger\nchapters/right\nchapters/wrong\n```",
        "ledger": "# Ledger\n\n## S\n\n### S, Table 1\n\nText.",
        "chapters/right": "# Right\n\nIt is {published}`S Table 1; MedCLIP; mean; auc`.",
        "chapters/wrong": "# Wrong\n\nIt is {published}`S Table 1; MedCLIP`.",
    }
    (source / "chapters").mkdir()
    for name, text in pages.items():
        (source / f"{name}.md").write_text(text + "\n")
    settings = {"extensions": ["myst_parser", "published_role"], "nitpicky": True}
    settings["suppress_warnings"] = ["app.add_node"]  # of the second Sphinx in a process
    warned, html = io.StringIO(), source / "html"
    folders = [str(folder) for folder in (html, source / "doctrees")]
    Sphinx(str(source), None, *folders, "html", settings, status=None, warning=warned).build()
    return html, warned.getvalue()


def test_a_page_links_to_the_ledger(rendered):
    html, _ = rendered
    page = (html / "chapters" / "right.html").read_text()
    link = page[page.index("It is") : page.index("</p>", page.index("It is"))]
    assert 'href="../ledger.html#s-table-1"' in link
    assert ">0.83</a>." in link
    assert 'id="s-table-1"' in (html / "ledger.html").read_text()


def test_a_wrong_name_is_one_warning_with_its_place(rendered):
    _, warned = rendered
    assert warned.count("WARNING") == 1
    assert "wrong.md:3" in warned
    assert "{published}`S Table 1; MedCLIP`: 16 rows fit; add one of 'Atelectasis'" in warned


def test_missing_cells_never_fit():
    assert pd.isna(published.printed()["method"]).any()
    with pytest.raises(ValueError, match="no row with 'nan'"):
        find("S Section 2.3; nan")
