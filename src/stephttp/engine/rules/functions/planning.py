"""Applies the options of a function to an event that starts it. Pure."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from stephttp.engine.model.function import Function
from stephttp.engine.model.function_options import DEFAULT_KEY, Concurrency, FunctionOptions
from stephttp.engine.model.function_start import Start, StartingEvent
from stephttp.engine.model.gate import MARK, START, Gate
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.conditions.operators import NO_VALUE

_MOST_SECONDS = 600
_SHOWN = 200
"""Characters of a key that are kept for people."""


def looks_into(options: FunctionOptions) -> bool:
    """Say whether it takes the contents of an event to plan a start."""
    keyed = (options.rate_limit, options.debounce, options.batch, options.singleton)
    limits = (options.throttle, *options.concurrency)
    return (
        options.priority is not None
        or options.idempotency is not None
        or any(option is not None and option.key is not None for option in (*keyed, *limits))
        or (options.batch is not None and options.batch.condition is not None)
    )


def plan(function: Function, event: StartingEvent, content: Any, now_ms: int) -> Start:
    """Return the start of a function by an event.

    Args:
        content: the event, decoded; it may be anything if `looks_into` says so.
        now_ms: the present time.
    """
    options, endpoint = function.options, function.endpoint
    keys = _Keys(content, now_ms)
    batch = options.batch
    batched = batch is not None and (batch.condition is None or keys.holds(batch.condition))
    idempotent = options.idempotency
    return Start(
        function=endpoint,
        event=event,
        options=options,
        # Without a value there is nothing that could stand for the event.
        idempotency=None if idempotent is None else keys.of(idempotent) or None,
        rate_limit=None if options.rate_limit is None else keys.of(options.rate_limit.key),
        debounce=None if options.debounce is None else keys.of(options.debounce.key),
        batch=keys.of(batch.key) if batch is not None and batched else None,
        singleton=None if options.singleton is None else keys.of(options.singleton.key),
        gates=_gates(endpoint.fn_id, options, keys),
        priority=0 if options.priority is None else keys.seconds(options.priority),
    )


class _Keys:
    """The values of expressions for one event."""

    def __init__(self, content: Any, now_ms: int) -> None:
        self._values = {expressions.TRIGGER: content}
        self._now_ms = now_ms

    def of(self, expression: str | None) -> str:
        """Return a value as text, the same for equal values; that of all if there is no value."""
        if expression is None:
            return DEFAULT_KEY
        value = expressions.value_of(expression, self._values, self._now_ms)
        if value is NO_VALUE or value is None:
            return DEFAULT_KEY
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # expressions know one kind of number
        return msgspec.json.encode(value, order="deterministic", enc_hook=repr).decode()

    def holds(self, condition: str) -> bool:
        """Say whether the event fulfils a condition."""
        return expressions.matches(condition, self._values, self._now_ms)

    def seconds(self, expression: str) -> int:
        """Return a number of seconds, within what is allowed; 0 in place of other values."""
        value = expressions.value_of(expression, self._values, self._now_ms)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return 0
        return int(max(-_MOST_SECONDS, min(_MOST_SECONDS, value)))


def limits(options: FunctionOptions) -> dict[int, tuple[int, int | None, int]]:
    """Return the limits of a function that gates keep, by their places: `most`, `period_ms` and
    `burst` of `Gate`."""
    found: dict[int, tuple[int, int | None, int]] = {
        place: (limit.most, None, 0)
        for place, limit in enumerate(options.concurrency)
        if limit.most
    }
    throttle = options.throttle
    if throttle is not None:
        found[START] = (throttle.most, throttle.period_ms, throttle.burst)
    return found


def _gates(fn_id: str, options: FunctionOptions, keys: _Keys) -> tuple[Gate, ...]:
    gates = []
    for place, limit in limits(options).items():
        if place == START:
            assert options.throttle is not None
            key = keys.of(options.throttle.key)
            name = f"{MARK}throttle {fn_id} {_digest(key)}"
            gates.append(Gate(name, place, 0, *limit, shown=key[:_SHOWN]))
        else:
            option = options.concurrency[place]
            key = keys.of(option.key)
            rank = 3 if option.scope != "fn" else 2 if option.key is None else 1
            name = _name(option, fn_id, place, key)
            gates.append(Gate(name, place, rank, *limit, shown=key[:_SHOWN]))
    return tuple(gates)


def _name(limit: Concurrency, fn_id: str, place: int, key: str) -> str:
    """Return the name of a limit: functions that share one have the same expression as its key."""
    value = _digest(key)
    if limit.scope == "fn":
        return f"{MARK}concurrency {fn_id} {place} {value}"
    return f"{MARK}concurrency {limit.scope} {_digest(limit.key or '')} {value}"


def _digest(text: str) -> str:
    """Return a short text in place of one of any length."""
    return sha256(text.encode()).hexdigest()[:24]
