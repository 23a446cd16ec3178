"""The spans of a run's waterfall: what happened, and when, also your OpenTelemetry spans. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from stephttp._wire.opcodes import OpCode
from stephttp.engine.model.change import Past
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.timer import RESUME, TimerKind
from stephttp.engine.reading.run_rows import OpenWait, RunRow
from stephttp.engine.reading.step_detail import StepDetail


class SpanKind(StrEnum):
    """What a span shows.

    `REQUEST`: the first phase, in which the handler answered its caller. `STEP`: a step that ran.
    `SLEEP`, `WAIT`: a step that waited, for a time or for something else; or, without a step, a
    call that waits for its turn behind a limit. `CALL`: the endpoint was called again. `UNREACHED`:
    a call did not reach the endpoint. `ATTEMPT`: a failed attempt of a step that was retried.
    `BACKOFF`: the present wait for the next attempt.
    """

    REQUEST = "request"
    STEP = "step"
    SLEEP = "sleep"
    WAIT = "wait"
    CALL = "call"
    UNREACHED = "unreached"
    ATTEMPT = "attempt"
    BACKOFF = "backoff"


@dataclass(frozen=True, slots=True)
class WaterfallSpan:
    """A part of a run's life.

    Attributes:
        step_id: the step that it belongs to; of a call, the one step that it was for.
        title: the name to show.
        start_ms, end_ms: milliseconds since the epoch, with fractions; `end_ms` is `None` until it
            ends.
        until_ms: when an open span ends at the latest, if that is known.
        failed: it failed; `error` (JSON) says why.
        attempt: how many attempts failed before.
        tries: how often an `UNREACHED` endpoint was called.
    """

    kind: SpanKind
    step_id: str | None
    title: str
    start_ms: float
    end_ms: float | None
    until_ms: int | None = None
    failed: bool = False
    error: bytes | None = None
    attempt: int = 0
    tries: int = 1


_KINDS = {
    OpCode.SLEEP: SpanKind.SLEEP,
    OpCode.WAIT_FOR_EVENT: SpanKind.WAIT,
    OpCode.WAIT_FOR_SIGNAL: SpanKind.WAIT,
    OpCode.INVOKE_FUNCTION: SpanKind.WAIT,
    OpCode.GATEWAY: SpanKind.WAIT,
    OpCode.AI_GATEWAY: SpanKind.WAIT,
}
_OUTER = (SpanKind.REQUEST, SpanKind.CALL, SpanKind.UNREACHED)
"""Spans that others happen within; of two that begin together, these come first."""

_CALLS = (TimerKind.RETRY, TimerKind.RESUME, TimerKind.PLANNED, TimerKind.RACING)


def waterfall(
    row: RunRow,
    steps: Sequence[StepDetail],
    history: Sequence[Any],
    now_ms: int,
) -> tuple[WaterfallSpan, ...]:
    """Return the spans of a run, by start.

    Args:
        history: kind, step id, attempt, start, end, tries and error of past spans.
    """
    titles: dict[str, str] = {step.step_id: step.title for step in steps}
    first = next((error for kind, *_, error in history if kind == Past.REQUEST), None)
    happened = [step for step in steps if step.attempts]
    spans = [_request(row, first), *(span for step in happened for span in _step(step))]
    for kind, step_id, attempt, started_ms, ended_ms, tries, error in history:
        if kind == Past.REQUEST:
            continue  # The first span shows it.
        title = row.endpoint if step_id == RESUME else titles.get(step_id, str(step_id))
        span = WaterfallSpan(
            SpanKind(kind),
            step_id or None,
            title,
            started_ms,
            ended_ms,
            failed=error is not None,
            error=error,
            attempt=attempt,
            tries=tries,
        )
        spans.append(span)
    calls = [wait for wait in row.waiting_for if wait.kind in _CALLS]
    spans += [_waiting(wait, row, history, now_ms) for wait in calls]
    return tuple(sorted(spans, key=lambda span: (span.start_ms, span.kind not in _OUTER)))


def _request(row: RunRow, failure: bytes | None) -> WaterfallSpan:
    error = failure
    if row.status is RunStatus.FAILED and not row.went_async:
        error = row.error
    return WaterfallSpan(
        SpanKind.REQUEST,
        None,
        f"{row.method} {row.path}",
        row.began_ms,
        None if row.first_ms is None else row.began_ms + row.first_ms,
        failed=error is not None,
        error=error,
    )


def _step(step: StepDetail) -> list[WaterfallSpan]:
    kind = _KINDS.get(OpCode(step.op), SpanKind.STEP)
    end_ms = None if step.duration_ms is None else step.started_ms + step.duration_ms
    if kind is SpanKind.STEP and (end_ms is None or step.state == "cancelled"):
        return []  # Failed attempts are in the history; the next one shows as a call.
    failed = step.state == "failed"
    span = WaterfallSpan(
        kind,
        step.step_id,
        step.title,
        step.started_ms,
        end_ms,
        step.due_ms if end_ms is None else None,
        failed,
        step.error if failed else None,
        max(0, step.attempts - 1),
    )
    return [span]


def _waiting(wait: OpenWait, row: RunRow, history: Sequence[Any], now_ms: int) -> WaterfallSpan:
    """Return the span of an open call, or of the time until the next one."""
    title = wait.step or row.endpoint
    if wait.behind is not None:
        return WaterfallSpan(SpanKind.WAIT, wait.step_id, title, wait.due_ms, None)
    if wait.due_ms <= now_ms and wait.kind is not TimerKind.RETRY:
        return WaterfallSpan(SpanKind.CALL, wait.step_id, title, wait.due_ms, None)
    past = [ended for _, step_id, _, _, ended, *_ in history if step_id == (wait.step_id or RESUME)]
    since_ms = max(past, default=row.began_ms)
    return WaterfallSpan(SpanKind.BACKOFF, wait.step_id, title, since_ms, None, wait.due_ms)
