"""Words, codes and numbers that stand in a file beside the module that reads them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def beside(module: str, name: str | None = None) -> dict[str, Any]:
    """What the TOML file in the folder of a module says.

    Parameters
    ----------
    module : str
        ``__file__`` of the module.
    name : str, optional
        Of the file, without ending; that of the module by default.
    """
    path = Path(module)
    return tomllib.loads(path.with_name(f"{name or path.stem}.toml").read_text(encoding="utf-8"))
