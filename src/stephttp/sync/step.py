"""The step tools, blocking: each does what the one of the same name in `stephttp.step` does.

Those that wait raise `stephttp.Suspended` to end this call of the handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, ParamSpec, TypeVar, overload

from stephttp._client.outgoing_events import check
from stephttp._core import http_steps, waits
from stephttp._core.step_options import StepOptions
from stephttp._core.tool_types import Event, EventLike, FetchResponse, MatchValue, Signal
from stephttp._run.current import current_scope, present_ns
from stephttp._run.step_call import StepCall
from stephttp.sync._blocking import finish, request, run_step, settle_claim
from stephttp.sync._options import SyncAI, options
from stephttp.sync._outside import outside
from stephttp.sync._parallel import parallel
from stephttp.sync._racing import first, race

P = ParamSpec("P")
T = TypeVar("T")

__all__ = [
    "ai",
    "fetch",
    "first",
    "invoke",
    "invoke_by_id",
    "options",
    "parallel",
    "race",
    "run",
    "send_event",
    "sleep",
    "sleep_until",
    "wait_for_event",
    "wait_for_signal",
]

_PLAIN = StepOptions()
_EVENT_IDS = StepOptions(output_type=list[str])


ai = SyncAI()
"""Calls of models, carried out by the server."""


def run(step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function once in the life of a request; see `stephttp.step.run`.

    Raises:
        Suspended: the step failed and will be retried in a later call of the handler.
    """
    result: T = run_step(_PLAIN, step_id, handler, args, kwargs)
    return result


def sleep(step_id: str, duration: timedelta) -> None:
    """Let the run sleep; see `stephttp.step.sleep`. Raises `Suspended` to end this call."""
    request("sleep", waits.sleep(step_id, duration))


def sleep_until(step_id: str, until: datetime) -> None:
    """Let the run sleep until a time; see `stephttp.step.sleep_until`. Raises `Suspended`."""
    request("sleep_until", waits.sleep_until(step_id, until, present_ns()))


def wait_for_event(
    step_id: str,
    *,
    event: str,
    timeout: timedelta,
    match: Mapping[str, MatchValue] | None = None,
    if_exp: str | None = None,
    lookback: timedelta | None = None,
) -> Event | None:
    """Wait for an event; see `stephttp.step.wait_for_event`. Raises `Suspended`."""
    wait = waits.wait_for_event(step_id, event, timeout, if_exp, match, lookback)
    received: Event | None = request("wait_for_event", wait)
    return received


def wait_for_signal(
    step_id: str,
    *,
    signal: str,
    timeout: timedelta,
    on_conflict: Literal["fail", "replace"] = "fail",
) -> Signal | None:
    """Wait for a signal; see `stephttp.step.wait_for_signal`. Raises `Suspended`."""
    wait = waits.wait_for_signal(step_id, signal, timeout, on_conflict)
    received: Signal | None = request("wait_for_signal", wait)
    return received


def send_event(step_id: str, events: EventLike | Iterable[EventLike]) -> list[str]:
    """Send one or many events, once; see `stephttp.step.send_event`."""
    checked = check(step_id, events)
    scope = current_scope()
    if scope is None:
        told: list[str] = outside().send_event(step_id, checked)
        return told
    settle_claim(scope, step_id)
    call = StepCall.begin(scope, step_id, check, _EVENT_IDS)

    def send(events: list[Event] = checked) -> list[str]:
        return scope.block(call.send(events))

    sent: list[str] = finish(call, send, events=checked)
    return sent


@overload
def invoke(
    step_id: str,
    *,
    function: Callable[..., Awaitable[T]],
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
) -> T: ...
@overload
def invoke(
    step_id: str,
    *,
    function: Callable[..., T],
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
) -> T: ...
@overload
def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: type[T],
) -> T: ...
@overload
def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any: ...
def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any:
    """Call another function through the server; see `stephttp.step.invoke`."""
    return request("invoke", waits.invoke(step_id, function, data, timeout, v, output_type))


def invoke_by_id(
    step_id: str,
    *,
    app_id: str | None = None,
    function_id: str,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any:
    """Call another function by its id; see `stephttp.step.invoke_by_id`."""
    name = waits.function_slug(step_id, app_id, function_id)
    return request("invoke_by_id", waits.invoke(step_id, name, data, timeout, v, output_type))


def fetch(
    step_id: str,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
) -> FetchResponse:
    """Let the server make an HTTP request; see `stephttp.step.fetch`. Raises `Suspended`."""
    response: FetchResponse = request(
        "fetch", http_steps.fetch(step_id, url, method, headers, body)
    )
    return response
