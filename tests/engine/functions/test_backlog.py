"""One request starts many runs: some at once, the rest in portions, each once."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stephttp.engine.model.clock import VirtualClock
from stephttp.engine.work import backlog
from tests.engine.functions.support import body_of, config, register, returns, send
from tests.engine.support import World, world

MANY = backlog.MOST_AT_ONCE + 60


def events(count: int, name: str = "order/paid", **more: Any) -> list[dict[str, Any]]:
    return [{"name": name, "data": {"n": n}, **more} for n in range(count)]


async def receive(w: World, sent: list[dict[str, Any]]) -> None:
    assert (await w.http.post("/e/key", json=sent)).status_code == 200


async def count(w: World, table: str = "runs") -> int:
    def unit(connection: sqlite3.Connection) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    found: int = await w.engine.store.read(unit)
    return found


async def numbers(w: World) -> list[int]:
    """What runs were started with, in the order in which they were started."""

    def unit(connection: sqlite3.Connection) -> list[int]:
        rows = connection.execute(
            "SELECT events ->> '$[0].data.n' FROM function_runs JOIN runs USING (run_id) "
            "ORDER BY runs.seq"
        )
        return [n for (n,) in rows]

    found: list[int] = await w.engine.store.read(unit)
    return found


async def test_the_rest_follows_in_order(tmp_path: Path) -> None:
    async with world(path=tmp_path / "db") as w:
        await register(w, config("shop-pack", "order/paid"))
        w.engine.drain()  # nothing is called
        await w.engine.functions.backlog.stop()
        await receive(w, events(MANY))
        assert await count(w) == backlog.MOST_AT_ONCE
        assert await count(w, "backlog") == 60
        assert "stephttp_backlog_events 60.0" in (await w.http.get("/metrics")).text
        # A further event of the name comes after them, and one of another name does not wait.
        await register(w, config("b-other", "other"), appname="b", url="http://b.test/x")
        await receive(w, [*events(1), *events(1, "other")])
        assert await count(w) == backlog.MOST_AT_ONCE + 1
        w.engine.functions.backlog.start()
        await w.engine.functions.backlog.idle()
        assert await count(w, "backlog") == 0
        found = await numbers(w)
        assert found == [*range(backlog.MOST_AT_ONCE), 0, *range(backlog.MOST_AT_ONCE, MANY), 0]


async def test_as_many_as_one_transaction_takes_start_at_once() -> None:
    async with world() as w:
        await register(w, config("shop-pack", "order/paid"))
        w.engine.drain()
        await w.engine.functions.backlog.stop()
        await receive(w, [*events(backlog.MOST_AT_ONCE), *events(100, "starts/nothing")])
        assert (await count(w), await count(w, "backlog")) == (backlog.MOST_AT_ONCE, 0)


async def test_an_engine_that_dies_starts_the_rest_in_its_next_life(tmp_path: Path) -> None:
    path, clock = tmp_path / "db", VirtualClock()
    large = {"event": "order/paid", "expression": "event.data.n >= 0"}
    async with world(clock, path) as w:
        await register(w, config("shop-pack", large), config("shop-bill", "order/paid"))
        w.engine.drain()
        await w.engine.functions.backlog.stop()
        await receive(w, events(MANY * 2))
        assert await count(w) == backlog.MOST_AT_ONCE
    for _ in range(2):
        async with world(clock, path) as w:
            w.engine.drain()
            await w.engine.functions.backlog.idle()
            assert await count(w) == MANY * 4
            assert await count(w, "backlog") == 0
            started = await numbers(w)
            assert sorted(started) == sorted([*range(MANY * 2)] * 2)


async def test_a_portion_that_cannot_be_stored_is_started_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world() as w:
        await register(w, config("shop-pack", "order/paid"))
        w.engine.drain()
        await receive(w, events(backlog.MOST_AT_ONCE))
        # Only the rest of the next request is left to the backlog.
        trigger = "CREATE TRIGGER full BEFORE DELETE ON backlog BEGIN SELECT raise(ABORT, 'x'); END"
        await w.engine.store.write(lambda connection: connection.execute(trigger) and None)
        await receive(w, events(MANY))
        while not any("backlog.failed" in str(one.__dict__) for one in caplog.records):
            await w.engine.store.read(lambda connection: None)
        assert await count(w) == backlog.MOST_AT_ONCE * 2
        await w.engine.store.write(
            lambda connection: connection.execute("DROP TRIGGER full") and None
        )
        w.clock.advance(1)
        await w.engine.functions.backlog.idle()
        assert await count(w) == backlog.MOST_AT_ONCE + MANY


async def test_an_event_that_came_before_starts_nothing_also_among_many() -> None:
    async with world() as w:
        await register(w, config("shop-pack", "order/paid"))
        w.engine.drain()
        twice = [*events(MANY), {"name": "order/paid", "data": {"n": -1}, "id": "mine"}] * 2
        await receive(w, twice)
        await w.engine.functions.backlog.idle()
        assert await count(w) == MANY * 2 + 1


async def test_what_is_gone_when_its_turn_comes_is_not_started(tmp_path: Path) -> None:
    async with world(path=tmp_path / "db") as w:
        await register(w, config("shop-pack", "order/paid"))
        w.engine.drain()
        await w.engine.functions.backlog.stop()
        await receive(w, events(MANY))
        await register(w, config("shop-other", "another"))
        w.engine.functions.backlog.start()
        await w.engine.functions.backlog.idle()
        assert (await count(w), await count(w, "backlog")) == (backlog.MOST_AT_ONCE, 0)


async def test_all_of_them_are_called() -> None:
    async with world(script=[returns(1)] * MANY) as w:
        await register(w, config("shop-pack", "order/paid"))
        await receive(w, events(MANY))
        await w.engine.idle()
        assert sorted(body_of(call)["event"]["data"]["n"] for call in w.calls) == [*range(MANY)]


async def test_events_in_the_backlog_are_not_swept_away() -> None:
    async with world(retain=1.0, event_dedupe=0.0) as w:
        await register(w, config("shop-pack", "order/paid"))
        w.engine.drain()
        await w.engine.functions.backlog.stop()
        await receive(w, events(MANY))
        await send_alone(w)
        w.clock.advance(60)
        await w.engine._retention.sweep(1.0)
        assert await count(w, "events") == 60 + 1
        w.engine.functions.backlog.start()
        await w.engine.functions.backlog.idle()
        assert await count(w) == MANY


async def send_alone(w: World) -> None:
    await receive(w, events(1, "the/last"))


async def test_one_event_starts_all_its_functions() -> None:
    async with world(script=[returns(1)] * 300) as w:
        await register(w, *[config(f"shop-{n}", "go") for n in range(300)])
        event_id = await send(w, "go")
        runs = (await w.http.get(f"/v1/events/{event_id}/runs")).json()["data"]
        assert len(runs) == 300
