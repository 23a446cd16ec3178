"""Old runs go, all of them and nothing else, and the file becomes smaller."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from pathlib import Path

import pytest

from stephttp.engine.retention import _EVENTS, _RUNS, purge
from stephttp.engine.store import database
from stephttp.engine.store.sql import QUERIES

from .support import DONE, RUN, World, answer, sleep, step, until, world

DAY = 86_400


async def count(w: World, table: str) -> int:
    def unit(connection: sqlite3.Connection) -> int:
        (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert isinstance(number, int)
        return number

    number: int = await w.engine.store.read(unit)
    return number


async def swept(w: World, left: int) -> None:
    """Let sweeps come round until so many runs are left."""
    while await count(w, "runs") > left:
        w.clock.advance(w.engine.settings.sweep_interval)


def run_id(number: int) -> str:
    return RUN[:-2] + f"{number:02d}"


async def test_ended_runs_go_after_their_time_and_others_stay(tmp_path: Path) -> None:
    async with world(path=tmp_path / "db", retain=7 * DAY, sweep_interval=60.0) as w:
        for number in range(_RUNS + 5):
            await w.post(step(), DONE, run_id=run_id(number))
        await w.post(step(), sleep(text="30d"), run_id=run_id(98))
        await w.post(step(), run_id=run_id(97))
        w.clock.advance(6 * DAY)
        await w.post(step(), DONE, run_id=run_id(99))
        assert await count(w, "runs") == _RUNS + 8
        w.clock.advance(DAY - 60)
        # A sweep has begun, and so has what follows in the queue.
        assert await count(w, "runs") == _RUNS + 8
        w.clock.advance(60)
        await swept(w, 3)
        assert await count(w, "steps") == 1 + 2 + 1 + 0
        for number, status in ((97, 200), (98, 200), (99, 200), (0, 404)):
            assert (await w.http.get(f"/v1/runs/{run_id(number)}")).status_code == status


async def test_without_retain_everything_stays() -> None:
    async with world() as w:
        await w.post(step(), DONE)
        await w.after(1000 * DAY)
        assert await count(w, "runs") == 1
        assert w.engine._retention._task is None


async def test_the_file_becomes_smaller(tmp_path: Path) -> None:
    path = tmp_path / "db"
    body = base64.b64encode(b"x" * 500_000).decode()
    async with world(path=path, retain=60.0, sweep_interval=10.0) as w:
        for number in range(30):
            await w.post(DONE, run_id=run_id(number), data={"body": body})
        w.clock.advance(100)
        await swept(w, 0)
        await until(lambda: path.stat().st_size < 5_000_000)


async def test_readers_of_a_deleted_run_are_told() -> None:
    async with world(retain=60.0, sweep_interval=10.0) as w:
        token = (await w.post(step(), DONE))["token"]
        w.clock.advance(100)
        await swept(w, 0)
        answered = await w.output(token)
        assert answered.status_code == 410
        assert "no longer stored" in answered.text


async def test_a_sweep_that_fails_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(path=tmp_path / "db", retain=60.0, sweep_interval=10.0) as w:
        await w.post(step(), DONE)
        await w.engine.store.write(
            lambda connection: (
                connection.execute(
                    "CREATE TRIGGER no BEFORE DELETE ON runs BEGIN SELECT raise(ABORT, 'no'); END"
                ).rowcount
            )
        )
        w.clock.advance(100)
        while "trying again later error=no" not in caplog.text:
            w.clock.advance(10)
            await asyncio.sleep(0)
        await w.engine.store.write(lambda c: c.execute("DROP TRIGGER no").rowcount)
        await swept(w, 0)


async def test_events_go_when_they_are_too_old_to_be_repeated() -> None:
    async with world(retain=60.0, sweep_interval=10.0, event_dedupe=300.0) as w:
        events = [{"name": "a", "id": f"e{number}"} for number in range(_EVENTS + 5)]
        assert (await w.http.post("/e/key", json=events)).status_code == 200
        w.clock.advance(200)
        assert (await w.http.post("/e/key", json={"name": "b"})).status_code == 200
        assert await count(w, "events") == _EVENTS + 6
        w.clock.advance(101)
        while await count(w, "events") > 1:
            w.clock.advance(1)
        (left,) = (await w.http.get("/v1/events")).json()["data"]
        assert left["name"] == "b"


def test_every_table_of_a_run_is_searched_not_scanned(tmp_path: Path) -> None:
    connection = database.open_for_writing(str(tmp_path / "db"))
    tables = [name for (name,) in connection.execute(QUERIES["run_tables"])]
    assert tables[-1] == "runs"
    assert {"runs", "steps", "timers"} <= set(tables)
    for table in tables:
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN DELETE FROM {table} WHERE run_id = 'x'"
        ).fetchall()
        assert "SEARCH" in plan[0][3], (table, "needs an index on run_id")
    query = QUERIES["runs_to_purge"]
    explained = connection.execute(f"EXPLAIN QUERY PLAN {query}", {"before_ms": 1, "limit": 1})
    assert "runs_by_end" in explained.fetchall()[0][3]
    assert purge(connection, 10**15, 10) == 0
    connection.close()


async def test_a_run_that_ended_by_an_answer_goes_too() -> None:
    script = [answer([DONE])]
    async with world(script=script, retain=60.0, sweep_interval=10.0) as w:
        await w.post(sleep())
        await w.after(5)
        assert (await w.run())["status"] == "Completed"
        w.clock.advance(100)
        await swept(w, 0)
        assert await count(w, "steps") == 0


async def test_endpoints_that_are_only_paths_go_with_their_last_run() -> None:
    async with world(retain=DAY, sweep_interval=60.0) as w:
        for number, data in enumerate(
            ({"path": "/orders/1"}, {"path": "/orders/2"}, {"path": "/orders/3", "fn": "order"})
        ):
            await w.post(step(), DONE, run_id=run_id(number), data=data)
        await w.post(step(), sleep(text="30d"), run_id=run_id(9), data={"path": "/orders/2"})
        assert await count(w, "endpoints") == 3
        w.clock.advance(DAY + 60)
        await swept(w, 1)
        found = await w.engine.store.read(
            lambda connection: connection.execute("SELECT slug FROM endpoints").fetchall()
        )
        assert sorted(found) == [("POST /orders/2",), ("order",)]
        counted = await w.engine.store.read(
            lambda connection: connection.execute(
                "SELECT count(DISTINCT fn_id) FROM counts WHERE width_s = 0"
            ).fetchone()
        )
        assert counted == (2,), "what was counted since the beginning goes with its endpoint"
