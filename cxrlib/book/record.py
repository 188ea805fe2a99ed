"""What a run leaves beside its executed notebook: the results table, and the card of the run.

``NAME.parquet`` holds the rows that the chapter kept (:func:`cxrlib.show.notebook.keep`),
``NAME.json`` says how they came about. The three files carry the same key; those that do not belong
to no run.
"""

from __future__ import annotations

import itertools
import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from cxrlib.core import atomic
from cxrlib.core.errors import BookError
from cxrlib.core.kernel import SAID

if TYPE_CHECKING:  # pandas takes seconds
    import pandas as pd

    from cxrlib.book.scan import Hit

KEY = b"cxrbook"  # in the metadata of the Parquet file
PACKAGES = (
    *("torch", "torchvision", "open_clip_torch", "timm", "transformers", "tokenizers", "peft"),
    *("numpy", "pandas", "scipy", "scikit-learn", "statsmodels", "pyarrow", "matplotlib"),
)  # that decide about numbers


class Run(NamedTuple):
    """One executed chapter, read from disk."""

    notebook: Path
    card: dict
    table: pd.DataFrame  # results table


def beside(notebook: Path) -> tuple[Path, Path]:
    """Where card and results table of an executed notebook are: (Path, Path)."""
    return notebook.with_suffix(".json"), notebook.with_suffix(".parquet")


def card_of(notebook: Path) -> dict:
    """The card beside an executed notebook; empty where there is none that can be read."""
    return kept(beside(notebook)[0])


def kept(path: Path) -> dict:
    """What a JSON file holds; nothing where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def key(notebook: Path) -> str | None:
    """The key that notebook, card and table share; None where one is missing or of another run."""
    try:
        keys = {
            json.loads(notebook.read_text(encoding="utf-8"))["metadata"]["cxrbook"]["key"],
            card_of(notebook)["key"],
            pq.read_schema(beside(notebook)[1]).metadata[KEY].decode(),
        }
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid):
        return None
    return keys.pop() if len(keys) == 1 else None


def read(notebook: Path) -> Run:
    """The run of an executed notebook.

    Raises
    ------
    BookError
        One of its three files is missing, damaged, or of another run.
    """
    card, table = beside(notebook)
    if key(notebook) is None:
        raise BookError(
            f"{notebook}: no complete run; expected {card.name} and {table.name} of the same run "
            "beside it: run the chapter again"
        )
    from cxrlib import schema

    return Run(notebook, card_of(notebook), schema.results(pq.read_table(table).to_pandas()))


def results(notebook: Path) -> pd.DataFrame:
    """All results tables that an executed notebook holds, as one; empty where it holds none."""
    import pandas as pd

    from cxrlib import schema
    from cxrlib.show import notebook as shown

    tables = [table for table in shown.kept(notebook) if len(table)]
    return schema.results(pd.concat(tables, ignore_index=True) if tables else [])


def said(notebook: dict) -> dict[str, str]:
    """What a chapter says of its run: dict of name -> text.

    Parameters
    ----------
    notebook : dict
        An executed notebook in nbformat 4.

    Returns
    -------
    dict
        "paragraph 1", "paragraph 2", ... of :func:`cxrlib.show.say.say`, "in short" of `in_short`.
    """
    found, number = {}, itertools.count(1)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if record := output.get("data", {}).get(SAID):
                told = json.loads("".join(record))
                name = "in short" if "figure" in told else f"paragraph {next(number)}"
                found[name] = told["text"]
    return found


def git_state(library: Path) -> dict:
    """Revision of the library, and whether files were changed since; None both without git."""

    def git(*arguments):
        command = ["git", "-C", library, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # A library installed below somebody's repository is not part of it.
        git("ls-files", "--error-unmatch", "cli.py")
        changed = git("status", "--porcelain", "--", library.parent)
        return {"revision": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"revision": None, "changed": None}


def card(task: Any, told: dict, seconds: float, notebook: dict, table: pd.DataFrame) -> dict:
    """The card of a run, ready for JSON.

    Parameters
    ----------
    task : cxrlib.book.run.Task
        What was executed.
    told : dict
        What the kernel said of itself, see :func:`cxrlib.core.used.tell`, and the ``files`` used.
    seconds : float
        Wall time, the start of the kernel included.
    notebook : dict
        The executed notebook.
    table : results table
    """
    chapter, given = task.chapter, task.given
    parameters = {p.name: p.default for p in chapter.parameters.values()} | given
    seeds = {parameters.get("seed"), *table["seed"].dropna().astype(int)} - {None}
    return {
        "chapter": chapter.name,
        "name": task.run,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": parameters,
        "given": sorted(given),
        "seeds": sorted(seeds),
        "cohorts": told["cohorts"],
        "models": told["models"],
        "code": task.made_by(told["files"]),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in PACKAGES},
        "device": parameters.get("device", "cpu"),
        "gpu": told["gpu"],
        "seconds": round(seconds, 1),
        "memory_mb": _rounded(told["memory_mb"]),
        "gpu_memory_mb": _rounded(told["gpu_memory_mb"]),
        "rows": len(table),
        "said": said(notebook),
        "key": task.key(told["files"]),
    }


def _rounded(x):
    return None if x is None else round(x)


def hits(card: dict, table: pd.DataFrame, notebook: dict, name: str) -> list[Hit]:
    """What a card and a results table must not hold, see :mod:`cxrlib.book.scan`: list of Hit.

    Parameters
    ----------
    card : dict
    table : results table
    notebook : dict
        The executed notebook, which says whether it was made from credentialed data.
    name : str
        Of the files, without ending.
    """
    from cxrlib.book import scan
    from cxrlib.guard import register

    own = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    known = register.project() | register.Known.of(own)
    watch = scan.watch(scan.is_guarded(notebook), known)
    in_card = scan.text_kinds(json.dumps(card, default=str), watch)
    in_table = scan.results_kinds(table, watch)
    return scan.hits(f"{name}.json", in_card) + scan.hits(f"{name}.parquet", in_table)


def write(notebook: Path, card: dict, table: pd.DataFrame) -> None:
    """Put card and results table where they belong, each in one step.

    Parameters
    ----------
    notebook : Path
        The executed notebook, which is written after them.
    """
    card_file, table_file = beside(notebook)
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    about = (arrow.schema.metadata or {}) | {KEY: card["key"].encode()}
    arrow = arrow.replace_schema_metadata(about)
    atomic.in_one_step(table_file, lambda part: pq.write_table(arrow, part))
    text = json.dumps(card, indent=1, default=str)
    atomic.write(card_file, text.encode() + b"\n")
