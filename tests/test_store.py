"""The store of embeddings: what other programs read in it, damage, locks, refusals."""

import json
import multiprocessing
import os
import time

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest
from bare_loop import ended, forked, kill, log
from filelock import Timeout

from cxrlib.embed.store import MANIFEST, StoreError, create, load

MADE = {
    "cohort": "some",
    "weights": "a1" * 32,
    "preprocessing_hash": "0123",
    "precision": "float32",
}
ODD = ("é", "胸部X線", "🩻", 'quo"te', "it's", "two\nlines", " ", "a/b", "x" * 5000, "-1", "null")
N, WIDTH, ROWS = 23, 6, 5
IDS = sorted([*ODD, *(f"film {i}" for i in range(N - len(ODD)))])
VECTORS = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def made(dtype="float32", **changes):
    return MADE | {"dtype": dtype} | changes


def write(store, shard, problems=None):
    rows = store.rows(shard)
    why = [(problems or {}).get(image, "") for image in IDS[rows.start : rows.stop]]
    with store.lock(shard):
        store.write(shard, IDS[rows.start : rows.stop], VECTORS[rows.start : rows.stop], why)


def filled(folder, dtype="float32", rows=ROWS, problems=None):
    store = create(folder, made(dtype), N, rows)
    for shard in reversed(store.missing()):  # the order of writing must not matter
        write(store, shard, problems)
    store.tidy()
    return store


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# --- as other programs see it ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rows", [1, ROWS, 1000])
def test_other_programs_read_it(tmp_path, dtype, rows):
    broken = {IDS[3]: "cut off", IDS[7]: "é, empty"}
    filled(tmp_path / "store", dtype, rows, broken)
    good = [i for i in range(N) if IDS[i] not in broken]
    expected = VECTORS[good].astype(dtype)

    frame = pd.read_parquet(tmp_path / "store")
    assert list(frame) == ["image_id", "embedding", "problem"]
    assert list(frame["image_id"]) == IDS
    assert {v.dtype for v in frame["embedding"][good]} == {np.dtype(dtype)}
    np.testing.assert_array_equal(np.stack(frame["embedding"][good]), expected)
    assert frame["embedding"].isna().sum() == len(broken)
    assert dict(zip(frame["image_id"], frame["problem"], strict=True)) == (
        dict.fromkeys(IDS, "") | broken
    )

    table = pl.read_parquet(tmp_path / "store" / "*.parquet")
    number = {"float32": pl.Float32, "float16": pl.Float16}[dtype]
    assert table.schema == {
        "image_id": pl.String,
        "embedding": pl.Array(number, WIDTH),
        "problem": pl.String,
    }
    assert table["image_id"].to_list() == IDS
    np.testing.assert_array_equal(table["embedding"].drop_nulls().to_numpy(), expected)

    query = f"select image_id, embedding, problem from '{tmp_path}/store/*.parquet'"
    found = duckdb.connect().sql(query).fetchall()
    assert [row[0] for row in found] == IDS
    np.testing.assert_array_equal([row[1] for row in found if row[1]], expected.astype(float))
    assert [row[2] for row in found if not row[1]] == list(broken.values())


