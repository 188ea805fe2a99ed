"""Statistics are NumPy: to import them must not start a framework that takes seconds."""

import subprocess
import sys

MODULES = (
    *("ranking", "metrics", "bootstrap", "calibration", "estimates", "fairness", "inference"),
    *("probes", "shortcuts", "simulate", "as_published", "prevalence"),
)
HEAVY = ("torch", "sklearn", "statsmodels", "scipy.stats", "matplotlib")


def test_statistics_import_nothing_heavy():
    code = f"""
import importlib, sys
for name in {MODULES}:
    importlib.import_module("cxrlib.stats." + name)
    print(name, [heavy for heavy in {HEAVY} if heavy in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name} []" for name in MODULES], done.stderr
