"""Every declared parameter is read by its chapter, and changes what a run leaves."""

import ast
import shutil

import pytest

from cxrlib.book import record
from cxrlib.book.chapters import chapters
from cxrlib.book.run import run
from tests.conftest import ROOT

# What makes a chapter quick; each value goes to the chapters that declare the parameter.
SMALL = {
    "n_images": 300,
    "n_twins": 240,  # of the films, beyond which more would change nothing
    "n_detector": 200,
    "n_resamples": 30,
    "n_permutations": 30,
    "n_draws": 3,
    "n_splits": 2,
    "n_simulations": 20,
    "epochs": 1,
    "epochs_head": 1,
    "epochs_encoder": 1,
    "n_seeds": 1,
    "seed": 7,
}
DECLARED = [(chapter, name) for chapter in chapters(ROOT) for name in chapter.parameters]


def read_names(chapter):
    """Names that the code of a chapter loads to do something with them.

    Declarations do not count, nor tests of a value: assertions, and conditions that only raise.
    """

    class Loaded(ast.NodeVisitor):
        def __init__(self):
            self.names = set()

        def visit_Name(self, node):
            if isinstance(node.ctx, ast.Load):
                self.names.add(node.id)

        def visit_Assert(self, node):
            pass

        def visit_If(self, node):
            if node.orelse or not all(isinstance(x, ast.Raise) for x in node.body):
                self.generic_visit(node)

    found = Loaded()
    for cell in chapter.notebook.cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            found.visit(ast.parse(cell.source))
    return found.names


@pytest.mark.parametrize("chapter", chapters(ROOT), ids=lambda c: c.name)
def test_every_declared_parameter_is_read(chapter):
    assert set(chapter.parameters) - read_names(chapter) == set()


def test_a_parameter_that_is_only_checked_is_not_read(mini):
    path = mini / "chapters" / "01_first.py"
    path.write_text(
        path.read_text()
        + '\n# %%\nassert rate < 1\nif how == "fancy":\n    raise ValueError(how)\nprint(quick)\n'
    )
    found = read_names(chapters(mini)[0])
    assert "quick" in found and not {"rate", "how", "names"} & found


def test_a_changed_parameter_changes_card_and_numbers(copy_of_built, tmp_path):
    root = copy_of_built
    [first, _] = chapters(root)
    before = record.read(root / "book" / "chapters" / "01_first.ipynb")
    [path] = run(root, [first], {"n_images": 33}, tmp_path)
    after = record.read(path)
    given = [of.card["parameters"]["n_images"] for of in (before, after)]
    assert given == [20, 33]
    before_text, text = (of.card["said"]["paragraph 1"] for of in (before, after))
    assert "Said: 20;" in before_text and text == before_text.replace("20", "33")
    assert before.card["key"] != after.card["key"]


# --- the real chapters, one by one: hours, so only when asked for ---

FREE = {
    "device": "numbers must not depend on it",
    "precision": "of a GPU; a CPU gives nearly the same",
    "jobs": "how many trainings at a time, with the same result",
}
OTHER = {
    "models": "phantom-vit",
    "finding": "Edema",
    "probed": "phantom-vit",
    "options": {"dials": {"contrast": {}}},
    "protocol": "as_published",
    "label_error": {
        "Pneumothorax": {"sensitivity": 0.6, "positives": 50, "specificity": 1, "negatives": 90}
    },
    "borrow": "sex,age_group",
    "seed": 2024,
    "rates": "none",
    "grid": "full",
    "specificity": 0.7,
    "silent": 0.5,
    "harm_ratio": 4.0,
    "size": 64,
    "n_seeds_encoder": 2,
    "price": 8.0,
    "device_tflops": 312.0,
    "device_share": 0.5,
}
PLAIN = "what it reads of it, preprocessing and a capital, phantoms do not have"
SAME = {
    ("25", "n_twins"): "its moves are in a table that is shown and not kept",
    ("29", "protocol"): PLAIN,
    ("30", "protocol"): PLAIN,
}
NEEDS_FILES = {"data": "another cohort needs its files; phantoms are the only one without"}


def second(parameter, small):
    """A second value of a parameter, near the small one."""
    if parameter.name in OTHER:
        return OTHER[parameter.name]
    now = small.get(parameter.name, parameter.default)
    if isinstance(now, float):
        return now * 1.2 or 0.1
    assert isinstance(now, int), f"give {parameter.name} a second value in OTHER"
    return now + max(1, now // 5)


def small_of(chapter):
    """The small values of the parameters that a chapter declares, within their limits."""
    declared = chapter.parameters
    limits = {name: declared[name].limits for name in SMALL.keys() & declared.keys()}
    return {name: max(SMALL[name], of.get("ge", SMALL[name])) for name, of in limits.items()}


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """Runs a chapter in small settings with one parameter changed, each only once."""
    folder, done = tmp_path_factory.mktemp("read"), {}

    def of(chapter, **changed):
        label = f"{chapter.name}-{'-'.join(changed)}"
        if label not in done:
            [path] = run(ROOT, [chapter], small_of(chapter) | changed, folder / label)
            done[label] = record.read(path)
        return done[label]

    yield of
    shutil.rmtree(folder)


@pytest.mark.slow  # a run of a chapter for each of its parameters: hours
@pytest.mark.parametrize(
    ("chapter", "name"), DECLARED, ids=[f"{c.number}-{name}" for c, name in DECLARED]
)
def test_every_parameter_changes_the_results(small_run, chapter, name):
    if why := (FREE | NEEDS_FILES).get(name) or SAME.get((chapter.number, name)):
        pytest.skip(why)
    before = small_run(chapter)
    after = small_run(chapter, **{name: second(chapter.parameters[name], small_of(chapter))})
    same_table = before.table.equals(after.table)
    assert not same_table or before.card["said"] != after.card["said"]
