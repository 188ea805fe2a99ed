"""Extraction that is killed, runs out of disk or may not write, and goes on."""

import ctypes
import errno
import os
import select
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bare_loop import RESNET, apart, bare, by_name, ended, forked, in_memory, kill
from filelock import FileLock

from cxrlib import models
from cxrlib.embed.extract import embed, extract
from cxrlib.embed.store import MANIFEST, Store, StoreError, load

N, ROWS = 2000, 16
CLOSE = 1e-6


@pytest.fixture(scope="module")
def cohort():
    return in_memory(N)


@pytest.fixture(scope="module")
def model():
    return models.load_model(RESNET)


@pytest.fixture(scope="module")
def whole(cohort, model, tmp_path_factory):
    """The store of an uninterrupted run, and the seconds that a shard took."""
    start = time.monotonic()
    store = extract(cohort, model, tmp_path_factory.mktemp("whole"), rows_per_shard=ROWS)
    return store, (time.monotonic() - start) / store.n_shards


@pytest.fixture(scope="module")
def few(cohort):
    """The first 300 of them, for faults at known moments."""
    return replace(cohort, table=cohort.table.head(300))


@pytest.fixture(scope="module")
def few_whole(few, model):
    return by_name(few, bare(few, model))


def consistent(folder):
    """What is there is good, whoever died in whatever moment; the numbers of its shards."""
    store = load(folder)
    assert store.problems() == {}  # reads and checks all
    for shard in range(store.n_shards):  # no lock outlives its holder
        store.lock(shard).acquire(timeout=0).lock.release()
    return set(store.present())


def row_for_row(store, names, vectors):
    assert store.image_ids().tolist() == names
    assert apart(store.vectors(), vectors) <= CLOSE
    shards = {p.name for p in store.present().values()}
    assert {p.name for p in store.folder.iterdir()} == shards | {"_manifest.json"}
    assert len(shards) == store.n_shards


# --- killed ----------------------------------------------------------------------------------


def test_killed_at_ten_moments_and_resumed(cohort, model, whole, tmp_path):
    """Five kills in a row on each of two stores: after so many shards, and a while."""
    draw, middles = np.random.default_rng(0), 0
    store, of_a_shard = whole
    names, vectors = store.image_ids().tolist(), store.vectors()

    def run(folder, workers=0):
        return extract(cohort, model, folder, rows_per_shard=ROWS, workers=workers)

    for folder, of_workers in (
        (tmp_path / "a", (0, 1, 0, 2, 0)),
        (tmp_path / "b", (2, 0, 0, 1, 0)),
    ):
        before = set()
        for workers in of_workers:
            pid, end = forked(lambda f=folder, w=workers: run(f, w)), time.monotonic() + 60
            enough = len(before) + draw.integers(0, 17)
            while not folder.is_dir() or len(list(folder.glob("*.parquet"))) < enough:
                assert time.monotonic() < end
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 2 * of_a_shard))
            assert kill(pid) == -signal.SIGKILL  # it was not done before
            if (folder / MANIFEST).exists():
                there = consistent(folder)
                assert before <= there and len(there) < store.n_shards
                middles += before < there
                before = there
        row_for_row(run(folder), names, vectors)
    assert middles >= 6


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def before_rename(kind):
    replace = Path.replace

    def dies(self, target):
        if Path(target).name.endswith(kind) and Path(target).name[:6] in ("000002", "_manif"):
            die()
        return replace(self, target)

    Path.replace = dies


