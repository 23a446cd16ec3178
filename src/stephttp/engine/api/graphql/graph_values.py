"""Runs and events in the shapes of `types.graphql`: dicts with its names. Pure.

A span's `outputID` is the id of the run, and for a step the step's hash after a dot.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stephttp.engine.api.span_names import (
    metadata_of,
    metadata_scope,
    run_status,
    step_op,
    step_status,
)
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.run_metadata import RunMetadata
from stephttp.engine.reading import (
    EventDetail,
    EventRow,
    RunDetail,
    RunOutcome,
    StepDetail,
    ending,
)

Graph = dict[str, Any]


def run_value(run: RunDetail) -> Graph:
    """Return a run (`FunctionRunV2`)."""
    row = run.row
    return {
        "id": row.run_id,
        "appID": run.app_id,
        "functionID": run.fn_id,
        "function": _function(run),
        "queuedAt": rfc3339(row.created_ms),
        "startedAt": rfc3339(row.began_ms),
        "endedAt": rfc3339(row.ended_ms),
        "status": row.status.wire.upper(),
        "triggerIDs": _trigger_ids(run),
        "eventName": run.event_name,
        "isBatch": len(_trigger_ids(run)) > 1,
        "output": _text(_ending(run)),
        "trace": _root_span(run),
    }


def output_value(run: RunDetail, step_id: str) -> Graph | None:
    """Return what a run, or a step of it, ended with (`RunTraceSpanOutput`).

    Args:
        step_id: the step's hash; empty: the run as a whole.
    """
    if not step_id:
        if run.row.status is RunStatus.FAILED:
            return {"data": None, "error": _error(run.row.error)}
        return {"data": _text(_ending(run)), "error": None}
    step = next((step for step in run.steps if step.step_id == step_id), None)
    if step is None:
        return None
    return {
        "input": _text(step.opts),
        "data": _text(step.output),
        "error": _error(step.error) if step.state == "failed" else None,
    }


def trigger_value(run: RunDetail, events: list[Graph]) -> Graph:
    """Return what started a run (`RunTraceTrigger`), from its events."""
    return {
        "eventName": run.event_name,
        "IDs": _trigger_ids(run),
        "payloads": [msgspec.json.encode(event).decode() for event in events],
        "timestamp": rfc3339(run.row.created_ms),
        "isBatch": len(events) > 1,
    }


def event_value(event: EventDetail, runs: tuple[RunOutcome, ...]) -> Graph:
    """Return an event with the runs that it began (`Event`)."""
    row = event.row
    return {
        "id": row.event_id,
        "name": row.name,
        "createdAt": rfc3339(row.received_ms),
        "payload": _data(row),
        "raw": row.body.decode(),
        "totalRuns": len(runs),
        "functionRuns": [_begun(run) for run in runs],
    }


def event_v2_value(event: EventDetail) -> Graph:
    """Return an event (`EventV2`)."""
    row = event.row
    return {
        "id": row.event_id,
        "name": row.name,
        "receivedAt": rfc3339(row.received_ms),
        "occurredAt": rfc3339(row.ts_ms),
        "idempotencyKey": row.id or row.event_id,
        "raw": row.body.decode(),
    }


def _trigger_ids(run: RunDetail) -> list[str]:
    """Return the internal ids of the events that started a run; several, if they were gathered."""
    ids = [event.event_id for event in run.events if event.received and not event.step_id]
    return ids or [run.event_id]


def _function(run: RunDetail) -> Graph:
    return {"id": run.fn_id, "name": run.function or run.row.endpoint, "slug": run.row.endpoint}


def _begun(run: RunOutcome) -> Graph:
    return {
        "id": run.run_id,
        "function": {"id": run.fn_id, "name": run.function or run.slug, "slug": run.slug},
        "status": run.status.wire.upper(),
        "startedAt": rfc3339(run.created_ms),
        "finishedAt": rfc3339(run.ended_ms),
        "output": _text(run.output),
    }


def _root_span(run: RunDetail) -> Graph:
    row = run.row
    duration = None if row.ended_ms is None else row.ended_ms - row.began_ms
    return {
        **_place(run, row.run_id, ""),
        "name": run.function or row.endpoint,
        "status": run_status(run),
        "attempts": row.attempt,
        "duration": duration,
        "outputID": row.run_id if row.status.ended else None,
        "queuedAt": rfc3339(row.created_ms),
        "startedAt": rfc3339(row.began_ms),
        "endedAt": rfc3339(row.ended_ms),
        "isRoot": True,
        "childrenSpans": [_step_span(run, step) for step in run.steps],
    }


def _step_span(run: RunDetail, step: StepDetail) -> Graph:
    ended = step.state != "waiting"
    end_ms = None if step.duration_ms is None else step.started_ms + step.duration_ms
    return {
        **_place(run, step.step_id, step.step_id),
        "name": step.title,
        "status": step_status(step),
        "attempts": step.attempts,
        "duration": None if step.duration_ms is None else round(step.duration_ms),
        "outputID": f"{run.row.run_id}.{step.step_id}" if ended else None,
        "queuedAt": rfc3339(round(step.started_ms)),
        "startedAt": rfc3339(round(step.started_ms)),
        "endedAt": None if end_ms is None else rfc3339(round(end_ms)),
        "isRoot": False,
        "stepOp": step_op(step),
        "stepID": step.step_id,
        "childrenSpans": [],
    }


def _place(run: RunDetail, span_id: str, step_id: str) -> Graph:
    return {
        "appID": run.app_id,
        "functionID": run.fn_id,
        "runID": run.row.run_id,
        "spanID": span_id,
        "metadata": [_metadata(one) for one in metadata_of(run, step_id)],
    }


def _metadata(one: RunMetadata) -> Graph:
    return {
        "scope": metadata_scope(one),
        "kind": one.kind,
        "values": msgspec.json.decode(one.values),
        "updatedAt": rfc3339(one.at_ms),
    }


def _ending(run: RunDetail) -> bytes | None:
    body = run.result.body if run.result is not None else b""
    return ending(run.row.status, body, run.row.error)


def _error(error: bytes | None) -> Graph:
    found = msgspec.json.decode(error or b"{}")
    said = found if isinstance(found, dict) else {"message": str(found)}
    texts = {name: said.get(name) for name in ("message", "name", "stack")}
    return {name: text if isinstance(text, str) else None for name, text in texts.items()} | {
        "message": str(texts["message"] or "")
    }


def _data(row: EventRow) -> str:
    data = msgspec.json.decode(row.body, type=dict[str, msgspec.Raw]).get("data")
    return "null" if data is None else bytes(data).decode()


def _text(json: bytes | None) -> str | None:
    return None if json is None else json.decode()
