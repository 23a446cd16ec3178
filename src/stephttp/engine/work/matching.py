"""Which events and waits come into question for each other, and which wait an event ends;
`lookback`.

An event that came finds its waits, and a wait that opens looks back at events. Either way at most
`MOST_AT_ONCE` pairs are looked at in the transaction that stores the event or the wait. More are
left for `deliveries`, which looks at them in portions, outside of any transaction that writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.timer import Timer, TimerKind
from stephttp.engine.rules.conditions import equalities, expressions
from stephttp.engine.store import run_triggers
from stephttp.engine.store.many_rows import json_array
from stephttp.engine.store.sql import QUERIES

MOST_AT_ONCE = 100
"""Waits, or events, that are looked at in one unit of work."""
_MOST_KEYS = 32
"""Sets of keys by which waits are looked up; with more of them, this takes long as well."""

WaitKey = tuple[str, str]
"""Run id and step id."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event that waits are matched with; `seq` is its place among all events."""

    seq: int
    event_id: str
    name: str
    received_ms: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """Waits that an event may end, because they want the same values of it.

    Attributes:
        kind: of their timers.
        keys, values: what they want; `None`: they want nothing that can be looked up.
    """

    kind: TimerKind
    keys: str | None = None
    values: str | None = None


class TriggerEvent:
    """The events that started runs, each loaded when an expression first asks for it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, dict[str, Any]] = {}

    def fits(self, run_id: str, condition: str | None, incoming: Any, now_ms: int) -> bool:
        """Say whether an incoming event fulfils the condition of a wait."""
        if condition is None:
            return True
        trigger: dict[str, Any] = {}
        if expressions.TRIGGER in condition:
            if run_id not in self._known:
                _, self._known[run_id] = run_triggers.load_trigger(self._connection, run_id)
            trigger = self._known[run_id]
        values = {expressions.TRIGGER: trigger, expressions.INCOMING: incoming}
        return expressions.matches(condition, values, now_ms)


def groups(connection: sqlite3.Connection, event: StoredEvent, incoming: Any) -> list[Group]:
    """Return the groups of waits that an event may end.

    Args:
        incoming: the event, decoded.
    """
    _, kinds = _awaiting(connection, event.name)
    looked_up = _looked_up(connection, event.name, kinds, incoming, limit=-1)
    return [*map(Group, kinds), *looked_up]


def waits(
    connection: sqlite3.Connection,
    event: StoredEvent,
    group: Group,
    after: WaitKey = ("", ""),
    limit: int = MOST_AT_ONCE,
) -> list[tuple[str, str, str | None]]:
    """Return waits of a group that were open when an event came: run id, step id, condition.

    Args:
        after: the last one that was returned before.
        limit: how many at most.
    """
    values = {
        "name": event.name,
        "kind": group.kind,
        "keys": group.keys,
        "values": group.values,
        "received_ms": event.received_ms,
        "seq": event.seq,
        "run_id": after[0],
        "step_id": after[1],
        "limit": limit,
    }
    return connection.execute(QUERIES["event_waits"], values).fetchall()


def few_waits(
    connection: sqlite3.Connection, event: StoredEvent, incoming: Any, room: int
) -> list[tuple[str, str, str | None]] | None:
    """Return all waits that an event may end; `None` if there are more than `room`."""
    is_delivering, kinds = _awaiting(connection, event.name)
    if is_delivering:
        return None  # events of a name are delivered in their order
    looked_up = list(_looked_up(connection, event.name, kinds, incoming, limit=_MOST_KEYS + 1))
    if len(looked_up) > _MOST_KEYS:
        return None
    found: list[tuple[str, str, str | None]] = []
    for group in (*map(Group, kinds), *looked_up):
        found += waits(connection, event, group, limit=room + 1 - len(found))
        if len(found) > room:
            return None
    return found


def is_awaited(connection: sqlite3.Connection, name: str) -> bool:
    """Say whether there are waits that events of a name may end, or runs that they may cancel."""
    _, kinds = _awaiting(connection, name)
    return bool(kinds)


def open_wait(connection: sqlite3.Connection, run_id: str, timer: Timer) -> bool:
    """Let a wait see the events from now on, and return `False` if it was open already."""
    return connection.execute(QUERIES["open_wait"], (run_id, timer.step_id)).rowcount == 1


def earlier_events(
    connection: sqlite3.Connection,
    run_id: str,
    name: str,
    since_ms: int,
    *,
    until_seq: int = 2**63 - 1,
    after: StoredEvent | None = None,
    sent: Sequence[str] = (),
    limit: int = MOST_AT_ONCE,
) -> list[StoredEvent]:
    """Return the events that a wait looks back at, in their order.

    Args:
        since_ms: those that arrived since then.
        until_seq: the last one that is earlier than the wait.
        after: the last one that was returned before.
        sent: ids of further ones, which the run itself has just sent.
        limit: how many at most, without these.
    """
    values = {
        "run_id": run_id,
        "name": name,
        "since_ms": max(since_ms, after.received_ms) if after else since_ms,
        "until_seq": until_seq,
        "after_ms": after.received_ms if after else -1,
        "after_seq": after.seq if after else -1,
        "limit": limit,
    }
    rows = connection.execute(QUERIES["events_before"], values).fetchall()
    if sent:
        values = {"name": name, "ids": json_array(sent)}
        rows = sorted({*rows, *connection.execute(QUERIES["events_sent"], values)})
    return [
        StoredEvent(seq, event_id, name, received_ms, body)
        for seq, event_id, received_ms, body in rows
    ]


def first_match(
    connection: sqlite3.Connection,
    run_id: str,
    condition: str | None,
    events: Sequence[StoredEvent],
) -> StoredEvent | None:
    """Return the first of some events that fulfils a condition."""
    trigger = TriggerEvent(connection)
    for event in events:
        incoming = None if condition is None else expressions.read_event(event.body)
        if trigger.fits(run_id, condition, incoming, event.received_ms):
            return event
    return None


def since_ms(began_ms: int, timer: Timer, at: Moment) -> int:
    """Return since when the events arrived that a wait looks back at.

    Args:
        began_ms: when the request of its run came in.
    """
    lookback_ms = round(at.settings.event_lookback * 1000) + timer.lookback_ms
    return min(began_ms, at.now_ms - lookback_ms)


def _awaiting(connection: sqlite3.Connection, name: str) -> tuple[bool, list[TimerKind]]:
    """Return whether events of a name are being delivered, and which kinds of timers they end."""
    is_delivering, waits, cancels = connection.execute(QUERIES["awaiting"], (name,)).fetchone()
    found = ((TimerKind.EVENT, waits), (TimerKind.CANCEL, cancels))
    return bool(is_delivering), [kind for kind, there_are in found if there_are]


def _looked_up(
    connection: sqlite3.Connection,
    name: str,
    kinds: Sequence[TimerKind],
    incoming: Any,
    limit: int,
) -> Iterator[Group]:
    for kind in kinds:
        values = {"name": name, "kind": kind, "limit": limit}
        for (keys,) in connection.execute(QUERIES["match_keys"], values).fetchall():
            found = equalities.values_at(keys, incoming)
            if found is not None:
                yield Group(kind, keys, found)
