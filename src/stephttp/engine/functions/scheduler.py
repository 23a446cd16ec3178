"""Starts functions when their time has come, in the background.

`work.schedules` says how. There is one row for each trigger, and the earliest of them is waited
for, so nothing is polled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from stephttp.engine.background_task import BackgroundTask
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.started import Started
from stephttp.engine.store.store import Store
from stephttp.engine.work import schedules

log = logging.getLogger(__name__)


class Scheduler(BackgroundTask):
    """A task that waits for the next schedule. Wake it when schedules have changed.

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
        super().__init__("schedules", clock)
        self._store = store
        self._moment = moment
        self._follow = follow

    async def _look(self) -> int | None:
        unit = partial(schedules.begin_due, at=self._moment())
        return (await self._store.write(unit, self._follow_due)).next_due_ms

    def _follow_due(self, due: schedules.DueSchedules) -> None:
        self._follow(due.started)
        for schedule, why in due.unreadable:
            log_event(
                log, logging.ERROR, "schedule.unreadable", "trying again later",
                function=schedule.fn_id, cron=schedule.cron, error=why,
            )  # fmt: skip
