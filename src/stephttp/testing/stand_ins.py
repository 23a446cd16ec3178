"""Where stubs come into the life of a step.

The methods of `StepCall` are exchanged while a test is at work, so that no step of an application
pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from stephttp._core.conversion import CONVERSIONS, PLAIN
from stephttp._core.waits import Wait
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
        vars_of_class = {"_invoke": _invoke, "wait": classmethod(_wait)}
        for name, function in vars_of_class.items():
            setattr(StepCall, name, function)
    _at_work.update(dict.fromkeys(mine, stubs))
    try:
        yield
    finally:
        for runtime in mine:
            _at_work.pop(runtime, None)
        if not _at_work:
            StepCall._invoke = _own_invoke  # type: ignore[method-assign]
            StepCall.wait = _own_wait  # type: ignore[method-assign]


_at_work: WeakKeyDictionary[Runtime, Stubs] = WeakKeyDictionary()
_own_invoke = StepCall._invoke
_own_wait = StepCall.__dict__["wait"]


def _invoke(self: StepCall, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    stubs = _at_work.get(self.scope.runtime)
    if stubs is not None:
        body = stubs.replace(self.step.step_id, body)
    return _own_invoke(self, body, args, kwargs)


def _wait(kind: type[StepCall], scope: RunScope, wait: Wait) -> StepCall:
    """Come to a step that the server carries out, unless a stub says what it gives."""
    stubs = _at_work.get(scope.runtime)
    stub = None if stubs is None else stubs.of(wait.step_id, None)
    if stubs is None or stub is None or wait.op is not OpCode.INVOKE_FUNCTION:
        call: StepCall = _own_wait.__get__(None, kind)(scope, wait)
        return call
    type_ = wait.convert.args[0] if isinstance(wait.convert, partial) else wait.result
    conversion = PLAIN if type_ is Any else CONVERSIONS.of(type_)
    made = kind(scope, scope.begin(wait.step_id, None), conversion)
    if made.executes:
        data = msgspec.json.decode(wait.opts["payload"]["data"])
        with made:
            made.complete(stubs.replace(wait.step_id, _invoked, "invoke")(data))
    return made


def _invoked(data: Any) -> None:
    """Stand for a function that is invoked."""
