"""How numbers and tables read."""

import math

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from cxrlib import schema
from cxrlib.show import notebook
from cxrlib.show.notebook import rendered, show
from cxrlib.show.words import fmt, fmt_interval, fmt_row, interval_lies, percent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (fmt(0.8751), "0.88"),
        (fmt(-0.001), "0.00"),
        (fmt(0.031, signed=True), "+0.03"),
        (fmt(0.001, signed=True), "0.00"),
        (fmt(112120, digits=0), "112,120"),
        (fmt(math.nan), "undefined"),
        (fmt(None), "undefined"),
        (fmt_interval(0.87, 0.84, 0.9), "0.87 [0.84, 0.90]"),
        (fmt_interval(-0.02, -0.05, 0.01, signed=True), "−0.02 [−0.05, +0.01]"),
        (fmt_interval(math.nan, 0.84, 0.9), "undefined"),
        (fmt_interval(0.87, math.nan, math.nan), "0.87 [undefined]"),
        (fmt_interval(0.87, math.nan, math.nan, bare=True), "0.87"),
        (fmt_interval(0.87, 0.84, 0.9, bare=True), "0.87 [0.84, 0.90]"),
        (interval_lies({"ci_low": 0.01, "ci_high": 0.2}), "lies above 0"),
        (interval_lies({"ci_low": 0.4, "ci_high": 0.49}, of=0.5), "lies below 0.5"),
        (interval_lies({"ci_low": -0.1, "ci_high": 0.2}), "includes 0"),
        (interval_lies({"ci_low": math.nan, "ci_high": 0.2}), "is undefined"),
        (fmt_row({"value": 0.871, "ci_low": 0.84, "ci_high": 0.9}, 3), "0.871 [0.840, 0.900]"),
        (percent(0.1234), "12 %"),
        (percent(0.1234, digits=1), "12.3 %"),
        (percent(math.nan), "undefined"),
    ],
)
def test_formats(text, expected):
    assert text == expected


def test_groups_stand_in_their_order_within_what_stands_before_them(capsys):
    rows = [("b", "M"), ("b", "F x 80+"), ("b", "F"), ("a", "M"), ("a", "F")]
    table = schema.results(
        [{"model": m, "group": g, "metric": "auc", "label": "x", "value": 0.5} for m, g in rows]
    )
    show(table, rows=["model", "group"], columns="metric")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert [line[:2] for line in lines[:2]] == [["b", "female"], ["b", "male"]]
    assert lines[2][:4] == ["b", "female", "x", "80+"]
    assert [line[:2] for line in lines[3:]] == [["a", "female"], ["a", "male"]]


def test_show_prints_in_plain_python(capsys):
    table = pd.DataFrame({"auc": [0.8123, math.nan], "n": [3, 4]}, index=pd.Index(["a", "b"]))
    show(table.rename_axis("model"), caption="Two models", missing="undefined")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["Two", "models"],
        ["model", "AUC", "n"],
        ["a", "0.81", "3"],
        ["b", "undefined", "4"],
        [],
    ]


def test_words_of_a_table_wrap_and_numbers_and_intervals_do_not():
    table = pd.DataFrame({"auc": [0.5], "gap": ["0.067 [-0.085, 0.05]"], "of": ["short"]})
    page, _ = rendered(table.set_index(pd.Index(["a name of several words"], name="model")))
    cells = BeautifulSoup(page, "html.parser").select("tbody th, tbody td")
    kinds = [(cell["class"] if cell.has_attr("class") else []) for cell in cells]
    assert kinds == [["text"], ["number"], ["text"], []]
    assert [span.get_text() for span in cells[2].select(".cxr-whole")] == ["[−0.085, 0.05]"]
    assert cells[2].get_text() == "0.067 [−0.085, 0.05]"


def test_films_are_a_figure_and_withheld_under_guard(monkeypatch, capsys):
    import matplotlib.pyplot as plt

    film = np.arange(12).reshape(3, 4)
    given = ("fig-a", "Two films.", {"before": [film, film], "after": [film, film + 1]}, "Films.")
    drawn = []
    monkeypatch.setattr(notebook, "figure", lambda *_: drawn.append(plt.gcf()))
    notebook.films(*given)
    shown = [ax.images[0].get_array() for ax in drawn[0].axes]
    assert [ax.get_title(loc="left") for ax in drawn[0].axes] == ["before", "", "after", ""]
    assert len(shown) == 4 and (shown[3] == film + 1).all()
    plt.close("all")
    monkeypatch.setattr(notebook.guard, "active", lambda: True)
    notebook.films(*given)
    assert len(drawn) == 1 and "Not shown: films" in capsys.readouterr().out
