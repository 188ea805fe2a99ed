"""What a process may show once it has loaded credentialed data, and what the scan finds."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

from cxrlib import guard, notebook, register, schema
from cxrlib.cohorts import Cohort


@pytest.fixture
def latched(monkeypatch):
    """As after a credentialed cohort was loaded, with nothing in its register."""
    monkeypatch.setattr(guard, "_protected", ["made-up"])
    monkeypatch.setattr(guard, "_registers", [])


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
    assert [line.split()[-2] for line in said.splitlines()[2:]] == [
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


def test_glued_counts_are_coarse(latched, capsys):
    for value in (7, np.int64(7), 12, 0, True, 0.7, "7 positive images of 12"):
        notebook.glue("key", value)
    said = [line.removeprefix("key: ") for line in capsys.readouterr().out.splitlines()]
    few = "fewer than 10"
    assert said == [few, few, "12", "0", "True", "0.7", f"{few} positive images of 12"]


def test_pictures_are_refused_and_heat_maps_are_not(latched):
    import matplotlib.pyplot as plt

    guard._refuse_pictures()
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
    [path] = (tmp_path / "derived" / "guard").iterdir()
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
        with pytest.raises(guard.GuardError) as caught:
            notebook.glue("key", text)
        assert "'key'" in str(caught.value) and max(text.split(), key=len) not in str(caught.value)
        own = register.Known.of(text)
        assert register.kinds(protected, text, own) <= {"identifier", "date"}


def test_register_holds_no_text(protected, tmp_path):
    [path] = (tmp_path / "derived" / "guard").iterdir()
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
