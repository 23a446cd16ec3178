"""What happens to an application while the engine is killed?

Load before, during and after: the engine is ended with SIGKILL, and started again on the same port
and database. Every run must arrive exactly once, and the application's memory stay within bounds.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Load, Row

CONNECTIONS = 1
"""So few that the outbox (10,000 runs) has room for what comes while the engine is away."""
PATH = "/orders/book"


def measure(folder: Path) -> list[Row]:
    db = folder / "engine.db"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    loads: list[Load] = []
    memory: list[float] = []
    with ExitStack() as stack:
        engine = stack.enter_context(harness.engine(db, port=port))
        app = stack.enter_context(harness.uvicorn("apps:durable", engine.url))

        def phase() -> None:
            loads.append(harness.load(app.url + PATH, connections=CONNECTIONS, seconds=1))
            memory.append(app.memory_mb())

        phase()
        engine.process.kill()
        engine.process.wait()
        phase()
        stack.enter_context(harness.engine(db, port=port))
        phase()
        requests = sum(load.requests for load in loads)
        late = harness.arrived(db, requests, steps=2, in_flight=CONNECTIONS * len(loads))
    tails = ", ".join(f"{load.p99:.1f}" for load in loads)
    return [
        Row(
            "the engine is killed under load: growth of the app's memory",
            max(memory) - memory[0],
            "MB",
            "<= 150",
            note=f"p99 before, during, after: {tails} ms; caught up {late:.1f} s after the load; "
            f"all {requests} runs arrived once",
        )
    ]
