"""How time passes in a test: the virtual clock moves to what is due next, also while the
application itself waits.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from stephttp._run.current import current_call
from stephttp._run.runtime import Runtime
from stephttp.engine.engine import Engine
from stephttp.engine.model.clock import VirtualClock
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.settings import LONGEST_LEASE
from stephttp.engine.work.leases import renew

MOST_TURNS = 10_000
"""How often one call of a client moves the clock to the next due time."""
_SHORT_PAUSES = 32
"""How often a pause has its own length, which is more than a minute of looking again."""


class Stuck(AssertionError):
    """A run that a test waits for makes no progress, however much time passes."""


class PassingTime(ABC):
    """The time of an engine whose clock the test moves.

    Attributes:
        clock: the clock.
        runtimes: of the providers of the application.
    """

    clock: VirtualClock
    runtimes: Sequence[Runtime]

    def __init__(self) -> None:
        self._blocked: Counter[str] = Counter()
        """Which runs have a handler that waits for time to pass, and how often; an empty id stands
        for the test."""
        self._pauses: Counter[str] = Counter()
        """How often they have paused to look again."""

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """The engine, while it is at work."""

    @abstractmethod
    def check(self) -> None:
        """Raise what went wrong beside the test."""

    @abstractmethod
    async def settle(self) -> None:
        """Return once everything is done that can be done without letting time pass."""

    @property
    def now(self) -> datetime:
        """What the clock shows."""
        return datetime.fromtimestamp(self.clock.now(), UTC)

    async def next_due(self, without: Collection[str] = ()) -> int | None:
        """Return when the engine has something to do next, in milliseconds since the epoch.

        Args:
            without: runs that do not count.
        """
        left_out = [*without, *self._held]
        return await self.engine.store.read(lambda connection: _next_due(connection, left_out))

    async def turn(self) -> bool:
        """Move the clock to when the engine has something to do next, and let it do that.

        Returns:
            Whether there is such a time.
        """
        due_ms = await self.next_due()
        if due_ms is None:
            return False
        await self._move(due_ms)
        await self.settle()
        return True

    async def advance(self, time: timedelta) -> None:
        """Let time pass; what falls due meanwhile happens at its time.

        Raises:
            TypeError: the time is not a timedelta.
            ValueError: the time is negative.
        """
        if not isinstance(time, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"advance takes a timedelta, such as timedelta(seconds=60), and not {time!r}"
            )
        if time < timedelta(0):
            raise ValueError(f"time runs forward only, not by {time}")
        await self.settle()
        end_ms = self.clock.now_ms() + round(time.total_seconds() * 1000)
        for _ in range(MOST_TURNS):
            due_ms = await self.next_due()
            if due_ms is None or due_ms > end_ms:
                break
            await self.turn()
        else:
            raise Stuck(f"{MOST_TURNS} waits ended in {time}; does a run loop forever?")
        await self._move(end_ms)
        await self.settle()

    async def let_pass(self, seconds: float, run_id: str | None = None) -> None:
        """Let time pass while the application, or the test, waits for something.

        Args:
            seconds: how long it waits at most.
            run_id: the run whose end it waits for; `None`: it only pauses, and looks again then.
        """
        call = current_call.get()
        waiting = "" if call is None else call.run_id
        end_ms = self.clock.now_ms() + round(seconds * 1000)
        self._blocked[waiting] += 1
        self._pauses[waiting] += run_id is None
        # One that looks again and again would do so for as long as its run may wait.
        at_once = run_id is None and self._pauses[waiting] > _SHORT_PAUSES
        try:
            while self.clock.now_ms() < end_ms:
                if run_id is not None:
                    status = await self.status(run_id)
                    if status is None or status.ended:
                        return
                await self._pass_a_while(end_ms, at_once=at_once)
        finally:
            self._blocked[waiting] -= 1

    async def _pass_a_while(self, end_ms: int, *, at_once: bool) -> None:
        """Move the clock to when something is due, unless handlers are at work that do not wait for
        time themselves."""
        blocked = {run_id for run_id, count in self._blocked.items() if count}
        due_ms = await self.next_due(blocked)
        at_work = any(run_id not in blocked for run_id, _ in self.engine.executor.busy)
        if not at_work and (due_ms is None or due_ms > self.clock.now_ms()):
            soonest_ms = end_ms if due_ms is None else due_ms
            await self._move(soonest_ms if at_once else min(soonest_ms, end_ms))
        await asyncio.sleep(0)

    async def _move(self, to_ms: int) -> None:
        """Move the clock, and renew the leases of runs whose first call is not over, as the
        application does all the time."""
        if held := self._held:
            due_ms = to_ms + LONGEST_LEASE
            await self.engine.store.write(partial(renew, run_ids=held, due_ms=due_ms))
        self.clock.advance(max(0, to_ms - self.clock.now_ms()) / 1000)

    @property
    def _held(self) -> list[str]:
        """The runs of which the application holds leases."""
        batches = [runtime.leases.batches().values() for runtime in self.runtimes]
        return [run_id for lengths in batches for run_ids in lengths for run_id in run_ids]

    async def come_after_events(self) -> None:
        """Move the clock by the least there is, if an event came at this very moment: a run that
        starts now starts after it, and does not wait for it."""
        latest_ms = await self.engine.store.read(_latest_event)
        if latest_ms is not None and latest_ms >= self.clock.now_ms():
            self.clock.advance(0.001)

    async def status(self, run_id: str) -> RunStatus | None:
        """Return the status of a run as it is stored; `None` if the engine does not have it."""
        return await self.engine.store.read(lambda connection: _status(connection, run_id))


def _next_due(connection: sqlite3.Connection, without: list[str]) -> int | None:
    query = "SELECT min(due_ms) FROM timers WHERE run_id NOT IN (SELECT value FROM json_each(?))"
    found: int | None = connection.execute(query, (json.dumps(without),)).fetchone()[0]
    return found


def _latest_event(connection: sqlite3.Connection) -> int | None:
    found: int | None = connection.execute("SELECT max(received_ms) FROM events").fetchone()[0]
    return found


def _status(connection: sqlite3.Connection, run_id: str) -> RunStatus | None:
    found = connection.execute("SELECT status FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    return None if found is None else RunStatus(found[0])
