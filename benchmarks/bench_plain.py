"""What does the middleware cost an endpoint that uses no steps?"""

from __future__ import annotations

from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    path = "/items/book"
    with (
        harness.engine(db) as engine,
        harness.uvicorn("apps:bare") as bare,
        harness.uvicorn("apps:durable", engine.url) as durable,
    ):
        for app in (bare, durable):
            harness.load(app.url + path, seconds=1)
        rates = harness.alternate(
            harness.ROUNDS,
            bare=lambda: harness.load(bare.url + path).per_second,
            durable=lambda: harness.load(durable.url + path).per_second,
        )
    assert harness.count(db, harness.ALL) == 0, "a request without steps is not a run"
    return [
        harness.compared(
            "throughput without steps, share of the bare handler",
            rates,
            "durable",
            "bare",
            goal=">= 0.93",
            note="the engine recorded no run, as intended",
        )
    ]