def half_written(kind):
    write = Path.write_bytes

    def dies(self, data):
        if f"{kind}." in self.name and self.name[1:7] in ("000002", "_manif"):
            write(self, data[: len(data) // 2])
            die()
        return write(self, data)

    Path.write_bytes = dies


def before_release():
    release = FileLock.release

    def dies(self, *force):
        if self.lock_file.endswith(".000002.lock"):
            die()
        release(self, *force)

    FileLock.release = dies


def before_tidying():
    Store.tidy = die


@pytest.mark.parametrize(
    ("arrange", "shards", "left"),
    [
        (lambda: half_written(".json"), 0, "._manifest.json"),
        (lambda: before_rename(".json"), 0, "._manifest.json"),
        (lambda: half_written(".parquet"), 2, ".000002-"),
        (lambda: before_rename(".parquet"), 2, ".000002-"),
        (before_release, 3, ".000002.lock"),
        (before_tidying, 10, ".000009.lock"),
    ],
    ids=["manifest half", "manifest", "shard half", "shard", "before release", "before tidying"],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_killed_at_a_known_moment(few, model, few_whole, tmp_path, arrange, shards, left, workers):
    folder = tmp_path / "store"

    def run():
        arrange()
        extract(few, model, folder, rows_per_shard=30, workers=workers)

    assert ended(forked(run)) == -signal.SIGKILL
    found = {p.name for p in folder.iterdir()}
    assert any(name.startswith(left) for name in found)
    assert len([name for name in found if name.endswith(".parquet")]) == shards
    if left.startswith("._"):
        with pytest.raises(StoreError, match=r"has no _manifest\.json"):
            load(folder)
    else:
        assert consistent(folder) == set(range(shards))
    row_for_row(extract(few, model, folder, rows_per_shard=30), *few_whole)


def test_workers_end_with_the_process_that_is_killed_while_they_begin(few, model, tmp_path):
    alive, end = os.pipe()  # open as long as any of the processes is there

    def run():
        import cv2

        def killed(_):
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(0.2)

        cv2.setNumThreads = killed
        extract(few, model, tmp_path, workers=2)

    pid = forked(run)
    os.close(end)
    assert ended(pid) == -signal.SIGKILL
    assert select.select([alive], [], [], 20)[0]
    os.close(alive)


def test_the_shards_of_a_killed_process_are_done_by_the_one_that_waits(
    few, model, few_whole, tmp_path
):
    """The first hangs with the lock of a shard; the second does all others, waits, takes over."""
    folder, (held, hold) = tmp_path / "store", os.pipe()

    def hangs():
        def write(self, shard, *_):
            os.write(hold, b"1")
            time.sleep(600)

        Store.write = write
        extract(few, model, folder, rows_per_shard=30)

    first = forked(hangs)
    os.read(held, 1)
    second = forked(lambda: extract(few, model, folder, rows_per_shard=30))
    end = time.monotonic() + 60
    while len(load(folder).missing()) > 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.2)
    assert load(folder).missing() == [0]
    assert os.waitpid(second, os.WNOHANG) == (0, 0)
    kill(first)
    assert ended(second) == 0
    row_for_row(load(folder), *few_whole)


# --- no room, no right to write --------------------------------------------------------------

MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def mount(folder, options, flags=0):
    """A disk in memory at ``folder``, of this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"disk", bytes(folder), b"tmpfs", flags, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")


def own_mounts():
    """Put this process where its mounts are its own and vanish with it."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "mount")


def _can_mount():
    def probe():
        try:
            own_mounts()
            mount(Path("/tmp"), "size=4k")
        except (OSError, AttributeError):
            os._exit(3)

    return sys.platform == "linux" and ended(forked(probe)) == 0


needs_mounts = pytest.mark.skipif(
    not _can_mount(), reason="this kernel gives a user no mounts of their own (user namespaces)"
)


def with_disk(tmp_path, steps, options):
    """Run ``steps(disk)`` in a process that has a small disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def run():
        own_mounts()
        mount(disk, options)
        steps(disk)

    assert ended(forked(run)) == 0


@needs_mounts
def test_a_full_disk(few, model, few_whole, tmp_path):
    def steps(disk):
        folder = disk / "store"
        with pytest.raises(OSError, match=r"shard \d of 10 cannot be written to .*make room") as e:
            extract(few, model, folder, rows_per_shard=30)
        assert e.value.errno == errno.ENOSPC and str(folder) in str(e.value)
        there = consistent(folder)
        assert 0 < len(there) < 10
        assert not list(folder.glob(".*.part"))
        with pytest.raises(OSError, match="make room"):  # as often as one likes
            extract(few, model, folder)
        assert consistent(folder) == there
        mount(disk, "size=10m", MS_REMOUNT)
        row_for_row(extract(few, model, folder), *few_whole)

    with_disk(tmp_path, steps, "size=100k")


@needs_mounts
@pytest.mark.parametrize("options", ["size=4k", "nr_inodes=6"])
def test_a_disk_too_full_for_anything(few, model, few_whole, tmp_path, options):
    """Not a byte for the manifest; not a file for the lock of a shard."""

    def steps(disk):
        (disk / "other").write_bytes(b"x" * 4096)
        with pytest.raises(OSError, match=r"No space left on device") as error:
            extract(few, model, disk / "store", rows_per_shard=30)
        assert error.value.errno == errno.ENOSPC
        assert "make room" in str(error.value) and str(disk / "store") in str(error.value)
        (disk / "other").unlink()
        mount(disk, "size=10m,nr_inodes=100", MS_REMOUNT)
        row_for_row(extract(few, model, disk / "store", rows_per_shard=30), *few_whole)

    with_disk(tmp_path, steps, options)


@needs_mounts
def test_a_folder_that_cannot_be_written(few, model, few_whole, tmp_path):
    class Stopped(Exception):
        pass

    def steps(disk):
        os.environ["CXRBOOK_CACHE"] = str(disk / "cache")
        mount(disk, "", MS_REMOUNT | MS_RDONLY)
        with pytest.raises(OSError, match=r"Read-only file system.* set CXRBOOK_CACHE") as error:
            embed(few, model)
        assert error.value.errno == errno.EROFS

        mount(disk, "", MS_REMOUNT)
        write, rows = Store.write, {"rows_per_shard": 30}

        def stops(self, shard, *given):
            if shard == 4:
                raise Stopped
            write(self, shard, *given)

        Store.write = stops
        with pytest.raises(Stopped):
            extract(few, model, **rows)
        Store.write = write
        (folder,) = (disk / "cache" / "embeddings").iterdir()
        mount(disk, "", MS_REMOUNT | MS_RDONLY)
        before = sorted(folder.iterdir())
        with pytest.raises(OSError, match="make the folder one that can be written, and") as error:
            extract(few, model)
        assert str(folder) in str(error.value)
        assert sorted(folder.iterdir()) == before

        mount(disk, "", MS_REMOUNT)
        names, vectors = few_whole
        row_for_row(extract(few, model), names, vectors)
        mount(disk, "", MS_REMOUNT | MS_RDONLY)  # complete, it can be used from where it lies
        row_for_row(extract(few, model), names, vectors)
        assert apart(embed(few, model), bare(few, model)) <= CLOSE

    with_disk(tmp_path, steps, "size=10m")


def test_a_folder_below_a_file(few, model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/store \(Not a directory\).* set CXRBOOK_CACHE"):
        extract(few, model, tmp_path / "file" / "store")


def test_an_error_in_the_middle_of_writing_leaves_no_part(
    few, model, few_whole, tmp_path, monkeypatch
):
    """What a full disk does, also where no disk can be made for the test."""
    write = Path.write_bytes

    def full(self, data):
        if ".000003-" in self.name:
            write(self, data[:1000])
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"shard 3 of 10 .*Disk quota exceeded.*: make room"):
            extract(few, model, tmp_path, rows_per_shard=30)
    assert consistent(tmp_path) == {0, 1, 2}
    assert not list(tmp_path.glob(".*.part"))
    row_for_row(extract(few, model, tmp_path), *few_whole)
