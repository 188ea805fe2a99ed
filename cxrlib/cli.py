"""The command line ``cxrbook``."""

import ast
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option
from typer.exceptions import TyperException

from cxrlib.book.chapters import chapters, find, find_root, out_of_sync
from cxrlib.book.chapters import sync as write_pairs
from cxrlib.book.parameters import pairs
from cxrlib.core import atomic
from cxrlib.core.errors import BookError

INTERRUPTED = 130  # how typer leaves after Ctrl-C

app = typer.Typer(
    help="Run, build and inspect the executable companion.\n\nExit codes: 0 done; 1 not done, or "
    "something was found; 2 a command that was refused; 130 Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Values = Annotated[
    list[str] | None,
    Option("-p", "--parameter", metavar="NAME=VALUE", help="A parameter; repeatable."),
]
Out = Annotated[Path | None, Option(help="Folder for the result.")]
Jobs = Annotated[int, Option(min=1, help="Chapters executed at the same time.")]
Profiles = Annotated[
    list[str] | None,
    Option("--profile", help="A name of cxrbook profiles, or a YAML file; repeatable."),
]
Chapter = Annotated[str, Argument(help="A number, a name, or all.")]
Files = Annotated[
    list[Path], Argument(help="Notebooks, pages, results of runs, or folders of such.", exists=True)
]
Device = Annotated[str, Option(help="cpu or cuda.")]
Protocol = Annotated[Literal["corrected", "as_published"], Option(help="Whose choices.")]
Name = Annotated[str | None, Option(help="One word, under which the result is kept.")]
Replace = Annotated[bool, Option("--replace", help="Write over what has this name.")]


@app.command()
def run(
    chapter: Chapter = "all",
    parameter: Values = None,
    out: Out = None,
    jobs: Jobs = 2,
    profile: Profiles = None,
    name: Name = None,
    replace: Replace = False,
) -> None:
    """Execute one chapter, or all.

    With other parameters than the book's, the notebooks lie beside the book, not in it. With a
    name, the run is set beside the book's own, here and on the page Runs.
    """
    from cxrlib.book import runs
    from cxrlib.book.run import run as execute

    root, given, shared = _asked(parameter, profile)
    chosen = find(root, chapter)
    out = out and out.absolute()
    if name and out:
        raise BookError("--name and --out: give one of them", code=2)
    if name:
        out = runs.place(root, name, chosen, given, shared, replace)
    with _resumable():
        executed = execute(root, chosen, given, out, jobs, shared, name)
    for path in executed:
        print(runs.beside_ours(root, path) if name else path)


def _asked(parameter, profile):
    """The project's folder, the parameters given to all chapters, and those of the profiles."""
    from cxrlib.book.profiles import combined

    root = find_root()
    return root, pairs(parameter or []), combined(profile or [], root)


@app.command()
def sweep(
    chapter: Annotated[str, Argument(help="A number or a name.")],
    over: Annotated[
        list[str],
        Option("-g", "--grid", metavar="NAME=VALUE,VALUE", help="A parameter to vary; repeatable."),
    ],
    parameter: Values = None,
    name: Name = None,
    replace: Replace = False,
    jobs: Jobs = 2,
    profile: Profiles = None,
    metric: Annotated[str | None, Option(help="What to plot. Default: the first metric.")] = None,
    where: Annotated[
        list[str] | None, Option(metavar="COLUMN=VALUE", help="Which rows to plot; repeatable.")
    ] = None,
) -> None:
    """Execute a chapter at every point of a grid.

    Gives one table and one plot. A sweep that was cut off goes on.
    """
    from cxrlib.book import sweep as sweeps

    root, given, shared = _asked(parameter, profile)
    chosen = find(root, chapter)
    if len(chosen) > 1:
        raise BookError("a sweep is over one chapter: name it", code=2)
    grid, rows = sweeps.grid(over), pairs(where or [])
    with _resumable():
        folder, done, failed = sweeps.sweep(
            root, chosen[0], grid, given, name, jobs, shared, replace
        )
    if done:
        print(sweeps.report(folder, done, list(grid), metric, rows))
    if failed:
        raise BookError(f"{failed}\nthe same command tries again what failed")


