"""Graded checks: students who analyse their cohort soundly are right, and nobody else."""

import csv
import re
from dataclasses import asdict

import numpy as np
import pytest

from cxrlib import cohorts
from cxrlib.book import grading
from cxrlib.cohorts import phantom
from cxrlib.core.errors import BookError
from cxrlib.predict import zeroshot
from cxrlib.schema import row
from cxrlib.stats import bootstrap, fairness, shortcuts
from tests.conftest import ROOT

SEEDS = [grading.seed_of("a course", name) for name in ("Ada", "Bo", "Cy")]


def answers(seed):
    """What a student computes with the functions of the chapters: exercise -> answer."""
    cohort, asked = grading.cohort(seed), {n: grading.task(n, seed) for n in grading.EXERCISES}
    table, found = cohort.table, {}

    there = table[[f"severity_{f}" for f in cohort.findings]].to_numpy() > 0
    recorded = table[list(cohort.findings)].to_numpy() == 1
    per_race = {
        race: (~recorded & there)[rows].sum() / there[rows].sum()
        for race, rows in table.groupby("race").indices.items()
    }
    found["unrecorded"] = max(per_race.values())

    columns = table[["image_id", "sex", "age_group", "site", "drain"]]
    scores = zeroshot.predict(cohort, [grading.FAIR], cohort.findings).merge(columns)
    finding = re.search(r"training for (.+) on all", asked["adjusted"].question)[1]
    mine = scores[scores["label"] == finding]
    performance = fairness.performance_table(mine, ("adjusted_auprc",), n_resamples=2)
    found["adjusted"] = row(performance, label=finding)["value"]

    by_group = fairness.performance_table(
        scores, ("auc",), ("sex", "age_group", "site"), n_resamples=2
    )
    means = by_group[(by_group["label"] == "mean") & (by_group["n_patients"] > 150)]
    means = means[means["attribute"] != "all"]
    behind = means["value"] - means.groupby("attribute")["value"].transform("median")
    worst = means.loc[behind.idxmin()]
    found["faint"] = f"{worst['attribute']}={worst['group']}"

    drains = zeroshot.predict(cohort, [grading.BIASED], ["Pneumothorax"]).merge(columns)
    arms = shortcuts.drain_arms(drains, protocols=("corrected",), n_resamples=2)
    found["drain-gap"] = row(arms, metric="auc", group="with drain - without drain")["value"]

    question = asked["missed"].question
    finding, wanted = re.search(
        r"asked for (.+), reaches a specificity of (\S+)\. ", question
    ).groups()
    yes = fairness.decide(scores[scores["label"] == finding], specificity=float(wanted))
    gaps = fairness.gap_table(
        yes, "sex", [("F", "M")], metrics=("false_negative_rate",), n_resamples=2
    )
    found["missed"] = row(gaps, label=finding)["value"]

    x, patients = table["pacemaker"].to_numpy(float), table["patient_id"].to_numpy()
    spread = [
        np.std((w @ x) / w.sum(axis=1))
        for w in (bootstrap.patient_weights(patients, 2000, unit=u) for u in ("patient", "image"))
    ]
    found["clusters"] = spread[0] / spread[1]
    return found


@pytest.fixture(scope="module")
def handed_in():
    return {seed: answers(seed) for seed in SEEDS}


def test_a_sound_analysis_is_right(handed_in):
    for seed, found in handed_in.items():
        assert set(found) == set(grading.EXERCISES)
        for exercise, answer in found.items():
            assert grading.check(exercise, seed, str(answer)).points == 1, (exercise, answer)


def test_the_answers_of_another_student_mostly_are_not(handed_in):
    points = [
        grading.check(exercise, seed, handed_in[other][exercise]).points
        for seed in SEEDS
        for other in SEEDS
        if other != seed
        for exercise in grading.EXERCISES
    ]
    assert sum(points) <= len(points) / 4


