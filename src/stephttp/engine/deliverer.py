"""Delivers events that many runs wait for, in the background, without holding up other writes.

`work.deliveries` says how. Portions that find nothing cost no transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from stephttp.engine.background_task import BackgroundTask
from stephttp.engine.model.change import Change
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import Moment
from stephttp.engine.store.store import Store
from stephttp.engine.work import deliveries


class Deliverer(BackgroundTask):
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
        super().__init__("delivery", clock)
        self._store = store
        self._moment = moment
        self._follow = follow

    async def _look(self) -> None:
        while (task := await self._store.browse(deliveries.next_task)) is not None:
            await self._do(task)

    async def _do(self, task: deliveries.Task) -> None:
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