def test_a_complete_store_is_a_manifest_and_its_shards(tmp_path):
    folder = tmp_path / "store"
    store = create(folder, made(), N, ROWS, lambda: {"largest": 0.5})
    (folder / ".000001-0123.parquet.host-9.part").write_text("of a process that was killed")
    write(store, 4)
    assert store.missing() == [0, 1, 2, 3]
    store.tidy()  # others are still at work: their locks stay
    assert {".000004.lock", ".000001-0123.parquet.host-9.part"} <= set(names(folder))
    for shard in range(4):
        write(store, shard)
    store.tidy()
    assert names(folder)[-1] == "_manifest.json" and len(names(folder)) == 1 + 5
    assert [name[:7] for name in names(folder)[:-1]] == [f"{i:06d}-" for i in range(5)]

    manifest = json.loads((folder / "_manifest.json").read_text())
    assert manifest["made_from"] == made()
    assert manifest["n_images"] == N and manifest["rows_per_shard"] == ROWS
    assert manifest["precision_error"] == {"largest": 0.5}
    assert manifest["written_with"]["numpy"] == np.__version__
    assert {"python", "cxrbook", "torch", "pillow", "pyarrow"} <= set(manifest["written_with"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_was_written_is_read(tmp_path, dtype):
    whole = {
        image: "all of a shard" for image in IDS[5:10]
    }  # of which nothing but problems is left
    store = filled(tmp_path / "store", dtype, problems=whole | {IDS[22]: "one more"})
    expected = VECTORS.astype(dtype).astype(np.float32)
    expected[[5, 6, 7, 8, 9, 22]] = np.nan
    np.testing.assert_array_equal(store.vectors(), expected)
    assert store.vectors().dtype == np.float32
    assert store.image_ids().tolist() == IDS
    assert store.problems() == {1: whole, 4: {IDS[22]: "one more"}}
    assert load(tmp_path / "store") == store


def test_a_single_image(tmp_path):
    store = create(tmp_path, made(), 1)
    assert store.n_shards == 1
    with store.lock(0):
        store.write(0, ["only"], VECTORS[:1], [""])
    np.testing.assert_array_equal(store.vectors(), VECTORS[:1])
    with store.lock(0), pytest.raises(ValueError, match="shard 0: 2 rows"):
        store.write(0, IDS[:2], VECTORS[:2], ["", ""])


# --- damage ----------------------------------------------------------------------------------


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    store = filled(tmp_path / "store")
    path = store.present()[0]
    data = path.read_bytes()
    for i in range(0, len(data), 3):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
        with pytest.raises(StoreError, match=f"{path.name} is damaged.* run the extraction again"):
            store.vectors()
    path.write_bytes(data)
    assert store.image_ids().tolist() == IDS


def doubled(shards):
    other = shards[2].with_name("000002-0123456789abcdef.parquet")
    other.write_bytes(shards[2].read_bytes())


def swapped(shards):
    first, second = (p.read_bytes() for p in shards[:2])
    for number, data, old in ((0, second, shards[1]), (1, first, shards[0])):
        shards[number].unlink()
        shards[number].with_name(f"{number:06d}-{old.name[7:]}").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s[1].write_bytes(b""), "is damaged: its SHA-256"),
        (lambda s: s[1].write_bytes(s[1].read_bytes()[:-1]), "is damaged: its SHA-256"),
        (lambda s: s[1].unlink(), "1 of 5 shards are missing, the first is 1; run"),
        (
            lambda s: s[4].rename(s[4].with_name("000009" + s[4].name[6:])),
            "missing, the first is 4",
        ),
        (lambda s: s[1].rename(s[1].with_name("000001-0123456789abcdef.parquet")), "damaged"),
        (lambda s: s[1].rename(s[1].with_name("000001.parquet")), "000001.parquet is no shard"),
        (lambda s: s[1].with_name("more.parquet").write_bytes(b"PAR1"), "more.parquet is no shard"),
        (doubled, "holds a shard twice .*000002-.* and 000002-"),
        (swapped, "00000[01]-.* is not in its place"),
    ],
    ids=[
        "empty",
        "cut",
        "gone",
        "renumbered",
        "rehashed",
        "unnamed",
        "foreign",
        "doubled",
        "swapped",
    ],
)
@pytest.mark.parametrize("read", ["vectors", "image_ids"])
def test_damaged_shards_are_found(tmp_path, damage, message, read):
    store = filled(tmp_path / "store")
    damage(list(store.present().values()))
    with pytest.raises(StoreError, match=message):
        getattr(store, read)()


