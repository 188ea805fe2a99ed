"""What of a data set is there, what is missing, and where to get it: ``cxrbook check-data``.

Tables are read whole and their counts compared with the published ones. Of the films only the
names are looked at, and a sample is opened; the first chapter that uses them reads them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxrlib import guard
from cxrlib.cohorts import files, films, hannover, known, metadata, nih, nih6x200, own
from cxrlib.cohorts.files import DataError
from cxrlib.cohorts.table import validated
from cxrlib.core import toml

SAMPLE = 50  # films that are opened
NEATX_SHARE = 0.9  # of its films that the table of NIH has to know
FEW_KNOWN = 0.9  # share of the rows of one's own of whom sex, age, ... should be known
SEED = 1907  # of the sample, and of the 6x200 draw that is looked for
ENOUGH = 10  # patients with a finding, and without: fewer give no number
CHAPTERS = toml.beside(__file__, "chapters")


class Line(NamedTuple):
    """One thing that was looked at.

    ``state`` is "ok", "note" (not as released, or not there but not needed) or "problem" (a cohort
    cannot be built).
    """

    state: str
    text: str


FETCH = {
    name: text.format(nih=nih, hannover=hannover) for name, text in toml.beside(__file__).items()
}
"""Where each data set comes from, and which of its files are needed."""


def report(name: str | None = None, root: Path | str | None = None) -> tuple[str, int]:
    """What is there of one data set, or of all below ``CXRBOOK_DATA``.

    Parameters
    ----------
    name : str, optional
        A folder of :data:`FETCH`, or a cohort with such a folder.
    root : path, optional
        The folder of that data set; ``CXRBOOK_DATA/<folder>`` by default.

    Returns
    -------
    text : str
    problems : int
        How many things stand in the way. Without a name, data sets that are not there at all are
        no problem, unless none is.

    Raises
    ------
    ValueError
        Unknown name.
    """
    if name is not None:
        folder = _folder(name)
        lines = list(_check(name, folder, root))
        return _text(name, folder, lines), _problems(lines)
    set_ = os.environ.get("CXRBOOK_DATA")
    there = [f for f in FETCH if set_ and (files.data_folder() / f).is_dir()]
    blocks, problems = [], 0
    for folder in FETCH:
        if there and folder not in there:
            what = f"not there; 'cxrbook check-data {folder}' lists what belongs in it"
            lines = [Line("note", what)]
        else:
            lines = list(_check(folder, folder, None))
        blocks.append(_text(folder, folder, lines))
        problems += _problems(lines)
    return "\n\n".join(blocks), problems


def present(name: str, options: dict) -> None:
    """Refuse a cohort whose tables, or any films, are not there; only names are looked at.

    The table of an own cohort is read, whose columns nobody else knows, and that of Hannover.

    Parameters
    ----------
    name : str
        A cohort.
    options : dict
        Of its builder.

    Raises
    ------
    DataError
        What is missing, and where to get it.
    """
    folder = known(name).folder
    if not folder:
        return
    root = files.root_of(folder, options.get("root"))
    if folder == "own":
        own.read(root, options.get("findings"))
    elif folder == "hannover":
        hannover.read(root)
    elif folder == "mimic-cxr":
        from cxrlib.cohorts import mimic, mimic_files

        labels = [mimic_files.LABELS_OF.format(labeler) for labeler in mimic.LABELERS]
        labels.remove(mimic_files.LABELS_OF.format(options.get("labeler", "chexpert")))
        for release, table, *_ in mimic_files.TABLES:
            if table not in labels:
                mimic_files.find(root, release, table)
    else:
        if name == "nih":
            nih.table_of(root)
            nih.has_lists(root)
        nih.films_in(root)


def _folder(name):
    if name in FETCH:
        return name
    folder = known(name).folder
    if folder not in FETCH:
        raise ValueError(f"{name!r} needs no files; check-data knows {', '.join(FETCH)}")
    return folder


def _problems(lines):
    return sum(line.state == "problem" for line in lines)


def _text(name, folder, lines):
    shown = [f"{name}", *(f"  {line.state:8}{line.text}" for line in lines)]
    if _problems(lines):
        shown += ["  where to get it:", *(f"    {line}" for line in FETCH[folder].splitlines())]
    return "\n".join(shown)


def _check(name, folder, root):
    """The lines of one data set."""
    of_folder = {"nih-cxr14": _nih, "hannover": _hannover, "mimic-cxr": _mimic, "own": _own}
    look = {"nih-6x200": _nih_6x200}.get(name, of_folder[folder])

    def lines():
        found = files.root_of(folder, root)
        yield Line("ok", f"folder {found}")
        yield from look(found)

    yield from _safely(lines())


def _safely(lines):
    """The lines, up to the one that cannot be had."""
    try:
        yield from lines
    except DataError as error:
        yield Line("problem", str(error))


def _nih(root: Path) -> Iterator[Line]:
    rows, path = nih.read(root)
    yield _counted(nih.source(path), rows, nih.OFFICIAL[None])
    possible = rows["age"].where(rows["age"].between(0, metadata.OLDEST_POSSIBLE_AGE))
    validated(rows.assign(age=possible), metadata.FINDINGS, "nih-cxr14", path)
    odd = len(metadata.impossible_ages(rows))
    if odd:
        yield Line("note", f"{odd} ages above {metadata.OLDEST_POSSIBLE_AGE}, taken as missing")
    found = [*_safely(_nih_films(root, rows)), *_safely(_neatx(root, rows))]
    yield from found
    if not _problems(found):
        yield from _nih_enough(root, rows)


def _nih_films(root, rows):
    parts = {"the table": (rows["image_id"].notna(), "problem")}
    if nih.has_lists(root):
        split = nih.official_split(root, rows)
        in_list = (split == "test", np.isin(split.astype(str), ("train", "valid")))
        for name, which, of in zip(nih.LISTS, in_list, ("test", "train_val"), strict=True):
            yield _counted(name, rows[which], nih.OFFICIAL[of])
        yield Line("ok", "no patient is in both lists")
        parts = dict(zip(nih.LISTS, zip(in_list, ("problem", "note"), strict=True), strict=True))
    else:
        text = "the official split is not known; all films are taken, parts are drawn by patients"
        yield Line("note", f"no {', no '.join(nih.LISTS)}: {text}")
    found, there = nih.films_in(root), nih.on_disk(root, rows["image_id"])
    if there.absent.any():
        yield Line("note", f"a part: {there.what}; {there.absent.sum():,} films are left out")
    for name, (part, state) in parts.items():
        meant = rows["image_id"][part & ~there.absent]
        if len(meant) or not there.absent.any():
            yield from _films(root, [found.get(x, "") for x in meant], name, state)
        elif state == "problem":
            cure = "options={'split': 'all'} takes those of the other list"
            yield Line(state, f"no film of {name} is there; {cure}")
    yield from _beside(found, rows)


def _nih_enough(root, rows):
    n, missing = rows["image_id"].isin(nih.films_in(root)).sum(), lacking("nih", {"root": root})
    enough = [n for need in CHAPTERS if need not in ("phantoms", *missing) for n in CHAPTERS[need]]
    text = [f"{n:,} of {len(rows):,} films: enough for {_chapters(enough)}"]
    text += [f"{why}: {_chapters(CHAPTERS[need], cure)}" for need, (why, cure) in missing.items()]
    yield Line("ok", "; ".join(text))


def _chapters(numbers, needs=""):
    several = len(numbers) > 1
    text = f"chapter{'s' * several} {', '.join(map(str, sorted(numbers)))}"
    return f"{text} need{'s' * (not several)} {needs}" if needs else text


def lacking(name: str, options: dict) -> dict[str, tuple[str, str]]:
    """What some chapters need that the films of an open data set do not give.

    Nothing is opened but tables and the names of films. Empty for data of which this cannot be told
    without reading more; there, the chapter says what it lacks.

    Parameters
    ----------
    name : str
        A cohort.
    options : dict
        Of its builder.

    Returns
    -------
    dict
        Need, of those in :data:`CHAPTERS`, to what is the matter, and what is needed.
    """
    folder = known(name).folder
    if folder == "hannover":
        why = "all patients have COVID-19, nothing else is labelled"
        needs = {
            "labels": "films without the finding",
            "drains": "drains",
            "balanced": "six findings",
        }
        return {need: (why, what) for need, what in needs.items()}
    if folder == "own" and "path" not in own.read(options.get("root")).rows:
        return {"films": ("its table names no films", "a column `path`")}
    if folder != "nih-cxr14":
        return {}
    root = files.root_of(folder, options.get("root"))
    rows = nih.read(root)[0]
    there, missing = rows[rows["image_id"].isin(nih.films_in(root))], {}
    if options.get("split", "test") == "test" and nih.has_lists(root):
        there = there[nih.official_split(root, rows)[there.index] == "test"]
    if there.empty:
        missing["films"] = (f"no film of {nih.LISTS[0]}", "films of it")
    ill = {f: _patients(there, there[f]) for f in metadata.S_FINDINGS}
    if max(ill.values()) < ENOUGH:
        missing["labels"] = (f"no finding in {ENOUGH} patients or more", "more films")
    drains = nih.neatx(root)
    if drains is None:
        missing["drains"] = ("no drains", "NEATX")
    else:
        both = there[there["Pneumothorax"] == 1].merge(drains, on="image_id")
        fewest = min(_patients(both, both["drain"] == drain) for drain in (0, 1))
        if fewest < ENOUGH:
            why = f"pneumothorax with and without a drain in fewer than {ENOUGH} patients"
            missing["drains"] = (why, "more films")
    try:
        nih.choose_6x200(
            root, options.get("seed", SEED), per_cell=options.get("per_cell", nih6x200.PER_CELL)
        )
    except DataError:
        missing["balanced"] = ("no 6x200", "the films that 'cxrbook nih-6x200-list' names")
    return missing


def _patients(rows, which):
    """How many patients have such images, or have others, whichever are fewer."""
    which = which.astype(bool)
    return min(rows.loc[w, "patient_id"].nunique() for w in (which, ~which))


def _beside(found, rows):
    beside = len(found.keys() - set(rows["image_id"]))
    if beside:
        yield Line("note", f"{beside:,} films that the table does not list; nothing uses them")


def _films(root, paths, of, if_absent):
    """How many are there ("" for those that are not), and a sample of them opened."""
    there = [path for path in paths if path]
    state = "ok" if len(there) == len(paths) else if_absent
    yield Line(state, f"{len(there):,} of {len(paths):,} films of {of} are there")
    chosen = np.random.default_rng(SEED).permutation(len(there))[:SAMPLE]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda i: _said(root, there[i]), chosen))
    wrong, notes = [w for w, _ in said if w], [n for _, n in said if n]
    if notes:
        text = f"{len(notes)} of {len(chosen)} films opened are read otherwise than they say"
        yield Line("note", f"{text}: {'; '.join(notes[:3])}")
    if wrong:
        text = f"{len(wrong)} of {len(chosen)} films opened cannot be read"
        yield Line("problem", f"{text}: {'; '.join(wrong[:3])}")
    elif there:
        yield Line("ok", f"{len(chosen)} of them opened, all can be read")


def _said(root, file):
    """What is wrong with a film, and what of it is not followed; "" if nothing is."""
    try:
        note = films.read_with_note(files.inside(root, root / file))[1]
    except DataError as error:
        return str(error), ""
    return "", note and f"{Path(file).name}: {note}"


def _neatx(root, rows):
    drains = nih.neatx(root)
    if drains is None:
        yield Line("note", f"{nih.NEATX} is not there; without it no drain is known")
        return
    of_nih = drains[drains["image_id"].isin(rows["image_id"])]
    enough = len(of_nih) >= NEATX_SHARE * len(drains) > 0
    ill = rows.loc[rows["Pneumothorax"] == 1, "image_id"]
    yield Line(
        "ok" if enough else "problem",
        f"NEATX: {len(of_nih):,} films annotated, {int(of_nih['drain'].sum()):,} with a drain; of "
        f"{len(ill):,} with pneumothorax {int(ill.isin(of_nih['image_id']).sum()):,} are covered; "
        f"{len(drains) - len(of_nih):,} names unknown to NIH"
        + ("" if enough else f", more than {1 - NEATX_SHARE:.0%}: another file, or other names"),
    )


def _nih_6x200(root: Path) -> Iterator[Line]:
    released, drawn, source = nih.draw_6x200(SEED, root=root)
    yield _counted(source, released, nih.OFFICIAL[None])
    found = nih.films_in(root)
    paths = [found.get(name, "") for name in drawn["image_id"]]
    yield from _films(root, paths, f"the draw with seed {SEED}", "problem")
    yield from _beside(found, released)


def _hannover(root: Path) -> Iterator[Line]:
    rows = hannover.read(root)
    yield _counted(hannover.TABLE, rows, hannover.OFFICIAL)
    paths = hannover.films_of(root, rows)
    part = 0 < np.mean([path != "" for path in paths]) < nih.MEANT
    yield from _films(root, paths, hannover.TABLE, "note" if part else "problem")
    if any(paths):
        text = "COVID-19 in all of them, and no ages: enough for"
        yield Line("note", f"{text} {_chapters(CHAPTERS['films'])}")


def _mimic(root: Path) -> Iterator[Line]:
    from cxrlib.cohorts import mimic
    from cxrlib.cohorts.mimic_files import films_of

    for file, rows, expected, problem in mimic.describe_files(root):
        if rows is None:
            needed = "negbio" not in file
            yield Line("problem" if needed else "note", problem or f"no {file}")
            continue
        text = f"{file}: {rows:,}"
        if expected:
            text += ", as released" if rows == expected else f"; the release has {expected:,}"
        whole = expected in (None, rows) and not problem
        yield Line("ok" if whole else "note", "; ".join(filter(None, (text, problem))))
    rows = mimic.tables(root)
    yield _counted("all splits", rows, mimic.OFFICIAL[None])
    test = rows[rows["split"] == "test"]
    yield _counted("official test split", test, mimic.OFFICIAL["test"])
    yield Line("ok", "no patient is in two splits")
    for one in mimic.joins(rows):
        yield Line("ok" if one.enough else "problem", one.text)
    yield from _safely(_reports(root, test))
    paths = [f if (root / f).is_file() else "" for f in films_of(root, test)]
    yield from _films(root, paths, "the official test split", "problem")


def _reports(root, test):
    from cxrlib.cohorts import mimic
    from cxrlib.cohorts.mimic_files import reports_of, reports_there

    studies = test.drop_duplicates("study_id")
    found = mimic.join("reports", reports_there(root, reports_of(studies)), "studies")
    text = f"official test split, {found.text}"
    yield Line("ok" if found.enough else "problem", text)


def _own(root: Path) -> Iterator[Line]:
    path, rows, found, left_out = own.read(root)
    patients = rows["patient_id"].nunique()
    yield Line("ok", f"{path.name}: {len(rows):,} images of {patients:,} patients")
    yield Line("ok", f"findings: {', '.join(found)}")
    for column, why in left_out.items():
        text = f"column {column!r} is no finding, and not used: it is more than 1, 0, -1 ({why})"
        yield Line("note", text)
    for finding in found:
        if (open_ := ~rows[finding].isin((0, 1))).any():
            of = guard.n_of_m(int((~open_).sum()), len(rows), "images")
            text = f"{finding}: 1 or 0 for {of}; -1 or nothing in {files.in_lines(open_)}, which "
            yield Line(
                "note", f"{text}the option 'policy' decides ({own.POLICIES['as_published']})"
            )
    absent = [f for f in metadata.STUDIED if f not in found]
    if absent:
        book = {f: metadata.NIH_NAMES.get(f, f).casefold() for f in found}
        near = [f for f in found if book[f] in map(str.casefold, absent)]
        text = f"no column {', '.join(absent)}; chapters that ask for them go on without"
        yield Line("note", text + (f" (spelt otherwise: {', '.join(near)})" if near else ""))
    for column in [c for c in ("sex", "age", "view", "race") if c in rows]:
        known = int((rows[column].notna() & rows[column].ne("unknown")).sum())
        few = known < FEW_KNOWN * len(rows)
        of = guard.n_of_m(known, len(rows), "images")
        yield Line("note" if few else "ok", f"{column}: known for {of}")
    if "path" not in rows:
        yield Line("note", "no column 'path': no films; models=scores:FILE can be audited on it")
        return
    paths = [f if (root / f).is_file() else "" for f in rows["path"]]
    yield from _films(root, paths, path.name, "problem")


def _counted(what, rows, official):
    """Images and patients beside those of the release."""
    images, patients = len(rows), rows["patient_id"].nunique()
    text = f"{what}: {images:,} images of {patients:,} patients"
    if (images, patients) == official:
        return Line("ok", f"{text}, as released")
    return Line("note", f"{text}; the release has {official[0]:,} of {official[1]:,}")
