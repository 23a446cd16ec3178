"""`RetryPolicy`: how a failed step is tried again, how often, after which exceptions (`retry_on`,
`give_up_on`), and when. Pure.

    field        what it says                                        without it
    retries      how often it is tried again, 0 to 20                0
    delay        the pause before the first repetition; each         1 second with `max_delay`,
                 further one is twice as long                        else the server's own pauses
    max_delay    the longest pause                                   24 hours
    retry_on     only these exceptions are worth a repetition        all are
    give_up_on   these are not, whatever `retry_on` says             only those of `NEVER_RETRIED`

A step's own fields take precedence over those of its endpoint, and these over those of `setup`,
field by field. What an exception itself says takes precedence over all: `RetryAfterError` is
always retried, at its time, and `NEVER_RETRIED` never. Of an exception group the parts count: one
that is not worth a repetition is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from msgspec import Struct

from stephttp._wire.durations import format_duration
from stephttp._wire.limits import MAX_RETRIES
from stephttp.errors import NonRetriableError, RetryAfterError, StepResultError, UsageError

ExceptionTypes = type[Exception] | Iterable[type[Exception]]
"""What users give: one type, or several."""

NEVER_RETRIED = (NonRetriableError, StepResultError, UsageError)
"""Errors that another attempt would only raise again."""

LONGEST_DELAY = timedelta(hours=24)
"""No server waits longer for an attempt (docs/protocol.md 10)."""
_FIRST_DELAY = timedelta(seconds=1)
_JITTER = 0.1
"""So many runs that failed together do not come back together; the engine adds as much."""
_MOST_DOUBLINGS = 32
"""Every pause has reached its limit by then, and no number is too large."""


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """When a failed step is tried again; see the table on top. Each field may be left out."""

    retries: int | None = None
    delay: timedelta | None = None
    max_delay: timedelta | None = None
    retry_on: ExceptionTypes | None = None
    give_up_on: ExceptionTypes | None = None


def checked(
    *,
    retries: int | None = None,
    delay: timedelta | None = None,
    max_delay: timedelta | None = None,
    retry_on: ExceptionTypes | None = None,
    give_up_on: ExceptionTypes | None = None,
) -> dict[str, Any]:
    """Return the fields that were given, checked, for a `RetryPolicy`.

    Raises:
        TypeError: a value has another type.
        ValueError: a value is out of range, or two contradict each other.
    """
    _check_retries(retries)
    _check_delay("delay", delay)
    _check_delay("max_delay", max_delay)
    if delay is not None and max_delay is not None and max_delay < delay:
        raise ValueError(
            f"max_delay must not be shorter than delay, but {max_delay} is shorter than {delay}; "
            "make it longer, or leave it out"
        )
    only, never = _types("retry_on", retry_on), _types("give_up_on", give_up_on)
    _check_types(only, never)
    given = {
        "retries": retries,
        "delay": delay,
        "max_delay": max_delay,
        "retry_on": only,
        "give_up_on": never,
    }
    return {name: value for name, value in given.items() if value is not None}


def merged(own: RetryPolicy, outer: RetryPolicy) -> RetryPolicy:
    """Return the policy of a step: its own fields, and those of its endpoint where it has none."""
    return RetryPolicy(
        retries=outer.retries if own.retries is None else own.retries,
        delay=outer.delay if own.delay is None else own.delay,
        max_delay=outer.max_delay if own.max_delay is None else own.max_delay,
        retry_on=outer.retry_on if own.retry_on is None else own.retry_on,
        give_up_on=outer.give_up_on if own.give_up_on is None else own.give_up_on,
    )


def parts(error: BaseException) -> Iterator[BaseException]:
    """Return the exceptions that a group consists of; any other is its only part."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from parts(inner)
    else:
        yield error


def gives_up(policy: RetryPolicy, error: BaseException) -> bool:
    """Return whether `error` is not worth another attempt, as the policy says."""
    only, never = _types("retry_on", policy.retry_on), _types("give_up_on", policy.give_up_on)
    judged = [part for part in parts(error) if not isinstance(part, RetryAfterError)]
    if not judged or (only is None and not never):
        return False
    if never and any(isinstance(one, never) for one in (error, *judged)):
        return True
    if only is None or isinstance(error, only):
        return False
    return not all(isinstance(part, only) for part in judged)


