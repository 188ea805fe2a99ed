"""What a run leaves beside its notebook, named runs, and runs set beside one another."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cxrlib import cohorts, models, schema
from cxrlib.book import compare_runs, manifest, record, runs
from cxrlib.book.chapters import find
from cxrlib.book.run import run, tasks
from cxrlib.core import used
from cxrlib.core.errors import BookError
from cxrlib.papers import ledger
from tests.conftest import ROOT, write_book
from tests.test_manifest import crate

RESULTS = """
# %%
from cxrlib import cohorts, models, schema
from cxrlib.show.notebook import keep

cohort = cohorts.load("phantom", n_images=n_images)
models.load_model("phantom-resnet")
row = {"cohort": "phantom", "model": "a", "label": "mean", "attribute": "all", "group": "all"}
row |= {"metric": "auc", "value": rate, "ci_low": rate - 0.1, "ci_high": rate + 0.1}
keep(schema.results([row, row | {"label": "Edema", "value": rate + 0.01}]))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A miniature book whose first chapter keeps results, and a named run beside its own."""
    root = write_book(tmp_path_factory.mktemp("ran") / "mini")
    path = root / "chapters" / "01_first.py"
    path.write_text(path.read_text() + RESULTS)
    chosen = find(root, "1")
    [reference] = run(root, chosen)
    out = runs.place(root, "mine", chosen, {"rate": 0.75}, {})
    [mine] = run(root, chosen, {"rate": 0.75}, out, name="mine")
    return root, record.read(reference), record.read(mine)


def test_the_card_says_how_the_numbers_came_about(ran):
    _, reference, mine = ran
    card = mine.card
    assert card["parameters"] == {
        **{"n_images": 20, "rate": 0.75, "names": ["a", "b"], "quick": True, "how": "plain"}
    }
    assert (card["given"], card["name"], card["chapter"]) == (["rate"], "mine", "01_first")
    assert (reference.card["given"], reference.card["name"]) == ([], None)

    cohort, model = cohorts.load("phantom", n_images=20), models.load_model("phantom-resnet")
    about = {"name": "phantom", "access": "open", "fingerprint": cohort.fingerprint}
    assert card["cohorts"] == [about]
    [said] = card["models"]
    assert (said["weights"], said["protocol"]) == (model.weights, "corrected")
    file = ROOT / "cxrlib" / "models" / "weights" / "phantom-resnet.safetensors"
    assert said["weights"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert card["packages"]["numpy"] == np.__version__
    assert card["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (card["device"], card["gpu"], card["rows"]) == ("cpu", None, 2)
    said = 'Said: 20; 0.87 [0.84, 0.90]; It\'s "higher" than 0.;\nundefined. See {numref}`fig-01`.'
    assert card["said"] == {"paragraph 1": said}
    assert 0 < card["seconds"] < 600
    assert 100 < card["memory_mb"] < 10_000  # a kernel with torch in it
    assert len(card["code"]["library"]) == len(card["code"]["chapter"]) == 64


def test_the_manifest_says_it_to_others(ran):
    root, reference, mine = ran
    [(_, fine)] = manifest.verify(root, "mine")
    assert fine
    graph = crate(mine.notebook.parent)
    action = graph["#01_first"]
    assert action["description"] == "cxrbook run 01_first -p rate=0.75 --name mine"
    assert action["endTime"] == mine.card["date"]
    used = {graph[x["@id"]]["name"]: graph[x["@id"]] for x in action["object"]}
    lock = hashlib.sha256((root / "requirements.lock").read_bytes()).hexdigest()
    assert used["requirements.lock"]["sha256"] == lock
    assert used["rate"]["value"] == 0.75
    [cohort], [model] = mine.card["cohorts"], mine.card["models"]
    assert used["cohort phantom, open"]["identifier"] == cohort["fingerprint"]
    assert used["weights of phantom-resnet"]["identifier"] == model["weights"]
    assert graph["./"]["name"] == "Run mine"
    assert "rate" not in {x.get("name") for x in crate(reference.notebook.parent).values()}


def test_results_are_those_that_the_chapter_kept(ran):
    _, _, mine = ran
    assert list(mine.table.columns) == list(schema.COLUMNS)
    assert mine.table["value"].to_list() == [0.75, 0.76]
    _, table = record.beside(mine.notebook)
    pd.testing.assert_frame_equal(ledger.collect([table]), ledger.collect([mine.notebook]))


def test_a_chapter_without_results_leaves_an_empty_table(built):
    found = record.read(built / "book" / "chapters" / "02_zero_shot.ipynb")
    assert len(found.table) == 0 and list(found.table.columns) == list(schema.COLUMNS)
    assert found.card["rows"] == 0 and found.card["cohorts"] == []


def test_the_notebook_holds_nothing_of_the_card(ran):
    _, _, mine = ran
    text = mine.notebook.read_text()
    assert used.KIND not in text and "used.tell" not in text
    assert mine.card["date"] not in text


@pytest.mark.parametrize("part", ["json", "parquet"])
@pytest.mark.parametrize("damage", ["missing", "of another run", "cut off"])
def test_leftovers_of_another_run_are_not_mixed(ran, tmp_path, part, damage):
    _, reference, mine = ran
    for file in reference.notebook.parent.glob("01_first.*"):
        shutil.copy(file, tmp_path)
    notebook = tmp_path / "01_first.ipynb"
    assert record.key(notebook) == reference.card["key"]
    file = notebook.with_suffix(f".{part}")
    if damage == "missing":
        file.unlink()
    elif damage == "cut off":
        file.write_bytes(file.read_bytes()[:-30])
    else:
        shutil.copy(mine.notebook.with_suffix(f".{part}"), file)
    assert record.key(notebook) is None
    with pytest.raises(BookError, match="run the chapter again"):
        record.read(notebook)


def test_a_chapter_without_its_card_is_run_again(ran):
    root, _, mine = ran
    [task] = tasks(root, [(*find(root, "1"), {"rate": 0.75}, mine.notebook, "01_first")])
    assert task.fresh
    card = record.beside(mine.notebook)[0]
    elsewhere = card.rename(card.with_suffix(".away"))
    assert not task.fresh
    elsewhere.rename(card)


def test_what_must_not_be_shown_is_found_in_card_and_table(ran, monkeypatch, tmp_path):
    _, _, mine = ran
    notebook = json.loads(mine.notebook.read_text())
    assert record.hits(mine.card, mine.table, notebook, "x") == []
    card = mine.card | {"said": {"path": "/home/somebody/data"}}
    table = mine.table.assign(note="see /home/somebody/data")
    hits = [str(hit) for hit in record.hits(card, table, notebook, "x")]
    assert hits == ["x.json: machine path", "x.parquet: machine path"]


def test_code_is_named_by_its_revision(tmp_path):
    library = tmp_path / "lib"
    library.mkdir()
    (library / "cli.py").write_text("a = 1\n")
    assert record.git_state(library) == {"revision": None, "changed": None}

    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", tmp_path, *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    git("init")
    assert record.git_state(library)["revision"] is None  # not part of the repository
    git("add", ".")
    git("commit", "-m", "first")
    revision = git("rev-parse", "HEAD").strip()
    assert record.git_state(library) == {"revision": revision, "changed": False}
    (library / "new.py").write_text("b = 2\n")
    assert record.git_state(library) == {"revision": revision, "changed": True}


# --- runs set beside one another ---


def table(**changes):
    rows = [
        {"cohort": "phantom", "model": "a", "label": "x", "metric": "auc"}
        | {"value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "unit": "patient", "seed": 1},
        {"cohort": "phantom", "model": "b", "label": "x", "metric": "auc"}
        | {"value": 0.6, "ci_low": 0.55, "ci_high": 0.65, "unit": "patient", "seed": 1},
        {"cohort": "phantom", "model": "a", "label": "x", "metric": "gap", "value": float("nan")}
        | {"note": "no positives"},
    ]
    return schema.results([row | changes for row in rows])


def test_differences_by_hand():
    run = table(seed=2)
    run.loc[0, ["value", "ci_low", "ci_high"]] = [0.85, 0.75, 0.95]
    run.loc[1, ["value", "ci_low", "ci_high"]] = [0.58, 0.52, 0.54]
    extra = run.iloc[[0]].assign(model="c")
    found, notes = compare_runs.differences(table(), pd.concat([run, extra], ignore_index=True))
    assert notes == []
    rows = found.set_index(["model", "metric"])
    assert rows.loc[("a", "auc"), "difference"] == pytest.approx(0.05)
    assert rows.loc[("a", "auc"), "overlap"] == "yes"
    assert rows.loc[("b", "auc"), "difference"] == pytest.approx(-0.02)
    assert rows.loc[("b", "auc"), "overlap"] == "no"
    assert pd.isna(rows.loc[("a", "gap"), "difference"])
    assert rows.loc[("a", "gap"), "note"] == "reference: no positives; run: no positives"
    assert rows.loc[("a", "gap"), "overlap"] == ""
    assert rows.loc[("c", "auc"), "in"] == "run"
    # apart first, though its difference is smaller
    assert found["model"].to_list()[:2] == ["b", "a"]
    said = compare_runs.summary(found)
    assert said == (
        "3 numbers in both; 0 of them equal; intervals apart in 1 of 2; "
        "1 undefined in one of the two; 1 only in this run (model c)"
    )


def test_another_cohort_is_joined_and_said():
    found, notes = compare_runs.differences(table(), table(cohort="nih-cxr14"))
    assert (found["in"] == "both").all() and "cohort" not in found
    assert notes == ["cohort: phantom in the reference, nih-cxr14 in this run"]


def test_rows_that_nothing_tells_apart_are_paired_in_order():
    twice = pd.concat([table(), table().assign(value=0.75)], ignore_index=True)
    found, _ = compare_runs.differences(twice, twice)
    assert len(found) == len(twice) and (found["difference"].dropna() == 0).all()


def test_a_run_beside_the_book(ran):
    root, reference, mine = ran
    said = runs.beside_ours(root, mine.notebook)
    assert "2 numbers in both; 0 of them equal; intervals apart in 2 of 2" in said
    assert re.search(r"mean\s+0\.500 \[0\.400, 0\.600\] 0\.750 \[0\.650, 0\.850\]\s+\+0\.250", said)
    other = reference.card | {"code": mine.card["code"]}
    assert compare_runs.compare(reference._replace(card=other), mine).notes == []
    files = dict.fromkeys(mine.card["code"]["files"], "another")
    other = reference.card | {"code": mine.card["code"] | {"files": files}}
    found = compare_runs.compare(reference._replace(card=other), mine)
    assert found.notes == ["the reference was made by other code: run its chapter again to be sure"]


def test_texts_are_cut_to_where_they_begin_to_differ():
    common = "In this run the gap between women and men over all films is"
    pairs = [("fair", ""), (f"{common} 0.12, and so on.", f"{common} 0.14, and so on.")]
    found = compare_runs.excerpts(pd.DataFrame(pairs, columns=["reference", "run"]))
    assert found.to_numpy().tolist() == [
        ["fair", ""],
        ["…over all films is 0.12, and so on.", "…over all films is 0.14, and so on."],
    ]


def test_without_a_reference_it_says_how_to_make_one(ran, tmp_path):
    _, _, mine = ran
    said = runs.beside_ours(tmp_path, mine.notebook)
    assert "nothing to compare with: the book has not run this chapter yet" in said


def test_a_name_stands_for_one_set_of_parameters(ran):
    root, _, mine = ran
    chosen = find(root, "1")
    assert runs.place(root, "mine", chosen, {"rate": "0.75"}, {}) == mine.notebook.parent
    taken = r"other parameters \(rate=0.75\); choose another"
    with pytest.raises(BookError, match=taken) as caught:
        runs.place(root, "mine", chosen, {"rate": 0.6}, {})
    assert caught.value.code == 2 and "\n" not in str(caught.value)
    assert runs.place(root, "mine", chosen, {"rate": 0.6}, {}, replace=True)
    for name in ("a b", "../x", "", "-x", "x" * 41):
        with pytest.raises(BookError, match="expected one word"):
            runs.place(root, name, chosen, {}, {})


def test_the_page_shows_named_runs_and_their_tables(ran, tmp_path):
    root, _, _ = ran
    page = runs.page(root, tmp_path)
    assert "## mine, chapter 1" in page
    assert "Parameters that differ" in page and "0.75" in page
    assert "cxrbook run 01_first -p rate=0.75 --name mine" in page
    everything = pd.read_csv(tmp_path / "run-mine-01_first.csv")
    assert everything["difference"].to_list() == pytest.approx([0.25, 0.25])
    assert 'href="tables/run-mine-01_first.csv"' in page
    assert "There is none here yet" in runs.page(tmp_path, tmp_path)
    assert "mine" not in runs.page(root, tmp_path, shown=False).split("```")[2]


def test_the_page_leaves_out_what_must_not_be_shown(ran, tmp_path):
    root, _, _ = ran
    copy = tmp_path / "root"
    shutil.copytree(root / "_build", copy / "_build")
    path = copy / "_build" / "runs" / "mine" / "01_first.json"
    path.write_text(path.read_text().replace("0.87 [0.84, 0.90]", "/home/somebody/secret"))
    page = runs.page(copy, tmp_path)
    assert "Not shown: it holds what must not leave its folder (machine path)." in page
    assert "secret" not in page


def test_a_new_run_renders_the_page_again(ran):
    root, _, mine = ran
    before = runs.state(root)
    moved = mine.notebook.parent.rename(mine.notebook.parents[1] / "else")
    assert runs.state(root) != before
    moved.rename(mine.notebook.parent)
    assert runs.state(root) == before
