"""Pages of the built book as PDF, printed by the Chromium of the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from cxrlib.book.run import check_writable
from cxrlib.core import atomic
from cxrlib.core.errors import BookError

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
SECONDS = 180  # for one page


def browser() -> str:
    """The command of a Chromium: ``CHROMIUM`` where it is set, else the first on the path.

    Raises
    ------
    BookError
        There is none.
    """
    wanted = os.environ.get("CHROMIUM")
    found = [path for name in ((wanted,) if wanted else NAMES) if (path := shutil.which(name))]
    if not found:
        what = f"CHROMIUM={wanted!r} is no command" if wanted else f"none of {', '.join(NAMES)}"
        raise BookError(
            f"no Chromium here ({what}): install one (Debian: apt-get install chromium), or set "
            "CHROMIUM to its command"
        )
    return found[0]


def write(pages: Iterable[Path], out: Path) -> Iterator[Path]:
    """Print pages, with everything that is folded unfolded.

    Parameters
    ----------
    pages : list of Path
        HTML files of a built book.
    out : Path
        Folder that gets one PDF a page, of the same name.

    Yields
    ------
    Path
        Each PDF, once it is complete.

    Raises
    ------
    BookError
        No Chromium, a folder that cannot be written to, a page that is not built, or one that
        could not be printed.
    """
    command = [browser(), "--headless", "--disable-gpu", "--no-pdf-header-footer"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses root otherwise, as in containers
    check_writable(out)
    for page in pages:
        if not page.is_file():
            raise BookError(f"{page} is not there: build the book first ('make book')")
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / "page.pdf"
            profile = f"--user-data-dir={scratch}/profile"
            # the page has ten seconds of its own clock for its formulas
            print_it = ["--virtual-time-budget=10000", f"--print-to-pdf={made}"]
            try:
                done = subprocess.run(
                    [*command, profile, *print_it, page.resolve().as_uri()],
                    capture_output=True,
                    text=True,
                    timeout=SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise BookError(f"{page.name}: not printed within {SECONDS} s") from None
            if done.returncode or not made.is_file():
                said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise BookError(f"{page.name}: Chromium did not print it: {said}")
            target = out / f"{page.stem}.pdf"
            atomic.write(target, made.read_bytes())
        yield target
