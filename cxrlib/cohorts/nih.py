"""NIH ChestX-ray14 from a folder as distributed, with the drains that NEATX annotated.

The folder holds the films, in one folder ``images`` or in ``images_001/images`` to
``images_012/images``: all of them, some of the twelve archives, or a selection. Beside them lie the
table ``Data_Entry_2017*.csv`` (without it that of the torchxrayvision wheel is read), the official
lists ``test_list.txt`` and ``train_val_list.txt`` (without them the official split is not known),
and the file of NEATX, which may also lie in ``CXRBOOK_DATA/neatx``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from cxrlib.cohorts import files, films, metadata, nih6x200
from cxrlib.cohorts.cohort import Cohort, Count, Share, Unit, Whole, flow
from cxrlib.cohorts.files import DataError
from cxrlib.cohorts.real import with_films
from cxrlib.cohorts.table import drawn_by_patients
from cxrlib.core.checks import one_of
from cxrlib.core.folders import cache_folder

TABLES = tuple(f"Data_Entry_2017{v}.csv{gz}" for v in ("_v2020", "") for gz in ("", ".gz"))
LISTS = ("test_list.txt", "train_val_list.txt")
NEATX = "NIH-CX14_TubeAnnotations_NonExperts_aggregated.csv"
FETCH_NIH = "https://nihcc.app.box.com/v/ChestXray-NIHCC"
FETCH_NEATX = "https://zenodo.org/records/14944064"

OFFICIAL = {None: (112_120, 30_805), "test": (25_596, 2_797), "train_val": (86_524, 28_008)}
"""Images and patients of the whole release and of its official lists."""

ARCHIVES = (4_999, *[10_000] * 10, 7_121)
"""Films in each of NIH's twelve archives, which hold them in the order of their names."""

MEANT = 0.5  # share of an archive, or of a draw, from which on all of it is meant to be there

SPLITS = ("test", "train", "valid")
VALID_SHARE = 0.1  # of the patients of train_val_list.txt
DRAWN = {"valid": 0.2, "train": 0.4, "test": 0.4}  # of all patients, where there is no list
PREPROCESSING = ("authors", "paper S")


