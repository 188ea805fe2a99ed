"""What this process has used so far, for the card of a run (:mod:`cxrlib.book.record`).

The driver appends the cell `CELL` to a chapter and takes it out again before the notebook is kept.
Where the variable `WATCH` asks for it, the files that are opened are noted as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

SEEDED = "seeded:"  # before a model's name: weights computed from names, which mean nothing
KIND = "application/x-cxrbook-used"
CELL = "from cxrlib.core import used\n\nused.tell()"

WATCH = "CXRBOOK_WATCH"  # where the files that are opened are noted, and which: see `watched`
OURS = __package__.partition(".")[0]

_cohorts: dict[str, dict] = {}
_weights: dict[str, dict] = {}


def watched(notes: Path, folders: list[Path]) -> str:
    """The value of `WATCH` that has the files opened in these folders noted in the file `notes`."""
    return json.dumps([str(notes), *map(str, folders)])


def watch() -> None:
    """From now on note what is opened or listed in the folders that `WATCH` names, if it does.

    Processes that this one starts do the same as soon as they import `cxrlib`. One line per path; a
    compiled module counts as its source.
    """
    if WATCH not in os.environ:
        return
    notes, *folders = json.loads(os.environ[WATCH])
    inside = tuple(os.path.join(folder, "") for folder in folders)
    out = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    seen = set()

    def note(path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return  # the number of an open file
        file = os.path.abspath(os.fsdecode(path))
        if file.endswith(".pyc"):
            with contextlib.suppress(ValueError):  # compiled into a place of its own
                file = importlib.util.source_from_cache(file)
        if file not in seen:
            seen.add(file)
            if os.path.join(file, "").startswith(inside):
                os.write(out, f"{file}\n".encode())

    def hook(event: str, arguments: tuple) -> None:
        if event in ("open", "os.listdir", "os.scandir"):
            note(arguments[0])

    sys.addaudithook(hook)
    for name, module in list(sys.modules.items()):  # those that led here
        if name.partition(".")[0] == OURS:
            note(module.__file__)


def cohort(cohort: Any) -> None:
    """Note a cohort that was loaded: its name, access, fingerprint, and whose its films are."""
    about = {"name": cohort.name, "access": cohort.access, "fingerprint": cohort.fingerprint}
    if cohort.films is not None and cohort.access == "open":
        patients = cohort.table["patient_id"].nunique()
        about |= {"films": len(cohort.films), "patients": patients, "credit": cohort.credit}
    _cohorts[json.dumps(about)] = about


def weights(model: Any) -> None:
    """Note a model that was loaded: the hash of its weights, protocol, device and precision."""
    for member in model.members:
        about = {name: getattr(member, name) for name in ("name", "weights", "protocol")}
        about |= {"device": member.device, "precision": member.precision}
        _weights[json.dumps(about)] = about


def seen() -> dict:
    """Cohorts and models in the order of their first use."""
    return {"cohorts": list(_cohorts.values()), "models": list(_weights.values())}


def peak_memory() -> float | None:
    """The most memory that this process ever held, in MB; None where the system does not tell.

    A forked kernel (:mod:`cxrlib.book.kernels`) counts what it found imported, but of the code of
    packages only what it ran, so that it holds less than one that imported them.
    """
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent held before it started us
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def gpu() -> dict:
    """Name of the GPU in use and the most of its memory that tensors took, in MB; or None both."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"gpu": None, "gpu_memory_mb": None}
    peak = torch.cuda.max_memory_allocated() / 1e6
    return {"gpu": torch.cuda.get_device_name(), "gpu_memory_mb": peak}


def modules() -> list[str]:
    """The modules of installed packages that this process imported, in their order, but ours."""
    installed = tuple(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    return [
        name
        for name, module in list(sys.modules.items())
        if (getattr(module, "__file__", None) or "").startswith(installed)
        and name.partition(".")[0] != OURS
    ]


def tell() -> None:
    """Hand all of it to the driver, as an output of the running cell."""
    from IPython.display import display

    about = seen() | {"memory_mb": peak_memory(), "modules": modules()} | gpu()
    display({KIND: json.dumps(about)}, raw=True)
