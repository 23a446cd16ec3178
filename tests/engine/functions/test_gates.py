"""Concurrency, throttles and priority: which runs are called, when, and in which order."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from stephttp.engine.model.clock import VirtualClock
from tests.engine.functions.queue import Queue, events, gates, lanes
from tests.engine.functions.support import config, planned, register, started, step_run
from tests.engine.support import A, B, World, answer, sleep, world

USER, ORDER = "event.data.user", "event.data.order"


def ns(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    """The data of events."""
    return [{"n": n, **more} for n in numbers]


async def test_no_more_calls_than_a_function_allows_and_their_order() -> None:
    async with world() as w:
        queue = Queue(w)
        await register(w, config("pack", "go", concurrency=[{"limit": 2}]))
        await events(w, *ns(*range(6)))
        await queue.settled()
        assert queue.order == [0, 1]
        assert await lanes(w) == {"concurrency": 4}
        await queue.end(1)
        assert queue.order == [0, 1, 2]
        await events(w, *ns(6))
        await queue.end(0, 2)
        assert queue.order == [0, 1, 2, 3, 4]
        await queue.end(3, 4)
        await queue.end(5, 6)
        assert queue.order == list(range(7))
        assert queue.most == {"pack": 2}
        # What it had to pass goes with a run, and a gate with its last one.
        assert await gates(w) == {}


async def test_each_value_of_a_key_has_a_limit_of_its_own() -> None:
    async with world() as w:
        queue = Queue(w)
        await register(w, config("pack", "go", concurrency=[{"limit": 1, "key": USER}]))
        await events(w, *ns(0, 1, user="u1"), *ns(2, 3, user="u2"), *ns(4, 5), *ns(6, user=None))
        await queue.settled()
        assert queue.order == [0, 2, 4]  # Without a value, all share one.
        await queue.end(2)
        assert queue.order == [0, 2, 4, 3]
        await queue.end(4)
        assert queue.order == [0, 2, 4, 3, 5]
        queue.hold = False
        await queue.end(0, 3, 5)
        await w.engine.idle()
        assert queue.order == [0, 2, 4, 3, 5, 1, 6] or queue.order == [0, 2, 4, 3, 5, 6, 1]


@pytest.mark.parametrize("scope", ["env", "account"])
async def test_functions_share_a_limit_if_its_scope_says_so(scope: str) -> None:
    async with world() as w:
        queue = Queue(w)
        limit = {"limit": 2, "scope": scope, "key": USER}
        await register(
            w,
            config("pack", "go", concurrency=[limit]),
            config("send", "post", concurrency=[limit]),
            config("bill", "pay", concurrency=[{"limit": 2, "key": USER}]),
        )
        await events(w, *ns(0, 1, user="u1"))
        await events(w, *ns(2, user="u1"), *ns(3, user="u2"), name="post")
        await events(w, *ns(4, user="u1"), name="pay")
        await queue.settled()
        assert queue.order == [0, 1, 3, 4]
        await queue.end(0)
        assert queue.calls[-1] == ("send", 2)
        await queue.end(1, 2, 3, 4)


async def test_a_run_needs_room_at_each_of_its_gates() -> None:
    async with world() as w:
        queue = Queue(w)
        limits = [{"limit": 2}, {"limit": 1, "key": USER}]
        await register(w, config("pack", "go", concurrency=limits))
        await events(w, *ns(0, 1, 2, user="u1"), *ns(3, 4, user="u2"), *ns(5, user="u3"))
        await queue.settled()
        assert queue.order == [0, 3]
        await queue.end(0)
        assert queue.order == [0, 3, 1]  # the one whose turn it is
        await queue.end(3)
        assert queue.order == [0, 3, 1, 4]
        await queue.end(4)
        assert queue.order == [0, 3, 1, 4, 5]
        await queue.end(1)
        assert queue.order == [0, 3, 1, 4, 5, 2]
        await queue.end(2, 5)
        assert queue.most == {"pack": 2}
        assert await gates(w) == {}


async def test_a_run_that_sleeps_leaves_its_place_and_comes_before_later_ones() -> None:
    async with world() as w:
        queue = Queue(w)
        queue.answers = {0: [answer([sleep(text="10s")])]}
        await register(w, config("pack", "go", concurrency={"limit": 1}))
        await events(w, *ns(0, 1, 2))
        await queue.settled()
        await queue.end(0)
        assert queue.order == [0, 1]
        w.clock.advance(10)
        await queue.settled()
        assert queue.order == [0, 1]  # It has slept, but there is no room.
        await queue.end(1)
        assert queue.order == [0, 1, 0]  # Its run began first.
        await queue.end(0)
        await queue.end(2)
        assert queue.most == {"pack": 1}


async def test_steps_that_are_called_side_by_side_count_each() -> None:
    async with world() as w:
        queue = Queue(w, hold=False)
        queue.answers = {0: [answer([planned(A), planned(B)]), answer([step_run(A)]),
                             answer([step_run(B)])]}  # fmt: skip
        await register(w, config("pack", "go", concurrency=[{"limit": 1}]))
        (event_id,) = await events(w, *ns(0))
        await w.engine.idle()
        assert len(queue.calls) == 4
        assert queue.most == {"pack": 1}
        assert [run["status"] for run in await started(w, event_id)] == ["Completed"]


async def test_a_throttle_lets_runs_start_one_after_the_other() -> None:
    async with world() as w:
        queue = Queue(w, hold=False)
        throttle = {"limit": 2, "period": "10s"}
        await register(w, config("pack", "go", throttle=throttle))
        await events(w, *ns(*range(6)))
        await w.engine.idle()
        assert queue.order == [0, 1]
        assert await lanes(w) == {"throttle": 4}
        w.clock.advance(4.999)
        await w.engine.idle()
        assert queue.order == [0, 1]
        w.clock.advance(0.001)
        await w.engine.idle()
        assert queue.order == [0, 1, 2]
        w.clock.advance(5)
        await w.engine.idle()
        assert queue.order == [0, 1, 2, 3]
        w.clock.advance(60)
        await w.engine.idle()
        assert queue.order == list(range(6))
        # The throttle goes when it says nothing any more, and another run starts through one.
        await register(w, config("pack", "go", throttle=throttle | {"key": USER}))
        await events(w, *ns(6, user="u1"))
        await w.engine.idle()
        w.clock.advance(60)
        await events(w, *ns(7, user="u2"))
        await w.engine.idle()
        assert await gates(w) == {"throttle": 1}


async def test_a_burst_and_a_key_of_a_throttle() -> None:
    async with world() as w:
        queue = Queue(w, hold=False)
        throttle = {"limit": 1, "period": "1m", "burst": 2, "key": USER}
        await register(w, config("pack", "go", throttle=throttle))
        await events(w, *ns(*range(5), user="u1"), *ns(5, 6, user="u2"))
        await w.engine.idle()
        assert queue.order == [0, 1, 2, 5, 6]
        for number in (3, 4):
            w.clock.advance(60)
            await w.engine.idle()
            assert queue.order[-1] == number


async def test_a_throttle_is_for_the_first_call_alone() -> None:
    async with world() as w:
        queue = Queue(w, hold=False)
        queue.answers = {0: [answer([sleep(text="1s")])]}
        await register(w, config("pack", "go", throttle={"limit": 1, "period": "1h"}))
        await events(w, *ns(0, 1))
        await w.engine.idle()
        w.clock.advance(1)
        await w.engine.idle()
        assert queue.order == [0, 0]


async def test_a_cancelled_run_does_not_use_up_its_turn() -> None:
    async with world() as w:
        queue = Queue(w, hold=False)
        await register(w, config("pack", "go", throttle={"limit": 1, "period": "1m"}))
        ids = await events(w, *ns(0, 1, 2))
        await w.engine.idle()
        (run,) = await started(w, ids[1])
        assert (await w.http.delete(f"/v1/runs/{run['run_id']}")).status_code == 200
        w.clock.advance(60)
        await w.engine.idle()
        assert queue.order == [0, 2]


async def test_priority_moves_runs_by_seconds() -> None:
    async with world() as w:
        queue = Queue(w)
        await register(
            w, config("pack", "go", concurrency={"limit": 1}, priority={"run": "event.data.first"})
        )
        await events(w, *ns(0))
        await queue.settled()
        await events(w, *ns(1, first=0), *ns(2, first=-30), *ns(3, first=60))
        w.clock.advance(50)
        await events(w, *ns(4, first=45), *ns(5, first=120), *ns(6))
        await queue.settled()
        for number in (0, 5, 3, 1, 4, 2, 6):
            assert queue.order[-1] == number
            await queue.end(number)


async def test_priority_counts_where_an_application_has_no_room() -> None:
    async with world(concurrency=2) as w:
        queue = Queue(w)
        await register(w, config("pack", "go", priority={"run": "event.data.first"}))
        await events(w, *ns(0))
        await queue.settled()
        await events(w, *ns(1), *ns(2, first=9))
        await queue.settled()
        await queue.end(0)
        assert queue.order == [0, 2]
        await queue.end(2)
        await queue.end(1)


async def test_limits_follow_what_an_app_registers() -> None:
    async with world() as w:
        queue = Queue(w)
        await register(w, config("pack", "go", concurrency={"limit": 1}))
        await events(w, *ns(*range(8)))
        await queue.settled()
        assert queue.order == [0]
        await register(w, config("pack", "go", concurrency={"limit": 3}))
        await queue.settled()
        assert queue.order == [0, 1, 2]
        await register(w, config("pack", "go", concurrency={"limit": 2}))
        await queue.end(0)
        assert queue.order == [0, 1, 2]
        await queue.end(1)
        assert queue.order == [0, 1, 2, 3]
        await register(w, config("pack", "go"))
        await queue.settled()
        assert queue.order == list(range(8))
        assert await gates(w) == await lanes(w) == {}
        await queue.end(*range(2, 8))


async def test_a_throttle_that_is_changed_opens_sooner() -> None:
    async with world() as w:
        queue = Queue(w, hold=False)
        await register(w, config("pack", "go", throttle={"limit": 1, "period": "1h"}))
        await events(w, *ns(0, 1))
        await w.engine.idle()
        await register(w, config("pack", "go", throttle={"limit": 2, "period": "1h"}))
        w.clock.advance(1800)
        await w.engine.idle()
        assert queue.order == [0, 1]


async def test_what_waits_survives_the_engine(tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "db"
    async with world(clock, path) as w:
        queue = Queue(w)
        await register(
            w,
            config("pack", "go", concurrency={"limit": 2}),
            config("send", "post", throttle={"limit": 1, "period": "1m"}),
        )
        await events(w, *ns(*range(5)))
        await events(w, *ns(10, 11), name="post")
        await queue.settled()
        assert queue.order == [0, 1, 10]
        clock.advance(0.001)
    async with world(clock, path) as w:
        queue = Queue(w)
        # Calls that were under way may still be: until that is over they take up their places.
        await events(w, *ns(5))
        await queue.settled()
        assert queue.calls == []
        clock.advance(1)
        await queue.settled()
        assert sorted(queue.order) == [0, 1, 10]
        await queue.end(0, 1, 10)
        assert queue.order[3:] == [2, 3]
        clock.advance(58)
        await queue.end(2)
        assert queue.order[5:] == [4]
        clock.advance(1)
        await queue.settled()
        assert queue.order[6:] == [11]
        await queue.end(3, 4, 11)
        await queue.end(5)


async def test_a_run_that_is_repeated_passes_the_gates_too() -> None:
    async with world() as w:
        queue = Queue(w)
        await register(w, config("pack", "go", concurrency={"limit": 1, "key": USER}))
        first, _ = await events(w, *ns(0, user="u2"), *ns(1, user="u1"))
        await queue.settled()
        (run,) = await started(w, first)
        again = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/rerun", json={})
        assert again.status_code == 200, again.text
        await queue.settled()
        assert queue.order == [0, 1]
        await queue.end(0)
        assert queue.order == [0, 1, 0]
        await queue.end(0, 1)


async def test_an_application_without_room_does_not_hold_up_a_gate_that_others_share() -> None:
    async with world(concurrency=2) as w:
        queue = Queue(w)
        limit = {"limit": 5, "scope": "env", "key": "'all'"}
        elsewhere = config("send", "post", concurrency=[limit])
        url = elsewhere["steps"]["step"]["runtime"]["url"].replace("app.test", "other.test")
        elsewhere["steps"]["step"]["runtime"]["url"] = url
        await register(w, config("pack", "go", concurrency=[limit]))
        await register(w, elsewhere, appname="other", url="http://other.test/api/inngest")
        await events(w, *ns(0, 1, 2))
        await queue.settled()
        assert queue.order == [0]  # its share
        await events(w, *ns(10), name="post")
        await queue.settled()
        assert queue.order == [0, 10]
        for n in (0, 1, 2):
            await queue.end(n)
        await queue.end(10)


async def test_metrics_count_what_waits_for_a_limit() -> None:
    async with world() as w:
        queue = Queue(w)
        await register(
            w,
            config("pack", "go", concurrency={"limit": 2}),
            config("send", "post", throttle={"limit": 1, "period": "1m", "burst": 1}),
        )
        await events(w, *ns(*range(5)))
        await events(w, *ns(10, 11, 12), name="post")
        await queue.settled()
        metrics = (await w.http.get("/metrics")).text
        assert 'stephttp_timers_at_gates{limit="concurrency"} 3.0' in metrics
        assert 'stephttp_timers_at_gates{limit="throttle"} 1.0' in metrics
        assert 'stephttp_due_timers{kind="resume"} 0.0' in metrics
        assert "stephttp_timers_aside{" not in metrics
        queue.hold = False
        await queue.end(*queue.open)
        w.clock.advance(60)
        await w.engine.idle()


class Claims:
    """Counts the claims of an engine, and what SQLite does in them."""

    def __init__(self, w: World) -> None:
        self._w = w
        self.statements: list[str] = []

    async def __aenter__(self) -> Claims:
        await self._w.engine.store.write(lambda c: c.set_trace_callback(self.statements.append))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._w.engine.store.write(lambda c: c.set_trace_callback(None))

    @property
    def count(self) -> int:
        return sum("kind != 'gateway' AND aside IS NULL AND due_ms <= " in s
                   and s.startswith("SELECT timers.run_id") for s in self.statements)  # fmt: skip


async def work_for_one_end(w: World, queue: Queue) -> tuple[int, int]:
    """Let one call end, and return how many instructions SQLite made of 1,000, and how many
    claims there were."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    def begin(connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(tick, 10)

    async with Claims(w) as claims:
        await w.engine.store.write(begin)
        await queue.end(min(queue.open))
        await w.engine.store.write(lambda c: c.set_progress_handler(None, 0))
    return ticks, claims.count


