"""How far long work is: on a terminal, in a log, in the file of the driver."""

import sys
import time

import pytest

from cxrlib.core.progress import STATUS, teller


@pytest.fixture
def at(monkeypatch):
    """Sets the clock."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[-1])
    monkeypatch.delenv(STATUS, raising=False)
    return lambda seconds: clock.append(1000.0 + seconds)


def told(at, *lines):
    """Tell lines at their times: (seconds, line, last)."""
    tell = teller()
    for seconds, line, last in lines:
        at(seconds)
        tell(line, last)


def test_a_log_has_a_line_a_minute(at, capsys):
    lines = [(seconds, f"after {seconds}", False) for seconds in range(0, 150, 10)]
    told(at, *lines, (150, "end", True))
    assert capsys.readouterr().err == "after 60\nafter 120\n"


def test_a_terminal_has_one_line_that_changes_and_stays_at_the_end(at, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    told(at, (0.1, "soon", False), (0.3, "one", False), (0.4, "soon", False), (0.45, "end", True))
    assert capsys.readouterr().err == "\r\x1b[Kone\r\x1b[Kend\n"


def test_what_takes_no_time_says_nothing_on_a_terminal(at, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    told(at, (0.05, "one", False), (0.1, "end", True))
    assert capsys.readouterr().err == ""


def test_the_file_of_the_driver_has_the_line_until_the_end(at, capsys, tmp_path, monkeypatch):
    status = tmp_path / "status"
    monkeypatch.setenv(STATUS, str(status))
    told(at, (0.1, "soon", False))
    assert not status.exists()
    told(at, (0.3, "one", False), (90, "two", False), (90.1, "soon", False))
    assert status.read_text() == "two"
    told(at, (91, "end", True))
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""
