"""How much longer does one caller wait for a handler with two steps?"""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Load, Row


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    path, requests = "/orders/book", 0
    loads: dict[str, list[Load]] = {"bare": [], "durable": []}
    with (
        harness.engine(db) as engine,
        harness.uvicorn("apps:bare") as bare,
        harness.uvicorn("apps:durable", engine.url) as durable,
    ):
        harness.load(bare.url + path, connections=1, seconds=1)
        requests += harness.load(durable.url + path, connections=1, seconds=1).requests
        for _ in range(harness.ROUNDS):
            for name, app in (("bare", bare), ("durable", durable)):
                loads[name].append(harness.load(app.url + path, connections=1))
            requests += loads["durable"][-1].requests
            harness.arrived(db, requests, steps=2, in_flight=harness.ROUNDS + 1)
    added = [
        durable.p50 - bare.p50
        for bare, durable in zip(loads["bare"], loads["durable"], strict=True)
    ]
    medians = {name: statistics.median(one.p50 for one in loads[name]) for name in loads}
    tails = {name: statistics.median(one.p99 for one in loads[name]) for name in loads}
    return [
        Row(
            "added latency at 1 connection, 2 steps, p50",
            medians["durable"] - medians["bare"],
            "ms",
            "<= 0.15",
            (min(added), max(added)),
            note=f"p50 {medians['bare']:.2f} and {medians['durable']:.2f} ms, "
            f"p99 {tails['bare']:.2f} and {tails['durable']:.2f} ms; "
            f"all {requests} runs arrived once",
        )
    ]
