"""Exactly-once steps, whatever library has the database: the row of a step in `stephttp_steps`, the
error if its function commits, and when its transaction is tried again (deadlocks).

A step's row is written in the transaction of its function, so both are there or neither is. It
holds the result as the step's checkpoint does: JSON, and which members of unions were returned
where JSON does not tell (`stephttp._core.unions`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from inspect import Parameter, Signature, isawaitable, iscoroutinefunction, signature
from typing import Any, NamedTuple

from stephttp._client.flow import carry_out
from stephttp._core.annotations import function_of
from stephttp._core.encoding import choose_types, decode_result, encode_result
from stephttp._run.current import current_call
from stephttp._run.other_runs import other_run
from stephttp._run.places import enclosing_step
from stephttp._run.step_call import StepCall
from stephttp._wire.ids import ulid
from stephttp.errors import UsageError

logger = logging.getLogger("stephttp")

TRIES = 6
"""How often a transaction is tried before its failure is the step's."""

TABLE = "stephttp_steps"

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.5

_SQLSTATES = frozenset({"40001", "40P01"})
"""Serialisation failure, deadlock: PostgreSQL, and others that keep to the standard."""
_MYSQL = frozenset({1020, 1205, 1213})
"""The row has changed since it was read, lock wait timeout, deadlock."""
_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED")


class Row(NamedTuple):
    """What the table holds of a step."""

    result: str
    types: str | None


class CurrentStep:
    """The step whose body the current code is, and its row.

    Args:
        call: the step in this call of the handler.
    """

    def __init__(self, call: StepCall) -> None:
        self._call = call
        self.step_id = call.step.step_id
        self.key = {"run_id": call.scope.run.run_id, "step_hash": call.step.hash}
        """The primary key of its row."""

    def now(self) -> datetime:
        """Return the present time, in UTC."""
        return datetime.fromtimestamp(self._call.scope.now_ns() / 1e9, UTC)

    def row(self, value: Any) -> Row:
        """Return what is stored of a result.

        Raises:
            StepResultError: it cannot be stored.
        """
        conversion = self._call._conversion
        raw, kept = encode_result(value, self.step_id), None
        if conversion.keeps_choices:
            decoded = decode_result(raw, conversion, self.step_id, None, value)
            _, kept = choose_types(value, decoded, raw, conversion, self.step_id)
        return Row(raw.decode(), None if kept is None else kept.decode())

    def value(self, row: Row) -> Any:
        """Return the result of a row, as the step's annotation says."""
        kept = None if row.types is None else row.types.encode()
        return decode_result(row.result.encode(), self._call._conversion, self.step_id, kept)

    def found(self, result: str | None, types: str | None) -> Row:
        """Return a row of the table that was committed.

        Raises:
            UsageError: it has no result: the function committed it by means that no one could see,
                such as the SQL statement COMMIT, and then the process died.
        """
        if result is None:
            raise self.refuse_end()
        return Row(result, types)

    def log_committed(self, error: BaseException) -> None:
        """Log what was raised when the transaction was committed, although it was."""
        logger.warning(
            "stephttp: step %r is committed, and counts as finished; what was raised after the "
            "commit is dropped", self.step_id, exc_info=error,
        )  # fmt: skip

    def refuse_end(self) -> UsageError:
        """Return the error of a function that commits or rolls back by itself."""
        return UsageError(
            f"step {self.step_id!r}: its function committed, rolled back or closed the "
            "transaction itself; the result and the rows would not be stored together. Leave the "
            "end of the transaction to the step: flush instead of committing, raise an exception "
            "to roll back, and use savepoints for parts"
        )


def current_step() -> CurrentStep | None:
    """Return the step whose body the current code is; `None` outside a run.

    Raises:
        UsageError: it is one in a run of another SDK, which keeps results elsewhere.
    """
    call = enclosing_step()
    if call is None and current_call.get() is None and (other := other_run()) is not None:
        other.refuse("transaction", "use step.run, with a function that opens the transaction")
    return None if call is None else CurrentStep(call)


class StepBody:
    """The body of a step that is a transaction, as the step tools see it: with the annotations
    and the signature of the user's function."""

    def __init__(self, fn: Callable[..., Any], own_arguments: int) -> None:
        self.__wrapped__ = function_of(fn)
        self._fn = fn
        self._own_arguments = own_arguments

    @property
    def __signature__(self) -> Signature:
        given: list[Parameter] = list(signature(self._fn).parameters.values())
        return Signature(given[self._own_arguments :])


def is_async(fn: Any) -> bool:
    """Whether a function has to be awaited."""
    while isinstance(fn, partial):
        fn = fn.func
    return iscoroutinefunction(fn) or iscoroutinefunction(type(fn).__call__)


def pauses() -> Iterator[float]:
    """Return the seconds to wait before each further try. They grow, and differ between processes
    that failed together."""
    for number in range(TRIES - 1):
        yield min(_LONGEST_PAUSE, _FIRST_PAUSE * 4**number) * random.uniform(0.5, 1)


def is_transient(error: BaseException | None) -> bool:
    """Whether a transaction that failed with `error` may well succeed if it is tried again.

    Args:
        error: of the driver: psycopg, asyncpg, sqlite3, PyMySQL and others of their kind.
    """
    if error is None:
        return False
    first = error.args[0] if error.args else None
    states = {getattr(error, "sqlstate", None), getattr(error, "pgcode", None)}
    if isinstance(first, str):
        states.add(first)  # pyodbc
    return bool(
        states & _SQLSTATES
        or (isinstance(first, int) and first in _MYSQL)
        or getattr(error, "sqlite_errorname", "").startswith(_SQLITE)
    )


def oldest(older_than: timedelta, now: datetime | None) -> tuple[str, datetime]:
    """Return what rows to delete are before: a run id, and a time.

    Run ids grow with time, so that the primary key leads to old rows. A run may be much older than
    its last step; therefore the time counts, too.

    Raises:
        ValueError: `older_than` is not positive, or `now` has no time zone.
    """
    if older_than <= timedelta():
        raise ValueError(f"older_than must be positive, not {older_than!r}")
    if now is not None and now.tzinfo is None:
        raise ValueError("now needs a time zone; use for example datetime.now(timezone.utc)")
    before = (now or datetime.now(UTC)) - older_than
    return ulid(max(0, int(before.timestamp() * 1000)), 0), before.astimezone(UTC)


Flow = Generator[Any, Any, Any]
"""Work on a database that yields what may have to be awaited."""


def run_blocking(flow: Flow) -> Any:
    """Carry out a flow whose calls block."""
    given: Any = None
    while True:
        try:
            given = flow.send(given)
        except StopIteration as stop:
            return stop.value


async def run_async(flow: Flow) -> Any:
    """Carry out a flow whose calls are awaited."""
    return await carry_out(flow, _awaited, BaseException)


async def _awaited(wanted: Any) -> Any:
    return await wanted if isawaitable(wanted) else wanted
