"""What does an event cost the engine that 10,000 runs wait for, each with a condition of its own?

Once with a condition that names a value (`async.data.id == 'o7'`), which is looked up, and once
with one that is evaluated for each run (`async.data.n > 1000007`). The events end no wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx2

from benchmarks import harness
from benchmarks.harness import Row
from stephttp._wire.ids import hash_step_id, ulid

WAITS = 10_000
EVENTS = 20
_PART = 200


def measure(folder: Path) -> list[Row]:
    kinds: dict[str, Callable[[int], str]] = {
        "value": lambda number: f"async.data.id == 'o{number}'",
        "comparison": lambda number: f"async.data.n > {10**6 + number}",
    }
    used: dict[str, float] = {}
    for name, condition in kinds.items():
        db = folder / f"{name}.db"
        with harness.engine(db) as engine, httpx2.Client(base_url=engine.url, timeout=60) as http:
            for first in range(0, WAITS, _PART):
                runs = [
                    _waiting(number, condition(number)) for number in range(first, first + _PART)
                ]
                http.post("/v1/checkpoint/batch", json=runs).raise_for_status()
            _send(http, 1)
            _delivered(db)
            before = engine.cpu()
            _send(http, EVENTS)
            _delivered(db)
            used[name] = (engine.cpu() - before) / EVENTS * 1000
            open_waits = harness.count(db, "SELECT count(*) FROM timers WHERE kind = 'event'")
            assert open_waits == WAITS
    note = f"another condition, evaluated {WAITS} times: {used['comparison']:.0f} ms"
    return [
        Row("CPU of an event that 10,000 runs wait for, by value", used["value"], "ms", "<= 50",
            peers={"evaluated": used["comparison"]}, note=note),
    ]  # fmt: skip


def _waiting(number: int, condition: str) -> dict[str, object]:
    now_ms = int(time.time() * 1000)
    data = {"domain": "http://127.0.0.1:9", "method": "GET", "path": "/o", "fn": "o"}
    event = {"name": "inngest/http.request", "ts": now_ms, "data": data}
    opts = {"event": "order/packed", "timeout": "1d", "if": condition}
    op = {"id": hash_step_id("wait"), "op": "WaitForEvent", "name": "order/packed", "opts": opts}
    return {"run_id": ulid(now_ms, number), "retries": 0, "event": event, "steps": [op]}


def _send(http: httpx2.Client, count: int) -> None:
    events = [{"name": "order/packed", "data": {"id": f"x{n}", "n": n}} for n in range(count)]
    http.post("/e/key", json=events).raise_for_status()


def _delivered(db: Path) -> None:
    while harness.count(db, "SELECT count(*) FROM deliveries"):
        time.sleep(0.05)
