"""How fast phantom radiographs are drawn, on one core, by image size.

Run: python benchmarks/phantom.py
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time

import numpy as np

from cxrlib import cohorts

TARGET = {64: 900, 96: 450}  # images a second

for size, target in TARGET.items():
    cohort = cohorts.load("phantom", n_images=2000, size=size)
    cohort.images(np.arange(100))  # fill the caches of noise and shapes
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        cohort.images(np.arange(2000))
        rates.append(2000 / (time.perf_counter() - start))
    print(
        f"{size} pixels: {np.median(rates):.0f} images a second "
        f"(of 3 runs: {min(rates):.0f} to {max(rates):.0f}; target {target})"
    )
