"""Events and signals that arrive: stored, once for each id; the waits that they end, and the
functions that events start.

A signal, and an event with few waits, ends them in the transaction that stores it. An event starts
its functions in it, too, unless that would be too many runs (`backlog`).
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import asdict

from stephttp.engine.model.change import Change
from stephttp.engine.model.function_start import NO_STARTS, PlannedStarts, Start
from stephttp.engine.model.inputs import EventArrival, Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.timer import CANCEL_ON, TimerKind
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.work import backlog, matching
from stephttp.engine.work.links import link
from stephttp.engine.work.matching import StoredEvent, TriggerEvent, WaitKey
from stephttp.engine.work.save import cancel, deliver, start


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """The outcome of receiving events.

    Attributes:
        count: how many were new.
        changes: of runs.
        left: whether waits are left that are to be asked later; see `deliveries`.
        held_ms: when the first is due of the events that are held.
        backlog: whether functions are left that are to be started later; see `backlog`.
    """

    count: int
    changes: list[Change]
    left: bool = False
    held_ms: int | None = None
    backlog: bool = False


def receive(
    connection: sqlite3.Connection,
    received: Sequence[EventArrival],
    at: Moment,
    planned: PlannedStarts = NO_STARTS,
) -> StoredEvents:
    """Store events in their order, end the waits for them, and start functions.

    One that is stored already (a send that was repeated), and one with the sender's id of
    another, ends no wait and starts nothing.

    Args:
        planned: what they start.
    """
    dedupe_from_ms = at.now_ms - round(at.settings.event_dedupe * 1000)
    count, changes, room, left, later = 0, [], matching.MOST_AT_ONCE, False, False
    started: list[Start] = []
    for event in received:
        values = asdict(event) | {"dedupe_from_ms": dedupe_from_ms, "internal": False}
        row = connection.execute(QUERIES["insert_event"], values).fetchone()
        if row is None:
            continue
        count += 1
        repeated, seq = row
        if repeated:
            continue
        stored = StoredEvent(seq, event.event_id, event.name, event.received_ms, event.body)
        incoming = expressions.read_event(event.body)
        waits = matching.few_waits(connection, stored, incoming, room)
        if waits is None:
            connection.execute(QUERIES["add_delivery"], (seq, event.name))
            left = True
        elif waits:
            room -= len(waits)
            trigger = TriggerEvent(connection)
            ended = [
                (run_id, step_id)
                for run_id, step_id, condition in waits
                if trigger.fits(run_id, condition, incoming, event.received_ms)
            ]
            changes += end_waits(connection, stored, ended, at)
        starts = planned.starts.get(event.event_id, ())
        if event.event_id in planned.later or (starts and backlog.has(connection, event.name)):
            backlog.add(connection, seq, event.name)
            later = True
        else:
            started += starts
    if not started:
        return StoredEvents(count, changes, left, backlog=later)
    begun = start(connection, started, at)
    return StoredEvents(count, changes + begun.changes, left, begun.held_ms, later)


def end_waits(
    connection: sqlite3.Connection, event: StoredEvent, ended: Iterable[WaitKey], at: Moment
) -> list[Change]:
    """End waits, or cancel runs, with an event that matches them."""
    memos: dict[str, dict[str, bytes]] = defaultdict(dict)
    cancelled: set[str] = set()
    for run_id, step_id in ended:
        memos[run_id][step_id] = event.body
        link(connection, run_id, event.event_id, step_id, received=True)
        if step_id.startswith(CANCEL_ON):
            cancelled.add(run_id)
    reason = f"the event {event.name} has cancelled it"
    return [
        cancel(connection, run_id, at, reason)
        if run_id in cancelled
        else deliver(connection, run_id, steps, at)
        for run_id, steps in memos.items()
    ]


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
