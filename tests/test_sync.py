"""Chapters' scripts and their paired notebooks."""

import json

import jupytext
import pytest

from cxrlib.book.chapters import chapters, out_of_sync, sync
from cxrlib.book.parameters import declared
from cxrlib.core.errors import BookError
from tests.conftest import ROOT


def test_the_project_is_in_sync():
    assert out_of_sync(ROOT) == ([], [])


@pytest.mark.parametrize("chapter", chapters(ROOT), ids=lambda c: c.name)
def test_title_and_parameters_are_those_that_jupytext_reads(chapter):
    cells = jupytext.read(chapter.path, fmt="py:percent").cells
    text = next(c.source for c in cells if c.cell_type == "markdown")
    assert text.splitlines()[0] == f"# {chapter.title}"
    [tagged] = [c for c in cells if "parameters" in c.metadata.get("tags", [])]
    assert chapter.parameters == declared(tagged.source, "the notebook")


def test_notebooks_carry_no_outputs_and_stable_ids(mini):
    sync(mini)
    path = mini / "chapters" / "01_first.ipynb"
    notebook = json.loads(path.read_text())
    assert [c["id"] for c in notebook["cells"]] == [
        f"cell-{i:03d}" for i in range(len(notebook["cells"]))
    ]
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    assert code[0]["metadata"]["tags"] == ["parameters"]
    before = path.read_bytes()
    assert sync(mini) == []
    path.unlink()
    sync(mini)
    assert path.read_bytes() == before


def test_drift_is_found(mini):
    sync(mini)
    first, second = (mini / "chapters" / f"{n}.ipynb" for n in ("01_first", "02_zero_shot"))
    second.write_text(second.read_text().replace("A chapter", "Another chapter"))
    assert out_of_sync(mini) == ([second], [])
    first.unlink()
    assert out_of_sync(mini) == ([first, second], [])
    sync(mini)
    assert out_of_sync(mini) == ([], [])


def test_a_notebook_without_a_script_is_found(mini):
    sync(mini)
    (mini / "chapters" / "02_zero_shot.py").unlink()
    assert [p.name for p in out_of_sync(mini)[1]] == ["02_zero_shot.ipynb"]
    with pytest.raises(BookError, match="has no script"):
        sync(mini)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_byte_order_mark_changes_nothing_and_sync_takes_it_out(mini, ends):
    sync(mini)
    script = mini / "chapters" / "01_first.py"
    plain, pair = script.read_bytes(), script.with_suffix(".ipynb").read_bytes()
    about = chapters(mini)[0].about
    script.write_bytes(b"\xef\xbb\xbf" + plain.replace(b"\n", ends.encode()))
    [first, _] = chapters(mini)
    assert first.about == about and first.about["goals"]
    assert "\ufeff" not in str(first.notebook) and "n_images" in first.parameters
    assert out_of_sync(mini)[0] == [script]
    assert sync(mini) == [script]
    assert script.read_bytes() == plain
    assert script.with_suffix(".ipynb").read_bytes() == pair


@pytest.mark.parametrize(("encoding", "line"), [("latin-1", 11), ("cp1252", 11), ("utf-16", 1)])
@pytest.mark.parametrize("use", ["title", "parameters", "notebook", "sync"])
def test_a_chapter_in_another_encoding_is_named(mini, encoding, line, use):
    script = mini / "chapters" / "01_first.py"
    text = script.read_text().replace("# It cites", "# F\xfcr: it cites")
    assert "F\xfcr" in text.splitlines()[10]
    script.write_bytes(text.encode(encoding))
    with pytest.raises(BookError, match=rf"01_first\.py: line {line} is not UTF-8 text; save"):
        sync(mini) if use == "sync" else getattr(chapters(mini)[0], use)