@pytest.mark.parametrize("keyed", [False, True])
async def test_ten_thousand_runs_that_wait_cost_no_more_than_a_hundred(keyed: bool) -> None:
    """The order is kept, a call that ends costs the same, and nothing is looked at in vain."""
    async with world() as w:
        queue = Queue(w)
        limits: list[dict[str, Any]] = [{"limit": 10}]
        limits += [{"limit": 2, "key": USER}] if keyed else []
        await register(w, config("pack", "go", concurrency=limits))
        taken: list[list[tuple[int, int]]] = []
        sent = 0
        for count in (100, 10_000):
            while sent < count:
                some = range(sent, min(sent + 1_000, count))
                await events(w, *({"n": n, "user": n % 97} for n in some))
                sent = some.stop
            await queue.settled()
            assert sum((await lanes(w)).values()) == count - 10 - len(taken) * 10
            taken.append([await work_for_one_end(w, queue) for _ in range(10)])
        small, large = [sorted(ticks for ticks, _ in ends)[5] for ends in taken]
        assert large < small * 1.5
        assert all(claims <= 2 for ends in taken for _, claims in ends)
        assert queue.order == list(range(30))
        assert queue.most == {"pack": 10}
        async with Claims(w) as claims:
            w.clock.advance(3600)
            await queue.settled()
            await events(w, {"n": 10_000, "user": 1})
            await queue.settled()
        # Only the event was a reason to look.
        assert claims.count <= 2
        queue.hold = False