def build(
    root: Path | str | None = None,
    split: Literal["as listed", "train", "valid", "test", "all"] | None = "as listed",
    preprocessing: Literal["authors", "paper S"] = "authors",
    n_images: Count | None = None,
    seed: Whole = 1907,
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """NIH ChestX-ray14: by default its official test list, of the films that are there.

    The table has, beside the columns of :func:`cxrlib.cohorts.metadata.nih`, ``split`` and, where
    the file of NEATX is there, ``drain`` (1, 0, or missing where nobody looked) and
    ``drain_source`` ("annotated" or ""). Ages above 120 are set to missing. The
    cohort is called "(part)" unless it has all images of the official release or list. Films whose
    archive is not there (:func:`on_disk`) are a step of the flow; the name says which ones are.

    Parameters
    ----------
    root : path, optional
        The folder as distributed; ``CXRBOOK_DATA/nih-cxr14`` by default.
    split : {"as listed", "test", "train", "valid"} or None
        Images of the official test list; of the official train_val list, whose patients are
        divided by a hash of the patient into 90 % "train" and 10 % "valid"; None or "all" for all.
        "as listed" is "test" where the official lists are there, else all. Without the lists the
        others are drawn by the same hash, 40 % of the patients for "test", 40 % for "train" and
        20 % for "valid".
    preprocessing : {"authors", "paper S"}
        Films as they are, or as paper S stored them before any model saw them
        (:func:`cxrlib.models.images.stored_by_s`).
    n_images : int, optional
        Only so many, drawn by patients. All by default.
    seed : int
        Of that draw.
    max_broken : float
        Share of the films that may be absent or unreadable, and are left out.

    Raises
    ------
    DataError
        Files are missing, damaged or contradict each other; more films than ``max_broken`` are
        absent or broken.
    ValueError
        Unknown split, preprocessing, or more images than there are.
    """
    split = None if split == "all" else split
    one_of("split", split, (*SPLITS, None, "as listed"))
    one_of("preprocessing", preprocessing, PREPROCESSING)
    root = files.root_of("nih-cxr14", root)
    rows, path = read(root)
    listed = has_lists(root)
    if split == "as listed":
        split = "test" if listed else None
    rows["split"] = official_split(root, rows) if listed else drawn_split(rows)
    steps = [(source(path), rows, "")]
    there = on_disk(root, rows["image_id"])
    whole = listed and _counts(rows) == OFFICIAL[None] and rows["split"].notna().all()
    whole = whole and not there.absent.any()
    if there.absent.any():
        rows = rows[~there.absent]
        steps.append((f"films that are there: {there.what}", rows, "not in the folder"))
    if split is not None and listed:
        of = "test" if split == "test" else "train_val"
        of_list = rows[rows["split"].isin(("test",) if split == "test" else ("train", "valid"))]
        whole = _counts(of_list) == OFFICIAL[of]
        rows = of_list[of_list["split"] == split]
        part = "" if split == "test" else f": patients for {split}"
        steps.append((f"{of}_list.txt{part}", rows, "in another list or part"))
    elif split is not None:
        rows = rows[rows["split"] == split]
        drawn = f"no official lists: {DRAWN[split]:.0%} of the patients, drawn for {split}"
        steps.append((drawn, rows, "drawn for another part"))
    elif not listed:
        steps.append(("no official lists, the official split is not known: all films", rows, ""))
        rows = rows.drop(columns="split")
    if rows.empty:
        raise DataError(
            f"{root}: none of its films is for {split!r} ({steps[-1][0]}); pass another part, such "
            "as options={'split': 'all'}"
        )
    name = f"nih-cxr14-{split}" if split else "nih-cxr14"
    recipe = {"name": name, "preprocessing": preprocessing, "drains": "annotated"}
    if split is not None and not listed:
        recipe["split_by"] = "patients"
    if n_images is not None:
        rows, whole = drawn_by_patients(rows, n_images, seed), False
        steps.append(("drawn by patients", rows, "not drawn"))
        recipe |= {"n_images": n_images, "seed": seed}
    impossible = metadata.impossible_ages(rows).index
    rows = rows.assign(age=rows["age"].mask(rows.index.isin(impossible)))
    oldest = metadata.OLDEST_POSSIBLE_AGE
    steps.append((f"age above {oldest} set to missing in {len(impossible)} images", rows, ""))
    drain = neatx(root)
    if drain is not None:
        unknown = (~drain["image_id"].isin(steps[0][1]["image_id"])).sum()
        rows = rows.merge(drain, on="image_id", how="left")
        rows["drain_source"] = np.where(rows["drain"].notna(), "annotated", "")
        counted = f"{rows['drain'].count()} of {len(rows)} images"
        text = f"drain known for {counted}; unknown to NIH: {unknown} of {len(drain)} of NEATX"
        steps.append((text, rows, ""))
    return _cohort(root, name + there.named, steps, whole, recipe, max_broken)


def build_6x200(
    root: Path | str | None = None,
    seed: Whole = 1907,
    split: Unit = "patient",
    per_cell: Count = nih6x200.PER_CELL,
    preprocessing: Literal["authors", "paper S"] = "authors",
    max_broken: Share = films.MAX_BROKEN,
) -> Cohort:
    """The NIH 6x200 recipe of X on real films; only the films of the draw need to be on disk.

    ``cxrbook nih-6x200-list`` writes their names before anything is fetched. Where less than half
    of the draw is there, it is drawn anew from the films that are, if these fill its cells. The
    table has the columns of :func:`cxrlib.cohorts.metadata.nih`, ``disease``, ``age60`` and
    ``split``.

    Parameters
    ----------
    root, preprocessing, max_broken
        As for :func:`build`.
    seed, split, per_cell
        Of :func:`cxrlib.cohorts.nih6x200.draw`.
    """
    one_of("preprocessing", preprocessing, PREPROCESSING)
    root = files.root_of("nih-cxr14", root)
    steps = choose_6x200(root, seed, split, per_cell)
    whole = _counts(steps[0][1]) == OFFICIAL[None] and per_cell == nih6x200.PER_CELL
    whole = whole and len(steps) == 2  # drawn from the release, not from what is there
    recipe = {"name": "nih-6x200", "seed": seed, "split": split, "per_cell": per_cell}
    recipe |= {"preprocessing": preprocessing}
    return _cohort(root, "nih-6x200", steps, whole, recipe, max_broken)


def choose_6x200(
    root: Path, seed: int, split: str = "patient", per_cell: int = nih6x200.PER_CELL
) -> list[tuple[str, pd.DataFrame, str]]:
    """The steps from the release to a 6x200 draw; see :func:`build_6x200`.

    Raises
    ------
    DataError
        Less than half of the draw is there, and the films that are there do not fill its cells.
    """
    released, rows, of = draw_6x200(seed, split, per_cell, root)
    steps, found = [(of, released, "")], films_in(root)
    n_there = int(rows["image_id"].isin(found).sum())
    if n_there < MEANT * len(rows):
        there = released[released["image_id"].isin(found)]
        steps.append(("films that are there", there, "not in the folder"))
        try:
            rows = nih6x200.draw(seed, split, there, per_cell)
        except DataError:
            raise DataError(_short(n_there, rows, there, per_cell)) from None
    return [*steps, ("drawn by the 6x200 rule", rows, "not drawn")]


def draw_6x200(
    seed: int, split: str = "patient", per_cell: int = nih6x200.PER_CELL, root: Path | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """The table of the release, the 6x200 draw from it, and what that table is called.

    The table is the one in ``root`` where there is one, else that of the torchxrayvision wheel.
    Ages differ between the releases, so the same seed may draw other images from them.
    """
    path = files.locate(root, TABLES) if root else None
    released = metadata.read_nih(path) if path else metadata.nih()
    return released, nih6x200.draw(seed, split, released, per_cell), source(path)


def list_6x200(seed: int, root: Path | str | None = None) -> tuple[list[str], str]:
    """File names of the films of a 6x200 draw, sorted, and a line that says which draw it is.

    Nothing but a table is needed: that of the folder, where it has one, else that of the wheel.
    """
    folder = None
    if root is not None or os.environ.get("CXRBOOK_DATA"):
        folder = files.root_of("nih-cxr14", root) if root else files.data_folder() / "nih-cxr14"
    _, drawn, source = draw_6x200(seed, root=folder)
    return sorted(drawn["image_id"]), (
        f"{len(drawn):,} films of {drawn['patient_id'].nunique():,} patients, seed {seed}, from "
        f"{source}; fingerprint {nih6x200.fingerprint(drawn)}"
    )


def read(root: Path) -> tuple[pd.DataFrame, Path | None]:
    """The table of the release (:func:`cxrlib.cohorts.metadata.read_nih`), and its file.

    The file is None, and the table that of the torchxrayvision wheel, where the folder has none.

    Raises
    ------
    DataError
        See :func:`table_of`.
    """
    path = table_of(root)
    return (metadata.read_nih(path) if path else metadata.nih()), path


def table_of(root: Path) -> Path | None:
    """The file with the table of the release; None where only films are there.

    Raises
    ------
    DataError
        Neither the table nor a folder of films is there; names the folder to pass instead if it is
        one level up or down.
    """
    path = files.locate(root, TABLES)
    if path is None and not any(folder.is_dir() for folder in _folders(root)):
        folders = (p for p in (root.parent, *sorted(root.iterdir())) if p.is_dir())
        near = [p for p in folders if any((p / name).is_file() for name in TABLES)]
        cure = f": get it at {FETCH_NIH}{_elsewhere(root)}"
        raise DataError(
            f"{root} has no Data_Entry_2017*.csv and no folder of films"
            + (f"; {near[0]} has one: pass that folder" if near else cure)
        )
    return path


def source(path: Path | None) -> str:
    """What the table of a file is called; None is that of the torchxrayvision wheel."""
    return path.name if path else "Data_Entry_2017_v2020.csv of the torchxrayvision wheel"


def has_lists(root: Path) -> bool:
    """Whether both official lists are there; DataError where only one is."""
    if all(files.locate(root, name) is None for name in LISTS):
        return False
    return all(list_of(root, name) for name in LISTS)


def list_of(root: Path, name: str) -> Path:
    """The file of an official list; DataError where it is not there."""
    path = files.locate(root, name)
    if path is None:
        raise DataError(f"{root} has no {name}: get it at {FETCH_NIH}")
    return path


def official_split(root: Path, rows: pd.DataFrame) -> np.ndarray:
    """The part of each image: "test", "train", "valid", or missing where no list names it.

    Raises
    ------
    DataError
        A list is not there, repeats images or names unknown ones, or a patient is in both lists.
    """
    test_list, train_list = (_listed(root, name, rows) for name in LISTS)
    test, train = rows.loc[test_list, "patient_id"], rows.loc[train_list, "patient_id"]
    both = set(test) & set(train)
    if both:
        raise DataError(
            f"{len(both)} patients are in both {LISTS[0]} and {LISTS[1]}; in the official lists "
            f"no patient is. Fetch both again at {FETCH_NIH}"
        )
    part = np.where(_place(rows) < VALID_SHARE, "valid", "train")
    return np.select([test_list, train_list], [np.full(len(rows), "test"), part], None)


def drawn_split(rows: pd.DataFrame) -> np.ndarray:
    """A part for each image where no list tells: patients stay whole, a hash draws them."""
    edges = np.cumsum(list(DRAWN.values()))[:-1]
    return np.array(list(DRAWN))[np.searchsorted(edges, _place(rows), side="right")]


def _place(rows):
    """A number in [0, 1) for the patient of each image, the same in every release."""
    return pd.util.hash_array(rows["patient_id"].astype(str).to_numpy(object)) / 2.0**64


def _listed(root, name, rows):
    """Which rows an official list names, (n,) bool."""
    path = list_of(root, name)
    names = np.array(path.read_text("utf-8-sig", errors="replace").split(), dtype=object)
    place = pd.Index(rows["image_id"].to_numpy(object)).get_indexer(names)
    strange, again = names[place < 0], len(names) - len(set(names))
    if again or len(strange) or not len(names):
        what = f"names {again} images again" if again else "is empty"
        if len(strange):
            what = f"names {len(strange)} images unknown to the table, such as {strange[0]!r}"
        raise DataError(f"{path}: {what}. Fetch the list and the table again at {FETCH_NIH}")
    return np.isin(np.arange(len(rows)), place)


def neatx(root: Path) -> pd.DataFrame | None:
    """Drains of NEATX, one row per image: ``image_id, drain`` (0 or 1); None without its file.

    What is written as -1, or not at all, was not annotated.

    Raises
    ------
    DataError
        Damaged file, missing column, an image twice, or another value.
    """
    path = files.locate(root, NEATX)
    if path is None and os.environ.get("CXRBOOK_DATA"):
        path = files.locate((files.data_folder() / "neatx").resolve(), NEATX)
    if path is None:
        return None
    table = files.read_table(path, {"Image Index": "image_id", "Drain": "drain"})
    files.unique(table, "image_id", path)
    strange = table["drain"][~table["drain"].isin((-1, 0, 1)) & table["drain"].notna()]
    if len(strange):
        raise DataError(
            f"{path}: column 'Drain' has {strange.iloc[0]} in line {strange.index[0] + 2}; "
            f"expected 1, 0, or -1 where nobody looked. Get the file at {FETCH_NEATX}"
        )
    return table[table["drain"].isin((0, 1))].astype({"drain": float}).reset_index(drop=True)


def _folders(root):
    """Where films may be."""
    return root / "images", *sorted(root.glob("images_*/images"))


@lru_cache(maxsize=1)
def _names():
    """All films of the release, in the order of the archives."""
    return pd.Index(np.sort(metadata.nih()["image_id"].to_numpy(str)))


def archive_of(image_ids: Iterable[str]) -> np.ndarray:
    """The archive, 1 to 12, in which NIH distributes each film, shape (n,); 0 for unknown names."""
    place = _names().get_indexer(list(image_ids))
    return np.where(place < 0, 0, 1 + np.searchsorted(np.cumsum(ARCHIVES), place, side="right"))


class OnDisk(NamedTuple):
    """Which of the films of a table are meant to be in a folder."""

    absent: np.ndarray  # (n,) bool: not there, nor is the archive that holds it
    what: str  # such as "archives 1 and 3"
    named: str  # what the name of a cohort gets of it, such as ", archives 1 and 3"


def on_disk(root: Path, image_ids: pd.Series) -> OnDisk:
    """Films that are not there because their archive is not, apart from damaged archives.

    An archive is there if at least half of those of its films are that the table lists. What is
    missing of it was lost on the way, and is for :func:`cxrlib.cohorts.films.sound` to judge. Of
    other archives, films may have been picked, whatever the folder they lie in.

    Parameters
    ----------
    root : Path
    image_ids : Series of str, shape (n,)
        All films of the table of the release.
    """
    archive = archive_of(image_ids)
    there = image_ids.isin(films_in(root)).to_numpy()
    share = pd.Series(there).groupby(archive).mean()
    meant = sorted(k for k in share.index if k and share[k] >= MEANT)
    selected = ~np.isin(archive, [0, *meant])
    absent, picked = ~there & selected, int((there & selected).sum())
    if not meant:
        return OnDisk(absent, f"a selection of {picked:,}, no archive whole", "")
    archives = f"archive{'s' * (len(meant) > 1)} {', '.join(map(str, meant))}"
    others = f" and {picked:,} films of others" if picked else ""
    return OnDisk(absent, archives + others, f", {archives}" if absent.any() else "")


def films_in(root: Path) -> dict[str, str]:
    """Where each film is: its name to its path relative to ``root``.

    Raises
    ------
    DataError
        No film is there, one is there twice, or a link leads out of ``root``.
    """
    found = {}
    for folder in _folders(root):
        if not folder.is_dir():
            continue
        for entry in os.scandir(files.inside(root, folder)):
            name = _film(entry.name)
            if not name:
                continue
            if entry.is_symlink():
                files.inside(root, Path(entry.path))
            if name in found:
                raise DataError(f"{entry.path} is also there as {found[name]}; remove one")
            found[name] = f"{folder.relative_to(root).as_posix()}/{entry.name}"
    if not found:
        raise DataError(
            f"{root} has no films: expected PNGs in images/, or in images_001/images/ to "
            f"images_012/images/, as unpacked from the archives at {FETCH_NIH}{_elsewhere(root)}"
        )
    return found


def _film(name):
    """The name of a film in the table, from that of its file; "" for other files."""
    stem, suffix = os.path.splitext(name)
    hidden = stem.startswith(".")  # macOS leaves ._NAME.png beside NAME.png
    return f"{stem}.png" if suffix.lower() == ".png" and not hidden else ""


def _elsewhere(root):
    """Where films seem to lie that were not found, for a message; "" if nowhere near."""
    below = [p for p in sorted(root.glob("*")) + sorted(root.glob("*/*")) if p.is_dir()]
    for folder in (root, *below):
        films_ = [p.name for p in folder.iterdir() if p.suffix.lower() in files.FILM_SUFFIXES]
        if films_ and (pngs := sum(map(bool, map(_film, films_)))):
            return f". There are {pngs:,} PNGs in {folder}: move them to {root / 'images'}"
        if films_:
            return f". {folder} holds other files, such as {min(films_)}: NIH's films are PNGs"
    return ""


def _short(n_there, drawn, there, per_cell):
    """Why no 6x200 can be drawn from the films that are there."""
    cells = nih6x200.cell_counts(there).loc[list(nih6x200.DISEASES), "smallest"]
    most = f", or pass options={{'per_cell': {cells.min()}}}" if cells.min() else ""
    return (
        f"nih-6x200: {n_there:,} of the {len(drawn):,} films of the draw are there, and the "
        f"{len(there):,} films that are do not fill its cells: the smallest, of {cells.idxmin()}, "
        f"holds {cells.min()} of {per_cell} films with one finding. Fetch the films that "
        f"'cxrbook nih-6x200-list' names{most}"
    )


def _counts(rows):
    return len(rows), rows["patient_id"].nunique()


def _cohort(root, name, steps, whole, recipe, max_broken):
    """The rows of the last step whose films can be read."""
    rows, found = steps[-1][1], films_in(root)
    beside = len(found.keys() - set(steps[0][1]["image_id"]))
    if beside:
        steps[0] = (*steps[0][:2], f"{beside} films on disk that it does not list")
    paths = [found.get(image, f"images/{image}") for image in rows["image_id"]]
    place = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    checks = cache_folder() / f"films-nih-{place}.parquet"
    prepare = None
    if recipe["preprocessing"] == "paper S":
        from cxrlib.models.images import stored_by_s as prepare
    about = {"flow": flow(steps), "sources": ("NIH-CXR14",)}
    draft = Cohort(name, rows, metadata.FINDINGS, "open", recipe, **about)
    return with_films(draft, root, paths, checks, max_broken, whole, prepare)
