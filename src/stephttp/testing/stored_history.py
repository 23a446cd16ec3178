"""The history of a run, read from the database of an engine."""

from __future__ import annotations

import sqlite3

import msgspec

from stephttp._version import __version__
from stephttp.engine.api.manage.run_views import run_in_full
from stephttp.engine.reading.run_detail import run_detail
from stephttp.engine.store import due_requests
from stephttp.testing.engine_history import history_of
from stephttp.testing.history import History


def history_in(connection: sqlite3.Connection, run_id: str, now_ms: int) -> History:
    """Return the history of a run in a database, with its secrets.

    Args:
        connection: to the database, in a transaction.
        run_id: the run.
        now_ms: milliseconds since the epoch.

    Raises:
        Refused: there is no such run.
        ConfigurationError: what is stored of it cannot be read.
    """
    full = run_in_full(run_detail(connection, run_id, now_ms))
    state = due_requests.load_state(connection, run_id, pending=True, names=True)
    return history_of(msgspec.json.decode(msgspec.json.encode(full)), state.memos, __version__)
