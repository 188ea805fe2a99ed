"""Sweeps, collected runs, and profiles."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrlib.book import manifest, profiles, record, sweep, sweep_page
from cxrlib.book.chapters import assign, chapters, find
from cxrlib.book.run import parameters_of
from cxrlib.core.errors import BookError
from cxrlib.models import registry
from tests.conftest import ROOT, write_book

RESULTS = """
# %%
if how == "fancy" and n_images == 40:
    raise ValueError("fancy fails at 40")

# %%
from cxrlib import schema
from cxrlib.show.notebook import keep

row = {"cohort": "phantom", "label": "mean", "attribute": "all", "group": "all", "metric": "auc"}
rows = [row | {"model": m, "value": rate + n_images / 1000} for m in names]
keep(schema.results([*rows, row | {"model": "a", "metric": "f1", "value": 0.1}]))
"""


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a=1,2", "b=x"], {"a": ["1", "2"], "b": ["x"]}),
        (["a=['x,y', 'z']"], {"a": ["x,y", "z"]}),
        (["a=[{'k': 1}, {}]"], {"a": [{"k": 1}, {}]}),
    ],
)
def test_a_grid_is_values_with_commas_or_a_list(texts, expected):
    assert sweep.grid(texts) == expected


@pytest.mark.parametrize("text", ["a", "=1", "a=", "a=1,,2", "a=[1,"])
def test_a_bad_grid_is_refused(text):
    with pytest.raises(BookError, match="expected"):
        sweep.grid([text])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep over two parameters of which one point failed."""
    root = write_book(tmp_path_factory.mktemp("swept") / "mini")
    path = root / "chapters" / "01_first.py"
    path.write_text(path.read_text() + RESULTS)
    over = {"n_images": ["30", "40", "50"], "how": ["fancy"]}
    return root, *sweep.sweep(root, *find(root, "1"), over, {"rate": "0.25"}, "tried")


def test_a_failed_point_is_named_and_the_others_are_kept(swept):
    root, folder, done, failed = swept
    assert folder == root / "_build" / "sweeps" / "tried"
    assert len(done) == 2
    assert "chapter 01_first n_images=40 how=fancy, cell 8 of 9" in failed
    assert "fancy fails at 40" in failed and "\n" not in failed
    assert (root / "_build" / "failed" / "01_first-n_images=40-how=fancy.ipynb").is_file()
    said = [(line.split(": ")[1][:7], fine) for line, fine in manifest.verify(root, "tried")]
    assert sorted(said) == [*2 * [("3 files", True)], ("the run", False)]


def test_what_is_done_is_not_done_again(swept, monkeypatch):
    root, _, _, _ = swept
    seen = []

    def note(root, every, *_):
        # the same code, whatever is edited meanwhile
        keys = {task.target: record.key(task.target) for task in every}
        seen.append([task for task in every if keys[task.target] is None])

    monkeypatch.setattr(sweep, "execute", note)
    over = {"n_images": [30, 40, 50, 60], "how": ["fancy"]}
    sweep.sweep(root, *find(root, "1"), over, {"rate": 0.25}, "tried")
    [todo] = seen
    assert [task.given["n_images"] for task in todo] == [40, 60]


