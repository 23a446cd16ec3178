"""Functions that time starts: when, how often, and what becomes of it if the engine stops or its
clock is set."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp.engine.model.clock import VirtualClock
from tests.engine.functions.support import URL, body_of, config, output, register, returns
from tests.engine.support import World, world

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def at(text: str) -> VirtualClock:
    """A clock that shows a time in UTC, such as `2026-11-29 12:00`."""
    return VirtualClock(_ms(text))


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def timed(id_: str, *crons: str, jitter: str | None = None, **more: Any) -> Any:
    triggers = [{"cron": one, **({"jitter": jitter} if jitter else {})} for one in crons]
    return config(id_, *triggers, **more)


def times(calls: list[httpx2.Request]) -> list[str]:
    """The times that calls were for."""
    events = [body_of(call)["event"] for call in calls]
    return [f"{datetime.fromtimestamp(one['ts'] / 1000, UTC):%d %H:%M:%S}" for one in events]


async def runs(w: World) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = (await w.http.get("/v1/runs")).json()["data"]
    return listed


async def listed(w: World, *, app: str = "shop") -> list[dict[str, Any]]:
    """The triggers of the functions of an app."""
    functions = (await w.http.get(f"/v1/apps/{app}/functions")).json()
    return [trigger for one in functions for trigger in one["triggers"]]


async def change(w: World, statement: str) -> None:
    """Change what is stored, as no request does."""

    def unit(connection: sqlite3.Connection) -> None:
        assert connection.execute(statement).rowcount > 0

    await w.engine.store.write(unit)


async def test_a_function_starts_at_each_of_its_times() -> None:
    async with world(at("2026-11-29 12:00:30"), script=[returns(1), returns(2)]) as w:
        await register(w, timed("shop-tidy", "*/5 * * * *"))
        assert await w.after(4 * MINUTE + 29) == []
        (call,) = await w.after(1)
        body = body_of(call)
        event = body["event"]
        assert (event["name"], event["data"]) == (
            "inngest/scheduled.timer",
            {"cron": "*/5 * * * *"},
        )
        assert event["ts"] == _ms("2026-11-29 12:05")
        assert (event["user"], body["events"]) == ({}, [event])
        assert times(await w.after(5 * MINUTE)) == ["29 12:10:00"]
        assert [output(await w.run(run["run_id"])) for run in await runs(w)] == [2, 1]
        # It is no event that was sent, but the one that began a run.
        assert (await w.http.get("/v1/events")).json()["data"] == []
        sent = (await w.http.get(f"/v1/events/{event['id']}")).json()["data"]
        assert sent["name"] == "inngest/scheduled.timer"


async def test_all_triggers_of_a_function_count() -> None:
    async with world(at("2026-11-29 00:00"), script=[returns(1)] * 3) as w:
        await register(
            w, config("shop-tidy", {"cron": "0 3 * * *"}, {"cron": "0 3 * * sun"}, "tidy")
        )
        assert times(await w.after(3 * HOUR)) == ["29 03:00:00"] * 2
        await w.http.post("/e/key", json={"name": "tidy"})
        await w.engine.idle()
        assert len(w.calls) == 3


async def test_times_that_passed_while_the_engine_was_stopped_start_a_function_once(
    tmp_path: Path,
) -> None:
    clock, path = at("2026-11-29 12:00"), tmp_path / "engine.db"
    async with world(clock, path) as w:
        await register(w, timed("shop-tidy", "0 * * * *"), timed("shop-nightly", "0 0 * * *"))
    clock.advance(5.5 * HOUR)
    async with world(clock, path, script=[returns(1)] * 4) as w:
        await w.engine.idle()
        assert times(w.calls) == ["29 13:00:00"]
        assert times(await w.after(HOUR)) == ["29 18:00:00"]
    async with world(clock, path) as w:
        await w.engine.idle()
        assert w.calls == []


async def test_a_registration_that_changes_nothing_keeps_a_time_that_is_due(tmp_path: Path) -> None:
    clock, path = at("2026-11-29 12:00"), tmp_path / "engine.db"
    both = timed("shop-tidy", "@every 1h"), timed("shop-more", "0 13 * * *")
    async with world(clock, path) as w:
        await register(w, *both)
    clock.advance(1.5 * HOUR)
    async with world(clock, path, script=[returns(1)] * 4) as w:
        await register(w, *both, config("shop-third", "go"))
        await w.engine.idle()
        assert times(w.calls) == ["29 13:00:00"] * 2
        # The hour is counted from its own time, however late the start was.
        assert times(await w.after(0.5 * HOUR)) == ["29 14:00:00"]


async def test_a_changed_expression_counts_from_now_on() -> None:
    async with world(at("2026-11-29 12:00"), script=[returns(1)]) as w:
        await register(w, timed("shop-tidy", "0 13 * * *"))
        await register(w, timed("shop-tidy", "30 12 * * *"))
        assert times(await w.after(HOUR)) == ["29 12:30:00"]
        await register(w, timed("shop-tidy", "30 12 * * *", jitter="1h"))
        (trigger,) = await listed(w)
        assert trigger["jitter"] == "1h"


async def test_functions_that_are_gone_or_refused_are_not_started() -> None:
    async with world(at("2026-11-29 12:00")) as w:
        await register(w, timed("shop-tidy", "* * * * *"), timed("shop-more", "* * * * *"))
        await register(w, timed("shop-tidy", "* * * * *", something={"new": 1}))
        assert await w.after(10 * MINUTE) == []
        await register(w, timed("shop-tidy", "* * * * *"))
        await w.http.delete("/fn/remove", params={"url": URL})
        assert await w.after(10 * MINUTE) == []


async def test_the_times_of_a_paused_function_pass() -> None:
    async with world(at("2026-11-29 12:00"), script=[returns(1)]) as w:
        await register(w, timed("shop-tidy", "* * * * *"))
        assert (await w.http.post("/v1/stephttp/functions/shop-tidy/pause")).status_code == 200
        assert await w.after(10 * MINUTE) == []
        (trigger,) = await listed(w)
        assert "next_at" not in trigger
        assert "next <time" not in (await w.http.get("/apps")).text
        assert (await w.http.post("/v1/stephttp/functions/shop-tidy/resume")).status_code == 200
        assert times(await w.after(MINUTE)) == ["29 12:11:00"]


async def test_a_time_zone_that_is_lost_stops_no_other_function(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with world(at("2026-11-29 12:00"), script=[returns(1)] * 4) as w:
        await register(
            w, timed("shop-here", "0 13 * * *"), timed("shop-there", "TZ=Europe/Paris 0 14 * * *")
        )
        rename = "UPDATE schedules SET cron = replace(cron, '{}', '{}')"
        await change(w, rename.format("Europe/Paris", "Europe/Lost"))
        assert times(await w.after(HOUR)) == ["29 13:00:00"]
        assert "'Europe/Lost' is not a time zone" in caplog.text
        await change(w, rename.format("Europe/Lost", "Europe/Paris"))
        # It was missed, so it comes late, and once.
        assert times(await w.after(HOUR)) == ["29 13:00:00"]
        assert times(await w.after(23 * HOUR)) == ["30 13:00:00"] * 2


async def test_limits_hold_for_starts_by_time() -> None:
    async with world(at("2026-11-29 12:00"), script=[returns(1)] * 3) as w:
        await register(w, timed("shop-tidy", "* * * * *", rateLimit={"limit": 1, "period": "1h"}))
        for _ in range(90):
            await w.after(MINUTE)
        assert times(w.calls) == ["29 12:01:00", "29 13:01:00"]
        gathering = {"maxSize": 3, "timeout": "1h"}
        await register(w, timed("shop-tidy", "* * * * *", batchEvents=gathering))
        for _ in range(3):
            await w.after(MINUTE)
        (event, *others) = body_of(w.calls[-1])["events"]
        assert len(others) == 2
        assert {one["name"] for one in (event, *others)} == {"inngest/scheduled.timer"}


async def test_jitter_spreads_starts_and_leaves_their_times_as_they_are() -> None:
    async with world(at("2026-11-29 12:00"), script=[returns(1)] * 60) as w:
        await register(
            w, *(timed(f"shop-{number}", "0 13 * * *", jitter="60s") for number in range(60))
        )
        assert await w.after(HOUR - 1) == []
        counts = [len(await w.after(20)) for _ in range(4)]
        assert sum(counts) == len(w.calls) == 60
        assert min(counts[:3]) > 10
        assert set(times(w.calls)) == {"29 13:00:00"}
        assert await w.after(HOUR) == []


async def test_jitter_longer_than_the_period_drops_no_time() -> None:
    async with world(at("2026-11-29 12:00"), script=[returns(1)] * 60) as w:
        await register(w, timed("shop-tidy", "* * * * *", jitter="5m"))
        for _ in range(720):
            await w.after(5)
        seen = sorted(times(w.calls))
        assert seen == [f"29 12:{minute:02}:00" for minute in range(1, len(seen) + 1)]
        assert len(seen) >= 55


async def test_a_clock_that_is_set_ahead_brings_one_start() -> None:
    async with world(at("2026-11-29 12:00"), script=[returns(1)] * 2) as w:
        await register(w, timed("shop-tidy", "* * * * *"))
        assert times(await w.after(400 * DAY)) == ["29 12:01:00"]
        assert len(await w.after(MINUTE)) == 1


async def test_a_clock_that_is_set_back_a_little_starts_nothing_twice() -> None:
    async with world(at("2026-11-29 12:00"), script=[returns(1)] * 2) as w:
        await register(w, timed("shop-tidy", "* * * * *"))
        assert times(await w.after(MINUTE)) == ["29 12:01:00"]
        assert await w.after(-2) == []
        assert await w.after(2) == []
        assert times(await w.after(MINUTE)) == ["29 12:02:00"]


class NappingClock(VirtualClock):
    """A clock that ends waits when it is set back, as the naps of the system's clock end."""

    def __init__(self, start_ms: int) -> None:
        super().__init__(start_ms)
        self._naps: set[asyncio.Future[None]] = set()

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        for nap in self._naps:
            nap.set_result(None)
        self._naps.clear()

    async def wait_until(self, due_ms: int | None, wake: asyncio.Event) -> None:
        nap: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._naps.add(nap)
        waiting = asyncio.create_task(super().wait_until(due_ms, wake))
        try:
            await asyncio.wait({nap, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            self._naps.discard(nap)


async def test_a_clock_that_had_been_wrong_does_not_silence_a_function() -> None:
    clock = NappingClock(_ms("2026-11-29 12:00"))
    async with world(clock, script=[returns(1)] * 2) as w:
        await register(w, timed("shop-tidy", "0 13 * * *"))
        assert len(await w.after(365 * DAY)) == 1
        assert await w.after(-365 * DAY) == []
        (trigger,) = await listed(w)
        assert trigger["next_at"] == "2026-11-29T13:00:00.000Z"
        assert times(await w.after(HOUR)) == ["29 13:00:00"]


async def test_the_next_time_is_shown() -> None:
    async with world(at("2026-11-29 12:00")) as w:
        await register(
            w, config("shop-tidy", "go", {"cron": "TZ=Europe/Paris 30 14 * * *", "jitter": "90s"})
        )
        event, time = await listed(w)
        assert event == {"event": "go"}
        next_at = time.pop("next_at")
        assert time == {"cron": "TZ=Europe/Paris 30 14 * * *", "jitter": "1m30s"}
        assert "2026-11-29T13:30:00.000Z" <= next_at <= "2026-11-29T13:31:30.000Z"
        dev = (await w.http.get("/dev")).json()["functions"]
        assert dev[0]["triggers"][1]["next_at"] == next_at
        for path in ("/apps", f"/functions/{dev[0]['id']}"):
            page = (await w.http.get(path)).text
            assert re.search(
                r"TZ=Europe/Paris .{0,80}, next <time datetime=\"2026-11-29T13:3", page
            )
