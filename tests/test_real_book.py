"""A book on real films: what it says is real, and what its films do not allow."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.book import preface, real
from cxrlib.book.chapters import chapters, find
from cxrlib.cohorts import metadata
from cxrlib.core.kernel import SAID
from cxrlib.show import notebook
from tests.conftest import ROOT

ENTRIES = pd.DataFrame({"verdict": ["not run"]})
TEXT = "# Book\n\n% films\n\n% by default\nAll films are phantoms.\n% end\n\n% found\n"
NIH = {"name": "nih-cxr14 (part)", "access": "open", "films": 1000, "patients": 682}
NIH |= {"credit": "Films: NIH Clinical Center."}


def executed(folder, chapter, cohorts, models=(), page="", found=""):
    """An executed chapter and its card."""
    said = {SAID: json.dumps({"text": "Short.", "figure": "fig-a", "found": found})}
    outputs = [{"output_type": "display_data", "data": said, "metadata": {}}]
    outputs += [{"output_type": "display_data", "data": {"text/html": page}, "metadata": {}}]
    cell = {"cell_type": "code", "source": "", "outputs": outputs, "metadata": {}}
    path = folder / f"{chapter.name}.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {}}))
    card = {"cohorts": list(cohorts), "models": [{"name": m} for m in models]}
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@pytest.fixture
def two():
    return [*find(ROOT, "1"), *find(ROOT, "3")]


def test_the_preface_of_a_book_on_phantoms_says_so(two, tmp_path):
    phantom = {"name": "phantom", "access": "open"}
    paths = [executed(tmp_path, c, [phantom], ["phantom-vit"]) for c in two]
    assert "% by" not in (text := real.preface(TEXT, two, paths, {})) and "% end" not in text
    assert "\nAll films are phantoms.\n" in text


def test_the_preface_of_a_book_on_real_films_says_what_is_real(two, tmp_path):
    phantom = {"name": "phantom-6x200", "access": "open"}
    paths = [
        executed(tmp_path, two[0], [NIH], ["phantom-vit", "biovil"]),
        executed(tmp_path, two[1], [phantom], ["phantom-resnet"]),
    ]
    text = real.preface(TEXT, two, paths, {two[1].name: "no 6x200; needed: more"})
    assert "All films are phantoms" not in text and "What is real in this book" in text
    link = "[1](chapters/01_data_curation.ipynb)"
    assert f"*nih-cxr14 (part)*: 1,000 **real films** of 682 patients, in chapter {link}." in text
    assert "NIH Clinical Center" in text
    assert "On phantoms: [3](chapters/03_fine_tuning.ipynb). no 6x200; needed: more." in text
    assert "- phantom-vit learned from phantoms" in text  # not phantom-resnet: it saw none here


def test_what_means_nothing_is_no_finding_of_the_preface(two, tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(notebook, "displayed", lambda page, plain: pages.append(page))
    notebook.warn_if_seeded(["phantom-vit"], "nih")
    notebook.warn_if_seeded(["phantom-vit", "seeded:biovil"], "phantom")
    notebook.warn_if_seeded(["phantom-vit"], "phantom-6x200")
    notebook.warn_if_seeded(["biovil"], "nih")
    on_films, seeded = pages  # the others say nothing
    paths = [
        executed(tmp_path, two[0], [NIH], page=on_films, found="AUC is 0.7"),
        executed(tmp_path, two[1], [NIH], found="Of 3 gaps, 1 is large"),
    ]
    titles = [real.warning(json.loads(path.read_text())) for path in paths]
    assert titles == ["The numbers of this page mean nothing where films are real", ""]
    text = preface.page(TEXT, two, paths, ENTRIES, tmp_path)
    assert "Of 3 gaps, 1 is large ([3, Fine-tuning]" in text and "AUC is" not in text
    assert "some models mean nothing<" in seeded


def test_chapters_that_the_films_do_not_allow_stay_on_phantoms(tmp_path, monkeypatch):
    (tmp_path / "nih-cxr14" / "images").mkdir(parents=True)
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "one.png")
    for name in metadata.nih()["image_id"].sample(200, random_state=1):
        os.link(tmp_path / "one.png", tmp_path / "nih-cxr14" / "images" / name)
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    every = chapters(ROOT)
    given = {"data": "nih", "options": {"n_images": 150}, "seed": 3}
    values = {c.name: {k: v for k, v in given.items() if k in c.parameters} for c in every}
    allowed, why = real.allowed(every, values)
    assert [name[:2] for name in why] == ["03", "06", "15", "16"]
    assert "`data=nih` is not enough: no drains; needed: NEATX" in why["06_shortcuts"]
    for name, mine in allowed.items():
        kept = {"seed": 3} if name in why or name == "11_phantoms" else values[name]
        assert mine == ({} if not values[name] else kept)
    assert "is about phantoms" in real.note(why["06_shortcuts"])
    assert real.allowed(every, {c.name: {} for c in every}) == ({c.name: {} for c in every}, {})
