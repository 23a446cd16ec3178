"""Cancels all runs of a function that start in a period, in the past or later (bulk
cancellation).
"""

from __future__ import annotations

import sqlite3

from msgspec.structs import asdict

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Cancellation, Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work.save import cancel, started_by


def create(connection: sqlite3.Connection, cancellation: Cancellation, at: Moment) -> list[Change]:
    """Store a cancellation, and cancel the runs that match it now.

    Raises:
        Refused: there is no such function.
    """
    names = {"id": cancellation.function, "app": cancellation.app}
    found = connection.execute(QUERIES["endpoint_of_app"], names).fetchone()
    if found is None:
        raise Refused("function not found", 404)
    values = asdict(cancellation) | {"app_id": cancellation.app, "fn_id": found[1]}
    connection.execute(QUERIES["insert_cancellation"], values)
    rows = connection.execute(QUERIES["runs_to_cancel"], values).fetchall()
    return [
        cancel(connection, run_id, at)
        for (run_id,) in rows
        if started_by(connection, run_id, cancellation.condition, at.now_ms)
    ]


def delete(connection: sqlite3.Connection, cancellation_id: str) -> None:
    """Delete a cancellation; runs that were cancelled stay so.

    Raises:
        Refused: there is no such cancellation.
    """
    if not connection.execute(QUERIES["delete_cancellation"], (cancellation_id,)).rowcount:
        raise Refused(f"id: there is no cancellation {cancellation_id[:64]}", 404)
