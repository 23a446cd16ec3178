"""Reads the options of a function (docs/protocol.md 9.2). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from stephttp._wire.durations import MAX_WAIT, parse_duration
from stephttp.engine.model.function_options import (
    Batch,
    CancelOn,
    ConcurrencyOption,
    Debounce,
    FunctionOptions,
    RateLimit,
    Singleton,
    ThrottleOption,
)
from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.conditions import expressions

_MS = timedelta(milliseconds=1)
_SCOPES = ("fn", "env", "account")
_MODES = ("skip", "cancel")
_MOST_LIMITS = 2
_MOST_CANCEL_ON = 5
_MOST_IN_BATCH = 100
_LARGEST_LIMIT = 1_000_000
_LONGEST_BURST_MS = 100 * 365 * 86_400_000
"""Milliseconds. Throttles count nanoseconds, of which 64 bits hold 292 years since 1970."""


def read_options(config: dict[str, Any], field: str) -> FunctionOptions:
    """Read the options of a function.

    Args:
        config: the function as it is registered.
        field: where that stands in the request, for the error.

    Raises:
        Refused: an option is not acceptable; the text names it.
    """
    read: dict[str, Any] = {}
    for name, (target, reader) in _READERS.items():
        value = config.get(name)
        if value is not None:
            read[target] = reader(value, f"{field}.{name}")
    timeouts = _table(config.get("timeouts") or {}, f"{field}.timeouts")
    return FunctionOptions(
        **read,
        start_timeout_ms=_period(timeouts, "start", f"{field}.timeouts", optional=True),
        finish_timeout_ms=_period(timeouts, "finish", f"{field}.timeouts", optional=True),
    )


def _concurrency(value: Any, field: str) -> tuple[ConcurrencyOption, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = {"limit": value}
    limits = value if isinstance(value, list) else [value]
    if len(limits) > _MOST_LIMITS:
        raise Refused(f"{field}: {len(limits)}, at most {_MOST_LIMITS} are accepted")
    return tuple(
        _one_concurrency(one, f"{field}[{number}]" if isinstance(value, list) else field)
        for number, one in enumerate(limits)
    )


def _one_concurrency(value: Any, field: str) -> ConcurrencyOption:
    table = _table(value, field)
    scope = _choice(table, "scope", field, _SCOPES)
    key = _key(table, field)
    if scope != "fn" and key is None:
        raise Refused(f"{field}.key: must be there if the scope is {scope!r}")
    return ConcurrencyOption(_number(table, "limit", field, least=0), key, scope)


def _throttle(value: Any, field: str) -> ThrottleOption:
    table = _table(value, field)
    burst = 0 if table.get("burst") is None else _number(table, "burst", field, least=0)
    most, period_ms = _number(table, "limit", field), _period(table, "period", field)
    if burst * period_ms // most > _LONGEST_BURST_MS:
        raise Refused(
            f"{field}.burst: the throttle takes more than 100 years to forget {burst} starts; use "
            "a lower burst, or a shorter period"
        )
    return ThrottleOption(most, period_ms, burst, _key(table, field))


def _rate_limit(value: Any, field: str) -> RateLimit:
    table = _table(value, field)
    period_ms = _period(table, "period", field)
    return RateLimit(_number(table, "limit", field), period_ms, _key(table, field))


def _debounce(value: Any, field: str) -> Debounce:
    table = _table(value, field)
    timeout_ms = _period(table, "timeout", field, optional=True)
    return Debounce(_period(table, "period", field), _key(table, field), timeout_ms)


def _batch(value: Any, field: str) -> Batch:
    table = _table(value, field)
    most = _number(table, "maxSize", field, most=_MOST_IN_BATCH)
    condition = _text(table, "if", field)
    if condition is not None:
        expressions.check(condition, f"{field}.if", expressions.CANCEL_NAMES)
    return Batch(most, _period(table, "timeout", field), _key(table, field), condition)


def _singleton(value: Any, field: str) -> Singleton:
    table = _table(value, field)
    mode = _choice(table, "mode", field, _MODES)
    return Singleton(_key(table, field), cancels=mode == "cancel")


def _cancel_on(value: Any, field: str) -> tuple[CancelOn, ...]:
    if not isinstance(value, list):
        raise Refused(f"{field}: expected an array, got {type(value).__name__}")
    if len(value) > _MOST_CANCEL_ON:
        raise Refused(f"{field}: {len(value)}, at most {_MOST_CANCEL_ON} are accepted")
    return tuple(_one_cancel_on(one, f"{field}[{number}]") for number, one in enumerate(value))


def _one_cancel_on(value: Any, field: str) -> CancelOn:
    table = _table(value, field)
    event, condition = _text(table, "event", field), _text(table, "if", field)
    if event is None:
        raise Refused(f"{field}.event: must name an event")
    if condition is not None:
        expressions.check(condition, f"{field}.if", expressions.WAIT_NAMES)
    return CancelOn(event, condition, _period(table, "timeout", field, optional=True))


def _priority(value: Any, field: str) -> str | None:
    return _expression(_table(value, field), "run", field)


def _idempotency(value: Any, field: str) -> str | None:
    where, _, name = field.rpartition(".")
    return _expression({name: value}, name, where)


_READERS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "concurrency": ("concurrency", _concurrency),
    "throttle": ("throttle", _throttle),
    "rateLimit": ("rate_limit", _rate_limit),
    "debounce": ("debounce", _debounce),
    "batchEvents": ("batch", _batch),
    "singleton": ("singleton", _singleton),
    "cancel": ("cancel_on", _cancel_on),
    "priority": ("priority", _priority),
    "idempotency": ("idempotency", _idempotency),
}
"""How options are read, and what they are called here."""


def _table(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refused(f"{field}: expected an object, got {type(value).__name__}")
    return value


def _number(
    table: dict[str, Any], name: str, field: str, *, least: int = 1, most: int = _LARGEST_LIMIT
) -> int:
    value = table.get(name)
    if type(value) is not int or not least <= value <= most:
        raise Refused(
            f"{field}.{name}: expected a number from {least} to {most}, got {value!r:.50}"
        )
    return value


def _text(table: dict[str, Any], name: str, field: str) -> str | None:
    value = table.get(name)
    if value is not None and not isinstance(value, str):
        raise Refused(f"{field}.{name}: expected text, got {type(value).__name__}")
    return value or None


def _choice(table: dict[str, Any], name: str, field: str, known: Iterable[str]) -> str:
    value = _text(table, name, field)
    choices = tuple(known)
    if value is not None and value not in choices:
        raise Refused(f"{field}.{name}: expected one of {', '.join(choices)}, got {value!r:.50}")
    return value or choices[0]


def _expression(table: dict[str, Any], name: str, field: str) -> str | None:
    text = _text(table, name, field)
    if text is not None:
        expressions.check_value(text, f"{field}.{name}", expressions.CANCEL_NAMES)
    return text


def _key(table: dict[str, Any], field: str) -> str | None:
    return _expression(table, "key", field)


def _period(table: dict[str, Any], name: str, field: str, *, optional: bool = False) -> Any:
    text = _text(table, name, field)
    if text is None and optional:
        return None
    return read_period(text or "", f"{field}.{name}")


def read_period(text: str, field: str) -> int:
    """Read a length of time, in milliseconds.

    Raises:
        Refused: it is not one; the text names the field.
    """
    try:
        period = parse_duration(text)
    except ValueError as error:
        raise Refused(f"{field}: {error}") from None
    if not _MS <= period <= MAX_WAIT:
        raise Refused(f"{field}: {text!r} is not from 1 ms to {MAX_WAIT.days} days")
    return period // _MS
