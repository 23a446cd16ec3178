"""Starts functions when their time has come, in the background.

`work.schedules` says how. There is one row for each trigger, and the earliest of them is waited
for, so nothing is polled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from stephttp.engine.live.tasks import cancelled
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import Moment
from stephttp.engine.rules.functions.scheduling import SET_BACK_MS
from stephttp.engine.store.store import Store, StoreClosedError
from stephttp.engine.work import schedules
from stephttp.engine.work.save import Started

log = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds of rest after the store failed."""


class Scheduler:
    """A task that waits for the next schedule.

    Args:
        store: the database.
        clock: the time.
        moment: returns the present, as transitions see it.
        follow: called with what each transaction has started, once it is committed.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        moment: Callable[[], Moment],
        follow: Callable[[Started], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._moment = moment
        self._follow = follow
        self._wanted = asyncio.Event()
        self._rested = asyncio.Event()
        self._looking = False
        self._looked_ms = 0
        self._due_ms: int | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start; what has become due while the engine was stopped is due now."""
        self.wake()
        self._task = asyncio.create_task(self._run(), name="stephttp-scheduler")

    async def stop(self) -> None:
        """Stop; what becomes due is done after the next start."""
        task, self._task = self._task, None
        await cancelled(task)

    def wake(self) -> None:
        """Look at the schedules; call it after the transaction that has changed them."""
        self._wanted.set()

    @property
    def rests(self) -> bool:
        """Say whether nothing is due."""
        return not (self._looking or self._must_look)

    async def idle(self) -> None:
        """Return once nothing is due."""
        while not self.rests:
            self._rested.clear()
            await self._rested.wait()

    @property
    def _must_look(self) -> bool:
        now_ms = self._clock.now_ms()
        is_due = self._due_ms is not None and self._due_ms <= now_ms
        return is_due or self._wanted.is_set() or now_ms < self._looked_ms - SET_BACK_MS

    async def _run(self) -> None:
        while True:
            self._looking = True
            try:
                await self._look()
            except StoreClosedError:
                return
            except Exception as error:
                log_event(
                    log, logging.ERROR, "schedules.failed", "trying again later", error=str(error)
                )
                await self._clock.wait_for(_PAUSE)
                self.wake()
            self._looking = False
            self._rested.set()
            while not self._must_look:
                await self._clock.wait_until(self._due_ms, self._wanted)

    async def _look(self) -> None:
        # Before the schedules are read: one that changes from now on is looked at once more.
        self._wanted.clear()
        at = self._moment()
        self._looked_ms = at.now_ms
        fired = await self._store.write(partial(schedules.fire, at=at), self._follow_fired)
        self._due_ms = fired.next_due_ms

    def _follow_fired(self, fired: schedules.Fired) -> None:
        self._follow(fired.started)
        for schedule, why in fired.unreadable:
            log_event(
                log, logging.ERROR, "schedule.unreadable", "trying again later",
                function=schedule.fn_id, cron=schedule.cron, error=why,
            )  # fmt: skip