@pytest.mark.parametrize(
    ("exercise", "dial", "value"),
    [
        ("unrecorded", "underreport", {"race": {"Black": 0.7}}),
        ("adjusted", "prevalence", 0.4),
        ("faint", "contrast", {"site": {"B": 0.3}}),
        ("drain-gap", "contrast", {"sex": {"F": 0.2, "M": 0.2}}),
        ("missed", "contrast", {"sex": {"F": 0.2}}),
        ("clusters", "images_per_patient", 20),
    ],
)
def test_another_planted_bias_is_another_right_answer(exercise, dial, value):
    planted = asdict(grading.dials(SEEDS[0])) | {
        "underreport": {"race": {"Black": 0.2}},
        "contrast": {"sex": {"M": 0.5}},
        "images_per_patient": 2,
    }
    before, after = (
        grading.solve(exercise, phantom.build(500, SEEDS[0], dials=planted | change))
        for change in ({}, {dial: value})
    )
    if exercise == "faint":
        assert (before.right, after.right) == (("sex", "M"), ("site", "B"))
    else:
        assert abs(after.right - before.right) > before.tolerance


def test_everyone_has_another_cohort():
    names = [f"student {i}" for i in range(60)]
    seeds = [grading.seed_of("fair26", name) for name in names]
    assert len(set(seeds)) == len(names)
    assert seeds != [grading.seed_of("fair27", name) for name in names]
    assert grading.seed_of("fair26", "  ADA  Lee ") == grading.seed_of("fair26", "Ada Lee")
    planted = [grading.dials(seed) for seed in seeds]
    assert {next(iter(d.contrast)) for d in planted} == {"sex", "age_group", "site"}
    assert {next(iter(d.underreport["race"])) for d in planted} == {"White", "Black", "Asian"}
    # What a seed plants is fixed: sheets that were handed out stay right.
    assert grading.seed_of("fair26", "Ada Lee") == 486359342
    assert grading.dials(1907).contrast == {"age_group": {"25-50": 0.32}}


def test_feedback_names_the_mistake_and_not_the_answer():
    seed = SEEDS[0]
    for exercise in ("unrecorded", "clusters"):
        solved = grading.solve(exercise, grading.cohort(seed))
        right = f"{solved.right:.3f}"
        for value, text in solved.slips:
            if abs(value - solved.right) <= solved.tolerance:
                continue
            points, feedback = grading.check(exercise, seed, value)
            assert points == 0
            assert any(text in feedback for v, text in solved.slips if abs(v - value) < 0.2), text
            assert right not in feedback and right[:4] not in feedback
    points, feedback = grading.check("faint", seed, "race = asian")
    assert points == 0 and "site" in feedback
    percentage = 100 * grading.solve("unrecorded", grading.cohort(seed)).right
    assert "percentage" in grading.check("unrecorded", seed, percentage).feedback


@pytest.mark.parametrize(
    ("exercise", "answer", "words"),
    [
        ("faint", "F", "no group such as sex=F"),
        ("faint", "sex=X", "no group"),
        ("unrecorded", "1,000.5", "no number such as 0.31"),
        ("unrecorded", "31 %", "no number"),
        ("unrecorded", "nan", "no number"),
        ("feint", "sex=F", "did you mean 'faint'"),
    ],
)
def test_answers_that_cannot_be_read(exercise, answer, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        grading.check(exercise, SEEDS[0], answer)


# --- sheets and tables ---------------------------------------------------------------------------


@pytest.fixture
def roster(tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text('student\nAda\n"Lee, Bo"\n', encoding="utf-8-sig")
    return path


def test_sheets_hold_seed_questions_and_commands(roster, tmp_path, cxrbook):
    out = tmp_path / "sheets"
    done = cxrbook("assign", roster, "--course", "a course", "--out", out)
    assert done.returncode == 0 and "2 sheets" in done.stdout
    assert sorted(p.name for p in out.iterdir()) == ["001-ada.txt", "002-lee-bo.txt", "answers.csv"]
    text = (out / "001-ada.txt").read_text()
    assert f"Your seed: {SEEDS[0]}" in text and "a course" not in text
    for exercise in grading.EXERCISES:
        assert exercise in text
    assert text.count(f"grading.cohort({SEEDS[0]})") == len(grading.EXERCISES)
    rows = list(csv.DictReader((out / "answers.csv").open(encoding="utf-8-sig")))
    assert [r["student"] for r in rows[::6]] == ["Ada", "Lee, Bo"]
    with pytest.raises(BookError, match="may hold answers"):
        grading.assign(roster, "a course", out)


def test_the_lines_to_begin_with_run():
    for exercise in ("unrecorded", "clusters"):
        exec(grading.task(exercise, SEEDS[0]).start, {})
    for exercise in grading.EXERCISES:
        compile(grading.task(exercise, SEEDS[0]).start, exercise, "exec")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\nAda\n", "row 1: no column 'student'"),
        ("student\nAda\nada\n", "row 3, column student: 'ada' is there already as 'Ada'"),
        ("student,room\nAda,1\n,2\n", "row 3, column student: empty"),
        ("student,room\nLee, Bo,1\n", "row 2, more cells than headings"),
        ("student\n", "no student below the heading"),
    ],
)
def test_a_roster_that_cannot_be(tmp_path, text, words):
    path = tmp_path / "roster.csv"
    path.write_text(text)
    with pytest.raises(BookError, match=re.escape(words)):
        grading.assign(path, "a course", tmp_path / "sheets")
    with pytest.raises(BookError, match="cannot read"):
        grading.assign(tmp_path / "none.csv", "a course", tmp_path / "sheets")


