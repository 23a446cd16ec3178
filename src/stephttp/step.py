"""Step tools for `async def` handlers. `stephttp.sync.step` has the same ones, blocking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from inspect import isawaitable
from typing import Any, ParamSpec, TypeVar, overload

from stephttp._context import current_run, run_scope

P = ParamSpec("P")
T = TypeVar("T")

__all__ = ["run", "sleep", "sleep_until"]


@overload
async def run(
    step_id: str, handler: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
) -> T: ...
@overload
async def run(step_id: str, handler: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
async def run(step_id: str, handler: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run a function once in the life of a request, and remember what it returned.

    Outside a request that passes through the middleware the function is simply called.

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
    scope = current_run.get()
    if scope is None:
        return await _call(handler, args, kwargs)
    if scope.claim is not None and not await scope.settle_claim():
        await scope.park()
    call = scope.meet(step_id, handler)
    if call.executes:
        with call:
            call.complete(await _call(handler, args, kwargs))
    if call.suspended:
        await scope.park()
    return call.result()


async def sleep(step_id: str, duration: timedelta) -> None:
    """Let the run sleep. The caller is redirected; the handler goes on in a later call.

    Args:
        step_id: names the step within the run.
        duration: at most 366 days; zero or negative ends at once.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        ValueError: `duration` is too long.
    """
    await _wait("sleep", step_id, duration)


async def sleep_until(step_id: str, until: datetime) -> None:
    """Let the run sleep until a point in time.

    Args:
        step_id: names the step within the run.
        until: with a time zone; at most 366 days ahead. A time that has passed ends at once.

    Raises:
        OutsideRunError: called outside a request that passes through the middleware.
        CannotWaitError: the response has begun, so the caller can no longer be redirected.
        ValueError: `until` has no time zone.
    """
    await _wait("sleep_until", step_id, until)


async def _wait(tool: str, step_id: str, until: timedelta | datetime) -> None:
    scope = run_scope(tool)
    if scope.claim is not None and not await scope.settle_claim():
        await scope.park()
    call = scope.sleep(step_id, until)
    if call.suspended:
        await scope.park()
    call.result()


async def _call(handler: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    value = handler(*args, **kwargs)
    return await value if isawaitable(value) else value
