"""How far long work is: on a terminal, in a log, in the file of the driver."""

import sys

import pytest
import tqdm.std

from cxrlib.core.progress import STATUS, Bar


@pytest.fixture
def at(monkeypatch):
    """Sets the clock."""
    clock = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: clock[-1])
    monkeypatch.delenv(STATUS, raising=False)
    return lambda seconds: clock.append(1000.0 + seconds)


def test_a_log_has_a_line_per_minute_and_one_at_the_end(at, capsys):
    with Bar(20, "films", "film", done=4) as bar:
        for seconds in range(10, 170, 10):
            at(seconds)
            bar.update()
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "films: 10 of 20 films, 10.00s/film, 01:40 left"
    assert second.startswith("films: 16 of 20 films") and second.endswith("00:40 left")
    assert last.startswith("films: 20 of 20 films")


@pytest.mark.parametrize(("unit", "units"), [("epoch", "epochs"), ("batch", "batches")])
def test_units_in_the_plural(at, capsys, unit, units):
    with Bar(20, "training", unit) as bar:
        at(70)
        bar.update()
    assert f"training: 1 of 20 {units}, " in capsys.readouterr().err


def test_a_terminal_has_one_line_that_changes_and_stays_at_the_end(at, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Bar(4, "films", "film") as bar:
        for seconds in (0.1, 0.3, 0.4, 0.45):
            at(seconds)
            bar.update()
    *_, before, last = capsys.readouterr().err.split("\r")
    assert "2/4" in before and "4/4" in last and last.endswith("\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_what_takes_no_time_says_nothing(at, capsys, monkeypatch, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with Bar(2, "films", "film") as bar:
        at(0.05)
        bar.update()
        at(0.1)
        bar.update()
    assert capsys.readouterr().err == ""


def test_the_file_of_the_driver_has_the_line_until_the_end(at, capsys, tmp_path, monkeypatch):
    status = tmp_path / "status"
    monkeypatch.setenv(STATUS, str(status))
    with Bar(3000, "m, full", "epoch") as bar:
        at(0.1)
        bar.update()
        assert not status.exists()
        at(2)
        bar.set_postfix_str("loss 1.250", refresh=False)
        bar.update(999)
        line = status.read_text()
        assert line.startswith("m, full: 1000 of 3000 epochs, ") and line.endswith(", loss 1.250")
        at(2.1)
        bar.update(1)
        assert status.read_text() == line
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""
