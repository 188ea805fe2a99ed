"""Parameters: one declaration, and the same refusal from every way to run a chapter."""

import re
import subprocess
import sys

import pytest

from cxrlib import cohorts
from cxrlib.book.chapters import Chapter, chapters, find, sync
from cxrlib.book.parameters import declared, page, validate
from cxrlib.book.run import run
from cxrlib.core.errors import BookError
from tests.conftest import ROOT, environment

CELL = """
n: int = 20  # [2, 100] how many
share: float = 0.5  # (0, 1) of them
rate: float = 1e-3  # (0, inf) of learning
how: str = "plain"  # {plain, fancy} in which way
free: str = "a"  # [sic] words of your own
maybe: int | None = None
fold: int = 2  # {1, 2, 4} of them
flag: bool = False
table: dict = {}
words: str | None = "5"
"""


def test_a_declaration_is_read_with_its_bounds():
    found = declared(CELL, "here")
    assert found["n"].help == "how many" and found["n"].allowed == "in [2, 100]"
    assert found["rate"].allowed == "in (0, inf)"
    assert found["how"].choices == ("plain", "fancy")
    assert found["free"].allowed == "" and found["free"].help == "[sic] words of your own"
    assert found["maybe"].default is None


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("n", ("2", "100", 50), ("1", "101", 2.5, "many", True)),
        ("share", ("0.01", 0.99), ("0", "1", "nan", "inf")),
        ("rate", ("1000000",), ("0", "-1", "inf")),
        ("how", ("plain", "fancy"), ("Plain", "", "plain,fancy")),
        ("maybe", ("none", "3", None), ("x", "1.5")),
        ("fold", ("1", 4), ("3", "x")),
        ("flag", ("true", "False", True), ("1", "yes", 0)),
        ("table", ('{"a": 1}', {}), ("[1]", "a", None)),
        ("words", ("7", "a"), ()),
    ],
)
def test_bounds_are_those_of_the_declaration(name, good, bad):
    parameters = declared(CELL, "here")
    for value in good:
        assert name in validate(parameters, {name: value}, "chapter x")
    for value in bad:
        with pytest.raises(BookError, match=rf"parameter '{name}' of chapter x") as caught:
            validate(parameters, {name: value}, "chapter x")
        assert caught.value.code == 2


def test_a_default_outside_of_its_own_bounds_is_refused():
    with pytest.raises(BookError, match="the default 1 of parameter 'n' is not in"):
        declared("n: int = 1  # [2, 100]", "here")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("n: int = 1.5", "the default 1.5 of parameter 'n' is not of type int"),
        ("n: set = 1", "'set'"),
    ],
)
def test_a_default_of_another_type_is_refused(line, said):
    with pytest.raises(BookError, match=said):
        declared(line, "here")


def test_a_declaration_spread_over_lines_is_refused():
    with pytest.raises(BookError, match="'n' is spread over lines"):
        declared("n: int = (\n    1  # [2, 100]\n)", "here")


MEANING = """
models: str = "all"
probed: str = "first two"
data: str = "phantom"
options: dict = {}
device: str = "cpu"
jobs: int = 1
"""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"models": "biovill"}, ["unknown model 'biovill'", "did you mean 'biovil'"]),
        ({"probed": "biovil", "models": "gloria"}, ["'biovil' is not among models='gloria'"]),
        ({"data": "nhi"}, ["unknown cohort 'nhi'", "'nih'"]),
        ({"options": {"sedd": 1}}, ["'phantom' has no option 'sedd'", "did you mean 'seed'"]),
        ({"options": {"dials": {"contrst": {}}}}, ["unknown dial 'contrst'", "'contrast'"]),
        ({"data": "nih", "options": {"dials": {}}}, ["cohort 'nih' has no option 'dials'"]),
        ({"device": "gpu"}, ["device='gpu'", "as torch names it"]),
    ],
)
def test_names_and_combinations_are_checked(given, words, monkeypatch, tmp_path):
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    with pytest.raises(BookError) as caught:
        validate(declared(MEANING, "here"), given, "chapter x")
    assert caught.value.code == 2
    assert all(word in str(caught.value) for word in ["chapter x", *words])


