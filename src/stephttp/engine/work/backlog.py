"""The backlog: events whose functions are started after they were stored, in portions.

A request starts the functions of its events in the transaction that stores them, up to
`MOST_AT_ONCE` runs; later events of it, and those that the engine itself sends, come here. A
portion is planned outside of any transaction that writes. Then one transaction starts its
functions, and takes its events from the backlog (`registered_functions.start_portion`): after a
crash either both are done or neither.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from stephttp.engine.model.inputs import EventArrival
from stephttp.engine.store.sql import QUERIES

MOST_AT_ONCE = 250
"""Runs that one transaction starts; more, if a single event starts more."""
_MOST_EVENTS = 250
_MOST_BYTES = 16 * 1024 * 1024
"""How many events are looked at together, and how large they are."""


@dataclass(frozen=True, slots=True)
class BacklogEvent:
    """An event in the backlog; `seq` is its place among all events."""

    seq: int
    event: EventArrival


def add(connection: sqlite3.Connection, seq: int, name: str) -> None:
    """Leave the functions of an event to be started later."""
    connection.execute(QUERIES["add_to_backlog"], (seq, name))


def has(connection: sqlite3.Connection, name: str) -> bool:
    """Say whether there are events of a name; further ones then come after them."""
    return bool(connection.execute(QUERIES["is_in_backlog"], (name,)).fetchone()[0])


def remove(connection: sqlite3.Connection, one: BacklogEvent) -> None:
    """Take an event from the backlog, in the transaction that starts its functions."""
    connection.execute(QUERIES["remove_from_backlog"], (one.seq,))


def first_portion(connection: sqlite3.Connection) -> list[BacklogEvent]:
    """Return the events that come next, in their order."""
    portion: list[BacklogEvent] = []
    size = 0
    rows = connection.execute(QUERIES["backlog"], (_MOST_EVENTS,))
    for seq, *values in rows:
        event = EventArrival(*values)
        portion.append(BacklogEvent(seq, event))
        size += len(event.body)
        if size >= _MOST_BYTES:
            break
    rows.close()
    return portion
