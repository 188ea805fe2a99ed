"""How far long work is, said to whoever waits."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cxrlib.core import atomic

STATUS = "CXRBOOK_STATUS"  # environment variable: the file in which a long cell says how far it is
A_LINE_EVERY = 60.0  # seconds, where no terminal is
ON_TERMINAL_EVERY = 0.2


def teller() -> Callable[[str, bool], None]:
    """A function ``tell(line, last)`` that shows a line, or does not, if it showed one just now.

    On a terminal in one line that changes, elsewhere in a line per minute; where :data:`STATUS`
    names a file, in that alone.
    """
    told = time.monotonic()
    shown = False

    def tell(line: str, last: bool) -> None:
        nonlocal told, shown
        now = time.monotonic()
        if path := os.environ.get(STATUS):
            if last:  # what comes next may say nothing of itself
                Path(path).unlink(missing_ok=True)
            elif now - told >= ON_TERMINAL_EVERY:
                told = now
                atomic.write(Path(path), line.encode())
        elif sys.stderr.isatty():
            if now - told >= ON_TERMINAL_EVERY or (last and shown):
                told, shown = now, True
                print(f"\r\x1b[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif now - told >= A_LINE_EVERY:
            told = now
            print(line, file=sys.stderr, flush=True)

    return tell
