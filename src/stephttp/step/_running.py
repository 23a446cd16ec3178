"""`step.run`, `send_event` and `parallel`, async: steps that run in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from inspect import isawaitable
from typing import Any, ParamSpec, TypeVar, overload

from stephttp._client.outgoing_events import check
from stephttp._core.step_options import StepOptions
from stephttp._core.tool_types import Event, EventLike
from stephttp._run import hooked_steps as hooked
from stephttp._run.current import current_scope
from stephttp._run.fences import pass_fence
from stephttp._run.hooks import drive
from stephttp._run.own_context import InContext
from stephttp._run.scope import RunScope
from stephttp._run.step_call import ENDED, StepCall
from stephttp._run.supervised import refuse_thread, supervise
from stephttp.step._branches import outside, side_by_side

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

_begin = StepCall.begin  # to look it up each time takes more instructions
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
            block it; one that does needs `options(thread=True)`. What it returns must have a JSON
            form: plain data, dataclasses, `TypedDict`, `msgspec.Struct`, pydantic models,
            `datetime`, `Decimal`, `UUID`, `bytes`.
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
    return run_step(_PLAIN, step_id, handler, args, kwargs)


async def send_event(step_id: str, events: EventLike | Iterable[EventLike]) -> list[str]:
    """Send one or many events, once in the life of a request.

    An event without an id gets one that depends on the run and the step, so that receivers can
    recognise an event that was sent twice because the first answer was lost.

    Args:
        step_id: names the step within the run.
        events: 1 to 5000; `inngest.Event` is accepted, too.

    Returns:
        The server's id of each event, in order.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        ConfigurationError: no event key is configured.
        APIError: they could not be sent, and no retry is left.
        StepError: the same, remembered from an earlier execution.
        TypeError: something in `events` is not an event.
        ValueError: no event or too many, or one that is not acceptable.
    """
    checked = check(step_id, events)
    scope = current_scope()
    if scope is None:
        told: list[str] = await outside().send_event(step_id, checked)
        return told
    await before_step(scope)
    call = StepCall.begin(scope, step_id, send_event, _EVENT_IDS)

    def send(events: list[Event] = checked) -> Awaitable[list[str]]:
        return scope.drive(call.send(events))

    sent: list[str] = await _finish(call, send, events=checked)
    return sent


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

    `asyncio.gather` and task groups over steps work as well. This one lets the other branches
    end when one fails, so that their steps are recorded, and then raises the first failure in
    the order of the branches.

    Args:
        callables: each makes a branch, for example `lambda: step.run("a", a)`. Branches may use
            the same step ids; with the stephttp engine each gets its own results in every call.

    Returns:
        The result of each branch, in order.

    Raises:
        Exception: what the first failed branch raised.
    """
    scope = current_scope()
    if scope is None:
        results: tuple[Any, ...] = await outside().parallel(callables)
        return results
    return await side_by_side(scope, callables)


async def run_step(
    options: StepOptions, step_id: str, handler: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Run a function once, with these options of the step; see `run`."""
    supervised = options.supervised
    if supervised and options.thread:
        refuse_thread(step_id, handler)
    scope = current_scope()
    if scope is None:
        return await outside().run(options, step_id, handler, args, kwargs)
    if scope.claim is not None or scope.turns is not None:
        await before_step(scope)
    call = _begin(scope, step_id, handler, options)
    body = call.start
    if supervised or scope.hooks is not None:
        body = _attended(call, options)
    return await _finish(call, body, (handler, args, kwargs))


def _attended(call: StepCall, options: StepOptions) -> Callable[..., Any]:
    """Return what calls the function of a step that needs more than to be called."""
    invoke: Callable[..., Any] = call.invoke
    scope, step_id = call.scope, call.step.step_id
    if scope.loop_watch is not None and not options.thread:
        invoke = partial(scope.loop_watch.timed, step_id, invoke)
    if not options.supervised:
        return invoke
    return partial(supervise, options, step_id, scope.runtime.monotonic_ns, invoke)


async def _finish(
    call: StepCall,
    body: Callable[..., Any],
    args: tuple[Any, ...] = (),
    events: list[Event] | None = None,
) -> Any:
    scope = call.scope
    if scope.turns is not None and call.executes:
        scope.turns.kept.cancel_late()
    if scope.fence is not None and call.executes and scope.fence.closed:
        await pass_fence(scope.fence, call)
    try:
        if scope.hooks is not None:
            await drive(hooked.pass_step(call, scope.hooks, partial(body, *args), events))
        elif call.executes:
            call.began()  # a `with` takes more instructions
            try:
                value = body(*args)
                if value is ENDED:
                    value = call.returned
                elif type(value) is InContext or isawaitable(value):
                    value = await value
                elif scope.loop_watch is not None:
                    scope.loop_watch.note(call.step.step_id, args[0], call.started_ns)
                call.complete(value)
            except BaseException as error:
                if not call.ended(error):
                    raise
            else:
                call.ended(None)
    except BaseException as error:
        if call.executes and not isinstance(error, GeneratorExit):
            await _come_after(call, ended=isinstance(error, Exception))
        raise
    if call.executes and (scope.turns is not None or scope.run.beside):
        await scope.come_after(call.step, ended=True)
    if call.suspended:
        await scope.suspend(call.step)
    elif not call.executes:
        if call.cut:
            await scope.park(call.step)
            call.begin_again()
            return await _finish(call, body, args, events)
        if (turn := scope.turn(call.step, args[0] if args else None)) is not None:
            await turn
    return call.result()


async def _come_after(call: StepCall, *, ended: bool) -> None:
    """Let the end of a step that failed or was cut off come after those beside it."""
    scope = call.scope
    if scope.turns is not None or scope.run.running:
        await scope.come_after(call.step, ended=ended)


async def before_step(scope: RunScope) -> None:
    """Do what comes before a step is met. It stops a run that may not answer its request; see
    `configure(idempotency=)`."""
    if scope.turns is not None:
        await scope.turns.let_others_begin()
    if scope.claim is not None and not await scope.drive(scope.settle_claim()):
        await scope.suspend()
