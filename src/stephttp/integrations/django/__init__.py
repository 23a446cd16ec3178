"""Exactly-once steps with Django 5.2: `transaction`, `atransaction`, `prune` (docs/databases.md).

INSTALLED_APPS = [..., "stephttp.integrations.django"]     # then: manage.py migrate

from stephttp.integrations.django import atransaction, transaction

order = transaction("add order", add_order, "a book")           # in a `def` view
order = await atransaction("add order", add_order, "a book")    # in an `async def` view
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar, overload

from django.db import DEFAULT_DB_ALIAS

from stephttp import step
from stephttp.integrations._django_body import AsyncBody, BlockingBody, steps_of, stored_time
from stephttp.integrations._step_rows import oldest
from stephttp.step._options import StepRunner
from stephttp.sync import step as sync_step
from stephttp.sync._options import SyncStepRunner

__all__ = [
    "AsyncTransactions",
    "Transactions",
    "atransaction",
    "prune",
    "transaction",
    "with_options",
]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def transaction(
    step_id: str, fn: Callable[..., T], /, *args: Any, using: str, **kwargs: Any
) -> T: ...
@overload
def transaction(step_id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
def transaction(step_id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a function as a step whose writes and whose result are stored in one transaction.

    Like `stephttp.sync.step.run`, but exactly once: if the process dies after the commit, and
    before the server knows the result, the next call finds the step's row in `stephttp_steps` and
    returns its result, without running the function.

    The function runs in `transaction.atomic(using)`, which is committed when it returns and rolled
    back when it raises. It may use savepoints (`transaction.atomic()` within it). Serialisation
    failures, deadlocks and lost connections are retried at once, up to five times, by running the
    function again in a new transaction. Other exceptions are the step's, as in `step.run`:
    `stephttp.configure(retries=)` and `NonRetriableError` hold.

    Outside a request that passes through the middleware the function runs in a transaction, and no
    row is stored.

    Args:
        step_id: names the step within the run.
        fn: a `def` function. Its result is stored as that of `step.run` is; return ids
            and plain data, and not model instances.
        *args: for `fn`.
        **kwargs: for `fn`; except `using`, the alias of the database (`default`). The table is
            needed in that one.

    Returns:
        What `fn` returned, in the shape of its return annotation.

    Raises:
        UsageError: there is a transaction around already, such as that of `ATOMIC_REQUESTS`.
        ConfigurationError: the application is not installed, or there is no table.
        NestedStepError: called inside the body of another step.
        StepError: the step failed for good in an earlier execution.
        Suspended: the step failed and will be retried in a later call of the view.
        Exception: whatever `fn` or the database raised, when no retry is left.
    """
    using = kwargs.pop("using", DEFAULT_DB_ALIAS)
    return sync_step.run(step_id, BlockingBody(step_id, fn, using), *args, **kwargs)


@overload
async def atransaction(
    step_id: str, fn: Callable[..., T], /, *args: Any, using: str, **kwargs: Any
) -> T: ...
@overload
async def atransaction(
    step_id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T: ...
async def atransaction(step_id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a function as `transaction` does, for `async def` views.

    Django has transactions in `def` functions only. This one runs in Django's own thread for them
    (`sync_to_async`).

    Args:
        step_id: names the step within the run.
        fn: a `def` function; see `transaction`.
        *args: for `fn`.
        **kwargs: for `fn`; except `using`, the alias of the database (`default`). The table is
            needed in that one.

    Returns:
        What `fn` returned, in the shape of its return annotation.

    Raises:
        UsageError: there is a transaction around already.
        ConfigurationError: the application is not installed, or there is no table.
        NestedStepError: called inside the body of another step.
        StepError: the step failed for good in an earlier execution.
        Exception: whatever `fn` or the database raised, when no retry is left.
    """
    using = kwargs.pop("using", DEFAULT_DB_ALIAS)
    return await step.run(step_id, AsyncBody(step_id, fn, using), *args, **kwargs)


class Transactions:
    """`transaction` with options of the step itself; see `with_options`."""

    def __init__(self, steps: SyncStepRunner) -> None:
        self._steps = steps

    @overload
    def transaction(
        self, step_id: str, fn: Callable[..., T], /, *args: Any, using: str, **kwargs: Any
    ) -> T: ...
    @overload
    def transaction(
        self, step_id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    def transaction(
        self, step_id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run a function exactly once; see `stephttp.integrations.django.transaction`."""
        using = kwargs.pop("using", DEFAULT_DB_ALIAS)
        return self._steps.run(step_id, BlockingBody(step_id, fn, using), *args, **kwargs)


class AsyncTransactions:
    """`atransaction` with options of the step itself; see `with_options`."""

    def __init__(self, steps: StepRunner) -> None:
        self._steps = steps

    @overload
    async def atransaction(
        self, step_id: str, fn: Callable[..., T], /, *args: Any, using: str, **kwargs: Any
    ) -> T: ...
    @overload
    async def atransaction(
        self, step_id: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    async def atransaction(
        self, step_id: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Any:
        """Run a function exactly once; see `stephttp.integrations.django.atransaction`."""
        using = kwargs.pop("using", DEFAULT_DB_ALIAS)
        return await self._steps.run(step_id, AsyncBody(step_id, fn, using), *args, **kwargs)


@overload
def with_options(steps: StepRunner) -> AsyncTransactions: ...
@overload
def with_options(steps: SyncStepRunner) -> Transactions: ...
def with_options(steps: StepRunner | SyncStepRunner) -> AsyncTransactions | Transactions:
    """Set options of the step: `with_options(step.options(retries=3)).atransaction(...)`.

    Args:
        steps: what `stephttp.step.options` or `stephttp.sync.step.options` returned.

    Returns:
        An object with `atransaction` or `transaction`, for the views that `steps` is for. It can be
        kept and shared.
    """
    return Transactions(steps) if isinstance(steps, SyncStepRunner) else AsyncTransactions(steps)


def prune(older_than: timedelta, using: str = DEFAULT_DB_ALIAS, now: datetime | None = None) -> int:
    """Delete the rows of old steps, as `manage.py prune_steps` does. A row is needed until the
    server knows the step's result, which is long before its run has ended; without it, the step
    would run again.

    Args:
        older_than: the age of the rows. Longer than an outage of the engine, and than the longest
            time between two attempts of a step (24 hours).
        using: alias of the database.
        now: the present time; by default that of the clock.

    Returns:
        The number of rows.

    Raises:
        ValueError: `older_than` is not positive, or `now` has no time zone.
    """
    run_id, before = oldest(older_than, now)
    old = steps_of(using).filter(run_id__lt=run_id, created_at__lt=stored_time(before))
    deleted: int = old.delete()[0]
    return deleted
