"""How long each page of the book takes to open from disk: from navigation to its load event.

Run after `make book`: python benchmarks/pages.py [folder of the pages]
"""

import os
import shutil
import statistics
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

HTML = Path(sys.argv[1] if len(sys.argv) > 1 else "_build/html").resolve()
RUNS = 5
TARGET = 1000  # ms
LOAD = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"

names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
found = next(filter(None, (shutil.which(name) for name in names if name)))
times = {}
with sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=found, chromium_sandbox=os.getuid() != 0)
    for path in sorted(HTML.rglob("*.html")):
        if "_static" in path.relative_to(HTML).parts:
            continue
        runs = []
        for _ in range(RUNS):  # each in a context of its own, with nothing cached
            page = browser.new_page()
            page.goto(path.as_uri(), wait_until="load")
            page.wait_for_function(f"() => ({LOAD})() > 0")
            runs.append(page.evaluate(LOAD))
            page.close()
        times[path] = statistics.median(runs)
        print(
            f"{times[path]:6.0f} ms {path.stat().st_size / 1000:6.0f} kB  {path.relative_to(HTML)}"
        )
    browser.close()
slowest = max(times, key=times.get)
print(f"slowest: {slowest.relative_to(HTML)}, {times[slowest]:.0f} ms (target {TARGET})")
largest = max(times, key=lambda path: path.stat().st_size)
print(f"largest: {largest.relative_to(HTML)}, {times[largest]:.0f} ms")
