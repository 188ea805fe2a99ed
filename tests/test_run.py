"""The driver: what it refuses, what it executes again, and what it leaves alone."""

import json
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from filelock import FileLock

import cxrlib.book.run
from cxrlib.book import manifest
from cxrlib.book.build import build
from cxrlib.book.chapters import assign, find, sync
from cxrlib.book.run import Progress, fingerprint, run, tasks
from cxrlib.cohorts.nih import LISTS
from cxrlib.core.errors import BookError
from tests.conftest import environment


def append(path, text):
    path.write_text(path.read_text() + text)


def files(folder):
    return sorted(p.name for p in folder.rglob("*")) if folder.exists() else []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_image": "3"}, ["unknown parameter 'n_image'", "did you mean 'n_images'"]),
        ({"n_images": "abc"}, ["n_images", "'abc' is not of type int"]),
        ({"n_images": "2.5"}, ["not of type int"]),
        ({"rate": "half"}, ["not of type float"]),
        ({"quick": "perhaps"}, ["not of type bool"]),
        ({"names": "3"}, ["not of type list"]),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_written(mini, given, words):
    with pytest.raises(BookError) as caught:
        run(mini, find(mini, "1"), given)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)
    assert not (mini / "_build").exists()
    assert not (mini / "book" / "chapters").exists()


def test_parameters_are_typed_and_defaults_left_out(mini):
    given = {"n_images": "7", "rate": "0.25", "quick": "false", "names": "['c']"}
    assert assign(find(mini, "1"), given)["01_first"] == {
        "n_images": 7,
        "rate": 0.25,
        "quick": False,
        "names": ["c"],
    }
    assert assign(find(mini, "1"), {"n_images": "20"})["01_first"] == {}


def test_unknown_chapter_names_the_nearest(mini):
    with pytest.raises(BookError, match="did you mean 'zero_shot'") as caught:
        find(mini, "zeroshot")
    assert caught.value.code == 2
    for query in ("2", "02", "zero_shot", "zero-shot", "02_zero_shot"):
        assert [c.name for c in find(mini, query)] == ["02_zero_shot"]


def test_missing_lock(mini):
    (mini / "requirements.lock").unlink()
    with pytest.raises(BookError, match=r"requirements\.lock is missing: restore it"):
        run(mini, find(mini, "1"))
    assert not (mini / "book" / "chapters").exists()


def test_unwritable_folder(mini):
    # A folder below a regular file cannot be made, not even by root.
    with pytest.raises(BookError, match="cannot write to"):
        run(mini, find(mini, "1"), out=mini / "requirements.lock" / "out")


def test_executed_again_only_after_a_change(copy_of_built):
    root, first = copy_of_built, find(copy_of_built, "1")
    target = root / "book" / "chapters" / "01_first.ipynb"
    before = target.stat().st_mtime_ns
    assert run(root, first) == [target]
    assert target.stat().st_mtime_ns == before

    append(first[0].path, "\n# %%\nprint('one more cell')\n")
    run(root, find(root, "1"))
    assert target.stat().st_mtime_ns > before
    assert "one more cell" in target.read_text()


def test_key_follows_the_folder_of_the_data(mini, tmp_path, monkeypatch):
    source = mini / "chapters" / "01_first.py"
    source.write_text(
        source.read_text().replace("rate: float", 'data: str = "phantom"\nrate: float')
    )
    (tmp_path / "nih-cxr14" / "images").mkdir(parents=True)
    for name in ("Data_Entry_2017_v2020.csv", *LISTS, "images/a.png"):
        (tmp_path / "nih-cxr14" / name).touch()
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    seen = []
    monkeypatch.setattr(
        cxrlib.book.run, "execute", lambda root, every, *_: seen.append(every[0].key([]))
    )

    def key(data):
        run(mini, find(mini, "1"), {"data": data})
        return seen[-1]

    nih, phantom = key("nih"), key("phantom-6x200")
    assert key("nih") == nih
    (tmp_path / "nih-cxr14" / "test_list.txt").write_text("a.png")
    assert key("nih") != nih
    assert key("phantom-6x200") == phantom


def test_fingerprint_sees_a_file_that_moved(tmp_path):
    (tmp_path / "a").write_text("same")
    before = fingerprint([tmp_path])
    (tmp_path / "a").rename(tmp_path / "b")
    assert fingerprint([tmp_path]) != before


def test_other_parameters_go_beside_the_book(copy_of_built):
    root = copy_of_built
    book = root / "book" / "chapters" / "01_first.ipynb"
    before = book.read_text()
    [path] = run(root, find(root, "1"), {"n_images": "4"})
    assert path.parent.parent == root / "_build" / "runs"
    metadata = json.loads(path.read_text())["metadata"]
    assert metadata["cxrbook"]["parameters"] == {"n_images": 4}
    assert book.read_text() == before


