"""The files for other places: conda, Binder, Colab, containers, GitHub. Read, not run, here."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import nbformat
import pytest
import typer
import yaml

from cxrlib.book.chapters import find
from cxrlib.cli import app
from tests.conftest import ROOT

COMMANDS = set(typer.main.get_command(app).commands)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def used(text):
    """What a text asks of the command line and of make."""
    commands = set(re.findall(r"(?:^|[\s/!])cxrbook ([a-z][\w-]*)", text))
    targets = {
        word for line in re.findall(r"\bmake ([a-z -]+)", text) for word in line.split() if word
    }
    return commands, targets


@pytest.mark.parametrize(
    "name", [".github/workflows/tests.yml", ".github/workflows/publish.yml", "Dockerfile"]
)
def test_commands_of_other_places_are_there(name):
    text = (ROOT / name).read_text()
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    commands, targets = used(code.replace("--no-install-recommends chromium git make", ""))
    assert commands <= COMMANDS and targets <= TARGETS, (commands, targets)
    assert commands or targets or ".ci/run" in code


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.stem)
def test_workflows_are_valid_and_their_scripts_exist(path):
    flow = yaml.safe_load(path.read_text())
    assert flow[True] and flow["permissions"]  # YAML reads the key "on" as true
    for job in flow["jobs"].values():
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            for script in re.findall(r"(?:^|\s)([\w./-]+\.sh|\.ci/run)", step.get("run", "")):
                assert (ROOT / script).stat().st_mode & 0o111, script


def test_one_lock_for_everybody():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [pip] = [x["pip"] for x in environment["dependencies"] if isinstance(x, dict)]
    assert pip == ["-r requirements.lock"]
    assert "--hash=sha256:" in (ROOT / "requirements.lock").read_text()
    assert (ROOT / "postBuild").stat().st_mode & 0o111
    done = subprocess.run(["sh", "-n", ROOT / "postBuild"], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_colab_runs_a_chapter_that_exists():
    notebook = nbformat.read(ROOT / "docs" / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    settings = {}
    exec(code[0].source, settings)
    assert find(ROOT, settings["CHAPTER"])
    text = "\n".join(cell.source for cell in code)
    commands, targets = used(text)
    assert "run" in commands <= COMMANDS and targets == {"sync"}


def imported(*folders):
    """Packages that modules and chapters import, wherever they do, without the project's own."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    own = {"cxrlib", "tests", *(file.stem for file in files)}
    found = set()
    for node in chain.from_iterable(ast.walk(ast.parse(file.read_text())) for file in files):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found} - own - sys.stdlib_module_names


def test_every_package_that_is_imported_is_declared():
    """Nothing rests on what another package happens to bring along."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    more, brought_by = project["optional-dependencies"], packages_distributions()

    def lacking(folders, lines):
        declared = {plain(re.match(r"[\w.-]+", line)[0]) for line in lines}
        return [n for n in imported(*folders) if declared.isdisjoint(map(plain, brought_by[n]))]

    def plain(name):
        return re.sub("[-_.]+", "-", name).lower()

    run = project["dependencies"] + more["ray"]
    assert lacking(["cxrlib", "chapters", "book/_ext"], run) == []
    assert lacking(["tests", "book/_ext"], run + more["dev"]) == []


def test_what_is_cited_is_said_once():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{cited["version"]}"' in project
    changes = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## (\S+), (\S+)$", changes, re.MULTILINE).groups()
    assert newest == (cited["version"], str(cited["date-released"]))
    assert f'license = "{cited["license"]}"' in project
    assert [r["title"] for r in cited["references"]] and Path(ROOT / "LICENSE").is_file()
