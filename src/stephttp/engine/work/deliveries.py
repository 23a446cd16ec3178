"""Events with many waits, and waits with many earlier events: matched in portions, one by one.

`look` reads and evaluates, in a thread that only reads. `end` ends the waits that were found, a few
in each transaction, if they are still open. A wait can end once only, so after a crash the same
portion can be looked at again. A wait that opens meanwhile is not asked (`timers.after_event`): it
looks back by itself.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import Moment
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import matching
from stephttp.engine.work.events import end_waits
from stephttp.engine.work.matching import Group, StoredEvent, TriggerEvent, WaitKey

_PORTION = 250
"""Waits, or events, that are looked at before others get the thread."""
_MOST_ENDED = 25
"""Waits that one transaction ends."""


@dataclass(slots=True)
class Delivery:
    """An event, and how far its waits have been asked."""

    event: StoredEvent
    groups: list[Group]
    after: WaitKey = ("", "")
    found: list[WaitKey] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Say whether nothing is left to be asked, nor to be ended."""
        return not (self.groups or self.found)


@dataclass(slots=True)
class CatchUp:
    """A wait, and how far the events before it have been looked at."""

    run_id: str
    step_id: str
    since_ms: int
    name: str | None
    condition: str | None
    until_seq: int
    after: StoredEvent | None = None
    found: StoredEvent | None = None
    done: bool = False


Task = Delivery | CatchUp


def next_task(connection: sqlite3.Connection) -> Task | None:
    """Return what is to be matched next: catch-ups first, then events in their order."""
    row = connection.execute(QUERIES["next_catch_up"]).fetchone()
    if row is not None:
        return CatchUp(*row)
    row = connection.execute(QUERIES["next_delivery"]).fetchone()
    if row is None:
        return None
    event = StoredEvent(*row)
    incoming = expressions.read_event(event.body)
    return Delivery(event, matching.groups(connection, event, incoming))


def look(connection: sqlite3.Connection, task: Task) -> None:
    """Look at the next portion of a task, and note in it what was found and how far it is."""
    if isinstance(task, Delivery):
        _ask_waits(connection, task)
    else:
        _look_back(connection, task)


def end(connection: sqlite3.Connection, task: Task, at: Moment) -> list[Change]:
    """End waits that `look` has found, and the task itself if it is done."""
    if isinstance(task, CatchUp):
        return _caught_up(connection, task, at)
    event = task.event
    found, task.found = task.found[:_MOST_ENDED], task.found[_MOST_ENDED:]
    values = {"name": event.name, "received_ms": event.received_ms, "seq": event.seq}
    still = [
        (run_id, step_id)
        for run_id, step_id in found
        if connection.execute(
            QUERIES["event_wait"], {**values, "run_id": run_id, "step_id": step_id}
        ).fetchone()
    ]
    changes = end_waits(connection, event, still, at)
    if task.done:
        connection.execute(QUERIES["end_delivery"], (event.seq,))
    return changes


def _ask_waits(connection: sqlite3.Connection, task: Delivery) -> None:
    group = task.groups[0]
    rows = matching.waits(connection, task.event, group, task.after, _PORTION)
    incoming = expressions.read_event(task.event.body) if rows else None
    trigger = TriggerEvent(connection)
    for run_id, step_id, condition in rows:
        if trigger.fits(run_id, condition, incoming, task.event.received_ms):
            task.found.append((run_id, step_id))
    if len(rows) == _PORTION:
        task.after = rows[-1][:2]
    else:
        task.groups, task.after = task.groups[1:], ("", "")


def _look_back(connection: sqlite3.Connection, task: CatchUp) -> None:
    events = []
    if task.name is not None:  # the wait is still open
        events = matching.earlier_events(
            connection,
            task.run_id,
            task.name,
            task.since_ms,
            until_seq=task.until_seq,
            after=task.after,
            limit=_PORTION,
        )
        task.found = matching.first_match(connection, task.run_id, task.condition, events)
    if task.found is None and len(events) == _PORTION:
        task.after = events[-1]
    else:
        task.done = True


def _caught_up(connection: sqlite3.Connection, task: CatchUp, at: Moment) -> list[Change]:
    key = task.run_id, task.step_id
    connection.execute(QUERIES["end_catch_up"], key)
    if task.found is None:
        return []
    is_open = connection.execute(QUERIES["is_open_wait"], (*key, task.name)).fetchone()[0]
    return end_waits(connection, task.found, [key], at) if is_open else []
