"""The transaction of an exactly-once step with Django, for `stephttp.integrations.django`."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from asgiref.sync import sync_to_async
from django.apps import apps
from django.conf import settings
from django.db import (
    Error,
    IntegrityError,
    InterfaceError,
    OperationalError,
    ProgrammingError,
    connections,
)
from django.db.transaction import atomic

from stephttp.errors import ConfigurationError, UsageError
from stephttp.integrations._step_rows import (
    TABLE,
    CurrentStep,
    Row,
    StepBody,
    current_step,
    is_async,
    is_transient,
    pauses,
)

T = TypeVar("T")

APP = "stephttp.integrations.django"

_pause = time.sleep


class _Claimed(Exception):
    """Another call of the step has committed."""


class TransactionBody(StepBody, Generic[T]):
    """The body of a step that is a transaction.

    The row is inserted before the function runs. So the primary key lets one of two calls of the
    same step wait for the other, and SQLite starts a transaction that may write.
    """

    def __init__(self, step_id: str, fn: Any, using: str) -> None:
        if not callable(fn) or is_async(fn):
            raise TypeError(
                f"step {step_id!r}: transaction takes a `def` function, not {fn!r}; Django has no "
                "transactions in `async def` functions"
            )
        super().__init__(fn, own_arguments=0)
        self._step_id = step_id
        self._using = using

    def run(self, *args: Any, **kwargs: Any) -> T:
        """Run the function in a transaction, again and again if that is of use."""
        current = current_step()
        waits = pauses()
        while True:
            try:
                return cast(T, self._attempt(current, args, kwargs))
            except Error as error:
                seconds = next(waits, None) if self._again(error) else None
                if seconds is None:
                    self._check_table(error)
                    raise
            _pause(seconds)

    def _attempt(self, current: CurrentStep | None, args: Any, kwargs: Any) -> Any:
        if current is None:
            with self._transaction():
                return self._fn(*args, **kwargs)
        row: Row | None = None
        try:
            with self._transaction():
                self._claim(current)
                row_of = current.row(self._fn(*args, **kwargs))
                stored = steps_of(self._using).filter(**current.key).update(**row_of._asdict())
                if stored != 1:
                    raise current.refuse_end()
                row = row_of
        except _Claimed as claimed:
            row = self._look(current)
            if row is None:
                raise claimed.__cause__ or claimed from None
        except Exception as error:
            # Whether it was committed is not known: the connection may be lost, or the error be
            # that of a function of the user's that Django calls after the commit (`on_commit`).
            if row is None or self._look(current) is None:
                raise
            current.log_committed(error)
        return current.value(row)

    @contextmanager
    def _transaction(self) -> Generator[None]:
        connection = connections[self._using]
        with ExitStack() as stack:
            try:
                if not connection.in_atomic_block and not connection.get_autocommit():
                    raise RuntimeError("autocommit is off")
                stack.enter_context(atomic(self._using, durable=True))
            except RuntimeError as error:
                raise UsageError(
                    f"step {self._step_id!r}: there is a transaction around it already, so the "
                    "step could not commit its own; call it outside `transaction.atomic`, and take "
                    "its view out of ATOMIC_REQUESTS with `transaction.non_atomic_requests`"
                ) from error
            yield

    def _claim(self, current: CurrentStep) -> None:
        """Insert the row of a step.

        Raises:
            _Claimed: another call has done that, and has committed.
        """
        row = {**current.key, "step_id": current.step_id, "created_at": stored_time(current.now())}
        try:
            steps_of(self._using).create(**row)
        except IntegrityError as error:
            raise _Claimed from error

    def _look(self, current: CurrentStep) -> Row | None:
        """Return the row that was committed for a step; `None` if there is no such row."""
        found = steps_of(self._using).filter(**current.key).values_list("result", "types").first()
        return None if found is None else current.found(*found)

    def _again(self, error: Error) -> bool:
        """Whether a new transaction may well succeed."""
        if is_transient(error.__cause__):
            return True
        connection = connections[self._using]
        if connection.in_atomic_block or not isinstance(error, OperationalError | InterfaceError):
            return False
        connection.close_if_unusable_or_obsolete()
        return connection.connection is None  # it was lost

    def _check_table(self, error: Error) -> None:
        """Raise `ConfigurationError` if the transaction failed because there is no table."""
        if isinstance(error, OperationalError | ProgrammingError):
            connection = connections[self._using]
            if TABLE not in connection.introspection.table_names():
                raise ConfigurationError(
                    f"step {self._step_id!r}: the database {self._using!r} has no table {TABLE}; "
                    "run `manage.py migrate` for it (docs/databases.md)"
                ) from error


class BlockingBody(TransactionBody[T]):
    """The body in a `def` view."""

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        return self.run(*args, **kwargs)


class AsyncBody(TransactionBody[T]):
    """The body in an `async def` view: in the thread that Django has for its `def` code."""

    async def __call__(self, *args: Any, **kwargs: Any) -> T:
        return await sync_to_async(self.run)(*args, **kwargs)


def steps_of(using: str) -> Any:
    """Return the rows of a database.

    Raises:
        ConfigurationError: the Django application is not installed.
    """
    if not apps.is_installed(APP):
        raise ConfigurationError(
            f"INSTALLED_APPS: {APP!r} is missing; add it, and run `manage.py migrate` "
            "(docs/databases.md)"
        )
    from stephttp.integrations.django.models import Step  # it needs a Django that is set up

    return Step.objects.using(using)


def stored_time(time: datetime) -> datetime:
    """Return a time as Django stores it: in UTC, with the time zone only if it keeps those."""
    return time if settings.USE_TZ else time.replace(tzinfo=None)
