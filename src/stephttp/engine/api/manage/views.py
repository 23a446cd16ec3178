"""What people see, as the API writes it: from the values of `reading` to JSON."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from msgspec import Raw

from stephttp.engine.model.clock import rfc3339
from stephttp.engine.reading import (
    Durations,
    EndpointRow,
    EventDetail,
    EventRow,
    Figures,
    Header,
    OpenWait,
    Overview,
    RunDetail,
    RunRow,
    StepDetail,
    WaterfallSpan,
)
from stephttp.engine.traces.otlp import Span as UserSpan


def run_view(row: RunRow) -> dict[str, Any]:
    """A run, in a list."""
    return {
        "run_id": row.run_id,
        "status": row.status.wire,
        "state": row.state.value,
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
        "error": _raw(row.error),
        "rerun_of": row.rerun_of,
        "went_async": row.went_async,
        "waiting_for": [wait_view(wait) for wait in row.waiting_for],
    }


def wait_view(wait: OpenWait) -> dict[str, Any]:
    """What a run waits for."""
    return {
        "kind": wait.kind.value,
        "step_id": wait.step_id,
        "step": wait.step,
        "key": wait.key,
        "condition": wait.condition,
        "due_at": rfc3339(wait.due_ms),
    }


def detail_view(run: RunDetail) -> dict[str, Any]:
    """A run in full."""
    request, result = run.request, run.result
    return {
        **run_view(run.row),
        "app_id": run.app_id,
        "function_id": run.fn_id,
        "sdk": run.sdk,
        "event_id": run.event_id,
        "retries": run.retries,
        "request": {
            "method": request.method,
            "origin": request.origin,
            "path": request.path,
            "query": request.query,
            "content_type": request.content_type,
            "headers": _headers(request.headers),
            "sealed": request.sealed,
            "client": request.client,
            "body": _base64(request.body),
        },
        "response": result
        and {
            "status": result.status,
            "headers": _headers(result.headers),
            "body": _base64(result.body),
        },
        "step_list": [_step(step) for step in run.steps],
        "spans": [_span(span, run.row.began_ms) for span in run.spans],
        "user_spans": [user_span(span) for span in run.user_spans],
        "events": [
            {
                "internal_id": event.event_id,
                "name": event.name,
                "step_id": event.step_id,
                "received": event.received,
            }
            for event in run.events
        ],
        "invoked_by": run.invoked_by
        and {"run_id": run.invoked_by[0], "step_id": run.invoked_by[1]},
        "reruns": list(run.reruns),
    }


def _headers(headers: tuple[Header, ...] | None) -> list[dict[str, Any]] | None:
    if headers is None:
        return None
    return [
        {"name": header.name, "value": header.value, "masked": header.masked} for header in headers
    ]


def _step(step: StepDetail) -> dict[str, Any]:
    return {
        "step_id": step.step_id,
        "id": step.id,
        "index": step.index,
        "name": step.name,
        "op": step.op,
        "state": step.state,
        "attempts": step.attempts,
        "started_at": rfc3339(round(step.started_ms)),
        "duration_ms": step.duration_ms,
        "due_at": rfc3339(step.due_ms),
        "opts": _raw(step.opts),
        "edited": _raw(step.edited),
        "output": _raw(step.output),
        "error": _raw(step.error),
    }


def _span(span: WaterfallSpan, began_ms: int) -> dict[str, Any]:
    return {
        "kind": span.kind.value,
        "step_id": span.step_id,
        "title": span.title,
        "offset_ms": span.start_ms - began_ms,
        "duration_ms": None if span.end_ms is None else span.end_ms - span.start_ms,
        "until": rfc3339(span.until_ms),
        "failed": span.failed,
        "error": _raw(span.error),
        "attempt": span.attempt,
        "tries": span.tries,
    }


def overview_view(view: Overview) -> dict[str, Any]:
    """How it went."""
    return {
        "since": rfc3339(view.since_ms),
        "width_s": view.width_s,
        "open_runs": view.open_runs,
        "waiting": view.waiting,
        "total": _figures(view.total),
        "endpoints": [
            {
                "function_id": one.fn_id,
                "function": one.slug,
                "origin": one.origin,
                "open_runs": one.open_runs,
                **_figures(one.figures),
            }
            for one in view.endpoints
        ],
        "points": [
            {
                "start": rfc3339(point.start_ms),
                "began": point.began,
                "completed": point.completed,
                "failed": point.failed,
                "cancelled": point.cancelled,
                "went_async": point.went_async,
                "first_p50_ms": point.first_p50_ms,
                "first_p95_ms": point.first_p95_ms,
                "whole_p50_ms": point.whole_p50_ms,
                "whole_p95_ms": point.whole_p95_ms,
            }
            for point in view.points
        ],
    }


def _figures(one: Figures) -> dict[str, Any]:
    return {
        "began": one.began,
        "went_async": one.went_async,
        "completed": one.completed,
        "failed": one.failed,
        "cancelled": one.cancelled,
        "per_minute": one.per_minute,
        "error_rate": one.error_rate,
        "async_share": one.async_share,
        "first": _durations(one.first),
        "whole": _durations(one.whole),
    }


def _durations(one: Durations) -> dict[str, Any]:
    return {"p50_ms": one.p50_ms, "p95_ms": one.p95_ms, "p99_ms": one.p99_ms}


def endpoint_view(row: EndpointRow) -> dict[str, Any]:
    """An endpoint."""
    return {
        "function_id": row.fn_id,
        "app_id": row.app_id,
        "function": row.slug,
        "origin": row.origin,
        "method": row.method,
        "path": row.path,
        "sdk": row.sdk,
        "retries": row.retries,
        "seen_at": rfc3339(row.seen_ms),
        "open_runs": row.open_runs,
        "failed_runs": row.failed_runs,
        "runs": row.runs,
        "last_failure": row.last_failed_run
        and {
            "run_id": row.last_failed_run,
            "error": _raw(row.last_error),
            "ended_at": rfc3339(row.last_error_ms),
        },
    }


def _base64(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()


def _raw(json: bytes | None) -> Raw | None:
    return None if json is None else Raw(json)


def event_view(row: EventRow) -> dict[str, Any]:
    """An event, in a list."""
    return {
        "internal_id": row.event_id,
        "name": row.name,
        "id": row.id,
        "repeated": row.repeated,
        "received_at": rfc3339(row.received_ms),
        "event": Raw(row.body),
        "linked_runs": row.runs,
    }


def event_detail_view(event: EventDetail) -> dict[str, Any]:
    """An event, with the runs that had to do with it."""
    runs = [
        {
            "run_id": run.run_id,
            "status": run.status.wire,
            "function": run.endpoint,
            "step_id": run.step_id,
            "step": run.step,
            "received": run.received,
        }
        for run in event.runs
    ]
    return {**event_view(event.row), "runs": runs}


def user_span(span: UserSpan) -> dict[str, Any]:
    """A span of OpenTelemetry."""
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_id.hex() if span.parent_id else None,
        "step_id": span.step_id or None,
        "attempt": span.attempt,
        "name": span.name,
        "kind": span.kind,
        "status": span.status,
        "started_at": rfc3339(span.started_ns // 1_000_000),
        "duration_ms": (span.ended_ns - span.started_ns) / 1_000_000,
        "details": Raw(span.details),
    }
