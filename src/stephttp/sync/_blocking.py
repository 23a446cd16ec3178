"""Shared parts of the blocking tools: `run` itself, and the steps that the server carries out."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import CoroutineType
from typing import Any

from stephttp._core.step_options import StepOptions
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp._run import hooked_steps as hooked
from stephttp._run.branches import suspension, take_turn
from stephttp._run.current import current_scope
from stephttp._run.fences import pass_fence_blocking
from stephttp._run.hooks import drive_blocking
from stephttp._run.own_context import InContext
from stephttp._run.scope import RunScope
from stephttp._run.step_call import StepCall
from stephttp._run.supervised import is_async, supervise_blocking
from stephttp.sync._outside import outside
from stephttp.sync._plain_functions import async_refused, refuse_coroutine


def run_step(
    options: StepOptions, step_id: str, handler: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Run a function once, with these options of the step; see `stephttp.step.run`."""
    if is_async(handler):
        raise async_refused(f"step {step_id!r}")
    scope = current_scope()
    if scope is None:
        return outside().run(options, step_id, handler, args, kwargs)
    if scope.claim is not None:
        settle_claim(scope, step_id)
    call = StepCall.begin(scope, step_id, handler, options)
    if scope.hooks is None and not options.supervised:
        return finish(call, call.invoke_in, (copy_context(), handler, args, kwargs))
    body: Callable[..., Any] = call.invoke
    if options.supervised:
        clock = scope.runtime.monotonic_ns
        body = partial(supervise_blocking, options, step_id, clock, body)
    return finish(call, body, (handler, args, kwargs))


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
        call.began()  # a `with` takes more instructions
        try:
            value = body(*args)
            if type(value) is CoroutineType or type(value) is InContext:
                refuse_coroutine(value, f"step {call.step.step_id!r}")
            call.complete(value)
        except BaseException as error:
            if not call.ended(error):
                raise
        else:
            call.ended(None)
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
    scope = current_scope()
    if scope is None:
        return outside().request(tool, wait)
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
