"""Origins share the engine's calls: none of them can stop another."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections import Counter, defaultdict

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp.engine.live.slots import MOST_IN_VAIN, Origins, Shares
from stephttp.engine.store import database
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import due
from tests.engine.support import DONE, World, answer, sleep, until, world

SICK, WELL, THIRD = "http://sick.test", "http://well.test", "http://third.test"


def run_id(number: int) -> str:
    return f"01M81KWY4BC292NS2P7Q{number:06d}"


@pytest.mark.parametrize(
    ("total", "shares"),
    [
        (1, [1, 0]),
        (2, [1, 1, 0]),
        (3, [2, 1, 0]),
        (4, [2, 1, 1, 0]),
        (8, [4, 2, 1, 1, 0]),
        (128, [64, 32, 16, 8, 4, 2, 1, 1, 0]),
    ],
)
def test_who_keeps_all_that_it_gets(total: int, shares: list[int]) -> None:
    slots = Shares(total, {})
    got = []
    for number in range(len(shares)):
        count = 0
        while slots.has_room(str(number)):
            slots.take(str(number))
            count += 1
        got.append(count)
    assert got == shares
    assert slots.free == total - sum(shares)


@given(
    st.integers(1, 40),
    st.lists(st.sampled_from("abc"), max_size=60),
    st.sets(st.sampled_from("abc")),
)
def test_no_share_is_exceeded(total: int, wanted: list[str], trying: set[str]) -> None:
    slots, used = Shares(total, {"a": 0}, trying), Counter[str]()
    for origin in wanted:
        if slots.has_room(origin):
            slots.take(origin)
            used[origin] += 1
        assert slots.free == total - used.total()
        assert used[origin] <= (total + 1) // 2
        assert used[origin] <= 1 or origin not in trying
    assert slots.fewest_first(["c", "b", "a"]) == sorted("abc", key=lambda one: (used[one], one))


def test_an_origin_that_gives_no_answers_is_tried_out_until_it_does() -> None:
    origins = Origins()
    for number in range(MOST_IN_VAIN):
        assert origins.trying == frozenset()
        origins.begin(SICK)
        assert origins.used == {SICK: 1}
        origins.heard(SICK, answered=False)
        origins.heard(WELL, answered=number % 2 == 0)
        origins.end(SICK)
    assert origins.trying == {SICK}
    origins.heard(SICK, answered=False)
    assert origins.trying == {SICK}
    origins.heard(SICK, answered=True)
    assert origins.trying == frozenset()
    assert not origins.used


class Apps:
    """Endpoints by origin: those that hang, those that cannot be reached, and others."""

    def __init__(self, w: World) -> None:
        self.open: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.calls: dict[str, list[str]] = defaultdict(list)
        self.hang, self.broken = {SICK}, set[str]()
        self.go_on = asyncio.Event()
        w.reach(httpx2.MockTransport(self._answer))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        origin = f"{request.url.scheme}://{request.url.host}"
        self.calls[origin].append(request.headers["x-run-id"])
        self.open[origin] += 1
        self.most[origin] = max(self.most[origin], self.open[origin])
        try:
            if origin in self.hang:
                await self.go_on.wait()
            if origin in self.broken:
                raise httpx2.ConnectError("refused")
            return answer(DONE)
        finally:
            self.open[origin] -= 1


async def aside(w: World) -> dict[str, int]:
    def read(connection: sqlite3.Connection) -> dict[str, int]:
        query = "SELECT aside, count(*) FROM timers WHERE aside IS NOT NULL GROUP BY aside"
        found: dict[str, int] = dict(connection.execute(query).fetchall())
        return found

    rows: dict[str, int] = await w.engine.store.read(read)
    return rows


async def test_a_hanging_application_does_not_stop_another() -> None:
    async with world(concurrency=8) as w:
        apps = Apps(w)
        for number in range(30):
            await w.post(sleep(text="1s"), run_id=run_id(number), data={"domain": SICK})
        w.clock.advance(1)
        await until(lambda: apps.open[SICK] == 4)
        for number in range(30, 40):
            await w.post(sleep(text="1s"), run_id=run_id(number), data={"domain": WELL})
        w.clock.advance(1)
        await until(lambda: len(apps.calls[WELL]) == 10)
        assert apps.most == {SICK: 4, WELL: apps.most[WELL]}
        metrics = (await w.http.get("/metrics")).text
        assert f'stephttp_timers_aside{{origin="{SICK}"}} 26.0' in metrics
        assert 'stephttp_due_timers{kind="sleep"} 26.0' in metrics
        page = (await w.http.get("/apps")).text
        assert "26 due runs held back: it has its share" in page.replace("&#39;", "'")
        # It recovers: those that were set aside come in their order.
        apps.go_on.set()
        await w.engine.idle()
        assert apps.calls[SICK] == [run_id(number) for number in range(30)]
        assert apps.most[SICK] == 4
        assert await aside(w) == {}


async def test_two_hanging_applications_leave_room_for_a_third() -> None:
    async with world(concurrency=8) as w:
        apps = Apps(w)
        apps.hang = {SICK, THIRD}
        for number in range(20):
            await w.post(
                sleep(text="1s"), run_id=run_id(number), data={"domain": (SICK, THIRD)[number % 2]}
            )
        w.clock.advance(1)
        await until(lambda: sum(apps.open.values()) >= 6)
        await w.post(sleep(text="1s"), run_id=run_id(99), data={"domain": WELL})
        w.clock.advance(1)
        await until(lambda: apps.calls[WELL])
        apps.go_on.set()
        await w.engine.idle()


async def test_what_is_set_aside_survives_the_engine_and_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More is due than one unit of work sets aside, and each timer is set aside once."""
    monkeypatch.setattr(due, "_MOST_ASIDE", 7)
    async with world(concurrency=2) as w:
        apps = Apps(w)
        for number in range(30):
            await w.post(sleep(text="1s"), run_id=run_id(number), data={"domain": SICK})
        await w.post(sleep(text="1s"), run_id=run_id(30), data={"domain": WELL})
        said: list[str] = []
        await w.engine.store.write(lambda c: c.set_trace_callback(said.append))
        w.clock.advance(1)
        await until(lambda: apps.calls[WELL])
        await w.engine.store.write(lambda c: c.set_trace_callback(None))
        assert sum(text.startswith("UPDATE timers SET aside") for text in said) == 29
        assert await aside(w) == {SICK: 29}
        apps.go_on.set()
        await w.engine.idle()
        assert len(apps.calls[SICK]) == 30


