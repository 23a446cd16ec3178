"""Time as an argument: the system's clock, one that tests turn by hand, and an alarm by either."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import Protocol, overload

_LONGEST_NAP = 5.0
"""Seconds. The wall clock can be set, and the loop's clock stands still while a laptop sleeps;
look again now and then."""

SET_BACK_MS = 3_600_000
"""By how much the clock must have been set back for what was worked out with it to be wrong."""


class Clock(Protocol):
    """Gives the engine the time, and lets it wait.

    Points in time are those of the wall clock, which can be set back or ahead. Lengths of time are
    measured by a clock that only runs forward.
    """

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def wait_until(self, due_ms: int | None, wake: asyncio.Event) -> None:
        """Return once `due_ms` is reached (`None`: never) or `wake` is set.

        May return early: look at the time and at `wake` afterwards.
        """
        ...

    def monotonic(self) -> float:
        """Seconds since some point in time."""
        ...

    async def wait_for(self, seconds: float, wake: asyncio.Event | None = None) -> None:
        """Return once so many seconds have passed, or `wake` is set."""
        ...


class SystemClock:
    """The real time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def wait_until(self, due_ms: int | None, wake: asyncio.Event) -> None:
        """See `Clock.wait_until`."""
        if due_ms is None:
            await wake.wait()
            return
        delay = (due_ms - self.now_ms()) / 1000
        if delay > 0:
            await self.wait_for(min(delay, _LONGEST_NAP), wake)

    def monotonic(self) -> float:
        """Seconds since some point in time."""
        return time.monotonic()

    async def wait_for(self, seconds: float, wake: asyncio.Event | None = None) -> None:
        """See `Clock.wait_for`."""
        try:
            async with asyncio.timeout(seconds):
                await (wake or asyncio.Event()).wait()
        except TimeoutError:
            pass


class VirtualClock:
    """A clock that stands still until `advance` is called. Waiting on it costs no real time.

    Args:
        start_ms: the first time it shows, in milliseconds since the epoch.
    """

    def __init__(self, start_ms: int = 1_800_000_000_000) -> None:
        self._now_ms = start_ms
        self._waiting: dict[object, tuple[int, asyncio.Event]] = {}

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self._now_ms

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now_ms / 1000

    def advance(self, seconds: float) -> None:
        """Turn the clock, and wake what is due by then.

        Call it in the thread of the event loop that waits.
        """
        self._now_ms += round(seconds * 1000)
        for due_ms, wake in list(self._waiting.values()):
            if due_ms <= self._now_ms:
                wake.set()

    async def wait_until(self, due_ms: int | None, wake: asyncio.Event) -> None:
        """See `Clock.wait_until`."""
        if due_ms is None:
            await wake.wait()
            return
        if due_ms <= self._now_ms:
            return
        ticket = object()
        self._waiting[ticket] = (due_ms, wake)
        try:
            await wake.wait()
        finally:
            del self._waiting[ticket]

    def monotonic(self) -> float:
        """Seconds since some point in time."""
        return self.now()

    async def wait_for(self, seconds: float, wake: asyncio.Event | None = None) -> None:
        """See `Clock.wait_for`."""
        wake = wake or asyncio.Event()
        end_ms = self._now_ms + round(seconds * 1000)
        while not wake.is_set() and self._now_ms < end_ms:
            await self.wait_until(end_ms, wake)


class Alarm:
    """Knows the earliest time at which a timer is due, and waits until then, without polling.

    It is in step with the table of timers by two rules. After a timer was stored, its time is set
    here (`set`). And before the table is read, what is known here is cleared (`clear`): a time that
    is set from then on may belong to a timer that the reading did not see.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wake = asyncio.Event()
        self._due_ms: int | None = None

    @property
    def due_now(self) -> bool:
        """Say whether a timer is due, as far as is known here."""
        return self._due_ms is not None and self._due_ms <= self._clock.now_ms()

    def set(self, due_ms: int) -> None:
        """Note that a timer is due at `due_ms`."""
        if self._due_ms is None or due_ms < self._due_ms:
            self._due_ms = due_ms
            self._wake.set()
        elif self.due_now:  # the wall clock was set ahead
            self._wake.set()

    def clear(self) -> None:
        """Forget the earliest time; call it just before the table is read."""
        self._due_ms = None
        self._wake.clear()

    async def wait(self) -> None:
        """Return when a timer is due."""
        while not self.due_now:
            self._wake.clear()
            await self._clock.wait_until(self._due_ms, self._wake)


@overload
def rfc3339(ms: int) -> str: ...


@overload
def rfc3339(ms: int | None) -> str | None: ...


def rfc3339(ms: int | None) -> str | None:
    """Milliseconds since the epoch as the API writes times; `None` stays `None`."""
    if ms is None:
        return None
    when = datetime(1970, 1, 1) + timedelta(milliseconds=ms)  # noqa: DTZ001 - UTC, written as Z
    return when.isoformat(timespec="milliseconds") + "Z"
