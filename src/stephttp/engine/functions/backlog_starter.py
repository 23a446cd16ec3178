"""Starts the functions of events in the backlog, in the background; `work.backlog` says how."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from stephttp.engine.background_task import BackgroundTask
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.function_start import PlannedStarts
from stephttp.engine.model.inputs import EventArrival, Moment
from stephttp.engine.model.started import Started
from stephttp.engine.store.store import Store
from stephttp.engine.work import backlog, registered_functions


class BacklogStarter(BackgroundTask):
    """A task that works on the backlog, portion by portion, while there is one.

    Args:
        store: the database.
        plan: returns what events start, as far as one transaction may start it.
        clock: the time.
        moment: returns the present, as transitions see it.
        follow: called with what each transaction has started, once it is committed.
    """

    def __init__(
        self,
        store: Store,
        plan: Callable[[Sequence[EventArrival]], Awaitable[PlannedStarts]],
        clock: Clock,
        moment: Callable[[], Moment],
        follow: Callable[[Started], None],
    ) -> None:
        super().__init__("backlog", clock)
        self._store = store
        self._plan = plan
        self._moment = moment
        self._follow = follow

    async def _look(self) -> None:
        while portion := await self._store.browse(backlog.first_portion):
            planned = await self._plan([one.event for one in portion])
            unit = partial(
                registered_functions.start_portion,
                portion=portion,
                planned=planned,
                at=self._moment(),
            )
            await self._store.write(unit, self._follow)
