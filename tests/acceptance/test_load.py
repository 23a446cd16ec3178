"""Thousands of runs due in the same second, in real processes; the engine may be killed."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ulid import ULID

from stephttp.engine import Settings, VirtualClock, create_app
from tests.acceptance.processes import STEPHTTP, Process, free_port

CONCURRENCY = 64
"""Calls that the engine has under way at most."""
SPREAD_MS = 1_000

# As light as an endpoint can be, so that the engine is what is measured: no SDK of ours.
APP = """
import os, pathlib

RUNS = int(os.environ["RUNS"])
LOG = os.open(pathlib.Path(__file__).parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
HEADERS = [(b"x-inngest-sdk", b"load:v1"), (b"content-type", b"application/json")]
BODY = b'{"op":"RunComplete","id":"c","data":{"status":200,"headers":{},"body":"ok"}}'
seen, calls = set(), 0


async def app(scope, receive, send):
    global calls
    if scope["type"] != "http":
        return
    run_id = dict(scope["headers"])[b"x-run-id"]
    os.write(LOG, scope["path"].encode() + b" " + run_id + b"\\n")
    seen.add(run_id)
    calls += 1
    if calls == RUNS * 3 // 10:
        print("in the middle", flush=True)
    if len(seen) == RUNS:
        print("all were called", flush=True)
    await send({"type": "http.response.start", "status": 206, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
"""


def engine(port: int, file: Path) -> Process:
    process = Process([*STEPHTTP, "dev", "--port", str(port), "--db", str(file)])
    process.wait_for("engine ready")
    return process


def opening(run_id: str, origin: str, path: str, due_ms: int) -> dict[str, Any]:
    whole, ms = divmod(due_ms, 1000)
    due = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{ms:03}Z"
    data = {"domain": origin, "method": "POST", "path": path}
    sleep = {"op": "Sleep", "id": "nap", "name": due}
    event = {"name": "inngest/http.request", "data": data}
    return {"run_id": run_id, "event": event, "steps": [sleep]}


async def put_to_sleep(file: Path, origin: str, count: int) -> dict[str, int]:
    """Make the runs, of two endpoints; returns when each is due (milliseconds since the epoch).

    The engine that takes them lives in this process, and its clock stands still: none of them is
    due before all are there, however long that takes.
    """
    base_ms = (int(time.time()) + 4) * 1000
    # Coprime steps: neither arrival nor run id has anything to do with the order.
    runs = {str(ULID()): base_ms + n * 7919 % SPREAD_MS for n in range(count)}
    bodies = [
        opening(run_id, origin, f"/{'ab'[n % 2]}", due_ms)
        for n, (run_id, due_ms) in enumerate(runs.items())
    ]
    app = create_app(Settings(db_path=str(file)), clock=VirtualClock(base_ms - 60_000))
    transport = httpx2.ASGITransport(app=app)
    await app.state.engine.start()
    async with httpx2.AsyncClient(transport=transport, base_url="http://engine.test") as client:
        for start in range(0, count, 500):
            answer = await client.post("/v1/checkpoint/batch", json=bodies[start : start + 500])
            items = answer.json()["data"]["items"]
            assert [item["status"] for item in items] == [200] * 500
    await app.state.engine.stop()
    return runs


def ended(file: Path, count: int) -> bool:
    """Whether every run has been stored as completed."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall()
        (timers,) = connection.execute("SELECT count(*) FROM timers").fetchone()
        return rows == [("completed", count)] and timers == 0


@pytest.mark.parametrize(("count", "killed"), [(2_000, False), (10_000, True)])
def test_runs_due_in_one_second_all_end_in_their_order(
    tmp_path: Path, count: int, killed: bool
) -> None:
    (tmp_path / "load.py").write_text(APP)
    file, engine_port, app_port = tmp_path / "runs.db", free_port(), free_port()
    app = Process(
        [*STEPHTTP[:-1], "uvicorn", "load:app", "--port", str(app_port), "--no-access-log"],
        cwd=tmp_path,
        env={"RUNS": str(count)},
    )
    restarted_ms = 0
    with app:
        app.wait_for("Uvicorn running")
        runs = asyncio.run(put_to_sleep(file, f"http://127.0.0.1:{app_port}", count))
        first = engine(engine_port, file)
        with first:
            if killed:
                app.wait_for("in the middle")
                first.signal(signal.SIGKILL)
                first.wait()
                restarted_ms = time.time_ns() // 1_000_000
                with engine(engine_port, file):
                    wait_for_the_end(app, file, count)
            else:
                wait_for_the_end(app, file, count)
    calls = [tuple(line.split()) for line in (tmp_path / "log").read_text().splitlines()]
    check_each_called_once(calls, count, killed=killed)
    started = [(at_ms, runs[run_id]) for run_id, at_ms in stored_calls(file)]
    assert count - CONCURRENCY <= len(started) <= count
    check_order([call for call in started if call[0] < restarted_ms])
    since = [call for call in started if call[0] >= restarted_ms]
    check_order(since, interrupted=CONCURRENCY if killed else 0)


def wait_for_the_end(app: Process, file: Path, count: int) -> None:
    app.wait_for("all were called")
    deadline = time.monotonic() + 30
    while not ended(file, count):
        assert time.monotonic() < deadline, "every run was called, but not all have ended"
        time.sleep(0.1)


def unique(calls: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(calls))


def check_each_called_once(calls: list[tuple[str, ...]], count: int, *, killed: bool) -> None:
    assert len(unique(calls)) == count
    again = [call for call, times in Counter(calls).items() if times > 1] if killed else []
    # What was under way when the engine died is called again: nobody stored its answer.
    assert len(calls) - count == len(again) <= CONCURRENCY


def stored_calls(file: Path) -> list[tuple[str, int]]:
    """The run of each call and when it began: the order in which calls arrive is the network's."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT run_id, started_ms FROM history WHERE kind = 'call'")
        return rows.fetchall()


def check_order(started: list[tuple[int, int]], *, interrupted: int = 0) -> None:
    """No call began before one that was due earlier; of each is given when it began and was due.

    A new engine leaves those alone for a while that the last one may have under way. They are due
    before all others.
    """
    due = [due_ms for _, due_ms in sorted(started)]
    late = [due_ms for due_ms, latest in zip(due, accumulate(due, max), strict=True)
            if due_ms < latest]  # fmt: skip
    assert len(late) <= interrupted
    assert all(due_ms <= due[0] for due_ms in late)


def test_the_order_check_can_fail() -> None:
    fine = [(n // 10, n) for n in range(200)]
    check_order(fine)
    check_order([*fine, (30, 0)], interrupted=1)
    for late, interrupted in [((30, 0), 0), ((30, 10), 1)]:
        with pytest.raises(AssertionError):
            check_order([*fine, late], interrupted=interrupted)


def test_the_endpoint_answers_what_the_engine_takes_for_a_result() -> None:
    body = APP.split("BODY = b'")[1].split("'\n", maxsplit=1)[0]
    assert json.loads(body)["op"] == "RunComplete"
