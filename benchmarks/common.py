"""What several benchmarks need: a step in a process of its own, and the memory it took."""

import json
import re
import subprocess
import sys
from pathlib import Path


def apart(script, *arguments):
    """What a script prints as JSON in a process of its own, whose peak memory is its own."""
    command = [sys.executable, script, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def peak():
    """Mebibytes that this process has held at most (Linux; getrusage counts its parent's too)."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
