"""The dossier: checklists as their sources count them, filled from facts, by the user, or not."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
import yaml

from cxrlib import cohorts, schema
from cxrlib.book import dossier, facts, record
from cxrlib.book.dossier import MISSING, NOT, RUN, USER, Answers, Fact
from cxrlib.core.errors import BookError
from cxrlib.core.kernel import MEANINGLESS, SAID
from tests.conftest import ROOT
from tests.kept import phantom

NOBODY = Answers({}, {})
# What no run can know.
ASKED = {
    *("study.funding", "study.conflicts", "study.protocol", "study.registration"),
    *("study.involvement", "study.compared_with_development", "study.next_steps"),
    *("study.compared_with_use", "study.harm", "cohort.shifts", "cohort.involvement"),
    *("cohort.assessments", "cohort.funding", "cohort.contact", "cohort.contributions"),
    *("models.contact", "models.approval", "models.risk", "models.maintenance"),
    *("models.security", "results.clusters"),
}


def executed(folder, name, rows, model="phantom-vit"):
    """A run of a chapter as its three files, made by hand; the executed notebook."""
    path = folder / f"{name}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    said = {SAID: json.dumps({"text": f"In {{numref}}`fig-a`, of\n*{name}*.", "figure": "fig-a"})}
    cell = nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("display_data", said)])
    key = {"cxrbook": {"key": f"key of {name}"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata=key), path)
    model = {"name": model, "weights": "ab" * 32, "protocol": "corrected"}
    card = {
        **{"chapter": name, "name": folder.name, "date": "2026-01-02T03:04:05+00:00", "given": []},
        **{"parameters": {"data": "phantom", "protocol": "corrected"}, "seeds": [3], "gpu": None},
        "cohorts": [{"name": "phantom", "access": "open", "fingerprint": "f" * 16}],
        "models": [model | {"device": "cpu", "precision": "float32"}],
        "code": {"revision": "c" * 40, "library": "d" * 64, "changed": False, "files": {}},
        **{"python": "3.11", "system": "Linux", "packages": {"torch": "2"}, "device": "cpu"},
        "key": f"key of {name}",
    }
    record.write(path, card, schema.results(rows))
    return path


COUNTS = {"n": 400, "n_positive": 40, "n_patients": 200, "ci_low": 0.7, "ci_high": 0.9}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with a run called made, of two chapters; its notebooks."""
    folder = tmp_path_factory.mktemp("project") / "_build" / "runs" / "made"
    findings = [phantom(label=x, **COUNTS) for x in ("Edema", "Pneumonia")]
    mean = phantom(label="mean", value=0.81234, **COUNTS)
    women, men = (
        {"attribute": "sex", "group": g, "value": v} for g, v in (("F", 0.75), ("M", 0.85))
    )
    return [
        executed(folder, "02_zero_shot", [*findings, mean]),
        executed(folder, "04_subgroup_fairness", [mean, mean | women, mean | men]),
    ]


def full(kinds=("evaluation", "development", "updating", "clusters", "ensembles")):
    """Every fact that an item wants, and the checklists that they fill."""
    known = {name: Fact(f"It is {name}.", ("page:data",)) for name in dossier.wanted()}
    return known, set(kinds)


def states(filled):
    return {(name, i.number): i.state for name, items in filled.items() for i in items}


def test_items_are_as_many_as_their_sources_count():
    numbers = {k: [i["number"] for i in c["item"]] for k, c in dossier.checklists().items()}
    assert all(len(found) == len(set(found)) for found in numbers.values())
    tripod = numbers["tripod_ai"]
    assert (len({re.match(r"\d+", n)[0] for n in tripod}), len(tripod)) == (27, 52)
    assert numbers["claim"] == [str(n) for n in range(1, 45)]
    standing = numbers["standing_together"]
    documentation = [n for n in standing if n.startswith("1.")]
    assert (len(standing), len(documentation), len(standing) - len(documentation)) == (29, 18, 11)
    sections = {i["section"] for i in dossier.checklists()["datasheet"]["item"]}
    assert len(sections) == 7
    for checklist in dossier.checklists().values():
        assert checklist["subitems"] == len(checklist["item"])


def test_an_item_that_was_not_compared_with_its_source_says_so():
    items = dossier.fill(*full(), NOBODY)["standing_together"]
    open_ = [i.number for i in items if not i.verified]
    assert len(open_) == 8 and min(open_) > "2.2b"
    page = dossier.table("standing_together", items, dossier.in_book)
    assert page.count("not compared with the article") == 8


