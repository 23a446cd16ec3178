"""Cancelling all runs of a function that began in a span of time, also those that begin later."""

from __future__ import annotations

import sqlite3

from msgspec.structs import asdict

from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.run import Cancellation, Change, Refused
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work.save import cancel, started_by


def create(connection: sqlite3.Connection, cancellation: Cancellation, at: Moment) -> list[Change]:
    """Keep the order, and cancel the runs that it is for.

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
        if started_by(connection, run_id, cancellation.condition)
    ]


def delete(connection: sqlite3.Connection, cancellation_id: str) -> None:
    """Forget the order; what was cancelled stays so.

    Raises:
        Refused: there is no such order.
    """
    if not connection.execute(QUERIES["delete_cancellation"], (cancellation_id,)).rowcount:
        raise Refused(f"id: there is no cancellation {cancellation_id[:64]}", 404)
