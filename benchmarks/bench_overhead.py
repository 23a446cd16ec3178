"""What does stephttp cost a request that does not wait?

The same FastAPI handler twice, each in its own uvicorn process: bare, and with two steps behind
the middleware, with a live engine in a third process that is told of every run. Rounds alternate,
so that a slow moment of the machine hits both. The handler does nothing else, so the ratio is the
worst one there is.

The load comes from this process, which shares the machine with the servers and so flatters the
slower one; the servers' own processor time does not depend on that.

Also checks that the engine got every run exactly once.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx2

HERE = Path(__file__).resolve().parent
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "1000"))
CONCURRENCY = 16
WARM_UP = 200
DEADLINE = 60.0
PAGE = 100


@dataclass
class Server:
    """One of the two applications, and what was measured of it."""

    url: str
    pid: int
    seconds: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Processor time that it has used so far; 0 where the system does not tell."""
        try:
            text = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return 0.0
        user, system = text.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(*command: str, ready: str, **environment: str) -> Iterator[Server]:
    """Run a server, which tells its URL in a line that matches `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=HERE,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(ready, line):
                break
        else:
            raise SystemExit(f"{' '.join(command)} did not start:\n{''.join(said)}")
        threading.Thread(target=pass_on, args=(process.stdout,), daemon=True).start()
        yield Server(found[1], process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pass_on(output: IO[str]) -> None:
    for line in output:
        if not re.search(r"INFO|stephttp: stopping", line):
            print(line, end="")


async def load(client: httpx2.AsyncClient, server: Server, requests: int) -> None:
    """Send so many requests, `CONCURRENCY` at a time, and note what they took."""
    left = iter(range(requests))

    async def worker() -> None:
        for number in left:
            sent = time.perf_counter()
            answer = await client.get(f"{server.url}/orders/item-{number}")
            server.latencies.append(time.perf_counter() - sent)
            assert answer.status_code == 200, answer.text
            if run_id := answer.headers.get("x-run-id"):
                server.run_ids.append(run_id)

    cpu, began = server.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
    server.seconds.append(time.perf_counter() - began)
    server.cpu.append(server.cpu_seconds() - cpu)


async def runs_of(client: httpx2.AsyncClient, engine_url: str) -> list[str]:
    """The ids of all runs that the engine has."""
    ids: list[str] = []
    while True:
        query = {"limit": str(PAGE)} | ({"cursor": ids[-1]} if ids else {})
        answer = await client.get(f"{engine_url}/v1/runs", params=query)
        page = [run["run_id"] for run in answer.json()["data"]]
        ids += page
        if len(page) < PAGE:
            return ids


async def measure(engine: Server, bare: Server, durable: Server) -> None:
    async with httpx2.AsyncClient(timeout=DEADLINE) as client:
        for server in (bare, durable):
            await load(client, server, WARM_UP)
            for measured in (server.seconds, server.latencies, server.cpu):
                measured.clear()
        for number in range(ROUNDS):
            order = (bare, durable) if number % 2 else (durable, bare)
            for server in order:
                await load(client, server, REQUESTS)
                # What it sends afterwards is its own cost, and must not hit the other's round.
                await arrived(client, engine, durable)
        report(bare, durable)
        ids = await runs_of(client, engine.url)
    wanted = sorted(durable.run_ids)
    assert len(wanted) == ROUNDS * REQUESTS + WARM_UP
    assert sorted(ids) == wanted, f"{len(wanted)} runs were made, the engine has {len(ids)}"
    print(f"all {len(wanted)} runs arrived at the engine, each exactly once")


async def arrived(client: httpx2.AsyncClient, engine: Server, durable: Server) -> None:
    """Wait until the engine has as many runs as were made."""
    deadline = time.monotonic() + DEADLINE
    while len(await runs_of(client, engine.url)) < len(durable.run_ids):
        assert time.monotonic() < deadline, "runs are missing at the engine"
        await asyncio.sleep(0.2)


def report(bare: Server, durable: Server) -> None:
    print(f"{ROUNDS} rounds of {REQUESTS} requests, {CONCURRENCY} at a time; two steps a request")
    rate = [REQUESTS / statistics.median(server.seconds) for server in (bare, durable)]
    row("requests a second", rate[0], rate[1], rate[0] / rate[1])
    median = [statistics.median(server.latencies) * 1e3 for server in (bare, durable)]
    row("median latency, ms", median[0], median[1], median[1] / median[0])
    tail = [statistics.quantiles(server.latencies, n=100)[98] * 1e3 for server in (bare, durable)]
    row("99th percentile, ms", tail[0], tail[1], tail[1] / tail[0])
    cpu = [sum(server.cpu) / (ROUNDS * REQUESTS) * 1e3 for server in (bare, durable)]
    if cpu[0]:
        row("server's CPU a request, ms", cpu[0], cpu[1], cpu[1] / cpu[0])


def row(what: str, bare: float, durable: float, ratio: float) -> None:
    print(f"{what:<27} bare {bare:9.2f}   with steps {durable:9.2f}   ratio {ratio:5.2f}")


def main() -> None:
    uvicorn = r"Uvicorn running on (http://\S+)"
    options = ("--port", "0", "--no-access-log")
    with (
        started("stephttp", "dev", "--port", "0", ready=r"engine ready on (\S+)") as engine,
        started("uvicorn", "apps:bare", *options, ready=uvicorn) as bare,
        started(
            "uvicorn", "apps:durable", *options, ready=uvicorn, INNGEST_DEV=engine.url
        ) as durable,
    ):
        asyncio.run(measure(engine, bare, durable))


if __name__ == "__main__":
    main()
