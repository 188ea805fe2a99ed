"""Tables behind figures in a built book: open ones pass the last look, credentialed ones do not."""

import nbformat
import pandas as pd
import pytest

from cxrlib import guard
from cxrlib.book import scan

ROWS = "image_id,n_positive\n00000906_000.png,3\n"


@pytest.fixture
def site(tmp_path):
    (tmp_path / "html" / "tables").mkdir(parents=True)
    (tmp_path / "html" / "tables" / "fig-a.csv").write_text(ROWS)
    return tmp_path / "html"


def executed(folder, name, credentialed):
    data = {guard.MARK: "mimic-cxr"} if credentialed else {"text/plain": "1"}
    output = nbformat.v4.new_output("display_data", data)
    cell = nbformat.v4.new_code_cell("1", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), folder / name)
    return folder / name


def test_a_table_of_open_data_may_have_rows_of_images(site, tmp_path):
    assert scan.folder(site, {}, made_from=[executed(tmp_path, "01_a.ipynb", False)]) == []


def test_one_credentialed_chapter_makes_every_table_suspect(site, tmp_path):
    made_from = [
        executed(tmp_path, "01_a.ipynb", False),
        executed(tmp_path, "02_b.ipynb", True),
    ]
    kinds = {hit.kind for hit in scan.folder(site, {}, made_from=made_from)}
    assert kinds == {"row-level table", "small count"}


def test_without_a_word_on_its_source_a_table_is_suspect(site):
    assert {hit.kind for hit in scan.folder(site, {})} == {"row-level table", "small count"}


def test_the_executed_chapter_says_that_its_page_is_credentialed(site, tmp_path):
    (site / "02_b.html").write_text("<p>Study 51234567</p>")  # as in MIMIC-CXR
    credentialed = executed(tmp_path, "02_b.ipynb", True)
    hits = scan.folder(site, {}, made_from=[credentialed])
    assert scan.Hit("02_b.html", None, "identifier") in hits


@pytest.mark.parametrize("credentialed", [False, True])
def test_results_of_a_run_are_what_its_notebook_is(tmp_path, credentialed):
    executed(tmp_path, "04_a.ipynb", credentialed)
    pd.DataFrame({"n_images": [50], "n_positive": [3]}).to_parquet(tmp_path / "04_a.parquet")
    found = [hit.kind for hit in scan.folder(tmp_path, {}) if hit.file == "04_a.parquet"]
    assert found == (["small count"] if credentialed else [])