@app.command()
def collect(
    runs: Annotated[list[str], Argument(help="Names of runs and sweeps, or folders or files.")],
    out: Annotated[Path, Option(help="The .parquet or .csv file to write.")],
) -> None:
    """Join the results of any runs into one table."""
    from cxrlib.book import manifest
    from cxrlib.book import sweep as sweeps

    paths = (Path(run) for run in runs)
    notebooks = sweeps.collect(
        path if path.is_file() else manifest.place_of(find_root(), str(path)) for path in paths
    )
    table, _ = sweeps.joined(notebooks)
    sweeps.write(table, out)
    print(f"wrote {out}: {len(table)} rows of {len(notebooks)} runs")


@app.command("verify")
def verify_run(
    run: Annotated[
        str | None, Argument(help="Name or folder of a run. Default: the built book.")
    ] = None,
) -> None:
    """Find what changed in a run since it ended.

    A byte, a missing file, one that was added.
    """
    from cxrlib.book import manifest

    problems = 0
    for line, fine in manifest.verify(find_root(), run):
        print(line, flush=True)
        problems += not fine
    if problems:
        raise BookError(f"{problems} problem{'s' if problems > 1 else ''}, see above")


@app.command()
def profiles() -> None:
    """List the sets of parameters for --profile."""
    from cxrlib.book.profiles import listing

    print(listing(find_root()))


@app.command()
def build(
    parameter: Values = None,
    out: Out = None,
    jobs: Jobs = 2,
    edition: Annotated[
        Literal["teacher", "student"], Option(help="That for students has no solutions.")
    ] = "teacher",
    profile: Profiles = None,
) -> None:
    """Execute what changed and build the book."""
    from cxrlib.book.build import build as build_book

    root, given, shared = _asked(parameter, profile)
    page, changed = build_book(root, given, out and out.absolute(), jobs, edition, shared)
    print(f"{'built' if changed else 'nothing changed'}: open {page}")


@app.command("chapters")
def list_chapters() -> None:
    """List the chapters and their parameters."""
    for chapter in chapters(find_root()):
        print(f"{chapter.number}  {chapter.title}  ({chapter.name})")
        for p in chapter.parameters.values():
            about = ", ".join(filter(None, (p.allowed, p.help)))
            print(f"      {p.name}: {p.type} = {p.default!r}{'  # ' + about if about else ''}")


@app.command()
def cohorts() -> None:
    """List the cohorts that chapters can load."""
    from cxrlib.cohorts import describe

    print(describe().to_string(index=False))


@app.command("check-data")
def check_data(
    name: Annotated[str | None, Argument(help="A name of cxrbook cohorts. Default: all.")] = None,
    root: Annotated[
        Path | None, Argument(help="Its folder, where that is not below CXRBOOK_DATA.")
    ] = None,
) -> None:
    """Say what of a data set is there, and what is missing.

    And where to get it.
    """
    from cxrlib.cohorts.check_data import report

    with _mendable():
        text, problems = report(name, root)
    print(text)
    if problems:
        raise BookError(f"{problems} problem{'s' if problems > 1 else ''}, see above")


