"""Which events have to do with which steps of a run."""

from __future__ import annotations

import sqlite3

from stephttp.engine.store.sql import QUERIES


def link(
    connection: sqlite3.Connection, run_id: str, event_id: str, step_id: str, *, received: bool
) -> None:
    """Remember that a step sent an event, or that its wait was ended by one.

    Args:
        step_id: the step; empty: the event started the run.
    """
    connection.execute(QUERIES["add_link"], (run_id, event_id, step_id, received))
