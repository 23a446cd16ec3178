"""`step.sleep`, `sleep_until`, `wait_for_event` and `wait_for_signal`, async: steps that wait."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from stephttp._core import waits
from stephttp._core.tool_types import Event, MatchValue, Signal
from stephttp._run import hooked_steps as hooked
from stephttp._run.current import current_scope, present_ns
from stephttp._run.hooks import drive
from stephttp._run.step_call import StepCall
from stephttp.step._branches import outside
from stephttp.step._running import before_step


async def sleep(step_id: str, duration: timedelta) -> None:
    """Let the run sleep. The caller is redirected; the handler continues in a later call.

    Args:
        step_id: names the step within the run.
        duration: at most 366 days; zero or negative ends at once.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has started, so the caller can no longer be redirected.
        TypeError: `duration` is not a `timedelta`.
        ValueError: `duration` is too long.
    """
    await request("sleep", waits.sleep(step_id, duration))


async def sleep_until(step_id: str, until: datetime) -> None:
    """Let the run sleep until a point in time.

    Args:
        step_id: names the step within the run.
        until: with a time zone; at most 366 days ahead. A time that has passed ends at once.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has started, so the caller can no longer be redirected.
        TypeError: `until` is not a `datetime`.
        ValueError: `until` has no time zone, or is too far ahead.
    """
    await request("sleep_until", waits.sleep_until(step_id, until, present_ns()))


async def wait_for_event(
    step_id: str,
    *,
    event: str,
    timeout: timedelta,
    match: Mapping[str, MatchValue] | None = None,
    if_exp: str | None = None,
    lookback: timedelta | None = None,
) -> Event | None:
    """Wait for an event. With the stephttp engine, one that came since the request of this run
    came in counts, too; each event ends one such wait of a run.

    Args:
        step_id: names the step within the run.
        event: the event's name.
        timeout: at most 366 days.
        match: the values that the event has to have, by their paths: `{"data.id": order.id}`. All
            of them; `None` also stands for a key that is missing.
        if_exp: a CEL expression that a matching event makes true: `async` is that event, `event`
            the one behind this run (the HTTP request). For example `async.data.weight < 30`. Put no
            values from outside into it: that is what `match` is for.
        lookback: events that came this long before this wait count, too, although the run did not
            exist yet. Only with the stephttp engine, which has to keep them so long (`--retain`).

    Returns:
        The event, or `None` at the timeout.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has started, so the caller can no longer be redirected.
        TypeError: an argument has another type.
        ValueError: an argument is empty, the timeout is too long, or `match` has a path or value
            that an event cannot have.
        StepError: the server refused the wait.
    """
    wait = waits.wait_for_event(step_id, event, timeout, if_exp, match, lookback)
    received: Event | None = await request("wait_for_event", wait)
    return received


async def wait_for_signal(
    step_id: str,
    *,
    signal: str,
    timeout: timedelta,
    on_conflict: Literal["fail", "replace"] = "fail",
) -> Signal | None:
    """Wait for a signal: exactly one run waits for it, under a name of your own.

    Args:
        step_id: names the step within the run.
        signal: the signal's name. It is sent with `POST /v1/signals`.
        timeout: at most 366 days.
        on_conflict: when another run waits for it already: `fail` this one, or `replace` that one.

    Returns:
        The signal, or `None` at the timeout.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has started, so the caller can no longer be redirected.
        TypeError: an argument has another type.
        ValueError: an argument is empty or not one of those listed, or the timeout is too long.
        StepError: another run waits for it already.
    """
    wait = waits.wait_for_signal(step_id, signal, timeout, on_conflict)
    received: Signal | None = await request("wait_for_signal", wait)
    return received


async def request(tool: str, wait: waits.Wait) -> Any:
    """Have the server carry out a step, and return what came of it."""
    scope = current_scope()
    if scope is None:
        return await outside().request(tool, wait)
    await before_step(scope)
    if wait.only_ours is not None and not scope.runtime.checkpoints.keys.features:
        from stephttp._run.plain_calls import refusal

        if (refusing := refusal(scope, wait.step_id, wait.only_ours)) is not None:
            with scope.group():
                await scope.drive(refusing)
    if scope.hooks is None:
        call = StepCall.wait(scope, wait)
    else:
        call = await drive(hooked.request(scope, scope.hooks, wait))
    if call.cut:
        await scope.park(call.step)
        if scope.hooks is None:
            call.wait_again(wait)
        else:
            call = await drive(hooked.request(scope, scope.hooks, wait, call.step))
    if call.suspended:
        await call.scope.suspend(call.step)
    elif (turn := call.scope.turn(call.step, None)) is not None:
        await turn
    return call.result()
