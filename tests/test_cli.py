"""The command line: one clear line and an exit code for what the user can mend."""

import subprocess
import sys

import pytest

from tests.conftest import environment


def cxrbook(*arguments, cwd):
    command = [sys.executable, "-m", "cxrlib.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "zeroshot"], 2, "did you mean 'zero_shot'"),
        (["run", "9"], 2, "no chapter '9'"),
        (["run", "2", "-p", "n_imags=3"], 2, "did you mean 'n_images'"),
        (["run", "2", "-p", "n_images=many"], 2, "not of type int"),
        (["run", "2", "-p", "n_images"], 2, "expected NAME=VALUE"),
        (["build", "-p", "n_images=many"], 2, "not of type int"),
        (["run", "2", "--out", "requirements.lock/out"], 1, "cannot write to"),
        (["build", "--out", "requirements.lock/out"], 1, "cannot write to"),
        (["sync", "--check"], 1, "not in sync"),
    ],
)
def test_errors_are_one_line(built, arguments, code, words):
    done = cxrbook(*arguments, cwd=built)
    assert done.returncode == code
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("cxrbook: ") and words in done.stderr


def test_missing_lock_is_one_line(mini):
    (mini / "requirements.lock").unlink()
    done = cxrbook("build", cwd=mini)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "requirements.lock is missing" in done.stderr


def test_chapters_lists_parameters_with_defaults(built):
    done = cxrbook("chapters", cwd=built)
    assert done.returncode == 0
    assert "02  A chapter of the miniature book  (02_zero_shot)" in done.stdout
    assert "n_images: int = 20  # how many" in done.stdout


def test_build_does_nothing_when_nothing_changed(built):
    done = cxrbook("build", cwd=built)
    assert done.returncode == 0
    assert done.stdout.startswith("nothing changed: open ")
    assert done.stderr == ""


@pytest.mark.parametrize("what", ["cohorts", "models"])
def test_catalogues(built, what):
    from importlib import import_module

    done = cxrbook(what, cwd=built)
    assert done.returncode == 0, done.stderr
    for name in import_module(f"cxrlib.{what}").names():
        assert name in done.stdout