def test_executed_notebooks_are_deterministic(copy_of_built, tmp_path):
    root = copy_of_built
    [again] = run(root, find(root, "1"), out=tmp_path / "again")
    book = root / "book" / "chapters" / "01_first.ipynb"
    assert again.read_text() == book.read_text()
    assert "papermill" not in json.dumps(json.loads(again.read_text())["metadata"])


def test_failing_cell_is_named_and_nothing_is_replaced(copy_of_built, capsys):
    root = copy_of_built
    target = root / "book" / "chapters" / "02_zero_shot.ipynb"
    before = target.read_text()
    append(root / "chapters" / "02_zero_shot.py", "\n# %%\nnumber = 0\n1 / number\n")
    with pytest.raises(BookError) as caught:
        run(root, find(root, "all"))
    message = str(caught.value)
    assert "chapter 02_zero_shot, cell 8 of 8" in message
    assert "ZeroDivisionError: division by zero" in message
    assert target.read_text() == before
    kept = root / "_build" / "failed" / "02_zero_shot.ipynb"
    assert str(kept) in message
    assert "Traceback" in kept.read_text()
    assert not [name for name in files(root / "book") if name.endswith(".part")]
    problems = [line for line, fine in manifest.verify(root) if not fine]
    assert problems == [
        "book/chapters: the run of 02_zero_shot has not finished (failed or was stopped): "
        "the same command goes on"
    ]


SHORT = '# %% tags=["parameters"]\ndata: str = "phantom"\noptions: dict = {{}}\n\n# %%\n{}\n'


def test_kernels_start_where_the_temporary_folder_has_a_long_name(mini, tmp_path, monkeypatch):
    long = tmp_path / (60 * "\xfc")  # in bytes, too long for a socket even if tmp_path were ""
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    (mini / "chapters" / "01_first.py").write_text(SHORT.format("print(6 * 7)"))
    [made] = run(mini, find(mini, "1"))
    assert '"42\\n"' in made.read_text()
    assert not list(long.iterdir())


def test_without_a_short_folder_kernels_are_spoken_to_over_the_loopback(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + 99 * "a")
    monkeypatch.setattr("os.access", lambda *_: False)
    with cxrlib.book.run._channel() as channel:
        assert channel == {}  # Jupyter's own: TCP on 127.0.0.1


def test_a_failing_cell_is_told_where_the_project_cannot_be_written_to(mini, tmp_path):
    (mini / "_build").touch()  # no folder can be made here, not even by root
    (mini / "chapters" / "01_first.py").write_text(SHORT.format("1 / 0"))
    with pytest.raises(BookError, match=r"cell 2 of 2 .* ZeroDivisionError: division by") as caught:
        run(mini, find(mini, "1"), out=tmp_path / "out")
    kept = tmp_path / "out" / "failed" / "01_first.ipynb"
    assert str(kept) in str(caught.value) and "Traceback" in kept.read_text()