def test_a_damaged_manifest_is_found(tmp_path):
    """A bit that is flipped in what decides the embeddings or their place is never passed over."""
    folder = filled(tmp_path / "store").folder
    path = folder / "_manifest.json"
    text = path.read_bytes()
    before = json.loads(text)
    passed = 0
    for i in range(len(text)):
        path.write_bytes(text[:i] + bytes([text[i] ^ 1]) + text[i + 1 :])
        try:
            store = create(folder, made(), N)
            assert store.image_ids().tolist() == IDS
        except StoreError:
            continue
        passed += 1
        for key in ("format", "made_from", "n_images", "rows_per_shard"):
            assert store.manifest[key] == before[key]
    assert passed < len(text) / 2  # white space, versions
    assert names(folder)[-1] == "_manifest.json" and len(names(folder)) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no store of embeddings: it has no _manifest.json"),
        ("", "_manifest.json is damaged; remove the folder"),
        ("[]", "is damaged"),
        ("3", "is damaged"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 1, "made_from": {"dtype": "float32"}, "n_images": 23}', "is damaged"),
        ('{"format": 2, "anything": 1}', "format 2; this version reads format 1"),
    ],
)
def test_no_manifest_or_another(tmp_path, text, message):
    if text is not None:
        (tmp_path / "_manifest.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        load(tmp_path)
    if text is not None:
        with pytest.raises(StoreError, match=message):
            create(tmp_path, made(), N)


@pytest.mark.parametrize("key", [*MADE, "dtype", "more"])
def test_a_store_of_something_else_is_refused(tmp_path, key):
    folder = filled(tmp_path / "store").folder
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    other = made(**{key: "float16" if key == "dtype" else "f00"})
    there = made().get(key)
    with pytest.raises(StoreError, match=f"{key}: {there} there, {other[key]} asked for") as error:
        create(folder, other, N)
    assert str(folder) in str(error.value)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"made_from": made("float64")}, "dtype='float64': expected one of float32, float16"),
        ({"rows_per_shard": 0}, "rows_per_shard=0: expected a whole number, 1 or more"),
        ({"rows_per_shard": 2.5}, "rows_per_shard=2.5: expected a whole number, 1 or more"),
    ],
)
def test_wrong_parameters_make_nothing(tmp_path, changes, message):
    given = {"made_from": made(), "n_images": N, "rows_per_shard": ROWS}
    with pytest.raises(ValueError, match=message):
        create(tmp_path / "store", **(given | changes))
    assert not (tmp_path / "store").exists()


# --- several processes -----------------------------------------------------------------------


def test_one_of_several_processes_makes_the_manifest(tmp_path):
    folder, at_once = tmp_path / "store", multiprocessing.get_context("fork").Barrier(4)

    def one(rows):
        def measure():
            log(tmp_path / "measured", [rows])
            time.sleep(0.1)  # the others come while it is made

        at_once.wait()
        store = create(folder, made(), N, rows, measure)
        log(tmp_path / "found", [store.manifest["rows_per_shard"]])

    assert [ended(pid) for pid in [forked(lambda r=r: one(r)) for r in (2, 3, 4, 5)]] == [0] * 4
    (maker,) = (tmp_path / "measured").read_text().split()
    assert (tmp_path / "found").read_text().split() == [maker] * 4


def keep(store, hold):
    """Take the lock of shard 1, say so, and never give it back."""
    with store.lock(1):
        os.write(hold, b"1")
        time.sleep(600)


def test_a_lock_is_for_one_process_and_ends_with_it(tmp_path):
    store = create(tmp_path, made(), N, ROWS)
    held, hold = os.pipe()
    pid = forked(lambda: keep(store, hold))
    os.read(held, 1)
    with pytest.raises(Timeout):
        store.lock(1).acquire(timeout=0)
    with store.lock(0).acquire(timeout=0):  # that of another shard
        pass
    kill(pid)
    with store.lock(1).acquire(timeout=0):
        write_again = store.present()
    assert not write_again


def test_the_one_who_waits_goes_on_when_the_holder_is_killed(tmp_path):
    store = create(tmp_path, made(), N, ROWS)
    held, hold = os.pipe()

    def waiter():
        os.write(hold, b"2")
        write(store, 1)

    first = forked(lambda: keep(store, hold))
    os.read(held, 1)
    second = forked(waiter)
    os.read(held, 1)
    time.sleep(0.2)
    assert store.missing() == list(range(5))
    kill(first)
    assert ended(second) == 0
    assert list(store.present()) == [1]


def test_parts_of_killed_processes_go_with_the_next_write(tmp_path):
    store = create(tmp_path, made(), N, ROWS)
    for name in (".000001-aa.parquet.host-9.part", ".000002-bb.parquet.host-9.part"):
        (tmp_path / name).write_text("half")
    write(store, 1)
    parts = [name for name in names(tmp_path) if name.endswith(".part")]
    assert parts == [".000002-bb.parquet.host-9.part"]  # its owner may be at work
    assert MANIFEST in names(tmp_path)
