"""What a process may show once it has loaded credentialed data, and what the scan finds."""

import base64
import io
import itertools
import json
from functools import partial
from pathlib import Path

import mimic_tree
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.linalg import null_space
from scipy.optimize import linprog
from typer.testing import CliRunner

from cxrlib import cohorts, guard, schema
from cxrlib.book import manifest, scan
from cxrlib.book.chapters import chapters
from cxrlib.book.run import run
from cxrlib.cli import app
from cxrlib.cohorts.cohort import Cohort
from cxrlib.core.errors import BookError
from cxrlib.guard import latch, register
from cxrlib.show import notebook
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count
from cxrlib.stats import inference


@pytest.fixture
def latched(monkeypatch):
    """As after a credentialed cohort was loaded, with nothing in its register."""
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    monkeypatch.setattr(latch, "_registers", [])


# --- counts ------------------------------------------------------------------------------------

ATTRIBUTES = {"sex": 2, "age_group": 4, "race": 3}


def study(rng, labels=3, crossed=False, left_out=0):
    """Images with groups and labels, and the results rows that count them; some cells are small."""
    n = int(rng.integers(40, 400))
    images = pd.DataFrame(
        {
            a: rng.choice(k, n, p=rng.dirichlet(np.full(k, 0.7))).astype(str)
            for a, k in ATTRIBUTES.items()
        }
    )
    images.loc[: left_out - 1, "race"] = None
    if crossed:
        images["sex x race"] = images["sex"] + " x " + images["race"]
    for k in range(labels):
        images[f"label {k}"] = rng.random(n) < rng.choice([0.02, 0.1, 0.3])
    images["patient"] = rng.integers(0, n // 2, n)
    rows = []
    for k, attribute in itertools.product(range(labels), ["all", *images.columns.drop("patient")]):
        if attribute.startswith("label"):
            continue
        groups = images.assign(all="all").groupby(attribute)
        for group, part in groups:
            rows.append(
                {"label": f"label {k}", "attribute": attribute, "group": group}
                | {"metric": "auc", "value": 0.7312345, "ci_low": 0.6, "ci_high": 0.8}
                | {"n": len(part), "n_positive": int(part[f"label {k}"].sum())}
                | {"n_patients": part["patient"].nunique(), "model": "m", "cohort": "c"}
            )
    return images, pd.DataFrame(rows).assign(n_negative=lambda t: t["n"] - t["n_positive"])


def reach(true, shown):
    """Smallest and largest positive count of each row that fit to what is shown, by programs.

    A reader knows that positive and negative images add up to all of a group, whatever the
    label, and that the groups of an attribute (crossed ones of its halves too) are all images.
    """
    groups = list(dict.fromkeys(zip(true["attribute"], true["group"], strict=True)))
    labels = list(dict.fromkeys(true["label"]))
    name = {("n", None, g): i for i, g in enumerate(groups)}
    for kind, label, g in itertools.product(("n_positive", "n_negative"), labels, groups):
        name[kind, label, g] = len(name)
    equal, right = [], []

    def add(terms, value):
        line = np.zeros(len(name))
        for key, sign in terms:
            line[name[key]] += sign
        equal.append(line)
        right.append(value)

    for label, g in itertools.product(labels, groups):
        parts = [(("n_positive", label, g), 1), (("n_negative", label, g), 1)]
        add([*parts, (("n", None, g), -1)], 0)
    kinds = [("n", None), *itertools.product(("n_positive", "n_negative"), labels)]
    for kind, label in kinds:
        for attribute in dict.fromkeys(a for a, _ in groups if a != "all"):
            members = [g for g in groups if g[0] == attribute]
            add([*(((kind, label, g), 1) for g in members), ((kind, label, ("all", "all")), -1)], 0)
            for k, part in enumerate(attribute.split(" x ") if " x " in attribute else ()):
                for value in {g[1].split(" x ")[k] for g in members}:
                    mine = [g for g in members if g[1].split(" x ")[k] == value]
                    add(
                        [
                            *(((kind, label, g), 1) for g in mine),
                            ((kind, label, (part, value)), -1),
                        ],
                        0,
                    )
    for row in shown.to_dict("records"):
        g = (row["attribute"], row["group"])
        for kind in ("n", "n_positive", "n_negative"):
            if not pd.isna(row[kind]):
                add([((kind, None if kind == "n" else row["label"], g), 1)], row[kind])
    found = []
    for row in true.to_dict("records"):
        cost = np.zeros(len(name))
        cost[name["n_positive", row["label"], (row["attribute"], row["group"])]] = 1
        ends = [
            linprog(sign * cost, A_eq=np.array(equal), b_eq=right, bounds=(0, None), method="highs")
            for sign in (1, -1)
        ]
        found.append([ends[0].fun, np.inf if ends[1].status == 3 else -ends[1].fun])
    return np.array(found)


@pytest.mark.parametrize("seed", range(12))
def test_no_small_count_follows_from_what_is_shown(latched, seed):
    rng = np.random.default_rng(seed)
    _, true = study(rng, crossed=seed % 3 == 0)
    shown = schema.results(true)
    for column in guard.COUNTS:
        counts = shown[column].dropna()
        assert not ((counts > 0) & (counts < guard.MIN_CELL)).any()
    least, most = reach(true, shown).T
    small = true["n_positive"].between(1, guard.MIN_CELL - 1)
    assert small.any() and (most[small] >= guard.MIN_CELL - 1e-6).all()
    assert (least[small] < most[small]).all()
    assert shown["n_positive"].notna().any()


def test_suppressed_rows_lose_their_numbers_and_no_others(latched):
    sizes = {"F": 50, "M": 61, "all": 111}
    few = {"F": 4, "M": 30, "all": 34}
    rows = [
        {"label": label, "attribute": "all" if g == "all" else "sex", "group": g, "metric": metric}
        | {"value": 0.7312345, "ci_low": 0.6, "ci_high": 0.8, "model": "m", "n": sizes[g]}
        | {"n_positive": positive[g], "n_patients": sizes[g]}
        for label, positive in {"few": few, "many": {"F": 20, "M": 30, "all": 50}}.items()
        for metric in ("auc", "brier")
        for g in sizes
    ]
    rows += [rows[0] | {"group": "F - M", "n": 111, "n_positive": 34, "note": "4 images left out"}]
    shown = schema.results(rows)
    one = {c: schema.row(shown, label="few", metric="auc", group=c) for c in ("F", "M", "all")}
    assert one["F"][["value", "ci_low", "n_positive", "n_negative"]].isna().all()
    assert one["F"]["note"] == guard.SUPPRESSED and one["F"]["n"] == 50
    assert one["M"]["value"] == 0.731 and pd.isna(one["M"]["n_positive"])
    assert one["all"]["n_positive"] == 34 and one["all"]["value"] == 0.731
    assert pd.isna(schema.row(shown, label="few", metric="brier", group="M")["value"])
    gap = schema.row(shown, group="F - M")
    assert pd.isna(gap["value"]) and pd.isna(gap["n"]) and "4" not in gap["note"]
    many = shown[(shown["label"] == "many")]
    assert many["n_positive"].tolist() == [20, 30, 50] * 2 and many["value"].eq(0.731).all()
    pd.testing.assert_frame_equal(schema.results(shown), shown)  # nothing is left to do


def test_a_gap_that_has_no_rows_of_groups_is_suppressed_with_its_groups(latched):
    about = {"label": "all", "attribute": "sex", "value": 0.25, "n_positive": 0}
    groups = [("F", "accuracy", 8), ("M", "accuracy", 80), ("F - M", "accuracy", 88)]
    gap = ("F - M", "f1_gap_signed", 88)
    rows = [
        about | {"model": m, "group": g, "metric": metric, "n": n + more, "n_patients": n + more}
        for m, more in (("few", 0), ("enough", 20))
        for g, metric, n in (*groups, gap)
    ]
    shown = schema.results(rows).set_index(["model", "metric", "group"])
    assert np.isnan(shown.loc[("few", *gap[1::-1]), "value"])
    assert shown.loc[("few", *gap[1::-1]), "note"] == guard.SUPPRESSED
    assert shown.loc[("enough", *gap[1::-1]), "value"] == 0.25


def test_tests_of_gaps_do_not_tell_of_a_few_women(latched):
    """They show no rows of groups, from which `suppress` could see how small one is."""
    rng = np.random.default_rng(0)
    y, answer = rng.integers(3, size=(2, 128))
    sex = np.repeat(["F", "M"], [8, 120])
    about = {"image_id": np.arange(128).astype(str), "patient_id": np.arange(128).astype(str)}
    about |= {"cohort": "c", "model": "m", "method": "zero-shot", "sex": sex}
    rows = [
        pd.DataFrame(
            about | {"label": f"d{k}", "y_true": (y == k) * 1, "score": (answer == k) * 1.0}
        )
        for k in range(3)
    ]
    options = {"n_permutations": 20, "n_resamples": 20}
    few = inference.multiclass_gap_tests(pd.concat(rows), {"sex": [("F", "M")]}, **options)
    assert len(few) == 8 and few[["value", "ci_low", "floor_p95", "p_value"]].isna().all(axis=None)
    assert few["note"].eq(guard.SUPPRESSED).all()
    more = pd.concat(rows).assign(sex=np.tile(np.repeat(["F", "M"], [60, 68]), 3))
    enough = inference.multiclass_gap_tests(more, {"sex": [("F", "M")]}, **options)
    assert enough[["value", "floor_p95", "p_value"]].notna().all(axis=None)


def test_without_credentialed_data_nothing_changes():
    _, table = study(np.random.default_rng(0))
    assert guard.suppress(table) is table
    shown = schema.results(table)
    assert shown["n_positive"].tolist() == table["n_positive"].tolist()
    assert shown["value"].eq(0.7312345).all()


def test_images_without_group_are_a_small_count_too(latched):
    _, true = study(np.random.default_rng(3), left_out=4)
    shown = schema.results(true)
    of_race = shown[shown["attribute"] == "race"]
    total = shown[shown["attribute"] == "all"].set_index("label")["n"]
    for label, rows in of_race.groupby("label"):
        rest = total[label] - rows["n"].sum()
        assert rest == 0 or rest >= guard.MIN_CELL


TABLE = pd.DataFrame(
    {
        "attribute": ["sex", "sex", "race", "race", "race"],
        "group": ["F", "M", "White", "Black", "Asian"],
        "images": [40, 60, 70, 22, 8],
        "share": [0.1, 0.2, 0.3, 0.4, 0.5],
    }
)


def test_any_table_can_be_suppressed(latched):
    out = guard.suppress(TABLE, by=["attribute"])
    assert out["images"].tolist()[:3] == [40, 60, 70] and out["images"][3:].isna().all()
    assert out["share"].tolist()[:3] == [0.1, 0.2, 0.3] and out["share"][3:].isna().all()
    assert TABLE["images"].tolist() == [40, 60, 70, 22, 8]  # the argument stays


def test_shown_tables_say_what_is_small_and_what_is_hidden(latched, capsys):
    notebook.show(TABLE)
    said = capsys.readouterr().out
    assert [line.split()[-2] for line in said.splitlines()[1:-1]] == [
        "40",
        "60",
        "70",
        "hidden",
        "<10",
    ]
    notebook.show(TABLE.assign(images=[3, 4, 5, 6, 7]), counts=())
    assert "<10" not in capsys.readouterr().out
    crossed = pd.DataFrame(
        {"F": ["12 (10 %)", "40"], "M": ["3 (2 %)", "50"]}, index=["old", "young"]
    )
    shown = guard.presentable(crossed)
    assert shown.loc["old", "M"] == "<10" and "hidden" in shown.to_numpy()
    assert "12 (10 %)" not in shown.to_numpy()
    undefined = pd.DataFrame({"group": ["a", None], "positives": [4, 30], "gap": [0.1, np.nan]})
    assert guard.presentable(undefined)["positives"].tolist() == ["<10", "hidden"]


@pytest.mark.parametrize("rows, columns", [(2, 2), (2, 3), (3, 3), (4, 2)])
def test_no_small_count_of_a_crosstab_follows_from_its_margins(latched, rows, columns):
    rng = np.random.default_rng([rows, columns])
    cell = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    sums = np.zeros((rows + columns + 2, cell.size))  # each row and column adds up to its last cell
    for line, of in zip(sums, [*cell, *cell.T], strict=True):
        line[of[:-1]], line[of[-1]] = 1, -1
    for _ in range(60):
        counts = rng.integers(0, 25, (rows, columns))
        counts = np.vstack([counts, counts.sum(0)])
        counts = np.hstack([counts, counts.sum(1, keepdims=True)])
        table = pd.DataFrame(counts, columns=[*(f"c{k}" for k in range(columns)), "all"])
        table.insert(0, "group", [*(f"g{k}" for k in range(rows)), "all"])
        shown = guard.presentable(table).drop(columns="group").to_numpy(object).ravel()
        hidden = np.array([isinstance(x, str) for x in shown])
        small = (counts.ravel() > 0) & (counts.ravel() < guard.MIN_CELL)
        assert hidden[small].all()
        if hidden.any():  # what is free to vary while all that is shown stays the same
            free = np.abs(null_space(sums[:, hidden])).max(axis=1, initial=0) > 1e-9
            assert free[small[hidden]].all()


def test_a_flow_shows_no_step_that_leaves_out_a_few(latched):
    steps = pd.DataFrame({"step": list("abcde"), "images": [900, 897, 700, 695, 650]})
    shown = guard.presentable(steps)["images"].tolist()
    assert shown == [900, "hidden", 700, "hidden", 650]


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"image_id": ["a"], "sex": ["F"]}),
        pd.DataFrame({"n": [30]}, index=pd.Index(["x"], name="patient_id")),
        pd.DataFrame({"age": [51.0, 32.5], "sex": ["F", "M"]}),
        pd.DataFrame({"StudyDate": ["x"], "n": [30]}),
    ],
)
def test_tables_of_single_images_are_refused(latched, table):
    with pytest.raises(guard.GuardError, match=r"image_id|patient_id|age|StudyDate"):
        notebook.show(table)


