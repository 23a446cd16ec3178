"""Many runs that wait for a limit: each end of a call costs the same."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.engine.functions.queue import Queue, events, lanes, ns
from tests.engine.functions.support import config, register
from tests.engine.support import World, world

USER = "event.data.user"


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
