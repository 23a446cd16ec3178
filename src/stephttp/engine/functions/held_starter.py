"""Starts functions whose held events are due (`debounce`, `batchEvents`), in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from stephttp.engine.background_task import BackgroundTask
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.started import Started
from stephttp.engine.store.store import Store
from stephttp.engine.work import due_starts, holding

log = logging.getLogger(__name__)


class HeldStarter(BackgroundTask):
    """A task that waits until held events are due, and starts what they start.

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
        super().__init__("held_starts", clock)
        self._store = store
        self._moment = moment
        self._follow = follow

    async def _look(self) -> int | None:
        while True:
            at = self._moment()
            found, next_ms = await self._store.browse(partial(holding.due, now_ms=at.now_ms))
            if not found:
                return next_ms
            planned = await asyncio.to_thread(due_starts.plan, found, at.now_ms)
            unit = partial(due_starts.begin, planned=planned, at=self._moment())
            started = await self._store.write(unit, self._follow)
            for why, _ in started.refused:
                log_event(
                    log, logging.WARNING, "start.refused", "held events start nothing",
                    reason=why.reason,
                )  # fmt: skip