def test_counts_that_are_said_are_coarse(latched, capsys):
    for n in (7, np.int64(7), 12, 0):
        say(f"{count(n)} of them")
    say("7 positive images of 12")
    few = "fewer than 10"
    said = [f"{n} of them" for n in (few, few, 12, 0)] + [f"{few} positive images of 12"]
    assert capsys.readouterr().out.split("\n\n") == [*said, ""]


def test_pictures_are_refused_and_heat_maps_are_not(latched):
    import matplotlib.pyplot as plt

    latch._look_at_figures()
    axis = plt.figure().subplots()
    axis.imshow(np.zeros((8, 8)))
    with pytest.raises(guard.GuardError, match="withheld"):
        axis.imshow(np.zeros((64, 64)))
    plt.close("all")


# --- the register ------------------------------------------------------------------------------

REPORTS = [
    "Heart size is normal. No focal consolidation, effusion or pneumothorax is seen today.",
    "Seen by Quellfarthing, the lungs are clear and the mediastinal contours are unremarkable.",
]


def made_up(folder):
    table = pd.DataFrame(
        {
            "image_id": ["0a1b2c3d-00000001-00000002-00000003-00000004", "film-of-ward-77"],
            "patient_id": [19_876_543, 12],
            "study_date": ["2187-03-04", "2150-12-24"],
            "report": REPORTS,
        }
    )
    flow = pd.DataFrame({"step": ["all"], "images": [2], "patients": [2]})
    return Cohort("made-up", table, (), "credentialed", {}, flow, keep=folder)


