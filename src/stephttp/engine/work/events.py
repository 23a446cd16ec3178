"""Events and signals: stored, and the waits that they end, in one transaction each."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import asdict

from stephttp.engine.model import expressions
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.run import Change, Event, Refused, TimerKind
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work.save import Trigger, deliver, link


@dataclass(frozen=True, slots=True)
class Received:
    """What came of events: how many were new and are stored now, and what followed for runs."""

    stored: int
    changes: list[Change]


def receive(connection: sqlite3.Connection, received: Sequence[Event], at: Moment) -> Received:
    """Events were sent: store them, in order, and end the waits for them.

    One that is stored already (a send that was repeated), and one with the sender's id of
    another, ends no wait.
    """
    dedupe_from_ms = at.now_ms - round(at.settings.event_dedupe * 1000)
    stored, changes = 0, []
    for event in received:
        values = asdict(event) | {"dedupe_from_ms": dedupe_from_ms}
        row = connection.execute(QUERIES["insert_event"], values).fetchone()
        stored += row is not None
        if row is not None and not row[0]:
            changes += _end_waits(connection, event, at)
    return Received(stored, changes)


def signal(connection: sqlite3.Connection, name: str, data: bytes, at: Moment) -> Change:
    """A signal was sent: end the wait for it.

    Args:
        data: what comes with it, as JSON.

    Raises:
        Refused: nobody waits for it.
    """
    key = (TimerKind.SIGNAL, name, at.now_ms)
    row = connection.execute(QUERIES["waits_for"], key).fetchone()
    if row is None:
        raise Refused("No signal found", 404)
    run_id, step_id, _ = row
    memo = b'{"data":{"signal":' + msgspec.json.encode(name) + b',"data":' + data + b"}}"
    return deliver(connection, run_id, {step_id: memo}, at)


def _end_waits(connection: sqlite3.Connection, event: Event, at: Moment) -> list[Change]:
    rows = connection.execute(
        QUERIES["waits_for"], (TimerKind.EVENT, event.name, at.now_ms)
    ).fetchall()
    if not rows:
        return []
    incoming = expressions.read_event(event.body)
    trigger = Trigger(connection)
    memos: dict[str, dict[str, bytes]] = defaultdict(dict)
    for run_id, step_id, condition in rows:
        if trigger.fits(run_id, condition, incoming):
            memos[run_id][step_id] = event.body
            link(connection, run_id, event.event_id, step_id, received=True)
    return [deliver(connection, run_id, steps, at) for run_id, steps in memos.items()]