def test_a_name_with_a_comma_stays_whole_in_a_roster_of_names(tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text("student\r\nMüller, Anna\r\nMüller, Bea\r\n", encoding="utf-8-sig")
    *sheets, form = grading.assign(path, "a course", tmp_path / "sheets")
    assert [p.name for p in sheets] == ["001-müller-anna.txt", "002-müller-bea.txt"]
    rows = list(csv.DictReader(form.open(encoding="utf-8-sig")))
    assert {r["student"] for r in rows} == {"Müller, Anna", "Müller, Bea"}


def test_answers_are_graded_and_bad_rows_named(roster, tmp_path, cxrbook):
    faint = "=".join(grading.solve("faint", grading.cohort(SEEDS[0])).right)
    path = tmp_path / "answers.csv"
    path.write_text(
        "student;exercise;answer\n"  # as a spreadsheet may save it
        f"Ada;faint;{faint}\n"
        "ada;unrecorded;\n"
        "\n"
        "Ada;faint;sex=F\n"
        "Ada;clusters;wide\n"
        "Lee, Bo;feint;sex=F\n"
        "Nobody;faint;sex=F\n"
    )
    other = tmp_path / "other.csv"
    other.write_text("student,exercise,answer\nLee, Bo,faint,sex=F\nAda,faint,sex=F\n")
    words = ["grade", path, other, "--course", "a course", "--roster", roster]
    assert "--out" in cxrbook(*words).stderr
    out = tmp_path / "graded.csv"
    done = cxrbook(*words, "--out", out)
    assert done.returncode == 1
    for words in (
        f"answers.csv, row 5, column exercise: 'faint' was answered in {path}, row 2",
        "answers.csv, row 6, column answer: 'wide' is no number",
        "answers.csv, row 7, column exercise: unknown 'feint'; did you mean 'faint'?",
        "answers.csv, row 8, column student: 'Nobody' is not in",
        "other.csv, row 2, more cells than headings",
        f"other.csv, row 3, column exercise: 'faint' was answered in {path}, row 2",
        "6 rows were not graded",
    ):
        assert words in done.stderr
    graded = list(csv.DictReader(out.open(encoding="utf-8-sig")))
    assert [(r["exercise"], r["points"]) for r in graded] == [("faint", "1"), ("unrecorded", "0")]
    assert graded[1]["feedback"] == "No answer."


def test_a_mistake_that_a_class_shares_is_counted_though_each_has_another_number(tmp_path):
    path = tmp_path / "answers.csv"
    rows = ["student;exercise;answer"]
    for name, seed in zip(("Ada", "Bo", "Cy"), SEEDS, strict=True):
        share = grading.solve("unrecorded", grading.cohort(seed)).right
        answer = f"{share:.3f}" if name == "Cy" else f"{1 - share:.3f}"
        rows.append(f"{name};unrecorded;{answer.replace('.', ',')}")
    path.write_text("\n".join(rows))
    graded, wrong = grading.grade([path], "a course")
    assert not wrong and len({line["answer"] for line in graded}) == 3
    first, second, *_ = grading.in_class(graded)
    assert first == "unrecorded: 1 of 3 right"
    assert second.startswith("  2 students: This is the share that was recorded.")


def test_the_exam_of_the_teaching_page_is_a_cohort(tmp_path, monkeypatch):
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "exam" in c)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXRBOOK_DATA", "exam")
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path / "cache"))
    exec(code.replace("1500", "60"), {})
    exam = cohorts.load("own", access="open")
    assert len(exam.table) == 60
    assert set(phantom.FINDINGS) <= set(exam.findings)
    assert not [c for c in exam.table if c.startswith("severity") or c == "site"]