@pytest.fixture
def protected(latched, tmp_path):
    cohort = made_up(tmp_path / "derived")
    guard.protect(cohort)
    [path] = (tmp_path / "derived" / register.FOLDER).iterdir()
    assert path.stem == cohort.fingerprint
    return register.load(path)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("patient p19876543", {"identifier"}),
        ("[19876543.0, 3]", {"identifier"}),
        ("0A1B2C3D-00000001-00000002-00000003-00000004.jpg", {"identifier"}),
        ("on 2187-03-04", {"date"}),
        ("in 21501224", {"date"}),
        ("...no FOCAL\nconsolidation; effusion or pneumothorax is", {"report text"}),
        ("Dr. Quellfarthing", {"report text"}),
        ("no focal consolidation was seen", set()),
        ("12 patients and 19876544 others", set()),
    ],
)
def test_register_finds_what_was_in_the_cohort(protected, text, kinds):
    assert register.kinds(protected, text) == kinds
    if kinds:
        for way in (say, partial(in_short, figure="fig-a")):
            with pytest.raises(guard.GuardError) as caught:
                way(text)
            refusal = str(caught.value)
            assert "say" in refusal and max(text.split(), key=len) not in refusal
        own = register.Known.of(text)
        assert register.kinds(protected, text, own) <= {"identifier", "date"}