FLIPS = {  # a fact -> the items that rest on it, read off the checklists by hand
    "cohort.dates": {"tripod_ai": "5b", "datasheet": "3.4"},
    "cohort.ethics": {
        **{"tripod_ai": "17", "standing_together": "1.4a", "datasheet": "3.5"},
        "chai": "Resources/PatientConsentOrDisclosure",
    },
    "cohort.setting": {"tripod_ai": "6a 16", "standing_together": "1.1d"},
    "cohort.blinding": {"tripod_ai": "8c", "claim": "17"},
    "cohort.treatments": {"tripod_ai": "6c"},
    "cohort.readers": {
        **{"tripod_ai": "8b", "claim": "16", "standing_together": "1.3f"},
        "datasheet": "3.3 4.2",
    },
    "cohort.deidentification": {"claim": "11", "standing_together": "1.4a", "datasheet": "2.12"},
    "cohort.access": {
        **{"tripod_ai": "18e", "claim": "43", "standing_together": "1.1b"},
        "datasheet": "2.10 6.1",
    },
    "cohort.label_rationale": {"tripod_ai": "8a", "claim": "15"},
    "cohort.missing": {
        **{"tripod_ai": "11", "claim": "12", "standing_together": "1.3e", "datasheet": "2.6"},
    },
}


@pytest.mark.parametrize("fact", FLIPS)
def test_what_is_deleted_from_a_card_flips_the_items_that_rest_on_it(made, fact, monkeypatch):
    card = cohorts.card("phantom")
    others = {name: f for name, f in full()[0].items() if name.partition(".")[2] not in card}

    def filled():
        return states(dossier.fill(others | facts.gather(made).facts, full()[1], NOBODY))

    before = filled()
    del card[fact.partition(".")[2]]
    monkeypatch.setattr(cohorts, "card", lambda name: dict(card))
    after = filled()
    flipped = {key for key in before if before[key] != after[key]}
    assert flipped == {(name, n) for name, ns in FLIPS[fact].items() for n in ns.split()}
    assert {(before[key], after[key]) for key in flipped} == {(RUN, MISSING)}


def test_every_fact_is_known_of_some_run_or_asked_of_the_user(made):
    known = facts.gather(made).facts
    assert set(dossier.wanted()) - set(known) - set(facts.TOLD) == ASKED
    assert not ASKED & set(known)


def test_a_run_answers_with_its_own_numbers(made):
    known = facts.gather(made)
    assert known.facts["cohort.size"].text == "400 films of 200 patients of the cohort phantom."
    assert known.facts["cohort.events"].text.endswith("Edema 40, Pneumonia 40.")
    assert "phantom-vit 0.81 [0.70, 0.90]" in known.facts["results.performance"].text
    assert "from female 0.75" in known.facts["results.subgroups"].text
    assert known.facts["results.interpretation"] == Fact(
        "In fig-a, of 04_subgroup_fairness.", ("chapter:04_subgroup_fairness",)
    )
    found = dossier.fill(known.facts, known.kinds, NOBODY)["tripod_ai"]
    assert {i.state for i in found} == {RUN, NOT, MISSING}
    [training] = [i for i in found if i.number == "12c"]
    assert (training.state, training.answer[:30]) == (NOT, "because no model was developed")
    assert sum(i.state == RUN for i in found) >= 0.6 * len(found)  # without typing


def test_nothing_is_said_of_a_model_that_is_not_known(tmp_path):
    mean = phantom(label="mean", model="seeded:biovil", value=0.8, **COUNTS)
    path = executed(tmp_path / "seeded", "02_zero_shot", [mean], model="seeded:biovil")
    known = facts.gather([path])
    told = {name for name in known.facts if name.startswith("models.")}
    assert told == {"models.names", "models.weights", "models.version"}
    items = dossier.fill(known.facts, known.kinds, NOBODY)["tripod_ai"]
    [specified] = [i for i in items if i.number == "22"]
    assert specified.needs == ("models.source", "models.licence")


def test_the_book_fills_most_of_tripod_without_typing():
    told = json.loads((ROOT / "_build" / "html" / "dossier" / "dossier.json").read_text())
    assert told["tripod_ai"]["counts"][USER] == 0
    assert told["tripod_ai"]["counts"][RUN] >= 0.6 * 52


