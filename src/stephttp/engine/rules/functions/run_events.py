"""The events that the engine sends when a run of a function ends (docs/protocol.md 9.7). Pure.

    the run was         events
    completed           inngest/function.finished
    failed              inngest/function.finished, inngest/function.failed
    cancelled           inngest/function.finished, inngest/function.cancelled

A run that was started by the first or the second of these sends nothing, and one that was started
by the third does not send the third, so that no function starts itself again and again. A run that
several events have started sends events for the first of them, and for each that came from a run
which waits for the result. A result that is nested deeper than an event may be is left out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Raw

from stephttp.engine.model.function import Trigger
from stephttp.engine.model.inputs import EventArrival, Moment
from stephttp.engine.model.run import Run, RunStatus
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.rules.nesting import is_deep_json

FINISHED = "inngest/function.finished"
FAILED = "inngest/function.failed"
CANCELLED = "inngest/function.cancelled"
ANY = "*"
"""The end of a trigger for all names that begin as it does."""
RESERVED = "inngest/"
"""The beginning of the names of events that only servers send."""

_SENT = {
    RunStatus.COMPLETED: (FINISHED,),
    RunStatus.FAILED: (FINISHED, FAILED),
    RunStatus.CANCELLED: (FINISHED, CANCELLED),
}
_SILENT = frozenset({FINISHED, FAILED})
_TOLD = ("name", "message", "stack", "data", "cause")
"""What the event of a failure has of the error."""
_WAS_CANCELLED = {
    "error": "function cancelled", "message": "function cancelled", "name": "Error",
}  # fmt: skip


def names_for(status: RunStatus) -> tuple[str, ...]:
    """Return the names of the events about the end of a run."""
    return _SENT.get(status, ())


def names_of(trigger: Trigger) -> list[str]:
    """Return the names of such events that a trigger is for. A pattern is for none of them, unless
    it begins as they do."""
    if not trigger.event.startswith(RESERVED):
        return []
    begin = trigger.event.removesuffix(ANY)
    names = (FINISHED, FAILED, CANCELLED)
    if begin == trigger.event:
        return [name for name in names if name == begin]
    return [name for name in names if name.startswith(begin)]


def run_events(
    run: Run, slug: str, started_by: bytes, wanted: Collection[str], at: Moment
) -> list[EventArrival]:
    """Return the events about the end of a run, in their order.

    Args:
        run: with its result.
        slug: the function.
        started_by: the events that started the run, as a JSON array.
        wanted: the names of those that are to be returned.
    """
    events = msgspec.json.decode(started_by, type=list[Raw])
    sent: list[EventArrival] = []
    for number, raw in enumerate(events):
        event = msgspec.json.decode(raw, type=dict[str, Any])
        correlation_id = _correlation_id(event)
        if event.get("name") in _SILENT or (number and correlation_id is None):
            continue
        data: dict[str, Any] = {"function_id": slug, "run_id": run.run_id}
        if correlation_id is not None:
            data["correlation_id"] = correlation_id
        data |= {"event": raw, "events": events, **_outcome(run)}
        data["_inngest"] = {"status": run.status.wire}
        again = CANCELLED if event.get("name") == CANCELLED else None
        names = [name for name in names_for(run.status) if name in wanted and name != again]
        sent += [_event(name, run.run_id, data, at) for name in names]
    return sent


def _event(name: str, run_id: str, data: dict[str, Any], at: Moment) -> EventArrival:
    event_id = new_ulid(at.now_ms, at.rng)
    body = {
        "data": data,
        "id": event_id if name == FINISHED else run_id,
        "name": name,
        "ts": at.now_ms,
    }
    encoded = msgspec.json.encode(body)
    if len(encoded) > at.settings.max_event:
        # What started the run is in it twice. A call could not hold it.
        encoded = msgspec.json.encode(body | {"data": data | {"events": []}})
    return EventArrival(event_id, name, None, at.now_ms, at.now_ms, encoded)


def _outcome(run: Run) -> dict[str, Any]:
    if run.status is RunStatus.CANCELLED:
        return {"error": _WAS_CANCELLED}
    output = run.output
    result = {} if output is None or is_deep_json(output) else {"result": Raw(output)}
    if run.status is RunStatus.COMPLETED:
        return {"result": None, **result}
    error = msgspec.json.decode(run.error or b"{}", type=dict[str, Any])
    whole = {"name": "Error", "message": ""} | {key: error[key] for key in _TOLD if key in error}
    return {"error": {"error": run.cause or whole["name"], **whole}, **result}


def _correlation_id(event: dict[str, Any]) -> str | None:
    data = event.get("data")
    own = data.get("_inngest") if isinstance(data, dict) else None
    found = own.get("correlation_id") if isinstance(own, dict) else None
    return found if isinstance(found, str) else None
