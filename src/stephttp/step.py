"""Step tools for `async def` handlers. `stephttp.sync.step` has the same ones, blocking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from inspect import isawaitable
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from stephttp._client.outgoing_events import check
from stephttp._core import waits
from stephttp._core.inference import AIAdapter
from stephttp._core.values import Event, EventLike, FetchResponse, Signal
from stephttp._run import hooked_steps as hooked
from stephttp._run.current import current_scope, run_scope
from stephttp._run.hooks import drive
from stephttp._run.scope import RunScope, StepCall, StepOptions

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

__all__ = [
    "ai",
    "fetch",
    "invoke",
    "invoke_by_id",
    "options",
    "parallel",
    "run",
    "send_event",
    "sleep",
    "sleep_until",
    "wait_for_event",
    "wait_for_signal",
]

_PLAIN = StepOptions()
_EVENT_IDS = StepOptions(output_type=list[str])


@overload
async def run(
    step_id: str, handler: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
) -> T: ...
@overload
async def run(step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
def run(step_id: str, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a function once in the life of a request, and remember what it returned.

    Outside a request that passes through the middleware the function is simply called.

    All keyword arguments are for `handler`; settings of the step itself, such as its retries, go
    through `options`.

    Args:
        step_id: names the step within the run; a repeated id (in a loop) counts up by itself.
        handler: an async or a plain function. A plain one runs on the event loop, so it must not
            block it. What it returns must have a JSON form: plain data, dataclasses,
            `TypedDict`, `msgspec.Struct`, pydantic models, `datetime`, `Decimal`, `UUID`, `bytes`.
        *args: for `handler`.
        **kwargs: for `handler`.

    Returns:
        What `handler` returned, in the shape of its return annotation (plain JSON values without
        one): the same now and when it is remembered.

    Raises:
        StepError: the step failed for good in an earlier execution.
        StepResultError: the result has no JSON form, or does not fit the annotation.
        NestedStepError: called inside the body of another step.
        Exception: whatever `handler` raised, when no retry is left.
    """
    return _run(_PLAIN, step_id, handler, args, kwargs)


