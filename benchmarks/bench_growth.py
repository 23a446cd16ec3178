"""How does the cost of a request grow, with its steps, their results, and requests in flight?

It measures processor time a request: that of the application beyond the bare handler, and that of
the engine. Other work on the machine affects it less than it affects rates.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row, Server

POINTS = [
    *((steps, 100, 4) for steps in (1, 2, 5, 10, 20)),
    *((2, size, 4) for size in (1_000, 10_000)),
    *((2, 100, connections) for connections in (1, 16, 64)),
]
"""Steps, bytes of each result, connections."""


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    rows, expected, stored, in_flight = [], 0, 0, 0
    with (
        harness.engine(db) as engine,
        harness.uvicorn("apps:bare") as bare,
        harness.uvicorn("apps:durable", engine.url) as durable,
    ):
        for steps, size, connections in POINTS:
            path = f"/grow/{steps}/{size}"
            plain, _ = spent(bare, bare.url + path, connections)
            before, engine_before = durable.cpu(), engine.cpu()
            done = harness.load(durable.url + path, connections=connections, seconds=1)
            expected += done.requests
            in_flight += connections
            stored = settle(db, expected, in_flight)
            ours = 1e6 * (durable.cpu() - before) / done.requests
            theirs = 1e6 * (engine.cpu() - engine_before) / done.requests
            rows.append(
                Row(
                    f"{steps} steps, results of {size:,} bytes, {connections} connections",
                    ours - plain,
                    "µs more CPU in the app",
                    peers={"bare handler, µs": plain, "engine, µs": theirs},
                    note=f"{done.per_second:,.0f} requests/s",
                )
            )
    assert harness.count(db, "SELECT count(DISTINCT run_id) FROM runs") == stored
    return rows


def spent(app: Server, url: str, connections: int) -> tuple[float, int]:
    """Return the microseconds of processor time a request, and the number of requests."""
    before = app.cpu()
    done = harness.load(url, connections=connections, seconds=1)
    return 1e6 * (app.cpu() - before) / done.requests, done.requests


def settle(db: Path, expected: int, in_flight: int) -> int:
    """Wait until all runs are there, each once, and nothing else; return their number."""
    harness.wait_for(db, expected)
    found = harness.count(db, harness.ALL)
    assert expected <= found <= expected + in_flight, (expected, found)
    return found
