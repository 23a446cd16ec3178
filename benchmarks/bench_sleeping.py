"""What do 100,000 sleeping runs cost: memory, and time from the start to the first wake-up?"""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import harness, sleepers
from benchmarks.harness import Row

RUNS = 100_000


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    with harness.uvicorn("waiting_app:app", "http://127.0.0.1:1") as app:
        with harness.engine(db) as engine:
            sleepers.put(engine.url, app.url, RUNS, time.time() + 86_400)
            sleepers.put(engine.url, app.url, 1, time.time() + 1, prefix=1)
        time.sleep(2)  # it falls due while there is no engine
        with harness.uvicorn("waiting_app:app", "http://127.0.0.1:1"):
            began = time.time()
            with harness.engine(db) as engine:
                while not (woken := claimed(db)):
                    assert time.time() - began < harness.DEADLINE, "no run woke up"
                    time.sleep(0.005)
                time.sleep(1)
                memory = engine.memory_mb()
    assert harness.count(db, "SELECT count(*) FROM timers WHERE kind = 'sleep'") == RUNS
    assert harness.count(db, harness.ALL) == RUNS + 1
    return [
        Row("100,000 sleeping runs: resident memory of the engine", memory, "MB", "<= 250"),
        Row("the same, from the engine's start to the first wake-up", woken - began, "s", "<= 2",
            note=f"all {RUNS} others still sleep"),
    ]  # fmt: skip


def claimed(db: Path) -> float | None:
    """Return when the due run was woken, in seconds since the epoch."""
    rows = harness.rows(
        db,
        "SELECT (started_ns + duration_ns) / 1e9 FROM steps "
        "WHERE op = 'Sleep' AND memo IS NOT NULL",
    )
    return float(rows[0][0]) if rows else None
