"""Every test and benchmark that wants a GPU, in one go: at most eight minutes on one GPU.

Run: make gpu-check [PYTHON=python3] [WHEELS=folder]

It wants a checkout and a Python with PyTorch, no network. Packages that this Python lacks come
from the folder of wheels, each with all that it needs in turn, and leave nothing behind. Every
part (`gpu_parts.py`) is a process with a time limit of its own; gpu.json beside this file is
written after each, and has the device, versions, each figure and each test's outcome.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from functools import partial
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULT = HERE / "gpu.json"
SET_UP, LOOK = 20, 40  # seconds to install what is missing, and to look at the device
PARTS = {  # seconds that each may take, and what those before left over; what matters most first
    "float32": 80,
    "half precision": 60,
    "throughput": 90,
    "fine-tuning": 75,
    "embed": 30,
    "chapter 3": 45,
    "tests": 40,
}
NOT_REACHED = "the check ended before it"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheels", type=Path, help="folder with packages that are missing")
    parser.add_argument("--device", default="cuda", help="another one tries out the logic")
    parser.add_argument("--sizes", default="full", choices=["full", "tiny"])
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.out == RESULT and (given.device, given.sizes) != ("cuda", "full"):
        parser.error("gpu.json is for full sizes on a GPU: give another file with --out")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        environment = os.environ | {"CXRBOOK_CACHE": f"{folder}/cache", "MPLBACKEND": "Agg"}
        paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        if given.wheels:
            paths.insert(1, str(install(given.wheels, scratch / "packages")))
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        script = [sys.executable, str(HERE / "gpu_parts.py"), given.device, given.sizes]
        run = partial(attempt, command=script, scratch=scratch, environment=environment)
        looked = run("device", LOOK)
        if looked["outcome"] != "passed":
            why = looked.get("reason", looked["outcome"])
            sys.exit(f"gpu-check: {why}; nothing was run, and gpu.json is as it was")
        (about,) = looked["figures"]
        results = check(PARTS, run, about | {"date": str(date.today())}, given.out)
    sys.exit(any(part["outcome"] != "passed" for part in results["parts"].values()))


def install(wheels, folder):
    """Put the packages of the wheels that this Python lacks into a folder; that folder."""
    missing = set()
    for wheel in wheels.glob("*.whl"):
        name = wheel.name.split("-")[0]
        with suppress(metadata.PackageNotFoundError):
            metadata.distribution(name)
            continue
        missing.add(name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--no-compile", "--find-links", str(wheels)]
    command += ["--target", str(folder), *sorted(missing)]
    if missing:
        try:
            subprocess.run(command, check=True, timeout=SET_UP)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            sys.exit(f"gpu-check: packages from {wheels} could not be installed: {error}")
    return folder


def check(parts, run, about, out):
    """Run the parts one after the other, and write the file after each.

    Parameters
    ----------
    parts : dict
        Seconds that each may take, by name, in their order; one may also use what those before
        left over.
    run : callable
        From a part's name and its limit to what became of it, as :func:`attempt`.
    about : dict
        What stands at the head of the file.
    out : Path
    """
    record = about | {
        "parts": {
            name: {"outcome": "not run", "reason": NOT_REACHED, "limit_s": limit}
            for name, limit in parts.items()
        }
    }
    spare = 0
    for name, limit in parts.items():
        limit = round(limit + spare, 1)
        print(f"{name} (at most {limit:.0f} s): ", end="", flush=True)
        found = run(name, limit)
        spare = max(0, limit - found["seconds"])
        record["parts"][name] = found
        print(f"{found['outcome']} in {found['seconds']:.0f} s {found.get('reason', '')}")
        part = out.with_suffix(".part")
        part.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        part.replace(out)  # the former content or the new one, never half of it
    return record


def attempt(name, limit, command, scratch, environment):
    """Run a part in a process of its own, and end all that it started.

    Returns
    -------
    dict: outcome ("passed", "failed", "timed out" or "not run"), reason where there is one,
    limit_s, seconds, figures and tests as far as it came
    """
    told, log = scratch / f"{name}.jsonl", scratch / f"{name}.log"
    told.touch()
    start = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, name, str(told)],
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=HERE.parent,
            env=environment,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = round(time.monotonic() - start, 1)
    # a process that was killed may leave half a line
    lines = [json.loads(line) for line in told.read_text().splitlines(True) if line[-1] == "\n"]
    tests = [line for line in lines if "test" in line]
    figures = [line for line in lines if "test" not in line]
    found = judged(code, figures, tests, last_line(log)) | {"limit_s": limit, "seconds": seconds}
    return found | {"figures": figures} | ({"tests": tests} if tests else {})


def judged(code, figures, tests, said):
    """Outcome and reason, from the exit status (None: too late), what was told and said last."""
    missed = [f["what"] for f in figures if f.get("met") is False]
    missed += [t["test"] for t in tests if t["outcome"] == "failed"]
    if code is None:
        return {"outcome": "timed out"}
    if code and said.startswith("ModuleNotFoundError"):
        return {"outcome": "not run", "reason": said}
    if missed:
        return {"outcome": "failed", "reason": "; ".join(missed)}
    if code < 0:
        return {"outcome": "failed", "reason": f"ended by {signal.Signals(-code).name}"}
    return {"outcome": "failed", "reason": said} if code else {"outcome": "passed"}


def last_line(log):
    """What a part said last, without where this checkout lies."""
    lines = log.read_text(errors="replace").replace(str(HERE.parent), ".").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


if __name__ == "__main__":
    main()
