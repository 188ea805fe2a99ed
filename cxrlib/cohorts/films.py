"""Radiographs on disk: read to 8-bit grey, and checked once, one by one, before they are used.

The check reads every film fully, so that a broken one is known before a model has run for an hour.
What it finds (size, hashes, what is wrong) is kept, and a film that did not change since is not
read again.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
from PIL import Image

from cxrlib.cohorts.files import DataError, inside
from cxrlib.core import atomic
from cxrlib.core.kernel import in_notebook
from cxrlib.core.progress import Bar

MAX_BROKEN = 0.01  # share of films that may be unreadable before a cohort is refused
CHUNK = 1000  # films between two savings of the check
FILM_COLUMNS = ("file", "bytes", "changed", "sha256", "phash", "height", "width", "problem")


def read(path: Path | str) -> np.ndarray:
    """One radiograph as uint8 (height, width), whatever it was stored as.

    PNG and JPEG of 8 bits, with or without colour and transparency, are turned to grey as PIL
    does; 16-bit PNGs are scaled from their own darkest to their brightest value. DICOM: see
    :func:`read_dicom`.

    Raises
    ------
    DataError
        Empty, truncated or damaged file, or one that is no image.
    """
    path = Path(path)
    try:
        return _decode(path.read_bytes(), path)
    except OSError as error:
        raise DataError(f"{path.name}: {error.strerror or error}") from None


def _decode(data: bytes, path: Path) -> np.ndarray:
    if not data:
        raise DataError(f"{path.name}: the file is empty")
    if path.suffix.lower() in (".dcm", ".dicom"):
        return read_dicom(io.BytesIO(data), path.name)
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                return stretch(np.asarray(image, dtype=float))
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no image" if "identify" in str(error) else str(error).splitlines()[0]
        raise DataError(f"{path.name}: damaged or cut off ({reason})") from None


def read_dicom(file: BinaryIO, name: str) -> np.ndarray:
    """A DICOM radiograph as uint8 (height, width), bright bone on dark air.

    Modality and VOI transformations (rescale slope, look-up table or window) are applied, then
    values are scaled from the darkest to the brightest; MONOCHROME1 is inverted.

    Raises
    ------
    DataError
        No DICOM file, no pixel data, several frames, colour, or a compression that cannot be read.
    """
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    try:
        dataset = pydicom.dcmread(file)
    except (pydicom.errors.InvalidDicomError, EOFError, ValueError) as error:
        raise DataError(f"{name}: no DICOM file ({error})") from None
    if "PixelData" not in dataset:
        raise DataError(f"{name}: a DICOM file without pixel data")
    try:
        pixels = dataset.pixel_array
        if pixels.ndim == 2:
            pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
    except Exception as error:  # pydicom's decoders raise what they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{name}: its pixels cannot be decoded ({reason})") from None
    if pixels.ndim != 2:
        raise DataError(f"{name}: pixels of shape {pixels.shape}; expected one grey frame")
    inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    return stretch(-pixels.astype(float) if inverted else pixels.astype(float))


def stretch(pixels: np.ndarray) -> np.ndarray:
    """Numbers (height, width) to uint8: the smallest becomes 0, the largest 255."""
    low, high = float(pixels.min()), float(pixels.max())
    scale = 255 / (high - low) if high > low else 0.0
    return np.round((pixels - low) * scale).astype(np.uint8)


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
        ``file, bytes, changed`` (time of last change, ns), ``sha256`` of the file, ``phash``
        (64-bit perceptual hash as hexadecimal text), ``height, width`` and ``problem``, "" where
        there is none.
    """
    files = list(files)
    for folder in {str(Path(f).parent) for f in files}:
        inside(root, root / folder)
    known = pd.read_parquet(keep) if keep.is_file() else pd.DataFrame(columns=FILM_COLUMNS)
    before = {(r.file, r.bytes, r.changed): r for r in known.itertuples(index=False)}
    stamps = [_stamp(root, f) for f in files]
    todo = [f for f, stamp in zip(files, stamps, strict=True) if (f, *stamp) not in before]
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
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _examine(root: Path, file: str) -> tuple:
    import imagehash

    path, (size, changed) = root / file, _stamp(root, file)
    try:
        if not path.is_file():
            raise DataError(f"{path.name}: not there")
        data = inside(root, path).read_bytes()
        film = _decode(data, path)
        phash = str(imagehash.phash(Image.fromarray(film)))
    except (DataError, OSError) as error:
        return file, size, changed, "", "", 0, 0, str(error)
    return file, size, changed, hashlib.sha256(data).hexdigest(), phash, *film.shape, ""


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
