"""Events that are held until the run starts which they start together: debounce and batches."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec.structs import replace

from stephttp.engine.model.function import Function
from stephttp.engine.model.function_options import Batch, Debounce
from stephttp.engine.model.function_start import Start, StartingEvent
from stephttp.engine.model.held_start import Candidate, HeldStart, Hold
from stephttp.engine.model.inputs import Moment
from stephttp.engine.rules.functions.limit_names import limit_name, shown_key
from stephttp.engine.store import function_rows
from stephttp.engine.store.sql import QUERIES

LARGEST_BATCH = 10 * 1024 * 1024
"""Bytes of events with which a batch is complete."""
_PORTION = 100
"""Held runs that are looked at together."""


def debounce(
    connection: sqlite3.Connection, candidate: Candidate, key: str, option: Debounce, at: Moment
) -> int:
    """Hold an event in place of the one that was held, and return when its run is to start.

    Args:
        key: its value for the event.
    """
    held, opened_ms, _, _ = _add(connection, Hold.DEBOUNCE, candidate, key, at)
    connection.execute(QUERIES["keep_latest_event"], {"held": held})
    due_ms = at.now_ms + option.period_ms
    if option.timeout_ms is not None:
        due_ms = min(due_ms, opened_ms + option.timeout_ms)
    connection.execute(QUERIES["move_held_start"], (due_ms, _size(candidate.events), held))
    return due_ms


def gather(
    connection: sqlite3.Connection, candidate: Candidate, key: str, option: Batch, at: Moment
) -> Candidate | int:
    """Hold an event together with others, and return when their run is to start.

    Returns:
        The whole run, which is held no longer, if this event completes the batch.
    """
    held, opened_ms, came, size = _add(connection, Hold.BATCH, candidate, key, at)
    if came >= option.most or size >= LARGEST_BATCH:
        return release(connection, held, candidate.start)
    due_ms = opened_ms + option.timeout_ms
    connection.execute(QUERIES["move_held_start"], (due_ms, size, held))
    return due_ms


def release(connection: sqlite3.Connection, held: int, start: Start) -> Candidate:
    """Hold events no longer, and return the run that they start.

    Args:
        start: that of the latest event.
    """
    rows = connection.execute(QUERIES["held_events"], (held,)).fetchall()
    return Candidate(
        replace(start, run_id="", invoked_by=None),
        tuple(StartingEvent(*row) for row in rows),
        drop(connection, held),
    )


def drop(connection: sqlite3.Connection, held: int) -> tuple[str, ...]:
    """Forget held events, and return who wait for the run that they should have started."""
    rows = connection.execute(QUERIES["held_invokers"], (held,)).fetchall()
    for query in ("forget_held_events", "forget_held_invokers", "forget_held_start"):
        connection.execute(QUERIES[query], (held,))
    return tuple(invoked_by for (invoked_by,) in rows)


def due(connection: sqlite3.Connection, now_ms: int) -> tuple[list[HeldStart], int | None]:
    """Return held runs that are due, a portion of them, and when the next one will be."""
    known: dict[str, Function | None] = {}
    found: list[HeldStart] = []
    rows = connection.execute(QUERIES["due_held_starts"], (now_ms, _PORTION)).fetchall()
    room = LARGEST_BATCH
    for held, hold, fn_id, came, size, *latest in rows:
        if found and size > room:
            break
        room -= size
        if fn_id not in known:
            known[fn_id] = function_rows.load_function(connection, fn_id)
        event = StartingEvent(*latest)
        found.append(HeldStart(held, Hold(hold), came, known[fn_id], event))
    (next_ms,) = connection.execute(QUERIES["next_held_start"], (now_ms,)).fetchone()
    return found, next_ms


def is_as_it_was(connection: sqlite3.Connection, one: HeldStart, now_ms: int) -> bool:
    """Say whether a held run is still there, due, and of the same events."""
    values = (one.held, one.came, now_ms)
    return connection.execute(QUERIES["is_held_start"], values).fetchone() is not None


def _add(
    connection: sqlite3.Connection, hold: Hold, candidate: Candidate, key: str, at: Moment
) -> tuple[int, int, int, int]:
    """Add a run to the one that is held, and return its number, since when it is held, and how
    many events have come, of how many bytes."""
    fn_id, events = candidate.start.function.fn_id, candidate.events
    values = {
        "name": limit_name(f"{hold} {fn_id}", key),
        "hold": hold,
        "fn_id": fn_id,
        "shown": shown_key(key),
        "came": len(events),
        "size": _size(events),
        "now_ms": at.now_ms,
    }
    row: tuple[int, int, int, int]
    row = connection.execute(QUERIES["add_held_start"], values).fetchone()
    held = row[0]
    rows = [(held, one.event_id, one.name, one.ts, one.body) for one in events]
    connection.executemany(QUERIES["add_held_event"], rows)
    waiting = [(held, invoked_by) for invoked_by in candidate.invokers]
    connection.executemany(QUERIES["add_held_invoker"], waiting)
    return row


def _size(events: Sequence[StartingEvent]) -> int:
    return sum(len(one.body) for one in events)
