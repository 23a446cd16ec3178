"""Delivers events that many runs wait for, in the background, without holding up other writes.

`work.deliveries` says how. Portions that find nothing cost no transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from stephttp.engine.live.tasks import cancelled
from stephttp.engine.logs import log_event
from stephttp.engine.model.change import Change
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import Moment
from stephttp.engine.store.store import Store, StoreClosedError
from stephttp.engine.work import deliveries

log = logging.getLogger(__name__)

_PAUSE = 1.0  # seconds of rest after the store failed


class Deliverer:
    """A task that works on deliveries and catch-ups, one at a time, while there are some.

    Args:
        store: the database.
        clock: the time.
        moment: returns the present, as transitions see it.
        follow: called with the changes of each transaction, once it is committed.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        moment: Callable[[], Moment],
        follow: Callable[[Iterable[Change]], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._moment = moment
        self._follow = follow
        self._wanted = asyncio.Event()
        self._rested = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, with what the last life of the engine has left."""
        self.wake()
        self._task = asyncio.create_task(self._run(), name="stephttp-deliverer")

    async def stop(self) -> None:
        """Stop; the rest is done after the next start."""
        task, self._task = self._task, None
        await cancelled(task)

    def wake(self) -> None:
        """Look for work; call it after the transaction that has left some."""
        self._rested.clear()
        self._wanted.set()

    async def idle(self) -> None:
        """Return once nothing is left to be done."""
        await self._rested.wait()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while (task := await self._store.browse(deliveries.next_task)) is not None:
                    await self._work(task)
            except StoreClosedError:
                return
            except Exception as error:
                log_event(
                    log, logging.ERROR, "delivery.failed", "trying again later", error=str(error)
                )
                await self._clock.wait_for(_PAUSE)
                self._wanted.set()
            if not self._wanted.is_set():
                self._rested.set()

    async def _work(self, task: deliveries.Task) -> None:
        while not task.done:
            await self._store.browse(partial(deliveries.look, task=task))
            while task.found:
                await self._end(task)
                if isinstance(task, deliveries.CatchUp):
                    return
        await self._end(task)

    async def _end(self, task: deliveries.Task) -> None:
        unit = partial(deliveries.end, task=task, at=self._moment())
        await self._store.write(unit, self._follow)
