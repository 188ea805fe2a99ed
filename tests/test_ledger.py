"""Claims decided as they should be, results kept in notebooks, and the ledger that shows both."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from cxrlib import schema
from cxrlib.papers import ledger, published
from cxrlib.papers.claims_s import ATTRIBUTES, PEOPLE, S_MODELS
from cxrlib.papers.claims_x import AGE, GAPS, SEX, SIX, TUNINGS, X_MODELS
from cxrlib.papers.rules import Missing, Numbers, every, outcome
from cxrlib.show import notebook
from tests import authors
from tests.kept import awkward, phantom

PAPERS = Path(__file__).parents[2] / "shared" / "papers"
# What the papers' own numbers say otherwise, whatever is run.
CONTRADICTED = {
    "s-better-than-chance-everywhere",  # Biovil on consolidation and pneumonia
    "s-mlp-best-everywhere",  # two models whose linear probe reads better
    "s-drains-help-every-model",  # CXR-CLIP
    "x-six-diseases-satisfy-the-rule",  # 47 women with edema
    "x-gloria-fairest-over-diseases",  # BioMedCLIP; GLoRIA's range of F1 is too wide
}

# --- rules --------------------------------------------------------------------------------------


def numbers(**values):
    rows = [{"cohort": "c", "model": m, "metric": "auc", "value": v} for m, v in values.items()]
    rows = [{"label": "all", "attribute": "all", "group": "all", **row} for row in rows]
    return Numbers(published.prepared(schema.results(rows)))


def test_one_counterexample_decides_and_only_all_cases_confirm():
    get = numbers(a=0.6, b=0.4)

    def above_half(model):
        return get("auc", model=model) - 0.5

    assert every(["a"], above_half) == (True, "all of 1 cases")
    assert every(["a", "b"], above_half) == (False, "1 of 2 cases against it: b by 0.1")
    assert every(["c", "b"], above_half)[0] is False  # c is missing, and does not matter
    with pytest.raises(Missing, match="model c"):
        every(["a", "c"], above_half)
    assert every(["a", "b"], above_half, but=1)[0] is True
    with pytest.raises(Missing):
        every(["b", "c"], above_half, but=1)


def test_a_rule_remembers_the_rows_it_used():
    get = numbers(a=0.6, b=0.4)
    get("auc", model="b")
    assert get.used["model"].tolist() == ["b"]


def test_claims_have_an_id_a_place_and_words_of_their_own():
    assert len({c.id for c in ledger.CLAIMS}) == len(ledger.CLAIMS)
    for claim in ledger.CLAIMS:
        assert claim.id.startswith(claim.paper.lower()) and claim.cohort in published.NEEDED
        assert re.search(r"Abstract|[Ss]ections? \d", claim.where), claim.where


def test_no_claim_repeats_a_paper():
    if not PAPERS.is_dir():
        pytest.skip("the texts of the papers are not here")

    def runs(text, n=7):
        words = re.findall(r"[a-z0-9-]+", text.lower())
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    for paper, name in (("S", "000"), ("X", "002")):
        [path] = PAPERS.glob(f"{name}_*.txt")
        printed = runs(path.read_text(encoding="utf-8"))
        for claim in ledger.CLAIMS:
            if claim.paper == paper:
                assert not runs(claim.statement) & printed, claim.id


# --- every claim on planted numbers -----------------------------------------------------------


def planted(true):
    """Results on the papers' cohorts with which every claim holds, or with which none does."""
    rows = []

    def add(cohort, model, metric, value, **more):
        where = {"method": "zero-shot", "label": "all", "attribute": "all", "group": "all"}
        rows.append({"cohort": cohort, "model": model, "metric": metric, "value": value})
        rows[-1] |= where | more

    def gap(cohort, model, metric, value, where, **more):
        add(cohort, model, metric, value, attribute=where[0], group=where[1], **more)

    # S, section 3.1
    means = dict(zip(S_MODELS, (0.83, 0.63, 0.67, 0.81, 0.78, 0.54), strict=True))
    groups = {"sex": ("F", "M"), "race": ("White", "Black", "Asian"), "age_group": ("18-25", "80+")}
    steps = {"sex": 0.02, "race": 0.01, "age_group": 0.2}
    if not true:
        steps = {"sex": 0.03, "race": 0.2, "age_group": 0.01}
    for model, auc in means.items():
        auc = auc if true else 1 - auc
        for label in ("Pneumothorax", "mean"):
            add("mimic-cxr-sourget", model, "auc", auc, label=label)
            add("mimic-cxr-sourget", model, "adjusted_auprc", auc - 0.5, label=label)
        for attribute, names in groups.items():
            for i, group in enumerate(names):
                far = {"White": 0, "Black": 1, "Asian": 3 if true else 0}.get(group, i)
                wide = 0.3 if (group in ("Asian", "18-25")) == true else 0.1
                at = auc + far * steps[attribute]
                limits = {"ci_low": at - wide, "ci_high": at + wide}
                where = {"label": "Pneumothorax", "attribute": attribute, "group": group}
                add("mimic-cxr-sourget", model, "auc", at, **where, **limits)

    # S, section 3.2
    probes = {"sex": (0.7, 0.65, 0.9), "race": (0.54, 0.52, 0.7), "age_group": (0.7, 0.6, 0.8)}
    for model in S_MODELS:
        for attribute in ATTRIBUTES:
            read = probes[attribute] if true else [1 - auc for auc in probes[attribute]]
            if attribute == "race" and not true:
                read = (0.65, 0.62, 0.55)
            for method, auc in zip(("linear", "knn", "mlp"), read, strict=True):
                add("mimic-cxr-sourget", model, "auc", auc, label=attribute, method=method)
            auc = 0.53 if true else 0.7
            add("mimic-cxr-sourget", model, "auc", auc, label=attribute, method="pca")
    modality = ("modality", "image - text")
    for metric in ("centroid_distance", "top_tenth_share"):
        gap("mimic-cxr-sourget", "MedImageInsight", metric, 0.8, modality)
        for where in PEOPLE:
            gap("mimic-cxr-sourget", "MedImageInsight", metric, 0.3 if true else 0.9, where)

    # S, section 3.3
    for model in S_MODELS:
        about = {"cohort": "nih-cxr14-test", "model": model, "label": "Pneumothorax"}
        drain = 0.1 if true and model != "CXR-CLIP" else -0.1
        gap(**about, metric="adjusted_auprc", value=drain, where=("drain", published.GAP))
        best = model == "MedImageInsight"
        add(**about, metric="ece_equal_width", value=0.1 if best == true else 0.3)
        limits = {"ci_low": 0.2, "ci_high": 0.3} if true else {"ci_low": -0.1, "ci_high": 0.1}
        add(**about, metric="calibration_in_the_large", value=sum(limits.values()) / 2, **limits)
        for metric, value in (("score_min", 0.45), ("score_max", 0.55 if true else 0.95)):
            add(**about, metric=metric, value=value)
        add(**about, metric="auc", value=0.8 if true else 0.6)

    # X, section 2.1
    for disease in SIX:
        add("nih-6x200", None, "n_images", 60 if true else 40, label=disease, attribute="age_sex")
    for i in range(8):
        few = {"label": f"other {i}", "attribute": "age_sex", "group": "old F"}
        add("nih-cxr14", None, "n_images", 20 if true else 70, **few)

    # X, sections 3.2 and 3.3: 1 - accuracy turns every order round
    best = {"CLIP": "full", "MedCLIP-ViT": "full", "MedCLIP-RN": "LoRA", "BioMedCLIP": "LoRA"}
    for i, model in enumerate(X_MODELS):
        start = 0.2 + (0.3 if model == "MedCLIP-ViT" else 0.06 * i)
        for method in ("zero-shot", *TUNINGS):
            value = start + 0.1 * (method != "zero-shot") + 0.05 * (method == best.get(model))
            add("nih-6x200", model, "accuracy", value if true else 1 - value, method=method)
        high = model == "MedCLIP-ViT"
        for disease in SIX:
            value = (0.7 if high == true else 0.5) + 0.01 * SIX.index(disease)
            add("nih-6x200", model, "f1", value, label=disease, method="full")
        variance = {"GLoRIA": 0.02, "BioMedCLIP": 0.01, "MedCLIP-ViT": 0.05}.get(model, 0.03)
        variance = variance if true else 0.06 - variance
        add("nih-6x200", model, "var_f1", variance, method="full")
        low = 0.47 if (model == "GLoRIA") == true else 0.3
        for group, value in zip("abcd", (low, 0.5, 0.5, 0.51), strict=True):
            about = {"attribute": "age_sex", "group": group, "method": "full"}
            add("nih-6x200", model, "macro_f1", value, **about)
        size = {"GLoRIA": 0.01, "MedCLIP-ViT": 0.12}.get(model, 0.05)
        size = size if true else 0.13 - size
        rises = (model != "GLoRIA") == true
        for metric in GAPS:
            for where in (SEX, AGE):
                before = size / 2 if rises else 2 * size
                limits = {"ci_low": -size - 0.01, "ci_high": -size / 2 if true else 0.2}
                gap("nih-6x200", model, metric, before, where, method="zero-shot")
                # printed without direction: the sign must not matter
                gap("nih-6x200", model, metric, -size, where, method="full", **limits)
    return schema.results(rows)


