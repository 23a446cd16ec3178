"""How many runs a second come to their end, with a sleep of 10 ms in the middle, 64 callers?"""

from __future__ import annotations

import asyncio
import statistics
import time
from functools import partial
from pathlib import Path

from benchmarks import harness
from benchmarks.callers import crowd
from benchmarks.harness import Row

CALLERS = 64


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    rates, expected = [], 0
    with (
        harness.engine(db) as engine,
        harness.uvicorn("waiting_app:app", engine.url) as app,
    ):
        for number in range(max(3, harness.ROUNDS - 2)):
            began = time.monotonic()
            end = began + (harness.SECONDS if number else 1)
            results = asyncio.run(
                crowd(app.url, engine.url, "/short", CALLERS, partial(before, end))
            )
            seconds = time.monotonic() - began
            assert all(result.body == b"3" for result in results)
            expected += len(results)
            if number:
                rates.append(len(results) / seconds)
        # first, nap, second, third, and the request itself
        harness.arrived(db, expected, steps=5, in_flight=0)
        used = {"engine": engine.cpu(), "app": app.cpu()}
    each = {name: 1e3 * seconds / expected for name, seconds in used.items()}
    return [
        Row(
            "runs end to end: step, 10 ms sleep, two steps; 64 callers",
            statistics.median(rates),
            "/s",
            ">= 400",
            (min(rates), max(rates)),
            note=f"CPU a run: engine {each['engine']:.1f} ms, app {each['app']:.1f} ms; "
            f"all {expected} runs arrived once",
        )
    ]


def before(end: float) -> bool:
    return time.monotonic() < end
