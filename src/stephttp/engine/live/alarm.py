"""Waits until the next timer is due, without polling."""

from __future__ import annotations

import asyncio

from stephttp.engine.model.clock import Clock


class Timers:
    """Knows the earliest time at which something is due, and sleeps until then.

    Whoever stores a timer calls `poke` with its time afterwards.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wake = asyncio.Event()
        self._due_ms: int | None = None

    @property
    def due_now(self) -> bool:
        """Whether something is due, as far as is known here."""
        return self._due_ms is not None and self._due_ms <= self._clock.now_ms()

    def poke(self, due_ms: int) -> None:
        """Something will be due at `due_ms`."""
        if self._due_ms is None or due_ms < self._due_ms:
            self._due_ms = due_ms
            self._wake.set()

    def forget(self) -> None:
        """Call it just before the table is read: what is poked from now on is news."""
        self._due_ms = None
        self._wake.clear()

    async def wait(self) -> None:
        """Return when something is due."""
        while not self.due_now:
            self._wake.clear()
            await self._clock.wait_until(self._due_ms, self._wake)

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        end_ms = self._clock.now_ms() + round(seconds * 1000)
        while self._clock.now_ms() < end_ms:
            await self._clock.wait_until(end_ms, asyncio.Event())
