"""Events and signals: stored, and the waits that they end, in one transaction each."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import asdict

from stephttp.engine.rules.conditions import expressions
from stephttp.engine.model.change import Change
from stephttp.engine.model.inputs import EventArrival, Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.timer import TimerKind
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work.save import TriggerEvent, deliver, link


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """The outcome of receiving events: how many were new, and the changes of runs."""

    count: int
    changes: list[Change]


def receive(
    connection: sqlite3.Connection, received: Sequence[EventArrival], at: Moment
) -> StoredEvents:
    """Store events in their order, and end the waits for them.

    One that is stored already (a send that was repeated), and one with the sender's id of
    another, ends no wait.
    """
    dedupe_from_ms = at.now_ms - round(at.settings.event_dedupe * 1000)
    count, changes = 0, []
    for event in received:
        values = asdict(event) | {"dedupe_from_ms": dedupe_from_ms}
        row = connection.execute(QUERIES["insert_event"], values).fetchone()
        count += row is not None
        if row is not None and not row[0]:
            changes += _end_waits(connection, event, at)
    return StoredEvents(count, changes)


def signal(connection: sqlite3.Connection, name: str, data: bytes, at: Moment) -> Change:
    """End the wait for a signal.

    Args:
        data: the data of the signal, as JSON.

    Raises:
        Refused: no step waits for it.
    """
    key = (TimerKind.SIGNAL, name, at.now_ms)
    row = connection.execute(QUERIES["waits_for"], key).fetchone()
    if row is None:
        raise Refused("No signal found", 404)
    run_id, step_id, _ = row
    memo = b'{"data":{"signal":' + msgspec.json.encode(name) + b',"data":' + data + b"}}"
    return deliver(connection, run_id, {step_id: memo}, at)


def _end_waits(connection: sqlite3.Connection, event: EventArrival, at: Moment) -> list[Change]:
    rows = connection.execute(
        QUERIES["waits_for"], (TimerKind.EVENT, event.name, at.now_ms)
    ).fetchall()
    if not rows:
        return []
    incoming = expressions.read_event(event.body)
    trigger = TriggerEvent(connection)
    memos: dict[str, dict[str, bytes]] = defaultdict(dict)
    for run_id, step_id, condition in rows:
        if trigger.fits(run_id, condition, incoming):
            memos[run_id][step_id] = event.body
            link(connection, run_id, event.event_id, step_id, received=True)
    return [deliver(connection, run_id, steps, at) for run_id, steps in memos.items()]