@pytest.mark.parametrize("true", [True, False])
def test_every_claim_can_be_confirmed_and_refuted(true):
    judged = ledger.judge(planted(true)).set_index("id")
    verdicts = judged["verdict"].drop(list(CONTRADICTED))
    assert verdicts.eq("reproduced" if true else "differs").all(), verdicts.to_string()
    settled = judged.loc[list(CONTRADICTED)]
    assert (settled["verdict"] == published.CONTRADICTED).all()
    # What print contradicts is decided on these numbers too. Two of the five cannot hold together
    # with the claims on CXR-CLIP and on BioMedCLIP.
    held = settled["reason"].str.contains(r"; on [a-z0-9-]+: holds")
    assert held.sum() == (3 if true else 0)
    assert settled["reason"].str.contains(r"; on [a-z0-9-]+: (?:holds|does not hold)").all()


def test_the_authors_own_tables_contradict_exactly_these_claims():
    judged = ledger.judge(authors.results()).set_index("id")
    judged = judged[judged["paper"] == "S"]
    by_verdict = judged.groupby("verdict").groups
    assert set(by_verdict[published.CONTRADICTED]) == {c for c in CONTRADICTED if c[0] == "s"}
    # Not printed in the paper: with Asian patients, gaps by race exceed gaps by age.
    assert set(by_verdict["differs"]) == {"s-age-over-race-with-all-groups"}
    assert set(by_verdict["reproduced"]) == {
        "s-age-over-sex",
        "s-age-over-race",
        "s-asian-patients-stand-out",
        "s-widest-intervals",
        "s-better-than-chance-on-average",
        "s-best-three",
        "s-drains-help-all-but-one",
        "s-ranking-survives",
    }
    drains = judged.loc["s-drains-help-every-model", "reason"]
    said = "in print: does not hold, 1 of 6 cases against it: CXR-CLIP by 0.06; 5 without a number"
    assert drains.startswith(said)


