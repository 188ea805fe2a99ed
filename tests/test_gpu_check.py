"""``make gpu-check`` without a GPU: how its parts are run, and the parts at tiny sizes."""

import importlib
import json
import os
import subprocess
import sys
import time
import zipfile
from functools import partial

import pandas as pd
import psutil
import pytest
import torch

from cxrlib.embed import plan
from cxrlib.models import parity
from tests.conftest import ROOT

# What a part can do to the check; each tells first what the file said of all parts by then.
FAKE = """
import json, os, pathlib, signal, subprocess, sys, time
name, told = sys.argv[1:]
out = pathlib.Path(told).parent / "gpu.json"
parts = json.loads(out.read_text())["parts"] if out.exists() else {}

def tell(text):
    with open(told, "a") as f:
        f.write(text)

seen = {part: found["outcome"] for part, found in parts.items()}
tell(json.dumps({"what": "seen", "value": seen}) + "\\n")
if name == "hangs":
    tell('{"what": "half a li')
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    pathlib.Path(told).with_name("child").write_text(str(child.pid))
    time.sleep(60)
if name == "crashes":
    os.kill(os.getpid(), signal.SIGSEGV)
if name == "raises":
    raise ValueError(f"something in {os.getcwd()}/cxrlib")
if name == "lacks":
    import no_such_package
if name == "misses":
    tell('{"what": "speed", "value": 2, "at_most": 1, "met": false}\\n')
if name == "tests":
    tell('{"test": "a", "outcome": "passed"}\\n{"test": "b", "outcome": "failed"}\\n')
"""
LIMITS = {"hangs": 4, "crashes": 60, "raises": 60, "lacks": 60, "misses": 60, "tests": 60, "ok": 60}


@pytest.fixture(scope="module")
def benchmark():
    """The scripts of the folder benchmarks, by name."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def checked(benchmark, tmp_path_factory):
    """The file after a check of fake parts, and the folder that it lies in."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "fake.py").write_text(FAKE)
    gpu = benchmark("gpu")
    command = [sys.executable, "-S", str(folder / "fake.py")]
    run = partial(gpu.attempt, command=command, scratch=folder, environment=os.environ)
    gpu.check(LIMITS, run, {"device": "none"}, folder / "gpu.json")
    return json.loads((folder / "gpu.json").read_text()), folder


def test_each_part_has_its_outcome_whatever_became_of_the_others(checked):
    record, _ = checked
    assert record["device"] == "none"
    assert {name: part["outcome"] for name, part in record["parts"].items()} == {
        "hangs": "timed out",
        "crashes": "failed",
        "raises": "failed",
        "lacks": "not run",
        "misses": "failed",
        "tests": "failed",
        "ok": "passed",
    }
    reasons = {name: part.get("reason") for name, part in record["parts"].items()}
    assert reasons["crashes"] == "ended by SIGSEGV"
    assert reasons["raises"] == "ValueError: something in ./cxrlib"
    assert reasons["lacks"] == "ModuleNotFoundError: No module named 'no_such_package'"
    assert (reasons["misses"], reasons["tests"], reasons["ok"]) == ("speed", "b", None)
    assert [t["outcome"] for t in record["parts"]["tests"]["tests"]] == ["passed", "failed"]


def test_the_file_is_written_after_every_part_in_their_order(checked):
    record, _ = checked
    so_far = dict.fromkeys(LIMITS, "not run")
    for k, (name, part) in enumerate(record["parts"].items()):
        assert part["figures"][0]["value"] == (so_far if k else {})
        so_far[name] = part["outcome"]


def test_a_part_that_hangs_is_ended_with_all_that_it_started(checked):
    record, folder = checked
    assert 4 <= record["parts"]["hangs"]["seconds"] < 30
    assert [figure["what"] for figure in record["parts"]["hangs"]["figures"]] == ["seen"]
    child = int((folder / "child").read_text())
    for _ in range(50):  # until the system has taken it away
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    pytest.fail("its child still runs")


