"""What does a call of an endpoint cost the engine, by its own HTTP client and by aiohttp's?

Each call is a POST with 1 KB of JSON and an answer of 1 KB, on kept connections, like a re-entry,
under the same rules for addresses. The processor time is that of the client's process alone; the
endpoint is another process.
"""

from __future__ import annotations

import statistics
import subprocess
from functools import partial
from pathlib import Path

from benchmarks import harness, place
from benchmarks.harness import Row

CALLS = 4000


def measure(folder: Path) -> list[Row]:
    place.pip("aiohttp")
    rounds = max(harness.ROUNDS, 5)
    with harness.uvicorn("calls:endpoint", env={"PYTHONPATH": str(place.ROOT)}) as endpoint:
        return [compare(endpoint.url, concurrency, rounds) for concurrency in (1, 50)]


def compare(url: str, concurrency: int, rounds: int) -> Row:
    measured = harness.alternate(
        rounds,
        stephttp=partial(micros, "stephttp", url, concurrency),
        aiohttp=partial(micros, "aiohttp", url, concurrency),
    )
    question = f"CPU of a call by aiohttp's client, against the engine's; {concurrency} at a time"
    row = harness.compared(question, measured, "aiohttp", "stephttp", unit="times")
    row.peers = {f"{name}, µs": statistics.median(each) for name, each in measured.items()}
    return row


def micros(which: str, url: str, concurrency: int) -> float:
    """Return the microseconds of processor time a call, in a fresh process."""
    done = subprocess.run(
        [place.PYTHON, "-m", "benchmarks.calls", which, url, str(concurrency), str(CALLS)],
        cwd=place.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)