@app.command()
def fetch(
    what: Annotated[list[str] | None, Argument(help="Names. Without any, all are listed.")] = None,
    part: Annotated[
        list[str] | None, Option(help="Archives of NIH: 1 to 12, such as 1, 2-4 or all.")
    ] = None,
    draw: Annotated[
        Literal["6x200"] | None, Option(help="Of NIH: only the films of this draw.")
    ] = None,
    seed: Annotated[int, Option(min=0, help="Seed of the draw.")] = 1907,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Only list addresses, sizes and terms.")
    ] = False,
    check: Annotated[
        bool, Option("--check", help="Only ask whether each address answers.")
    ] = False,
    keep_archives: Annotated[
        bool, Option("--keep-archives", help="Keep them when they are unpacked.")
    ] = False,
) -> None:
    """Download open data or an open model.

    To where chapters look for it. A download that was cut off goes on.
    """
    from cxrlib.book import fetch as fetching

    if not (what or check):
        if part or draw:
            raise BookError(f"--part and --draw are of {fetching.NIH}: name it", code=2)
        print(fetching.listing())
        return
    with _resumable(), _mendable(OSError):
        if check:
            failed = 0
            for line, fine in fetching.check(what or fetching.names()):
                print(line, flush=True)
                failed += not fine
            if failed:
                raise BookError(f"addresses that do not answer as expected: {failed}, see above")
            return
        things = fetching.plan(what or [], fetching.parts_of(part or []), draw, seed)
        for thing in things:
            print(fetching.described(thing), flush=True)
        for thing in [] if dry_run else things:
            for line in fetching.fetch(thing, keep_archives):
                print(line, flush=True)


@app.command("nih-6x200-list")
def nih_6x200_list(
    seed: Annotated[int, Option(min=0, help="Seed of the draw.")] = 1907,
    out: Annotated[Path | None, Option(help="File for the names.")] = None,
    root: Annotated[Path | None, Option(help="Folder with a table of NIH.")] = None,
) -> None:
    """List the 1,200 films of an NIH 6x200 draw.

    By file name, before any is fetched.
    """
    from cxrlib.cohorts.nih import list_6x200

    with _mendable():
        names, about = list_6x200(seed, root)
    text = "\n".join(names)
    if out:
        _write(out, text + "\n")
        print(f"wrote {out}: {about}")
    else:
        print(text)
        print(about, file=sys.stderr)


def _write(path, text):
    """All of the file, or nothing."""
    try:
        atomic.write(path, text.encode())
    except OSError as error:
        raise BookError(f"cannot write {path}: {error.strerror}") from None


models_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")


@models_app.callback()
def models(
    context: typer.Context,
    hashes: Annotated[
        bool, Option("--hash", help="Compare the files that are there with known hashes.")
    ] = False,
) -> None:
    """List the models that chapters can load.

    What they are, the files they want, and what is there.
    """
    from cxrlib.models import describe_models, listing, remedied_models

    if context.invoked_subcommand:
        return
    print("Come with the book:")
    print(describe_models().to_string(index=False))
    print("\nTrained again to remedy a bias of one of these (not in models=all):")
    print(describe_models(remedied_models()).to_string(index=False))
    print("\nPublished, from files of your own or by 'cxrbook fetch NAME':")
    with _mendable():
        print(listing(hashes))


@models_app.command()
def verify(
    name: Annotated[str, Argument(help="A name of cxrbook models.")],
    checkpoint: Annotated[Path | None, Option(help="Its folder or file, if elsewhere.")] = None,
    protocol: Protocol = "corrected",
) -> None:
    """Compare a model with its authors' code.

    On this machine; and test the weights that are there.
    """
    from cxrlib.models import parity

    failed = 0
    with _mendable():
        for line, holds in parity.report(name, checkpoint, protocol):
            print(line, flush=True)
            failed += not holds
    if failed:
        raise BookError(f"{name}: {failed} checks failed")


@models_app.command()
def convert(
    file: Annotated[Path, Argument(help="A checkpoint.")],
    out: Annotated[Path | None, Option(help="The .safetensors file. Default: beside it.")] = None,
) -> None:
    """Write a checkpoint's tensors to a .safetensors file."""
    from cxrlib.models.convert import convert as write

    with _mendable():
        print(f"wrote {write(file, out)}")


