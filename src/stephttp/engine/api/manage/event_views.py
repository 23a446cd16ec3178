"""The JSON of events as people see them: in a list (`EventItem`), and in full (`EventInFull`)."""

from __future__ import annotations

from typing import Any

from stephttp.engine.api.run_parts import Status, stored
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.reading import EventDetail, EventRow, LinkedRun
from stephttp.engine.web.fields import AnswerBody, RunId, Time


class EventItem(AnswerBody):
    """An event. `id` is the sender's; `repeated`: another event had it before, so this one ended no
    wait. `linked_runs` counts runs that sent it or waited for it."""

    internal_id: str
    name: str
    id: str | None
    repeated: bool
    received_at: Time
    event: Any
    linked_runs: int


class RunLink(AnswerBody):
    """A run of which a step has waited for the event (`received`), or has sent it. Without a step:
    the event started it; with a step that begins with `@cancel.`: the event cancelled it."""

    run_id: RunId
    status: Status
    function: str
    step_id: str
    step: str | None
    received: bool


class EventInFull(EventItem):
    """An event, with the runs that sent it or waited for it."""

    runs: list[RunLink]


def event_item(row: EventRow) -> EventItem:
    """Describe an event for a list."""
    return EventItem(**_fields(row))


def event_in_full(event: EventDetail) -> EventInFull:
    """Describe an event in full."""
    return EventInFull(**_fields(event.row), runs=[_run(run) for run in event.runs])


def _fields(row: EventRow) -> dict[str, Any]:
    return {
        "internal_id": row.event_id,
        "name": row.name,
        "id": row.id,
        "repeated": row.repeated,
        "received_at": rfc3339(row.received_ms),
        "event": stored(row.body),
        "linked_runs": row.runs,
    }


def _run(run: LinkedRun) -> RunLink:
    return RunLink(
        run_id=run.run_id,
        status=run.status.wire,
        function=run.endpoint,
        step_id=run.step_id,
        step=run.step,
        received=run.received,
    )
