"""Embeddings on disk: a folder of Parquet shards, one folder a cohort and model.

Any program that reads Parquet reads a store: ``pandas.read_parquet(folder)``, or ``*.parquet`` in
it with polars or DuckDB. Columns are ``image_id``, ``embedding`` (a list of fixed size) and
``problem``: why an image has no embedding, "" for all others. Rows are sorted by ``image_id``.

The file name of a shard carries its number and the start of its SHA-256. A shard is written in one
step and never changed, so a store is consistent whenever a process dies, and a damaged shard is
found when it is read. Processes share the work by locks, one a shard. ``_manifest.json`` says what
the embeddings are made from; a store is only ever extended by the same.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from cxrlib.core import atomic

FORMAT = 1
ROWS = 1024  # images a shard: a crash costs so many
DTYPES = {"float32": pa.float32(), "float16": pa.float16()}
MANIFEST = "_manifest.json"  # readers of Parquet folders skip names that start like this
PACKAGES = ("cxrbook", "torch", "torchvision", "numpy", "pillow", "pyarrow")
HASH = 16  # characters of a SHA-256 that are kept


class StoreError(ValueError):
    """A store that is damaged, incomplete, or made from something else."""


@dataclass(frozen=True)
class Store:
    """A folder of embeddings; make one with :func:`create`, open one with :func:`load`.

    Attributes
    ----------
    folder : Path
    manifest : dict
        ``made_from`` (cohort, weights, preprocessing, ...: what :func:`create` was given),
        ``n_images``, ``rows_per_shard``, ``precision_error``, ``written_with``.
    """

    folder: Path
    manifest: dict

    @property
    def n_shards(self) -> int:
        return -(-self.manifest["n_images"] // self.manifest["rows_per_shard"])

    def rows(self, shard: int) -> range:
        """Rows of the store that are in a shard."""
        size = self.manifest["rows_per_shard"]
        return range(shard * size, min((shard + 1) * size, self.manifest["n_images"]))

    def present(self) -> dict[int, Path]:
        """The shards that are there: number to file, in their order.

        Raises
        ------
        StoreError
            Two files of one number, or one that is no shard: other programs would read it too.
        """
        found: dict[int, Path] = {}
        for path in self.folder.glob("*.parquet"):
            if not (name := re.fullmatch(rf"(\d{{6,}})-[0-9a-f]{{{HASH}}}\.parquet", path.name)):
                raise StoreError(f"{path} is no shard of this store; move it elsewhere")
            if other := found.get(int(name[1])):
                raise StoreError(
                    f"{self.folder} holds a shard twice ({other.name} and {path.name}); remove "
                    "both files and run the extraction again, which computes it anew"
                )
            found[int(name[1])] = path
        return dict(sorted(found.items()))

    def missing(self) -> list[int]:
        there = self.present()
        return [shard for shard in range(self.n_shards) if shard not in there]

    def lock(self, shard: int) -> FileLock:
        """The lock without which no process writes a shard."""
        return FileLock(self.folder / f".{shard:06d}.lock")

    def write(
        self,
        shard: int,
        image_ids: Sequence[str] | np.ndarray,
        vectors: np.ndarray,
        problems: Sequence[str],
    ) -> None:
        """Write a shard; only for who holds its lock.

        Parameters
        ----------
        shard : int
        image_ids : sequence of str (m,)
        vectors : float array (m, d)
            Rows with a problem are not kept.
        problems : sequence of str (m,)
            "" where there is none.

        Raises
        ------
        OSError
            No space is left, or the folder cannot be written; nothing of the shard is there then.
        """
        if len(image_ids) != len(self.rows(shard)):
            raise ValueError(f"shard {shard}: {len(image_ids)} rows; its place is for others")
        kind = DTYPES[self.manifest["made_from"]["dtype"]]
        values = pa.array(np.asarray(vectors, kind.to_pandas_dtype()).ravel())
        wrong = pa.array([bool(p) for p in problems])
        table = pa.table(
            {
                "image_id": pa.array(image_ids, pa.string()),
                "embedding": pa.FixedSizeListArray.from_arrays(
                    values, vectors.shape[1], mask=wrong
                ),
                "problem": pa.array(problems, pa.string()),
            }
        )
        buffer = io.BytesIO()
        # numbers like these do not get smaller by compression or dictionaries
        pq.write_table(table, buffer, compression="none", use_dictionary=False)
        data = buffer.getvalue()
        for part in self.folder.glob(f".{shard:06d}-*.part"):  # of a process that was killed
            part.unlink(missing_ok=True)
        with self.explained(f"shard {shard} of {self.n_shards}"):
            name = f"{shard:06d}-{hashlib.sha256(data).hexdigest()[:HASH]}.parquet"
            atomic.write(self.folder / name, data)

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Say of errors in writing ``what`` to do."""
        try:
            yield
        except Timeout:
            raise
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            do = "make room" if full else "make the folder one that can be written"
            raise OSError(
                error.errno,
                f"{what} cannot be written to {self.folder} ({error.strerror}); what is there "
                f"stays good: {do}, and run it again",
            ) from None

    def _checked(self, path: Path) -> pa.Table:
        data = path.read_bytes()
        found, expected = hashlib.sha256(data).hexdigest()[:HASH], path.stem.split("-")[1]
        if found != expected:
            raise StoreError(
                f"{path} is damaged: its SHA-256 starts with {found}, its name says {expected}; "
                "remove the file and run the extraction again, which computes it anew"
            )
        return pq.read_table(pa.BufferReader(data))

    def tables(self) -> Iterator[pa.Table]:
        """All shards in their order, each checked.

        Raises
        ------
        StoreError
            Shards are missing or damaged.
        """
        if missing := self.missing():
            raise StoreError(
                f"{self.folder}: {len(missing)} of {self.n_shards} shards are missing, the first "
                f"is {missing[0]}; run the extraction again, it goes on from there"
            )
        last = None
        for shard, path in self.present().items():
            ids = (table := self._checked(path))["image_id"]
            if len(ids) != len(self.rows(shard)) or (last is not None and ids[0].as_py() <= last):
                raise StoreError(
                    f"{path} is not in its place: its name or {MANIFEST} was changed; remove the "
                    "folder and extract again"
                )
            last = ids[-1].as_py()
            yield table

    def vectors(self) -> np.ndarray:
        """All embeddings, float32 (n, d) in the order of the store; NaN where there is a problem.

        Raises
        ------
        StoreError
            Shards are missing or damaged.
        """
        return np.concatenate([_vectors(table["embedding"]) for table in self.tables()])

    def image_ids(self) -> np.ndarray:
        """Of all rows, text (n,)."""
        return np.concatenate([table["image_id"].to_numpy() for table in self.tables()])

    def problems(self) -> dict[int, dict[str, str]]:
        """Images without an embedding, by the shards that are there: image to the reason."""
        found = {}
        for shard, path in self.present().items():
            try:
                table = self._checked(path)
            except FileNotFoundError:  # given up by another process, to be filled anew
                continue
            few = table.filter(table["embedding"].is_null())
            if len(few):
                pairs = zip(few["image_id"].to_pylist(), few["problem"].to_pylist(), strict=True)
                found[shard] = dict(pairs)
        return found

    def tidy(self) -> None:
        """Remove what processes left behind, once all shards are there."""
        if not self.missing():
            # Whoever still waits for one of these locks will find its shard there.
            for pattern in (".*.lock", ".*.part"):
                for path in self.folder.glob(pattern):
                    path.unlink(missing_ok=True)


