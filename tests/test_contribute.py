"""The contributor page: its recipes run as they stand, pairing and the hooks do what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import jupytext
import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

from cxrlib import models
from cxrlib.book.chapters import FILTERS, Chapter, chapters, find, out_of_sync, script_text, sync
from cxrlib.book.run import run
from cxrlib.core import places
from cxrlib.core.errors import BookError
from cxrlib.models.clip import TokenCLIP
from tests.conftest import ROOT

PAGE = (ROOT / "book" / "contribute.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"^```\{code-block\} \w+\n:caption: ([^\n]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
RECIPES = re.findall(r"^\(recipe-(\w+)\)=\n(.*?)(?=^\(recipe|\Z)", PAGE, re.DOTALL | re.MULTILINE)
BLOCKS = {name: BLOCK.findall(text) for name, text in RECIPES}


def place(root, caption, text):
    """Put a block of the page where its caption says; "try it" is left to the caller."""
    name, _, where = caption.partition(", ")
    path = root / name.strip("`")
    if not where:
        path.write_text(text, encoding="utf-8")
        return
    before = path.read_text(encoding="utf-8")
    if where == "at the end":
        path.write_text(before + text, encoding="utf-8")
        return
    line = re.fullmatch(r"below `(.+)`", where)[1]
    found = re.search(rf"^ *{re.escape(line)}\n", before, re.MULTILINE)
    path.write_text(before[: found.end()] + text + before[found.end() :], encoding="utf-8")


def test_there_are_five_recipes_of_less_than_40_lines():
    assert list(BLOCKS) == ["model", "file", "cohort", "metric", "chapter"]
    for name, blocks in BLOCKS.items():
        assert 0 < sum(text.count("\n") for _, text in blocks) < 40, name


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """What the recipes of the library print, in a copy of it that has them all."""
    folder = tmp_path_factory.mktemp("contributed")
    shutil.copytree(
        ROOT / "cxrlib", folder / "cxrlib", ignore=shutil.ignore_patterns("__pycache__")
    )
    clinic = folder / "data" / "clinic"
    clinic.mkdir(parents=True)
    films = {"film": list("abc"), "person": [1, 1, 2], "file": ["a.png", "b.png", "c.png"]}
    films |= {"sex": list("FFM"), "years": [40, 41, 70], "projection": ["PA", "AP", "PA"]}
    pd.DataFrame(films | {"ptx": [0, 1, 0]}).to_csv(clinic / "films.csv", index=False)
    for i, file in enumerate(films["file"]):
        film = np.add.outer(np.arange(20), 3 * np.arange(30)) + 40 * i
        Image.fromarray(film.astype(np.uint8)).save(clinic / file)
    lines = []
    for name in ("model", "cohort", "metric"):
        for caption, text in BLOCKS[name]:
            if caption == "try it":
                lines += [f'print("=== {name}")', text]
            else:
                place(folder, caption, text)
    env = os.environ | {"PYTHONPATH": str(folder), "CXRBOOK_DATA": str(folder / "data")}
    env["CXRBOOK_CACHE"] = str(folder / "cache")
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    parts = re.split(r"^=== (\w+)\n", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_model_scores_films(tried):
    assert tried["model"].count("seeded:mine") == 4
    assert "zero-shot" in tried["model"]


def test_a_model_is_a_file_anywhere(tmp_path, monkeypatch):
    ((caption, text),) = BLOCKS["file"]
    place(tmp_path, caption, text)
    image = {"image_size": 224, "patch_size": 32, "width": 64, "layers": 2}
    weights = TokenCLIP(32, image, {"width": 64, "heads": 2, "layers": 2}).state_dict()
    save_file(weights, tmp_path / "mine.safetensors")
    monkeypatch.delenv(places.PLACES, raising=False)
    model = models.load_model(f"own:{tmp_path}/mine.py")
    assert model.name == "own:mine.py" and model.card["embed_dim"] == 32
    assert model.logit_scale == pytest.approx(1 / 0.07)
    assert model.card["sources"] == ["NIH-CXR14"] and not model.card["sources_complete"]


def test_the_cohort_has_its_flow_and_films(tried):
    assert "films that can be read" in tried["cohort"]
    assert "(20, 30)" in tried["cohort"]


def test_the_metric_has_values_intervals_and_a_card(tried):
    assert tried["metric"].rstrip().endswith("True")
    value, low, high = map(
        float, re.search(r"Edema +(\S+) +(\S+) +(\S+)", tried["metric"]).groups()
    )
    assert low < value < high


def test_the_chapter_runs_and_is_in_the_form_of_its_pair(mini, tmp_path):
    ((caption, text),) = BLOCKS["chapter"]
    assert caption[10:12] not in [c.number for c in chapters(ROOT)]
    place(mini, caption, text)
    chapter = find(mini, "mine")[0]
    assert script_text(chapter) == text
    assert chapter.about["needs"] == ["01_data_curation"]
    (path,) = run(mini, [chapter], {"n_images": 60}, tmp_path / "out", 1)
    executed = path.read_text(encoding="utf-8")
    assert "films on average" in executed and "image/png" in executed


def test_a_number_that_is_taken_is_refused(mini):
    (mini / "chapters" / "02_again.py").write_text(BLOCKS["chapter"][0][1], encoding="utf-8")
    with pytest.raises(BookError, match=r"02_again\.py and 02_zero_shot\.py have one number"):
        find(mini, "2")


# --- pairing -------------------------------------------------------------------------------------


def paired(source, folder):
    """A book's scripts and notebooks beside the project's jupytext.toml."""
    (folder / "chapters").mkdir(parents=True)
    shutil.copy(ROOT / "jupytext.toml", folder)
    for path in [c.path for c in chapters(source)]:
        shutil.copy(path, folder / "chapters")
    return folder


def synced(folder, *names):
    command = [sys.executable, "-m", "jupytext", "--sync", *names]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def test_the_filters_are_those_of_the_library():
    settings = tomllib.loads((ROOT / "jupytext.toml").read_text())
    assert settings.items() >= FILTERS.items()


@pytest.mark.parametrize("chapter", chapters(ROOT), ids=lambda c: c.name)
def test_a_round_trip_leaves_a_chapter_as_it_is(chapter):
    """Script -> notebook file -> script, as saving in JupyterLab does."""
    text = chapter.path.read_text(encoding="utf-8")
    notebook = nbformat.reads(nbformat.writes(jupytext.reads(text, fmt="py:percent")), as_version=4)
    notebook.metadata["jupytext"] = dict(FILTERS)
    assert jupytext.writes(notebook, fmt="py:percent") == script_text(chapter) == text


def test_an_edit_of_the_notebook_lands_in_the_script(mini, tmp_path):
    folder = paired(mini, tmp_path / "paired")
    sync(folder)
    script, notebook = (folder / "chapters" / f"01_first.{end}" for end in ("py", "ipynb"))
    before = script.read_text()
    content = json.loads(notebook.read_text())
    cell = next(c for c in content["cells"] if "Said: {n_images};" in "".join(c["source"]))
    cell["source"] = [x.replace("{n_images}", "{n_images + 1}") for x in cell["source"]]
    cell["execution_count"] = 3
    cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["an output"]}]
    notebook.write_text(json.dumps(content))
    os.utime(script, (1, 1))  # the notebook is the newer one
    synced(folder, "chapters/01_first.ipynb")
    assert script.read_text() == before.replace("Said: {n_images};", "Said: {n_images + 1};")
    assert "an output" in notebook.read_text()
    assert notebook in out_of_sync(folder)[0]
    sync(folder)
    assert out_of_sync(folder) == ([], [])
    assert "an output" not in notebook.read_text()


def test_only_chapters_are_paired(mini, tmp_path):
    folder = paired(mini, tmp_path / "paired")
    sync(folder)
    elsewhere = folder / "mine.ipynb"
    shutil.copy(folder / "chapters" / "01_first.ipynb", elsewhere)
    synced(folder, "mine.ipynb")
    assert not elsewhere.with_suffix(".py").exists()


def test_a_header_in_another_form_is_drift(mini):
    sync(mini)
    path = mini / "chapters" / "01_first.py"
    text = path.read_text()
    path.write_text(text.replace("#     goals:\n", "#     goals:  \n"))
    assert out_of_sync(mini) == ([path], [])
    assert Chapter(path).about["goals"] == ["read a miniature book"]
    sync(mini)
    assert path.read_text() == text


# --- hooks ---------------------------------------------------------------------------------------

HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]


def test_the_hooks_are_valid_local_and_there():
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    subprocess.run(command, cwd=ROOT, check=True)
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"]  # nothing is fetched
    for hook in HOOKS:
        if hook["language"] == "pygrep":  # a pattern, no program
            continue
        assert hook["language"] == "system"
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert shutil.which(program, path=os.path.dirname(sys.executable)), hook["entry"]


def test_notebooks_with_outputs_are_refused(mini):
    sync(mini)
    (hook,) = [hook for hook in HOOKS if hook["id"] == "outputs"]
    clean = mini / "chapters" / "01_first.ipynb"
    assert re.search(hook["files"], "chapters/01_first.ipynb")

    def refuses(path):
        command = [sys.executable, "-m", "pre_commit.languages.pygrep", hook["entry"], path]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    assert refuses(clean)[0] == 0
    content = json.loads(clean.read_text())
    code = [c for c in content["cells"] if c["cell_type"] == "code"]
    for key, value in (("execution_count", 1), ("outputs", [{"output_type": "stream"}])):
        spoilt = clean.with_name("02_spoilt.ipynb")
        kept, code[0][key] = code[0][key], value
        spoilt.write_text(json.dumps(content))
        code[0][key] = kept
        returned, text = refuses(spoilt)
        assert returned == 1 and "02_spoilt.ipynb" in text
