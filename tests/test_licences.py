"""The table of licences names every locked package, as each states it."""

import runpy

from tests.conftest import ROOT


def test_the_table_of_licences_is_that_of_the_lock():
    made = runpy.run_path(str(ROOT / "docs" / "licences.py"))
    page, lock = made["PAGE"].read_text(encoding="utf-8"), made["LOCK"].read_text()
    found, wanted = made["rows"](page), made["table"](page)
    assert list(found) == list(wanted), "run docs/licences.py after a change of the lock"
    assert "numpy" in found
    for name in found:
        if lock.count(f"\n{name}==") == 1:  # others have a version for each Python
            assert found[name] == wanted[name], name