def test_register_holds_no_text(protected, tmp_path):
    [path] = (tmp_path / "derived" / register.FOLDER).iterdir()
    raw = path.read_bytes().lower()
    for word in (b"19876543", b"quellfarthing", b"0a1b2c3d", b"2187"):
        assert word not in raw


def test_where_credentialed_results_may_not_stay(latched, tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(guard.GuardError, match="git working tree"):
        guard.protect(made_up(tmp_path / "data" / "derived"))
    with pytest.raises(guard.GuardError, match="keep"):
        guard.protect(made_up(None))
    assert guard.active() and not (tmp_path / "data").exists()


# --- the scan ----------------------------------------------------------------------------------

LEAKY = """# %% tags=["parameters"]
data: str = "phantom"  # a cohort

# %%
import base64, io, os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, display
from PIL import Image

from cxrlib import cohorts

cohort = cohorts.load(data)
film = cohort.images(np.array([0]))[0]
root = Path(os.environ["CXRBOOK_DATA"]) / "mimic-cxr"

# %%
print(cohort.table["image_id"].iloc[0])
os.write(1, cohort.table["image_id"].iloc[0].encode())

# %%
f"{cohort.table['study_id'].iloc[1]}: {cohort.table['patient_id'].iloc[1]}"

# %%
print(cohort.table["report"].iloc[2][-80:])

# %%
days = pd.read_csv(next(root.rglob("*metadata*")))["StudyDate"].tolist()
display({"application/json": {"when": days}}, raw=True)

# %%
print(cohort.films["file"].iloc[0].split("/")[-1][:8] + "x.jpg")

# %%
display(Image.fromarray(film[::-1]))

# %%
file = io.BytesIO()
Image.fromarray(film).save(file, "JPEG")
HTML(f'<img alt="x" src="data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}">')

# %%
print("from", root)

# %%
HTML('<table class="dataframe"><tr><td>F</td><td>51</td></tr></table>')
"""
FOUND = [  # the second cell holds the values of parameters
    *("4: identifier", "5: identifier", "6: report text", "7: date", "8: file name"),
    "7: numbers of single images",
    *("9: image", "10: image", "11: machine path", "12: row-level table"),
]
FAILING = (
    LEAKY.split("# %%\nprint(cohort")[0] + "# %%\ncohort.table.to_csv('rows.csv')\n"
    "raise ValueError(cohort.table['image_id'][0])"
)
REFUSED = LEAKY.split("# %%\nprint(cohort")[0] + (
    "# %%\nfrom cxrlib.show.notebook import show\n\nshow(cohort.table.head())\n"
)
CLEAN = LEAKY.split("# %%\nprint(cohort")[0] + (
    "# %%\nfrom cxrlib.show.notebook import withheld\nfrom cxrlib.show.say import say\n\n"
    "say(f'{len(cohort.table)} films')\n"
    "withheld('films')\n\n# %%\ncohort.table.groupby('race')[['sex']].count()\n"
)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A data folder with a made-up MIMIC-CXR, and what was planted in it."""
    folder = tmp_path_factory.mktemp("data")
    return folder, mimic_tree.write(folder / "mimic-cxr", n_images=40, per_cell=0)["canaries"]


def book_of(root, **sources):
    (root / "chapters").mkdir(parents=True)
    (root / "requirements.lock").write_text("")
    for name, source in sources.items():
        (root / "chapters" / f"{name[1:]}.py").write_text(source)
    return root


def canaries_in(text, canaries):
    words = [canaries["name"], canaries["sentence"], *canaries["subjects"], *canaries["studies"]]
    words += [
        *canaries["dicoms"],
        *canaries["dates"],
        *(d.replace("-", "") for d in canaries["dates"]),
    ]
    return [word for word in words if word in text]


def test_leaks_stop_a_chapter_and_tell_no_value(tmp_path, planted, monkeypatch, capfd):
    data, canaries = planted
    monkeypatch.setenv("CXRBOOK_DATA", str(data))
    root = book_of(tmp_path / "book", _01_leaky=LEAKY, _02_failing=FAILING, _03_refused=REFUSED)
    with pytest.raises(BookError) as caught:
        run(root, chapters(root), {"data": "mimic"})
    leaky, failing, refused = (
        str(caught.value).splitlines()[-1:] + str(caught.value).splitlines()[:2]
    )
    for what in FOUND:
        assert f"01_leaky.ipynb, cell {what}" in leaky
    assert leaky.count("cell") == len(FOUND) and leaky.startswith("not kept")
    assert (
        "02_failing, cell 3 of 3" in failing
        and "failed: ValueError: its text is withheld" in failing
    )
    assert "no traceback is kept" in failing
    assert not (root / "rows.csv").exists() and (data / "derived/refused/rows.csv").is_file()
    assert "03_refused" in refused and "GuardError: table: column 'image_id'" in refused
    seen = str(caught.value) + "".join(capfd.readouterr())
    written = [p for p in root.rglob("*") if p.is_file() and p.suffix != ".py"]
    assert not [p for p in written if p.suffix == ".ipynb" and p.parent.name != "failed"]
    for text in [seen, *(p.read_text() for p in written)]:
        assert canaries_in(text, canaries) == []


def test_aggregates_are_kept(tmp_path, planted, monkeypatch):
    monkeypatch.setenv("CXRBOOK_DATA", str(planted[0]))
    root = book_of(tmp_path / "book", _01_clean=CLEAN)
    [path] = run(root, chapters(root), {"data": "mimic"})
    assert path.is_relative_to(root / "_build" / "runs")
    text = path.read_text()
    assert "Not shown: films" in text and "cxr-table" in text and 'class="dataframe"' not in text
    assert canaries_in(text, planted[1]) == []
    assert scan.notebook(json.loads(text), path.name) == []
    about = (path.parent / manifest.FILE).read_text()  # has nothing that its card has not
    assert "cohort mimic" in about and "-p data=mimic" in about
    assert canaries_in(about, planted[1]) == [] and str(tmp_path) not in about
    assert scan.text_kinds(about, scan.watch(True)) == set()
    assert all(fine for _, fine in manifest.verify(root, str(path.parent)))
    monkeypatch.delenv("CXRBOOK_DATA")
    assert "no register" in scan.notebook(json.loads(text), path.name)[0].kind


def test_results_of_one_chapter_are_no_leftovers_of_another(tmp_path, planted, monkeypatch):
    """Also where the run is kept in the project's folder."""
    monkeypatch.setenv("CXRBOOK_DATA", str(planted[0]))
    few = CLEAN.replace("data: str", "few: int = 3\ndata: str")  # which stands on its card
    longer = CLEAN + "\n# %%\nimport time\n\ntime.sleep(4)\n"
    root = book_of(tmp_path / "book", _01_few=few, _02_longer=longer)
    first, _ = run(root, chapters(root), {"data": "mimic"}, root / "results")
    assert first.with_suffix(".json").is_file()


def page(*outputs, source="1"):
    """A notebook of one cell."""
    cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": list(outputs)}
    return {"cells": [cell], "metadata": {}}


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def test_machine_paths_and_user_names_are_found_in_open_runs_too(monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "zyxwomina")
    monkeypatch.setenv("HOME", "/srv/home")
    monkeypatch.setenv("CXRBOOK_CACHE", "/srv/of-mine")
    for text, kinds in {
        f"in {Path.home()}/data": ["machine path"],
        f"File {scan.LIBRARY}/run.py": ["machine path"],
        "see /srv/of-mine/a.npy": ["machine path"],
        "see /home/someone/x": ["machine path"],
        r"C:\Users\someone": ["machine path"],
        "by zyxwomina.": ["user name"],
        "zyxwominas, 3/home and a/tmp": [],
    }.items():
        assert [hit.kind for hit in scan.notebook(page(stream(text)), "a.ipynb", {})] == kinds
    monkeypatch.setattr("getpass.getuser", lambda: "runner")
    assert scan.notebook(page(stream("the runner")), "a.ipynb", {}) == []


def test_paths_in_parameters_are_refused_before_anything_runs(tmp_path):
    source = '# %% tags=["parameters"]\noptions: dict = {}  # any\n'
    root = book_of(tmp_path / "book", _01_a=source)
    for value in ("{'root': '/data/mimic'}", "{'root': '~/mimic'}"):
        with pytest.raises(BookError, match="'options' holds a path") as caught:
            run(root, chapters(root), {"options": value})
        assert caught.value.code == 2 and "mimic" not in str(caught.value)


def png(draw):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(4, 3), dpi=120)
    draw(axis)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return file.getvalue()


