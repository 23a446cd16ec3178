"""Where stubs and spies come into the life of a step.

Methods of `StepCall` are exchanged while a test is at work, so that no step of an application
pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from stephttp._core.conversion import CONVERSIONS, PLAIN
from stephttp._core.steps import Step
from stephttp._core.waits import Wait
from stephttp._run import hooked_steps
from stephttp._run.hooks import Hooked, Hooks
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._run.step_call import StepCall
from stephttp._wire.opcodes import OpCode
from stephttp.testing.stubs import Stubs


@contextmanager
def stand_ins(runtimes: Iterable[Runtime], stubs: Stubs) -> Generator[None]:
    """Let stubs take the place of the functions of steps, in the runs of these providers."""
    mine = list(runtimes)
    if not _at_work:
        for (owner, name), (_, function) in _SEAMS.items():
            setattr(owner, name, function)
    _at_work.update(dict.fromkeys(mine, stubs))
    try:
        yield
    finally:
        for runtime in mine:
            _at_work.pop(runtime, None)
        if not _at_work:
            for (owner, name), (own, _) in _SEAMS.items():
                setattr(owner, name, own)


def _invoke_in(
    self: StepCall, context: Context, body: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    stubs = _at_work.get(self.scope.runtime)
    if stubs is not None:
        body = stubs.replace(self.step.step_id, body)
    return _own_invoke_in(self, context, body, args, kwargs)


def _wait(kind: type[StepCall], scope: RunScope, wait: Wait) -> StepCall:
    """Come to a step that the server carries out, unless a stub says what it gives."""
    stubbed = _stubbed(scope, wait)
    if stubbed is not None:
        return stubbed
    call: StepCall = _own_wait.__get__(None, kind)(scope, wait)
    return call


def _request(
    scope: RunScope, hooks: Hooks, wait: Wait, cut: Step | None = None
) -> Hooked[StepCall]:
    """Do the same in a run that has middleware, which does not see what is stubbed."""
    stubbed = _stubbed(scope, wait)
    if stubbed is not None:
        return stubbed
    return (yield from _own_request(scope, hooks, wait, cut))


def _stubbed(scope: RunScope, wait: Wait) -> StepCall | None:
    """Come to a step that invokes a function, where a stub is for it."""
    stubs = _at_work.get(scope.runtime)
    if stubs is None or stubs.of(wait.step_id, None) is None:
        return None
    if wait.op is not OpCode.INVOKE_FUNCTION:
        if stubs.give_waits:
            return None
        message = (
            f"step {wait.step_id!r} has a stub, and calls no function that a stub could stand for; "
            f"use {_INSTEAD[wait.op]}"
        )
        raise stubs.complain(AssertionError(message))
    type_ = wait.convert.args[0] if isinstance(wait.convert, partial) else wait.result
    conversion = PLAIN if type_ is Any else CONVERSIONS.of(type_)
    call = StepCall(scope, scope.begin(wait.step_id, None), conversion)
    if call.executes:
        data = msgspec.json.decode(wait.opts["payload"]["data"])
        with call:
            call.complete(stubs.replace(wait.step_id, _invoked, "invoke")(data))
    return call


_INSTEAD = {
    OpCode.SLEEP: "client.advance(...), or let time pass by itself",
    OpCode.WAIT_FOR_EVENT: "client.send_event(...)",
    OpCode.WAIT_FOR_SIGNAL: "client.send_signal(...)",
    OpCode.GATEWAY: "client.stub_url(...)",
    OpCode.AI_GATEWAY: "client.stub_url(...)",
}


def _invoked(data: Any) -> None:
    """Stand for a function that is invoked."""


_at_work: WeakKeyDictionary[Runtime, Stubs] = WeakKeyDictionary()
_own_invoke_in = StepCall.invoke_in
_own_wait = StepCall.__dict__["wait"]
_own_request = hooked_steps.request
_SEAMS: dict[tuple[Any, str], tuple[Any, Any]] = {
    (StepCall, "invoke_in"): (_own_invoke_in, _invoke_in),
    (StepCall, "wait"): (_own_wait, classmethod(_wait)),
    (hooked_steps, "request"): (_own_request, _request),
}
"""What is exchanged: its own, and what takes its place."""
