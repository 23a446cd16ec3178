"""Cancels or reruns many runs: all that a filter finds, in small transactions, so that others need
not wait; or those of an endpoint that start in a span of time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from msgspec import Struct

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Cancellation, Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading.list_filter import RunFilter, RunState
from stephttp.engine.reading.run_list import matching
from stephttp.engine.store.store import Store
from stephttp.engine.work import cancellations
from stephttp.engine.work.interventions import Act, act_on, cancel_open, next_seq, rerun

MOST_RUNS = 10_000
"""Runs that one action can change."""

_PORTION = 50
"""Runs that one transaction changes."""


class Bulk(Struct, frozen=True, forbid_unknown_fields=True):
    """For how many runs an action was done; `more`: it was not done for all, so repeat it."""

    count: int
    more: bool


_OPEN = frozenset({RunState.RUNNING, RunState.WAITING})


class BulkActions:
    """Cancels or reruns many runs.

    Args:
        store: the database.
        moment: returns the present.
        follow: called with the changes of each transaction, once it is committed.
    """

    def __init__(
        self,
        store: Store,
        moment: Callable[[], Moment],
        follow: Callable[[list[Change]], None],
    ) -> None:
        self._store = store
        self._moment = moment
        self._follow = follow

    async def cancel(self, wanted: RunFilter, limit: int = MOST_RUNS) -> Bulk:
        """End runs as cancelled, the newest first; those that have ended stay as they are.

        Raises:
            Refused: the limit is not acceptable.
        """
        states = (wanted.states or _OPEN) & _OPEN
        if not states:
            return Bulk(0, more=False)
        return await self._each(replace(wanted, states=states), limit, cancel_open)

    async def rerun(self, wanted: RunFilter, limit: int = MOST_RUNS) -> Bulk:
        """Run the requests of runs again, the newest first.

        Raises:
            Refused: the limit is not acceptable.
        """
        return await self._each(wanted, limit, rerun)

    async def cancel_started(self, cancellation: Cancellation) -> int:
        """Cancel the runs of an endpoint that started, or will start, in a span of time.

        Returns:
            How many there were.

        Raises:
            Refused: there is no such endpoint.
        """
        unit = partial(cancellations.create, cancellation=cancellation, at=self._moment())
        changes: list[Change] = await self._store.write(unit, self._follow)
        return len(changes)

    async def _each(self, wanted: RunFilter, limit: int, act: Act) -> Bulk:
        if not 1 <= limit <= MOST_RUNS:
            raise Refused(f"limit: {limit} is not a number from 1 to {MOST_RUNS}")
        count = 0
        # Runs that start from now on, such as those that this action starts, are not changed.
        below: int | None = await self._store.read(next_seq)
        while below is not None and count < limit:
            find = partial(
                matching,
                wanted=wanted,
                below=below,
                limit=min(_PORTION, limit - count),
                now_ms=self._moment().now_ms,
            )
            # A search may take a second; in the thread for people no other work waits for it.
            run_ids, below = await self._store.browse(find)
            unit = partial(act_on, run_ids=run_ids, act=act, at=self._moment())
            changes = await self._store.write(unit, self._follow)
            count += len(changes)
        return Bulk(count, more=below is not None)