def test_films_are_told_from_charts():
    films = cohorts.load("phantom", n_images=4, seed=3, size=96).images(np.arange(4))
    rng = np.random.default_rng(0)
    points, heat = rng.normal(size=(2, 300)), rng.random((20, 20))
    for film in films:
        for options in ({"cmap": "gray"}, {"cmap": "viridis"}, {"interpolation": "nearest"}):
            assert scan.photographic(png(lambda axis, f=film, o=options: axis.imshow(f, **o)))
        small = io.BytesIO()
        Image.fromarray(film).resize((64, 64)).save(small, "JPEG", quality=50)
        assert scan.photographic(small.getvalue())
    for draw in (
        lambda axis: axis.plot(np.sort(points[0])),
        lambda axis: axis.fill_between(np.arange(300), points[0], alpha=0.2),
        lambda axis: axis.hexbin(*points, gridsize=20),
        lambda axis: axis.figure.colorbar(axis.imshow(heat)),
        lambda axis: axis.bar(np.arange(40), rng.random(40)),
    ):
        assert not scan.photographic(png(draw))


def test_pictures_in_pages_of_a_guarded_chapter_are_found(tmp_path):
    [film] = cohorts.load("phantom", n_images=1, seed=3, size=96).images(np.arange(1))
    shown = png(lambda axis: axis.imshow(film))
    picture = {
        "output_type": "display_data",
        "data": {"image/png": base64.b64encode(shown).decode()},
    }
    (tmp_path / "_sources").mkdir()
    (tmp_path / "_images").mkdir()
    (tmp_path / "_images" / "a.png").write_bytes(shown)
    for name, sources in {"open": "data = 'phantom'", "guarded": "data = 'mimic'"}.items():
        outputs = [picture] if name == "open" else []
        text = json.dumps(page(*outputs, source=sources))
        (tmp_path / "_sources" / f"{name}.ipynb").write_text(text)
    (tmp_path / "guarded.html").write_text("<p>study s51234567</p>")
    (tmp_path / "open.html").write_text("<p>study s51234567</p>")
    one = {"any": register.Register(*7 * [np.empty(0, np.uint64)])}
    assert list(map(str, scan.folder(tmp_path, one))) == ["guarded.html: identifier"]
    (tmp_path / "_images" / "b.png").write_bytes(png(lambda axis: axis.imshow(film[::-1])))
    assert "_images/b.png: image" in map(str, scan.folder(tmp_path, one))


