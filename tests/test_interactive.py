"""What the interactive figures hand to the page: the values of the table, and nothing else."""

import json

import IPython.display
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from cxrlib import guard, schema
from cxrlib.guard import latch
from cxrlib.show import interactive, notebook
from cxrlib.stats import calibration


@pytest.fixture
def emit(monkeypatch):
    """Call a function as in a notebook: the HTML that it shows, parsed, and its data."""
    monkeypatch.setattr(notebook, "in_notebook", lambda: True)

    def call(function, *args, **options):
        shown = []
        monkeypatch.setattr(IPython.display, "display", lambda data, **_: shown.append(data))
        function(*args, **options)
        page = BeautifulSoup(shown[0]["text/html"], "html.parser")
        return page, json.loads(page.select_one("script[type='application/json']").string)

    return call


@pytest.fixture
def results():
    rows = [
        {
            **{"model": model, "label": label, "attribute": attribute, "group": group},
            **{"metric": metric, "value": 0.123456 * k, "ci_low": 0.1 * k, "ci_high": 0.13 * k},
            **{"n": 100 + k, "n_positive": 20 + k, "n_patients": 90 + k},
        }
        for k, (model, label, (attribute, group), metric) in enumerate(
            (m, label, g, t)
            for m in ("a<b", "phantom-vit")
            for label in ("Edema", "mean")
            for g in (("all", "all"), ("sex", "M"), ("sex", "F"), ("age_group", "80+"))
            for t in ("auc", "f1")
        )
    ]
    missing = {"value": None, "ci_low": None, "ci_high": None, "n_positive": 3}
    rows[5] |= missing | {"note": "fewer than 10 positive images"}
    return schema.results(rows)


def rows_of(data):
    return pd.DataFrame(data["rows"], columns=data["columns"])


def options_of(page):
    return {s["name"]: [o["value"] for o in s.select("option")] for s in page.select("select")}


def test_explorer_holds_exactly_the_values_of_the_table(emit, results):
    page, data = emit(interactive.explorer, results, "Explore <it>")
    found, keys = rows_of(data), ["model", "label", "attribute", "group", "metric"]
    assert not found.duplicated(keys).any()
    both = results.merge(found, on=keys, suffixes=("", "_page"))
    assert len(both) == len(results) == len(found)
    for column in ("value", "ci_low", "ci_high"):
        expected = both[column].astype(float).round(4)
        np.testing.assert_array_equal(both[f"{column}_page"].astype(float), expected)
    for column in ("n", "n_positive", "n_patients", "note"):
        assert both[f"{column}_page"].tolist() == both[column].tolist()
    undefined = found[found["value"].isna()]
    assert undefined["note"].tolist() == ["fewer than 10 positive images"]
    assert undefined["n_positive"].tolist() == [3]
    assert options_of(page) == {
        "model": ["a<b", "phantom-vit"],
        "label": ["Edema", "mean"],
        "attribute": ["sex", "age_group"],
        "metric": ["auc", "f1"],
    }
    assert "<it>" in page.select_one(".cxr-caption").string
    assert data["names"]["F"] == "female" and data["baselines"] == {"auc": 0.5, "f1": 0}


def test_controls_have_names_and_wait_for_the_script(emit, results):
    page, _ = emit(interactive.explorer, results, "Explore")
    assert page.form.has_attr("hidden") and page.select_one("form [role=status]").string is None
    for control in page.select("select"):
        assert control.find_parent("label").get_text().strip()
    assert "in the built book" in page.select_one(".cxr-elsewhere").string


def test_what_cannot_be_chosen_is_no_control(emit, results):
    page, _ = emit(interactive.explorer, results[results["label"] == "mean"], "Explore")
    assert "label" not in options_of(page)
    assert page.select_one("input[type=hidden]")["value"] == "mean"


def test_explorer_refuses_two_rows_for_one_place(results):
    with pytest.raises(ValueError, match=r"more than one row for .*'a<b'.*'Edema'"):
        interactive.explorer(pd.concat([results, results.assign(seed=2)]), "Explore")
    with pytest.raises(ValueError, match="no rows"):
        interactive.explorer(results[:0], "Explore")


def test_output_is_the_same_each_time(emit, results):
    one, two = (emit(interactive.explorer, results, "Explore")[0] for _ in range(2))
    assert str(one) == str(two)
    assert one.select_one(".cxr-interactive")["id"] == "cxr-explorer"


