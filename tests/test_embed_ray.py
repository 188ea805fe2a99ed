"""Embeddings by Ray: the same as without, and nothing lost when processes and machines die."""

import hashlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import psutil
import pytest
import ray
import torch
from PIL import Image
from ray import cloudpickle
from ray.cluster_utils import Cluster
from torch import nn
from torch.nn import functional as F

from cxrlib import cohorts, models
from cxrlib.cohorts import films
from cxrlib.cohorts.cohort import Cohort
from cxrlib.embed import extract, worker
from cxrlib.embed import ray as embed_ray
from cxrlib.embed.store import StoreError, load

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes have no tests
N, ROWS = 120, 4


@dataclass(frozen=True)
class Small:
    """A model for whose class no process has to import torchvision, which takes seconds."""

    network: nn.Module = field(repr=False)
    code: Path = Path(__file__)
    name: str = "small"
    weights: str = "0" * 64
    preprocessing: str = "small"
    device: str = "cpu"
    precision: str = "float32"
    card = MappingProxyType({"image_size": 256})
    embed_dim = 16

    @property
    def members(self):
        return (self,)

    @property
    def preprocessing_hash(self):
        return hashlib.sha256(self.code.read_bytes()).hexdigest()

    def preprocess(self, films):
        small = [np.asarray(Image.fromarray(film).resize((64, 64))) for film in films]
        return torch.from_numpy(np.stack(small)).float()[:, None] / 255

    def image_vectors(self, x):
        with torch.inference_mode():
            return F.normalize(self.network(x), dim=1)

    def to(self, device, precision):
        self.network.to(device)
        return replace(self, device=device, precision=precision)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Small(
        nn.Sequential(nn.Conv2d(1, 8, 8, 8), nn.GELU(), nn.Flatten(), nn.Linear(8 * 64, 16))
    )


@pytest.fixture(scope="module")
def cohort():
    return cohorts.load("phantom", n_images=N, seed=5)


@pytest.fixture(scope="module")
def local(cohort, model, tmp_path_factory):
    return extract.extract(
        cohort, model, tmp_path_factory.mktemp("local") / "store", rows_per_shard=ROWS
    )


@pytest.fixture(scope="module")
def cluster():
    head = {
        "num_cpus": 2,
        "object_store_memory": 100 * 2**20,
        "include_dashboard": False,
        "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 3},
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def same(store, local):
    """Every row once, and as the local run has it."""
    assert len(list(store.folder.glob("*.parquet"))) == local.n_shards
    assert store.image_ids().tolist() == local.image_ids().tolist()
    assert len(set(store.image_ids())) == N
    apart = np.linalg.norm(store.vectors() - local.vectors(), axis=1)
    assert apart.max() <= 1e-6
    for a, b in zip(store.tables(), local.tables(), strict=True):
        assert a.schema == b.schema
    left = {p.name for p in store.folder.iterdir()} - {p.name for p in store.present().values()}
    assert left == {"_manifest.json"}


def seen(cohort, folder, seconds=0.1):
    """The cohort, whose films take a while; who reads them leaves its number in a folder."""
    folder.mkdir()

    def images(positions):
        (folder / f"{os.getppid()}-{os.getpid()}").touch()
        time.sleep(seconds)
        return cohort.images(positions)

    return replace(cohort, images=images)


def readers(folder):
    """Pairs of processes, parent and child, in the order in which they came."""
    files = sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns)
    return [tuple(map(int, p.name.split("-"))) for p in files]


@pytest.fixture
def at_half(tmp_path, monkeypatch):
    """Do something once, when half of the images are stored; how many shards were missing then."""
    monkeypatch.setattr(embed_ray, "POLL", 0.05)
    missing = []

    def install(do):
        told = 0

        def tell(bar, images, *_):
            nonlocal told
            told += images
            if told >= N / 2 and not missing:
                missing.append(len(load(tmp_path / "store").missing()))
                do()

        monkeypatch.setattr(extract, "_tell", tell)
        return missing

    return install


def by_ray(cohort, model, folder, **options):
    return extract.extract(cohort, model, folder, rows_per_shard=ROWS, engine="ray", **options)


# --- before any cluster is there -------------------------------------------------------------


