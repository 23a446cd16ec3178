"""Applies the options of a function to an event that starts it. Pure."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from msgspec.structs import replace

from stephttp.engine.model.function import Function
from stephttp.engine.model.function_options import DEFAULT_KEY, FunctionOptions
from stephttp.engine.model.function_start import Start, StartingEvent
from stephttp.engine.model.gate import MARK, START, Gate
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.conditions.operators import NO_VALUE
from stephttp.engine.rules.functions.limit_names import digest, limit_name, shown_key

_MOST_SECONDS = 600


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
        if isinstance(value, float) and math.isnan(value):
            return 0
        return int(max(-_MOST_SECONDS, min(_MOST_SECONDS, value)))


def limits(fn_id: str, options: FunctionOptions) -> dict[str, Gate]:
    """Return the limits of a function that gates keep, by what begins the names of their gates.

    The value of a key comes after that (`limit_names`). Functions that share a limit
    have the same expression as its key.
    """
    found: dict[str, Gate] = {}
    for place, limit in enumerate(options.concurrency):
        if not limit.most:
            continue
        if limit.scope == "fn":
            rank, name = 2 if limit.key is None else 1, f"{MARK}concurrency {fn_id} {place}"
        else:
            rank, name = 3, f"{MARK}concurrency {limit.scope} {digest(limit.key or '')}"
        if name not in found or limit.most < found[name].most:
            found[name] = Gate(name, place, rank, limit.most)
    throttle = options.throttle
    if throttle is not None:
        name = f"{MARK}throttle {fn_id}"
        found[name] = Gate(name, START, 0, throttle.most, throttle.period_ms, throttle.burst)
    return found


def _gates(fn_id: str, options: FunctionOptions, keys: _Keys) -> tuple[Gate, ...]:
    gates = []
    for limit in limits(fn_id, options).values():
        option = options.throttle if limit.place == START else options.concurrency[limit.place]
        assert option is not None
        key = keys.of(option.key)
        gates.append(replace(limit, name=limit_name(limit.name, key), shown=shown_key(key)))
    return tuple(gates)
