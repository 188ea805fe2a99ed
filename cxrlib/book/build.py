"""Build the book: executed chapters and pages in, a folder of static HTML out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from cxrlib.book import manifest, pages, parameters, preface, real, runs
from cxrlib.book.chapters import chapters
from cxrlib.book.facts import ANSWERS
from cxrlib.book.pages import STUDENT, TEACHER
from cxrlib.book.run import check_writable, fingerprint, parameters_of, run
from cxrlib.core.errors import BookError
from cxrlib.core.folders import LIBRARY

FOR_TEACHERS = ("teaching",)  # pages


def build(
    root: Path,
    given: dict | None = None,
    out: Path | None = None,
    jobs: int = 2,
    edition: str = TEACHER,
    profile: dict | None = None,
) -> tuple[Path, bool]:
    """Execute what changed, render every page, and put the new book in place of the old one.

    Any warning fails the build, and so does a page that holds what must not be shown
    (:mod:`cxrlib.book.scan`). A build that fails or is interrupted leaves the last book intact.

    Parameters
    ----------
    root : Path
        The project's folder.
    given : dict, optional
        Parameters for the chapters that declare them.
    out : Path, optional
        Folder of the book with these parameters. Default: ``_build``; with `given`, a folder below
        ``_build/runs`` so that the book itself is not replaced.
    edition : {"teacher", "student"}
        Students get no solutions, no notes for teachers, and no page of `FOR_TEACHERS`. Their book
        goes to ``student`` in the folder of the other.
    profile : dict, optional
        Chapter name -> parameters, see :func:`cxrlib.book.profiles.combined`; `given` wins over it.

    Returns
    -------
    (Path, bool)
        The book's first page, and whether anything had to be done.
    """
    given, profile = given or {}, profile or {}
    other = bool(given or profile)
    if out is None:
        folder = root / "_build" / "runs"
        out = folder / f"book-{fingerprint([], given, profile)[:8]}" if other else root / "_build"
    executed = out / "chapters" if other else root / "book" / "chapters"
    out = out / STUDENT if edition == STUDENT else out
    check_writable(out)
    try:
        with FileLock(out / ".lock", timeout=0):
            every = chapters(root)
            values, why = real.allowed(every, parameters_of(every, given, profile))
            for name, reason in why.items():
                print(f"{name} is on phantoms: {reason}", file=sys.stderr)
            notebooks = run(root, every, {}, executed, jobs, values)
            # Runs with a name belong to the book with the default parameters, and to who ran them.
            return _pages_of(root, notebooks, out, edition, not other and edition == TEACHER, why)
    except Timeout:
        raise BookError(
            f"another build is writing to {out}: wait until it has ended, or name another folder "
            "with --out"
        ) from None


def _pages_of(root, notebooks, out, edition, with_runs, why):
    """Render what changed; the first page, and whether anything had to be done."""
    stage, html = out / "stage", out / "html"
    old = html.with_name("html.old")
    if old.exists() and not html.exists():  # a replacement was cut off between its two steps
        os.replace(old, html)
    # the library makes the reference pages
    sources = [*_pages(root), *notebooks, LIBRARY, root / "requirements.lock"]
    sources += [p for p in [notebooks[0].parent / ANSWERS] if p.is_file()]
    key = fingerprint(sources, sys.version, runs.state(root) if with_runs else "", why)
    key_file = html / ".key"
    if key_file.is_file() and key_file.read_text() == key:
        return html / "index.html", False

    _stage(root, notebooks, stage, edition, with_runs, why)
    fresh = out / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    _render(stage, fresh, out / "build.log")
    new = fresh / "_build" / "html"
    shutil.rmtree(new / "_static" / "locales", ignore_errors=True)  # the theme has used them
    # its sources for debuggers, and fonts again for browsers that its scripts are too new for
    for path in [*new.rglob("*.map"), *new.rglob("*.ttf")]:
        path.unlink()
    (new / ".key").write_text(key)
    manifest.pages(new, notebooks)
    from cxrlib.book import scan  # pandas takes seconds

    if hits := scan.folder(new, made_from=notebooks):
        shutil.rmtree(fresh)
        shutil.rmtree(stage)
        raise BookError(f"the pages were not kept: {'; '.join(map(str, hits))}")
    if html.exists():
        os.replace(html, old)
    os.replace(new, html)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)
    return html / "index.html", True


def _pages(root):
    """Settings and pages that are not executed."""
    book = sorted(p for p in (root / "book").iterdir() if p.name != "chapters")
    return [root / "_config.yml", root / "_toc.yml", *(p for p in book if p.name[0] != ".")]


def _stage(root, notebooks, stage, edition, with_runs, why):
    """Gather the sources of the pages in one folder: settings, pages, executed chapters, and the
    reference pages, which are made from them."""
    from cxrlib.book import dossier, metric_cards, model_cards  # these import torch, for seconds
    from cxrlib.papers import crosswalk, ledger

    shutil.rmtree(stage, ignore_errors=True)
    (stage / "extra").mkdir(parents=True)
    leave = shutil.ignore_patterns("__pycache__", ".*")
    for page in _pages(root):
        if page.is_dir():
            shutil.copytree(page, stage / page.name, ignore=leave)
        else:
            shutil.copy(page, stage)
    every = chapters(root)
    for path, chapter in zip(notebooks, every, strict=True):
        pages.write(path, chapter, stage, edition, why.get(chapter.name, ""))
    kept = ledger.collect(notebooks)
    entries = ledger.ledger(kept)
    opening = (stage / "index.md").read_text(encoding="utf-8-sig")
    opening = real.preface(opening, every, notebooks, why)
    made = {
        "index": preface.page(opening, every, notebooks, entries, stage),
        "crosswalk": crosswalk.page(every, notebooks, entries),
        "metric_cards": metric_cards.page(),
        "model_cards": model_cards.page(),
        "ledger": ledger.page(entries, len(kept), [c.name for c in every if "audit" in c.name]),
        "dossier": dossier.page(notebooks, stage / "extra" / "dossier"),
        "parameters": parameters.page(every),
        "runs": runs.page(root, stage / "extra" / "tables", with_runs),
    }
    for name, text in made.items():
        (stage / f"{name}.md").write_text(text, encoding="utf-8")
    if edition == STUDENT:
        _only_students(stage)


def _only_students(stage):
    for name in FOR_TEACHERS:
        (stage / f"{name}.md").unlink(missing_ok=True)
    for page in stage.glob("*.md"):
        # what is not UTF-8 is named when the page is rendered, as in the other edition
        text = page.read_text(encoding="utf-8-sig", errors="surrogateescape")
        kept = pages.student_text(text)[0]
        page.write_text(kept, encoding="utf-8", errors="surrogateescape")
    toc = yaml.safe_load((stage / "_toc.yml").read_text(encoding="utf-8"))
    for part in toc["parts"]:
        part["chapters"] = [c for c in part["chapters"] if c.get("file") not in FOR_TEACHERS]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    (stage / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")


def _render(stage, fresh, log):
    print("rendering the pages", file=sys.stderr, flush=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build"]
    command += [stage, "--path-output", fresh, "--all", "-W", "-n", "--keep-going"]
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        text = log.read_text(encoding="utf-8")
        problems = [x for x in text.splitlines() if "WARNING" in x or "ERROR" in x or "rror:" in x]
        first = problems[0].strip() if problems else "jupyter-book failed"
        raise BookError(f"the pages were not built: {first} (all of it in {log})")