def test_limits_are_eight_minutes_in_all_and_what_is_left_over_goes_on(benchmark, tmp_path):
    gpu = benchmark("gpu")
    assert gpu.SET_UP + gpu.LOOK + sum(gpu.PARTS.values()) <= 8 * 60
    assert set(gpu.PARTS) < set(benchmark("gpu_parts").PARTS)
    took, limits = {"a": 4, "b": 17, "c": 5}, []

    def run(name, limit):
        limits.append(limit)
        return {"outcome": "passed", "seconds": took[name]}

    gpu.check({"a": 10, "b": 10, "c": 10}, run, {}, tmp_path / "gpu.json")
    assert limits == [10, 16, 10]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where there is no GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing():
    file = ROOT / "benchmarks" / "gpu.json"
    before = file.read_bytes() if file.exists() else None
    command = ["make", "--no-print-directory", "gpu-check", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = "gpu-check: torch sees no GPU here; nothing was run, and gpu.json is as it was"
    assert done.returncode and done.stderr.splitlines()[0] == said and not done.stdout
    assert (file.read_bytes() if file.exists() else None) == before


def test_a_try_on_a_cpu_never_takes_the_place_of_the_record():
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "give another file with --out" in done.stderr


def test_of_a_folder_of_wheels_only_what_is_missing_is_installed(benchmark, tmp_path):
    for name in ("missing_thing", "numpy"):
        info = f"{name}-0.1.dist-info"
        with zipfile.ZipFile(tmp_path / f"{name}-0.1-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\nRequires-Dist: nowhere\n"
            wheel.writestr(f"{info}/METADATA", text)
            text = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            wheel.writestr(f"{info}/WHEEL", text)
            wheel.writestr(f"{info}/RECORD", "")
    folder = benchmark("gpu").install(tmp_path, tmp_path / "packages")
    assert {p.name for p in folder.iterdir()} == {"missing_thing", "missing_thing-0.1.dist-info"}


# --- the parts, on the CPU ---


def told(benchmark, tmp_path, name, device="cpu", **other):
    """What a part told at tiny sizes."""
    parts = benchmark("gpu_parts")
    parts.PARTS[name](parts.TINY | other, device, parts.Told(tmp_path / "told"))
    return [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]


def test_figures_say_whether_they_are_within_their_bounds(benchmark, tmp_path):
    tell = benchmark("gpu_parts").Told(tmp_path / "told")
    for value in (1.0, 1.04, 1.06, float("nan")):
        tell("a", value, "x", at_least=1, at_most=1.05)
    tell("b", 1 / 3, "x")
    lines = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [line.get("met") for line in lines] == [True, True, False, False, None]
    assert (lines[3]["value"], lines[4]["value"]) == (None, 0.333333)


def test_lower_precisions_are_compared_with_float32(benchmark, tmp_path):
    checks = {f["what"]: f["met"] for f in told(benchmark, tmp_path, "half precision")}
    assert checks == {"phantom-vit: bfloat16 on cpu": True, "phantom-vit: float16 on cpu": True}


def test_parity_is_asked_of_the_device(benchmark, tmp_path, monkeypatch):
    def compared(name, device):  # the real one takes seconds: tests/test_verify.py
        rows = [("image vector on " + device, 2e-6, 1e-5), ("text vectors", 2e-5, 1e-5)]
        return pd.DataFrame(rows, columns=["check", "difference", "tolerance"])

    monkeypatch.setattr(parity, "against_upstream", compared)
    figures = told(benchmark, tmp_path, "float32", "cuda", parity=["biovil"])
    checks = {f["what"]: f["met"] for f in figures}
    assert checks.pop("TF32 in matrix products")
    assert checks == {"biovil: image vector on cuda": True, "biovil: text vectors": False}


def test_throughput_is_a_share_of_the_product_and_the_chapter_reads_it(benchmark, tmp_path):
    head = {"device": "a GPU", "threads": 4, "date": "2027-01-01", "versions": {"torch": "2.15"}}
    figures = told(benchmark, tmp_path, "throughput")
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({**head, "parts": {"throughput": {"figures": figures}}}))
    table = plan.on_gpu(file).set_index("way")
    peak = table["value"]["product of two matrices, bfloat16"]
    # by hand: phantom-vit's layers take some 80 million operations on an image of 64 pixels
    work = table["value"]["phantom-vit: operations of an image"]
    assert 0.05 < work < 0.2
    for way in ("not compiled", "compiled"):
        rate = table.loc[f"phantom-vit: {way}, batches of 4"]
        assert rate["low"] <= rate["value"] <= rate["high"] and rate["unit"] == "images/s"
        share = table["value"][f"phantom-vit: {way}, of the product"]
        assert share == pytest.approx(rate["value"] * work / peak / 1000, rel=1e-3)
    assert (table["model"].dropna() == "phantom-vit").all()
    assert set(table["device"]) == {"a GPU"} and set(table["part"]) == {"gpu"}
    not_run = {**head, "parts": {"throughput": {"outcome": "not run"}}}
    file.write_text(json.dumps(not_run))
    assert plan.on_gpu(file).empty and plan.on_gpu(tmp_path / "none.json").empty


def test_fine_tuning_against_a_bare_loop(benchmark, tmp_path):
    found = {f["what"]: f for f in told(benchmark, tmp_path, "fine-tuning")}
    assert found["time a step, against the bare loop"]["at_most"] == 1.05
    for what in (
        "training",
        "training, the bare loop",
        "its checkpoint",
        "its checkpoint, on disk",
    ):
        assert found[what]["value"] > 0
    plain, recomputed = (f["value"] for what, f in found.items() if what.startswith("memory"))
    assert recomputed < plain


def test_embed_gives_the_same_as_without_a_store(benchmark, tmp_path):
    found = {f["what"]: f for f in told(benchmark, tmp_path, "embed")}
    assert found["films"]["value"] == 40
    assert found["cosine distance to float32 without a store"]["met"]
    assert found["films to vectors read back from the store"]["value"] > 0


def test_the_chapter_gets_its_parameters_and_its_failure_is_the_parts(
    benchmark, tmp_path, monkeypatch
):
    script = tmp_path / "chapter.py"
    script.write_text(
        "import pathlib, sys\n"
        "pathlib.Path(__file__).with_name('given').write_text(' '.join(sys.argv[1:]))\n"
        "sys.exit(3)\n"
    )
    monkeypatch.setattr(benchmark("gpu_parts"), "CHAPTER", str(script))
    with pytest.raises(SystemExit) as ended:
        told(benchmark, tmp_path, "chapter 3")
    assert ended.value.code == 3
    given = (tmp_path / "given").read_text()
    assert "-p device=cpu" in given and "-p models=phantom-vit" in given


def test_each_test_is_told_with_its_outcome(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.gpu\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 0\n"
        "@pytest.mark.skip\n"
        "def test_left_out(): pass\n"
        "@pytest.mark.slow\n"
        "def test_long(): pass\n"
    )
    (tmp_path / "test_lacking.py").write_text("import no_such_package\n")
    code = "import gpu_parts, sys; f, *files = sys.argv[1:]; "
    code += "gpu_parts.tests({'tests': files}, 'cpu', gpu_parts.Told(gpu_parts.Path(f)))"
    files = [str(tmp_path / name) for name in ("test_some.py", "test_lacking.py")]
    command = [sys.executable, "-c", code, str(tmp_path / "told"), *files]
    done = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    found = {line["test"].split("/")[-1].split("::")[-1]: line["outcome"] for line in lines}
    assert found == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_left_out": "skipped",
        "test_lacking.py": "not run",
    }
