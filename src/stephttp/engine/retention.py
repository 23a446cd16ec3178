"""`--retain`: deletes runs and events some time after their end, and gives the space of the file
back.

It works in small units of work, so that no request waits long for one.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial

from stephttp.engine.live.tasks import cancelled
from stephttp.engine.logs import log_event
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.settings import Settings
from stephttp.engine.store import database
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.store.store import Store, StoreClosedError

log = logging.getLogger(__name__)

_RUNS = 20
"""How many runs one unit of work deletes."""

_EVENTS = 200
"""How many events one unit of work deletes."""

_PAGES = 64
"""How many pages one unit of work gives back."""

_SPARE_PAGES = 256
"""Free pages that are kept for what comes next (1 MiB)."""


class Retention:
    """A task that sweeps now and then; it does nothing without `retain`.

    Args:
        store: the database.
        clock: the time.
        settings: `retain`, `sweep_interval`, and for how long events must be known.
    """

    def __init__(self, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._retain = settings.retain
        self._interval = settings.sweep_interval
        self._events_for = max(settings.event_dedupe, settings.event_lookback)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start, with a first sweep at once."""
        if self._retain is not None:
            self._task = asyncio.create_task(self._run(self._retain), name="stephttp-retention")

    async def stop(self) -> None:
        """Stop; the rest is deleted after the next start."""
        task, self._task = self._task, None
        await cancelled(task)

    async def sweep(self, retain: float) -> dict[str, int]:
        """Delete what is older than so many seconds, and return how many of each kind."""
        now_ms = self._clock.now_ms()
        before_ms = now_ms - round(retain * 1000)
        events_ms = now_ms - round(max(retain, self._events_for) * 1000)
        deleted = {
            "runs": await self._all(partial(purge, before_ms=before_ms, limit=_RUNS)),
            "events": await self._all(partial(purge_events, before_ms=events_ms, limit=_EVENTS)),
            "cancellations": await self._all(partial(purge_cancellations, before_ms=before_ms)),
        }
        given_back = 0
        while await self._store.write(shrink):
            given_back += 1
        if given_back and self._store.path != database.MEMORY:
            # The file itself becomes smaller when the log is copied into it.
            await asyncio.to_thread(_checkpoint, self._store.path)
        return deleted

    async def _all(self, unit: Callable[[sqlite3.Connection], int]) -> int:
        total = 0
        while count := await self._store.write(unit):
            total += count
        return total

    async def _run(self, retain: float) -> None:
        while True:
            try:
                deleted = await self.sweep(retain)
                if any(deleted.values()):
                    log_event(log, logging.INFO, "retention.swept", "old runs deleted", **deleted)
            except StoreClosedError:
                return
            except Exception as error:
                log_event(
                    log, logging.ERROR, "retention.failed", "trying again later", error=str(error)
                )
            await self._clock.wait_for(self._interval)


def purge(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete up to `limit` runs that ended before a time, with all that belongs to them.

    An endpoint without an id of its own goes with its last run, and what was counted of it since
    the first run: there is one for each path, so for each order and each user.
    """
    found = connection.execute(
        QUERIES["runs_to_purge"], {"before_ms": before_ms, "limit": limit}
    ).fetchall()
    if found:
        values = [{"run_id": run_id, "fn_id": fn_id} for run_id, fn_id in found]
        for (table,) in connection.execute(QUERIES["run_tables"]).fetchall():
            connection.executemany(f'DELETE FROM "{table}" WHERE run_id = :run_id', values)
        connection.executemany(QUERIES["purge_endpoint"], values)
        connection.executemany(QUERIES["purge_endpoint_counts"], values)
    return len(found)


def purge_events(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Delete up to `limit` events that arrived before a time."""
    values = {"before_ms": before_ms, "limit": limit}
    return connection.execute(QUERIES["purge_events"], values).rowcount


def purge_cancellations(connection: sqlite3.Connection, before_ms: int) -> int:
    """Delete the cancellations whose span was over before a time."""
    return connection.execute(QUERIES["purge_cancellations"], (before_ms,)).rowcount


def shrink(connection: sqlite3.Connection) -> bool:
    """Give some free pages back, and return whether there are more."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (mode,) = connection.execute("PRAGMA auto_vacuum").fetchone()
    if free <= _SPARE_PAGES or mode == 0:
        return False
    # One row for each page, and each step frees one: all of them must be read.
    connection.execute(f"PRAGMA incremental_vacuum({_PAGES})").fetchall()
    return True


def _checkpoint(path: str) -> None:
    with closing(database.connect(database.uri(path))) as connection:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
