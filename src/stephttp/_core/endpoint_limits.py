"""`Concurrency`, `Throttle` and priority of an endpoint: options of `@provider.endpoint`, and what
they are for one request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from inspect import iscoroutine, iscoroutinefunction
from typing import Any

from msgspec import Struct

from stephttp._wire.limits_of_run import (
    BURST_TOO_LONG,
    LARGEST,
    LONGEST_BURST,
    LONGEST_KEY,
    LONGEST_PERIOD,
    MOST_LIMITS,
    MOST_PRIORITY,
    CallLimit,
    LimitKey,
    RunLimits,
    ThrottleLimit,
)
from stephttp.errors import ConfigurationError, UsageError

Key = str | Callable[..., str | None]
"""Which requests share a limit."""

Priority = int | Callable[..., int]
"""Seconds by which a run goes before its turn, or a function that returns them."""

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many calls of waiting runs the engine makes at a time.

    Runs that sleep, or wait for an event, do not count, nor do first calls, unless the endpoint
    has `refuse_over_limit`: your server answers those. See docs/concurrency.md.

    Args:
        limit: that many, 1 to 1,000,000.
        key: a plain function that gets what the handler gets, and returns a text: each text has a
            limit of its own, and requests for which it returns `None` share one. Or a text (at
            most 1024 characters): all endpoints of the API with the same text share the limit.
            `None`: the limit is that of the endpoint.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
    """

    limit: int
    key: Key | None = None

    def __post_init__(self) -> None:
        _check_number("Concurrency.limit", self.limit, least=1)
        _check_key("Concurrency.key", self.key)


