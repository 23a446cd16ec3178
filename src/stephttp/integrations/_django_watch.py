"""Watches the database connections of Django: writes, commits and rollbacks; see
`_run.transactions`.

Django has no signals for commits, and a wrapper of `execute_wrapper` has to be installed in each
thread for each connection. So methods of its base classes are wrapped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from stephttp._run.places import enclosing_step
from stephttp._run.transactions import Transaction, began, breaks

_open: WeakKeyDictionary[BaseDatabaseWrapper, Transaction] = WeakKeyDictionary()


def watch() -> None:
    """Wrap the methods that begin, write, and end transactions."""
    for class_, methods in _WRAPPED.items():
        for name, after in methods.items():
            setattr(class_, name, _followed(getattr(class_, name), after))


def _followed(method: Callable[..., Any], after: Callable[..., None]) -> Callable[..., Any]:
    """Return a method that calls `after`, with the same arguments, if it has not failed."""

    @functools.wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            value = method(self, *args, **kwargs)
        except Exception:
            if isinstance(self, CursorWrapper):
                _failed(self.db)
            raise
        after(self, *args, **kwargs)
        return value

    return wrapper


def _transaction_of(connection: BaseDatabaseWrapper) -> Transaction:
    found = _open.get(connection)
    if found is None:
        found = _open[connection] = began(f"a transaction of Django on {connection.alias!r}")
        if any(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks):
            found.owner = None  # a test case began it, which rolls everything back
    return found


def _autocommit_set(connection: BaseDatabaseWrapper, autocommit: bool, *_: Any, **__: Any) -> None:
    found = _open.pop(connection, None)
    if found is not None:
        found.commit()
    if not autocommit:
        _transaction_of(connection)


def _committed(connection: BaseDatabaseWrapper) -> None:
    found = _open.pop(connection, None)
    if found is not None:
        found.commit()


def _rolled_back(connection: BaseDatabaseWrapper) -> None:
    found = _open.pop(connection, None)
    if found is not None:
        found.roll_back()


def _executed(cursor: CursorWrapper, sql: Any, *_: Any, **__: Any) -> None:
    statement = sql if isinstance(sql, str) else _text(sql, cursor)
    inside = enclosing_step() is not None
    # Most statements of an application are outside of steps. Only savepoints matter of them.
    if inside or statement[:2].upper() in ("SA", "RE", "RO"):
        connection: BaseDatabaseWrapper = cursor.db
        if not connection.autocommit:
            _transaction_of(connection).executed(statement)


def _failed(connection: BaseDatabaseWrapper) -> None:
    found = _open.get(connection)
    if found is not None and breaks(connection.vendor) and not connection.autocommit:
        found.broken = True


def _called(cursor: CursorWrapper, *_: Any, **__: Any) -> None:
    call = enclosing_step()
    connection: BaseDatabaseWrapper = cursor.db
    if call is not None and not connection.autocommit:
        _transaction_of(connection).wrote(call)


def _text(sql: Any, cursor: CursorWrapper) -> str:
    """Return the text of a statement that a driver composes."""
    compose = getattr(sql, "as_string", None)
    return str(sql) if compose is None else str(compose(cursor.cursor))


_WRAPPED: dict[type[Any], dict[str, Callable[..., None]]] = {
    BaseDatabaseWrapper: {
        "set_autocommit": _autocommit_set,
        "commit": _committed,
        "rollback": _rolled_back,
        "close": _rolled_back,
    },
    CursorWrapper: {"execute": _executed, "executemany": _executed, "callproc": _called},
}