def test_data_cannot_end_their_element(emit, results):
    page, data = emit(interactive.explorer, results.replace("Edema", "</script><b>"), "Explore")
    assert len(page.select("script")) == 1 and page.select_one(".cxr-interactive b") is None
    assert "</script><b>" in rows_of(data)["label"].to_list()


def test_reliability_holds_the_curves(emit):
    rng = np.random.default_rng(0)
    films = pd.DataFrame({"image_id": np.arange(300).astype(str), "score": rng.uniform(size=300)})
    films["y_true"] = (rng.uniform(size=300) < films["score"]).astype(int)
    films = films.assign(patient_id=films["image_id"], cohort="c", label="Edema", method="cosine")
    films = pd.concat([films.assign(model=m) for m in ("a", "b")], ignore_index=True)
    curves = calibration.reliability_table(films, 5, n_resamples=20)
    page, data = emit(interactive.reliability, curves, "Whose promises hold?")
    found = rows_of(data)
    for column in ("predicted", "observed", "ci_low", "ci_high"):
        np.testing.assert_array_equal(found[column], curves[column].round(4))
    assert found["n"].tolist() == curves["n"].tolist()
    assert options_of(page) == {"model": ["all models", "a", "b"]}


def test_scatter_holds_points_and_groups(emit):
    points = np.array([[0.123456, 1], [2, 3], [4, 5]])
    groups = {"sex": np.array(["M", "F", "M"]), "race": pd.Series(["White", None, "Asian"])}
    page, data = emit(interactive.scatter, points, groups, "Colour the map")
    found = rows_of(data)
    np.testing.assert_array_equal(found[["x", "y"]], points.round(4))
    for attribute, expected in groups.items():
        codes = found[attribute]
        names = [data["groups"][attribute][code] if code >= 0 else None for code in codes]
        assert names == [None if pd.isna(group) else group for group in expected]
    assert options_of(page) == {"attribute": ["sex", "race"]}


def test_dose_has_one_stop_a_setting(emit, results):
    rows = results[(results["group"] == "M") & (results["metric"] == "auc")].head(1)
    rows = pd.concat([rows.assign(dose=d) for d in (0.5, 0.0, 1.0)])
    page, data = emit(interactive.dose, rows, "Turn the dial", xlabel="share with a drain")
    slider = page.select_one("input[type=range]")
    assert data["settings"] == [0.0, 0.5, 1.0] == rows_of(data)["x"].tolist()
    assert (slider["min"], slider["max"]) == ("0", "2")
    assert slider.find_parent("label").get_text().strip() == "share with a drain"


def test_decisions_have_one_stop_a_risk_and_start_at_the_price(emit, results):
    rows = results[(results["model"] == "phantom-vit") & (results["label"] == "Edema")]
    rows = pd.concat([rows.assign(threshold=t) for t in (0.2, 0.05, 0.1)])
    page, data = emit(interactive.decisions, rows, "Who pays?", start=0.11)
    slider = page.select_one("input[type=range]")
    assert data["settings"] == [0.05, 0.1, 0.2]
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    assert options_of(page) == {
        "attribute": ["all", "sex", "age_group"],
        "metric": ["auc", "f1"],
    }
    found = rows_of(data)
    assert len(found) == len(rows) and set(found["threshold"]) == {0.05, 0.1, 0.2}
    assert set(found["group"]) <= set(data["colours"])


def test_without_a_notebook_it_says_where_to_look(results, capsys):
    interactive.explorer(results, "Explore")
    assert capsys.readouterr().out.startswith("Explore (The figure above")


def test_under_guard_small_groups_lose_their_numbers(emit, results, monkeypatch):
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    results.loc[3, ["n", "n_positive", "n_negative", "n_patients"]] = 9, 4, 5, 8
    _, data = emit(interactive.explorer, results, "Explore")
    found = rows_of(data)
    assert not found[["n", "n_positive", "n_patients"]].isin(range(1, 10)).any(axis=None)
    assert 0.3704 not in found["value"].tolist()  # that of row 3
    hidden = found[found["note"].str.contains("suppressed")]
    assert len(hidden) and hidden["value"].isna().any()


def test_under_guard_single_images_are_refused_or_withheld(emit, results, monkeypatch, capsys):
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    points, groups = np.zeros((2, 2)), {"sex": ["F", "M"]}
    interactive.scatter(points, groups, "Colour the map")
    assert "Not shown: one point an image" in capsys.readouterr().out
    for column in ("image_id", "patient_id"):
        table = results.iloc[[0]].assign(**{column: 1.0})
        with pytest.raises(guard.GuardError, match=column):
            interactive.dose(table, "Turn the dial", x=column)
