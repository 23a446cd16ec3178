"""Readers of outputs, waiting for runs to end. Woken by the end itself, never by polling."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

FIRST_PHASE = "sync:"
"""Before a run id: who waits for the run to end or to go async, whatever comes first."""


class Waiters:
    """Who waits for which run.

    Begin to wait before looking whether the run has ended: then no end can fall between the
    look and the wait.
    """

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}
        self.released = False
        """Set when the engine stops: nobody shall wait any longer."""

    @contextmanager
    def waiting(self, run_id: str) -> Generator[asyncio.Event]:
        """An event that is set when the run ends."""
        event = asyncio.Event()
        if self.released:
            event.set()
        events = self._events.setdefault(run_id, set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            # After a wake the table may hold a newer set of the same run.
            if not events and self._events.get(run_id) is events:
                del self._events[run_id]

    def wake(self, run_id: str) -> None:
        """The run has ended."""
        # The set leaves the table here, so that a new reader of the same run starts afresh.
        for event in self._events.pop(run_id, ()):
            event.set()

    def release(self) -> None:
        """Let everybody go: the engine stops."""
        self.released = True
        for run_id in list(self._events):
            self.wake(run_id)

    def __len__(self) -> int:
        """How many readers wait."""
        return sum(map(len, self._events.values()))
