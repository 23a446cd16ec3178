"""The functions of all apps: registered, removed, started by events and by name; and the tasks that
start them in the background.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from stephttp.engine.background_task import BackgroundTask
from stephttp.engine.functions.backlog_starter import BacklogStarter
from stephttp.engine.functions.held_starter import HeldStarter
from stephttp.engine.functions.scheduler import Scheduler
from stephttp.engine.live.changes import AfterCommit
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.function import Function, Registration
from stephttp.engine.model.function_start import (
    NO_STARTS,
    PlannedStarts,
    Start,
    StartingEvent,
)
from stephttp.engine.model.inputs import EventArrival, Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.outbound.egress import Egress
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.functions import planning, registration
from stephttp.engine.rules.functions.triggers import Triggers
from stephttp.engine.store.function_rows import is_known, load_functions
from stephttp.engine.store.store import Store
from stephttp.engine.work import registered_functions
from stephttp.engine.work.backlog import MOST_AT_ONCE
from stephttp.engine.work.registered_functions import Registered

log = logging.getLogger(__name__)


class Functions:
    """Knows which functions there are. It lives in the engine's event loop.

    Args:
        store: the database.
        moment: returns the present, as transitions see it.
        clock: the time.
        after: follows changes of runs, once they are committed; what it hands on is started here.
        egress: knows which origins may be called.
        limits_changed: called when functions may have other limits than before.

    Attributes:
        triggers: what events start; what an event costs that starts nothing is a look here.
        backlog: the task that starts functions of events in the backlog.
        tasks: all that start functions in the background.
    """

    def __init__(
        self,
        store: Store,
        moment: Callable[[], Moment],
        clock: Clock,
        after: AfterCommit,
        egress: Egress,
        limits_changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._moment = moment
        self._after = after
        self._egress = egress
        self._limits_changed = limits_changed
        self.triggers = Triggers()
        self._matching = asyncio.Lock()
        self.backlog = BacklogStarter(store, self.started_by, clock, moment, after.follow_started)
        held = HeldStarter(store, clock, moment, after.follow_started)
        self._scheduler = Scheduler(store, clock, moment, after.follow_started)
        self.tasks: Sequence[BackgroundTask] = (self.backlog, held, self._scheduler)
        after.left, after.held = self.backlog.wake, held.expect

    async def load(self) -> None:
        """Learn what was registered in earlier lives of the engine."""
        self._know(await self._store.read(load_functions))

    async def register(self, said: Registration) -> bool:
        """Store an app with its functions, in place of what it had.

        Returns:
            Whether anything has changed.

        Raises:
            Refused: the engine may not call it.
        """
        origins = {one.endpoint.domain for one in said.functions if one.endpoint.domain}
        for origin in origins:
            forbidden = self._egress.refuse_origin(origin)
            if forbidden:
                raise Refused(f"functions: {forbidden}", 403)
        if await self._store.read(partial(is_known, registration=said)):
            return False  # as most pings find
        unit = partial(registered_functions.register, registration=said, at=self._moment())
        registered = await self._store.write(unit, self._follow)
        if registered.modified:
            _log(said)
        return registered.modified

    async def remove(self, url: str) -> bool:
        """Forget the app at an address, and return whether there was one."""
        unit = partial(registered_functions.remove, url=url, at=self._moment())
        return (await self._store.write(unit, self._follow)).modified

    async def set_paused(self, name: str, *, paused: bool) -> bool:
        """Pause a function, or resume it, and return whether that has changed anything.

        Args:
            name: its id or slug.

        Raises:
            Refused: there is no such function.
        """
        unit = partial(registered_functions.set_paused, name=name, paused=paused, at=self._moment())
        modified = (await self._store.write(unit, self._follow)).modified
        if modified:
            event, message = ("function.paused", "nothing starts this function for now")
            if not paused:
                event, message = ("function.resumed", "this function is started again")
            log_event(log, logging.INFO, event, message, function=name)
        return modified

    async def invoke(self, name: str, event: StartingEvent) -> str | None:
        """Start one function with an event for it alone.

        Args:
            name: its id or slug.

        Returns:
            The id of the run; `None` if none has started yet.

        Raises:
            Refused: there is no such function, or it cannot be started.
        """
        unit = partial(registered_functions.invoke, name=name, event=event, at=self._moment())
        started = await self._store.write(unit, self._after.follow_started)
        began = (one.began for one in started.changes)
        return next((new.run_id for new in began if new is not None), None)

    async def started_by(self, received: Sequence[EventArrival]) -> PlannedStarts:
        """Return what events start, as far as one transaction may start it.

        Conditions may take some time, for thousands of events more than others can wait. So they
        are evaluated in a thread, for one request after the other, before events are stored.
        """
        triggers = self.triggers
        if not triggers:
            return NO_STARTS
        found = partial(_started_by, triggers, received, self._moment().now_ms)
        if not any(triggers.looks_into(event.name) for event in received):
            return found()
        async with self._matching:
            return await asyncio.to_thread(found)

    def _follow(self, registered: Registered) -> None:
        if registered.modified:
            self._know(registered.functions)
            self._limits_changed()
            self._scheduler.wake()

    def _know(self, known: list[Function]) -> None:
        self.triggers = Triggers(known)


async def read_registration(body: bytes, sdk: str) -> Registration:
    """Read a registration; see `registration.read`. Its conditions may take a while, so that is
    done in a thread."""
    return await asyncio.to_thread(registration.read, body, sdk)


def _started_by(triggers: Triggers, received: Sequence[EventArrival], now_ms: int) -> PlannedStarts:
    started: dict[str, list[Start]] = {}
    later: set[str] = set()
    count = 0
    for event in received:
        if count >= MOST_AT_ONCE:
            if triggers.may_start(event.name):
                later.add(event.event_id)
            continue
        content = expressions.read_event(event.body) if triggers.looks_into(event.name) else None
        if functions := triggers.started_by(event.name, content, now_ms):
            first = StartingEvent(event.event_id, event.name, event.ts, event.body)
            starts = [planning.plan(function, first, content, now_ms) for function in functions]
            started[event.event_id] = starts
            count += len(starts)
    return PlannedStarts(started, frozenset(later))


def _log(said: Registration) -> None:
    app, some = said.app, said.functions
    url = app.url.partition("?")[0]  # queries may hold what opens a site
    log_event(
        log, logging.INFO, "app.registered", "app registered", app=app.name, url=url,
        functions=len(some), sdk=app.sdk,
    )  # fmt: skip
    for one in some:
        if one.endpoint.refused is not None:
            log_event(
                log, logging.WARNING, "function.refused", "this function is not started",
                app=app.name, function=one.endpoint.slug, reason=one.endpoint.refused,
            )  # fmt: skip