OPTIONS = [
    ("phantom", {"n_images": "60"}, "n_images is '60'; expected a valid integer"),
    ("phantom", {"n_images": 60.5}, "n_images is 60.5; expected a valid integer"),
    ("phantom", {"n_images": 0}, "n_images is 0; expected greater than or equal to 1"),
    ("phantom", {"n_images": True}, "n_images is True; expected a valid integer"),
    ("phantom", {"seed": None}, "seed is None; expected a valid integer"),
    ("phantom", {"split": "tset"}, "split is 'tset'; expected 'train', 'valid' or 'test'"),
    ("phantom", {"per_cell": 5}, "cohort 'phantom' has no option 'per_cell'"),
    ("phantom", {3: 1}, "cohort 'phantom' has no option 3"),
    ("phantom", {"dials": 3}, "dials is 3; expected a valid dictionary"),
    ("phantom", {"dials": {3: 1}}, "unknown dial 3"),
    ("phantom", {"dials": {"prevalence": "0.1"}}, "dial prevalence is '0.1'; expected a valid nu"),
    ("phantom", {"dials": {"prevalence": None}}, "dial prevalence is None; expected a valid num"),
    ("phantom", {"dials": {"prevalence": 2}}, "dial prevalence=2: expected 0 to 1"),
    ("phantom", {"dials": {"images_per_patient": 1.5}}, "dial images_per_patient is 1.5; expect"),
    ("phantom", {"dials": {"contrast": {"sex": 0.5}}}, "expected a valid dictionary"),
    ("phantom", {"dials": {"contrast": {"sex": {"F": "0.5"}}}}, "expected a valid number"),
    ("phantom", {"dials": {"contrast": {"sex": {"female": 0.5}}}}, "unknown group sex=['female']"),
    (
        "nih",
        {"split": "patient"},
        "split is 'patient'; expected 'as listed', 'train', 'valid', 'test' or 'all'",
    ),
    ("nih", {"max_broken": "0.1"}, "max_broken is '0.1'; expected a valid number"),
    ("nih", {"max_broken": 10}, "max_broken is 10; expected less than or equal to 1"),
    ("nih", {"preprocessing": "paper_s"}, "expected 'authors' or 'paper S'"),
    ("mimic", {"labels": "certian"}, "labels is 'certian'; expected 'as_published', 'uncertain_"),
    ("mimic", {"views": ["frontal"]}, "views is ['frontal']; expected 'frontal' or 'all'"),
    ("own", {"access": "opne"}, "access is 'opne'; expected 'credentialed' or 'open'"),
    ("own", {"findings": "Edema"}, "'str' instances are not allowed as a Sequence value"),
]


@pytest.mark.parametrize(("data", "options", "said"), OPTIONS)
def test_values_inside_options_are_checked(data, options, said):
    given = {"data": data, "options": options}
    with pytest.raises(BookError, match=f"chapter x: options: .*{re.escape(said)}") as caught:
        validate(declared(MEANING, "here"), given, "chapter x")
    assert caught.value.code == 2
    with pytest.raises(ValueError, match=re.escape(said)):  # from a shell or a notebook
        cohorts.study(data, 60, 1, options)


def test_options_that_can_be():
    dials = {"contrast": {"sex": {"F": 1}, "site": {}}, "prevalence": 0, "underreport": {}}
    for options in ({}, {"dials": {}}, {"dials": None}, {"split": None, "size": 8, "dials": dials}):
        validate(declared(MEANING, "here"), {"data": "phantom", "options": options}, "chapter x")
    balanced = MEANING.replace("dict = {}", "dict = {}  # of the balanced cohort")
    of_x = {"data": "phantom", "options": {"split": "image"}}
    validate(declared(balanced, "here"), of_x, "chapter x")
    with pytest.raises(BookError, match="split is 'test'; expected 'patient' or 'image'"):
        validate(declared(balanced, "here"), {"options": {"split": "test"}}, "chapter x")


def test_jobs_are_for_a_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(BookError, match="jobs=2 is for a CPU"):
        validate(declared(MEANING, "here"), {"jobs": 2, "device": "cuda"}, "chapter x")


NIH = ["Data_Entry_2017_v2020.csv.gz", "test_list.txt", "train_val_list.txt"]
JPG = [f"mimic-cxr-jpg/2.1.0/mimic-cxr-2.0.0-{t}.csv.gz" for t in ("split", "metadata", "chexpert")]
IV = [f"mimiciv/3.1/hosp/{t}.csv.gz" for t in ("patients", "admissions")]


