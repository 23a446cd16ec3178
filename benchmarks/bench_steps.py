"""How much of a handler's throughput is left with two steps, the engine live beside it?

The same FastAPI handler, bare and with two steps, 16 connections. It does nothing else, so the
share is the worst one there is. Load generator, application and engine share the machine.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    path, requests, waits = "/orders/book", 0, []
    with (
        harness.engine(db) as engine,
        harness.uvicorn("apps:bare") as bare,
        harness.uvicorn("apps:durable", engine.url) as durable,
    ):
        harness.load(bare.url + path, seconds=1)
        requests += harness.load(durable.url + path, seconds=1).requests
        harness.arrived(db, requests, steps=2)
        rates: dict[str, list[float]] = {"bare": [], "durable": []}
        cpu: dict[str, float] = {"bare": 0.0, "durable": 0.0, "engine": 0.0}
        total = {"bare": 0, "durable": 0}
        for _ in range(harness.ROUNDS):
            for name, app in (("bare", bare), ("durable", durable)):
                before, engine_before = app.cpu(), engine.cpu()
                done = harness.load(app.url + path)
                rates[name].append(done.per_second)
                total[name] += done.requests
                if name == "durable":
                    requests += done.requests
                    # What is left in the outbox belongs to this round, and not to the next.
                    rounds = harness.ROUNDS + 1
                    waits.append(harness.arrived(db, requests, steps=2, in_flight=16 * rounds))
                    cpu["engine"] += engine.cpu() - engine_before
                cpu[name] += app.cpu() - before
    each = {name: 1e6 * cpu[name] / total[name] for name in total}
    each["engine"] = 1e6 * cpu["engine"] / total["durable"]
    return [
        harness.compared(
            "throughput with 2 steps, share of the bare handler",
            rates,
            "durable",
            "bare",
            goal=">= 0.70",
            note=f"CPU a request: bare {each['bare']:.0f} µs, with steps {each['durable']:.0f} µs, "
            f"engine {each['engine']:.0f} µs; outbox empty {max(waits):.1f} s after the load; "
            f"all {requests} runs arrived once",
        )
    ]
