"""What a function asks of the engine beside being called: limits, gathering, cancellation."""

from __future__ import annotations

from stephttp.engine.model.values import Value

DEFAULT_KEY = ""
"""The key of all events of a function whose option has none."""


class ConcurrencyOption(Value, frozen=True, gc=False):
    """How many calls may be under way at a time.

    Attributes:
        most: that many; 0 stands for no limit.
        key: CEL over the event; each of its values has a limit of its own.
        scope: `fn`: of this function; `env` and `account`: of all functions with the same key.
    """

    most: int
    key: str | None = None
    scope: str = "fn"


class ThrottleOption(Value, frozen=True, gc=False):
    """How many runs may start in a period; others wait for their turn.

    Attributes:
        burst: how many may start at once beyond that.
        key: CEL over the event; each of its values has a limit of its own.
    """

    most: int
    period_ms: int
    burst: int = 0
    key: str | None = None


class RateLimit(Value, frozen=True, gc=False):
    """How many runs may start in a period; events beyond that start nothing.

    Attributes:
        key: CEL over the event; each of its values has a limit of its own.
    """

    most: int
    period_ms: int
    key: str | None = None


class Debounce(Value, frozen=True, gc=False):
    """Start one run, with the latest event, once none has come for a period.

    Attributes:
        key: CEL over the event; each of its values is looked at alone.
        timeout_ms: the run starts this long after the first event at the latest.
    """

    period_ms: int
    key: str | None = None
    timeout_ms: int | None = None


class Batch(Value, frozen=True, gc=False):
    """Start one run with several events.

    Attributes:
        most: events of a batch that is complete.
        timeout_ms: how long after its first event a batch is started at the latest.
        key: CEL over the event; each of its values has a batch of its own.
        condition: CEL over the event; one that does not fulfil it starts a run alone.
    """

    most: int
    timeout_ms: int
    key: str | None = None
    condition: str | None = None


class Singleton(Value, frozen=True, gc=False):
    """One run at a time.

    Attributes:
        key: CEL over the event; each of its values has one run at a time.
        cancels: a new run ends the one that there is; else it does not start.
    """

    key: str | None = None
    cancels: bool = False


class CancelOn(Value, frozen=True, gc=False):
    """An event that cancels a run.

    Attributes:
        event: its name.
        condition: CEL over the event that started the run, and the one that came (`async`).
        timeout_ms: how long after its start a run can be cancelled by it.
    """

    event: str
    condition: str | None = None
    timeout_ms: int | None = None


class FunctionOptions(Value, frozen=True, gc=False):
    """The options of a function, as checked values.

    Attributes:
        priority: CEL over the event; its value is by how many seconds, from -600 to 600, a run
            goes before its turn.
        idempotency: CEL over the event; one with a value that started a run in the last 24 hours
            starts none.
        start_timeout_ms: how long a run may wait for its first call.
        finish_timeout_ms: how long after that it may take.
    """

    concurrency: tuple[ConcurrencyOption, ...] = ()
    throttle: ThrottleOption | None = None
    rate_limit: RateLimit | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    singleton: Singleton | None = None
    cancel_on: tuple[CancelOn, ...] = ()
    priority: str | None = None
    idempotency: str | None = None
    start_timeout_ms: int | None = None
    finish_timeout_ms: int | None = None


NO_OPTIONS = FunctionOptions()
