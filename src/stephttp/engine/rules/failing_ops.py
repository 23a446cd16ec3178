"""Ops of failures: a step that failed, with attempts left or without, or the handler itself.
Pure.
"""

from __future__ import annotations

from msgspec.structs import replace

from stephttp._wire.opcodes import ErrorInfo, Op, OpCode
from stephttp.engine.model.change import Entry, Past
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import RunStatus, Step
from stephttp.engine.model.timer import RESUME, TARGETED, Timer, TimerKind
from stephttp.engine.rules import due_times
from stephttp.engine.rules.change_builder import ChangeBuilder
from stephttp.engine.rules.results import error_json, error_memo

HANDLER_FAILURES = frozenset({OpCode.STEP_ERROR, OpCode.STEP_FAILED})
"""With the id of "complete" in a checkpoint, these are not about a step; see `handler_failed`."""


def step_failed(builder: ChangeBuilder, op: Op, field: str) -> None:
    """Store that a step failed for good (`StepFailed`)."""
    if op.error is None:
        raise Refused(f"{field}.error: a {op.op.value} needs an error")
    fresh = not builder.settled(op)
    builder.save(op, field, b'{"error":' + error_memo(op.error) + b"}")
    if fresh and builder.hints.leaves:
        builder.call_again = True


def handler_failed(builder: ChangeBuilder, op: Op) -> None:
    """Repeat or end a run whose handler itself failed while it answered the first request."""
    error = op.error or ErrorInfo()
    # JS sends no more than `{}` as its error.
    name, message = error.name or "Error", error.message or "the handler failed"
    if op.op is OpCode.STEP_FAILED or error.no_retry is True or builder.run.retries == 0:
        builder.end(RunStatus.FAILED, None, error_json(name, message))
        return
    builder.resume(builder.at.settings.retry.delay_ms(0, builder.at.rng))
    builder.run = replace(builder.run, attempt=1, last_error=f"{name}: {message}")
    now_ms = builder.at.now_ms
    shown = error_memo(ErrorInfo(name, message, error.stack))
    builder.history.append(Entry(Past.REQUEST, RESUME, "", 0, now_ms, now_ms, shown))


def step_error(builder: ChangeBuilder, op: Op, field: str) -> None:
    """Try a failed step again later, if attempts are left (`StepError`)."""
    if op.error is None:
        raise Refused(f"{field}.error: a {op.op.value} needs an error")
    if builder.settled(op):
        return
    timer = builder.timers.get(op.id)
    if timer is not None and timer.kind not in TARGETED:
        builder.has_waits = True
        return
    failures = builder.attempts_of(op.id) + 1
    limit, asked_ms = due_times.retry_wishes(op, field, builder.run.retries, builder.at.now_ms)
    final = builder.hints.no_retry or op.error.no_retry is True or failures > limit
    if final:
        step_failed(builder, op, field)
        builder.call_again = True
        return
    builder.write(op, failures, None)
    builder.history.append(_attempt(builder.written[op.id], failures - 1))
    delay = builder.hints.retry_after_ms if asked_ms is None else asked_ms
    if delay is None:
        delay = builder.at.settings.retry.delay_ms(failures - 1, builder.at.rng)
    due_ms = builder.at.now_ms + delay
    if timer is not None:
        attempt = timer.attempt + 1
        builder.start(replace(timer, due_ms=due_ms, attempt=attempt, unreached=0, payload=None))
    else:
        builder.start(Timer(op.id, TimerKind.RETRY, due_ms))
    builder.has_waits = True


def _attempt(step: Step, number: int) -> Entry:
    """Return the entry of the history for a failed attempt of a step, which will be repeated."""
    started_ms = step.started_ns // 1_000_000
    ended_ms = started_ms + step.duration_ns // 1_000_000
    return Entry(Past.ATTEMPT, step.step_id, "", number, started_ms, ended_ms, step.error)
