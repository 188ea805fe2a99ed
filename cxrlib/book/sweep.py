"""A chapter over a grid of parameters, and the results of many runs as one table."""

from __future__ import annotations

import ast
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from cxrlib.book import compare_runs, record, runs, sweep_page
from cxrlib.book.chapters import Chapter
from cxrlib.book.run import check_writable, execute, fingerprint, parameters_of, tasks
from cxrlib.book.sweep_page import PREFIX, SEED
from cxrlib.core import atomic
from cxrlib.core.errors import BookError, known

MOST_LINES = 12  # of a plot that can still be read


class TooManyLines(BookError):
    """More lines than a plot can hold."""


def grid(texts: Iterable[str]) -> dict[str, list]:
    """``["n_images=500,1000", "seed=1,2"]`` -> dict of name -> list of values.

    Values stand between commas; a Python list holds values that have commas themselves.

    Raises
    ------
    BookError
        With exit code 2, for what has another form.
    """
    found = {}
    for pair in texts:
        name, _, text = pair.partition("=")
        values = [value.strip() for value in text.split(",")]
        if text.strip().startswith("["):
            try:
                values = list(ast.literal_eval(text))
            except (ValueError, SyntaxError):
                raise BookError(f"-g {name}={text}: expected a Python list", code=2) from None
        if "" in (name.strip(), *values) or not values:
            raise BookError(
                f"-g {pair}: expected NAME=VALUE,VALUE, for example -g n_images=500,1000", code=2
            )
        found[name.strip()] = values
    return found


def sweep(
    root: Path,
    chapter: Chapter,
    over: dict[str, list],
    given: dict | None = None,
    name: str | None = None,
    jobs: int = 2,
    profile: dict | None = None,
    replace: bool = False,
) -> tuple[Path, list[Path], str]:
    """Execute a chapter at every point of a grid; what is done already is kept.

    Parameters
    ----------
    root : Path
    chapter : Chapter
    over : dict
        Name -> values, see `grid`.
    given, profile : dict, optional
        Parameters that all points share, see :func:`cxrlib.book.run.run`.
    name : str, optional
        Of the folder below ``_build/sweeps``; by default from chapter and grid.
    jobs : int
        Points executed at the same time.
    replace : bool
        Whether a sweep of the same name with other parameters may be written over.

    Returns
    -------
    (Path, list of Path, str)
        The sweep's folder, the executed notebooks of the points that passed, and what failed.

    Raises
    ------
    BookError
        A point that cannot be, before any of them was run; or a name that is taken.
    """
    given, profile = given or {}, profile or {}
    if twice := sorted(over.keys() & given.keys()):
        raise BookError(f"{twice[0]} is both fixed by -p and swept by -g: leave one out", code=2)
    shared = parameters_of([chapter], given, profile)[chapter.name]
    shared = {k: v for k, v in shared.items() if k not in over}
    about = {"chapter": chapter.name, "given": shared, "swept": sorted(over)}
    label = runs.simple(name or f"{chapter.name}-{fingerprint([], about)[:8]}")
    folder = root / "_build" / "sweeps" / label
    wanted = {}
    for values in itertools.product(*over.values()):
        point = dict(zip(over, values, strict=True))
        checked = parameters_of([chapter], given | point, profile)[chapter.name]
        said = " ".join([chapter.name, *(f"{k}={v}" for k, v in point.items())])
        target = folder / fingerprint([], checked)[:8] / f"{chapter.name}.ipynb"
        wanted[target] = chapter, checked, target, said
    check_writable(folder)
    before = record.kept(folder / "sweep.json")
    if before and before != runs.as_kept(about) and not replace:
        said = f"{before['chapter']} over {', '.join(before['swept'])}, with {before['given']}"
        raise runs.taken(label, "there is another sweep of this name", said)
    every = tasks(root, list(wanted.values()), label)
    atomic.write(folder / "sweep.json", json.dumps(about, default=str).encode())
    failed = ""
    try:
        execute(root, every, jobs, folder / ".durations.json")
    except BookError as error:
        failed = str(error)
    return folder, [task.target for task in every if task.fresh], failed


# --- many runs, one table -------------------------------------------------------------------------