def test_the_user_fills_what_is_missing_once(tmp_path):
    known, kinds = full()
    del known["study.funding"], known["study.next_steps"]
    (tmp_path / "answers.yaml").write_text(
        "facts:\n  study.funding: A foundation.\n  study.next_steps:\n"
        "tripod_ai:\n  1: Ours.\n  8c: {does not apply: nobody judges}\n"
    )
    answers = dossier.read(tmp_path / "answers.yaml")
    filled = dossier.fill(known, kinds, answers)
    by_user = {key for key, state in states(filled).items() if state == USER}
    funding = {("claim", "44"), ("tripod_ai", "18a")}
    funding.add(("chai", "TrustIngredients/TransparencyInformation/FundingSource"))
    assert by_user == funding | {("tripod_ai", "1")}
    assert [k for k, state in states(filled).items() if state == MISSING] == [("tripod_ai", "27c")]
    [blind] = [i for i in filled["tripod_ai"] if i.number == "8c"]
    assert (blind.state, blind.answer) == (NOT, "because nobody judges")
    # what is still missing is asked for, and nothing else
    assert yaml.safe_load(dossier.template(filled)) == {"facts": {"study.next_steps": None}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("facts: {study.fundin: x}", "unknown fact 'study.fundin'; did you mean 'study.funding'?"),
        ("tripod: {1: x}", "unknown entry 'tripod'; did you mean 'tripod_ai'?"),
        ("claim: {45: x}", "claim has no item 45; did you mean"),
        ("claim: {44: [x]}", "claim 44: expected a text, or {does not apply: the reason}"),
        ("- x", "expected `facts:` and names of checklists"),
        ("facts: {a", "no YAML text"),
    ],
)
def test_answers_that_cannot_be_are_one_line(tmp_path, text, said):
    (tmp_path / "answers.yaml").write_text(text)
    with pytest.raises(BookError) as error:
        dossier.read(tmp_path / "answers.yaml")
    assert said in str(error.value) and "\n" not in str(error.value) and error.value.code == 2


def texts(names):
    """Elements that hold text, in their order; "?" may be left out, "*" and "+" repeat."""
    return dict.fromkeys(names.split())


# The elements of the Applied Model Card, v0.2.
METRIC = {
    **{"MetricGoal": None, "Results": {"MetricResult+": texts("Label ValueJson")}},
    **texts("Interpretation TestType TestingDataDescription ValidationProcessAndJustification"),
}
SYSTEM = """OutcomesAndOutputs ModelType FoundationModels? InputDataSource OutputAndInputDataTypes
    DevelopmentDataCharacterization BiasMitigationApproaches OngoingMaintenance Security?
    Transparency?"""
CARD = {
    "BasicInfo": texts("ModelName ModelDeveloper DeveloperContact"),
    "ReleaseInfo": texts(
        """ReleaseStage ReleaseDate ReleaseVersion GlobalAvailability EHRCompatibility?
        RegulatoryApproval?"""
    ),
    "ModelSummary": {"Summary": None, "Keywords": texts("Keyword*")},
    "UsesAndDirections": texts(
        """IntendedUseAndWorkflow PrimaryIntendedUsers HowToUse TargetedPatientPopulation
        CautionedOutOfScopeSettings"""
    ),
    "Warnings": texts(
        "KnownRisksAndLimitations KnownBiasesOrEthicalConsiderations ClinicalRiskLevel"
    ),
    "TrustIngredients": {
        "AISystemFacts": texts(SYSTEM),
        "TransparencyInformation": texts(
            "FundingSource ThirdPartyInformation? StakeholdersConsulted"
        ),
    },
    "KeyMetrics": dict.fromkeys(
        ("UsefulnessUsabilityEfficacy", "FairnessEquity", "SafetyReliability"), METRIC
    ),
    "Resources": texts(
        """EvaluationReferences? ClinicalTrial? PeerReviewedPublications ReimbursementStatus?
        PatientConsentOrDisclosure"""
    ),
    "Bibliography": None,
}


def fits(element, model):
    """Whether the children of an element are those of the model, in its order."""
    if model is None:
        return len(element) == 0
    names = [re.sub(r"\{.*\}", "", child.tag) for child in element]
    pattern = "".join(
        f"(?:{name.rstrip('?+*')} ){name[-1] if name[-1] in '?+*' else ''}" for name in model
    )
    inner = {name.rstrip("?+*"): below for name, below in model.items()}
    alike = re.fullmatch(pattern, "".join(f"{name} " for name in names)) is not None
    return alike and all(fits(c, inner[n]) for c, n in zip(element, names, strict=True))


