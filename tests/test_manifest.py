"""The manifests of runs and of the built book: what they say, and that no change goes unseen."""

import ast
import hashlib
import json
import shlex
import shutil
from datetime import datetime
from urllib.parse import unquote, urlsplit

import pytest

from cxrlib.book import manifest, parameters
from cxrlib.book.chapters import assign, find
from cxrlib.book.run import run

CHAPTERS, PAGES = "book/chapters", "_build/html"
ACTION = {"SoftwareApplication", "SoftwareSourceCode", "ComputationalWorkflow"}


def crate(folder):
    """The entities of a manifest by their names, each of which stands once."""
    text = json.loads((folder / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    entities = {entity["@id"]: entity for entity in text["@graph"]}
    assert len(entities) == len(text["@graph"])
    return entities


def references(value):
    if isinstance(value, list):
        return [name for x in value for name in references(x)]
    return [value["@id"]] if isinstance(value, dict) else []


@pytest.fixture
def wrong(copy_of_built):
    """What a verification finds wrong, with the folder of the book."""

    def problems(part=None):
        return [line for line, fine in manifest.verify(copy_of_built, part) if not fine]

    return copy_of_built, problems


@pytest.mark.parametrize("part", [CHAPTERS, PAGES])
def test_it_is_an_ro_crate(built, part):
    """What RO-Crate 1.1 and Process Run Crate 0.5 ask for, read from their texts."""
    folder = built / part
    graph = crate(folder)
    about = graph["ro-crate-metadata.json"]
    assert about["@type"] == "CreativeWork" and about["about"] == {"@id": "./"}
    assert about["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = graph["./"]
    assert root["@type"] == "Dataset" and root["name"] and root["description"]
    assert datetime.fromisoformat(root["datePublished"]).tzinfo
    assert {"name", "description"} <= graph[root["license"]["@id"]].keys()
    profile = graph[root["conformsTo"]["@id"]]
    assert profile["@id"] == "https://w3id.org/ro/wfrun/process/0.5"
    assert profile["@type"] == "CreativeWork"

    files = [entity for entity in graph.values() if entity["@type"] == "File"]
    assert references(root["hasPart"]) == [file["@id"] for file in files]
    for file in files:
        content = (folder / unquote(file["@id"])).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["contentSize"] == str(len(content)) and "/" in file["encodingFormat"]
    there = {p for p in folder.rglob("*") if p.is_file() and p.name[0] != "."}
    assert {folder / unquote(f["@id"]) for f in files} | {folder / manifest.FILE} == there

    actions = [entity for entity in graph.values() if entity["@type"] == "CreateAction"]
    assert references(root["mentions"]) == [action["@id"] for action in actions] != []
    for action in actions:
        assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
        assert action["name"] and action["description"].startswith("cxrbook ")
        assert datetime.fromisoformat(action["endTime"]).tzinfo
        assert graph[action["instrument"]["@id"]]["@type"] in ACTION
        assert set(references(action["result"])) <= {"./", *(file["@id"] for file in files)}
    for entity in graph.values():
        for value in entity.values():
            # flat: an entity refers to others, and holds none
            assert not any(x.keys() - {"@id"} for x in [value] if isinstance(x, dict))
            known = (name for name in references(value) if urlsplit(name).netloc == "")
            assert set(known) <= graph.keys()


def test_pages_are_those_of_the_chapters(built):
    graph = crate(built / PAGES)
    for name in references(graph["#build"]["object"]):
        notebook = built / CHAPTERS / f"{graph[name]['name']}.ipynb"
        assert graph[name]["sha256"] == hashlib.sha256(notebook.read_bytes()).hexdigest()


def changes(content):
    """Contents that differ in a byte at the start, in the middle, at the end, or in length."""
    for place in (0, len(content) // 2, len(content) - 1):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    yield content[:-1]
    yield content + b"\r"


def test_any_changed_byte_of_a_run_is_found(wrong):
    root, problems = wrong
    files = sorted(path for path in (root / CHAPTERS).iterdir() if path.name[0] != ".")
    assert len(files) == 7  # the manifest among them
    for path in files:
        content = path.read_bytes()
        for changed in changes(content):
            path.write_bytes(changed)
            [said] = problems(root / CHAPTERS)
            assert said.startswith(f"{CHAPTERS}/{path.name}: changed")
        path.write_bytes(content)
        assert problems(root / CHAPTERS) == []


def test_no_byte_of_the_manifest_can_change(wrong):
    root, problems = wrong
    path = root / CHAPTERS / manifest.FILE
    content = path.read_bytes()
    for place in range(0, len(content), 41):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert len(problems(root / CHAPTERS)) == 1, place


def test_any_changed_page_is_found(wrong):
    root, problems = wrong
    each = {path.suffix: path for path in manifest.inside(root / PAGES)}
    assert {".html", ".js", ".css", ".csv", ".png", ".ipynb"} <= each.keys()
    for path in each.values():
        path.write_bytes(b"x" + path.read_bytes()[1:])
    found = problems(root / PAGES)
    assert {line.partition(": changed; expected ")[0] for line in found} == {
        path.relative_to(root).as_posix() for path in each.values()
    }


def test_missing_and_added_files_are_found_and_what_to_do_is_said(wrong):
    root, problems = wrong
    (root / CHAPTERS / "01_first.parquet").unlink()
    (root / PAGES / "tables" / "other.csv").write_text("a")
    (root / CHAPTERS / ".hidden").touch()
    missing, added = problems()
    assert missing.startswith(f"{CHAPTERS}/01_first.parquet: missing; expected ")
    assert missing.endswith(": take it from a copy, or run the same command again")
    assert added == f"{PAGES}/tables/other.csv: added; no file of this run: remove it"


def test_a_tampered_table_leaves_with_one(wrong, cxrbook):
    root, _ = wrong
    done = cxrbook("verify", cwd=root)
    assert done.returncode == 0 and done.stderr == ""
    own = crate(root / CHAPTERS)[manifest.FILE]["identifier"]
    first = f"{CHAPTERS}: 6 files as they were when the run ended; manifest {own}"
    assert done.stdout.splitlines()[0] == first
    path = root / CHAPTERS / "01_first.parquet"
    path.write_bytes(path.read_bytes()[::-1])
    done = cxrbook("verify", cwd=root)
    assert done.returncode == 1 and done.stderr == "cxrbook: 1 problem, see above\n"
    assert done.stdout.startswith(f"{CHAPTERS}/01_first.parquet: changed; expected ")


def test_what_was_tampered_with_is_not_taken_for_a_result(wrong):
    """By another run into the same folder, of which the manifest is written anew."""
    root, problems = wrong
    path = root / CHAPTERS / "01_first.ipynb"
    path.write_text(path.read_text().replace("0.87 [0.84", "0.97 [0.94"))
    manifest.update(root / CHAPTERS, {"02_zero_shot": manifest.RUNNING})
    assert run(root, find(root, "all"))[0] == path  # it takes both as done
    changed, other = problems()
    assert changed.startswith(f"{CHAPTERS}/01_first.ipynb: changed")
    assert other == f"{PAGES}: the page of 01_first is of another run of it: build the book again"


def test_a_run_that_was_cut_off_says_so_until_it_has_ended(wrong):
    root, problems = wrong
    manifest.update(root / CHAPTERS, {"02_zero_shot": manifest.RUNNING})  # and is killed here
    [said] = problems(root / CHAPTERS)
    assert said.startswith(f"{CHAPTERS}: the run of 02_zero_shot has not finished (was cut off")
    run(root, find(root, "2"))
    assert problems(root / CHAPTERS) == []
    for broken in ("{", '{"@graph": [{"@id": "x", "@type": "File"}, 1]}'):
        (root / CHAPTERS / manifest.FILE).write_text(broken)
        assert "changed after it was written" in problems(root / CHAPTERS)[0]
    (root / CHAPTERS / manifest.FILE).unlink()
    [said] = problems(root / CHAPTERS)
    assert "so no run has ended here" in said
    run(root, find(root, "all"))
    assert problems(root / CHAPTERS) == []


def test_files_of_a_run_beside_its_chapters(wrong):
    root, problems = wrong
    answers = root / CHAPTERS / "dossier" / "answers.yaml"
    answers.parent.mkdir()
    answers.write_text("a: 1")
    assert "added" in problems(root / CHAPTERS)[0]
    manifest.update(root / CHAPTERS, files=[answers])
    assert problems(root / CHAPTERS) == []
    shutil.rmtree(answers.parent)
    manifest.update(root / CHAPTERS, {"02_zero_shot": manifest.ENDED})
    [said] = problems(root / CHAPTERS)
    assert said.startswith(f"{CHAPTERS}/dossier/answers.yaml: missing")


def test_a_chapter_that_is_no_more_is_forgotten_with_its_files(wrong):
    root, problems = wrong
    for path in (root / CHAPTERS).glob("02_*"):
        path.unlink()
    assert len(problems(root / CHAPTERS)) == 3
    manifest.update(root / CHAPTERS, project=["01_first"])
    assert problems(root / CHAPTERS) == []


def test_the_command_gives_back_the_parameters(mini):
    given = {"n_images": 7, "rate": 0.1 + 0.2, "quick": False, "how": "fancy"}
    given |= {"names": ["it's", 'a "b"', "$HOME *", "c d"]}
    said = parameters.command("01_first", given)
    program, verb, chapter, *rest = shlex.split(said)
    assert (program, verb, chapter, set(rest[::2])) == ("cxrbook", "run", "01_first", {"-p"})
    assert assign(find(mini, chapter), parameters.pairs(rest[1::2])) == {"01_first": given}
    assert parameters.command("01_first", {}) == "cxrbook run 01_first"
    options = {"rates": {"Edema": [0.5, "it's"]}, "whole": True}
    said = parameters.command("x", {"options": options})
    assert ast.literal_eval(shlex.split(said)[-1].removeprefix("options=")) == options
    said = parameters.command("x", {"options": {"split": "test"}})
    assert said == """cxrbook run x -p 'options={"split": "test"}'"""