def joined(notebooks: Iterable[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The results of several runs as one table.

    Parameters
    ----------
    notebooks : list of Path

    Returns
    -------
    (DataFrame, DataFrame)
        Results tables one below the other, and what the chapters say (``name``, ``text``), see
        :func:`cxrlib.book.record.said`.
        Before them the columns ``run`` (its name, or folder), ``chapter``, and one column per
        parameter, ``p_NAME``: as text where runs have different types.
    """
    tables: list[pd.DataFrame] = []
    texts: list[pd.DataFrame] = []
    for run in map(record.read, notebooks):
        head = {"run": run.card["name"] or run.notebook.parent.name, "chapter": run.card["chapter"]}
        head |= {f"{PREFIX}{name}": _plain(v) for name, v in run.card["parameters"].items()}
        said = pd.DataFrame(run.card["said"].items(), columns=["name", "text"])
        for found, table in ((tables, run.table), (texts, said)):
            repeated = pd.DataFrame([head]).loc[[0] * len(table)].reset_index(drop=True)
            found.append(pd.concat([repeated, table.reset_index(drop=True)], axis=1))
    return _below(tables), _below(texts)


def _plain(value):
    """A parameter as one cell of a table."""
    return repr(value) if isinstance(value, list | dict) else value


def _below(tables):
    tables = [t for t in tables if len(t)] or tables[:1] or [pd.DataFrame()]
    every = pd.concat(tables, ignore_index=True)
    given = [c for c in every if c.startswith(PREFIX)]
    own = [c for c in every if c not in ("run", "chapter", *given)]
    for column in given:
        if pd.api.types.infer_dtype(every[column]) in ("mixed", "mixed-integer"):
            every[column] = every[column].map(str, na_action="ignore")
    return every[[c for c in ("run", "chapter", *given, *own) if c in every]]


def collect(paths: Iterable[Path]) -> list[Path]:
    """The executed notebooks that files and folders lead to.

    Parameters
    ----------
    paths : list of Path
        Folders, or notebooks, cards or results tables of runs.

    Raises
    ------
    BookError
        A path without a run.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            here = [p for p in sorted(path.rglob("*.ipynb")) if record.beside(p)[0].is_file()]
        else:
            here = [path.with_suffix(".ipynb")]
        if not here or not all(map(record.key, here)):
            raise BookError(
                f"{path}: no run here; expected executed notebooks with their card (.json) and "
                "results (.parquet), as 'cxrbook run' and 'cxrbook sweep' leave them"
            )
        found |= dict.fromkeys(here)
    return list(found)


def write(table: pd.DataFrame, path: Path) -> None:
    """A table as Parquet or CSV, by the ending of its name.

    Raises
    ------
    BookError
        Another ending, or a file that cannot be written.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise BookError(f"--out {path}: expected a name that ends in .parquet or .csv", code=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to = table.to_parquet if path.suffix == ".parquet" else table.to_csv
        atomic.in_one_step(path, lambda part: write_to(part, index=False))
    except OSError as error:
        raise BookError(f"cannot write {path}: {error.strerror}") from None


# --- the plot ------------------------------------------------------------------------------------


def curves(
    table: pd.DataFrame, swept: list[str], metric: str | None = None, where: dict | None = None
) -> pd.DataFrame:
    """A metric over the first swept parameter: the numbers behind the plot.

    Parameters
    ----------
    table : DataFrame
        From `joined`.
    swept : list of str
        Parameters of the grid. Over "seed" there is an average, unless it is the only one.
    metric : str, optional
        Default: the first of the table.
    where : dict, optional
        Column of the results table -> the only entry wanted. Without: all patients, and the mean
        over labels where there is one.

    Returns
    -------
    DataFrame
        One row per line and value of the parameter: the parameter; ``line`` (what tells it from
        others); ``metric``; ``mean``, ``low``, ``high`` (smallest and largest over seeds; with one
        run, the interval of that run); ``sd`` over seeds; ``n_runs`` with a value.

    Raises
    ------
    BookError
        No such metric, column or entry, or more lines than a plot can hold.
    """
    there = list(dict.fromkeys(table["metric"]))
    metric = metric or there[0]
    known(metric, there, f"--metric {metric}: not in these results")
    rows, where = table[table["metric"] == metric], where or {}
    for column, entry in where.items():
        given = f"--where {column}={entry}"
        known(column, compare_runs.KEYS, f"{given}: no such column")
        entries = list(dict.fromkeys(rows[column].dropna()))
        known(entry, entries, f"{given}: no such {column}")
        rows = rows[rows[column] == entry]
    for column, entry in (("attribute", "all"), ("group", "all"), ("label", "mean")):
        if column not in where and (rows[column] == entry).any():
            rows = rows[rows[column] == entry]
    over = next((p for p in swept if p != SEED), SEED)
    others = [f"{PREFIX}{p}" for p in swept if p not in (over, SEED)]
    keys = [c for c in (*others, *compare_runs.KEYS) if rows[c].astype(str).nunique() > 1]
    rows = rows.assign(line=[_line(row, keys) for row in rows[keys].to_dict("records")])
    if rows["line"].nunique() > MOST_LINES:
        raise TooManyLines(
            f"{rows['line'].nunique()} lines are more than a plot can hold: they differ in "
            f"{', '.join(keys)}; narrow them down with --where COLUMN=VALUE",
            code=2,
        )
    column = f"{PREFIX}{over}"
    groups = rows.groupby([column, "line"], sort=True, dropna=False)
    out = groups["value"].agg(mean="mean", low="min", high="max", sd="std", n_runs="count")
    alone = groups.size() == 1
    for limit, of_run in (("low", "ci_low"), ("high", "ci_high")):
        out[limit] = out[limit].mask(alone, groups[of_run].first())
    table = out.reset_index().rename(columns={column: over})
    table.insert(2, "metric", metric)
    return table


def _line(row, keys):
    parts = [
        f"{key.removeprefix(PREFIX)}={value}" if key.startswith(PREFIX) else str(value)
        for key, value in row.items()
        if pd.notna(value)
    ]
    return ", ".join(parts) or "all"


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draw what `curves` returns into an image file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from cxrlib.show.notebook import setup
    from cxrlib.show.plots import dose_response

    setup()
    over = table.columns[0]
    drawn = table.rename(columns={"mean": "value", "low": "ci_low", "high": "ci_high"})
    numeric = pd.api.types.is_numeric_dtype(table[over]) and table[over].dtype != bool
    if not numeric:
        drawn[over] = drawn[over].astype(str)
    fig = dose_response(drawn, over, "line", xlabel=over)
    (ax,) = fig.axes
    lone = drawn[drawn.groupby("line")[over].transform("size") == 1]
    ax.vlines(lone[over], lone["ci_low"], lone["ci_high"], color="#BBBBBB", lw=4, zorder=0)
    if not numeric or drawn[over].nunique() <= 8:
        ax.set_xticks(drawn[over].unique())
    seeds = table["n_runs"].max()
    seen = f"smallest and largest of {seeds} seeds" if seeds > 1 else "interval"
    ax.set_xlabel(f"{over}\nband: {seen}")
    fig.set_figheight(3 + 0.18 * drawn["line"].nunique())  # of which the legend takes its share
    atomic.in_one_step(path, lambda part: fig.savefig(part, format="png", bbox_inches="tight"))
    plt.close(fig)


def report(
    folder: Path,
    notebooks: list[Path],
    swept: list[str],
    metric: str | None = None,
    where: dict | None = None,
) -> str:
    """Write the joined tables, the page and the plot of a sweep; what to print of it.

    Without ``metric`` and ``where``, more lines than a plot can hold leave a page without a plot.

    Returns
    -------
    str : paths, and the numbers behind the plot.
    """
    table, texts = joined(notebooks)
    lines = []
    files = {"sweep.parquet": table, "sweep.csv": table, "said.csv": texts}
    for name, content in files.items():
        write(content, folder / name)
        lines.append(f"{folder / name}: {len(content)} rows of {len(notebooks)} runs")
    if table.empty:
        chapter = notebooks[0].stem
        lines.append(f"chapter {chapter} keeps no table of results, so there is nothing to plot")
        return "\n".join(lines)
    picture, drawn = folder / "plot.png", None
    try:
        found = curves(table, swept, metric, where)
    except TooManyLines as error:
        if metric or where:
            raise
        picture.unlink(missing_ok=True)  # of an earlier call
        lines.append(f"no plot: {error}")
    else:
        write(found, folder / "plot.csv")
        plot(found, picture)
        drawn = found["metric"].iloc[0]
        lines += [f"{picture}: {drawn}, numbers in plot.csv"]
        lines += [found.to_string(index=False, float_format=lambda x: f"{x:.3f}")]
    address = picture.name if drawn else ""
    page = sweep_page.page(f"Sweep {folder.name}", table, texts, swept, address)
    atomic.write(folder / "page.html", page.encode())
    lines.append(f"open {folder / 'page.html'}")
    others = [m for m in dict.fromkeys(table["metric"]) if m != drawn]
    if others:
        lines.append(f"other metrics for --metric: {', '.join(others)}")
    return "\n".join(lines)
