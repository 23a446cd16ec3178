"""Watches SQLAlchemy's connections, those of sessions and of async engines included: writes,
commits and rollbacks; see `_run.transactions`.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import Pool

from stephttp._run.places import enclosing_step
from stephttp._run.transactions import Transaction, began, breaks

_KEY = "stephttp.transaction"
"""Where the transaction is kept: in the `info` of the database's connection."""


def watch() -> None:
    """Listen to the events of all engines."""
    for name, listener in _ENGINE.items():
        event.listen(Engine, name, cast("Any", listener))
    event.listen(Pool, "checkin", _checked_in)


def transaction_of(connection: Connection) -> Transaction:
    """Return what is known of the transaction on a connection."""
    info = connection.info
    found: Transaction | None = info.get(_KEY)
    if found is None:
        found = info[_KEY] = began(_name(connection))
    return found


def _begin(connection: Connection, *_: Any) -> None:
    earlier: Transaction | None = connection.info.pop(_KEY, None)
    if earlier is not None and earlier.committing:
        earlier.commit()
    transaction_of(connection)


def _executed(connection: Connection, _: Any, statement: str, *__: Any) -> None:
    if enclosing_step() is None:
        # Most statements of an application. Only savepoints matter of them.
        if statement[:2].upper() in ("SA", "RE", "RO"):
            transaction_of(connection).executed(statement)
    elif not _autocommits(connection):
        transaction_of(connection).executed(statement)


def _commit(connection: Connection, *_: Any) -> None:
    # The event comes before the commit. That it has worked shows when the connection is used for
    # something else, or given back; that it has not, by `handle_error`.
    transaction_of(connection).committing = True


def _roll_back(connection: Connection, *_: Any) -> None:
    if connection.closed or connection.invalidated:
        return  # then nothing has committed what was written
    found: Transaction | None = connection.info.pop(_KEY, None)
    if found is not None:
        found.roll_back()


def _error(context: Any) -> None:
    connection = context.connection
    if connection is None or connection.closed or connection.invalidated:
        return
    found: Transaction | None = connection.info.get(_KEY)
    if found is None:
        return
    if found.committing:
        found.roll_back()
    elif breaks(connection.dialect.name) and not _autocommits(connection):
        found.broken = True


def _checked_in(_: Any, record: Any) -> None:
    found: Transaction | None = record.info.pop(_KEY, None)
    if found is None:
        return
    if found.committing:
        found.commit()
    else:
        found.roll_back()  # as the pool does with a connection that it gets back


_ENGINE = {
    "begin": _begin,
    "begin_twophase": _begin,
    "after_cursor_execute": _executed,
    "commit": _commit,
    "commit_twophase": _commit,
    "rollback": _roll_back,
    "rollback_twophase": _roll_back,
    "handle_error": _error,
}


def _name(connection: Connection) -> str:
    url = connection.engine.url
    return f"a transaction of SQLAlchemy on the {url.get_backend_name()} database {url.database!r}"


def _autocommits(connection: Connection) -> bool:
    """Whether each statement is committed at once. Asked after one was executed."""
    adapted = connection.connection
    inside = getattr(adapted.driver_connection, "in_transaction", None)  # SQLite says it itself
    if isinstance(inside, bool):
        return not inside
    options = connection.get_execution_options()
    if "isolation_level" in options:
        return bool(options["isolation_level"] == "AUTOCOMMIT")
    detect = getattr(connection.dialect, "detect_autocommit_setting", None)  # since 2.1
    try:
        return detect is not None and bool(detect(adapted.dbapi_connection))
    except (NotImplementedError, AttributeError):
        return False
