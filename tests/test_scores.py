"""Models that are files: scores from anywhere, and vectors, through the audit of the book."""

import runpy
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxrlib import cohorts, guard, schema
from cxrlib.book.chapters import find
from cxrlib.book.run import run
from cxrlib.cohorts import phantom
from cxrlib.cohorts.metadata import S_FINDINGS
from cxrlib.core.errors import BookError, Lacks
from cxrlib.embed import extract
from cxrlib.models import check_files, choose_models, load_model, load_models, model_card
from cxrlib.models import scores as files_of_scores
from cxrlib.predict import precomputed, zeroshot
from cxrlib.show import notebook
from tests.conftest import ROOT, at

MODEL, N = "phantom-vit", 300


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory):
    """A folder of checkpoints for this file, and no memory of it elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXRBOOK_CHECKPOINTS", str(tmp_path_factory.mktemp("checkpoints")))
        patch.setenv("CXRBOOK_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("CXRBOOK_PLACES", "{}")
        yield


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom", n_images=N)


@pytest.fixture(scope="module")
def folder(cohort, tmp_path_factory):
    """``own.csv``: an encoder's own predictions, of test and validation, by both readings."""
    folder = tmp_path_factory.mktemp("scores")
    valid = cohorts.load("phantom", n_images=N // 2, split="valid")
    # asked as chapter 7 does: with other findings beside them, last digits may differ
    asked = (S_FINDINGS, sorted(set(cohort.findings).difference(S_FINDINGS)))
    both = [zeroshot.both_readings(c, [MODEL], f) for c in (cohort, valid) for f in asked]
    table = pd.concat(both).rename(columns={"label": "finding"})
    table = table[["image_id", "finding", "method", "score"]]
    table.to_csv(folder / "own.csv", index=False)
    learned = table[table["method"] == "learned scale"].drop(columns="method")
    learned.to_csv(folder / "plain.csv", index=False)
    return folder


@pytest.fixture
def plain(folder):
    """The rows of a file without a method, to be changed."""
    return pd.read_csv(folder / "plain.csv")


def loaded(table, tmp_path, name="some.csv"):
    """The model of a changed table."""
    path = tmp_path / name
    table.to_parquet(path) if path.suffix == ".parquet" else table.to_csv(path, index=False)
    return files_of_scores.load(f"scores:{path}")


def said(monkeypatch):
    """What is shown in boxes on the page, collected."""
    texts = []
    monkeypatch.setattr(precomputed, "displayed", lambda page, text: texts.append(text))
    return texts


# --- the same tables, value by value ---


@pytest.mark.parametrize(
    "number, more, tables",
    [
        ("04", {"n_permutations": 10}, 1),
        ("06", {"n_twins": 60}, 1),
        ("07", {}, 1),
    ],
)
def test_a_chapter_gives_the_encoders_tables(folder, monkeypatch, number, more, tables):
    monkeypatch.chdir(ROOT)
    kept = []
    monkeypatch.setattr(notebook, "keep", kept.append)
    models = f"{MODEL},scores:{folder / 'own.csv'}"
    given = {"models": models, "n_images": N, "n_resamples": 10} | more
    executed(number, given, monkeypatch)
    assert len(kept) == tables
    for table in kept:
        table = schema.results(table)
        own = table["model"] == MODEL
        expected, found = (
            t.drop(columns="model").reset_index(drop=True) for t in (table[own], table[~own])
        )
        assert set(table["model"]) == {MODEL, "scores:own.csv"}
        assert len(expected) and expected["value"].notna().any()
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def executed(number, given, monkeypatch):
    """The names of a chapter that ran as a script in this process."""
    [chapter] = find(ROOT, number)
    arguments = [x for name, value in given.items() for x in ("-p", f"{name}={value}")]
    monkeypatch.setattr(sys, "argv", [str(chapter.path), *arguments])
    return runpy.run_path(str(chapter.path), run_name="__main__")


def test_scores_survive_the_way_through_a_file(cohort, folder, tmp_path):
    expected = zeroshot.predict(cohort, [MODEL], cohort.findings)
    table = expected.rename(columns={"label": "finding"})[["image_id", "finding", "score"]]
    for name in ("some.csv", "some.parquet"):
        model = loaded(table.sample(frac=1, random_state=0), tmp_path, name)
        found = zeroshot.predict(cohort, [model], cohort.findings)
        assert (found["score"] == expected["score"]).all()
        assert set(found["method"]) == {"scores"} and set(found["model"]) == {f"scores:{name}"}
    assert model.fingerprint != load_model(f"scores:{folder / 'plain.csv'}").fingerprint


def test_a_file_is_named_without_its_folder_and_has_a_card(folder):
    assert choose_models(f"scores:{folder / 'own.csv'},{MODEL}") == ["scores:own.csv", MODEL]
    check_files("scores:own.csv")
    one = load_models(f"scores:own.csv,{MODEL}")[0]
    assert one.card == model_card("scores:own.csv")
    assert not one.card["sources_complete"] and one.members == (one,)
    assert "00000" not in repr(one)


# --- files that are not right ---


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda t: t[["image_id"]].assign(Edema=0.1), "column 'finding' is missing.*pandas.melt"),
        (lambda t: t.iloc[:0], "no row below"),
        (lambda t: pd.concat([t, t.iloc[3:5]]), "rows repeat the image_id and finding.* 2 of 3152"),
        (
            at(3, "score", ""),
            r"'score' is empty.* in 1 of 3150 rows \(line 5\); write.*leave out rows",
        ),
        (at(3, "score", "nan"), r"'score' is empty, NaN.*line 5"),
        (at(0, "score", "inf"), r"'score' is .*infinite.*line 2"),
        (at(0, "score", "0,5"), r"'score' is .*no number.*line 2"),
        (at(9, "finding", " "), "column 'finding' is empty in 1 of 3150"),
        (at(9, "image_id", ""), "column 'image_id' is empty"),
        (lambda t: t.assign(score=0.4), "'score' is the same in all rows"),
        (lambda t: t.assign(method=["a", "b"] * 1575), "'method' has 2 entries, and a file is one"),
        (lambda t: t.assign(score=t["score"] > 0.5), "'score' is .*yes and no as 1 and 0"),
        (lambda t: t.set_axis(t.iloc[0].astype(str), axis=1), "first line does not name columns"),
        (
            lambda t: t.set_axis(["image_id", "score", "score"], axis=1).assign(finding="Edema"),
            "two ",
        ),
    ],
)
def test_a_wrong_file_gets_one_line_without_an_entry(plain, tmp_path, edit, words):
    with pytest.raises(ValueError, match=words) as caught:
        loaded(edit(plain), tmp_path)
    assert "\n" not in str(caught.value) and "0000" not in str(caught.value)


