"""Concurrency and priority: which runs are called, when, and in which order."""

from __future__ import annotations

import pytest

from tests.engine.functions.queue import Queue, events, gates, lanes, ns
from tests.engine.functions.support import config, planned, register, started, step_run
from tests.engine.support import A, B, answer, sleep, world

USER = "event.data.user"


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