def test_a_ray_of_its_own_and_films_on_disk(tmp_path, model, monkeypatch):
    rng = np.random.default_rng(0)
    table = cohorts.load("phantom", n_images=12, seed=5).table
    (tmp_path / "films").mkdir()
    names = [f"films/{k}.png" for k in range(12)]
    for name in names:
        film = rng.integers(0, 256, (80, 70), dtype=np.uint8)
        Image.fromarray(film).save(tmp_path / name)
    (tmp_path / names[3]).write_bytes(b"")
    monkeypatch.chdir(tmp_path)  # films and store are named from here
    read = films.reader(Path("."), names)
    cohort = Cohort("films", table, (), "open", {}, table, read)
    options = {"dtype": "float16", "rows_per_shard": 5, "workers": 1}
    there = extract.extract(cohort, model, Path("ray"), engine="ray", actors=1, **options)
    assert not ray.is_initialized()
    here = extract.extract(cohort, model, Path("local"), **options)
    for a, b in zip(there.tables(), here.tables(), strict=True):
        assert a.equals(b)
    assert [len(few) for few in there.problems().values()] == [1]


@pytest.mark.parametrize("address", ["localhost:1", "nonsense", "ray://localhost:1"])
def test_an_address_where_no_ray_is(cohort, model, tmp_path, address):
    with pytest.raises(ConnectionError, match=f"address='{address}': no Ray cluster"):
        by_ray(cohort, model, tmp_path / "store", address=address)


