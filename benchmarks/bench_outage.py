"""What happens to an application while the engine is killed?

10,000 requests with two steps each. After a third of them the engine is killed (SIGKILL), after
two thirds it is started again, on the same port and database. Checked: every answer is right,
every run that the outbox accepted arrives exactly once, and the application's memory stays within
bounds. Printed: latencies before, during and after the outage, memory, and how long the outbox
needed to catch up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

# Found beside this file; mypy knows it as benchmarks.bench_overhead only.
from bench_overhead import (  # type: ignore[import-not-found]
    CONCURRENCY,
    DEADLINE,
    WARM_UP,
    Server,
    load,
    runs_of,
    started,
)

REQUESTS = int(os.environ.get("BENCH_REQUESTS", "10000"))
MAX_GROWTH_MIB = 150
"""The outbox holds 64 MiB at the most; the rest is the allocator's."""


class Engine:
    """The engine's process, on a port and a database that outlive it."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stephttp", "dev", "--port", str(self.port),
             "--db", str(self._directory / "engine.sqlite3")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                if httpx2.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            assert time.monotonic() < deadline, "the engine does not start"
            time.sleep(0.05)

    def stop(self, how: signal.Signals) -> None:
        """End it."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait()


def memory_mib(server: Server) -> float:
    """Resident memory of a server; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(engine: Engine, app: Server) -> None:
    phases = ("before", "during", "after")
    memory: dict[str, float] = {}
    async with httpx2.AsyncClient(timeout=DEADLINE) as client:
        await load(client, app, WARM_UP)
        memory["warm"] = memory_mib(app)
        for number, phase in enumerate(phases):
            if phase == "during":
                engine.stop(signal.SIGKILL)
            elif phase == "after":
                await asyncio.to_thread(engine.start)
            app.latencies.clear()
            # The last phase takes the rest, so that the sum is what was asked for.
            count = REQUESTS // 3 + (REQUESTS % 3 if number == 2 else 0)
            await load(client, app, count)
            memory[phase] = memory_mib(app)
            report(phase, app, memory[phase])
        began = time.perf_counter()
        wanted = sorted(app.run_ids)
        while len(ids := await runs_of(client, engine.url)) < len(wanted):
            late = time.perf_counter() - began
            assert late < DEADLINE * 3, f"{len(wanted) - len(ids)} runs are missing"
            await asyncio.sleep(0.5)
        print(
            f"the outbox had caught up {time.perf_counter() - began:.1f} s after the last request"
        )
    assert sorted(ids) == wanted, "every run exactly once"
    assert len(wanted) == REQUESTS + WARM_UP
    growth = max(memory.values()) - memory["warm"]
    print(f"memory grew by {growth:.0f} MiB at the most")
    assert growth < MAX_GROWTH_MIB
    print(f"all {REQUESTS} answers were right, and all their runs arrived, each exactly once")


def report(phase: str, app: Server, memory: float) -> None:
    median = statistics.median(app.latencies) * 1e3
    tail = statistics.quantiles(app.latencies, n=100)[98] * 1e3
    rate = len(app.latencies) / app.seconds[-1]
    print(
        f"{phase:<7} {len(app.latencies):6} requests   {rate:7.0f}/s   median {median:6.2f} ms   "
        f"99th {tail:7.2f} ms   memory {memory:5.0f} MiB"
    )


def main() -> None:
    print(f"{REQUESTS} requests, {CONCURRENCY} at a time; two steps a request")
    with tempfile.TemporaryDirectory() as directory:
        engine = Engine(Path(directory))
        engine.start()
        try:
            options = ("--port", "0", "--no-access-log")
            ready = r"Uvicorn running on (http://\S+)"
            environment = {"INNGEST_DEV": engine.url}
            with started("uvicorn", "apps:durable", *options, ready=ready, **environment) as app:
                asyncio.run(measure(engine, app))
        finally:
            engine.stop(signal.SIGINT)


if __name__ == "__main__":
    main()
