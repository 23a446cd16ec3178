"""How much do batched checkpoints gain?

One process: the SDK's outbox, its HTTP client, and a real engine on a file, joined by an ASGI
transport, so that neither sockets nor a server are measured. The same finished runs (two steps
each) are delivered one by one, as to a plain Inngest server, and in batches, as to the stephttp
engine; then runs that trickle in, to see what the linger does.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path

import httpx2

from benchmarks import harness
from benchmarks.harness import Row
from stephttp._client import outbox_worker
from stephttp._client.api_calls import NEW_RUN
from stephttp._client.outbox import Item
from stephttp._client.outbox_batch import Parcel
from stephttp._core.run import Run
from stephttp._run.finished_run import Record
from stephttp._wire.http import Request, Response
from stephttp._wire.ids import random_ulid
from stephttp.engine import Settings, create_app
from stephttp.options import resolve
from stephttp.provider import Provider

RUNS = 3000
ROUNDS = 3
TRICKLE = 2000
"""Runs a second that come one by one."""


def finished(provider: Provider) -> bytes:
    """Return a run with two steps, as the middleware hands it to the outbox."""
    run = Run(random_ulid(provider.runtime.now_ns() // 1_000_000, os.urandom(16)))
    for name in ("price", "reserve"):
        run.complete(run.begin(name), b'{"item":"book","cents":1200}', 1, 1)
    request = Request("GET", "/orders/book", "", [])
    response = Response(200, [(b"content-type", b"application/json")], b'{"ok":true}')
    ops = run.unreported.take_all()
    checkpoints = provider.runtime.checkpoints
    return Record(checkpoints, run, ops, request, response, 1, 2, None).encode()


class Counting(httpx2.ASGITransport):
    """Counts requests."""

    count = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.count += 1
        return await super().handle_async_request(request)


async def deliver(path: Path, *, batched: bool, rate: float | None = None) -> tuple[float, float]:
    """Deliver `RUNS` runs, at once or at a rate; return runs a second and runs a request."""
    app = create_app(Settings(db_path=str(path)))
    transport = Counting(app=app)
    settings = resolve("http://app", base_url="http://engine", environ={"INNGEST_DEV": "1"})
    provider = Provider(settings, transport=transport)
    provider.runtime.outbox.batches = lambda: batched
    items = [Item(Parcel(NEW_RUN, finished(provider))) for _ in range(RUNS)]
    await app.state.engine.start()
    began = time.perf_counter()
    for number, item in enumerate(items):
        assert provider.runtime.outbox.put(item)
        if rate and (ahead := number / rate - (time.perf_counter() - began)) > 0:
            await asyncio.sleep(ahead)
    assert await provider.wait(120)
    seconds = time.perf_counter() - began
    (count,) = await app.state.engine.store.read(
        lambda connection: connection.execute(
            "SELECT count(*) FROM runs WHERE status = 'completed'"
        ).fetchone()
    )
    assert count == RUNS, f"{count} of {RUNS} runs arrived"
    await provider.aclose()
    await app.state.engine.stop()
    return RUNS / seconds, RUNS / transport.count


def measure(folder: Path) -> list[Row]:
    rates: dict[str, list[float]] = {"alone": [], "batched": []}
    for number in range(ROUNDS):
        for name, measured in rates.items():
            file = folder / f"{number}-{name}.db"
            rate, _ = asyncio.run(deliver(file, batched=name == "batched"))
            measured.append(rate)
    rows = [
        harness.compared(
            "finished runs delivered in batches, against one by one",
            rates,
            "batched",
            "alone",
            unit="times",
            note=f"{statistics.median(rates['batched']):,.0f} and "
            f"{statistics.median(rates['alone']):,.0f} runs/s, SDK and engine in one process",
        )
    ]
    usual = outbox_worker.LINGER
    try:
        for linger in (0.0, 0.005, 0.02):
            outbox_worker.LINGER = linger
            used = time.process_time()
            file = folder / f"linger-{linger}.db"
            _, each = asyncio.run(deliver(file, batched=True, rate=TRICKLE))
            micros = (time.process_time() - used) / RUNS * 1e6
            question = f"the same at {TRICKLE:,} runs/s, a linger of {linger * 1000:.0f} ms"
            rows.append(Row(question, micros, "µs of CPU a run", note=f"{each:.0f} runs a request"))
    finally:
        outbox_worker.LINGER = usual
    return rows