@pytest.mark.parametrize(
    ("given", "guarded"),
    [
        ({"data": "mimic"}, True),
        ({"data": "mimic-balanced"}, True),
        ({"data": "own"}, True),
        ({"data": "own", "options": {"access": "credentialed"}}, True),
        ({"data": "own", "options": {"access": "open"}}, False),
        ({"data": "nih"}, False),
        ({"data": "phantom-6x200"}, False),
        ({}, False),
    ],
)
def test_what_a_killed_run_leaves_of_credentialed_data_lies_beside_them(
    mini, tmp_path, monkeypatch, given, guarded
):
    for name in ("mimic-cxr", "own", "nih-cxr14", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("CXRBOOK_DATA", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    (mini / "chapters" / "01_first.py").write_text(SHORT.format("pass"))
    [chapter] = find(mini, "1")
    [task] = tasks(mini, [(chapter, given, mini / "out.ipynb", "first")])
    seen = []

    def killed(root, task, scratch, progress):
        seen.append(scratch)
        raise KeyboardInterrupt

    monkeypatch.setattr(cxrlib.book.run, "_execute", killed)
    with pytest.raises(KeyboardInterrupt):
        cxrlib.book.run.execute(mini, [task], 1, mini / "durations.json")
    folder = tmp_path / ("derived" if guarded else "elsewhere")
    assert seen[0].is_relative_to(folder) and not seen[0].exists()


@pytest.mark.parametrize("edition", ["teacher", "student"])
def test_of_two_builds_into_one_folder_the_second_says_so(mini, edition):
    folder = mini / "_build" / ("student" if edition == "student" else "")
    folder.mkdir(parents=True)
    with (
        FileLock(folder / ".lock"),
        pytest.raises(BookError, match=f"another build is writing to {folder}: wait until"),
    ):
        build(mini, edition=edition)
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_kernel_that_dies_is_said(mini):
    append(mini / "chapters" / "01_first.py", "\n# %%\nimport os\nos._exit(9)\n")
    with pytest.raises(BookError, match="chapter 01_first, cell 8 of 8 lost its kernel"):
        run(mini, find(mini, "1"))
    assert not list((mini / "book" / "chapters").glob("*.ipynb*"))


def test_interrupt_leaves_the_last_book_and_no_kernel(copy_of_built):
    import psutil

    root = copy_of_built
    page = root / "_build" / "html" / "chapters" / "01_first.html"
    before = page.read_text(), files(root / "book" / "chapters")
    for name in ("01_first", "02_zero_shot"):
        started = f"import pathlib\npathlib.Path('started-{name}').touch()"
        append(
            root / "chapters" / f"{name}.py",
            f"\n# %%\n{started}\nimport time\ntime.sleep(120)\n",
        )
    command = [sys.executable, "-m", "cxrlib.cli", "build"]
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # In the background of a shell, tests inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 90
    while len(list(root.glob("started-*"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None, "the chapters never began"
        time.sleep(0.1)
    kernels = psutil.Process(process.pid).children(recursive=True)
    assert kernels
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)  # of the impatient; it must not leave the kernels alone
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    told = "cxrbook: interrupted; what was done is kept, the last book is as it was"
    assert said.strip().splitlines()[-1] == told
    assert "Traceback" not in said
    assert (page.read_text(), files(root / "book" / "chapters")) == before
    assert not [k for k in kernels if k.is_running() and k.status() != psutil.STATUS_ZOMBIE]


def test_chapters_run_without_the_driver(mini):
    """With papermill on the paired notebook, and as a plain script that prints what it says."""
    sync(mini)
    pair = mini / "chapters" / "01_first.ipynb"
    command = [sys.executable, "-m", "papermill", pair, mini / "mine.ipynb", "-p", "n_images", "7"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "It's" in (mini / "mine.ipynb").read_text()
    command = [sys.executable, mini / "chapters" / "01_first.py"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = 'Said: 20; 0.87 [0.84, 0.90]; It\'s "higher" than 0.; undefined. See `fig-01`.'
    assert said in " ".join(done.stdout.split())


def test_time_left_follows_the_last_run(mini):
    chapter = find(mini, "1")[0]
    memory = mini / "durations.json"
    memory.write_text(json.dumps({chapter.name: [0, 10, 20, 30, 0, 0, 0]}))
    [task] = tasks(mini, [(chapter, {}, mini / "out.ipynb", chapter.name)])
    progress = Progress([task], 2, memory, mini / "status")
    assert progress.left() == 60
    code = [c for c in chapter.notebook.cells if c.cell_type == "code"]
    progress.start(task)
    for cell in code[:2]:
        progress.cell(task, cell)
    assert progress.where(task) == "2 of 7"
    assert progress.left() == pytest.approx(60, abs=1)  # 10 of the cell begun, 20 + 30 to come


def test_a_chapter_that_failed_runs_no_more(mini, capsys):
    first, second = find(mini, "all")
    wanted = [(c, {}, mini / f"{c.name}.ipynb", c.name) for c in (first, second)]
    one, two = tasks(mini, wanted)
    progress = Progress([one, two], 2, mini / "durations.json", mini / "status")
    for task in (one, two):
        progress.start(task)
        progress.cell(task, task.chapter.notebook.cells[1])
    progress.fail(one)
    progress.told -= 60
    progress.show()
    line = capsys.readouterr().err
    assert line.startswith("[1/2 chapters, 1 failed] 02_zero_shot cell 1/7; ")


def test_a_long_cell_says_how_far_it_is(mini, capsys):
    status = mini / "status"
    chapter = find(mini, "1")[0]
    [task] = tasks(mini, [(chapter, {}, mini / "out.ipynb", chapter.name)])
    progress = Progress([task], 2, mini / "durations.json", status)
    progress.start(task)
    status.write_text("phantom-vit, full: epoch 3/150")
    progress.told -= 60
    progress.show()
    assert "(phantom-vit, full: epoch 3/150)" in capsys.readouterr().err
    status.unlink()
    progress.told -= 60
    progress.show()
    assert "epoch" not in capsys.readouterr().err
