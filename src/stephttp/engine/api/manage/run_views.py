"""The JSON of runs as people see them: in a list (`RunItem`), and in full (`RunInFull`)."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

import msgspec

from stephttp.engine.api.run_parts import (
    MetadataItem,
    ReportedError,
    SpanView,
    Status,
    WaitItem,
    metadata_item,
    span_view,
    stored,
    wait_item,
)
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.reading import (
    FinalResponse,
    Header,
    RunDetail,
    RunRow,
    RunState,
    SentEvent,
    SourceRequest,
    SpanKind,
    StepDetail,
    Warned,
    WaterfallSpan,
)
from stephttp.engine.web.fields import AnswerBody, Base64, RunId, Time, Uuid, one_of


class RunItem(AnswerBody):
    """A run, in a list.

    `began_at` is when its request came in, `started_at` when the engine first heard of it.
    """

    run_id: RunId
    status: Status
    state: RunState
    function: str
    method: str
    path: str
    began_at: Time
    started_at: Time
    first_phase_ms: float | None
    ended_at: Time | None
    attempt: int
    steps: int
    last_error: str | None
    error: ReportedError | None
    rerun_of: RunId | None
    went_async: bool
    waiting_for: list[WaitItem]


class RequestView(AnswerBody):
    """The request that began a run.

    `headers` are those that the SDK keeps, `null` if it sent none. `sealed`: there are others,
    which only the application can read.
    """

    method: str
    origin: str
    path: str
    query: str
    content_type: str
    headers: tuple[Header, ...] | None
    sealed: bool
    client: str
    body: Base64 | None


class ResponseView(AnswerBody):
    """The answer that a run ended with."""

    status: int
    headers: tuple[Header, ...]
    body: Base64


class StepItem(AnswerBody):
    """A step. `opts`: what it was asked to do; `edited`: input that it was given by hand."""

    step_id: str
    id: str | None
    index: int
    name: str | None
    op: str
    state: Annotated[str, one_of("waiting", "completed", "failed", "cancelled")]
    attempts: int
    started_at: Time
    duration_ms: float | None
    due_at: Time | None
    opts: Any
    edited: Any
    output: Any
    error: ReportedError | None


class SpanItem(AnswerBody):
    """A part of a run's life, which began `offset_ms` after the run. Without a duration it is not
    over, and will be by the time `until` at the latest."""

    kind: SpanKind
    step_id: str | None
    title: str
    offset_ms: float
    duration_ms: float | None
    until: Time | None
    failed: bool
    error: ReportedError | None
    attempt: int
    tries: int


class EventLink(AnswerBody):
    """An event that a step has sent, or has waited for (`received`)."""

    internal_id: str
    name: str | None
    step_id: str
    received: bool


class WarningItem(AnswerBody):
    """A warning of the SDK about a run. `step_id`: the step that it is about.

    `step_not_met`: the handler no longer uses a step that is remembered. `step_changed`: a step of
    another kind has its id now.
    """

    kind: str
    step_id: str | None
    step: str | None
    message: str
    at: Time


class Invoker(AnswerBody):
    """The step that waits for the result of the run."""

    run_id: RunId
    step_id: str


class RunInFull(RunItem):
    """A run in full. `spans` are in the order in which they began, for a waterfall. `user_spans`
    are those of OpenTelemetry that the code in it made. `started_by` is the event that started it,
    if it is a run of a function, `limits` are the events and times that may cancel it, and
    `sessions` those to which it belongs."""

    app_id: Uuid
    function_id: Uuid
    sdk: str
    event_id: str
    retries: int
    request: RequestView
    response: ResponseView | None
    step_list: list[StepItem]
    spans: list[SpanItem]
    user_spans: list[SpanView]
    events: list[EventLink]
    warnings: list[WarningItem]
    metadata: list[MetadataItem]
    sessions: dict[str, str]
    invoked_by: Invoker | None
    reruns: tuple[RunId, ...]
    started_by: dict[str, Any] | None
    limits: list[WaitItem]


def run_item(row: RunRow) -> RunItem:
    """Describe a run for a list."""
    return RunItem(**_fields(row))


def run_in_full(run: RunDetail) -> RunInFull:
    """Describe a run in full."""
    return RunInFull(
        **_fields(run.row),
        app_id=run.app_id,
        function_id=run.fn_id,
        sdk=run.sdk,
        event_id=run.event_id,
        retries=run.retries,
        request=_request(run.request),
        response=_response(run.result) if run.result else None,
        step_list=[_step(step) for step in run.steps],
        spans=[_span(span, run.row.began_ms) for span in run.spans],
        user_spans=[span_view(span) for span in run.user_spans],
        events=[_event(event) for event in run.events],
        warnings=[_warning(warned) for warned in run.warnings],
        metadata=[metadata_item(one) for one in run.metadata],
        sessions=run.sessions,
        invoked_by=Invoker(*run.invoked_by) if run.invoked_by else None,
        reruns=run.reruns,
        started_by=None if run.started_by is None else msgspec.json.decode(run.started_by),
        limits=[wait_item(limit) for limit in run.limits],
    )


def _fields(row: RunRow) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "status": row.status.wire,
        "state": row.state,
        "function": row.endpoint,
        "method": row.method,
        "path": row.path,
        "began_at": rfc3339(row.began_ms),
        "started_at": rfc3339(row.created_ms),
        "first_phase_ms": row.first_ms,
        "ended_at": rfc3339(row.ended_ms),
        "attempt": row.attempt,
        "steps": row.step_count,
        "last_error": row.last_error,
        "error": stored(row.error),
        "rerun_of": row.rerun_of,
        "went_async": row.went_async,
        "waiting_for": [wait_item(wait) for wait in row.waiting_for],
    }


def _request(request: SourceRequest) -> RequestView:
    return RequestView(
        method=request.method,
        origin=request.origin,
        path=request.path,
        query=request.query,
        content_type=request.content_type,
        headers=request.headers,
        sealed=request.sealed,
        client=request.client,
        body=None if request.body is None else b64encode(request.body).decode(),
    )


def _response(result: FinalResponse) -> ResponseView:
    return ResponseView(result.status, result.headers, b64encode(result.body).decode())


def _step(step: StepDetail) -> StepItem:
    return StepItem(
        step_id=step.step_id,
        id=step.id,
        index=step.index,
        name=step.name,
        op=step.op,
        state=step.state,
        attempts=step.attempts,
        started_at=rfc3339(round(step.started_ms)),
        duration_ms=step.duration_ms,
        due_at=rfc3339(step.due_ms),
        opts=stored(step.opts),
        edited=stored(step.edited),
        output=stored(step.output),
        error=stored(step.error),
    )


def _span(span: WaterfallSpan, began_ms: int) -> SpanItem:
    return SpanItem(
        kind=span.kind,
        step_id=span.step_id,
        title=span.title,
        offset_ms=span.start_ms - began_ms,
        duration_ms=None if span.end_ms is None else span.end_ms - span.start_ms,
        until=rfc3339(span.until_ms),
        failed=span.failed,
        error=stored(span.error),
        attempt=span.attempt,
        tries=span.tries,
    )


def _event(event: SentEvent) -> EventLink:
    return EventLink(event.event_id, event.name, event.step_id, event.received)


def _warning(warned: Warned) -> WarningItem:
    return WarningItem(
        warned.kind, warned.step_id, warned.step, warned.message, rfc3339(warned.at_ms)
    )