@pytest.mark.parametrize(
    "write, words",
    [
        ({"sep": ";"}, "its columns are separated by ';', expected commas"),
        ({"sep": ";", "decimal": ","}, "by ';', expected commas.*decimal point"),
        ({"sep": "\t"}, r"its columns are separated by '\\t'"),
        ({"sep": ",", "encoding": "utf-16"}, "as CSV with commas in UTF-8"),
    ],
)
def test_other_kinds_of_csv(plain, tmp_path, write, words):
    plain.to_csv(tmp_path / "some.csv", index=False, **write)
    with pytest.raises(ValueError, match=words):
        files_of_scores.load(f"scores:{tmp_path / 'some.csv'}")


def test_rows_that_are_longer_than_the_header(plain, tmp_path):
    rows = plain.head(5).to_csv(index=False, header=False).replace("0.", "0,")
    (tmp_path / "some.csv").write_text(f"image_id,finding,score\n{rows}")
    with pytest.raises(
        ValueError, match=r"rows have more entries than the first line.*decimal point"
    ):
        files_of_scores.load(f"scores:{tmp_path / 'some.csv'}")


def test_parquet_is_known_by_its_content_and_types_of_any_program(plain, tmp_path):
    text = {"image_id": "category", "finding": "category"}
    for name, table in (
        ("a.PARQUET", plain.astype(text)),
        ("b.csv", plain.convert_dtypes()),
        ("c.pq", plain.convert_dtypes(dtype_backend="pyarrow")),
        ("d.parquet", plain.set_index(["image_id", "finding"])),
    ):
        table.to_parquet(tmp_path / name)
        found = files_of_scores.load(f"scores:{tmp_path / name}").table
        pd.testing.assert_frame_equal(found[plain.columns], plain, check_dtype=False)
    plain.assign(score=pd.Timestamp("2025-01-01")).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(ValueError, match=r"of type datetime.*expected numbers"):
        files_of_scores.load(f"scores:{tmp_path / 'e.parquet'}")