@pytest.mark.parametrize(
    ("data", "files", "said"),
    [
        ("nih", [], "check-data nih-cxr14"),
        ("nih", ["nih-cxr14/images/a.png"], None),  # of NIH's tables one is in the wheel
        ("nih", [f"nih-cxr14/{t}" for t in NIH[:2]], "has no train_val_list.txt"),
        ("nih", [f"nih-cxr14/{t}" for t in NIH], "has no films"),
        ("nih-6x200", [f"nih-cxr14/{t}" for t in NIH], "has no films"),
        ("nih-6x200", ["nih-cxr14/images_001/images/a.png"], None),
        ("mimic", [f"mimic-cxr/{t}" for t in JPG], "hosp/patients.csv.gz is not there"),
        ("mimic", [f"mimic-cxr/{t}" for t in JPG[:2] + IV], "chexpert.csv.gz is not there"),
        ("mimic", [f"mimic-cxr/{t}" for t in JPG + IV], None),
        ("own", ["own/films/a.png"], "has no cohort.csv"),
    ],
)
def test_data_that_are_not_there_are_said_before_a_kernel_starts(
    monkeypatch, tmp_path, data, files, said
):
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    if said is None:
        validate(declared(MEANING, "here"), {"data": data}, "chapter x")
        return
    with pytest.raises(BookError, match=f"chapter x: .*{re.escape(said)}") as caught:
        validate(declared(MEANING, "here"), {"data": data}, "chapter x")
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("models", "files", "said"),
    [
        ("biovil", [], "biovil: files are missing"),
        ("phantom-vit, biovil", ["biovil/vocab.txt"], "biovil: files are missing"),
        ("gloria", None, "no folder was given: set CXRBOOK_CHECKPOINTS"),
        ("seeded:biovil, phantom-vit", [], None),
        ("all", None, None),
    ],
)
def test_models_whose_files_are_missing_are_said_before_a_kernel_starts(
    monkeypatch, tmp_path, models, files, said
):
    monkeypatch.delenv("CXRBOOK_CHECKPOINTS", raising=False)
    if files is not None:
        monkeypatch.setenv("CXRBOOK_CHECKPOINTS", str(tmp_path))
    for file in files or ():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    if said is None:
        validate(declared(MEANING, "here"), {"models": models}, "chapter x")
    else:
        with pytest.raises(BookError, match=f"chapter x: .*{said}"):
            validate(declared(MEANING, "here"), {"models": models}, "chapter x")


def test_nothing_heavy_is_imported_for_the_checks():
    code = (
        "import sys\nfrom cxrlib.book.parameters import declared, validate\n"
        f"validate(declared({MEANING!r}, 'here'), "
        "{'models': 'all', 'data': 'phantom', 'options': {'dials': {'prevalence': 0}}}, 'x')\n"
        "print([m for m in ('torch', 'sklearn', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


BAD = [
    ("n_image", "3", "unknown parameter 'n_image' for .*; did you mean 'n_images'"),
    ("n_images", "many", "'n_images' of .*: 'many' is not of type int"),
    ("n_images", "1", r"'n_images' of .*: '?1'? is not in \[2, 100\]"),
    ("how", "fance", "'how' of .*: 'fance' is not one of plain, fancy .*did you mean 'fancy'"),
]


@pytest.mark.parametrize(("name", "value", "said"), BAD)
def test_the_driver_refuses(mini, name, value, said):
    with pytest.raises(BookError, match=said):
        run(mini, find(mini, "1"), {name: value})
    assert not (mini / "book" / "chapters").exists()


def command(root, *words):
    return subprocess.run(
        [sys.executable, *words], cwd=root, env=environment(), capture_output=True, text=True
    )


@pytest.mark.parametrize(("name", "value", "said"), BAD)
def test_a_script_refuses(mini, name, value, said):
    done = command(mini, "chapters/01_first.py", "-p", f"{name}={value}")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    with pytest.raises(BookError, match=said):
        raise BookError(line)
    assert done.stdout == ""


@pytest.mark.parametrize(("name", "value", "said"), [BAD[0], BAD[2]])
def test_papermill_refuses_in_the_first_cell(mini, name, value, said):
    sync(mini)
    pair = ["chapters/01_first.ipynb", "out.ipynb"]
    done = command(mini, "-m", "papermill", *pair, "-p", name, value)
    assert done.returncode != 0
    with pytest.raises(BookError, match=said):
        raise BookError(done.stderr)
    assert "Glued" not in done.stderr


def test_a_script_takes_parameters_and_prints(mini):
    done = command(mini, "chapters/01_first.py", "-p", "n_images=7")
    assert done.returncode == 0, done.stderr
    assert "Said: 7;" in done.stdout and "A line to 6." in done.stdout


def test_a_cell_run_alone_says_what_to_do():
    from cxrlib.book.chapters import check

    with pytest.raises(BookError, match="the parameters cell was not run"):
        check({"In": ["", "import os"]})


@pytest.mark.parametrize("chapter", chapters(ROOT), ids=lambda c: c.name)
def test_every_parameter_says_what_it_is_and_is_checked_first(chapter):
    for parameter in chapter.parameters.values():
        assert parameter.help, parameter.name
        if parameter.type in ("int", "float"):
            assert parameter.allowed, f"{parameter.name} has no range"
    code = [c for c in chapter.notebook.cells if c.cell_type == "code"]
    assert "parameters" in code[0].metadata["tags"]
    assert code[1].source.endswith("check(globals())")


def test_the_page_lists_every_parameter():
    every = chapters(ROOT)
    text = page(every)
    for chapter in every:
        for name in chapter.parameters:
            assert (
                f"<code>{name}</code></th>" in text.split(f". {chapter.title}\n")[1].split("##")[0]
            )
    assert isinstance(every[0], Chapter)
