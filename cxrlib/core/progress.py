"""How far long work is, said to whoever waits."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from tqdm import tqdm

from cxrlib.core import atomic

STATUS = "CXRBOOK_STATUS"  # environment variable: the file in which a long cell says how far it is
A_LINE_EVERY = 60.0  # seconds, where no terminal is
ON_TERMINAL_EVERY = 0.2
LINE = "{desc}: {n_fmt} of {total_fmt} {units}, {rate_fmt}, {remaining} left{postfix}"


class Bar(tqdm):
    """tqdm's bar on a terminal; elsewhere a line per minute; in the driver's file, where it asks.

    The file is the one that :data:`STATUS` names; it is gone when the work is done, since what
    comes next may say nothing of itself. Work that takes less than the interval says nothing.

    Parameters
    ----------
    total : int
    title : str
    unit : str
        In the singular.
    done : int
        What was done before, which counts for no rate.
    hidden : bool
        Say nothing at all.
    """

    def __init__(self, total: int, title: str, unit: str, done: int = 0, hidden: bool = False):
        self.status = os.environ.get(STATUS)
        self.terminal = sys.stderr.isatty() and not self.status
        units = unit + ("es" if unit.endswith("tch") else "s")
        every = ON_TERMINAL_EVERY if self.terminal or self.status else A_LINE_EVERY
        super().__init__(
            total=total,
            desc=title,
            unit=unit,
            initial=done,
            disable=hidden,
            file=sys.stderr if self.terminal else io.StringIO(),
            bar_format=None if self.terminal else LINE.replace("{units}", units),
            dynamic_ncols=self.terminal,
            mininterval=every,
            miniters=1,
            delay=every,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Show how far it is; tqdm calls this."""
        if self.terminal:
            super().display(msg, pos)
        elif self.status:
            atomic.write(Path(self.status), str(self).encode())
        else:
            print(self, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Say the last of it; ``with`` calls this."""
        super().close()
        if self.status:
            Path(self.status).unlink(missing_ok=True)