@contextmanager
def _mendable(*more):
    """What the user can mend becomes one line; ``more`` are further kinds of errors."""
    try:
        yield
    except (ValueError, FloatingPointError, *more) as error:
        said = str(error)
        if isinstance(error, OSError) and error.strerror:
            said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        raise BookError(said or "memory ran out") from None


@contextmanager
def _resumable():
    try:
        yield
    except KeyboardInterrupt:
        line = "interrupted; what was done is kept, and the same command goes on from there"
        raise BookError(line, code=INTERRUPTED) from None


@app.command()
def embed(
    data: Annotated[str, Option(help="A name of cxrbook cohorts.")] = "phantom",
    models: Annotated[
        str, Option("-m", "--models", help="Names of cxrbook models, with commas.")
    ] = "all",
    options: Annotated[str, Option(help="Options of the cohort, as in chapters.")] = "{}",
    n_images: Annotated[int, Option(min=1, help="Images of a phantom.")] = 4000,
    seed: Annotated[int, Option(min=0, help="Seed of a phantom or of a draw.")] = 1907,
    protocol: Protocol = "corrected",
    device: Device = "cpu",
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Option(help="To compute in; chapters take float32."),
    ] = "float32",
    dtype: Annotated[
        Literal["float32", "float16"], Option(help="On disk; chapters take float32.")
    ] = "float32",
    rows_per_shard: Annotated[int | None, Option(min=1, help="Images in a file.")] = None,
    batch_size: Annotated[int | None, Option(min=1, help="Default: found by trying.")] = None,
    workers: Annotated[int | None, Option(min=0, help="Processes that read films.")] = None,
    engine: Annotated[Literal["local", "ray"], Option(help="ray is for many machines.")] = "local",
    actors: Annotated[int | None, Option(min=1, help="Actors of Ray.")] = None,
    address: Annotated[str | None, Option(help="Address of a Ray cluster, or auto.")] = None,
    show: Annotated[bool, Option("--list", help="Only list what is kept.")] = False,
    verify: Annotated[bool, Option("--verify", help="Only read and check what is kept.")] = False,
) -> None:
    """Compute embeddings, once, for all chapters.

    Chapters find them. What was cut off goes on.
    """
    if show or verify:
        with _mendable(OSError):
            return _stored(verify)
    from cxrlib import cohorts
    from cxrlib.models import choose_models, load_model
    from cxrlib.protocol import protocol_of

    how: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "engine": engine}
    how |= {"actors": actors, "address": address}
    how |= {"rows_per_shard": rows_per_shard} if rows_per_shard else {}
    chosen = protocol_of(protocol)
    balanced = data in cohorts.BALANCED.values()
    wanted = {"split": chosen.split} if balanced else {"preprocessing": chosen.preprocessing}
    with _resumable(), _mendable(OSError, MemoryError, ImportError):
        names = choose_models(models)
        cohort = cohorts.study(data, n_images, seed, _dictionary(options), **wanted)
        for name in names:
            loaded = load_model(name, chosen, device=device, precision=precision)
            several = len(loaded.members)
            for number, model in enumerate(loaded.members, 1):
                which = f" ({number} of {several})" if several > 1 else ""
                print(f"{name}{which}: {_embedded(cohort, model, dtype, how)}", flush=True)


def _dictionary(text):
    with suppress(ValueError, SyntaxError):
        if isinstance(value := ast.literal_eval(text), dict):
            return value
    said = f"--options {text}: expected a dictionary such as \"{{'split': 'all'}}\""
    raise BookError(said, code=2)


