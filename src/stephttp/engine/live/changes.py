"""What has changed: told to everybody who looks at runs. Nothing is kept for those who come later.

A listener that is slow gets less detail, never a queue that grows: changes of one run count once,
and if there are too many it is told to look at everything again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

MOST_RUNS = 1000
"""Runs whose change waits for a listener."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since the last time.

    Attributes:
        run_ids: runs that are new, or have changed.
        events: whether events have come.
        lost: there were more changes than are told; look at everything again.
        over: nothing more will be told: the engine stops.
    """

    run_ids: frozenset[str] = frozenset()
    events: bool = False
    lost: bool = False
    over: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.run_ids) or self.events or self.lost or self.over


class Listener:
    """Collects changes for one who listens.

    Attributes:
        wake: set when there is something to take.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._run_ids: set[str] = set()
        self._events = self._lost = self._over = False

    def put(self, run_ids: Sequence[str] = (), *, events: bool = False, over: bool = False) -> None:
        """Something has changed."""
        self._run_ids.update(run_ids)
        if len(self._run_ids) > MOST_RUNS:
            self._run_ids.clear()
            self._lost = True
        self._events = self._events or events
        self._over = self._over or over
        self.wake.set()

    def take(self) -> Changes:
        """What has changed since the last time, at once."""
        run_ids = frozenset() if self._lost else frozenset(self._run_ids)
        changes = Changes(run_ids, self._events, self._lost, self._over)
        self._run_ids.clear()
        self._events = self._lost = False
        self.wake.clear()
        return changes

    async def next(self) -> Changes:
        """The same, as soon as there is anything."""
        while not (changes := self.take()):
            await self.wake.wait()
        return changes


class Feed:
    """Who listens. Use it in the engine's event loop."""

    def __init__(self) -> None:
        self.published = 0
        """How often something has changed; who read this before looking can tell what it missed."""
        self._listeners: set[Listener] = set()
        self._over = False

    @contextmanager
    def listening(self) -> Generator[Listener]:
        """A listener, while the block runs."""
        listener = Listener()
        if self._over:
            listener.put(over=True)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def publish(self, run_ids: Sequence[str] = (), *, events: bool = False) -> None:
        """Tell everybody what has changed, if anything has."""
        if not run_ids and not events:
            return
        self.published += 1
        for listener in self._listeners:
            listener.put(run_ids, events=events)

    def release(self) -> None:
        """Let everybody go: the engine stops."""
        self._over = True
        for listener in self._listeners:
            listener.put(over=True)

    def __len__(self) -> int:
        """How many listen."""
        return len(self._listeners)