def test_what_is_said_of_the_authors_files_is_what_they_hold():
    found = dict(list(published.prepared(authors.results()).groupby("cohort")))
    in_print = published.prepared(published.load())
    for claim in ledger.CLAIMS:
        printed = outcome(claim, in_print[in_print["cohort"] == claim.cohort], claim.models)
        of_files = outcome(claim, found.get(claim.cohort, in_print.iloc[:0]), claim.models)
        decided = printed.holds is not None and "without a number" not in printed.text
        said = {None: "", True: f"holds, {of_files.text}", False: f"does not hold, {of_files.text}"}
        assert claim.files == ("" if decided else said[of_files.holds]), claim.id


def test_the_ledger_of_the_authors_own_tables_differs_in_no_number():
    entries = ledger.ledger(authors.results())
    numbers = entries[entries["artefact"] != ledger.SAID]
    assert not numbers["verdict"].eq("differs").any()
    flagged = numbers[numbers["verdict"] == published.CONTRADICTED]
    assert len(flagged) == 3 and flagged["item"].str.startswith("CXR-CLIP, ").all()


def test_printed_numbers_support_the_claims_that_they_can_decide():
    """Print as if it had been run: Table 1 and Table 2 decide eleven claims of S."""
    judged = ledger.judge(published.load().query("paper == 'S'")).set_index("id")["verdict"]
    decided = judged[judged.index.str.startswith("s-")]
    assert decided[decided == "reproduced"].index.tolist() == [
        "s-better-than-chance-on-average",
        "s-best-three",
        "s-sex-and-age-are-readable",
        "s-knn-misses-race",
        "s-linear-probe-misses-race",
        "s-mlp-reads-race",
        "s-mlp-best-on-average",
    ]