def _embedded(cohort, model, dtype, how):
    """Fill the store of a cohort and a model; what was done."""
    from cxrlib.embed.extract import extract, store_folder
    from cxrlib.embed.store import MANIFEST, load

    folder = store_folder(cohort, model, dtype)
    before = load(folder).present() if (folder / MANIFEST).is_file() else {}
    start = time.perf_counter()
    store = extract(cohort, model, dtype=dtype, **how)
    seconds = time.perf_counter() - start
    shards = store.present()
    new = sum(len(store.rows(shard)) for shard in shards if shards[shard] != before.get(shard))
    done = f"{new:,} images in {seconds:,.1f} s, {new / seconds:,.0f} a second"
    lines = [f"{done if new else 'already there'}; {_size(store):,.1f} MB in {store.folder}"]
    if error := store.manifest["precision_error"]:
        lines.append(
            f"{model.precision} is off float32 by {error['mean']:.1g} of the length of an "
            f"embedding, at most {error['largest']:.1g}, on {error['n_images']} images"
        )
    broken = {image: why for few in store.problems().values() for image, why in few.items()}
    if broken:
        first = "; ".join(f"{image}: {why}" for image, why in list(broken.items())[:3])
        lines.append(f"images without an embedding: {len(broken)} ({first})")
    return "\n    ".join(lines)


def _size(store):
    return sum(path.stat().st_size for path in store.present().values()) / 1e6


def _stored(verify):
    """Print the stores below the cache and the data; with ``verify``, read all of them."""
    import pandas as pd

    from cxrlib.cohorts.files import data_folder
    from cxrlib.core.folders import cache_folder
    from cxrlib.embed.store import MANIFEST, StoreError, load

    places = [cache_folder()]
    if os.environ.get("CXRBOOK_DATA"):  # credentialed data keep theirs
        places.append(data_folder() / "derived")
    columns = ["cohort", "model", "precision", "dtype", "images", "shards", "MB", "folder"]
    rows, damaged = [], []
    for path in [p for place in places for p in place.glob(f"embeddings/*/{MANIFEST}")]:
        try:
            store = load(path.parent)
            if verify:
                store.problems()  # reads every shard that is there
        except StoreError as error:
            damaged.append(str(error))
            continue
        made = [store.manifest["made_from"][column] for column in columns[:4]]
        shards = f"{len(store.present())}/{store.n_shards}"
        size = f"{_size(store):.1f}"
        rows.append([*made, store.manifest["n_images"], shards, size, str(store.folder)])
    if rows:
        table = pd.DataFrame(rows, columns=columns).sort_values(columns[:3])
        print(table.to_string(index=False))
    if damaged:
        print(*damaged, sep="\n")
        raise BookError(f"damaged stores: {len(damaged)}, see above")


