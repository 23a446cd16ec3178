"""The step tools, blocking: each does what the one of the same name in `stephttp.step` does.

Those that wait raise `stephttp.Suspended` to end this call of the handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from inspect import CO_COROUTINE, iscoroutinefunction
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from stephttp._client.outgoing_events import check
from stephttp._core import waits
from stephttp._core.inference import AIAdapter
from stephttp._core.tool_types import Event, EventLike, FetchResponse, Signal
from stephttp._run import hooked_steps as hooked
from stephttp._run.current import current_scope, present_ns, run_scope
from stephttp._run.hooks import drive_blocking
from stephttp._run.step_call import StepCall, StepOptions
from stephttp.sync._claims import settle_claim
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


class SyncStepRunner:
    """`step.run` with settings of the step itself; see `stephttp.step.options`."""

    def __init__(self, settings: StepOptions) -> None:
        self._settings = settings

    def run(self, step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function once, with these settings; see `stephttp.step.run`."""
        result: T = _run(self._settings, step_id, handler, args, kwargs)
        return result


class SyncTypedStepRunner(Generic[T]):
    """`step.run` with settings of the step itself, one of which is its result's type."""

    def __init__(self, settings: StepOptions) -> None:
        self._settings = settings

    def run(
        self, step_id: str, handler: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function once, with these settings; see `stephttp.step.run`."""
        result: T = _run(self._settings, step_id, handler, args, kwargs)
        return result


class SyncAI:
    """Calls of models; use it as `step.ai`."""

    @staticmethod
    def infer(
        step_id: str, *, adapter: AIAdapter, body: Mapping[str, Any], output_type: Any = Any
    ) -> Any:
        """Let the server call a model; see `stephttp.step.ai`. Raises `Suspended`."""
        return _request("ai.infer", waits.infer(step_id, adapter, body, output_type))


ai = SyncAI()
"""Calls of models, carried out by the server."""


def run(step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function once in the life of a request; see `stephttp.step.run`.

    Raises:
        Suspended: the step failed and will be retried in a later call of the handler.
    """
    result: T = _run(_PLAIN, step_id, handler, args, kwargs)
    return result


@overload
def options(*, retries: int | None = None) -> SyncStepRunner: ...
@overload
def options(*, retries: int | None = None, output_type: type[T]) -> SyncTypedStepRunner[T]: ...
@overload
def options(*, retries: int | None = None, output_type: Any) -> SyncTypedStepRunner[Any]: ...
def options(*, retries: int | None = None, output_type: Any = Any) -> Any:
    """Set options of one step, followed by `.run(...)`; see `stephttp.step.options`."""
    settings = StepOptions(retries, output_type)
    return SyncStepRunner(settings) if output_type is Any else SyncTypedStepRunner[Any](settings)


def sleep(step_id: str, duration: timedelta) -> None:
    """Let the run sleep; see `stephttp.step.sleep`. Raises `Suspended` to end this call."""
    _request("sleep", waits.sleep(step_id, duration))


def sleep_until(step_id: str, until: datetime) -> None:
    """Let the run sleep until a time; see `stephttp.step.sleep_until`. Raises `Suspended`."""
    _request("sleep_until", waits.sleep_until(step_id, until, present_ns()))


def wait_for_event(
    step_id: str, *, event: str, timeout: timedelta, if_exp: str | None = None
) -> Event | None:
    """Wait for an event; see `stephttp.step.wait_for_event`. Raises `Suspended`."""
    wait = waits.wait_for_event(step_id, event, timeout, if_exp)
    received: Event | None = _request("wait_for_event", wait)
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
    received: Signal | None = _request("wait_for_signal", wait)
    return received


def send_event(step_id: str, events: EventLike | Iterable[EventLike]) -> list[str]:
    """Send one or many events, once; see `stephttp.step.send_event`."""
    checked = check(step_id, events)
    scope = run_scope("send_event")
    settle_claim(scope, step_id)
    call = StepCall.begin(scope, step_id, check, _EVENT_IDS)

    def send(events: list[Event] = checked) -> list[str]:
        return scope.block(call.send(events))

    sent: list[str] = _finish(call, send, events=checked)
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
    return _request("invoke", waits.invoke(step_id, function, data, timeout, v, output_type))


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
    return _request("invoke_by_id", waits.invoke(step_id, name, data, timeout, v, output_type))


def fetch(
    step_id: str,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
) -> FetchResponse:
    """Let the server make an HTTP request; see `stephttp.step.fetch`. Raises `Suspended`."""
    response: FetchResponse = _request("fetch", waits.fetch(step_id, url, method, headers, body))
    return response


def _run(
    settings: StepOptions, step_id: str, handler: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    if _is_async(handler):
        raise TypeError(
            f"step {step_id!r}: the tools of stephttp.sync cannot run an async function; use the "
            "async tools (from stephttp import step) in an async handler, or a plain function"
        )
    scope = current_scope()
    if scope is None:
        return handler(*args, **kwargs)
    if scope.claim is not None:
        settle_claim(scope, step_id)
    call = StepCall.begin(scope, step_id, handler, settings)
    return _finish(call, call.invoke, (handler, args, kwargs))


def _is_async(handler: Callable[..., Any]) -> bool:
    """Return whether `handler` is an `async def` function, wrapped or bound."""
    code = getattr(handler, "__code__", None)
    if code is not None:  # a function or a method; `inspect` takes twenty times as long
        return bool(code.co_flags & CO_COROUTINE)
    return iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__)


def _finish(
    call: StepCall,
    body: Callable[..., Any],
    args: tuple[Any, ...] = (),
    events: list[Event] | None = None,
) -> Any:
    scope = call.scope
    if scope.hooks is not None:
        body = partial(body, *args)
        drive_blocking(hooked.pass_step(call, scope.hooks, body, events), scope.wait_for)
    elif call.executes:
        with call:
            call.complete(body(*args))
    if call.suspended:
        raise call.suspension()
    if not call.executes:
        if call.cut:
            call.begin_again()
            return _finish(call, body, args, events)
        scope.take_turn(call.step)
    return call.result()


def _request(tool: str, wait: waits.Wait) -> Any:
    scope = run_scope(tool)
    settle_claim(scope, wait.step_id)
    if scope.hooks is None:
        call = StepCall.wait(scope, wait)
    else:
        call = drive_blocking(hooked.request(scope, scope.hooks, wait), scope.wait_for)
    if call.cut:  # by code that was async, or by a race that is gone
        if scope.hooks is None:
            call.wait_again(wait)
        else:
            request = hooked.request(scope, scope.hooks, wait, call.step)
            call = drive_blocking(request, scope.wait_for)
    if call.suspended:
        raise call.suspension()
    scope.take_turn(call.step)
    return call.result()