def test_scan_by_hand(tmp_path):
    table = pd.DataFrame({"label": ["a"], "n": [40], "n_positive": [3]})
    table.to_csv(tmp_path / "results.csv")
    table.assign(image_id="x", n_positive=30).to_parquet(tmp_path / "rows.parquet")
    runner = CliRunner()
    good = tmp_path / "good.ipynb"
    good.write_text(json.dumps(page(stream("0.87"))))
    done = runner.invoke(app, ["scan", str(good)])
    assert done.exit_code == 0 and "nothing" in done.output
    done = runner.invoke(app, ["scan", str(good), str(tmp_path)])
    assert isinstance(done.exception, BookError) and "2" in str(done.exception)
    assert (
        "results.csv: small count" in done.output and "rows.parquet: row-level table" in done.output
    )


@pytest.mark.parametrize(
    ("n", "m", "words"),
    [
        (38, 60, "38 of 60 films"),
        (0, 60, "0 of 60 films"),
        (60, 60, "all 60 films"),
        (51, 60, "all but fewer than 10 of 60 films"),
        (50, 60, "50 of 60 films"),
        (9, 60, "fewer than 10 of 60 films"),
        (3, 5, "some of fewer than 10 films"),
        (5, 5, "all, fewer than 10 films"),
        (12_000, 65_379, "12,000 of 65,379 films"),
    ],
)
def test_how_many_of_how_many_counts_no_small_group(n, m, words):
    assert guard.n_of_m(n, m, "films") == words


