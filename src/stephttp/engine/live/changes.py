"""Wakes what waits for runs to change, after a commit: callers at output URLs, open pages, `runs
watch`, the alarm.

Nothing is kept for those who come later, and nothing is polled. A listener that is slow gets less
detail, never a queue that grows: changes of one run count once, and if there are too many it is
asked to look at everything again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from stephttp.engine.live.early_parts import EarlyParts
from stephttp.engine.live.listed import listed
from stephttp.engine.live.stream_listeners import StreamListeners
from stephttp.engine.logs import log_event
from stephttp.engine.model.change import Change
from stephttp.engine.model.clock import Alarm
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.settings import Settings
from stephttp.engine.model.started import Started

log = logging.getLogger("stephttp.engine.executor")

MOST_RUNS = 1000
"""Runs whose change waits for a listener."""


@dataclass(frozen=True, slots=True)
class Update:
    """The changes since the last time.

    Attributes:
        run_ids: runs that are new, or have changed.
        events: whether events have come.
        lost: there were more changes than `run_ids` holds; look at everything again.
        over: the engine stops, and there will be no more.
    """

    run_ids: frozenset[str] = frozenset()
    events: bool = False
    lost: bool = False
    over: bool = False

    def __bool__(self) -> bool:
        """Say whether there is anything."""
        return bool(self.run_ids) or self.events or self.lost or self.over


class ChangeListener:
    """Collects changes for one listener.

    Attributes:
        wake: set when there is something to take.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._run_ids: set[str] = set()
        self._events = self._lost = self._over = False

    def put(self, run_ids: Sequence[str] = (), *, events: bool = False, over: bool = False) -> None:
        """Note that something has changed."""
        self._run_ids.update(run_ids)
        if len(self._run_ids) > MOST_RUNS:
            self._run_ids.clear()
            self._lost = True
        self._events = self._events or events
        self._over = self._over or over
        self.wake.set()

    def take(self) -> Update:
        """Return what has changed since the last call, without waiting."""
        run_ids = frozenset() if self._lost else frozenset(self._run_ids)
        changes = Update(run_ids, self._events, self._lost, self._over)
        self._run_ids.clear()
        self._events = self._lost = False
        self.wake.clear()
        return changes

    async def next(self) -> Update:
        """Return what has changed since the last call, as soon as there is anything."""
        while not (changes := self.take()):
            await self.wake.wait()
        return changes


class Changes:
    """Tells listeners which runs have changed. Use it in the engine's event loop."""

    def __init__(self) -> None:
        self.published = 0
        """How often something has changed. Read it before you load a page, and compare it later."""
        self._listeners: set[ChangeListener] = set()
        self._over = False

    @contextmanager
    def listening(self) -> Generator[ChangeListener]:
        """Provide a listener while the block runs."""
        listener = ChangeListener()
        if self._over:
            listener.put(over=True)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def publish(self, run_ids: Sequence[str] = (), *, events: bool = False) -> None:
        """Tell all listeners what has changed, if anything has."""
        if not run_ids and not events:
            return
        self.published += 1
        for listener in self._listeners:
            listener.put(run_ids, events=events)

    def release(self) -> None:
        """End all waits, because the engine stops."""
        self._over = True
        for listener in self._listeners:
            listener.put(over=True)

    def __len__(self) -> int:
        """Return the number of listeners."""
        return len(self._listeners)


FIRST_PHASE = "sync:"
"""Prefix of a run id: to wait until the run ends or becomes async, whatever comes first."""


class Waiters:
    """Wakes requests that wait for one run to end.

    Start to wait first, then look into the database whether the run has ended. In the other order
    the run could end between the look and the wait, and the request would never be woken.
    """

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}
        self.released = False
        """Set when the engine stops: no wait may start any more."""

    def waiting(self, run_id: str) -> AbstractContextManager[asyncio.Event]:
        """Provide an event that is set when the run ends."""
        event = asyncio.Event()
        if self.released:
            event.set()
        return listed(self._events, run_id, event)

    def wake(self, run_id: str) -> None:
        """Wake all that wait for a run, because it has ended."""
        # The set leaves the table here, so that a new reader of the same run gets a new one.
        for event in self._events.pop(run_id, ()):
            event.set()

    def release(self) -> None:
        """End all waits, because the engine stops."""
        self.released = True
        for run_id in list(self._events):
            self.wake(run_id)

    def __len__(self) -> int:
        """Return the number of requests that wait."""
        return sum(map(len, self._events.values()))


class AfterCommit:
    """Counts changes that were stored, and wakes what waits for them.

    Args:
        count: counts one.
        early: what may have come before its run.
    """

    def __init__(
        self,
        waiters: Waiters,
        changes: Changes,
        streams: StreamListeners,
        alarm: Alarm,
        count: Callable[[Change], None],
        early: Sequence[EarlyParts[Any]],
        settings: Settings,
    ) -> None:
        self._waiters = waiters
        self._changes = changes
        self._streams = streams
        self._alarm = alarm
        self._count = count
        self._expected = [(one.run_ids, one.run_began) for one in early]
        self._deadline = settings.run_deadline
        self.looks_back: Callable[[], None] = lambda: None
        """Called if waits and events are still to be matched with each other."""
        self.held: Callable[[int], None] = lambda due_ms: None
        """Called with the time at which held events are due."""
        self.left: Callable[[], None] = lambda: None
        """Called if functions are left in the backlog, to be started."""

    def follow(self, change: Change) -> None:
        """Wake what waits for a change, and count it.

        Call it in the event loop once the change is committed, never before: what is woken looks
        into the database, and must find the change there.
        """
        run = change.run
        self._count(change)
        self._changes.publish((run.run_id,))
        if run.run_id in self._streams.wakes:
            self._streams.wake(run.run_id)
        if change.began is not None:
            for run_ids, began in self._expected:
                if run.run_id in run_ids:
                    began(run.run_id)
            if self._deadline is not None:
                self._alarm.set(change.began.created_ms + round(self._deadline * 1000))
        if change.ended:
            self._waiters.wake(run.run_id)
            if log.isEnabledFor(logging.INFO):
                ended = {"run_id": run.run_id, "status": run.status}
                log_event(log, logging.INFO, "run.end", "run ended", **ended)
        if run.status is not RunStatus.SYNC:
            self._waiters.wake(FIRST_PHASE + run.run_id)
        for timer in change.timers:
            self._alarm.set(timer.due_ms)
        if change.looks_back or change.announced:
            self.looks_back()
        if change.held_ms is not None:
            self.held(change.held_ms)
        if change.announced:
            self.left()
        self.follow_all(change.others)

    def follow_all(self, changes: Iterable[Change]) -> None:
        """Do for several changes what `follow` does."""
        for change in changes:
            self.follow(change)

    def follow_started(self, started: Started) -> None:
        """Do that for what starts of functions have led to."""
        self.follow_all(started.changes)
        if started.held_ms is not None:
            self.held(started.held_ms)
