"""Parts of answers about runs that both sides of the API give: errors, waits, spans, statuses."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Raw, Struct, UnsetType

from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.run_metadata import NO_ATTEMPT, RunMetadata
from stephttp.engine.reading import OpenWait
from stephttp.engine.traces.otlp import Span
from stephttp.engine.web.fields import AnswerBody, RunId, Time, Uuid, one_of

Status = Annotated[str, one_of("Running", "Completed", "Failed", "Cancelled")]

_SpanKind = Annotated[
    str, one_of("unspecified", "internal", "server", "client", "producer", "consumer")
]


def stored(json: bytes | None) -> Any:
    """Return JSON as it came out of the store; the type of the field says what is in it."""
    return None if json is None else Raw(json)


class ReportedError(Struct):
    """An error as an SDK or the engine reported it. May have further fields."""

    name: str = ""
    message: str = ""


class EventRun(AnswerBody):
    """A run that an event began."""

    run_id: RunId
    run_started_at: Time
    function_id: Uuid
    function_version: int
    environment_id: Uuid
    event_id: str
    status: Status
    ended_at: Time | None


class EndedRun(EventRun):
    """The same, with what it ended with: what it returned, or the error with which it failed."""

    output: Any | UnsetType = UNSET


class WaitItem(AnswerBody):
    """What a run waits for. `behind_limit`: it is due, and waits for its turn."""

    kind: str
    step_id: str | None
    step: str | None
    key: str | None
    condition: str | None
    due_at: Time | None
    behind_limit: bool


def wait_item(wait: OpenWait) -> WaitItem:
    """Describe what a run waits for."""
    return WaitItem(
        kind=wait.kind.value,
        step_id=wait.step_id,
        step=wait.step,
        key=wait.key,
        condition=wait.condition,
        due_at=rfc3339(wait.due_ms),
        behind_limit=wait.behind is not None,
    )


class MetadataItem(AnswerBody):
    """Values of one kind that were attached to a run, to one of its steps, or to a span.

    `step` is the id that the user's code gave the step.
    """

    kind: str
    step_id: str | None
    step: str | None
    attempt: int | None
    span_id: str | None
    values: dict[str, Any]
    set_at: Time


def metadata_item(one: RunMetadata) -> MetadataItem:
    """Describe values that were attached to a run."""
    return MetadataItem(
        kind=one.kind,
        step_id=one.target.step_id or None,
        step=one.step,
        attempt=None if one.target.attempt == NO_ATTEMPT else one.target.attempt,
        span_id=one.target.span_id or None,
        values=stored(one.values),
        set_at=rfc3339(one.at_ms),
    )


class SpanDetails(Struct):
    """What is kept of a span beside its name and times, as far as it has them."""

    service: str = ""
    scope: str = ""
    message: str = ""
    attributes: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    truncated: bool = False


class SpanView(AnswerBody):
    """An OpenTelemetry span of the user's code. `step_id`: the step in which it was made."""

    trace_id: str
    span_id: str
    parent_id: str | None
    step_id: str | None
    attempt: int | None
    name: str
    kind: _SpanKind
    status: Annotated[str, one_of("unset", "ok", "error")]
    started_at: Time
    duration_ms: float
    details: SpanDetails


def span_view(span: Span) -> SpanView:
    """Describe a span of OpenTelemetry."""
    return SpanView(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_id.hex() if span.parent_id else None,
        step_id=span.step_id or None,
        attempt=span.attempt,
        name=span.name,
        kind=span.kind,
        status=span.status,
        started_at=rfc3339(span.started_ns // 1_000_000),
        duration_ms=(span.ended_ns - span.started_ns) / 1_000_000,
        details=stored(span.details),
    )
