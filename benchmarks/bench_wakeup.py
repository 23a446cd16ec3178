"""How long after the end of a sleep does the caller hold the final answer?

A sleep of one second, five steps after it. The engine's record says when the
sleep ended; the caller's clock is the machine's, as is the engine's.
"""

from __future__ import annotations

import asyncio
import statistics
from itertools import count
from pathlib import Path

from benchmarks import harness
from benchmarks.callers import Result, crowd
from benchmarks.harness import Row

CALLERS = 8
CALLS = 200


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    with (
        harness.engine(db) as engine,
        harness.uvicorn("waiting_app:app", engine.url) as app,
    ):
        numbers = count()

        def goes_on() -> bool:
            return next(numbers) < CALLS

        warm_up = iter([True, True, False, False])
        asyncio.run(crowd(app.url, engine.url, "/second", 2, warm_up.__next__))
        results = asyncio.run(crowd(app.url, engine.url, "/second", CALLERS, goes_on))
        harness.arrived(db, CALLS + 2, steps=7, in_flight=0)
        late = lateness(db, results)
    cuts = statistics.quantiles(late, n=100)
    note = (
        f"{CALLS} runs by {CALLERS} callers, all stored once; a real Inngest server: about 1000 ms"
    )
    spread = (min(late), max(late))
    return [
        Row("end of a 1 s sleep to the answer, 5 steps after it, p50", cuts[49], "ms", "<= 15",
            spread, note=note),
        Row("the same, p99", cuts[98], "ms", "<= 60", spread),
    ]  # fmt: skip


def lateness(db: Path, results: list[Result]) -> list[float]:
    """Return the milliseconds from the end of each run's sleep to the caller's answer."""
    rows = harness.rows(db, "SELECT run_id, started_ns FROM steps WHERE op = 'Sleep'")
    ends = {run_id: started_ns / 1e6 + 1000 for run_id, started_ns in rows}
    assert all(result.body == b"5" for result in results)
    return [result.at * 1000 - ends[result.run_id] for result in results]
