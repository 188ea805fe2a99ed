"""The film explorer: every film and score in it is that of the twin it is said to be."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import IPython.display
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from playwright.sync_api import sync_playwright

from cxrlib import cohorts
from cxrlib.book import pdf
from cxrlib.cohorts import phantom
from cxrlib.guard import latch
from cxrlib.predict import zeroshot
from cxrlib.predict.film_grid import film_grid
from cxrlib.show import film_explorer, notebook

MODELS = ["phantom-vit", "phantom-resnet-drain"]
PIXELS = """all => all.map((e) => [...e.getContext("2d").getImageData(0, 0, e.width, e.height).data]
    .filter((_, i) => i % 4 === 0))"""
SAMPLED = [3, 61, 98, 133]  # films
SCRIPT = Path(__file__).resolve().parents[1] / "book" / "assets" / "film_explorer.js"


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom", n_images=120, seed=11)


@pytest.fixture(scope="module")
def grid(cohort):
    return film_grid(cohort, MODELS, n_patients=2)


@pytest.fixture(scope="module")
def html(grid):
    """What a notebook shows."""
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebook, "in_notebook", lambda: True)
        patch.setattr(IPython.display, "display", lambda data, **_: shown.append(data))
        film_explorer.film_explorer(*grid, "Change <it>")
    return shown[0]["text/html"]


@pytest.fixture(scope="module")
def page(html):
    return BeautifulSoup(html, "html.parser")


@pytest.fixture(scope="module")
def data(page):
    return json.loads(page.select_one("script[type='application/json']").string)


def column(data, name):
    coded = data["columns"][name]
    return [coded["entries"][code] for code in coded["codes"]]


def test_patients_differ_and_have_every_combination_once(grid):
    films, states, predictions = grid
    assert len(films) == len(states) == 2 * 72 == states["image_id"].nunique()
    changed = ["drain", "contrast", "site", "sex", "age"]
    assert not states.duplicated(["patient", *changed]).any()
    for _, rows in states.groupby("patient"):
        assert rows[changed].nunique().tolist() == [2, 3, 3, 2, 2] and rows["recorded"].sum() == 1
    assert len(predictions) == len(films) * len(MODELS) * len(phantom.FINDINGS)
    assert "Pneumothorax" in states["patient"].iloc[0]


def scores_of(predictions, image_id):
    rows = predictions[predictions["image_id"] == image_id]
    return rows.set_index(["label", "model"])["score"].sort_index().to_numpy()


def test_films_as_recorded_are_those_of_the_cohort(cohort, grid):
    films, states, predictions = grid
    plain = zeroshot.predict(cohort, MODELS, phantom.FINDINGS, cache=False)
    table = cohort.table.set_index("image_id")
    for i, state in states[states["recorded"]].iterrows():
        image_id = state["image_id"].split()[0]
        np.testing.assert_array_equal(films[i], cohort.images([table.index.get_loc(image_id)])[0])
        assert state["report"] == table.loc[image_id, "report"]
        expected = scores_of(plain, image_id)
        np.testing.assert_allclose(scores_of(predictions, state["image_id"]), expected, atol=1e-5)


@pytest.mark.parametrize("i", SAMPLED)
def test_films_and_scores_are_those_of_the_twin(cohort, grid, i):
    films, states, predictions = grid
    state = states.iloc[i]
    at = cohort.table["image_id"].tolist().index(state["image_id"].split()[0])
    fades = {"50-65": 0.90, "65-80": 0.72, "80+": 0.58}  # what is planted, by the recorded age
    visible = state["contrast"] * fades.get(cohort.table["age_group"][at], 1)
    one = cohort.table.iloc[[at]].reset_index(drop=True)
    one = one.assign(sex=state["sex"], age=state["age"])
    twin = phantom.twin(
        replace(cohort, table=one),
        drain=state["drain"],
        site=state["site"],
        contrast={"site": {state["site"]: visible}},
    )
    np.testing.assert_array_equal(films[i], twin.images([0])[0])
    alone = zeroshot.predict(twin, MODELS, phantom.FINDINGS, cache=False)
    expected = scores_of(alone, one["image_id"][0])
    np.testing.assert_allclose(scores_of(predictions, state["image_id"]), expected, atol=1e-5)


def test_sampled_twins_differ_from_the_film_as_recorded(grid):
    """So that those above prove each kind of change."""
    states = grid[1]
    kinds = ["drain", "contrast", "site", "sex", "age"]
    was = states[states["recorded"]].set_index("patient")
    moved = [states.loc[i, kinds] != was.loc[states.loc[i, "patient"], kinds] for i in SAMPLED]
    assert np.any(moved, axis=0).all()


def test_page_holds_these_states_and_scores(grid, data):
    _, states, predictions = grid
    for name in ("patient", "drain", "site", "age", "report"):
        assert column(data, name) == states[name].tolist()
    assert (
        column(data, "contrast")[:1] == ["× 1"] and len(data["columns"]["contrast"]["entries"]) == 3
    )
    assert data["recorded"] == np.flatnonzero(states["recorded"]).tolist()
    for row in predictions.iloc[::97].itertuples():
        film = states["image_id"].tolist().index(row.image_id)
        assert abs(data["scores"][row.label][row.model][film] / 1000 - row.score) <= 0.0005
    assert next(iter(data["scores"])) == "Pneumothorax"


def test_sheets_hold_the_films_in_their_order(grid, data):
    films, size = grid[0], data["size"]
    assert len(data["sheets"]) == 2
    kept = films[72:].astype(np.float32)
    picture = Image.open(io.BytesIO(base64.b64decode(data["sheets"][1].split(",")[1])))
    tiles = np.array(picture.convert("L"), np.float32).reshape(
        -1, size, picture.width // size, size
    )
    tiles = tiles.swapaxes(1, 2).reshape(-1, size, size)
    away = np.abs(tiles[:, None] - kept).mean(axis=(2, 3))
    assert np.diag(away).max() < 8  # grey levels lost by compression
    different = np.abs(kept[:, None] - kept).mean(axis=(2, 3)) > 4
    assert (different.sum(axis=1) > 20).all()
    assert (away > np.diag(away)[:, None])[different].all()


def test_change_is_said_in_words(data, grid):
    _, states, _ = grid
    said = dict(zip(states["image_id"], column(data, "change"), strict=True))
    for _, rows in states.groupby("patient"):
        was = rows[rows["recorded"]].iloc[0]
        assert said[was["image_id"]] == "as recorded"
        drain = rows[
            (rows["drain"] != was["drain"])
            & (rows[["site", "sex", "age"]] == was[["site", "sex", "age"]]).all(axis=1)
        ]
        words = "drain removed" if was["drain"] else "drain added"
        fainter = [
            words,
            f"{words}, findings fainter (× 0.7)",
            f"{words}, findings fainter (× 0.4)",
        ]
        assert [said[x] for x in drain["image_id"]] == fainter


def test_controls_have_labels_and_without_script_there_is_a_strip(page, html):
    assert page.form.has_attr("hidden")
    controls = page.select("form :is(select, input)")
    assert len(controls) == 7
    for control in controls:
        assert control.find_parent("label").get_text().strip()
    assert page.select_one("form [role=status]")["aria-live"] == "polite"
    assert "<it>" in page.select_one(".cxr-caption").string
    alone = page.select_one(".cxr-elsewhere")
    assert len(alone.select("tbody tr")) == 8  # as recorded, and each single change
    assert "drain added" in alone.img["alt"]
    assert len(html) < 1_500_000


def test_a_script_prints_the_single_changes(grid, capsys):
    film_explorer.film_explorer(*grid, "Explore")
    said = capsys.readouterr().out
    assert "as recorded" in said and "drain added" in said and "<" not in said


def test_under_guard_no_film_is_shown(grid, monkeypatch, capsys):
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    film_explorer.film_explorer(*grid, "Explore")
    assert capsys.readouterr().out.startswith("Not shown: films")


def test_what_does_not_fit_is_refused(cohort, grid, monkeypatch):
    films, states, predictions = grid
    for wrong in (
        (films[1:], states, predictions),
        (films, states, predictions[1:]),
        (films, states.assign(recorded=False), predictions),
    ):
        with pytest.raises(ValueError, match="one state per film"):
            film_explorer.film_explorer(*wrong, "Explore")
    with pytest.raises(ValueError, match="only phantoms have twins"):
        film_grid(replace(cohort, name="nih"), MODELS)
    monkeypatch.setattr(film_explorer, "LIMIT", 1000)
    with pytest.raises(ValueError, match=r"144 films of 64 pixels .* take fewer patients"):
        film_explorer.film_explorer(*grid, "Explore")


def test_by_keyboard_from_disk(html, grid, data, tmp_path):
    films, states, predictions = grid
    (tmp_path / "page.html").write_text(f"<script src='{SCRIPT.as_uri()}'></script>{html}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=pdf.browser(), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        assert not page.is_visible(".cxr-elsewhere")
        assert page.inner_text("[role=status]").startswith("As recorded. Score for pneumothorax")
        page.focus("[name=drain]")
        page.keyboard.press("Space")
        page.focus("[name=contrast]")
        page.keyboard.press("End")
        said = page.inner_text("[role=status]")
        cells = page.eval_on_selector_all("tbody .number", "all => all.map((e) => e.innerText)")
        page.wait_for_timeout(300)  # until the sheet is decoded
        seen = page.eval_on_selector_all("canvas", PIXELS)
        browser.close()
    film = column(data, "change").index("drain added, findings fainter (× 0.4)")
    assert said.startswith("Drain added, findings fainter (× 0.4). Score for pneumothorax: ")
    for place, model in enumerate(MODELS):
        rows = predictions[
            (predictions["model"] == model) & (predictions["label"] == "Pneumothorax")
        ]
        score = rows.set_index("image_id")["score"].loc[states["image_id"]].to_numpy()
        before, now = score[data["recorded"][0]], score[film]
        assert cells[3 * place : 3 * place + 2] == [f"{before:.2f}", f"{now:.2f}"]
        assert f"{model} {before:.2f} → {now:.2f}" in said
    for pixels, which in zip(seen, (data["recorded"][0], film), strict=True):
        pixels = np.array(pixels, float).reshape(films.shape[1:])
        assert np.abs(films[:72] - pixels).mean(axis=(1, 2)).argmin() == which