@dataclass(frozen=True, slots=True)
class Throttle:
    """How many runs get their first call by the engine in a period; others wait for their turn.

    While there is room, `limit + burst` of them start at once; after every `period / limit` there
    is room for another one. See docs/concurrency.md.

    Args:
        limit: that many, 1 to 1,000,000.
        period: from a millisecond to 7 days.
        burst: how many may start at once beyond `limit`.
        key: as that of `Concurrency`.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
    """

    limit: int
    period: timedelta
    burst: int = 0
    key: Key | None = None

    def __post_init__(self) -> None:
        _check_number("Throttle.limit", self.limit, least=1)
        _check_number("Throttle.burst", self.burst, least=0)
        _check_key("Throttle.key", self.key)
        period: Any = self.period
        longest = timedelta(milliseconds=LONGEST_PERIOD)
        if not isinstance(period, timedelta) or not _MILLISECOND <= period <= longest:
            raise ConfigurationError(
                f"Throttle.period: {period!r} is not from a millisecond to 7 days; give a "
                "timedelta, such as timedelta(minutes=1)"
            )
        if self.burst * (period // _MILLISECOND) // self.limit > LONGEST_BURST:
            raise ConfigurationError(f"Throttle.{BURST_TOO_LONG.format(self.burst)}")


class EndpointLimits(Struct, frozen=True):
    """The limits of an endpoint, checked."""

    concurrency: tuple[Concurrency, ...]
    throttle: Throttle | None
    priority: Priority | None
    refuses: bool = False
    """Whether requests over them are refused."""

    @property
    def names(self) -> str:
        """The options that were given, for messages."""
        given = {
            "concurrency": self.concurrency,
            "throttle": self.throttle,
            "priority": self.priority is not None,
        }
        return ", ".join(name for name, value in given.items() if value)

    def of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> RunLimits:
        """Return what they are for one request.

        Args:
            args, kwargs: what the handler gets.

        Raises:
            UsageError: a function returned something else than it may.
        """
        concurrency = []
        for option in self.concurrency:
            key = _key_of("Concurrency.key", option.key, args, kwargs)
            concurrency.append(CallLimit(key.key, key.shared, limit=option.limit))
        throttle, start = self.throttle, None
        if throttle is not None:
            key = _key_of("Throttle.key", throttle.key, args, kwargs)
            period = throttle.period // _MILLISECOND
            start = ThrottleLimit(
                key.key, key.shared, limit=throttle.limit, period=period, burst=throttle.burst
            )
        return RunLimits(concurrency, start, _seconds(self.priority, args, kwargs))


def checked_limits(
    concurrency: Any, throttle: Any, priority: Any, refuse: Any = False, *, has_keys: bool = False
) -> EndpointLimits:
    """Return the limits of an endpoint, as the decorator is given them.

    Args:
        refuse: whether requests over them are refused.
        has_keys: whether requests to the endpoint may carry idempotency keys.

    Raises:
        ConfigurationError: one makes no sense; the message names it.
    """
    several = isinstance(concurrency, Sequence)
    limits = () if concurrency is None else tuple(concurrency) if several else (concurrency,)
    for limit in limits:
        if not isinstance(limit, Concurrency):
            raise ConfigurationError(
                f"concurrency: {limit!r} is not a limit; give stephttp.Concurrency(limit=...)"
            )
    if len(limits) > MOST_LIMITS or (several and not limits):
        raise ConfigurationError(
            f"concurrency: {len(limits)} limits were given; give one or two, or leave it out"
        )
    if throttle is not None and not isinstance(throttle, Throttle):
        raise ConfigurationError(
            f"throttle: {throttle!r} is not one; give stephttp.Throttle(limit=..., period=...)"
        )
    if priority is not None and not _is_function(priority):
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise ConfigurationError(
                f"priority: {priority!r} is neither a whole number of seconds nor a plain function "
                "that returns one"
            )
        if abs(priority) > MOST_PRIORITY:
            raise ConfigurationError(
                f"priority: {priority} is out of range; give -{MOST_PRIORITY} to {MOST_PRIORITY} "
                "seconds"
            )
    if not isinstance(refuse, bool):
        raise ConfigurationError(
            f"refuse_over_limit: {refuse!r} is not possible; give True or False"
        )
    if refuse and not limits and throttle is None:
        raise ConfigurationError(
            "refuse_over_limit: there is no limit; give concurrency or throttle, or leave it out"
        )
    if refuse and has_keys:
        raise ConfigurationError(
            "refuse_over_limit: an endpoint whose requests may have idempotency keys cannot have "
            "it; leave out one of them, also in setup"
        )
    return EndpointLimits(limits, throttle, priority, refuse)


def _is_function(value: Any) -> bool:
    return callable(value) and not iscoroutinefunction(value)


def _check_number(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
        raise ConfigurationError(
            f"{name}: {value!r} is not possible; give a whole number, {least} to {LARGEST}"
        )


def _check_key(name: str, value: Any) -> None:
    if value is None or _is_function(value):
        return
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{name}: {value!r} is neither a text nor a plain function that gets what the handler "
            "gets and returns one"
        )
    if not 0 < len(value) <= LONGEST_KEY:
        raise ConfigurationError(
            f"{name}: a text of {len(value)} characters is not possible; give 1 to {LONGEST_KEY}, "
            "or leave it out"
        )


def _key_of(name: str, key: Key | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> LimitKey:
    if key is None or isinstance(key, str):
        return LimitKey(key, shared=key is not None)
    value: Any = key(*args, **kwargs)
    if value is not None and not isinstance(value, str):
        _close(value)
        raise UsageError(
            f"{name}: the function must return a text or None, not {type(value).__name__}"
        )
    if value and len(value) > LONGEST_KEY:
        raise UsageError(
            f"{name}: the function returned {len(value)} characters; {LONGEST_KEY} are possible"
        )
    return LimitKey(value or None)


def _seconds(priority: Priority | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    if priority is None or isinstance(priority, int):
        return priority or 0
    value: Any = priority(*args, **kwargs)
    if isinstance(value, bool) or not isinstance(value, int):
        _close(value)
        raise UsageError(
            "priority: the function must return a whole number of seconds, not "
            f"{type(value).__name__}"
        )
    return max(-MOST_PRIORITY, min(MOST_PRIORITY, value))


def _close(value: Any) -> None:
    if iscoroutine(value):
        value.close()  # it would be complained about as never awaited
