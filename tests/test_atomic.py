"""Files that are there whole or not at all."""

import signal
import socket
import subprocess
import sys

import pytest

from cxrlib.core import atomic
from tests.conftest import environment


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.csv"
    atomic.write(path, b"old")
    return path


def test_a_file_is_replaced_and_nothing_else_is_left(path):
    atomic.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_former_file_and_nothing_else(path):
    def half(part):
        part.write_bytes(b"ne")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        atomic.in_one_step(path, half)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_kill_once_all_is_written_leaves_the_former_file(path):
    code = (
        "import os, pathlib, signal, sys\n"
        "from cxrlib.core import atomic\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic.write(pathlib.Path(sys.argv[1]), b'new')\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, path], env=environment())
    assert child.wait() == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    part = path.parent / f".a.csv.{socket.gethostname()}-{child.pid}.part"
    assert sorted(path.parent.iterdir()) == sorted([path, part])
    assert part.read_bytes() == b"new"
