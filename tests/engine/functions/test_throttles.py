"""Throttles: when runs start."""

from __future__ import annotations

from tests.engine.functions.queue import Queue, events, gates, lanes, ns
from tests.engine.functions.support import config, register, started
from tests.engine.support import answer, sleep, world

USER = "event.data.user"


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