def test_a_path_with_a_comma_is_told_why():
    with pytest.raises(ValueError, match="so no path may have one"):
        choose_models("scores:a,b/c.csv")


def test_files_that_are_none(tmp_path):
    for name, text in (("no.csv", None), ("cut.parquet", "PAR1"), ("latin.csv", b"image_id,\xe9")):
        if text:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ValueError, match=r"no such file|not read as|is missing"):
            files_of_scores.load(f"scores:{tmp_path / name}")


# --- scores that do not fit the cohort ---


def test_missing_films_go_for_every_model_and_are_counted(cohort, plain, tmp_path, monkeypatch):
    told = said(monkeypatch)
    without = set(cohort.table["image_id"][10:30])
    model = loaded(plain[~plain["image_id"].isin(without)], tmp_path)
    part = precomputed.answerable(cohort, [model, load_model(MODEL)])
    assert part.name == "phantom (part)" and len(part.table) == N - 20
    assert part.flow["images"].tolist()[-1] == N - 20
    assert "has no answer for 20 of 300 films" in told[0]
    kept = np.flatnonzero(~cohort.table["image_id"].isin(without))
    assert np.array_equal(part.images([15]), cohort.images(kept[[15]]))
    both = zeroshot.predict(part, [model, MODEL], part.findings)
    counts = both.groupby("model")["image_id"].nunique()
    assert counts.tolist() == [N - 20, N - 20]
    with pytest.raises(Lacks, match="no score of Atelectasis for 20 of 300 films"):
        zeroshot.predict(cohort, [model], ["Atelectasis"])


def test_a_film_wants_a_score_of_each_finding_of_its_file(cohort, plain, tmp_path, monkeypatch):
    told = said(monkeypatch)
    here = plain[plain["image_id"].isin(cohort.table["image_id"])]
    part = precomputed.answerable(cohort, [loaded(here.drop(here.index[0]), tmp_path)])
    assert len(part.table) == N - 1
    one = loaded(here[here["finding"] == "Edema"], tmp_path, "edema.csv")
    assert precomputed.answerable(cohort, [one]).findings == ("Edema",)
    assert "findings without scores" in told[1]


def test_encoders_alone_leave_the_cohort_as_it_is(cohort, monkeypatch):
    told = said(monkeypatch)
    models = [load_model(MODEL)]
    assert precomputed.answerable(cohort, models) is cohort
    assert precomputed.seeing(models) == models == precomputed.calibratable(models)
    assert not told


def renamed(pattern, by):
    """The film names as another program writes them."""
    return lambda t: t.assign(image_id=t["image_id"].str.replace(pattern, by, regex=True))


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda t: t.assign(image_id="x" + t["image_id"]), "knows none of the 300 films"),
        (
            renamed(r"\.png$", ""),
            r"300 of 450 films are of cohort 'phantom' but for folder, ending",
        ),
        (renamed("^", "films/"), "but for folder"),
        (renamed("^0+", ""), "leading zeros"),
        (lambda t: t.replace("Pleural Effusion", "Effusion"), "did you mean 'Pleural Effusion'"),
        (lambda t: t.replace("Edema", "edema"), "'edema' is not of .*did you mean 'Edema'"),
        (lambda t: t.replace("Pleural Effusion", "pleural_effusion"), "'Pleural Effusion'"),
        (lambda t: t[t["finding"] == "Edema"].assign(finding="Hernia"), "no finding in common"),
    ],
)
def test_scores_of_something_else(cohort, plain, tmp_path, edit, words):
    with pytest.raises(ValueError, match=words):
        precomputed.answerable(cohort, [loaded(edit(plain), tmp_path)])


def test_what_is_odd_is_said_and_done(cohort, plain, tmp_path, monkeypatch):
    told = said(monkeypatch)
    more = plain.replace("Edema", "Hernia").assign(
        ward=1, score=lambda t: t["score"].where(t["finding"] != "Pneumonia", 5.0)
    )
    precomputed.answerable(cohort, [loaded(more, tmp_path)])
    for words in (
        "columns that are not used: ward",
        "some scores are below 0 or above 1",
        "never changes, so that AUC is chance: Pneumonia",
        "not of this cohort, and not used, are 150 of 450 films of the file",
        "findings without labels in this cohort: Hernia",
        "findings without scores, with which nothing is done: Edema",
    ):
        assert words in told[0]