def test_ray_is_missing(cohort, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[ray\]'"):
        by_ray(cohort, model, tmp_path / "store")


@pytest.mark.parametrize(
    "machines, actors, device, workers, expected",
    [
        ([{"CPU": 32, "GPU": 4}] * 2, None, "cuda", 3, (8, 4, 1)),
        ([{"CPU": 32, "GPU": 4}] * 2, None, "cuda", 16, (8, 8, 1)),
        ([{"CPU": 8}, {"CPU": 8, "GPU": 2}], None, "cuda", 16, (2, 4, 1)),
        ([{"CPU": 32, "GPU": 4}], 2, "cuda", 3, (2, 4, 1)),
        ([{"CPU": 32, "GPU": 4}], 12, "cuda", 0, (12, 1, 1)),  # those that find no place wait
        ([{"CPU": 16}, {"CPU": 7}], None, "cpu", 0, (5, 4, 0)),
        ([{"CPU": 2}], None, "cpu", 0, (1, 2, 0)),
        ([{"CPU": 16}, {"CPU": 7}], 3, "cpu", 0, (3, 7, 0)),
        ([{"CPU": 16}, {}], 1, "cpu", 0, (1, 16, 0)),
        ([{"CPU": 2}], 5, "cpu", 0, (5, 1, 0)),
        ([{"CPU": 16}, {"CPU": 16}], None, "cpu", 0, (8, 4, 0)),
        ([{"CPU": 64}, {"CPU": 64}], None, "cpu", 0, (20, 4, 0)),  # no more than shards
    ],
)
def test_what_each_actor_takes(machines, actors, device, workers, expected, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    n, need = embed_ray._shares(machines, actors, 20, device, workers)
    assert (n, need["CPU"], need["GPU"]) == expected


def test_no_place_for_any_actor():
    with pytest.raises(ValueError, match="no machine of the Ray cluster has a GPU"):
        embed_ray._shares([{"CPU": 8}], None, 9, "cuda", 0)
    with pytest.raises(ValueError, match="no machine of the Ray cluster has 1 CPU"):
        embed_ray._shares([{"GPU": 1}], None, 9, "cpu", 0)


def test_a_machine_that_would_compute_something_else(cohort, model, local, monkeypatch, tmp_path):
    job = worker.Job(local, None, None, None, model, 1, None, 0)
    versions = embed_ray._versions()
    embed_ray._refuse_other_machine(job, versions)
    with pytest.raises(StoreError, match=r"torch: \S+ there, 1\.0 here"):
        embed_ray._refuse_other_machine(job, versions | {"torch": "1.0"})
    with pytest.raises(StoreError, match="code: "):
        other = replace(model, code=Path(extract.__file__))
        embed_ray._refuse_other_machine(replace(job, model=other), versions)
    with pytest.raises(StoreError, match=r"nowhere\.py is not there"):
        other = replace(model, code=tmp_path / "nowhere.py")
        embed_ray._refuse_other_machine(replace(job, model=other), versions)
    with pytest.raises(StoreError, match=r"is no store .* share this folder"):
        elsewhere = replace(local, folder=tmp_path / "elsewhere")
        embed_ray._refuse_other_machine(replace(job, store=elsewhere), versions)


@pytest.mark.parametrize("name", ["phantom-resnet", "phantom-vit"])
def test_models_can_be_sent(cohort, name):
    model, films = models.load_model(name), cohort.images(np.arange(4))
    sent = cloudpickle.loads(cloudpickle.dumps(model)).to("cpu")
    assert sent.preprocessing_hash == model.preprocessing_hash
    there, here = (m.encode_image(m.preprocess(films)) for m in (sent, model))
    assert torch.equal(there, here)


# --- on a cluster ----------------------------------------------------------------------------


def test_a_killed_process(cluster, cohort, model, local, tmp_path, at_half):
    def kill():
        actor, child = readers(tmp_path / "seen")[0]
        os.kill(actor, signal.SIGKILL)
        killed.append(child)

    killed = []
    missing = at_half(kill)
    slow = seen(cohort, tmp_path / "seen")
    store = by_ray(slow, model, tmp_path / "store", workers=1, actors=1)
    assert 0 < missing[0] < local.n_shards
    same(store, local)
    assert killed and not psutil.pid_exists(killed[0])


def test_ctrl_c_and_going_on(cluster, cohort, model, local, tmp_path, at_half):
    def interrupt():
        raise KeyboardInterrupt

    missing = at_half(interrupt)
    slow = seen(cohort, tmp_path / "seen")
    with pytest.raises(KeyboardInterrupt):
        by_ray(slow, model, tmp_path / "store", actors=1)
    (reader,) = {process for _, process in readers(tmp_path / "seen")}
    psutil.wait_procs([psutil.Process(reader)] if psutil.pid_exists(reader) else [], 30)
    assert not psutil.pid_exists(reader) and 0 < missing[0] < local.n_shards
    assert ray.is_initialized()
    again = extract.extract(cohort, model, tmp_path / "store", rows_per_shard=ROWS)
    same(again, local)


SLOW = pytest.mark.slow  # a killed process and one error tell much: actors take seconds to start


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(MemoryError("none left"), marks=SLOW),
        pytest.param(StoreError, marks=SLOW),
        ChildProcessError,
    ],
)
def test_errors_come_as_themselves(cluster, cohort, model, tmp_path, error, monkeypatch):
    monkeypatch.setattr(embed_ray, "DEATHS", 1)

    def images(positions):
        if isinstance(error, MemoryError):
            raise error
        if error is ChildProcessError:
            os._exit(1)
        raise ValueError("the drive is gone")

    words = {StoreError: "images so far cannot be read .* the drive is gone"}
    words |= {ChildProcessError: "actors died 1 times .* at shards 0 to 7"}
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind, match=words.get(error, "^none left$")) as raised:
        by_ray(replace(cohort, images=images), model, tmp_path / "store", actors=1)
    assert raised.type is kind and "Traceback" not in str(raised.value)


@SLOW
def test_a_lost_machine(cluster, cohort, model, local, tmp_path, at_half):
    node = cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    missing = at_half(lambda: cluster.remove_node(node, allow_graceful=False))
    slow = seen(cohort, tmp_path / "seen")
    store = by_ray(slow, model, tmp_path / "store", actors=2)
    assert 0 < missing[0] < local.n_shards
    # one a machine; there was no place for a third
    assert len({process for _, process in readers(tmp_path / "seen")}) == 2
    same(store, local)


@pytest.mark.gpu
def test_an_actor_a_gpu(cohort, tmp_path):
    ray.shutdown()
    on_gpu = models.load_model("phantom-vit").to("cuda", "bfloat16")
    alone = extract.extract(cohort, on_gpu, tmp_path / "alone", rows_per_shard=ROWS)
    store = by_ray(cohort, on_gpu, tmp_path / "store", workers=1)
    assert next(on_gpu.network.parameters()).is_cuda
    same(store, alone)