def test_another_cohort_is_not_comparable_and_shows_its_outcome():
    drain = {"metric": "adjusted_auprc", "attribute": "drain", "group": published.GAP}
    rows = [phantom(**drain, value=0.2), phantom(**drain, value=-0.03, model="phantom-resnet")]
    judged = ledger.judge(schema.results(rows)).set_index("id")
    row = judged.loc["s-drains-help-all-but-one"]
    assert row["verdict"] == "not comparable (another cohort)" and row["n_rows"] == 2
    said = "on phantom: does not hold, 1 of 2 cases against it: phantom-resnet by 0.03"
    assert row["reason"] == f"in the authors' files: holds, all of 5 cases; {said}"
    # A claim that print contradicts says so, and still shows what was found here.
    row = judged.loc["s-drains-help-every-model"]
    assert row["verdict"] == published.CONTRADICTED and row["reason"].endswith(f"; {said}")
    # A claim about named models needs these models.
    row = judged.loc["s-ranking-survives"]
    assert row["verdict"] == "not run"
    assert "NEATX" in row["reason"] and "model MedCLIP" in row["reason"]


# --- keeping and collecting -----------------------------------------------------------------------


def test_keep_refuses_what_is_no_results_table():
    for table, words in (
        (awkward().drop(columns="n_patients"), "no column 'n_patients'"),
        (awkward().assign(patient_id=1), "unknown column 'patient_id'"),
        (pd.DataFrame({"image_id": [1], "score": [0.5]}), "no column 'paper'"),
        (awkward().assign(note=""), "needs its reason in `note`"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            notebook.keep(table)


def test_keep_is_silent_in_plain_python(capsys):
    notebook.keep(awkward())
    assert capsys.readouterr() == ("", "")


def test_kept_tables_come_back_as_they_were(built):
    path = built / "book" / "chapters" / "01_first.ipynb"
    nbformat.validate(nbformat.read(path, as_version=4))
    first, *others = notebook.kept(path)
    pd.testing.assert_frame_equal(first, awkward(), check_exact=True)
    assert [table["value"].item() for table in others] == [0.7, 0.9]
    assert notebook.kept(built / "book" / "chapters" / "02_zero_shot.ipynb") == []


def test_kept_tables_show_nowhere(built):
    page = (built / "_build" / "html" / "chapters" / "01_first.html").read_text()
    assert "positives" not in page.replace("awkward", "")


def test_collect_reads_notebooks_and_tables(built, tmp_path):
    awkward().to_csv(tmp_path / "a.csv", index=False)
    awkward().to_parquet(tmp_path / "b.parquet")
    notebook_path = built / "book" / "chapters" / "01_first.ipynb"
    found = ledger.collect([tmp_path / "a.csv", notebook_path, tmp_path / "b.parquet"])
    pd.testing.assert_frame_equal(schema.results(found), found)
    assert len(found) == 2 + 4 + 2 and found["seed"].dropna().tolist() == [2**40] * 3
    assert len(ledger.collect([])) == 0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("gone.csv", None, "no such file"),
        ("a.csv", "image_id,score\n1,0.5\n", "unknown column 'image_id'"),
        ("a.json", "{}", "expected a .ipynb, .csv or .parquet file"),
        ("a.ipynb", "[]", "not a notebook"),
        ("a.ipynb", "oops", "Expecting value"),
        ("a.parquet", "oops", ""),
    ],
)
def test_collect_names_the_file_that_it_cannot_use(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}: .*{re.escape(words)}"):
        ledger.collect([tmp_path / name])


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(built):
    html = (built / "_build" / "html" / "ledger.html").read_text(encoding="utf-8")
    return BeautifulSoup(html, "html.parser").select_one("article")


def test_page_counts_what_it_lists(page):
    rows = page.select("tr[data-verdict]")
    everything = ledger.ledger(schema.results([]))
    assert len(rows) == len(everything) == len(published.load()) + len(ledger.CLAIMS)
    table = page.select_one("table.cxr-ledger")
    heads = [th.get_text() for th in table.select("thead th")]
    for line in table.select("tbody tr"):
        verdict, *cells = (cell.get_text() for cell in line.find_all(["th", "td"]))
        listed = [row for row in rows if row["data-verdict"] == verdict]
        counts = dict(zip(heads[1:], cells, strict=True))
        assert int(counts["all"]) == len(listed)
        in_s = sum(row["data-paper"] == "S" for row in listed)
        assert int(counts["S numbers"]) + int(counts["S claims"]) == in_s
    others = [row for row in rows if "computed on phantom: 0.70" in row.get_text()]
    assert {row["data-verdict"] for row in others} == {"not comparable (another cohort)"}
    assert len(others) == 6  # one finding, six models