async def test_what_has_no_gates_leaves_slots_for_what_has() -> None:
    """An application that always has more to do than it has slots for gets round to both."""
    async with world(concurrency=2) as w:
        queue = Queue(w)
        await register(
            w, config("pack", "go", concurrency={"limit": 1}), config("send", "post")
        )  # fmt: skip
        await events(w, *ns(*range(100, 120)), name="post")
        await queue.settled()
        await events(w, *ns(0, 1))
        await queue.settled()
        for _ in range(8):
            await queue.end(*queue.open)
        assert [n for n in queue.order if n < 100] == [0, 1]
        queue.hold = False
        await queue.end(*queue.open)
        await w.engine.idle()


@pytest.mark.parametrize(
    "changed", [{"limit": 100, "period": "1s"}, {"limit": 1, "period": "1s", "burst": 3}]
)
async def test_a_throttle_that_becomes_wider_does_not_stay_shut(changed: dict[str, Any]) -> None:
    async with world() as w:
        queue = Queue(w, hold=False)
        await register(w, config("pack", "go", throttle={"limit": 1, "period": "24h"}))
        await events(w, *ns(0, 1, 2))
        await queue.settled()
        assert queue.order == [0]
        await register(w, config("pack", "go", throttle=changed))
        for _ in range(2):
            await queue.settled()
            w.clock.advance(1)
        await queue.settled()
        assert queue.order == [0, 1, 2]