async def test_an_unreachable_origin_gets_one_call_at_a_time_until_it_answers() -> None:
    async with world(concurrency=8) as w:
        apps = Apps(w)
        apps.hang, apps.broken = set(), {SICK}
        for number in range(12):
            await w.post(sleep(text=f"{number + 1}s"), run_id=run_id(number), data={"domain": SICK})
        await w.after(5)
        assert w.engine.executor.origins.trying == {SICK}
        apps.hang = {SICK}
        w.clock.advance(60)
        await until(lambda: apps.open[SICK] == 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert apps.open[SICK] == 1
        page = (await w.http.get("/apps")).text
        assert "held back: it gives no answers, and gets one call at a time" in page
        apps.broken.clear()
        apps.hang.clear()
        apps.go_on.set()
        await w.engine.idle()
        assert w.engine.executor.origins.trying == frozenset()
        assert apps.open.total() == 0
        ended = [(await w.run(run_id(number)))["status"] for number in range(12)]
        assert ended == ["Completed"] * 12


PLANS = {
    "due_calls": ["timers_by_due", "sqlite_autoindex_runs_1"],
    "due_http_steps": ["gateway_timers", "sqlite_autoindex_runs_1"],
    "lanes_of_calls": ["timers_aside"],
    "lanes_of_http_steps": ["gateway_timers_aside"],
    "lane_of_calls": ["timers_aside"],
    "lane_of_http_steps": ["gateway_timers_aside"],
    "count_aside": ["timers_aside"],
    "lanes_of_gates": ["timers_aside"],
    "lane_of_gate": ["timers_aside", "sqlite_autoindex_runs_1"],
    "forget_old_gates": ["gates_by_time", "runs_of_gate"],
    "gates_of_function": ["gates_by_function"],
    "latest_run_id": ["sqlite_autoindex_runs_1"],
    "event_waits": ["timers_by_key"],
    "match_keys": ["timers_by_key"],
    "events_before": ["events_by_name", "links_by_event"],
}


@pytest.mark.parametrize("name", PLANS)
def test_no_query_looks_at_what_it_does_not_need(name: str) -> None:
    connection = database.open_for_writing(":memory:")
    names = re.findall(r":(\w+)", QUERIES[name])
    values = dict.fromkeys(names, 1) if names else (1,) * QUERIES[name].count("?")
    plan = connection.execute(f"EXPLAIN QUERY PLAN {QUERIES[name]}", values).fetchall()
    connection.close()
    steps = [detail for *_, detail in plan]
    for index in PLANS[name]:
        assert any(f"INDEX {index} " in step for step in steps), steps
    assert not [
        step for step in steps if step.startswith(("SCAN timers", "SCAN events", "USE TEMP"))
    ]