def test_no_step_of_a_curve_is_a_single_film():
    rng = np.random.default_rng(0)
    y, score = (rng.random(500) < 0.2).astype(int), rng.normal(size=500)
    block = guard.in_blocks(y, score)
    sizes = pd.crosstab(block, y)
    assert len(sizes) > 5 and sizes.to_numpy().min() >= guard.MIN_CELL
    order = np.argsort(score)
    assert (np.diff(block[order]) >= 0).all()
    assert set(guard.in_blocks(y[:20], score[:20])) == {0}


# --- reliability curves ------------------------------------------------------------------------


def test_bins_and_extremes_of_protected_films(monkeypatch):
    about = {"model": "m", "method": "zero-shot", "label": "Edema"}
    numbers = dict.fromkeys(("predicted", "observed", "ci_low", "ci_high"), 0.5)
    curve = pd.DataFrame({"n": [60, 12, 50], "n_positive": [30, 3, 20], "n_patients": [60, 12, 50]})
    curve = curve.assign(**about, **numbers)
    values = pd.Series(np.arange(30.0))
    assert guard.bins(curve)["n_negative"].tolist() == [30, 9, 30]
    assert guard.extremes(values).tolist() == [0, 29]
    monkeypatch.setattr(latch, "_protected", ["made-up"])
    kept = guard.bins(curve)
    assert 12 not in kept["n"].tolist() and len(kept) < 3
    assert guard.extremes(values).tolist() == [4.5, 24.5]