def test_labels_are_no_scores_but_a_reader_may_say_yes_and_no(cohort, plain, tmp_path, monkeypatch):
    told = said(monkeypatch)
    truth = cohort.table.melt("image_id", cohort.findings, "finding", "score")
    with pytest.raises(ValueError, match="the scores are the labels of cohort 'phantom'"):
        precomputed.answerable(cohort, [loaded(truth, tmp_path)])
    for other in (truth["score"] * 100, 1 - truth["score"]):  # the same by another number
        with pytest.raises(ValueError, match="the scores are the labels"):
            precomputed.answerable(cohort, [loaded(truth.assign(score=other), tmp_path)])
    truth.loc[0, "score"] = 1 - truth.loc[0, "score"]
    reader = loaded(truth, tmp_path, "reader.csv")
    precomputed.answerable(cohort, [reader])
    assert "read as somebody's yes or no" in told[0]
    probabilities = loaded(plain, tmp_path, "p.csv")
    assert precomputed.calibratable([reader, probabilities]) == [probabilities]
    with pytest.raises(Lacks, match=r"calibration of scores:reader\.csv is undefined"):
        precomputed.calibratable([reader])


# --- what a file cannot answer ---


def test_twins_and_new_films_are_for_models_that_see(cohort, plain, tmp_path, monkeypatch):
    told = said(monkeypatch)
    model = loaded(plain, tmp_path)
    twin = phantom.twin(cohort, drain=1)
    with pytest.raises(Lacks, match="none to the same films drawn"):
        zeroshot.predict(twin, [model], ["Edema"])
    assert precomputed.seeing([model, *(encoder := load_models(MODEL))]) == encoder
    assert not told
    assert len(precomputed.seeing([model])) == 4 and model.name in told[0]


@pytest.mark.parametrize(
    "ask",
    [
        lambda cohort, model: extract.embed(cohort, model),
        lambda cohort, model: extract.embed_text(["Chest Edema"], model),
        lambda cohort, model: zeroshot.pair_scores(cohort, model, ["Edema"], [("a", "b")]),
        lambda cohort, model: zeroshot.format_scores(cohort, model, ["Edema", "Pneumonia"]),
    ],
)
def test_who_asks_for_more_than_scores_is_told(cohort, plain, tmp_path, ask):
    with pytest.raises(Lacks, match=r"has scores and nothing else.*chapters 4, 6 and 7 run"):
        ask(cohort, loaded(plain, tmp_path))


def test_a_chapter_that_lacks_something_ends_with_a_note(mini, capsys):
    text = (mini / "chapters" / "02_zero_shot.py").read_text()
    lacking = "from cxrlib.core.errors import Lacks\n\nraise Lacks('it has scores, no films')\n"
    text = text.replace("import matplotlib.pyplot as plt", lacking, 1)
    (mini / "chapters" / "02_zero_shot.py").write_text(text)
    first, second = run(mini, find(mini, "all"))
    assert first.is_file() and "it has scores, no films" in capsys.readouterr().err
    left = second.read_text()
    assert "This chapter did not run here: it has scores, no films" in left
    assert "A chapter of the miniature book" in left and "Traceback" not in left
    with pytest.raises(BookError, match=r"02_zero_shot did not run: it has scores, no films$"):
        run(mini, find(mini, "02"), out=mini / "alone")


# --- vectors ---


@pytest.fixture(scope="module")
def vectors(cohort, tmp_path_factory):
    """A store as the book writes it, and the phrases of zero-shot beside it."""
    folder = tmp_path_factory.mktemp("vectors") / "mine"
    model = load_model(MODEL)
    extract.extract(cohort, model, folder, rows_per_shard=128)
    phrases = [*(f"Chest {f}" for f in cohort.findings), "Chest No Findings"]
    texts = {"text": phrases, "vector": model.encode_text(phrases, raw=True).numpy().tolist()}
    pq.write_table(pa.table(texts), folder / "texts.parquet")
    (folder / "about.json").write_text(f'{{"logit_scale": {model.logit_scale}}}')
    return folder


