"""What people do to runs: run them again, end them, let them go on. See `reruns` and `transitions`.

Each is one transaction; what is done to many runs is done in several, so that nobody else's work
waits long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus

from stephttp.engine import consequences, records, reruns, transitions
from stephttp.engine.happenings import Moment
from stephttp.engine.models import Change, Refused
from stephttp.engine.reading.filters import RunFilter, State
from stephttp.engine.reading.runs import matching
from stephttp.engine.reruns import AS_IT_WAS, Edit
from stephttp.engine.store import Store

MOST_RUNS = 10_000
"""Runs that one order can be for."""

_PORTION = 50
"""Runs that one transaction changes."""

OPEN = frozenset({State.RUNNING, State.WAITING})


@dataclass(frozen=True, slots=True)
class Bulk:
    """What became of an order for many runs.

    Attributes:
        count: runs for which it was done.
        more: there may be others, which it was not done for: repeat it.
    """

    count: int
    more: bool


class Actions:
    """What can be done to runs.

    Args:
        store: the database.
        moment: tells the present.
        follow: is told of every change that was stored.
    """

    def __init__(
        self, store: Store, moment: Callable[[], Moment], follow: Callable[[Change], None]
    ) -> None:
        self._store = store
        self._moment = moment
        self._follow = follow

    async def rerun(self, run_id: str, edit: Edit = AS_IT_WAS) -> str:
        """Run the request of a run again.

        Args:
            run_id: the run; it may go on, too.
            edit: what shall be different, and from which step on.

        Returns:
            The id of the new run.

        Raises:
            Refused: there is no such run, or the edit does not fit it.
        """
        unit = partial(rerun, run_id=run_id, edit=edit, at=self._moment())
        change = await self._store.write(unit, self._follow)
        return change.run.run_id

    async def resume(self, run_id: str, step_id: str | None = None) -> int:
        """Let a run go on now: what it waits for by time is due.

        Args:
            step_id: the one step that shall wait no longer, whatever for; if it is not for a time,
                the wait ends as if it had lasted long enough. `None`: all sleeps, and what has
                failed is tried again.

        Returns:
            How many waits that concerned.

        Raises:
            Refused: there is no such run, or nothing that waits so.
        """
        unit = partial(resume, run_id=run_id, step_id=step_id, at=self._moment())
        change = await self._store.write(unit, self._follow)
        return len(change.timers)

    async def cancel_matching(self, wanted: RunFilter, limit: int = MOST_RUNS) -> Bulk:
        """End runs as cancelled, the newest first.

        Args:
            wanted: which ones; those that have ended stay as they are.
            limit: how many at most.

        Raises:
            Refused: the limit is none.
        """
        states = (wanted.states or OPEN) & OPEN
        if not states:
            return Bulk(0, more=False)
        return await self._each(replace(wanted, states=states), limit, _cancel)

    async def rerun_matching(self, wanted: RunFilter, limit: int = MOST_RUNS) -> Bulk:
        """Run the requests of runs again, the newest first.

        Args:
            wanted: which ones.
            limit: how many at most.

        Raises:
            Refused: the limit is none.
        """
        return await self._each(wanted, limit, rerun)

    async def _each(
        self,
        wanted: RunFilter,
        limit: int,
        act: Callable[[sqlite3.Connection, str, Moment], Change | None],
    ) -> Bulk:
        if not 1 <= limit <= MOST_RUNS:
            raise Refused(f"limit: {limit} is not a number from 1 to {MOST_RUNS}")
        count = 0
        # Runs that begin meanwhile, those of this order among them, are not meant.
        below: int | None = await self._store.read(_next_seq)
        while below is not None and count < limit:
            find = partial(
                matching,
                wanted=wanted,
                below=below,
                limit=min(_PORTION, limit - count),
                now_ms=self._moment().now_ms,
            )
            # A search may take a second, for which nobody else's work shall wait.
            run_ids, below = await self._store.browse(find)
            unit = partial(_portion, run_ids=run_ids, act=act, at=self._moment())
            changes = await self._store.write(unit, self._follow_all)
            count += len(changes)
        return Bulk(count, more=below is not None)

    def _follow_all(self, changes: list[Change]) -> None:
        for change in changes:
            self._follow(change)


def rerun(
    connection: sqlite3.Connection, run_id: str, at: Moment, edit: Edit = AS_IT_WAS
) -> Change:
    """Begin a run with the request of another.

    Raises:
        Refused: there is no such run, or the edit does not fit it.
    """
    new, change = reruns.repeat(records.load_source(connection, run_id), edit, at)
    records.insert(connection, new, change)
    return consequences.begun(connection, new, change, (), at)


def resume(connection: sqlite3.Connection, run_id: str, step_id: str | None, at: Moment) -> Change:
    """Make due what a run waits for.

    Raises:
        Refused: there is no such run, or nothing that waits so.
    """
    snapshot = records.load(connection, run_id)
    change = transitions.hurried(snapshot, step_id, at)
    return consequences.save(connection, change, snapshot.run, (), at)


def _cancel(connection: sqlite3.Connection, run_id: str, at: Moment) -> Change | None:
    change = consequences.cancel(connection, run_id, at)
    return change if change.ended else None


def _portion(
    connection: sqlite3.Connection,
    run_ids: Sequence[str],
    act: Callable[[sqlite3.Connection, str, Moment], Change | None],
    at: Moment,
) -> list[Change]:
    """What was changed; runs that ended or were deleted since they were found are passed over."""
    changes = []
    for run_id in run_ids:
        try:
            change = act(connection, run_id, at)
        except Refused as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            continue
        if change is not None:
            changes.append(change)
    return changes


def _next_seq(connection: sqlite3.Connection) -> int:
    (seq,) = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM runs").fetchone()
    return int(seq)
