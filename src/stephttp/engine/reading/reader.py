"""`engine.reader`: the functions of this package, for async code."""

from __future__ import annotations

import time
from functools import partial

from stephttp.engine.model.clock import Clock
from stephttp.engine.reading.endpoints import (
    EndpointRow,
    latest_endpoints,
    list_endpoints,
    waiting_by_origin,
)
from stephttp.engine.reading.event_list import (
    EventDetail,
    EventFilter,
    EventRow,
    event_detail,
    list_events,
)
from stephttp.engine.reading.function_detail import FunctionDetail, function_detail
from stephttp.engine.reading.list_filter import Page, Paging, RunFilter
from stephttp.engine.reading.overview import Overview, Period, overview
from stephttp.engine.reading.queues import Queues, queues
from stephttp.engine.reading.run_detail import RunDetail, run_detail
from stephttp.engine.reading.run_list import list_runs
from stephttp.engine.reading.run_outcomes import MOST_BEGUN, RunOutcome, outcome_of, outcomes_of
from stephttp.engine.reading.run_rows import RunRow
from stephttp.engine.reading.scanning import Stop
from stephttp.engine.store.store import Store

LONGEST_SEARCH = 0.15
"""Seconds after which a search for text ends where it is."""


class Reader:
    """Reads for people, in threads of its own.

    Args:
        store: the database.
        clock: gives the time.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def runs(self, wanted: RunFilter, page: Paging) -> Page[RunRow]:
        """Return a part of the list of runs; see `list_runs`.

        Raises:
            Refused: limit or cursor is not valid.
        """
        now_ms = self._clock.now_ms()
        return await self._store.browse(
            lambda connection: list_runs(connection, wanted, page, now_ms, _enough())
        )

    async def run(self, run_id: str) -> RunDetail:
        """Return one run in full.

        Raises:
            Refused: there is no such run.
        """
        unit = partial(run_detail, run_id=run_id, now_ms=self._clock.now_ms())
        return await self._store.browse(unit)

    async def events(self, wanted: EventFilter, page: Paging) -> Page[EventRow]:
        """Return a part of the list of events; see `list_events`.

        Raises:
            Refused: limit or cursor is not valid.
        """
        return await self._store.browse(
            lambda connection: list_events(connection, wanted, page, _enough())
        )

    async def event(self, event_id: str) -> EventDetail:
        """Return one event.

        Raises:
            Refused: there is no such event.
        """
        return await self._store.browse(partial(event_detail, event_id=event_id))

    async def outcome(self, run_id: str) -> RunOutcome:
        """Return what a run ended with.

        Raises:
            Refused: there is no such run.
        """
        return await self._store.browse(partial(outcome_of, run_id=run_id))

    async def outcomes(
        self, event_id: str, after: str = "", most: int = MOST_BEGUN
    ) -> tuple[RunOutcome, ...]:
        """Return runs that an event began; see `outcomes_of`."""
        unit = partial(outcomes_of, event_id=event_id, after=after, most=most)
        return await self._store.browse(unit)

    async def overview(self, period: Period, endpoint: str | None = None) -> Overview:
        """Return the figures of a period; see `overview`."""
        unit = partial(overview, period=period, now_ms=self._clock.now_ms(), endpoint=endpoint)
        return await self._store.browse(unit)

    async def endpoints(self) -> tuple[EndpointRow, ...]:
        """Return all endpoints."""
        return await self._store.browse(list_endpoints)

    async def function(self, name: str) -> FunctionDetail:
        """Return one function, by its id or slug.

        Raises:
            Refused: there is no such function.
        """
        now_ms = self._clock.now_ms()
        return await self._store.browse(
            lambda connection: function_detail(connection, name, now_ms, _enough())
        )

    async def waiting_by_origin(self) -> dict[str, int]:
        """Count the due runs that wait because their application has no room, by its origin."""
        return await self._store.browse(waiting_by_origin)

    async def queues(self) -> Queues:
        """Return what waits behind limits of functions."""
        return await self._store.browse(partial(queues, now_ms=self._clock.now_ms()))

    async def slugs(self, limit: int) -> set[str]:
        """Return the slugs of the endpoints seen last, without counts, which may take a while."""
        latest = await self._store.browse(partial(latest_endpoints, limit=limit))
        return {slug for _, _, slug in latest}


def _enough() -> Stop:
    """Return a function that says whether a search that begins now has taken long enough."""
    # Real time, not the clock's: a person is waiting in front of a screen.
    end = time.perf_counter() + LONGEST_SEARCH
    return lambda: time.perf_counter() >= end