class Options:
    """`step.run` with settings of the step itself; see `options`."""

    def __init__(self, settings: StepOptions) -> None:
        self._settings = settings

    @overload
    async def run(
        self, step_id: str, handler: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def run(
        self, step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    def run(self, step_id: str, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function once, with these settings; see `stephttp.step.run`."""
        return _run(self._settings, step_id, handler, args, kwargs)


class TypedOptions(Generic[T]):
    """`step.run` with settings of the step itself, one of which is its result's type."""

    def __init__(self, settings: StepOptions) -> None:
        self._settings = settings

    async def run(
        self, step_id: str, handler: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function once, with these settings; see `stephttp.step.run`."""
        result: T = await _run(self._settings, step_id, handler, args, kwargs)
        return result


@overload
def options(*, retries: int | None = None) -> Options: ...
@overload
def options(*, retries: int | None = None, output_type: type[T]) -> TypedOptions[T]: ...
@overload
def options(*, retries: int | None = None, output_type: Any) -> TypedOptions[Any]: ...
def options(*, retries: int | None = None, output_type: Any = Any) -> Any:
    """Settings of one step: `step.options(retries=3).run("id", function, ...)`.

    Args:
        retries: how often it is tried again when it fails, 0 to 20; `None` for the endpoint's
            number (`stephttp.configure`).
        output_type: the type of its result, where `handler` has no return annotation or another
            one is wanted.

    Returns:
        An object with `run`, which takes what `step.run` takes. It can be kept and shared.

    Raises:
        ValueError: `retries` is out of range.
    """
    settings = StepOptions(retries, output_type)
    return Options(settings) if output_type is Any else TypedOptions[Any](settings)


async def sleep(step_id: str, duration: timedelta) -> None:
    """Let the run sleep. The caller is redirected; the handler goes on in a later call.

    Args:
        step_id: names the step within the run.
        duration: at most 366 days; zero or negative ends at once.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        TypeError: `duration` is not a `timedelta`.
        ValueError: `duration` is too long.
    """
    await _wait("sleep", waits.sleep(step_id, duration))


async def sleep_until(step_id: str, until: datetime) -> None:
    """Let the run sleep until a point in time.

    Args:
        step_id: names the step within the run.
        until: with a time zone; at most 366 days ahead. A time that has passed ends at once.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        TypeError: `until` is not a `datetime`.
        ValueError: `until` has no time zone.
    """
    await _wait("sleep_until", waits.sleep_until(step_id, until))


async def wait_for_event(
    step_id: str, *, event: str, timeout: timedelta, if_exp: str | None = None
) -> Event | None:
    """Wait for an event that is sent after this point.

    Args:
        step_id: names the step within the run.
        event: the event's name.
        timeout: at most 366 days.
        if_exp: a CEL expression that a matching event makes true: `async` is that event, `event`
            the one behind this run (the HTTP request). For example `async.data.id == '7'`.

    Returns:
        The event, or `None` at the timeout.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        TypeError: an argument has another type.
        ValueError: an argument is empty, or the timeout too long.
        StepError: the server refused the wait.
    """
    wait = waits.wait_for_event(step_id, event, timeout, if_exp)
    received: Event | None = await _wait("wait_for_event", wait)
    return received


async def wait_for_signal(
    step_id: str,
    *,
    signal: str,
    timeout: timedelta,
    on_conflict: Literal["fail", "replace"] = "fail",
) -> Signal | None:
    """Wait for a signal: what exactly one run waits for, by a name of your own.

    Args:
        step_id: names the step within the run.
        signal: the signal's name. It is sent with `POST /v1/signals`.
        timeout: at most 366 days.
        on_conflict: when another run waits for it already: `fail` this one, or `replace` that one.

    Returns:
        The signal, or `None` at the timeout.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        TypeError: an argument has another type.
        ValueError: an argument is empty or none of those listed, or the timeout too long.
        StepError: another run waits for it already.
    """
    wait = waits.wait_for_signal(step_id, signal, timeout, on_conflict)
    received: Signal | None = await _wait("wait_for_signal", wait)
    return received


async def send_event(step_id: str, events: EventLike | Iterable[EventLike]) -> list[str]:
    """Send one or many events, once in the life of a request.

    An event without an id gets one that depends on the run and the step, so that receivers can
    tell an event that was sent twice, because the first answer was lost.

    Args:
        step_id: names the step within the run.
        events: at most 5000; `inngest.Event` will do, too.

    Returns:
        The server's id of each event, in order.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        ConfigurationError: no event key is configured.
        APIError: they could not be sent, and no retry is left.
        StepError: the same, remembered from an earlier execution.
        TypeError: something in `events` is no event.
        ValueError: there are none or too many, or one is not acceptable.
    """
    checked = check(step_id, events)
    scope = run_scope("send_event")
    await _claimed(scope)
    call = scope.resolve(step_id, send_event, _EVENT_IDS)

    def send(events: list[Event] = checked) -> Awaitable[list[str]]:
        return scope.drive(call.send(events))

    sent: list[str] = await _finish(call, send, events=checked)
    return sent


@overload
async def invoke(
    step_id: str,
    *,
    function: Callable[..., Awaitable[T]],
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
) -> T: ...
@overload
async def invoke(
    step_id: str,
    *,
    function: Callable[..., T],
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
) -> T: ...
@overload
async def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: type[T],
) -> T: ...
@overload
async def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any: ...
async def invoke(
    step_id: str,
    *,
    function: Any,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any:
    """Call another function through the server, and wait for what it returns.

    Args:
        step_id: names the step within the run.
        function: a durable endpoint of ours that has an id, or an `inngest.Function`.
        data: becomes `event.data` of the function. Must have a JSON form.
        timeout: at most 366 days; without one, as long as the server allows (a year).
        v: becomes `event.v`.
        output_type: the type of the result, where `function` does not say it.

    Returns:
        What the function returned. Of a durable endpoint it is the body of its response: what
        its handler returned.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        StepError: the function failed, is not known, or took too long; or the endpoint answered
            with a status of 400 or more.
        TypeError: an argument has another type.
        ValueError: an argument is not acceptable.
    """
    return await _wait("invoke", waits.invoke(step_id, function, data, timeout, v, output_type))


async def invoke_by_id(
    step_id: str,
    *,
    app_id: str | None = None,
    function_id: str,
    data: Mapping[str, Any] | None = None,
    timeout: timedelta | None = None,
    v: str | None = None,
    output_type: Any = Any,
) -> Any:
    """Call another function through the server by its id, and wait for what it returns.

    Args:
        step_id: names the step within the run.
        app_id: the app to which the function belongs; without it, `function_id` is taken as the
            server knows it (`app-function`).
        function_id: the function.
        data: becomes `event.data` of the function. Must have a JSON form.
        timeout: at most 366 days; without one, as long as the server allows (a year).
        v: becomes `event.v`.
        output_type: the type of the result; plain JSON without one.

    Returns:
        What the function returned.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        StepError: the function failed, is not known, or took too long.
        TypeError: an argument has another type.
    """
    name = waits.function_slug(step_id, app_id, function_id)
    return await _wait("invoke_by_id", waits.invoke(step_id, name, data, timeout, v, output_type))


async def fetch(
    step_id: str,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
) -> FetchResponse:
    """Let the server make an HTTP request while this handler does not run.

    Args:
        step_id: names the step within the run.
        url: an address that the server can reach.
        method: HTTP method.
        headers: of the request. They are stored with the run.
        body: text.

    Returns:
        The answer, whatever its status.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        StepError: there was no answer.
        TypeError: an argument has another type.
        ValueError: `url` is not an address.
    """
    response: FetchResponse = await _wait("fetch", waits.fetch(step_id, url, method, headers, body))
    return response


class AI:
    """Calls of models; use it as `step.ai`."""

    async def infer(
        self,
        step_id: str,
        *,
        adapter: AIAdapter,
        body: Mapping[str, Any],
        output_type: Any = Any,
    ) -> Any:
        """Let the server call a model while this handler does not run.

        Args:
            step_id: names the step within the run.
            adapter: how the provider is called: a `stephttp.ModelAdapter`, or an adapter of
                `inngest.experimental.ai`. Its key is stored with the run.
            body: the request in the provider's own form.
            output_type: the type of the answer; plain JSON without one.

        Returns:
            The provider's answer.

        Raises:
            OutsideRunError: called outside a request that passes through the middleware.
            CannotWaitError: the response has begun, so the caller can no longer be redirected.
            StepError: the provider did not answer with success; `data` is its answer.
            ValueError: `body` has no JSON form.
        """
        return await _wait("ai.infer", waits.infer(step_id, adapter, body, output_type))


ai = AI()
"""Calls of models, carried out by the server."""


@overload
async def parallel(callables: tuple[Callable[[], Awaitable[A]]]) -> tuple[A]: ...
@overload
async def parallel(
    callables: tuple[Callable[[], Awaitable[A]], Callable[[], Awaitable[B]]],
) -> tuple[A, B]: ...
@overload
async def parallel(
    callables: tuple[
        Callable[[], Awaitable[A]], Callable[[], Awaitable[B]], Callable[[], Awaitable[C]]
    ],
) -> tuple[A, B, C]: ...
@overload
async def parallel(
    callables: tuple[
        Callable[[], Awaitable[A]],
        Callable[[], Awaitable[B]],
        Callable[[], Awaitable[C]],
        Callable[[], Awaitable[D]],
    ],
) -> tuple[A, B, C, D]: ...
@overload
async def parallel(callables: Iterable[Callable[[], Awaitable[T]]]) -> tuple[T, ...]: ...
async def parallel(callables: Iterable[Callable[[], Awaitable[Any]]]) -> tuple[Any, ...]:
    """Run several branches of steps at once.

    `asyncio.gather` and task groups over steps do as well. This one lets the other branches come
    to their end when one fails, so that their steps are recorded, and then raises the first
    failure in the order of the branches.

    Args:
        callables: each makes a branch, for example `lambda: step.run("a", a)`. Branches that use
            the same step id get their numbers in the order in which they come to it; give them
            ids of their own.

    Returns:
        The result of each branch, in order.

    Raises:
        Exception: what the first failed branch raised.
    """
    import asyncio

    results = await asyncio.gather(*map(_call, callables), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return tuple(results)


async def _run(
    settings: StepOptions, step_id: str, handler: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    scope = current_scope()
    if scope is None:
        return await _call(handler, *args, **kwargs)
    if scope.claim is not None:
        await _claimed(scope)
    call = scope.resolve(step_id, handler, settings)
    return await _finish(call, call.invoke, (handler, args, kwargs))


async def _finish(
    call: StepCall,
    body: Callable[..., Any],
    args: tuple[Any, ...] = (),
    events: list[Event] | None = None,
) -> Any:
    if call.scope.hooks is not None:
        body = partial(body, *args)
        await drive(hooked.pass_step(call, call.scope.hooks, body, events))
    elif call.executes:
        with call:
            value = body(*args)
            call.complete(await value if isawaitable(value) else value)
    if call.suspended:
        await call.scope.park()
    return call.result()


async def _wait(tool: str, wait: waits.Wait) -> Any:
    scope = run_scope(tool)
    await _claimed(scope)
    if scope.hooks is None:
        call = scope.wait(wait)
    else:
        call = await drive(hooked.ask(scope, scope.hooks, wait))
    if call.suspended:
        await call.scope.park()
    return call.result()


async def _claimed(scope: RunScope) -> None:
    """Let only a run go on that may answer its request; see `configure(idempotency=)`."""
    if scope.claim is not None and not await scope.drive(scope.settle_claim()):
        await scope.park()


async def _call(body: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    value = body(*args, **kwargs)
    return await value if isawaitable(value) else value