async def test_a_throttle_opens_although_the_clock_is_set_back() -> None:
    async with world() as w:
        queue = Queue(w, hold=False)
        await register(w, config("pack", "go", throttle={"limit": 1, "period": "10s"}))
        w.clock.advance(86_400 * 365)
        await events(w, *ns(0))
        await queue.settled()
        w.clock.advance(-86_400 * 365)
        await events(w, *ns(1, 2))
        await queue.settled()
        assert queue.order == [0]
        w.clock.advance(10)
        await queue.settled()
        assert queue.order == [0, 1]
        w.clock.advance(10)
        await queue.settled()
        assert queue.order == [0, 1, 2]


async def test_a_function_that_gives_up_a_shared_limit_does_not_open_it_for_others() -> None:
    async with world() as w:
        queue = Queue(w)
        shared = {"limit": 1, "scope": "env", "key": "'api'"}
        await register(
            w,
            config("pack", "go", concurrency=[shared]),
            config("send", "post", concurrency=[shared]),
        )
        await events(w, *ns(0, 1, 2))
        await events(w, *ns(3, 4), name="post")  # the last that has set it
        await queue.settled()
        assert queue.order == [0]
        # Another limit in its place is not that of the others either.
        changed = config("send", "post", concurrency=[{"limit": 5}])
        await register(w, config("pack", "go", concurrency=[shared]), changed)
        await queue.settled()
        assert queue.order == [0, 3, 4]
        await queue.end(0, 3, 4)
        await queue.end(1)
        await queue.end(2)
        assert queue.most == {"pack": 1, "send": 2}
        assert await gates(w) == {}


async def test_limits_that_change_places_stay_what_they_are() -> None:
    async with world() as w:
        queue = Queue(w)
        by_user, by_order = (
            {"limit": 1, "scope": "env", "key": USER},
            {"limit": 3, "scope": "env", "key": ORDER},
        )
        await register(w, config("pack", "go", concurrency=[by_user, by_order]))
        await events(w, *ns(0, 1, 2, user="u1", order="o1"))
        await queue.settled()
        await register(w, config("pack", "go", concurrency=[by_order, by_user]))
        await queue.settled()
        assert queue.order == [0]
        for n in range(3):
            await queue.end(n)
        assert queue.most == {"pack": 1}