def pause(policy: RetryPolicy, failures: int, jitter: Callable[[], float]) -> timedelta | None:
    """Return how long to wait before the next attempt; `None` leaves it to the server.

    Args:
        failures: how often the step had failed before the failure at hand.
        jitter: gives a random number, at least 0 and less than 1.
    """
    first, longest = _limits(policy)
    if first is None:
        return None
    seconds = first.total_seconds() * 2 ** min(max(0, failures), _MOST_DOUBLINGS)
    return timedelta(seconds=min(seconds, longest.total_seconds()) * (1 + _JITTER * jitter()))


def wishes(policy: RetryPolicy) -> dict[str, str]:
    """Return the pauses of a step that the engine itself repeats, as options of its op."""
    first, longest = _limits(policy)
    if first is None:
        return {}
    return {"delay": format_duration(first), "max_delay": format_duration(longest)}


def _limits(policy: RetryPolicy) -> tuple[timedelta | None, timedelta]:
    """Return the first pause, if the policy has one, and the longest."""
    first, longest = policy.delay, policy.max_delay
    if first is None and longest is not None:
        first = min(_FIRST_DELAY, longest)
    # The two may come from different places: a pause that was asked for is kept.
    return first, max(LONGEST_DELAY if longest is None else longest, first or timedelta(0))


def _check_retries(retries: Any) -> None:
    if retries is not None and (type(retries) is not int or not 0 <= retries <= MAX_RETRIES):
        raise ValueError(f"retries must be a whole number from 0 to {MAX_RETRIES}, not {retries!r}")


def _check_delay(field: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, timedelta):
        raise TypeError(
            f"{field} must be a timedelta, not {value!r}; write for example timedelta(seconds=30)"
        )
    if value < timedelta(0):
        raise ValueError(
            f"{field} must not be negative, and is {value.total_seconds():g} seconds; leave it "
            "out for the server's own pauses"
        )
    if value > LONGEST_DELAY:
        raise ValueError(
            f"{field} may be 24 hours at most, the longest that a server waits for an attempt, "
            f"not {value}; make it shorter, or catch the failure and use step.sleep"
        )


def _types(field: str, value: Any) -> tuple[type[Exception], ...] | None:
    """Return types as `isinstance` takes them; those of an `FnOpts` may be as users wrote them."""
    if value is None:
        return None
    listed: Iterable[Any] = (value,)
    if not isinstance(value, type | str) and isinstance(value, Iterable):
        listed = value
    found = tuple(listed)
    for one in found:
        if isinstance(one, type) and issubclass(one, Exception):
            continue
        fix = "name one, such as ConnectionError"
        if isinstance(one, Exception):
            fix = f"give the class itself, {type(one).__name__}"
        elif isinstance(one, type) and issubclass(one, BaseException):
            fix = "leave it out: a step that it ends has not failed, and is not recorded"
        raise TypeError(f"{field} must be types of Exception, and {one!r} is not one; {fix}")
    return found


def _check_types(
    only: tuple[type[Exception], ...] | None, never: tuple[type[Exception], ...] | None
) -> None:
    """Refuse types that could have no effect."""
    if only == ():
        raise ValueError(
            "retry_on must not be empty: nothing would be tried again; use retries=0 for that, or "
            "leave it out to retry after every exception"
        )
    for one in only or ():
        if issubclass(one, NEVER_RETRIED):
            raise ValueError(f"retry_on: {one.__name__} is never retried; take it out")
        if never and issubclass(one, never):
            raise ValueError(
                f"retry_on: {one.__name__} would never be retried, because of give_up_on; take it "
                "out of one of the two"
            )
    for one in never or ():
        if issubclass(one, RetryAfterError):
            raise ValueError(
                f"give_up_on: {one.__name__} asks for another attempt, and gets it while retries "
                "are left; take it out, or raise NonRetriableError"
            )
