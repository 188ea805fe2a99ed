"""Fixtures shared by the tests of the driver: a miniature book in a temporary folder."""

import gc
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from filelock import FileLock

from cxrlib.guard import latch

ROOT = Path(__file__).resolve().parents[1]

CHAPTER = """# ---
# jupyter:
#   chapter:
#     answers: {{S Table 1: fig-{key}}}
#     goals: [read a miniature book]
# ---

# %% [markdown]
# # A chapter of the miniature book
#
# It cites {{cite:t}}`sourget2025` and has math: $x^2$.

# %% tags=["parameters"]
n_images: int = 20  # [2, 100] how many
rate: float = 0.5  # (0, 1) how often
names: list = ["a", "b"]
quick: bool = True
how: str = "plain"  # {{plain, fancy}}

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %%
import matplotlib.pyplot as plt
import pandas as pd

from cxrlib.show.notebook import figure, quiz, setup, show
from cxrlib.show.say import say
from cxrlib.show.words import fmt_interval

setup()
say(f'''
Said: {{n_images}}; {{fmt_interval(0.8712, 0.84, 0.9)}}; It's "higher" than 0.;
{{float("nan")}}. See {{{{numref}}}}`fig-{key}`.
''')

# %%
plt.plot(range(n_images))
line = pd.DataFrame({{"x": range(n_images)}})
figure("fig-{key}", "One, of *{key}*.", f"A line to {{n_images - 1}}.", line)

# %%
show(pd.DataFrame({{"model": ["a"], "auc": [0.8123]}}), caption="Table of <{key}>")

# %% [markdown]
# ```{{exercise}}
# :label: ex-{key}
# How many?
# ```
#
# ```{{solution}} ex-{key}
# :class: dropdown
# The secret answer.
# ```

# %%
quiz("Which?", {{"this": (True, "It is."), "that": (False, "It is not.")}})

# %% tags=["solution"]
secret_code = 1
"""


# Added to a chapter of the miniature book: three tables of results.
KEEPING = """
# %%
from cxrlib import schema
from cxrlib.show.notebook import keep
from tests.kept import awkward, phantom

keep(awkward())
for value in (0.7, 0.9):
    keep(schema.results([phantom(value=value, label="Atelectasis")]))
"""


LONGEST = (
    "test_guard_book.py",
    "test_browser.py",
    "test_book.py",
    # these fork or start processes, which takes long where the networks of others fill the memory
    "test_training.py",
    "test_embed.py",
    "test_embed_faults.py",
    "test_embed_ray.py",
    "test_drains.py",
    "test_parity_medimageinsight.py",
    "test_zeroshot.py",
    "test_scores.py",
    "test_wordings.py",
)


def pytest_collection_modifyitems(items):
    """What shares something costly one after the other; the longest first, so that none of them is
    left to run alone at the end."""
    first = {name: place for place, name in enumerate(LONGEST)}
    for item in items:
        first.setdefault(together(item.nodeid), len(first))
    items.sort(key=lambda item: first[together(item.nodeid)])
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if wanting:
        import torch  # takes seconds, which most test files can do without

        no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
        for item in wanting:
            item.add_marker(no_gpu)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """And on one worker."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return together(nodeid)

    return Together(config, log)


def together(nodeid):
    """The file of a test; of one on a published network, the file that goes on with it."""
    path, _, test = nodeid.partition("::")
    file = Path(path).name
    if file != "test_parity.py":
        return file
    from cxrlib.models import registry

    family = registry.cards()[test.split("[")[1].rstrip("]")]["family"]
    return f"test_parity_{'clip' if family == 'biomedclip' else family}.py"


def environment():
    """For a command of another process: this library, wherever it is run."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


PAGES = {
    "index": "# A miniature book\n\n```{tableofcontents}\n```\n",
    "rerun": "# Run it again\n\nOnce more.\n",
    "teaching": "# For teachers\n\nThe plan of the lesson.\n",
}


def write_book(root):
    """The project's own settings and reference pages around two small chapters."""
    leave = shutil.ignore_patterns("chapters", "*.md")
    shutil.copytree(ROOT / "book", root / "book", ignore=leave)
    shutil.copy(ROOT / "book" / "bibliography.md", root / "book")
    shutil.copy(ROOT / "_config.yml", root)
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    for part in toc["parts"]:  # without pages and chapters that are not there
        files = [c for c in part["chapters"] if "file" in c]
        left_out = {p.stem for p in (ROOT / "book").glob("*.md")} - {*PAGES, "bibliography"}
        part["chapters"] = [c for c in files if c["file"] not in left_out]
        if "numbered" in part:
            part["chapters"] = [{"glob": "chapters/0*"}]
    toc["parts"] = [p for p in toc["parts"] if p["chapters"] and p["caption"] != "Going deeper"]
    (root / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    for name, text in PAGES.items():
        (root / "book" / f"{name}.md").write_text(text)
    (root / "requirements.lock").write_text("# empty\n")
    (root / "chapters").mkdir()
    for name in ("01_first", "02_zero_shot"):
        (root / "chapters" / f"{name}.py").write_text(CHAPTER.format(key=name[:2]))
    return root


@pytest.fixture(autouse=True, scope="module")
def room(request):
    """The published networks go when their files are through: to fork gigabytes takes long."""
    upstream = sys.modules.get("tests.upstream")
    if upstream and "test_parity" not in request.module.__name__:
        upstream.network.cache_clear()
        gc.collect()


@pytest.fixture(autouse=True)
def unlatched(monkeypatch):
    """A test that loads credentialed data puts itself under guard, not those after it."""
    monkeypatch.setattr(latch, "_protected", [])
    monkeypatch.setattr(latch, "_registers", [])


@pytest.fixture
def cxrbook(monkeypatch, capsys):
    """Runs the command line in this process: its exit code, output and error output.

    A process of its own would import the library anew each time; that it says and returns the
    same is a test of test_cli.py.
    """
    from cxrlib import cli

    def command(*arguments, cwd=None):
        with monkeypatch.context() as patch:
            if cwd:
                patch.chdir(cwd)
            patch.setattr(cli.signal, "signal", lambda *_: None)
            patch.setattr(sys, "argv", ["cxrbook", *map(str, arguments)])
            with pytest.raises(SystemExit) as left:
                cli.main()
        said = capsys.readouterr()
        return SimpleNamespace(returncode=left.value.code, stdout=said.out, stderr=said.err)

    return command


@pytest.fixture
def mini(tmp_path):
    """A fresh miniature book, nothing executed."""
    return write_book(tmp_path / "book root")


def once(tmp_path_factory, name, make):
    """The folder that `make` filled, for all workers: the first one makes it, others wait."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A miniature book that was built once, its first chapter keeping three tables, with warnings
    as errors; tests that change it take a copy."""
    from cxrlib.book.build import build

    def make(folder):
        root = write_book(folder / "mini")
        chapter = root / "chapters" / "01_first.py"
        chapter.write_text(chapter.read_text() + KEEPING)
        build(root)

    return once(tmp_path_factory, "built", make) / "mini"


@pytest.fixture
def copy_of_built(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "mini"))


# --- published models: a test file names the model in a fixture `name` ---


@pytest.fixture(scope="module")
def network(name):
    from tests import upstream

    return upstream.network(name)


@pytest.fixture(scope="module")
def figures(name):
    from tests import upstream

    return upstream.figures(name)


def at(row, column, value):
    """A change of one entry of a table."""

    def edit(table):
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table

    return edit
