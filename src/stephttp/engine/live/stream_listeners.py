"""Wakes those who follow the streams of runs. What is in the streams is in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager


class StreamListeners:
    """Those who follow the streams of runs, in the engine's event loop.

    Each of them holds a number, and reads on from there whenever it is woken, as fast as its client
    takes what it sends. So a slow one costs no memory and keeps no other one waiting.
    """

    def __init__(self) -> None:
        self.wakes: dict[str, set[asyncio.Event]] = {}
        """By the run that is followed."""
        self.released = False
        """Set when the engine stops: streams end, and their clients come again."""

    @contextmanager
    def listening(self, run_id: str) -> Generator[asyncio.Event]:
        """Provide an event that is set whenever the stream, or the run, has changed.

        Clear it before you read, so that nothing is missed.
        """
        wake = asyncio.Event()
        wakes = self.wakes.setdefault(run_id, set())
        wakes.add(wake)
        try:
            yield wake
        finally:
            wakes.discard(wake)
            if not wakes and self.wakes.get(run_id) is wakes:
                del self.wakes[run_id]

    def wake(self, run_id: str) -> None:
        """Wake those who follow a run, because there may be more to read."""
        for wake in self.wakes.get(run_id, ()):
            wake.set()

    def release(self) -> None:
        """Wake all, because the engine stops."""
        self.released = True
        for run_id in self.wakes:
            self.wake(run_id)

    def __len__(self) -> int:
        """Return the number of listeners."""
        return sum(map(len, self.wakes.values()))
