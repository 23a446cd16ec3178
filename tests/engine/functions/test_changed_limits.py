"""Limits of functions that change while runs wait, and engines that start again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stephttp.engine.model.clock import VirtualClock
from tests.engine.functions.queue import Queue, events, gates, lanes, ns
from tests.engine.functions.support import config, register
from tests.engine.support import world

USER, ORDER = "event.data.user", "event.data.order"


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