def test_vectors_answer_the_prompts_that_are_there(cohort, vectors):
    model = load_model(f"embeddings:{vectors}")
    assert model.name == "embeddings:mine" and model.card["embed_dim"] == model.embed_dim
    found = zeroshot.predict(cohort, [model], cohort.findings)
    expected = zeroshot.predict(cohort, [MODEL], cohort.findings)
    np.testing.assert_allclose(found["score"], expected["score"], atol=1e-6)
    with pytest.raises(Lacks, match=r"no vector for the text 'Signs of Edema' \(1 of 2 phrases"):
        zeroshot.predict(cohort, [model], ["Edema"], positive="Signs of {label}")
    with pytest.raises(Lacks, match=r"no vector for .* wordings of what was written") as caught:
        extract.embed_reports(cohort, model)
    assert not any(text in str(caught.value) for text in cohort.table["report"].dropna())
    with pytest.raises(Lacks, match="no network"):
        _ = model.preprocess
    more = cohorts.load("phantom", n_images=N, seed=3)
    with pytest.raises(Lacks, match=r"no vector for .* of 300 films"):
        extract.embed(more, model)
    with pytest.raises(Lacks, match="none to the same films drawn"):
        extract.embed(phantom.twin(cohort, drain=1), model)


def test_folders_of_vectors_that_are_not_right(vectors, tmp_path):
    def refused(words):
        with pytest.raises(ValueError, match=words):
            load_model(f"embeddings:{tmp_path / 'other'}")

    refused("no such folder")
    other = tmp_path / "other"
    other.mkdir()
    refused("no Parquet file with vectors")
    rows = pd.DataFrame({"image_id": ["a", "a"], "embedding": [[1.0, 0], [0, 1.0]]})
    rows.to_parquet(other / "x.parquet")
    refused("texts.parquet is missing")
    pd.DataFrame({"text": ["Chest"], "vector": [[1.0, 2, 3]]}).to_parquet(other / "texts.parquet")
    refused("images have 2 numbers and texts 3")
    pd.DataFrame({"text": ["Chest"], "vector": [[1.0, 2]]}).to_parquet(other / "texts.parquet")
    refused("1 rows repeat the image_id")
    shard = next(vectors.glob("0*.parquet"))
    (other / shard.name).write_bytes(shard.read_bytes()[:-1] + b"?")
    refused("is damaged: its SHA-256")


# --- a table of one's own, without films ---


@pytest.fixture
def own(tmp_path, monkeypatch):
    """``cohort.csv`` without paths and a file of scores, in folders of their own."""
    rng = np.random.default_rng(0)
    ill = rng.random(400) < 0.3
    table = pd.DataFrame(
        {
            "image_id": [f"film{i:04d}" for i in range(400)],
            "patient_id": [f"person{i // 2:04d}" for i in range(400)],
            "sex": rng.choice(["F", "M"], 400),
            "age": rng.integers(20, 90, 400),
            "view": "PA",
            "Pneumothorax": ill.astype(int),
        }
    )
    (tmp_path / "data" / "own").mkdir(parents=True)
    table.to_csv(tmp_path / "data" / "own" / "cohort.csv", index=False)
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CXRBOOK_PLACES", "{}")
    rows = table[["image_id"]].assign(finding="Pneumothorax", score=rng.normal(ill, 1.0))
    rows.iloc[3:].to_csv(tmp_path / "device.csv", index=False)
    return tmp_path


def test_a_table_without_films_is_audited(own, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = {"models": f"scores:{own / 'device.csv'}", "data": "own", "n_images": 100}
    given |= {"n_resamples": 10, "n_permutations": 10, "options": {"access": "open"}}
    ran = executed("04", given, monkeypatch)
    assert ran["cohort"].images is None and len(ran["people"]) == 397
    rows = ran["people"].merge(pd.read_csv(own / "device.csv"), on="image_id")
    from sklearn.metrics import roc_auc_score

    expected = roc_auc_score(rows["Pneumothorax"], rows["score"])
    auc = schema.row(ran["results"], attribute="all", metric="auc", label="Pneumothorax")
    assert auc["value"] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(Lacks, match="metadata only"):
        extract.embed(ran["cohort"], MODEL)


def test_rows_of_a_guarded_cohort_are_not_shown(own, monkeypatch, capsys):
    told = said(monkeypatch)
    cohort = cohorts.load("own")
    model = load_model(f"scores:{own / 'device.csv'}")
    part = precomputed.answerable(cohort, [model])
    assert guard.active() and len(part.table) == 397
    assert "fewer than 10 of 400 films" in told[0] and " 3 " not in told[0]
    with pytest.raises(guard.GuardError):
        notebook.show(model.table.head(20))
    assert "film00" not in repr(model) + capsys.readouterr().out