def _vectors(column: pa.ChunkedArray) -> np.ndarray:
    column = column.combine_chunks()
    values = column.flatten().to_numpy().astype(np.float32, copy=False)  # leaves out missing ones
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if there.all():
        return values.reshape(-1, column.type.list_size)
    whole = np.full((len(column), column.type.list_size), np.nan, np.float32)
    whole[there] = values.reshape(-1, column.type.list_size)
    return whole


def create(
    folder: Path,
    made_from: dict,
    n_images: int,
    rows_per_shard: int = ROWS,
    precision_error: Callable[[], dict | None] = lambda: None,
) -> Store:
    """The store in a folder, made if it is not there yet.

    Parameters
    ----------
    folder : Path
    made_from : dict
        What decides the embeddings: names and hashes, and ``dtype``.
    n_images : int
    rows_per_shard : int
        Of a new store; one that is there keeps its own.
    precision_error : callable
        Called for a new store alone; what it returns goes into the manifest.

    Raises
    ------
    StoreError
        The store that is there was made from something else, or its manifest is damaged.
    OSError
        The folder cannot be made or written.
    """
    if made_from["dtype"] not in DTYPES:
        raise ValueError(f"dtype={made_from['dtype']!r}: expected {' or '.join(DTYPES)}")
    if rows_per_shard < 1 or rows_per_shard != int(rows_per_shard):
        raise ValueError(f"rows_per_shard={rows_per_shard}: expected a whole number, 1 or more")
    if not (folder / MANIFEST).is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".manifest.lock"):
                if not (folder / MANIFEST).is_file():
                    manifest = {
                        "format": FORMAT,
                        "made_from": made_from,
                        "n_images": n_images,
                        "rows_per_shard": int(rows_per_shard),
                        "precision_error": precision_error(),
                        "written_with": {"python": platform.python_version()}
                        | {package: version(package) for package in PACKAGES},
                    }
                    text = json.dumps(manifest, indent=1)
                    atomic.write(folder / MANIFEST, f"{text}\n".encode())
        except OSError as error:
            raise OSError(
                error.errno,
                f"embeddings cannot be kept in {folder} ({error.strerror}); make room, or choose a "
                "folder that can be written: set CXRBOOK_CACHE to one (for credentialed data, "
                "CXRBOOK_DATA)",
            ) from None
    store = load(folder)
    _refuse_other(store, made_from | {"n_images": n_images})
    return store


def load(folder: Path) -> Store:
    """A store that is there.

    Raises
    ------
    StoreError
        No manifest, a damaged one, or one of another version of the book.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        known = manifest["format"]
    except FileNotFoundError:
        raise StoreError(f"{folder} is no store of embeddings: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path} is damaged; remove the folder and extract again") from None
    if known != FORMAT:
        raise StoreError(f"{path}: format {known}; this version reads format {FORMAT}")
    numbers = [manifest.get(key) for key in ("n_images", "rows_per_shard")]
    if type(manifest.get("made_from")) is not dict or not all(type(n) is int for n in numbers):
        raise StoreError(f"{path} is damaged; remove the folder and extract again")
    return Store(Path(folder), manifest)


def _refuse_other(store, made_from):
    before = store.manifest["made_from"] | {"n_images": store.manifest["n_images"]}
    other = [k for k in {**before, **made_from} if before.get(k) != made_from.get(k)]
    if other:
        said = "; ".join(f"{k}: {before.get(k)} there, {made_from.get(k)} asked for" for k in other)
        raise StoreError(
            f"{store.folder} holds embeddings made from something else ({said}). Nothing was "
            "written; choose another folder"
        )
