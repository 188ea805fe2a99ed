"""Parameters: one declaration, and the same refusal from every way to run a chapter."""

import subprocess
import sys

import pytest

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


def test_jobs_are_for_a_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(BookError, match="jobs=2 is for a CPU"):
        validate(declared(MEANING, "here"), {"jobs": 2, "device": "cuda"}, "chapter x")


def test_a_data_set_that_is_not_there_is_said_before_a_kernel_starts(monkeypatch, tmp_path):
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    with pytest.raises(BookError, match="check-data nih-cxr14"):
        validate(declared(MEANING, "here"), {"data": "nih"}, "chapter x")


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
    assert "number: 7" in done.stdout and "A line to 6." in done.stdout


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
            assert f"| `{name}` |" in text.split(f"## {chapter.title}\n")[1]
    assert isinstance(every[0], Chapter)