def test_page_is_grouped_by_paper_and_table(page):
    headings = [h.get_text().rstrip("#") for h in page.select("h2, h3")]
    assert headings[0].startswith("S: Sourget") and "S, Table 1" in headings
    assert headings.index("X: Sun et al. 2025") < headings.index("X, Fig. 3d")
    titled = page.find("section", id="s-table-1")
    assert len(titled.select("tr[data-verdict]")) == 96
    assert "Needed: MIMIC-CXR (PhysioNet, credentialed)" in titled.get_text()


def test_page_works_without_its_script_and_for_screen_readers(page):
    form = page.select_one("form#cxr-ledger-filter")
    assert form.has_attr("hidden") and not page.select("tr[hidden], section[hidden]")
    for field in form.select("select, input"):
        assert field.find_parent("label").get_text().strip()
    options = [o.get_text() for o in form.select("select[name=verdict] option")][1:]
    assert options == list(published.VERDICTS)
    regions = page.select("div.cxr-scroll")
    assert all(r["tabindex"] == "0" and r["aria-label"] for r in regions)
    assert all(r.select_one("th[scope=col]") and r.select_one("th[scope=row]") for r in regions)
    assert form.select_one("[role=status]") is not None
    [script] = page.select("script[src*=ledger]")
    assert script["src"] == "_static/ledger.js"


def test_script_is_part_of_the_book(built):
    script = built / "_build" / "html" / "_static" / "ledger.js"
    assert "http" not in script.read_text()


def test_metric_cards_are_a_page(built):
    html = (built / "_build" / "html" / "metric_cards.html").read_text(encoding="utf-8")
    assert "adjusted_auprc" in BeautifulSoup(html, "html.parser").select_one("article").get_text()


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def differing(tmp_path_factory):
    row = {"cohort": "nih-cxr14", "label": "all", "attribute": "all", "group": "all"}
    rows = [row | {"metric": "n_images", "value": 112120}]
    path = tmp_path_factory.mktemp("tables") / "counts.csv"
    schema.results(rows).to_csv(path, index=False)
    return path


def test_command_without_an_executed_chapter_says_what_to_do(mini, cxrbook):
    done = cxrbook("ledger", cwd=mini)
    assert done.returncode == 1 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("cxrbook: no executed chapter in ") and "run 'make book'" in line


def test_command_reads_the_chapters_of_the_book(built, cxrbook):
    done = cxrbook("ledger", cwd=built)
    assert done.returncode == 0 and done.stderr == ""
    counted, rest = done.stdout.split("\n\n", 1)
    assert counted.startswith("4 rows of results in 2 files\n") and "S numbers" in counted
    assert rest.index("S Table 1") < rest.index("S Table 2") < rest.index("X Fig. 2a")
    assert "computed on phantom: 0.70" in rest
    listed = rest.count("  [not run] ")
    [line] = [line for line in counted.splitlines() if line.startswith("not run")]
    assert int(line.split()[2]) == listed  # "not run", then the column of all


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 0),
        (["--fail-on-differs"], 1),
        (["--fail-on-differs", "--paper", "X"], 1),
        (["--fail-on-differs", "--paper", "S"], 0),
    ],
)
def test_command_fails_on_differs_when_asked_to(differing, mini, cxrbook, arguments, code):
    done = cxrbook("ledger", *arguments, differing, cwd=mini)
    assert done.returncode == code
    assert done.stderr == ("cxrbook: 1 entries of the ledger differ\n" if code else "")
    papers = {line[0] for line in done.stdout.splitlines() if re.match(r"[SX] \w", line)}
    assert papers == ({arguments[-1]} if "--paper" in arguments else {"S", "X"})


def test_command_names_a_file_that_it_cannot_use(mini, cxrbook):
    done = cxrbook("ledger", "gone.csv", cwd=mini)
    assert (done.returncode, done.stderr) == (1, "cxrbook: gone.csv: no such file\n")
