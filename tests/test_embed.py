"""Extraction against a bare loop: any batch, shard, worker; broken images, memory, precision."""

import multiprocessing
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bare_loop import (
    RESNET,
    VIT,
    apart,
    bare,
    by_name,
    digests,
    ended,
    forked,
    in_memory,
    log,
    watched,
)
from PIL import Image

from cxrlib import cohorts, models
from cxrlib.cohorts.films import reader
from cxrlib.embed import extract as extract_module
from cxrlib.embed.extract import embed, extract, made_from, store_folder
from cxrlib.embed.store import StoreError, load
from cxrlib.embed.worker import _begin, fastest

N = 131  # no multiple of any batch or shard here
CLOSE = 1e-6


@pytest.fixture(scope="module")
def cohort():
    return in_memory(N)


@pytest.fixture(scope="module")
def loaded():
    return {name: models.load_model(name) for name in (RESNET, VIT)}


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[RESNET]


@pytest.fixture(scope="module")
def expected(cohort, loaded):
    return {name: bare(cohort, model).numpy() for name, model in loaded.items()}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Films are read 16 at a time, so that pieces, batches and shards all have other borders."""
    monkeypatch.setattr(extract_module, "BATCH_PIXELS", 16 * 64**2)


def same(store, cohort, expected):
    """The store holds these vectors, and on disk there is nothing but it."""
    names, vectors = by_name(cohort, expected)
    assert store.image_ids().tolist() == names
    assert store.vectors().dtype == np.float32
    assert apart(store.vectors(), vectors) <= CLOSE
    assert not store.problems()
    only_shards(store)


def only_shards(store):
    assert {p.name for p in store.folder.iterdir()} == {
        "_manifest.json",
        *(p.name for p in store.present().values()),
    }
    assert len(store.present()) == store.n_shards


# --- the same as a bare loop -----------------------------------------------------------------

WAYS = [  # workers, images a batch, rows a shard
    (0, None, 1024),
    (0, 1, 50),
    (0, 7, 16),
    (0, 64, 131),
    (0, 1000, 1),
    (1, 7, 130),
    (2, 64, 5),
    (2, None, 33),
]


@pytest.mark.parametrize("name", [RESNET, VIT])
def test_the_same_whatever_batch_shard_and_workers(cohort, loaded, expected, tmp_path, name):
    ways = WAYS if name == RESNET else WAYS[2::3]
    for i, (workers, batch_size, rows) in enumerate(ways):
        how = {"workers": workers, "batch_size": batch_size, "rows_per_shard": rows}
        same(extract(cohort, loaded[name], tmp_path / f"{i}", **how), cohort, expected[name])


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hardly_any_images(cohort, model, expected, tmp_path, n):
    few = replace(cohort, table=cohort.table.head(n))
    for batch_size, rows in ((None, 1024), (1, 1), (2, 2)):
        store = extract(
            few, model, tmp_path / f"{rows}", batch_size=batch_size, rows_per_shard=rows
        )
        same(store, few, expected[RESNET][:n])


def test_half_precision_on_disk_rounds_once(cohort, model, expected, tmp_path):
    store = extract(cohort, model, tmp_path / "half", dtype="float16", rows_per_shard=50)
    _, vectors = by_name(cohort, expected[RESNET])
    step = np.spacing(np.abs(vectors).astype(np.float16)).astype(np.float32)
    assert (np.abs(store.vectors() - vectors) <= step / 2 + CLOSE).all()
    assert store.vectors().dtype == np.float32
    assert store.manifest["made_from"]["dtype"] == "float16"
    only_shards(store)


def test_embed_is_in_the_order_of_the_table(cohort, model, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path))
    for cache in (False, True, True):
        found = embed(cohort, model, cache=cache)
        assert found.dtype == np.float32 and found.shape == (N, 128)
        assert apart(found, expected[RESNET]) <= CLOSE
    (folder,) = (tmp_path / "embeddings").iterdir()
    assert folder == store_folder(cohort, model)
    assert folder.name.startswith("phantom_phantom-resnet_")
    kept = tmp_path / "kept"  # credentialed data stay with the data
    assert store_folder(replace(cohort, keep=kept), model).parent == kept / "embeddings"


def test_an_interrupted_run_goes_on(cohort, model, expected, tmp_path):
    """By Ctrl-C, several times, with other batches: what is there is not touched again."""
    read, stop = [], [0]

    def images(positions):
        if len(read) > stop[0]:
            raise KeyboardInterrupt
        read.extend(positions)
        return cohort.images(positions)

    for stop[0] in (25, 60, 61):
        with pytest.raises(KeyboardInterrupt):
            extract(replace(cohort, images=images), model, tmp_path, rows_per_shard=10)
        store = load(tmp_path)
        before = {p: p.stat().st_ino for p in store.present().values()}
        assert 0 < len(before) < 14
    left = sum(len(store.rows(shard)) for shard in store.missing())
    read.clear()
    stop[0] = N
    extract(replace(cohort, images=images), model, tmp_path, batch_size=3, rows_per_shard=99)
    assert len(read) == left
    assert before.items() <= {p: p.stat().st_ino for p in store.present().values()}.items()
    same(load(tmp_path), cohort, expected[RESNET])


# --- every image once ------------------------------------------------------------------------


def logged(cohort, model, folder, name="", wait=0.0):
    """Cohort and model that write down, in any process, what is read, prepared and encoded."""
    folder.mkdir(exist_ok=True)

    def images(positions):
        log(folder / f"read{name}", positions)
        time.sleep(wait)
        return cohort.images(positions)

    def preprocess(films):
        log(folder / f"prepared{name}", digests(films))
        return model.preprocess(films)

    seen = watched(model, lambda batch: log(folder / f"encoded{name}", digests(batch.numpy())))
    return replace(cohort, images=images), replace(seen, preprocess=preprocess)


def lines(folder, what):
    return [line for p in sorted(folder.glob(f"{what}*")) for line in p.read_text().split()]


@pytest.mark.parametrize(("workers", "batch_size", "rows"), [(0, 7, 16), (2, 64, 5), (2, 1, 200)])
def test_each_image_is_read_prepared_and_encoded_once(
    cohort, model, tmp_path, workers, batch_size, rows
):
    logs = tmp_path / "logs"
    source, seen = logged(cohort, model, logs)
    how = {"workers": workers, "batch_size": batch_size, "rows_per_shard": rows}
    for _ in range(2):  # the second call finds all there
        extract(source, seen, tmp_path / "store", **how)
    assert sorted(map(int, lines(logs, "read"))) == list(range(N))
    for what in ("prepared", "encoded"):
        assert len(lines(logs, what)) == len(set(lines(logs, what))) == N


@pytest.mark.parametrize("workers", [0, 1])
def test_two_processes_share_the_work(cohort, model, expected, tmp_path, workers):
    logs, start = tmp_path / "logs", multiprocessing.get_context("fork").Barrier(2)

    def one(name):
        source, seen = logged(cohort, model, logs, name, wait=0.01)
        start.wait()
        how = {"workers": workers, "batch_size": 7, "rows_per_shard": 4}
        extract(source, seen, tmp_path / "store", **how)  # the other may still be at work then

    assert [ended(pid) for pid in [forked(lambda n=n: one(n)) for n in ("-a", "-b")]] == [0, 0]
    assert sorted(map(int, lines(logs, "read"))) == list(range(N))
    assert len(lines(logs, "encoded")) == len(set(lines(logs, "encoded"))) == N
    assert all(len(lines(logs, f"encoded-{name}")) >= 4 for name in "ab")
    same(load(tmp_path / "store"), cohort, expected[RESNET])


# --- made from something else ----------------------------------------------------------------

OTHERS = {
    "weights": lambda c, m: (c, replace(m, weights="0" * 64)),
    "preprocessing": lambda c, m: (c, replace(m, preprocessing="paper S")),
    "preprocessing_hash": lambda c, m: (c, replace(m, code=(Path(__file__),))),
    "precision": lambda c, m: (c, m.to("cpu", "bfloat16")),
    "model": lambda c, m: (c, replace(m, name="another")),
    "cohort": lambda c, m: (replace(c, name="another"), m),
    "cohort_fingerprint": lambda c, m: (replace(c, table=c.table.head(N - 1)), m),
}


@pytest.mark.parametrize("key", OTHERS)
def test_a_store_of_something_else_is_refused_and_left_alone(cohort, model, tmp_path, key):
    extract(cohort, model, tmp_path, rows_per_shard=50)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    there, asked = made_from(cohort, model)[key], made_from(*OTHERS[key](cohort, model))[key]
    assert there != asked
    with pytest.raises(StoreError, match="Nothing was written; choose another folder") as error:
        extract(*OTHERS[key](cohort, model), tmp_path)
    assert f"{key}: {there} there, {asked} asked for" in str(error.value)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before


def test_whatever_decides_the_embeddings_has_a_folder_of_its_own(cohort, model):
    folders = {store_folder(*other(cohort, model)) for other in OTHERS.values()}
    folders |= {store_folder(cohort, model), store_folder(cohort, model, "float16")}
    assert len(folders) == len(OTHERS) + 2
    assert set(OTHERS) | {"dtype"} == set(made_from(cohort, model))
    shuffled = replace(cohort, table=cohort.table.iloc[::-1].reset_index(drop=True))
    assert store_folder(shuffled, model) == store_folder(cohort, model)


# --- broken images ---------------------------------------------------------------------------


@pytest.fixture
def on_disk(cohort, tmp_path):
    """40 films as files of different sizes, and their embeddings."""
    folder = tmp_path / "films"
    folder.mkdir()
    for i, film in enumerate(cohort.images(np.arange(40))):
        Image.fromarray(film[: 64 - i % 3]).save(folder / f"{i}.png")
    table = cohort.table.head(40)
    return folder, replace(
        cohort, table=table, images=reader(folder, [f"{i}.png" for i in range(40)])
    )


def broken(folder, numbers):
    """Damage films, each otherwise; what mends them again."""
    whole = {i: (folder / f"{i}.png").read_bytes() for i in numbers}
    for k, i in enumerate(numbers):
        path = folder / f"{i}.png"
        if k % 3:
            path.write_bytes([b"", whole[i][:90], b"no image"][k % 3])
        else:
            path.unlink()
    return lambda which: [(folder / f"{i}.png").write_bytes(whole[i]) for i in which]


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_images_are_recorded_and_tried_again(on_disk, model, tmp_path, monkeypatch, workers):
    monkeypatch.setenv("CXRBOOK_CACHE", str(tmp_path / "cache"))
    folder, cohort = on_disk
    reference = bare(cohort, model).numpy()
    ids = cohort.table["image_id"]
    mend = broken(folder, [3, 17, 30])
    encoded = []
    seen = watched(model, lambda batch: encoded.extend(digests(batch.numpy())))
    how = {"workers": workers, "rows_per_shard": 6}

    store = extract(cohort, seen, **how)
    problems = {image: why for few in store.problems().values() for image, why in few.items()}
    assert set(problems) == set(ids[[3, 17, 30]])
    assert problems[ids[3]].startswith("3.png: ") and "No such file" in problems[ids[3]]
    assert problems[ids[17]].startswith("17.png: damaged or cut off")
    assert (
        problems[ids[30]] == "30.png: no image and no DICOM file, or one that is damaged or cut off"
    )
    names, vectors = by_name(cohort, reference)
    good = ~np.isin(names, list(problems))
    assert apart(store.vectors()[good], vectors[good]) <= CLOSE
    assert np.isnan(store.vectors()[~good]).all()
    assert len(encoded) == len(set(encoded)) == 37
    only_shards(store)

    encoded.clear()
    with pytest.raises(StoreError, match=r"3 of 40 images of cohort 'phantom'.*\.png: ") as error:
        embed(cohort, seen)
    assert all(f"{image}: {why}" in str(error.value) for image, why in problems.items())
    assert not encoded  # nothing is computed for what is still broken

    mend([17])
    before = {p.name for p in store.present().values()}
    assert {i for few in extract(cohort, seen, **how).problems().values() for i in few} == set(
        ids[[3, 30]]
    )
    assert len(before - {p.name for p in store.present().values()}) == 1
    assert len(set(encoded)) <= 6  # its shard alone

    mend([3, 30])
    assert apart(embed(cohort, seen), reference) <= CLOSE
    same(store, cohort, reference)


def test_a_shard_of_broken_images(on_disk, model, tmp_path):
    folder, cohort = on_disk
    reference = bare(cohort, model).numpy()
    names, vectors = by_name(cohort, reference)
    numbers = [list(cohort.table["image_id"]).index(name) for name in names[4:8]]
    mend = broken(folder, numbers)
    store = extract(cohort, model, tmp_path / "store", rows_per_shard=4)
    assert list(store.problems()) == [1] and list(store.problems()[1]) == names[4:8]
    assert np.isnan(store.vectors()[4:8]).all()
    assert (
        apart(np.delete(store.vectors(), range(4, 8), 0), np.delete(vectors, range(4, 8), 0))
        < CLOSE
    )
    assert pd.read_parquet(store.folder)["embedding"].isna().sum() == 4
    mend(numbers)
    same(extract(cohort, model, store.folder), cohort, reference)


def test_processes_that_find_images_mended_fill_their_shards_once(on_disk, model, tmp_path):
    folder, cohort = on_disk
    reference = bare(cohort, model).numpy()
    mend = broken(folder, range(0, 40, 5))
    extract(cohort, model, tmp_path / "store", rows_per_shard=4)
    mend(range(0, 40, 5))
    start = multiprocessing.get_context("fork").Barrier(3)

    def one():
        start.wait()
        extract(cohort, model, tmp_path / "store")

    assert [ended(pid) for pid in [forked(one) for _ in range(3)]] == [0] * 3
    same(load(tmp_path / "store"), cohort, reference)  # the last one to end tidied up


def test_too_many_broken_images_are_refused_and_the_rest_stays(on_disk, model, tmp_path):
    folder, cohort = on_disk
    reference = bare(cohort, model).numpy()
    mend = broken(folder, range(20, 31))
    with pytest.raises(StoreError, match="11 images so far cannot be read or encoded, the last"):
        extract(cohort, model, tmp_path / "store", rows_per_shard=2)
    store = load(tmp_path / "store")
    kept = {p.name for p in store.present().values()}
    assert 0 < len(kept) < store.n_shards
    mend([25])
    extract(cohort, model, store.folder)  # ten may be broken
    assert sum(map(len, store.problems().values())) == 10
    mend(range(20, 31))
    same(extract(cohort, model, store.folder), cohort, reference)


def test_memory_that_runs_out_while_reading_is_no_broken_image(cohort, model, tmp_path):
    def images(positions):
        raise MemoryError("of the machine")

    with pytest.raises(MemoryError, match="of the machine"):
        extract(replace(cohort, images=images), model, tmp_path)


def spoilt(model, films, value):
    """A network that makes of these films vectors of ``value``."""
    bad, inner = digests(model.preprocess(films).numpy()), model.network.encode_image

    class Spoilt(torch.nn.Module):
        def encode_image(self, batch):
            vectors = inner(batch).clone()
            vectors[[d in bad for d in each_digest(batch)]] = value
            return vectors

    return replace(model, network=Spoilt())


def each_digest(batch):
    return [next(iter(digests(x[None].numpy()))) for x in batch]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_embedding_that_is_not_finite_is_a_problem(cohort, model, expected, tmp_path, value):
    bad = spoilt(model, cohort.images(np.array([40, 41])), value)
    store = extract(cohort, bad, tmp_path, rows_per_shard=50)
    names, vectors = by_name(cohort, expected[RESNET])
    problems = {i: why for few in store.problems().values() for i, why in few.items()}
    assert problems == dict.fromkeys(
        cohort.table["image_id"][[40, 41]], "its embedding is not finite (in float32)"
    )
    good = ~np.isin(names, list(problems))
    assert apart(store.vectors()[good], vectors[good]) <= CLOSE
    before = {p.name: p.stat().st_ino for p in tmp_path.iterdir()}
    extract(cohort, bad, tmp_path)  # still so: nothing is made anew
    assert {p.name: p.stat().st_ino for p in tmp_path.iterdir()} == before
    same(extract(cohort, model, tmp_path), cohort, expected[RESNET])


# --- memory and batch size -------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_batches_halve_when_memory_runs_out(cohort, model, expected, tmp_path, error):
    sizes = []

    def see(batch):
        sizes.append(len(batch))
        if len(batch) > 13:
            raise error

    how = {"batch_size": 100, "rows_per_shard": 120}
    same(extract(cohort, watched(model, see), tmp_path, **how), cohort, expected[RESNET])
    assert sizes[:4] == [100, 50, 25, 13]
    assert max(sizes[4:]) == 13  # not tried again
    assert sum(sizes[3:]) == N


def test_memory_for_not_even_one_image(cohort, model, tmp_path):
    def see(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(MemoryError, match=f"{RESNET}: memory ran out with a single image; free"):
        extract(cohort, watched(model, see), tmp_path)
    same(extract(cohort, model, tmp_path), cohort, bare(cohort, model))


def test_other_errors_of_the_network_are_not_taken_for_memory(cohort, model, tmp_path):
    def see(batch):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        extract(cohort, watched(model, see), tmp_path)


@pytest.mark.parametrize(
    ("fixed", "memory", "best"),
    [
        # Twice n images take (2 n + fixed) instead of (n + fixed), so a doubling gives 5 % more
        # images a second while n <= 9.5 fixed: the best is the first power of two above that.
        (0.0, 10**6, 1),
        (1.0, 10**6, 16),
        (3.1, 10**6, 32),
        (3.4, 10**6, 64),
        (1e6, 10**6, 1024),
        (1e6, 1024, 1024),
        (1e6, 1023, 512),
        (3.4, 40, 32),
        (1e6, 0, 1),
    ],
)
def test_the_batch_from_which_doubling_does_not_pay(fixed, memory, best):
    def seconds(n):
        if n > memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0.001 * (fixed + n)

    assert fastest(seconds) == best


def test_a_network_that_fails_has_no_fastest_batch():
    def seconds(n):
        raise RuntimeError("mat1 and mat2")

    with pytest.raises(RuntimeError, match="mat1"):
        fastest(seconds)


# --- precision -------------------------------------------------------------------------------


def test_the_error_of_a_lower_precision_is_measured_and_kept(cohort, model, expected, tmp_path):
    low = model.to("cpu", "bfloat16")
    store = extract(cohort, low, tmp_path / "low")
    told = store.manifest["precision_error"]
    some = sorted({int(i) for i in np.linspace(0, N - 1, 32)})
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        vectors = model.network.encode_image(model.preprocess(cohort.images(np.array(some))))
    vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
    difference = np.linalg.norm(vectors.numpy() - expected[RESNET][some], axis=1)
    assert told["n_images"] == 32
    assert told["largest"] == pytest.approx(difference.max(), rel=0.02)
    assert told["mean"] == pytest.approx(difference.mean(), rel=0.02)
    assert 1e-4 < told["mean"] < told["largest"] < 0.1
    all_rows = apart(store.vectors(), by_name(cohort, expected[RESNET])[1])
    assert told["mean"] < all_rows < 3 * told["largest"]
    exact = extract(cohort, model, tmp_path / "exact")
    assert exact.manifest["precision_error"] is None
    assert low.precision == "bfloat16"


def test_the_error_of_a_lower_precision_passes_over_broken_images(on_disk, model, tmp_path):
    folder, cohort = on_disk
    broken(folder, [0, 39])  # both would be compared
    store = extract(cohort, model.to("cpu", "bfloat16"), tmp_path / "store")
    assert store.manifest["precision_error"]["n_images"] == 30
    assert sum(map(len, store.problems().values())) == 2


# --- what is refused -------------------------------------------------------------------------


def test_wrong_parameters_are_refused_before_anything_is_written(cohort, model, tmp_path):
    def ensemble():
        both = type("Two", (), {"name": "two", "members": (model, model)})
        return {"model": both()}

    for changes, message in (
        ({"dtype": "float64"}, "dtype='float64': expected one of float32, float16"),
        ({"engine": "spark"}, "engine='spark': expected one of local, ray"),
        ({"batch_size": 0}, "batch_size=0: expected a whole number, 1 or more"),
        ({"batch_size": 2.5}, "batch_size=2.5: expected a whole number, 1 or more"),
        ({"workers": -1}, "workers=-1: expected a whole number, 0 or more"),
        ({"rows_per_shard": 0}, "rows_per_shard=0: expected a whole number, 1 or more"),
        ({"cohort": cohorts.load("nih-metadata")}, "'nih-metadata' is metadata only"),
        ({"cohort": replace(cohort, table=cohort.table.head(0))}, "'phantom' has no images"),
        (ensemble(), "two is an ensemble of 2 checkpoints"),
        ({"model": "phantom-resnt"}, "did you mean 'phantom-resnet'"),
    ):
        given = {"cohort": cohort, "model": model, "folder": tmp_path / "store"} | changes
        with pytest.raises(ValueError, match=message) as error:
            extract(**given)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "store").exists()


# --- on a GPU --------------------------------------------------------------------------------


@pytest.fixture
def on_gpu():
    there = models.load_model(RESNET, device="cuda")
    yield there
    there.to("cpu")


@pytest.mark.gpu
@pytest.mark.parametrize(("workers", "batch_size"), [(0, None), (2, None), (2, 7)])
def test_a_gpu_gives_the_same(cohort, expected, tmp_path, on_gpu, workers, batch_size):
    """The batch size is searched for, and films come through pinned memory."""
    how = {"workers": workers, "batch_size": batch_size, "rows_per_shard": 50}
    store = extract(cohort, on_gpu, tmp_path, **how)
    assert apart(store.vectors(), by_name(cohort, expected[RESNET])[1]) < 1e-5  # another machine
    only_shards(store)
    again = extract(cohort, on_gpu, tmp_path / "again", batch_size=64)
    assert apart(store.vectors(), again.vectors()) <= CLOSE


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_on_a_gpu(cohort, expected, tmp_path, on_gpu, precision):
    store = extract(cohort, on_gpu.to("cuda", precision), tmp_path, workers=1)
    told = store.manifest["precision_error"]
    found = apart(store.vectors(), by_name(cohort, expected[RESNET])[1])
    assert 0 < told["mean"] < told["largest"] < 0.1
    assert told["mean"] < found < 3 * told["largest"]


@pytest.mark.gpu
def test_memory_of_a_gpu_runs_out(cohort, model, tmp_path, on_gpu):
    films = cohort.images(np.arange(N))
    table = pd.concat([cohort.table] * 32, ignore_index=True)
    table["image_id"] = [f"{i:06d}" for i in range(len(table))]
    many = replace(cohort, table=table, images=lambda positions: films[positions % N])
    sizes = []
    seen = watched(on_gpu, lambda batch: sizes.append(len(batch)))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**29 / total)  # 512 MiB
    try:
        store = extract(many, seen, tmp_path, batch_size=len(table), rows_per_shard=len(table))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert sizes[-1] < sizes[0] == len(table)
    assert apart(store.vectors(), np.tile(bare(cohort, model), (32, 1))) < 1e-5


def test_workers_hand_films_over_where_the_temporary_folder_has_a_long_name(tmp_path, monkeypatch):
    long = tmp_path / (60 * "\xfc")  # in bytes, too long for a socket even if tmp_path were ""
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    films = torch.utils.data.DataLoader(
        [torch.ones(2)] * 3,
        batch_size=None,
        num_workers=1,
        worker_init_fn=partial(_begin, os.getpid()),
        multiprocessing_context="fork",
    )
    assert sum(film.sum().item() for film in films) == 6


def test_reports_are_encoded_once_a_wording_and_findings_stand_in(monkeypatch):
    asked = []

    def encode(texts, model):
        asked.append(list(texts))
        return np.array([[len(text)] for text in texts], np.float32)

    monkeypatch.setattr(extract_module, "embed_text", encode)
    films = cohorts.load("phantom", n_images=4)
    written = ["No edema.", None, "Large effusion.", "No edema."]
    spoken = replace(films, table=films.table.assign(report=written))
    z, positions = extract_module.embed_reports(spoken, "phantom-resnet")
    assert asked.pop() == ["Large effusion.", "No edema."]
    assert positions.tolist() == [0, 2, 3] and z.ravel().tolist() == [9, 15, 9]
    present = np.zeros((4, len(films.findings)), int)
    present[0, :2] = 1
    silent = films.table.drop(columns="report").assign(
        **dict(zip(films.findings, present.T, strict=True))
    )
    _, positions = extract_module.embed_reports(replace(films, table=silent), "phantom-resnet")
    both = ", ".join(films.findings[:2])
    assert asked.pop() == sorted(["Chest No Findings", f"Chest {both}"])
    assert positions.tolist() == [0, 1, 2, 3]