@app.command()
def drains(
    data: Annotated[str, Option(help="A cohort with annotated drains.")] = "nih",
    protocol: Protocol = "corrected",
    weights: Annotated[Path | None, Option(help="File of a DenseNet-121 to start from.")] = None,
    epochs: Annotated[int, Option(min=1, help="Passes over the films.")] = 200,
    lr: Annotated[float, Option(help="Learning rate, above 0.")] = 1e-4,
    train_split: Annotated[
        str | None, Option(help="Split to train on, or all; without patients that get labels.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Train the drain detector, and label other films.

    Those of the cohort without annotation. A training that was cut off goes on.
    """
    from cxrlib import cohorts
    from cxrlib.predict import drains as labels
    from cxrlib.show.words import fmt_row

    with _resumable(), _mendable():
        cohort = cohorts.load(data)
        how: dict[str, Any] = {"protocol": protocol, "epochs": epochs, "lr": lr}
        how |= {"weights": weights, "device": device}
        if train_split:
            split = None if train_split == "all" else train_split
            detector = labels.train(cohorts.load(data, split=split), apart_from=cohort, **how)
        else:
            detector = labels.train(cohort, **how)
        print(f"detector: {detector.file}, epoch {detector.best_epoch} of {epochs}")
        print(f"threshold: {detector.threshold:.3f} ({detector.rule})")
        for row in labels.performance(detector).to_dict("records"):
            print(f"{row['metric']} on {row['n_patients']} test patients: {fmt_row(row)}")
        print(*detector.notes, sep="\n", flush=True)
        labelled = labels.label(cohort, detector, device).table
    predicted = labelled[labelled["drain_source"] == "predicted"]
    shared = labels.overlap(detector, cohort)
    print(f"{cohort.name}: {int(predicted['drain'].sum())} drains in {len(predicted)} films")
    print(f"patients of these films on whom the detector was trained or chosen: {shared}")
    print(f"labels: {labels.file_of(detector, cohort)}")


@app.command()
def ledger(
    files: Annotated[
        list[Path] | None,
        Argument(help="Notebooks or results (.csv, .parquet). Default: the chapters of the book."),
    ] = None,
    paper: Annotated[Literal["S", "X"] | None, Option(help="Only this paper.")] = None,
    fail_on_differs: Annotated[
        bool, Option("--fail-on-differs", help="End with exit code 1 where an entry differs.")
    ] = False,
) -> None:
    """List the papers' numbers and claims, with verdicts.

    From the results that chapters kept.
    """
    from cxrlib.papers import ledger as book_ledger
    from cxrlib.papers.published import DIFFERS

    if not files:
        root = find_root()
        folder = root / "book" / "chapters"
        files = [p for c in chapters(root) if (p := folder / f"{c.name}.ipynb").is_file()]
        if not files:
            raise BookError(
                f"no executed chapter in {folder}: run 'make book', or name notebooks or results "
                "tables (.ipynb, .csv, .parquet)"
            )
    with _mendable():
        results = book_ledger.collect(files)
    entries = book_ledger.ledger(results)
    entries = entries[entries["paper"] == paper] if paper else entries
    print(f"{len(results)} rows of results in {len(files)} files")
    print(book_ledger.as_text(entries))
    differing = int((entries["verdict"] == DIFFERS).sum())
    if fail_on_differs and differing:
        raise BookError(f"{differing} entries of the ledger differ")


@app.command()
def dossier(
    run: Annotated[str | None, Argument(help="Name of a run. Default: the book.")] = None,
    answers: Annotated[Path | None, Option(help="YAML file with your answers.")] = None,
    out: Out = None,
) -> None:
    """Fill reporting checklists from a run.

    TRIPOD+AI, CLAIM, STANDING Together, a datasheet, and a CHAI card for each model.
    """
    from cxrlib.book import dossier as book_dossier

    with _mendable(OSError):
        filled, folder, kept = book_dossier.write(find_root(), run, answers, out)
    for name, items in filled.items():
        states = book_dossier.counts(items).items()
        said = ", ".join(f"{state} {n}" for state, n in states if n)
        print(f"{book_dossier.checklists()[name]['title']}, {len(items)} items: {said}")
    print(f"wrote {folder / 'dossier.html'}, dossier.md, dossier.json and a card for each model")
    print(f"your answers: {kept}")


@app.command()
def pdf(
    chapter: Annotated[
        str, Argument(help="Number or name, all, or another page, such as flaws.")
    ] = "all",
    book: Annotated[
        Path | None, Option(help="Folder of a built book. Default: _build/html.")
    ] = None,
    out: Annotated[
        Path | None, Option(help="Folder for the files. Default: pdf beside the book.")
    ] = None,
) -> None:
    """Print pages of the built book as PDF.

    With all that is folded unfolded, by the Chromium of the machine.
    """
    from cxrlib.book.pdf import write

    book = book or find_root() / "_build" / "html"
    pages = [book / f"{chapter}.html"]
    if not pages[0].is_file():
        chosen = find(find_root(), chapter)
        pages = [book / "chapters" / f"{c.name}.html" for c in chosen]
    for path in write(pages, out or book.parent / "pdf"):
        print(path)


@app.command()
def scan(
    files: Files,
) -> None:
    """Search files for what must not be published.

    Identifiers, films, report texts, machine paths.
    """
    from cxrlib.book.scan import anything

    hits = [hit for path in files for hit in anything(path)]
    print("\n".join(map(str, hits)) or "nothing found")
    if hits:
        raise BookError(f"{len(hits)} finding{'s' if len(hits) > 1 else ''}")


Course = Annotated[str, Option(help="Word of the course, from which seeds come.")]


@app.command()
def assign(
    roster: Annotated[Path, Argument(help="CSV with a column student.")],
    course: Course,
    out: Annotated[Path, Option(help="Folder for the sheets.")],
) -> None:
    """Write a sheet of graded checks for each student.

    With a seed of their own, the questions, and how to begin.
    """
    from cxrlib.book import grading

    with _mendable(OSError):
        paths = grading.assign(roster, course, out)
    print(f"wrote {len(paths) - 1} sheets and {paths[-1]}")


@app.command()
def grade(
    answers: Annotated[
        list[Path], Argument(help="CSV with student, exercise, answer; or several.")
    ],
    course: Course,
    roster: Annotated[
        Path | None, Option(help="CSV; names that are not in it are refused.")
    ] = None,
    out: Annotated[Path | None, Option(help="Default for one file: ANSWERS-graded.csv.")] = None,
) -> None:
    """Mark the answers to graded checks.

    With points and feedback for each, and mistakes that a class shares.
    """
    import pandas as pd

    from cxrlib.book import grading

    if out is None and len(answers) > 1:
        raise BookError("with several files of answers, name the result: --out graded.csv", code=2)
    with _mendable(OSError):
        graded, wrong = grading.grade(answers, course, roster)
    table = pd.DataFrame(graded, columns=["student", "exercise", "answer", "points", "feedback"])
    if graded:
        points = table.pivot_table("points", "student", "exercise", "sum", sort=False)
        points["sum"] = points.sum(axis=1)
        print(points.to_string(na_rep="", float_format="{:.0f}".format))
        print(*grading.in_class(graded), sep="\n")
    out = out or answers[0].with_name(f"{answers[0].stem}-graded.csv")
    # the mark of UTF-8, without which spreadsheets misread an umlaut
    _write(out, "\ufeff" + table.to_csv(index=False, lineterminator="\n"))
    print(f"wrote {out}, with the feedback")
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        raise BookError(f"{len(wrong)} rows were not graded, see above")


@app.command()
def sync(
    check: Annotated[bool, Option("--check", help="Only say whether they differ.")] = False,
) -> None:
    """Write the notebooks paired with the chapters' scripts."""
    root = find_root()
    if check:
        wrong = [p.name for group in out_of_sync(root) for p in group]
        if wrong:
            raise BookError(f"not in sync with their scripts: {', '.join(wrong)}; run 'make sync'")
        return
    for path in write_pairs(root):
        print(f"wrote {path}")


def main() -> None:
    """Entry point: what the user can mend is said in one line, without a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in ("CXRBOOK_DATA", "CXRBOOK_CACHE", "CXRBOOK_CHECKPOINTS"):
        if folder := os.environ.get(name):  # chapters run in a folder of their own
            os.environ[name] = str(Path(folder).expanduser().absolute())
    try:
        code = app(prog_name="cxrbook", standalone_mode=False)
        if code == INTERRUPTED:
            print(
                "cxrbook: interrupted; what was done is kept, the last book is as it was",
                file=sys.stderr,
            )
    except BookError as error:
        print(f"cxrbook: {error}", file=sys.stderr)
        code = error.code
    except TyperException as error:
        print(_usage(error), file=sys.stderr)
        code = error.exit_code
    sys.exit(code or 0)


def _usage(error):
    """What is wrong with a command, in one line; the help, where it was called without any."""
    said, context = error.format_message(), getattr(error, "ctx", None)
    if context is None or said == context.get_help():
        return said
    said = said.replace("Value error, ", "").replace("\n", " ")
    return f"cxrbook: {said} (see {context.command_path} --help)"


if __name__ == "__main__":
    main()
