"""Wakes those who follow the streams of runs. The streams are in the database."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

from stephttp.engine.live.listed import listed


class Wake(asyncio.Event):
    """Is set whenever the stream of a run, or the run, has changed.

    Attributes:
        run_changed: whether the run has, since this was last set to False. To read how far a
            run has come costs more than to read what was pushed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run_changed = True


class StreamListeners:
    """Those who follow the streams of runs, in the engine's event loop.

    Each of them holds a number, and reads on from there whenever it is woken, as fast as its client
    takes what it sends. So a slow one costs no memory and keeps no other one waiting.
    """

    def __init__(self) -> None:
        self.wakes: dict[str, set[Wake]] = {}
        """By the run that is followed."""
        self.released = False
        """Set when the engine stops: streams end, and their clients come again."""

    def listening(self, run_id: str) -> AbstractContextManager[Wake]:
        """Provide an event that is set whenever the stream, or the run, has changed.

        Clear it before you read, so that nothing is missed.
        """
        return listed(self.wakes, run_id, Wake())

    def wake(self, run_id: str, *, run_changed: bool = True) -> None:
        """Wake those who follow a run, because there may be more to read.

        Args:
            run_changed: not only its stream.
        """
        for wake in self.wakes.get(run_id, ()):
            wake.run_changed |= run_changed
            wake.set()

    def release(self) -> None:
        """Wake all, because the engine stops."""
        self.released = True
        for run_id in self.wakes:
            self.wake(run_id)

    def __len__(self) -> int:
        """Return the number of listeners."""
        return sum(map(len, self.wakes.values()))
