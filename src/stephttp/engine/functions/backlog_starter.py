"""Starts the functions of events in the backlog, in the background; `work.backlog` says how."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from stephttp.engine.functions.registry import Functions
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.inputs import Moment
from stephttp.engine.store.store import Store
from stephttp.engine.woken_task import WokenTask
from stephttp.engine.work import backlog, registered_functions
from stephttp.engine.work.save import Started


class BacklogStarter(WokenTask):
    """A task that works on the backlog, portion by portion, while there is one.

    Args:
        store: the database.
        functions: what events start.
        clock: the time.
        moment: returns the present, as transitions see it.
        follow: called with what each transaction has started, once it is committed.
    """

    def __init__(
        self,
        store: Store,
        functions: Functions,
        clock: Clock,
        moment: Callable[[], Moment],
        follow: Callable[[Started], None],
    ) -> None:
        super().__init__("backlog", self._start_all, clock)
        self._store = store
        self._functions = functions
        self._moment = moment
        self._follow = follow

    async def _start_all(self) -> None:
        while portion := await self._store.browse(backlog.first_portion):
            planned = await self._functions.started_by([one.event for one in portion])
            unit = partial(
                registered_functions.start_portion,
                portion=portion,
                planned=planned,
                at=self._moment(),
            )
            await self._store.write(unit, self._follow)
