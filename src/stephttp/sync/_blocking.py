"""Shared parts of the blocking tools: `run` itself, and the error for an `async def` function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from types import CoroutineType
from typing import Any

from stephttp._core.step_options import StepOptions
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp._run import hooked_steps as hooked
from stephttp._run.branches import suspension, take_turn
from stephttp._run.current import current_scope, run_scope
from stephttp._run.fences import pass_fence_blocking
from stephttp._run.hooks import drive_blocking
from stephttp._run.own_context import InContext
from stephttp._run.scope import RunScope
from stephttp._run.step_call import StepCall
from stephttp._run.supervised import is_async, supervise_blocking


def run_step(
    options: StepOptions, step_id: str, handler: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Run a function once, with these options of the step; see `stephttp.step.run`."""
    if is_async(handler):
        raise async_refused(f"step {step_id!r}")
    scope = current_scope()
    if scope is None:
        if options.supervised:
            invoke = partial(handler, *args, **kwargs)
            return supervise_blocking(options, step_id, monotonic_ns, invoke)
        return refuse_coroutine(handler(*args, **kwargs), f"step {step_id!r}")
    if scope.claim is not None:
        settle_claim(scope, step_id)
    call = StepCall.begin(scope, step_id, handler, options)
    body: Callable[..., Any] = call.invoke
    if options.supervised:
        clock = scope.runtime.monotonic_ns
        body = partial(supervise_blocking, options, step_id, clock, body)
    return finish(call, body, (handler, args, kwargs))


def async_refused(what: str) -> TypeError:
    """Return what is raised for an async function that a blocking tool was given.

    Args:
        what: whose function it is.
    """
    return TypeError(
        f"{what}: the tools of stephttp.sync cannot run an async function; use the "
        "async tools (from stephttp import step) in an async handler, or a plain function"
    )


def refuse_coroutine(value: Any, what: str) -> Any:
    """Return what a function returned, unless that would have to be awaited: a `lambda` calls an
    async function without being one.

    Raises:
        TypeError: it is a coroutine, which has done nothing.
    """
    if not isinstance(value, CoroutineType | InContext):
        return value
    value.close()
    raise async_refused(what)


def finish(
    call: StepCall,
    body: Callable[..., Any],
    args: tuple[Any, ...] = (),
    events: list[Event] | None = None,
) -> Any:
    """Run the body of a step where it has to run, and return what the handler gets."""
    scope = call.scope
    if scope.fence is not None and call.executes and scope.fence.closed:
        pass_fence_blocking(scope.fence, call)
    if scope.hooks is not None:
        body = partial(body, *args)
        drive_blocking(hooked.pass_step(call, scope.hooks, body, events), scope.wait_for)
    elif call.executes:
        with call:
            value = body(*args)
            if type(value) is InContext:
                refuse_coroutine(value, f"step {call.step.step_id!r}")
            call.complete(value)
    if call.suspended:
        raise call.suspension()
    if not call.executes:
        if call.cut:
            call.begin_again()
            return finish(call, body, args, events)
        take_turn(scope, call.step)
    return call.result()


def request(tool: str, wait: Wait) -> Any:
    """Have the server carry out a step, and return what came of it."""
    scope = run_scope(tool)
    settle_claim(scope, wait.step_id)
    if wait.only_ours is not None and not scope.runtime.checkpoints.keys.features:
        from stephttp._run.plain_calls import refusal

        if (refusing := refusal(scope, wait.step_id, wait.only_ours)) is not None:
            with scope.group():
                scope.block(refusing)
    if scope.hooks is None:
        call = StepCall.wait(scope, wait)
    else:
        call = drive_blocking(hooked.request(scope, scope.hooks, wait), scope.wait_for)
    if call.cut:  # by code that was async, or by a race that is gone
        if scope.hooks is None:
            call.wait_again(wait)
        else:
            again = hooked.request(scope, scope.hooks, wait, call.step)
            call = drive_blocking(again, scope.wait_for)
    if call.suspended:
        raise call.suspension()
    take_turn(scope, call.step)
    return call.result()


def settle_claim(scope: RunScope, step_id: str) -> None:
    """Stop a run that may not answer its request; see `configure(idempotency=)`."""
    if scope.claim is None:
        return
    if not scope.block(scope.settle_claim()):
        raise suspension(scope, f"step {step_id!r}")
