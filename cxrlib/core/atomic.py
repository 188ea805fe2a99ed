"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path


def in_one_step(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file of another name in the same folder, then give it its own.

    Whoever reads ``path`` finds the former content or the new one, also when the machine stops in
    between.
    """
    part = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb") as f:
            os.fsync(f.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, data: bytes) -> None:
    """Write a file in one step."""
    in_one_step(path, lambda part: part.write_bytes(data))
