"""Forked kernels behave as those that are started as programs, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import nbformat
import psutil
import pytest
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.manager import start_new_kernel

from cxrlib.book import kernels
from cxrlib.book.chapters import find
from cxrlib.book.run import run
from tests.conftest import environment

pytestmark = pytest.mark.skipif(not kernels.FORKS, reason="kernels are forked on Linux only")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """A function that starts a kernel, "forked" or "plain", and gives its manager and client."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    for name, metadata in (("forked", kernels.settings()), ("plain", {})):
        write_kernel_spec(tmp_path / "kernels" / name, overrides={"metadata": metadata})
    started = []

    def start(kind="forked", **how):
        started.append(start_new_kernel(kernel_name=kind, startup_timeout=120, **how))
        return started[-1]

    yield start
    for manager, client in started:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)


def answer(client, code):
    """What a kernel printed, or the name of its error."""
    said = []

    def hook(message):
        content = message["content"]
        said.append(content.get("text") or content.get("ename") or "")

    client.execute_interactive(textwrap.dedent(code), output_hook=hook, timeout=120)
    return "".join(said)


ABOUT = """
import json, multiprocessing, os, random, sys, threading, numpy, pandas
about = {
    "folder": os.getcwd(),
    "variables": {k: v for k, v in os.environ.items() if k not in ("JPY_PARENT_PID", "_")},
    "path": sys.path,
    "arguments": [os.path.basename(sys.argv[0]), len(sys.argv)],
    "threads": threading.active_count(),
    "group": os.getpgid(0) == os.getsid(0) == os.getpid(),
    "input": os.read(0, 1).decode(),
    "backend": __import__("matplotlib").get_backend(),
    "ours": [name for name in sys.modules if name.startswith("cxrlib")],
    "sum": float((numpy.random.default_rng(1).random((300, 300)) @ numpy.ones((300, 1))).sum()),
}
print(json.dumps(about, sort_keys=True))
"""


def test_a_forked_kernel_finds_what_a_started_one_finds(start, tmp_path, monkeypatch):
    place = tmp_path / "a place"
    place.mkdir()
    monkeypatch.setenv("OF_THIS_TEST", "1")
    _, plain = start("plain", cwd=str(place))
    kernels.learn(["numpy", "pandas"])
    _, forked = start(cwd=str(place))
    expected, found = (json.loads(answer(client, ABOUT)) for client in (plain, forked))
    assert expected["folder"] == str(place) and expected["variables"]["OF_THIS_TEST"] == "1"
    assert found == expected


def test_packages_are_there_before_the_first_cell_and_random_numbers_differ(start):
    kernels.learn(["numpy", "no_such_module_anywhere"])
    clients = [start()[1] for _ in range(2)]
    seen = "import sys\nprint('numpy' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
    drawn = "import numpy, random\nprint(numpy.random.random(), random.random())"
    assert [answer(client, seen).strip() for client in clients] == ["True False"] * 2
    numbers = [number for client in clients for number in answer(client, drawn).split()]
    assert len(set(numbers)) == 4


def test_messages_of_loggers_reach_the_notebook(start, tmp_path, monkeypatch):
    """Handlers that a package made when it was imported write to the kernel's own stderr."""
    (tmp_path / "chatty.py").write_text(
        "import logging, sys\nlog = logging.getLogger('chatty')\n"
        "log.addHandler(logging.StreamHandler())\nlog.propagate = False\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(kernels, "_server", None)  # one that knows the folder
    monkeypatch.setattr(kernels, "_modules", {})  # and need not import what others used
    kernels.learn(["chatty"])
    _, client = start()
    code = "import sys\nthere = 'chatty' in sys.modules\nimport chatty\nchatty.log.warning('hear')"
    assert answer(client, code + "\nprint(there)").split() == ["hear", "True"]


def test_an_interrupt_stops_the_cell_and_not_the_kernel(start):
    manager, client = start()
    # with stop_on_error, what is asked just after the error would not be executed either
    sleeping = "print('begun')\nimport time\ntime.sleep(100)"
    asked = client.execute(sleeping, stop_on_error=False)
    while client.get_iopub_msg(timeout=30)["content"].get("text") != "begun\n":
        pass
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=30))["parent_header"]["msg_id"] != asked:
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert answer(client, "print(1 + 1)") == "2\n"


def test_an_end_is_seen_with_its_code(start):
    manager, client = start()
    client.execute("import os\nos._exit(7)")
    process = manager.provisioner.process
    assert ended(process) == 7 and not manager.is_alive()
    manager, _ = start()
    process = manager.provisioner.process
    os.kill(process.pid, signal.SIGKILL)  # as the system does where memory is short
    assert ended(process) == -signal.SIGKILL


def ended(process):
    deadline = time.monotonic() + 30
    while process.poll() is None:
        assert time.monotonic() < deadline, "the kernel went on"
        time.sleep(0.05)
    return process.returncode


def test_a_kernel_is_lost_with_the_server_and_the_next_has_another(start, monkeypatch):
    monkeypatch.setattr(kernels, "_modules", {})
    manager, _ = start()
    process, server = manager.provisioner.process, kernels._server[0]
    server.kill()
    assert ended(process) == -signal.SIGKILL
    psutil.wait_procs(running(process.pid), timeout=30)
    assert not running(process.pid)
    _, client = start()
    assert answer(client, "print('again')") == "again\n"


def running(*pids):
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return [p for p in found if p.status() != psutil.STATUS_ZOMBIE]


def test_nothing_is_left_of_a_driver_that_was_killed(mini):
    source = mini / "chapters" / "01_first.py"
    sleeping = """
# %%
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(200)"])
pathlib.Path("pids.part").write_text(f"{os.getpid()} {os.getppid()} {child.pid}")
os.rename("pids.part", "pids")
time.sleep(200)
"""
    source.write_text(source.read_text() + sleeping)
    command = [sys.executable, "-m", "cxrlib.cli", "run", "1"]
    driver = subprocess.Popen(command, cwd=mini, env=environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (mini / "pids").is_file():
        assert time.monotonic() < deadline and driver.poll() is None, "the chapter never began"
        time.sleep(0.1)
    pids = [int(pid) for pid in (mini / "pids").read_text().split()]
    assert len(running(*pids)) == 3
    driver.kill()
    driver.wait()
    psutil.wait_procs(running(*pids), timeout=30)
    assert not running(*pids)


CUDA = """
# %%
import torch

torch.manual_seed(0)
assert not torch.cuda._is_in_bad_fork()
layer = torch.nn.Linear(300, 300)
layer(torch.randn(300, 300)).sum().backward()
say(repr(float(layer.weight.grad.double().sum())))
"""


def test_a_chapter_reads_the_same_from_either_kind(mini, tmp_path, monkeypatch):
    """To the last digit, with torch imported before the fork and CUDA not yet touched."""
    source = mini / "chapters" / "01_first.py"
    source.write_text(source.read_text() + CUDA)
    kernels.learn(["torch"])
    [forked] = run(mini, find(mini, "1"), out=tmp_path / "forked")
    assert nbformat.read(forked, as_version=4).cells[-1].outputs
    monkeypatch.setattr(kernels, "FORKS", False)
    [plain] = run(mini, find(mini, "1"), out=tmp_path / "plain")
    assert forked.read_text() == plain.read_text()
