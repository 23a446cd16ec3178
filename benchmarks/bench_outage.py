"""What happens to an application while the engine is killed?

Load before, during and after, at least 10,000 requests: the engine is ended with SIGKILL, and
started again on the same port and database. Every answer must be right, every run arrive exactly
once, and the application's memory stay within bounds.
"""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Load, Row

CONNECTIONS = 1
PATH = "/orders/book"
REQUESTS = 10_000


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

        def phase(pause_ms: int = 0, seconds: int = 1) -> None:
            done = harness.load(
                app.url + PATH,
                connections=CONNECTIONS,
                seconds=seconds,
                script="answers.lua",
                args=str(pause_ms),
            )
            assert re.search("^0 wrong answers$", done.said, re.MULTILINE), done.said
            loads.append(done)
            memory.append(app.memory_mb())

        phase()
        engine.process.kill()
        engine.process.wait()
        phase(pause_ms=1, seconds=3)  # or the outbox (10,000 runs) would be full before its end
        stack.enter_context(harness.engine(db, port=port))
        phase()
        while sum(load.requests for load in loads) < REQUESTS:
            phase(pause_ms=1)
        requests = sum(load.requests for load in loads)
        late = harness.arrived(db, requests, steps=2, in_flight=CONNECTIONS * len(loads))
    tails = ", ".join(f"{load.p99:.1f}" for load in loads[:3])
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