@pytest.mark.parametrize(
    ("over", "given", "words"),
    [
        ({"n_images": [500]}, {}, "is not in"),
        ({"n_imags": [3]}, {}, "did you mean 'n_images'"),
        ({"n_images": [3]}, {"n_images": 3}, "both fixed by -p and swept by -g"),
        ({"n_images": [3]}, {"rate": 0.75}, "another sweep of this name"),
        ({"rate": [0.2]}, {}, "another sweep of this name"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_runs(
    swept, monkeypatch, over, given, words
):
    root = swept[0]
    monkeypatch.setattr(sweep, "execute", lambda *_: pytest.fail("nothing may run"))
    with pytest.raises(BookError, match=words) as caught:
        sweep.sweep(root, *find(root, "1"), over, given, "tried")
    assert caught.value.code == 2


def test_joined_results_have_one_column_a_parameter(swept, tmp_path):
    _, folder, done, _ = swept
    table, texts = sweep.joined(done)
    assert len(table) == 6 and len(texts) == 2
    auc = table[table["metric"] == "auc"]
    assert auc["value"].to_list() == pytest.approx((0.25 + auc["p_n_images"] / 1000).to_list())
    assert set(table["p_how"]) == {"fancy"} and set(table["p_names"]) == {"['a', 'b']"}
    assert set(table["run"]) == {"tried"}
    said = texts["text"].str.extract(r"^Said: (\d+);")[0].astype(int)
    assert (said == texts["p_n_images"]).all()
    assert sweep.collect([folder]) == sorted(done)
    for name in ("all.csv", "all.parquet"):
        sweep.write(table, tmp_path / name)
    read = pd.read_csv(tmp_path / "all.csv"), pd.read_parquet(tmp_path / "all.parquet")
    for back in read:
        np.testing.assert_array_equal(back["value"], table["value"])
    with pytest.raises(BookError, match=r"ends in \.parquet or \.csv"):
        sweep.write(table, tmp_path / "all.xlsx")
    with pytest.raises(BookError, match="no run here"):
        sweep.collect([tmp_path])


def test_report_writes_tables_and_a_plot(swept):
    _, folder, done, _ = swept
    said = sweep.report(folder, done, ["n_images", "how"])
    assert "other metrics for --metric: f1" in said
    behind = pd.read_csv(folder / "plot.csv").set_index(["n_images", "line"])["mean"]
    assert behind[(50, "b")] == pytest.approx(0.3)
    assert Image.open(folder / "plot.png").size[0] > 400
    page = (folder / "page.html").read_text()
    assert 'src="plot.png"' in page and "2 points of a grid over n_images, how" in page
    assert len(pd.read_parquet(folder / "sweep.parquet")) == 6


def test_spread_over_seeds_by_hand():
    row = {"attribute": "all", "group": "all", "label": "mean", "metric": "auc", "model": "a"}
    values = {(1, 10): 0.5, (2, 10): 0.7, (3, 10): 0.9, (1, 20): 0.6, (2, 20): float("nan")}
    rows = [
        row | {"p_seed": s, "p_n": n, "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}
        for (s, n), v in values.items()
    ]
    rows += [rows[0] | {"label": "x", "value": 9.0}]  # the mean over labels is taken
    table = pd.DataFrame(rows)
    table[["paper", "artefact", "protocol", "cohort", "method", "unit"]] = None
    found = sweep.curves(table, ["n", "seed"]).set_index("n")
    first = found.loc[10]
    assert [first[c] for c in ("mean", "low", "high", "n_runs")] == pytest.approx(
        [0.7, 0.5, 0.9, 3]
    )
    assert first["sd"] == pytest.approx(0.2)
    assert (found.loc[20, "mean"], found.loc[20, "n_runs"]) == (0.6, 1)
    alone = sweep.curves(table[table["p_seed"] == 1], ["n", "seed"]).set_index("n").loc[10]
    assert [alone["low"], alone["high"]] == pytest.approx([0.4, 0.6])  # of the run itself
    with pytest.raises(BookError, match="did you mean 'auc'"):
        sweep.curves(table, ["n"], "aucc")
    with pytest.raises(BookError, match="no such column; did you mean 'model'"):
        sweep.curves(table, ["n"], "auc", {"modell": "a"})
    with pytest.raises(BookError, match="no such label; there are: mean, x"):
        sweep.curves(table, ["n"], "auc", {"label": "Edema"})


def test_more_lines_than_a_plot_can_hold():
    row = {"attribute": "all", "group": "all", "label": "x", "metric": "auc", "p_n": 1, "value": 1}
    table = pd.DataFrame([row | {"model": f"m{i}", "ci_low": 0, "ci_high": 1} for i in range(13)])
    table[["paper", "artefact", "protocol", "cohort", "method", "unit"]] = None
    with pytest.raises(BookError, match=r"13 lines .* differ in model; narrow them down"):
        sweep.curves(table, ["n"])


def test_page_of_a_sweep_by_hand():
    """Two seeds of two models and an undefined number: mean, smallest, largest, by attribute."""
    row = {"label": "mean", "group": "all", "metric": "auc", "attribute": "all"}
    values = {("a", 1): 0.5, ("a", 2): 0.7, ("b", 1): 0.6, ("b", 2): float("nan")}
    rows = [
        row | {"model": m, "p_seed": s, "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}
        for (m, s), v in values.items()
    ]
    rows += [r | {"attribute": "sex", "metric": "gap", "value": r["value"] - 1} for r in rows]
    table = pd.DataFrame(rows)
    table[["paper", "artefact", "protocol", "cohort", "method", "unit"]] = None
    found = sweep_page.over_the_grid(table, ["seed"])
    assert list(found) == ["all", "sex"] and found["all"].index.names == ["model"]
    assert found["all"]["auc"].to_dict() == {
        "a": "0.60 [0.50, 0.70]",
        "b": "0.60 [0.60, 0.60] in 1 of 2",
    }
    assert found["sex"]["gap"]["a"] == "−0.40 [−0.50, −0.30]" and "auc" not in found["sex"]
    alone = sweep_page.over_the_grid(table[table["p_seed"] == 1], ["seed"])
    assert alone["all"]["auc"]["a"] == "0.50 [0.40, 0.60]"  # of the run itself
    text = pd.DataFrame({"p_seed": [1, 2], "name": "in short", "text": ["<one>", "two"]})
    page = sweep_page.page("Sweep x", table, text, ["seed"])
    assert "&lt;one&gt;" in page and "<img" not in page and "over seeds" in page
    assert '0.60 <span class="cxr-whole">[0.50, 0.70]</span>' in page


def test_more_lines_than_a_plot_can_hold_still_make_a_page(swept, monkeypatch):
    _, folder, done, _ = swept
    sweep.report(folder, done, ["n_images", "how"])
    monkeypatch.setattr(sweep, "MOST_LINES", 1)
    said = sweep.report(folder, done, ["n_images", "how"])
    assert "no plot: 2 lines are more" in said and f"open {folder / 'page.html'}" in said
    assert "<img" not in (folder / "page.html").read_text()
    with pytest.raises(BookError, match="more than a plot can hold"):
        sweep.report(folder, done, ["n_images", "how"], "auc")


# --- profiles ---


@pytest.mark.parametrize("name", profiles.names())
def test_profiles_of_the_book_name_what_there_is(name):
    """Chapters and parameters that exist, values of their type and within their bounds."""
    profile = profiles.load(name, ROOT)
    assert profile.title
    for chapter in chapters(ROOT):
        for parameter, value in profile.values[chapter.name].items():
            chapter.parameters[parameter].parsed(value)  # or ValueError


@pytest.mark.parametrize("name", ["default", "phantom-full", "long-training"])
def test_profiles_without_files_pass_the_check_of_a_run(name):
    combined = profiles.combined([name], ROOT)
    values = parameters_of(chapters(ROOT), {}, combined)
    assert (name == "default") == (not any(values.values()))


def test_models_of_profiles_are_those_that_the_papers_studied():
    for paper, name, chapter in (
        ("S", "paper-s", "02_zero_shot"),
        ("X", "paper-x", "03_fine_tuning"),
    ):
        studied = {
            card["name"] for card in registry.cards().values() if paper in card["studied_in"]
        }
        profile = profiles.load(name, ROOT)
        assert set(profile.values[chapter]["models"].split(",")) == studied
        assert set(profile.needs["checkpoints"]) == studied


@pytest.fixture
def own(mini):
    """Writes a profile of one's own; returns its path."""

    def write(text, name="own.yaml"):
        (mini / name).write_text(text)
        return str(mini / name)

    return write


def test_given_wins_over_the_later_profile_over_the_earlier(mini, own):
    first = own("parameters: {n_images: 30, rate: 0.25, how: fancy}\nchapters: {'1': {rate: 0.3}}")
    second = own("title: second\nparameters: {n_images: 40}", "second.yaml")
    shared = profiles.combined([first, second], mini)
    assert parameters_of(chapters(mini), {"how": "plain"}, shared) == {
        "01_first": {"n_images": 40, "rate": 0.3},
        "02_zero_shot": {"n_images": 40, "rate": 0.25},
    }
    assert profiles.combined([second, first], mini)["01_first"]["n_images"] == 30
    with pytest.raises(BookError, match="unknown parameter 'hou'"):
        parameters_of(chapters(mini), {"hou": "plain"}, shared)
    with pytest.raises(BookError, match=r"n_images.*is not in"):
        parameters_of(chapters(mini), {"n_images": 1000}, shared)
    assert parameters_of(chapters(mini), {}, {}) == assign(chapters(mini), {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("titel: x", ["own.yaml", "unknown key 'titel'", "did you mean 'title'"]),
        ("needs: {gpus: true}", ["own.yaml, needs", "unknown key 'gpus'"]),
        ("parameters: {n_imags: 3}", ["own.yaml", "'n_imags'", "did you mean 'n_images'"]),
        ("chapters: {zeroshot: {rate: 0.1}}", ["own.yaml", "'zeroshot'", "zero_shot"]),
        ("chapters: {zero_shot: {rat: 0.1}}", ["own.yaml", "zero_shot", "did you mean 'rate'"]),
        ("parameters: [a]", ["own.yaml", "expected a dict"]),
        ("a: [", ["own.yaml is no YAML"]),
        ("", ["own.yaml", "expected a mapping"]),
    ],
)
def test_a_profile_with_a_mistake_is_refused_by_file_and_key(mini, own, text, words):
    with pytest.raises(BookError) as caught:
        profiles.combined([own(text)], mini)
    assert caught.value.code == 2 and "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_unknown_profile_names_the_nearest(mini):
    with pytest.raises(BookError, match="did you mean 'mimic'"):
        profiles.load("mimik", mini)
    with pytest.raises(BookError, match="no such file"):
        profiles.load("absent.yaml", mini)


def test_listing_says_what_profiles_need():
    said = profiles.listing(ROOT)
    assert said.startswith("default: ")
    assert "needs a GPU" in said and "the folder nih-cxr14 below CXRBOOK_DATA" in said
    assert "device=cuda  (chapters 03, 15)" in said
