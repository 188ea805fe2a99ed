"""Radiographs on disk: read to 8-bit grey, and checked once, one by one, before they are used.

The check reads every film fully, so that a broken one is known before a model has run for an hour.
What it finds (size, hashes, what is wrong) is kept. A film that did not change since is not read
again unless it was broken: the decoder that it wants may be there by now.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib.cohorts import pixels
from cxrlib.cohorts.files import DataError, inside
from cxrlib.core import atomic
from cxrlib.core.kernel import in_notebook
from cxrlib.core.progress import Bar

MAX_BROKEN = 0.01  # share of films that may be unreadable before a cohort is refused
CHUNK = 1000  # films between two savings of the check
STAMP = ("file", "bytes", "changed", "reading")  # as long as they stay, so does what was found
FILM_COLUMNS = (*STAMP, "sha256", "phash", "height", "width", "problem", "note")


def read(path: Path | str) -> np.ndarray:
    """One radiograph as uint8 (height, width), as :func:`cxrlib.cohorts.pixels.decode` reads it.

    Raises
    ------
    DataError
        A file that cannot be read, or is no radiograph.
    """
    return read_with_note(path)[0]


def read_with_note(path: Path | str) -> tuple[np.ndarray, str]:
    """As :func:`read`, with what of the file was not followed, "" if nothing."""
    path = Path(path)
    return pixels.decode(_bytes(path), path.name)


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise DataError(f"{path.name}: no regular file")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name}: {error.strerror or error}") from None


def check(root: Path, files: Iterable[str], keep: Path) -> pd.DataFrame:
    """Read every film once and say what is in it.

    Parameters
    ----------
    root : Path
    files : sequence of str, shape (n,)
        Names relative to ``root``.
    keep : Path
        A Parquet file with what earlier checks found; made or extended after every 1,000 films, so
        that an interrupted check goes on where it was.

    Returns
    -------
    DataFrame, n rows in the order of ``files``
        ``file, bytes, changed`` (time of last change, ns), ``reading`` (how pixels were made
        grey: :data:`cxrlib.cohorts.pixels.READING`), ``sha256`` of the file, ``phash`` (64-bit
        perceptual hash as hexadecimal text), ``height, width``, ``problem`` and ``note`` (what of
        the file was not followed), "" where there is none.
    """
    files = list(files)
    for folder in {str(Path(f).parent) for f in files}:
        inside(root, root / folder)
    known = pd.read_parquet(keep) if keep.is_file() else pd.DataFrame()
    known = known.reindex(columns=FILM_COLUMNS)
    known = known[known["reading"] == pixels.READING]
    before = set(known.loc[known["problem"] == "", list(STAMP)].itertuples(index=False, name=None))
    todo = [f for f in files if _stamp(root, f) not in before]
    quiet = len(todo) < CHUNK or in_notebook()
    progress = Bar(len(todo), "checking films", "film", hidden=quiet)
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress:
        for start in range(0, len(todo), CHUNK):
            part = []
            for row in pool.map(lambda f: _examine(root, f), todo[start : start + CHUNK]):
                part.append(row)
                progress.update()
            fresh = pd.DataFrame(part, columns=FILM_COLUMNS)
            known = pd.concat([known, fresh]) if len(known) else fresh
            known = known.drop_duplicates("file", keep="last", ignore_index=True)
            keep.parent.mkdir(parents=True, exist_ok=True)
            atomic.in_one_step(keep, partial(known.to_parquet, index=False))
    return known.set_index("file").reindex(files).reset_index()


def _stamp(root, file):
    try:
        status = (root / file).stat()
    except OSError:
        return file, 0, 0, pixels.READING
    return file, status.st_size, status.st_mtime_ns, pixels.READING


def _examine(root: Path, file: str) -> tuple:
    import imagehash

    path, stamp = root / file, _stamp(root, file)
    try:
        if not path.is_file():
            raise DataError(f"{path.name}: not there")
        data = _bytes(inside(root, path))
        film, note = pixels.decode(data, path.name)
    except DataError as error:
        return *stamp, "", "", 0, 0, str(error), ""
    phash = str(imagehash.phash(Image.fromarray(film)))
    return *stamp, hashlib.sha256(data).hexdigest(), phash, *film.shape, "", note


def sound(films: pd.DataFrame, name: str, max_broken: float = MAX_BROKEN) -> np.ndarray:
    """Which films can be used, (n,) bool; refuses a cohort with too many broken ones.

    Raises
    ------
    DataError
        More than ``max_broken`` of them are broken; names the first ones.
    """
    broken = films["problem"] != ""
    if broken.mean() > max_broken:
        first = "; ".join(films.loc[broken, "problem"].head(3))
        raise DataError(
            f"{name}: {int(broken.sum())} of {len(films)} films cannot be read, more than the "
            f"{max_broken:.0%} that may be left out: {first}. Fetch them again, or pass "
            "max_broken= to go on without them"
        )
    return ~broken.to_numpy()


def reader(root: Path, files: Iterable[str], prepare: Callable | None = None) -> Callable:
    """A function of positions (m,) to the m films, uint8 arrays (height, width) of any size.

    Parameters
    ----------
    root : Path
    files : sequence of str
        Names relative to ``root``, one a row of the cohort's table.
    prepare : callable, optional
        Applied to each film, such as :func:`cxrlib.models.images.stored_by_s`.
    """
    files = list(files)

    def images(positions):
        found = (read(inside(root, root / files[i])) for i in np.asarray(positions))
        return [prepare(film) if prepare else film for film in found]

    return images