@pytest.mark.parametrize("lost", [(), tuple(dossier.wanted())], ids=["full", "empty"])
def test_the_card_of_a_model_fits_the_schema(lost):
    known, kinds = full()
    known = {name: fact for name, fact in known.items() if name not in lost}
    text = dossier.chai(dossier.fill(known, kinds, NOBODY)["chai"], known, {})
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "{https://mc.chai.org/v0.2/schema.xsd}AppliedModelCard"
    assert fits(root, CARD)
    root.remove(root[3])
    assert not fits(root, CARD)


def test_the_files_of_a_run(made, cxrbook, tmp_path):
    root = made[0].parents[3]
    (root / "_toc.yml").write_text("")
    ours = tmp_path / "ours.yaml"
    ours.write_text("facts: {study.funding: A <foundation>.}")
    done = cxrbook("dossier", "made", "--answers", ours, cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("TRIPOD+AI, 52 items: answered from the run ")
    assert (made[0].parent / "answers.yaml").read_text() == ours.read_text()  # kept with the run
    out = made[0].parent / "dossier"
    told = json.loads((out / "dossier.json").read_text())
    for name, checklist in told.items():
        assert sum(checklist["counts"].values()) == len(dossier.checklists()[name]["item"])
    page = (out / "dossier.html").read_text()
    assert "A &lt;foundation&gt;." in page and "src=" not in page and "<link" not in page
    for text in (page, (out / "dossier.md").read_text()):
        links = set(re.findall(r'(?:href="|\]\()(\.\./[^")#]*)', text))
        assert {"../02_zero_shot.parquet", "../02_zero_shot.json"} <= links
        assert all((out / link).is_file() for link in links)
    card = ElementTree.parse(out / "chai-phantom-vit.xml").getroot()
    assert fits(card, CARD)
    [fair] = [e for e in card.iter() if e.tag.endswith("FairnessEquity")]
    values = [json.loads(e.text) for e in fair.iter() if e.tag.endswith("ValueJson")]
    assert [v["estimate"] for v in values] == [0.75, 0.85]


def test_a_chapter_without_meaning_is_told_at_the_top(made):
    run = facts.gather(made)
    warned = f'<div class="{MEANINGLESS}"><p class="admonition-title">Nothing</p></div>'
    cell = {"outputs": [{"data": {"text/html": warned}}], "source": ""}
    run = run._replace(notebooks=run.notebooks | {made[0]: {"cells": [cell]}})
    for name, text in dossier.files(run, NOBODY, lambda place: (place, "")).items():
        if name in ("dossier.md", "dossier.html"):
            assert (
                "nothing on real films" in text[: text.index("TRIPOD")] and "(chapters 02)" in text
            )


def test_a_link_names_no_folder_of_the_machine(tmp_path):
    notebooks = [tmp_path / "runs" / "02_zero_shot.ipynb"]
    near = dossier.beside(notebooks, tmp_path / "dossier")("card:02_zero_shot")
    far = dossier.beside(notebooks, Path("/elsewhere"))("card:02_zero_shot")
    assert near == ("card of chapter 2", "../runs/02_zero_shot.json")
    assert far == ("card of chapter 2", "")


def test_what_cannot_be_is_one_line(made, cxrbook, tmp_path):
    root = made[0].parents[3]
    (root / "_toc.yml").write_text("")
    done = cxrbook("dossier", "mode", cwd=root)
    assert (done.returncode, done.stderr) == (
        *(2, "cxrbook: no run 'mode'; did you mean 'made'?\n"),
    )
    (tmp_path / "a.yaml").write_text("facts: {study.funding: see /home/somebody/grant.pdf}")
    done = cxrbook("dossier", "made", "--answers", tmp_path / "a.yaml", "--out", tmp_path, cwd=root)
    assert done.returncode == 1 and "machine path" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.yaml"]


def test_make_clean_leaves_what_somebody_wrote(tmp_path):
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    mine = tmp_path / "_build" / "runs" / "mine"
    (mine / "dossier").mkdir(parents=True)
    (tmp_path / "book").mkdir()
    for path in (
        mine / "answers.yaml",
        mine / "dossier" / "dossier.md",
        tmp_path / "book" / "a.md",
    ):
        path.touch()
    for _ in range(2):
        subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
        left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
        assert left == {
            "Makefile",
            "requirements.lock",
            "_build/runs/mine/answers.yaml",
            "book/a.md",
        }
