"""Public exceptions, and their tree: `StepError`, `RetryAfterError` and the others.

    Exception
    └── StephttpError                 everything this package raises on purpose
        ├── StepError                 a step failed for good (raised where the step is called)
        │   ├── StepTimeoutError      it took longer than its timeout; a TimeoutError, too
        │   └── StepErrorGroup        the same of an ExceptionGroup; it is one itself
        ├── NonRetriableError         raise it inside a step: do not retry
        ├── RetryAfterError           raise it inside a step: retry, but not before a given time
        ├── ConfigurationError        a setting is missing or makes no sense
        ├── UsageError                a step tool was used where it cannot work
        │   ├── OutsideRunError       a waiting tool outside a request behind the middleware
        │   ├── NestedStepError       a step inside the body of another step
        │   └── CannotWaitError       a step must wait, but the response has started
        ├── UncommittedStepError      a step wrote in a transaction that was rolled back at a wait
        ├── StepResultError           a step's result has no JSON form, or does not fit its type
        ├── DivergenceError           the handler no longer fits what is remembered of its run
        ├── RunFailedError            a run whose result was asked for has failed
        ├── RunCancelledError         the same, cancelled
        ├── ResultTimeoutError        the same, not ended in time; a TimeoutError, too
        └── APIError                  the engine (or Inngest) could not be reached, or refused
            ├── APIConnectionError    no answer: refused, reset, timed out
            │   └── APITimeoutError   connected, but no answer in time
            └── APIStatusError        an answer that is not 2xx
                ├── RunNotFoundError       the server does not have the run
                └── SignalNotAwaitedError  no run waits for the signal

    BaseException
    └── Suspended                     ends a *blocking* handler; its run continues in the background

This module imports nothing of the package, so that every layer may use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

__all__ = [
    "APIConnectionError", "APIError", "APIStatusError", "APITimeoutError", "CannotWaitError",
    "ConfigurationError", "DivergenceError", "NestedStepError", "NonRetriableError",
    "OutsideRunError", "ResultTimeoutError", "RetryAfterError", "RunCancelledError",
    "RunFailedError", "RunNotFoundError", "SignalNotAwaitedError", "StepError", "StepErrorGroup",
    "StepResultError", "StepTimeoutError", "StephttpError", "Suspended", "UncommittedStepError",
    "UsageError",
]  # fmt: skip


class StephttpError(Exception):
    """Base class of all errors that this package raises on purpose."""


class StepError(StephttpError):
    """A step failed for good.

    Raised by ``step.run`` when the step's failure is remembered from an earlier execution.
    (In the execution in which the step fails for the last time, the original exception is
    raised.)

    It can be pickled. Raise one yourself inside a step to choose name and data.

    Attributes:
        name: class name of the original exception.
        message: its text.
        stack: its traceback as text, or ``None``.
        data: what the step attached to the failure (JSON), or ``None``.
        cause: the failure behind it, where the original was raised ``from`` another; also its
            ``__cause__``.
    """

    def __init__(
        self,
        message: str,
        name: str = "Error",
        stack: str | None = None,
        data: Any = None,
        cause: StepError | None = None,
    ) -> None:
        # Not `super()`: a `TimeoutError` would take these for a number of the operating system.
        Exception.__init__(self, message, name, stack, data, cause)
        self.message = message
        self.name = name
        self.stack = stack
        self.data = data
        self.cause = cause
        if cause is not None:
            self.__cause__ = cause

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"


class StepTimeoutError(StepError, TimeoutError):
    """The function of a step took longer than ``step.options(timeout=...)`` allows.

    ``step.run`` raises it in the call in which the step fails for the last time, and in later
    ones, where the failure is remembered. ``except TimeoutError`` catches it as well.
    """

    def __init__(
        self,
        message: str,
        name: str = "StepTimeoutError",
        stack: str | None = None,
        data: Any = None,
        cause: StepError | None = None,
    ) -> None:
        super().__init__(message, name, stack, data, cause)


class StepErrorGroup(StepError, ExceptionGroup[Exception]):
    """A step failed for good with an ``ExceptionGroup``, and that is remembered.

    It is an ``ExceptionGroup``, too, so that ``except*`` reaches its parts. Each part is a
    ``StepError`` or a ``StepErrorGroup``, and also of the original's class, where that is still
    found under its name (without the attributes that only its ``__init__`` sets).

    Attributes:
        name: class name of the original group.
        message: its text, without the number of parts.
        stack: its traceback as text, or ``None``.
        data: what the step attached to the failure (JSON), or ``None``.
        cause: the failure behind it; also its ``__cause__``.
        exceptions: the parts.
    """

    def __new__(
        cls,
        message: str,
        exceptions: Sequence[Exception],
        name: str = "ExceptionGroup",
        stack: str | None = None,
        data: Any = None,
        cause: StepError | None = None,
    ) -> StepErrorGroup:
        # The text and the parts of a group are set here, and cannot be set later.
        return ExceptionGroup.__new__(cls, message, exceptions)

    def __init__(
        self,
        message: str,
        exceptions: Sequence[Exception],
        name: str = "ExceptionGroup",
        stack: str | None = None,
        data: Any = None,
        cause: StepError | None = None,
    ) -> None:
        self.name = name
        self.stack = stack
        self.data = data
        self.cause = cause
        if cause is not None:
            self.__cause__ = cause

    def derive(self, excs: Sequence[Exception], /) -> StepErrorGroup:  # type: ignore[override]
        """Return the same failure with other parts; ``except*`` calls it.

        Args:
            excs: the parts.

        Returns:
            A group with this one's text, name, traceback, data and cause.
        """
        return StepErrorGroup(self.message, excs, self.name, self.stack, self.data, self.cause)

    def __reduce__(self) -> tuple[Any, ...]:
        parts = list(self.exceptions)
        return type(self), (self.message, parts, self.name, self.stack, self.data, self.cause)

    def __str__(self) -> str:
        return f"{self.name}: {ExceptionGroup.__str__(self)}"


class _SeenWhereMade(StephttpError):
    """Is known to the call of the handler in which it is made: a framework may make an answer of
    an exception, which then reaches no middleware."""

    _see: ClassVar[Callable[[Exception], None] | None] = None

    if not TYPE_CHECKING:  # it would be in the way of subclasses with other arguments

        def __new__(cls, *args, **kwargs):
            error = super().__new__(cls, *args, **kwargs)
            if _SeenWhereMade._see is not None:
                _SeenWhereMade._see(error)
            return error


class NonRetriableError(_SeenWhereMade):
    """Raise it inside a step to fail the step at once, whatever retries are left; or in a resumed
    handler, to end the run."""


class RetryAfterError(_SeenWhereMade):
    """Raise it inside a step (or a resumed handler) to say when the next attempt is to be made.

    It counts as a failed attempt like any other. A server waits between 1 second and 24 hours.
    An Inngest server takes the time only from a step that fails in a re-entry, not in the first
    call; the embedded engine takes it always.

    Args:
        message: what went wrong.
        retry_after: seconds, a ``timedelta``, or a ``datetime`` with a time zone.

    Raises:
        ValueError: ``retry_after`` is a ``datetime`` without a time zone.

    Attributes:
        retry_after: a ``timedelta`` or a ``datetime``.
    """

    def __init__(self, message: str, retry_after: float | timedelta | datetime) -> None:
        super().__init__(message, retry_after)
        self.message = message
        if isinstance(retry_after, datetime) and retry_after.tzinfo is None:
            raise ValueError(
                "retry_after needs a time zone; use for example "
                "datetime.now(timezone.utc) + timedelta(minutes=5)"
            )
        if not isinstance(retry_after, datetime | timedelta):
            retry_after = timedelta(seconds=retry_after)
        self.retry_after: timedelta | datetime = retry_after

    def __str__(self) -> str:
        return self.message


class ConfigurationError(StephttpError):
    """A setting is missing or makes no sense; the message names it and the fix."""


class UsageError(StephttpError):
    """A step tool was used where it cannot work; the message says what to do instead."""


class OutsideRunError(UsageError):
    """A waiting tool was called outside a request that passes through the middleware."""


class NestedStepError(UsageError):
    """A step tool was called inside the body of another step."""


class CannotWaitError(UsageError):
    """A step must wait, but cannot: the response has started, so the caller can no longer be
    redirected, or there is no signing key."""


class UncommittedStepError(StephttpError):
    """A step wrote in a database transaction that was not committed when its run came to wait.

    What it wrote is gone, so it is not recorded as finished, and the request fails instead of
    waiting. Known of SQLAlchemy and of Django's ORM.

    Attributes:
        step_id: the step.
        transaction: the library and the database.
    """

    def __init__(self, step_id: str, transaction: str) -> None:
        super().__init__(step_id, transaction)
        self.step_id = step_id
        self.transaction = transaction

    def __str__(self) -> str:
        return (
            f"step {self.step_id!r} wrote in {self.transaction}, which was not committed when this "
            "request had to wait; so its writes are lost, it is not recorded as finished, and the "
            "request fails. Either commit inside the step; or, if code around the handler commits "
            "(a dependency, a middleware, ATOMIC_REQUESTS), decorate the handler with "
            "@provider.endpoint(), so that this code sees a request that was answered"
        )


class StepResultError(StephttpError):
    """A step's result cannot be stored as JSON, or does not fit the declared return type."""


