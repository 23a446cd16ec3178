"""The JSON of runs in version 2 of Inngest's API: names in camel case, statuses in capitals, no
`null`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from stephttp.engine.api.span_names import (
    SPAN_STATUSES,
    STEP_OPS,
    metadata_of,
    metadata_scope,
    run_status,
    step_op,
    step_status,
)
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.run import RunStatus
from stephttp.engine.reading import RunDetail, RunOutcome, StepDetail, ending
from stephttp.engine.web.fields import AnswerBody, RunId, Time, one_of

Status = Annotated[str, one_of("RUNNING", "COMPLETED", "FAILED", "CANCELLED")]
SpanStatus = Annotated[str, one_of(*SPAN_STATUSES)]
StepOp = Annotated[str, one_of(*STEP_OPS)]
Milliseconds = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^[0-9]+$"})]
"""A text, as whole numbers of 64 bits are in Inngest's JSON."""


class AppRef(AnswerBody):
    """The app of a function, or of an endpoint."""

    id: str


class FunctionRef(AnswerBody):
    """A function, or an endpoint."""

    id: str
    name: str
    app: AppRef


class RunTriggerInfo(AnswerBody, rename="camel"):
    """The events that began a run; several, if they were gathered."""

    event_ids: tuple[str, ...]
    event_name: str
    is_batch: bool


class RunSummary(AnswerBody, rename="camel", omit_defaults=True):
    """A run. `output` is an object; what is not one is in its `data`."""

    id: RunId
    function: FunctionRef
    app: AppRef
    status: Status
    queued_at: Time
    started_at: Time
    trigger: RunTriggerInfo
    ended_at: Time | UnsetType = UNSET
    duration_ms: Milliseconds | UnsetType = UNSET
    output: Any = UNSET


class SpanMetadataView(AnswerBody, rename="camel"):
    """Values of one kind that were attached to a run or to a step; each as JSON, in a text."""

    scope: str
    kind: str
    values: dict[str, str]
    updated_at: Time


class TraceSpanView(AnswerBody, rename="camel", omit_defaults=True):
    """A run as a whole, or a step of it; `input` and `output` are objects, as in a run."""

    id: str
    name: str
    status: SpanStatus
    queued_at: Time
    started_at: Time
    metadata: list[SpanMetadataView]
    children: list[TraceSpanView]
    step_op: StepOp | UnsetType = UNSET
    step_id: str | UnsetType = UNSET
    ended_at: Time | UnsetType = UNSET
    duration_ms: Milliseconds | UnsetType = UNSET
    input: Any = UNSET
    output: Any = UNSET


class RunTrace(AnswerBody, rename="camel"):
    """The spans of a run."""

    run_id: RunId
    root_span: TraceSpanView


def run_summary(run: RunOutcome, *, with_output: bool) -> RunSummary:
    """Describe a run."""
    app = AppRef(run.app_id)
    return RunSummary(
        id=run.run_id,
        function=FunctionRef(run.slug, run.function or run.slug, app),
        app=app,
        status=run.status.wire.upper(),
        queued_at=rfc3339(run.created_ms),
        started_at=rfc3339(run.began_ms),
        trigger=RunTriggerInfo(run.event_ids, run.event_name, len(run.event_ids) > 1),
        ended_at=_time(run.ended_ms),
        duration_ms=UNSET if run.ended_ms is None else _duration(run.ended_ms - run.began_ms),
        output=_object(run.output) if with_output else UNSET,
    )


def run_trace(run: RunDetail, *, with_output: bool) -> RunTrace:
    """Describe a run with its steps, in the order in which they were first reported."""
    row = run.row
    body = run.result.body if run.result is not None else b""
    root = TraceSpanView(
        id=row.run_id,
        name=run.function or row.endpoint,
        status=run_status(run),
        queued_at=rfc3339(row.created_ms),
        started_at=rfc3339(row.began_ms),
        metadata=_metadata(run),
        children=[_step(run, step, with_output=with_output) for step in run.steps],
        ended_at=_time(row.ended_ms),
        duration_ms=UNSET if row.ended_ms is None else _duration(row.ended_ms - row.began_ms),
        output=_object(ending(row.status, body, row.error)) if with_output else UNSET,
    )
    return RunTrace(row.run_id, root)


def _step(run: RunDetail, step: StepDetail, *, with_output: bool) -> TraceSpanView:
    took = step.duration_ms
    ended = _object(step.error if step.state == "failed" else step.output)
    started = round(step.started_ms)
    return TraceSpanView(
        id=step.step_id,
        name=step.title,
        status=step_status(step),
        queued_at=rfc3339(started),
        started_at=rfc3339(started),
        metadata=_metadata(run, step.step_id),
        children=[],
        step_op=step_op(step),
        step_id=step.step_id,
        ended_at=UNSET if took is None else rfc3339(round(step.started_ms + took)),
        duration_ms=UNSET if took is None else _duration(took),
        input=_object(step.opts) if with_output else UNSET,
        output=ended if with_output else UNSET,
    )


def _metadata(run: RunDetail, step_id: str = "") -> list[SpanMetadataView]:
    views = []
    for one in metadata_of(run, step_id):
        values = msgspec.json.decode(one.values, type=dict[str, Raw])
        texts = {name: bytes(value).decode() for name, value in values.items()}
        views.append(SpanMetadataView(metadata_scope(one), one.kind, texts, rfc3339(one.at_ms)))
    return views


def is_over(status: RunStatus) -> str:
    """Return the code of the error for an order that comes after the end of a run."""
    return "run_already_cancelled" if status is RunStatus.CANCELLED else "run_already_ended"


def _time(ms: int | None) -> Time | UnsetType:
    return UNSET if ms is None else rfc3339(ms)


def _duration(ms: float) -> str:
    return str(max(0, round(ms)))


def _object(json: bytes | None) -> Any:
    if json is None:
        return UNSET
    return Raw(json) if json.lstrip()[:1] == b"{" else {"data": Raw(json)}
