"""How long does `import stephttp` take? Each time in a process of its own."""

from __future__ import annotations

import statistics
import subprocess
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row
from benchmarks.place import PYTHON

TIMES = 15


def measure(folder: Path) -> list[Row]:
    seconds = harness.alternate(
        TIMES, stephttp=lambda: importing("stephttp"), fastapi=lambda: importing("fastapi")
    )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    spread = (min(seconds["stephttp"]), max(seconds["stephttp"]))
    peers = {"import fastapi": medians["fastapi"]}
    return [Row("import stephttp", medians["stephttp"], "ms", "<= 60", spread, peers)]


def importing(module: str) -> float:
    """Milliseconds, without the start of the interpreter."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    command = [str(PYTHON), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout) * 1000
