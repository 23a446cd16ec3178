"""Tasks that rest until they are woken, or until something is due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from stephttp.engine.background_task import BackgroundTask
from stephttp.engine.model.clock import SET_BACK_MS, VirtualClock
from stephttp.engine.store.store import StoreClosedError

HOUR_MS = 3_600_000


class Looking(BackgroundTask):
    """Notes when it looks for work; `due` has when there will be more, or what goes wrong."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__("looking", clock)
        self.clock = clock
        self.start_ms = clock.now_ms()
        self.looked: list[int] = []
        self.has_looked = asyncio.Event()
        self.due: list[int | Exception | None] = []

    async def _look(self) -> int | None:
        self.looked.append(self.clock.now_ms() - self.start_ms)
        self.has_looked.set()
        due = self.due.pop(0) if self.due else None
        if isinstance(due, Exception):
            raise due
        return due

    async def after(self, seconds: float) -> list[int]:
        """When it has looked, once so much time has passed, and it rests."""
        self.clock.advance(seconds)
        await asyncio.wait_for(self.idle(), 10)
        return self.looked


@asynccontextmanager
async def looking(*due: int | Exception | None) -> AsyncGenerator[Looking]:
    task = Looking(VirtualClock())
    task.due += due
    task.start()
    try:
        yield task
    finally:
        await task.stop()


async def test_it_looks_at_once_and_when_it_is_woken() -> None:
    async with looking() as task:
        assert await task.after(0) == [0]
        assert await task.after(3600) == [0]
        task.wake()
        task.wake()
        assert not task.rests
        assert await task.after(0) == [0, HOUR_MS]
        assert task.rests


async def test_it_looks_when_something_is_due() -> None:
    start_ms = VirtualClock().now_ms()
    async with looking(start_ms + 2000) as task:
        await task.after(0)
        assert await task.after(1.999) == [0]
        task.expect(start_ms + 9000)  # later than what it knows
        assert await task.after(0.001) == [0, 2000]
        task.expect(start_ms + 9000)
        task.expect(start_ms + 5000)
        assert await task.after(3) == [0, 2000, 5000]
        # What was expected before it looked is in the tables, which it has read.
        assert await task.after(10) == [0, 2000, 5000]


async def test_it_looks_when_the_clock_was_set_back_by_much() -> None:
    start_ms = VirtualClock().now_ms()
    async with looking(start_ms + 5 * HOUR_MS, start_ms + 5 * HOUR_MS) as task:
        await task.after(0)
        assert await task.after(-SET_BACK_MS / 1000) == [0]
        task.clock.advance(-0.001)
        assert not task.rests
        task.expect(start_ms + 4 * HOUR_MS)  # ends its nap, as the real clock does now and then
        assert await task.after(0) == [0, -SET_BACK_MS - 1]


async def test_it_tries_again_when_the_store_has_failed() -> None:
    async with looking(OSError("disk full")) as task:
        await task.has_looked.wait()
        assert not task.rests
        task.clock.advance(0.999)
        assert not task.rests
        assert await task.after(0.001) == [0, 1000]


async def test_it_ends_with_the_store() -> None:
    async with looking(StoreClosedError()) as task:
        await task.has_looked.wait()
        task.wake()
        await task.stop()
        assert task.looked == [0]
