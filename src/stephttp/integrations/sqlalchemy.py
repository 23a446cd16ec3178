"""Exactly-once steps with SQLAlchemy 2: `transaction`, `create_table`, `prune` (docs/databases.md).

from stephttp.integrations.sqlalchemy import create_table, transaction

create_table(engine)

def add_order(session: Session, item: str) -> int: ...

order_id = transaction("add order", sessionmaker(engine), add_order, "a book")
order_id = await transaction("add order", async_sessionmaker(engine), add_order, "a book")
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, overload

from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    delete,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stephttp import step
from stephttp.integrations._sqlalchemy_body import AsyncBody, BlockingBody, new_body, steps_table
from stephttp.integrations._step_rows import oldest
from stephttp.step._options import StepRunner
from stephttp.sync import step as sync_step
from stephttp.sync._options import SyncStepRunner

__all__ = [
    "AsyncTransactions",
    "Transactions",
    "create_table",
    "prune",
    "steps_table",
    "transaction",
    "with_options",
]

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=Session)
A = TypeVar("A", bound=AsyncSession)


def create_table(bind: Engine | Connection) -> None:
    """Create the table `stephttp_steps` if it is not there. With Alembic, let a migration do it.

    Args:
        bind: an engine or a connection; of an async one, `await connection.run_sync(create_table)`.
    """
    steps_table.create(bind, checkfirst=True)


def prune(
    connection: Session | Connection, older_than: timedelta, now: datetime | None = None
) -> int:
    """Delete the rows of old steps. A row is needed until the server knows the step's result, which
    is long before its run has ended; without it, the step would run again.

    Args:
        connection: a session or a connection, whose transaction you commit; of an async one,
            `await session.run_sync(prune, timedelta(days=30))`.
        older_than: the age of the rows. Longer than an outage of the engine, and than the longest
            time between two attempts of a step (24 hours).
        now: the present time; by default that of the clock.

    Returns:
        The number of rows.

    Raises:
        ValueError: `older_than` is not positive, or `now` has no time zone.
    """
    run_id, before = oldest(older_than, now)
    old = steps_table.c.run_id < run_id, steps_table.c.created_at < before
    done = connection.execute(delete(steps_table).where(*old))
    return cast("CursorResult[Any]", done).rowcount


@overload
def transaction(
    step_id: str,
    sessions: Callable[[], A],
    fn: Callable[Concatenate[A, P], Awaitable[T]],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> Coroutine[Any, Any, T]: ...
@overload
def transaction(
    step_id: str,
    sessions: Callable[[], S],
    fn: Callable[Concatenate[S, P], T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T: ...
def transaction(
    step_id: str, sessions: Callable[[], Any], fn: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Run a function as a step whose writes and whose result are stored in one transaction.

    Like `stephttp.step.run`, but exactly once: if the process dies after the commit, and before the
    server knows the result, the next call finds the step's row in `stephttp_steps` and returns its
    result, without running the function.

    The function gets a session with a transaction, which is committed when it returns and rolled
    back when it raises. It uses `session.flush()` and savepoints (`session.begin_nested()`), and
    does not commit. Serialisation failures, deadlocks and lost connections are retried at once, up
    to five times, by running the function again in a new transaction. Other exceptions are the
    step's, as in `step.run`: `stephttp.configure(retries=)` and `NonRetriableError` hold.

    Outside a request that passes through the middleware the function runs in a transaction, and no
    row is stored.

    Args:
        step_id: names the step within the run.
        sessions: makes a session: a `sessionmaker` for `def` handlers, an `async_sessionmaker` for
            `async def` handlers.
        fn: gets the session, then the arguments; an `async def` function with an `AsyncSession`.
            What it returns is stored as the result of `step.run` is.
        *args: for `fn`.
        **kwargs: for `fn`.

    Returns:
        What `fn` returned, in the shape of its return annotation; with an `AsyncSession`, to be
        awaited.

    Raises:
        UsageError: the session is in a transaction already, or `fn` ended the transaction.
        ConfigurationError: there is no table `stephttp_steps`.
        NestedStepError: called inside the body of another step.
        StepError: the step failed for good in an earlier execution.
        Exception: whatever `fn` or the database raised, when no retry is left.
    """
    body = new_body(step_id, sessions, fn)
    run = step.run if isinstance(body, AsyncBody) else sync_step.run
    return run(step_id, body, *args, **kwargs)


class Transactions:
    """`transaction` with options of the step itself, for `def` handlers; see `with_options`."""

    def __init__(self, steps: SyncStepRunner) -> None:
        self._steps = steps

    def transaction(
        self,
        step_id: str,
        sessions: Callable[[], S],
        fn: Callable[Concatenate[S, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function exactly once; see `stephttp.integrations.sqlalchemy.transaction`."""
        return self._steps.run(step_id, BlockingBody(step_id, sessions, fn), *args, **kwargs)


class AsyncTransactions:
    """`transaction` with options of the step itself, for `async def` handlers; see
    `with_options`."""

    def __init__(self, steps: StepRunner) -> None:
        self._steps = steps

    @overload
    async def transaction(
        self,
        step_id: str,
        sessions: Callable[[], A],
        fn: Callable[Concatenate[A, P], Awaitable[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    @overload
    async def transaction(
        self,
        step_id: str,
        sessions: Callable[[], S],
        fn: Callable[Concatenate[S, P], T],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T: ...
    def transaction(
        self,
        step_id: str,
        sessions: Callable[[], Any],
        fn: Callable[..., Any],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Run a function exactly once; see `stephttp.integrations.sqlalchemy.transaction`."""
        return self._steps.run(step_id, new_body(step_id, sessions, fn), *args, **kwargs)


@overload
def with_options(steps: StepRunner) -> AsyncTransactions: ...
@overload
def with_options(steps: SyncStepRunner) -> Transactions: ...
def with_options(steps: StepRunner | SyncStepRunner) -> AsyncTransactions | Transactions:
    """Set options of the step: `with_options(step.options(retries=3)).transaction(...)`.

    Args:
        steps: what `stephttp.step.options` or `stephttp.sync.step.options` returned.

    Returns:
        An object with `transaction`, which takes what `transaction` takes. It can be kept and
        shared.
    """
    return Transactions(steps) if isinstance(steps, SyncStepRunner) else AsyncTransactions(steps)
