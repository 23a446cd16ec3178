"""What may cancel a run of a function from its start on: events, and its timeouts. Pure.

An event that cancels a run is found as one that ends a wait is (`rules.conditions.equalities`). If
the condition compares it with the event that started the run, which is what SDKs make of `match`,
the values of that event are put in, so that an event asks only the runs that it may cancel.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from stephttp.engine.model.function_options import CancelOn, FunctionOptions
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.timer import (
    CANCEL_ON,
    FINISH_TIMEOUT,
    START_TIMEOUT,
    Timer,
    TimerKind,
)
from stephttp.engine.rules.conditions import equalities, expressions

LONGEST_MS = 366 * 86_400_000
"""How long an event can cancel a run, if the function does not say."""


def run_timers(options: FunctionOptions, event: bytes, at: Moment) -> tuple[Timer, ...]:
    """Return the timers that a new run of a function has as a whole.

    Args:
        event: the event that starts it, as JSON.
    """
    timers = [_cancel_timer(n, one, event, at) for n, one in enumerate(options.cancel_on)]
    if options.start_timeout_ms is not None:
        due_ms = at.now_ms + options.start_timeout_ms
        timers.append(Timer(START_TIMEOUT, TimerKind.START, due_ms))
    if options.finish_timeout_ms is not None:
        payload = msgspec.json.encode(options.finish_timeout_ms)
        due_ms = at.now_ms + LONGEST_MS
        timers.append(Timer(FINISH_TIMEOUT, TimerKind.FINISH, due_ms, payload=payload))
    return tuple(timers)


def _cancel_timer(number: int, cancel_on: CancelOn, event: bytes, at: Moment) -> Timer:
    due_ms = at.now_ms + (cancel_on.timeout_ms or LONGEST_MS)
    condition = cancel_on.condition
    timer = Timer(
        f"{CANCEL_ON}{number}", TimerKind.CANCEL, due_ms, cancel_on.event, condition=condition
    )
    if condition is None:
        return timer
    known = expressions.check(condition, "cancel", expressions.WAIT_NAMES)
    wanted = known.wanted
    if known.joins:
        wanted = equalities.joined(wanted, known.joins, expressions.read_event(event))
    if wanted is None:
        return timer
    return replace(timer, match_keys=wanted.keys, match_values=wanted.values)
