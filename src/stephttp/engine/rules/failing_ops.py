"""Ops that tell of failures: of a step, or of the handler itself. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from stephttp._wire.opcodes import ErrorInfo, Op, OpCode
from stephttp.engine.model.inputs import Origin
from stephttp.engine.model.run import (
    RESUME,
    TARGETED,
    Entry,
    Past,
    Refused,
    RunStatus,
    Timer,
    TimerKind,
)
from stephttp.engine.rules import due_times
from stephttp.engine.rules.change_builder import Draft
from stephttp.engine.rules.results import error_json, error_memo

HANDLER_FAILURES = frozenset({OpCode.STEP_ERROR, OpCode.STEP_FAILED})
"""With the id of "complete" in a checkpoint, these are not about a step; see `handler_failed`."""


def step_failed(draft: Draft, op: Op, field: str) -> None:
    """`StepFailed`: nobody tries this step again."""
    if op.error is None:
        raise Refused(f"{field}.error: a {op.op.value} needs an error")
    fresh = not draft.settled(op)
    draft.save(op, field, b'{"error":' + error_memo(op.error) + b"}")
    if fresh and draft.origin is Origin.ANSWER:
        draft.again = True


def handler_failed(draft: Draft, op: Op) -> None:
    """The handler itself failed while it answered the first request."""
    error = op.error or ErrorInfo()
    # JS sends no more than `{}` as its error.
    name, message = error.name or "Error", error.message or "the handler failed"
    if op.op is OpCode.STEP_FAILED or error.no_retry is True or draft.run.retries == 0:
        draft.end(RunStatus.FAILED, None, error_json(name, message))
        return
    draft.resume(draft.at.settings.retry.delay_ms(0, draft.at.rng))
    draft.run = replace(draft.run, attempt=1, last_error=f"{name}: {message}")
    now_ms = draft.at.now_ms
    shown = error_memo(ErrorInfo(name, message, error.stack))
    draft.history.append(Entry(Past.REQUEST, RESUME, "", 0, now_ms, now_ms, shown))


def step_error(draft: Draft, op: Op, field: str) -> None:
    """`StepError`: the step is tried again later, if attempts are left."""
    if op.error is None:
        raise Refused(f"{field}.error: a {op.op.value} needs an error")
    if draft.settled(op):
        return
    timer = draft.timers.get(op.id)
    if timer is not None and timer.kind not in TARGETED:
        draft.waits = True
        return
    failures = draft.known[op.id].attempts + 1 if op.id in draft.known else 1
    limit, asked_ms = due_times.retry_wishes(op, field, draft.run.retries, draft.at.now_ms)
    final = draft.hints.no_retry or op.error.no_retry is True or failures > limit
    if final:
        step_failed(draft, op, field)
        draft.again = True
        return
    draft.write(op, field, failures, None)
    draft.failed_attempt(op, failures - 1)
    delay = draft.hints.retry_after_ms if asked_ms is None else asked_ms
    if delay is None:
        delay = draft.at.settings.retry.delay_ms(failures - 1, draft.at.rng)
    due_ms = draft.at.now_ms + delay
    if timer is not None:
        draft.start(replace(timer, due_ms=due_ms, attempt=timer.attempt + 1, unreached=0))
    else:
        draft.start(Timer(op.id, TimerKind.RETRY, due_ms))
    draft.waits = True