class DivergenceError(StephttpError):
    """A handler no longer fits what is remembered of its run, and ``on_divergence`` is ``"fail"``.

    The run has failed, whatever the handler makes of this exception: no further step runs.
    """


class APIError(StephttpError):
    """The engine (or Inngest server) could not be reached, or refused."""


class APIConnectionError(APIError):
    """No answer from the server: connection refused or reset, name not found, or timed out."""


class APITimeoutError(APIConnectionError):
    """The server was reached, but did not answer in time."""


class APIStatusError(APIError):
    """The server answered with a status that is not 2xx.

    Attributes:
        status: HTTP status code.
        body: the answer's body, as bytes.
    """

    def __init__(self, message: str, status: int, body: bytes = b"") -> None:
        super().__init__(message, status, body)
        self.message = message
        self.status = status
        self.body = body

    def __str__(self) -> str:
        return self.message


class RunNotFoundError(APIStatusError):
    """The server does not have the run: it was never reported, not yet, or is stored no more."""


class SignalNotAwaitedError(APIStatusError):
    """No run waits for the signal. Signals are not kept; for what may come early send an event."""


class RunFailedError(StephttpError):
    """A run whose result was asked for has failed.

    Attributes:
        result: what its callers get all the same, a `stephttp.RunResult`.
    """

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message, result)
        self.message = message
        self.result = result

    def __str__(self) -> str:
        return self.message


class RunCancelledError(StephttpError):
    """A run whose result was asked for was cancelled."""


class ResultTimeoutError(StephttpError, TimeoutError):
    """A run whose result was asked for has not ended in time. It continues."""


class Suspended(BaseException):
    """Ends a blocking handler whose run continues in the background. Not an error.

    The caller has been (or is about to be) redirected, and the engine will call this endpoint
    again when the wait is over; finished steps then return at once. The exception only unwinds
    the current call, so let it pass: do not catch ``BaseException`` around steps, or re-raise
    what you caught. Catching it changes nothing for the caller.
    """

    def __init__(self, waiting_for: str = "a step") -> None:
        super().__init__(
            f"this request now waits for {waiting_for} and continues later, in a new call of the "
            "same endpoint; this exception ends the present call and is not an error"
        )
