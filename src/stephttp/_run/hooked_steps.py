"""Steps of a run that has middleware: `before_step`, `transform_output` and `after_step` around
each.

Each holds the run from beginning to end: an `async def` method of a middleware may take its time,
and the handler is not ended meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from stephttp._core.conversion import CONVERSIONS
from stephttp._core.encoding import decode_plain, encode_result
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, Step
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp._run.hooks import Hooked, Hooks, plain_opts
from stephttp._run.scope import RunScope
from stephttp._run.step_call import StepCall
from stephttp._wire.opcodes import OpCode
from stephttp.middleware import StepEnd, StepInfo


def pass_step(
    call: StepCall, hooks: Hooks, body: Callable[..., Any], events: list[Event] | None
) -> Hooked[None]:
    """Run the body of a step where it has to run.

    Args:
        events: what the body is to send, and is then called with.
    """
    with call.scope.group():
        if not call.executes:
            yield from hooks.execute()
            return
        info = _info(call.scope.run, call.step, OpCode.STEP_RUN)
        error: BaseException | None = None
        try:
            with call:
                try:
                    yield from hooks.before_step(info)
                    if events is None:
                        value = yield body
                    else:
                        value = yield from hooks.send_events(events, body)
                    call.complete(value, (yield from _sent(hooks, info, value)))
                except BaseException as raised:
                    error = raised
                    raise
        finally:
            if not isinstance(error, GeneratorExit):
                retried = error is not None and call.suspended
                yield from hooks.after_step(info, StepEnd(error, retried))


def request(scope: RunScope, hooks: Hooks, wait: Wait, cut: Step | None = None) -> Hooked[StepCall]:
    """Come to a step that the server carries out, and request it.

    Args:
        cut: that step, if it was met already and is to begin again.
    """
    branch = scope.come_to(wait.step_id)
    with scope.group():
        with scope.lock:
            run = scope.run
            if cut is not None:
                step = run.renew(cut, scope.now_ns())
            else:
                step = run.resolve(wait.step_id, None, branch, wait.op)
        scope.note_branch(step, branch)
        if step.verdict is not EXECUTE:
            yield from hooks.execute()
            return StepCall(scope, step, CONVERSIONS.of(wait.result), wait.convert)
        info = _info(scope.run, step, wait.op, plain_opts(wait.opts))
        error: BaseException | None = None
        try:
            yield from hooks.before_step(info)
            if hooks.transforms_output:
                yield from hooks.transform_output(info)
                wait = replace(wait, opts=info.opts or {})
            with scope.lock:
                step = scope.run.request(step, wait)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if not isinstance(error, GeneratorExit):
                yield from hooks.after_step(info, StepEnd(error))
    return StepCall(scope, step, CONVERSIONS.of(wait.result), wait.convert)


def _sent(hooks: Hooks, info: StepInfo, value: Any) -> Hooked[bytes | None]:
    """Return what the server gets instead of a step's result; `None` for the result itself."""
    if not hooks.transforms_output:
        return None
    plain = decode_plain(encode_result(value, info.id))
    return encode_result((yield from hooks.transform_output(info, plain)), info.id)


def _info(run: Run, step: Step, op: OpCode, opts: dict[str, Any] | None = None) -> StepInfo:
    attempt = run.earlier.failed_before(step.hash)
    return StepInfo(step.step_id, step.index, step.hash, op, attempt, opts)
