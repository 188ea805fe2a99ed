"""Only what changed runs again: a chapter depends on the files that it used, and on no others."""

import json
import shutil
from pathlib import Path

import pytest

import cxrlib.book.run
from cxrlib.book import inputs, record
from cxrlib.book.chapters import chapters
from cxrlib.book.run import run
from cxrlib.core.errors import BookError

CHAPTER = """# %% [markdown]
# # A chapter

# %% tags=["parameters"]
seed: int = 1

# %%
"""

FIRST = """import subprocess
import sys

from cxrlib.core import errors

open("benchmarks/times.csv").close()
done = subprocess.run([sys.executable, "-c", "from cxrlib import by_a_worker"], check=True)
"""

SEVENTH = """from cxrlib import of_seven

of_seven.table()
"""

OF_SEVEN = '''"""Chapter 7 alone uses it."""
from importlib.resources import files


def table():
    return files("cxrlib").joinpath("data/of_seven.csv").read_text()
'''


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Two executed chapters, and a library of their own that tests may change."""
    root = tmp_path_factory.mktemp("inputs")
    library = root / "cxrlib"
    leave = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(cxrlib.book.run.LIBRARY, library, ignore=leave)
    (library / "of_seven.py").write_text(OF_SEVEN)
    (library / "data").mkdir()
    (library / "data" / "of_seven.csv").write_text("a\n1\n")
    for name in ("of_nobody", "by_a_worker"):
        (library / f"{name}.py").write_text('"""A module."""\n')
    (root / "benchmarks").mkdir()
    (root / "benchmarks" / "times.csv").write_text("seconds\n1\n")
    (root / "benchmarks" / "times.py").write_text("measured = 1\n")
    (root / "requirements.lock").write_text("# empty\n")
    (root / "chapters").mkdir()
    (root / "chapters" / "01_first.py").write_text(CHAPTER + FIRST)
    (root / "chapters" / "07_seventh.py").write_text(CHAPTER + SEVENTH)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cxrlib.book.run, "LIBRARY", library)
        assert executed(root) == {"01", "07"}  # all is unknown in the first run
        yield root


def executed(root):
    """Make the book; the numbers of the chapters that were executed."""

    def times():
        return {p.name[:2]: p.stat().st_mtime_ns for p in (root / "book").rglob("*.ipynb")}

    before = times()
    run(root, chapters(root))
    return {number for number, time in times().items() if time != before.get(number)}


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("cxrlib/of_nobody.py", set()),
        ("cxrlib/cohorts/new.py", set()),
        ("cxrlib/papers/published.csv", set()),
        ("benchmarks/times.py", set()),
        ("cxrlib/of_seven.py", {"07"}),
        ("cxrlib/data/of_seven.csv", {"07"}),
        ("cxrlib/data/new.csv", {"07"}),  # it may have looked for one
        ("cxrlib/by_a_worker.py", {"01"}),
        ("benchmarks/times.csv", {"01"}),
        ("benchmarks/gpu.json", {"01"}),
        ("chapters/07_seventh.py", {"07"}),
        ("cxrlib/__init__.py", {"01", "07"}),
        ("requirements.lock", {"01", "07"}),
    ],
)
def test_a_changed_or_new_file_runs_the_chapters_that_used_it(book, file, again):
    path = book / file
    text = path.read_text() if path.is_file() else ""
    comment = f"# of the test of {file}\n"
    path.write_text(text.replace('"""', '"""Told anew. ', 1) if '"""' in text else text + comment)
    assert executed(book) == again
    assert executed(book) == set()


def test_a_new_import_is_followed(book):
    source = book / "chapters" / "07_seventh.py"
    source.write_text(source.read_text() + "from cxrlib import of_nobody\n")
    assert executed(book) == {"07"}
    module = book / "cxrlib" / "of_nobody.py"
    module.write_text(module.read_text() + "new = 1\n")
    assert executed(book) == {"07"}


def test_a_chapter_whose_module_is_gone_is_no_longer_as_it_would_be(book):
    module = book / "cxrlib" / "of_seven.py"
    text = module.read_text()
    module.unlink()
    with pytest.raises(BookError, match="cannot import name 'of_seven'"):
        executed(book)
    module.write_text(text)
    assert executed(book) == set()


def test_a_card_that_does_not_tell_the_files_is_not_believed(book):
    path = record.beside(book / "book" / "chapters" / "07_seventh.ipynb")[0]
    card = json.loads(path.read_text())
    del card["code"]["files"]
    path.write_text(json.dumps(card))
    assert executed(book) == {"07"}


def test_the_card_lists_what_was_used(book):
    card = record.beside(book / "book" / "chapters" / "07_seventh.ipynb")[0]
    files = json.loads(card.read_text())["code"]["files"]
    now = inputs.hashes(inputs.places(book, book / "cxrlib"))
    assert files == {name: now.get(name) for name in files}
    assert {"cxrlib/of_seven.py", "cxrlib/data/of_seven.csv", "cxrlib/data/"} <= files.keys()
    assert (
        not {"cxrlib/stats/metrics.py", "cxrlib/book/run.py", "benchmarks/times.csv"} & files.keys()
    )


def test_weights_of_published_models_count_by_size_and_time(tmp_path, monkeypatch):
    weights = tmp_path / "weights" / "biovil" / "image.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"1")
    monkeypatch.setenv("CXRBOOK_CHECKPOINTS", str(tmp_path / "weights"))
    places = inputs.places(tmp_path, Path(cxrlib.book.run.LIBRARY))
    names = inputs.named([str(weights)], places)
    assert names == ["checkpoints/biovil/", "checkpoints/biovil/image.pt"]
    before = inputs.hashes(places)
    assert inputs.hashes(places) == before
    weights.write_bytes(b"22")
    changed = inputs.hashes(places)
    assert {name for name in before if changed[name] != before[name]} == {names[1]}
