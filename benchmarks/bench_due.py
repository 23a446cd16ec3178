"""How late are 10,000 runs that are all due in one second?

Each run is called when its sleep ends, runs a step, and ends. Its lateness is the time from the end
of the sleep to the start of that step, by the application's clock.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from benchmarks import harness, sleepers
from benchmarks.harness import Row

RUNS = 10_000
PARTS = 10


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    with (
        harness.engine(db) as engine,
        harness.uvicorn("waiting_app:app", engine.url) as app,
    ):
        start = time.time() + 15
        for part in range(PARTS):  # a tenth of them each tenth of the second
            sleepers.put(engine.url, app.url, RUNS // PARTS, start + part / PARTS, part)
        assert time.time() < start, "it took too long to put the runs in"
        time.sleep(start - time.time())
        harness.arrived(db, RUNS, steps=2, in_flight=0, deadline=180)
    late = [
        (begun - ended) / 1e9
        for begun, ended in harness.rows(
            db,
            "SELECT after.started_ns, 1e9 * CAST(substr(runs.path, 6) AS REAL) FROM runs "
            "JOIN steps AS after USING (run_id) WHERE after.userland_id = 'after'",
        )
    ]
    last_ms = harness.count(db, "SELECT max(ended_ms) FROM runs")
    assert len(late) == RUNS
    cuts = statistics.quantiles(late, n=100)
    done = last_ms / 1000 - start
    note = f"p50 {cuts[49]:.2f} s; all {RUNS} runs executed once"
    return [
        Row("lateness of 10,000 runs due in one second, p99", cuts[98], "s", "<= 3",
            (min(late), max(late)), note=note),
        Row("the same, all done after", done, "s", "<= 30"),
    ]  # fmt: skip
