"""Stores the events about the end of a run of a function, if something is started or ended by them.

What they start and end is looked for later (`backlog`, `deliveries`): conditions take time, which
the transaction that ends a run does not have.
"""

from __future__ import annotations

import sqlite3

from msgspec.structs import asdict

from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.run import Run
from stephttp.engine.rules.functions import run_events
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import backlog, matching


def announce(connection: sqlite3.Connection, run: Run, at: Moment) -> bool:
    """Store the events about the end of a run, and return whether there are any.

    Args:
        run: of a function, as it ended, with its result.
    """
    names = run_events.names_for(run.status)
    listened_to = {name for name in names if _holds(connection, "is_listened_to", name)}
    awaited = {name for name in names if matching.is_awaited(connection, name)}
    wanted = listened_to | awaited
    if not wanted:
        return False
    key = (run.run_id,)
    slug, started_by = connection.execute(QUERIES["function_that_ended"], key).fetchone()
    events = run_events.run_events(run, slug, started_by, wanted, at)
    for event in events:
        values = asdict(event) | {"dedupe_from_ms": at.now_ms, "internal": True}
        _, seq = connection.execute(QUERIES["insert_event"], values).fetchone()
        if event.name in listened_to:
            backlog.add(connection, seq, event.name)
        if event.name in awaited:
            connection.execute(QUERIES["add_delivery"], (seq, event.name))
    return bool(events)


def _holds(connection: sqlite3.Connection, query: str, value: str) -> bool:
    return bool(connection.execute(QUERIES[query], (value,)).fetchone()[0])
