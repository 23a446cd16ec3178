"""Time as an argument: the system's clock, and one that tests turn by hand."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from typing import Protocol, overload

_LONGEST_NAP = 3600.0
"""Seconds. The event loop's clock stands still while a laptop sleeps; look again now and then."""


class Clock(Protocol):
    """What the engine asks for the time and waits with."""

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
        if delay <= 0:
            return
        try:
            async with asyncio.timeout(min(delay, _LONGEST_NAP)):
                await wake.wait()
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
        """Turn the clock and wake whoever is due by then.

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
